"""What waits for a destination: bounds, order, rates, retries, and who is set aside."""

import asyncio
from pathlib import Path

import pytest

from custom_components.ble_bridge.destinations import delivery as delivery_module
from custom_components.ble_bridge.destinations.delivery import LIVE_RECORDS
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.parcels import Outcome, Parcel
from custom_components.ble_bridge.destinations.policy import Bounds, Policy
from custom_components.ble_bridge.records import RecordKind, Tally

from .deliveries import Disk, Rig, async_until, numbers_of


class Clock:
    """A clock that we set (s); it goes on a little whenever someone looks at it."""

    def __init__(self) -> None:
        """Initialize somewhere."""
        self.now = 1e7

    def __call__(self) -> float:
        """Return the time."""
        self.now += 1e-6
        return self.now


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    """Return a clock."""
    return Clock()


def test_bounds_by_count(clock: Clock) -> None:
    """While the destination is away the newest are kept; the oldest make room."""
    rig = Rig(clock=clock, buffer=Bounds(10, 1 << 20))
    rig.say(25, policy=Policy.BUFFER)
    assert rig.tallies[RecordKind.READING].overflow == 15
    rig.delivery.open()
    assert numbers_of(rig.take()) == [*range(16, 26)]


def test_bounds_by_size(clock: Clock) -> None:
    """Few large ones take the room of many small ones, while it is there too."""
    rig = Rig(clock=clock, buffer=Bounds(100, 5_000))
    rig.say(25, policy=Policy.BUFFER, size=900)
    assert rig.delivery.waiting == 5
    rig.delivery.open()
    rig.say(25, policy=Policy.BUFFER, size=900)
    assert numbers_of(rig.take()) == [*range(46, 51)]


def test_live_burst(clock: Clock) -> None:
    """While the destination is there, a burst may be larger, until it is lost."""
    rig = Rig(clock=clock, buffer=Bounds(10, 1 << 20))
    rig.delivery.open()
    rig.say(500, policy=Policy.BUFFER)
    assert LIVE_RECORDS >= rig.delivery.waiting == 500
    rig.delivery.close()
    rig.check()
    assert rig.delivery.waiting == 10


def test_bounds_by_age(clock: Clock) -> None:
    """What waits for too long is dropped and counted, sent or not."""
    rig = Rig(clock=clock, max_age=100.0)
    rig.say(3, policy=Policy.BUFFER)
    rig.say(2, policy=Policy.DURABLE)
    clock.now += 60
    rig.say(4, policy=Policy.BUFFER)
    clock.now += 60
    rig.delivery.expire()
    rig.check()
    assert rig.tallies[RecordKind.READING].expired == 3
    assert rig.tally.expired == 2
    rig.delivery.open()
    clock.now += 60
    assert rig.take() == []
    assert rig.tallies[RecordKind.READING].expired == 7


async def test_durable_bounds(tmp_path: Path) -> None:
    """What is on disk is bounded by count, size and age too; the oldest go."""
    rig = Rig(Disk(tmp_path / "one.db"), store=Bounds(1500, 1 << 20))
    await rig.async_open()
    for _ in range(40):
        rig.say(100)
        await async_until(lambda: not rig.journal.unwritten)
    await async_until(lambda: rig.delivery.stored[0] <= 1500)
    rig.check()
    assert rig.tally.overflow == 4000 - 1500
    assert await rig.async_deliver() == [*range(2501, 4001)]
    rig.delivery.close()
    for _ in range(12):
        rig.say(10, size=10_000)
        await async_until(lambda: not rig.journal.unwritten)
    rig.check()
    assert rig.delivery.stored[1] <= 1 << 20
    assert 100 < rig.delivery.stored[0] < 120
    await rig.async_close()


async def test_durable_age(tmp_path: Path, clock: Clock) -> None:
    """What an earlier run left ages meanwhile, and a clock that goes back is no harm."""
    rig = Rig(Disk(tmp_path / "one.db"), clock=clock, max_age=100.0)
    await rig.async_open()
    rig.say(3)
    clock.now += 50
    rig.say(3)
    await rig.async_close()
    clock.now += 60
    rig = Rig(rig.disk, clock=clock, max_age=100.0)
    await rig.async_open()
    await async_until(lambda: not rig.delivery.unread)
    rig.delivery.expire()
    rig.check()
    assert (rig.tally.expired, rig.tally.waiting) == (3, 3)
    await rig.async_close()
    clock.now -= 1_000_000
    rig = Rig(rig.disk, clock=clock, max_age=100.0)
    await rig.async_open()
    assert await rig.async_deliver() == [4, 5, 6]
    await rig.async_close()


