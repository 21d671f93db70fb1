"""One way of sending what is heard to NATS or to a store, in a Home Assistant core of its own.

    python -m benchmarks.bus WAY PORT

Reads orders as `benchmarks.way` does. The bare ways hear the same, and hand ready-made
messages to the client's own way of sending: nats-py's `publish` and `publish_async` for
each, and one request of aiohttp for each thousands of lines.
"""

import asyncio
from collections.abc import Callable
from itertools import cycle, islice
import sys
from typing import Any, Final, override

from aiohttp import ClientSession
from homeassistant.core import HomeAssistant
import nats
from nats.aio.client import Client
import voluptuous as vol

from custom_components.ble_bridge.bridge import Bridge
from custom_components.ble_bridge.kinds import KINDS, KindName
from custom_components.ble_bridge.layouts.lines import SignalLayout
from custom_components.ble_bridge.layouts.subjects import (
    RawProtobufLayout,
    advertisement_subject,
)
from custom_components.ble_bridge.records import Route, Scanner, Sighting, Tally
from custom_components.ble_bridge.uploads import Uploads

from .core import addresses, entry_of, follow, home_assistant
from .packets import advertisement
from .way import DEVICES, PAYLOAD, SCANNERS, TURN, Home, Way, measure

LINES: Final = 5_000  # In a request, as by default
PATIENCE: Final = 60.0
STREAM: Final = "BENCH"


class BleBridge:
    """The integration, with a destination of another kind than MQTT."""

    def __init__(
        self, hass: HomeAssistant, kind: KindName, form: dict[str, Any]
    ) -> None:
        """Initialize with what is entered in the form; the rest is as it is by default."""
        self._hass = hass
        self._kind = kind
        self._form = form
        self._sent = 0

    async def start(self) -> None:
        """Set up the entry, and wait for the connection."""
        hass, kind = self._hass, KINDS[self._kind]
        form = vol.Schema(kind.schema(hass))(self._form)
        entered = await kind.async_data(hass, Uploads(), form)
        if entered.errors:
            raise ValueError(f"The form says {entered.errors}")
        entry = entry_of([entered.data])
        entry.add_to_hass(hass)
        await hass.config_entries.async_setup(entry.entry_id)
        bridge: Bridge = entry.runtime_data
        [self._destination] = bridge.destinations.values()
        while self._destination.connection is None:
            await asyncio.sleep(0.01)

    async def finish(self) -> int:
        """Wait until nothing waits."""
        destination = self._destination
        await destination.outbox.async_flush(PATIENCE)
        sent, self._sent = self._sent, destination.delivered
        return self._sent - sent


