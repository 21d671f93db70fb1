"""The demo's capture file holds well-formed packets, each with a documented origin."""

from collections import Counter
from functools import cache
import json
from pathlib import Path
import re
from typing import Literal, TypedDict

from bluetooth_data_tools import (
    get_cipher_for_irk,
    parse_advertisement_data_bytes,
    resolve_private_address,
)
import pytest

ROOT = Path(__file__).parents[2]
FRAMES = ROOT / "scripts/simulation/frames.jsonl"
ORIGINS = ROOT / "docs/frames.md"

KINDS = {
    "atc",
    "bthome",
    "eddystone",
    "govee",
    "ibeacon",
    "inkbird",
    "phone",
    "qingping",
    "ruuvi",
    "sensorpush",
    "switchbot",
    "thermopro",
    "xiaomi",
}
LEGACY_SIZE = 31
PHONE_IRK = bytes.fromhex("ec0234a357c8ad05341010a60a397d9b")


class Frame(TypedDict):
    """One line of the capture file."""

    device: str
    kind: str
    model: str
    address: str
    address_type: Literal["public", "random"]
    name: str | None
    data: str
    rssi: int
    interval: float
    origin: str
    expect: dict[str, bool | float | str]


@cache
def frames() -> list[Frame]:
    """Return every frame of the capture file."""
    return [
        json.loads(line) for line in FRAMES.read_text(encoding="utf-8").splitlines()
    ]


def structures(data: bytes) -> list[bytes]:
    """Split raw advertising data into its AD structures, and refuse data that does not divide."""
    parts: list[bytes] = []
    rest = data
    while rest:
        size = rest[0] + 1
        assert 2 <= size <= len(rest), f"bad AD structure at {rest.hex()}"
        parts.append(rest[:size])
        rest = rest[size:]
    return parts


every_frame = pytest.mark.parametrize(
    "frame",
    [
        pytest.param(frame, id=f"{frame['device']}-{n}")
        for n, frame in enumerate(frames(), 1)
    ],
)


@every_frame
def test_keys(frame: Frame) -> None:
    """A frame has the documented keys, with values that a radio can give."""
    assert frame.keys() == Frame.__annotations__.keys()
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", frame["device"])
    assert frame["model"]
    assert frame["data"] == frame["data"].lower()
    assert -100 <= frame["rssi"] <= -20
    assert 0.02 <= frame["interval"] <= 60
    assert all(
        isinstance(value, bool | int | float | str)
        for value in frame["expect"].values()
    )


@every_frame
def test_structures(frame: Frame) -> None:
    """The packet is whole AD structures that fit an advertisement and its scan response."""
    data = bytes.fromhex(frame["data"])
    sizes = [len(part) for part in structures(data)]
    assert any(
        sum(sizes[:cut]) <= LEGACY_SIZE and sum(sizes[cut:]) <= LEGACY_SIZE
        for cut in range(1, len(sizes) + 1)
    )


@every_frame
def test_parses(frame: Frame) -> None:
    """Home Assistant's own parser finds the name and a payload."""
    name, _, service_data, manufacturer_data, _ = parse_advertisement_data_bytes(
        bytes.fromhex(frame["data"])
    )
    assert name == frame["name"]
    assert service_data or manufacturer_data


@every_frame
def test_address(frame: Frame) -> None:
    """A random address is a phone's resolvable one, or static; both say so in the top two bits."""
    assert re.fullmatch(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}", frame["address"])
    top = int(frame["address"][:2], 16) >> 6
    if frame["kind"] == "phone":
        assert (frame["address_type"], top) == ("random", 0b01)
    elif frame["address_type"] == "random":
        assert top == 0b11


def test_addresses_are_unique() -> None:
    """No two devices share an address, and only a phone has more than one."""
    owners = Counter(
        address for _, address in {(f["device"], f["address"]) for f in frames()}
    )
    assert set(owners.values()) == {1}
    held = Counter(
        device for device, _ in {(f["device"], f["address"]) for f in frames()}
    )
    phones = {frame["device"] for frame in frames() if frame["kind"] == "phone"}
    assert {device for device, count in held.items() if count > 1} == phones


def test_a_device_keeps_its_identity() -> None:
    """The kind, model and name of a device are the same in all of its frames, none of them twice."""
    traits = {
        (f["device"], f["kind"], f["model"], f["name"], f["interval"]) for f in frames()
    }
    assert len(traits) == len({frame["device"] for frame in frames()})
    assert len({(f["device"], f["data"]) for f in frames()}) == len(frames())


def test_every_kind_is_there() -> None:
    """A home has at least one device of each kind."""
    assert {frame["kind"] for frame in frames()} >= KINDS


def test_origins_are_documented() -> None:
    """The documented origins are the ones in use."""
    _, table = ORIGINS.read_text(encoding="utf-8").split("\n## Origins\n")
    documented = re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted({frame["origin"] for frame in frames()})


def test_phone_resolves() -> None:
    """Every address of one phone resolves with its documented key."""
    assert PHONE_IRK.hex() in ORIGINS.read_text(encoding="utf-8")
    cipher = get_cipher_for_irk(PHONE_IRK)
    resolved = {
        f["device"] for f in frames() if resolve_private_address(cipher, f["address"])
    }
    assert resolved == {"phone-anna"}
    assert all(
        resolve_private_address(cipher, frame["address"])
        for frame in frames()
        if frame["device"] == "phone-anna"
    )
