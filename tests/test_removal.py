"""What a user removes where Home Assistant lists devices."""

from collections.abc import Callable
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.typing import WebSocketGenerator

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, SOURCE, SimulatedScanner, destination_data, wait_until

STATUS = "ble/scanner/living-room-proxy/status"


async def remove(client: Any, device: dr.DeviceEntry | None) -> bool:
    """Remove a device as the frontend does; tell whether that was taken."""
    assert device is not None
    await client.send_json_auto_id(
        {"type": "config/device_registry/remove", "device_id": device.id}
    )
    answer = await client.receive_json()
    return bool(answer["success"])


async def test_removed(
    hass: HomeAssistant,
    hass_ws_client: WebSocketGenerator,
    scanner: SimulatedScanner,
    broker: Mosquitto,
    setup: Callable[..., Any],
) -> None:
    """Devices go with their subentries, scanners once they are gone, the rest stays."""
    assert await async_setup_component(hass, "config", {})
    device = {"address": "A4:C1:38:AA:BB:CC", "alias": "Balcony"}
    entry = await setup(destination_data(broker.port), devices=[device])
    registry = dr.async_get(hass)

    def found(owner: str) -> dr.DeviceEntry | None:
        return registry.async_get_device_by_identifier((DOMAIN, owner), entry.entry_id)

    client = await hass_ws_client(hass)
    destination_id, device_id = entry.subentries
    scanner_owner = f"{entry.entry_id}_{SOURCE}"
    for owner in (entry.entry_id, destination_id, scanner_owner):
        assert not await remove(client, found(owner))
        assert found(owner)
    assert await remove(client, found(device_id))
    await hass.async_block_till_done()
    assert list(entry.subentries) == [destination_id]
    assert found(device_id) is None

    bridge = entry.runtime_data
    scanner.hear()
    assert bridge.scanners.by_source[SOURCE].received == 1
    scanner.remove()
    bridge.scanners.refresh()
    async with Subscriber(broker.port, STATUS) as subscriber:
        await subscriber.wait_for(lambda s: s.count() > 0)
        assert await remove(client, found(scanner_owner))
        await subscriber.wait_for_message(STATUS, b"")
    assert found(scanner_owner) is None
    assert SOURCE not in bridge.scanners.by_source
    assert not any(
        SOURCE in advertiser.sightings
        for advertiser in bridge.feed.advertisers.values()
    )


async def test_scanner_comes_back(
    hass: HomeAssistant,
    hass_ws_client: WebSocketGenerator,
    add_scanner: Callable[..., SimulatedScanner],
    broker: Mosquitto,
    setup: Callable[..., Any],
) -> None:
    """A scanner that was removed is a new one when it is back."""
    assert await async_setup_component(hass, "config", {})
    proxy = add_scanner()
    entry = await setup(destination_data(broker.port))
    proxy.hear()
    proxy.remove()
    bridge = entry.runtime_data
    bridge.scanners.refresh()
    registry = dr.async_get(hass)
    owner = (DOMAIN, f"{entry.entry_id}_{SOURCE}")
    device = registry.async_get_device_by_identifier(owner, entry.entry_id)
    assert await remove(await hass_ws_client(hass), device)
    back = add_scanner()
    back.hear()
    assert bridge.scanners.by_source[SOURCE].received == 1
    sighting = bridge.feed.advertisers[ADDRESS].sightings[SOURCE]
    assert sighting.scanner is bridge.scanners.by_source[SOURCE]
    bridge._notify()
    await hass.async_block_till_done()
    await wait_until(
        lambda: registry.async_get_device_by_identifier(owner, entry.entry_id)
    )
