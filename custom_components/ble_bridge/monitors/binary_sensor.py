"""Whether monitors hear, devices are there, relays are on, and values are unusual."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.helpers.entity import Entity

from ..decoders.fields import Kind
from .device import ANOMALY, ONLINE, MonitoredDevice, field_key, relay_key
from .entity import MonitoredEntity, MonitorEntity
from .monitor import Monitor
from .names import field_of

_FIELD: Final = field_key("")
_RELAY: Final = relay_key("")

LISTENING: Final = BinarySensorEntityDescription(
    key="listening",
    device_class=BinarySensorDeviceClass.CONNECTIVITY,
    entity_category=EntityCategory.DIAGNOSTIC,
)


class ListeningSensor(MonitorEntity, BinarySensorEntity):
    """Whether a monitor is connected, and the broker lets it listen."""

    @property
    @override
    def is_on(self) -> bool:
        """Return whether messages come."""
        return self.monitor.is_connected


def monitored_binary_sensors(
    monitor: Monitor, device: MonitoredDevice, key: str
) -> Iterable[Entity]:
    """Yield the binary sensors of something that a device says."""
    if key == ONLINE:
        yield OnlineSensor(monitor, device, key)
    elif key == ANOMALY:
        yield AnomalySensor(monitor, device, key)
    elif key.startswith(_RELAY):
        yield RelaySensor(monitor, device, key)
    elif key.startswith(_FIELD):
        name = key.removeprefix(_FIELD)
        if device.kinds[name] is Kind.BOOLEAN:
            yield ValueBinarySensor(monitor, device, name)


class OnlineSensor(MonitoredEntity, BinarySensorEntity):
    """Whether a device is there."""

    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC

    @property
    @override
    def available(self) -> bool:
        """Return whether the bridge can know; a device that is gone is known to be."""
        return not self.monitor.settings.mark_stale or self.monitor.is_connected

    @property
    @override
    def is_on(self) -> bool | None:
        """Return whether the device is there."""
        return self.device.online


class AnomalySensor(MonitoredEntity, BinarySensorEntity):
    """Whether the last value of any field is unusual."""

    _attr_translation_key = "anomaly"
    _attr_device_class = BinarySensorDeviceClass.PROBLEM

    @property
    @override
    def is_on(self) -> bool:
        """Return whether anything is unusual."""
        return bool(self.device.anomalies)

    @property
    @override
    def extra_state_attributes(self) -> Mapping[str, Any]:
        """Return which fields are."""
        return {"fields": self.device.anomalies}


class RelaySensor(MonitoredEntity, BinarySensorEntity):
    """Whether a relay is on."""

    _attr_translation_key = "relay"

    def __init__(self, monitor: Monitor, device: MonitoredDevice, key: str) -> None:
        """Initialize the sensor of a relay."""
        super().__init__(monitor, device, key)
        self._relay = device.relays[key.removeprefix(_RELAY)]
        self._index = key.removeprefix(_RELAY)
        self._attr_translation_placeholders = {"index": self._index}

    @property
    @override
    def is_on(self) -> bool:
        """Return the last state."""
        return self._relay.state

    @property
    @override
    def extra_state_attributes(self) -> Mapping[str, Any]:
        """Return which relay it is, and what triggered it."""
        return {"index": self._index, "triggered_by": self._relay.triggered_by}


class ValueBinarySensor(MonitoredEntity, BinarySensorEntity):
    """A value of a device that is so, or is not."""

    def __init__(self, monitor: Monitor, device: MonitoredDevice, name: str) -> None:
        """Initialize the sensor of a field."""
        super().__init__(monitor, device, field_key(name))
        self._name = name
        field = field_of(name, True)
        if field.device_class is not None:
            self._attr_device_class = BinarySensorDeviceClass(field.device_class)
        self.name_field(name, field)

    @property
    @override
    def is_on(self) -> bool | None:
        """Return the last value."""
        value = self.device.values.get(self._name)
        return value if isinstance(value, bool) else None
