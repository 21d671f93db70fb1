"""Certificates that fail, refusals and stores that the user can mend, in place."""

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import FormData
from freezegun.api import FrozenDateTimeFactory
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge import repairs
from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.errors import Problem
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK

from .conftest import destination_data, is_connected, wait_until
from .forms import Authority, make_authority

pytestmark = pytest.mark.usefixtures("tried_soon")
REFUSALS = [Problem.NOT_AUTHORIZED, Problem.QUOTA_EXCEEDED, Problem.TOO_LARGE]


@pytest.fixture(name="authority", scope="module")
def authority_fixture(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority of the home."""
    return make_authority(tmp_path_factory.mktemp("authority"), days=100)


@pytest.fixture(name="other", scope="module")
def other_fixture(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return another authority."""
    return make_authority(tmp_path_factory.mktemp("other"), "Other", days=100)


class Frontend:
    """Mends an issue of a destination as the frontend does."""

    def __init__(self, client: Any, subentry_id: str) -> None:
        """Initialize with a client of Home Assistant's web server."""
        self._client = client
        self._subentry_id = subentry_id
        self._flow_id = ""

    async def begin(self, issue: str) -> Any:
        """Open the form."""
        body = {"handler": DOMAIN, "issue_id": f"{issue}_{self._subentry_id}"}
        response = await self._client.post("/api/repairs/issues/fix", json=body)
        assert response.status == HTTPStatus.OK
        result = await response.json()
        self._flow_id = result["flow_id"]
        return result

    async def submit(self, **entered: Any) -> Any:
        """Submit the form."""
        url = f"/api/repairs/issues/fix/{self._flow_id}"
        response = await self._client.post(url, json=entered)
        assert response.status == HTTPStatus.OK
        return await response.json()

    async def upload(self, file: Path) -> str:
        """Upload a file."""
        form = FormData()
        form.add_field("file", file.read_bytes(), filename="file.pem")
        response = await self._client.post("/api/file_upload", data=form)
        file_id: str = (await response.json())["file_id"]
        return file_id


@pytest.fixture(name="frontend")
async def frontend_fixture(
    hass: HomeAssistant, hass_client: ClientSessionGenerator
) -> Callable[..., Any]:
    """Return what makes a frontend for the first destination of an entry."""

    async def make(entry: MockConfigEntry) -> Frontend:
        assert await async_setup_component(hass, "repairs", {})
        return Frontend(await hass_client(), next(iter(entry.subentries)))

    return make


def issues(hass: HomeAssistant) -> set[str]:
    """Return the issues there are, without the destinations they are of."""
    return {issue.rpartition("_")[0] for _, issue in ir.async_get(hass).issues}


def secured(authority: Authority, name: str = LOOPBACK, **changes: Any) -> Mosquitto:
    """Return a broker with a certificate of an authority."""
    certificate = authority.issue(name, expired=changes.pop("expired", False))
    return Mosquitto(certificate=certificate.path, key=certificate.key, **changes)


def trusting(broker: Mosquitto, authority: Authority, **changes: Any) -> dict[str, Any]:
    """Return the data of a destination that trusts an authority."""
    return destination_data(
        broker.port, tls=True, ca_certificate=authority.path.read_text(), **changes
    )


async def test_untrusted(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    authority: Authority,
    other: Authority,
    tmp_path: Path,
) -> None:
    """The right authority is uploaded in place, after others that are not."""
    async with secured(authority) as broker:
        entry = await setup(trusting(broker, other), connected=False)
        await wait_until(lambda: issues(hass) == {"certificate_untrusted"})
        user = await frontend(entry)
        result = await user.begin("certificate_untrusted")
        assert result["type"] == "form"
        assert result["description_placeholders"]["destination"] == (
            f"{LOOPBACK}:{broker.port}"
        )
        result = await user.submit()
        assert result["errors"] == {"base": "certificate_untrusted"}
        nothing = tmp_path / "nothing"
        nothing.write_text("nothing")
        result = await user.submit(ca_certificate=await user.upload(nothing))
        assert result["errors"] == {"base": "ca_invalid"}
        old = other.issue("old", expired=True).path
        result = await user.submit(ca_certificate=await user.upload(old))
        assert result["errors"] == {"base": "ca_outdated"}
        yesterday = (dt_util.now() - timedelta(days=1)).date().isoformat()
        assert result["description_placeholders"]["date"] == yesterday
        result = await user.submit(ca_certificate="0" * 32)
        assert result["errors"] == {"base": "upload_gone"}
        right = await user.upload(authority.path)
        await broker.stop()
        result = await user.submit(ca_certificate=right)
        assert result["errors"] == {"base": "no_connection"}
        assert result["description_placeholders"]["problem"] == "Nothing answers"
        await broker.start()
        result = await user.submit(ca_certificate=right)
        assert result["type"] == "create_entry"
        await hass.async_block_till_done()
        await wait_until(lambda: is_connected(hass, broker.port))
        assert not issues(hass)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_expired(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    authority: Authority,
) -> None:
    """A broker that is given a new certificate is tried again; nothing is to be entered."""
    async with secured(authority, expired=True) as broker:
        entry = await setup(trusting(broker, authority), connected=False)
        await wait_until(lambda: issues(hass) == {"certificate_expired"})
        user = await frontend(entry)
        await user.begin("certificate_expired")
        result = await user.submit()
        assert result["errors"] == {"base": "certificate_expired"}
        port = broker.port
    renewed = secured(authority, port=port)
    with patch(
        "custom_components.ble_bridge.kinds.mqtt.MqttKind.async_test",
        return_value={"base": "unknown"},
    ):
        result = await user.submit()
        assert result["errors"] == {"base": "no_connection"}
        assert result["description_placeholders"]["problem"] == "Unexpected error"
    async with renewed:
        result = await user.submit()
        assert result["type"] == "create_entry"
        await wait_until(lambda: is_connected(hass, port))
        assert not issues(hass)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_other_name(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    authority: Authority,
) -> None:
    """The name in the certificate is entered in place."""
    async with secured(authority, "broker.example") as broker:
        entry = await setup(trusting(broker, authority), connected=False)
        await wait_until(lambda: issues(hass) == {"certificate_name"})
        user = await frontend(entry)
        await user.begin("certificate_name")
        for name, error in (
            ("a b", "invalid_server_name"),
            ("other.example", "certificate_name"),
            ("", "certificate_name"),
        ):
            result = await user.submit(server_name=name)
            assert result["errors"] == {"base": error}
        result = await user.submit(server_name=" broker.example ")
        assert result["type"] == "create_entry"
        await wait_until(lambda: is_connected(hass, broker.port))
        (subentry,) = entry.subentries.values()
        assert subentry.data["server_name"] == "broker.example"
        assert not issues(hass)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_client_certificate(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    authority: Authority,
    other: Authority,
) -> None:
    """A client certificate that the broker accepts is uploaded in place."""
    lines = ["require_certificate true", f"cafile {authority.path}"]
    right, wrong = authority.issue("client"), other.issue("client")
    async with secured(authority, config_lines=lines) as broker:
        entry = await setup(trusting(broker, authority), connected=False)
        await wait_until(lambda: issues(hass) == {"client_certificate_refused"})
        user = await frontend(entry)
        await user.begin("client_certificate_refused")
        result = await user.submit()
        assert result["errors"] == {"base": "client_certificate_missing"}
        pair = {
            "client_certificate": await user.upload(right.path),
            "client_key": await user.upload(wrong.key),
        }
        result = await user.submit(**pair)
        assert result["errors"] == {"base": "client_key_mismatch"}
        strange = {**pair, "client_certificate": await user.upload(wrong.path)}
        result = await user.submit(**strange)
        assert result["errors"] == {"base": "client_certificate_refused"}
        pair["client_key"] = await user.upload(right.key)
        result = await user.submit(**pair)
        assert result["type"] == "create_entry"
        await wait_until(lambda: is_connected(hass, broker.port))
        await wait_until(lambda: issues(hass) == {"client_certificate_expires"})
        await hass.config_entries.async_unload(entry.entry_id)
    assert not issues(hass)


async def test_works_again(
    hass: HomeAssistant, setup: Callable[..., Any], authority: Authority
) -> None:
    """What is mended at the broker is no longer asked for."""
    async with secured(authority, expired=True) as broker:
        entry = await setup(trusting(broker, authority), connected=False)
        await wait_until(lambda: issues(hass) == {"certificate_expired"})
        port = broker.port
    async with secured(authority, "broker.example", port=port):
        await wait_until(lambda: issues(hass) == {"certificate_name"})
    async with secured(authority, port=port):
        await wait_until(lambda: not issues(hass))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_home_assistant_broker(
    hass: HomeAssistant, setup: Callable[..., Any], authority: Authority
) -> None:
    """Certificates of Home Assistant's MQTT integration are mended there."""
    async with secured(authority) as broker:
        data = {"broker": LOOPBACK, "port": broker.port, "certificate": "auto"}
        theirs = MockConfigEntry(domain="mqtt", data=data)
        theirs.add_to_hass(hass)
        entry = await setup(
            destination_data(broker.port, broker="home_assistant"), connected=False
        )
        await wait_until(lambda: issues(hass) == {"broker_certificate"})
        (issue,) = ir.async_get(hass).issues.values()
        assert not issue.is_fixable
        hass.config_entries.async_update_entry(
            theirs, data={**data, "certificate": authority.path.read_text()}
        )
        await wait_until(lambda: is_connected(hass, broker.port))
        assert not issues(hass)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_removed_meanwhile(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    authority: Authority,
    other: Authority,
) -> None:
    """A destination that is removed has no issue, and one being mended ends."""
    async with secured(authority) as broker:
        entry = await setup(trusting(broker, other), connected=False)
        await wait_until(lambda: issues(hass) == {"certificate_untrusted"})
        user = await frontend(entry)
        await user.begin("certificate_untrusted")
        hass.config_entries.async_remove_subentry(entry, next(iter(entry.subentries)))
        await hass.async_block_till_done()
        assert not issues(hass)
        result = await user.submit()
        assert result["reason"] == "destination_removed"


# --- certificates that expire soon --------------------------------------------------------


async def test_expires_soon(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    tmp_path: Path,
    freezer: FrozenDateTimeFactory,
) -> None:
    """A month before a certificate expires a warning says when, and goes with it."""
    authority = make_authority(tmp_path, days=33)
    client = authority.issue("client", days=31)
    entry = await setup(
        destination_data(
            1,
            tls=True,
            ca_certificate=authority.path.read_text(),
            client_certificate=client.path.read_text(),
            client_key=client.key.read_text(),
        ),
        connected=False,
    )
    assert not issues(hass)

    async def tomorrow() -> None:
        freezer.tick(timedelta(days=1, minutes=1))
        async_fire_time_changed(hass)
        await hass.async_block_till_done()

    today = dt_util.now()
    await tomorrow()
    await tomorrow()
    (issue,) = ir.async_get(hass).issues.values()
    assert issue.translation_key == "client_certificate_expires"
    assert issue.severity is ir.IssueSeverity.WARNING
    assert issue.translation_placeholders is not None
    expected = (today + timedelta(days=31)).date().isoformat()
    assert issue.translation_placeholders["date"] == expected
    await tomorrow()
    await tomorrow()
    assert issues(hass) == {"ca_expires", "client_certificate_expires"}
    # With TLS switched off nothing is used that could expire.
    (subentry,) = entry.subentries.values()
    hass.config_entries.async_update_subentry(
        entry, subentry, data={**subentry.data, "tls": False}
    )
    await hass.async_block_till_done()
    assert not issues(hass)


# --- refusals and stores ------------------------------------------------------------------


@pytest.mark.parametrize("problem", REFUSALS)
async def test_refusals(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
    problem: Problem,
) -> None:
    """What the broker refuses is tried again when the user has had it allowed."""
    entry = await setup(destination_data(broker.port))
    (subentry,) = entry.subentries.values()
    repairs.async_update_refusals(hass, entry, subentry, {problem})
    assert issues(hass) == {problem}
    answers: list[Problem | None] = [problem, Problem.CONNECTION_LOST, None]
    asked = []

    async def retry(subentry_id: str) -> Problem | None:
        asked.append(subentry_id)
        return answers[len(asked) - 1]

    entry.runtime_data.async_retry = retry
    user = await frontend(entry)
    result = await user.begin(problem)
    assert result["description_placeholders"]["destination"] == subentry.title
    result = await user.submit()
    assert result["errors"] == {"base": problem}
    result = await user.submit()
    assert result["errors"] == {"base": "no_connection"}
    assert result["description_placeholders"]["problem"] == "Connection lost"
    result = await user.submit()
    assert result["type"] == "create_entry"
    assert asked == [subentry.subentry_id] * 3
    assert not issues(hass)


async def test_refusals_come_and_go(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
) -> None:
    """Each refusal has an issue of its own, beside those of the connection."""
    entry = await setup(destination_data(broker.port))
    (subentry,) = entry.subentries.values()
    repairs.async_update_refusals(hass, entry, subentry, REFUSALS[:2])
    assert issues(hass) == set(REFUSALS[:2])
    repairs.async_update(hass, entry, subentry, None)
    repairs.async_update_refusals(hass, entry, subentry, REFUSALS[1:])
    assert issues(hass) == set(REFUSALS[1:])
    user = await frontend(entry)
    await user.begin(Problem.TOO_LARGE)
    await hass.config_entries.async_unload(entry.entry_id)
    assert not issues(hass)
    result = await user.submit()
    assert result["reason"] == "not_loaded"


async def test_refusal_of_a_destination_that_is_removed(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
) -> None:
    """There is nothing to try again."""
    entry = await setup(destination_data(broker.port))
    (subentry,) = entry.subentries.values()
    repairs.async_update_refusals(hass, entry, subentry, REFUSALS)
    user = await frontend(entry)
    await user.begin(Problem.TOO_LARGE)
    hass.config_entries.async_remove_subentry(entry, subentry.subentry_id)
    await hass.async_block_till_done()
    assert not issues(hass)
    result = await user.submit()
    assert result["reason"] == "destination_removed"


async def test_store_failed(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A full disk is told of until there is room."""
    entry = await setup(destination_data(broker.port))
    (subentry,) = entry.subentries.values()
    repairs.async_update_store(hass, entry, subentry, Problem.STORE_FAILED)
    (issue,) = ir.async_get(hass).issues.values()
    assert (issue.translation_key, issue.is_fixable) == ("store_failed", False)
    repairs.async_update_store(hass, entry, subentry, None)
    assert not issues(hass)
    repairs.async_update_store(hass, entry, subentry, Problem.STORE_FAILED)
    await hass.config_entries.async_unload(entry.entry_id)
    assert not issues(hass)


async def test_store_corrupt(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Callable[..., Any],
    frontend: Callable[..., Any],
) -> None:
    """That something may be lost stays said until it is read, or there is nothing left."""
    entry = await setup(
        destination_data(broker.port),
        destination_data(broker.port, topic_base="other", client_id="other"),
        destination_data(broker.port, topic_base="third", client_id="third"),
    )
    subentries = [*entry.subentries.values()]
    for subentry in subentries:
        repairs.async_update_store(hass, entry, subentry, Problem.STORE_CORRUPT)
        repairs.async_update_store(hass, entry, subentry, None)
    await hass.config_entries.async_reload(entry.entry_id)
    assert len(ir.async_get(hass).issues) == 3
    user = await frontend(entry)
    result = await user.begin("store_corrupt")
    assert result["description_placeholders"] == {"destination": subentries[0].title}
    result = await user.submit()
    assert result["type"] == "create_entry"
    assert len(ir.async_get(hass).issues) == 2
    hass.config_entries.async_remove_subentry(entry, subentries[1].subentry_id)
    await hass.async_block_till_done()
    assert len(ir.async_get(hass).issues) == 1
    await hass.config_entries.async_remove(entry.entry_id)
    assert not issues(hass)
