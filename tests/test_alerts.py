"""Rules over fields: when alerts start and end, whatever values and clocks do."""

import json
import random
from typing import Any, override

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule as step,
)
import pytest

from custom_components.ble_bridge.alerts import Change, Rule, RuleKind, Watch

NOW = 1_790_000_000.0
NAN = float("nan")
LIMITED = (RuleKind.ABOVE, RuleKind.BELOW, RuleKind.WEAK_SIGNAL, RuleKind.LOW_BATTERY)


def rule(kind: RuleKind = RuleKind.ABOVE, **changes: Any) -> Rule:
    """Return a rule as the form makes it."""
    data = {"rule_id": "1", "name": "Too warm", "kind": kind, **changes}
    if kind in {RuleKind.ABOVE, RuleKind.BELOW, RuleKind.ANOMALY}:
        data.setdefault("field", "temperature")
    if kind in {RuleKind.ABOVE, RuleKind.BELOW}:
        data.setdefault("limit", 30)
    if kind is RuleKind.WEAK_SIGNAL:
        data.setdefault("limit", -90)
    return Rule.from_dict(data)


def restarted(watch: Watch, for_rule: Rule | None = None) -> Watch:
    """Return the watch as it is after a restart."""
    again = Watch(for_rule or watch.rule)
    again.restore(json.loads(json.dumps(watch.state(), allow_nan=False)))
    return again


def alarms(watch: Watch, values: list[Any]) -> list[bool]:
    """Return after which values the alert is open; one comes each second."""
    found = []
    for second, value in enumerate(values):
        watch.on_value(value, NOW + second)
        found.append(watch.is_on)
    return found


# Rules


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (RuleKind.LOW_BATTERY, ("battery", "battery_low")),
        (RuleKind.LOST, ()),
        (RuleKind.WEAK_SIGNAL, ("rssi",)),
        (RuleKind.ABOVE, ("temperature",)),
        (RuleKind.BELOW, ("temperature",)),
        (RuleKind.ANOMALY, ("temperature",)),
    ],
)
def test_fields(kind: RuleKind, fields: tuple[str, ...]) -> None:
    """Each kind goes by its own fields."""
    assert rule(kind).fields == fields


def test_defaults() -> None:
    """A rule needs no more than its name, its kind, and what the kind cannot do without."""
    assert rule(RuleKind.LOW_BATTERY).limit == 20
    assert rule(RuleKind.LOST, limit=5, field="battery") == Rule(
        rule_id="1", name="Too warm", kind=RuleKind.LOST
    )
    anomaly = rule(RuleKind.ANOMALY)
    assert (anomaly.deviations, anomaly.window, anomaly.limit) == (3, 20, None)


def test_stored() -> None:
    """What is stored is JSON, and gives the same rule again."""
    full = rule(
        RuleKind.BELOW,
        limit=5.5,
        duration=600.0,
        hysteresis=0.5,
        audiences=["family", "caretaker"],
    )
    assert full.audiences == ("family", "caretaker")
    stored = json.loads(json.dumps(full.as_dict()))
    assert stored["kind"] == "below"
    assert Rule.from_dict(stored) == full


@pytest.mark.parametrize(
    "changes",
    [
        {"rule_id": None},
        {"rule_id": ""},
        {"name": " "},
        {"name": 5},
        {"kind": "sometimes"},
        {"kind": None},
        {"field": None},
        {"field": ""},
        {"limit": None},
        {"limit": "30"},
        {"limit": True},
        {"limit": NAN},
        {"limit": float("inf")},
        {"duration": -1},
        {"duration": NAN},
        {"duration": 1e9},
        {"hysteresis": -0.1},
        {"audiences": "family"},
        {"audiences": [""]},
        {"audiences": [1]},
        {"deviations": 0},
        {"window": 2},
        {"window": 1001},
    ],
)
def test_no_rule(changes: dict[str, Any]) -> None:
    """What makes no sense is refused."""
    data = {**rule().as_dict(), **changes}
    with pytest.raises(ValueError, match=r".+"):
        Rule.from_dict(data)


# Limits


