"""The connection itself: what it goes over, whom it trusts, and what it remembers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
import random
import socket
import ssl
import threading
from typing import Any

import pytest
import pytest_socket

from custom_components.ble_bridge.destinations.destination import Backoff
from custom_components.ble_bridge.destinations.errors import ConnectError, Problem
from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnection,
    MqttConnector,
    MqttProtocol,
    MqttSettings,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK
from scripts.simulation.subscriber import Subscriber
from tests.forms import (
    Authority,
    answering,
    connack,
    make_authority,
    make_certificate,
    version,
    websockets,
)

from .faults import ObedientBroker


def settings(port: int, **changes: Any) -> MqttSettings:
    """Return settings for a broker on this machine."""
    return MqttSettings(
        **{"host": LOOPBACK, "port": port, "client_id": "connection", **changes}
    )


async def connect(port: int, **changes: Any) -> MqttConnection:
    """Return a connection."""
    return await MqttConnector(settings(port, **changes)).async_connect()


async def check(port: int, **changes: Any) -> Problem | None:
    """Connect, publish and disconnect; return what was wrong."""
    try:
        connection = await connect(port, **changes)
    except ConnectError as err:
        return err.problem
    connection.publish("connection/works", b"yes")
    await connection.async_close(1)
    return None


@pytest.fixture(name="authority", scope="module")
def authority_fixture(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that the machine does not know."""
    return make_authority(tmp_path_factory.mktemp("authority"))


def secured(authority: Authority, name: str, **changes: Any) -> Mosquitto:
    """Return a broker with a certificate of the authority."""
    certificate = authority.issue(name, expired=changes.pop("expired", False))
    return Mosquitto(certificate=certificate.path, key=certificate.key, **changes)


# --- whom it trusts -----------------------------------------------------------------------


async def test_own_authority(authority: Authority) -> None:
    """A broker is trusted once its authority is."""
    ca = authority.path.read_text()
    async with secured(authority, LOOPBACK) as broker:
        untrusted = Problem.CERTIFICATE_UNTRUSTED
        assert await check(broker.port, tls=True) is untrusted
        assert await check(broker.port, tls=True, ca=ca) is None
        # Nor does the name count where the authority is another.
        other = make_certificate(broker._directory).path.read_text()
        assert await check(broker.port, tls=True, ca=other) is untrusted


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_expired(authority: Authority, protocol: str) -> None:
    """A certificate of a trusted authority has expired."""
    async with secured(authority, LOOPBACK, expired=True) as broker:
        problem = await check(
            broker.port,
            tls=True,
            ca=authority.path.read_text(),
            protocol=MqttProtocol(protocol),
        )
        assert problem is Problem.CERTIFICATE_EXPIRED


async def test_server_name(authority: Authority) -> None:
    """A certificate for another name than the address is good under that name."""
    tls = {"tls": True, "ca": authority.path.read_text()}
    async with secured(authority, "broker.example") as broker:
        assert await check(broker.port, **tls) is Problem.CERTIFICATE_NAME
        assert await check(broker.port, **tls, server_name="broker.example") is None
        wrong = await check(broker.port, **tls, server_name="other.example")
        assert wrong is Problem.CERTIFICATE_NAME


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_client_certificate(
    authority: Authority, protocol: str, tmp_path: Path
) -> None:
    """A broker that asks for a client certificate says so, and takes a right one."""
    tls = {
        "tls": True,
        "ca": authority.path.read_text(),
        "protocol": MqttProtocol(protocol),
    }
    lines = ["require_certificate true", f"cafile {authority.path}"]
    right, old = authority.issue("client"), authority.issue("client", expired=True)
    strange = make_certificate(tmp_path, "client.example")
    refused = Problem.CLIENT_CERTIFICATE_REFUSED
    async with secured(authority, LOOPBACK, config_lines=lines) as broker:
        for _ in range(3):  # The broker may hang up before CONNECT is written, or after
            assert await check(broker.port, **tls) is refused
        for certificate, problem in ((right, None), (old, refused), (strange, refused)):
            found = await check(
                broker.port,
                **tls,
                client_certificate=certificate.path.read_text(),
                client_key=certificate.key.read_text(),
            )
            assert found is problem


