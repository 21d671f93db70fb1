"""What is known of monitored devices, across restarts."""

from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers.storage import Store

from ..const import DOMAIN


class MonitorStore:
    """The states of monitors by their subentries; none of it can be relied on."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize the store."""
        # What is given is a copy, so that another thread can write it out
        self._store = Store[dict[str, Any]](
            hass, 1, f"{DOMAIN}.monitors", serialize_in_event_loop=False
        )
        self.states: dict[str, Any] = {}

    async def async_load(self) -> None:
        """Read what was kept."""
        stored = await self._store.async_load()
        self.states = stored if isinstance(stored, dict) else {}

    async def async_save(self, data: dict[str, Any]) -> None:
        """Write a copy of what is known."""
        await self._store.async_save(data)

    async def async_remove(self) -> None:
        """Remove what was kept."""
        await self._store.async_remove()
