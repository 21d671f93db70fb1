"""What a subscriber gets from a real broker is what the documentation says."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from homeassistant.components.bluetooth import MONOTONIC_TIME
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.ble_bridge.const import HEARTBEAT_INTERVAL
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Message, Subscriber

from .conftest import ADDRESS, RAW, SimulatedScanner, destination_data
from .layouts.samples import structure, validated

SECOND = "AA:00:00:00:00:02"
HEARTBEAT = "ble/scanner/living-room-proxy/status"
BRIDGE = "ble/bridge/home/status"

PACKETS = [
    RAW,
    b"",
    b"\0" * 31,
    b"\xff" * 31,
    structure(9, ("/+#\0🦊" * 31).encode()),
    structure(9, b"\xff\xfe\xc3("),
    structure(0x16, b"\xd2\xfb"),
    structure(10, b"\x7f") + structure(8, b"short"),
    b"".join(structure(0xFF, bytes([n, 0xFF, n])) for n in range(64)),
]


def check(message: Message) -> None:
    """Validate one message, and that its topic says what its payload says."""
    levels = message.topic.split("/")
    match levels:
        case ["ble", "raw", scanner_id, address]:
            payload = validated(message.payload)
            assert (payload["scanner_id"], payload["mac_address"]) == (
                scanner_id,
                address,
            )
            assert not message.retain
        case ["ble", "scanner", scanner_id, "status"]:
            payload = validated(message.payload, "heartbeat")
            assert payload["scanner_id"] == scanner_id
        case ["ble", "bridge", "home", "status"]:
            assert message.payload in {b"online", b"offline"}
        case _:
            pytest.fail(f"Undocumented topic {message.topic}")


@pytest.mark.parametrize("qos", [0, 1])
async def test_everything_is_as_documented(
    hass: HomeAssistant,
    broker: Mosquitto,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Callable[..., Any],
    qos: int,
) -> None:
    """Every message of a life of a bridge holds to its schema."""
    first, second = add_scanner(), add_scanner(SECOND, "Attic", connectable=True)
    async with Subscriber(broker.port, qos=1) as subscriber:
        entry = await setup(destination_data(broker.port, qos=qos))
        for raw in PACKETS:
            first.hear(raw=raw, address_type=1)
            second.hear(raw=raw, rssi=0)
        for rssi in (127, -127, -50):
            second._async_on_advertisement(
                "C0:00:00:00:00:02",
                rssi,
                "🦊/+#\0",
                ["0000180F-0000-1000-8000-00805F9B34FB"],
                {},
                {0x004C: b"\2\x15"},
                -127,
                {"props": {"AddressType": "public"}},
                MONOTONIC_TIME(),
            )
        sent = 2 * len(PACKETS) + 3
        await subscriber.wait_for(lambda s: s.count("ble/raw/") == sent)
        async_fire_time_changed(
            hass, dt_util.utcnow() + timedelta(seconds=HEARTBEAT_INTERVAL + 1)
        )
        # One with the connection, one with the minute.
        await subscriber.wait_for(lambda s: s.snapshot()[HEARTBEAT] >= 2)
        first.remove()
        async_fire_time_changed(
            hass, dt_util.utcnow() + timedelta(seconds=2 * HEARTBEAT_INTERVAL)
        )
        await subscriber.wait_for(
            lambda s: s.on_topic(HEARTBEAT)[-1].json()["status"] == "offline"
        )
        await hass.config_entries.async_unload(entry.entry_id)
        await subscriber.wait_for_message(BRIDGE, b"offline")
    for message in subscriber.messages:
        check(message)
    assert {m.qos for m in subscriber.messages if m.topic.startswith("ble/raw/")} == {
        qos
    }
    assert [m.payload for m in subscriber.on_topic(BRIDGE)] == [b"online", b"offline"]
    states = [m.json()["status"] for m in subscriber.on_topic(HEARTBEAT)]
    assert states[0] == "running"
    assert states[-1] == "stopped"
    metrics = subscriber.on_topic("ble/scanner/attic/status")[-1].json()["metrics"]
    assert metrics["advertisements_received"] == len(PACKETS) + 3
    assert metrics["advertisements_published"] == len(PACKETS) + 3


async def test_what_the_broker_keeps(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    subscriber: Subscriber,
) -> None:
    """Who subscribes later finds the newest heartbeat and status, no advertisement."""
    await setup(destination_data(broker.port))
    scanner.hear()
    await subscriber.wait_for(lambda s: s.count("ble/raw/") == 1)
    async with Subscriber(broker.port) as late:
        await late.wait_for(lambda s: {HEARTBEAT, BRIDGE} <= s.snapshot().keys())
        scanner.hear(rssi=-51)
        await late.wait_for(lambda s: s.count("ble/raw/") == 1)
    retained = {m.topic for m in late.messages if m.retain}
    assert {HEARTBEAT, BRIDGE} <= retained
    assert not any(topic.startswith("ble/raw/") for topic in retained)
    assert [m.json()["rssi"] for m in late.messages if not m.retain] == [-51]


async def test_destinations_say_the_same(
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """An advertisement is the same message on each destination, byte for byte."""
    await setup(
        destination_data(broker.port),
        destination_data(broker.port, topic_base="home/ble", client_id="another"),
    )
    await subscriber.wait_for_message("home/ble/bridge/home/status", b"online")
    for rssi in range(-60, -50):
        scanner.hear(rssi=rssi)
    tail = f"raw/living-room-proxy/{ADDRESS}"
    await subscriber.wait_for(
        lambda s: s.snapshot()[f"ble/{tail}"] == s.snapshot()[f"home/ble/{tail}"] == 10
    )
    assert [m.payload for m in subscriber.on_topic(f"ble/{tail}")] == [
        m.payload for m in subscriber.on_topic(f"home/ble/{tail}")
    ]


async def test_timestamp_is_now(
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """The timestamp is that of the packet, in UTC."""
    await setup(destination_data(broker.port))
    scanner.hear()
    await subscriber.wait_for(lambda s: s.count("ble/raw/") == 1)
    [message] = subscriber.on_topic(f"ble/raw/living-room-proxy/{ADDRESS}")
    said = datetime.fromisoformat(message.json()["timestamp"]).timestamp()
    assert 0 <= message.received - said < 5
