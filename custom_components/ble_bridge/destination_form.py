"""The form of a destination: its fields, what they show, and whether it works."""

from collections.abc import Iterable, Mapping
import logging
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
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    FileSelector,
    FileSelectorConfig,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
import voluptuous as vol

from .const import (
    CONF_ADVANCED,
    CONF_ALPN,
    CONF_BROKER,
    CONF_BUFFER_MEGABYTES,
    CONF_BUFFER_RECORDS,
    CONF_CA,
    CONF_CA_CERTIFICATE,
    CONF_CLEAN_SESSION,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CLIENT_KEY_PASSWORD,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_DISCONNECT_TIMEOUT,
    CONF_DRAIN_RATE,
    CONF_ENABLED,
    CONF_FIRST_DELAY,
    CONF_KEEPALIVE,
    CONF_LONGEST_DELAY,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_IN_FLIGHT,
    CONF_MAX_TRIES,
    CONF_MESSAGE_EXPIRY,
    CONF_PUBLISH_TIMEOUT,
    CONF_QOS,
    CONF_RAW,
    CONF_SECURITY,
    CONF_SERVER_NAME,
    CONF_SESSION_EXPIRY,
    CONF_STORE_MEGABYTES,
    CONF_STORE_RECORDS,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    CONF_USE_CLIENT_CERTIFICATE,
    CONF_USER_PROPERTIES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_TOPIC_BASE,
    DEFAULT_WEBSOCKET_PATH,
    Authorities,
    Broker,
    Transport,
)
from .destination_input import LAYOUTS
from .destinations.errors import ConnectError
from .destinations.mqtt import FIRST_DELAY, LONGEST_DELAY
from .destinations.mqtt_connection import (
    CONNECT_TIMEOUT,
    DISCONNECT_TIMEOUT,
    SESSION_EXPIRY,
    MqttConnector,
    MqttProtocol,
    Will,
    new_client_id,
)
from .destinations.policy import Policy
from .forms import TEXT, TEXTS, number
from .layouts.raw import bridge_topic
from .publisher import DELIVERIES, layout_settings
from .settings import (
    broker_place,
    connection_data,
    delivery_data,
    home_assistant_broker,
    mqtt_settings,
)

_LOGGER = logging.getLogger(__name__)

# How long the form waits for a broker, where the connection itself is more patient.
_TEST_TIMEOUT: Final = 10.0

_USERNAME: Final = TextSelector(TextSelectorConfig(autocomplete="off"))
_PASSWORD: Final = TextSelector(
    TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="new-password")
)
CREDENTIALS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_USERNAME): _USERNAME,
    vol.Optional(CONF_PASSWORD): _PASSWORD,
}
_CERTIFICATE: Final = FileSelector(
    FileSelectorConfig(accept=".pem,.crt,.cer,.der,application/x-x509-ca-cert")
)
_KEY: Final = FileSelector(
    FileSelectorConfig(accept=".pem,.key,.der,.p8,.pk8,application/pkcs8")
)
CA_UPLOAD: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_CA_CERTIFICATE): _CERTIFICATE
}
CLIENT_UPLOADS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_CLIENT_CERTIFICATE): _CERTIFICATE,
    vol.Optional(CONF_CLIENT_KEY): _KEY,
    vol.Optional(CONF_CLIENT_KEY_PASSWORD): _PASSWORD,
}
SERVER_NAME: Final[dict[vol.Marker, Any]] = {vol.Optional(CONF_SERVER_NAME): TEXT}


def _choice(options: Iterable[str], translation_key: str) -> SelectSelector:
    """Return a field for one of a few things that have a text each."""
    return SelectSelector(
        SelectSelectorConfig(
            options=list(options),
            translation_key=translation_key,
            mode=SelectSelectorMode.DROPDOWN,
        )
    )


