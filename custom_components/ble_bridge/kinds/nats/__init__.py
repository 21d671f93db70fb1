"""Destinations on NATS."""

from collections.abc import Collection, Mapping
from typing import Any, Final, override
from urllib.parse import urlsplit

from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import HomeAssistant
import voluptuous as vol

from ...const import (
    CONF_AUTHENTICATION,
    CONF_METHOD,
    CONF_NAMESPACE,
    CONF_PAYLOAD,
    CONF_RAW,
    CONF_SERVERS,
    Authentication,
    PayloadFormat,
)
from ...destinations.destination import DestinationListener, DestinationParts
from ...destinations.nats import NatsDestination
from ...destinations.nats_connection import CONNECT_TIMEOUT, NatsConnector
from ...destinations.policy import DeliverySettings
from ...destinations.store import RecordStore
from ...layouts.subjects import advertisement_subject
from ...records import Sighting
from ...uploads import Uploads
from ..entered import Entered
from ..kind import Kind, Site
from .form import (
    CREDENTIAL_FIELDS,
    FIELDS,
    async_authentication,
    async_nats_data,
    suggested,
)
from .publisher import NatsPublisher
from .settings import cluster, nats_settings, stored_kinds

# How long the form waits for a server, where the connection itself is more patient.
_TEST_TIMEOUT: Final = 10.0


class NatsKind(Kind):
    """Destinations on NATS."""

    model = "NATS destination"

    @override
    def schema(self, hass: HomeAssistant) -> dict[vol.Marker, Any]:
        return FIELDS

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
        return await async_nats_data(hass, uploads, user_input, previous)

    @override
    async def async_try(
        self,
        hass: HomeAssistant,
        bridge_id: str,
        data: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> None:
        settings = nats_settings(data)
        patience = settings.connect_timeout
        if patience <= CONNECT_TIMEOUT:
            patience = min(patience, _TEST_TIMEOUT)
        connection = await NatsConnector(settings, patience).async_connect()
        await connection.async_close()

    @override
    def credentials(self, data: Mapping[str, Any]) -> dict[vol.Marker, Any]:
        # A server that asked for nothing so far asks for a user in most cases.
        method = Authentication(data[CONF_AUTHENTICATION])
        return CREDENTIAL_FIELDS.get(method, CREDENTIAL_FIELDS[Authentication.PASSWORD])

    @override
    async def async_with_credentials(
        self,
        hass: HomeAssistant,
        uploads: Uploads,
        data: Mapping[str, Any],
        user_input: Mapping[str, Any],
    ) -> Entered:
        method = data[CONF_AUTHENTICATION]
        if method == Authentication.NONE:
            method = Authentication.PASSWORD
        entered = Entered(dict(data))
        with entered.collect():
            said = {**user_input, CONF_METHOD: method}
            entered.data |= await async_authentication(hass, uploads, said, data)
        return entered

    @override
    def title(self, data: Mapping[str, Any]) -> str:
        namespace = data[CONF_NAMESPACE]
        return f"{urlsplit(data[CONF_SERVERS][0]).netloc} ({namespace})"

    @override
    def server(self, data: Mapping[str, Any]) -> str:
        return cluster(data)

    @override
    def place(self, data: Mapping[str, Any]) -> str:
        return f"nats:{cluster(data)}/{data[CONF_NAMESPACE]}"

    @override
    def names(self, data: Mapping[str, Any]) -> Collection[str]:
        return (data[CONF_NAMESPACE],)

    @override
    def publisher(
        self,
        site: Site,
        subentry: ConfigSubentry,
        delivery: DeliverySettings,
        store: RecordStore | None,
        listener: DestinationListener,
    ) -> NatsPublisher:
        data = dict(subentry.data)
        namespace: str = data[CONF_NAMESPACE]
        is_json = data[CONF_PAYLOAD] == PayloadFormat.JSON
        settings = nats_settings(data)

        def head(sighting: Sighting) -> bytes:
            return advertisement_subject(namespace, sighting).encode()

        destination = NatsDestination(
            DestinationParts(
                title=subentry.title,
                raw=(site.raw if is_json else site.raw_protobuf)
                if data[CONF_RAW]
                else None,
                head=head,
                delivery=delivery,
                store=store,
                listener=listener,
            ),
            lambda: settings,
            stored_kinds(data),
        )
        return NatsPublisher(subentry.subentry_id, data, self.place(data), destination)

    @override
    async def async_clear(
        self, hass: HomeAssistant, data: Mapping[str, Any], names: Collection[str]
    ) -> None:
        """Clear nothing: nothing is retained, and streams are the user's."""
