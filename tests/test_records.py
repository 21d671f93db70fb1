"""What is known of a device at a scanner, and what became of its packets."""

from typing import Any

from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.records import Tally

from .layouts.samples import UUID, advertisement, advertisements, sighting

RAW = bytes.fromhex("0201060cfffeff0102030405060708ff")
counts = st.integers(0, 1_000_000)


def copy(value: bytes) -> bytes:
    """Return equal bytes that are another object."""
    return bytes(bytearray(value))


def test_the_first_packet_is_new() -> None:
    """A device that was not heard yet changes with its first packet, whatever it says."""
    assert sighting().update(advertisement())
    assert sighting().update(advertisement(raw=b""))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"raw": RAW}, {"raw": copy(RAW)}),
        (
            {"manufacturer_data": {1: b"1"}, "service_uuids": [UUID]},
            {"manufacturer_data": {1: b"1"}, "service_uuids": [UUID]},
        ),
        ({"service_data": {UUID: b"1"}}, {"service_data": {UUID: b"1"}}),
        # Where there is the packet, what was merged does not count.
        (
            {"raw": RAW, "manufacturer_data": {1: b"1"}},
            {"raw": copy(RAW), "manufacturer_data": {1: b"2"}},
        ),
        ({}, {"rssi": -90, "time": 2_000.0}),
    ],
)
def test_unchanged(changes: dict[str, Any], same: dict[str, Any]) -> None:
    """An equal payload is none that changed, and leaves what layouts keep."""
    device = sighting()
    packet = advertisement(**changes)
    device.update(packet)
    device.tail = b"kept"
    assert not device.update(packet)
    assert not device.update(advertisement(**same))
    assert device.tail == b"kept"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"raw": RAW}, {"raw": RAW + b"\0"}),
        ({}, {"raw": b""}),
        ({"raw": b""}, {}),
        ({"raw": RAW}, {"manufacturer_data": {0xFFFE: b"1"}}),
        ({}, {"connectable": True}),
        ({"connectable": True}, {}),
        ({"raw": RAW}, {"raw": RAW, "connectable": True}),
        ({"raw": RAW, "connectable": True}, {"raw": copy(RAW)}),
        ({"manufacturer_data": {1: b"1"}}, {"manufacturer_data": {1: b"2"}}),
        ({"manufacturer_data": {1: b"1"}}, {"manufacturer_data": {2: b"1"}}),
        ({"service_data": {UUID: b""}}, {"service_data": {}}),
        ({"service_uuids": []}, {"service_uuids": [UUID]}),
        ({"name": "A"}, {"name": "B"}),
        ({"tx_power": None}, {"tx_power": 0}),
        # The stack learns a name from another scanner, while the packet stays the same.
        ({"raw": RAW}, {"raw": RAW, "name": "Learnt"}),
    ],
)
def test_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A change is told once, and what layouts keep of the old payload is gone."""
    device = sighting()
    device.update(advertisement(**before))
    setattr(device, "tail", b"old")  # noqa: B010 - mypy would keep it for known
    packet = advertisement(**after)
    assert device.update(packet)
    assert device.tail is None
    assert not device.update(packet)


@given(st.lists(advertisements, min_size=1, max_size=10))
def test_what_a_sighting_knows(packets: Any) -> None:
    """It is always the last payload's, and a change is told where there is one."""
    device = sighting()
    for packet in packets:
        payload = {
            name: getattr(packet, name)
            for name in (
                ("raw", "name", "connectable")
                if packet.raw is not None
                else (
                    "raw",
                    "manufacturer_data",
                    "service_data",
                    "service_uuids",
                    "name",
                    "tx_power",
                    "connectable",
                )
            )
        }
        known = {name: getattr(device, name) for name in payload}
        assert device.update(packet) is (known != payload)
        assert {name: getattr(device, name) for name in payload} == payload
        assert not device.update(packet)


@given(counts, counts, counts, counts, counts)
def test_tally(sent: int, away: int, overflow: int, failed: int, waiting: int) -> None:
    """What was received is sent, dropped for one of three reasons, or waits."""
    tally = Tally(
        received=sent + away + overflow + failed + waiting,
        sent=sent,
        away=away,
        overflow=overflow,
        failed=failed,
    )
    assert tally.waiting == waiting
    assert tally.received == tally.sent + tally.dropped + tally.waiting
