"""An MQTT subscriber that does nothing but count, so that it is never what is measured.

    python -m benchmarks.counter PORT [BASE]

It subscribes to `BASE/raw/#` (`ble`, unless another is given) with MQTT 3.1.1, prints `ready`, and prints a JSON object for
each line that it reads: the messages since the line before, and their latencies in ms
where the packet carries its time (company ID 0xFFFE, `CLOCK_MONOTONIC` in ns).
"""

import asyncio
import json
import re
import sys
import time
from typing import cast, override

STAMP = re.compile(rb'"raw":"020106[0-9a-f]{2}fffeff([0-9a-f]{16})"')


class Counter(asyncio.Protocol):
    """The connection to the broker."""

    def __init__(self, base: str) -> None:
        """Initialize the counts; `base` is the topic base."""
        self._filter = f"{base}/raw/#".encode()
        self.messages = 0
        self.latencies: list[float] = []
        self.ready = asyncio.Event()
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT and SUBSCRIBE."""
        self._transport = cast(asyncio.WriteTransport, transport)
        transport = self._transport
        transport.write(bytes.fromhex("100c00044d5154540402003c0000"))
        length = len(self._filter)
        transport.write(
            bytes((0x82, length + 5, 0, 1, 0, length)) + self._filter + b"\0"
        )

    @override
    def data_received(self, data: bytes) -> None:
        """Count the PUBLISH packets of what came."""
        now = time.monotonic_ns()
        data = self._rest + data
        position, end = 0, len(data)
        while position + 2 <= end:
            length = shift = 0
            at = position + 1
            while at < end:
                digit = data[at]
                at += 1
                length |= (digit & 0x7F) << shift
                shift += 7
                if digit < 0x80:
                    break
            else:
                break
            if at + length > end:
                break
            kind = data[position] & 0xF0
            if kind == 0x30:
                self.messages += 1
            elif kind == 0x90:
                self.ready.set()
            position = at + length
        for stamp in STAMP.findall(data, 0, position):
            sent = int.from_bytes(bytes.fromhex(stamp.decode()), "little")
            self.latencies.append((now - sent) / 1e6)
        self._rest = data[position:]

    def ping(self) -> None:
        """Keep the connection up."""
        if self._transport is not None:
            self._transport.write(b"\xc0\x00")


async def main(port: int, base: str = "ble") -> None:
    """Count until the input ends."""
    loop = asyncio.get_running_loop()
    _, counter = await loop.create_connection(lambda: Counter(base), "127.0.0.1", port)
    await counter.ready.wait()
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        counter.ping()
        print(
            json.dumps({"messages": counter.messages, "latencies": counter.latencies}),
            flush=True,
        )
        counter.messages, counter.latencies = 0, []


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
