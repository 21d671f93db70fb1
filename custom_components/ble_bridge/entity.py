"""What the entities of BLE Bridge have in common."""

import asyncio
from collections.abc import Callable, Iterable
from typing import override
import weakref

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import EntityCategory
from homeassistant.core import callback
from homeassistant.helpers.device_registry import (
    CONNECTION_BLUETOOTH,
    DeviceEntryType,
    DeviceInfo,
)
from homeassistant.helpers.entity import Entity, EntityDescription
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import UndefinedType

from .bridge import BleBridgeConfigEntry, Bridge
from .const import DOMAIN, MANUFACTURER
from .decoders.fields import Field, Kind, known_field
from .device import PRESENCE, Device
from .devices import DEVICES_AT_ONCE
from .kinds import kind_of
from .records import Scanner


class BleBridgeEntity(Entity):
    """An entity that reads the bridge's memory when the bridge says so."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(
        self,
        bridge: Bridge,
        description: EntityDescription,
        subentry_id: str | None = None,
    ) -> None:
        """Initialize an entity of the bridge, or of one of its destinations."""
        entry = bridge.entry
        self.bridge = bridge
        self.entity_description = description
        owner = subentry_id or entry.entry_id
        self._attr_unique_id = f"{owner}_{description.key}"
        info = DeviceInfo(identifiers={(DOMAIN, owner)})
        if subentry_id is not None:
            subentry = entry.subentries[subentry_id]
            info["name"] = subentry.title
            info["manufacturer"] = MANUFACTURER
            info["model"] = kind_of(subentry.data).model
            info["entry_type"] = DeviceEntryType.SERVICE
            info["via_device_id"] = bridge.device_id
        self._attr_device_info = info

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the bridge."""
        await super().async_added_to_hass()
        self.async_on_remove(self.bridge.async_add_listener(self.async_write_ha_state))


class ScannerEntity(BleBridgeEntity):
    """An entity of a scanner."""

    def __init__(
        self, bridge: Bridge, description: EntityDescription, scanner: Scanner
    ) -> None:
        """Initialize an entity of a scanner."""
        super().__init__(bridge, description)
        self.scanner = scanner
        owner = f"{bridge.entry.entry_id}_{scanner.source}"
        self._attr_unique_id = f"{owner}_{description.key}"
        self._attr_device_info = DeviceInfo(
            identifiers={(DOMAIN, owner)},
            name=scanner.name,
            manufacturer=MANUFACTURER,
            model="Bluetooth scanner",
            entry_type=DeviceEntryType.SERVICE,
            via_device_id=bridge.device_id,
        )


@callback
def async_add_scanners(
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
    make: Callable[[Scanner], Iterable[Entity]],
) -> None:
    """Add the entities of all scanners, now and as they come."""
    bridge = entry.runtime_data
    added: weakref.WeakSet[Scanner] = weakref.WeakSet()

    @callback
    def add() -> None:
        new = [
            scanner
            for scanner in bridge.scanners.by_source.values()
            if scanner not in added
        ]
        if new:
            added.update(new)
            async_add_entities(entity for scanner in new for entity in make(scanner))

    entry.async_on_unload(bridge.async_add_listener(add))
    add()


class DeviceEntity(Entity):
    """An entity of a device of the user's, which reads what is known of that."""

    _attr_has_entity_name = True
    _attr_should_poll = False
    listens_to: tuple[str, ...]

    def __init__(self, bridge: Bridge, device: Device, key: str) -> None:
        """Initialize an entity; `key` tells it from the others of the device."""
        self.devices = bridge.devices
        self.device = device
        self._attr_unique_id = f"{device.subentry_id}_{key}"
        info = DeviceInfo(
            identifiers={(DOMAIN, device.subentry_id)}, name=device.settings.name
        )
        if device.identity.model is not None:
            info["model"] = device.identity.model
        if device.manufacturer is not None:
            info["manufacturer"] = device.manufacturer
        if (address := device.settings.address) is not None:
            info["connections"] = {(CONNECTION_BLUETOOTH, address)}
        self._attr_device_info = info

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the device."""
        await super().async_added_to_hass()
        for name in self.listens_to:
            self.async_on_remove(
                self.devices.async_listen(self.device, name, self.async_write_ha_state)
            )


class FieldEntity(DeviceEntity):
    """A field of a device, there while the device is."""

    def __init__(self, bridge: Bridge, device: Device, name: str) -> None:
        """Initialize an entity of a field."""
        super().__init__(bridge, device, name)
        self.field: Field = bridge.decoders.field(name, device.values.get(name))
        self._number = 1
        self.name_in_device = name
        self.listens_to = (name, PRESENCE)
        if (known := known_field(name)) is not None:
            self._attr_translation_key = known[0].name
            self._number = known[1]
        else:
            self._attr_name = name.replace("_", " ").capitalize()
        if self.field.diagnostic:
            self._attr_entity_category = EntityCategory.DIAGNOSTIC

    @property
    @override
    def name(self) -> str | UndefinedType | None:
        """Return the name of the field, with a number from the second of its kind on."""
        name = super().name
        return name if self._number == 1 else f"{name} {self._number}"

    @property
    @override
    def available(self) -> bool:
        """Return whether the device is there."""
        return self.device.present


async def async_add_fields(
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
    kinds: frozenset[Kind],
    make: Callable[[Bridge, Device, str], Entity],
    make_first: Callable[[Bridge, Device], Iterable[Entity]] = lambda *_: (),
) -> None:
    """Add the entities of all devices, now and as they and their fields come.

    Adding one takes some 0.1 ms, so others have their turn between devices. `make` gives
    that of a field of one of the kinds, `make_first` those that a device has
    whatever it says.
    """
    bridge = entry.runtime_data
    added: set[tuple[str, str]] = set()

    @callback
    def add(device: Device, names: Iterable[str]) -> None:
        if entry.state is ConfigEntryState.UNLOAD_IN_PROGRESS:
            return  # Platforms may be gone already, and would keep it for ever
        entities: list[Entity] = []
        for key in ("", *names):
            if (device.subentry_id, key) in added:
                continue
            if key == "":
                entities += make_first(bridge, device)
            elif _kind(bridge, device, key) in kinds:
                entities.append(make(bridge, device, key))
            else:
                continue
            added.add((device.subentry_id, key))
        if entities:
            async_add_entities(entities, config_subentry_id=device.subentry_id)

    entry.async_on_unload(bridge.devices.async_add_adder(add))
    for number, device in enumerate(tuple(bridge.devices.by_id.values()), 1):
        add(device, (*device.values, *device.events))
        if number % DEVICES_AT_ONCE == 0:
            await asyncio.sleep(0)


def _kind(bridge: Bridge, device: Device, name: str) -> Kind:
    """Return what a field of a device is."""
    if name in device.events:
        return Kind.EVENT
    return bridge.decoders.field(name, device.values.get(name)).kind
