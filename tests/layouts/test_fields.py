"""The fields layout: what readings, alerts, errors and connectivity become."""

from datetime import datetime
import json
import re
from typing import Any

from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.layouts.fields import FieldsLayout
from custom_components.ble_bridge.layouts.payloads import unpublishable
from custom_components.ble_bridge.records import (
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
)

from .record_samples import (
    BALCONY,
    TIME,
    alert,
    alerts,
    as_seen,
    bases,
    connectivity,
    documented,
    error,
    is_valid_topic,
    reading,
    records,
    rssis,
    same,
    unsayable,
    values,
)
from .samples import ROOT, schema, validated

LAYOUT = FieldsLayout("telemetry")
SCHEMAS = {
    Reading: "reading",
    Alert: "alert",
    Error: "error",
    Connectivity: "connectivity",
}
ENDED = 1_768_129_330.04  # 2026-01-11T11:02:10.040Z
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def said(record: Reading) -> dict[str, Any]:
    """Return the values of a reading by the last level of their topics."""
    return {
        message.topic.rpartition("/")[2]: validated(message.payload, "reading")["value"]
        for message in LAYOUT.messages(record)
    }


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (21.5, '{"value":21.5}'),
        (21.0, '{"value":21.0}'),
        (21, '{"value":21}'),
        (0, '{"value":0}'),
        (-0.1, '{"value":-0.1}'),
        (1e-7, '{"value":1e-7}'),
        (2**64 - 1, '{"value":18446744073709551615}'),
        (-(2**63), '{"value":-9223372036854775808}'),
        (True, '{"value":true}'),
        (False, '{"value":false}'),
        ("", '{"value":""}'),
        ("Küche 🦊", '{"value":"Küche 🦊"}'),
        ('quote " and \\ and \0', '{"value":"quote \\" and \\\\ and \\u0000"}'),
        ("a\ud800b", '{"value":"a?b"}'),
        ([], '{"value":[]}'),
        ([1, 2.5, "x"], '{"value":[1,2.5,"x"]}'),
        ({"x\udfff": ["\ud800", True]}, '{"value":{"x?":["?",true]}}'),
    ],
)
def test_value(value: Any, payload: str) -> None:
    """A value is JSON, as the device gave it, and may be retained."""
    [message] = LAYOUT.messages(reading(values={"temperature": value}))
    assert message.topic == "telemetry/balcony/v/temperature"
    assert message.payload.decode() == payload
    assert message.is_state
    validated(message.payload, "reading")


def test_reading() -> None:
    """Values first, then what happened, then the signal; states are values only."""
    messages = LAYOUT.messages(
        reading(
            rssi=-67,
            values={"temperature": 21.5, "battery_low": False},
            events={"button": "double_press"},
        )
    )
    assert [(*message,) for message in messages] == [
        ("telemetry/balcony/v/temperature", b'{"value":21.5}', True),
        ("telemetry/balcony/v/battery_low", b'{"value":false}', True),
        ("telemetry/balcony/v/button", b'{"value":"double_press"}', False),
        ("telemetry/balcony/v/rssi", b'{"value":-67}', False),
    ]


def test_a_reading_that_says_nothing() -> None:
    """It has no messages, and that is no error."""
    assert LAYOUT.messages(reading()) == []


@pytest.mark.parametrize(("rssi", "expected"), [(-67, -67), (None, -1)])
def test_one_signal_strength(rssi: int | None, expected: int) -> None:
    """Where a device says one of its own, that of the packet is the one."""
    [message] = LAYOUT.messages(reading(rssi=rssi, values={"rssi": -1}))
    assert validated(message.payload, "reading") == {"value": expected}
    assert not message.is_state


@pytest.mark.parametrize(
    ("device_id", "name", "topic"),
    [
        ("AA:BB:CC:DD:EE:FF", "temperature_2", "AA:BB:CC:DD:EE:FF/v/temperature_2"),
        ("a/b", "#", "a_b/v/_"),
        ("$SYS", "", "_SYS/v/_"),
        ("+", "my value\0", "_/v/my_value_"),
        ("", "x" * 200, "_/v/" + "x" * 128),
    ],
)
def test_names_are_made_safe(device_id: str, name: str, topic: str) -> None:
    """Nothing from outside adds a level or a wildcard, and the prefix fits."""
    device = DeviceIdentity(device_id)
    [message] = LAYOUT.messages(reading(device=device, values={name: 1}))
    assert message.topic == f"telemetry/{topic}"
    assert message.topic.startswith(LAYOUT.prefix(device_id))


def test_prefix() -> None:
    """It is the base and the device, and a slash."""
    assert FieldsLayout("a/b").prefix("balcony") == "a/b/balcony/"


# --- what cannot be said ----------------------------------------------------------------


@given(unsayable, rssis)
def test_one_bad_value_costs_no_other(value: Any, rssi: int | None) -> None:
    """It is left out and named; the others go out."""
    record = reading(rssi=rssi, values={"a": 1, "bad": value, "z": 2})
    expected = {"a": 1, "z": 2} | ({} if rssi is None else {"rssi": rssi})
    assert said(record) == expected
    assert unpublishable(record) == ["bad"]


@given(unsayable)
def test_nothing_but_bad_values(value: Any) -> None:
    """A reading of which nothing is left is refused."""
    record = reading(values={"a": value, "b": value})
    with pytest.raises(ValueError, match="No value"):
        LAYOUT.messages(record)
    assert unpublishable(record) == ["a", "b"]


