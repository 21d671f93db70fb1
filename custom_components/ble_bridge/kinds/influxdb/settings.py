"""From what the user entered to how a server is reached."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import CONF_PASSWORD, CONF_TOKEN, CONF_URL, CONF_USERNAME
from yarl import URL

from ...const import (
    CONF_API,
    CONF_BATCH_KILOBYTES,
    CONF_BATCH_LINES,
    CONF_BATCH_SECONDS,
    CONF_BUCKET,
    CONF_CA_CERTIFICATE,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CONNECT_TIMEOUT,
    CONF_FIRST_DELAY,
    CONF_GZIP,
    CONF_LONGEST_DELAY,
    CONF_MEASUREMENT,
    CONF_ORGANIZATION,
    CONF_RETENTION_POLICY,
    CONF_SERVER_NAME,
)
from ...destinations.influxdb_connection import (
    InfluxApi,
    InfluxSettings,
    password_header,
    token_header,
)

_KILOBYTE: Final = 1000


def influx_settings(data: Mapping[str, Any]) -> InfluxSettings:
    """Return the settings of a destination."""
    api = InfluxApi(data[CONF_API])
    if api is InfluxApi.V2:
        place = {"org": data[CONF_ORGANIZATION], "bucket": data[CONF_BUCKET]}
    else:
        place = {"db": data[CONF_BUCKET], "rp": data[CONF_RETENTION_POLICY]}
    return InfluxSettings(
        url=data[CONF_URL],
        api=api,
        place=place,
        authorization=_authorization(data),
        ca=data[CONF_CA_CERTIFICATE],
        client_certificate=data[CONF_CLIENT_CERTIFICATE],
        client_key=data[CONF_CLIENT_KEY],
        server_name=data[CONF_SERVER_NAME],
        gzip=data[CONF_GZIP],
        batch_lines=data[CONF_BATCH_LINES],
        batch_bytes=data[CONF_BATCH_KILOBYTES] * _KILOBYTE,
        batch_time=float(data[CONF_BATCH_SECONDS]),
        connect_timeout=float(data[CONF_CONNECT_TIMEOUT]),
        # What is not said of the delays stays open, for the destination knows them.
        first_delay=data.get(CONF_FIRST_DELAY),
        longest_delay=data.get(CONF_LONGEST_DELAY),
    )


def _authorization(data: Mapping[str, Any]) -> str | None:
    """Return what shows who we are: never a part of the URL, which servers log."""
    if data[CONF_TOKEN]:
        return token_header(data[CONF_TOKEN])
    if data[CONF_USERNAME]:
        return password_header(data[CONF_USERNAME], data[CONF_PASSWORD] or "")
    return None


def server(data: Mapping[str, Any]) -> str:
    """Return what tells where lines go: the server, and the bucket or the database."""
    place = (data[CONF_ORGANIZATION], data[CONF_BUCKET], data[CONF_RETENTION_POLICY])
    return "/".join((data[CONF_URL], *filter(None, place)))


def place(data: Mapping[str, Any]) -> str:
    """Return what tells one destination from another."""
    return f"{server(data)}#{data[CONF_MEASUREMENT]}"


def title(data: Mapping[str, Any]) -> str:
    """Return the title of a destination."""
    authority = URL(data[CONF_URL]).authority
    bucket = data[CONF_BUCKET]
    return f"{authority} ({bucket})" if bucket else authority
