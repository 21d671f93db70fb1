"""The forms in which the user mends what only the user can."""

from collections.abc import Mapping
from typing import Any, Final, override

from homeassistant.components.repairs import RepairsFlow, RepairsFlowResult
from homeassistant.config_entries import ConfigEntry, ConfigEntryState, ConfigSubentry
from homeassistant.const import CONF_CLIENT_ID
from homeassistant.helpers.selector import TextSelector
from homeassistant.helpers.translation import async_get_translations
from homeassistant.util import dt as dt_util
import voluptuous as vol

from .certificates import CertificateError
from .const import (
    CONF_BRIDGE_ID,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_KEY,
    CONF_SERVER_NAME,
    DOMAIN,
)
from .decoders import Encryption
from .destinations.errors import Problem
from .destinations.mqtt_connection import new_client_id
from .keys import async_check_key, parse_key
from .kinds import kind_of
from .kinds.entered import InputError, is_server_name
from .kinds.security import (
    CA_UPLOAD,
    CLIENT_UPLOADS,
    SERVER_NAME,
    TLS_DEFAULTS,
    async_certificates,
)
from .uploads import Uploads

# What the user can change about each problem of certificates.
_FIELDS: Final[Mapping[Problem, Mapping[vol.Marker, Any]]] = {
    Problem.CERTIFICATE_EXPIRED: CA_UPLOAD,
    Problem.CERTIFICATE_UNTRUSTED: CA_UPLOAD,
    Problem.CERTIFICATE_NAME: SERVER_NAME,
    Problem.CLIENT_CERTIFICATE_REFUSED: CLIENT_UPLOADS,
}


class _SubentryFlow(RepairsFlow):
    """Mend something of a destination or a device, which may be removed meanwhile."""

    removed = "destination_removed"

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
        self, user_input: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Ask, and mend, if the entry and the subentry are still there."""
        entry = self.hass.config_entries.async_get_entry(self._entry_id)
        if (
            entry is None
            or (subentry := entry.subentries.get(self._subentry_id)) is None
        ):
            return self.async_abort(reason=self.removed)
        return await self._async_mend(entry, subentry, user_input)

    async def _async_mend(
        self,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        user_input: dict[str, Any] | None,
    ) -> RepairsFlowResult:
        """Ask, or mend with what was entered."""
        raise NotImplementedError


class NewClientIdFlow(_SubentryFlow):
    """Give a destination a client ID that no other client has."""

    @override
    async def _async_mend(
        self,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        user_input: dict[str, Any] | None,
    ) -> RepairsFlowResult:
        """Ask, then change the client ID; the entry reloads with it."""
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


class KeyFlow(_SubentryFlow):
    """Give a device the key that opens its packets."""

    removed = "device_removed"

    @override
    async def _async_mend(
        self,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        user_input: dict[str, Any] | None,
    ) -> RepairsFlowResult:
        """Ask for the key, check it, and save it; the entry reloads with it."""
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


class _ProblemFlow(_SubentryFlow):
    """Mend a problem of a destination, and look whether it is mended."""

    def __init__(self, entry_id: str, subentry_id: str, problem: Problem) -> None:
        """Initialize with the subentry and its problem."""
        super().__init__(entry_id, subentry_id)
        self._problem = problem
        self._errors: dict[str, str] = {}
        self._placeholders = {"date": "", "problem": ""}

    def _show(
        self, subentry: ConfigSubentry, fields: Mapping[vol.Marker, Any]
    ) -> RepairsFlowResult:
        """Show the form, and what is wrong."""
        return self.async_show_form(
            step_id="confirm",
            data_schema=vol.Schema(dict(fields)),
            errors=self._errors,
            description_placeholders={
                "destination": subentry.title,
                **self._placeholders,
            },
        )

    async def _async_tell(self, problem: str) -> None:
        """Say that it is not mended, or what else is wrong."""
        if problem == self._problem:
            self._errors["base"] = problem
            return
        self._errors["base"] = "no_connection"
        if problem not in set(Problem):
            problem = Problem.UNEXPECTED.value
        texts = await async_get_translations(
            self.hass, self.hass.config.language, "entity", [DOMAIN]
        )
        key = f"component.{DOMAIN}.entity.sensor.last_error.state.{problem}"
        self._placeholders["problem"] = texts.get(key, problem)


class CertificateFlow(_ProblemFlow):
    """Give a destination the certificates that it needs, or try again without."""

    def __init__(self, entry_id: str, subentry_id: str, problem: Problem) -> None:
        """Initialize with the subentry and its problem."""
        super().__init__(entry_id, subentry_id, problem)
        self._uploads = Uploads()

    @override
    async def _async_mend(
        self,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        user_input: dict[str, Any] | None,
    ) -> RepairsFlowResult:
        """Ask, try the connection, and save; the entry reloads with what is new."""
        self._errors = {}
        if user_input is not None:
            try:
                data = await self._async_data(subentry.data, user_input)
            except CertificateError as err:
                self._errors["base"] = err.fault.value
                if err.date is not None:
                    date = dt_util.as_local(err.date).date()
                    self._placeholders["date"] = date.isoformat()
            except InputError as err:
                self._errors["base"] = str(err)
            else:
                tested = await kind_of(data).async_test(
                    self.hass, entry.data[CONF_BRIDGE_ID], data, subentry.data
                )
                if not tested:
                    self.hass.config_entries.async_update_subentry(
                        entry, subentry, data=data
                    )
                    return self.async_create_entry(data={})
                await self._async_tell(tested["base"])
        return self._show(subentry, _FIELDS[self._problem])

    async def _async_data(
        self, before: Mapping[str, Any], said: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the data with what was entered; raises InputError, CertificateError."""
        data = {
            **before,
            **await async_certificates(
                self.hass, self._uploads, said, {**TLS_DEFAULTS, **before}
            ),
        }
        if name := (said.get(CONF_SERVER_NAME) or "").strip():
            if not is_server_name(name):
                raise InputError("invalid_server_name")
            data[CONF_SERVER_NAME] = name
        if self._problem is Problem.CLIENT_CERTIFICATE_REFUSED and None in (
            data[CONF_CLIENT_CERTIFICATE],
            data[CONF_CLIENT_KEY],
        ):
            raise InputError("client_certificate_missing")
        return data


class RetryFlow(_ProblemFlow):
    """Send again what a broker refused, once the user has had it allowed."""

    def __init__(
        self,
        entry_id: str,
        subentry_id: str,
        problem: Problem,
        placeholders: Mapping[str, str],
    ) -> None:
        """Initialize with the subentry, its problem, and what the texts name of it."""
        super().__init__(entry_id, subentry_id, problem)
        self._placeholders |= placeholders

    @override
    async def _async_mend(
        self,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        user_input: dict[str, Any] | None,
    ) -> RepairsFlowResult:
        """Ask, and try again."""
        if entry.state is not ConfigEntryState.LOADED:
            return self.async_abort(reason="not_loaded")
        self._errors = {}
        if user_input is not None:
            problem = await entry.runtime_data.async_retry(self._subentry_id)
            if problem is None:
                return self.async_create_entry(data={})
            await self._async_tell(problem)
        return self._show(subentry, {})
