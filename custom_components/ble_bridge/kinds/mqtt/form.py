"""The form of an MQTT destination: its fields, what they show, and whether it works."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_PORT,
    CONF_PROTOCOL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
)
import voluptuous as vol

from ...const import (
    CONF_ADVANCED,
    CONF_ALPN,
    CONF_BROKER,
    CONF_CLEAN_SESSION,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_DISCONNECT_TIMEOUT,
    CONF_ENABLED,
    CONF_FIRST_DELAY,
    CONF_KEEPALIVE,
    CONF_LONGEST_DELAY,
    CONF_MESSAGE_EXPIRY,
    CONF_QOS,
    CONF_RAW,
    CONF_SECURITY,
    CONF_SESSION_EXPIRY,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    CONF_USER_PROPERTIES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_TOPIC_BASE,
    DEFAULT_WEBSOCKET_PATH,
    Broker,
    Transport,
)
from ...destinations.destination import FIRST_DELAY, LONGEST_DELAY
from ...destinations.mqtt_connection import (
    CONNECT_TIMEOUT,
    DISCONNECT_TIMEOUT,
    SESSION_EXPIRY,
    MqttConnector,
    MqttProtocol,
    Will,
    new_client_id,
)
from ...forms import TEXT, TEXTS, choice, number
from ...layouts.raw import bridge_topic
from ...settings import delivery_data
from ..delivery import DELIVERY_SCHEMA
from ..security import CREDENTIALS, SECURITY_FIELDS, suggested_security
from .input import LAYOUTS
from .publisher import DELIVERIES, layout_settings
from .settings import (
    broker_place,
    connection_data,
    home_assistant_broker,
    mqtt_settings,
)

# How long the form waits for a broker, where the connection itself is more patient.
_TEST_TIMEOUT: Final = 10.0

_SECURITY_SCHEMA: Final = vol.Schema(
    {**SECURITY_FIELDS, vol.Optional(CONF_ALPN): TEXTS}
)
_TRANSPORT_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TRANSPORT, default=Transport.TCP.value): choice(
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
_DELIVERY: Final = choice(DELIVERIES, "delivery")


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
        vol.Optional(CONF_DELIVERY): section(DELIVERY_SCHEMA, {"collapsed": True}),
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
    sections: dict[str, dict[str, Any]] = {
        CONF_SECURITY: {**suggested_security(data), CONF_ALPN: data[CONF_ALPN]},
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


async def async_try(
    hass: HomeAssistant,
    bridge_id: str,
    data: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> None:
    """Connect to the broker once as the bridge will; raises ConnectError.

    Where the destination is connected to that broker already, another client ID is used,
    for its own would end the connection that is there.
    """
    if (
        previous
        and broker_place(data) == broker_place(previous)
        and data[CONF_CLIENT_ID] == previous[CONF_CLIENT_ID]
    ):
        data = {**data, CONF_CLIENT_ID: new_client_id()}
    settings = mqtt_settings(hass, data)
    patience = settings.connect_timeout
    if patience <= CONNECT_TIMEOUT:
        patience = min(patience, _TEST_TIMEOUT)
    connection = await MqttConnector(
        settings,
        Will(bridge_topic(data[CONF_TOPIC_BASE], bridge_id), b"offline"),
        patience,
    ).async_connect()
    await connection.async_close()
