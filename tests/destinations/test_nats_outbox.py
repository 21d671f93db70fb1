"""The outbox of NATS and what stands behind it: whatever happens, all is accounted for."""

import asyncio
from collections import Counter
import itertools
from typing import Any, override

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
import pytest

from custom_components.ble_bridge.destinations import outbox
from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.nats_connection import Outgoing
from custom_components.ble_bridge.destinations.nats_outbox import NatsOutbox, message_id
from custom_components.ble_bridge.destinations.outbox import mark_resent, unmarked
from custom_components.ble_bridge.destinations.policy import DeliverySettings, Policy
from custom_components.ble_bridge.records import RecordKind, Route, Tally

from .test_outbox import KINDS, Packet, RecordMachine, _number, turn


class FakeNats:
    """A connection that takes what it is told to take; `got` holds what arrived.

    `unacknowledged` are messages of JetStream by number, and flushes with the messages of
    records that were sent before them.
    """

    def __init__(self, window: int = 1_000, limit: int = 1_000) -> None:
        """Initialize with how much may be unacknowledged, and how large a message may be."""
        self.batch_size = 6
        self.max_payload = limit
        self.got: list[Packet] = []
        self.willing = True
        self.unacknowledged: dict[int, list[Packet]] = {}
        self.flushes: set[int] = set()
        self.keys: dict[tuple[str, int], set[bytes]] = {}
        self.under_way: tuple[int, list[Packet]] | None = None
        self._window = window
        self._unflushed: list[Packet] = []
        self._numbers = itertools.count(1)

    def reserve(self) -> int:
        """Return the number of a message."""
        return next(self._numbers)

    def write(self, messages: list[Outgoing]) -> tuple[int, int | None]:
        """Write a batch, or keep it for later."""
        assert self.under_way is None
        assert len(messages) <= self.batch_size + 6  # A record is not torn apart
        packets = []
        for subject, payload, number, key in messages:
            assert len(payload) <= self.max_payload
            packet = Packet(
                _number(payload), 0, False, number or 0, subject.decode(), payload
            )
            packets.append(packet)
            if number is None:
                assert not key
                self._unflushed.append(packet)
            else:
                self.unacknowledged[number] = [packet]
                where = packet.topic, packet.number
                self.keys.setdefault(where, set()).add(key)
        size = sum(len(payload) for _, payload, _, _ in messages)
        if self.willing:
            self.got += packets
            return size, None
        mid = next(self._numbers)
        self.under_way = mid, packets
        return size, mid

    def flush(self) -> int:
        """Ask whether all is there that was written."""
        number = next(self._numbers)
        self.unacknowledged[number] = self._unflushed
        self.flushes.add(number)
        self._unflushed = []
        assert sum(map(len, self.unacknowledged.values())) <= self._window + 12
        return number


class NatsRecordMachine(RecordMachine):
    """Says records; some of them are JetStream's."""

    stored: tuple[RecordKind, ...] = (KINDS[Policy.DURABLE],)
    connection: Any
    outbox: NatsOutbox

    @override
    def make_outbox(self) -> NatsOutbox:
        return NatsOutbox(
            self.loop, self.delivery, lambda _: None, self.lose, self.stored
        )

    @override
    def make_connection(self, maximum_qos: int, window: int) -> FakeNats:
        self.outbox._window = window
        return FakeNats(window)

    @override
    def acknowledge(self, mid: int) -> None:
        if mid in self.connection.flushes:
            self.outbox.on_flushed(mid)
        else:
            self.outbox.on_acknowledged(mid)

    @override
    def refuse(self, mid: int, problem: Problem) -> None:
        if mid in self.connection.flushes:
            # A server says which subject it denies before it answers the PING.
            flush = self.outbox._flushes.get(mid)
            for _, head in flush.parcels if flush else ():
                self.outbox.on_denied(head.lower())
            self.outbox.on_flushed(mid)
        else:
            self.outbox.on_refused(mid, problem)

    @rule()
    def hear_of_others(self) -> None:
        """Hear of what is not ours, or was answered already."""
        for on in (
            self.outbox.on_written,
            self.outbox.on_flushed,
            self.outbox.on_acknowledged,
        ):
            on(999_999)
        self.outbox.on_refused(999_999, Problem.REJECTED)

    @override
    def collect(self) -> None:
        """Take note of what arrived; what is sent again has the same message ID."""
        if self.connection is not None:
            assert all(len(keys) == 1 for keys in self.connection.keys.values())
        super().collect()

    @invariant()
    def is_confirmed(self) -> None:
        """Check that all is confirmed, and that nobody is waited for who is gone."""
        assert all(tally.sent == 0 for tally in self.tallies.values())
        if self.connection is None:
            assert not self.outbox._is_awaiting


class AllStored(NatsRecordMachine):
    """The same, all of them JetStream's."""

    stored = tuple(KINDS.values())


