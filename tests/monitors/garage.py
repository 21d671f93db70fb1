"""A garage full of controllers, a broker, and a monitor that watches them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
import time
from types import MappingProxyType
from typing import Any, override

from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import HomeAssistant, State
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.util import dt as dt_util
import orjson
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
)

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.mqtt_connection import (
    ConnectionListener,
    MqttConnection,
    MqttConnector,
    MqttSettings,
)
from custom_components.ble_bridge.monitors.monitor import Monitor
from scripts.simulation.broker import Mosquitto

from ..conftest import bridge_entry, destination_data, wait_until

DEVICE = "ESP32_001"


def moment(offset: float = 0) -> str:
    """Return the time as devices write it, so many seconds from now."""
    moment = datetime.now(UTC) + timedelta(seconds=offset)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def status(device: str = DEVICE, **changes: Any) -> dict[str, Any]:
    """Return a status as the specification has it."""
    return {
        "device_id": device,
        "status": "online",
        "ip_address": "192.168.1.100",
        "firmware_version": "1.2.0",
        "uptime": 3600,
        "timestamp": moment(),
        **changes,
    }


def telemetry(device: str = DEVICE, **changes: Any) -> dict[str, Any]:
    """Return telemetry as the specification has it."""
    return {
        "device_id": device,
        "temperature": 25.6,
        "humidity": 45.2,
        "voltage": 3.28,
        "memory_free": 45120,
        "timestamp": moment(),
        **changes,
    }


def relay(index: int = 0, device: str = DEVICE, **changes: Any) -> dict[str, Any]:
    """Return the state of a relay as the specification has it."""
    return {
        "device_id": device,
        "relay_index": index,
        "state": True,
        "triggered_by": "manual",
        "timestamp": moment(),
        **changes,
    }


class Clock:
    """A clock that can be put forward; sockets go by the time of day."""

    def __init__(self) -> None:
        """Begin with the time of day."""
        self._ahead = 0.0
        self._stopped: tuple[float, float] | None = None

    def stop(self) -> None:
        """Have no time pass but what is said."""
        self._stopped = time.time(), time.monotonic()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += seconds

    def time(self) -> float:
        """Return Unix time (s)."""
        return (self._stopped[0] if self._stopped else time.time()) + self._ahead

    def monotonic(self) -> float:
        """Return a time (s) that nobody sets."""
        now = self._stopped[1] if self._stopped else time.monotonic()
        return now + self._ahead


class Told(ConnectionListener):
    """Takes note of what the broker has taken."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.written: set[int] = set()

    @override
    def on_written(self, mid: int) -> None:
        self.written.add(mid)

    @override
    def on_refused(self, mid: int, problem: Problem) -> None:
        """Take note of nothing: the test runs into its time limit."""

    @override
    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Nothing is subscribed to."""

    @override
    def on_subscribed(self, mid: int, problem: Problem | None) -> None:
        """Nothing is subscribed to."""

    @override
    def on_lost(self, problem: Problem) -> None:
        """Take note of nothing: who says something next connects again."""


@dataclass
class Garage:
    """A monitor, and what speaks to it."""

    hass: HomeAssistant
    broker: Mosquitto
    entry: MockConfigEntry = field(init=False)
    destination_ids: list[str] = field(init=False)
    _talker: MqttConnection | None = None
    _told: Told = field(default_factory=Told)

    async def start(
        self,
        *monitors: dict[str, Any],
        destination: dict[str, Any] | None = None,
        others: Iterable[dict[str, Any]] = (),
        devices: Iterable[dict[str, Any]] = (),
        connected: bool = True,
    ) -> None:
        """Set up a bridge with a destination, and monitors there; the usual one if none.

        There may be other destinations on the same broker, and devices of the user's.
        """
        self.entry = bridge_entry(
            *(
                destination_data(**{"port": self.broker.port, "raw": False, **changes})
                for changes in (destination or {}, *others)
            ),
            devices=devices,
        )
        self.destination_ids = [
            subentry.subentry_id
            for subentry in self.entry.subentries.values()
            if subentry.subentry_type == "destination"
        ]
        self.entry.add_to_hass(self.hass)
        for number, monitor in enumerate(monitors or ({},)):
            self.hass.config_entries.async_add_subentry(
                self.entry,
                ConfigSubentry(
                    data=MappingProxyType(self.data(**monitor)),
                    subentry_type="monitor",
                    title=f"Garage {number + 1}" if number else "Garage",
                    unique_id=None,
                ),
            )
        assert await self.hass.config_entries.async_setup(self.entry.entry_id)
        await self.hass.async_block_till_done()
        if connected:
            await self.connected()

    def data(self, at: int = 0, **changes: Any) -> dict[str, Any]:
        """Return the data of a monitor at one of the destinations, as the form makes them."""
        return {
            "preset": "autocore",
            "destination": self.destination_ids[at],
            "topic_base": "autocore",
            **changes,
        }

    @property
    def monitors(self) -> list[Monitor]:
        """Return the monitors."""
        return list(self.entry.runtime_data.monitors.by_id.values())

    @property
    def monitor(self) -> Monitor:
        """Return the only monitor."""
        (monitor,) = self.monitors
        return monitor

    @property
    def subentry(self) -> ConfigSubentry:
        """Return the subentry of the only monitor."""
        subentry: ConfigSubentry = self.entry.subentries[self.monitor.subentry_id]
        return subentry

    async def connected(self) -> None:
        """Wait until all monitors hear."""
        await wait_until(lambda: all(m.is_connected for m in self.monitors))

    async def restart(self) -> None:
        """Stop the bridge, and start it with what was kept."""
        await self.unload()
        await self.set_up()

    async def unload(self) -> None:
        """Stop the bridge, so that it keeps what it knows."""
        assert await self.hass.config_entries.async_unload(self.entry.entry_id)

    async def set_up(self) -> None:
        """Start the bridge that was stopped."""
        assert await self.hass.config_entries.async_setup(self.entry.entry_id)
        await self.hass.async_block_till_done()

    async def change(self, **changes: Any) -> None:
        """Change the only monitor, as its form does."""
        self.hass.config_entries.async_update_subentry(
            self.entry, self.subentry, data={**self.subentry.data, **changes}
        )
        await self.hass.async_block_till_done()
        await self.connected()

    async def close(self) -> None:
        """End what speaks, and the bridge."""
        if self._talker is not None:
            await self._talker.async_close()
        entry_id = self.entry.entry_id
        known = self.hass.config_entries.async_get_entry(entry_id)
        if known and self.entry.state.recoverable:
            await self.hass.config_entries.async_unload(self.entry.entry_id)

    # --- what devices say ---------------------------------------------------------------

    async def say(
        self, topic: str, payload: Any, *, retain: bool = False, qos: int = 0
    ) -> None:
        """Publish something on the broker; what is no bytes is JSON.

        At QoS 1 and 2, the broker has it then.
        """
        if self._talker is None or self._talker._closed.is_set():
            self._talker = await MqttConnector(
                MqttSettings(
                    host="127.0.0.1", port=self.broker.port, client_id="talker"
                )
            ).async_connect()
            self._talker.listener = self._told = Told()
        if not isinstance(payload, bytes):
            payload = orjson.dumps(payload)
        mid = self._talker.publish(topic, payload, qos=qos, retain=retain)
        if qos:
            await wait_until(lambda: mid in self._told.written)

    async def tell(
        self, topic: str, payload: Any, *, retain: bool = False, qos: int = 0
    ) -> None:
        """Publish something under the base, and wait until it was read, or was not."""
        before = self.judged
        await self.say(f"autocore/{topic}", payload, retain=retain, qos=qos)
        await wait_until(lambda: self.judged > before)
        await self.hass.async_block_till_done()

    @property
    def judged(self) -> int:
        """Return how many messages were read, whether understood or not."""
        return sum(m.processed + m.dead_letters.total for m in self.monitors)

    async def tick(self, seconds: float = 6) -> None:
        """Let timers run out."""
        async_fire_time_changed(
            self.hass, dt_util.utcnow() + timedelta(seconds=seconds)
        )
        await self.hass.async_block_till_done()

    # --- what a user sees ---------------------------------------------------------------

    def entity_id(self, key: str, device: str | None = DEVICE) -> str | None:
        """Return the entity of a device, or of the monitor, that goes by a key."""
        owner = self.monitors[0].subentry_id
        unique_id = f"{owner}_{device}_{key}" if device else f"{owner}_{key}"
        return next(
            (
                entity.entity_id
                for entity in self._entities
                if entity.unique_id == unique_id
            ),
            None,
        )

    @property
    def _entities(self) -> Iterable[er.RegistryEntry]:
        registry = er.async_get(self.hass)
        return er.async_entries_for_config_entry(registry, self.entry.entry_id)

    def state(self, key: str, device: str | None = DEVICE) -> State | None:
        """Return the state of an entity."""
        entity_id = self.entity_id(key, device)
        return self.hass.states.get(entity_id) if entity_id else None

    def value(self, key: str, device: str | None = DEVICE) -> str | None:
        """Return what an entity shows."""
        state = self.state(key, device)
        return state.state if state else None

    def device(self, device: str = DEVICE) -> dr.DeviceEntry | None:
        """Return a device as Home Assistant lists it."""
        return dr.async_get(self.hass).async_get_device_by_identifier(
            (DOMAIN, f"{self.monitors[0].subentry_id}_{device}"), self.entry.entry_id
        )
