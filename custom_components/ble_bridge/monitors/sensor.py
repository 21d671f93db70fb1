"""Figures of monitors, and what the devices that they watch say."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import PERCENTAGE, EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.recorder import DATA_INSTANCE
from homeassistant.helpers.typing import StateType

from ..decoders.fields import Kind
from ..field_sensor import describe, shown
from .device import (
    IP_ADDRESS,
    SEEN,
    STARTED,
    STATUS,
    MonitoredDevice,
    average_key,
    field_key,
)
from .entity import EVERY, MonitoredEntity, MonitorEntity, spoken
from .messages import Reason
from .monitor import Monitor
from .names import field_of
from .settings import LEAST_AVERAGED

_FIELD: Final = field_key("")


@dataclass(frozen=True, kw_only=True)
class MonitorSensorDescription(SensorEntityDescription):
    """A figure of a monitor."""

    value_fn: Callable[[Monitor], StateType]


def recorder_backlog(hass: HomeAssistant) -> int | None:
    """Return how much the recorder has yet to write, where there is one."""
    instance = hass.data.get(DATA_INSTANCE)
    return None if instance is None else instance.backlog


def _counter(
    key: str, value: Callable[[Monitor], StateType], *, enabled: bool = True
) -> MonitorSensorDescription:
    """Return the description of something that is counted."""
    return MonitorSensorDescription(
        key=key,
        translation_key=key,
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=enabled,
        value_fn=value,
    )


def _of_reason(reason: Reason) -> Callable[[Monitor], StateType]:
    """Return what counts the dead letters of a reason."""
    return lambda monitor: monitor.dead_letters.counts[reason]


def _measured(
    key: str,
    value: Callable[[Monitor], StateType],
    unit: str | None = None,
    precision: int = 0,
) -> MonitorSensorDescription:
    """Return the description of something that goes up and down."""
    return MonitorSensorDescription(
        key=key,
        translation_key=key,
        native_unit_of_measurement=unit,
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=precision,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=value,
    )


MONITOR_SENSORS: Final = (
    _measured("monitored_devices", lambda monitor: len(monitor.devices)),
    _measured("monitor_rate", lambda monitor: monitor.rate, precision=1),
    _measured("monitor_queue", lambda monitor: monitor.queued),
    _measured("connection_uptime", lambda monitor: monitor.uptime, PERCENTAGE, 1),
    _measured("recorder_backlog", lambda monitor: recorder_backlog(monitor.hass)),
    _counter("monitor_messages", lambda monitor: monitor.processed),
    _counter("monitor_overflow", lambda monitor: monitor.overflow),
    _counter("dead_letters", lambda monitor: monitor.dead_letters.total),
    *(
        _counter(f"dead_letters_{reason.value}", _of_reason(reason), enabled=False)
        for reason in Reason
    ),
)


class MonitorSensor(MonitorEntity, SensorEntity):
    """A figure of a monitor."""

    entity_description: MonitorSensorDescription

    @property
    @override
    def native_value(self) -> StateType:
        """Return the figure."""
        return self.entity_description.value_fn(self.monitor)


def monitor_sensors(monitor: Monitor) -> Iterator[Entity]:
    """Yield the figures of a monitor."""
    for description in MONITOR_SENSORS:
        yield MonitorSensor(monitor, description)


def monitored_sensors(
    monitor: Monitor, device: MonitoredDevice, key: str
) -> Iterable[Entity]:
    """Yield the sensors of something that a device says."""
    if key == EVERY:
        yield SeenSensor(monitor, device, SEEN)
    elif key == STARTED:
        yield StartedSensor(monitor, device, key)
    elif key in (STATUS, IP_ADDRESS):
        yield TextSensor(monitor, device, key)
    elif key.startswith(_FIELD):
        name = key.removeprefix(_FIELD)
        if device.kinds[name] in (Kind.NUMBER, Kind.TEXT):
            yield ValueSensor(monitor, device, name)
        average = monitor.settings.watching.average
        if device.kinds[name] is Kind.NUMBER and average >= LEAST_AVERAGED:
            yield AverageSensor(monitor, device, name)


class MomentSensor(MonitoredEntity, SensorEntity):
    """When something was, as a device says or shows."""

    _attr_device_class = SensorDeviceClass.TIMESTAMP
    _attr_entity_category = EntityCategory.DIAGNOSTIC

    @property
    def moment(self) -> float | None:
        """Return when it was (Unix time, s)."""
        raise NotImplementedError

    @property
    @override
    def native_value(self) -> datetime | None:
        """Return when it was."""
        if (moment := self.moment) is None:
            return None
        return datetime.fromtimestamp(moment, UTC)


class SeenSensor(MomentSensor):
    """When a device was heard last; written once a minute at most."""

    _attr_translation_key = "last_seen"
    always_available = True

    @property
    @override
    def moment(self) -> float | None:
        return self.device.heard or None


class StartedSensor(MomentSensor):
    """Since when a device runs."""

    _attr_translation_key = "started"

    @property
    @override
    def moment(self) -> float | None:
        return self.device.started


class TextSensor(MonitoredEntity, SensorEntity):
    """What a device calls its status, or its address."""

    _attr_entity_category = EntityCategory.DIAGNOSTIC

    def __init__(self, monitor: Monitor, device: MonitoredDevice, key: str) -> None:
        """Initialize the sensor of a text."""
        super().__init__(monitor, device, key)
        self._attr_translation_key = f"monitored_{key}"

    @property
    @override
    def native_value(self) -> str | None:
        """Return what was said last."""
        return self.device.status if self.key == STATUS else self.device.ip


class ValueSensor(MonitoredEntity, SensorEntity):
    """A value of a device that is a number or a text."""

    def __init__(self, monitor: Monitor, device: MonitoredDevice, name: str) -> None:
        """Initialize the sensor of a field."""
        super().__init__(monitor, device, field_key(name))
        self._name = name
        value = 0.0 if device.kinds[name] is Kind.NUMBER else ""
        self._field = field_of(name, value)
        describe(self, self._field)
        self.name_field(name, self._field)

    @property
    @override
    def native_value(self) -> StateType:
        """Return the last value, as far as a state can be it."""
        return shown(self._field, self.device.values.get(self._name))


class AverageSensor(MonitoredEntity, SensorEntity):
    """The moving average of a value."""

    _attr_translation_key = "moving_average"
    _attr_entity_registry_enabled_default = False

    def __init__(self, monitor: Monitor, device: MonitoredDevice, name: str) -> None:
        """Initialize the average of a field."""
        super().__init__(monitor, device, average_key(name))
        self._name = name
        field = field_of(name, 0.0)
        describe(self, field)
        self._attr_state_class = SensorStateClass.MEASUREMENT
        if field.state_class != SensorStateClass.MEASUREMENT:
            # What only grows has classes that an average cannot have
            self._attr_device_class = None
        self._attr_translation_placeholders = {"field": spoken(name)}
        if field.diagnostic:
            self._attr_entity_category = EntityCategory.DIAGNOSTIC

    @override
    async def async_added_to_hass(self) -> None:
        """Have the last values kept from now on."""
        self.device.want_average(self._name)
        await super().async_added_to_hass()

    @property
    @override
    def native_value(self) -> float | None:
        """Return the average."""
        return self.device.average(self._name)
