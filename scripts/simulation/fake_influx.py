"""InfluxDB 2 and 3 as a small strict server, since neither can be had as a package."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
import gzip
import json
from pathlib import Path
import ssl
from typing import Final, Self
import zlib

from aiohttp import web

from .influx_answers import (
    V2_PATH,
    V3_PATH,
    Flavour,
    InfluxStore,
    Refusal,
    StoredPoint,
    refusal,
)
from .line_protocol import split_lines
from .processes import LOOPBACK, POLL_SECONDS, SimulationError, free_port, is_port_free

OVERLOADED: Final = "this service is overloaded, please try again later"
# What each says of itself; the cloud says nothing.
_VERSIONS: Final = {Flavour.V2: ("v2.8.0", "OSS"), Flavour.V3: ("3.9.6", "Core")}
_LARGEST_BODY: Final = 2**30
_HEALTH_OF_V2: Final = {
    "name": "influxdb",
    "message": "ready for queries and writes",
    "status": "pass",
    "checks": [],
    "version": "v2.8.0",
    "commit": "0000000000",
}


class Break(StrEnum):
    """Where a connection ends."""

    BEFORE = "before"  # In the middle of the request: nothing is written
    AFTER = "after"  # Written, but nobody is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a write.

    A status, with the header Retry-After (seconds, or a date as in RFC 9110); seconds
    before an answer; no answer at all until it is mended; a connection that ends.
    """

    status: int | None = None
    retry_after: str | int | None = None
    delay: float = 0
    hang: bool = False
    broken: Break | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A request as it came, and the status that it was answered with, if it was.

    `headers` are without the token; `text` is the body as it is unpacked.
    """

    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    status: int | None
    sent_bytes: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Return the lines with points."""
        return list(split_lines(self.text))


