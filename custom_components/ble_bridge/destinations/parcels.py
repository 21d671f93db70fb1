"""A record on its way to one destination: its messages, acknowledged all or none."""

import asyncio
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from ..records import RecordKind, Tally
from .errors import Problem
from .policy import Policy


class Message(NamedTuple):
    """One message of a parcel.

    `head` is where it goes, as the connection writes it: an MQTT topic with its length before
    it (MQTT 5, 1.5.4), a NATS subject, and nothing for a line. An object is a payload, in JSON
    or protobuf, that has room for one more name.
    """

    head: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    is_object: bool = False


def size_of(messages: Iterable[Message]) -> int:
    """Return how many bytes messages are, topics and payloads."""
    return sum(len(m.head) + len(m.payload) for m in messages)


class Outcome(StrEnum):
    """What became of a parcel."""

    ACKNOWLEDGED = "acknowledged"
    SENT = "sent"
    AWAY = "away"
    OVERFLOW = "overflow"
    EXPIRED = "expired"
    REFUSED = "refused"


class Parcel:
    """The messages of one record.

    `number` is its place among the destination's records. `accepted` is when it was taken
    over (the event loop's time, s). `device` is whose it is: what one device says stays in
    order. `unanswered` counts the messages that are under way; `sends` how often it went
    out, and of these `losses` how often the connection ended before it was acknowledged,
    and `tries` how often it was refused. `row` is its number on disk, where it stands
    there; what is `spilled` is there only.
    """

    __slots__ = (
        "accepted",
        "confirms",
        "device",
        "done",
        "is_held",
        "kind",
        "losses",
        "messages",
        "number",
        "outcome",
        "policy",
        "refusal",
        "row",
        "sends",
        "sent",
        "size",
        "spilled",
        "tally",
        "tries",
        "unanswered",
    )

    def __init__(
        self,
        kind: RecordKind,
        tally: Tally,
        device: str,
        messages: tuple[Message, ...],
        policy: Policy,
        accepted: float,
    ) -> None:
        """Initialize a parcel that has not been sent."""
        self.kind = kind
        self.tally = tally
        self.device = device
        self.messages = messages
        self.policy = policy
        self.accepted = accepted
        self.size = size_of(messages)
        self.number = 0
        self.done: asyncio.Future[Outcome] | None = None
        self.outcome: Outcome | None = None
        self.is_held = False
        self.spilled = False
        self.confirms = False
        self.unanswered = 0
        self.sent = 0.0
        self.sends = 0
        self.losses = 0
        self.tries = 0
        self.refusal: Problem | None = None
        self.row: int | None = None

    @property
    def is_done(self) -> bool:
        """Tell whether it is known what became of it."""
        return self.outcome is not None

    @property
    def is_forgotten(self) -> bool:
        """Tell whether nothing of it is to stay on disk; what was set aside does."""
        return self.is_done and self.refusal is None

    def finish(self, outcome: Outcome) -> None:
        """Count what became of it, and tell who waits for it."""
        self.outcome = outcome
        if outcome is not Outcome.REFUSED:  # Perhaps it was, before
            self.refusal = None
        tally = self.tally
        setattr(tally, outcome.value, getattr(tally, outcome.value) + 1)
        if self.done is not None and not self.done.done():
            self.done.set_result(outcome)
