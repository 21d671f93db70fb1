"""What only the user can mend, said where they look, and taken back when it works."""

from collections.abc import Collection, Mapping
import contextlib
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from homeassistant.components.repairs import ConfirmRepairFlow, RepairsFlow
from homeassistant.config_entries import SOURCE_REAUTH, ConfigEntry, ConfigSubentry
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.data_entry_flow import UnknownFlow
from homeassistant.helpers import issue_registry as ir
from homeassistant.util import dt as dt_util

from .certificates import expires_at
from .const import (
    CONF_BROKER,
    CONF_CA_CERTIFICATE,
    CONF_CLIENT_CERTIFICATE,
    CONF_TLS,
    DOMAIN,
    SUBENTRY_DESTINATION,
    Broker,
)
from .decoders import Encryption
from .destinations.errors import Problem
from .fix_flows import CertificateFlow, KeyFlow, NewClientIdFlow, RetryFlow
from .kinds import kind_of
from .records import Scanner
from .timers import every

CONF_SUBENTRY_ID: Final = "subentry_id"
# What stands in the way of a connection; a destination has one of these at a time.
_CERTIFICATES: Final = (
    Problem.CERTIFICATE_EXPIRED,
    Problem.CERTIFICATE_UNTRUSTED,
    Problem.CERTIFICATE_NAME,
    Problem.CLIENT_CERTIFICATE_REFUSED,
)
_MISSING: Final = (
    Problem.BROKER_MISSING,
    Problem.BUCKET_MISSING,
    Problem.JETSTREAM_MISSING,
    Problem.STREAM_CONFLICT,
)
_ISSUES: Final = (
    *("client_id_taken", "broker_refused", "broker_certificate"),
    *_CERTIFICATES,
    *_MISSING,
)
# What a broker refuses over a connection.
_REFUSALS: Final = (
    Problem.NOT_AUTHORIZED,
    Problem.QUOTA_EXCEEDED,
    Problem.TOO_LARGE,
    Problem.FIELD_TYPE,
)
_EXPIRIES: Final = {
    CONF_CA_CERTIFICATE: "ca_expires",
    CONF_CLIENT_CERTIFICATE: "client_certificate_expires",
}
_DAY: Final = 86_400
_EXPIRY_WARNING: Final = timedelta(days=30)
_MONITOR_ISSUES: Final = (
    *("monitor_full", "monitor_refused", "monitor_without_destination"),
    "sharing_unsupported",
)
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
    ours = subentry.data.get(CONF_BROKER) != Broker.HOME_ASSISTANT
    if problem is None:
        _close(hass, _ISSUES, subentry.subentry_id)
        _abort_reauth(hass, subentry.subentry_id)
    elif problem is Problem.CLIENT_ID_TAKEN:
        _block(hass, "client_id_taken", entry, subentry, is_fixable=True)
    elif problem in _MISSING:
        _block(hass, problem.value, entry, subentry)
    elif problem in _CERTIFICATES and ours:
        _block(hass, problem.value, entry, subentry, is_fixable=True)
    elif problem in _CERTIFICATES:
        _block(hass, "broker_certificate", entry, subentry)
    elif problem in kind_of(subentry.data).asks_credentials_for and ours:
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
        _block(hass, "broker_refused", entry, subentry)


