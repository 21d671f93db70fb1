"""What is asked when a broker no longer accepts the credentials."""

from collections.abc import Callable
from typing import Any

from homeassistant.config_entries import SOURCE_REAUTH, ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto

from .conftest import destination_data, is_connected, wait_until

pytestmark = pytest.mark.usefixtures("tried_soon")
RIGHT = {"username": "ble", "password": "new"}


def questions(hass: HomeAssistant) -> list[Any]:
    """Return the questions for credentials that are open."""
    return [
        flow
        for flow in hass.config_entries.flow.async_progress_by_handler(DOMAIN)
        if flow["context"]["source"] == SOURCE_REAUTH
    ]


async def change_password(broker: Mosquitto, users: dict[str, str], new: str) -> None:
    """Give the user another password, as its owner would."""
    users["ble"] = new
    await broker.restart()


async def ask(
    hass: HomeAssistant, broker: Mosquitto, users: dict[str, str]
) -> dict[str, Any]:
    """Have the broker refuse the credentials, and return the question."""
    await change_password(broker, users, "new")
    await wait_until(lambda: questions(hass))
    (question,) = questions(hass)
    flow: dict[str, Any] = question
    assert flow["step_id"] == "reauth_confirm"
    return flow


async def answer(
    hass: HomeAssistant, flow: dict[str, Any], credentials: dict[str, Any] | None
) -> Any:
    """Answer the question."""
    return await hass.config_entries.flow.async_configure(flow["flow_id"], credentials)


async def test_new_password(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """The user is asked until the password is right; then all goes on."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        entry: ConfigEntry[Any] = await setup(
            destination_data(broker.port, username="ble", password="old")
        )
        (subentry,) = entry.subentries.values()
        flow = await ask(hass, broker, users)
        assert flow["context"]["title_placeholders"]["name"] == subentry.title
        await hass.async_block_till_done()
        assert not is_connected(hass, broker.port)
        assert [issue for _, issue in ir.async_get(hass).issues] == [
            f"config_entry_reauth_{DOMAIN}_{entry.entry_id}"
        ]

        form = await answer(hass, flow, None)
        assert form["description_placeholders"]["destination"] == subentry.title
        fields = {str(key): key.description for key in form["data_schema"].schema}
        assert fields["username"] == {"suggested_value": "ble"}
        assert not fields["password"]

        for wrong in ({}, {"username": "ble"}, {"username": "ble", "password": "old"}):
            form = await answer(hass, flow, wrong)
            assert form["type"] is FlowResultType.FORM
            assert form["errors"] == {"base": "invalid_auth"}

        result = await answer(hass, flow, RIGHT)
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "reauth_successful"
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.async_block_till_done()
        assert not questions(hass)
        assert not ir.async_get(hass).issues
        (subentry,) = entry.subentries.values()
        assert subentry.data["password"] == "new"
        await hass.config_entries.async_unload(entry.entry_id)


async def test_broker_away(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """An answer that cannot be tried is not taken."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="old")
        )
        flow = await ask(hass, broker, users)
        await broker.stop()
        form = await answer(hass, flow, RIGHT)
        assert form["errors"] == {"base": "cannot_connect"}
        await broker.start()
        result = await answer(hass, flow, RIGHT)
        assert result["reason"] == "reauth_successful"
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_accepted_again(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """Where the broker accepts the credentials again, nobody is asked any more."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="old")
        )
        await ask(hass, broker, users)
        await change_password(broker, users, "old")
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.async_block_till_done()
        assert not questions(hass)
        assert not ir.async_get(hass).issues
        await hass.config_entries.async_unload(entry.entry_id)


async def test_destination_removed(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """Nobody is asked about a destination that is removed."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="old")
        )
        await ask(hass, broker, users)
        hass.config_entries.async_remove_subentry(entry, next(iter(entry.subentries)))
        await hass.async_block_till_done()
        assert not questions(hass)
        assert not ir.async_get(hass).issues


async def test_destination_removed_while_not_loaded(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """A question that was left open ends when it is answered."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        entry = await setup(
            destination_data(broker.port, username="ble", password="old")
        )
        flow = await ask(hass, broker, users)
        await hass.config_entries.async_unload(entry.entry_id)
        hass.config_entries.async_remove_subentry(entry, next(iter(entry.subentries)))
        result = await answer(hass, flow, RIGHT)
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "destination_removed"


async def test_two_destinations(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """Each destination that is refused is asked for, one after the other."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        login = {"username": "ble", "password": "old"}
        other = {"topic_base": "other", "client_id": "other"}
        entry = await setup(
            destination_data(broker.port, **login),
            destination_data(broker.port, **login, **other),
        )
        asked = set()
        await ask(hass, broker, users)
        for _ in range(2):
            await wait_until(lambda: questions(hass))
            (flow,) = questions(hass)
            asked.add(flow["context"]["title_placeholders"]["subentry_id"])
            result = await answer(hass, flow, RIGHT)
            assert result["reason"] == "reauth_successful"
        assert asked == set(entry.subentries)
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_home_assistant_broker(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """The credentials of Home Assistant's MQTT integration are mended there."""
    users = {"ble": "old"}
    async with Mosquitto(users=users) as broker:
        data = {"broker": "127.0.0.1", "port": broker.port, "username": "ble"}
        theirs = MockConfigEntry(domain="mqtt", data={**data, "password": "old"})
        theirs.add_to_hass(hass)
        entry = await setup(destination_data(broker.port, broker="home_assistant"))
        (subentry_id,) = entry.subentries
        issue = (DOMAIN, f"broker_refused_{subentry_id}")
        await change_password(broker, users, "new")
        await wait_until(lambda: issue in ir.async_get(hass).issues)
        assert not questions(hass)
        hass.config_entries.async_update_entry(theirs, data={**data, "password": "new"})
        await wait_until(lambda: is_connected(hass, broker.port))
        assert not ir.async_get(hass).issues
        await hass.config_entries.async_unload(entry.entry_id)
