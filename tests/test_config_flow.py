"""The form that sets up the bridge: what it takes, what it says, and how it recovers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from homeassistant import config_entries
from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import instance_id, issue_registry as ir
from homeassistant.util import slugify
import pytest
from pytest_homeassistant_custom_component import plugins
from pytest_homeassistant_custom_component.common import MockConfigEntry
import pytest_socket

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import EmbeddedBroker, Mosquitto
from scripts.simulation.processes import free_port
from scripts.simulation.subscriber import Subscriber

from .conftest import is_connected, wait_until
from .forms import (
    CONNECTION,
    DELIVERY,
    FIELDS,
    VALUES,
    Answer,
    answering,
    bridge_form,
    connack,
    make_certificate,
    version,
    websockets,
)

pytestmark = pytest.mark.usefixtures("enable_bluetooth")

USERS = {"ble": "right"}
HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n" + b"<p>No</p>" * 50
)


@pytest.fixture(name="impatient")
def impatient_fixture() -> Iterator[None]:
    """Have the form wait for an answer for a moment only."""
    with patch("custom_components.ble_bridge.kinds.mqtt.form._TEST_TIMEOUT", 1.0):
        yield


@pytest.fixture(autouse=True)
async def clean_up(hass: HomeAssistant) -> AsyncIterator[None]:
    """Unload what a form has set up, while its broker is still there."""
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state is ConfigEntryState.LOADED:
            await hass.config_entries.async_unload(entry.entry_id)


async def begin(hass: HomeAssistant) -> Any:
    """Open the form."""
    result = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": config_entries.SOURCE_USER}
    )
    assert result["type"] is FlowResultType.MENU
    result = await submit(hass, result, {"next_step_id": "to_mqtt"})
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "to_mqtt"
    return result


async def submit(hass: HomeAssistant, result: Any, form: dict[str, Any]) -> Any:
    """Submit the form."""
    result = await hass.config_entries.flow.async_configure(result["flow_id"], form)
    await hass.async_block_till_done()
    return result


async def is_refused(
    hass: HomeAssistant, form: dict[str, Any], errors: dict[str, str]
) -> Any:
    """Submit a form that is to be refused, and return it."""
    result = await submit(hass, await begin(hass), form)
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == errors
    assert not hass.config_entries.async_entries(DOMAIN)
    return result


async def is_accepted(
    hass: HomeAssistant, result: Any, form: dict[str, Any]
) -> ConfigEntry[Any]:
    """Submit a form that is to be accepted, and wait for the connection."""
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    entry: ConfigEntry[Any] = result["result"]
    (subentry,) = entry.subentries.values()
    sensor = f"binary_sensor.{slugify(subentry.title)}_connectivity"
    await wait_until(lambda: hass.states.is_state(sensor, "on"))
    return entry


async def test_success(
    hass: HomeAssistant, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """One form makes the bridge and its first destination, which says that it is there."""
    entry = await is_accepted(hass, await begin(hass), bridge_form(broker.port))
    assert entry.title == "Attic"
    assert entry.data == {"bridge_id": "attic"}
    (subentry,) = entry.subentries.values()
    assert subentry.subentry_type == "destination"
    assert subentry.title == f"127.0.0.1:{broker.port}"
    assert subentry.data["client_id"].startswith("ble-bridge-")
    message = await subscriber.wait_for_message("ble/bridge/attic/status")
    assert message.payload == b"online"


async def test_defaults(hass: HomeAssistant, broker: Mosquitto) -> None:
    """Name and bridge ID are filled in, the latter different on each Home Assistant."""
    hass.config.location_name = "Haus am See"
    result = await begin(hass)
    unique = (await instance_id.async_get(hass))[:4]
    suggested = {
        str(key): key.description["suggested_value"]
        for key in result["data_schema"].schema
        if key.description and "suggested_value" in key.description
    }
    assert suggested == {"name": "BLE Bridge", "bridge_id": f"haus-am-see-{unique}"}
    # What is not touched stays at its default.
    form = {**suggested, "host": "127.0.0.1", "port": broker.port, "advanced": {}}
    entry = await is_accepted(hass, result, form)
    (subentry,) = entry.subentries.values()
    assert {**subentry.data, "client_id": ""} == {
        "broker": "custom",
        "host": "127.0.0.1",
        "port": broker.port,
        "username": None,
        "password": None,
        "topic_base": "ble",
        "tls": False,
        "qos": 0,
        "protocol": "auto",
        "client_id": "",
        "keepalive": 60,
        "clean_session": True,
        "raw": True,
        "fields": FIELDS,
        "values": VALUES,
        "delivery": DELIVERY,
        **CONNECTION,
    }


async def test_default_bridge_id_without_a_name(hass: HomeAssistant) -> None:
    """A home that has no name has a bridge ID all the same."""
    hass.config.location_name = ""
    result = await begin(hass)
    (bridge_id,) = (key for key in result["data_schema"].schema if key == "bridge_id")
    assert bridge_id.description["suggested_value"].startswith("home-")


async def test_everything_entered(hass: HomeAssistant) -> None:
    """Each setting that is entered is used."""
    async with Mosquitto(users=USERS) as broker:
        form = bridge_form(
            broker.port,
            name=" Attic ",
            bridge_id=" attic ",
            username="ble",
            password="right",
            topic_base="/home/ble/",
            qos="2",
            raw=False,
            fields={"topic_base": " /home/fields/ ", "alert": "1_retain"},
            values={"enabled": True, "topic_base": "home/values", "reading": "2"},
            protocol="3.1.1",
            client_id="attic-1",
            keepalive=20,
            clean_session=False,
        )
        async with Subscriber(
            broker.port, username="ble", password="right"
        ) as subscriber:
            entry = await is_accepted(hass, await begin(hass), form)
            await subscriber.wait_for_message("home/ble/bridge/attic/status", b"online")
        assert "as attic-1 (p2, c0, k20, u'ble')" in broker.log(1000)
        (subentry,) = entry.subentries.values()
        assert subentry.title == f"127.0.0.1:{broker.port} (home/ble)"
        assert subentry.data["qos"] == 2
        assert subentry.data["raw"] is False
        assert subentry.data["fields"] == {
            **FIELDS,
            "topic_base": "home/fields",
            "alert": "1_retain",
        }
        assert subentry.data["values"] == {
            "enabled": True,
            "topic_base": "home/values",
            "reading": "2",
        }
        await hass.config_entries.async_unload(entry.entry_id)


async def test_name_not_found(
    hass: HomeAssistant, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose name nobody knows."""
    # The plug-in replaces the look-up of names by its own.
    monkeypatch.setattr("socket.getaddrinfo", plugins._real_getaddrinfo)
    form = bridge_form(broker.port, host="nowhere.invalid")
    result = await is_refused(hass, form, {"base": "cannot_resolve"})
    await is_accepted(hass, result, bridge_form(broker.port))


