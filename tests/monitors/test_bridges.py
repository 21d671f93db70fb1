"""Other BLE Bridges as a monitor sees them, by the heartbeats that they publish."""

import time

from homeassistant.helpers import device_registry as dr
import pytest

from custom_components.ble_bridge.layouts.raw import (
    Heartbeat,
    bridge_topic,
    scanner_topic,
)
from custom_components.ble_bridge.records import Scanner
from scripts.simulation.subscriber import Subscriber

from ..conftest import SimulatedScanner, wait_until
from .garage import Clock, Garage

WATCHED = {"preset": "ble_bridge", "topic_base": "ble"}
SCANNER, BRIDGE = "Scanner attic-proxy", "Bridge attic"


async def beat(
    garage: Garage, status: str = "running", *, retain: bool = True, at: float = 0
) -> None:
    """Have another bridge say how its scanner is doing."""
    scanner = Scanner("AA:00:00:00:00:09", "attic-proxy", "Attic proxy")
    scanner.received = 1200
    heartbeat = Heartbeat(
        scanner=scanner,
        status=status,
        uptime=3600,
        devices=7,
        published=1100,
        dropped=100,
        connected=True,
        messages_sent=1101,
        reconnects=2,
        last_error=None,
    )
    await garage.say(
        scanner_topic("ble", "attic-proxy"),
        heartbeat.payload(time.time() + at),
        retain=retain,
        qos=1,
    )


async def test_another_bridge(garage: Garage, scanner: SimulatedScanner) -> None:
    """It and its scanners are devices; our own are not, for they are shown already."""
    await garage.say(bridge_topic("ble", "attic"), b"online", retain=True, qos=1)
    await beat(garage)
    async with Subscriber(garage.broker.port, "ble/#") as subscriber:
        for is_started in (False, True):
            await (garage.restart() if is_started else garage.start(WATCHED))
            await garage.connected()
            own = {
                scanner_topic("ble", "living-room-proxy"),
                bridge_topic("ble", "home"),
            }
            await subscriber.wait_for(lambda s: own <= set(s.counts))  # noqa: B023
            await wait_until(lambda: len(garage.monitor.devices) == 2)
            await garage.tick(61)
            await beat(garage, retain=False)
            await wait_until(lambda: garage.value("status", SCANNER) == "running")
            assert set(garage.monitor.devices) == {SCANNER, BRIDGE}
            assert not garage.monitor.errors
    shown = {
        name: garage.value(f"field!{name}", SCANNER)
        for name in (
            *("devices", "advertisements_received", "advertisements_published"),
            *("advertisements_dropped", "mqtt_connected", "mqtt_messages_sent"),
            "mqtt_reconnects",
        )
    }
    assert shown == {
        "devices": "7",
        "advertisements_received": "1200",
        "advertisements_published": "1100",
        "advertisements_dropped": "100",
        "mqtt_connected": "on",
        "mqtt_messages_sent": "1101",
        "mqtt_reconnects": "2",
    }
    assert garage.value("online", BRIDGE) == "on"
    for name, model in ((SCANNER, "Bluetooth scanner"), (BRIDGE, "Bridge")):
        device = garage.device(name)
        assert device is not None
        assert (device.manufacturer, device.model) == ("BLE Bridge", model)
        assert device.name == name


@pytest.mark.usefixtures("scanner")
async def test_another_bridge_goes(garage: Garage, clock: Clock) -> None:
    """A scanner is gone when its bridge says so, and a bridge when the broker does."""
    await garage.start(WATCHED)
    await garage.say(bridge_topic("ble", "attic"), b"online", retain=True)
    await beat(garage)
    await wait_until(lambda: garage.value("online", SCANNER) == "on")
    await wait_until(lambda: garage.value("online", BRIDGE) == "on")
    await beat(garage, "offline")
    await wait_until(lambda: garage.value("online", SCANNER) == "off")
    await beat(garage)
    await wait_until(lambda: garage.value("online", SCANNER) == "on")
    await beat(garage, "stopped")
    await garage.say(bridge_topic("ble", "attic"), b"offline", retain=True)
    await wait_until(lambda: garage.value("online", BRIDGE) == "off")
    assert garage.value("online", SCANNER) == "off"
    assert garage.value("status", SCANNER) == "stopped"
    # A bridge only speaks when it comes and goes
    await garage.say(bridge_topic("ble", "attic"), b"online", retain=True)
    await beat(garage)
    await wait_until(lambda: garage.value("online", SCANNER) == "on")
    clock.advance(301)
    await garage.tick()
    assert garage.value("online", SCANNER) == "off"
    assert garage.value("online", BRIDGE) == "on"


async def test_two_of_one_name(garage: Garage) -> None:
    """A bridge and a scanner of the same ID are two devices."""
    await garage.start(WATCHED)
    await garage.say("ble/bridge/same/status", b"online")
    await garage.say("ble/scanner/same/status", b"offline")
    await wait_until(lambda: len(garage.monitor.devices) == 2)
    await garage.hass.async_block_till_done()
    assert garage.value("online", "Bridge same") == "on"
    assert garage.value("online", "Scanner same") == "off"
    registry = dr.async_get(garage.hass)
    found = dr.async_entries_for_config_entry(registry, garage.entry.entry_id)
    names = {device.name for device in found}
    assert {"Bridge same", "Scanner same"} <= names
