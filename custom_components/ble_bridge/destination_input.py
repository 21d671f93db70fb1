"""From what is entered in the form of a destination to its data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from itertools import combinations
import re
from typing import Any, Final

from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_PASSWORD,
    CONF_PORT,
    CONF_PROTOCOL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util

from .certificates import (
    CertificateError,
    check_pair,
    read_ca,
    read_client_certificate,
    read_key,
)
from .const import (
    CONF_ADVANCED,
    CONF_ALPN,
    CONF_BROKER,
    CONF_CA,
    CONF_CA_CERTIFICATE,
    CONF_CLEAN_SESSION,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CLIENT_KEY_PASSWORD,
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
    CONF_SERVER_NAME,
    CONF_SESSION_EXPIRY,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    CONF_USE_CLIENT_CERTIFICATE,
    CONF_USER_PROPERTIES,
    CONF_VALUES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_PORT_TLS,
    DEFAULT_WEBSOCKET_PATH,
    SUBENTRY_DESTINATION,
    Authorities,
    Broker,
    Transport,
)
from .destinations.mqtt_connection import new_client_id
from .forms import lines, plain_number
from .layouts.topics import is_valid_base, safe_part
from .publisher import layout_settings
from .settings import (
    broker_place,
    connection_data,
    delivery_data,
    place,
    split_property,
)
from .uploads import Uploads

# The layouts for records; what is published raw is set under advanced settings.
LAYOUTS: Final = (CONF_FIELDS, CONF_VALUES)

MAX_LINES: Final = 20
_MAX_TEXT: Final = 1024
# The path of a Unix socket, without the NUL that ends it (unix(7))
_MAX_UNIX_PATH: Final = 107
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_WEBSOCKET_PATH: Final = re.compile(r"/[!-~]{0,1023}")
_CERTIFICATES: Final = (CONF_CA_CERTIFICATE, CONF_CLIENT_CERTIFICATE, CONF_CLIENT_KEY)
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
    CONF_SERVER_NAME: None,
    CONF_ALPN: [],
    **dict.fromkeys(_CERTIFICATES),
    CONF_TRANSPORT: Transport.TCP.value,
    CONF_WEBSOCKET_PATH: DEFAULT_WEBSOCKET_PATH,
    CONF_WEBSOCKET_HEADERS: {},
    CONF_UNIX_PATH: None,
}


class InputError(Exception):
    """Something in a section of the form that cannot be used."""


@dataclass(slots=True)
class Entered:
    """What a form says of a destination, what is wrong with it, and what the errors name."""

    data: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    placeholders: dict[str, str] = field(default_factory=lambda: {"date": ""})


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
            CONF_HOST: _without_brackets(user_input[CONF_HOST]),
            CONF_PORT: _port(user_input[CONF_PORT]),
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
    delivery = user_input.get(CONF_DELIVERY) or delivery_data(previous)
    data[CONF_DELIVERY] = {key: _plain(value) for key, value in delivery.items()}
    if data[CONF_USERNAME] and not data[CONF_PASSWORD]:
        data[CONF_PASSWORD] = previous.get(CONF_PASSWORD)
    try:
        if data[CONF_BROKER] == Broker.CUSTOM:
            data |= _transport(user_input.get(CONF_TRANSPORT), previous)
            data |= await _async_security(
                hass, uploads, user_input.get(CONF_SECURITY), previous
            )
        data |= _advanced(advanced)
    except CertificateError as err:
        errors["base"] = err.fault.value
        if err.date is not None:
            date = dt_util.as_local(err.date).date()
            entered.placeholders["date"] = date.isoformat()
    except InputError as err:
        errors["base"] = str(err)
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
    if not _is_host(data[CONF_HOST]):
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


async def _async_security(
    hass: HomeAssistant,
    uploads: Uploads,
    said: Mapping[str, Any] | None,
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is said of TLS; raises InputError and CertificateError."""
    before = connection_data(previous)
    kept = {key: before[key] for key in (CONF_SERVER_NAME, CONF_ALPN, *_CERTIFICATES)}
    if said is None:
        return {CONF_TLS: previous.get(CONF_TLS, False), **kept}
    own = said[CONF_CA] == Authorities.OWN
    client = said[CONF_USE_CLIENT_CERTIFICATE]
    used = {CONF_CA_CERTIFICATE: own}
    used |= dict.fromkeys((CONF_CLIENT_CERTIFICATE, CONF_CLIENT_KEY), client)
    if any(said.get(key) and not (use and said[CONF_TLS]) for key, use in used.items()):
        raise InputError("file_unused")
    data = {
        **(await async_certificates(hass, uploads, said, kept)),
        **{key: None for key, use in used.items() if not use},
    }
    if own and data[CONF_CA_CERTIFICATE] is None:
        raise InputError("ca_missing")
    if client and None in (data[CONF_CLIENT_CERTIFICATE], data[CONF_CLIENT_KEY]):
        raise InputError("client_certificate_missing")
    server_name = (said.get(CONF_SERVER_NAME) or "").strip() or None
    if server_name is not None and not is_server_name(server_name):
        raise InputError("invalid_server_name")
    alpn = lines(said.get(CONF_ALPN, ()))
    if len(alpn) > MAX_LINES or not all(
        name.isascii() and name.isprintable() and len(name) < 256 for name in alpn
    ):
        raise InputError("invalid_alpn")
    return {
        CONF_TLS: said[CONF_TLS],
        **data,
        CONF_SERVER_NAME: server_name,
        CONF_ALPN: alpn,
    }


