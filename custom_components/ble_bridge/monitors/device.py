"""One device of another system: what it said last, and whether it is there."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import math
from typing import Any, Final

from ..alerts import DEFAULT_DEVIATIONS, Change, Rule, RuleKind, Watch
from ..decoders.fields import Kind
from ..records import Value
from .messages import MAX_NAME, MAX_NUMBER, MAX_TEXT, MAX_TIME, Message, is_valid_id
from .names import field_of
from .patterns import MessageKind

MAX_FIELDS: Final = 64
MAX_RELAYS: Final = 64
# Devices count their uptime in whole seconds, and messages take their time (s).
_SAME_START: Final = 60.0
# When a device was last heard is written at most this often (s).
SEEN_INTERVAL: Final = 60.0
_MAX_AVERAGED: Final = 1000

# What can be listened to, beside fields (`field!…`), averages (`average!…`) and relays
# (`relay!…`).
ONLINE: Final = "online"
STATUS: Final = "status"
SEEN: Final = "seen"
STARTED: Final = "started"
IP_ADDRESS: Final = "ip"
FIRMWARE: Final = "firmware"
ANOMALY: Final = "anomaly"


def field_key(name: str) -> str:
    """Return by what to listen to a field."""
    return f"field!{name}"


def average_key(name: str) -> str:
    """Return by what to listen to the moving average of a field."""
    return f"average!{name}"


def relay_key(name: str) -> str:
    """Return by what to listen to a relay."""
    return f"relay!{name}"


@dataclass(slots=True)
class Relay:
    """The last state of a relay, and what triggered it."""

    state: bool
    triggered_by: str | None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened at a device: an event of one of two kinds, and its values."""

    kind: MessageKind
    event: str
    values: Mapping[str, Value]


@dataclass(slots=True)
class News:
    """What a message changed.

    `new` and `changed` are what can be listened to; `relay` is one that changed, with whether
    it is known from before.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    relay: str | None = None
    happening: Happening | None = None
    alerts: list[tuple[Watch, Change]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How devices are watched.

    `timeout` (s) is after how long without a message a device is not there, 0 for never. An
    average is that of the last `average` values. With `deviations`, a value that is further
    from the mean of the last `window` is an anomaly.
    """

    timeout: float = 300.0
    average: int = 10
    deviations: float | None = None
    window: int = 20


