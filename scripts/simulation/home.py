"""A home full of Bluetooth devices, played from captured frames to the proxies."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
import heapq
from itertools import groupby
import json
from operator import attrgetter
from pathlib import Path
from random import Random
import time
from typing import Final, Self

from .esphome_proxy import EsphomeProxy, Packet
from .processes import SimulationError

FRAMES: Final = Path(__file__).with_name("frames.jsonl")
TICK_SECONDS: Final = 0.05
# Every device is heard soon, also one that advertises once a minute.
FIRST_SECONDS: Final = 3.0
# A phone changes its address every 15 minutes or so; nobody watches that long.
ROTATION_SECONDS: Final = 15.0
# Bluetooth adds up to 10 ms to each interval, so that devices drift apart.
ADVERTISING_DELAY_SECONDS: Final = 0.010
STRONGEST_RSSI: Final = -20
WEAKEST_RSSI: Final = -100
WALL_DB: Final = (6, 22)  # what a proxy in another room hears less, from and to
WANDER_DB: Final = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured advertisement of a device; RSSI in dBm, interval in seconds."""

    device: str
    kind: str
    model: str
    address: str
    address_type: str
    name: str | None
    data: bytes
    rssi: int
    interval: float

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the frame that a line of the capture file describes."""
        values = json.loads(line)
        return cls(
            device=values["device"],
            kind=values["kind"],
            model=values["model"],
            address=values["address"].upper(),
            address_type=values["address_type"],
            name=values["name"],
            data=bytes.fromhex(values["data"]),
            rssi=values["rssi"],
            interval=values["interval"],
        )

    @property
    def rotating(self) -> bool:
        """Return whether the device changes its address with its frames."""
        return self.kind == "phone"

    def heard_at(self, rssi: int, number: int) -> Packet:
        """Return the packet that a proxy hears, when it is the device's so-many-th."""
        data = counted(self.data, number)
        return self.address, rssi, data, int(self.address_type == "random")


def counted(data: bytes, number: int) -> bytes:
    """Return a packet with the number that its device would give it.

    Devices that count their packets would seem to repeat old ones, as captures are played
    again and again: BTHome v2, MiBeacon that is not encrypted, and Ruuvi's format 5.
    """
    packet = bytearray(data)
    start = 0
    while start + 4 < len(packet) and packet[start]:
        end = start + 1 + packet[start]
        head = bytes(packet[start + 1 : start + 4])
        payload = start + 4
        if head == b"\x16\xd2\xfc" and packet[payload : payload + 2] == b"\x40\0":
            packet[payload + 2] = number & 0xFF
        elif head == b"\x16\x95\xfe" and not packet[payload] & 0x08:
            packet[payload + 4] = number & 0xFF
        elif head == b"\xff\x99\x04" and packet[payload] == 5:
            packet[payload + 16 : payload + 18] = (number & 0xFFFF).to_bytes(2)
        start = end
    return bytes(packet)


def load_frames(path: Path = FRAMES) -> list[Frame]:
    """Return the frames of a capture file, one JSON object a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise SimulationError(f"The capture {path.name} cannot be read.") from err
    return [Frame.from_json(line) for line in text.splitlines() if line.strip()]


@dataclass(slots=True)
class Reception:
    """How one proxy hears one device: as loud as its distance, give or take."""

    proxy: EsphomeProxy
    loss: int
    wander: int = 0

    def next_rssi(self, transmitted: int, random: Random) -> int:
        """Return the RSSI of the next packet, in dBm."""
        step = self.wander + random.choice((-1, 0, 1))
        self.wander = max(-WANDER_DB, min(WANDER_DB, step))
        rssi = transmitted - self.loss + self.wander
        return max(WEAKEST_RSSI, min(STRONGEST_RSSI, rssi))


@dataclass(slots=True)
class Device:
    """A device at home: its frames in turn, and who hears it."""

    frames: Sequence[Frame]
    receptions: list[Reception]
    position: int = 0
    number: int = 0
    rotated: float = field(default_factory=time.monotonic)

    def next_frame(self, now: float) -> Frame:
        """Return the frame to send, and move on to the following one."""
        frame = self.frames[self.position]
        if not frame.rotating or now - self.rotated >= ROTATION_SECONDS:
            self.position = (self.position + 1) % len(self.frames)
            self.rotated = now
        return frame


class Home:
    """Devices that advertise, and the proxies in whose reach they are.

    Each device is heard by one to all of the proxies; which, and how loud, is the
    same in every run.
    """

    def __init__(
        self, frames: Sequence[Frame], proxies: Sequence[EsphomeProxy], rate: float = 1
    ) -> None:
        """Furnish the home; the rate multiplies the traffic."""
        self._random = Random(0)
        self._rate = rate
        self._proxies = proxies
        self.models = {frame.address: frame.model for frame in frames}
        self.devices = [
            Device(tuple(own), self._receptions(device))
            for device, own in groupby(
                sorted(frames, key=attrgetter("device")), attrgetter("device")
            )
        ]

    @property
    def sent(self) -> int:
        """Return the number of advertisements sent by all proxies."""
        return sum(proxy.sent for proxy in self._proxies)

    @property
    def dropped(self) -> int:
        """Return the number of advertisements that no proxy could send."""
        return sum(proxy.dropped for proxy in self._proxies)

    async def play(self) -> None:
        """Let every device advertise at its interval, until cancelled."""
        start = time.monotonic()
        due: list[tuple[float, int]] = []
        for index, device in enumerate(self.devices):
            device.rotated = start
            longest = min(device.frames[0].interval, FIRST_SECONDS) / self._rate
            due.append((start + self._random.uniform(0, longest), index))
        heapq.heapify(due)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            heard: dict[EsphomeProxy, list[Packet]] = {}
            while due[0][0] <= now:
                planned, index = due[0]
                frame = self._advertise(self.devices[index], now, heard)
                delay = self._random.uniform(0, ADVERTISING_DELAY_SECONDS)
                following = planned + (frame.interval + delay) / self._rate
                # Late by more than a tick: what was missed is not made up for.
                heapq.heapreplace(due, (max(following, now - TICK_SECONDS), index))
            for proxy, packets in heard.items():
                proxy.send(packets)

    def _advertise(
        self, device: Device, now: float, heard: dict[EsphomeProxy, list[Packet]]
    ) -> Frame:
        """Let the proxies hear a device's next frame, and return it."""
        frame = device.next_frame(now)
        device.number += 1
        for reception in device.receptions:
            rssi = reception.next_rssi(frame.rssi, self._random)
            packets = heard.setdefault(reception.proxy, [])
            packets.append(frame.heard_at(rssi, device.number))
        return frame

    def _receptions(self, device: str) -> list[Reception]:
        """Return which proxies hear a device: the nearest as the capture did."""
        random = Random(device)
        count = random.randint(1, len(self._proxies))
        nearest, *others = random.sample(self._proxies, count)
        return [
            Reception(nearest, 0),
            *(Reception(proxy, random.randint(*WALL_DB)) for proxy in others),
        ]
