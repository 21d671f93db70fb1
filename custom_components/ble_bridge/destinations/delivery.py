"""Records that wait for a destination, are under way to it, or come back refused.

A record is delivered when each of its messages is confirmed, or, at QoS 0, written: all or
nothing. If the connection ends before, or one message is refused, all of it is sent again.
What one device says in one kind of record goes out in the order in which it was said.

Nothing here does I/O: the outbox asks for what to send next and tells what became of it, and
the journal has on disk what has to be there.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
import heapq
import itertools
from typing import Final, override

from ..records import RecordKind, Tally
from .errors import Problem
from .journal import Journal, JournalListener
from .meter import Meter
from .parcels import Outcome, Parcel
from .policy import Bounds, DeliverySettings, Policy
from .store import Contents, Page, Row

# While the destination is there, a burst may be larger than what is kept for an outage.
LIVE_RECORDS: Final = 20_000
# Of what is on disk, how much is in memory too; and how little, before more is read.
MAX_IN_MEMORY: Final = 1_000
_LOW: Final = 250
# How many may wait for a slow disk.
MAX_UNWRITTEN: Final = 10_000
MAX_SET_ASIDE: Final = 100
_MAX_REFUSED_TOPICS: Final = 1_000
_FIRST_RETRY: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
# A record with which the connection ended this often may be why: it is sent again alone,
# once the connection has proved to hold without it.
_SUSPICIOUS: Final = 2
_STEADY: Final = 10.0
# How soon after a record was sent the end of the connection is held against it.
_BLAMED: Final = 2.0


def _by_number(parcel: Parcel) -> int:
    return parcel.number


class _Lane(deque[Parcel]):
    """Parcels that wait, the oldest first, and how many bytes they are."""

    size = 0

    def put(self, parcel: Parcel) -> None:
        """Take the newest."""
        self.append(parcel)
        self.size += parcel.size

    def put_back(self, parcels: Iterable[Parcel]) -> None:
        """Take what was here before, each into its place."""
        back = sorted(parcels, key=_by_number)
        self.size += sum(parcel.size for parcel in back)
        while back and self and self[0].number < back[-1].number:
            insort(back, self.popleft(), key=_by_number)
        self.extendleft(reversed(back))

    def take(self) -> Parcel:
        """Return the oldest."""
        parcel = self.popleft()
        self.size -= parcel.size
        return parcel

    def exceeds(self, bounds: Bounds) -> bool:
        """Tell whether more waits than may."""
        return len(self) > bounds.records or self.size > bounds.size


@dataclass(slots=True)
class _Hold:
    """What waits for records of the same device that are tried again, the oldest first.

    `first` is the number of the oldest one of those.
    """

    first: int
    retries: int = 0
    parcels: deque[Parcel] = field(default_factory=deque)


class Delivery(JournalListener):
    """The records of one destination that are not delivered yet."""

    def __init__(
        self,
        settings: DeliverySettings,
        tallies: Mapping[RecordKind, Tally],
        clock: Callable[[], float],
        unix_time: Callable[[float], float],
        on_change: Callable[[], None],
        on_store: Callable[[Problem | None], None],
    ) -> None:
        """Initialize.

        `clock` is the event loop's (s), and `unix_time` makes a Unix time of one of its times.
        `on_change` is called when there is something to send, or when what is refused
        changes; `on_store` when the disk fails, was damaged, or works again.
        """
        self.settings = settings
        self.journal: Journal | None = None
        self.is_open = False
        self.set_aside: deque[Parcel] = deque()
        self.refused: dict[bytes, Problem] = {}
        self.meters = {kind: Meter() for kind in RecordKind}
        self._tallies = tallies
        self._clock = clock
        self._unix_time = unix_time
        self._on_change = on_change
        self._on_store = on_store
        self._buffered = _Lane()
        self._durable = _Lane()
        self._in_flight: dict[Parcel, None] = {}
        self._retries: list[tuple[float, int, Parcel]] = []
        self._suspects: deque[Parcel] = deque()
        self._alone: Parcel | None = None
        self._held: dict[str, _Hold] = {}
        self._held_count = 0
        self._stored_records = 0
        self._stored_size = 0
        self._unread: dict[RecordKind, int] = {}
        # The parcels in memory that are on disk too, by their number there.
        self._rows: dict[int, Parcel] = {}
        self._is_taken_over = False
        self._read_after = 0
        self._earlier = 0
        self._page_wanted = False
        self._opened = 0.0
        self._drained = 0.0
        self._allowance = 0.0
        self._paused_until = 0.0
        self._pause = 0.0
        self._numbers = itertools.count()

    # --- figures ------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Return how many records are neither delivered nor dropped."""
        return (
            len(self._buffered)
            + len(self._durable)
            + len(self._in_flight)
            + len(self._retries)
            + len(self._suspects)
            + self._held_count
            + self.unread
        )

    @property
    def unread(self) -> int:
        """Return how many records are on disk, or on their way there, and nowhere else."""
        return sum(self._unread.values())

    @property
    def stored(self) -> tuple[int, int]:
        """Return how many durable records wait, and how many bytes they are."""
        return self._stored_records, self._stored_size

    @property
    def problems(self) -> frozenset[Problem]:
        """Return why something is refused at present."""
        problems = set(self.refused.values())
        if self._pause:
            problems.add(Problem.QUOTA_EXCEEDED)
        return frozenset(problems)

    # --- in -----------------------------------------------------------------------------

    def accept(self, parcel: Parcel) -> None:
        """Take over a record, whose tally has counted it as received."""
        parcel.number = next(self._numbers)
        if (journal := self._journal_of(parcel)) is not None:
            self._stored_records += 1
            self._stored_size += parcel.size
            if not journal.failed and (
                self._unread or len(self._durable) >= MAX_IN_MEMORY
            ):
                self._spill(parcel)
            else:
                self._durable.put(parcel)
            journal.insert(parcel, is_urgent=not self.is_open)
        elif parcel.policy is Policy.DROP and not self.is_open:
            parcel.finish(Outcome.AWAY)
            return
        else:
            self._buffered.put(parcel)
        self._make_room()

    def _spill(self, parcel: Parcel) -> None:
        """Have a record on disk only: memory has enough of them."""
        general = self._tallies[parcel.kind]
        if parcel.tally is not general:  # Nobody knows any more which scanner's it was
            parcel.tally.received -= 1
            general.received += 1
            parcel.tally = general
        parcel.spilled = True
        self._unread[parcel.kind] = self._unread.get(parcel.kind, 0) + 1

    def _make_room(self) -> None:
        """Drop the oldest of what is more than may wait."""
        settings = self.settings
        bounds = settings.buffer
        if self.is_open:
            bounds = Bounds(max(bounds.records, LIVE_RECORDS), bounds.size)
        while self._buffered.exceeds(bounds):
            self._finish(self._buffered.take(), Outcome.OVERFLOW)
        if self.journal is None:
            return
        store = settings.store
        while self._durable and (
            self._stored_records > store.records
            or self._stored_size > store.size
            or (self.journal.failed and self._durable.exceeds(bounds))
        ):
            self._finish(self._durable.take(), Outcome.OVERFLOW)
        unwritten = bounds.records if self.journal.failed else MAX_UNWRITTEN
        while self.journal.unwritten > unwritten and (
            parcel := self.journal.oldest_spilled()
        ):
            self._unspill(parcel.kind)
            self._finish(parcel, Outcome.OVERFLOW)
        self._read_on()

    def _unspill(self, kind: RecordKind) -> None:
        """Take note that a record is no longer on disk only."""
        self._unread[kind] -= 1
        if not self._unread[kind]:
            del self._unread[kind]

    # --- out ----------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to send; what waits goes out at a bounded rate."""
        self.is_open = True
        self._opened = self._drained = self._clock()
        self._allowance = 1.0
        self._paused_until = 0.0

    def take(self) -> Parcel | None:
        """Return the next record to send, if one may be sent now."""
        now = self._clock()
        if not self.is_open or now < self._paused_until or self._alone is not None:
            return None
        if self._pause and self._in_flight:  # One tries whether there is room again
            return None
        if self._suspects and now >= self._opened + _STEADY:
            if self._in_flight:  # It goes alone
                return None
            self._alone = parcel = self._suspects.popleft()
            return self._send(parcel, now)
        if self._retries and self._retries[0][0] <= now:
            return self._send(heapq.heappop(self._retries)[2], now)
        while (lane := self._next_lane()) is not None:
            if self._is_hold_full and lane[0].device in self._held:
                return None
            if lane[0].accepted <= self._opened and not self._may_drain(now):
                return None
            parcel = lane.take()
            if parcel.accepted < now - self.settings.max_age:
                self._finish(parcel, Outcome.EXPIRED)
            elif (hold := self._held.get(parcel.device)) is None:
                return self._send(parcel, now)
            else:
                self._put_on_hold(hold, parcel)
        return None

    def _next_lane(self) -> _Lane | None:
        """Return the lane whose turn it is: that of the record that waits longest."""
        self._read_on()
        if self._buffered and self._durable:
            if self._buffered[0].accepted <= self._durable[0].accepted:
                return self._buffered
            return self._durable
        return self._buffered or self._durable or None

    def _may_drain(self, now: float) -> bool:
        """Tell whether one more may go out of what waited for the destination."""
        rate = self.settings.drain_rate
        self._allowance = min(
            self._allowance + (now - self._drained) * rate, max(rate / 20, 1.0)
        )
        self._drained = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _put_on_hold(self, hold: _Hold, parcel: Parcel) -> None:
        """Keep a record behind one of its device that is tried again."""
        insort(hold.parcels, parcel, key=_by_number)
        self._held_count += 1

    @property
    def _is_hold_full(self) -> bool:
        """Tell whether no more can be kept behind what is tried again: all have to wait."""
        return self._held_count >= self.settings.buffer.records

    def _send(self, parcel: Parcel, now: float) -> Parcel:
        parcel.sends += 1
        parcel.sent = now
        parcel.refusal = None
        parcel.confirms = False
        parcel.unanswered = len(parcel.messages)
        self._in_flight[parcel] = None
        return parcel

    def next_due(self) -> float | None:
        """Return when there may be more to send, by the event loop's clock (s)."""
        if not self.is_open or self._alone is not None:
            return None
        if self._pause and self._in_flight:
            return None
        now = self._clock()
        if now < self._paused_until:
            return self._paused_until
        due = []
        if self._suspects:
            if now < self._opened + _STEADY:
                due.append(self._opened + _STEADY)
            elif self._in_flight:  # An answer comes first
                return None
            else:
                return now
        if self._retries:
            due.append(self._retries[0][0])
        if self._buffered or self._durable:
            due.append(now + 1 / min(self.settings.drain_rate, 50.0))
        return min(due, default=None)

    # --- answers ------------------------------------------------------------------------

    def confirm(self, parcel: Parcel) -> None:
        """Take note that a message of a record was acknowledged, or written at QoS 0."""
        parcel.unanswered -= 1
        if not parcel.unanswered:
            self._settle(parcel)

    def refuse(self, parcel: Parcel, problem: Problem) -> None:
        """Take note that a message of a record was refused."""
        parcel.refusal = problem
        self.confirm(parcel)

    def refuse_all(self, parcel: Parcel, problem: Problem) -> None:
        """Take note that a record cannot be sent over this connection."""
        parcel.unanswered = 1
        self.refuse(parcel, problem)

    def drop(self, parcel: Parcel, outcome: Outcome) -> None:
        """Drop a record that was about to be sent."""
        self._land(parcel)
        self._finish(parcel, outcome)

    def _land(self, parcel: Parcel) -> None:
        """Take note that a record is no longer under way."""
        del self._in_flight[parcel]
        if self._alone is parcel:
            self._alone = None

    def _settle(self, parcel: Parcel) -> None:
        """Conclude, or try again, now that each message of a record is answered."""
        self._land(parcel)
        refusal = parcel.refusal
        if refusal is None:
            self._finish(
                parcel, Outcome.ACKNOWLEDGED if parcel.confirms else Outcome.SENT
            )
            self._measure(parcel)
            self._is_well(parcel)
        elif refusal is Problem.QUOTA_EXCEEDED and parcel.policy is not Policy.DROP:
            if (now := self._clock()) >= self._paused_until:  # Else of the same burst
                self._pause = min(max(self._pause * 2, 1.0), _LONGEST_PAUSE)
                self._paused_until = now + self._pause
            if parcel.is_held:
                self._push_retry(parcel, self._paused_until)
            else:
                self._lane(parcel).put_back([parcel])
            self._on_change()
        else:
            parcel.tries += 1
            if (
                parcel.policy is Policy.DROP
                or parcel.tries >= self.settings.max_tries
                or parcel.done is not None  # Somebody waits for the answer
                or refusal is Problem.TOO_LARGE
                or any(message.head in self.refused for message in parcel.messages)
            ):
                self._put_aside(parcel, refusal)
            else:
                self._retry_later(parcel)

    def _measure(self, parcel: Parcel) -> None:
        """Measure a record that was delivered."""
        kind = parcel.kind
        if kind is RecordKind.MESSAGE and parcel.tally is not self._tallies[kind]:
            return  # What is said again is no record
        self.meters[kind].add(
            sum([len(message.payload) for message in parcel.messages]),
            parcel.accepted,
            self._clock(),
            acknowledged=parcel.confirms,
        )

    def _is_well(self, parcel: Parcel) -> None:
        """Take note that a record was taken: what was refused is not any more."""
        if not (self._pause or self.refused):
            return
        before = self.problems
        self._pause = 0.0
        for message in parcel.messages:
            self.refused.pop(message.head, None)
        if self.problems != before:
            self._on_change()

    def tell_refused(self, head: bytes, problem: Problem) -> None:
        """Take note that what is no record is refused under a name."""
        if head not in self.refused and len(self.refused) < _MAX_REFUSED_TOPICS:
            self.refused[head] = problem
            self._on_change()

    def tell_taken(self, head: bytes) -> None:
        """Take note that what was refused under a name is not any more."""
        if self.refused.pop(head, None) is not None:
            self._on_change()

    def _retry_later(self, parcel: Parcel) -> None:
        """Send a record again after a while, or after an older one of its device."""
        hold = self._held.get(parcel.device)
        if not parcel.is_held and hold is not None and hold.first < parcel.number:
            self._put_on_hold(hold, parcel)
            return
        self._begin_retry(parcel)
        due = self._clock() + _FIRST_RETRY * 2 ** (parcel.tries - 1)
        self._push_retry(parcel, due)

    def _push_retry(self, parcel: Parcel, due: float) -> None:
        heapq.heappush(self._retries, (due, parcel.number, parcel))

    def _begin_retry(self, parcel: Parcel) -> None:
        """Hold the device's later records back; `is_held` tells that this was done."""
        if not parcel.is_held:
            parcel.is_held = True
            hold = self._held.setdefault(parcel.device, _Hold(parcel.number))
            hold.retries += 1
            hold.first = min(hold.first, parcel.number)

    def _put_aside(self, parcel: Parcel, problem: Problem) -> None:
        """Give a record up, for now: it can be tried again when the user has mended it."""
        parcel.refusal = problem
        for message in parcel.messages:
            if len(self.refused) < _MAX_REFUSED_TOPICS:
                self.refused[message.head] = problem
        self._finish(parcel, Outcome.REFUSED)
        if parcel.policy is not Policy.DROP:
            self._keep_aside(parcel)
        self._on_change()

    def _keep_aside(self, parcel: Parcel) -> None:
        self.set_aside.append(parcel)
        if len(self.set_aside) > MAX_SET_ASIDE:
            oldest = self.set_aside.popleft()
            oldest.refusal = None
            self._forget(oldest)

    def retry_set_aside(self) -> int:
        """Have what was set aside wait again; return how much that is."""
        parcels, self.set_aside = self.set_aside, deque()
        self.refused.clear()
        self._paused_until = 0.0
        for parcel in parcels:
            parcel.tally.refused -= 1
            parcel.outcome = None
            parcel.refusal = None
            parcel.tries = self.settings.max_tries - 1  # The user wants to know
            if (journal := self._journal_of(parcel)) is not None:
                self._stored_records += 1
                self._stored_size += parcel.size
                journal.set_aside(parcel, None)
        self._put_back(parcels)
        self._make_room()
        self._on_change()
        return len(parcels)

    def _put_back(self, parcels: Collection[Parcel]) -> None:
        """Have parcels wait again that waited before."""
        for lane in (self._buffered, self._durable):
            lane.put_back(p for p in parcels if self._lane(p) is lane)

    def _journal_of(self, parcel: Parcel) -> Journal | None:
        """Return what has a record on disk, if it is durable."""
        return self.journal if parcel.policy is Policy.DURABLE else None

    def _lane(self, parcel: Parcel) -> _Lane:
        return self._buffered if self._journal_of(parcel) is None else self._durable

    def _forget(self, parcel: Parcel) -> None:
        """Leave nothing of a record on disk."""
        if self.journal is not None:
            self.journal.delete(parcel)
            if parcel.row is not None:
                self._rows.pop(parcel.row, None)

    def _finish(self, parcel: Parcel, outcome: Outcome) -> None:
        """Count what became of a record, and let those behind it go on."""
        parcel.finish(outcome)
        if (journal := self._journal_of(parcel)) is not None:
            self._stored_records -= 1
            self._stored_size -= parcel.size
            if parcel.refusal is None:
                self._forget(parcel)
            else:
                journal.set_aside(parcel, parcel.refusal)
        if parcel.is_held:
            parcel.is_held = False
            hold = self._held[parcel.device]
            hold.retries -= 1
            if not hold.retries:
                del self._held[parcel.device]
                self._held_count -= len(hold.parcels)
                self._put_back(hold.parcels)

    # --- the end of a connection --------------------------------------------------------

    def close(self, *, is_blamed: bool = False) -> None:
        """Take back what is under way, for the next connection.

        `is_blamed` tells that the destination may have ended the connection since it did not
        like what it was sent.
        """
        self.is_open = False
        now = self._clock()
        alone, self._alone = self._alone, None
        in_flight = sorted(self._in_flight, key=_by_number)
        self._in_flight.clear()
        waiting = []
        for parcel in in_flight:
            if parcel.policy is Policy.DROP and not parcel.confirms:
                self._finish(parcel, Outcome.AWAY)
                continue
            blamed = is_blamed and now - parcel.sent < _BLAMED
            parcel.losses += blamed
            if parcel is alone and blamed:
                parcel.tries += 1
                if parcel.tries >= self.settings.max_tries:
                    self._put_aside(parcel, Problem.REJECTED)
                    continue
            if parcel.losses >= _SUSPICIOUS:
                self._begin_retry(parcel)
                self._suspects.append(parcel)
            elif parcel.is_held:
                self._push_retry(parcel, now)
            else:
                waiting.append(parcel)
        self._suspects = deque(sorted(self._suspects, key=_by_number))
        self._put_back(waiting)
        self._drop_passing()
        self._make_room()

    def _drop_passing(self) -> None:
        """Drop what does not wait for a destination that is away."""
        waiting = list(self._buffered)
        self._buffered.clear()
        self._buffered.size = 0
        for parcel in waiting:
            if parcel.policy is Policy.DROP and not parcel.sends:
                parcel.finish(Outcome.AWAY)
            else:
                self._buffered.put(parcel)

    def give_up(self) -> None:
        """Drop all that is not on disk: there will be no next connection."""
        parcels = [parcel for _, _, parcel in self._retries]
        parcels += self._suspects
        for hold in self._held.values():
            parcels += hold.parcels
        for parcel in parcels:
            parcel.is_held = False
        self._retries.clear()
        self._suspects.clear()
        self._held.clear()
        self._held_count = 0
        self._put_back(parcels)
        while self._buffered:
            self._buffered.take().finish(Outcome.AWAY)

    def expire(self) -> None:
        """Drop what has waited for too long."""
        oldest = self._clock() - self.settings.max_age
        for lane in (self._buffered, self._durable):
            while lane and lane[0].accepted < oldest:
                self._finish(lane.take(), Outcome.EXPIRED)
        self._read_on()

    # --- the disk -----------------------------------------------------------------------

    def _read_on(self) -> None:
        """Have more read of what is on disk only, before memory runs out of it."""
        if (
            self._unread
            and not self._page_wanted
            and len(self._durable) < _LOW
            and self.journal is not None
        ):
            self._page_wanted = True
            self.journal.want_page(self._read_after)

    @override
    def on_opened(self, contents: Contents) -> None:
        if self._is_taken_over:
            self._count_lost(contents)
        else:
            self._is_taken_over = True
            self._take_over(contents)
        if contents.damaged:
            self._on_store(Problem.STORE_CORRUPT)
        self._read_on()

    def _take_over(self, contents: Contents) -> None:
        """Take over what an earlier run left; what is here already goes behind it."""
        if contents.waiting:
            while self._durable:
                self._spill(self._durable.take())
        for name, count in contents.waiting.items():
            kind = RecordKind(name)
            self._tallies[kind].received += count
            self._unread[kind] = self._unread.get(kind, 0) + count
            self._stored_records += count
        self._stored_size += contents.size
        self._earlier = contents.last
        for row in contents.refused:
            parcel = self._parcel(row)
            parcel.outcome = Outcome.REFUSED
            try:
                parcel.refusal = Problem(row.refusal or "")
            except ValueError:
                parcel.refusal = Problem.REJECTED
            parcel.tally.received += 1
            parcel.tally.refused += 1
            self._rows[row.id] = parcel
            self._keep_aside(parcel)

    def _count_lost(self, contents: Contents) -> None:
        """Count what a damaged file cost; what is in memory is written once more.

        What was deleted, and is back, is deleted again, or else delivered once more.
        """
        if (journal := self.journal) is None:
            return
        for number, parcel in self._rows.items():
            if number not in contents.saved or parcel.is_done:
                journal.insert(parcel, is_urgent=True)
        saved: Counter[RecordKind] = Counter()
        size = 0
        for number, (kind, length) in contents.saved.items():
            if number in self._rows or journal.is_deleted(number):
                continue
            if number <= self._read_after:
                journal.delete_row(number)
            else:
                saved[RecordKind(kind)] += 1
                size += length
        for kind in saved.keys() | self._unread.keys():
            written = self._unread.get(kind, 0) - journal.count_spilled(kind)
            self._lose(kind, written - saved[kind])
        self._measure_stored(size)

    def _lose(self, kind: RecordKind, count: int) -> None:
        """Count records that were on disk and cannot be read any more, or are back."""
        if count > 0:
            self._tallies[kind].failed += count
        else:
            self._tallies[kind].received -= count
        self._stored_records -= count
        if left := self._unread.get(kind, 0) - count:
            self._unread[kind] = left
        else:
            self._unread.pop(kind, None)

    def _measure_stored(self, size: int) -> None:
        """Work out how many bytes wait; `size` are those that are on disk only."""
        if (journal := self.journal) is not None:
            parcels = {*self._rows.values(), *journal.inserts()}
            self._stored_size = size + sum(p.size for p in parcels if not p.is_done)

    @override
    def on_written(self, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            if (
                not parcel.spilled
                and not parcel.is_forgotten
                and parcel.row is not None
            ):
                self._rows[parcel.row] = parcel
        self._read_on()

    @override
    def on_page(self, page: Page) -> None:
        if (journal := self.journal) is None:
            return
        self._page_wanted = False
        self._read_after = page.last
        for row in page.rows:
            if row.id not in self._rows:
                parcel = self._rows[row.id] = self._parcel(row)
                if parcel.kind in self._unread:
                    self._unspill(parcel.kind)
                else:  # A deletion did not come about
                    parcel.tally.received += 1
                    self._stored_records += 1
                    self._stored_size += parcel.size
                self._durable.put(parcel)
        if page.is_end:
            for kind, count in tuple(self._unread.items()):
                lost = count - journal.count_spilled(kind)
                if lost > 0:
                    self._lose(kind, lost)
                    self._on_store(Problem.STORE_CORRUPT)
            self._measure_stored(0)
        self._make_room()
        self._on_change()

    @override
    def on_store(self, problem: Problem | None) -> None:
        if problem is not None and self.journal is not None:
            # It need not wait for a disk that it cannot get to.
            spilled = self.journal.spilled()
            for parcel in spilled:
                parcel.spilled = False
                self._unspill(parcel.kind)
            self._durable.put_back(spilled)
        self._make_room()
        self._on_store(problem)

    def _parcel(self, row: Row) -> Parcel:
        """Return a record that was read from disk."""
        now = self._clock()
        waited = max(0.0, self._unix_time(now) - row.accepted)
        kind = RecordKind(row.kind)
        parcel = Parcel(
            kind,
            self._tallies[kind],
            row.device,
            row.messages,
            Policy.DURABLE,
            now - waited,
        )
        parcel.number = next(self._numbers)
        parcel.row = row.id
        # An earlier run may have sent it, and ended before it was acknowledged.
        parcel.sends = int(row.id <= self._earlier)
        return parcel
