"""The entities of the bridge and of its destinations."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from homeassistant.const import STATE_UNAVAILABLE, EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto

from .conftest import SimulatedScanner, destination_data, is_connected, wait_until
from .destinations.faults import later_stopped, stream

type Setup = Callable[..., Any]

DIAGNOSTIC = EntityCategory.DIAGNOSTIC
MEASUREMENT, TOTAL = "measurement", "total_increasing"


async def statistics(hass: HomeAssistant) -> None:
    """Have the figures worked out."""
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(seconds=31))
    await hass.async_block_till_done()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("advertisement_rate", (MEASUREMENT, None, "/s", None)),
        ("devices", (MEASUREMENT, None, "devices", None)),
        ("scanners", (MEASUREMENT, None, "scanners", None)),
        ("messages", (TOTAL, None, "messages", None)),
        ("bytes", (TOTAL, "data_size", "MB", DIAGNOSTIC)),
        ("rate", (MEASUREMENT, None, "messages/s", None)),
        ("latency", (MEASUREMENT, "duration", "ms", DIAGNOSTIC)),
        ("dropped", (TOTAL, None, "messages", DIAGNOSTIC)),
        ("failed", (TOTAL, None, "messages", DIAGNOSTIC)),
        ("reconnects", (TOTAL, None, "reconnects", DIAGNOSTIC)),
        ("last_error", (None, "enum", None, DIAGNOSTIC)),
        ("connected", (None, "connectivity", None, DIAGNOSTIC)),
    ],
)
async def test_kinds(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Setup,
    key: str,
    expected: tuple[str | None, str | None, str | None, EntityCategory | None],
) -> None:
    """Each entity is what statistics and dashboards take it for, and has a name."""
    entry = await setup(destination_data(broker.port))
    registry = er.async_get(hass)
    [entity] = [
        entity
        for entity in er.async_entries_for_config_entry(registry, entry.entry_id)
        if entity.unique_id.partition("_")[2] == key
    ]
    state = hass.states.get(entity.entity_id)
    assert state
    assert expected == (
        state.attributes.get("state_class"),
        state.attributes.get("device_class"),
        state.attributes.get("unit_of_measurement"),
        entity.entity_category,
    )
    assert state.attributes["friendly_name"] not in ("BLE Bridge", entry.title)
    assert entity.has_entity_name


async def test_values(
    hass: HomeAssistant,
    broker: Mosquitto,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
) -> None:
    """The figures are those of what happened; totals only grow."""
    one = add_scanner()
    two = add_scanner("AA:00:00:00:00:02", "Attic proxy")
    await setup(destination_data(broker.port))
    port = broker.port

    def value(key: str) -> float:
        state = hass.states.get(f"sensor.{key}")
        assert state, key
        return float(state.state)

    destination = f"127_0_0_1_{port}"
    for index in range(20):
        one.hear(address=f"C0:00:00:00:00:{index:02X}")
        two.hear(address=f"C0:00:00:00:00:{index // 2:02X}")
    await hass.async_block_till_done()
    await statistics(hass)
    assert value(f"{destination}_messages") == 40
    assert value("ble_bridge_devices_on_air") == 20
    assert value("ble_bridge_scanners") == 3  # With the adapter of the test fixture
    assert value("ble_bridge_advertisements") > 0
    assert value(f"{destination}_message_rate") > 0
    assert 0 < value(f"{destination}_latency") < 1_000
    assert 0.01 < value(f"{destination}_data") < 0.03
    assert value(f"{destination}_dropped_messages") == 0
    two.remove()
    await broker.stop()
    await wait_until(lambda: not is_connected(hass, port))
    await stream(one, 0, 7)
    await statistics(hass)
    assert value(f"{destination}_messages") == 40
    assert value(f"{destination}_dropped_messages") == 7
    assert value("ble_bridge_scanners") == 2
    error = hass.states.get(f"sensor.{destination}_last_error")
    assert error
    assert error.state in ("connection_lost", "cannot_connect")
    assert "none" in error.attributes["options"]
    await broker.start()
    await wait_until(lambda: is_connected(hass, port))
    await stream(one, 7, 3)
    await hass.async_block_till_done()
    await statistics(hass)
    assert value(f"{destination}_messages") == 43
    assert value(f"{destination}_dropped_messages") == 7
    assert value(f"{destination}_reconnects") == 1


async def test_no_latency_without_messages(
    hass: HomeAssistant, broker: Mosquitto, setup: Setup
) -> None:
    """What is not known is not made up."""
    await setup(destination_data(broker.port))
    await statistics(hass)
    state = hass.states.get(f"sensor.127_0_0_1_{broker.port}_latency")
    assert state
    assert state.state == "unknown"


async def test_unload(hass: HomeAssistant, broker: Mosquitto, setup: Setup) -> None:
    """With the entry unloaded, its entities are not available."""
    entry = await setup(destination_data(broker.port))
    entities = hass.states.async_entity_ids(("sensor", "binary_sensor"))
    assert len(entities) == 15  # Two of them are the local adapter's
    assert await hass.config_entries.async_unload(entry.entry_id)
    for entity_id in entities:
        state = hass.states.get(entity_id)
        assert state
        assert state.state == STATE_UNAVAILABLE


async def test_devices(hass: HomeAssistant, setup: Setup) -> None:
    """The bridge is a device, and so is each destination, under its subentry."""
    async with later_stopped(Mosquitto()) as absent:
        entry = await setup(
            destination_data(absent.port),
            destination_data(absent.port, topic_base="other", client_id="second"),
            connected=False,
        )
        registry = dr.async_get(hass)
        devices = dr.async_entries_for_config_entry(registry, entry.entry_id)
        assert len(devices) == 4  # The local adapter is one, too
        [bridge] = [d for d in devices if d.via_device_id is None]
        assert bridge.identifiers == {(DOMAIN, entry.entry_id)}
        assert bridge.name == "BLE Bridge"
        for subentry_id in entry.subentries:
            [device] = [
                device
                for device in devices
                if device.identifiers == {(DOMAIN, subentry_id)}
            ]
            assert device.via_device_id == bridge.id
            assert device.config_entry_id == entry.entry_id
            assert device.config_subentry_id == subentry_id
            assert device.entry_type is dr.DeviceEntryType.SERVICE
        # A destination that is removed takes its device and entities along.
        removed = next(iter(entry.subentries))
        hass.config_entries.async_remove_subentry(entry, removed)
        await hass.async_block_till_done()
        devices = dr.async_entries_for_config_entry(registry, entry.entry_id)
        assert len(devices) == 3
        entities = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
        assert len(entities) == 46  # Three of them are the local adapter's
        await hass.config_entries.async_unload(entry.entry_id)
