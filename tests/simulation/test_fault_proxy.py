"""The network that fails, as a client and a broker see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import time

from aiohttp import ClientSession
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
import pytest

from scripts.simulation.broker import Mosquitto
from scripts.simulation.chaos.fault_proxy import (
    FaultProxy,
    HttpProxy,
    MqttProxy,
    Packets,
    end_of_request,
    publish_of,
)
from scripts.simulation.metrics_stores import InfluxDb1
from scripts.simulation.mqtt_packets import end_of_packet
from scripts.simulation.subscriber import Subscriber
from tests.conftest import wait_until

PUBLISH = b"\x32\x09\x00\x03a/b\x00\x07hi"


def test_packets_in_pieces() -> None:
    """However the bytes come, packets come out whole."""
    long = b"\x30\x80\x01" + bytes(128)
    stream = PUBLISH + long + b"\xc0\x00" + PUBLISH
    for size in (1, 2, 3, 7, len(stream)):
        packets = Packets(end_of_packet)
        found = [
            packet
            for start in range(0, len(stream), size)
            for packet in packets.feed(stream[start : start + size])
        ]
        assert found == [PUBLISH, long, b"\xc0\x00", PUBLISH]
    assert publish_of(PUBLISH) == ("a/b", 7)


@asynccontextmanager
async def publisher(
    port: int, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5
) -> AsyncIterator[tuple[Client, list[int], list[int]]]:
    """Yield a client, the reason codes of its messages, and those of its connections."""
    answers: list[int] = []
    connected: list[int] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.on_publish = lambda *told: answers.append(told[3].value)
    client.on_connect = lambda *told: connected.append(told[3].value)
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        yield client, answers, connected
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


async def test_passes_and_rejects(broker: Mosquitto, subscriber: Subscriber) -> None:
    """A message that is rejected does not reach the broker, and others do."""
    async with (
        MqttProxy(broker.port) as proxy,
        publisher(proxy.port) as (client, answers, connected),
    ):
        await wait_until(lambda: connected)
        proxy.rejections = {"full/": 0x97}
        client.publish("full/a", "1", qos=1)
        client.publish("other/a", "2", qos=1)
        await wait_until(lambda: sorted(answers) == [0, 0x97])
        proxy.rejections = {}
        client.publish("full/a", "3", qos=1)
        await subscriber.wait_for(lambda heard: heard.count() == 2)
    assert [message.payload for message in subscriber.messages] == [b"2", b"3"]


@pytest.mark.parametrize("fault", ["cut", "half_open", "refuse"])
async def test_ends_of_a_connection(
    broker: Mosquitto, subscriber: Subscriber, fault: str
) -> None:
    """A client comes back after a cut; it does not learn that the broker's side is gone."""
    async with (
        FaultProxy(broker.port) as proxy,
        publisher(proxy.port) as (client, answers, connected),
    ):
        await wait_until(lambda: connected)
        getattr(proxy, fault)()
        if fault != "cut":
            client.publish("a", "1", qos=1)
            await asyncio.sleep(0.3)
            assert client.is_connected()
            assert len(answers) == (fault == "refuse")
            proxy.cut()
        if fault == "refuse":
            await asyncio.sleep(1.3)
            assert not client.is_connected()
            await proxy.listen()
        await wait_until(lambda: len(connected) == 2)
        client.publish("a", "2", qos=1)
        await subscriber.wait_for_message("a", b"2")
        assert len(proxy.lives) == 1


async def test_swallows_and_cuts_in_the_middle(
    broker: Mosquitto, subscriber: Subscriber
) -> None:
    """Half a packet arrives as no message; what is swallowed never arrives."""
    async with (
        FaultProxy(broker.port) as proxy,
        publisher(proxy.port) as (client, answers, connected),
    ):
        await wait_until(lambda: connected)
        proxy.cut_after = 10
        client.publish("a", b"x" * 1000)
        await wait_until(lambda: len(connected) == 2)
        proxy.swallows = True
        client.publish("a", b"y", qos=1)
        await asyncio.sleep(0.3)
        assert not answers[1:]
        proxy.swallows = False
        proxy.cut()
        await subscriber.wait_for_message("a", b"y")
    assert b"x" not in {message.payload[:1] for message in subscriber.messages}


async def test_slow_and_far(broker: Mosquitto, subscriber: Subscriber) -> None:
    """Bytes take their time, each way."""
    async with (
        FaultProxy(broker.port) as proxy,
        publisher(proxy.port) as (client, answers, connected),
    ):
        await wait_until(lambda: connected)
        proxy.rate = 10_000
        began = time.monotonic()
        client.publish("a", bytes(10_000), qos=1)
        await wait_until(lambda: answers)
        assert time.monotonic() - began > 0.9
        proxy.rate, proxy.delay = None, 0.2
        began = time.monotonic()
        client.publish("a", b"", qos=1)
        await wait_until(lambda: len(answers) == 2)
        assert time.monotonic() - began > 0.35


async def test_old_broker(broker: Mosquitto) -> None:
    """MQTT 5 is refused as by a broker that does not know it, and 3.1.1 is not."""
    async with MqttProxy(broker.port) as proxy:
        proxy.refuses_5 = True
        async with publisher(proxy.port) as (_, _, connected):
            await asyncio.sleep(0.3)
            assert 0 not in connected
        async with publisher(proxy.port, MQTTProtocolVersion.MQTTv311) as (
            _,
            _,
            connected,
        ):
            await wait_until(lambda: connected == [0])


def test_requests_in_pieces() -> None:
    """A request ends with its body, which may be empty."""
    post = b"POST /write HTTP/1.1\r\nHost: a\r\ncontent-length: 4\r\n\r\na=1\n"
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    stream = post + get + post
    for size in (1, 7, len(stream)):
        requests = Packets(end_of_request)
        found = [
            request
            for start in range(0, len(stream), size)
            for request in requests.feed(stream[start : start + size])
        ]
        assert found == [post, get, post]


async def test_refused_requests() -> None:
    """What is refused does not reach the store; the connection goes on."""
    async with (
        InfluxDb1() as store,
        HttpProxy(store.port) as proxy,
        ClientSession(f"http://127.0.0.1:{proxy.port}") as session,
    ):

        async def write(number: int) -> tuple[int, str | None]:
            line = f"m n={number} {number}"
            async with session.post("/write?db=ble", data=line) as response:
                return response.status, response.headers.get("Retry-After")

        assert await write(1) == (204, None)
        proxy.refusal = ("429 Too Many Requests", "Retry-After: 7")
        assert await write(2) == (429, "7")
        proxy.refusal = ()
        assert await write(3) == (204, None)
        assert (proxy.refused, len(proxy.links)) == (1, 1)
        rows = await store.query("SELECT n FROM m", "ble")
        assert [row["n"] for row in rows] == [1, 3]
