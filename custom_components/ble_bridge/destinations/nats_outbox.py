"""Messages on their way to NATS.

With core NATS, a PING follows the records of a batch: its PONG says that the server has
taken them. JetStream acknowledges each message, in an inbox of ours. Either way a bounded
number is unacknowledged at once. Advertisements that nobody has to confirm are sent once
they are written.
"""

import asyncio
from collections.abc import Callable, Collection
from hashlib import blake2b
import logging
from typing import Final, override

from ..records import RecordKind
from .delivery import Delivery
from .errors import Problem
from .nats_connection import NatsConnection, Outgoing
from .outbox import Batch, Outbox, Passing, mark_resent, unmarked
from .parcels import Parcel

_LOGGER = logging.getLogger(__name__)

# For how long nothing is sent on a subject that is denied to us (s), and of how many such
# we take note.
_DENIED_FOR: Final = 60.0
_MAX_DENIED: Final = 1_000


def message_id(subject: bytes, payload: bytes) -> bytes:
    """Return what tells JetStream one message from another: the same for one sent again.

    It does not depend on when and by which run of ours a message is sent.
    """
    return blake2b(subject + b" " + payload, digest_size=16).hexdigest().encode()


class NatsBatch(Batch):
    """What is written in one piece: messages in place of bytes."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        """Initialize an empty batch."""
        super().__init__()
        self.messages: list[Outgoing] = []


class _Flush:
    """Messages of records that one PONG is to acknowledge, and when they were sent."""

    __slots__ = ("parcels", "sent")

    def __init__(self, parcels: list[tuple[Parcel, bytes]], sent: float) -> None:
        """Initialize with each message's record and subject."""
        self.parcels = parcels
        self.sent = sent


