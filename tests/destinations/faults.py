"""What the tests of faults share: a network that fails, a broker that obeys, and sums."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
import json
from typing import Any, Self, override

from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from scripts.simulation.processes import free_port
from scripts.simulation.subscriber import Message, Subscriber
from tests.conftest import SimulatedScanner

LOGGER = "custom_components.ble_bridge"

# Why a record is dropped.
DROPPED = ("away", "overflow", "expired", "refused", "failed")

type Diagnose = Callable[[MockConfigEntry], Awaitable[dict[str, Any]]]


def numbered(number: int) -> bytes:
    """Return a packet that carries a number."""
    return bytes.fromhex("02010607fffeff") + number.to_bytes(4)


def numbers(messages: list[Message]) -> list[int]:
    """Return the numbers that messages carry."""
    return [
        int(json.loads(message.payload)["manufacturer_data"]["feff"], 16)
        for message in messages
    ]


def arrived(subscriber: Subscriber, base: str = "ble") -> list[int]:
    """Return the numbers that arrived, in order."""
    return numbers(
        [
            message
            for message in tuple(subscriber.messages)
            if message.topic.startswith(f"{base}/raw/")
        ]
    )


async def stream(
    scanner: SimulatedScanner, first: int, count: int, *, at_once: int = 50
) -> None:
    """Hear numbered packets, some in each turn of the loop."""
    for number in range(first, first + count):
        scanner.hear(raw=numbered(number))
        if not number % at_once:
            await asyncio.sleep(0)


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what was logged at a level, but for the rates."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(LOGGER)
        and record.levelno == level
        and "a second received" not in record.getMessage()
    ]


def state(hass: HomeAssistant, port: int, key: str) -> str:
    """Return the state of a destination's sensor."""
    found = hass.states.get(f"sensor.127_0_0_1_{port}_{key}")
    assert found is not None
    return found.state


def assert_adds_up(diagnostics: dict[str, Any]) -> None:
    """Check that each advertisement was filtered, sent or dropped, or waits."""
    scanners = {scanner["scanner_id"]: scanner for scanner in diagnostics["scanners"]}
    for destination in diagnostics["destinations"]:
        total = destination["counters"]
        assert total["received"] == sum(s["received"] for s in scanners.values())
        assert total["received"] == total["filtered"] + total["dropped"] + (
            total["acknowledged"] + total["sent"] + total["waiting"]
        )
        assert total["dropped"] == sum(total[reason] for reason in DROPPED)
        for tally in (
            *destination["records"].values(),
            *destination["scanners"].values(),
        ):
            assert tally["received"] == tally["acknowledged"] + tally["sent"] + (
                tally["waiting"] + sum(tally[reason] for reason in DROPPED)
            )
            assert tally["waiting"] >= 0
        for scanner_id, tally in destination["scanners"].items():
            scanner = scanners[scanner_id]
            assert scanner["received"] - scanner["filtered"] == tally["received"]
        waiting = sum(tally["waiting"] for tally in destination["scanners"].values())
        assert waiting == total["waiting"]


def diagnose_with(hass: HomeAssistant, hass_client: ClientSessionGenerator) -> Diagnose:
    """Return what downloads the diagnostics of an entry, and checks its sums."""

    async def diagnose(entry: MockConfigEntry) -> dict[str, Any]:
        diagnostics: dict[str, Any] = await get_diagnostics_for_config_entry(
            hass, hass_client, entry
        )
        assert_adds_up(diagnostics)
        return diagnostics

    return diagnose


async def settle(diagnose: Diagnose, entry: MockConfigEntry) -> dict[str, Any]:
    """Return the diagnostics once nothing waits any more."""
    async with asyncio.timeout(5):
        while True:
            diagnostics = await diagnose(entry)
            if not any(d["counters"]["waiting"] for d in diagnostics["destinations"]):
                return diagnostics


class Ticker:
    """Measures how late the event loop is, at most, in seconds."""

    def __init__(self) -> None:
        """Begin."""
        self.late = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(0.01, self._tick)
        self._due = self._timer.when()

    def _tick(self) -> None:
        self.late = max(self.late, self._loop.time() - self._due)
        self._timer = self._loop.call_later(0.01, self._tick)
        self._due = self._timer.when()

    def stop(self) -> float:
        """Stop, and return the result."""
        self._timer.cancel()
        return self.late


