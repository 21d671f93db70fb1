"""The encoder of protobuf, and its messages, read by the real protobuf package."""

from collections.abc import Callable, Iterator
import json
import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, strategies as st
import pytest
import telemetry_pb2 as telemetry

from custom_components.ble_bridge.layouts.payloads import (
    iso_timestamp,
    safe_text,
    to_json,
)
from custom_components.ble_bridge.layouts.protobuf import (
    bytes_field,
    double_field,
    sint_field,
    text_field,
    timestamp_field,
    uint_field,
    varint,
)
from custom_components.ble_bridge.layouts.telemetry import (
    RESEND_MARK,
    encode_record,
    encode_value,
)
from custom_components.ble_bridge.records import (
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
)

from .record_samples import (
    alert,
    alerts,
    connectivities,
    connectivity,
    error,
    errors,
    reading,
    readings,
    records,
    same,
    unsayable,
    values,
)
from .samples import ROOT, texts

PROTO = (ROOT / "docs/protobuf/telemetry.proto").read_text(encoding="utf-8")
MESSAGES: dict[type[Record], Any] = {
    Reading: telemetry.Payload,
    Alert: telemetry.Alerts,
    Error: telemetry.Errors,
    Connectivity: telemetry.Connectivity,
}
# Those that are published by themselves.
PUBLISHED: list[Any] = [
    *MESSAGES.values(),
    telemetry.Advertisement,
    telemetry.Heartbeat,
]


def parsed(record: Record) -> Any:
    """Return what the protobuf package reads of a record."""
    return MESSAGES[type(record)].FromString(encode_record(record))


def value_of(said: telemetry.Value) -> Any:
    """Return a value, with its type, as a consumer would."""
    kind = said.WhichOneof("value")
    assert kind not in {None, "event_value"}
    found = getattr(said, kind or "")
    return json.loads(found) if kind == "json_value" else found


def iso(moment: Timestamp) -> str:
    """Return a Timestamp as JSON would say it."""
    assert moment.nanos % 1_000_000 == 0
    text: str = moment.ToJsonString()
    return text if "." in text else text.replace("Z", ".000Z")


def refuses(encode: Callable[[Any], bytes], value: object) -> bool:
    """Tell whether a value cannot be encoded."""
    try:
        encode(value)
    except ValueError:
        return True
    return False


# --- fields -----------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
def test_unsigned(number: int) -> None:
    """It is what the package writes, byte for byte."""
    expected = telemetry.Value(uint_value=number).SerializeToString()
    assert uint_field(3, number) == expected


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed(number: int) -> None:
    """It is what the package writes, byte for byte."""
    expected = telemetry.Value(int_value=number).SerializeToString()
    assert sint_field(2, number) == expected


@given(st.integers(-(2**31), 2**31 - 1))
def test_signed_32(number: int) -> None:
    """It is what the package writes, byte for byte."""
    expected = telemetry.Payload(rssi=number).SerializeToString()
    assert sint_field(6, number, 32) == expected


@given(st.floats())
def test_double(number: float) -> None:
    """It is what the package writes, byte for byte, also of an infinity."""
    expected = telemetry.Value(double_value=number).SerializeToString()
    assert double_field(4, number) == expected


@given(texts)
def test_text(text: str) -> None:
    """It is what the package writes, with a question mark for what UTF-8 cannot say."""
    expected = telemetry.Value(string_value=safe_text(text)).SerializeToString()
    assert text_field(1, text) == expected


@given(st.one_of(st.binary(max_size=300), st.integers(0, 20_000).map(bytes)))
def test_bytes(content: bytes) -> None:
    """They are what the package writes, byte for byte."""
    expected = telemetry.Advertisement(raw=content).SerializeToString()
    assert bytes_field(10, content) == expected


@pytest.mark.parametrize("number", [-1, 2**64, -(2**64)])
def test_no_unsigned_integer(number: int) -> None:
    """What has no room is refused, and not cut."""
    with pytest.raises(ValueError, match="unsigned"):
        varint(number)


@pytest.mark.parametrize(
    ("number", "bits"),
    [(2**63, 64), (-(2**63) - 1, 64), (2**31, 32), (-(2**31) - 1, 32)],
)
def test_no_signed_integer(number: int, bits: int) -> None:
    """What has no room is refused, and not cut."""
    with pytest.raises(ValueError, match=f"{bits} bits"):
        sint_field(1, number, bits)


