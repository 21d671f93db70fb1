"""What the tests of destinations share."""

import logging

from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.destinations import destination

from .faults import Diagnose, diagnose_with


@pytest.fixture(name="diagnose")
def diagnose_fixture(
    hass: HomeAssistant, hass_client: ClientSessionGenerator
) -> Diagnose:
    """Return what downloads the diagnostics."""
    return diagnose_with(hass, hass_client)


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Capture what is logged by us; the stack's line per packet costs more than all."""
    caplog.set_level(logging.DEBUG, "custom_components.ble_bridge")
    caplog.set_level(logging.INFO, "homeassistant.components.bluetooth")


@pytest.fixture(name="quick")
def quick_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(destination, "FIRST_DELAY", 0.1)
