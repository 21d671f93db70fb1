"""Scanners: how busy they are, and when one that was falls silent."""

from homeassistant.const import EntityCategory
from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest

from custom_components.ble_bridge.const import DOMAIN

from ..conftest import SOURCE, SimulatedScanner
from .home import Home


def value(home: Home, key: str, source: str = SOURCE) -> str:
    """Return what an entity of a scanner shows."""
    registry = er.async_get(home.hass)
    (entity,) = [
        entity
        for entity in er.async_entries_for_config_entry(registry, home.entry.entry_id)
        if entity.unique_id == f"{home.entry.entry_id}_{source}_{key}"
    ]
    assert entity.entity_category is EntityCategory.DIAGNOSTIC
    state = home.hass.states.get(entity.entity_id)
    assert state
    return state.state


async def hear(
    home: Home, scanner: SimulatedScanner, packets: int, times: int = 1
) -> None:
    """Hear so many packets in each half minute."""
    for _ in range(times):
        for _ in range(packets):
            home.hear(scanner=scanner)
        await home.tick(31)


@pytest.mark.usefixtures("all_enabled")
async def test_how_busy(home: Home, attic: SimulatedScanner) -> None:
    """Advertisements a minute, and the moment of the last one."""
    await home.start()
    await home.tick(31)
    assert value(home, "scanner_rate") in ("0", "0.0", "unknown")
    await hear(home, attic, 62)
    assert float(value(home, "scanner_rate", attic.source)) == pytest.approx(
        120, rel=0.1
    )
    assert float(value(home, "scanner_rate")) == 0
    assert value(home, "last_advertisement") == "unknown"
    assert value(home, "last_advertisement", attic.source).startswith("20")
    registry = dr.async_get(home.hass)
    (device,) = [
        device
        for device in dr.async_entries_for_config_entry(registry, home.entry.entry_id)
        if device.identifiers == {(DOMAIN, f"{home.entry.entry_id}_{attic.source}")}
    ]
    assert device.name == "Attic"
    assert device.via_device_id


async def test_silent(home: Home, attic: SimulatedScanner) -> None:
    """One that was busy and hears nothing is silent, until it does; others are not."""
    await home.start()
    await hear(home, home.scanner, 30, 4)
    await home.tick(280)
    assert value(home, "silent") == "off"
    assert home.issues() == set()
    await home.tick(31)
    assert value(home, "silent") == "on"
    assert value(home, "silent", attic.source) == "off"  # It never heard anything
    assert home.issues() == {"scanner_silent"}
    await hear(home, home.scanner, 1)
    assert value(home, "silent") == "off"
    assert home.issues() == set()


@pytest.mark.parametrize("how", ["quiet place", "offline"])
async def test_not_silent(home: Home, how: str) -> None:
    """One that seldom hears anything is not, and neither is one that is off."""
    await home.start()
    await hear(home, home.scanner, 1 if how == "quiet place" else 30, 4)
    if how == "offline":
        home.scanner.remove()
    for _ in range(20):
        await home.tick(31)
    assert value(home, "silent") == "off"
    assert home.issues() == set()


async def test_silent_goes_off(home: Home) -> None:
    """One that is silent and then gone is not asked about any more."""
    await home.start()
    await hear(home, home.scanner, 30, 4)
    for _ in range(11):
        await home.tick(31)
    assert home.issues() == {"scanner_silent"}
    home.scanner.remove()
    await home.tick(31)
    assert value(home, "silent") == "off"
    assert home.issues() == set()


@pytest.mark.parametrize("how", ["unload", "remove"])
async def test_the_bridge_goes(home: Home, how: str) -> None:
    """Nobody is asked about a scanner while there is no bridge."""
    await home.start()
    await hear(home, home.scanner, 30, 4)
    for _ in range(11):
        await home.tick(31)
    assert home.issues() == {"scanner_silent"}
    if how == "unload":
        await home.hass.config_entries.async_unload(home.entry.entry_id)
    else:
        await home.hass.config_entries.async_remove(home.entry.entry_id)
    assert home.issues() == set()
