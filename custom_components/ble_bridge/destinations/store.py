"""Records on disk until they are acknowledged: a queue in SQLite, in WAL mode.

Everything here blocks and belongs into a thread, one call at a time. A commit is on disk
when `apply` returns (`synchronous=FULL`), so neither `kill -9` nor a power cut takes it back.
Each record has a checksum, for SQLite itself does not notice a flipped bit in a payload. A
file that is damaged is set aside, and what can be read of it goes into a new one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
import logging
import os
from pathlib import Path
import sqlite3
import struct
from typing import Final, NamedTuple
import zlib

from .errors import Problem
from .parcels import Message

_LOGGER = logging.getLogger(__name__)

MAX_REFUSED: Final = 100
_HEADER: Final = struct.Struct(">BI")
_LENGTH: Final = struct.Struct(">H")
_RETAIN: Final = 4
_OBJECT: Final = 8
# Of a file that was emptied, how much may stay allocated.
_SPARE_PAGES: Final = 256
# What leads from one version of the file (`user_version`) to the next.
MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        device TEXT NOT NULL,
        accepted REAL NOT NULL,
        size INTEGER NOT NULL,
        refusal TEXT,
        messages BLOB NOT NULL,
        checksum INTEGER NOT NULL
    );
    """,
)
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SELECT: Final = (
    "SELECT id, kind, device, accepted, refusal, messages, checksum FROM records"
)


class StoreError(Exception):
    """The store could not do what it was asked to."""

    def __init__(self, problem: Problem, reason: str) -> None:
        """Initialize with the problem, and the words of the one who knows it."""
        super().__init__(reason)
        self.problem = problem


class Row(NamedTuple):
    """A record on disk.

    `accepted` is Unix time in seconds; `refusal` says why it was set aside, if it was.
    """

    kind: str
    device: str
    accepted: float
    messages: tuple[Message, ...]
    id: int = 0
    refusal: str | None = None

    @property
    def size(self) -> int:
        """Return how many bytes its messages are."""
        return sum(len(m.head) + len(m.payload) for m in self.messages)


class Page(NamedTuple):
    """Some of the records that wait, the number of the last one, and whether that is all."""

    rows: list[Row]
    last: int
    is_end: bool


@dataclass(slots=True)
class Contents:
    """What is on disk: how many records of each kind wait, and how many bytes they are.

    `last` is the highest number that there is. `refused` are those that were set aside.
    `damaged` tells that the file was not what it should be; `ids` are then the numbers of
    those that could be saved.
    """

    waiting: dict[str, int] = field(default_factory=dict)
    size: int = 0
    last: int = 0
    refused: list[Row] = field(default_factory=list)
    damaged: bool = False
    ids: set[int] = field(default_factory=set)


def encode_messages(messages: Iterable[Message]) -> bytes:
    """Return messages as they stand in the file: flags, length, topic, payload of each."""
    return b"".join(
        piece
        for head, payload, qos, retain, is_object in messages
        for piece in (
            _HEADER.pack(qos | retain * _RETAIN | is_object * _OBJECT, len(payload)),
            head,
            payload,
        )
    )


def decode_messages(data: bytes) -> tuple[Message, ...]:
    """Return the messages of `encode_messages`; raises ValueError where they are not."""
    messages = []
    at = 0
    try:
        while at < len(data):
            flags, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
            head, payload = data[at:end], data[end : end + length]
            at = end + length
            messages.append(
                Message(
                    head,
                    payload,
                    flags & 3,
                    bool(flags & _RETAIN),
                    bool(flags & _OBJECT),
                )
            )
    except struct.error as err:
        raise ValueError("Not messages") from err
    if at != len(data) or not messages:
        raise ValueError("Not messages")
    return tuple(messages)


def _checksum(row: Row, messages: bytes) -> int:
    """Return what tells a record from one with a flipped bit."""
    text = f"{row.kind}/{row.device}/{row.accepted!r}"
    return zlib.crc32(messages, zlib.crc32(text.encode(errors="replace")))


