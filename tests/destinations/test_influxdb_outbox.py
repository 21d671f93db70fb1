"""The outbox of InfluxDB: whatever a server answers, and when, all is accounted for."""

import asyncio
from collections.abc import Sequence
import json
from typing import Any, Final, cast, override

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import ConnectError, Problem
from custom_components.ble_bridge.destinations.influxdb import NOWHERE
from custom_components.ble_bridge.destinations.influxdb_answers import Answer, examine
from custom_components.ble_bridge.destinations.influxdb_connection import (
    InfluxApi,
    InfluxConnection,
    InfluxSettings,
)
from custom_components.ble_bridge.destinations.influxdb_outbox import InfluxOutbox
from custom_components.ble_bridge.destinations.parcels import Message, Outcome, Parcel
from custom_components.ble_bridge.destinations.policy import (
    Bounds,
    DeliverySettings,
    Policy,
)
from custom_components.ble_bridge.records import RecordKind, Route, Tally
from scripts.simulation.influx_answers import V2_PATH, Flavour, InfluxStore, Refusal

from .influx import KINDS, point

GOOD, UNREADABLE, CLASHING = "", "number=9999999999999999999i", "clash=1.5"
LINES: Final = st.lists(
    st.sampled_from([GOOD, GOOD, GOOD, UNREADABLE, CLASHING]), min_size=1, max_size=12
)
QUERY: Final = {"org": "house", "bucket": "ble", "precision": "ns"}
# What may go wrong with a request: it ends without an answer, or with another status.
FAULTS: Final = st.sampled_from([None, 429, 500, 503])


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on when we say so."""

    now = 1000.0

    @override
    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        """Do what is to be done now."""
        for _ in range(6):
            self.call_soon(self.stop)
            self.run_forever()

    def advance(self, seconds: float) -> None:
        """Let time go on."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.turn()


class Connection:
    """A server that is asked directly."""

    bytes_sent = 0

    def __init__(self, store: InfluxStore, faults: list[int | None]) -> None:
        """Initialize with what is written to, and what goes wrong next."""
        self._store = store
        self._faults = faults
        self._is_busy = False

    async def async_write(self, lines: Sequence[bytes]) -> Answer:
        """Answer as InfluxDB does."""
        assert not self._is_busy
        self._is_busy = True
        try:
            await asyncio.sleep(0.02)
            return self._answer(b"\n".join(lines))
        finally:
            self._is_busy = False

    def _answer(self, body: bytes) -> Answer:
        if self._faults:
            status = self._faults.pop()
            if status is None:
                raise ConnectError(Problem.CONNECTION_LOST)
            return Answer(status, "", True, 0.5 if status == 503 else None)
        try:
            self._store.write(V2_PATH, QUERY, "Token token", body)
        except Refusal as refused:
            said = refused.body
            text = said if isinstance(said, str) else json.dumps(said)
            return Answer(refused.status, text, True)
        return Answer(204, "", True)


