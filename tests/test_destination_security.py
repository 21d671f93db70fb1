"""Security, transport and delivery of destinations, as their forms take them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import FormData
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util, slugify
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator
import pytest_socket

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.mqtt_connection import MqttSettings
from custom_components.ble_bridge.destinations.policy import (
    MEGABYTE,
    Bounds,
    DeliverySettings,
    Policy,
)
from custom_components.ble_bridge.kinds.mqtt.settings import mqtt_settings
from custom_components.ble_bridge.records import RecordKind
from custom_components.ble_bridge.settings import delivery_settings
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK, free_port
from scripts.simulation.subscriber import Subscriber

from .conftest import destination_data, is_connected, wait_until
from .destinations.faults import diagnose_with
from .forms import (
    CONNECTION,
    Authority,
    Certificate,
    bridge_form,
    destination_form,
    make_authority,
    make_certificate,
    websockets,
)

type Upload = Callable[[bytes | Path], Awaitable[str]]

PASSWORD = "key-password"


class Files(NamedTuple):
    """The files of a home with an authority of its own."""

    authority: Authority
    client: Certificate
    other: Certificate
    locked: Path
    old: Path
    early: Path
    garbage: Path


@pytest.fixture(name="files", scope="module")
def files_fixture(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make the files."""
    directory = tmp_path_factory.mktemp("files")
    authority = make_authority(directory)
    client = authority.issue("client")
    locked, garbage = directory / "locked.key", directory / "garbage"
    garbage.write_bytes(b"\x00 no file of ours")
    locked.write_bytes(
        load_pem_private_key(client.key.read_bytes(), None).private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(PASSWORD.encode()),
        )
    )
    old, early = authority.issue("old", expired=True), make_authority(directory, "Old")
    return Files(
        authority,
        client,
        authority.issue("other"),
        locked,
        old.path,
        early.path,
        garbage,
    )


@pytest.fixture(name="upload")
async def upload_fixture(
    hass: HomeAssistant, hass_client: ClientSessionGenerator
) -> Upload:
    """Return what uploads a file as the frontend does, and gives its ID."""
    clients: list[Any] = []

    async def upload(file: bytes | Path) -> str:
        if (
            not clients
        ):  # Once all is set up, for then nothing can be added to its paths
            clients.append(await hass_client())
        content = file if isinstance(file, bytes) else file.read_bytes()
        form = FormData()
        form.add_field("file", content, filename="file.pem")
        response = await clients[0].post("/api/file_upload", data=form)
        assert response.status == HTTPStatus.OK
        file_id: str = (await response.json())["file_id"]
        return file_id

    return upload


async def begin(
    hass: HomeAssistant, entry: ConfigEntry[Any], *, change: bool = False
) -> Any:
    """Open the form that adds a destination, or changes the first one."""
    context = SubentryFlowContext(source=SOURCE_USER)
    if change:
        context = SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=next(iter(entry.subentries))
        )
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "destination"), context=context
    )
    if not change:
        result = await submit(hass, result, {"next_step_id": "to_mqtt"})
    return result


async def submit(hass: HomeAssistant, result: Any, form: dict[str, Any]) -> Any:
    """Submit the form."""
    result = await hass.config_entries.subentries.async_configure(
        result["flow_id"], form
    )
    await hass.async_block_till_done()
    return result


async def change(
    hass: HomeAssistant, entry: ConfigEntry[Any], form: dict[str, Any]
) -> dict[str, Any]:
    """Change the first destination, and return what is stored of it then."""
    result = await submit(hass, await begin(hass, entry, change=True), form)
    assert result.get("reason") == "reconfigure_successful", result.get("errors")
    return first(entry)


def first(entry: ConfigEntry[Any]) -> dict[str, Any]:
    """Return the data of the first destination."""
    return dict(next(iter(entry.subentries.values())).data)


def shown(result: Any, section: str) -> dict[str, Any]:
    """Return what a section of the form shows."""
    return {
        str(key): key.description["suggested_value"]
        for key in result["data_schema"].schema[section].schema.schema
        if key.description and "suggested_value" in key.description
    }


def secured(files: Files, *lines: str) -> Mosquitto:
    """Return a broker with a certificate of the authority."""
    certificate = files.authority.issue(LOOPBACK)
    return Mosquitto(
        certificate=certificate.path, key=certificate.key, config_lines=lines
    )


