"""The raw layout: what a packet becomes."""

from collections.abc import Iterator
from datetime import UTC, datetime
import json
import re
import time
from typing import Any
from unittest.mock import patch

from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.layouts.raw import (
    Heartbeat,
    RawLayout,
    advertisement_topic,
    bridge_topic,
    scanner_topic,
)
from custom_components.ble_bridge.records import Advertisement, Route, Scanner, Tally

from .samples import (
    ADDRESS,
    ROOT,
    TIME,
    UUID,
    advertisement,
    advertisements,
    lookalike,
    raws,
    schema,
    sighting,
    structure,
    validated,
)

WALL = 1_768_127_445.5  # 2026-01-11T10:30:45.500Z
LONG_NAME = "/+#\0🦊" * 31


class Clock:
    """The system's two clocks, of which one can be set."""

    def __init__(self) -> None:
        """Begin at a time that is easy to read."""
        self.now = TIME
        self.offset = WALL - TIME

    def time(self) -> float:
        """Return the time of day."""
        return self.now + self.offset

    def monotonic(self) -> float:
        """Return the time since start."""
        return self.now


ROUTE = Route(b"", Tally())


@pytest.fixture(name="clock")
def clock_fixture() -> Iterator[Clock]:
    """Return the layout's clock."""
    clock = Clock()
    with patch("custom_components.ble_bridge.layouts.raw.time", wraps=time) as module:
        module.time.side_effect = clock.time
        module.monotonic.side_effect = clock.monotonic
        yield clock


def published(packet: Advertisement) -> dict[str, Any]:
    """Return what a packet becomes."""
    return validated(RawLayout().payload(ROUTE, sighting(), packet))


def test_topics() -> None:
    """The topics are those of the documentation."""
    assert (
        advertisement_topic("ble", sighting()) == f"ble/raw/living-room-proxy/{ADDRESS}"
    )
    assert scanner_topic("a/b", "hci0") == "a/b/scanner/hci0/status"
    assert bridge_topic("ble", "home") == "ble/bridge/home/status"


