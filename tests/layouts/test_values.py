"""The values layout: what a reading becomes."""

import json
from typing import Any

from hypothesis import given
import pytest

from custom_components.ble_bridge.layouts.topics import safe_part
from custom_components.ble_bridge.layouts.values import (
    RESERVED_DEVICE_IDS,
    ValuesLayout,
)
from custom_components.ble_bridge.records import DeviceIdentity, Reading, Record

from .record_samples import (
    alert,
    as_seen,
    bases,
    connectivity,
    documented,
    error,
    is_valid_topic,
    reading,
    readings,
    records,
    same,
    unsayable,
    values,
)

LAYOUT = ValuesLayout("iiot")


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (27.6, "27.6"),
        (21.5, "21.5"),
        (21.0, "21.0"),
        (21, "21"),
        (-39, "-39"),
        (1e-7, "1e-7"),
        (2**64 - 1, "18446744073709551615"),
        (True, "true"),
        (False, "false"),
        ("open", "open"),
        ("27.6", "27.6"),
        ('"Küche" 🦊\n\0', '"Küche" 🦊\n\0'),
        ("a\ud800b", "a?b"),
        ([1, 2.5, "x"], '[1,2.5,"x"]'),
        ({"x": 1}, '{"x":1}'),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_value(value: Any, payload: str) -> None:
    """A value stands alone, as the device gave it, and may be retained."""
    [message] = LAYOUT.messages(reading(values={"temperature": value}))
    assert message.topic == "iiot/balcony/temperature"
    assert message.payload.decode() == payload
    assert message.is_state


def test_an_empty_text_clears_nothing() -> None:
    """It goes out, but never as the empty retained message that clears a topic."""
    [message] = LAYOUT.messages(reading(values={"text": ""}))
    assert (*message,) == ("iiot/balcony/text", b"", False)


def test_reading() -> None:
    """Signal statistics and what happened are no states."""
    messages = LAYOUT.messages(
        reading(rssi=-67, values={"humidity": 54.1}, events={"button": "press"})
    )
    assert [(*message,) for message in messages] == [
        ("iiot/balcony/humidity", b"54.1", True),
        ("iiot/balcony/button", b"press", False),
        ("iiot/balcony/rssi", b"-67", False),
        ("iiot/signal/rssi", b"-67", False),
    ]


def test_one_signal_strength() -> None:
    """Where a device says one of its own, that of the packet is the one."""
    assert as_seen(LAYOUT.messages(reading(rssi=-67, values={"rssi": -1}))) == [
        "iiot/balcony/rssi -67",
        "iiot/signal/rssi -67",
    ]


def test_a_signal_strength_of_the_device_alone() -> None:
    """It is the device's, and says nothing of the packet heard last."""
    [message] = LAYOUT.messages(reading(values={"rssi": -1}))
    assert (*message,) == ("iiot/balcony/rssi", b"-1", False)


def test_a_reading_that_says_nothing() -> None:
    """It has no messages, and that is no error."""
    assert LAYOUT.messages(reading()) == []


@pytest.mark.parametrize("record", [alert(), error(), connectivity()])
def test_other_records(record: Record) -> None:
    """They have no topics here."""
    assert LAYOUT.messages(record) == []


def test_reserved_device_ids() -> None:
    """A device may not be called what the layout calls its own."""
    [_, signal] = LAYOUT.messages(reading(rssi=-67))
    assert {signal.topic.split("/")[1]} == RESERVED_DEVICE_IDS


@given(unsayable)
def test_one_bad_value_costs_no_other(value: Any) -> None:
    """It is left out, and where it was all, the reading is refused."""
    record = reading(values={"a": 1, "bad": value, "z": "2"})
    assert as_seen(LAYOUT.messages(record)) == ["iiot/balcony/a 1", "iiot/balcony/z 2"]
    with pytest.raises(ValueError, match="No value"):
        LAYOUT.messages(reading(values={"bad": value}))


def test_names_are_made_safe() -> None:
    """Nothing from outside adds a level or a wildcard."""
    device = DeviceIdentity("$a/b")
    [message] = LAYOUT.messages(reading(device=device, values={"x/+#": 1}))
    assert message.topic == "iiot/_a_b/x___"
    assert message.topic.startswith(LAYOUT.prefix("$a/b"))
    assert LAYOUT.prefix("balcony") == "iiot/balcony/"


@given(bases, records)
def test_every_topic_is_valid(base: str, record: Record) -> None:
    """Whatever a record says, a broker takes it, and nothing is cleared by accident."""
    layout = ValuesLayout(base)
    own = layout.prefix(record.device.device_id)
    for message in layout.messages(record):
        assert is_valid_topic(message.topic)
        assert message.topic.startswith(own) or message.topic == f"{base}/signal/rssi"
        assert message.payload or not message.is_state
        message.payload.decode("utf-8")


@given(readings)
def test_nothing_is_said_twice(record: Reading) -> None:
    """Each field has one message, and the signal one more."""
    topics = [message.topic for message in LAYOUT.messages(record)]
    names = [name for name in record.values if name != "rssi"] + [*record.events]
    signals = ["rssi"] if record.rssi is not None or "rssi" in record.values else []
    levels = list(map(safe_part, names)) + signals
    said = [topic.split("/")[2] for topic in topics[: len(levels)]]
    assert sorted(said) == sorted(levels)
    assert topics[len(levels) :] == (
        [] if record.rssi is None else ["iiot/signal/rssi"]
    )


@given(values)
def test_values_come_back(value: Any) -> None:
    """A text is itself, and anything else is its JSON."""
    [message] = LAYOUT.messages(reading(values={"a": value}))
    if isinstance(value, str):
        assert message.payload == value.encode(errors="replace")
        return
    assert same(json.loads(message.payload), value)


def test_documented_examples() -> None:
    """The messages that the documentation shows are those of the layout."""
    assert documented("iiot") == as_seen(
        LAYOUT.messages(
            reading(
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
        )
    )
