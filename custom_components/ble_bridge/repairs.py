"""What only the user can mend, said where they look, and taken back when it works."""

import contextlib
from typing import Any, Final, override

from homeassistant.components.repairs import RepairsFlow, RepairsFlowResult
from homeassistant.config_entries import SOURCE_REAUTH, ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_CLIENT_ID
from homeassistant.core import HomeAssistant, callback
from homeassistant.data_entry_flow import UnknownFlow
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.selector import TextSelector
import voluptuous as vol

from .const import CONF_BROKER, CONF_KEY, DOMAIN, Broker
from .decoders import Encryption
from .destinations.errors import Problem
from .destinations.mqtt_connection import new_client_id
from .keys import async_check_key, parse_key
from .records import Scanner

CONF_SUBENTRY_ID: Final = "subentry_id"
_ISSUES: Final = ("client_id_taken", "broker_missing", "broker_refused")
_SCANNER_ISSUE: Final = "scanner_silent"
_KEY_ISSUES: Final = {
    Encryption.KEY_MISSING: ("key_missing", ir.IssueSeverity.WARNING),
    Encryption.KEY_WRONG: ("key_wrong", ir.IssueSeverity.ERROR),
}


@callback
def async_update(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    problem: Problem | None,
) -> None:
    """Open or close what a destination's problem asks of the user."""
    ours = subentry.data[CONF_BROKER] == Broker.CUSTOM
    if problem is None:
        async_delete(hass, subentry.subentry_id)
        _abort_reauth(hass, subentry.subentry_id)
    elif problem is Problem.CLIENT_ID_TAKEN:
        _create(hass, "client_id_taken", entry, subentry, is_fixable=True)
    elif problem is Problem.BROKER_MISSING:
        _create(hass, "broker_missing", entry, subentry)
    elif problem is Problem.INVALID_AUTH and ours:
        entry.async_start_reauth(
            hass,
            {
                "title_placeholders": {
                    "name": subentry.title,
                    CONF_SUBENTRY_ID: subentry.subentry_id,
                }
            },
            {CONF_SUBENTRY_ID: subentry.subentry_id},
        )
    elif problem is Problem.INVALID_AUTH:
        _create(hass, "broker_refused", entry, subentry)


@callback
def async_delete(hass: HomeAssistant, subentry_id: str) -> None:
    """Close the issues of a destination; nobody is asked about one that is removed."""
    for issue in _ISSUES:
        ir.async_delete_issue(hass, DOMAIN, f"{issue}_{subentry_id}")
    if not any(
        subentry_id in entry.subentries
        for entry in hass.config_entries.async_entries(DOMAIN)
    ):
        _abort_reauth(hass, subentry_id)


def _create(
    hass: HomeAssistant,
    issue: str,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    *,
    is_fixable: bool = False,
) -> None:
    """Open an issue in place of any other of this destination."""
    for other in _ISSUES:
        if other != issue:
            ir.async_delete_issue(hass, DOMAIN, f"{other}_{subentry.subentry_id}")
    ir.async_create_issue(
        hass,
        DOMAIN,
        f"{issue}_{subentry.subentry_id}",
        data={"entry_id": entry.entry_id, CONF_SUBENTRY_ID: subentry.subentry_id},
        is_fixable=is_fixable,
        severity=ir.IssueSeverity.ERROR,
        translation_key=issue,
        translation_placeholders={"destination": subentry.title},
    )


def _abort_reauth(hass: HomeAssistant, subentry_id: str) -> None:
    """Take back the question for the credentials of a destination."""
    flows = hass.config_entries.flow.async_progress_by_handler(
        DOMAIN, include_uninitialized=True, match_context={"source": SOURCE_REAUTH}
    )
    for flow in flows:
        placeholders = flow["context"].get("title_placeholders", {})
        if placeholders.get(CONF_SUBENTRY_ID) == subentry_id:
            with contextlib.suppress(UnknownFlow):
                hass.config_entries.flow.async_abort(flow["flow_id"])


