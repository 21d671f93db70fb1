"""The blueprint that tells of critical relays, with relays that are switched."""

from pathlib import Path
from typing import Any

from homeassistant.helpers import device_registry as dr
import pytest
from pytest_homeassistant_custom_component.common import async_mock_service

from ..devices.test_blueprints import automate, tell, texts
from .garage import Garage, relay

TEXT = "{{ device_name }} {{ relay }} {{ state }} ({{ triggered_by }})"


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (
            {},
            [
                "Pump 0 off (schedule)",
                "Pump 0 on (manual)",
                "gate 0 off (schedule)",
                "gate 0 on ()",
            ],
        ),
        ({"states": ["on"]}, ["Pump 0 on (manual)", "gate 0 on ()"]),
        ({"devices": ["pump"]}, ["Pump 0 off (schedule)", "Pump 0 on (manual)"]),
        ({"devices": ["gate"], "states": ["off"]}, ["gate 0 off (schedule)"]),
        ({"devices": ["gate"], "states": []}, []),
    ],
)
async def test_critical_relay(
    garage: Garage, tmp_path: Path, inputs: dict[str, Any], told: list[str]
) -> None:
    """It tells of the devices and the states that it is to, by the names of the user."""
    calls = async_mock_service(garage.hass, "test", "tell")
    await garage.start({"critical_relays": ["pump/0", "gate/*"]})
    for device in ("pump", "gate"):
        for index in (0, 1):
            await garage.tell(f"{device}/relay/{index}/status", relay(index, device))
    ids = {
        name: found.id
        for name in ("pump", "gate")
        if (found := garage.device(name)) is not None
    }
    dr.async_get(garage.hass).async_update_device(ids["pump"], name_by_user="Pump")
    if "devices" in inputs:
        inputs = {**inputs, "devices": [ids[name] for name in inputs["devices"]]}
    await automate(
        garage.hass, tmp_path, "critical_relay", changed=tell(TEXT), **inputs
    )
    for device, index in (("pump", 0), ("pump", 1), ("gate", 0)):
        off = relay(index, device, state=False, triggered_by="schedule")
        on = relay(index, device)
        if device == "gate":
            del on["triggered_by"]
        for said in (off, off, on):
            await garage.tell(f"{device}/relay/{index}/status", said)
    await garage.hass.async_block_till_done()
    assert sorted(texts(calls)) == told
