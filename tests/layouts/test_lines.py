"""The InfluxDB line protocol: what records and the signal of packets become."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
import json
import math
import re
import time
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, strategies as st
import pytest

from custom_components.ble_bridge.layouts.lines import (
    MAX_TEXT,
    RESERVED_FIELDS,
    LinesLayout,
    SignalLayout,
    escape_measurement,
    field_key,
)
from custom_components.ble_bridge.layouts.payloads import unpublishable
from custom_components.ble_bridge.layouts.raw import NO_RSSI, NO_TX_POWER, Heartbeat
from custom_components.ble_bridge.records import (
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
    Route,
    Scanner,
    Tally,
)

from .line_protocol import Point, parse
from .record_samples import (
    TIME,
    alert,
    alerts,
    connectivities,
    connectivity,
    error,
    errors,
    names,
    reading,
    rssis,
    scalars,
    times,
    unsayable,
    values,
)
from .samples import ADDRESS, ROOT, advertisement, lookalike, sighting, texts

LAYOUT = LinesLayout()
BALCONY = DeviceIdentity("balcony", "A4:C1:38:AA:BB:CC", "Balcony", "LYWSD03MMC")
NANOSECONDS = 1_768_127_445_123_000_000
ENDED = 1_768_129_330.04  # 2026-01-11T11:02:10.040Z
LAST_MOMENT = 2**63 / 1e9  # In the year 2262
HEAD = "ble,address=A4:C1:38:AA:BB:CC,device=balcony,model=LYWSD03MMC,scanner=hci0"

nasty = st.text(st.sampled_from('\\,= "\n\r\t\0#_a🦊\ud800\x85iu1.'), max_size=12)
all_names = st.one_of(names, nasty, st.sampled_from(sorted(RESERVED_FIELDS)))
devices = st.builds(
    DeviceIdentity,
    all_names,
    st.one_of(st.none(), nasty),
    texts,
    st.one_of(st.none(), texts, nasty),
    st.booleans(),
)
readings = st.builds(
    reading,
    device=devices,
    time=times,
    scanner_id=st.one_of(st.just("hci0"), nasty),
    rssi=rssis,
    values=st.dictionaries(all_names, st.one_of(values, nasty), max_size=5),
    events=st.dictionaries(all_names, st.one_of(texts, nasty), max_size=3),
)
lookalikes = st.builds(
    lambda record, device, name: record(device, name),
    st.sampled_from(
        [
            lambda device, name: alert(device=device, name=name, audiences=(name,)),
            lambda device, name: error(device=device, name=name, body=name),
            lambda device, name: connectivity(device=device, connection_id=name),
        ]
    ),
    devices,
    nasty,
)
records: st.SearchStrategy[Record] = st.one_of(
    readings, alerts, errors, connectivities, lookalikes
)


def line(record: Record, layout: LinesLayout = LAYOUT) -> str:
    """Return the one line that a record becomes."""
    [message] = layout.messages(record)
    assert message.topic == ""
    assert not message.is_state
    return message.payload.decode()


def said(**changes: Any) -> dict[str, float | int | bool | str]:
    """Return the fields of a reading."""
    return parse(line(reading(**changes)).encode()).fields


# What is left of names and texts, put in other words than the layout does.


def as_name(text: str, prefix: str = "") -> str:
    """Return what is left of the name of a tag, or of another with its prefix."""
    text = text.encode(errors="replace").decode()[:128]
    text = re.sub(r"[\\\x00-\x1f\x7f-\x9f]", "_", text)
    return prefix + text if re.match(r"[_#]|$", text) else text


def as_field(name: str) -> str:
    """Return what is left of the name of a field."""
    if name in {"time", "address", "device", "model", "scanner"}:
        return name + "_"
    return as_name(name.replace('"', "_"), "field")


def as_text(text: str) -> str:
    """Return what is left of a text."""
    text = text.encode(errors="replace").decode()[:16_384]
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)


def as_value(value: Any) -> float | bool | str:
    """Return what is left of a value."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    return as_text(value) if isinstance(value, str) else "JSON"


