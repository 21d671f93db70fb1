"""An MQTT connection on paho-mqtt, driven by the event loop.

paho keeps the connection, keepalive, TLS and websockets; no thread of its own runs. The
only blocking calls are those that open the socket (name, TCP, TLS, websocket handshake),
and they run in the loop's executor.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
import logging
import random
import secrets
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from paho.mqtt.client import (
    Client,
    MQTTMessage,
    MQTTMessageInfo,
    WebsocketConnectionError,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from .errors import ConnectError, Problem
from .sockets import tune
from .tls import TlsContext, tls_context

if TYPE_CHECKING:
    from concurrent.futures import Future

_LOGGER = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 30.0
DISCONNECT_TIMEOUT: Final = 0.25
SESSION_EXPIRY: Final = 3600
# What a broker may send us at once (bytes, MQTT 5): it has to be read as a whole.
MAX_PACKET: Final = 16 * 1024 * 1024
MAX_INFLIGHT: Final = 100
_BATCH: Final = 500
_WEBSOCKET_BATCH: Final = 32
_MISC_INTERVAL: Final = 1.0
_MESSAGE_IDS: Final = 65_536
# Bytes that are read of the socket in a turn of the loop: some hundred messages at most.
_CHUNK: Final = 16 * 1024
_PUBACK: Final = 0x40
_PUBACK_HEAD: Final = b"\x40\x02"

# How an old broker answers version 5: it refuses, hangs up, or does not know what to say.
_NO_VERSION_5: Final = frozenset(
    {Problem.PROTOCOL_UNSUPPORTED, Problem.NOT_MQTT, Problem.NO_ANSWER}
)
# How long version 5 may go without an answer before 3.1.1 is tried.
_FIRST_PATIENCE: Final = 5.0
# Of the connect timeout, what a host has to accept TCP: the rest is for what runs there.
_TCP_SHARE: Final = 0.8

# CONNACK reason codes (MQTT 5, 3.2.2.2); paho gives those of 3.1.1 as these.
_REFUSALS: Final = {
    0x84: Problem.PROTOCOL_UNSUPPORTED,
    0x85: Problem.CLIENT_ID_REFUSED,
    0x86: Problem.INVALID_AUTH,
    0x87: Problem.INVALID_AUTH,
    0x88: Problem.SERVER_UNAVAILABLE,
    0x89: Problem.SERVER_UNAVAILABLE,
    0x8C: Problem.INVALID_AUTH,
    0x97: Problem.QUOTA_EXCEEDED,
    0x9F: Problem.SERVER_UNAVAILABLE,
}
# Why a broker does not take a message: reason codes of PUBACK, PUBREC and PUBCOMP (MQTT 5,
# 3.4.2.1); any other one is a rejection. Some brokers end the connection with the same.
_NOT_TAKEN: Final = {
    0x87: Problem.NOT_AUTHORIZED,
    0x95: Problem.TOO_LARGE,
    0x97: Problem.QUOTA_EXCEEDED,
}
# Why a connection ended: reason codes of DISCONNECT (MQTT 5, 3.14.2.1), the broker's or
# paho's own; any other one from the broker says that we did what it does not allow.
_ENDINGS: Final = {
    **_NOT_TAKEN,
    0x00: Problem.CONNECTION_LOST,
    0x8B: Problem.CONNECTION_LOST,
    0x8D: Problem.NO_ANSWER,
    0x8E: Problem.CLIENT_ID_TAKEN,
    0x98: Problem.CONNECTION_LOST,
}

# Why a broker does not take a subscription: reason codes of SUBACK (MQTT 5, 3.9.3); any other
# failure, and the only one of 3.1.1, says no more than that.
_NOT_SUBSCRIBED: Final = {
    0x87: Problem.NOT_AUTHORIZED,
    0x97: Problem.QUOTA_EXCEEDED,
    0x9E: Problem.SHARING_UNSUPPORTED,
}

# The user property of a message that may have been sent before.
RESEND_PROPERTY: Final = "is_resend"


class _Info:
    """What paho tells of a message's fate; nobody waits for it here."""

    def _set_as_published(self) -> None:
        """Take note of nothing."""


