"""Packets for the decoders, made without a Bluetooth stack.

`library_frames.jsonl` has one published frame a line. Bytes and keys are those of the tests
of the libraries themselves (their repositories at GitHub), of ble_monitor's for one frame of
Blue Maestro, Moat and Sensirion each, and of short BTHome frames made by bthome.io's format.
The values were decoded here and compared with those tests; what no test names was read
through by eye. Facts only: no code was taken.
"""

from functools import cache
import json
from pathlib import Path
from typing import Required, TypedDict

from bleak.backends.device import BLEDevice
from bluetooth_data_tools import parse_advertisement_data_bytes

from custom_components.ble_bridge.decoders import Decoders
from custom_components.ble_bridge.decoders.sources import LIBRARIES
from custom_components.ble_bridge.records import Advertisement, Value

ADDRESS = "C0:00:00:00:00:01"
FRAMES = Path(__file__).with_name("library_frames.jsonl")
DEMO = Path(__file__).parents[2] / "scripts/simulation/frames.jsonl"
UUID = "0000{}-0000-1000-8000-00805f9b34fb"


class Frame(TypedDict, total=False):
    """A frame that somebody published, and what it says."""

    source: Required[str]
    model: str
    manufacturer: str
    address: Required[str]
    name: Required[str]
    manufacturer_data: dict[str, str]
    service_data: dict[str, str]
    service_uuids: list[str]
    key: str
    values: Required[dict[str, Value]]
    events: dict[str, str]
    counter: list[int]


@cache
def frames() -> list[Frame]:
    """Return the published frames."""
    return [
        json.loads(line) for line in FRAMES.read_text(encoding="utf-8").splitlines()
    ]


def packet(
    manufacturer_data: dict[int, bytes] | None = None,
    service_data: dict[str, bytes] | None = None,
    name: str = "",
    *,
    service_uuids: list[str] | None = None,
    address: str = ADDRESS,
    time: float = 0.0,
    raw: bytes | None = None,
) -> Advertisement:
    """Return a packet; the service UUIDs of service data may be four digits."""
    if raw is not None and manufacturer_data is None and service_data is None:
        _, _, service_data, manufacturer_data, _ = parse_advertisement_data_bytes(raw)
    return Advertisement(
        name,
        address,
        -60,
        manufacturer_data or {},
        {
            UUID.format(uuid) if len(uuid) == 4 else uuid: data
            for uuid, data in (service_data or {}).items()
        },
        service_uuids or [],
        "AA:00:00:00:00:01",
        BLEDevice(address, None, None),
        None,
        False,
        time,
        None,
        raw,
    )


def of_frame(frame: Frame) -> Advertisement:
    """Return the packet of a frame."""
    return packet(
        {
            int(company_id): bytes.fromhex(data)
            for company_id, data in frame.get("manufacturer_data", {}).items()
        },
        {
            uuid: bytes.fromhex(data)
            for uuid, data in frame.get("service_data", {}).items()
        },
        frame["name"],
        service_uuids=frame.get("service_uuids", []),
        address=frame["address"],
    )


def key_of(frame: Frame) -> bytes | None:
    """Return the key of a frame that is encrypted."""
    return bytes.fromhex(frame["key"]) if "key" in frame else None


@cache
def loaded() -> Decoders:
    """Return decoders with everything loaded."""
    decoders = Decoders(lambda _name: None)
    for source in LIBRARIES:
        decoders.load(source.name)
    decoders.load("formats")
    return decoders
