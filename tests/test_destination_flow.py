"""The forms of destinations: add, change, remove, and what the broker keeps then."""

import asyncio
from collections.abc import Callable
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr, issue_registry as ir
from paho.mqtt.publish import single
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK, free_port
from scripts.simulation.subscriber import Subscriber

from .conftest import SimulatedScanner, destination_data, is_connected, wait_until
from .forms import (
    ADVANCED,
    CONNECTION,
    DELIVERY,
    FIELDS,
    LAYOUTS,
    SECURITY,
    TRANSPORT,
    VALUES,
    destination_form,
)

# What a bridge keeps on a broker: its own status, and that of each scanner, the first of
# which is the local adapter.
KEPT = {
    "{}/bridge/home/status",
    "{}/scanner/hci0/status",
    "{}/scanner/living-room-proxy/status",
}
USERS = {"ble": "right"}


def subentry_id(entry: ConfigEntry[Any]) -> str:
    """Return the ID of the first destination."""
    return next(iter(entry.subentries))


async def begin(hass: HomeAssistant, entry: ConfigEntry[Any], *, change: bool) -> Any:
    """Open the form that adds a destination, or changes the first one."""
    context = SubentryFlowContext(source=SOURCE_USER)
    if change:
        context = SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=subentry_id(entry)
        )
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "destination"), context=context
    )
    if not change:
        assert result["type"] is FlowResultType.MENU
        result = await submit(hass, result, {"next_step_id": "to_mqtt"})
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "to_mqtt"
    return result


async def submit(hass: HomeAssistant, result: Any, form: dict[str, Any]) -> Any:
    """Submit the form."""
    result = await hass.config_entries.subentries.async_configure(
        result["flow_id"], form
    )
    await hass.async_block_till_done()
    return result


def is_connected_to(hass: HomeAssistant, suffix: str) -> bool:
    """Tell what the connectivity sensor shows of the destination with a name."""
    return hass.states.is_state(f"binary_sensor.{suffix}_connectivity", "on")


def shown(result: Any) -> dict[str, Any]:
    """Return what the form shows; that of layouts and of delivery by section."""
    fields = {**result["data_schema"].schema}
    sections = {
        name: suggested(fields.pop(name).schema.schema)
        for name in (*LAYOUTS, "delivery")
    }
    for name in ("security", "transport", "advanced"):
        fields |= fields.pop(name).schema.schema
    return {**suggested(fields), **sections}


def suggested(fields: Any) -> dict[str, Any]:
    """Return the values that fields show."""
    return {
        str(key): key.description["suggested_value"]
        for key in fields
        if key.description and "suggested_value" in key.description
    }


async def kept(broker: Mosquitto) -> set[str]:
    """Return the topics of which the broker keeps a message."""
    async with Subscriber(broker.port) as late:
        # The broker sends what it keeps before it sends what comes later.
        await asyncio.to_thread(single, "later", hostname=LOOPBACK, port=broker.port)
        await late.wait_for_message("later")
        return {message.topic for message in late.messages if message.retain}


def kept_under(base: str) -> set[str]:
    """Return the topics under a base of which a broker keeps a message for a bridge."""
    return {topic.format(base) for topic in KEPT}


async def keeps(broker: Mosquitto, topics: set[str]) -> None:
    """Wait until a broker keeps messages of some topics and of no other."""
    for _ in range(50):
        if (found := await kept(broker)) == topics:
            return
        await asyncio.sleep(0.05)
    assert found == topics


async def test_add(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    setup: Callable[..., Any],
) -> None:
    """A second destination on the same broker goes beside the first."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=False)
    form = destination_form(
        broker.port, topic_base="home/ble", fields={"topic_base": "home/fields"}
    )
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    await subscriber.wait_for_message("home/ble/bridge/home/status", b"online")
    await wait_until(lambda: is_connected(hass, broker.port))
    first, second = entry.subentries.values()
    assert second.title == f"127.0.0.1:{broker.port} (home/ble)"
    assert second.data["client_id"] != first.data["client_id"]


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"topic_base": "#"}, {"base": "invalid_topic_base"}),
        ({"fields": {"topic_base": "ble"}}, {"base": "topic_bases_overlap"}),
        ({"host": "mqtt://broker"}, {"host": "invalid_host"}),
        ({"port": 0}, {"port": "invalid_port"}),
        ({"client_id": "a/b"}, {"base": "invalid_client_id"}),
        ({}, {"base": "cannot_connect"}),
    ],
)
@pytest.mark.parametrize("change", [False, True])
async def test_errors(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    change: bool,
    changes: dict[str, Any],
    errors: dict[str, str],
) -> None:
    """What is wrong is said, and the same form then takes what is right."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=change)
    form = destination_form(**{"port": free_port(), **changes})
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == errors
    assert is_connected(hass, broker.port)
    form = destination_form(broker.port, topic_base="other", fields={"enabled": False})
    result = await submit(hass, result, form)
    assert result["type"] is (
        FlowResultType.ABORT if change else FlowResultType.CREATE_ENTRY
    )
    name = f"127_0_0_1_{broker.port}" if change else f"127_0_0_1_{broker.port}_other"
    await wait_until(lambda: is_connected_to(hass, name))


