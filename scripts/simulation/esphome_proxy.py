"""A simulated ESPHome Bluetooth proxy: the native API, plaintext, over TCP.

The real esphome integration connects to it as to a proxy on the network. It follows
aioesphomeapi's api.proto and answers what Home Assistant asks of a proxy without
entities: https://github.com/esphome/aioesphomeapi
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import batched
import socket
import struct
from typing import Any, Final, Self, cast, override

from aioesphomeapi import BluetoothProxyFeature, api_pb2
from aioesphomeapi.core import MESSAGE_TYPE_TO_PROTO

from .processes import LOOPBACK, SimulationError, free_port

# The messages are built at import time by protobuf: type checkers cannot see them.
pb: Any = api_pb2
type Message = Any

# address, RSSI in dBm, advertising data (AD structures), 0 public or 1 random address
type Packet = tuple[str, int, bytes, int]

BATCH_SIZE: Final = 16  # as many as the firmware puts into one message
FEATURES: Final = (
    BluetoothProxyFeature.PASSIVE_SCAN
    | BluetoothProxyFeature.RAW_ADVERTISEMENTS
    | BluetoothProxyFeature.FEATURE_STATE_AND_MODE
)
SCANNER_RUNNING: Final = 2
PLAINTEXT: Final = 0
MESSAGE_IDS: Final = {
    message: number for number, message in MESSAGE_TYPE_TO_PROTO.items()
}


def encode_varint(value: int) -> bytes:
    """Return an unsigned integer as a protobuf varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(data: bytearray, position: int) -> tuple[int, int]:
    """Return a varint and the position behind it; IndexError if it is incomplete."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte <= 0x7F:
            return value, position


def encode_frame(message: Message) -> bytes:
    """Return a message as a plaintext frame: 0, length, message ID, protobuf."""
    payload: bytes = message.SerializeToString()
    return b"".join(
        (
            bytes((PLAINTEXT,)),
            encode_varint(len(payload)),
            encode_varint(MESSAGE_IDS[type(message)]),
            payload,
        )
    )


class ProxyConnection(asyncio.Protocol):
    """One client's connection to a proxy."""

    transport: asyncio.Transport

    def __init__(self, proxy: EsphomeProxy) -> None:
        """Prepare the connection of a client to a proxy."""
        self._proxy = proxy
        self._received = bytearray()
        self._waiting = 0  # advertisements of which the socket has taken a part
        self._writable = asyncio.Event()
        self._writable.set()
        self._answers: dict[type[Message], Callable[[Message], None]] = {
            pb.HelloRequest: self._hello,
            pb.AuthenticationRequest: lambda _: self._write(
                pb.AuthenticationResponse()
            ),
            pb.PingRequest: lambda _: self._write(pb.PingResponse()),
            pb.DeviceInfoRequest: lambda _: self._write(proxy.device_info()),
            pb.ListEntitiesRequest: lambda _: self._write(
                pb.ListEntitiesDoneResponse()
            ),
            pb.SubscribeBluetoothConnectionsFreeRequest: lambda _: self._write(
                pb.BluetoothConnectionsFreeResponse(free=0, limit=0)
            ),
            pb.SubscribeBluetoothLEAdvertisementsRequest: self._subscribe,
            pb.UnsubscribeBluetoothLEAdvertisementsRequest: self._unsubscribe,
            pb.BluetoothScannerSetModeRequest: self._set_mode,
            pb.DisconnectRequest: self._disconnect,
        }

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection with its proxy."""
        self.transport = cast(asyncio.Transport, transport)
        # Nothing waits in our own memory: the socket takes a frame, or we hear of it.
        self.transport.set_write_buffer_limits(high=0)
        self._proxy.connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and count what it did not take."""
        self._proxy.dropped += self._waiting
        self._waiting = 0
        self._writable.set()
        self._proxy.connections.discard(self)
        self._proxy.unsubscribed(self)

    @override
    def pause_writing(self) -> None:
        """Take no more: the client does not read as fast as we send."""
        self._writable.clear()

    @override
    def resume_writing(self) -> None:
        """Take more: the socket has all that was written."""
        self._proxy.sent += self._waiting
        self._waiting = 0
        self._writable.set()

    @override
    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._received += data
        while self._received:
            if self._received[0] != PLAINTEXT:  # asks for encryption
                self.transport.write(bytes((PLAINTEXT,)))
                self.transport.close()
                return
            try:
                length, position = decode_varint(self._received, 1)
                number, position = decode_varint(self._received, position)
            except IndexError:
                return
            if len(self._received) < (end := position + length):
                return
            request = MESSAGE_TYPE_TO_PROTO[number]()
            request.ParseFromString(bytes(self._received[position:end]))
            del self._received[:end]
            if answer := self._answers.get(type(request)):
                answer(request)

    def send(self, packets: Iterable[Packet]) -> int:
        """Hand packets to the socket, and return how many it had to leave out."""
        left_out = 0
        for batch in batched(packets, BATCH_SIZE, strict=False):
            if not self._takes_more():
                left_out += len(batch)
                continue
            message = pb.BluetoothLERawAdvertisementsResponse()
            for address, rssi, data, address_type in batch:
                message.advertisements.add(
                    address=int(address.replace(":", ""), 16),
                    rssi=rssi,
                    data=data,
                    address_type=address_type,
                )
            # Before the write, which calls pause_writing when it is only half done.
            self._waiting = len(batch)
            self._write(message)
            if self._takes_more():
                self.resume_writing()
        return left_out

    def reset(self) -> None:
        """End the connection with a TCP reset, and throw away what is under way."""
        client: socket.socket = self.transport.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def wait_writable(self) -> None:
        """Wait until the socket takes more."""
        await self._writable.wait()

    def _takes_more(self) -> bool:
        return self._writable.is_set() and not self.transport.is_closing()

    def _write(self, message: Message) -> None:
        self.transport.write(encode_frame(message))

    def _hello(self, _: Message) -> None:
        self._write(
            pb.HelloResponse(
                api_version_major=1,
                api_version_minor=12,
                server_info="BLE Bridge simulation",
                name=self._proxy.name,
            )
        )

    def _subscribe(self, _: Message) -> None:
        self._proxy.subscribed(self)
        self._write(self._proxy.scanner_state())

    def _unsubscribe(self, _: Message) -> None:
        self._proxy.unsubscribed(self)

    def _set_mode(self, request: Message) -> None:
        self._proxy.mode = request.mode
        self._write(self._proxy.scanner_state())

    def _disconnect(self, _: Message) -> None:
        self._write(pb.DisconnectResponse())
        self.transport.close()