@callback
def async_update_refusals(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    problems: Collection[Problem],
    details: Mapping[Problem, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Open or close what the broker's refusals of messages ask of the user.

    `details` are what the texts name beside the destination.
    """
    for problem in _REFUSALS:
        if problem in problems:
            _create(
                hass,
                problem.value,
                entry,
                subentry,
                is_fixable=True,
                placeholders=details.get(problem, {}),
            )
        else:
            _close(hass, (problem,), subentry.subentry_id)


@callback
def async_update_store(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    problem: Problem | None,
) -> None:
    """Tell that what waits cannot be kept on disk, while that is so, or was damaged.

    The latter is told until the user has read it, for by then all is well again.
    """
    if problem is Problem.STORE_CORRUPT:
        _create(
            hass,
            Problem.STORE_CORRUPT.value,
            entry,
            subentry,
            is_fixable=True,
            is_persistent=True,
        )
    elif problem is Problem.STORE_FAILED:
        _create(hass, Problem.STORE_FAILED.value, entry, subentry)
    elif problem is None:
        _close(hass, (Problem.STORE_FAILED,), subentry.subentry_id)


@callback
def async_watch_certificates(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> CALLBACK_TYPE:
    """Look each day whether a certificate expires soon; return what ends that."""

    @callback
    def check(now: datetime) -> None:
        for subentry in entry.subentries.values():
            if subentry.subentry_type == SUBENTRY_DESTINATION:
                _check_certificates(hass, entry, subentry, now)

    check(dt_util.utcnow())
    return every(hass, _DAY, check)


def _check_certificates(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    now: datetime,
) -> None:
    """Warn of certificates of a destination that expire soon."""
    for key, issue in _EXPIRIES.items():
        pem = subentry.data.get(key) if subentry.data[CONF_TLS] else None
        # An authority that is long gone may stand beside the one that took its place.
        after = now if key == CONF_CA_CERTIFICATE else None
        date = expires_at(pem, after) if pem else None
        if date is None or date - now > _EXPIRY_WARNING:
            _close(hass, (issue,), subentry.subentry_id)
            continue
        _create(
            hass,
            issue,
            entry,
            subentry,
            severity=ir.IssueSeverity.WARNING,
            placeholders={"date": dt_util.as_local(date).date().isoformat()},
        )


@callback
def async_delete(hass: HomeAssistant, subentry_id: str) -> None:
    """Close the issues of a destination that is no longer there, or not for a while.

    Nobody is asked or told of one that is removed.
    """
    _close(hass, (*_ISSUES, *_REFUSALS, *_EXPIRIES.values()), subentry_id)
    _close(hass, (Problem.STORE_FAILED,), subentry_id)
    if not any(
        subentry_id in entry.subentries
        for entry in hass.config_entries.async_entries(DOMAIN)
    ):
        async_forget(hass, subentry_id)


@callback
def async_forget(hass: HomeAssistant, subentry_id: str) -> None:
    """Close what stays open while a destination is only away."""
    _close(hass, (Problem.STORE_CORRUPT,), subentry_id)
    _abort_reauth(hass, subentry_id)


def _close(hass: HomeAssistant, issues: Collection[str], subentry_id: str) -> None:
    """Close issues of a destination."""
    for issue in issues:
        ir.async_delete_issue(hass, DOMAIN, f"{issue}_{subentry_id}")


def _block(
    hass: HomeAssistant,
    issue: str,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    *,
    is_fixable: bool = False,
) -> None:
    """Open what stands in the way of a connection, in place of any other such."""
    others = [other for other in _ISSUES if other != issue]
    _close(hass, others, subentry.subentry_id)
    _create(hass, issue, entry, subentry, is_fixable=is_fixable)


def _create(
    hass: HomeAssistant,
    issue: str,
    entry: ConfigEntry[Any],
    subentry: ConfigSubentry,
    *,
    is_fixable: bool = False,
    is_persistent: bool = False,
    severity: ir.IssueSeverity = ir.IssueSeverity.ERROR,
    placeholders: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Open an issue of a destination."""
    ir.async_create_issue(
        hass,
        DOMAIN,
        f"{issue}_{subentry.subentry_id}",
        data={
            "entry_id": entry.entry_id,
            CONF_SUBENTRY_ID: subentry.subentry_id,
            "issue": issue,
        },
        is_fixable=is_fixable,
        is_persistent=is_persistent,
        severity=severity,
        translation_key=issue,
        translation_placeholders={"destination": subentry.title, **placeholders},
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
def async_update_monitor(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    subentry_id: str,
    issue: str,
    placeholders: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Tell what keeps a monitor from hearing, or from taking in what it hears."""
    if (subentry := entry.subentries.get(subentry_id)) is None:
        return
    ir.async_create_issue(
        hass,
        DOMAIN,
        f"{issue}_{subentry_id}",
        is_fixable=False,
        severity=ir.IssueSeverity.WARNING,
        translation_key=issue,
        translation_placeholders={"monitor": subentry.title, **placeholders},
    )


@callback
def async_delete_monitor(hass: HomeAssistant, subentry_id: str, *issues: str) -> None:
    """Take back what was told of a monitor: some of it, or all."""
    _close(hass, issues or _MONITOR_ISSUES, subentry_id)


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


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, str | int | float | None] | None
) -> RepairsFlow:
    """Return the flow that mends an issue."""
    data = data or {}
    entry_id, subentry_id = str(data.get("entry_id")), str(data.get(CONF_SUBENTRY_ID))
    issue = str(data.get("issue"))
    if issue in {name for name, _ in _KEY_ISSUES.values()}:
        return KeyFlow(entry_id, subentry_id)
    if issue in _CERTIFICATES:
        return CertificateFlow(entry_id, subentry_id, Problem(issue))
    if issue in _REFUSALS:
        told = ir.async_get(hass).async_get_issue(DOMAIN, issue_id)
        placeholders = told.translation_placeholders if told else None
        return RetryFlow(entry_id, subentry_id, Problem(issue), placeholders or {})
    if issue == Problem.STORE_CORRUPT:
        return ConfirmRepairFlow()
    return NewClientIdFlow(entry_id, subentry_id)
