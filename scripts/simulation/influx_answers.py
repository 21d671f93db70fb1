"""What InfluxDB 2 and 3 say to a write, down to the shape of each error.

As these have it:
- InfluxDB OSS 2.8: https://docs.influxdata.com/influxdb/v2/write-data/troubleshoot/, and
  https://github.com/influxdata/influxdb at v2.8.0: http/write_handler.go,
  http/points/points_parser.go, kit/transport/http/error_handler.go, tsdb/shard.go
- InfluxDB 3 in the cloud (Serverless, Dedicated, Clustered), with the API of 2:
  https://docs.influxdata.com/influxdb3/cloud-serverless/write-data/troubleshoot/
- InfluxDB 3 Core and Enterprise:
  https://docs.influxdata.com/influxdb3/core/write-data/http-api/v3-write-lp/, and
  https://github.com/influxdata/influxdb at v3.9.6: influxdb3_server/src/http.rs
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
import time
from typing import Any, Final, NamedTuple

from .line_protocol import (
    INTEGERS,
    LineError,
    Point,
    Unsigned,
    Value,
    parse_line,
    split_lines,
)

V2_PATH: Final = "/api/v2/write"
V3_PATH: Final = "/api/v3/write_lp"
CODES: Final = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    503: "unavailable",
}
_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_UNITS_OF_V3: Final = {
    **_UNITS,
    "nanosecond": 1,
    "microsecond": 10**3,
    "millisecond": 10**6,
    "second": 10**9,
}
# Up to how many billions a time is in which unit (influxdb3_types/src/write.rs)
_GUESSES: Final = ((5, 10**9), (5_000, 10**6), (5_000_000, 10**3))
# In the cloud, no more lines than these are told.
_TOLD_LINES: Final = 100
_BUCKET_ID: Final = "9f282d63c7d3a5c0"
_TOO_LARGE_PAGE: Final = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n"
    "<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_MALFORMED_TOKEN: Final = (
    "Authorization header was malformed, the request was not in the form of"
    " 'Authorization: <auth-scheme> <token>', supported auth-schemes are Bearer,"
    " Token and Basic"
)
# The words of version 3 for what a line lacks, where it has its own
_WORDS_OF_V3: Final = {
    "missing measurement": "Invalid measurement was provided",
    "missing fields": "No fields were provided",
    "missing tag key": "Tag set malformed",
    "missing tag value": "Tag set malformed",
    "duplicate tags": "Must not contain duplicate tags",
}


class Flavour(StrEnum):
    """Which InfluxDB it is."""

    V2 = "v2"  # OSS 2.8
    CLOUD = "cloud"  # Serverless, Dedicated and Clustered
    V3 = "v3"  # Core and Enterprise 3.9


class Kind(StrEnum):
    """What a column holds."""

    FLOAT = "float"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    BOOLEAN = "boolean"
    STRING = "string"
    TAG = "tag"

    @property
    def of_v3(self) -> str:
        """Return the kind in the words of version 3."""
        if self is Kind.TAG:
            return "iox::column_type::tag"
        name = "uinteger" if self is Kind.UNSIGNED else self.value
        return f"iox::column_type::field::{name}"


class Refusal(Exception):
    """An answer that is not 204: JSON, or text."""

    def __init__(self, status: int, body: Mapping[str, Any] | str) -> None:
        """Say what is answered."""
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def refusal(status: int, message: str) -> Refusal:
    """Return a refusal as version 2 words it."""
    return Refusal(status, {"code": CODES[status], "message": message})


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point that was accepted; `time` is in ns since the epoch."""

    database: str
    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, Value]
    time: int


