"""One way of publishing advertisements, in a Home Assistant core of its own.

    python -m benchmarks.way WAY PORT

It sets up Home Assistant's Bluetooth stack with four scanners, then reads one JSON object
a line, `{"count", "turn"}` or `{"count", "rate"}`, sends that many advertisements through
the stack (`turn` of them in each turn of the loop as fast as it goes, or `rate` a second,
evenly spread), and prints what it took; `{"devices"}` has every scanner hear so many
devices once, and prints the memory since the way was set up.
"""

import asyncio
from collections.abc import Callable
import sys
import time
from typing import Any, Protocol, override

from habluetooth import BaseHaRemoteScanner
from homeassistant.components import bluetooth, mqtt
from homeassistant.core import HomeAssistant
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.bridge import Bridge
from custom_components.ble_bridge.feed import Feed
from custom_components.ble_bridge.filters import Filter
from custom_components.ble_bridge.layouts.raw import RawLayout, advertisement_topic
from custom_components.ble_bridge.records import Advertisement, Scanner, Sighting

from .core import addresses, bridge_entry, follow, home_assistant, resident_mb

SCANNERS = 4
DEVICES = 200
PAYLOAD = bytes.fromhex("0201060bfffeff40000101640203aa")


class Way(Protocol):
    """A way of publishing."""

    async def start(self) -> None:
        """Get ready."""

    async def finish(self) -> int:
        """Wait until all is sent, and return how many messages were."""


class Stack:
    """Home Assistant's Bluetooth stack alone: what all ways have in common."""

    def __init__(self, hass: HomeAssistant, port: int) -> None:
        """Initialize."""

    async def start(self) -> None:
        """Get ready."""

    async def finish(self) -> int:
        """Nothing is sent."""
        return 0


class BleBridge:
    """The integration."""

    qos = 0

    def __init__(self, hass: HomeAssistant, port: int) -> None:
        """Initialize."""
        self._hass = hass
        self._port = port
        self._sent = 0

    async def start(self) -> None:
        """Set up the entry, and wait for the connection."""
        entry = bridge_entry(self._port, qos=self.qos)
        entry.add_to_hass(self._hass)
        await self._hass.config_entries.async_setup(entry.entry_id)
        bridge: Bridge = entry.runtime_data
        (self._destination,) = bridge.destinations.values()
        while self._destination.connection is None:
            await asyncio.sleep(0.01)

    async def finish(self) -> int:
        """Wait until nothing waits."""
        while self._destination.outbox.waiting:
            await asyncio.sleep(0.001)
        sent, self._sent = self._sent, self._destination.delivered
        return self._sent - sent


class BleBridgeQos1(BleBridge):
    """The integration, acknowledged."""

    qos = 1


class PerPacket:
    """The feed and the layout of BLE Bridge, and one publish per packet."""

    def __init__(self, hass: HomeAssistant, port: int) -> None:
        """Initialize."""
        self.hass = hass
        self.port = port
        self.sent = 0
        self._raw = RawLayout()
        self._scanners: dict[str, Scanner] = {}
        self._feed = Feed(hass, self._scanner, Filter(), self._on_advertisement)

    async def start(self) -> None:
        """Connect, then listen."""
        await self.connect()
        self._feed.start()

    def _scanner(self, source: str) -> Scanner:
        """Return a scanner."""
        return self._scanners.setdefault(source, Scanner(source, source[-2:], source))

    def _on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        """Publish one packet."""
        self.publish(
            advertisement_topic("ble", sighting),
            self._raw.payload(sighting, advertisement),
        )

    async def connect(self) -> None:
        """Connect."""
        raise NotImplementedError

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish."""
        raise NotImplementedError


class Paho(PerPacket):
    """paho's own publish, with its own thread, as most programs use it."""

    @override
    async def connect(self) -> None:
        """Connect."""
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        while not self._client.is_connected():
            await asyncio.sleep(0.01)

    @override
    def publish(self, topic: str, payload: bytes) -> None:
        """Publish."""
        self._client.publish(topic, payload)
        self.sent += 1

    async def finish(self) -> int:
        """Wait until paho's queue is empty."""
        while self._client.want_write():
            await asyncio.sleep(0.001)
        sent, self.sent = self.sent, 0
        return sent


