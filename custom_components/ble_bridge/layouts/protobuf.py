"""Fields of Protocol Buffers, as far as `docs/protobuf/telemetry.proto` needs them.

A field is its number with a wire type, then its value; a message is its fields, one after
the other (https://protobuf.dev/programming-guides/encoding). Written here, since there is
no compiled protobuf package for the musl of Home Assistant OS on PyPI, and where it is not
compiled it takes ten times as long.
"""

import math
import struct
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_MICROSECONDS: Final = 1_000_000
# The years 1 to 9999 in Unix time, which are those of a Timestamp (timestamp.proto).
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
# All tags, as no number of a field is above 15, and most lengths.
_BYTES: Final = tuple(bytes((number,)) for number in range(0x80))


def varint(number: int) -> bytes:
    """Return an unsigned integer in as few bytes as it needs, the low ones first.

    Raises ValueError for one that is negative, or beyond 64 bits.
    """
    if 0 <= number < 0x80:
        return _BYTES[number]
    if not 0 <= number < 1 << 64:
        raise ValueError("Not an unsigned integer of 64 bits")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def uint_field(field: int, number: int) -> bytes:
    """Return a field of type uint32, uint64, bool or enum.

    Raises ValueError for a number that is negative, or beyond 64 bits.
    """
    return _BYTES[field << 3 | _VARINT] + varint(number)


def sint_field(field: int, number: int, bits: int = 64) -> bytes:
    """Return a field of type sint64, or sint32 with 32 bits.

    Raises ValueError for a number beyond these bits.
    """
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f"Not a signed integer of {bits} bits")
    zigzag = number << 1 if number >= 0 else ~(number << 1)
    return _BYTES[field << 3 | _VARINT] + varint(zigzag)


def double_field(field: int, number: float) -> bytes:
    """Return a field of type double."""
    return _BYTES[field << 3 | _FIXED64] + struct.pack("<d", number)


def bytes_field(field: int, content: bytes) -> bytes:
    """Return a field of type bytes, or one that is a message."""
    return _BYTES[field << 3 | _LENGTH] + varint(len(content)) + content


def text_field(field: int, text: str) -> bytes:
    """Return a field of type string, with a question mark for what UTF-8 cannot say."""
    return bytes_field(field, text.encode(errors="replace"))


def timestamp_field(field: int, seconds: float) -> bytes:
    """Return a Unix time in seconds as a Timestamp, to the same millisecond as in JSON.

    Raises ValueError for a time outside of the years 1 to 9999.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"Not a time: {seconds}")
    # As datetime rounds, and its text is cut: `payloads.iso_timestamp`.
    fraction, whole = math.modf(seconds)
    second, microsecond = divmod(round(fraction * _MICROSECONDS), _MICROSECONDS)
    return bytes_field(
        field, whole_seconds(int(whole) + second) + nanoseconds(microsecond // 1000)
    )


def whole_seconds(second: int) -> bytes:
    """Return the first field of a Timestamp.

    Raises ValueError for a time outside of the years 1 to 9999.
    """
    if not _FIRST_SECOND <= second <= _LAST_SECOND:
        raise ValueError(f"Not a time: {second}")
    # An int64, whose negative numbers count down from the top.
    return uint_field(1, second % (1 << 64))


def nanoseconds(millisecond: int) -> bytes:
    """Return the second field of a Timestamp, empty where it is 0."""
    return uint_field(2, millisecond * _MICROSECONDS) if millisecond else b""
