"""The table of formats: TOML, read, checked and compiled.

The language is described in `docs/formats.md`. What is wrong in an entry is told with where
it stands and what to do.
"""

from collections.abc import Mapping
import fnmatch
from functools import partial
import math
from pathlib import Path
import re
import struct
import tomllib
from typing import Final
from uuid import UUID

from ..filters import parse_service_uuid
from ..records import Value
from .fields import Field, Kind, known_field
from .formats import Condition, FieldFormat, Format, Integer, Match, Reader

BUILTIN: Final = Path(__file__).with_name("formats.toml")
MAX_TEXT: Final = 65_536
MAX_FORMATS: Final = 250
MAX_FIELDS: Final = 32
MAX_LIST: Final = 64
MAX_STRING: Final = 64
MAX_DATA: Final = 255  # The most that one part of a packet holds (Core specification)
MAX_NUMBER: Final = 1e12
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_]*")
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]*")
_INTEGER: Final = re.compile(r"([ui])(8|16|24|32|40|48|64)(be)?")
_FLOAT: Final = re.compile(r"f(16|32|64)(be)?")
_WIDTHS: Final = {"16": "e", "32": "f", "64": "d"}
_TYPES: Final = (
    'write a type such as "u8", "i16", "u24be", "f32", "hex", "text" or "uuid"'
)
_WILDCARDS: Final = re.compile(r"[*?\[]")

_KINDS: Final = {
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.TEXT: "a text",
    Kind.EVENT: "an event",
}


class FormatError(ValueError):
    """An entry that cannot be used: where in it, and what to do."""

    def __init__(self, where: str, advice: str) -> None:
        super().__init__(f"{where}: {advice}" if where else advice)
        self.where = where
        self.advice = advice


def load_builtin() -> tuple[Format, ...]:
    """Return the formats that come with the integration; reads a file."""
    return parse_formats(BUILTIN.read_text(encoding="utf-8"))


def parse_formats(text: str) -> tuple[Format, ...]:
    """Return the formats of a table in TOML; raises FormatError."""
    if len(text) > MAX_TEXT:
        raise FormatError("", f"the table may have {MAX_TEXT} characters at most")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise FormatError("", f"this is not TOML: {err}") from err
    table = _Table("", content)
    formats = tuple(
        _parse_format(entry) for entry in table.tables("format", MAX_FORMATS)
    )
    table.done()
    seen: set[str] = set()
    for entry in formats:
        if entry.name in seen:
            raise FormatError(entry.name, "give each format a name of its own")
        seen.add(entry.name)
    return formats


