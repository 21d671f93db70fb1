"""Moving averages, and values that are unusual: what is shown, told, and published."""

from collections.abc import AsyncIterator
from typing import Any

from homeassistant.core import Event, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.typing import WebSocketGenerator

from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from ..conftest import wait_until
from ..layouts.samples import validated
from ..test_removal import remove
from .garage import DEVICE, Garage, moment, telemetry

ANOMALIES = {"anomalies": True, "window": 10, "deviations": 3.0}
# What a broker keeps, and what is not sent while it is away
KEPT = {"fields": {"alert": "1_retain"}, "delivery": {"alert": "drop"}}
ALERT = f"telemetry/{DEVICE}/alerts/temperature_anomaly"
CURRENT, HISTORY = f"{ALERT}/current", f"{ALERT}/history"


@pytest.fixture(name="alerts")
async def alerts_fixture(broker: Mosquitto) -> AsyncIterator[Subscriber]:
    """Return who hears what is published of alerts."""
    async with Subscriber(broker.port, "telemetry/+/alerts/#") as subscriber:
        yield subscriber


# --- averages -----------------------------------------------------------------------------


async def average(garage: Garage, name: str = "temperature") -> None:
    """Have the moving average of a value shown."""
    registry = er.async_get(garage.hass)
    entity_id = garage.entity_id(f"average!{name}")
    assert entity_id is not None
    registry.async_update_entity(entity_id, disabled_by=None)
    await garage.restart()
    await garage.connected()


async def test_average(garage: Garage) -> None:
    """It is that of the last values, also of those before a restart, and off by default."""
    await garage.start({"average": 3})
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=17))
    assert garage.value("average!temperature") is None
    await average(garage)
    assert garage.value("average!temperature") == "17.0"
    for value, mean in ((21, "19.0"), (22, "20.0"), (26, "23.0"), (True, "23.0")):
        await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=value))
        assert garage.value("average!temperature") == mean
    state = garage.state("average!temperature")
    assert state is not None
    assert state.attributes["unit_of_measurement"] == "°C"
    assert state.attributes["device_class"] == "temperature"
    assert state.attributes["state_class"] == "measurement"
    assert state.name == f"{DEVICE} Temperature moving average"
    await garage.restart()
    assert garage.value("average!temperature") == "23.0"
    await garage.connected()
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=27))
    assert garage.value("average!temperature") == "25.0"
    await garage.change(average=2)
    assert garage.value("average!temperature") == "26.5"
    await garage.change(average=1)
    assert garage.entity_id("average!temperature") is None


async def test_average_of_a_sum(garage: Garage) -> None:
    """The average of what only grows is a measurement, and of no class that must grow."""
    await garage.start()
    await garage.tell(f"{DEVICE}/telemetry", telemetry(pump_energy=5))
    await average(garage, "pump_energy")
    state = garage.state("average!pump_energy")
    assert state is not None
    assert state.attributes["state_class"] == "measurement"
    assert "device_class" not in state.attributes
    state = garage.state("field!pump_energy")
    assert state is not None
    assert state.attributes["device_class"] == "energy"


async def test_kept_value_counts_once(garage: Garage) -> None:
    """What the broker tells again with each connection is no new value."""
    await garage.start({"average": 3, **ANOMALIES})
    for value in (10, 20):
        await garage.tell(
            f"{DEVICE}/telemetry", telemetry(temperature=value), retain=True
        )
    await average(garage)
    await wait_until(lambda: garage.monitor.processed)
    assert garage.value("average!temperature") == "20.0"
    for value in (10, 21):
        await garage.tell(
            f"{DEVICE}/telemetry", telemetry(temperature=value), retain=True
        )
    assert garage.value("average!temperature") == "17.0"
    for _ in range(3):
        await garage.restart()
        await wait_until(lambda: garage.monitor.processed)
        assert garage.value("average!temperature") == "17.0"
    (device,) = garage.monitor.devices.values()
    assert device.watches["temperature"].state()["values"] == [10, 20, 10, 21]


# --- anomalies ----------------------------------------------------------------------------


async def usual(garage: Garage, name: str = DEVICE, **values: float) -> None:
    """Have a device say for a while what it always says."""
    for number in range(10):
        said = {key: value + number % 2 / 10 for key, value in values.items()}
        await garage.tell(f"{name}/telemetry", {"timestamp": moment(), **said})