@pytest.mark.parametrize(
    ("changes", "values", "open_after"),
    [
        ({}, [30, 30.1, 35, 30.1, 30, 29], "01110 0"),
        ({"hysteresis": 2}, [31, 29, 28.1, 28, 29, 30, 30.1], "111 0001"),
        ({"limit": 0.3, "hysteresis": 0.1}, [0.4, 0.25, 0.2], "110"),
        ({"kind": RuleKind.BELOW}, [30, 29.9, 30, 20], "0101"),
        ({"kind": RuleKind.BELOW, "hysteresis": 2}, [29, 31.9, 32, 31, 29], "11001"),
        ({"kind": RuleKind.WEAK_SIGNAL}, [-90, -91, -90, -60], "0100"),
        ({"kind": RuleKind.WEAK_SIGNAL, "hysteresis": 5}, [-91, -86, -85], "110"),
        ({"kind": RuleKind.LOW_BATTERY}, [100, 20, 19, 20], "0010"),
        ({"kind": RuleKind.LOW_BATTERY, "limit": 5}, [19, 4], "01"),
        ({"kind": RuleKind.LOW_BATTERY}, [False, True, True, False], "0110"),
        # The device's own opinion and the number: either is enough.
        ({"kind": RuleKind.LOW_BATTERY}, [80, True, 80, False], "0110"),
        ({"kind": RuleKind.LOW_BATTERY}, [15, False, 15, False, 80], "11110"),
        (
            {"kind": RuleKind.LOW_BATTERY, "hysteresis": 5},
            [19, 24, True, 25, False],
            "11110",
        ),
        # Only a number that was too low has to come back by the hysteresis.
        ({"kind": RuleKind.LOW_BATTERY, "hysteresis": 5}, [True, 22, False], "110"),
        # What is no number changes nothing.
        (
            {},
            [31, None, "cold", NAN, float("-inf"), False, True, [1], {}, 10**400],
            "1" * 10,
        ),
        ({}, [None, "40", float("inf"), True, [40], 10**400], "000000"),
    ],
)
def test_limits(changes: dict[str, Any], values: list[Any], open_after: str) -> None:
    """Alerts without a duration follow the values."""
    expected = [flag == "1" for flag in open_after.replace(" ", "")]
    assert alarms(Watch(rule(**changes)), values) == expected


def test_changes() -> None:
    """A start and an end are told once each, with their times."""
    watch = Watch(rule())
    assert watch.on_value(31, NOW) == Change(NOW)
    assert (watch.is_on, watch.started_at, watch.deadline) == (True, NOW, None)
    assert watch.on_value(32, NOW + 5) is None
    assert watch.check(NOW + 6) is None
    assert watch.on_value(20, NOW + 7) == Change(NOW, NOW + 7)
    assert watch.on_value(20, NOW + 8) is None
    assert (watch.is_on, watch.started_at, watch.deadline) == (False, None, None)


def test_presence_is_for_lost_alone() -> None:
    """A value's alert stays as it is while the device is away, and a value loses nothing."""
    watch = Watch(rule())
    assert watch.on_presence(False, NOW) is None
    watch.on_value(31, NOW + 1)
    assert watch.on_presence(False, NOW + 2) is None
    assert watch.on_presence(True, NOW + 3) is None
    assert watch.is_on
    lost = Watch(rule(RuleKind.LOST))
    assert lost.on_value(31, NOW) is None
    assert lost.on_presence(True, NOW) is None
    assert lost.on_presence(False, NOW + 1) == Change(NOW + 1)
    assert lost.on_presence(False, NOW + 2) is None
    assert lost.on_value(31, NOW + 3) is None
    assert lost.on_presence(True, NOW + 4) == Change(NOW + 1, NOW + 4)


# Durations


def test_duration() -> None:
    """An alert starts when its time is over, without a packet, as of when it began."""
    watch = Watch(rule(duration=60))
    assert watch.on_value(31, NOW) is None
    assert (watch.is_on, watch.started_at, watch.deadline) == (False, None, NOW + 60)
    assert watch.on_value(32, NOW + 30) is None
    assert watch.check(NOW + 59.9) is None
    assert watch.check(NOW + 60) == Change(NOW)
    assert watch.check(NOW + 61) is None
    assert (watch.is_on, watch.started_at, watch.deadline) == (True, NOW, None)
    assert watch.on_value(30, NOW + 70) == Change(NOW, NOW + 70)


def test_duration_ends_with_a_packet() -> None:
    """A packet that comes when the time is over starts the alert as well."""
    watch = Watch(rule(duration=60))
    watch.on_value(31, NOW)
    assert watch.on_value(31, NOW + 75) == Change(NOW)


@pytest.mark.parametrize("between", [30, 29])
def test_interrupted(between: float) -> None:
    """While a duration is pending, the limit itself counts, not the hysteresis."""
    watch = Watch(rule(duration=60, hysteresis=5))
    watch.on_value(31, NOW)
    assert watch.on_value(between, NOW + 30) is None
    assert watch.deadline is None
    assert watch.check(NOW + 60) is None
    watch.on_value(31, NOW + 61)
    assert watch.deadline == NOW + 121


