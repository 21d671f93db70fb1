"""Monitors that come, change and go, in any order, while devices go on talking."""

import asyncio
from itertools import count
from typing import Any

from homeassistant.const import EVENT_HOMEASSISTANT_STOP
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import (
    device_registry as dr,
    entity_registry as er,
    issue_registry as ir,
)
import orjson
import pytest

from custom_components.ble_bridge.const import DOMAIN

from ..conftest import wait_until
from ..test_actions import act
from .garage import DEVICE, Garage, relay, status, telemetry


async def talk(garage: Garage) -> None:
    """Have ever more devices say something, until cancelled."""
    for number in count():
        name = f"device{number}"
        await garage.say(f"autocore/{name}/status", status(name))
        await garage.say(f"autocore/{name}/telemetry", telemetry(name))
        await asyncio.sleep(0.01)


async def test_reload_while_they_talk(
    garage: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    """Devices that are first heard while the bridge is reloaded are there afterwards."""
    await garage.start({"max_devices": 10_000})
    talking = asyncio.create_task(talk(garage))
    for _ in range(5):
        known = len(garage.monitor.devices)
        await wait_until(lambda: len(garage.monitor.devices) > known + 5)  # noqa: B023
        await garage.restart()
        await garage.connected()
    talking.cancel()
    await wait_until(lambda: not garage.monitor.queued)
    await garage.hass.async_block_till_done()
    assert "already exists" not in caplog.text
    assert "Traceback" not in caplog.text
    assert len(garage.monitor.devices) > 25
    for name in garage.monitor.devices:
        assert garage.value("seen", name) not in (None, "unavailable")


async def test_unload_under_a_flood(garage: Garage) -> None:
    """A bridge is unloaded however much its devices have to say."""
    await garage.start()

    async def flood() -> None:
        while True:
            for _ in range(50):
                await garage.say(f"autocore/{DEVICE}/telemetry", telemetry())
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood())
    monitor = garage.monitor
    await wait_until(lambda: monitor.processed)
    await garage.restart()
    assert not monitor.queued
    await garage.connected()
    await wait_until(lambda: garage.monitor.processed)
    flooding.cancel()
    assert garage.value("field!temperature") == "25.6"


# --- changed and removed ------------------------------------------------------------------


def listed(garage: Garage) -> set[str]:
    """Return the devices of monitors that Home Assistant lists, by their identifiers."""
    registry = dr.async_get(garage.hass)
    return {
        owner
        for device in dr.async_entries_for_config_entry(registry, garage.entry.entry_id)
        for domain, owner in device.identifiers
        if domain == DOMAIN
        and device.config_subentry_id not in (None, *garage.destination_ids)
    }


def entities(garage: Garage, subentry_id: str) -> set[str]:
    """Return the entities of a monitor and of its devices."""
    registry = er.async_get(garage.hass)
    return {
        entity.unique_id
        for entity in er.async_entries_for_config_entry(registry, garage.entry.entry_id)
        if entity.config_subentry_id == subentry_id
    }


async def test_other_topics(garage: Garage) -> None:
    """A monitor that watches something else has devices of its own, and no others."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status(), retain=True)
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    subentry_id = garage.monitor.subentry_id
    own = {
        unique_id
        for unique_id in entities(garage, subentry_id)
        if DEVICE not in unique_id
    }
    assert listed(garage) == {subentry_id, f"{subentry_id}_{DEVICE}"}
    # What is waiting when that changes is of what was watched
    monitor = garage.monitor
    for number in range(50):
        payload = orjson.dumps(status(str(number)))
        monitor.on_message(f"autocore/{number}/status", payload, retained=False)
    assert monitor.queued == 50
    await garage.change(topic_base="other")
    await garage.tick()
    assert listed(garage) == {subentry_id}
    assert entities(garage, subentry_id) == own
    assert not garage.monitor.devices
    await garage.say("other/new/status", status("new"))
    await wait_until(lambda: garage.value("status", "new") == "online")
    assert listed(garage) == {subentry_id, f"{subentry_id}_new"}
    await garage.restart()
    assert list(garage.monitor.devices) == ["new"]


async def test_removed(
    garage: Garage, hass_storage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A monitor that is removed leaves nothing behind; others stay as they are."""
    await garage.start({}, {"topic_base": "other"})
    await garage.tell(f"{DEVICE}/status", status(), retain=True)
    await garage.tell(f"{DEVICE}/status", b"{")
    await garage.say("other/theirs/status", status("theirs"))
    mine, other = garage.monitors
    await wait_until(lambda: other.devices)
    await garage.restart()
    kept = hass_storage["ble_bridge.monitors"]["data"]
    assert kept.keys() == {mine.subentry_id, other.subentry_id}
    garage.hass.config_entries.async_remove_subentry(garage.entry, mine.subentry_id)
    await garage.hass.async_block_till_done()
    await garage.connected()
    assert listed(garage) == {other.subentry_id, f"{other.subentry_id}_theirs"}
    assert not entities(garage, mine.subentry_id)
    kept = hass_storage["ble_bridge.monitors"]["data"]
    assert kept.keys() == {other.subentry_id}
    await garage.say("other/theirs/status", status("theirs", status="busy"))
    await wait_until(lambda: garage.value("status", "theirs") == "busy")
    garage.hass.config_entries.async_remove_subentry(garage.entry, other.subentry_id)
    await garage.hass.async_block_till_done()
    assert not listed(garage)
    assert not hass_storage["ble_bridge.monitors"]["data"]
    assert "Traceback" not in caplog.text


