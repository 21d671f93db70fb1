"""What is known of one device, and what each message changes of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
import json
from typing import Any

import pytest

from custom_components.ble_bridge.alerts import Change
from custom_components.ble_bridge.decoders.fields import Kind
from custom_components.ble_bridge.monitors.device import (
    ANOMALY,
    FIRMWARE,
    IP_ADDRESS,
    MAX_FIELDS,
    MAX_RELAYS,
    ONLINE,
    SEEN,
    STARTED,
    STATUS,
    MonitoredDevice,
    News,
    Watching,
    average_key,
    field_key,
    relay_key,
)
from custom_components.ble_bridge.monitors.messages import Message
from custom_components.ble_bridge.monitors.patterns import MessageKind
from custom_components.ble_bridge.records import Value

NOW = 1_790_000_000.0
WATCHED = Watching(timeout=300, average=3, deviations=3, window=20)
# Values that hardly change, and one that is far from them.
STEADY = [20.0, 20.1, 19.9, 20.0, 20.1, 19.9, 20.0, 20.1, 19.9, 20.0]
FAR = 35.0


def device(how: Watching | None = None) -> MonitoredDevice:
    """Return a device that has said nothing yet."""
    return MonitoredDevice("ESP32_001", "", "ESP32_001", how or Watching())


def status(**said: Any) -> Message:
    """Return a status."""
    return Message(
        **{
            "kind": MessageKind.STATUS,
            "time": NOW,
            "values": {},
            "online": True,
            "status": "online",
            **said,
        }
    )


def telemetry(**values: Value) -> Message:
    """Return values."""
    return Message(kind=MessageKind.TELEMETRY, time=NOW, values=values)


def relay(name: str, state: bool, triggered_by: str | None = None) -> Message:
    """Return the state of a relay."""
    return Message(
        kind=MessageKind.RELAY,
        time=NOW,
        values={},
        relay=name,
        state=state,
        triggered_by=triggered_by,
    )


def happening(kind: MessageKind, event: str, **values: Value) -> Message:
    """Return something that happened."""
    return Message(kind=kind, time=NOW, values=values, event=event)


def take(
    known: MonitoredDevice,
    message: Message,
    after: float = 0,
    *,
    retained: bool = False,
) -> News:
    """Have a device take a message, so many seconds from now."""
    return known.take(message, NOW + after, retained=retained)


def restarted(known: MonitoredDevice, how: Watching | None = None) -> MonitoredDevice:
    """Return the device as it is after a restart."""
    again = MonitoredDevice(known.key, known.owner, known.device_id, how or known._how)
    again.restore(json.loads(json.dumps(known.state(), allow_nan=False)))
    return again


# --- status -----------------------------------------------------------------------------


def test_status() -> None:
    """A status tells what the device is; what is new of it can be shown from now on."""
    known = device()
    assert known.name == "ESP32_001"
    assert [*known.keys] == []
    said = status(ip="192.168.1.100", firmware="1.2.0", uptime=3600)
    news = take(known, said)
    everything = [SEEN, ONLINE, STATUS, IP_ADDRESS, FIRMWARE, STARTED]
    assert news == News(new=everything[1:], changed=everything)
    assert (known.online, known.status, known.ip) == (True, "online", "192.168.1.100")
    assert (known.firmware, known.started, known.heard) == ("1.2.0", NOW - 3600, NOW)
    assert [*known.keys] == [ONLINE, STATUS, STARTED, IP_ADDRESS]
    assert take(known, replace(said, uptime=3601), 1) == News()
    assert take(known, status(status="busy"), 2).changed == [STATUS]
    assert (known.ip, known.firmware) == ("192.168.1.100", "1.2.0")
    assert take(known, status(firmware="1.3"), 3).changed == [STATUS, FIRMWARE]
    gone = take(known, status(online=False, status="offline"), 4)
    assert gone == News(changed=[ONLINE, STATUS])
    assert known.online is False


def test_values_of_a_status() -> None:
    """What a status says beside is values."""
    news = take(device(), status(values={"rssi": -60}))
    assert news.new == [ONLINE, STATUS, field_key("rssi")]


@pytest.mark.parametrize(
    ("uptime", "after", "started"),
    [
        (3660, 60, NOW - 3600),
        (3601, 60, NOW - 3600),
        (3599, 60, NOW - 3539),
        (5, 7200, NOW + 7195),
        (None, 7200, NOW - 3600),
    ],
)
def test_started(uptime: float | None, after: float, started: float) -> None:
    """A device runs since it was started, give or take what messages take."""
    known = device()
    take(known, status(uptime=3600))
    news = take(known, status(uptime=uptime), after)
    assert known.started == started
    assert (STARTED in news.changed) is (started != NOW - 3600)


@pytest.mark.parametrize("uptime", [NOW, NOW + 1, 2.0**63, 2**63])
def test_started_before_there_was_time(uptime: float) -> None:
    """An uptime of more than fifty years is none."""
    known = device()
    take(known, status(uptime=uptime))
    assert known.started is None
    assert take(known, status(uptime=NOW - 1)).changed == [STARTED]
    assert known.started == 1


# --- whether it is there ----------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        telemetry(a=1),
        relay("0", True),
        happening(MessageKind.SYSTEM, "boot"),
        happening(MessageKind.INTERACTION, "tap"),
    ],
    ids=lambda message: message.kind,
)
def test_whoever_speaks_is_there(message: Message) -> None:
    """Any message is a sign of life, unless the broker had kept it."""
    known = device()
    assert ONLINE not in take(known, message, retained=True).changed
    assert ONLINE in take(known, message).new
    assert known.online
    take(known, status(online=False))
    assert ONLINE in take(known, message).changed
    assert known.online


def test_seen() -> None:
    """When a device was heard is told once a minute, and known exactly."""
    known = device()
    told = [
        second
        for second in range(0, 200, 7)
        if SEEN in take(known, telemetry(a=1), second).changed
    ]
    assert told == [0, 63, 126, 189]
    assert known.heard == NOW + 196


def test_silence() -> None:
    """A device from which nothing comes is gone, once, and back with its first word."""
    known = device()
    assert not known.check(NOW, NOW)
    take(known, status())
    assert not known.check(NOW + 300, NOW)
    assert known.check(NOW + 301, NOW)
    assert known.online is False
    assert not known.check(NOW + 302, NOW)
    assert ONLINE in take(known, telemetry(a=1), 400).changed
    take(known, status(online=False), 401)
    assert not known.check(NOW + 1000, NOW)


def test_silence_of_the_broker() -> None:
    """While nobody can be heard nobody is silent."""
    known = device(Watching(timeout=60))
    take(known, status())
    assert not known.check(NOW + 1060, NOW + 1000)
    assert known.check(NOW + 1061, NOW + 1000)


def test_silence_allowed() -> None:
    """Who may say nothing for ever is there until something else is said."""
    known = device(Watching(timeout=0))
    take(known, status(time=NOW - 1_000_000), retained=True)
    assert (known.online, known.check(NOW + 1e9, NOW)) == (True, False)
    take(known, status(time=None, online=False), 1)
    assert known.online is False
    # What the broker had kept was said before that
    take(known, status(time=NOW), 2, retained=True)
    assert known.online is False


def test_retained() -> None:
    """What the broker had kept tells what was, when it was, and that nothing happens."""
    known = device()
    take(known, status(time=NOW - 100, uptime=50), retained=True)
    assert (known.online, known.heard, known.started) == (True, NOW - 100, NOW - 150)
    take(known, telemetry(a=1), retained=True)
    take(known, relay("0", True), retained=True)
    news = take(known, happening(MessageKind.SYSTEM, "boot"), retained=True)
    assert (news.new, news.happening) == (["system"], None)
    assert (known.values, known.relays["0"].state) == ({"a": 1}, True)
    take(known, status(time=NOW - 5000), retained=True)
    assert known.heard == NOW
    untimed = device()
    take(untimed, status(time=None, uptime=50), retained=True)
    assert (untimed.online, untimed.heard, untimed.started) == (True, 0, None)


def test_retained_from_the_future() -> None:
    """Where a device's clock is ahead, it was heard no later than now."""
    known = device()
    take(known, status(time=NOW + 80_000, uptime=10), retained=True)
    assert (known.heard, known.started) == (NOW, NOW - 10)
    assert known.check(NOW + 301, NOW)


