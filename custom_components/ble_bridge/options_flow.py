"""The options: what goes out, under which names, and what counts for all devices."""

from collections.abc import Mapping
from typing import Any, Final, override

from homeassistant.config_entries import (
    ConfigEntryState,
    ConfigFlowContext,
    ConfigFlowResult,
    OptionsFlow,
)
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
)
from homeassistant.loader import async_get_integration
import voluptuous as vol

from .alert_forms import AlertSteps, number_fields
from .bridge import BleBridgeConfigEntry
from .const import (
    CONF_ADDRESSES,
    CONF_ALERTS,
    CONF_ALLOW,
    CONF_AUTOMATIC,
    CONF_COMPANY_IDS,
    CONF_DENY,
    CONF_EXCLUDED_SCANNERS,
    CONF_FORMATS,
    CONF_MINIMUM_RSSI,
    CONF_NAMES,
    CONF_SCANNER_IDS,
    CONF_SERVICE_UUIDS,
    DOMAIN,
    SUBENTRY_DEVICE,
)
from .decoders.format_table import FormatError, parse_formats
from .filters import parse_address, parse_company_id, parse_name, parse_service_uuid
from .forms import TEXT, TEXTS, lines, number
from .layouts.topics import safe_part
from .scanners import BridgeStore, scanner_name

_LANGUAGE: Final = "/blob/main/docs/formats.md"
_SCANNER: Final = "scanner"
_SCANNER_ID: Final = "scanner_id"
_LIST_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=list): TEXTS
        for key in (CONF_ADDRESSES, CONF_NAMES, CONF_COMPANY_IDS, CONF_SERVICE_UUIDS)
    }
)
_PARSERS: Final = {
    CONF_ADDRESSES: parse_address,
    CONF_NAMES: parse_name,
    CONF_COMPANY_IDS: parse_company_id,
    CONF_SERVICE_UUIDS: parse_service_uuid,
}
_DEVICES_SCHEMA: Final = vol.Schema(
    {vol.Required(CONF_AUTOMATIC, default=False): BooleanSelector()}
)
_FORMATS_SCHEMA: Final = vol.Schema(
    {vol.Optional(CONF_FORMATS): TextSelector(TextSelectorConfig(multiline=True))}
)


class BleBridgeOptionsFlow(
    AlertSteps[ConfigFlowContext, ConfigFlowResult, str], OptionsFlow
):
    """What goes out, under which names, and what counts for all devices."""

    config_entry: BleBridgeConfigEntry

    async def async_step_init(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Choose what to change."""
        return self.async_show_menu(
            menu_options=[
                "filters",
                "scanner",
                "devices",
                "add_alert",
                *(["change_alert", "remove_alerts"] if self._rules() else []),
                "formats",
            ]
        )

    @override
    def _rules(self) -> list[dict[str, Any]]:
        return list(self.config_entry.options.get(CONF_ALERTS, ()))

    @override
    def _save_rules(self, rules: list[dict[str, Any]]) -> ConfigFlowResult:
        return self._save(**{CONF_ALERTS: rules or None})

    def _save(self, **options: Any) -> ConfigFlowResult:
        """Save options beside those that stay; None takes one away."""
        changed = {**self.config_entry.options, **options}
        return self.async_create_entry(
            data={key: value for key, value in changed.items() if value is not None}
        )

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
                minimum = user_input.get(CONF_MINIMUM_RSSI)
                user_input[CONF_MINIMUM_RSSI] = minimum and int(minimum)
                return self._save(**user_input)
        return self.async_show_form(
            step_id="filters",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(
                    {
                        vol.Optional(CONF_MINIMUM_RSSI): number(-127, 0, "dBm"),
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
                return self._save(**{CONF_SCANNER_IDS: {**chosen, source: scanner_id}})
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
                        vol.Required(_SCANNER_ID): TEXT,
                    }
                ),
                user_input,
            ),
            errors=errors,
        )

    async def async_step_devices(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Choose whether devices are added without asking."""
        if user_input is not None:
            return self._save(**user_input)
        return self.async_show_form(
            step_id="devices",
            data_schema=self.add_suggested_values_to_schema(
                _DEVICES_SCHEMA, self.config_entry.options
            ),
        )

    @override
    def _other_rules(self) -> list[dict[str, Any]]:
        return [
            rule
            for subentry in self.config_entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_DEVICE
            for rule in subentry.data.get(CONF_ALERTS) or ()
        ]

    @override
    def _fields(self) -> set[str]:
        if self.config_entry.state is not ConfigEntryState.LOADED:
            return set()
        devices = self.config_entry.runtime_data.devices.by_id.values()
        return {name for device in devices for name in number_fields(device.values)}

    async def async_step_formats(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for formats of the user's own."""
        errors: dict[str, str] = {}
        integration = await async_get_integration(self.hass, DOMAIN)
        placeholders = {"problem": "", "url": f"{integration.documentation}{_LANGUAGE}"}
        if user_input is not None:
            text = user_input.get(CONF_FORMATS, "").strip()
            try:
                await self.hass.async_add_executor_job(parse_formats, text)
            except FormatError as err:
                errors[CONF_FORMATS] = "invalid_formats"
                placeholders["problem"] = str(err)
            else:
                return self._save(**{CONF_FORMATS: text or None})
        return self.async_show_form(
            step_id="formats",
            data_schema=self.add_suggested_values_to_schema(
                _FORMATS_SCHEMA, user_input or self.config_entry.options
            ),
            errors=errors,
            description_placeholders=placeholders,
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
            listed: {key: lines(texts) for key, texts in user_input[listed].items()}
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
