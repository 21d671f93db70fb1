"""The InfluxDB line protocol: one line for each record, or for the signal of a packet.

Measurements, tags, fields and their types are those of `docs/topics.md`. Names and texts
are written so that InfluxDB 1, 2 and 3 and VictoriaMetrics read them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import functools
import math
import time
from typing import Final

from ..records import (
    Advertisement,
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
    Route,
    Sighting,
    Value,
)
from . import Message
from .payloads import RSSI, safe_text, to_json
from .raw import NO_RSSI, NO_TX_POWER, Heartbeat
from .topics import MAX_PART

DEFAULT_MEASUREMENT: Final = "ble"
# What a text may hold, in bytes of UTF-8: InfluxDB 2 and 3 refuse more.
MAX_TEXT: Final = 65_536
# A field of one of these names would be taken for the time, or for a tag of a reading.
RESERVED_FIELDS: Final = frozenset({"time", "address", "device", "model", "scanner"})
# The first and the last moment that InfluxDB takes, in ns.
_MOMENTS: Final = range(-(2**63) + 2, 2**63 - 1)

_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
# No line can carry control characters, line breaks among them. A backslash escapes itself
# in InfluxDB 3 and in VictoriaMetrics, but not in InfluxDB 1: before what is escaped, it
# would end a name in the one and not in the other.
_MEASUREMENT: Final[dict[int, str]] = {
    **dict.fromkeys((*_CONTROLS, ord("\\")), "_"),
    ord(","): r"\,",
    ord(" "): r"\ ",
}
_TAG: Final = {**_MEASUREMENT, ord("="): r"\="}
# VictoriaMetrics takes a quote in a field's name for the beginning of a text.
_FIELD: Final = {**_TAG, ord('"'): "_"}
_TEXT: Final[dict[int, str]] = {
    **dict.fromkeys(_CONTROLS, " "),
    ord('"'): r"\"",
    ord("\\"): r"\\",
}
# Looking these up takes a fraction of the time of formatting them.
_RSSI: Final[dict[int | None, bytes]] = {
    **{rssi: b"%di" % rssi for rssi in range(-128, 128)},
    **dict.fromkeys(NO_RSSI, b""),
}
_TX_POWER: Final[dict[int | None, bytes]] = {
    **{power: b",tx_power=%di " % power for power in range(-128, 128)},
    **dict.fromkeys(NO_TX_POWER, b" "),
}
_BELOW_MICROSECONDS: Final = tuple(b"%03d" % number for number in range(1000))


class LinesLayout:
    """Records as points, each as one line without a line break.

    The names of all measurements begin with that of the readings. They differ so that a
    name has one type in each: servers refuse a line of which a field has another.
    """

    makes_objects = False

    def __init__(self, measurement: str = DEFAULT_MEASUREMENT) -> None:
        """Initialize the layout."""
        self._reading = escape_measurement(measurement)
        self._alert = f"{self._reading}_alert"
        self._error = f"{self._reading}_error"
        self._connectivity = f"{self._reading}_connectivity"
        self._scanner = f"{self._reading}_scanner"
        self._bridge = f"{self._reading}_bridge"

    def prefix(self, device_id: str) -> str:
        """Return nothing: a line has no topic."""
        return ""

    def messages(self, record: Record) -> list[Message]:
        """Return the line of a record, and none of a reading that says nothing.

        The same record is always the same line, so that a server that gets it twice has it
        once. Raises ValueError where nothing of it can be said; a single field that cannot
        be is left out (`payloads.unpublishable`).
        """
        device = record.device
        match record:
            case Reading():
                if not (fields := _fields(record)):
                    return []
                series = _series(
                    self._reading, device, None, device.model, record.scanner_id
                )
                moment = record.time
            case Alert():
                series = _series(self._alert, device, record.name)
                fields, moment = _alert_fields(record)
            case Error():
                series = _series(self._error, device, record.name)
                fields = {
                    "body": _quoted(record.body),
                    "tags": _quoted_json(dict(record.tags)),
                }
                moment = record.created_at
            case Connectivity():
                series = _series(self._connectivity, device)
                fields = {
                    "connected": _boolean(record.connected),
                    "connection_id": _quoted(record.connection_id),
                }
                moment = record.created_at
        return [Message("", _line(series, fields, moment), is_state=False)]

    def heartbeat(self, heartbeat: Heartbeat, now: float) -> bytes:
        """Return how a scanner is doing; `now` is Unix time in seconds."""
        scanner = heartbeat.scanner
        fields = {
            "advertisements_dropped": _integer(heartbeat.dropped),
            "advertisements_filtered": _integer(scanner.filtered),
            "advertisements_published": _integer(heartbeat.published),
            "advertisements_received": _integer(scanner.received),
            "connected": _boolean(heartbeat.connected),
            "devices": _integer(heartbeat.devices),
            "messages_sent": _integer(heartbeat.messages_sent),
            "online": _boolean(heartbeat.status == "running"),
            "reconnects": _integer(heartbeat.reconnects),
            "status": _quoted(heartbeat.status),
            "uptime_seconds": _integer(int(heartbeat.uptime)),
        }
        if heartbeat.last_error is not None:
            fields["last_error"] = _quoted(heartbeat.last_error)
        return _line(
            _tagged(self._scanner, [("scanner", scanner.scanner_id)]), fields, now
        )

    def bridge_status(self, bridge_id: str, online: bool, now: float) -> bytes:
        """Return whether the bridge is there; `now` is Unix time in seconds."""
        return _line(
            _tagged(self._bridge, [("bridge", bridge_id)]),
            {"online": _boolean(online)},
            now,
        )


# --- names ------------------------------------------------------------------------------


def escape_measurement(name: str) -> str:
    """Return the name of a measurement as it stands in a line.

    `ble` stands before one that is empty, would be a comment (`#`), or is reserved (`_`).
    """
    return _name(name, _MEASUREMENT, DEFAULT_MEASUREMENT)


@functools.lru_cache(maxsize=4096)
def field_key(name: str) -> str:
    """Return the name of a field of a reading as it stands in a line.

    One that is reserved gets an underscore at its end; `field` stands before one that is
    empty or begins with an underscore, which InfluxDB keeps for itself.
    """
    if name in RESERVED_FIELDS:
        return f"{name}_"
    return _name(name, _FIELD, "field")


def _name(name: str, escapes: dict[int, str], prefix: str) -> str:
    escaped = safe_text(name)[:MAX_PART].translate(escapes)
    return prefix + escaped if not escaped or escaped[0] in "_#" else escaped


@functools.lru_cache(maxsize=4096)
def _series(
    measurement: str,
    device: DeviceIdentity,
    name: str | None = None,
    model: str | None = None,
    scanner_id: str | None = None,
) -> str:
    """Return measurement and tags of a record of a device."""
    return _tagged(
        measurement,
        [
            ("address", _address(device, device.address)),
            ("device", device.device_id),
            ("model", model),
            ("name", name),
            ("scanner", scanner_id),
        ],
    )


def _address(device: DeviceIdentity | None, address: str | None) -> str | None:
    """Return an address that stays; each one that does not would be a series for ever."""
    return None if device is not None and device.rotates else address


def _tagged(measurement: str, tags: list[tuple[str, str | None]]) -> str:
    """Return measurement and tags, which are sorted by name; an empty one is left out."""
    return measurement + "".join(
        f",{name}={safe_text(text)[:MAX_PART].translate(_TAG)}"
        for name, text in tags
        if text
    )


# --- values -----------------------------------------------------------------------------


def _fields(reading: Reading) -> dict[str, str]:
    """Return all that a reading says, by the names of the fields; of two alike, the first.

    The signal strength is that of the packet, whatever the device itself says. Raises
    ValueError where nothing is left of what it says.
    """
    fields: dict[str, str] = {}
    found = False
    for said in (reading.values, reading.events):
        for name, value in said.items():
            found = True
            try:
                text = _signal(value) if name == RSSI else _value(value)
            except ValueError:
                continue
            fields.setdefault(field_key(name), text)
    if reading.rssi is not None:
        fields[RSSI] = _integer(reading.rssi)
    if found and not fields:
        raise ValueError("No value of the reading can be written")
    return fields


def _alert_fields(alert: Alert) -> tuple[dict[str, str], float]:
    """Return what an alert says, and when it does: when it started, or when it ended."""
    ended_at = alert.ended_at
    fields = {
        "active": _boolean(ended_at is None),
        "audiences": _quoted_json(list(alert.audiences)),
        "started_at": _integer(_nanoseconds(alert.started_at) // 1_000_000),
    }
    if ended_at is None:
        return fields, alert.started_at
    fields["ended_at"] = _integer(_nanoseconds(ended_at) // 1_000_000)
    return fields, ended_at


def _value(value: Value) -> str:
    """Return a value of a device; raises ValueError for what cannot be said.

    A number is always a float. Devices say 21 and then 21.5, and a server refuses a line
    in which a field has another type than it had in its first.
    """
    if isinstance(value, bool):
        return _boolean(value)
    if isinstance(value, float | int):
        return repr(_number(value))
    if isinstance(value, str):
        return _quoted(value)
    return _quoted_json(value)


def _signal(value: Value) -> str:
    """Return a signal strength that a device says of its own, as a whole number."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return _integer(round(_number(value)))
    raise ValueError("Not a signal strength")


