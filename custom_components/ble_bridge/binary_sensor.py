"""Whether destinations are connected, devices are there, and alerts are open."""

from collections.abc import Iterable
from typing import Final, override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .alerts import Watch
from .bridge import BleBridgeConfigEntry, Bridge
from .decoders.fields import Kind
from .device import PRESENCE, Device
from .devices import alert_key
from .entity import (
    BleBridgeEntity,
    DeviceEntity,
    FieldEntity,
    ScannerEntity,
    async_add_fields,
    async_add_scanners,
)
from .monitors.binary_sensor import LISTENING, ListeningSensor, monitored_binary_sensors
from .monitors.entity import async_add_monitored

PARALLEL_UPDATES = 0

_ALERT: Final = "_alert_"

CONNECTED = BinarySensorEntityDescription(
    key="connected",
    device_class=BinarySensorDeviceClass.CONNECTIVITY,
    entity_category=EntityCategory.DIAGNOSTIC,
)
SILENT = BinarySensorEntityDescription(
    key="silent",
    translation_key="silent",
    device_class=BinarySensorDeviceClass.PROBLEM,
    entity_category=EntityCategory.DIAGNOSTIC,
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up a sensor for each destination, and those of the devices."""
    for subentry_id in entry.runtime_data.destinations:
        async_add_entities(
            [ConnectedSensor(entry.runtime_data, subentry_id)],
            config_subentry_id=subentry_id,
        )
    async_add_scanners(
        entry,
        async_add_entities,
        lambda scanner: [SilentSensor(entry.runtime_data, SILENT, scanner)],
    )
    bridge = entry.runtime_data
    for monitor in bridge.monitors.by_id.values():
        async_add_entities(
            [ListeningSensor(monitor, LISTENING)],
            config_subentry_id=monitor.subentry_id,
        )
    await async_add_monitored(
        entry, bridge.monitors, async_add_entities, monitored_binary_sensors
    )
    _remove_old_alerts(hass, entry)
    await async_add_fields(
        entry, async_add_entities, frozenset({Kind.BOOLEAN}), FieldBinarySensor, _first
    )


def _first(bridge: Bridge, device: Device) -> Iterable[Entity]:
    """Return what every device has."""
    yield PresenceSensor(bridge, device)
    for watch in device.watches:
        yield AlertSensor(bridge, device, watch)


@callback
def _remove_old_alerts(hass: HomeAssistant, entry: BleBridgeConfigEntry) -> None:
    """Remove the sensors of rules that are no more."""
    registry = er.async_get(hass)
    current = {
        alert_id(device, watch)
        for device in entry.runtime_data.devices.by_id.values()
        for watch in device.watches
    }
    for entity in er.async_entries_for_config_entry(registry, entry.entry_id):
        if (
            entity.domain == "binary_sensor"
            and _ALERT in entity.unique_id
            and entity.unique_id not in current
        ):
            registry.async_remove(entity.entity_id)


def alert_id(device: Device, watch: Watch) -> str:
    """Return the unique ID of the sensor of an alert."""
    return f"{device.subentry_id}{_ALERT}{watch.rule.rule_id}"


class ConnectedSensor(BleBridgeEntity, BinarySensorEntity):
    """Whether a destination is connected."""

    def __init__(self, bridge: Bridge, subentry_id: str) -> None:
        """Initialize the sensor of a destination."""
        super().__init__(bridge, CONNECTED, subentry_id)
        self._destination = bridge.destinations[subentry_id]

    @property
    @override
    def is_on(self) -> bool:
        """Return whether there is a connection."""
        return self._destination.connection is not None


class SilentSensor(ScannerEntity, BinarySensorEntity):
    """Whether a scanner that was busy hears nothing any more."""

    @property
    @override
    def is_on(self) -> bool:
        """Return whether it is silent."""
        return self.scanner.silent


class FieldBinarySensor(FieldEntity, BinarySensorEntity):
    """A field of a device that is so, or is not."""

    def __init__(self, bridge: Bridge, device: Device, name: str) -> None:
        """Initialize the sensor of a field."""
        super().__init__(bridge, device, name)
        if self.field.device_class is not None:
            self._attr_device_class = BinarySensorDeviceClass(self.field.device_class)

    @property
    @override
    def is_on(self) -> bool | None:
        """Return the last value."""
        value = self.device.values.get(self.name_in_device)
        return value if isinstance(value, bool) else None


class PresenceSensor(DeviceEntity, BinarySensorEntity):
    """Whether a device is there."""

    _attr_translation_key = "presence_of_device"
    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC
    listens_to = (PRESENCE,)

    def __init__(self, bridge: Bridge, device: Device) -> None:
        """Initialize the sensor of a device."""
        super().__init__(bridge, device, "signal_presence")

    @property
    @override
    def is_on(self) -> bool:
        """Return whether the device is there."""
        return self.device.present


class AlertSensor(DeviceEntity, BinarySensorEntity):
    """Whether an alert is open."""

    _attr_device_class = BinarySensorDeviceClass.PROBLEM
    _unrecorded_attributes = frozenset({"kind", "audiences"})

    def __init__(self, bridge: Bridge, device: Device, watch: Watch) -> None:
        """Initialize the sensor of a rule."""
        super().__init__(bridge, device, f"alert_{watch.rule.rule_id}")
        self._watch = watch
        self.listens_to = (alert_key(watch),)
        self._attr_name = watch.rule.name
        self._attr_extra_state_attributes = {
            "kind": watch.rule.kind.value,
            "audiences": list(watch.rule.audiences),
        }

    @property
    @override
    def is_on(self) -> bool:
        """Return whether the alert is open."""
        return self._watch.is_on