def test_a_packet_without_anything() -> None:
    """A device that says nothing has all the fields that are always there."""
    message = published(advertisement())
    del message["timestamp"]
    assert message == {
        "scanner_id": "living-room-proxy",
        "mac_address": ADDRESS,
        "rssi": -50,
        "manufacturer_data": {},
        "service_uuids": [],
        "local_name": None,
        "service_data": {},
        "tx_power": None,
        "connectable": False,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rssi": 127}, {"rssi": None}),
        ({"rssi": 0}, {"rssi": None}),
        ({"rssi": -127}, {"rssi": None}),
        ({"rssi": -126}, {"rssi": -126}),
        ({"rssi": 1}, {"rssi": 1}),
        ({"rssi": -1000}, {"rssi": -1000}),
        ({"tx_power": 0}, {"tx_power": 0}),
        ({"tx_power": -12}, {"tx_power": -12}),
        ({"tx_power": 127}, {"tx_power": None}),
        ({"tx_power": -127}, {"tx_power": None}),
        ({"connectable": True}, {"connectable": True}),
        ({"name": ""}, {"local_name": None}),
        ({"name": "Ruuvi 1234"}, {"local_name": "Ruuvi 1234"}),
        ({"name": LONG_NAME}, {"local_name": LONG_NAME}),
        ({"name": "a\ud800b"}, {"local_name": "a?b"}),
        ({"name": 'quote " and \\'}, {"local_name": 'quote " and \\'}),
        ({"manufacturer_data": {0x004C: b""}}, {"manufacturer_data": {"4c00": ""}}),
        (
            {"manufacturer_data": {n: bytes([n]) for n in range(64)}},
            {"manufacturer_data": {f"{n:02x}00": f"{n:02x}" for n in range(64)}},
        ),
        ({"service_data": {UUID: b""}}, {"service_data": {UUID: ""}}),
        ({"service_data": {UUID: b"\xff\0"}}, {"service_data": {UUID: "ff00"}}),
        ({"service_data": {UUID.upper(): b"\1"}}, {"service_data": {UUID: "01"}}),
        ({"service_uuids": [UUID.upper()]}, {"service_uuids": [UUID]}),
    ],
)
def test_merged_data(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """Without the packet itself, what the stack says is what goes out."""
    message = published(advertisement(**changes))
    assert {key: message[key] for key in expected} == expected
    assert "raw" not in message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", {}),
        (b"\0" * 31, {}),
        (b"\xff" * 31, {}),
        (structure(9, b"Ruuvi 1234"), {"local_name": "Ruuvi 1234"}),
        (structure(8, b"Ruuvi"), {"local_name": "Ruuvi"}),
        (structure(9, b"\xff\xfe\xc3("), {"local_name": "\ufffd\ufffd\ufffd("}),
        (structure(9, b"a\0/+#"), {"local_name": "a\0/+#"}),
        (structure(9, LONG_NAME.encode()), {"local_name": LONG_NAME}),
        (structure(9, b""), {}),
        (structure(10, b"\xf4"), {"tx_power": -12}),
        (structure(10, b"\x7f"), {"tx_power": None}),
        (structure(3, b"\xd2\xfc"), {"service_uuids": [UUID]}),
        (structure(0x16, b"\xd2\xfc"), {"service_data": {UUID: ""}}),
        (structure(0x16, b"\xd2\xfc\x40"), {"service_data": {UUID: "40"}}),
        (structure(0xFF, b"\x4c\0\2\x15"), {"manufacturer_data": {"4c00": "0215"}}),
        (structure(0xFF, b"\x4c\0"), {"manufacturer_data": {"4c00": ""}}),
        (
            b"".join(structure(0xFF, bytes([n, 0, n])) for n in range(64)),
            {"manufacturer_data": {f"{n:02x}00": f"{n:02x}" for n in range(64)}},
        ),
        # The last structure says that it is longer than the packet.
        (structure(9, b"Half") + b"\x1f\xff\x4c\0", {"local_name": "Half"}),
    ],
)
def test_data_of_the_packet(raw: bytes, expected: dict[str, Any]) -> None:
    """Where there is the packet itself, nothing goes out that is not in it."""
    message = published(
        advertisement(
            raw=raw,
            name="From another packet",
            manufacturer_data={1: b"1"},
            service_data={UUID: b"1"},
            service_uuids=["0000180f-0000-1000-8000-00805f9b34fb"],
            tx_power=4,
        )
    )
    nothing: dict[str, Any] = {
        "manufacturer_data": {},
        "service_uuids": [],
        "local_name": None,
        "service_data": {},
        "tx_power": None,
    }
    assert {key: message[key] for key in nothing} == nothing | expected
    assert message["raw"] == raw.hex()


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"address_type": 0}, "public"),
        ({"address_type": 1}, "random"),
        ({"address_type": 2}, "public"),
        ({"address_type": 3}, "random"),
        ({"address_type": 4}, None),
        ({"address_type": None}, None),
        ({}, None),
        ("another backend's", None),
        ({"path": "/org/bluez/hci0", "props": {"AddressType": "public"}}, "public"),
        ({"path": "/org/bluez/hci0", "props": {"AddressType": "random"}}, "random"),
        # The kernel's numbers are not HCI's: 1 is public there.
        ({"props": {"Adapter": "/org/bluez/hci0"}, "address_type": 1}, None),
    ],
)
def test_address_type(details: object, expected: str | None) -> None:
    """It is that of ESPHome or BlueZ, and absent elsewhere."""
    assert published(advertisement(details=details)).get("address_type") == expected


@given(advertisements)
def test_every_message_is_as_documented(packet: Advertisement) -> None:
    """Whatever the stack gives, the schema holds and no data are lost."""
    message = published(packet)
    assert message["rssi"] in {None, packet.rssi}
    assert message.get("raw") == (None if packet.raw is None else packet.raw.hex())
    if packet.raw is None:
        assert {
            int.from_bytes(bytes.fromhex(key), "little"): bytes.fromhex(value)
            for key, value in message["manufacturer_data"].items()
        } == packet.manufacturer_data
        assert {
            key: bytes.fromhex(value) for key, value in message["service_data"].items()
        } == packet.service_data
        assert message["service_uuids"] == packet.service_uuids


