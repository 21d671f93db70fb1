"""The forms that add and change a device."""

from collections.abc import Iterable, Mapping
import hashlib
from typing import Any, Final, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowContext,
    SubentryFlowResult,
)
from homeassistant.const import CONF_NAME
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
)
import voluptuous as vol

from .alert_forms import AlertSteps, number_fields
from .bridge import Bridge
from .const import (
    CONF_ADDRESS,
    CONF_ALERTS,
    CONF_ALIAS,
    CONF_IRK,
    CONF_KEY,
    CONF_MINIMUM_INTERVAL,
    CONF_PATH_LOSS,
    CONF_REFERENCE_RSSI,
    CONF_REMOVE_KEY,
    CONF_RSSI_CHANGE,
    CONF_SHAPING,
    CONF_SIGNAL,
    CONF_TIMEOUT,
    CONF_UNCHANGED_INTERVAL,
    SUBENTRY_DEVICE,
)
from .decoders import Encryption
from .device import DEFAULT_PATH_LOSS, Device
from .filters import parse_address
from .forms import SECRET, TEXT, number, plain_number
from .irk import is_stable, parse_irk
from .keys import async_check_key, parse_key
from .layouts.raw import address_type
from .layouts.subjects import RESERVED_TOKENS
from .layouts.values import RESERVED_DEVICE_IDS
from .on_air import MAX_OFFERED, async_candidate, async_candidates, async_resolve
from .settings import device_id, device_name, slug

# What other topics and subjects have in the place of a device, under whichever base.
_RESERVED: Final = RESERVED_DEVICE_IDS | RESERVED_TOKENS | {"raw", "scanner", "bridge"}
_MAX_ALIAS: Final = 64
_DAY: Final = 86_400

_IRK_SCHEMA: Final = vol.Schema(
    {vol.Required(CONF_NAME): TEXT, vol.Required(CONF_IRK): SECRET}
)
_SIGNAL_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_REFERENCE_RSSI): number(-127, 0, "dBm"),
        vol.Optional(CONF_PATH_LOSS, default=DEFAULT_PATH_LOSS): number(1, 6, step=0.1),
    }
)
_SHAPING_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_MINIMUM_INTERVAL): number(0.1, _DAY, "s", step=0.1),
        vol.Optional(CONF_UNCHANGED_INTERVAL): number(1, _DAY, "s"),
        vol.Optional(CONF_RSSI_CHANGE): number(1, 100, "dB"),
    }
)