class MonitoredDevice:
    """What is known of a device, kept up by its messages."""

    def __init__(self, key: str, owner: str, device_id: str, how: Watching) -> None:
        """Initialize a device that has said nothing yet."""
        self.key = key
        self.owner = owner
        self.device_id = device_id
        self.online: bool | None = None
        self.status: str | None = None
        self.heard = 0.0
        self.started: float | None = None
        self.ip: str | None = None
        self.firmware: str | None = None
        self.values: dict[str, Value] = {}
        self.kinds: dict[str, Kind] = {}
        self.relays: dict[str, Relay] = {}
        self.events: set[MessageKind] = set()
        self.averaged: dict[str, deque[float]] = {}
        self.watches: dict[str, Watch] = {}
        self.left_out = 0
        self.registry_id: str | None = None
        self.listeners: dict[str, set[Callable[[], None]]] = {}
        self.event_listeners: dict[MessageKind, set[Callable[[Happening], None]]] = {}
        self._how = how
        self._seen_told = 0.0

    @property
    def name(self) -> str:
        """Return what the device is called."""
        return self.key

    # --- messages -----------------------------------------------------------------------

    def take(self, message: Message, now: float, *, retained: bool) -> News:
        """Take over what a message says; `now` is Unix time in seconds.

        One that the broker had kept tells what was, and is no sign of life: it was when it
        says, which is not known where it does not say it.
        """
        news = News()
        at: float | None = now
        if retained:
            # One whose clock is ahead was not heard in the future
            at = None if message.time is None else min(message.time, now)
        is_known = at is not None and retained and at <= self.heard
        if at is not None and (at > self.heard or not retained):
            self.heard = at
            if abs(at - self._seen_told) >= SEEN_INTERVAL:
                self._seen_told = at
                news.changed.append(SEEN)
        if message.kind is MessageKind.STATUS:
            online = message.online
            timeout = self._how.timeout
            if online and (
                is_known or (timeout and at is not None and now - at > timeout)
            ):
                # What was there then may have gone since
                online = bool(self.online)
            self._set("online", ONLINE, online, news)
            self._take_status(message, at, news)
        elif not retained:
            self._set("online", ONLINE, True, news)
        if message.relay is not None and message.state is not None:
            self._take_relay(message.relay, message.state, message.triggered_by, news)
        elif message.event is not None:
            if message.kind not in self.events:
                self.events.add(message.kind)
                news.new.append(message.kind)
            if not retained:
                news.happening = Happening(message.kind, message.event, message.values)
            return news
        for name, value in message.values.items():
            self._take_value(name, value, now, news, retained=retained)
        return news

    def _take_status(self, message: Message, at: float | None, news: News) -> None:
        """Take over what a status says of the device itself; `at` is when it was said."""
        self._set("status", STATUS, message.status, news)
        for name, key, said in (
            ("ip", IP_ADDRESS, message.ip),
            ("firmware", FIRMWARE, message.firmware),
        ):
            if said is not None:
                self._set(name, key, said, news)
        if message.uptime is not None and at is not None and message.uptime < at:
            started = at - message.uptime
            if self.started is None or abs(started - self.started) > _SAME_START:
                self._set("started", STARTED, started, news)

    def _set(self, name: str, key: str, value: object, news: News) -> None:
        """Take over something, and take note if it is new or changed."""
        before = getattr(self, name)
        if before == value:
            return
        setattr(self, name, value)
        news.changed.append(key)
        if before is None:
            news.new.append(key)

    def _take_relay(
        self, name: str, state: bool, triggered_by: str | None, news: News
    ) -> None:
        """Take over the state of a relay."""
        if (relay := self.relays.get(name)) is None:
            if len(self.relays) >= MAX_RELAYS:
                self.left_out += 1
                return
            self.relays[name] = Relay(state, triggered_by)
            news.new.append(relay_key(name))
            return
        if relay.state is not state:
            news.relay = name
        if (relay.state, relay.triggered_by) != (state, triggered_by):
            relay.state, relay.triggered_by = state, triggered_by
            news.changed.append(relay_key(name))

    def _take_value(
        self, name: str, value: Value, now: float, news: News, *, retained: bool
    ) -> None:
        """Take over a value, its average, and whether it is an anomaly.

        One that the broker had kept comes with each connection, and is measured no more often
        for that.
        """
        before = self.values.get(name)
        if before is None and name not in self.kinds:
            if len(self.kinds) >= MAX_FIELDS:
                self.left_out += 1
                return
            self.kinds[name] = field_of(name, value).kind
            news.new.append(field_key(name))
        if value != before or type(value) is not type(before):
            self.values[name] = value
            news.changed.append(field_key(name))
        if retained or isinstance(value, bool) or not isinstance(value, int | float):
            return
        if (last := self.averaged.get(name)) is not None:
            last.append(value)
            news.changed.append(average_key(name))
        if self._how.deviations is None:
            return
        if (watch := self.watches.get(name)) is None:
            watch = self.watches[name] = Watch(anomaly_rule(name, self._how))
            if len(self.watches) == 1:
                news.new.append(ANOMALY)
        if (change := watch.on_value(value, now)) is not None:
            news.alerts.append((watch, change))
            news.changed.append(ANOMALY)

    def check(self, now: float, connected_since: float) -> bool:
        """Tell whether the device has just turned out to be silent for too long.

        While there is no connection nobody can be heard, so that the time begins with it.
        """
        if not self.online or not self._how.timeout:
            return False
        # Where the clock was set back, it is from now on that the device is silent
        self.heard = min(self.heard, now)
        if now - max(self.heard, connected_since) <= self._how.timeout:
            return False
        self.online = False
        return True

    # --- averages and anomalies ---------------------------------------------------------

    def want_average(self, name: str) -> None:
        """Keep the last values of a field, for somebody wants their average."""
        if name in self.averaged:
            return
        last: deque[float] = deque(maxlen=self._how.average)
        value = self.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            last.append(value)
        self.averaged[name] = last

    def average(self, name: str) -> float | None:
        """Return the mean of the last values of a field, while there are any."""
        last = self.averaged.get(name)
        return math.fsum(last) / len(last) if last else None

    @property
    def anomalies(self) -> list[str]:
        """Return the fields whose last value is an anomaly."""
        return sorted(name for name, watch in self.watches.items() if watch.is_on)

    def stop(self, now: float) -> Iterator[tuple[Watch, Change]]:
        """End the open alerts of a device that is let go, or looked at no longer."""
        for watch in self.watches.values():
            if (change := watch.stop(now)) is not None:
                yield watch, change
        self.watches.clear()

    # --- what there is to show ----------------------------------------------------------

    @property
    def keys(self) -> Iterable[str]:
        """Return all that can be listened to by now."""
        judges = self.watches and self._how.deviations is not None
        for key, known in (
            (ONLINE, self.online),
            (STATUS, self.status),
            (STARTED, self.started),
            (IP_ADDRESS, self.ip),
            (ANOMALY, judges or None),
        ):
            if known is not None:
                yield key
        yield from map(field_key, self.kinds)
        yield from map(relay_key, self.relays)
        yield from self.events

    # --- across restarts ----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what is kept across a restart, as JSON."""
        return {
            "owner": self.owner,
            "device_id": self.device_id,
            "online": self.online,
            "status": self.status,
            "heard": self.heard,
            "started": self.started,
            "ip": self.ip,
            "firmware": self.firmware,
            "values": dict(self.values),
            "kinds": dict(self.kinds),
            "relays": {
                name: [relay.state, relay.triggered_by]
                for name, relay in self.relays.items()
            },
            "events": sorted(self.events),
            "averaged": {name: [*last] for name, last in self.averaged.items()},
            "watches": {name: watch.state() for name, watch in self.watches.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; raises ValueError, TypeError or KeyError where it is none."""
        online = state["online"]
        self.online = None if online is None else bool(online)
        self.heard = _time(state["heard"])
        self._seen_told = self.heard
        started = state["started"]
        self.started = None if started is None else _time(started)
        self.status = _text(state["status"])
        self.ip = _text(state["ip"])
        self.firmware = _text(state["firmware"])
        self.kinds = {
            name: Kind(kind)
            for name, kind in list(state["kinds"].items())[:MAX_FIELDS]
            if 0 < len(name) <= MAX_NAME
        }
        self.values = {
            name: value
            for name, value in state["values"].items()
            if name in self.kinds and isinstance(value, bool | int | float | str)
        }
        self.relays = {
            name: Relay(bool(on), _text(triggered_by))
            for name, (on, triggered_by) in list(state["relays"].items())[:MAX_RELAYS]
            if is_valid_id(name)
        }
        self.events = {MessageKind(kind) for kind in state["events"]}
        for name, last in state["averaged"].items():
            if name in self.kinds:
                numbers = map(_number, last[-_MAX_AVERAGED:])
                self.averaged[name] = deque(numbers, self._how.average)
        for name, kept in state["watches"].items():
            if name in self.kinds:
                watch = self.watches[name] = Watch(anomaly_rule(name, self._how))
                watch.restore(kept)


def anomaly_rule(name: str, how: Watching) -> Rule:
    """Return the rule by which a value of a field is an anomaly."""
    return Rule(
        rule_id=f"anomaly_{name}",
        name=f"{name} anomaly",
        kind=RuleKind.ANOMALY,
        field=name,
        deviations=how.deviations or DEFAULT_DEVIATIONS,
        window=how.window,
    )


def _number(raw: object) -> float:
    """Return a number that was kept."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise TypeError("Not a number")
    if not -MAX_NUMBER <= raw <= MAX_NUMBER:
        raise ValueError("Not a number that would have been kept")
    return raw


def _time(raw: object) -> float:
    """Return a Unix time in seconds that was kept."""
    if not 0 <= (time := _number(raw)) <= MAX_TIME:
        raise ValueError("Not a time that would have been kept")
    return time


def _text(raw: object) -> str | None:
    """Return a text that was kept."""
    return raw[:MAX_TEXT] if isinstance(raw, str) else None
