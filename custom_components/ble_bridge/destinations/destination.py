"""A destination: a connection that is kept up, what goes there, and what became of it.

What differs between MQTT, NATS and InfluxDB is in the subclasses: how to connect, and the
outbox that writes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
import contextlib
from dataclasses import dataclass
import logging
import random
import time
from typing import Final, Protocol

from ..records import Advertisement, RecordKind, Route, Scanner, Sighting, Tally
from .delivery import Delivery
from .errors import ConnectError, Problem
from .journal import Journal
from .outbox import Connection, Outbox
from .parcels import Message, Outcome, Parcel
from .policy import DeliverySettings, Policy
from .store import RecordStore

_LOGGER = logging.getLogger(__name__)

FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 60.0
# A connection that lives shorter than this does not prove that all is well again.
SHORT_SESSION: Final = 10.0
RECENT_ERRORS: Final = 20
# How a connection ends that the destination ended perhaps for what it was sent.
_BLAMED: Final = frozenset(
    {
        Problem.CONNECTION_LOST,
        Problem.NOT_AUTHORIZED,
        Problem.REFUSED,
        Problem.TOO_LARGE,
    }
)


class Backoff:
    """Delays before the next try: 1 s, 2 s, 4 s … 60 s, each shortened by up to a half.

    The jitter spreads the clients of a broker that comes back.
    """

    def __init__(self) -> None:
        """Begin with the first delay."""
        self._tries = 0
        self._first: float | None = None
        self._longest: float | None = None

    @property
    def longest(self) -> float:
        """Return the longest delay, in seconds."""
        return LONGEST_DELAY if self._longest is None else self._longest

    def set_delays(self, first: float | None, longest: float | None) -> None:
        """Set the first and the longest delay (s); None is the default."""
        self._first, self._longest = first, longest

    def next(self) -> float:
        """Return the delay before the next try, in seconds."""
        first = FIRST_DELAY if self._first is None else self._first
        delay: float = min(first * 2.0**self._tries, self.longest)
        self._tries = min(self._tries + 1, 20)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the first delay."""
        self._tries = 0


class DestinationListener(Protocol):
    """What is told of a destination's health."""

    def on_change(self) -> None:
        """Take note that the connection was made, or lost."""

    def on_problem(self, problem: Problem | None) -> None:
        """Take note of what the user can mend, or that it is mended."""

    def on_refusals(self, problems: frozenset[Problem]) -> None:
        """Take note of why messages are refused at present."""

    def on_store(self, problem: Problem | None) -> None:
        """Take note that the disk fails, was damaged, or works again."""


