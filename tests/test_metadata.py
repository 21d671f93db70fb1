"""What Home Assistant and HACS read about the integration: complete, and nothing more."""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
import json
from pathlib import Path
import re
import string
import struct
from typing import Any

from homeassistant.components.mqtt.const import DOMAIN as MQTT_DOMAIN
from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import section
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity import EntityDescription
from homeassistant.helpers.selector import SelectSelector
from homeassistant.loader import async_get_integration
from homeassistant.util.yaml import load_yaml_dict
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import voluptuous as vol

from custom_components.ble_bridge import (
    actions as actions_module,
    binary_sensor,
    event,
    fix_flows,
    sensor,
)
from custom_components.ble_bridge.alerts import RuleKind
from custom_components.ble_bridge.certificates import Fault
from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.decoders.fields import FIELDS, Field, Kind
from custom_components.ble_bridge.decoders.sources import LIBRARIES
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.parcels import Outcome
from custom_components.ble_bridge.kinds import KINDS, KindName
from custom_components.ble_bridge.kinds.nats.form import CREDENTIAL_FIELDS
from custom_components.ble_bridge.monitors import (
    binary_sensor as monitor_binary_sensor,
    sensor as monitor_sensor,
)
from custom_components.ble_bridge.monitors.event import OTHER
from custom_components.ble_bridge.monitors.messages import Reason
from custom_components.ble_bridge.system_health import system_health_info
from scripts.simulation.broker import Mosquitto

from .conftest import SimulatedScanner, destination_data
from .monitor_forms import PRESETS, begin, form, heard, publish, submit
from .monitors.garage import DEVICE, Garage, moment, relay, status, telemetry

REPOSITORY = Path(__file__).parent.parent
INTEGRATION = REPOSITORY / "custom_components" / DOMAIN
# Those that can never meet a form, as they come later than the connection, have a text
# all the same: the day they do, the user shall not see a key.
PROBLEMS = set(Problem)

BRONZE = """action-setup appropriate-polling brands common-modules config-flow
config-flow-test-coverage dependency-transparency docs-actions docs-conditions
docs-high-level-description docs-installation-instructions docs-removal-instructions
docs-triggers entity-event-setup entity-unique-id has-entity-name runtime-data
test-before-configure test-before-setup unique-config-entry"""
SILVER = """action-exceptions config-entry-unloading docs-configuration-parameters
docs-installation-parameters entity-unavailable integration-owner log-when-unavailable
parallel-updates reauthentication-flow test-coverage"""
GOLD = """devices diagnostics discovery discovery-update-info docs-data-update docs-examples
docs-known-limitations docs-supported-devices docs-supported-functions
docs-troubleshooting docs-use-cases dynamic-devices entity-category entity-device-class
entity-disabled-by-default entity-translations exception-translations icon-translations
reconfiguration-flow repair-issues stale-devices"""
PLATINUM = "async-dependency inject-websession strict-typing"


def read(name: str) -> Any:
    """Return what is in a JSON file of the integration."""
    return json.loads((INTEGRATION / name).read_text(encoding="utf-8"))


TEXTS = read("translations/en.json")
# What can be chosen with a text, in which forms.
OF_KINDS = {
    KindName.MQTT: {
        *("broker", "ca", "transport", "qos", "protocol", "delivery", "policy"),
    },
    KindName.NATS: {
        *("authentication", "ca", "payload", "policy", "retention", "storage"),
        "stored",
    },
    KindName.INFLUXDB: {"api", "signals", "ca", "policy"},
}
OF_DESTINATIONS: set[str] = set().union(*OF_KINDS.values())
OF_ALERTS = {"alert_kind"}
OF_MONITORS = {"qos"}
OF_ACTIONS = {"dead_letter_reason"}
PLACEHOLDERS = {
    *("address", "base", "date", "destination", "device", "devices", "field", "found"),
    *("index", "limit", "list", "measurement", "messages", "monitor", "ours"),
    *("problem", "rejected", "scanner", "theirs"),
    *("shown", "url", "value", "waiting"),
}


