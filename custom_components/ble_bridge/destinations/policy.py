"""How a destination is to deliver: what waits for it, where, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ..records import RecordKind


class Policy(StrEnum):
    """What becomes of records while their destination is away.

    DROP keeps nothing. BUFFER keeps the newest in memory. DURABLE keeps them on disk until
    they are acknowledged, also across a restart.
    """

    DROP = "drop"
    BUFFER = "buffer"
    DURABLE = "durable"


DEFAULT_POLICIES: Final[Mapping[RecordKind, Policy]] = {
    RecordKind.ADVERTISEMENT: Policy.DROP,
    RecordKind.READING: Policy.BUFFER,
    RecordKind.ALERT: Policy.DURABLE,
    RecordKind.ERROR: Policy.DURABLE,
    RecordKind.CONNECTIVITY: Policy.BUFFER,
    RecordKind.MESSAGE: Policy.BUFFER,
}
MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait: records, and bytes of them."""

    records: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How a destination delivers.

    `max_age` (s) is how long a record may wait at all; `publish_timeout` (s) how long the
    destination may take to acknowledge; `max_in_flight` how many messages may be
    unacknowledged at once; `drain_rate` how many records a second go out of what waited;
    `max_tries` how often a record that is refused is sent before it is set aside.
    """

    policies: Mapping[RecordKind, Policy] = field(
        default_factory=lambda: dict(DEFAULT_POLICIES)
    )
    buffer: Bounds = Bounds(1_000, 8 * MEGABYTE)
    store: Bounds = Bounds(100_000, 64 * MEGABYTE)
    max_age: float = 7 * 24 * 3600.0
    publish_timeout: float = 2.5
    max_in_flight: int = 100
    drain_rate: float = 500.0
    max_tries: int = 5
