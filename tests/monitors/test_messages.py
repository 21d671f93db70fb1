"""Payloads as messages: what each kind says, and why a payload is none."""

from datetime import UTC, datetime, timedelta, timezone
import json
from typing import Any

import pytest

from custom_components.ble_bridge.monitors import messages
from custom_components.ble_bridge.monitors.messages import (
    EARLIEST,
    MAX_AHEAD,
    MAX_DEPTH,
    MAX_ID,
    MAX_NAME,
    MAX_NUMBER,
    MAX_TEXT,
    MAX_VALUES,
    OFFLINE_WORDS,
    Message,
    Reason,
    RejectedError,
    is_valid_id,
    parse,
    snake,
)
from custom_components.ble_bridge.monitors.patterns import MessageKind, Route, find
from custom_components.ble_bridge.monitors.presets import (
    DEFAULT_BASES,
    DIALECTS,
    Dialect,
    Preset,
    preset_patterns,
)

STATUS, TELEMETRY, RELAY, INTERACTION, SYSTEM = MessageKind
DEVICE = "ESP32_001"
NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC).timestamp()
NOON = datetime(2026, 9, 21, 12, tzinfo=UTC).timestamp()

# As specs/mqtt-monitor.md has them
SPEC_STATUS = """
{
    "topic": "autocore/ESP32_001/status",
    "payload": {
        "device_id": "ESP32_001",
        "status": "online",
        "ip_address": "192.168.1.100",
        "firmware_version": "1.2.0",
        "uptime": 3600,
        "timestamp": "2025-01-28T10:30:00Z"
    }
}
"""
SPEC_TELEMETRY = """
{
    "topic": "autocore/ESP32_001/telemetry",
    "payload": {
        "device_id": "ESP32_001",
        "temperature": 25.6,
        "humidity": 45.2,
        "voltage": 3.28,
        "memory_free": 45120,
        "timestamp": "2025-01-28T10:30:15Z"
    }
}
"""
SPEC_RELAY = """
{
    "topic": "autocore/ESP32_001/relay/0/status",
    "payload": {
        "device_id": "ESP32_001",
        "relay_index": 0,
        "state": true,
        "triggered_by": "manual",
        "timestamp": "2025-01-28T10:30:30Z"
    }
}
"""
# As docs/topics.md has it
HEARTBEAT = b"""
{
  "scanner_id": "living-room-proxy",
  "timestamp": "2026-01-11T10:31:00.004Z",
  "status": "running",
  "uptime_seconds": 86400,
  "metrics": {
    "devices": 42,
    "advertisements_received": 1036800,
    "advertisements_published": 1036512,
    "advertisements_dropped": 288,
    "advertisements_filtered": 0
  },
  "mqtt": {
    "connected": true,
    "messages_sent": 3110112,
    "reconnects": 1,
    "last_error": "connection_lost"
  }
}
"""


