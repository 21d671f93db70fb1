"""Heartbeats, status and last words: what a bridge says of itself on the broker."""

from collections.abc import Callable
from datetime import timedelta
import logging
from pathlib import Path
from typing import Any

from homeassistant.const import EVENT_HOMEASSISTANT_STOP
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnector,
    MqttSettings,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    ADDRESS,
    SOURCE,
    SimulatedScanner,
    destination_data,
    is_connected,
    wait_until,
)
from .destinations.faults import Proxy, arrived, stream

type Setup = Callable[..., Any]

STATUS = "ble/bridge/home/status"
HEARTBEAT = "ble/scanner/living-room-proxy/status"


async def tick(hass: HomeAssistant, seconds: float) -> None:
    """Let timers run out; the clock itself goes on, as the sockets need it."""
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(seconds=seconds))
    await hass.async_block_till_done()


def newest(subscriber: Subscriber, topic: str = HEARTBEAT) -> Any:
    """Return the newest message of a topic."""
    return subscriber.on_topic(topic)[-1].json()


async def test_heartbeats(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A heartbeat comes with the connection, and then each minute, with a line of log."""
    caplog.set_level(logging.INFO, "custom_components.ble_bridge")
    await setup(
        destination_data(broker.port), options={"deny": {"addresses": [ADDRESS]}}
    )
    await subscriber.wait_for_message(STATUS, b"online")
    await subscriber.wait_for_message(HEARTBEAT)
    first = newest(subscriber)
    assert first["status"] == "running"
    assert first["scanner_id"] == "living-room-proxy"
    assert set(first["metrics"].values()) == {0}
    for index in range(30):
        scanner.hear(address=f"C0:00:00:00:01:{index % 10:02X}")
    scanner.hear(address=ADDRESS)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 30)
    await tick(hass, 61)
    await subscriber.wait_for(lambda s: len(s.on_topic(HEARTBEAT)) == 2)
    second = newest(subscriber)
    assert second["metrics"] == {
        "devices": 11,
        "advertisements_received": 31,
        "advertisements_published": 30,
        "advertisements_dropped": 0,
        "advertisements_filtered": 1,
    }
    assert second["mqtt"] == {
        "connected": True,
        "messages_sent": 30,
        "reconnects": 0,
        "last_error": None,
    }
    assert 0 <= first["uptime_seconds"] <= second["uptime_seconds"] < 60
    assert second["timestamp"] > first["timestamp"]
    rates = [r.getMessage() for r in caplog.records if "a second received" in r.msg]
    [line] = rates
    assert line.endswith(
        ": 0.5 advertisements a second received, 0.5 published, 0.0 dropped"
    )
    await tick(hass, 61)
    await subscriber.wait_for(lambda s: len(s.on_topic(HEARTBEAT)) == 3)
    assert caplog.text.count("0.0 advertisements a second received") == 1


async def test_scanner_disappears_mid_stream(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
) -> None:
    """A scanner that is gone is `offline`, and `running` when it is back."""
    scanner = add_scanner()
    await setup(destination_data(broker.port))
    await subscriber.wait_for_message(HEARTBEAT)
    await stream(scanner, 0, 5)
    scanner.remove()
    await tick(hass, 31)
    await subscriber.wait_for(lambda s: newest(s)["status"] == "offline")
    scanner = add_scanner(SOURCE)
    await tick(hass, 31)
    await subscriber.wait_for(lambda s: newest(s)["status"] == "running")
    await stream(scanner, 5, 5)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 10)
    await tick(hass, 61)
    await subscriber.wait_for(
        lambda s: newest(s)["metrics"]["advertisements_received"] == 10
    )


async def test_killed_without_goodbye(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """When the bridge is cut off, the broker says `offline`, and keeps it."""
    async with Proxy(broker.port) as proxy:
        entry = await setup(destination_data(proxy.port))
        await subscriber.wait_for_message(STATUS, b"online")
        proxy.cut()
        await subscriber.wait_for_message(STATUS, b"offline")
        async with Subscriber(broker.port, STATUS) as later:
            message = await later.wait_for_message(STATUS)
        assert message.retain
        # And `online` again, once it is back.
        await wait_until(lambda: subscriber.on_topic(STATUS)[-1].payload == b"online")
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("how", ["unload", "stop"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_last_words(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    how: str,
    qos: int,
) -> None:
    """Mid-stream, all that was heard still goes out, then the goodbye, and no will."""
    entry = await setup(destination_data(broker.port, qos=qos))
    await stream(scanner, 0, 100)
    if how == "unload":
        assert await hass.config_entries.async_unload(entry.entry_id)
    else:
        hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)
        await hass.async_block_till_done()
    await subscriber.wait_for_message(STATUS, b"offline")
    scanner.hear()
    assert arrived(subscriber) == list(range(100))
    messages = [(m.topic, m.payload) for m in subscriber.messages]
    assert messages[-1] == (STATUS, b"offline")
    assert messages.count((STATUS, b"offline")) == 1
    assert newest(subscriber)["status"] == "stopped"
    assert newest(subscriber)["metrics"]["advertisements_published"] == 100


async def test_stop_with_frozen_broker(
    hass: HomeAssistant, broker: Mosquitto, scanner: SimulatedScanner, setup: Setup
) -> None:
    """A broker that does not take the goodbye delays nobody for longer than agreed."""
    entry = await setup(destination_data(broker.port))
    broker.freeze()
    await stream(scanner, 0, 40_000)
    began = hass.loop.time()
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert hass.loop.time() - began < 3
    broker.thaw()
    async with Subscriber(broker.port, STATUS) as later:
        await later.wait_for_message(STATUS, b"offline")


async def test_reload(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """After a reload the bridge is `online` again, and goes on."""
    entry = await setup(destination_data(broker.port))
    await stream(scanner, 0, 20)
    assert await hass.config_entries.async_reload(entry.entry_id)
    await wait_until(lambda: is_connected(hass, broker.port))
    await stream(scanner, 20, 20)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 40)
    assert [message.payload for message in subscriber.on_topic(STATUS)] == [
        b"online",
        b"offline",
        b"online",
    ]


async def kept(broker: Mosquitto) -> set[str]:
    """Return the topics of which the broker keeps a message."""
    async with Subscriber(broker.port, "ble/#", "moved/#", "end") as subscriber:
        await subscriber.wait_for_message("end")
        return {m.topic for m in subscriber.messages if m.retain} - {"end"}


@pytest.fixture(name="end")
async def end_fixture(broker: Mosquitto) -> None:
    """Have the broker keep a message that comes after all others."""
    await keep_end(broker)


async def keep_end(broker: Mosquitto) -> None:
    """Have a broker keep a message that comes after all others."""
    connection = await MqttConnector(
        MqttSettings(host="127.0.0.1", port=broker.port, client_id="end")
    ).async_connect()
    connection.publish("end", b"end", retain=True)
    await connection.async_close()


async def test_remove_entry(
    hass: HomeAssistant,
    broker: Mosquitto,
    end: None,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """With the entry goes what the broker keeps for it."""
    entry = await setup(destination_data(broker.port))
    await stream(scanner, 0, 5)
    await wait_until(lambda: is_connected(hass, broker.port))
    assert await kept(broker) >= {STATUS, HEARTBEAT}
    await hass.config_entries.async_remove(entry.entry_id)
    assert await kept(broker) == set()


async def test_remove_entry_without_broker(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broker that is away does not keep an entry from being removed."""
    entry = await setup(destination_data(broker.port))
    await broker.stop()
    await hass.config_entries.async_remove(entry.entry_id)
    assert "could not be cleared from the broker (cannot_connect)" in caplog.text
    assert not hass.config_entries.async_entries("ble_bridge")


async def test_destination_removed_and_moved(
    hass: HomeAssistant,
    broker: Mosquitto,
    end: None,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """A destination that goes, or goes elsewhere, leaves nothing behind."""
    entry = await setup(
        destination_data(broker.port),
        destination_data(broker.port, topic_base="moved", client_id="second"),
        connected=False,
    )
    await wait_until(lambda: is_connected(hass, broker.port))
    first, second = entry.subentries.values()
    async with Subscriber(broker.port) as subscriber:
        await subscriber.wait_for_message("moved/bridge/home/status", b"online")
    hass.config_entries.async_remove_subentry(entry, first.subentry_id)
    await hass.async_block_till_done()
    assert not {topic for topic in await kept(broker) if topic.startswith("ble/")}
    hass.config_entries.async_update_subentry(
        entry, second, data={**second.data, "topic_base": "ble"}
    )
    await hass.async_block_till_done()
    async with Subscriber(broker.port) as subscriber:
        await subscriber.wait_for_message(STATUS, b"online")
    topics = await kept(broker)
    assert topics >= {STATUS, HEARTBEAT}
    assert not {topic for topic in topics if topic.startswith("moved/")}


async def test_destination_moved_while_away(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    tmp_path: Path,
) -> None:
    """What could not be cleared at the time of a move is cleared at the next connection.

    The broker keeps retained messages across its own restart.
    """
    persistent = ("persistence true", f"persistence_location {tmp_path}/")
    async with Mosquitto(config_lines=persistent) as keeper:
        await keep_end(keeper)
        entry = await setup(destination_data(keeper.port))
        assert await kept(keeper) >= {STATUS, HEARTBEAT}
        await keeper.stop()
        await wait_until(lambda: not is_connected(hass, keeper.port))
        (subentry,) = entry.subentries.values()
        hass.config_entries.async_update_subentry(
            entry, subentry, data={**subentry.data, "topic_base": "moved"}
        )
        await hass.async_block_till_done()
        await keeper.start()
        async with Subscriber(keeper.port) as subscriber:
            await subscriber.wait_for_message("moved/bridge/home/status", b"online")
        topics = await kept(keeper)
        assert "moved/bridge/home/status" in topics
        assert not {topic for topic in topics if topic.startswith("ble/")}
        # One that is removed while its broker is away is not remembered for ever
        await keeper.stop()
        await wait_until(lambda: not is_connected(hass, keeper.port, "moved"))
        hass.config_entries.async_remove_subentry(entry, subentry.subentry_id)
        await hass.async_block_till_done()
        assert entry.runtime_data.store.data["retained"] == {}


async def test_scanner_renamed(
    hass: HomeAssistant,
    broker: Mosquitto,
    end: None,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """A scanner ID that the user changes leaves no heartbeat under the old one."""
    entry = await setup(destination_data(broker.port))
    assert HEARTBEAT in await kept(broker)
    hass.config_entries.async_update_entry(
        entry, options={"scanner_ids": {SOURCE: "cellar"}}
    )
    await hass.async_block_till_done()
    await wait_until(lambda: is_connected(hass, broker.port))
    async with Subscriber(broker.port) as subscriber:
        await subscriber.wait_for_message("ble/scanner/cellar/status")
    assert HEARTBEAT not in await kept(broker)


async def test_nothing_secret_in_the_log(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even at debug level is there a secret, an address, or a line per packet."""
    caplog.set_level(logging.DEBUG)
    async with (
        Mosquitto(users={"someone": "top-secret"}) as broker,
        Subscriber(
            broker.port, username="someone", password="top-secret"
        ) as subscriber,
    ):
        entry = await setup(
            destination_data(
                broker.port,
                username="someone",
                password="top-secret",
                client_id="our-client",
            )
        )
        await stream(scanner, 0, 100, at_once=100)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 100)
        await tick(hass, 61)
        await broker.restart()
        await wait_until(lambda: not is_connected(hass, broker.port))
        await stream(scanner, 0, 100)
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.config_entries.async_unload(entry.entry_id)
    ours = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("custom_components.ble_bridge")
    ]
    assert any(line.startswith("Published ") for line in ours)
    assert len(ours) < 20
    for secret in ("someone", "top-secret", "our-client", ADDRESS, SOURCE):
        assert not [line for line in ours if secret.lower() in line.lower()]
        if "secret" in secret:
            assert secret not in caplog.text
