"""InfluxDB, or what takes its line protocol, over HTTP.

There is no connection that stays, so a point is written when one is made: with a token that
may only write, nothing else proves that the server takes what comes next.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
import functools
import logging
import ssl
from typing import Final
import zlib

import aiohttp
from yarl import URL

from .errors import ConnectError, Problem
from .influxdb_answers import Answer, Verdict, is_json_error, judge, retry_after
from .tls import tls_context, tls_problem

_LOGGER = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 10.0
# How long the last words may take.
DISCONNECT_TIMEOUT: Final = 3.0
# How long a server may take to say why it hangs up.
_WHY: Final = 2.0
# What takes longer to compress than the loop should stand still, in bytes.
_LARGE: Final = 32 * 1024
# How much is read of an answer; InfluxDB 3 repeats each line that it does not take.
_MAX_ANSWER: Final = 1024 * 1024


class InfluxApi(StrEnum):
    """The way of writing: that of InfluxDB 2, which 3 has too, or that of InfluxDB 1."""

    V2 = "v2"
    V1 = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """How to reach a server, and how much goes there at once.

    `place` are the parameters that say where: organization and bucket, or database and
    retention policy. `authorization` is the header, if there is one. `ca`,
    `client_certificate` and `client_key` are PEM; no `ca` means the system's.
    `server_name` is asked for and checked in place of the host. A batch goes when it has
    `batch_lines` or `batch_bytes`, or `batch_time` (s) after the one before it.
    `connect_timeout` is how long the first answer may take (s); `first_delay` and
    `longest_delay` are those between tries (s).
    """

    url: str
    api: InfluxApi
    place: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    server_name: str | None = None
    gzip: bool = True
    batch_lines: int = 5_000
    batch_bytes: int = 1_000_000
    batch_time: float = 1.0
    connect_timeout: float = CONNECT_TIMEOUT
    first_delay: float | None = None
    longest_delay: float | None = None

    @property
    def address(self) -> URL:
        """Return where lines are written."""
        path = "api/v2/write" if self.api is InfluxApi.V2 else "write"
        said = {name: text for name, text in self.place.items() if text}
        return (URL(self.url) / path).with_query({**said, "precision": "ns"})


def token_header(token: str) -> str:
    """Return what shows a token."""
    return f"Token {token}"


def password_header(username: str, password: str) -> str:
    """Return what shows a username and a password."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class WaitError(ConnectError):
    """A server that wants to be left alone, and for how long (s), if it said so."""

    def __init__(self, problem: Problem, wait: float | None) -> None:
        """Initialize with what was wrong."""
        super().__init__(problem)
        self.wait = wait


class InfluxConnection:
    """A server that has taken a point, until it takes no more."""

    disconnect_timeout = DISCONNECT_TIMEOUT

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: InfluxSettings,
        context: ssl.SSLContext | None,
        status: Callable[[bool], bytes],
    ) -> None:
        """Initialize; `InfluxConnector.async_connect` makes connections."""
        self.settings = settings
        self.bytes_sent = 0
        # What is written at the end.
        self.last_words: list[bytes] = []
        self._session = session
        self._address = settings.address
        self._context = context
        self._status = status
        self._version = ""
        self._headers = {"Content-Type": "text/plain; charset=utf-8"}
        if settings.gzip:
            self._headers["Content-Encoding"] = "gzip"
        if settings.authorization is not None:
            self._headers["Authorization"] = settings.authorization

    @property
    def protocol(self) -> str:
        """Return what is spoken, and with whom, as far as it says so."""
        return self._version or f"InfluxDB ({self.settings.api})"

    async def async_write(
        self, lines: Sequence[bytes], patience: float | None = None
    ) -> Answer:
        """Write lines; return what the server says to them. Raises ConnectError.

        `patience` (s) is for all of it. Where a connection that was kept open has ended,
        it is tried once more: what is written twice is there once.
        """
        body = b"\n".join(lines)
        if self.settings.gzip:
            body = await self._async_compress(body)
        try:
            return await self._async_post(body, patience)
        except ConnectError as err:
            if err.problem is not Problem.CONNECTION_LOST:
                raise
        return await self._async_post(body, patience)

    async def _async_compress(self, data: bytes) -> bytes:
        if len(data) < _LARGE:
            return _compress(data)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, _compress, data)

    async def _async_post(self, body: bytes, patience: float | None) -> Answer:
        """Send a request; return its answer. Raises ConnectError."""
        connect_timeout = self.settings.connect_timeout
        try:
            async with self._session.post(
                self._address,
                data=body,
                headers=self._headers,
                # Who follows a redirect shows the token to whoever it names.
                allow_redirects=False,
                ssl=self._context or True,
                server_hostname=self.settings.server_name if self._context else None,
                timeout=aiohttp.ClientTimeout(total=patience, connect=connect_timeout),
            ) as response:
                self.bytes_sent += len(body)
                return await self._async_read(response)
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise ConnectError(_problem(err, is_tls=self._context is not None)) from err

    async def _async_read(self, response: aiohttp.ClientResponse) -> Answer:
        """Return an answer, cut off where it is longer than any that we understand."""
        data = b""
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > _MAX_ANSWER:
                break
        text = data[:_MAX_ANSWER].decode(errors="replace")
        version = response.headers.get("X-Influxdb-Version")
        if version and version.isprintable():
            self._version = f"InfluxDB {version[:40].removeprefix('v')}"
        return Answer(
            response.status,
            text,
            version is not None or is_json_error(text),
            retry_after(response.headers.get("Retry-After")),
        )

    async def async_greet(self, patience: float, *, online: bool = True) -> None:
        """Write the status of the bridge, and so prove the connection; raises ConnectError."""
        answer = await self.async_write([self._status(online)], patience)
        verdict, problem = judge(answer)
        if verdict is Verdict.WAIT:
            raise WaitError(problem, answer.retry_after)
        if verdict is Verdict.EXAMINE and answer.is_influx:
            # It has looked at the line, so that all else is right.
            _LOGGER.debug("The status of the bridge was not taken: %s", problem)
        elif verdict is Verdict.EXAMINE:
            raise ConnectError(Problem.NOT_INFLUXDB)
        elif verdict is not Verdict.TAKEN:
            raise ConnectError(problem)

    async def async_close(self, patience: float | None = None) -> None:
        """Write the last words within our patience (s)."""
        patience = self.disconnect_timeout if patience is None else patience
        try:
            await self.async_write(
                [*self.last_words, self._status(False)], max(patience, 0.1)
            )
        except ConnectError as err:
            _LOGGER.debug("The last words were not taken: %s", err)

    def abort(self) -> None:
        """Do nothing: there is no connection that stays."""


