"""What has to be on disk, written behind the event loop's back.

One transaction is under way at a time; while it is, the next one is collected. A record
that is acknowledged before its turn never touches the disk.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ..records import RecordKind
from .errors import Problem
from .parcels import Parcel
from .store import Contents, Page, RecordStore, Row, StoreError

# How long a record that was sent may wait for its acknowledgement before it is written:
# most brokers answer sooner, and an SD card does not last for ever.
_HOLD: Final = 0.05
# Deletions are not urgent: what a power cut brings back is sent twice.
_TIDY: Final = 1.0
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 30.0
PAGE: Final = 250
CLOSE_TIMEOUT: Final = 10.0


class JournalListener(Protocol):
    """What is told of what happens on disk."""

    def on_opened(self, contents: Contents) -> None:
        """Take over what waits on disk from an earlier run, or was saved from damage."""

    def on_written(self, parcels: list[Parcel]) -> None:
        """Take note that parcels are on disk, in the order in which they were accepted."""

    def on_page(self, page: Page) -> None:
        """Take the oldest records that were not read yet."""

    def on_store(self, problem: Problem | None) -> None:
        """Take note that the disk fails, or works again."""


class Journal:
    """The way of one destination's parcels to the disk and back."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: RecordStore,
        listener: JournalListener,
        unix_time: Callable[[float], float],
    ) -> None:
        """Initialize; `unix_time` makes a Unix time of one of the event loop's."""
        self.failed = False
        self._loop = loop
        self._store = store
        self._listener = listener
        self._unix_time = unix_time
        self._inserts: dict[Parcel, None] = {}
        self._deletes: list[int] = []
        self._refusals: dict[int, str | None] = {}
        self._page_after: int | None = None
        self._damaged = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._delay = FIRST_DELAY
        self._closing = False

    @property
    def unwritten(self) -> int:
        """Return how many parcels are not on disk yet."""
        return len(self._inserts)

    def oldest_spilled(self) -> Parcel | None:
        """Return the oldest parcel that is nowhere but here, where a disk is too slow."""
        return next((parcel for parcel in self._inserts if parcel.spilled), None)

    def count_spilled(self, kind: RecordKind) -> int:
        """Return how many parcels of a kind are nowhere but here."""
        return sum(p.spilled and p.kind is kind for p in self._inserts)

    async def async_open(self) -> None:
        """Open the store; where that fails, it is tried again."""
        await self._async_turn()

    def insert(self, parcel: Parcel, *, is_urgent: bool) -> None:
        """Have a parcel written: soon, where it is on its way, and else at once."""
        self._inserts[parcel] = None
        self._schedule(0.0 if is_urgent else _HOLD)

    def delete(self, parcel: Parcel) -> None:
        """Have a parcel forgotten, if it is on disk."""
        if parcel in self._inserts:
            del self._inserts[parcel]
        elif parcel.row is not None:
            self.delete_row(parcel.row)

    def delete_row(self, number: int) -> None:
        """Have a record forgotten."""
        self._refusals.pop(number, None)
        self._deletes.append(number)
        self._schedule(_TIDY)

    def set_aside(self, parcel: Parcel, problem: Problem | None) -> None:
        """Have noted that a parcel is set aside, or that it waits again."""
        if parcel.row is not None:
            self._refusals[parcel.row] = problem
            self._schedule(_TIDY)

    def want_page(self, after: int) -> None:
        """Have the next records read."""
        self._page_after = after
        self._schedule(0.0)

    async def async_close(self) -> None:
        """Write what is not written yet, and close the file."""
        self._closing = True
        self._cancel_timer()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if self._task is not None:
                    await asyncio.wait([self._task])
                self._page_after = None
                await self._async_turn()
                await self._loop.run_in_executor(None, self._store.close)
        except TimeoutError:
            # A thread that hangs on a dead disk cannot be stopped.
            self._listener.on_store(Problem.STORE_FAILED)

    # --- inside -------------------------------------------------------------------------

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, delay: float) -> None:
        """Have the next transaction begin, at the latest after so many seconds."""
        if self._closing or self._task is not None:
            return
        if self.failed:
            delay = self._delay
        due = self._loop.time() + delay
        if self._timer is not None:
            if self._timer.when() <= due or self.failed:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._async_turn(), eager_start=False)
        self._task.add_done_callback(self._on_turned)

    def _on_turned(self, task: asyncio.Task[None]) -> None:
        """Go on with what was collected meanwhile."""
        self._task = None
        if not task.cancelled() and (err := task.exception()) is not None:
            raise err
        if self._inserts or self._page_after is not None:
            self._schedule(0.0)
        elif self._deletes or self._refusals or not self._store.is_open:
            self._schedule(_TIDY)

    async def _async_turn(self) -> None:
        """Write what is collected, in one transaction, then read what is wanted."""
        try:
            if self._damaged or not self._store.is_open:
                job = self._store.recover if self._damaged else self._store.open
                contents = await self._loop.run_in_executor(None, job)
                self._damaged = False
                self._listener.on_opened(contents)
            await self._async_write()
            await self._async_read()
        except StoreError as err:
            self._fail(err)
        else:
            if self.failed:
                self.failed = False
                self._listener.on_store(None)
            self._delay = FIRST_DELAY

    async def _async_write(self) -> None:
        if not (self._inserts or self._deletes or self._refusals):
            return
        inserts, self._inserts = self._inserts, {}
        deletes, self._deletes = self._deletes, []
        refusals, self._refusals = self._refusals, {}
        parcels = list(inserts)
        try:
            numbers = await self._loop.run_in_executor(
                None, self._apply, parcels, deletes, list(refusals.items())
            )
        except StoreError:
            self._inserts = {
                parcel: None for parcel in inserts if not parcel.is_forgotten
            } | self._inserts
            self._deletes = deletes + self._deletes
            self._refusals = refusals | self._refusals
            raise
        for parcel, number in zip(parcels, numbers, strict=True):
            parcel.row = number
            if parcel.is_forgotten:  # Meanwhile
                self._deletes.append(number)
            elif parcel.is_done:
                self._refusals[number] = parcel.refusal
        self._listener.on_written(parcels)

    def _apply(
        self,
        parcels: list[Parcel],
        deletes: list[int],
        refusals: list[tuple[int, str | None]],
    ) -> list[int]:
        """Write; in a thread."""
        rows = [
            Row(
                parcel.kind.value,
                parcel.device,
                self._unix_time(parcel.accepted),
                parcel.messages,
                refusal=parcel.refusal if parcel.is_done else None,
            )
            for parcel in parcels
        ]
        return self._store.apply(rows, deletes, refusals)

    async def _async_read(self) -> None:
        if (after := self._page_after) is None:
            return
        page = await self._loop.run_in_executor(None, self._store.read, after, PAGE)
        self._page_after = None
        gone = set(self._deletes)
        self._listener.on_page(
            page._replace(rows=[row for row in page.rows if row.id not in gone])
        )

    def _fail(self, err: StoreError) -> None:
        """Take note that the disk fails, and try again later."""
        self._damaged |= err.problem is Problem.STORE_CORRUPT
        was_failed, self.failed = self.failed, True
        if self._damaged and not was_failed:
            self._delay = 0.0  # Mending it may well succeed
        else:
            self._delay = min(max(self._delay * 2, FIRST_DELAY), LONGEST_DELAY)
            self._listener.on_store(Problem.STORE_FAILED)