def texts(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Return every text of the translations with its path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from texts(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}".removeprefix("."), value


# What a monitor's form listens with.
LISTENING_MODULES = (
    *("destinations/mqtt_connection.py", "destinations/tls.py"),
    *("kinds/mqtt/settings.py", "monitors/listen.py"),
)
# Where the forms of destinations are read.
FORM_MODULES = tuple(
    str(path.relative_to(INTEGRATION)) for path in (INTEGRATION / "kinds").rglob("*.py")
)


def strings(*names: str) -> set[str]:
    """Return every string that stands in the code of some modules."""
    return {
        node.value
        for name in names
        for node in ast.walk(ast.parse((INTEGRATION / name).read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def check_form(result: Any, step: Mapping[str, Any]) -> dict[str, SelectSelector]:
    """Check that a step tells of each field and of no other; return what is chosen from."""
    return check_forms([result], step)


def check_forms(
    results: Iterable[Any], step: Mapping[str, Any]
) -> dict[str, SelectSelector]:
    """Check a step of which the form has other fields from time to time."""
    fields = {
        str(key): value
        for result in results
        for key, value in result["data_schema"].schema.items()
    }
    inner = {
        key: fields.pop(key) for key in [*fields] if isinstance(fields[key], section)
    }
    chosen = {
        key: field for key, field in fields.items() if isinstance(field, SelectSelector)
    }
    assert set(step.get("data", {})) == set(fields)
    assert set(step.get("data_description", {})) == set(fields)
    assert set(step.get("sections", {})) == set(inner)
    for name, part in inner.items():
        told = step["sections"][name]
        assert set(told) == {"name", "description", "data", "data_description"}
        within = {str(key): value for key, value in part.schema.schema.items()}
        assert set(told["data"]) == set(told["data_description"]) == set(within)
        chosen |= {
            f"{name}.{key}": field
            for key, field in within.items()
            if isinstance(field, SelectSelector)
        }
    return chosen


@pytest.fixture(name="entry")
async def entry_fixture(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Callable[..., Any]
) -> ConfigEntry[Any]:
    """Return a bridge, beside an MQTT integration, so that each field is there."""
    data = {"broker": "127.0.0.1", "port": 1}
    MockConfigEntry(domain=MQTT_DOMAIN, data=data).add_to_hass(hass)
    entry: ConfigEntry[Any] = await setup(destination_data(1), connected=False)
    return entry


async def test_forms_of_the_bridge(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Each field of the entry's forms has a name and a description, and none is left."""
    steps = TEXTS["config"]["step"]
    flows = hass.config_entries.flow
    context: dict[str, Any] = {"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id}
    result: Any = await flows.async_init(DOMAIN, context=context)  # type: ignore[arg-type]
    check_form(result, steps[result["step_id"]])
    flows.async_abort(result["flow_id"])
    seen = {"reconfigure"}

    context = {
        "source": "reauth",
        "entry_id": entry.entry_id,
    }
    (subentry_id,) = entry.subentries
    result = await flows.async_init(
        DOMAIN,
        context=context,  # type: ignore[arg-type]
        data={"subentry_id": subentry_id},
    )
    # Each kind asks for its own.
    token = KINDS[KindName.INFLUXDB].credentials({"api": "v2", "username": None})
    asked = [
        {"data_schema": vol.Schema(fields)}
        for fields in (*CREDENTIAL_FIELDS.values(), token)
    ]
    check_forms([result, *asked], steps[result["step_id"]])
    seen.add(result["step_id"])

    await hass.config_entries.async_remove(entry.entry_id)
    for name in KINDS:
        menu: Any = await flows.async_init(DOMAIN, context={"source": SOURCE_USER})
        assert name.step in check_menu(menu, steps["user"])
        result = await flows.async_configure(
            menu["flow_id"], {"next_step_id": name.step}
        )
        check_selectors(check_form(result, steps[name.step]), OF_KINDS[name])
        seen.add(name.step)
    assert seen | {"user"} == set(steps)
    assert OF_MONITORS <= OF_DESTINATIONS
    assert set(TEXTS["selector"]) == OF_ALERTS | OF_DESTINATIONS | OF_ACTIONS


async def test_forms_of_destinations(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Each field of a destination's forms has a name and a description."""
    steps = TEXTS["config_subentries"]["destination"]["step"]
    assert set(steps) == {"user", *(name.step for name in KINDS)}
    (subentry_id,) = entry.subentries
    flows, handler = hass.config_entries.subentries, (entry.entry_id, "destination")
    context = SubentryFlowContext(source=SOURCE_RECONFIGURE, subentry_id=subentry_id)
    changed = await flows.async_init(handler, context=context)
    assert changed["step_id"] == "to_mqtt"
    forms = [changed]
    context = SubentryFlowContext(source=SOURCE_USER)
    menu = await flows.async_init(handler, context=context)
    for step in check_menu(menu, steps["user"]):
        menu = await flows.async_init(handler, context=context)
        forms.append(
            await flows.async_configure(menu["flow_id"], {"next_step_id": step})
        )
    for result in forms:
        name = KindName(result["step_id"].removeprefix("to_"))
        check_selectors(check_form(result, steps[name.step]), OF_KINDS[name])


def check_menu(result: Any, step: Mapping[str, Any]) -> list[str]:
    """Check that each line of a menu has a text; return the lines."""
    choices: list[str] = result["menu_options"]
    assert [*step["menu_options"]] == choices
    assert [*step["menu_option_descriptions"]] == choices
    return choices


async def test_forms_of_devices(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Each field of a device's forms has a name and a description."""
    steps = TEXTS["config_subentries"]["device"]["step"]
    flows = hass.config_entries.subentries
    results: dict[str, list[Any]] = {}

    async def walk(subentry_id: str | None, *inputs: dict[str, Any]) -> Any:
        """Go through the forms, and keep what they showed."""
        context = SubentryFlowContext(source=SOURCE_USER)
        if subentry_id is not None:
            context = SubentryFlowContext(
                source=SOURCE_RECONFIGURE, subentry_id=subentry_id
            )
        result: Any = await flows.async_init(
            (entry.entry_id, "device"), context=context
        )
        for entered in ({}, *inputs):
            if entered:
                result = await flows.async_configure(result["flow_id"], entered)
            if "step_id" in result:
                results.setdefault(result["step_id"], []).append(result)
        return result

    address, irk = {"next_step_id": "on_air"}, {"next_step_id": "irk"}
    device = {"name": "Balcony", "key": "01" * 16}
    phone = {"name": "Phone", "irk": "01" * 15 + "02"}
    await walk(None, irk, phone)
    result = await flows.async_configure(results["irk_unheard"][0]["flow_id"], {})
    results["settings"] = [result]
    await walk(None, address, {"address": "C0:00:00:00:00:01"}, device)
    unchecked = results["key_unchecked"][0]
    await flows.async_configure(unchecked["flow_id"], {})
    await hass.async_block_till_done()
    (subentry_id,) = (
        subentry.subentry_id
        for subentry in entry.subentries.values()
        if subentry.subentry_type == "device"
    )
    await walk(subentry_id, {"next_step_id": "settings"})
    for kind in RuleKind:
        await walk(subentry_id, {"next_step_id": "add_alert"}, {"kind": kind.value})
    lost = [{"next_step_id": "add_alert"}, {"kind": "lost"}, {"name": "Lost"}]
    await walk(subentry_id, *lost)
    await hass.async_block_till_done()
    for step in ("change_alert", "remove_alerts"):
        await walk(subentry_id, {"next_step_id": step})

    assert set(results) == set(steps)
    for name, shown in results.items():
        if name in ("user", "reconfigure"):
            choices = check_menu(shown[-1], steps[name])
            assert set(choices) <= set(steps)
        else:
            chosen = check_forms(shown, steps[name])
            check_selectors(chosen, OF_ALERTS if name == "add_alert" else set())
        told = placeholders_in(steps[name])
        given: set[str] = set()
        for result in shown:
            given |= set(result["description_placeholders"] or ())
        assert told == given, name


async def test_forms_of_monitors(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    listen_for: Callable[[float], None],
) -> None:
    """Each field of a monitor's forms, and all that was heard, has a text."""
    told = TEXTS["config_subentries"]["monitor"]
    assert set(told) == set(TEXTS["config_subentries"]["destination"])
    steps = told["step"]
    assert set(steps) == {"user", *PRESETS, "heard", "nothing_heard"}
    entry = await setup(destination_data(broker.port))
    flows, handler = hass.config_entries.subentries, (entry.entry_id, "monitor")
    menu = await flows.async_init(handler, context={"source": SOURCE_USER})
    assert check_menu(menu, steps["user"]) == PRESETS
    of_errors = placeholders_in(told["error"])
    for preset in PRESETS:
        result = await begin(hass, entry, preset)
        check_selectors(check_form(result, steps[preset]), OF_MONITORS)
        assert placeholders_in(steps[preset]) == set()
        assert of_errors == set(result["description_placeholders"])
    result = await submit(hass, result, form(entry, status_topics=["a/+/status"]))
    assert check_menu(result, steps["nothing_heard"]) == ["save", "change"]
    assert placeholders_in(steps["nothing_heard"]) == set()
    await publish(broker.port, {"autocore/a/status": b"online"}, retain=True)
    result = await begin(hass, entry, "autocore")
    result = await heard(hass, listen_for, result, form(entry), 1)
    assert check_menu(result, steps["heard"]) == ["save", "change"]
    given = set(result["description_placeholders"])
    assert placeholders_in(steps["heard"]) == given


def test_monitors_are_told_the_same() -> None:
    """The forms of monitors say the same of the same field; only the base has its own."""
    steps = TEXTS["config_subentries"]["monitor"]["step"]
    first = steps["own"]
    for preset in PRESETS:
        step = steps[preset]
        assert step["sections"] == first["sections"]
        for kind in ("data", "data_description"):
            for key, text in step[kind].items():
                assert key == "topic_base" or first[kind][key] == text
    for kind in ("menu_options", "menu_option_descriptions"):
        assert steps["heard"][kind] == steps["nothing_heard"][kind]


async def test_forms_of_the_options(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Each field of the options, and each line of their menu, has a text."""
    steps = TEXTS["options"]["step"]
    rule = {"rule_id": "1", "name": "Lost", "kind": "lost"}
    hass.config_entries.async_update_entry(entry, options={"alerts": [rule]})
    await hass.async_block_till_done()
    flows = hass.config_entries.options

    async def choose(choice: str) -> Any:
        """Begin, and choose."""
        result = await flows.async_init(entry.entry_id)
        choices = check_menu(result, steps["init"])
        assert set(steps) == {"init", "alert", *choices}
        return await flows.async_configure(result["flow_id"], {"next_step_id": choice})

    for choice in steps["init"]["menu_options"]:
        result = await choose(choice)
        chosen = check_form(result, steps[choice])
        check_selectors(chosen, OF_ALERTS if choice == "add_alert" else set())
    results = []
    for kind in RuleKind:
        result = await choose("add_alert")
        form = {"kind": kind.value}
        results.append(await flows.async_configure(result["flow_id"], form))
    check_forms(results, steps["alert"])


def test_alerts_are_told_the_same() -> None:
    """Alerts of one device and of all of them are explained in the same words."""
    of_one = TEXTS["config_subentries"]["device"]["step"]
    of_all = TEXTS["options"]["step"]
    for step in ("add_alert", "change_alert", "alert", "remove_alerts"):
        for key in ("title", "data", "data_description"):
            assert of_one[step][key] == of_all[step][key]


def placeholders_of(text: str) -> set[str]:
    """Return the names that stand in a text in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def placeholders_in(tree: Mapping[str, Any]) -> set[str]:
    """Return the names that stand in braces in any text of a part."""
    return set().union(*(placeholders_of(text) for _, text in texts(tree)))


def check_selectors(chosen: Mapping[str, SelectSelector], keys: set[str]) -> None:
    """Check that what can be chosen has a text, or is one itself."""
    selectors = TEXTS["selector"]
    assert keys <= set(selectors)
    translated = {
        field.config["translation_key"]: field
        for field in chosen.values()
        if "translation_key" in field.config
    }
    assert set(translated) == keys
    for key, field in translated.items():
        told = set(selectors[key]["options"])
        options = field.config["options"]
        values = {
            option if isinstance(option, str) else option["value"] for option in options
        }
        # A version of MQTT is its own label: its dots cannot stand in a key.
        labels = {option["label"] for option in options if not isinstance(option, str)}
        assert told <= values
        assert values - told <= {label for label in labels if label[0].isdigit()}


def errors_of(exception: str, name: str) -> set[str]:
    """Return what an exception is raised with in a module."""
    code = (INTEGRATION / name).read_text("utf-8")
    return set(re.findall(rf'raise {exception}\("(\w+)"\)', code))


def codes(*names: str) -> set[str]:
    """Return what could be the key of an error, of all that stands in some modules."""
    return {text for text in strings(*names) if re.fullmatch(r"[a-z]+(_[a-z]+)+", text)}


def problems_of(*names: str) -> set[str]:
    """Return the problems that some modules can raise."""
    code = "".join((INTEGRATION / name).read_text("utf-8") for name in names)
    return {
        Problem[name].value for name in re.findall(r"\bProblem\.([A-Z_0-9]+)", code)
    }


def errors_of_forms() -> set[str]:
    """Return what is raised where the form of a destination is read."""
    return set().union(*(errors_of("InputError", name) for name in FORM_MODULES))


def reasons(name: str) -> set[str]:
    """Return the reasons for which a module ends a flow."""
    code = (INTEGRATION / name).read_text("utf-8")
    return set(re.findall(r'reason="(\w+)"', code))


def test_errors_and_reasons() -> None:
    """Each error and each reason that the code gives has a text, and none is left."""
    bridge, options = TEXTS["config"], TEXTS["options"]
    destination = TEXTS["config_subentries"]["destination"]
    device = TEXTS["config_subentries"]["device"]
    lists = options["step"]["filters"]["sections"]["allow"]["data"]

    of_form = PROBLEMS | {"unknown", "topic_bases_overlap", "invalid_topic_base"}
    of_form |= {"invalid_host", "invalid_port", "invalid_client_id"}
    of_form |= {"invalid_namespace"}
    of_form |= {"invalid_url", "invalid_text", "database_missing"}
    assert of_form - PROBLEMS <= strings(*FORM_MODULES)
    of_form |= errors_of_forms() | set(Fault)
    of_bridge = {"invalid_name", "invalid_bridge_id"}
    assert of_bridge <= codes("config_flow.py")
    assert set(bridge["error"]) == of_form | of_bridge
    assert "topic_base_taken" in codes("destination_flow.py")
    assert set(destination["error"]) == of_form | {"topic_base_taken"}
    for key in of_form:
        assert bridge["error"][key] == destination["error"][key]

    of_alerts = {"invalid_alert_name", "alert_name_taken"}
    of_alerts |= {"invalid_field", "invalid_number"}
    assert of_alerts <= codes("alert_forms.py")
    of_device = set(device["error"]) - of_alerts
    assert of_device <= codes("device_flow.py")
    assert of_device >= {
        text
        for text in codes("device_flow.py")
        if re.match(r"(invalid|alias|already_added|address_changes|key_wrong)", text)
    }
    assert of_alerts <= set(device["error"])
    of_options = {"invalid_scanner_id", "scanner_id_taken", "invalid_formats"}
    assert of_options <= codes("options_flow.py")
    of_lists = {f"invalid_{field}" for field in lists}
    assert set(options["error"]) == of_lists | of_options | of_alerts

    monitor = TEXTS["config_subentries"]["monitor"]
    code = (INTEGRATION / "monitor_flow.py").read_text("utf-8")
    of_monitor = set(re.findall(r'return \{\S+: "(\w+)"\}', code))
    of_monitor |= errors_of("PatternError", "monitors/patterns.py")
    assert set(monitor["error"]) == of_monitor | problems_of(*LISTENING_MODULES)
    for key in ("invalid_name", "unknown"):
        assert monitor["error"][key] == bridge["error"][key]

    for told, name in (
        (bridge, "config_flow.py"),
        (destination, "destination_flow.py"),
        (device, "device_flow.py"),
        (monitor, "monitor_flow.py"),
        (options, "options_flow.py"),
    ):
        assert set(told["abort"]) == reasons(name)


def test_issues() -> None:
    """Each issue has a text; those that are mended in place have a form."""
    issues = TEXTS["issues"]
    of_monitors = {"monitor_full", "monitor_refused", "monitor_without_destination"}
    of_monitors |= {"sharing_unsupported"}
    for issue in of_monitors:
        limit = {"limit"} if issue == "monitor_full" else set()
        assert placeholders_in(issues[issue]) == {"monitor"} | limit
    said = strings("repairs.py") | set(Problem)
    of_ca = {f"ca_{fault}" for fault in ("invalid", "outdated", "early")}
    of_client = {fault.value for fault in Fault if fault.startswith("client_")}
    of_client |= {"client_certificate_missing"}
    files: dict[str, set[str]] = {
        "ca_certificate": of_ca,
        "client_certificate": of_client,
    }
    raised = {"invalid_key", "key_wrong", "no_connection"} & codes("fix_flows.py")
    raised |= errors_of("InputError", "fix_flows.py") | set(Fault) | set(Problem)
    raised |= errors_of_forms()
    mended: dict[str, tuple[set[str], set[str], set[str]]] = {
        "client_id_taken": ({"destination_removed"}, set(), set()),
        "store_corrupt": (set(), set(), set()),
    }
    for issue in ("key_missing", "key_wrong"):
        errors = {"invalid_key", "key_wrong"}
        mended[issue] = ({"device_removed"}, errors, {"key"})
    for problem, fields in fix_flows._FIELDS.items():
        names = {str(key) for key in fields}
        errors = {problem.value, "no_connection"}
        errors |= {fault for name in names for fault in files.get(name, ())}
        errors |= {"upload_gone"} if names & set(files) else {"invalid_server_name"}
        mended[problem.value] = ({"destination_removed"}, errors, names)
    for issue in ("not_authorized", "quota_exceeded", "too_large", "field_type"):
        aborts = {"destination_removed", "not_loaded"}
        mended[issue] = (aborts, {issue, "no_connection"}, set())
    told = {"broker_missing", "broker_refused", "broker_certificate", "scanner_silent"}
    told |= {"bucket_missing", "jetstream_missing", "stream_conflict"}
    told |= {"ca_expires", "client_certificate_expires", "store_failed"}
    assert of_monitors <= strings("repairs.py")
    told |= of_monitors
    assert set(issues) == told | set(mended) <= said
    for issue, (aborts, errors, names) in mended.items():
        assert set(issues[issue]) == {"title", "fix_flow"}
        flow = issues[issue]["fix_flow"]
        assert set(flow["step"]) == {"confirm"}
        assert set(flow.get("abort", ())) == aborts
        assert set(flow.get("error", ())) == errors <= raised
        for kind in ("data", "data_description"):
            assert set(flow["step"]["confirm"].get(kind, ())) == names
    for issue in told:
        assert set(issues[issue]) == {"title", "description"}


PLATFORMS = {
    Kind.NUMBER: "sensor",
    Kind.TEXT: "sensor",
    Kind.BOOLEAN: "binary_sensor",
    Kind.EVENT: "event",
}


# What monitored devices have beside fields; those without an icon have a class.
MONITORED = {
    ("sensor", "last_seen"): False,
    ("sensor", "monitored_ip"): True,
    ("sensor", "monitored_status"): True,
    ("sensor", "moving_average"): True,
    ("sensor", "started"): False,
    ("binary_sensor", "anomaly"): False,
    ("binary_sensor", "relay"): True,
    ("event", "interaction"): True,
    ("event", "system"): True,
}


def described() -> dict[tuple[str, str], EntityDescription | Field | None]:
    """Return everything that has a name: by platform and translation key."""
    found: dict[tuple[str, str], EntityDescription | Field | None] = {
        ("binary_sensor", "presence_of_device"): None
    }
    for module in (sensor, binary_sensor, monitor_sensor, monitor_binary_sensor):
        platform = module.__name__.rpartition(".")[2]
        for constant in vars(module).values():
            for item in constant if isinstance(constant, tuple) else (constant,):
                # A bare description of binary sensors is no instance of this class.
                key = getattr(item, "translation_key", None)
                if key and not isinstance(item, type):
                    assert key == item.key
                    found[platform, key] = item
    for name, field in FIELDS.items():
        # The signal strength is a sensor of every device, and a field of some.
        found.setdefault((PLATFORMS[field.kind], name), field)
    for place in MONITORED:
        found.setdefault(place, None)
    return found


def kinds_of_devices() -> Iterator[set[tuple[str, str]]]:
    """Return for each kind of device what it can have: platform and translation key."""
    fields = {(PLATFORMS[field.kind], name) for name, field in FIELDS.items()}
    for descriptions in (
        sensor.BRIDGE_SENSORS,
        sensor.DESTINATION_SENSORS,
        sensor.SCANNER_SENSORS,
        monitor_sensor.MONITOR_SENSORS,
    ):
        yield {("sensor", description.key) for description in descriptions}
    signals = {("sensor", description.key) for description in sensor.SIGNAL_SENSORS}
    yield fields | signals | {("binary_sensor", "presence_of_device")}
    yield fields | MONITORED.keys()


def test_entities() -> None:
    """Each entity and each field has a name and an icon, or a class that gives one."""
    found = described()
    assert len(found) > len(FIELDS)
    entities, icons = TEXTS["entity"], read("icons.json")
    assert set(icons) == {"entity", "services"}
    assert set(entities) == set(icons["entity"]) == {platform for platform, _ in found}
    for (platform, key), item in found.items():
        told = entities[platform].get(key)
        assert told, f"{platform}.{key} has no name"
        assert told["name"]
        keys = set(told) - {"name"}
        if isinstance(item, Field):
            assert keys <= ({"state_attributes"} if platform == "event" else set())
            if item.device_class is None:
                assert key in icons["entity"][platform], f"{key} has no icon"
        elif item is not None and platform == "sensor":
            options = getattr(item, "options", None)
            unit = getattr(item, "native_unit_of_measurement", None)
            if unit or item.device_class:
                assert "unit_of_measurement" not in keys
            assert ("state" in keys) is bool(options)
            if options:
                assert set(told["state"]) == set(options)
            if item.device_class is None:
                assert key in icons["entity"][platform], f"{key} has no icon"
    for platform, told in entities.items():
        assert set(told) == {key for other, key in found if other == platform}
        assert set(icons["entity"][platform]) <= set(told)
        assert [*icons["entity"][platform]] == sorted(icons["entity"][platform])
    for (platform, key), has_icon in MONITORED.items():
        assert (key in icons["entity"][platform]) is has_icon
    unnamed = found.keys() - set().union(*kinds_of_devices())
    assert unnamed <= {("binary_sensor", binary_sensor.SILENT.key)}
    for kind in kinds_of_devices():
        names = [(platform, entities[platform][key]["name"]) for platform, key in kind]
        assert len(names) == len(set(names))
    for _, icon in texts(icons):
        assert re.fullmatch(r"mdi:[a-z0-9]+(-[a-z0-9]+)*", icon)
    for description in (binary_sensor.CONNECTED, monitor_binary_sensor.LISTENING):
        assert description.translation_key is None
        assert description.device_class is not None


async def test_entities_of_monitors(
    hass: HomeAssistant, broker: Mosquitto, enable_bluetooth: None
) -> None:
    """What a monitor and a device of its really have is named, each in its own way."""
    garage = Garage(hass, broker)
    await garage.start({"anomalies": True})
    happened = {"device_id": DEVICE, "timestamp": moment(), "action": "tap"}
    more: dict[str, Any] = {
        "door": True,
        "mode": "eco",
        "status": "fine",
        "pump_speed": 3,
    }
    for topic, said in (
        ("status", status()),
        ("telemetry", telemetry(**more)),
        ("relay/0/status", relay(0)),
        ("relay/1/status", relay(1)),
        ("display/interaction", happened),
        ("system/error", happened),
    ):
        await garage.tell(f"{DEVICE}/{topic}", said)
    device = garage.device()
    assert device is not None
    registry = er.async_get(hass)
    used: set[tuple[str, str]] = set()
    figures = {("sensor", figure.key) for figure in monitor_sensor.MONITOR_SENSORS}
    for device_id, number in (
        (garage.monitor.device_id, len(figures) + 1),
        # Of the device itself, values, averages, relays, anomaly, events
        (device.id, 5 + 8 + 5 + 2 + 1 + 2),
    ):
        entities = er.async_entries_for_device(
            registry, device_id, include_disabled_entities=True
        )
        assert len(entities) == number
        names = [(entity.domain, entity.original_name) for entity in entities]
        assert len(names) == len(set(names))
        for entity in entities:
            assert entity.original_name
            assert "{" not in entity.original_name
            if (key := entity.translation_key) is not None:
                assert key in TEXTS["entity"][entity.domain]
                used.add((entity.domain, key))
    known = {(PLATFORMS[field.kind], name) for name, field in FIELDS.items()}
    assert used - known == figures | MONITORED.keys()
    await garage.close()


def test_events() -> None:
    """What an event can be from the start has a text."""
    for name, field in FIELDS.items():
        if field.kind is not Kind.EVENT:
            continue
        told = TEXTS["entity"]["event"][name].get("state_attributes")
        states = told["event_type"]["state"] if told else {}
        assert set(event._EVENT_TYPES.get(name, ())) <= set(states)
    for name in ("interaction", "system"):
        told = TEXTS["entity"]["event"][name]["state_attributes"]
        assert set(told["event_type"]["state"]) == {OTHER}


def test_actions() -> None:
    """Each action and each of its fields has a name, a description and an icon."""
    actions: dict[str, Any] = load_yaml_dict(INTEGRATION / "services.yaml")
    told = TEXTS["services"]
    assert set(told) == set(actions) == set(read("icons.json")["services"])
    for name, action in actions.items():
        fields = (action or {}).get("fields", {})
        told_fields = told[name].get("fields", {})
        assert set(told_fields) == set(fields)
        chosen = {
            key: field["selector"]["select"]
            for key, field in fields.items()
            if "select" in field["selector"]
        }
        check_selectors(
            {key: SelectSelector(select) for key, select in chosen.items()},
            OF_ACTIONS if name == actions_module.ACTION_RETRY else set(),
        )
        for text in (told[name], *told_fields.values()):
            assert text["name"]
            assert text["description"]
    outcomes = {f"publish_{o}" for o in Outcome if o not in actions_module._DELIVERED}
    assert outcomes < set(TEXTS["exceptions"])
    source = Path(actions_module.__file__).read_text()
    chosen_from = {"destination", "monitor"}
    assert chosen_from <= strings("actions.py")
    of_choice = {f"{no}_{what}" for no in ("no", "not_a") for what in chosen_from}
    assert of_choice < set(TEXTS["exceptions"])
    for key in set(TEXTS["exceptions"]) - outcomes - {"publish_waiting"} - of_choice:
        assert f'"{key}"' in source
    assert set(TEXTS["selector"]["dead_letter_reason"]["options"]) == set(Reason)


async def test_system_health(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Each line of System Health has a name, with a bridge and without."""
    with_bridge = await system_health_info(hass)
    await hass.config_entries.async_unload(entry.entry_id)
    without = await system_health_info(hass)
    assert {*with_bridge, *without} == set(TEXTS["system_health"]["info"])


def test_texts_are_plain() -> None:
    """A text ends well, needs no markup, and has a key that hassfest takes."""
    for path, text in texts(TEXTS):
        assert text, path
        assert text == text.strip(), path
        assert not re.search(r"<[a-z/]|https?://|www\.|\[%|'\{", text), path
        assert not re.search(r"[\u2013\u2014]| - ", text), path
        for _, name, _, _ in string.Formatter().parse(text):
            assert name is None or name in PLACEHOLDERS, path
        parts = path.split(".")
        # What explains is made of sentences; what names is not.
        explains = parts[-1] == "description" or bool(
            {"data_description", "error", "abort", "exceptions"} & set(parts[:-1])
        )
        assert text.endswith(".") is explains, path
        if parts[0] in ("entity", "selector", "system_health"):
            for key in parts:
                assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", key), path


def test_texts_are_used_the_same() -> None:
    """The forms that add a destination say the same of the same field."""
    for name in KINDS:
        first = TEXTS["config"]["step"][name.step]
        added = TEXTS["config_subentries"]["destination"]["step"][name.step]
        for kind in ("data", "data_description"):
            for key, text in added[kind].items():
                assert first[kind][key] == text
        assert first["sections"] == added["sections"]


async def test_manifest(hass: HomeAssistant) -> None:
    """The manifest is sorted as hassfest wants it, and Home Assistant can load it."""
    manifest = read("manifest.json")
    keys = [*manifest]
    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert manifest["domain"] == DOMAIN == INTEGRATION.name
    assert manifest["name"] == TEXTS["title"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert manifest["config_flow"] is True
    assert manifest["single_config_entry"] is True
    assert manifest["integration_type"] == "service"
    assert manifest["iot_class"] == "local_push"
    assert all(owner.startswith("@") for owner in manifest["codeowners"])
    for key in ("documentation", "issue_tracker"):
        assert manifest[key].startswith("https://")
    # The libraries that decode, what writes metrics, and the client of NATS: Home
    # Assistant's own MQTT integration brings paho-mqtt along.
    requirements = manifest["requirements"]
    assert requirements == sorted(requirements, key=str.lower)
    assert [re.split("[=>]=", name)[0] for name in requirements] == sorted(
        ["nats-py", "prometheus-client", *(library.name for library in LIBRARIES)],
        key=str.lower,
    )
    prometheus = await async_get_integration(hass, "prometheus")
    lowest = {name.replace("==", ">=") for name in prometheus.requirements}
    assert lowest <= set(requirements)
    assert MQTT_DOMAIN in manifest["after_dependencies"]
    mqtt = await async_get_integration(hass, MQTT_DOMAIN)
    assert any(name.startswith("paho-mqtt==") for name in mqtt.requirements)
    ours = await async_get_integration(hass, DOMAIN)
    assert ours.file_path == INTEGRATION
    assert await ours.resolve_dependencies()


def test_version_is_the_same_everywhere() -> None:
    """The project has the version of the integration."""
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert f'version = "{read("manifest.json")["version"]}"' in project


def test_hacs() -> None:
    """HACS finds the archive of a release, and asks for the right Home Assistant."""
    hacs = json.loads((REPOSITORY / "hacs.json").read_text("utf-8"))
    assert hacs["name"] == read("manifest.json")["name"]
    assert hacs["zip_release"] is True
    assert hacs["filename"] == f"{DOMAIN}.zip"
    assert hacs["homeassistant"] == "2026.10.0"


def test_quality_scale() -> None:
    """Each rule is done, or does not apply for a reason."""
    rules = load_yaml_dict(INTEGRATION / "quality_scale.yaml")["rules"]
    assert isinstance(rules, dict)
    names = f"{BRONZE} {SILVER} {GOLD} {PLATINUM}".split()
    assert len(names) == 54
    assert [*rules] == names
    for rule in rules.values():
        if isinstance(rule, dict):
            assert set(rule) == {"status", "comment"}
            assert rule["status"] in ("done", "exempt")
            assert rule["comment"].endswith(".")
        else:
            assert rule == "done"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("icon.png", {(256, 256)}),
        ("icon@2x.png", {(512, 512)}),
        ("logo.png", None),
        ("logo@2x.png", None),
        ("dark_logo.png", None),
        ("dark_logo@2x.png", None),
    ],
)
def test_brand(name: str, sizes: set[tuple[int, int]] | None) -> None:
    """The images have the sizes that Home Assistant's brands have."""
    header = (INTEGRATION / "brand" / name).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    if sizes:
        assert (width, height) in sizes
    else:
        low, high = (256, 512) if "@2x" in name else (128, 256)
        assert low <= min(width, height) <= high
