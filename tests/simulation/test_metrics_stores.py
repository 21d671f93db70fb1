"""The stores that other tests rely on: what they take, and how they fail."""

import gzip
import os
from pathlib import Path
import time

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
import pytest

from scripts.simulation.chaos.certificates import Authority
from scripts.simulation.metrics_stores import InfluxDb1, Sample, VictoriaMetrics
from scripts.simulation.processes import SimulationError, is_port_free
from scripts.simulation.prometheus import Prometheus
from scripts.simulation.servers import HttpServer, basic_auth

TOKEN = {"Authorization": "Bearer s3cret"}


async def write(
    store: HttpServer,
    path: str,
    lines: str,
    headers: dict[str, str] | None = None,
    seconds: float = 10,
) -> tuple[int, str]:
    """Write lines as anybody would, and return what the store says."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(seconds)) as session,
        session.post(
            f"{store.url}{path}",
            data=gzip.compress(lines.encode()),
            headers={"Content-Encoding": "gzip", **(headers or {})},
            ssl=False,
        ) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("path", ["/write?db=", "/api/v2/write?org=a&bucket=b"])
async def test_victoria_metrics(path: str) -> None:
    """Test that what was written is found at once, and after a restart."""
    async with VictoriaMetrics() as store:
        now = time.time_ns()
        lines = f"ble,device=a temperature=21.5,count=3i {now}\n"
        assert await write(store, path, lines) == (204, "")
        (sample,) = await store.query('ble_temperature{device="a"}')
        assert sample.value == 21.5
        assert sample.labels["device"] == "a"
        assert await store.query("ble_temperature", at=now / 1e9 - 1) == []
        (series,) = await store.export('{__name__="ble_count"}')
        assert (series.values, series.times) == ([3], [now // 10**6])
        await store.restart()
        assert len(await store.export()) == 2
    assert is_port_free(store.port)


async def test_victoria_metrics_password() -> None:
    """Test that nobody writes without the password."""
    async with VictoriaMetrics(username="anna", password="s3same") as store:
        assert (await write(store, "/write", "a b=1"))[0] == 401
        wrong = basic_auth("anna", "other")
        assert (await write(store, "/write", "a b=1", wrong))[0] == 401
        right = basic_auth("anna", "s3same")
        assert (await write(store, "/write", "a b=1", right))[0] == 204
        assert [sample.value for sample in await store.query("a_b")] == [1]


async def test_freeze() -> None:
    """Test that a frozen store does not answer, and goes on."""
    async with VictoriaMetrics() as store:
        store.freeze()
        with pytest.raises(TimeoutError):
            await write(store, "/write", "a b=1", seconds=0.3)
        store.thaw()
        assert (await write(store, "/write", "a c=1"))[0] == 204
        await store.kill()
        with pytest.raises(aiohttp.ClientConnectorError):
            await write(store, "/write", "a b=1")
        await store.start()
        assert (await write(store, "/write", "a b=1"))[0] == 204


async def test_influx() -> None:
    """Test typed fields, a type that clashes, a bad line, and a kill."""
    async with InfluxDb1() as store:
        path = "/write?db=ble"
        line = 'ble,device=a temperature=21.5,count=3i,ok=true,text="x" 7'
        assert await write(store, path, line) == (204, "")
        row = {"time": 7, "device": "a", "temperature": 21.5, "count": 3, "ok": True}
        assert await store.query("SELECT * FROM ble", "ble") == [row | {"text": "x"}]
        assert {
            "fieldKey": "count",
            "fieldType": "integer",
        } in await store.query("SHOW FIELD KEYS", "ble")
        status, text = await write(store, path, "ble count=4i 8\nble count=5.5 9")
        assert status == 400
        assert "partial write: field type conflict" in text
        assert "dropped=1" in text
        status, text = await write(store, path, "ble count=5i 9\nble count= 10")
        assert status == 400
        assert "unable to parse 'ble count= 10': missing field value" in text
        assert await write(store, "/write?db=other", line) == (
            404,
            '{"error":"database not found: \\"other\\""}\n',
        )
        await store.kill()
        await store.start()
        counts = await store.query('SELECT "count" FROM ble', "ble")
        assert [row["count"] for row in counts] == [3, 4, 5]
        with pytest.raises(SimulationError, match="error parsing query"):
            await store.query("SELEC")


async def test_influx_users() -> None:
    """Test users, of whom one has a password that needs quoting, and loses a right."""
    password = "s'3\\same ö"
    async with InfluxDb1(users={"an'na": password}, databases=["a b", "c"]) as store:
        path = "/write?db=a%20b"
        right = basic_auth("an'na", password)
        assert (await write(store, path, "a b=1"))[0] == 401
        wrong = basic_auth("an'na", "other")
        assert (await write(store, path, "a b=1", wrong))[0] == 401
        assert (await write(store, path, "a b=1", right))[0] == 204
        await store.query('REVOKE WRITE ON "a b" FROM "an\'na"')
        assert (await write(store, path, "a b=1", right))[0] == 403
        await store.restart()
        assert len(await store.query("SELECT * FROM a", "a b")) == 1


async def test_influx_large_body() -> None:
    """Test that a store takes no more than it is told to."""
    async with InfluxDb1(max_body_bytes=100) as store:
        lines = "a b=1\n" * 100  # Packed, they are short.
        assert (await write(store, "/write?db=ble", lines))[0] == 204
        line = f'a c="{os.urandom(100).hex()}"'
        assert (await write(store, "/write?db=ble", line))[0] == 413


@pytest.mark.parametrize("store_type", [VictoriaMetrics, InfluxDb1])
async def test_tls(
    store_type: type[VictoriaMetrics | InfluxDb1], tmp_path: Path
) -> None:
    """Test a store that speaks TLS."""
    files = tmp_path / "server.pem", tmp_path / "server.key"
    Authority("an authority").issue("localhost", *files)
    async with store_type(certificate=files[0], key=files[1]) as store:
        assert store.url.startswith("https://")
        assert (await write(store, "/write?db=ble", "a b=1"))[0] == 204


async def test_prometheus() -> None:
    """Test that metrics are scraped with a token, and that a failure is told."""

    async def answer(request: web.Request) -> web.Response:
        known = request.headers.get("Authorization") == TOKEN["Authorization"]
        return web.Response(text="answer 42\n", status=200 if known else 401)

    application = web.Application()
    application.router.add_get("/metrics", answer)
    async with TestServer(application, host="127.0.0.1") as server:
        target = {"static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
        token = {"credentials": "s3cret"}
        async with Prometheus(
            {"job_name": "known", "authorization": token, **target},
            {"job_name": "unknown", **target},
            interval="200ms",
        ) as prometheus:
            await prometheus.wait_scraped(["known"])
            (sample,) = await prometheus.query("answer")
            assert sample == Sample(
                {"__name__": "answer", "instance": sample.labels["instance"]}
                | {"job": "known"},
                42,
                sample.time,
            )
            with pytest.raises(SimulationError, match="401"):
                await prometheus.wait_scraped(timeout=2)
            assert {
                found.labels["job"]: found.value
                for found in await prometheus.query("up")
            } == {"known": 1, "unknown": 0}
            await prometheus.kill()
            await prometheus.start()
            assert await prometheus.query("answer", at=sample.time)
