"""The `raw` layout: every advertisement, heartbeats, and the bridge's status.

Topics and payloads are those of `docs/topics.md`, with a JSON schema for each in
`docs/schemas/`.
"""

from dataclasses import dataclass
import time
from typing import Final, NamedTuple

from bluetooth_data_tools import parse_advertisement_data_bytes
import orjson

from ..records import Advertisement, Route, Scanner, Sighting
from .payloads import iso_timestamp, safe_text
from .topics import safe_part

# Readings of RSSI that mean "not known": HCI's 127, the stack's own -127, and 0, which is
# how a proxy's missing value arrives.
NO_RSSI: Final = frozenset({None, 0, 127, -127})
NO_TX_POWER: Final = frozenset({None, 127, -127})
# Looking these up takes half the time of formatting them.
_RSSI: Final[dict[int | None, bytes]] = {
    **{rssi: b"%d" % rssi for rssi in range(-128, 128)},
    **dict.fromkeys(NO_RSSI, b"null"),
}
_MILLISECONDS: Final = tuple(b'%03dZ"' % number for number in range(1000))
# As HCI numbers them (Core specification, vol 4, part E, 7.7.65.2); 2 and 3 are what a
# controller has resolved.
_ADDRESS_TYPES: Final = {
    0: "public",
    1: "random",
    2: "public",
    3: "random",
    "public": "public",
    "random": "random",
}


def advertisement_topic(base: str, sighting: Sighting) -> str:
    """Return the topic of a sighting's advertisements."""
    return f"{base}/raw/{sighting.scanner.scanner_id}/{safe_part(sighting.address)}"


def scanner_topic(base: str, scanner_id: str) -> str:
    """Return the topic of a scanner's heartbeat."""
    return f"{base}/scanner/{scanner_id}/status"


def bridge_topic(base: str, bridge_id: str) -> str:
    """Return the topic that says whether the bridge is connected."""
    return f"{base}/bridge/{bridge_id}/status"


class Content(NamedTuple):
    """What an advertisement says: UUIDs in lower case, texts that UTF-8 can say."""

    local_name: str | None
    service_uuids: list[str]
    service_data: dict[str, bytes]
    manufacturer_data: dict[int, bytes]
    tx_power: int | None


class RawLayout:
    """Advertisements as JSON.

    A payload is put together from parts that are built once per scanner and device, so
    long as the payload stays the same: only RSSI and time are written each time. One
    object serves all destinations, so that each advertisement is written once.
    """

    def __init__(self) -> None:
        """Initialize the layout."""
        self._second = -1
        self._offset = 0.0
        self._date_time = b""
        self._last: Advertisement | None = None
        self._payload = b""

    def payload(
        self, _route: Route, sighting: Sighting, advertisement: Advertisement
    ) -> bytes:
        """Return an advertisement as UTF-8 JSON.

        Raises ValueError for data that are not what the stack promises.
        """
        if advertisement is self._last:
            return self._payload
        try:
            if (tail := sighting.tail) is None:
                tail = self._build(sighting, advertisement)
            heard = advertisement.time + self._offset
            if int(heard) != self._second:
                heard = self._set_clock(advertisement.time)
            rssi = advertisement.rssi
            payload = b"".join(
                (
                    sighting.prefix,
                    _RSSI.get(rssi) or b"%d" % rssi,
                    self._date_time,
                    _MILLISECONDS[int(heard % 1 * 1000)],
                    tail,
                )
            )
        except (TypeError, AttributeError, OverflowError, OSError) as err:
            raise ValueError("Not an advertisement of the stack") from err
        self._payload = payload
        self._last = advertisement
        return payload

    def _set_clock(self, monotonic: float) -> float:
        """Set date and time of the second, following the system's clock when it is set."""
        self._offset = time.time() - time.monotonic()
        heard = monotonic + self._offset
        second = int(heard)
        self._date_time = time.strftime(
            ',"timestamp":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)
        ).encode()
        self._second = second
        return heard

    def _build(self, sighting: Sighting, advertisement: Advertisement) -> bytes:
        """Build the parts of the payload that stay while the device repeats itself."""
        if not sighting.prefix:
            sighting.prefix = (
                orjson.dumps(
                    {
                        "scanner_id": sighting.scanner.scanner_id,
                        "mac_address": safe_text(sighting.address),
                    }
                )[:-1]
                + b',"rssi":'
            )
        sighting.tail = b"," + orjson.dumps(_data(advertisement))[1:]
        return sighting.tail


def content(advertisement: Advertisement) -> Content:
    """Return what an advertisement says, apart from RSSI and time.

    The stack merges what a device said over time; where it gives the raw packet, the data
    are those of this packet.
    """
    if (raw := advertisement.raw) is not None:
        name, service_uuids, service_data, manufacturer_data, tx_power = (
            parse_advertisement_data_bytes(raw)
        )
    else:
        name = advertisement.name
        if name == advertisement.address:  # The stack's stand-in for a missing name
            name = None
        service_uuids = advertisement.service_uuids
        service_data = advertisement.service_data
        manufacturer_data = advertisement.manufacturer_data
        tx_power = advertisement.tx_power
    return Content(
        safe_text(name) if name else None,
        [safe_text(uuid.lower()) for uuid in service_uuids],
        {safe_text(uuid.lower()): value for uuid, value in service_data.items()},
        {company_id & 0xFFFF: value for company_id, value in manufacturer_data.items()},
        None if tx_power in NO_TX_POWER else tx_power,
    )


def _data(advertisement: Advertisement) -> dict[str, object]:
    """Return what an advertisement says, with all data in hex."""
    said = content(advertisement)
    data: dict[str, object] = {
        "manufacturer_data": {
            company_id.to_bytes(2, "little").hex(): value.hex()
            for company_id, value in said.manufacturer_data.items()
        },
        "service_uuids": said.service_uuids,
        "local_name": said.local_name,
        "service_data": {
            uuid: value.hex() for uuid, value in said.service_data.items()
        },
        "tx_power": said.tx_power,
        "connectable": bool(advertisement.connectable),
    }
    if found := address_type(advertisement):
        data["address_type"] = found
    if (raw := advertisement.raw) is not None:
        data["raw"] = raw.hex()
    return data


def address_type(advertisement: Advertisement) -> str | None:
    """Return `public` or `random` where the scanner gives it."""
    details = advertisement.device.details
    if not isinstance(details, dict):
        return None
    if isinstance(properties := details.get("props"), dict):  # BlueZ
        return _ADDRESS_TYPES.get(properties.get("AddressType", ""))
    return _ADDRESS_TYPES.get(details.get("address_type", ""))  # ESPHome


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """How a scanner and the connection of one destination are doing."""

    scanner: Scanner
    status: str
    uptime: float
    devices: int
    published: int
    dropped: int
    connected: bool
    messages_sent: int
    reconnects: int
    last_error: str | None

    def payload(self, now: float) -> bytes:
        """Return the heartbeat as UTF-8 JSON; `now` is Unix time in seconds."""
        return orjson.dumps(
            {
                "scanner_id": self.scanner.scanner_id,
                "timestamp": iso_timestamp(now),
                "status": self.status,
                "uptime_seconds": int(self.uptime),
                "metrics": {
                    "devices": self.devices,
                    "advertisements_received": self.scanner.received,
                    "advertisements_published": self.published,
                    "advertisements_dropped": self.dropped,
                    "advertisements_filtered": self.scanner.filtered,
                },
                "mqtt": {
                    "connected": self.connected,
                    "messages_sent": self.messages_sent,
                    "reconnects": self.reconnects,
                    "last_error": self.last_error,
                },
            }
        )
