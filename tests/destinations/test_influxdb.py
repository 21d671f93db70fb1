"""Lines on their way to InfluxDB 1, 2 and 3, and to VictoriaMetrics."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
import pytest

from custom_components.ble_bridge.destinations import influxdb_outbox
from custom_components.ble_bridge.destinations.errors import LinesError, Problem
from custom_components.ble_bridge.destinations.influxdb_answers import (
    LONGEST_WAIT,
    retry_after,
)
from custom_components.ble_bridge.destinations.influxdb_connection import (
    InfluxApi,
    password_header,
)
from custom_components.ble_bridge.destinations.influxdb_lines import parse
from custom_components.ble_bridge.destinations.parcels import Outcome
from custom_components.ble_bridge.destinations.policy import Policy
from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.fake_influx import Break, FakeInflux, Fault
from scripts.simulation.influx_answers import Flavour
from scripts.simulation.metrics_stores import InfluxDb1, VictoriaMetrics

from .deliveries import async_until
from .influx import FLAVOURS, numbers, point, rig

pytestmark = pytest.mark.usefixtures("quick")

OF_DATABASE: dict[str, Any] = {"api": InfluxApi.V1, "place": {"db": "ble"}}


# --- batches ----------------------------------------------------------------------------


@pytest.mark.parametrize("gzip", [True, False])
@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_one_answer_for_all(flavour: Flavour, gzip: bool) -> None:
    """Records and signals go together, and one 204 acknowledges all of them."""
    async with FakeInflux(flavour) as server, rig(server.url, gzip=gzip) as store:
        parcels = [store.say(point(n)) for n in range(3)]
        store.advertise(point(n) for n in range(3, 6))
        await store.settle()
        assert numbers(server) == [*range(6)]
        assert {parcel.outcome for parcel in parcels} == {Outcome.ACKNOWLEDGED}
        assert store.tally.acknowledged == 3
        greeting, *writes = server.writes
        assert greeting.lines == ["ble_bridge,bridge=x online=true"]
        assert [write.status for write in writes] == [204]
        assert writes[0].headers.get("Content-Encoding") == ("gzip" if gzip else None)
        assert writes[0].parameters == {
            "org": "house",
            "bucket": "ble",
            "precision": "ns",
        }
        assert store.destination.outbox.bytes_sent == writes[0].sent_bytes
    assert server.writes[-1].lines == ["ble_bridge,bridge=x online=false"]


async def test_a_batch_is_full() -> None:
    """A batch goes at once when it has enough lines, or bytes, and else when it is time."""
    async with FakeInflux() as server:
        async with rig(server.url, batch_lines=100, batch_time=60) as store:
            store.advertise([point(0)])
            await store.settle()
            store.advertise(point(n) for n in range(1, 100))
            await asyncio.sleep(0.1)
            assert len(numbers(server)) == 1
            store.advertise(point(n) for n in range(100, 350))
            await async_until(lambda: len(numbers(server)) == 301)
            assert [len(write.lines) for write in server.writes] == [
                1,
                1,
                100,
                100,
                100,
            ]
            # The server has the last batch a moment before its answer is here
            await async_until(lambda: store.tally.acknowledged == 301)
            assert store.tally.waiting == 49
            for n in range(350, 401):
                store.say(point(n))
            await async_until(lambda: len(numbers(server)) == 401)
            # Who has a line published waits for the answer, and whoever flushes too.
            store.say(point(401))
            await asyncio.sleep(0.05)
            message = store.destination.message("", point(402))
            assert await store.destination.async_publish(message) == "acknowledged"
            store.say(point(403))
            assert await store.destination.outbox.async_flush(5)
            assert sorted(numbers(server)) == [*range(404)]
        async with rig(server.url, batch_bytes=1_000, batch_time=60) as store:
            store.say(point(1_000))
            await store.settle()
            server.writes.clear()
            store.advertise(point(n) for n in range(1_001, 1_101))
            await async_until(lambda: len(server.writes) > 3)
            assert {len(write.text) // 100 for write in server.writes} == {10}


async def test_time_between_batches() -> None:
    """What comes bit by bit is gathered."""
    async with FakeInflux() as server, rig(server.url, batch_time=0.3) as store:
        for n in range(60):
            store.advertise([point(n)])
            await asyncio.sleep(0.01)
        await store.settle()
        assert numbers(server) == [*range(60)]
        assert len(server.writes) <= 7


async def test_what_waited_comes_at_its_rate() -> None:
    """After an outage many batches follow each other soon, and signals do not wait."""
    async with FakeInflux() as server:
        await server.stop()
        delivery = {"drain_rate": 2000.0}
        async with rig(
            server.url, delivery=delivery, batch_time=30, connected=False
        ) as store:
            await async_until(lambda: store.problems)
            for n in range(1000):
                store.say(point(n))
            await server.start()
            await store.settle(10)
            assert numbers(server) == [*range(1000)]


@pytest.mark.parametrize("kind", [VictoriaMetrics, InfluxDb1])
async def test_real_stores(kind: type[VictoriaMetrics | InfluxDb1]) -> None:
    """Real stores take what is written, each in its way."""
    place = {} if kind is VictoriaMetrics else OF_DATABASE
    async with (
        kind() as server,
        rig(server.url, authorization=None, **place) as store,
    ):
        for n in range(50):
            store.say(point(n))
        store.advertise(point(n, f"rssi={-n}i", "ble_signal") for n in range(5000))
        await store.settle()
        assert store.tally.acknowledged == 5000
        if isinstance(server, VictoriaMetrics):
            (series,) = await server.export('{__name__="ble_number"}')
            assert sorted(series.values) == [*range(50)]
            (series,) = await server.export('{__name__="ble_signal_rssi"}')
            assert sorted(series.values) == [*range(-4999, 1)]
        else:
            rows = await server.query("SELECT * FROM ble", "ble")
            assert [row["number"] for row in rows] == [*range(50)]
            assert store.destination.protocol == "InfluxDB 1.6.7~rc0"


# --- what is not taken ------------------------------------------------------------------

# A whole number beyond 64 bits: it looks like a line, and no server takes it.
UNREADABLE = "number=9999999999999999999i"


@pytest.mark.parametrize("flavour", [*FLAVOURS, None])
async def test_lines_that_are_bad(flavour: Flavour | None) -> None:
    """Those that cannot be read are set aside, and all others arrive."""
    server: Any = InfluxDb1() if flavour is None else FakeInflux(flavour)
    place = OF_DATABASE | {"authorization": None} if flavour is None else {}
    bad = {3, 7, 8, 20, 39}
    async with server, rig(server.url, delivery={"max_tries": 1}, **place) as store:
        parcels = [
            store.say(point(n, UNREADABLE if n in bad else ""), device=str(n))
            for n in range(30)
        ]
        store.advertise(point(n, UNREADABLE if n in bad else "") for n in range(30, 40))
        await store.settle()
        for n, parcel in enumerate(parcels):
            expected = Outcome.REFUSED if n in bad else Outcome.ACKNOWLEDGED
            assert parcel.outcome is expected
        assert (store.tally.acknowledged, store.tally.refused) == (9, 1)
        assert store.destination.last_error is Problem.REJECTED
        assert len(store.destination.delivery.set_aside) == 4
        if flavour is None:
            rows = await server.query("SELECT * FROM ble", "ble")
            arrived = [row["number"] for row in rows]
        else:
            arrived = numbers(server)
        assert {*arrived} == {*range(40)} - bad
        assert store.is_up
        assert len(store.changes) == 1


@pytest.mark.parametrize("flavour", [*FLAVOURS, None])
async def test_a_field_of_another_type(flavour: Flavour | None) -> None:
    """The field is named until what was set aside is taken."""
    server: Any = InfluxDb1() if flavour is None else FakeInflux(flavour)
    place = OF_DATABASE | {"authorization": None} if flavour is None else {}
    async with (
        server,
        rig(server.url, delivery={"max_tries": 2}, batch_time=0.2, **place) as store,
    ):
        first = store.say(point(1, 'warm\\ field="yes"'), policy=Policy.DURABLE)
        await store.settle()
        assert first.outcome is Outcome.ACKNOWLEDGED
        clashing = [
            store.say(point(n, "warm\\ field=21.5"), device=str(n % 2))
            for n in range(2, 10)
        ]
        others = [store.say(point(n, "warm\\ field=1.0", "other")) for n in range(3)]
        taken = [store.say(point(n)) for n in range(10, 20)]
        await store.settle()
        assert {parcel.outcome for parcel in clashing} == {Outcome.REFUSED}
        assert {parcel.outcome for parcel in others + taken} == {Outcome.ACKNOWLEDGED}
        assert store.refusals[-1] == {Problem.FIELD_TYPE}
        assert store.destination.details == {
            Problem.FIELD_TYPE: {
                "field": "warm field",
                "measurement": "ble",
                "ours": "float",
                "theirs": "string",
            }
        }
        assert await store.destination.async_retry() is Problem.FIELD_TYPE
        # The user deletes the measurement, or a new shard begins.
        if flavour is None:
            await server.query("DROP MEASUREMENT ble", "ble")
        else:
            server._store._columns.clear()
        store.say(point(100, "warm\\ field=22.5"), device="0")
        await store.settle()
        assert store.refusals[-1] == {Problem.FIELD_TYPE}  # That of device 1
        store.say(point(101, "warm\\ field=22.5"), device="1")
        await store.settle()
        assert store.refusals[-1] == frozenset()
        assert store.destination.details == {}
        assert await store.destination.async_retry() is None
        assert {parcel.outcome for parcel in clashing} == {Outcome.ACKNOWLEDGED}


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_signal_of_another_type(flavour: Flavour) -> None:
    """Signals that clash are counted and named, too, until they are taken."""
    async with FakeInflux(flavour) as server, rig(server.url) as store:
        store.advertise([point(0, "rssi=-50.5", "ble_signal")])
        await store.settle()
        store.advertise(point(n, "rssi=-50i", "ble_signal") for n in range(1, 6))
        await store.settle()
        assert (store.tally.acknowledged, store.tally.refused) == (1, 5)
        assert store.refusals == [{Problem.FIELD_TYPE}]
        assert store.destination.details[Problem.FIELD_TYPE]["theirs"] == "float"
        server._store._columns.clear()
        store.advertise([point(7, "rssi=-50i", "ble_signal")])
        await store.settle()
        assert store.refusals == [{Problem.FIELD_TYPE}, frozenset()]


@pytest.mark.parametrize("flavour", [*FLAVOURS, None])
async def test_too_large(flavour: Flavour | None) -> None:
    """Batches are halved until they fit; a line that never does is refused at once."""
    limit = 2_000
    server: Any = (
        InfluxDb1(max_body_bytes=limit)
        if flavour is None
        else FakeInflux(flavour, max_body_bytes=limit)
    )
    place = OF_DATABASE | {"authorization": None} if flavour is None else {}
    async with server, rig(server.url, gzip=False, **place) as store:
        large = store.say(point(0, f'text="{"x" * limit}"'))
        small = [store.say(point(n)) for n in range(1, 200)]
        await store.settle()
        assert large.outcome is Outcome.REFUSED
        assert {parcel.outcome for parcel in small} == {Outcome.ACKNOWLEDGED}
        assert store.refusals[-1] == {Problem.TOO_LARGE}
        if flavour is None:
            return
        refused = sum(write.status == 413 for write in server.writes)
        store.advertise(point(n) for n in range(200, 400))
        await store.settle()
        # It is remembered how much fits.
        assert sum(write.status == 413 for write in server.writes) == refused
        assert numbers(server) == [*range(1, 400)]


# --- servers that want to be left alone -------------------------------------------------


def in_a_second() -> str:
    """Return a date as servers write it."""
    date = datetime.now(UTC) + timedelta(seconds=1.5)
    return format_datetime(date, usegmt=True)


@pytest.mark.parametrize(
    ("flavour", "status"),
    [
        (Flavour.V2, 429),
        (Flavour.V2, 503),
        *((Flavour.V3, status) for status in (408, 429, 502, 503, 504)),
    ],
)
async def test_wait(flavour: Flavour, status: int) -> None:
    """A batch is kept, and sent again when the server wants it; it stays connected."""
    problem = Problem.QUOTA_EXCEEDED if status == 429 else Problem.SERVER_UNAVAILABLE
    async with FakeInflux(flavour) as server, rig(server.url) as store:
        server.fail(Fault(status=status, retry_after=1), times=1)
        server.fail(Fault(status=status, retry_after="nonsense"), times=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        store.say(point(0))
        store.advertise([point(1)])
        await async_until(lambda: store.destination.last_error is problem)
        store.advertise([point(2)])
        store.say(point(3))
        assert store.is_up
        assert store.destination.outbox.waiting == 4
        await store.settle()
        assert loop.time() - began >= 1
        assert sorted(numbers(server)) == [*range(4)]
        assert store.changes == [True]
        assert store.tally.acknowledged == 2


async def test_wait_for_a_date() -> None:
    """A server may also say when."""
    async with FakeInflux() as server, rig(server.url) as store:
        server.fail(Fault(status=503, retry_after=in_a_second()), times=1)
        store.say(point(0))
        await store.settle()
        assert numbers(server) == [0]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("-5", 0),
        ("2.5", 2.5),
        ("inf", LONGEST_WAIT),
        ("99999999", LONGEST_WAIT),
        ("Wed, 21 Oct 2026 07:28:10 GMT", 10),
        ("Wed, 21 Oct 2026 07:28:10 -0000", 10),
        ("Wed, 21 Oct 2016 07:28:10 GMT", 0),
        ("Wed, 21 Oct 2036 07:28:10 GMT", LONGEST_WAIT),
    ],
)
def test_retry_after(header: str | None, wait: float | None) -> None:
    """What a server says is understood, and bounded."""
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert retry_after(header, now) == wait


async def test_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants to be left alone for long is away: records wait, signals are dropped."""
    monkeypatch.setattr(influxdb_outbox, "LONGEST_BLOCK", 0.3)
    async with FakeInflux() as server, rig(server.url) as store:
        server.fail(Fault(status=429, retry_after=1))
        parcel = store.say(point(0))
        store.advertise([point(1)])
        await async_until(lambda: not store.is_up)
        assert store.problems[-1] is Problem.QUOTA_EXCEEDED
        store.check()
        assert store.tally.away == 1
        asked = len(server.writes)
        server.mend()
        await asyncio.sleep(0.6)
        assert len(server.writes) == asked  # It was to be left alone
        await async_until(lambda: store.is_up)
        await store.settle()
        assert parcel.outcome is Outcome.ACKNOWLEDGED


