"""The form of a NATS destination: its fields, what they show, and what is entered."""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from homeassistant.const import CONF_PASSWORD, CONF_TOKEN, CONF_USERNAME
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    FileSelector,
    FileSelectorConfig,
    SelectSelector,
    SelectSelectorConfig,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
import voluptuous as vol

from ...const import (
    CONF_ADVANCED,
    CONF_AUTHENTICATION,
    CONF_CLIENT_NAME,
    CONF_CONNECT_TIMEOUT,
    CONF_CREDENTIALS,
    CONF_DELIVERY,
    CONF_DISCONNECT_TIMEOUT,
    CONF_DUPLICATE_WINDOW,
    CONF_ENABLED,
    CONF_FIRST_DELAY,
    CONF_JETSTREAM,
    CONF_KIND,
    CONF_LONGEST_DELAY,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_IN_FLIGHT,
    CONF_MAX_MEGABYTES,
    CONF_MAX_MESSAGES,
    CONF_MESSAGES,
    CONF_METHOD,
    CONF_NAMESPACE,
    CONF_PAYLOAD,
    CONF_RAW,
    CONF_RECORDS,
    CONF_REPLICAS,
    CONF_RETENTION,
    CONF_SECURITY,
    CONF_SEED,
    CONF_SERVERS,
    CONF_STORAGE,
    CONF_STORED,
    CONF_TLS,
    DEFAULT_NAMESPACE,
    Authentication,
    PayloadFormat,
)
from ...destinations.destination import FIRST_DELAY, LONGEST_DELAY
from ...destinations.nats_connection import (
    CONNECT_TIMEOUT,
    DEFAULT_PORT,
    DISCONNECT_TIMEOUT,
)
from ...destinations.nats_keys import read_credentials, read_seed
from ...forms import TEXT, TEXTS, choice, lines, number
from ...layouts.subjects import is_valid_namespace
from ...records import DEVICE_KINDS, RecordKind
from ...settings import delivery_data
from ...uploads import Uploads
from ..delivery import delivery_schema
from ..entered import Entered, InputError, is_host, plain
from ..security import CREDENTIALS, SECURITY_FIELDS, async_security, suggested_security
from .settings import JETSTREAM_DEFAULTS, SECRETS

MAX_SERVERS: Final = 20
_MAX_TEXT: Final = 1024
_MAX_NAME: Final = 128
_DEFAULT_NAME: Final = "ble-bridge"
# A round trip for a thousand messages rather than for a hundred.
_DELIVERY_DEFAULTS: Final = {CONF_DELIVERY: {CONF_MAX_IN_FLIGHT: 1_000}}

