"""Records on disk until they are acknowledged: a queue in SQLite, in WAL mode.

Everything here blocks and belongs into a thread, one call at a time. A commit is on disk
when `apply` returns (`synchronous=FULL`), so neither `kill -9` nor a power cut takes it back.
Each record has a checksum, for SQLite itself does not notice a flipped bit in a payload. A
file that is damaged is set aside, and what can be read of it goes into a new one.

Text is written and read as bytes: a damaged one need not be UTF-8.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
import glob
import logging
import os
from pathlib import Path
import sqlite3
import struct
from typing import Final, NamedTuple
import zlib

from .errors import Problem
from .parcels import Message, size_of

_LOGGER = logging.getLogger(__name__)

MAX_REFUSED: Final = 100
# Of a message: flags, the length of its payload, and that of its head.
_HEADER: Final = struct.Struct(">BII")
_RETAIN: Final = 4
# Of an SQLite file: how it begins, how long its header is, and how long it may be to be mended.
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 100
_LONGEST: Final = 16 * 1024**3
_OBJECT: Final = 8
# How many pages of a file may be empty at any rate, and which part of a larger one.
_SPARE_PAGES: Final = 256
_SPARE_PART: Final = 0.75
# How often a damaged file is looked into, and how far beyond the last record found.
_PROBES: Final = 20_000
_BEYOND: Final = 200_000
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
# What SQLite says of a file that is not what we wrote; our statements suit one that is.
_CORRUPT: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)
_SELECT: Final = (
    "SELECT id, kind, device, accepted, refusal, messages, checksum FROM records"
)
_UPWARDS: Final = "WHERE id >= ? AND id < ? ORDER BY id ASC"
_DOWNWARDS: Final = "WHERE id >= ? AND id < ? ORDER BY id DESC"
# How many bytes a record's messages are; never more than what stands there.
_SIZE: Final = "MIN(MAX(size, 0), LENGTH(messages))"
_SELECT_SIZES: Final = f"SELECT id, kind, {_SIZE} FROM records WHERE refusal IS NULL"  # noqa: S608
_SELECT_SUMS: Final = (
    f"SELECT kind, COUNT(*), CAST(TOTAL({_SIZE}) AS INTEGER) FROM records"  # noqa: S608
    " WHERE refusal IS NULL GROUP BY kind"
)
# No record gets as far as this.
_HIGHEST: Final = 1 << 60

type _Columns = tuple[int, bytes, bytes, float, bytes | None, bytes, int]


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
        return size_of(self.messages)


class Page(NamedTuple):
    """Some of the records that wait, the number of the last one, and whether that is all."""

    rows: list[Row]
    last: int
    is_end: bool


@dataclass(slots=True)
class Contents:
    """What is on disk: how many records of each kind wait, and how many bytes they are.

    `last` is the highest number that there is. `refused` are those that were set aside.
    `damaged` tells that the file was not what it should be; `saved` has then the kind and
    size (bytes) of each record that waits, by its number.
    """

    waiting: dict[str, int] = field(default_factory=dict)
    size: int = 0
    last: int = 0
    refused: list[Row] = field(default_factory=list)
    damaged: bool = False
    saved: dict[int, tuple[str, int]] = field(default_factory=dict)


def encode_messages(messages: Iterable[Message]) -> bytes:
    """Return messages as they stand in the file: flags, lengths, head, payload of each."""
    return b"".join(
        piece
        for head, payload, qos, retain, is_object in messages
        for piece in (
            _HEADER.pack(
                qos | retain * _RETAIN | is_object * _OBJECT,
                len(payload),
                len(head),
            ),
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
            flags, length, head_length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            end = at + head_length
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


def _encode(text: str) -> bytes:
    """Return text as it stands in the file; any str comes back as it was."""
    return text.encode(errors="surrogatepass")


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogatepass")


def _checksum(row: Row, messages: bytes) -> int:
    """Return what tells a record from one with a flipped bit."""
    text = f"{row.id}/{row.kind}/{row.device}/{float(row.accepted)!r}"
    return zlib.crc32(messages, zlib.crc32(_encode(text)))


def _row(columns: _Columns) -> Row | None:
    """Return a record as it was written, or None where it is not."""
    number, kind, device, accepted, refusal, messages, checksum = columns
    try:
        row = Row(
            _decode(kind), _decode(device), accepted, decode_messages(messages), number
        )
        if _checksum(row, messages) != checksum:
            return None
        why = None if refusal is None else refusal.decode(errors="replace")
        return row._replace(refusal=why)
    except AttributeError, TypeError, ValueError:
        return None


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what SQLite and the file system say as a StoreError."""
    try:
        yield
    except sqlite3.Error as err:
        code = getattr(err, "sqlite_errorcode", 0)
        is_damaged = code & 0xFF in _CORRUPT or code == sqlite3.SQLITE_IOERR_SHORT_READ
        problem = Problem.STORE_CORRUPT if is_damaged else Problem.STORE_FAILED
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
            if self._beside(".saved").exists():  # It ended amidst `recover`
                return self._replace()
            return self._open()
        except StoreError as err:
            if err.problem is not Problem.STORE_CORRUPT:
                raise
        return self.recover()

    def recover(self) -> Contents:
        """Set the file aside, and begin a new one with what can be read of it.

        Wherever this ends early, the file or what was saved of it is there for the next try.
        Raises StoreError.
        """
        self.close()
        if not self._beside(".saved").exists():
            _LOGGER.error("The file %s is damaged; it is set aside", self.path.name)
            with _translated():
                self._save()
                for suffix in ("", "-wal", "-shm"):
                    self._beside(f".damaged{suffix}").unlink(missing_ok=True)
                self._beside(".new").replace(self._beside(".saved"))
                self._sync_directory()
        return self._replace()

    def apply(
        self,
        inserts: Sequence[Row],
        deletes: Sequence[int],
        refusals: Sequence[tuple[int, str | None]] = (),
    ) -> list[int]:
        """Write records and delete others, all or none; return the new ones' numbers.

        A record that has a number keeps it. `refusals` gives what is set aside, with why,
        and None for what waits again. Raises StoreError.
        """
        rows = []
        following = self._next
        for row in inserts:
            rows.append(row if row.id else row._replace(id=following))
            following += not row.id
        with self._transaction() as database:
            self._insert(database, rows)
            database.executemany(
                "DELETE FROM records WHERE id = ?", ((number,) for number in deletes)
            )
            database.executemany(
                "UPDATE records SET refusal = ? WHERE id = ?",
                ((problem, number) for number, problem in refusals),
            )
        self._next = following
        if deletes:
            self._shrink()
        return [row.id for row in rows]

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

    def checkpoint(self) -> None:
        """Have all that is committed in the file itself. Raises StoreError."""
        with _translated():
            self._open_database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        if (database := self._database) is not None:
            self._database = None
            with suppress(sqlite3.Error):
                database.close()

    def remove(self) -> None:
        """Remove the file, and what was set aside of it."""
        self.close()
        for path in self.path.parent.glob(f"{glob.escape(self.path.name)}*"):
            try:
                path.unlink(missing_ok=True)
            except OSError as err:  # Not a file of ours, or not ours to remove
                _LOGGER.warning("Cannot remove %s (%s)", path.name, err.strerror)

    # --- inside -------------------------------------------------------------------------

    @property
    def _open_database(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(Problem.STORE_FAILED, "The file is not open")
        return self._database

    def _open(self) -> Contents:
        """Open the file and look at what is in it; raises StoreError."""
        try:
            with _translated():
                self.path.parent.mkdir(exist_ok=True)
                self._make(self.path)
                self._database = self._connect()
                return self._contents()
        except StoreError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """Return the file, sound and of this version; a later one's is left alone."""
        database = sqlite3.connect(
            self.path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        try:
            database.text_factory = bytes
            # Exclusive: nothing else has business here, and WAL needs no shared memory.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise StoreError(
                    Problem.STORE_FAILED, "The file is of a later version of BLE Bridge"
                )
            for pragma in (
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                "journal_size_limit = 1048576",
            ):
                database.execute(f"PRAGMA {pragma}")
            if database.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
                raise StoreError(Problem.STORE_CORRUPT, "The file is damaged")
            self._migrate(database)
        except BaseException:
            with suppress(sqlite3.Error):
                database.close()
            raise
        return database

    @staticmethod
    def _make(path: Path) -> None:
        """Make a file that nobody else may read; SQLite's others get the same mode.

        One that is there is not touched: to close it would end SQLite's locks on it.
        """
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    @staticmethod
    def _migrate(database: sqlite3.Connection) -> None:
        """Bring the file to this version."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            database.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT"
            )

    def _contents(self) -> Contents:
        """Look at what is there; what is of no kind that we know is deleted."""
        contents = Contents()
        with _translated():
            database = self._open_database
            marks = ", ".join("?" * len(self._kinds))
            contents.damaged = (
                database.execute(
                    f"DELETE FROM records WHERE kind NOT IN ({marks})",  # noqa: S608
                    tuple(self._kinds),
                ).rowcount
                > 0
            )
            (last,) = database.execute("SELECT MAX(id) FROM records").fetchone()
            contents.last = last or 0
            if contents.last > _HIGHEST:
                raise StoreError(Problem.STORE_CORRUPT, "A number is damaged")
            # A number is not used twice, for who asks for the rows after one.
            self._next = max(self._next, contents.last + 1)
            for kind, count, size in database.execute(_SELECT_SUMS).fetchall():
                contents.waiting[_decode(kind)] = count
                contents.size += size
            refused = database.execute(
                f"{_SELECT} WHERE refusal IS NOT NULL ORDER BY id"
            ).fetchall()
        rows = [row for found in refused if (row := _row(found)) is not None]
        contents.refused = rows[-MAX_REFUSED:]
        kept = {row.id for row in contents.refused}
        if useless := [found[0] for found in refused if found[0] not in kept]:
            self.apply([], useless)
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
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    row.id,
                    row.kind,
                    _encode(row.device),
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
        """Give back what a long outage took, once most of the file is empty."""
        # What was asked for is done; if anything is wrong here, it will show elsewhere.
        with suppress(sqlite3.Error):
            database = self._open_database
            (spare,) = database.execute("PRAGMA freelist_count").fetchone()
            if spare <= _SPARE_PAGES:
                return
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            if spare > _SPARE_PART * pages:
                database.execute("PRAGMA incremental_vacuum").fetchall()
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _beside(self, suffix: str) -> Path:
        """Return a file beside ours."""
        return self.path.with_name(self.path.name + suffix)

    def _sync_directory(self) -> None:
        """Have the names of files outlast a power cut."""
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _save(self) -> None:
        """Write what can be read of the file into one beside it."""
        new = self._beside(".new")
        new.unlink(missing_ok=True)
        self._make(new)
        self._lengthen()
        with closing(sqlite3.connect(new, isolation_level=None)) as database:
            for pragma in (
                "auto_vacuum = INCREMENTAL",
                "journal_mode = MEMORY",
                "synchronous = FULL",
            ):
                database.execute(f"PRAGMA {pragma}")
            self._migrate(database)
            database.execute("BEGIN")
            self._insert(database, self._salvage())
            database.execute("COMMIT")

    def _lengthen(self) -> None:
        """Give a file that was cut off the length that its header tells of.

        SQLite would read nothing of it; now it reads what is there.
        """
        with self.path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
        if len(header) < _HEADER_SIZE or not header.startswith(_MAGIC):
            return
        page = int.from_bytes(header[16:18])
        length = int.from_bytes(header[28:32]) * (65_536 if page == 1 else page)
        if self.path.stat().st_size < length <= _LONGEST:
            os.truncate(self.path, length)

    def _replace(self) -> Contents:
        """Put what was saved in the place of the damaged file; raises StoreError.

        The log goes first: SQLite would take it for that of the new file.
        """
        with _translated():
            for suffix in ("-wal", "-shm", ""):
                if (old := self._beside(suffix)).exists():
                    old.replace(self._beside(f".damaged{suffix}"))
            self._beside(".saved").replace(self.path)
            self._sync_directory()
        contents = self._open()
        with _translated():
            contents.saved = {
                number: (_decode(kind), size)
                for number, kind, size in self._open_database.execute(_SELECT_SIZES)
            }
        contents.damaged = True
        return contents

    def _salvage(self) -> Iterator[Row]:
        """Return what can be read of a damaged file; some of it perhaps twice.

        Where a scan ends at what is damaged, what lies beyond is looked for by halves, down
        to single records: a scan does not give the last one before it ends.
        """
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self.path, isolation_level=None)) as database,
        ):
            database.text_factory = bytes
            newest = max((self._next, *self._ends(database))) + _BEYOND
            gaps = deque([(0, newest)])
            for _ in range(_PROBES):
                if not gaps:
                    return
                first, end = gaps.popleft()
                try:
                    if end - first <= 1:
                        yield from self._good(database, "WHERE id = ?", (first,))
                        continue
                    for row in self._good(database, _UPWARDS, (first, end)):
                        first = max(first, row.id + 1)
                        yield row
                except sqlite3.Error:
                    with suppress(sqlite3.Error):
                        for row in self._good(database, _DOWNWARDS, (first, end)):
                            end = min(end, row.id)
                            yield row
                        continue
                    middle = (first + end) // 2
                    gaps += ((first, middle), (middle, end))[first == middle :]

    def _good(
        self, database: sqlite3.Connection, where: str, values: tuple[int, ...]
    ) -> Iterator[Row]:
        """Return the sound records of some; raises sqlite3.Error where the file is not."""
        for found in database.execute(f"{_SELECT} {where}", values):
            row = _row(found)
            if row is not None and row.kind in self._kinds:
                yield row

    @staticmethod
    def _ends(database: sqlite3.Connection) -> Iterator[int]:
        """Return how far the numbers of a damaged file seem to go."""
        for which in ("SELECT MIN(id) FROM records", "SELECT MAX(id) FROM records"):
            with suppress(sqlite3.Error):
                for (number,) in database.execute(which):
                    yield min(number or 0, _HIGHEST)
