"""From what is entered in the form of an MQTT destination to its data."""

from collections.abc import Iterable, Mapping
from itertools import combinations
import re
from typing import Any, Final

from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_PASSWORD,
    CONF_PORT,
    CONF_PROTOCOL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant

from ...const import (
    CONF_ADVANCED,
    CONF_ALPN,
    CONF_BROKER,
    CONF_CLEAN_SESSION,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_DISCONNECT_TIMEOUT,
    CONF_ENABLED,
    CONF_FIELDS,
    CONF_FIRST_DELAY,
    CONF_KEEPALIVE,
    CONF_LONGEST_DELAY,
    CONF_MESSAGE_EXPIRY,
    CONF_QOS,
    CONF_RAW,
    CONF_SECURITY,
    CONF_SESSION_EXPIRY,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    CONF_USER_PROPERTIES,
    CONF_VALUES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_PORT_TLS,
    DEFAULT_WEBSOCKET_PATH,
    Broker,
    Transport,
)
from ...destinations.mqtt_connection import new_client_id
from ...forms import lines
from ...layouts.topics import is_valid_base, safe_part
from ...uploads import Uploads
from ..entered import (
    Entered,
    InputError,
    entered_delivery,
    is_host,
    plain,
    port,
    without_brackets,
)
from ..security import TLS_DEFAULTS, async_security
from .publisher import layout_settings
from .settings import connection_data, split_property

# The layouts for records; what is published raw is set under advanced settings.
LAYOUTS: Final = (CONF_FIELDS, CONF_VALUES)

MAX_LINES: Final = 20
_MAX_TEXT: Final = 1024
# The path of a Unix socket, without the NUL that ends it (unix(7))
_MAX_UNIX_PATH: Final = 107
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_WEBSOCKET_PATH: Final = re.compile(r"/[!-~]{0,1023}")
_TRANSPORT: Final = (
    CONF_TRANSPORT,
    CONF_WEBSOCKET_PATH,
    CONF_WEBSOCKET_HEADERS,
    CONF_UNIX_PATH,
)
# What is stored of a connection that comes from elsewhere.
_NOWHERE: Final[Mapping[str, Any]] = {
    CONF_HOST: "",
    CONF_PORT: DEFAULT_PORT,
    CONF_TLS: False,
    **TLS_DEFAULTS,
    CONF_ALPN: [],
    CONF_TRANSPORT: Transport.TCP.value,
    CONF_WEBSOCKET_PATH: DEFAULT_WEBSOCKET_PATH,
    CONF_WEBSOCKET_HEADERS: {},
    CONF_UNIX_PATH: None,
}


