"""Destinations on MQTT."""

from collections.abc import Collection, Mapping
import logging
from typing import Any, Final, override

from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_HOST, CONF_PASSWORD, CONF_PORT, CONF_USERNAME
from homeassistant.core import HomeAssistant
import voluptuous as vol

from ...const import (
    CONF_BROKER,
    CONF_QOS,
    CONF_RAW,
    CONF_TOPIC_BASE,
    CONF_TRANSPORT,
    CONF_UNIX_PATH,
    DEFAULT_TOPIC_BASE,
    Broker,
    Transport,
)
from ...destinations.destination import DestinationListener, DestinationParts
from ...destinations.errors import ConnectError
from ...destinations.mqtt import MqttDestination
from ...destinations.mqtt_connection import MqttConnector, Will
from ...destinations.policy import DeliverySettings
from ...destinations.store import RecordStore
from ...layouts.raw import advertisement_topic, bridge_topic
from ...layouts.topics import encode_topic
from ...records import Sighting
from ...uploads import Uploads
from ..entered import Entered
from ..kind import Kind, Site
from ..security import CREDENTIALS
from .form import async_try, destination_schema, suggested
from .input import async_destination_data, bases
from .publisher import MqttPublisher
from .settings import broker_place, mqtt_settings, place

_LOGGER = logging.getLogger(__name__)

_CLEAR_TIMEOUT: Final = 5.0


class MqttKind(Kind):
    """Destinations on MQTT."""

    model = "MQTT destination"

    @override
    def schema(self, hass: HomeAssistant) -> dict[vol.Marker, Any]:
        return destination_schema(hass)

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
        return await async_destination_data(hass, uploads, user_input, previous)

    @override
    async def async_try(
        self,
        hass: HomeAssistant,
        bridge_id: str,
        data: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> None:
        await async_try(hass, bridge_id, data, previous)

    @override
    def credentials(self, data: Mapping[str, Any]) -> dict[vol.Marker, Any]:
        return CREDENTIALS

    @override
    def with_credentials(
        self, data: Mapping[str, Any], user_input: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            **data,
            CONF_USERNAME: user_input.get(CONF_USERNAME) or None,
            CONF_PASSWORD: user_input.get(CONF_PASSWORD) or None,
        }

    @override
    def title(self, data: Mapping[str, Any]) -> str:
        if data[CONF_BROKER] == Broker.HOME_ASSISTANT:
            title = "Home Assistant's MQTT broker"
        elif data.get(CONF_TRANSPORT) == Transport.UNIX:
            title = data[CONF_UNIX_PATH]
        else:
            title = f"{data[CONF_HOST]}:{data[CONF_PORT]}"
        base = data[CONF_TOPIC_BASE]
        return title if base == DEFAULT_TOPIC_BASE else f"{title} ({base})"

    @override
    def server(self, data: Mapping[str, Any]) -> str:
        return broker_place(data)

    @override
    def place(self, data: Mapping[str, Any]) -> str:
        return place(data)

    @override
    def names(self, data: Mapping[str, Any]) -> Collection[str]:
        return bases(data)

    @override
    def publisher(
        self,
        site: Site,
        subentry: ConfigSubentry,
        delivery: DeliverySettings,
        store: RecordStore | None,
        listener: DestinationListener,
    ) -> MqttPublisher:
        data = dict(subentry.data)
        base: str = data[CONF_TOPIC_BASE]

        def head(sighting: Sighting) -> bytes:
            return encode_topic(advertisement_topic(base, sighting))

        destination = MqttDestination(
            DestinationParts(
                title=subentry.title,
                raw=site.raw if data.get(CONF_RAW, True) else None,
                head=head,
                delivery=delivery,
                store=store,
                listener=listener,
            ),
            lambda: mqtt_settings(site.hass, data),
            Will(bridge_topic(base, site.bridge_id), b"offline"),
            int(data[CONF_QOS]),
        )
        return MqttPublisher(
            subentry.subentry_id,
            data,
            place(data),
            destination,
            site.store,
            site.bridge_id,
        )

    @override
    async def async_clear(
        self, hass: HomeAssistant, data: Mapping[str, Any], names: Collection[str]
    ) -> None:
        try:
            connection = await MqttConnector(
                mqtt_settings(hass, data), connect_timeout=_CLEAR_TIMEOUT
            ).async_connect()
        except ConnectError as err:
            _LOGGER.warning(
                "%d retained messages could not be cleared from the broker (%s)",
                len(names),
                err.problem,
            )
            return
        try:
            for topic in names:
                connection.publish(topic, b"", retain=True)
        finally:
            await connection.async_close()
