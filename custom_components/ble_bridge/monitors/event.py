"""What happens at monitored devices: interactions, and messages of their systems."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, override

from homeassistant.components.event import EventEntity, EventEntityCapabilityAttribute
from homeassistant.core import callback
from homeassistant.helpers.entity import Entity
import orjson

from ..records import Value
from .device import Happening, MonitoredDevice
from .entity import MonitoredEntity
from .monitor import Monitor
from .patterns import MessageKind

MAX_EVENT_TYPES: Final = 64
# The event of which there are too many kinds already.
OTHER: Final = "other"
# The recorder keeps 16 kB of attributes, or none; some of them are not the event's.
MAX_ATTRIBUTES: Final = 32
MAX_ATTRIBUTE_BYTES: Final = 15 * 1024
_TAKEN: Final = frozenset(
    {
        *("event_type", "event_types", "friendly_name", "icon", "device_class"),
        *("entity_picture", "supported_features", "attribution", "assumed_state"),
        *("restored", "unit_of_measurement", "entity_id"),
    }
)


def monitored_events(
    monitor: Monitor, device: MonitoredDevice, key: str
) -> Iterable[Entity]:
    """Yield the events of a device."""
    if key in (MessageKind.INTERACTION, MessageKind.SYSTEM):
        yield MonitoredEvent(monitor, device, key)


class MonitoredEvent(MonitoredEntity, EventEntity):
    """What users do at a device, or its system says."""

    always_available = True

    def __init__(self, monitor: Monitor, device: MonitoredDevice, key: str) -> None:
        """Initialize the event of a kind of message."""
        super().__init__(monitor, device, key)
        self._attr_translation_key = key
        self._attr_event_types = [OTHER]

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to what happens, and know again what happened before a restart."""
        await super().async_added_to_hass()
        if (last := await self.async_get_last_state()) is not None:
            known = last.attributes.get(EventEntityCapabilityAttribute.EVENT_TYPES, ())
            self._attr_event_types = [*dict.fromkeys((OTHER, *known))]
        listeners = self.device.event_listeners.setdefault(MessageKind(self.key), set())
        listeners.add(self._on_event)
        self.async_on_remove(lambda: listeners.discard(self._on_event))

    @callback
    def _on_event(self, happening: Happening) -> None:
        """Take note of what happened."""
        event = happening.event
        if event not in self._attr_event_types:
            if len(self._attr_event_types) < MAX_EVENT_TYPES:
                self._attr_event_types = [*self._attr_event_types, event]
            else:
                event = OTHER
        self._trigger_event(event, _attributes(happening.values))
        self.async_write_ha_state()


def _attributes(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return as many of an event's values as can be kept."""
    attributes: dict[str, Any] = {}
    size = 0
    for name, value in list(values.items())[:MAX_ATTRIBUTES]:
        shown = f"{name}_" if name in _TAKEN else name
        size += len(orjson.dumps({shown: value}))
        if size > MAX_ATTRIBUTE_BYTES:
            break
        attributes[shown] = value
    return attributes