async def test_add_duplicate(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Two destinations with the same broker and topics would publish everything twice."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=False)
    result = await submit(hass, result, destination_form(broker.port))
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "already_configured"


@pytest.mark.parametrize("layout", ["fields", "values"])
async def test_topics_of_another(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any], layout: str
) -> None:
    """No two destinations publish records under the same base of one broker."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=False)
    taken = {"enabled": True, "topic_base": "telemetry"}
    free = {**LAYOUTS, "fields": {"enabled": False}, "values": {"enabled": False}}
    form = destination_form(broker.port, topic_base="other", **{**free, layout: taken})
    result = await submit(hass, result, form)
    assert result["errors"] == {"base": "topic_base_taken"}
    assert result["description_placeholders"] == {
        "base": "telemetry",
        "date": "",
        "destination": f"127.0.0.1:{broker.port}",
    }
    # It can go to another broker under that base, or here under another one.
    async with Mosquitto() as other:
        form["port"] = other.port
        result = await submit(hass, result, form)
        assert result["type"] is FlowResultType.CREATE_ENTRY
        await wait_until(lambda: is_connected_to(hass, f"127_0_0_1_{other.port}_other"))
        second = [*entry.subentries][1]
        context = SubentryFlowContext(source=SOURCE_RECONFIGURE, subentry_id=second)
        result = await hass.config_entries.subentries.async_init(
            (entry.entry_id, "destination"), context=context
        )
        form["port"] = broker.port
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": "topic_base_taken"}
        form[layout]["topic_base"] = "other-records"
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        await wait_until(lambda: is_connected_to(hass, f"127_0_0_1_{other.port}_other"))


async def test_layouts(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """What is set of the layouts is stored, and shown when the form is opened again."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=True)
    fields = {**FIELDS, "topic_base": "home/fields", "connectivity": "1_retain"}
    values = {"enabled": True, "topic_base": "home/values", "reading": "0"}
    form = destination_form(
        broker.port, qos="2", raw=False, fields=fields, values=values
    )
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    data = entry.subentries[subentry_id(entry)].data
    assert (data["qos"], data["raw"]) == (2, False)
    assert (data["fields"], data["values"]) == (fields, values)
    await wait_until(lambda: is_connected(hass, broker.port))
    now = shown(await begin(hass, entry, change=True))
    assert (now["qos"], now["raw"]) == ("2", False)
    assert (now["fields"], now["values"]) == (fields, values)


