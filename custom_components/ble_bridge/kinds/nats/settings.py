"""From what the user entered to how NATS is reached, and which streams there have to be."""

from collections.abc import Mapping
import math
from typing import Any, Final
from urllib.parse import urlsplit

from homeassistant.const import CONF_PASSWORD, CONF_TOKEN, CONF_USERNAME

from ...const import (
    CONF_CA_CERTIFICATE,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CLIENT_NAME,
    CONF_CONNECT_TIMEOUT,
    CONF_CREDENTIALS,
    CONF_DISCONNECT_TIMEOUT,
    CONF_DUPLICATE_WINDOW,
    CONF_ENABLED,
    CONF_FIRST_DELAY,
    CONF_JETSTREAM,
    CONF_LONGEST_DELAY,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_MEGABYTES,
    CONF_MAX_MESSAGES,
    CONF_NAMESPACE,
    CONF_REPLICAS,
    CONF_RETENTION,
    CONF_SEED,
    CONF_SERVER_NAME,
    CONF_SERVERS,
    CONF_STORAGE,
    CONF_STORED,
    CONF_TLS,
)
from ...destinations.nats_connection import NatsSettings
from ...destinations.nats_streams import NatsStream
from ...destinations.policy import MEGABYTE
from ...layouts.subjects import safe_token
from ...records import DEVICE_KINDS, RecordKind

SECRETS: Final = (
    CONF_USERNAME,
    CONF_PASSWORD,
    CONF_TOKEN,
    CONF_SEED,
    CONF_CREDENTIALS,
)
JETSTREAM_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_ENABLED: False,
    CONF_STORED: [kind.value for kind in DEVICE_KINDS],
    CONF_STORAGE: "file",
    CONF_RETENTION: "limits",
    CONF_MAX_AGE_HOURS: 168,
    CONF_MAX_MEGABYTES: 256,
    CONF_MAX_MESSAGES: 0,
    CONF_REPLICAS: "1",
    CONF_DUPLICATE_WINDOW: 3600,
}
# What a server remembers of advertisements would fill its memory (s).
_MAX_WINDOWS: Final = {RecordKind.ADVERTISEMENT: 120.0}
_SUBJECTS: Final = {
    RecordKind.READING: "*.data",
    RecordKind.ALERT: "*.alerts",
    RecordKind.ERROR: "*.errors",
    RecordKind.CONNECTIVITY: "*.connectivity",
    # Four tokens, so that no two of these overlap, as they would with a `>`.
    RecordKind.ADVERTISEMENT: "raw.*.*",
}


def nats_settings(data: Mapping[str, Any]) -> NatsSettings:
    """Return how to reach the servers of a destination."""
    return NatsSettings(
        servers=tuple(data[CONF_SERVERS]),
        name=data[CONF_CLIENT_NAME],
        **{key: data[key] for key in SECRETS},
        tls=data[CONF_TLS],
        server_name=data[CONF_SERVER_NAME],
        ca=data[CONF_CA_CERTIFICATE],
        client_certificate=data[CONF_CLIENT_CERTIFICATE],
        client_key=data[CONF_CLIENT_KEY],
        streams=streams(data),
        connect_timeout=data[CONF_CONNECT_TIMEOUT],
        disconnect_timeout=data[CONF_DISCONNECT_TIMEOUT],
        first_delay=data[CONF_FIRST_DELAY],
        longest_delay=data[CONF_LONGEST_DELAY],
    )


def stored_kinds(data: Mapping[str, Any]) -> tuple[RecordKind, ...]:
    """Return the kinds of records that go to JetStream."""
    said = {**JETSTREAM_DEFAULTS, **data[CONF_JETSTREAM]}
    if not said[CONF_ENABLED]:
        return ()
    return tuple(kind for kind in _SUBJECTS if kind.value in said[CONF_STORED])


def streams(data: Mapping[str, Any]) -> tuple[NatsStream, ...]:
    """Return the streams that a destination needs: one for each kind of record."""
    said = {**JETSTREAM_DEFAULTS, **data[CONF_JETSTREAM]}
    namespace: str = data[CONF_NAMESPACE]
    return tuple(
        NatsStream(
            name=stream_name(namespace, kind),
            subjects=(f"{namespace}.{_SUBJECTS[kind]}",),
            in_memory=said[CONF_STORAGE] == "memory",
            retention=said[CONF_RETENTION],
            max_age=said[CONF_MAX_AGE_HOURS] * 3600,
            max_size=said[CONF_MAX_MEGABYTES] * MEGABYTE or -1,
            max_messages=said[CONF_MAX_MESSAGES] or -1,
            replicas=int(said[CONF_REPLICAS]),
            duplicate_window=min(
                said[CONF_DUPLICATE_WINDOW], _MAX_WINDOWS.get(kind, math.inf)
            ),
        )
        for kind in stored_kinds(data)
    )


def stream_name(namespace: str, kind: RecordKind) -> str:
    """Return the name of a stream: a token without slashes, as servers name files by it."""
    safe = safe_token(namespace.replace("/", "_").replace("\\", "_"))
    return f"{safe}_{kind}".upper()


def cluster(data: Mapping[str, Any]) -> str:
    """Return what tells one cluster from another."""
    return ",".join(sorted(urlsplit(url).netloc.lower() for url in data[CONF_SERVERS]))
