"""What the demo has beside MQTT: a NATS server, and a store for time series."""

from collections import Counter
from typing import Any, Final, Self

from nats.aio.client import Client
from nats.aio.msg import Msg

from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.metrics_stores import VictoriaMetrics
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import SimulationError

NAMESPACE: Final = "ble"
SIGNAL: Final = "ble_signal_rssi"


class NatsBus:
    """A NATS server, a destination there, and an independent subscriber that counts."""

    step = "to_nats"

    def __init__(self) -> None:
        """Describe the server."""
        self._server = NatsServer(jetstream=True)
        self._client = Client()
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Start the server, and subscribe."""
        await self._server.__aenter__()
        await self._client.connect(self._server.url)
        await self._client.subscribe(f"{NAMESPACE}.>", cb=self._on_message)
        await self._client.flush()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop both."""
        await self._client.close()
        await self._server.__aexit__(*exception)

    async def _on_message(self, message: Msg) -> None:
        """Count a message."""
        kind = message.subject.removeprefix(f"{NAMESPACE}.").partition(".")[0]
        self.counts["raw" if kind == "raw" else "other"] += 1

    @property
    def form(self) -> dict[str, Any]:
        """Return what is entered in the form."""
        return {
            "servers": [self._server.url],
            "jetstream": {"enabled": True},
            "advanced": {},
        }

    @property
    def place(self) -> tuple[str, str]:
        """Return what it is, and where."""
        return "NATS server", f"{self._server.url} ({NAMESPACE}.>)"

    async def received(self) -> int:
        """Return how many advertisements arrived."""
        await self._client.flush()
        return self.counts["raw"]


class TimeSeries:
    """A VictoriaMetrics, and a destination there that has every signal."""

    step = "to_influxdb"

    def __init__(self) -> None:
        """Describe the store."""
        self._store = VictoriaMetrics()

    async def __aenter__(self) -> Self:
        """Start the store."""
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop the store."""
        await self._store.__aexit__(*exception)

    @property
    def form(self) -> dict[str, Any]:
        """Return what is entered in the form."""
        return {
            "url": f"http://127.0.0.1:{self._store.port}",
            "signals": "all",
            "advanced": {"batch_seconds": 0.5},
        }

    @property
    def place(self) -> tuple[str, str]:
        """Return what it is, and where its page is."""
        return "VictoriaMetrics", f"http://127.0.0.1:{self._store.port}/vmui"

    async def received(self) -> int:
        """Return how many signals of advertisements arrived."""
        series = await self._store.export(SIGNAL)
        return sum(len(found.values) for found in series)


type Bus = NatsBus | TimeSeries


async def add_bus(
    home_assistant: HomeAssistantProcess, entry_id: str, bus: Bus
) -> None:
    """Add a destination as a user does, through its form."""
    result = await home_assistant.subentry_flow(
        entry_id, "destination", {"next_step_id": bus.step}, bus.form
    )
    if result["type"] != "create_entry":
        raise SimulationError(f"{bus.place[0]} could not be added: {result}.")