def understood(
    kind: MessageKind,
    payload: object,
    part: str = "",
    *,
    device: str = DEVICE,
    dialect: Dialect = DIALECTS[Preset.AUTOCORE],
    needs_time: bool = False,
) -> Message:
    """Return what a payload says; what is no bytes is JSON."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    route = Route(kind, device, part)
    return parse(route, payload, NOW, dialect, needs_time=needs_time)


def refusal(*said: Any, **how: Any) -> Reason:
    """Return why a payload is no message."""
    with pytest.raises(RejectedError) as caught:
        understood(*said, **how)
    return caught.value.reason


def nested(depth: int, inner: str = '{"a":1}') -> bytes:
    """Return an object with so many objects and lists in one another, itself included."""
    for level in range(depth - 1):
        inner = f"[{inner}]" if level % 2 and level < depth - 2 else f'{{"a":{inner}}}'
    return inner.encode()


# --- the specification ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            SPEC_STATUS,
            Message(
                kind=STATUS,
                time=datetime(2025, 1, 28, 10, 30, tzinfo=UTC).timestamp(),
                values={},
                online=True,
                status="online",
                ip="192.168.1.100",
                firmware="1.2.0",
                uptime=3600,
            ),
        ),
        (
            SPEC_TELEMETRY,
            Message(
                kind=TELEMETRY,
                time=datetime(2025, 1, 28, 10, 30, 15, tzinfo=UTC).timestamp(),
                values={
                    "temperature": 25.6,
                    "humidity": 45.2,
                    "voltage": 3.28,
                    "memory_free": 45120,
                },
            ),
        ),
        (
            SPEC_RELAY,
            Message(
                kind=RELAY,
                time=datetime(2025, 1, 28, 10, 30, 30, tzinfo=UTC).timestamp(),
                values={},
                relay="0",
                state=True,
                triggered_by="manual",
            ),
        ),
    ],
    ids=["status", "telemetry", "relay"],
)
def test_examples(said: str, expected: Message) -> None:
    """The specification's examples are understood as they stand there."""
    example = json.loads(said)
    patterns = preset_patterns(Preset.AUTOCORE, DEFAULT_BASES[Preset.AUTOCORE])
    route = find(patterns, example["topic"])
    assert route is not None
    assert route.key == DEVICE
    payload = json.dumps(example["payload"], indent=4).encode()
    dialect = DIALECTS[Preset.AUTOCORE]
    assert parse(route, payload, NOW, dialect, needs_time=True) == expected


def test_heartbeat() -> None:
    """So are the heartbeats of other bridges, and what these say of themselves."""
    bridges = DIALECTS[Preset.BLE_BRIDGE]
    device = "living-room-proxy"
    message = understood(
        STATUS, HEARTBEAT, device=device, dialect=bridges, needs_time=True
    )
    assert (message.online, message.status, message.uptime) == (True, "running", 86400)
    assert message.values == {
        "devices": 42,
        "advertisements_received": 1036800,
        "advertisements_published": 1036512,
        "advertisements_dropped": 288,
        "advertisements_filtered": 0,
        "mqtt_connected": True,
        "mqtt_messages_sent": 3110112,
        "mqtt_reconnects": 1,
        "mqtt_last_error": "connection_lost",
    }
    stopped = HEARTBEAT.replace(b"running", b"stopped")
    assert not understood(STATUS, stopped, device=device, dialect=bridges).online
    assert refusal(STATUS, HEARTBEAT, device="other", dialect=bridges) == "id_mismatch"
    word = understood(STATUS, b"offline", dialect=bridges, needs_time=True)
    assert (word.online, word.time) == (False, None)


# --- what is no message -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "part", "wrong", "right"),
    [
        (TELEMETRY, "", b'{"a": 1', b'{"a": 1}'),
        (TELEMETRY, "", b"", b'{"a": 1}'),
        (TELEMETRY, "", b'{"a": 1} {}', b' {"a": 1}\r\n'),
        (TELEMETRY, "", b'{"a": 1,}', b'{"a": 1}'),
        (TELEMETRY, "", b"{a: 1}", b'{"a": 1}'),
        (TELEMETRY, "", b"{'a': 1}", b'{"a": 1}'),
        (TELEMETRY, "", b'{"a": NaN}', b'{"a": 0}'),
        (TELEMETRY, "", b'{"a": Infinity}', b'{"a": 1e18}'),
        (TELEMETRY, "", b'{"a": 01}', b'{"a": 1}'),
        (TELEMETRY, "", b'{"a": "\xff"}', b'{"a": "\xc3\xbf"}'),
        (TELEMETRY, "", b'{"a": "\xed\xa0\x80"}', b'{"a": "\xed\x9f\xbf"}'),
        (TELEMETRY, "", rb'{"a": "\ud800"}', rb'{"a": "\ud83e\udd8a"}'),
        (TELEMETRY, "", b'{"a": "\n"}', rb'{"a": "\n"}'),
        (TELEMETRY, "", b'\xef\xbb\xbf{"a": 1}', b'{"a": 1}'),
        (TELEMETRY, "", b'{"a": 1}\0', b'{"a": 1}'),
        (TELEMETRY, "", b"online", b'{"a": "online"}'),
        (TELEMETRY, "a", b"warm", b'"warm"'),
        (STATUS, "", b"onlin", b"online"),
        (STATUS, "", b"on line", b" OnLine\n"),
        (STATUS, "", b"stopped", b"offline"),
    ],
)
def test_not_json(kind: MessageKind, part: str, wrong: bytes, right: bytes) -> None:
    """JSON is what RFC 8259 says, in UTF-8; only a status can be a plain word."""
    assert refusal(kind, wrong, part) is Reason.NOT_JSON
    assert understood(kind, right, part)


