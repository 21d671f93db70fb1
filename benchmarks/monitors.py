"""Monitors: messages and state changes a second, many devices at once, memory; beside peers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
import json
import sys
from typing import Any, Final

from scripts.simulation.broker import Mosquitto

from .controllers import SENSORS, VALUES
from .lines import Child, Line, line, rows

DEVICES: Final = 1_000
COUNT: Final = 60_000
MESSAGES: Final = 10_000  # A second
CHANGES: Final = 2_000  # A second
LATE: Final = 50  # ms
# Who hears messages: how often each is said in a round, what it is called.
HEARERS: Final = {
    "without_entities": "a monitor, entities not set up",
    "monitor": "a monitor, entities set up, the same values",
    "paho": "paho in a thread, json.loads in on_message",
    "async_subscribe": "mqtt.async_subscribe, json_loads in the callback",
}
PEERS: Final = ("paho", "async_subscribe")
SAID: Final[dict[str, dict[str, Any]]] = {
    "telemetry": {"kind": "telemetry"},
    "telemetry, QoS 1": {"kind": "telemetry", "qos": 1},
    "status": {"kind": "status"},
}
WRITERS: Final = {
    "monitor": "a monitor",
    "with_recorder": "a monitor, with the recorder on SQLite",
    "mqtt_sensors": "sensors of Home Assistant's MQTT integration",
}
APART: Final = "full runs of the garbage collector apart"
FASTEST: Final = 32_000
STEP: Final = 1.25
TRIES: Final = 3  # Other programs have their moments too
ARRIVALS: Final = {
    "start": "first appearance at once",
    "restart": "restart",
    "stop": "unloading, which Home Assistant does in one turn",
    "check": "the check of who is silent",
    "save": "saving the state, anomalies on",
    "away": "the broker goes away, values marked",
    "back": "the broker comes back",
    "forget": "something else is watched from now on",
}
WINDOW: Final = 20
KNOWN: Final = 20_000
FLOOD: Final = 100_000
# MB: how many messages wait at a time is a matter of chance, and Python keeps the room.
MOST: Final = 3.0

type Figures = defaultdict[str, list[float]]


async def profile() -> str:
    """Return in which functions a monitor spends its time, the states that change included."""
    async with garage("monitor") as there:
        await there.do("start")
        await there.introduce()
        how = {"kind": "telemetry", "devices": DEVICES, "qos": 1}
        took = await there.hear(COUNT // 4, profiled=True, **how)
    text: str = took["profile"]
    return text


async def run(rounds: int, seconds: float) -> list[Line]:
    """Measure in fresh processes, and return the lines."""
    figures: Figures = defaultdict(list)
    for number in range(rounds):
        print(f"monitors: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        await _messages(figures, seconds)
        await _changes(figures, max(5.0, seconds))
        await _arrivals(figures)
        await _memory(figures)
    return list(_lines(figures))


class Garage:
    """A broker, controllers that speak, and somebody who hears them."""

    def __init__(self, broker: Mosquitto, controllers: Child, hearer: Child) -> None:
        """Initialize."""
        self.broker = broker
        self._controllers = controllers
        self._hearer = hearer

    async def do(self, what: str, **how: Any) -> dict[str, Any]:
        """Have the hearer do something."""
        return await self._hearer.ask({"do": what, **how})

    async def say(self, count: int, **how: Any) -> dict[str, Any]:
        """Have the controllers say something."""
        return await self._controllers.ask({"count": count, **how})

    async def hear(
        self, count: int, *, profiled: bool = False, **how: Any
    ) -> dict[str, Any]:
        """Have something said, and return what it took to hear it."""
        await self.do("listen")
        said, heard = await asyncio.gather(
            self.say(count, **how), self.do("hear", count=count, profile=profiled)
        )
        return {**heard, "said": said["wall"]}

    async def introduce(self, devices: int = DEVICES, **how: Any) -> None:
        """Have all devices say their status and their telemetry."""
        for kind in ("status", "telemetry"):
            await self.hear(devices, kind=kind, devices=devices, **how)


@asynccontextmanager
async def garage(way: str, **settings: Any) -> AsyncIterator[Garage]:
    """Return a garage whose hearer hears in a way of `benchmarks.monitor`."""
    # The broker keeps for a hearer what it has not acknowledged, however much that is.
    lines = ("set_tcp_nodelay true", "max_queued_messages 0")
    async with Mosquitto(config_lines=lines) as broker:
        port = str(broker.port)
        controllers = await Child.start("benchmarks.controllers", port)
        hearer = await Child.start(
            "benchmarks.monitor", way, port, json.dumps(settings)
        )
        try:
            yield Garage(broker, controllers, hearer)
        finally:
            await hearer.stop()
            await controllers.stop()


# --- messages ---------------------------------------------------------------------------


async def _messages(figures: Figures, seconds: float) -> None:
    """Measure what hearing a message costs, and how many a second are heard."""
    for way in HEARERS:
        async with garage(way) as there:
            await there.do("start")
            await there.introduce()
            for said, how in SAID.items():
                took = await there.hear(
                    COUNT, devices=DEVICES, changed=way != "monitor", **how
                )
                figures[f"{way} {said} cpu"].append(took["cpu"] / COUNT * 1e6)
                figures[f"{way} {said} rate"].append(took["heard"] / took["wall"])
                figures[f"{way} lost"].append(_lost(took, COUNT))
            if way in PEERS:
                continue
            count = int(MESSAGES * seconds)
            took = await there.hear(
                count,
                kind="telemetry",
                devices=DEVICES,
                qos=1,
                changed=way != "monitor",
                rate=1.01 * MESSAGES,  # The last is heard a moment after it is said
            )
            figures[f"{way} sustained"].append(took["heard"] / took["wall"])
            figures[f"{way} sustained lost"].append(_lost(took, count))
            figures[f"{way} sustained load"].append(took["cpu"] / took["wall"] * 100)
            figures[f"{way} sustained late"].append(took["late_apart"] * 1000)


def _lost(took: dict[str, float], count: int) -> float:
    """Return how many messages were not taken for what they are."""
    return count - took["heard"] + took["rejected"]


# --- state changes ----------------------------------------------------------------------


async def _changes(figures: Figures, seconds: float) -> None:
    """Measure what a change of state costs, and how many a second there can be."""
    for way in WRITERS:
        async with garage(way) as there:
            await there.do("start")
            if way != "mqtt_sensors":
                await there.introduce()
            if way == "with_recorder":
                await there.do("settle")
            devices = SENSORS if way == "mqtt_sensors" else DEVICES
            count = int(CHANGES / len(VALUES) * seconds)
            how: dict[str, Any] = {"kind": "telemetry", "devices": devices}
            took = await there.hear(count, rate=1.01 * CHANGES / len(VALUES), **how)
            figures[f"{way} changes"].append(took["changed"] / took["wall"])
            figures[f"{way} missing"].append(
                max(
                    _lost(took, count) * len(VALUES),
                    count * len(VALUES) - took["changed"],
                    0,
                )
            )
            figures[f"{way} change cpu"].append(took["cpu"] / took["changed"] * 1e6)
            for what in ("late", "late_apart", "full_run"):
                figures[f"{way} {what}"].append(took[what] * 1000)
            figures[f"{way} full_runs"].append(took["full_runs"])
            if way == "with_recorder":
                backlog = (await there.do("backlog"))["backlog"]
                figures["backlog"].append(backlog)
            if way == "monitor":
                figures["fastest"].append(await _fastest(there, how, seconds))


async def _fastest(there: Garage, how: dict[str, Any], seconds: float) -> float:
    """Return at how many changes a second none is lost, and the loop is in time."""
    reached, rate, tries = 0.0, 2.0 * CHANGES, 0
    while rate < FASTEST and tries < TRIES:
        count = int(rate / len(VALUES) * seconds)
        took = await there.hear(count, rate=rate / len(VALUES), **how)
        behind = took["wall"] - took["said"]
        if _lost(took, count) or behind > 1 or took["late_apart"] * 1000 > LATE:
            tries += 1
            continue
        reached = took["changed"] / max(took["wall"], took["said"])
        rate, tries = rate * STEP, 0
    return reached


# --- many devices at once ---------------------------------------------------------------


async def _arrivals(figures: Figures) -> None:
    """Measure what it takes when all devices do something at once."""
    async with garage("monitor", mark_stale=True) as there:
        await _keep(there)
        took = {"start": await there.do("start", devices=DEVICES)}
        took["restart"] = await there.do("restart", devices=DEVICES)
        took["stop"] = took["restart"].pop("stop")
        took["check"] = await there.do("check")
        took["away"], _ = await asyncio.gather(
            there.do("away", devices=DEVICES), there.broker.stop()
        )
        await there.broker.start()
        took["back"] = await there.do("back", devices=DEVICES)
        took["forget"] = await there.do("forget")
    for kind, figure in took.items():
        _note(figures, kind, figure)


def _note(figures: Figures, kind: str, took: dict[str, float]) -> None:
    """Take note of what something took, in ms."""
    for what, value in took.items():
        figures[f"{kind} {what}"].append(value * 1000)


async def _keep(there: Garage) -> None:
    """Have the broker keep a status and telemetry of each device."""
    for kind in ("status", "telemetry"):
        await there.say(DEVICES, kind=kind, devices=DEVICES, retain=True)


# --- memory -----------------------------------------------------------------------------


async def _memory(figures: Figures) -> None:
    """Measure what a device takes, and what a flood of unknown ones leaves."""
    for name, way, settings in (
        ("entities", "monitor", {}),
        ("alone", "without_entities", {}),
        ("anomalies", "without_entities", {"anomalies": True, "window": WINDOW}),
    ):
        memory = {}
        for devices in (1, DEVICES):
            async with garage(way, **settings) as there:
                await there.do("start")
                await there.introduce(devices)
                await there.hear(WINDOW * devices, kind="telemetry", devices=devices)
                memory[devices] = (await there.do("memory"))["memory"]
                if devices == DEVICES and name == "alone":
                    await _flood(figures, there)
                if devices == DEVICES and name == "anomalies":
                    _note(figures, "save", await there.do("save"))
        figures[f"memory {name}"].append(
            (memory[DEVICES] - memory[1]) / (DEVICES - 1) * 1000
        )


async def _flood(figures: Figures, there: Garage) -> None:
    """Measure what remains of devices beyond the largest number."""
    memory = []
    for first, last in ((0, KNOWN), (KNOWN, FLOOD)):
        count = last - first
        await there.hear(count, kind="telemetry", devices=count, first=DEVICES + first)
        memory.append((await there.do("memory"))["memory"])
    figures["flood"].append(memory[1] - memory[0])


# --- lines ------------------------------------------------------------------------------


def _lines(figures: Figures) -> Iterator[Line]:
    """Yield the lines of all figures."""
    yield from _message_lines(figures)
    yield from _change_lines(figures)
    for kind, name in ARRIVALS.items():
        title = f"{DEVICES:,} devices, {name}"
        limit = None if kind == "stop" else LATE
        for what, figure, goal in (
            ("CPU of the loop", "total", None),
            ("longest turn of the loop", "longest", limit),
            (f"longest delay of the event loop, {APART}", "late_apart", limit),
            ("the longest of those", "full_run", None),
            ("until it is done", "wall", None),
        ):
            if any(values := figures[f"{kind} {figure}"]):
                yield line(f"{title}: {what}", values, "ms", goal)
    device = "memory of a device with four values"
    yield line(f"{device}, entities set up", figures["memory entities"], "kB")
    yield line(f"{device}, entities not set up", figures["memory alone"], "kB")
    yield line(f"{device}, the same with anomalies", figures["memory anomalies"], "kB")
    yield line(
        f"growth of memory between {KNOWN:,} and {FLOOD:,} unknown devices",
        figures["flood"],
        "MB",
        MOST,
    )


def _message_lines(figures: Figures) -> Iterator[Line]:
    """Yield what hearing costs, beside the peers."""
    for way, name in HEARERS.items():
        ours = way not in PEERS
        for said in SAID:
            title = f"{name}: {said}"
            yield line(
                f"{title}: messages",
                figures[f"{way} {said} rate"],
                "a second",
                MESSAGES if ours else None,
                None if ours else way,
                at_least=True,
            )
            yield line(
                f"{title}: CPU",
                figures[f"{way} {said} cpu"],
                "µs",
                peer=None if ours else way,
            )
        yield line(
            f"{name}: lost",
            figures[f"{way} lost"],
            "messages",
            0 if ours else None,
            None if ours else way,
        )
        if not ours:
            continue
        title = f"{name}: {MESSAGES:,} a second of {DEVICES:,} devices, QoS 1"
        yield line(
            f"{title}: messages",
            figures[f"{way} sustained"],
            "a second",
            MESSAGES,
            at_least=True,
        )
        yield line(f"{title}: lost", figures[f"{way} sustained lost"], "messages", 0)
        yield line(f"{title}: CPU", figures[f"{way} sustained load"], "% of a core")
        yield line(
            f"{title}: longest delay of the event loop",
            figures[f"{way} sustained late"],
            "ms",
            LATE,
        )
    for peer in PEERS:
        for said in SAID:
            yield _multiple(
                f"CPU of {HEARERS[peer]} as a multiple of a monitor's: {said}",
                figures[f"{peer} {said} cpu"],
                figures[f"without_entities {said} cpu"],
                peer,
            )


def _multiple(measure: str, theirs: list[float], ours: list[float], peer: str) -> Line:
    """Return the line of what a peer needs, as a multiple of what we do."""
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    return line(measure, ratios, "times", 1, peer, at_least=True)


def _change_lines(figures: Figures) -> Iterator[Line]:
    """Yield what state changes cost, beside Home Assistant's own sensors."""
    for way, name in WRITERS.items():
        peer = way if way == "mqtt_sensors" else None
        goal = None if peer else 0
        # The recorder's own thread is what it is.
        least, late = (CHANGES, LATE) if way == "monitor" else (None, None)
        title = f"{name}: {CHANGES:,} state changes a second"
        for what, figure, unit, limit in (
            ("state changes", "changes", "a second", least),
            ("missing", "missing", "state changes", goal),
            ("CPU of one", "change cpu", "µs", None),
            (f"longest delay of the event loop, {APART}", "late_apart", "ms", late),
            ("full runs of the garbage collector", "full_runs", "runs", None),
            ("the longest of those", "full_run", "ms", None),
        ):
            values = figures[f"{way} {figure}"]
            yield line(
                f"{title}: {what}", values, unit, limit, peer, at_least=what[0] == "s"
            )
    yield line(
        f"{WRITERS['monitor']}: most state changes with nothing lost and the loop in time",
        figures["fastest"],
        "a second",
        CHANGES,
        at_least=True,
    )
    yield _multiple(
        f"CPU of a state change of {WRITERS['mqtt_sensors']} as a multiple of a monitor's",
        figures["mqtt_sensors change cpu"],
        figures["monitor change cpu"],
        "mqtt_sensors",
    )
    yield line(
        f"backlog of the recorder after {CHANGES:,} state changes a second",
        figures["backlog"],
        "state changes",
    )


def show(lines: list[Line]) -> None:
    """Print a table with a row for each line."""
    rows(f"Monitors: {DEVICES:,} devices on a real broker", lines)