class RawLayout(Protocol):
    """Writes advertisements."""

    def payload(
        self, route: Route, sighting: Sighting, advertisement: Advertisement
    ) -> bytes:
        """Return an advertisement's message, empty where there is nothing to say.

        Raises ValueError for data that are not what the stack promises.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationParts:
    """What a destination of any kind is made of.

    `raw` writes advertisements, and is None where they do not go out here; `head` tells
    where those of a sighting go. `store` is where records are durable.
    """

    title: str
    raw: RawLayout | None
    head: Callable[[Sighting], bytes]
    delivery: DeliverySettings
    store: RecordStore | None
    listener: DestinationListener


class Destination[ConnectionT: Connection]:
    """One destination, and what goes there."""

    def __init__(self, parts: DestinationParts) -> None:
        """Initialize the destination."""
        loop = asyncio.get_running_loop()
        self.title = parts.title
        self.raw = parts.raw
        self.connection: ConnectionT | None = None
        self.last_error: Problem | None = None
        self.recent_errors: deque[tuple[float, Problem]] = deque(maxlen=RECENT_ERRORS)
        self.reconnects = 0
        self.rate: float | None = None
        self.latency: float | None = None
        self.tallies: dict[Scanner, Tally] = {}
        # Of advertisements, those that are of no scanner any more since they were on disk.
        self.records = {kind: Tally() for kind in RecordKind}
        # Of what the bridge says of itself, which is a record of no kind.
        self.own = Tally()
        self.store = parts.store
        # Fixed, so that a clock that jumps makes no record older than it is.
        started = time.time() - loop.time()

        def unix_time(at: float) -> float:
            return at + started

        self.delivery = Delivery(
            parts.delivery,
            self.records,
            loop.time,
            unix_time,
            self._on_delivery,
            self._on_disk,
        )
        if parts.store is not None:
            self.delivery.journal = Journal(loop, parts.store, self.delivery, unix_time)
        self.outbox: Outbox[ConnectionT] = self._make_outbox(loop)
        self._head = parts.head
        self._policy = parts.delivery.policies[RecordKind.ADVERTISEMENT]
        self._drops = self._policy is Policy.DROP
        self._qos = int(self._policy is Policy.DURABLE)
        self._refusals: object = (frozenset(), {})
        self._listener = parts.listener
        self._lost: asyncio.Future[Problem] | None = None
        self._down_since: float | None = None
        self._was_up = False
        self._backoff = Backoff()
        self._disk_failed = False
        self._reported: set[Problem] = set()
        self._measured = (loop.time(), 0, 0.0, 0)

    # --- what the subclasses know -------------------------------------------------------

    def _make_outbox(self, loop: asyncio.AbstractEventLoop) -> Outbox[ConnectionT]:
        """Return what sends."""
        raise NotImplementedError

    async def _async_connect(self) -> ConnectionT:
        """Make a connection; raises ConnectError."""
        raise NotImplementedError

    def _event(self, _name: str) -> str:
        """Return what a line of the log about an event begins with."""
        return ""

    def message(
        self, address: str, payload: bytes, qos: int = 0, *, retain: bool = False
    ) -> Message:
        """Return a message of the user's; raises ValueError where it cannot be sent."""
        raise NotImplementedError

    @property
    def details(self) -> Mapping[Problem, Mapping[str, str]]:
        """Return what the user is told of problems with what is refused at present."""
        return {}

    def _judge(self, _lived: float, problem: Problem) -> Problem:
        """Return what was wrong with a connection that lived for a while (s)."""
        return problem

    def _pause(self) -> float:
        """Return how long to wait before the next try (s)."""
        return self._backoff.next()

    # --- what goes out ------------------------------------------------------------------

    def on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        """Send an advertisement; costs little while the broker is away."""
        if self.raw is None:
            return
        route = sighting.routes.get(self)
        if route is None:
            route = sighting.routes[self] = self._route(sighting)
        route.tally.received += 1
        if self._drops and self.connection is None:
            route.tally.away += 1
            return
        try:
            payload = self.raw.payload(route, sighting, advertisement)
        except ValueError:
            # Not what the stack promises; a packet is not worth more than its count.
            route.tally.failed += 1
            self.report(Problem.INVALID_DATA)
            return
        if not payload:
            route.tally.received -= 1
        elif self._drops:
            self.outbox.put(route, payload)
        else:
            self._keep(sighting, route, payload)

    def _keep(self, sighting: Sighting, route: Route, payload: bytes) -> None:
        """Send an advertisement that is to wait while the broker is away."""
        kind = RecordKind.ADVERTISEMENT
        message = Message(route.head, payload, self._qos, is_object=True)
        self._accept(kind, route.tally, sighting.address, (message,), self._policy)

    def send(
        self, kind: RecordKind, device: str, messages: tuple[Message, ...]
    ) -> Parcel:
        """Send the messages of a record: all of them, or it counts as not delivered.

        What is durable has to be acknowledged, so it goes out at QoS 1 at least.
        """
        policy = self.delivery.settings.policies[kind]
        if policy is Policy.DURABLE:
            messages = tuple(m if m.qos else m._replace(qos=1) for m in messages)
        tally = self.records[kind]
        tally.received += 1
        return self._accept(kind, tally, device, messages, policy)

    def send_own(self, message: Message) -> None:
        """Send what the bridge says of itself, which waits for no broker that is away."""
        self.own.received += 1
        self._accept(RecordKind.MESSAGE, self.own, "", (message,), Policy.DROP)

    def _accept(
        self,
        kind: RecordKind,
        tally: Tally,
        device: str,
        messages: tuple[Message, ...],
        policy: Policy,
    ) -> Parcel:
        """Hand over a record whose tally has counted it as received."""
        accepted = asyncio.get_running_loop().time()
        parcel = Parcel(kind, tally, device, messages, policy, accepted)
        self.outbox.accept(parcel)
        return parcel

    async def async_publish(self, message: Message) -> Outcome | None:
        """Publish a message of the user's; None where nothing became of it in time."""
        parcel = self.send(RecordKind.MESSAGE, "", (message,))
        if parcel.outcome is not None:
            return parcel.outcome
        parcel.done = asyncio.get_running_loop().create_future()
        await asyncio.wait(
            [parcel.done], timeout=self.delivery.settings.publish_timeout
        )
        return parcel.done.result() if parcel.done.done() else None

    async def async_retry(self) -> Problem | None:
        """Send again what was refused; return why, where it still is."""
        self.delivery.retry_set_aside()
        await self.outbox.async_flush(4 * self.delivery.settings.publish_timeout)
        return next(iter(self.delivery.problems), None)

    def report(self, problem: Problem) -> None:
        """Log a failed publish once per kind; the counters tell how often."""
        self.last_error = problem
        if problem not in self._reported:
            self._reported.add(problem)
            self.recent_errors.append((time.monotonic(), problem))
            _LOGGER.error(
                "%sA message to %s could not be published (%s); further ones are counted",
                self._event("error"),
                self.title,
                problem,
            )

    def _route(self, sighting: Sighting) -> Route:
        """Return where a sighting's advertisements go."""
        tally = self.tallies.setdefault(sighting.scanner, Tally())
        return Route(self._head(sighting), tally, self._qos)

    # --- figures ------------------------------------------------------------------------

    @property
    def delivered(self) -> int:
        """Return how many advertisements went out, acknowledged or not."""
        return sum(tally.delivered for tally in self._advertisements)

    @property
    def dropped(self) -> int:
        """Return how many advertisements were dropped, for whatever reason."""
        return sum(tally.dropped for tally in self._advertisements)

    @property
    def failed(self) -> int:
        """Return how many advertisements were rejected, by us or by the broker."""
        return sum(tally.failed + tally.refused for tally in self._advertisements)

    @property
    def _advertisements(self) -> list[Tally]:
        """Return what became of advertisements, in parts."""
        return [*self.tallies.values(), self.records[RecordKind.ADVERTISEMENT]]

    def tally(self, kind: RecordKind) -> Tally:
        """Return what became of all records of a kind."""
        if kind is not RecordKind.ADVERTISEMENT:
            return self.records[kind]
        parts = self._advertisements
        return Tally(
            *(sum(getattr(tally, name) for tally in parts) for name in Tally.__slots__)
        )

    def count_filtered(self, scanners: list[Scanner]) -> int:
        """Return how many advertisements of scanners were filtered before they came here."""
        return sum(scanner.filtered for scanner in scanners) if self.raw else 0

    def measure(self) -> None:
        """Work out rate (messages a second) and latency (ms) since the last call."""
        now, sent = asyncio.get_running_loop().time(), self.delivered
        meters = self.delivery.meters.values()
        waited = sum(meter.latency_sum for meter in meters)
        times = sum(sum(meter.latencies) for meter in meters)
        then, sent_then, waited_then, times_then = self._measured
        self.rate = (sent - sent_then) / (now - then) if now > then else None
        count = times - times_then
        self.latency = (waited - waited_then) / count * 1000 if count else None
        self._measured = now, sent, waited, times

    @property
    def last_delivery(self) -> float | None:
        """Return when anything was delivered last (Unix time, s)."""
        times = [m.last for m in self.delivery.meters.values() if m.last is not None]
        if not times:
            return None
        return time.time() - (asyncio.get_running_loop().time() - max(times))

    @property
    def is_store_failed(self) -> bool:
        """Tell whether what has to be on disk is not."""
        return self.delivery.journal is not None and self.delivery.journal.failed

    # --- the connection -----------------------------------------------------------------

    @property
    def protocol(self) -> str | None:
        """Return what is spoken, and in which version, while connected."""
        return self.connection.protocol if self.connection else None

    async def async_open(self) -> None:
        """Take over what waits on disk."""
        if self.delivery.journal is not None:
            await self.delivery.journal.async_open()

    async def async_run(self) -> None:
        """Keep the connection up until cancelled."""
        while True:
            try:
                problem = await self._async_connect_and_send()
                self._set_down(problem)
                self._listener.on_problem(problem)
                self._listener.on_change()
            except Exception:
                _LOGGER.exception("Unexpected error with %s", self.title)
                if self.connection is not None:
                    self.connection.abort()
                self._set_down(Problem.UNEXPECTED)
            await asyncio.sleep(self._pause())

    async def async_stop(self, goodbye: Callable[[], None]) -> None:
        """Send what waits, then let `goodbye` publish its last words, and disconnect.

        The caller has cancelled `async_run`, and no advertisement comes any more.
        """
        if (connection := self.connection) is not None:
            patience = connection.disconnect_timeout
            deadline = asyncio.get_running_loop().time() + patience
            await self.outbox.async_drain(patience / 2)
            try:
                goodbye()
            finally:
                self.connection = None
                await connection.async_close(
                    deadline - asyncio.get_running_loop().time()
                )
        self.outbox.close()
        self.outbox.give_up()
        if self.delivery.journal is not None:
            await self.delivery.journal.async_close()

    async def _async_connect_and_send(self) -> Problem:
        """Connect and send until the connection is lost; return what was wrong."""
        try:
            connection = await self._async_connect()
        except ConnectError as err:
            return err.problem
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._lost = loop.create_future()
        self._set_up(connection)
        try:
            problem = await self._lost
        finally:
            self._lost = None
        lived = loop.time() - began
        if lived >= SHORT_SESSION:
            self._backoff.reset()
        return self._judge(lived, problem)

    def _set_up(self, connection: ConnectionT) -> None:
        """Begin to send over a connection."""
        self.connection = connection
        self.reconnects += self._was_up
        self._was_up = True
        _LOGGER.debug(
            "%sConnected to %s, %s",
            self._event("connected"),
            self.title,
            connection.protocol,
        )
        self._recover()
        self.outbox.open(connection)
        self._listener.on_change()

    def _recover(self) -> None:
        """Take note that all is well again."""
        if self._down_since is not None:
            away = asyncio.get_running_loop().time() - self._down_since
            self._down_since = None
            _LOGGER.info(
                "%sConnected to %s after %.0f seconds",
                self._event("reconnected"),
                self.title,
                away,
            )
        self._listener.on_problem(None)

    def _set_down(self, problem: Problem) -> None:
        """Take note that there is no connection."""
        self.connection = None
        self.outbox.close()
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            _LOGGER.error(
                "%sNo connection to %s (%s); advertisements are dropped and it is tried"
                " again until it is back",
                self._event("disconnected"),
                self.title,
                problem,
            )
        self.last_error = problem
        self.recent_errors.append((time.monotonic(), problem))

    def on_lost(self, problem: Problem) -> None:
        """Take note that the connection ended without our doing."""
        # Nothing is written any more, though the task learns of it in its next turn.
        self.outbox.close(is_blamed=problem in _BLAMED)
        with contextlib.suppress(asyncio.InvalidStateError):
            if self._lost is not None:
                self._lost.set_result(problem)

    def _on_stalled(self) -> None:
        """Give up a connection over which nothing is acknowledged any more."""
        if (connection := self.connection) is not None:
            connection.abort()
            self.on_lost(Problem.TIMED_OUT)

    # --- delivery -----------------------------------------------------------------------

    def _on_delivery(self) -> None:
        """Go on with what there is to send, and tell of what is refused."""
        self.outbox.wake()
        problems = self.delivery.problems
        if (refusals := (problems, self.details)) != self._refusals:
            self._refusals = refusals
            self._listener.on_refusals(problems)

    def _on_disk(self, problem: Problem | None) -> None:
        """Tell of a disk that fails, or works again; log it once."""
        if problem is not None:
            self.last_error = problem
            if problem is Problem.STORE_CORRUPT or not self._disk_failed:
                self.recent_errors.append((time.monotonic(), problem))
                _LOGGER.error("Records for %s on disk: %s", self.title, problem)
        self._disk_failed = problem is Problem.STORE_FAILED
        self._listener.on_store(problem)
