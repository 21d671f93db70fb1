"""Devices whose packets are encrypted: right key, wrong key, none."""

from http import HTTPStatus
from typing import Any

from homeassistant.config_entries import ConfigEntryDisabler
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN

from ..layouts.samples import validated
from .home import ADDRESS, BALCONY, FIELDS, KEY, Home, bthome, encrypted

WRONG = "00112233445566778899aabbccddeeff"
# The test vector of bthome.io, of a device with this address
VECTOR_ADDRESS = "54:48:E6:8F:80:A5"
VECTOR = bytes.fromhex("1216d2fc41a47266c95f730011223378237214")


async def test_published_packet(home: Home) -> None:
    """The example of the format's documentation says what it should."""
    await home.start({"address": VECTOR_ADDRESS, "alias": "Balcony", "key": KEY})
    home.hear(VECTOR, VECTOR_ADDRESS)
    await home.until("temperature", "25.06")
    assert home.value("humidity") == "50.55"
    await home.settle()
    assert home.payloads(f"{FIELDS}/v/temperature") == [{"value": 25.06}]
    assert home.issues() == set()
    assert home.topics(f"{FIELDS}/errors/") == set()


@pytest.mark.parametrize(
    ("key", "issue"), [(None, "key_missing"), (WRONG, "key_wrong")]
)
async def test_key_missing_or_wrong(
    home: Home, key: str | None, issue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The user is asked for it, and no more once it is right; there is no flood."""
    await home.start({**BALCONY, "key": key})
    for counter in range(1, 20):
        home.hear(encrypted(21.5, counter))
        await home.hass.async_block_till_done()
    await home.subscriber.wait_for_message(f"{FIELDS}/errors/{issue}")
    assert home.issues() == {issue}
    assert home.entity_id("temperature") is None
    assert home.value("signal_presence") == "on"
    lines = len(caplog.records)
    for counter in range(20, 40):
        home.hear(encrypted(21.5, counter))
    await home.settle()
    ours = [r for r in caplog.records[lines:] if r.levelname not in ("DEBUG", "INFO")]
    assert not ours
    (error,) = home.subscriber.on_topic(f"{FIELDS}/errors/{issue}")
    assert validated(error.payload, "error")["Name"] == issue
    assert KEY not in error.payload.decode()
    # After a while it is told once more, with how often it was.
    await home.tick(301)
    home.hear(encrypted(21.5, 40))
    await home.settle()
    first, second = home.payloads(f"{FIELDS}/errors/{issue}")
    assert int(second["Tags"]["count"]) > int(first["Tags"]["count"]) + 20
    await home.change(home.devices[0], key=KEY)
    await home.connected()
    home.hear(encrypted(22, 41))
    await home.until("temperature", "22.0")
    assert home.issues() == set()


async def test_key_that_changes(home: Home) -> None:
    """A device that is paired anew asks for the other key, and keeps its values."""
    await home.start({**BALCONY, "key": KEY})
    home.hear(encrypted(21.5, 1))
    await home.until("temperature", "21.5")
    home.hear(encrypted(22, 2, WRONG))
    await home.settle()
    assert home.issues() == {"key_wrong"}
    assert home.value("temperature") == "21.5"
    home.hear(encrypted(23, 3))
    await home.settle()
    assert home.issues() == set()
    assert home.value("temperature") == "23.0"


@pytest.mark.parametrize("how", ["removed", "disabled", "entry removed", "plain"])
async def test_nobody_is_asked_any_more(home: Home, how: str) -> None:
    """A device that is gone, or not encrypted any more, needs no key."""
    await home.start(BALCONY)
    home.hear(encrypted(21.5, 1))
    await home.subscriber.wait_for_message(f"{FIELDS}/errors/key_missing")
    assert home.issues() == {"key_missing"}
    if how == "removed":
        await home.remove(home.devices[0])
    elif how == "disabled":
        await home.hass.config_entries.async_set_disabled_by(
            home.entry.entry_id, ConfigEntryDisabler.USER
        )
    elif how == "entry removed":
        await home.hass.config_entries.async_remove(home.entry.entry_id)
    else:
        home.hear(bthome(temperature=22))
        await home.settle()
    assert home.issues() == set()


async def test_replayed(home: Home) -> None:
    """A packet from before, which a stranger says again, makes no reading."""
    await home.start({**BALCONY, "key": KEY})
    home.hear(encrypted(21, 100), age=30)
    await home.until("temperature", "21.0")
    home.hear(encrypted(22, 101), age=5)
    home.hear(encrypted(19, 99), age=4)
    await home.settle()
    assert home.value("temperature") == "22.0"
    assert home.issues() == set()
    assert home.payloads(f"{FIELDS}/v/temperature") == [{"value": 21}, {"value": 22}]
    assert ADDRESS in {m.topic.split("/")[-1] for m in home.messages("ble/raw/")}


async def test_plain_after_a_reload(home: Home) -> None:
    """A device that is not encrypted any more when the bridge is back needs no key."""
    await home.start(BALCONY)
    home.hear(encrypted(21.5, 1))
    await home.subscriber.wait_for_message(f"{FIELDS}/errors/key_missing")
    await home.restart()
    home.hear(bthome(temperature=22))
    await home.until("temperature", "22.0")
    assert home.issues() == set()


@pytest.mark.parametrize("issue", ["key_missing", "key_wrong"])
async def test_mended_in_place(
    home: Home, hass_client: ClientSessionGenerator, issue: str
) -> None:
    """The repair asks for the key, says what is wrong with one, and is done with it."""
    assert await async_setup_component(home.hass, "repairs", {})
    await home.start({**BALCONY, "key": WRONG if issue == "key_wrong" else None})
    home.hear(encrypted(21.5, 1))
    await home.settle()
    assert home.issues() == {issue}
    client = await hass_client()

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post as the frontend does, and return the answer."""
        response = await client.post(f"/api/repairs/issues/fix{path}", json=body)
        assert response.status == HTTPStatus.OK
        answer: dict[str, Any] = await response.json()
        return answer

    issue_id = f"{issue}_{home.devices[0].subentry_id}"
    form = await post("", {"handler": DOMAIN, "issue_id": issue_id})
    assert (form["type"], form["step_id"]) == ("form", "confirm")
    assert form["description_placeholders"] == {"device": "Balcony"}
    path = f"/{form['flow_id']}"
    assert (await post(path, {"key": "abc"}))["errors"] == {"key": "invalid_key"}
    other = "ffeeddccbbaa99887766554433221100"
    assert (await post(path, {"key": other}))["errors"] == {"key": "key_wrong"}
    assert home.devices[0].data["key"] != KEY
    assert (await post(path, {"key": KEY.upper()}))["type"] == "create_entry"
    await home.connected()
    assert home.devices[0].data["key"] == KEY
    assert home.issues() == set()
    home.hear(encrypted(22, 2))
    await home.until("temperature", "22.0")


async def test_removed_while_it_is_mended(
    home: Home, hass_client: ClientSessionGenerator
) -> None:
    """A device that is gone needs no key, and takes the question along."""
    assert await async_setup_component(home.hass, "repairs", {})
    await home.start(BALCONY)
    home.hear(encrypted(21.5, 1))
    await home.settle()
    client = await hass_client()
    issue_id = f"key_missing_{home.devices[0].subentry_id}"
    body = {"handler": DOMAIN, "issue_id": issue_id}
    response = await client.post("/api/repairs/issues/fix", json=body)
    form = await response.json()
    await home.remove(home.devices[0])
    assert home.issues() == set()
    path = f"/api/repairs/issues/fix/{form['flow_id']}"
    response = await client.post(path, json={"key": KEY})
    assert (await response.json())["reason"] == "device_removed"


async def test_ignored(home: Home) -> None:
    """A question that the user does not want to hear is not asked anew by a reload."""
    await home.start(BALCONY)
    home.hear(encrypted(21.5, 1))
    await home.settle()
    issue_id = f"key_missing_{home.devices[0].subentry_id}"
    ir.async_ignore_issue(home.hass, DOMAIN, issue_id, True)
    await home.restart()
    home.hear(encrypted(21.5, 2))
    await home.settle()
    issue = ir.async_get(home.hass).async_get_issue(DOMAIN, issue_id)
    assert issue is not None
    assert issue.dismissed_version
