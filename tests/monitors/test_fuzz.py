"""Whatever is said: nothing raises, what was valid is there, and memory has bounds."""

from collections import Counter
from dataclasses import dataclass, field
import json
import logging
import math
import random
import re
from typing import Any

from homeassistant.helpers import device_registry as dr, entity_registry as er
from hypothesis import HealthCheck, example, given, settings, strategies as st
import orjson
import pytest

from custom_components.ble_bridge.monitors.dead_letters import MAX_LETTERS
from custom_components.ble_bridge.monitors.device import (
    MAX_FIELDS,
    MAX_RELAYS,
    MonitoredDevice,
    Watching,
)
from custom_components.ble_bridge.monitors.messages import (
    EARLIEST,
    MAX_AHEAD,
    MAX_ID,
    MAX_NAME,
    MAX_NUMBER,
    MAX_TEXT,
    MAX_TOPIC,
    MAX_VALUES,
    Message,
    Reason,
    RejectedError,
    is_valid_id,
    parse,
)
from custom_components.ble_bridge.monitors.patterns import MessageKind, Route
from custom_components.ble_bridge.monitors.presets import DIALECTS, Preset

from ..conftest import wait_until
from .garage import Garage, moment

NOW = 1_790_000_000.0
KEYS = (
    *("device_id", "scanner_id", "timestamp", "status", "ip_address", "value"),
    *("firmware_version", "uptime", "uptime_seconds", "relay_index", "state"),
    *("triggered_by", "event", "action", "type", "metrics", "temperature", "door"),
)
TEXTS = (
    *("online", "offline", "on", "off", "d", "0", "", "\0", "\ud800", "🦊"),
    *("2026-09-21T12:00:00Z", "0001-01-01", "9999-12-31T23:59:59-23:59", "x" * 300),
)
NUMBERS = (
    *(0, 1, -1, 2**53, 2**63, 2**63 + 1, 2**64, -(2**64), 10**30, 10**400),
    *(NOW, NOW * 1000, EARLIEST, 1e11, 1e-320, 1e308, -1e308),
    *(math.inf, -math.inf, math.nan),
)

# --- payloads ---------------------------------------------------------------------------


def mostly[T](usual: st.SearchStrategy[T], other: st.SearchStrategy[Any]) -> Any:
    """Return what draws one thing four times out of five."""
    return st.sampled_from([usual] * 4 + [other]).flatmap(lambda chosen: chosen)


texts = st.sampled_from(TEXTS) | st.text(st.characters(), max_size=9)
keys = st.sampled_from(KEYS) | texts
scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.floats()
    | texts
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.fixed_dictionaries(
    {
        "device_id": mostly(st.just("d"), scalars),
        "timestamp": mostly(st.just(NOW), scalars),
        "status": mostly(st.sampled_from(["online", "offline"]), anything),
        "state": mostly(st.booleans(), scalars),
    },
    optional={
        "uptime": mostly(st.integers(0, 2**64), anything),
        "relay_index": mostly(st.sampled_from([0, "0"]), scalars),
        "event": texts,
        "value": anything,
        "temperature": st.floats(-40, 90),
        "more": anything,
    },
)
documents = st.builds(
    lambda said, ascii_only: json.dumps(said, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    ),
    mostly(objects, anything),
    st.booleans(),
)
pairs = st.tuples(keys.map(json.dumps), scalars.map(json.dumps))


def repeated(said: list[tuple[str, str]]) -> bytes:
    """Return an object in which names can stand more than once."""
    return f"{{{','.join(':'.join(pair) for pair in said)}}}".encode()


def deep(depth: int, opening: str, inner: bytes) -> bytes:
    """Return something within so many objects or lists."""
    closing = "}" if opening.startswith("{") else "]"
    return opening.encode() * depth + inner + closing.encode() * depth


def broken(document: bytes, place: int, other: bytes) -> bytes:
    """Return a document in which something else stands at a place."""
    place %= len(document) + 1
    return document[:place] + other + document[place + len(other) :]