class Clash(NamedTuple):
    """A column that is of another kind than what came for it."""

    column: str
    known: Kind
    came: Kind


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not written, in the words of version 3."""

    number: int
    error: str
    shown: str
    clashes: bool


class InfluxStore:
    """Who may write, and what was written: an InfluxDB but for HTTP."""

    def __init__(
        self,
        flavour: Flavour,
        token: str,
        read_only_token: str | None,
        organization: str,
        bucket: str,
        max_body_bytes: int,
    ) -> None:
        """Begin with an empty bucket."""
        self.points: list[StoredPoint] = []
        self._flavour = flavour
        self._token = token
        self._read_only_token = read_only_token
        self._organization = organization
        self._bucket = bucket
        self._max_body_bytes = max_body_bytes
        # What is known of each measurement of a database
        self._columns: dict[tuple[str, str], dict[str, Kind]] = {}

    def check_token(self, authorization: str) -> bool:
        """Return whether the token allows for writing; raises `Refusal`."""
        scheme, _, token = authorization.partition(" ")
        known = scheme in {"Token", "Bearer"}
        if known and token in {self._token, self._read_only_token}:
            return token == self._token
        if self._flavour is not Flavour.V3:
            raise refusal(401, "unauthorized access")
        if scheme and not (known and token):
            raise Refusal(400, {"error": _MALFORMED_TOKEN})
        raise Refusal(401, {"error": "the request was not authenticated"})

    def write(
        self,
        path: str,
        query: Mapping[str, str],
        authorization: str,
        body: bytes | None,
    ) -> None:
        """Write the lines of a body, which is None if it could not be unpacked.

        Raises `Refusal`, also if some lines were written and others not.
        """
        may_write = self.check_token(authorization)
        if path == V3_PATH:
            self._write_v3(query, body)
        elif self._flavour is Flavour.V3:
            self._write_v3_compatible(query, body)
        else:
            self._write_v2(query, body, may_write=may_write)

    # --- version 2, and the cloud -----------------------------------------------------

    def _write_v2(
        self, query: Mapping[str, str], body: bytes | None, *, may_write: bool
    ) -> None:
        unit = _UNITS.get(query.get("precision") or "ns")
        bucket, organization = query.get("bucket", ""), query.get("org", "")
        if unit is None:
            raise refusal(
                400, "invalid precision; valid precision units are ns, us, ms, and s"
            )
        if not bucket:
            raise refusal(404, "bucket not found")
        if body is None:
            raise refusal(500, "An internal error has occurred - check server logs")
        if not organization:
            raise refusal(400, "Please provide either orgID or org")
        if organization != self._organization:
            raise refusal(404, f'organization name "{organization}" not found')
        if bucket != self._bucket:
            raise refusal(404, f'bucket "{bucket}" not found')
        if not may_write:
            raise refusal(403, "insufficient permissions for write")
        if len(body) > self._max_body_bytes:
            if self._flavour is Flavour.CLOUD:
                raise Refusal(413, _TOO_LARGE_PAGE)
            raise refusal(413, "unable to read data: points batch is too large")
        if not body:
            raise refusal(400, "writing requires points")
        if self._flavour is Flavour.CLOUD:
            self._write_cloud(bucket, body, unit)
        else:
            self._write_oss2(bucket, body, unit)

    def _write_oss2(self, bucket: str, body: bytes, unit: int) -> None:
        """Write all lines; one that cannot be read spoils all, a clash only its own."""
        points = []
        unreadable = []
        for line in _lines_of(body):
            try:
                points.append(_read(line, unit))
            except LineError as error:
                unreadable.append(f"unable to parse '{line}': {error}")
        if unreadable:
            raise refusal(400, "\n".join(unreadable))
        clashes = [
            f'field type conflict: input field "{clash.column}" on measurement'
            f' "{point.measurement}" is type {clash.came}, already exists as type'
            f" {clash.known}"
            for point, moment in points
            if (clash := self._store(bucket, point, moment))
        ]
        if clashes:
            raise refusal(
                422,
                f"failure writing points to database: partial write: {clashes[0]}"
                f" dropped={len(clashes)} for database: {_BUCKET_ID} for retention"
                " policy: autogen",
            )

    def _write_cloud(self, bucket: str, body: bytes, unit: int) -> None:
        """Write the lines that are good; the number of the first bad one is told."""
        before = len(self.points)
        bad = list(self._write_lines(bucket, body, unit))
        if not bad:
            return
        written = len(self.points) > before
        begin = "partial write has occurred" if written else "no data written"
        errors = "\n".join(
            f"error {'writing' if line.clashes else 'parsing'} line {line.number}"
            f" (1-based): {line.error}"
            for line in bad[:_TOLD_LINES]
        )
        message = f"{begin}, errors encountered on line(s):\n{errors}"
        raise Refusal(
            400, {"code": "invalid", "line": bad[0].number, "message": message}
        )

    # --- version 3 --------------------------------------------------------------------

    def _write_v3(self, query: Mapping[str, str], body: bytes | None) -> None:
        if not query:
            raise Refusal(400, "missing query parameter 'db'")
        if not (database := query.get("db", "")):
            raise Refusal(400, "serde error: missing field `db`")
        precision = query.get("precision", "auto")
        if precision != "auto" and precision not in _UNITS_OF_V3:
            raise Refusal(400, f"serde error: unknown variant `{precision}`")
        text = self._check_body(body)
        known, written = deepcopy(self._columns), len(self.points)
        unit = _UNITS_OF_V3.get(precision)
        bad = [
            {
                "original_line": line.shown,
                "line_number": line.number,
                "error_message": line.error,
            }
            for line in self._write_lines(database, text, unit)
        ]
        if not bad:
            return
        if query.get("accept_partial", "true") == "true":
            error = "partial write of line protocol occurred"
            raise Refusal(400, {"error": error, "data": bad})
        self._columns = known
        del self.points[written:]
        error = "parsing failed for write_lp endpoint"
        raise Refusal(400, {"error": error, "data": bad[0]})

    def _write_v3_compatible(
        self, query: Mapping[str, str], body: bytes | None
    ) -> None:
        """Write all lines or none, as version 3 does where version 2 is spoken."""
        if not (bucket := query.get("bucket", "")):
            raise refusal(400, "missing bucket value")
        try:
            text = self._check_body(body)
        except Refusal as refused:
            raise refusal(refused.status, str(refused.body)) from None
        known, written = deepcopy(self._columns), len(self.points)
        unit = _UNITS_OF_V3.get(query.get("precision", "ns"), 1)
        if bad := list(self._write_lines(bucket, text, unit)):
            self._columns = known
            del self.points[written:]
            raise refusal(400, f"line protocol parse failed: {bad[0].error}")

    def _check_body(self, body: bytes | None) -> bytes:
        if body is None:
            raise Refusal(400, "error decoding gzip stream: invalid gzip header")
        if len(body) > self._max_body_bytes:
            limit = f"max request size ({self._max_body_bytes} bytes) exceeded"
            raise Refusal(413, limit)
        if not body:
            raise Refusal(400, "incoming write was empty")
        return body

    # --- lines and columns ------------------------------------------------------------

    def _write_lines(
        self, database: str, body: bytes, unit: int | None
    ) -> Iterator[BadLine]:
        """Write the lines that are good, and return the others, as version 3 does."""
        for number, line in enumerate(_lines_of(body), start=1):
            try:
                point, moment = _read(line, unit)
            except LineError as error:
                words = _WORDS_OF_V3.get(str(error), str(error))
                yield BadLine(number, words, line, clashes=False)
                continue
            if point.repeated is not None:
                words = (
                    "invalid line protocol - multiple instances of"
                    f" '{point.repeated}' field found"
                )
                yield BadLine(number, words, _show(point), clashes=True)
            elif clash := self._store(database, point, moment):
                words = (
                    f"Unable to insert {clash.came.of_v3} type into column"
                    f" {clash.column} with type {clash.known.of_v3}"
                    if self._flavour is Flavour.CLOUD
                    else f"invalid column type for column '{clash.column}', expected"
                    f" {clash.known.of_v3}, got {clash.came.of_v3}"
                )
                yield BadLine(number, words, _show(point), clashes=True)

    def _store(self, database: str, point: Point, moment: int) -> Clash | None:
        """Keep a point, or return which column clashes."""
        columns = self._columns.setdefault((database, point.measurement), {})
        kinds = {name: _kind(value) for name, value in point.fields.items()}
        if self._flavour is not Flavour.V2:  # There, a tag may be called as a field is.
            kinds = dict.fromkeys(point.tags, Kind.TAG) | kinds
        for name, kind in kinds.items():
            if (known := columns.get(name, kind)) is not kind:
                return Clash(name, known, kind)
        columns |= kinds
        self.points.append(
            StoredPoint(database, point.measurement, point.tags, point.fields, moment)
        )
        return None


def _lines_of(body: bytes) -> Iterator[str]:
    """Return the lines with points."""
    return split_lines(body.decode(errors="replace"))


def _read(line: str, unit: int | None) -> tuple[Point, int]:
    """Return a point and its time in ns; without a unit, its size tells."""
    point = parse_line(line)
    if point.time is None:
        return point, time.time_ns()
    if unit is None:
        billions = abs(point.time) // 10**9
        unit = next((unit for limit, unit in _GUESSES if billions < limit), 1)
    if (moment := point.time * unit) not in INTEGERS:
        raise LineError("time outside range")
    return point, moment


def _kind(value: Value) -> Kind:
    """Return what a column holds that has such a value."""
    match value:
        case bool():
            return Kind.BOOLEAN
        case str():
            return Kind.STRING
        case float():
            return Kind.FLOAT
        case Unsigned():
            return Kind.UNSIGNED
        case _:
            return Kind.INTEGER


def _show(point: Point) -> str:
    """Return a point as version 3 writes it in errors: strings without quotes."""
    tags = "".join(f",{name}={value}" for name, value in point.tags.items())
    fields = ",".join(
        f"{name}={_show_value(value)}" for name, value in point.fields.items()
    )
    moment = "" if point.time is None else f" {point.time}"
    return f"{point.measurement}{tags} {fields}{moment}"


def _show_value(value: Value) -> str:
    match _kind(value):
        case Kind.BOOLEAN:
            return str(value).lower()
        case Kind.INTEGER:
            return f"{value}i"
        case Kind.UNSIGNED:
            return f"{value}u"
        case _:
            return str(value)