async def test_without_the_sections_of_layouts(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Who leaves out a layout's section leaves the layout as it is."""
    entry = await setup(
        destination_data(broker.port, values={**VALUES, "enabled": True})
    )
    result = await begin(hass, entry, change=True)
    form = destination_form(broker.port)
    del form["fields"], form["values"]
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    data = entry.subentries[subentry_id(entry)].data
    assert data["fields"] == FIELDS
    assert data["values"] == {**VALUES, "enabled": True}


async def test_change_into_duplicate(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A destination cannot be made the same as another one."""
    second = destination_data(broker.port, topic_base="other", client_id="second")
    entry = await setup(destination_data(broker.port), second)
    result = await begin(hass, entry, change=True)
    form = destination_form(broker.port, topic_base="other")
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "already_configured"


async def test_change(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """What is left empty stays: the password, which nobody sees, and the client ID."""
    async with Mosquitto(users=USERS) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="right")
        )
        result = await begin(hass, entry, change=True)
        assert shown(result) == {
            "host": "127.0.0.1",
            "port": broker.port,
            "username": "ble",
            **SECURITY,
            **TRANSPORT,
            **ADVANCED,
            "client_id": "ble-bridge-test",
            "delivery": DELIVERY,
            "fields": FIELDS,
            "values": VALUES,
        }
        form = destination_form(broker.port, username="ble", qos="1", keepalive=30)
        result = await submit(hass, result, form)
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "reconfigure_successful"
        await wait_until(lambda: is_connected(hass, broker.port))
        assert dict(entry.subentries[subentry_id(entry)].data) == destination_data(
            broker.port,
            username="ble",
            password="right",
            qos=1,
            keepalive=30,
            raw=True,
            delivery=DELIVERY,
            **CONNECTION,
            **LAYOUTS,
        )
        await hass.config_entries.async_unload(entry.entry_id)


async def test_change_credentials(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """Trying other credentials does not disturb the connection that is there."""
    async with Mosquitto(users=USERS) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="right")
        )
        connected = hass.states.get(
            f"binary_sensor.127_0_0_1_{broker.port}_connectivity"
        )
        assert connected is not None
        result = await begin(hass, entry, change=True)
        form = destination_form(broker.port, username="ble", password="wrong")
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": "invalid_auth"}
        assert hass.states.get(connected.entity_id) is connected
        # Without a username there is no password either.
        result = await submit(hass, result, destination_form(broker.port))
        assert result["errors"] == {"base": "invalid_auth"}
        form = destination_form(broker.port, username="ble", client_id="new")
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        await wait_until(lambda: is_connected(hass, broker.port))
        assert "as new (p5" in broker.log(1000)
        assert not ir.async_get(hass).issues
        await hass.config_entries.async_unload(entry.entry_id)


async def test_change_to_client_ids_that_are_known(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """A broker that knows only some client IDs is tried with the one that is entered."""
    async with (
        Mosquitto(config_lines=["clientid_prefixes known-"]) as strict,
        Mosquitto() as broker,
    ):
        entry = await setup(destination_data(broker.port))
        result = await begin(hass, entry, change=True)
        result = await submit(hass, result, destination_form(strict.port))
        assert result["type"] is FlowResultType.FORM
        assert set(result["errors"]) == {"base"}
        form = destination_form(strict.port, client_id="known-bridge")
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        name = f"127_0_0_1_{broker.port}"
        await wait_until(lambda: is_connected_to(hass, name))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_name_of_the_user(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A destination that the user has given a name keeps it; another follows its data."""
    entry = await setup(destination_data(broker.port))
    result = await begin(hass, entry, change=True)
    await submit(hass, result, destination_form(broker.port, topic_base="one"))
    first = entry.subentries[subentry_id(entry)]
    assert first.title == f"127.0.0.1:{broker.port} (one)"
    hass.config_entries.async_update_subentry(entry, first, title="Attic")
    await hass.async_block_till_done()
    result = await begin(hass, entry, change=True)
    await submit(hass, result, destination_form(broker.port, topic_base="two"))
    first = entry.subentries[subentry_id(entry)]
    assert first.title == "Attic"
    assert first.data["topic_base"] == "two"


async def test_move_to_other_topics(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """With another topic base, the broker keeps nothing under the old one."""
    entry = await setup(destination_data(broker.port))
    await keeps(broker, kept_under("ble"))
    result = await begin(hass, entry, change=True)
    form = destination_form(broker.port, topic_base="other")
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    await wait_until(lambda: is_connected(hass, broker.port))
    await keeps(broker, kept_under("other"))


async def test_move_to_another_broker(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """A broker that is no longer used keeps nothing."""
    async with Mosquitto() as other:
        entry = await setup(destination_data(broker.port))
        result = await begin(hass, entry, change=True)
        result = await submit(hass, result, destination_form(other.port))
        assert result["reason"] == "reconfigure_successful"
        await wait_until(lambda: is_connected(hass, broker.port))
        await keeps(other, kept_under("ble"))
        await keeps(broker, set())
        await hass.config_entries.async_unload(entry.entry_id)


async def test_remove(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """What is removed leaves neither messages nor a device; the other one goes on."""
    second = destination_data(broker.port, topic_base="other", client_id="second")
    entry = await setup(destination_data(broker.port), second)
    removed = subentry_id(entry)
    devices = dr.async_get(hass)
    assert devices.async_get_devices(identifiers={(DOMAIN, removed)})
    assert hass.config_entries.async_remove_subentry(entry, removed)
    await hass.async_block_till_done()
    await keeps(broker, kept_under("other"))
    assert not devices.async_get_devices(identifiers={(DOMAIN, removed)})
    async with Subscriber(broker.port, "other/bridge/home/status") as late:
        await late.wait_for_message("other/bridge/home/status", b"online")


async def test_remove_and_add_again(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A bridge may have no destination for a while."""
    entry = await setup(destination_data(broker.port))
    assert hass.config_entries.async_remove_subentry(entry, subentry_id(entry))
    await hass.async_block_till_done()
    assert not entry.subentries
    await keeps(broker, set())
    result = await begin(hass, entry, change=False)
    result = await submit(hass, result, destination_form(broker.port))
    assert result["type"] is FlowResultType.CREATE_ENTRY
    await wait_until(lambda: is_connected(hass, broker.port))


async def test_remove_bridge(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """With the bridge goes all that the broker keeps for it."""
    entry = await setup(destination_data(broker.port))
    await keeps(broker, kept_under("ble"))
    await hass.config_entries.async_remove(entry.entry_id)
    await keeps(broker, set())


async def test_from_home_assistant_broker(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A destination may take its connection from Home Assistant, and then no longer."""
    MockConfigEntry(
        domain="mqtt", data={"broker": "127.0.0.1", "port": broker.port}
    ).add_to_hass(hass)
    entry = await setup(destination_data(broker.port, password="x", username="x"))
    result = await begin(hass, entry, change=True)
    assert shown(result)["broker"] == "custom"
    form = destination_form(broker.port, broker="home_assistant")
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    first = entry.subentries[subentry_id(entry)]
    assert first.title == "Home Assistant's MQTT broker"
    assert first.data["password"] is None
    await wait_until(lambda: is_connected(hass, broker.port))

    result = await begin(hass, entry, change=True)
    assert shown(result)["broker"] == "home_assistant"
    form = destination_form(broker.port, broker="custom")
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    await wait_until(lambda: is_connected(hass, broker.port))
    assert entry.subentries[subentry_id(entry)].data["host"] == "127.0.0.1"