async def test_bounds_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile is bounded, and what makes room is counted."""
    monkeypatch.setattr(
        "custom_components.ble_bridge.destinations.outbox.MAX_MESSAGES", 50
    )
    async with FakeInflux() as server, rig(server.url) as store:
        server.fail(Fault(status=503, retry_after=1), times=1)
        store.advertise([point(0)])
        await async_until(lambda: store.destination.last_error)
        store.advertise(point(n) for n in range(1, 200))
        assert store.tally.overflow == 149
        await store.settle()
        assert numbers(server) == [0, *range(150, 200)]


# --- faults -----------------------------------------------------------------------------


FAULTS = {
    "error": Fault(status=500),
    "hanging": Fault(hang=True),
    "before": Fault(broken=Break.BEFORE),
    "after": Fault(broken=Break.AFTER),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_faults(name: str, tmp_path: Path) -> None:
    """Records outlast what goes wrong; each is there once, as a resend is no other point."""
    async with (
        FakeInflux() as server,
        rig(
            server.url, path=tmp_path / "records.db", delivery={"publish_timeout": 0.3}
        ) as store,
    ):
        server.fail(FAULTS[name])
        parcels = [
            store.say(point(n), policy=Policy.DURABLE if n % 2 else Policy.BUFFER)
            for n in range(100)
        ]
        store.advertise(point(n) for n in range(100, 110))
        await async_until(lambda: len(store.changes) > 1)
        store.check()
        server.mend()
        await store.settle()
        assert {parcel.outcome for parcel in parcels} == {Outcome.ACKNOWLEDGED}
        assert {*range(100)} <= {*numbers(server)} <= {*range(110)}
        assert store.tally.away == 10


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(broken=Break.BEFORE)])
async def test_one_that_breaks_the_server(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line upon which the server fails every time is found, and holds up no other."""
    monkeypatch.setattr(
        "custom_components.ble_bridge.destinations.delivery._STEADY", 0.1
    )
    answer = FakeInflux._answer

    async with (
        FakeInflux() as server,
        rig(server.url, delivery={"max_tries": 2}) as store,
    ):

        def fail(request: Any, body: Any, status: Any) -> Any:
            if b"poison" in (body or b""):
                if fault.status is None:
                    request.transport.abort()
                status = 500
            return answer(server, request, body, status)

        monkeypatch.setattr(server, "_answer", fail)
        parcels = [
            store.say(point(n, 'text="poison"' if n == 13 else ""), device=str(n))
            for n in range(40)
        ]
        await store.settle(30)
        outcomes = {n: parcel.outcome for n, parcel in enumerate(parcels)}
        assert outcomes.pop(13) is Outcome.REFUSED
        assert {*outcomes.values()} == {Outcome.ACKNOWLEDGED}