_SECURITY_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TLS, default=False): BooleanSelector(),
        vol.Optional(CONF_CA, default=Authorities.SYSTEM.value): _choice(
            Authorities, CONF_CA
        ),
        **CA_UPLOAD,
        vol.Optional(CONF_USE_CLIENT_CERTIFICATE, default=False): BooleanSelector(),
        **CLIENT_UPLOADS,
        **SERVER_NAME,
        vol.Optional(CONF_ALPN): TEXTS,
    }
)
_TRANSPORT_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TRANSPORT, default=Transport.TCP.value): _choice(
            Transport, CONF_TRANSPORT
        ),
        vol.Optional(CONF_WEBSOCKET_PATH, default=DEFAULT_WEBSOCKET_PATH): TEXT,
        vol.Optional(CONF_WEBSOCKET_HEADERS): TEXTS,
        vol.Optional(CONF_UNIX_PATH): TEXT,
    }
)
_YEAR: Final = 365 * 24 * 3600
_ADVANCED_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TOPIC_BASE, default=DEFAULT_TOPIC_BASE): TEXT,
        vol.Optional(CONF_RAW, default=True): BooleanSelector(),
        vol.Optional(CONF_QOS, default="0"): SelectSelector(
            SelectSelectorConfig(options=["0", "1", "2"], translation_key=CONF_QOS)
        ),
        vol.Optional(CONF_PROTOCOL, default=MqttProtocol.AUTO.value): SelectSelector(
            SelectSelectorConfig(
                # The dots of a version cannot stand in a translation key.
                options=[
                    SelectOptionDict(value=protocol.value, label=protocol.value)
                    for protocol in MqttProtocol
                ],
                translation_key=CONF_PROTOCOL,
                mode=SelectSelectorMode.DROPDOWN,
            )
        ),
        vol.Optional(CONF_CLIENT_ID): TEXT,
        vol.Optional(CONF_KEEPALIVE, default=60): number(5, 3600, "s"),
        vol.Optional(CONF_CLEAN_SESSION, default=True): BooleanSelector(),
        vol.Optional(CONF_SESSION_EXPIRY, default=SESSION_EXPIRY): number(
            0, _YEAR, "s"
        ),
        vol.Optional(CONF_MESSAGE_EXPIRY): number(1, _YEAR, "s"),
        vol.Optional(CONF_USER_PROPERTIES): TEXTS,
        vol.Optional(CONF_CONNECT_TIMEOUT, default=CONNECT_TIMEOUT): number(
            1, 300, "s", None
        ),
        vol.Optional(CONF_DISCONNECT_TIMEOUT, default=DISCONNECT_TIMEOUT): number(
            0.05, 10, "s", None
        ),
        vol.Optional(CONF_FIRST_DELAY, default=FIRST_DELAY): number(
            0.1, 300, "s", None
        ),
        vol.Optional(CONF_LONGEST_DELAY, default=LONGEST_DELAY): number(
            0.1, 3600, "s", None
        ),
    }
)
# How much and how long each may be; what is not among them is a policy.
_BOUNDS: Final[Mapping[str, NumberSelector]] = {
    CONF_BUFFER_RECORDS: number(1, 100_000, "records"),
    CONF_BUFFER_MEGABYTES: number(1, 256, "MB"),
    CONF_STORE_RECORDS: number(100, 10_000_000, "records"),
    CONF_STORE_MEGABYTES: number(1, 4096, "MB"),
    CONF_MAX_AGE_HOURS: number(1, 8760, "h"),
    CONF_PUBLISH_TIMEOUT: number(0.1, 300, "s", None),
    CONF_MAX_IN_FLIGHT: number(1, 10_000, "messages"),
    CONF_DRAIN_RATE: number(1, 100_000, "records/s"),
    CONF_MAX_TRIES: number(1, 100),
}
_POLICY: Final = _choice(Policy, "policy")
_DELIVERY_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=value): _BOUNDS.get(key, _POLICY)
        for key, value in delivery_data({}).items()
    }
)
_DELIVERY: Final = _choice(DELIVERIES, "delivery")


def _layout_schema(name: str) -> vol.Schema:
    """Return the fields of a layout: whether, where, and how each kind of record."""
    return vol.Schema(
        {
            vol.Optional(key, default=value): {
                CONF_ENABLED: BooleanSelector(),
                CONF_TOPIC_BASE: TEXT,
            }.get(key, _DELIVERY)
            for key, value in layout_settings({}, name).items()
        }
    )


