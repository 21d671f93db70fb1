"""A destination on MQTT."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, override

from ..layouts.topics import encode_topic, is_valid_topic
from .destination import LONGEST_DELAY, SHORT_SESSION, Destination, DestinationParts
from .errors import ConnectError, Problem
from .mqtt_connection import (
    ConnectionListener,
    MqttConnection,
    MqttConnector,
    MqttSettings,
    Will,
)
from .mqtt_outbox import MqttOutbox
from .parcels import Message

# Several short connections in a row, ended without a word, are what two clients with one ID
# look like where the broker does not say so (MQTT 3.1.1, and Mosquitto 2.0 in either version).
SHORT_SESSIONS: Final = 3
# How long a connection must live to show that nobody takes its client ID any more: the
# other client comes back after at most the longest delay.
UNDISPUTED: Final = 2 * LONGEST_DELAY + 30


class Watcher(Protocol):
    """Who watches topics over the connection of a destination.

    `filters` are topic filters of MQTT, each perhaps behind `$share/{group}/`.
    """

    filters: tuple[str, ...]
    qos: int
    is_shared: bool

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message of any watcher's filters, in as little time as can be."""

    def on_subscribed(self, problem: Problem | None) -> None:
        """Take note that messages come from now on, or why they do not."""

    def on_away(self) -> None:
        """Take note that there is no connection."""


class MqttDestination(Destination[MqttConnection], ConnectionListener):
    """One broker, and what goes there."""

    outbox: MqttOutbox

    def __init__(
        self,
        parts: DestinationParts,
        settings: Callable[[], MqttSettings],
        will: Will,
        qos: int,
    ) -> None:
        """Initialize the destination.

        `settings` is asked before each connection (it raises ConnectError when there is none
        to be had); `qos` is that of advertisements.
        """
        super().__init__(parts)
        self._qos = max(qos, self._qos)
        self._settings = settings
        self._will = will
        self._connector: MqttConnector | None = None
        self._short_sessions = 0
        self._disputed = False
        self._undisputed: asyncio.TimerHandle | None = None
        self._watchers: list[Watcher] = []
        self._subscribing: dict[int, Watcher] = {}

    @override
    def _make_outbox(self, loop: asyncio.AbstractEventLoop) -> MqttOutbox:
        return MqttOutbox(loop, self.delivery, self.report, self._on_stalled)

    @override
    def message(
        self, address: str, payload: bytes, qos: int = 0, *, retain: bool = False
    ) -> Message:
        if not is_valid_topic(address):
            raise ValueError("Not a topic")
        return Message(encode_topic(address), payload, qos, retain)

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a retained message, if the broker is there; an empty one clears."""
        if self.connection is not None:
            try:
                self.connection.publish(topic, payload, retain=True)
            except ValueError:
                self.report(Problem.REJECTED)

    # --- the connection -----------------------------------------------------------------

    @override
    async def _async_connect(self) -> MqttConnection:
        try:
            settings = self._settings()
            self._backoff.set_delays(settings.first_delay, settings.longest_delay)
            if self._connector is None or self._connector.settings != settings:
                self._connector = MqttConnector(settings, self._will)
            return await self._connector.async_connect()
        except ConnectError:
            # Where two clients push each other out, the broker itself is there.
            self._short_sessions = 0
            raise

    @override
    def _set_up(self, connection: MqttConnection) -> None:
        connection.listener = self
        super()._set_up(connection)
        self._subscribing.clear()
        for watcher in self._watchers:
            self._subscribe(connection, watcher)

    @override
    def _set_down(self, problem: Problem) -> None:
        was_up = self.connection is not None
        super()._set_down(problem)
        if was_up:
            for watcher in self._watchers:
                watcher.on_away()

    @override
    def _recover(self) -> None:
        if self._disputed:
            loop = asyncio.get_running_loop()
            self._undisputed = loop.call_later(UNDISPUTED, self._end_dispute)
        else:
            super()._recover()

    def _end_dispute(self) -> None:
        """Take note that nobody else takes the client ID any more."""
        self._disputed = False
        self._recover()

    @override
    def _judge(self, lived: float, problem: Problem) -> Problem:
        if self._undisputed is not None:
            self._undisputed.cancel()
            self._undisputed = None
        if problem is Problem.CONNECTION_LOST and lived < SHORT_SESSION:
            self._short_sessions += 1
            if self._short_sessions >= SHORT_SESSIONS:
                problem = Problem.CLIENT_ID_TAKEN
        else:
            self._short_sessions = 0
        self._disputed |= problem is Problem.CLIENT_ID_TAKEN
        return problem

    @override
    def _pause(self) -> float:
        # Two clients with one ID would throw each other out at every try.
        return self._backoff.longest if self._disputed else super()._pause()

    @override
    def on_written(self, mid: int) -> None:
        self.outbox.on_written(mid)

    @override
    def on_refused(self, mid: int, problem: Problem) -> None:
        self.outbox.on_refused(mid, problem)

    # --- what comes in ------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> None:
        """Watch topics, over this connection and each later one."""
        self._watchers.append(watcher)
        if self.connection is not None:
            self._subscribe(self.connection, watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Watch no more; a broker that keeps our session must be told so."""
        if watcher not in self._watchers:
            return
        self._watchers.remove(watcher)
        if self.connection is not None:
            self.connection.unsubscribe(watcher.filters)

    def _subscribe(self, connection: MqttConnection, watcher: Watcher) -> None:
        """Subscribe for a watcher, where the broker can do what it asks for."""
        if watcher.is_shared and not connection.can_share:
            watcher.on_subscribed(Problem.SHARING_UNSUPPORTED)
            return
        mid = connection.subscribe(watcher.filters, watcher.qos)
        self._subscribing[mid] = watcher

    @override
    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        for watcher in self._watchers:
            watcher.on_message(topic, payload, retained=retained)

    @override
    def on_subscribed(self, mid: int, problem: Problem | None) -> None:
        if (watcher := self._subscribing.pop(mid, None)) is not None:
            watcher.on_subscribed(problem)
