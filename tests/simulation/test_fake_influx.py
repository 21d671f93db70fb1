"""The small InfluxDB answers as the documentation of the real ones says."""

import asyncio
import gzip
import json
from pathlib import Path
import time
from typing import Any, NamedTuple

import aiohttp
import pytest

from scripts.simulation.chaos.certificates import Authority
from scripts.simulation.fake_influx import Break, FakeInflux, Fault
from scripts.simulation.influx_answers import V2_PATH, V3_PATH, Flavour, StoredPoint
from scripts.simulation.line_protocol import Value
from scripts.simulation.processes import SimulationError

V2_QUERY = {"org": "house", "bucket": "ble", "precision": "ns"}
V3_QUERY = {"db": "ble", "precision": "nanosecond"}
TOKEN = "Token token"
TEMPERATURE = "iox::column_type::field::float"
TEXT = "iox::column_type::field::string"
# The second line clashes with the first, the third lacks a value.
CLASHING = 'm,t=v temp=96 1\nm,t=v temp="hi" 2\nm,t=v temp=97 3'
UNREADABLE = "m,t=v temp=96 1\nm,t=v temp= 2\nm,t=v temp=97 3"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        """Return the text, which is JSON."""
        return json.loads(self.text)


async def write(
    server: FakeInflux,
    lines: str | bytes,
    *,
    path: str = V2_PATH,
    query: dict[str, str] | None = None,
    token: str | None = TOKEN,
    encoding: str | None = None,
    seconds: float = 10,
) -> Answer:
    """Write lines as anybody would, and return the answer."""
    headers = {} if token is None else {"Authorization": token}
    if encoding:
        headers["Content-Encoding"] = encoding
    if query is None:
        query = V3_QUERY if path == V3_PATH else V2_QUERY
    data = lines.encode() if isinstance(lines, str) else lines
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(seconds)) as session,
        session.post(
            f"{server.url}{path}", data=data, params=query, headers=headers, ssl=False
        ) as response,
    ):
        return Answer(response.status, response.headers, await response.text())


async def test_accepted() -> None:
    """Test points of all types, gzipped and in another unit."""
    async with FakeInflux() as server:
        line = 'ble,device=a temperature=21.5,count=3i,ok=t,text="x",big=7u 5'
        query = V2_QUERY | {"precision": "ms"}
        packed = gzip.compress(line.encode())
        answer = await write(server, packed, query=query, encoding="gzip")
        assert (answer.status, answer.text) == (204, "")
        fields: dict[str, Value] = {
            "temperature": 21.5,
            "count": 3,
            "ok": True,
            "text": "x",
            "big": 7,
        }
        point = StoredPoint("ble", "ble", {"device": "a"}, fields, 5_000_000)
        assert server.points == server.find("ble", device="a") == [point]
        assert server.find("ble", device="b") == server.find("other") == []
        (request,) = server.writes
        assert (request.path, request.parameters) == (V2_PATH, query)
        assert (request.status, request.sent_bytes) == (204, len(packed))
        assert request.lines == [line]
        assert "Authorization" not in request.headers
        before = time.time_ns()
        assert (await write(server, "ble temperature=1")).status == 204
        assert before <= server.points[1].time <= time.time_ns()
        await server.wait_points(2)
        with pytest.raises(SimulationError, match="2 points came instead of 3"):
            await server.wait_points(3, timeout=0.05)


