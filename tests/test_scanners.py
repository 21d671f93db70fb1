"""Scanners have IDs that stay."""

from collections.abc import Callable
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.scanners import BridgeStore, Scanners
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, SOURCE, SimulatedScanner, destination_data

SECOND = "AA:00:00:00:00:02"
THIRD = "AA:00:00:00:00:03"
KEY = "ble_bridge"

type AddScanner = Callable[..., SimulatedScanner]


async def scanners(hass: HomeAssistant, **chosen: str) -> Scanners:
    """Return the scanners as a start finds them."""
    store = BridgeStore(hass)
    await store.async_load()
    known = Scanners(hass, store, chosen, frozenset())
    known.refresh()
    return known


def ids(known: Scanners) -> dict[str, str]:
    """Return the ID of each scanner of ours: the stack has an adapter beside them."""
    return {
        source: scanner.scanner_id
        for source, scanner in known.by_source.items()
        if source.startswith("AA:")
    }


@pytest.mark.parametrize(
    ("name", "scanner_id"),
    [
        ("Living room proxy", "living-room-proxy"),
        ("Proxy (upstairs)", "proxy-upstairs"),
        ("Küche / Bad #2", "kuche-bad-2"),
        ("a+b\0c\nd", "a-b-c-d"),
        ("客厅", "ke-ting"),
        ("x" * 300, "x" * 128),
        ("", "aa-00-00-00-00-01"),
    ],
)
async def test_id_from_the_name(
    hass: HomeAssistant, add_scanner: AddScanner, name: str, scanner_id: str
) -> None:
    """It is the name as a slug, without the address; without a name the address."""
    assert SOURCE in add_scanner(SOURCE, name).name
    known = await scanners(hass)
    assert known.get(SOURCE).scanner_id == scanner_id


async def test_id_from_the_users_name(
    hass: HomeAssistant, add_scanner: AddScanner
) -> None:
    """The name that the user gave the device stands above the scanner's own."""
    add_scanner()
    entry = MockConfigEntry(domain="other")
    entry.add_to_hass(hass)
    registry = dr.async_get(hass)
    device = registry.async_get_or_create(
        config_entry_id=entry.entry_id, connections={(dr.CONNECTION_BLUETOOTH, SOURCE)}
    )
    registry.async_update_device(device.id, name_by_user="Beside the sofa")
    assert (await scanners(hass)).get(SOURCE).scanner_id == "beside-the-sofa"


async def test_same_names(hass: HomeAssistant, add_scanner: AddScanner) -> None:
    """Scanners of one name are numbered, and no ID is given twice."""
    known = await scanners(hass)
    add_scanner(SOURCE, "Proxy")
    assert [scanner.scanner_id for scanner in known.refresh()] == ["proxy"]
    add_scanner(SECOND, "Proxy")
    add_scanner(THIRD, "proxy!")
    known.refresh()
    assert sorted(ids(known).values()) == ["proxy", "proxy-2", "proxy-3"]


async def test_id_stays(
    hass: HomeAssistant, hass_storage: dict[str, Any], add_scanner: AddScanner
) -> None:
    """A restart, another name and another order of arrival change no ID."""
    store = BridgeStore(hass)
    known = Scanners(hass, store, {}, frozenset())
    first, second = add_scanner(SOURCE, "Proxy"), add_scanner(SECOND, "Proxy")
    before = {source: known.get(source).scanner_id for source in (SOURCE, SECOND)}
    await store.async_save()
    first.remove()
    second.remove()
    add_scanner(SECOND, "Proxy")
    add_scanner(SOURCE, "Renamed")
    assert ids(await scanners(hass)) == before == {SOURCE: "proxy", SECOND: "proxy-2"}


async def test_chosen_id(hass: HomeAssistant, add_scanner: AddScanner) -> None:
    """It stands above all, and one that had it by its name makes room."""
    add_scanner(SOURCE, "Proxy")
    add_scanner(SECOND, "Attic")
    before = await scanners(hass)
    await before._store.async_save()
    assert ids(before) == {SOURCE: "proxy", SECOND: "attic"}
    assert ids(await scanners(hass, **{SECOND: "proxy"})) == {
        SOURCE: "proxy-2",
        SECOND: "proxy",
    }


async def test_online(hass: HomeAssistant, add_scanner: AddScanner) -> None:
    """Those that come, go and come back are told once each time."""
    known = await scanners(hass)
    scanner = add_scanner()
    assert [(s.source, s.online) for s in known.refresh()] == [(SOURCE, True)]
    assert known.refresh() == []
    scanner.remove()
    assert [(s.source, s.online) for s in known.refresh()] == [(SOURCE, False)]
    assert known.refresh() == []
    add_scanner()
    assert [(s.source, s.online) for s in known.refresh()] == [(SOURCE, True)]


async def test_many_scanners(hass: HomeAssistant, add_scanner: AddScanner) -> None:
    """What is kept is bounded, and the newest are known."""
    store = BridgeStore(hass)
    store.data["scanners"] = {f"old {n}": f"old-{n}" for n in range(1_000)}
    known = Scanners(hass, store, {}, frozenset())
    add_scanner()
    known.get(SOURCE)
    assert len(store.data["scanners"]) == 1_000
    assert store.data["scanners"][SOURCE] == "living-room-proxy"
    assert "old 0" not in store.data["scanners"]


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        "text",
        7,
        {},
        {"scanners": {}},
        {"scanners": [], "retained": []},
        {"scanners": {SOURCE: None}, "retained": {}},
        {"scanners": {SOURCE: ["a"]}, "retained": {}},
        {"scanners": {}, "retained": {"x": "topic"}},
        {"scanners": {}, "retained": {"x": [None]}},
        {"scanners": {}, "retained": {"x": {"topic": 1}}},
        {"scanners": {}, "retained": {"x": ["ble/scanner/y/status"]}},
    ],
)
async def test_odd_store(
    hass: HomeAssistant,
    hass_storage: dict[str, Any],
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    stored: Any,
) -> None:
    """Whatever is found on disk, the bridge starts, and publishes."""
    hass_storage[KEY] = {"version": 1, "minor_version": 1, "key": KEY, "data": stored}
    entry = await setup(destination_data(broker.port))
    scanner.hear()
    await subscriber.wait_for_message(f"ble/raw/living-room-proxy/{ADDRESS}")
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert entry.state is ConfigEntryState.NOT_LOADED
    assert hass_storage[KEY]["data"]["scanners"][SOURCE] == "living-room-proxy"
