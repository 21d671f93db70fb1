"""Records of devices, and what is true of every message about them."""

import json
import re
from typing import Any

from hypothesis import strategies as st

from custom_components.ble_bridge.layouts import Message
from custom_components.ble_bridge.records import (
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
)

from .samples import ROOT, texts

BALCONY = DeviceIdentity("balcony", "A4:C1:38:AA:BB:CC")
TIME = 1_768_127_445.123  # 2026-01-11T10:30:45.123Z


def reading(**changes: Any) -> Reading:
    """Return a reading that says nothing, but for the changes."""
    nothing: dict[str, Any] = {
        "device": BALCONY,
        "time": TIME,
        "scanner_id": "living-room-proxy",
        "rssi": None,
        "values": {},
        "events": {},
    }
    return Reading(**{**nothing, **changes})


def alert(**changes: Any) -> Alert:
    """Return an alert that is open, but for the changes."""
    values: dict[str, Any] = {
        "device": BALCONY,
        "name": "too warm",
        "started_at": TIME,
        "ended_at": None,
        "audiences": ("household",),
    }
    return Alert(**{**values, **changes})


def error(**changes: Any) -> Error:
    """Return an error, with the changes."""
    values: dict[str, Any] = {
        "device": BALCONY,
        "name": "key_wrong",
        "body": "The packets are encrypted with another key",
        "tags": {"count": "1"},
        "created_at": TIME,
    }
    return Error(**{**values, **changes})


def connectivity(**changes: Any) -> Connectivity:
    """Return a device that came, but for the changes."""
    values: dict[str, Any] = {
        "device": BALCONY,
        "connection_id": "0b6f3f0e5c0f4d0c9a52a3f6a8f6f3b1",
        "connected": True,
        "created_at": TIME,
    }
    return Connectivity(**{**values, **changes})


def as_seen(messages: list[Message]) -> list[str]:
    """Return messages as `mosquitto_sub -v` shows them."""
    return [f"{message.topic} {message.payload.decode()}" for message in messages]


def documented(base: str, separator: str = "/") -> list[str]:
    """Return the messages under a base that the documentation shows, line by line."""
    text = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [
        line
        for block in blocks
        for line in block.splitlines()
        if line.startswith(f"{base}{separator}")
    ]


def same(said: object, value: object) -> bool:
    """Tell whether JSON said a value, but for characters that UTF-8 cannot write."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    return type(said) is type(value) and said == json.loads(text)


def is_valid_topic(topic: str) -> bool:
    """Tell whether a broker takes a topic to publish to (MQTT 5, 4.7)."""
    return (
        all(topic.split("/"))
        and not set(topic) & set("+#\0")
        and len(topic.encode()) <= 65_535
    )


names = st.one_of(
    texts, st.sampled_from(["temperature", "rssi", "button", "", "/", "$", "v/+/#"])
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)
    ),
    max_leaves=8,
)
# What a decoder must not give, and could.
unsayable: st.SearchStrategy[Any] = st.sampled_from(
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        2**64,
        -(2**63) - 1,
        None,
        b"bytes",
        object(),
        [1.0, float("nan")],
        {"x": [float("inf")]},
        {1: 2},
        {"x": None},
    ]
)
devices = st.builds(DeviceIdentity, names)
times = st.floats(0, 253_402_300_799)
rssis = st.one_of(st.none(), st.integers(-128, 127))
readings = st.builds(
    reading,
    device=devices,
    rssi=rssis,
    values=st.dictionaries(names, values, max_size=5),
    events=st.dictionaries(names, texts, max_size=3),
)
alerts = st.builds(
    alert,
    device=devices,
    name=names,
    started_at=times,
    ended_at=st.one_of(st.none(), times),
    audiences=st.lists(texts, max_size=3).map(tuple),
)
errors = st.builds(
    error,
    device=devices,
    name=names,
    body=texts,
    tags=st.dictionaries(texts, texts, max_size=3),
    created_at=times,
)
connectivities = st.builds(
    connectivity,
    device=devices,
    connection_id=texts,
    connected=st.booleans(),
    created_at=times,
)
records: st.SearchStrategy[Record] = st.one_of(readings, alerts, errors, connectivities)
bases = st.sampled_from(["telemetry", "home/ble", "Küche", "🦊" * 128])