def as_tags(**tags: str | None) -> dict[str, str]:
    """Return what is left of tags."""
    return {name: as_name(text) for name, text in tags.items() if text}


# --- values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (21.5, "21.5"),
        (21.0, "21.0"),
        (21, "21.0"),
        (0, "0.0"),
        (-39, "-39.0"),
        (-0.1, "-0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-7, "1e-07"),
        (1e16, "1e+16"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (2**53 + 1, "9007199254740992.0"),
        (2**64 - 1, "1.8446744073709552e+19"),
        (-(2**63), "-9.223372036854776e+18"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ("open", '"open"'),
        ("27.6", '"27.6"'),
        ("a,b c=d", '"a,b c=d"'),
        ('quote " and \\', r'"quote \" and \\"'),
        ('\\"', r'"\\\""'),
        ("a\nb\r\tc\0\x7f\x85", '"a b  c   "'),
        ("Küche 🦊", '"Küche 🦊"'),
        ("a\ud800b", '"a?b"'),
        ([], '"[]"'),
        ([1, 2.5, "x"], r'"[1,2.5,\"x\"]"'),
        ({"x": "a\n\\"}, r'"{\"x\":\"a\\n\\\\\"}"'),
    ],
)
def test_value(value: Any, text: str) -> None:
    """Each kind of value has one type: a number is a float, also a whole one."""
    assert line(reading(values={"x": value}, device=DeviceIdentity("a"))) == (
        f"ble,device=a,scanner=living-room-proxy x={text} {NANOSECONDS}"
    )


@given(st.one_of(scalars, values))
def test_values_come_back(value: Any) -> None:
    """Nothing is rounded but what a float cannot say, and nothing gets another type."""
    back = said(values={"x": value})["x"]
    if isinstance(value, list | dict):
        assert isinstance(back, str)
        text = re.sub(r"[\x7f-\x9f]", " ", json.dumps(value, ensure_ascii=False))
        assert json.loads(back) == json.loads(text.encode(errors="replace"))
        return
    assert type(back) is type(as_value(value))
    assert back == as_value(value)


@given(st.lists(st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats()), min_size=2))
def test_a_number_has_one_type(numbers: list[float]) -> None:
    """Whether a device says 21 or 21.5, the field has the type of its first line."""
    types = {
        type(said(values={"x": number, "y": "ok"}).get("x"))
        for number in numbers
        if math.isfinite(number)
    }
    assert types <= {float}


@given(unsayable, rssis)
def test_one_bad_value_costs_no_other(value: Any, rssi: int | None) -> None:
    """It is left out, and named by what tells of it in all layouts."""
    record = reading(rssi=rssi, values={"a": 1, "bad": value, "z": 2})
    expected = {"a": 1.0, "z": 2.0} | ({} if rssi is None else {"rssi": rssi})
    assert parse(line(record).encode()).fields == expected
    assert unpublishable(record) == ["bad"]


@given(unsayable)
def test_nothing_but_bad_values(value: Any) -> None:
    """A reading of which nothing is left is refused."""
    with pytest.raises(ValueError, match="No value"):
        LAYOUT.messages(reading(values={"a": value, "rssi": value}))


def test_a_reading_that_says_nothing() -> None:
    """It is no point, and that is no error."""
    assert LAYOUT.messages(reading()) == []


@pytest.mark.parametrize(
    ("rssi", "own", "expected"),
    [
        (-67, None, "-67i"),
        (-67, -1, "-67i"),
        (None, -1, "-1i"),
        (None, -70.4, "-70i"),
        (None, -70.0, "-70i"),
    ],
)
def test_signal_strength(rssi: int | None, own: Any, expected: str) -> None:
    """It is a whole number, that of the packet before that of the device itself."""
    own_values = {} if own is None else {"rssi": own}
    text = line(reading(rssi=rssi, values=own_values, events={"rssi": "strong"}))
    assert text.endswith(f" rssi={expected} {NANOSECONDS}")


