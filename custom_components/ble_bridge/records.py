"""What flows from the feed to the destinations.

The `Advertisement` is the Bluetooth stack's own object: nothing is copied on the way of
a packet. Beside it goes a `Sighting`, which is what is known of its device at its scanner
and where layouts keep what they need not build again while the payload stays the same.

`Reading`, `Alert`, `Error` and `Connectivity` tell of a device that the user has added.
Their times are Unix times in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from habluetooth import BluetoothServiceInfoBleak as Advertisement

__all__ = [
    "DEVICE_KINDS",
    "Advertisement",
    "Alert",
    "Connectivity",
    "DeviceIdentity",
    "Error",
    "Reading",
    "Record",
    "RecordKind",
    "Route",
    "Scanner",
    "Sighting",
    "Tally",
    "Value",
]

# What a field can be; a mapping or a list is published as JSON.
type Value = float | int | str | bool | list[Value] | dict[str, Value]


class RecordKind(StrEnum):
    """The kinds of records; a message is what the user had published."""

    ADVERTISEMENT = "advertisement"
    READING = "reading"
    ALERT = "alert"
    ERROR = "error"
    CONNECTIVITY = "connectivity"
    MESSAGE = "message"


# Those that tell of devices which the user has added.
DEVICE_KINDS: Final = (
    RecordKind.READING,
    RecordKind.ALERT,
    RecordKind.ERROR,
    RecordKind.CONNECTIVITY,
)


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """How a device is called on the bus.

    `device_id` is its name in topics, safe as one level of them: the alias as a slug, else
    the address. `address` is the one that it was heard under last, or None where none was;
    it `rotates` where the device takes another one every few minutes.
    """

    device_id: str
    address: str | None = None
    name: str | None = None
    model: str | None = None
    rotates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a device said in one packet, and how strong (dBm) which scanner heard it.

    `values` and `events` go by field name (`decoders/fields.py`). A reading that has neither
    tells of the signal alone.
    """

    device: DeviceIdentity
    time: float
    scanner_id: str
    rssi: int | None
    values: Mapping[str, Value]
    events: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule of a device that began to hold, or, where `ended_at` is given, ceased to."""

    device: DeviceIdentity
    name: str
    started_at: float
    ended_at: float | None
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Something about a device that could not be understood or published."""

    device: DeviceIdentity
    name: str
    body: str
    tags: Mapping[str, str]
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectivity:
    """A device that came, or went; both have the connection ID of that stay."""

    device: DeviceIdentity
    connection_id: str
    connected: bool
    created_at: float


type Record = Reading | Alert | Error | Connectivity


@dataclass(slots=True, eq=False, weakref_slot=True)
class Scanner:
    """What hears: a local adapter or a proxy.

    `source` is the address by which Home Assistant knows it, `scanner_id` its name in
    topics. `received` and `filtered` count advertisements; `rate` is how many came in a
    minute lately, `heard` when the last one was there (Unix time, seconds), and `silent`
    whether one that was busy hears nothing any more though it is online.
    """

    source: str
    scanner_id: str
    name: str
    excluded: bool = False
    online: bool = True
    received: int = 0
    filtered: int = 0
    rate: float | None = None
    heard: float | None = None
    silent: bool = False


@dataclass(slots=True, eq=False)
class Tally:
    """What became of records of one kind, or of one scanner's, at one destination.

    `received = acknowledged + sent + dropped + waiting` holds at any moment. `sent` are those
    that went out at QoS 0, which nobody confirms. Of the dropped ones `away` came while the
    destination was away and were not to wait, `overflow` made room for newer ones, `expired`
    waited for too long, `refused` were set aside since the destination does not take them,
    and `failed` could not be put into a message, or were lost with the disk.
    """

    received: int = 0
    acknowledged: int = 0
    sent: int = 0
    away: int = 0
    overflow: int = 0
    expired: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def delivered(self) -> int:
        """Return how many went out, confirmed or not."""
        return self.acknowledged + self.sent

    @property
    def dropped(self) -> int:
        """Return how many were dropped, for whatever reason."""
        return self.away + self.overflow + self.expired + self.refused + self.failed

    @property
    def waiting(self) -> int:
        """Return how many are neither delivered nor dropped yet."""
        return self.received - self.acknowledged - self.sent - self.dropped


@dataclass(slots=True, eq=False)
class Route:
    """Where a sighting's advertisements go at one destination.

    `head` is the address with its length before it: an MQTT topic, a NATS subject. `parts` are what the layout need not build again, and `version` is that of the
    payload for which they were built.
    """

    head: bytes
    tally: Tally
    qos: int = 0
    version: int = -1
    parts: Any = None


@dataclass(slots=True, eq=False)
class Sighting:
    """A device as one scanner hears it.

    The attributes from `raw` to `connectable` are those of the last payload; `time` is that
    of the last advertisement (`CLOCK_MONOTONIC`, seconds), and `rssi` (dBm) that of the last
    one of a device which the user has added, and `device` how that is called. `tail` is the
    raw layout's, and is None when the payload has changed since it was built; `version`
    counts the payloads; `routes` holds one entry per destination.
    """

    scanner: Scanner
    address: str
    time: float = 0.0
    rssi: int | None = None
    raw: bytes | None = None
    manufacturer_data: dict[int, bytes] | None = None
    service_data: dict[str, bytes] | None = None
    service_uuids: list[str] | None = None
    name: str | None = None
    tx_power: int | None = None
    connectable: bool | None = None
    accepted: bool = True
    prefix: bytes = b""
    tail: bytes | None = None
    routes: dict[object, Route] = field(default_factory=dict)
    version: int = 0
    device: DeviceIdentity | None = None

    def update(self, advertisement: Advertisement) -> bool:
        """Take over the payload of an advertisement, and tell whether it changed.

        A proxy's unchanged payload arrives as the very same objects, so identity is
        compared before equality: it answers for nearly every packet. The name is compared
        even where the raw packet is the same, for the stack learns it from other scanners
        too, and filters go by it.
        """
        raw = advertisement.raw
        if raw is not None:
            if (
                raw is self.raw
                and advertisement.name is self.name
                and advertisement.connectable is self.connectable
            ):
                return False
            changed = (
                raw != self.raw
                or advertisement.name != self.name
                or advertisement.connectable is not self.connectable
            )
        elif (
            advertisement.manufacturer_data is self.manufacturer_data
            and advertisement.service_data is self.service_data
            and advertisement.service_uuids is self.service_uuids
            and advertisement.name is self.name
            and advertisement.tx_power == self.tx_power
            and advertisement.connectable is self.connectable
            and self.raw is None
        ):
            return False
        else:
            changed = (
                self.raw is not None
                or advertisement.manufacturer_data != self.manufacturer_data
                or advertisement.service_data != self.service_data
                or advertisement.service_uuids != self.service_uuids
                or advertisement.name != self.name
                or advertisement.tx_power != self.tx_power
                or advertisement.connectable is not self.connectable
            )
        self.connectable = advertisement.connectable
        self.raw = raw
        self.manufacturer_data = advertisement.manufacturer_data
        self.service_data = advertisement.service_data
        self.service_uuids = advertisement.service_uuids
        self.name = advertisement.name
        self.tx_power = advertisement.tx_power
        if changed:
            self.tail = None
            self.version += 1
        return changed
