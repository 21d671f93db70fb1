"""The options: what goes out, and under which names."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from homeassistant.config_entries import ConfigEntry, ConfigEntryState, ConfigSubentry
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest

from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    ADDRESS,
    SOURCE,
    SimulatedScanner,
    bridge_entry,
    destination_data,
    is_connected,
    wait_until,
)

OTHER = "C0:00:00:00:00:02"
LAST = "C0:00:00:00:00:03"
TOPIC = "ble/raw/living-room-proxy/"
FORMAT = """
[[format]]
name = "mine"
model = "Mine"
match = { company_id = 0xFFFE, length = 8 }
[format.fields]
temperature = { at = 0, type = "i16" }
"""


async def choose(hass: HomeAssistant, entry: ConfigEntry[Any], step: str) -> Any:
    """Open the options and choose from the menu."""
    result = await hass.config_entries.options.async_init(entry.entry_id)
    assert result["type"] is FlowResultType.MENU
    alerts = ["change_alert", "remove_alerts"] if entry.options.get("alerts") else []
    menu = ["filters", "scanner", "devices", "add_alert", *alerts, "formats"]
    assert result["menu_options"] == menu
    return await submit(hass, result, {"next_step_id": step})


async def submit(hass: HomeAssistant, result: Any, form: dict[str, Any]) -> Any:
    """Submit a form."""
    result = await hass.config_entries.options.async_configure(result["flow_id"], form)
    await hass.async_block_till_done()
    return result


async def choose_filters(
    hass: HomeAssistant, entry: ConfigEntry[Any], **filters: Any
) -> None:
    """Set filters that are accepted, and wait until the bridge is back."""
    result = await choose(hass, entry, "filters")
    assert result["step_id"] == "filters"
    result = await submit(hass, result, {"allow": {}, "deny": {}, **filters})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    (subentry,) = entry.subentries.values()
    await wait_until(lambda: is_connected(hass, subentry.data["port"]))


def suggested(result: Any) -> dict[str, Any]:
    """Return what a form shows, without its sections."""
    return {
        str(key): key.description["suggested_value"]
        for key in result["data_schema"].schema
        if key.description and "suggested_value" in key.description
    }


def offered(result: Any, field: str) -> dict[str, str]:
    """Return what a form offers to choose from, with its labels."""
    (selector,) = (
        selector
        for key, selector in result["data_schema"].schema.items()
        if key == field
    )
    return {option["value"]: option["label"] for option in selector.config["options"]}


async def test_filters(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """What the lists say goes out, and nothing else."""
    entry = await setup(destination_data(broker.port))
    await choose_filters(
        hass,
        entry,
        allow={"company_ids": ["0xFFFE"], "names": ["Thermo*"]},
        deny={"addresses": [f" {ADDRESS.lower()} ", ""], "service_uuids": ["fcd2"]},
    )
    assert entry.options == {
        "excluded_scanners": [],
        "allow": {
            "addresses": [],
            "names": ["Thermo*"],
            "company_ids": ["0xFFFE"],
            "service_uuids": [],
        },
        "deny": {
            "addresses": [ADDRESS.lower()],
            "names": [],
            "company_ids": [],
            "service_uuids": ["fcd2"],
        },
    }
    scanner.hear(ADDRESS)
    scanner.hear(LAST, raw=bytes.fromhex("0201060cff34120102030405060708ff"))
    scanner.hear(OTHER)
    await subscriber.wait_for_message(TOPIC + OTHER)
    assert subscriber.count("ble/raw/") == 1


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("addresses", "A4:C1:38:AA:BB"),
        ("names", "n" * 249),
        ("company_ids", "0x10000"),
        ("company_ids", "Apple"),
        ("service_uuids", "fcd"),
    ],
)
@pytest.mark.parametrize("listed", ["allow", "deny"])
async def test_filters_unreadable(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    listed: str,
    field: str,
    line: str,
) -> None:
    """A line that cannot be read is named, and the form takes a right one."""
    entry = await setup(destination_data(broker.port))
    result = await choose(hass, entry, "filters")
    form: dict[str, Any] = {"allow": {}, "deny": {}}
    form[listed] = {field: ["fcd2" if field == "service_uuids" else line, line]}
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"base": f"invalid_{field}"}
    assert result["description_placeholders"]["value"] == line
    form[listed] = {}
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_minimum_rssi(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """A minimum signal strength is set, shown, and cleared."""
    entry = await setup(destination_data(broker.port))
    await choose_filters(hass, entry, minimum_rssi=-70)
    assert entry.options["minimum_rssi"] == -70
    scanner.hear(ADDRESS, rssi=-71)
    scanner.hear(OTHER, rssi=-70)
    await subscriber.wait_for_message(TOPIC + OTHER)
    assert not subscriber.on_topic(TOPIC + ADDRESS)
    assert suggested(await choose(hass, entry, "filters"))["minimum_rssi"] == -70
    await choose_filters(hass, entry)
    assert "minimum_rssi" not in entry.options
    scanner.hear(ADDRESS, rssi=-90)
    await subscriber.wait_for_message(TOPIC + ADDRESS)


async def test_excluded_scanner(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Callable[..., Any],
) -> None:
    """What a scanner that is left out hears does not go out."""
    kitchen = add_scanner("AA:00:00:00:00:02", "kitchen")
    entry = await setup(destination_data(broker.port))
    result = await choose(hass, entry, "filters")
    choice = offered(result, "excluded_scanners")
    assert choice[SOURCE] == "Living room proxy (living-room-proxy)"
    assert choice[kitchen.source] == "kitchen"
    await choose_filters(hass, entry, excluded_scanners=[SOURCE])
    scanner.hear(ADDRESS)
    kitchen.hear(OTHER)
    await subscriber.wait_for_message(f"ble/raw/kitchen/{OTHER}")
    assert subscriber.count("ble/raw/") == 1


async def test_excluded_scanner_long_gone(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A scanner that was left out and is forgotten since can be left out further on."""
    options = {"excluded_scanners": [SOURCE]}
    entry = await setup(destination_data(broker.port), options=options)
    await choose_filters(hass, entry, excluded_scanners=[SOURCE], minimum_rssi=-80)
    assert entry.options["excluded_scanners"] == [SOURCE]


