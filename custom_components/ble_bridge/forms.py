"""What the forms have in common: kinds of fields, and what is read from them."""

from collections.abc import Iterable
from typing import Any, Final

from homeassistant.helpers.selector import (
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
)

TEXT: Final = TextSelector()
TEXTS: Final = TextSelector(TextSelectorConfig(multiple=True))
# For keys: seen while they are entered, but kept by no browser.
SECRET: Final = TextSelector(TextSelectorConfig(autocomplete="off"))


def number(
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str | None = None,
    step: float | None = 1,
) -> NumberSelector:
    """Return a field for a number within bounds; without a step any digits will do."""
    config = NumberSelectorConfig(
        mode=NumberSelectorMode.BOX, step="any" if step is None else step
    )
    if minimum is not None:
        config["min"] = minimum
    if maximum is not None:
        config["max"] = maximum
    if unit is not None:
        config["unit_of_measurement"] = unit
    return NumberSelector(config)


def choice(options: Iterable[str], translation_key: str) -> SelectSelector:
    """Return a field for one of a few things that have a text each."""
    return SelectSelector(
        SelectSelectorConfig(
            options=list(options),
            translation_key=translation_key,
            mode=SelectSelectorMode.DROPDOWN,
        )
    )


def plain_number(value: float | None) -> float | None:
    """Return a number as it would be written: 30 rather than 30.0."""
    return int(value) if value is not None and value.is_integer() else value


def lines(texts: Iterable[Any]) -> list[str]:
    """Return what was entered in the lines of a list, without empty ones."""
    return [line for text in texts if (line := str(text).strip())]
