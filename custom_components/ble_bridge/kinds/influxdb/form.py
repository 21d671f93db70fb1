"""The form of an InfluxDB destination: its fields, and what they show."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import CONF_PASSWORD, CONF_TOKEN, CONF_URL
from homeassistant.data_entry_flow import section
from homeassistant.helpers.selector import (
    BooleanSelector,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
import voluptuous as vol

from ...const import (
    CONF_ADVANCED,
    CONF_API,
    CONF_BATCH_KILOBYTES,
    CONF_BATCH_LINES,
    CONF_BATCH_SECONDS,
    CONF_BUCKET,
    CONF_CONNECT_TIMEOUT,
    CONF_DELIVERY,
    CONF_FIRST_DELAY,
    CONF_GZIP,
    CONF_LONGEST_DELAY,
    CONF_MAX_IN_FLIGHT,
    CONF_MEASUREMENT,
    CONF_ORGANIZATION,
    CONF_PUBLISH_TIMEOUT,
    CONF_RETENTION_POLICY,
    CONF_SECURITY,
    CONF_SIGNALS,
    CONF_TLS,
    Signals,
)
from ...destinations.destination import FIRST_DELAY, LONGEST_DELAY
from ...destinations.influxdb_connection import CONNECT_TIMEOUT, InfluxApi
from ...forms import TEXT, choice, number
from ...layouts.lines import DEFAULT_MEASUREMENT
from ...settings import delivery_data
from ..delivery import DELIVERY_SCHEMA
from ..security import CREDENTIALS, SECURITY_FIELDS, suggested_security

DEFAULT_URL: Final = "http://localhost:8086"
# How it delivers of which nothing is said: a store on a small machine takes its time.
DELIVERY_DEFAULTS: Final[Mapping[str, Any]] = {
    CONF_DELIVERY: {CONF_PUBLISH_TIMEOUT: 10}
}
# What the form does not show, for how much is under way is what a batch is.
_NOT_SHOWN: Final = frozenset({CONF_MAX_IN_FLIGHT})

TOKEN: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_TOKEN): TextSelector(
        TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="new-password")
    )
}
# Whether there is TLS, the URL says.
_SECURITY_SCHEMA: Final = vol.Schema(
    {key: value for key, value in SECURITY_FIELDS.items() if key != CONF_TLS}
)
_DELIVERY_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(key, default=value): DELIVERY_SCHEMA.schema[key]
        for key, value in delivery_data(DELIVERY_DEFAULTS).items()
        if key not in _NOT_SHOWN
    }
)
_ADVANCED_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_MEASUREMENT, default=DEFAULT_MEASUREMENT): TEXT,
        vol.Optional(CONF_RETENTION_POLICY): TEXT,
        vol.Optional(CONF_GZIP, default=True): BooleanSelector(),
        vol.Optional(CONF_BATCH_LINES, default=5_000): number(1, 10_000, "lines"),
        vol.Optional(CONF_BATCH_KILOBYTES, default=1_000): number(1, 4_000, "kB"),
        vol.Optional(CONF_BATCH_SECONDS, default=1): number(0.01, 60, "s", None),
        vol.Optional(CONF_CONNECT_TIMEOUT, default=CONNECT_TIMEOUT): number(
            1, 300, "s", None
        ),
        vol.Optional(CONF_FIRST_DELAY, default=FIRST_DELAY): number(
            0.1, 300, "s", None
        ),
        vol.Optional(CONF_LONGEST_DELAY, default=LONGEST_DELAY): number(
            0.1, 3600, "s", None
        ),
    }
)
_SECTIONS: Final = {
    CONF_SECURITY: _SECURITY_SCHEMA,
    CONF_DELIVERY: _DELIVERY_SCHEMA,
    CONF_ADVANCED: _ADVANCED_SCHEMA,
}
_ENTERED: Final[dict[vol.Marker, Any]] = {
    vol.Required(CONF_URL, default=DEFAULT_URL): TEXT,
    vol.Required(CONF_API, default=InfluxApi.V2.value): choice(InfluxApi, CONF_API),
    vol.Optional(CONF_BUCKET): TEXT,
    vol.Optional(CONF_ORGANIZATION): TEXT,
    **TOKEN,
    **CREDENTIALS,
    vol.Required(CONF_SIGNALS, default=Signals.DEVICES.value): choice(
        Signals, CONF_SIGNALS
    ),
}
SCHEMA: Final[dict[vol.Marker, Any]] = {
    **_ENTERED,
    **{
        (vol.Required if name == CONF_ADVANCED else vol.Optional)(name): section(
            schema, {"collapsed": True}
        )
        for name, schema in _SECTIONS.items()
    },
}


def suggested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a destination's data as the form shows them, without any secret."""
    data = {CONF_FIRST_DELAY: FIRST_DELAY, CONF_LONGEST_DELAY: LONGEST_DELAY, **data}
    sections: dict[str, Mapping[str, Any]] = {
        CONF_SECURITY: suggested_security(data),
        CONF_DELIVERY: delivery_data(data),
        CONF_ADVANCED: data,
    }
    shown = {str(key) for key in _ENTERED} - {CONF_TOKEN, CONF_PASSWORD}
    return {
        **{key: data[key] for key in shown if data[key]},
        **{
            name: {
                key: part[key]
                for key in map(str, _SECTIONS[name].schema)
                if part.get(key) is not None
            }
            for name, part in sections.items()
        },
    }