async def test_scanner_id(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Callable[..., Any],
) -> None:
    """A scanner gets another ID: its topics change, and the old one is cleared."""
    add_scanner("AA:00:00:00:00:02", "Kitchen")
    entry = await setup(destination_data(broker.port))
    result = await choose(hass, entry, "scanner")
    assert result["step_id"] == "scanner"
    for scanner_id, error in (
        ("living/room", "invalid_scanner_id"),
        ("$room", "invalid_scanner_id"),
        (" ", "invalid_scanner_id"),
        ("r" * 129, "invalid_scanner_id"),
        ("kitchen", "scanner_id_taken"),
    ):
        form = {"scanner": SOURCE, "scanner_id": scanner_id}
        result = await submit(hass, result, form)
        assert result["type"] is FlowResultType.FORM
        assert result["errors"] == {"scanner_id": error}
    result = await submit(hass, result, {"scanner": SOURCE, "scanner_id": " attic "})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options == {"scanner_ids": {SOURCE: "attic"}}
    await wait_until(lambda: is_connected(hass, broker.port))
    scanner.hear()
    await subscriber.wait_for_message(f"ble/raw/attic/{ADDRESS}")
    async with Subscriber(broker.port, "ble/scanner/#") as late:
        await late.wait_for_message("ble/scanner/attic/status")
        await late.wait_for_message("ble/scanner/kitchen/status")
        assert not late.on_topic("ble/scanner/living-room-proxy/status")
    result = await choose(hass, entry, "scanner")
    assert offered(result, "scanner")[SOURCE] == "Living room proxy (attic)"


