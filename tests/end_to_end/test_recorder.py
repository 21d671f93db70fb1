"""What monitored devices say, in the database of a whole Home Assistant."""

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby, pairwise
import json
from pathlib import Path
import re
from types import MappingProxyType
from typing import Any, Final

from homeassistant.config_entries import (
    STORAGE_VERSION,
    STORAGE_VERSION_MINOR,
    ConfigSubentry,
)
from homeassistant.helpers.json import json_bytes
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
import pytest

from scripts.simulation.broker import Mosquitto
from scripts.simulation.home_assistant import HomeAssistantProcess, stored
from scripts.simulation.processes import LOOPBACK

from ..conftest import bridge_entry, destination_data, wait_until
from ..monitors.garage import DEVICE, moment, relay, status, telemetry
from ..recorder import Database, Recorded
from .conftest import complaints
from .test_devices import expect

PREFIX: Final = DEVICE.lower()
OTHER_IP: Final = "192.168.1.101"
# What happens twice in a row is no change.
MODES: Final = ("eco", "boost", "boost", "Ferien 🌴", "eco")
DOORS: Final = (False, False, True, True, False)
SWITCHED: Final = (
    *((True, "manual"), (True, "schedule"), (True, "schedule")),
    *((False, "rule"), (True, "manual")),
)
ACTIONS: Final = ("tap", "swipe", "swipe")
EXPECTED: Final = {
    "binary_sensor.connectivity": ["on", "off", "on"],
    "binary_sensor.door": ["off", "on", "off"],
    "binary_sensor.relay_0": ["on", "on", "off", "on"],
    "binary_sensor.relay_1": ["off"],
    "sensor.humidity": ["45.2"],
    "sensor.ip_address": ["192.168.1.100", OTHER_IP],
    "sensor.memory_free": ["45120"],
    "sensor.mode": ["eco", "boost", "Ferien 🌴", "eco"],
    "sensor.device_status": ["online", "Offline", "online"],
    "sensor.temperature": ["20.0", "20.5", "21.0", "21.5", "22.0"],
    "sensor.voltage": ["3.28"],
}
# Their states are times.
TIMES: Final = {
    *("event.interaction", "event.system_message"),
    *("sensor.last_seen", "sensor.running_since"),
}


class Controller:
    """A controller in the garage."""

    def __init__(self, client: Client) -> None:
        """Initialize a controller that speaks over a connection."""
        self._client = client

    def say(self, topic: str, payload: dict[str, Any], *, retain: bool = False) -> None:
        """Say something; it is delivered in this order."""
        self._client.publish(
            f"autocore/{DEVICE}/{topic}", json.dumps(payload), qos=1, retain=retain
        )

    def play(self) -> None:
        """Say all that is expected in the end."""
        for number, (mode, door) in enumerate(zip(MODES, DOORS, strict=True)):
            said = telemetry(temperature=20 + number / 2, mode=mode, door=door)
            self.say("telemetry", said)
            self.say("telemetry", said)
        for state, triggered_by in SWITCHED:
            self.say("relay/0/status", relay(state=state, triggered_by=triggered_by))
            self.say("relay/1/status", relay(1, state=False))
        said = {"device_id": DEVICE, "timestamp": moment()}
        for action in ACTIONS:
            self.say("display/interaction", {**said, "action": action, "x": 5})
        self.say("system/error", {**said, "message": "hot"})
        self.say("system/boot", {**said, "reason": "power"})
        self.say("status", status(status="Offline"), retain=True)
        self.say("status", status(ip_address=OTHER_IP), retain=True)


@pytest.fixture(name="controller")
def controller_fixture(broker: Mosquitto) -> Iterator[Controller]:
    """Return a controller that is connected."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect(LOOPBACK, broker.port)
    client.loop_start()
    yield Controller(client)
    client.disconnect()
    client.loop_stop()


def set_up(config_dir: Path, port: int) -> None:
    """Have a Home Assistant that has a bridge, whose monitor watches the garage."""
    entry = bridge_entry(destination_data(port, raw=False))
    (destination_id,) = entry.subentries
    monitor = ConfigSubentry(
        data=MappingProxyType(
            {
                "preset": "autocore",
                "destination": destination_id,
                "topic_base": "autocore",
                "critical_relays": [f"{DEVICE}/0"],
            }
        ),
        subentry_type="monitor",
        title="Garage",
        unique_id=None,
    )
    kept = entry.as_dict()
    kept["subentries"] = [*kept["subentries"], monitor.as_dict()]
    content = stored(
        "core.config_entries",
        STORAGE_VERSION,
        STORAGE_VERSION_MINOR,
        {"entries": [kept]},
    )
    storage = config_dir / ".storage"
    storage.mkdir()
    (storage / content["key"]).write_bytes(json_bytes(content))


@pytest.fixture(name="home_assistant")
async def home_assistant_fixture(
    tmp_path: Path, broker: Mosquitto, database: Database
) -> AsyncIterator[HomeAssistantProcess]:
    """Return a running Home Assistant that watches, and records in the database."""
    set_up(tmp_path, broker.port)
    configuration = f"recorder:\n  db_url: {database.url}\n  commit_interval: 1\n"
    async with HomeAssistantProcess(
        tmp_path, configuration=configuration
    ) as home_assistant:
        yield home_assistant


def states(database: Database) -> dict[str, list[Recorded]]:
    """Return what was recorded of the device, by domain and name."""
    return {
        entity_id.replace(f".{PREFIX}_", "."): rows
        for entity_id, rows in database.states(f"%.{PREFIX}_%").items()
    }


async def recorded(
    database: Database, entity: str, state: str
) -> dict[str, list[Recorded]]:
    """Return what was recorded of the device, once an entity was in some state."""
    found: dict[str, list[Recorded]] = {}

    def is_there() -> bool:
        found.update(states(database))
        return any(row.state == state for row in found.get(entity, ()))

    await wait_until(is_there, 30)
    return found


def changes(rows: Sequence[Recorded]) -> list[tuple[str, dict[str, Any]]]:
    """Return what states were one after another."""
    return [shown for shown, _ in groupby((row.state, row.attributes) for row in rows)]


def said(rows: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Return the attributes of events."""
    return [
        {key: row.attributes[key] for key in row.attributes if key != "friendly_name"}
        for row in rows
        if row.state != "unknown"
    ]


