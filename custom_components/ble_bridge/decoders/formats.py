"""Formats: fixed layouts of values, described in a table and not programmed.

`formats.toml` holds those that are known; a user can add entries of their own. The language
is described in `docs/formats.md`. An entry is compiled once, and a packet meets only the
entries of its company IDs and service UUIDs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import re

from ..records import Advertisement, Value
from .fields import Field, Kind
from .model import Decoded, clean_float

# What stands in the data before anything is made of it.
type Raw = float | int | str
type Reader = Callable[[bytes], Raw | None]


class NotThis(Exception):
    """The data hold a value that this format cannot have."""


@dataclass(frozen=True, slots=True)
class Integer:
    """Reads a whole number, or some of its bits."""

    start: int
    end: int
    big: bool
    signed: bool
    mask: int | None
    shift: int
    divide: int
    modulo: int | None

    def __call__(self, data: bytes) -> int | None:
        """Return the number, or None where the data end before it."""
        if len(data) < self.end:
            return None
        value = int.from_bytes(
            data[self.start : self.end],
            "big" if self.big else "little",
            signed=self.signed,
        )
        if self.mask is not None:
            value = (value & self.mask) >> self.shift
        if self.divide != 1:
            value //= self.divide
        return value if self.modulo is None else value % self.modulo


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a value elsewhere in the data is, or is not, one of some."""

    read: Reader
    values: frozenset[int]
    wanted: bool

    def holds(self, data: bytes) -> bool:
        """Tell whether the condition holds; where there is no value, it does not."""
        value = self.read(data)
        return value is not None and (value in self.values) is self.wanted


