"""Fewer advertisements of a device on the bus, where the user wants that.

What is left out is counted by reason. A button press always goes out, which who calls sees
to: only they know of it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from .records import Advertisement, Sighting

MAX_SIGHTINGS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """What of a device's advertisements goes out, from each scanner.

    No two within `minimum_interval` (s). Those whose payload is unchanged are left out,
    where `unchanged_interval` (s) is given, but for one in each such time, and for those
    whose signal strength differs from the last one's by `rssi_change` (dB) or more.
    """

    minimum_interval: float = 0.0
    unchanged_interval: float | None = None
    rssi_change: int | None = None


class Reason(StrEnum):
    """Why an advertisement is left out."""

    INTERVAL = "interval"
    UNCHANGED = "unchanged"


@dataclass(slots=True)
class _Sent:
    """What went out last."""

    time: float
    rssi: int


@dataclass(slots=True, eq=False)
class Shaper:
    """Shapes the advertisements of one device."""

    shaping: Shaping
    dropped: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    _sent: dict[str, _Sent] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)

    def passes(
        self,
        sighting: Sighting,
        advertisement: Advertisement,
        changed: bool,
        happened: bool = False,
    ) -> bool:
        """Tell whether an advertisement goes out; one of what happened always does.

        A changed payload that came too early goes out with the next packet that may.
        """
        shaping = self.shaping
        source, now, rssi = (
            sighting.scanner.source,
            advertisement.time,
            advertisement.rssi,
        )
        changed = changed or source in self._pending
        if (last := self._sent.get(source)) is not None and not happened:
            if 0 <= now - last.time < shaping.minimum_interval:
                self.dropped[Reason.INTERVAL] += 1
                if changed:
                    self._pending.add(source)
                return False
            if (
                not changed
                and shaping.unchanged_interval is not None
                and 0 <= now - last.time < shaping.unchanged_interval
                and (
                    shaping.rssi_change is None
                    or abs(rssi - last.rssi) < shaping.rssi_change
                )
            ):
                self.dropped[Reason.UNCHANGED] += 1
                return False
        elif last is None and len(self._sent) >= MAX_SIGHTINGS:
            del self._sent[next(iter(self._sent))]
        self._pending.discard(source)
        self._sent[source] = _Sent(now, rssi)
        return True