def check(found: dict[str, list[Recorded]]) -> None:
    """See that what was recorded is what happened: each change, in order, and once."""
    assert found.keys() == EXPECTED.keys() | TIMES
    assert {
        entity: [row.state for row in found[entity]] for entity in EXPECTED
    } == EXPECTED
    for entity, rows in found.items():
        assert len(changes(rows)) == len(rows), entity
        for before, after in pairwise(rows):
            assert before.updated < after.updated, entity
    switched = found["binary_sensor.relay_0"]
    assert [
        (row.attributes["index"], row.attributes["triggered_by"]) for row in switched
    ] == [("0", "manual"), ("0", "schedule"), ("0", "rule"), ("0", "manual")]
    # Something else triggered it, but it was on before
    assert switched[1].changed == pytest.approx(switched[0].updated, abs=1e-5)
    assert said(found["event.interaction"]) == [
        {"event_type": action, "x": 5} for action in ACTIONS
    ]
    assert said(found["event.system_message"]) == [
        {"event_type": "error", "message": "hot"},
        {"event_type": "boot", "reason": "power"},
    ]


async def check_history(
    home_assistant: HomeAssistantProcess, found: dict[str, list[Recorded]]
) -> None:
    """See that Home Assistant's history shows what was recorded."""
    history = await home_assistant.ws(
        "history/history_during_period",
        start_time="2020-01-01T00:00:00Z",
        entity_ids=[entity.replace(".", f".{PREFIX}_") for entity in found],
        significant_changes_only=False,
    )
    assert {
        entity_id.replace(f".{PREFIX}_", "."): [
            (shown["s"], shown["a"], shown["lu"]) for shown in shown_states
        ]
        for entity_id, shown_states in history.items()
    } == {
        entity: [(row.state, row.attributes, row.updated) for row in rows]
        for entity, rows in found.items()
    }


async def test_recorder(
    home_assistant: HomeAssistantProcess, database: Database, controller: Controller
) -> None:
    """Every change is recorded once, over a restart too, until the user lets it go."""
    controller.say("status", status(), retain=True)
    await expect(home_assistant, f"sensor.{PREFIX}_device_status", "online")
    controller.play()
    found = await recorded(database, "sensor.ip_address", OTHER_IP)
    check(found)
    await check_history(home_assistant, found)
    assert [
        (event["device"], event["relay"], event["state"], event["triggered_by"])
        for event in database.events("ble_bridge_relay")
    ] == [(DEVICE, "0", "off", "rule"), (DEVICE, "0", "on", "manual")]
    metrics = await home_assistant.get("/api/ble_bridge/metrics")
    assert re.search(r"^ble_bridge_recorder_backlog \d", metrics, re.MULTILINE)

    # What is restored is what it was
    await home_assistant.stop()
    controller.say("telemetry", telemetry(temperature=30.5), retain=True)
    await home_assistant.start()
    await recorded(database, "sensor.temperature", "30.5")
    await wait_until(
        lambda: all(
            len(rows) > len(found[key]) for key, rows in states(database).items()
        )
    )
    again = states(database)
    for entity, rows in again.items():
        if entity not in {"sensor.temperature", "sensor.last_seen"}:
            assert changes(rows) == changes(found[entity])
            assert len(rows) == len(found[entity]) + 1
    before = [row.state for row in found["sensor.temperature"]]
    after = [state for state, _ in changes(again["sensor.temperature"])]
    assert after == [*before, "30.5"]
    await check_history(home_assistant, again)
    shown = await home_assistant.get("/api/states/sensor.garage_recorder_backlog")
    assert int(shown["state"]) >= 0

    # Let go, the monitor goes on
    await home_assistant.post("/api/services/recorder/purge", {"keep_days": 0})
    await wait_until(lambda: not states(database), 30)
    assert database.events("ble_bridge_relay") == []
    await expect(home_assistant, f"binary_sensor.{PREFIX}_relay_0", "on")
    controller.say("telemetry", telemetry(temperature=31.5))
    found = await recorded(database, "sensor.temperature", "31.5")
    assert [row.state for row in found["sensor.temperature"]] == ["31.5"]
    assert complaints(home_assistant) == []
    assert not re.findall(
        r".*(?:ERROR|WARNING).*components\.recorder.*", home_assistant.log_tail(100_000)
    )
