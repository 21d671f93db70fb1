"""Formats: real frames, the language that they are described in, and what is wrong in it.

`format_frames.jsonl` has one frame a line, with its origin and the values that are known to
be in it. Frames and values are facts; the descriptions are our own. Where the origin
divides acceleration in mg by 10,000, or has a name or a unit that `fields.py` has not, the
line has been put right.
"""

from collections.abc import Mapping
import contextlib
from functools import cache
import json
from pathlib import Path
import tomllib
from typing import Any

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.ble_bridge.decoders import Decoders, format_table, formats
from custom_components.ble_bridge.decoders.fields import Kind, known_field
from custom_components.ble_bridge.decoders.format_table import (
    FormatError,
    load_builtin,
    parse_formats,
)
from custom_components.ble_bridge.decoders.formats import FormatDecoder, Formats
from custom_components.ble_bridge.decoders.model import Decoded, DecodeError
from custom_components.ble_bridge.decoders.sources import SOURCES
from custom_components.ble_bridge.records import Advertisement
from tests.layouts.samples import advertisement

FRAMES = Path(__file__).with_name("format_frames.jsonl")
ADDRESS = "AA:BB:CC:DD:EE:FF"
UUID = "0000{}-0000-1000-8000-00805f9b34fb"
# Two decimals on the air, of which an origin may have cut one, or a library the second.
TOLERANCE = 0.051

# What of the corpus neither the table nor a library decodes, and why.
CORPUS = "theengs/decoder@d6fdd205 tests/BLE/test_ble.cpp "
HOLD = "bthome-ble knows 0x80 for a button that is held, not Shelly's 0xfe"
QINGPING = "qingping-ble reads it as another value"
RUUVI = "ruuvitag-ble leaves out the sequence number and the transmit power"
INODE = "made up: the unit stands in bits 14 and 15 of the constant, not in bit 12"
MISSING = {
    CORPUS + origin: reason
    for reason, origins in {
        HOLD: (
            "test_name_mac_uuid_mfgsvcdata[12]",
            *(f"test_uuid_name_svcdata[{n}]" for n in (25, *range(31, 77, 5))),
        ),
        QINGPING: tuple(f"test_uuid[{n}]" for n in range(71, 77)),
        RUUVI: tuple(f"test_mac_mfgdata[{n}]" for n in (15, 16, 17)),
        INODE: ("test_mfgdata[21]", "test_mfgdata[22]"),
        "what is left when pvvx is decrypted, never on the air": (
            "test_uuid_name_svcdata[78]",
        ),
    }.items()
    for origin in origins
}


@cache
def lines() -> tuple[dict[str, Any], ...]:
    """Return the frames."""
    text = FRAMES.read_text(encoding="utf-8")
    return tuple(map(json.loads, text.splitlines()))


def full(uuid: str) -> str:
    """Return a service UUID as the stack gives it."""
    return UUID.format(uuid) if len(uuid) == 4 else uuid


def packet(line: Mapping[str, Any]) -> Advertisement:
    """Return a line's advertisement."""
    address = line.get("address", ADDRESS)
    return advertisement(
        name=line.get("name") or address,
        address=address,
        manufacturer_data={
            int.from_bytes(bytes.fromhex(key), "little"): bytes.fromhex(value)
            for key, value in line.get("manufacturer_data", {}).items()
        },
        service_data={
            full(uuid): bytes.fromhex(value)
            for uuid, value in line.get("service_data", {}).items()
        },
        service_uuids=[full(uuid) for uuid in line.get("service_uuids", ())],
    )


def is_right(decoded: Decoded | None, expected: Mapping[str, Any]) -> bool:
    """Tell whether all that is known to be in a frame was found."""
    if decoded is None:
        return False
    found = {**decoded.values, **decoded.events}
    return all(
        name in found
        and (
            found[name] == pytest.approx(value, abs=TOLERANCE, rel=5e-5)
            if isinstance(value, float | int) and not isinstance(value, bool)
            else found[name] == value
        )
        for name, value in expected.items()
    )


@cache
def builtin() -> Formats:
    """Return the table."""
    return Formats(load_builtin())


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    """Return the libraries, the table and the beacons, all loaded."""
    decoders = Decoders(lambda _name: None)
    for name in SOURCES:
        decoders.load(name)
    return decoders


def by_all(decoders: Decoders, line: Mapping[str, Any]) -> Decoded | None:
    """Return what a frame says to whichever of them takes it."""
    try:
        return decoders.device().decode(packet(line))
    except DecodeError:
        return None


