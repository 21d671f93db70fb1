"""How many devices a monitor takes in, and which of them the user removes."""

from collections.abc import Awaitable, Callable
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, issue_registry as ir
from homeassistant.setup import async_setup_component
import orjson
import pytest
from pytest_homeassistant_custom_component.typing import WebSocketGenerator

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.mqtt_connection import MAX_PACKET
from custom_components.ble_bridge.monitors import monitor as monitor_module
from custom_components.ble_bridge.monitors.messages import Reason

from .. import test_removal as removal
from ..conftest import ADDRESS, wait_until
from .garage import DEVICE, Garage, moment, relay, status, telemetry

type Remove = Callable[[Any], Awaitable[bool]]


@pytest.fixture(name="remove")
async def remove_fixture(
    hass: HomeAssistant, hass_ws_client: WebSocketGenerator
) -> Remove:
    """Return what removes a device as the frontend does, and tells whether that was taken."""
    assert await async_setup_component(hass, "config", {})
    clients: list[Any] = []

    async def remove(device: Any) -> bool:
        if not clients:  # Once there is one, nothing can be set up that has a view
            clients.append(await hass_ws_client(hass))
        return await removal.remove(clients[0], device)

    return remove


def full(garage: Garage) -> ir.IssueEntry | None:
    """Return the issue that says that there are too many devices."""
    issue_id = f"monitor_full_{garage.monitor.subentry_id}"
    return ir.async_get(garage.hass).async_get_issue(DOMAIN, issue_id)


