"""What the forms of monitors listen over: destinations that go, brokers that refuse."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
import hashlib
import json
from pathlib import Path
from types import MappingProxyType
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
from homeassistant.helpers import issue_registry as ir
from paho.mqtt.enums import MQTTProtocolVersion
import pytest
from pytest_homeassistant_custom_component import plugins

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.monitors import listen
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK, free_port
from scripts.simulation.subscriber import Subscriber

from .conftest import destination_data, is_connected, wait_until
from .forms import Answer, answering, connack, make_authority
from .monitor_forms import (
    Listen,
    begin,
    change,
    destination_id,
    form,
    heard,
    hears,
    is_saved,
    monitor_of,
    offered,
    publish,
    save,
    shown,
    subentries,
    submit,
)
from .monitors.garage import DEVICE, status
from .nats import nats_data

pytestmark = pytest.mark.usefixtures("listen_for")

USERS = {"ble": "right"}
LONG = 30.0
PLUGINS = [*Path("/usr").glob("lib*/**/mosquitto_dynamic_security.so")]


@pytest.fixture(name="entry")
async def entry_fixture(broker: Mosquitto, setup: Callable[..., Any]) -> Any:
    """Return a bridge with a destination."""
    return await setup(destination_data(broker.port))


@asynccontextmanager
async def refusing(packet: bytes | None) -> AsyncIterator[int]:
    """Be a broker that takes connections, and answers to SUBSCRIBE with a packet.

    The message ID comes where the packet has two zero bytes. Without a packet the broker
    hangs up.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                kind, length, shift = (await reader.readexactly(1))[0], 0, 0
                while (digit := (await reader.readexactly(1))[0]) >= 0x80:
                    length |= (digit & 0x7F) << shift
                    shift += 7
                body = await reader.readexactly(length | digit << shift)
                if kind == 0x10:
                    writer.write(connack(0)(body) or b"")
                elif kind == 0x82 and packet is None:
                    break
                elif kind == 0x82 and packet is not None:
                    writer.write(packet.replace(b"\0\0", body[:2], 1))
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        server.close_clients()
        await server.wait_closed()


# --- destinations that are not there ----------------------------------------------------


async def test_no_destination(
    hass: HomeAssistant, setup: Callable[..., Any], broker: Mosquitto
) -> None:
    """Without a destination on MQTT there is nothing to listen over."""
    entry = await setup(connected=False)
    for _ in range(2):
        result = await hass.config_entries.subentries.async_init(
            (entry.entry_id, "monitor"),
            context=SubentryFlowContext(source=SOURCE_USER),
        )
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "no_mqtt_destination"
        # One of another kind does not help.
        add_destination(hass, entry, nats_data(f"nats://127.0.0.1:{free_port()}"))
        await hass.async_block_till_done()


def add_destination(
    hass: HomeAssistant, entry: ConfigEntry[Any], data: dict[str, Any]
) -> None:
    """Add a destination, as its form does."""
    hass.config_entries.async_add_subentry(
        entry,
        ConfigSubentry(
            data=MappingProxyType(data),
            subentry_type="destination",
            title="Another",
            unique_id=None,
        ),
    )