async def test_what_is_of_a_scanner(tmp_path: Path) -> None:
    """What is on disk only is counted in general: nobody knows whose it was."""
    rig = Rig(Disk(tmp_path / "one.db"))
    await rig.async_open()
    scanner = Tally()
    messages = rig.say(delivery_module.MAX_IN_MEMORY)[0].messages
    scanner.received += 1
    rig.delivery.accept(
        Parcel(RecordKind.ALERT, scanner, "d", messages, Policy.DURABLE, rig.clock())
    )
    assert (scanner.received, scanner.waiting) == (0, 0)
    rig.check()
    await rig.async_close()


def test_drain_rate(clock: Clock) -> None:
    """What waited goes out at a bounded rate, and what is live behind it."""
    rig = Rig(clock=clock, drain_rate=100.0)
    rig.say(400, policy=Policy.BUFFER)
    clock.now += 10
    rig.delivery.open()
    arrived: list[int] = []
    for step in range(300):
        arrived += rig.confirm(rig.take())
        assert len(arrived) <= 100 * step / 100 + 5 + 10
        clock.now += 0.01
        if step < 10:
            rig.say(policy=Policy.BUFFER)
    assert 290 <= len(arrived) <= 305
    while len(arrived) < 410:
        due = rig.delivery.next_due()
        assert due is not None
        assert clock.now < due <= clock.now + 0.1
        clock.now = due
        arrived += rig.confirm(rig.take())
    assert arrived == sorted(arrived)
    assert clock.now < 1e7 + 10 + 5
    assert rig.delivery.next_due() is None
    rig.say(50, policy=Policy.BUFFER)
    assert len(rig.take()) == 50  # Live ones are not held up


def retried(rig: Rig, clock: Clock, seconds: float = 1000.0) -> list[Parcel]:
    """Let time pass until something is sent."""
    end = clock.now + seconds
    while clock.now < end:
        if sent := rig.take():
            return sent
        due = rig.delivery.next_due()
        if due is None:
            return []
        assert due > clock.now  # Else the loop would not come to rest
        clock.now = min(due, end)
    return []


def test_retried(clock: Clock) -> None:
    """A refused record is sent again after growing delays; its device waits, others not."""
    rig = Rig(clock=clock, max_tries=4)
    rig.delivery.open()
    first, *_ = rig.say(policy=Policy.BUFFER, device="a")
    assert rig.take() == [first]
    rig.delivery.refuse(first, Problem.REJECTED)
    rig.say(3, policy=Policy.BUFFER, device="a")
    other = rig.say(2, policy=Policy.BUFFER, device="b")
    sent = rig.take()
    assert sent == other
    rig.confirm(sent)
    delays = []
    for _ in range(2):
        before = clock.now
        assert retried(rig, clock) == [first]
        assert first.sends > 1
        delays.append(clock.now - before)
        rig.delivery.refuse(first, Problem.REJECTED)
        rig.check()
    assert delays == pytest.approx([0.5, 1.0], abs=1e-3)
    assert retried(rig, clock) == [first]
    assert rig.delivery.problems == set()
    rig.confirm([first])
    assert numbers_of(rig.take()) == [2, 3, 4]


def test_set_aside(clock: Clock) -> None:
    """What is refused too often is set aside; its topic is known then, until it works."""
    rig = Rig(clock=clock, max_tries=3)
    rig.delivery.open()
    first, second, third = rig.say(3, policy=Policy.BUFFER, device="a")
    assert rig.take() == [first, second, third]
    rig.confirm([third])
    for parcel in (first, second):
        rig.delivery.refuse(parcel, Problem.NOT_AUTHORIZED)
    rig.check()
    for _ in range(2):  # The second waits for the first
        assert retried(rig, clock) == [first]
        rig.delivery.refuse(first, Problem.NOT_AUTHORIZED)
        rig.check()
    assert rig.delivery.problems == {Problem.NOT_AUTHORIZED}
    assert rig.changes == 1
    assert rig.take() == [second]
    rig.delivery.refuse(second, Problem.NOT_AUTHORIZED)  # At once
    rig.check()
    assert list(rig.delivery.set_aside) == [first, second]
    assert [p.refusal for p in (first, second)] == [Problem.NOT_AUTHORIZED] * 2
    (fourth,) = rig.say(policy=Policy.BUFFER, device="a")
    assert rig.delivery.retry_set_aside() == 2
    rig.check()
    assert rig.delivery.problems == set()
    sent = rig.take()
    assert sent == [first, second, fourth]
    rig.delivery.refuse_all(first, Problem.TOO_LARGE)  # There is no use in trying again
    assert rig.delivery.problems == {Problem.TOO_LARGE}
    rig.confirm([second])
    assert rig.delivery.problems == set()
    rig.confirm([fourth])
    assert rig.delivery.retry_set_aside() == 1
    assert rig.confirm(rig.take()) == [1]
    assert rig.delivery.waiting == 0


