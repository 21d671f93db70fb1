"""From what the user entered to how a broker is reached, and what a device is."""

from collections.abc import Mapping
import logging
from types import MappingProxyType
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
from homeassistant.core import HomeAssistant, callback
from homeassistant.util import slugify

from .alerts import Rule
from .const import (
    CONF_ADDRESS,
    CONF_ALERTS,
    CONF_ALIAS,
    CONF_ALPN,
    CONF_BROKER,
    CONF_BUFFER_MEGABYTES,
    CONF_BUFFER_RECORDS,
    CONF_CA_CERTIFICATE,
    CONF_CLEAN_SESSION,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_DISCONNECT_TIMEOUT,
    CONF_DRAIN_RATE,
    CONF_FIRST_DELAY,
    CONF_IRK,
    CONF_KEEPALIVE,
    CONF_KEY,
    CONF_LONGEST_DELAY,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_IN_FLIGHT,
    CONF_MAX_TRIES,
    CONF_MESSAGE_EXPIRY,
    CONF_MINIMUM_INTERVAL,
    CONF_PATH_LOSS,
    CONF_PUBLISH_TIMEOUT,
    CONF_REFERENCE_RSSI,
    CONF_RSSI_CHANGE,
    CONF_SERVER_NAME,
    CONF_SESSION_EXPIRY,
    CONF_SHAPING,
    CONF_STORE_MEGABYTES,
    CONF_STORE_RECORDS,
    CONF_TIMEOUT,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNCHANGED_INTERVAL,
    CONF_UNIX_PATH,
    CONF_USER_PROPERTIES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
    DEFAULT_PORT,
    DEFAULT_WEBSOCKET_PATH,
    SUBENTRY_DEVICE,
    Broker,
    Transport,
)
from .decoders.format_table import FormatError, parse_formats
from .decoders.formats import Format
from .destinations.errors import ConnectError, Problem
from .destinations.mqtt_connection import (
    CONNECT_TIMEOUT,
    DISCONNECT_TIMEOUT,
    SESSION_EXPIRY,
    MqttProtocol,
    MqttSettings,
)
from .destinations.policy import (
    DEFAULT_POLICIES,
    MEGABYTE,
    Bounds,
    DeliverySettings,
    Policy,
)
from .device import DEFAULT_PATH_LOSS, DeviceSettings
from .layouts.topics import safe_part
from .records import Advertisement
from .shaping import Shaping

_LOGGER = logging.getLogger(__name__)

MQTT_DOMAIN: Final = "mqtt"
MAX_NAME: Final = 40
_HOUR: Final = 3600.0
# What destinations have that were set up before there was more to say of a connection.
_CONNECTION_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_USERNAME: None,
    CONF_PASSWORD: None,
    CONF_SERVER_NAME: None,
    CONF_ALPN: [],
    CONF_CA_CERTIFICATE: None,
    CONF_CLIENT_CERTIFICATE: None,
    CONF_CLIENT_KEY: None,
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


