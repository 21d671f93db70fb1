"""What happens at devices: interactions, system messages, and critical relays."""

from typing import Any

from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import Event, EventStateChangedData, callback
from homeassistant.helpers import entity_registry as er
import orjson
import pytest

from ..conftest import wait_until
from .garage import DEVICE, Garage, moment, relay, status


def interaction(**changes: Any) -> dict[str, Any]:
    """Return what a display says when somebody touches it."""
    return {"device_id": DEVICE, "timestamp": moment(), "action": "tap", **changes}


def happened(garage: Garage) -> list[tuple[str, str, Any]]:
    """Return a list of the events that are shown from now on, and their number."""
    found: list[tuple[str, str, Any]] = []

    @callback
    def add(event: Event[EventStateChangedData]) -> None:
        state = event.data["new_state"]
        if state is not None and state.domain == "event" and state.state != "unknown":
            kind = state.entity_id.rpartition("_")[2]
            told = state.attributes
            found.append((kind, told["event_type"], told.get("number")))

    garage.hass.bus.async_listen(EVENT_STATE_CHANGED, add)
    return found


async def test_first_event(garage: Garage) -> None:
    """The very first thing that happens at a device is shown, and so are all that follow."""
    await garage.start()
    found = happened(garage)
    for number in range(5):
        payload = orjson.dumps(interaction(number=number))
        garage.monitor.on_message(
            f"autocore/{DEVICE}/display/interaction", payload, retained=False
        )
    garage.monitor.on_message(
        f"autocore/{DEVICE}/system/Boot", orjson.dumps(interaction()), retained=False
    )
    await wait_until(lambda: garage.monitor.processed == 6)
    await garage.hass.async_block_till_done()
    assert found == [
        *(("interaction", "tap", number) for number in range(5)),
        ("message", "boot", None),
    ]


async def test_event(garage: Garage) -> None:
    """An event shows what it is called, and what else was said; the last one stays."""
    await garage.start()
    await garage.tell(
        f"{DEVICE}/display/interaction",
        interaction(
            x=5, event_type="strange", icon="mdi:star", screen={"page": "home"}
        ),
    )
    state = garage.state("interaction")
    assert state is not None
    told = dict(state.attributes)
    for name in ("friendly_name", "event_types"):
        told.pop(name)
    assert told == {
        "event_type": "tap",
        "x": 5,
        "event_type_": "strange",
        "icon_": "mdi:star",
        "screen_page": "home",
    }
    await garage.restart()
    await garage.connected()
    again = garage.state("interaction")
    assert again is not None
    assert (again.state, again.attributes["event_type"]) == (state.state, "tap")
    for event, name in (("Long Press", "long_press"), (None, "interaction")):
        await garage.tell(f"{DEVICE}/display/interaction", interaction(action=event))
        state = garage.state("interaction")
        assert state is not None
        assert state.attributes["event_type"] == name
    assert garage.value("online") == "on"


async def test_kept_event(garage: Garage) -> None:
    """What the broker kept happened once, and does not happen again with each connection."""
    await garage.say(
        f"autocore/{DEVICE}/system/boot", interaction(), retain=True, qos=1
    )
    await garage.start()
    await wait_until(lambda: garage.monitor.processed)
    await garage.hass.async_block_till_done()
    assert garage.value("system") == "unknown"
    assert garage.value("online") is None


async def test_many_events(garage: Garage) -> None:
    """There are so many names and attributes, and no more, whatever is said."""
    await garage.start()
    for number in range(70):
        await garage.tell(
            f"{DEVICE}/system/kind{number}",
            {"timestamp": moment(), **{f"v{value}": value for value in range(50)}},
        )
    state = garage.state("system")
    assert state is not None
    assert state.attributes["event_type"] == "other"
    assert len(state.attributes["event_types"]) == 64
    assert sum(name.startswith("v") for name in state.attributes) == 32
    await garage.tell(f"{DEVICE}/system/kind7", {"timestamp": moment()})
    state = garage.state("system")
    assert state is not None
    assert state.attributes["event_type"] == "kind7"