@given(raws)
def test_garbage_on_the_air(raw: bytes) -> None:
    """Any bytes are published as they are."""
    assert published(advertisement(raw=raw))["raw"] == raw.hex()


@given(
    st.sampled_from(
        [
            "rssi",
            "manufacturer_data",
            "service_data",
            "service_uuids",
            "tx_power",
            "time",
            "raw",
        ]
    ),
    st.sampled_from(
        [
            "text",
            b"\xff",
            7,
            1e400,
            float("nan"),
            [None],
            {"a": None},
            {None: b""},
            object(),
        ]
    ),
)
def test_what_is_no_advertisement(attribute: str, value: Any) -> None:
    """It is refused in one way, and the next packet is well again."""
    layout, device = RawLayout(), sighting()
    try:
        payload = layout.payload(ROUTE, device, lookalike(**{attribute: value}))
    except ValueError:
        pass
    else:
        json.loads(payload)
    device.tail = None
    assert validated(layout.payload(ROUTE, device, advertisement()))["rssi"] == -50


@pytest.mark.parametrize(
    "changes",
    [
        {"manufacturer_data": None},
        {"manufacturer_data": {1: None}},
        {"service_data": {UUID: "text"}},
        {"service_uuids": [None]},
        {"rssi": "strong"},
        {"rssi": 1e400},
        {"time": 1e400},
        {"time": 1e300},
        {"time": None},
        {"tx_power": 1 << 70},
        {"raw": "text"},
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    """What cannot be said is refused with the error that the destination counts."""
    with pytest.raises(ValueError, match=r".*"):
        RawLayout().payload(ROUTE, sighting(), lookalike(**changes))


def test_no_rssi_at_all() -> None:
    """A stack that gives none is understood."""
    assert published(lookalike(rssi=None))["rssi"] is None


def test_written_once_for_all_destinations() -> None:
    """The same packet is the same object; another is not, though it says the same."""
    layout, device = RawLayout(), sighting()
    packet, next_packet = advertisement(), advertisement(rssi=-51)
    payload = layout.payload(ROUTE, device, packet)
    assert layout.payload(ROUTE, device, packet) is payload
    assert validated(layout.payload(ROUTE, device, next_packet))["rssi"] == -51


def test_devices_take_turns() -> None:
    """What is kept of one sighting never shows in another's messages."""
    layout = RawLayout()
    devices = [sighting(scanner_id) for scanner_id in ("hci0", "hci1")]
    for turn in range(3):
        for number, device in enumerate(devices):
            packet = advertisement(
                manufacturer_data={number: b"x"}, rssi=-50 - turn, time=TIME + turn
            )
            device.update(packet)
            message = validated(layout.payload(ROUTE, device, packet))
            assert message["scanner_id"] == device.scanner.scanner_id
            assert message["rssi"] == -50 - turn
            assert message["manufacturer_data"] == {f"0{number}00": "78"}


def test_a_changed_payload_is_built_anew() -> None:
    """What a sighting keeps goes when the device says something else."""
    layout, device = RawLayout(), sighting()
    for value in (b"1", b"2", b"1"):
        packet = advertisement(manufacturer_data={1: value})
        device.update(packet)
        message = validated(layout.payload(ROUTE, device, packet))
        assert message["manufacturer_data"] == {"0100": value.hex()}


# --- time -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "2026-01-11T10:30:45.500Z"),
        (0.0011, "2026-01-11T10:30:45.501Z"),
        (0.4999, "2026-01-11T10:30:45.999Z"),
        (0.5, "2026-01-11T10:30:46.000Z"),
        (14.5, "2026-01-11T10:31:00.000Z"),
        (-0.5, "2026-01-11T10:30:45.000Z"),
        (-0.501, "2026-01-11T10:30:44.999Z"),
    ],
)
def test_timestamp(clock: Clock, seconds: float, expected: str) -> None:
    """It is the time of the packet, to the millisecond, whatever came before."""
    layout = RawLayout()
    layout.payload(ROUTE, sighting(), advertisement())
    packet = advertisement(time=TIME + seconds)
    assert validated(layout.payload(ROUTE, sighting(), packet))["timestamp"] == expected


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_timestamps_in_any_order(seconds: list[float]) -> None:
    """Packets that come late keep their own time."""
    clock, layout = Clock(), RawLayout()
    with patch("custom_components.ble_bridge.layouts.raw.time", wraps=time) as module:
        module.time.side_effect = clock.time
        module.monotonic.side_effect = clock.monotonic
        for late in seconds:
            packet = advertisement(time=TIME + late)
            message = validated(layout.payload(ROUTE, sighting(), packet))
            said = datetime.fromisoformat(message["timestamp"]).timestamp()
            assert -0.000001 < WALL + late - said < 0.001001


