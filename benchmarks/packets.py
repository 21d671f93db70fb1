"""Packets of one device for each library, the table of formats, and beacons.

They begin with the published frames of the tests. One byte of a frame is then changed, such
that each packet says another value of the same fields.
"""

from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path
import re
import time
from typing import Any, Final, cast

from bleak.backends.device import BLEDevice
from bluetooth_data_tools import parse_advertisement_data_bytes

from custom_components.ble_bridge.decoders import Decoders, libraries, others
from custom_components.ble_bridge.decoders.model import Decoded, DecodeError
from custom_components.ble_bridge.decoders.sources import BEACONS, FORMATS, LIBRARIES
from custom_components.ble_bridge.records import Advertisement

FRAMES: Final = Path(__file__).parents[1] / "tests/decoders/library_frames.jsonl"
# More than what BLE Bridge remembers of a device, and SwitchBot's library of packets, so
# that each of them is news each time.
PACKETS: Final = 200
_SHORT_UUID: Final = re.compile("0000(.{4})-0000-1000-8000-00805f9b34fb")
# BTHome with battery, temperature, humidity and voltage; pvvx firmware; iBeacon; Eddystone
_OWN: Final[tuple[dict[str, Any], ...]] = (
    {
        "source": "bthome-ble",
        "service_data": {
            "0000fcd2-0000-1000-8000-00805f9b34fb": "40016402ca0903bf130c6b0b"
        },
    },
    {
        "source": "formats",
        "service_data": {
            "0000181a-0000-1000-8000-00805f9b34fb": "b2188d38c1a4980879140b0c640f05"
        },
    },
    {
        "source": "ibeacon",
        "manufacturer_data": {"76": "0215426c7565436861726d426561636f6e730efe1355c5"},
    },
    {
        "source": "eddystone",
        "service_data": {
            "0000feaa-0000-1000-8000-00805f9b34fb": "20000b1815000000015900000a72"
        },
    },
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A device that changes what it says: its packets, and what it takes to read them."""

    source: str
    address: str
    key: str | None
    packets: tuple[bytes, ...]
    fields: int


def structure(kind: int, data: bytes) -> bytes:
    """Return one of the parts of an advertisement."""
    return bytes((len(data) + 1, kind)) + data


def samples() -> list[Sample]:
    """Return one device of each source; loads all libraries."""
    frames = [
        *_OWN,
        *map(json.loads, FRAMES.read_text(encoding="utf-8").splitlines()),
    ]
    decoders = loaded()
    found = []
    for number, source in enumerate((*LIBRARIES, FORMATS, *BEACONS)):
        spare = f"C0:FF:EE:01:00:{number:02X}"
        own = (frame for frame in frames if frame["source"] == source.name)
        sample = next(
            (
                sample
                for frame in own
                for address in (spare, frame.get("address", spare).upper())
                if (sample := _vary(decoders, frame, address)) is not None
            ),
            None,
        )
        if sample is None:
            raise SystemExit(f"No frame of {source.name} can be varied.")
        found.append(sample)
    return found


def loaded() -> Decoders:
    """Return decoders with everything loaded."""
    decoders = Decoders(lambda _name: None)
    for source in (*LIBRARIES, FORMATS):
        decoders.load(source.name)
    return decoders


def advertisement(sample_address: str, raw: bytes) -> Advertisement:
    """Return a packet as the stack gives it."""
    name, uuids, service_data, manufacturer_data, power = (
        parse_advertisement_data_bytes(raw)
    )
    return Advertisement(
        name or sample_address,
        sample_address,
        -60,
        manufacturer_data,
        service_data,
        uuids,
        "AA:00:00:00:00:00",
        BLEDevice(sample_address, name, None),
        None,
        False,
        time.monotonic(),
        power,
        raw,
    )


def _vary(decoders: Decoders, frame: dict[str, Any], address: str) -> Sample | None:
    """Return a device whose packets differ in a byte of the frame, if one can be."""
    if not re.fullmatch("(..:){5}..", address):
        return None
    for part in ("service_data", "manufacturer_data"):
        for whose, text in (frame.get(part) or {}).items():
            data = bytes.fromhex(text)
            for at in range(len(data)):
                packets = tuple(
                    _raw(frame, part, whose, _changed(data, at, step))
                    for step in range(PACKETS)
                )
                if fields := _differ(decoders, frame, address, packets):
                    return Sample(
                        frame["source"], address, frame.get("key"), packets, fields
                    )
    return None


def _changed(data: bytes, at: int, step: int) -> bytes:
    return data[:at] + bytes([data[at] + step & 0xFF]) + data[at + 1 :]


def _raw(frame: dict[str, Any], part: str, whose: str, data: bytes) -> bytes:
    """Return the packet of a frame with other data in one place."""
    parts = [
        structure(1, b"\x06"),
        *(
            structure(*_uuid(uuid, 0x03, 0x07))
            for uuid in frame.get("service_uuids") or ()
        ),
    ]
    for uuid, text in (frame.get("service_data") or {}).items():
        said = data if (part, whose) == ("service_data", uuid) else bytes.fromhex(text)
        kind, encoded = _uuid(uuid, 0x16, 0x21)
        parts.append(structure(kind, encoded + said))
    for company, text in (frame.get("manufacturer_data") or {}).items():
        said = (
            data
            if (part, whose) == ("manufacturer_data", company)
            else bytes.fromhex(text)
        )
        parts.append(structure(0xFF, int(company).to_bytes(2, "little") + said))
    if name := frame.get("name"):
        parts.append(structure(0x09, name.encode()))
    return b"".join(parts)


def _uuid(uuid: str, short: int, long: int) -> tuple[int, bytes]:
    """Return the kind of a part, one of two, and a UUID as it stands there."""
    if match := _SHORT_UUID.fullmatch(uuid):
        return short, bytes.fromhex(match[1])[::-1]
    return long, bytes.fromhex(uuid.replace("-", ""))[::-1]


def _differ(
    decoders: Decoders, frame: dict[str, Any], address: str, packets: tuple[bytes, ...]
) -> int:
    """Return how many fields packets say, 0 unless each says other values of the same."""
    device = decoders.device(bytes.fromhex(frame["key"]) if "key" in frame else None)
    last: Decoded | None = None
    for raw in (*packets, *packets[:2]):
        try:
            decoded = device.decode(advertisement(address, raw))
        except DecodeError:
            return 0
        if (
            decoded is None
            or decoded.events
            or device.source is None
            or device.source.name != frame["source"]
            or (
                last is not None
                and (
                    last.values == decoded.values
                    or last.model != decoded.model
                    or last.values.keys() != decoded.values.keys()
                )
            )
        ):
            return 0
        last = decoded
    return len(last.values) if last else 0


def library(sample: Sample) -> Callable[[Advertisement], object]:
    """Return what a library itself offers to read a packet; without one, our decoder."""
    source = next(
        source
        for source in (*LIBRARIES, FORMATS, *BEACONS)
        if source.name == sample.source
    )
    key = bytes.fromhex(sample.key) if sample.key else None
    decoders = loaded()
    decoder: Any = decoders.make(source, key)
    if isinstance(decoder, libraries.SensorDecoder):
        return decoder._new().update
    if isinstance(decoder, others.AranetDecoder):
        return lambda packet: cast(Any, decoder)._parse(packet, packet)
    if isinstance(decoder, others.SwitchbotDecoder):
        return lambda packet: cast(Any, decoder)._parse(packet, packet, None)
    return cast("Callable[[Advertisement], object]", decoder.decode)
