"""What we rely on in paho beyond its documented API: this fails when paho changes."""

import asyncio
from collections.abc import Callable
import socket
from typing import Any, override

from hypothesis import given, strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
import pytest

from custom_components.ble_bridge.destinations.delivery import Delivery
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnection,
    MqttConnector,
    MqttProtocol,
    MqttSettings,
    read_length,
    remaining_length,
)
from custom_components.ble_bridge.destinations.mqtt_outbox import MqttOutbox
from custom_components.ble_bridge.destinations.policy import DeliverySettings
from custom_components.ble_bridge.layouts.topics import encode_topic
from custom_components.ble_bridge.records import RecordKind, Route, Tally
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from ..conftest import wait_until

PROTOCOLS = [MqttProtocol.V311, MqttProtocol.V5]


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


async def connect(
    port: int, protocol: MqttProtocol, client_id: str = "guard", **changes: Any
) -> MqttConnection:
    """Return a connection."""
    return await MqttConnector(
        MqttSettings(
            host="127.0.0.1",
            port=port,
            client_id=client_id,
            protocol=protocol,
            **changes,
        )
    ).async_connect()


def publish_packet(connection: MqttConnection, topic: str, payload: bytes) -> bytes:
    """Return a ready-made PUBLISH packet, shorter than 128 bytes."""
    body = encode_topic(topic) + connection.publish_head + payload
    return bytes((0x30, len(body))) + body


@pytest.mark.parametrize("protocol", PROTOCOLS)
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


@pytest.mark.parametrize("protocol", PROTOCOLS)
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
    for name in ("_packet_queue", "_mid_generate", "_handle_publish", "_send_puback"):
        assert callable(getattr(Client, name))
    packet = Client(CallbackAPIVersion.VERSION2)._in_packet
    assert {"command", "packet"} <= packet.keys()


async def test_message_ids_go_on(broker: Mosquitto) -> None:
    """The next message ID is the one after what we set."""
    connection = await connect(broker.port, MqttProtocol.V5)
    connection._client._last_mid = 4711
    assert connection.publish("guard/id", b"", qos=1) == 4712
    await connection.async_close()


# --- what comes in ------------------------------------------------------------------------

# What the variable byte integer of their length takes: one byte, two and three.
PROPERTIES = [
    (("unit", "°C"),),
    (("note", "n" * 100), ("more", "m" * 100)),
    (("note", "n" * 20_000),),
]
PAYLOADS = [b"\0", b"x" * 127, b"y" * 128, bytes(range(256)) * 800]
TOPICS = ["in", "Gewächshaus/温度", "long/" * 40 + "end"]


def as_ours(_monkeypatch: pytest.MonkeyPatch) -> None:
    """Have messages read as they are."""


def as_pahos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have messages read by a paho in which what we use has other names."""
    read_quickly = MqttConnection._read_quickly

    def look(connection: MqttConnection) -> None:
        with monkeypatch.context() as patch:
            patch.delattr(Client, "_handle_publish")
            read_quickly(connection)

    monkeypatch.setattr(MqttConnection, "_read_quickly", look)


async def publish(
    connection: MqttConnection, messages: list[tuple[str, bytes, bool]]
) -> None:
    """Publish messages, whose QoS is at the end of the topic, until each is acknowledged."""
    told = Listener()
    connection.listener = told
    waiting = set()
    for number, (topic, payload, retain) in enumerate(messages):
        connection.use_properties(PROPERTIES[number % len(PROPERTIES)], 3600)
        mid = connection.publish(topic, payload, qos=int(topic[-1]), retain=retain)
        waiting.add(mid)
    await wait_until(lambda: waiting <= set(told.written))
    assert not told.lost


@pytest.mark.parametrize("prepare", [as_ours, as_pahos])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_messages_come_whole(
    broker: Mosquitto,
    protocol: MqttProtocol,
    prepare: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Topic, payload and retain flag are what was published, at each QoS.

    Each message is acknowledged, for the broker does not send more than 20 that are not, nor
    any again when the session goes on.
    """
    prepare(monkeypatch)
    talker = await connect(broker.port, protocol, "talker")
    messages = [
        (f"guard/{topic}/{number}/{qos}", payload, True)
        for number, payload in enumerate(PAYLOADS)
        for topic in TOPICS
        for qos in (0, 1, 2)
    ]
    await publish(talker, messages)
    connection = await connect(broker.port, protocol, clean_session=False)
    assert ("_handle_publish" in vars(connection._client)) == (prepare is as_ours)
    kept = Listener()
    connection.listener = kept
    mid = connection.subscribe(["guard/#"], 2)
    await wait_until(lambda: len(kept.messages) >= len(messages))
    assert kept.subscribed == [(mid, None)]
    assert sorted(kept.messages) == sorted(messages)

    live = Listener()
    connection.listener = live
    messages = [(topic, payload, False) for topic, payload, _ in messages]
    await publish(talker, messages)
    await wait_until(lambda: len(live.messages) >= len(messages))
    assert sorted(live.messages) == sorted(messages)
    await connection.async_close(1)

    connection = await connect(broker.port, protocol, clean_session=False)
    again = Listener()
    connection.listener = again
    last = [("guard/last/1", b"last", False)]
    await publish(talker, last)
    await wait_until(lambda: again.messages)
    assert again.messages == last
    await connection.async_close(1)
    await talker.async_close(1)
    assert not [*kept.lost, *live.lost, *again.lost]


@pytest.mark.parametrize(
    "length", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]
)
def test_lengths(length: int) -> None:
    """A length is read as it was written, up to the largest that there is."""
    written = remaining_length(length)
    assert len(written) == next(n for n in (1, 2, 3, 4) if length < 128**n)
    assert read_length(written, 0) == (length, len(written))
    assert read_length(b"ab" + written + b"c", 2) == (length, 2 + len(written))


@given(st.integers(0, 268_435_455))
def test_any_length(length: int) -> None:
    """Any length is read as it was written."""
    written = remaining_length(length)
    assert read_length(written + b"\xff", 0) == (length, len(written))


@pytest.mark.parametrize("packet", [b"", b"\x80", b"\xff\xff\xff"])
def test_length_that_is_cut_off(packet: bytes) -> None:
    """What ends too soon is no length."""
    with pytest.raises(IndexError):
        read_length(packet, 0)


def test_length_of_five_bytes() -> None:
    """No length has more than four bytes."""
    with pytest.raises(ValueError, match="four"):
        read_length(b"\x80\x80\x80\x80\x01", 0)