class Outboxes(RuleBasedStateMachine):
    """Lines that are said in any order, to a server that does what it wants."""

    @initialize(flavour=st.sampled_from(Flavour), limit=st.integers(150, 2_000))
    def begin(self, flavour: Flavour, limit: int) -> None:
        """Begin with a server that knows a field of another type."""
        self.loop = Loop()
        self.store = InfluxStore(flavour, "token", None, "house", "ble", limit)
        self.store.write(V2_PATH, QUERY, "Token token", b'ble clash="text"')
        self.faults: list[int | None] = []
        self.tallies = {kind: Tally() for kind in RecordKind}
        self.tally = Tally()
        self.numbers: dict[int, str] = {}
        self.said: list[tuple[Parcel, list[int]]] = []
        self.connection: Connection | None = None
        delivery = Delivery(
            DeliverySettings(
                buffer=Bounds(1_000, 1 << 20), drain_rate=1e6, max_tries=2
            ),
            self.tallies,
            self.loop.time,
            lambda at: at,
            lambda: self.outbox.wake(),  # noqa: PLW0108 - it is not there yet
            lambda _: None,
        )
        self.outbox = InfluxOutbox(
            self.loop,
            delivery,
            lambda _: None,
            lambda: self.lose(Problem.TIMED_OUT),
            self.lose,
            lambda _: None,
            InfluxSettings(
                url="http://localhost",
                api=InfluxApi.V2,
                place={},
                batch_lines=8,
                batch_time=0.2,
            ),
        )
        self.connect()

    def _new(self, kinds: list[str]) -> list[int]:
        """Return a number for each line that is to be said."""
        begin = len(self.numbers)
        self.numbers |= {begin + n: kind for n, kind in enumerate(kinds)}
        return [*range(begin, len(self.numbers))]

    def _line(self, number: int) -> bytes:
        kind = self.numbers[number]
        return point(number, kind and f"{kind},id={number}i")

    @rule(kinds=LINES)
    def advertise(self, kinds: list[str]) -> None:
        """Have advertisements heard."""
        for number in self._new(kinds):
            self.tally.received += 1
            self.outbox.put(Route(NOWHERE, self.tally), self._line(number))
        self.loop.turn()

    @rule(
        kinds=LINES,
        policy=st.sampled_from([Policy.DROP, Policy.BUFFER]),
        device=st.sampled_from("abc"),
    )
    def say(self, kinds: list[str], policy: Policy, device: str) -> None:
        """Have a device say something."""
        kind = KINDS[policy]
        numbers = self._new(kinds[:3])
        messages = tuple(Message(NOWHERE, self._line(number)) for number in numbers)
        tally = self.tallies[kind]
        tally.received += 1
        parcel = Parcel(kind, tally, device, messages, policy, self.loop.time())
        self.said.append((parcel, numbers))
        self.outbox.accept(parcel)
        self.loop.turn()

    @rule(faults=st.lists(FAULTS, min_size=1, max_size=4))
    def fail(self, faults: list[int | None]) -> None:
        """Have the next requests fail."""
        self.faults += faults

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        """Let time go on."""
        self.loop.advance(seconds)

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        """Find the server there."""
        self.connection = Connection(self.store, self.faults)
        self.outbox.open(cast(InfluxConnection, self.connection))
        self.loop.turn()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def hang_up(self) -> None:
        """Lose the connection."""
        self.lose(Problem.CONNECTION_LOST)
        self.loop.turn()

    def lose(self, problem: Problem) -> None:
        """Do what a destination does then."""
        self.outbox.close(is_blamed=problem is Problem.CONNECTION_LOST)
        self.connection = None

    @invariant()
    def adds_up(self) -> None:
        """Check that what was received is somewhere."""
        if not hasattr(self, "outbox"):
            return
        waiting = sum(tally.waiting for tally in self.tallies.values())
        assert waiting == self.outbox.delivery.waiting
        assert self.tally.waiting == self.outbox.passing

    @override
    def teardown(self) -> None:
        """Let all be well in the end: each line is where it belongs."""
        if not hasattr(self, "outbox"):
            return
        self.faults.clear()
        for _ in range(200):
            if self.connection is None:
                self.connect()
            self.loop.advance(1.0)
            if not self.outbox.waiting:
                break
        self.adds_up()
        assert not self.outbox.waiting
        stored = {
            int(cast(Any, found.fields.get("id", found.fields.get("number", -1))))
            for found in self.store.points
        }
        assert not {n for n in stored if n >= 0 and self.numbers[n] != GOOD}
        for parcel, numbers in self.said:
            good = all(self.numbers[number] == GOOD for number in numbers)
            if parcel.outcome is Outcome.ACKNOWLEDGED:
                assert good
                assert {*numbers} <= stored
            elif parcel.policy is Policy.BUFFER and good:
                # Its size stands against it, or that connections ended with it.
                assert parcel.outcome is Outcome.REFUSED
                assert parcel.refusal is Problem.TOO_LARGE or parcel.losses > 1
        good_ones = sum(kind == GOOD for kind in self.numbers.values())
        assert self.tally.acknowledged <= good_ones
        tasks = asyncio.all_tasks(self.loop)
        self.outbox.close()
        self.outbox.give_up()
        self.loop.turn()
        assert all(task.done() for task in tasks)
        self.loop.close()


TestOutboxes = Outboxes.TestCase
TestOutboxes.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_other_words() -> None:
    """What is said in words that nobody knows leads to halves, and then to one line."""
    lines = [point(n) for n in range(5)]
    for text in ("", "{}", "[]", '{"data": [1, {"line_number": "x"}]}', '{"error": 1}'):
        assert examine(text, lines).apart == [0, 1]
        assert examine(text, lines[:1]).bad == {0: None}
    detailed = {
        "error": "partial write of line protocol occurred",
        "data": [
            {"line_number": 2, "error_message": "No fields were provided"},
            {"line_number": 99, "error_message": "?"},
        ],
    }
    assert examine(json.dumps(detailed), lines).bad == {1: None}
    detailed["data"] = {  # type: ignore[assignment]
        "line_number": 4,
        "error_message": "invalid column type for column 'number', expected"
        " iox::column_type::field::float, got iox::column_type::field::integer",
    }
    (found,) = examine(json.dumps(detailed), lines).bad.items()
    assert found[0] == 3
    assert found[1]
    assert (found[1].field, found[1].theirs) == ("number", "float")
    many = "partial write: points beyond retention policy dropped="
    assert len(examine(f'{{"error": "{many}5"}}', lines).bad) == 5
    assert examine(f'{{"error": "{many}3"}}', lines).apart == [0, 1]
    nonsense = [b"x", b"y"]
    clash = 'input field "a" on measurement "b" is type float, already exists as type x'
    assert examine(clash, nonsense).apart == [0]
