"""Controllers that say what `specs/mqtt-monitor.md` has them say, as fast as they are told to.

    python -m benchmarks.controllers PORT

It speaks MQTT 3.1.1, prints `ready`, then reads one JSON object a line: `{"kind": "telemetry"
or "status", "count", "devices"}` has that many messages published, by so many devices in turn,
as fast as the broker takes them. With `"rate"` it is so many a second, evenly spread; with
`"changed": false` each says the same again; with `"qos": 1` each is acknowledged; with
`"retain"` the broker keeps them, and `"first"` is the number of the first device. It prints how many the broker has taken, and the seconds.
"""

import asyncio
from datetime import UTC, datetime
import json
import sys
import time
from typing import Any, Final, cast, override

from custom_components.ble_bridge.destinations.mqtt_connection import remaining_length

TICK: Final = 0.002
CHUNK: Final = 500  # Packets in one piece, where they go as fast as they can
PUBACK: Final = 0x40
PINGRESP: Final = 0xD0
# What telemetry says, as `specs/mqtt-monitor.md` has it.
VALUES: Final = ("temperature", "humidity", "voltage", "memory_free")
SENSORS: Final = 200  # Devices of which Home Assistant's MQTT integration has sensors
_MIDS: Final = 65_535


def name(device: int) -> str:
    """Return what a device is called."""
    return f"ESP32_{device:05}"


class Controllers(asyncio.Protocol):
    """The one connection of all of them."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self.ready = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._rest = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._answered = asyncio.Event()
        self._acknowledged = 0
        self._said = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT, without a keepalive."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(bytes.fromhex("100c00044d515454040200000000"))

    @override
    def pause_writing(self) -> None:
        """Take note that the broker is busy."""
        self._may_write.clear()

    @override
    def resume_writing(self) -> None:
        """Take note that it is not any more."""
        self._may_write.set()

    @override
    def data_received(self, data: bytes) -> None:
        """Read the broker's answers: all of them are short."""
        data = self._rest + data
        position = 0
        while position + 2 <= len(data):
            end = position + 2 + data[position + 1]
            if end > len(data):
                break
            kind = data[position]
            if kind == PUBACK:
                self._acknowledged += 1
            elif kind == PINGRESP:
                self._answered.set()
            else:
                self.ready.set()
            position = end
        self._rest = data[position:]

    async def speak(
        self,
        kind: str,
        count: int,
        devices: int,
        rate: float | None = None,
        qos: int = 0,
        first: int = 0,
        *,
        changed: bool = True,
        retain: bool = False,
    ) -> dict[str, float]:
        """Publish so many messages; return how many the broker took, and how long it took."""
        self._acknowledged = 0

        head = 0x30 | qos << 1 | retain

        def packets(begin: int, end: int) -> bytes:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return b"".join(
                packet(
                    head,
                    number % _MIDS + 1 if qos else None,
                    kind,
                    name(first + number % devices),
                    (self._said + number) // devices if changed else 0,
                    now,
                )
                for number in range(begin, end)
            )

        if rate is None:
            pieces = [
                packets(begin, min(begin + CHUNK, count))
                for begin in range(0, count, CHUNK)
            ]
            began = time.monotonic()
            for piece in pieces:
                await self._write(piece)
        else:
            began = time.monotonic()
            done = 0
            while done < count:
                await asyncio.sleep(TICK)
                due = min(count, int((time.monotonic() - began) * rate))
                if due > done:
                    await self._write(packets(done, due))
                    done = due
        self._said += count
        await self._settle(count if qos else 0)
        return {"sent": count, "wall": time.monotonic() - began}

    async def _write(self, data: bytes) -> None:
        """Write, when there is room."""
        await self._may_write.wait()
        if self._transport is not None:
            self._transport.write(data)

    async def _settle(self, acknowledgements: int) -> None:
        """Wait until the broker has taken all."""
        self._answered.clear()
        await self._write(b"\xc0\x00")
        await self._answered.wait()
        while self._acknowledged < acknowledgements:
            await asyncio.sleep(0.001)


def packet(
    head: int, mid: int | None, kind: str, device: str, step: int, now: str
) -> bytes:
    """Return one PUBLISH packet (MQTT 3.1.1, 3.3)."""
    topic = f"autocore/{device}/{kind}".encode()
    identifier = b"" if mid is None else mid.to_bytes(2)
    payload = _PAYLOADS[kind](device, step, now).encode()
    body = len(topic).to_bytes(2) + topic + identifier + payload
    return bytes((head,)) + remaining_length(len(body)) + body


def _telemetry(device: str, step: int, now: str) -> str:
    """Return telemetry of which every value is another one in each step."""
    return (
        f'{{"device_id": "{device}", "temperature": {20 + step % 100 / 10:.1f}, '
        f'"humidity": {40 + step % 110 / 10:.1f}, "voltage": {3 + step % 90 / 100:.2f}, '
        f'"memory_free": {45_000 + step % 1_000}, "timestamp": "{now}"}}'
    )


def _status(device: str, step: int, now: str) -> str:
    """Return a status, always the same."""
    return (
        f'{{"device_id": "{device}", "status": "online", "ip_address": "192.168.1.100", '
        f'"firmware_version": "1.2.0", "uptime": 3600, "timestamp": "{now}"}}'
    )


_PAYLOADS: Final = {"telemetry": _telemetry, "status": _status}


async def main(port: int) -> None:
    """Speak until the input ends."""
    loop = asyncio.get_running_loop()
    _, controllers = await loop.create_connection(Controllers, "127.0.0.1", port)
    await controllers.ready.wait()
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while order := await lines.readline():
        what: dict[str, Any] = json.loads(order)
        print(json.dumps(await controllers.speak(**what)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
