"""What becomes of advertisements when the broker or the network fails."""

import asyncio
from collections.abc import Callable
from functools import partial
import logging
import socket
import sys
import threading
from typing import Any

from homeassistant.core import HomeAssistant
import pytest

from custom_components.ble_bridge.destinations import mqtt
from custom_components.ble_bridge.destinations.mqtt_connection import MqttConnector
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber
from tests.conftest import SimulatedScanner, destination_data, is_connected, wait_until

from .faults import (
    Diagnose,
    ObedientBroker,
    Proxy,
    Server,
    Ticker,
    arrived,
    later_stopped,
    lines,
    state,
    stream,
)

type Setup = Callable[..., Any]


async def test_broker_comes_later(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broker that is absent at start-up is found when it comes."""
    async with later_stopped(Mosquitto()) as broker:
        entry = await setup(destination_data(broker.port), connected=False)
        await stream(scanner, 0, 5)
        await wait_until(
            lambda: state(hass, broker.port, "last_error") == "cannot_connect"
        )
        diagnostics = await diagnose(entry)
        assert diagnostics["destinations"][0]["counters"]["away"] == 5
        await broker.start()
        async with Subscriber(broker.port) as subscriber:
            await wait_until(lambda: is_connected(hass, broker.port))
            await stream(scanner, 5, 5)
            await subscriber.wait_for(lambda s: len(arrived(s)) == 5)
        assert arrived(subscriber) == [5, 6, 7, 8, 9]
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert (counters["sent"], counters["away"], counters["waiting"]) == (5, 5, 0)
        assert len(lines(caplog, logging.ERROR)) == 1
        assert len(lines(caplog, logging.INFO)) == 1
        assert not lines(caplog, logging.WARNING)


async def test_broker_restarts(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After an outage the bridge is back within 10 s, and says no more than it must."""
    entry = await setup(destination_data(broker.port))
    await stream(scanner, 0, 100)
    await broker.stop()
    await wait_until(lambda: not is_connected(hass, broker.port))
    await stream(scanner, 100, 100)
    await stream(scanner, 40_000, 5_000)  # Fills what caches there are
    before = sys.getallocatedblocks()
    await stream(scanner, 200, 10_000)
    assert sys.getallocatedblocks() - before < 2_000
    counters = (await diagnose(entry))["destinations"][0]["counters"]
    assert counters["away"] >= 10_100
    assert counters["waiting"] == 0
    await broker.start()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with Subscriber(broker.port) as subscriber:
        await wait_until(lambda: is_connected(hass, broker.port), 15)
        assert loop.time() - began < 10
        await stream(scanner, 20_000, 10)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 10)
    diagnostics = await diagnose(entry)
    assert diagnostics["destinations"][0]["reconnects"] == 1
    assert diagnostics["destinations"][0]["counters"]["sent"] <= 110
    assert state(hass, broker.port, "reconnects") == "1"
    assert state(hass, broker.port, "dropped_messages") == str(
        diagnostics["destinations"][0]["counters"]["dropped"]
    )
    assert len(lines(caplog, logging.ERROR)) == 1
    assert len(lines(caplog, logging.INFO)) == 1
    assert not lines(caplog, logging.WARNING)


async def test_frozen_broker(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
) -> None:
    """A frozen broker meets a bounded buffer, and the loop does not wait for it."""
    async with (
        Mosquitto(config_lines=["max_queued_messages 0"]) as broker,
        Subscriber(broker.port) as subscriber,
    ):
        entry = await setup(destination_data(broker.port))
        await stream(scanner, 0, 10)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 10)
        broker.freeze()
        ticker = Ticker()
        await stream(scanner, 10, 50_000)
        await asyncio.sleep(0.1)
        late = ticker.stop()
        frozen = (await diagnose(entry))["destinations"][0]
        assert frozen["connected"]
        assert frozen["counters"]["overflow"] > 0
        assert 10_000 < frozen["counters"]["waiting"] <= 20_500
        assert frozen["queue"]["messages"] == frozen["counters"]["waiting"]
        broker.thaw()
        await subscriber.wait_for(lambda s: arrived(s)[-1] == 50_009, 30)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
    assert late < 1  # A write that blocks would last until the thaw
    assert counters["waiting"] == 0
    assert counters["away"] == counters["failed"] == 0
    got = arrived(subscriber)
    assert got == sorted(set(got))
    assert len(got) == counters["sent"] == 50_010 - counters["overflow"]


async def test_one_destination_frozen(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
) -> None:
    """A destination that is frozen, and one that is away, hold up no other."""
    async with Mosquitto() as frozen, later_stopped(Mosquitto()) as absent:
        await setup(
            destination_data(broker.port),
            destination_data(frozen.port),
            destination_data(absent.port),
            connected=False,
        )
        await wait_until(
            lambda: is_connected(hass, broker.port) and is_connected(hass, frozen.port)
        )
        frozen.freeze()
        for begin in range(0, 12_000, 400):
            await stream(scanner, begin, 400)
            await asyncio.sleep(0.02)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 12_000, 15)
        [entry] = hass.config_entries.async_entries("ble_bridge")
        diagnostics = await diagnose(entry)
        frozen.thaw()
    assert arrived(subscriber) == list(range(12_000))
    counters = [destination["counters"] for destination in diagnostics["destinations"]]
    assert counters[0]["sent"] == 12_000
    assert counters[1]["dropped"] == 0
    assert counters[2]["away"] == 12_000
    latency = subscriber.latency_percentile(0.99)
    assert latency is not None
    assert latency < 2000  # The frozen one never takes anything