@pytest.mark.parametrize(
    ("kind", "part", "wrong", "right"),
    [
        (TELEMETRY, "", [1], {"a": [1]}),
        (TELEMETRY, "", 5, {"a": 5}),
        (TELEMETRY, "", None, {"a": True}),
        (TELEMETRY, "a", [1], 1),
        (STATUS, "", "online", {"status": "online"}),
        (STATUS, "", True, {"status": True}),
        (RELAY, "0", True, {"state": True}),
        (INTERACTION, "", "tap", {"event": "tap"}),
        (SYSTEM, "boot", 1, {"count": 1}),
    ],
)
def test_not_an_object(
    kind: MessageKind, part: str, wrong: object, right: object
) -> None:
    """A message is an object, unless it is one value that has a topic of its own."""
    assert refusal(kind, wrong, part) is Reason.NOT_AN_OBJECT
    assert understood(kind, right, part)


@pytest.mark.parametrize(
    ("kind", "part", "wrong", "right"),
    [
        (STATUS, "", {}, {"status": "online"}),
        (STATUS, "", {"status": None}, {"status": "x"}),
        (STATUS, "", {"status": " "}, {"status": " x "}),
        (STATUS, "", {"status": "\0\u202e\n"}, {"status": "\0x"}),
        (STATUS, "", {"status": 1}, {"status": "1"}),
        (STATUS, "", {"status": ["online"]}, {"status": True}),
        (STATUS, "", {"Status": "online"}, {"status": False}),
        (TELEMETRY, "", {}, {"a": 0}),
        (TELEMETRY, "", {"device_id": DEVICE}, {"device_id": DEVICE, "a": ""}),
        (TELEMETRY, "", {"a": None, "b": {"c": None}}, {"a": None, "b": {"c": 1}}),
        (TELEMETRY, "", {"a": {}, "b": []}, {"a": {}, "b": [False]}),
        (TELEMETRY, "a", None, 0),
        (TELEMETRY, "a", {"value": None}, {"value": False}),
        (TELEMETRY, "a", {"a": 1}, {"value": 1, "a": 2}),
        (TELEMETRY, "a", {"value": {}}, {"value": {"b": 1}}),
        (RELAY, "0", {}, {"state": "on"}),
        (RELAY, "0", {"state": None}, {"state": 0}),
        (RELAY, "0", {"state": "maybe"}, {"state": "ON "}),
        (RELAY, "0", {"state": 2}, {"state": 1}),
        (RELAY, "0", {"state": 1.0}, {"state": 1}),
        (RELAY, "0", {"state": [True]}, {"state": True}),
        (RELAY, "", {"state": True}, {"relay_index": 0, "state": True}),
        (RELAY, "", {"relay_index": "", "state": 1}, {"relay_index": "a", "state": 1}),
    ],
)
def test_incomplete(kind: MessageKind, part: str, wrong: object, right: object) -> None:
    """A message has what its kind cannot be without."""
    assert refusal(kind, wrong, part) is Reason.INCOMPLETE
    assert understood(kind, right, part)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("", "a"),
        (" ", "a b"),
        ("\u3000", "\u3001"),
        ("a\tb", "a-b"),
        ("a\0b", "a#b"),
        ("a\u200bb", "a\u00e9b"),
        ("a\u202eb", "🦊"),
        ("a\ufeffb", "'\"\\"),
        ("a" * (MAX_ID + 1), "a" * MAX_ID),
    ],
)
def test_invalid_id(wrong: str, right: str) -> None:
    """IDs can be seen, and are not too long; those of relays too."""
    assert not is_valid_id(wrong)
    assert is_valid_id(right)
    assert refusal(STATUS, b"online", device=wrong) is Reason.INVALID_ID
    assert refusal(TELEMETRY, b"{", device=wrong) is Reason.INVALID_ID
    assert understood(STATUS, b"online", device=right)
    if wrong:
        said = {"state": 1, "relay_index": wrong}
        assert refusal(RELAY, said) is Reason.INVALID_ID
        assert refusal(RELAY, said, wrong) is Reason.INVALID_ID
    assert understood(RELAY, {"state": 1}, right).relay == right