def test_clock_set_back() -> None:
    """A clock that is set right neither keeps a device alive nor hides when it was heard."""
    known = device()
    take(known, telemetry(a=1), 1_000_000)
    assert SEEN in take(known, telemetry(a=1)).changed
    assert known.heard == NOW
    silent = device()
    take(silent, telemetry(a=1), 1_000_000)
    assert not silent.check(NOW, NOW)
    assert silent.heard == NOW
    assert silent.check(NOW + 301, NOW)


# --- relays -----------------------------------------------------------------------------


def test_relays() -> None:
    """A relay that is known and changes its state is told as such."""
    known = device()
    assert take(known, relay("0", True, "manual")).new == [ONLINE, relay_key("0")]
    assert take(known, relay("0", True, "manual")) == News()
    assert take(known, relay("0", True, "rule")) == News(changed=[relay_key("0")])
    news = take(known, relay("0", False, "rule"))
    assert news == News(changed=[relay_key("0")], relay="0")
    assert take(known, relay("pump", False)).relay is None
    assert {
        name: (found.state, found.triggered_by) for name, found in known.relays.items()
    } == {"0": (False, "rule"), "pump": (False, None)}
    assert [*known.keys] == [ONLINE, relay_key("0"), relay_key("pump")]


def test_too_many_relays() -> None:
    """What is beyond the limit is left out; what is known goes on."""
    known = device()
    for number in range(MAX_RELAYS + 5):
        take(known, relay(str(number), True))
    assert (len(known.relays), known.left_out) == (MAX_RELAYS, 5)
    assert take(known, relay(str(MAX_RELAYS), False)) == News()
    assert take(known, relay("0", False)).relay == "0"