_SECRET: Final = TextSelector(
    TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="off")
)
# What each way to show who we are asks for.
CREDENTIAL_FIELDS: Final[Mapping[Authentication, dict[vol.Marker, Any]]] = {
    Authentication.PASSWORD: CREDENTIALS,
    Authentication.TOKEN: {vol.Optional(CONF_TOKEN): _SECRET},
    Authentication.NKEY: {vol.Optional(CONF_SEED): _SECRET},
    Authentication.CREDENTIALS: {
        vol.Optional(CONF_CREDENTIALS): FileSelector(
            FileSelectorConfig(accept=".creds,.txt,text/plain")
        )
    },
}
_AUTHENTICATION_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_METHOD, default=Authentication.NONE.value): choice(
            Authentication, CONF_AUTHENTICATION
        ),
        **{
            marker: field
            for fields in CREDENTIAL_FIELDS.values()
            for marker, field in fields.items()
        },
    }
)
_MESSAGES_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_PAYLOAD: PayloadFormat.PROTOBUF.value,
    CONF_RECORDS: True,
    CONF_RAW: True,
}
_MESSAGES_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_PAYLOAD, default=_MESSAGES_DEFAULTS[CONF_PAYLOAD]): choice(
            PayloadFormat, CONF_PAYLOAD
        ),
        vol.Optional(CONF_RECORDS, default=True): BooleanSelector(),
        vol.Optional(CONF_RAW, default=True): BooleanSelector(),
    }
)
_JETSTREAM_FIELDS: Final[Mapping[str, Any]] = {
    CONF_ENABLED: BooleanSelector(),
    CONF_STORED: SelectSelector(
        SelectSelectorConfig(
            options=[*DEVICE_KINDS, RecordKind.ADVERTISEMENT],
            multiple=True,
            translation_key=CONF_STORED,
        )
    ),
    CONF_STORAGE: choice(("file", "memory"), CONF_STORAGE),
    CONF_RETENTION: choice(("limits", "interest", "workqueue"), CONF_RETENTION),
    CONF_MAX_AGE_HOURS: number(0, 87_600, "h"),
    CONF_MAX_MEGABYTES: number(0, 1_000_000, "MB"),
    CONF_MAX_MESSAGES: number(0, 10**12, "messages"),
    CONF_REPLICAS: SelectSelector(SelectSelectorConfig(options=["1", "3", "5"])),
    CONF_DUPLICATE_WINDOW: number(1, 86_400, "s"),
}
_JETSTREAM_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=value): _JETSTREAM_FIELDS[key]
        for key, value in JETSTREAM_DEFAULTS.items()
    }
)
_ADVANCED_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_CLIENT_NAME: _DEFAULT_NAME,
    CONF_CONNECT_TIMEOUT: CONNECT_TIMEOUT,
    CONF_DISCONNECT_TIMEOUT: DISCONNECT_TIMEOUT,
    CONF_FIRST_DELAY: FIRST_DELAY,
    CONF_LONGEST_DELAY: LONGEST_DELAY,
}
_ADVANCED_FIELDS: Final[Mapping[str, Any]] = {
    CONF_CLIENT_NAME: TEXT,
    CONF_CONNECT_TIMEOUT: number(1, 300, "s", None),
    CONF_DISCONNECT_TIMEOUT: number(0.05, 10, "s", None),
    CONF_FIRST_DELAY: number(0.1, 300, "s", None),
    CONF_LONGEST_DELAY: number(0.1, 3600, "s", None),
}
_ADVANCED_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=value): _ADVANCED_FIELDS[key]
        for key, value in _ADVANCED_DEFAULTS.items()
    }
)
FIELDS: Final[dict[vol.Marker, Any]] = {
    vol.Required(CONF_SERVERS, default=[f"nats://localhost:{DEFAULT_PORT}"]): TEXTS,
    vol.Required(CONF_NAMESPACE, default=DEFAULT_NAMESPACE): TEXT,
    **{
        vol.Optional(name): section(schema, {"collapsed": True})
        for name, schema in (
            (CONF_AUTHENTICATION, _AUTHENTICATION_SCHEMA),
            (CONF_SECURITY, vol.Schema(SECURITY_FIELDS)),
            (CONF_MESSAGES, _MESSAGES_SCHEMA),
            (CONF_JETSTREAM, _JETSTREAM_SCHEMA),
            (CONF_DELIVERY, delivery_schema(_DELIVERY_DEFAULTS)),
            (CONF_ADVANCED, _ADVANCED_SCHEMA),
        )
    },
}


def suggested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a destination's data as the form shows them, without any secret."""
    sections: dict[str, dict[str, Any]] = {
        CONF_AUTHENTICATION: {
            CONF_METHOD: data[CONF_AUTHENTICATION],
            CONF_USERNAME: data[CONF_USERNAME],
        },
        CONF_SECURITY: suggested_security(data),
        CONF_MESSAGES: {key: data[key] for key in _MESSAGES_DEFAULTS},
        CONF_JETSTREAM: {**JETSTREAM_DEFAULTS, **data[CONF_JETSTREAM]},
        CONF_DELIVERY: delivery_data(data),
        CONF_ADVANCED: {key: data[key] for key in _ADVANCED_DEFAULTS},
    }
    return {
        CONF_SERVERS: data[CONF_SERVERS],
        CONF_NAMESPACE: data[CONF_NAMESPACE],
        **{
            name: {key: value for key, value in part.items() if value is not None}
            for name, part in sections.items()
        },
    }