def delivery_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a destination delivers as the form has it, with what is not said."""
    default = DeliverySettings()
    return {
        **{kind.value: policy.value for kind, policy in default.policies.items()},
        CONF_BUFFER_RECORDS: default.buffer.records,
        CONF_BUFFER_MEGABYTES: default.buffer.size // MEGABYTE,
        CONF_STORE_RECORDS: default.store.records,
        CONF_STORE_MEGABYTES: default.store.size // MEGABYTE,
        CONF_MAX_AGE_HOURS: int(default.max_age / _HOUR),
        CONF_PUBLISH_TIMEOUT: default.publish_timeout,
        CONF_MAX_IN_FLIGHT: default.max_in_flight,
        CONF_DRAIN_RATE: int(default.drain_rate),
        CONF_MAX_TRIES: default.max_tries,
        **data.get(CONF_DELIVERY, {}),
    }


def delivery_settings(data: Mapping[str, Any]) -> DeliverySettings:
    """Return how a destination delivers."""
    said = delivery_data(data)
    return DeliverySettings(
        policies={kind: Policy(said[kind.value]) for kind in DEFAULT_POLICIES},
        buffer=Bounds(
            said[CONF_BUFFER_RECORDS], said[CONF_BUFFER_MEGABYTES] * MEGABYTE
        ),
        store=Bounds(said[CONF_STORE_RECORDS], said[CONF_STORE_MEGABYTES] * MEGABYTE),
        max_age=said[CONF_MAX_AGE_HOURS] * _HOUR,
        publish_timeout=said[CONF_PUBLISH_TIMEOUT],
        max_in_flight=said[CONF_MAX_IN_FLIGHT],
        drain_rate=float(said[CONF_DRAIN_RATE]),
        max_tries=said[CONF_MAX_TRIES],
    )


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


def slug(text: str) -> str:
    """Return text as a slug, empty where there is no letter or digit in it."""
    result = slugify(text, separator="-")
    return "" if result == "unknown" and "unknown" not in text.lower() else result


def device_id(data: Mapping[str, Any]) -> str:
    """Return what a device is called in topics: its alias as a slug, else its address."""
    return slug(data.get(CONF_ALIAS) or "") or data.get(CONF_ADDRESS) or ""


def device_settings(
    subentry: ConfigSubentry, options: Mapping[str, Any]
) -> DeviceSettings:
    """Return what the user said of a device, and of all of them."""
    data = subentry.data
    shaping = {
        key: value
        for key, value in (data.get(CONF_SHAPING) or {}).items()
        if value is not None
    }
    own = [Rule.from_dict(rule) for rule in data.get(CONF_ALERTS, ())]
    names = {safe_part(rule.name) for rule in own}
    common = [Rule.from_dict(rule) for rule in options.get(CONF_ALERTS, ())]
    irk, key = data.get(CONF_IRK), data.get(CONF_KEY)
    return DeviceSettings(
        device_id=device_id(data) or subentry.subentry_id,
        name=subentry.title,
        address=data.get(CONF_ADDRESS),
        irk=bytes.fromhex(irk) if irk else None,
        key=bytes.fromhex(key) if key else None,
        timeout=data.get(CONF_TIMEOUT),
        reference_rssi=data.get(CONF_REFERENCE_RSSI),
        path_loss=data.get(CONF_PATH_LOSS) or DEFAULT_PATH_LOSS,
        shaping=_shaping(shaping) if shaping else None,
        rules=(*own, *(rule for rule in common if safe_part(rule.name) not in names)),
    )


def own_formats(text: str) -> tuple[Format, ...]:
    """Return the user's own formats; those of an earlier version may not be readable."""
    try:
        return parse_formats(text)
    except FormatError as err:
        _LOGGER.error("Your own formats are not used: %s", err)
        return ()


def _shaping(data: Mapping[str, Any]) -> Shaping:
    """Return which advertisements of a device are left out."""
    return Shaping(
        minimum_interval=data.get(CONF_MINIMUM_INTERVAL, 0.0),
        unchanged_interval=data.get(CONF_UNCHANGED_INTERVAL),
        rssi_change=data.get(CONF_RSSI_CHANGE),
    )


def new_device(advertisement: Advertisement, model: str | None) -> ConfigSubentry:
    """Return the subentry of a device that is added as it is on air."""
    return ConfigSubentry(
        data=MappingProxyType({CONF_ADDRESS: advertisement.address}),
        subentry_type=SUBENTRY_DEVICE,
        title=device_name(advertisement, model),
        unique_id=advertisement.address,
    )


def device_name(advertisement: Advertisement, model: str | None) -> str:
    """Return what a device is called that has been given no name."""
    name = plain_name(advertisement) or model or "Bluetooth device"
    short = advertisement.address.replace(":", "")[-4:]
    return name if name.upper().endswith(short) else f"{name} {short}"


def plain_name(advertisement: Advertisement) -> str:
    """Return the name that a device gives itself, as far as it can be shown."""
    name = advertisement.name or ""
    if name == advertisement.address:
        return ""
    shown = "".join(letter for letter in name if letter.isprintable())
    return shown.strip()[:MAX_NAME]