others = st.one_of(
    st.binary(max_size=40),
    st.builds(repeated, st.lists(pairs, max_size=8)),
    st.builds(
        deep,
        st.integers(0, 8) | st.integers(1000, 1100),
        st.sampled_from(['{"a":', "[", '{"status":"online","a":']),
        documents,
    ),
    st.builds(broken, documents, st.integers(0), st.binary(max_size=3)),
    st.builds(bytes.__getitem__, documents, st.builds(slice, st.integers(0, 60))),
    st.sampled_from([b"online", b" OFFLINE\n", b"\xef\xbb\xbf{}", b"{}" * 2]),
    st.integers(1, 500).map(lambda digits: b'{"a":%b}' % (b"9" * digits)),
    st.integers(1, 400).map(lambda count: json.dumps([0] * count).encode()),
    st.integers(1, 400).map(
        lambda count: json.dumps({f"a{n}": n for n in range(count)}).encode()
    ),
)
payloads = mostly(documents, others)
routes = st.builds(
    Route,
    st.sampled_from(MessageKind),
    mostly(st.just("d"), st.text(st.characters(), max_size=MAX_ID + 2)),
    st.sampled_from(["", "0", "temperature", "x" * 70]) | texts,
    st.sampled_from(["", "Scanner"]),
)


def understood(
    route: Route, payload: bytes, preset: Preset, needs_time: bool
) -> Message | None:
    """Return a message that holds no more than it may, or None if it is none."""
    try:
        message = parse(route, payload, NOW, DIALECTS[preset], needs_time=needs_time)
    except RejectedError:
        return None
    check(message, route)
    return message


def check(message: Message, route: Route) -> None:
    """Look at everything that a message holds."""
    kind = message.kind
    assert kind is route.kind
    assert is_valid_id(route.device)
    assert message.time is None or EARLIEST <= message.time <= NOW + MAX_AHEAD
    assert len(message.values) <= MAX_VALUES
    for name, value in message.values.items():
        assert is_name(name)
        if isinstance(value, str):
            assert len(value) <= MAX_TEXT
            assert "\0" not in value
            assert value.encode().decode() == value
        else:
            assert isinstance(value, bool | int | float)
            assert abs(value) <= MAX_NUMBER
    for text in (message.status, message.ip, message.firmware, message.triggered_by):
        assert text is None or (text.isprintable() and 0 < len(text) <= MAX_TEXT)
    assert message.uptime is None or 0 <= message.uptime <= MAX_NUMBER
    is_status, is_relay = kind is MessageKind.STATUS, kind is MessageKind.RELAY
    assert (message.online is not None) == (message.status is not None) == is_status
    assert (message.relay is not None) == (message.state is not None) == is_relay
    assert message.relay is None or is_valid_id(message.relay)
    is_event = kind in (MessageKind.INTERACTION, MessageKind.SYSTEM)
    assert (message.event is not None) == is_event
    assert message.event is None or is_name(message.event)
    assert message.values or kind is not MessageKind.TELEMETRY


def is_name(text: str) -> bool:
    """Tell whether something is a name in snake case."""
    return re.fullmatch("[a-z0-9_]+", text) is not None and len(text) <= MAX_NAME


presets = st.sampled_from(Preset)


@settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(routes, payloads, presets, st.booleans())
@example(Route(MessageKind.STATUS, "d", ""), b"", Preset.OWN, False)
@example(Route(MessageKind.STATUS, "d", ""), b'{"status":' * 5000, Preset.OWN, False)
def test_any_payload(
    route: Route, payload: bytes, preset: Preset, needs_time: bool
) -> None:
    """Any payload is a message of which all is in bounds, or is refused with a reason."""
    understood(route, payload, preset, needs_time)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.builds(Route, st.sampled_from(MessageKind), st.just("d"), texts),
            payloads,
            st.booleans(),
            st.floats(-1e6, 1e6),
        ),
        max_size=30,
    )
)
def test_any_messages(said: list[tuple[Route, bytes, bool, float]]) -> None:
    """A device takes any messages in any order, and is the same after a restart."""
    how = Watching(timeout=60, average=3, deviations=2, window=5)
    known = MonitoredDevice("d", "", "d", how)
    for route, payload, retained, after in said:
        message = understood(route, payload, Preset.OWN, False)
        if message is not None:
            news = known.take(message, NOW + after, retained=retained)
            assert {*news.new} <= {*known.keys, "firmware"}
            for name in known.kinds:
                known.want_average(name)
        known.check(NOW + after, NOW)
    assert len(known.kinds) <= MAX_FIELDS
    assert len(known.relays) <= MAX_RELAYS
    assert {*known.values} == {*known.kinds} == {*known.averaged}
    assert {*known.watches} <= {*known.kinds}
    assert all(len(last) <= 3 for last in known.averaged.values())
    for name in known.kinds:
        average = known.average(name)
        assert average is None or abs(average) <= MAX_NUMBER
    state = orjson.dumps(known.state())
    assert len(state) < 500_000
    again = MonitoredDevice("d", "", "d", how)
    again.restore(orjson.loads(state))
    assert again.state() == known.state()
    assert {*again.keys} == {*known.keys}


