"""What is known of the devices, across restarts."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.storage import Store

from .const import DOMAIN

_SAVE_SOON: Final = 1

type Stored = dict[str, Any]


class DeviceStore:
    """What is known of the devices, across restarts."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize the store."""
        self._store = Store[Stored](hass, 1, f"{DOMAIN}.devices")
        self.states: dict[str, Mapping[str, Any]] = {}
        self.removed: list[str] = []

    async def async_load(self) -> None:
        """Read what was kept, as far as it is what we write."""
        stored = await self._store.async_load()
        if not isinstance(stored, dict):
            return
        if isinstance(states := stored.get("devices"), dict):
            self.states = {
                key: state for key, state in states.items() if isinstance(state, dict)
            }
        if isinstance(removed := stored.get("removed"), list):
            self.removed = [address for address in removed if isinstance(address, str)]

    @callback
    def save_soon(self, data: Callable[[], Stored]) -> None:
        """Write within a second."""
        self._store.async_delay_save(data, _SAVE_SOON)

    async def async_save(self, data: Stored) -> None:
        """Write now."""
        await self._store.async_save(data)

    async def async_remove(self) -> None:
        """Remove what was kept."""
        await self._store.async_remove()