async def test_destination_removed(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A destination may go while the form is open, or while it shows what was heard."""
    others = [
        destination_data(broker.port, topic_base=name, client_id=name)
        for name in ("second", "third")
    ]
    entry = await setup(destination_data(broker.port), *others)
    result = await begin(hass, entry, "autocore")
    entered = form(entry, timeout=77)
    hass.config_entries.async_remove_subentry(entry, entered["destination"])
    await hass.async_block_till_done()
    result = await submit(hass, result, entered)
    assert result["errors"] == {"destination": "destination_removed"}
    assert [*offered(result)] == [destination_id(entry), destination_id(entry, 1)]
    still = shown(result["data_schema"].schema)
    assert "destination" not in still
    assert still["timeout"] == 77
    result = await submit(hass, result, form(entry, timeout=77))
    assert result["step_id"] == "nothing_heard"
    hass.config_entries.async_remove_subentry(entry, destination_id(entry))
    await hass.async_block_till_done()
    result = await save(hass, result)
    assert result["errors"] == {"destination": "destination_removed"}
    await is_saved(hass, entry, await submit(hass, result, form(entry, timeout=77)))
    assert monitor_of(entry).data["timeout"] == 77
    assert monitor_of(entry).data["destination"] == destination_id(entry)


async def test_last_destination_removed(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Where no destination is left, the form ends; another one serves its monitor later."""
    result = await begin(hass, entry, "autocore")
    await is_saved(hass, entry, await submit(hass, result, form(entry)))
    second = await begin(hass, entry, "autocore")
    data = dict(subentries(entry, "destination")[0].data)
    entered = form(entry, topic_base="second")
    hass.config_entries.async_remove_subentry(entry, entered["destination"])
    await hass.async_block_till_done()
    result = await submit(hass, second, entered)
    assert result["reason"] == "no_mqtt_destination"
    context = SubentryFlowContext(
        source=SOURCE_RECONFIGURE, subentry_id=monitor_of(entry).subentry_id
    )
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "monitor"), context=context
    )
    assert result["reason"] == "no_mqtt_destination"
    issue = (
        DOMAIN,
        f"monitor_without_destination_{monitor_of(entry).subentry_id}",
    )
    assert issue in ir.async_get(hass).issues
    add_destination(hass, entry, data)
    await hass.async_block_till_done()
    result = await change(hass, entry)
    assert "destination" not in shown(result["data_schema"].schema)
    assert [*offered(result)] == [destination_id(entry)]
    result = await save(hass, await submit(hass, result, form(entry)))
    assert result["reason"] == "reconfigure_successful"
    await hears(entry)
    assert issue not in ir.async_get(hass).issues


# --- connections that do not come about -------------------------------------------------


async def is_refused(
    hass: HomeAssistant, entry: ConfigEntry[Any], error: str, **changes: Any
) -> Any:
    """Submit the form, and see why nothing can be heard."""
    result = await begin(hass, entry, "autocore")
    result = await submit(hass, result, form(entry, **changes))
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"base": error}
    return result


def change_destination(
    hass: HomeAssistant, entry: ConfigEntry[Any], **changes: Any
) -> None:
    """Change the destination, as its form does."""
    (destination,) = subentries(entry, "destination")
    hass.config_entries.async_update_subentry(
        entry, destination, data={**destination.data, **changes}
    )


@pytest.mark.usefixtures("tried_soon")
async def test_broker_away(
    hass: HomeAssistant, broker: Mosquitto, entry: ConfigEntry[Any]
) -> None:
    """A broker that does not run is told, and the same form works when it is back."""
    await broker.stop()
    result = await is_refused(hass, entry, "cannot_connect")
    await broker.start()
    await is_saved(hass, entry, await submit(hass, result, form(entry)))


@pytest.mark.usefixtures("tried_soon")
async def test_broker_goes(
    hass: HomeAssistant, setup: Callable[..., Any], listen_for: Listen
) -> None:
    """A broker that goes while the form listens is told."""
    listen_for(LONG)
    async with Mosquitto(config_lines=["log_type all"]) as broker:
        entry = await setup(destination_data(broker.port))
        result = await begin(hass, entry, "autocore")
        submitting = asyncio.create_task(submit(hass, result, form(entry)))
        await wait_until(
            lambda: "SUBSCRIBE from ble-bridge-test-" in broker.log(10_000)
        )
        await broker.stop()
        result = await submitting
        assert result["errors"] == {"base": "connection_lost"}
        await broker.start()
        listen_for(0.05)
        await is_saved(hass, entry, await submit(hass, result, form(entry)))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_wrong_password(hass: HomeAssistant, setup: Callable[..., Any]) -> None:
    """The form works once the destination has the right password."""
    async with Mosquitto(users=USERS) as broker:
        data = destination_data(broker.port, username="ble", password="wrong")
        entry = await setup(data, connected=False)
        result = await is_refused(hass, entry, "invalid_auth")
        change_destination(hass, entry, password="right")
        await hass.async_block_till_done()
        await is_saved(hass, entry, await submit(hass, result, form(entry)))
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.skipif(not PLUGINS, reason="Mosquitto is there without its plug-ins")
@pytest.mark.parametrize(
    ("protocol", "error"), [("5", "not_authorized"), ("3.1.1", "rejected")]
)
async def test_not_allowed(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    broker: Mosquitto,
    tmp_path: Path,
    listen_for: Listen,
    protocol: str,
    error: str,
) -> None:
    """A broker that lets its users subscribe to nothing says so."""
    listen_for(LONG)
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(write_only("ble", "right")))
    lines = [f"plugin {PLUGINS[0]}", f"plugin_opt_config_file {rules}"]
    async with Mosquitto(config_lines=lines) as strict:
        data = destination_data(strict.port, username="ble", password="right")
        plain = destination_data(broker.port, client_id="plain")
        entry = await setup({**data, "protocol": protocol}, plain)
        result = await is_refused(hass, entry, error)
        listen_for(0.05)
        entered = form(entry, destination=destination_id(entry, 1))
        await is_saved(hass, entry, await submit(hass, result, entered))
        await hass.config_entries.async_unload(entry.entry_id)