# --- events -----------------------------------------------------------------------------


def test_events() -> None:
    """What happens is told each time, and is no value."""
    known = device()
    for kind in (MessageKind.INTERACTION, MessageKind.SYSTEM):
        news = take(known, happening(kind, "tap", x=1))
        assert kind in news.new
        found = news.happening
        assert found is not None
        assert (found.kind, found.event, found.values) == (kind, "tap", {"x": 1})
        news = take(known, happening(kind, "tap", x=1))
        assert (news.new, news.changed, news.happening) == ([], [], found)
    assert (known.values, known.kinds) == ({}, {})
    assert {*known.keys} == {ONLINE, "interaction", "system"}


# --- values -----------------------------------------------------------------------------


def test_values() -> None:
    """A value is new once, and changed when it is another one."""
    known = device()
    news = take(known, telemetry(a=1, b="x", c=True))
    keys = [field_key(name) for name in "abc"]
    assert news == News(new=[ONLINE, *keys], changed=[SEEN, ONLINE, *keys])
    assert known.kinds == {"a": Kind.NUMBER, "b": Kind.TEXT, "c": Kind.BOOLEAN}
    assert take(known, telemetry(a=1, b="x", c=True)) == News()
    assert take(known, telemetry(a=2, c=True)) == News(changed=keys[:1])
    assert known.values == {"a": 2, "b": "x", "c": True}
    assert [*known.keys] == [ONLINE, *keys]


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (0, False), (1, "1"), (True, 1), ("", False), (2.5, "warm")],
)
def test_values_of_another_kind(before: Value, after: Value) -> None:
    """A field stays what it was at first; that it says something else is a change."""
    known = device()
    take(known, telemetry(a=before))
    kind = known.kinds["a"]
    assert take(known, telemetry(a=after)) == News(changed=[field_key("a")])
    assert known.kinds == {"a": kind}
    assert type(known.values["a"]) is type(after)


def test_too_many_values() -> None:
    """What is beyond the limit is left out; what is known goes on."""
    known = device(WATCHED)
    for number in range(MAX_FIELDS + 5):
        take(known, telemetry(**{f"a{number}": number}))
    assert [len(table) for table in (known.values, known.kinds, known.watches)] == (
        [MAX_FIELDS] * 3
    )
    assert known.left_out == 5
    assert take(known, telemetry(a1=2.0, b=1)).changed == [field_key("a1")]


