"""Rules over what is known of a device, and whether they hold.

A `Rule` is what the user has set; a `Watch` is one rule at one device. It is told of values
and of presence, and answers with a `Change` when an alert starts or ends. Times are Unix
times in seconds and are given by who calls, so that open alerts and pending durations
survive a restart.

An alert starts once its condition has held for `duration`, without interruption and whether
or not packets come meanwhile; it counts from when the condition began to hold. It ends at
once, with the first value that is back beyond the limit by `hysteresis`. Only an open alert
has hysteresis: while a duration is pending, a value within the limit interrupts it.

All but "lost" go by values alone. While a device is away its last value stands, and so do
its alerts.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
import math
from typing import Any, Final

DEFAULT_BATTERY: Final = 20.0
DEFAULT_DEVIATIONS: Final = 3.0
DEFAULT_WINDOW: Final = 20
MIN_WINDOW: Final = 3
MAX_WINDOW: Final = 1000
MAX_DURATION: Final = 366 * 86_400.0
_MAX_TIME: Final = 253_402_300_799.0  # The end of the year 9999
_MIN_JUDGED: Final = 5
# Nothing that is measured is larger, and the squares of these can be added up.
_MAX_NUMBER: Final = 1e100
# The coarsest step that is common, in units of the last decimal place: 0.5 °C
_COARSE: Final = 5
_MAX_PLACES: Final = 6
_MIN_SPREAD: Final = 1e-3


class RuleKind(StrEnum):
    """What a rule is about."""

    LOW_BATTERY = "low_battery"
    LOST = "lost"
    WEAK_SIGNAL = "weak_signal"
    ABOVE = "above"
    BELOW = "below"
    ANOMALY = "anomaly"


_FIELDS: Final[dict[RuleKind, tuple[str, ...]]] = {
    RuleKind.LOW_BATTERY: ("battery", "battery_low"),
    RuleKind.LOST: (),
    RuleKind.WEAK_SIGNAL: ("rssi",),
}
_LIMITED: Final = frozenset(RuleKind) - {RuleKind.LOST, RuleKind.ANOMALY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the user wants to be told of.

    `field` is given for above, below and anomaly; the other kinds have fields of their own.
    `limit` is in the field's unit (%, dBm), and so is `hysteresis`, which lost and anomaly
    have no use for. `duration` is in seconds. An anomaly is a value further than `deviations`
    standard deviations from the mean of the last `window` values.
    """

    rule_id: str
    name: str
    kind: RuleKind
    field: str | None = None
    limit: float | None = None
    duration: float = 0.0
    hysteresis: float = 0.0
    audiences: tuple[str, ...] = ()
    deviations: float = DEFAULT_DEVIATIONS
    window: int = DEFAULT_WINDOW

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """Return a rule as it is stored; raises ValueError if it is none."""
        kind = RuleKind(str(data.get("kind")))
        limit = None
        if kind in _LIMITED:
            default = DEFAULT_BATTERY if kind is RuleKind.LOW_BATTERY else None
            limit = _setting(data, "limit", default, -_MAX_NUMBER, _MAX_NUMBER)
        audiences = data.get("audiences") or ()
        if not isinstance(audiences, list | tuple):
            raise ValueError("audiences")  # noqa: TRY004 - data, not an argument
        return cls(
            rule_id=_text(data.get("rule_id"), "rule_id"),
            name=_text(data.get("name"), "name"),
            kind=kind,
            field=None if kind in _FIELDS else _text(data.get("field"), "field"),
            limit=limit,
            duration=_setting(data, "duration", 0.0, 0.0, MAX_DURATION),
            hysteresis=_setting(data, "hysteresis", 0.0, 0.0, _MAX_NUMBER),
            audiences=tuple(_text(audience, "audiences") for audience in audiences),
            deviations=_setting(data, "deviations", DEFAULT_DEVIATIONS, 0.1, 1000.0),
            window=int(
                _setting(data, "window", DEFAULT_WINDOW, MIN_WINDOW, MAX_WINDOW)
            ),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as it is stored."""
        return {**asdict(self), "kind": self.kind.value, "audiences": [*self.audiences]}

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields whose values the rule goes by."""
        if (fields := _FIELDS.get(self.kind)) is not None:
            return fields
        return () if self.field is None else (self.field,)


def _text(value: object, name: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not (text := value.strip()):
        raise ValueError(name)
    return text


def _setting(
    data: Mapping[str, Any],
    name: str,
    default: float | None,
    minimum: float,
    maximum: float,
) -> float:
    """Return a number within its bounds."""
    value = default if (given := data.get(name)) is None else given
    if (number := _number(value)) is None or not minimum <= number <= maximum:
        raise ValueError(name)
    return number


def _is_within(value: object, minimum: float, maximum: float) -> bool:
    """Tell whether something is a number within its bounds."""
    return (number := _number(value)) is not None and minimum <= number <= maximum


def _number(value: object) -> float | None:
    """Return a number that can be reckoned with, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _MAX_NUMBER else None  # NaN is not


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that started, or, where `ended_at` is given, ended."""

    started_at: float
    ended_at: float | None = None


class Watch:
    """One rule at one device."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._since: float | None = None
        self._is_on = False
        self._beyond = False
        self._flagged = False
        self._average = (
            _MovingAverage(rule.window, rule.deviations)
            if rule.kind is RuleKind.ANOMALY
            else None
        )

    @property
    def is_on(self) -> bool:
        """Tell whether the alert is open."""
        return self._is_on

    @property
    def started_at(self) -> float | None:
        """Return when the condition of an open alert began to hold, else None."""
        return self._since if self._is_on else None

    @property
    def deadline(self) -> float | None:
        """Return when `check` has something to do, unless a call changes it before."""
        if self._is_on or self._since is None:
            return None
        return self._since + self.rule.duration

    def on_value(self, value: object, now: float) -> Change | None:
        """Take a new value of one of the rule's fields.

        What is neither a number nor, for a low battery, a boolean is ignored.
        """
        if isinstance(value, bool):
            if self.rule.kind is not RuleKind.LOW_BATTERY:
                return None
            self._flagged = value
        elif (number := _number(value)) is None or self.rule.kind is RuleKind.LOST:
            return None
        else:
            self._beyond = self._judge(number)
        return self._update(self._beyond or self._flagged, now)

    def on_presence(self, present: bool, now: float) -> Change | None:
        """Take whether the device is there; only a rule about its loss goes by that."""
        if self.rule.kind is not RuleKind.LOST:
            return None
        return self._update(not present, now)

    def check(self, now: float) -> Change | None:
        """Start an alert whose duration is over; sooner calls do no harm."""
        return self._update(self._since is not None, now)

    def stop(self, now: float) -> Change | None:
        """End an open alert whose rule or device is removed."""
        self._beyond = self._flagged = False
        return self._update(False, now)

    def state(self) -> dict[str, Any]:
        """Return what a restart must not lose, as JSON has it."""
        state: dict[str, Any] = {
            "kind": self.rule.kind.value,
            "field": self.rule.field,
            "since": self._since,
            "is_on": self._is_on,
            "beyond": self._beyond,
            "flagged": self._flagged,
        }
        if self._average is not None:
            state["values"] = [*self._average.values]
            state["step"] = self._average.step
        return state

    def restore(self, state: object) -> None:
        """Go on from a state; what is none is ignored.

        An alert that was open stays so until a value, or the device's presence, ends it.
        If the rule has been about something else, that is all that is taken over.
        """
        if not isinstance(state, Mapping):
            return
        since, is_on = state.get("since"), state.get("is_on")
        beyond, flagged = state.get("beyond"), state.get("flagged")
        values, step = state.get("values", []), state.get("step")
        if (
            not all(isinstance(flag, bool) for flag in (is_on, beyond, flagged))
            or not isinstance(values, list)
            or any(_number(value) is None for value in values)
            or (is_on and since is None)
            or not (since is None or _is_within(since, 0, _MAX_TIME))
            or not (step is None or _is_within(step, 0, _MAX_NUMBER))
        ):
            return
        same = (state.get("kind"), state.get("field")) == (
            self.rule.kind,
            self.rule.field,
        )
        if same or is_on:
            self._since, self._is_on = since, bool(is_on)
        if same:
            self._beyond, self._flagged = bool(beyond), bool(flagged)
            if self._average is not None:
                self._average.values.extend(values)
                self._average.step = step

    def _judge(self, value: float) -> bool:
        """Tell whether a value is beyond what the rule allows."""
        if self._average is not None:
            return self._average.judge(value)
        if (limit := self.rule.limit) is None:
            return False
        slack = self.rule.hysteresis if self._is_on and self._beyond else 0
        # Rounded, since 0.3 - 0.1 is not 0.2 in binary
        if self.rule.kind is RuleKind.ABOVE:
            return value > (min(limit, round(limit - slack, 9)) if slack else limit)
        return value < (max(limit, round(limit + slack, 9)) if slack else limit)

    def _update(self, holds: bool, now: float) -> Change | None:
        """Follow the condition, whatever the clock does.

        Where the clock is set back, a pending duration counts from the new time, and an
        alert never ends before it started.
        """
        if not holds:
            since, was_on = self._since, self._is_on
            self._since, self._is_on = None, False
            if since is None or not was_on:
                return None
            return Change(since, max(since, now))
        if self._is_on:
            return None
        self._since = now if self._since is None else min(self._since, now)
        if now < self._since + self.rule.duration:
            return None
        self._is_on = True
        return Change(self._since)


class _MovingAverage:
    """Judges values by those before them.

    Every value, an outlier too, becomes one of those that the next is judged by: a signal
    that stays at a new level is an anomaly only until that is the level of about 1 in 1 + k²
    values of the window.

    A signal that hardly changes has hardly a deviation, and the next step of its resolution
    is no anomaly. So the deviation is taken to be no less than the smallest step that was
    ever seen, or, while that is not known, five units of the last decimal place; and no less
    than a thousandth of the mean.
    """

    def __init__(self, window: int, deviations: float) -> None:
        self.values: deque[float] = deque(maxlen=window)
        self.step: float | None = None
        self._deviations = deviations
        self._enough = min(window, max(_MIN_JUDGED, window // 2))

    def judge(self, value: float) -> bool:
        """Tell whether a value is an anomaly, and remember it."""
        self._learn_step(value)
        values = self.values
        anomaly = False
        if (count := len(values)) >= self._enough:
            # Afresh each time: running sums would drift, and differ after a restart
            mean = math.fsum(values) / count
            apart = [other - mean for other in values]
            variance = math.sumprod(apart, apart) / count
            spread = max(math.sqrt(variance), self.step or 0.0, abs(mean) * _MIN_SPREAD)
            anomaly = abs(value - mean) > self._deviations * spread
        values.append(value)
        return anomaly

    def _learn_step(self, value: float) -> None:
        """Take note of the smallest step that the signal is known to make."""
        step = _COARSE * _last_place(value)
        if self.values and (change := abs(value - self.values[-1])):
            step = min(step, change)
        self.step = step if self.step is None else min(self.step, step)


def _last_place(value: float) -> float:
    """Return the unit of a number's last decimal place: 0.01 for 21.25, 1 for an integer.

    A float has tenths, though they be zero.
    """
    if isinstance(value, int):
        return 1
    for places in range(1, _MAX_PLACES):
        if round(value, places) == value:
            return 10.0**-places
    return 10.0**-_MAX_PLACES