async def test_scanner_id_leaves_the_filters(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """Neither form of the options undoes what the other one set."""
    entry = await setup(destination_data(broker.port))
    await choose_filters(hass, entry, minimum_rssi=-70)
    result = await choose(hass, entry, "scanner")
    await submit(hass, result, {"scanner": SOURCE, "scanner_id": "attic"})
    assert entry.options["minimum_rssi"] == -70
    await choose_filters(hass, entry, minimum_rssi=-60)
    assert entry.options["scanner_ids"] == {SOURCE: "attic"}


@pytest.mark.usefixtures("enable_bluetooth")
async def test_no_scanners(hass: HomeAssistant) -> None:
    """Where no scanner was ever heard of there is nothing to name."""
    entry = bridge_entry(destination_data(1883))
    entry.add_to_hass(hass)
    result = await choose(hass, entry, "scanner")
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "no_scanners"


async def test_not_loaded(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """The options can be changed while the bridge does not run."""
    entry = await setup(destination_data(broker.port))
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert entry.state is ConfigEntryState.NOT_LOADED
    result = await choose(hass, entry, "filters")
    assert (
        offered(result, "excluded_scanners")[SOURCE]
        == "Living room proxy (living-room-proxy)"
    )
    result = await submit(hass, result, {"minimum_rssi": -70, "allow": {}, "deny": {}})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    result = await choose(hass, entry, "scanner")
    result = await submit(hass, result, {"scanner": SOURCE, "scanner_id": "attic"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options["minimum_rssi"] == -70
    assert entry.options["scanner_ids"] == {SOURCE: "attic"}


async def test_automatic(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
) -> None:
    """Devices can be added without asking, and then no longer."""
    entry = await setup(destination_data(broker.port))
    for automatic in (True, False):
        result = await choose(hass, entry, "devices")
        assert suggested(result).get("automatic", False) is not automatic
        result = await submit(hass, result, {"automatic": automatic})
        assert result["type"] is FlowResultType.CREATE_ENTRY
        assert entry.options == {"automatic": automatic}
        await wait_until(lambda: is_connected(hass, broker.port))


async def test_alert_for_all(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """An alert for all devices is added and removed; other options stay."""
    entry = await setup(destination_data(broker.port), options={"minimum_rssi": -80})
    result = await choose(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "low_battery"})
    assert result["step_id"] == "alert"
    result = await submit(hass, result, {"name": "Battery/low", "limit": 15})
    assert result["errors"] == {"name": "invalid_alert_name"}
    form = {"name": " Battery low ", "limit": 15, "audiences": [" family ", ""]}
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    (rule,) = entry.options["alerts"]
    assert rule["name"] == "Battery low"
    assert rule["kind"] == "low_battery"
    assert rule["limit"] == 15
    assert rule["hysteresis"] == 5
    assert rule["audiences"] == ["family"]
    assert entry.options["minimum_rssi"] == -80

    result = await choose(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "lost"})
    result = await submit(hass, result, {"name": "Battery_low"})
    assert result["errors"] == {"name": "alert_name_taken"}
    result = await submit(hass, result, {"name": "Lost", "duration": 60})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert [rule["name"] for rule in entry.options["alerts"]] == ["Battery low", "Lost"]

    result = await choose(hass, entry, "change_alert")
    (_, lost) = entry.options["alerts"]
    result = await submit(hass, result, {"rule": lost["rule_id"]})
    result = await submit(hass, result, {"name": "Lost", "duration": 60})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options["alerts"][1] == {**lost, "duration": 60}
    result = await choose(hass, entry, "remove_alerts")
    labels = offered(result, "rules")
    assert list(labels.values()) == ["Battery low", "Lost"]
    result = await submit(hass, result, {"rules": [rule["rule_id"]]})
    assert [rule["name"] for rule in entry.options["alerts"]] == ["Lost"]
    result = await choose(hass, entry, "remove_alerts")
    result = await submit(hass, result, {"rules": [*offered(result, "rules")]})
    assert entry.options == {"minimum_rssi": -80}
    await wait_until(lambda: is_connected(hass, broker.port))


async def test_alert_named_as_that_of_a_device(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """What a device's own alert is called, one for all cannot be."""
    entry = await setup(destination_data(broker.port))
    rule = {"rule_id": "1", "name": "Too cold", "kind": "lost"}
    hass.config_entries.async_add_subentry(
        entry,
        ConfigSubentry(
            data=MappingProxyType({"address": ADDRESS, "alerts": [rule]}),
            subentry_type="device",
            title="Cellar",
            unique_id=ADDRESS,
        ),
    )
    await hass.async_block_till_done()
    result = await choose(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "lost"})
    result = await submit(hass, result, {"name": "Too cold"})
    assert result["errors"] == {"name": "alert_name_taken"}
    result = await submit(hass, result, {"name": "Gone"})
    assert result["type"] is FlowResultType.CREATE_ENTRY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("format = [", "this is not TOML"),
        (FORMAT + FORMAT, "mine: give each format a name of its own"),
        (FORMAT.replace("i16", "i17"), "type"),
    ],
)
async def test_formats(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    text: str,
    problem: str,
) -> None:
    """Formats of one's own are checked, stored, shown, and cleared."""
    entry = await setup(destination_data(broker.port))
    result = await choose(hass, entry, "formats")
    result = await submit(hass, result, {"formats": text})
    assert result["errors"] == {"formats": "invalid_formats"}
    assert problem in result["description_placeholders"]["problem"]
    assert suggested(result) == {"formats": text}
    result = await submit(hass, result, {"formats": FORMAT})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options == {"formats": FORMAT.strip()}
    result = await choose(hass, entry, "formats")
    assert suggested(result) == {"formats": FORMAT.strip()}
    result = await submit(hass, result, {})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options == {}
    await wait_until(lambda: is_connected(hass, broker.port))


async def test_alert_while_not_loaded(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """An alert can be added while the bridge does not run, its value typed."""
    entry = await setup(destination_data(broker.port))
    assert await hass.config_entries.async_unload(entry.entry_id)
    result = await choose(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "above"})
    form = {"name": "Hot", "field": "Temperatur°", "limit": 30}
    result = await submit(hass, result, form)
    assert result["errors"] == {"field": "invalid_field"}
    form["field"] = " Battery voltage "
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options["alerts"][0]["field"] == "battery_voltage"