# --- a garage ---------------------------------------------------------------------------

LIMIT = 30
KILOBYTES = 64
MESSAGES = 4000
CHUNK = 250
# IDs that are as odd as can be; the last one is as long as can be.
ODD = ("two words", "🦊", "Küche", "'\"\\<b>", "a$b", "{name}%s", "x" * MAX_ID)
DEVICES = (*ODD, *(f"ESP32_{number:03}" for number in range(LIMIT - len(ODD))))
STRANGERS = tuple(f"flood_{number}" for number in range(400))
HIDDEN = ("", " ", "a\u200bb", "x" * (MAX_ID + 1), "🦊" * 200, "y" * 30_000)
# What is an IP address, what begins like one, and what is none.
ADDRESSES = (
    *("192.168.1.7", "::1", "fe80::1%eth0", "fe80::1%]", "fe80::1%@host", "[::1"),
    *("1.2.3.4/../", "javascript:alert(1)", "999.1.1.1", "", None, 7, {"a": 1}),
)
RELAYS = ("0", "1", "pump 🦊", "{index}", "%s", "r" * MAX_ID)


@dataclass
class Fleet:
    """Controllers that say what is valid and what is not, and what becomes of it."""

    random: random.Random
    processed: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter)
    letters: list[tuple[str, Reason]] = field(default_factory=list)
    shown: dict[str, dict[str, str]] = field(default_factory=dict)

    def next(self) -> tuple[str, bytes]:
        """Return the next message: its topic, and its payload."""
        say = self.random.choices(
            (self._valid, self._flood, self._invalid, self._ignored),
            (60, 10, 28, 2),
        )[0]
        return say()

    @property
    def judged(self) -> int:
        """Return how many messages are to be counted by now."""
        return self.processed + self.rejected.total()

    # --- valid --------------------------------------------------------------------------

    def _valid(self) -> tuple[str, bytes]:
        """Say something of a device that there is room for."""
        return self._say(self.random.choice(DEVICES))

    def _flood(self) -> tuple[str, bytes]:
        """Say something of a device that there is no room for, once there are enough."""
        if len(self.shown) < LIMIT:
            return self._valid()
        return self._say(self.random.choice(STRANGERS))

    def _say(self, device: str) -> tuple[str, bytes]:
        """Say something valid; see what is to be shown of it."""
        kind = self.random.choice(
            (self._status, self._word, self._telemetry, self._relay, self._event)
        )
        levels, payload, shown = kind(device)
        topic = f"autocore/{device}/{levels}"
        if device in self.shown or len(self.shown) < LIMIT:
            self.processed += 1
            self.shown.setdefault(device, {}).update(shown)
        else:
            self._reject(topic, Reason.TOO_MANY_DEVICES)
        if isinstance(payload, bytes):
            return topic, payload
        if self.random.random() < 0.02:  # As large as can be
            text = orjson.dumps(payload)
            return topic, text + b" " * (KILOBYTES * 1024 - len(text))
        return topic, orjson.dumps(payload)

    def _timed(self, device: str, **said: Any) -> dict[str, Any]:
        """Return an object with an ID, perhaps, and a time."""
        names = {"device_id": device} if self.random.random() < 0.8 else {}
        seconds = self.random.uniform(-1000, 1000)
        time = self.random.choice((moment(seconds), 1738060200, 1738060200250))
        return {**names, **said, "timestamp": time}

    def _status(self, device: str) -> tuple[str, Any, dict[str, str]]:
        word = self.random.choice(("online", "busy", "OFFLINE"))
        said = self._timed(device, status=word, uptime=self.random.randrange(10**6))
        if word == "OFFLINE":
            del said["timestamp"]
        said["ip_address"] = self.random.choice(ADDRESSES)
        said["firmware_version"] = self.random.choice(
            ("1.2.0", "\0", "🌙" * 99, 5, [1])
        )
        online = "off" if word == "OFFLINE" else "on"
        return "status", said, {"online": online, "status": word}

    def _word(self, device: str) -> tuple[str, bytes, dict[str, str]]:
        word, online = self.random.choice((("online", "on"), ("offline", "off")))
        return (
            "status",
            f" {word.upper()}\n".encode(),
            {"online": online, "status": word},
        )

    def _telemetry(self, device: str) -> tuple[str, Any, dict[str, str]]:
        number = self.random.choice((self.random.randrange(99), 21.5, -0.25, 2**63))
        text = self.random.choice(("eco", "night 🌙", "x" * 300))
        flag = self.random.random() < 0.5
        said: dict[str, Any] = {
            "temperature": number,
            "pumpMode": text,
            "door": flag,
            "wifi": {"rssi": -number if number != 2**63 else -1},
            "cells": [number, {"v": 3.3}],
        }
        shown = {
            "temperature": str(number),
            "pump_mode": text[:MAX_TEXT],
            "door": "on" if flag else "off",
            "wifi_rssi": str(said["wifi"]["rssi"]),
            "cells_1": str(number),
            "cells_2_v": "3.3",
        }
        left_out = self.random.choice(("temperature", "door", "wifi"))
        del said[left_out]
        return (
            "telemetry",
            self._timed(device, **said),
            {
                "online": "on",
                **{
                    f"field!{name}": value
                    for name, value in shown.items()
                    if not name.startswith(left_out)
                },
            },
        )

    def _relay(self, device: str) -> tuple[str, Any, dict[str, str]]:
        index = self.random.choice(RELAYS)
        said, shown = self.random.choice(
            ((True, "on"), ("ON", "on"), (1, "on"), (False, "off"), ("open", "off"))
        )
        message = self._timed(device, state=said, triggered_by="manual")
        return (
            f"relay/{index}/status",
            message | self.random.choice(({}, {"relay_index": index})),
            {"online": "on", f"relay!{index}": shown},
        )

    def _event(self, device: str) -> tuple[str, Any, dict[str, str]]:
        levels = self.random.choice(
            ("display/interaction", "system/boot", f"system/{'z' * 300}", "system/")
        )
        said = self._timed(device, action="Tap", icon="x", a={"b": [1, "\0", None]})
        return levels, said, {"online": "on"}

    # --- not valid ----------------------------------------------------------------------

    def _reject(self, topic: str, reason: Reason) -> None:
        """Take note that a message is to be refused."""
        self.rejected[reason] += 1
        self.letters.append((topic, reason))

    def _ignored(self) -> tuple[str, bytes]:
        """Say what no monitor counts."""
        device = self.random.choice(DEVICES)
        return self.random.choice(
            (
                (f"autocore/{device}/status", b""),
                (f"autocore/{device}/system/boot", b""),
                (f"autocore/{device}", b"{}"),
                (f"autocore/{device}/status/more", b"{}"),
                (f"autocore/{device}/Telemetry", b"{}"),
                (f"garage/{device}/status", b"{}"),
                ("autocore/" + "z" * 30_000, b"{}"),
            )
        )

    def _invalid(self) -> tuple[str, bytes]:
        """Say what cannot be understood."""
        device = self.random.choice((*DEVICES, *STRANGERS))
        reason = self.random.choice(
            [reason for reason in Reason if reason is not Reason.TOO_MANY_DEVICES]
        )
        if reason is Reason.INVALID_ID:
            device = self.random.choice(HIDDEN)
        levels, payload = self.random.choice(self._wrong(reason))
        topic = f"autocore/{device}/{levels}"
        self._reject(topic, reason)
        return topic, payload if isinstance(payload, bytes) else orjson.dumps(payload)

    def _wrong(self, reason: Reason) -> tuple[tuple[str, Any], ...]:
        """Return messages that are refused for a reason."""
        time = {"timestamp": moment()}
        random_bytes = b"\xff" + self.random.randbytes(self.random.randrange(200))
        return {
            Reason.NOT_JSON: (
                ("status", b"onlin"),
                ("telemetry", b'{"a": 1'),
                ("telemetry", b'{"a": "\xc3\x28"}'),
                ("relay/0/status", b'{"state": NaN}'),
                ("display/interaction", rb'{"event": "\ud800"}'),
                ("system/boot", random_bytes),
            ),
            Reason.NOT_AN_OBJECT: (
                ("status", [time]),
                ("telemetry", 21.5),
                ("relay/0/status", True),
                ("display/interaction", "tap"),
                ("system/boot", None),
            ),
            Reason.INCOMPLETE: (
                ("status", {**time}),
                ("status", {**time, "status": 5}),
                ("telemetry", {**time}),
                ("telemetry", {**time, "a": None, "b": [{}]}),
                ("relay/0/status", {**time, "state": "maybe"}),
                ("relay/0/status", {**time, "relay_index": 0}),
                ("relay//status", {**time, "state": True}),
            ),
            Reason.INVALID_ID: (
                ("status", b"online"),
                ("telemetry", b"{"),
                ("system/boot", {**time}),
            ),
            Reason.ID_MISMATCH: (
                ("status", {**time, "device_id": "?", "status": "online"}),
                ("telemetry", {**time, "device_id": 5, "a": 1}),
                ("telemetry", b'{"device_id": "a", "device_id": [], "a": 1}'),
                ("relay/0/status", {**time, "relay_index": 1, "state": True}),
                ("system/boot", {**time, "device_id": False}),
            ),
            Reason.TIME_MISSING: (
                ("status", {"status": "online"}),
                ("telemetry", {"a": 1, "timestamp": None}),
                ("relay/0/status", {"state": True}),
                ("system/boot", {}),
            ),
            Reason.TIME_ABSURD: (
                ("status", {"status": "offline", "timestamp": "never"}),
                ("telemetry", {"a": 1, "timestamp": 5}),
                ("telemetry", {"a": 1, "timestamp": moment(200_000)}),
                ("relay/0/status", {"state": True, "timestamp": "1970-01-01"}),
                ("system/boot", {"timestamp": True}),
            ),
            Reason.NUMBER_TOO_LARGE: (
                ("status", {**time, "status": "online", "uptime": 1e30}),
                ("telemetry", {**time, "a": -1e300}),
                ("telemetry", b'{"a": 1e999}'),
                ("system/boot", b'{"a": %b}' % (b"9" * 500)),
            ),
            Reason.TOO_LARGE: (
                ("status", b"x" * (KILOBYTES * 1024 + 1)),
                ("telemetry", b'{"a": "' + b"\0" * 1_000_000),
                ("system/boot", b"[" * 1_000_000),
                ("system/boot", b" " * 70_000 + orjson.dumps(time)),
            ),
            Reason.TOO_DEEP: (
                (
                    "telemetry",
                    b'{"timestamp": 1738060200, "a": %b}' % deep(9, "[", b""),
                ),
                ("system/boot", deep(1100, '{"a":', b"1")),
                ("status", b"[" * 20_000),
            ),
            Reason.TOO_MANY_VALUES: (
                ("telemetry", {**time, "a": [0] * 20_000}),
                ("system/boot", {**time, "a": [[]] * 15_000}),
                ("status", {**time, "status": "x", "a": [None] * 10_000}),
                ("telemetry", {**time, **{f"{n}": n for n in range(257)}}),
            ),
        }[reason]


