"""The `values` layout: one topic per metric, its value as plain text.

Topics and payloads are those of `docs/topics.md`.
"""

import functools
from typing import Final

from ..records import Reading, Record, Value
from . import Message
from .payloads import RSSI, encode_fields, to_json
from .topics import safe_part

_SIGNAL: Final = "signal"
# Device IDs whose topics would be those of something else.
RESERVED_DEVICE_IDS: Final = frozenset({_SIGNAL})


class ValuesLayout:
    """Readings as plain values, under a topic base; other records have no place here."""

    makes_objects = False

    def __init__(self, base: str) -> None:
        """Initialize the layout."""
        self._base = base
        self._signal_topic = f"{base}/{_SIGNAL}/{RSSI}"

    def prefix(self, device_id: str) -> str:
        """Return what all topics of a device begin with, with a slash at its end."""
        return f"{self._base}/{safe_part(device_id)}/"

    def messages(self, record: Record) -> list[Message]:
        """Return the messages of a reading, and none of any other record.

        Raises ValueError where nothing of it can be said; a single field that cannot be is
        left out (`payloads.unpublishable`).
        """
        if not isinstance(record, Reading):
            return []
        device_id = record.device.device_id
        messages = [
            # Retained, an empty payload would not say that a text is empty: it would
            # clear the topic.
            Message(
                _topic(self._base, device_id, name),
                payload,
                is_state and payload != b"",
            )
            for name, payload, is_state in encode_fields(record, _payload)
        ]
        if record.rssi is not None:
            messages.append(
                Message(self._signal_topic, to_json(record.rssi), is_state=False)
            )
        return messages


# Making names safe takes longer than all else that a value needs.
@functools.lru_cache(maxsize=8192)
def _topic(base: str, device_id: str, name: str) -> str:
    return f"{base}/{safe_part(device_id)}/{safe_part(name)}"


def _payload(value: Value) -> bytes:
    """Return a text as it is, and anything else as JSON."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    return to_json(value)