@pytest.mark.parametrize("own", [True, "-70", [-70], 1e300, math.nan, 2**64])
def test_no_signal_strength(own: Any) -> None:
    """What is none has no place, so that the field has one type."""
    assert said(values={"rssi": own, "x": 1}) == {"x": 1.0}


def test_texts_have_an_end() -> None:
    """A text is cut to what servers take; JSON, of which nothing can be cut, is left out."""
    back = said(values={"x": "🦊" * 100_000, "y": ["🦊" * 16_383], "z": ["a" * 65_533]})
    assert isinstance(text := back["x"], str)
    assert len(text.encode()) == MAX_TEXT
    assert isinstance(text := back["y"], str)
    assert len(text.encode()) == MAX_TEXT
    assert "z" not in back


# --- names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("temperature", "temperature"),
        ("temperature_2", "temperature_2"),
        ("my value", r"my\ value"),
        ("a,b=c", r"a\,b\=c"),
        ("a=1,evil", r"a\=1\,evil"),
        ('a"b\\c\nd\0e', "a_b_c_d_e"),
        ("Küche", "Küche"),
        ("", "field"),
        ("_value", "field_value"),
        ("\n", "field_"),
        ("time", "time_"),
        ("device", "device_"),
        ("address", "address_"),
        ("scanner", "scanner_"),
        ("model", "model_"),
        ("Time", "Time"),
        ("\ud800", "?"),
        ("x" * 200, "x" * 128),
        ("x" * 127 + ",,", "x" * 127 + r"\,"),
    ],
)
def test_field_key(name: str, key: str) -> None:
    """Nothing in it ends the name, and none is the time's, a tag's, or the server's own."""
    assert field_key(name) == key


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("ble", "ble"),
        ("my house", r"my\ house"),
        ("a,b=c", r"a\,b=c"),
        ("a\\b\nc", "a_b_c"),
        ("", "ble"),
        ("#1", "ble#1"),
        ("_internal", "ble_internal"),
        ("x" * 200, "x" * 128),
    ],
)
def test_escape_measurement(name: str, escaped: str) -> None:
    """Nothing in it ends the name, and it is no comment."""
    assert escape_measurement(name) == escaped
    layout = LinesLayout(name)
    assert line(connectivity(), layout).startswith(f"{escaped}_connectivity,")
    assert line(reading(rssi=-1), layout).startswith(f"{escaped},")


@pytest.mark.parametrize(
    ("tag", "escaped"),
    [
        ("a b", r"a\ b"),
        ("a,b=c", r"a\,b\=c"),
        ('12" sensor', r'12"\ sensor'),
        ("a\\", "a_"),
        ("a\\,b", r"a_\,b"),
        ("a\nevil b=1", r"a_evil\ b\=1"),
        ("\ud800", "?"),
        ("x" * 200, "x" * 128),
    ],
)
def test_tag(tag: str, escaped: str) -> None:
    """Nothing in it ends the tag."""
    device = DeviceIdentity("balcony", model=tag)
    assert f",model={escaped},scanner=" in line(reading(rssi=-1, device=device))


@pytest.mark.parametrize(
    ("device", "scanner_id", "head"),
    [
        (BALCONY, "hci0", HEAD),
        (DeviceIdentity("a"), "hci0", "ble,device=a,scanner=hci0"),
        (DeviceIdentity("a", "", "", ""), "", "ble,device=a"),
        (DeviceIdentity(""), "", "ble"),
        (
            DeviceIdentity("phone", ADDRESS, rotates=True),
            "hci0",
            "ble,device=phone,scanner=hci0",
        ),
    ],
)
def test_tags(device: DeviceIdentity, scanner_id: str, head: str) -> None:
    """They are sorted; one that is not known, or would not stay, is left out."""
    record = reading(device=device, scanner_id=scanner_id, rssi=-67)
    assert line(record) == f"{head} rssi=-67i {NANOSECONDS}"


