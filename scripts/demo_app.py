"""Show BLE Bridge at work: a real Home Assistant, a simulated home, a real broker."""

import argparse
import asyncio
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
import fcntl
import json
import os
from pathlib import Path
import shutil
import signal
import sys
import time
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scripts.demo_buses import Bus, NatsBus, TimeSeries, add_bus
from scripts.demo_fleet import FleetResult, MonitoredFleet
from scripts.simulation.broker import Broker, EmbeddedBroker, Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home import Home, load_frames
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import (
    LOOPBACK,
    REPOSITORY,
    SimulationError,
    free_port,
)
from scripts.simulation.residents import DASHBOARD, furnish, move_in
from scripts.simulation.subscriber import Subscriber

PROGRAM: Final = "scripts/demo"
DIRECTORY: Final = REPOSITORY / ".demo"
WEB_PORT: Final = 8123
BRIDGE_ID: Final = "demo"
TOPIC_BASE: Final = "ble"
PROXIES: Final = (
    ("living-room-proxy", "24:6F:28:00:10:00", "Living room"),
    ("bedroom-proxy", "24:6F:28:00:20:00", "Bedroom"),
    ("garage-proxy", "24:6F:28:00:30:00", "Garage"),
)
# What may wait for a client, as in Home Assistant's Mosquitto app: 1,000 without it.
QUEUE: Final = ("max_queued_messages 8192",)
DRAIN_SECONDS: Final = 5.0
VIEW_SECONDS: Final = 0.5
LINE_SECONDS: Final = 5.0
RATE_SECONDS: Final = 5.0
TOPIC_ROWS: Final = 20
EPILOG: Final = """\
The web page is only there for this machine; user and password are printed. What
Home Assistant and the broker wrote stays in .demo/ until the next start.

sent       advertisements that the proxies handed to Home Assistant
published  raw advertisements that BLE Bridge published, by its own count
received   raw advertisements that an independent subscriber got from the broker
lost       sent - received, a few seconds after the last one was sent
nats       with --nats: advertisements that an independent subscriber got from NATS
influx     with --influx: signals of advertisements that VictoriaMetrics has
fleet      with --fleet: valid messages that the controllers sent since the monitor
           listens and those it understood, malformed ones and its dead letters, and
           the devices that it made

The controllers of --fleet speak AutoCore's topics over MQTT, each with a connection of
its own: climate, pumps, gates and meters. Some lose their power, freeze or restart with
new firmware, and what some say is malformed. One stranger too many is a repair.

Home Assistant's Bluetooth stack leaves out Apple's continuity packets before any
integration hears them. The simulated home sends none, so nothing may be lost.

Exit status: 0 if all arrived and was understood, 1 if nothing did, something was lost,
or it failed.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo measured; `--json` prints it in this form."""

    sent: int
    published: int
    received: int
    lost: int
    latency_ms: dict[str, float | None]
    topics: int
    nats: int | None = None
    influx: int | None = None
    fleet: FleetResult | None = None

    @property
    def failure(self) -> str | None:
        """Return what is wrong, in one sentence."""
        if not self.received:
            return "Nothing arrived on the broker."
        if self.lost > 0:
            return f"{self.lost:,} of {self.sent:,} advertisements were lost."
        if self.lost < 0:
            return f"{-self.lost:,} advertisements more arrived than were sent."
        for name, arrived in (("NATS", self.nats), ("the store", self.influx)):
            if arrived is not None and arrived != self.sent:
                return f"Of {self.sent:,} advertisements {arrived:,} are at {name}."
        return self.fleet.failure if self.fleet is not None else None

    @property
    def summary(self) -> str:
        """Return the numbers, in one line."""
        latency = ", ".join(
            f"{name} {value:.1f} ms"
            for name, value in self.latency_ms.items()
            if value is not None
        )
        return (
            f"sent {self.sent:,}, published {self.published:,}, "
            f"received {self.received:,}, lost {self.lost:,}, "
            f"{self.topics} topics, latency {latency or 'unknown'}"
            f"{''.join(self._others())}"
        )

    def _others(self) -> Generator[str]:
        """Yield what arrived elsewhere."""
        for name, arrived in (("NATS", self.nats), ("VictoriaMetrics", self.influx)):
            if arrived is not None:
                yield f", {name} {arrived:,}"
        if self.fleet is not None:
            yield f"; {self.fleet.summary}"


