"""A subscriber of its own, in its own thread: what really arrives on the broker."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
import json
from threading import Event, Lock
import time
from typing import Any, NamedTuple, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from .processes import LOOPBACK, POLL_SECONDS, SimulationError


class Message(NamedTuple):
    """A message that arrived; `received` is in seconds since the epoch.

    `properties` are the user properties of MQTT 5, and `expiry` the seconds that were left.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    received: float
    properties: tuple[tuple[str, str], ...] = ()
    expiry: int | None = None

    def json(self) -> Any:
        """Return the payload, which is JSON."""
        return json.loads(self.payload)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that a share (0 to 1) of all values does not exceed."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def latency_ms(message: Message) -> float | None:
    """Return the milliseconds since the `timestamp` in the payload, if it has one."""
    try:
        sent = datetime.fromisoformat(message.json()["timestamp"])
    except ValueError, TypeError, KeyError:
        return None
    received = datetime.fromtimestamp(message.received, UTC)
    return (received - sent).total_seconds() * 1000


class Subscriber:
    """A client of the broker that counts what arrives, and keeps it on request.

    `counts` has the number of messages of each topic, `latencies` the milliseconds
    of those not retained that carry a `timestamp`, of topics that begin with
    `measured`; `messages` has all of them in order if `keep`. A context manager, both in plain and in asynchronous code.
    """

    def __init__(
        self,
        port: int,
        *topics: str,
        host: str = LOOPBACK,
        username: str | None = None,
        password: str | None = None,
        qos: int = 0,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        keep: bool = True,
        measured: str = "",
        timeout: float = 30.0,
        client_id: str = "",
        reconnect_delay: float = 1,
    ) -> None:
        """Describe the subscriber; without topics it hears all.

        It gives up if the broker has not confirmed within the timeout in seconds. With
        a client ID (MQTT 3.1.1) the broker keeps its session while it is away.
        """
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.messages: list[Message] = []
        self._address = (host, port)
        self._topics = [(topic, qos) for topic in topics or ("#",)]
        self._keep = keep
        self._measured = measured
        self._timeout = timeout
        self._lock = Lock()
        self._subscribed = Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False if client_id else None,
            protocol=protocol,
        )
        self._client.reconnect_delay_set(
            reconnect_delay,  # type: ignore[arg-type]
            reconnect_delay,  # type: ignore[arg-type]
        )
        self._client.username_pw_set(username, password)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        """Connect, and wait until the subscription is confirmed."""
        try:
            self._client.connect(*self._address)
        except OSError as err:
            raise SimulationError("The subscriber cannot reach the broker.") from err
        self._client.loop_start()
        if not self._subscribed.wait(self._timeout):
            self.__exit__()
            raise SimulationError("The broker does not confirm the subscription.")
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect, and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    async def __aenter__(self) -> Self:
        """Connect, and wait until the subscription is confirmed."""
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        """Disconnect, and end the thread."""
        await asyncio.to_thread(self.__exit__)

    @property
    def connected(self) -> bool:
        """Return whether the broker has confirmed the subscription."""
        return self._subscribed.is_set()

    def count(self, prefix: str = "") -> int:
        """Return the number of messages whose topic begins with a prefix."""
        return sum(
            number
            for topic, number in self.snapshot().items()
            if topic.startswith(prefix)
        )

    def snapshot(self) -> Counter[str]:
        """Return a copy of the counts, which change in another thread."""
        with self._lock:
            return self.counts.copy()

    def on_topic(self, topic: str) -> list[Message]:
        """Return the kept messages of one topic."""
        return [message for message in tuple(self.messages) if message.topic == topic]

    def latency_percentile(self, share: float) -> float | None:
        """Return the latency in ms that a share (0 to 1) of messages keeps to."""
        with self._lock:
            return percentile(self.latencies, share)

    async def wait_for(
        self, condition: Callable[[Self], bool], timeout: float = 30.0
    ) -> None:
        """Wait until a condition on this subscriber holds."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(self):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(
                f"What was expected did not arrive within {timeout:g} s; "
                f"{self.count()} messages in {len(self.counts)} topics did."
            ) from None

    async def wait_for_message(
        self,
        topic: str,
        payload: bytes | None = None,
        timeout: float = 30.0,
    ) -> Message:
        """Return the newest kept message of a topic once there is one."""

        def found() -> list[Message]:
            return [
                message
                for message in self.on_topic(topic)
                if payload is None or message.payload == payload
            ]

        await self.wait_for(lambda _: bool(found()), timeout)
        return found()[-1]

    def _on_connect(self, *_: object) -> None:
        """Subscribe, also after the broker was away; called in the client's thread."""
        self._client.subscribe(self._topics)

    def _on_message(self, _: Client, __: object, arrived: MQTTMessage) -> None:
        """Count a message; called in the client's thread."""
        told = arrived.properties
        message = Message(
            arrived.topic,
            arrived.payload,
            arrived.qos,
            arrived.retain,
            time.time(),
            tuple(getattr(told, "UserProperty", ())),
            getattr(told, "MessageExpiryInterval", None),
        )
        latency = None
        if not message.retain and message.topic.startswith(self._measured):
            latency = latency_ms(message)
        with self._lock:
            self.counts[message.topic] += 1
            if latency is not None:
                self.latencies.append(latency)
            if self._keep:
                self.messages.append(message)