@given(
    st.one_of(
        st.floats(-62_135_596_801, 253_402_300_801),
        st.floats(-1, 1),
        st.floats(),
        st.integers(-62_135_596_800_000, 253_402_300_799_999).map(lambda ms: ms / 1000),
    )
)
def test_time(seconds: float) -> None:
    """It is the very millisecond that JSON says, in the same bounds."""
    try:
        expected = iso_timestamp(seconds)
    except ValueError:
        with pytest.raises(ValueError, match="Not a time"):
            timestamp_field(2, seconds)
        return
    payload = telemetry.Payload.FromString(timestamp_field(2, seconds))
    assert iso(payload.created_at) == expected


# --- values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (21.5, "double_value"),
        (21.0, "double_value"),
        (-0.0, "double_value"),
        (21, "int_value"),
        (-(2**63), "int_value"),
        (2**63 - 1, "int_value"),
        (2**63, "uint_value"),
        (2**64 - 1, "uint_value"),
        (True, "bool_value"),
        (False, "bool_value"),
        ("", "string_value"),
        ("a\ud800b", "string_value"),
        ([1, 2.5], "json_value"),
        ({}, "json_value"),
    ],
)
def test_kind_of_value(value: Any, kind: str) -> None:
    """Each type of value has one kind, which is there also for 0 and what is empty."""
    assert telemetry.Value.FromString(encode_value(value)).WhichOneof("value") == kind


@given(values)
def test_values_come_back(value: Any) -> None:
    """Nothing is rounded, and nothing gets another type."""
    assert same(value_of(telemetry.Value.FromString(encode_value(value))), value)


@given(st.one_of(values, unsayable, st.floats(), st.integers()))
def test_refused_as_in_json(value: Any) -> None:
    """What one payload can say the other can too, so that errors tell of both."""
    assert refuses(encode_value, value) == refuses(to_json, value)


# --- messages ---------------------------------------------------------------------------


@given(readings)
def test_reading(record: Reading) -> None:
    """All that it says is there, once, and events are no values."""
    message = parsed(record)
    assert message.device == safe_text(record.device.device_id)
    assert message.scanner_id == record.scanner_id
    assert iso(message.created_at) == iso_timestamp(record.time)
    assert message.HasField("rssi") is (record.rssi is not None)
    assert message.rssi == (record.rssi or 0)
    assert not message.is_resend
    found = [
        (datum.key, datum.value)
        for datum in message.data
        if datum.value.WhichOneof("value") != "event_value"
    ]
    expected = [
        (name, value)
        for name, value in record.values.items()
        if name != "rssi" or record.rssi is None
    ]
    assert [name for name, _ in found] == [safe_text(name) for name, _ in expected]
    for (_, said), (_, value) in zip(found, expected, strict=True):
        assert same(value_of(said), value)
    assert [
        (datum.key, datum.value.event_value) for datum in message.data[len(found) :]
    ] == [(safe_text(name), safe_text(event)) for name, event in record.events.items()]


@given(alerts)
def test_alert(record: Alert) -> None:
    """One that is open has no end; the message is of the moment of its last change."""
    message = parsed(record)
    [said] = message.alerts
    assert said.name == safe_text(record.name)
    assert [*said.audiences] == [safe_text(audience) for audience in record.audiences]
    assert iso(said.started_at) == iso_timestamp(record.started_at)
    if record.ended_at is None:
        assert not said.HasField("ended_at")
        assert message.created_at == said.started_at
    else:
        assert iso(said.ended_at) == iso_timestamp(record.ended_at)
        assert message.created_at == said.ended_at


@given(errors)
def test_error(record: Error) -> None:
    """Name, body, tags and time come back."""
    message = parsed(record)
    [said] = message.errors
    assert (said.name, said.body) == (safe_text(record.name), safe_text(record.body))
    assert dict(said.tags) == {
        safe_text(tag): safe_text(text) for tag, text in record.tags.items()
    }
    assert iso(said.created_at) == iso_timestamp(record.created_at)
    assert message.created_at == said.created_at


@given(connectivities)
def test_connectivity(record: Connectivity) -> None:
    """It says which stay, and what became of it."""
    message = parsed(record)
    assert message.connection_id == safe_text(record.connection_id)
    assert message.status == (
        telemetry.Connectivity.CONNECTED
        if record.connected
        else telemetry.Connectivity.DISCONNECTED
    )
    assert iso(message.created_at) == iso_timestamp(record.created_at)