async def test_nothing_listens(hass: HomeAssistant, broker: Mosquitto) -> None:
    """A port on which nothing listens."""
    form = bridge_form(free_port())
    result = await is_refused(hass, form, {"base": "cannot_connect"})
    await is_accepted(hass, result, bridge_form(broker.port))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("protocol", "answer", "error"),
    [
        ("auto", lambda _: None, "no_answer"),
        ("auto", lambda _: HTTP, "not_mqtt"),
        ("auto", lambda _: b"SSH-2.0-OpenSSH_10.0\r\n", "not_mqtt"),
        ("auto", lambda _: b"", "not_mqtt"),
        ("5", connack(0x84), "protocol_unsupported"),
        ("5", lambda _: b"\x20\x02\x00\x01", "protocol_unsupported"),
        ("3.1.1", connack(0x01), "protocol_unsupported"),
        ("auto", connack(0x85), "client_id_refused"),
        ("3.1.1", connack(0x02), "client_id_refused"),
        ("auto", connack(0x86), "invalid_auth"),
        ("auto", connack(0x87), "invalid_auth"),
        ("auto", connack(0x8C), "invalid_auth"),
        ("3.1.1", connack(0x04), "invalid_auth"),
        ("3.1.1", connack(0x05), "invalid_auth"),
        ("auto", connack(0x88), "server_unavailable"),
        ("auto", connack(0x89), "server_unavailable"),
        ("auto", connack(0x97), "quota_exceeded"),
        ("auto", connack(0x9F), "server_unavailable"),
        ("3.1.1", connack(0x03), "server_unavailable"),
        ("auto", connack(0x80), "refused"),
        ("auto", connack(0x8A), "refused"),
    ],
)
async def test_refused(
    hass: HomeAssistant, protocol: str, answer: Answer, error: str
) -> None:
    """What answers is no broker, or one that says no."""
    async with answering(answer) as port:
        await is_refused(hass, bridge_form(port, protocol=protocol), {"base": error})


