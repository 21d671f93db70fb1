"""The layout of NATS: every record on a subject of its own, as protobuf or JSON.

Subjects and payloads are those of `docs/topics.md`; the messages of protobuf stand in
`docs/protobuf/telemetry.proto`, and those of JSON have a schema each in `docs/schemas/`.
"""

import functools
import re
import time
from typing import Final

import orjson

from ..records import (
    Advertisement,
    Alert,
    Connectivity,
    Error,
    Reading,
    Record,
    Route,
    Sighting,
)
from . import Message
from .payloads import iso_timestamp, safe_text, to_json
from .protobuf import bytes_field, nanoseconds, sint_field, whole_seconds
from .raw import NO_RSSI
from .telemetry import encode_advertisement, encode_record, encode_values

MAX_TOKEN: Final = 128
MAX_NAMESPACE: Final = 200
_RAW: Final = "raw"
_SCANNER: Final = "scanner"
# Device IDs whose subjects would be those of something else.
RESERVED_TOKENS: Final = frozenset({_RAW, _SCANNER})
# What separates or matches, and all but the printable ASCII: blanks, controls, and what
# clients need not understand (NATS, ADR-6).
_UNSAFE: Final = re.compile(r"[^!-~]|[.*>]")
# First tokens that begin so are those of servers ($SYS, $JS, _R_) and clients (_INBOX).
_TAKEN: Final = ("$", "_")
_KINDS: Final[dict[type[Record], str]] = {
    Reading: "data",
    Alert: "alerts",
    Error: "errors",
    Connectivity: "connectivity",
}


def safe_token(text: str) -> str:
    """Return text as one token of a subject: nothing in it separates or matches.

    The result is never empty, and holds at most `MAX_TOKEN` characters, which are bytes.
    """
    return _UNSAFE.sub("_", text)[:MAX_TOKEN] or "_"


def is_valid_namespace(text: str) -> bool:
    """Tell whether text can stand before a subject: tokens, none of them a wildcard."""
    return (
        0 < len(text) <= MAX_NAMESPACE
        and not text.startswith(_TAKEN)
        and all(token and safe_token(token) == token for token in text.split("."))
    )


def advertisement_subject(namespace: str, sighting: Sighting) -> str:
    """Return the subject of a sighting's advertisements."""
    scanner_id = safe_token(sighting.scanner.scanner_id)
    return f"{namespace}.{_RAW}.{scanner_id}.{safe_token(sighting.address)}"


def scanner_subject(namespace: str, scanner_id: str) -> str:
    """Return the subject of a scanner's heartbeat."""
    return f"{namespace}.{_SCANNER}.{safe_token(scanner_id)}.status"


class SubjectsLayout:
    """Records of devices, one message each, under a namespace.

    There is room for one more name in each: in JSON, an object, at its end; in protobuf as
    `telemetry.RESEND_MARK`.
    """

    makes_objects = True

    def __init__(self, namespace: str, *, is_json: bool) -> None:
        """Initialize the layout."""
        self._namespace = namespace
        self._encode = _to_json if is_json else encode_record

    def prefix(self, device_id: str) -> str:
        """Return what all subjects of a device begin with, with a dot at its end."""
        return f"{self._namespace}.{safe_token(device_id)}."

    def messages(self, record: Record) -> list[Message]:
        """Return the message of a record, or none of a reading that says nothing.

        Raises ValueError where nothing of it can be said; a single field that cannot be is
        left out (`payloads.unpublishable`).
        """
        if isinstance(record, Reading) and not (
            record.values or record.events or record.rssi is not None
        ):
            return []
        subject = _subject(
            self._namespace, record.device.device_id, _KINDS[type(record)]
        )
        return [Message(subject, self._encode(record), is_state=False)]


# Making names safe takes longer than the rest of a subject.
@functools.lru_cache(maxsize=8192)
def _subject(namespace: str, device_id: str, kind: str) -> str:
    return f"{namespace}.{safe_token(device_id)}.{kind}"


# --- JSON -------------------------------------------------------------------------------


def _to_json(record: Record) -> bytes:
    """Return a record as UTF-8 JSON, with the names of the messages of protobuf."""
    address = record.device.address
    return orjson.dumps(
        {
            "device": safe_text(record.device.device_id),
            "address": None if address is None else safe_text(address),
            **_content(record),
        }
    )


