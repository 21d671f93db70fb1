"""Sensors of the bridge, of its destinations, and of the devices."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
import functools
from typing import Any, override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import (
    SIGNAL_STRENGTH_DECIBELS_MILLIWATT,
    EntityCategory,
    UnitOfInformation,
    UnitOfLength,
    UnitOfTime,
)
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType
from homeassistant.util import dt as dt_util

from .bridge import BleBridgeConfigEntry, Bridge
from .decoders.fields import Kind
from .destinations.destination import Destination
from .destinations.errors import Problem
from .device import PRESENCE, SIGNAL, Device
from .entity import (
    BleBridgeEntity,
    DeviceEntity,
    FieldEntity,
    ScannerEntity,
    async_add_fields,
    async_add_scanners,
)
from .field_sensor import describe, shown
from .monitors.entity import async_add_monitored
from .monitors.sensor import monitor_sensors, monitored_sensors
from .records import RecordKind, Scanner

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class BridgeSensorDescription(SensorEntityDescription):
    """Describes a sensor of the bridge."""

    value_fn: Callable[[Bridge], StateType]


@dataclass(frozen=True, kw_only=True)
class DestinationSensorDescription(SensorEntityDescription):
    """Describes a sensor of a destination."""

    value_fn: Callable[[Destination[Any]], StateType]


@dataclass(frozen=True, kw_only=True)
class SignalSensorDescription(SensorEntityDescription):
    """Describes a sensor of how a device is heard."""

    value_fn: Callable[[Device], StateType | datetime]
    always_available: bool = False


@dataclass(frozen=True, kw_only=True)
class ScannerSensorDescription(SensorEntityDescription):
    """Describes a sensor of a scanner."""

    value_fn: Callable[[Scanner], StateType | datetime]


def _moment(seconds: float | None) -> datetime | None:
    """Return a Unix time as Home Assistant has it."""
    return None if seconds is None else dt_util.utc_from_timestamp(seconds)


def _figure(kind: RecordKind, figure: str, destination: Destination[Any]) -> int:
    """Return how many records of a kind met one fate."""
    count: int = getattr(destination.tally(kind), figure)
    return count


BRIDGE_SENSORS = (
    BridgeSensorDescription(
        key="advertisement_rate",
        translation_key="advertisement_rate",
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=1,
        value_fn=lambda bridge: bridge.rate,
    ),
    BridgeSensorDescription(
        key="devices",
        translation_key="devices",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda bridge: bridge.devices_on_air()[None],
    ),
    BridgeSensorDescription(
        key="scanners",
        translation_key="scanners",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda bridge: bridge.online_scanners,
    ),
)

DESTINATION_SENSORS = (
    DestinationSensorDescription(
        key="messages",
        translation_key="messages",
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda destination: destination.delivered,
    ),
    DestinationSensorDescription(
        key="bytes",
        translation_key="bytes",
        device_class=SensorDeviceClass.DATA_SIZE,
        native_unit_of_measurement=UnitOfInformation.BYTES,
        suggested_unit_of_measurement=UnitOfInformation.MEGABYTES,
        suggested_display_precision=1,
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.outbox.bytes_sent,
    ),
    DestinationSensorDescription(
        key="rate",
        translation_key="rate",
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=1,
        value_fn=lambda destination: destination.rate,
    ),
    DestinationSensorDescription(
        key="latency",
        translation_key="latency",
        device_class=SensorDeviceClass.DURATION,
        native_unit_of_measurement=UnitOfTime.MILLISECONDS,
        suggested_display_precision=1,
        state_class=SensorStateClass.MEASUREMENT,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.latency,
    ),
    DestinationSensorDescription(
        key="dropped",
        translation_key="dropped",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.dropped,
    ),
    DestinationSensorDescription(
        key="failed",
        translation_key="failed",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.failed,
    ),
    DestinationSensorDescription(
        key="waiting",
        translation_key="waiting",
        state_class=SensorStateClass.MEASUREMENT,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.outbox.waiting,
    ),
    *(
        DestinationSensorDescription(
            key=f"{kind}_{figure}",
            translation_key=f"{kind}_{figure}",
            state_class=(
                SensorStateClass.MEASUREMENT
                if figure == "waiting"
                else SensorStateClass.TOTAL_INCREASING
            ),
            entity_category=EntityCategory.DIAGNOSTIC,
            entity_registry_enabled_default=False,
            value_fn=functools.partial(_figure, kind, figure),
        )
        for kind in RecordKind
        for figure in ("received", "acknowledged", "sent", "dropped", "waiting")
    ),
    DestinationSensorDescription(
        key="reconnects",
        translation_key="reconnects",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.reconnects,
    ),
    DestinationSensorDescription(
        key="last_error",
        translation_key="last_error",
        device_class=SensorDeviceClass.ENUM,
        options=["none", *Problem],
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda destination: destination.last_error or "none",
    ),
)


SCANNER_SENSORS = (
    ScannerSensorDescription(
        key="scanner_rate",
        translation_key="scanner_rate",
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=0,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda scanner: scanner.rate,
    ),
    ScannerSensorDescription(
        key="last_advertisement",
        translation_key="last_advertisement",
        device_class=SensorDeviceClass.TIMESTAMP,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        value_fn=lambda scanner: _moment(scanner.heard),
    ),
)
SIGNAL_SENSORS = (
    SignalSensorDescription(
        key="rssi",
        translation_key="rssi",
        device_class=SensorDeviceClass.SIGNAL_STRENGTH,
        native_unit_of_measurement=SIGNAL_STRENGTH_DECIBELS_MILLIWATT,
        state_class=SensorStateClass.MEASUREMENT,
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda device: device.rssi,
    ),
    SignalSensorDescription(
        key="nearest_scanner",
        translation_key="nearest_scanner",
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda device: device.nearest.scanner.name if device.nearest else None,
    ),
    SignalSensorDescription(
        key="estimated_distance",
        translation_key="estimated_distance",
        device_class=SensorDeviceClass.DISTANCE,
        native_unit_of_measurement=UnitOfLength.METERS,
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=1,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        value_fn=lambda device: device.distance,
    ),
    SignalSensorDescription(
        key="last_seen",
        translation_key="last_seen",
        device_class=SensorDeviceClass.TIMESTAMP,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        always_available=True,
        value_fn=lambda device: _moment(device.last_seen),
    ),
    SignalSensorDescription(
        key="advertising_interval",
        translation_key="advertising_interval",
        device_class=SensorDeviceClass.DURATION,
        native_unit_of_measurement=UnitOfTime.SECONDS,
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=1,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        value_fn=lambda device: device.advertising_interval,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the sensors."""
    bridge = entry.runtime_data
    async_add_entities(
        BridgeSensor(bridge, description) for description in BRIDGE_SENSORS
    )
    for subentry_id in bridge.destinations:
        async_add_entities(
            (
                DestinationSensor(bridge, description, subentry_id)
                for description in DESTINATION_SENSORS
            ),
            config_subentry_id=subentry_id,
        )
    async_add_scanners(
        entry,
        async_add_entities,
        lambda scanner: (
            ScannerSensor(bridge, description, scanner)
            for description in SCANNER_SENSORS
        ),
    )
    for monitor in bridge.monitors.by_id.values():
        async_add_entities(
            monitor_sensors(monitor), config_subentry_id=monitor.subentry_id
        )
    await async_add_monitored(
        entry, bridge.monitors, async_add_entities, monitored_sensors
    )
    await async_add_fields(
        entry,
        async_add_entities,
        frozenset({Kind.NUMBER, Kind.TEXT}),
        FieldSensor,
        lambda bridge, device: (
            SignalSensor(bridge, device, description) for description in SIGNAL_SENSORS
        ),
    )


