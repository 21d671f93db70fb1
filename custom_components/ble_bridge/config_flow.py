"""The forms of the bridge itself: set-up, reauthentication, reconfiguration."""

from collections.abc import Mapping
from typing import Any, Final, override

from homeassistant.config_entries import (
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryData,
    ConfigSubentryFlow,
)
from homeassistant.const import CONF_NAME, CONF_USERNAME
from homeassistant.core import callback
from homeassistant.helpers import instance_id
from homeassistant.util import slugify
import voluptuous as vol

from .const import (
    CONF_BRIDGE_ID,
    DEFAULT_NAME,
    DOMAIN,
    SUBENTRY_DESTINATION,
    SUBENTRY_DEVICE,
    SUBENTRY_MONITOR,
)
from .destination_flow import DestinationFlow
from .device_flow import DeviceFlow
from .forms import TEXT
from .kinds import KINDS, KindName, kind_of
from .kinds.entered import Entered
from .layouts.topics import safe_part
from .monitor_flow import MonitorFlow
from .options_flow import BleBridgeOptionsFlow
from .repairs import CONF_SUBENTRY_ID
from .uploads import Uploads

_BRIDGE_FIELDS: Final[dict[vol.Marker, Any]] = {
    vol.Required(CONF_NAME): TEXT,
    vol.Required(CONF_BRIDGE_ID): TEXT,
}


def _bridge_errors(user_input: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a bridge's name and ID."""
    errors = {}
    if not user_input[CONF_NAME].strip():
        errors[CONF_NAME] = "invalid_name"
    bridge_id = user_input[CONF_BRIDGE_ID].strip()
    if safe_part(bridge_id) != bridge_id:
        errors[CONF_BRIDGE_ID] = "invalid_bridge_id"
    return errors


class BleBridgeConfigFlow(ConfigFlow, domain=DOMAIN):
    """Set up the bridge and its first destination in one form."""

    def __init__(self) -> None:
        """Begin without files."""
        self._uploads = Uploads()

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
        return {
            SUBENTRY_DEVICE: DeviceFlow,
            SUBENTRY_DESTINATION: DestinationFlow,
            SUBENTRY_MONITOR: MonitorFlow,
        }

    @override
    async def async_step_user(
        self, _user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the kind of the first destination."""
        return self.async_show_menu(
            step_id="user", menu_options=[name.step for name in KINDS]
        )

    async def async_step_to_mqtt(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the bridge and its first destination, on MQTT."""
        return await self._async_step(KindName.MQTT, user_input)

    async def async_step_to_nats(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the bridge and its first destination, on NATS."""
        return await self._async_step(KindName.NATS, user_input)

    async def async_step_to_influxdb(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the bridge and its first destination, on InfluxDB."""
        return await self._async_step(KindName.INFLUXDB, user_input)

    async def _async_step(
        self, name: KindName, user_input: dict[str, Any] | None
    ) -> ConfigFlowResult:
        """Ask for the bridge and its first destination, and test it."""
        kind = KINDS[name]
        entered = Entered({})
        if user_input is not None:
            entered = await kind.async_data(self.hass, self._uploads, user_input)
            data, errors = entered.data, entered.errors
            errors |= _bridge_errors(user_input)
            bridge_id = user_input[CONF_BRIDGE_ID].strip()
            if not errors:
                errors |= await kind.async_test(self.hass, bridge_id, data)
            if not errors:
                return self.async_create_entry(
                    title=user_input[CONF_NAME].strip(),
                    data={CONF_BRIDGE_ID: bridge_id},
                    subentries=[
                        ConfigSubentryData(
                            data=data,
                            subentry_type=SUBENTRY_DESTINATION,
                            title=kind.title(data),
                            unique_id=kind.place(data),
                        )
                    ],
                )
        site = slugify(self.hass.config.location_name, separator="-") or "home"
        unique = (await instance_id.async_get(self.hass))[:4]
        return self.async_show_form(
            step_id=name.step,
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema({**_BRIDGE_FIELDS, **kind.schema(self.hass)}),
                user_input
                or {CONF_NAME: DEFAULT_NAME, CONF_BRIDGE_ID: f"{site}-{unique}"},
            ),
            errors=entered.errors,
            description_placeholders=entered.placeholders,
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
        kind = kind_of(subentry.data)
        errors: dict[str, str] = {}
        if user_input is not None:
            entered = await kind.async_with_credentials(
                self.hass, self._uploads, subentry.data, user_input
            )
            data, errors = entered.data, entered.errors
            if not errors:
                bridge_id = entry.data[CONF_BRIDGE_ID]
                errors |= await kind.async_test(self.hass, bridge_id, data)
            if not errors:
                self.hass.config_entries.async_update_subentry(
                    entry, subentry, data=data
                )
                return self.async_update_and_abort(entry)
        return self.async_show_form(
            step_id="reauth_confirm",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(kind.credentials(subentry.data)),
                user_input or {CONF_USERNAME: subentry.data.get(CONF_USERNAME)},
            ),
            errors=errors,
            description_placeholders={"destination": subentry.title},
        )
