"""What further destinations cost: each no more than the first."""

from collections import defaultdict
from contextlib import AsyncExitStack
from statistics import median
import sys
from typing import Final

from scripts.simulation.broker import Mosquitto

from .lines import Child, Line, line, rows
from .way import TURN

COUNTS: Final = (1, 2, 4, 8)
RATE: Final = 10_000  # A second: eight times as many are no trouble for the broker
CHANGED: Final = 4_000
SOURCE: Final = "bthome-ble"
KINDS: Final = {
    "unchanged": f"unchanged advertisement, {RATE:,} a second",
    "changed": f"changed packet of a device, {SOURCE}",
}
type Figures = defaultdict[tuple[str, int], list[float]]


async def run(rounds: int, seconds: float) -> list[Line]:
    """Measure, and return the lines."""
    figures: Figures = defaultdict(list)
    async with (
        AsyncExitStack() as stack,
        Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker,
    ):
        port = str(broker.port)
        ways, devices = {}, {}
        for count in (0, *COUNTS):
            name = {0: "stack", 1: "ble_bridge"}.get(count, f"ble_bridge_{count}")
            ways[count] = await Child.start("benchmarks.way", name, port)
            stack.push_async_callback(ways[count].stop)
            devices[count] = await Child.start(
                "benchmarks.devices",
                "ble_bridge" if count else "stack",
                port,
                str(count),
            )
            stack.push_async_callback(devices[count].stop)
        for number in range(rounds):
            print(
                f"destinations: round {number + 1} of {rounds}",
                file=sys.stderr,
                flush=True,
            )
            for count, way in ways.items():
                await _advertisements(way, count, figures, seconds)
            for count, way in devices.items():
                await _readings(way, count, figures)
    return [made for kind in KINDS for made in _lines(kind, figures)] + [
        line("lost with any of them", figures["lost", 0], "messages", 0)
    ]


async def _advertisements(
    way: Child, count: int, figures: Figures, seconds: float
) -> None:
    """Measure advertisements that stay the same."""
    heard = int(RATE * seconds)
    took = await way.ask({"count": heard, "turn": TURN, "rate": RATE})
    cost = took["cpu"] / heard * 1e6
    _add("unchanged", count, figures, cost)
    figures["lost", 0].append(count * heard - took["sent"])


async def _readings(way: Child, count: int, figures: Figures) -> None:
    """Measure packets of a device that say something else each time."""
    order = {"source": SOURCE, "count": CHANGED, "changed": True, "states": True}
    took = await way.ask(order)
    _add("changed", count, figures, took["cpu"] / CHANGED * 1e6)


def _add(kind: str, count: int, figures: Figures, cost: float) -> None:
    """Add a cost (µs) beyond that of the stack, which comes first in each round."""
    figures[kind, count].append(cost if not count else cost - figures[kind, 0][-1])


def _lines(kind: str, figures: Figures) -> list[Line]:
    """Return two lines for each number of destinations: all of them, and a further one."""
    first = figures[kind, 1]
    made = [line(f"{KINDS[kind]}: one destination", first, "µs")]
    for count in COUNTS[1:]:
        further = [
            (whole - alone) / (count - 1)
            for whole, alone in zip(figures[kind, count], first, strict=True)
        ]
        made += [
            line(f"{KINDS[kind]}: {count} destinations", figures[kind, count], "µs"),
            Line(
                f"{KINDS[kind]}: each further one of {count}",
                median(further),
                "µs",
                (min(further), max(further)),
                "≤ the first",
                median(further) <= median(first),
                f"{median(first):.3g} µs: the first",
            ),
        ]
    return made


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows("CPU beyond the stack's, with more destinations on one broker", lines)