@pytest.mark.parametrize("fault", ["freeze", "kill", "restart"])
@pytest.mark.parametrize("kind", [VictoriaMetrics, InfluxDb1])
async def test_real_faults(
    kind: type[VictoriaMetrics | InfluxDb1], fault: str, tmp_path: Path
) -> None:
    """A store that is frozen, killed or restarted gets each record."""
    place = {} if kind is VictoriaMetrics else OF_DATABASE
    async with (
        kind() as server,
        rig(
            server.url,
            authorization=None,
            path=tmp_path / "records.db",
            delivery={"publish_timeout": 0.5},
            **place,
        ) as store,
    ):

        async def say(begin: int, end: int) -> None:
            for n in range(begin, end):
                store.say(point(n), policy=Policy.DURABLE)
                store.advertise([point(n, "rssi=1i", "ble_signal")])
                await asyncio.sleep(0.002)

        await say(0, 50)
        saying = asyncio.create_task(say(50, 250))
        await asyncio.sleep(0.05)
        if fault == "freeze":
            server.freeze()
            await asyncio.sleep(0.8)
            server.thaw()
        elif fault == "kill":
            await server.kill()
            await asyncio.sleep(0.2)
            await server.start()
        else:
            await server.restart()
        await saying
        await async_until(lambda: store.is_up)
        await store.settle()
        store.check()
        if isinstance(server, VictoriaMetrics):
            (series,) = await server.export('{__name__="ble_number"}')
            arrived = {*series.values}
        else:
            rows = await server.query("SELECT * FROM ble", "ble")
            arrived = {row["number"] for row in rows}
            assert len(rows) == 250
        if isinstance(server, VictoriaMetrics) and fault == "kill":
            # It acknowledges what it has in memory, and loses that with the power.
            assert 249 in arrived
            return
        assert arrived == {*range(250)}
        assert store.tallies[RecordKind.ALERT].acknowledged == 250