def test_frames(decoders: Decoders) -> None:
    """What is known to be in a frame is found, by the table or by a library."""
    known = [line for line in lines() if line["expect"]]
    wrong = {
        line["origin"]
        for line in known
        if not is_right(by_all(decoders, line), line["expect"])
    }
    assert wrong == set(MISSING)


def test_frames_that_the_table_has() -> None:
    """The table alone gets as many frames right as it did, and says nothing of the rest."""
    decoder = FormatDecoder(builtin())
    right = silent = 0
    for line in lines():
        decoded = decoder.decode(packet(line))
        if decoded is None:
            silent += 1
        elif line["expect"] and is_right(decoded, line["expect"]):
            right += 1
        else:
            assert line["origin"] in MISSING, (line, decoded)
    assert right == 183
    assert right + silent == len(lines()) - 2


def test_frames_of_others_are_left_alone() -> None:
    """A tracker, a phone or an encrypted frame is of no format."""
    for line in lines():
        if not line["expect"]:
            assert builtin().find(packet(line)) is None, line


def test_builtin_table() -> None:
    """Each format has its own name, says what it is, and gives fields that are known."""
    table = load_builtin()
    assert (
        len({entry.name for entry in table}) == len(table) <= format_table.MAX_FORMATS
    )
    for entry in table:
        for field in entry.fields:
            assert (found := known_field(field.name)), (entry.name, field.name)
            assert found[0] is field


@given(
    data=st.binary(max_size=40),
    entry=st.sampled_from(load_builtin()),
    name=st.sampled_from(["", "P T EN", "GVH5055", "RDL52832"]),
)
@settings(max_examples=400)
def test_arbitrary_bytes(data: bytes, entry: formats.Format, name: str) -> None:
    """No bytes make a format raise, and what it gives fits its fields."""
    constants = entry.match.constants
    for start, end, values in constants:  # Get past what would stop most bytes
        data = data[:start].ljust(start, b"\0") + min(values) + data[end:]
    heard = advertisement(
        name=name,
        address=ADDRESS,
        manufacturer_data=dict.fromkeys(entry.match.company_ids or {0x04CF}, data),
        service_data=dict.fromkeys(entry.match.service_data, data),
    )
    entry.decode(heard, data)
    decoded = builtin().decode(heard)
    for field, value in (decoded.values if decoded else {}).items():
        found = known_field(field)
        assert found
        assert isinstance(value, bool) is (found[0].kind is Kind.BOOLEAN)


def entry(fields: str, match: str = "company_id = 1", more: str = "") -> str:
    """Return a table of one format."""
    return f"""
        [[format]]
        name = "mine"
        model = "Mine"
        match = {{ {match} }}
        {more}
        [format.fields]
        {fields}
    """


def decode(
    fields: str, data: str, match: str = "company_id = 1", **heard: Any
) -> dict[str, Any] | None:
    """Return what a tiny entry makes of data of company 1."""
    heard = {"manufacturer_data": {1: bytes.fromhex(data)}, **heard}
    decoded = Formats(parse_formats(entry(fields, match))).decode(
        advertisement(**heard)
    )
    return None if decoded is None else {**decoded.values, **decoded.events}


