"""What a packet of one of the user's devices costs, for each library."""

from collections import defaultdict
from contextlib import AsyncExitStack
from statistics import median
import sys
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.simulation.broker import Mosquitto

from .lines import Child, Line, cell, line

COUNT: Final = 2_000
# What BLE Bridge may need beyond the library itself (µs).
BEYOND: Final = 100
# As many readings as packets, but for those that stood before the same bytes.
ENOUGH: Final = 0.99
KINDS: Final = {
    "changed": {"changed": True, "states": True},
    "burst": {"changed": True, "states": False},
    "unchanged": {"changed": False, "states": False},
}
type Figures = defaultdict[tuple[str, str], list[float]]


async def run(rounds: int, _seconds: float) -> list[Line]:
    """Measure, and return three lines a library."""
    figures: Figures = defaultdict(list)
    async with (
        AsyncExitStack() as stack,
        Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker,
    ):
        ways = {}
        for name in ("stack", "ble_bridge"):
            ways[name] = await Child.start("benchmarks.devices", name, str(broker.port))
            stack.push_async_callback(ways[name].stop)
        fields = await ways["stack"].ask()
        for number in range(rounds):
            print(
                f"devices: round {number + 1} of {rounds}", file=sys.stderr, flush=True
            )
            for source in fields:
                await _one(ways, source, figures)
    return [
        made for source in fields for made in _lines(source, fields[source], figures)
    ]


async def _one(ways: dict[str, Child], source: str, figures: Figures) -> None:
    """Measure the packets of one source once."""
    order: dict[str, Any] = {"source": source, "count": COUNT}
    library = (await ways["stack"].ask(order))["cpu"]
    figures[source, "library"].append(library / COUNT * 1e6)
    for kind, how in KINDS.items():
        stack = await ways["stack"].ask({**order, **how})
        ours = await ways["ble_bridge"].ask({**order, **how})
        cost = (ours["cpu"] - stack["cpu"]) / COUNT * 1e6
        figures[source, kind].append(cost)
        if how["changed"]:
            figures[source, "readings"].append(ours["readings"] / COUNT)


def _lines(source: str, fields: int, figures: Figures) -> list[Line]:
    """Return the lines of a source."""
    library = figures[source, "library"]
    peer = f"{median(library):.1f} µs: the library itself, {fields} fields"
    changed = figures[source, "changed"]
    beyond = median(
        ours - theirs for ours, theirs in zip(changed, library, strict=True)
    )
    whole = min(figures[source, "readings"]) >= ENOUGH
    mark = "" if whole else " (NOT EVERY PACKET MADE A READING)"
    return [
        Line(
            f"changed packet, {source}{mark}",
            median(changed),
            "µs",
            (min(changed), max(changed)),
            f"≤ {BEYOND} µs beyond the library",
            whole and beyond <= BEYOND,
            peer,
        ),
        line(
            f"changed packet in a burst, states once a second, {source}",
            figures[source, "burst"],
            "µs",
            peer=peer,
        ),
        line(f"unchanged packet, {source}", figures[source, "unchanged"], "µs"),
    ]


def show(lines: list[Line]) -> None:
    """Print a table with a row for each library."""
    table = Table(
        title="CPU of a packet of a device beyond the stack's (µs), to state and socket"
    )
    table.add_column("", no_wrap=True)
    for name in ("library itself", "changed", "in a burst", "unchanged"):
        table.add_column(name, justify="right")
    table.add_column(f"≤ {BEYOND} beyond the library", justify="center")
    for changed, burst, unchanged in zip(*[iter(lines)] * 3, strict=True):
        table.add_row(
            changed.measure.removeprefix("changed packet, "),
            (changed.peer or "").replace(" µs: the library itself, ", "\n"),
            *map(cell, (changed, burst, unchanged)),
            "✓" if changed.met else "[red]✗[/red]",
        )
    Console().print(table)
