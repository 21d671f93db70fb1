"""A destination on MQTT: a connection that is kept up, its layouts, its delivery."""

import asyncio
from collections import deque
from collections.abc import Callable
import contextlib
import logging
import random
import time
from typing import Final, override

from ..layouts.raw import RawLayout, advertisement_topic
from ..layouts.topics import encode_topic
from ..records import Advertisement, RecordKind, Route, Scanner, Sighting, Tally
from .delivery import Delivery
from .errors import ConnectError, Problem
from .journal import Journal
from .mqtt_connection import (
    ConnectionListener,
    MqttConnection,
    MqttConnector,
    MqttProtocol,
    MqttSettings,
    Will,
)
from .outbox import Outbox
from .parcels import Message, Outcome, Parcel
from .policy import DeliverySettings, Policy
from .store import RecordStore

_LOGGER = logging.getLogger(__name__)

FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 60.0
# A connection that lives shorter than this does not prove that all is well again; several
# such in a row, ended without a word, are what two clients with one ID look like where
# the broker does not say so (MQTT 3.1.1, and Mosquitto 2.0 in either version).
SHORT_SESSION: Final = 10.0
SHORT_SESSIONS: Final = 3
# How long a connection must live to show that nobody takes its client ID any more: the
# other client comes back after at most the longest delay.
UNDISPUTED: Final = 2 * LONGEST_DELAY + 30
RECENT_ERRORS: Final = 20
# How a connection ends that the broker ended perhaps for what it was sent.
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