async def test_nobody_there_at_the_end() -> None:
    """The last words take no longer than they may."""
    async with FakeInflux() as server, rig(server.url) as store:
        server.fail(Fault(hang=True))
        store.destination.write_last(b"ble_scanner,scanner=a online=false")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await store.stop()
        assert loop.time() - began < 5
        store.destination.write_last(b"x")
        store.destination.write(b"x")


async def test_a_place_that_goes(tmp_path: Path) -> None:
    """A bucket that is removed, or a token that is taken back, is told; records wait."""
    async with (
        FakeInflux() as server,
        rig(server.url, path=tmp_path / "records.db") as store,
    ):
        server._store._bucket = "another"
        parcel = store.say(point(0), policy=Policy.DURABLE)
        await async_until(lambda: not store.is_up)
        assert store.last_problem() is Problem.BUCKET_MISSING
        server._store._bucket = "ble"
        await async_until(lambda: store.is_up)
        assert not store.last_problem()
        server._store._token = "new"
        store.say(point(1), policy=Policy.DURABLE)
        await async_until(lambda: not store.is_up)
        assert store.last_problem() is Problem.INVALID_AUTH
        server._store._token = "token"
        await store.settle()
        assert parcel.outcome is Outcome.ACKNOWLEDGED
        assert numbers(server) == [0, 1]


