"""The layout of NATS: subjects, JSON, advertisements and heartbeats."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
import importlib.util
import re
import time
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, strategies as st
import pytest
import telemetry_pb2 as telemetry

from custom_components.ble_bridge.destinations.outbox import mark_resent
from custom_components.ble_bridge.layouts.payloads import safe_text
from custom_components.ble_bridge.layouts.raw import Heartbeat, RawLayout
from custom_components.ble_bridge.layouts.subjects import (
    MAX_NAMESPACE,
    MAX_TOKEN,
    RESERVED_TOKENS,
    RawProtobufLayout,
    SubjectsLayout,
    advertisement_subject,
    is_valid_namespace,
    safe_token,
    scanner_subject,
)
from custom_components.ble_bridge.layouts.telemetry import (
    RESEND_MARK,
    encode_heartbeat,
    encode_record,
)
from custom_components.ble_bridge.records import (
    Advertisement,
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
    Route,
    Scanner,
    Sighting,
    Tally,
)

from .record_samples import (
    alert,
    as_seen,
    connectivity,
    documented,
    error,
    reading,
    readings,
    records,
    same,
    unsayable,
    values,
)
from .samples import (
    ADDRESS,
    ROOT,
    TIME,
    UUID,
    advertisement,
    advertisements,
    lookalike,
    schema,
    sighting,
    structure,
    validated,
)
from .test_raw import WALL, Clock, heartbeat as json_heartbeat

LAYOUT = SubjectsLayout("ble", is_json=False)
JSON = SubjectsLayout("ble", is_json=True)
ENDED = 1_768_129_330.04  # 2026-01-11T11:02:10.040Z
KINDS: dict[type[Record], str] = {
    Reading: "data",
    Alert: "alerts",
    Error: "errors",
    Connectivity: "connectivity",
}
anything = st.text(st.characters(), max_size=2 * MAX_TOKEN)
namespaces = st.sampled_from(["ble", "home.ble", "a.b.c", "x" * MAX_TOKEN])


def is_subject(subject: str) -> bool:
    """Tell whether all servers and clients take a subject to publish to (ADR-6)."""
    return re.fullmatch(r"[!-)+-\-/-=?-~]+(\.[!-)+-\-/-=?-~]+)*", subject) is not None


def json_of(record: Record) -> dict[str, Any]:
    """Return the JSON of a record, which holds what its schema says."""
    [message] = JSON.messages(record)
    return validated(message.payload, f"nats-{KINDS[type(record)]}")


# --- tokens and subjects ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("living-room-proxy", "living-room-proxy"),
        ("AA:BB:CC:DD:EE:FF", "AA:BB:CC:DD:EE:FF"),
        ("a.b c*d>e", "a_b_c_d_e"),
        ("", "_"),
        (".", "_"),
        (">", "_"),
        ("a\r\nPUB b 0\tc", "a__PUB_b_0_c"),
        ("a\0b\x1fc\x7fd\x85e\xa0f", "a_b_c_d_e_f"),
        ("Küche 🦊", "K_che__"),
        ("a\ud800b", "a_b"),
        ("$SYS", "$SYS"),
        ("a/b+c#d<e", "a/b+c#d<e"),
        ("x" * 200, "x" * MAX_TOKEN),
    ],
)
def test_safe_token(text: str, expected: str) -> None:
    """What is unsafe becomes an underscore; the rest stays."""
    assert safe_token(text) == expected


@given(anything)
@example("." * 200)
def test_safe_token_is_safe(text: str) -> None:
    """Nothing in it separates or matches, and it is its own."""
    token = safe_token(text)
    assert is_subject(token)
    assert "." not in token
    assert len(token.encode()) <= MAX_TOKEN
    assert safe_token(token) == token


@pytest.mark.parametrize("namespace", ["ble", "home.ble", "a.b.c.d", "a$b", "x" * 128])
def test_valid_namespace(namespace: str) -> None:
    """Tokens joined by dots are one."""
    assert is_valid_namespace(namespace)


@pytest.mark.parametrize(
    "namespace",
    [
        "",
        ".",
        ".ble",
        "ble.",
        "a..b",
        "a.*",
        ">",
        "a.>",
        "a b",
        "a\r\nb",
        "Küche",
        "$SYS",
        "$JS.API",
        "_INBOX",
        "_R_.a",
        "x" * 129,
        "x." * 100 + "x",
    ],
)
def test_invalid_namespace(namespace: str) -> None:
    """What would match, be reserved or be empty is none."""
    assert not is_valid_namespace(namespace)


@given(st.one_of(anything, st.lists(anything, max_size=4).map(".".join)))
def test_valid_namespaces_are_safe(namespace: str) -> None:
    """A namespace is only ever made of safe tokens."""
    if is_valid_namespace(namespace):
        assert is_subject(namespace)
        assert len(namespace) <= MAX_NAMESPACE


def test_subjects() -> None:
    """They are those of the documentation."""
    assert advertisement_subject("ble", sighting()) == (
        f"ble.raw.living-room-proxy.{ADDRESS}"
    )
    assert scanner_subject("a.b", "hci0") == "a.b.scanner.hci0.status"
    assert LAYOUT.prefix("balcony") == "ble.balcony."


def test_reserved_tokens() -> None:
    """A device may not be called what stands in its place elsewhere."""
    subjects = advertisement_subject("ble", sighting()), scanner_subject("ble", "hci0")
    assert {subject.split(".")[1] for subject in subjects} == RESERVED_TOKENS


@given(anything, anything)
def test_names_from_outside(scanner_id: str, address: str) -> None:
    """They add no token and no wildcard."""
    heard = Sighting(Scanner("AA", scanner_id, ""), address)
    for subject in (
        advertisement_subject("ble", heard),
        scanner_subject("ble", scanner_id),
    ):
        assert is_subject(subject)
        assert subject.count(".") == 3


@given(namespaces, records, st.booleans())
def test_every_subject_is_valid(namespace: str, record: Record, is_json: bool) -> None:
    """Whatever a record says, it is one message on the subject of its kind."""
    layout = SubjectsLayout(namespace, is_json=is_json)
    for message in layout.messages(record):
        assert is_subject(message.topic)
        prefix = layout.prefix(record.device.device_id)
        assert message.topic == prefix + KINDS[type(record)]
        assert message.topic.count(".") == namespace.count(".") + 2
        assert not message.is_state


# --- records ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [LAYOUT, JSON])
def test_a_reading_that_says_nothing(layout: SubjectsLayout) -> None:
    """It has no message, and that is no error."""
    assert layout.messages(reading()) == []


@given(records)
def test_protobuf(record: Record) -> None:
    """The payload is that of the encoder."""
    assert [message.payload for message in LAYOUT.messages(record)] in (
        [],
        [encode_record(record)],
    )


@given(records)
def test_every_message_is_as_documented(record: Record) -> None:
    """Whatever a record says, the schemas hold, also when it is sent again."""
    for message in JSON.messages(record):
        name = f"nats-{KINDS[type(record)]}"
        said = validated(message.payload, name)
        assert said["device"] == safe_text(record.device.device_id)
        again = validated(mark_resent(message.payload), name)
        assert again == {**said, "is_resend": True}


@given(readings)
def test_reading(record: Reading) -> None:
    """All that it says is there, and the signal of the packet is the one."""
    if not JSON.messages(record):
        return
    said = json_of(record)
    assert said["rssi"] == record.rssi
    expected = {
        safe_text(name): value
        for name, value in record.values.items()
        if name != "rssi" or record.rssi is None
    }
    assert said["data"].keys() == expected.keys()
    assert all(same(said["data"][name], value) for name, value in expected.items())
    assert said["events"] == {
        safe_text(name): safe_text(event) for name, event in record.events.items()
    }


@given(values)
def test_both_say_the_same(value: Any) -> None:
    """JSON has the fields of protobuf, under the same names."""
    record = reading(rssi=-67, values={"a": value})
    said = json_of(record)
    [message] = LAYOUT.messages(record)
    payload = telemetry.Payload.FromString(message.payload)
    names = {field.name for field in payload.DESCRIPTOR.fields} - {"is_resend"}
    assert said.keys() - {"events"} == names
    assert said["created_at"] == payload.created_at.ToJsonString()
    for name in names - {"data", "created_at"}:
        assert said[name] == getattr(payload, name)


@pytest.mark.parametrize("layout", [LAYOUT, JSON])
@given(value=unsayable)
def test_one_bad_value_costs_no_other(layout: SubjectsLayout, value: Any) -> None:
    """It is left out, and where it was all, the reading is refused."""
    good, bad = reading(values={"a": 1, "z": 2}), {"a": 1, "bad": value, "z": 2}
    assert layout.messages(reading(values=bad)) == layout.messages(good)
    with pytest.raises(ValueError, match="No value"):
        layout.messages(reading(values={"bad": value}))
    signal = reading(rssi=-67, values={"bad": value})
    assert layout.messages(signal) == layout.messages(reading(rssi=-67))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alerts", telemetry.Alerts),
        ("errors", telemetry.Errors),
        ("connectivity", telemetry.Connectivity),
    ],
)
def test_same_names_in_both(name: str, message: Any) -> None:
    """A schema of JSON has the fields of protobuf, under the same names."""
    names = {field.name for field in message.DESCRIPTOR.fields}
    assert schema(f"nats-{name}")["properties"].keys() == names


def test_alert() -> None:
    """It says when it changed last."""
    started = json_of(alert(device=DeviceIdentity("balcony")))
    assert started == {
        "device": "balcony",
        "address": None,
        "created_at": "2026-01-11T10:30:45.123Z",
        "alerts": [
            {
                "name": "too warm",
                "audiences": ["household"],
                "started_at": "2026-01-11T10:30:45.123Z",
                "ended_at": None,
            }
        ],
    }
    ended = json_of(alert(ended_at=ENDED))
    assert ended["created_at"] == "2026-01-11T11:02:10.040Z"
    assert ended["alerts"][0]["ended_at"] == "2026-01-11T11:02:10.040Z"


@pytest.mark.parametrize(
    ("connected", "status"), [(True, "CONNECTED"), (False, "DISCONNECTED")]
)
def test_connectivity(connected: bool, status: str) -> None:
    """It says what became of the device."""
    assert json_of(connectivity(connected=connected))["status"] == status


# --- advertisements ---------------------------------------------------------------------


def route() -> Route:
    """Return a route on which nothing went out."""
    return Route(b"subject", Tally())


def read(payload: bytes) -> Any:
    """Return an advertisement, of which all is known to the package."""
    message = telemetry.Advertisement.FromString(payload)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    assert message.ByteSize() == size
    return message


def published(packet: Advertisement) -> Any:
    """Return what a packet becomes."""
    return read(RawProtobufLayout().payload(route(), sighting(), packet))


@contextmanager
def set_clock(clock: Clock) -> Iterator[None]:
    """Have both layouts of advertisements read a clock."""
    layouts = "custom_components.ble_bridge.layouts"
    with (
        patch(f"{layouts}.raw.time", wraps=time) as module,
        patch(f"{layouts}.subjects.time", clock),
    ):
        module.time.side_effect = clock.time
        module.monotonic.side_effect = clock.monotonic
        yield


def test_a_packet_without_anything() -> None:
    """It says who heard whom, and when."""
    message = published(advertisement())
    assert message.HasField("timestamp")
    message.ClearField("timestamp")
    assert message == telemetry.Advertisement(
        scanner_id="living-room-proxy", address=ADDRESS, rssi=-50
    )


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
        ({"connectable": True}, {"connectable": True}),
        ({"name": ""}, {"local_name": None}),
        ({"name": "Ruuvi 1234"}, {"local_name": "Ruuvi 1234"}),
        ({"name": "a\ud800b"}, {"local_name": "a?b"}),
        ({"manufacturer_data": {0x004C: b""}}, {"manufacturer_data": {0x4C: b""}}),
        ({"service_data": {UUID.upper(): b"\1"}}, {"service_data": {UUID: b"\1"}}),
        ({"service_uuids": [UUID.upper()]}, {"service_uuids": [UUID]}),
        ({"details": {"address_type": 0}}, {"address_type": 1}),
        ({"details": {"address_type": 1}}, {"address_type": 2}),
        ({"details": {"address_type": 9}}, {"address_type": 0}),
        ({"raw": b"", "name": "Merged"}, {"raw": b"", "local_name": None}),
        (
            {"raw": structure(9, b"Own"), "name": "Merged"},
            {"raw": structure(9, b"Own"), "local_name": "Own"},
        ),
    ],
)
def test_advertisement(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each part of a packet has its field, and what is not known is not there."""
    message = published(advertisement(**changes))
    for name, value in expected.items():
        if value is None:
            assert not message.HasField(name)
        else:
            assert getattr(message, name) == value
    assert message.HasField("raw") is ("raw" in changes)


