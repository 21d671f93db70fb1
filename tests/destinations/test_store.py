"""Records on disk, on a real disk, with real damage: what was committed is there."""

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from typing import Final

from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from custom_components.ble_bridge.destinations import store as store_module
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.parcels import Message
from custom_components.ble_bridge.destinations.store import (
    MAX_REFUSED,
    RecordStore,
    Row,
    StoreError,
    decode_messages,
    encode_messages,
)

KINDS: Final = ("alert", "error")
ROOT: Final = Path(__file__).parents[2]
PAGE: Final = 4096

messages_strategy = st.lists(
    st.builds(
        Message,
        # The head of MQTT has its own length; subjects do not, and lines have none.
        st.binary(max_size=300).map(lambda topic: len(topic).to_bytes(2) + topic)
        | st.binary(max_size=300),
        st.binary(max_size=5000),
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
# Surrogates too: a name comes from outside, and what it contains is not for us to choose.
text_strategy = st.text(st.characters(), max_size=50)
row_strategy = st.builds(
    Row,
    st.sampled_from(KINDS),
    text_strategy,
    st.floats(0.5, 1e11),
    messages_strategy,
    st.just(0),
    st.none(),
)


def row(number: int, size: int = 40, device: str = "device") -> Row:
    """Return a record; its payload tells its number."""
    payload = b"%d " % number + b"x" * size
    return Row("alert", device, 1e9 + number, (Message(b"\0\1t", payload, 1),))


def number_of(found: Row) -> int:
    """Return the number of such a record."""
    return int(found.messages[0].payload.split(b" ")[0])


def read_all(store: RecordStore, limit: int = 100) -> list[Row]:
    """Return all records that wait, read page by page."""
    rows: list[Row] = []
    after = 0
    while True:
        page = store.read(after, limit)
        rows += page.rows
        assert page.last >= after
        after = page.last
        if page.is_end:
            return rows


@pytest.fixture(name="path")
def path_fixture(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "records" / "ble_bridge.one.db"


@pytest.fixture(name="store")
def store_fixture(path: Path) -> Iterator[RecordStore]:
    """Return a store that is open."""
    store = RecordStore(path, KINDS)
    store.open()
    yield store
    store.close()


def reopened(path: Path) -> RecordStore:
    """Return a store that was just opened."""
    store = RecordStore(path, KINDS)
    store.open()
    return store


def filled(path: Path, count: int, size: int = 40) -> bytes:
    """Make a file with records in it; return its bytes."""
    store = reopened(path)
    store.apply([row(number) for number in range(1, count + 1)], [])
    if size != 40:
        store.apply(
            [row(number, size) for number in range(1, count + 1)],
            list(range(1, count + 1)),
        )
    store.close()
    assert not path.with_name(f"{path.name}-wal").exists()
    return path.read_bytes()


# --- what is written is read ------------------------------------------------------------


@given(messages=messages_strategy)
def test_messages_round_trip(messages: tuple[Message, ...]) -> None:
    """Messages come back as they were, and half of them are no messages."""
    data = encode_messages(messages)
    assert decode_messages(data) == messages
    for end in range(0, len(data), max(1, len(data) // 20)):
        try:
            part = decode_messages(data[:end])
        except ValueError:
            continue
        assert part == messages[: len(part)]  # It ends where a message ends
        assert len(part) < len(messages)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(row_strategy, max_size=6))
def test_round_trip(rows: list[Row], tmp_path: Path) -> None:
    """Records come back as they were, in their order, after a restart too."""
    path = tmp_path / "round_trip.db"
    store = reopened(path)
    numbers = store.apply(rows, [])
    expected = [r._replace(id=number) for r, number in zip(rows, numbers, strict=True)]
    assert read_all(store, 2) == expected
    store.close()
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert sum(contents.waiting.values()) == len(rows)
    assert contents.size == sum(r.size for r in rows)
    assert contents.last == (numbers[-1] if numbers else 0)
    assert not contents.damaged
    assert read_all(store, 3) == expected
    store.remove()
    assert list(tmp_path.glob("round_trip*")) == []


def test_all_or_none(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in its midst leaves nothing behind, and its numbers are used again."""
    first = store.apply([row(1), row(2)], [])
    bad = row(4)._replace(accepted=None)  # type: ignore[arg-type]
    with pytest.raises((StoreError, TypeError)):
        store.apply([row(3), bad], first)
    assert [number_of(found) for found in read_all(store)] == [1, 2]
    assert store.apply([row(3)], first) == [3]
    assert [number_of(found) for found in read_all(store)] == [3]


def test_order_and_pages(store: RecordStore) -> None:
    """Pages hold the oldest first, each record once, and the last one says so."""
    store.apply([row(number) for number in range(10)], [])
    store.apply([], [2, 5])
    page = store.read(0, 4)
    assert ([r.id for r in page.rows], page.last, page.is_end) == (
        [1, 3, 4, 6],
        6,
        False,
    )
    page = store.read(page.last, 4)
    assert ([r.id for r in page.rows], page.last, page.is_end) == (
        [7, 8, 9, 10],
        10,
        False,
    )
    assert store.read(10, 4) == ([], 10, True)


def test_number_is_kept(store: RecordStore) -> None:
    """A record that has a number keeps it; a new one's is used but once."""
    assert store.apply([row(1), row(2), row(3)], []) == [1, 2, 3]
    store.apply([], [2, 3])
    assert store.apply([row(2)._replace(id=2), row(4)], []) == [2, 4]
    assert [number_of(found) for found in read_all(store)] == [1, 2, 4]


def test_set_aside(store: RecordStore, path: Path) -> None:
    """What was set aside does not wait, and is there with why; the oldest make room."""
    count = MAX_REFUSED + 20
    numbers = store.apply([row(number) for number in range(count)], [])
    store.apply(
        [row(count)._replace(refusal="rejected")],
        [],
        [(number, "not_authorized") for number in numbers[1:]],
    )
    assert [found.id for found in read_all(store)] == [1]
    store.close()
    contents = store.open()
    assert contents.waiting == {"alert": 1}
    assert [found.id for found in contents.refused] == [*numbers, count + 1][
        -MAX_REFUSED:
    ]
    assert [found.refusal for found in contents.refused[-2:]] == [
        "not_authorized",
        "rejected",
    ]
    store.apply([], [], [(count, None)])
    assert [found.id for found in read_all(store)] == [1, count]
    store.close()
    with sqlite3.connect(path) as database:  # Nothing is kept that nobody will see
        (left,) = database.execute("SELECT COUNT(*) FROM records").fetchone()
    assert left == 1 + MAX_REFUSED


def test_unknown_kinds(path: Path) -> None:
    """What another version wrote of a kind that we do not know is not kept."""
    store = RecordStore(path, (*KINDS, "thing"))
    store.open()
    store.apply([row(1), row(2)._replace(kind="thing"), row(3)], [])
    store.apply([row(4)._replace(kind="thing", refusal="rejected")], [])
    store.close()
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert contents.damaged
    assert contents.waiting == {"alert": 2}
    assert contents.refused == []
    assert [number_of(found) for found in read_all(store)] == [1, 3]
    store.close()


def test_files(store: RecordStore, path: Path) -> None:
    """Nobody else may read them, and all of them are removed."""
    old = os.umask(0)
    try:
        store.apply([row(1)], [])
        other = path.with_name("ble_bridge.two.db")
        other.touch()
        files = sorted(path.parent.glob(f"{path.name}*"))
        assert [file.name for file in files] == [path.name, f"{path.name}-wal"]
        store.close()
        path.write_bytes(b"garbage" * 1000)
        assert store.open().damaged
        files = sorted(path.parent.glob(f"{path.name}*"))
        assert path.with_name(f"{path.name}.damaged") in files
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(old)
    path.with_name(f"{path.name}.damaged-wal").mkdir()  # Not ours: left, not fatal
    store.remove()
    assert sorted(file.name for file in path.parent.iterdir()) == [
        f"{path.name}.damaged-wal",
        other.name,
    ]
    with pytest.raises(StoreError):
        store.apply([row(1)], [])


def test_shrinks(store: RecordStore, path: Path) -> None:
    """A long outage takes no room for ever, though something still waits."""
    numbers = store.apply([row(number, 5000) for number in range(1500)], [])
    store.apply([], [], [(numbers[-1], "rejected")])
    store.close()
    assert path.stat().st_size > 7_000_000
    store.open()
    for start in range(0, 1498, 100):
        store.apply([], numbers[start : min(start + 100, 1498)])
    sizes = [file.stat().st_size for file in path.parent.glob(f"{path.name}*")]
    assert sum(sizes) < 3_500_000
    assert [number_of(found) for found in read_all(store)] == [1498]
    store.apply([], [numbers[-2]])
    store.close()
    assert path.stat().st_size < 3_500_000
    assert [found.id for found in store.open().refused] == [1500]


def test_migrates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier version is brought to this one, whole or not at all."""
    filled(path, 5)
    later = (
        *store_module.MIGRATIONS,
        "ALTER TABLE records ADD COLUMN note TEXT; CREATE TABLE more (id INTEGER)",
    )
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", later)
        with pytest.MonkeyPatch.context() as insert:
            insert.setattr(RecordStore, "_insert", _insert_named)
            store = reopened(path)
            store.apply([row(6)], [])
            assert [number_of(found) for found in read_all(store)] == [1, 2, 3, 4, 5, 6]
            store.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="later version") as caught:
        RecordStore(path, KINDS).open()
    assert caught.value.problem is Problem.STORE_FAILED
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@staticmethod  # type: ignore[misc]
def _insert_named(database: sqlite3.Connection, rows: list[Row]) -> None:
    """Insert as a version with one more column would."""
    for found in rows:
        data = encode_messages(found.messages)
        database.execute(
            "INSERT INTO records (id, kind, device, accepted, size, messages, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                found.id,
                found.kind,
                found.device.encode(),
                found.accepted,
                found.size,
                data,
                store_module._checksum(found, data),
            ),
        )


# --- the disk fails ---------------------------------------------------------------------


CHILD: Final = textwrap.dedent(
    """
    import os, resource, signal, sys, types
    from pathlib import Path
    for name in ("custom_components", "custom_components.ble_bridge"):
        sys.modules[name] = types.ModuleType(name)  # Without Home Assistant, it is quick
        sys.modules[name].__path__ = [name.replace(".", "/")]
    from custom_components.ble_bridge.destinations.parcels import Message
    from custom_components.ble_bridge.destinations.store import *

    def row(number, size=40):
        payload = b"%d " % number + b"x" * size
        return Row("alert", "device", 1e9 + number, (Message(b"\\0\\1t", payload, 1),))

    store = RecordStore(Path(sys.argv[1]), ("alert", "error"))
    """
)


def child(path: Path, script: str) -> subprocess.Popen[str]:
    """Run a script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(script), str(path)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def output_of(path: Path, script: str) -> list[str]:
    """Return what a script says that ends by itself."""
    process = child(path, script)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.split()


def test_killed(path: Path) -> None:
    """What was reported as written is there, however often the process is killed."""
    chance = random.Random(4)
    written: set[int] = set()
    deleted: set[int] = set()
    for _ in range(6):
        process = child(
            path,
            """
            contents = store.open()
            at = contents.last
            while True:
                numbers = store.apply([row(at + n, 900) for n in range(1, 8)],
                                      [at - 10] if at > 10 else [])
                if at > 10:
                    print("-", at - 10)
                print("+", *numbers, flush=True)
                at = numbers[-1]
            """,
        )
        assert process.stdout
        line, batches = "", chance.randrange(1, 60)
        while batches:
            line = process.stdout.readline()
            assert line.endswith("\n")
            batches -= 1
            _note(line, written, deleted)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                _note(line, written, deleted)
        process.wait()
        process.stdout.close()
        store = RecordStore(path, KINDS)
        assert not store.open().damaged
        rows = read_all(store)
        there = {found.id for found in rows}
        assert all(number_of(found) == found.id for found in rows)
        assert written - deleted - there <= {max(there) - 10 - 7, max(there) - 17}
        assert not deleted & there
        store.close()
        # What was committed and not reported any more
        deleted |= written - there
        written |= there


def _note(line: str, written: set[int], deleted: set[int]) -> None:
    sign, *numbers = line.split()
    (written if sign == "+" else deleted).update(map(int, numbers))


def test_disk_full(path: Path) -> None:
    """A full disk costs nothing that is there, and takes more when it has room again."""
    said = output_of(
        path,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        written, failures = 0, 0
        while failures < 3:
            try:
                store.apply([row(written + 1, 9000), row(written + 2, 9000)], [])
                written += 2
            except StoreError as err:
                failures += 1
                print(err.problem)
        page = store.read(0, 1000)
        print(len(page.rows) == written > 10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        print(store.apply([row(written + 1, 9000)], [1]) == [written + 1])
        store.close()
        print(written)
        """,
    )
    assert said[:5] == ["store_failed"] * 3 + ["True", "True"]
    store = RecordStore(path, KINDS)
    assert not store.open().damaged
    assert [number_of(r) for r in read_all(store)] == [*range(2, int(said[5]) + 2)]
    store.close()


def test_full_while_mending(path: Path) -> None:
    """A damaged file stays what it is until what can be read of it is written."""
    good = filled(path, 300, 3000)
    pages = len(good) // PAGE
    damaged = bytearray(good)
    damaged[PAGE * (pages // 2) :] = b"\xff" * (len(good) - PAGE * (pages // 2))
    path.write_bytes(damaged)
    said = output_of(
        path,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                store.open()
            except StoreError as err:
                print(err.problem)
        for _ in range(2):
            try:
                store.recover()
            except StoreError as err:
                print(err.problem)
        """,
    )
    assert said == ["store_failed"] * 5
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert contents.damaged
    assert len(read_all(store)) == contents.waiting["alert"] == len(contents.saved)
    assert contents.waiting["alert"] > 50
    store.close()


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("moved", range(3))
def test_killed_while_mending(path: Path, moved: int, is_restarted: bool) -> None:
    """Wherever recovery is cut off, the next try or the next start completes it."""
    filled(path, 50)
    store = reopened(path)
    store.apply([row(51)], [])
    names = ["-wal", ""]
    files = {name: path.with_name(path.name + name).read_bytes() for name in names}
    store.close()
    for name, data in files.items():
        path.with_name(path.name + name).write_bytes(data)
    store = RecordStore(path, KINDS)
    replace, count = Path.replace, 0

    def cut_off(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > moved:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(StoreError):
            store.recover()
    if is_restarted:
        store = RecordStore(path, KINDS)
        store.open()
    else:
        assert store.recover().damaged
    assert [number_of(found) for found in read_all(store)] == [*range(1, 52)]
    assert not path.with_name(f"{path.name}.saved").exists()
    store.close()


def test_read_only(path: Path) -> None:
    """A file or directory that cannot be written to is a failure, not damage."""
    good = filled(path, 3)
    path.parent.chmod(0o555)
    path.chmod(0o444)
    path.parent.parent.chmod(0o755)
    for parent in path.parent.parent.parents:
        if parent.owner() != "root" or os.geteuid() == 0:
            if parent == Path("/"):
                break
            parent.chmod(parent.stat().st_mode | 0o055)
    script = """
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        for name in (store.path, store.path.with_name("other.db"),
                     store.path.parent / "a" / "b.db"):
            try:
                RecordStore(name, ("alert",)).open()
            except StoreError as err:
                print(err.problem)
        """
    try:
        assert output_of(path, script) == ["store_failed"] * 3
        path.parent.chmod(0o777)
        assert output_of(path, script)[0] == "store_failed"
    finally:
        path.parent.chmod(0o755)
        path.chmod(0o600)
    assert path.read_bytes() == good


def test_locked(store: RecordStore, path: Path) -> None:
    """A file that somebody else has open is left alone until they are done."""
    store.apply([row(1)], [])
    script = """
        try:
            print(store.open().waiting["alert"])
        except StoreError as err:
            print(err.problem)
        """
    assert output_of(path, script) == ["store_failed"]
    other = RecordStore(path, KINDS)  # In the same process too
    with pytest.raises(StoreError):
        other.open()
    assert output_of(path, script) == ["store_failed"]
    store.apply([row(2)], [])
    store.close()
    assert output_of(path, script) == ["2"]


def test_something_in_its_place(tmp_path: Path) -> None:
    """A directory in its place is a failure, and is left alone."""
    path = tmp_path / "records.db"
    path.mkdir()
    with pytest.raises(StoreError) as caught:
        RecordStore(path, KINDS).open()
    assert caught.value.problem is Problem.STORE_FAILED
    assert path.is_dir()


# --- damage -----------------------------------------------------------------------------


def test_flipped_bits_in_payload(path: Path) -> None:
    """A record with a flipped bit is left out, reported, and deleted; others stay."""
    good = filled(path, 60, 400)
    data = bytearray(good)
    hurt = {7, 30, 31}
    for number in hurt:
        at = data.index(b"%d xxxx" % number)
        data[at + 100] ^= 0x10
    path.write_bytes(data)
    store = RecordStore(path, KINDS)
    assert store.open().waiting == {"alert": 60}  # SQLite does not know yet
    expected = [number for number in range(1, 61) if number not in hurt]
    assert [number_of(found) for found in read_all(store, 7)] == expected
    store.close()
    assert store.open().waiting == {"alert": 60 - len(hurt)}
    store.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", b"\xff\xfe"),
        ("device", b"\xff\xfe"),
        ("device", 5),
        ("accepted", "then"),
        ("accepted", b"x"),
        ("messages", "text"),
        ("messages", 7),
        ("checksum", "no"),
        ("size", 1 << 62),
        ("size", "large"),
        ("size", -5),
    ],
)
def test_damaged_column(path: Path, column: str, value: object) -> None:
    """Whatever a column has become, no other record is hurt."""
    filled(path, 20)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE records SET refusal = 'rejected' WHERE id IN (5, 6)")
        database.execute(
            f"UPDATE records SET {column} = ? WHERE id IN (3, 5, 9)",  # noqa: S608
            (value,),
        )
    database.close()
    store = RecordStore(path, KINDS)
    contents = store.open()
    expected = [n for n in range(1, 21) if n not in (3, 5, 6, 9)]
    read = [number_of(found) for found in read_all(store, 4)]
    size = sum(row(n).size for n in range(1, 21) if n not in (5, 6))
    if column == "size":
        assert read == sorted([*expected, 3, 9])
        assert contents.size <= size + 2 * 100
    else:
        assert read == expected
        assert contents.size <= size
    assert 6 in {found.id for found in contents.refused}
    assert store.recover().damaged
    store.close()


def _zero_page(data: bytearray, chance: random.Random) -> None:
    at = PAGE * chance.randrange(1, len(data) // PAGE)
    data[at : at + PAGE] = bytes(PAGE)


def _flip_page(data: bytearray, chance: random.Random) -> None:
    at = PAGE * chance.randrange(len(data) // PAGE)
    for _ in range(20):
        data[at + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)


def _hit_head(data: bytearray, chance: random.Random) -> None:
    at = PAGE * chance.randrange(len(data) // PAGE)
    data[at + chance.randrange(12)] ^= 1 << chance.randrange(8)


def _swap_pages(data: bytearray, chance: random.Random) -> None:
    one, two = (PAGE * chance.randrange(1, len(data) // PAGE) for _ in range(2))
    data[one : one + PAGE], data[two : two + PAGE] = (
        data[two : two + PAGE],
        data[one : one + PAGE],
    )


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _hit_text(data: bytearray, chance: random.Random) -> None:
    """Damage the table's definition, or the header."""
    data[chance.randrange(24, 120)] ^= 1 << chance.randrange(8)


@pytest.mark.parametrize(
    "damage", [_zero_page, _flip_page, _hit_head, _swap_pages, _truncate, _hit_text]
)
@pytest.mark.parametrize("size", [40, 1500])
def test_damage(
    path: Path, size: int, damage: Callable[[bytearray, random.Random], None]
) -> None:
    """However a file is damaged, nothing escapes, nothing is wrong, and it works again."""
    chance = random.Random(size)
    good = filled(path, 400, size)
    for _ in range(8):
        for other in path.parent.iterdir():
            other.unlink()
        data = bytearray(good)
        damage(data, chance)
        path.write_bytes(data)
        store = RecordStore(path, KINDS)
        try:
            store.open()
        except StoreError as err:  # E.g. "of a later version", or not to be written to
            assert err.problem is Problem.STORE_FAILED  # noqa: PT017
            assert path.read_bytes() == bytes(data)
            continue
        try:
            rows = read_all(store)
        except StoreError:  # What a quick check does not see
            assert store.recover().damaged
            rows = read_all(store)
        numbers = [number_of(found) for found in rows]
        assert numbers == sorted(set(numbers))
        assert all(
            found.messages == row(number_of(found), size).messages for found in rows
        )
        (new,) = store.apply([row(999)], [])
        assert new > 0
        assert read_all(store)[-1].id == new
        store.close()
        assert not store.open().damaged
        store.close()


def test_lost_pages_are_all_that_is_lost(path: Path) -> None:
    """A damaged leaf costs its own records, and an inner page no more than its leaves."""
    good = filled(path, 4000)
    leaves = [at for at in range(PAGE, len(good), PAGE) if good[at] == 13]
    inner = [at for at in range(PAGE, len(good), PAGE) if good[at] == 5]
    assert len(leaves) > 50
    hurt = leaves[5:-5:10]
    data = bytearray(good)
    lost = 0
    for at in hurt:
        lost += int.from_bytes(data[at + 3 : at + 5])
        data[at] = 0
    path.write_bytes(data)
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert contents.damaged
    assert contents.waiting == {"alert": 4000 - lost}
    assert {found.id for found in read_all(store)} == contents.saved.keys()
    store.close()
    assert inner
    data = bytearray(good)
    data[inner[0] : inner[0] + PAGE] = bytes(PAGE)
    path.write_bytes(data)
    store.open()
    assert path.with_name(f"{path.name}.damaged").read_bytes()[inner[0]] == 0
    store.close()


@pytest.mark.parametrize("name", ["empty", "short", "garbage", "zeros"])
def test_not_a_database(path: Path, name: str) -> None:
    """What is no database gives way to one; an empty file is a new one."""
    content = {"short": b"x", "garbage": b"garbage" * 5000, "zeros": bytes(9000)}.get(
        name, b""
    )
    path.parent.mkdir()
    path.write_bytes(content)
    store = RecordStore(path, KINDS)
    assert store.open().damaged is (len(content) > PAGE)
    store.apply([row(1)], [])
    store.close()
    assert reopened(path).read(0, 5).rows[0].id == 1
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.exists() is (len(content) > PAGE)
    assert len(content) <= PAGE or aside.read_bytes() == content


@pytest.mark.parametrize("bytes_left", [0, 10, 32, 500, 4000, 4152, 9000])
def test_truncated_log(path: Path, bytes_left: int) -> None:
    """A log that a power cut left half written costs what was not committed, no more."""
    filled(path, 10)
    store = reopened(path)
    for number in range(11, 21):
        store.apply([row(number)], [])
    names = ("", "-wal")
    files = [path.with_name(path.name + name).read_bytes() for name in names]
    store.close()
    path.write_bytes(files[0])
    path.with_name(f"{path.name}-wal").write_bytes(files[1][:bytes_left])
    store = RecordStore(path, KINDS)
    store.open()
    numbers = [number_of(found) for found in read_all(store)]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(numbers) >= 10 + bytes_left // (PAGE + 24 + 16) - 2
    store.close()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_cut_off(path: Path, share: float) -> None:
    """Of a file that was cut off, what is left of it is saved."""
    whole = filled(path, 1000, 200)
    path.write_bytes(whole[: int(len(whole) * share)])
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert contents.damaged
    numbers = [number_of(found) for found in read_all(store)]
    assert numbers == sorted(set(numbers))
    assert 10 < len(numbers) < 1000
    store.close()


@pytest.mark.parametrize(
    "header", [b"SQLite format 3\0" + bytes(84), b"SQLite format 3\0" + b"\xff" * 84]
)
def test_header_without_sense(path: Path, header: bytes) -> None:
    """A file is not made as long as a damaged header says."""
    filled(path, 5)
    path.write_bytes(header)
    store = RecordStore(path, KINDS)
    assert store.open().damaged
    assert path.with_name(f"{path.name}.damaged").stat().st_size < 10_000
    store.close()


def test_damaged_number(path: Path) -> None:
    """A number that no record can have is damage; the others are saved."""
    filled(path, 5)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE records SET id = ? WHERE id = 5", ((1 << 63) - 1,))
    database.close()
    store = RecordStore(path, KINDS)
    contents = store.open()
    assert contents.damaged
    assert contents.saved.keys() == {1, 2, 3, 4}
    assert store.apply([row(6)], []) == [5]
    store.close()


def test_damaged_under_way(store: RecordStore, path: Path) -> None:
    """What is damaged while it is open is told as damage, and mended."""
    store.apply([row(number, 1000) for number in range(1, 600)], [])
    store.close()
    store.open()
    assert store._database
    store._database.execute("PRAGMA shrink_memory")  # As if the file were larger
    with path.open("r+b") as file:
        file.seek(PAGE * 20)  # Behind the root
        file.write(b"\xee" * (path.stat().st_size // 3))
    with pytest.raises(StoreError) as caught:
        read_all(store)
    assert caught.value.problem is Problem.STORE_CORRUPT
    contents = store.recover()
    assert 200 < len(contents.saved) < 599
    assert store.apply([row(1001)], []) == [max(600, contents.last + 1)]


def test_full_log_while_shrinking(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is not told as failed, for it would be written twice."""
    monkeypatch.setattr(store_module, "_SPARE_PAGES", -1)
    monkeypatch.setattr(store_module, "_SPARE_PART", -1)
    store.apply([row(1)], [])
    assert store._database
    store._database.set_authorizer(
        lambda action, first, *_: (
            sqlite3.SQLITE_DENY if first == "incremental_vacuum" else sqlite3.SQLITE_OK
        )
    )
    assert store.apply([row(2)], [1]) == [2]
    assert [found.id for found in read_all(store)] == [2]
