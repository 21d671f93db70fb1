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

from .const import (
    CONF_BROKER,
    CONF_CLEAN_SESSION,
    CONF_KEEPALIVE,
    CONF_TLS,
    CONF_TOPIC_BASE,
    DEFAULT_PORT,
    Broker,
)
from .destinations.errors import ConnectError, Problem
from .destinations.mqtt_connection import MqttProtocol, MqttSettings

MQTT_DOMAIN: Final = "mqtt"


@callback
def mqtt_settings(hass: HomeAssistant, data: Mapping[str, Any]) -> MqttSettings:
    """Return the settings of a destination; raises ConnectError.

    For the broker of Home Assistant they are read anew each time, so that they follow
    what the user changes there, and its password is stored in one place only.
    """
    ours: dict[str, Any] = {
        "client_id": data[CONF_CLIENT_ID],
        "keepalive": data[CONF_KEEPALIVE],
        "clean_session": data[CONF_CLEAN_SESSION],
        "protocol": MqttProtocol(data[CONF_PROTOCOL]),
    }
    if data[CONF_BROKER] == Broker.CUSTOM:
        return MqttSettings(
            host=data[CONF_HOST],
            port=data[CONF_PORT],
            username=data.get(CONF_USERNAME),
            password=data.get(CONF_PASSWORD),
            tls=data[CONF_TLS],
            **ours,
        )
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


def place(data: Mapping[str, Any]) -> str:
    """Return what tells one destination from another: its broker and its topics."""
    broker = (
        f"{data[CONF_HOST].lower()}:{data[CONF_PORT]}"
        if data[CONF_BROKER] == Broker.CUSTOM
        else data[CONF_BROKER]
    )
    return f"{broker}/{data[CONF_TOPIC_BASE]}"


@callback
def home_assistant_broker(hass: HomeAssistant) -> Mapping[str, Any] | None:
    """Return the settings of Home Assistant's own MQTT integration, if it is set up."""
    for entry in hass.config_entries.async_entries(
        MQTT_DOMAIN, include_ignore=False, include_disabled=False
    ):
        if "broker" in entry.data:
            return entry.data
    return None