class InfluxConnector:
    """Makes connections to one server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: InfluxSettings,
        status: Callable[[bool], bytes],
    ) -> None:
        """Initialize; `status` is the line that says whether the bridge is there."""
        self.settings = settings
        self._session = session
        self._status = status
        self._context: ssl.SSLContext | None = None

    async def async_connect(
        self, connect_timeout: float | None = None, *, online: bool = True
    ) -> InfluxConnection:
        """Return a connection on which a point was written; raises ConnectError.

        A connect timeout (s) goes before that of the settings.
        """
        settings = self.settings
        if self._context is None and settings.address.scheme == "https":
            self._context = await self._async_context()
        connection = InfluxConnection(
            self._session, settings, self._context, self._status
        )
        patience = connect_timeout or settings.connect_timeout
        try:
            await connection.async_greet(patience, online=online)
        except ConnectError as err:
            if err.problem is not Problem.CONNECTION_LOST or self._context is None:
                raise
            raise ConnectError(await self._async_ask_why(self._context)) from err
        return connection

    async def _async_ask_why(self, context: ssl.SSLContext) -> Problem:
        """Return why a server hangs up.

        With TLS 1.3 one that refuses our certificate says so when the request is written
        already, and nobody reads it any more. So nothing is written here.
        """
        settings = self.settings
        try:
            async with asyncio.timeout(_WHY):
                reader, writer = await asyncio.open_connection(
                    settings.address.host,
                    settings.address.port,
                    ssl=context,
                    server_hostname=settings.server_name,
                )
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except ssl.SSLError as err:
            return tls_problem(err)
        except OSError, TimeoutError:
            pass
        return Problem.CONNECTION_LOST

    async def _async_context(self) -> ssl.SSLContext:
        """Return what the server's certificate is checked against; raises ConnectError."""
        settings = self.settings
        make = functools.partial(
            tls_context,
            ca=settings.ca,
            client_certificate=settings.client_certificate,
            client_key=settings.client_key,
            insecure=False,
            server_name=settings.server_name,
            alpn=(),
        )
        try:
            return await asyncio.get_running_loop().run_in_executor(None, make)
        except (OSError, ValueError) as err:
            raise ConnectError(Problem.TLS_FAILED) from err


def _compress(data: bytes) -> bytes:
    """Return data as gzip has them, quickly rather than small."""
    return zlib.compress(data, 1, 31)


def _problem(err: Exception, *, is_tls: bool) -> Problem:
    """Return why there is no answer."""
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, aiohttp.ClientError
        ):
            return tls_problem(cause)
        cause = cause.__cause__ or cause.__context__
    match err:
        case aiohttp.ClientConnectorDNSError() | aiohttp.InvalidURL():
            return Problem.CANNOT_RESOLVE
        case aiohttp.ConnectionTimeoutError():
            return Problem.NO_ANSWER if is_tls else Problem.CANNOT_CONNECT
        case TimeoutError():
            return Problem.NO_ANSWER
        case aiohttp.ClientConnectorError():
            return Problem.CANNOT_CONNECT
        case aiohttp.ClientResponseError():
            return Problem.NOT_INFLUXDB
        case aiohttp.ClientError() | OSError():
            return Problem.CONNECTION_LOST
    return Problem.CANNOT_RESOLVE
