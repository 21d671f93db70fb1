"""The forms of alert rules, which those of a device and of all of them share."""

from collections.abc import Collection, Iterable, Mapping
import re
from typing import Any, Final

from homeassistant.const import CONF_NAME
from homeassistant.data_entry_flow import FlowContext, FlowHandler, FlowResult
from homeassistant.helpers.selector import (
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
)
from homeassistant.util.ulid import ulid_now
import voluptuous as vol

from .alerts import (
    DEFAULT_BATTERY,
    DEFAULT_DEVIATIONS,
    DEFAULT_WINDOW,
    MAX_DURATION,
    MAX_WINDOW,
    MIN_WINDOW,
    Rule,
    RuleKind,
)
from .forms import TEXT, TEXTS, lines, number, plain_number
from .layouts.topics import safe_part
from .records import Value

CONF_KIND: Final = "kind"
CONF_RULE: Final = "rule"
CONF_RULES: Final = "rules"
_AUDIENCES: Final = "audiences"
_DEVIATIONS: Final = "deviations"
_DURATION: Final = "duration"
_FIELD: Final = "field"
_HYSTERESIS: Final = "hysteresis"
_LIMIT: Final = "limit"
_WINDOW: Final = "window"

_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAMES: Final = {
    RuleKind.LOW_BATTERY: "Battery low",
    RuleKind.LOST: "Lost",
    RuleKind.WEAK_SIGNAL: "Weak signal",
    RuleKind.ABOVE: "Too high",
    RuleKind.BELOW: "Too low",
    RuleKind.ANOMALY: "Unusual value",
}
KIND_SCHEMA: Final = vol.Schema(
    {
        vol.Required(CONF_KIND, default=RuleKind.LOW_BATTERY.value): SelectSelector(
            SelectSelectorConfig(
                options=[kind.value for kind in RuleKind],
                translation_key="alert_kind",
                mode=SelectSelectorMode.LIST,
            )
        )
    }
)


def alert_schema(kind: RuleKind, fields: Iterable[str]) -> vol.Schema:
    """Return the form of a rule; `fields` are those that can be chosen from."""
    schema: dict[vol.Marker, Any] = {
        vol.Required(CONF_NAME, default=_NAMES[kind]): TEXT
    }
    if kind in {RuleKind.ABOVE, RuleKind.BELOW, RuleKind.ANOMALY}:
        schema[vol.Required(_FIELD)] = SelectSelector(
            SelectSelectorConfig(
                options=sorted(fields),
                custom_value=True,
                mode=SelectSelectorMode.DROPDOWN,
            )
        )
    if kind is RuleKind.LOW_BATTERY:
        schema[vol.Required(_LIMIT, default=DEFAULT_BATTERY)] = number(1, 100, "%")
        schema[vol.Optional(_HYSTERESIS, default=5)] = number(0, 100, "%")
    elif kind is RuleKind.WEAK_SIGNAL:
        schema[vol.Required(_LIMIT, default=-90)] = number(-127, 0, "dBm")
        schema[vol.Optional(_HYSTERESIS, default=5)] = number(0, 100, "dB")
    elif kind in {RuleKind.ABOVE, RuleKind.BELOW}:
        schema[vol.Required(_LIMIT)] = number(step=None)
        schema[vol.Optional(_HYSTERESIS, default=0)] = number(0, step=None)
    elif kind is RuleKind.ANOMALY:
        schema[vol.Required(_DEVIATIONS, default=DEFAULT_DEVIATIONS)] = number(
            0.1, 1000, step=None
        )
        schema[vol.Required(_WINDOW, default=DEFAULT_WINDOW)] = number(
            MIN_WINDOW, MAX_WINDOW
        )
    schema[vol.Optional(_DURATION, default=0)] = number(0, MAX_DURATION, "s")
    schema[vol.Optional(_AUDIENCES, default=list)] = TEXTS
    return vol.Schema(schema)