@pytest.mark.parametrize(
    ("device", "wrong", "right"),
    [
        ("ESP32_001", "ESP32_002", "ESP32_001"),
        ("ESP32_001", "esp32_001", None),
        ("ESP32_001", "", "ESP32_001"),
        ("5", 6, 5),
        ("5", 5.0, "5"),
        ("True", True, "True"),
        ("None", [], "None"),
        ("{}", {}, "{}"),
    ],
)
def test_id_mismatch(device: str, wrong: object, right: object) -> None:
    """An ID in the payload is that of the topic."""
    said = {"device_id": wrong, "a": 1}
    assert refusal(TELEMETRY, said, device=device) is Reason.ID_MISMATCH
    message = understood(TELEMETRY, {**said, "device_id": right}, device=device)
    assert message.values == {"a": 1}


@pytest.mark.parametrize(
    ("part", "wrong", "right"),
    [
        ("0", 1, 0),
        ("0", "1", "0"),
        ("0", "00", None),
        ("0", False, 0),
        ("0", 0.0, "0"),
        ("0", [0], 0),
        ("pump", "Pump", "pump"),
        ("", True, "True"),
        ("", 0.5, -1),
        ("", {}, "a b"),
    ],
)
def test_relay_mismatch(part: str, wrong: object, right: object) -> None:
    """So is the index of a relay, where the topic has one."""
    said = {"relay_index": wrong, "state": True}
    assert refusal(RELAY, said, part) is Reason.ID_MISMATCH
    message = understood(RELAY, {**said, "relay_index": right}, part)
    assert message.relay == (part if right is None else str(right))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (b"9223372036854775809", b"9223372036854775808"),
        (b"18446744073709551615", b"9223372036854775807"),
        (b"18446744073709551616", b"1.5e18"),
        (b"-1e19", b"-9223372036854775808"),
        (b"1e300", b"1e-300"),
        (b"1e400", b"1e-400"),
        (b"-1e400", b"-0.0"),
        (b"1" * 400, b"1" * 19),
    ],
)
def test_number_too_large(wrong: bytes, right: bytes) -> None:
    """Numbers are those that 64 bits hold, wherever they stand."""
    for kind, part, text in (
        (TELEMETRY, "", b'{"a": %b}'),
        (TELEMETRY, "", b'{"a": [0, {"b": %b}]}'),
        (TELEMETRY, "a", b"%b"),
        (STATUS, "", b'{"status": "online", "a": %b}'),
        (SYSTEM, "boot", b'{"a": %b}'),
    ):
        assert refusal(kind, text % wrong, part) is Reason.NUMBER_TOO_LARGE
        values = understood(kind, text % right, part).values
        assert all(abs(float(str(value))) <= MAX_NUMBER for value in values.values())


