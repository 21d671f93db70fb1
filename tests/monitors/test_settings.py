"""How a monitor is set up, from what its form makes."""

from typing import Any

import pytest

from custom_components.ble_bridge.monitors.device import Watching
from custom_components.ble_bridge.monitors.patterns import MessageKind, PatternError
from custom_components.ble_bridge.monitors.presets import DIALECTS, Preset
from custom_components.ble_bridge.monitors.settings import (
    MonitorSettings,
    monitor_data,
    monitor_settings,
)


def settings(**changes: Any) -> MonitorSettings:
    """Return the settings of a monitor."""
    data = {
        "preset": "autocore",
        "destination": "home",
        "topic_base": "autocore",
        "status_topics": ["+/status"],
    }
    return monitor_settings({**data, **changes})


def test_defaults() -> None:
    """What is not said is what suits most."""
    found = settings()
    assert found == MonitorSettings(
        destination="home",
        preset=Preset.AUTOCORE,
        patterns=found.patterns,
        qos=1,
        group=None,
        needs_time=True,
        max_payload=65_536,
        max_devices=250,
        mark_stale=False,
        watching=Watching(timeout=300, average=10, deviations=None, window=20),
        critical_relays=(),
        dead_letter_topic=None,
    )
    assert found.filters[0] == "autocore/+/status"
    assert found.dialect is DIALECTS[Preset.AUTOCORE]


@pytest.mark.parametrize(
    ("preset", "needs_time"), [("autocore", True), ("ble_bridge", True), ("own", False)]
)
def test_times(preset: str, needs_time: bool) -> None:
    """Systems whose messages are known tell their time, others perhaps."""
    assert monitor_data({"preset": preset})["needs_time"] is needs_time
    assert settings(preset=preset, needs_time=False).needs_time is False
    assert settings(preset=preset, needs_time=True).needs_time is True


def test_all() -> None:
    """What is said counts; numbers are as forms and JSON have them."""
    found = settings(
        qos="2",
        max_kilobytes=1.0,
        max_devices=5.0,
        mark_stale=True,
        timeout=60,
        average=5.0,
        anomalies=True,
        deviations=2.5,
        window=30.0,
        critical_relays=["ESP32_001/0"],
        dead_letter_topic="dead",
    )
    assert (found.qos, found.max_payload, found.max_devices) == (2, 1024, 5)
    assert found.mark_stale
    assert found.watching == Watching(timeout=60, average=5, deviations=2.5, window=30)
    assert found.critical_relays == ("ESP32_001/0",)
    assert found.dead_letter_topic == "dead"
    assert settings(deviations=2.5).watching.deviations is None


def test_shared() -> None:
    """Those who say the same group share the messages of all topics."""
    found = settings(share_group="homes", preset="ble_bridge", topic_base="ble")
    assert found.filters == (
        "$share/homes/ble/scanner/+/status",
        "$share/homes/ble/bridge/+/status",
    )


def test_own() -> None:
    """A user's own topics, by the kind of their messages."""
    found = settings(
        preset="own",
        relay_topics=["a/+/relay/+"],
        status_topics=["a/+/status", "b/+/status"],
        telemetry_topics=None,
    )
    assert [(p.kind, p.filter) for p in found.patterns] == [
        (MessageKind.STATUS, "a/+/status"),
        (MessageKind.STATUS, "b/+/status"),
        (MessageKind.RELAY, "a/+/relay/+"),
    ]
    with pytest.raises(PatternError, match="pattern_without_id"):
        settings(preset="own", status_topics=["a/status"])
    with pytest.raises(ValueError, match="somebody"):
        settings(preset="somebody")


@pytest.mark.parametrize(
    ("wanted", "device", "relay", "expected"),
    [
        ([], "ESP32_001", "0", False),
        (["ESP32_001/0"], "ESP32_001", "0", True),
        (["ESP32_001/0"], "ESP32_001", "1", False),
        (["ESP32_001/0"], "ESP32_0010", "0", False),
        (["ESP32_001/0"], "esp32_001", "0", False),
        (["ESP32_001/1", "*/0"], "anything", "0", True),
        (["ESP32_*/[01]"], "ESP32_7", "1", True),
        (["*/*"], "a", "b", True),
    ],
)
def test_critical(wanted: list[str], device: str, relay: str, expected: bool) -> None:
    """A critical relay is named by its device and its index, perhaps with wildcards."""
    assert settings(critical_relays=wanted).is_critical(device, relay) is expected
