"""What the bridge, the forms and the repairs need to know of a kind of destination."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
import logging
from typing import Any

from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import HomeAssistant
import voluptuous as vol

from ..destinations.destination import DestinationListener
from ..destinations.errors import ConnectError, Problem
from ..destinations.policy import DeliverySettings
from ..destinations.store import RecordStore
from ..layouts.raw import RawLayout
from ..layouts.subjects import RawProtobufLayout
from ..publisher import Publisher
from ..scanners import BridgeStore
from ..uploads import Uploads
from .entered import Entered

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the destinations of a bridge share."""

    hass: HomeAssistant
    bridge_id: str
    store: BridgeStore
    raw: RawLayout
    raw_protobuf: RawProtobufLayout


class Kind:
    """A kind of destination: its form, its data, and what publishes there."""

    # What it is called in Home Assistant's list of devices.
    model: str
    # Upon what other credentials may help.
    asks_credentials_for = frozenset({Problem.INVALID_AUTH})

    # --- the form -----------------------------------------------------------------------

    def schema(self, hass: HomeAssistant) -> dict[vol.Marker, Any]:
        """Return the fields of the form."""
        raise NotImplementedError

    def suggested(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a destination's data as the form shows them, without any secret."""
        raise NotImplementedError

    async def async_data(
        self,
        hass: HomeAssistant,
        uploads: Uploads,
        user_input: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> Entered:
        """Return what a form says of a destination, and what is wrong with it.

        What the form does not show stays as it was where it is left empty.
        """
        raise NotImplementedError

    async def async_try(
        self,
        hass: HomeAssistant,
        bridge_id: str,
        data: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect once as the bridge will; raises ConnectError."""
        raise NotImplementedError

    async def async_test(
        self,
        hass: HomeAssistant,
        bridge_id: str,
        data: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Connect once as the bridge will, and return what went wrong, as a form has it."""
        try:
            await self.async_try(hass, bridge_id, data, previous)
        except ConnectError as err:
            return {"base": err.problem.value}
        except Exception:
            _LOGGER.exception("Unexpected error while trying a destination")
            return {"base": "unknown"}
        return {}

    def credentials(self, data: Mapping[str, Any]) -> dict[vol.Marker, Any]:
        """Return the fields of the credentials that are asked for when they are refused."""
        raise NotImplementedError

    def with_credentials(
        self, data: Mapping[str, Any], user_input: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the data with other credentials."""
        raise NotImplementedError

    async def async_with_credentials(
        self,
        _hass: HomeAssistant,
        _uploads: Uploads,
        data: Mapping[str, Any],
        user_input: Mapping[str, Any],
    ) -> Entered:
        """Return the same, and what is wrong with them; they may be in a file."""
        return Entered(self.with_credentials(data, user_input))

    # --- what is known of the data ------------------------------------------------------

    def title(self, data: Mapping[str, Any]) -> str:
        """Return the title of a destination."""
        raise NotImplementedError

    def server(self, data: Mapping[str, Any]) -> str:
        """Return what tells one server from another."""
        raise NotImplementedError

    def place(self, data: Mapping[str, Any]) -> str:
        """Return what tells one destination from another: its server, and where there."""
        raise NotImplementedError

    def names(self, data: Mapping[str, Any]) -> Collection[str]:
        """Return under which names it publishes: no two may share one on one server."""
        raise NotImplementedError

    # --- the bridge ---------------------------------------------------------------------

    def publisher(
        self,
        site: Site,
        subentry: ConfigSubentry,
        delivery: DeliverySettings,
        store: RecordStore | None,
        listener: DestinationListener,
    ) -> Publisher:
        """Make the destination of a subentry, and what publishes there."""
        raise NotImplementedError

    async def async_clear(
        self, hass: HomeAssistant, data: Mapping[str, Any], names: Collection[str]
    ) -> None:
        """Clear what is kept there under names, if it can be reached."""


def conflict(
    kind: Kind, data: Mapping[str, Any], others: Iterable[ConfigSubentry]
) -> tuple[str, str] | None:
    """Return a name that another destination uses on the same server, and its title.

    Two would publish everything twice there, and each would clear what the other keeps.
    `others` are destinations of the same kind.
    """
    for other in others:
        if kind.server(other.data) == kind.server(data) and (
            shared := set(kind.names(data)).intersection(kind.names(other.data))
        ):
            return min(shared), other.title
    return None
