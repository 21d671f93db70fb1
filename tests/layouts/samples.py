"""Advertisements as Home Assistant's stack gives them, and the schemas of what is made."""

from functools import cache
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from bleak.backends.device import BLEDevice
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from custom_components.ble_bridge.records import Advertisement, Scanner, Sighting

ROOT = Path(__file__).parents[2]
ADDRESS = "C0:00:00:00:00:01"
SOURCE = "AA:00:00:00:00:01"
TIME = 1_000.25
UUID = "0000fcd2-0000-1000-8000-00805f9b34fb"
NOTHING: dict[str, Any] = {
    "address": ADDRESS,
    "rssi": -50,
    "manufacturer_data": {},
    "service_data": {},
    "service_uuids": [],
    "source": SOURCE,
    "connectable": False,
    "time": TIME,
    "tx_power": None,
    "raw": None,
}


def advertisement(
    *, details: Any = None, name: str = ADDRESS, **changes: Any
) -> Advertisement:
    """Return an advertisement without data, but for the changes."""
    device = BLEDevice(ADDRESS, None, {} if details is None else details)
    return Advertisement(
        name=name, device=device, advertisement=None, **{**NOTHING, **changes}
    )


def lookalike(**changes: Any) -> Advertisement:
    """Return what the compiled stack would refuse, and one that is not would take."""
    device = BLEDevice(ADDRESS, None, {})
    values = {**NOTHING, "name": ADDRESS, "device": device, **changes}
    return cast(Advertisement, SimpleNamespace(**values))


def sighting(scanner_id: str = "living-room-proxy") -> Sighting:
    """Return a sighting of a device that was not heard yet."""
    return Sighting(Scanner(SOURCE, scanner_id, "Living room proxy"), ADDRESS)


def structure(kind: int, data: bytes) -> bytes:
    """Return an AD structure: length, type, value."""
    return bytes([len(data) + 1, kind]) + data


@cache
def schema(name: str) -> dict[str, Any]:
    """Return a schema of the documentation."""
    content: dict[str, Any] = json.loads(
        (ROOT / "docs/schemas" / f"{name}.json").read_text(encoding="utf-8")
    )
    Draft202012Validator.check_schema(content)
    return content


def validated(payload: bytes, name: str = "advertisement") -> dict[str, Any]:
    """Return a payload that is UTF-8 JSON and holds what its schema says."""
    message: dict[str, Any] = json.loads(payload.decode("utf-8"))
    Draft202012Validator(schema(name)).validate(message)
    return message


data = st.binary(max_size=40)
uuids = st.uuids().map(str)
# Lone surrogates too, which no UTF-8 can say.
texts = st.text(st.characters(), max_size=300)
structures = st.builds(
    structure,
    st.one_of(
        st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 22, 32, 33, 255]),
        st.integers(0, 255),
    ),
    data,
)
raws = st.one_of(
    st.binary(max_size=300), st.lists(structures, max_size=8).map(b"".join)
)
advertisements = st.builds(
    advertisement,
    name=st.one_of(st.just(ADDRESS), texts),
    rssi=st.integers(-200, 200),
    manufacturer_data=st.dictionaries(st.integers(0, 0xFFFF), data, max_size=64),
    service_data=st.dictionaries(uuids, data, max_size=8),
    service_uuids=st.lists(uuids, max_size=8),
    tx_power=st.one_of(st.none(), st.integers(-128, 127)),
    connectable=st.booleans(),
    time=st.floats(0, 1e8),
    raw=st.one_of(st.none(), raws),
    details=st.sampled_from(
        [
            None,
            "of another backend",
            {"address_type": 0},
            {"address_type": 1},
            {"address_type": 255},
            {"path": "/org/bluez/hci0/dev_C0", "props": {"AddressType": "random"}},
            {"path": "/org/bluez/hci0/dev_C0", "props": {"Adapter": "/org/bluez/hci0"}},
        ]
    ),
)
