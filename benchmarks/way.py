"""One way of publishing advertisements, in a Home Assistant core of its own.

    python -m benchmarks.way WAY PORT

It sets up Home Assistant's Bluetooth stack with four scanners, then reads one JSON object
a line and sends that many advertisements through the stack: with `{"count", "turn"}`, that
many in each turn of the loop as fast as it goes; with `{"count", "rate"}`, so many a
second, evenly spread; with all three, so many a second, that many at a time. It prints
what it took; with `"profile"` beside it, also where the time went. `{"devices"}` has every
scanner hear so many devices once, `{"strangers"}` has one scanner hear so many new random
addresses, and both print the memory since the way was set up.
"""

import asyncio
from collections.abc import Callable
from cProfile import Profile
from functools import partial
import io
from pstats import SortKey, Stats
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
from custom_components.ble_bridge.records import (
    Advertisement,
    Route,
    Scanner,
    Sighting,
    Tally,
)

from .core import addresses, bridge_entry, follow, home_assistant, resident_mb

SCANNERS = 4
DEVICES = 200
TURN = 16  # What an ESPHome proxy sends at once
FUNCTIONS = 25
NOWHERE = Route(b"", Tally())
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

    def __init__(
        self, hass: HomeAssistant, port: int, qos: int = 0, destinations: int = 1
    ) -> None:
        """Initialize."""
        self._hass = hass
        self._entry = bridge_entry(*[port] * destinations, qos=qos)
        self._sent = 0

    async def start(self) -> None:
        """Set up the entry, and wait for the connections."""
        self._entry.add_to_hass(self._hass)
        await self._hass.config_entries.async_setup(self._entry.entry_id)
        bridge: Bridge = self._entry.runtime_data
        self._destinations = list(bridge.destinations.values())
        for destination in self._destinations:
            while destination.connection is None:
                await asyncio.sleep(0.01)

    async def finish(self) -> int:
        """Wait until nothing waits."""
        for destination in self._destinations:
            while destination.outbox.waiting:
                await asyncio.sleep(0.001)
        sent = self._sent
        self._sent = sum(destination.delivered for destination in self._destinations)
        return self._sent - sent


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
            self._raw.payload(NOWHERE, sighting, advertisement),
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
    "ble_bridge_qos1": partial(BleBridge, qos=1),
    **{
        f"ble_bridge_{count}": partial(BleBridge, destinations=count)
        for count in (2, 4, 8)
    },
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
        self._strangers = 0

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
        await self.busy(count * SCANNERS, TURN)

    async def strangers(self, count: int) -> None:
        """Hear so many random addresses once, none of them for the second time."""
        for _ in range(count):
            self._strangers += 1
            number = f"{self._strangers:06X}"
            self._scanners[0]._async_on_raw_advertisement(
                f"5A:00:00:{number[:2]}:{number[2:4]}:{number[4:]}",
                -60,
                PAYLOAD,
                {},
                time.monotonic(),
            )
            if self._strangers % TURN == 0:
                await asyncio.sleep(0)

    async def busy(self, count: int, turn: int) -> None:
        """Hear as fast as it goes, so many in each turn of the loop."""
        for number in range(count):
            self.hear(PAYLOAD)
            if number % turn == turn - 1:
                await asyncio.sleep(0)

    async def paced(self, count: int, turn: int, rate: float) -> None:
        """Hear so many a second, and that many at a time."""
        began = time.monotonic()
        for number in range(0, count, turn):
            if (wait := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self.busy(min(turn, count - number), turn)

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
    if "turn" not in order:
        await home.even(order["count"], order["rate"])
    elif "rate" in order:
        await home.paced(order["count"], order["turn"], order["rate"])
    else:
        await home.busy(order["count"], order["turn"])
    sent = await way.finish()
    result = {
        "sent": sent,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
    }
    watcher.cancel()
    return {**result, "late_ms": late * 1000}


async def profiled(home: Home, way: Way, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order, and tell which functions took the time."""
    with Profile() as profile:
        result = await measure(home, way, order)
    text = io.StringIO()
    Stats(profile, stream=text).strip_dirs().sort_stats(SortKey.TIME).print_stats(
        FUNCTIONS
    )
    return {**result, "profile": text.getvalue()}


async def main(way_name: str, port: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        memory = resident_mb()
        way = WAYS[way_name](hass, port)
        await way.start()
        home = Home(hass)
        await home.busy(SCANNERS * DEVICES, TURN)  # All devices are known
        await way.finish()

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            if "devices" in order or "strangers" in order:
                if "devices" in order:
                    await home.fill(order["devices"])
                else:
                    await home.strangers(order["strangers"])
                return {"sent": await way.finish(), "memory": resident_mb() - memory}
            if order.pop("profile", False):
                return await profiled(home, way, order)
            return await measure(home, way, order)

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
