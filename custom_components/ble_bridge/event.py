"""What happens at a device: a button that is pressed, a dimmer that is turned."""

from typing import Final, override

from homeassistant.components.event import EventDeviceClass, EventEntity
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .bridge import BleBridgeConfigEntry, Bridge
from .decoders.fields import Kind
from .device import Device
from .entity import FieldEntity, async_add_fields
from .monitors.entity import async_add_monitored
from .monitors.event import monitored_events

PARALLEL_UPDATES = 0

# What most devices say; others are added when they are heard.
_EVENT_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "button": (
        "press",
        "double_press",
        "triple_press",
        "long_press",
        "long_double_press",
        "long_triple_press",
        "hold_press",
    ),
    "dimmer": ("rotate_left", "rotate_right"),
    "motion_event": ("motion_detected",),
}
MAX_EVENT_TYPES: Final = 64


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BleBridgeConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Set up the events of the devices."""
    await async_add_monitored(
        entry, entry.runtime_data.monitors, async_add_entities, monitored_events
    )
    await async_add_fields(
        entry, async_add_entities, frozenset({Kind.EVENT}), DeviceEvent
    )


class DeviceEvent(FieldEntity, EventEntity):
    """What happens at one place of a device."""

    def __init__(self, bridge: Bridge, device: Device, name: str) -> None:
        """Initialize the event of a field."""
        super().__init__(bridge, device, name)
        self.listens_to = ()
        if self.field.kind is Kind.EVENT and self.field.device_class is not None:
            self._attr_device_class = EventDeviceClass(self.field.device_class)
        self._attr_event_types = list(_EVENT_TYPES.get(self.field.name, ()))

    @property
    @override
    def available(self) -> bool:
        """Return that it is there: a button says nothing until it is pressed."""
        return True

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to what happens."""
        await super().async_added_to_hass()
        self.async_on_remove(
            self.devices.async_listen_event(
                self.device, self.name_in_device, self._on_event
            )
        )

    @callback
    def _on_event(self, event: str) -> None:
        """Take note of what happened."""
        if event not in self._attr_event_types:
            if len(self._attr_event_types) >= MAX_EVENT_TYPES:
                return
            self._attr_event_types = [*self._attr_event_types, event]
        self._trigger_event(event)
        self.async_write_ha_state()
