"""What has to be on disk, written behind the event loop's back.

One transaction is under way at a time; while it is, the next one is collected. A record
that is acknowledged before its turn never touches the disk.
"""

import asyncio
from collections.abc import Callable, Iterable
import contextlib
import itertools
import logging
from typing import Final, Protocol

from ..records import RecordKind
from .errors import Problem
from .parcels import Parcel
from .store import Contents, Page, RecordStore, Row, StoreError

_LOGGER = logging.getLogger(__name__)

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
        # What is to be written, in the order of acceptance, and when it is to be at the latest.
        self._inserts: dict[Parcel, float] = {}
        self._deletes: dict[int, None] = {}
        self._refusals: dict[int, str | None] = {}
        self._page_after: int | None = None
        self._damaged = False
        self._mending = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_task: asyncio.Task[None] | None = None
        self._delay = FIRST_DELAY
        self._closing = False
        self._paused = False

    @property
    def unwritten(self) -> int:
        """Return how many parcels are not on disk yet."""
        return len(self._inserts)

    def inserts(self) -> Iterable[Parcel]:
        """Return the parcels that are not on disk yet, the oldest first."""
        return self._inserts

    def spilled(self) -> list[Parcel]:
        """Return the parcels that are nowhere but here, the oldest first."""
        return [parcel for parcel in self._inserts if parcel.spilled]

    def oldest_spilled(self) -> Parcel | None:
        """Return the oldest parcel that is nowhere but here, where a disk is too slow."""
        return next((parcel for parcel in self._inserts if parcel.spilled), None)

    def count_spilled(self, kind: RecordKind) -> int:
        """Return how many parcels of a kind are nowhere but here."""
        return sum(p.spilled and p.kind is kind for p in self._inserts)

    def is_deleted(self, number: int) -> bool:
        """Tell whether a record is to be forgotten, and is perhaps still on disk."""
        return number in self._deletes

    async def async_open(self) -> None:
        """Open the store; where that fails, it is tried again."""
        self._cancel_timer()
        if self._task is None:
            self._begin()
        if (task := self._task) is not None:
            await asyncio.wait([task])

    def insert(self, parcel: Parcel, *, is_urgent: bool) -> None:
        """Have a parcel written: soon, where it is on its way, and else at once."""
        delay = 0.0 if is_urgent else _HOLD
        self._inserts[parcel] = self._loop.time() + delay
        self._schedule(delay)

    def delete(self, parcel: Parcel) -> None:
        """Have a parcel forgotten, if it is on disk."""
        self._inserts.pop(parcel, None)
        if parcel.row is not None:
            self.delete_row(parcel.row)

    def delete_row(self, number: int) -> None:
        """Have a record forgotten."""
        self._refusals.pop(number, None)
        self._deletes[number] = None
        self._schedule(_TIDY)

    def set_aside(self, parcel: Parcel, problem: Problem | None) -> None:
        """Have noted that a parcel is set aside, or that it waits again."""
        if parcel.row is not None:
            self._refusals[parcel.row] = problem
            self._schedule(_TIDY)

    def want_page(self, after: int) -> None:
        """Have the next records read."""
        if not self._closing:
            self._page_after = after
            self._schedule(0.0)

    async def async_close(self) -> None:
        """Write what is not written yet, and close the file."""
        self._closing = True
        self._cancel_timer()
        self._last_task = self._loop.create_task(self._async_finish())
        _, pending = await asyncio.wait([self._last_task], timeout=CLOSE_TIMEOUT)
        if pending:
            # A thread that hangs on a dead disk cannot be stopped. Should it come back, it
            # goes on as if we had waited, for the file is to be closed.
            self._listener.on_store(Problem.STORE_FAILED)

    async def async_pause(self) -> None:
        """Leave the file alone, and whole, until `resume`: somebody wants to copy it."""
        self._paused = True
        self._cancel_timer()
        if self._task is not None:
            await asyncio.wait([self._task])
        with contextlib.suppress(StoreError):
            await self._loop.run_in_executor(None, self._store.checkpoint)

    def resume(self) -> None:
        """Write again."""
        self._paused = False
        self._go_on()

    # --- inside -------------------------------------------------------------------------

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, delay: float) -> None:
        """Have the next transaction begin, at the latest after so many seconds."""
        if self._closing or self._paused or self._task is not None:
            return
        is_waiting = self.failed or self._mending
        due = self._loop.time() + (self._delay if is_waiting else delay)
        if self._timer is not None:
            if self._timer.when() <= due or is_waiting:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._async_turn(), eager_start=False)
        self._task.add_done_callback(self._on_turned)

    def _on_turned(self, _: asyncio.Task[None]) -> None:
        """Go on with what was collected meanwhile."""
        self._task = None
        self._go_on()

    def _go_on(self) -> None:
        """Have written or read what is collected."""
        if self._page_after is not None or self._damaged:
            self._schedule(0.0)
        elif self._inserts:
            due = min(next(iter(self._inserts.values())), self._last_due())
            self._schedule(max(0.0, due - self._loop.time()))
        elif self._deletes or self._refusals or not self._store.is_open:
            self._schedule(_TIDY)

    def _last_due(self) -> float:
        """Return when the newest of what is to be written is due."""
        return next(reversed(self._inserts.values()))

    async def _async_finish(self) -> None:
        """Come to an end, once nothing is under way any more."""
        if self._task is not None:
            await asyncio.wait([self._task])
        self._page_after = None
        await self._async_turn()
        if self._damaged:
            await self._async_turn()
        await self._loop.run_in_executor(None, self._store.close)

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
            self._fail(err.problem)
        except Exception:  # Nobody else would go on with what is collected
            _LOGGER.exception("Unexpected error with records on disk")
            self._fail(Problem.STORE_FAILED)
        else:
            self._mending = False
            if self.failed:
                self.failed = False
                self._listener.on_store(None)
            self._delay = FIRST_DELAY

    def _take_due(self) -> dict[Parcel, float]:
        """Return what is to be written now.

        What is on its way may be acknowledged before it is due. Nothing is written before
        what was accepted before it.
        """
        now = self._loop.time()
        due = self._inserts
        if not (self._closing or self._page_after is not None) and (
            due and self._last_due() > now
        ):
            due = dict(itertools.takewhile(lambda item: item[1] <= now, due.items()))
        self._inserts = {
            parcel: at for parcel, at in self._inserts.items() if parcel not in due
        }
        return due

    async def _async_write(self) -> None:
        inserts = self._take_due()
        if not (inserts or self._deletes or self._refusals):
            return
        deletes, self._deletes = self._deletes, {}
        refusals, self._refusals = self._refusals, {}
        parcels = list(inserts)
        rows = [self._row(parcel) for parcel in parcels]
        try:
            numbers = await self._loop.run_in_executor(
                None, self._store.apply, rows, list(deletes), list(refusals.items())
            )
        except BaseException:
            self._inserts = {
                parcel: due
                for parcel, due in inserts.items()
                if not parcel.is_forgotten
            } | self._inserts
            self._deletes = deletes | self._deletes
            self._refusals = {
                number: problem
                for number, problem in refusals.items()
                if number not in self._deletes
            } | self._refusals
            raise
        for parcel, row, number in zip(parcels, rows, numbers, strict=True):
            parcel.row = number
            refusal = parcel.refusal if parcel.is_done else None
            if parcel.is_forgotten:  # Meanwhile
                self._deletes[number] = None
            elif refusal != row.refusal:
                self._refusals[number] = refusal
        self._listener.on_written(parcels)

    def _row(self, parcel: Parcel) -> Row:
        """Return a parcel as it is written; one that was lost gets its number again."""
        return Row(
            parcel.kind.value,
            parcel.device,
            self._unix_time(parcel.accepted),
            parcel.messages,
            parcel.row or 0,
            parcel.refusal if parcel.is_done else None,
        )

    async def _async_read(self) -> None:
        if (after := self._page_after) is None:
            return
        page = await self._loop.run_in_executor(None, self._store.read, after, PAGE)
        self._page_after = None
        gone = self._deletes
        self._listener.on_page(
            page._replace(rows=[row for row in page.rows if row.id not in gone])
        )

    def _fail(self, problem: Problem) -> None:
        """Take note that the disk fails, and try again later."""
        if problem is Problem.STORE_CORRUPT:
            self._damaged = True
            if not (self.failed or self._mending):  # To mend it may well succeed
                self._mending = True
                self._delay = 0.0
                return
        self.failed = True
        self._delay = min(max(self._delay * 2, FIRST_DELAY), LONGEST_DELAY)
        self._listener.on_store(Problem.STORE_FAILED)