def test_of_two_fields_alike_the_first() -> None:
    """Names that become the same make no line that has one twice."""
    same = {"a\nb": 1, "a\rb": 2, "device": 3, "device_": 4}
    fields = said(values=same, events={"a\\b": "x", "a_c": "y"})
    assert fields == {"a_b": 1.0, "device_": 3.0, "a_c": "y"}


# --- records ----------------------------------------------------------------------------


def test_reading() -> None:
    """Values and events, and the signal strength of the packet."""
    record = reading(
        device=BALCONY,
        scanner_id="hci0",
        rssi=-67,
        values={"temperature": 21.5, "battery": 97, "battery_low": False},
        events={"button": "double_press"},
    )
    assert line(record) == (
        f"{HEAD} temperature=21.5,battery=97.0,battery_low=false,"
        f'button="double_press",rssi=-67i {NANOSECONDS}'
    )


def test_alert() -> None:
    """It is a point when it starts, and one when it ends."""
    head = r"ble_alert,address=A4:C1:38:AA:BB:CC,device=balcony,name=too\ warm"
    told = r'audiences="[\"household\"]",started_at=1768127445123i'
    assert line(alert(device=BALCONY)) == f"{head} active=true,{told} {NANOSECONDS}"
    assert line(alert(device=BALCONY, ended_at=ENDED)) == (
        f"{head} active=false,{told},ended_at=1768129330040i 1768129330040000000"
    )


def test_error() -> None:
    """What more is known of it is JSON, and adds no field."""
    assert line(error(device=BALCONY, tags={"count": "1", 'a"=1,b': "\n"})) == (
        "ble_error,address=A4:C1:38:AA:BB:CC,device=balcony,name=key_wrong "
        'body="The packets are encrypted with another key",'
        r'tags="{\"count\":\"1\",\"a\\\"=1,b\":\"\\n\"}" '
        f"{NANOSECONDS}"
    )


def test_connectivity() -> None:
    """It is a point when the device comes, and one when it goes."""
    head = "ble_connectivity,address=A4:C1:38:AA:BB:CC,device=balcony"
    record = connectivity(device=BALCONY, connected=False, connection_id="7")
    assert line(record) == f'{head} connected=false,connection_id="7" {NANOSECONDS}'


HEARTBEAT = Heartbeat(
    scanner=Scanner("AA", "living-room-proxy", "Living room", received=10, filtered=1),
    status="running",
    uptime=61.9,
    devices=3,
    published=5,
    dropped=4,
    connected=True,
    messages_sent=7,
    reconnects=2,
    last_error=None,
)


@pytest.mark.parametrize(
    ("status", "problem", "online"),
    [("running", None, True), ("offline", "refused", False), ("stopped", None, False)],
)
def test_heartbeat(status: str, problem: str | None, online: bool) -> None:
    """It has the figures of the message of that name, and what counts can be drawn."""
    heartbeat = Heartbeat(
        **{name: getattr(HEARTBEAT, name) for name in Heartbeat.__slots__}
        | {"status": status, "last_error": problem}
    )
    point = parse(LAYOUT.heartbeat(heartbeat, TIME))
    assert point == Point(
        "ble_scanner",
        {"scanner": "living-room-proxy"},
        {
            "advertisements_dropped": 4,
            "advertisements_filtered": 1,
            "advertisements_published": 5,
            "advertisements_received": 10,
            "connected": True,
            "devices": 3,
            "messages_sent": 7,
            "online": online,
            "reconnects": 2,
            "status": status,
            "uptime_seconds": 61,
            **({} if problem is None else {"last_error": problem}),
        },
        NANOSECONDS,
    )
    assert type(point.fields["devices"]) is int


@pytest.mark.parametrize("online", [True, False])
def test_bridge_status(online: bool) -> None:
    """It says whether the bridge is there."""
    text = LAYOUT.bridge_status("my home", online, TIME).decode()
    said = "true" if online else "false"
    assert text == rf"ble_bridge,bridge=my\ home online={said} {NANOSECONDS}"