def test_lost_for_a_while() -> None:
    """A device that is back in time is not lost."""
    watch = Watch(rule(RuleKind.LOST, duration=300))
    watch.on_presence(False, NOW)
    assert watch.on_presence(True, NOW + 299) is None
    assert watch.check(NOW + 301) is None
    watch.on_presence(False, NOW + 400)
    assert watch.check(NOW + 700) == Change(NOW + 400)


@given(st.floats(0, 4e9), st.floats(0, 1e6))
def test_deadline_is_kept(now: float, duration: float) -> None:
    """Who calls at the deadline need not call again."""
    watch = Watch(rule(duration=duration))
    change = watch.on_value(31, now)
    if (deadline := watch.deadline) is not None:
        change = watch.check(deadline)
    assert change == Change(now)


def test_stop() -> None:
    """An alert whose rule is removed ends; a pending one has not begun."""
    watch = Watch(rule(duration=60))
    watch.on_value(31, NOW)
    assert watch.stop(NOW + 1) is None
    assert watch.deadline is None
    watch.on_value(31, NOW + 2)
    watch.check(NOW + 62)
    assert watch.stop(NOW + 63) == Change(NOW + 2, NOW + 63)
    assert watch.stop(NOW + 64) is None
    battery = Watch(rule(RuleKind.LOW_BATTERY))
    battery.on_value(True, NOW)
    battery.stop(NOW + 1)
    assert battery.on_value(80, NOW + 2) is None  # What it was told before is forgotten


# Clocks


def test_clock_set_back() -> None:
    """A pending duration counts from the new time; no alert ends before it started."""
    watch = Watch(rule(duration=60))
    watch.on_value(31, NOW)
    earlier = NOW - 86_400
    assert watch.check(earlier) is None
    assert watch.deadline == earlier + 60
    assert watch.check(earlier + 60) == Change(earlier)
    watch = Watch(rule())
    watch.on_value(31, NOW)
    assert watch.on_value(20, earlier) == Change(NOW, NOW)


def test_clock_set_forward() -> None:
    """Time that seems to have passed has passed."""
    watch = Watch(rule(duration=60))
    watch.on_value(31, 0.0)
    assert watch.check(NOW) == Change(0.0)


# Anomalies


def noise(spread: float, count: int = 40) -> list[float]:
    """Return values about 20, in tenths."""
    source = random.Random(5)
    return [round(20 + source.uniform(-spread, spread), 1) for _ in range(count)]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        (noise(1), 20.5),
        (noise(1), 21.5),
        ([20 + n / 10 for n in range(40)], 24.0),  # A slow drift
        # The next step of a signal that has never changed
        ([21.5] * 20, 21.6),
        ([21.5] * 20, 22.0),
        ([21.53] * 20, 21.54),
        ([0.0] * 20, 0.1),
        ([50] * 20, 51),
        ([100] * 20, 90),
        ([1013.25] * 20, 1013.3),
        # and of one that hardly changes
        ([21.5] * 19 + [21.6], 21.7),
        ([1013.25] * 19 + [1013.26], 1013.4),
        ([21.5] * 10 + [22.0] + [21.5] * 20, 22.0),
        # Too few to judge by
        ([20.0] * 9, 90.0),
        ([], 90.0),
    ],
)
def test_no_anomaly(values: list[float], last: float) -> None:
    """What a signal does all day raises nothing."""
    assert not any(alarms(Watch(rule(RuleKind.ANOMALY)), [*values, last]))


@pytest.mark.parametrize(
    ("values", "last"),
    [
        (noise(1), 24.0),
        (noise(1), 16.0),
        ([20.0] * 20, 40.0),
        ([21.5] * 20, 85.0),
        ([21.5] * 10, 85.0),
        ([21.5] * 19 + [21.6], 23.0),
        ([0] * 20, 500),
        ([1013.25] * 20, 1020.0),
        ([-60, -61, -59, -60] * 5, -95),
        ([1e99, -1e99] * 10, 1e100),
    ],
)
def test_anomaly(values: list[float], last: float) -> None:
    """A value far from the others is one, and the next as usual ends it."""
    watch = Watch(rule(RuleKind.ANOMALY))
    assert not any(alarms(watch, values))
    assert watch.on_value(last, NOW + 50) == Change(NOW + 50)
    assert watch.on_value(True, NOW + 50.5) is None
    assert watch.on_value(NAN, NOW + 50.5) is None
    assert watch.on_value(values[0], NOW + 51) == Change(NOW + 50, NOW + 51)


