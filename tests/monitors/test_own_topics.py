"""Topics of the user's own: every kind of message, and one value in a topic of its own."""

from typing import Any

import pytest

from custom_components.ble_bridge.monitors.messages import Reason

from ..conftest import wait_until
from .garage import Garage, moment, telemetry

HOUSE = {
    "preset": "own",
    "status_topics": ["house/+/online", "lwt/+"],
    "telemetry_topics": ["house/+/all", "house/+/sensor/+"],
    "relay_topics": ["house/+/output/+/state", "house/+/switch"],
    "interaction_topics": ["house/+/button"],
    "system_topics": ["house/+/log/+", "alarm/+"],
}


async def say(
    garage: Garage, topic: str, payload: Any, *, retain: bool = False
) -> None:
    """Publish something, and wait until it was read, or was not."""
    before = garage.judged
    await garage.say(topic, payload, retain=retain)
    await wait_until(lambda: garage.judged > before)
    await garage.hass.async_block_till_done()


async def test_every_kind(garage: Garage) -> None:
    """What the user says stands where, is found there."""
    await garage.start(HOUSE)
    await say(garage, "house/boiler/online", {"status": "online", "uptime": 60})
    await say(garage, "house/boiler/all", {"Water": {"tempC": 61.5}, "heating": True})
    await say(garage, "house/boiler/output/pump/state", {"state": "ON"})
    await say(garage, "house/boiler/switch", {"relay_index": 3, "state": 0})
    await say(garage, "house/boiler/button", {"type": "Double"})
    await say(garage, "house/boiler/log/warn", {"text": "Hot"})
    await say(garage, "lwt/shed", b"offline")
    await say(garage, "alarm/shed", {"event": "Door open", "zone": 4})
    assert garage.monitor.errors == 0
    shown = {
        key: garage.value(key, "boiler")
        for key in (
            *("online", "status", "field!water_temp_c", "field!heating"),
            *("relay!pump", "relay!3"),
        )
    }
    assert shown == {
        "online": "on",
        "status": "online",
        "field!water_temp_c": "61.5",
        "field!heating": "on",
        "relay!pump": "on",
        "relay!3": "off",
    }
    state = garage.state("field!water_temp_c", "boiler")
    assert state is not None
    assert state.attributes["unit_of_measurement"] == "°C"
    for key, event in (("interaction", "double"), ("system", "warn")):
        state = garage.state(key, "boiler")
        assert state is not None
        assert state.attributes["event_type"] == event
    state = garage.state("system", "shed")
    assert state is not None
    assert state.attributes["event_type"] == "door_open"
    # Who reports an alarm is there
    assert garage.value("online", "shed") == "on"


@pytest.mark.parametrize(
    ("topic", "payload", "key", "shown"),
    [
        ("temperature", b"21.5", "field!temperature", "21.5"),
        ("temperature", b'{"value": 21.5}', "field!temperature", "21.5"),
        ("temperature", b'{"value": 21.5, "unit": "K"}', "field!temperature", "21.5"),
        ("Air Pressure hPa", b"1013", "field!air_pressure_h_pa", "1013"),
        ("mode", b'"eco"', "field!mode", "eco"),
        ("door", b"true", "field!door", "on"),
        ("level", b" 7 ", "field!level", "7"),
    ],
)
async def test_one_value(
    garage: Garage, topic: str, payload: bytes, key: str, shown: str
) -> None:
    """A value in a topic of its own is plain JSON, or stands under `value`."""
    await garage.start(HOUSE)
    await say(garage, f"house/boiler/sensor/{topic}", payload, retain=True)
    assert garage.value(key, "boiler") == shown
    await garage.restart()
    assert garage.value(key, "boiler") == shown


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"ON", "on"),
        (b" off\r\n", "off"),
        (b'"On"', "on"),
        (b"0", "off"),
        (b"true", "on"),
    ],
)
async def test_plain_relay(garage: Garage, payload: bytes, shown: str) -> None:
    """A relay in a topic of its own may be a plain word, though it cannot tell its time."""
    await garage.start({**HOUSE, "needs_time": True})
    await say(garage, "house/boiler/output/pump/state", payload)
    assert garage.value("relay!pump", "boiler") == shown
    await say(garage, "house/boiler/switch", payload)
    assert garage.monitor.dead_letters.total == 1
    await say(garage, "house/boiler/output/pump/state", b"maybe")
    assert garage.monitor.dead_letters.total == 2
    assert garage.value("relay!pump", "boiler") == shown


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"null", Reason.INCOMPLETE),
        (b'{"value": null}', Reason.INCOMPLETE),
        (b"{}", Reason.INCOMPLETE),
        (b"[1]", Reason.NOT_AN_OBJECT),
        (b"on", Reason.NOT_JSON),
        (b"1e999", Reason.NUMBER_TOO_LARGE),
    ],
)
async def test_no_value(garage: Garage, payload: bytes, reason: Reason) -> None:
    """What is no value is a dead letter."""
    await garage.start(HOUSE)
    await say(garage, "house/boiler/sensor/temperature", payload)
    assert garage.monitor.dead_letters.counts == {reason: 1}
    assert not garage.monitor.devices


async def test_time_needed(garage: Garage) -> None:
    """Where the user says so, all but plain values tell when they were."""
    await garage.start({**HOUSE, "needs_time": True})
    await say(garage, "house/boiler/sensor/temperature", b"21")
    await say(garage, "house/boiler/sensor/humidity", {"value": 50})
    await say(garage, "house/boiler/all", {"voltage": 3})
    await say(garage, "house/boiler/all", {"voltage": 4, "timestamp": moment()})
    assert garage.monitor.dead_letters.counts == {Reason.TIME_MISSING: 2}
    assert garage.value("field!temperature", "boiler") == "21"
    assert garage.value("field!humidity", "boiler") is None
    assert garage.value("field!voltage", "boiler") == "4"


async def test_nothing_there(garage: Garage) -> None:
    """What is nobody's topic, and what clears a topic, is no message."""
    await garage.start(HOUSE)
    for topic in ("house/boiler/sensor", "house/boiler/sensor/a/b", "house//all"):
        await garage.say(topic, telemetry("boiler"), qos=1)
    await garage.say("house/boiler/all", b"", retain=True, qos=1)
    await say(garage, "house/last/all", {"voltage": 1})
    assert list(garage.monitor.devices) == ["last"]
    # `+` stands for nothing as well
    assert garage.monitor.dead_letters.counts == {Reason.INVALID_ID: 1}
