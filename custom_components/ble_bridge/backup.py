"""Backups: nothing is written to the files on disk while they are copied."""

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant, callback

from .bridge import Bridge
from .const import DOMAIN
from .destinations.journal import Journal


async def async_pre_backup(hass: HomeAssistant) -> None:
    """Have each file whole, and leave it alone."""
    for journal in _journals(hass):
        await journal.async_pause()


async def async_post_backup(hass: HomeAssistant) -> None:
    """Write again."""
    for journal in _journals(hass):
        journal.resume()


@callback
def _journals(hass: HomeAssistant) -> list[Journal]:
    """Return what writes to disk."""
    bridges: list[Bridge] = [
        entry.runtime_data
        for entry in hass.config_entries.async_entries(DOMAIN)
        if entry.state is ConfigEntryState.LOADED
    ]
    return [
        journal
        for bridge in bridges
        for destination in bridge.destinations.values()
        if (journal := destination.delivery.journal) is not None
    ]