def destination_schema(hass: HomeAssistant) -> dict[vol.Marker, Any]:
    """Return the fields of a destination."""
    fields: dict[vol.Marker, Any] = {}
    if home_assistant_broker(hass) is not None:
        fields[vol.Required(CONF_BROKER, default=Broker.HOME_ASSISTANT.value)] = (
            SelectSelector(
                SelectSelectorConfig(
                    options=[Broker.HOME_ASSISTANT.value, Broker.CUSTOM.value],
                    translation_key=CONF_BROKER,
                )
            )
        )
    return {
        **fields,
        vol.Optional(CONF_HOST, default="localhost"): TEXT,
        vol.Optional(CONF_PORT, default=DEFAULT_PORT): NumberSelector(
            NumberSelectorConfig(mode=NumberSelectorMode.BOX)
        ),
        **CREDENTIALS,
        vol.Optional(CONF_SECURITY): section(_SECURITY_SCHEMA, {"collapsed": True}),
        vol.Optional(CONF_TRANSPORT): section(_TRANSPORT_SCHEMA, {"collapsed": True}),
        **{
            vol.Optional(name): section(_layout_schema(name), {"collapsed": True})
            for name in LAYOUTS
        },
        vol.Optional(CONF_DELIVERY): section(_DELIVERY_SCHEMA, {"collapsed": True}),
        vol.Required(CONF_ADVANCED): section(_ADVANCED_SCHEMA, {"collapsed": True}),
    }


def suggested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a destination's data as the form shows them, without any secret.

    Of headers only the names are shown.
    """
    data = {
        CONF_RAW: True,
        CONF_FIRST_DELAY: FIRST_DELAY,
        CONF_LONGEST_DELAY: LONGEST_DELAY,
        **connection_data(data),
    }
    own = data[CONF_CA_CERTIFICATE] is not None
    sections: dict[str, dict[str, Any]] = {
        CONF_SECURITY: {
            CONF_TLS: data[CONF_TLS],
            CONF_CA: (Authorities.OWN if own else Authorities.SYSTEM).value,
            CONF_USE_CLIENT_CERTIFICATE: data[CONF_CLIENT_CERTIFICATE] is not None,
            CONF_SERVER_NAME: data[CONF_SERVER_NAME],
            CONF_ALPN: data[CONF_ALPN],
        },
        CONF_TRANSPORT: {
            CONF_TRANSPORT: data[CONF_TRANSPORT],
            CONF_WEBSOCKET_PATH: data[CONF_WEBSOCKET_PATH],
            CONF_WEBSOCKET_HEADERS: [
                f"{name}:" for name in data[CONF_WEBSOCKET_HEADERS]
            ],
            CONF_UNIX_PATH: data[CONF_UNIX_PATH],
        },
        **{name: layout_settings(data, name) for name in LAYOUTS},
        CONF_DELIVERY: delivery_data(data),
        CONF_ADVANCED: {
            **{key: data[key] for key in map(str, _ADVANCED_SCHEMA.schema)},
            CONF_QOS: str(data[CONF_QOS]),
        },
    }
    shown = (CONF_BROKER, CONF_HOST, CONF_PORT, CONF_USERNAME)
    return {
        **{key: data[key] for key in shown if data[key]},
        **{
            name: {key: value for key, value in part.items() if value is not None}
            for name, part in sections.items()
        },
    }


def destination_title(data: Mapping[str, Any]) -> str:
    """Return the title of a destination."""
    if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
        title = "Home Assistant's MQTT broker"
    elif data.get(CONF_TRANSPORT) == Transport.UNIX:
        title = data[CONF_UNIX_PATH]
    else:
        title = f"{data[CONF_HOST]}:{data[CONF_PORT]}"
    base = data[CONF_TOPIC_BASE]
    return title if base == DEFAULT_TOPIC_BASE else f"{title} ({base})"


async def async_test(
    hass: HomeAssistant,
    bridge_id: str,
    data: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Connect to the broker once as the bridge will, and return what went wrong.

    Where the destination is connected to that broker already, another client ID is used,
    for its own would end the connection that is there.
    """
    if (
        previous
        and broker_place(data) == broker_place(previous)
        and data[CONF_CLIENT_ID] == previous[CONF_CLIENT_ID]
    ):
        data = {**data, CONF_CLIENT_ID: new_client_id()}
    try:
        settings = mqtt_settings(hass, data)
        patience = settings.connect_timeout
        if patience <= CONNECT_TIMEOUT:
            patience = min(patience, _TEST_TIMEOUT)
        connection = await MqttConnector(
            settings,
            Will(bridge_topic(data[CONF_TOPIC_BASE], bridge_id), b"offline"),
            patience,
        ).async_connect()
    except ConnectError as err:
        return {"base": err.problem.value}
    except Exception:
        _LOGGER.exception("Unexpected error while connecting to the broker")
        return {"base": "unknown"}
    await connection.async_close()
    return {}
