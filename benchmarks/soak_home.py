"""A home that changes all the time, and BLE Bridge with two destinations.

    python -m benchmarks.soak_home FAST_PORT SLOW_PORT

Four scanners hear 200 addresses, of which ten make room for new random ones each second.
It reads one JSON object a line, `{"seconds", "rate"}`, has that many packets a second heard
for so long, and prints how the process, its loop, and each destination are.
"""

import asyncio
from itertools import count
import sys
import time
from typing import Any, Final

from homeassistant.core import HomeAssistant

from custom_components.ble_bridge.bridge import Bridge
from custom_components.ble_bridge.records import RecordKind

from .core import LoopMeter, bridge_entry, follow, home_assistant, resident_mb
from .way import DEVICES, TURN, Home

ROTATED: Final = 10  # Addresses a second


class ChangingHome(Home):
    """A home whose addresses rotate, as those of phones do."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Begin with addresses that are never rotated away at once."""
        super().__init__(hass)
        self._numbers = count()

    def rotate(self) -> None:
        """Have the next addresses make room for new ones."""
        for _ in range(ROTATED):
            number = next(self._numbers)
            text = f"{number:06X}"
            self._addresses[number % DEVICES] = (
                f"5B:00:00:{text[:2]}:{text[2:4]}:{text[4:]}"
            )


def state(bridge: Bridge) -> dict[str, dict[str, int]]:
    """Return what became of the advertisements at each destination."""
    scanners = list(bridge.scanners.by_source.values())
    found = {}
    for subentry_id, destination in bridge.destinations.items():
        tally = destination.tally(RecordKind.ADVERTISEMENT)
        found[bridge.entry.subentries[subentry_id].title] = {
            "received": tally.received + destination.count_filtered(scanners),
            "sent": tally.sent,
            "dropped": tally.dropped,
            "waiting": tally.waiting,
        }
    return found


async def main(fast: int, slow: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        entry = bridge_entry(fast, slow)
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        bridge: Bridge = entry.runtime_data
        while any(d.connection is None for d in bridge.destinations.values()):
            await asyncio.sleep(0.01)
        home = ChangingHome(hass)

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            began, cpu = time.monotonic(), time.process_time()
            seconds, rate = order["seconds"], order["rate"]
            with LoopMeter() as meter:
                for _ in range(round(seconds)):
                    home.rotate()
                    await home.paced(rate, min(TURN, rate), rate)
                left = began + seconds - time.monotonic()
                await asyncio.sleep(max(left, 0))
            return {
                "cpu": (time.process_time() - cpu) / (time.monotonic() - began) * 100,
                "late": meter.late * 1000,
                "memory": resident_mb(),
                "addresses": len(bridge.feed.advertisers),
                "destinations": state(bridge),
            }

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