# --- averages ---------------------------------------------------------------------------


def test_averages() -> None:
    """An average is of the last values since somebody wants it, changed or not."""
    known = device(WATCHED)
    take(known, telemetry(a=1, b="x", c=True))
    assert known.average("a") is None
    for name in ("a", "b", "c", "d"):
        known.want_average(name)
    assert [known.average(name) for name in "abcd"] == [1, None, None, None]
    assert average_key("a") in take(known, telemetry(a=1)).changed
    take(known, telemetry(a=4))
    assert known.average("a") == 2
    take(known, telemetry(a=7))
    assert known.average("a") == 4
    known.want_average("a")
    assert known.average("a") == 4
    for other in ("warm", True):
        assert average_key("a") not in take(known, telemetry(a=other)).changed
    assert known.average("a") == 4
    assert average_key("d") in take(known, telemetry(d=1.5)).changed
    assert known.average("d") == 1.5


def test_retained_values() -> None:
    """A value that comes again with each connection counts once."""
    known = device(WATCHED)
    known.want_average("a")
    for value in STEADY:
        take(known, telemetry(a=value))
    before = known.state()
    for _ in range(10):
        assert take(known, telemetry(a=STEADY[-1]), retained=True) == News()
    assert known.state() == before
    news = take(known, telemetry(a=FAR), retained=True)
    assert (news.changed, news.alerts) == ([field_key("a")], [])
    assert known.values == {"a": FAR}


def test_average_of_the_largest() -> None:
    """Numbers as large as there are have an average."""
    known = device(WATCHED)
    known.want_average("a")
    for value in (2**63, -(2**63), 2.0**63):
        take(known, telemetry(a=value))
    assert known.average("a") == pytest.approx(2.0**63 / 3)


# --- anomalies --------------------------------------------------------------------------


def test_anomaly() -> None:
    """A value far from the others is an anomaly until one is near them again."""
    known = device(WATCHED)
    first = take(known, telemetry(a=STEADY[0], b=5, c="x", d=True))
    assert first.new.count(ANOMALY) == 1
    assert {*known.watches} == {"a", "b"}
    for value in STEADY[1:]:
        assert take(known, telemetry(a=value)).alerts == []
    news = take(known, telemetry(a=FAR), 10)
    ((watch, change),) = news.alerts
    assert (watch.rule.name, watch.rule.field) == ("a anomaly", "a")
    assert change == Change(NOW + 10)
    assert ANOMALY in news.changed
    assert known.anomalies == ["a"]
    news = take(known, telemetry(a=STEADY[0]), 20)
    assert [change for _, change in news.alerts] == [Change(NOW + 10, NOW + 20)]
    assert ANOMALY in news.changed
    assert known.anomalies == []
    assert ANOMALY in [*known.keys]


def test_no_anomalies() -> None:
    """Nobody looks for them where they are not wanted."""
    known = device()
    for value in (*STEADY, FAR):
        assert take(known, telemetry(a=value)).alerts == []
    assert (known.watches, known.anomalies) == ({}, [])
    assert ANOMALY not in [*known.keys]


def test_stop() -> None:
    """What is open ends when the device is let go."""
    known = device(WATCHED)
    for value in (*STEADY, FAR):
        take(known, telemetry(a=value, b=1))
    ((watch, change),) = known.stop(NOW + 5)
    assert (watch.rule.field, change) == ("a", Change(NOW, NOW + 5))
    assert known.watches == {}
    assert [*known.stop(NOW + 6)] == []


# --- across restarts --------------------------------------------------------------------


def full() -> MonitoredDevice:
    """Return a device of which all is known."""
    known = MonitoredDevice("Scanner x", "Scanner", "x", WATCHED)
    take(known, status(ip="::1", firmware="1", uptime=5, values={"rssi": -60}))
    known.want_average("a")
    for value in (*STEADY, FAR):
        take(known, telemetry(a=value, b="x", c=True))
    take(known, relay("0", True, "manual"))
    take(known, relay("1", False))
    take(known, happening(MessageKind.SYSTEM, "boot"))
    take(known, happening(MessageKind.INTERACTION, "tap"))
    return known


