"""What the bridge says on InfluxDB."""

from typing import Final, override

from ...destinations.influxdb import InfluxDestination
from ...layouts.lines import LinesLayout
from ...layouts.raw import Heartbeat
from ...publisher import Outlet, Publisher
from ...records import DEVICE_KINDS

_LINES: Final = "lines"


class InfluxPublisher(Publisher):
    """What the bridge says on one server; the connection itself says that it is there."""

    destination: InfluxDestination

    def __init__(
        self,
        subentry_id: str,
        place: str,
        destination: InfluxDestination,
        layout: LinesLayout,
    ) -> None:
        """Initialize with how records are written."""
        outlet = Outlet(
            _LINES,
            layout,
            dict.fromkeys(DEVICE_KINDS, 1),
            dict.fromkeys(DEVICE_KINDS, False),
        )
        super().__init__(subentry_id, place, destination, (outlet,))
        self._layout = layout

    @override
    def head(self, address: str) -> bytes:
        return b""

    @override
    def say_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        line = self._layout.heartbeat(heartbeat, now)
        if heartbeat.status == "stopped":
            self.destination.write_last(line)
        else:
            self.destination.write(line)
