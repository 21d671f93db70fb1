"""The blueprints that come with the integration load, and do what they say."""

from pathlib import Path
import shutil
from typing import Any

from homeassistant.components.automation.helpers import async_get_blueprints
from homeassistant.core import HomeAssistant, ServiceCall
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import load_yaml_dict
import pytest
from pytest_homeassistant_custom_component.common import async_mock_service

from custom_components.ble_bridge.const import DOMAIN

from ..conftest import SOURCE
from .home import BALCONY, SECOND, Home, bthome

BLUEPRINTS = Path(__file__).parents[2] / "blueprints/automation/ble_bridge"
NAMES = ["battery_low", "critical_relay", "device_lost", "scanner_silent"]
LOST = {"rule_id": "lost", "name": "Lost", "kind": "lost"}
LOW = {"rule_id": "low", "name": "Low", "kind": "low_battery"}


@pytest.fixture(name="calls")
def calls_fixture(hass: HomeAssistant) -> list[ServiceCall]:
    """Return what was done."""
    calls: list[ServiceCall] = async_mock_service(hass, "test", "tell")
    return calls


def tell(text: str) -> list[dict[str, Any]]:
    """Return what an automation is to do."""
    return [{"action": "test.tell", "data": {"text": text}}]


async def automate(
    hass: HomeAssistant, directory: Path, name: str, **inputs: Any
) -> None:
    """Make an automation from a blueprint, as a user does."""
    folder = directory / "blueprints/automation/ble_bridge"
    await hass.async_add_executor_job(shutil.copytree, BLUEPRINTS, folder)
    hass.config.config_dir = str(directory)
    assert await async_setup_component(
        hass,
        "automation",
        {
            "automation": {
                "alias": name,
                "use_blueprint": {"path": f"ble_bridge/{name}.yaml", "input": inputs},
            }
        },
    )
    await hass.async_block_till_done()
    state = hass.states.get(f"automation.{name}")
    assert state
    assert state.state == "on"


def texts(calls: list[ServiceCall]) -> list[str]:
    """Return what was told."""
    return [call.data["text"] for call in calls]


def test_all_are_tested() -> None:
    """No blueprint comes without a test."""
    assert sorted(path.stem for path in BLUEPRINTS.glob("*")) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_loads(hass: HomeAssistant, tmp_path: Path, name: str) -> None:
    """Home Assistant takes it for a blueprint, from where it is published."""
    folder = tmp_path / "blueprints/automation"
    shutil.copytree(BLUEPRINTS, folder / "ble_bridge")
    hass.config.config_dir = str(tmp_path)
    blueprint = await async_get_blueprints(hass).async_get_blueprint(
        f"ble_bridge/{name}.yaml"
    )
    assert blueprint.validate() is None
    assert blueprint.domain == "automation"
    source = blueprint.metadata["source_url"]
    assert source.endswith(f"/blueprints/automation/ble_bridge/{name}.yaml")
    data = load_yaml_dict(BLUEPRINTS / f"{name}.yaml")
    manifest = (
        Path(__file__).parents[2] / "custom_components/ble_bridge/manifest.json"
    ).read_text(encoding="utf-8")
    assert source.partition("/blob/")[0] in manifest
    for spec in data["blueprint"]["input"].values():
        assert spec["name"]
        assert spec["description"]


async def test_battery_low(
    home: Home, calls: list[ServiceCall], tmp_path: Path
) -> None:
    """It tells of a battery that runs low, and of one that is changed."""
    await home.start(
        {**BALCONY, "alerts": [LOW, LOST], "timeout": 60},
        {"address": SECOND, "alias": "Cellar", "alerts": [LOW]},
    )
    await automate(
        home.hass,
        tmp_path,
        "battery_low",
        low=tell("{{ device_name }}: {{ alert_name }}"),
        changed=tell("{{ device_name }} is full"),
    )
    for battery in (90, 10, 9, 100):
        home.hear(bthome(battery=battery))
        home.hear(bthome(battery=battery), SECOND)
        await home.settle()
    await home.tick(61)  # Another kind of alert
    assert sorted(texts(calls)) == [
        "Balcony is full",
        "Balcony: Low",
        "Cellar is full",
        "Cellar: Low",
    ]


@pytest.mark.parametrize("chosen", [None, "Balcony", "Cellar"])
async def test_device_lost(
    home: Home, calls: list[ServiceCall], tmp_path: Path, chosen: str | None
) -> None:
    """It tells of the devices that it is to look after, or of all."""
    await home.start(
        {**BALCONY, "alerts": [LOST, LOW], "timeout": 60},
        {"address": SECOND, "alias": "Cellar", "alerts": [LOST], "timeout": 60},
    )
    registry = dr.async_get(home.hass)
    chosen_id = next(
        (
            device.id
            for device in dr.async_entries_for_config_entry(
                registry, home.entry.entry_id
            )
            if device.name == chosen
        ),
        None,
    )
    await automate(
        home.hass,
        tmp_path,
        "device_lost",
        lost=tell("{{ device_name }} is lost"),
        back=tell("{{ device_name }} is back"),
        **({} if chosen_id is None else {"devices": [chosen_id]}),
    )
    for address in (BALCONY["address"], SECOND):
        home.hear(bthome(battery=1), address)
    await home.settle()
    await home.tick(61)
    for address in (BALCONY["address"], SECOND):
        home.hear(bthome(battery=1), address)
    await home.settle()
    names = ["Balcony", "Cellar"] if chosen is None else [chosen]
    assert sorted(texts(calls)) == sorted(
        f"{name} is {what}" for name in names for what in ("lost", "back")
    )


@pytest.mark.parametrize("renamed", [None, "Proxy upstairs"])
async def test_scanner_silent(
    home: Home, calls: list[ServiceCall], tmp_path: Path, renamed: str | None
) -> None:
    """It tells of a scanner that falls silent, and when it hears again."""
    await home.start()
    unique_id = f"{home.entry.entry_id}_{SOURCE}_silent"
    registry = er.async_get(home.hass)
    entity_id = registry.async_get_entity_id("binary_sensor", DOMAIN, unique_id)
    assert entity_id
    entity = registry.async_get(entity_id)
    assert entity
    assert entity.device_id
    dr.async_get(home.hass).async_update_device(entity.device_id, name_by_user=renamed)
    await automate(
        home.hass,
        tmp_path,
        "scanner_silent",
        scanners=[entity_id],
        silent=tell("{{ scanner_name }} is silent"),
        back=tell("{{ scanner_name }} hears"),
    )
    for _ in range(4):
        for _ in range(30):
            home.hear()
        await home.tick(31)
    for _ in range(12):
        await home.tick(31)
    name = renamed or "Living room proxy"
    assert texts(calls) == [f"{name} is silent"]
    home.hear()
    await home.tick(31)
    assert texts(calls) == [f"{name} is silent", f"{name} hears"]
    # A restart is none of either.
    await home.restart()
    assert len(calls) == 2


async def test_nothing_to_do(
    home: Home, calls: list[ServiceCall], tmp_path: Path
) -> None:
    """What is to be done at the end may be left empty."""
    await home.start({**BALCONY, "alerts": [LOW]})
    await automate(home.hass, tmp_path, "battery_low", low=tell("low"))
    for battery in (10, 100, 10):
        home.hear(bthome(battery=battery))
        await home.settle()
    assert texts(calls) == ["low", "low"]
