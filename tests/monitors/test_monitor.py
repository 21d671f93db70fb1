"""A monitor in Home Assistant: what is said on a real broker, and what a user sees."""

from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.helpers import entity_registry as er

from ..conftest import is_connected, wait_until
from .garage import DEVICE, Garage, moment, relay, status, telemetry


async def test_status(garage: Garage) -> None:
    """A status makes a device, with all that it tells of itself."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    device = garage.device()
    assert device is not None
    assert (device.name, device.sw_version) == (DEVICE, "1.2.0")
    assert device.configuration_url == "http://192.168.1.100"
    assert device.via_device_id == garage.monitor.device_id
    assert garage.value("online") == "on"
    assert garage.value("status") == "online"
    assert garage.value("ip") == "192.168.1.100"
    started = garage.value("started")
    await garage.tell(f"{DEVICE}/status", status(uptime=3601, firmware_version="1.3"))
    assert garage.value("started") == started
    assert (device := garage.device()) is not None
    assert device.sw_version == "1.3"
    await garage.tell(f"{DEVICE}/status", {"device_id": DEVICE, "status": "offline"})
    assert garage.value("online") == "off"


async def test_telemetry(garage: Garage) -> None:
    """Each value is an entity of the kind and with the unit that its name tells."""
    await garage.start()
    await garage.tell(
        f"{DEVICE}/telemetry",
        telemetry(door=True, mode="eco", wifi={"rssi": -60}, cells=[1, 2]),
    )
    shown = {
        name: (state.state, state.attributes.get("unit_of_measurement"))
        for name in (
            *("temperature", "humidity", "voltage", "memory_free", "door", "mode"),
            *("wifi_rssi", "cells_1", "cells_2"),
        )
        if (state := garage.state(f"field!{name}"))
    }
    assert shown == {
        "temperature": ("25.6", "°C"),
        "humidity": ("45.2", "%"),
        "voltage": ("3.28", "V"),
        "memory_free": ("45120", "B"),
        "door": ("on", None),
        "mode": ("eco", None),
        "wifi_rssi": ("-60", "dBm"),
        "cells_1": ("1", None),
        "cells_2": ("2", None),
    }
    voltage = garage.entity_id("field!voltage")
    assert voltage is not None
    options = er.async_get(garage.hass).entities[voltage].options
    assert options["sensor"]["suggested_display_precision"] == 2  # 3.28 V is not 3 V
    assert garage.value("online") == "on"


async def test_relay(garage: Garage) -> None:
    """A relay is a binary sensor that says what triggered it; a critical one an event."""
    await garage.start({"critical_relays": [f"{DEVICE}/0"]})
    events = []
    garage.hass.bus.async_listen("ble_bridge_relay", lambda e: events.append(e.data))
    for index in (0, 1):
        await garage.tell(f"{DEVICE}/relay/{index}/status", relay(index))
        await garage.tell(
            f"{DEVICE}/relay/{index}/status",
            relay(index, state=False, triggered_by="schedule"),
        )
    state = garage.state("relay!0")
    assert state is not None
    assert state.state == "off"
    assert state.attributes["triggered_by"] == "schedule"
    assert state.attributes["index"] == "0"
    (event,) = events
    assert event["state"] == "off"
    assert (device := garage.device()) is not None
    assert event["device_id"] == device.id


async def test_events(garage: Garage) -> None:
    """Interactions and system messages are events."""
    await garage.start()
    said = {"device_id": DEVICE, "timestamp": moment(), "action": "Tap", "x": 5}
    await garage.tell(f"{DEVICE}/display/interaction", said)
    await garage.tell(f"{DEVICE}/display/interaction", said)
    state = garage.state("interaction")
    assert state is not None
    assert state.attributes["event_type"] == "tap"
    assert state.attributes["x"] == 5
    await garage.tell(f"{DEVICE}/system/error", {**said, "message": "hot"})
    await garage.tell(f"{DEVICE}/system/error", {**said, "message": "hot"})
    state = garage.state("system")
    assert state is not None
    assert state.attributes["event_type"] == "error"
    assert state.attributes["event_types"] == ["other", "error"]
    await garage.restart()
    again = garage.state("system")
    assert again is not None
    assert (again.state, again.attributes) == (state.state, state.attributes)


async def test_restart(garage: Garage) -> None:
    """The last values are there at once after a restart, also without the broker."""
    await garage.start({"mark_stale": False})
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    await garage.broker.stop()
    await wait_until(lambda: not is_connected(garage.hass, garage.broker.port))
    await garage.restart()
    assert garage.value("field!temperature") == "25.6"
    assert garage.value("relay!0") == "on"
    assert garage.value("online") == "on"
    await garage.broker.start()
    await garage.connected()
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=26))
    assert garage.value("field!temperature") == "26"


async def test_marked_stale(garage: Garage) -> None:
    """Where the user wants that, what may be old is unavailable."""
    await garage.start({"mark_stale": True})
    await garage.tell(f"{DEVICE}/status", status(), retain=True)
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    assert garage.value("field!temperature") == "25.6"
    await garage.broker.stop()
    await wait_until(lambda: garage.value("field!temperature") == STATE_UNAVAILABLE)
    assert garage.value("online") == STATE_UNAVAILABLE
    await garage.broker.start()
    await wait_until(lambda: garage.value("field!temperature") == "25.6")
    assert garage.value("online") == "on"