def test_prefix() -> None:
    """A line has no topic."""
    assert LAYOUT.prefix("balcony") == ""


# --- any record -------------------------------------------------------------------------


def is_signal(value: object) -> bool:
    """Tell whether a device's own value can be a signal strength."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -(2**63) <= round(value) < 2**63


def expected(record: Record) -> tuple[str, dict[str, str], set[str]]:
    """Return measurement, tags and names of fields of a record."""
    device = record.device
    address = None if device.rotates else device.address
    own = {"address": address, "device": device.device_id}
    match record:
        case Reading():
            tags = as_tags(**own, model=device.model, scanner=record.scanner_id)
            told = {
                as_field(n) for n in [*record.values, *record.events] if n != "rssi"
            }
            if record.rssi is not None or is_signal(record.values.get("rssi")):
                told.add("rssi")
            return "house", tags, told
        case Alert():
            told = {"active", "audiences", "started_at"}
            told |= set() if record.ended_at is None else {"ended_at"}
            return "house_alert", as_tags(**own, name=record.name), told
        case Error():
            return "house_error", as_tags(**own, name=record.name), {"body", "tags"}
        case Connectivity():
            told = {"connected", "connection_id"}
            return "house_connectivity", as_tags(**own), told


def moments(record: Record) -> list[float]:
    """Return the times of a record."""
    if isinstance(record, Reading):
        return [record.time]
    if isinstance(record, Alert):
        return [record.started_at, record.ended_at or 0.0]
    return [record.created_at]


def no_line(record: Record) -> bool:
    """Tell whether a record is no point, and whatever is wrong with it is said as such."""
    try:
        return not LAYOUT.messages(record)
    except ValueError:
        return True


@given(records)
def test_every_line_says_what_the_record_says(record: Record) -> None:
    """Nothing from outside adds a line, a tag or a field, or changes another."""
    layout = LinesLayout("house")
    measurement, tags, told = expected(record)
    if not told or max(moments(record)) > LAST_MOMENT:
        assert no_line(record)
        return
    point = parse(line(record, layout).encode())
    assert point.measurement == measurement
    assert point.tags == tags
    assert set(point.fields) == told
    if not isinstance(record, Reading):
        return
    left: dict[str, Any] = {}
    sources: tuple[Mapping[str, Any], ...] = (record.values, record.events)
    for source in sources:
        for name, value in source.items():
            if name != "rssi":
                left.setdefault(as_field(name), as_value(value))
    for name, value in left.items():
        back = point.fields[name]
        assert type(back) is type(value)
        if value == "JSON":
            assert isinstance(back, str)
            json.loads(back)
        else:
            assert back == value


@given(records)
def test_a_record_is_always_the_same_line(record: Record) -> None:
    """What is sent again takes the place of what was there."""
    if not no_line(record):
        assert line(record) == line(record, LinesLayout())


# --- times ------------------------------------------------------------------------------


@given(st.integers(0, 4_102_444_800_000_000))
@example(1_768_127_445_123_456)
@example(1_768_127_445_999_999)
def test_times_are_exact_to_the_microsecond(microseconds: int) -> None:
    """A time that a clock gives as a float comes back without what floats add."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    record = connectivity(created_at=moment.timestamp())
    assert parse(line(record).encode()).time == microseconds * 1000


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, 1e300, 9_223_372_037.0, -9_223_372_037.0]
)
@pytest.mark.parametrize(
    "record",
    [
        lambda bad: reading(time=bad, rssi=-67),
        lambda bad: alert(started_at=bad),
        lambda bad: alert(ended_at=bad),
        lambda bad: error(created_at=bad),
        lambda bad: connectivity(created_at=bad),
    ],
)
def test_no_time(record: Any, bad: float) -> None:
    """A time that the format cannot say is refused."""
    with pytest.raises(ValueError, match=r".*"):
        LAYOUT.messages(record(bad))