class _Outgoing:
    """A packet that was written ready-made, as far as paho needs to know of it.

    One stands for all of its QoS: paho writes state and time, and reads neither.
    """

    def __init__(self, qos: int) -> None:
        """Initialize with the QoS."""
        self.qos = qos
        self.state: object = None
        self.timestamp = 0.0
        self.info = _Info()


_OUTGOING: Final = {1: _Outgoing(1), 2: _Outgoing(2)}


def publish_properties(
    user_properties: tuple[tuple[str, str], ...], message_expiry: int | None
) -> bytes:
    """Return the properties of a PUBLISH packet with their length (MQTT 5, 3.3.2.3)."""
    properties = b""
    if message_expiry is not None:
        properties += b"\x02" + message_expiry.to_bytes(4)
    for texts in user_properties:
        properties += b"\x26"
        for text in texts:
            encoded = text.encode()
            properties += len(encoded).to_bytes(2) + encoded
    return remaining_length(len(properties)) + properties


def remaining_length(length: int) -> bytes:
    """Return a length as a variable byte integer (MQTT 5, 1.5.5)."""
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        if not length:
            digits.append(digit)
            return bytes(digits)
        digits.append(digit | 0x80)


def read_length(packet: bytes, start: int) -> tuple[int, int]:
    """Return a variable byte integer (MQTT 5, 1.5.5), and where it ends.

    Raises ValueError or IndexError where there is none.
    """
    length = 0
    for shift in (0, 7, 14, 21):
        digit = packet[start]
        start += 1
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            return length, start
    raise ValueError("More than four bytes")


class MalformedError(Exception):
    """A message that is none (MQTT 5, 1.2: a Malformed Packet)."""


class MqttProtocol(StrEnum):
    """The version of MQTT to speak; AUTO is 5, and 3.1.1 where the broker knows no other."""

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """How to reach a broker.

    `ca`, `client_certificate` and `client_key` are PEM; no `ca` means the system's.
    `server_name` is asked for and checked in place of the host. With a `unix_path` neither
    host and port nor TLS count. `user_properties` and `message_expiry` (s) go with each
    message, `session_expiry` (s) with a session that is not clean. `connect_timeout` and
    `disconnect_timeout` are how long each may take (s); `first_delay` and `longest_delay`
    are those between tries (s), None for the default.
    """

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive: int = 60
    clean_session: bool = True
    protocol: MqttProtocol = MqttProtocol.AUTO
    tls: bool = False
    tls_insecure: bool = False
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    ca: str | None = field(default=None, repr=False)
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    websocket_path: str | None = None
    websocket_headers: dict[str, str] = field(default_factory=dict, repr=False)
    unix_path: str | None = None
    user_properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    message_expiry: int | None = None
    session_expiry: int = SESSION_EXPIRY
    connect_timeout: float = CONNECT_TIMEOUT
    disconnect_timeout: float = DISCONNECT_TIMEOUT
    first_delay: float | None = None
    longest_delay: float | None = None

    @property
    def transport(self) -> Literal["tcp", "unix", "websockets"]:
        """Return what carries the connection, as paho calls it."""
        if self.unix_path is not None:
            return "unix"
        return "tcp" if self.websocket_path is None else "websockets"


@dataclass(frozen=True, slots=True)
class Will:
    """The retained message that the broker publishes when the connection is lost."""

    topic: str
    payload: bytes


def new_client_id() -> str:
    """Return a client ID that no other client has, 22 characters of letters, digits, -."""
    return f"ble-bridge-{secrets.token_hex(5)}"