async def test_recovers_from_refusal(hass: HomeAssistant, broker: Mosquitto) -> None:
    """After a refusal the same form is shown again, and works with another broker."""
    async with answering(connack(0x85)) as port:
        form = bridge_form(port, bridge_id="cellar", topic_base="home")
        result = await is_refused(hass, form, {"base": "client_id_refused"})
    shown = {
        str(key): (key.description or {}).get("suggested_value")
        for key in result["data_schema"].schema
    }
    assert shown["bridge_id"] == "cellar"
    assert shown["port"] == port
    await is_accepted(hass, result, {**form, "port": broker.port})


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_credentials_wrong(hass: HomeAssistant, protocol: str) -> None:
    """The broker knows another password, and no guest."""
    async with Mosquitto(users=USERS) as broker:
        form = bridge_form(broker.port, protocol=protocol)
        wrong = {**form, "username": "ble", "password": "wrong"}
        result = await is_refused(hass, form, {"base": "invalid_auth"})
        result = await submit(hass, result, wrong)
        assert result["errors"] == {"base": "invalid_auth"}
        entry = await is_accepted(hass, result, {**wrong, "password": "right"})
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("refusal", [b"", b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"])
async def test_falls_back(hass: HomeAssistant, refusal: bytes) -> None:
    """Automatic speaks 3.1.1 with a broker that hangs up on version 5, or refuses it."""

    def answer(connect: bytes) -> bytes:
        return refusal if version(connect) == 5 else connack(0)(connect) or b""

    async with answering(answer) as port:
        entry = await is_accepted(hass, await begin(hass), bridge_form(port))
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.usefixtures("impatient")
async def test_old_broker(hass: HomeAssistant) -> None:
    """A broker that knows 3.1.1 only, and does not know how to say so."""
    async with EmbeddedBroker() as broker:
        form = bridge_form(broker.port, protocol="5")
        result = await submit(hass, await begin(hass), form)
        assert result["errors"] in ({"base": "no_answer"}, {"base": "not_mqtt"})
        form["advanced"]["protocol"] = "auto"
        entry = await is_accepted(hass, result, form)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_certificate(
    hass: HomeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate is good once its authority is trusted."""
    certificate = make_certificate(tmp_path)
    async with Mosquitto(
        certificate=certificate.path, key=certificate.key, directory=tmp_path
    ) as broker:
        form = bridge_form(broker.port, tls=True)
        result = await is_refused(hass, form, {"base": "certificate_untrusted"})
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
        entry = await is_accepted(hass, result, form)
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize(
    ("host", "expired", "error"),
    [
        ("127.0.0.1", True, "certificate_expired"),
        ("127.0.0.2", False, "certificate_name"),
        ("broker.example", False, "certificate_name"),
    ],
)
async def test_certificate_not_good(
    hass: HomeAssistant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    expired: bool,
    error: str,
) -> None:
    """A certificate of a known authority is expired, or made for another name."""
    certificate = make_certificate(tmp_path, host, expired=expired)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    async with Mosquitto(
        certificate=certificate.path, key=certificate.key, directory=tmp_path
    ) as broker:
        form = bridge_form(broker.port, tls=True)
        await is_refused(hass, form, {"base": error})


async def test_tls_on_a_plain_port(hass: HomeAssistant, broker: Mosquitto) -> None:
    """The broker does not encrypt."""
    form = bridge_form(broker.port, tls=True)
    result = await is_refused(hass, form, {"base": "tls_failed"})
    await is_accepted(hass, result, bridge_form(broker.port))


async def test_plain_on_a_tls_port(
    hass: HomeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker encrypts, and nobody asked it to."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    async with Mosquitto(
        certificate=certificate.path, key=certificate.key, directory=tmp_path
    ) as broker:
        form = bridge_form(broker.port)
        result = await is_refused(hass, form, {"base": "not_mqtt"})
        entry = await is_accepted(hass, result, bridge_form(broker.port, tls=True))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_port_of_tls(
    hass: HomeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS, the port that plain connections use by default becomes that of TLS."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    plain = free_port()
    monkeypatch.setattr(
        "custom_components.ble_bridge.kinds.mqtt.input.DEFAULT_PORT", plain
    )
    async with Mosquitto(
        certificate=certificate.path, key=certificate.key, directory=tmp_path
    ) as broker:
        monkeypatch.setattr(
            "custom_components.ble_bridge.kinds.mqtt.input.DEFAULT_PORT_TLS",
            broker.port,
        )
        result = await submit(hass, await begin(hass), bridge_form(plain, tls=True))
        assert result["type"] is FlowResultType.CREATE_ENTRY
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.config_entries.async_unload(result["result"].entry_id)


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"host": "mqtt://broker"}, {"host": "invalid_host"}),
        ({"host": "my broker"}, {"host": "invalid_host"}),
        ({"host": "broker:1883"}, {"host": "invalid_host"}),
        ({"host": "me@broker"}, {"host": "invalid_host"}),
        ({"host": "bro\0ker"}, {"host": "invalid_host"}),
        ({"host": " "}, {"host": "invalid_host"}),
        ({"host": "b" * 254}, {"host": "invalid_host"}),
        ({"port": 0}, {"port": "invalid_port"}),
        ({"port": -1}, {"port": "invalid_port"}),
        ({"port": 65536}, {"port": "invalid_port"}),
        ({"port": 1883.5}, {"port": "invalid_port"}),
        ({"port": float("inf")}, {"port": "invalid_port"}),
        ({"port": float("nan")}, {"port": "invalid_port"}),
        ({"topic_base": "ble/#"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "+/ble"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "$SYS"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "ble//home"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "/"}, {"base": "invalid_topic_base"}),
        ({"topic_base": ""}, {"base": "invalid_topic_base"}),
        ({"topic_base": "b\0le"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "b le"}, {"base": "invalid_topic_base"}),
        ({"topic_base": "b/" * 150 + "b"}, {"base": "invalid_topic_base"}),
        ({"fields": {"topic_base": "a b"}}, {"base": "invalid_topic_base"}),
        ({"values": {"topic_base": ""}}, {"base": "invalid_topic_base"}),
        ({"topic_base": "telemetry"}, {"base": "topic_bases_overlap"}),
        ({"topic_base": "telemetry/ble"}, {"base": "topic_bases_overlap"}),
        ({"fields": {"topic_base": "ble/v"}}, {"base": "topic_bases_overlap"}),
        (
            {"values": {"enabled": True, "topic_base": "telemetry"}},
            {"base": "topic_bases_overlap"},
        ),
        (
            {"raw": False, "values": {"enabled": True, "topic_base": "ble"}},
            {"base": "topic_bases_overlap"},
        ),
        ({"client_id": "a/b"}, {"base": "invalid_client_id"}),
        ({"client_id": "a\0b"}, {"base": "invalid_client_id"}),
        ({"client_id": "b" * 129}, {"base": "invalid_client_id"}),
        ({"bridge_id": "a/b"}, {"bridge_id": "invalid_bridge_id"}),
        ({"bridge_id": "#"}, {"bridge_id": "invalid_bridge_id"}),
        ({"bridge_id": "$home"}, {"bridge_id": "invalid_bridge_id"}),
        ({"bridge_id": " "}, {"bridge_id": "invalid_bridge_id"}),
        ({"bridge_id": "b" * 129}, {"bridge_id": "invalid_bridge_id"}),
        ({"name": " "}, {"name": "invalid_name"}),
        (
            {"name": "", "bridge_id": "+", "host": "", "port": 0, "topic_base": "#"},
            {
                "name": "invalid_name",
                "bridge_id": "invalid_bridge_id",
                "host": "invalid_host",
                "port": "invalid_port",
                "base": "invalid_topic_base",
            },
        ),
    ],
)
async def test_bad_input(
    hass: HomeAssistant, changes: dict[str, Any], errors: dict[str, str]
) -> None:
    """What cannot be right is said at its field, before anything is connected to."""
    await is_refused(hass, bridge_form(**{"port": 1883, **changes}), errors)


async def test_recovers_from_bad_input(hass: HomeAssistant, broker: Mosquitto) -> None:
    """The form that was wrong takes what is right."""
    form = bridge_form(broker.port, topic_base="#", host="mqtt://x")
    errors = {"host": "invalid_host", "base": "invalid_topic_base"}
    result = await is_refused(hass, form, errors)
    await is_accepted(hass, result, bridge_form(broker.port))


async def test_bases_that_do_not_mix(hass: HomeAssistant, broker: Mosquitto) -> None:
    """A layout that is off takes no topics; one base may begin like another word."""
    form = bridge_form(
        broker.port,
        topic_base="iiot",
        fields={"topic_base": "iiot2"},
        values={"topic_base": "iiot"},
    )
    await is_accepted(hass, await begin(hass), form)


async def test_ipv6(hass: HomeAssistant) -> None:
    """An IPv6 address may stand in brackets."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"])
    form = bridge_form(free_port(), host="[::1]")
    await is_refused(hass, form, {"base": "cannot_connect"})


async def test_unknown_exception(
    hass: HomeAssistant, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is logged, and the form goes on."""
    with patch(
        "custom_components.ble_bridge.kinds.mqtt.form.MqttConnector",
        side_effect=RuntimeError("Thought of by nobody"),
    ):
        form = bridge_form(broker.port)
        result = await is_refused(hass, form, {"base": "unknown"})
    assert "Thought of by nobody" in caplog.text
    await is_accepted(hass, result, form)


async def test_single_instance(hass: HomeAssistant, broker: Mosquitto) -> None:
    """There is one bridge."""
    await is_accepted(hass, await begin(hass), bridge_form(broker.port))
    result = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": config_entries.SOURCE_USER}
    )
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "single_instance_allowed"


def mqtt_entry(hass: HomeAssistant, port: int, **data: Any) -> MockConfigEntry:
    """Set up Home Assistant's own MQTT integration, as far as we look at it."""
    entry = MockConfigEntry(
        domain="mqtt", data={"broker": "127.0.0.1", "port": port, **data}
    )
    entry.add_to_hass(hass)
    return entry


async def test_no_choice_of_brokers(hass: HomeAssistant) -> None:
    """Without Home Assistant's MQTT integration there is nothing to choose."""
    assert "broker" not in (await begin(hass))["data_schema"].schema


async def test_home_assistant_broker(hass: HomeAssistant) -> None:
    """Home Assistant's broker is used with its password, and without storing it."""
    async with Mosquitto(users=USERS) as broker:
        mqtt_entry(hass, broker.port, username="ble", password="right")
        result = await begin(hass)
        assert "broker" in result["data_schema"].schema
        form = bridge_form(
            0, broker="home_assistant", host="mqtt://x", username="x", password="x"
        )
        entry = await is_accepted(hass, result, form)
        (subentry,) = entry.subentries.values()
        assert subentry.title == "Home Assistant's MQTT broker"
        assert subentry.data["password"] is None
        assert subentry.data["username"] is None
        assert subentry.data["host"] == ""
        assert "right" not in str(entry.as_dict())
        await hass.config_entries.async_unload(entry.entry_id)


async def test_another_broker(hass: HomeAssistant, broker: Mosquitto) -> None:
    """Another broker than Home Assistant's can be chosen."""
    mqtt_entry(hass, free_port())
    form = bridge_form(broker.port, broker="custom")
    await is_accepted(hass, await begin(hass), form)


async def test_home_assistant_broker_away(
    hass: HomeAssistant, broker: Mosquitto
) -> None:
    """Home Assistant's broker does not answer, another one does."""
    mqtt_entry(hass, free_port())
    form = bridge_form(broker.port, broker="home_assistant")
    result = await is_refused(hass, form, {"base": "cannot_connect"})
    await is_accepted(hass, result, {**form, "broker": "custom"})


async def test_home_assistant_broker_gone_meanwhile(
    hass: HomeAssistant, broker: Mosquitto
) -> None:
    """The MQTT integration is removed while the form is open."""
    theirs = mqtt_entry(hass, broker.port)
    result = await begin(hass)
    await hass.config_entries.async_remove(theirs.entry_id)
    form = bridge_form(broker.port, broker="home_assistant")
    result = await submit(hass, result, form)
    assert result["errors"] == {"base": "broker_missing"}
    await is_accepted(hass, result, bridge_form(broker.port))


@pytest.mark.parametrize("insecure", [False, True])
async def test_home_assistant_broker_with_certificates(
    hass: HomeAssistant, tmp_path: Path, insecure: bool
) -> None:
    """Authority, client certificate and leniency of Home Assistant's settings count."""
    certificate = make_certificate(
        tmp_path, "broker.example" if insecure else "127.0.0.1"
    )
    async with Mosquitto(
        certificate=certificate.path,
        key=certificate.key,
        directory=tmp_path,
        config_lines=["require_certificate true", f"cafile {certificate.path}"],
    ) as broker:
        mqtt_entry(
            hass,
            broker.port,
            certificate=certificate.path.read_text(),
            client_cert=certificate.path.read_text(),
            client_key=certificate.key.read_text(),
            tls_insecure=insecure,
        )
        form = bridge_form(1883, broker="home_assistant")
        entry = await is_accepted(hass, await begin(hass), form)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_home_assistant_broker_on_websockets(
    hass: HomeAssistant, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """Websockets of Home Assistant's settings count, with their path and headers."""
    async with websockets(broker.port, "/behind/proxy", {"X-Key": "1"}) as port:
        mqtt_entry(
            hass,
            port,
            transport="websockets",
            ws_path="/behind/proxy",
            ws_headers={"X-Key": "1"},
        )
        form = bridge_form(1883, broker="home_assistant")
        entry = await is_accepted(hass, await begin(hass), form)
        await subscriber.wait_for_message("ble/bridge/attic/status", b"online")
        await hass.config_entries.async_unload(entry.entry_id)
        await subscriber.wait_for_message("ble/bridge/attic/status", b"offline")


async def test_websockets_elsewhere(hass: HomeAssistant, broker: Mosquitto) -> None:
    """The web server is there, but not what Home Assistant's settings name."""
    async with websockets(broker.port, "/mqtt", {}) as port:
        mqtt_entry(hass, port, transport="websockets", ws_path="/other")
        form = bridge_form(1883, broker="home_assistant")
        await is_refused(hass, form, {"base": "not_mqtt"})


async def reconfigure(hass: HomeAssistant, entry: ConfigEntry[Any]) -> Any:
    """Open the form that changes the bridge."""
    result = await hass.config_entries.flow.async_init(
        DOMAIN,
        context={
            "source": config_entries.SOURCE_RECONFIGURE,
            "entry_id": entry.entry_id,
        },
    )
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "reconfigure"
    return result


async def test_reconfigure(
    hass: HomeAssistant, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """A new bridge ID goes to a new topic, and the old one is cleared."""
    entry = await is_accepted(hass, await begin(hass), bridge_form(broker.port))
    await subscriber.wait_for_message("ble/bridge/attic/status", b"online")
    result = await reconfigure(hass, entry)
    result = await submit(hass, result, {"name": "", "bridge_id": "a/b"})
    assert result["errors"] == {
        "name": "invalid_name",
        "bridge_id": "invalid_bridge_id",
    }
    result = await submit(hass, result, {"name": "Cellar", "bridge_id": "cellar"})
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "reconfigure_successful"
    assert entry.title == "Cellar"
    assert entry.data == {"bridge_id": "cellar"}
    await subscriber.wait_for_message("ble/bridge/cellar/status", b"online")
    await subscriber.wait_for_message("ble/bridge/attic/status", b"")
    async with Subscriber(broker.port, "ble/bridge/#") as late:
        await late.wait_for_message("ble/bridge/cellar/status", b"online")
        assert not late.on_topic("ble/bridge/attic/status")
    assert not ir.async_get(hass).issues
