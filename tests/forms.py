"""What the tests of forms share: what is entered, and brokers that do not do well."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# The sections as the form shows them by default, and what else they may have.
SECURITY = {"tls": False, "ca": "system", "use_client_certificate": False, "alpn": []}
SECURITY_TOO = {
    *("ca_certificate", "client_certificate", "client_key", "client_key_password"),
    "server_name",
}
TRANSPORT = {
    "transport": "tcp",
    "websocket_path": "/mqtt",
    "websocket_headers": [],
}
TRANSPORT_TOO = {"unix_path"}
ADVANCED = {
    "topic_base": "ble",
    "raw": True,
    "qos": "0",
    "protocol": "auto",
    "keepalive": 60,
    "clean_session": True,
    "session_expiry": 3600,
    "user_properties": [],
    "connect_timeout": 30,
    "disconnect_timeout": 0.25,
    "first_delay": 1,
    "longest_delay": 60,
}
ADVANCED_TOO = {"client_id", "message_expiry"}
DELIVERY = {
    "advertisement": "drop",
    "reading": "buffer",
    "alert": "durable",
    "error": "durable",
    "connectivity": "buffer",
    "message": "buffer",
    "buffer_records": 1_000,
    "buffer_megabytes": 8,
    "store_records": 100_000,
    "store_megabytes": 64,
    "max_age_hours": 168,
    "publish_timeout": 2.5,
    "max_in_flight": 100,
    "drain_rate": 500,
    "max_tries": 5,
}
# What is stored of a connection about which nothing is said.
CONNECTION: dict[str, Any] = {
    "server_name": None,
    "alpn": [],
    "ca_certificate": None,
    "client_certificate": None,
    "client_key": None,
    "transport": "tcp",
    "websocket_path": "/mqtt",
    "websocket_headers": {},
    "unix_path": None,
    "session_expiry": 3600,
    "message_expiry": None,
    "user_properties": [],
    "connect_timeout": 30,
    "disconnect_timeout": 0.25,
    "first_delay": 1,
    "longest_delay": 60,
}

# The sections of the layouts as the form shows them; what is stored is the same.
FIELDS = {
    "enabled": True,
    "topic_base": "telemetry",
    "reading": "0",
    "alert": "1",
    "error": "1",
    "connectivity": "0",
}
VALUES = {"enabled": False, "topic_base": "iiot", "reading": "1_retain"}
LAYOUTS = {"fields": FIELDS, "values": VALUES}

# What a broker answers to CONNECT; nothing hangs up, and None stays silent.
type Answer = Callable[[bytes], bytes | None]


def destination_form(port: float, **changes: Any) -> dict[str, Any]:
    """Return the form of a destination; changes go to the section they belong to.

    Those of layouts and of delivery are given as such: `fields={"enabled": False}`.
    """
    sections = {
        name: {
            **section,
            **{key: changes.pop(key) for key in [*changes] if key in {*section, *more}},
        }
        for name, section, more in (
            ("security", SECURITY, SECURITY_TOO),
            ("transport", TRANSPORT, TRANSPORT_TOO),
            ("advanced", ADVANCED, ADVANCED_TOO),
        )
    }
    given = {**LAYOUTS, "delivery": DELIVERY}
    sections |= {
        name: {**part, **changes.pop(name, {})} for name, part in given.items()
    }
    return {"host": "127.0.0.1", "port": port, **changes, **sections}


def bridge_form(port: float, **changes: Any) -> dict[str, Any]:
    """Return the form that sets up the bridge."""
    return {
        "name": changes.pop("name", "Attic"),
        "bridge_id": changes.pop("bridge_id", "attic"),
        **destination_form(port, **changes),
    }


def version(connect: bytes) -> int:
    """Return the protocol version in a CONNECT packet: 4 is 3.1.1."""
    return connect[connect.index(b"MQTT") + 4]


def connack(code: int) -> Answer:
    """Return the answer with a return code (3.1.1) or a reason code (5)."""
    return lambda connect: (
        bytes((0x20, 3, 0, code, 0))
        if version(connect) == 5
        else bytes((0x20, 2, 0, code))
    )


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """Listen on a port, and answer each connection in one way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if received := await reader.read(4096):
            answered = answer(received)
            if answered:
                writer.write(answered)
            accepted = answered is not None and answered[2:4] == b"\0\0"
            if accepted or answered is None:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        server.close_clients()
        await server.wait_closed()


@asynccontextmanager
async def websockets(
    broker_port: int, path: str, headers: Mapping[str, str]
) -> AsyncIterator[int]:
    """Offer a broker on websockets to those who know the path and send the headers."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path != path or not headers.items() <= request.headers.items():
            return web.Response(status=404)
        socket = web.WebSocketResponse(protocols=["mqtt"])
        await socket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", broker_port)

        async def answer() -> None:
            with suppress(ConnectionError):  # The client may be gone first
                while received := await reader.read(4096):
                    await socket.send_bytes(received)
                await socket.close()

        answering = asyncio.create_task(answer())
        async for message in socket:
            writer.write(message.data)
        writer.close()
        await answering
        return socket

    application = web.Application()
    application.router.add_get("/{path:.*}", serve)
    async with TestServer(application, host="127.0.0.1") as server:
        assert server.port is not None
        yield server.port


class Certificate(NamedTuple):
    """A certificate and its key, in files (PEM)."""

    path: Path
    key: Path


@dataclass
class Authority:
    """An authority that signs certificates, as people make them at home."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(
        self, name: str, *, expired: bool = False, days: float = 1
    ) -> Certificate:
        """Sign a certificate for a host or a client, by default for one day."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _builder(
            name, key, days=-1 if expired else days, issuer=self.certificate.subject
        )
        return _write(
            self.path.parent,
            f"{name}-{expired}-{days}",
            certificate.sign(self.key, hashes.SHA256()),
            key,
        )


def make_authority(
    directory: Path, name: str = "Home", *, days: float = 1
) -> Authority:
    """Make an authority, by default for one day."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, key, days=days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = _write(directory, f"{name}-{days}", certificate, key).path
    return Authority(path, certificate, key)


def _builder(
    host: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: float,
    issuer: x509.Name | None = None,
) -> x509.CertificateBuilder:
    """Begin a certificate for a host, by default from itself, for some days to come."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    )


def _write(
    directory: Path,
    name: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> Certificate:
    """Write a certificate and its key."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    made.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def make_certificate(
    directory: Path, host: str = "127.0.0.1", *, expired: bool = False
) -> Certificate:
    """Make a certificate for a host that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(host, key, days=-1 if expired else 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _write(directory, f"{host}-{expired}", certificate, key)
