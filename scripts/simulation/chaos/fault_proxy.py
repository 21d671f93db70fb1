"""A network that fails, between a client and a server."""

import asyncio
from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import re
import socket
import struct
import time
from typing import Final, Self, override
from weakref import WeakKeyDictionary, WeakSet

from scripts.simulation.mqtt_packets import body, end_of_packet
from scripts.simulation.processes import LOOPBACK, free_port

CONNECT: Final = 1
PUBLISH: Final = 3
VERSION_5: Final = 5
# How an old broker answers MQTT 5: unacceptable protocol version (MQTT 3.1.1, 3.2.2.3).
OLD_BROKER: Final = b"\x20\x02\x00\x01"
_BUFFER: Final = 16 * 1024
_PACE: Final = 0.05
# How long the server is given to see the first half of a packet.
_HALF_SECONDS: Final = 0.05
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

# Where the first packet ends of what was received, if its end is here.
type FindEnd = Callable[[bytearray], int | None]


class Packets:
    """Cuts one direction of a connection into packets."""

    def __init__(self, find_end: FindEnd) -> None:
        """Begin with nothing received."""
        self._find_end = find_end
        self._received = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the packets that are complete with these bytes."""
        self._received += data
        packets = []
        while (end := self._find_end(self._received)) is not None:
            packets.append(bytes(self._received[:end]))
            del self._received[:end]
        return packets


def end_of_request(received: bytearray) -> int | None:
    """Return where a request of HTTP ends, of which the length is told in its head."""
    if (end := received.find(b"\r\n\r\n")) < 0:
        return None
    end += 4
    if found := _CONTENT_LENGTH.search(received, 0, end):
        end += int(found[1])
    return end if end <= len(received) else None


def publish_of(packet: bytes) -> tuple[str, int]:
    """Return the topic of a PUBLISH at QoS 1 or 2, and its packet identifier."""
    rest = body(packet)
    end = 2 + int.from_bytes(rest[:2])
    return rest[2:end].decode(), int.from_bytes(rest[end : end + 2])


@dataclass(eq=False)
class Link:
    """A client's connection to the server.

    `opened` is when the server answered first (monotonic, s). What is `lost` goes nowhere
    any more, in either direction, though both sides are still connected.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    opened: float | None = None
    lost: bool = False

    @property
    def age(self) -> float:
        """Return for how long it has been open (s)."""
        return 0.0 if self.opened is None else time.monotonic() - self.opened


class FaultProxy:
    """Passes on what is said between clients and a server, as long as it pleases.

    `rate` (bytes a second, each way) and `delay` (s, each way) slow it down; `swallows` takes what comes on every connection and
    passes on nothing, and these stay dead; `cut_after` bytes to the server end all
    connections.
    """

    def __init__(self, target: int) -> None:
        """Initialize with the server's port."""
        self.port = free_port()
        self.rate: int | None = None
        self.delay = 0.0
        self.swallows = False
        self.cut_after: int | None = None
        self.links: set[Link] = set()
        self.lives: list[float] = []  # of the connections that ended (s)
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and end all connections."""
        self.refuse()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Take connections, always on the same port."""
        if self._server is not None:
            return
        listener = socket.create_server((LOOPBACK, self.port))
        # What the kernel keeps would be a second server with a long memory.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _BUFFER)
        self._server = await asyncio.start_server(
            self._on_client, sock=listener, limit=_BUFFER
        )

    def refuse(self) -> None:
        """Take no further connections: nobody listens."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def age(self) -> float:
        """Return for how long the newest connection has been open (s)."""
        return min((link.age for link in self.links if not link.lost), default=0.0)

    def cut(self) -> None:
        """End all connections at once, with a reset on both sides."""
        for link in tuple(self.links):
            reset(link.client)
            reset(link.server)

    def half_open(self) -> None:
        """End all connections for the server, which the client does not learn."""
        for link in self.links:
            link.lost = True
            reset(link.server)

    # --- inside -------------------------------------------------------------------------

    def _on_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one client."""
        link: Link | None = None
        try:
            back, onward = await asyncio.open_connection(
                LOOPBACK, self._target, limit=_BUFFER
            )
            link = Link(writer, onward)
            self.links.add(link)
            for side in (writer, onward):
                side.transport.set_write_buffer_limits(high=_BUFFER)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, link, self._to_server))
                group.create_task(self._pass(back, link, self._to_client))
        except* (OSError, EOFError):  # fmt: skip
            pass
        finally:
            if link is not None:
                self._forget(link)
            writer.transport.abort()

    def _forget(self, link: Link) -> None:
        self.links.discard(link)
        if link.opened is not None:
            self.lives.append(link.age)
        link.server.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        link: Link,
        write: Callable[[Link, bytes], asyncio.StreamWriter | None],
    ) -> None:
        """Pass on one direction until a side ends the connection."""
        while True:
            limit = _BUFFER if self.rate is None else max(int(self.rate * _PACE), 1)
            try:
                data = await reader.read(limit)
            except OSError:
                data = b""
            if not data:
                if link.lost and write == self._to_client:
                    # The client is not to learn of it, and ends this when it leaves.
                    await asyncio.Event().wait()
                raise EOFError
            link.lost |= self.swallows
            if self.rate is not None:
                await asyncio.sleep(len(data) / self.rate)
            if self.delay:
                await asyncio.sleep(self.delay)
            if link.lost:
                continue
            if (side := write(link, data)) is not None:
                await side.drain()
            if self.cut_after is not None and self.cut_after <= 0:
                self.cut_after = None
                await asyncio.sleep(_HALF_SECONDS)
                self.cut()
                raise EOFError

    def _to_client(self, link: Link, data: bytes) -> asyncio.StreamWriter:
        if link.opened is None:
            link.opened = time.monotonic()
        link.client.write(data)
        return link.client

    def _to_server(self, link: Link, data: bytes) -> asyncio.StreamWriter | None:
        if not (data := self._passed(link, data)):
            return None
        if self.cut_after is not None:
            data = data[: max(self.cut_after, 0)]
            self.cut_after -= len(data) or 1
        link.server.write(data)
        return link.server

    def _passed(self, _link: Link, data: bytes) -> bytes:
        """Return what is the server's to answer, of what comes from a client."""
        return data