class Rates:
    """Messages a second of each topic, over the last seconds."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._samples: deque[tuple[float, Counter[str]]] = deque()

    def add(self, counts: Counter[str]) -> None:
        """Take the counts of this moment."""
        now = time.monotonic()
        self._samples.append((now, counts))
        while now - self._samples[0][0] > RATE_SECONDS + VIEW_SECONDS:
            self._samples.popleft()

    def latest(self) -> dict[str, float]:
        """Return the rate of each topic."""
        if len(self._samples) < 2:
            return {}
        (start, before), *_, (end, counts) = self._samples
        return {
            topic: (count - before[topic]) / (end - start)
            for topic, count in counts.items()
        }


class View:
    """The live view: a table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, home: Home, subscriber: Subscriber) -> None:
        """Show what a home sends and a subscriber gets."""
        self._console = console
        self._home = home
        self._subscriber = subscriber
        self._rates = Rates()
        self._start = time.monotonic()
        self._next_line = self._start

    @contextmanager
    def shown(self) -> Generator[None]:
        """Keep the terminal's table up to date, where there is one."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console,
            auto_refresh=False,
            get_renderable=self._table,
            transient=True,
        ) as live:
            self._live = live
            yield

    def update(self) -> None:
        """Show the numbers of this moment."""
        self._rates.add(self._subscriber.snapshot())
        if self._console.is_terminal:
            self._live.refresh()
        elif (now := time.monotonic()) >= self._next_line:
            self._next_line = now + LINE_SECONDS
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _totals(self) -> str:
        seconds = time.monotonic() - self._start
        raw = received(self._subscriber.snapshot())
        p50, p99 = (self._subscriber.latency_percentile(p) for p in (0.5, 0.99))
        latency = f", p50 {p50:.1f} ms, p99 {p99:.1f} ms" if p50 and p99 else ""
        return (
            f"{seconds:.0f} s: sent {self._home.sent:,}, received {raw:,}"
            f", {len(self._subscriber.snapshot())} topics{latency}"
        )

    def _line(self) -> str:
        """Return the totals and the rate of each scanner's topics, as a line."""
        rates: dict[str, float] = {}
        for topic, rate in self._rates.latest().items():
            rates[pattern(topic)] = rates.get(pattern(topic), 0) + rate
        parts = [f"{topic} {rate:.1f}/s" for topic, rate in rates.items() if rate]
        return "; ".join((self._totals(), *sorted(parts)))

    def _table(self) -> Group:
        """Return the busiest topics and their rates, as a table."""
        rates = self._rates.latest()
        counts = self._subscriber.snapshot()
        rows = min(TOPIC_ROWS, max(3, self._console.height - 8))
        table = Table("Topic", "Device", "Messages", "Per second", expand=True)
        for column in table.columns[2:]:
            column.justify = "right"
        busiest = sorted(counts, key=lambda topic: (-rates.get(topic, 0), topic))
        for topic in busiest[:rows]:
            model = self._home.models.get(topic.rpartition("/")[2], "")
            table.add_row(
                topic, model, f"{counts[topic]:,}", f"{rates.get(topic, 0):.1f}"
            )
        more = len(busiest) - rows
        table.caption = f"and {more} topics more" if more > 0 else None
        total = f"{self._totals()}, {sum(rates.values()):.1f} messages/s"
        return Group(table, Text(f"{total}. Ctrl-C ends it.", style="bold"))


