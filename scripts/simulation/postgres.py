"""A real PostgreSQL on the loopback address."""

import asyncio
import os
from pathlib import Path
import signal
from typing import Final, override

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from .processes import LOOPBACK, POLL_SECONDS, Process, SimulationError, find_program
from .servers import START_SECONDS, Server

USER: Final = "postgres"
# It refuses to run as root. Who it runs as instead must get to its files, wherever they are.
AS_NOBODY: Final = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
    *("--pdeathsig=KILL", "--"),
)


class Postgres(Server):
    """A PostgreSQL process with one empty database, open to everybody.

    It does not wait for the disk: all is there after a kill, but not after a power cut.
    """

    name = "PostgreSQL"
    program = "postgres"

    @property
    def url(self) -> str:
        """Return where the database is, as SQLAlchemy and the recorder write it."""
        return f"postgresql://{USER}@{LOOPBACK}:{self.port}/postgres"

    @override
    async def start(self) -> None:
        """Start the server; the first time, create the database."""
        if not self._data.exists():
            await self._create()
        await super().start()

    @override
    async def stop(self) -> None:
        """Stop the server, whoever is connected."""
        if self.running:
            self._signal(signal.SIGINT)
        await super().stop()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    async def _create(self) -> None:
        """Create the database."""
        program = find_program("initdb")
        if program is None:
            raise SimulationError("PostgreSQL's initdb is needed and was not found.")
        process = await asyncio.create_subprocess_exec(
            *_as_anybody(program),
            *("--pgdata", self._data, "--username", USER, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            text = output.decode(errors="replace").strip()
            raise SimulationError(f"PostgreSQL's database was not created:\n{text}")

    @override
    def _command(self, program: str) -> list[str | Path]:
        return [*_as_anybody(program), *self._arguments()]

    @override
    def _arguments(self) -> list[str | Path]:
        return [
            *("-D", self._data, "-h", LOOPBACK, "-p", str(self.port)),
            *("-c", "unix_socket_directories=", "-c", "fsync=off"),
        ]

    @override
    async def _wait_ready(self, process: Process) -> None:
        # It accepts connections before it lets anybody in.
        await super()._wait_ready(process)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await asyncio.to_thread(self._lets_in):
                    process.check()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(f"{self.name} lets nobody in.") from None

    def _lets_in(self) -> bool:
        """Return whether one can log in."""
        engine = create_engine(self.url)
        try:
            engine.connect().close()
        except OperationalError:
            return False
        finally:
            engine.dispose()
        return True


def _as_anybody(program: str) -> tuple[str, ...]:
    """Return how to run a program, and not as root."""
    return (*AS_NOBODY, program) if os.geteuid() == 0 else (program,)
