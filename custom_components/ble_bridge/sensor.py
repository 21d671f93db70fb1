"""Sensors of the bridge and of its destinations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import EntityCategory, UnitOfInformation, UnitOfTime
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType

from .bridge import BleBridgeConfigEntry, Bridge
from .destinations.errors import Problem
from .destinations.mqtt import MqttDestination
from .entity import BleBridgeEntity

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class BridgeSensorDescription(SensorEntityDescription):
    """Describes a sensor of the bridge."""

    value_fn: Callable[[Bridge], StateType]


@dataclass(frozen=True, kw_only=True)
class DestinationSensorDescription(SensorEntityDescription):
    """Describes a sensor of a destination."""

    value_fn: Callable[[MqttDestination], StateType]


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
        value_fn=lambda destination: destination.sent,
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