def pattern(topic: str) -> str:
    """Return what stands for a topic and its like: raw by scanner, others by layout."""
    base, *levels = topic.split("/")
    if base != TOPIC_BASE:
        return f"{base}/#"
    return (
        f"{base}/raw/{levels[1]}/+" if levels[0] == "raw" else f"{base}/{levels[0]}/#"
    )


def received(counts: Counter[str]) -> int:
    """Return how many raw advertisements of the simulated proxies arrived."""
    prefixes = tuple(f"{TOPIC_BASE}/raw/{name}/" for name, *_ in PROXIES)
    return sum(number for topic, number in counts.items() if topic.startswith(prefixes))


class Demo:
    """The demo from its start to its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Prepare a demo with the options of the command line."""
        self._options = options
        # With --json nothing but JSON goes to stdout.
        self._console = Console(stderr=options.json)
        self._start = time.monotonic()
        self._stop = asyncio.Event()
        self._streaming = False
        self._task: asyncio.Task[Result] | None = None

    async def run(self) -> Result:
        """Run until the time is over or a signal arrives."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)
        try:
            return await self._task
        except asyncio.CancelledError:
            raise SimulationError("Stopped before anything was streamed.") from None

    def _end(self) -> None:
        """End the streaming, or the start that is under way."""
        if self._streaming:
            self._stop.set()
        elif self._task:
            self._task.cancel()

    def _progress(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:5.1f} s  {text}", file=sys.stderr)

    async def _run(self) -> Result:
        """Start everything, stream, and measure; all of it ends with this."""
        async with AsyncExitStack() as stack:
            stack.enter_context(empty_directory(DIRECTORY))
            broker = await stack.enter_async_context(self._broker())
            self._progress(f"{broker.name} is up on port {broker.port}")
            subscriber = await stack.enter_async_context(
                Subscriber(
                    broker.port,
                    "#",
                    keep=False,
                    measured=f"{TOPIC_BASE}/raw/",
                )
            )
            proxies = [
                await stack.enter_async_context(EsphomeProxy(name, mac, area=area))
                for name, mac, area in PROXIES
            ]
            home = Home(load_frames(), proxies, self._options.rate)
            self._progress("starting Home Assistant")
            home_assistant = await stack.enter_async_context(
                HomeAssistantProcess(
                    DIRECTORY / "home-assistant",
                    self._options.port or free_port(WEB_PORT),
                )
            )
            self._progress("adding the proxies and BLE Bridge")
            await add_proxies(home_assistant, proxies)
            entry_id = await add_bridge(home_assistant, broker, subscriber)
            nats = NatsBus() if self._options.nats else None
            influx = TimeSeries() if self._options.influx else None
            buses = [bus for bus in (nats, influx) if bus is not None]
            for bus in buses:
                await self._add(stack, home_assistant, entry_id, bus)
            self._progress("naming devices, and making a dashboard")
            await move_in(home_assistant, entry_id)
            await furnish(home_assistant)
            await connected(home_assistant, entry_id)
            fleet = None
            if self._options.fleet:
                fleet = await self._add_fleet(stack, home_assistant, entry_id, broker)
            self._progress("streaming")
            await self._introduce(home_assistant, broker, buses, fleet)
            await self._stream(home, subscriber, home_assistant, fleet)
            result = await measure(home, subscriber, home_assistant, entry_id)
            if fleet is not None:
                told = await fleet.result(home_assistant, entry_id)
                result = replace(result, fleet=told)
            if nats is not None:
                result = replace(result, nats=await arrived(nats, home.sent))
            if influx is not None:
                result = replace(result, influx=await arrived(influx, home.sent))
            self._progress("stopping everything")
        self._progress("done, and nothing left running")
        return result

    async def _add(
        self,
        stack: AsyncExitStack,
        home_assistant: HomeAssistantProcess,
        entry_id: str,
        bus: Bus,
    ) -> None:
        """Start something beside MQTT, and add a destination there."""
        await stack.enter_async_context(bus)
        self._progress(f"{bus.place[0]} is up; adding a destination there")
        await add_bus(home_assistant, entry_id, bus)
        await connected(home_assistant, entry_id)  # For it is loaded anew

    async def _add_fleet(
        self,
        stack: AsyncExitStack,
        home_assistant: HomeAssistantProcess,
        entry_id: str,
        broker: Broker,
    ) -> MonitoredFleet:
        """Start a fleet of controllers, and add a monitor of it."""
        self._progress(f"starting {self._options.fleet} controllers")
        fleet = await stack.enter_async_context(
            MonitoredFleet(self._options.fleet, broker)
        )
        self._progress("adding a monitor, which listens for five seconds")
        await fleet.add_monitor(home_assistant, entry_id)
        await connected(home_assistant, entry_id)
        return fleet

    def _broker(self) -> Broker:
        """Return a Mosquitto where there is one, else a broker in this process."""
        if not Mosquitto.available():
            return EmbeddedBroker(self._options.mqtt_port)
        directory = DIRECTORY / "broker"
        directory.mkdir()
        return Mosquitto(self._options.mqtt_port, QUEUE, directory=directory)

    async def _introduce(
        self,
        home_assistant: HomeAssistantProcess,
        broker: Broker,
        buses: Sequence[Bus],
        fleet: MonitoredFleet | None,
    ) -> None:
        """Say where everything is."""
        page = "config/integrations/integration/ble_bridge"
        rows = (
            ("Home Assistant", f"{home_assistant.url}/{DASHBOARD}"),
            ("BLE Bridge", f"{home_assistant.url}/{page}"),
            *(await fleet.pages(home_assistant) if fleet is not None else ()),
            ("user", home_assistant.username),
            ("password", home_assistant.password),
            ("MQTT broker", f"{LOOPBACK}:{broker.port} ({broker.name})"),
            *(bus.place for bus in buses),
        )
        for name, value in rows:
            self._console.print(
                f"{name + ':':16}{value}", highlight=False, soft_wrap=True
            )

    async def _stream(
        self,
        home: Home,
        subscriber: Subscriber,
        home_assistant: HomeAssistantProcess,
        fleet: MonitoredFleet | None,
    ) -> None:
        """Play the home and show what arrives, until the time is over."""
        self._streaming = True
        view = View(self._console, home, subscriber)
        playing = asyncio.create_task(home.play())
        end = time.monotonic() + self._options.seconds
        try:
            with view.shown():
                while not self._stop.is_set() and time.monotonic() < end:
                    home_assistant.check()
                    if playing.done():
                        playing.result()
                    if fleet is not None:
                        fleet.check()
                    view.update()
                    left = end - time.monotonic()
                    await wait_for(self._stop, min(VIEW_SECONDS, left))
        finally:
            playing.cancel()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for a limited time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


@contextmanager
def empty_directory(directory: Path) -> Generator[None]:
    """Empty a directory, and keep it for this process alone."""
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SimulationError(
                f"Another {PROGRAM} is running in this checkout."
            ) from None
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield
    finally:
        os.close(descriptor)


async def add_proxies(
    home_assistant: HomeAssistantProcess, proxies: Sequence[EsphomeProxy]
) -> None:
    """Add each proxy as a user does, through the form of the ESPHome integration."""
    for proxy in proxies:
        address = {"host": LOOPBACK, "port": proxy.port}
        created(await home_assistant.flow("esphome", address), proxy.name)
    for proxy in proxies:
        await proxy.wait_ready()


async def add_bridge(
    home_assistant: HomeAssistantProcess, broker: Broker, subscriber: Subscriber
) -> str:
    """Add BLE Bridge through its own form, wait for it, and return its entry's ID."""
    form = {
        "name": "BLE Bridge",
        "bridge_id": BRIDGE_ID,
        "host": LOOPBACK,
        "port": broker.port,
        "fields": {"enabled": True},
        "values": {"enabled": True},
        "advanced": {"topic_base": TOPIC_BASE, "protocol": broker.protocol},
    }
    entry = created(
        await home_assistant.flow("ble_bridge", {"next_step_id": "to_mqtt"}, form),
        "BLE Bridge",
    )
    status = f"{TOPIC_BASE}/bridge/{BRIDGE_ID}/status"
    try:
        await subscriber.wait_for(lambda heard: heard.counts[status] > 0, timeout=20)
    except SimulationError:
        raise SimulationError("BLE Bridge does not connect to the broker.") from None
    entry_id: str = entry["entry_id"]
    return entry_id


