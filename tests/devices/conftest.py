"""A home with devices of the user's."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
import pytest

from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from ..conftest import SimulatedScanner
from ..test_bridge import keep_end
from .home import Clock, Home


@pytest.fixture(name="home")
async def home_fixture(
    hass: HomeAssistant,
    hass_storage: dict[str, Any],
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> AsyncIterator[Home]:
    """Return a home whose clock can be moved, and whose states are written at once.

    Home Assistant's own integrations would begin a discovery for each device.
    """
    clock = Clock()
    package = "custom_components.ble_bridge"
    await keep_end(broker)
    with (
        patch(f"{package}.device.time", clock),
        patch(f"{package}.devices.time", clock),
        patch(f"{package}.bridge.time", clock),
        patch(f"{package}.devices.STATE_INTERVAL", 0),
        patch("homeassistant.helpers.discovery_flow.async_create_flow"),
    ):
        yield Home(hass, broker, subscriber, scanner, setup, clock)


@pytest.fixture(name="attic")
async def attic_fixture(
    add_scanner: Callable[..., SimulatedScanner],
) -> SimulatedScanner:
    """Return a second scanner."""
    return add_scanner("AA:00:00:00:00:02", "Attic")


@pytest.fixture(name="cellar")
async def cellar_fixture(
    add_scanner: Callable[..., SimulatedScanner],
) -> SimulatedScanner:
    """Return a third scanner."""
    return add_scanner("AA:00:00:00:00:03", "Cellar")


@pytest.fixture(name="all_enabled")
def all_enabled_fixture() -> Iterator[None]:
    """Have the entities that are off by default, too."""
    with patch(
        "homeassistant.helpers.entity.Entity.entity_registry_enabled_default", True
    ):
        yield
