"""What was delivered of one kind of record: how much, and how soon."""

from bisect import bisect_left
from typing import Final

# Up to which latency (s) one counts in which bucket; a last bucket has no end.
LATENCY_BOUNDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)


class Meter:
    """What was delivered of one kind of record.

    `delivered_bytes` are those of payloads, and `acknowledged_bytes` those of them that the
    destination confirmed. `latencies` holds a count for each of the buckets, `latency_sum`
    is in seconds, and `last` is when anything was delivered (the event loop's time, s).
    """

    __slots__ = (
        "acknowledged_bytes",
        "delivered_bytes",
        "last",
        "latencies",
        "latency_sum",
    )

    def __init__(self) -> None:
        """Begin with nothing."""
        self.delivered_bytes = 0
        self.acknowledged_bytes = 0
        self.latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self.latency_sum = 0.0
        self.last: float | None = None

    def add(self, size: int, since: float, now: float, *, acknowledged: bool) -> None:
        """Count so many bytes that waited since a time, and are delivered now (s)."""
        self.delivered_bytes += size
        if acknowledged:
            self.acknowledged_bytes += size
        latency = now - since
        self.latencies[bisect_left(LATENCY_BOUNDS, latency)] += 1
        self.latency_sum += latency
        self.last = now
