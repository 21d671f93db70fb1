"""One way of hearing what controllers say, in a Home Assistant core of its own.

    python -m benchmarks.monitor WAY PORT [SETTINGS]

WAY is `monitor` (one of BLE Bridge; SETTINGS of its subentry are JSON), `without_entities` (the
same, without Home Assistant's platforms), `with_recorder` (with Home Assistant's recorder, which
writes to SQLite), `paho` (in its own thread, with `json.loads` in `on_message`),
`async_subscribe` (Home Assistant's MQTT integration, with `json_loads` in the callback) or
`mqtt_sensors` (its sensors, one for each value of so many devices, by discovery).

It reads one JSON object a line. `{"do": "start"}` sets it up; where `"devices"` are given, it
waits until all of them have all their states, and prints what the loop needed for it; `"restart"`
unloads before. `"listen"` begins to count, and `{"do": "hear", "count"}` then waits for so many
messages, and prints how many there were, the states that changed, and what it took; with
`"profile"` also where the time went. `"check"` and `"save"` do what timers do,
`"away"` and `"back"` wait until all states of `"devices"` are unavailable, or not; `"forget"` has
the monitor watch something else. `"memory"` prints that of the process, `"backlog"` what the
recorder has yet to write; `"settle"` waits until that is nothing.
"""

import asyncio
from contextlib import AsyncExitStack
from cProfile import Profile
import gc
import io
import json
from pstats import SortKey, Stats
import sys
import time
from types import MappingProxyType
from typing import Any, Final, Protocol
from unittest.mock import patch

from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import EVENT_STATE_CHANGED, STATE_UNAVAILABLE
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.helpers import recorder
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from homeassistant.util.json import json_loads
import orjson
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.monitors.monitor import Monitor
from custom_components.ble_bridge.monitors.monitors import Monitors

from .controllers import SENSORS, VALUES, name
from .core import LoopMeter, bridge_entry, follow, home_assistant, measured, resident_mb

FILTERS: Final = ("autocore/+/status", "autocore/+/telemetry")
# The states of a device that tells its status and telemetry, but for when it was last seen.
ENTITIES: Final = (
    "binary_sensor.{}_connectivity",
    *(
        f"sensor.{{}}_{key}"
        for key in (*VALUES, "device_status", "ip_address", "running_since")
    ),
)
PATIENCE: Final = 120.0
SILENCE: Final = 5.0
GATHERED: Final = 3.0  # How long the MQTT integration may gather subscriptions
FUNCTIONS: Final = 45


class Way(Protocol):
    """A way of hearing."""

    @property
    def heard(self) -> int:
        """Return how many messages were taken."""

    async def start(self) -> None:
        """Begin to listen."""


class Paho:
    """paho in its own thread, as most programs use it."""

    def __init__(self, port: int) -> None:
        """Initialize."""
        self.heard = 0
        self.last: dict[str, Any] = {}
        self._port = port

    async def start(self) -> None:
        """Connect and subscribe."""
        subscribed = asyncio.Event()
        loop = asyncio.get_running_loop()
        client = Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.on_message = self._on_message

        @client.subscribe_callback()
        def on_subscribe(*_: object) -> None:
            loop.call_soon_threadsafe(subscribed.set)

        client.connect("127.0.0.1", self._port)
        client.subscribe([(topic, 1) for topic in FILTERS])
        client.loop_start()
        await subscribed.wait()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.last[message.topic] = json.loads(message.payload)
        self.heard += 1


async def connect_mqtt(hass: HomeAssistant, port: int) -> None:
    """Set up Home Assistant's MQTT integration."""
    entry = MockConfigEntry(
        domain="mqtt",
        data={"broker": "127.0.0.1", "port": port, "protocol": "5"},
        version=mqtt.CONFIG_ENTRY_VERSION,
        minor_version=mqtt.CONFIG_ENTRY_MINOR_VERSION,
    )
    entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entry.entry_id)
    while not mqtt.is_connected(hass):
        await asyncio.sleep(0.01)


class AsyncSubscribe:
    """Home Assistant's MQTT integration, asked to call back."""

    def __init__(self, hass: HomeAssistant, port: int) -> None:
        """Initialize."""
        self.heard = 0
        self.last: dict[str, Any] = {}
        self._hass = hass
        self._port = port

    async def start(self) -> None:
        """Set up the integration, and subscribe."""
        await connect_mqtt(self._hass, self._port)
        for topic in FILTERS:
            await mqtt.async_subscribe(self._hass, topic, self._on_message, qos=1)
        await asyncio.sleep(GATHERED)

    @callback
    def _on_message(self, message: mqtt.ReceiveMessage) -> None:
        self.last[message.topic] = json_loads(message.payload)
        self.heard += 1


