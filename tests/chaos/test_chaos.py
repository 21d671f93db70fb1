"""Each fault once, in one house: what is promised holds during it and after it.

The house runs in a process of its own (`scripts/chaos_app.py`), as with `scripts/chaos`, beside
all other tests, for it is mostly waiting; it tells of each fault as it ends, and a test is
what it tells of one.
"""

import pytest

from scripts.simulation.chaos.faults import FAULTS

from .house import House


@pytest.mark.parametrize("name", FAULTS)
def test_fault(chaos_house: House, name: str) -> None:
    """All that was said arrives, in order; the sums hold, and nothing is left behind."""
    result = chaos_house.result(name)
    assert not result["failures"], "\n".join(result["failures"])
    assert result["sent"] > 0
    assert result["lost"] == 0
    assert result["recovery_s"] is not None or result["written_off"]