@given(advertisements)
def test_the_same_as_in_json(packet: Advertisement) -> None:
    """Both layouts say the same of any packet, at the same millisecond."""
    with set_clock(Clock()):
        said = validated(RawLayout().payload(route(), sighting(), packet))
        message = published(packet)
    moment = datetime.fromisoformat(said["timestamp"]).timestamp()
    assert message.timestamp.ToMilliseconds() == round(moment * 1000)
    assert message.scanner_id == said["scanner_id"]
    assert message.address == said["mac_address"]
    assert {
        company_id.to_bytes(2, "little").hex(): value.hex()
        for company_id, value in message.manufacturer_data.items()
    } == said["manufacturer_data"]
    assert {uuid: data.hex() for uuid, data in message.service_data.items()} == said[
        "service_data"
    ]
    assert [*message.service_uuids] == said["service_uuids"]
    assert message.connectable == said["connectable"]
    kind = telemetry.Advertisement.AddressType.Name(message.address_type).lower()
    assert kind == said.get("address_type", "unknown")
    for name in ("rssi", "tx_power", "local_name"):
        found = getattr(message, name) if message.HasField(name) else None
        assert found == said[name]
    raw = message.raw.hex() if message.HasField("raw") else None
    assert raw == said.get("raw")


@pytest.mark.parametrize(
    "changes",
    [
        {"manufacturer_data": None},
        {"manufacturer_data": {1: None}},
        {"manufacturer_data": {None: b""}},
        {"service_data": {UUID: "text"}},
        {"service_data": {UUID: [1]}},
        {"service_uuids": [None]},
        {"rssi": "strong"},
        {"rssi": [1]},
        {"rssi": 1e400},
        {"rssi": 2**31},
        {"time": 1e400},
        {"time": 1e300},
        {"time": 1e12},
        {"time": -1e12},
        {"time": float("nan")},
        {"time": None},
        {"tx_power": 1 << 31},
        {"raw": "text"},
        {"name": 7},
        {"device": None},
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    """What cannot be said is refused in one way, and the next packet is well again."""
    layout, way, device = RawProtobufLayout(), route(), sighting()
    with pytest.raises(ValueError, match=r".*"):
        layout.payload(way, device, lookalike(**changes))
    device.version += 1
    assert read(layout.payload(way, device, advertisement(rssi=-51))).rssi == -51


def test_no_rssi_at_all() -> None:
    """A stack that gives none is understood."""
    assert not published(lookalike(rssi=None)).HasField("rssi")


def test_written_once_for_all_destinations() -> None:
    """The same packet is the same object on each route; another is not."""
    layout, device, ways = RawProtobufLayout(), sighting(), (route(), route())
    for strength in (-50, -51):
        packet = advertisement(rssi=strength)
        first, second = (layout.payload(way, device, packet) for way in ways)
        assert first is second
        assert read(first).rssi == strength
    # The first destination is away.
    packet = advertisement(rssi=-52)
    assert read(layout.payload(ways[1], device, packet)).rssi == -52


def test_devices_take_turns() -> None:
    """What is kept of one sighting never shows in another's messages."""
    layout = RawProtobufLayout()
    devices = [(sighting(name), route()) for name in ("hci0", "hci1")]
    for turn in range(3):
        for number, (device, way) in enumerate(devices):
            packet = advertisement(
                manufacturer_data={number: b"x"}, rssi=-50 - turn, time=TIME + turn
            )
            device.update(packet)
            message = read(layout.payload(way, device, packet))
            assert message.scanner_id == device.scanner.scanner_id
            assert message.rssi == -50 - turn
            assert message.manufacturer_data == {number: b"x"}


def test_a_changed_payload_is_built_anew() -> None:
    """What a route keeps goes when the device says something else, and only then."""
    layout, device, way = RawProtobufLayout(), sighting(), route()
    kept = []
    for value in (b"1", b"1", b"2", b"1"):
        packet = advertisement(manufacturer_data={1: value})
        device.update(packet)
        message = read(layout.payload(way, device, packet))
        assert message.manufacturer_data == {1: value}
        kept.append(way.parts)
    assert kept[0] is kept[1]
    assert kept[1] is not kept[2]


@pytest.fixture(name="clock")
def clock_fixture() -> Iterator[Clock]:
    """Return the layout's clock."""
    clock = Clock()
    with set_clock(clock):
        yield clock


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "2026-01-11T10:30:45.500Z"),
        (0.0011, "2026-01-11T10:30:45.501Z"),
        (0.4999, "2026-01-11T10:30:45.999Z"),
        (0.5, "2026-01-11T10:30:46Z"),
        (14.5, "2026-01-11T10:31:00Z"),
        (-0.5, "2026-01-11T10:30:45Z"),
        (-0.501, "2026-01-11T10:30:44.999Z"),
        (-0.4985, "2026-01-11T10:30:45.001Z"),
        (-WALL + 0.25, "1970-01-01T00:00:00.250Z"),
        (-WALL + 99, "1970-01-01T00:01:39Z"),
        (10**11 - WALL, "5138-11-16T09:46:40Z"),
    ],
)
def test_timestamp(clock: Clock, seconds: float, expected: str) -> None:
    """It is the time of the packet, to the millisecond, whatever came before."""
    layout = RawProtobufLayout()
    layout.payload(route(), sighting(), advertisement(time=clock.now))
    packet = advertisement(time=TIME + seconds)
    message = read(layout.payload(route(), sighting(), packet))
    assert message.timestamp.ToJsonString() == expected