async def async_nats_data(
    hass: HomeAssistant,
    uploads: Uploads,
    user_input: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> Entered:
    """Return what a form says of a destination, and what is wrong with it.

    What the form does not show stays as it was where it is left empty: secrets and files. Who
    fills in the form by hand may leave a section out.
    """
    previous = previous or {}

    def said_of(name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        kept = {
            **defaults,
            **{key: previous.get(key, defaults[key]) for key in defaults},
        }
        said = user_input.get(name) or kept
        return {key: plain(said.get(key, kept[key])) for key in defaults}

    entered = Entered({CONF_KIND: "nats"})
    data, errors = entered.data, entered.errors
    data[CONF_NAMESPACE] = user_input[CONF_NAMESPACE].strip().strip(".")
    if not is_valid_namespace(data[CONF_NAMESPACE]):
        errors[CONF_NAMESPACE] = "invalid_namespace"
    data |= said_of(CONF_MESSAGES, _MESSAGES_DEFAULTS)
    jetstream = {**JETSTREAM_DEFAULTS, **previous.get(CONF_JETSTREAM, {})}
    jetstream |= user_input.get(CONF_JETSTREAM, {})
    data[CONF_JETSTREAM] = {key: plain(value) for key, value in jetstream.items()}
    said = user_input.get(CONF_DELIVERY) or delivery_data(
        previous or _DELIVERY_DEFAULTS
    )
    data[CONF_DELIVERY] = {key: plain(value) for key, value in said.items()}
    data |= said_of(CONF_ADVANCED, _ADVANCED_DEFAULTS)
    data[CONF_CLIENT_NAME] = data[CONF_CLIENT_NAME].strip() or _DEFAULT_NAME
    urls: list[str] = []
    secure = False
    try:
        urls, secure = read_servers(user_input[CONF_SERVERS])
    except InputError as err:
        errors[CONF_SERVERS] = str(err)
    with entered.collect():
        security = user_input.get(CONF_SECURITY)
        if security is not None and secure:
            security = {**security, CONF_TLS: True}
        data |= await async_security(hass, uploads, security, previous)
        data[CONF_TLS] |= secure
        data |= await async_authentication(
            hass, uploads, user_input.get(CONF_AUTHENTICATION), previous
        )
        if data[CONF_FIRST_DELAY] > data[CONF_LONGEST_DELAY]:
            raise InputError("delays_reversed")
        name = data[CONF_CLIENT_NAME]
        if len(name) > _MAX_NAME or not name.isprintable():
            raise InputError("invalid_client_name")
        if jetstream[CONF_ENABLED] and not jetstream[CONF_STORED]:
            raise InputError("nothing_stored")
    scheme = "tls" if data.get(CONF_TLS) else "nats"
    data[CONF_SERVERS] = [f"{scheme}://{url}" for url in urls]
    return entered


async def async_authentication(
    hass: HomeAssistant,
    uploads: Uploads,
    said: Mapping[str, Any] | None,
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how the bridge shows who it is; raises InputError.

    What is not entered stays as it was; what belongs to another way is forgotten.
    """
    kept = {key: previous.get(key) for key in SECRETS}
    if said is None:
        method = previous.get(CONF_AUTHENTICATION, Authentication.NONE.value)
        return {CONF_AUTHENTICATION: method, **kept}
    method = Authentication(said[CONF_METHOD])
    new = {
        key: (said.get(key) or "").strip() or None
        for key in (CONF_USERNAME, CONF_TOKEN, CONF_SEED)
    }
    new[CONF_PASSWORD] = said.get(CONF_PASSWORD) or None
    new[CONF_CREDENTIALS] = await _async_credentials(hass, uploads, said)
    needed = [str(key) for key in CREDENTIAL_FIELDS.get(method, ())]
    # What the form shows counts even where it is empty.
    data: dict[str, Any] = dict.fromkeys(SECRETS) | {
        key: new[key] if key == CONF_USERNAME else new[key] or kept[key]
        for key in needed
    }
    if not all(data[key] for key in needed):
        raise InputError("credentials_missing")
    if any(len(data[key] or "") > _MAX_TEXT for key in SECRETS[:-1]):
        raise InputError("credentials_missing")
    if data[CONF_SEED] is not None:
        try:
            read_seed(data[CONF_SEED])
        except ValueError as err:
            raise InputError("invalid_seed") from err
    return {CONF_AUTHENTICATION: method.value, **data}


async def _async_credentials(
    hass: HomeAssistant, uploads: Uploads, said: Mapping[str, Any]
) -> str | None:
    """Return a credentials file that was uploaded; raises InputError."""
    if not (file_id := said.get(CONF_CREDENTIALS)):
        return None
    try:
        content = await uploads.async_read(hass, file_id)
    except ValueError as err:
        raise InputError("upload_gone") from err
    try:
        text = content.decode()
        read_credentials(text)
    except ValueError as err:
        raise InputError("invalid_credentials") from err
    return text


def read_servers(entered: Iterable[str]) -> tuple[list[str], bool]:
    """Return hosts and ports of servers, and whether they are to be reached with TLS.

    Raises InputError.
    """
    found: dict[str, None] = {}
    schemes = set()
    for line in lines(entered):
        scheme, _, rest = line.rpartition("://")
        if "@" in rest:
            raise InputError("servers_with_credentials")
        if rest.count(":") > 1 and not rest.startswith("["):
            rest = f"[{rest}]"
        try:
            url = urlsplit(f"//{rest}")
            host, port = url.hostname or "", url.port or DEFAULT_PORT
        except ValueError as err:
            raise InputError("invalid_servers") from err
        if (
            scheme not in ("", "nats", "tls")
            or not is_host(host)
            or url.path.strip("/")
            or url.query
            or url.fragment
        ):
            raise InputError("invalid_servers")
        schemes.add(scheme == "tls")
        found[f"[{host}]:{port}" if ":" in host else f"{host}:{port}"] = None
    if not 0 < len(found) <= MAX_SERVERS:
        raise InputError("invalid_servers")
    if len(schemes) > 1:
        raise InputError("servers_mixed")
    return [*found], schemes.pop()
