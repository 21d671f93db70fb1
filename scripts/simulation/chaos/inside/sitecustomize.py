"""Faults inside of a Home Assistant process: what its names, clock and disk say.

Python imports this module at its start, before all others, where its directory is on
PYTHONPATH. `chaos_probe` sets the faults while Home Assistant runs; those of the file that
CHAOS_FAULTS names are there from the beginning.
"""

from dataclasses import dataclass, field, fields
import json
import os
from pathlib import Path
import socket
import sqlite3
import time
from typing import Any, Final, override
import weakref

from aiohttp.abc import ResolveResult
from aiohttp.resolver import AsyncResolver

# The store of BLE Bridge is meant, not a database of Home Assistant's own.
STORE: Final = "ble_bridge."
_UNBOUNDED: Final = 0xFFFFFFFE  # SQLite's own limit on pages


@dataclass
class Faults:
    """What is wrong at present.

    `clock` is how many seconds it is off; `no_dns` whether names have no address;
    `disk_full` and `read_only` are what SQLite then says; `commit_seconds` is how long a
    commit takes at least.
    """

    clock: float = 0.0
    no_dns: bool = False
    disk_full: bool = False
    read_only: bool = False
    commit_seconds: float = 0.0
    stores: weakref.WeakSet[Store] = field(default_factory=weakref.WeakSet)

    def set(self, values: dict[str, Any]) -> None:
        """Set faults, and end those that are not named."""
        for fault in fields(self):
            if fault.name != "stores":
                setattr(self, fault.name, values.get(fault.name, fault.default))
        for store in tuple(self.stores):
            store.follow(self)


class Store(sqlite3.Connection):
    """A connection to a store, whose disk fails as it is told to."""

    def follow(self, faults: Faults) -> None:
        """Have SQLite itself refuse what the disk would not take."""
        pages = 1 if faults.disk_full else _UNBOUNDED  # At least as many as there are
        super().execute(f"PRAGMA max_page_count = {pages}").fetchall()
        super().execute(f"PRAGMA query_only = {faults.read_only:d}").fetchall()

    @override
    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if FAULTS.commit_seconds and sql.startswith("COMMIT"):
            time.sleep(FAULTS.commit_seconds)
        return super().execute(sql, *parameters)


FAULTS: Final = Faults()
ADDRESSES: Final[dict[str, str]] = json.loads(os.environ.get("CHAOS_ADDRESSES", "{}"))

_getaddrinfo = socket.getaddrinfo
_resolve_for_http = AsyncResolver.resolve
_connect = sqlite3.connect
_time = time.time


def _address(host: Any) -> Any:
    """Return the address of a name of ours, as far as there is a name server."""
    if host in ADDRESSES:
        if FAULTS.no_dns:
            raise socket.gaierror(socket.EAI_AGAIN, "No name server")
        return ADDRESSES[host]
    return host


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    """Look a name up."""
    return _getaddrinfo(_address(host), *arguments, **options)


async def _resolve_http(
    resolver: AsyncResolver, host: str, *arguments: Any, **options: Any
) -> list[ResolveResult]:
    """Look a name up for aiohttp, which has a resolver of its own."""
    return await _resolve_for_http(resolver, _address(host), *arguments, **options)


def _open(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
    """Open a database; a store follows the faults."""
    if STORE not in Path(os.fsdecode(database)).name:
        plain: sqlite3.Connection = _connect(database, *arguments, **options)
        return plain
    store: Store = _connect(database, *arguments, factory=Store, **options)
    try:
        store.follow(FAULTS)
    except sqlite3.Error:  # A damaged file
        store.close()
        raise
    FAULTS.stores.add(store)
    return store


def _now() -> float:
    """Return what the clock shows (Unix time, s)."""
    return _time() + FAULTS.clock


socket.getaddrinfo = _resolve
AsyncResolver.resolve = _resolve_http  # type: ignore[assignment,method-assign]
sqlite3.connect = _open  # type: ignore[assignment]
time.time = _now
if _file := os.environ.get("CHAOS_FAULTS"):
    FAULTS.set(json.loads(Path(_file).read_text(encoding="utf-8")))
