"""NATS and the line protocol: records a second, and CPU beside a bare client, in one run."""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
import sys
from typing import Any, Final

from scripts.simulation.metrics_stores import VictoriaMetrics
from scripts.simulation.nats_server import NatsServer

from .lines import Child, Line, line, rows
from .way import TURN

COUNTS: Final = {"nats": 100_000, "jetstream": 40_000, "lines": 400_000}
NAMES: Final = {
    "nats": "core NATS: advertisements as protobuf",
    "jetstream": "JetStream: the same, acknowledged",
    "lines": "InfluxDB line protocol: the signal of each advertisement",
}
PEERS: Final = {
    "nats": "nats-py, `publish` for each ready-made message",
    "jetstream": "nats-py, `publish_async` for each ready-made message",
    "lines": "aiohttp, a request for each 5,000 ready-made lines",
}
# A buffer is bounded, and a store slower than what is heard as fast as it goes.
RATES: Final = {"lines": 102_000}
LEAST: Final = {"nats": 50_000, "jetstream": 15_000, "lines": 100_000}


async def run(rounds: int, _seconds: float) -> list[Line]:
    """Measure all ways, and return the lines."""
    figures: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        servers: dict[str, Any] = {}
        for name in NAMES:
            for way in (name, f"{name}_bare"):
                # Two in one JetStream would have one stream.
                server = (
                    VictoriaMetrics() if name == "lines" else NatsServer(jetstream=True)
                )
                servers[way] = await stack.enter_async_context(server)
        none = await stack.enter_async_context(NatsServer())
        ways = {"stack": await Child.start("benchmarks.way", "stack", str(none.port))}
        for way, server in servers.items():
            ways[way] = await Child.start("benchmarks.bus", way, str(server.port))
        for child in ways.values():
            stack.push_async_callback(child.stop)
        for number in range(rounds):
            print(f"buses: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for name, count in COUNTS.items():
                order = {"count": count, "turn": TURN}
                base = (await ways["stack"].ask(order))["cpu"] / count
                for way in (name, f"{name}_bare"):
                    before = await _taken(servers[way])
                    pace = {"rate": RATES[way]} if way in RATES else {}
                    took = await ways[way].ask({**order, **pace})
                    taken = await _taken(servers[way]) - before
                    figures[way, "rate"].append(took["sent"] / took["wall"])
                    figures[way, "cpu"].append((took["cpu"] / count - base) * 1e6)
                    figures[way, "late"].append(took["late_ms"])
                    figures[way, "lost"].append(max(count - taken, 0))
    return _lines(figures)


async def _taken(server: NatsServer | VictoriaMetrics) -> int:
    """Return how many records a server says that it has taken."""
    if isinstance(server, VictoriaMetrics):
        await asyncio.sleep(1.5)  # It works its figures out once a second
        return await server.rows()
    found: dict[str, int] = await server.monitor("varz")
    return found["in_msgs"]


def _lines(figures: dict[tuple[str, str], list[float]]) -> list[Line]:
    """Return the lines: each way beside its peer."""
    made = []
    for name, title in NAMES.items():
        bare = f"{name}_bare"
        made += [
            line(
                f"{title}: records",
                figures[name, "rate"],
                "a second",
                LEAST[name],
                at_least=True,
            ),
            line(f"{title}: CPU beyond the stack's", figures[name, "cpu"], "µs"),
            line(
                f"{title}: longest delay of the event loop",
                figures[name, "late"],
                "ms",
            ),
            line(
                f"{title}: not arrived",
                figures[name, "lost"],
                "records",
                # A run of the garbage collector takes longer than the buffer lasts.
                None if name in RATES else 0,
            ),
            line(
                f"{PEERS[name]}: records", figures[bare, "rate"], "a second", peer=bare
            ),
            line(
                f"{PEERS[name]}: CPU beyond the stack's",
                figures[bare, "cpu"],
                "µs",
                peer=bare,
            ),
        ]
    return made


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows("Other destinations than MQTT, beside their bare clients", lines)