@pytest.mark.parametrize(
    ("query", "token", "status", "code", "message"),
    [
        (V2_QUERY, None, 401, "unauthorized", "unauthorized access"),
        (V2_QUERY, "Token other", 401, "unauthorized", "unauthorized access"),
        (V2_QUERY, "Token ", 401, "unauthorized", "unauthorized access"),
        (V2_QUERY, "Basic token", 401, "unauthorized", "unauthorized access"),
        (
            V2_QUERY,
            "Token reads",
            403,
            "forbidden",
            "insufficient permissions for write",
        ),
        (
            V2_QUERY | {"org": "x"},
            TOKEN,
            404,
            "not found",
            'organization name "x" not found',
        ),
        (
            V2_QUERY | {"bucket": "x"},
            TOKEN,
            404,
            "not found",
            'bucket "x" not found',
        ),
        (
            V2_QUERY | {"precision": "m"},
            TOKEN,
            400,
            "invalid",
            "invalid precision; valid precision units are ns, us, ms, and s",
        ),
    ],
)
@pytest.mark.parametrize("flavour", [Flavour.V2, Flavour.CLOUD])
async def test_refused_by_v2(
    flavour: Flavour,
    query: dict[str, str],
    token: str | None,
    status: int,
    code: str,
    message: str,
) -> None:
    """Test who and what is refused as a whole."""
    async with FakeInflux(flavour, read_only_token="reads") as server:
        answer = await write(server, "m f=1", query=query, token=token)
        assert answer.status == status
        assert answer.json == {"code": code, "message": message}
        assert answer.headers["X-Platform-Error-Code"] == code
        assert not server.points
        assert (await write(server, "m f=1", token="Bearer token")).status == 204


async def test_bad_lines_of_v2() -> None:
    """Test that an unreadable line spoils all, and a clash only itself."""
    async with FakeInflux() as server:
        answer = await write(server, UNREADABLE)
        assert answer.status == 400
        assert answer.json == {
            "code": "invalid",
            "message": "unable to parse 'm,t=v temp= 2': missing field value",
        }
        assert not server.points
        answer = await write(server, CLASHING)
        assert answer.status == 422
        assert answer.json == {
            "code": "unprocessable entity",
            "message": "failure writing points to database: partial write: field type"
            ' conflict: input field "temp" on measurement "m" is type string, already'
            " exists as type float dropped=1 for database: 9f282d63c7d3a5c0 for"
            " retention policy: autogen",
        }
        assert [point.time for point in server.points] == [1, 3]
        assert (await write(server, "m temp=1i 4")).status == 422
        assert (await write(server, "n temp=1i 4")).status == 204
        assert (await write(server, "")).json["message"] == "writing requires points"


async def test_bad_lines_of_the_cloud() -> None:
    """Test that the good lines are written, and the first bad one is named."""
    async with FakeInflux(Flavour.CLOUD) as server:
        answer = await write(server, f"{CLASHING}\nm,t=v temp= 4")
        assert answer.status == 400
        assert answer.json == {
            "code": "invalid",
            "line": 2,
            "message": "partial write has occurred, errors encountered on line(s):\n"
            f"error writing line 2 (1-based): Unable to insert {TEXT} type into column"
            f" temp with type {TEMPERATURE}\n"
            "error parsing line 4 (1-based): missing field value",
        }
        assert [point.time for point in server.points] == [1, 3]
        answer = await write(server, "m 1")
        assert answer.json["message"].startswith("no data written, errors")


async def test_bad_lines_of_v3() -> None:
    """Test that the good lines are written, and all bad ones named; or none written."""
    async with FakeInflux(Flavour.V3) as server:
        answer = await write(server, f"# x\n{CLASHING}\n\nm,t=v 4", path=V3_PATH)
        assert answer.status == 400
        clash = (
            f"invalid column type for column 'temp', expected {TEMPERATURE}, got {TEXT}"
        )
        assert answer.json == {
            "error": "partial write of line protocol occurred",
            "data": [
                {
                    "original_line": "m,t=v temp=hi 2",
                    "line_number": 2,
                    "error_message": clash,
                },
                {
                    "original_line": "m,t=v 4",
                    "line_number": 4,
                    "error_message": "invalid field format",
                },
            ],
        }
        assert [point.time for point in server.points] == [1, 3]
        query = V3_QUERY | {"db": "new", "accept_partial": "false"}
        answer = await write(server, CLASHING, path=V3_PATH, query=query)
        assert answer.status == 400
        assert answer.json == {
            "error": "parsing failed for write_lp endpoint",
            "data": {
                "original_line": "m,t=v temp=hi 2",
                "line_number": 2,
                "error_message": clash,
            },
        }
        assert len(server.points) == 2
        # Nor has it kept the type of what it did not write.
        answer = await write(server, "m temp=1i", path=V3_PATH, query=query)
        assert answer.status == 204
        answer = await write(server, "m f=1,f=2", path=V3_PATH)
        assert "multiple instances of 'f'" in answer.text
        answer = await write(server, "m,temp=a f=1", path=V3_PATH)
        assert "got iox::column_type::tag" in answer.text


