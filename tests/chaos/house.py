"""The house of the fault tests, in a process of its own."""

from collections.abc import Iterable
import fcntl
import json
from pathlib import Path
import shutil
import subprocess
import sys
from tempfile import mkdtemp
import time
from typing import Any, Final

import pytest

from scripts.simulation.processes import POLL_SECONDS, REPOSITORY

TEST: Final = "test_chaos.py::test_fault["


class House:
    """The process that has the faults, in the order of the tests, and what it tells of them.

    It is started once, by who collects the tests, and looked at by whoever runs them.
    """

    def __init__(self, directory: str | None = None) -> None:
        """Initialize with where it is, for those who look at it; by default it is new."""
        self.directory = Path(directory or mkdtemp(prefix="ble-bridge-chaos-"))
        self._is_mine = directory is None
        self._process: subprocess.Popen[bytes] | None = None
        self._results = self.directory / "results.jsonl"
        self._log = self.directory / "chaos.log"

    def start(self, tests: Iterable[str]) -> None:
        """Have the faults of the tests that were chosen, if any were, one after the other."""
        names = [
            test.partition(TEST)[2].removesuffix("]") for test in tests if TEST in test
        ]
        if self._process is not None or not names:
            return
        command = [sys.executable, "-m", "scripts.chaos_app", "--stream", "--seed", "1"]
        command += ["--directory", str(self.directory / "house")]
        for name in names:
            command += ["--only", name]
        with self._results.open("wb") as results, self._log.open("wb") as errors:
            # Held by the process for as long as it runs
            fcntl.flock(results, fcntl.LOCK_EX)
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=results, stderr=errors
            )

    def stop(self) -> None:
        """End the process, and leave nothing behind."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._is_mine:
            shutil.rmtree(self.directory, ignore_errors=True)

    def result(self, name: str) -> dict[str, Any]:
        """Return what a fault did, once it has ended."""
        has_ended = False
        while not has_ended:
            has_ended = self._has_ended()
            for line in self._results.read_text(encoding="utf-8").splitlines(True):
                # The last one may not be written to its end
                if line.endswith("\n"):
                    found: dict[str, Any] = json.loads(line)
                    if found["fault"] == name:
                        return found
            time.sleep(POLL_SECONDS)
        text = self._log.read_text(encoding="utf-8")
        pytest.fail(f"The run ended early:\n{text[-5000:]}")

    def _has_ended(self) -> bool:
        """Tell whether the process has ended, whoever started it."""
        with self._results.open("rb") as results:
            try:
                fcntl.flock(results, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True
