"""A real nats-server on the loopback address, alone or as a cluster."""

import asyncio
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, Final, Self, override

from .nats_credentials import NatsOperator
from .processes import (
    LOOPBACK,
    POLL_SECONDS,
    Process,
    SimulationError,
    free_port,
    free_ports,
)
from .servers import START_SECONDS, Server, request, wait_answering

# Who everybody is where nobody has to say it, and yet not all is permitted.
ANYBODY: Final = "anybody"


class NatsServer(Server):
    """A nats-server process with a configuration of its own.

    Without `users`, `token`, `nkey` and `operator`, everybody may connect.
    """

    name = "nats-server"
    program = "nats-server"

    def __init__(
        self,
        port: int = 0,
        *,
        users: Mapping[str, str] | None = None,
        token: str | None = None,
        nkey: str | None = None,
        operator: NatsOperator | None = None,
        publish_deny: Sequence[str] | None = None,
        jetstream: bool = False,
        jetstream_bytes: int | None = None,
        max_payload: int | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        ca: Path | None = None,
        server_name: str | None = None,
        config_lines: Sequence[str] = (),
        directory: Path | None = None,
    ) -> None:
        """Describe the server.

        `users` maps names to passwords; `nkey` is the public key of a user. Nobody
        may publish on the subjects of `publish_deny` (wildcards allowed), unless the
        server goes by `token` or `operator`; an empty one can be changed. JetStream keeps its streams on disk,
        with at most `jetstream_bytes`. With a certificate and its key (PEM) the
        server speaks TLS; with `ca`, it wants a certificate of that authority from
        clients. `config_lines` come last.
        """
        super().__init__(port, directory)
        self.monitoring_port = free_port()
        self._users = users or {}
        self._token = token
        self._nkey = nkey
        self._operator = operator
        self._publish_deny = publish_deny
        self._jetstream = jetstream
        self._jetstream_bytes = jetstream_bytes
        self._max_payload = max_payload
        self._certificate = certificate
        self._key = key
        self._ca = ca
        self.server_name = server_name or f"nats-{self.port}"
        self._config_lines = config_lines

    @property
    def url(self) -> str:
        """Return where clients connect to."""
        scheme = "tls" if self._certificate else "nats"
        return f"{scheme}://{LOOPBACK}:{self.port}"

    async def monitor(self, path: str) -> Any:
        """Return what the server tells about itself: `varz`, `connz`, `jsz`, …."""
        return json.loads(await request("GET", self._monitoring_url(path)))

    def deny(self, *subjects: str) -> None:
        """Let nobody publish on these subjects from now on, and everybody on others.

        The server must have been told of `publish_deny` before.
        """
        self._publish_deny = subjects
        self._arguments()
        self.reload()

    @override
    def _arguments(self) -> list[str | Path]:
        lines = [
            f"{name}: {json.dumps(value, ensure_ascii=False)}"
            for name, value in self._settings().items()
        ]
        configuration = self._directory / "nats-server.conf"
        configuration.write_text(
            "\n".join((*lines, *self._config_lines, "")), encoding="utf-8"
        )
        configuration.chmod(0o600)
        return ["-c", configuration]

    @override
    async def _wait_ready(self, process: Process) -> None:
        # Nodes of a cluster wait for each other only once all of them are started.
        url = self._monitoring_url("healthz?js-server-only=true")
        await wait_answering(process, url)
        await process.wait_accepting(self.port)

    def _monitoring_url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.monitoring_port}/{path}"

    def _settings(self) -> dict[str, Any]:
        """Return the configuration but for its last lines."""
        settings: dict[str, Any] = {
            "listen": f"{LOOPBACK}:{self.port}",
            "http": f"{LOOPBACK}:{self.monitoring_port}",
            "server_name": self.server_name,
        }
        if self._max_payload:
            settings["max_payload"] = self._max_payload
        if self._jetstream:
            settings["jetstream"] = {"store_dir": str(self._directory / "jetstream")}
            if self._jetstream_bytes:
                settings["jetstream"]["max_file_store"] = self._jetstream_bytes
        if self._certificate:
            settings["tls"] = {
                "cert_file": str(self._certificate),
                "key_file": str(self._key),
            }
            if self._ca:
                settings["tls"] |= {"ca_file": str(self._ca), "verify": True}
        if self._operator:
            return settings | self._operator.configuration()
        return settings | self._authorization()

    def _authorization(self) -> dict[str, Any]:
        """Return who may connect, and what nobody may do."""
        if self._token:
            return {"authorization": {"token": self._token}}
        users: list[dict[str, str]] = [
            {"user": name, "password": password}
            for name, password in self._users.items()
        ]
        if self._nkey:
            users.append({"nkey": self._nkey})
        if not users and self._publish_deny is None:
            return {}
        anybody = {}
        if not users:
            anybody = {"no_auth_user": ANYBODY}
            users = [{"user": ANYBODY, "password": ANYBODY}]
        authorization: dict[str, Any] = {"users": users}
        if self._publish_deny:
            authorization["default_permissions"] = {
                "publish": {"deny": list(self._publish_deny)}
            }
        return {"authorization": authorization, **anybody}


class NatsCluster:
    """Several servers that are one: a client may connect to any of them.

    Each of `nodes` can be stopped, killed, frozen and started again by itself.
    """

    def __init__(
        self, size: int = 3, *, jetstream: bool = True, **options: Any
    ) -> None:
        """Describe the cluster; the options are those of each server."""
        route_ports = free_ports(size)
        routes = [f"nats://{LOOPBACK}:{port}" for port in route_ports]
        self.nodes = [
            NatsServer(
                jetstream=jetstream,
                server_name=f"node-{number}",
                config_lines=(
                    "cluster {",
                    "  name: ble-bridge",
                    f"  listen: {LOOPBACK}:{route_port}",
                    f"  routes: {json.dumps(routes)}",
                    "}",
                ),
                **options,
            )
            for number, route_port in enumerate(route_ports, start=1)
        ]
        self._jetstream = jetstream

    @property
    def urls(self) -> list[str]:
        """Return where clients connect to."""
        return [node.url for node in self.nodes]

    async def __aenter__(self) -> Self:
        """Start all servers, and wait until they are one."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all servers and remove their temporary directories."""
        await asyncio.gather(*(node.__aexit__() for node in self.nodes))

    async def start(self) -> None:
        """Start all servers, and wait until they are one."""
        try:
            async with asyncio.TaskGroup() as starting:
                for node in self.nodes:
                    starting.create_task(node.start())
            await self.wait_formed()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all servers."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    def node(self, server_name: str) -> NatsServer:
        """Return a server by its name, which JetStream calls the leader of a stream."""
        return next(node for node in self.nodes if node.server_name == server_name)

    async def leader(self) -> NatsServer | None:
        """Return the server that JetStream's servers agree upon as their leader."""
        names = {
            (await node.monitor("jsz")).get("meta_cluster", {}).get("leader")
            for node in self.nodes
            if node.running
        }
        return self.node(name) if len(names) == 1 and (name := names.pop()) else None

    async def wait_formed(self, timeout: float = START_SECONDS) -> None:
        """Wait until the servers that run know each other and have a leader."""
        try:
            async with asyncio.timeout(timeout):
                while not await self._is_formed():
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError("The NATS cluster finds no leader.") from None

    async def _is_formed(self) -> bool:
        running = [node for node in self.nodes if node.running]
        for node in running:
            routes = (await node.monitor("routez"))["routes"]
            if len({route["remote_id"] for route in routes}) < len(running) - 1:
                return False
        return not self._jetstream or await self.leader() is not None