@pytest.mark.parametrize(
    ("description", "data", "value"),
    [
        ("{ at = 1 }", "00ff", 255),
        ('{ at = 0, type = "i8" }', "ff", -1),
        ('{ at = 0, type = "u16" }', "0102", 0x201),
        ('{ at = 0, type = "u16be" }', "0102", 0x102),
        ('{ at = 0, type = "i24" }', "60fcff", -928),
        ('{ at = 0, type = "i32be" }', "fffffffe", -2),
        ('{ at = 0, type = "f32" }', "56d70842", 34.21029),
        ('{ at = 0, type = "f16be" }', "3e00", 1.5),
        ('{ at = 0, type = "f32" }', "0000c07f", None),
        ('{ at = 0, type = "f32" }', "0000c0", None),
        ('{ at = 0, type = "f64", factor = 1e12 }', "ffffffffffffef7f", None),
        ('{ at = 1, type = "u16" }', "0102", None),
        ("{ at = 0, factor = 0.1 }", "eb", 23.5),
        ("{ at = 0, factor = 0.1, add = -40 }", "eb", -16.5),
        ("{ at = 0, factor = 0.333, round = 1 }", "0a", 3.3),
        ("{ at = 0, mask = 0x70 }", "5f", 5),
        ("{ at = 0, none = 0xff }", "ff", None),
        ("{ at = 0, none = [0, 0xff] }", "00", None),
        ("{ at = 0, max = 100 }", "65", None),
        ("{ at = 0, min = 2 }", "01", None),
        ('{ at = 0, type = "u24be", divide = 1000, factor = 0.1 }', "0418ee", 26.8),
        ('{ at = 0, type = "u24be", modulo = 1000, factor = 0.1 }', "0418ee", 52.6),
        ("{ at = 0, negative = { at = 1, bit = 7 } }", "0580", -5),
        ("{ at = 0, negative = { at = 1, bit = 7 } }", "0500", 5),
        ("{ at = 0, factor = 60, per = { at = 1 } }", "0a04", 150),
        ("{ at = 0, per = { at = 1 } }", "0a00", None),
        ("{ parts = [{ at = 0 }, { at = 1, factor = 0.01 }] }", "1a1e", 26.3),
        ("{ parts = [{ at = 0 }, { at = 9 }] }", "1a1e", None),
        ("{ at = 0, when = { at = 1 } }", "0701", 7),
        ("{ at = 0, when = { at = 1 } }", "0700", None),
        ("{ at = 0, when = { at = 1, is = [2, 3] } }", "0703", 7),
        ("{ at = 0, when = { at = 1, not = 3 } }", "0703", None),
        ("{ at = 0, when = { at = 9 } }", "0703", None),
        ("{ at = 0, map = { 1 = 100, 0x2 = 10.5 } }", "02", 10.5),
        ("{ at = 0, map = { 1 = 100 } }", "02", None),
        ("[{ at = 0, when = { at = 1 } }, { value = 3 }]", "0500", 3),
    ],
)
def test_numbers(description: str, data: str, value: float | None) -> None:
    """A number is read where it stands and put into the unit of its field."""
    expected = None if value is None else {"temperature": value}
    assert decode(f"temperature = {description}", data) == expected


@pytest.mark.parametrize(
    ("description", "data", "expected"),
    [
        ("door = { at = 0, bit = 2 }", "04", {"door": True}),
        ("door = { at = 0, map = { 0 = true, 1 = false } }", "01", {"door": False}),
        ("door = { value = true }", "00", {"door": True}),
        ('button = { at = 0, map = { 1 = "press" } }', "01", {"button": "press"}),
        ('button = { at = 0, map = { 1 = "press" } }', "00", None),
        ('state = { at = 0, type = "text" }', "6f6e00", {"state": "on"}),
        ('state = { at = 0, type = "text" }', "07", None),
        ('raw = { at = 1, type = "hex", length = 2 }', "00abcd", {"raw": "abcd"}),
        ('raw = { at = 1, type = "hex", length = 3 }', "00abcd", None),
        (
            'beacon_uuid = { at = 0, type = "uuid" }',
            "426c7565436861726d426561636f6e73",
            {"beacon_uuid": "426c7565-4368-6172-6d42-6561636f6e73"},
        ),
        ('beacon_uuid = { at = 0, type = "uuid" }', "42", None),
        ("my_own = { at = 0, bit = 0 }", "01", {"my_own": True}),
        ('my_own = { at = 0, map = { 1 = "a" } }', "01", {"my_own": "a"}),
    ],
)
def test_other_kinds(
    description: str, data: str, expected: dict[str, Any] | None
) -> None:
    """Fields are also booleans, texts and events, known or of the user's own."""
    assert decode(description, data) == expected


@pytest.mark.parametrize(
    ("match", "data", "fits"),
    [
        ("length = 2", "0102", True),
        ("length = [2, 3]", "01", False),
        ("min_length = 2", "01", False),
        ('bytes = { 1 = "02" }', "0102", True),
        ('bytes = { 1 = ["03", "04"] }', "0102", False),
        ('name = "Kit*"', "01", True),
        ('name = ["Kit", "K?tchen 1"]', "01", True),
        ('name = "kit*"', "01", False),
        ('service_uuid = "fff0"', "01", True),
        ('service_uuid = "fff1"', "01", False),
        ("address_at = 1", "01aabbccddeeff", True),
        ("address_reversed_at = 0", "ffeeddccbbaa", True),
        ("address_at = 0", "ffeeddccbbaa", False),
    ],
)
def test_match(match: str, data: str, *, fits: bool) -> None:
    """Data that are not of a format say nothing."""
    decoded = decode(
        "packet_id = { at = 0 }",
        data,
        f"company_id = [1, 2], {match}",
        name="Kitchen 1",
        address=ADDRESS,
        service_uuids=[UUID.format("fff0")],
    )
    assert (decoded is not None) is fits