class DeviceFlow(
    AlertSteps[SubentryFlowContext, SubentryFlowResult, tuple[str, str]],
    ConfigSubentryFlow,
):
    """Add or change a device."""

    def __init__(self) -> None:
        """Initialize with nothing chosen."""
        self._name = ""
        self._place: dict[str, str] = {}  # The address, or the IRK
        self._unique_id = ""
        self._data: dict[str, Any] = {}

    # --- which device -------------------------------------------------------------------

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Choose how to say which device it is."""
        if self._bridge is None:
            return self.async_abort(reason="not_loaded")
        return self.async_show_menu(menu_options=["on_air", "irk"])

    async def async_step_on_air(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Pick a device from what is on air, or enter its address."""
        if (bridge := self._bridge) is None:
            return self.async_abort(reason="not_loaded")
        errors: dict[str, str] = {}
        if user_input is not None:
            try:
                address = parse_address(user_input[CONF_ADDRESS])
            except ValueError:
                errors[CONF_ADDRESS] = "invalid_address"
            else:
                if error := await self._async_choose(bridge, address):
                    errors[CONF_ADDRESS] = error
                else:
                    return await self.async_step_settings()
        candidates = await async_candidates(self.hass, bridge, self._taken())
        options = [candidate.option for candidate in candidates[:MAX_OFFERED]]
        return self.async_show_form(
            step_id="on_air",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(
                    {
                        vol.Required(CONF_ADDRESS): SelectSelector(
                            SelectSelectorConfig(
                                options=options,
                                custom_value=True,
                                mode=SelectSelectorMode.DROPDOWN,
                            )
                        )
                    }
                ),
                user_input,
            ),
            errors=errors,
            description_placeholders={
                "shown": str(len(options)),
                "found": str(len(candidates)),
            },
            last_step=False,
        )

    async def _async_choose(self, bridge: Bridge, address: str) -> str | None:
        """Take a device by its address, or return what speaks against it."""
        advertiser = bridge.feed.advertisers.get(address)
        if address in self._taken() or (
            advertiser is not None and isinstance(advertiser.device, Device)
        ):
            return "already_added"
        found = await async_candidate(self.hass, bridge, address)
        if found is not None:
            advertisement = found.advertisement
            if is_stable(address, address_type(advertisement)) is False:
                return "address_changes"
            self._name = device_name(advertisement, found.model)
        self._place = {CONF_ADDRESS: address}
        self._unique_id = address
        return None

    async def async_step_irk(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for the key of a device that changes its address."""
        if (bridge := self._bridge) is None:
            return self.async_abort(reason="not_loaded")
        errors: dict[str, str] = {}
        if user_input is not None:
            self._name = user_input[CONF_NAME].strip()
            if not self._name:
                errors[CONF_NAME] = "invalid_name"
            try:
                irks = parse_irk(user_input[CONF_IRK])
            except ValueError:
                errors[CONF_IRK] = "invalid_irk"
            else:
                self._unique_id = irk_id(irks)
                if self._unique_id in self._taken():
                    errors[CONF_IRK] = "already_added"
            if not errors:
                found = await async_resolve(irks, list(bridge.feed.advertisers))
                self._place = {CONF_IRK: (found or irks[0]).hex()}
                if found is None:
                    return await self.async_step_irk_unheard()
                return await self.async_step_settings()
        return self.async_show_form(
            step_id="irk",
            data_schema=self.add_suggested_values_to_schema(_IRK_SCHEMA, user_input),
            errors=errors,
            last_step=False,
        )

    async def async_step_irk_unheard(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Say that no address on air was made with the key, and go on if that is fine."""
        if user_input is not None:
            return await self.async_step_settings()
        return self.async_show_form(
            step_id="irk_unheard",
            data_schema=vol.Schema({}),
            description_placeholders={"device": self._name},
            last_step=False,
        )

    # --- what is said of it -------------------------------------------------------------

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Choose what to change."""
        subentry = self._get_reconfigure_subentry()
        return self.async_show_menu(
            menu_options=[
                "settings",
                "add_alert",
                *(["change_alert", "remove_alerts"] if self._rules() else []),
            ],
            description_placeholders={"device": subentry.title},
        )

    async def async_step_settings(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a device's name, its key, and how it is watched."""
        errors: dict[str, str] = {}
        subentry = self._subentry
        before: Mapping[str, Any] = self._place if subentry is None else subentry.data
        if user_input is not None:
            self._name = user_input[CONF_NAME].strip()
            self._data, errors = self._read(user_input, before)
            if not errors and user_input.get(CONF_KEY):
                check = await self._async_check_key()
                if check is Encryption.KEY_WRONG:
                    errors[CONF_KEY] = "key_wrong"
                elif check is not Encryption.OK:
                    return await self.async_step_key_unchecked()
            if not errors:
                return self._save()
        shown = user_input or _shown(
            before, self._name if subentry is None else subentry.title
        )
        return self.async_show_form(
            step_id="settings",
            data_schema=self.add_suggested_values_to_schema(_schema(before), shown),
            errors=errors,
            description_placeholders={
                "address": before.get(CONF_ADDRESS) or "IRK",
            },
            last_step=True,
        )

    async def async_step_key_unchecked(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Say that a key could not be checked, and save it if that is fine."""
        if user_input is not None:
            return self._save()
        return self.async_show_form(
            step_id="key_unchecked",
            data_schema=vol.Schema({}),
            description_placeholders={"device": self._name},
        )

    def _read(
        self, user_input: Mapping[str, Any], before: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what a form says of a device, and what is wrong with it.

        A key that is left empty stays as it was, since the form does not show it.
        """
        signal = user_input.get(CONF_SIGNAL, {})
        shaping = user_input.get(CONF_SHAPING, {})
        removed = user_input.get(CONF_REMOVE_KEY, False)
        data: dict[str, Any] = {
            **before,
            CONF_ALIAS: user_input.get(CONF_ALIAS, "").strip() or None,
            CONF_KEY: None if removed else before.get(CONF_KEY),
            CONF_TIMEOUT: plain_number(user_input.get(CONF_TIMEOUT)),
            CONF_REFERENCE_RSSI: _integer(signal.get(CONF_REFERENCE_RSSI)),
            CONF_PATH_LOSS: signal.get(CONF_PATH_LOSS, DEFAULT_PATH_LOSS),
            CONF_SHAPING: {key: plain_number(value) for key, value in shaping.items()},
            CONF_ALERTS: list(before.get(CONF_ALERTS) or ()),
        }
        errors: dict[str, str] = {}
        if not self._name:
            errors[CONF_NAME] = "invalid_name"
        if error := self._alias_error(data):
            errors[CONF_ALIAS] = error
        if text := user_input.get(CONF_KEY):
            try:
                data[CONF_KEY] = parse_key(text).hex()
            except ValueError:
                errors[CONF_KEY] = "invalid_key"
        return data, errors

    def _alias_error(self, data: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the name that a device has in topics."""
        alias = data[CONF_ALIAS]
        if alias is None and data.get(CONF_ADDRESS) is None:
            return "alias_missing"
        if alias is not None and not 0 < len(slug(alias)) <= _MAX_ALIAS:
            return "invalid_alias"
        ours = device_id(data)
        if ours in _RESERVED:
            return "alias_reserved"
        subentry = self._subentry
        if _comparable(ours) in {
            _comparable(device_id(other.data))
            for other in self._devices()
            if subentry is None or other.subentry_id != subentry.subentry_id
        }:
            return "alias_taken"
        return None

    async def _async_check_key(self) -> Encryption | None:
        """Return what the key that was entered does with what was heard last."""
        key = bytes.fromhex(self._data[CONF_KEY])
        return await async_check_key(self.hass, self._get_entry(), self._data, key)

    def _save(self) -> SubentryFlowResult:
        """Save the device."""
        if (subentry := self._subentry) is not None:
            return self.async_update_and_abort(
                self._get_entry(), subentry, title=self._name, data=self._data
            )
        if self._unique_id in self._taken():
            return self.async_abort(reason="already_configured")
        return self.async_create_entry(
            title=self._name, data=self._data, unique_id=self._unique_id
        )

    # --- its alerts ---------------------------------------------------------------------

    @override
    def _rules(self) -> list[dict[str, Any]]:
        return list(self._get_reconfigure_subentry().data.get(CONF_ALERTS) or ())

    @override
    def _other_rules(self) -> Iterable[Mapping[str, Any]]:
        rules: Iterable[Mapping[str, Any]] = self._get_entry().options.get(
            CONF_ALERTS, ()
        )
        return rules

    @override
    def _fields(self) -> set[str]:
        subentry_id = self._get_reconfigure_subentry().subentry_id
        device = self._bridge and self._bridge.devices.by_id.get(subentry_id)
        return number_fields(device.values) if device else set()

    @override
    def _save_rules(self, rules: list[dict[str, Any]]) -> SubentryFlowResult:
        return self.async_update_and_abort(
            self._get_entry(),
            self._get_reconfigure_subentry(),
            data_updates={CONF_ALERTS: rules},
        )

    # --- what there is ------------------------------------------------------------------

    @property
    def _bridge(self) -> Bridge | None:
        """Return the bridge, if it runs."""
        entry = self._get_entry()
        if entry.state is not ConfigEntryState.LOADED:
            return None
        bridge: Bridge = entry.runtime_data
        return bridge

    @property
    def _subentry(self) -> ConfigSubentry | None:
        """Return the device that is changed, or None where one is added."""
        if self.source != SOURCE_RECONFIGURE:
            return None
        return self._get_reconfigure_subentry()

    def _devices(self) -> list[ConfigSubentry]:
        """Return the devices that there are."""
        return [
            subentry
            for subentry in self._get_entry().subentries.values()
            if subentry.subentry_type == SUBENTRY_DEVICE
        ]

    def _taken(self) -> set[str | None]:
        """Return what the devices that there are go by: addresses, and IDs of IRKs."""
        return {subentry.unique_id for subentry in self._devices()}


def irk_id(irks: tuple[bytes, ...]) -> str:
    """Return what tells a device by its IRK in either order, without giving it away."""
    both = b"".join(sorted({*irks, *(irk[::-1] for irk in irks)}))
    return f"irk-{hashlib.sha256(both).hexdigest()[:16]}"


def _schema(before: Mapping[str, Any]) -> vol.Schema:
    """Return the form of a device's settings; what has an address needs no alias."""
    alias = vol.Optional if before.get(CONF_ADDRESS) else vol.Required
    schema: dict[vol.Marker, Any] = {
        vol.Required(CONF_NAME): TEXT,
        alias(CONF_ALIAS): TEXT,
        vol.Optional(CONF_KEY): SECRET,
    }
    if before.get(CONF_KEY):
        schema[vol.Optional(CONF_REMOVE_KEY, default=False)] = BooleanSelector()
    return vol.Schema(
        {
            **schema,
            vol.Optional(CONF_TIMEOUT): number(5, 7 * _DAY, "s"),
            vol.Optional(CONF_SIGNAL): section(_SIGNAL_SCHEMA, {"collapsed": True}),
            vol.Optional(CONF_SHAPING): section(_SHAPING_SCHEMA, {"collapsed": True}),
        }
    )


def _shown(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a device's data as the form shows them, without the key."""
    alias = data.get(CONF_ALIAS)
    if alias is None and not data.get(CONF_ADDRESS):
        alias = slug(name) or None
    shown = {
        CONF_NAME: name or None,
        CONF_ALIAS: alias,
        CONF_TIMEOUT: data.get(CONF_TIMEOUT),
    }
    return {
        **_given(shown),
        CONF_SIGNAL: _given(
            {key: data.get(key) for key in (CONF_REFERENCE_RSSI, CONF_PATH_LOSS)}
        ),
        CONF_SHAPING: _given(data.get(CONF_SHAPING) or {}),
    }


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a value."""
    return {key: value for key, value in data.items() if value is not None}


def _integer(value: float | None) -> int | None:
    """Return a number without what comes after its point."""
    return None if value is None else round(value)


def _comparable(ours: str) -> str:
    """Return a device ID such that two which some bus cannot tell apart are the same."""
    return ours.replace(":", "").casefold()
