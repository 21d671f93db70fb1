"""Health over HTTP: who may ask, and what is well."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from http import HTTPStatus
import json
from pathlib import Path
import re
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import REPOSITORY
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    ADDRESS,
    SimulatedScanner,
    add_monitor,
    destination_data,
    wait_until,
)
from .destinations.faults import ObedientBroker, arrived, stream
from .devices.home import bthome
from .monitors.garage import DEVICE, Garage, status, telemetry

HEALTH = f"/api/{DOMAIN}/health"
METRICS = f"/api/{DOMAIN}/metrics"
DOCUMENTED = (REPOSITORY / "docs/metrics.md").read_text(encoding="utf-8")
EXAMPLE = json.loads(DOCUMENTED.partition("```json\n")[2].partition("```")[0])
# A monitor that listens, and has heard nothing yet.
UNHEARD = {
    "title": "Garage",
    "status": "healthy",
    "broker_connected": True,
    "last_message_time": None,
    "messages_processed": 0,
    "errors_count": 0,
    "problems": [],
    "last_error": None,
}

type Setup = Callable[..., Any]
type Ask = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(name="ask")
async def ask_fixture(hass: HomeAssistant, hass_client: ClientSessionGenerator) -> Ask:
    """Return what asks until there are certain problems and no others."""
    assert await async_setup_component(hass, DOMAIN, {})
    client = await hass_client()

    async def ask(*problems: str) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while True:
                response = await client.get(HEALTH)
                health: dict[str, Any] = await response.json()
                is_well = health["status"] == "healthy"
                assert is_well == (response.status == HTTPStatus.OK)
                if not is_well:
                    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
                assert health.keys() == EXAMPLE.keys()
                parts = *health["destinations"].values(), *health["monitors"].values()
                for part in (health, *parts):
                    assert part["status"] in ("healthy", "unhealthy")
                    assert (part["status"] == "healthy") == (not part["problems"])
                if health["problems"] == list(problems):
                    return health
                await asyncio.sleep(0.02)

    return ask


@pytest.mark.parametrize("url", [HEALTH, METRICS])
async def test_token(
    hass: HomeAssistant,
    enable_bluetooth: None,
    hass_client_no_auth: ClientSessionGenerator,
    hass_client: ClientSessionGenerator,
    hass_read_only_access_token: str,
    url: str,
) -> None:
    """Nobody gets an answer without a token, and who may only look gets one."""
    assert await async_setup_component(hass, DOMAIN, {})
    nobody = await hass_client_no_auth()
    assert (await nobody.get(url)).status == HTTPStatus.UNAUTHORIZED
    wrong = {"Authorization": f"Bearer {hass_read_only_access_token}x"}
    assert (await nobody.get(url, headers=wrong)).status == HTTPStatus.UNAUTHORIZED
    anybody = await hass_client(hass_read_only_access_token)
    assert (await anybody.get(url)).status != HTTPStatus.UNAUTHORIZED
    assert (await anybody.post(url)).status == HTTPStatus.METHOD_NOT_ALLOWED


async def test_no_bridge(
    hass: HomeAssistant, enable_bluetooth: None, ask: Ask, setup: Setup
) -> None:
    """Without a bridge nothing is well; one that has nowhere to send has no problem."""
    assert await ask("not_loaded") == {
        "status": "unhealthy",
        "broker_connected": False,
        "last_message_time": None,
        "messages_processed": 0,
        "errors_count": 0,
        "problems": ["not_loaded"],
        "destinations": {},
        "monitors": {},
    }
    entry = await setup()
    assert (await ask())["destinations"] == {}
    assert await hass.config_entries.async_unload(entry.entry_id)
    await ask("not_loaded")


@pytest.mark.usefixtures("tried_soon")
async def test_broker_that_goes_and_comes(
    scanner: SimulatedScanner,
    broker: Mosquitto,
    subscriber: Subscriber,
    setup: Setup,
    ask: Ask,
) -> None:
    """One destination that is away makes the bridge unhealthy, until it is back."""
    async with Mosquitto() as other:
        entry = await setup(
            destination_data(broker.port),
            destination_data(other.port, client_id="other"),
        )
        first, second = entry.subentries
        before = dt_util.utcnow() - timedelta(seconds=1)
        await stream(scanner, 0, 30)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 30)
        health = await ask()
        assert health["broker_connected"] is True
        assert health["destinations"].keys() == {first, second}
        assert health["destinations"][first] == {
            "kind": "mqtt",
            "title": f"127.0.0.1:{broker.port}",
            "status": "healthy",
            "broker_connected": True,
            "last_message_time": health["destinations"][first]["last_message_time"],
            "messages_processed": 30,
            "errors_count": 0,
            "problems": [],
            "last_error": None,
        }
        assert before < _time(health) < dt_util.utcnow() + timedelta(seconds=1)

        await other.kill()
        health = await ask("not_connected")
        assert health["broker_connected"] is False
        assert health["destinations"][first]["status"] == "healthy"
        away = health["destinations"][second]
        assert (away["status"], away["broker_connected"]) == ("unhealthy", False)
        assert away["problems"] == ["not_connected"]
        assert away["last_error"] in ("connection_lost", "cannot_connect")

        last = _time(health)
        await stream(scanner, 30, 10)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 40)
        health = await ask("not_connected")
        assert health["destinations"][first]["messages_processed"] == 40
        assert _time(health) >= last

        await other.start()
        health = await ask()
        last_error = health["destinations"][second]["last_error"]
        assert last_error in ("connection_lost", "cannot_connect")
        total = sum(d["messages_processed"] for d in health["destinations"].values())
        assert health["messages_processed"] == total


def _time(health: dict[str, Any]) -> datetime:
    """Return when a message went out last."""
    found = dt_util.parse_datetime(health["last_message_time"], raise_on_error=True)
    assert health["last_message_time"].endswith("Z")
    assert found.tzinfo
    return found


@pytest.mark.usefixtures("tried_soon")
async def test_refused(
    hass: HomeAssistant, enable_bluetooth: None, tmp_path: Path, setup: Setup, ask: Ask
) -> None:
    """What the broker does not allow is an error, and a problem until it does."""
    acl = tmp_path / "acl"
    rules = "topic readwrite ble/#\n"
    acl.write_text(rules)
    async with Mosquitto(config_lines=[f"acl_file {acl}"]) as broker:
        await setup(destination_data(broker.port))
        message = {"topic": "mine/x", "payload": "1", "qos": 1}
        with pytest.raises(HomeAssistantError):
            await hass.services.async_call(DOMAIN, "publish", message, blocking=True)
        health = await ask("not_authorized")
        assert health["errors_count"] == 1
        acl.write_text(rules + "topic write mine/#\n")
        await broker.restart()
        await ask("not_authorized")
        await hass.services.async_call(DOMAIN, "publish", message, blocking=True)
        health = await ask()
        assert health["errors_count"] == 1


@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_monitors(hass: HomeAssistant, broker: Mosquitto, ask: Ask) -> None:
    """A monitor is well while messages can come; the bridge is as well as its monitors."""
    garage = Garage(hass, broker)
    await garage.start({}, {"topic_base": "other", "max_kilobytes": 1})
    (example,) = EXAMPLE["monitors"].values()
    first, second = (monitor.subentry_id for monitor in garage.monitors)
    health = await ask()
    assert list(health["monitors"]) == [first, second]
    assert health["monitors"][first] == UNHEARD
    assert health["monitors"][first].keys() == example.keys()
    before = dt_util.utcnow() - timedelta(seconds=1)
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/status", b"{")
    health = await ask()
    heard = health["monitors"][first]
    assert (heard["messages_processed"], heard["errors_count"]) == (1, 1)
    assert before <= _time(heard)
    assert health["monitors"][second]["messages_processed"] == 0
    # What monitors hear is nothing that the bridge has sent
    assert health["messages_processed"] == health["errors_count"] == 0

    await broker.stop()
    health = await ask("not_connected", "not_listening")
    for said in health["monitors"].values():
        assert (said["status"], said["broker_connected"]) == ("unhealthy", False)
    await broker.start()
    await ask()
    await garage.close()


@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_monitor_that_may_not_listen(hass: HomeAssistant, ask: Ask) -> None:
    """A broker that lets nobody listen makes the monitor unwell, and says why."""
    async with ObedientBroker() as broker:
        broker.granted = 0x87
        garage = Garage(hass, broker)  # type: ignore[arg-type]
        await garage.start(connected=False)
        await wait_until(lambda: garage.monitor.problem)
        (said,) = (await ask("not_listening"))["monitors"].values()
        assert said["broker_connected"] is True
        assert said["last_error"] == "not_authorized"
        destination = garage.destination_ids[0]
        hass.config_entries.async_remove_subentry(garage.entry, destination)
        await hass.async_block_till_done()
        (said,) = (await ask("not_listening"))["monitors"].values()
        assert said["broker_connected"] is False
        await garage.close()


async def test_disk_that_fails(
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    ask: Ask,
    stores_fixture: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that cannot be opened is a problem until it can."""
    journal = "custom_components.ble_bridge.destinations.journal"
    monkeypatch.setattr(f"{journal}.FIRST_DELAY", 0.1)
    stores_fixture.write_text("Not a directory")
    await setup(destination_data(broker.port))
    health = await ask("store_failed")
    assert health["broker_connected"] is True
    stores_fixture.unlink()
    await ask()