async def test_bridge_removed(garage: Garage, hass_storage: dict[str, Any]) -> None:
    """With the bridge goes what was kept of its monitors."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    await garage.restart()
    assert "ble_bridge.monitors" in hass_storage
    await garage.hass.config_entries.async_remove(garage.entry.entry_id)
    assert "ble_bridge.monitors" not in hass_storage


async def test_all_at_once(garage: Garage, caplog: pytest.LogCaptureFixture) -> None:
    """Changes that come while another is taken over are taken over as well."""
    await garage.start({}, {"topic_base": "second"}, {"topic_base": "third"})
    for base in ("autocore", "second", "third"):
        await garage.say(f"{base}/{DEVICE}/status", status())
    await wait_until(lambda: garage.judged == 3)
    first, second, third = (monitor.subentry_id for monitor in garage.monitors)
    entries, subentries = garage.hass.config_entries, garage.entry.subentries
    entries.async_remove_subentry(garage.entry, first)
    entries.async_update_subentry(
        garage.entry, subentries[second], data=garage.data(topic_base="fourth")
    )
    await asyncio.sleep(0)
    entries.async_remove_subentry(garage.entry, third)
    await asyncio.sleep(0)
    entries.async_update_subentry(
        garage.entry, subentries[second], data=garage.data(topic_base="fifth")
    )
    await garage.hass.async_block_till_done()
    await garage.connected()
    assert garage.monitor.filters[0] == "fifth/+/status"
    assert listed(garage) == {second}
    await garage.say(f"fifth/{DEVICE}/status", status())
    await wait_until(lambda: garage.value("status") == "online")
    assert "Traceback" not in caplog.text


async def test_settings_that_cannot_be_used(
    garage: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    """What no form makes is said, and holds up nothing else; what is mended works."""
    await garage.start(
        {"preset": "own"},
        {"topic_base": "a/#"},
        {"preset": "unheard of"},
        {"preset": "own", "status_topics": ["no/id"]},
        {},
        {"max_devices": "many"},
        connected=False,
    )
    await garage.connected()
    assert garage.monitor.title == "Garage 5"
    assert caplog.text.count("is set up in a way that cannot be used") == 5
    await garage.tell(f"{DEVICE}/status", status())
    await garage.change(topic_base="#")
    assert not garage.monitors
    assert caplog.text.count("is set up in a way that cannot be used") == 5 + 6
    unusable = list(garage.entry.subentries.values())[-1]
    garage.hass.config_entries.async_update_subentry(
        garage.entry, unusable, data=garage.data()
    )
    await garage.hass.async_block_till_done()
    await garage.connected()
    assert garage.monitor.subentry_id == unusable.subentry_id
    await garage.tell(f"{DEVICE}/status", status())
    assert garage.value("status") == "online"
    assert "Traceback" not in caplog.text


# --- the destination ----------------------------------------------------------------------


def issues(garage: Garage) -> set[str]:
    """Return what the user is told of monitors."""
    return {
        issue_id
        for domain, issue_id in ir.async_get(garage.hass).issues
        if domain == DOMAIN
    }


async def test_destination_removed(garage: Garage) -> None:
    """Without its destination a monitor hears nothing, and says so until it has another."""
    await garage.start(others=[{"client_id": "second", "topic_base": "second"}])
    await garage.tell(f"{DEVICE}/status", status())
    first, second = garage.destination_ids
    subentry_id = garage.monitor.subentry_id
    entries = garage.hass.config_entries
    entries.async_remove_subentry(garage.entry, first)
    await garage.hass.async_block_till_done()
    assert issues(garage) == {f"monitor_without_destination_{subentry_id}"}
    assert not garage.monitor.is_connected
    assert garage.value("listening", None) == "off"
    assert garage.value("status") == "online"
    assert garage.monitor.uptime == 0
    with pytest.raises(HomeAssistantError, match="Garage has no connection"):
        await act(garage.hass, "retry_dead_letters")
    await garage.restart()
    assert issues(garage) == {f"monitor_without_destination_{subentry_id}"}
    # What it watches there is of others
    await garage.change(destination=second)
    assert not issues(garage)
    assert not garage.monitor.devices
    await garage.tell(f"{DEVICE}/status", status(status="busy"))
    assert garage.value("status") == "busy"
    entries.async_remove_subentry(garage.entry, second)
    await garage.hass.async_block_till_done()
    assert issues(garage)
    entries.async_remove_subentry(garage.entry, subentry_id)
    await garage.hass.async_block_till_done()
    assert not issues(garage)


async def test_destination_changed(garage: Garage) -> None:
    """What a destination publishes, and how, is no matter of its monitors."""
    await garage.start({"mark_stale": True})
    await garage.tell(f"{DEVICE}/status", status())
    subentry = garage.entry.subentries[garage.destination_ids[0]]
    for changes in ({"raw": True}, {"protocol": "3.1.1"}, {"clean_session": False}):
        garage.hass.config_entries.async_update_subentry(
            garage.entry, subentry, data={**subentry.data, **changes}
        )
        await garage.hass.async_block_till_done()
        await garage.connected()
        assert garage.value("status") == "online"
    await garage.tell(f"{DEVICE}/status", status(status="busy"))
    assert garage.value("status") == "busy"


async def test_issues_end_with_the_bridge(garage: Garage) -> None:
    """What the user is told of a monitor ends when the bridge does, and begins anew."""
    await garage.start({"max_devices": 1})
    for name in ("first", "second"):
        await garage.tell(f"{name}/status", status(name))
    assert issues(garage) == {f"monitor_full_{garage.monitor.subentry_id}"}
    await garage.restart()
    await garage.connected()
    assert not issues(garage)
    await garage.tell("second/status", status("second"))
    assert issues(garage)
    await garage.hass.config_entries.async_remove(garage.entry.entry_id)
    assert not issues(garage)


async def test_stopped_with_home_assistant(
    garage: Garage, hass_storage: dict[str, Any]
) -> None:
    """What is known is on disk when Home Assistant is stopped, though nothing is unloaded."""
    await garage.start()
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    garage.hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)
    await garage.hass.async_block_till_done()
    kept = hass_storage["ble_bridge.monitors"]["data"][garage.monitor.subentry_id]
    assert kept["devices"][DEVICE]["values"]["temperature"] == 25.6
    # Once more, as when it is unloaded after all
    await garage.hass.config_entries.async_unload(garage.entry.entry_id)
    assert hass_storage["ble_bridge.monitors"]["data"].keys() == {
        subentry.subentry_id
        for subentry in garage.entry.subentries.values()
        if subentry.subentry_type == "monitor"
    }


async def test_retold_while_it_goes(garage: Garage) -> None:
    """A connection that comes and goes while its entities are written holds up nothing."""
    await garage.start({"mark_stale": True, "max_devices": 100})
    for number in range(25):
        await garage.say(f"autocore/{number}/status", status(str(number)))
    await wait_until(lambda: garage.monitor.processed == 25)
    await garage.hass.async_block_till_done()
    monitor = garage.monitor
    monitor.on_away()
    monitor.on_subscribed(None)
    monitor.on_away()
    await wait_until(lambda: garage.value("status", "24") == "unavailable")
    monitor.on_subscribed(None)
    await garage.hass.config_entries.async_unload(garage.entry.entry_id)