def test_any_company_id() -> None:
    """A product that has values in place of a company ID is known by its name."""
    fields = 'temperature = { at = 0, type = "i16", factor = 0.01 }'
    match = 'company_id = "any", name = "sps*", length = 3'
    heard = {"manufacturer_data": {0x0A66: b"\x03"}}
    assert decode(fields, "", match, name="sps-1", **heard) == {"temperature": 26.62}
    assert decode(fields, "", match, name="tps", **heard) is None


def test_several_formats_of_a_device() -> None:
    """Values in several parts of an advertisement are one reading; the first entry names it."""
    table = entry("temperature = { at = 0 }\nbattery = { at = 1 }", "company_id = 2")
    other = entry("battery = { at = 0 }", 'service_data = "180f"', 'manufacturer = "B"')
    found = Formats(parse_formats(table + other.replace('"mine"', '"other"')))
    heard = advertisement(
        service_data={UUID.format("180f"): b"\x63"}, manufacturer_data={2: b"\x15\x62"}
    )
    assert found.decode(heard) == Decoded(
        "Mine", None, {"temperature": 21, "battery": 98}
    )
    assert (first := found.find(heard)) is not None
    assert first.name == "mine"


def test_first_format_is_taken() -> None:
    """An entry of the user's own goes before one that is built in."""
    own = parse_formats(entry("battery = { at = 8 }", 'service_data = "181a"'))
    data = bytes.fromhex("a4c138d5d49801453e510b7b62")
    heard = advertisement(service_data={UUID.format("181a"): data})
    assert Formats((*own, *load_builtin())).decode(heard) == Decoded(
        "Mine", None, {"battery": 62}
    )