@pytest.mark.parametrize("step", [3600, -3600, 0.25])
def test_the_clock_is_set(clock: Clock, step: float) -> None:
    """The timestamps follow within a second."""
    layout, device, way = RawProtobufLayout(), sighting(), route()
    layout.payload(way, device, advertisement())
    clock.offset += step
    clock.now += 1
    message = read(layout.payload(way, device, advertisement(time=clock.now)))
    assert message.timestamp.ToMilliseconds() == (WALL + 1 + step) * 1000


# --- heartbeats -------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["running", "offline", "stopped"])
@pytest.mark.parametrize("last_error", [None, "connection_lost"])
def test_heartbeat(status: str, last_error: str | None) -> None:
    """It says what the one in JSON says."""
    heartbeat = Heartbeat(
        scanner=Scanner("AA", "hci0", "hci0", received=10, filtered=1),
        status=status,
        uptime=61.9,
        devices=3,
        published=5,
        dropped=4,
        connected=True,
        messages_sent=7,
        reconnects=2,
        last_error=last_error,
    )
    message = telemetry.Heartbeat.FromString(encode_heartbeat(heartbeat, WALL))
    said = json_heartbeat(status=status, last_error=last_error)
    assert message.scanner_id == said["scanner_id"]
    assert message.timestamp.ToJsonString() == said["timestamp"]
    assert telemetry.Heartbeat.Status.Name(message.status).lower() == said["status"]
    assert message.uptime_seconds == said["uptime_seconds"]
    for name, figure in said["metrics"].items():
        assert getattr(message.metrics, name) == figure
    assert message.connection.HasField("last_error") is (last_error is not None)
    for name, figure in said["mqtt"].items():
        assert getattr(message.connection, name) == (figure or "")


