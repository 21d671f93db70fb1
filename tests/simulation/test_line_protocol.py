"""The reader of lines agrees with a real InfluxDB, where that takes what all take."""

import aiohttp
from hypothesis import given, strategies as st
import pytest

from scripts.simulation.line_protocol import (
    LineError,
    Point,
    Unsigned,
    parse_line,
    split_lines,
)
from scripts.simulation.metrics_stores import InfluxDb1

GOOD = {
    "m f=1": Point("m", {}, {"f": 1.0}, None),
    "m,t=v f=1 7": Point("m", {"t": "v"}, {"f": 1.0}, 7),
    "m,a=1,b=2 f=1,g=2i -7": Point("m", {"a": "1", "b": "2"}, {"f": 1.0, "g": 2}, -7),
    "m   f=-1.5e3   7  ": Point("m", {}, {"f": -1500.0}, 7),
    "m f=t,g=False": Point("m", {}, {"f": True, "g": False}, None),
    "m f=-9223372036854775808i": Point("m", {}, {"f": -(2**63)}, None),
    'm f="a b,c=d"': Point("m", {}, {"f": "a b,c=d"}, None),
    'm f="a\nb"': Point("m", {}, {"f": "a\nb"}, None),
    'm f="a\\"b\\\\c\\d"': Point("m", {}, {"f": 'a"b\\c\\d'}, None),
    'm f=""': Point("m", {}, {"f": ""}, None),
    'm f="ö €"': Point("m", {}, {"f": "ö €"}, None),
    "m\\ n\\,o=p f=1": Point("m n,o=p", {}, {"f": 1.0}, None),
    "m,t\\ u\\,v\\=w=x\\ y\\,z\\=0 f=1": Point(
        "m", {"t u,v=w": "x y,z=0"}, {"f": 1.0}, None
    ),
    "m f\\ g\\,h\\=i=1": Point("m", {}, {"f g,h=i": 1.0}, None),
    'm"n,t"u=v"w f"g=1': Point('m"n', {'t"u': 'v"w'}, {'f"g': 1.0}, None),
    "m\\n,t=C:\\d f=1": Point("m\\n", {"t": "C:\\d"}, {"f": 1.0}, None),
}
BAD = [
    *("m", "m ", ",t=v f=1", "m,t f=1", "m,t= f=1", "m,=v f=1", "m,t=v=w f=1"),
    *("m,t=1,t=2 f=1", "m, f=1", "m,t=v", "m,time=v f=1", "m f", "m f=", "m f=,g=1"),
    *("m =1", "m f=1,", "m f=1,=2", "m f=NaN", "m f=nan", "m f=inf", "m f=1.5i"),
    *("m f=9223372036854775808i", "m f=1x", "m f=--1", "m f=tru", "m f=yes"),
    *('m f="a', "m f=a", "m f=1 7.5", "m f=1 7s", "m f=1 now", "m f=1 7 8"),
    *("m f=1e999", "m f=1 99999999999999999999", "m time=1"),
]
# Version 2 takes them and version 3 not, or in another sense.
STRICTER = [
    *("m f=.5", "m f=1.", "m,t=a\tb f=1", "m,t=a\\\\ f=1", "m\\\\n f=1", "m f=-5u"),
    *(
        "m,_field=v f=1",
        'm f="a"b',
        f'm f="{"x" * 65_537}"',
        "m f=18446744073709551616u",
    ),
]


@pytest.mark.parametrize(("line", "point"), GOOD.items())
def test_good_lines(line: str, point: Point) -> None:
    """Test what a line says."""
    assert [parse_line(found) for found in split_lines(line)] == [point]
    kinds = [type(value) for value in parse_line(line).fields.values()]
    assert kinds == [type(value) for value in point.fields.values()]


@pytest.mark.parametrize("line", [*BAD, *STRICTER])
def test_bad_lines(line: str) -> None:
    """Test lines that are refused."""
    (found,) = split_lines(line)
    with pytest.raises(LineError):
        parse_line(found)


def test_unsigned() -> None:
    """Test the largest unsigned integer."""
    value = parse_line("m f=18446744073709551615u").fields["f"]
    assert isinstance(value, Unsigned)
    assert value == 2**64 - 1


def test_lines() -> None:
    """Test what is between lines."""
    text = '# a comment\n\nm f=1\n  \n  m,t=\\ "v f="a\nb" 7\nm f=2\n'
    assert list(split_lines(text)) == ["m f=1", 'm,t=\\ "v f="a\nb" 7', "m f=2"]


NAMES = st.text(
    st.characters(exclude_categories=["C"], exclude_characters="\\"), min_size=1
).filter(lambda name: name != "time" and not name.startswith(("_", "#")))


def escape(text: str, characters: str) -> str:
    """Return a name with its special characters escaped."""
    return "".join(f"\\{c}" if c in characters else c for c in text)


@given(
    measurement=NAMES,
    tags=st.dictionaries(NAMES, NAMES, max_size=3),
    key=NAMES,
    value=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_names(measurement: str, tags: dict[str, str], key: str, value: str) -> None:
    """Test that whatever is escaped as the format says is read as it was."""
    written = value.replace("\\", "\\\\").replace('"', '\\"')
    series = escape(measurement, ", ") + "".join(
        f",{escape(name, ',= ')}={escape(text, ',= ')}" for name, text in tags.items()
    )
    line = f'{series} {escape(key, ",= ")}="{written}" 7'
    (found,) = split_lines(f"{line}\n{line}".removeprefix(f"{line}\n"))
    assert parse_line(found) == Point(measurement, tags, {key: value}, 7)


async def test_like_influx() -> None:
    """Test that a real InfluxDB takes what is good, reads it alike, and refuses the rest."""
    async with InfluxDb1() as store, aiohttp.ClientSession() as session:

        async def write(line: str) -> int:
            url = f"{store.url}/write?db=ble"
            async with session.post(url, data=line.encode()) as response:
                return response.status

        for line, point in GOOD.items():
            await store.query("DROP DATABASE ble")
            await store.query("CREATE DATABASE ble")
            assert await write(line) == 204, line
            (measurement,) = await store.query("SHOW MEASUREMENTS", "ble")
            assert measurement["name"] == point.measurement
            (row,) = await store.query("SELECT * FROM /.*/", "ble")
            if point.time is None:
                row.pop("time")
            assert row == {
                **point.tags,
                **point.fields,
                **({} if point.time is None else {"time": point.time}),
            }
        for line in BAD:
            assert await write(line) == 400, line
