"""ESPHome proxies, a whole Home Assistant, Mosquitto, and a subscriber of its own."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from scripts.demo_app import PROXIES, add_proxies
from scripts.simulation.broker import Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home import Home, load_frames
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.subscriber import Subscriber

from .conftest import add_bridge, complaints, validate

RAW = bytes.fromhex("0201060cfffeff0102030405060708ff")


async def test_a_home(
    home_assistant: HomeAssistantProcess, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """All that three proxies hear arrives, valid; a restart changes no topic."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(EsphomeProxy(name, mac, area=area))
            for name, mac, area in PROXIES
        ]
        await add_proxies(home_assistant, proxies)
        entry_id = await add_bridge(home_assistant, broker)
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")

        home = Home(load_frames(), proxies, rate=4)
        playing = asyncio.create_task(home.play())
        await asyncio.sleep(6)
        playing.cancel()
        await subscriber.wait_for(
            lambda arrived: arrived.count("ble/raw/") >= home.sent, 10
        )
        assert subscriber.count("ble/raw/") == home.sent > 500
        raw = [m for m in subscriber.messages if m.topic.startswith("ble/raw/")]
        assert not any(message.retain for message in raw)
        assert all({"raw", "address_type"} <= message.json().keys() for message in raw)
        validate(raw, "advertisement")
        assert {message.topic.split("/")[2] for message in raw} == {
            name for name, *_ in PROXIES
        }
        latency = subscriber.latency_percentile(0.99)
        assert latency is not None
        assert latency < 1000  # Only that nothing hangs: the benchmark measures

        (destination,) = (await home_assistant.diagnostics(entry_id))["destinations"]
        counters = destination["counters"]
        assert counters["received"] == home.sent == counters["sent"]

        # A restart: goodbye, and the same names again
        await home_assistant.stop()
        await subscriber.wait_for_message("ble/bridge/home/status", b"offline")
        topics = {m.topic for m in subscriber.messages if "/scanner/" in m.topic}
        assert len(topics) == len(PROXIES)
        for topic in topics:
            heartbeats = subscriber.on_topic(topic)
            validate(heartbeats, "heartbeat")
            assert heartbeats[-1].json()["status"] == "stopped"
        subscriber.messages.clear()
        await home_assistant.start()
        await subscriber.wait_for_message("ble/bridge/home/status", b"online", 60)
        for proxy in proxies:
            await proxy.wait_ready(60)
        proxies[0].send([("C0:00:00:00:00:01", -50, RAW, 1)])
        await subscriber.wait_for_message(
            f"ble/raw/{PROXIES[0][0]}/C0:00:00:00:00:01", timeout=20
        )
        assert complaints(home_assistant) == []


async def test_stopping_in_mid_stream(
    tmp_path: Path, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """A proxy that disappears and a stop while packets come: goodbye is still said."""
    async with EsphomeProxy("attic-proxy", "24:6F:28:00:40:00") as proxy:
        home_assistant = HomeAssistantProcess(tmp_path)
        try:
            await home_assistant.start()
            await add_proxies(home_assistant, [proxy])
            await add_bridge(home_assistant, broker, qos="1")
            await subscriber.wait_for_message("ble/bridge/home/status", b"online")

            async def stream() -> None:
                for number in range(10_000):
                    proxy.send([("C0:00:00:00:00:01", -40 - number % 40, RAW, 1)] * 16)
                    await asyncio.sleep(0.01)

            streaming = asyncio.create_task(stream())
            await subscriber.wait_for(lambda heard: heard.count("ble/raw/") > 200, 20)
            proxy.disconnect()  # In mid-stream; Home Assistant comes back to it
            await proxy.wait_ready(60)
            before = subscriber.count("ble/raw/")
            await subscriber.wait_for(
                lambda heard: heard.count("ble/raw/") > before + 200, 20
            )
        finally:
            await home_assistant.stop()
        streaming.cancel()
        await subscriber.wait_for_message("ble/bridge/home/status", b"offline")
        heartbeat = subscriber.on_topic("ble/scanner/attic-proxy/status")[-1].json()
        assert heartbeat["status"] == "stopped"
        assert complaints(home_assistant) == []
