"""A house with 2,000 addresses on air, in a Home Assistant core of its own.

    python -m benchmarks.house DEVICES PORT

DEVICES of the addresses are the user's (BTHome, four fields each); `-1` leaves BLE Bridge
out. Each of four scanners hears all of them before the entry is set up. It then reads one
JSON object a line: `{"do": "start"}` sets the entry up, `"restart"` unloads it and sets it
up again, as Home Assistant's restart finds it: with entities that it knows and values that
were kept. Both print the time that the event loop took until all states are there.
`"memory"` prints that of the process, and `{"do": "even", "seconds", "rate"}` has the
devices send so many packets a second, of which one in ten says something new (for each
scanner that hears it), and prints the CPU time.
"""

import asyncio
import sys
import time
from typing import Any, Final

from habluetooth import BaseHaRemoteScanner
from homeassistant.components import bluetooth
from homeassistant.core import HomeAssistant
from pytest_homeassistant_custom_component.common import MockConfigEntry

from .core import addresses, bridge_entry, follow, home_assistant, measured, resident_mb

SCANNERS: Final = 4
ON_AIR: Final = 2_000
# What is on by default: four fields, signal strength, nearest scanner, and presence.
ENTITIES: Final = 7
REPEATS: Final = 10
PATIENCE: Final = 60.0
STRANGER: Final = bytes.fromhex("0201060bfffeff40000101640203aa")


def bthome(number: int) -> bytes:
    """Return a packet with battery, temperature, humidity and illuminance; they differ."""
    temperature = (2000 + number % 1000).to_bytes(2, "little", signed=True)
    humidity = (5000 + number % 999).to_bytes(2, "little")
    return (
        bytes.fromhex("0201061016d2fc40016402")
        + temperature
        + b"\x03"
        + humidity
        + bytes.fromhex("05138a14")
    )


class House:
    """Four scanners, and what they hear."""

    def __init__(self, hass: HomeAssistant, devices: int, port: int) -> None:
        """Register the scanners."""
        self._hass = hass
        self._devices = devices
        self._addresses = addresses(ON_AIR)
        self._ours = self._addresses[: max(devices, 0)]
        self._entry: MockConfigEntry | None = None
        if devices >= 0:
            self._entry = bridge_entry(
                port,
                devices=(
                    {"address": address, "alias": f"Device {number}"}
                    for number, address in enumerate(self._ours)
                ),
            )
            self._entry.add_to_hass(hass)
        self._said = 0
        self._scanners = [
            BaseHaRemoteScanner(
                f"AA:00:00:00:00:0{number}", f"proxy{number}", None, connectable=False
            )
            for number in range(SCANNERS)
        ]
        for scanner in self._scanners:
            scanner.async_setup()
            bluetooth.async_register_scanner(hass, scanner)

    async def everyone(self) -> None:
        """Have each scanner hear each address."""
        for number, address in enumerate(self._addresses):
            payload = bthome(number) if number < len(self._ours) else STRANGER
            for scanner in self._scanners:
                self._hear(scanner, address, payload)
            await asyncio.sleep(0)

    @staticmethod
    def _hear(scanner: BaseHaRemoteScanner, address: str, payload: bytes) -> None:
        scanner._async_on_raw_advertisement(address, -60, payload, {}, time.monotonic())

    async def start(self) -> dict[str, float]:
        """Set the entry up, and return what the loop needed until all states are there."""
        if (entry := self._entry) is None:
            return {}

        async def set_up() -> None:
            await self._hass.config_entries.async_setup(entry.entry_id)
            await self._complete(entry)

        return await measured(set_up)

    async def restart(self) -> dict[str, float]:
        """Unload the entry, then do as `start`."""
        if self._entry is None:
            return {}
        await self._hass.config_entries.async_unload(self._entry.entry_id)
        await self._hass.async_block_till_done()
        return await self.start()

    async def _complete(self, entry: MockConfigEntry) -> None:
        """Wait until every device has its states, and the broker is there."""
        wanted = self._devices * ENTITIES
        (destination,) = entry.runtime_data.destinations.values()
        async with asyncio.timeout(PATIENCE):
            while self._count() < wanted or not destination.connection:
                await asyncio.sleep(0.01)

    def _count(self) -> int:
        """Return how many states of devices there are that say something."""
        return sum(
            state.state != "unavailable"
            for state in self._hass.states.async_all()
            if ".device_" in state.entity_id
        )

    async def even(self, seconds: float, rate: int) -> dict[str, float]:
        """Hear packets of the devices, evenly spread; return CPU time (s)."""
        ours = self._addresses[: max(self._devices, 300)]
        cpu, wall = time.process_time(), time.perf_counter()
        readings = self._readings()
        began = time.monotonic()
        for number in range(int(seconds * rate)):
            if (wait := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            index = self._said % len(ours)
            turn = self._said // len(ours)
            self._said += 1
            # Spread over the devices, so that not all of them say something new at once
            version = index + (turn + index % REPEATS) // REPEATS
            self._hear(self._scanners[turn % SCANNERS], ours[index], bthome(version))
        return {
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
            "readings": self._readings() - readings,
        }

    def _readings(self) -> int:
        """Return how many readings were made."""
        if self._entry is None:
            return 0
        devices = self._entry.runtime_data.devices.by_id.values()
        return sum(device.counters.readings for device in devices)


async def main(devices: int, port: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        house = House(hass, devices, port)
        await house.everyone()

        async def carry_out(order: dict[str, Any]) -> dict[str, float]:
            match order.pop("do"):
                case "start":
                    return await house.start()
                case "restart":
                    return await house.restart()
                case "memory":
                    await house.everyone()
                    await hass.async_block_till_done()
                    return {"memory": resident_mb()}
                case _:
                    return await house.even(**order)

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
