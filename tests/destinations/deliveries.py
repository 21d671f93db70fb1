"""A delivery with a journal and a real store, for tests: what is said, sent, answered."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
import threading
from typing import override

from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.journal import Journal
from custom_components.ble_bridge.destinations.parcels import Message, Parcel
from custom_components.ble_bridge.destinations.policy import (
    Bounds,
    DeliverySettings,
    Policy,
)
from custom_components.ble_bridge.destinations.store import (
    Contents,
    RecordStore,
    Row,
    StoreError,
)
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import RecordKind, Tally

KINDS = {
    Policy.DROP: RecordKind.CONNECTIVITY,
    Policy.BUFFER: RecordKind.READING,
    Policy.DURABLE: RecordKind.ALERT,
}


class Disk(RecordStore):
    """A store that counts what is written, and fails or waits when it is told to."""

    def __init__(self, path: Path) -> None:
        """Initialize a disk that is well."""
        super().__init__(path, list(RecordKind))
        self.written = 0
        self.commits = 0
        self.fails = False
        self.fails_to_open = False
        self.free = threading.Event()
        self.free.set()
        self.is_busy = threading.Event()

    @override
    def open(self) -> Contents:
        if self.fails_to_open:
            raise StoreError(Problem.STORE_FAILED, "No space left on device")
        return super().open()

    @override
    def apply(
        self,
        inserts: Sequence[Row],
        deletes: Sequence[int],
        refusals: Sequence[tuple[int, str | None]] = (),
    ) -> list[int]:
        self.is_busy.set()
        self.free.wait(30)
        self.is_busy.clear()
        if self.fails:
            raise StoreError(Problem.STORE_FAILED, "No space left on device")
        numbers = super().apply(inserts, deletes, refusals)
        self.written += len(inserts)
        self.commits += 1
        return numbers


class Rig:
    """A destination without its connection."""

    def __init__(
        self,
        disk: Disk | None = None,
        *,
        clock: Callable[[], float] | None = None,
        buffer: Bounds = Bounds(1_000, 1 << 20),  # noqa: B008 - it does not change
        store: Bounds = Bounds(100_000, 1 << 30),  # noqa: B008
        max_age: float = 1e6,
        drain_rate: float = 1e9,
        max_tries: int = 5,
    ) -> None:
        """Initialize; without a disk nothing is durable."""
        self.tallies = {kind: Tally() for kind in RecordKind}
        self.told: list[Problem | None] = []
        self.changes = 0
        loop = asyncio.get_running_loop() if clock is None else None
        self.clock = clock or (lambda: loop.time() if loop else 0.0)
        self.delivery = Delivery(
            DeliverySettings(
                policies={kind: policy for policy, kind in KINDS.items()},
                buffer=buffer,
                store=store,
                max_age=max_age,
                drain_rate=drain_rate,
                max_tries=max_tries,
            ),
            self.tallies,
            self.clock,
            lambda at: at + 1e9,
            self._on_change,
            self.told.append,
        )
        self.disk = disk
        if disk is not None:
            self.delivery.journal = Journal(
                asyncio.get_running_loop(), disk, self.delivery, lambda at: at + 1e9
            )
        self.number = 0

    def _on_change(self) -> None:
        self.changes += 1

    @property
    def journal(self) -> Journal:
        """Return the journal, where there is one."""
        assert self.delivery.journal
        return self.delivery.journal

    @property
    def tally(self) -> Tally:
        """Return what became of the durable ones."""
        return self.tallies[RecordKind.ALERT]

    def say(
        self,
        count: int = 1,
        *,
        policy: Policy = Policy.DURABLE,
        device: str = "device",
        topic: str = "topic",
        size: int = 0,
        messages: int = 1,
    ) -> list[Parcel]:
        """Take records."""
        parcels = []
        for _ in range(count):
            self.number += 1
            payload = b"%d " % self.number + b"x" * size
            message = Message(encode_topic(f"{device}/{topic}"), payload, 1)
            tally = self.tallies[KINDS[policy]]
            parcel = Parcel(
                KINDS[policy],
                tally,
                device,
                (message,) * messages,
                policy,
                self.clock(),
            )
            tally.received += 1
            self.delivery.accept(parcel)
            parcels.append(parcel)
        self.check()
        return parcels

    def take(self, most: int = 1_000_000) -> list[Parcel]:
        """Send what may be sent now."""
        sent: list[Parcel] = []
        while len(sent) < most and (parcel := self.delivery.take()) is not None:
            parcel.confirms = True
            sent.append(parcel)
        self.check()
        return sent

    def confirm(self, parcels: list[Parcel]) -> list[int]:
        """Acknowledge records; return their numbers."""
        for parcel in parcels:
            for _ in parcel.messages:
                self.delivery.confirm(parcel)
            self.check()
        return numbers_of(parcels)

    async def async_deliver(self, seconds: float = 20.0) -> list[int]:
        """Send and acknowledge until nothing waits; return the numbers."""
        if not self.delivery.is_open:
            self.delivery.open()
        arrived: list[int] = []
        async with asyncio.timeout(seconds):
            while self.delivery.waiting:
                arrived += self.confirm(self.take())
                await asyncio.sleep(0.002)
        return arrived

    def check(self) -> None:
        """Check that all is accounted for."""
        assert all(tally.waiting >= 0 for tally in self.tallies.values())
        waiting = sum(tally.waiting for tally in self.tallies.values())
        assert self.delivery.waiting == waiting
        if self.disk is not None:
            error = self.tallies[RecordKind.ERROR]
            assert self.delivery.stored[0] == self.tally.waiting + error.waiting
        if not self.delivery.stored[0]:
            assert self.delivery.stored[1] == 0
        assert self.delivery.stored[1] >= 0

    async def async_open(self) -> None:
        """Start."""
        await self.journal.async_open()
        self.check()

    async def async_close(self) -> None:
        """Stop."""
        self.delivery.close()
        self.delivery.give_up()
        await self.journal.async_close()
        self.check()


def numbers_of(parcels: list[Parcel]) -> list[int]:
    """Return the numbers of records."""
    return [int(parcel.messages[0].payload.split(b" ")[0]) for parcel in parcels]


async def async_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
