"""Destinations under test, one of each kind: a real server, and the way there."""

from abc import ABC, abstractmethod
import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Self, override

from scripts.simulation.broker import Mosquitto
from scripts.simulation.metrics_stores import InfluxDb1
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import LOOPBACK, free_port, is_port_free
from scripts.simulation.servers import Server

from .certificates import Authority
from .fault_proxy import FaultProxy, HttpProxy, MqttProxy
from .receiver import COUNT, MqttReceiver, Receiver, StoreReader, StreamReader

PLAIN: Final = "plain"
SECURE: Final = "secure"
NATS: Final = "nats"
INFLUX: Final = "influx"
TITLES: Final = {
    PLAIN: "MQTT",
    SECURE: "TLS",
    NATS: "NATS",
    INFLUX: "InfluxDB",
}
EVERY: Final = tuple(TITLES)
# Those whose server and network fail, all in the same moment.
EXPOSED: Final = (PLAIN, NATS, INFLUX)

# A connection that ends sooner says nothing of the server's health, and three such in a row
# look like another MQTT client with the same ID: `SHORT_SESSION` in destinations/.
SHORT_SESSION: Final = 10.0
SHORT_SESSIONS: Final = 3
DATABASE: Final = "ble"
_KEEPALIVE: Final = 5
_PATIENCE: Final = {"connect_timeout": 5}  # s
_PUBLISH_TIMEOUT: Final = 2.5  # s
_BATCH_SECONDS: Final = 0.25
_POLL: Final = 0.05
_DURABLE: Final = ("reading", "connectivity", "alert", "error")
_DELIVERY: Final[Mapping[str, Any]] = {
    "advertisement": "drop",
    **dict.fromkeys(_DURABLE, "durable"),
    "publish_timeout": _PUBLISH_TIMEOUT,
}

# What a broker must not forget over `kill -9`, and what it may keep for the subscriber. With
# no limit at all (0), Mosquitto 2.0.11 hangs up on who publishes what is denied to him.
_BROKER_LINES: Final = (
    "persistence true",
    "autosave_on_changes true",
    "autosave_interval 1",
    "max_queued_messages 1000000",
    "max_inflight_messages 0",
    "set_tcp_nodelay true",
    "log_type error",
    "log_type warning",
    "log_type notice",
)


class Outlet(ABC):
    """A destination: its server, the proxy before it, and the receiver behind it.

    `step` is what the menu of forms calls its kind; `mark` stands in the file of what waits
    once for each number. Where nothing may come twice, it `dedupes`.
    """

    step: ClassVar[str]
    mark: ClassVar[bytes]
    dedupes: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        directory: Path,
        server: Server,
        proxy: FaultProxy,
        receiver: Receiver,
    ) -> None:
        """Put it together; nothing is started yet."""
        self.name = name
        self.directory = directory
        self.server = server
        self.proxy = proxy
        self.receiver = receiver
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the server, the way there, and who receives."""
        try:
            await self.start()
            self._stack.push_async_exit(self.server)
            await self._stack.enter_async_context(self.proxy)
            await self._stack.enter_async_context(self.receiver)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop them."""
        await self._stack.aclose()

    @property
    def host(self) -> str:
        """Return the name under which the bridge knows the server."""
        return host(self.name)

    @abstractmethod
    def form(self) -> dict[str, Any]:
        """Return what is to stand in the form, wherever its fields are."""

    # --- the server ---------------------------------------------------------------------

    async def start(self) -> None:
        """Start the server."""
        await self.server.start()

    async def stop(self) -> None:
        """Stop the server."""
        await self.server.stop()

    async def kill(self) -> None:
        """End the server without a warning."""
        await self.server.kill()

    def freeze(self) -> None:
        """Have the kernel take what is sent, and nobody answer."""
        self.server.freeze()

    def thaw(self) -> None:
        """Let the server go on."""
        self.server.thaw()

    # --- the way there ------------------------------------------------------------------

    def cut_off(self) -> None:
        """Have the server away."""
        self.proxy.refuse()
        self.proxy.cut()

    async def pass_on(self) -> None:
        """Have the server back."""
        await self.proxy.listen()

    async def steady(self, *, always: bool) -> None:
        """Wait for a connection that has lived for long enough, where it matters."""
        if not always:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * SHORT_SESSION):
                while self.proxy.age <= SHORT_SESSION + 1:
                    await asyncio.sleep(_POLL)


