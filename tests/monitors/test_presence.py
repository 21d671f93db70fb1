"""Whether a device is there: what it says, its will, silence, and what brokers keep."""

from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
import orjson
import pytest

from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnector,
    MqttSettings,
    Will,
)
from scripts.simulation.broker import Mosquitto

from ..conftest import wait_until
from ..destinations.faults import Proxy
from .garage import DEVICE, Clock, Garage, moment, relay, status, telemetry

OFFLINE = {"device_id": DEVICE, "status": "offline"}


@pytest.mark.parametrize(
    ("online", "will"),
    [
        (orjson.dumps(status()), orjson.dumps(OFFLINE)),
        (orjson.dumps(status()), orjson.dumps(status(status="offline"))),
        (b"online", b"offline"),
        (b" ONLINE\n", b"Offline"),
        (b'{"status": true}', b'{"status": false}'),
    ],
    ids=["without_time", "with_time", "word", "untidy_word", "boolean"],
)
async def test_will(garage: Garage, online: bytes, will: bytes) -> None:
    """A device is gone when the broker says so for it, and when it takes its leave."""
    await garage.start({"needs_time": False})
    topic = f"autocore/{DEVICE}/status"
    for number in range(2):
        settings = MqttSettings(
            host="127.0.0.1", port=garage.broker.port, client_id=f"device{number}"
        )
        device = await MqttConnector(settings, Will(topic, will)).async_connect()
        device.publish(topic, online, retain=True)
        await wait_until(lambda: garage.value("online") == "on")
        device.abort()
        await wait_until(lambda: garage.value("online") == "off")
    # What the broker keeps says the same
    await garage.restart()
    await garage.connected()
    await wait_until(lambda: garage.monitor.processed)
    assert garage.value("online") == "off"


async def test_silence(garage: Garage, clock: Clock) -> None:
    """A device that says nothing for too long is gone, and back with its next word."""
    await garage.start({"timeout": 60})
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell("other/status", status("other"))
    clock.advance(50)
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    clock.advance(50)
    await garage.tick()
    assert garage.value("online") == "on"
    assert garage.value("online", "other") == "off"
    assert garage.value("status", "other") == "online"
    clock.advance(50)
    await garage.tick()
    assert garage.value("online") == "off"
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    assert garage.value("online") == "on"
    for kind, said in (
        ("display/interaction", {"action": "tap"}),
        ("system/boot", {"reason": "power"}),
        ("status", status(status="busy")),
    ):
        clock.advance(100)
        await garage.tick()
        assert garage.value("online") == "off"
        await garage.tell(f"{DEVICE}/{kind}", {"timestamp": moment(), **said})
        assert garage.value("online") == "on"


@pytest.mark.usefixtures("tried_soon")
async def test_no_silence_without_broker(garage: Garage, clock: Clock) -> None:
    """While the broker is away nobody can be heard, so that nobody is silent."""
    await garage.start({"timeout": 60})
    await garage.tell(f"{DEVICE}/status", status())
    await garage.broker.stop()
    await wait_until(lambda: not garage.monitor.is_connected)
    clock.advance(1000)
    await garage.tick()
    assert garage.value("online") == "on"
    await garage.broker.start()
    await garage.connected()
    clock.advance(30)
    await garage.tick()
    assert garage.value("online") == "on"
    clock.advance(31)
    await garage.tick()
    assert garage.value("online") == "off"


# --- what the broker keeps ----------------------------------------------------------------


async def keep(garage: Garage, topic: str, payload: Any) -> None:
    """Have the broker keep a message."""
    await garage.say(f"autocore/{DEVICE}/{topic}", payload, retain=True, qos=1)


@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_fills_in(hass: HomeAssistant, broker: Mosquitto) -> None:
    """What was said while there was no connection fills in, as far as the broker kept it."""
    garage = Garage(hass, broker)
    async with Proxy(broker.port) as proxy:
        await garage.start(destination={"port": proxy.port})
        await garage.tell(f"{DEVICE}/status", status())
        await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=20))
        await garage.tell(f"{DEVICE}/relay/0/status", relay())
        proxy.open.clear()
        proxy.cut()
        await wait_until(lambda: not garage.monitor.is_connected)
        await keep(garage, "telemetry", telemetry(temperature=21))
        await keep(garage, "relay/0/status", relay(state=False))
        await keep(garage, "status", status(firmware_version="2.0.0"))
        proxy.open.set()
        await garage.connected()
        await wait_until(lambda: garage.monitor.processed == 6)
        assert garage.value("field!temperature") == "21"
        assert garage.value("relay!0") == "off"
        assert (device := garage.device()) is not None
        assert device.sw_version == "2.0.0"
        await garage.close()


async def test_kept_telemetry(garage: Garage) -> None:
    """What the broker kept tells values, and not that the device is there."""
    await keep(garage, "telemetry", telemetry(timestamp=moment(-3600)))
    await garage.start()
    await wait_until(lambda: garage.value("field!temperature") == "25.6")
    assert garage.value("online") is None
    assert seen(garage) == pytest.approx(dt_util.utcnow().timestamp() - 3600, abs=60)


async def test_kept_status_without_time(garage: Garage, clock: Clock) -> None:
    """A status that does not tell its time says that the device is there, until it is late."""
    await keep(garage, "status", b"online")
    await garage.start({"timeout": 60})
    await wait_until(lambda: garage.value("online") == "on")
    assert garage.value("seen") == "unknown"
    await keep(garage, "status", {"status": "online", "uptime": 5})
    await garage.tick()
    clock.advance(61)
    await garage.tick()
    assert garage.value("online") == "off"


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_kept_status(garage: Garage, clock: Clock, ahead: float) -> None:
    """A kept status is as old as it says, and never from the future.

    One that is too old does not tell that the device is there.
    """
    await keep(garage, "status", status(timestamp=moment(ahead)))
    await garage.start({"timeout": 60})
    expected = "on" if ahead > 0 else "off"
    await wait_until(lambda: garage.value("online") == expected)
    now = dt_util.utcnow().timestamp()
    assert seen(garage) == pytest.approx(now + min(ahead, 0), abs=60)
    clock.advance(61)
    await garage.tick()
    assert garage.value("online") == "off"


async def test_kept_status_is_no_sign_of_life(garage: Garage, clock: Clock) -> None:
    """A device that fell silent stays gone, though the broker still has its last status."""
    await garage.start({"timeout": 60})
    await keep(garage, "status", status())
    await wait_until(lambda: garage.value("online") == "on")
    clock.advance(61)
    await garage.tick()
    assert garage.value("online") == "off"
    await garage.restart()
    await garage.connected()
    await wait_until(lambda: garage.monitor.processed)
    assert garage.value("online") == "off"
    # One that it gave since then is
    assert await garage.hass.config_entries.async_unload(garage.entry.entry_id)
    await keep(garage, "status", status(timestamp=moment(100)))
    clock.advance(60)
    assert await garage.hass.config_entries.async_setup(garage.entry.entry_id)
    await wait_until(lambda: garage.value("online") == "on")


def seen(garage: Garage) -> float:
    """Return when the device was seen last (Unix time, s)."""
    time = dt_util.parse_datetime(garage.value("seen") or "", raise_on_error=True)
    return time.timestamp()