def test_set_aside_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest hundred are kept, and as many topics as anyone can mend."""
    monkeypatch.setattr(delivery_module, "_MAX_REFUSED_TOPICS", 120)
    rig = Rig(clock=clock)
    rig.delivery.open()
    for index in range(150):
        rig.say(policy=Policy.BUFFER, device=f"{index}")
    for parcel in rig.take():
        rig.delivery.refuse_all(parcel, Problem.TOO_LARGE)
    assert numbers_of(list(rig.delivery.set_aside)) == [*range(51, 151)]
    assert len(rig.delivery.refused) == 120
    assert rig.tallies[RecordKind.READING].refused == 150
    assert rig.delivery.retry_set_aside() == 100
    rig.check()


def test_order_of_what_was_under_way(clock: Clock) -> None:
    """Whatever is refused of a device's records, they go out in their order."""
    rig = Rig(clock=clock)
    rig.delivery.open()
    parcels = rig.say(6, policy=Policy.BUFFER)
    rig.take()
    for parcel in (parcels[3], parcels[1], parcels[4], parcels[2]):
        rig.delivery.refuse(parcel, Problem.REJECTED)
    rig.confirm([parcels[0], parcels[5]])
    rig.say(1, policy=Policy.BUFFER)
    arrived: list[int] = []
    while sent := retried(rig, clock):
        arrived += rig.confirm(sent)
    assert sorted(arrived) == [2, 3, 4, 5, 7]
    assert [n for n in arrived if n != 4] == [2, 3, 5, 7]  # The first one refused
    rig.say(4, policy=Policy.BUFFER)
    sent = rig.take()
    for parcel in sent:
        rig.delivery.refuse(parcel, Problem.REJECTED)
    rig.delivery.close()
    rig.check()
    rig.say(1, policy=Policy.BUFFER)
    rig.delivery.open()
    arrived = []
    while sent := retried(rig, clock):
        arrived += rig.confirm(sent)
    assert arrived == [8, 9, 10, 11, 12]


def test_no_more_is_held_than_may_wait(clock: Clock) -> None:
    """Behind one that is tried again, nothing is dropped that could have waited."""
    rig = Rig(clock=clock, buffer=Bounds(20, 1 << 20))
    rig.delivery.open()
    (first,) = rig.say(policy=Policy.BUFFER)
    rig.take()
    rig.delivery.refuse(first, Problem.REJECTED)
    rig.say(100, policy=Policy.BUFFER)
    rig.say(1, policy=Policy.BUFFER, device="b")
    assert rig.take() == []
    rig.check()
    due = rig.delivery.next_due()
    assert due is not None
    assert due > clock.now
    assert rig.confirm(retried(rig, clock)) == [1]
    assert numbers_of(rig.take()) == [*range(2, 103)]
    assert rig.tallies[RecordKind.READING].overflow == 0


def test_quota(clock: Clock) -> None:
    """A quota that is used up is a pause for all, longer each time, until it works."""
    rig = Rig(clock=clock)
    rig.delivery.open()
    rig.say(6, policy=Policy.BUFFER)
    sent = rig.take(3)
    pauses = []
    for _ in range(9):
        for parcel in sent:
            rig.delivery.refuse(parcel, Problem.QUOTA_EXCEEDED)
        assert rig.delivery.problems == {Problem.QUOTA_EXCEEDED}
        assert rig.take() == []
        before = clock.now
        sent = retried(rig, clock)
        assert numbers_of(sent) == [1]  # One tries for all
        assert rig.delivery.next_due() is None
        pauses.append(clock.now - before)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=1e-3)
    changes = rig.changes
    rig.confirm(sent)
    assert rig.delivery.problems == set()
    assert rig.changes == changes + 1
    assert numbers_of(rig.take()) == [2, 3, 4, 5, 6]
    rig.delivery.close()
    rig.delivery.open()
    assert numbers_of(rig.take()) == [2, 3, 4, 5, 6]