def test_uptime() -> None:
    """An uptime is one that a device can have."""
    for wrong in (-1, -0.5, 1e19):
        said = {"status": "online", "uptime": wrong}
        assert refusal(STATUS, said) is Reason.NUMBER_TOO_LARGE
    for right in (None, 0, 0.5, 3600, 2**63):
        message = understood(STATUS, {"status": "online", "uptime": right})
        assert (message.uptime, message.values) == (right, {})


def test_no_uptime() -> None:
    """One that is no number is a value as any other, not a reason to know nothing."""
    for said, values in (
        ("3 days", {"uptime": "3 days"}),
        (True, {"uptime": True}),
        ({"days": 3}, {"uptime_days": 3}),
        ([], {}),
    ):
        message = understood(STATUS, {"status": "online", "uptime": said})
        assert (message.uptime, message.values) == (None, values)


def test_too_deep() -> None:
    """There is an end to objects and lists within one another, even where nothing is."""
    assert nested(5) == b'{"a":{"a":[{"a":{"a":1}}]}}'
    assert understood(TELEMETRY, nested(MAX_DEPTH)).values == {"a_a_1_a_a": 1}
    assert refusal(TELEMETRY, nested(MAX_DEPTH + 1)) is Reason.TOO_DEEP
    for empty in ("{}", "[]"):
        assert refusal(TELEMETRY, nested(MAX_DEPTH + 1, empty)) is Reason.TOO_DEEP
        assert refusal(TELEMETRY, nested(MAX_DEPTH, empty)) is Reason.INCOMPLETE
    for depth in (1023, 1024, 1025, 100_000):
        assert refusal(TELEMETRY, nested(depth)) is Reason.TOO_DEEP
    assert refusal(TELEMETRY, b'{"a":' * 2000) is Reason.TOO_DEEP


def test_too_many_values() -> None:
    """There is an end to the values of one message."""
    many = {f"a{number}": number for number in range(MAX_VALUES)}
    assert understood(TELEMETRY, many).values == many
    assert refusal(TELEMETRY, {**many, "b": 1}) is Reason.TOO_MANY_VALUES
    assert refusal(SYSTEM, {"a": [0] * 500_000}, "x") is Reason.TOO_MANY_VALUES


