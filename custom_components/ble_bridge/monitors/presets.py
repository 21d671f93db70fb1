"""Which topics known systems use, and by which names they call what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .patterns import MessageKind, Pattern


class Preset(StrEnum):
    """Whose topics a monitor watches."""

    AUTOCORE = "autocore"
    BLE_BRIDGE = "ble_bridge"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a system says what it says.

    `patterns` gives for each topic below the base its kind, and what comes before the ID.
    The other names are keys of the payloads; of those of an event the first that is there
    counts. `plain_relays` tells that a relay in a topic of its own may say `ON` and no more.
    `dropped` are prefixes of names that say nothing. `lasting` are those before IDs whose
    status stands until another is said, so that silence tells nothing.
    """

    patterns: tuple[tuple[MessageKind, str, str], ...] = ()
    id_keys: tuple[str, ...] = ("device_id",)
    time_key: str = "timestamp"
    status_key: str = "status"
    ip_key: str = "ip_address"
    firmware_key: str = "firmware_version"
    uptime_key: str = "uptime"
    relay_index_key: str = "relay_index"
    relay_state_key: str = "state"
    triggered_by_key: str = "triggered_by"
    plain_relays: bool = False
    event_keys: tuple[str, ...] = ("event", "action", "type", "interaction")
    dropped: tuple[str, ...] = ()
    lasting: frozenset[str] = frozenset()
    manufacturer: str | None = None
    models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


DIALECTS: Final[Mapping[Preset, Dialect]] = {
    # specs/mqtt-monitor.md
    Preset.AUTOCORE: Dialect(
        (
            (MessageKind.STATUS, "+/status", ""),
            (MessageKind.TELEMETRY, "+/telemetry", ""),
            (MessageKind.RELAY, "+/relay/+/status", ""),
            (MessageKind.INTERACTION, "+/display/interaction", ""),
            (MessageKind.SYSTEM, "+/system/+", ""),
        ),
    ),
    # docs/topics.md: the heartbeats of other bridges
    Preset.BLE_BRIDGE: Dialect(
        (
            (MessageKind.STATUS, "scanner/+/status", "Scanner"),
            (MessageKind.STATUS, "bridge/+/status", "Bridge"),
        ),
        id_keys=("scanner_id",),
        uptime_key="uptime_seconds",
        dropped=("metrics_",),
        lasting=frozenset({"Bridge"}),
        manufacturer="BLE Bridge",
        models=MappingProxyType({"Scanner": "Bluetooth scanner", "Bridge": "Bridge"}),
    ),
    Preset.OWN: Dialect(plain_relays=True),
}
DEFAULT_BASES: Final = {Preset.AUTOCORE: "autocore", Preset.BLE_BRIDGE: "ble"}


def preset_patterns(preset: Preset, base: str) -> tuple[Pattern, ...]:
    """Return what a preset watches below a topic base; raises PatternError."""
    return tuple(
        Pattern.parse(kind, f"{base}/{levels}", owner)
        for kind, levels, owner in DIALECTS[preset].patterns
    )
