"""The outbox and what stands behind it: whatever happens, all is accounted for.

Two machines: one for advertisements that pass, one for records, with a real store on disk.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast, override

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
import pytest

from custom_components.ble_bridge.destinations import (
    delivery as delivery_module,
    mqtt_outbox,
    outbox,
)
from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.journal import Journal
from custom_components.ble_bridge.destinations.mqtt_connection import MqttConnection
from custom_components.ble_bridge.destinations.mqtt_outbox import MqttOutbox
from custom_components.ble_bridge.destinations.outbox import mark_resent
from custom_components.ble_bridge.destinations.parcels import Message, Parcel
from custom_components.ble_bridge.destinations.policy import (
    Bounds,
    DeliverySettings,
    Policy,
)
from custom_components.ble_bridge.destinations.store import RecordStore, StoreError
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import RecordKind, Route, Tally


class Packet(NamedTuple):
    """A PUBLISH packet: its number, QoS, identifier, and whether it is marked as resent."""

    number: int
    qos: int
    retain: bool
    mid: int
    topic: str
    payload: bytes


class FakeConnection:
    """A connection that takes what it is told to take; `got` holds what arrived."""

    def __init__(
        self, maximum_qos: int, can_batch: bool, limit: int | None, window: int = 4
    ) -> None:
        """Initialize with what the broker allows."""
        self.publish_head = b"\0"
        self.message_expiry: int | None = None
        self.maximum_packet_size = limit
        self.maximum_qos = maximum_qos
        self.receive_maximum = window
        self.batch_size = 6
        self.can_batch = can_batch
        self.got: list[Packet] = []
        self.willing = True
        self.unacknowledged: dict[int, Packet] = {}
        self.under_way: tuple[int, list[Packet]] | None = None
        self._mids: Iterator[int] = itertools.count(1)

    def head_for(self, waited: float, *, is_resend: bool) -> bytes:
        """Return what stands between topic and payload."""
        return b"\0"

    def reserve(self, qos: int) -> int:
        """Return a packet identifier."""
        assert 1 <= qos <= self.maximum_qos
        return next(self._mids)

    def write(self, batch: bytes) -> int | None:
        """Write a batch, or keep it for later."""
        assert self.under_way is None
        packets = list(_packets(batch))
        for packet in packets:
            if packet.qos:
                self.unacknowledged[packet.mid] = packet
        assert len(self.unacknowledged) <= self.receive_maximum
        if self.willing:
            self.got += packets
            return None
        mid = next(self._mids)
        self.under_way = mid, packets
        return mid

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False
    ) -> int:
        """Keep a message until it is acknowledged, or, at QoS 0, written."""
        mid = next(self._mids)
        qos = min(qos, self.maximum_qos)
        packet = Packet(_number(payload), qos, retain, mid, topic, payload)
        self.unacknowledged[mid] = packet
        assert len(self.unacknowledged) <= self.receive_maximum
        self.got.append(packet)
        return mid


def _packets(batch: bytes) -> Iterator[Packet]:
    """Yield the packets of a batch."""
    while batch:
        first = batch[0]
        assert first >> 4 == 3
        length, start, shift = 0, 1, 0
        while True:
            digit = batch[start]
            length |= (digit & 127) << shift
            start, shift = start + 1, shift + 7
            if digit < 128:
                break
        packet, batch = batch[start : start + length], batch[start + length :]
        end = 2 + int.from_bytes(packet[:2])
        qos, mid = first >> 1 & 3, 0
        topic = packet[2:end].decode()
        if qos:
            mid, end = int.from_bytes(packet[end : end + 2]), end + 2
        assert packet[end] == 0  # No properties
        payload = packet[end + 1 :]
        yield Packet(_number(payload), qos, bool(first & 1), mid, topic, payload)


def _number(payload: bytes) -> int:
    return int(payload.lstrip(b'{"n:').split(b" ")[0].split(b",")[0].rstrip(b"}"))


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop turn."""
    loop.call_soon(loop.stop)
    loop.run_forever()


