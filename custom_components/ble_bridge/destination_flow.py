"""The forms that add and change a destination."""

from typing import Any

from homeassistant.config_entries import (
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowResult,
)
import voluptuous as vol

from .const import CONF_BRIDGE_ID, SUBENTRY_DESTINATION
from .kinds import KINDS, KindName, kind_name
from .kinds.entered import Entered
from .kinds.kind import conflict
from .uploads import Uploads


class DestinationFlow(ConfigSubentryFlow):
    """Add or change a destination."""

    def __init__(self) -> None:
        """Begin without files."""
        self._uploads = Uploads()
        self._changed: ConfigSubentry | None = None

    async def async_step_user(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for the kind of destination to add."""
        return self.async_show_menu(
            step_id="user", menu_options=[name.step for name in KINDS]
        )

    async def async_step_reconfigure(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Change a destination."""
        self._changed = self._get_reconfigure_subentry()
        return await self._async_step(kind_name(self._changed.data), None)

    async def async_step_to_mqtt(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a destination on MQTT."""
        return await self._async_step(KindName.MQTT, user_input)

    async def async_step_to_nats(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a destination on NATS."""
        return await self._async_step(KindName.NATS, user_input)

    async def async_step_to_influxdb(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a destination on InfluxDB."""
        return await self._async_step(KindName.INFLUXDB, user_input)

    async def _async_step(
        self, name: KindName, user_input: dict[str, Any] | None
    ) -> SubentryFlowResult:
        """Ask for a destination, and save it when it works."""
        kind, changed = KINDS[name], self._changed
        before = changed.data if changed else None
        entered = Entered({})
        if user_input is not None:
            entered = await kind.async_data(
                self.hass, self._uploads, user_input, before
            )
            data = entered.data
            if not entered.errors and any(
                other.unique_id == kind.place(data) for other in self._others(name)
            ):
                return self.async_abort(reason="already_configured")
            if await self._async_is_good(name, entered):
                return self._save(name, data)
        elif before is not None:
            user_input = kind.suggested(before)
        return self.async_show_form(
            step_id=name.step,
            data_schema=self.add_suggested_values_to_schema(
                vol.Schema(kind.schema(self.hass)), user_input
            ),
            errors=entered.errors,
            description_placeholders={
                "base": "",
                "destination": "",
                **entered.placeholders,
            },
        )

    def _save(self, name: KindName, data: dict[str, Any]) -> SubentryFlowResult:
        """Save what was entered; a title that the user has given stays."""
        kind, changed = KINDS[name], self._changed
        title = kind.title(data)
        if changed is None:
            return self.async_create_entry(
                title=title, data=data, unique_id=kind.place(data)
            )
        return self.async_update_and_abort(
            self._get_entry(),
            changed,
            title=title if changed.title == kind.title(changed.data) else changed.title,
            data=data,
            unique_id=kind.place(data),
        )

    def _others(self, name: KindName) -> list[ConfigSubentry]:
        """Return the other destinations of a kind."""
        return [
            subentry
            for subentry in self._get_entry().subentries.values()
            if subentry.subentry_type == SUBENTRY_DESTINATION
            and kind_name(subentry.data) is name
            and subentry is not self._changed
        ]

    async def _async_is_good(self, name: KindName, entered: Entered) -> bool:
        """Look whether the names are free, then try the connection."""
        if entered.errors:
            return False
        kind = KINDS[name]
        if found := conflict(kind, entered.data, self._others(name)):
            entered.placeholders["base"], entered.placeholders["destination"] = found
            entered.errors["base"] = "topic_base_taken"
            return False
        entered.errors |= await kind.async_test(
            self.hass,
            self._get_entry().data[CONF_BRIDGE_ID],
            entered.data,
            self._changed.data if self._changed else None,
        )
        return not entered.errors
