"""What devices said, and what of it arrived: doubled, out of order, or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass, field
import time
from typing import Final

# How long what was said may be on its way to whom it is for, when that one ends (s).
ON_ITS_WAY: Final = 0.3

# Further apart are two points in time only where the clock was set in between (ns).
_CLOCK_WAS_SET: Final = 24 * 3600 * 1_000_000_000

# How many numbers each device has said; they begin with 1.
type Position = dict[str, int]


@dataclass
class Ledger:
    """When each device said which number (monotonic, s), and when nobody may have heard.

    A number that is said while Home Assistant stops, starts, or loads the integration anew
    may be heard or not: nothing can be said of it but that it is in order.
    """

    said: dict[str, list[float]] = field(default_factory=dict)
    deaf: list[tuple[float, float]] = field(default_factory=list)
    _deaf_since: float | None = None

    def say(self, device: str) -> int:
        """Return the next number of a device."""
        times = self.said.setdefault(device, [])
        times.append(time.monotonic())
        return len(times)

    def take_back(self, device: str) -> None:
        """Take back the last number, which never left the radio."""
        self.said[device].pop()

    def begin_deaf(self) -> None:
        """Take note that from now on not all that is said may be heard."""
        if self._deaf_since is None:
            self._deaf_since = time.monotonic() - ON_ITS_WAY

    def end_deaf(self) -> None:
        """Take note that all is heard again."""
        if self._deaf_since is not None:
            self.deaf.append((self._deaf_since, time.monotonic()))
            self._deaf_since = None

    def position(self) -> Position:
        """Return how far the devices are."""
        return {device: len(times) for device, times in self.said.items()}

    def heard(self, begin: Position, end: Position) -> Iterator[tuple[str, int]]:
        """Return what was heard for certain, after a position and up to another."""
        for device, last in end.items():
            times = self.said[device]
            for number in range(begin.get(device, 0) + 1, last + 1):
                if not self._is_doubtful(times[number - 1]):
                    yield device, number

    def _is_doubtful(self, moment: float) -> bool:
        if self._deaf_since is not None and moment >= self._deaf_since:
            return True
        return any(begin <= moment <= end for begin, end in reversed(self.deaf))


@dataclass
class Receipts:
    """What arrived, in the order in which it did; a thread may write while others read."""

    arrived: dict[str, set[int]] = field(default_factory=dict)
    copies: list[tuple[str, int]] = field(default_factory=list)
    disorder: list[tuple[str, int, int]] = field(default_factory=list)
    _newest: dict[str, int] = field(default_factory=dict)

    def take(self, device: str, number: int, *, again: bool = False) -> None:
        """Take what arrived; `again` tells that the broker itself repeats it."""
        arrived = self.arrived.setdefault(device, set())
        if number in arrived:
            if not again:
                self.copies.append((device, number))
            return
        arrived.add(number)
        if number < (newest := self._newest.get(device, 0)):
            self.disorder.append((device, number, newest))
        else:
            self._newest[device] = number

    def is_overtaken(self, device: str, number: int) -> bool:
        """Tell whether a later number of the device arrived."""
        return number < self._newest.get(device, 0)

    def has(self, device: str, number: int) -> bool:
        """Tell whether a number arrived."""
        return number in self.arrived.get(device, ())


@dataclass
class Points(Receipts):
    """What arrived in a store, where not the order of arrival counts but the time."""

    _numbers: dict[tuple[str, int], int] = field(default_factory=dict)
    _times: dict[tuple[str, int], int] = field(default_factory=dict)

    def take_point(self, device: str, number: int, moment: int) -> None:
        """Take a point of a time (ns), which may be known already."""
        if self._numbers.get((device, moment)) == number:
            return
        self._numbers[device, moment] = number
        if self.has(device, number):
            self.copies.append((device, number))
            return
        self._times[device, number] = moment
        self.arrived.setdefault(device, set()).add(number)
        self._newest[device] = max(number, self._newest.get(device, 0))
        for other in (number - 1, number + 1):
            known = self._times.get((device, other))
            if known is None or abs(moment - known) > _CLOCK_WAS_SET:
                continue
            if moment == known or (moment < known) != (number < other):
                self.disorder.append((device, number, other))

    def forget_times(self) -> None:
        """Forget the points that are not in the store any more, but not the numbers."""
        self._numbers.clear()
        self._times.clear()
