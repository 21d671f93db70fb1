"""What a connection hears: whole, in order, and acknowledged, however it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
import random
from typing import Any, Final

import pytest

from custom_components.ble_bridge.destinations.mqtt_connection import (
    ConnectionListener,
    MqttConnection,
    MqttConnector,
    MqttProtocol,
    MqttSettings,
    publish_properties,
    remaining_length,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK
from tests.conftest import wait_until
from tests.forms import connack, make_authority, websockets

from .test_paho import Listener

# About the lengths at which a packet's own length takes another byte, and what is read at once.
SIZES: Final = (0, 1, 100, 128, 1_000, 16_380, 16_384, 20_000, 300_000)
COUNT: Final = 120


class Ear(Listener, ConnectionListener):
    """Takes note of what comes."""

    async def hears(self, count: int) -> None:
        """Wait for so many messages."""
        await wait_until(lambda: len(self.messages) >= count, 30)


async def connect(port: int, ear: Ear, **changes: Any) -> MqttConnection:
    """Return a connection that is listened to."""
    connection = await MqttConnector(
        MqttSettings(**{"host": LOOPBACK, "port": port, "client_id": "ear", **changes})
    ).async_connect()
    connection.listener = ear
    return connection


def payload(number: int) -> bytes:
    """Return what is said."""
    return number.to_bytes(2) * (SIZES[number % len(SIZES)] // 2)


@asynccontextmanager
async def reachable(way: str, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """Offer a broker in one way, and return what it takes to get there."""
    async with AsyncExitStack() as stack:
        if way == "tls":
            authority = make_authority(directory)
            certificate = authority.issue(LOOPBACK)
            secured = Mosquitto(certificate=certificate.path, key=certificate.key)
            broker = await stack.enter_async_context(secured)
            ca = authority.path.read_text()
            yield {"port": broker.port, "tls": True, "ca": ca}
            return
        broker = await stack.enter_async_context(Mosquitto())
        if way == "websockets":
            port = await stack.enter_async_context(websockets(broker.port, "/", {}))
            yield {"port": port, "websocket_path": "/"}
            return
        yield {"port": broker.port}


@pytest.mark.parametrize("protocol", [MqttProtocol.V311, MqttProtocol.V5])
@pytest.mark.parametrize("way", ["tcp", "tls", "websockets"])
async def test_all_arrive(way: str, protocol: MqttProtocol, tmp_path: Path) -> None:
    """Messages of all sizes arrive at each QoS, also what comes after the broker's window."""
    ear = Ear()
    async with reachable(way, tmp_path) as there:
        connection = await connect(**there, ear=ear, protocol=protocol)
        connection.subscribe(["said/+/é"], 2)
        await wait_until(lambda: ear.subscribed)
        talker = await connect(**there, ear=Ear(), client_id="talker")
        # Of QoS 2, Mosquitto 2.0.11 itself loses what comes at once beyond its window of 20
        for qos, count in ((0, COUNT), (1, COUNT), (2, 2 * len(SIZES))):
            ear.messages.clear()
            said = [
                (f"said/{qos}/é", payload(number), False) for number in range(count)
            ]
            for topic, what, _ in said:
                talker.publish(topic, what, qos=qos)
            await ear.hears(count)
            assert ear.messages == said
        await talker.async_close(1)
        await connection.async_close(1)
    assert not ear.lost


@pytest.mark.parametrize("protocol", [MqttProtocol.V311, MqttProtocol.V5])
@pytest.mark.parametrize("way", ["tcp", "tls", "websockets"])
async def test_session_that_is_kept(
    way: str, protocol: MqttProtocol, tmp_path: Path
) -> None:
    """What was said meanwhile comes first of all; what was acknowledged does not again."""
    ear = Ear()
    async with reachable(way, tmp_path) as there:
        there |= {"clean_session": False, "protocol": protocol}
        connection = await connect(**there, ear=ear)
        connection.subscribe(["said"], 1)
        await wait_until(lambda: ear.subscribed)
        voice = Ear()
        talker = await connect(**there, ear=voice, client_id="talker")
        for number in range(COUNT):
            talker.publish("said", b"%d" % number, qos=1)
        await ear.hears(COUNT)
        await connection.async_close(1)
        for number in range(COUNT):
            talker.publish("said", b"again %d" % number, qos=1)
        await wait_until(lambda: len(voice.written) == 2 * COUNT)
        again = Ear()
        connection = await connect(**there, ear=again)
        await again.hears(COUNT)
        assert again.messages == [
            ("said", b"again %d" % number, False) for number in range(COUNT)
        ]
        await connection.async_close(1)
        await talker.async_close(1)


def publish_packet(number: int, qos: int, protocol: MqttProtocol) -> bytes:
    """Return a PUBLISH packet (MQTT 5, 3.3)."""
    properties = b""
    if protocol is MqttProtocol.V5:
        properties = publish_properties((("site", "é" * (number % 80)),), None)
    identifier = (number + 1).to_bytes(2) if qos else b""
    body = b"\0\x04said" + identifier + properties + b"%d" % number
    return bytes((0x31 | qos << 1,)) + remaining_length(len(body)) + body


@pytest.mark.parametrize("protocol", [MqttProtocol.V311, MqttProtocol.V5])
@pytest.mark.parametrize("most", [3, 40, 2_000])
async def test_in_pieces(protocol: MqttProtocol, most: int) -> None:
    """A packet may come in pieces, many may come at once, and others in between."""
    said = b"".join(
        publish_packet(number, number % 2, protocol)
        + (b"\xd0\0" if number % 7 == 0 else b"")
        for number in range(COUNT)
    )
    pieces = random.Random(4711)
    answers = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(connack(0)(await reader.read(4096)) or b"")
        await reader.read(1)  # It listens
        at = 0
        while at < len(said):
            size = pieces.randint(1, most)
            writer.write(said[at : at + size])
            at += size
            await asyncio.sleep(0)
        while received := await reader.read(4096):
            answers.extend(received)
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    ear = Ear()
    port = server.sockets[0].getsockname()[1]
    connection = await connect(port, ear, protocol=protocol)
    connection.subscribe(["said"], 1)
    await ear.hears(COUNT)
    assert ear.messages == [("said", b"%d" % number, True) for number in range(COUNT)]
    await connection.async_close(1)
    acknowledged = b"".join(
        b"\x40\x02" + (number + 1).to_bytes(2) for number in range(1, COUNT, 2)
    )
    await wait_until(lambda: acknowledged in answers)
    server.close()
    server.close_clients()
    await server.wait_closed()
    assert not ear.lost


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x01\x00",  # Half a length of the topic
        b"\x30\x04\x00\x02\xff\xff",  # A topic that is no UTF-8
        b"\x36\x06\x00\x01t\x00\x01x",  # QoS 3
        b"\x30\xff\xff\xff\xff\xff\x01",  # A length that has no end
    ],
)
async def test_what_is_no_message(packet: bytes) -> None:
    """A broker that sends what cannot be understood is no longer listened to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(connack(0)(await reader.read(4096)) or b"")
        await reader.read(1)
        writer.write(publish_packet(0, 0, MqttProtocol.V5) + packet)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    ear = Ear()
    port = server.sockets[0].getsockname()[1]
    connection = await connect(port, ear, protocol=MqttProtocol.V5)
    connection.subscribe(["said"], 1)
    await wait_until(lambda: ear.lost)
    assert [said for _, said, _ in ear.messages] == [b"0"]
    server.close()
    server.close_clients()
    await server.wait_closed()