async def test_fleet(garage: Garage, caplog: pytest.LogCaptureFixture) -> None:
    """In a flood of all that can be wrong, all that is valid is shown."""
    await garage.start(
        {
            "max_devices": LIMIT,
            "max_kilobytes": KILOBYTES,
            "dead_letter_topic": "dead",
            "anomalies": True,
            "critical_relays": ["*/0"],
        }
    )
    monitor = garage.monitor
    fleet = Fleet(random.Random(7))
    for number in range(1, MESSAGES + 1):
        await garage.say(*fleet.next(), qos=1)
        if number % CHUNK == 0:
            await wait_until(lambda: garage.judged >= fleet.judged, 120)
            await garage.hass.async_block_till_done()
    assert not [
        record
        for record in caplog.records
        if record.exc_info or record.levelno >= logging.ERROR
    ]
    assert (monitor.processed, monitor.overflow) == (fleet.processed, 0)
    assert monitor.dead_letters.counts == fleet.rejected
    assert {*fleet.rejected} == {*Reason}
    # What is too large is known at once, and comes before what waits to be read
    newest = fleet.letters[-MAX_LETTERS - CHUNK :]
    assert len(monitor.dead_letters) == MAX_LETTERS
    assert {
        (letter.topic.removesuffix("…"), letter.reason)
        for letter in monitor.dead_letters
    } <= {(topic[:MAX_TOPIC], reason) for topic, reason in newest}

    assert {*monitor.devices} == {*fleet.shown} == {*DEVICES}
    shown = {
        device: {key: garage.value(key, device) for key in expected}
        for device, expected in fleet.shown.items()
    }
    assert shown == fleet.shown

    assert (monitor.queued, monitor._queued_bytes) == (0, 0)
    assert max(map(len, monitor._routes)) <= MAX_TOPIC
    devices = dr.async_entries_for_config_entry(
        dr.async_get(garage.hass), garage.entry.entry_id
    )
    watched = [
        device for device in devices if device.via_device_id == monitor.device_id
    ]
    assert {device.name for device in watched} == {*DEVICES}
    entities = er.async_entries_for_config_entry(
        er.async_get(garage.hass), garage.entry.entry_id
    )
    assert len(entities) < 60 * LIMIT
