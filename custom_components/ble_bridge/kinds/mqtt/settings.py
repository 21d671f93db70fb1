"""From what the user entered to how a broker is reached."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_PASSWORD,
    CONF_PORT,
    CONF_PROTOCOL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant, callback

from ...const import (
    CONF_ALPN,
    CONF_BROKER,
    CONF_CA_CERTIFICATE,
    CONF_CLEAN_SESSION,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CONNECT_TIMEOUT,
    CONF_DISCONNECT_TIMEOUT,
    CONF_FIRST_DELAY,
    CONF_KEEPALIVE,
    CONF_LONGEST_DELAY,
    CONF_MESSAGE_EXPIRY,
    CONF_SERVER_NAME,
    CONF_SESSION_EXPIRY,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    CONF_USER_PROPERTIES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_WEBSOCKET_PATH,
    Broker,
    Transport,
)
from ...destinations.errors import ConnectError, Problem
from ...destinations.mqtt_connection import (
    CONNECT_TIMEOUT,
    DISCONNECT_TIMEOUT,
    SESSION_EXPIRY,
    MqttProtocol,
    MqttSettings,
)
from ..security import TLS_DEFAULTS

MQTT_DOMAIN: Final = "mqtt"
# What destinations have that were set up before there was more to say of a connection.
_CONNECTION_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_USERNAME: None,
    CONF_PASSWORD: None,
    **TLS_DEFAULTS,
    CONF_ALPN: [],
    CONF_TRANSPORT: Transport.TCP.value,
    CONF_WEBSOCKET_PATH: DEFAULT_WEBSOCKET_PATH,
    CONF_WEBSOCKET_HEADERS: {},
    CONF_UNIX_PATH: None,
    CONF_SESSION_EXPIRY: SESSION_EXPIRY,
    CONF_MESSAGE_EXPIRY: None,
    CONF_USER_PROPERTIES: [],
    CONF_CONNECT_TIMEOUT: CONNECT_TIMEOUT,
    CONF_DISCONNECT_TIMEOUT: DISCONNECT_TIMEOUT,
}


@callback
def connection_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a destination's connection is made of, with what is not said."""
    return {**_CONNECTION_DEFAULTS, **data}


@callback
def mqtt_settings(hass: HomeAssistant, data: Mapping[str, Any]) -> MqttSettings:
    """Return the settings of a destination; raises ConnectError.

    For the broker of Home Assistant they are read anew each time, so that they follow
    what the user changes there, and its password is stored in one place only.
    """
    said = connection_data(data)
    ours: dict[str, Any] = {
        "client_id": data[CONF_CLIENT_ID],
        "keepalive": data[CONF_KEEPALIVE],
        "clean_session": data[CONF_CLEAN_SESSION],
        "protocol": MqttProtocol(data[CONF_PROTOCOL]),
        "user_properties": tuple(
            split_property(text) for text in said[CONF_USER_PROPERTIES]
        ),
        # What is not said of the delays stays open, for the destination knows them.
        **{key: data.get(key) for key in (CONF_FIRST_DELAY, CONF_LONGEST_DELAY)},
        **{
            key: said[key]
            for key in (
                CONF_CONNECT_TIMEOUT,
                CONF_DISCONNECT_TIMEOUT,
                CONF_MESSAGE_EXPIRY,
                CONF_SESSION_EXPIRY,
            )
        },
    }
    if data[CONF_BROKER] == Broker.CUSTOM:
        return MqttSettings(**_own_broker(said), **ours)
    theirs = home_assistant_broker(hass)
    if theirs is None:
        raise ConnectError(Problem.BROKER_MISSING)
    certificate = theirs.get("certificate")
    websockets = theirs.get("transport") == "websockets"
    return MqttSettings(
        host=theirs["broker"],
        port=theirs.get(CONF_PORT, DEFAULT_PORT),
        username=theirs.get(CONF_USERNAME),
        password=theirs.get(CONF_PASSWORD),
        tls=certificate is not None,
        tls_insecure=theirs.get("tls_insecure", False),
        ca=None if certificate in (None, "auto") else certificate,
        client_certificate=theirs.get("client_cert"),
        client_key=theirs.get("client_key"),
        websocket_path=theirs.get("ws_path", "/") if websockets else None,
        websocket_headers=theirs.get("ws_headers", {}) if websockets else {},
        **ours,
    )


def _own_broker(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to reach a broker of which the user has entered all."""
    transport = said[CONF_TRANSPORT]
    websockets = transport == Transport.WEBSOCKETS
    return {
        "host": said[CONF_HOST],
        "port": said[CONF_PORT],
        "username": said[CONF_USERNAME],
        "password": said[CONF_PASSWORD],
        "tls": said[CONF_TLS],
        "server_name": said[CONF_SERVER_NAME],
        "alpn": tuple(said[CONF_ALPN]),
        "ca": said[CONF_CA_CERTIFICATE],
        "client_certificate": said[CONF_CLIENT_CERTIFICATE],
        "client_key": said[CONF_CLIENT_KEY],
        "websocket_path": said[CONF_WEBSOCKET_PATH] if websockets else None,
        "websocket_headers": said[CONF_WEBSOCKET_HEADERS] if websockets else {},
        "unix_path": said[CONF_UNIX_PATH] if transport == Transport.UNIX else None,
    }


def split_property(text: str) -> tuple[str, str]:
    """Return name and value of a user property, which is written name=value."""
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def broker_place(data: Mapping[str, Any]) -> str:
    """Return what tells one broker from another."""
    if data[CONF_BROKER] != Broker.CUSTOM:
        return str(data[CONF_BROKER])
    if data.get(CONF_TRANSPORT) == Transport.UNIX:
        return f"unix:{data[CONF_UNIX_PATH]}"
    return f"{data[CONF_HOST].lower()}:{data[CONF_PORT]}"


def place(data: Mapping[str, Any]) -> str:
    """Return what tells one destination from another: its broker and its topics."""
    return f"{broker_place(data)}/{data[CONF_TOPIC_BASE]}"


@callback
def home_assistant_broker(hass: HomeAssistant) -> Mapping[str, Any] | None:
    """Return the settings of Home Assistant's own MQTT integration, if it is set up."""
    for entry in hass.config_entries.async_entries(
        MQTT_DOMAIN, include_ignore=False, include_disabled=False
    ):
        if "broker" in entry.data:
            return entry.data
    return None