class _BrokerOutlet(Outlet):
    """A Mosquitto."""

    step = "to_mqtt"
    mark = f"/v/{COUNT}".encode()
    is_secure: ClassVar[bool]
    server: Mosquitto

    @override
    async def steady(self, *, always: bool) -> None:
        """Wait for a connection that has lived for long enough, where it matters.

        The delay before the next try begins anew only then (`always`), and one more short
        connection could look like a dispute about the client ID.
        """
        lives = self.proxy.lives
        short = 0
        while short < len(lives) and lives[-1 - short] < SHORT_SESSION:
            short += 1
        await super().steady(always=always or short >= SHORT_SESSIONS - 1)

    @override
    def form(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "port": self.proxy.port,
            "tls": self.is_secure,
            "raw": not self.is_secure,
            "topic_base": f"{self.name}-raw",
            "keepalive": _KEEPALIVE,
            "client_id": f"chaos-{self.name}",
            "fields": {
                "enabled": True,
                "topic_base": self.name,
                **dict.fromkeys(_DURABLE, "1"),
            },
            "values": {"enabled": False},
            "delivery": _DELIVERY,
        }


class MqttOutlet(_BrokerOutlet):
    """A broker that asks nobody who he is, behind a proxy that can read what passes."""

    is_secure = False
    proxy: MqttProxy

    def __init__(self, name: str, directory: Path) -> None:
        """Describe it; the directory must be there, and empty."""
        lines = [*_broker_lines(directory), f"acl_file {directory}/acl"]
        broker = Mosquitto(config_lines=lines, directory=directory)
        receiver = MqttReceiver(broker.port, name)
        super().__init__(name, directory, broker, MqttProxy(broker.port), receiver)
        self.allow("topic readwrite #")

    def allow(self, *lines: str) -> None:
        """Say what everybody may do, from the next start or reload of the broker on."""
        acl = self.directory / "acl"
        acl.write_text("\n".join((*lines, "")), encoding="utf-8")
        acl.chmod(0o600)


class TlsOutlet(_BrokerOutlet):
    """A broker with a certificate; the receiver has a listener of its own, without."""

    is_secure = True

    def __init__(self, name: str, directory: Path, authority: Authority) -> None:
        """Describe it; the directory must be there, and empty."""
        self._files = directory / "broker.pem", directory / "key.pem"
        authority.issue(host(name), *self._files)
        self._own_port = free_port()
        lines = [*_broker_lines(directory), f"listener {self._own_port} {LOOPBACK}"]
        certificate, key = self._files
        broker = Mosquitto(
            config_lines=lines, certificate=certificate, key=key, directory=directory
        )
        receiver = MqttReceiver(self._own_port, name)
        super().__init__(name, directory, broker, FaultProxy(broker.port), receiver)

    @override
    async def start(self) -> None:
        await super().start()
        while is_port_free(self._own_port):  # It opens one after the other
            await asyncio.sleep(_POLL)

    async def certify(self, authority: Authority) -> None:
        """Have the broker restart with a new certificate."""
        await self.stop()
        authority.issue(self.host, *self._files)
        await self.start()


class NatsOutlet(Outlet):
    """A nats-server, whose JetStream keeps what is durable."""

    step = "to_nats"
    mark = b".data"
    dedupes = True
    server: NatsServer

    def __init__(self, name: str, directory: Path) -> None:
        """Describe it; the directory must be there, and empty."""
        server = NatsServer(jetstream=True, publish_deny=(), directory=directory)
        super().__init__(
            name,
            directory,
            server,
            FaultProxy(server.port),
            StreamReader(server, name),
        )

    @override
    def form(self) -> dict[str, Any]:
        return {
            "servers": [f"nats://{self.host}:{self.proxy.port}"],
            "namespace": self.name,
            "jetstream": {"enabled": True, "stored": list(_DURABLE)},
            "delivery": _DELIVERY,
            **_PATIENCE,
        }


class StoreOutlet(Outlet):
    """An InfluxDB 1, in which a point that is written twice is there once."""

    step = "to_influxdb"
    mark = f"{COUNT}=".encode()
    dedupes = True
    server: InfluxDb1
    proxy: HttpProxy

    def __init__(self, name: str, directory: Path) -> None:
        """Describe it; the directory must be there, and empty."""
        server = InfluxDb1(databases=(DATABASE,), directory=directory)
        super().__init__(
            name,
            directory,
            server,
            HttpProxy(server.port),
            StoreReader(server, DATABASE),
        )

    @override
    def form(self) -> dict[str, Any]:
        return {
            "url": f"http://{self.host}:{self.proxy.port}",
            "api": "v1",
            "bucket": DATABASE,
            "signals": "all",
            "measurement": DATABASE,
            "batch_seconds": _BATCH_SECONDS,
            "gzip": False,  # So that a slow network is slow for it
            "delivery": _DELIVERY,
            **_PATIENCE,
        }


def _broker_lines(directory: Path) -> list[str]:
    """Return the lines of a broker's configuration; what it keeps is in the directory."""
    (directory / "db").mkdir()
    return [*_BROKER_LINES, f"persistence_location {directory}/db/"]


def host(name: str) -> str:
    """Return the name under which the bridge knows a server."""
    return f"{name}.chaos"