def read_rule(
    kind: RuleKind, user_input: Mapping[str, Any], names: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a rule as it is stored, and what is wrong with it.

    `names` are those of other rules, as they stand in topics: no two may be the same there.
    """
    errors: dict[str, str] = {}
    name = user_input[CONF_NAME].strip()
    if not name or safe_part(spaceless := name.replace(" ", "_")) != spaceless:
        errors[CONF_NAME] = "invalid_alert_name"
    elif safe_part(name) in names:
        errors[CONF_NAME] = "alert_name_taken"
    data = {
        **{
            key: plain_number(value) if isinstance(value, float) else value
            for key, value in user_input.items()
        },
        "rule_id": ulid_now(),
        CONF_KIND: kind.value,
        CONF_NAME: name,
        _AUDIENCES: lines(user_input[_AUDIENCES]),
    }
    if _FIELD in user_input:
        field = data[_FIELD] = user_input[_FIELD].strip().lower().replace(" ", "_")
        if not _FIELD_NAME.fullmatch(field):
            errors[_FIELD] = "invalid_field"
    if errors:
        return data, errors
    try:
        return Rule.from_dict(data).as_dict(), errors
    except ValueError as err:
        return data, {str(err): "invalid_number"}


def number_fields(values: Mapping[str, Value]) -> set[str]:
    """Return the names of those values that a limit can be set for."""
    return {
        name
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def names_of(rules: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names of rules as they stand in topics."""
    return {safe_part(str(rule[CONF_NAME])) for rule in rules}


def _selector(
    rules: Iterable[Mapping[str, Any]], *, multiple: bool = False
) -> SelectSelector:
    """Return what rules are chosen from."""
    options = [
        SelectOptionDict(value=rule["rule_id"], label=rule[CONF_NAME]) for rule in rules
    ]
    return SelectSelector(
        SelectSelectorConfig(
            options=options, multiple=multiple, mode=SelectSelectorMode.LIST
        )
    )


class AlertSteps[
    ContextT: FlowContext,
    ResultT: FlowResult[Any, Any],
    HandlerT,
](FlowHandler[ContextT, ResultT, HandlerT]):
    """The steps that add, change and remove rules, of a device or of all."""

    _kind: RuleKind
    _changed: Mapping[str, Any] | None = None

    def _rules(self) -> list[dict[str, Any]]:
        """Return the rules that there are."""
        raise NotImplementedError

    def _other_rules(self) -> Iterable[Mapping[str, Any]]:
        """Return the rules elsewhere whose names are taken, too."""
        raise NotImplementedError

    def _fields(self) -> set[str]:
        """Return the fields that a limit can be set for."""
        raise NotImplementedError

    def _save_rules(self, rules: list[dict[str, Any]]) -> ResultT:
        """Save the rules, and end."""
        raise NotImplementedError

    async def async_step_add_alert(
        self, user_input: dict[str, Any] | None = None
    ) -> ResultT:
        """Choose what an alert is about."""
        if user_input is not None:
            self._kind = RuleKind(user_input[CONF_KIND])
            return await self.async_step_alert()
        return self.async_show_form(
            step_id="add_alert", data_schema=KIND_SCHEMA, last_step=False
        )

    async def async_step_change_alert(
        self, user_input: dict[str, Any] | None = None
    ) -> ResultT:
        """Choose the alert that is to be changed."""
        rules = {rule["rule_id"]: rule for rule in self._rules()}
        if user_input is not None:
            self._changed = rules[user_input[CONF_RULE]]
            self._kind = RuleKind(self._changed[CONF_KIND])
            return await self.async_step_alert()
        return self.async_show_form(
            step_id="change_alert",
            data_schema=vol.Schema(
                {vol.Required(CONF_RULE): _selector(rules.values())}
            ),
            last_step=False,
        )

    async def async_step_alert(
        self, user_input: dict[str, Any] | None = None
    ) -> ResultT:
        """Ask for an alert."""
        changed = self._changed
        rules = self._rules()
        errors: dict[str, str] = {}
        if user_input is not None:
            changed_id = changed["rule_id"] if changed else None
            others = [rule for rule in rules if rule["rule_id"] != changed_id]
            names = names_of([*others, *self._other_rules()])
            rule, errors = read_rule(self._kind, user_input, names)
            if not errors and changed_id is None:
                return self._save_rules([*rules, rule])
            if not errors:
                rule["rule_id"] = changed_id
                return self._save_rules(
                    [
                        rule if other["rule_id"] == changed_id else other
                        for other in rules
                    ]
                )
        return self.async_show_form(
            step_id="alert",
            data_schema=self.add_suggested_values_to_schema(
                alert_schema(self._kind, self._fields()), user_input or changed
            ),
            errors=errors,
        )

    async def async_step_remove_alerts(
        self, user_input: dict[str, Any] | None = None
    ) -> ResultT:
        """Remove alerts."""
        rules = self._rules()
        if user_input is not None:
            removed = user_input[CONF_RULES]
            return self._save_rules(
                [rule for rule in rules if rule["rule_id"] not in removed]
            )
        return self.async_show_form(
            step_id="remove_alerts",
            data_schema=vol.Schema(
                {
                    vol.Required(CONF_RULES, default=list): _selector(
                        rules, multiple=True
                    )
                }
            ),
        )
