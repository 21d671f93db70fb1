"""Lines of the table, and the processes that measure what is in them."""

import asyncio
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
import json
from pathlib import Path
from statistics import median
import subprocess
import sys
from typing import Any, Final, cast

from rich.console import Console
from rich.table import Table

from scripts.simulation.processes import REPOSITORY

LIMIT: Final = 2**26  # Bytes of one line that a child prints
THEENGS: Final = REPOSITORY / ".tools/theengs/bin/python"
PAINTER: Final = REPOSITORY / ".tools/plots/bin/python"  # scripts/setup bench makes it


@dataclass(frozen=True, slots=True)
class Line:
    """A measured figure beside its goal or peer; `spread` is its lowest and highest."""

    measure: str
    value: float
    unit: str
    spread: tuple[float, float]
    goal: str | None
    met: bool | None
    peer: str | None


class Child:
    """A process that answers a line with a JSON object."""

    def __init__(self, process: Process) -> None:
        """Initialize with a process whose input and output are pipes."""
        self._process = process
        self._input = cast(asyncio.StreamWriter, process.stdin)
        self._output = cast(asyncio.StreamReader, process.stdout)

    @classmethod
    async def start(cls, *arguments: str, python: Path = Path(sys.executable)) -> Child:
        """Start a module of ours, and wait until it is ready."""
        child = cls(
            await asyncio.create_subprocess_exec(
                python, "-m", *arguments, stdin=PIPE, stdout=PIPE, limit=LIMIT
            )
        )
        if await child.read() != b"ready\n":
            raise SystemExit(f"{' '.join(arguments)} did not start.")
        return child

    async def read(self) -> bytes:
        """Read a line."""
        return await self._output.readline()

    async def ask(self, order: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send an order and return the answer."""
        self._input.write(json.dumps(order or {}).encode() + b"\n")
        line = await self.read()
        if not line:
            raise SystemExit("A measured process ended early.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """End the process."""
        self._input.close()
        await self._process.wait()


def line(
    measure: str,
    values: list[float],
    unit: str,
    limit: float | None = None,
    peer: str | None = None,
    *,
    at_least: bool = False,
) -> Line:
    """Return the line of a figure, which is to be at most, or at least, so much."""
    value = median(values)
    met = None
    if limit is not None:
        met = value >= limit if at_least else value <= limit
    return Line(
        measure,
        value,
        unit,
        (min(values), max(values)),
        None if limit is None else f"{'≥' if at_least else '≤'} {limit:,g}",
        met,
        peer,
    )


def draw(name: str, data: dict[str, Any]) -> None:
    """Draw what was measured into docs/images, if matplotlib is there."""
    if not PAINTER.exists():
        print(f"{name}: not drawn, matplotlib could not be had", file=sys.stderr)
        return
    path = REPOSITORY / f"docs/images/{name}.png"
    subprocess.run(
        [PAINTER, "-m", "benchmarks.draw", name, path],
        input=json.dumps(data),
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    print(f"{name}: drawn, {path.relative_to(REPOSITORY)}", file=sys.stderr)


def rows(title: str, lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    table = Table(title=title)
    for name in ("", "median", "goal"):
        table.add_column(name, justify="right" if name else "left")
    for made in lines:
        mark = "" if made.met is None else " ✓" if made.met else " [red]✗[/red]"
        table.add_row(
            f"{made.measure} ({made.unit})", cell(made), f"{made.goal or ''}{mark}"
        )
    Console().print(table)


def cell(figure: Line) -> str:
    """Return a figure and its spread."""

    def short(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    low, high = map(short, figure.spread)
    return f"{short(figure.value)}\n[dim]{low} … {high}[/dim]"
