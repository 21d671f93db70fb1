"""Whether the destinations are connected."""

from typing import override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .bridge import BleBridgeConfigEntry, Bridge
from .entity import BleBridgeEntity

PARALLEL_UPDATES = 0

CONNECTED = BinarySensorEntityDescription(
    key="connected",
    device_class=BinarySensorDeviceClass.CONNECTIVITY,
    entity_category=EntityCategory.DIAGNOSTIC,
)


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up a sensor for each destination."""
    for subentry_id in entry.runtime_data.destinations:
        async_add_entities(
            [ConnectedSensor(entry.runtime_data, subentry_id)],
            config_subentry_id=subentry_id,
        )


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
