"""What payloads are made of: values, texts and times, as JSON and UTF-8 can say them."""

from collections.abc import Callable
from datetime import UTC, datetime
import math
from typing import Final

import orjson

from ..records import Reading, Value

# The field of the signal strength, in a reading and in topics.
RSSI: Final = "rssi"


def safe_text(text: str) -> str:
    """Return text that UTF-8 can say: a lone surrogate becomes a question mark."""
    return text.encode(errors="replace").decode()


def iso_timestamp(seconds: float) -> str:
    """Return a Unix time in seconds as UTC, ISO 8601 with milliseconds and Z.

    Raises ValueError for a time outside of the years 1 to 9999.
    """
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as err:
        raise ValueError(f"Not a time: {seconds}") from err
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def to_json(value: Value) -> bytes:
    """Return a value as JSON, a number in its shortest form.

    Raises ValueError for what JSON cannot say so that all understand it: an infinity, NaN,
    an integer beyond 64 bits, and what is no value at all.
    """
    try:
        return orjson.dumps(_checked(value))
    except (TypeError, RecursionError) as err:
        raise ValueError("Not a value that JSON can say") from err


def _checked(value: object) -> object:
    """Return a value with safe texts; orjson itself would make null of an infinity."""
    kind = type(value)
    if kind is int or kind is bool:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"Not a number: {value}")
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, dict):
        return {_checked(key): _checked(item) for key, item in value.items()}
    raise TypeError(f"Not a value: {type(value)}")


def encode_fields(
    reading: Reading, encode: Callable[[Value], bytes]
) -> list[tuple[str, bytes, bool]]:
    """Return name, payload, and whether it is a state, of each field of a reading.

    The signal strength is a field too; where the device says one of its own, that of the
    packet is the one. A field that cannot be said costs no other: it is left out, and
    `unpublishable` names it. Raises ValueError where nothing is left.
    """
    encoded = []
    fields = _fields(reading)
    for name, value, is_state in fields:
        try:
            encoded.append((name, encode(value), is_state))
        except ValueError:
            continue
    if fields and not encoded:
        raise ValueError("No value of the reading can be published")
    return encoded


def unpublishable(reading: Reading) -> list[str]:
    """Return the names of the fields that layouts leave out since no payload can say them."""
    names = []
    for name, value, _ in _fields(reading):
        if _is_plain(value):
            continue
        try:
            to_json(value)
        except ValueError:
            names.append(name)
    return names


def _is_plain(value: Value) -> bool:
    """Tell of nearly all values, in a tenth of the time, that they can be said."""
    kind = type(value)
    return (
        kind is bool
        or kind is str
        or (isinstance(value, float) and math.isfinite(value))
        or (isinstance(value, int) and -(2**63) <= value < 2**63)
    )


def _fields(reading: Reading) -> list[tuple[str, Value, bool]]:
    """Return name, value, and whether it is a state, of all that a reading says."""
    rssi = reading.rssi
    fields: list[tuple[str, Value, bool]] = [
        (name, value, name != RSSI)
        for name, value in reading.values.items()
        if name != RSSI or rssi is None
    ]
    if reading.events:
        fields += [(name, event, False) for name, event in reading.events.items()]
    if rssi is not None:
        fields.append((RSSI, rssi, False))
    return fields
