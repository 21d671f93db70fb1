"""The form of an InfluxDB destination: what may be entered, and what is wrong with it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
import functools
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import ssl
import threading
from typing import Any, override

from aiohttp import web
from aiohttp.test_utils import TestServer
from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.fake_influx import FakeInflux, Fault
from scripts.simulation.influx_answers import Flavour
from scripts.simulation.metrics_stores import InfluxDb1, VictoriaMetrics
from scripts.simulation.processes import free_port

from .conftest import SimulatedScanner, wait_until
from .forms import answering, make_authority, make_certificate
from .influx_forms import ADVANCED, bridge, influx_data, influx_form, is_up
from .test_destination_security import upload_fixture  # noqa: F401
from .test_reauth import answer, questions

pytestmark = pytest.mark.usefixtures("enable_bluetooth", "tried_soon")


@asynccontextmanager
async def saying(status: int, text: str = "", **headers: str) -> AsyncIterator[str]:
    """Answer each request in one way; give the URL."""

    async def answer_all(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer_all)
    async with TestServer(application, host="127.0.0.1") as server:
        yield str(server.make_url(""))


class _TakesAll(BaseHTTPRequestHandler):
    """A server to which each line is right."""

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def do_POST(self) -> None:
        """Take what is written."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    """A server that does not mind who hangs up."""

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def taking_all(context: ssl.SSLContext) -> Iterator[int]:
    """Take all lines on a port with TLS, in a thread."""
    with _Server(("127.0.0.1", 0), _TakesAll) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


async def begin(hass: HomeAssistant) -> Any:
    """Open the form that sets up the bridge."""
    flows = hass.config_entries.flow
    menu = await flows.async_init(DOMAIN, context={"source": SOURCE_USER})
    return await flows.async_configure(menu["flow_id"], {"next_step_id": "to_influxdb"})


async def enter(hass: HomeAssistant, flow: Any, form: dict[str, Any]) -> Any:
    """Fill in the form that sets up the bridge."""
    entered = {"name": "Attic", "bridge_id": "attic", **form}
    return await hass.config_entries.flow.async_configure(flow["flow_id"], entered)


async def change(hass: HomeAssistant, entry: MockConfigEntry) -> Any:
    """Open the form that changes the destination."""
    (subentry_id,) = entry.subentries
    return await hass.config_entries.subentries.async_init(
        (entry.entry_id, "destination"),
        context=SubentryFlowContext(source=SOURCE_RECONFIGURE, subentry_id=subentry_id),
    )


async def save(hass: HomeAssistant, flow: Any, form: dict[str, Any]) -> Any:
    """Fill in the form that adds or changes a destination."""
    flows = hass.config_entries.subentries
    result = await flows.async_configure(flow["flow_id"], form)
    await hass.async_block_till_done()
    return result


def stored(entry: MockConfigEntry) -> dict[str, Any]:
    """Return the data of the destination."""
    (subentry,) = entry.subentries.values()
    return dict(subentry.data)


@pytest.mark.parametrize("flavour", Flavour)
async def test_set_up(hass: HomeAssistant, flavour: Flavour) -> None:
    """The form writes a first point, and what it makes is a bridge that writes."""
    async with FakeInflux(flavour) as server:
        flow = await begin(hass)
        assert flow["step_id"] == "to_influxdb"
        form = influx_form(f" {server.url}/ ", token=" token ")
        result = await enter(hass, flow, form)
        assert result["type"] is FlowResultType.CREATE_ENTRY
        assert server.points[0].fields == {"online": False}
        entry = result["result"]
        assert stored(entry) == influx_data(server.url, token="token")
        (subentry,) = entry.subentries.values()
        assert subentry.title == f"127.0.0.1:{server.port} (ble)"
        await wait_until(lambda: is_up(entry))
        assert server.find("ble_bridge", bridge="attic")[-1].fields == {"online": True}
        await hass.config_entries.async_unload(entry.entry_id)
        assert server.find("ble_bridge")[-1].fields == {"online": False}


@pytest.mark.parametrize("api", ["v1", "v2"])
async def test_set_up_victoria_metrics(hass: HomeAssistant, api: str) -> None:
    """VictoriaMetrics asks for no bucket; one with a password gets it."""
    async with VictoriaMetrics(username="me", password="secret") as server:
        form = influx_form(server.url, api=api, bucket="", organization="")
        if api == "v1":
            form["bucket"] = "any"
        flow = await begin(hass)
        result = await enter(hass, flow, form)
        assert result["errors"] == {"base": "invalid_auth"}
        form |= {"username": "me", "password": "secret"}
        result = await enter(hass, result, form)
        assert result["type"] is FlowResultType.CREATE_ENTRY
        await wait_until(lambda: is_up(result["result"]))
        await hass.config_entries.async_unload(result["result"].entry_id)
        (sample,) = await server.query("ble_bridge_online")
        assert sample.labels["bridge"] == "attic"


async def test_set_up_influxdb_1(hass: HomeAssistant) -> None:
    """A database, a retention policy, a user: each that is wrong is named."""
    async with InfluxDb1(users={"me": "secret"}) as server:
        flow = await begin(hass)

        async def entered(**changes: Any) -> Any:
            form = {"username": "me", "password": "secret", "api": "v1", **changes}
            return await enter(hass, flow, influx_form(server.url, **form))

        for changes, error in (
            ({"bucket": ""}, {"bucket": "database_missing"}),
            ({"bucket": "other"}, {"base": "bucket_missing"}),
            ({"retention_policy": "other"}, {"base": "bucket_missing"}),
            ({"password": "wrong"}, {"base": "invalid_auth"}),
            ({"username": "", "password": ""}, {"base": "invalid_auth"}),
            ({"api": "v2"}, {"base": "not_influxdb"}),
        ):
            assert (await entered(**changes))["errors"] == error
        await server.query('REVOKE ALL ON "ble" FROM "me"')
        await server.query('GRANT READ ON "ble" TO "me"')
        assert (await entered())["errors"] == {"base": "not_authorized"}
        await server.query('GRANT ALL ON "ble" TO "me"')
        result = await entered(retention_policy="autogen", token="unused")
        assert result["type"] is FlowResultType.CREATE_ENTRY
        data = stored(result["result"])
        assert (data["token"], data["organization"]) == (None, "")
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_errors_of_influxdb_2(hass: HomeAssistant) -> None:
    """What InfluxDB 2 and 3 have against it is named, and can be mended."""
    async with FakeInflux(read_only_token="read") as server:
        flow = await begin(hass)
        for changes, error in (
            ({"token": "wrong"}, "invalid_auth"),
            ({"token": ""}, "invalid_auth"),
            ({"token": "read"}, "not_authorized"),
            ({"organization": ""}, "bucket_missing"),
            ({"organization": "other"}, "bucket_missing"),
            ({"bucket": ""}, "bucket_missing"),
            ({"bucket": "other"}, "bucket_missing"),
            ({"api": "v1"}, "not_influxdb"),
            ({"url": f"{server.url}/path"}, "not_influxdb"),
            ({"url": server.url.replace("http", "https")}, "tls_failed"),
            ({"url": f"http://127.0.0.1:{free_port()}"}, "cannot_connect"),
        ):
            form = {"url": server.url, "token": "token", **changes}
            flow = await enter(hass, flow, influx_form(**form))
            assert flow["errors"] == {"base": error}, changes
        for status, error in ((429, "quota_exceeded"), (503, "server_unavailable")):
            server.fail(Fault(status=status, retry_after=30), times=1)
            form = influx_form(server.url, token="token")
            flow = await enter(hass, flow, form)
            assert flow["errors"] == {"base": error}
        result = await enter(hass, flow, form)
        assert result["type"] is FlowResultType.CREATE_ENTRY
        await hass.config_entries.async_unload(result["result"].entry_id)


@pytest.mark.usefixtures("disable_mock_zeroconf_resolver")
async def test_a_name_that_nobody_knows(hass: HomeAssistant) -> None:
    """A name that cannot be resolved is told."""
    form = influx_form("http://no.such.host.invalid:8086")
    result = await enter(hass, await begin(hass), form)
    assert result["errors"] == {"base": "cannot_resolve"}


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (200, "<html>Welcome</html>", "not_influxdb"),
        (302, "", "not_influxdb"),
        (400, "The plain HTTP request was sent to HTTPS port", "not_influxdb"),
        (404, "<html>no bucket here</html>", "not_influxdb"),
        (405, "", "not_influxdb"),
        (413, "", "too_large"),
        (418, "", "refused"),
        (500, "", "server_unavailable"),
    ],
)
async def test_other_servers(
    hass: HomeAssistant, status: int, text: str, error: str
) -> None:
    """What is no InfluxDB is told from one that has a bad day."""
    async with saying(status, text, Location="/login") as url:
        result = await enter(hass, await begin(hass), influx_form(url))
        assert result["errors"] == {"base": error}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (None, "no_answer"),
        (b"", "connection_lost"),
        (b"\x20\x02\0\0 no HTTP\r\n\r\n", "not_influxdb"),
    ],
)
async def test_no_http(hass: HomeAssistant, said: bytes | None, error: str) -> None:
    """What does not answer, hangs up, or speaks something else is told."""
    async with answering(lambda _: said) as port:
        form = influx_form(f"http://127.0.0.1:{port}", connect_timeout=1)
        result = await enter(hass, await begin(hass), form)
        assert result["errors"] == {"base": error}


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        *(
            ({"url": url}, {"url": "invalid_url"})
            for url in (
                *("", "localhost", "localhost:8086", "ftp://localhost", "http://"),
                *("http://me:secret@localhost", "http://localhost/?db=x"),
                *("http://localhost/#x", "http://local host", "http://a:99999"),
                *("http://localhost:0", "http://" + "a" * 2000),
            )
        ),
        ({"bucket": "a\nb"}, {"bucket": "invalid_text"}),
        ({"token": "a\x07b"}, {"token": "invalid_text"}),
        ({"organization": "x" * 2000}, {"organization": "invalid_text"}),
        ({"measurement": "_x"}, {"base": "invalid_measurement"}),
        ({"measurement": ""}, {"base": "invalid_measurement"}),
        ({"measurement": "a,b"}, {"base": "invalid_measurement"}),
        ({"first_delay": 90}, {"base": "delays_reversed"}),
        ({"server_name": "a b"}, {"base": "invalid_server_name"}),
        ({"ca": "own"}, {"base": "ca_missing"}),
        ({"use_client_certificate": True}, {"base": "client_certificate_missing"}),
    ],
)
async def test_what_cannot_be_used(
    hass: HomeAssistant, changes: dict[str, Any], errors: dict[str, str]
) -> None:
    """What cannot be used is told before anything is tried, and can be mended."""
    form = influx_form(**{"url": "http://127.0.0.1:1", **changes})
    result = await enter(hass, await begin(hass), form)
    assert result["errors"] == errors
    result = await enter(hass, result, influx_form("http://127.0.0.1:1"))
    assert result["errors"] == {"base": "cannot_connect"}


async def test_tls(
    hass: HomeAssistant, tmp_path: Path, upload: Callable[[Path], Awaitable[str]]
) -> None:
    """The URL says that there is TLS; what is wrong with certificates is named."""
    authority = make_authority(tmp_path)
    right, wrong = authority.issue("127.0.0.1"), authority.issue("another.example")
    late = authority.issue("127.0.0.1", expired=True)
    flow = await begin(hass)
    for made, changes, error in (
        (right, {}, "certificate_untrusted"),
        (wrong, {"ca": "own"}, "certificate_name"),
        (late, {"ca": "own"}, "certificate_expired"),
        (wrong, {"ca": "own", "server_name": "another.example"}, None),
    ):
        async with VictoriaMetrics(certificate=made.path, key=made.key) as server:
            if changes:
                changes["ca_certificate"] = await upload(authority.path)
            flow = await enter(hass, flow, influx_form(server.url, **changes))
            if error is not None:
                assert flow["errors"] == {"base": error}
                continue
            assert flow["type"] is FlowResultType.CREATE_ENTRY
            assert stored(flow["result"])["tls"]
            await wait_until(functools.partial(is_up, flow["result"]))
            await hass.config_entries.async_unload(flow["result"].entry_id)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificate(
    hass: HomeAssistant,
    tmp_path: Path,
    upload: Callable[[Path], Awaitable[str]],
    version: ssl.TLSVersion,
) -> None:
    """A server may ask for a certificate of ours."""
    authority = make_authority(tmp_path)
    own = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.path, own.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    # Apart from Home Assistant's loop, which takes a failed handshake for its own fault.
    with taking_all(context) as port:
        flow = await begin(hass)
        form = influx_form(
            f"https://127.0.0.1:{port}",
            ca="own",
            ca_certificate=await upload(authority.path),
        )
        flow = await enter(hass, flow, form)
        expected = "client_certificate_refused"
        if version is ssl.TLSVersion.TLSv1_2:
            expected = "tls_failed"  # It does not say why
        assert flow["errors"] == {"base": expected}
        client = authority.issue("client")
        form["security"] |= {
            "use_client_certificate": True,
            "client_certificate": await upload(client.path),
            "client_key": await upload(client.key),
        }
        result = await enter(hass, flow, form)
        assert result["type"] is FlowResultType.CREATE_ENTRY
        await wait_until(lambda: is_up(result["result"]))
        await hass.config_entries.async_unload(result["result"].entry_id)


async def test_a_file_for_nothing(
    hass: HomeAssistant, tmp_path: Path, upload: Callable[[Path], Awaitable[str]]
) -> None:
    """A certificate that is uploaded for http would not be used."""
    flow = await begin(hass)
    file = await upload(make_certificate(tmp_path).path)
    form = influx_form("http://127.0.0.1:1", ca="own", ca_certificate=file)
    result = await enter(hass, flow, form)
    assert result["errors"] == {"base": "file_unused"}


async def test_change(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """All is shown but secrets, which stay where they are left empty."""
    async with FakeInflux() as server:
        data = influx_data(server.url, token="token")
        async with bridge(hass, data) as entry:
            flow = await change(hass, entry)
            shown = {
                str(key): (key.description or {}).get("suggested_value")
                for key in flow["data_schema"].schema
            }
            assert shown["token"] is shown["password"] is None
            assert shown["url"] == server.url
            assert shown["organization"] == "house"
            (advanced,) = (
                part.schema.schema
                for key, part in flow["data_schema"].schema.items()
                if key == "advanced"
            )
            assert {
                str(key): key.description["suggested_value"]
                for key in advanced
                if key.description
            } == {**ADVANCED, "retention_policy": ""}
            form = influx_form(server.url, measurement="other", signals="none")
            result = await save(hass, flow, form)
            assert result["reason"] == "reconfigure_successful"
            changed = {"measurement": "other", "signals": "none"}
            assert stored(entry) == {**data, **changed}
            await wait_until(lambda: is_up(entry))
            assert server.find("other_bridge")[-1].fields == {"online": True}
            # A name in place of a token
            flow = await change(hass, entry)
            form |= {"username": "me", "password": "secret"}
            assert (await save(hass, flow, form))["errors"] == {"base": "invalid_auth"}


async def test_twice(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """The same measurement in the same bucket is one destination, and another another."""
    async with FakeInflux() as server:
        data = influx_data(server.url, token="token")
        async with bridge(hass, data) as entry:
            (subentry,) = entry.subentries.values()
            hass.config_entries.async_update_subentry(
                entry, subentry, unique_id=f"{server.url}/house/ble#ble"
            )
            flows = hass.config_entries.subentries

            async def add(**changes: Any) -> Any:
                context = SubentryFlowContext(source=SOURCE_USER)
                menu = await flows.async_init(
                    (entry.entry_id, "destination"), context=context
                )
                flow = await flows.async_configure(
                    menu["flow_id"], {"next_step_id": "to_influxdb"}
                )
                form = influx_form(server.url, token="token", **changes)
                return await save(hass, flow, form)

            result = await add()
            assert result["reason"] == "already_configured"
            result = await add(measurement="second")
            assert result["type"] is FlowResultType.CREATE_ENTRY
            await wait_until(lambda: is_up(entry))


async def test_another_token(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """Who no longer may write is asked for a token, until one is right."""
    async with (
        FakeInflux(read_only_token="read") as server,
        bridge(
            hass,
            influx_data(server.url, token="old"),
            connected=False,
        ) as entry,
    ):
        await wait_until(lambda: questions(hass))
        (flow,) = questions(hass)
        form = await answer(hass, flow, None)
        assert [*form["data_schema"].schema] == ["token"]
        for token, error in (
            ("wrong", "invalid_auth"),
            ("", "invalid_auth"),
            ("read", "not_authorized"),
        ):
            form = await answer(hass, flow, {"token": token})
            assert form["errors"] == {"base": error}
        result = await answer(hass, flow, {"token": "token"})
        assert result["reason"] == "reauth_successful"
        await wait_until(lambda: is_up(entry))
        await hass.async_block_till_done()
        assert not questions(hass)


async def test_another_password(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """Where there is a user, it is asked for that and the password."""
    async with InfluxDb1(users={"me": "secret"}) as server:
        data = influx_data(server.url, api="v1", username="me", password="old")
        async with bridge(hass, data, connected=False) as entry:
            await wait_until(lambda: questions(hass))
            (flow,) = questions(hass)
            form = await answer(hass, flow, None)
            assert {*form["data_schema"].schema} == {"username", "password"}
            entered = {"username": "me", "password": "secret"}
            result = await answer(hass, flow, entered)
            assert result["reason"] == "reauth_successful"
            await wait_until(lambda: is_up(entry))


async def test_a_bucket_that_is_missing(
    hass: HomeAssistant, scanner: SimulatedScanner
) -> None:
    """A repair tells of it until it is there."""
    async with InfluxDb1(databases=()) as server:
        data = influx_data(server.url, api="v1")
        async with bridge(hass, data, connected=False) as entry:
            (subentry_id,) = entry.subentries
            key = (DOMAIN, f"bucket_missing_{subentry_id}")
            await wait_until(lambda: key in ir.async_get(hass).issues)
            assert not ir.async_get(hass).issues[key].is_fixable
            await server.query("CREATE DATABASE ble")
            await wait_until(lambda: is_up(entry))
            assert key not in ir.async_get(hass).issues


async def test_diagnostics(
    hass: HomeAssistant, hass_client: ClientSessionGenerator, scanner: SimulatedScanner
) -> None:
    """Neither where the server is, nor what opens it, is told."""
    async with FakeInflux(token="s3cret") as server:
        data = influx_data(server.url, token="s3cret", username="m3")
        async with bridge(hass, data) as entry:
            shown = await get_diagnostics_for_config_entry(hass, hass_client, entry)
            text = str(shown["destinations"])
            for secret in ("127.0.0.1", str(server.port), "s3cret", "house", "m3"):
                assert secret not in text
            (destination,) = shown["destinations"]
            assert destination["configuration"]["bucket"] == "ble"
            assert destination["protocol"] == "InfluxDB 2.8.0"