# --- documentation ----------------------------------------------------------------------


def test_documented_examples() -> None:
    """The messages that the documentation shows are those of the layout."""
    said = reading(
        rssi=-67,
        values={"temperature": 21.5, "humidity": 54.1, "battery": 97},
        events={"button": "double_press"},
    )
    assert documented("ble", ".") == as_seen(
        [
            message
            for record in (said, alert(ended_at=ENDED), error(), connectivity())
            for message in JSON.messages(record)
        ]
    )


def test_documented_messages() -> None:
    """The page has a line for each subject with its message, as the definition has."""
    documentation = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    proto = (ROOT / "docs/protobuf/telemetry.proto").read_text(encoding="utf-8")
    lines = re.findall(
        r"^\| `\{namespace\}\.(\S+)` \|.* `(\w+)` \|", documentation, re.MULTILINE
    )
    assert sorted(lines) == sorted(
        re.findall(r"^//   \{namespace\}\.(\S+) +(\w+)", proto, re.MULTILINE)
    )
    assert {name for _, name in lines} == {
        name
        for name, message in telemetry.DESCRIPTOR.message_types_by_name.items()
        if "is_resend" in message.fields_by_name
    }


@pytest.mark.parametrize("name", KINDS.values())
def test_every_field_is_documented(name: str) -> None:
    """The page has a line for each name in JSON."""
    documentation = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    section = documentation[documentation.index("## NATS subjects") :]
    for field in schema(f"nats-{name}")["properties"]:
        assert re.search(rf"^\| `{field}` \| ", section, re.MULTILINE)


