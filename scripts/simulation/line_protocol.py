"""A strict reader of InfluxDB's line protocol, independent of what BLE Bridge writes.

It takes what InfluxDB 2 (https://github.com/influxdata/influxdb, v2.8.0,
models/points.go) and 3 (core/influxdb_line_protocol) both take and read alike, and says
in the words of the former what is wrong.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import math
import re
from typing import Final

type Value = float | int | str | bool

INTEGERS: Final = range(-(2**63), 2**63)
UNSIGNED: Final = range(2**64)
# InfluxDB 3, core/influxdb_line_protocol/src/lib.rs
LONGEST_STRING: Final = 65_536
RESERVED_TAGS: Final = ("_field", "_measurement", "time")

_MEASUREMENT: Final = re.compile(r"(?:\\.|[^\\, ])+", re.DOTALL)
_KEY: Final = re.compile(r"(?:\\.|[^\\,= ])+", re.DOTALL)
_ESCAPED_IN_MEASUREMENT: Final = re.compile(r"\\([, ])")
_ESCAPED_IN_KEY: Final = re.compile(r"\\([,= ])")
# One of them takes a backslash for an escaped one, or a tab for a space; the other not.
_READ_DIFFERENTLY: Final = re.compile(r"\\\\|[\x00-\x1f\x7f]")
_STRING: Final = re.compile(r'"((?:\\["\\]|[^"\\]|\\(?!"))*)"', re.DOTALL)
_TOKEN: Final = re.compile(r"[^, ]*")
_FLOAT: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d+", re.ASCII)
_BOOLEANS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


class LineError(ValueError):
    """A line that cannot be read; the message says why."""


class Unsigned(int):
    """A value that was written as an unsigned integer."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a line says; `time` is as written, in whatever unit, or None."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, Value]
    time: int | None
    # Of a field that comes twice, the last counts; InfluxDB 3 refuses it.
    repeated: str | None = None


def split_lines(text: str) -> Iterator[str]:
    """Return the lines with points; a line goes on after a newline within quotes."""
    start = 0
    escaped = in_fields = quoted = False
    equals = commas = 0
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "\n" and not quoted:
            yield from _points_in(text[start:position])
            start = position + 1
            in_fields = False
            equals = commas = 0
        elif character == " ":
            in_fields = True
        elif in_fields:
            equals += character == "=" and not quoted
            commas += character == "," and not quoted
            quoted ^= character == '"' and equals > commas
    yield from _points_in(text[start:])


def _points_in(line: str) -> tuple[str, ...]:
    """Return the line, unless it is blank or a comment."""
    line = line.strip(" ")
    return (line,) if line and not line.startswith("#") else ()


def parse_line(line: str) -> Point:
    """Return what a line says; raises `LineError`."""
    measurement, position = _take(_MEASUREMENT, line, 0, "missing measurement")
    measurement = _ESCAPED_IN_MEASUREMENT.sub(r"\1", measurement)
    tags: dict[str, str] = {}
    while line[position : position + 1] == ",":
        name, position = _take_key(line, position + 1, "missing tag key")
        position = _expect("=", line, position, "missing tag value")
        value, position = _take_key(line, position, "missing tag value")
        if line[position : position + 1] == "=":
            raise LineError("invalid tag format")
        if name in RESERVED_TAGS:
            raise LineError(f'cannot use reserved tag key "{name}"')
        if name in tags:
            raise LineError("duplicate tags")
        tags[name] = value
    position = _skip_spaces(line, position)
    fields: dict[str, Value] = {}
    repeated = None
    while True:
        missing = "missing field key" if fields else "missing fields"
        name, position = _take_key(line, position, missing)
        if name == "time":
            raise LineError(
                f'invalid field name: input field "time" on measurement "{measurement}"'
                " is invalid"
            )
        position = _expect("=", line, position, "invalid field format")
        value_read, position = _take_value(line, position)
        repeated = name if name in fields else repeated
        fields[name] = value_read
        if line[position : position + 1] != ",":
            break
        position += 1
    time = None
    if rest := line[_skip_spaces(line, position) :].rstrip(" "):
        if not _INTEGER.fullmatch(rest):
            raise LineError("bad timestamp")
        time = int(rest)
        if time not in INTEGERS:
            raise LineError("time outside range")
    return Point(measurement, tags, fields, time, repeated)


def _take(
    pattern: re.Pattern[str], line: str, position: int, missing: str
) -> tuple[str, int]:
    """Return a name as it is written, and where it ends."""
    match = pattern.match(line, position)
    if match is None:
        raise LineError(missing)
    if _READ_DIFFERENTLY.search(match[0]):
        raise LineError(f"point is invalid: not everyone reads {match[0]!r} alike")
    if len(match[0].encode()) > LONGEST_STRING:
        raise LineError("max key length exceeded")
    return match[0], match.end()


def _take_key(line: str, position: int, missing: str) -> tuple[str, int]:
    """Return a tag key, a tag value or a field key, and where it ends."""
    key, position = _take(_KEY, line, position, missing)
    return _ESCAPED_IN_KEY.sub(r"\1", key), position


def _expect(character: str, line: str, position: int, missing: str) -> int:
    if line[position : position + 1] != character:
        raise LineError(missing)
    return position + 1


def _skip_spaces(line: str, position: int) -> int:
    """Return where something comes again; there must be a space, or the end."""
    if position < len(line) and line[position] != " ":
        raise LineError("invalid field format")
    while line[position : position + 1] == " ":
        position += 1
    return position


def _take_value(line: str, position: int) -> tuple[Value, int]:
    """Return a value, and where it ends."""
    if line[position : position + 1] == '"':
        match = _STRING.match(line, position)
        if match is None:
            raise LineError("unbalanced quotes")
        text = re.sub(r'\\(["\\])', r"\1", match[1])
        if len(text.encode()) > LONGEST_STRING:
            raise LineError("string is too long")
        return text, match.end()
    match = _TOKEN.match(line, position)
    token = match[0] if match else ""
    return _parse_value(token), position + len(token)


def _parse_value(token: str) -> Value:
    if not token:
        raise LineError("missing field value")
    if token in _BOOLEANS:
        return _BOOLEANS[token]
    number, kind = token[:-1], token[-1]
    if kind in "iu" and _INTEGER.fullmatch(number):
        value = int(number)
        if value not in (INTEGERS if kind == "i" else UNSIGNED):
            raise LineError(f"unable to parse integer {number}: value out of range")
        return value if kind == "i" else Unsigned(value)
    if not _FLOAT.fullmatch(token):
        numeric = token[0] in "0123456789.-nN"
        raise LineError("invalid number" if numeric else "invalid boolean")
    if math.isinf(parsed := float(token)):
        raise LineError("invalid float")
    return parsed