async def test_v3_where_v2_is_spoken() -> None:
    """Test that version 3 then writes all or nothing, and names no line."""
    async with FakeInflux(Flavour.V3) as server:
        for lines in (CLASHING, UNREADABLE):
            answer = await write(server, lines)
            assert answer.status == 400
            assert answer.json["code"] == "invalid"
            assert answer.json["message"].startswith("line protocol parse failed: ")
            assert not server.points
        assert (await write(server, "m temp=1i 4")).status == 204
        answer = await write(server, b"no gzip", encoding="gzip")
        assert (answer.status, answer.json["code"]) == (400, "invalid")


async def test_refused_by_v3() -> None:
    """Test who and what is refused as a whole."""
    async with FakeInflux(Flavour.V3, max_body_bytes=100) as server:
        for path in (V2_PATH, V3_PATH):
            answer = await write(server, "m f=1", path=path, token=None)
            assert answer.status == 401
            assert answer.json == {"error": "the request was not authenticated"}
            answer = await write(server, "m f=1", path=path, token="token")
            assert answer.status == 400
            assert answer.json["error"].startswith("Authorization header was malformed")
        answer = await write(server, "m f=1", path=V3_PATH, query={})
        assert answer == (400, answer.headers, "missing query parameter 'db'")
        packed = gzip.compress(b"m f=1\n" * 20)
        assert len(packed) < 100
        answer = await write(server, packed, path=V3_PATH, encoding="gzip")
        assert answer == (413, answer.headers, "max request size (100 bytes) exceeded")
        for when in (7, 7_000_000_000, 7_000_000_000_000, 7_000_000_000_000_000):
            query = {"db": "any"}
            await write(server, f"m f=1 {when}", path=V3_PATH, query=query)
        assert [point.time for point in server.points] == [
            *(7_000_000_000, 7_000_000_000_000_000, 7_000_000_000_000_000),
            7_000_000_000_000_000,
        ]


@pytest.mark.parametrize("flavour", [Flavour.V2, Flavour.CLOUD])
async def test_too_large(flavour: Flavour) -> None:
    """Test a body that is too large, and one that is not what it says."""
    async with FakeInflux(flavour, max_body_bytes=100) as server:
        answer = await write(server, "m f=1\n" * 20)
        assert answer.status == 413
        if flavour is Flavour.V2:
            assert answer.json == {
                "code": "request too large",
                "message": "unable to read data: points batch is too large",
            }
        else:
            assert answer.headers["Content-Type"].startswith("text/html")
        answer = await write(server, b"no gzip", encoding="gzip")
        assert (answer.status, answer.json["code"]) == (500, "internal error")


@pytest.mark.parametrize("flavour", Flavour)
async def test_who_it_is(flavour: Flavour) -> None:
    """Test what tells the versions from each other."""
    async with FakeInflux(flavour) as server, aiohttp.ClientSession() as session:
        v3_status = 204 if flavour is Flavour.V3 else 404
        assert (await write(server, "m f=1", path=V3_PATH)).status == v3_status
        statuses = {}
        for path in ("/ping", "/health"):
            for token in ("", TOKEN):
                headers = {"Authorization": token} if token else {}
                async with session.get(server.url + path, headers=headers) as response:
                    statuses[path, bool(token)] = response.status
                    version = response.headers.get("X-Influxdb-Version")
        assert version == {"v2": "v2.8.0", "v3": "3.9.6", "cloud": None}[flavour]
        assert list(statuses.values()) == (
            [401, 200, 401, 200] if flavour is Flavour.V3 else [204, 204, 200, 200]
        )