def _content(record: Record) -> dict[str, object]:
    match record:
        case Reading():
            return {
                "created_at": iso_timestamp(record.time),
                "scanner_id": safe_text(record.scanner_id),
                "rssi": record.rssi,
                "data": {
                    safe_text(name): orjson.Fragment(value)
                    for name, value in encode_values(record, to_json)
                },
                "events": {
                    safe_text(name): safe_text(event)
                    for name, event in record.events.items()
                },
            }
        case Alert():
            started_at, ended_at = iso_timestamp(record.started_at), None
            if record.ended_at is not None:
                ended_at = iso_timestamp(record.ended_at)
            alert = {
                "name": safe_text(record.name),
                "audiences": [safe_text(audience) for audience in record.audiences],
                "started_at": started_at,
                "ended_at": ended_at,
            }
            return {"created_at": ended_at or started_at, "alerts": [alert]}
        case Error():
            created_at = iso_timestamp(record.created_at)
            error = {
                "created_at": created_at,
                "name": safe_text(record.name),
                "tags": {
                    safe_text(tag): safe_text(text) for tag, text in record.tags.items()
                },
                "body": safe_text(record.body),
            }
            return {"created_at": created_at, "errors": [error]}
        case Connectivity():
            return {
                "created_at": iso_timestamp(record.created_at),
                "connection_id": safe_text(record.connection_id),
                "status": "CONNECTED" if record.connected else "DISCONNECTED",
            }


# --- advertisements ---------------------------------------------------------------------

_RSSI_FIELD: Final = 11
_TIME_FIELD: Final = 12
# Looking these up takes half the time of encoding them.
_RSSI: Final[dict[int | None, bytes]] = {
    **{rssi: sint_field(_RSSI_FIELD, rssi, 32) for rssi in range(-128, 128)},
    **dict.fromkeys(NO_RSSI, b""),
}


@functools.cache
def _milliseconds(length: int) -> tuple[bytes, ...]:
    """Return how the time begins for each millisecond, before seconds of some length.

    The nanoseconds stand first, so that the seconds, which are the same for a thousand
    milliseconds, follow as they are.
    """
    return tuple(
        bytes_field(_TIME_FIELD, nanoseconds(number) + bytes(length))[:-length]
        for number in range(1000)
    )


class RawProtobufLayout:
    """Advertisements as protobuf.

    A payload is put together from parts that are built once per route, so long as the
    payload stays the same: only RSSI and time are written each time. One object serves all
    destinations, so that each advertisement is written once.
    """

    def __init__(self) -> None:
        """Initialize the layout."""
        self._second = -1
        self._offset = 0.0
        self._seconds = b""
        self._milliseconds: tuple[bytes, ...] = ()
        self._last: Advertisement | None = None
        self._payload = b""

    def payload(
        self, route: Route, sighting: Sighting, advertisement: Advertisement
    ) -> bytes:
        """Return an advertisement as protobuf.

        Raises ValueError for data that are not what the stack promises.
        """
        if advertisement is self._last:
            return self._payload
        try:
            if route.version != sighting.version:
                route.parts = encode_advertisement(sighting, advertisement)
                route.version = sighting.version
            heard = advertisement.time + self._offset
            if int(heard) != self._second:
                heard = self._set_clock(advertisement.time)
            if (strength := _RSSI.get(rssi := advertisement.rssi)) is None:
                strength = sint_field(_RSSI_FIELD, rssi, 32)
            payload = b"".join(
                (
                    route.parts,
                    strength,
                    self._milliseconds[int(heard % 1 * 1000)],
                    self._seconds,
                )
            )
        except (TypeError, AttributeError, OverflowError) as err:
            raise ValueError("Not an advertisement of the stack") from err
        self._payload = payload
        self._last = advertisement
        return payload

    def _set_clock(self, monotonic: float) -> float:
        """Set the second, following the system's clock when it is set."""
        self._offset = time.time() - time.monotonic()
        heard = monotonic + self._offset
        second = int(heard)
        self._seconds = whole_seconds(second)
        self._milliseconds = _milliseconds(len(self._seconds))
        self._second = second
        return heard
