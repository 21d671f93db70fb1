"""Messages on their way to a broker.

Messages are collected and written in batches: at once on a quiet bus, in bulk on a busy
one. One batch is under way at a time; while it is, the next one is collected. Records go
first (`delivery.py` tells which), then the flood of advertisements, in a queue of their own
whose oldest make room. At QoS 1 and 2 a bounded number is unacknowledged at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
import logging
from typing import Final

from ..records import Route
from .delivery import Delivery
from .errors import Problem
from .mqtt_connection import MqttConnection, remaining_length
from .parcels import Message, Outcome, Parcel

_LOGGER = logging.getLogger(__name__)

MAX_MESSAGES: Final = 20_000
MAX_BYTES: Final = 8 * 1024 * 1024
# Once batches follow each other faster than this, they are gathered: a few milliseconds
# of latency for a loop that turns once for many packets.
_GATHER: Final = 0.003
# The same, where no more may be unacknowledged: each millisecond costs messages then.
_GATHER_BLOCKED: Final = 0.0005
# How far the patience with a broker that does not acknowledge may grow.
_MOST_PATIENCE: Final = 64

_MARK: Final = b'"is_resend":true}'

type Passing = tuple[Route, bytes, float]


_FIXED_HEADERS: Final = [b"\x30" + remaining_length(n) for n in range(4096)]


def mark_resent(payload: bytes) -> bytes:
    """Return a JSON object that says that it may have been sent before."""
    if payload.endswith(_MARK):
        return payload
    return b"{" + _MARK if payload == b"{}" else payload[:-1] + b"," + _MARK


class _Queue(deque[Passing]):
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
        """Drop all, since the broker is away."""
        for route, _, _ in self:
            route.tally.away += 1
        self.clear()
        self.size = 0


class _Batch:
    """What is written in one piece: its bytes, and what nobody acknowledges of it."""

    __slots__ = ("mid", "parcels", "passing", "pieces", "size")

    def __init__(self) -> None:
        """Initialize an empty batch."""
        self.pieces: list[bytes] = []
        self.passing: list[Passing] = []
        self.parcels: list[Parcel] = []
        self.size = 0
        self.mid = 0


class Outbox:
    """What of one destination is not sent yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delivery: Delivery,
        report: Callable[[Problem], None],
        on_stalled: Callable[[], None],
    ) -> None:
        """Initialize.

        `report` is told of messages that the broker or we rejected, and `on_stalled` when
        the broker acknowledges nothing any more.
        """
        self.bytes_sent = 0
        self.latency_sum = 0.0
        self.latency_count = 0
        self.delivery = delivery
        self._loop = loop
        self._report = report
        self._on_stalled = on_stalled
        self._connection: MqttConnection | None = None
        self._window = 0
        self._passing = _Queue()
        # The messages of records that were begun, where the broker takes few at once.
        self._begun: deque[tuple[Parcel, Message, bytes]] = deque()
        self._flushing: asyncio.Handle | None = None
        self._due: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._is_blocked = False
        self._under_way: _Batch | None = None
        self._unacknowledged: dict[int, Passing | Parcel] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._answered = 0.0
        self._patience = 1
        self._drained: list[asyncio.Future[None]] = []

    @property
    def passing(self) -> int:
        """Return how many advertisements wait, or are under way."""
        return (
            len(self._passing)
            + (len(self._under_way.passing) if self._under_way else 0)
            + sum(type(m) is tuple for m in self._unacknowledged.values())
        )

    @property
    def waiting(self) -> int:
        """Return how many records are neither delivered nor dropped."""
        return self.passing + self.delivery.waiting

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

    def open(self, connection: MqttConnection) -> None:
        """Send over a connection, beginning with what waits: the unanswered first."""
        self._connection = connection
        self._window = min(
            self.delivery.settings.max_in_flight, connection.receive_maximum
        )
        self._answered = self._loop.time()
        self._passing.put_back(
            (message[0], mark_resent(message[1]), message[2])
            for message in reversed(self._unacknowledged.values())
            if not isinstance(message, Parcel)
        )
        self._unacknowledged.clear()
        self.delivery.open()
        self._schedule()

    def close(self, *, is_blamed: bool = False) -> None:
        """Stop sending: advertisements are dropped and counted, records wait as they may.

        What waits for an acknowledgement may have arrived; it is sent again over the next
        connection (QoS 1 is at least once, and QoS 0 at most once).
        """
        if (connection := self._connection) is None:
            return
        self._connection = None
        self._cancel_flush()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._begun.clear()
        if (batch := self._under_way) is not None:
            self._under_way = None
            for route, _, _ in batch.passing:
                route.tally.away += 1
        self._passing.drop()
        for mid, message in list(self._unacknowledged.items()):
            if isinstance(message, Parcel):
                del self._unacknowledged[mid]
            elif not min(message[0].qos, connection.maximum_qos):
                message[0].tally.away += 1
                del self._unacknowledged[mid]
        self.delivery.close(is_blamed=is_blamed)
        self._tell_drained()

    def give_up(self) -> None:
        """Drop all that is in memory only: there will be no next connection."""
        for message in self._unacknowledged.values():
            if not isinstance(message, Parcel):
                message[0].tally.away += 1
        self._unacknowledged.clear()
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
        gather = _GATHER_BLOCKED if self._is_blocked else _GATHER
        if (due := self._flushed + gather) > self._loop.time():
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
        if not self._unacknowledged:  # Nobody has been kept waiting so far
            self._answered = self._flushed
        if connection.can_batch:
            self._flush_batch(connection)
        else:
            self._flush_singly(connection)
        self._is_blocked = len(self._unacknowledged) >= self._window
        self._watch_acknowledgements()
        if self._under_way is None:
            self._go_on()

    def _go_on(self) -> None:
        """Send what waits as soon as it may be sent, or tell that nothing does."""
        free = len(self._unacknowledged) < self._window
        if (self._begun and (free or not self._begun[0][1].qos)) or (
            self._passing and (free or not self._passing[0][0].qos)
        ):
            self._flushing = self._loop.call_soon(self.flush)
        elif free and (due := self.delivery.next_due()) is not None:
            self._due = self._loop.call_at(due, self.flush)
        if self._drained and not self.waiting:
            self._tell_drained()

    def _flush_batch(self, connection: MqttConnection) -> None:
        """Write what waits as ready-made packets in one piece."""
        batch = _Batch()
        room = connection.batch_size
        while len(batch.pieces) < 4 * room and self._begin(connection):
            self._add_message(connection, batch)
        self._add_passing(connection, batch, room - len(batch.pieces) // 4)
        if not batch.pieces:
            return
        data = b"".join(batch.pieces)
        batch.size = len(data)
        if (mid := connection.write(data)) is None:
            self._conclude(batch)
        else:
            self._under_way, batch.mid = batch, mid

    def _add_passing(
        self, connection: MqttConnection, batch: _Batch, room: int
    ) -> None:
        """Add advertisements to a batch."""
        queue, pieces, passing = self._passing, batch.pieces, batch.passing
        middle = connection.publish_head
        limit = connection.maximum_packet_size
        for _ in range(min(len(queue), room)):
            message = queue[0]
            route, payload, _ = message
            head = route.head
            if route.qos and (qos := min(route.qos, connection.maximum_qos)):
                if len(self._unacknowledged) >= self._window:
                    break
                queue.take()
                remaining = len(head) + 2 + len(middle) + len(payload)
                if not self._fits(connection, remaining):
                    self._fail(route)
                    continue
                mid = connection.reserve(qos)
                self._unacknowledged[mid] = message
                pieces += (
                    bytes((0x30 | qos << 1,)) + remaining_length(remaining),
                    head,
                    mid.to_bytes(2) + middle,
                    payload,
                )
                continue
            queue.popleft()
            queue.size -= len(payload)
            remaining = len(head) + len(middle) + len(payload)
            header = (
                _FIXED_HEADERS[remaining]
                if remaining < 4096
                else b"\x30" + remaining_length(remaining)
            )
            if limit is not None and remaining + len(header) > limit:
                self._fail(route)
                continue
            passing.append(message)
            pieces += (header, head, middle, payload)

    def _begin(self, connection: MqttConnection) -> bool:
        """Tell whether there is a message of a record that may be sent now."""
        while not self._begun:
            if len(self._unacknowledged) >= self._window:
                return False
            if (parcel := self.delivery.take()) is None:
                return False
            self._unpack(connection, parcel)
        return not self._begun[0][1].qos or len(self._unacknowledged) < self._window

    def _unpack(self, connection: MqttConnection, parcel: Parcel) -> None:
        """Make a record's messages ready for this broker, or refuse all of them."""
        waited = self._loop.time() - parcel.accepted
        if parcel.sends <= 1 and waited < 1.0:
            middle = connection.publish_head
        elif (expiry := connection.message_expiry) is not None and waited >= expiry:
            self.delivery.drop(parcel, Outcome.EXPIRED)
            return
        else:
            middle = connection.head_for(waited, is_resend=parcel.sends > 1)
        begun = []
        for message in parcel.messages:
            head, payload, qos, retain, is_object = message
            if is_object and parcel.sends > 1:
                payload = mark_resent(payload)
            if not self._fits(connection, len(head) + len(middle) + len(payload)):
                self._report(Problem.TOO_LARGE)
                self.delivery.refuse_all(parcel, Problem.TOO_LARGE)
                return
            qos = min(qos, connection.maximum_qos)
            parcel.confirms |= qos > 0
            begun.append((parcel, Message(head, payload, qos, retain), middle))
        self._begun.extend(begun)

    def _add_message(self, connection: MqttConnection, batch: _Batch) -> None:
        """Add the next message of a record to a batch."""
        parcel, (head, payload, qos, retain, _), middle = self._begun.popleft()
        if qos:
            mid = connection.reserve(qos)
            self._unacknowledged[mid] = parcel
            middle = mid.to_bytes(2) + middle
        else:
            batch.parcels.append(parcel)
        remaining = len(head) + len(middle) + len(payload)
        batch.pieces += (
            bytes((0x30 | qos << 1 | retain,)) + remaining_length(remaining),
            head,
            middle,
            payload,
        )

    @staticmethod
    def _fits(connection: MqttConnection, size: int) -> bool:
        """Tell whether the broker takes a packet of so many bytes beside its header."""
        limit = connection.maximum_packet_size
        return limit is None or size + 7 <= limit

    def _flush_singly(self, connection: MqttConnection) -> None:
        """Publish what waits through paho, where it cannot be written ready-made."""
        while self._begin(connection):
            parcel, (head, payload, qos, retain, _), _ = self._begun.popleft()
            self.bytes_sent += len(head) + len(payload)
            mid = connection.publish(head[2:].decode(), payload, qos=qos, retain=retain)
            self._unacknowledged[mid] = parcel
        while self._passing and len(self._unacknowledged) < self._window:
            message = self._passing.take()
            route, payload, _ = message
            if not self._fits(connection, len(route.head) + len(payload)):
                self._fail(route)
                continue
            self.bytes_sent += len(route.head) + len(payload)
            mid = connection.publish(route.head[2:].decode(), payload, qos=route.qos)
            self._unacknowledged[mid] = message

    # --- answers ------------------------------------------------------------------------

    def on_written(self, mid: int) -> None:
        """Take note that a batch was written, or a message acknowledged."""
        if message := self._unacknowledged.pop(mid, None):
            self._take_answer(message)
        elif (batch := self._under_way) is not None and mid == batch.mid:
            self._under_way = None
            self._conclude(batch)
        self._go_on_soon()

    def on_refused(self, mid: int, problem: Problem) -> None:
        """Take note that the broker refused a message."""
        if message := self._unacknowledged.pop(mid, None):
            self._answered = self._loop.time()
            self._report(problem)
            if isinstance(message, Parcel):
                self.delivery.refuse(message, problem)
            else:
                message[0].tally.refused += 1
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        """Send what waits, gathered with what else is answered in this moment."""
        if self._under_way is not None or self._connection is None:
            return
        if self._passing or self.delivery.waiting:
            self.wake()
        elif self._drained and not self.waiting:
            self._tell_drained()

    def _take_answer(self, message: Passing | Parcel) -> None:
        """Count a message that was acknowledged."""
        now = self._answered = self._loop.time()
        if isinstance(message, Parcel):
            sent = message.sent
            self._measure(now - message.accepted)
            self.delivery.confirm(message)
        else:
            route, _, sent = message
            if route.qos and self._connection and self._connection.maximum_qos:
                route.tally.acknowledged += 1
            else:
                route.tally.sent += 1
            self._measure(now - sent)
        if now - sent <= self.delivery.settings.publish_timeout:
            self._patience = 1

    def _measure(self, latency: float) -> None:
        self.latency_sum += latency
        self.latency_count += 1

    def _conclude(self, batch: _Batch) -> None:
        """Count a batch as written; its oldest message stands for its latency."""
        self.bytes_sent += batch.size
        if batch.passing:
            for route, _, _ in batch.passing:
                route.tally.sent += 1
            self._measure(self._loop.time() - batch.passing[0][2])
        for parcel in batch.parcels:
            self.delivery.confirm(parcel)
        if batch.parcels:
            self._measure(self._loop.time() - batch.parcels[0].sent)
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug(
                "Published %d advertisements and %d messages of records, %d bytes",
                len(batch.passing),
                len(batch.pieces) // 4 - len(batch.passing),
                batch.size,
            )

    def _fail(self, route: Route) -> None:
        """Count an advertisement that the broker would not accept."""
        route.tally.failed += 1
        self._report(Problem.TOO_LARGE)

    def _tell_drained(self) -> None:
        """Tell who waits for it that there is nothing more to send."""
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    # --- patience -----------------------------------------------------------------------

    def _watch_acknowledgements(self) -> None:
        """See to it that what is unacknowledged does not stay so for ever."""
        if self._unacknowledged and self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._on_watch)

    @property
    def _timeout(self) -> float:
        """Return how long a broker may acknowledge nothing (s).

        It grows each time that a connection was given up for it, else a slow network would
        never have the time to answer.
        """
        return self.delivery.settings.publish_timeout * self._patience

    def _on_watch(self) -> None:
        self._watch = None
        if not self._unacknowledged or self._connection is None:
            return
        if (left := self._answered + self._timeout - self._loop.time()) > 0:
            self._watch = self._loop.call_later(left, self._on_watch)
            return
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._on_stalled()