class Changes:
    """Counts the states that change, as a listener of Home Assistant's bus does."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Begin to count."""
        self.count = 0
        hass.bus.async_listen(EVENT_STATE_CHANGED, self._on_state)

    @callback
    def _on_state(self, _event: Event[EventStateChangedData]) -> None:
        self.count += 1


class MqttSensors:
    """Sensors of Home Assistant's MQTT integration, one for each value of telemetry."""

    def __init__(self, hass: HomeAssistant, port: int, changes: Changes) -> None:
        """Initialize."""
        self._hass = hass
        self._port = port
        self._changes = changes

    async def start(self) -> None:
        """Set up the integration, and have it discover the sensors."""
        hass = self._hass
        await connect_mqtt(hass, self._port)
        for device in map(name, range(SENSORS)):
            for value in VALUES:
                await mqtt.async_publish(
                    hass,
                    f"homeassistant/sensor/{device}/{value}/config",
                    orjson.dumps(
                        {
                            "name": value,
                            "unique_id": f"{device}_{value}",
                            "state_topic": f"autocore/{device}/telemetry",
                            "value_template": f"{{{{ value_json.{value} }}}}",
                            "state_class": "measurement",
                            "device": {"identifiers": [device], "name": device},
                        }
                    ),
                    retain=True,
                )
        async with asyncio.timeout(PATIENCE):
            while hass.states.async_entity_ids_count("sensor") < SENSORS * len(VALUES):
                await asyncio.sleep(0.1)
        await asyncio.sleep(GATHERED)

    @property
    def heard(self) -> int:
        """Return how many messages were taken: each has changed all values."""
        return self._changes.count // len(VALUES)


