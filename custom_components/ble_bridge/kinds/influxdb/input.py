"""From what is entered in the form of an InfluxDB destination to its data."""

from collections.abc import Mapping
import re
from typing import Any, Final

from homeassistant.const import CONF_PASSWORD, CONF_TOKEN, CONF_URL, CONF_USERNAME
from homeassistant.core import HomeAssistant
from yarl import URL

from ...const import (
    CONF_ADVANCED,
    CONF_API,
    CONF_BATCH_KILOBYTES,
    CONF_BATCH_LINES,
    CONF_BATCH_SECONDS,
    CONF_BUCKET,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_FIRST_DELAY,
    CONF_GZIP,
    CONF_KIND,
    CONF_LONGEST_DELAY,
    CONF_MEASUREMENT,
    CONF_ORGANIZATION,
    CONF_RETENTION_POLICY,
    CONF_SECURITY,
    CONF_SIGNALS,
    CONF_TLS,
)
from ...destinations.influxdb_connection import InfluxApi
from ...uploads import Uploads
from ..entered import Entered, InputError, entered_delivery, is_host, plain
from ..security import async_security
from .form import DEFAULT_URL, DELIVERY_DEFAULTS

_MAX_URL: Final = 1024
_MAX_NAME: Final = 256
_MEASUREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


async def async_influx_data(
    hass: HomeAssistant,
    uploads: Uploads,
    user_input: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> Entered:
    """Return what a form says of a destination, and what is wrong with it.

    What the form does not show stays as it was where it is left empty: a token, a
    password, a key.
    """
    previous = previous or {}
    advanced = user_input[CONF_ADVANCED]
    url = _url(user_input[CONF_URL])
    is_first = user_input[CONF_API] == InfluxApi.V1
    entered = Entered(
        {
            CONF_KIND: "influxdb",
            CONF_URL: url or user_input[CONF_URL],
            CONF_API: user_input[CONF_API],
            CONF_BUCKET: _text(user_input, CONF_BUCKET),
            CONF_ORGANIZATION: (
                "" if is_first else _text(user_input, CONF_ORGANIZATION)
            ),
            CONF_SIGNALS: user_input[CONF_SIGNALS],
            CONF_MEASUREMENT: _text(advanced, CONF_MEASUREMENT),
            CONF_RETENTION_POLICY: (
                _text(advanced, CONF_RETENTION_POLICY) if is_first else ""
            ),
            CONF_GZIP: advanced[CONF_GZIP],
            CONF_BATCH_LINES: int(advanced[CONF_BATCH_LINES]),
            CONF_BATCH_KILOBYTES: int(advanced[CONF_BATCH_KILOBYTES]),
            **{
                key: plain(advanced[key])
                for key in (
                    CONF_BATCH_SECONDS,
                    CONF_CONNECT_TIMEOUT,
                    CONF_FIRST_DELAY,
                    CONF_LONGEST_DELAY,
                )
            },
            **credentials(user_input, previous, knows_tokens=not is_first),
        }
    )
    data, errors = entered.data, entered.errors
    data[CONF_DELIVERY] = entered_delivery(user_input, previous or DELIVERY_DEFAULTS)
    with entered.collect():
        is_tls = url is not None and URL(url).scheme == "https"
        said = user_input.get(CONF_SECURITY)
        if said is not None:
            said = {**said, CONF_TLS: is_tls}
        data |= await async_security(hass, uploads, said, previous)
        data[CONF_TLS] = is_tls
        if data[CONF_FIRST_DELAY] > data[CONF_LONGEST_DELAY]:
            raise InputError("delays_reversed")
        if not _MEASUREMENT.fullmatch(data[CONF_MEASUREMENT]):
            raise InputError("invalid_measurement")
    if url is None:
        errors[CONF_URL] = "invalid_url"
        entered.placeholders["url"] = DEFAULT_URL
    for key in (CONF_BUCKET, CONF_ORGANIZATION, CONF_TOKEN):
        if not _is_plain(data[key] or ""):
            errors[key] = "invalid_text"
    if is_first and not data[CONF_BUCKET]:
        errors[CONF_BUCKET] = "database_missing"
    return entered


def credentials(
    said: Mapping[str, Any], previous: Mapping[str, Any], *, knows_tokens: bool
) -> dict[str, str | None]:
    """Return the credentials; what is left empty is that which is stored.

    A token goes before a username, and a username before a token that is stored.
    """
    username = said.get(CONF_USERNAME) or None
    password = said.get(CONF_PASSWORD) or None
    token = None
    if knows_tokens:
        kept = previous.get(CONF_TOKEN) if username is None else None
        token = _text(said, CONF_TOKEN) or kept
    if token is not None or username is None:
        username = password = None
    elif password is None:
        password = previous.get(CONF_PASSWORD)
    return {CONF_TOKEN: token, CONF_USERNAME: username, CONF_PASSWORD: password}


def _url(text: str) -> str | None:
    """Return a URL in its usual form, and nothing for what is none that we can use."""
    text = text.strip()
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        return None
    if (
        url.scheme not in ("http", "https")
        or url.host is None
        or not is_host(url.host)
        or not port
        or url.user is not None
        or url.password is not None
        or url.query_string
        or url.fragment
        or len(text) > _MAX_URL
        or not text.isprintable()
    ):
        return None
    return str(url).rstrip("/")


def _text(said: Mapping[str, Any], key: str) -> str:
    """Return a text without what does no harm around it."""
    return (said.get(key) or "").strip()


def _is_plain(text: str) -> bool:
    """Tell whether a text can be a name, or stand in a header."""
    return text.isprintable() and len(text) <= _MAX_NAME * 4
