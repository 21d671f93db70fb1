"""Whether all is well, for those who ask from outside (`docs/metrics.md`)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import HomeAssistant, callback
from homeassistant.util import dt as dt_util

from .bridge import BleBridgeConfigEntry
from .const import DOMAIN
from .destinations.destination import Destination
from .destinations.errors import Problem
from .kinds import kind_name
from .records import RecordKind

NOT_LOADED: Final = "not_loaded"
NOT_CONNECTED: Final = "not_connected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How something is doing, under the names of `specs/mqtt-monitor.md`.

    `problems` are what makes it unhealthy. Records count as processed when they went out,
    confirmed or not, and as errors where we or the destination rejected them.
    """

    broker_connected: bool
    last_message: float | None
    messages_processed: int
    errors_count: int
    problems: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Tell whether all is well."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return what is answered."""
        last = self.last_message
        return {
            "status": "healthy" if self.is_healthy else "unhealthy",
            "broker_connected": self.broker_connected,
            "last_message_time": last and f"{dt_util.utc_from_timestamp(last).isoformat(timespec="milliseconds")}",
            "messages_processed": self.messages_processed,
            "errors_count": self.errors_count,
            "problems": list(self.problems),
        }
