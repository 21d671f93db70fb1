"""A fleet of controllers and a monitor: what they say, and what Home Assistant makes of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import groupby
import sqlite3
from typing import Any

from scripts.simulation.broker import Mosquitto
from scripts.simulation.fleet import BASE, Controller, Fleet
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.subscriber import Message, Subscriber

from .conftest import add_bridge, complaints

SIZE = 50
TIMEOUT = 6
# What Home Assistant shows: state, and attributes.
type Shown = tuple[str, dict[str, Any]]


@dataclass
class Garage:
    """A fleet, and the monitor that watches it."""

    home_assistant: HomeAssistantProcess
    fleet: Fleet
    entry_id: str
    monitor_id: str = ""

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """Let the controllers live; at the end the broker has all that they said."""
        playing = asyncio.create_task(self.fleet.play())
        try:
            yield
        finally:
            playing.cancel()
        await self.fleet.wait_connected()
        await self.fleet.settle()

    async def add_monitor(self) -> None:
        """Add the monitor through its forms, while the controllers live."""
        async with self.playing():
            heard = await self.home_assistant.subentry_flow(
                self.entry_id,
                "monitor",
                {"next_step_id": "autocore"},
                {"name": "Garage", "timeout": TIMEOUT, "max_devices": SIZE},
            )
        assert heard["step_id"] == "heard", heard
        told = heard["description_placeholders"]
        assert int(told["devices"]) >= SIZE
        assert int(told["messages"]) > SIZE
        assert "JSON" in told["rejected"]
        result = await self.home_assistant.answer(
            "subentries/flow", heard, {"next_step_id": "save"}
        )
        assert result["type"] == "create_entry", result
        subentries = await self.home_assistant.ws(
            "config_entries/subentries/list", entry_id=self.entry_id
        )
        (self.monitor_id,) = [
            subentry["subentry_id"]
            for subentry in subentries
            if subentry["subentry_type"] == "monitor"
        ]

    async def monitor(self, *, connected: bool = True) -> Any:
        """Return what the monitor says of itself, once it listens, or does not."""
        async with asyncio.timeout(30):
            while True:
                found = await self.home_assistant.diagnostics(self.entry_id)
                for monitor in found.get("monitors", ()):
                    if monitor["connected"] is connected:
                        return monitor
                await asyncio.sleep(0.1)

    async def counts(self) -> tuple[int, dict[str, int]]:
        """Return how many messages the monitor understood, and those it did not."""
        monitor = await self.monitor()
        assert monitor["queue"]["overflow"] == 0
        return monitor["messages"], monitor["dead_letters"]["by_reason"]

    async def expect_counts(self, known: int, letters: dict[str, int]) -> None:
        """Wait until the monitor has read all that was said, and see it read no more."""
        expected = known + self.fleet.valid, Counter(letters) + self.fleet.malformed
        found: Any = None
        for _ in range(100):
            if (found := await self.counts()) == expected:
                break
            await asyncio.sleep(0.1)
        assert found == expected
        await asyncio.sleep(0.5)
        assert await self.counts() == expected

    async def settled(self) -> tuple[int, dict[str, int]]:
        """Have all say everything, and return the counts once that is shown."""
        for controller in self.fleet.controllers:
            self.fleet.say_all(controller)
            for relay in controller.relays:
                self.fleet.switch(controller, relay, "schedule")
        await self.fleet.settle()
        await self.expect_shown()
        self.fleet.sent.clear()
        self.fleet.malformed.clear()
        return await self.counts()

    # --- what a user sees ---------------------------------------------------------------

    async def entities(self) -> dict[str, str]:
        """Return the entities of the controllers, by controller and key."""
        registry = await self.home_assistant.ws("config/entity_registry/list")
        prefix = f"{self.monitor_id}_ESP32"
        return {
            entity["unique_id"].removeprefix(f"{self.monitor_id}_"): entity["entity_id"]
            for entity in registry
            if entity["unique_id"].startswith(prefix) and not entity["disabled_by"]
        }

    async def shown(self) -> dict[str, Shown]:
        """Return what is shown of the controllers, by controller and key."""
        states = {
            state["entity_id"]: (state["state"], state["attributes"])
            for state in await self.home_assistant.ws("get_states")
        }
        return {
            key: states[entity_id]
            for key, entity_id in (await self.entities()).items()
            if entity_id in states
        }

    async def expect_shown(self) -> None:
        """Wait until all that the controllers said last is shown."""
        wrong: list[str] = []
        for _ in range(60):
            shown = await self.shown()
            wrong = [
                line
                for controller in self.fleet.controllers
                for line in differences(controller, shown)
            ]
            if not wrong:
                return
            await asyncio.sleep(0.5)
        raise AssertionError("\n".join(wrong[:20]))

    async def expect_offline(self, gone: Iterable[Controller]) -> None:
        """Wait until these controllers are offline, and all others are not."""
        expected = {
            controller.id: "off" if controller in gone else "on"
            for controller in self.fleet.controllers
        }
        found: dict[str, str] = {}
        for _ in range(120):
            shown = await self.shown()
            found = {name: shown[f"{name}_online"][0] for name in expected}
            if found == expected:
                return
            await asyncio.sleep(0.5)
        assert found == expected

    async def expect_devices(self) -> None:
        """See that each controller is a device, and nothing else is."""
        registry = await self.home_assistant.ws("config/device_registry/list")
        found = {
            device["name"]: (device["sw_version"], device["configuration_url"])
            for device in registry
            if any(
                identifier.startswith(f"{self.monitor_id}_")
                for _, identifier in device["identifiers"]
            )
        }
        assert found == {
            controller.id: (controller.firmware, f"http://{controller.ip}")
            for controller in self.fleet.controllers
        }

    async def expect_repair(self) -> None:
        """See the repair that tells of more devices than are wanted, and no other."""
        listed = await self.home_assistant.ws("repairs/list_issues")
        [repair] = [i for i in listed["issues"] if i["domain"] == "ble_bridge"]
        assert repair["translation_key"] == "monitor_full"
        assert repair["translation_placeholders"]["limit"] == str(SIZE)


def expected(controller: Controller) -> Iterable[tuple[str, Any, dict[str, Any]]]:
    """Yield what is to be shown of a controller: keys, states, and some attributes."""
    yield "status", controller.status, {}
    yield "ip", controller.ip, {}
    for name, value in controller.values.items():
        yield f"field!{name}", value, {}
    for index, (state, triggered_by) in controller.relays.items():
        yield f"relay!{index}", state, {"triggered_by": triggered_by}
    for kind, (event, values) in controller.events.items():
        yield kind, None, {"event_type": event, **values}


def differences(controller: Controller, shown: dict[str, Shown]) -> Iterable[str]:
    """Yield what is not shown as a controller said it."""
    for key, value, attributes in expected(controller):
        state, found = shown.get(f"{controller.id}_{key}", ("none", {}))
        told = {name: found.get(name) for name in attributes}
        if (value is not None and not is_same(state, value)) or told != attributes:
            yield f"{controller.id} {key}: {state} {told}, not {value} {attributes}"


def is_same(state: str, value: object) -> bool:
    """Tell whether a state is how Home Assistant writes a value."""
    if isinstance(value, bool):
        return state == ("on" if value else "off")
    if isinstance(value, str):
        return state == value
    try:
        return float(state) == value
    except ValueError:
        return False


def said(messages: Iterable[Message]) -> dict[str, list[object]]:
    """Return how values and relays changed, as somebody else on the broker heard it."""
    changes: dict[str, list[object]] = {}
    for message in messages:
        _, name, kind, *levels = message.topic.split("/")
        try:
            found = message.json()
        except ValueError:
            continue
        if not isinstance(found, dict) or found.get("device_id") != name:
            continue
        # What is malformed says no more than a temperature, or nothing of the relay
        if kind == "relay" and isinstance(found.get("state"), bool):
            if str(found["relay_index"]) == levels[0]:
                key = f"{name}_relay!{levels[0]}"
                changes.setdefault(key, []).append(found["state"])
        elif kind == "telemetry" and "rssi" in found:
            for field in found.keys() - {"device_id", "timestamp"}:
                changes.setdefault(f"{name}_field!{field}", []).append(found[field])
    return {
        key: [value for value, _ in groupby(values)] for key, values in changes.items()
    }


def recorded(
    home_assistant: HomeAssistantProcess, entities: dict[str, str]
) -> dict[str, list[str]]:
    """Return all states that the recorder's database has, by controller and key."""
    database = home_assistant.config_dir / "home-assistant_v2.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as recorder:
        rows = recorder.execute(
            "SELECT states_meta.entity_id, state FROM states"
            " JOIN states_meta USING (metadata_id) ORDER BY state_id"
        ).fetchall()
    by_entity: dict[str, list[str]] = {}
    for entity_id, state in rows:
        by_entity.setdefault(entity_id, []).append(state)
    return {
        key: [state for state, _ in groupby(by_entity.get(entity_id, ()))]
        for key, entity_id in entities.items()
    }