# --- security -----------------------------------------------------------------------------


async def test_certificates(
    hass: HomeAssistant, files: Files, upload: Upload, setup: Callable[..., Any]
) -> None:
    """Certificates are uploaded, kept, replaced and removed, and never shown."""
    strict = secured(
        files, "require_certificate true", f"cafile {files.authority.path}"
    )
    async with Mosquitto() as plain, strict as broker:
        entry = await setup(destination_data(plain.port))
        form = destination_form(
            broker.port,
            tls=True,
            ca="own",
            ca_certificate=await upload(files.authority.path),
            use_client_certificate=True,
            client_certificate=await upload(files.client.path),
            client_key=await upload(files.locked),
            client_key_password=PASSWORD,
        )
        data = await change(hass, entry, form)
        assert data["ca_certificate"] == files.authority.path.read_text()
        assert data["client_certificate"] == files.client.path.read_text()
        assert data["client_key"] == files.client.key.read_text()
        assert PASSWORD not in str(data)
        await wait_until(lambda: is_connected(hass, plain.port))

        # The form says that there is something, and no more; what is left empty stays.
        result = await begin(hass, entry, change=True)
        assert shown(result, "security") == {
            "tls": True,
            "ca": "own",
            "use_client_certificate": True,
            "alpn": [],
        }
        form = destination_form(
            broker.port, tls=True, ca="own", use_client_certificate=True, qos="1"
        )
        now = await change(hass, entry, form)
        assert now == {**data, "qos": 1}

        # Another one takes its place; its key must come with it.
        form["security"]["client_certificate"] = await upload(files.other.path)
        result = await begin(hass, entry, change=True)
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": "client_key_mismatch"}
        # The file that was read is still known to the form.
        form["security"]["client_key"] = await upload(files.other.key)
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        assert first(entry)["client_certificate"] == files.other.path.read_text()

        # What is switched off is removed, and the broker wants it.
        form = destination_form(broker.port, tls=True, ca="own")
        result = await begin(hass, entry, change=True)
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": "client_certificate_refused"}
        result = await submit(hass, result, destination_form(plain.port))
        assert result["reason"] == "reconfigure_successful"
        assert {**first(entry), **CONNECTION} == first(entry)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_without_the_sections(
    hass: HomeAssistant, files: Files, setup: Callable[..., Any]
) -> None:
    """Who leaves out a section leaves what it says as it is."""
    async with secured(files) as broker:
        tls = {"tls": True, "ca_certificate": files.authority.path.read_text()}
        entry = await setup(destination_data(broker.port, **tls))
        form = destination_form(broker.port)
        for name in ("security", "transport", "delivery"):
            del form[name]
        data = await change(hass, entry, form)
        assert data == {**data, **CONNECTION, **tls}
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("first_time", [True, False])
async def test_server_name_and_alpn(
    hass: HomeAssistant,
    enable_bluetooth: None,
    files: Files,
    upload: Upload,
    setup: Callable[..., Any],
    first_time: bool,
) -> None:
    """A certificate for another name is good under that name, from the first form on."""
    certificate = files.authority.issue("broker.example")
    broker = Mosquitto(certificate=certificate.path, key=certificate.key)
    async with broker, Mosquitto() as plain:
        named = {"server_name": " broker.example ", "alpn": [" mqtt ", ""]}
        changes: dict[str, Any] = {"tls": True, "ca": "own"}
        if first_time:
            # Once a file is uploaded, nothing can be added to what is served here.
            assert await async_setup_component(hass, DOMAIN, {})
            flow = hass.config_entries.flow
            result: Any = await flow.async_init(DOMAIN, context={"source": SOURCE_USER})
            result = await flow.async_configure(
                result["flow_id"], {"next_step_id": "to_mqtt"}
            )
            await hass.async_block_till_done()
            changes["ca_certificate"] = await upload(files.authority.path)
            result = await flow.async_configure(
                result["flow_id"], bridge_form(broker.port, **changes)
            )
            assert result["errors"] == {"base": "certificate_name"}
            result = await flow.async_configure(
                result["flow_id"], bridge_form(broker.port, **changes, **named)
            )
            await hass.async_block_till_done()
            entry = result["result"]
            data = first(entry)
        else:
            entry = await setup(destination_data(plain.port))
            changes["ca_certificate"] = await upload(files.authority.path)
            result = await begin(hass, entry)
            result = await submit(
                hass, result, destination_form(broker.port, **changes)
            )
            assert result["errors"] == {"base": "certificate_name"}
            result = await submit(
                hass, result, destination_form(broker.port, **changes, **named)
            )
            data = dict(list(entry.subentries.values())[1].data)
        assert (data["server_name"], data["alpn"]) == ("broker.example", ["mqtt"])
        await wait_until(lambda: is_connected(hass, broker.port))
        await hass.config_entries.async_unload(entry.entry_id)