class BridgeSensor(BleBridgeEntity, SensorEntity):
    """A figure of the bridge."""

    entity_description: BridgeSensorDescription

    @property
    @override
    def native_value(self) -> StateType:
        """Return the figure."""
        return self.entity_description.value_fn(self.bridge)


class DestinationSensor(BleBridgeEntity, SensorEntity):
    """A figure of a destination."""

    entity_description: DestinationSensorDescription

    def __init__(
        self,
        bridge: Bridge,
        description: DestinationSensorDescription,
        subentry_id: str,
    ) -> None:
        """Initialize a sensor of a destination."""
        super().__init__(bridge, description, subentry_id)
        self._destination = bridge.destinations[subentry_id]

    @property
    @override
    def native_value(self) -> StateType:
        """Return the figure."""
        return self.entity_description.value_fn(self._destination)


class ScannerSensor(ScannerEntity, SensorEntity):
    """A figure of a scanner."""

    entity_description: ScannerSensorDescription

    @property
    @override
    def native_value(self) -> StateType | datetime:
        """Return the figure."""
        return self.entity_description.value_fn(self.scanner)


class SignalSensor(DeviceEntity, SensorEntity):
    """How a device is heard."""

    entity_description: SignalSensorDescription
    listens_to = (PRESENCE, SIGNAL)

    def __init__(
        self, bridge: Bridge, device: Device, description: SignalSensorDescription
    ) -> None:
        """Initialize a sensor of a device."""
        super().__init__(bridge, device, f"signal_{description.key}")
        self.entity_description = description

    @property
    @override
    def available(self) -> bool:
        """Return whether the device is there."""
        return self.entity_description.always_available or self.device.present

    @property
    @override
    def native_value(self) -> StateType | datetime:
        """Return the figure."""
        return self.entity_description.value_fn(self.device)


class FieldSensor(FieldEntity, SensorEntity):
    """A field of a device that is a number or a text."""

    def __init__(self, bridge: Bridge, device: Device, name: str) -> None:
        """Initialize the sensor of a field."""
        super().__init__(bridge, device, name)
        describe(self, self.field)

    @property
    @override
    def native_value(self) -> StateType:
        """Return the last value, as far as a state can be it."""
        return shown(self.field, self.device.values.get(self.name_in_device))