def is_within(changes: list[object], states: list[str]) -> bool:
    """Tell whether states have all changes, one after the other and nothing between."""
    return any(
        all(map(is_same, states[start : start + len(changes)], changes, strict=True))
        for start in range(len(states) - len(changes) + 1)
    )


async def test_fleet(home_assistant: HomeAssistantProcess, broker: Mosquitto) -> None:
    """Devices, states, history, wills and silence; the broker goes, and Home Assistant."""
    entry_id = await add_bridge(home_assistant, broker)
    async with (
        Subscriber(broker.port, f"{BASE}/#") as subscriber,
        Fleet(SIZE, broker.port, telemetry=1, malformed=5, faults=0) as fleet,
    ):
        garage = Garage(home_assistant, fleet, entry_id)
        await garage.add_monitor()
        fleet.sent.clear()
        fleet.malformed.clear()
        for controller in fleet.controllers:
            controller.events.clear()  # The broker does not keep them
        await garage.expect_counts(len(fleet.retained), {})
        await garage.expect_devices()

        # All that is said is read, shown and recorded, and what is malformed is counted
        known, letters = await garage.settled()
        begin = len(subscriber.messages)
        fleet.faults = 6
        async with garage.playing():
            await asyncio.sleep(4)
        fleet.faults = 0
        fleet.heal()
        await fleet.wait_connected()
        for controller in fleet.controllers[:10]:
            fleet.press(controller, 0)
            fleet.say_system(controller, "warning", "Supply voltage is low")
        await fleet.settle()
        assert fleet.sent["will"]
        await garage.expect_counts(known, letters)
        await garage.expect_shown()
        await garage.expect_devices()
        changes = said(subscriber.messages[begin:])
        assert len(changes) > 5 * SIZE
        await garage.expect_repair()

        # A will says who is gone; silence tells of who is frozen
        gone, frozen = fleet.controllers[:5], fleet.controllers[5:10]
        async with garage.playing():
            for controller in gone:
                fleet.die(controller)
            for controller in frozen:
                fleet.freeze(controller)
            await garage.expect_offline([*gone, *frozen])
            shown = await garage.shown()
            for controller in gone:
                assert shown[f"{controller.id}_status"][0] == "offline"
            for controller in frozen:
                assert shown[f"{controller.id}_status"][0] == "online"
                fleet.thaw(controller)
            await garage.expect_offline(gone)

            # The broker goes in the middle of it all
            await broker.kill()
            await garage.monitor(connected=False)
            for controller in gone:
                fleet.bring_back(controller)
            await broker.start()
            await fleet.wait_connected()
            await garage.monitor()
            await garage.expect_offline([])
        known, letters = await garage.settled()
        async with garage.playing():
            await asyncio.sleep(2)
        await garage.expect_counts(known, letters)
        await garage.expect_shown()

        # A restart while the broker is away: all is there before anything can be heard
        before = await garage.shown()
        await home_assistant.stop()
        await broker.stop()
        await home_assistant.start()
        after = await garage.shown()
        assert before.keys() == after.keys()
        for key, (state, attributes) in before.items():
            if not key.endswith(("_online", "_seen")):
                assert after[key] == (state, attributes), key
        await broker.start()
        await fleet.wait_connected()
        await garage.monitor()
        async with garage.playing():
            await garage.expect_offline([])
        await garage.settled()
        await garage.expect_devices()
        assert (await garage.entities()).keys() == after.keys()

        states = recorded(home_assistant, await garage.entities())
        assert [
            f"{key}: {states[key]}, not {run}"
            for key, run in changes.items()
            if not is_within(run, states[key])
        ] == []
    away = f"No connection to 127.0.0.1:{broker.port}"
    found = complaints(home_assistant)
    assert [line for line in found if away not in line] == []
    assert len(found) == 2
    log = home_assistant.log_tail(100_000).splitlines()
    assert not [line for line in log if BASE in line or "ESP32_" in line]
    assert len([line for line in log if "ble_bridge" in line]) < 30
