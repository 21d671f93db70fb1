"""The least that asyncio needs: packets made beforehand, written to a transport.

    python -m benchmarks.bare PORT

It hears in Home Assistant's Bluetooth stack what the ways of `benchmarks.way` hear, follows
the same orders (`{"count", "turn"}`), and writes for each advertisement a PUBLISH packet of
QoS 0 that BLE Bridge would have made: the bytes are the same, and nothing makes them.
`{"joined": true}` beside it has those of a turn of the loop written in one piece.
"""

import asyncio
from itertools import cycle, islice
import sys
from typing import Any, Final, cast, override

from homeassistant.core import HomeAssistant

from custom_components.ble_bridge.destinations.mqtt_connection import remaining_length
from custom_components.ble_bridge.layouts.raw import RawLayout, advertisement_topic
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import Route, Scanner, Sighting, Tally

from .core import addresses, follow, home_assistant
from .packets import advertisement
from .way import DEVICES, PAYLOAD, SCANNERS, Home, measure

# MQTT 3.1.1, a clean session, keepalive 60 s, the client ID "bare"
NOWHERE: Final = Route(b"", Tally())
CONNECT: Final = bytes.fromhex("101000044d5154540402003c000462617265")


class Writer(asyncio.Protocol):
    """The connection to the broker: a way of publishing."""

    def __init__(self) -> None:
        """Initialize as not connected."""
        self.transport = cast(asyncio.Transport, None)
        self.written = 0
        self._answered = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(CONNECT)

    @override
    def data_received(self, data: bytes) -> None:
        """Take the answer."""
        self._answered.set()

    async def start(self) -> None:
        """Wait for the answer."""
        await self._answered.wait()

    async def finish(self) -> int:
        """Wait until the socket has all."""
        while self.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)
        written, self.written = self.written, 0
        return written


class BareHome(Home):
    """The scanners and devices of all ways, and packets for what they hear."""

    def __init__(self, hass: HomeAssistant, writer: Writer) -> None:
        """Make the packets."""
        super().__init__(hass)
        self.joined = False
        self._writer = writer
        self._packets = cycle(packets())

    @override
    async def busy(self, count: int, turn: int) -> None:
        """Hear so many in each turn of the loop, then write as many packets."""
        write = self._writer.transport.write
        for begun in range(0, count, turn):
            now = min(turn, count - begun)
            for _ in range(now):
                self.hear(PAYLOAD)
            if self.joined:
                write(b"".join(islice(self._packets, now)))
            else:
                for packet in islice(self._packets, now):
                    write(packet)
            self._writer.written += now
            await asyncio.sleep(0)


def packets() -> list[bytes]:
    """Return a PUBLISH packet of each device at each scanner."""
    made = []
    raw = RawLayout()
    for address in addresses(DEVICES):
        for number in range(SCANNERS):
            sighting = Sighting(
                Scanner(f"AA:00:00:00:00:0{number}", f"proxy{number}", ""), address
            )
            rest = encode_topic(advertisement_topic("ble", sighting)) + raw.payload(
                NOWHERE, sighting, advertisement(address, PAYLOAD)
            )
            made.append(b"\x30" + remaining_length(len(rest)) + rest)
    return made


async def main(port: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        _, writer = await asyncio.get_running_loop().create_connection(
            Writer, "127.0.0.1", port
        )
        await writer.start()
        home = BareHome(hass, writer)
        await home.busy(SCANNERS * DEVICES, 16)  # All devices are known
        await writer.finish()

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            home.joined = order.get("joined", False)
            return await measure(home, writer, order)

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
