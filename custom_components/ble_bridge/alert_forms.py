"""The forms of alert rules, which those of a device and of all of them share."""

from collections.abc import Collection, Iterable, Mapping
import re
from typing import Any, Final

from homeassistant.const import CONF_NAME
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


def remove_schema(rules: Iterable[Mapping[str, Any]]) -> vol.Schema:
    """Return the form to choose the rules from that are to be removed."""
    options = [
        SelectOptionDict(value=rule["rule_id"], label=rule[CONF_NAME]) for rule in rules
    ]
    return vol.Schema(
        {
            vol.Required(CONF_RULES, default=list): SelectSelector(
                SelectSelectorConfig(options=options, multiple=True)
            )
        }
    )


def without(
    rules: Iterable[Mapping[str, Any]], removed: Collection[str]
) -> list[dict[str, Any]]:
    """Return the rules that are left."""
    return [dict(rule) for rule in rules if rule["rule_id"] not in removed]
