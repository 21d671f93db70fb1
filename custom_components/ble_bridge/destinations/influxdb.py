"""A destination on InfluxDB, or on what takes its line protocol."""

import asyncio
from collections.abc import Callable, Mapping
import time
from typing import Final, override

import aiohttp

from ..records import Advertisement, Sighting
from .destination import Destination, DestinationParts
from .errors import Problem
from .influxdb_connection import (
    InfluxConnection,
    InfluxConnector,
    InfluxSettings,
    WaitError,
)
from .influxdb_lines import split
from .influxdb_outbox import InfluxOutbox
from .parcels import Message

# A line says itself where it goes.
NOWHERE: Final = b""
# How much the user is told of a name that comes from outside.
_MAX_NAME: Final = 64


class InfluxDestination(Destination[InfluxConnection]):
    """One server, and what goes there."""

    outbox: InfluxOutbox

    def __init__(
        self,
        parts: DestinationParts,
        session: aiohttp.ClientSession,
        settings: InfluxSettings,
        status: Callable[[bool], bytes],
        *,
        is_open_to_all: bool,
    ) -> None:
        """Initialize the destination.

        `status` is the line that says whether the bridge is there; `is_open_to_all` tells
        whether the signals of devices count which the user has not added.
        """
        self._settings = settings
        super().__init__(parts)
        self._is_open_to_all = is_open_to_all
        self._backoff.set_delays(settings.first_delay, settings.longest_delay)
        self._connector = InfluxConnector(session, settings, status)
        # What became of lines of our own.

    @override
    def _make_outbox(self, loop: asyncio.AbstractEventLoop) -> InfluxOutbox:
        return InfluxOutbox(
            loop,
            self.delivery,
            self.report,
            self._on_stalled,
            self.on_lost,
            self._on_wait,
            self._settings,
        )

    @override
    def message(
        self, address: str, payload: bytes, qos: int = 0, *, retain: bool = False
    ) -> Message:
        return Message(NOWHERE, b"\n".join(split(payload)))

    @override
    def on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        if self._is_open_to_all or sighting.device is not None:
            super().on_advertisement(sighting, advertisement)

    def write(self, line: bytes) -> None:
        """Write a line of our own, if the server is there."""
        if self.connection is not None:
            self.send_own(Message(NOWHERE, line))

    def write_last(self, line: bytes) -> None:
        """Write a line of our own when the connection is closed."""
        if self.connection is not None:
            self.connection.last_words.append(line)

    # --- the connection -----------------------------------------------------------------

    @override
    async def _async_connect(self) -> InfluxConnection:
        try:
            return await self._connector.async_connect()
        except WaitError as err:
            self.outbox.wait = err.wait or 0.0
            raise

    @override
    def _pause(self) -> float:
        wait, self.outbox.wait = self.outbox.wait, 0.0
        return max(super()._pause(), wait)

    def _on_wait(self, problem: Problem) -> None:
        """Take note that the server wants to be left alone for a while."""
        self.last_error = problem
        self.recent_errors.append((time.monotonic(), problem))

    # --- delivery -----------------------------------------------------------------------

    @property
    @override
    def details(self) -> Mapping[Problem, Mapping[str, str]]:
        for name, problem in self.delivery.refused.items():
            clash = self.outbox.clashes.get(name)
            if problem is Problem.FIELD_TYPE and clash is not None:
                return {
                    problem: {
                        "field": _shown(clash.field),
                        "measurement": _shown(clash.measurement),
                        "ours": _shown(clash.ours),
                        "theirs": _shown(clash.theirs),
                    }
                }
        return {}


def _shown(name: str) -> str:
    """Return a name as it can stand in a text for the user, between backticks."""
    shown = "".join(c if c.isprintable() and c != "`" else "_" for c in name)
    return shown if len(shown) <= _MAX_NAME else f"{shown[: _MAX_NAME - 1]}…"
