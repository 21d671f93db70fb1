"""A thermometer that three proxies hear: from the radio to topics, states and history."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
import itertools
import sqlite3
from typing import Any

from scripts.demo_app import PROXIES, add_proxies
from scripts.simulation.broker import Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.subscriber import Message, Subscriber

from .conftest import add_bridge, complaints, validate

ADDRESS = "A4:C1:38:8D:18:B2"
STRANGER = "A4:C1:38:8D:18:B3"
FIELDS = "telemetry/balcony"
VALUES = "iiot/balcony"
WARM = f"{FIELDS}/alerts/Too_warm/current"
LOST = f"{FIELDS}/alerts/Lost/current"
TIMEOUT = 6


@dataclass
class Thermometer:
    """A thermometer that speaks BTHome, in the reach of several proxies."""

    proxies: list[EsphomeProxy]
    address: str = ADDRESS
    packet_ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def say(self, temperature: float, humidity: float = 50, battery: int = 93) -> bytes:
        """Say something, which every proxy hears."""
        self.packet = bthome(next(self.packet_ids), temperature, humidity, battery)
        self.repeat()
        return self.packet

    def repeat(self, rssi: int = -60) -> None:
        """Say the same once more; each proxy is another room away."""
        for rooms, proxy in enumerate(self.proxies):
            proxy.send([(self.address, rssi - 10 * rooms, self.packet, 0)])


def bthome(packet_id: int, temperature: float, humidity: float, battery: int) -> bytes:
    """Return a packet with flags, service data and a name (BTHome v2)."""
    data = bytes([0xD2, 0xFC, 0x40, 0, packet_id & 0xFF, 1, battery, 2])
    data += round(temperature * 100).to_bytes(2, "little", signed=True)
    data += b"\x03" + round(humidity * 100).to_bytes(2, "little")
    name = b"ATC_8D18B2"
    return (
        b"\x02\x01\x06"
        + bytes([len(data) + 1, 0x16])
        + data
        + bytes([len(name) + 1, 9])
        + name
    )


async def state(home_assistant: HomeAssistantProcess, entity_id: str) -> str:
    """Return a state, or what stands for none."""
    states = await home_assistant.ws("get_states")
    return next(
        (str(item["state"]) for item in states if item["entity_id"] == entity_id),
        "none",
    )


async def expect(
    home_assistant: HomeAssistantProcess, entity_id: str, expected: str
) -> None:
    """Wait for a state."""
    found = ""
    for _ in range(100):
        if (found := await state(home_assistant, entity_id)) == expected:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{entity_id} is {found}, not {expected}")


def check(messages: list[Message]) -> None:
    """Validate whatever was published against the schema of its topic."""
    schemas = {"v": "reading", "alerts": "alert", "errors": "error"}
    for message in messages:
        levels = message.topic.split("/")
        if levels[0] == "telemetry":
            validate([message], schemas.get(levels[2], levels[2]))
        elif levels[0] == "ble" and levels[1] == "raw":
            validate([message], "advertisement")
        elif levels[0] == "ble" and levels[1] == "scanner":
            validate([message], "heartbeat")


async def add_thermometer(
    home_assistant: HomeAssistantProcess, entry_id: str
) -> dict[str, Any]:
    """Add it through the forms, with two alerts; return its subentry."""
    result = await home_assistant.subentry_flow(
        entry_id,
        "device",
        {"next_step_id": "on_air"},
        {"address": ADDRESS},
        {
            "name": "Balcony thermometer",
            "alias": "Balcony",
            "timeout": TIMEOUT,
            "signal": {},
            "shaping": {},
        },
    )
    assert result["type"] == "create_entry", result
    subentries = await home_assistant.ws(
        "config_entries/subentries/list", entry_id=entry_id
    )
    (subentry,) = [s for s in subentries if s["subentry_type"] == "device"]
    for kind, rule in (
        (
            "above",
            {
                "name": "Too warm",
                "field": "temperature",
                "limit": 25,
                "hysteresis": 1,
                "audiences": ["kitchen"],
            },
        ),
        ("lost", {"name": "Lost"}),
    ):
        result = await home_assistant.change_subentry(
            entry_id,
            "device",
            subentry["subentry_id"],
            {"next_step_id": "add_alert"},
            {"kind": kind},
            rule,
        )
        assert result["reason"] == "reconfigure_successful", result
    return dict(subentry)


async def test_thermometer(
    home_assistant: HomeAssistantProcess, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """One reading each, states, alerts, loss and return; then a restart, and removal."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(EsphomeProxy(name, mac, area=area))
            for name, mac, area in PROXIES
        ]
        thermometer = Thermometer(proxies)
        await add_proxies(home_assistant, proxies)
        entry_id = await add_bridge(home_assistant, broker, values=True)
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")
        thermometer.say(21.5)
        Thermometer(proxies, STRANGER).say(3)
        await subscriber.wait_for(lambda heard: heard.count("ble/raw/") >= 6)
        subentry = await add_thermometer(home_assistant, entry_id)
        prefix = "sensor.balcony_thermometer"
        thermometer.say(21.6)
        await expect(home_assistant, f"{prefix}_temperature", "21.6")
        await expect(home_assistant, f"{prefix}_battery", "93")
        await expect(home_assistant, "binary_sensor.balcony_thermometer_presence", "on")

        # Once each, though three proxies hear it, and again and again
        subscriber.messages.clear()
        before = subscriber.count("ble/raw/")
        sent = [22.0, 22.5, 23.0, 22.5, 22.0]
        for temperature in sent:
            thermometer.say(temperature)
            for _ in range(3):
                await asyncio.sleep(0.1)
                thermometer.repeat()
        await subscriber.wait_for_message(f"{FIELDS}/v/temperature", b'{"value":22.0}')
        await asyncio.sleep(0.5)
        assert [m.json() for m in subscriber.on_topic(f"{FIELDS}/v/temperature")] == [
            {"value": temperature} for temperature in sent
        ]
        assert [m.payload for m in subscriber.on_topic(f"{VALUES}/temperature")] == [
            str(temperature).encode() for temperature in sent
        ]
        assert subscriber.count("ble/raw/") == before + 3 * 4 * len(sent)
        assert not [m for m in subscriber.messages if STRANGER in m.topic.split("/")[1]]

        # Too warm, and not any more
        thermometer.say(25.5)
        await expect(home_assistant, "binary_sensor.balcony_thermometer_too_warm", "on")
        thermometer.say(24.5)
        thermometer.say(23.9)
        await expect(
            home_assistant, "binary_sensor.balcony_thermometer_too_warm", "off"
        )
        started, ended = [m.json() for m in subscriber.on_topic(WARM)]
        assert started["EndedAt"] is None
        assert ended["StartedAt"] == started["StartedAt"] < ended["EndedAt"]
        assert ended["Audiences"] == ["kitchen"]

        # Lost, and back
        await subscriber.wait_for_message(LOST, timeout=TIMEOUT + 10)
        await expect(home_assistant, f"{prefix}_temperature", "unavailable")
        await expect(home_assistant, "binary_sensor.balcony_thermometer_lost", "on")
        thermometer.say(20.25)
        await expect(home_assistant, f"{prefix}_temperature", "20.25")
        await expect(home_assistant, "binary_sensor.balcony_thermometer_lost", "off")
        stays = [m.json() for m in subscriber.on_topic(f"{FIELDS}/connectivity")]
        assert [stay["Status"] for stay in stays[-2:]] == ["DISCONNECTED", "CONNECTED"]
        assert stays[-2]["ConnectionId"] != stays[-1]["ConnectionId"]
        check(subscriber.messages)

        # The recorder has it all
        await asyncio.sleep(6)  # It commits every five seconds
        database = home_assistant.config_dir / "home-assistant_v2.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as recorder:
            rows = recorder.execute(
                "SELECT state FROM states JOIN states_meta USING (metadata_id)"
                " WHERE states_meta.entity_id = ? ORDER BY state_id",
                ("binary_sensor.balcony_thermometer_too_warm",),
            ).fetchall()
        states = [row for (row,) in rows]
        assert states[states.index("on") - 1 :][:3] == ["off", "on", "off"]

        # A restart: the values are there before the first packet
        await home_assistant.stop()
        async with Subscriber(broker.port, f"{VALUES}/#") as late:
            await late.wait_for_message(f"{VALUES}/temperature", b"20.25")
            assert all(message.retain for message in late.messages)
            assert not [m for m in late.messages if m.topic.endswith("/rssi")]
        await home_assistant.start()
        assert await state(home_assistant, f"{prefix}_humidity") in {
            "50.0",
            "unavailable",  # It takes longer than the timeout to start
        }
        await subscriber.wait_for_message("ble/bridge/home/status", b"online", 60)
        for proxy in proxies:
            await proxy.wait_ready(60)
        thermometer.say(20.5)
        await expect(home_assistant, f"{prefix}_temperature", "20.5")

        # Removed: nothing is left of it, in Home Assistant or on the broker
        await home_assistant.ws(
            "config_entries/subentries/delete",
            entry_id=entry_id,
            subentry_id=subentry["subentry_id"],
        )
        await subscriber.wait_for_message(f"{VALUES}/temperature", b"")
        async with Subscriber(broker.port) as late:
            await late.wait_for_message("ble/bridge/home/status")
            await asyncio.sleep(0.5)
            assert not [m for m in late.messages if m.topic.startswith(VALUES)]
        assert await state(home_assistant, f"{prefix}_temperature") == "none"
        assert complaints(home_assistant) == []