class Bare:
    """A client alone, with messages that were made beforehand."""

    def __init__(self, port: int) -> None:
        """Initialize."""
        self.port = port
        self.sent = 0

    async def start(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def send(self, count: int) -> None:
        """Send the next messages."""
        raise NotImplementedError

    async def finish(self) -> int:
        """Wait until all is sent."""
        sent, self.sent = self.sent, 0
        return sent


class BareNats(Bare):
    """nats-py, a `publish` for each message."""

    client: Client

    @override
    async def start(self) -> None:
        self.client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        self.messages = cycle(subjects_and_payloads())

    @override
    async def send(self, count: int) -> None:
        for subject, payload in islice(self.messages, count):
            await self.client.publish(subject, payload)
        self.sent += count

    @override
    async def finish(self) -> int:
        await self.client.flush()
        return await super().finish()


class BareJetStream(BareNats):
    """nats-py, a `publish_async` for each message, acknowledged."""

    @override
    async def start(self) -> None:
        await super().start()
        self.stream = self.client.jetstream(publish_async_max_pending=1_000)
        await self.stream.add_stream(name=STREAM, subjects=["ble.raw.>"])

    @override
    async def send(self, count: int) -> None:
        for subject, payload in islice(self.messages, count):
            await self.stream.publish_async(subject, payload)
        self.sent += count

    @override
    async def finish(self) -> int:
        await self.stream.publish_async_completed()
        return await Bare.finish(self)


class BareLines(Bare):
    """aiohttp, a request for each so many lines."""

    @override
    async def start(self) -> None:
        self.session = ClientSession()
        self.lines = cycle(points())
        self.collected = 0

    @override
    async def send(self, count: int) -> None:
        self.collected += count
        if self.collected >= LINES:
            await self.write()

    async def write(self) -> None:
        """Write what was collected."""
        count, self.collected = self.collected, 0
        async with self.session.post(
            f"http://127.0.0.1:{self.port}/api/v2/write?precision=ns",
            data=b"\n".join(islice(self.lines, count)),
        ) as response:
            response.raise_for_status()
        self.sent += count

    @override
    async def finish(self) -> int:
        if self.collected:
            await self.write()
        return await super().finish()


class BareHome(Home):
    """The scanners and devices of all ways, and a client that sends as many messages."""

    def __init__(self, hass: HomeAssistant, client: Bare) -> None:
        """Initialize."""
        super().__init__(hass)
        self._client = client

    @override
    async def busy(self, count: int, turn: int) -> None:
        """Hear so many in each turn of the loop, then send as many."""
        for begun in range(0, count, turn):
            now = min(turn, count - begun)
            for _ in range(now):
                self.hear(PAYLOAD)
            await self._client.send(now)
            await asyncio.sleep(0)


def sightings() -> list[Sighting]:
    """Return each device at each scanner."""
    return [
        Sighting(Scanner(f"AA:00:00:00:00:0{number}", f"proxy{number}", ""), address)
        for address in addresses(DEVICES)
        for number in range(SCANNERS)
    ]


def subjects_and_payloads() -> list[tuple[str, bytes]]:
    """Return a message of each device at each scanner."""
    layout = RawProtobufLayout()
    return [
        (
            advertisement_subject("ble", sighting),
            layout.payload(
                Route(b"", Tally()), sighting, advertisement(sighting.address, PAYLOAD)
            ),
        )
        for sighting in sightings()
    ]


def points() -> list[bytes]:
    """Return a line of each device at each scanner."""
    layout = SignalLayout()
    return [
        layout.payload(
            Route(b"", Tally()), sighting, advertisement(sighting.address, PAYLOAD)
        )
        for sighting in sightings()
    ]


def _nats(port: int, *, jetstream: bool) -> dict[str, Any]:
    """Return the form of a NATS destination that has JetStream for advertisements, or not."""
    stream = {"enabled": True, "stored": ["advertisement"]} if jetstream else {}
    return {
        "servers": [f"nats://127.0.0.1:{port}"],
        "jetstream": stream,
        "security": {},
        "delivery": {},
        "advanced": {},
    }


def _lines(port: int) -> dict[str, Any]:
    """Return the form of an InfluxDB destination that takes every signal."""
    return {
        "url": f"http://127.0.0.1:{port}",
        "signals": "all",
        "security": {},
        "delivery": {},
        "advanced": {},
    }


OURS: Final[dict[str, tuple[KindName, Callable[[int], dict[str, Any]]]]] = {
    "nats": (KindName.NATS, lambda port: _nats(port, jetstream=False)),
    "jetstream": (KindName.NATS, lambda port: _nats(port, jetstream=True)),
    "lines": (KindName.INFLUXDB, _lines),
}
BARE: Final[dict[str, type[Bare]]] = {
    "nats_bare": BareNats,
    "jetstream_bare": BareJetStream,
    "lines_bare": BareLines,
}


async def main(name: str, port: int) -> None:
    """Set up, then carry out orders until the input ends."""
    async with home_assistant() as hass:
        way: Way
        if name in OURS:
            kind, form = OURS[name]
            way = BleBridge(hass, kind, form(port))
            await way.start()
            home = Home(hass)
        else:
            way = client = BARE[name](port)
            await client.start()
            home = BareHome(hass, client)
        await home.busy(SCANNERS * DEVICES, TURN)  # All devices are known
        await way.finish()

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            return await measure(home, way, order)

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
