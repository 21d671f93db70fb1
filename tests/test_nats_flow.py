"""The forms of NATS destinations: what they take, what they say, and how one recovers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, override
from unittest.mock import patch

from homeassistant.config_entries import (
    SOURCE_REAUTH,
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    ConfigEntryState,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
import pytest
from pytest_homeassistant_custom_component import plugins

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.kinds.entered import InputError
from custom_components.ble_bridge.kinds.nats.form import read_servers
from scripts.simulation.nats_credentials import KeyKind, NatsKey, NatsOperator
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import free_port

from .conftest import wait_until
from .destinations.faults import Server, diagnose_with
from .forms import make_authority, make_certificate
from .nats import is_up, jetstream, nats_data, nats_form
from .test_destination_security import Upload, upload_fixture  # noqa: F401

pytestmark = pytest.mark.usefixtures("enable_bluetooth")

type Setup = Any

USERS = {"ble": "right"}


@pytest.fixture(name="impatient")
def impatient_fixture() -> Iterator[None]:
    """Have the form wait for an answer for a moment only."""
    with patch("custom_components.ble_bridge.kinds.nats._TEST_TIMEOUT", 0.5):
        yield


@pytest.fixture(autouse=True)
async def clean_up(hass: HomeAssistant) -> AsyncIterator[None]:
    """Unload what a form has set up."""
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        if entry.state is ConfigEntryState.LOADED:
            await hass.config_entries.async_unload(entry.entry_id)


async def begin(hass: HomeAssistant) -> Any:
    """Open the form that sets up the bridge."""
    flows = hass.config_entries.flow
    menu = await flows.async_init(DOMAIN, context={"source": SOURCE_USER})
    assert menu["type"] is FlowResultType.MENU
    result = await flows.async_configure(menu["flow_id"], {"next_step_id": "to_nats"})
    assert result["step_id"] == "to_nats"
    return result


async def submit(
    hass: HomeAssistant, result: Any, *servers: str, **changes: Any
) -> Any:
    """Submit the form that sets up the bridge."""
    form = {"name": "Attic", "bridge_id": "attic", **nats_form(*servers, **changes)}
    result = await hass.config_entries.flow.async_configure(result["flow_id"], form)
    await hass.async_block_till_done()
    return result


def created(result: Any) -> tuple[ConfigEntry[Any], dict[str, Any]]:
    """Return the entry that was made, and the data of its destination."""
    assert result["type"] is FlowResultType.CREATE_ENTRY, result.get("errors")
    entry: ConfigEntry[Any] = result["result"]
    (subentry,) = entry.subentries.values()
    return entry, dict(subentry.data)


async def test_set_up(hass: HomeAssistant) -> None:
    """A bridge is set up, and connects."""
    async with NatsServer() as server:
        result = await submit(hass, await begin(hass), server.url)
        entry, data = created(result)
        assert data == nats_data(server.url)
        (subentry,) = entry.subentries.values()
        assert subentry.title == f"127.0.0.1:{server.port} (ble)"
        assert subentry.unique_id == f"nats:127.0.0.1:{server.port}/ble"
        await wait_until(lambda: is_up(hass, data))


async def test_all_sections_left_out(hass: HomeAssistant) -> None:
    """Who fills in the form by hand says no more than has to be said."""
    async with NatsServer() as server:
        form = {"name": "Attic", "bridge_id": "attic", "namespace": "ble"}
        flow = await begin(hass)
        result = await hass.config_entries.flow.async_configure(
            flow["flow_id"], {**form, "servers": [f"127.0.0.1:{server.port}"]}
        )
        assert created(result)[1] == nats_data(server.url)
        await hass.async_block_till_done()


# --- what is entered --------------------------------------------------------------------

SEED = NatsKey().seed
NO_USER = NatsKey(KeyKind.ACCOUNT).seed


@pytest.mark.parametrize(
    ("changes", "field", "error"),
    [
        ({"servers": []}, "servers", "invalid_servers"),
        ({"servers": ["http://localhost"]}, "servers", "invalid_servers"),
        ({"servers": ["nats://host:0x"]}, "servers", "invalid_servers"),
        ({"servers": ["nats://host:70000"]}, "servers", "invalid_servers"),
        ({"servers": ["nats://host/path"]}, "servers", "invalid_servers"),
        ({"servers": ["nats://ho st"]}, "servers", "invalid_servers"),
        (
            {"servers": [f"nats://host-{number}" for number in range(21)]},
            "servers",
            "invalid_servers",
        ),
        (
            {"servers": ["nats://ble:secret@host"]},
            "servers",
            "servers_with_credentials",
        ),
        ({"servers": ["nats://one", "tls://two"]}, "servers", "servers_mixed"),
        ({"namespace": "ble.*"}, "namespace", "invalid_namespace"),
        ({"namespace": "$SYS"}, "namespace", "invalid_namespace"),
        ({"namespace": " "}, "namespace", "invalid_namespace"),
        ({"client_name": "x" * 129}, "base", "invalid_client_name"),
        ({"client_name": "a\nb"}, "base", "invalid_client_name"),
        ({"first_delay": 9, "longest_delay": 8}, "base", "delays_reversed"),
        ({"jetstream": {"enabled": True, "stored": []}}, "base", "nothing_stored"),
        ({"method": "password", "username": "ble"}, "base", "credentials_missing"),
        ({"method": "password", "password": "x"}, "base", "credentials_missing"),
        ({"method": "token"}, "base", "credentials_missing"),
        ({"method": "token", "token": "x" * 1025}, "base", "credentials_missing"),
        ({"method": "nkey"}, "base", "credentials_missing"),
        ({"method": "nkey", "seed": "S" * 58}, "base", "invalid_seed"),
        ({"method": "nkey", "seed": SEED[:-1]}, "base", "invalid_seed"),
        ({"method": "nkey", "seed": NO_USER}, "base", "invalid_seed"),
        (
            {"method": "nkey", "seed": SEED[:20] + "?" + SEED[21:]},
            "base",
            "invalid_seed",
        ),
        ({"method": "credentials"}, "base", "credentials_missing"),
        ({"method": "credentials", "credentials": "01" * 16}, "base", "upload_gone"),
        ({"server_name": "no name"}, "base", "invalid_server_name"),
    ],
)
async def test_what_is_wrong(
    hass: HomeAssistant, changes: dict[str, Any], field: str, error: str
) -> None:
    """The form says what cannot be used, and takes what can."""
    async with NatsServer() as server:
        servers = changes.pop("servers", [server.url])
        result = await submit(hass, await begin(hass), *servers, **changes)
        assert result["errors"] == {field: error}
        result = await submit(hass, result, server.url)
        assert created(result)[1] == nats_data(server.url)


@pytest.mark.parametrize(
    ("lines", "found", "secure"),
    [
        (["localhost"], ["localhost:4222"], False),
        ([" nats://localhost ", "", "localhost:4222"], ["localhost:4222"], False),
        (["tls://a", "tls://b:7422/"], ["a:4222", "b:7422"], True),
        (["::1", "[::1]:5222"], ["[::1]:4222", "[::1]:5222"], False),
        (["nats://[fe80::1]:4222"], ["[fe80::1]:4222"], False),
    ],
)
def test_servers(lines: list[str], found: list[str], secure: bool) -> None:
    """Addresses are taken as people write them."""
    assert read_servers(lines) == (found, secure)


@pytest.mark.parametrize(
    "line", ["[::1", "nats://", "nats://a?b", "nats://a#b", "nats:a:b", "nats://a:-1"]
)
def test_no_servers(line: str) -> None:
    """What is no address is refused."""
    with pytest.raises(InputError):
        read_servers([line])


# --- who the bridge is ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["password", "token", "nkey", "credentials"])
async def test_authentication(hass: HomeAssistant, upload: Upload, method: str) -> None:
    """Each way to show who we are is taken by a real server; the wrong ones are refused."""
    key, operator = NatsKey(), NatsOperator()
    servers: dict[str, dict[str, Any]] = {
        "password": {"users": USERS},
        "token": {"token": "right"},
        "nkey": {"nkey": key.public},
        "credentials": {"operator": operator},
    }
    credentials = operator.credentials()
    right: dict[str, dict[str, Any]] = {
        "password": {"username": "ble", "password": "right"},
        "token": {"token": "right"},
        "nkey": {"seed": key.seed},
        "credentials": {"credentials": credentials},
    }
    wrong: dict[str, dict[str, Any]] = {
        "password": {"username": "ble", "password": "wrong"},
        "token": {"token": "wrong"},
        "nkey": {"seed": NatsKey().seed},
        "credentials": {"credentials": NatsOperator().credentials()},
    }

    async def entered(said: dict[str, Any]) -> dict[str, Any]:
        if method == "credentials":
            said = {"credentials": await upload(said["credentials"].encode())}
        return {"method": method, **said}

    async with NatsServer(**servers[method]) as server:
        result = await begin(hass)
        result = await submit(hass, result, server.url)
        assert result["errors"] == {"base": "invalid_auth"}
        result = await submit(hass, result, server.url, **await entered(wrong[method]))
        assert result["errors"] == {"base": "invalid_auth"}
        result = await submit(hass, result, server.url, **await entered(right[method]))
        entry, data = created(result)
        assert data == nats_data(server.url, authentication=method, **right[method])
        await wait_until(lambda: is_up(hass, data))
        # No form shows a secret, and what is left empty stays.
        result = await change(hass, entry)
        for secret in (*right[method].values(), key.seed, credentials):
            assert secret == "ble" or secret not in str(result["data_schema"].schema)
        name = {"username": "ble"} if method == "password" else {}
        result = await save(hass, result, server.url, method=method, **name)
        assert result["reason"] == "reconfigure_successful"
        assert first(entry) == data
        # Another way forgets them.
        result = await save(hass, await change(hass, entry), server.url)
        assert result["errors"] == {"base": "invalid_auth"}


async def test_no_credentials_file(hass: HomeAssistant, upload: Upload) -> None:
    """A file that holds no credentials is refused."""
    operator = NatsOperator()
    async with NatsServer(operator=operator) as server:
        result = await begin(hass)
        text = operator.credentials()
        broken = text.replace("SEED-----\nS", "SEED-----\nT")
        for content in (b"\xff\xfe", b"nothing", text[:200].encode(), broken.encode()):
            result = await submit(
                hass,
                result,
                server.url,
                method="credentials",
                credentials=await upload(content),
            )
            assert result["errors"] == {"base": "invalid_credentials"}


# --- the connection ---------------------------------------------------------------------


class Saying(Server):
    """A server that says something else than NATS does."""

    def __init__(self, greeting: bytes | None) -> None:
        """Initialize with what it says; without, it hangs up."""
        super().__init__()
        self.greeting = greeting

    @override
    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Say it."""
        if self.greeting is not None:
            writer.write(self.greeting)
            await reader.read()