class PassingMachine(RuleBasedStateMachine):
    """Puts advertisements in; a connection comes, goes, takes, acknowledges and refuses."""

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
        self.routes: list[Route] = []
        self.sent_by: dict[int, Route] = {}
        self.number = 0
        self.reported = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(outbox, "MAX_MESSAGES", 20)
        self.patch.setattr(outbox, "MAX_BYTES", 400)
        self.patch.setattr(mqtt_outbox, "GATHER", 0.0)
        self.patch.setattr(mqtt_outbox, "_GATHER_BLOCKED", 0.0)

    @initialize(qos=st.tuples(st.integers(0, 2), st.integers(0, 2)))
    def begin(self, qos: tuple[int, int]) -> None:
        """Make the outbox."""
        tallies = {kind: Tally() for kind in RecordKind}
        self.delivery = Delivery(
            DeliverySettings(),
            tallies,
            self.loop.time,
            lambda at: at,
            lambda: None,
            lambda _: None,
        )
        self.outbox = MqttOutbox(self.loop, self.delivery, self._report, lambda: None)
        self.routes = [
            Route(encode_topic(f"topic/{index}"), self.tallies[index], qos[index])
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
            self.sent_by[self.number] = self.routes[which]
            self.outbox.put(self.routes[which], b"%d %s" % (self.number, b"x" * size))

    @rule()
    def turn(self) -> None:
        """Let the loop turn."""
        turn(self.loop)
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

    @precondition(lambda self: self.connection and self.connection.unacknowledged)
    @rule(data=st.data(), refused=st.booleans())
    def answer(self, data: st.DataObject, refused: bool) -> None:
        """Acknowledge or refuse a message."""
        assert self.connection
        unacknowledged = self.connection.unacknowledged
        mid = data.draw(st.sampled_from(sorted(unacknowledged)))
        if unacknowledged.pop(mid).qos and refused:
            self.outbox.on_refused(mid, Problem.NOT_AUTHORIZED)
        else:
            self.outbox.on_written(mid)

    @precondition(lambda self: self.connection and self.connection.under_way)
    @rule()
    def written(self) -> None:
        """Write what the socket did not take at once."""
        assert self.connection
        assert self.connection.under_way
        mid, packets = self.connection.under_way
        self.connection.under_way = None
        self.connection.got += packets
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
        """Check that each message is sent, dropped, or waits, and the queue is bounded."""
        if not self.routes:
            return
        waiting = sum(tally.waiting for tally in self.tallies)
        assert self.outbox.waiting == waiting
        assert all(tally.waiting >= 0 for tally in self.tallies)
        assert waiting <= 20 + 20 + 4
        assert self.reported == sum(t.failed + t.refused for t in self.tallies)
        queue = self.outbox._passing
        assert queue.size == sum(len(message[1]) for message in queue)

    @invariant()
    def in_order(self) -> None:
        """Check that no message overtakes another one, and none at QoS 0 is sent twice."""
        written: Counter[int] = Counter()
        for connection in self.connections:
            numbers = [packet.number for packet in connection.got]
            assert numbers == sorted(numbers)
            written.update(p.number for p in connection.got if not p.qos)
            for packet in connection.got:
                route = self.sent_by[packet.number]
                assert packet.qos == min(route.qos, connection.maximum_qos)
        assert max(written.values(), default=0) <= 1

    @override
    def teardown(self) -> None:
        """Let all of it go out, and check that it does."""
        if self.routes:
            self.lose()
            self.open(2, can_batch=True, limit=None)
            assert self.connection
            for _ in range(100):
                turn(self.loop)
                for mid in list(self.connection.unacknowledged):
                    del self.connection.unacknowledged[mid]
                    self.outbox.on_written(mid)
            assert self.outbox.waiting == 0
            self.adds_up()
        self.patch.undo()
        self.loop.close()


class InlineLoop(asyncio.SelectorEventLoop):
    """A loop whose time we set, and whose threads are done at once."""

    now = 1000.0

    @override
    def time(self) -> float:
        return self.now

    @override
    def run_in_executor(self, executor, func, *args):  # type: ignore[no-untyped-def, override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except StoreError as err:
            future.set_exception(err)
        return future


KINDS = {
    Policy.DROP: RecordKind.CONNECTIVITY,
    Policy.BUFFER: RecordKind.READING,
    Policy.DURABLE: RecordKind.ALERT,
}


class FailingStore(RecordStore):
    """A store whose disk may be full."""

    fails = False

    @override
    def apply(self, inserts, deletes, refusals=()):  # type: ignore[no-untyped-def]
        if self.fails:
            raise StoreError(Problem.STORE_FAILED, "No space left on device")
        return super().apply(inserts, deletes, refusals)


class RecordMachine(RuleBasedStateMachine):
    """Says records; connection, broker, disk, and Home Assistant itself may fail."""

    def __init__(self) -> None:
        """Initialize with a store in a directory of its own."""
        super().__init__()
        self.directory = TemporaryDirectory()
        self.loop = InlineLoop()
        self.raised: list[object] = []
        self.loop.set_exception_handler(
            lambda _, context: self.raised.append(context.get("exception"))
        )
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(delivery_module, "MAX_IN_MEMORY", 6)
        self.patch.setattr(delivery_module, "_LOW", 3)
        self.patch.setattr(delivery_module, "LIVE_RECORDS", 30)
        self.patch.setattr("custom_components.ble_bridge.destinations.journal.PAGE", 4)
        self.number = 0
        self.policy: dict[int, Policy] = {}
        self.device: dict[int, str] = {}
        self.written: set[int] = set()  # Durable, and surely on disk or acknowledged
        self.earlier: list[Tally] = []
        self.arrivals: Counter[tuple[int, str]] = Counter()
        self.newest: dict[tuple[Policy, str], int] = {}
        self.disturbed = False  # What is refused comes behind what was on its way
        self.messages: dict[int, int] = {}
        self.connection: Any = None
        self.start()

    # --- Home Assistant -----------------------------------------------------------------

    def start(self) -> None:
        """Start as Home Assistant does."""
        self.tallies = {kind: Tally() for kind in RecordKind}
        self.delivery = Delivery(
            DeliverySettings(
                policies={kind: policy for policy, kind in KINDS.items()},
                buffer=Bounds(10, 2_000),
                store=Bounds(40, 20_000),
                drain_rate=1000,
                max_tries=3,
            ),
            self.tallies,
            self.loop.time,
            lambda at: at,
            lambda: self.outbox.wake(),  # noqa: PLW0108 - it is made later
            lambda _: None,
        )
        self.store = FailingStore(
            Path(self.directory.name, "records.db"), list(RecordKind)
        )
        self.delivery.journal = Journal(
            self.loop, self.store, self.delivery, lambda at: at
        )
        self.outbox = self.make_outbox()
        self.loop.run_until_complete(self.delivery.journal.async_open())

    # --- what differs between kinds of destinations -------------------------------------

    def make_outbox(self) -> Any:
        """Return the outbox."""
        return MqttOutbox(self.loop, self.delivery, lambda _: None, self.lose)

    def make_connection(self, maximum_qos: int, window: int) -> Any:
        """Return a connection."""
        return FakeConnection(maximum_qos, True, None, window)

    def acknowledge(self, mid: int) -> None:
        """Acknowledge what was sent under a number."""
        self.outbox.on_written(mid)

    def refuse(self, mid: int, problem: Problem) -> None:
        """Refuse what was sent under a number."""
        self.outbox.on_refused(mid, problem)

    # --- Home Assistant, going on -------------------------------------------------------

    @rule()
    def restart(self) -> None:
        """Stop, and start again."""
        self.store.fails = False
        self.lose()
        self.outbox.give_up()
        assert self.delivery.journal
        self.loop.run_until_complete(self.delivery.journal.async_close())
        self.written |= {
            n for n, policy in self.policy.items() if policy is Policy.DURABLE
        }
        self.earlier.append(self.tallies[RecordKind.ALERT])
        self.start()

    @rule()
    def crash(self) -> None:
        """Be killed, and start again."""
        self.connection = None
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.outbox.close()
        assert self.delivery.journal
        self.delivery.journal._cancel_timer()
        self.delivery.journal._closing = True
        turn(self.loop)
        self.store.close()
        for number in self.policy.keys() - self.written:
            del self.policy[number]
        self.earlier.append(self.tallies[RecordKind.ALERT])
        self.start()

    @rule()
    def fail(self) -> None:
        """Let the disk be full."""
        self.store.fails = True
        # What cannot be written does not wait for what can not be read
        self.disturbed |= self.delivery.unread > 0

    @rule()
    def mend(self) -> None:
        """Let the disk have room again, and notice that."""
        self.store.fails = False
        for _ in range(3):
            self.loop.now += 31
            for _ in range(4):
                turn(self.loop)
        assert self.delivery.journal
        assert not self.delivery.journal.failed

    # --- what is said -------------------------------------------------------------------

    @rule(
        policy=st.sampled_from(list(Policy)),
        device=st.sampled_from("ab"),
        messages=st.integers(1, 6),
        count=st.integers(1, 8),
        qos=st.integers(0, 2),
    )
    def say(
        self, policy: Policy, device: str, messages: int, count: int, qos: int
    ) -> None:
        """Take records."""
        kind = KINDS[policy]
        for _ in range(count):
            self.number += 1
            self.policy[self.number] = policy
            self.device[self.number] = device
            self.messages[self.number] = messages
            payload = b'{"n":%d}' % self.number
            parcel = Parcel(
                kind,
                self.tallies[kind],
                device,
                tuple(
                    Message(
                        encode_topic(f"{device}/{part}"),
                        payload,
                        max(qos, policy is Policy.DURABLE),
                        is_object=True,
                    )
                    for part in range(messages)
                ),
                policy,
                self.loop.time(),
            )
            self.tallies[kind].received += 1
            self.loop.now += 0.001
            self.outbox.accept(parcel)

    # --- the world ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 2.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.now += seconds
        for _ in range(4):
            turn(self.loop)
        assert self.raised == []

    @rule()
    def reach_disk(self) -> None:
        """Let the disk take all that is meant for it."""
        self.mend()
        for _ in range(12):
            self.loop.now += 0.1
            turn(self.loop)
        assert self.delivery.journal
        assert not self.delivery.journal.unwritten
        self.written |= {
            n for n, policy in self.policy.items() if policy is Policy.DURABLE
        }

    @precondition(lambda self: self.connection is None)
    @rule(maximum_qos=st.integers(1, 2), window=st.sampled_from([1, 4, 20]))
    def connect(self, maximum_qos: int, window: int) -> None:
        """Connect."""
        self.connection = self.make_connection(maximum_qos, window)
        self.outbox.open(self.connection)

    @precondition(lambda self: self.connection is not None)
    @rule(willing=st.booleans())
    def change(self, willing: bool) -> None:
        """Let the socket take batches, or not."""
        assert self.connection
        self.connection.willing = willing
        self.write()

    def write(self) -> None:
        """Write what the socket did not take at once."""
        assert self.connection
        if self.connection.under_way:
            mid, packets = self.connection.under_way
            self.connection.under_way = None
            self.connection.got += packets
            self.outbox.on_written(mid)

    @precondition(lambda self: self.connection and self.connection.unacknowledged)
    @rule(
        count=st.integers(1, 10),
        problem=st.sampled_from(
            [None, None, None, None, Problem.NOT_AUTHORIZED, Problem.QUOTA_EXCEEDED]
        ),
    )
    def answer(self, count: int, problem: Problem | None) -> None:
        """Acknowledge or refuse messages, as they came."""
        assert self.connection
        self.write()
        unacknowledged = self.connection.unacknowledged
        for mid in list(unacknowledged)[:count]:
            del unacknowledged[mid]
            if problem:
                self.disturbed = True
                self.refuse(mid, problem)
            else:
                self.acknowledge(mid)

    @rule(blamed=st.booleans())
    def lose(self, blamed: bool = False) -> None:
        """Lose the connection."""
        self.collect()
        self.connection = None
        self.outbox.close(is_blamed=blamed)

    def collect(self) -> None:
        """Take note of what arrived."""
        if self.connection is not None:
            for packet in self.connection.got:
                self.arrivals[packet.number, packet.topic] += 1
                if self.arrivals[packet.number, packet.topic] == 1:
                    self.check_order(packet)
            self.connection.got.clear()

    def check_order(self, packet: Packet) -> None:
        """Check that no record overtakes another one of its device and kind."""
        if (policy := self.policy.get(packet.number)) is not None:
            newest = self.newest.get((policy, packet.topic), 0)
            assert packet.number > newest or self.disturbed
            self.newest[policy, packet.topic] = packet.number

    @rule()
    def retry(self) -> None:
        """Have the user send again what was refused."""
        self.delivery.retry_set_aside()

    # --- promises -----------------------------------------------------------------------

    @invariant()
    def adds_up(self) -> None:
        """Check the identity, and that memory is bounded."""
        self.collect()
        assert self.raised == []
        waiting = sum(tally.waiting for tally in self.tallies.values())
        assert self.delivery.waiting == waiting
        assert all(tally.waiting >= 0 for tally in self.tallies.values())
        durable = self.tallies[RecordKind.ALERT].waiting
        assert self.delivery.stored[0] == durable
        assert len(self.delivery._buffered) <= 30 + 20
        lanes = self.delivery._buffered, self.delivery._durable
        for lane in lanes:
            assert lane.size == sum(parcel.size for parcel in lane)
        if not durable:
            assert self.delivery.stored == (0, 0)
        assert self.delivery.journal
        on_way = {*self.delivery._in_flight, *self.delivery.set_aside}
        kept = [p for p in self.delivery.journal.inserts() if p not in on_way]
        assert len(kept) <= 40 + 10 + 20 or not self.delivery.journal.failed

    @override
    def teardown(self) -> None:
        """Let all of it go out: what is durable arrives, whole."""
        self.mend()
        self.delivery.retry_set_aside()
        self.lose()
        self.connect(2, window=20)
        assert self.connection
        for _ in range(400):
            self.loop.now += 0.5
            for _ in range(3):
                turn(self.loop)
            self.write()
            for mid in list(self.connection.unacknowledged):
                del self.connection.unacknowledged[mid]
                self.acknowledge(mid)
            if not self.delivery.waiting:
                break
        self.adds_up()
        assert self.delivery.waiting == 0
        arrived = Counter(number for number, _ in self.arrivals)
        missing = [n for n in self.written if arrived[n] != self.messages[n]]
        tallies = [*self.earlier, self.tallies[RecordKind.ALERT]]
        assert len(missing) <= sum(t.overflow + t.refused for t in tallies)
        assert self.delivery.journal
        self.loop.run_until_complete(self.delivery.journal.async_close())
        assert self.store.open().waiting == {}
        self.store.close()
        self.patch.undo()
        self.loop.close()
        self.directory.cleanup()


for machine in (PassingMachine, RecordMachine):
    machine.TestCase.settings = settings(
        max_examples=300, stateful_step_count=40, deadline=None
    )


def test_passing() -> None:
    """Run the machine of advertisements."""
    PassingMachine.TestCase().runTest()


def test_records() -> None:
    """Run the machine of records."""
    RecordMachine.TestCase().runTest()


@pytest.fixture(name="outbox_of")
def outbox_of_fixture() -> Iterator[Callable[..., MqttOutbox]]:
    """Return what makes an outbox whose loop turns when we say so."""
    loop = InlineLoop()

    def make(reported: list[Problem]) -> MqttOutbox:
        delivery = Delivery(
            DeliverySettings(max_age=50.0),
            {kind: Tally() for kind in RecordKind},
            loop.time,
            lambda at: at,
            lambda: None,
            lambda _: None,
        )
        return MqttOutbox(loop, delivery, reported.append, lambda: None)

    yield make
    loop.close()


def said(
    outbox: MqttOutbox, *sizes: int, qos: int = 1, policy: Policy = Policy.BUFFER
) -> Parcel:
    """Have a record of so many bytes said."""
    parcel = Parcel(
        RecordKind.READING,
        outbox.delivery._tallies[RecordKind.READING],
        "device",
        tuple(Message(encode_topic("t"), b"1 " + b"x" * size, qos) for size in sizes),
        policy,
        outbox._loop.time(),
    )
    parcel.tally.received += 1
    outbox.accept(parcel)
    return parcel


@pytest.mark.parametrize("can_batch", [True, False])
def test_too_large_in_part(
    outbox_of: Callable[..., MqttOutbox], can_batch: bool
) -> None:
    """Of a record that does not fit as a whole, nothing is sent."""
    reported: list[Problem] = []
    outbox = outbox_of(reported)
    connection = FakeConnection(2, can_batch, 60)
    outbox.open(cast(MqttConnection, connection))
    parcel = said(outbox, 0, 0, 100)
    turn(outbox._loop)
    assert connection.got == []
    assert reported == [Problem.TOO_LARGE]
    assert parcel.refusal is Problem.TOO_LARGE
    assert outbox.waiting == 0
    said(outbox, 0)
    assert isinstance(outbox._loop, InlineLoop)
    outbox._loop.now += 1
    turn(outbox._loop)
    assert len(connection.got) == 1
    route = Route(encode_topic("t"), Tally(received=1), 1)
    outbox.put(route, b"1 " + b"x" * 100)
    outbox._loop.now += 1
    turn(outbox._loop)
    assert route.tally.failed == 1


def test_expiry(outbox_of: Callable[..., MqttOutbox]) -> None:
    """What waited for longer than the broker would keep it is not sent."""
    outbox = outbox_of([])
    parcel = said(outbox, 0)
    assert isinstance(outbox._loop, InlineLoop)
    outbox._loop.now += 20
    connection = FakeConnection(2, True, None)
    connection.message_expiry = 10
    outbox.open(cast(MqttConnection, connection))
    turn(outbox._loop)
    assert connection.got == []
    assert parcel.tally.expired == 1


def test_flush(outbox_of: Callable[..., MqttOutbox]) -> None:
    """Who waits for it is told when nothing waits any more, or that it was in vain."""
    outbox = outbox_of([])
    loop = outbox._loop
    assert isinstance(loop, InlineLoop)
    assert loop.run_until_complete(outbox.async_flush(1))
    loop.run_until_complete(outbox.async_drain(1))
    connection = FakeConnection(2, True, None)
    outbox.open(cast(MqttConnection, connection))
    said(outbox, 0)
    flushing = loop.create_task(outbox.async_drain(5))
    for _ in range(3):
        turn(loop)
    assert not flushing.done()
    (mid,) = connection.unacknowledged
    outbox.on_written(mid)
    for _ in range(5):
        loop.now += 0.01
        turn(loop)
    assert flushing.done()
    said(outbox, 0)
    flushing = loop.create_task(outbox.async_drain(5))
    turn(loop)
    loop.now += 6
    for _ in range(3):
        turn(loop)
    assert flushing.done()
    assert outbox.waiting == 1


def test_stalls(outbox_of: Callable[..., MqttOutbox]) -> None:
    """A broker that acknowledges nothing is given up, with more patience each time."""
    outbox = outbox_of([])
    loop = outbox._loop
    assert isinstance(loop, InlineLoop)
    stalled: list[float] = []
    outbox._on_stalled = lambda: stalled.append(loop.now)
    for _ in range(2):
        connection = FakeConnection(2, True, None)
        opened = loop.now
        outbox.open(cast(MqttConnection, connection))
        if not stalled:
            said(outbox, 0)
        turn(loop)
        while len(stalled) < 1 or stalled[-1] < opened:
            loop.now += 0.25
            turn(loop)
        assert connection.unacknowledged
        stalled.append(loop.now - opened)
        outbox.close()
    assert stalled[1] == pytest.approx(2.5, abs=0.3)
    assert stalled[3] == pytest.approx(5.0, abs=0.3)
    outbox.give_up()
    assert outbox.waiting == 0


def test_mark_resent() -> None:
    """A JSON object has room for one more name, an empty one too."""
    assert mark_resent(b"{}") == b'{"is_resend":true}'
    marked = mark_resent(b'{"value":1}')
    assert marked == b'{"value":1,"is_resend":true}'
    assert mark_resent(marked) == marked


def test_silence_is_no_stall(outbox_of: Callable[..., MqttOutbox]) -> None:
    """What is sent after a while without anything to say has the whole timeout."""
    outbox = outbox_of([])
    loop = outbox._loop
    assert isinstance(loop, InlineLoop)
    stalled: list[float] = []
    outbox._on_stalled = lambda: stalled.append(loop.now)
    connection = FakeConnection(2, True, None)
    outbox.open(cast(MqttConnection, connection))
    for seconds, silence in ((0.1, 2.0), (1.5, 0.0)):
        said(outbox, 0)
        loop.now += 0.1
        turn(loop)
        (mid,) = connection.unacknowledged
        for _ in range(round(seconds / 0.1)):
            loop.now += 0.1
            turn(loop)
        assert not stalled
        del connection.unacknowledged[mid]
        outbox.on_written(mid)
        loop.now += silence
    outbox.close()
    outbox.give_up()
