"""The forms: set-up, destinations, options, reauthentication, reconfiguration."""

from collections.abc import Mapping
from ipaddress import IPv6Address
import logging
from typing import Any, Final, override

from homeassistant.config_entries import (
    ConfigEntry,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryData,
    ConfigSubentryFlow,
    OptionsFlow,
    SubentryFlowResult,
)
from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_NAME,
    CONF_PASSWORD,
    CONF_PORT,
    CONF_PROTOCOL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.data_entry_flow import section
from homeassistant.helpers import instance_id
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
from homeassistant.util import slugify
import voluptuous as vol

from .bridge import BleBridgeConfigEntry
from .const import (
    CONF_ADDRESSES,
    CONF_ADVANCED,
    CONF_ALLOW,
    CONF_BRIDGE_ID,
    CONF_BROKER,
    CONF_CLEAN_SESSION,
    CONF_COMPANY_IDS,
    CONF_DENY,
    CONF_EXCLUDED_SCANNERS,
    CONF_KEEPALIVE,
    CONF_MINIMUM_RSSI,
    CONF_NAMES,
    CONF_QOS,
    CONF_SCANNER_IDS,
    CONF_SERVICE_UUIDS,
    CONF_TLS,
    CONF_TOPIC_BASE,
    DEFAULT_NAME,
    DEFAULT_PORT,
    DEFAULT_PORT_TLS,
    DEFAULT_TOPIC_BASE,
    DOMAIN,
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
from .filters import parse_address, parse_company_id, parse_name, parse_service_uuid
from .layouts.raw import bridge_topic
from .layouts.topics import is_valid_base, safe_part
from .repairs import CONF_SUBENTRY_ID
from .scanners import BridgeStore, scanner_name
from .settings import home_assistant_broker, mqtt_settings, place

_LOGGER = logging.getLogger(__name__)

# How long the form waits for a broker, where the connection itself is more patient.
_TEST_TIMEOUT: Final = 10.0
_SCANNER: Final = "scanner"
_SCANNER_ID: Final = "scanner_id"

_TEXT: Final = TextSelector()
_TEXTS: Final = TextSelector(TextSelectorConfig(multiple=True))
_USERNAME: Final = TextSelector(TextSelectorConfig(autocomplete="off"))
_PASSWORD: Final = TextSelector(
    TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="new-password")
)
_CREDENTIALS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_USERNAME): _USERNAME,
    vol.Optional(CONF_PASSWORD): _PASSWORD,
}
_ADVANCED_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TOPIC_BASE, default=DEFAULT_TOPIC_BASE): _TEXT,
        vol.Optional(CONF_TLS, default=False): BooleanSelector(),
        vol.Optional(CONF_QOS, default="0"): SelectSelector(
            SelectSelectorConfig(options=["0", "1"], translation_key=CONF_QOS)
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
        vol.Optional(CONF_CLIENT_ID): _TEXT,
        vol.Optional(CONF_KEEPALIVE, default=60): NumberSelector(
            NumberSelectorConfig(
                min=5, max=3600, mode=NumberSelectorMode.BOX, unit_of_measurement="s"
            )
        ),
        vol.Optional(CONF_CLEAN_SESSION, default=True): BooleanSelector(),
    }
)
_LIST_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=list): _TEXTS
        for key in (CONF_ADDRESSES, CONF_NAMES, CONF_COMPANY_IDS, CONF_SERVICE_UUIDS)
    }
)
_PARSERS: Final = {
    CONF_ADDRESSES: parse_address,
    CONF_NAMES: parse_name,
    CONF_COMPANY_IDS: parse_company_id,
    CONF_SERVICE_UUIDS: parse_service_uuid,
}


def _destination_schema(hass: HomeAssistant) -> dict[vol.Marker, Any]:
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
        vol.Optional(CONF_HOST, default="localhost"): _TEXT,
        vol.Optional(CONF_PORT, default=DEFAULT_PORT): NumberSelector(
            NumberSelectorConfig(mode=NumberSelectorMode.BOX)
        ),
        **_CREDENTIALS,
        vol.Required(CONF_ADVANCED): section(_ADVANCED_SCHEMA, {"collapsed": True}),
    }


