"""The form of a destination: its fields, what they mean, and whether it works."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address
from itertools import combinations
import logging
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
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
import voluptuous as vol

from .const import (
    CONF_ADVANCED,
    CONF_BROKER,
    CONF_CLEAN_SESSION,
    CONF_ENABLED,
    CONF_FIELDS,
    CONF_KEEPALIVE,
    CONF_QOS,
    CONF_RAW,
    CONF_TLS,
    CONF_TOPIC_BASE,
    CONF_VALUES,
    DEFAULT_PORT,
    DEFAULT_PORT_TLS,
    DEFAULT_TOPIC_BASE,
    SUBENTRY_DESTINATION,
    Broker,
)
from .destinations.errors import ConnectError
from .destinations.mqtt_connection import (
    MqttConnector,
    MqttProtocol,
    Will,
    new_client_id,
)
from .forms import TEXT, number
from .layouts.raw import bridge_topic
from .layouts.topics import is_valid_base, safe_part
from .publisher import DELIVERIES, layout_settings
from .settings import home_assistant_broker, mqtt_settings, place

_LOGGER = logging.getLogger(__name__)

# How long the form waits for a broker, where the connection itself is more patient.
_TEST_TIMEOUT: Final = 10.0
# The layouts for records; what is published raw is set under advanced settings.
LAYOUTS: Final = (CONF_FIELDS, CONF_VALUES)

_USERNAME: Final = TextSelector(TextSelectorConfig(autocomplete="off"))
_PASSWORD: Final = TextSelector(
    TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="new-password")
)
CREDENTIALS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_USERNAME): _USERNAME,
    vol.Optional(CONF_PASSWORD): _PASSWORD,
}
_ADVANCED_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TOPIC_BASE, default=DEFAULT_TOPIC_BASE): TEXT,
        vol.Optional(CONF_RAW, default=True): BooleanSelector(),
        vol.Optional(CONF_QOS, default="0"): SelectSelector(
            SelectSelectorConfig(options=["0", "1", "2"], translation_key=CONF_QOS)
        ),
        vol.Optional(CONF_TLS, default=False): BooleanSelector(),
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
    }
)
_DELIVERY: Final = SelectSelector(
    SelectSelectorConfig(
        options=list(DELIVERIES),
        translation_key="delivery",
        mode=SelectSelectorMode.DROPDOWN,
    )
)


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
        **{
            vol.Optional(name): section(_layout_schema(name), {"collapsed": True})
            for name in LAYOUTS
        },
        vol.Required(CONF_ADVANCED): section(_ADVANCED_SCHEMA, {"collapsed": True}),
    }


def destination_data(
    user_input: Mapping[str, Any], previous: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a form says of a destination, and what is wrong with it.

    A password that is left empty stays as it was, since the form does not show it.
    """
    advanced = user_input[CONF_ADVANCED]
    port = _port(user_input[CONF_PORT])
    if advanced[CONF_TLS] and port == DEFAULT_PORT:
        port = DEFAULT_PORT_TLS
    data: dict[str, Any] = {
        CONF_BROKER: user_input.get(CONF_BROKER, Broker.CUSTOM.value),
        CONF_HOST: user_input[CONF_HOST].strip().removeprefix("[").removesuffix("]"),
        CONF_PORT: port,
        CONF_USERNAME: user_input.get(CONF_USERNAME) or None,
        CONF_PASSWORD: user_input.get(CONF_PASSWORD) or None,
        CONF_TOPIC_BASE: _base(advanced),
        CONF_RAW: advanced[CONF_RAW],
        CONF_TLS: advanced[CONF_TLS],
        CONF_QOS: int(advanced[CONF_QOS]),
        CONF_PROTOCOL: advanced[CONF_PROTOCOL],
        CONF_CLIENT_ID: (advanced.get(CONF_CLIENT_ID) or "").strip()
        or (previous or {}).get(CONF_CLIENT_ID)
        or new_client_id(),
        CONF_KEEPALIVE: int(advanced[CONF_KEEPALIVE]),
        CONF_CLEAN_SESSION: advanced[CONF_CLEAN_SESSION],
    }
    for name in LAYOUTS:
        # Who fills in the form by hand may leave a section out.
        said = user_input.get(name) or layout_settings(previous or {}, name)
        data[name] = {**said, CONF_TOPIC_BASE: _base(said)}
    if previous and data[CONF_USERNAME] and not data[CONF_PASSWORD]:
        data[CONF_PASSWORD] = previous[CONF_PASSWORD]
    errors: dict[str, str] = {}
    if not _is_host(data[CONF_HOST]):
        errors[CONF_HOST] = "invalid_host"
    if port is None:
        errors[CONF_PORT] = "invalid_port"
    if error := _topic_error(data):
        errors["base"] = error
    elif safe_part(data[CONF_CLIENT_ID]) != data[CONF_CLIENT_ID]:
        errors["base"] = "invalid_client_id"
    if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
        for key in (CONF_HOST, CONF_PORT):
            errors.pop(key, None)
        data |= {
            CONF_HOST: "",
            CONF_PORT: DEFAULT_PORT,
            CONF_USERNAME: None,
            CONF_PASSWORD: None,
            CONF_TLS: False,
        }
    return data, errors


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
            and place({**other.data, CONF_TOPIC_BASE: ""})
            == place({**data, CONF_TOPIC_BASE: ""})
            and (shared := set(_bases(data)).intersection(_bases(other.data)))
        ):
            return min(shared), other.title
    return None


def _port(number: float) -> int | None:
    """Return the port that a number is, if it is one."""
    return int(number) if 1 <= number <= 65535 and number == int(number) else None


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


def suggested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a destination's data as the form shows them, without the password."""
    data = {CONF_RAW: True, **data}
    return {
        **{
            key: data[key]
            for key in (CONF_BROKER, CONF_HOST, CONF_PORT, CONF_USERNAME)
            if data[key]
        },
        CONF_ADVANCED: {
            **{key: data[key] for key in map(str, _ADVANCED_SCHEMA.schema)},
            CONF_QOS: str(data[CONF_QOS]),
        },
        **{name: layout_settings(data, name) for name in LAYOUTS},
    }


def destination_title(data: Mapping[str, Any]) -> str:
    """Return the title of a destination."""
    if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
        title = "Home Assistant's MQTT broker"
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
    if previous and all(
        data[key] == previous[key]
        for key in (CONF_BROKER, CONF_HOST, CONF_PORT, CONF_CLIENT_ID)
    ):
        data = {**data, CONF_CLIENT_ID: new_client_id()}
    try:
        connection = await MqttConnector(
            mqtt_settings(hass, data),
            Will(bridge_topic(data[CONF_TOPIC_BASE], bridge_id), b"offline"),
            _TEST_TIMEOUT,
        ).async_connect()
    except ConnectError as err:
        return {"base": err.problem.value}
    except Exception:
        _LOGGER.exception("Unexpected error while connecting to the broker")
        return {"base": "unknown"}
    await connection.async_close()
    return {}
