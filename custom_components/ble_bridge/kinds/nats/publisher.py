"""What the bridge says on NATS."""

from collections.abc import Mapping
from typing import Any, override

from ...const import CONF_NAMESPACE, CONF_PAYLOAD, CONF_RECORDS, PayloadFormat
from ...destinations.nats import NatsDestination
from ...destinations.parcels import Message
from ...layouts.raw import Heartbeat
from ...layouts.subjects import SubjectsLayout, scanner_subject
from ...layouts.telemetry import encode_heartbeat
from ...publisher import Outlet, Publisher
from ...records import DEVICE_KINDS, Scanner


class NatsPublisher(Publisher):
    """What the bridge says on one cluster; nothing is kept there."""

    destination: NatsDestination

    def __init__(
        self,
        subentry_id: str,
        data: Mapping[str, Any],
        place: str,
        destination: NatsDestination,
    ) -> None:
        """Initialize with the data of the destination's subentry."""
        self._namespace: str = data[CONF_NAMESPACE]
        self._is_json = data[CONF_PAYLOAD] == PayloadFormat.JSON
        outlet = Outlet(
            "subjects",
            SubjectsLayout(self._namespace, is_json=self._is_json),
            dict.fromkeys(DEVICE_KINDS, 0),
            dict.fromkeys(DEVICE_KINDS, False),
        )
        outlets = (outlet,) if data[CONF_RECORDS] else ()
        super().__init__(subentry_id, place, destination, outlets)

    @override
    def head(self, address: str) -> bytes:
        return address.encode()

    @override
    def say_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        if self.forgotten:
            return
        payload = (
            heartbeat.payload(now)
            if self._is_json
            else encode_heartbeat(heartbeat, now)
        )
        subject = scanner_subject(self._namespace, heartbeat.scanner.scanner_id)
        self.destination.send_own(Message(subject.encode(), payload))

    @override
    def say_goodbye(self, scanners: list[Scanner], uptime: float) -> None:
        super().say_goodbye(scanners, uptime)
        self.destination.outbox.flush()  # The connection is about to be closed
