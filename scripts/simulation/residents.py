"""What the user of the demo makes of the simulated home: names, alerts, a dashboard."""

from dataclasses import dataclass
from typing import Any, Final

from .home_assistant import HomeAssistantProcess
from .processes import SimulationError

DASHBOARD: Final = "ble-home"
# The sample key of the Core specification (vol 3, part H, appendix D.7)
PHONE_IRK: Final = "ec0234a357c8ad05341010a60a397d9b"


@dataclass(frozen=True, slots=True)
class Resident:
    """A device that the user has named; an alert is a kind and what its form asks for."""

    address: str
    name: str
    alert: tuple[str, dict[str, Any]] | None = None
    key: str | None = None


RESIDENTS: Final = (
    Resident(
        "A4:C1:38:8D:18:B2",
        "Balcony",
        (
            "above",
            {"name": "Too warm", "field": "temperature", "limit": 24.5},
        ),
    ),
    Resident("F4:1F:0C:28:CB:D6", "Sauna"),
    Resident("C6:A5:B9:E0:AD:06", "Greenhouse"),
    Resident(
        "00:00:5E:00:53:0A",
        "Freezer",
        (
            "above",
            {
                "name": "Thawing",
                "field": "temperature",
                "limit": -15,
                "hysteresis": 1,
                "audiences": ["kitchen"],
            },
        ),
    ),
    Resident(
        "00:00:5E:00:53:12",
        "Office",
        (
            "above",
            {
                "name": "Stale air",
                "field": "carbon_dioxide",
                "limit": 800,
                "hysteresis": 50,
            },
        ),
    ),
    Resident("C4:7C:8D:6A:3E:7A", "Ficus"),
    Resident("60:EF:AB:AA:BB:CC", "Hallway"),
    Resident("3C:2E:F5:AA:BB:CC", "Kitchen window"),
    Resident("BC:02:6E:AA:BB:CC", "Doorbell"),
    Resident("C4:34:30:37:4C:7A", "Washing machine"),
)


async def move_in(home_assistant: HomeAssistantProcess, entry_id: str) -> None:
    """Add the devices through the forms, as a user does, and the rest without asking."""
    for resident in RESIDENTS:
        result = await home_assistant.subentry_flow(
            entry_id,
            "device",
            {"next_step_id": "on_air"},
            {"address": resident.address},
            {"name": resident.name, "alias": resident.name},
        )
        _check(result, "create_entry", resident.name)
    await _add_phone(home_assistant, entry_id)
    subentries = await home_assistant.ws(
        "config_entries/subentries/list", entry_id=entry_id
    )
    ids = {subentry["title"]: subentry["subentry_id"] for subentry in subentries}
    for resident in RESIDENTS:
        if resident.alert is not None:
            kind, rule = resident.alert
            result = await home_assistant.change_subentry(
                entry_id,
                "device",
                ids[resident.name],
                {"next_step_id": "add_alert"},
                {"kind": kind},
                rule,
            )
            _check(result, "abort", resident.name)
    result = await home_assistant.options_flow(
        entry_id, {"next_step_id": "devices"}, {"automatic": True}
    )
    _check(result, "create_entry", "Adding devices without asking")


async def _add_phone(home_assistant: HomeAssistantProcess, entry_id: str) -> None:
    """Add a phone by its key, which perhaps nobody on air has used yet."""
    result = await home_assistant.subentry_flow(
        entry_id,
        "device",
        {"next_step_id": "irk"},
        {"name": "Anna's phone", "irk": PHONE_IRK},
        ("irk_unheard", {}),
        {"name": "Anna's phone", "alias": "Anna's phone"},
    )
    _check(result, "create_entry", "Anna's phone")


async def furnish(home_assistant: HomeAssistantProcess) -> None:
    """Make a dashboard of what is there."""
    await home_assistant.ws(
        "lovelace/dashboards/create",
        url_path=DASHBOARD,
        title="Home",
        icon="mdi:home-thermometer",
        mode="storage",
        show_in_sidebar=True,
        require_admin=False,
    )
    await home_assistant.ws(
        "lovelace/config/save", url_path=DASHBOARD, config=_dashboard()
    )


def _check(result: dict[str, Any], expected: str, what: str) -> None:
    """Raise SimulationError unless a form ended as it should."""
    if result["type"] != expected:
        raise SimulationError(f"{what} could not be set up: {result}.")


def _tile(entity: str, **more: Any) -> dict[str, Any]:
    return {"type": "tile", "entity": entity, **more}


def _trend(entity: str, name: str, color: str) -> dict[str, Any]:
    """Return a tile with the course of the last minutes."""
    return _tile(
        entity,
        name=name,
        color=color,
        features=[{"type": "trend-graph", "hours_to_show": 0.1}],
    )


def _section(title: str, icon: str, *cards: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "grid",
        "cards": [{"type": "heading", "heading": title, "icon": icon}, *cards],
    }


def _dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return {
        "views": [
            {
                "title": "Home",
                "type": "sections",
                "max_columns": 3,
                "badges": [
                    {
                        "type": "entity",
                        "entity": f"binary_sensor.{alert}",
                        "color": "red",
                        "show_name": True,
                    }
                    for alert in (
                        "freezer_thawing",
                        "office_stale_air",
                        "balcony_too_warm",
                    )
                ],
                "sections": [
                    _section(
                        "Climate",
                        "mdi:thermometer",
                        _trend("sensor.balcony_temperature", "Balcony", "orange"),
                        _trend("sensor.balcony_humidity", "Balcony", "blue"),
                        _trend("sensor.sauna_temperature", "Sauna", "red"),
                        _trend("sensor.greenhouse_humidity", "Greenhouse", "green"),
                        _trend("sensor.freezer_temperature", "Freezer", "cyan"),
                        _trend("sensor.office_temperature", "Office", "orange"),
                    ),
                    _section(
                        "Air and plants",
                        "mdi:leaf",
                        {
                            "type": "gauge",
                            "entity": "sensor.office_carbon_dioxide",
                            "name": "Office CO₂",
                            "min": 400,
                            "max": 1400,
                            "severity": {"green": 400, "yellow": 800, "red": 1000},
                            "needle": True,
                        },
                        _tile("sensor.ficus_moisture", name="Ficus moisture"),
                        _tile("sensor.ficus_conductivity", name="Ficus conductivity"),
                        _tile("sensor.greenhouse_temperature", name="Greenhouse"),
                        _tile("sensor.greenhouse_pressure", name="Pressure"),
                    ),
                    _section(
                        "Doors, presence, alerts",
                        "mdi:shield-home",
                        _tile(
                            "binary_sensor.kitchen_window_window", name="Kitchen window"
                        ),
                        _tile("binary_sensor.hallway_motion", name="Hallway"),
                        _tile("event.doorbell_button", name="Doorbell"),
                        _tile("binary_sensor.washing_machine_moisture", name="Leak"),
                        _tile(
                            "binary_sensor.anna_s_phone_presence", name="Anna's phone"
                        ),
                        _tile(
                            "sensor.anna_s_phone_nearest_scanner", name="Anna is near"
                        ),
                        _tile("binary_sensor.freezer_thawing", color="red"),
                        _tile("binary_sensor.office_stale_air", color="red"),
                        _tile("binary_sensor.balcony_too_warm", color="red"),
                        _tile("sensor.ble_bridge_devices_on_air"),
                        _tile("sensor.ble_bridge_advertisements"),
                    ),
                ],
            }
        ]
    }
