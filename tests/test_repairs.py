"""What only the user can mend: said, mended in place, and taken back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK
from scripts.simulation.subscriber import Subscriber

from .conftest import destination_data, is_connected, wait_until

MQTT = "custom_components.ble_bridge.destinations.mqtt"


@pytest.fixture(autouse=True)
def quick(tried_soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon, and trust a connection soon."""
    monkeypatch.setattr(f"{MQTT}.UNDISPUTED", 1.5)


@contextmanager
def rival(port: int, protocol: MQTTProtocolVersion) -> Iterator[None]:
    """Connect with our client ID, again and again, as a second bridge would."""
    client = Client(
        CallbackAPIVersion.VERSION2, client_id="ble-bridge-test", protocol=protocol
    )
    client.reconnect_delay_set(1, 1)
    client.connect(LOOPBACK, port)
    client.loop_start()
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


def has_issue(hass: HomeAssistant, issue: str, subentry_id: str) -> bool:
    """Tell whether a destination has an issue."""
    return (DOMAIN, f"{issue}_{subentry_id}") in ir.async_get(hass).issues


async def fix(
    client: Any, issue: str, subentry_id: str, flow_id: str | None = None
) -> Any:
    """Begin to mend an issue, or submit its form, as the frontend does."""
    if flow_id is None:
        url = "/api/repairs/issues/fix"
        body = {"handler": DOMAIN, "issue_id": f"{issue}_{subentry_id}"}
    else:
        url, body = f"/api/repairs/issues/fix/{flow_id}", {}
    response = await client.post(url, json=body)
    assert response.status == HTTPStatus.OK
    return await response.json()


@pytest.mark.parametrize(
    ("protocol", "rivals"),
    # Mosquitto 2.0.11 hangs up without giving a reason, on version 5 too.
    [("auto", MQTTProtocolVersion.MQTTv5), ("3.1.1", MQTTProtocolVersion.MQTTv311)],
)
async def test_client_id_taken(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    broker: Mosquitto,
    setup: Callable[..., Any],
    protocol: str,
    rivals: MQTTProtocolVersion,
) -> None:
    """Two clients that push each other out become an issue, which a new ID mends."""
    assert await async_setup_component(hass, "repairs", {})
    entry = await setup(destination_data(broker.port, protocol=protocol))
    (subentry,) = entry.subentries.values()
    client = await hass_client()
    with rival(broker.port, rivals):
        await wait_until(
            lambda: has_issue(hass, "client_id_taken", subentry.subentry_id)
        )
        result = await fix(client, "client_id_taken", subentry.subentry_id)
        assert result["type"] == "form"
        assert result["step_id"] == "confirm"
        assert result["description_placeholders"] == {"destination": subentry.title}
        result = await fix(
            client, "client_id_taken", subentry.subentry_id, result["flow_id"]
        )
        assert result["type"] == "create_entry"
        await hass.async_block_till_done()
        await wait_until(lambda: is_connected(hass, broker.port))
    (subentry,) = entry.subentries.values()
    assert subentry.data["client_id"] != "ble-bridge-test"
    assert not ir.async_get(hass).issues


async def test_rival_gone(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Once nobody takes the client ID any more, there is nothing to mend."""
    entry = await setup(destination_data(broker.port, protocol="3.1.1"))
    (subentry_id,) = entry.subentries
    with rival(broker.port, MQTTProtocolVersion.MQTTv311):
        await wait_until(lambda: has_issue(hass, "client_id_taken", subentry_id))
    await wait_until(lambda: is_connected(hass, broker.port))
    await wait_until(lambda: not ir.async_get(hass).issues)


async def test_destination_removed_meanwhile(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    broker: Mosquitto,
    setup: Callable[..., Any],
) -> None:
    """A destination that is removed has no issue, and one being mended ends."""
    assert await async_setup_component(hass, "repairs", {})
    entry = await setup(destination_data(broker.port, protocol="3.1.1"))
    (subentry_id,) = entry.subentries
    client = await hass_client()
    with rival(broker.port, MQTTProtocolVersion.MQTTv311):
        await wait_until(lambda: has_issue(hass, "client_id_taken", subentry_id))
        result = await fix(client, "client_id_taken", subentry_id)
        hass.config_entries.async_remove_subentry(entry, subentry_id)
        await hass.async_block_till_done()
    assert not ir.async_get(hass).issues
    result = await fix(client, "client_id_taken", subentry_id, result["flow_id"])
    assert result["type"] == "abort"
    assert result["reason"] == "destination_removed"


async def test_broker_missing(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Home Assistant's MQTT integration goes, and comes back."""
    data = {"broker": LOOPBACK, "port": broker.port}
    theirs = MockConfigEntry(domain="mqtt", data=data)
    theirs.add_to_hass(hass)
    entry = await setup(destination_data(broker.port, broker="home_assistant"))
    (subentry_id,) = entry.subentries
    await hass.config_entries.async_remove(theirs.entry_id)
    await broker.restart()
    await wait_until(lambda: has_issue(hass, "broker_missing", subentry_id))
    MockConfigEntry(domain="mqtt", data=data).add_to_hass(hass)
    await wait_until(lambda: is_connected(hass, broker.port))
    assert not ir.async_get(hass).issues


async def test_follows_the_mqtt_integration(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Another broker entered there is ours too, at once; a change of name is nothing."""
    data = {"broker": LOOPBACK, "port": broker.port}
    theirs = MockConfigEntry(domain="mqtt", data=data)
    theirs.add_to_hass(hass)
    entry = await setup(destination_data(broker.port, broker="home_assistant"))
    bridge = entry.runtime_data
    hass.config_entries.async_update_entry(theirs, title="Renamed")
    await hass.async_block_till_done()
    assert entry.runtime_data is bridge  # Not reloaded
    async with Mosquitto() as other, Subscriber(other.port) as subscriber:
        hass.config_entries.async_update_entry(
            theirs, data={**data, "port": other.port}
        )
        await hass.async_block_till_done()
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")
        await hass.config_entries.async_remove(theirs.entry_id)
        await subscriber.wait_for_message("ble/bridge/home/status", b"offline")
        (subentry_id,) = entry.subentries
        await wait_until(lambda: has_issue(hass, "broker_missing", subentry_id))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_broker_missing_then_refused(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """The MQTT integration comes back with a wrong password: one issue, not two."""
    async with Mosquitto(users={"ble": "right"}) as broker:
        entry = await setup(
            destination_data(broker.port, broker="home_assistant"), connected=False
        )
        (subentry_id,) = entry.subentries
        await wait_until(lambda: has_issue(hass, "broker_missing", subentry_id))
        data = {"broker": LOOPBACK, "port": broker.port, "username": "ble"}
        theirs = MockConfigEntry(domain="mqtt", data={**data, "password": "wrong"})
        theirs.add_to_hass(hass)
        await wait_until(lambda: has_issue(hass, "broker_refused", subentry_id))
        assert len(ir.async_get(hass).issues) == 1
        hass.config_entries.async_update_entry(
            theirs, data={**data, "password": "right"}
        )
        await wait_until(lambda: is_connected(hass, broker.port))
        assert not ir.async_get(hass).issues
        await hass.config_entries.async_unload(entry.entry_id)