class ConnectionListener(Protocol):
    """What is told of a connection's messages and end."""

    def on_written(self, mid: int) -> None:
        """Take note that a batch was written, or a message acknowledged."""

    def on_refused(self, mid: int, problem: Problem) -> None:
        """Take note that the broker refused a message, and why."""

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message of a subscription; `retained` is one that the broker had kept."""

    def on_subscribed(self, mid: int, problem: Problem | None) -> None:
        """Take note that the broker took a subscription, or why it did not."""

    def on_lost(self, problem: Problem) -> None:
        """Take note that the connection ended without our doing."""


class _Inlet:
    """What was read of a socket: a lot at a time, whereas paho asks for a few bytes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Initialize with what reads the socket."""
        self.may_read = False
        self._read = read
        self._data = b""
        self._start = 0

    @property
    def waits(self) -> bool:
        """Tell whether something was read that nobody has asked for yet."""
        return self._start < len(self._data)

    def receive(self, size: int) -> bytes:
        """Return up to so many bytes; the socket is read once, then it is another turn."""
        if not self.waits:
            if not self.may_read:
                raise BlockingIOError
            self.may_read = False
            self._data, self._start = self._read(max(size, _CHUNK)), 0
        start = self._start
        self._start = end = min(start + size, len(self._data))
        return self._data[start:end]

    def message(self) -> tuple[int, bytes] | None:
        """Return the next packet, head and body, if it is a whole PUBLISH below QoS 2."""
        data, start = self._data, self._start
        if start == len(data) or data[start] & 0xF4 != 0x30:
            return None
        try:
            length, body = read_length(data, start + 1)
        except IndexError, ValueError:
            return None
        if (end := body + length) > len(data):
            return None
        self._start = end
        return data[start], data[body:end]


class MqttConnection:
    """One connection to a broker, from CONNECT to its end; a new one is a new object."""

    def __init__(
        self,
        client: Client,
        sock: socket.socket,
        protocol: MqttProtocol,
        disconnect_timeout: float = DISCONNECT_TIMEOUT,
    ) -> None:
        """Take over an open client; `MqttConnector.connect` makes connections."""
        self.disconnect_timeout = disconnect_timeout
        self.protocol = protocol
        self.maximum_packet_size: int | None = None
        self.maximum_qos = 2
        self.receive_maximum = MAX_INFLIGHT
        self.server_keepalive: int | None = None
        self.can_share = protocol is MqttProtocol.V5
        # paho masks websocket frames byte by byte: a large batch would hold up the loop.
        plain = isinstance(sock, socket.socket)
        self.batch_size = _BATCH if plain else _WEBSOCKET_BATCH
        self.listener: ConnectionListener | None = None
        self._client = client
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._closed = asyncio.Event()
        self._misc: asyncio.TimerHandle | None = None
        self._heard = b""
        self._closing = False
        # paho's private queue takes the rest of a batch that the socket did not take, so
        # that nothing of paho's own comes between its bytes. Where a paho has it not,
        # batches are not written at all, and each message goes through its `publish`.
        self._queue: Callable[..., Any] | None = getattr(client, "_packet_queue", None)
        # paho's private table of what is not acknowledged yet: an entry in it is all that
        # paho needs to do its part for a ready-made packet at QoS 1 or 2.
        self._outgoing: dict[int, Any] | None = getattr(client, "_out_messages", None)
        self.message_expiry: int | None = None
        self._user_properties: tuple[tuple[str, str], ...] = ()
        self._properties: Properties | None = None
        self._publish_head = b"\0" if protocol is MqttProtocol.V5 else b""
        if protocol is MqttProtocol.V5:
            self._hear_refusals()
        self._inlet = _Inlet(getattr(client, "_sock_recv", sock.recv))
        self._unacknowledged = bytearray()
        self._read_quickly()

    # --- opening ------------------------------------------------------------------------

    async def async_open(self) -> None:
        """Wait for the broker's answer to CONNECT; raises ConnectError."""
        client = self._client
        # paho's websocket has a socket within
        tune(getattr(self._sock, "_socket", self._sock))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        self._loop.add_reader(self._sock, self._on_readable)
        if client.want_write():
            self._loop.add_writer(self._sock, self._on_writable)
        self._misc = self._loop.call_later(_MISC_INTERVAL, self._on_misc)
        try:
            reason = await self._connack
            if reason.is_failure:
                raise ConnectError(_REFUSALS.get(reason.value, Problem.REFUSED))
            if self._closed.is_set():  # In the same breath
                raise ConnectError(Problem.CONNECTION_LOST)
        except BaseException:
            self.abort()
            raise

    # --- messages -----------------------------------------------------------------------

    @property
    def can_batch(self) -> bool:
        """Tell whether ready-made packets can be written."""
        return self._queue is not None and self._outgoing is not None

    @property
    def publish_head(self) -> bytes:
        """Return what stands between topic and payload of a PUBLISH packet.

        At QoS 1 and 2 the packet identifier comes before it (MQTT 5, 3.3.2).
        """
        return self._publish_head

    def head_for(self, waited: float, *, is_resend: bool) -> bytes:
        """Return the same for a message that has waited (s), and may have been sent before."""
        if self.protocol is not MqttProtocol.V5:
            return b""
        expiry = self.message_expiry
        left = None if expiry is None else max(1, round(expiry - waited))
        mark = ((RESEND_PROPERTY, "true"),) if is_resend else ()
        return publish_properties((*self._user_properties, *mark), left)

    def use_properties(
        self, user_properties: tuple[tuple[str, str], ...], message_expiry: int | None
    ) -> None:
        """Publish with properties (MQTT 5 only): names and values, and an expiry (s)."""
        if self.protocol is MqttProtocol.V5:
            self._user_properties = user_properties
            self.message_expiry = message_expiry
            self._publish_head = publish_properties(user_properties, message_expiry)
            self._properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            self._properties.UserProperty = list(user_properties)

    def reserve(self, qos: int) -> int:
        """Return the packet identifier of a ready-made packet at QoS 1 or 2.

        paho sees to its acknowledgement as if it had sent the packet itself.
        """
        outgoing, mid = self._generate()
        outgoing[mid] = _OUTGOING[qos]
        self._client._inflight_messages += 1  # noqa: SLF001
        return mid

    def _generate(self) -> tuple[dict[int, Any], int]:
        """Return paho's table of what is unacknowledged, and a number that is free there."""
        if (outgoing := self._outgoing) is None:
            raise RuntimeError("Ready-made packets need paho's private parts")
        mid = self._client._mid_generate()  # noqa: SLF001
        while mid in outgoing:
            mid = self._client._mid_generate()  # noqa: SLF001
        return outgoing, mid

    def write(self, batch: bytes) -> int | None:
        """Write ready-made packets; return None when all of them are written.

        Otherwise the rest waits in paho's queue, and the number is the message ID that
        `on_written` gives when it is written. Nothing else may be written meanwhile.
        """
        if not (rest := self._send(batch)):
            return None
        if self._queue is None:
            raise RuntimeError("Batches need paho's queue")
        _, mid = self._generate()
        self._queue(0x30, rest, mid, 0, MQTTMessageInfo(mid))
        return mid

    def _send(self, packets: bytes) -> bytes:
        """Write what the socket takes at once, and return the rest."""
        if self._client.want_write():
            return packets
        try:
            return packets[self._sock.send(packets) :]
        except BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError:
            pass
        except OSError:
            pass  # paho meets the same when it writes the rest, and ends the connection
        return packets

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> int:
        """Publish one message through paho; return its message ID.

        Raises ValueError for a topic or payload that MQTT, or this broker, cannot carry.
        """
        limit = self.maximum_packet_size
        if limit is not None and len(topic.encode()) + len(payload) + 10 > limit:
            raise ValueError("The packet is larger than the broker takes")
        info = self._client.publish(
            topic,
            payload,
            qos=min(qos, self.maximum_qos),
            retain=retain,
            properties=self._properties,
        )
        return info.mid

    def _hear_refusals(self) -> None:
        """Have a refused QoS 2 message told as such.

        paho 2.1 overlooks the reason code of PUBREC and goes on as if all was well; Mosquitto
        then confirms what it has thrown away.
        """
        client = self._client
        handle: Callable[[], MQTTErrorCode] = getattr(client, "_handle_pubrec", None)  # type: ignore[assignment]

        def handle_pubrec() -> MQTTErrorCode:
            packet: bytes = getattr(client, "_in_packet", {}).get("packet", b"")
            if len(packet) > 2 and packet[2] >= 0x80 and self._outgoing is not None:
                mid = int.from_bytes(packet[:2])
                if self._outgoing.pop(mid, None) is not None:
                    client._inflight_messages -= 1  # noqa: SLF001
                    self._tell_refused(mid, packet[2])
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            return handle()

        client._handle_pubrec = handle_pubrec  # type: ignore[method-assign]  # noqa: SLF001

    # --- subscriptions ------------------------------------------------------------------

    def subscribe(self, filters: Sequence[str], qos: int) -> int:
        """Subscribe to topic filters; `on_subscribed` has the answer to this message ID."""
        _, mid = self._client.subscribe([(name, qos) for name in filters])
        return mid or 0

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions."""
        self._client.unsubscribe(list(filters))

    def _read_quickly(self) -> None:
        """Have what comes in read a lot at a time, and messages without paho's help.

        paho 2.1 takes a turn of the loop and four reads for a message, makes objects of its
        properties, and sends each acknowledgement by itself. QoS 2, which takes an exchange
        that paho keeps the books of, and a paho without these private parts go the usual way.
        """
        client = self._client
        handle: Callable[[], MQTTErrorCode] | None = getattr(
            client, "_handle_publish", None
        )
        if (
            handle is None
            or self._queue is None
            or not hasattr(client, "_sock_recv")
            or not hasattr(client, "_in_packet")
        ):
            return

        def handle_publish() -> MQTTErrorCode:
            incoming: Any = client._in_packet  # noqa: SLF001
            head: int = incoming["command"]
            packet = bytes(incoming["packet"])
            if head & 0x04:
                self._split(head, packet)
                return handle()
            self._on_publish_packet(head, packet)
            return MQTTErrorCode.MQTT_ERR_SUCCESS

        client._handle_publish = handle_publish  # type: ignore[method-assign]  # noqa: SLF001
        client._sock_recv = self._inlet.receive  # type: ignore[method-assign,assignment]  # noqa: SLF001

    def _read_messages(self) -> MQTTErrorCode:
        """Read the messages that come next, up to what paho has to read."""
        while (message := self._inlet.message()) is not None:
            self._on_publish_packet(*message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _on_publish_packet(self, head: int, packet: bytes) -> None:
        """Pass on a message of QoS 0 or 1, and take note to acknowledge it (MQTT 5, 3.3)."""
        topic, mid, start = self._split(head, packet)
        if mid:
            self._unacknowledged += _PUBACK_HEAD + mid
        if self.listener is not None:
            self.listener.on_message(topic, packet[start:], retained=bool(head & 1))

    def _split(self, head: int, packet: bytes) -> tuple[str, bytes, int]:
        """Return the topic and the ID of a message, and where its payload begins.

        Raises MalformedError for what is none.
        """
        end = 2 + int.from_bytes(packet[:2])
        mid = b""
        try:
            topic = packet[2:end].decode()
            if head & 0x06:
                mid = packet[end : end + 2]
                end += 2
            if self.protocol is MqttProtocol.V5:
                length, end = read_length(packet, end)
                end += length
        except IndexError, ValueError:
            raise MalformedError from None
        if not topic or end > len(packet):
            raise MalformedError
        return topic, mid, end

    def _acknowledge(self) -> None:
        """Acknowledge what was passed on."""
        acknowledgements = bytes(self._unacknowledged)
        self._unacknowledged.clear()
        if (rest := self._send(acknowledgements)) and self._queue is not None:
            self._queue(_PUBACK, rest, 0, 1)

    # --- closing ------------------------------------------------------------------------

    async def async_close(self, patience: float | None = None) -> None:
        """Say goodbye, so that the broker drops the will, within our patience (s).

        That is the disconnect timeout, unless another is given. What was handed over before
        is written first.
        """
        if patience is None:
            patience = self.disconnect_timeout
        self._closing = True
        self._client.disconnect()
        try:
            async with asyncio.timeout(patience):
                await self._closed.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Close the socket at once; the broker will publish the will."""
        self.listener = None
        if not self._closed.is_set():
            self._release(self._sock)
            self._sock.close()

    def _release(self, sock: socket.socket) -> None:
        """Take the socket out of the loop."""
        if sock.fileno() > -1:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
        if self._misc is not None:
            self._misc.cancel()
            self._misc = None
        self._closed.set()

    def _end(self, problem: Problem) -> None:
        """Tell that the connection ended without our doing."""
        if not self._connack.done():
            self._connack.set_exception(ConnectError(problem))
        elif self.listener is not None and not self._closing:
            self.listener.on_lost(problem)

    # --- paho's callbacks, all in the event loop ----------------------------------------

    def _drive(self, step: Callable[[], MQTTErrorCode]) -> MQTTErrorCode:
        """Let paho do a step; an answer that it cannot cope with ends the connection."""
        problem = Problem.NOT_MQTT
        try:
            return step()
        except MalformedError:
            _LOGGER.error("The broker sent a message that is not valid")
        except Exception:
            if self._connack.done():
                _LOGGER.exception("A packet of the broker could not be understood")
                problem = Problem.UNEXPECTED
        self._end(problem)
        self.abort()
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _on_writable(self) -> None:
        """Write what waits."""
        self._drive(self._client.loop_write)

    def _on_readable(self) -> None:
        """Read what came; find out what answers while that is not clear."""
        if opening := not self._connack.done():
            self._peek()
        inlet, success = self._inlet, MQTTErrorCode.MQTT_ERR_SUCCESS
        inlet.may_read = True
        while self._drive(self._client.loop_read) == success:
            if opening and self._connack.done():
                # Messages may follow at once: whoever waits for this listens first
                self._loop.call_soon(self._on_readable)
                return
            if self._drive(self._read_messages) != success:
                return
            if inlet.waits:
                continue
            # What TLS or a websocket has read ahead does not make the socket readable.
            if not (pending := getattr(self._sock, "pending", None)) or not pending():
                break
            inlet.may_read = True
        if self._unacknowledged and not self._closed.is_set():
            self._acknowledge()

    def _peek(self) -> None:
        """Look at the first bytes of the answer without taking them (plain TCP only)."""
        if type(self._sock) is socket.socket and not self._heard:
            try:
                self._heard = self._sock.recv(4, socket.MSG_PEEK)
            except OSError:
                return

    def _on_misc(self) -> None:
        """Let paho see to the keepalive."""
        self._misc = self._loop.call_later(_MISC_INTERVAL, self._on_misc)
        self._drive(self._client.loop_misc)

    def _on_connect(
        self,
        _client: Client,
        _data: Any,
        _flags: Any,
        reason: ReasonCode,
        props: Properties | None,
    ) -> None:
        """Take the broker's answer and its limits."""
        self.maximum_packet_size = getattr(props, "MaximumPacketSize", None)
        self.maximum_qos = getattr(props, "MaximumQoS", 2)
        self.receive_maximum = min(
            MAX_INFLIGHT, getattr(props, "ReceiveMaximum", MAX_INFLIGHT)
        )
        self.server_keepalive = getattr(props, "ServerKeepAlive", None)
        self.can_share &= bool(getattr(props, "SharedSubscriptionAvailable", 1))
        if not self._connack.done():
            self._connack.set_result(reason)

    def _on_disconnect(
        self,
        _client: Client,
        context: TlsContext | None,
        flags: Any,
        reason: ReasonCode,
        _props: Any,
    ) -> None:
        """Tell why the connection ended."""
        if not self._connack.done():
            # A CONNACK that paho could not read is the refusal of a version by a broker
            # that speaks another; anything else was not MQTT.
            understood = self._heard[:1] == b"\x20"
            self._end(
                _told(context)
                or (Problem.PROTOCOL_UNSUPPORTED if understood else Problem.NOT_MQTT)
            )
        elif flags.is_disconnect_packet_from_server:
            self._end(_ENDINGS.get(self._told_reason(reason), Problem.REFUSED))
        else:
            self._end(_ENDINGS.get(reason.value, Problem.CONNECTION_LOST))

    def _told_reason(self, reason: ReasonCode) -> int:
        """Return the reason code of the broker's DISCONNECT.

        paho 2.1 overlooks one that stands without properties and takes it for a normal end;
        its private buffer still has it.
        """
        packet: bytes = getattr(self._client, "_in_packet", {}).get("packet", b"")
        return packet[0] if packet else int(reason.value)

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _props: Any
    ) -> None:
        """Pass on that a message is written or acknowledged."""
        if reason.is_failure:
            self._tell_refused(mid, reason.value)
        elif self.listener is not None:
            self.listener.on_written(mid)

    def _tell_refused(self, mid: int, reason: int) -> None:
        """Tell that the broker refused a message, with an MQTT 5 reason code."""
        if self.listener is not None:
            self.listener.on_refused(mid, _NOT_TAKEN.get(reason, Problem.REJECTED))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        """Pass on a message that paho has read."""
        if self.listener is not None:
            self.listener.on_message(
                message.topic, message.payload, retained=message.retain
            )

    def _on_subscribe(
        self,
        _client: Client,
        _data: Any,
        mid: int,
        reasons: list[ReasonCode],
        _props: Any,
    ) -> None:
        """Pass on whether all of a subscription's filters were taken."""
        if self.listener is None:
            return
        failed = [reason.value for reason in reasons if reason.is_failure]
        problem = _NOT_SUBSCRIBED.get(failed[0], Problem.REJECTED) if failed else None
        self.listener.on_subscribed(mid, problem)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        self._release(sock)

    def _on_register_write(self, _client: Client, _data: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._on_writable)

    def _on_unregister_write(self, _client: Client, _data: Any, sock: Any) -> None:
        if sock.fileno() > -1:
            self._loop.remove_writer(sock)


