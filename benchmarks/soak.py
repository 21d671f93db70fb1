"""A soak: rotating addresses, changing rates, and two destinations of which one is slow."""

import asyncio
from statistics import median
import sys
from typing import Any, Final

from scripts.simulation.broker import Mosquitto
from scripts.simulation.chaos.fault_proxy import FaultProxy

from .lines import Child, Line, draw, line, rows

STEP: Final = 2  # Seconds from one sample to the next
STEPS: Final = 5  # Samples until the rate changes
RATES: Final = (500, 5_000, 100, 2_000, 20_000, 1_000)  # Packets a second
SLOW: Final = 200_000  # Bytes a second: some 700 advertisements
PATIENCE: Final = 60.0  # Seconds for what is under way to arrive
FAST_BASE, SLOW_BASE = "ble", "ble2"


async def run(minutes: float) -> list[Line]:
    """Let it run, draw it, and return the lines."""
    async with (
        Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker,
        FaultProxy(broker.port) as slow,
    ):
        port = str(broker.port)
        counters = {
            base: await Child.start("benchmarks.counter", port, base)
            for base in (FAST_BASE, SLOW_BASE)
        }
        home = await Child.start("benchmarks.soak_home", port, str(slow.port))
        slow.rate = SLOW
        arrived = dict.fromkeys(counters, 0)
        samples: list[dict[str, Any]] = []
        number = max(int(minutes * 60 / STEP), 2)
        for step in range(number):
            rate = RATES[step // STEPS % len(RATES)]
            sample = await home.ask({"seconds": STEP, "rate": rate})
            await _count(counters, arrived)
            samples.append({**sample, "rate": rate, "minute": step * STEP / 60})
            if step % STEPS == 0:
                _report(sample, rate, step / number)
        slow.rate = None
        last = await _settle(home, counters, arrived)
        for child in (home, *counters.values()):
            await child.stop()
    draw("soak", {"samples": samples, "step": STEP})
    return _lines(samples, last, arrived)


def _report(sample: dict[str, Any], rate: int, done: float) -> None:
    """Say how far it is."""
    print(
        f"soak: {done:4.0%}, {rate:,} a second, {sample['memory']:.0f} MB, "
        f"{sample['addresses']:,} addresses, "
        f"loop late by {sample['late']:.1f} ms, "
        f"{sample['destinations'][SLOW_BASE]['dropped']:,} dropped at the slow one",
        file=sys.stderr,
        flush=True,
    )


async def _count(counters: dict[str, Child], arrived: dict[str, int]) -> None:
    """Add what arrived since the last time."""
    for base, counter in counters.items():
        arrived[base] += (await counter.ask())["messages"]


async def _settle(
    home: Child, counters: dict[str, Child], arrived: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Wait until what was sent has arrived, and return what became of all."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        sample = await home.ask({"seconds": 0.1, "rate": 0})
        found: dict[str, dict[str, int]] = sample["destinations"]
        await _count(counters, arrived)
        if loop.time() > deadline or all(
            not found[base]["waiting"] and found[base]["sent"] <= arrived[base]
            for base in found
        ):
            return found


def _lines(
    samples: list[dict[str, Any]],
    last: dict[str, dict[str, int]],
    arrived: dict[str, int],
) -> list[Line]:
    """Return the lines."""
    memory = [sample["memory"] for sample in samples]
    half = memory[len(memory) // 2 :]
    third = max(len(half) // 3, 1)
    late = [sample["late"] for sample in samples]
    fast, slow = last[FAST_BASE], last[SLOW_BASE]
    unexplained = sum(
        abs(found["received"] - found["dropped"] - found["waiting"] - arrived[base])
        for base, found in last.items()
    )
    return [
        Line(
            "growth of memory in the second half",
            median(half[-third:]) - median(half[:third]),
            "MB",
            (min(half) - half[0], max(half) - half[0]),
            "≤ 5",
            median(half[-third:]) - median(half[:third]) <= 5,
            None,
        ),
        Line(
            "longest delay of the event loop",
            max(late),
            "ms",
            (min(late), max(late)),
            "≤ 50",
            max(late) <= 50,
            None,
        ),
        line("sent to the fast destination", [fast["sent"]], "messages"),
        line("dropped at the fast destination", [fast["dropped"]], "messages", 0),
        line("sent to the slow destination", [slow["sent"]], "messages"),
        line(
            "dropped at the slow destination, and counted",
            [slow["dropped"]],
            "messages",
        ),
        line("lost without being counted", [unexplained], "messages", 0),
    ]


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows("A soak: rotating addresses, changing rates, a slow destination", lines)
