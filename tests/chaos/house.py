"""The house of the fault tests, in a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from scripts.simulation.processes import REPOSITORY


class House:
    """The process that has the faults, in the order of the tests."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        """Initialize with the process and where it writes how it goes."""
        self._process = process
        self._log = log
        self._results: dict[str, dict[str, Any]] = {}

    def result(self, name: str) -> dict[str, Any]:
        """Return what a fault did, once it has ended."""
        assert self._process.stdout
        while name not in self._results and (line := self._process.stdout.readline()):
            result = json.loads(line)
            self._results[result["fault"]] = result
        if name not in self._results:
            text = self._log.read_text(encoding="utf-8")
            pytest.fail(f"The run ended early:\n{text[-5000:]}")
        return self._results[name]


@contextmanager
def house_of(items: list[pytest.Item], directory: Path) -> Iterator[House | None]:
    """Have the faults of the tests that were chosen, if any were, one after the other."""
    chosen = [
        option
        for item in items
        if item.path.name == "test_chaos.py" and isinstance(item, pytest.Function)
        for option in ("--only", str(item.callspec.params["name"]))
    ]
    if not chosen:
        yield None
        return
    log = directory.with_name("chaos.log")
    command = [sys.executable, "-m", "scripts.chaos_app", "--stream", "--seed", "1"]
    command += ["--directory", str(directory), *chosen]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield House(process, log)
        finally:
            process.terminate()
