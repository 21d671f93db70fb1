"""What the tests share: a real broker, a subscriber of its own, a real Bluetooth stack.

Tests go in through public doors, a packet into Home Assistant's Bluetooth stack or a form
that is filled in, and look at what a user sees: states, and messages on the broker.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from homeassistant.components import bluetooth
from homeassistant.components.bluetooth import MONOTONIC_TIME, BaseHaRemoteScanner
from homeassistant.config_entries import ConfigSubentry, ConfigSubentryData
from homeassistant.core import CALLBACK_TYPE, HomeAssistant
from homeassistant.util import slugify
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

# The plug-in's own package of this name would hide ours.
import custom_components.ble_bridge  # noqa: F401
from custom_components.ble_bridge.const import DOMAIN
from scripts.simulation.broker import Mosquitto
from scripts.simulation.postgres import Postgres
from scripts.simulation.subscriber import Subscriber

from .chaos.house import House
from .recorder import Database

# A company ID that no integration of Home Assistant asks for, so that no discovery begins.
RAW = bytes.fromhex("0201060cfffeff0102030405060708ff")
HOUSE = pytest.StashKey[House]()
SOURCE = "AA:00:00:00:00:01"
ADDRESS = "C0:00:00:00:00:01"


class SimulatedScanner(BaseHaRemoteScanner):
    """A scanner that hears what a test says."""

    removers: list[CALLBACK_TYPE]

    def remove(self) -> None:
        """Go away, as a proxy does that is switched off."""
        while self.removers:
            self.removers.pop()()

    def hear(
        self,
        address: str = ADDRESS,
        rssi: int = -50,
        raw: bytes = RAW,
        age: float = 0,
        **details: Any,
    ) -> None:
        """Hear one packet."""
        self._async_on_raw_advertisement(
            address, rssi, raw, details, MONOTONIC_TIME() - age
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the fault tests last: their house lives beside all others, and takes minutes."""
    items.sort(key=lambda item: item.path.parent.name == "chaos")