class Server:
    """A TCP server on the loopback address whose connections end with it."""

    def __init__(self) -> None:
        """Initialize without connections."""
        self.port = free_port()
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(
            self._on_client, "127.0.0.1", self.port
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and end all connections."""
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.cut()
        await self._server.wait_closed()

    def has_connected(self, times: int) -> bool:
        """Tell whether there were so many connections."""
        return self.connections == times

    def cut(self) -> None:
        """End all connections at once."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _on_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self.writers.add(writer)
        task = asyncio.create_task(self._guarded(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self.serve(reader, writer)
        except asyncio.IncompleteReadError, ConnectionError, EOFError:
            pass
        finally:
            writer.transport.abort()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection; by itself, say nothing and wait for its end."""
        while await reader.read(65536):
            pass


class Proxy(Server):
    """Passes on what is said to a broker, as long as it pleases.

    `refuse_5` answers a CONNECT of MQTT 5 as a broker of 2014 does; `open` cleared keeps
    everything back; `cut_after` bytes to the broker end the connection.
    """

    def __init__(self, target: int) -> None:
        """Initialize with the port of the broker."""
        super().__init__()
        self.refuse_5 = False
        self.cut_after: int | None = None
        self.open = asyncio.Event()
        self.open.set()
        self._target = target

    @override
    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on in both directions."""
        connect = await reader.read(65536)
        if self.refuse_5 and connect.split(b"MQTT", 1)[1][0] == 5:
            writer.write(b"\x20\x02\x00\x01")
            await writer.drain()
            return
        back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self.writers.add(onward)
        try:
            onward.write(connect)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, to_broker=True))
                group.create_task(self._pass(back, writer))
        except* ConnectionError, EOFError:
            pass
        finally:
            onward.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        to_broker: bool = False,
    ) -> None:
        while True:
            await self.open.wait()
            if not (data := await reader.read(65536)):
                raise EOFError
            await self.open.wait()
            if to_broker and self.cut_after is not None:
                writer.write(data[: self.cut_after])
                await writer.drain()
                if (rest := self.cut_after - len(data)) <= 0:
                    self.cut_after = None
                    await asyncio.sleep(0.05)  # For the broker to see the half
                    raise EOFError
                self.cut_after = rest
                continue
            writer.write(data)
            await writer.drain()


class ObedientBroker(Server):
    """A broker of MQTT 5 that answers what a test says, and as late as it says.

    `properties` are those of its CONNACK; `messages` holds what was published, with the
    packet identifier, or None at QoS 0; `filters` what was subscribed to, which is answered
    with the reason code `granted`. MQTT 3.1.1 is answered too, if it is spoken.
    """

    def __init__(self, properties: bytes = b"") -> None:
        """Initialize with the properties of the CONNACK."""
        super().__init__()
        self.properties = properties
        self.messages: list[tuple[str, bytes, int | None]] = []
        self.filters: list[str] = []
        self.granted = 0
        self.connects = 0
        self.speaks_5 = True
        self._writer: asyncio.StreamWriter | None = None

    @property
    def raw(self) -> list[tuple[str, bytes, int | None]]:
        """Return the advertisements that were published."""
        return [message for message in self.messages if "/raw/" in message[0]]

    def send(self, packet: bytes) -> None:
        """Send a packet over the newest connection."""
        assert self._writer
        self._writer.write(packet)

    def acknowledge(self, identifier: int, reason: int = 0) -> None:
        """Acknowledge a message."""
        self.send(b"\x40\x03" + identifier.to_bytes(2) + bytes([reason]))

    @override
    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read packets."""
        self._writer = writer
        while True:
            command = (await reader.readexactly(1))[0]
            length = shift = 0
            while True:
                digit = (await reader.readexactly(1))[0]
                length |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            packet = await reader.readexactly(length)
            if command >> 4 == 1:
                self.connects += 1
                self.speaks_5 = packet[6] == 5
                properties = b""
                if self.speaks_5:
                    properties = bytes([len(self.properties)]) + self.properties
                writer.write(bytes([0x20, 2 + len(properties)]) + b"\0\0" + properties)
            elif command >> 4 == 3:
                self._take(command, packet)
            elif command >> 4 == 8:
                self._grant(packet)
                self.on_subscribed()
            elif command >> 4 == 12:
                writer.write(b"\xd0\0")
            elif command >> 4 == 14:
                return

    def _take(self, command: int, packet: bytes) -> None:
        end = 2 + int.from_bytes(packet[:2])
        topic, packet = packet[2:end].decode(), packet[end:]
        identifier = None
        if command & 6:
            identifier, packet = int.from_bytes(packet[:2]), packet[2:]
        payload = packet[1:] if self.speaks_5 else packet
        self.messages.append((topic, payload, identifier))

    def _grant(self, packet: bytes) -> None:
        """Answer a subscription, whose properties are short."""
        identifier, rest = packet[:2], packet[2:]
        if self.speaks_5:
            rest = rest[1 + rest[0] :]
        filters = []
        while rest:
            end = 2 + int.from_bytes(rest[:2])
            filters.append(rest[2:end].decode())
            rest = rest[end + 1 :]
        self.filters = filters
        answer = (
            identifier + b"\0" * self.speaks_5 + bytes([self.granted]) * len(filters)
        )
        self.send(bytes([0x90, len(answer)]) + answer)

    def on_subscribed(self) -> None:
        """Go on after a subscription was answered; by itself, say nothing."""


@asynccontextmanager
async def later_stopped[T: Any](broker: T) -> AsyncIterator[T]:
    """Stop a broker that the test starts."""
    try:
        yield broker
    finally:
        await broker.stop()