def _number(value: float) -> float:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("An integer beyond 64 bits")
    if not math.isfinite(value):
        raise ValueError(f"Not a number: {value}")
    return float(value)


def _integer(value: int) -> str:
    if not -(2**63) <= value < 2**63:
        raise ValueError("An integer beyond 64 bits")
    return f"{value:d}i"


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _quoted(text: str) -> str:
    """Return a text in quotes, cut to what fits whatever its characters are."""
    return f'"{text[: MAX_TEXT // 4].translate(_TEXT)}"'


def _quoted_json(value: Value) -> str:
    """Return a list or a mapping as a text; raises ValueError for what JSON cannot say."""
    text = to_json(value)
    if len(text) > MAX_TEXT:
        raise ValueError("Longer than a text may be")
    return f'"{text.decode().translate(_TEXT)}"'


# --- points -----------------------------------------------------------------------------


def _line(series: str, fields: Mapping[str, str], seconds: float) -> bytes:
    """Return a point at a Unix time in seconds, as a line in UTF-8 without a line break."""
    said = ",".join([f"{name}={text}" for name, text in fields.items()])
    return f"{series} {said} {_nanoseconds(seconds)}".encode(errors="replace")


def _nanoseconds(seconds: float) -> int:
    """Return a Unix time in seconds in ns, exact to the microsecond.

    Raises ValueError for a time that the format cannot say.
    """
    try:
        moment = round(seconds * 1_000_000) * 1000
    except OverflowError as err:
        raise ValueError(f"Not a time: {seconds}") from err
    if moment not in _MOMENTS:
        raise ValueError(f"Not a time: {seconds}")
    return moment


