"""A house under test: a real Home Assistant, real servers, and what can fail.

It has a destination of each kind, and one more with TLS, each behind a proxy of its own.
Their servers are known by names that are looked up, and none is an address.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
import ctypes
import json
import os
from pathlib import Path
import subprocess
from typing import Any, Final, Self

from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import LOOPBACK, SimulationError

from .certificates import Authority
from .health import Log
from .ledger import Ledger
from .outlets import (
    EXPOSED,
    INFLUX,
    NATS,
    PLAIN,
    SECURE,
    MqttOutlet,
    NatsOutlet,
    Outlet,
    StoreOutlet,
    TlsOutlet,
)
from .traffic import DEVICES, Traffic

INSIDE: Final = Path(__file__).with_name("inside")
STORAGE_SIZE: Final = "64m"
CONNECT_SECONDS: Final = 30.0
_POLL: Final = 0.05
_MS_PRIVATE: Final = 1 << 18
_MS_REC: Final = 1 << 14

DROPPED: Final = ("away", "overflow", "expired", "refused", "failed")


def fill(schema: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> Any:
    """Return the answer to a form: what is said of its fields, section by section.

    A section of its own name takes its own values; any other one shares those of the
    form, unless it is one to be switched on.
    """
    answer: dict[str, Any] = {}
    for item in schema:
        name = item["name"]
        if item.get("type") != "expandable":
            if name in values:
                answer[name] = values[name]
        elif name in values:
            answer[name] = fill(item["schema"], values[name])
        elif all(inner["name"] != "enabled" for inner in item["schema"]):
            answer[name] = fill(item["schema"], values)
    return answer


def private_mounts() -> bool:
    """Have this process and its children mount for themselves; needs the right to.

    What is mounted is gone with the last of them.
    """
    try:
        os.unshare(os.CLONE_NEWNS)
    except OSError:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


def unmount(directory: Path) -> None:
    """End a mount, whoever still uses it."""
    subprocess.run(["umount", "--lazy", directory], check=False)


class House:
    """The house, from its start to its end."""

    def __init__(self, directory: Path, seed: int, *, mounts: bool = False) -> None:
        """Describe it; the directory must be empty.

        With `mounts` (`private_mounts`) its storage is a small disk of its own.
        """
        self.directory = directory
        self.mounts = mounts
        self.ledger = Ledger()
        self.findings: list[str] = []
        # Records on a disk that is damaged beyond counting
        self.at_risk: Counter[str] = Counter()
        self.entry_id = ""
        self.outlets: dict[str, Outlet] = {}
        self.subentries: dict[str, str] = {}
        self.authority = Authority("The right authority")
        self.startup_faults = directory / "faults.json"
        self._seed = seed
        self._stack = AsyncExitStack()
        self._lives: dict[str, Counter[str]] = {}
        self._life: dict[str, Counter[str]] = {}
        self._counted = EsphomeProxy("counted-proxy", "24:6F:28:00:10:00")
        self._flooded = EsphomeProxy("flooded-proxy", "24:6F:28:00:20:00")
        self.traffic = Traffic(self.ledger, self._counted, self._flooded, seed)

    async def __aenter__(self) -> Self:
        """Start everything, set it up as a user does, and let the traffic begin."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self._stack.aclose()

    @property
    def exposed(self) -> list[Outlet]:
        """Return the destinations whose servers and network fail."""
        return [self.outlets[name] for name in EXPOSED]

    async def each(self, do: Callable[[Outlet], Awaitable[None]]) -> None:
        """Do something with all exposed destinations at once."""
        await asyncio.gather(*(do(outlet) for outlet in self.exposed))

    def expect(self, holds: bool, otherwise: str) -> None:
        """Take note of what is wrong unless a condition holds."""
        if not holds:
            self.findings.append(otherwise)

    # --- the start ----------------------------------------------------------------------

    async def _start(self) -> None:
        enter = self._stack.enter_async_context
        self.plain = MqttOutlet(PLAIN, self._directory_of(PLAIN))
        self.secure = TlsOutlet(SECURE, self._directory_of(SECURE), self.authority)
        self.nats = NatsOutlet(NATS, self._directory_of(NATS))
        self.influx = StoreOutlet(INFLUX, self._directory_of(INFLUX))
        for outlet in (self.plain, self.secure, self.nats, self.influx):
            self.outlets[outlet.name] = await enter(outlet)
        for proxy in (self._counted, self._flooded):
            await enter(proxy)
        config = self.directory / "home-assistant"
        self._prepare(config)
        authorities = self.directory / "authorities.pem"
        self.authority.write(authorities)
        self.startup_faults.write_text("{}", encoding="utf-8")
        addresses = {outlet.host: LOOPBACK for outlet in self.outlets.values()}
        self.home_assistant = HomeAssistantProcess(
            config,
            integrations=("bluetooth", "frontend", "chaos_probe"),
            extra_env={
                "PYTHONPATH": str(INSIDE),
                "PYTHONASYNCIODEBUG": "1",
                "PYTHONFAULTHANDLER": "1",
                "PYTHONWARNINGS": "default::ResourceWarning,default::RuntimeWarning",
                "CHAOS_ADDRESSES": json.dumps(addresses),
                "CHAOS_FAULTS": str(self.startup_faults),
                "SSL_CERT_FILE": str(authorities),
            },
        )
        await enter(self.home_assistant)
        self.log = Log(self.home_assistant.log)
        await self._set_up()
        playing = asyncio.create_task(self.traffic.run())
        self._stack.callback(playing.cancel)

    def _directory_of(self, name: str) -> Path:
        """Make the directory of a destination."""
        directory = self.directory / name
        directory.mkdir()
        return directory

    def _prepare(self, config: Path) -> None:
        """Make the configuration's directory, its disk, and the probe in it."""
        storage, components = config / ".storage", config / "custom_components"
        for directory in (storage, components):
            directory.mkdir(parents=True)
        (components / "chaos_probe").symlink_to(INSIDE / "chaos_probe")
        if self.mounts:
            subprocess.run(
                [
                    "mount",
                    "-t",
                    "tmpfs",
                    "-o",
                    f"size={STORAGE_SIZE}",
                    "chaos",
                    storage,
                ],
                check=True,
            )
            self._stack.callback(lambda: unmount(storage))

    async def _set_up(self) -> None:
        """Add the proxies, the bridge, its destinations and the devices."""
        for proxy in (self._counted, self._flooded):
            reached = {"host": LOOPBACK, "port": proxy.port}
            await self.home_assistant.flow("esphome", reached)
        for proxy in (self._counted, self._flooded):
            await proxy.wait_ready()
        named = {"name": "BLE Bridge", "bridge_id": "chaos"}
        first, *others = self.outlets.values()
        await self._answer("flow", "ble_bridge", first.step, {**named, **first.form()})
        [entry] = await self.home_assistant.entries("ble_bridge")
        self.entry_id = entry["entry_id"]
        handler = [self.entry_id, "destination"]
        for count, outlet in enumerate(others, start=2):
            await self._answer("subentries/flow", handler, outlet.step, outlet.form())
            await self.wait_connected(count)  # For it is loaded anew
        for name, address in DEVICES.items():
            result = await self.home_assistant.subentry_flow(
                self.entry_id,
                "device",
                {"next_step_id": "on_air"},
                {"address": address},
                {"name": name, "alias": name, "signal": {}, "shaping": {}},
            )
            if result["type"] != "create_entry":
                raise SimulationError(f"The device could not be added: {result}.")
        listed = await self.home_assistant.ws(
            "config_entries/subentries/list", entry_id=self.entry_id
        )
        destinations = [s for s in listed if s["subentry_type"] == "destination"]
        self.subentries = dict(
            zip(self.outlets, (s["subentry_id"] for s in destinations), strict=True)
        )
        self._forget_lives()

    async def _answer(
        self, kind: str, handler: Any, step: str, values: Mapping[str, Any]
    ) -> None:
        """Fill in the forms of a flow, whatever fields this version has."""
        path = f"/api/config/config_entries/{kind}"
        result = await self.home_assistant.post(path, {"handler": handler})
        while result["type"] in {"form", "menu"}:
            if result.get("errors"):
                raise SimulationError(f"The form says {result['errors']}.")
            answer: Any = (
                {"next_step_id": step}
                if result["type"] == "menu"
                else fill(result["data_schema"], values)
            )
            result = await self.home_assistant.post(
                f"{path}/{result['flow_id']}", answer
            )
        if result["type"] != "create_entry":
            raise SimulationError(f"{handler} could not be added: {result}.")

    # --- Home Assistant -----------------------------------------------------------------

    async def stop(self) -> None:
        """Stop Home Assistant as a user does."""
        await self._end_life()
        self.ledger.begin_deaf()
        await self.home_assistant.stop()

    async def kill(self) -> None:
        """End Home Assistant as a power cut does."""
        await self._end_life()
        self.ledger.begin_deaf()
        await self.home_assistant.kill()

    async def start(self, **faults: Any) -> None:
        """Start Home Assistant, with faults that are there from the beginning."""
        self.startup_faults.write_text(json.dumps(faults), encoding="utf-8")
        await self.home_assistant.start()
        for proxy in (self._counted, self._flooded):
            await proxy.wait_ready(60)
        await self._wait_loaded()

    async def reload(self) -> None:
        """Load the integration anew."""
        await self._end_life()
        self.ledger.begin_deaf()
        await self.home_assistant.post(
            f"/api/config/config_entries/entry/{self.entry_id}/reload"
        )
        await self._wait_loaded()

    async def _wait_loaded(self) -> None:
        """Wait until the integration listens."""
        await self.home_assistant.wait_loaded("ble_bridge", CONNECT_SECONDS)
        self._forget_lives()
        self.ledger.end_deaf()

    def _forget_lives(self) -> None:
        """Forget earlier connections, as the integration does when it is loaded."""
        for outlet in self.outlets.values():
            outlet.proxy.lives.clear()

    async def set_faults(self, **faults: Any) -> None:
        """Set the faults inside of Home Assistant, and end all others."""
        await self.home_assistant.post("/api/chaos_probe", faults)

    async def probe(self) -> dict[str, Any]:
        """Return how Home Assistant is doing."""
        vitals: dict[str, Any] = await self.home_assistant.get("/api/chaos_probe")
        return vitals

    async def issues(self) -> list[str]:
        """Return the repair issues of the integration."""
        listed = await self.home_assistant.ws("repairs/list_issues")
        return [
            issue["issue_id"]
            for issue in listed["issues"]
            if issue["domain"] == "ble_bridge"
        ]

    async def tidy(self) -> None:
        """Close all issues, and collect garbage, which says what was never awaited."""
        await self.home_assistant.delete("/api/chaos_probe")

    # --- destinations -------------------------------------------------------------------

    async def destinations(self) -> dict[str, dict[str, Any]]:
        """Return the diagnostics of each destination."""
        diagnostics = await self.home_assistant.diagnostics(self.entry_id)
        if "destinations" not in diagnostics:
            raise SimulationError("BLE Bridge is not loaded.")
        return dict(zip(self.outlets, diagnostics["destinations"], strict=False))

    async def sample(self) -> dict[str, dict[str, Any]]:
        """Return the diagnostics, having checked their sums and noted their counts."""
        found = await self.destinations()
        for name, destination in found.items():
            self.findings += [f"{name}: {text}" for text in sums(destination)]
            self._life[name] = Counter(
                {
                    key: count
                    for key, count in destination["records"]["reading"].items()
                    if isinstance(count, int)
                }
            )
        return found

    def counters(self, name: str) -> Counter[str]:
        """Return what became of readings over all lives, as far as it was noted."""
        return self._lives.get(name, Counter()) + self._life.get(name, Counter())

    async def _end_life(self) -> None:
        """Note what is counted, for the counters will begin anew."""
        await self.sample()
        for name, life in self._life.items():
            self._lives.setdefault(name, Counter()).update(life)
        self._life.clear()

    async def wait_connected(self, count: int | None = None) -> None:
        """Wait until all destinations are connected, or so many as there are."""
        found: dict[str, dict[str, Any]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                while True:
                    with suppress(SimulationError):  # Not loaded
                        found = await self.destinations()
                    if len(found) == (count or len(self.outlets)) and all(
                        destination["connected"] for destination in found.values()
                    ):
                        return
                    await asyncio.sleep(_POLL)
        connected = [name for name in found if found[name]["connected"]]
        raise SimulationError(f"Connected in {CONNECT_SECONDS:g} s: only {connected}.")

    async def steady(self, *, always: bool) -> None:
        """Wait for connections that have lived for long enough, where it matters."""
        for outlet in self.outlets.values():
            await outlet.steady(always=always)

    async def needs_version_5(self) -> None:
        """See to it that MQTT 5 is spoken, for what 3.1.1 cannot say."""
        if (await self.destinations())[PLAIN]["protocol"] != "5":
            await self.reload()
            await self.wait_connected()

    def cut_off(self) -> None:
        """Have the servers of the exposed destinations away."""
        for outlet in self.exposed:
            outlet.cut_off()

    async def pass_on(self) -> None:
        """Have the servers of the exposed destinations back."""
        await self.each(Outlet.pass_on)

    # --- disk ---------------------------------------------------------------------------

    @property
    def storage(self) -> Path:
        """Return the directory in which Home Assistant and the integration store."""
        return self.home_assistant.config_dir / ".storage"

    def store(self, name: str) -> Path | None:
        """Return the file of a destination's durable records, if there is one."""
        path = self.storage / f"ble_bridge.{self.subentries[name]}.db"
        return path if path.exists() else None

    async def fill_disk(self) -> None:
        """Have the disk full: really where it is ours, else by SQLite's own word."""
        if not self.mounts:
            await self.set_faults(disk_full=True)
            return
        with (self.storage / "balloon").open("wb", buffering=0) as balloon:
            for size in (1 << 16, 1 << 12):
                with suppress(OSError):
                    while balloon.write(bytes(size)) == size:
                        pass

    async def empty_disk(self) -> None:
        """Have room on the disk again."""
        (self.storage / "balloon").unlink(missing_ok=True)
        await self.set_faults()


def sums(destination: Mapping[str, Any]) -> list[str]:
    """Return where the counters of a destination do not add up."""
    wrong = []
    for kind, tally in destination["records"].items():
        dropped = sum(tally[key] for key in DROPPED)
        total = tally["acknowledged"] + tally["sent"] + dropped + tally["waiting"]
        if tally["received"] != total or min(tally.values()) < 0:
            wrong.append(f"the counters of {kind} do not add up: {tally}")
    tallies = (*destination["records"].values(), destination["own_messages"])
    waiting = sum(tally["waiting"] for tally in tallies)
    found = destination["queue"]["messages"] + destination["delivery"]["waiting"]
    if found != waiting:
        wrong.append(f"by the counters {waiting} wait, and {found} do")
    return wrong
