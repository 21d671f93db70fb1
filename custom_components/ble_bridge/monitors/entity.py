"""What the entities of monitors, and of the devices that they watch, have in common."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, override
import weakref

from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.const import EntityCategory
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity, EntityDescription
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from ..const import DOMAIN
from ..decoders.fields import Field, known_field
from .device import MonitoredDevice
from .monitor import DEVICES_AT_ONCE, Monitor, configuration_url
from .monitors import Monitors

# What every device has, whatever it says.
EVERY: Final = ""


class MonitorEntity(Entity):
    """A figure of a monitor itself, read when the monitor says so."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(self, monitor: Monitor, description: EntityDescription) -> None:
        """Initialize an entity of a monitor."""
        self.monitor = monitor
        self.entity_description = description
        self._attr_unique_id = f"{monitor.subentry_id}_{description.key}"
        self._attr_device_info = DeviceInfo(identifiers={(DOMAIN, monitor.subentry_id)})

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the monitor."""
        await super().async_added_to_hass()
        listeners = self.monitor.listeners
        listeners.add(self.async_write_ha_state)
        self.async_on_remove(lambda: listeners.discard(self.async_write_ha_state))


class MonitoredEntity(Entity):
    """An entity of a device that a monitor watches."""

    _attr_has_entity_name = True
    _attr_should_poll = False
    # Whether it says something even when the device is gone.
    always_available: ClassVar[bool] = False

    def __init__(self, monitor: Monitor, device: MonitoredDevice, key: str) -> None:
        """Initialize an entity; `key` is what it listens to."""
        self.monitor = monitor
        self.device = device
        self.key = key
        self._attr_unique_id = monitor.unique_id(device, key)
        dialect = monitor.settings.dialect
        info = DeviceInfo(
            identifiers={(DOMAIN, monitor.owner_id(device))}, name=device.name
        )
        info["via_device_id"] = monitor.device_id
        if dialect.manufacturer is not None:
            info["manufacturer"] = dialect.manufacturer
        if (model := dialect.models.get(device.owner)) is not None:
            info["model"] = model
        if device.firmware is not None:
            info["sw_version"] = device.firmware
        if (url := configuration_url(device.ip)) is not None:
            info["configuration_url"] = url
        self._attr_device_info = info

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the device."""
        await super().async_added_to_hass()
        self.listen(self.key)

    def listen(self, key: str) -> None:
        """Write when something of the device changes."""
        listeners = self.device.listeners.setdefault(key, set())
        listeners.add(self.async_write_ha_state)
        self.async_on_remove(lambda: listeners.discard(self.async_write_ha_state))

    @property
    @override
    def available(self) -> bool:
        """Return whether what is shown is to be shown."""
        return (
            self.always_available
            or not self.monitor.settings.mark_stale
            or self.monitor.is_current(self.device)
        )

    def name_field(self, name: str, field: Field) -> None:
        """Name the entity after a field."""
        known = known_field(name)
        if known is not None and known == (field, 1):
            self._attr_translation_key = name
        else:
            self._attr_name = spoken(name)
        if field.diagnostic:
            self._attr_entity_category = EntityCategory.DIAGNOSTIC


def spoken(name: str) -> str:
    """Return a name in snake case as one says it."""
    return name.replace("_", " ").capitalize()


async def async_add_monitored(
    entry: ConfigEntry[Any],
    monitors: Monitors,
    async_add_entities: AddConfigEntryEntitiesCallback,
    make: Callable[[Monitor, MonitoredDevice, str], Iterable[Entity]],
) -> None:
    """Add the entities of all monitored devices, now and as they and what they say come.

    `make` gives those of what can be listened to, and of `EVERY` device.
    """
    for monitor in monitors.by_id.values():
        await _async_add(entry, async_add_entities, make, monitor)


async def _async_add(
    entry: ConfigEntry[Any],
    async_add_entities: AddConfigEntryEntitiesCallback,
    make: Callable[[Monitor, MonitoredDevice, str], Iterable[Entity]],
    monitor: Monitor,
) -> None:
    """Add the entities of a monitor's devices."""
    added: weakref.WeakKeyDictionary[MonitoredDevice, set[str]] = (
        weakref.WeakKeyDictionary()
    )

    def add(device: MonitoredDevice, keys: Iterable[str]) -> None:
        if entry.state is ConfigEntryState.UNLOAD_IN_PROGRESS:
            return  # Platforms may be gone already, and would keep it for ever
        known = added.setdefault(device, set())
        entities: list[Entity] = []
        for key in (EVERY, *keys):
            if key not in known:
                known.add(key)
                entities += make(monitor, device, key)
        if entities:
            async_add_entities(entities, config_subentry_id=monitor.subentry_id)

    entry.async_on_unload(monitor.async_add_adder(add))
    for number, device in enumerate(tuple(monitor.devices.values()), 1):
        add(device, device.keys)
        if number % DEVICES_AT_ONCE == 0:
            await asyncio.sleep(0)