def test_restart() -> None:
    """A restart loses nothing; an anomaly goes on, and ends."""
    known = full()
    again = restarted(known)
    assert again.state() == known.state()
    assert {*again.keys} == {*known.keys}
    assert again.anomalies == ["a"]
    assert again.average("a") == known.average("a")
    ((_, change),) = take(again, telemetry(a=STEADY[0]), 9).alerts
    assert change == Change(NOW, NOW + 9)
    assert take(again, relay("1", True)).relay == "1"
    assert SEEN not in take(again, telemetry(b="x"), 59).changed
    assert SEEN in take(again, telemetry(b="x"), 60).changed
    nothing = device()
    assert restarted(nothing).state() == nothing.state()


def test_restart_with_other_settings() -> None:
    """An average of fewer values is one of the last."""
    again = restarted(full(), Watching(average=2, deviations=2, window=5))
    assert [*again.averaged["a"]] == [STEADY[-1], FAR]
    assert again.anomalies == ["a"]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("online", ...),
        ("heard", None),
        ("heard", "noon"),
        ("heard", True),
        ("heard", 1e300),
        ("heard", -1),
        ("heard", 1e12),
        ("started", -0.5),
        ("started", 1e12),
        ("started", "noon"),
        ("started", False),
        ("started", [1]),
        ("status", ...),
        ("values", None),
        ("values", []),
        ("kinds", None),
        ("kinds", {"a": "colour"}),
        ("kinds", {"a": []}),
        ("relays", None),
        ("relays", [1]),
        ("relays", {"0": True}),
        ("relays", {"0": [True]}),
        ("relays", {"0": [True, None, None]}),
        ("events", None),
        ("events", 5),
        ("events", ["party"]),
        ("averaged", None),
        ("averaged", {"a": None}),
        ("averaged", {"a": {}}),
        ("averaged", {"a": ["x"]}),
        ("averaged", {"a": [True]}),
        ("averaged", {"a": [1e300]}),
        ("watches", None),
        ("watches", []),
    ],
)
def test_no_state(name: str, state: Any) -> None:
    """What is no state is refused, by one of a few exceptions."""
    kept: dict[str, Any] = {**full().state(), name: state}
    if state is ...:
        del kept[name]
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        device().restore(kept)


@pytest.mark.parametrize(
    ("name", "state", "seen"),
    [
        ("status", 5, lambda d: d.status is None),
        ("ip", ["x"], lambda d: d.ip is None),
        ("firmware", "x" * 999, lambda d: d.firmware == "x" * 255),
        ("online", None, lambda d: d.online is None),
        ("started", None, lambda d: d.started is None),
        ("values", {"a": None, "b": [1], "z": 1}, lambda d: d.values == {}),
        ("kinds", {"": "number", "x" * 65: "text"}, lambda d: d.kinds == {}),
        (
            "kinds",
            {f"a{number}": "number" for number in range(999)},
            lambda d: len(d.kinds) == MAX_FIELDS,
        ),
        (
            "relays",
            {str(number): [True, None] for number in range(999)},
            lambda d: len(d.relays) == MAX_RELAYS,
        ),
        ("relays", {"\0": [True, None]}, lambda d: d.relays == {}),
        ("relays", {"0": [1, 5]}, lambda d: d.relays["0"].triggered_by is None),
        ("averaged", {"z": [1]}, lambda d: d.averaged == {}),
        ("averaged", {"a": [1] * 9999}, lambda d: len(d.averaged["a"]) == 3),
        ("watches", {"z": {}}, lambda d: d.watches == {}),
        ("watches", {"a": None}, lambda d: not d.watches["a"].is_on),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_bounded_state(
    name: str, state: object, seen: Callable[[MonitoredDevice], bool]
) -> None:
    """What is kept of nothing, or too much, is as little as it would have been."""
    again = device(WATCHED)
    kept: Mapping[str, Any] = {**full().state(), name: state}
    again.restore(kept)
    assert seen(again)