def pytest_configure(config: pytest.Config) -> None:
    """Have a house of the fault tests, one for all workers where there are several."""
    config.stash[HOUSE] = House(getattr(config, "workerinput", {}).get("chaos"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the house is."""
    node.workerinput["chaos"] = str(node.config.stash[HOUSE].directory)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Begin with the faults before the workers begin."""
    node.config.stash[HOUSE].start(ids)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with the faults where there are no workers."""
    config = session.config
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[HOUSE].start([item.nodeid for item in session.items])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    config.stash[HOUSE].stop()


@pytest.fixture(name="chaos_house", scope="session")
def chaos_house_fixture(pytestconfig: pytest.Config) -> House:
    """Return the house of the fault tests."""
    return pytestconfig.stash[HOUSE]


@pytest.fixture(autouse=True)
def auto_enable_custom_integrations(
    enable_custom_integrations: None, socket_enabled: None
) -> None:
    """Let Home Assistant find the integration, and everyone the loopback."""


@pytest.fixture(name="tried_soon")
def tried_soon_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a broker that is away, or refuses us, tried again soon."""
    module = "custom_components.ble_bridge.destinations.destination"
    monkeypatch.setattr(f"{module}.FIRST_DELAY", 0.05)
    monkeypatch.setattr(f"{module}.LONGEST_DELAY", 0.1)


@pytest.fixture(name="listen_for")
def listen_for_fixture(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have the forms of monitors listen but for a moment; return what changes that (s)."""

    def listen_for(seconds: float) -> None:
        module = "custom_components.ble_bridge.monitors.listen"
        monkeypatch.setattr(f"{module}.LISTEN_SECONDS", seconds)

    listen_for(0.05)
    return listen_for


@pytest.fixture(autouse=True)
def stores_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Have records on disk in a directory of the test's own; return it."""
    directory = tmp_path / "records"
    monkeypatch.setattr(
        "custom_components.ble_bridge.bridge.store_path",
        lambda _, subentry_id: directory / f"{DOMAIN}.{subentry_id}.db",
    )
    return directory


@pytest.fixture(name="add_scanner")
async def add_scanner_fixture(
    hass: HomeAssistant, enable_bluetooth: None
) -> AsyncIterator[Callable[..., SimulatedScanner]]:
    """Return what adds a scanner; all of them are removed at the end."""
    scanners = []

    def add(
        source: str = SOURCE, name: str = "Living room proxy", connectable: bool = False
    ) -> SimulatedScanner:
        scanner = SimulatedScanner(source, name, None, connectable)
        scanner.removers = [
            bluetooth.async_register_scanner(hass, scanner),
            scanner.async_setup(),
        ]
        scanners.append(scanner)
        return scanner

    yield add
    for scanner in scanners:
        scanner.remove()


@pytest.fixture(name="scanner")
async def scanner_fixture(
    add_scanner: Callable[..., SimulatedScanner],
) -> SimulatedScanner:
    """Return a scanner."""
    return add_scanner()


@pytest.fixture(name="broker")
async def broker_fixture() -> AsyncIterator[Mosquitto]:
    """Return a running broker."""
    async with Mosquitto() as broker:
        yield broker


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
async def database_fixture(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Database]:
    """Return an empty database for the recorder, of each kind in turn."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path / 'recorder.db'}"
        else:
            url = (await stack.enter_async_context(Postgres())).url
        database = Database(url)
        stack.callback(database.close)
        yield database


@pytest.fixture(name="subscriber")
async def subscriber_fixture(broker: Mosquitto) -> AsyncIterator[Subscriber]:
    """Return a subscriber to everything."""
    async with Subscriber(broker.port) as subscriber:
        yield subscriber


def destination_data(port: int, **changes: Any) -> dict[str, Any]:
    """Return the data of a destination, as the form makes them."""
    return {
        "broker": "custom",
        "host": "127.0.0.1",
        "port": port,
        "username": None,
        "password": None,
        "topic_base": "ble",
        "tls": False,
        "qos": 0,
        "protocol": "auto",
        "client_id": "ble-bridge-test",
        "keepalive": 60,
        "clean_session": True,
        **changes,
    }


def device_subentry(data: dict[str, Any]) -> ConfigSubentryData:
    """Return the subentry of a device, as the form makes it."""
    key = data.get("address") or data["irk"]
    return ConfigSubentryData(
        data=data,
        subentry_type="device",
        title=data.get("alias") or key,
        unique_id=key,
    )


def bridge_entry(
    *destinations: dict[str, Any],
    devices: Iterable[dict[str, Any]] = (),
    options: dict[str, Any] | None = None,
) -> MockConfigEntry:
    """Return an entry with destinations and devices."""
    return MockConfigEntry(
        domain=DOMAIN,
        title="BLE Bridge",
        data={"bridge_id": "home"},
        options=options or {},
        subentries_data=[
            *(
                ConfigSubentryData(
                    data=data,
                    subentry_type="destination",
                    title=_title(data),
                    unique_id=f"127.0.0.1:{data['port']}/{data['topic_base']}",
                )
                for data in destinations
            ),
            *(device_subentry(data) for data in devices),
        ],
    )


def add_monitor(hass: HomeAssistant, entry: MockConfigEntry, **changes: Any) -> None:
    """Add a monitor to a bridge with one destination, as the form does."""
    (destination_id,) = entry.subentries
    data = {
        "preset": "autocore",
        "destination": destination_id,
        "topic_base": "autocore",
        **changes,
    }
    hass.config_entries.async_add_subentry(
        entry,
        ConfigSubentry(
            data=MappingProxyType(data),
            subentry_type="monitor",
            title="Garage",
            unique_id=None,
        ),
    )


async def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a condition holds, in real time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def _title(data: dict[str, Any]) -> str:
    """Return the title of a destination, as the form makes it."""
    base = "" if data["topic_base"] == "ble" else f" ({data['topic_base']})"
    return f"127.0.0.1:{data['port']}{base}"


def is_connected(hass: HomeAssistant, port: int, base: str = "ble") -> bool:
    """Tell what the connectivity sensor of a destination shows."""
    title = slugify(_title({"port": port, "topic_base": base}))
    state = hass.states.get(f"binary_sensor.{title}_connectivity")
    return state is not None and state.state == "on"


@pytest.fixture(name="setup")
async def setup_fixture(
    hass: HomeAssistant, enable_bluetooth: None
) -> AsyncIterator[Callable[..., Any]]:
    """Return what sets up a bridge, and waits for its destinations."""
    entries: list[MockConfigEntry] = []

    async def set_up(
        *destinations: dict[str, Any],
        devices: Iterable[dict[str, Any]] = (),
        options: dict[str, Any] | None = None,
        connected: bool = True,
    ) -> MockConfigEntry:
        entry = bridge_entry(*destinations, devices=devices, options=options)
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        if connected:
            await wait_until(
                lambda: all(
                    is_connected(hass, data["port"], data["topic_base"])
                    for data in destinations
                )
            )
        entries.append(entry)
        return entry

    yield set_up
    for entry in entries:
        if (
            hass.config_entries.async_get_entry(entry.entry_id)
            and entry.state.recoverable
        ):
            await hass.config_entries.async_unload(entry.entry_id)


@pytest.fixture(name="setup_nats")
async def setup_nats_fixture(
    hass: HomeAssistant, enable_bluetooth: None
) -> AsyncIterator[Callable[..., Any]]:
    """Return what sets up a bridge with destinations on NATS, and waits for them."""
    from .nats import is_up, nats_entry  # They take from here

    entries: list[MockConfigEntry] = []

    async def set_up(
        *destinations: dict[str, Any],
        devices: Iterable[dict[str, Any]] = (),
        connected: bool = True,
    ) -> MockConfigEntry:
        entry = nats_entry(*destinations, devices=devices)
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        entries.append(entry)
        if connected:
            await wait_until(lambda: all(is_up(hass, data) for data in destinations))
        return entry

    yield set_up
    for entry in entries:
        if (
            hass.config_entries.async_get_entry(entry.entry_id)
            and entry.state.recoverable
        ):
            await hass.config_entries.async_unload(entry.entry_id)