def listen(garage: Garage) -> list[dict[str, Any]]:
    """Return a list of what is told of alerts from now on."""
    told: list[dict[str, Any]] = []

    @callback
    def tell(event: Event[Any]) -> None:
        told.append(dict(event.data))

    garage.hass.bus.async_listen("ble_bridge_alert", tell)
    return told


def fields(garage: Garage) -> list[str]:
    """Return what the problem sensor names; it is on if there is anything."""
    state = garage.state("anomaly")
    assert state is not None
    named: list[str] = state.attributes["fields"]
    assert state.state == ("on" if named else "off")
    assert state.attributes["device_class"] == "problem"
    return named


async def test_anomaly(garage: Garage, alerts: Subscriber) -> None:
    """It is shown, told as an event, and published as an alert; and so is its end."""
    await garage.start(ANOMALIES, destination=KEPT)
    told = listen(garage)
    await usual(garage, temperature=20, humidity=50)
    assert fields(garage) == []
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40, humidity=80))
    assert fields(garage) == ["humidity", "temperature"]
    await garage.tell(f"{DEVICE}/telemetry", {"timestamp": moment(), "temperature": 20})
    assert fields(garage) == ["humidity"]
    device = garage.device()
    assert device is not None
    started, ended = (event for event in told if event["name"] == "temperature anomaly")
    assert started == {
        "device": DEVICE,
        "device_name": DEVICE,
        "device_id": device.id,
        "name": "temperature anomaly",
        "kind": "anomaly",
        "state": "started",
        "started_at": started["started_at"],
        "ended_at": None,
        "audiences": [],
    }
    assert ended == {**started, "state": "ended", "ended_at": ended["ended_at"]}
    assert ended["ended_at"] >= started["started_at"]
    await alerts.wait_for(lambda s: s.counts[HISTORY] == 2)
    history = [validated(m.payload, "alert") for m in alerts.on_topic(HISTORY)]
    current = [validated(m.payload, "alert") for m in alerts.on_topic(CURRENT)]
    assert history == current
    assert [alert["EndedAt"] is None for alert in current] == [True, False]
    async with Subscriber(garage.broker.port, "telemetry/#") as later:
        message = await later.wait_for_message(CURRENT)
        assert message.retain
        assert message.json() == current[1]


async def test_anomaly_outlasts_a_restart(garage: Garage, alerts: Subscriber) -> None:
    """What was unusual before a restart is so after it, and ends when the value is usual."""
    await garage.start(ANOMALIES, destination=KEPT)
    told = listen(garage)
    await usual(garage, temperature=20)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    await garage.restart()
    assert fields(garage) == ["temperature"]
    await garage.connected()
    # A broker that has lost what it kept is told again
    await alerts.wait_for(lambda s: s.counts[CURRENT] == 2)
    assert alerts.counts[HISTORY] == 1
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=20))
    assert fields(garage) == []
    started, ended = told
    assert ended["started_at"] == started["started_at"]
    await alerts.wait_for(lambda s: s.counts[HISTORY] == 2)


async def test_anomaly_outlasts_a_crash(
    garage: Garage, hass_storage: dict[str, Any]
) -> None:
    """An alert is on disk soon after it began."""
    await garage.start(ANOMALIES)
    await usual(garage, temperature=20)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    assert "ble_bridge.monitors" not in hass_storage
    await garage.tick(3)
    await wait_until(lambda: "ble_bridge.monitors" in hass_storage)
    kept = hass_storage["ble_bridge.monitors"]["data"][garage.monitor.subentry_id]
    assert kept["devices"][DEVICE]["watches"]["temperature"]["is_on"]


async def test_alerts_do_not_wear_the_disk(
    garage: Garage, hass_storage: dict[str, Any]
) -> None:
    """However often a value is unusual, it is written a few times a minute."""
    await garage.start(ANOMALIES)
    await usual(garage, temperature=20)

    def is_on() -> bool:
        """Tell whether the alert is open, as it is on disk."""
        stored = hass_storage["ble_bridge.monitors"]["data"]
        device = stored[garage.monitor.subentry_id]["devices"][DEVICE]
        return bool(device["watches"]["temperature"]["is_on"])

    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    await garage.tick(3)
    await wait_until(lambda: "ble_bridge.monitors" in hass_storage)
    assert is_on()
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=20))
    await garage.tick(3)
    assert is_on()
    await garage.tick(16)
    await wait_until(lambda: not is_on())


