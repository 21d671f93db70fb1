"""What the systems are called that a monitor knows, and where their messages are."""

import pytest

from custom_components.ble_bridge.monitors.patterns import (
    MessageKind,
    PatternError,
    overlapping,
)
from custom_components.ble_bridge.monitors.presets import (
    DEFAULT_BASES,
    DIALECTS,
    Preset,
    preset_patterns,
)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        # MONITORED_TOPICS of specs/mqtt-monitor.md
        (
            Preset.AUTOCORE,
            [
                (MessageKind.STATUS, "autocore/+/status", ""),
                (MessageKind.TELEMETRY, "autocore/+/telemetry", ""),
                (MessageKind.RELAY, "autocore/+/relay/+/status", ""),
                (MessageKind.INTERACTION, "autocore/+/display/interaction", ""),
                (MessageKind.SYSTEM, "autocore/+/system/+", ""),
            ],
        ),
        # docs/topics.md
        (
            Preset.BLE_BRIDGE,
            [
                (MessageKind.STATUS, "ble/scanner/+/status", "Scanner"),
                (MessageKind.STATUS, "ble/bridge/+/status", "Bridge"),
            ],
        ),
    ],
)
def test_presets(preset: Preset, expected: list[tuple[MessageKind, str, str]]) -> None:
    """A preset watches the topics of its system below a base."""
    found = preset_patterns(preset, DEFAULT_BASES[preset])
    assert [(p.kind, p.filter, p.owner) for p in found] == expected
    assert overlapping(found) is None
    (first, *_) = preset_patterns(preset, "site/two")
    assert first.levels[:2] == ("site", "two")


def test_own() -> None:
    """The topics of any other system are the user's to say."""
    assert preset_patterns(Preset.OWN, "garage") == ()
    assert set(DIALECTS) == set(Preset)


@pytest.mark.parametrize("base", ["", "a//b", "a/+", "$SYS", "two words"])
def test_no_base(base: str) -> None:
    """What can be no topic base is refused."""
    with pytest.raises(PatternError):
        preset_patterns(Preset.AUTOCORE, base)
