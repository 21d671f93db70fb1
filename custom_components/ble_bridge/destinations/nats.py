"""A destination on NATS."""

import asyncio
from collections.abc import Callable, Collection
import logging
from typing import override

from ..layouts.subjects import safe_token
from ..records import RecordKind
from .destination import Destination, DestinationParts
from .errors import Problem
from .nats_connection import (
    MAX_SUBJECT,
    ConnectionListener,
    NatsConnection,
    NatsConnector,
    NatsSettings,
)
from .nats_outbox import NatsOutbox
from .parcels import Message

_LOGGER = logging.getLogger(__name__)


class NatsDestination(Destination[NatsConnection], ConnectionListener):
    """One NATS cluster, or a single server, and what goes there."""

    outbox: NatsOutbox

    def __init__(
        self,
        parts: DestinationParts,
        settings: Callable[[], NatsSettings],
        stored: Collection[RecordKind],
    ) -> None:
        """Initialize the destination.

        `settings` is asked before each connection; JetStream has the kinds of records in
        `stored`.
        """
        self._stored = stored
        super().__init__(parts)
        if RecordKind.ADVERTISEMENT in stored:
            self._qos = 1
        self._settings = settings
        self._connector: NatsConnector | None = None

    @override
    def _make_outbox(self, loop: asyncio.AbstractEventLoop) -> NatsOutbox:
        return NatsOutbox(
            loop, self.delivery, self.report, self._on_stalled, self._stored
        )

    @override
    def _event(self, name: str) -> str:
        return f"nats_{name}: "

    @override
    def message(
        self, address: str, payload: bytes, qos: int = 0, *, retain: bool = False
    ) -> Message:
        # Every message is acknowledged here, and none is retained.
        tokens = address.split(".")
        if len(address) > MAX_SUBJECT or any(
            not token or safe_token(token) != token for token in tokens
        ):
            raise ValueError("Not a subject")
        return Message(address.encode(), payload, qos)

    @override
    async def async_retry(self) -> Problem | None:
        self.outbox.forget_denials()
        return await super().async_retry()

    # --- the connection -----------------------------------------------------------------

    @override
    async def _async_connect(self) -> NatsConnection:
        settings = self._settings()
        self._backoff.set_delays(settings.first_delay, settings.longest_delay)
        if self._connector is None or self._connector.settings != settings:
            self._connector = NatsConnector(settings)
        return await self._connector.async_connect()

    @override
    def _set_up(self, connection: NatsConnection) -> None:
        connection.listener = self
        super()._set_up(connection)

    @override
    def on_written(self, number: int) -> None:
        self.outbox.on_written(number)

    @override
    def on_flushed(self, number: int) -> None:
        self.outbox.on_flushed(number)

    @override
    def on_acknowledged(self, number: int) -> None:
        self.outbox.on_acknowledged(number)

    @override
    def on_refused(self, number: int, problem: Problem) -> None:
        self.outbox.on_refused(number, problem)

    @override
    def on_denied(self, subject: bytes) -> None:
        self.outbox.on_denied(subject)
