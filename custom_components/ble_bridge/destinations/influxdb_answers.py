"""What a server says to a write: whether it took the lines, and which ones it did not.

InfluxDB 1, 2 and 3, its cloud and VictoriaMetrics each say so in words of their own, and
some name the lines that are bad, or the field whose type clashes, and some do not.
"""

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
import json
import math
import re
from typing import Any, Final

from .errors import LinesError, Problem
from .influxdb_lines import parse

# No server is waited for longer than this before it is asked again (s).
LONGEST_WAIT: Final = 600.0

_OVERLOADED: Final = frozenset({408, 502, 503, 504})
_BAD_LINES: Final = frozenset({400, 422})
# What a server calls the place that is not there.
_PLACE: Final = re.compile(
    r"\b(?:bucket|org|orgID|organization|database|retention policy)\b"
)
# InfluxDB 1 says so with status 500 of a retention policy.
_NOT_FOUND: Final = re.compile(r"\b(?:database|retention policy) not found\b")
_DROPPED: Final = re.compile(r"\bdropped=(\d+)")
# InfluxDB 1 and 2 repeat the lines that they cannot read; the cloud gives their numbers.
_UNREADABLE: Final = re.compile(r"unable to parse '(.*?)': ")
_NUMBERED: Final = re.compile(r"\bline (\d+) \(1-based\): (.*)")
_CLASHES: Final = (
    # InfluxDB 1 and 2, of all that clash one
    re.compile(
        r'input field "(?P<field>.+?)" on measurement "(?P<measurement>.+?)" is type'
        r" (?P<ours>\w+), already exists as type (?P<theirs>\w+)"
    ),
    # InfluxDB 3, of all that clash the first
    re.compile(
        r"invalid column type for column '(?P<field>.+?)', expected"
        r" (?P<theirs>[\w:]+), got (?P<ours>[\w:]+)"
    ),
    # The cloud
    re.compile(
        r"Unable to insert (?P<ours>[\w:]+) type into column (?P<field>.+?) with type"
        r" (?P<theirs>[\w:]+)"
    ),
)


