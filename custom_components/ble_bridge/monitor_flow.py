"""The forms that add and change a monitor."""

from collections.abc import Mapping
import logging
from typing import Any, Final

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowResult,
)
from homeassistant.const import CONF_NAME
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
)
from homeassistant.helpers.translation import async_get_translations
import voluptuous as vol

from .alerts import MAX_WINDOW, MIN_WINDOW
from .const import (
    CONF_ADVANCED,
    CONF_ANOMALIES,
    CONF_AVERAGE,
    CONF_CRITICAL_RELAYS,
    CONF_DEAD_LETTER_TOPIC,
    CONF_DESTINATION,
    CONF_DEVIATIONS,
    CONF_MARK_STALE,
    CONF_MAX_DEVICES,
    CONF_MAX_KILOBYTES,
    CONF_NEEDS_TIME,
    CONF_PRESET,
    CONF_QOS,
    CONF_SHARE_GROUP,
    CONF_TIMEOUT,
    CONF_TOPIC_BASE,
    CONF_VALUES,
    CONF_WINDOW,
    DOMAIN,
    SUBENTRY_DESTINATION,
    SUBENTRY_MONITOR,
)
from .destinations.errors import ConnectError
from .forms import TEXT, TEXTS, choice, lines, number
from .kinds import KindName, kind_name
from .layouts.topics import is_valid_base, is_valid_topic, safe_part
from .monitors.listen import Heard, async_listen
from .monitors.patterns import MessageKind, Pattern, PatternError, find, overlapping
from .monitors.presets import DEFAULT_BASES, Preset
from .monitors.settings import monitor_data, monitor_settings, patterns

_LOGGER = logging.getLogger(__name__)

_NAMES: Final = {
    Preset.AUTOCORE: "AutoCore",
    Preset.BLE_BRIDGE: "Other BLE Bridges",
    Preset.OWN: "MQTT devices",
}
_TOPICS: Final = {kind: f"{kind.value}_topics" for kind in MessageKind}
_MAX_LINES: Final = 20
_MAX_SHOWN: Final = 20
_DAY: Final = 86_400

_VALUES_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_AVERAGE, default=10): number(1, 1000),
        vol.Optional(CONF_ANOMALIES, default=False): BooleanSelector(),
        vol.Optional(CONF_DEVIATIONS, default=3.0): number(1, 100, step=0.1),
        vol.Optional(CONF_WINDOW, default=20): number(MIN_WINDOW, MAX_WINDOW),
    }
)
_VALUES: Final = tuple(map(str, _VALUES_SCHEMA.schema))
_ADVANCED: Final = (
    *(CONF_QOS, CONF_SHARE_GROUP, CONF_NEEDS_TIME, CONF_MAX_KILOBYTES),
    CONF_DEAD_LETTER_TOPIC,
)


