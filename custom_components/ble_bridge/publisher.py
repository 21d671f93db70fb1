"""What the bridge says on a destination."""

from collections.abc import Mapping
from dataclasses import dataclass
import logging
import time
from typing import Any, Final

from .const import HEARTBEAT_INTERVAL
from .destinations.destination import Destination
from .destinations.errors import Problem
from .destinations.parcels import Message
from .layouts import RecordLayout
from .layouts.raw import Heartbeat
from .records import Alert, Connectivity, Error, Reading, Record, RecordKind, Scanner

_LOGGER = logging.getLogger(__name__)

KINDS: Final[dict[type[Record], RecordKind]] = {
    Reading: RecordKind.READING,
    Alert: RecordKind.ALERT,
    Error: RecordKind.ERROR,
    Connectivity: RecordKind.CONNECTIVITY,
}


@dataclass(frozen=True, slots=True, eq=False)
class Outlet:
    """A layout that is switched on, and QoS and retain of what it makes."""

    name: str
    layout: RecordLayout
    qos: Mapping[RecordKind, int]
    retain: Mapping[RecordKind, bool]


class Publisher:
    """What the bridge says on one destination.

    `place` tells where that is, so that what is kept there can be cleared when the
    destination goes elsewhere.
    """

    # Whether anything of devices is kept where this goes, for those who come later.
    retains = False

    def __init__(
        self,
        subentry_id: str,
        place: str,
        destination: Destination[Any],
        outlets: tuple[Outlet, ...],
    ) -> None:
        """Initialize with the layouts that are switched on."""
        self.subentry_id = subentry_id
        self.place = place
        self.destination = destination
        self.forgotten = False
        self._outlets = outlets
        self._logged = (0, 0, 0)

    # --- what the subclasses know -------------------------------------------------------

    def head(self, address: str) -> bytes:
        """Return where a layout's message goes, as the connection writes it."""
        raise NotImplementedError

    def _on_retained(self, address: str, owner: str) -> None:
        """Take note that a message is to be kept."""

    def keeps(self, _address: str) -> bool:
        """Tell whether something that is ours is kept under an address."""
        return False

    def say_hello(self) -> None:
        """Say that we are there."""

    def say_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        """Publish how a scanner is doing; `now` is Unix time in seconds."""

    def say_goodbye(self, scanners: list[Scanner], uptime: float) -> None:
        """Say that we are gone."""
        self.publish_heartbeats(scanners, {}, uptime, "stopped")

    def settle(self) -> None:
        """Forget what was cleared."""

    def clear_stale(self, scanner_ids: set[str], device_ids: Mapping[str, str]) -> None:
        """Clear what is kept under names that are no longer used.

        `device_ids` gives the device ID of each subentry.
        """

    def forget(self) -> None:
        """Clear what is kept: the destination is removed, or goes elsewhere."""
        self.forgotten = True

    # --- records of devices -------------------------------------------------------------

    @property
    def has_layouts(self) -> bool:
        """Tell whether records of devices go out here."""
        return bool(self._outlets) and not self.forgotten

    def publish(self, owner: str, record: Record, *, kept_only: bool = False) -> None:
        """Publish a record of a device.

        `owner` is the device's subentry; with `kept_only`, only what is to be kept goes out.
        That is noted first, so that it can be cleared when the device is gone.
        """
        kind = KINDS[type(record)]
        if self.forgotten:
            return
        failed = False
        messages: list[Message] = []
        for outlet in self._outlets:
            try:
                found = outlet.layout.messages(record)
            except ValueError:
                # What another layout can say of it goes out nevertheless.
                failed = True
                self.destination.report(Problem.INVALID_DATA)
                continue
            for address, payload, is_state in found:
                retain = is_state and outlet.retain[kind]
                if kept_only and not retain:
                    continue
                if retain:
                    self._on_retained(address, f"{owner}/{outlet.name}/{kind.value}")
                messages.append(
                    Message(
                        self.head(address),
                        payload,
                        outlet.qos[kind],
                        retain,
                        outlet.layout.makes_objects,
                    )
                )
        if kept_only:
            for message in messages:
                self.destination.send_own(message)
        elif messages:
            self.destination.send(kind, owner, tuple(messages))
        elif failed:
            tally = self.destination.records[kind]
            tally.received += 1
            tally.failed += 1

    # --- heartbeats ---------------------------------------------------------------------

    def publish_heartbeats(
        self,
        scanners: list[Scanner],
        devices: Mapping[Scanner | None, int],
        uptime: float,
        status: str | None = None,
    ) -> None:
        """Publish how scanners are doing."""
        now = time.time()
        destination = self.destination
        for scanner in scanners:
            tally = destination.tallies.get(scanner)
            heartbeat = Heartbeat(
                scanner=scanner,
                status=status or ("running" if scanner.online else "offline"),
                uptime=uptime,
                devices=devices.get(scanner, 0),
                published=tally.delivered if tally else 0,
                dropped=tally.dropped if tally else 0,
                connected=destination.connection is not None,
                messages_sent=destination.delivered,
                reconnects=destination.reconnects,
                last_error=destination.last_error,
            )
            self.say_heartbeat(heartbeat, now)

    def log_rates(self, scanners: list[Scanner]) -> None:
        """Log what became of the advertisements since the last time."""
        destination = self.destination
        tally = destination.tally(RecordKind.ADVERTISEMENT)
        received = tally.received + destination.count_filtered(scanners)
        counted = received, tally.delivered, tally.dropped
        _LOGGER.info(
            "%s: %.1f advertisements a second received, %.1f published, %.1f dropped",
            destination.title,
            *(
                (now - then) / HEARTBEAT_INTERVAL
                for now, then in zip(counted, self._logged, strict=True)
            ),
        )
        self._logged = counted
