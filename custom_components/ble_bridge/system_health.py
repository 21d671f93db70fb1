"""What System Health shows of BLE Bridge."""

from typing import Any

from homeassistant.components import system_health
from homeassistant.core import HomeAssistant, callback

from .bridge import BleBridgeConfigEntry
from .const import DOMAIN


@callback
def async_register(
    hass: HomeAssistant, register: system_health.SystemHealthRegistration
) -> None:
    """Register what is shown."""
    register.async_register_info(system_health_info)


async def system_health_info(hass: HomeAssistant) -> dict[str, Any]:
    """Return a few lines that tell whether all is well."""
    entries: list[BleBridgeConfigEntry] = hass.config_entries.async_loaded_entries(
        DOMAIN
    )
    if not entries:
        return {"loaded": False}
    bridge = entries[0].runtime_data
    destinations = bridge.destinations.values()
    connected = sum(destination.connection is not None for destination in destinations)
    return {
        "scanners": bridge.online_scanners,
        "devices": bridge.devices_on_air()[None],
        "advertisement_rate": round(bridge.rate or 0, 1),
        "destinations_connected": f"{connected}/{len(destinations)}",
        "messages": sum(destination.delivered for destination in destinations),
        "dropped": sum(destination.dropped for destination in destinations),
    }