class MqttConnector:
    """Makes connections to one broker."""

    def __init__(
        self,
        settings: MqttSettings,
        will: Will | None = None,
        connect_timeout: float | None = None,
    ) -> None:
        """Initialize with the settings and what the broker says when we are gone.

        A connect timeout (s) goes before that of the settings.
        """
        self.settings = settings
        self._will = will
        self._timeout = connect_timeout or settings.connect_timeout
        self._protocol = settings.protocol
        self._knows_5 = False
        self._keepalive = settings.keepalive
        self._opening: asyncio.Future[Client] | None = None
        self._client: Client | None = None

    async def async_connect(self) -> MqttConnection:
        """Return an open connection; raises ConnectError.

        Automatic is version 5 first. That a broker knows it is remembered, and then it is
        spoken to in no other: one that is frozen or overloaded has not forgotten it. Nor
        does silence prove that another knows 3.1.1 only; what counts is its own word.
        """
        if self._protocol is not MqttProtocol.AUTO:
            return await self._async_connect(self._protocol, self._timeout)
        first = self._timeout
        if not self._knows_5:
            first = min(_FIRST_PATIENCE, self._timeout / 2)
        try:
            connection = await self._async_connect(MqttProtocol.V5, first)
        except ConnectError as err:
            refused = err.problem is Problem.PROTOCOL_UNSUPPORTED
            if not refused and (self._knows_5 or err.problem not in _NO_VERSION_5):
                raise
        else:
            self._knows_5 = True
            return connection
        rest = self._timeout - first if first < self._timeout else self._timeout
        connection = await self._async_connect(MqttProtocol.V311, rest)
        if refused:
            self._protocol = MqttProtocol.V311
        return connection

    async def _async_connect(
        self, protocol: MqttProtocol, patience: float
    ) -> MqttConnection:
        """Open the socket in the executor, then wait for the answer in the loop.

        `patience` (s) is for the answer to CONNECT; all of it has the connect timeout.
        """
        try:
            async with asyncio.timeout(self._timeout):
                client = await self._async_open_socket(protocol)
                if (sock := client.socket()) is None:
                    raise ConnectError(Problem.CANNOT_CONNECT)
                if self.settings.websocket_path is not None:
                    _make_websocket_wait(sock)
                connection = MqttConnection(
                    client,
                    cast(socket.socket, sock),
                    protocol,
                    self.settings.disconnect_timeout,
                )
                connection.use_properties(
                    self.settings.user_properties, self.settings.message_expiry
                )
                async with asyncio.timeout(patience):
                    await connection.async_open()
        except TimeoutError as err:
            raise ConnectError(Problem.NO_ANSWER) from err
        if 0 < (keepalive := connection.server_keepalive or 0) < self._keepalive:
            # The broker's word counts (MQTT 5, 3.2.2.3.14), and paho takes none once it
            # is connected.
            self._keepalive = keepalive
            await connection.async_close()
            return await self._async_connect(protocol, patience)
        return connection

    async def _async_open_socket(self, protocol: MqttProtocol) -> Client:
        """Open the socket in the executor.

        What blocks there (a name server, a handshake that is not answered) cannot be
        stopped, and may take longer than we wait. So it takes one thread and no more, and
        says nothing to the broker when it is done.
        """
        if self._opening is not None:
            await asyncio.wait([self._opening])
        unwanted = threading.Event()
        self._opening = opening = asyncio.get_running_loop().run_in_executor(
            None, self._open, protocol, unwanted
        )
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            unwanted.set()
            opening.add_done_callback(_close_unwanted)
            raise
        return opening.result()

    def _open(self, protocol: MqttProtocol, unwanted: threading.Event) -> Client:
        """Resolve, connect, shake hands and send CONNECT; blocks, raises ConnectError."""
        settings = self.settings
        version_5 = protocol is MqttProtocol.V5
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if version_5 else settings.clean_session,
            protocol=(
                MQTTProtocolVersion.MQTTv5
                if version_5
                else MQTTProtocolVersion.MQTTv311
            ),
            transport=settings.transport,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout * _TCP_SHARE
        client.max_inflight_messages_set(0)  # Ours to limit
        # A broker that keeps our session may still have exchanges of QoS 2 open: a new
        # message with an ID of theirs would be taken for a copy, and not be delivered. So
        # IDs go on from those of the previous connection, and begin anywhere.
        previous = self._client
        client._last_mid = (  # noqa: SLF001
            random.randrange(_MESSAGE_IDS) if previous is None else previous._last_mid  # noqa: SLF001
        )
        self._client = client
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if settings.websocket_path is not None:
            client.ws_set_options(settings.websocket_path, settings.websocket_headers)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, retain=True)

        def on_socket_open(_client: Client, _data: Any, sock: Any) -> None:
            if unwanted.is_set():
                sock.close()
                raise ConnectionAbortedError

        client.on_socket_open = on_socket_open
        context: TlsContext | None = None
        host = settings.unix_path or settings.host
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET
        if not settings.clean_session and settings.session_expiry:
            properties.SessionExpiryInterval = settings.session_expiry
        try:
            if settings.tls and settings.unix_path is None:
                context = tls_context(
                    ca=settings.ca,
                    client_certificate=settings.client_certificate,
                    client_key=settings.client_key,
                    insecure=settings.tls_insecure,
                    server_name=settings.server_name,
                    alpn=settings.alpn,
                )
                client.tls_set_context(context)
                client.user_data_set(context)
            if version_5:
                client.connect(
                    host,
                    settings.port,
                    self._keepalive,
                    clean_start=settings.clean_session,
                    properties=properties,
                )
            else:
                client.connect(host, settings.port, self._keepalive)
        except socket.gaierror, UnicodeError:
            raise ConnectError(Problem.CANNOT_RESOLVE) from None
        except ssl.SSLError as err:
            raise ConnectError(_told(context) or Problem.TLS_FAILED) from err
        except WebsocketConnectionError as err:
            raise ConnectError(_told(context) or Problem.NOT_MQTT) from err
        except TimeoutError as err:
            handshake = settings.tls or settings.websocket_path is not None
            raise ConnectError(
                Problem.NO_ANSWER if handshake else Problem.CANNOT_CONNECT
            ) from err
        except ConnectionResetError as err:
            # What hangs up in the middle of a handshake knows no TLS.
            raise ConnectError(
                _told(context)
                or (Problem.TLS_FAILED if settings.tls else Problem.CANNOT_CONNECT)
            ) from err
        except (OSError, ValueError) as err:
            raise ConnectError(_told(context) or Problem.CANNOT_CONNECT) from err
        if client.socket() is None:  # It was closed before CONNECT was written
            raise ConnectError(_told(context) or Problem.CANNOT_CONNECT)
        return client


def _told(context: TlsContext | None) -> Problem | None:
    """Return what the broker had against us, if it said so."""
    return context.problem if context is not None else None


def _make_websocket_wait(sock: Any) -> None:
    """Have paho's websocket say so when it could not write a whole frame.

    It returns 0 then, upon which paho 2.1 drops the packet and its stream is broken.
    """
    send: Callable[[bytes], int] = sock.send

    def send_frame(data: bytes) -> int:
        if not (written := send(data)):
            raise BlockingIOError
        return written

    sock.send = send_frame


def _close_unwanted(opening: Future[Client] | asyncio.Future[Client]) -> None:
    """Close what was opened for nobody."""
    if opening.cancelled() or opening.exception() is not None:
        return
    if (sock := opening.result().socket()) is not None:
        sock.close()
