"""What a house full of devices costs: start-up, memory, and a second of its packets."""

from collections import defaultdict
from contextlib import AsyncExitStack
import sys
from typing import Final

from scripts.simulation.broker import Mosquitto

from .house import ON_AIR, SCANNERS
from .lines import Child, Line, line, rows

DEVICES: Final = 300
RATE: Final = 1_000
WAYS: Final = {"stack": -1, "one": 1, "house": DEVICES}
STARTS: Final = {
    "start": "first start",
    "restart": "restart, entities and values known",
}


async def run(rounds: int, seconds: float) -> list[Line]:
    """Measure in fresh processes, and return the lines."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        print(f"house: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        async with (
            AsyncExitStack() as stack,
            Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker,
        ):
            ways = {}
            for name, devices in WAYS.items():
                ways[name] = await Child.start(
                    "benchmarks.house", str(devices), str(broker.port)
                )
                stack.push_async_callback(ways[name].stop)
            await _one_round(ways, figures, seconds)
    return _lines(figures)


async def _one_round(
    ways: dict[str, Child], figures: defaultdict[str, list[float]], seconds: float
) -> None:
    """Measure each way once."""
    memory, load = {}, {}
    for name, way in ways.items():
        took = await way.ask({"do": "start"})
        memory[name] = (await way.ask({"do": "memory"}))["memory"]
        if name != "one":
            even = await way.ask({"do": "even", "seconds": seconds, "rate": RATE})
            load[name] = even["cpu"] / even["wall"] * 100
            figures["readings"].append(even["readings"] / even["wall"])
        if name == "house":
            again = await way.ask({"do": "restart"})
            for kind, figure in (("start", took), ("restart", again)):
                for what, value in figure.items():
                    figures[f"{kind} {what}"].append(value * 1000)
    figures["memory"].append(memory["house"] - memory["stack"])
    figures["per device"].append(
        (memory["house"] - memory["one"]) / (DEVICES - WAYS["one"]) * 1000
    )
    figures["load"].append(load["house"] - load["stack"])


def _lines(figures: dict[str, list[float]]) -> list[Line]:
    """Return the lines of all figures."""
    house = f"{DEVICES} devices of {ON_AIR} addresses at {SCANNERS} scanners"
    made = []
    for kind, name in STARTS.items():
        title = f"{name}, {house}"
        made += [
            line(f"{title}: CPU of the loop", figures[f"{kind} total"], "ms", 500),
            line(
                f"{title}: longest turn of the loop",
                figures[f"{kind} longest"],
                "ms",
                50,
            ),
            line(
                f"{title}: garbage collector, not in these",
                figures[f"{kind} collecting"],
                "ms",
            ),
            line(
                f"{title}: loop late by the clock, garbage collector included",
                figures[f"{kind} late"],
                "ms",
                50,
            ),
            line(
                f"{title}: one full run of the garbage collector before it",
                figures[f"{kind} full"],
                "ms",
            ),
            line(
                f"{title}: until all states are there",
                figures[f"{kind} wall"],
                "ms",
            ),
        ]
    return [
        *made,
        line(f"memory, {house}", figures["memory"], "MB", peer="the stack alone"),
        line(
            "memory of a device with four fields and ten entities",
            figures["per device"],
            "kB",
            peer="BLE Bridge with one device",
        ),
        line(
            f"CPU at {RATE} packets a second of {DEVICES} devices, 1 in 10 changed",
            figures["load"],
            "% of a core",
            peer="the stack alone",
        ),
        line(
            f"readings made at {RATE} packets a second",
            [value for value in figures["readings"] if value],
            "a second",
        ),
    ]


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows(f"A house: {DEVICES} devices, {ON_AIR} addresses on air", lines)