@pytest.mark.usefixtures("tried_soon")
async def test_monitor(
    hass: HomeAssistant, broker: Mosquitto, ask: Ask, setup: Setup
) -> None:
    """A monitor is well while it hears, and tells how much of that it understood."""
    entry = await setup(destination_data(broker.port))
    add_monitor(hass, entry)
    await hass.async_block_till_done()

    async def monitor(*problems: str) -> dict[str, Any]:
        (found,) = (await ask(*problems))["monitors"].values()
        assert found.keys() == next(iter(EXAMPLE["monitors"].values())).keys()
        assert found["problems"] == [p for p in problems if p == "not_listening"]
        assert found["broker_connected"] != bool(problems)
        return dict(found)

    assert await monitor() == UNHEARD
    for payload in (telemetry(), "nonsense"):
        message = {"topic": "autocore/ESP32_001/telemetry", "payload": payload}
        await hass.services.async_call(DOMAIN, "publish", message, blocking=True)
    async with asyncio.timeout(10):
        while (found := await monitor())["errors_count"] == 0:
            await asyncio.sleep(0.02)
    assert found["messages_processed"] == 1
    assert found["last_message_time"] is not None
    await broker.kill()
    away = await monitor("not_connected", "not_listening")
    assert away["messages_processed"] == 1
    await broker.start()
    await monitor()


