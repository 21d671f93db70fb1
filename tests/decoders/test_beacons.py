"""iBeacon and Eddystone frames, as published and as nobody should send them."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.decoders.beacons import (
    APPLE,
    EDDYSTONE_UUID,
    Eddystone,
    IBeacon,
)
from custom_components.ble_bridge.decoders.fields import FIELDS, Kind
from custom_components.ble_bridge.decoders.model import Decoded
from tests.layouts.samples import advertisement, advertisements, structure

FRAMES = Path(__file__).parents[2] / "scripts/simulation/frames.jsonl"
# What the origins of the frames call the values
NAMES = {
    "uuid": "beacon_uuid",
    "major": "beacon_major",
    "minor": "beacon_minor",
    "power": "beacon_power",
    "tx_power": "beacon_power",
    "namespace": "eddystone_namespace",
    "instance": "eddystone_instance",
    "advertising_count": "advertisement_count",
}
UUID = bytes.fromhex("426c7565436861726d426561636f6e73")
IBEACON = b"\x02\x15" + UUID + b"\x0e\xfe\x13\x55\xc5"
UID = bytes.fromhex("00e3 12345678901234567890 000000000001")
TLM = bytes.fromhex("2000 0b18 1300 00001467 00002ac4")


def published() -> list[Any]:
    """Return the beacons' frames of the capture file."""
    lines = map(json.loads, FRAMES.read_text(encoding="utf-8").splitlines())
    return [
        pytest.param(line, id=f"{line['device']}-{n}")
        for n, line in enumerate(lines, 1)
        if line["kind"] in {"ibeacon", "eddystone"}
    ]


def eddystone(frame: bytes, *, raw: bool = False) -> Decoded | None:
    """Return what a frame says, in the packet itself or as the stack merges it."""
    if raw:
        data = bytes.fromhex("aafe") + frame
        return Eddystone().decode(advertisement(raw=structure(0x16, data)))
    return Eddystone().decode(advertisement(service_data={EDDYSTONE_UUID: frame}))


def ibeacon(data: bytes) -> Decoded | None:
    """Return what Apple's manufacturer data say."""
    return IBeacon().decode(advertisement(manufacturer_data={APPLE: data}))


@pytest.mark.parametrize("frame", published())
def test_published_frames(frame: dict[str, Any]) -> None:
    """Each frame gives the values that its origin documents."""
    packet = advertisement(raw=bytes.fromhex(frame["data"]))
    (decoded,) = (
        found
        for decoder in (IBeacon(), Eddystone())
        if (found := decoder.decode(packet)) is not None
    )
    expected = {NAMES.get(name, name): value for name, value in frame["expect"].items()}
    if "tx_power" in frame["expect"]:  # Eddystone's is that at 0 m
        expected["beacon_power"] -= 41
    assert {
        name: pytest.approx(decoded.values[name], abs=0.003)
        if name == "voltage"  # One origin rounds
        else decoded.values[name]
        for name in expected
    } == expected


def test_ibeacon() -> None:
    """An iBeacon says who it is; the UUID as text, the numbers most significant byte first."""
    assert ibeacon(IBEACON) == Decoded(
        "iBeacon",
        values={
            "beacon_uuid": "426c7565-4368-6172-6d42-6561636f6e73",
            "beacon_major": 3838,
            "beacon_minor": 4949,
            "beacon_power": -59,
        },
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        IBEACON[:-1],
        IBEACON + b"\0",
        b"\x02\x16" + IBEACON[2:],
        bytes.fromhex("10050b1c0fb5a1"),  # What Apple's own devices say
    ],
)
def test_no_ibeacon(data: bytes) -> None:
    """What is not exactly an iBeacon's is none."""
    assert ibeacon(data) is None