@pytest.mark.parametrize("window", [3, 4, 20, 100, 1000])
@pytest.mark.parametrize("deviations", [1, 3, 5])
def test_a_new_level_is_no_anomaly_for_long(window: int, deviations: float) -> None:
    """A signal that stays elsewhere is soon at home there, however it was before."""
    watch = Watch(rule(RuleKind.ANOMALY, window=window, deviations=deviations))
    alarms(watch, [20.0] * window)
    after = alarms(watch, [80.0] * (window + 2))
    assert after[0]
    assert after.index(False) <= window / (1 + deviations**2) + 2
    assert not any(after[after.index(False) :])


def test_small_window() -> None:
    """A window that holds fewer than five values judges when it is full."""
    watch = Watch(rule(RuleKind.ANOMALY, window=3))
    assert alarms(watch, [20.0, 20.1, 20.0, 90.0]) == [False, False, False, True]


def test_anomaly_with_duration() -> None:
    """An outlier that is over in time raises nothing; one that nothing follows does."""
    watch = Watch(rule(RuleKind.ANOMALY, duration=60))
    alarms(watch, noise(1))
    assert watch.on_value(90, NOW + 50) is None
    assert watch.on_value(20, NOW + 60) is None
    assert watch.check(NOW + 110) is None
    for second in range(40):
        watch.on_value(noise(1)[second], NOW + 120 + second)
    watch.on_value(90, NOW + 200)
    assert watch.check(NOW + 260) == Change(NOW + 200)


def test_memory_is_bounded() -> None:
    """No more is remembered than the window holds."""
    watch = Watch(rule(RuleKind.ANOMALY, window=5))
    alarms(watch, list(range(100)))
    assert watch.state()["values"] == [95, 96, 97, 98, 99]
    smaller = restarted(watch, rule(RuleKind.ANOMALY, window=3))
    assert smaller.state()["values"] == [97, 98, 99]


# Restarts


def test_open_alert_survives() -> None:
    """An open alert stays open, and ends with its own start."""
    watch = Watch(rule(hysteresis=2))
    watch.on_value(31, NOW)
    watch = restarted(watch)
    assert watch.is_on
    assert watch.started_at == NOW
    assert watch.check(NOW + 1) is None
    assert watch.on_value(29, NOW + 2) is None  # The hysteresis counts still
    assert watch.on_value(28, NOW + 3) == Change(NOW, NOW + 3)


def test_pending_duration_survives() -> None:
    """A duration goes on while Home Assistant is away."""
    watch = Watch(rule(duration=60))
    watch.on_value(31, NOW)
    watch = restarted(watch)
    assert watch.deadline == NOW + 60
    assert watch.check(NOW + 60) == Change(NOW)


def test_another_kind_of_rule() -> None:
    """An open alert of a rule that was changed ends with the next value within it."""
    watch = Watch(rule(RuleKind.LOW_BATTERY, hysteresis=50))
    watch.on_value(True, NOW)
    watch.on_value(10, NOW)
    changed = restarted(watch, rule(RuleKind.ABOVE))
    assert changed.is_on
    assert changed.on_value(20, NOW + 1) == Change(NOW, NOW + 1)
    pending = Watch(rule(duration=60))
    pending.on_value(31, NOW)
    assert restarted(pending, rule(field="humidity", duration=60)).deadline is None


GOOD = {"kind": "anomaly", "field": "temperature", "since": NOW, "is_on": True}
GOOD |= {"beyond": True, "flagged": False, "values": [1, 2.5], "step": 0.1}


def test_restore() -> None:
    """The state that the next test spoils is one."""
    watch = Watch(rule(RuleKind.ANOMALY))
    watch.restore(GOOD)
    assert watch.state() == GOOD


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        "on",
        [],
        {},
        {**GOOD, "since": None},
        {**GOOD, "since": "today"},
        {**GOOD, "since": True},
        {**GOOD, "since": NAN},
        {**GOOD, "since": 1e30},
        {**GOOD, "since": -5},
        {**GOOD, "is_on": 1},
        {**GOOD, "beyond": None},
        {**GOOD, "flagged": "no"},
        {**GOOD, "values": None},
        {**GOOD, "values": [1, "2"]},
        {**GOOD, "values": [NAN]},
        {**GOOD, "step": -1},
        {**GOOD, "step": "fine"},
    ],
)
def test_corrupt_state(state: Any) -> None:
    """What is no state is ignored as a whole."""
    watch = Watch(rule(RuleKind.ANOMALY))
    before = watch.state()
    watch.restore(state)
    assert watch.state() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(sorted(GOOD)), json_values),
    st.sampled_from(RuleKind),
)
def test_any_state(changes: dict[str, Any], kind: RuleKind) -> None:
    """No state stops a watch, nor keeps its alert open for ever."""
    watch = Watch(rule(kind))
    watch.restore({**GOOD, "kind": kind.value, "field": watch.rule.field, **changes})
    watch.on_presence(True, NOW)
    for value in [
        *[0.0] * 50,
        -50,
        25,
        False,
        100 if kind is RuleKind.LOW_BATTERY else 30,
    ]:
        watch.on_value(value, NOW)
    if kind in {RuleKind.BELOW, RuleKind.WEAK_SIGNAL}:
        watch.on_value(30, NOW)
    if kind is RuleKind.ANOMALY:
        alarms(watch, [30.0] * 50)
    assert not watch.is_on
    json.dumps(watch.state(), allow_nan=False)