@pytest.mark.parametrize("item", [None, [], {}, [[]], {"a": None}, {"é": 1, "è": 1}])
def test_what_is_no_value_counts(item: object) -> None:
    """What makes no value makes work all the same, and as little of it."""
    assert refusal(SYSTEM, {"a": [item] * MAX_VALUES}, "x") is Reason.TOO_MANY_VALUES
    assert understood(SYSTEM, {"a": [item] * (MAX_VALUES // 3 - 1)}, "x")
    same = {"é" * (number + 1): item for number in range(MAX_VALUES + 1)}
    assert refusal(SYSTEM, same, "x") is Reason.TOO_MANY_VALUES


# --- times ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2026-09-21T12:00:00Z", NOON),
        ("2026-09-21T12:00:00.250Z", NOON + 0.25),
        ("2026-09-21T12:00:00.123456789Z", NOON + 0.123456),
        ("2026-09-21T12:00:00+00:00", NOON),
        ("2026-09-21T14:00:00+02:00", NOON),
        ("2026-09-21T06:30:00-05:30", NOON),
        ("20260921T120000Z", NOON),
        ("2026-09-21 12:00:00", NOON),
        ("2026-09-21T12:00:00", NOON),
        ("2026-09-21T12:00", NOON),
        ("2026-09-21", NOON - 43_200),
        ("2026-09-20T24:00:00Z", NOON - 43_200),
        (NOON, NOON),
        (int(NOON), NOON),
        (NOON + 0.5, NOON + 0.5),
        (NOON * 1000, NOON),
        (int(NOON) * 1000 + 250, NOON + 0.25),
        (EARLIEST, EARLIEST),
        ("2020-01-01T00:00:00Z", EARLIEST),
        (NOW + MAX_AHEAD, NOW + MAX_AHEAD),
    ],
)
def test_times(said: object, expected: float) -> None:
    """A time is ISO 8601, UTC where it does not say, or Unix time in s or ms."""
    found = understood(TELEMETRY, {"a": 1, "timestamp": said}, needs_time=True)
    assert found.time == pytest.approx(expected, abs=1e-6)
    assert found.values == {"a": 1}


@pytest.mark.parametrize(
    "said",
    [
        "",
        "now",
        "12:00:00Z",
        "2026-09-21T12:00:00 UTC",
        "2026-13-21T12:00:00Z",
        "2026-09-31T12:00:00Z",
        "2026-09-21T25:00:00Z",
        "2026-09-21T12:00:00+25:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T24:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "2019-12-31T23:59:59Z",
        "1970-01-01T00:00:10Z",
        "2026-09-22T14:13:21Z",
        "1790000000",
        "٢٠٢٦-٠٩-٢١",
        "2026-09-21T12:00:00\u2028Z",
        "9" * 10_000,
        0,
        -1,
        10,
        EARLIEST - 1,
        NOW + MAX_AHEAD + 1,
        (NOW + MAX_AHEAD + 1) * 1000,
        int(NOON) * 1_000_000,
        int(NOON) * 1_000_000_000,
        99_999_999_999,
        2**64 - 1,
        1e300,
        -1e300,
        True,
        False,
        [],
        [NOON],
        {"seconds": NOON},
    ],
    ids=lambda said: str(said)[:30],
)
def test_absurd_times(said: object) -> None:
    """A time that cannot be is refused, also where none is needed."""
    for needs_time in (True, False):
        assert (
            refusal(TELEMETRY, {"a": 1, "timestamp": said}, needs_time=needs_time)
            is Reason.TIME_ABSURD
        )


@pytest.mark.parametrize(
    ("kind", "part", "said"),
    [
        (STATUS, "", {"status": "online"}),
        (STATUS, "", {"status": "Running"}),
        (STATUS, "", {"status": True}),
        (TELEMETRY, "", {"a": 1}),
        (TELEMETRY, "a", {"value": 1}),
        (RELAY, "0", {"state": True}),
        (INTERACTION, "", {"event": "tap"}),
        (SYSTEM, "boot", {}),
    ],
)
def test_time_missing(kind: MessageKind, part: str, said: dict[str, Any]) -> None:
    """A message has a time, where the user says that they all have."""
    for without in (said, {**said, "timestamp": None}, {**said, "time": NOON}):
        assert refusal(kind, without, part, needs_time=True) is Reason.TIME_MISSING
        assert understood(kind, without, part).time is None
    message = understood(kind, {**said, "timestamp": NOON}, part, needs_time=True)
    assert message.time == NOON


@pytest.mark.parametrize(
    ("kind", "part", "payload"),
    [
        *(
            (STATUS, "", json.dumps({"status": word}).encode())
            for word in sorted(OFFLINE_WORDS)
        ),
        (STATUS, "", b'{"device_id": "ESP32_001", "status": " OFFLINE "}'),
        (STATUS, "", b'{"status": "\\u0000offline"}'),
        (STATUS, "", b'{"status": false}'),
        (STATUS, "", b"offline"),
        (STATUS, "", b" Online\n"),
        (TELEMETRY, "temperature", b"21.5"),
        (TELEMETRY, "temperature", b'"warm"'),
        (TELEMETRY, "temperature", b"true"),
    ],
)
def test_time_not_needed(kind: MessageKind, part: str, payload: bytes) -> None:
    """A will cannot tell a time, nor can a plain word or a plain value."""
    assert understood(kind, payload, part, needs_time=True).time is None


# --- what the kinds say -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "online", "status"),
    [
        ("online", True, "online"),
        ("Running", True, "Running"),
        (" ok ", True, "ok"),
        ("offline", False, "offline"),
        ("OFFLINE", False, "OFFLINE"),
        (" Disconnected ", False, "Disconnected"),
        ("not offline", True, "not offline"),
        ("off\0line\n", False, "offline"),
        ("\u202eready", True, "ready"),
        (True, True, "online"),
        (False, False, "offline"),
        ("x" * 1000, True, "x" * MAX_TEXT),
    ],
    ids=lambda said: str(said)[:20],
)
def test_status(said: object, online: bool, status: str) -> None:
    """A status is any word; some mean that the device is not there."""
    found = understood(STATUS, {"status": said})
    assert (found.online, found.status) == (online, status)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1.2.0", "1.2.0"),
        (12, "12"),
        (1.5, "1.5"),
        ("  1.2\n\0 ", "1.2"),
        ("\u202e1.2", "1.2"),
        ("x" * 1000, "x" * MAX_TEXT),
        ("", None),
        (" \n", None),
        (None, None),
        (True, None),
        (["1.2"], None),
        ({}, None),
    ],
    ids=lambda said: str(said)[:20],
)
def test_texts(said: object, expected: str | None) -> None:
    """What a device tells of itself can be shown, or is not there."""
    status = {"status": "online", "ip_address": said, "firmware_version": said}
    found = understood(STATUS, status)
    assert (found.ip, found.firmware, found.values) == (expected, expected, {})
    relay = {"state": True, "triggered_by": said}
    assert understood(RELAY, relay, "0").triggered_by == expected