def write_only(username: str, password: str) -> dict[str, Any]:
    """Return the rules of Mosquitto's dynamic security, by which nobody may subscribe."""
    salt, iterations = b"0123456789ab", 101
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return {
        "defaultACLAccess": {
            "publishClientSend": True,
            "publishClientReceive": True,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            {
                "username": username,
                "password": b64encode(key).decode(),
                "salt": b64encode(salt).decode(),
                "iterations": iterations,
            }
        ],
    }


async def test_not_allowed_in_silence(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    tmp_path: Path,
    listen_for: Listen,
) -> None:
    """Most brokers take a subscription and send nothing: that is what the form shows."""
    acl = tmp_path / "acl"
    acl.write_text("topic write #\n")
    async with Mosquitto(config_lines=[f"acl_file {acl}"]) as broker:
        entry = await setup(destination_data(broker.port))
        await publish(broker.port, {f"autocore/{DEVICE}/status": status()}, retain=True)
        result = await begin(hass, entry, "autocore")
        listen_for(1)
        result = await submit(hass, result, form(entry))
        assert result["step_id"] == "nothing_heard"
        acl.write_text("topic readwrite #\n")
        broker.reload()
        result = await submit(hass, result, {"next_step_id": "change"})
        result = await heard(hass, listen_for, result, form(entry), 1)
        await is_saved(hass, entry, result)
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (b"\x90\x04\0\0\0\x87", "not_authorized"),
        (b"\x90\x04\0\0\0\x97", "quota_exceeded"),
        (b"\x90\x04\0\0\0\x9e", "sharing_unsupported"),
        (b"\x90\x04\0\0\0\x80", "rejected"),
        # One of several filters is enough.
        (b"\x90\x08\0\0\0\1\1\x87\1\1", "not_authorized"),
        (b"\xe0\x02\x95\0", "too_large"),
        (b"\xe0\x02\x8b\0", "connection_lost"),
        (None, "connection_lost"),
    ],
    ids=str,
)
async def test_subscription_refused(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
    packet: bytes | None,
    error: str,
) -> None:
    """Why a broker does not take the subscription is told."""
    listen_for(LONG)
    async with refusing(packet) as port:
        data = destination_data(port, topic_base="other", protocol="5")
        add_destination(hass, entry, data)
        await hass.async_block_till_done()
        other = destination_id(entry, 1)
        result = await is_refused(hass, entry, error, destination=other)
        hass.config_entries.async_remove_subentry(entry, other)
        await hass.async_block_till_done()
    listen_for(0.05)
    await is_saved(hass, entry, await submit(hass, result, form(entry)))


