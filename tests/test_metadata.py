"""What Home Assistant and HACS read about the integration: complete, and nothing more."""

import ast
from collections.abc import Callable, Iterator, Mapping
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
from homeassistant.helpers.selector import SelectSelector
from homeassistant.loader import async_get_integration
from homeassistant.util.yaml import load_yaml_dict
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.binary_sensor import CONNECTED
from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.sensor import BRIDGE_SENSORS, DESTINATION_SENSORS
from custom_components.ble_bridge.system_health import system_health_info

from .conftest import SimulatedScanner, destination_data

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


def texts(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Return every text of the translations with its path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from texts(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}".removeprefix("."), value


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
    fields = {str(key): value for key, value in result["data_schema"].schema.items()}
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
            key: field
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
    check_form(result, steps[result["step_id"]])
    seen.add(result["step_id"])

    await hass.config_entries.async_remove(entry.entry_id)
    result = await flows.async_init(DOMAIN, context={"source": SOURCE_USER})
    check_selectors(check_form(result, steps["user"]))
    assert seen | {"user"} == set(steps)


async def test_forms_of_destinations(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Each field of a destination's forms has a name and a description."""
    steps = TEXTS["config_subentries"]["destination"]["step"]
    assert set(steps) == {"user", "reconfigure"}
    (subentry_id,) = entry.subentries
    for context in (
        SubentryFlowContext(source=SOURCE_USER),
        SubentryFlowContext(source=SOURCE_RECONFIGURE, subentry_id=subentry_id),
    ):
        result = await hass.config_entries.subentries.async_init(
            (entry.entry_id, "destination"), context=context
        )
        assert result["step_id"] == context["source"]
        check_selectors(check_form(result, steps[result["step_id"]]))


async def test_forms_of_the_options(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Each field of the options, and each line of their menu, has a text."""
    steps = TEXTS["options"]["step"]
    flows = hass.config_entries.options
    result = await flows.async_init(entry.entry_id)
    choices = result["menu_options"]
    assert isinstance(choices, list)
    assert set(steps) == {"init", *choices}
    assert [*steps["init"]["menu_options"]] == choices
    assert [*steps["init"]["menu_option_descriptions"]] == choices
    for choice in choices:
        result = await flows.async_init(entry.entry_id)
        result = await flows.async_configure(
            result["flow_id"], {"next_step_id": choice}
        )
        check_form(result, steps[choice])


def check_selectors(chosen: Mapping[str, SelectSelector]) -> None:
    """Check that what can be chosen has a text, or is one itself."""
    selectors = TEXTS["selector"]
    assert {field.config["translation_key"] for field in chosen.values()} == set(
        selectors
    )
    for field in chosen.values():
        key = field.config["translation_key"]
        told = set(selectors[key]["options"])
        options = field.config["options"]
        values = {
            option if isinstance(option, str) else option["value"] for option in options
        }
        # A version of MQTT is its own label: its dots cannot stand in a key.
        labels = {option["label"] for option in options if not isinstance(option, str)}
        assert told <= values
        assert values - told <= {label for label in labels if label[0].isdigit()}


def test_errors_and_reasons() -> None:
    """Each error and each reason that the code gives has a text, and none is left."""
    said = strings("config_flow.py")
    bridge, destination = TEXTS["config"], TEXTS["config_subentries"]["destination"]
    options, fields = TEXTS["options"], TEXTS["options"]["step"]["filters"]["sections"]
    of_lists = {f"invalid_{field}" for field in fields["allow"]["data"]}
    given = {text for text in said if re.match(r"invalid_\w+$", text)} - PROBLEMS
    of_options = of_lists | {"invalid_scanner_id", "scanner_id_taken"}
    of_bridge = {"invalid_name", "invalid_bridge_id"}
    assert set(options["error"]) == of_options
    assert set(bridge["error"]) == PROBLEMS | {"unknown"} | (given - of_options)
    assert set(destination["error"]) == set(bridge["error"]) - of_bridge
    for key, text in destination["error"].items():
        assert bridge["error"][key] == text
    assert set(bridge["abort"]) == {"destination_removed"}
    assert set(destination["abort"]) == {"already_configured"}
    assert set(options["abort"]) == {"no_scanners"}
    reasons = {*bridge["abort"], *destination["abort"], *options["abort"], "unknown"}
    assert reasons | of_bridge | {"scanner_id_taken"} <= said
    code = (INTEGRATION / "config_flow.py").read_text("utf-8")
    assert set(re.findall(r'reason="(\w+)"', code)) == reasons - {"unknown"}


def test_issues() -> None:
    """Each issue has a text; the one that is mended in place has a form."""
    issues = TEXTS["issues"]
    said = strings("repairs.py")
    assert set(issues) == {text for text in said if text in issues}
    assert set(issues) == {"client_id_taken", "broker_missing", "broker_refused"}
    flow = issues["client_id_taken"]["fix_flow"]
    assert set(flow["step"]) == {"confirm"}
    assert set(flow["abort"]) == {"destination_removed"}
    for issue in ("broker_missing", "broker_refused"):
        assert set(issues[issue]) == {"title", "description"}


def test_entities() -> None:
    """Each entity has a name and an icon, or a device class that gives them."""
    sensors = {
        description.translation_key: description
        for description in (*BRIDGE_SENSORS, *DESTINATION_SENSORS)
    }
    assert set(TEXTS["entity"]) == {"sensor"}
    assert set(TEXTS["entity"]["sensor"]) == set(sensors)
    for key, description in sensors.items():
        assert key == description.key
        told = TEXTS["entity"]["sensor"][key]
        assert told["name"]
        if description.native_unit_of_measurement or description.device_class:
            assert "unit_of_measurement" not in told
        if description.options:
            assert set(told["state"]) == set(description.options)
        else:
            assert "state" not in told
    icons = read("icons.json")
    assert set(icons) == {"entity"}
    assert set(icons["entity"]) == {"sensor"}
    assert set(icons["entity"]["sensor"]) == set(sensors)
    for _, icon in texts(icons):
        assert re.fullmatch(r"mdi:[a-z0-9]+(-[a-z0-9]+)*", icon)
    assert CONNECTED.translation_key is None
    assert CONNECTED.device_class is not None


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
            assert name in (None, "destination", "value"), path
        parts = path.split(".")
        # What explains is made of sentences; what names is not.
        explains = parts[-1] == "description" or bool(
            {"data_description", "error", "abort"} & set(parts[:-1])
        )
        assert text.endswith(".") is explains, path
        if parts[0] in ("entity", "selector", "system_health"):
            for key in parts:
                assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", key), path


def test_texts_are_used_the_same() -> None:
    """The forms that add a destination say the same of the same field."""
    first = TEXTS["config"]["step"]["user"]
    added = TEXTS["config_subentries"]["destination"]["step"]["user"]
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
    # Home Assistant's own MQTT integration brings paho-mqtt along.
    assert manifest["requirements"] == []
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
