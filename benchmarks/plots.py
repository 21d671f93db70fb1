"""Cost against rate, and against the number of devices, as pictures."""

from contextlib import AsyncExitStack
from statistics import median
import sys
from typing import Any, Final

from scripts.simulation.broker import Mosquitto

from .lines import THEENGS, Child, draw
from .way import TURN

RATES: Final = (100, 300, 1_000, 3_000, 10_000, 20_000, 50_000)
HOUSES: Final = (10, 100, 300, 1_000, 3_000, 10_000)
COUNT: Final = 40_000
KEPT_UP: Final = 0.98
WAYS: Final = {
    "ble_bridge": "BLE Bridge",
    "ble_bridge_qos1": "BLE Bridge, QoS 1",
    "paho": "paho publish",
    "async_publish": "mqtt.async_publish",
}
FEW: Final = 500


async def run(rounds: int, seconds: float) -> None:
    """Measure and draw."""
    async with Mosquitto(config_lines=("set_tcp_nodelay true",)) as broker:
        port = str(broker.port)
        draw("performance-rate", {"ways": await _rates(port, rounds, seconds)})
        draw("performance-devices", await _devices(port, rounds))


async def _rates(
    port: str, rounds: int, seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """Return % of a core at each rate that a way keeps up with."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS.values()}
    async with AsyncExitStack() as stack:
        children = {}
        for way in ("stack", *WAYS):
            children[way] = await Child.start("benchmarks.way", way, port)
            stack.push_async_callback(children[way].stop)
        behind: set[str] = set()
        for rate in RATES:
            print(f"plots: {rate:,} a second", file=sys.stderr, flush=True)
            # What comes within a millisecond comes at once, up to what a proxy sends.
            turn = max(1, min(TURN, rate // 1000))
            order = {"count": int(rate * seconds), "rate": rate, "turn": turn}
            took = await _alternate(children, behind, order, rounds)
            for way, name in WAYS.items():
                loads = [
                    (mine["cpu"] - stack["cpu"]) / mine["wall"] * 100
                    for mine, stack in zip(took[way], took["stack"], strict=False)
                ]
                walls = [mine["wall"] for mine in took[way]]
                if not walls or order["count"] / median(walls) < KEPT_UP * rate:
                    behind.add(way)
                else:
                    points[name].append((rate, median(loads)))
    if THEENGS.exists():
        points["Theengs Gateway"] = await _theengs(port)
    return points


async def _alternate(
    children: dict[str, Child], behind: set[str], order: dict[str, Any], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Return what each way took in each round."""
    took: dict[str, list[dict[str, Any]]] = {way: [] for way in children}
    for _ in range(rounds):
        for way, child in children.items():
            if way not in behind:
                took[way].append(await child.ask(order))
    return took


async def _theengs(port: str) -> list[tuple[float, float]]:
    """Return the same of Theengs Gateway, up to where it would need a whole core."""
    gateway = await Child.start("benchmarks.theengs", port, python=THEENGS)
    took = await gateway.ask({"count": FEW, "decoded": False})
    await gateway.stop()
    seconds = took["cpu"] / FEW
    rates = [rate for rate in RATES if rate * seconds < 1]
    return [(rate, rate * seconds * 100) for rate in (*rates, 1 / seconds)]


async def _devices(port: str, rounds: int) -> dict[str, list[tuple[int, float]]]:
    """Return cost (µs) and memory (MB) beyond the stack's for houses of all sizes."""
    cost: dict[int, list[float]] = {size: [] for size in HOUSES}
    memory: dict[int, list[float]] = {size: [] for size in HOUSES}
    for number in range(rounds):
        print(f"plots: devices, round {number + 1}", file=sys.stderr, flush=True)
        stack = await Child.start("benchmarks.way", "stack", port)
        ours = await Child.start("benchmarks.way", "ble_bridge", port)
        for size in HOUSES:
            filled = [await way.ask({"devices": size}) for way in (stack, ours)]
            memory[size].append(filled[1]["memory"] - filled[0]["memory"])
            busy = [
                await way.ask({"count": COUNT, "turn": TURN}) for way in (stack, ours)
            ]
            cost[size].append((busy[1]["cpu"] - busy[0]["cpu"]) / COUNT * 1e6)
        await stack.stop()
        await ours.stop()
    return {
        "cost": [(size, median(values)) for size, values in cost.items()],
        "memory": [(size, median(values)) for size, values in memory.items()],
    }
