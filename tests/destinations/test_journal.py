"""The way to the disk and back, with a real loop, real threads and a real file."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from custom_components.ble_bridge.destinations import (
    delivery as delivery_module,
    journal as journal_module,
)
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.parcels import Parcel
from custom_components.ble_bridge.destinations.policy import Bounds
from custom_components.ble_bridge.destinations.store import StoreError
from custom_components.ble_bridge.records import RecordKind

from .deliveries import Disk, Rig, async_until, numbers_of


@pytest.fixture(name="disk")
async def disk_fixture(tmp_path: Path) -> AsyncIterator[Disk]:
    """Return a disk."""
    disk = Disk(tmp_path / "records.db")
    yield disk
    disk.free.set()
    disk.close()


@pytest.fixture(name="quick", autouse=True)
def quick_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less."""
    monkeypatch.setattr(journal_module, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(journal_module, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(journal_module, "_TIDY", 0.05)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep little in memory."""
    monkeypatch.setattr(delivery_module, "MAX_IN_MEMORY", 10)
    monkeypatch.setattr(delivery_module, "_LOW", 5)
    monkeypatch.setattr(journal_module, "PAGE", 7)


def rows_on(disk: Disk) -> list[int]:
    """Return the numbers of what waits on a disk that is closed, in its order."""
    disk.open()
    page = disk.read(0, 100_000)
    disk.close()
    return [int(row.messages[0].payload.split(b" ")[0]) for row in page.rows]


async def test_held(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged at once never touches the disk, however much there is."""
    monkeypatch.setattr(journal_module, "_HOLD", 0.5)
    rig = Rig(disk)
    await rig.async_open()
    rig.delivery.open()
    for _ in range(200):
        rig.say()
        sent = rig.take()
        await asyncio.sleep(0.004)
        rig.confirm(sent)
    assert disk.written == disk.commits == 0
    rig.say(3)
    sent = rig.take()
    await async_until(lambda: disk.written == 3)  # Nobody answers
    rig.confirm(sent)
    await async_until(lambda: disk.commits == 2)
    await rig.async_close()
    assert rows_on(disk) == []


async def test_young_ones_wait(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for one record does not take with it what came much later."""
    monkeypatch.setattr(journal_module, "_HOLD", 0.6)
    rig = Rig(disk)
    await rig.async_open()
    rig.delivery.open()
    old = rig.say(2)
    rig.take()
    await asyncio.sleep(0.4)
    young = rig.say(2)
    await async_until(lambda: disk.written)
    if disk.written == 2:  # Else this machine was asleep
        assert [p.row is not None for p in old + young] == [True, True, False, False]
        rig.delivery.close()
        rig.say()  # Now that it is urgent, nothing overtakes anything
        await async_until(lambda: disk.written == 5)
    await rig.async_close()
    assert rows_on(disk) == sorted(rows_on(disk))


async def test_urgent(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the destination is away, nothing is held back."""
    monkeypatch.setattr(journal_module, "_HOLD", 1000.0)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(5)
    await async_until(lambda: disk.written == 5)
    assert rig.journal.unwritten == 0
    rig.delivery.open()
    rig.say()
    rig.delivery.close()
    rig.say()
    await async_until(lambda: disk.written == 7)
    await rig.async_close()
    assert rows_on(disk) == [*range(1, 8)]


async def test_fails_and_recovers(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails costs nothing that memory has room for, and all is written later."""
    small(monkeypatch)
    rig = Rig(disk, buffer=Bounds(40, 1 << 20))
    await rig.async_open()
    rig.say(30)
    await async_until(lambda: disk.written == 30)
    disk.fails = True
    rig.say(25)
    await async_until(lambda: rig.journal.failed)
    assert rig.told == [Problem.STORE_FAILED]
    rig.say(5)
    assert rig.tally.overflow == 0
    rig.say(50)
    assert rig.journal.unwritten <= 40
    assert rig.tally.overflow > 0
    await async_until(lambda: len(rig.told) >= 3)
    assert set(rig.told) == {Problem.STORE_FAILED}
    rig.check()
    disk.fails = False
    await async_until(lambda: not rig.journal.failed)
    assert rig.told[-1] is None
    await async_until(lambda: not rig.journal.unwritten)
    waiting = rig.tally.waiting
    await rig.async_close()
    left = rows_on(disk)
    assert len(left) == waiting == 110 - rig.tally.overflow
    assert left[-30:] == [*range(81, 111)]
    rig = Rig(disk)
    await rig.async_open()
    assert sorted(await rig.async_deliver()) == left
    await rig.async_close()


async def test_delivers_without_a_disk(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk cannot take goes out from memory."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    disk.fails = True
    rig.say(30)
    assert rig.delivery.unread == 20
    await async_until(lambda: rig.journal.failed)
    assert rig.delivery.unread == 0
    assert await rig.async_deliver() == [*range(1, 31)]
    disk.fails = False
    await async_until(lambda: not rig.journal.failed)
    await rig.async_close()
    assert rows_on(disk) == []


async def test_damaged_under_way(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is damaged while it is in use is mended; what it cost is counted."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    for _ in range(40):
        rig.say(10, size=1000)
    await async_until(lambda: disk.written == 400)
    kept = numbers_of(list(rig.delivery._durable))
    assert len(kept) == 10
    # All of it into the file, out of the log and out of SQLite's memory
    assert disk._database
    disk._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    disk._database.execute("PRAGMA cache_size = 1")
    disk._database.execute("PRAGMA shrink_memory")
    with disk.path.open("r+b") as file:
        file.seek(4096 * 3)  # Behind the root: the oldest are here
        file.write(b"\xee" * 4096 * 40)
    arrived = await rig.async_deliver()
    assert arrived == sorted(set(arrived))
    assert arrived[:10] == kept
    assert rig.told == [Problem.STORE_CORRUPT]
    assert rig.tally.failed == 400 - len(arrived)
    assert 50 < rig.tally.failed < 300
    assert rig.delivery.stored == (0, 0)
    assert rig.say(5)
    assert await rig.async_deliver() == [*range(401, 406)]
    await rig.async_close()
    assert rows_on(disk) == []


async def test_mended_in_order(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After damage, what was in memory is on disk again, in its place; so is what follows."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(20)
    await async_until(lambda: disk.written == 20)
    rig.delivery.open()
    gone = rig.take(3)
    rig.confirm(gone[:1])  # Is still to be deleted when the damage is found
    rig.delivery.close()
    apply = disk.apply

    def damage(*args: object) -> list[int]:
        disk.close()
        disk.path.write_bytes(b"garbage" * 10_000)
        monkeypatch.setattr(disk, "apply", apply)
        raise StoreError(Problem.STORE_CORRUPT, "database disk image is malformed")

    monkeypatch.setattr(disk, "apply", damage)
    said = rig.say(4)
    await async_until(lambda: disk.written == 33 and not rig.delivery._page_wanted)
    rig.check()
    assert rig.told == [Problem.STORE_CORRUPT]
    assert rig.tally.failed == 10  # What was on disk only
    sizes = [p.size for p in (*rig.delivery._rows.values(), *said)]
    assert rig.delivery.stored == (13, sum(sizes))
    await rig.async_close()
    assert rows_on(disk) == [*range(2, 11), *range(21, 25)]


async def test_what_was_deleted_is_back(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file may bring back what was deleted, which counts as new, or goes."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(30)
    await async_until(lambda: disk.written == 30)
    rig.delivery.open()
    rig.confirm(rig.take(8))
    rig.delivery.close()
    await async_until(lambda: not rig.journal._deletes and rig.journal._task is None)
    # As the file of a minute ago would: two that were sent, one of another kind.
    row = disk.read(0, 1).rows[0]
    await asyncio.to_thread(
        disk.apply,
        [
            row._replace(id=1),
            row._replace(id=2),
            row._replace(id=1000, kind="error"),
        ],
        [],
    )
    rig.journal._damaged = True
    rig.journal._schedule(0.0)
    await async_until(lambda: rig.told)
    rig.check()
    assert rig.tally.failed == 0
    assert rig.tallies[RecordKind.ERROR].received == 1
    rig.delivery.open()
    arrived: list[Parcel] = []
    async with asyncio.timeout(20):
        while rig.delivery.waiting:
            for parcel in rig.take():
                arrived.append(parcel)
                rig.delivery.confirm(parcel)
            await asyncio.sleep(0.01)
    assert numbers_of(arrived)[:22] == [*range(9, 31)]
    assert len(arrived) == 23
    await rig.async_close()
    assert rows_on(disk) == []


async def test_damaged_again_and_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that damages all is no reason to try without pause."""
    rig = Rig(disk)
    await rig.async_open()
    tries = 0

    def fail(*_: object) -> list[int]:
        nonlocal tries
        tries += 1
        raise StoreError(Problem.STORE_CORRUPT, "database disk image is malformed")

    monkeypatch.setattr(journal_module, "FIRST_DELAY", 30.0)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "apply", fail)
        rig.say(3)
        await async_until(lambda: rig.journal.failed)
        await asyncio.sleep(0.1)
        assert tries == 2
    assert rig.told[-1] is Problem.STORE_FAILED
    assert rig.tally.waiting == 3
    await rig.async_close()
    assert rows_on(disk) == [1, 2, 3]


async def test_slow_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that cannot follow costs the oldest that it has not taken, counted."""
    small(monkeypatch)
    monkeypatch.setattr(delivery_module, "MAX_UNWRITTEN", 50)
    rig = Rig(disk)
    await rig.async_open()
    disk.free.clear()
    rig.say(1)
    await async_until(disk.is_busy.is_set)
    for _ in range(30):
        rig.say(10)
    # Those in memory too are not dropped for it
    assert rig.journal.unwritten <= 50 + 10
    assert rig.tally.overflow >= 301 - 1 - 60
    assert rig.tally.waiting == 301 - rig.tally.overflow
    disk.free.set()
    arrived = await rig.async_deliver()
    assert arrived == sorted(set(arrived))
    assert arrived[:10] == [*range(1, 11)]
    assert arrived[-40:] == [*range(262, 302)]
    assert len(arrived) == 301 - rig.tally.overflow
    await rig.async_close()


async def test_acknowledged_while_written(disk: Disk) -> None:
    """What is acknowledged while it is written is deleted once it is there."""
    rig = Rig(disk)
    await rig.async_open()
    disk.free.clear()
    rig.say(4)
    await async_until(disk.is_busy.is_set)
    rig.delivery.open()
    sent = rig.take()
    rig.confirm(sent[:2])
    rig.delivery.refuse_all(sent[2], Problem.TOO_LARGE)
    disk.free.set()
    await async_until(lambda: disk.commits == 2)
    assert rig.delivery._rows.keys() == {3, 4}
    await rig.async_close()
    assert rows_on(disk) == [4]
    assert [row.id for row in disk.open().refused] == [3]


async def test_changed_while_written(disk: Disk) -> None:
    """What is set aside when it is written, and waits again before it is, waits on disk."""
    rig = Rig(disk)
    await rig.async_open()
    rig.delivery.open()
    rig.say(1)
    rig.delivery.refuse_all(rig.take()[0], Problem.TOO_LARGE)
    disk.free.clear()
    await async_until(disk.is_busy.is_set)
    rig.delivery.retry_set_aside()
    rig.check()
    disk.free.set()
    await async_until(lambda: disk.commits == 2)
    rig.delivery.close()
    await rig.async_close()
    assert rows_on(disk) == [1]


async def test_acknowledged_while_failing(disk: Disk) -> None:
    """What is acknowledged while its writing fails is not written, what is left is."""
    rig = Rig(disk)
    await rig.async_open()
    rig.say(2)
    await async_until(lambda: disk.written == 2)
    rig.delivery.open()
    rig.confirm(rig.take(1))
    rig.say(3)
    disk.fails = True
    disk.free.clear()
    await async_until(disk.is_busy.is_set)
    rig.confirm(rig.take(2))
    rig.delivery.close()
    rig.say(2)
    disk.free.set()
    await async_until(lambda: len(rig.told) >= 2)  # Deletions are repeated too
    disk.fails = False
    await async_until(lambda: rig.told[-1] is None)
    await async_until(lambda: not rig.journal._deletes)
    await rig.async_close()
    assert rows_on(disk) == [4, 5, 6, 7]


async def test_close_while_writing(disk: Disk) -> None:
    """What is under way comes to its end, and what was collected meanwhile follows."""
    rig = Rig(disk)
    await rig.async_open()
    disk.free.clear()
    rig.say(3)
    await async_until(disk.is_busy.is_set)
    rig.say(3)
    closing = asyncio.create_task(rig.async_close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    disk.free.set()
    await closing
    assert not disk.is_open
    assert rows_on(disk) == [*range(1, 7)]
    rig.journal.want_page(0)
    assert rig.journal._timer is None


async def test_close_in_vain(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds nobody up; if it comes back, the file is closed then."""
    monkeypatch.setattr(journal_module, "CLOSE_TIMEOUT", 0.05)
    rig = Rig(disk)
    await rig.async_open()
    disk.free.clear()
    rig.say(3)
    await async_until(disk.is_busy.is_set)
    rig.say(1)
    await asyncio.wait_for(rig.async_close(), 5)
    assert rig.told == [Problem.STORE_FAILED]
    disk.free.set()
    await async_until(lambda: not disk.is_open)
    assert rows_on(disk) == [1, 2, 3, 4]


async def test_close_damaged(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that is found at the very end is mended, for there will be no next turn."""
    rig = Rig(disk)
    await rig.async_open()
    rig.say(3)
    await async_until(lambda: disk.written == 3)
    rig.delivery.open()
    rig.say(3)
    apply, calls = disk.apply, 0

    def fail(*args: object) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreError(Problem.STORE_CORRUPT, "database disk image is malformed")
        return apply(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(disk, "apply", fail)
    await rig.async_close()
    assert rows_on(disk) == [*range(1, 7)]
    assert rig.told == [Problem.STORE_CORRUPT]


async def test_opens_late(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that opens late has what an earlier run left go first; all is counted."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(25)
    await rig.async_close()
    disk.fails_to_open = True
    rig = Rig(disk)
    await rig.async_open()
    assert rig.journal.failed
    rig.number = 100
    rig.say(20)
    await async_until(lambda: len(rig.told) >= 2)
    disk.fails_to_open = False
    await async_until(lambda: not rig.journal.failed and not rig.journal.unwritten)
    rig.check()
    assert rig.tally.received == 45
    assert rig.delivery.stored[0] == 45
    assert await rig.async_deliver() == [*range(1, 26), *range(101, 121)]
    await rig.async_close()


async def test_opens_late_by_itself(disk: Disk) -> None:
    """A store that could not be opened is tried again though nobody says anything."""
    rig = Rig(disk)
    await rig.async_open()
    rig.say(2)
    await rig.async_close()
    disk.fails_to_open = True
    rig = Rig(disk)
    await rig.async_open()
    disk.fails_to_open = False
    await async_until(lambda: rig.delivery.unread or rig.delivery.waiting)
    assert await rig.async_deliver() == [1, 2]
    await rig.async_close()


async def test_said_while_opening(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said while the file is opened opens it no second time."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(3)
    await rig.async_close()
    disk.close()
    disk.path.write_bytes(disk.path.read_bytes() + b"garbage")
    rig = Rig(disk)
    opening = asyncio.create_task(rig.async_open())
    await asyncio.sleep(0)
    rig.number = 3
    rig.say(20)
    await opening
    assert not rig.journal.failed
    assert await rig.async_deliver() == [*range(1, 24)]
    assert rig.tally.received == 23
    await rig.async_close()


async def test_damaged_at_start(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved of a damaged file is taken over, though much was said meanwhile."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(300, size=500)
    await rig.async_close()
    data = bytearray(disk.path.read_bytes())
    data[4096 * 10 : 4096 * 20] = bytes(4096 * 10)
    disk.path.write_bytes(data)
    rig = Rig(disk)
    rig.number = 1000
    rig.say(20)
    await rig.async_open()
    assert rig.told == [Problem.STORE_CORRUPT]
    left = rig.tally.received - 20
    assert 200 < left < 300
    arrived = await rig.async_deliver()
    assert arrived == sorted(arrived)
    assert len(arrived) == left + 20
    assert rig.tally.failed == 0
    await rig.async_close()


async def test_flipped_bit(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is damaged on disk is counted as failed, and the size with it."""
    small(monkeypatch)
    rig = Rig(disk)
    await rig.async_open()
    rig.say(40, size=200)
    await async_until(lambda: disk.written == 40)
    await asyncio.to_thread(_flip, disk)
    assert len(await rig.async_deliver()) == 38
    assert rig.tally.failed == 2
    assert rig.told == [Problem.STORE_CORRUPT]
    await rig.async_close()


def _flip(disk: Disk) -> None:
    assert disk._database
    disk._database.execute(
        "UPDATE records SET messages = zeroblob(250) WHERE id IN (20, 30)"
    )


async def test_unexpected(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody thought of costs nothing, and is logged."""
    rig = Rig(disk)
    await rig.async_open()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "apply", lambda *_: 1 / 0)
        rig.say(3)
        await async_until(lambda: rig.journal.failed)
    await async_until(lambda: not rig.journal.failed)
    assert disk.written == 3
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()
    await rig.async_close()


async def test_set_aside_survives(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set aside is so after a restart, the newest of it, and can be retried."""
    monkeypatch.setattr(delivery_module, "MAX_SET_ASIDE", 4)
    rig = Rig(disk)
    await rig.async_open()
    rig.delivery.open()
    rig.say(6)
    sent = rig.take()
    for parcel in sent[:3]:
        rig.delivery.refuse_all(parcel, Problem.TOO_LARGE)
    await async_until(lambda: disk.written == 6)
    for parcel in sent[3:]:
        rig.delivery.refuse_all(parcel, Problem.TOO_LARGE)
    rig.check()
    assert (rig.tally.refused, len(rig.delivery.set_aside)) == (6, 4)
    await async_until(lambda: disk.commits >= 2)
    await rig.async_close()
    disk.open()
    await asyncio.to_thread(disk.apply, [], [], [(6, "what is this")])
    disk.close()
    rig = Rig(disk)
    await rig.async_open()
    assert numbers_of(list(rig.delivery.set_aside)) == [3, 4, 5, 6]
    assert {p.refusal for p in rig.delivery.set_aside} == {
        Problem.TOO_LARGE,
        Problem.REJECTED,
    }
    assert (rig.tally.received, rig.tally.refused, rig.tally.waiting) == (4, 4, 0)
    assert rig.delivery.retry_set_aside() == 4
    rig.check()
    assert await rig.async_deliver() == [3, 4, 5, 6]
    await rig.async_close()
    assert rows_on(disk) == []
    assert disk.open().refused == []


async def test_forgotten_where_room_was_made(disk: Disk) -> None:
    """What was refused for now, and then made room, does not come back as set aside."""
    rig = Rig(disk, store=Bounds(3, 1 << 20))
    await rig.async_open()
    rig.say(3)
    await async_until(lambda: disk.written == 3)
    rig.delivery.open()
    rig.delivery.refuse_all(rig.take(1)[0], Problem.QUOTA_EXCEEDED)
    rig.say(1)
    assert rig.tally.overflow == 1
    await rig.async_close()
    assert rows_on(disk) == [2, 3, 4]
    assert disk.open().refused == []


async def test_flat_memory(disk: Disk) -> None:
    """Thousands wait on disk, and few of them in memory, in and out."""
    rig = Rig(disk)
    await rig.async_open()
    for _ in range(60):
        rig.say(100)
        await async_until(lambda: not rig.journal.unwritten)
        assert len(rig.delivery._durable) <= 1000
        assert len(rig.delivery._rows) <= 1000
    most, count = 0, 0
    rig.delivery.open()
    async with asyncio.timeout(30):
        while rig.delivery.waiting:
            for parcel in rig.take(100):
                rig.delivery.confirm(parcel)
                count += 1
            most = max(most, len(rig.delivery._durable) + len(rig.delivery._rows))
            await asyncio.sleep(0)
    assert count == 6000
    assert most <= 2 * (1000 + journal_module.PAGE)
    await rig.async_close()