CLIENT = {"tls": True, "use_client_certificate": True}
OWN = {"tls": True, "ca": "own"}


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize(
    ("changes", "uploads", "error"),
    [
        (OWN, {}, "ca_missing"),
        (OWN, {"ca_certificate": "garbage"}, "ca_invalid"),
        (OWN, {"ca_certificate": "locked"}, "ca_invalid"),
        (OWN, {"ca_certificate": "old"}, "ca_outdated"),
        ({"tls": True}, {"ca_certificate": "garbage"}, "file_unused"),
        ({"tls": True}, {"client_key": "garbage"}, "file_unused"),
        ({**OWN, "tls": False}, {"ca_certificate": "garbage"}, "file_unused"),
        (CLIENT, {}, "client_certificate_missing"),
        (CLIENT, {"client_certificate": "client"}, "client_certificate_missing"),
        (CLIENT, {"client_key": "key"}, "client_certificate_missing"),
        (CLIENT, {"client_certificate": "garbage"}, "client_certificate_invalid"),
        (CLIENT, {"client_certificate": "old"}, "client_certificate_outdated"),
        (CLIENT, {"client_key": "garbage"}, "client_key_invalid"),
        (CLIENT, {"client_key": "locked"}, "client_key_locked"),
        (
            {**CLIENT, "client_key_password": "wrong"},
            {"client_key": "locked"},
            "client_key_wrong_password",
        ),
        (
            CLIENT,
            {"client_certificate": "other", "client_key": "key"},
            "client_key_mismatch",
        ),
        ({**OWN, "ca_certificate": "0" * 32}, {}, "upload_gone"),
        ({"tls": True, "server_name": "a b"}, {}, "invalid_server_name"),
        ({"tls": True, "server_name": ".a"}, {}, "invalid_server_name"),
        ({"tls": True, "server_name": "a" * 64}, {}, "invalid_server_name"),
        ({"tls": True, "alpn": ["a" * 256]}, {}, "invalid_alpn"),
        ({"tls": True, "alpn": ["\u00e4"]}, {}, "invalid_alpn"),
        ({"tls": True, "alpn": ["a"] * 21}, {}, "invalid_alpn"),
        (
            {"transport": "websockets", "websocket_path": "mqtt"},
            {},
            "invalid_websocket_path",
        ),
        (
            {"transport": "websockets", "websocket_path": "/a b"},
            {},
            "invalid_websocket_path",
        ),
        *(
            (
                {"transport": "websockets", "websocket_headers": headers},
                {},
                "invalid_websocket_headers",
            )
            for headers in (
                ["X-Key"],
                ["X-Key:"],
                [": 1"],
                ["X Key: 1"],
                ["X-Key: \u00e4"],
                ["X-Key: 1\r2"],
                [f"X-{number}: 1" for number in range(21)],
                [f"X-Key: {'1' * 4097}"],
            )
        ),
        *(
            ({"transport": "unix", "unix_path": path}, {}, "invalid_unix_path")
            for path in ("mosquitto.sock", "", "/a\0b", "/" + "a" * 107)
        ),
        *(
            ({"user_properties": properties}, {}, "invalid_user_properties")
            for properties in (
                ["name"],
                ["=value"],
                ["na\0me=value"],
                ["a=b"] * 21,
                ["a=" + "b" * 1100],
            )
        ),
        ({"first_delay": 5, "longest_delay": 4}, {}, "delays_reversed"),
    ],
)
async def test_errors(
    hass: HomeAssistant,
    broker: Mosquitto,
    files: Files,
    upload: Upload,
    setup: Callable[..., Any],
    changes: dict[str, Any],
    uploads: dict[str, str],
    error: str,
    changing: bool,
) -> None:
    """What cannot be right is said before anything is connected to, and taken back."""
    entry = await setup(destination_data(broker.port))
    paths = {
        **files._asdict(),
        "client": files.client.path,
        "key": files.client.key,
        "other": files.other.path,
    }
    sent = {key: await upload(paths[name]) for key, name in uploads.items()}
    result = await begin(hass, entry, change=changing)
    form = destination_form(broker.port, topic_base="other", **changes, **sent)
    form["fields"]["enabled"] = False
    result = await submit(hass, result, form)
    assert result["errors"] == {"base": error}
    date = result["description_placeholders"]["date"]
    assert bool(date) is error.endswith(("_outdated", "_early"))
    if date:
        yesterday = dt_util.now() - timedelta(days=1)
        assert date == yesterday.date().isoformat()
    form = destination_form(broker.port, topic_base="other", fields={"enabled": False})
    result = await submit(hass, result, form)
    assert result["type"] == ("abort" if changing else "create_entry")