@dataclass(slots=True, eq=False)
class _Series:
    """What stays of a sighting's points; `time` (µs) is that of the last one.

    `same` counts the points before it at that time.
    """

    device: DeviceIdentity | None
    scanner_id: str
    head: bytes
    time: int = -1
    same: int = 0


class SignalLayout:
    """Advertisements as points of the signal alone: who was heard by whom, how strong.

    The names and tags are built once for each route.
    """

    def __init__(self, measurement: str = DEFAULT_MEASUREMENT) -> None:
        """Initialize the layout; the name of the measurement follows that of readings."""
        self._measurement = f"{escape_measurement(measurement)}_signal"
        self._second = -1
        self._offset = 0

    def payload(
        self, route: Route, sighting: Sighting, advertisement: Advertisement
    ) -> bytes:
        """Return an advertisement as a line without a line break.

        It is empty where the signal strength is not known. A proxy gives all packets of one
        message one time; those of one device then are 1 ns apart, since a point at the time
        of another would take its place. Raises ValueError for data that are not what the
        stack promises.
        """
        try:
            rssi = advertisement.rssi
            if (strength := _RSSI.get(rssi)) is None:
                strength = b"%di" % rssi
            elif not strength:
                return b""
            if (power := advertisement.tx_power) is None:
                said = b" "
            else:
                said = _TX_POWER.get(power) or b",tx_power=%di " % power
            series: _Series | None = route.parts
            if (
                series is None
                or series.device is not sighting.device
                or series.scanner_id != sighting.scanner.scanner_id
            ):
                series = self._build(route, sighting)
            monotonic = advertisement.time
            if int(monotonic) != self._second:
                self._set_clock(monotonic)
            # The half rounds: what a float cannot say must not cost a microsecond.
            heard = int(monotonic * 1_000_000 + 0.5) + self._offset
            if heard != series.time:
                series.time = heard
                series.same = 0
            else:
                series.same += 1
            return b"%b%b%b%d%b" % (
                series.head,
                strength,
                said,
                heard,
                _BELOW_MICROSECONDS[series.same % 1000],
            )
        except (TypeError, AttributeError, OverflowError) as err:
            raise ValueError("Not an advertisement of the stack") from err

    def _set_clock(self, monotonic: float) -> None:
        """Follow the system's clock when it is set, once a second."""
        self._offset = round((time.time() - time.monotonic()) * 1_000_000)
        self._second = int(monotonic)

    def _build(self, route: Route, sighting: Sighting) -> _Series:
        """Build what stays of the points of a sighting."""
        device, scanner_id = sighting.device, sighting.scanner.scanner_id
        tags = [
            ("address", _address(device, sighting.address)),
            ("device", device.device_id if device else None),
            ("scanner", scanner_id),
        ]
        head = f"{_tagged(self._measurement, tags)} rssi="
        route.parts = series = _Series(device, scanner_id, head.encode())
        return series