async def test_no_redirect_is_followed() -> None:
    """A token is shown to nobody else."""
    async with FakeInflux() as other:

        async def redirect(_: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(f"{other.url}/api/v2/write")

        application = web.Application()
        application.router.add_post("/api/v2/write", redirect)
        async with (
            TestServer(application, host="127.0.0.1") as server,
            rig(str(server.make_url("/")), connected=False) as store,
        ):
            await async_until(lambda: store.problems)
            assert store.problems[0] is Problem.NOT_INFLUXDB
        assert not other.writes


async def test_idle_connection() -> None:
    """A connection that the server closed meanwhile is no loss."""
    async with FakeInflux() as server, rig(server.url) as store:
        server.fail(Fault(broken=Break.AFTER), times=1)
        store.say(point(0))
        await store.settle()
        assert store.changes == [True]
        assert set(numbers(server)) == {0}


async def test_wait_before_the_first_line() -> None:
    """Who wants to be left alone at once is asked again when it wants."""
    async with FakeInflux() as server:
        server.fail(Fault(status=429, retry_after=1), times=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with rig(server.url) as store:
            assert loop.time() - began >= 1
            assert store.problems == [Problem.QUOTA_EXCEEDED, None]


async def test_a_status_of_another_type() -> None:
    """That the bridge's own line is not taken is no reason not to write the others."""
    async with FakeInflux() as server:
        server._store.write(
            "/api/v2/write",
            {"org": "house", "bucket": "ble"},
            "Token token",
            b'ble_bridge online="yes"',
        )
        async with rig(server.url) as store:
            store.say(point(1))
            await store.settle()
            assert numbers(server) == [1]


async def test_an_endless_answer() -> None:
    """No more is read of an answer than could be understood."""

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65_536)
        return response

    application = web.Application()
    application.router.add_post("/api/v2/write", chat)
    async with (
        TestServer(application, host="127.0.0.1") as server,
        rig(str(server.make_url("/")), connected=False) as store,
    ):
        await async_until(lambda: store.problems)
        assert store.problems[0] is Problem.SERVER_UNAVAILABLE


async def test_certificates_that_cannot_be_used() -> None:
    """What was stored may be damaged."""
    async with rig("https://127.0.0.1:1", ca="damaged", connected=False) as store:
        await async_until(lambda: store.problems)
        assert store.problems[0] is Problem.TLS_FAILED


async def test_our_own_mistake(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is in the log, and ends nothing for good."""
    async with FakeInflux() as server, rig(server.url) as store:
        with monkeypatch.context() as patched:
            patched.setattr(influxdb_outbox, "judge", lambda _: 1 / 0)
            store.say(point(1))
            await async_until(lambda: not store.is_up)
        assert store.last_problem() is Problem.UNEXPECTED
        assert "ZeroDivisionError" in caplog.text
        await store.settle()
        assert {*numbers(server)} == {1}


# --- lines of the user's ----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"room temperature=21.5",
        rb"my\ room,a\,b=c\=d some\ field=1i,other=\"x\" 1",
        b'room text="a \\"b\\", c=d",flag=t,n=18446744073709551615u,f=-1.5e-3 -5',
        b"room x=.5,y=5.,z=+1i,w=FALSE",
    ],
)
def test_lines(line: bytes) -> None:
    """What InfluxDB takes is a line."""
    if b"other" in line:
        line = line.replace(b'\\"', b'"')
    assert parse(line).kinds


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"room ",
        b"room,tag temperature=1",
        b"room,=x temperature=1",
        b"room temperature=",
        b"room temperature=warm",
        b"room temperature=21,5",
        b'room text="open',
        b"room temperature=1 soon",
        b"room temperature=1 99999999999999999999",
        b"room temperature=1,",
        b"room temp\0=1",
        b"room temperature=\xff",
    ],
)
def test_no_lines(line: bytes) -> None:
    """What InfluxDB would refuse is told at once."""
    with pytest.raises(LinesError):
        parse(line)


async def test_payloads_of_the_user() -> None:
    """Several lines are one message; comments and empty lines are left out."""
    async with FakeInflux() as server, rig(server.url) as store:
        payload = b"# mine\nroom a=1 1\r\n\n  room a=2 2\n"
        message = store.destination.message("ignored", payload, 1, retain=True)
        assert await store.destination.async_publish(message) == "acknowledged"
        assert [found.fields["a"] for found in server.find("room")] == [1, 2]
        for bad in (b"", b"# nothing", b"room a=1 1\nno line"):
            with pytest.raises(LinesError):
                store.destination.message("", bad)


async def test_passwords() -> None:
    """A user of InfluxDB 1 is shown in the header, never in the URL."""
    async with InfluxDb1(users={"böse": "p:ä"}) as server:
        header = password_header("böse", "p:ä")
        async with rig(server.url, authorization=header, **OF_DATABASE) as store:
            store.say(point(1))
            await store.settle()
            assert await server.query("SELECT * FROM ble", "ble")
