"""The simulated home: every frame is played, at the right pace, to the right proxies."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import override

from scripts.simulation.esphome_proxy import EsphomeProxy, Packet
from scripts.simulation.home import (
    STRONGEST_RSSI,
    WEAKEST_RSSI,
    Home,
    counted,
    load_frames,
)


class Ear(EsphomeProxy):
    """A proxy that keeps what it would send."""

    def __init__(self, name: str) -> None:
        """Hear nothing yet."""
        super().__init__(name, "AA:BB:CC:00:00:01")
        self.packets: list[Packet] = []

    @override
    def send(self, packets: Iterable[Packet]) -> None:
        """Keep the packets."""
        self.packets += packets


async def test_home_plays() -> None:
    """Test that each device is heard, by the same proxies in each run."""
    frames = load_frames()
    heard = []
    for _ in range(2):
        ears = [Ear(name) for name in ("one", "two", "three")]
        home = Home(frames, ears, rate=20)
        playing = asyncio.create_task(home.play())
        await asyncio.sleep(0.6)
        playing.cancel()
        heard.append([{packet[0] for packet in ear.packets} for ear in ears])
    assert heard[0] == heard[1]
    fixed = {frame.address for frame in frames if not frame.rotating}
    assert fixed <= set.union(*heard[0])
    packets = [packet for ear in ears for packet in ear.packets]
    assert {counted(packet[2], 0) for packet in packets} <= {
        counted(frame.data, 0) for frame in frames
    }
    assert all(WEAKEST_RSSI <= packet[1] <= STRONGEST_RSSI for packet in packets)
    # About 50 advertisements a second at the normal rate.
    assert 30 < len(packets) / 0.6 / 20 < 100
    # A phone keeps its address for a while.
    phones = {frame.address for frame in frames if frame.rotating}
    seen = Counter(packet[0] for packet in packets if packet[0] in phones)
    assert len(seen) == len({frame.device for frame in frames if frame.rotating})


def test_counted() -> None:
    """Devices that count their packets do, and all else is as it was captured."""
    for frame in load_frames():
        first, second = counted(frame.data, 1), counted(frame.data, 2)
        assert len(first) == len(frame.data)
        differences = sum(a != b for a, b in zip(first, second, strict=True))
        assert differences == (first != frame.data or second != frame.data)
    balcony = bytes.fromhex("0201060e16d2fc400009015d025d0903b7180b094154435f38")
    assert counted(balcony, 300)[9] == 300 & 0xFF
    assert {
        frame.kind for frame in load_frames() if counted(frame.data, 1) != frame.data
    } == {
        "bthome",
        "xiaomi",
        "ruuvi",
    }