# --- the example of a consumer ----------------------------------------------------------


@pytest.fixture(name="consumer", scope="module")
def consumer_fixture() -> Any:
    """Return the example as a module."""
    path = ROOT / "docs/examples/nats_consumer.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            reading(rssi=-67, values={"temperature": 21.5}, events={"button": "press"}),
            "balcony said temperature=21.5, button='press'! (-67 dBm, living-room-proxy)",
        ),
        (reading(rssi=-67), "balcony was heard (-67 dBm, living-room-proxy)"),
        (alert(), "balcony: alert 'too warm' started"),
        (alert(ended_at=ENDED), "balcony: alert 'too warm' ended"),
        (error(body="Too long"), "balcony: error 'key_wrong': Too long"),
        (connectivity(), "balcony is connected"),
        (connectivity(connected=False), "balcony is disconnected"),
    ],
)
def test_consumer_understands_records(
    consumer: Any, record: Record, expected: str
) -> None:
    """The example says in a line what a record says."""
    [message] = SubjectsLayout("home.ble", is_json=False).messages(record)
    said = consumer.decode("home.ble", message.topic, message.payload + RESEND_MARK)
    assert consumer.describe(said) == expected
    assert said.is_resend


def test_consumer_understands_advertisements(consumer: Any) -> None:
    """The example tells of a packet, and of its scanner."""
    packet = advertisement(
        name="Ruuvi", manufacturer_data={0x499: b"\5"}, service_data={UUID: b"\x40"}
    )
    payload = RawProtobufLayout().payload(route(), sighting(), packet)
    said = consumer.decode("ble", advertisement_subject("ble", sighting()), payload)
    assert consumer.describe(said) == (
        f"{ADDRESS} 'Ruuvi' (-50 dBm, living-room-proxy) 0x0499=05 {UUID}=40"
    )
    assert consumer.decode("ble", "ble.unknown", payload) is None