async def test_no_secret_and_no_address(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    ask: Ask,
    hass_client: ClientSessionGenerator,
) -> None:
    """Neither health nor metrics name a device, a person, or what nobody may know."""
    async with Mosquitto(users={"someone": "top-secret"}) as broker:
        await setup(
            destination_data(
                broker.port,
                username="someone",
                password="top-secret",
                client_id="our-client",
            ),
            devices=[{"address": ADDRESS, "alias": "Freezer"}],
        )
        scanner.hear(raw=bthome(temperature=20), name="Grandma's watch")
        await ask()
        client = await hass_client()
        for url in (HEALTH, METRICS):
            text = (await (await client.get(url)).text()).lower()
            for secret in ("someone", "top-secret", "our-client", "freezer", "grandma"):
                assert secret not in text
            assert ADDRESS.lower() not in text
            assert ADDRESS.replace(":", "").lower() not in text


def test_documented() -> None:
    """Each field is told of."""
    table = DOCUMENTED.partition("| field |")[2].partition("| problem |")[0]
    (destination,) = EXAMPLE["destinations"].values()
    (monitor,) = EXAMPLE["monitors"].values()
    assert monitor.keys() == destination.keys() - {"kind"}
    fields = {*EXAMPLE, *destination, *monitor} - {"destinations", "monitors"}
    named = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    assert fields == set(re.findall(r"`(\w+)`", "".join(named)))
