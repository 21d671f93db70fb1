"""What the demo has beside Bluetooth: a fleet of controllers, and a monitor of them."""

import asyncio
from dataclasses import dataclass
import time
from typing import Any, Final, Self

from scripts.simulation.broker import Broker, Mosquitto
from scripts.simulation.fleet import BASE, Fleet
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import SimulationError

NAME: Final = "Garage"
SUBSCRIBE_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 10.0
REPEAT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What became of what the fleet said since the monitor listens.

    `sent` are valid messages, of which `understood` is what the monitor made something of;
    `malformed` are the others, of which it should keep as many `dead_letters`.
    """

    controllers: int
    sent: int
    understood: int
    malformed: int
    dead_letters: int
    devices: int

    @property
    def failure(self) -> str | None:
        """Return what is wrong, in one sentence."""
        if self.understood != self.sent:
            return (
                f"Of {self.sent:,} messages of the fleet {self.understood:,}"
                " were understood."
            )
        if self.dead_letters != self.malformed:
            return (
                f"Of {self.malformed:,} malformed messages {self.dead_letters:,}"
                " became dead letters."
            )
        if self.devices != self.controllers:
            return f"Of {self.controllers:,} controllers {self.devices:,} are there."
        return None

    @property
    def summary(self) -> str:
        """Return the numbers, in one line."""
        return (
            f"fleet of {self.controllers:,}: sent {self.sent:,}, understood"
            f" {self.understood:,}, malformed {self.malformed:,}, dead letters"
            f" {self.dead_letters:,}, devices {self.devices:,}"
        )


class MonitoredFleet:
    """A fleet on the demo's broker, and a monitor that listens to it."""

    def __init__(self, size: int, broker: Broker) -> None:
        """Describe a fleet of a size, for a broker."""
        self.fleet = Fleet(size, broker.port)
        if not isinstance(broker, Mosquitto):
            # The embedded one loses what is said by those who have just come back
            self.fleet.faults = 0
        self._size = size
        self._known = 0
        self._playing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect the controllers, and let them live."""
        await self.fleet.__aenter__()
        self.play()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop them."""
        if self._playing is not None:
            self._playing.cancel()
        await self.fleet.__aexit__(*exception)

    def play(self) -> None:
        """Let the controllers live."""
        self._playing = asyncio.create_task(self.fleet.play())

    def check(self) -> None:
        """Raise the error with which the fleet's life ended, if it did."""
        if self._playing is not None and self._playing.done():
            self._playing.result()

    async def pause(self) -> None:
        """Have nobody say anything, and wait until the broker has all that was said."""
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
        await self.fleet.wait_connected()
        await self.fleet.settle()

    async def add_monitor(
        self, home_assistant: HomeAssistantProcess, entry_id: str
    ) -> None:
        """Add a monitor as a user does, through its form.

        Nobody says anything between its beginning and its first message, so that all that it
        can have heard by then is what the broker keeps.
        """
        heard = await home_assistant.subentry_flow(
            entry_id,
            "monitor",
            {"next_step_id": "autocore"},
            {"name": NAME, "topic_base": BASE, "max_devices": self._size},
        )
        if heard.get("step_id") != "heard":
            raise SimulationError(f"The monitor hears nothing: {heard}.")
        await self.pause()
        result = await home_assistant.answer(
            "subentries/flow", heard, {"next_step_id": "save"}
        )
        if result["type"] != "create_entry":
            raise SimulationError(f"The monitor could not be added: {result}.")
        self._known = await self._kept(home_assistant, entry_id)
        self.fleet.sent.clear()
        self.fleet.malformed.clear()
        self.play()

    async def _kept(self, home_assistant: HomeAssistantProcess, entry_id: str) -> int:
        """Wait for all that the broker keeps; return how many messages it made of it."""
        kept = len(self.fleet.retained)
        while True:
            monitor = await self._wait_for(
                home_assistant, entry_id, kept, 0, SUBSCRIBE_SECONDS
            )
            if monitor["messages"] < kept:
                raise SimulationError(
                    f"Of {kept:,} messages that the broker keeps"
                    f" {monitor['messages']:,} arrived."
                )
            if monitor["messages"] == kept:
                return kept
            # The embedded broker says some of them more than once
            kept = monitor["messages"]
            await asyncio.sleep(REPEAT_SECONDS)

    async def pages(
        self, home_assistant: HomeAssistantProcess
    ) -> list[tuple[str, str]]:
        """Return the pages of the monitor and of a controller."""
        devices = await home_assistant.ws("config/device_registry/list")
        by_name = {device["name"]: device["id"] for device in devices}
        return [
            (title, f"{home_assistant.url}/config/devices/device/{by_name[name]}")
            for title, name in (
                ("monitor", NAME),
                ("controller", self.fleet.controllers[0].id),
            )
            if name in by_name
        ]

    async def result(
        self, home_assistant: HomeAssistantProcess, entry_id: str
    ) -> FleetResult:
        """Stop the fleet, wait a moment for what is still under way, return the numbers."""
        await self.pause()
        sent, malformed = self.fleet.valid, self.fleet.malformed.total()
        monitor = await self._wait_for(
            home_assistant, entry_id, self._known + sent, malformed, DRAIN_SECONDS
        )
        return FleetResult(
            controllers=self._size,
            sent=sent,
            understood=monitor["messages"] - self._known,
            malformed=malformed,
            dead_letters=dead_letters(monitor),
            devices=monitor["devices"]["known"],
        )

    @staticmethod
    async def _wait_for(
        home_assistant: HomeAssistantProcess,
        entry_id: str,
        messages: int,
        malformed: int,
        seconds: float,
    ) -> dict[str, Any]:
        """Wait until the monitor has read so many messages; return what it says then."""
        deadline = time.monotonic() + seconds
        while True:
            found = await home_assistant.diagnostics(entry_id)
            monitor: dict[str, Any] = next(iter(found.get("monitors", ())), {})
            is_late = time.monotonic() > deadline
            if monitor.get("connected"):
                is_read = monitor["messages"] >= messages
                if is_late or (is_read and dead_letters(monitor) >= malformed):
                    return monitor
            elif is_late:
                raise SimulationError("The monitor does not listen.")
            await asyncio.sleep(_POLL_SECONDS)


def dead_letters(monitor: dict[str, Any]) -> int:
    """Return how many messages a monitor could not understand."""
    return sum(monitor["dead_letters"]["by_reason"].values())