class FakeInflux:
    """An InfluxDB of a flavour with one organization, one bucket and one token.

    `points` has all that was accepted, in order; `writes` all requests. Version 3 makes
    any database that is written to. `stop` and `start` keep port and points.
    """

    def __init__(
        self,
        flavour: Flavour = Flavour.V2,
        *,
        port: int = 0,
        token: str = "token",  # noqa: S107
        read_only_token: str | None = None,
        organization: str = "house",
        bucket: str = "ble",
        max_body_bytes: int = 10_485_760,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """Describe the server; `max_body_bytes` holds for the body as it is unpacked."""
        self.port = port or free_port()
        self.flavour = flavour
        self.writes: list[Write] = []
        self._store = InfluxStore(
            flavour, token, read_only_token, organization, bucket, max_body_bytes
        )
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate, key)
        self._faults: deque[Fault] = deque()
        self._lasting_fault: Fault | None = None
        self._mended = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Return where the server is, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}"

    @property
    def points(self) -> list[StoredPoint]:
        """Return all points that were accepted, in the order they came."""
        return self._store.points

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server."""
        await self.stop()

    async def start(self) -> None:
        """Accept connections."""
        if not is_port_free(self.port):
            raise SimulationError(f"Port {self.port} for InfluxDB is in use.")
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/health", self._health)
        application.router.add_post(V2_PATH, self._write)
        if self.flavour is Flavour.V3:
            application.router.add_post(V3_PATH, self._write)
        application.on_response_prepare.append(self._sign)
        self._runner = web.AppRunner(
            application, auto_decompress=False, shutdown_timeout=0, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(
            self._runner, LOOPBACK, self.port, ssl_context=self._tls
        ).start()

    async def stop(self) -> None:
        """End all connections, and accept none."""
        self._let_go()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self) -> None:
        """Stop the server and start it again, on the same port."""
        await self.stop()
        await self.start()

    def fail(self, fault: Fault, times: int | None = None) -> None:
        """Let the next writes fail, or all until it is mended."""
        if times is None:
            self._lasting_fault = fault
        else:
            self._faults.extend([fault] * times)

    def mend(self) -> None:
        """Let nothing fail any more; what hangs ends without an answer."""
        self._faults.clear()
        self._lasting_fault = None
        self._let_go()

    def find(self, measurement: str, **tags: str) -> list[StoredPoint]:
        """Return the points of a measurement with such tags, in the order they came."""
        return [
            point
            for point in self.points
            if point.measurement == measurement and tags.items() <= point.tags.items()
        ]

    async def wait_points(self, count: int, timeout: float = 10) -> None:
        """Wait until so many points were accepted."""
        try:
            async with asyncio.timeout(timeout):
                while len(self.points) < count:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(
                f"{len(self.points)} points came instead of {count}."
            ) from None

    def _let_go(self) -> None:
        """End the requests that hang."""
        self._mended.set()
        self._mended = asyncio.Event()

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        """Say in each answer who gives it."""
        if signature := _VERSIONS.get(self.flavour):
            response.headers["X-Influxdb-Version"] = signature[0]
            response.headers["X-Influxdb-Build"] = signature[1]

    async def _ping(self, request: web.Request) -> web.Response:
        if self.flavour is not Flavour.V3:
            return web.Response(status=204)
        return self._answer_known(
            request, web.json_response({"version": "3.9.6", "revision": "0000000"})
        )

    async def _health(self, request: web.Request) -> web.Response:
        if self.flavour is not Flavour.V3:
            return web.json_response(_HEALTH_OF_V2)
        return self._answer_known(request, web.Response(text="OK"))

    def _answer_known(
        self, request: web.Request, response: web.Response
    ) -> web.Response:
        """Return the response to those who show a token."""
        try:
            self._store.check_token(request.headers.get("Authorization", ""))
        except Refusal as refused:
            return self._refuse(refused)
        return response

    async def _write(self, request: web.Request) -> web.Response:
        """Answer a write, or fail as told."""
        fault = self._faults.popleft() if self._faults else self._lasting_fault
        fault = fault or Fault()
        if fault.broken is Break.BEFORE:
            self._record(request, None, b"", b"")
            return _hang_up(request)
        sent = await request.read()
        body = _unpack(request, sent)
        if fault.hang:
            self._record(request, None, sent, body)
            await self._mended.wait()
            return _hang_up(request)
        await asyncio.sleep(fault.delay)
        response = self._answer(request, body, fault.status)
        if fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        if fault.broken is Break.AFTER:
            self._record(request, None, sent, body)
            return _hang_up(request)
        self._record(request, response.status, sent, body)
        return response

    def _answer(
        self, request: web.Request, body: bytes | None, status: int | None
    ) -> web.Response:
        """Return what the store says, or a status that is told to."""
        try:
            if status is not None:
                raise (
                    Refusal(status, OVERLOADED)
                    if self.flavour is Flavour.V3
                    else refusal(status, OVERLOADED)
                )
            authorization = request.headers.get("Authorization", "")
            self._store.write(request.path, request.query, authorization, body)
        except Refusal as refused:
            return self._refuse(refused)
        return web.Response(status=204)

    def _refuse(self, refused: Refusal) -> web.Response:
        body = refused.body
        if self.flavour is Flavour.V3:
            # It names no content type, neither for JSON nor for text.
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=refused.status, body=text.encode())
        if isinstance(body, str):
            return web.Response(
                status=refused.status, text=body, content_type="text/html"
            )
        headers = {"X-Platform-Error-Code": str(body["code"])}
        return web.json_response(body, status=refused.status, headers=headers)

    def _record(
        self,
        request: web.Request,
        status: int | None,
        sent: bytes,
        body: bytes | None,
    ) -> None:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name != "Authorization"
        }
        text = (body or b"").decode(errors="replace")
        parameters = dict(request.query)
        self.writes.append(
            Write(request.path, parameters, headers, status, len(sent), text)
        )


def _unpack(request: web.Request, sent: bytes) -> bytes | None:
    """Return the body, or nothing if it cannot be unpacked."""
    if request.headers.get("Content-Encoding", "identity") == "identity":
        return sent
    try:
        return gzip.decompress(sent)
    except OSError, EOFError, zlib.error:
        return None


def _hang_up(request: web.Request) -> web.Response:
    """End the connection; what is returned goes nowhere."""
    if request.transport:
        request.transport.abort()
    return web.Response()
