"""The `fields` layout: one topic per field, and alerts, errors and connectivity.

Topics and payloads are those of `docs/topics.md`, with a JSON schema for each in
`docs/schemas/`.
"""

import functools

import orjson

from ..records import Alert, Connectivity, Error, Reading, Record, Value
from . import Message
from .payloads import encode_fields, iso_timestamp, safe_text, to_json
from .topics import safe_part


class FieldsLayout:
    """Records of devices as JSON, under a topic base."""

    makes_objects = True

    def __init__(self, base: str) -> None:
        """Initialize the layout."""
        self._base = base

    def prefix(self, device_id: str) -> str:
        """Return what all topics of a device begin with, with a slash at its end."""
        return f"{self._base}/{safe_part(device_id)}/"

    def messages(self, record: Record) -> list[Message]:
        """Return the messages of a record.

        Raises ValueError where nothing of it can be said; a single field that cannot be is
        left out (`payloads.unpublishable`).
        """
        match record:
            case Reading():
                return [
                    Message(
                        _topic(self._base, record.device.device_id, name),
                        payload,
                        is_state,
                    )
                    for name, payload, is_state in encode_fields(record, _payload)
                ]
            case Alert():
                return self._alert(record)
            case Error():
                return [self._error(record)]
            case Connectivity():
                return [self._connectivity(record)]

    def _alert(self, alert: Alert) -> list[Message]:
        """Return the newest of that name, and one more of its history."""
        topic = f"{self.prefix(alert.device.device_id)}alerts/{safe_part(alert.name)}"
        ended_at = alert.ended_at
        payload = orjson.dumps(
            {
                "Name": safe_text(alert.name),
                "StartedAt": iso_timestamp(alert.started_at),
                "EndedAt": None if ended_at is None else iso_timestamp(ended_at),
                "Audiences": [safe_text(audience) for audience in alert.audiences],
            }
        )
        return [
            Message(f"{topic}/current", payload, is_state=True),
            Message(f"{topic}/history", payload, is_state=False),
        ]

    def _error(self, error: Error) -> Message:
        return Message(
            f"{self.prefix(error.device.device_id)}errors/{safe_part(error.name)}",
            orjson.dumps(
                {
                    "Name": safe_text(error.name),
                    "Body": safe_text(error.body),
                    "Tags": {
                        safe_text(tag): safe_text(text)
                        for tag, text in error.tags.items()
                    },
                    "CreatedAt": iso_timestamp(error.created_at),
                }
            ),
            is_state=False,
        )

    def _connectivity(self, connectivity: Connectivity) -> Message:
        return Message(
            f"{self.prefix(connectivity.device.device_id)}connectivity",
            orjson.dumps(
                {
                    "ConnectionId": safe_text(connectivity.connection_id),
                    "Status": "CONNECTED" if connectivity.connected else "DISCONNECTED",
                    "CreatedAt": iso_timestamp(connectivity.created_at),
                }
            ),
            is_state=True,
        )


# Making names safe takes longer than all else that a value needs.
@functools.lru_cache(maxsize=8192)
def _topic(base: str, device_id: str, name: str) -> str:
    return f"{base}/{safe_part(device_id)}/v/{safe_part(name)}"


def _payload(value: Value) -> bytes:
    return b'{"value":%b}' % to_json(value)
