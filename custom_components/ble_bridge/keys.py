"""Keys of devices whose packets are encrypted, and whether they are right."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.components import bluetooth
from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.core import HomeAssistant

from .const import CONF_ADDRESS
from .decoders import Encryption

# Bytes: of BTHome, Xiaomi and Victron, and of Xiaomi's older devices.
_LENGTHS: Final = frozenset({16, 12})


def parse_key(text: str) -> bytes:
    """Return a key from its hexadecimal digits, however grouped; raises ValueError.

    The error does not quote the text.
    """
    digits = text.strip().removeprefix("0x")
    for separator in (" ", ":", "-"):
        digits = digits.replace(separator, "")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ValueError("Not a key") from None
    if len(key) not in _LENGTHS:
        raise ValueError("Not a key")
    return key


async def async_check_key(
    hass: HomeAssistant, entry: ConfigEntry[Any], data: Mapping[str, Any], key: bytes
) -> Encryption | None:
    """Return what a key does with the last packet of a device, or None if none was heard."""
    address = data.get(CONF_ADDRESS)
    if address is None or entry.state is not ConfigEntryState.LOADED:
        return None
    last = bluetooth.async_last_service_info(hass, address, connectable=False)
    if last is None:
        return None
    decoders = entry.runtime_data.decoders
    await entry.runtime_data.devices.async_load(decoders.sources(last))
    return decoders.check_key(last, key)
