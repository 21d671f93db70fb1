"""Messages a second, CPU and latency of the whole way, beside its peers, in one run.

Each way of publishing runs in a Home Assistant core of its own, in its own process, with
the same simulated scanners in the real Bluetooth stack, a real Mosquitto, and a subscriber
that only counts. What the stack needs by itself is measured too, and subtracted. Rounds of
the ways alternate, so that a machine whose speed changes treats them alike.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
import json
from statistics import median
import sys
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.simulation.broker import Mosquitto

from . import decoding, start_up
from .lines import Child, Line, cell
from .way import SCANNERS

TURN = 16  # What an ESPHome proxy sends at once
COUNTS = {"async_publish": 4_000, "paho": 20_000, "ble_bridge_qos1": 20_000}
COUNT = 100_000
RATE = 1_000
DEVICES = 1_000
PEERS = ("paho", "async_publish")
NAMES = {
    "ble_bridge": "BLE Bridge",
    "ble_bridge_qos1": "BLE Bridge, QoS 1",
    "paho": "paho publish per packet",
    "async_publish": "mqtt.async_publish per packet",
}


async def order(
    way: Child, counter: Child, **what: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Have a way send, and return what it took and what arrived."""
    while (await counter.ask())["messages"]:
        await asyncio.sleep(0.05)  # What is left of the order before
    took = await way.ask(what)
    arrived: dict[str, Any] = {"messages": 0, "latencies": []}
    for _ in range(200):  # At most 10 s for the rest to arrive
        await asyncio.sleep(0.05)
        more = await counter.ask()
        arrived["messages"] += more["messages"]
        arrived["latencies"] += more["latencies"]
        if arrived["messages"] >= took["sent"]:
            break
    return took, arrived


async def run(rounds: int, seconds: float) -> list[Line]:
    """Measure all ways, and return the lines of the table."""
    figures: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    async with (
        AsyncExitStack() as stack,
        Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker,
    ):
        await measure_memory(figures, broker.port)
        counter = await Child.start("benchmarks.counter", str(broker.port))
        stack.push_async_callback(counter.stop)
        ways = {}
        for name in ("stack", *NAMES):
            ways[name] = await Child.start("benchmarks.way", name, str(broker.port))
            stack.push_async_callback(ways[name].stop)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            await one_round(ways, counter, figures, seconds)
    return list(lines(figures))


async def measure_memory(
    figures: defaultdict[tuple[str, str], list[float]], port: int
) -> None:
    """Measure what each way keeps, in a fresh process, beyond what the stack keeps."""
    base = 0.0
    for name in ("stack", *NAMES):
        way = await Child.start("benchmarks.way", name, str(port))
        memory = (await way.ask({"devices": DEVICES}))["memory"]
        await way.stop()
        if name == "stack":
            base = memory
        else:
            figures[name, "memory"].append(memory - base)


async def one_round(
    ways: dict[str, Child],
    counter: Child,
    figures: defaultdict[tuple[str, str], list[float]],
    seconds: float,
) -> None:
    """Measure each way once."""
    base_busy = base_even = 0.0
    for name, way in ways.items():
        count = COUNTS.get(name, COUNT)
        busy, arrived = await order(way, counter, count=count, turn=TURN)
        even, spread = await order(way, counter, count=int(RATE * seconds), rate=RATE)
        if name == "stack":
            base_busy, base_even = busy["cpu"] / count, even["cpu"]
            figures[name, "cpu"].append(base_busy * 1e6)
            continue
        figures[name, "cpu"].append((busy["cpu"] / count - base_busy) * 1e6)
        figures[name, "rate"].append(busy["sent"] / busy["wall"])
        figures[name, "late"].append(busy["late_ms"])
        figures[name, "lost"].append(
            busy["sent"] - arrived["messages"] + even["sent"] - spread["messages"]
        )
        figures[name, "load"].append((even["cpu"] - base_even) / even["wall"] * 100)
        latencies = sorted(spread["latencies"])
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            figures[name, label].append(latencies[int(len(latencies) * share)])


