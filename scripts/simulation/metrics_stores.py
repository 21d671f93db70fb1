"""Real stores of time series on the loopback address, which take the line protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import time
from typing import Any, Final, override

from .processes import LOOPBACK, free_port
from .servers import HttpServer, basic_auth

DAY: Final = 86_400  # seconds
ADMINISTRATOR: Final = "administrator"


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of a series at one time, in seconds since the epoch."""

    labels: Mapping[str, str]
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class Series:
    """All values of a series, with their times in ms since the epoch."""

    labels: Mapping[str, str]
    values: Sequence[float]
    times: Sequence[int]


class PrometheusApi(HttpServer):
    """A store that is asked in PromQL."""

    async def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """Return what a query finds, now or at a time in seconds since the epoch."""
        # VictoriaMetrics would leave out what came in the last second.
        now = {"time": f"{at or time.time():.3f}", "nocache": "1"}
        parameters = {"query": promql, **now}
        answer = json.loads(await self.request("GET", "/api/v1/query", parameters))
        return [
            Sample(found["metric"], float(found["value"][1]), found["value"][0])
            for found in answer["data"]["result"]
        ]


class VictoriaMetrics(PrometheusApi):
    """A VictoriaMetrics process: `/write` and `/api/v2/write`, and no types but floats.

    With `username` and `password`, it takes nothing from anybody else.
    """

    name = "VictoriaMetrics"
    program = "victoria-metrics"
    ready_path = "/health"

    def __init__(
        self,
        port: int = 0,
        *,
        username: str = "",
        password: str = "",
        arguments: Sequence[str] = (),
        certificate: Path | None = None,
        key: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the store; `arguments` come last."""
        super().__init__(port, certificate=certificate, key=key, directory=directory)
        self._username = username
        self._password = password
        self._more_arguments = arguments
        if username:
            self._headers = basic_auth(username, password)

    @override
    async def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """Return what a query (MetricsQL) finds in all that was written so far."""
        await self._flush()
        return await super().query(promql, at)

    async def export(self, match: str = '{__name__!=""}') -> list[Series]:
        """Return all values of the series that match, or of all."""
        await self._flush()
        parameters = {"match[]": match, "start": "0", "end": f"{time.time() + DAY:.3f}"}
        lines = await self.request("GET", "/api/v1/export", parameters)
        return [
            Series(found["metric"], found["values"], found["timestamps"])
            for found in map(json.loads, lines.splitlines())
        ]

    async def rows(self) -> int:
        """Return how many values were written as line protocol since the start."""
        text = await self.request("GET", "/metrics")
        return sum(
            int(line.rpartition(b" ")[2])
            for line in text.splitlines()
            if line.startswith(b'vm_rows_inserted_total{type="influx"')
        )

    async def _flush(self) -> None:
        """Have found what has been written; it takes a second otherwise."""
        await self.request("GET", "/internal/force_flush")

    @override
    def _arguments(self) -> list[str | Path]:
        arguments = [
            f"-httpListenAddr={LOOPBACK}:{self.port}",
            f"-storageDataPath={self._directory / 'data'}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.disableCache",
        ]
        if self._certificate:
            arguments += [
                "-tls",
                f"-tlsCertFile={self._certificate}",
                f"-tlsKeyFile={self._key}",
            ]
        if self._username:
            arguments += [
                f"-httpAuth.username={self._username}",
                f"-httpAuth.password={self._password}",
            ]
        return [*arguments, *self._more_arguments]


class InfluxDb1(HttpServer):
    """An InfluxDB 1.x process with databases and users of its own.

    Without `users`, everybody may read and write.
    """

    name = "InfluxDB 1"
    program = "influxd"
    ready_path = "/ping"

    def __init__(
        self,
        port: int = 0,
        *,
        databases: Sequence[str] = ("ble",),
        users: Mapping[str, str] | None = None,
        max_body_bytes: int = 25_000_000,
        certificate: Path | None = None,
        key: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the store.

        `users` maps names to passwords; each may read and write all `databases`. A
        larger body than `max_body_bytes`, packed as it comes, is refused (413).
        """
        super().__init__(port, certificate=certificate, key=key, directory=directory)
        self._rpc_port = free_port()
        self._databases = databases
        self._users = users or {}
        self._max_body_bytes = max_body_bytes
        self._created = False

    @override
    async def start(self) -> None:
        """Start the store; the first time, create its users and databases."""
        await super().start()
        if self._created:
            return
        if self._users:
            await self.query(
                _create_user(ADMINISTRATOR, ADMINISTRATOR, all_rights=True)
            )
            self._headers = basic_auth(ADMINISTRATOR, ADMINISTRATOR)
        for database in self._databases:
            await self.query(f"CREATE DATABASE {_quote(database)}")
        for name, password in self._users.items():
            await self.query(_create_user(name, password))
            for database in self._databases:
                await self.query(f"GRANT ALL ON {_quote(database)} TO {_quote(name)}")
        self._created = True

    async def query(self, influxql: str, database: str = "") -> list[dict[str, Any]]:
        """Return the rows that a statement finds, with times in ns since the epoch.

        It may be any statement, such as `SHOW FIELD KEYS` or
        `REVOKE WRITE ON "ble" FROM "bridge"`. A row has its tags if it is grouped by
        them or asks for `*`.
        """
        parameters = {"q": influxql, "db": database, "epoch": "ns"}
        answer = json.loads(await self.request("POST", "/query", parameters))
        return [
            dict(zip(series["columns"], row, strict=True)) | series.get("tags", {})
            for result in answer["results"]
            for series in result.get("series", ())
            for row in series.get("values", ())
        ]

    @override
    def _arguments(self) -> list[str | Path]:
        configuration = self._directory / "influxdb.conf"
        http: dict[str, Any] = {
            "bind-address": f"{LOOPBACK}:{self.port}",
            "auth-enabled": bool(self._users),
            "log-enabled": False,
            "max-body-size": self._max_body_bytes,
        }
        if self._certificate:
            http |= {
                "https-enabled": True,
                "https-certificate": str(self._certificate),
                "https-private-key": str(self._key),
            }
        sections: dict[str, dict[str, Any]] = {
            "meta": {"dir": str(self._directory / "meta")},
            "data": {
                "dir": str(self._directory / "data"),
                "wal-dir": str(self._directory / "wal"),
                "query-log-enabled": False,
            },
            "monitor": {"store-enabled": False},
            "http": http,
        }
        lines = [
            "reporting-disabled = true",
            f'bind-address = "{LOOPBACK}:{self._rpc_port}"',
        ]
        for section, settings in sections.items():
            lines.append(f"[{section}]")
            # What is written here is the same in JSON and in TOML.
            lines += [f"{name} = {json.dumps(settings[name])}" for name in settings]
        configuration.write_text("\n".join((*lines, "")), encoding="utf-8")
        return ["-config", configuration]


def _create_user(name: str, password: str, *, all_rights: bool = False) -> str:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    rights = " WITH ALL PRIVILEGES" if all_rights else ""
    return f"CREATE USER {_quote(name)} WITH PASSWORD '{escaped}'{rights}"


def _quote(name: str) -> str:
    """Return a name as it stands in InfluxQL."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
