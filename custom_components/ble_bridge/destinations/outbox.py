"""Messages on their way to a broker.

At QoS 0, messages are collected and written in batches: at once on a quiet bus, in bulk
on a busy one. One batch is under way at a time; while it is, the next one is collected.
At QoS 1 and 2 each message waits for its acknowledgement, a bounded number at once. Each
of the two has a queue of its own, so that a flood of the one leaves the other alone.
Either way a slow broker meets a bounded buffer whose oldest messages make room. While it
is away, what is buffered is kept, the newest of it; the rest is dropped (the drop policy).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
import logging
from typing import Final

from ..records import Route
from .errors import Problem
from .mqtt_connection import MqttConnection

_LOGGER = logging.getLogger(__name__)

MAX_MESSAGES: Final = 20_000
MAX_BYTES: Final = 8 * 1024 * 1024
# How many are kept while the broker is away, in each of the two queues.
MAX_BUFFERED: Final = 1_000
# Once batches follow each other faster than this, they are gathered: a few milliseconds
# of latency for a loop that turns once for many packets.
_GATHER: Final = 0.003

type Message = tuple[Route, bytes, float]


def _fixed_header(remaining: int, retain: bool) -> bytes:
    """Return the fixed header of a QoS 0 PUBLISH packet (MQTT 5, 2.1)."""
    header = bytearray(b"\x31" if retain else b"\x30")
    while True:
        remaining, digit = divmod(remaining, 128)
        if not remaining:
            header.append(digit)
            return bytes(header)
        header.append(digit | 0x80)


_FIXED_HEADERS: Final = [_fixed_header(remaining, False) for remaining in range(4096)]


class _Queue(deque[Message]):
    """Messages that wait, and how many bytes they are."""

    size = 0

    def put(self, message: Message) -> None:
        """Take a message; the oldest makes room where there is none."""
        self.append(message)
        self.size += len(message[1])
        if self.size > MAX_BYTES or len(self) > MAX_MESSAGES:
            self.take()[0].tally.overflow += 1

    def take(self) -> Message:
        """Return the oldest message."""
        message = self.popleft()
        self.size -= len(message[1])
        return message

    def put_back(self, messages: Iterable[Message]) -> None:
        """Take messages that go before all others."""
        for message in messages:
            self.appendleft(message)
            self.size += len(message[1])

    def buffer(self, message: Message) -> None:
        """Take a message that waits for the broker; the oldest makes room."""
        self.put(message)
        if len(self) > MAX_BUFFERED:
            self.take()[0].tally.overflow += 1

    def drop(self, *, all_of_them: bool = False) -> None:
        """Drop what is not to wait for the broker, or all."""
        messages = list(self)
        self.clear()
        self.size = 0
        for message in messages:
            if message[0].is_buffered and not all_of_them:
                self.buffer(message)
            else:
                message[0].tally.away += 1


class Outbox:
    """The messages of one destination that are not sent yet."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, report: Callable[[Problem], None]
    ) -> None:
        """Initialize; `report` is told of messages that the broker or we rejected."""
        self.bytes_sent = 0
        self.latency_sum = 0.0
        self.latency_count = 0
        self._loop = loop
        self._maximum_qos = 0
        self._batching = False
        self._report = report
        self._connection: MqttConnection | None = None
        self._unconfirmed = _Queue()
        self._confirmed = _Queue()
        self._flushing: asyncio.Handle | None = None
        self._flushed = 0.0
        self._under_way: list[Message] = []
        self._under_way_bytes = 0
        self._under_way_mid = 0
        self._inflight: dict[int, Message] = {}
        self._drained: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Return how many messages are neither sent nor dropped."""
        return (
            len(self._unconfirmed)
            + len(self._confirmed)
            + len(self._under_way)
            + len(self._inflight)
        )

    def put(self, route: Route, payload: bytes) -> None:
        """Take a message whose tally has counted it as received."""
        queue = self._confirmed if route.qos else self._unconfirmed
        if self._connection is None:
            if route.is_buffered:
                queue.buffer((route, payload, self._loop.time()))
            else:
                route.tally.away += 1
            return
        queue.put((route, payload, self._loop.time()))
        if self._flushing is None and not self._under_way:
            self._schedule()

    def open(self, connection: MqttConnection) -> None:
        """Send over a connection, beginning with what waits: the unanswered first."""
        self._connection = connection
        self._maximum_qos = connection.maximum_qos
        self._batching = connection.can_batch
        self._confirmed.put_back(reversed(self._inflight.values()))
        self._inflight.clear()
        if self._confirmed or self._unconfirmed:
            self._schedule()

    def close(self) -> None:
        """Stop sending: what is not buffered is dropped and counted.

        What waits for an acknowledgement may have arrived; it is sent again over the next
        connection (QoS 1 is at least once, and QoS 0 at most once).
        """
        self._connection = None
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        for route, _, _ in self._under_way:
            route.tally.away += 1
        self._under_way = []
        self._unconfirmed.drop()
        self._confirmed.drop()
        for mid, (route, _, _) in list(self._inflight.items()):
            if not min(route.qos, self._maximum_qos):
                route.tally.away += 1
                del self._inflight[mid]
        self._tell_drained()

    def give_up(self) -> None:
        """Drop all that waits: there will be no next connection."""
        self._unconfirmed.drop(all_of_them=True)
        self._confirmed.drop(all_of_them=True)
        for route, _, _ in self._inflight.values():
            route.tally.away += 1
        self._inflight.clear()

    async def async_drain(self, patience: float) -> None:
        """Wait until all is sent, though not longer than our patience (s)."""
        if self._connection is None:
            return
        if self._flushing is not None:
            self._flushing.cancel()
        self.flush()
        if self.waiting:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=patience)
            self._drained = None

    def flush(self) -> None:
        """Write what waits now."""
        self._flushing = None
        self._flushed = self._loop.time()
        if self._connection is None or self._under_way:
            return
        self._flush_singly(self._connection, self._confirmed)
        if self._batching:
            self._flush_batch(self._connection)
        else:
            self._flush_singly(self._connection, self._unconfirmed)

    def on_written(self, mid: int) -> None:
        """Take note that a batch was written, or a message acknowledged."""
        if message := self._inflight.pop(mid, None):
            self._count(message, len(message[0].head) + len(message[1]))
        elif self._under_way and mid == self._under_way_mid:
            under_way, self._under_way = self._under_way, []
            self._count_batch(under_way, self._under_way_bytes)
        self._go_on()

    def on_refused(self, mid: int) -> None:
        """Take note that the broker refused a message."""
        if message := self._inflight.pop(mid, None):
            self._fail(message[0])
        self._go_on()

    def _go_on(self) -> None:
        """Send what waits, or tell that nothing does."""
        if self._unconfirmed or self._confirmed:
            if self._flushing is None:
                self._schedule()
        elif not self.waiting:
            self._tell_drained()

    def _tell_drained(self) -> None:
        """Tell who waits for it that there is nothing more to send."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _schedule(self) -> None:
        """Flush in this turn of the loop, or later if the last flush was just now."""
        if (due := self._flushed + _GATHER) > self._loop.time():
            self._flushing = self._loop.call_at(due, self.flush)
        else:
            self._flushing = self._loop.call_soon(self.flush)

    def _flush_batch(self, connection: MqttConnection) -> None:
        """Write what waits as ready-made packets in one piece."""
        queue = self._unconfirmed
        batch: list[Message] = []
        pieces: list[bytes] = []
        middle = connection.publish_head
        limit = connection.maximum_packet_size
        for _ in range(min(len(queue), connection.batch_size)):
            message = queue.popleft()
            route, payload, _ = message
            queue.size -= len(payload)
            head = route.head
            remaining = len(head) + len(middle) + len(payload)
            header = (
                _FIXED_HEADERS[remaining]
                if remaining < 4096 and not route.retain
                else _fixed_header(remaining, route.retain)
            )
            if limit is not None and remaining + len(header) > limit:
                self._fail(route)
                continue
            batch.append(message)
            pieces += (header, head, middle, payload)
        if batch:
            data = b"".join(pieces)
            if (mid := connection.write(data)) is None:
                self._count_batch(batch, len(data))
            else:
                self._under_way, self._under_way_mid = batch, mid
                self._under_way_bytes = len(data)
        if not self._under_way:
            if queue:
                self._flushing = self._loop.call_soon(self.flush)
            elif not self.waiting:
                self._tell_drained()

    def _flush_singly(self, connection: MqttConnection, queue: _Queue) -> None:
        """Publish what waits through paho, up to what may be unacknowledged at once."""
        while queue and len(self._inflight) < connection.receive_maximum:
            message = queue.take()
            route, payload, _ = message
            try:
                mid = connection.publish(
                    route.head[2:].decode(), payload, qos=route.qos, retain=route.retain
                )
            except ValueError:
                self._fail(route)
            else:
                self._inflight[mid] = message
        if not self.waiting:
            self._tell_drained()

    def _fail(self, route: Route) -> None:
        """Count a message that the broker would not, or did not, accept."""
        route.tally.failed += 1
        self._report(Problem.REJECTED)

    def _count(self, message: Message, size: int) -> None:
        """Count one message as sent."""
        message[0].tally.sent += 1
        self.bytes_sent += size
        self.latency_sum += self._loop.time() - message[2]
        self.latency_count += 1

    def _count_batch(self, batch: list[Message], size: int) -> None:
        """Count a batch as sent; the oldest message stands for its latency."""
        for route, _, _ in batch:
            route.tally.sent += 1
        self.bytes_sent += size
        self.latency_sum += self._loop.time() - batch[0][2]
        self.latency_count += 1
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug("Published %d messages, %d bytes", len(batch), size)