async def test_kept_each_quarter_of_an_hour(
    garage: Garage, hass_storage: dict[str, Any]
) -> None:
    """Values are on disk in time for a power cut."""
    await garage.start()
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    await garage.tick(15 * 60 + 1)
    await wait_until(lambda: "ble_bridge.monitors" in hass_storage)
    kept = hass_storage["ble_bridge.monitors"]["data"][garage.monitor.subentry_id]
    assert kept["devices"][DEVICE]["values"]["temperature"] == 25.6


async def test_anomalies_switched_off(garage: Garage, alerts: Subscriber) -> None:
    """What is open ends with it, on the broker too, and nothing is shown of it any more."""
    await garage.start(ANOMALIES, destination=KEPT)
    told = listen(garage)
    await usual(garage, temperature=20)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    await garage.change(anomalies=False)
    assert [event["state"] for event in told] == ["started", "ended"]
    await alerts.wait_for(lambda s: s.counts[HISTORY] == 2)
    assert alerts.on_topic(CURRENT)[-1].json()["EndedAt"] is not None
    assert garage.entity_id("anomaly") is None
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=90))
    await garage.restart()
    assert garage.entity_id("anomaly") is None
    assert len(told) == 2
    await garage.change(anomalies=True)
    await usual(garage, temperature=20)
    assert fields(garage) == []


async def test_switched_off_while_stopped(garage: Garage, alerts: Subscriber) -> None:
    """What was open when the bridge was stopped ends when it begins without anomalies."""
    durable = {**KEPT, "delivery": {"alert": "durable"}}
    await garage.start(ANOMALIES, destination=durable)
    told = listen(garage)
    await usual(garage, temperature=20)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    entries = garage.hass.config_entries
    assert await entries.async_unload(garage.entry.entry_id)
    (monitor,) = (
        subentry
        for subentry in garage.entry.subentries.values()
        if subentry.subentry_type == "monitor"
    )
    entries.async_update_subentry(
        garage.entry, monitor, data={**monitor.data, "anomalies": False}
    )
    assert await entries.async_setup(garage.entry.entry_id)
    await garage.hass.async_block_till_done()
    assert [event["state"] for event in told] == ["started", "ended"]
    assert garage.entity_id("anomaly") is None
    await alerts.wait_for(lambda s: s.counts[HISTORY] == 2)


async def test_monitor_with_anomaly_removed(garage: Garage, alerts: Subscriber) -> None:
    """An alert that is open ends with the monitor, and the broker keeps nothing of it."""
    await garage.start(ANOMALIES, destination=KEPT)
    told = listen(garage)
    await usual(garage, temperature=20)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=40))
    garage.hass.config_entries.async_remove_subentry(
        garage.entry, garage.monitor.subentry_id
    )
    await garage.hass.async_block_till_done()
    assert [event["state"] for event in told] == ["started", "ended"]
    await alerts.wait_for_message(CURRENT, b"")
    assert alerts.counts[HISTORY] == 2


async def test_device_with_anomaly_removed(
    garage: Garage, alerts: Subscriber, hass_ws_client: WebSocketGenerator
) -> None:
    """An alert that is open ends with the device, and the broker keeps nothing of it."""
    assert await async_setup_component(garage.hass, "config", {})
    await garage.start(ANOMALIES, destination=KEPT)
    told = listen(garage)
    for name in (DEVICE, "other"):
        await usual(garage, name, temperature=20)
        await garage.tell(f"{name}/telemetry", telemetry(name, temperature=40))
    client = await hass_ws_client(garage.hass)
    assert await remove(client, garage.device())
    assert [event["state"] for event in told] == ["started", "started", "ended"]
    await alerts.wait_for_message(CURRENT, b"")
    assert alerts.counts[HISTORY] == 2
    other = CURRENT.replace(DEVICE, "other")
    assert [message.payload != b"" for message in alerts.on_topic(other)] == [True]