class EsphomeProxy:
    """A simulated ESPHome Bluetooth proxy on the loopback address.

    `sent` counts the advertisements that the socket to Home Assistant has taken,
    `dropped` those that it has not: nobody subscribed, or Home Assistant too slow.
    """

    def __init__(self, name: str, mac: str, port: int = 0, area: str = "") -> None:
        """Describe a proxy by its name, Wi-Fi address, TCP port and suggested area."""
        self.name = name
        self.mac = mac.upper()
        self.port = port or free_port()
        self.area = area
        self.mode = 0  # passive
        self.sent = 0
        self.dropped = 0
        self.connections: set[ProxyConnection] = set()
        self._server: asyncio.Server | None = None
        self._subscriber: ProxyConnection | None = None
        self._ready = asyncio.Event()

    @property
    def source(self) -> str:
        """Return the Bluetooth address: the Wi-Fi address + 2, as on an ESP32."""
        number = int(self.mac.replace(":", ""), 16) + 2
        return number.to_bytes(6).hex(":").upper()

    async def __aenter__(self) -> Self:
        """Start the proxy."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the proxy."""
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: ProxyConnection(self), LOOPBACK, self.port
            )
        except OSError as err:
            raise SimulationError(
                f"Port {self.port} for the proxy {self.name} is in use."
            ) from err

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in tuple(self.connections):
            connection.transport.close()
        await server.wait_closed()

    def disconnect(self) -> None:
        """Cut all connections abruptly, as a proxy that loses its power does."""
        for connection in tuple(self.connections):
            connection.reset()
            self.unsubscribed(connection)

    def ready(self) -> bool:
        """Return whether Home Assistant has subscribed to the advertisements."""
        return self._subscriber is not None

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until Home Assistant has subscribed to the advertisements."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            raise SimulationError(
                f"Home Assistant did not subscribe to the proxy {self.name}."
            ) from None

    def send(self, packets: Iterable[Packet]) -> None:
        """Send advertisements, in batches like the firmware's; see `sent`."""
        packets = list(packets)
        if self._subscriber is None:
            self.dropped += len(packets)
        else:
            self.dropped += self._subscriber.send(packets)

    async def drain(self) -> None:
        """Wait until the socket takes more, for a sender that wants no drops."""
        if self._subscriber is not None:
            await self._subscriber.wait_writable()

    def subscribed(self, connection: ProxyConnection) -> None:
        """Send advertisements to a connection from now on, and to no other."""
        self._subscriber = connection
        self._ready.set()

    def unsubscribed(self, connection: ProxyConnection) -> None:
        """Send no more advertisements to a connection."""
        if self._subscriber is connection:
            self._subscriber = None
            self._ready.clear()

    def scanner_state(self) -> Message:
        """Return the message that says that the scanner runs, and how."""
        return pb.BluetoothScannerStateResponse(
            state=SCANNER_RUNNING, mode=self.mode, configured_mode=0
        )

    def device_info(self) -> Message:
        """Return the message that describes the proxy."""
        return pb.DeviceInfoResponse(
            name=self.name,
            friendly_name=self.name.replace("-", " ").capitalize(),
            mac_address=self.mac,
            bluetooth_mac_address=self.source,
            esphome_version="2026.10.1",
            compilation_time="Oct  1 2026, 00:00:00",
            model="esp32dev",
            manufacturer="Espressif",
            bluetooth_proxy_feature_flags=int(FEATURES),
            suggested_area=self.area,
        )
