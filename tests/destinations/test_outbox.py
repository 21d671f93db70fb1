"""The outbox: whatever happens, every message is accounted for, and none overtakes."""

import asyncio
from collections.abc import Iterator
from typing import cast, override

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from custom_components.ble_bridge.destinations import outbox as module
from custom_components.ble_bridge.destinations.mqtt_connection import MqttConnection
from custom_components.ble_bridge.destinations.outbox import Outbox
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import Route, Tally


class FakeConnection:
    """A connection that takes what it is told to take; `got` holds what arrived."""

    def __init__(self, maximum_qos: int, can_batch: bool, limit: int | None) -> None:
        """Initialize with what the broker allows."""
        self.publish_head = b"\0"
        self.maximum_packet_size = limit
        self.maximum_qos = maximum_qos
        self.receive_maximum = 4
        self.batch_size = 6
        self.can_batch = can_batch
        self.got: list[int] = []
        self.willing = True
        self.pending: dict[int, list[int]] = {}
        self.batch: int | None = None
        self.retained: set[int] = set()
        self._mids: Iterator[int] = iter(range(1, 1_000_000))

    def write(self, batch: bytes) -> int | None:
        """Write a batch, or keep it for later."""
        assert self.batch not in self.pending
        numbers = []
        while batch:
            assert batch[0] in b"\x30\x31"
            retain = batch[0] & 1
            length, start, shift = 0, 1, 0
            while True:
                digit = batch[start]
                length |= (digit & 127) << shift
                start, shift = start + 1, shift + 7
                if digit < 128:
                    break
            packet, batch = batch[start : start + length], batch[start + length :]
            numbers.append(_number(packet[2 + int.from_bytes(packet[:2]) + 1 :]))
            if retain:
                self.retained.add(numbers[-1])
        if self.willing:
            self.got += numbers
            return None
        self.batch = self._keep(numbers)
        return self.batch

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Keep a message until it is acknowledged."""
        assert self.batch not in self.pending
        assert len(self.pending) < self.receive_maximum
        if retain:
            self.retained.add(_number(payload))
        limit = self.maximum_packet_size
        if limit is not None and len(topic) + len(payload) + 8 > limit:
            raise ValueError
        return self._keep([_number(payload)])

    def _keep(self, numbers: list[int]) -> int:
        mid = next(self._mids)
        self.pending[mid] = numbers
        return mid


def _number(payload: bytes) -> int:
    return int(payload.split(b" ")[0])


class OutboxMachine(RuleBasedStateMachine):
    """Puts messages in, and lets a connection come, go, take, acknowledge and refuse."""

    def __init__(self) -> None:
        """Initialize with a loop that turns when we say so."""
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.raised: list[object] = []
        self.loop.set_exception_handler(
            lambda _, context: self.raised.append(context.get("exception"))
        )
        self.connection: FakeConnection | None = None
        self.connections: list[FakeConnection] = []
        self.tallies = [Tally(), Tally()]
        self.sent_by: dict[int, Route] = {}
        self.number = 0
        self.reported = 0
        self.limits = module.MAX_MESSAGES, module.MAX_BYTES, module._GATHER
        module.MAX_MESSAGES, module.MAX_BYTES = 20, 400  # type: ignore[misc]
        self.buffered = module.MAX_BUFFERED
        module.MAX_BUFFERED = 7  # type: ignore[misc]
        module._GATHER = 0.0  # type: ignore[misc]

    @initialize(
        qos=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        retain=st.tuples(st.booleans(), st.booleans()),
        buffered=st.tuples(st.booleans(), st.booleans()),
    )
    def begin(
        self,
        qos: tuple[int, int],
        retain: tuple[bool, bool],
        buffered: tuple[bool, bool],
    ) -> None:
        """Make the outbox."""
        self.outbox = Outbox(self.loop, self._report)
        self.routes = [
            Route(
                encode_topic(f"topic/{index}"),
                self.tallies[index],
                qos[index],
                keep,
                buffered[index],
            )
            for index, keep in enumerate(retain)
        ]

    def _report(self, _problem: object) -> None:
        self.reported += 1

    @rule(
        which=st.integers(0, 1),
        size=st.sampled_from([0, 0, 0, 30, 500]),
        count=st.integers(1, 12),
    )
    def put(self, which: int, size: int, count: int) -> None:
        """Put messages in."""
        for _ in range(count):
            self.number += 1
            self.tallies[which].received += 1
            self.sent_by[self.number] = self.routes[which]
            self.outbox.put(self.routes[which], b"%d %s" % (self.number, b"x" * size))

    @rule()
    def turn(self) -> None:
        """Let the loop turn."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        assert self.raised == []

    @precondition(lambda self: self.connection is None)
    @rule(
        maximum_qos=st.integers(0, 2),
        can_batch=st.booleans(),
        limit=st.sampled_from([None, 60]),
    )
    def open(self, maximum_qos: int, can_batch: bool, limit: int | None) -> None:
        """Connect."""
        self.connection = FakeConnection(maximum_qos, can_batch, limit)
        self.connections.append(self.connection)
        self.outbox.open(cast(MqttConnection, self.connection))

    @precondition(lambda self: self.connection is not None)
    @rule(willing=st.booleans())
    def change(self, willing: bool) -> None:
        """Let the socket take batches, or not."""
        assert self.connection
        self.connection.willing = willing

    @precondition(lambda self: self.connection and self.connection.pending)
    @rule(data=st.data(), refused=st.booleans())
    def answer(self, data: st.DataObject, refused: bool) -> None:
        """Write a batch or acknowledge or refuse a message."""
        assert self.connection
        pending = self.connection.pending
        mid = data.draw(st.sampled_from(sorted(pending)))
        numbers = pending.pop(mid)
        qos = self.sent_by[numbers[0]].qos
        if refused and min(qos, self.connection.maximum_qos):
            self.outbox.on_refused(mid)
        else:
            self.connection.got += numbers
            self.outbox.on_written(mid)

    @precondition(lambda self: self.connection is not None)
    @rule()
    def publish_other(self) -> None:
        """Have a message written that is not the outbox's."""
        self.outbox.on_written(999_999)

    @rule()
    def lose(self) -> None:
        """Lose the connection, and note it as often as it is told."""
        self.connection = None
        self.outbox.close()

    @rule()
    def stop(self) -> None:
        """Stop for good, as far as the outbox knows."""
        self.lose()
        self.outbox.give_up()
        assert self.outbox.waiting == 0

    @invariant()
    def adds_up(self) -> None:
        """Check that each message is sent, dropped, or waits, and the buffer is bounded."""
        if not hasattr(self, "outbox"):
            return
        assert self.outbox.waiting == sum(tally.waiting for tally in self.tallies)
        assert all(tally.waiting >= 0 for tally in self.tallies)
        assert self.outbox.waiting <= 2 * 20 + 20 + 4
        assert self.reported == sum(tally.failed for tally in self.tallies)
        for queue in (self.outbox._unconfirmed, self.outbox._confirmed):
            if self.connection is None:
                assert len(queue) <= 7
                assert all(message[0].is_buffered for message in queue)
            assert queue.size == sum(len(message[1]) for message in queue)
        assert sum(tally.sent for tally in self.tallies) == sum(
            len(connection.got) for connection in self.connections
        )

    @invariant()
    def in_order(self) -> None:
        """Check that no batch overtakes another one, and none is sent twice."""
        if not hasattr(self, "outbox"):
            return
        written = [
            number
            for connection in self.connections
            for number in connection.got
            if not self.sent_by[number].qos
        ]
        assert len(written) == len(set(written))
        for connection in self.connections:
            if connection.can_batch:
                batched = [n for n in connection.got if not self.sent_by[n].qos]
                assert batched == sorted(batched)
            for number in connection.got:
                assert self.sent_by[number].retain is (number in connection.retained)

    @override
    def teardown(self) -> None:
        """Let all of it go out, and check that it does."""
        if hasattr(self, "outbox"):
            self.lose()
            self.open(2, can_batch=True, limit=None)
            assert self.connection
            for _ in range(100):
                self.turn()
                for mid in list(self.connection.pending):
                    self.connection.got += self.connection.pending.pop(mid)
                    self.outbox.on_written(mid)
            assert self.outbox.waiting == 0
            self.adds_up()
        module.MAX_MESSAGES, module.MAX_BYTES, module._GATHER = self.limits  # type: ignore[misc]
        module.MAX_BUFFERED = self.buffered  # type: ignore[misc]
        self.loop.close()


OutboxMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None
)


def test_outbox() -> None:
    """Run the machine."""
    OutboxMachine.TestCase().runTest()