def test_values_of_a_status() -> None:
    """A status can say more than what it is for."""
    said = {"status": "online", "rssi": -60, "heap": {"free": 1000}}
    assert understood(STATUS, said).values == {"rssi": -60, "heap_free": 1000}


@pytest.mark.parametrize("kind", [INTERACTION, SYSTEM])
@pytest.mark.parametrize(
    ("part", "said", "event", "values"),
    [
        ("", {"event": "Tap"}, "tap", {}),
        ("", {"action": "doubleTap", "x": 5}, "double_tap", {"x": 5}),
        ("", {"type": "a", "interaction": "b"}, "a", {"interaction": "b"}),
        ("", {"interaction": "Swipe left"}, "swipe_left", {}),
        ("", {"event": "", "action": None, "type": "x"}, "x", {}),
        ("", {"event": ["a"], "action": 5}, "5", {}),
        ("", {"event": "🦊"}, "value", {}),
        ("", {"event": "x" * 99}, "x" * MAX_NAME, {}),
        ("", {"x": 5}, None, {"x": 5}),
        ("", {}, None, {}),
        ("Boot", {"event": "x"}, "boot", {"event": "x"}),
        ("heap/low", {"free": {"now": 1}}, "heap_low", {"free_now": 1}),
    ],
)
def test_events(
    kind: MessageKind,
    part: str,
    said: dict[str, Any],
    event: str | None,
    values: dict[str, Any],
) -> None:
    """An event is what the topic calls it, else the payload, else just one of its kind."""
    found = understood(kind, said, part)
    assert (found.event, found.values) == (event or kind.value, values)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *((word, True) for word in ("on", "ON", " On ", "true", "True", "1")),
        *((word, True) for word in ("closed", "active", True, 1)),
        *((word, False) for word in ("off", "OFF", "false", "0", "open", "inactive")),
        *((word, False) for word in (False, 0)),
    ],
)
def test_relays(said: object, expected: bool) -> None:
    """A relay is on or off, in whatever way it says so."""
    assert understood(RELAY, {"state": said}, "0").state is expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"21.5", {"water_temp": 21.5}),
        (b"0", {"water_temp": 0}),
        (b"true", {"water_temp": True}),
        (b'"warm"', {"water_temp": "warm"}),
        (b'{"value": 21.5}', {"water_temp": 21.5}),
        (b'{"value": 21.5, "unit": "C"}', {"water_temp": 21.5}),
        (b'{"value": [1, 2]}', {"water_temp_1": 1, "water_temp_2": 2}),
        (b'{"value": {"in": 1}}', {"water_temp_in": 1}),
    ],
)
def test_one_value(payload: bytes, expected: dict[str, Any]) -> None:
    """A value that has a topic of its own is called as that says."""
    assert understood(TELEMETRY, payload, "waterTemp").values == expected


