"""Payload → message, or the reason why it is none. Pure functions.

Nothing that a payload says makes more work, or takes more memory, than the limits allow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
import re
from typing import Any, Final

import orjson

from ..records import Value
from .patterns import MessageKind, Route
from .presets import Dialect

MAX_ID: Final = 64
MAX_NAME: Final = 64
# No topic that is watched, with IDs in it, is longer (characters).
MAX_TOPIC: Final = 512
# What Home Assistant takes for a state.
MAX_TEXT: Final = 255
# Values of one message, with the objects and lists that hold them, and those within one
# another.
MAX_VALUES: Final = 256
MAX_DEPTH: Final = 5
# What counters of 64 bits reach; nothing that is measured is larger.
MAX_NUMBER: Final = 2.0**63
# What a clock that was never set says lies before, one of another time zone less far ahead.
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
MAX_AHEAD: Final = 86_400.0
# The end of the year 9999, after which no time can be shown.
MAX_TIME: Final = 253_402_300_799.0
# Unix times are seconds up to here (in the year 5138), milliseconds beyond.
_SECONDS: Final = 1e11

OFFLINE_WORDS: Final = frozenset(
    {"offline", "disconnected", "down", "stopped", "dead", "lost", "unavailable"}
)
_PLAIN_WORDS: Final = frozenset({b"online", b"offline"})
_ON: Final = frozenset({"on", "true", "1", "closed", "active"})
_OFF: Final = frozenset({"off", "false", "0", "open", "inactive"})
_PLAIN_STATES: Final = frozenset(word.encode() for word in _ON | _OFF)
_AROUND_WORDS: Final = b' \t\r\n"'


class Reason(StrEnum):
    """Why a message could not be understood."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    INCOMPLETE = "incomplete"
    INVALID_ID = "invalid_id"
    ID_MISMATCH = "id_mismatch"
    TIME_MISSING = "time_missing"
    TIME_ABSURD = "time_absurd"
    NUMBER_TOO_LARGE = "number_too_large"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_VALUES = "too_many_values"
    TOO_MANY_DEVICES = "too_many_devices"


class RejectedError(Exception):
    """A message that could not be understood."""

    def __init__(self, reason: Reason) -> None:
        """Initialize with why."""
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a message says of a device.

    `time` is Unix time in seconds, None where it says none. `values` go by name; those that
    have a meaning of their own are not among them: `online` and what the status is called,
    `ip`, `firmware`, `uptime` (s); `relay`, its `state` and `triggered_by`; the `event`.
    """

    kind: MessageKind
    time: float | None
    values: dict[str, Value]
    online: bool | None = None
    status: str | None = None
    ip: str | None = None
    firmware: str | None = None
    uptime: float | None = None
    relay: str | None = None
    state: bool | None = None
    triggered_by: str | None = None
    event: str | None = None


def parse(
    route: Route, payload: bytes, now: float, dialect: Dialect, *, needs_time: bool
) -> Message:
    """Return what a payload says; raises RejectedError. `now` is Unix time in seconds.

    A status may be the plain word `online` or `offline`, as wills are; a value that has a
    topic of its own may be plain JSON, and a relay, where the dialect says so, a plain word.
    None of them tells a time.
    """
    if not is_valid_id(route.device):
        raise RejectedError(Reason.INVALID_ID)
    kind = route.kind
    if kind is MessageKind.STATUS and payload.strip().lower() in _PLAIN_WORDS:
        word = payload.strip().lower().decode()
        return Message(
            kind=kind, time=None, values={}, online=word == "online", status=word
        )
    if (
        kind is MessageKind.RELAY
        and route.part
        and dialect.plain_relays
        and (state := payload.strip(_AROUND_WORDS).lower()) in _PLAIN_STATES
    ):
        said, needs_time = {dialect.relay_state_key: state.decode()}, False
    elif not isinstance(said := _loads(payload), dict):
        if kind is MessageKind.TELEMETRY and route.part and not isinstance(said, list):
            said, needs_time = {"value": said}, False
        else:
            raise RejectedError(Reason.NOT_AN_OBJECT)
    _check_id(said, route, dialect)
    if kind is MessageKind.STATUS:
        # A will is written before its time, and cannot tell it.
        status = _status_word(said.get(dialect.status_key))
        needs_time &= status is None or not _is_offline(status)
    time = _time(said.pop(dialect.time_key, None), now, needed=needs_time)
    return _READERS[kind](route, said, time, dialect)


def is_valid_id(text: str) -> bool:
    """Tell whether a level of a topic can be a device's ID."""
    return 0 < len(text) <= MAX_ID and text.isprintable() and not text.isspace()


