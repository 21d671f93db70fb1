"""A NATS connection on nats-py, driven by the event loop.

nats-py connects, authenticates, upgrades to TLS, reads, and sees to pings. It does not
reconnect: a connection is an object that is used once, and what was not acknowledged is
kept on our side. Ready-made batches go past its queue to the stream that it writes to.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
import contextlib
from dataclasses import dataclass, field
from ipaddress import ip_address
import itertools
import logging
import random
import re
import socket
import ssl
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError, StaleConnectionError, UnexpectedEOF
import orjson

from .errors import ConnectError, Problem
from .nats_keys import read_credentials, read_seed
from .nats_streams import NatsStream, async_set_up_streams
from .sockets import tune
from .tls import TlsContext, tls_context, tls_problem

_LOGGER = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 30.0
DISCONNECT_TIMEOUT: Final = 0.25
DEFAULT_PORT: Final = 4222
MAX_SUBJECT: Final = 1024
# How many messages go out in one piece.
_BATCH: Final = 500
_PING_INTERVAL: Final = 20
_PINGS: Final = 2
_CLOSE_TIMEOUT: Final = 0.1
# How long we wait for a PONG; whoever waits for it has a patience of his own (s).
_FOREVER: Final = 7 * 24 * 3600
# Of how many servers that others tell of we take note.
_MAX_DISCOVERED: Final = 16

_MESSAGE_ID_LENGTH: Final = 32
_HEAD: Final = b"NATS/1.0\r\nNats-Msg-Id: "
_HEADER_LENGTH: Final = len(_HEAD) + _MESSAGE_ID_LENGTH + 4
# Looking these up takes half the time of formatting them.
_SIZES: Final = tuple(b" %d\r\n" % size for size in range(4096))

_DENIED: Final = re.compile(r'permissions violation for publish to "([^"]*)"')
# What a server says when it ends a connection, or refuses one; nats-py has it in lower
# case once the connection is there.
_ENDINGS: Final = (
    ("authorization", Problem.INVALID_AUTH),
    ("authentication timeout", Problem.NO_ANSWER),
    ("authentication", Problem.INVALID_AUTH),
    ("maximum payload", Problem.TOO_LARGE),
    ("maximum control line", Problem.TOO_LARGE),
    ("maximum", Problem.SERVER_UNAVAILABLE),
    ("tls required", Problem.TLS_FAILED),
    ("permissions violation", Problem.NOT_AUTHORIZED),
    ("server shutdown", Problem.CONNECTION_LOST),
    ("slow consumer", Problem.CONNECTION_LOST),
    ("empty response", Problem.NOT_NATS),
    ("json parse error", Problem.NOT_NATS),
)
# Error codes of JetStream (`server/errors.json` of nats-server) by what they mean for a
# message: there is no room for it, it is too large, or JetStream cannot say at present.
_NO_ROOM: Final = frozenset({10002, 10023, 10028, 10047, 10077})
_TOO_LARGE: Final = frozenset({10054})
_UNAVAILABLE: Final = frozenset({10005, 10008, 10009})

_UNREACHABLE: Final = frozenset(
    {Problem.CANNOT_RESOLVE, Problem.CANNOT_CONNECT, Problem.NO_ANSWER}
)

# A message: subject, payload, and with JetStream the number and the message ID.
type Outgoing = tuple[bytes, bytes, int | None, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """How to reach NATS.

    `servers` are those of one cluster, as URLs: nats://host:port, or tls://. Of
    username and password, token, seed and credentials (the text of a `.creds` file), at
    most one is given. `ca`, `client_certificate` and `client_key` are PEM; no `ca` means
    the system's. `streams` are what there has to be of JetStream.
    """

    servers: tuple[str, ...]
    name: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    credentials: str | None = field(default=None, repr=False)
    tls: bool = False
    server_name: str | None = None
    ca: str | None = field(default=None, repr=False)
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    streams: tuple[NatsStream, ...] = ()
    connect_timeout: float = CONNECT_TIMEOUT
    disconnect_timeout: float = DISCONNECT_TIMEOUT
    first_delay: float | None = None
    longest_delay: float | None = None


class ConnectionListener(Protocol):
    """What is told of a connection's messages and end."""

    def on_written(self, number: int) -> None:
        """Take note that a batch was written."""

    def on_flushed(self, number: int) -> None:
        """Take note that a server has taken all that was sent before a flush."""

    def on_acknowledged(self, number: int) -> None:
        """Take note that JetStream has stored a message."""

    def on_refused(self, number: int, problem: Problem) -> None:
        """Take note that JetStream has not stored a message, and why."""

    def on_denied(self, subject: bytes) -> None:
        """Take note that we may not publish on a subject, which is in lower case."""

    def on_lost(self, problem: Problem) -> None:
        """Take note that the connection ended without our doing."""