async def connected(home_assistant: HomeAssistantProcess, entry_id: str) -> None:
    """Wait until BLE Bridge is there again with the settings that were changed last."""
    await home_assistant.wait_loaded("ble_bridge")
    async with asyncio.timeout(20):
        while True:
            found = (await home_assistant.diagnostics(entry_id)).get("destinations")
            if found and all(destination["connected"] for destination in found):
                return
            await asyncio.sleep(0.05)


def created(result: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the entry that a config flow made, or say why it made none."""
    if result["type"] != "create_entry":
        reason = result.get("reason") or result.get("errors") or result["type"]
        raise SimulationError(f"{name} could not be added: {reason}.")
    entry: dict[str, Any] = result["result"]
    return entry


async def arrived(bus: Bus, sent: int) -> int:
    """Return how much arrived, a few seconds after the last was sent at the latest."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while (number := await bus.received()) < sent and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return number


async def measure(
    home: Home,
    subscriber: Subscriber,
    home_assistant: HomeAssistantProcess,
    entry_id: str,
) -> Result:
    """Wait a moment for what is still under way, and return the numbers."""
    with suppress(SimulationError):  # the numbers will tell
        await subscriber.wait_for(
            lambda heard: received(heard.snapshot()) >= home.sent, DRAIN_SECONDS
        )
    diagnostics = await home_assistant.diagnostics(entry_id)
    arrived = received(subscriber.snapshot())
    return Result(
        sent=home.sent,
        published=sum(
            destination["counters"]["sent"]
            for destination in diagnostics["destinations"]
            if destination["configuration"].get("kind", "mqtt") == "mqtt"
        ),
        received=arrived,
        lost=home.sent - arrived,
        latency_ms={
            name: value if value is None else round(value, 2)
            for name, value in (
                ("p50", subscriber.latency_percentile(0.50)),
                ("p99", subscriber.latency_percentile(0.99)),
            )
        },
        topics=len(subscriber.snapshot()),
    )


def port_number(text: str) -> int:
    """Return a TCP port from the command line."""
    if not text.isdecimal() or not 0 < (port := int(text)) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 1 to 65535.")
    return port


def whole(text: str) -> int:
    """Return a positive whole number from the command line."""
    if not text.isdecimal() or not (number := int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0.")
    return number


def positive(text: str) -> float:
    """Return a positive number from the command line."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0.")
    return number


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=float("inf"),
        metavar="N",
        help="stream for N seconds instead of until Ctrl-C",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the numbers as one JSON object on the last line",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=0,
        help=f"port of the web page ({WEB_PORT}, or a free one)",
    )
    parser.add_argument(
        "--mqtt-port",
        type=port_number,
        default=0,
        help="port of the broker (a free one)",
    )
    parser.add_argument(
        "--rate",
        type=positive,
        default=1.0,
        metavar="X",
        help="multiply the traffic of about 60 advertisements a second",
    )
    parser.add_argument(
        "--nats", action="store_true", help="publish to a NATS server too"
    )
    parser.add_argument(
        "--influx",
        action="store_true",
        help="write to VictoriaMetrics too, as to InfluxDB",
    )
    parser.add_argument(
        "--fleet",
        type=whole,
        default=0,
        metavar="N",
        help="add N controllers on MQTT (200, say), and a monitor of them",
    )
    return parser.parse_args()


def main() -> int:
    """Run the demo, and return the exit status."""
    options = parse_options()
    try:
        result = asyncio.run(Demo(options).run())
    except SimulationError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)) if options.json else result.summary)
    if result.failure:
        print(f"error: {result.failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