def _loads(payload: bytes) -> Any:
    """Return what JSON says; duplicate keys are the last of them."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as err:
        if "recursion" in err.msg:
            raise RejectedError(Reason.TOO_DEEP) from None
        if "infinity" in err.msg:
            raise RejectedError(Reason.NUMBER_TOO_LARGE) from None
        raise RejectedError(Reason.NOT_JSON) from None


def _check_id(said: dict[str, Any], route: Route, dialect: Dialect) -> None:
    """Take the IDs out of a payload; they say what the topic says, or nothing."""
    for key in dialect.id_keys:
        found = said.pop(key, None)
        if found is None:
            continue
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise RejectedError(Reason.ID_MISMATCH)
        if str(found) != route.device:
            raise RejectedError(Reason.ID_MISMATCH)


def _time(raw: object, now: float, *, needed: bool) -> float | None:
    """Return when a message says that it was: ISO 8601 (UTC if not said), or Unix time."""
    if raw is None:
        if needed:
            raise RejectedError(Reason.TIME_MISSING)
        return None
    if isinstance(raw, str):
        try:
            moment = datetime.fromisoformat(raw)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            time = moment.timestamp()
        except ValueError, OverflowError:
            raise RejectedError(Reason.TIME_ABSURD) from None
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        time = float(raw)
        if time > _SECONDS:
            time /= 1000
    else:
        raise RejectedError(Reason.TIME_ABSURD)
    if not EARLIEST <= time <= now + MAX_AHEAD:
        raise RejectedError(Reason.TIME_ABSURD)
    return time


# --- what the kinds say -----------------------------------------------------------------


def _status(
    route: Route, said: dict[str, Any], time: float | None, dialect: Dialect
) -> Message:
    """Return what a status says: whether the device is there, and what it is."""
    if (word := _status_word(said.pop(dialect.status_key, None))) is None:
        raise RejectedError(Reason.INCOMPLETE)
    uptime = said.get(dialect.uptime_key)
    if isinstance(uptime, bool) or not isinstance(uptime, int | float):
        uptime = None  # A text ("3 days") is a value like others
    elif not 0 <= said.pop(dialect.uptime_key) <= MAX_NUMBER:
        raise RejectedError(Reason.NUMBER_TOO_LARGE)
    return Message(
        kind=route.kind,
        time=time,
        online=not _is_offline(word),
        status=word,
        ip=_text(said.pop(dialect.ip_key, None)),
        firmware=_text(said.pop(dialect.firmware_key, None)),
        uptime=uptime,
        values=_values(said, dialect),
    )


def _telemetry(
    route: Route, said: dict[str, Any], time: float | None, dialect: Dialect
) -> Message:
    """Return the values of a device: many in one message, or one in a topic of its own."""
    if route.part:
        if said.get("value") is None:
            raise RejectedError(Reason.INCOMPLETE)
        said = {route.part: said["value"]}
    values = _values(said, dialect)
    if not values:
        raise RejectedError(Reason.INCOMPLETE)
    return Message(kind=route.kind, time=time, values=values)


def _relay(
    route: Route, said: dict[str, Any], time: float | None, dialect: Dialect
) -> Message:
    """Return the state of a relay, and what triggered it."""
    index = said.pop(dialect.relay_index_key, None)
    name = route.part
    if index is not None:
        if isinstance(index, bool) or not isinstance(index, int | str):
            raise RejectedError(Reason.ID_MISMATCH)
        if name and str(index) != name:
            raise RejectedError(Reason.ID_MISMATCH)
        name = str(index)
    if not name:
        raise RejectedError(Reason.INCOMPLETE)
    if not is_valid_id(name):
        raise RejectedError(Reason.INVALID_ID)
    return Message(
        kind=route.kind,
        time=time,
        relay=name,
        state=_state(said.pop(dialect.relay_state_key, None)),
        triggered_by=_text(said.pop(dialect.triggered_by_key, None)),
        values={},
    )


def _event(
    route: Route, said: dict[str, Any], time: float | None, dialect: Dialect
) -> Message:
    """Return what happened: what the topic calls it, else what the payload does."""
    event = route.part
    if not event:
        for key in dialect.event_keys:
            if event := _text(said.pop(key, None)) or "":
                break
    return Message(
        kind=route.kind,
        time=time,
        event=snake(event) if event else route.kind.value,
        values=_values(said, dialect),
    )


_READERS: Final = {
    MessageKind.STATUS: _status,
    MessageKind.TELEMETRY: _telemetry,
    MessageKind.RELAY: _relay,
    MessageKind.INTERACTION: _event,
    MessageKind.SYSTEM: _event,
}


def _status_word(raw: object) -> str | None:
    """Return what a status is called, if it is one."""
    if isinstance(raw, bool):
        return "online" if raw else "offline"
    return _text(raw) if isinstance(raw, str) else None


def _is_offline(word: str) -> bool:
    """Tell whether a status means that the device is not there."""
    return word.lower() in OFFLINE_WORDS


def _state(raw: object) -> bool:
    """Return whether a relay is on: true, 1, "on" and the like."""
    word = str(raw).strip().lower() if isinstance(raw, bool | int | str) else ""
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise RejectedError(Reason.INCOMPLETE)


def _text(raw: object) -> str | None:
    """Return a text that can be shown, if there is one."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return None
    text = str(raw)[:MAX_TEXT]
    if not text.isprintable():
        text = "".join(letter for letter in text if letter.isprintable())
    return text.strip() or None