def test_quota_for_what_is_tried_again(clock: Clock) -> None:
    """A record that is tried again does not wait for itself when the quota is used up."""
    rig = Rig(clock=clock)
    rig.delivery.open()
    (first,) = rig.say(policy=Policy.BUFFER)
    rig.take()
    rig.delivery.refuse(first, Problem.REJECTED)
    rig.say(2, policy=Policy.BUFFER)
    assert retried(rig, clock) == [first]
    rig.delivery.refuse(first, Problem.QUOTA_EXCEEDED)
    rig.check()
    assert retried(rig, clock) == [first]
    rig.confirm([first])
    assert numbers_of(rig.take()) == [2, 3]


def lose(rig: Rig) -> None:
    """Lose the connection, as if for what was sent."""
    rig.delivery.close(is_blamed=True)
    rig.check()


def test_suspects(clock: Clock) -> None:
    """What may have ended the connection is sent alone, and set aside in the end."""
    rig = Rig(clock=clock, max_tries=3)
    killer, *innocent = rig.say(4, policy=Policy.BUFFER, device="k")
    for _ in range(2):
        rig.delivery.open()
        assert rig.take() == [killer, *innocent]
        lose(rig)
    arrived: list[int] = []
    sessions = 0
    while rig.delivery.waiting:
        rig.delivery.open()
        sessions += 1
        assert sessions < 10
        opened = clock.now
        rig.say(2, policy=Policy.BUFFER, device="other")
        live = rig.take()
        assert {parcel.device for parcel in live} == {"other"}
        # What is due while others are under way is no reason to ask again and again
        clock.now = opened + 11
        assert rig.take() == []
        assert rig.delivery.next_due() is None
        arrived += rig.confirm(live)
        while rig.delivery.waiting:
            due = rig.delivery.next_due()
            assert due is not None
            clock.now = max(clock.now, due)
            sent = rig.take()
            assert len(sent) == 1  # Alone
            assert rig.delivery.next_due() is None
            rig.say(policy=Policy.BUFFER, device="other")
            assert rig.take() == []
            if sent == [killer]:
                lose(rig)
                break
            arrived += rig.confirm(sent)
            arrived += rig.confirm(rig.take())
    assert sessions == 4
    assert list(rig.delivery.set_aside) == [killer]
    assert killer.refusal is Problem.REJECTED
    assert [n for n in arrived if n <= 4] == [2, 3, 4]
    assert rig.tallies[RecordKind.READING].refused == 1


def test_suspects_cause_no_rush(clock: Clock) -> None:
    """While a suspect waits for what is under way, nothing is due, however late it is."""
    rig = Rig(clock=clock)
    rig.say(policy=Policy.BUFFER, device="suspect")
    for _ in range(2):
        rig.delivery.open()
        rig.take()
        lose(rig)
    rig.delivery.open()
    clock.now += 9.9
    retry, answered = rig.say(2, policy=Policy.BUFFER, device="a")
    rig.take()
    rig.delivery.refuse(retry, Problem.REJECTED)
    rig.confirm([answered])
    under_way = rig.say(policy=Policy.BUFFER, device="b")
    assert rig.take() == under_way
    clock.now += 5
    assert rig.take() == []
    assert rig.delivery.next_due() is None
    rig.confirm(under_way)
    due = rig.delivery.next_due()
    assert due is not None
    assert due <= clock.now
    assert rig.confirm(rig.take()) == [1]
    assert rig.confirm(rig.take()) == [2]


def test_suspects_in_a_short_session(clock: Clock) -> None:
    """Suspects wait for a connection that holds; one lost without blame is no proof."""
    rig = Rig(clock=clock)
    (first,) = rig.say(policy=Policy.BUFFER)
    for _ in range(2):
        rig.delivery.open()
        assert rig.take() == [first]
        lose(rig)
    for _ in range(8):
        rig.delivery.open()
        assert rig.take() == []
        assert rig.delivery.next_due() == pytest.approx(clock.now + 10, abs=1e-3)
        clock.now += 5
        lose(rig)
    rig.delivery.open()
    clock.now += 10
    assert rig.take() == [first]
    rig.delivery.close()
    assert first.tries == 0
    rig.delivery.open()
    clock.now += 10
    assert rig.take() == [first]
    clock.now += 5  # Not for this one: it was long ago
    lose(rig)
    assert first.tries == 0
    rig.delivery.open()
    clock.now += 10
    assert rig.take() == [first]
    rig.delivery.drop(first, Outcome.EXPIRED)
    rig.check()
    assert rig.delivery.waiting == 0
    rig.say(policy=Policy.BUFFER)
    assert numbers_of(rig.take()) == [2]


