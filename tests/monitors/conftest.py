"""What the tests of monitors share."""

from collections.abc import AsyncIterator

from homeassistant.core import HomeAssistant
import pytest

from scripts.simulation.broker import Mosquitto

from .garage import Clock, Garage


@pytest.fixture(name="garage")
async def garage_fixture(
    hass: HomeAssistant, enable_bluetooth: None, broker: Mosquitto
) -> AsyncIterator[Garage]:
    """Return a garage whose bridge is not set up yet."""
    garage = Garage(hass, broker)
    yield garage
    await garage.close()


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which monitors go."""
    clock = Clock()
    for module in ("monitor", "monitors"):
        monkeypatch.setattr(
            f"custom_components.ble_bridge.monitors.{module}.time", clock
        )
    return clock
