"""Devices that count aloud, beside a flood of advertisements that nobody counts."""

import asyncio
import itertools
from random import Random
import time
from typing import Final

from scripts.simulation.esphome_proxy import EsphomeProxy, Packet

from .ledger import Ledger

DEVICES: Final = {
    name: f"A4:C1:38:C0:DE:{number:02X}"
    for number, name in enumerate(("one", "two", "three", "four"), start=1)
}
INTERVAL: Final = 0.2  # of each device (s)
FLOOD: Final = 200  # advertisements a second
_FLOOD_ADDRESSES: Final = 50
# A company ID that no integration of Home Assistant asks for, and no change.
_FLOOD_DATA: Final = bytes.fromhex("0201060cfffeff0102030405060708ff")
_TICK: Final = 0.02


def counting(number: int) -> bytes:
    """Return a BTHome v2 packet with its own number (0x00) and a count (0x3E)."""
    data = b"\xd2\xfc\x40" + bytes((0x00, number & 0xFF, 0x3E))
    data += number.to_bytes(4, "little")
    return b"\x02\x01\x06" + bytes((len(data) + 1, 0x16)) + data


class Traffic:
    """What is on air, as two proxies hear it: one the devices, the other the flood."""

    def __init__(
        self, ledger: Ledger, counted: EsphomeProxy, flooded: EsphomeProxy, seed: int
    ) -> None:
        """Describe the traffic; `flood` is how many packets a second nobody counts.

        While it is `paused`, nothing is said.
        """
        self.flood = float(FLOOD)
        self.paused = False
        self._ledger = ledger
        self._counted = counted
        self._flooded = flooded
        self._random = Random(seed)

    async def run(self) -> None:
        """Play until cancelled."""
        began = time.monotonic()
        due = {device: began + self._random.random() * INTERVAL for device in DEVICES}
        addresses = itertools.cycle(
            f"C0:FF:EE:00:00:{number:02X}" for number in range(_FLOOD_ADDRESSES)
        )
        owed, last = 0.0, began
        while True:
            now = time.monotonic()
            for device, address in DEVICES.items():
                if now >= due[device]:
                    self._speak(device, address)
                    due[device] = now + INTERVAL * self._random.uniform(0.8, 1.2)
            owed += 0 if self.paused else (now - last) * self.flood
            last = now
            packets: list[Packet] = [
                (next(addresses), -50 - self._random.randrange(30), _FLOOD_DATA, 1)
                for _ in range(int(owed))
            ]
            owed -= len(packets)
            if packets and self._flooded.ready():
                self._flooded.send(packets)
            await asyncio.sleep(_TICK)

    def _speak(self, device: str, address: str) -> None:
        """Say the next number, if there is a proxy that hears it."""
        if self.paused or not self._counted.ready():
            return
        packet = counting(self._ledger.say(device))
        dropped = self._counted.dropped
        self._counted.send([(address, -60, packet, 0)])
        if self._counted.dropped > dropped:
            self._ledger.take_back(device)
