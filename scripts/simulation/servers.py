"""Programs of others that listen on the loopback address, each in a directory of its own."""

from abc import ABC, abstractmethod
import asyncio
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
import signal
from tempfile import TemporaryDirectory
from typing import Any, Final, Self, override

import aiohttp

from .processes import (
    LOOPBACK,
    POLL_SECONDS,
    Process,
    SimulationError,
    find_program,
    free_port,
    is_port_free,
)

START_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 10.0


class Server(ABC):
    """A program that listens on a port, with a configuration of its own.

    `stop` and `start` keep the port and what is on disk; `freeze` makes it accept
    connections and never answer.
    """

    name: str
    program: str

    def __init__(self, port: int = 0, directory: Path | None = None) -> None:
        """Describe the server; the directory, by default a temporary one, must exist."""
        self.port = port or free_port()
        self._temporary: TemporaryDirectory[str] | None = None
        if directory is None:
            self._temporary = TemporaryDirectory(prefix="ble-bridge-")
            directory = Path(self._temporary.name)
        self._directory = directory
        self._process: Process | None = None

    @classmethod
    def available(cls) -> bool:
        """Return whether there is such a program to run."""
        return find_program(cls.program) is not None

    async def __aenter__(self) -> Self:
        """Start the server, and wait until it is ready."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server and remove its temporary directory."""
        await self.stop()
        if self._temporary:
            self._temporary.cleanup()

    async def start(self) -> None:
        """Start the server, and wait until it is ready."""
        program = find_program(self.program)
        if program is None:
            raise SimulationError(f"{self.name} is needed and was not found.")
        if not is_port_free(self.port):
            raise SimulationError(f"Port {self.port} for {self.name} is in use.")
        self._process = Process(
            self.name,
            self._command(program),
            self._directory / f"{self.program}.log",
        )
        self._process.start()
        try:
            await self._wait_ready(self._process)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server."""
        if self._process:
            await self._process.stop()
            self._process = None

    async def restart(self) -> None:
        """Stop the server and start it again, on the same port."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """End the server without a warning, as a power cut does."""
        self._signal(signal.SIGKILL)
        await self.stop()

    def reload(self) -> None:
        """Have the files read anew that the configuration names."""
        self._signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Stop the process in its tracks: connections stay, and nothing answers."""
        self._running().freeze()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Return whether the server runs; a frozen one does."""
        return self._process is not None and self._process.running

    def log(self, lines: int = 100) -> str:
        """Return the last lines that the server wrote."""
        return self._process.log_tail(lines) if self._process else ""

    def _command(self, program: str) -> list[str | Path]:
        """Return how the program is started."""
        return [program, *self._arguments()]

    @abstractmethod
    def _arguments(self) -> list[str | Path]:
        """Write the configuration, and return what the program is started with."""

    async def _wait_ready(self, process: Process) -> None:
        """Wait until the server does what it is there for."""
        await process.wait_accepting(self.port, START_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _running(self) -> Process:
        if self._process is None:
            raise SimulationError(f"{self.name} is not running.")
        return self._process


class HttpServer(Server):
    """A server with an HTTP API, ready once it answers on `ready_path`."""

    ready_path: str

    def __init__(
        self,
        port: int = 0,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the server; with a certificate and its key (PEM) it speaks TLS."""
        super().__init__(port, directory)
        self._certificate = certificate
        self._key = key
        self._headers: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        """Return where the server is, without a slash at the end."""
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://{LOOPBACK}:{self.port}"

    async def request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> bytes:
        """Return the answer of the API; a refusal is an error with what was said."""
        return await request(
            method, f"{self.url}{path}", parameters, data, headers=self._headers
        )

    @override
    async def _wait_ready(self, process: Process) -> None:
        url = f"{self.url}{self.ready_path}"
        await wait_answering(process, url, headers=self._headers)


def basic_auth(username: str, password: str) -> dict[str, str]:
    """Return the header that shows a user's password."""
    encoded = b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


async def request(
    method: str,
    url: str,
    parameters: Mapping[str, str] | None = None,
    data: bytes | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return what an HTTP server of ours answers, whatever its certificate."""
    timeout = aiohttp.ClientTimeout(REQUEST_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.request(
            method, url, params=parameters, data=data, ssl=False
        ) as response,
    ):
        answer = await response.read()
        if not response.ok:
            text = answer.decode(errors="replace").strip()
            raise SimulationError(f"The answer was {response.status}: {text}")
        return answer


async def wait_answering(
    process: Process, url: str, *, headers: Mapping[str, str] | None = None
) -> None:
    """Wait until a process answers an HTTP request, and does not refuse it."""
    last: Any = None
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                process.check()
                try:
                    await request("GET", url, headers=headers)
                except (aiohttp.ClientError, SimulationError) as error:
                    last = error
                else:
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise SimulationError(f"{process.name} does not become ready: {last}") from None