async def async_certificates(
    hass: HomeAssistant,
    uploads: Uploads,
    said: Mapping[str, Any],
    kept: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the certificates and the key that were uploaded, else those that are kept.

    Raises InputError where a file is gone, and CertificateError where it cannot be used.
    """
    try:
        files = {
            key: await uploads.async_read(hass, file_id)
            for key in _CERTIFICATES
            if (file_id := said.get(key))
        }
    except ValueError as err:
        raise InputError("upload_gone") from err
    password = said.get(CONF_CLIENT_KEY_PASSWORD)
    return await hass.async_add_executor_job(_read_files, files, password, kept)


def _read_files(
    files: Mapping[str, bytes], password: str | None, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is in files, else what is kept; blocks, raises CertificateError."""
    now = dt_util.utcnow()
    data = {key: kept[key] for key in _CERTIFICATES}
    if ca := files.get(CONF_CA_CERTIFICATE):
        data[CONF_CA_CERTIFICATE] = read_ca(ca, now)
    if certificate := files.get(CONF_CLIENT_CERTIFICATE):
        data[CONF_CLIENT_CERTIFICATE] = read_client_certificate(certificate, now)
    if key := files.get(CONF_CLIENT_KEY):
        data[CONF_CLIENT_KEY] = read_key(key, password)
    pair = data[CONF_CLIENT_CERTIFICATE], data[CONF_CLIENT_KEY]
    if None not in pair:
        check_pair(*pair)
    return data


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
            key: _plain(said[key])
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


def _plain(value: Any) -> Any:
    """Return a number as it would be written, and all else as it is."""
    return plain_number(value) if isinstance(value, float) else value


# --- topics -------------------------------------------------------------------------------


def _base(data: Mapping[str, Any]) -> str:
    """Return a topic base without what does no harm around it."""
    base: str = data[CONF_TOPIC_BASE]
    return base.strip().strip("/")


def _bases(data: Mapping[str, Any]) -> list[str]:
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
    bases = [data[CONF_TOPIC_BASE], *(data[name][CONF_TOPIC_BASE] for name in LAYOUTS)]
    if not all(map(is_valid_base, bases)):
        return "invalid_topic_base"
    for one, other in combinations(_bases(data), 2):
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            return "topic_bases_overlap"
    return None


def conflict(
    data: Mapping[str, Any], others: Iterable[ConfigSubentry]
) -> tuple[str, str] | None:
    """Return a topic base that another destination uses on the same broker, and its title.

    Two would publish everything twice there, and each would clear what the other keeps.
    """
    for other in others:
        if (
            other.subentry_type == SUBENTRY_DESTINATION
            and broker_place(other.data) == broker_place(data)
            and (shared := set(_bases(data)).intersection(_bases(other.data)))
        ):
            return min(shared), other.title
    return None


def is_taken(data: Mapping[str, Any], others: Iterable[ConfigSubentry]) -> bool:
    """Tell whether another destination has the same broker and topics."""
    return any(other.unique_id == place(data) for other in others)


# --- addresses ----------------------------------------------------------------------------


def _port(number: float) -> int | None:
    """Return the port that a number is, if it is one."""
    return int(number) if 1 <= number <= 65535 and number == int(number) else None


def _without_brackets(host: str) -> str:
    """Return a host as it was entered, an IPv6 address without its brackets."""
    return host.strip().removeprefix("[").removesuffix("]")


def _is_host(host: str) -> bool:
    """Tell whether a text can be the name or the address of a machine, and is no more."""
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            return False
        return True
    return (
        0 < len(host) <= 253
        and host.isprintable()
        and set(host).isdisjoint("/ @?#\\[]")
    )


def is_server_name(name: str) -> bool:
    """Tell whether TLS can ask for a name."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return _is_host(name) and not name.startswith(".")
