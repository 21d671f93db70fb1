"""What of one destination is not sent yet, whatever the way it is sent.

Messages are collected and written in batches: at once on a quiet bus, in bulk on a busy
one. One batch is under way at a time; while it is, the next one is collected. Records go
first (`delivery.py` tells which), then the flood of advertisements, in a queue of their own
whose oldest make room.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ..records import RecordKind, Route
from .delivery import Delivery
from .errors import Problem
from .parcels import Parcel

MAX_MESSAGES: Final = 20_000
MAX_BYTES: Final = 8 * 1024 * 1024
# Once batches follow each other faster than this, they are gathered: a few milliseconds
# of latency for a loop that turns once for many packets.
GATHER: Final = 0.003
# How far the patience with a destination that does not acknowledge may grow.
_MOST_PATIENCE: Final = 64

# A name that no payload of ours has, in JSON and in protobuf (`docs/protobuf`).
_JSON_MARK: Final = b'"is_resend":true}'
_PROTOBUF_MARK: Final = b"\x78\x01"

type Passing = tuple[Route, bytes, float]


def mark_resent(payload: bytes) -> bytes:
    """Return a payload, JSON object or protobuf, that says that it may have come before."""
    if not payload.startswith(b"{"):
        if payload.endswith(_PROTOBUF_MARK):
            return payload
        return payload + _PROTOBUF_MARK
    if payload.endswith(_JSON_MARK):
        return payload
    return b"{" + _JSON_MARK if payload == b"{}" else payload[:-1] + b"," + _JSON_MARK


def unmarked(payload: bytes) -> bytes:
    """Return a payload as it was before it was marked as one that may have come before."""
    if not payload.startswith(b"{"):
        return payload.removesuffix(_PROTOBUF_MARK)
    if not payload.endswith(_JSON_MARK):
        return payload
    return payload[: -len(_JSON_MARK)].removesuffix(b",") + b"}"


class Queue(deque[Passing]):
    """Advertisements that wait, and how many bytes they are."""

    size = 0

    def take(self) -> Passing:
        """Return the oldest message."""
        message = self.popleft()
        self.size -= len(message[1])
        return message

    def put_back(self, messages: Iterable[Passing]) -> None:
        """Take messages that go before all others."""
        for message in messages:
            self.appendleft(message)
            self.size += len(message[1])

    def drop(self) -> None:
        """Drop all, since the destination is away."""
        for route, _, _ in self:
            route.tally.away += 1
        self.clear()
        self.size = 0


class Batch:
    """What is written in one piece: its bytes, and what is answered for all of it.

    `payload_size` is how many bytes the payloads of its advertisements are.
    """

    __slots__ = ("mid", "parcels", "passing", "payload_size", "pieces", "size")

    def __init__(self) -> None:
        """Initialize an empty batch."""
        self.pieces: list[bytes] = []
        self.passing: list[Passing] = []
        self.parcels: list[Parcel] = []
        self.size = 0
        self.payload_size = 0
        self.mid = 0


class Connection(Protocol):
    """A connection to a destination, from its beginning to its end.

    `disconnect_timeout` is how long its end may take (s), and `protocol` what is spoken.
    """

    disconnect_timeout: float

    @property
    def protocol(self) -> str:
        """Return what is spoken, and in which version."""
        ...

    async def async_close(self, patience: float | None = None) -> None:
        """Say goodbye, within our patience (s), by default the disconnect timeout."""
        ...

    def abort(self) -> None:
        """End the connection without a word."""
        ...


class Outbox[ConnectionT: Connection]:
    """What of one destination is not sent yet.

    What it takes to send is in the subclasses: `_send` writes what may be written now, and
    sets `_under_way` to what has to be written before anything else.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delivery: Delivery,
        report: Callable[[Problem], None],
        on_stalled: Callable[[], None],
    ) -> None:
        """Initialize.

        `report` is told of messages that the destination or we rejected, and `on_stalled`
        when the destination acknowledges nothing any more.
        """
        self.bytes_sent = 0
        self.delivery = delivery
        self._loop = loop
        self._report = report
        self._on_stalled = on_stalled
        self._connection: ConnectionT | None = None
        self._passing = Queue()
        self._flushing: asyncio.Handle | None = None
        self._due: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._under_way: Batch | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._answered = 0.0
        self._patience = 1
        self._drained: list[asyncio.Future[None]] = []

    @property
    def passing(self) -> int:
        """Return how many advertisements wait, or are under way."""
        under_way = len(self._under_way.passing) if self._under_way else 0
        return len(self._passing) + under_way

    @property
    def waiting(self) -> int:
        """Return how many records are neither delivered nor dropped."""
        return self.passing + self.delivery.waiting

    # --- what the subclasses know -------------------------------------------------------

    @property
    def _gather(self) -> float:
        """Return how soon after a batch the next one may go (s)."""
        return GATHER

    @property
    def _is_awaiting(self) -> bool:
        """Tell whether something that was sent has to be acknowledged."""
        return self._under_way is not None

    @property
    def _can_send(self) -> bool:
        """Tell whether something waits that may be sent at once."""
        return bool(self._passing)

    @property
    def _may_send_records(self) -> bool:
        """Tell whether records may be sent when they are due."""
        return True

    def _send(self, connection: ConnectionT) -> None:
        """Write what may be written now."""
        raise NotImplementedError

    def _begin(self, connection: ConnectionT) -> None:
        """Prepare for a connection that is new."""

    def _abandon(self, connection: ConnectionT) -> None:
        """Count, or take back, what was under way over a connection that has ended."""
        if (batch := self._under_way) is not None:
            self._under_way = None
            for route, _, _ in batch.passing:
                route.tally.away += 1

    # --- in -----------------------------------------------------------------------------

    def put(self, route: Route, payload: bytes) -> None:
        """Take an advertisement whose tally has counted it as received."""
        if self._connection is None:
            route.tally.away += 1
            return
        queue = self._passing
        queue.append((route, payload, self._loop.time()))
        queue.size += len(payload)
        if queue.size > MAX_BYTES or len(queue) > MAX_MESSAGES:
            queue.take()[0].tally.overflow += 1
        if self._flushing is None and self._under_way is None:
            self._schedule()

    def accept(self, parcel: Parcel) -> None:
        """Take a record whose tally has counted it as received."""
        self.delivery.accept(parcel)
        if self._connection is not None:
            self.wake()

    def wake(self) -> None:
        """Look for what can be sent."""
        if (
            self._connection is not None
            and self._under_way is None
            and self._flushing is None
        ):
            self._schedule()

    # --- the connection -----------------------------------------------------------------

    def open(self, connection: ConnectionT) -> None:
        """Send over a connection, beginning with what waits: the unanswered first."""
        self._connection = connection
        self._answered = self._loop.time()
        self._begin(connection)
        self.delivery.open()
        self._schedule()

    def close(self, *, is_blamed: bool = False) -> None:
        """Stop sending: advertisements are dropped and counted, records wait as they may.

        What waits for an acknowledgement may have arrived; it is sent again over the next
        connection.
        """
        if (connection := self._connection) is None:
            return
        self._connection = None
        self._cancel_flush()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._abandon(connection)
        self._passing.drop()
        self.delivery.close(is_blamed=is_blamed)
        self._tell_drained()

    def give_up(self) -> None:
        """Drop all that is in memory only: there will be no next connection."""
        self.delivery.give_up()

    async def async_flush(self, patience: float) -> bool:
        """Wait until nothing waits, though not longer than our patience (s); tell if so."""
        self.wake()
        deadline = self._loop.time() + patience
        while self.waiting and (left := deadline - self._loop.time()) > 0:
            drained = self._loop.create_future()
            self._drained.append(drained)
            await asyncio.wait([drained], timeout=left)
            if drained in self._drained:
                self._drained.remove(drained)
        return not self.waiting

    async def async_drain(self, patience: float) -> None:
        """Send what can be sent now, and wait for it no longer than our patience (s)."""
        if self._connection is None:
            return
        self._cancel_flush()
        self.flush()
        await self.async_flush(patience)

    # --- out ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Flush in this turn of the loop, or later if the last flush was just now."""
        if (due := self._flushed + self._gather) > self._loop.time():
            self._flushing = self._loop.call_at(due, self.flush)
        else:
            self._flushing = self._loop.call_soon(self.flush)

    def _cancel_flush(self) -> None:
        for timer in (self._flushing, self._due):
            if timer is not None:
                timer.cancel()
        self._flushing = self._due = None

    def flush(self) -> None:
        """Write what waits now."""
        self._cancel_flush()
        self._flushed = self._loop.time()
        if (connection := self._connection) is None or self._under_way is not None:
            return
        if not self._is_awaiting:  # Nobody has been kept waiting so far
            self._answered = self._flushed
        self._send(connection)
        self._watch_acknowledgements()
        if self._under_way is None:
            self._go_on()

    def _go_on(self) -> None:
        """Send what waits as soon as it may be sent, or tell that nothing does."""
        if self._can_send:
            self._flushing = self._loop.call_soon(self.flush)
        elif self._may_send_records and (due := self.delivery.next_due()) is not None:
            self._due = self._loop.call_at(due, self.flush)
        if self._drained and not self.waiting:
            self._tell_drained()

    # --- answers ------------------------------------------------------------------------

    def _go_on_soon(self) -> None:
        """Send what waits, gathered with what else is answered in this moment."""
        if self._under_way is not None or self._connection is None:
            return
        if self._passing or self.delivery.waiting:
            self.wake()
        elif self._drained and not self.waiting:
            self._tell_drained()

    def _measure(self, size: int, since: float, *, acknowledged: bool) -> None:
        """Measure advertisements that were delivered, one, or all of a batch at once.

        `size` are the bytes of their payloads, and `since` is when the oldest was taken.
        """
        self.delivery.meters[RecordKind.ADVERTISEMENT].add(
            size, since, self._loop.time(), acknowledged=acknowledged
        )

    def _tell_drained(self) -> None:
        """Tell who waits for it that there is nothing more to send."""
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    # --- patience -----------------------------------------------------------------------

    def _answer(self, sent: float) -> float:
        """Take note of an answer to what was sent at a time (s); return the time of now."""
        now = self._answered = self._loop.time()
        if now - sent <= self.delivery.settings.publish_timeout:
            self._patience = 1
        return now

    def _watch_acknowledgements(self) -> None:
        """See to it that what is unacknowledged does not stay so for ever."""
        if self._is_awaiting and self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._on_watch)

    @property
    def _timeout(self) -> float:
        """Return how long a destination may acknowledge nothing (s).

        It grows each time that a connection was given up for it, else a slow network would
        never have the time to answer.
        """
        return self.delivery.settings.publish_timeout * self._patience

    def _on_watch(self) -> None:
        self._watch = None
        if not self._is_awaiting or self._connection is None:
            return
        if (left := self._answered + self._timeout - self._loop.time()) > 0:
            self._watch = self._loop.call_later(left, self._on_watch)
            return
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._on_stalled()