class _Table:
    """A TOML table of which each key is taken once, and checked; what is left is wrong."""

    def __init__(self, where: str, content: Mapping[str, object]) -> None:
        self.where = where
        self._left = dict(content)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def wrong(self, key: str, advice: str) -> FormatError:
        """Return the error of a key."""
        return FormatError(f"{self.where}.{key}" if self.where else key, advice)

    def done(self) -> None:
        """Raise FormatError if there is a key that nothing asked for."""
        for key in self._left:
            raise self.wrong(key, "there is no such key here; remove it")

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """Take a text, if there is one."""
        if (value := self._left.pop(key, None)) is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= MAX_STRING:
            raise self.wrong(key, f'write a text of 1 to {MAX_STRING} letters in ""')
        if not value.isprintable():
            raise self.wrong(key, "leave out what cannot be printed")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.wrong(key, "write it with a to z, 0 to 9 and _ alone")
        return value

    def is_text(self, key: str, text: str) -> bool:
        """Take a text if it is this one, and tell whether it was."""
        if self._left.get(key) != text:
            return False
        del self._left[key]
        return True

    def plain(self, key: str) -> float | str | bool | None:
        """Take a number, a text, true or false, if there is one."""
        value = self._left.get(key)
        if isinstance(value, bool):
            del self._left[key]
            return value
        if value is None or isinstance(value, str):
            return self.text(key)
        if isinstance(value, int | float):
            return self.number(key, 0)
        raise self.wrong(key, "write a number, a text, true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a text, or a list of them."""
        return tuple(
            text
            for value in self._list(key)
            if (text := _Table(self.where, {key: value}).text(key)) is not None
        )

    def number(self, key: str, default: float) -> float:
        """Take a number."""
        value = self._left.pop(key, default)
        if value is default:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not -MAX_NUMBER <= value <= MAX_NUMBER
        ):
            raise self.wrong(key, "write a number")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Take a whole number, if there is one."""
        if (value := self._left.pop(key, None)) is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "write a whole number, such as 3 or 0x1f")
        if not low <= value <= high:
            raise self.wrong(key, f"write a number from {low} to {high}")
        return value

    def integers(self, key: str, low: int, high: int) -> frozenset[int]:
        """Take a whole number, or a list of them."""
        return frozenset(
            number
            for value in self._list(key)
            if (number := _Table(self.where, {key: value}).integer(key, low, high))
            is not None
        )

    def table(self, key: str) -> _Table | None:
        """Take a table, if there is one."""
        if (value := self._left.pop(key, None)) is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, "write a table: { key = value }")
        return _Table(f"{self.where}.{key}" if self.where else key, value)

    def tables(self, key: str, most: int) -> list[_Table]:
        """Take a list of tables; one alone is a list of one."""
        tables: list[_Table] = []
        for number, value in enumerate(self._list(key, most), 1):
            if not isinstance(value, dict):
                raise self.wrong(key, "write a table, or a list of tables")
            where = f"{self.where}.{key}" if self.where else f"{key} {number}"
            tables.append(_Table(where, value))
        return tables

    def items(self) -> list[tuple[str, object]]:
        """Take all that is left."""
        items, self._left = list(self._left.items()), {}
        return items

    def _list(self, key: str, most: int = MAX_LIST) -> list[object]:
        if (value := self._left.pop(key, None)) is None:
            return []
        values = value if isinstance(value, list) else [value]
        if not 0 < len(values) <= most:
            raise self.wrong(key, f"give 1 to {most} of these")
        return values


def _parse_format(table: _Table) -> Format:
    if (name := table.text("name", _NAME)) is None:
        raise table.wrong("name", 'give the format a name: name = "my_sensor"')
    table.where = name
    model = table.text("model")
    manufacturer = table.text("manufacturer")
    if model is None:
        raise table.wrong("model", 'say what it is: model = "Weather station"')
    if (match := table.table("match")) is None:
        raise table.wrong("match", 'say whose data these are: service_data = "181a"')
    parsed_match = _parse_match(match)
    if (fields := table.table("fields")) is None or not (entries := fields.items()):
        raise table.wrong("fields", "say which fields there are")
    table.done()
    if len(entries) > MAX_FIELDS:
        raise table.wrong("fields", f"give {MAX_FIELDS} fields at most")
    described: list[Field] = []
    layouts: list[FieldFormat] = []
    for key, value in entries:
        if not _FIELD.fullmatch(key) or len(key) > MAX_STRING:
            raise fields.wrong(key, "name a field with a to z, 0 to 9 and _")
        alternatives = _Table(fields.where, {key: value}).tables(key, 8)
        of_field = [_parse_field(key, alternative) for alternative in alternatives]
        described.append(of_field[0][0])
        layouts += [layout for _, layout in of_field]
    return Format(
        name, model, manufacturer, tuple(described), parsed_match, tuple(layouts)
    )


def _parse_match(table: _Table) -> Match:
    company_ids: frozenset[int] | None = frozenset()
    if table.is_text("company_id", "any"):
        company_ids = None
    elif "company_id" in table:
        company_ids = table.integers("company_id", 0, 0xFFFF)
    service_data = _uuids(table, "service_data")
    if company_ids is not None and not company_ids and not service_data:
        raise table.wrong("company_id", "give a company_id or service_data")
    names = table.texts("name")
    prefixes = tuple(_WILDCARDS.split(name)[0] for name in names)
    if company_ids is None and (service_data or not names or not all(prefixes)):
        raise table.wrong(
            "company_id",
            '"any" needs a name that begins with a letter, and stands alone',
        )
    constants = []
    for key, value in (table.table("bytes") or _Table("", {})).items():
        constants.append(_constants(table, key, value))
    match = Match(
        company_ids=company_ids,
        service_data=service_data,
        lengths=table.integers("length", 1, MAX_DATA),
        min_length=table.integer("min_length", 1, MAX_DATA) or 1,
        constants=tuple(constants),
        names=re.compile("|".join(map(fnmatch.translate, names))) if names else None,
        name_prefixes=prefixes,
        service_uuids=_uuids(table, "service_uuid"),
        address_at=table.integer("address_at", 0, MAX_DATA),
        address_reversed_at=table.integer("address_reversed_at", 0, MAX_DATA),
    )
    table.done()
    return match


def _constants(
    table: _Table, key: str, value: object
) -> tuple[int, int, frozenset[bytes]]:
    where = _Table(f"{table.where}.bytes", {key: value})
    if not key.isascii() or not key.isdecimal() or len(key) > 3:
        raise where.wrong(
            key, 'write where the bytes stand and what they are: 0 = "5a"'
        )
    texts = where.texts(key)
    try:
        values = frozenset(map(bytes.fromhex, texts))
    except ValueError as err:
        raise where.wrong(key, 'write the bytes in hex, such as "5a01"') from err
    lengths = {len(constant) for constant in values}
    if len(lengths) != 1 or 0 in lengths:
        raise where.wrong(key, "give bytes, and of one length where there are several")
    return int(key), int(key) + lengths.pop(), values


def _uuids(table: _Table, key: str) -> frozenset[str]:
    texts = table.texts(key)
    try:
        return frozenset(map(parse_service_uuid, texts))
    except ValueError as err:
        raise table.wrong(key, 'write a UUID, such as "181a"') from err


def _parse_field(name: str, table: _Table) -> tuple[Field, FieldFormat]:
    unit, device_class = table.text("unit"), table.text("device_class", _FIELD)
    kind = known[0].kind if (known := known_field(name)) else None
    if known and (unit or device_class):
        raise table.wrong(
            "unit" if unit else "device_class",
            f"{name} has {known[0].unit or 'no unit'}; use factor and add to get there",
        )
    if kind is None and "bit" in table:
        kind = Kind.BOOLEAN
    constant, mapped = table.plain("value"), _mapped(table)
    given: list[Value] = [*(mapped or {}).values()]
    if constant is not None:
        given.append(constant)
        read: Reader = _nothing
        texts = False
    else:
        read, texts = _parse_parts(table)
    if kind is None:
        kind = _kind_of(given[0] if given else "" if texts else 0)
    for value in given:
        if _kind_of(value) is not (Kind.TEXT if kind is Kind.EVENT else kind):
            raise table.wrong("map" if mapped else "value", f"{name} is {_KINDS[kind]}")
    if mapped and texts:
        raise table.wrong("map", "a map needs a type that is a number")
    if not given and texts is not (kind in (Kind.TEXT, Kind.EVENT)):
        raise table.wrong(
            "type",
            f"{name} is {_KINDS[kind]}; "
            + ("write a type that is a number" if texts else "give it a map"),
        )
    layout = FieldFormat(
        name,
        kind,
        read,
        when=_condition(table, "when"),
        none=table.integers("none", -(1 << 63), (1 << 64) - 1),
        mapped=mapped,
        constant=constant,
        negative=_condition(table, "negative"),
        factor=table.number("factor", 1),
        per=_number_at(per) if (per := table.table("per")) else None,
        add=table.number("add", 0),
        digits=table.integer("round", 0, 9),
        low=table.number("min", -math.inf),
        high=table.number("max", math.inf),
    )
    table.done()
    state_class = "measurement" if kind is Kind.NUMBER else None
    return (
        known[0] if known else Field(name, kind, unit, device_class, state_class)
    ), layout


def _nothing(_: bytes) -> None:
    return None


def _kind_of(value: Value) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOLEAN
    return Kind.TEXT if isinstance(value, str) else Kind.NUMBER


def _mapped(table: _Table) -> Mapping[int, Value] | None:
    if (entries := table.table("map")) is None:
        return None
    mapped: dict[int, Value] = {}
    for key, value in entries.items():
        try:
            number = int(key, 0)
        except ValueError as err:
            raise entries.wrong(key, "write numbers for keys: 0 = false") from err
        if (plain := _Table(entries.where, {key: value}).plain(key)) is not None:
            mapped[number] = plain
    if not 0 < len(mapped) <= MAX_LIST:
        raise table.wrong("map", f"give 1 to {MAX_LIST} of these")
    return mapped


def _parse_parts(table: _Table) -> tuple[Reader, bool]:
    """Return what reads a value or the sum of its parts, and whether that is a text."""
    if "parts" not in table:
        return _parse_reader(table)
    readers: list[tuple[Reader, float]] = []
    for part in table.tables("parts", 8):
        readers.append((_number_at(part, done=False), part.number("factor", 1)))
        part.done()
    return partial(_sum, tuple(readers)), False


def _sum(parts: tuple[tuple[Reader, float], ...], data: bytes) -> float | None:
    total = 0.0
    for read, factor in parts:
        value = read(data)
        if value is None or isinstance(value, str):
            return None
        total += value * factor
    return total


def _condition(table: _Table, key: str) -> Condition | None:
    if (condition := table.table(key)) is None:
        return None
    read = _number_at(condition, done=False)
    wanted = "is" in condition
    if wanted and "not" in condition:
        raise condition.wrong("not", "write is or not, but not both")
    values = condition.integers("is" if wanted else "not", -(1 << 63), (1 << 64) - 1)
    condition.done()
    # Without either, any value but 0 will do.
    return Condition(read, values or frozenset({0}), wanted)


def _number_at(table: _Table, *, done: bool = True) -> Reader:
    read, is_text = _parse_reader(table)
    if is_text:
        raise table.wrong("type", "write a type that is a number")
    if done:
        table.done()
    return read


def _parse_reader(table: _Table) -> tuple[Reader, bool]:
    """Return what reads a value where it stands, and whether it is a text."""
    if (at := table.integer("at", 0, MAX_DATA)) is None:
        raise table.wrong("at", "say at which byte the value stands, the first is 0")
    kind = table.text("type") or "u8"
    if kind in ("hex", "text"):
        length = table.integer("length", 1, MAX_DATA)
        return partial(_hex if kind == "hex" else _text, at, length), True
    if kind == "uuid":
        return partial(_uuid, at), True
    if found := _FLOAT.fullmatch(kind):
        layout = struct.Struct((">" if found[2] else "<") + _WIDTHS[found[1]])
        return partial(_float, layout, at), False
    if (found := _INTEGER.fullmatch(kind)) is None:
        raise table.wrong("type", _TYPES)
    size = int(found[2])
    mask, bit = table.integer("mask", 1, (1 << size) - 1), None
    if (bit := table.integer("bit", 0, size - 1)) is not None:
        if mask is not None:
            raise table.wrong("bit", "write mask or bit, but not both")
        mask = 1 << bit
    shift = (mask & -mask).bit_length() - 1 if mask else 0
    divide = table.integer("divide", 1, 1 << 62)
    modulo = table.integer("modulo", 2, 1 << 62)
    end = at + size // 8
    big, signed = found[3] is not None, found[1] == "i"
    return Integer(at, end, big, signed, mask, shift, divide or 1, modulo), False


def _float(layout: struct.Struct, at: int, data: bytes) -> float | None:
    if len(data) < at + layout.size:
        return None
    (value,) = layout.unpack_from(data, at)
    return float(value) if math.isfinite(value) else None


def _hex(at: int, length: int | None, data: bytes) -> str | None:
    end = len(data) if length is None else at + length
    return data[at:end].hex() if len(data) >= end else None


def _text(at: int, length: int | None, data: bytes) -> str | None:
    end = len(data) if length is None else at + length
    text = data[at:end].decode("utf-8", "replace").strip("\0 ")
    return text if text.isprintable() else None


def _uuid(at: int, data: bytes) -> str | None:
    return str(UUID(bytes=data[at : at + 16])) if len(data) >= at + 16 else None