async def test_huge_message(garage: Garage) -> None:
    """What would fill the memory is not even delivered, and what comes after it is."""
    await garage.start()
    await garage.say(f"autocore/{DEVICE}/status", bytes(MAX_PACKET), qos=1)
    await garage.say(f"autocore/{DEVICE}/status", bytes(MAX_PACKET // 2), qos=1)
    await garage.tell(f"{DEVICE}/status", status())
    await wait_until(lambda: garage.monitor.processed == 1)
    assert garage.monitor.dead_letters.counts == {Reason.TOO_LARGE: 1}
    assert garage.monitor.destination is not None
    assert garage.monitor.destination.reconnects == 0


async def test_too_many_devices(garage: Garage, remove: Remove) -> None:
    """Who comes beyond the limit is no device; the user is told, and makes room."""
    await garage.start({"max_devices": 2})
    for number in range(5):
        await garage.tell(f"device{number}/status", status(f"device{number}"))
    assert list(garage.monitor.devices) == ["device0", "device1"]
    letters = garage.monitor.dead_letters
    assert letters.counts == {Reason.TOO_MANY_DEVICES: 3}
    assert [letter.topic for letter in letters] == [
        f"autocore/device{number}/status" for number in (2, 3, 4)
    ]
    issue = full(garage)
    assert issue is not None
    assert issue.translation_placeholders == {"monitor": "Garage", "limit": "2"}
    assert garage.device("device3") is None
    # Those that are known are heard as ever
    await garage.tell("device1/status", status("device1", status="busy"))
    assert garage.value("status", "device1") == "busy"

    assert await remove(garage.device("device0"))
    await garage.hass.async_block_till_done()
    assert full(garage) is None
    assert garage.device("device0") is None
    assert garage.state("online", "device0") is None
    await garage.tell("device3/status", status("device3"))
    assert garage.value("status", "device3") == "online"
    await garage.tell("device0/status", status("device0"))
    assert full(garage) is not None
    await garage.change(max_devices=3)
    assert full(garage) is None
    await garage.tell("device0/status", status("device0"))
    assert garage.value("online", "device0") == "on"


async def test_flood_of_devices(garage: Garage) -> None:
    """A flood of IDs that nobody knows is counted, and takes no more room than is allowed."""
    await garage.start({"max_devices": 10})
    for number in range(500):
        name = f"device{number}"
        await garage.say(f"autocore/{name}/status", status(name))
    await wait_until(lambda: garage.judged == 500)
    assert len(garage.monitor.devices) == 10
    assert garage.monitor.dead_letters.total == 490
    assert len(garage.monitor.dead_letters) == 100
    assert garage.value("monitored_devices", None) == "0"
    await garage.tick(31)
    assert garage.value("monitored_devices", None) == "10"
    assert garage.value("dead_letters", None) == "490"
    assert garage.value("monitor_messages", None) == "10"


async def test_fewer_devices(garage: Garage, remove: Remove) -> None:
    """Where the limit is lowered, those stay that were heard last; others can be removed."""
    await garage.start()
    for name in ("old", "young", "youngest"):
        await garage.tell(f"{name}/status", status(name))
    await garage.change(max_devices=2)
    assert list(garage.monitor.devices) == ["youngest", "young"]
    assert (device := garage.device("old")) is not None
    assert await remove(device)
    assert garage.device("old") is None


async def test_removed_device_comes_back(garage: Garage, remove: Remove) -> None:
    """A device that is removed is gone until it says something; it begins from nothing."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    assert await remove(garage.device())
    # At once, while Home Assistant is still about it
    await garage.tell(
        f"{DEVICE}/telemetry", {"timestamp": status()["timestamp"], "x": 1}
    )
    assert garage.value("field!x") == "1"
    assert garage.value("online") == "on"
    for gone in ("field!temperature", "status", "relay!0"):
        assert garage.entity_id(gone) is None
    assert (device := garage.device()) is not None
    assert device.sw_version is None
    assert await remove(device)
    await garage.restart()
    assert not garage.monitor.devices
    assert garage.device() is None


async def test_what_cannot_be_removed(
    garage: Garage, remove: Remove, caplog: pytest.LogCaptureFixture
) -> None:
    """The monitor itself goes where it came from; a device is of its own kind."""
    await garage.start({}, {"topic_base": "other"}, devices=[{"address": ADDRESS}])
    await garage.tell(f"{DEVICE}/status", status())
    registry = dr.async_get(garage.hass)
    for monitor in garage.monitors:
        assert not await remove(registry.async_get(monitor.device_id))
    bridge = garage.entry.runtime_data
    assert not await remove(registry.async_get(bridge.device_id))
    assert list(garage.monitors[0].devices) == [DEVICE]
    # Nor is a device that the bridge knows nothing of, while it is not there
    device = garage.device()
    assert await garage.hass.config_entries.async_unload(garage.entry.entry_id)
    assert not await remove(device)
    assert await garage.hass.config_entries.async_setup(garage.entry.entry_id)
    assert garage.device() is not None
    assert "Traceback" not in caplog.text


async def test_overflow(garage: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be read makes room for what is newer, and is counted."""
    monkeypatch.setattr(monitor_module, "MAX_QUEUED", 10)
    await garage.start()
    monitor = garage.monitor
    for number in range(25):
        payload = orjson.dumps(telemetry(str(number)))
        monitor.on_message(f"autocore/{number}/telemetry", payload, retained=False)
    assert (monitor.queued, monitor.overflow, monitor.errors) == (10, 15, 15)
    await wait_until(lambda: not monitor.queued)
    assert list(monitor.devices) == [str(number) for number in range(15, 25)]
    assert monitor.processed == 10
    await garage.tick(31)
    assert garage.value("monitor_overflow", None) == "15"
    assert garage.value("monitor_queue", None) == "0"


async def test_overflow_of_bytes(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is no more than so many bytes, topics included."""
    monkeypatch.setattr(monitor_module, "MAX_QUEUED_BYTES", 100_000)
    await garage.start()
    monitor = garage.monitor
    for number in range(25):
        payload = orjson.dumps(telemetry(str(number), text="x" * 20_000))
        monitor.on_message(f"autocore/{number}/telemetry", payload, retained=False)
    assert (monitor.queued, monitor.overflow) == (4, 21)
    await wait_until(lambda: not monitor.queued)
    assert list(monitor.devices) == ["21", "22", "23", "24"]
    for number in range(25):
        topic = f"autocore/{number}{'9' * 60_000}/telemetry"
        monitor.on_message(topic, b"{}", retained=False)
    assert (monitor.queued, monitor.overflow) == (0, 21)
    assert monitor.dead_letters.counts == {Reason.INVALID_ID: 25}


async def test_read_before_the_end(garage: Garage) -> None:
    """What waits when the bridge is stopped is read, and what comes then is not."""
    await garage.start()
    monitor = garage.monitor

    def hear(number: int) -> None:
        payload = orjson.dumps(telemetry(number=number))
        monitor.on_message(f"autocore/{DEVICE}/telemetry", payload, retained=False)

    for number in range(2_000):
        hear(number)
    await garage.restart()
    assert (monitor.queued, monitor.processed) == (0, 2_000)
    hear(5_000)
    assert not monitor.queued
    assert garage.value("field!number") == "1999"


async def test_many_topics(garage: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says ever new things in ever new topics is understood as well."""
    monkeypatch.setattr(monitor_module, "MAX_ROUTES", 10)
    await garage.start()
    for number in range(35):
        await garage.say(
            f"autocore/{DEVICE}/system/kind{number}", {"timestamp": moment()}
        )
        await garage.say(f"autocore/{DEVICE}/relay/{number}/status", relay(number))
    await wait_until(lambda: garage.judged == 70)
    assert not garage.monitor.errors
    assert garage.value("relay!34") == "on"


async def test_more_than_a_device_has(garage: Garage) -> None:
    """A device has so many values and relays; more are left out, and counted."""
    await garage.start()
    values = {f"value{number}": number for number in range(100)}
    for _ in range(2):
        await garage.tell(f"{DEVICE}/telemetry", {"timestamp": moment(), **values})
    for number in range(70):
        await garage.tell(f"{DEVICE}/relay/{number}/status", relay(number))
    shown = [garage.value(f"field!{name}") for name in values]
    assert shown == [*(str(number) for number in range(64)), *[None] * 36]
    assert garage.value("relay!63") == "on"
    assert garage.value("relay!64") is None
    (device,) = garage.monitor.devices.values()
    assert device.left_out == 2 * 36 + 6
    assert not garage.monitor.errors