@pytest.mark.parametrize("address", ["A4:C1:38:AA:BB:CC", None])
@pytest.mark.parametrize("make", [reading, alert, error, connectivity])
def test_whose_it_is(make: Callable[..., Record], address: str | None) -> None:
    """Device and address have the same names in all messages."""
    message = parsed(make(device=DeviceIdentity("balcony", address)))
    assert message.device == "balcony"
    assert message.address == (address or "")


@given(records)
def test_as_the_package_writes_it(record: Record) -> None:
    """Nothing is unknown to the package, and what it writes says the same."""
    assert not encode_record(record).startswith(b"{")  # Which tells it from JSON
    message = parsed(record)
    message.DiscardUnknownFields()
    again = message.SerializeToString()
    assert len(again) <= len(encode_record(record))
    assert type(message).FromString(again) == parsed(record)


@pytest.mark.parametrize(
    "record",
    [
        reading(values={"a": float("nan")}),
        reading(time=float("nan"), values={"a": 1}),
        reading(rssi=2**31),
        alert(started_at=float("inf")),
        alert(ended_at=-1e12),
        error(created_at=1e300),
        connectivity(created_at=253_402_300_800),
    ],
)
def test_refused(record: Record) -> None:
    """What cannot be said is refused with the error that the destination counts."""
    with pytest.raises(ValueError, match=r".+"):
        encode_record(record)


@given(unsayable)
def test_one_bad_value_costs_no_other(value: Any) -> None:
    """It is left out; signal and events are enough for a message."""
    message = parsed(reading(values={"a": 1, "bad": value, "z": 2}))
    assert [datum.key for datum in message.data] == ["a", "z"]
    assert not parsed(reading(rssi=-67, values={"bad": value})).data
    [datum] = parsed(reading(values={"bad": value}, events={"button": "press"})).data
    assert datum.value.event_value == "press"


# --- the definition ---------------------------------------------------------------------


@pytest.mark.parametrize("message", PUBLISHED)
def test_resend_mark(message: Any) -> None:
    """Two bytes at the end say of any message, once or more, that it is sent again."""
    assert len(RESEND_MARK) == 2
    assert not message.FromString(b"").is_resend
    assert message.FromString(RESEND_MARK).is_resend
    assert message.FromString(2 * RESEND_MARK).is_resend


def test_marked() -> None:
    """The mark changes nothing else."""
    payload = encode_record(reading(rssi=-67, values={"temperature": 21.5}))
    plain = telemetry.Payload.FromString(payload)
    marked = telemetry.Payload.FromString(payload + RESEND_MARK)
    assert marked.is_resend
    marked.is_resend = False
    assert marked == plain


def test_all_published_messages_are_known() -> None:
    """Each message with a mark is one that is published."""
    assert {message.DESCRIPTOR.name for message in PUBLISHED} == {
        name
        for name, message in telemetry.DESCRIPTOR.message_types_by_name.items()
        if "is_resend" in message.fields_by_name
    }


def declared(field: FieldDescriptor) -> str:
    """Return the type of a field as a definition says it."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{declared(key)}, {declared(value)}>"
    if (named := field.message_type or field.enum_type) is not None:
        kind = named.full_name
        kind = kind if kind.startswith("google.") else named.name
    else:
        kind = FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.is_repeated:
        return f"repeated {kind}"
    is_optional = field.has_presence and not (
        field.message_type or field.containing_oneof.name == "value"
    )
    return f"optional {kind}" if is_optional else kind


def generated(message: Descriptor) -> Iterator[tuple[str, str, int]]:
    """Return type, name and number of all that a message declares."""
    for enum in message.enum_types:
        for value in enum.values:
            yield "", value.name, value.number
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from generated(nested)
    for field in message.fields:
        yield declared(field), field.name, field.number


def test_generated_module_is_current() -> None:
    """It is that of the definition; `scripts/protobuf` makes it anew."""
    lines = re.findall(r"^ +(?:(\S.*) )?(\w+) = (\d+);$", PROTO, re.MULTILINE)
    found = [
        entry
        for message in telemetry.DESCRIPTOR.message_types_by_name.values()
        for entry in generated(message)
    ]
    assert sorted(found) == sorted((kind, name, int(n)) for kind, name, n in lines)
    assert len(found) > 50
    assert telemetry.DESCRIPTOR.package == "ble_bridge"
