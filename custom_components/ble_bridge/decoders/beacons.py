"""iBeacon (Apple) and Eddystone (Google): who a beacon is, and how it is doing.

Frames are taken only at the lengths that their specifications give them. `beacon_power` is
the signal strength at one metre, in dBm, whichever of the two a beacon speaks.
"""

import struct
from typing import Final, override
from uuid import UUID

from bluetooth_data_tools import parse_advertisement_data_bytes

from ..records import Advertisement, Value
from .model import Decoded, Decoder

APPLE: Final = 0x004C
EDDYSTONE_UUID: Final = "0000feaa-0000-1000-8000-00805f9b34fb"

_IBEACON_PREFIX: Final = b"\x02\x15"
_IBEACON: Final = struct.Struct(">2x16sHHb")
_UID: Final = struct.Struct(">xb10s6s")
# The last two bytes are reserved, and early beacons leave them out.
_UID_SIZES: Final = frozenset({18, 20})
_TLM: Final = struct.Struct(">2xHhII")
_NO_TEMPERATURE: Final = -0x8000
# Eddystone gives the power at 0 m; this is what the first metre takes (Eddystone-UID,
# "Tx Power").
_FIRST_METRE: Final = 41
_URL_SIZES: Final = range(4, 21)
_SCHEMES: Final = ("http://www.", "https://www.", "http://", "https://")
_DOMAINS: Final = (".com", ".org", ".edu", ".net", ".info", ".biz", ".gov")
_EXPANSIONS: Final = {
    **{code: chr(code) for code in range(0x21, 0x7F)},
    **{code: f"{domain}/" for code, domain in enumerate(_DOMAINS)},
    **dict(enumerate(_DOMAINS, len(_DOMAINS))),
}


class IBeacon(Decoder):
    """Decodes iBeacon packets ("Proximity Beacon Specification", Apple)."""

    @override
    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return UUID, major, minor and power of a beacon."""
        if advertisement.raw is None:
            data = advertisement.manufacturer_data.get(APPLE)
        else:
            data = parse_advertisement_data_bytes(advertisement.raw)[3].get(APPLE)
        if (
            data is None
            or len(data) != _IBEACON.size
            or not data.startswith(_IBEACON_PREFIX)
        ):
            return None
        uuid, major, minor, power = _IBEACON.unpack(data)
        return Decoded(
            "iBeacon",
            values={
                "beacon_uuid": str(UUID(bytes=uuid)),
                "beacon_major": major,
                "beacon_minor": minor,
                "beacon_power": power,
            },
        )


class Eddystone(Decoder):
    """Decodes Eddystone frames: UID, URL, and TLM that is not encrypted.

    EID and encrypted TLM say nothing without the keys of the service that set them up.
    https://github.com/google/eddystone/blob/master/protocol-specification.md
    """

    def __init__(self) -> None:
        self._merged_tlm: bytes | None = None

    @override
    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what the frame of a packet says.

        Beacons send their frames in turn. Without the raw packet, the stack keeps giving the
        last TLM frame while others come in; it is decoded once.
        """
        if advertisement.raw is not None:
            service_data = parse_advertisement_data_bytes(advertisement.raw)[2]
            frame = service_data.get(EDDYSTONE_UUID)
        else:
            frame = advertisement.service_data.get(EDDYSTONE_UUID)
            if frame is not None and frame.startswith(b"\x20"):
                if frame == self._merged_tlm:
                    return None
                self._merged_tlm = frame
        if not frame or (values := _values(frame)) is None:
            return None
        return Decoded("Eddystone", values=values)


def _values(frame: bytes) -> dict[str, Value] | None:
    """Return the values of a frame, by its type."""
    match frame[0]:
        case 0x00:
            return _uid(frame)
        case 0x10:
            return _url(frame)
        case 0x20:
            return _tlm(frame)
    return None


def _uid(frame: bytes) -> dict[str, Value] | None:
    if len(frame) not in _UID_SIZES:
        return None
    power, namespace, instance = _UID.unpack_from(frame)
    return {
        "eddystone_namespace": namespace.hex(),
        "eddystone_instance": instance.hex(),
        "beacon_power": power - _FIRST_METRE,
    }


def _url(frame: bytes) -> dict[str, Value] | None:
    if len(frame) not in _URL_SIZES or frame[2] >= len(_SCHEMES):
        return None
    parts = [_EXPANSIONS.get(code) for code in frame[3:]]
    if None in parts:
        return None
    power = int.from_bytes(frame[1:2], signed=True)
    return {
        "url": _SCHEMES[frame[2]] + "".join(part for part in parts if part),
        "beacon_power": power - _FIRST_METRE,
    }


def _tlm(frame: bytes) -> dict[str, Value] | None:
    if len(frame) != _TLM.size or frame[1] != 0:
        return None
    millivolts, temperature, count, uptime = _TLM.unpack(frame)
    values: dict[str, Value] = {"advertisement_count": count, "uptime": uptime / 10}
    if millivolts:
        values["voltage"] = millivolts / 1000
    if temperature != _NO_TEMPERATURE:
        # The nearest 1/256 of what was measured in tenths or hundredths
        values["temperature"] = round(temperature / 256, 2)
    return values
