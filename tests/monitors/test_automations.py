"""The automations that docs/monitors.md shows work as they stand there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from homeassistant.const import STATE_ON
from homeassistant.core import ServiceCall
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import parse_yaml
import pytest
from pytest_homeassistant_custom_component.common import async_mock_service

from .garage import DEVICE, Garage, moment, relay, status, telemetry
from .pages import blocks, part

AUTOMATIONS: list[dict[str, Any]] = [
    cast(dict[str, Any], parse_yaml(block))
    for block in blocks(part("Automations"), "yaml")
]


async def _offline(garage: Garage) -> None:
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/status", {"status": "offline"})
    await garage.tick(590)
    await garage.tick(610)


async def _hot(garage: Garage) -> None:
    for temperature in (20, 61.5, 62):
        await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=temperature))


async def _weak(garage: Garage) -> None:
    await garage.tell(f"{DEVICE}/telemetry", telemetry(voltage=3.28))
    entity_id = garage.entity_id("average!voltage")
    assert entity_id is not None
    registry = er.async_get(garage.hass)
    registry.async_update_entity(entity_id, disabled_by=None)
    await garage.restart()
    await garage.connected()
    for voltage in (3.3, 2.8, 2.8, 2.6, 2.6):
        await garage.tell(f"{DEVICE}/telemetry", telemetry(voltage=voltage))


async def _switched(garage: Garage) -> None:
    for state in (True, False, False):
        said = relay(state=state, triggered_by="schedule")
        await garage.tell(f"{DEVICE}/relay/0/status", said)


async def _tapped(garage: Garage) -> None:
    for action in ("tap", "swipe", "tap"):
        said = {"action": action, "screen": "home", "timestamp": moment()}
        await garage.tell(f"{DEVICE}/display/interaction", said)
    await garage.restart()


async def _said(garage: Garage) -> None:
    for kind in ("info", "error"):
        said = {"message": "Overheated", "timestamp": moment()}
        await garage.tell(f"{DEVICE}/system/{kind}", said)
    await garage.restart()


async def _unusual(garage: Garage) -> None:
    for temperature in (*[25.5] * 10, 90, 25.5):
        said = telemetry(temperature=temperature)
        await garage.tell(f"{DEVICE}/telemetry", said)


async def _not_understood(garage: Garage) -> None:
    await garage.tick(31)
    for count in (9, 10):
        for _ in range(count):
            await garage.tell(f"{DEVICE}/telemetry", b"nonsense")
        await garage.tick(31)


async def _bridge_offline(garage: Garage) -> None:
    for word, state in ((b"online", "on"), (b"offline", "off")):
        await garage.say("ble/bridge/cabin/status", word, retain=True)
        async with asyncio.timeout(10):
            while garage.value("online", "Bridge cabin") != state:
                await asyncio.sleep(0.01)
    await garage.tick(290)
    await garage.tick(310)


HINT = "see the diagnostics of BLE Bridge."
STORIES: dict[str, tuple[Callable[[Garage], Awaitable[None]], list[str]]] = {
    "Controller offline": (_offline, ["ESP32_001 has been offline for ten minutes."]),
    "Controller hot": (_hot, ["ESP32_001 has 61.5 °C."]),
    "Supply weak": (_weak, ["ESP32_001 has 2.97 V on average."]),
    "Critical relay": (_switched, ["Relay 0 of ESP32_001 is off (schedule)."]),
    "Display tapped": (_tapped, ["Somebody tapped on home."] * 2),
    "Controller error": (_said, ["ESP32_001: Overheated"]),
    "Unusual value": (_unusual, ["ESP32_001: temperature anomaly"]),
    "Dead letters": (
        _not_understood,
        [f"The garage sends what nobody understands: {HINT}"],
    ),
    "Cabin offline": (_bridge_offline, ["The bridge at the cabin is offline."]),
}


@pytest.mark.parametrize(
    "automation", AUTOMATIONS, ids=[found["alias"] for found in AUTOMATIONS]
)
async def test_automation(garage: Garage, automation: dict[str, Any]) -> None:
    """Each automation of the page works as it stands there."""
    hass = garage.hass
    calls: list[ServiceCall] = async_mock_service(hass, "notify", "notify")
    assert await async_setup_component(hass, "automation", {"automation": [automation]})
    await hass.async_block_till_done()
    (entity_id,) = hass.states.async_entity_ids("automation")
    state = hass.states.get(entity_id)
    assert state is not None
    assert state.state == STATE_ON
    how: dict[str, Any] = {"critical_relays": ["*/0"], "anomalies": True, "average": 3}
    if automation["alias"] == "Cabin offline":
        how |= {"preset": "ble_bridge", "topic_base": "ble"}
    await garage.start(how)
    tell, told = STORIES[automation["alias"]]
    await tell(garage)
    await hass.async_block_till_done()
    assert [call.data["message"] for call in calls] == told


def test_all_are_told() -> None:
    """There is an automation for each story, and no other."""
    assert [found["alias"] for found in AUTOMATIONS] == list(STORIES)
