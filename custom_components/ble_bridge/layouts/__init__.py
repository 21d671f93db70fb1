"""Layouts: records to messages. Pure functions of their input, without I/O."""

from typing import NamedTuple, Protocol

from ..records import Record


class Message(NamedTuple):
    """One message: its topic, its payload (UTF-8), and whether a broker may keep it.

    What tells of a state may be retained, where the user wants that. What tells of an event
    may not: a new subscriber would take a button press of yesterday for one of now.
    """

    topic: str
    payload: bytes
    is_state: bool


class RecordLayout(Protocol):
    """Turns what is known of devices into messages.

    `makes_objects` tells that payloads are JSON objects, with room for one more name.
    """

    makes_objects: bool

    def messages(self, record: Record) -> list[Message]:
        """Return the messages of a record; raises ValueError for one that has no place."""
        ...

    def prefix(self, device_id: str) -> str:
        """Return what all topics of a device begin with, with a slash at its end."""
        ...