@contextmanager
def asking(authority: Authority, newest: ssl.TLSVersion, ciphers: str) -> Iterator[int]:
    """Ask for a client certificate, as OpenSSL does by itself."""
    certificate = authority.issue(LOOPBACK)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest
    context.set_ciphers(ciphers)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with suppress(OSError):
                    context.wrap_socket(client, server_side=True)

    with socket.create_server((LOOPBACK, 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("path", [None, "/mqtt"])
@pytest.mark.parametrize(
    ("newest", "ciphers", "problem"),
    [
        (ssl.TLSVersion.TLSv1_3, "DEFAULT", Problem.CLIENT_CERTIFICATE_REFUSED),
        (ssl.TLSVersion.TLSv1_2, "DEFAULT", Problem.CLIENT_CERTIFICATE_REFUSED),
        # Both fail the handshake with the same alert.
        (ssl.TLSVersion.TLSv1_2, "RSA", Problem.TLS_FAILED),
    ],
)
async def test_alerts(
    authority: Authority,
    path: str | None,
    newest: ssl.TLSVersion,
    ciphers: str,
    problem: Problem,
) -> None:
    """An alert means the same in each version of TLS, and behind a web server."""
    ca = authority.path.read_text()
    with asking(authority, newest, ciphers) as port:
        for _ in range(5):
            assert await check(port, tls=True, ca=ca, websocket_path=path) is problem


@dataclass
class Asked:
    """What a client asked of a TLS server."""

    names: list[str | None] = field(default_factory=list)
    protocols: list[str | None] = field(default_factory=list)


@asynccontextmanager
async def tls_proxy(
    target: int, authority: Authority
) -> AsyncIterator[tuple[int, Asked]]:
    """Offer a broker with TLS and ALPN."""
    certificate = authority.issue("broker.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    context.set_alpn_protocols(["mqtt"])
    asked = Asked()
    context.sni_callback = lambda _socket, name, _context: asked.names.append(name)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = writer.get_extra_info("ssl_object")
        asked.protocols.append(secure.selected_alpn_protocol())
        back, onward = await asyncio.open_connection(LOOPBACK, target)
        await asyncio.gather(copy(reader, onward), copy(back, writer))

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        server.close_clients()
        await server.wait_closed()


async def test_what_the_server_is_asked(
    broker: Mosquitto, authority: Authority
) -> None:
    """Server name and ALPN reach the server, as those need that share one port."""
    tls = {"tls": True, "ca": authority.path.read_text()}
    async with tls_proxy(broker.port, authority) as (port, asked):
        found = await check(
            port, **tls, server_name="broker.example", alpn=("x-mqtt", "mqtt")
        )
        assert found is None
        assert await check(port, **tls, server_name="broker.example") is None
    assert asked == Asked(["broker.example"] * 2, ["mqtt", None])


@pytest.mark.parametrize("ca", ["nonsense", "-----BEGIN CERTIFICATE-----"])
async def test_certificate_that_cannot_be_read(broker: Mosquitto, ca: str) -> None:
    """What is stored and cannot be read is a matter of TLS."""
    assert await check(broker.port, tls=True, ca=ca) is Problem.TLS_FAILED


# --- what it goes over --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_unix_socket(tmp_path: Path, protocol: str) -> None:
    """A broker on the same machine is reached over a socket in the file system."""
    pytest_socket.socket_allow_hosts([LOOPBACK], allow_unix_socket=True)
    path = tmp_path / "mosquitto.sock"
    over = {
        "host": "",
        "unix_path": str(path),
        "tls": True,  # Of no use there
        "protocol": MqttProtocol(protocol),
        "keepalive": 1,
    }
    assert await check(1883, **over) is Problem.CANNOT_CONNECT
    async with (
        Mosquitto(config_lines=[f"listener 0 {path}"]) as broker,
        Subscriber(broker.port) as subscriber,
    ):
        connection = await connect(1883, **over)
        connection.publish("unix/before", b"1")
        await subscriber.wait_for_message("unix/before", b"1")
        await asyncio.sleep(2.5)  # More than the broker waits without a word
        connection.publish("unix/after", b"2" * 100_000, qos=1)
        await subscriber.wait_for_message("unix/after")
        await connection.async_close(1)
        broker.freeze()
        refused = await check(1883, **over, connect_timeout=0.5)
        assert refused is Problem.NO_ANSWER
        broker.thaw()


async def test_websockets_with_headers(
    broker: Mosquitto, subscriber: Subscriber
) -> None:
    """Path and headers reach the server."""
    async with websockets(broker.port, "/behind", {"X-Key": "1"}) as port:
        assert (
            await check(
                port, websocket_path="/behind", websocket_headers={"X-Key": "1"}
            )
            is None
        )
        await subscriber.wait_for_message("connection/works", b"yes")
        wrong = await check(port, websocket_path="/behind")
        assert wrong is Problem.NOT_MQTT


@pytest.mark.parametrize("path", [None, "/mqtt"])
async def test_options_of_the_socket(broker: Mosquitto, path: str | None) -> None:
    """The kernel takes little at once, sends it at once, and notices a dead network."""
    async with websockets(broker.port, "/mqtt", {}) as port:
        connection = await connect(port if path else broker.port, websocket_path=path)
        sock: Any = getattr(connection._sock, "_socket", connection._sock)
        options = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_NODELAY,
                socket.TCP_NOTSENT_LOWAT,
                socket.TCP_USER_TIMEOUT,
            )
        ]
        assert options == [1, 128 * 1024, 30_000]
        await connection.async_close(1)


# --- versions -----------------------------------------------------------------------------


async def test_frozen_broker_is_not_downgraded() -> None:
    """A broker that knows MQTT 5 has not forgotten it when it does not answer."""
    async with Mosquitto() as broker:
        connector = MqttConnector(settings(broker.port), connect_timeout=0.6)
        await (await connector.async_connect()).async_close()
        broker.freeze()
        for _ in range(3):
            with pytest.raises(ConnectError, match="no_answer"):
                await connector.async_connect()
        broker.thaw()
        connection = await connector.async_connect()
        assert connection.protocol is MqttProtocol.V5
        await connection.async_close()
        assert "(p2" not in broker.log(1000)


async def test_versions_that_are_tried() -> None:
    """Silence and hanging up say nothing of a broker; its own word does."""
    tried: list[int] = []
    answers: dict[int, bytes | None] = {}

    def answer(connect: bytes) -> bytes | None:
        tried.append(version(connect))
        return answers.get(version(connect), connack(0)(connect))

    async def attempt(*expected: int) -> None:
        tried.clear()
        with suppress(ConnectError):
            await (await connector.async_connect()).async_close()
        assert tried == [*expected]

    async with answering(answer) as port:
        connector = MqttConnector(settings(port), connect_timeout=0.6)
        for silent in (None, b""):
            answers[5] = silent
            await attempt(5, 4)
        # That it spoke 3.1.1 then proves nothing.
        del answers[5]
        await attempt(5)
        for silent in (None, b""):
            answers[5] = silent
            await attempt(5)
        # Another broker may have taken its place.
        answers[5] = b"\x20\x03\x00\x84\x00"
        await attempt(5, 4)
        await attempt(4)


# --- sessions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expiry"),
    [
        ({}, None),
        ({"session_expiry": 60}, None),
        ({"clean_session": False}, 3600),
        ({"clean_session": False, "session_expiry": 60}, 60),
        ({"clean_session": False, "session_expiry": 0}, None),
    ],
)
async def test_connect(changes: dict[str, Any], expiry: int | None) -> None:
    """A session that is to be kept has an end, and packets one too (MQTT 5, 3.1.2.11)."""
    heard: list[bytes] = []

    def answer(connect: bytes) -> bytes | None:
        heard.append(connect)
        return connack(0)(connect)

    async with answering(answer) as port:
        assert await check(port, protocol=MqttProtocol.V5, **changes) is None
    (packet,) = heard
    properties = b"" if expiry is None else b"\x11" + expiry.to_bytes(4)
    properties += b"\x27" + (16 * 1024 * 1024).to_bytes(4)
    # After name, version, flags and keepalive
    assert packet[12 : 13 + len(properties)] == bytes([len(properties)]) + properties