async def test_not_valid_yet(
    hass: HomeAssistant,
    broker: Mosquitto,
    files: Files,
    upload: Upload,
    setup: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine whose clock is wrong, a certificate may not be valid yet."""
    entry = await setup(destination_data(broker.port))
    now = dt_util.utcnow()
    monkeypatch.setattr(
        "custom_components.ble_bridge.kinds.security.dt_util.utcnow",
        lambda: now - timedelta(days=10),
    )
    own = {**OWN, "ca_certificate": await upload(files.authority.path)}
    client = {
        **CLIENT,
        "client_certificate": await upload(files.client.path),
        "client_key": await upload(files.client.key),
    }
    result = await begin(hass, entry)
    for changes, error in (
        (own, "ca_early"),
        (client, "client_certificate_early"),
    ):
        form = destination_form(broker.port, topic_base="other", **changes)
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": error}
        valid_from = dt_util.as_local(now - timedelta(days=2)).date().isoformat()
        assert result["description_placeholders"]["date"] == valid_from


async def test_form_over_http(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    broker: Mosquitto,
    setup: Callable[..., Any],
) -> None:
    """The frontend is given each section with its uploads."""
    entry = await setup(destination_data(broker.port))
    assert await async_setup_component(hass, "config", {})
    client = await hass_client()
    path = "/api/config/config_entries/subentries/flow"
    response = await client.post(
        path, json={"handler": [entry.entry_id, "destination"]}
    )
    menu = await response.json()
    response = await client.post(
        f"{path}/{menu['flow_id']}", json={"next_step_id": "to_mqtt"}
    )
    assert response.status == HTTPStatus.OK
    fields = {field["name"]: field for field in (await response.json())["data_schema"]}
    security = {field["name"]: field for field in fields["security"]["schema"]}
    assert not fields["security"]["expanded"]
    for name in ("ca_certificate", "client_certificate", "client_key"):
        assert "file" in security[name]["selector"]


# --- transport ----------------------------------------------------------------------------


async def test_websockets(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    setup: Callable[..., Any],
) -> None:
    """Path and headers are used; the values of headers are kept and never shown."""
    entry = await setup(destination_data(broker.port))
    headers = {"X-Key": "secret: 1", "X-Other": "2"}
    async with websockets(broker.port, "/behind", headers) as port:
        over = {"transport": "websockets", "websocket_path": "/behind"}
        entered = ["X-Key: secret: 1", " X-Other:2 ", ""]
        result = await begin(hass, entry, change=True)
        form = destination_form(port, **over, websocket_headers=entered[:1])
        result = await submit(hass, result, form)
        assert result["errors"] == {"base": "not_mqtt"}
        form = destination_form(port, **over, websocket_headers=entered)
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        assert first(entry)["websocket_headers"] == headers
        await wait_until(lambda: is_connected(hass, broker.port))

        result = await begin(hass, entry, change=True)
        assert shown(result, "transport") == {
            **over,
            "websocket_headers": ["X-Key:", "X-Other:"],
        }
        kept = ["X-Key:", "X-Other: 2", "X-New: 3"]
        form = destination_form(port, **over, websocket_headers=kept)
        data = await change(hass, entry, form)
        assert data["websocket_headers"] == {**headers, "X-New": "3"}
        form = destination_form(port, **over, websocket_headers=["X-Key:", "X-Other:"])
        data = await change(hass, entry, form)
        assert data["websocket_headers"] == headers
        await hass.async_block_till_done()
        data = await change(hass, entry, destination_form(broker.port))
        assert data == {**data, **CONNECTION}
        await hass.config_entries.async_unload(entry.entry_id)


async def test_unix_socket(
    hass: HomeAssistant, setup: Callable[..., Any], tmp_path: Path
) -> None:
    """A Unix socket is a place of its own; what stands for host and port is not looked at."""
    pytest_socket.socket_allow_hosts([LOOPBACK], allow_unix_socket=True)
    paths = [str(tmp_path / name) for name in ("one.sock", "two.sock")]
    lines = ["allow_anonymous true"]
    async with Mosquitto(
        config_lines=[*(f"listener 0 {path}" for path in paths), *lines]
    ) as broker:
        entry = await setup(destination_data(broker.port))
        over = {"transport": "unix", "host": "mqtt://", "tls": True}
        for number, path in enumerate(paths, 2):
            form = destination_form(0, **over, unix_path=f" {path} ")
            result = await submit(hass, await begin(hass, entry), form)
            assert result["type"] == "create_entry", result
            assert len(entry.subentries) == number
            *_, subentry = entry.subentries.values()
            assert subentry.title == path
            assert subentry.unique_id == f"unix:{path}/ble"
            assert (subentry.data["host"], subentry.data["tls"]) == ("", False)
            sensor = f"binary_sensor.{slugify(path)}_connectivity"
            await wait_until(partial(hass.states.is_state, sensor, "on"))
        result = await submit(hass, await begin(hass, entry), form)
        assert result["reason"] == "already_configured"
        # Back to TCP, with the address that is shown by default
        context = SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=subentry.subentry_id
        )
        result = await hass.config_entries.subentries.async_init(
            (entry.entry_id, "destination"), context=context
        )
        assert shown(result, "transport")["unix_path"] == paths[1]
        form = destination_form(
            broker.port, topic_base="other", fields={"enabled": False}
        )
        result = await submit(hass, result, form)
        assert result["reason"] == "reconfigure_successful"
        await hass.config_entries.async_unload(entry.entry_id)


async def test_port_of_tls_over_websockets(
    hass: HomeAssistant,
    upload: Upload,
    setup: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A web server has no port 8883: there the port stays as it is entered."""
    certificate = make_certificate(tmp_path)
    web = Mosquitto(
        certificate=certificate.path,
        key=certificate.key,
        # Mosquitto 2.0.11 does not start with websockets alone.
        config_lines=["protocol websockets", f"listener {free_port()} {LOOPBACK}"],
    )
    async with Mosquitto() as plain, web as broker:
        entry = await setup(destination_data(plain.port))
        monkeypatch.setattr(
            "custom_components.ble_bridge.kinds.mqtt.input.DEFAULT_PORT", broker.port
        )
        form = destination_form(
            broker.port,
            **OWN,
            ca_certificate=await upload(certificate.path),
            transport="websockets",
        )
        assert (await change(hass, entry, form))["port"] == broker.port
        await wait_until(lambda: is_connected(hass, plain.port))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_home_assistant_broker(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Security and transport of another broker do not count for Home Assistant's."""
    MockConfigEntry(
        domain="mqtt", data={"broker": LOOPBACK, "port": broker.port}
    ).add_to_hass(hass)
    entry = await setup(
        destination_data(broker.port, client_certificate="x", client_key="x")
    )
    form = destination_form(
        broker.port,
        broker="home_assistant",
        tls=True,
        use_client_certificate=True,
        server_name="a b",
        transport="unix",
        unix_path="nowhere",
        session_expiry=60,
        clean_session=False,
    )
    data = await change(hass, entry, form)
    assert data == {**data, **CONNECTION, "session_expiry": 60, "tls": False}
    await wait_until(lambda: is_connected(hass, broker.port))
    assert mqtt_settings(hass, data).session_expiry == 60


# --- the rest of the connection, and delivery ---------------------------------------------


async def test_connection_settings(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Each of the advanced settings is stored and used."""
    entry = await setup(destination_data(broker.port))
    changes = {
        "session_expiry": 120,
        "message_expiry": 300,
        "user_properties": [" site = attic ", "", "note=a=b"],
        "connect_timeout": 40.5,
        "disconnect_timeout": 0.5,
        "first_delay": 0.5,
        "longest_delay": 20,
        "clean_session": False,
    }
    data = await change(hass, entry, destination_form(broker.port, **changes))
    found = mqtt_settings(hass, data)
    assert found == MqttSettings(
        host=LOOPBACK,
        port=broker.port,
        client_id="ble-bridge-test",
        clean_session=False,
        session_expiry=120,
        message_expiry=300,
        user_properties=(("site", "attic"), ("note", "a=b")),
        connect_timeout=40.5,
        disconnect_timeout=0.5,
        first_delay=0.5,
        longest_delay=20,
    )
    result = await begin(hass, entry, change=True)
    assert shown(result, "advanced") == {
        **shown(result, "advanced"),
        **changes,
        "user_properties": ["site = attic", "note=a=b"],
    }
    await wait_until(lambda: is_connected(hass, broker.port))


def test_settings_of_an_earlier_version(hass: HomeAssistant) -> None:
    """What was set up before there was so much to say works as it did."""
    data = destination_data(1883, tls=True, clean_session=False)
    assert mqtt_settings(hass, data) == MqttSettings(
        host=LOOPBACK,
        port=1883,
        client_id="ble-bridge-test",
        clean_session=False,
        tls=True,
        session_expiry=3600,
    )
    assert delivery_settings(data) == DeliverySettings()


async def test_delivery(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """Policies and bounds are stored, shown again, and what delivery goes by."""
    entry = await setup(destination_data(broker.port))
    said = {
        "advertisement": "buffer",
        "reading": "durable",
        "alert": "drop",
        "error": "buffer",
        "connectivity": "drop",
        "message": "durable",
        "buffer_records": 10,
        "buffer_megabytes": 2,
        "store_records": 200,
        "store_megabytes": 3,
        "max_age_hours": 2,
        "publish_timeout": 0.5,
        "max_in_flight": 4,
        "drain_rate": 50,
        "max_tries": 6,
    }
    data = await change(hass, entry, destination_form(broker.port, delivery=said))
    assert data["delivery"] == said
    assert delivery_settings(data) == DeliverySettings(
        policies={
            RecordKind.ADVERTISEMENT: Policy.BUFFER,
            RecordKind.READING: Policy.DURABLE,
            RecordKind.ALERT: Policy.DROP,
            RecordKind.ERROR: Policy.BUFFER,
            RecordKind.CONNECTIVITY: Policy.DROP,
            RecordKind.MESSAGE: Policy.DURABLE,
        },
        buffer=Bounds(10, 2 * MEGABYTE),
        store=Bounds(200, 3 * MEGABYTE),
        max_age=7200,
        publish_timeout=0.5,
        max_in_flight=4,
        drain_rate=50,
        max_tries=6,
    )
    result = await begin(hass, entry, change=True)
    assert shown(result, "delivery") == said
    await wait_until(lambda: is_connected(hass, broker.port))


async def test_diagnostics(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    files: Files,
    setup: Callable[..., Any],
) -> None:
    """No certificate, key, header, path or value of a property is in the diagnostics."""
    authority, client = files.authority.path.read_text(), files.client.path.read_text()
    key = files.client.key.read_text()
    entry = await setup(
        destination_data(
            1,
            tls=True,
            ca_certificate=authority,
            client_certificate=client,
            client_key=key,
            server_name="secret.example",
            transport="websockets",
            websocket_path="/secret-path",
            websocket_headers={"X-Secret-Name": "secret-value"},
            unix_path="/secret/socket",
            user_properties=["site=secret-site"],
        ),
        destination_data(1, topic_base="other", ca_certificate=None),
        connected=False,
    )
    diagnostics = await diagnose_with(hass, hass_client)(entry)
    text = str(diagnostics).lower()
    assert "secret" not in text
    for pem in (authority, client, key):
        assert pem.splitlines()[1].lower() not in text
    one, other = (d["configuration"] for d in diagnostics["destinations"])
    assert one["ca_certificate"] == {"own": True}
    assert other["ca_certificate"] == {"own": False}
    assert [*one["user_properties"]] == ["site"]