class NatsOutbox(Outbox[NatsConnection]):
    """What of one cluster is not sent yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delivery: Delivery,
        report: Callable[[Problem], None],
        on_stalled: Callable[[], None],
        stored: Collection[RecordKind],
    ) -> None:
        """Initialize, as `Outbox` does; JetStream has the kinds of records in `stored`."""
        super().__init__(loop, delivery, report, on_stalled)
        self._stored = frozenset(stored)
        self._window = delivery.settings.max_in_flight
        # What JetStream has not acknowledged, with its subject, by number.
        self._unacknowledged: dict[int, tuple[Passing | Parcel, bytes]] = {}
        self._flushes: dict[int, _Flush] = {}
        self._flushing_count = 0
        # Subjects, in lower case as nats-py gives them, and when they were denied.
        self._denied: dict[bytes, float] = {}
        # Of which advertisements the user was told that they are denied.
        self._told: set[bytes] = set()

    @property
    @override
    def passing(self) -> int:
        return super().passing + sum(
            type(message) is tuple for message, _ in self._unacknowledged.values()
        )

    @property
    @override
    def _is_awaiting(self) -> bool:
        return bool(self._unacknowledged or self._flushes or self._under_way)

    @property
    @override
    def _can_send(self) -> bool:
        return bool(
            self._passing and (self._may_send_records or not self._passing[0][0].qos)
        )

    @property
    @override
    def _may_send_records(self) -> bool:
        return len(self._unacknowledged) + self._flushing_count < self._window

    # --- the connection -----------------------------------------------------------------

    @override
    def _begin(self, connection: NatsConnection) -> None:
        self.forget_denials()
        self._passing.put_back(
            (message[0], mark_resent(message[1]), message[2])
            for message, _ in reversed(self._unacknowledged.values())
            if not isinstance(message, Parcel)
        )
        self._unacknowledged.clear()

    @override
    def _abandon(self, connection: NatsConnection) -> None:
        super()._abandon(connection)
        self._flushes.clear()
        self._flushing_count = 0
        for number, (message, _) in list(self._unacknowledged.items()):
            if isinstance(message, Parcel):
                del self._unacknowledged[number]

    @override
    def give_up(self) -> None:
        for message, _ in self._unacknowledged.values():
            if not isinstance(message, Parcel):
                message[0].tally.away += 1
        self._unacknowledged.clear()
        super().give_up()

    # --- out ----------------------------------------------------------------------------

    @override
    def _send(self, connection: NatsConnection) -> None:
        """Write what waits in one piece, and ask for the PONG of what needs one."""
        batch = NatsBatch()
        flushed: list[tuple[Parcel, bytes]] = []
        while len(batch.messages) < connection.batch_size and self._may_send_records:
            if (parcel := self.delivery.take()) is None:
                break
            self._add_record(connection, batch, parcel, flushed)
        self._add_passing(connection, batch)
        if not batch.messages:
            return
        batch.size, number = connection.write(batch.messages)
        if number is None:
            self._conclude(batch)
        else:
            self._under_way, batch.mid = batch, number
        if flushed:
            self._flushes[connection.flush()] = _Flush(flushed, self._loop.time())

    def _add_record(
        self,
        connection: NatsConnection,
        batch: NatsBatch,
        parcel: Parcel,
        flushed: list[tuple[Parcel, bytes]],
    ) -> None:
        """Add the messages of a record to a batch, or refuse all of them."""
        if any(len(m.payload) > connection.max_payload for m in parcel.messages):
            self._report(Problem.TOO_LARGE)
            self.delivery.refuse_all(parcel, Problem.TOO_LARGE)
            return
        parcel.confirms = True
        is_stored = parcel.kind in self._stored
        for subject, payload, _, _, is_object in parcel.messages:
            key = message_id(subject, payload) if is_stored else b""
            if is_object and parcel.sends > 1:
                payload = mark_resent(payload)
            if is_stored:
                number = connection.reserve()
                self._unacknowledged[number] = parcel, subject
                batch.messages.append((subject, payload, number, key))
            else:
                flushed.append((parcel, subject))
                self._flushing_count += 1
                batch.messages.append((subject, payload, None, key))

    def _add_passing(self, connection: NatsConnection, batch: NatsBatch) -> None:
        """Add advertisements to a batch."""
        queue, messages, passing = self._passing, batch.messages, batch.passing
        limit = connection.max_payload
        recently = self._loop.time() - _DENIED_FOR
        for _ in range(min(len(queue), connection.batch_size - len(messages))):
            message = queue[0]
            route, payload, _ = message
            subject = route.head
            if route.qos and not self._may_send_records:
                break
            queue.popleft()
            queue.size -= len(payload)
            if len(payload) > limit:
                route.tally.failed += 1
                self._report(Problem.TOO_LARGE)
            elif self._denied and self._is_denied(subject, recently):
                route.tally.refused += 1
                self._tell_denied(subject)
            elif route.qos:
                number = connection.reserve()
                self._unacknowledged[number] = message, subject
                key = message_id(subject, unmarked(payload))
                messages.append((subject, payload, number, key))
            else:
                passing.append(message)
                batch.payload_size += len(payload)
                messages.append((subject, payload, None, b""))

    def _tell_denied(self, head: bytes) -> None:
        """Have the user told that advertisements may not be published."""
        if head not in self._told and len(self._told) < _MAX_DENIED:
            self._told.add(head)
            self.delivery.tell_refused(head, Problem.NOT_AUTHORIZED)

    def forget_denials(self) -> None:
        """Try again what was denied: that may have been mended."""
        self._denied.clear()
        for head in self._told:
            self.delivery.tell_taken(head)
        self._told.clear()

    def _is_denied(self, subject: bytes, since: float) -> bool:
        """Tell whether the server has said since then that we may not publish there."""
        return self._denied.get(subject.lower(), -1.0) >= since

    # --- answers ------------------------------------------------------------------------

    def on_written(self, number: int) -> None:
        """Take note that a batch was written."""
        if (batch := self._under_way) is not None and number == batch.mid:
            self._under_way = None
            self._conclude(batch)
        self._go_on_soon()

    def on_flushed(self, number: int) -> None:
        """Take note that the server has taken the records before a PING."""
        if (flush := self._flushes.pop(number, None)) is not None:
            self._answer(flush.sent)
            self._flushing_count -= len(flush.parcels)
            for parcel, subject in flush.parcels:
                # What is not permitted is said before.
                if self._denied and self._is_denied(subject, flush.sent):
                    self.delivery.refuse(parcel, Problem.NOT_AUTHORIZED)
                else:
                    self.delivery.confirm(parcel)
        self._go_on_soon()

    def on_acknowledged(self, number: int) -> None:
        """Take note that JetStream has stored a message."""
        if (found := self._unacknowledged.pop(number, None)) is not None:
            message = found[0]
            if isinstance(message, Parcel):
                self._answer(message.sent)
                self.delivery.confirm(message)
            else:
                route, payload, accepted = message
                self._answer(accepted)
                route.tally.acknowledged += 1
                self._measure(len(payload), accepted, acknowledged=True)
        self._go_on_soon()

    def on_refused(self, number: int, problem: Problem) -> None:
        """Take note that JetStream does not store a message."""
        if (found := self._unacknowledged.pop(number, None)) is not None:
            self._answered = self._loop.time()
            self._report(problem)
            message = found[0]
            if isinstance(message, Parcel):
                self.delivery.refuse(message, problem)
            else:
                message[0].tally.refused += 1
        self._go_on_soon()

    def on_denied(self, subject: bytes) -> None:
        """Take note that we may not publish on a subject, which is in lower case.

        What was published there on JetStream nobody will acknowledge, and what waits for a
        PONG is refused when that comes. An advertisement that was sent stays so; the next
        ones are refused here, for a while.
        """
        if len(self._denied) >= _MAX_DENIED:
            del self._denied[next(iter(self._denied))]
        self._denied[subject] = self._loop.time()
        self._report(Problem.NOT_AUTHORIZED)
        for number, (_, published) in list(self._unacknowledged.items()):
            if published.lower() == subject:
                self.on_refused(number, Problem.NOT_AUTHORIZED)

    def _conclude(self, batch: Batch) -> None:
        """Count a batch as written; its oldest message stands for its latency."""
        self.bytes_sent += batch.size
        if batch.passing:
            for route, _, _ in batch.passing:
                route.tally.sent += 1
            self._measure(batch.payload_size, batch.passing[0][2], acknowledged=False)
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug(
                "Published %d unconfirmed advertisements among %d bytes",
                len(batch.passing),
                batch.size,
            )