INFO = b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"headers":true%b}\r\n'


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (None, "not_nats"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_nats"),
        (b"INFO nothing\r\n", "not_nats"),
        (b"x" * 100_000, "not_nats"),
        (b"", "no_answer"),
        (INFO % b"", "no_answer"),
        (INFO % b"" + b"-ERR 'maximum connections exceeded'\r\n", "server_unavailable"),
        (INFO % b"" + b"-ERR 'Authentication Timeout'\r\n", "no_answer"),
        (INFO % b"" + b"-ERR 'Attempted To Connect To Route Port'\r\n", "refused"),
        (INFO % b"" + b"+WHAT\r\n", "connection_lost"),
    ],
)
async def test_strange_servers(
    hass: HomeAssistant, impatient: None, greeting: bytes | None, error: str
) -> None:
    """What answers otherwise than NATS does is named."""
    async with Saying(greeting) as strange, NatsServer() as server:
        result = await begin(hass)
        result = await submit(hass, result, f"nats://127.0.0.1:{strange.port}")
        assert result["errors"] == {"base": error}
        created(await submit(hass, result, server.url))


async def test_unreachable(
    hass: HomeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not there is named; one of several is enough."""
    monkeypatch.setattr("socket.getaddrinfo", plugins._real_getaddrinfo)
    nobody = f"nats://127.0.0.1:{free_port()}"
    async with NatsServer() as server:
        result = await submit(hass, await begin(hass), nobody)
        assert result["errors"] == {"base": "cannot_connect"}
        result = await submit(hass, result, "nats://nobody.invalid:4222")
        assert result["errors"] == {"base": "cannot_resolve"}
        result = await submit(hass, result, nobody, server.url)
        entry, data = created(result)
        assert data["servers"] == [nobody, server.url]
        await wait_until(lambda: is_up(hass, data))
        await hass.config_entries.async_unload(entry.entry_id)


async def test_unexpected(
    hass: HomeAssistant, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is logged, and the form goes on."""
    async with NatsServer() as server:
        with patch(
            "custom_components.ble_bridge.kinds.nats.nats_settings",
            side_effect=RuntimeError("nobody foresaw"),
        ):
            result = await submit(hass, await begin(hass), server.url)
        assert result["errors"] == {"base": "unknown"}
        assert "nobody foresaw" in caplog.text
        caplog.clear()
        created(await submit(hass, result, server.url))


async def test_jetstream(hass: HomeAssistant) -> None:
    """The form tells of JetStream that is missing, or does not do as it is told."""
    wishes = {"enabled": True}
    async with NatsServer() as without, NatsServer(jetstream=True) as server:
        result = await submit(hass, await begin(hass), without.url, jetstream=wishes)
        assert result["errors"] == {"base": "jetstream_missing"}
        result = await submit(
            hass, result, server.url, jetstream={**wishes, "replicas": "3"}
        )
        assert result["errors"] == {"base": "stream_conflict"}
        async with jetstream(server.url) as context:
            await context.add_stream(name="theirs", subjects=["ble.*.data"])
        result = await submit(hass, result, server.url, jetstream=wishes)
        assert result["errors"] == {"base": "stream_conflict"}
        result = await submit(
            hass, result, server.url, jetstream=wishes, namespace="house"
        )
        _, data = created(result)
        await wait_until(lambda: is_up(hass, data))
        async with jetstream(server.url) as context:
            names = {stream.config.name for stream in await context.streams_info()}
        assert names >= {"HOUSE_READING", "HOUSE_ALERT", "theirs"}


async def test_no_room(hass: HomeAssistant) -> None:
    """More than the server has room for is refused, and less is taken."""
    async with NatsServer(jetstream=True, jetstream_bytes=200 << 20) as server:
        wishes: dict[str, Any] = {"enabled": True}
        result = await submit(hass, await begin(hass), server.url, jetstream=wishes)
        assert result["errors"] == {"base": "quota_exceeded"}
        wishes |= {"max_megabytes": 10}
        created(await submit(hass, result, server.url, jetstream=wishes))


async def test_tls(hass: HomeAssistant, upload: Upload, tmp_path: Path) -> None:
    """With TLS a server is believed that an authority of ours vouches for, and no other."""
    ours, theirs = make_authority(tmp_path), make_authority(tmp_path, "Theirs")
    certificate = ours.issue("127.0.0.1")
    async with NatsServer(certificate=certificate.path, key=certificate.key) as server:
        result = await submit(hass, await begin(hass), server.url)
        assert result["errors"] == {"base": "certificate_untrusted"}
        # TLS comes with the server's wish, too.
        plain = f"nats://127.0.0.1:{server.port}"
        result = await submit(hass, result, plain)
        assert result["errors"] == {"base": "certificate_untrusted"}
        for authority, error in ((theirs, "certificate_untrusted"), (ours, None)):
            result = await submit(
                hass,
                result,
                server.url,
                ca="own",
                ca_certificate=await upload(authority.path),
                server_name="other.example" if error is None else "",
            )
            assert result["errors"] == {"base": error or "certificate_name"}
        result = await submit(
            hass,
            result,
            plain,
            tls=True,
            ca="own",
            ca_certificate=await upload(ours.path),
        )
        _, data = created(result)
        assert data["servers"] == [server.url]
        assert data["tls"] is True
        await wait_until(lambda: is_up(hass, data))


async def test_client_certificate(
    hass: HomeAssistant, upload: Upload, tmp_path: Path
) -> None:
    """A server that asks for a client certificate gets one, or refuses us."""
    ours, theirs = make_authority(tmp_path), make_authority(tmp_path, "Theirs")
    certificate, client = ours.issue("127.0.0.1"), ours.issue("client")
    other = theirs.issue("other")
    async with NatsServer(
        certificate=certificate.path,
        key=certificate.key,
        ca=ours.path,
    ) as server:
        result = await begin(hass)
        ca = {"ca": "own", "ca_certificate": await upload(ours.path)}
        result = await submit(hass, result, server.url, **ca)
        assert result["errors"] == {"base": "client_certificate_refused"}
        for pair, error in ((other, "client_certificate_refused"), (client, None)):
            result = await submit(
                hass,
                result,
                server.url,
                **ca,
                use_client_certificate=True,
                client_certificate=await upload(pair.path),
                client_key=await upload(pair.key),
            )
            if error:
                assert result["errors"] == {"base": error}
        _, data = created(result)
        await wait_until(lambda: is_up(hass, data))


async def test_no_secret_without_tls(hass: HomeAssistant) -> None:
    """Where TLS is switched on, nothing secret is said without it."""
    heard = bytearray()

    class Listening(Server):
        @override
        async def serve(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(INFO % b',"auth_required":true,"nonce":"abc"')
            while data := await reader.read(4096):
                heard.extend(data)
                writer.write(b"PONG\r\n")

    async with Listening() as server:
        result = await begin(hass)
        url = f"tls://127.0.0.1:{server.port}"
        for said in (
            {"method": "password", "username": "ble", "password": "secret"},
            {"method": "token", "token": "secret"},
            {"method": "nkey", "seed": SEED},
            {},
        ):
            result = await submit(hass, result, url, **said)
            assert result["errors"] == {"base": "tls_failed"}
        for secret in (b"secret", b'"sig"', b'"nkey"'):
            assert secret not in heard


async def test_not_tls(hass: HomeAssistant, tmp_path: Path) -> None:
    """A server whose TLS cannot be spoken, or has expired, is named."""
    expired = make_certificate(tmp_path, expired=True)
    async with NatsServer(certificate=expired.path, key=expired.key) as server:
        result = await submit(hass, await begin(hass), server.url)
        assert result["errors"]["base"] in (
            "certificate_expired",
            "certificate_untrusted",
        )

    class Confused(Server):
        @override
        async def serve(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(INFO % b',"tls_required":true')
            await reader.read(4096)
            writer.write(b"no TLS at all\r\n" * 9)
            await reader.read()

    async with Confused() as strange:
        result = await submit(hass, result, f"nats://127.0.0.1:{strange.port}")
        assert result["errors"] == {"base": "tls_failed"}


# --- changes ----------------------------------------------------------------------------


async def change(hass: HomeAssistant, entry: ConfigEntry[Any]) -> Any:
    """Open the form that changes the first destination."""
    return await hass.config_entries.subentries.async_init(
        (entry.entry_id, "destination"),
        context=SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=next(iter(entry.subentries))
        ),
    )


async def save(hass: HomeAssistant, result: Any, *servers: str, **changes: Any) -> Any:
    """Submit the form of a destination."""
    result = await hass.config_entries.subentries.async_configure(
        result["flow_id"], nats_form(*servers, **changes)
    )
    await hass.async_block_till_done()
    return result


def first(entry: ConfigEntry[Any]) -> dict[str, Any]:
    """Return the data of the first destination."""
    return dict(next(iter(entry.subentries.values())).data)


async def test_change(hass: HomeAssistant, setup_nats: Setup) -> None:
    """Each field can be changed, and the form shows what is stored."""
    async with NatsServer(jetstream=True) as server:
        before = nats_data(server.url)
        entry = await setup_nats(before)
        changes: dict[str, Any] = {
            "namespace": "home.ble",
            "payload": "json",
            "records": False,
            "raw": False,
            "client_name": "attic",
            "connect_timeout": 5,
            "disconnect_timeout": 1.5,
            "first_delay": 2,
            "longest_delay": 20,
        }
        nested: dict[str, Any] = {
            "jetstream": {
                "enabled": True,
                "stored": ["alert"],
                "storage": "memory",
                "retention": "interest",
                "max_age_hours": 1,
                "max_megabytes": 2,
                "max_messages": 3,
                "duplicate_window": 30,
            },
            "delivery": {"reading": "durable", "max_in_flight": 7},
        }
        result = await save(
            hass, await change(hass, entry), server.url, **changes, **nested
        )
        assert result["reason"] == "reconfigure_successful"
        expected = nats_data(server.url, **changes, **nested)
        assert first(entry) == expected
        (subentry,) = entry.subentries.values()
        assert subentry.title == f"127.0.0.1:{server.port} (home.ble)"
        await wait_until(lambda: is_up(hass, before))
        shown = {
            str(key): {
                str(inner): inner.description["suggested_value"]
                for inner in part.schema.schema
                if inner.description
            }
            for key, part in (await change(hass, entry))["data_schema"].schema.items()
            if hasattr(part, "schema") and not isinstance(part.schema, dict)
        }
        assert shown["jetstream"] == expected["jetstream"]
        assert shown["delivery"] == expected["delivery"]
        assert shown["messages"] == {
            key: expected[key] for key in ("payload", "records", "raw")
        }
        assert shown["advanced"].items() <= expected.items()


async def test_twice(hass: HomeAssistant, setup_nats: Setup) -> None:
    """The same place twice is refused; the same server with another namespace is not."""
    async with NatsServer() as server:
        entry = await setup_nats(nats_data(server.url))
        for namespace, reason in (("ble", "already_configured"), ("house", None)):
            menu = await hass.config_entries.subentries.async_init(
                (entry.entry_id, "destination"),
                context=SubentryFlowContext(source=SOURCE_USER),
            )
            result = await hass.config_entries.subentries.async_configure(
                menu["flow_id"], {"next_step_id": "to_nats"}
            )
            result = await save(hass, result, server.url, namespace=namespace)
            assert result.get("reason") == reason
        assert len(entry.subentries) == 2


# --- credentials that are refused later -------------------------------------------------


@asynccontextmanager
async def refusing(
    hass: HomeAssistant, setup_nats: Setup, method: str, upload: Upload
) -> AsyncIterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Have a server refuse what it took so far; give entry, question, and what is right."""
    old, new = NatsKey(), NatsKey()
    operators = NatsOperator(), NatsOperator()
    ways: dict[str, tuple[dict[str, Any], ...]] = {
        "none": ({}, {"users": USERS}, {}, {"username": "ble", "password": "right"}),
        "password": (
            {"users": {"ble": "old"}},
            {"users": USERS},
            {"username": "ble", "password": "old"},
            {"username": "ble", "password": "right"},
        ),
        "token": ({"token": "old"}, {"token": "t"}, {"token": "old"}, {"token": "t"}),
        "nkey": (
            {"nkey": old.public},
            {"nkey": new.public},
            {"seed": old.seed},
            {"seed": new.seed},
        ),
        "credentials": (
            {"operator": operators[0]},
            {"operator": operators[1]},
            {"credentials": operators[0].credentials()},
            {"credentials": operators[1].credentials()},
        ),
    }
    before, after, data, right = ways[method]
    server = NatsServer(**before)
    async with server:
        entry = await setup_nats(
            nats_data(server.url, authentication=method, first_delay=None, **data)
        )
    if method == "credentials":
        right = {"credentials": await upload(right["credentials"].encode())}

    def questions() -> list[Any]:
        return [
            flow
            for flow in hass.config_entries.flow.async_progress_by_handler(DOMAIN)
            if flow["context"]["source"] == SOURCE_REAUTH
        ]

    async with NatsServer(server.port, **after):
        await wait_until(questions)
        (question,) = questions()
        yield entry, question, right


@pytest.mark.parametrize("method", ["none", "password", "token", "nkey", "credentials"])
async def test_reauthentication(
    hass: HomeAssistant,
    setup_nats: Setup,
    tried_soon: None,
    upload: Upload,
    method: str,
) -> None:
    """The user is asked for what belongs to the way that was chosen, until it is right."""
    flows = hass.config_entries.flow
    async with refusing(hass, setup_nats, method, upload) as (entry, question, right):
        form: Any = await flows.async_configure(question["flow_id"], None)
        assert [str(key) for key in form["data_schema"].schema] == [*right]
        form = await flows.async_configure(question["flow_id"], {})
        assert form["errors"]["base"] in ("credentials_missing", "invalid_auth")
        result: Any = await flows.async_configure(question["flow_id"], right)
        assert result["reason"] == "reauth_successful"
        await hass.async_block_till_done()
        data = first(entry)
        await wait_until(lambda: is_up(hass, data))
        assert data["authentication"] == ("password" if method == "none" else method)
        assert not ir.async_get(hass).issues


async def test_nothing_is_told(
    hass: HomeAssistant, setup_nats: Setup, hass_client: Any
) -> None:
    """Diagnostics name no server, and show no secret."""
    key = NatsKey()
    async with NatsServer(nkey=key.public) as server:
        data = nats_data(
            server.url,
            authentication="nkey",
            seed=key.seed,
            token="hidden-token",
            credentials="hidden-credentials",
            password="hidden-password",
        )
        # Only one of them counts, but all are to be hidden.
        with patch(
            "custom_components.ble_bridge.kinds.nats.settings.SECRETS", ("seed",)
        ):
            entry = await setup_nats(data)
        told = str(await diagnose_with(hass, hass_client)(entry))
        assert "'namespace': 'ble'" in told
        for secret in (key.seed, "hidden", "127.0.0.1"):
            assert secret not in told
