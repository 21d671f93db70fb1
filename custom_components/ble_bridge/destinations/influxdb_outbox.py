"""Lines on their way to InfluxDB.

One request is under way at a time, with as many lines as a batch may have; its 204
acknowledges all of them. What is refused together is tried in parts, until it is known
which lines are bad.
"""

import asyncio
from collections.abc import Callable, Sequence
import logging
from typing import Final, override

from ..records import RecordKind, Route
from .delivery import Delivery
from .destination import Backoff
from .errors import ConnectError, Problem
from .influxdb_answers import Answer, Clash, Verdict, examine, judge
from .influxdb_connection import InfluxConnection, InfluxSettings, WaitError
from .influxdb_lines import parse
from .outbox import Batch, Outbox
from .parcels import Parcel

_LOGGER = logging.getLogger(__name__)

# How soon one batch follows another while there is something to catch up with (s).
_CATCHING_UP: Final = 0.05
# A server that wants to be left alone for longer than this is away (s).
LONGEST_BLOCK: Final = 60.0
# How soon it is asked again at the earliest, even where it wants that sooner (s).
_SHORTEST_WAIT: Final = 0.1
_MAX_CLASHES: Final = 100


class _Lines(Batch):
    """Lines that are written together, those of records first.

    `owners` are the records, by line. `parts` are the numbers of the lines that are not
    answered yet, the next request last. `refused` tells why records were.
    """

    __slots__ = ("owners", "parts", "refused")

    def __init__(self) -> None:
        """Initialize an empty batch."""
        super().__init__()
        self.owners: list[Parcel] = []
        self.parts: list[Sequence[int]] = []
        self.refused: dict[Parcel, tuple[Problem, Clash | None]] = {}

    @property
    def is_alone(self) -> bool:
        """Tell whether all lines are of one record."""
        return len(self.parcels) == 1 and not self.passing

    @property
    def unanswered(self) -> list[Route]:
        """Return the routes of the advertisements that are not answered yet."""
        first = len(self.owners)
        return [
            self.passing[index - first][0]
            for part in self.parts
            for index in part
            if index >= first
        ]