# --- values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"a": 1, "b": 1.5, "c": True, "d": "x"},
            {"a": 1, "b": 1.5, "c": True, "d": "x"},
        ),
        ({"a": None}, {}),
        ({"waterTemp": 1}, {"water_temp": 1}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a_b_c": 1, "a_b_d": 2}),
        ({"a": [1, 2]}, {"a_1": 1, "a_2": 2}),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a_1_b": 1, "a_2_b": 2}),
        ({"a": [None, 2]}, {"a_2": 2}),
        ({"a": {}, "b": []}, {}),
        ({"a": "x" * 1000}, {"a": "x" * MAX_TEXT}),
        ({"a": "\0", "b": "x\0\ny"}, {"a": "", "b": "x\ny"}),
        ({"": 1}, {"value": 1}),
        ({"a": {"b": 1}, "a_b": 2}, {"a_b": 2}),
        ({"a" * 60: {"b" * 60: 1}}, {"a" * 60 + "_" + "b" * 3: 1}),
    ],
)
def test_values(said: dict[str, Any], expected: dict[str, Any]) -> None:
    """Values go by their names; what is within something has both names."""
    found = understood(SYSTEM, said, "x").values
    assert found == expected
    assert [*map(type, found.values())] == [*map(type, expected.values())]


def test_duplicate_keys() -> None:
    """What is said twice is what was said last."""
    said = b'{"a": 1, "a": 2, "device_id": "other", "device_id": "ESP32_001"}'
    assert understood(TELEMETRY, said).values == {"a": 2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("temperature", "temperature"),
        ("Temperature", "temperature"),
        ("TEMPERATURE", "temperature"),
        ("waterTemp", "water_temp"),
        ("waterTemp2Max", "water_temp2_max"),
        ("wifiRSSI", "wifi_rssi"),
        ("RSSIWifi", "rssiwifi"),
        ("water temp", "water_temp"),
        ("water-temp.1", "water_temp_1"),
        ("__a__b__", "a_b"),
        ("Küche", "k_che"),
        ("İ", "i"),
        ("温度", "value"),
        ("", "value"),
        ("_", "value"),
        ("\0", "value"),
        ("a" * 65, "a" * 64),
        ("a" * 5000, "a" * 64),
        ("_" * 5000 + "a", "value"),
        ("aB" * 5000, ("a_b" * 22)[:64]),
    ],
    ids=lambda name: name[:20],
)
def test_snake(name: str, expected: str) -> None:
    """Names are in snake case, of ASCII letters and digits; again from what is remembered."""
    assert snake(name) == expected
    assert snake(name) == expected


def test_few_names_are_remembered() -> None:
    """Names without end take no memory without end."""
    for number in range(3 * messages._MAX_KNOWN):
        assert snake(f"Name {number}") == f"name_{number}"
    assert len(messages._KNOWN) <= messages._MAX_KNOWN


def test_a_local_time_is_what_it_says() -> None:
    """Time zones of all kinds are reckoned with."""
    for hours in (-12, -3.5, 0, 5.75, 14):
        zone = timezone(timedelta(hours=hours))
        said = datetime.fromtimestamp(NOON, zone).isoformat()
        message = understood(TELEMETRY, {"a": 1, "timestamp": said})
        assert message.time == NOON
