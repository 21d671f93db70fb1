"""What the documentation says is shown by a test or a benchmark is."""

import re

import pytest

from benchmarks.__main__ import MEASURES
from scripts.simulation.processes import REPOSITORY

TEXT = (REPOSITORY / "docs/requirements.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_test_exists(path: str, name: str) -> None:
    """A test that is named is there."""
    source = (REPOSITORY / path).read_text(encoding="utf-8")
    assert f"def {name or 'test_'}" in source


def test_every_requirement_is_there() -> None:
    """Ten functional and seven other requirements, each in a row of its own."""
    for kind, count in (("FR", 10), ("NFR", 7)):
        assert re.findall(rf"^\| {kind}-(\d+):", TEXT, re.MULTILINE) == [
            str(number) for number in range(1, count + 1)
        ]


def test_benchmark_measures_exist() -> None:
    """A line of the benchmark that is named is there."""
    named = re.findall(r"`scripts/bench`, \"([^\"]+)\"", TEXT)
    measures = {measure for _, measure, _, _ in MEASURES}
    assert named
    assert set(named) <= measures
