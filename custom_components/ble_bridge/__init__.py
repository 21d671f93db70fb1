"""BLE Bridge: every Bluetooth LE advertisement that Home Assistant hears, on the bus."""

import asyncio

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import EVENT_HOMEASSISTANT_STOP, Platform
from homeassistant.core import Event, HomeAssistant
from homeassistant.helpers import config_validation as cv, device_registry as dr
from homeassistant.helpers.typing import ConfigType

from . import repairs
from .actions import async_setup_actions
from .bridge import BleBridgeConfigEntry, Bridge, remove_stores
from .const import CONF_FORMATS, DOMAIN, SUBENTRY_DEVICE
from .device_store import DeviceStore
from .http import async_setup_views
from .kinds import kind_of
from .monitors.store import MonitorStore
from .scanners import BridgeStore
from .settings import own_formats

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)
PLATFORMS = [Platform.BINARY_SENSOR, Platform.EVENT, Platform.SENSOR]


async def async_setup(hass: HomeAssistant, _config: ConfigType) -> bool:
    """Set up actions and views; both may be asked for before there is a bridge."""
    async_setup_actions(hass)
    async_setup_views(hass)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: BleBridgeConfigEntry) -> bool:
    """Set up a bridge: its entities first, then the connections, the feed last."""
    store = BridgeStore(hass)
    await store.async_load()
    device_store = DeviceStore(hass)
    await device_store.async_load()
    monitor_store = MonitorStore(hass)
    await monitor_store.async_load()
    formats = await hass.async_add_executor_job(
        own_formats, entry.options.get(CONF_FORMATS, "")
    )
    bridge = entry.runtime_data = Bridge(
        hass, entry, store, device_store, monitor_store, formats
    )
    await bridge.async_open()
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    bridge.start()

    async def stop(_event: Event) -> None:
        await bridge.async_stop()

    entry.async_on_unload(hass.bus.async_listen(EVENT_HOMEASSISTANT_STOP, stop))
    entry.async_on_unload(entry.add_update_listener(_async_update_listener))
    # Nobody listened until now to what the user changed.
    if not await bridge.async_take_over():
        hass.config_entries.async_schedule_reload(entry.entry_id)
    return True


async def _async_update_listener(
    hass: HomeAssistant, entry: BleBridgeConfigEntry
) -> None:
    """Take over what the user changed."""
    if not await entry.runtime_data.async_take_over():
        await hass.config_entries.async_reload(entry.entry_id)


async def async_unload_entry(hass: HomeAssistant, entry: BleBridgeConfigEntry) -> bool:
    """Stop the bridge and remove its entities."""
    if unloaded := await hass.config_entries.async_unload_platforms(entry, PLATFORMS):
        await entry.runtime_data.async_stop()
        for subentry_id in entry.runtime_data.destinations:
            repairs.async_delete(hass, subentry_id)
        repairs.async_delete_scanners(hass, entry)
        if entry.disabled_by is not None:
            _delete_key_issues(hass, entry)
    return unloaded


def _delete_key_issues(hass: HomeAssistant, entry: BleBridgeConfigEntry) -> None:
    """Ask for no key any more."""
    for subentry_id in entry.subentries:
        repairs.async_delete_key_issues(hass, subentry_id)


async def async_remove_entry(hass: HomeAssistant, entry: BleBridgeConfigEntry) -> None:
    """Leave nothing behind: neither here nor, where it can be reached, on a broker."""
    _delete_key_issues(hass, entry)
    for subentry_id in entry.subentries:
        repairs.async_forget(hass, subentry_id)
    store = BridgeStore(hass)
    await store.async_load()
    try:
        await asyncio.gather(
            *(
                kind_of(subentry.data).async_clear(hass, subentry.data, topics)
                for subentry_id, topics in store.data["retained"].items()
                if (subentry := entry.subentries.get(subentry_id)) is not None
            )
        )
    finally:
        await store.async_remove()
        await DeviceStore(hass).async_remove()
        await MonitorStore(hass).async_remove()
        await hass.async_add_executor_job(remove_stores, hass)


async def async_remove_config_entry_device(
    hass: HomeAssistant, entry: BleBridgeConfigEntry, device: dr.DeviceEntry
) -> bool:
    """Let the user remove a device, one that a monitor watches, or a scanner that is gone.

    The bridge, its destinations and its monitors are removed where they were added.
    """
    if entry.state is not ConfigEntryState.LOADED:
        return False
    for domain, owner in device.identifiers:
        subentry = entry.subentries.get(owner)
        if subentry is not None and subentry.subentry_type == SUBENTRY_DEVICE:
            hass.config_entries.async_remove_subentry(entry, owner)
            return True
        if domain == DOMAIN and entry.runtime_data.remove_device(owner):
            return True
    return False