async def test_message_ids_of_a_session_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ID comes twice, for the broker may still know the first message that had it."""
    monkeypatch.setattr(random, "randrange", lambda stop: stop - 3)
    used: list[int | None] = []
    async with ObedientBroker() as broker:
        connector = MqttConnector(settings(broker.port, clean_session=False))
        for count in (4, 3):
            broker.messages.clear()
            connection = await connector.async_connect()
            for number in range(count):
                connection.publish(f"ids/{number}", b"", qos=2)
            async with asyncio.timeout(5):
                while len(broker.messages) < count:
                    await asyncio.sleep(0.01)
            used += [identifier for _, _, identifier in broker.messages]
            connection.abort()
    assert used == [65534, 65535, 1, 2, 3, 4, 5]


# --- timing -------------------------------------------------------------------------------


async def test_connect_timeout() -> None:
    """The connect timeout of the settings counts."""
    loop = asyncio.get_running_loop()
    async with answering(lambda _: None) as port:
        began = loop.time()
        assert await check(port, connect_timeout=0.4) is Problem.NO_ANSWER
        assert 0.3 < loop.time() - began < 2


async def test_disconnect_timeout() -> None:
    """The disconnect timeout of the settings counts."""
    loop = asyncio.get_running_loop()
    async with Mosquitto() as broker:
        for patience in (0.1, 0.6):
            connection = await connect(broker.port, disconnect_timeout=patience)
            connection._client.disconnect = lambda *_: None  # type: ignore[method-assign, assignment]
            began = loop.time()
            await connection.async_close()
            assert patience <= loop.time() - began < patience + 0.3


def test_backoff() -> None:
    """The delays double up to the longest, and half of each is left to chance."""
    backoff = Backoff()
    for first, longest, expected in (
        (None, None, [1, 2, 4, 8, 16, 32, 60, 60]),
        (5.0, 12.0, [5, 10, 12, 12]),
        (20.0, 12.0, [12, 12]),
    ):
        backoff.set_delays(first, longest)
        backoff.reset()
        for delay in expected:
            assert delay / 2 <= backoff.next() <= delay
    spread = []
    for _ in range(200):
        backoff.reset()
        spread.append(backoff.next())
    assert max(spread) - min(spread) > 4
    for _ in range(2000):
        backoff.next()
