"""Which of the packets that several scanners hear of one device are news.

Scanners hear one packet each at its own time, some of them seconds late. A payload is news
when the first of them brings it, and again when a scanner that brought it before brings it
after another one, for each scanner keeps the order in which it hears. A copy that a further
scanner brings later is not, even where the device has said something else since.

Where packets carry a counter of their own, that tells.
"""

from enum import Enum
from typing import Any, Final

from bluetooth_data_tools import parse_advertisement_data_bytes

from .records import Advertisement

# How much later than the first a scanner may bring its copy (s).
LATE: Final = 15.0
MAX_ITEMS: Final = 16

# What a packet says, one of its data: whose they are, and the bytes.
type Item = tuple[int | str, bytes]


class News(Enum):
    """What a packet is to the device that sent it."""

    FRESH = "fresh"
    AGAIN = "again"
    LATE = "late"


def items(advertisement: Advertisement) -> list[Item]:
    """Return what a packet says: of this packet alone where the scanner gives it raw."""
    if (raw := advertisement.raw) is not None:
        _, _, service_data, manufacturer_data, _ = parse_advertisement_data_bytes(raw)
    else:
        service_data = advertisement.service_data
        manufacturer_data = advertisement.manufacturer_data
    return [*manufacturer_data.items(), *service_data.items()]


class _Heard:
    """Who brought something since it was said, and since when something else is said."""

    __slots__ = ("first", "sources", "superseded")

    def __init__(self, source: str, now: float) -> None:
        self.sources = {source}
        self.first = now
        self.superseded: float | None = None


class History:
    """What a device said lately, in the order in which it said it."""

    __slots__ = ("_counted", "_counter", "_doubtful", "_heard")

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self._heard: dict[Item, _Heard] = {}
        self._counter: int | None = None
        self._counted = 0.0
        self._doubtful: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """Return what the device says now, as JSON."""
        return {
            "counter": self._counter,
            "said": [
                [key, data.hex()]
                for (key, data), heard in self._heard.items()
                if heard.superseded is None
            ],
        }

    def restore(self, state: object, now: float) -> None:
        """Take over what the device said last, as far as it is what `state` writes."""
        try:
            counter, said = state["counter"], state["said"]  # type: ignore[index]
            heard = {(key, bytes.fromhex(data)): _Heard("", now) for key, data in said}
        except KeyError, TypeError, ValueError:
            return
        if len(heard) <= MAX_ITEMS and isinstance(counter, int | None):
            self._heard, self._counter, self._counted = heard, counter, now

    def is_due(self, source: str, now: float) -> bool:
        """Tell whether to look once more at what a scanner keeps repeating.

        What came as a late copy, and still comes when no copy can be that late, is what the
        device says now.
        """
        if not self._doubtful or now < self._doubtful.get(source, now + 1):
            return False
        del self._doubtful[source]
        return True

    def judge(
        self, source: str, said: list[Item], now: float, counter: tuple[int, int] | None
    ) -> tuple[News, float]:
        """Return what a packet is, and for how long (s) the device had said something else.

        `counter` is the packet's own with its modulus, `now` when it was heard.
        """
        if counter is not None and self._is_old(*counter, now):
            return News.LATE, 0.0
        news, pause = News.LATE, 0.0
        for item in said:
            found, item_pause = self._judge_item(source, item, now)
            if found is News.FRESH or news is News.LATE:
                news = found
            pause = max(pause, item_pause)
        if news is News.LATE:
            if any(self._heard[item].superseded is not None for item in said):
                self._doubtful[source] = now + LATE
            return news, pause
        self._doubtful.pop(source, None)
        if counter is not None:
            if counter[0] != self._counter:
                news = News.FRESH
            self._counter, self._counted = counter[0], now
        for item, heard in self._heard.items():
            if item in said:
                heard.superseded = None
            elif heard.superseded is None:
                heard.superseded = now
        return news, pause

    def _is_old(self, value: int, modulus: int, now: float) -> bool:
        """Tell whether a counter is from before the last packet.

        A device that begins anew (its battery was changed) is heard again when no copy can
        be that late.
        """
        if self._counter is None or now - self._counted > LATE:
            return False
        return (value - self._counter) % modulus > modulus // 2

    def _judge_item(self, source: str, item: Item, now: float) -> tuple[News, float]:
        """Return what one of the data of a packet is, and since when it was not said."""
        heard = self._heard.get(item)
        if heard is None:
            if len(self._heard) >= MAX_ITEMS:
                del self._heard[next(iter(self._heard))]
            self._heard[item] = _Heard(source, now)
            return News.FRESH, LATE
        superseded = heard.superseded
        pause = 0.0 if superseded is None else now - superseded
        since = heard.first if superseded is None else superseded
        if source in heard.sources or now - since > LATE:
            heard.sources = {source}
            heard.first = now
            return News.AGAIN, pause
        heard.sources.add(source)
        return News.LATE, pause
