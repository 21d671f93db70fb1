"""Which advertisements go out: allow and deny lists, and a minimum RSSI.

A list names devices by address, by name pattern, by company ID or by service UUID. A
device on a deny list is filtered; where there is an allow list, so is one that is not on
it. What a device said over time counts, not only what is in the packet at hand, so that
a device whose packets take turns is treated as one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
import fnmatch
import re
from typing import Final

from .records import Advertisement

_BASE_UUID: Final = "0000{}-0000-1000-8000-00805f9b34fb"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS: Final = re.compile(
    r"[0-9A-F]{12}|([0-9A-F]{2}-){5}[0-9A-F]{2}|([0-9A-F]{2}:){5}[0-9A-F]{2}"
)
_COMPANY_ID: Final = re.compile(r"0x([0-9a-f]{1,4})|([0-9a-f]{4})|([0-9]{1,5})")
MAX_PATTERN: Final = 248  # Longest name in a packet (Core specification, 12.1)


def parse_address(text: str) -> str:
    """Return an address in upper case with colons; raises ValueError if it is none.

    On macOS the system gives UUIDs for addresses; they are taken too.
    """
    address = text.strip().upper()
    if _ADDRESS.fullmatch(address):
        digits = re.sub("[:-]", "", address)
        return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    if not _UUID.fullmatch(address.lower()):
        raise ValueError(text)
    return address


def parse_company_id(text: str) -> int:
    """Return a company ID, written as 0x004C, 004C or 76; raises ValueError.

    Four hexadecimal digits or a leading 0x are hexadecimal, anything else is decimal.
    """
    if (found := _COMPANY_ID.fullmatch(text.strip().lower())) is None:
        raise ValueError(text)
    prefixed, hexadecimal, decimal = found.groups()
    company_id = int(decimal) if decimal else int(prefixed or hexadecimal, 16)
    if company_id > 0xFFFF:
        raise ValueError(text)
    return company_id


def parse_service_uuid(text: str) -> str:
    """Return a service UUID of 16, 32 or 128 bits as 128 bits; raises ValueError."""
    uuid = text.strip().lower().removeprefix("0x")
    if re.fullmatch(r"[0-9a-f]{4}|[0-9a-f]{8}", uuid):
        return _BASE_UUID.format(uuid) if len(uuid) == 4 else uuid + _BASE_UUID[6:]
    if not _UUID.fullmatch(uuid):
        raise ValueError(text)
    return uuid


def parse_name(text: str) -> str:
    """Return a name pattern (`*`, `?` and `[…]` match); raises ValueError."""
    if not (pattern := text.strip()) or len(pattern) > MAX_PATTERN:
        raise ValueError(text)
    return pattern


@dataclass(frozen=True, slots=True)
class DeviceList:
    """Devices by what they are or say."""

    addresses: frozenset[str] = frozenset()
    names: re.Pattern[str] | None = None
    company_ids: frozenset[int] = frozenset()
    service_uuids: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls,
        addresses: Iterable[str] = (),
        names: Collection[str] = (),
        company_ids: Iterable[str] = (),
        service_uuids: Iterable[str] = (),
    ) -> DeviceList:
        """Return a list from its texts; raises ValueError for one that cannot be read."""
        patterns = [fnmatch.translate(parse_name(name)) for name in names]
        return cls(
            frozenset(map(parse_address, addresses)),
            re.compile("|".join(patterns), re.IGNORECASE) if patterns else None,
            frozenset(map(parse_company_id, company_ids)),
            frozenset(map(parse_service_uuid, service_uuids)),
        )

    def __bool__(self) -> bool:
        """Tell whether anything is on the list."""
        return bool(
            self.addresses or self.names or self.company_ids or self.service_uuids
        )

    def matches(self, advertisement: Advertisement) -> bool:
        """Tell whether the device of an advertisement is on the list."""
        return (
            advertisement.address in self.addresses
            or not self.company_ids.isdisjoint(advertisement.manufacturer_data)
            or not self.service_uuids.isdisjoint(advertisement.service_uuids)
            or not self.service_uuids.isdisjoint(advertisement.service_data)
            or (
                self.names is not None
                and advertisement.name not in {None, "", advertisement.address}
                and self.names.match(advertisement.name) is not None
            )
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices go out, and from what signal strength (dBm) on."""

    allow: DeviceList = field(default_factory=DeviceList)
    deny: DeviceList = field(default_factory=DeviceList)
    minimum_rssi: int = -128

    def accepts(self, advertisement: Advertisement) -> bool:
        """Tell whether the device goes out; the signal strength is another matter."""
        if self.deny.matches(advertisement):
            return False
        return not self.allow or self.allow.matches(advertisement)
