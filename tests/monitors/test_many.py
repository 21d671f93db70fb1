"""Many devices at once: they come and go a few at a time, and none stays behind."""

from homeassistant.helpers import device_registry as dr

from ..conftest import wait_until
from .garage import Garage, status, telemetry

COUNT = 35  # More than are made or removed in a turn of the loop


async def introduce(garage: Garage, count: int = COUNT) -> None:
    """Have devices say all that they have to say, and wait for their entities."""
    for number in range(count):
        device = f"ESP32_{number}"
        await garage.say(f"autocore/{device}/status", status(device))
        await garage.say(f"autocore/{device}/telemetry", telemetry(device))
    await wait_until(lambda: garage.judged == 2 * count)
    await garage.hass.async_block_till_done()


def known(garage: Garage) -> list[str]:
    """Return the monitored devices that Home Assistant knows."""
    devices = dr.async_entries_for_config_entry(
        dr.async_get(garage.hass), garage.entry.entry_id
    )
    return [name for device in devices if (name := device.name or "")[:3] == "ESP"]


def shown(garage: Garage) -> list[str]:
    """Return the states of monitored devices."""
    return [
        state.entity_id
        for state in garage.hass.states.async_all()
        if ".esp32_" in state.entity_id
    ]


async def test_watching_something_else(garage: Garage) -> None:
    """What was heard under another topic base is forgotten, also what was not yet read."""
    await garage.start()
    await introduce(garage)
    assert len(known(garage)) == COUNT
    assert shown(garage)
    for number in range(10 * COUNT):
        device = f"ESP32_new_{number}"
        await garage.say(f"autocore/{device}/telemetry", telemetry(device))
    await wait_until(lambda: len(garage.monitor.devices) > COUNT)
    await garage.change(topic_base="other")
    assert not known(garage)
    assert not shown(garage)
    assert not garage.monitor.devices
    await garage.say("autocore/ESP32_0/status", status("ESP32_0"))
    await garage.say("other/ESP32_1/status", status("ESP32_1"))
    await wait_until(lambda: known(garage))
    assert known(garage) == ["ESP32_1"]


async def test_removing_a_monitor(garage: Garage) -> None:
    """Nothing is left of a monitor that is removed."""
    await garage.start()
    await introduce(garage)
    # The registry is asked for devices whose firmware changes
    for number in range(COUNT):
        device = f"ESP32_{number}"
        said = status(device, firmware_version="2.0")
        await garage.say(f"autocore/{device}/status", said)
    await wait_until(lambda: garage.judged == 3 * COUNT)
    garage.hass.config_entries.async_remove_subentry(
        garage.entry, garage.monitor.subentry_id
    )
    await garage.hass.async_block_till_done()
    await wait_until(lambda: not garage.monitors)
    assert not known(garage)
    assert not shown(garage)


async def test_two_changes_at_once(garage: Garage) -> None:
    """A second change, while the first is taken over, is taken over too."""
    await garage.start()
    await introduce(garage)
    for base in ("other", "third"):
        garage.hass.config_entries.async_update_subentry(
            garage.entry,
            garage.subentry,
            data={**garage.subentry.data, "topic_base": base},
        )
    await garage.hass.async_block_till_done()
    await garage.connected()
    assert not known(garage)
    await garage.say("third/ESP32_1/status", status("ESP32_1"))
    await wait_until(lambda: known(garage) == ["ESP32_1"])