class NatsConnection:
    """One connection to a server, from CONNECT to its end; a new one is a new object."""

    batch_size = _BATCH

    def __init__(self, disconnect_timeout: float = DISCONNECT_TIMEOUT) -> None:
        """Initialize without a server; `NatsConnector.async_connect` makes connections."""
        self.disconnect_timeout = disconnect_timeout
        self.listener: ConnectionListener | None = None
        self.max_payload = 0
        self._client = Client()
        self._loop = asyncio.get_running_loop()
        self._writer: asyncio.StreamWriter | None = None
        self._inbox = b""
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._is_open = False
        self._is_ended = False
        # That something which opening the connection takes is not permitted.
        self._denial: asyncio.Future[None] = self._loop.create_future()

    # --- opening ------------------------------------------------------------------------

    async def async_open(
        self,
        settings: NatsSettings,
        server: str,
        server_name: str | None,
        tls: TlsContext,
    ) -> None:
        """Connect to a server; raises ConnectError."""
        try:
            await self._async_connect(settings, server, server_name, tls)
            self._tune()
            if settings.streams:
                await self._async_open_jetstream(settings)
            if self._is_ended or not self._client.is_connected:
                raise ConnectError(self._ending)
        except BaseException:
            await self._async_dispose()
            raise
        self._is_open = True

    async def _async_connect(
        self,
        settings: NatsSettings,
        server: str,
        server_name: str | None,
        tls: TlsContext,
    ) -> None:
        """Connect; raises ConnectError, and TimeoutError where nothing is answered."""
        client = self._client
        signature: dict[str, Any] = {}
        if (seed := settings.seed) is not None or settings.credentials is not None:
            if settings.credentials is not None:
                token, seed = read_credentials(settings.credentials)
                signature["user_jwt_cb"] = token.encode
            key = read_seed(seed or "")
            # nats-py takes a seed only with the package nkeys, for which it has no other
            # place.
            client._public_nkey = key.public  # noqa: SLF001
            signature["signature_cb"] = self._guarded(settings.tls, key.sign)

        def shown(secret: str | None) -> Callable[[], str] | None:
            return None if secret is None else self._guarded(settings.tls, secret.strip)

        try:
            await client.connect(
                server,
                name=settings.name,
                error_cb=self._on_error,
                closed_cb=self._on_closed,
                allow_reconnect=False,
                # All of it has a time-out of its own.
                connect_timeout=int(settings.connect_timeout) + 1,
                ping_interval=_PING_INTERVAL,
                max_outstanding_pings=_PINGS,
                tls=tls,
                tls_hostname=server_name,
                user=shown(settings.username),
                password=shown(settings.password),
                token=shown(settings.token),
                **signature,
            )
        except ValueError as err:  # A line that is longer than any of NATS
            raise ConnectError(Problem.NOT_NATS) from err
        except ConnectError as err:
            raise ConnectError(self._blame_certificate(err.problem)) from err
        if not client.is_connected:
            raise ConnectError(self._blame_certificate(Problem.CONNECTION_LOST))
        if settings.tls and not self._is_encrypted:
            raise ConnectError(Problem.TLS_FAILED)
        self.max_payload = client.max_payload

    def _blame_certificate(self, problem: Problem) -> Problem:
        """Return what went wrong with a connection that ended before it was made.

        With TLS 1.3 a server looks at our certificate when the handshake is over for us. It
        hangs up then, and what it says of it may be lost with that.
        """
        information: dict[str, Any] = getattr(self._client, "_server_info", {})
        if problem is Problem.CONNECTION_LOST and information.get("tls_verify"):
            return Problem.CLIENT_CERTIFICATE_REFUSED
        return problem

    def _guarded[**P, R](self, tls: bool, show: Callable[P, R]) -> Callable[P, R]:
        """Return what shows a secret, though not over a connection that ought to be secret.

        nats-py goes on without TLS where the server, or who stands in between, does not
        ask for it.
        """

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if tls and not self._is_encrypted:
                raise ConnectError(Problem.TLS_FAILED)
            return show(*args, **kwargs)

        return guarded

    def _tune(self) -> None:
        """Take over the stream that nats-py writes to, if it is where we know it."""
        if (writer := self._find_writer()) is None:
            return
        self._writer = writer
        tune(writer.get_extra_info("socket"))
        # What the kernel does not take holds up the next batch.
        writer.transport.set_write_buffer_limits(high=0)

    def _find_writer(self) -> asyncio.StreamWriter | None:
        """Return the stream that nats-py writes to.

        It is private. Where a nats-py has it not, each message goes through its
        `publish`; a test fails before users notice.
        """
        transport = getattr(self._client, "_transport", None)
        writer = getattr(transport, "_io_writer", None)
        return writer if isinstance(writer, asyncio.StreamWriter) else None

    @property
    def _is_encrypted(self) -> bool:
        """Tell whether TLS has begun; where that cannot be seen, it has not."""
        writer = self._find_writer()
        return writer is not None and bool(writer.get_extra_info("ssl_object"))

    async def _async_open_jetstream(self, settings: NatsSettings) -> None:
        """See to streams, and listen to what is acknowledged; raises ConnectError."""
        opening = self._loop.create_task(self._async_set_up(settings))
        try:
            # What is not permitted is not answered.
            await asyncio.wait(
                (opening, self._denial), return_when=asyncio.FIRST_COMPLETED
            )
            if self._denial.done():
                raise ConnectError(Problem.NOT_AUTHORIZED)
            await opening
        finally:
            opening.cancel()
            await asyncio.wait([opening])

    async def _async_set_up(self, settings: NatsSettings) -> None:
        """Subscribe to our inbox, and make streams; raises ConnectError."""
        inbox = self._client.new_inbox()
        self._inbox = f"{inbox}.".encode()
        await self._client.subscribe(f"{inbox}.*", cb=self._on_answer)
        await self._async_pong()
        await async_set_up_streams(
            self._client.jetstream(timeout=settings.connect_timeout), settings.streams
        )

    async def _async_dispose(self) -> None:
        """Leave nothing behind of a connection that did not come about."""
        self.abort()
        # nats-py waits for the end of a stream in vain from which a handshake took over.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._client.close()

    # --- messages -----------------------------------------------------------------------

    @property
    def protocol(self) -> str:
        """Return the version of the server."""
        version = self._client.connected_server_version
        with contextlib.suppress(ValueError):
            return f"{version.major}.{version.minor}.{version.patch}"
        return "unknown"

    @property
    def servers(self) -> list[str]:
        """Return the servers of the cluster that this one has told of, as URLs."""
        return [url.geturl() for url in self._client.discovered_servers]

    def reserve(self) -> int:
        """Return the number of a message that JetStream is to acknowledge."""
        return next(self._numbers)

    def write(self, messages: Sequence[Outgoing]) -> tuple[int, int | None]:
        """Write messages in one piece; return how many bytes, and None if all are written.

        Otherwise the number is that which `on_written` gives when they are. Nothing else
        is to be written meanwhile.
        """
        pieces: list[bytes] = []
        for subject, payload, number, message_id in messages:
            size = len(payload)
            if number is None:
                pieces += (
                    b"PUB ",
                    subject,
                    _SIZES[size] if size < 4096 else b" %d\r\n" % size,
                    payload,
                    b"\r\n",
                )
            else:
                pieces += (
                    b"HPUB %b %b%d %d %d\r\n"
                    % (
                        subject,
                        self._inbox,
                        number,
                        _HEADER_LENGTH,
                        _HEADER_LENGTH + size,
                    ),
                    _HEAD,
                    message_id,
                    b"\r\n\r\n",
                    payload,
                    b"\r\n",
                )
        batch = b"".join(pieces)
        if (writer := self._writer) is None:
            self._publishing = self._begin(self._async_publish(messages))
            return len(batch), self._tell_when_done(self._async_wait_published())
        writer.write(batch)
        if not writer.transport.get_write_buffer_size():
            return len(batch), None
        return len(batch), self._tell_when_done(writer.drain())

    def _tell_when_done(self, writing: Coroutine[Any, Any, None]) -> int:
        """Return the number that `on_written` gives when something is written."""
        number = next(self._numbers)

        async def tell() -> None:
            await writing
            await asyncio.sleep(0)  # Who writes is to know the number first
            if self.listener is not None and not self._is_ended:
                self.listener.on_written(number)

        self._begin(tell())
        return number

    async def _async_publish(self, messages: Iterable[Outgoing]) -> None:
        """Publish messages through nats-py, one by one, and wait until it has written them."""
        client = self._client
        for subject, payload, number, message_id in messages:
            if number is None:
                await client.publish(subject.decode(), payload)
                continue
            await client.publish(
                subject.decode(),
                payload,
                f"{self._inbox.decode()}{number}",
                {"Nats-Msg-Id": message_id.decode()},
            )
        while client.pending_data_size:  # noqa: ASYNC110 - nats-py tells nobody
            await asyncio.sleep(0.001)

    async def _async_wait_published(self) -> None:
        """Wait until nats-py has written what it was given."""
        if self._publishing is not None:
            await asyncio.wait([self._publishing])

    def flush(self) -> int:
        """Ask the server whether it has all that was sent; `on_flushed` gives the number."""
        number = next(self._numbers)

        async def ask() -> None:
            await self._async_pong()
            if self.listener is not None and not self._is_ended:
                self.listener.on_flushed(number)

        self._begin(ask())
        return number

    async def _async_pong(self) -> None:
        """Send a PING, and wait for its PONG.

        Not with nats-py's `flush`, which returns at once where nothing is read any more.
        """
        await self._async_wait_published()
        await self._client.rtt(_FOREVER)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something while the connection is there; begin at once."""

        async def guarded() -> None:
            # The end of the connection is told otherwise.
            with contextlib.suppress(OSError, NatsError):
                await work

        task = asyncio.Task(guarded(), loop=self._loop, eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    # --- closing ------------------------------------------------------------------------

    async def async_close(self, patience: float | None = None) -> None:
        """Have the server take what was handed over, and close, within our patience (s).

        That is the disconnect timeout, unless another is given.
        """
        if patience is None:
            patience = self.disconnect_timeout
        self.listener = None
        with contextlib.suppress(TimeoutError, OSError, NatsError):
            async with asyncio.timeout(patience):
                await self._async_pong()
        await self._async_dispose()

    def abort(self) -> None:
        """End the connection without a word."""
        self._is_ended = True
        for task in tuple(self._tasks):
            task.cancel()
        if (writer := self._find_writer()) is not None:
            writer.transport.abort()
        else:
            self._loop.create_task(self._client.close())

    def _end(self, problem: Problem) -> None:
        """Tell that the connection ended without our doing."""
        if self._is_ended:
            return
        self.abort()
        if self.listener is not None:
            self.listener.on_lost(problem)

    # --- nats-py's callbacks, all in the event loop ------------------------------------

    async def _on_error(self, err: Exception) -> None:
        """Take note of what went wrong; nats-py raises no errors by itself while it opens.

        Raises ConnectError while the connection is being opened.
        """
        said = str(err).lower()
        if not self._is_open and "permissions violation" in said:
            if not self._denial.done():
                self._denial.set_result(None)
        elif (told := _DENIED.search(said)) is not None:
            if self.listener is not None:
                self.listener.on_denied(told[1].encode())
        elif not self._client.is_connected and not self._is_open:
            if not self._is_ended:
                reached = self._find_writer() is not None
                raise ConnectError(_problem(err, is_reached=reached)) from err
        else:
            _LOGGER.debug("nats_error: %s", type(err).__name__)

    async def _on_closed(self) -> None:
        """Take note that nats-py has closed the connection."""
        if self._is_open:
            _LOGGER.debug("nats_closed: %s", self._ending)
        self._end(self._ending)

    @property
    def _ending(self) -> Problem:
        """Return why nats-py has closed the connection."""
        err = self._client.last_error
        reached = self._is_open or self._writer is not None
        if err is None:
            return Problem.CONNECTION_LOST
        return _problem(err, is_reached=reached)

    async def _on_answer(self, message: Msg) -> None:
        """Take an answer of JetStream to one message."""
        if (listener := self.listener) is None or self._is_ended:
            return
        number = int(message.subject.rpartition(".")[2])
        data = message.data
        if data and b'"error"' not in data:
            listener.on_acknowledged(number)
        elif (problem := _refusal(data)) is not None:
            listener.on_refused(number, problem)
        else:
            # Nobody listens to this subject: no stream, or at present no leader of it. The
            # next connection looks after it.
            self._end(Problem.JETSTREAM_MISSING)


def _refusal(data: bytes) -> Problem | None:
    """Return why JetStream refuses a message, or None where it is JetStream that is away."""
    if not data:
        return None
    try:
        error = orjson.loads(data)["error"]
        code, kind = error.get("err_code"), error.get("code")
    except ValueError, TypeError, KeyError, AttributeError:
        return Problem.REJECTED
    if code in _NO_ROOM:
        return Problem.QUOTA_EXCEEDED
    if code in _TOO_LARGE:
        return Problem.TOO_LARGE
    return None if code in _UNAVAILABLE or kind == 503 else Problem.REJECTED


def _problem(err: Exception, *, is_reached: bool) -> Problem:
    """Return what an error of nats-py means, by whether a server was reached."""
    match err:
        case socket.gaierror() | UnicodeError():
            return Problem.CANNOT_RESOLVE
        case ssl.SSLError():
            return tls_problem(err)
        case TimeoutError():
            return Problem.NO_ANSWER if is_reached else Problem.CANNOT_CONNECT
        case UnexpectedEOF():
            return Problem.CONNECTION_LOST
        case StaleConnectionError():
            return Problem.NO_ANSWER
        case OSError():
            return Problem.CONNECTION_LOST if is_reached else Problem.CANNOT_CONNECT
    said = str(err).lower()
    if not isinstance(err, NatsError):
        return Problem.UNEXPECTED
    return next(
        (problem for part, problem in _ENDINGS if part in said), Problem.REFUSED
    )


class NatsConnector:
    """Makes connections to one cluster."""

    def __init__(
        self, settings: NatsSettings, connect_timeout: float | None = None
    ) -> None:
        """Initialize with the settings.

        A connect timeout (s) goes before that of the settings.
        """
        self.settings = settings
        self._timeout = connect_timeout or settings.connect_timeout
        self._tls: TlsContext | None = None
        # Servers that others have told of, and the name to check their certificates for.
        self._discovered: dict[str, str | None] = {}

    async def async_connect(self) -> NatsConnection:
        """Return an open connection; raises ConnectError.

        All servers are tried, those first that the user has named, in any order, so that
        many bridges spread over a cluster.
        """
        settings = self.settings
        if self._tls is None:
            self._tls = await asyncio.get_running_loop().run_in_executor(
                None, self._make_context
            )
        named = [(server, settings.server_name) for server in settings.servers]
        told = [*self._discovered.items()]
        random.shuffle(named)
        random.shuffle(told)
        servers = named + told
        # What is said of one that answers says more than that another does not.
        worst: ConnectError | None = None
        for server, server_name in servers:
            try:
                return await self._async_connect(
                    server, server_name, self._tls, self._timeout / len(servers)
                )
            except ConnectError as err:
                if worst is None or worst.problem in _UNREACHABLE:
                    worst = err
        raise worst or ConnectError(Problem.CANNOT_CONNECT)

    async def _async_connect(
        self, server: str, server_name: str | None, tls: TlsContext, patience: float
    ) -> NatsConnection:
        """Return an open connection to a server; raises ConnectError."""
        connection = NatsConnection(self.settings.disconnect_timeout)
        try:
            async with asyncio.timeout(patience):
                await connection.async_open(self.settings, server, server_name, tls)
        except TimeoutError as err:
            raise ConnectError(Problem.NO_ANSWER) from err
        for other in connection.servers[:_MAX_DISCOVERED]:
            if other not in self.settings.servers:
                self._discovered[other] = server_name or _name_for(other, server)
        return connection

    def _make_context(self) -> TlsContext:
        """Return what certificates are checked against; blocks, raises ConnectError."""
        settings = self.settings
        try:
            return tls_context(
                ca=settings.ca,
                client_certificate=settings.client_certificate,
                client_key=settings.client_key,
                insecure=False,
                server_name=settings.server_name,
                alpn=(),
            )
        except ssl.SSLError as err:
            raise ConnectError(Problem.TLS_FAILED) from err


def _name_for(server: str, teller: str) -> str | None:
    """Return the name for which the certificate of a server is made.

    A server tells of others by address, whose certificates name the host that it has itself.
    """
    try:
        ip_address(urlsplit(server).hostname or "")
    except ValueError:
        return None
    return urlsplit(teller).hostname
