"""Delivery in the form of a destination."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.helpers.selector import NumberSelector
import voluptuous as vol

from ..const import (
    CONF_BUFFER_MEGABYTES,
    CONF_BUFFER_RECORDS,
    CONF_DRAIN_RATE,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_IN_FLIGHT,
    CONF_MAX_TRIES,
    CONF_PUBLISH_TIMEOUT,
    CONF_STORE_MEGABYTES,
    CONF_STORE_RECORDS,
)
from ..destinations.policy import Policy
from ..forms import choice, number
from ..settings import delivery_data

# How much and how long each may be; what is not among them is a policy.
_BOUNDS: Final[Mapping[str, NumberSelector]] = {
    CONF_BUFFER_RECORDS: number(1, 100_000, "records"),
    CONF_BUFFER_MEGABYTES: number(1, 256, "MB"),
    CONF_STORE_RECORDS: number(100, 10_000_000, "records"),
    CONF_STORE_MEGABYTES: number(1, 4096, "MB"),
    CONF_MAX_AGE_HOURS: number(1, 8760, "h"),
    CONF_PUBLISH_TIMEOUT: number(0.1, 300, "s", None),
    CONF_MAX_IN_FLIGHT: number(1, 10_000, "messages"),
    CONF_DRAIN_RATE: number(1, 100_000, "records/s"),
    CONF_MAX_TRIES: number(1, 100),
}
_POLICY: Final = choice(Policy, "policy")


def delivery_schema(data: Mapping[str, Any]) -> vol.Schema:
    """Return the fields of delivery, by default as some data have them."""
    return vol.Schema(
        {
            vol.Optional(key, default=value): _BOUNDS.get(key, _POLICY)
            for key, value in delivery_data(data).items()
        }
    )


DELIVERY_SCHEMA: Final = delivery_schema({})