async def test_keepalive_finds_black_hole(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    quick: None,
) -> None:
    """A connection on which nothing comes back any more is given up, and made anew."""
    async with Proxy(broker.port) as proxy:
        entry = await setup(destination_data(proxy.port, keepalive=1))
        await stream(scanner, 0, 5)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 5)
        proxy.open.clear()
        await stream(scanner, 5, 5)
        await wait_until(lambda: not is_connected(hass, proxy.port))
        assert state(hass, proxy.port, "last_error") == "no_answer"
        await diagnose(entry)
        proxy.cut()
        proxy.open.set()
        await wait_until(lambda: is_connected(hass, proxy.port))
        await stream(scanner, 100, 5)
        await subscriber.wait_for(lambda s: 104 in arrived(s))
        diagnostics = await diagnose(entry)
        assert diagnostics["destinations"][0]["reconnects"] == 1
        await hass.config_entries.async_unload(entry.entry_id)


async def test_broker_never_answers(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What accepts and never answers is left after the connect timeout, and tried again."""
    monkeypatch.setattr(
        mqtt, "MqttConnector", partial(MqttConnector, connect_timeout=0.3)
    )
    async with Server() as silent:
        entry = await setup(destination_data(silent.port), connected=False)
        await stream(scanner, 0, 5)
        await wait_until(lambda: silent.connections == 3)
        assert state(hass, silent.port, "last_error") == "no_answer"
        diagnostics = await diagnose(entry)
        assert diagnostics["destinations"][0]["counters"]["away"] == 5
        await hass.config_entries.async_unload(entry.entry_id)
    assert len(lines(caplog, logging.ERROR)) == 1


async def test_unload_while_connecting(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """An entry that still waits for the broker's answer unloads at once."""
    loop = asyncio.get_running_loop()
    async with Server() as silent:
        entry = await setup(destination_data(silent.port), connected=False)
        await wait_until(lambda: silent.connections)
        began = loop.time()
        assert await hass.config_entries.async_unload(entry.entry_id)
        assert loop.time() - began < 2


async def test_unload_while_name_is_looked_up(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that comes too late says nothing, and takes no session from anyone."""
    found = threading.Event()
    create_connection = socket.create_connection

    def slow(*args: Any, **kwargs: Any) -> socket.socket:
        found.wait(10)
        return create_connection(*args, **kwargs)

    async with ObedientBroker() as broker:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "create_connection", slow)
            entry = await setup(destination_data(broker.port), connected=False)
            await asyncio.sleep(0.1)
            assert await hass.config_entries.async_unload(entry.entry_id)
            found.set()
            await wait_until(lambda: broker.connections)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await wait_until(lambda: is_connected(hass, broker.port))
        assert broker.connections == 2
        assert broker.connects == 1
        assert await hass.config_entries.async_unload(entry.entry_id)


async def test_unload_while_handshake_blocks(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    monkeypatch: pytest.MonkeyPatch,
    quick: None,
) -> None:
    """A TLS handshake that is not answered takes one thread, and holds up nothing."""
    monkeypatch.setattr(
        mqtt, "MqttConnector", partial(MqttConnector, connect_timeout=0.3)
    )
    loop = asyncio.get_running_loop()
    async with Server() as silent:
        entry = await setup(
            destination_data(silent.port, tls=True, keepalive=3), connected=False
        )
        await wait_until(lambda: state(hass, silent.port, "last_error") == "no_answer")
        await asyncio.sleep(1)
        assert silent.connections == 1
        began = loop.time()
        assert await hass.config_entries.async_unload(entry.entry_id)
        assert loop.time() - began < 2
        silent.cut()


async def test_wrong_password(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup, diagnose: Diagnose
) -> None:
    """A broker that refuses the credentials makes Home Assistant ask for new ones."""
    async with Mosquitto(users={"bridge": "right"}) as broker:
        entry = await setup(
            destination_data(broker.port, username="bridge", password="wrong"),
            connected=False,
        )
        await wait_until(
            lambda: state(hass, broker.port, "last_error") == "invalid_auth"
        )
        await stream(scanner, 0, 3)
        [flow] = hass.config_entries.flow.async_progress()
        assert flow["context"]["source"] == "reauth"
        await diagnose(entry)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_cut_in_the_middle_of_a_packet(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    quick: None,
) -> None:
    """Half a packet is no message, and the next connection begins with a whole one.

    A third short connection in a row would look like another client with our ID.
    """
    async with Proxy(broker.port) as proxy:
        entry = await setup(destination_data(proxy.port))

        def has_arrived(number: int) -> bool:
            return number in arrived(subscriber)

        for number in range(2):
            proxy.cut_after = 1_000 + 77 * number
            await stream(scanner, number * 100, 20)
            await wait_until(partial(proxy.has_connected, number + 2))
            await wait_until(lambda: is_connected(hass, proxy.port))
            await stream(scanner, number * 100 + 50, 1)
            await wait_until(partial(has_arrived, number * 100 + 50))
            await diagnose(entry)
        await hass.config_entries.async_unload(entry.entry_id)
    got = arrived(subscriber)
    assert got == sorted(set(got))
    assert {message.topic.split("/")[1] for message in subscriber.messages} == {
        "raw",
        "scanner",
        "bridge",
    }


async def test_unexpected_error_is_logged_and_tried_again(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug on the way to a connection is logged, and does not end the tries."""
    working = MqttConnector._open
    calls = []

    def broken(self: MqttConnector, *args: Any) -> Any:
        calls.append(args)
        if len(calls) < 3:
            raise KeyError("missing")
        return working(self, *args)

    monkeypatch.setattr(MqttConnector, "_open", broken)
    await setup(destination_data(broker.port))
    assert len(calls) == 3
    assert caplog.text.count("KeyError: 'missing'") == 2
