"""Who takes what arrives: a subscriber, a reader of a stream, one who asks a store."""

from abc import ABC, abstractmethod
import asyncio
from contextlib import suppress
import json
import sys
from typing import Any, Final, Protocol, Self, override

from aiohttp import ClientError
import nats
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from paho.mqtt.client import Client, MQTTMessage

from scripts.simulation.metrics_stores import InfluxDb1
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import REPOSITORY, SimulationError
from scripts.simulation.subscriber import Subscriber

from .ledger import Points, Receipts

sys.path.append(str(REPOSITORY / "docs/protobuf"))
from telemetry_pb2 import Payload, Value

# The field of devices that is a number of theirs, and counts.
COUNT: Final = "count"
_RECONNECT_SECONDS: Final = 0.015
_POLL_SECONDS: Final = 0.1
_SELECT: Final = 'SELECT "count", "device" FROM "ble"'
_DELETE: Final = 'DELETE FROM "ble"'
_UNANSWERED: Final = (NatsError, ClientError, SimulationError, OSError)


class Receiver(Protocol):
    """Notes the numbers that devices said; has its own way to the server."""

    @property
    def receipts(self) -> Receipts:
        """Return what arrived so far."""

    async def __aenter__(self) -> Self:
        """Begin to take."""

    async def __aexit__(self, *_: object) -> None:
        """Take no more."""

    async def settle(self) -> None:
        """Take what is there, while nothing more comes."""


class MqttReceiver(Subscriber):
    """A subscriber at QoS 1, with a session that the broker keeps."""

    def __init__(self, port: int, base: str) -> None:
        """Describe it by the broker's port and the topic base of the fields."""
        super().__init__(
            port,
            f"{base}/+/v/{COUNT}",
            qos=1,
            keep=False,
            client_id="chaos-receiver",
            reconnect_delay=_RECONNECT_SECONDS,
        )
        self.receipts = Receipts()

    @override
    def _on_message(self, client: Client, data: Any, arrived: MQTTMessage) -> None:
        device = arrived.topic.split("/")[-3]
        number = int(json.loads(arrived.payload)["value"])
        self.receipts.take(device, number, again=arrived.dup)

    async def settle(self) -> None:
        """Do nothing: what comes is taken at once."""


class _Reader(ABC):
    """Looks again and again for what is new, as far as it is answered."""

    def __init__(self) -> None:
        """Begin without a task."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with suppress(*_UNANSWERED):
                await self._read()
            await asyncio.sleep(_POLL_SECONDS)

    @abstractmethod
    async def _read(self) -> None:
        """Take what is there; raises one of _UNANSWERED where it cannot be read."""


class StreamReader(_Reader):
    """Reads a stream of JetStream message by message, in the order of its sequence."""

    def __init__(self, server: NatsServer, namespace: str) -> None:
        """Describe it by the server and the namespace of the subjects."""
        super().__init__()
        self.receipts = Receipts()
        self._server = server
        self._stream = f"{namespace}_reading".upper()
        self._subject = f"{namespace}.*.data"
        self._next = 1
        self._client: NatsClient | None = None
        self._lock = asyncio.Lock()

    @override
    async def __aenter__(self) -> Self:
        async def ignore(_: Exception) -> None:
            pass

        self._client = await nats.connect(
            self._server.url,
            error_cb=ignore,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_SECONDS,
        )
        return await super().__aenter__()

    @override
    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if self._client is not None:
            await self._client.close()

    async def settle(self) -> None:
        """Take what is there."""
        with suppress(*_UNANSWERED):
            await self._read()

    @override
    async def _read(self) -> None:
        if self._client is None:
            return
        jetstream = self._client.jetstream(timeout=1)
        async with self._lock:
            while True:  # Until there is no message
                message = await jetstream.get_msg(
                    self._stream, self._next, self._subject, next=True
                )
                payload = Payload()
                payload.ParseFromString(message.data or b"")
                for datum in payload.data:
                    if datum.key == COUNT:
                        self.receipts.take(payload.device, _number(datum.value))
                self._next = (message.seq or self._next) + 1


class StoreReader(_Reader):
    """Asks a store for its points, and removes them when all is quiet."""

    def __init__(self, store: InfluxDb1, database: str) -> None:
        """Describe it by where the points are."""
        super().__init__()
        self.receipts = Points()
        self._store = store
        self._database = database

    async def settle(self) -> None:
        """Take what is there, and remove it, so that asking remains cheap."""
        with suppress(*_UNANSWERED):
            await self._read()
            await self._store.query(_DELETE, self._database)
            self.receipts.forget_times()

    @override
    async def _read(self) -> None:
        rows = await self._store.query(_SELECT, self._database)
        for row in rows:
            self.receipts.take_point(row["device"], int(row[COUNT]), row["time"])


def _number(value: Value) -> int:
    """Return a value that is a number, whichever kind of number it is."""
    return int(getattr(value, str(value.WhichOneof("value"))))
