"""The messages of `docs/protobuf/telemetry.proto`, whose numbers of fields stand here."""

from collections.abc import Callable
import math
from typing import Final

from ..records import (
    Advertisement,
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
    Sighting,
    Value,
)
from .payloads import RSSI, to_json
from .protobuf import (
    bytes_field,
    double_field,
    sint_field,
    text_field,
    timestamp_field,
    uint_field,
)
from .raw import Heartbeat, address_type, content

# The field `is_resend`, which has the same number in all messages: appended to one, it says
# that the message may have been sent before.
RESEND_MARK: Final = uint_field(15, True)
_ADDRESS_TYPES: Final = {"public": 1, "random": 2}
_STATUSES: Final = {"running": 1, "offline": 2, "stopped": 3}


def encode_record(record: Record) -> bytes:
    """Return a Payload, Alerts, Errors or Connectivity.

    Raises ValueError where nothing of the record can be said.
    """
    match record:
        case Reading():
            return _payload(record)
        case Alert():
            return _alerts(record)
        case Error():
            return _errors(record)
        case Connectivity():
            return _connectivity(record)


def encode_values[EncodedT](
    reading: Reading, encode: Callable[[Value], EncodedT]
) -> list[tuple[str, EncodedT]]:
    """Return name and value of each value of a reading; events are none.

    What `encode` refuses is left out, and so is the device's own signal strength where
    there is one of the packet. Raises ValueError where nothing is left of the reading.
    """
    encoded = []
    for name, value in reading.values.items():
        if name == RSSI and reading.rssi is not None:
            continue
        try:
            encoded.append((name, encode(value)))
        except ValueError:
            continue
    if not encoded and reading.values and not reading.events and reading.rssi is None:
        raise ValueError("No value of the reading can be published")
    return encoded


def _payload(reading: Reading) -> bytes:
    return b"".join(
        (
            *(
                bytes_field(1, text_field(1, name) + bytes_field(2, value))
                for name, value in encode_values(reading, encode_value)
            ),
            *(
                bytes_field(
                    1, text_field(1, name) + bytes_field(2, text_field(7, event))
                )
                for name, event in reading.events.items()
            ),
            _origin(reading.time, reading.device),
            text_field(5, reading.scanner_id),
            b"" if reading.rssi is None else sint_field(6, reading.rssi, 32),
        )
    )


def encode_value(value: Value) -> bytes:
    """Return a Value; raises ValueError for what `to_json` refuses too."""
    if isinstance(value, bool):
        return uint_field(5, value)
    if isinstance(value, int):
        return sint_field(2, value) if value < 1 << 63 else uint_field(3, value)
    if isinstance(value, str):
        return text_field(1, value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"Not a number: {value}")
        return double_field(4, value)
    return bytes_field(6, to_json(value))


def _alerts(alert: Alert) -> bytes:
    ended_at = alert.ended_at
    return b"".join(
        (
            bytes_field(
                1,
                b"".join(
                    (
                        text_field(1, alert.name),
                        *(text_field(2, audience) for audience in alert.audiences),
                        timestamp_field(3, alert.started_at),
                        b"" if ended_at is None else timestamp_field(4, ended_at),
                    )
                ),
            ),
            _origin(alert.started_at if ended_at is None else ended_at, alert.device),
        )
    )


def _errors(error: Error) -> bytes:
    created_at = error.created_at
    return b"".join(
        (
            bytes_field(
                1,
                b"".join(
                    (
                        timestamp_field(1, created_at),
                        text_field(2, error.name),
                        *(
                            bytes_field(3, text_field(1, tag) + text_field(2, text))
                            for tag, text in error.tags.items()
                        ),
                        text_field(4, error.body),
                    )
                ),
            ),
            _origin(created_at, error.device),
        )
    )


def _connectivity(connectivity: Connectivity) -> bytes:
    return b"".join(
        (
            text_field(1, connectivity.connection_id),
            _origin(connectivity.created_at, connectivity.device),
            uint_field(5, 1 if connectivity.connected else 2),
        )
    )


def _origin(created_at: float, device: DeviceIdentity) -> bytes:
    """Return when and of whom something is said, which has the same numbers everywhere."""
    return b"".join(
        (
            timestamp_field(2, created_at),
            text_field(3, device.device_id),
            text_field(4, device.address) if device.address else b"",
        )
    )


def encode_advertisement(sighting: Sighting, advertisement: Advertisement) -> bytes:
    """Return an Advertisement without RSSI (11) and time (12)."""
    said = content(advertisement)
    found = address_type(advertisement)
    raw = advertisement.raw
    return b"".join(
        (
            text_field(1, sighting.scanner.scanner_id),
            text_field(2, sighting.address),
            *(
                bytes_field(3, uint_field(1, company_id) + bytes_field(2, value))
                for company_id, value in said.manufacturer_data.items()
            ),
            *(text_field(4, uuid) for uuid in said.service_uuids),
            b"" if said.local_name is None else text_field(5, said.local_name),
            *(
                bytes_field(6, text_field(1, uuid) + bytes_field(2, value))
                for uuid, value in said.service_data.items()
            ),
            b"" if said.tx_power is None else sint_field(7, said.tx_power, 32),
            uint_field(8, True) if advertisement.connectable else b"",
            uint_field(9, _ADDRESS_TYPES[found]) if found else b"",
            b"" if raw is None else bytes_field(10, raw),
        )
    )


def encode_heartbeat(heartbeat: Heartbeat, now: float) -> bytes:
    """Return a Heartbeat; `now` is Unix time in seconds."""
    scanner, last_error = heartbeat.scanner, heartbeat.last_error
    figures = (
        heartbeat.devices,
        scanner.received,
        heartbeat.published,
        heartbeat.dropped,
        scanner.filtered,
    )
    return b"".join(
        (
            text_field(1, scanner.scanner_id),
            timestamp_field(2, now),
            uint_field(3, _STATUSES[heartbeat.status]),
            uint_field(4, int(heartbeat.uptime)),
            bytes_field(
                5,
                b"".join(uint_field(n, figure) for n, figure in enumerate(figures, 1)),
            ),
            bytes_field(
                6,
                uint_field(1, heartbeat.connected)
                + uint_field(2, heartbeat.messages_sent)
                + uint_field(3, heartbeat.reconnects)
                + (b"" if last_error is None else text_field(4, last_error)),
            ),
        )
    )
