"""Destinations on InfluxDB, and on what takes its line protocol."""

from collections.abc import Collection, Mapping
import time
from typing import Any, override

from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_USERNAME
from homeassistant.core import HomeAssistant
from homeassistant.helpers.aiohttp_client import async_get_clientsession
import voluptuous as vol

from ...const import CONF_API, CONF_MEASUREMENT, CONF_SIGNALS, Signals
from ...destinations.destination import DestinationListener, DestinationParts
from ...destinations.errors import Problem
from ...destinations.influxdb import InfluxDestination
from ...destinations.influxdb_connection import (
    CONNECT_TIMEOUT,
    InfluxApi,
    InfluxConnector,
)
from ...destinations.policy import DeliverySettings
from ...destinations.store import RecordStore
from ...layouts.lines import LinesLayout, SignalLayout
from ...uploads import Uploads
from ..entered import Entered
from ..kind import Kind, Site
from ..security import CREDENTIALS
from .form import SCHEMA, TOKEN, suggested
from .input import async_influx_data, credentials
from .publisher import InfluxPublisher
from .settings import influx_settings, place, server, title


class InfluxKind(Kind):
    """Destinations on InfluxDB."""

    model = "InfluxDB destination"
    # A token that is known may still not be for this bucket.
    asks_credentials_for = frozenset({Problem.INVALID_AUTH, Problem.NOT_AUTHORIZED})

    @override
    def schema(self, hass: HomeAssistant) -> dict[vol.Marker, Any]:
        return dict(SCHEMA)

    @override
    def suggested(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return suggested(data)

    @override
    async def async_data(
        self,
        hass: HomeAssistant,
        uploads: Uploads,
        user_input: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> Entered:
        return await async_influx_data(hass, uploads, user_input, previous)

    @override
    async def async_try(
        self,
        hass: HomeAssistant,
        bridge_id: str,
        data: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> None:
        settings = influx_settings(data)
        layout = LinesLayout(data[CONF_MEASUREMENT])
        connector = InfluxConnector(
            async_get_clientsession(hass),
            settings,
            lambda online: layout.bridge_status(bridge_id, online, time.time()),
        )
        # What is written is what is so: a bridge that is new is not there yet.
        await connector.async_connect(
            min(settings.connect_timeout, CONNECT_TIMEOUT), online=previous is not None
        )

    @override
    def credentials(self, data: Mapping[str, Any]) -> dict[vol.Marker, Any]:
        if data[CONF_API] == InfluxApi.V2 and not data[CONF_USERNAME]:
            return TOKEN
        return CREDENTIALS

    @override
    def with_credentials(
        self, data: Mapping[str, Any], user_input: Mapping[str, Any]
    ) -> dict[str, Any]:
        is_first = data[CONF_API] == InfluxApi.V1
        return {**data, **credentials(user_input, data, knows_tokens=not is_first)}

    @override
    def title(self, data: Mapping[str, Any]) -> str:
        return title(data)

    @override
    def server(self, data: Mapping[str, Any]) -> str:
        return server(data)

    @override
    def place(self, data: Mapping[str, Any]) -> str:
        return place(data)

    @override
    def names(self, data: Mapping[str, Any]) -> Collection[str]:
        return [data[CONF_MEASUREMENT]]

    @override
    def publisher(
        self,
        site: Site,
        subentry: ConfigSubentry,
        delivery: DeliverySettings,
        store: RecordStore | None,
        listener: DestinationListener,
    ) -> InfluxPublisher:
        data = dict(subentry.data)
        layout = LinesLayout(data[CONF_MEASUREMENT])
        signals = Signals(data[CONF_SIGNALS])
        destination = InfluxDestination(
            DestinationParts(
                title=subentry.title,
                raw=(
                    None
                    if signals is Signals.NONE
                    else SignalLayout(data[CONF_MEASUREMENT])
                ),
                head=lambda _: b"",
                delivery=delivery,
                store=store,
                listener=listener,
            ),
            async_get_clientsession(site.hass),
            influx_settings(data),
            lambda online: layout.bridge_status(site.bridge_id, online, time.time()),
            is_open_to_all=signals is Signals.ALL,
        )
        return InfluxPublisher(subentry.subentry_id, place(data), destination, layout)
