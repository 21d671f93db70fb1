"""What was said, what arrived, and what that means."""

from pathlib import Path
import time

from scripts.simulation.chaos.health import Log, complaints
from scripts.simulation.chaos.ledger import ON_ITS_WAY, Ledger, Points, Receipts


def test_heard_for_certain() -> None:
    """What is said while nobody may listen counts neither way."""
    ledger = Ledger()
    for _ in range(2):
        ledger.say("one")
    begin = ledger.position()
    time.sleep(ON_ITS_WAY + 0.05)
    ledger.say("one")
    time.sleep(ON_ITS_WAY + 0.05)
    ledger.say("one")
    ledger.begin_deaf()
    ledger.say("one")
    assert list(ledger.heard({}, ledger.position())) == [("one", n) for n in (1, 2, 3)]
    ledger.end_deaf()
    ledger.say("one")
    ledger.say("one")
    ledger.take_back("one")
    assert list(ledger.heard(begin, ledger.position())) == [("one", 3), ("one", 6)]


def test_receipts() -> None:
    """Copies are counted but for the broker's own, and order is that of first arrivals."""
    receipts = Receipts()
    for number, again in ((1, False), (3, False), (1, True), (3, False), (2, False)):
        receipts.take("one", number, again=again)
    assert receipts.copies == [("one", 3)]
    assert receipts.disorder == [("one", 2, 3)]
    assert receipts.has("one", 2)
    assert not receipts.has("two", 2)
    assert receipts.is_overtaken("one", 2)
    assert not receipts.is_overtaken("one", 3)


def test_points() -> None:
    """A point may be seen again and come late; its time is what tells the order."""
    points = Points()
    second, year = 10**9, 365 * 24 * 3600 * 10**9
    story = ((1, second), (3, 3 * second), (1, second), (2, 2 * second), (4, year))
    for number, moment in story:
        points.take_point("one", number, moment)
    assert (points.copies, points.disorder) == ([], [])
    assert points.is_overtaken("one", 3)
    points.take_point("one", 3, 4 * second)
    assert points.copies == [("one", 3)]
    points.take_point("two", 2, second)
    points.take_point("two", 1, second + 1)
    points.take_point("two", 3, second)
    assert points.disorder == [("two", 1, 2), ("two", 3, 2)]
    points.forget_times()
    points.take_point("one", 2, 9 * second)
    assert points.copies == [("one", 3), ("one", 2)]


def test_complaints(tmp_path: Path) -> None:
    """Alarms are found with all their lines, and slow callbacks when they are many."""
    path = tmp_path / "hass.log"
    slow = (
        "2026-01-01 00:00:00.000 WARNING (MainThread) [asyncio] Executing <Handle X at"
    )
    path.write_text(
        "2026-01-01 00:00:00.000 ERROR (MainThread) [homeassistant] Error doing job\n"
        "Traceback (most recent call last):\nKeyError: 1\n"
        "2026-01-01 00:00:00.000 INFO (MainThread) [homeassistant] all is well\n"
        "2026-01-01 00:00:00.000 ERROR (MainThread) [haffmpeg.core] none\n"
        "Traceback (most recent call last):\n"
        + f"{slow} ble_bridge/a.py:1> took 0.300 seconds\n" * 4
        + f"{slow} other/a.py:1> took 9.000 seconds\n"
    )
    log = Log(path)
    records = log.read()
    assert log.read() == []
    found = complaints(records, (), slow_allowed=False)
    assert len(found) == 2
    assert found[0].endswith("KeyError: 1")
    assert found[1].startswith("4 slow callbacks, up to 0.30 s")
    assert complaints(records, ("KeyError",), slow_allowed=True) == []
