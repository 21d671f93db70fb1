"""The forms that add and change a destination."""

from typing import Any

from homeassistant.config_entries import (
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowResult,
)
import voluptuous as vol

from .const import CONF_BRIDGE_ID
from .destination_form import (
    async_test,
    destination_schema,
    destination_title,
    suggested,
)
from .destination_input import Entered, async_destination_data, conflict, is_taken
from .settings import place
from .uploads import Uploads


class DestinationFlow(ConfigSubentryFlow):
    """Add or change a destination."""

    def __init__(self) -> None:
        """Begin without files."""
        self._uploads = Uploads()

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Add a destination."""
        entered = Entered({})
        if user_input is not None:
            entered = await async_destination_data(self.hass, self._uploads, user_input)
            data = entered.data
            if not entered.errors and is_taken(data, self._others()):
                return self.async_abort(reason="already_configured")
            if await self._async_is_good(entered):
                return self.async_create_entry(
                    title=destination_title(data), data=data, unique_id=place(data)
                )
        return self._show("user", entered, user_input)

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Change a destination."""
        subentry = self._get_reconfigure_subentry()
        entered = Entered({})
        if user_input is not None:
            entered = await async_destination_data(
                self.hass, self._uploads, user_input, subentry.data
            )
            data = entered.data
            if not entered.errors and is_taken(data, self._others(subentry)):
                return self.async_abort(reason="already_configured")
            if await self._async_is_good(entered, subentry):
                renamed = subentry.title != destination_title(subentry.data)
                return self.async_update_and_abort(
                    self._get_entry(),
                    subentry,
                    title=subentry.title if renamed else destination_title(data),
                    data=data,
                    unique_id=place(data),
                )
        return self._show(
            "reconfigure", entered, user_input or suggested(subentry.data)
        )

    def _show(
        self, step: str, entered: Entered, values: dict[str, Any] | None
    ) -> SubentryFlowResult:
        """Show the form, and what is wrong with it."""
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(destination_schema(self.hass)), values
            ),
            errors=entered.errors,
            description_placeholders={
                "base": "",
                "destination": "",
                **entered.placeholders,
            },
        )

    def _others(self, but: ConfigSubentry | None = None) -> list[ConfigSubentry]:
        """Return the other subentries."""
        subentries = self._get_entry().subentries.values()
        return [subentry for subentry in subentries if subentry is not but]

    async def _async_is_good(
        self, entered: Entered, subentry: ConfigSubentry | None = None
    ) -> bool:
        """Look whether the topics are free, then try the connection."""
        if entered.errors:
            return False
        if found := conflict(entered.data, self._others(subentry)):
            entered.placeholders["base"], entered.placeholders["destination"] = found
            entered.errors["base"] = "topic_base_taken"
            return False
        entered.errors |= await async_test(
            self.hass,
            self._get_entry().data[CONF_BRIDGE_ID],
            entered.data,
            subentry.data if subentry else None,
        )
        return not entered.errors