class BleBridge:
    """A monitor of BLE Bridge."""

    def __init__(
        self, hass: HomeAssistant, port: int, settings: dict[str, Any]
    ) -> None:
        """Initialize."""
        self._hass = hass
        self._entry = bridge_entry(port)
        self._entry.add_to_hass(hass)
        (destination,) = self._entry.subentries
        hass.config_entries.async_add_subentry(
            self._entry,
            ConfigSubentry(
                data=MappingProxyType(
                    {
                        "preset": "autocore",
                        "destination": destination,
                        "topic_base": "autocore",
                        "max_devices": 1_000,
                        **settings,
                    }
                ),
                subentry_type="monitor",
                title="Garage",
                unique_id=None,
            ),
        )

    @property
    def _monitors(self) -> Monitors:
        """Return the monitors."""
        monitors: Monitors = self._entry.runtime_data.monitors
        return monitors

    @property
    def monitor(self) -> Monitor:
        """Return the monitor."""
        (monitor,) = self._monitors.by_id.values()
        return monitor

    @property
    def heard(self) -> int:
        """Return how many messages were read, whether they were understood or not."""
        return self.monitor.processed + self.rejected

    @property
    def rejected(self) -> int:
        """Return how many were not understood."""
        return self.monitor.dead_letters.total

    async def start(self) -> None:
        """Set the entry up, and wait until it hears."""
        await self._hass.config_entries.async_setup(self._entry.entry_id)
        while not self.monitor.is_connected:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Unload the entry, which saves the state."""
        await self._hass.config_entries.async_unload(self._entry.entry_id)

    async def complete(self, devices: int, *, shown: bool = True) -> None:
        """Wait until all devices have all states, and they are available, or are not."""
        pending = list(range(devices))
        async with asyncio.timeout(PATIENCE):
            while pending:
                while pending and self._is_complete(name(pending[-1]), shown=shown):
                    pending.pop()
                await asyncio.sleep(0.01)

    def _is_complete(self, device: str, *, shown: bool) -> bool:
        """Tell whether a device has all of its states."""
        states = (
            self._hass.states.get(entity.format(device.lower())) for entity in ENTITIES
        )
        return all(
            state is not None and (state.state != STATE_UNAVAILABLE) is shown
            for state in states
        )

    async def check(self) -> None:
        """See which devices are silent."""
        self._monitors._on_check(dt_util.utcnow())

    async def save(self) -> None:
        """Write what is known."""
        await self._monitors._on_save(dt_util.utcnow())

    async def forget(self) -> None:
        """Watch something else, and wait until nothing is left of the devices."""
        (subentry,) = (
            subentry
            for subentry in self._entry.subentries.values()
            if subentry.subentry_type == "monitor"
        )
        self._hass.config_entries.async_update_subentry(
            self._entry, subentry, data={**subentry.data, "topic_base": "other"}
        )
        async with asyncio.timeout(PATIENCE):
            while any(
                entity.startswith("binary_sensor.esp32_")
                for entity in self._hass.states.async_entity_ids("binary_sensor")
            ):
                await asyncio.sleep(0.1)


class Hearing:
    """What is measured while messages come."""

    def __init__(self, way: Way, changes: Changes) -> None:
        """Begin to count, and to measure."""
        gc.collect()
        self._way = way
        self._changes = changes
        self._heard = way.heard
        self._rejected = getattr(way, "rejected", 0)
        self._changed = changes.count
        self._meter = LoopMeter(turns=False)
        self._meter.__enter__()
        self._cpu = time.process_time()

    async def result(self, count: int, *, profile: bool = False) -> dict[str, Any]:
        """Wait for so many messages, or until no more come; times in seconds."""
        way, profiler = self._way, Profile()
        if profile:
            profiler.enable()
        last, since = self._heard, time.monotonic()
        began = None
        while way.heard - self._heard < count:
            await asyncio.sleep(0.005)
            if way.heard != last:
                last, since = way.heard, time.monotonic()
                began = since if began is None else began
            elif time.monotonic() - since > SILENCE:
                break
        wall = time.monotonic() - (began or since)
        cpu = time.process_time() - self._cpu
        profiler.disable()
        await asyncio.sleep(0.02)
        self._meter.__exit__()
        text = io.StringIO()
        if profile:
            stats = Stats(profiler, stream=text).strip_dirs()
            stats.sort_stats(SortKey.TIME).print_stats(FUNCTIONS)
        return {
            "profile": text.getvalue(),
            **self._meter.figures(),
            "heard": way.heard - self._heard,
            "rejected": getattr(way, "rejected", 0) - self._rejected,
            "changed": self._changes.count - self._changed,
            "cpu": cpu,
            "wall": wall,
        }


async def main(way_name: str, port: int, settings: str = "{}") -> None:
    """Set up, then carry out orders until the input ends."""
    async with AsyncExitStack() as stack:
        hass = await stack.enter_async_context(home_assistant())
        changes = Changes(hass)
        ways: dict[str, Any] = {
            "paho": lambda: Paho(port),
            "async_subscribe": lambda: AsyncSubscribe(hass, port),
            "mqtt_sensors": lambda: MqttSensors(hass, port, changes),
        }
        if way_name == "with_recorder":
            recorder.async_initialize_recorder(hass)
            url = f"sqlite:///{hass.config.path('home-assistant_v2.db')}"
            await async_setup_component(hass, "recorder", {"recorder": {"db_url": url}})
        if way_name == "without_entities":
            stack.enter_context(patch("custom_components.ble_bridge.PLATFORMS", []))
        way: Any = ways.get(
            way_name, lambda: BleBridge(hass, port, json.loads(settings))
        )()
        hearing: Hearing | None = None

        async def start(devices: int) -> None:
            await way.start()
            if devices:
                await way.complete(devices)

        async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            nonlocal hearing
            devices = order.pop("devices", 0)
            match order.pop("do"):
                case "start":
                    return await measured(lambda: start(devices))
                case "restart":
                    stopped = await measured(way.stop)
                    return {**await measured(lambda: start(devices)), "stop": stopped}
                case "listen":
                    hearing = Hearing(way, changes)
                    return {}
                case "hear":
                    assert hearing is not None  # noqa: S101
                    return await hearing.result(**order)
                case "check":
                    return await measured(way.check)
                case "save":
                    return await measured(way.save)
                case "away":
                    return await measured(lambda: way.complete(devices, shown=False))
                case "back":
                    return await measured(lambda: way.complete(devices))
                case "forget":
                    return await measured(way.forget)
                case "backlog":
                    return {"backlog": recorder.get_instance(hass).backlog}
                case "settle":
                    while recorder.get_instance(hass).backlog:
                        await asyncio.sleep(0.1)
                    return {}
                case _:
                    await hass.async_block_till_done()
                    return {"memory": resident_mb()}

        await follow(carry_out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
