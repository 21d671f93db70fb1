"""An InfluxDB destination without Home Assistant, for tests: what is said, and its sums."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from custom_components.ble_bridge.destinations.destination import DestinationParts
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.influxdb import InfluxDestination
from custom_components.ble_bridge.destinations.influxdb_connection import (
    InfluxApi,
    InfluxSettings,
    token_header,
)
from custom_components.ble_bridge.destinations.parcels import Message, Parcel
from custom_components.ble_bridge.destinations.policy import DeliverySettings, Policy
from custom_components.ble_bridge.destinations.store import RecordStore
from custom_components.ble_bridge.records import RecordKind, Route, Tally
from scripts.simulation.fake_influx import FakeInflux
from scripts.simulation.influx_answers import Flavour

from .deliveries import async_until

MOMENT = 1_768_127_445_000_000_000
KINDS = {
    Policy.DROP: RecordKind.CONNECTIVITY,
    Policy.BUFFER: RecordKind.READING,
    Policy.DURABLE: RecordKind.ALERT,
}


def point(number: int, fields: str = "", measurement: str = "ble") -> bytes:
    """Return a point with a number, each at a time of its own."""
    said = fields or f"number={number}i"
    return f"{measurement},device=a {said} {MOMENT + number * 1000}".encode()


class Rig:
    """A destination, and what it told."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: InfluxSettings,
        delivery: DeliverySettings,
        path: Path | None,
    ) -> None:
        """Initialize; without a path nothing is durable."""
        self.problems: list[Problem | None] = []
        self.refusals: list[frozenset[Problem]] = []
        self.changes: list[bool] = []
        self.tally = Tally()
        self.destination = InfluxDestination(
            DestinationParts(
                title="Store",
                raw=None,
                head=lambda _: b"",
                delivery=delivery,
                store=RecordStore(path, list(RecordKind)) if path else None,
                listener=self,
            ),
            session,
            settings,
            lambda online: (
                b"ble_bridge,bridge=x online=%b" % (b"true" if online else b"false")
            ),
            is_open_to_all=True,
        )
        self.route = Route(b"", self.tally)
        self._task: asyncio.Task[None] | None = None

    def last_problem(self) -> Problem | None:
        """Return what the user was told last."""
        return self.problems[-1]

    def on_change(self) -> None:
        """Take note whether there is a connection."""
        self.changes.append(self.is_up)

    def on_problem(self, problem: Problem | None) -> None:
        """Take note of what the user can mend."""
        self.problems.append(problem)

    def on_refusals(self, problems: frozenset[Problem]) -> None:
        """Take note of why lines are refused."""
        self.refusals.append(problems)

    def on_store(self, problem: Problem | None) -> None:
        """Take note of the disk."""

    @property
    def is_up(self) -> bool:
        """Tell whether there is a connection."""
        return self.destination.connection is not None

    @property
    def tallies(self) -> Mapping[RecordKind, Tally]:
        """Return what became of records."""
        return self.destination.records

    async def start(self, *, connected: bool = True) -> None:
        """Begin, and wait until there is a connection."""
        await self.destination.async_open()
        self._task = asyncio.create_task(self.destination.async_run())
        if connected:
            await async_until(lambda: self.is_up)

    async def stop(self) -> None:
        """End, as Home Assistant does."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            await self.destination.async_stop(lambda: None)

    def advertise(self, lines: Iterable[bytes]) -> None:
        """Hand over signals of advertisements."""
        for line in lines:
            self.tally.received += 1
            self.destination.outbox.put(self.route, line)

    def say(
        self, *lines: bytes, policy: Policy = Policy.BUFFER, device: str = "a"
    ) -> Parcel:
        """Hand over one record."""
        messages = tuple(Message(b"", line) for line in lines)
        return self.destination.send(KINDS[policy], device, messages)

    async def settle(self, seconds: float = 20) -> None:
        """Wait until nothing waits any more."""
        self.destination.outbox.wake()
        await async_until(lambda: not self.destination.outbox.waiting, seconds)
        self.check()

    def check(self) -> None:
        """Check that what was received is somewhere."""
        outbox = self.destination.outbox
        waiting = sum(tally.waiting for tally in self.tallies.values())
        assert self.tally.waiting == outbox.passing
        assert waiting == self.destination.delivery.waiting


@asynccontextmanager
async def rig(
    url: str,
    *,
    delivery: Mapping[str, Any] | None = None,
    path: Path | None = None,
    connected: bool = True,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """Run a destination that writes to a server."""
    settings: dict[str, Any] = {
        "api": InfluxApi.V2,
        "place": {"org": "house", "bucket": "ble"},
        "authorization": token_header("token"),
        "batch_time": 0.02,
        "first_delay": 0.05,
        "longest_delay": 0.2,
        **changes,
    }
    policies = {kind: policy for policy, kind in KINDS.items()}
    policies |= dict.fromkeys((RecordKind.ADVERTISEMENT, RecordKind.ERROR), Policy.DROP)
    policies[RecordKind.MESSAGE] = Policy.BUFFER
    async with aiohttp.ClientSession() as session:
        made = Rig(
            session,
            InfluxSettings(url=url, **settings),
            DeliverySettings(policies=policies, **(delivery or {})),
            path,
        )
        await made.start(connected=connected)
        try:
            yield made
        finally:
            await made.stop()


def numbers(server: FakeInflux) -> list[int]:
    """Return the numbers that arrived, in order."""
    return [
        int(found.fields["number"])
        for found in server.points
        if "number" in found.fields
    ]


FLAVOURS = tuple(Flavour)
