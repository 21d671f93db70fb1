"""Child processes that end with their parent, and the ports that they listen on."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
import os
from pathlib import Path
import secrets
import shutil
import signal
import socket
import subprocess
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
# Where scripts/setup puts what the machine lacks, and where Debian keeps daemons.
PROGRAM_DIRECTORIES: Final = (
    *(REPOSITORY / ".tools/bin", "/usr/sbin", "/sbin"),
    *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
)
LOOPBACK: Final = "127.0.0.1"
# Names the unix socket that plays the kernel's Bluetooth management to Home Assistant.
MANAGEMENT_SOCKET: Final = "BLE_BRIDGE_MANAGEMENT_SOCKET"
# Below those that the kernel gives to connections, one of which may take a free port before
# its server does.
_PORTS: Final = range(10_000, 32_768)
POLL_SECONDS: Final = 0.02
TERMINATE_SECONDS: Final = 20.0


class SimulationError(Exception):
    """A part of the simulated home failed; the message is one sentence."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also of one that scripts/setup unpacked."""
    path = os.pathsep.join(
        (os.environ.get("PATH", os.defpath), *map(str, PROGRAM_DIRECTORIES))
    )
    return shutil.which(name, path=path)


def is_port_free(port: int) -> bool:
    """Return whether a TCP port of the loopback address can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError:
            return False
    return True


# From anywhere on, so that who else does the same is elsewhere; none comes soon again.
_FREE_PORTS: Final = filter(
    is_port_free, islice(cycle(_PORTS), secrets.randbelow(len(_PORTS)), None)
)


def free_port(preferred: int = 0) -> int:
    """Return a free TCP port of the loopback address, the preferred one if it is."""
    if preferred and is_port_free(preferred):
        return preferred
    return next(_FREE_PORTS)


def free_ports(count: int) -> list[int]:
    """Return free TCP ports of the loopback address, all different."""
    return [free_port() for _ in range(count)]


class Process:
    """A child process in a process group of its own, its output in a file.

    A Ctrl-C in the terminal does not reach it: whoever started it stops it. Should
    that one be killed, the kernel ends the child too where setpriv is at hand.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the process; it is not started yet."""
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._environment = environment
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Return whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process ID, which is the group's ID too."""
        if self._process is None:
            raise SimulationError(f"{self.name} is not running.")
        return self._process.pid

    def start(self) -> None:
        """Start the process."""
        command = self._command
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._directory,
                process_group=0,
            )

    async def stop(self, timeout: float = TERMINATE_SECONDS) -> None:
        """Ask the process to end, end it after a timeout in seconds, and wait."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            if process.poll() is None:
                process.terminate()
                # A frozen process only hears of it once it runs again.
                process.send_signal(signal.SIGCONT)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while process.poll() is None:
                        await asyncio.sleep(POLL_SECONDS)
        finally:
            # The group too: what the process started must not outlive it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Stop the process in its tracks; it has stopped when this returns."""
        self.send_signal(signal.SIGSTOP)
        # Its threads go on for a moment. What ended by itself would never stop.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the process's output."""
        with suppress(FileNotFoundError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    async def wait_accepting(self, port: int, timeout: float = 10.0) -> None:
        """Wait until the process accepts TCP connections on a loopback port."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self.check()
                    with suppress(OSError):
                        _, writer = await asyncio.open_connection(LOOPBACK, port)
                        writer.close()
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(
                f"{self.name} does not accept connections on port {port}."
            ) from None

    def check(self) -> None:
        """Raise an error with the end of the output if the process has ended."""
        if not self.running:
            raise SimulationError(
                f"{self.name} ended by itself; its output ends with:\n{self.log_tail()}"
            )
