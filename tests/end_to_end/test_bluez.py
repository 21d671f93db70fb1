"""A local adapter: BlueZ over D-Bus, with and without the kernel's raw packets."""

import asyncio
from pathlib import Path
import struct

import pytest

from scripts.simulation.bluez import simulated_bluez
from scripts.simulation.broker import Mosquitto
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.subscriber import Subscriber

from .conftest import add_bridge, complaints, validate

ADDRESS = "E0:00:00:00:00:01"


@pytest.mark.parametrize("raw", [False, True], ids=["without-raw", "with-raw"])
async def test_local_adapter(
    tmp_path: Path, broker: Mosquitto, subscriber: Subscriber, raw: bool
) -> None:
    """What an adapter hears arrives; `raw` is absent where BlueZ does not give it."""
    async with (
        simulated_bluez(raw=raw) as bluez,
        HomeAssistantProcess(tmp_path, extra_env=bluez.environment) as home_assistant,
    ):
        await home_assistant.accept_discovered("bluetooth", 1)
        await bluez.wait_ready()
        await add_bridge(home_assistant, broker)
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")
        for number in range(20):
            payload = struct.pack("<I", number)
            bluez.send(
                [(ADDRESS, -60 - number, b"\x02\x01\x06\x07\xff\xfe\xff" + payload, 1)]
            )
            await asyncio.sleep(0.05)
        topic = f"ble/raw/hci0/{ADDRESS}"
        await subscriber.wait_for(lambda heard: len(heard.on_topic(topic)) >= 20, 20)
        messages = subscriber.on_topic(topic)
        validate(messages, "advertisement")
        last = messages[-1].json()
        assert last["manufacturer_data"] == {"feff": struct.pack("<I", 19).hex()}
        assert last["rssi"] == -79
        assert ("raw" in last) is raw
        if not raw:
            assert last["address_type"] == "random"
        heartbeat = subscriber.on_topic("ble/scanner/hci0/status")[-1].json()
        assert heartbeat["status"] == "running"
        assert complaints(home_assistant) == []
