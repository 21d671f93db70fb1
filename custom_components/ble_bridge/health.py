"""Whether all is well, for who asks from outside: `docs/metrics.md` has the fields."""

from typing import Any, Final, TypedDict

from homeassistant.core import HomeAssistant, callback

from .bridge import BleBridgeConfigEntry
from .const import DOMAIN
from .destinations.destination import Destination
from .kinds import kind_name
from .layouts.payloads import iso_timestamp
from .monitors.monitor import Monitor
from .records import RecordKind

NOT_LOADED: Final = "not_loaded"
NOT_CONNECTED: Final = "not_connected"
NOT_LISTENING: Final = "not_listening"
STORE_FAILED: Final = "store_failed"


class Health(TypedDict):
    """How the bridge or a destination is doing.

    It is healthy where it has no `problems`. The other names are those of
    `specs/mqtt-monitor.md`; processed are records that went out, whether confirmed or not,
    and errors those that we or the destination rejected.
    """

    status: str
    broker_connected: bool
    last_message_time: str | None
    messages_processed: int
    errors_count: int
    problems: list[str]


class DestinationHealth(Health):
    """How a destination is doing, and which it is."""

    kind: str
    title: str
    last_error: str | None


class MonitorHealth(Health):
    """How a monitor is doing, and which it is."""

    title: str
    last_error: str | None


class BridgeHealth(Health):
    """How the bridge is doing; destinations and monitors by the IDs of their subentries.

    Its own figures are those of the destinations; what is wrong with a monitor counts too.
    """

    destinations: dict[str, DestinationHealth]
    monitors: dict[str, MonitorHealth]


@callback
def async_health(hass: HomeAssistant) -> BridgeHealth:
    """Return how the bridge is doing: as well as its destinations."""
    entries: list[BleBridgeConfigEntry] = hass.config_entries.async_loaded_entries(
        DOMAIN
    )
    destinations = {
        subentry_id: _destination(
            destination,
            kind_name(entry.subentries[subentry_id].data),
            entry.subentries[subentry_id].title,
        )
        for entry in entries
        for subentry_id, destination in entry.runtime_data.destinations.items()
        if subentry_id in entry.subentries
    }
    monitors = {
        subentry_id: _monitor(monitor)
        for entry in entries
        for subentry_id, monitor in entry.runtime_data.monitors.by_id.items()
    }
    parts = destinations.values()
    times = [part["last_message_time"] for part in parts]
    problems = {problem for part in parts for problem in part["problems"]}
    problems |= {problem for part in monitors.values() for problem in part["problems"]}
    if not entries:
        problems.add(NOT_LOADED)
    return BridgeHealth(
        status=_status(problems),
        broker_connected=bool(entries) and all(p["broker_connected"] for p in parts),
        last_message_time=max((time for time in times if time), default=None),
        messages_processed=sum(part["messages_processed"] for part in parts),
        errors_count=sum(part["errors_count"] for part in parts),
        problems=sorted(problems),
        destinations=destinations,
        monitors=monitors,
    )


def _destination(
    destination: Destination[Any], kind: str, title: str
) -> DestinationHealth:
    """Return how a destination is doing."""
    problems = {problem.value for problem in destination.delivery.problems}
    if destination.connection is None:
        problems.add(NOT_CONNECTED)
    if destination.is_store_failed:
        problems.add(STORE_FAILED)
    tallies = [destination.tally(kind) for kind in RecordKind]
    last = destination.last_delivery
    return DestinationHealth(
        kind=kind,
        title=title,
        status=_status(problems),
        broker_connected=destination.connection is not None,
        last_message_time=None if last is None else iso_timestamp(last),
        messages_processed=sum(tally.delivered for tally in tallies),
        errors_count=sum(tally.failed + tally.refused for tally in tallies),
        problems=sorted(problems),
        last_error=destination.last_error,
    )


def _monitor(monitor: Monitor) -> MonitorHealth:
    """Return how a monitor is doing: well while messages can come."""
    problems = set() if monitor.is_connected else {NOT_LISTENING}
    last = monitor.last_message
    return MonitorHealth(
        title=monitor.title,
        status=_status(problems),
        broker_connected=(
            monitor.destination is not None
            and monitor.destination.connection is not None
        ),
        last_message_time=None if last is None else iso_timestamp(last),
        messages_processed=monitor.processed,
        errors_count=monitor.errors,
        problems=sorted(problems),
        last_error=monitor.problem,
    )


def _status(problems: set[str]) -> str:
    """Return what is said of something that has problems, or none."""
    return "unhealthy" if problems else "healthy"