def _destination_data(
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
        CONF_TOPIC_BASE: advanced[CONF_TOPIC_BASE].strip().strip("/"),
        CONF_TLS: advanced[CONF_TLS],
        CONF_QOS: int(advanced[CONF_QOS]),
        CONF_PROTOCOL: advanced[CONF_PROTOCOL],
        CONF_CLIENT_ID: (advanced.get(CONF_CLIENT_ID) or "").strip()
        or (previous or {}).get(CONF_CLIENT_ID)
        or new_client_id(),
        CONF_KEEPALIVE: int(advanced[CONF_KEEPALIVE]),
        CONF_CLEAN_SESSION: advanced[CONF_CLEAN_SESSION],
    }
    if previous and data[CONF_USERNAME] and not data[CONF_PASSWORD]:
        data[CONF_PASSWORD] = previous[CONF_PASSWORD]
    errors: dict[str, str] = {}
    if not _is_host(data[CONF_HOST]):
        errors[CONF_HOST] = "invalid_host"
    if port is None:
        errors[CONF_PORT] = "invalid_port"
    if not is_valid_base(data[CONF_TOPIC_BASE]):
        errors["base"] = "invalid_topic_base"
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


def _suggested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a destination's data as the form shows them, without the password."""
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
    }


def _title(data: Mapping[str, Any]) -> str:
    """Return the title of a destination."""
    if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
        title = "Home Assistant's MQTT broker"
    else:
        title = f"{data[CONF_HOST]}:{data[CONF_PORT]}"
    base = data[CONF_TOPIC_BASE]
    return title if base == DEFAULT_TOPIC_BASE else f"{title} ({base})"


