"""The line protocol as far as it must be read: what is sent for the user, and what clashes."""

from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import Final

from .errors import LinesError

_SERIES: Final = re.compile(
    r"((?:[^\\, ]|\\.)+)(?:,(?:[^\\,= ]|\\.)+=(?:[^\\,= ]|\\.)+)* +"
)
_FIELD: Final = re.compile(
    r"""((?:[^\\,= ]|\\.)+)=("(?:[^"\\]|\\.)*"|[^", ]+)(,|\ +|$)"""
)
_TIME: Final = re.compile(r"(-?\d{1,19})? *")
_ESCAPED: Final = re.compile(r"\\([,= \\])")
_KINDS: Final = (
    ("string", re.compile(r'".*"')),
    ("integer", re.compile(r"[+-]?\d{1,19}i")),
    ("unsigned", re.compile(r"\d{1,20}u")),
    ("boolean", re.compile(r"[tTfF]|true|True|TRUE|false|False|FALSE")),
    ("float", re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")),
)


@dataclass(frozen=True, slots=True)
class Point:
    """The name of a point's measurement, and the kind of each of its fields."""

    measurement: str
    kinds: Mapping[str, str]


def parse(line: bytes) -> Point:
    """Return what a line says; raises LinesError for what is no line."""
    try:
        text = line.decode()
    except UnicodeDecodeError as err:
        raise LinesError("Not in UTF-8") from err
    if "\0" in text or (series := _SERIES.match(text)) is None or text[0] == "#":
        raise LinesError("No measurement, or no tags")
    kinds = {}
    at, end = series.end(), ","
    while end == ",":
        if (field := _FIELD.match(text, at)) is None:
            raise LinesError("No field")
        name, value, end = field.groups()
        kinds[_plain(name)] = _kind(value)
        at = field.end()
    if _TIME.fullmatch(text, at) is None:
        raise LinesError("No time in ns")
    return Point(_plain(series[1]), kinds)


def split(payload: bytes) -> list[bytes]:
    """Return the lines of a payload, without comments and empty ones.

    Raises LinesError where there is none, or one that is no line.
    """
    lines = [line.strip() for line in payload.split(b"\n")]
    lines = [line for line in lines if line and not line.startswith(b"#")]
    if not lines:
        raise LinesError("No line")
    for line in lines:
        parse(line)
    return lines


def _plain(name: str) -> str:
    return _ESCAPED.sub(r"\1", name)


def _kind(value: str) -> str:
    for kind, pattern in _KINDS:
        if pattern.fullmatch(value):
            return kind
    raise LinesError("No value")
