"""Set-up and its end."""

import asyncio
from collections.abc import Callable
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import HomeAssistant

from custom_components.ble_bridge.bridge import Bridge
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    SimulatedScanner,
    bridge_entry,
    destination_data,
    is_connected,
    wait_until,
)
from .destinations.faults import Proxy, Server, arrived, stream

type Setup = Callable[..., Any]


async def test_without_destinations(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """A bridge without destinations does no harm."""
    entry = await setup()
    await stream(scanner, 0, 5)
    assert hass.config_entries.async_loaded_entries("ble_bridge") == [entry]
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert not hass.config_entries.async_loaded_entries("ble_bridge")


async def test_nothing_lingers(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """After unloading, no connection and no task is left, time and again."""
    async with Proxy(broker.port) as proxy:
        entry = await setup(destination_data(proxy.port))
        before = asyncio.all_tasks()
        for _ in range(3):
            await stream(scanner, 0, 20)
            assert await hass.config_entries.async_reload(entry.entry_id)
            await wait_until(lambda: is_connected(hass, proxy.port))
        assert proxy.connections == 4
        assert await hass.config_entries.async_unload(entry.entry_id)
        left = [
            task.get_name()
            for task in asyncio.all_tasks() - before
            if "ble_bridge" in task.get_name() or "127.0.0.1" in task.get_name()
        ]
        assert left == []
        await stream(scanner, 0, 20)
        await wait_until(lambda: all(w.is_closing() for w in proxy.writers))


async def test_reload_while_connecting(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """A connection that is still being made does not disturb the next one."""
    async with Proxy(broker.port) as proxy:
        entry = bridge_entry(destination_data(proxy.port))
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        for _ in range(5):
            assert await hass.config_entries.async_reload(entry.entry_id)
        await wait_until(lambda: is_connected(hass, proxy.port))
        await asyncio.sleep(0.3)
        assert is_connected(hass, proxy.port)
        await stream(scanner, 0, 5)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 5)
        status = subscriber.on_topic("ble/bridge/home/status")
        assert status[-1].payload == b"online"
        assert await hass.config_entries.async_unload(entry.entry_id)


async def test_remove_with_silent_broker(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """A broker that does not answer does not keep an entry from being removed."""
    async with Server() as silent:
        entry = await setup(destination_data(silent.port), connected=False)
        began = hass.loop.time()
        await hass.config_entries.async_remove(entry.entry_id)
        assert hass.loop.time() - began < 7
    assert not hass.config_entries.async_entries("ble_bridge")


async def test_added_while_loading(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """A destination that is added while the bridge is loaded anew is not overlooked."""
    entry = await setup(destination_data(broker.port))
    opened = asyncio.Event()
    add = asyncio.Event()
    real_open = Bridge.async_open

    async def open_slowly(bridge: Bridge) -> None:
        await real_open(bridge)
        opened.set()
        await add.wait()

    with patch.object(Bridge, "async_open", open_slowly):
        reload = hass.async_create_task(
            hass.config_entries.async_reload(entry.entry_id)
        )
        await opened.wait()
        other = destination_data(broker.port, topic_base="other", client_id="other")
        hass.config_entries.async_add_subentry(
            entry,
            ConfigSubentry(
                data=MappingProxyType(other),
                subentry_type="destination",
                title=f"127.0.0.1:{broker.port} (other)",
                unique_id=None,
            ),
        )
        add.set()
        assert await reload
    await wait_until(lambda: is_connected(hass, broker.port, "other"))
    assert is_connected(hass, broker.port)