@pytest.mark.parametrize("step", [3600, -3600, 0.25])
def test_the_clock_is_set(clock: Clock, step: float) -> None:
    """The timestamps follow within a second."""
    layout, device = RawLayout(), sighting()
    layout.payload(ROUTE, device, advertisement())
    clock.offset += step
    clock.now += 1
    packet = advertisement(time=clock.now)
    said = validated(layout.payload(ROUTE, device, packet))["timestamp"]
    assert datetime.fromisoformat(said) == datetime.fromtimestamp(WALL + 1 + step, UTC)


# --- heartbeats -------------------------------------------------------------------------


def heartbeat(**changes: Any) -> dict[str, Any]:
    """Return what a heartbeat becomes."""
    values: dict[str, Any] = {
        "scanner": Scanner("AA", "hci0", "hci0", received=10, filtered=1),
        "status": "running",
        "uptime": 61.9,
        "devices": 3,
        "published": 5,
        "dropped": 4,
        "connected": True,
        "messages_sent": 7,
        "reconnects": 2,
        "last_error": None,
        **changes,
    }
    return validated(Heartbeat(**values).payload(WALL), "heartbeat")


def test_heartbeat() -> None:
    """Every figure stands where the documentation says."""
    assert heartbeat() == {
        "scanner_id": "hci0",
        "timestamp": "2026-01-11T10:30:45.500Z",
        "status": "running",
        "uptime_seconds": 61,
        "metrics": {
            "devices": 3,
            "advertisements_received": 10,
            "advertisements_published": 5,
            "advertisements_dropped": 4,
            "advertisements_filtered": 1,
        },
        "mqtt": {
            "connected": True,
            "messages_sent": 7,
            "reconnects": 2,
            "last_error": None,
        },
    }


@pytest.mark.parametrize("problem", list(Problem))
def test_heartbeat_of_a_problem(problem: Problem) -> None:
    """Each problem has a name that the schema and the documentation know."""
    assert heartbeat(last_error=problem)["mqtt"]["last_error"] == problem.value
    documentation = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    assert f"| `{problem.value}` |" in documentation


# --- documentation ----------------------------------------------------------------------


def examples() -> list[str]:
    """Return the payloads that the documentation shows."""
    text = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    return re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "advertisement"), (1, "advertisement"), (2, "heartbeat")]
)
def test_examples_are_valid(number: int, name: str) -> None:
    """The examples hold to the schemas."""
    assert len(examples()) == 3
    validated(examples()[number].encode(), name)


def test_example_is_what_the_packet_becomes(clock: Clock) -> None:
    """The example with the packet itself shows what that packet becomes."""
    example = json.loads(examples()[0])
    message = published(
        advertisement(
            raw=bytes.fromhex(example["raw"]),
            rssi=-67,
            connectable=True,
            details={"address_type": 0},
        )
    )
    differ = {"timestamp", "mac_address"}
    assert {k: v for k, v in message.items() if k not in differ} == {
        k: v for k, v in example.items() if k not in differ
    }


@pytest.mark.parametrize("name", ["advertisement", "heartbeat"])
def test_every_field_is_documented(name: str) -> None:
    """The page has a line for each field of the schemas."""
    documentation = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    for field, content in schema(name)["properties"].items():
        for line in (
            [f"{field}.{inner}" for inner in content["properties"]]
            if "properties" in content
            else [field]
        ):
            assert f"| `{line}` |" in documentation
