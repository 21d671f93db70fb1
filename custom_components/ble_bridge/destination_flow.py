"""The forms that add and change a destination."""

from typing import Any

from homeassistant.config_entries import ConfigSubentryFlow, SubentryFlowResult
import voluptuous as vol

from .const import CONF_BRIDGE_ID
from .destination_form import (
    async_test,
    conflict,
    destination_data,
    destination_schema,
    destination_title,
    suggested,
)
from .settings import place


class DestinationFlow(ConfigSubentryFlow):
    """Add or change a destination."""

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Add a destination."""
        errors: dict[str, str] = {}
        placeholders = {"base": "", "destination": ""}
        if user_input is not None:
            data, errors = destination_data(user_input)
            if not errors and self._is_taken(data):
                return self.async_abort(reason="already_configured")
            if not errors:
                errors = self._conflict(data, placeholders)
            bridge_id = self._get_entry().data[CONF_BRIDGE_ID]
            if not errors and not (
                errors := await async_test(self.hass, bridge_id, data)
            ):
                return self.async_create_entry(
                    title=destination_title(data), data=data, unique_id=place(data)
                )
        return self.async_show_form(
            step_id="user",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(destination_schema(self.hass)), user_input
            ),
            errors=errors,
            description_placeholders=placeholders,
        )

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Change a destination."""
        subentry = self._get_reconfigure_subentry()
        errors: dict[str, str] = {}
        placeholders = {"base": "", "destination": ""}
        if user_input is not None:
            data, errors = destination_data(user_input, subentry.data)
            if not errors and self._is_taken(data, subentry.subentry_id):
                return self.async_abort(reason="already_configured")
            if not errors:
                errors = self._conflict(data, placeholders, subentry.subentry_id)
            bridge_id = self._get_entry().data[CONF_BRIDGE_ID]
            if not errors and not (
                errors := await async_test(self.hass, bridge_id, data, subentry.data)
            ):
                renamed = subentry.title != destination_title(subentry.data)
                return self.async_update_and_abort(
                    self._get_entry(),
                    subentry,
                    title=subentry.title if renamed else destination_title(data),
                    data=data,
                    unique_id=place(data),
                )
        return self.async_show_form(
            step_id="reconfigure",
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(destination_schema(self.hass)),
                user_input or suggested(subentry.data),
            ),
            errors=errors,
            description_placeholders=placeholders,
        )

    def _is_taken(self, data: dict[str, Any], but: str | None = None) -> bool:
        """Tell whether another destination has the same broker and topics."""
        return any(
            subentry.unique_id == place(data) and subentry.subentry_id != but
            for subentry in self._get_entry().subentries.values()
        )

    def _conflict(
        self, data: dict[str, Any], placeholders: dict[str, str], but: str | None = None
    ) -> dict[str, str]:
        """Return the error where another destination uses one of the topic bases."""
        others = (
            subentry
            for subentry in self._get_entry().subentries.values()
            if subentry.subentry_id != but
        )
        if (found := conflict(data, others)) is None:
            return {}
        placeholders["base"], placeholders["destination"] = found
        return {"base": "topic_base_taken"}
