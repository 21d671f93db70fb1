"""Monitors that come, change and go, in any order, while devices go on talking."""

import asyncio
from itertools import count

import pytest

from ..conftest import wait_until
from .garage import DEVICE, Garage, status, telemetry


async def talk(garage: Garage) -> None:
    """Have ever more devices say something, until cancelled."""
    for number in count():
        name = f"device{number}"
        await garage.say(f"autocore/{name}/status", status(name))
        await garage.say(f"autocore/{name}/telemetry", telemetry(name))
        await asyncio.sleep(0.01)


async def test_reload_while_they_talk(
    garage: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    """Devices that are first heard while the bridge is reloaded are there afterwards."""
    await garage.start({"max_devices": 10_000})
    talking = asyncio.create_task(talk(garage))
    for _ in range(5):
        known = len(garage.monitor.devices)
        await wait_until(lambda: len(garage.monitor.devices) > known + 5)  # noqa: B023
        await garage.restart()
        await garage.connected()
    talking.cancel()
    await wait_until(lambda: not garage.monitor.queued)
    await garage.hass.async_block_till_done()
    assert "already exists" not in caplog.text
    assert "Traceback" not in caplog.text
    assert len(garage.monitor.devices) > 25
    for name in garage.monitor.devices:
        assert garage.value("seen", name) not in (None, "unavailable")


async def test_unload_under_a_flood(garage: Garage) -> None:
    """A bridge is unloaded however much its devices have to say."""
    await garage.start()

    async def flood() -> None:
        while True:
            for _ in range(50):
                await garage.say(f"autocore/{DEVICE}/telemetry", telemetry())
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood())
    monitor = garage.monitor
    await wait_until(lambda: monitor.processed)
    await garage.restart()
    assert not monitor.queued
    await garage.connected()
    await wait_until(lambda: garage.monitor.processed)
    flooding.cancel()
    assert garage.value("field!temperature") == "25.6"