async def async_destination_data(
    hass: HomeAssistant,
    uploads: Uploads,
    user_input: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> Entered:
    """Return what a form says of a destination, and what is wrong with it.

    What the form does not show stays as it was where it is left empty: a password, a key,
    the values of headers.
    """
    previous = previous or {}
    advanced = user_input[CONF_ADVANCED]
    entered = Entered(
        {
            CONF_BROKER: user_input.get(CONF_BROKER, Broker.CUSTOM.value),
            CONF_HOST: without_brackets(user_input[CONF_HOST]),
            CONF_PORT: port(user_input[CONF_PORT]),
            CONF_USERNAME: user_input.get(CONF_USERNAME) or None,
            CONF_PASSWORD: user_input.get(CONF_PASSWORD) or None,
            CONF_TOPIC_BASE: _base(advanced),
            CONF_RAW: advanced[CONF_RAW],
            CONF_QOS: int(advanced[CONF_QOS]),
            CONF_PROTOCOL: advanced[CONF_PROTOCOL],
            CONF_CLIENT_ID: (advanced.get(CONF_CLIENT_ID) or "").strip()
            or previous.get(CONF_CLIENT_ID)
            or new_client_id(),
            CONF_KEEPALIVE: int(advanced[CONF_KEEPALIVE]),
            CONF_CLEAN_SESSION: advanced[CONF_CLEAN_SESSION],
        }
    )
    data, errors = entered.data, entered.errors
    for name in LAYOUTS:
        # Who fills in the form by hand may leave a section out.
        said = user_input.get(name) or layout_settings(previous, name)
        data[name] = {**said, CONF_TOPIC_BASE: _base(said)}
    data[CONF_DELIVERY] = entered_delivery(user_input, previous)
    if data[CONF_USERNAME] and not data[CONF_PASSWORD]:
        data[CONF_PASSWORD] = previous.get(CONF_PASSWORD)
    with entered.collect():
        if data[CONF_BROKER] == Broker.CUSTOM:
            said = user_input.get(CONF_SECURITY)
            data |= _transport(user_input.get(CONF_TRANSPORT), previous)
            data |= await async_security(hass, uploads, said, previous)
            data[CONF_ALPN] = _alpn(said, previous)
        data |= _advanced(advanced)
    if error := _topic_error(data):
        errors["base"] = error
    elif safe_part(data[CONF_CLIENT_ID]) != data[CONF_CLIENT_ID]:
        errors["base"] = "invalid_client_id"
    transport = (user_input.get(CONF_TRANSPORT) or previous).get(CONF_TRANSPORT)
    if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
        data |= {**_NOWHERE, CONF_USERNAME: None, CONF_PASSWORD: None}
    elif transport == Transport.UNIX:
        data |= {CONF_HOST: "", CONF_PORT: DEFAULT_PORT, CONF_TLS: False}
    else:
        _check_address(data, errors)
    return entered


def _check_address(data: dict[str, Any], errors: dict[str, str]) -> None:
    """Find what is wrong with host and port, and use the port of TLS where it is meant."""
    if not is_host(data[CONF_HOST]):
        errors[CONF_HOST] = "invalid_host"
    if data[CONF_PORT] is None:
        errors[CONF_PORT] = "invalid_port"
    elif (
        data[CONF_PORT] == DEFAULT_PORT
        and data.get(CONF_TLS)
        and data[CONF_TRANSPORT] == Transport.TCP
    ):
        data[CONF_PORT] = DEFAULT_PORT_TLS


# --- sections -----------------------------------------------------------------------------


def _alpn(said: Mapping[str, Any] | None, previous: Mapping[str, Any]) -> list[str]:
    """Return the protocols that are offered in the handshake; raises InputError."""
    if said is None:
        kept: list[str] = connection_data(previous)[CONF_ALPN]
        return kept
    alpn = lines(said.get(CONF_ALPN, ()))
    if len(alpn) > MAX_LINES or not all(
        name.isascii() and name.isprintable() and len(name) < 256 for name in alpn
    ):
        raise InputError("invalid_alpn")
    return alpn


def _transport(
    said: Mapping[str, Any] | None, previous: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is said of the transport; raises InputError."""
    before = connection_data(previous)
    if said is None:
        return {key: before[key] for key in _TRANSPORT}
    transport = Transport(said[CONF_TRANSPORT])
    path, headers, unix_path = DEFAULT_WEBSOCKET_PATH, {}, None
    if transport is Transport.WEBSOCKETS:
        path = (said.get(CONF_WEBSOCKET_PATH) or "").strip() or path
        if not _WEBSOCKET_PATH.fullmatch(path):
            raise InputError("invalid_websocket_path")
        headers = _headers(
            lines(said.get(CONF_WEBSOCKET_HEADERS, ())), before[CONF_WEBSOCKET_HEADERS]
        )
    if transport is Transport.UNIX:
        unix_path = (said.get(CONF_UNIX_PATH) or "").strip()
        if (
            not unix_path.startswith("/")
            or not unix_path.isprintable()
            or len(unix_path.encode()) > _MAX_UNIX_PATH
        ):
            raise InputError("invalid_unix_path")
    return dict(
        zip(_TRANSPORT, (transport.value, path, headers, unix_path), strict=True)
    )


def _headers(entered: Iterable[str], stored: Mapping[str, str]) -> dict[str, str]:
    """Return headers; one without a value keeps that which is stored, as it is not shown.

    Raises InputError.
    """
    headers = {}
    for line in entered:
        name, colon, value = (part.strip() for part in line.partition(":"))
        value = value or stored.get(name, "")
        if (
            not (colon and value and _HEADER_NAME.fullmatch(name))
            or not (value.isascii() and value.isprintable())
            or len(value) > _MAX_TEXT * 4
        ):
            raise InputError("invalid_websocket_headers")
        headers[name] = value
    if len(headers) > MAX_LINES:
        raise InputError("invalid_websocket_headers")
    return headers


def _advanced(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of timing and of MQTT 5; raises InputError."""
    properties = lines(said.get(CONF_USER_PROPERTIES, ()))
    if len(properties) > MAX_LINES or not all(map(_is_property, properties)):
        raise InputError("invalid_user_properties")
    if said[CONF_FIRST_DELAY] > said[CONF_LONGEST_DELAY]:
        raise InputError("delays_reversed")
    expiry = said.get(CONF_MESSAGE_EXPIRY)
    return {
        CONF_SESSION_EXPIRY: int(said[CONF_SESSION_EXPIRY]),
        CONF_MESSAGE_EXPIRY: None if expiry is None else int(expiry),
        CONF_USER_PROPERTIES: properties,
        **{
            key: plain(said[key])
            for key in (
                CONF_CONNECT_TIMEOUT,
                CONF_DISCONNECT_TIMEOUT,
                CONF_FIRST_DELAY,
                CONF_LONGEST_DELAY,
            )
        },
    }


def _is_property(text: str) -> bool:
    """Tell whether a text is a user property: name=value."""
    name, _ = split_property(text)
    return bool(name) and "=" in text and text.isprintable() and len(text) < _MAX_TEXT


# --- topics -------------------------------------------------------------------------------


def _base(data: Mapping[str, Any]) -> str:
    """Return a topic base without what does no harm around it."""
    base: str = data[CONF_TOPIC_BASE]
    return base.strip().strip("/")


def bases(data: Mapping[str, Any]) -> list[str]:
    """Return the topic bases under which a destination publishes.

    That of raw is always one of them, for the heartbeats of scanners go there.
    """
    layouts = [layout_settings(data, name) for name in LAYOUTS]
    return [
        data[CONF_TOPIC_BASE],
        *(layout[CONF_TOPIC_BASE] for layout in layouts if layout[CONF_ENABLED]),
    ]


def _topic_error(data: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the topic bases of a destination."""
    all_bases = [
        data[CONF_TOPIC_BASE],
        *(data[name][CONF_TOPIC_BASE] for name in LAYOUTS),
    ]
    if not all(map(is_valid_base, all_bases)):
        return "invalid_topic_base"
    for one, other in combinations(bases(data), 2):
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            return "topic_bases_overlap"
    return None