class _ReadingProxy(FaultProxy):
    """A proxy that reads what comes from clients, packet by packet."""

    def __init__(self, target: int, find_end: FindEnd) -> None:
        """Initialize with the server's port, and what knows a packet."""
        super().__init__(target)
        self._find_end = find_end
        self._packets: WeakKeyDictionary[Link, Packets] = WeakKeyDictionary()

    @override
    def _passed(self, link: Link, data: bytes) -> bytes:
        if (packets := self._packets.get(link)) is None:
            packets = self._packets[link] = Packets(self._find_end)
        return b"".join(
            packet for packet in packets.feed(data) if not self._answers(link, packet)
        )

    def _answers(self, link: Link, packet: bytes) -> bool:
        """Answer a packet in place of the server, or tell that it is the server's."""
        raise NotImplementedError


class MqttProxy(_ReadingProxy):
    """A proxy that understands MQTT.

    `refuses_5` answers MQTT 5 as an old broker does; `rejections` gives the reason code with
    which a PUBLISH (MQTT 5, QoS 1) is answered in place of the broker, by what its topic
    begins with.
    """

    def __init__(self, target: int) -> None:
        """Initialize with the broker's port."""
        super().__init__(target, end_of_packet)
        self.refuses_5 = False
        self.rejections: dict[str, int] = {}
        self.rejected = 0
        self._version_5: WeakSet[Link] = WeakSet()

    @override
    def _answers(self, link: Link, packet: bytes) -> bool:
        kind, flags = packet[0] >> 4, packet[0] & 0xF
        if kind == CONNECT and body(packet)[6] == VERSION_5:
            self._version_5.add(link)
            if self.refuses_5:
                link.client.write(OLD_BROKER)
                with contextlib.suppress(OSError):
                    link.client.write_eof()
                return True
        if not self.rejections or kind != PUBLISH or flags & 6 != 2:
            return False
        topic, identifier = publish_of(packet)
        for beginning, reason in self.rejections.items():
            if topic.startswith(beginning) and link in self._version_5:
                link.client.write(struct.pack(">BBHB", 0x40, 3, identifier, reason))
                self.rejected += 1
                return True
        return False


class HttpProxy(_ReadingProxy):
    """A proxy that understands HTTP.

    With `refusal`, a status line and headers, each request is answered so in place of the
    server.
    """

    def __init__(self, target: int) -> None:
        """Initialize with the server's port."""
        super().__init__(target, end_of_request)
        self.refusal: tuple[str, ...] = ()
        self.refused = 0

    @override
    def _answers(self, link: Link, packet: bytes) -> bool:
        if not self.refusal:
            return False
        status, *headers = self.refusal
        head = (f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", "")
        link.client.write("\r\n".join(head).encode())
        self.refused += 1
        return True


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a TCP reset, whatever is under way."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() > -1:
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()