def test_another_company() -> None:
    """Other companies may send the same bytes."""
    packet = advertisement(manufacturer_data={0x0059: IBEACON})
    assert IBeacon().decode(packet) is None


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("frame", "values"),
    [
        (
            UID + b"\0\0",
            {
                "eddystone_namespace": "12345678901234567890",
                "eddystone_instance": "000000000001",
                "beacon_power": -70,
            },
        ),
        (
            UID,  # Without the reserved bytes
            {
                "eddystone_namespace": "12345678901234567890",
                "eddystone_instance": "000000000001",
                "beacon_power": -70,
            },
        ),
        (
            b"\x10\x12\x00a\x07",  # The power is an example of the specification
            {"url": "http://www.a.com", "beacon_power": -23},
        ),
        (b"\x10\xee\x03goo.gl/S6zT6P", {"url": "https://goo.gl/S6zT6P"}),
        (b"\x10\xee\x01example\x00docs", {"url": "https://www.example.com/docs"}),
        (b"\x10\xee\x02a\x06\x0d", {"url": "http://a.gov/.gov"}),
        (
            TLM,
            {
                "voltage": 2.84,
                "temperature": 19.0,
                "advertisement_count": 5223,
                "uptime": 1094.8,
            },
        ),
        # Neither voltage nor temperature is supported.
        (
            bytes.fromhex("2000000080000000000100000001"),
            {"advertisement_count": 1, "uptime": 0.1},
        ),
        # 22.55 °C and -0.5 °C, as near as 8.8 fixed point comes
        (
            bytes.fromhex("20000000168d0000000000000000"),
            {"temperature": 22.55, "advertisement_count": 0, "uptime": 0.0},
        ),
        (
            bytes.fromhex("20000000ff800000000000000000"),
            {"temperature": -0.5, "advertisement_count": 0, "uptime": 0.0},
        ),
        (
            bytes.fromhex("2000ffff7fffffffffffffffffff"),
            {
                "voltage": 65.535,
                "temperature": 128.0,
                "advertisement_count": 0xFFFFFFFF,
                "uptime": 429496729.5,
            },
        ),
    ],
)
def test_eddystone(frame: bytes, values: dict[str, Any], raw: bool) -> None:
    """Each frame gives its values, wherever it is found."""
    decoded = eddystone(frame, raw=raw)
    assert decoded is not None
    assert decoded.model == "Eddystone"
    assert values.items() <= decoded.values.items()
    assert decoded.values.keys() - values.keys() <= {"beacon_power"}


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        UID[:-1],
        UID + b"\0",
        UID + b"\0\0\0",
        b"\x01" + UID[1:],  # Reserved bits of the type
        b"\x10\xee\x03",  # No URL
        b"\x10\xee\x04a",  # No scheme
        b"\x10\xee\x03" + b"a" * 18,
        b"\x10\xee\x03a\x0e",
        b"\x10\xee\x03a b",
        b"\x10\xee\x03a\x7f",
        b"\x10\xee\x03\xc3\xa4",
        TLM[:-1],
        TLM + b"\0",
        b"\x20\x02" + TLM[2:],
        bytes.fromhex("2001" + "00" * 16),  # Encrypted TLM
        bytes.fromhex("30e3" + "0102030405060708"),  # EID
        bytes.fromhex("40ff"),
    ],
)
def test_no_eddystone(frame: bytes) -> None:
    """What cannot be read, or is not of the right length, says nothing."""
    assert eddystone(frame) is None
    assert eddystone(frame, raw=True) is None


def test_the_packet_counts_where_it_is_known() -> None:
    """What the stack has merged is not taken for what this packet says."""
    merged: dict[str, Any] = {
        "manufacturer_data": {APPLE: IBEACON},
        "service_data": {EDDYSTONE_UUID: TLM},
    }
    other = advertisement(raw=bytes.fromhex("020106"), **merged)
    assert IBeacon().decode(other) is None
    assert Eddystone().decode(other) is None


def test_merged_telemetry_is_decoded_once() -> None:
    """Without the packet, a TLM frame that was decoded and stays around says nothing new."""
    decoder = Eddystone()
    packet = advertisement(service_data={EDDYSTONE_UUID: TLM})
    assert decoder.decode(packet) is not None
    beside = advertisement(
        service_data={EDDYSTONE_UUID: TLM}, manufacturer_data={APPLE: IBEACON}
    )
    assert decoder.decode(beside) is None
    uid = advertisement(service_data={EDDYSTONE_UUID: UID})
    assert decoder.decode(uid) == decoder.decode(uid) is not None
    later = advertisement(service_data={EDDYSTONE_UUID: TLM[:-1] + b"\xff"})
    assert decoder.decode(later) is not None


@given(
    st.one_of(
        advertisements,
        st.builds(
            lambda kind, frame: advertisement(
                service_data={EDDYSTONE_UUID: kind + frame},
                manufacturer_data={APPLE: b"\x02\x15" + frame},
            ),
            st.sampled_from([b"\x00", b"\x10", b"\x20\x00", b""]),
            st.binary(max_size=24),
        ),
    )
)
def test_any_bytes(packet: Any) -> None:
    """Whatever comes, it gives known fields of their kinds, or nothing."""
    kinds: dict[Kind, Any] = {Kind.NUMBER: (int, float), Kind.TEXT: str}
    for decoder in (IBeacon(), Eddystone()):
        if (decoded := decoder.decode(packet)) is not None:
            assert decoded.values
            for name, value in decoded.values.items():
                assert isinstance(value, kinds[FIELDS[name].kind])


@given(
    st.integers(0, 3),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
)
def test_urls(scheme: int, text: str) -> None:
    """A URL of printable characters arrives as it is, up to 17 of them."""
    decoded = eddystone(bytes([0x10, 0, scheme]) + text.encode())
    if len(text) > 17:
        assert decoded is None
    else:
        assert decoded is not None
        assert str(decoded.values["url"]).endswith(text)