def test_dropped(clock: Clock) -> None:
    """What is not to wait is dropped and counted: away, under way, or refused."""
    rig = Rig(clock=clock)
    tally = rig.tallies[RecordKind.CONNECTIVITY]
    rig.say(2, policy=Policy.DROP)
    assert tally.away == 2
    rig.delivery.open()
    rig.say(5, policy=Policy.DROP)
    sent = rig.take(4)
    sent[0].confirms = sent[1].confirms = False
    rig.confirm(sent[:1])
    assert tally.sent == 1
    rig.delivery.refuse(sent[2], Problem.NOT_AUTHORIZED)
    assert (tally.refused, len(rig.delivery.set_aside)) == (1, 0)
    rig.delivery.close()
    rig.check()
    assert tally.away == 4  # One under way at QoS 0, one that was not sent
    rig.delivery.open()
    assert rig.take() == [sent[3]]
    sent[3].done = asyncio.Future(loop=asyncio.new_event_loop())
    rig.confirm([sent[3]])
    assert sent[3].done.result() is Outcome.ACKNOWLEDGED
    sent[3].done.get_loop().close()


def test_whole(clock: Clock) -> None:
    """A record counts when each of its messages is answered, and none is refused."""
    rig = Rig(clock=clock)
    rig.delivery.open()
    (parcel,) = rig.say(policy=Policy.BUFFER, messages=3)
    rig.take()
    rig.delivery.confirm(parcel)
    rig.delivery.refuse(parcel, Problem.REJECTED)
    assert rig.delivery.waiting == 1
    rig.delivery.confirm(parcel)
    assert (parcel.is_done, parcel.tries) == (False, 1)
    assert retried(rig, clock) == [parcel]
    rig.delivery.confirm(parcel)
    rig.delivery.confirm(parcel)
    assert not parcel.is_done
    rig.delivery.close()
    rig.delivery.open()
    assert rig.take() == [parcel]
    rig.confirm([parcel])
    assert rig.tallies[RecordKind.READING].acknowledged == 1


async def test_give_up(tmp_path: Path, clock: Clock) -> None:
    """At the end what is in memory only is dropped; what is on disk waits there."""
    rig = Rig(Disk(tmp_path / "one.db"), clock=clock)
    await rig.async_open()
    rig.delivery.open()
    for policy in (Policy.BUFFER, Policy.DURABLE):
        for device in "abc":
            rig.say(3, policy=policy, device=f"{policy}{device}")
    sent = rig.take(9)
    for parcel in sent[::3]:
        rig.delivery.refuse(parcel, Problem.REJECTED)
    rig.take()
    lose(rig)
    rig.delivery.open()
    rig.take()
    lose(rig)
    assert rig.delivery._retries
    assert rig.delivery._suspects
    await rig.async_close()
    assert rig.tallies[RecordKind.READING].away == 9
    assert (rig.tally.waiting, rig.delivery.stored[0]) == (9, 9)
    rig = Rig(rig.disk)
    await rig.async_open()
    assert await rig.async_deliver() == [*range(10, 19)]
    await rig.async_close()


def test_no_time_is_due_for_nothing(clock: Clock) -> None:
    """Where there is nothing to send, or no connection, there is nothing to wait for."""
    rig = Rig(clock=clock)
    assert rig.delivery.next_due() is None
    rig.say(policy=Policy.BUFFER)
    assert rig.delivery.next_due() is None
    assert rig.delivery.take() is None
    rig.delivery.open()
    assert rig.delivery.next_due() == pytest.approx(clock.now + 0.02, abs=1e-3)
    sent = rig.take()
    assert rig.delivery.next_due() is None
    rig.confirm(sent)
    assert rig.tallies[RecordKind.READING].acknowledged == 1


async def test_retry_keeps_bounds(tmp_path: Path, clock: Clock) -> None:
    """What waits again may not be more than what may wait."""
    rig = Rig(Disk(tmp_path / "one.db"), clock=clock, store=Bounds(5, 1 << 20))
    await rig.async_open()
    rig.delivery.open()
    rig.say(5)
    for parcel in rig.take():
        rig.delivery.refuse_all(parcel, Problem.TOO_LARGE)
    rig.say(3)
    rig.delivery.retry_set_aside()
    rig.check()
    assert rig.delivery.stored[0] == 5
    assert numbers_of(rig.take()) == [4, 5, 6, 7, 8]
    await rig.async_close()