# --- values -----------------------------------------------------------------------------


def _values(said: dict[str, Any], dialect: Dialect) -> dict[str, Value]:
    """Return all values of a payload by name; what is within an object has both names."""
    values: dict[str, Value] = {}
    _collect(values, "", said.items(), 0, 0)
    if dialect.dropped:
        return {_without(name, dialect.dropped): raw for name, raw in values.items()}
    return values


def _collect(
    values: dict[str, Value],
    prefix: str,
    said: Iterable[tuple[str, Any]],
    depth: int,
    count: int,
) -> int:
    """Add what objects and lists hold, however deep; a list's items are numbered.

    Returns how many there are by now. Objects, lists and nulls hold no value, but count: a
    payload can be full of them.
    """
    if depth >= MAX_DEPTH:
        raise RejectedError(Reason.TOO_DEEP)
    for key, raw in said:
        if (count := count + 1) > MAX_VALUES:
            raise RejectedError(Reason.TOO_MANY_VALUES)
        if raw is None:
            continue
        name = snake(key)
        if prefix:
            name = f"{prefix}_{name}"[:MAX_NAME]
        if isinstance(raw, dict):
            count = _collect(values, name, raw.items(), depth + 1, count)
        elif isinstance(raw, list):
            numbered = ((str(number), item) for number, item in enumerate(raw, 1))
            count = _collect(values, name, numbered, depth + 1, count)
        elif isinstance(raw, str):
            # PostgreSQL takes no NUL, and the recorder none out of a state
            values[name] = raw[:MAX_TEXT].replace("\0", "")
        elif isinstance(raw, bool) or -MAX_NUMBER <= raw <= MAX_NUMBER:
            values[name] = raw
        else:
            raise RejectedError(Reason.NUMBER_TOO_LARGE)
    return count


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    """Return a name without prefixes that say nothing."""
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


_BETWEEN: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_KNOWN: Final[dict[str, str]] = {}
_MAX_KNOWN: Final = 4096


def snake(name: str) -> str:
    """Return a name in snake case, of ASCII letters and digits; devices repeat theirs."""
    if (known := _KNOWN.get(name)) is not None:
        return known
    shown = _BETWEEN.sub("_", name[: 4 * MAX_NAME])
    result = _OTHER.sub("_", shown.lower()).strip("_")[:MAX_NAME] or "value"
    if len(_KNOWN) >= _MAX_KNOWN:
        _KNOWN.clear()
    if len(name) <= MAX_NAME:
        _KNOWN[name] = result
    return result
