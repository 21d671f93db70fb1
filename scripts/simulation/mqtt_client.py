"""A small MQTT 3.1.1 client that only publishes: a thousand of them fit into one loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Self, cast, override

from .mqtt_packets import packet, split, text
from .processes import LOOPBACK, SimulationError

KEEPALIVE: Final = 60
CONNECT_SECONDS: Final = 20.0
_MESSAGE_IDS: Final = 65_535
_CONNACK: Final = 0x20
_PINGREQ: Final = b"\xc0\0"
_PINGRESP: Final = 0xD0
_DISCONNECT: Final = b"\xe0\0"


class MqttClient(asyncio.Protocol):
    """One connection to a broker; a new one is a new object."""

    def __init__(self, on_lost: Callable[[MqttClient], None]) -> None:
        """Describe a connection; `on_lost` is called when an open one ends, however."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[int] = self._loop.create_future()
        self._pings: deque[asyncio.Future[bool]] = deque()
        self._received = bytearray()
        self._message_id = 0
        self._keepalive: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._is_ending = False

    @classmethod
    async def connect(
        cls,
        port: int,
        client_id: str,
        will: tuple[str, bytes],
        on_lost: Callable[[MqttClient], None],
    ) -> Self:
        """Return an open connection with a retained will (topic and payload) at QoS 1."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, client = await loop.create_connection(
                    lambda: cls(on_lost), LOOPBACK, port
                )
                return await client.introduce(client_id, will)
        except OSError as err:
            raise SimulationError(f"{client_id} cannot reach the broker.") from err

    async def introduce(self, client_id: str, will: tuple[str, bytes]) -> Self:
        """Say who we are, and wait for the broker's answer."""
        topic, payload = will
        # Version, and flags: clean session, will, its QoS 1, and that it is retained
        head = text("MQTT") + bytes((4, 0b0010_1110)) + KEEPALIVE.to_bytes(2)
        body = head + text(client_id) + text(topic) + len(payload).to_bytes(2) + payload
        self._write(packet(0x10, body))
        try:
            if refusal := await self._connack:
                raise SimulationError(f"The broker refuses {client_id} ({refusal}).")
            if not self.is_open:  # Lost in the same breath
                raise ConnectionResetError
        except BaseException:
            self.close()
            raise
        self._keep_alive()
        return self

    @property
    def is_open(self) -> bool:
        """Return whether something can be published."""
        return self._transport is not None and not self._is_ending

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> None:
        """Publish a message at QoS 0 or 1."""
        body = text(topic)
        if qos:
            self._message_id = self._message_id % _MESSAGE_IDS + 1
            body += self._message_id.to_bytes(2)
        self._write(packet(0x30 | qos << 1 | retain, body + payload))

    async def flush(self) -> bool:
        """Wait until the broker has taken all that was published; False if it is gone.

        A broker takes the packets of a connection in their order, so that its answer to a
        ping tells.
        """
        if not self.is_open:
            return False
        return await self._ping()

    def _ping(self) -> asyncio.Future[bool]:
        """Ask the broker for an answer."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._pings.append(answer)
        self._write(_PINGREQ)
        return answer

    def _keep_alive(self) -> None:
        """Show the broker from time to time that we are there."""
        if self.is_open:
            self._ping()
        self._keepalive = self._loop.call_later(KEEPALIVE / 2, self._keep_alive)

    def cut(self) -> None:
        """End without a word, so that the broker publishes the will; all is sent first.

        It is the broker that closes then: what we close while its answers are under way is
        reset, and with it what it has not read.
        """
        if self._transport is not None and not self._is_ending:
            self._is_ending = True
            self._transport.write_eof()

    def disconnect(self) -> None:
        """Say goodbye, so that the broker drops the will."""
        if self.is_open:
            self._write(_DISCONNECT)
            self.cut()

    def close(self) -> None:
        """Close the socket, whatever the broker does."""
        self._is_ending = True
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # --- what the loop tells ------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        while (found := split(self._received)) is not None:
            head, body, end = found
            if head == _CONNACK and not self._connack.done():
                self._connack.set_result(body[1])
            elif head == _PINGRESP and self._pings:
                answer = self._pings.popleft()
                if not answer.done():
                    answer.set_result(True)
            del self._received[:end]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in self._pings:
            if not answer.done():
                answer.set_result(False)
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._on_lost(self)
        elif not self._connack.done():
            self._connack.set_exception(ConnectionResetError("Not accepted"))
