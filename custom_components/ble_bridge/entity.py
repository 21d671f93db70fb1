"""What the entities of BLE Bridge have in common."""

from typing import override

from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.entity import Entity, EntityDescription

from .bridge import MANUFACTURER, Bridge
from .const import DOMAIN


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
            info["name"] = entry.subentries[subentry_id].title
            info["manufacturer"] = MANUFACTURER
            info["model"] = "MQTT destination"
            info["entry_type"] = DeviceEntryType.SERVICE
            info["via_device_id"] = bridge.device_id
        self._attr_device_info = info

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the bridge."""
        await super().async_added_to_hass()
        self.async_on_remove(self.bridge.async_add_listener(self.async_write_ha_state))