class MqttDestination(ConnectionListener):
    """One broker, and what goes there."""

    def __init__(
        self,
        *,
        title: str,
        settings: Callable[[], MqttSettings],
        raw: RawLayout | None,
        topic_base: str,
        qos: int,
        will: Will,
        delivery: DeliverySettings,
        store: RecordStore | None,
        on_change: Callable[[], None],
        on_problem: Callable[[Problem | None], None],
        on_refusals: Callable[[frozenset[Problem]], None],
        on_store: Callable[[Problem | None], None],
    ) -> None:
        """Initialize the destination.

        `raw` writes advertisements, and is None where they do not go out here. `settings` is
        asked before each connection (it raises ConnectError when there is none to be had).
        `store` is where records are durable. `on_change` is called when the connection is
        made or lost, `on_problem` with what the user can mend, and with None when it is
        mended, `on_refusals` with why messages are refused at present, and `on_store` when
        the disk fails, was damaged, or works again.
        """
        loop = asyncio.get_running_loop()
        self.title = title
        self.raw = raw
        self.topic_base = topic_base
        self.connection: MqttConnection | None = None
        self.last_error: Problem | None = None
        self.recent_errors: deque[tuple[float, Problem]] = deque(maxlen=RECENT_ERRORS)
        self.reconnects = 0
        self.rate: float | None = None
        self.latency: float | None = None
        self.tallies: dict[Scanner, Tally] = {}
        # Of advertisements, those that are of no scanner any more since they were on disk.
        self.records = {kind: Tally() for kind in RecordKind}
        self.store = store
        # Fixed, so that a clock that jumps makes no record older than it is.
        started = time.time() - loop.time()

        def unix_time(at: float) -> float:
            return at + started

        self.delivery = Delivery(
            delivery,
            self.records,
            loop.time,
            unix_time,
            self._on_delivery,
            self._on_disk,
        )
        if store is not None:
            self.delivery.journal = Journal(loop, store, self.delivery, unix_time)
        self.outbox = Outbox(loop, self.delivery, self.report, self._on_stalled)
        self._policy = delivery.policies[RecordKind.ADVERTISEMENT]
        self._drops = self._policy is Policy.DROP
        self._qos = max(qos, 1) if self._policy is Policy.DURABLE else qos
        self._refusals: frozenset[Problem] = frozenset()
        self._on_refusals = on_refusals
        self._on_store = on_store
        self._settings = settings
        self._will = will
        self._on_change = on_change
        self._on_problem = on_problem
        self._connector: MqttConnector | None = None
        self._lost: asyncio.Future[Problem] | None = None
        self._down_since: float | None = None
        self._was_up = False
        self._backoff = Backoff()
        self._short_sessions = 0
        self._disputed = False
        self._disk_failed = False
        self._reported: set[Problem] = set()
        self._measured = (loop.time(), 0, 0.0, 0)

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
            payload = self.raw.payload(sighting, advertisement)
        except ValueError:
            # Not what the stack promises; a packet is not worth more than its count.
            route.tally.failed += 1
            self.report(Problem.INVALID_DATA)
            return
        if self._drops:
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

    def send_passing(self, tally: Tally, message: Message) -> None:
        """Send a message of our own, which waits for no broker that is away."""
        tally.received += 1
        self._accept(RecordKind.MESSAGE, tally, "", (message,), Policy.DROP)

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

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a retained message, if the broker is there; an empty one clears."""
        if self.connection is not None:
            try:
                self.connection.publish(topic, payload, retain=True)
            except ValueError:
                self.report(Problem.REJECTED)

    def report(self, problem: Problem) -> None:
        """Log a failed publish once per kind; the counters tell how often."""
        self.last_error = problem
        if problem not in self._reported:
            self._reported.add(problem)
            self.recent_errors.append((time.monotonic(), problem))
            _LOGGER.error(
                "A message to %s could not be published (%s); further ones are counted",
                self.title,
                problem,
            )

    def _route(self, sighting: Sighting) -> Route:
        """Return where a sighting's advertisements go."""
        tally = self.tallies.setdefault(sighting.scanner, Tally())
        return Route(
            encode_topic(advertisement_topic(self.topic_base, sighting)),
            tally,
            self._qos,
        )

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
        outbox = self.outbox
        then, sent_then, latency_then, count_then = self._measured
        self.rate = (sent - sent_then) / (now - then) if now > then else None
        count = outbox.latency_count - count_then
        self.latency = (
            (outbox.latency_sum - latency_then) / count * 1000 if count else None
        )
        self._measured = now, sent, outbox.latency_sum, outbox.latency_count

    # --- the connection -----------------------------------------------------------------

    @property
    def protocol(self) -> MqttProtocol | None:
        """Return the version of MQTT that is spoken."""
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
                self._on_problem(problem)
                self._on_change()
            except Exception:
                _LOGGER.exception("Unexpected error with %s", self.title)
                if self.connection is not None:
                    self.connection.abort()
                self._set_down(Problem.UNEXPECTED)
            # Two clients with one ID would throw each other out at every try.
            await asyncio.sleep(
                self._backoff.longest if self._disputed else self._backoff.next()
            )

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
            # Where two clients push each other out, the broker itself is there.
            self._short_sessions = 0
            return err.problem
        lived, problem = await self._async_session(connection)
        if lived >= SHORT_SESSION:
            self._backoff.reset()
        if problem is Problem.CONNECTION_LOST and lived < SHORT_SESSION:
            self._short_sessions += 1
            if self._short_sessions >= SHORT_SESSIONS:
                problem = Problem.CLIENT_ID_TAKEN
        else:
            self._short_sessions = 0
        self._disputed |= problem is Problem.CLIENT_ID_TAKEN
        return problem

    async def _async_connect(self) -> MqttConnection:
        """Make a connection; raises ConnectError."""
        settings = self._settings()
        self._backoff.set_delays(settings.first_delay, settings.longest_delay)
        if self._connector is None or self._connector.settings != settings:
            self._connector = MqttConnector(settings, self._will)
        return await self._connector.async_connect()

    async def _async_session(self, connection: MqttConnection) -> tuple[float, Problem]:
        """Send until the connection is lost; return how long it lived (s), and why."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._lost = loop.create_future()
        self._set_up(connection)
        undisputed = loop.call_later(UNDISPUTED, self._recover)
        try:
            problem = await self._lost
        finally:
            undisputed.cancel()
            self._lost = None
        return loop.time() - began, problem

    def _set_up(self, connection: MqttConnection) -> None:
        """Begin to send over a connection."""
        self.connection = connection
        connection.listener = self
        self.reconnects += self._was_up
        self._was_up = True
        _LOGGER.debug("Connected to %s with MQTT %s", self.title, connection.protocol)
        if not self._disputed:
            self._recover()
        self.outbox.open(connection)
        self._on_change()

    def _recover(self) -> None:
        """Take note that all is well again."""
        self._disputed = False
        if self._down_since is not None:
            away = asyncio.get_running_loop().time() - self._down_since
            self._down_since = None
            _LOGGER.info("Connected to %s after %.0f seconds", self.title, away)
        self._on_problem(None)

    def _set_down(self, problem: Problem) -> None:
        """Take note that there is no connection."""
        self.connection = None
        self.outbox.close()
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            _LOGGER.error(
                "No connection to %s (%s); advertisements are dropped and it is tried"
                " again until it is back",
                self.title,
                problem,
            )
        self.last_error = problem
        self.recent_errors.append((time.monotonic(), problem))

    @override
    def on_written(self, mid: int) -> None:
        self.outbox.on_written(mid)

    @override
    def on_refused(self, mid: int, problem: Problem) -> None:
        self.outbox.on_refused(mid, problem)

    @override
    def on_lost(self, problem: Problem) -> None:
        # Nothing is written any more, though the task learns of it in its next turn.
        self.outbox.close(is_blamed=problem in _BLAMED)
        with contextlib.suppress(asyncio.InvalidStateError):
            if self._lost is not None:
                self._lost.set_result(problem)

    def _on_stalled(self) -> None:
        """Give up a connection over which nothing is acknowledged any more.

        MQTT allows no message to be sent again over the same one (MQTT 5, 4.4).
        """
        if (connection := self.connection) is not None:
            connection.abort()
            self.on_lost(Problem.TIMED_OUT)

    # --- delivery -----------------------------------------------------------------------

    def _on_delivery(self) -> None:
        """Go on with what there is to send, and tell of what is refused."""
        self.outbox.wake()
        if (problems := self.delivery.problems) != self._refusals:
            self._refusals = problems
            self._on_refusals(problems)

    def _on_disk(self, problem: Problem | None) -> None:
        """Tell of a disk that fails, or works again; log it once."""
        if problem is not None:
            self.last_error = problem
            if problem is Problem.STORE_CORRUPT or not self._disk_failed:
                self.recent_errors.append((time.monotonic(), problem))
                _LOGGER.error("Records for %s on disk: %s", self.title, problem)
        self._disk_failed = problem is Problem.STORE_FAILED
        self._on_store(problem)
