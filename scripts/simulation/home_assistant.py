"""A real Home Assistant in a process of its own, driven over REST and websocket."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
import json
import os
from pathlib import Path
import signal
import sys
from typing import Any, Final, Self

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse

from .processes import (
    LOOPBACK,
    MANAGEMENT_SOCKET,
    REPOSITORY,
    Process,
    SimulationError,
    free_port,
    is_port_free,
)

# Whatever JSON an endpoint of Home Assistant answers with.
type Json = Any

INTEGRATION: Final = REPOSITORY / "custom_components" / "ble_bridge"
# What works without the internet; default_config does not.
INTEGRATIONS: Final = ("bluetooth", "frontend", "history", "logbook", "system_health")
USERNAME: Final = "demo"
PASSWORD: Final = "demo-demo"
START_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.05
ONBOARDING_STEPS: Final = ("core_config", "analytics", "integration")
CONFIGURATION: Final = """\
homeassistant:
  name: BLE Bridge
  latitude: 52.1
  longitude: 4.3
  elevation: 0
  unit_system: metric
  time_zone: UTC
  country: NL
  currency: EUR
logger:
  default: warning
  logs:
    custom_components.ble_bridge: info
"""


def stored(key: str, version: int, minor_version: int, data: Json) -> dict[str, Json]:
    """Return the content of a file in Home Assistant's storage."""
    return {
        "version": version,
        "minor_version": minor_version,
        "key": key,
        "data": data,
    }


def http_storage(port: int) -> dict[str, Json]:
    """Return the web server's settings.

    In YAML they would be a trial, after five minutes of which Home Assistant ends.
    """
    stable = {
        "server_port": port,
        "server_host": [LOOPBACK],
        "cors_allowed_origins": ["https://cast.home-assistant.io"],
        "login_attempts_threshold": -1,
        "ip_ban_enabled": True,
        "ssl_profile": "modern",
        "use_x_frame_options": True,
        "created_at": "2026-01-01T00:00:00+00:00",
        "error": None,
        "error_message": None,
    }
    data = {"stable": stable, "pending": None, "yaml_migration_done": True}
    return stored("http", 2, 2, data)