class _SubentryFlow(RepairsFlow):
    """Mend something of a destination or a device, which may be removed meanwhile."""

    def __init__(self, entry_id: str, subentry_id: str) -> None:
        """Initialize with the subentry."""
        self._entry_id = entry_id
        self._subentry_id = subentry_id

    async def async_step_init(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Begin."""
        return await self.async_step_confirm()

    async def async_step_confirm(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Ask, and mend."""
        raise NotImplementedError

    def _find(self) -> tuple[ConfigEntry[Any], ConfigSubentry] | None:
        """Return the entry and the subentry, if both are there."""
        entry = self.hass.config_entries.async_get_entry(self._entry_id)
        subentry = entry and entry.subentries.get(self._subentry_id)
        return (entry, subentry) if entry and subentry else None


class NewClientIdFlow(_SubentryFlow):
    """Give a destination a client ID that no other client has."""

    @override
    async def async_step_confirm(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Ask, then change the client ID; the entry reloads with it."""
        if (found := self._find()) is None:
            return self.async_abort(reason="destination_removed")
        entry, subentry = found
        if user_input is None:
            return self.async_show_form(
                step_id="confirm",
                data_schema=vol.Schema({}),
                description_placeholders={"destination": subentry.title},
            )
        self.hass.config_entries.async_update_subentry(
            entry, subentry, data={**subentry.data, CONF_CLIENT_ID: new_client_id()}
        )
        return self.async_create_entry(data={})


@callback
def async_update_scanner(
    hass: HomeAssistant, entry: ConfigEntry[Any], scanner: Scanner
) -> None:
    """Tell of a scanner that hears nothing any more, until it does."""
    issue_id = f"{_SCANNER_ISSUE}_{entry.entry_id}_{scanner.source}"
    if not scanner.silent:
        ir.async_delete_issue(hass, DOMAIN, issue_id)
        return
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue_id,
        is_fixable=False,
        severity=ir.IssueSeverity.WARNING,
        translation_key=_SCANNER_ISSUE,
        translation_placeholders={"scanner": scanner.name},
    )


@callback
def async_delete_scanners(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Take back what was told of the scanners of a bridge that is going."""
    ours = f"{_SCANNER_ISSUE}_{entry.entry_id}_"
    for domain, issue_id in list(ir.async_get(hass).issues):
        if domain == DOMAIN and issue_id.startswith(ours):
            ir.async_delete_issue(hass, DOMAIN, issue_id)


@callback
def async_update_key(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    encryption: Encryption,
) -> None:
    """Ask for the key of a device whose packets are encrypted, until it is right."""
    current = _KEY_ISSUES.get(encryption)
    for other, _ in _KEY_ISSUES.values():
        if current is None or other != current[0]:
            ir.async_delete_issue(hass, DOMAIN, f"{other}_{subentry.subentry_id}")
    if current is None:
        return
    name, severity = current
    ir.async_create_issue(
        hass,
        DOMAIN,
        f"{name}_{subentry.subentry_id}",
        data={
            "entry_id": entry.entry_id,
            CONF_SUBENTRY_ID: subentry.subentry_id,
            "issue": name,
        },
        is_fixable=True,
        severity=severity,
        translation_key=name,
        translation_placeholders={"device": subentry.title},
    )


@callback
def async_delete_key_issues(hass: HomeAssistant, subentry_id: str) -> None:
    """Take back the question for the key of a device."""
    for name, _ in _KEY_ISSUES.values():
        ir.async_delete_issue(hass, DOMAIN, f"{name}_{subentry_id}")


class KeyFlow(_SubentryFlow):
    """Give a device the key that opens its packets."""

    @override
    async def async_step_confirm(
        self, user_input: dict[str, str] | None = None
    ) -> RepairsFlowResult:
        """Ask for the key, check it, and save it; the entry reloads with it."""
        if (found := self._find()) is None:
            return self.async_abort(reason="device_removed")
        entry, subentry = found
        errors: dict[str, str] = {}
        if user_input is not None:
            try:
                key = parse_key(user_input[CONF_KEY])
            except ValueError:
                errors[CONF_KEY] = "invalid_key"
            else:
                if (
                    await async_check_key(self.hass, entry, subentry.data, key)
                    is Encryption.KEY_WRONG
                ):
                    errors[CONF_KEY] = "key_wrong"
                else:
                    self.hass.config_entries.async_update_subentry(
                        entry, subentry, data={**subentry.data, CONF_KEY: key.hex()}
                    )
                    return self.async_create_entry(data={})
        return self.async_show_form(
            step_id="confirm",
            data_schema=vol.Schema({vol.Required(CONF_KEY): TextSelector()}),
            errors=errors,
            description_placeholders={"device": subentry.title},
        )


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, str | int | float | None] | None
) -> RepairsFlow:
    """Return the flow that mends an issue."""
    data = data or {}
    entry_id, subentry_id = str(data.get("entry_id")), str(data.get(CONF_SUBENTRY_ID))
    if data.get("issue") in {name for name, _ in _KEY_ISSUES.values()}:
        return KeyFlow(entry_id, subentry_id)
    return NewClientIdFlow(entry_id, subentry_id)


def async_update_refusals(hass: Any, entry: Any, subentry: Any, problems: Any) -> None:
    pass


def async_update_store(hass: Any, entry: Any, subentry: Any, problem: Any) -> None:
    pass