@pytest.mark.parametrize("flavour", Flavour)
async def test_overloaded(flavour: Flavour) -> None:
    """Test that it says when to come again, and then takes it."""
    async with FakeInflux(flavour) as server:
        server.fail(Fault(status=429, retry_after=2), times=1)
        server.fail(Fault(status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), 1)
        server.fail(Fault(status=503), 1)
        answers = [await write(server, "m f=1") for _ in range(4)]
        assert [answer.status for answer in answers] == [429, 503, 503, 204]
        assert [answer.headers.get("Retry-After") for answer in answers] == [
            *("2", "Wed, 21 Oct 2026 07:28:00 GMT", None, None)
        ]
        if flavour is not Flavour.V3:
            codes = [answer.json["code"] for answer in answers[:2]]
            assert codes == ["too many requests", "unavailable"]
        assert [write.status for write in server.writes] == [429, 503, 503, 204]
        assert len(server.points) == 1


async def test_slow() -> None:
    """Test that an answer is late, all the time until it is mended."""
    async with FakeInflux() as server:
        server.fail(Fault(delay=0.2))
        for _ in range(2):
            before = time.monotonic()
            assert (await write(server, "m f=1")).status == 204
            assert time.monotonic() - before >= 0.2
        server.fail(Fault(delay=60))
        server.mend()
        assert (await write(server, "m f=1")).status == 204


async def test_hang() -> None:
    """Test that no answer comes, that mending ends it, and that it can be stopped."""
    async with FakeInflux() as server:
        server.fail(Fault(hang=True))
        with pytest.raises(TimeoutError):
            await write(server, "m f=1", seconds=0.2)
        waiting = asyncio.create_task(write(server, "m f=2"))
        async with asyncio.timeout(5):
            while len(server.writes) < 2:
                await asyncio.sleep(0.01)
        server.mend()
        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert not server.points
        assert (await write(server, "m f=1")).status == 204
        server.fail(Fault(hang=True))
        waiting = asyncio.create_task(write(server, "m f=2"))
        async with asyncio.timeout(5):
            while len(server.writes) < 4:
                await asyncio.sleep(0.01)
        await server.stop()
        with pytest.raises(aiohttp.ClientError):
            await waiting


@pytest.mark.parametrize(("broken", "written"), [(Break.BEFORE, 0), (Break.AFTER, 1)])
async def test_break(broken: Break, written: int) -> None:
    """Test a connection that ends before or after something is written."""
    async with FakeInflux() as server:
        server.fail(Fault(broken=broken), times=1)
        with pytest.raises(aiohttp.ClientError):
            await write(server, "m f=1" + " " * 1_000_000)
        assert len(server.points) == written
        assert [request.status for request in server.writes] == [None]
        assert (await write(server, "m f=1")).status == 204


async def test_restart() -> None:
    """Test that it can be away for a while, on the same port."""
    async with FakeInflux() as server:
        await write(server, "m f=1")
        with pytest.raises(SimulationError, match="in use"):
            await FakeInflux(port=server.port).start()
        await server.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await write(server, "m f=1")
        await server.start()
        await write(server, "m f=1")
        await server.restart()
        assert len(server.points) == 2


async def test_tls(tmp_path: Path) -> None:
    """Test a server that speaks TLS."""
    files = tmp_path / "server.pem", tmp_path / "server.key"
    Authority("an authority").issue("localhost", *files)
    async with FakeInflux(certificate=files[0], key=files[1]) as server:
        assert server.url.startswith("https://")
        assert (await write(server, "m f=1")).status == 204
