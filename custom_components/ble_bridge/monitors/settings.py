"""How a monitor is set up: from the data of its subentry."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from ..const import (
    CONF_ANOMALIES,
    CONF_AVERAGE,
    CONF_CRITICAL_RELAYS,
    CONF_DEAD_LETTER_TOPIC,
    CONF_DESTINATION,
    CONF_DEVIATIONS,
    CONF_MARK_STALE,
    CONF_MAX_DEVICES,
    CONF_MAX_KILOBYTES,
    CONF_NEEDS_TIME,
    CONF_PRESET,
    CONF_QOS,
    CONF_SHARE_GROUP,
    CONF_TIMEOUT,
    CONF_TOPIC_BASE,
    CONF_WINDOW,
)
from .device import Watching
from .patterns import MessageKind, Pattern, PatternError
from .presets import DIALECTS, Dialect, Preset, preset_patterns

DEFAULT_TIMEOUT: Final = 300
DEFAULT_MAX_DEVICES: Final = 250
DEFAULT_MAX_KILOBYTES: Final = 64
DEFAULT_AVERAGE: Final = 10
# Fewer values have no average that is worth a look.
LEAST_AVERAGED: Final = 2
KILOBYTE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """What a monitor watches, and how.

    `destination` is the subentry whose connection it uses. `max_payload` is in bytes. With
    `group`, messages are shared out among all who say the same group.
    """

    destination: str
    preset: Preset
    patterns: tuple[Pattern, ...]
    qos: int = 1
    group: str | None = None
    needs_time: bool = True
    max_payload: int = DEFAULT_MAX_KILOBYTES * KILOBYTE
    max_devices: int = DEFAULT_MAX_DEVICES
    mark_stale: bool = False
    watching: Watching = field(default_factory=Watching)
    critical_relays: tuple[str, ...] = ()
    dead_letter_topic: str | None = None

    @property
    def dialect(self) -> Dialect:
        """Return how the system that is watched says what it says."""
        return DIALECTS[self.preset]

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the topic filters to subscribe to."""
        share = f"$share/{self.group}/" if self.group else ""
        return tuple(share + pattern.filter for pattern in self.patterns)

    def watching_of(self, owner: str) -> Watching:
        """Return how a device is watched: one whose status lasts may say nothing for ever."""
        if owner in self.dialect.lasting:
            return replace(self.watching, timeout=0)
        return self.watching

    def is_critical(self, device_id: str, relay: str) -> bool:
        """Tell whether the user is to be told when a relay changes."""
        name = f"{device_id}/{relay}"
        return any(fnmatchcase(name, wanted) for wanted in self.critical_relays)


def monitor_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a monitor's data with what is not said."""
    preset = Preset(data[CONF_PRESET])
    return {
        CONF_QOS: 1,
        CONF_SHARE_GROUP: None,
        CONF_NEEDS_TIME: preset is not Preset.OWN,
        CONF_MAX_KILOBYTES: DEFAULT_MAX_KILOBYTES,
        CONF_MAX_DEVICES: DEFAULT_MAX_DEVICES,
        CONF_MARK_STALE: False,
        CONF_TIMEOUT: DEFAULT_TIMEOUT,
        CONF_AVERAGE: DEFAULT_AVERAGE,
        CONF_ANOMALIES: False,
        CONF_DEVIATIONS: 3.0,
        CONF_WINDOW: 20,
        CONF_CRITICAL_RELAYS: [],
        CONF_DEAD_LETTER_TOPIC: None,
        **data,
    }


def patterns(data: Mapping[str, Any]) -> tuple[Pattern, ...]:
    """Return what a monitor watches; raises PatternError."""
    preset = Preset(data[CONF_PRESET])
    if preset is not Preset.OWN:
        return preset_patterns(preset, data[CONF_TOPIC_BASE])
    return tuple(
        Pattern.parse(kind, text) for kind in MessageKind for text in own(data, kind)
    )


def own(data: Mapping[str, Any], kind: MessageKind) -> Iterable[str]:
    """Return the user's own patterns of a kind of message."""
    found: list[str] = data.get(f"{kind.value}_topics") or []
    return found


def monitor_settings(data: Mapping[str, Any]) -> MonitorSettings:
    """Return how a monitor is set up; raises PatternError, or what wrong types raise."""
    said = monitor_data(data)
    if not (watched := patterns(said)):
        raise PatternError("no_patterns")
    return MonitorSettings(
        destination=said[CONF_DESTINATION],
        preset=Preset(said[CONF_PRESET]),
        patterns=watched,
        qos=int(said[CONF_QOS]),
        group=said[CONF_SHARE_GROUP],
        needs_time=said[CONF_NEEDS_TIME],
        max_payload=int(said[CONF_MAX_KILOBYTES]) * KILOBYTE,
        max_devices=int(said[CONF_MAX_DEVICES]),
        mark_stale=said[CONF_MARK_STALE],
        watching=Watching(
            timeout=float(said[CONF_TIMEOUT]),
            average=int(said[CONF_AVERAGE]),
            deviations=said[CONF_DEVIATIONS] if said[CONF_ANOMALIES] else None,
            window=int(said[CONF_WINDOW]),
        ),
        critical_relays=tuple(said[CONF_CRITICAL_RELAYS]),
        dead_letter_topic=said[CONF_DEAD_LETTER_TOPIC],
    )
