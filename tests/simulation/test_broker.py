"""The broker and its subscriber, on which the other tests rely."""

import asyncio

from paho.mqtt import MQTTException
from paho.mqtt.publish import single
import pytest

from scripts.simulation.broker import EmbeddedBroker, Mosquitto
from scripts.simulation.processes import SimulationError, is_port_free
from scripts.simulation.subscriber import Subscriber, percentile

TIMESTAMP = b'{"timestamp": "2026-01-01T00:00:00.000Z"}'


async def publish(port: int, topic: str, payload: bytes, password: str = "") -> None:
    """Publish a message with a connection of its own, and see it acknowledged."""
    await asyncio.to_thread(
        single,
        topic,
        payload,
        qos=1,
        hostname="127.0.0.1",
        port=port,
        auth={"username": "anna", "password": password} if password else None,
    )


@pytest.mark.parametrize("broker_type", [Mosquitto, EmbeddedBroker])
async def test_messages_arrive(
    broker_type: type[Mosquitto | EmbeddedBroker],
) -> None:
    """Test a message through each broker, with its latency."""
    async with broker_type() as broker, Subscriber(broker.port, "a/#") as subscriber:
        for topic in ("b/a", "a/b"):
            await publish(broker.port, topic, TIMESTAMP)
        message = await subscriber.wait_for_message("a/b")
        assert message.payload == TIMESTAMP
        assert subscriber.count() == subscriber.count("a/") == 1
        assert subscriber.latencies[0] > 0
    assert is_port_free(broker.port)


async def test_password() -> None:
    """Test that Mosquitto accepts the password file, and nobody without one."""
    async with Mosquitto(users={"anna": "sesam öffne dich"}) as broker:
        async with Subscriber(
            broker.port, username="anna", password="sesam öffne dich"
        ) as subscriber:
            with pytest.raises(MQTTException):
                await publish(broker.port, "a", b"", password="wrong")
            assert not subscriber.count()
        with pytest.raises(SimulationError):
            Subscriber(broker.port, timeout=0.5).__enter__()


async def test_restart_and_freeze() -> None:
    """Test that a subscriber hears again after a restart, and after a freeze."""
    async with Mosquitto() as broker, Subscriber(broker.port) as subscriber:
        await broker.restart()
        await subscriber.wait_for(lambda heard: heard.connected)
        await publish(broker.port, "a", b"1")
        await subscriber.wait_for_message("a", b"1")
        broker.freeze()
        publishing = asyncio.create_task(publish(broker.port, "a", b"2"))
        await asyncio.sleep(0.3)
        assert subscriber.counts["a"] == 1
        broker.thaw()
        await publishing
        await subscriber.wait_for_message("a", b"2")


async def test_port_in_use() -> None:
    """Test that a second broker on a port says what is wrong."""
    async with Mosquitto() as broker:
        with pytest.raises(SimulationError, match="in use"):
            await Mosquitto(broker.port).start()


def test_percentile() -> None:
    """Test the percentiles of some values."""
    assert percentile([], 0.5) is None
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1000), 0.99) == 990
