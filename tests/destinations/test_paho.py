"""What we rely on in paho beyond its documented API: this fails when paho changes."""

import asyncio
import socket
from typing import override

from paho.mqtt.client import Client
import pytest

from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnection,
    MqttConnector,
    MqttProtocol,
    MqttSettings,
)
from custom_components.ble_bridge.destinations.mqtt_outbox import MqttOutbox
from custom_components.ble_bridge.destinations.policy import DeliverySettings
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import RecordKind, Route, Tally
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber


class Listener:
    """Takes note of what a connection tells."""

    def __init__(self) -> None:
        """Initialize without news."""
        self.written: list[int] = []
        self.lost: list[Problem] = []
        self.messages: list[tuple[str, bytes, bool]] = []
        self.subscribed: list[tuple[int, Problem | None]] = []

    def on_written(self, mid: int) -> None:
        """Take note that a batch was written."""
        self.written.append(mid)

    def on_refused(self, mid: int, problem: Problem) -> None:
        """Take note that a message was refused."""

    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take note of a message."""
        self.messages.append((topic, payload, retained))

    def on_subscribed(self, mid: int, problem: Problem | None) -> None:
        """Take note that messages come from now on."""
        self.subscribed.append((mid, problem))

    def on_lost(self, problem: Problem) -> None:
        """Take note that the connection is lost."""
        self.lost.append(problem)


async def connect(port: int, protocol: MqttProtocol) -> MqttConnection:
    """Return a connection."""
    return await MqttConnector(
        MqttSettings(host="127.0.0.1", port=port, client_id="guard", protocol=protocol)
    ).async_connect()


def publish_packet(connection: MqttConnection, topic: str, payload: bytes) -> bytes:
    """Return a ready-made PUBLISH packet, shorter than 128 bytes."""
    body = encode_topic(topic) + connection.publish_head + payload
    return bytes((0x30, len(body))) + body


@pytest.mark.parametrize("protocol", [MqttProtocol.V311, MqttProtocol.V5])
async def test_batch_through_the_queue(
    broker: Mosquitto,
    subscriber: Subscriber,
    protocol: MqttProtocol,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the socket does not take goes through paho's queue, which tells when done."""
    connection = await connect(broker.port, protocol)
    listener = Listener()
    connection.listener = listener
    assert connection.can_batch

    class Shy:
        """A socket that takes seven bytes of a batch, and then none for a while."""

        taken = 0

        def send(self, data: bytes) -> int:
            self.taken += 1
            if self.taken > 1:
                raise BlockingIOError
            return connection_socket.send(data[:7])

    connection_socket = connection._sock
    monkeypatch.setattr(connection, "_sock", Shy())
    batch = b"".join(
        publish_packet(connection, f"guard/{number}", b"%d" % number)
        for number in range(100)
    )
    mid = connection.write(batch)
    assert mid is not None
    # Nothing of paho's own comes between the bytes of a batch.
    connection.publish("guard/after", b"after")
    second = connection.write(publish_packet(connection, "guard/last", b"last"))
    assert second not in (None, mid)
    monkeypatch.undo()
    await subscriber.wait_for(lambda s: len(s.messages) == 102)
    assert [message.payload for message in subscriber.messages] == [
        *(b"%d" % number for number in range(100)),
        b"after",
        b"last",
    ]
    assert listener.written[0] == mid
    assert listener.written[-1] == second
    assert len(listener.written) == 3
    # Without anything before it, a batch goes to the socket itself.
    assert connection.write(publish_packet(connection, "guard/now", b"")) is None
    await connection.async_close()
    assert not listener.lost


async def test_dead_socket(broker: Mosquitto) -> None:
    """A batch for a socket that is dead ends the connection, and raises nothing."""
    connection = await connect(broker.port, MqttProtocol.V5)
    listener = Listener()
    connection.listener = listener
    connection._sock.shutdown(socket.SHUT_RDWR)
    assert connection.write(publish_packet(connection, "guard/dead", b"")) is not None
    async with asyncio.timeout(5):
        while not listener.lost:
            await asyncio.sleep(0.01)
    assert listener.lost == [Problem.CONNECTION_LOST]
    assert not listener.written


@pytest.mark.parametrize("protocol", [MqttProtocol.V311, MqttProtocol.V5])
async def test_without_the_queue(
    broker: Mosquitto,
    subscriber: Subscriber,
    protocol: MqttProtocol,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a paho that has no such queue, each message goes through its `publish`."""
    connection = await connect(broker.port, protocol)
    with monkeypatch.context() as patch:
        patch.setattr(MqttConnection, "can_batch", property(lambda _: False))
        patch.setattr(connection, "_queue", None)
        tally = Tally()
        route = Route(encode_topic("guard/single"), tally)
        loop = asyncio.get_running_loop()
        delivery = Delivery(
            DeliverySettings(),
            {kind: Tally() for kind in RecordKind},
            loop.time,
            lambda at: at,
            lambda: None,
            lambda _: None,
        )
        outbox = MqttOutbox(loop, delivery, lambda _: None, lambda: None)
        outbox.open(connection)

        class Counting(Listener):
            """Passes on what is written."""

            @override
            def on_written(self, mid: int) -> None:
                """Pass it on."""
                outbox.on_written(mid)

        connection.listener = Counting()
        for number in range(500):
            tally.received += 1
            outbox.put(route, b"%d" % number)
        await subscriber.wait_for(lambda s: len(s.messages) == 500)
        await outbox.async_drain(1)
        outbox.close()
    assert [message.payload for message in subscriber.messages] == [
        b"%d" % number for number in range(500)
    ]
    assert (tally.sent, tally.waiting, outbox.waiting) == (500, 0, 0)
    await connection.async_close()


def test_queue_is_looked_up_by_name() -> None:
    """The names that we use are there."""
    for name in ("_packet_queue", "_mid_generate"):
        assert callable(getattr(Client, name))


async def test_message_ids_go_on(broker: Mosquitto) -> None:
    """The next message ID is the one after what we set."""
    connection = await connect(broker.port, MqttProtocol.V5)
    connection._client._last_mid = 4711
    assert connection.publish("guard/id", b"", qos=1) == 4712
    await connection.async_close()
