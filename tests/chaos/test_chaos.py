"""Each fault once, in one house: what is promised holds during it and after it.

The house runs in a process of its own (`scripts/chaos_app.py`), as with `scripts/chaos`, and
tells of each fault as it ends; a test is what it tells of one.
"""

from collections.abc import Iterator
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from scripts.simulation.chaos.faults import FAULTS
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


@pytest.fixture(name="house", scope="module")
def house_fixture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Return a house that has the faults of the tests that were chosen."""
    chosen = [
        option
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function)
        for option in ("--only", str(item.callspec.params["name"]))
    ]
    directory = tmp_path_factory.mktemp("chaos")
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


@pytest.mark.parametrize("name", FAULTS)
def test_fault(house: House, name: str) -> None:
    """All that was said arrives, in order; the sums hold, and nothing is left behind."""
    result = house.result(name)
    assert not result["failures"], "\n".join(result["failures"])
    assert result["sent"] > 0
    assert result["lost"] == 0
    assert result["recovery_s"] is not None or result["written_off"]