class AsyncPublish(PerPacket):
    """Home Assistant's `mqtt.async_publish` in a task per packet."""

    @override
    async def connect(self) -> None:
        """Set up the integration."""
        entry = MockConfigEntry(
            domain="mqtt",
            data={"broker": "127.0.0.1", "port": self.port, "protocol": "5"},
            version=mqtt.CONFIG_ENTRY_VERSION,
            minor_version=mqtt.CONFIG_ENTRY_MINOR_VERSION,
        )
        entry.add_to_hass(self.hass)
        await self.hass.config_entries.async_setup(entry.entry_id)
        while not mqtt.is_connected(self.hass):
            await asyncio.sleep(0.01)
        self._tasks: set[asyncio.Task[None]] = set()

    @override
    def publish(self, topic: str, payload: bytes) -> None:
        """Publish."""
        task = self.hass.async_create_task(
            mqtt.async_publish(self.hass, topic, payload), eager_start=True
        )
        self.sent += 1
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> int:
        """Wait until all tasks are done."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        sent, self.sent = self.sent, 0
        return sent


WAYS: dict[str, Callable[[HomeAssistant, int], Way]] = {
    "stack": Stack,
    "ble_bridge": BleBridge,
    "ble_bridge_qos1": BleBridgeQos1,
    "paho": Paho,
    "async_publish": AsyncPublish,
}


class Home:
    """Four scanners that hear two hundred devices."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Register the scanners."""
        self._scanners = [
            BaseHaRemoteScanner(
                f"AA:00:00:00:00:0{number}", f"proxy{number}", None, False
            )
            for number in range(SCANNERS)
        ]
        for scanner in self._scanners:
            scanner.async_setup()
            bluetooth.async_register_scanner(hass, scanner)
        self._addresses = addresses(DEVICES)
        self._sent = 0

    def hear(self, payload: bytes) -> None:
        """Have the next scanner hear the next device."""
        number = self._sent
        self._sent += 1
        self._scanners[number % SCANNERS]._async_on_raw_advertisement(
            self._addresses[number // SCANNERS % len(self._addresses)],
            -60 - number % 20,
            payload,
            {},
            time.monotonic(),
        )

    async def fill(self, count: int) -> None:
        """Hear so many devices at every scanner."""
        self._addresses = addresses(count)
        await self.busy(count * SCANNERS, 16)

    async def busy(self, count: int, turn: int) -> None:
        """Hear as fast as it goes, so many in each turn of the loop."""
        for number in range(count):
            self.hear(PAYLOAD)
            if number % turn == turn - 1:
                await asyncio.sleep(0)

    async def even(self, count: int, rate: float) -> None:
        """Hear packets evenly spread in time, each with its time in it."""
        began = time.monotonic()
        for number in range(count):
            if (wait := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            stamp = time.monotonic_ns().to_bytes(8, "little")
            self.hear(b"\x02\x01\x06\x0b\xff\xfe\xff" + stamp)


async def measure(home: Home, way: Way, order: dict[str, Any]) -> dict[str, float]:
    """Carry out one order; times in seconds, lateness of the loop in ms."""
    loop = asyncio.get_running_loop()
    late = 0.0

    async def watch() -> None:
        nonlocal late
        while True:
            due = loop.time() + 0.01
            await asyncio.sleep(0.01)
            late = max(late, loop.time() - due)

    watcher = loop.create_task(watch())
    cpu, wall = time.process_time(), time.perf_counter()
    if "turn" in order:
        await home.busy(order["count"], order["turn"])
    else:
        await home.even(order["count"], order["rate"])
    sent = await way.finish()
    result = {
        "sent": sent,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
    }
    watcher.cancel()
    return {**result, "late_ms": late * 1000}


async def main(way_name: str, port: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        memory = resident_mb()
        way = WAYS[way_name](hass, port)
        await way.start()
        home = Home(hass)
        await home.busy(SCANNERS * DEVICES, 16)  # All devices are known
        await way.finish()

        async def carry_out(order: dict[str, Any]) -> dict[str, float]:
            if "devices" in order:
                await home.fill(order["devices"])
                return {"sent": await way.finish(), "memory": resident_mb() - memory}
            return await measure(home, way, order)

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