class HomeAssistantProcess:
    """A real Home Assistant that has BLE Bridge, and a user who may do everything.

    It sees no Bluetooth adapter and no D-Bus of this machine, unless `extra_env` says
    otherwise. It can be stopped and started again; its configuration stays.
    """

    def __init__(
        self,
        config_dir: Path,
        port: int = 0,
        *,
        extra_env: Mapping[str, str] | None = None,
        integrations: Sequence[str] = INTEGRATIONS,
        configuration: str = "",
        username: str = USERNAME,
        password: str = PASSWORD,
    ) -> None:
        """Describe it: the directory, the web page's port, and what to load.

        `configuration` is YAML to add to configuration.yaml.
        """
        self.config_dir = config_dir
        self.port = port or free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.username = username
        self.password = password
        self._client_id = f"{self.url}/"
        self._configuration = CONFIGURATION + configuration
        self._integrations = integrations
        self._token: str | None = None
        self._session: ClientSession | None = None
        environment = {
            **os.environ,
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={config_dir.resolve()}/no-dbus",
            **(extra_env or {}),
        }
        command: tuple[str | Path, ...] = (sys.executable, "-P", "-m", "homeassistant")
        if management_socket := environment.get(MANAGEMENT_SOCKET):
            program = Path(__file__).with_name("hass_with_mgmt.py")
            command = (sys.executable, "-P", program, management_socket)
        self._process = Process(
            "Home Assistant",
            (*command, "--config", config_dir.resolve(), "--skip-pip"),
            config_dir / "hass.log",
            environment=environment,
            directory=config_dir,
        )

    async def __aenter__(self) -> Self:
        """Start it, and make the user."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.stop()

    async def start(self) -> None:
        """Start it, wait until it answers, and make the user the first time."""
        if not is_port_free(self.port):
            raise SimulationError(f"Port {self.port} for the web page is in use.")
        if self._token is None and (self.config_dir / ".storage/auth").exists():
            raise SimulationError(f"{self.config_dir.name} has a user already.")
        self._write_configuration()
        self._process.start()
        # Not through a proxy: the session ignores the environment's settings.
        self._session = ClientSession()
        if self._token is None:
            await self._wait_for("/api/onboarding")
            await self._onboard()
        await self._wait_running()

    async def stop(self) -> None:
        """Stop it as a user does, and wait for its end."""
        if self._session:
            await self._session.close()
            self._session = None
        await self._process.stop()

    async def restart(self) -> None:
        """Stop it and start it again."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """End it without a warning, as a power cut does."""
        self.send_signal(signal.SIGKILL)
        await self.stop()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def check(self) -> None:
        """Raise an error with the end of its log if it has ended."""
        self._process.check()

    @property
    def token(self) -> str:
        """Return the token that lets in."""
        if self._token is None:
            raise SimulationError("Home Assistant has not been set up yet.")
        return self._token

    @property
    def pid(self) -> int:
        """Return the process ID."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """Return the file in which is what it wrote, over all its starts."""
        return self._process.log

    def log_tail(self, lines: int = 50) -> str:
        """Return the last lines of the log."""
        return self._process.log_tail(lines)

    async def get(self, path: str) -> Json:
        """Return what a GET of a path answers."""
        return await self._request("GET", path)

    async def post(self, path: str, body: Json = None) -> Json:
        """Return what a POST of JSON to a path answers."""
        return await self._request("POST", path, json=body or {})

    async def delete(self, path: str) -> Json:
        """Return what a DELETE of a path answers."""
        return await self._request("DELETE", path)

    async def ws(self, command: str, **data: Json) -> Json:
        """Return the result of a websocket command."""
        async with self._websocket() as websocket:
            return await self._command(websocket, command, data)

    async def ws_events(self, command: str, **data: Json) -> AsyncGenerator[Json]:
        """Subscribe with a websocket command, and yield each event.

        Close it (`contextlib.aclosing`) where the loop over it is left early.
        """
        async with self._websocket() as websocket:
            await self._command(websocket, command, data)
            async for message in websocket:
                yield message.json()["event"]

    async def flow(self, handler: str, *inputs: Json) -> Json:
        """Run a config flow, an input for each of its forms; return its result."""
        return await self._flow("flow", handler, inputs)

    async def accept_discovered(
        self, domain: str, count: int = 1, timeout: float = 30.0
    ) -> list[Json]:
        """Wait for discovered things of a domain, confirm them; return the results."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    flows = await self.ws("config_entries/flow/progress")
                    found = [flow for flow in flows if flow["handler"] == domain]
                    if len(found) >= count:
                        break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise SimulationError(
                f"Home Assistant discovered nothing for {domain}."
            ) from None
        return [
            await self.post(f"/api/config/config_entries/flow/{flow['flow_id']}")
            for flow in found
        ]

    async def options_flow(self, entry_id: str, *inputs: Json) -> Json:
        """Run the options flow of an entry; return its result."""
        return await self._flow("options/flow", entry_id, inputs)

    async def subentry_flow(
        self, entry_id: str, subentry_type: str, *inputs: Json
    ) -> Json:
        """Run the flow that adds a subentry to an entry; return its result."""
        return await self._flow("subentries/flow", [entry_id, subentry_type], inputs)

    async def change_subentry(
        self, entry_id: str, subentry_type: str, subentry_id: str, *inputs: Json
    ) -> Json:
        """Run the flow that changes a subentry of an entry; return its result."""
        return await self._flow(
            "subentries/flow",
            [entry_id, subentry_type],
            inputs,
            subentry_id=subentry_id,
        )

    async def answer(self, kind: str, shown: Json, answer: Json) -> Json:
        """Answer what a flow of a kind (`flow`, `subentries/flow`) shows; return the next."""
        path = f"/api/config/config_entries/{kind}/{shown['flow_id']}"
        return await self.post(path, answer)

    async def entries(self, domain: str) -> list[dict[str, Json]]:
        """Return the config entries of a domain."""
        entries: list[dict[str, Json]] = await self.get(
            f"/api/config/config_entries/entry?domain={domain}"
        )
        return entries

    async def wait_loaded(self, domain: str, timeout: float = 30.0) -> None:
        """Wait until the entries of a domain are loaded, as after a change of settings."""
        try:
            async with asyncio.timeout(timeout):
                while any(e["state"] != "loaded" for e in await self.entries(domain)):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(f"{domain} is not loaded again.") from None

    async def diagnostics(self, entry_id: str) -> Json:
        """Return the integration's own part of an entry's diagnostics."""
        download = await self.get(f"/api/diagnostics/config_entry/{entry_id}")
        return download["data"]

    async def _flow(
        self, kind: str, handler: Json, inputs: Sequence[Json], **start: Json
    ) -> Json:
        """Answer the forms of a flow one by one.

        An answer with its step's ID before it is left out where that does not come.
        """
        result = await self.post(
            f"/api/config/config_entries/{kind}", {"handler": handler, **start}
        )
        for answer in inputs:
            if result["type"] not in {"form", "menu"}:
                break
            if isinstance(answer, tuple):
                step_id, answer = answer
                if step_id != result["step_id"]:
                    continue
            result = await self.answer(kind, result, answer)
        return result

    async def _request(self, method: str, path: str, **arguments: Json) -> Json:
        """Return the answer to a request, from JSON or as text."""
        if self._session is None:
            raise SimulationError("Home Assistant is not running.")
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        async with self._session.request(
            method, self.url + path, headers=headers, **arguments
        ) as response:
            text = await response.text()
        if not response.ok:
            raise SimulationError(
                f"Home Assistant answers {response.status} to {path}: {text[:500]}"
            )
        return json.loads(text) if response.content_type.endswith("json") else text

    @asynccontextmanager
    async def _websocket(self) -> AsyncGenerator[ClientWebSocketResponse]:
        """Yield a websocket connection that has logged in."""
        if self._session is None:
            raise SimulationError("Home Assistant is not running.")
        async with self._session.ws_connect(
            f"{self.url}/api/websocket", max_msg_size=0
        ) as websocket:
            await websocket.receive_json()
            await websocket.send_json({"type": "auth", "access_token": self._token})
            if (await websocket.receive_json())["type"] != "auth_ok":
                raise SimulationError("Home Assistant does not accept the token.")
            yield websocket

    @staticmethod
    async def _command(
        websocket: ClientWebSocketResponse, command: str, data: Mapping[str, Json]
    ) -> Json:
        """Return the result of a websocket command."""
        await websocket.send_json({"id": 1, "type": command, **data})
        answer = await websocket.receive_json()
        if not answer["success"]:
            raise SimulationError(f"{command} failed: {answer['error']['message']}.")
        return answer["result"]

    async def _wait_for(self, path: str) -> Json:
        """Return what a path answers as soon as Home Assistant serves it."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    self.check()
                    with suppress(SimulationError, ClientError):
                        return await self.get(path)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise SimulationError(
                f"Home Assistant does not answer; its log ends with:\n"
                f"{self.log_tail(20)}"
            ) from None

    async def _wait_running(self) -> None:
        """Wait until Home Assistant has started everything."""
        while (await self._wait_for("/api/config"))["state"] != "RUNNING":
            await asyncio.sleep(0.1)

    async def _onboard(self) -> None:
        """Make the user, and keep a token for all that follows."""
        user = await self.post(
            "/api/onboarding/users",
            {
                "client_id": self._client_id,
                "name": self.username.capitalize(),
                "username": self.username,
                "password": self.password,
                "language": "en",
            },
        )
        tokens = await self._request(
            "POST",
            "/auth/token",
            data={
                "grant_type": "authorization_code",
                "code": user["auth_code"],
                "client_id": self._client_id,
            },
        )
        self._token = tokens["access_token"]
        # That one ends after 30 minutes.
        self._token = await self.ws(
            "auth/long_lived_access_token", client_name="simulation", lifespan=1
        )

    def _write_configuration(self) -> None:
        """Write what a headless start needs; what exists in storage stays."""
        storage = self.config_dir / ".storage"
        storage.mkdir(parents=True, exist_ok=True)
        integrations = "".join(f"{name}:\n" for name in self._integrations)
        (self.config_dir / "configuration.yaml").write_text(
            self._configuration + integrations, encoding="utf-8"
        )
        contents = [http_storage(self.port)]
        if not (storage / "onboarding").exists():
            contents.append(stored("onboarding", 4, 1, {"done": ONBOARDING_STEPS}))
        for content in contents:
            (storage / content["key"]).write_text(json.dumps(content), "utf-8")
        components = self.config_dir / "custom_components"
        components.mkdir(exist_ok=True)
        link = components / INTEGRATION.name
        if not link.is_symlink():
            link.symlink_to(INTEGRATION)