# --- the signal of packets --------------------------------------------------------------


class Clock:
    """The system's two clocks, of which one can be set."""

    def __init__(self) -> None:
        """Begin at a time that is easy to read."""
        self.now = 1000.25
        self.offset = TIME - self.now

    def time(self) -> float:
        """Return the time of day."""
        return self.now + self.offset

    def monotonic(self) -> float:
        """Return the time since start."""
        return self.now


@pytest.fixture(name="clock")
def clock_fixture() -> Iterator[Clock]:
    """Return the layout's clock."""
    clock = Clock()
    with patch("custom_components.ble_bridge.layouts.lines.time", wraps=time) as module:
        module.time.side_effect = clock.time
        module.monotonic.side_effect = clock.monotonic
        yield clock


def route() -> Route:
    """Return where a sighting's packets go."""
    return Route(b"", Tally())


def test_signal(clock: Clock) -> None:
    """A packet of a device that nobody added is known by its address."""
    packet = advertisement(rssi=-60, tx_power=-4)
    assert SignalLayout().payload(route(), sighting(), packet).decode() == (
        f"ble_signal,address={ADDRESS},scanner=living-room-proxy "
        f"rssi=-60i,tx_power=-4i {NANOSECONDS}"
    )


@pytest.mark.parametrize(
    ("device", "tags"),
    [
        (BALCONY, f"address={ADDRESS},device=balcony"),
        (DeviceIdentity("a b", rotates=True), r"device=a\ b"),
    ],
)
def test_signal_of_a_device(clock: Clock, device: DeviceIdentity, tags: str) -> None:
    """It has the device's name; an address that does not stay is left out."""
    seen = sighting("a=b")
    seen.device = device
    packet = advertisement(rssi=-60)
    assert SignalLayout("my house").payload(route(), seen, packet).decode() == (
        rf"my\ house_signal,{tags},scanner=a\=b rssi=-60i {NANOSECONDS}"
    )


def test_what_is_kept_follows_device_and_scanner() -> None:
    """A device that is added, renamed or removed, and a scanner's new ID, are seen at once."""
    layout, way, seen = SignalLayout(), route(), sighting()

    def tags() -> dict[str, str]:
        return parse(layout.payload(way, seen, advertisement())).tags

    scanner = {"scanner": "living-room-proxy"}
    assert tags() == {"address": ADDRESS, **scanner}
    seen.device = DeviceIdentity("old")
    assert tags() == {"address": ADDRESS, "device": "old", **scanner}
    seen.device = DeviceIdentity("new")
    assert tags() == {"address": ADDRESS, "device": "new", **scanner}
    seen.scanner.scanner_id = "attic"
    assert tags() == {"address": ADDRESS, "device": "new", "scanner": "attic"}
    seen.device = None
    assert tags() == {"address": ADDRESS, "scanner": "attic"}


@pytest.mark.parametrize("rssi", NO_RSSI)
def test_no_signal(rssi: int | None) -> None:
    """What is not known is no point."""
    packet = lookalike(rssi=rssi)
    assert SignalLayout().payload(route(), sighting(), packet) == b""


@given(
    st.integers(-200, 200), st.one_of(st.none(), st.integers(-200, 200)), nasty, nasty
)
def test_any_signal(
    rssi: int, tx_power: int | None, scanner_id: str, device_id: str
) -> None:
    """The figures come back, and no name adds anything."""
    seen = sighting(scanner_id)
    seen.device = DeviceIdentity(device_id)
    packet = advertisement(rssi=rssi, tx_power=tx_power)
    written = SignalLayout().payload(route(), seen, packet)
    if rssi in NO_RSSI:
        assert written == b""
        return
    point = parse(written)
    power = {} if tx_power in NO_TX_POWER else {"tx_power": tx_power}
    assert point.fields == {"rssi": rssi} | power
    assert {type(figure) for figure in point.fields.values()} == {int}
    assert point.tags == as_tags(address=ADDRESS, device=device_id, scanner=scanner_id)