def test_a_value_without_end() -> None:
    """What holds itself is no value."""
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    record = reading(values={"a": CYCLE, "b": deep, "c": 1})
    assert said(record) == {"c": 1}
    assert unpublishable(record) == ["a", "b"]


@given(st.dictionaries(st.sampled_from("abc"), values), rssis)
def test_nothing_is_unpublishable_of_good_values(
    good: dict[str, Any], rssi: int | None
) -> None:
    """Whatever is a value is published."""
    assert unpublishable(reading(values=good, rssi=rssi)) == []


@pytest.mark.parametrize(
    "time", [float("nan"), float("inf"), 1e300, 1e18, 253_402_300_800, -1e12]
)
@pytest.mark.parametrize(
    "record",
    [
        lambda time: alert(started_at=time),
        lambda time: alert(ended_at=time),
        lambda time: error(created_at=time),
        lambda time: connectivity(created_at=time),
    ],
)
def test_no_time(record: Any, time: float) -> None:
    """A time that ISO 8601 cannot say is refused."""
    with pytest.raises(ValueError, match=r".*"):
        LAYOUT.messages(record(time))


# --- alerts, errors, connectivity -------------------------------------------------------


def test_alert() -> None:
    """It is the newest of its name, and one of its history."""
    current, history = LAYOUT.messages(alert())
    assert current.topic == "telemetry/balcony/alerts/too_warm/current"
    assert history.topic == "telemetry/balcony/alerts/too_warm/history"
    assert current.is_state
    assert not history.is_state
    assert current.payload == history.payload
    assert validated(current.payload, "alert") == {
        "Name": "too warm",
        "StartedAt": "2026-01-11T10:30:45.123Z",
        "EndedAt": None,
        "Audiences": ["household"],
    }


def test_alert_that_ended() -> None:
    """It says when it did."""
    current, _ = LAYOUT.messages(alert(ended_at=ENDED, audiences=()))
    payload = validated(current.payload, "alert")
    assert payload["EndedAt"] == "2026-01-11T11:02:10.040Z"
    assert payload["Audiences"] == []


def test_error() -> None:
    """It is no state."""
    [message] = LAYOUT.messages(error(name="wrong key/±", tags={"a\ud800": "b\ud800"}))
    assert message.topic == "telemetry/balcony/errors/wrong_key_±"
    assert not message.is_state
    assert validated(message.payload, "error") == {
        "Name": "wrong key/±",
        "Body": "The packets are encrypted with another key",
        "Tags": {"a?": "b?"},
        "CreatedAt": "2026-01-11T10:30:45.123Z",
    }


@pytest.mark.parametrize(
    ("connected", "status"), [(True, "CONNECTED"), (False, "DISCONNECTED")]
)
def test_connectivity(connected: bool, status: str) -> None:
    """It is the state of the device."""
    [message] = LAYOUT.messages(connectivity(connected=connected, connection_id="7"))
    assert message.topic == "telemetry/balcony/connectivity"
    assert message.is_state
    assert validated(message.payload, "connectivity") == {
        "ConnectionId": "7",
        "Status": status,
        "CreatedAt": "2026-01-11T10:30:45.123Z",
    }


# --- any record -------------------------------------------------------------------------


@given(bases, records)
def test_every_message_is_as_documented(base: str, record: Record) -> None:
    """Whatever a record says, a broker takes the topics, and the schemas hold."""
    layout = FieldsLayout(base)
    for message in layout.messages(record):
        assert is_valid_topic(message.topic)
        assert message.topic.startswith(layout.prefix(record.device.device_id))
        validated(message.payload, SCHEMAS[type(record)])


@given(values)
def test_values_come_back(value: Any) -> None:
    """What JSON says is the value: nothing is rounded, and nothing gets another type."""
    [message] = LAYOUT.messages(reading(values={"a": value}))
    assert same(json.loads(message.payload)["value"], value)


@given(alerts)
def test_times_come_back(record: Alert) -> None:
    """They are right to the millisecond."""
    payload = validated(LAYOUT.messages(record)[0].payload, "alert")
    said = datetime.fromisoformat(payload["StartedAt"]).timestamp()
    assert -0.0001 < record.started_at - said < 0.0011


# --- documentation ----------------------------------------------------------------------


def test_documented_examples() -> None:
    """The messages that the documentation shows are those of the layout."""
    readings = reading(
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
    assert documented("telemetry") == as_seen(
        [
            *LAYOUT.messages(readings),
            LAYOUT.messages(alert())[1],
            LAYOUT.messages(alert(ended_at=ENDED))[0],
            *LAYOUT.messages(error()),
            *LAYOUT.messages(connectivity()),
        ]
    )


@pytest.mark.parametrize("name", SCHEMAS.values())
def test_every_field_is_documented(name: str) -> None:
    """The page has a line for each field of the schemas."""
    documentation = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    for field in schema(name)["properties"]:
        assert re.search(rf"^\| `{field}` \| ", documentation, re.MULTILINE)


def test_samples_are_of_one_moment() -> None:
    """The device and the time of the samples are those of the documentation."""
    assert BALCONY.device_id == "balcony"
    assert datetime.fromisoformat("2026-01-11T10:30:45.123Z").timestamp() == TIME