class MonitorFlow(ConfigSubentryFlow):
    """Add or change a monitor."""

    def __init__(self) -> None:
        """Begin with nothing entered."""
        self._preset = Preset.AUTOCORE
        self._name = ""
        self._data: dict[str, Any] = {}
        self._entered: dict[str, Any] | None = None
        self._heard = Heard()

    # --- what is watched ----------------------------------------------------------------

    async def async_step_user(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask whose topics are to be watched."""
        if not self._destinations():
            return self.async_abort(reason="no_mqtt_destination")
        return self.async_show_menu(
            step_id="user", menu_options=[preset.value for preset in Preset]
        )

    async def async_step_reconfigure(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Change a monitor."""
        subentry = self._get_reconfigure_subentry()
        return await self._async_form(Preset(subentry.data[CONF_PRESET]), None)

    async def async_step_autocore(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a monitor of controllers that speak AutoCore's topics."""
        return await self._async_form(Preset.AUTOCORE, user_input)

    async def async_step_ble_bridge(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a monitor of other BLE Bridges."""
        return await self._async_form(Preset.BLE_BRIDGE, user_input)

    async def async_step_own(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask for a monitor of the user's own topics."""
        return await self._async_form(Preset.OWN, user_input)

    async def async_step_change(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Show once more what was entered."""
        return await self._async_form(self._preset, None)

    async def _async_form(
        self, preset: Preset, user_input: dict[str, Any] | None
    ) -> SubentryFlowResult:
        """Ask for a monitor, and listen to what it would hear."""
        self._preset = preset
        errors: dict[str, str] = {}
        placeholders = {"monitor": ""}
        if user_input is not None:
            before = self._changed.data if self._changed else {}
            self._entered = user_input
            self._name = user_input[CONF_NAME].strip()
            self._data = _read(preset, user_input, before)
            errors = self._check(placeholders)
            if not errors:
                errors = await self._async_listen()
            if not errors:
                if self._heard.messages:
                    return await self.async_step_heard()
                return await self.async_step_nothing_heard()
        return self._show_form(errors, placeholders)

    def _show_form(
        self, errors: dict[str, str], placeholders: dict[str, str]
    ) -> SubentryFlowResult:
        """Show the form with what was entered, and what is wrong with it."""
        destinations = self._destinations()
        if not destinations:
            return self.async_abort(reason="no_mqtt_destination")
        shown = dict(self._entered or self._suggested())
        if shown.get(CONF_DESTINATION) not in destinations:
            shown.pop(CONF_DESTINATION, None)
        return self.async_show_form(
            step_id=self._preset.value,
            data_schema=self.add_suggested_values_to_schema(
                _schema(self._preset, destinations), shown
            ),
            errors=errors,
            description_placeholders=placeholders,
        )

    def _suggested(self) -> dict[str, Any]:
        """Return a monitor that is to be changed as its form shows it."""
        if (subentry := self._changed) is None:
            return {}
        data = monitor_data(subentry.data)
        shown = {key: value for key, value in data.items() if value is not None}
        return {
            CONF_NAME: subentry.title,
            **shown,
            CONF_VALUES: {key: data[key] for key in _VALUES},
            CONF_ADVANCED: {**shown, CONF_QOS: str(data[CONF_QOS])},
        }

    # --- what is wrong with it ----------------------------------------------------------

    def _check(self, placeholders: dict[str, str]) -> dict[str, str]:
        """Return what is wrong with what was entered, as the form shows it."""
        data = self._data
        if data[CONF_DESTINATION] not in self._destinations():
            return {CONF_DESTINATION: "destination_removed"}
        if not self._name:
            return {CONF_NAME: "invalid_name"}
        if self._preset is not Preset.OWN and not is_valid_base(data[CONF_TOPIC_BASE]):
            return {CONF_TOPIC_BASE: "invalid_topic_base"}
        for kind, topics in _TOPICS.items():
            if len(data.get(topics, ())) > _MAX_LINES:
                return {topics: "too_many_topics"}
            try:
                for text in data.get(topics, ()):
                    Pattern.parse(kind, text)
            except PatternError as err:
                return {topics: str(err)}
        watched = patterns(data)
        if not watched:
            return {"base": "no_patterns"}
        if overlapping(watched) is not None:
            return {"base": "patterns_overlap"}
        for other in self._others():
            if any(
                one.overlaps(theirs)
                for one in watched
                for theirs in patterns(other.data)
            ):
                placeholders["monitor"] = other.title
                return {"base": "topics_watched"}
        return self._check_rest(watched)

    def _check_rest(self, watched: tuple[Pattern, ...]) -> dict[str, str]:
        """Return what is wrong with what is not shown at first."""
        data = self._data
        relays = data[CONF_CRITICAL_RELAYS]
        if len(relays) > _MAX_LINES:
            return {CONF_CRITICAL_RELAYS: "invalid_relays"}
        for relay in relays:
            device, slash, index = relay.rpartition("/")
            if not (device and slash and index):
                return {CONF_CRITICAL_RELAYS: "invalid_relays"}
        if (group := data[CONF_SHARE_GROUP]) and safe_part(group) != group:
            return {"base": "invalid_share_group"}
        if (topic := data[CONF_DEAD_LETTER_TOPIC]) is not None:
            if not is_valid_topic(topic):
                return {"base": "invalid_dead_letter_topic"}
            if self._comes_back(topic, watched):
                return {"base": "dead_letter_loop"}
        return {}

    def _comes_back(self, topic: str | None, watched: tuple[Pattern, ...]) -> bool:
        """Tell whether dead letters would be heard here, perhaps as those of others.

        Each topic has one monitor at most, so that there is one way to follow.
        """
        next_topic = {
            patterns(other.data): monitor_data(other.data)[CONF_DEAD_LETTER_TOPIC]
            for other in self._others()
        }
        while topic is not None and find(watched, topic) is None:
            heard = (theirs for theirs in next_topic if find(theirs, topic) is not None)
            topic = next_topic.pop(next(heard, ()), None)
        return topic is not None

    def _others(self) -> list[ConfigSubentry]:
        """Return the other monitors that listen over the same connection."""
        return [
            other
            for other in self._subentries(SUBENTRY_MONITOR)
            if other is not self._changed
            and other.data[CONF_DESTINATION] == self._data[CONF_DESTINATION]
        ]

    # --- what it would hear -------------------------------------------------------------

    async def _async_listen(self) -> dict[str, str]:
        """Listen for a few seconds; return why that was not possible."""
        destination = self._get_entry().subentries[self._data[CONF_DESTINATION]]
        try:
            self._heard = await async_listen(
                self.hass,
                destination.data,
                monitor_settings(self._data),
                self._is_ours,
            )
        except ConnectError as err:
            return {"base": err.problem.value}
        except Exception:
            _LOGGER.exception("Unexpected error while listening for a monitor")
            return {"base": "unknown"}
        return {}

    async def async_step_heard(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Show what was heard, and ask whether that is it."""
        heard = self._heard
        devices = [
            f"- `{name.replace('`', '')}`: {count}"
            for name, count in heard.devices.most_common(_MAX_SHOWN)
        ]
        if len(heard.devices) > _MAX_SHOWN:
            devices.append(f"- … (+{len(heard.devices) - _MAX_SHOWN})")
        return self.async_show_menu(
            step_id="heard",
            menu_options=["save", "change"],
            description_placeholders={
                "messages": str(heard.messages),
                "devices": str(len(heard.devices)),
                "list": "\n".join(devices),
                "rejected": await self._async_rejected(),
            },
        )

    async def async_step_nothing_heard(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Say that nothing was heard, and ask whether that may be."""
        return self.async_show_menu(
            step_id="nothing_heard", menu_options=["save", "change"]
        )

    async def _async_rejected(self) -> str:
        """Return how many messages were not understood, and why."""
        rejected = self._heard.rejected
        if not rejected:
            return "0"
        texts = await async_get_translations(
            self.hass, self.hass.config.language, "selector", [DOMAIN]
        )
        prefix = f"component.{DOMAIN}.selector.dead_letter_reason.options."
        why = ", ".join(
            f"{texts[prefix + reason.value]}: {count}"
            for reason, count in rejected.most_common()
        )
        return f"{rejected.total()} ({why})"

    async def async_step_save(
        self, _user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Save what was entered, unless what is there has changed meanwhile."""
        placeholders = {"monitor": ""}
        if errors := self._check(placeholders):
            return self._show_form(errors, placeholders)
        if (subentry := self._changed) is None:
            return self.async_create_entry(title=self._name, data=self._data)
        return self.async_update_and_abort(
            self._get_entry(), subentry, title=self._name, data=self._data
        )

    # --- what there is ------------------------------------------------------------------

    @property
    def _changed(self) -> ConfigSubentry | None:
        """Return the monitor that is to be changed, if one is."""
        if self.source != SOURCE_RECONFIGURE:
            return None
        return self._get_reconfigure_subentry()

    def _subentries(self, kind: str) -> list[ConfigSubentry]:
        """Return the subentries of a type."""
        return [
            subentry
            for subentry in self._get_entry().subentries.values()
            if subentry.subentry_type == kind
        ]

    def _destinations(self) -> dict[str, str]:
        """Return the titles of the destinations over whose connections one can listen."""
        return {
            subentry.subentry_id: subentry.title
            for subentry in self._subentries(SUBENTRY_DESTINATION)
            if kind_name(subentry.data) is KindName.MQTT
        }

    def _is_ours(self, topic: str) -> bool:
        """Tell whether a topic is one under which the bridge tells of itself."""
        entry = self._get_entry()
        return entry.state is ConfigEntryState.LOADED and bool(
            entry.runtime_data.is_ours(topic)
        )


def _schema(preset: Preset, destinations: Mapping[str, str]) -> vol.Schema:
    """Return the fields of a monitor; `destinations` are titles by subentry."""
    options = [
        SelectOptionDict(value=subentry_id, label=title)
        for subentry_id, title in destinations.items()
    ]
    fields: dict[vol.Marker, Any] = {
        vol.Required(CONF_NAME, default=_NAMES[preset]): TEXT,
        vol.Required(CONF_DESTINATION, default=options[0]["value"]): SelectSelector(
            SelectSelectorConfig(options=options, mode=SelectSelectorMode.DROPDOWN)
        ),
    }
    if preset is Preset.OWN:
        fields |= {vol.Optional(topics): TEXTS for topics in _TOPICS.values()}
    else:
        base = vol.Required(CONF_TOPIC_BASE, default=DEFAULT_BASES[preset])
        fields[base] = TEXT
    defaults = monitor_data({CONF_PRESET: preset})
    advanced: dict[vol.Marker, Any] = {
        vol.Optional(CONF_QOS, default=str(defaults[CONF_QOS])): choice(
            ("0", "1", "2"), "qos"
        ),
        vol.Optional(CONF_SHARE_GROUP): TEXT,
        vol.Optional(
            CONF_NEEDS_TIME, default=defaults[CONF_NEEDS_TIME]
        ): BooleanSelector(),
        vol.Optional(CONF_MAX_KILOBYTES, default=defaults[CONF_MAX_KILOBYTES]): number(
            1, 1024, "kB"
        ),
        vol.Optional(CONF_DEAD_LETTER_TOPIC): TEXT,
    }
    fields |= {
        vol.Optional(CONF_TIMEOUT, default=defaults[CONF_TIMEOUT]): number(
            0, _DAY, "s"
        ),
        vol.Optional(CONF_MAX_DEVICES, default=defaults[CONF_MAX_DEVICES]): number(
            1, 10_000
        ),
        vol.Optional(CONF_MARK_STALE, default=False): BooleanSelector(),
    }
    if preset is not Preset.BLE_BRIDGE:
        fields[vol.Optional(CONF_CRITICAL_RELAYS)] = TEXTS
    return vol.Schema(
        {
            **fields,
            vol.Optional(CONF_VALUES): section(_VALUES_SCHEMA, {"collapsed": True}),
            vol.Optional(CONF_ADVANCED): section(
                vol.Schema(advanced), {"collapsed": True}
            ),
        }
    )


def _read(
    preset: Preset, user_input: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the data of a monitor as it was entered.

    Who fills in the form by hand may leave a section out: then it stays as it was before.
    """
    said = monitor_data({CONF_PRESET: preset.value})
    for name, keys in ((CONF_VALUES, _VALUES), (CONF_ADVANCED, _ADVANCED)):
        kept = {key: before[key] for key in keys if key in before}
        said |= user_input.get(name, kept)
    said |= user_input
    data: dict[str, Any] = {
        CONF_PRESET: preset.value,
        CONF_DESTINATION: said[CONF_DESTINATION],
        CONF_TIMEOUT: int(said[CONF_TIMEOUT]),
        CONF_MAX_DEVICES: int(said[CONF_MAX_DEVICES]),
        CONF_MARK_STALE: said[CONF_MARK_STALE],
        CONF_AVERAGE: int(said[CONF_AVERAGE]),
        CONF_ANOMALIES: said[CONF_ANOMALIES],
        CONF_DEVIATIONS: float(said[CONF_DEVIATIONS]),
        CONF_WINDOW: int(said[CONF_WINDOW]),
        CONF_CRITICAL_RELAYS: lines(said[CONF_CRITICAL_RELAYS]),
        CONF_QOS: int(said[CONF_QOS]),
        CONF_NEEDS_TIME: said[CONF_NEEDS_TIME],
        CONF_MAX_KILOBYTES: int(said[CONF_MAX_KILOBYTES]),
        **{
            key: (said[key] or "").strip() or None
            for key in (CONF_SHARE_GROUP, CONF_DEAD_LETTER_TOPIC)
        },
    }
    if preset is Preset.OWN:
        for topics in _TOPICS.values():
            data[topics] = lines(said.get(topics) or ())
    else:
        data[CONF_TOPIC_BASE] = said[CONF_TOPIC_BASE].strip().strip("/")
    return data
