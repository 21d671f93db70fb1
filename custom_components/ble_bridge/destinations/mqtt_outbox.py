"""Messages on their way to an MQTT broker.

At QoS 0 a batch is all that is under way; at QoS 1 and 2 a bounded number of messages is
unacknowledged at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
import logging
from typing import Final, override

from ..records import Route
from .delivery import Delivery
from .errors import Problem
from .mqtt_connection import MqttConnection, remaining_length
from .outbox import GATHER, Batch, Outbox, Passing, mark_resent
from .parcels import Message, Outcome, Parcel

_LOGGER = logging.getLogger(__name__)

# How soon the next batch goes where no more may be unacknowledged: each millisecond costs
# messages then.
_GATHER_BLOCKED: Final = 0.0005

_FIXED_HEADERS: Final = [b"\x30" + remaining_length(n) for n in range(4096)]


class MqttOutbox(Outbox[MqttConnection]):
    """What of one broker is not sent yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delivery: Delivery,
        report: Callable[[Problem], None],
        on_stalled: Callable[[], None],
    ) -> None:
        """Initialize, as `Outbox` does."""
        super().__init__(loop, delivery, report, on_stalled)
        self._window = 0
        # The messages of records that were begun, where the broker takes few at once.
        self._begun: deque[tuple[Parcel, Message, bytes]] = deque()
        self._is_blocked = False
        self._unacknowledged: dict[int, Passing | Parcel] = {}

    @property
    @override
    def passing(self) -> int:
        return super().passing + sum(
            type(message) is tuple for message in self._unacknowledged.values()
        )

    @property
    @override
    def _gather(self) -> float:
        return _GATHER_BLOCKED if self._is_blocked else GATHER

    @property
    @override
    def _is_awaiting(self) -> bool:
        return bool(self._unacknowledged)

    @property
    @override
    def _can_send(self) -> bool:
        free = self._may_send_records
        return bool(
            (self._begun and (free or not self._begun[0][1].qos))
            or (self._passing and (free or not self._passing[0][0].qos))
        )

    @property
    @override
    def _may_send_records(self) -> bool:
        return len(self._unacknowledged) < self._window

    # --- the connection -----------------------------------------------------------------

    @override
    def _begin(self, connection: MqttConnection) -> None:
        self._window = min(
            self.delivery.settings.max_in_flight, connection.receive_maximum
        )
        self._passing.put_back(
            (message[0], mark_resent(message[1]), message[2])
            for message in reversed(self._unacknowledged.values())
            if not isinstance(message, Parcel)
        )
        self._unacknowledged.clear()

    @override
    def _abandon(self, connection: MqttConnection) -> None:
        super()._abandon(connection)
        self._begun.clear()
        for mid, message in list(self._unacknowledged.items()):
            if isinstance(message, Parcel):
                del self._unacknowledged[mid]
            elif not min(message[0].qos, connection.maximum_qos):
                message[0].tally.away += 1
                del self._unacknowledged[mid]

    @override
    def give_up(self) -> None:
        for message in self._unacknowledged.values():
            if not isinstance(message, Parcel):
                message[0].tally.away += 1
        self._unacknowledged.clear()
        super().give_up()

    # --- out ----------------------------------------------------------------------------

    @override
    def _send(self, connection: MqttConnection) -> None:
        if connection.can_batch:
            self._flush_batch(connection)
        else:
            self._flush_singly(connection)
        self._is_blocked = not self._may_send_records

    def _flush_batch(self, connection: MqttConnection) -> None:
        """Write what waits as ready-made packets in one piece."""
        batch = Batch()
        room = connection.batch_size
        while len(batch.pieces) < 4 * room and self._begin_record(connection):
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

    def _add_passing(self, connection: MqttConnection, batch: Batch, room: int) -> None:
        """Add advertisements to a batch."""
        queue, pieces, passing = self._passing, batch.pieces, batch.passing
        middle = connection.publish_head
        limit = connection.maximum_packet_size
        size = queue.size
        for _ in range(min(len(queue), room)):
            message = queue[0]
            route, payload, _ = message
            head = route.head
            if route.qos and (qos := min(route.qos, connection.maximum_qos)):
                if len(self._unacknowledged) >= self._window:
                    break
                queue.take()
                size -= len(payload)
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
                size -= len(payload)
                self._fail(route)
                continue
            passing.append(message)
            pieces += (header, head, middle, payload)
        batch.payload_size = size - queue.size

    def _begin_record(self, connection: MqttConnection) -> bool:
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

    def _add_message(self, connection: MqttConnection, batch: Batch) -> None:
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
        while self._begin_record(connection):
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

    def _take_answer(self, message: Passing | Parcel) -> None:
        """Count a message that was acknowledged."""
        if isinstance(message, Parcel):
            self._answer(message.sent)
            self.delivery.confirm(message)
        else:
            route, payload, since = message
            self._answer(since)
            connection = self._connection
            is_confirmed = bool(route.qos and connection and connection.maximum_qos)
            if is_confirmed:
                route.tally.acknowledged += 1
            else:
                route.tally.sent += 1
            self._measure(len(payload), since, acknowledged=is_confirmed)

    def _conclude(self, batch: Batch) -> None:
        """Count a batch as written; its oldest message stands for its latency."""
        self.bytes_sent += batch.size
        if batch.passing:
            for route, _, _ in batch.passing:
                route.tally.sent += 1
            since = batch.passing[0][2]
            self._measure(batch.payload_size, since, acknowledged=False)
        for parcel in batch.parcels:
            self.delivery.confirm(parcel)
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
