"""What the tests of the forms of monitors share: what is entered, shown and heard."""

import asyncio
from collections.abc import Callable, Mapping
import json
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    ConfigSubentry,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from paho.mqtt.publish import multiple
import pytest

from scripts.simulation.processes import LOOPBACK

from .conftest import wait_until

PRESETS = ["autocore", "ble_bridge", "own"]
TOPICS = ["status", "telemetry", "relay", "interaction", "system"]
VALUES = {"average": 10, "anomalies": False, "deviations": 3, "window": 20}
ADVANCED = {"qos": "1", "needs_time": True, "max_kilobytes": 64}
ADVANCED_TOO = ("share_group", "dead_letter_topic")
# What is stored of a monitor about which nothing is said.
STORED: dict[str, Any] = {
    "preset": "autocore",
    "topic_base": "autocore",
    "timeout": 300,
    "max_devices": 250,
    "mark_stale": False,
    "average": 10,
    "anomalies": False,
    "deviations": 3.0,
    "window": 20,
    "critical_relays": [],
    "qos": 1,
    "needs_time": True,
    "max_kilobytes": 64,
    "share_group": None,
    "dead_letter_topic": None,
}

# What sets for how long (s) a form listens.
type Listen = Callable[[float], None]


def subentries(entry: ConfigEntry[Any], kind: str) -> list[ConfigSubentry]:
    """Return the subentries of a type."""
    return [one for one in entry.subentries.values() if one.subentry_type == kind]


def monitor_of(entry: ConfigEntry[Any]) -> ConfigSubentry:
    """Return the only monitor."""
    (monitor,) = subentries(entry, "monitor")
    return monitor


def destination_id(entry: ConfigEntry[Any], number: int = 0) -> str:
    """Return the ID of a destination."""
    return subentries(entry, "destination")[number].subentry_id


async def submit(hass: HomeAssistant, result: Any, form: Mapping[str, Any]) -> Any:
    """Submit a form, or choose from a menu."""
    result = await hass.config_entries.subentries.async_configure(
        result["flow_id"], dict(form)
    )
    await hass.async_block_till_done()
    return result


async def begin(hass: HomeAssistant, entry: ConfigEntry[Any], preset: str) -> Any:
    """Open the form that adds a monitor."""
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "monitor"), context=SubentryFlowContext(source=SOURCE_USER)
    )
    assert result["type"] is FlowResultType.MENU
    assert result["step_id"] == "user"
    assert result["menu_options"] == PRESETS
    result = await submit(hass, result, {"next_step_id": preset})
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == preset
    return result


async def change(hass: HomeAssistant, entry: ConfigEntry[Any], number: int = 0) -> Any:
    """Open the form that changes a monitor."""
    monitor = subentries(entry, "monitor")[number]
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "monitor"),
        context=SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=monitor.subentry_id
        ),
    )
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == monitor.data["preset"]
    return result


def form(entry: ConfigEntry[Any], **changes: Any) -> dict[str, Any]:
    """Return the form of a monitor; changes go to the section they belong to."""
    sections = {
        name: {
            **section,
            **{key: changes.pop(key) for key in [*changes] if key in {*section, *more}},
        }
        for name, section, more in (
            ("values", VALUES, ()),
            ("advanced", ADVANCED, ADVANCED_TOO),
        )
    }
    return {
        "name": "Garage",
        "destination": destination_id(entry),
        **changes,
        **sections,
    }


def shown(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what the fields of a form show, sections as such."""
    found: dict[str, Any] = {}
    for key, field in fields.items():
        if hasattr(field, "schema"):
            found[str(key)] = shown(field.schema.schema)
        elif key.description and "suggested_value" in key.description:
            found[str(key)] = key.description["suggested_value"]
    return found


def fields_of(result: Any) -> list[str]:
    """Return the fields of a form, in their order."""
    return [str(key) for key in result["data_schema"].schema]


def offered(result: Any) -> dict[str, str]:
    """Return the destinations that can be chosen: titles by subentry."""
    selector = result["data_schema"].schema["destination"]
    return {option["value"]: option["label"] for option in selector.config["options"]}


async def save(hass: HomeAssistant, result: Any) -> Any:
    """Save what was entered, whatever was heard."""
    assert result["type"] is FlowResultType.MENU, result["errors"]
    assert result["step_id"] in ("heard", "nothing_heard")
    assert result["menu_options"] == ["save", "change"]
    return await submit(hass, result, {"next_step_id": "save"})


async def is_saved(hass: HomeAssistant, entry: ConfigEntry[Any], result: Any) -> None:
    """Save what was entered, and wait until the monitor hears."""
    result = await save(hass, result)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    await hears(entry)


async def hears(entry: ConfigEntry[Any]) -> None:
    """Wait until all monitors hear."""
    ids = {monitor.subentry_id for monitor in subentries(entry, "monitor")}

    def all_hear() -> bool:
        monitors = entry.runtime_data.monitors.by_id
        return ids == {*monitors} and all(m.is_connected for m in monitors.values())

    await wait_until(all_hear)


async def publish(port: int, messages: Mapping[str, Any], *, retain: bool) -> None:
    """Publish messages, and wait until the broker has them; what is no bytes is JSON."""
    await asyncio.to_thread(
        multiple,
        [
            {
                "topic": topic,
                "payload": said if isinstance(said, bytes) else json.dumps(said),
                "qos": 1,
                "retain": retain,
            }
            for topic, said in messages.items()
        ],
        LOOPBACK,
        port,
    )


async def heard(
    hass: HomeAssistant,
    listen_for: Listen,
    result: Any,
    entered: dict[str, Any],
    messages: int | None = None,
) -> Any:
    """Submit a form, and listen for longer until enough is heard; return the result.

    The broker must keep so many messages, so that they come with each try.
    """
    for seconds in (0.2, 1, 5):
        listen_for(seconds)
        result = await submit(hass, result, entered)
        assert result["type"] is FlowResultType.MENU, result["errors"]
        told = result["description_placeholders"] or {}
        if result["step_id"] == "heard" and messages in (None, int(told["messages"])):
            return result
        result = await submit(hass, result, {"next_step_id": "change"})
    pytest.fail(f"Not what was expected: {told}")