@given(st.integers(0, 10**14), st.integers(0, 10**15))
def test_signals_are_exact_to_the_microsecond(now: int, offset: int) -> None:
    """The time is that of the packet, without what floats add."""
    clock = Clock()
    clock.now, clock.offset = now / 1e6, offset / 1e6
    with patch("custom_components.ble_bridge.layouts.lines.time", clock):
        packet = advertisement(time=clock.now)
        point = parse(SignalLayout().payload(route(), sighting(), packet))
    assert point.time == (now + offset) * 1000


def test_packets_of_one_moment(clock: Clock) -> None:
    """A proxy gives all packets of one message one time; none takes another's place."""
    layout, way, seen, other = SignalLayout(), route(), sighting(), route()

    def moment(packet_time: float, way: Route = way) -> int:
        packet = advertisement(time=packet_time)
        return parse(layout.payload(way, seen, packet)).time - NANOSECONDS

    assert [moment(1000.25) for _ in range(3)] == [0, 1, 2]
    assert moment(1000.25, other) == 0
    assert moment(1000.250001) == 1000
    assert len({moment(1000.5) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("step", [3600, -3600, 0.25])
def test_the_clock_is_set(clock: Clock, step: float) -> None:
    """The times follow within a second."""
    layout, way, seen = SignalLayout(), route(), sighting()
    layout.payload(way, seen, advertisement(time=clock.now))
    clock.offset += step
    clock.now += 1
    point = parse(layout.payload(way, seen, advertisement(time=clock.now)))
    assert point.time == NANOSECONDS + 1_000_000_000 + round(step * 1e9)


@pytest.mark.parametrize(
    "changes",
    [
        {"rssi": "strong"},
        {"rssi": []},
        {"tx_power": "strong"},
        {"tx_power": []},
        {"time": math.nan},
        {"time": math.inf},
        {"time": None},
    ],
)
def test_no_packet_of_the_stack(changes: dict[str, Any]) -> None:
    """Data that are not what the stack promises are refused as such."""
    with pytest.raises(ValueError, match=r".*"):
        SignalLayout().payload(route(), sighting(), lookalike(**changes))


# --- documentation ----------------------------------------------------------------------


def documented() -> tuple[str, list[str]]:
    """Return the section of the documentation, and the lines that it shows."""
    text = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    section = text.partition("\n## InfluxDB line protocol\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"^```text\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return section, block.splitlines()


def test_documented_examples(clock: Clock) -> None:
    """The lines that the documentation shows are those of the layouts."""
    heard = sighting()
    heard.device, heard.address = BALCONY, "A4:C1:38:AA:BB:CC"
    assert documented()[1] == [
        line(
            reading(
                device=BALCONY,
                rssi=-67,
                values={
                    "temperature": 21.5,
                    "humidity": 54.1,
                    "battery": 97,
                    "battery_low": False,
                    "text": "Hello",
                },
                events={"button": "double_press"},
            )
        ),
        SignalLayout()
        .payload(route(), heard, advertisement(rssi=-67, tx_power=-4))
        .decode(),
        line(alert(device=BALCONY)),
        line(alert(device=BALCONY, ended_at=ENDED)),
        line(error(device=BALCONY)),
        line(connectivity(device=BALCONY)),
        LAYOUT.heartbeat(HEARTBEAT, TIME).decode(),
        LAYOUT.bridge_status("home", True, TIME).decode(),
    ]


def test_every_name_is_documented() -> None:
    """The page has each measurement, tag and field that is ours."""
    section, lines = documented()
    for shown in lines:
        point = parse(shown.encode())
        [row] = re.findall(rf"^\| `{point.measurement}` \|.*$", section, re.MULTILINE)
        for name in [*point.tags, *point.fields]:
            assert point.measurement == "ble" or f"`{name}`" in row
    for name in RESERVED_FIELDS:
        assert f"`{name}`" in section