@dataclass(frozen=True, slots=True)
class FieldFormat:
    """Where the value of one field stands, and what is made of it."""

    name: str
    kind: Kind
    read: Reader
    when: Condition | None
    none: frozenset[int]
    mapped: Mapping[int, Value] | None
    constant: Value | None
    negative: Condition | None
    factor: float
    per: Reader | None
    add: float
    digits: int | None
    low: float
    high: float

    def value(self, data: bytes) -> Value | None:
        """Return the value, or None where there is none; raises NotThis."""
        if self.when is not None and not self.when.holds(data):
            return None
        if self.constant is not None:
            return self.constant
        raw = self.read(data)
        if raw is None or raw in self.none:
            return None
        if self.mapped is not None:
            return self.mapped.get(raw) if isinstance(raw, int) else None
        if isinstance(raw, str):
            return raw or None
        return bool(raw) if self.kind is Kind.BOOLEAN else self._number(data, raw)

    def _number(self, data: bytes, raw: float) -> Value | None:
        if self.negative is not None and self.negative.holds(data):
            raw = -raw
        value = raw * self.factor
        if self.per is not None:
            per = self.per(data)
            if isinstance(per, str) or not per:
                return None
            value /= per
        value += self.add
        if isinstance(value, float):
            if (cleaned := clean_float(value)) is None:
                return None
            value = cleaned if self.digits is None else round(cleaned, self.digits)
        if not self.low <= value <= self.high:
            raise NotThis
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which data are of a format: whose they are, and what is always so in them.

    `company_ids` is None where any will do; the data then begin with the company ID as it
    is on the air.
    """

    company_ids: frozenset[int] | None
    service_data: frozenset[str]
    lengths: frozenset[int]
    min_length: int
    constants: tuple[tuple[int, int, frozenset[bytes]], ...]
    names: re.Pattern[str] | None
    name_prefixes: tuple[str, ...]
    service_uuids: frozenset[str]
    address_at: int | None
    address_reversed_at: int | None

    def fits(self, advertisement: Advertisement, data: bytes) -> bool:
        """Tell whether these data of an advertisement are of this format."""
        if len(data) < self.min_length or (
            self.lengths and len(data) not in self.lengths
        ):
            return False
        for start, end, values in self.constants:
            if data[start:end] not in values:
                return False
        if self.names is not None and not self.names.match(advertisement.name or ""):
            return False
        if self.service_uuids and self.service_uuids.isdisjoint(
            advertisement.service_uuids
        ):
            return False
        if (at := self.address_at) is not None:
            return data[at : at + 6] == _address(advertisement)
        if (at := self.address_reversed_at) is not None:
            return data[at : at + 6] == _address(advertisement)[::-1]
        return True


@dataclass(frozen=True, slots=True)
class Format:
    """One fixed layout.

    `fields` tells of each field that the format gives; one that is not known elsewhere has
    the unit and the device class that its entry says.
    """

    name: str
    model: str
    manufacturer: str | None
    fields: tuple[Field, ...]
    match: Match
    _layout: tuple[FieldFormat, ...] = field(repr=False)

    def decode(self, advertisement: Advertisement, data: bytes) -> Decoded | None:
        """Return what data say, or None if they are not of this format or say nothing."""
        if not self.match.fits(advertisement, data):
            return None
        values: dict[str, Value] = {}
        events: dict[str, str] = {}
        try:
            for layout in self._layout:
                if layout.name in values or (value := layout.value(data)) is None:
                    continue
                if layout.kind is Kind.EVENT:
                    events[layout.name] = str(value)
                else:
                    values[layout.name] = value
        except NotThis:
            return None
        if not values and not events:
            return None
        return Decoded(self.model, self.manufacturer, values, events)


class Formats:
    """Formats, found by what an advertisement carries; of several that fit, the first."""

    def __init__(self, formats: Iterable[Format]) -> None:
        self._companies: dict[int, list[tuple[int, Format]]] = {}
        self._services: dict[str, list[tuple[int, Format]]] = {}
        self._names: dict[str, list[tuple[int, Format]]] = {}
        for ranked in enumerate(formats):
            match = ranked[1].match
            for company_id in match.company_ids or ():
                self._companies.setdefault(company_id, []).append(ranked)
            for uuid in match.service_data:
                self._services.setdefault(uuid, []).append(ranked)
            if match.company_ids is None:
                for prefix in match.name_prefixes:
                    self._names.setdefault(prefix, []).append(ranked)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._names})

    def find(self, advertisement: Advertisement) -> Format | None:
        """Return the format that an advertisement is of, or None."""
        found = self._found(advertisement)
        return found[0][1] if found else None

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what all formats that an advertisement is of make of it, or None.

        A device can carry several: what the stack merged, or a value in the manufacturer
        data and another in service data. The model is that of the first.
        """
        if not (found := self._found(advertisement)):
            return None
        first = found[0][2]
        if len(found) == 1:
            return first
        values: dict[str, Value] = {}
        events: dict[str, str] = {}
        for _, _, decoded in reversed(found):
            values.update(decoded.values)
            events.update(decoded.events)
        return Decoded(first.model, first.manufacturer, values, events)

    def _found(self, advertisement: Advertisement) -> list[tuple[int, Format, Decoded]]:
        found: list[tuple[int, Format, Decoded]] = []
        for data, candidates in self._candidates(advertisement):
            for rank, candidate in candidates:
                if decoded := candidate.decode(advertisement, data):
                    found.append((rank, candidate, decoded))
                    break
        if len(found) > 1:
            found.sort(key=lambda entry: entry[0])
        return found

    def _candidates(
        self, advertisement: Advertisement
    ) -> Iterator[tuple[bytes, list[tuple[int, Format]]]]:
        manufacturer_data = advertisement.manufacturer_data
        for company_id, data in manufacturer_data.items():
            if candidates := self._companies.get(company_id):
                yield data, candidates
        for uuid, data in advertisement.service_data.items():
            if candidates := self._services.get(uuid):
                yield data, candidates
        if self._prefix_lengths and manufacturer_data:
            name = advertisement.name or ""
            for length in self._prefix_lengths:
                if candidates := self._names.get(name[:length]):
                    for company_id, data in manufacturer_data.items():
                        yield company_id.to_bytes(2, "little") + data, candidates


class FormatDecoder:
    """Decodes what is in the table."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it is of no format."""
        return self._formats.decode(advertisement)


def _address(advertisement: Advertisement) -> bytes:
    """Return the address in the order in which it is written; macOS has none."""
    try:
        return bytes.fromhex(advertisement.address.replace(":", ""))
    except ValueError:
        return b""