def test_own_fields_have_the_unit_of_their_entry() -> None:
    """What is not known elsewhere is described in the entry."""
    (own,) = parse_formats(
        entry('depth = { at = 0, unit = "m", device_class = "distance" }')
    )
    assert [(f.name, f.kind, f.unit, f.device_class) for f in own.fields] == [
        ("depth", Kind.NUMBER, "m", "distance")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[format", "this is not TOML: "),
        ("format = 1", "format: write a table, or a list of tables"),
        ("other = 1", "other: there is no such key here; remove it"),
        ("[[format]]", "format 1.name: give the format a name"),
        ('[[format]]\nname = "A b"', "format 1.name: write it with a to z"),
        ('[[format]]\nname = "a"', "a.model: say what it is"),
        (entry("x = { at = 0 }", ""), "mine.match.company_id: give a company_id or"),
        (entry("x = { at = 0 }", "company_id = -1"), "company_id: write a number from"),
        (entry("x = { at = 0 }", 'company_id = "any"'), '"any" needs a name'),
        (entry("x = { at = 0 }", 'service_data = "18"'), 'a UUID, such as "181a"'),
        (entry("x = { at = 0 }", "service_data = 1"), "service_data: write a text"),
        (
            entry("x = { at = 0 }", "company_id = 1, bytes = { a = 1 }"),
            "bytes.a: write",
        ),
        (
            entry("x = { at = 0 }", 'company_id = 1, bytes = { 0 = "5" }'),
            "mine.match.bytes.0: write the bytes in hex",
        ),
        (
            entry("x = { at = 0 }", 'company_id = 1, bytes = { 0 = ["5a", "5a5a"] }'),
            "mine.match.bytes.0: give bytes, and of one length",
        ),
        (
            entry("x = { at = 0 }", "company_id = 1, long = 2"),
            "mine.match.long: there is",
        ),
        (
            '[[format]]\nname = "a"\nmodel = "A"',
            "a.match: say whose data these are",
        ),
        ('[[format]]\nname = "a"\nmodel = "A\\u0007"', "a.model: leave out what"),
        (entry("x = { value = [] }"), "x.value: write a number, a text, true or false"),
        (
            entry('x = { at = 0, type = "hex", map = { 0 = "a" } }'),
            "x.map: a map needs a type",
        ),
        (
            entry('x = { at = 0, per = { at = 0, type = "hex" } }'),
            "x.per.type: write a type that is a number",
        ),
        (entry(""), "mine.fields: say which fields there are"),
        (entry("X = { at = 0 }"), "mine.fields.X: name a field with a to z"),
        (entry("temperature = { factor = 2 }"), "temperature.at: say at which byte"),
        (entry("temperature = 3"), "temperature: write a table, or a list"),
        (entry('temperature = { at = "x" }'), "at: write a whole number"),
        (entry("temperature = { at = true }"), "at: write a whole number"),
        (entry("temperature = { at = 256 }"), "at: write a number from 0 to 255"),
        (entry('temperature = { at = 0, type = "u7" }'), "write a type such as"),
        (
            entry('temperature = { at = 0, type = "hex" }'),
            "temperature is a number; wr",
        ),
        (
            entry('temperature = { at = 0, unit = "K" }'),
            "temperature has °C; use factor",
        ),
        (entry("temperature = { at = 0, factor = nan }"), "factor: write a number"),
        (entry("temperature = { at = 0, factor = 1e300 }"), "factor: write a number"),
        (entry("temperature = { at = 0, mask = 1, bit = 1 }"), "mask or bit, but not"),
        (entry("temperature = { at = 0, map = { a = 1 } }"), "map.a: write numbers"),
        (entry('temperature = { at = 0, map = { 0 = "a" } }'), "map: temperature is a"),
        (entry("temperature = { value = true }"), "value: temperature is a number"),
        (entry("temperature = { at = 0, map = {} }"), "map: give 1 to 64 of these"),
        (entry("temperature = { at = 0, when = 1 }"), "when: write a table"),
        (entry("door = { at = 0, when = { is = 1 } }"), "when.at: say at which byte"),
        (
            entry("door = { at = 0, when = { at = 0, is = 1, not = 2 } }"),
            "write is or not",
        ),
        (entry("state = { at = 0 }"), "state is a text; give it a map"),
        (entry("button = { at = 0 }"), "button is an event; give it a map"),
        (entry("temperature = []"), "temperature: give 1 to 8 of these"),
        (entry("x = { at = 0 }") * 2, "mine: give each format a name of its own"),
        (
            "#" * (format_table.MAX_TEXT + 1),
            "the table may have 65536 characters at most",
        ),
        (
            entry("\n".join(f"x{n} = {{ at = 0 }}" for n in range(33))),
            "32 fields at most",
        ),
    ],
)
def test_errors(text: str, message: str) -> None:
    """What is wrong is said with the name of the entry, the key, and what to do."""
    with pytest.raises(FormatError) as raised:
        parse_formats(text)
    assert message in str(raised.value)


KEYS = st.sampled_from(
    (
        *("name", "model", "manufacturer", "match", "fields", "company_id", "bytes"),
        *("service_data", "length", "address_at", "at", "type", "mask", "bit", "none"),
        *("factor", "add", "round", "min", "max", "map", "when", "is", "not", "per"),
        *("parts", "negative", "value", "divide", "modulo", "unit", "device_class"),
        *("temperature", "door", "button", "own", "0"),
    )
)
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-5, 300),
        st.floats(),
        st.sampled_from(
            ["any", "u8", "i16be", "hex", "text", "f32", "181a", "5a", "mine"]
        ),
        st.text(max_size=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "name": st.just("mine"),
        "model": st.just("Mine"),
        "match": st.just({"company_id": 1})
        | st.dictionaries(KEYS, VALUES, min_size=1, max_size=3),
        "fields": st.dictionaries(
            st.sampled_from(["temperature", "door", "button", "own", "state"]),
            st.dictionaries(KEYS, VALUES, max_size=4).map(lambda d: {"at": 0, **d}),
            max_size=3,
        ),
    },
    optional={"more": VALUES},
)


@given(
    content=st.fixed_dictionaries({"format": st.lists(ENTRIES, max_size=2) | VALUES})
)
@settings(max_examples=500)
def test_arbitrary_tables(content: dict[str, Any]) -> None:
    """No table makes the parser raise anything but FormatError, nor its formats anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda _text: content)
        try:
            table = parse_formats("")
        except FormatError:
            return
    for data in (b"", b"\0", b"\xff" * 40):
        Formats(table).decode(advertisement(manufacturer_data={1: data}))


@given(st.text())
def test_arbitrary_text(text: str) -> None:
    """No text makes the parser raise anything but FormatError."""
    with contextlib.suppress(FormatError):
        parse_formats(text)
