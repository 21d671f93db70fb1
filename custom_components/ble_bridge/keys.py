"""Keys of devices whose packets are encrypted, and whether they are right."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.components import bluetooth
from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.core import HomeAssistant

from .const import CONF_ADDRESS, CONF_IRK
from .decoders import Encryption
from .decoders.model import DecodeError
from .irk import Resolver
from .records import Advertisement

# Bytes: of BTHome, Xiaomi and Victron, and of Xiaomi's older devices.
_LENGTHS: Final = frozenset({16, 12})


def parse_key(text: str) -> bytes:
    """Return a key from its hexadecimal digits, however grouped; raises ValueError.

    The error does not quote the text.
    """
    digits = text.strip().lower().removeprefix("0x")
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
    """Return what a key does with the last packet of a device.

    None is that nothing was heard which could tell, and NONE that it is not encrypted.
    """
    if entry.state is not ConfigEntryState.LOADED:
        return None
    bridge = entry.runtime_data
    last = _last_packet(hass, data, bridge.feed.advertisers)
    if last is None:
        return None
    await bridge.devices.async_load(bridge.decoders.sources(last))
    try:
        return Encryption(bridge.decoders.check_key(last, key))
    except DecodeError:
        return None


def _last_packet(
    hass: HomeAssistant, data: Mapping[str, Any], on_air: Mapping[str, object]
) -> Advertisement | None:
    """Return the last packet of a device, at whichever of its addresses."""
    addresses = [address] if (address := data.get(CONF_ADDRESS)) else []
    if irk := data.get(CONF_IRK):
        resolver = Resolver(1)
        resolver.add("", [bytes.fromhex(irk)])
        addresses += [address for address in on_air if resolver.resolve(address) == ""]
    packets = (
        bluetooth.async_last_service_info(hass, address, connectable=False)
        for address in addresses
    )
    return max(filter(None, packets), key=lambda packet: packet.time, default=None)
