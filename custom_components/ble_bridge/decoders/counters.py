"""The counters that packets carry, and whether packets are encrypted.

Both are read from the bytes at hand: no library is needed, and no key.
"""

from typing import Final

from ..records import Advertisement

# The value of a packet's own counter, and after how many it begins anew.
type Counter = tuple[int, int]

BTHOME: Final = "0000fcd2-0000-1000-8000-00805f9b34fb"
BTHOME_V1: Final = "0000181c-0000-1000-8000-00805f9b34fb"
BTHOME_V1_ENCRYPTED: Final = "0000181e-0000-1000-8000-00805f9b34fb"
MIBEACON: Final = "0000fe95-0000-1000-8000-00805f9b34fb"
QINGPING: Final = "0000fdcd-0000-1000-8000-00805f9b34fb"
RUUVI: Final = 0x0499
VICTRON: Final = 0x02E1

_BTHOME_ENCRYPTED: Final = 0x01
_BTHOME_WITH_ADDRESS: Final = 0x02
_BTHOME_TRAILER: Final = 8  # The counter, then four bytes that prove the key
_MIBEACON_ENCRYPTED: Final = 0x08
_MIBEACON_WITH_OBJECT: Final = 0x40
_VICTRON_INSTANT_READOUT: Final = b"\x10"
_QINGPING_EVENT: Final = 0x40
_QINGPING_OBJECTS: Final = 8
_QINGPING_FRAME: Final = 0x0F


def bthome_encrypted(advertisement: Advertisement) -> bool:
    """Tell whether a BTHome packet is encrypted."""
    service_data = advertisement.service_data
    if data := service_data.get(BTHOME):
        return bool(data[0] & _BTHOME_ENCRYPTED)
    return BTHOME_V1_ENCRYPTED in service_data and BTHOME_V1 not in service_data


def bthome_counter(advertisement: Advertisement) -> Counter | None:
    """Return the encryption counter, or else the packet ID (bthome.io/format)."""
    service_data = advertisement.service_data
    if data := service_data.get(BTHOME):
        if data[0] & _BTHOME_ENCRYPTED:
            return _bthome_trailer(data)
        start = 7 if data[0] & _BTHOME_WITH_ADDRESS else 1
        packet_id = data[start : start + 2]
        return (packet_id[1], 1 << 8) if packet_id[:1] == b"\0" < packet_id else None
    if data := service_data.get(BTHOME_V1):
        # An object of two bytes: its kind, which is the packet ID, and the value.
        return (data[2], 1 << 8) if len(data) > 2 and data[:2] == b"\x02\0" else None
    return _bthome_trailer(service_data.get(BTHOME_V1_ENCRYPTED, b""))


def _bthome_trailer(data: bytes) -> Counter | None:
    if len(data) <= _BTHOME_TRAILER:
        return None
    return int.from_bytes(data[-8:-4], "little"), 1 << 32


def xiaomi_encrypted(advertisement: Advertisement) -> bool:
    """Tell whether a MiBeacon packet holds something, and that is encrypted."""
    wanted = _MIBEACON_ENCRYPTED | _MIBEACON_WITH_OBJECT
    data = advertisement.service_data.get(MIBEACON, b"")
    return len(data) > 0 and data[0] & wanted == wanted


def xiaomi_counter(advertisement: Advertisement) -> Counter | None:
    """Return the frame counter of a MiBeacon packet."""
    data = advertisement.service_data.get(MIBEACON, b"")
    return (data[4], 1 << 8) if len(data) > 4 else None


def victron_encrypted(advertisement: Advertisement) -> bool:
    """Tell whether a packet is an instant readout, which always is encrypted."""
    data = advertisement.manufacturer_data.get(VICTRON, b"")
    return data[:1] == _VICTRON_INSTANT_READOUT


def victron_counter(advertisement: Advertisement) -> Counter | None:
    """Return the number that an instant readout is encrypted with."""
    data = advertisement.manufacturer_data.get(VICTRON, b"")
    if len(data) < 7 or data[:1] != _VICTRON_INSTANT_READOUT:
        return None
    return int.from_bytes(data[5:7], "little"), 1 << 16


def ruuvi_counter(advertisement: Advertisement) -> Counter | None:
    """Return the measurement sequence of data formats 5, 6 and E1."""
    data = advertisement.manufacturer_data.get(RUUVI, b"")
    match data[:1]:
        case b"\x05" if len(data) >= 18:
            start, end = 16, 18
        case b"\x06" if len(data) >= 16:
            start, end = 15, 16
        case b"\xe1" if len(data) >= 28:
            start, end = 25, 28
        case _:
            return None
    value, modulus = int.from_bytes(data[start:end]), 1 << 8 * (end - start)
    # In formats 5 and E1 all bits set say that there is none.
    return None if end - start > 1 and value == modulus - 1 else (value, modulus)


def qingping_counter(advertisement: Advertisement) -> Counter | None:
    """Return the frame counter of an event, which is one of its objects.

    Regular packets have one too; nothing says that it is the same.
    """
    data = advertisement.service_data.get(QINGPING, b"")
    if not data or not data[0] & _QINGPING_EVENT:
        return None
    at = _QINGPING_OBJECTS
    while at + 2 < len(data):
        kind, size = data[at], data[at + 1]
        if kind == _QINGPING_FRAME and size == 1:
            return data[at + 2], 1 << 8
        at += 2 + size
    return None