class InfluxOutbox(Outbox[InfluxConnection]):
    """What of one server is not sent yet."""

    _under_way: _Lines | None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delivery: Delivery,
        report: Callable[[Problem], None],
        on_stalled: Callable[[], None],
        on_lost: Callable[[Problem], None],
        on_wait: Callable[[Problem], None],
        settings: InfluxSettings,
    ) -> None:
        """Initialize, as `Outbox` does.

        `on_lost` is told when the server takes nothing any more, and `on_wait` when it
        wants to be left alone for a while.
        """
        super().__init__(loop, delivery, report, on_stalled)
        # How long the server wants to be left alone (s) that was lost for it.
        self.wait = 0.0
        # Of what is refused for the type of a field, which it is.
        self.clashes: dict[bytes, Clash] = {}
        self._settings = settings
        self._on_lost = on_lost
        self._on_wait = on_wait
        self._task: asyncio.Task[None] | None = None
        self._is_requesting = False
        self._is_hurried = False
        self._new_lines = 0
        self._new_size = 0
        self._pace = settings.batch_time
        # How much has proved to be too much.
        self._limit = settings.batch_lines
        self._most = settings.batch_bytes
        self._blocked_since: float | None = None
        self._backoff = Backoff()
        self._backoff.set_delays(settings.first_delay, settings.longest_delay)

    @property
    @override
    def passing(self) -> int:
        under_way = len(self._under_way.unanswered) if self._under_way else 0
        return len(self._passing) + under_way

    @property
    @override
    def _gather(self) -> float:
        return 0.0 if self._is_full else self._pace

    @property
    @override
    def _is_awaiting(self) -> bool:
        return self._is_requesting

    @property
    def _is_full(self) -> bool:
        """Tell whether there is a batch that need not wait for more."""
        settings = self._settings
        return (
            len(self._passing) + self._new_lines >= settings.batch_lines
            or self._passing.size + self._new_size >= settings.batch_bytes
        )

    # --- in -----------------------------------------------------------------------------

    @override
    def put(self, route: Route, payload: bytes) -> None:
        super().put(route, payload)
        if self._is_full:
            self._hurry()

    @override
    def accept(self, parcel: Parcel) -> None:
        super().accept(parcel)
        self._new_lines += len(parcel.messages)
        self._new_size += parcel.size
        # Who has a message published waits for the answer.
        if parcel.kind is RecordKind.MESSAGE or self._is_full:
            self._hurry()

    def _hurry(self) -> None:
        """Send in this turn of the loop, if anything can be sent."""
        if self._connection is None or self._under_way is not None or self._is_hurried:
            return
        self._is_hurried = True
        self._cancel_flush()
        self._flushing = self._loop.call_soon(self.flush)

    @override
    async def async_flush(self, patience: float) -> bool:
        self._hurry()
        return await super().async_flush(patience)

    # --- the connection -----------------------------------------------------------------

    @override
    def _begin(self, connection: InfluxConnection) -> None:
        self.wait = 0.0
        self._most = self._settings.batch_bytes
        self._blocked_since = None

    @override
    def _abandon(self, connection: InfluxConnection) -> None:
        self._is_requesting = self._is_hurried = False
        if (task := self._task) is not None:
            self._task = None
            task.cancel()
        if (batch := self._under_way) is not None:
            self._under_way = None
            for route in batch.unanswered:
                route.tally.away += 1
            # Perhaps it was too much to be answered in time, or one line is to blame.
            self._limit = max(1, len(batch.parts[-1]) // 2 if batch.parts else 1)

    @override
    def close(self, *, is_blamed: bool = False) -> None:
        # Of many that were sent together none can be blamed.
        batch = self._under_way
        super().close(is_blamed=is_blamed and batch is not None and batch.is_alone)

    # --- out ----------------------------------------------------------------------------

    @override
    def _send(self, connection: InfluxConnection) -> None:
        self._is_hurried = False
        self._new_lines = self._new_size = 0
        batch = self._collect()
        due = self.delivery.next_due()
        self._pace = self._settings.batch_time
        if due is not None:
            pause = max(due - self._loop.time(), _CATCHING_UP)
            self._pace = min(self._pace, pause)
        if not batch.pieces:
            self._flushed -= self._settings.batch_time  # The next need not wait
        else:
            self._under_way = batch
            self._task = self._loop.create_task(self._async_send(connection, batch))

    def _collect(self) -> _Lines:
        """Take what may go together, the records first."""
        batch = _Lines()
        lines = batch.pieces
        room = min(self._limit, self._settings.batch_lines)
        while (
            len(lines) < room
            and batch.size < self._most
            and (parcel := self.delivery.take()) is not None
        ):
            parcel.confirms = True
            for message in parcel.messages:
                lines += message.payload.split(b"\n")
            batch.owners += [parcel] * (len(lines) - len(batch.owners))
            batch.parcels.append(parcel)
            batch.size += parcel.size
        queue = self._passing
        # What may be to blame for the end of a connection goes alone.
        if not (batch.parcels and batch.parcels[0].losses):
            while queue and len(lines) < room and batch.size < self._most:
                taken = queue.take()
                batch.passing.append(taken)
                lines.append(taken[1])
                batch.size += len(taken[1])
        batch.parts.append(range(len(lines)))
        return batch

    async def _async_send(self, connection: InfluxConnection, batch: _Lines) -> None:
        """Write a batch, until each of its lines is answered."""
        problem: Problem | None = None
        try:
            while batch.parts:
                await self._async_write(connection, batch)
        except WaitError as err:
            problem, self.wait = err.problem, err.wait or 0.0
        except ConnectError as err:
            problem = err.problem
            if problem is Problem.SERVER_UNAVAILABLE and batch.is_alone:
                problem = Problem.REFUSED
        except Exception:
            _LOGGER.exception("Unexpected error while writing to InfluxDB")
            problem = Problem.UNEXPECTED
        self._task = None
        if problem is not None:
            self._on_lost(problem)
            return
        self._under_way = None
        self._conclude(batch)
        self._go_on_soon()

    async def _async_write(self, connection: InfluxConnection, batch: _Lines) -> None:
        """Write the next part of a batch; raises ConnectError."""
        part = batch.parts[-1]
        lines = [batch.pieces[index] for index in part]
        sent = self._answered = self._loop.time()
        written = connection.bytes_sent
        self._is_requesting = True
        self._watch_acknowledgements()
        try:
            answer = await connection.async_write(lines)
        finally:
            self._is_requesting = False
            self.bytes_sent += connection.bytes_sent - written
        self._answer(sent)
        verdict, problem = judge(answer)
        if verdict is Verdict.WAIT:
            await self._async_wait(answer, problem)
            return
        if verdict is Verdict.LEAVE:
            raise ConnectError(problem)
        batch.parts.pop()
        if verdict is Verdict.EXAMINE:
            self._sort_out(batch, part, answer)
        elif verdict is Verdict.SMALLER:
            self._split(batch, part)
        else:
            self._take(batch, part)

    def _take(self, batch: _Lines, part: Sequence[int]) -> None:
        """Count lines that were taken."""
        first = len(batch.owners)
        for index in part:
            if index >= first:
                route, payload, _ = batch.passing[index - first]
                route.tally.acknowledged += 1
                batch.payload_size += len(payload)
        if self._blocked_since is not None:
            self._blocked_since = None
            self._backoff.reset()
        self._limit = min(self._limit * 2, self._settings.batch_lines)
        if self.clashes:
            self._forget_clashes(batch, part)

    async def _async_wait(self, answer: Answer, problem: Problem) -> None:
        """Leave the server alone for as long as it wants; raises WaitError."""
        now = self._loop.time()
        if self._blocked_since is None:
            self._blocked_since = now
            self._on_wait(problem)
        wait = answer.retry_after
        if wait is None:
            wait = self._backoff.next()
        wait = max(wait, _SHORTEST_WAIT)
        if now + wait > self._blocked_since + LONGEST_BLOCK:
            raise WaitError(problem, wait)
        await asyncio.sleep(wait)

    # --- what is not taken --------------------------------------------------------------

    def _split(self, batch: _Lines, part: Sequence[int]) -> None:
        """Try halves of what is too large; a line that is too large alone is refused."""
        half = len(part) // 2
        if not half:
            self._refuse(batch, part[0], Problem.TOO_LARGE, None)
            return
        size = sum(len(batch.pieces[index]) for index in part)
        self._most = min(self._most, max(size // 2, 1))
        batch.parts += (part[half:], part[:half])

    def _sort_out(self, batch: _Lines, part: Sequence[int], answer: Answer) -> None:
        """Refuse the lines that are bad, as far as that is known, and try the rest."""
        found = examine(answer.text, [batch.pieces[index] for index in part])
        for number, clash in found.bad.items():
            problem = Problem.REJECTED if clash is None else Problem.FIELD_TYPE
            self._refuse(batch, part[number], problem, clash)
        _LOGGER.debug(
            "Of %d lines that were refused, %d are bad", len(part), len(found.bad)
        )
        apart = set(found.apart)
        rest = [
            index
            for number, index in enumerate(part)
            if number not in found.bad and number not in apart
        ]
        tried = [part[number] for number in found.apart]
        batch.parts += [indexes for indexes in (rest, tried) if indexes]

    def _refuse(
        self, batch: _Lines, index: int, problem: Problem, clash: Clash | None
    ) -> None:
        """Count a line that the server does not take, or remember whose it is."""
        self._report(problem)
        if index < (first := len(batch.owners)):
            batch.refused[batch.owners[index]] = problem, clash
            return
        batch.passing[index - first][0].tally.refused += 1
        if clash is not None:
            self.delivery.tell_refused(self._remember("", clash), Problem.FIELD_TYPE)

    def _remember(self, device: str, clash: Clash) -> bytes:
        """Remember a clash; return under which name."""
        name = f"{device} {clash.measurement} {clash.field} {clash.ours}".encode()
        if len(self.clashes) < _MAX_CLASHES:
            self.clashes[name] = clash
        return name

    def _forget_clashes(self, batch: _Lines, part: Sequence[int]) -> None:
        """Take note of fields that are taken again, as those of a new shard may be."""
        first = len(batch.owners)
        passing = [index for index in part if index >= first][-1:]
        for index in [*(index for index in part if index < first), *passing]:
            device = batch.owners[index].device if index < first else ""
            prefix = f"{device} ".encode()
            names = [name for name in self.clashes if name.startswith(prefix)]
            if not names:
                continue
            point = parse(batch.pieces[index])
            for name in names:
                clash = self.clashes[name]
                if (
                    point.measurement == clash.measurement
                    and point.kinds.get(clash.field) == clash.ours
                ):
                    del self.clashes[name]
                    self.delivery.tell_taken(name)

    # --- answers ------------------------------------------------------------------------

    def _conclude(self, batch: _Lines) -> None:
        """Count records as acknowledged or refused; the oldest stands for the latency."""
        for parcel in batch.parcels:
            if parcel not in batch.refused:
                parcel.unanswered = 1
                self.delivery.confirm(parcel)
                continue
            problem, clash = batch.refused[parcel]
            # A line has no topic: what is refused goes by what is wrong with it.
            name = f"{parcel.device} {parcel.kind} {problem}".encode()
            if clash is not None:
                name = self._remember(parcel.device, clash)
            parcel.messages = tuple(m._replace(head=name) for m in parcel.messages)
            self.delivery.refuse_all(parcel, problem)
        if batch.payload_size:
            since = batch.passing[0][2]
            self._measure(batch.payload_size, since, acknowledged=True)
        _LOGGER.debug(
            "Wrote %d advertisements and %d records, %d bytes",
            len(batch.passing),
            len(batch.parcels),
            batch.size,
        )
