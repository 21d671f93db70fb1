"""A parser of the InfluxDB line protocol that takes what is in its specification, no more.

What servers forgive, or read in different ways, is an error here: a backslash that escapes
nothing, tags that are not sorted, a control character.
"""

import re
from typing import NamedTuple

_NAME = r"(?:[^\\,= ]|\\[,= ])++"
_VALUE = (
    r'(?:"(?:[^"\\]|\\["\\])*+"|-?\d++i|-?\d++(?:\.\d++)?(?:e[-+]?\d++)?|true|false)'
)
_LINE = re.compile(
    r"(?P<measurement>(?:[^\\, ]|\\[, ])++)"
    rf"(?P<tags>(?:,{_NAME}={_NAME})*+)"
    rf" (?P<fields>{_NAME}={_VALUE}(?:,{_NAME}={_VALUE})*+)"
    r" (?P<time>-?\d++)"
)
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf"({_NAME})=({_VALUE}),?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Point(NamedTuple):
    """What a line says; an integer is an int, a float a float."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | int | bool | str]
    time: int


def parse(line: bytes) -> Point:
    """Return what a line says; raises ValueError for what is none."""
    text = line.decode("utf-8")
    if not (found := _LINE.fullmatch(text)) or _CONTROL.search(text):
        raise ValueError(f"Not a line: {text!r}")
    tags = [(_plain(name), _plain(said)) for name, said in _TAG.findall(found["tags"])]
    fields = [
        (_plain(name), _value(said)) for name, said in _FIELD.findall(found["fields"])
    ]
    names = [name for name, _ in tags]
    if names != sorted(names, key=str.encode):
        raise ValueError(f"Tags that are not sorted: {names}")
    names += [name for name, _ in fields]
    if len(set(names)) < len(names):
        raise ValueError(f"A name for two things: {names}")
    measurement = _plain(found["measurement"])
    if measurement[0] in "_#" or any(n[0] == "_" or n == "time" for n in names):
        raise ValueError(f"A reserved name: {measurement}, {names}")
    return Point(measurement, dict(tags), dict(fields), _integer(found["time"]))


def _plain(escaped: str) -> str:
    return re.sub(r"\\(.)", r"\1", escaped)


def _value(said: str) -> float | int | bool | str:
    if said.startswith('"'):
        return _plain(said[1:-1])
    if said in {"true", "false"}:
        return said == "true"
    return _integer(said[:-1]) if said.endswith("i") else float(said)


def _integer(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError(f"Beyond 64 bits: {number}")
    return number