async def _test(
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


def _bridge_errors(user_input: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a bridge's name and ID."""
    errors = {}
    if not user_input[CONF_NAME].strip():
        errors[CONF_NAME] = "invalid_name"
    bridge_id = user_input[CONF_BRIDGE_ID].strip()
    if safe_part(bridge_id) != bridge_id:
        errors[CONF_BRIDGE_ID] = "invalid_bridge_id"
    return errors


_BRIDGE_FIELDS: Final[dict[vol.Marker, Any]] = {
    vol.Required(CONF_NAME): _TEXT,
    vol.Required(CONF_BRIDGE_ID): _TEXT,
}


class BleBridgeConfigFlow(ConfigFlow, domain=DOMAIN):
    """Set up the bridge and its first destination in one form."""

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: ConfigEntry) -> BleBridgeOptionsFlow:
        """Return the options."""
        return BleBridgeOptionsFlow()

    @classmethod
    @callback
    @override
    def async_get_supported_subentry_types(
        cls, config_entry: ConfigEntry
    ) -> dict[str, type[ConfigSubentryFlow]]:
        """Return what a bridge is made of."""
        return {SUBENTRY_DESTINATION: DestinationFlow}

    @override
    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the bridge and its first destination, and test it."""
        errors: dict[str, str] = {}
        if user_input is not None:
            data, errors = _destination_data(user_input)
            errors |= _bridge_errors(user_input)
            bridge_id = user_input[CONF_BRIDGE_ID].strip()
            if not errors and not (errors := await _test(self.hass, bridge_id, data)):
                return self.async_create_entry(
                    title=user_input[CONF_NAME].strip(),
                    data={CONF_BRIDGE_ID: bridge_id},
                    subentries=[
                        ConfigSubentryData(
                            data=data,
                            subentry_type=SUBENTRY_DESTINATION,
                            title=_title(data),
                            unique_id=place(data),
                        )
                    ],
                )
        site = slugify(self.hass.config.location_name, separator="-") or "home"
        unique = (await instance_id.async_get(self.hass))[:4]
        return self.async_show_form(
            step_id="user",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema({**_BRIDGE_FIELDS, **_destination_schema(self.hass)}),
                user_input
                or {CONF_NAME: DEFAULT_NAME, CONF_BRIDGE_ID: f"{site}-{unique}"},
            ),
            errors=errors,
        )

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Change the bridge's name and ID."""
        entry = self._get_reconfigure_entry()
        errors: dict[str, str] = {}
        if user_input is not None and not (errors := _bridge_errors(user_input)):
            return self.async_update_and_abort(
                entry,
                title=user_input[CONF_NAME].strip(),
                data_updates={CONF_BRIDGE_ID: user_input[CONF_BRIDGE_ID].strip()},
            )
        return self.async_show_form(
            step_id="reconfigure",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(_BRIDGE_FIELDS),
                user_input or {CONF_NAME: entry.title, **entry.data},
            ),
            errors=errors,
        )

    async def async_step_reauth(
        self, entry_data: Mapping[str, Any]
    ) -> ConfigFlowResult:
        """Begin when a broker refuses the credentials of a destination."""
        self._subentry_id: str = entry_data[CONF_SUBENTRY_ID]
        return await self.async_step_reauth_confirm()

    async def async_step_reauth_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for credentials that the broker accepts."""
        entry = self._get_reauth_entry()
        subentry = entry.subentries.get(self._subentry_id)
        if subentry is None:
            return self.async_abort(reason="destination_removed")
        errors: dict[str, str] = {}
        if user_input is not None:
            data = {
                **subentry.data,
                CONF_USERNAME: user_input.get(CONF_USERNAME) or None,
                CONF_PASSWORD: user_input.get(CONF_PASSWORD) or None,
            }
            bridge_id = entry.data[CONF_BRIDGE_ID]
            if not (errors := await _test(self.hass, bridge_id, data)):
                self.hass.config_entries.async_update_subentry(
                    entry, subentry, data=data
                )
                return self.async_update_and_abort(entry)
        return self.async_show_form(
            step_id="reauth_confirm",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(_CREDENTIALS),
                user_input or {CONF_USERNAME: subentry.data[CONF_USERNAME]},
            ),
            errors=errors,
            description_placeholders={"destination": subentry.title},
        )


class DestinationFlow(ConfigSubentryFlow):
    """Add or change a destination."""

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Add a destination."""
        errors: dict[str, str] = {}
        if user_input is not None:
            data, errors = _destination_data(user_input)
            if not errors and self._is_taken(data):
                return self.async_abort(reason="already_configured")
            bridge_id = self._get_entry().data[CONF_BRIDGE_ID]
            if not errors and not (errors := await _test(self.hass, bridge_id, data)):
                return self.async_create_entry(
                    title=_title(data), data=data, unique_id=place(data)
                )
        return self.async_show_form(
            step_id="user",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(_destination_schema(self.hass)), user_input
            ),
            errors=errors,
        )

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Change a destination."""
        subentry = self._get_reconfigure_subentry()
        errors: dict[str, str] = {}
        if user_input is not None:
            data, errors = _destination_data(user_input, subentry.data)
            if not errors and self._is_taken(data, subentry.subentry_id):
                return self.async_abort(reason="already_configured")
            bridge_id = self._get_entry().data[CONF_BRIDGE_ID]
            if not errors and not (
                errors := await _test(self.hass, bridge_id, data, subentry.data)
            ):
                renamed = subentry.title != _title(subentry.data)
                return self.async_update_and_abort(
                    self._get_entry(),
                    subentry,
                    title=subentry.title if renamed else _title(data),
                    data=data,
                    unique_id=place(data),
                )
        return self.async_show_form(
            step_id="reconfigure",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(_destination_schema(self.hass)),
                user_input or _suggested(subentry.data),
            ),
            errors=errors,
        )

    def _is_taken(self, data: Mapping[str, Any], but: str | None = None) -> bool:
        """Tell whether another destination has the same broker and topics."""
        return any(
            subentry.unique_id == place(data) and subentry.subentry_id != but
            for subentry in self._get_entry().subentries.values()
        )


class BleBridgeOptionsFlow(OptionsFlow):
    """What goes out, and under which names."""

    config_entry: BleBridgeConfigEntry

    async def async_step_init(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Choose what to change."""
        return self.async_show_menu(menu_options=["filters", "scanner"])

    async def async_step_filters(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Choose what goes out."""
        scanner_ids = await self._async_scanner_ids()
        for source in self.config_entry.options.get(CONF_EXCLUDED_SCANNERS, ()):
            scanner_ids.setdefault(source, source)
        errors: dict[str, str] = {}
        placeholders = {"value": ""}
        if user_input is not None:
            user_input = _without_blanks(user_input)
            if wrong := _unreadable(user_input):
                errors["base"], placeholders["value"] = wrong
            else:
                options = {**self.config_entry.options, **user_input}
                if CONF_MINIMUM_RSSI in user_input:
                    options[CONF_MINIMUM_RSSI] = int(user_input[CONF_MINIMUM_RSSI])
                else:
                    options.pop(CONF_MINIMUM_RSSI, None)
                return self.async_create_entry(data=options)
        return self.async_show_form(
            step_id="filters",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(
                    {
                        vol.Optional(CONF_MINIMUM_RSSI): NumberSelector(
                            NumberSelectorConfig(
                                min=-127,
                                max=0,
                                mode=NumberSelectorMode.BOX,
                                unit_of_measurement="dBm",
                            )
                        ),
                        vol.Optional(CONF_EXCLUDED_SCANNERS, default=list): (
                            SelectSelector(
                                SelectSelectorConfig(
                                    options=self._scanners(scanner_ids), multiple=True
                                )
                            )
                        ),
                        vol.Required(CONF_ALLOW): section(
                            _LIST_SCHEMA, {"collapsed": True}
                        ),
                        vol.Required(CONF_DENY): section(
                            _LIST_SCHEMA, {"collapsed": True}
                        ),
                    }
                ),
                user_input or self.config_entry.options,
            ),
            errors=errors,
            description_placeholders=placeholders,
        )

    async def async_step_scanner(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Give a scanner another ID."""
        scanner_ids = await self._async_scanner_ids()
        if not scanner_ids:
            return self.async_abort(reason="no_scanners")
        errors: dict[str, str] = {}
        if user_input is not None:
            source, scanner_id = user_input[_SCANNER], user_input[_SCANNER_ID].strip()
            taken = {scanner_ids[key] for key in scanner_ids if key != source}
            if safe_part(scanner_id) != scanner_id:
                errors[_SCANNER_ID] = "invalid_scanner_id"
            elif scanner_id in taken:
                errors[_SCANNER_ID] = "scanner_id_taken"
            else:
                chosen = self.config_entry.options.get(CONF_SCANNER_IDS, {})
                return self.async_create_entry(
                    data={
                        **self.config_entry.options,
                        CONF_SCANNER_IDS: {**chosen, source: scanner_id},
                    }
                )
        return self.async_show_form(
            step_id="scanner",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(
                    {
                        vol.Required(_SCANNER): SelectSelector(
                            SelectSelectorConfig(
                                options=self._scanners(scanner_ids),
                                mode=SelectSelectorMode.DROPDOWN,
                            )
                        ),
                        vol.Required(_SCANNER_ID): _TEXT,
                    }
                ),
                user_input,
            ),
            errors=errors,
        )

    async def _async_scanner_ids(self) -> dict[str, str]:
        """Return the ID of each known scanner, also while the bridge does not run."""
        entry = self.config_entry
        if entry.state is ConfigEntryState.LOADED:
            store = entry.runtime_data.store
        else:
            store = BridgeStore(self.hass)
            await store.async_load()
        return {**store.data["scanners"], **entry.options.get(CONF_SCANNER_IDS, {})}

    def _scanners(self, scanner_ids: Mapping[str, str]) -> list[SelectOptionDict]:
        """Return scanners to choose from."""
        options = []
        for source, scanner_id in sorted(scanner_ids.items(), key=lambda item: item[1]):
            name = scanner_name(self.hass, source)
            label = name if name == scanner_id else f"{name} ({scanner_id})"
            options.append(SelectOptionDict(value=source, label=label))
        return options


def _without_blanks(user_input: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was entered without empty lines."""
    return {
        **user_input,
        **{
            listed: {
                key: [line for text in lines if (line := text.strip())]
                for key, lines in user_input[listed].items()
            }
            for listed in (CONF_ALLOW, CONF_DENY)
        },
    }


def _unreadable(user_input: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the error and the text of the first line of a list that cannot be read."""
    for listed in (user_input[CONF_ALLOW], user_input[CONF_DENY]):
        for key, parse in _PARSERS.items():
            for text in listed[key]:
                try:
                    parse(text)
                except ValueError:
                    return f"invalid_{key}", text
    return None