# Measure, unit, and its figure of each way; what specs/ble-mqtt-publisher.md asks for is
# 100 messages a second within 100 ms, and what it would never forgive is a loss.
MEASURES = (
    ("cpu", "CPU of an advertisement beyond the stack's, busy", "µs", None),
    ("rate", "messages, busy", "a second", 100),
    ("late", "longest delay of the event loop, busy", "ms", None),
    ("load", f"CPU at {RATE} a second", "% of a core", None),
    ("p50", f"latency at {RATE} a second, p50", "ms", 100),
    ("p99", f"latency at {RATE} a second, p99", "ms", 100),
    ("memory", f"memory with {DEVICES} devices at {SCANNERS} scanners", "MB", 10),
    ("lost", "lost messages", "messages", 0),
)


def lines(figures: dict[tuple[str, str], list[float]]) -> Iterator[Line]:
    """Yield the lines of the table: medians, spread, goal and peer."""
    for key, measure, unit, limit in MEASURES:
        for way, name in NAMES.items():
            values = figures[way, key]
            goal = met = None
            if limit is not None and way not in PEERS:
                more = key == "rate"
                goal = f"{'≥' if more else '≤'} {limit}"
                met = median(values) >= limit if more else median(values) <= limit
            yield Line(
                f"{name}: {measure}",
                median(values),
                unit,
                (min(values), max(values)),
                goal,
                met,
                way if way in PEERS else None,
            )
    for peer in PEERS:
        ratios = [
            theirs / ours
            for theirs, ours in zip(
                figures[peer, "cpu"], figures["ble_bridge", "cpu"], strict=True
            )
        ]
        yield Line(
            f"CPU of {NAMES[peer]}, as a multiple of BLE Bridge's, busy",
            median(ratios),
            "times",
            (min(ratios), max(ratios)),
            "≥ 1",
            median(ratios) >= 1,
            peer,
        )


def show(table_lines: list[Line]) -> None:
    """Print a table with a row for each measure, and a column for each way."""
    table = Table(title="Medians, with the lowest and the highest of all rounds")
    table.add_column("")
    for name in NAMES.values():
        table.add_column(name, justify="right")
    table.add_column("goal", justify="right")
    rest = iter(table_lines)
    for _, measure, unit, limit in MEASURES:
        row = [next(rest) for _ in NAMES]
        met = [line.met for line in row if line.met is not None]
        mark = "" if limit is None else " ✓" if all(met) else " [red]✗[/red]"
        table.add_row(
            f"{measure} ({unit})",
            *map(cell, row),
            f"{row[0].goal or ''}{mark}",
        )
    console = Console()
    console.print(table)
    for line in rest:
        console.print(f"{line.measure}: {cell(line)}".replace("\n", " "))


async def measure_parts(
    names: list[str], rounds: int, seconds: float
) -> dict[str, list[Line]]:
    """Return the lines of each part that is wanted."""
    return {name: await PARTS[name][0](rounds, seconds) for name in names}


PARTS: Final[
    dict[
        str,
        tuple[
            Callable[[int, float], Awaitable[list[Line]]], Callable[[list[Line]], None]
        ],
    ]
] = {
    "packets": (run, show),
    "devices": (decoding.run, decoding.show),
    "house": (start_up.run, start_up.show),
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__ and __doc__.splitlines()[0]
    )
    parser.add_argument(
        "part",
        nargs="*",
        metavar="PART",
        help=f"what to measure, of {', '.join(PARTS)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=5,
        help="seconds of each run with evenly spread packets (default: 5)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list instead of the table"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - PARTS.keys():
        parser.error(f"There is no {', '.join(unknown)}.")
    parts = asyncio.run(
        measure_parts(
            arguments.part or list(PARTS),
            max(1, arguments.rounds),
            max(1.0, arguments.seconds),
        )
    )
    result = [line for part in parts.values() for line in part]
    if arguments.json:
        print(json.dumps([asdict(line) for line in result]))
    else:
        for name, part in parts.items():
            PARTS[name][1](part)
    sys.exit(any(line.met is False for line in result))


if __name__ == "__main__":
    main()