def _row(columns: tuple[int, str, str, float, str | None, bytes, int]) -> Row | None:
    """Return a record as it was written, or None where it is not."""
    number, kind, device, accepted, refusal, messages, checksum = columns
    try:
        row = Row(kind, device, accepted, decode_messages(messages), number, refusal)
        return row if _checksum(row, messages) == checksum else None
    except TypeError, ValueError:
        return None


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what SQLite and the file system say as a StoreError."""
    try:
        yield
    except sqlite3.Error as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        problem = Problem.STORE_CORRUPT if code in _CORRUPT else Problem.STORE_FAILED
        raise StoreError(problem, str(err)) from err
    except OSError as err:
        raise StoreError(Problem.STORE_FAILED, err.strerror or str(err)) from err


class RecordStore:
    """The records of one destination that wait on disk."""

    def __init__(self, path: Path, kinds: Collection[str]) -> None:
        """Initialize with the file, and the kinds of records that there are."""
        self.path = path
        self._kinds = frozenset(kinds)
        self._database: sqlite3.Connection | None = None
        self._next = 1

    @property
    def is_open(self) -> bool:
        """Tell whether there is a file to write to."""
        return self._database is not None

    def open(self) -> Contents:
        """Open the file, or make it; a damaged one is set aside. Raises StoreError."""
        try:
            contents = self._open()
        except StoreError as err:
            self.close()
            if err.problem is not Problem.STORE_CORRUPT:
                raise
            contents = self.recover()
        return contents

    def recover(self) -> Contents:
        """Set the file aside, and begin a new one with what can be read of it."""
        self.close()
        _LOGGER.error("The file %s is damaged; it is set aside", self.path.name)
        with _translated():
            rows = {row.id: row for row in self._salvage()}
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self._each_file(aside, lambda old, new: old.replace(new))
        contents = self._open()
        with self._transaction() as database:
            self._insert(database, sorted(rows.values(), key=lambda row: row.id))
        contents = self._contents()
        contents.damaged = True
        contents.ids = set(rows)
        return contents

    def apply(
        self,
        inserts: Sequence[Row],
        deletes: Sequence[int],
        refusals: Sequence[tuple[int, str | None]] = (),
    ) -> list[int]:
        """Write records and delete others, all or none; return the new ones' numbers.

        `refusals` gives what is set aside, with why, and None for what waits again. Raises
        StoreError.
        """
        numbers = range(self._next, self._next + len(inserts))
        with self._transaction() as database:
            self._insert(
                database,
                (
                    row._replace(id=number)
                    for number, row in zip(numbers, inserts, strict=True)
                ),
            )
            database.executemany(
                "DELETE FROM records WHERE id = ?", ((number,) for number in deletes)
            )
            database.executemany(
                "UPDATE records SET refusal = ? WHERE id = ?",
                ((problem, number) for number, problem in refusals),
            )
        self._next = numbers.stop
        if deletes:
            self._shrink()
        return list(numbers)

    def read(self, after: int, limit: int) -> Page:
        """Return the oldest waiting records after a number.

        What is damaged is left out, and deleted. Raises StoreError.
        """
        with _translated():
            columns = self._open_database.execute(
                f"{_SELECT} WHERE id > ? AND refusal IS NULL ORDER BY id LIMIT ?",
                (after, limit),
            ).fetchall()
        rows = [row for found in columns if (row := _row(found)) is not None]
        if len(rows) < len(columns):
            good = {row.id for row in rows}
            self.apply([], [found[0] for found in columns if found[0] not in good])
        last = columns[-1][0] if columns else after
        return Page(rows, last, len(columns) < limit)

    def close(self) -> None:
        """Close the file."""
        if (database := self._database) is not None:
            self._database = None
            with suppress(sqlite3.Error):
                database.close()

    def remove(self) -> None:
        """Remove the file, and what was set aside of it."""
        self.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink(missing_ok=True)

    # --- inside -------------------------------------------------------------------------

    @property
    def _open_database(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(Problem.STORE_FAILED, "The file is not open")
        return self._database

    def _open(self) -> Contents:
        """Open the file and look at what is in it; raises StoreError."""
        with _translated():
            self.path.parent.mkdir(exist_ok=True)
            # Nobody else's to read; SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            database = self._database = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False
            )
            # Exclusive: nothing else has business here, and WAL needs no shared memory.
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                "journal_size_limit = 1048576",
            ):
                database.execute(f"PRAGMA {pragma}")
            if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise StoreError(Problem.STORE_CORRUPT, "The file is damaged")
            self._migrate(database)
            return self._contents()

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Bring the file to this version; one of a later version is left alone."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                Problem.STORE_FAILED, "The file is of a later version of BLE Bridge"
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            database.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT"
            )

    def _contents(self) -> Contents:
        """Look at what is there; what is of no kind that we know is deleted."""
        contents = Contents()
        with _translated():
            database = self._open_database
            (last,) = database.execute("SELECT MAX(id) FROM records").fetchone()
            contents.last = last or 0
            self._next = contents.last + 1
            for kind, count, size in database.execute(
                "SELECT kind, COUNT(*), SUM(size) FROM records WHERE refusal IS NULL"
                " GROUP BY kind"
            ).fetchall():
                if kind in self._kinds:
                    contents.waiting[kind] = count
                    contents.size += size
                else:
                    database.execute("DELETE FROM records WHERE kind IS ?", (kind,))
                    contents.damaged = True
            refused = database.execute(
                f"{_SELECT} WHERE refusal IS NOT NULL ORDER BY id"
            ).fetchall()
        contents.refused = [
            row
            for found in refused
            if (row := _row(found)) is not None and row.kind in self._kinds
        ][-MAX_REFUSED:]
        return contents

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done within, or none of it."""
        with _translated():
            database = self._open_database
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # Some errors have rolled back already
                    database.execute("ROLLBACK")
                raise

    @staticmethod
    def _insert(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
        database.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    row.id,
                    row.kind,
                    row.device,
                    row.accepted,
                    row.size,
                    row.refusal,
                    messages := encode_messages(row.messages),
                    _checksum(row, messages),
                )
                for row in rows
            ),
        )

    def _shrink(self) -> None:
        """Give back what a long outage took, once nothing waits any more."""
        with _translated():
            database = self._open_database
            (spare,) = database.execute("PRAGMA freelist_count").fetchone()
            if spare > _SPARE_PAGES and database.execute(
                "SELECT NOT EXISTS (SELECT 1 FROM records)"
            ).fetchone() == (1,):
                database.execute("PRAGMA incremental_vacuum").fetchall()
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _salvage(self) -> Iterator[Row]:
        """Return what can be read of a damaged file, from its beginning and its end."""
        for order in ("ASC", "DESC"):
            with (
                suppress(sqlite3.Error),
                closing(sqlite3.connect(self.path, isolation_level=None)) as database,
            ):
                for found in database.execute(f"{_SELECT} ORDER BY id {order}"):
                    row = _row(found)
                    if row is not None and row.kind in self._kinds:
                        yield row

    def _each_file(self, aside: Path, move: Callable[[Path, Path], object]) -> None:
        """Move the file and SQLite's own beside it."""
        for suffix in ("", "-wal", "-shm"):
            old = self.path.with_name(self.path.name + suffix)
            new = aside.with_name(aside.name + suffix)
            new.unlink(missing_ok=True)
            if old.exists():
                move(old, new)