async def test_disabled_event(garage: Garage) -> None:
    """An event that the user switched off costs nothing and is not in the way."""
    await garage.start()
    await garage.tell(f"{DEVICE}/system/boot", interaction())
    entity_id = garage.entity_id("system")
    assert entity_id is not None
    er.async_get(garage.hass).async_update_entity(
        entity_id, disabled_by=er.RegistryEntryDisabler.USER
    )
    await garage.restart()
    await garage.connected()
    await garage.tell(f"{DEVICE}/system/boot", interaction())
    assert garage.state("system") is None
    assert garage.monitor.processed == 1


# --- relays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("critical", "told"),
    [
        ([], []),
        ([f"{DEVICE}/1"], ["ESP32_001/1"]),
        (["*/0"], ["ESP32_001/0", "esp32_002/0"]),
        (["ESP32_*/*"], ["ESP32_001/0", "ESP32_001/1"]),
        (["*"], ["ESP32_001/0", "ESP32_001/1", "esp32_002/0"]),
        (["ESP32_00?/[1-9]", "nothing/5"], ["ESP32_001/1"]),
        ([f"{DEVICE}/10", DEVICE, "/0"], []),
    ],
)
async def test_critical_relays(
    garage: Garage, critical: list[str], told: list[str]
) -> None:
    """Those that the user names are told of when they change, and no others."""
    await garage.start({"critical_relays": critical})
    events: list[dict[str, Any]] = []

    @callback
    def add(event: Event[Any]) -> None:
        events.append(dict(event.data))

    garage.hass.bus.async_listen("ble_bridge_relay", add)
    for state in (True, True, False, False):
        for device, index in ((DEVICE, 0), (DEVICE, 1), ("esp32_002", 0)):
            await garage.tell(
                f"{device}/relay/{index}/status", relay(index, device, state=state)
            )
    assert [f"{event['device']}/{event['relay']}" for event in events] == told
    assert {event["state"] for event in events} <= {"off"}


async def test_critical_relay(garage: Garage) -> None:
    """The event says which relay of which device it is, and what triggered it."""
    await garage.start({"critical_relays": ["*"]})
    events: list[dict[str, Any]] = []

    @callback
    def add(event: Event[Any]) -> None:
        events.append(dict(event.data))

    garage.hass.bus.async_listen("ble_bridge_relay", add)
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/relay/2/status", relay(2, state="off"), retain=True)
    await garage.tell(f"{DEVICE}/relay/2/status", relay(2, triggered_by="app"))
    device = garage.device()
    assert device is not None
    assert events == [
        {
            "device": DEVICE,
            "device_name": DEVICE,
            "device_id": device.id,
            "monitor": "Garage",
            "relay": "2",
            "state": "on",
            "triggered_by": "app",
        }
    ]
    # One that changed while nobody was there is told of as soon as that is known
    assert await garage.hass.config_entries.async_unload(garage.entry.entry_id)
    await garage.say(
        f"autocore/{DEVICE}/relay/2/status", relay(2, state=0), retain=True, qos=1
    )
    assert await garage.hass.config_entries.async_setup(garage.entry.entry_id)
    await wait_until(lambda: len(events) == 2)
    assert events[1]["state"] == "off"


async def test_relay(garage: Garage) -> None:
    """What triggered a relay is shown also where it stays as it is."""
    await garage.start()
    for trigger in ("manual", "schedule", None):
        await garage.tell(f"{DEVICE}/relay/0/status", relay(triggered_by=trigger))
        state = garage.state("relay!0")
        assert state is not None
        assert state.state == "on"
        assert state.attributes["triggered_by"] == trigger
        assert state.name == f"{DEVICE} Relay 0"