class Verdict(Enum):
    """What is to be done about an answer."""

    TAKEN = auto()
    WAIT = auto()
    SMALLER = auto()
    EXAMINE = auto()
    LEAVE = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: the status of HTTP, a text, and whether InfluxDB is known by it.

    `retry_after` is how long it wants to be left alone (s), if it said so.
    """

    status: int
    text: str
    is_influx: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Clash:
    """A field that is of another type where it goes than it is here."""

    measurement: str
    field: str
    ours: str
    theirs: str


@dataclass(slots=True)
class Findings:
    """Of lines that were refused together, by number, the bad ones and why.

    Where none is sure to be bad, those `apart` are to be tried without the others.
    """

    bad: dict[int, Clash | None] = field(default_factory=dict)
    apart: list[int] = field(default_factory=list)


def judge(answer: Answer) -> tuple[Verdict, Problem]:
    """Return what is to be done about an answer, and the problem where it is one."""
    status = answer.status
    if status == 204:
        return Verdict.TAKEN, Problem.UNEXPECTED
    if status == 429:
        return Verdict.WAIT, Problem.QUOTA_EXCEEDED
    if status in _OVERLOADED:
        return Verdict.WAIT, Problem.SERVER_UNAVAILABLE
    if status == 413:
        return Verdict.SMALLER, Problem.TOO_LARGE
    if status in _BAD_LINES and not _misses_place(answer):
        return Verdict.EXAMINE, Problem.REJECTED
    return Verdict.LEAVE, _problem(answer)


def _problem(answer: Answer) -> Problem:
    """Return why a server takes nothing at all."""
    status = answer.status
    if status == 401:
        return Problem.INVALID_AUTH
    if status == 403:
        return Problem.NOT_AUTHORIZED
    if status == 404 or status in _BAD_LINES:
        known = answer.is_influx and _PLACE.search(_message(answer.text))
        return Problem.BUCKET_MISSING if known else Problem.NOT_INFLUXDB
    if status < 400 or status == 405:
        return Problem.NOT_INFLUXDB
    if _NOT_FOUND.search(_message(answer.text)):
        return Problem.BUCKET_MISSING
    return Problem.REFUSED if status < 500 else Problem.SERVER_UNAVAILABLE


def _misses_place(answer: Answer) -> bool:
    """Tell whether a refusal is not about lines, but about where they are to go."""
    message = _message(answer.text)
    return (
        answer.is_influx
        and len(message) < 200
        and "partial write" not in message
        and "unable to parse" not in message
        and "line" not in message
        and _PLACE.search(message) is not None
    )


def examine(text: str, lines: Sequence[bytes]) -> Findings:
    """Look for what a server has against lines that it was given in this order."""
    findings = Findings()
    _find_named(text, lines, findings)
    if findings.bad:
        return findings
    count, message = len(lines), _message(text)
    clash = _clash(message, lines[0])
    dropped = _DROPPED.search(message)
    like = _like(lines, clash) if clash else []
    if like and (apart := like if len(like) < count else _of_other_measurements(lines)):
        findings.apart = apart
    elif count == 1 or (
        # InfluxDB 1 and 2 count the points; with 3 a table has one type for each field.
        int(dropped[1]) == count if dropped else len(like) == count
    ):
        findings.bad = dict.fromkeys(range(count), clash)
    else:
        findings.apart = list(range(count // 2))
    return findings


def _find_named(text: str, lines: Sequence[bytes], findings: Findings) -> None:
    """Find the lines that the server names: by number, or word for word."""
    said = _json(text)
    data = said.get("data") if isinstance(said, dict) else None
    named = [
        (item.get("line_number"), str(item.get("error_message")))
        for item in (data if isinstance(data, list) else [data])
        if isinstance(item, dict)
    ]
    message = _message(text)
    named += [(int(number), error) for number, error in _NUMBERED.findall(message)]
    for number, error in named:
        if isinstance(number, int) and 0 < number <= len(lines):
            findings.bad[number - 1] = _clash(error, lines[number - 1])
    if unreadable := set(_UNREADABLE.findall(message)):
        for index, line in enumerate(lines):
            if line.decode(errors="replace") in unreadable:
                findings.bad.setdefault(index)


def _clash(message: str, line: bytes) -> Clash | None:
    """Return the clash that a message tells of, by default one of the line's measurement."""
    for pattern in _CLASHES:
        if found := pattern.search(message):
            named = found.groupdict()
            measurement = named.get("measurement") or _measurement(line)
            ours, theirs = (named[key].rpartition(":")[2] for key in ("ours", "theirs"))
            return Clash(measurement, named["field"], _kind(ours), _kind(theirs))
    return None


def _kind(name: str) -> str:
    """Return the type of a field in the same words, whoever says it."""
    return {"uinteger": "unsigned", "bool": "boolean"}.get(name, name)


def _like(lines: Sequence[bytes], clash: Clash) -> list[int]:
    """Return the lines that have a field of such a name and type.

    The measurement is left out, for not every server names it.
    """
    like = []
    for index, line in enumerate(lines):
        with contextlib.suppress(LinesError):
            if parse(line).kinds.get(clash.field) == clash.ours:
                like.append(index)
    return like


def _of_other_measurements(lines: Sequence[bytes]) -> list[int]:
    """Return the lines of other measurements than that of the first."""
    names = [_measurement(line) for line in lines]
    return [index for index, name in enumerate(names) if name != names[0]]


def _measurement(line: bytes) -> str:
    """Return the name of a line's measurement, empty for what is no line."""
    try:
        return parse(line).measurement
    except LinesError:
        return ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_json_error(text: str) -> bool:
    """Tell whether a text is an error as InfluxDB writes it."""
    said = _json(text)
    return isinstance(said, dict) and not {"error", "message"}.isdisjoint(said)


def _message(text: str) -> str:
    """Return the words of an error, whatever they are wrapped in."""
    said = _json(text)
    if not isinstance(said, dict):
        return text
    return "\n".join(str(said[key]) for key in ("error", "message") if key in said)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return how long a server wants to be left alone (s), from the header Retry-After.

    It is a number of seconds, or a date (RFC 9110, 10.2.3).
    """
    if header is None:
        return None
    try:
        wait = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        wait = (date - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(wait) else min(max(wait, 0.0), LONGEST_WAIT)
