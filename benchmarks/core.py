"""What the measured processes share: a Home Assistant core, a meter, and orders to follow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
import gc
import json
import logging
import os
from pathlib import Path
import sys
import tempfile
import threading
import time
from typing import Any, Final, Self, cast
from unittest.mock import patch

from homeassistant.config_entries import ConfigSubentryData
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_test_home_assistant,
)

TICK: Final = 0.005
OLDEST: Final = (
    2  # The generation that a full run of the garbage collector looks through
)


@asynccontextmanager
async def home_assistant() -> AsyncIterator[HomeAssistant]:
    """Return a Home Assistant core with its Bluetooth stack and a folder of its own.

    Its own integrations would begin a discovery for each device that they know; and its
    web server would want a port that another Home Assistant may have.
    """
    logging.disable(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory() as directory,
        patch("homeassistant.helpers.discovery_flow.async_create_flow"),
        patch("homeassistant.components.http.server.HomeAssistantHTTP.async_bind"),
    ):
        Path(directory, "configuration.yaml").touch()
        async with async_test_home_assistant(config_dir=directory) as hass:
            hass.data.pop("custom_components", None)
            await async_setup_component(hass, "bluetooth", {})
            yield hass


async def follow(carry_out: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Carry out the orders that come in, a JSON object a line, then end the process."""
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        print(json.dumps(await carry_out(json.loads(line))), flush=True)
    os._exit(0)  # Some ways leave threads, and nothing is needed any more


def bridge_entry(
    *ports: int, devices: Iterable[dict[str, Any]] = (), qos: int = 0
) -> MockConfigEntry:
    """Return an entry of BLE Bridge: a destination with `raw` and `fields` per port.

    The first has the topic base `ble`, then come `ble2`, `ble3` and so on.
    """
    destinations: list[dict[str, Any]] = [
        {
            "broker": "custom",
            "host": "127.0.0.1",
            "port": port,
            "username": None,
            "password": None,
            "topic_base": f"ble{number}" if number > 1 else "ble",
            "tls": False,
            "qos": qos,
            "protocol": "auto",
            "client_id": f"ble-bridge-bench-{os.getpid()}-{number}",
            "keepalive": 60,
            "clean_session": True,
        }
        for number, port in enumerate(ports, 1)
    ]
    return entry_of(destinations, devices)


def entry_of(
    destinations: Iterable[dict[str, Any]], devices: Iterable[dict[str, Any]] = ()
) -> MockConfigEntry:
    """Return an entry of BLE Bridge with destinations, from their data."""
    return MockConfigEntry(
        domain="ble_bridge",
        title="BLE Bridge",
        data={"bridge_id": "bench"},
        subentries_data=[
            *(
                ConfigSubentryData(
                    data=destination,
                    subentry_type="destination",
                    title=destination.get("topic_base", "destination"),
                    unique_id=None,
                )
                for destination in destinations
            ),
            *(
                ConfigSubentryData(
                    data=device,
                    subentry_type="device",
                    title=device["alias"],
                    unique_id=device["address"],
                )
                for device in devices
            ),
        ],
    )


def addresses(count: int) -> list[str]:
    """Return so many addresses."""
    return [
        f"C0:FF:EE:00:{number >> 8:02X}:{number & 255:02X}" for number in range(count)
    ]


def resident_mb() -> float:
    """Return the memory of this process in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class LoopMeter:
    """What the event loop's thread computes, each of its turns taken alone.

    `longest` and `total` are CPU time in seconds: what other processes take, or other
    threads while they hold the interpreter, does not count. Neither does the garbage
    collector, which is in `collecting`: when Python looks through all that Home Assistant
    has in memory, a tenth of a second and more at once, is chance. `late` is how late a
    timer was at worst, in seconds by the clock, whoever was to blame; `late_apart` is the
    same less what full runs of the garbage collector took meanwhile, and `full` how long
    each of those took.

    Without `turns` they are not timed, which costs a microsecond for each.
    """

    def __init__(self, *, turns: bool = True) -> None:
        """Begin with nothing."""
        self.longest = self.total = self.late = self.late_apart = self.collecting = 0.0
        self.full: list[float] = []
        self._turns = turns
        self._loop = cast(Any, asyncio.get_running_loop())
        self._once = self._loop._run_once
        self._thread = threading.get_ident()
        self._collection = 0.0
        self._began: float | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Begin to measure with the loop's next turn."""
        gc.callbacks.append(self._on_collection)
        if self._turns:
            self._loop._run_once = self._timed
        self._watcher = self._loop.create_task(self._watch())
        return self

    def __exit__(self, *_: object) -> None:
        """End it; the turn that is under way is not counted."""
        gc.callbacks.remove(self._on_collection)
        self._loop._run_once = self._once
        if self._watcher is not None:
            self._watcher.cancel()

    def figures(self) -> dict[str, float]:
        """Return what was measured."""
        return {
            "total": self.total,
            "longest": self.longest,
            "late": self.late,
            "late_apart": self.late_apart,
            "collecting": self.collecting,
            "full_runs": len(self.full),
            "full_run": max(self.full, default=0.0),
        }

    def _timed(self) -> None:
        began, collecting = time.thread_time(), self.collecting
        self._once()
        took = time.thread_time() - began - (self.collecting - collecting)
        self.total += took
        self.longest = max(self.longest, took)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        is_ours = threading.get_ident() == self._thread
        if phase == "start":
            if info["generation"] == OLDEST:
                self._began = time.monotonic()
            if is_ours:
                self._collection = time.thread_time()
            return
        if is_ours:
            self.collecting += time.thread_time() - self._collection
        if self._began is not None:
            self.full.append(time.monotonic() - self._began)
            self._began = None

    async def _watch(self) -> None:
        while True:
            due = self._loop.time() + TICK
            runs = len(self.full)
            await asyncio.sleep(TICK)
            now = self._loop.time()
            self.late = max(self.late, now - due)
            full = sum(self.full[runs:])
            if (began := self._began) is not None:
                full += now - began  # Of another thread, which was to say so just now
            self.late_apart = max(self.late_apart, now - due - full)


async def measured(do: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Return what the loop needs for something; times in seconds.

    All is collected before, so that what was allocated earlier is not set off then; how long
    that took is returned too, as `full`, since it may fall into anything.
    """
    began = time.perf_counter()
    gc.collect()
    full = time.perf_counter() - began
    with LoopMeter() as meter:
        await asyncio.sleep(0)  # Until a turn begins that is counted
        began = time.monotonic()
        await do()
        wall = time.monotonic() - began
        await asyncio.sleep(2 * TICK)  # Until it is over, and its lateness known
    return {**meter.figures(), "full": full, "wall": wall}