# Properties

values = st.one_of(
    st.integers(-120, 120),
    st.floats(-120, 120).map(lambda value: round(value, 2)),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
rules = st.builds(
    rule,
    st.sampled_from(RuleKind),
    limit=st.integers(-100, 100),
    duration=st.sampled_from([0, 1, 60.5]),
    hysteresis=st.sampled_from([0, 0.1, 5, 1000]),
    window=st.sampled_from([3, 5, 20]),
    deviations=st.sampled_from([0.5, 3]),
)


class Life(RuleBasedStateMachine):
    """A watch, and beside it one that is restarted after every step."""

    def __init__(self) -> None:
        """Start with the time of the tests."""
        super().__init__()
        self.now = NOW
        self.open: float | None = None

    @initialize(rule=rules)
    def begin(self, rule: Rule) -> None:
        """Watch a rule."""
        self.watch = Watch(rule)
        self.twin = Watch(rule)

    def took(self, change: Change | None, twin: Change | None) -> None:
        """Hold changes against those before."""
        assert change == twin
        if change is None:
            return
        if change.ended_at is None:
            assert self.open is None
            self.open = change.started_at
        else:
            assert change.started_at == self.open
            assert change.started_at <= change.ended_at
            self.open = None

    @step(seconds=st.floats(0, 120))
    def time_passes(self, seconds: float) -> None:
        """Let the clock run."""
        self.now += seconds

    @step(seconds=st.floats(-100_000, 100_000))
    def clock_is_set(self, seconds: float) -> None:
        """Set the clock."""
        self.now += seconds

    @step(value=values)
    def value(self, value: Any) -> None:
        """Hear a value."""
        self.took(
            self.watch.on_value(value, self.now), self.twin.on_value(value, self.now)
        )

    @step(present=st.booleans())
    def presence(self, present: bool) -> None:
        """Come or go."""
        self.took(
            self.watch.on_presence(present, self.now),
            self.twin.on_presence(present, self.now),
        )

    @step()
    def check(self) -> None:
        """Ask whether a duration is over; no clock makes it last longer than it is."""
        self.took(self.watch.check(self.now), self.twin.check(self.now))
        if (deadline := self.watch.deadline) is not None:
            assert self.now < deadline <= self.now + self.watch.rule.duration

    @step()
    def restart(self) -> None:
        """Restart one of the two."""
        self.twin = restarted(self.twin)

    @invariant()
    def agrees(self) -> None:
        """Be open from each start to its end."""
        if hasattr(self, "watch"):
            assert self.watch.is_on is (self.open is not None)
            assert self.watch.started_at == self.open
            assert self.watch.state() == self.twin.state()

    @override
    def teardown(self) -> None:
        """End what is open."""
        if hasattr(self, "watch"):
            self.took(self.watch.stop(self.now), self.twin.stop(self.now))
            assert self.open is None


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(
    st.sampled_from(LIMITED),
    st.floats(-100, 100).map(lambda value: round(value, 3)),
    st.floats(0.001, 50).map(lambda value: round(value, 3)),
    st.lists(st.floats(0, 1), max_size=20),
    st.booleans(),
)
def test_no_flapping(
    kind: RuleKind, limit: float, hysteresis: float, parts: list[float], start: bool
) -> None:
    """Inside the band nothing changes: what is open stays open, what is not stays shut."""
    watch = Watch(rule(kind, limit=limit, hysteresis=hysteresis))
    sign = 1 if kind is RuleKind.ABOVE else -1
    watch.on_value(limit + sign * (1 if start else -hysteresis - 1), NOW)
    assert watch.is_on is start
    for part in parts:  # Strictly inside, but for the rounding
        inside = limit - sign * hysteresis * (0.001 + part * 0.998)
        assert watch.on_value(inside, NOW + 1) is None
    assert watch.is_on is start
