"""What remains of 100,000 random addresses, each heard once."""

from collections import defaultdict
import sys
from typing import Final

from scripts.simulation.broker import Mosquitto

from .lines import Child, Line, line, rows

# More than what BLE Bridge remembers of addresses, then all of them.
FULL: Final = 20_000
ALL: Final = 100_000
MOST: Final = 1.0  # MB: what a measurement of memory is wrong by


async def run(rounds: int, _seconds: float) -> list[Line]:
    """Measure in fresh processes, and return the lines."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    async with Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker:
        for number in range(rounds):
            print(
                f"addresses: round {number + 1} of {rounds}",
                file=sys.stderr,
                flush=True,
            )
            stack = await _memory("stack", broker.port)
            ours = await _memory("ble_bridge", broker.port)
            full, end = (o - s for o, s in zip(ours, stack, strict=True))
            figures["full"].append(full)
            figures["growth"].append(end - full)
            figures["stack"].append(stack[1] - stack[0])
    growth = f"growth of memory between {FULL:,} and {ALL:,} random addresses"
    return [
        line(f"memory after {FULL:,} random addresses", figures["full"], "MB"),
        line(growth, figures["growth"], "MB", MOST, "the stack alone"),
        line(f"the stack itself: {growth}", figures["stack"], "MB"),
    ]


async def _memory(name: str, port: int) -> tuple[float, float]:
    """Return the memory of a way (MB) after the first of the addresses, and after all."""
    way = await Child.start("benchmarks.way", name, str(port))
    full = await way.ask({"strangers": FULL})
    end = await way.ask({"strangers": ALL - FULL})
    await way.stop()
    return full["memory"], end["memory"]


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows("Random addresses, each heard once: memory beyond the stack's", lines)