@pytest.mark.parametrize(
    ("protocol", "answer", "error"),
    [
        ("5", lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "not_mqtt"),
        ("5", lambda _: None, "no_answer"),
        ("5", connack(0x84), "protocol_unsupported"),
        ("auto", connack(0x85), "client_id_refused"),
        ("auto", connack(0x88), "server_unavailable"),
        ("auto", connack(0x80), "refused"),
    ],
)
async def test_no_connection(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    answer: Answer,
    error: str,
) -> None:
    """What answers is no broker, or one that says no."""
    monkeypatch.setattr(listen, "_CONNECT_TIMEOUT", 1)
    async with answering(answer) as port:
        data = destination_data(port, protocol=protocol)
        entry = await setup(data, connected=False)
        await is_refused(hass, entry, error)
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tls": True}, "certificate_untrusted"),
        ({"tls": False}, "not_mqtt"),
        ({"host": "localhost", "tls": True, "ca": "ours"}, "certificate_name"),
        ({"tls": True, "ca": "ours", "expired": True}, "certificate_expired"),
        ({"tls": True, "ca": "ours", "ask": True}, "client_certificate_refused"),
    ],
)
async def test_tls(
    hass: HomeAssistant,
    setup: Callable[..., Any],
    tmp_path: Path,
    changes: dict[str, Any],
    error: str,
) -> None:
    """The form trusts whom the destination trusts, and works when that is mended."""
    authority = make_authority(tmp_path)
    certificate = authority.issue(LOOPBACK, expired=changes.pop("expired", False))
    lines = [f"cafile {authority.path}", "require_certificate true"]
    async with Mosquitto(
        certificate=certificate.path,
        key=certificate.key,
        config_lines=lines if changes.pop("ask", False) else [],
    ) as broker:
        if "ca" in changes:
            changes = {**changes, "ca_certificate": authority.path.read_text()}
            del changes["ca"]
        entry = await setup(destination_data(broker.port, **changes), connected=False)
        await is_refused(hass, entry, error)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_tls_where_there_is_none(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """A destination that uses TLS, which the broker does not, is mended in its settings."""
    entry = await setup(destination_data(broker.port, tls=True), connected=False)
    result = await is_refused(hass, entry, "tls_failed")
    change_destination(hass, entry, tls=False)
    await hass.async_block_till_done()
    await is_saved(hass, entry, await submit(hass, result, form(entry)))


async def test_no_such_host(
    hass: HomeAssistant, setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows the broker's name."""
    # The plug-in replaces the look-up of names by its own.
    monkeypatch.setattr("socket.getaddrinfo", plugins._real_getaddrinfo)
    data = destination_data(free_port(), host="broker.invalid")
    await is_refused(hass, await setup(data, connected=False), "cannot_resolve")


async def test_unknown_exception(
    hass: HomeAssistant, setup: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is logged, and the form goes on."""
    # The plug-in's look-up of names fails as no real one does.
    data = destination_data(free_port(), host="nowhere.invalid")
    await is_refused(hass, await setup(data, connected=False), "unknown")
    assert "Unexpected error while listening for a monitor" in caplog.text


async def test_no_broker_of_home_assistant(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """The destination uses the broker of Home Assistant's MQTT, which is not set up."""
    data = destination_data(free_port(), broker="home_assistant")
    await is_refused(hass, await setup(data, connected=False), "broker_missing")


async def test_client_ids_that_are_known(
    hass: HomeAssistant, setup: Callable[..., Any]
) -> None:
    """A broker that knows clients by how their IDs begin lets the form listen."""
    lines = ["clientid_prefixes known-"]
    async with Mosquitto(config_lines=lines) as broker:
        entry = await setup(destination_data(broker.port, client_id="known-bridge"))
        result = await begin(hass, entry, "autocore")
        await is_saved(hass, entry, await submit(hass, result, form(entry)))
        assert is_connected(hass, broker.port)
        assert " as known-bridge-" in broker.log(1000)
        await hass.config_entries.async_unload(entry.entry_id)


# --- shared subscriptions ---------------------------------------------------------------


async def test_sharing_takes_version_5(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Over MQTT 3.1.1 nothing can be shared; without a group all is well."""
    entry = await setup(destination_data(broker.port, protocol="3.1.1"))
    result = await is_refused(hass, entry, "sharing_unsupported", share_group="home")
    still = shown(result["data_schema"].schema)
    assert still["advanced"]["share_group"] == "home"
    await is_saved(hass, entry, await submit(hass, result, form(entry)))
    assert monitor_of(entry).data["share_group"] is None


async def test_takes_nothing_from_those_who_share(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """While the form listens, all goes on to those who share; it hears it as well."""
    sent = 0

    async def talk() -> None:
        nonlocal sent
        while True:
            said = {f"autocore/{DEVICE}/status": status()}
            await publish(broker.port, said, retain=False)
            sent += 1

    version = MQTTProtocolVersion.MQTTv5
    shared = "$share/home/autocore/+/status"
    async with Subscriber(broker.port, shared, qos=1, protocol=version) as theirs:
        talking = asyncio.create_task(talk())
        result = await begin(hass, entry, "autocore")
        entered = form(entry, share_group="home")
        result = await heard(hass, listen_for, result, entered)
        told = result["description_placeholders"]
        assert told["list"] == f"- `{DEVICE}`: {told['messages']}"
        enough = sent + 1
        await wait_until(lambda: sent >= enough)
        talking.cancel()
        await theirs.wait_for(lambda heard: heard.count() >= enough)