class NatsPassingMachine(RuleBasedStateMachine):
    """Puts advertisements in, some of them for JetStream."""

    def __init__(self) -> None:
        """Initialize with a loop that turns when we say so."""
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.connection: FakeNats | None = None
        self.connections: list[FakeNats] = []
        self.tallies = [Tally(), Tally()]
        self.routes: list[Route] = []
        self.number = 0
        self.reported = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(outbox, "MAX_MESSAGES", 20)
        self.patch.setattr(outbox, "MAX_BYTES", 400)
        self.patch.setattr(outbox, "GATHER", 0.0)

    @initialize(qos=st.tuples(st.integers(0, 1), st.integers(0, 1)))
    def begin(self, qos: tuple[int, int]) -> None:
        """Make the outbox."""
        self.delivery = Delivery(
            DeliverySettings(max_in_flight=4),
            {kind: Tally() for kind in RecordKind},
            self.loop.time,
            lambda at: at,
            lambda: None,
            lambda _: None,
        )
        self.outbox = NatsOutbox(
            self.loop, self.delivery, self._report, lambda: None, ()
        )
        self.routes = [
            Route(f"Subject.{index}".encode(), self.tallies[index], qos[index])
            for index in range(2)
        ]

    def _report(self, _problem: object) -> None:
        self.reported += 1

    @rule(
        which=st.integers(0, 1),
        size=st.sampled_from([0, 0, 0, 30, 500]),
        count=st.integers(1, 12),
    )
    def put(self, which: int, size: int, count: int) -> None:
        """Put advertisements in."""
        for _ in range(count):
            self.number += 1
            self.tallies[which].received += 1
            self.outbox.put(self.routes[which], b"%d %s" % (self.number, b"x" * size))

    @rule()
    def turn(self) -> None:
        """Let the loop turn."""
        turn(self.loop)

    @precondition(lambda self: self.connection is None)
    @rule(limit=st.sampled_from([60, 1_000]))
    def open(self, limit: int) -> None:
        """Connect."""
        self.connection = FakeNats(4, limit)
        self.connections.append(self.connection)
        self.outbox.open(self.connection)  # type: ignore[arg-type]

    @precondition(lambda self: self.connection is not None)
    @rule(willing=st.booleans())
    def change(self, willing: bool) -> None:
        """Let the stream take batches, or not."""
        assert self.connection
        self.connection.willing = willing

    @precondition(lambda self: self.connection and self.connection.under_way)
    @rule()
    def written(self) -> None:
        """Write what the stream did not take at once."""
        assert self.connection
        assert self.connection.under_way
        number, packets = self.connection.under_way
        self.connection.under_way = None
        self.connection.got += packets
        self.outbox.on_written(number)

    @precondition(lambda self: self.connection and self.connection.unacknowledged)
    @rule(data=st.data(), refused=st.booleans())
    def answer(self, data: st.DataObject, refused: bool) -> None:
        """Acknowledge or refuse a message."""
        assert self.connection
        unacknowledged = self.connection.unacknowledged
        number = data.draw(st.sampled_from(sorted(unacknowledged)))
        del unacknowledged[number]
        if refused:
            self.outbox.on_refused(number, Problem.REJECTED)
        else:
            self.outbox.on_acknowledged(number)

    @rule(which=st.integers(0, 1))
    def deny(self, which: int) -> None:
        """Be denied a subject."""
        head = self.routes[which].head
        self.outbox.on_denied(head.lower())
        if self.connection is not None:
            unacknowledged = self.connection.unacknowledged
            for number, (packet,) in list(unacknowledged.items()):
                if packet.topic.encode() == head:
                    del unacknowledged[number]

    @rule(blamed=st.booleans())
    def lose(self, blamed: bool = False) -> None:
        """Lose the connection, and note it as often as it is told."""
        self.connection = None
        self.outbox.close(is_blamed=blamed)

    @rule()
    def stop(self) -> None:
        """Stop for good, as far as the outbox knows."""
        self.lose()
        self.outbox.give_up()
        assert self.outbox.waiting == 0

    @invariant()
    def adds_up(self) -> None:
        """Check that each message is sent, dropped, or waits, and the queue is bounded."""
        if not self.routes:
            return
        waiting = sum(tally.waiting for tally in self.tallies)
        assert self.outbox.waiting == waiting
        assert all(tally.waiting >= 0 for tally in self.tallies)
        assert waiting <= 20 + 6 + 4
        queue = self.outbox._passing
        assert queue.size == sum(len(message[1]) for message in queue)

    @invariant()
    def in_order(self) -> None:
        """Check that no message overtakes another one, and none unconfirmed comes twice."""
        written: Counter[int] = Counter()
        for connection in self.connections:
            numbers = [packet.number for packet in connection.got]
            assert numbers == sorted(numbers)
            written.update(p.number for p in connection.got if not p.mid)
        assert max(written.values(), default=0) <= 1

    @override
    def teardown(self) -> None:
        """Let all of it go out, and check that it does."""
        if self.routes:
            self.lose()
            self.open(1_000)
            assert self.connection
            for _ in range(100):
                turn(self.loop)
                for number in list(self.connection.unacknowledged):
                    del self.connection.unacknowledged[number]
                    self.outbox.on_acknowledged(number)
            assert self.outbox.waiting == 0
            self.adds_up()
        self.patch.undo()
        self.loop.close()


for machine in (NatsRecordMachine, AllStored, NatsPassingMachine):
    machine.TestCase.settings = settings(
        max_examples=150, stateful_step_count=40, deadline=None
    )


@pytest.mark.parametrize("machine", [NatsRecordMachine, AllStored])
def test_records(machine: type[NatsRecordMachine]) -> None:
    """Run the machine of records."""
    machine.TestCase().runTest()


def test_passing() -> None:
    """Run the machine of advertisements."""
    NatsPassingMachine.TestCase().runTest()


@given(
    st.dictionaries(st.sampled_from("ab"), st.integers()).map(
        lambda found: str(found).replace("'", '"').replace(" ", "").encode()
    )
    | st.binary().map(lambda content: b"\x0a" + content)
)
def test_message_id(payload: bytes) -> None:
    """A message that is sent again is known again, and no other is taken for it."""
    again = mark_resent(payload)
    assert message_id(b"a", unmarked(again)) == message_id(b"a", unmarked(payload))
    if unmarked(payload) == payload:
        assert unmarked(again) == payload
    assert message_id(b"a", payload) != message_id(b"b", payload)
    assert message_id(b"a", payload) != message_id(b"a", payload + b"x")
    assert len(message_id(b"a", payload)) == 32
