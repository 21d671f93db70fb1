"""Devices of the user's, in a Home Assistant core of its own: what their packets cost.

    python -m benchmarks.devices WAY PORT [DESTINATIONS]

WAY is `stack` (Home Assistant's Bluetooth stack alone) or `ble_bridge`, with one destination
(or more, on the same broker) and one device of each source. It then reads one JSON object a line:
`{"source", "count", "changed", "states"}` has a scanner hear so many packets of one of
them, 16 in each turn of the loop, and prints the CPU time that it took and how many readings were made; `changed`
tells whether each packet says something else, and `states` that each of them writes what
changed to the states of Home Assistant, though that is not yet due again.
`{"source", "count"}` alone has the library itself read as many packets. `{}` lists the
sources and how many fields each device has.
"""

import asyncio
from itertools import islice
import sys
import time
from typing import Any
from unittest.mock import patch

from habluetooth import BaseHaRemoteScanner
from homeassistant.components import bluetooth
from homeassistant.core import HomeAssistant

from custom_components.ble_bridge.bridge import Bridge

from .core import bridge_entry, follow, home_assistant
from .packets import Sample, advertisement, library, samples

TURN = 16  # What an ESPHome proxy sends at once
PATIENCE = 10.0


class Devices:
    """A scanner that hears a device of each source, with or without BLE Bridge."""

    def __init__(self, hass: HomeAssistant, found: list[Sample]) -> None:
        """Register the scanner."""
        self.bridge: Bridge | None = None
        self.samples = {sample.source: sample for sample in found}
        self._hass = hass
        self._scanner = BaseHaRemoteScanner(
            "AA:00:00:00:00:00", "proxy", None, connectable=False
        )
        self._scanner.async_setup()
        bluetooth.async_register_scanner(hass, self._scanner)

    async def start(self, port: int, destinations: int) -> None:
        """Set up BLE Bridge, and wait until it is connected."""
        entry = bridge_entry(
            *[port] * destinations,
            devices=(
                {
                    "address": sample.address,
                    "alias": sample.source,
                    **({"key": sample.key} if sample.key else {}),
                }
                for sample in self.samples.values()
            ),
        )
        entry.add_to_hass(self._hass)
        await self._hass.config_entries.async_setup(entry.entry_id)
        self.bridge = entry.runtime_data
        for destination in self.bridge.destinations.values():
            while destination.connection is None:
                await asyncio.sleep(0.01)

    async def warm_up(self) -> None:
        """Hear each device until what it needs is loaded and its entities are there."""
        for sample in self.samples.values():
            await self.hear(sample, TURN, changed=True)
            async with asyncio.timeout(PATIENCE):
                while not self.readings(sample) and self.bridge is not None:
                    await asyncio.sleep(0.01)
            await self._hass.async_block_till_done()

    def readings(self, sample: Sample) -> int:
        """Return how many readings a device has made."""
        if self.bridge is None:
            return 0
        return sum(
            device.counters.readings
            for device in self.bridge.devices.by_id.values()
            if device.settings.address == sample.address
        )

    async def hear(self, sample: Sample, count: int, *, changed: bool) -> None:
        """Hear so many packets, and wait until all is sent."""
        address, packets = sample.address, sample.packets
        if not changed:
            packets = packets[:1]
        hear = self._scanner._async_on_raw_advertisement
        for number in range(count):
            hear(address, -60, packets[number % len(packets)], {}, time.monotonic())
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        if self.bridge is not None:
            for destination in self.bridge.destinations.values():
                while destination.outbox.waiting:
                    await asyncio.sleep(0.001)

    async def measure(
        self, sample: Sample, count: int, *, changed: bool, states: bool
    ) -> dict[str, float]:
        """Return CPU time (s), and readings, of so many packets."""
        if not changed:
            await self.hear(sample, TURN, changed=False)
        readings = self.readings(sample)
        with patch(
            "custom_components.ble_bridge.devices.STATE_INTERVAL", 0 if states else 1.0
        ):
            cpu = time.process_time()
            await self.hear(sample, count, changed=changed)
            cpu = time.process_time() - cpu
        return {"cpu": cpu, "readings": self.readings(sample) - readings}


def ask_library(sample: Sample, count: int) -> dict[str, float]:
    """Return the CPU time (s) that a library itself needs for so many packets."""
    packets = [advertisement(sample.address, raw) for raw in sample.packets]
    read = library(sample)
    for packet in packets[:TURN]:
        read(packet)
    rest = count
    cpu = 0.0
    while rest > 0:
        part = list(islice(packets, rest))
        began = time.thread_time()
        for packet in part:
            read(packet)
        cpu += time.thread_time() - began
        rest -= len(part)
    return {"cpu": cpu}


async def main(way: str, port: int, destinations: int = 1) -> None:
    """Set up, then carry out orders until the input ends."""
    found = samples()
    async with home_assistant() as hass:
        devices = Devices(hass, found)
        if way != "stack":
            await devices.start(port, destinations)
        await devices.warm_up()

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            if not order:
                return {sample.source: sample.fields for sample in found}
            sample = devices.samples[order["source"]]
            if "changed" not in order:
                return ask_library(sample, order["count"])
            return await devices.measure(
                sample,
                order["count"],
                changed=order["changed"],
                states=order["states"],
            )

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
