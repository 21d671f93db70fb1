"""Devices of the user's in a home: what they say, and what becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
import itertools
import time
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from habluetooth.const import UNAVAILABLE_TRACK_SECONDS
from homeassistant.components.bluetooth import MONOTONIC_TIME
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import Event, HomeAssistant, State, callback
from homeassistant.helpers import entity_registry as er, issue_registry as ir
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
)

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnection,
    MqttConnector,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Message, Subscriber

from ..conftest import (
    SimulatedScanner,
    destination_data,
    device_subentry,
    is_connected,
    wait_until,
)
from ..layouts.samples import structure

ADDRESS = "A4:C1:38:AA:BB:CC"
SECOND = "A4:C1:38:AA:BB:DD"
MARKER = "C0:00:00:00:FF:FF"
KEY = "231d39c1d7cc1ab1aee224cd096db932"
IRK = bytes.fromhex("ec0234a357c8ad05341010a60a397d9b")
BALCONY = {"address": ADDRESS, "alias": "Balcony"}
FIELDS, VALUES = "telemetry/balcony", "iiot/balcony"


# --- what devices say -------------------------------------------------------------------


def bthome(
    *,
    packet_id: int | None = None,
    battery: int | None = None,
    temperature: float | None = None,
    humidity: float | None = None,
    door: bool | None = None,
    button: int | None = None,
    text: str | None = None,
    name: str = "",
    sleepy: bool = False,
) -> bytes:
    """Return a packet of BTHome 2, perhaps of a device that sends when it has to."""
    return _packet(
        (b"\x44" if sleepy else b"\x40")
        + _objects(packet_id, battery, temperature, humidity, door, button, text),
        name,
    )


def _objects(
    packet_id: int | None,
    battery: int | None,
    temperature: float | None,
    humidity: float | None,
    door: bool | None,
    button: int | None,
    text: str | None,
) -> bytes:
    data = b"" if packet_id is None else bytes([0x00, packet_id & 0xFF])
    if battery is not None:
        data += bytes([0x01, battery])
    if temperature is not None:
        data += b"\x02" + round(temperature * 100).to_bytes(2, "little", signed=True)
    if humidity is not None:
        data += b"\x03" + round(humidity * 100).to_bytes(2, "little")
    if door is not None:
        data += bytes([0x1A, door])
    if button is not None:
        data += bytes([0x3A, button])
    if text is not None:
        data += bytes([0x53, len(text.encode())]) + text.encode()
    return data


def _packet(data: bytes, name: str = "") -> bytes:
    return (
        structure(1, b"\x06")
        + structure(0x16, b"\xd2\xfc" + data)
        + (structure(9, name.encode()) if name else b"")
    )


def encrypted(
    temperature: float, counter: int, key: str = KEY, address: str = ADDRESS
) -> bytes:
    """Return an encrypted packet of BTHome 2."""
    count = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(address.replace(":", "")) + b"\xd2\xfc\x41" + count
    data = _objects(None, None, temperature, None, None, None, None)
    sealed = AESCCM(bytes.fromhex(key), tag_length=4).encrypt(nonce, data, None)
    return _packet(b"\x41" + sealed[:-4] + count + sealed[-4:])


def ibeacon(major: int = 1) -> bytes:
    """Return a packet of an iBeacon, as phones send them too."""
    return structure(
        0xFF,
        b"\x4c\x00\x02\x15" + bytes(range(16)) + major.to_bytes(2) + b"\x00\x02\xc5",
    )


def rotating(irk: bytes, number: int) -> str:
    """Return a resolvable private address (Core specification, vol 6, part B, 1.3.2.2)."""
    prand = (number & 0x3FFFFF | 0x400000).to_bytes(3)
    # ECB of one block is the specification's function e
    cipher = Cipher(algorithms.AES(irk), modes.ECB()).encryptor()  # noqa: S305
    address = prand + cipher.update(bytes(13) + prand)[-3:]
    return address.hex(":").upper()


# --- what becomes of it -----------------------------------------------------------------


class Clock:
    """The time of the parts that judge by it, which tests move."""

    offset = 0.0

    def time(self) -> float:
        """Return Unix time in seconds."""
        return time.time() + self.offset

    def monotonic(self) -> float:
        """Return `CLOCK_MONOTONIC` in seconds."""
        return time.monotonic() + self.offset


@dataclass
class Home:
    """A home with a scanner and a broker, where devices are added."""

    hass: HomeAssistant
    broker: Mosquitto
    subscriber: Subscriber
    scanner: SimulatedScanner
    setup: Callable[..., Any]
    clock: Clock
    entry: MockConfigEntry = field(init=False)
    events: list[dict[str, Any]] = field(default_factory=list)
    _markers: Iterator[int] = field(default_factory=itertools.count)

    async def start(
        self,
        *devices: dict[str, Any],
        options: dict[str, Any] | None = None,
        **destination: Any,
    ) -> MockConfigEntry:
        """Set up the bridge; all layouts are on."""
        destination = {"values": {"enabled": True}, **destination}
        self.entry = await self.setup(
            destination_data(self.broker.port, **destination),
            devices=devices,
            options=options,
        )

        @callback
        def on_alert(event: Event) -> None:
            self.events.append(dict(event.data))

        self.hass.bus.async_listen("ble_bridge_alert", on_alert)
        return self.entry

    async def restart(self) -> None:
        """Stop the bridge, and start it with what was kept."""
        assert await self.hass.config_entries.async_unload(self.entry.entry_id)
        assert await self.hass.config_entries.async_setup(self.entry.entry_id)
        await self.connected()

    @asynccontextmanager
    async def back(self, *args: Any, **kwargs: Any) -> AsyncIterator[Subscriber]:
        """Have the broker back, and a subscriber that is there before BLE Bridge."""
        gate = asyncio.Event()
        connect = MqttConnector.async_connect

        async def wait(connector: MqttConnector) -> MqttConnection:
            await gate.wait()
            return await connect(connector)

        with patch.object(MqttConnector, "async_connect", wait):
            await self.broker.start()
            async with Subscriber(self.broker.port, *args, **kwargs) as subscriber:
                gate.set()
                yield subscriber

    async def connected(self) -> None:
        """Wait until nothing is to be done and the destination is connected."""
        await self.hass.async_block_till_done()
        await wait_until(lambda: is_connected(self.hass, self.broker.port))

    # --- devices ------------------------------------------------------------------------

    @property
    def devices(self) -> list[ConfigSubentry]:
        """Return the devices."""
        return self._subentries("device")

    @property
    def destination(self) -> ConfigSubentry:
        """Return the destination."""
        (destination,) = self._subentries("destination")
        return destination

    def _subentries(self, kind: str) -> list[ConfigSubentry]:
        return [
            subentry
            for subentry in self.entry.subentries.values()
            if subentry.subentry_type == kind
        ]

    async def add(self, data: dict[str, Any]) -> ConfigSubentry:
        """Add a device while the bridge runs."""
        made = device_subentry(data)
        subentry = ConfigSubentry(
            data=MappingProxyType(data),
            subentry_type="device",
            title=made["title"],
            unique_id=made["unique_id"],
        )
        self.hass.config_entries.async_add_subentry(self.entry, subentry)
        await self.hass.async_block_till_done()
        return subentry

    async def remove(self, device: ConfigSubentry) -> None:
        """Remove a device."""
        self.hass.config_entries.async_remove_subentry(self.entry, device.subentry_id)
        await self.hass.async_block_till_done()

    async def change(self, subentry: ConfigSubentry, **changes: Any) -> None:
        """Change what the user said of a device or destination."""
        self.hass.config_entries.async_update_subentry(
            self.entry,
            subentry,
            data={**subentry.data, **changes},
            title=changes.get("alias", subentry.title),
        )
        await self.hass.async_block_till_done()

    # --- packets ------------------------------------------------------------------------

    def hear(
        self,
        raw: bytes | None = None,
        address: str = ADDRESS,
        *,
        scanner: SimulatedScanner | None = None,
        age: float = 0,
        rssi: int = -50,
        **details: Any,
    ) -> None:
        """Hear one packet; without its bytes those of the next reading."""
        (scanner or self.scanner).hear(
            address,
            rssi,
            bthome(temperature=21.5) if raw is None else raw,
            age - self.clock.offset,
            **details,
        )

    async def settle(self) -> None:
        """Wait until all that was said so far has arrived at the subscriber."""
        await self.hass.async_block_till_done()
        # What is acknowledged one by one has a queue of its own, and is waited for first.
        await wait_until(
            lambda: (
                not self.entry.runtime_data.destinations[
                    self.destination.subentry_id
                ].outbox.waiting
            )
        )
        data = b"\xfe\xff" + next(self._markers).to_bytes(4)
        self.hear(structure(0xFF, data), MARKER)
        await self.subscriber.wait_for(
            lambda s: any(
                data[2:].hex().encode() in message.payload
                for message in s.on_topic(f"ble/raw/living-room-proxy/{MARKER}")
            )
        )

    async def tick(self, seconds: float = 1.1) -> None:
        """Let timers run out, and the time go on."""
        self.clock.offset += seconds
        async_fire_time_changed(
            self.hass, dt_util.utcnow() + timedelta(seconds=seconds)
        )
        await self.hass.async_block_till_done()

    @contextmanager
    def given_up(self, seconds: float = 1_000) -> Iterator[None]:
        """Have the stack give up what it has not heard lately."""
        now = MONOTONIC_TIME() + seconds
        with (
            patch("habluetooth.base_scanner.monotonic_time_coarse", return_value=now),
            patch("habluetooth.manager.monotonic_time_coarse", return_value=now),
        ):
            for due in (31, UNAVAILABLE_TRACK_SECONDS + 1):
                async_fire_time_changed(
                    self.hass, dt_util.utcnow() + timedelta(seconds=due)
                )
            yield

    # --- what a user sees ---------------------------------------------------------------

    def entity_id(self, key: str, device: ConfigSubentry | None = None) -> str | None:
        """Return the entity of a device (the first one) that goes by a key."""
        device = device or self.devices[0]
        unique_id = f"{device.subentry_id}_{key}"
        registry = er.async_get(self.hass)
        return next(
            (
                entity.entity_id
                for entity in er.async_entries_for_config_entry(
                    registry, self.entry.entry_id
                )
                if entity.unique_id == unique_id
            ),
            None,
        )

    def state(self, key: str, device: ConfigSubentry | None = None) -> State | None:
        """Return the state of an entity of a device."""
        entity_id = self.entity_id(key, device)
        return self.hass.states.get(entity_id) if entity_id else None

    def value(self, key: str, device: ConfigSubentry | None = None) -> str | None:
        """Return what an entity of a device shows, None where there is none."""
        state = self.state(key, device)
        return state.state if state else None

    async def until(
        self, key: str, value: str, device: ConfigSubentry | None = None
    ) -> None:
        """Wait until an entity of a device shows a value: the library is loaded."""
        await wait_until(lambda: self.value(key, device) == value)
        await self.hass.async_block_till_done()

    def payloads(self, topic: str) -> list[Any]:
        """Return what was published on a topic; the empty ones clear it."""
        return [
            message.json()
            for message in self.subscriber.on_topic(topic)
            if message.payload
        ]

    def topics(self, *prefixes: str) -> set[str]:
        """Return the topics under prefixes that have been published on."""
        return {
            message.topic for message in self.messages(*prefixes) if message.payload
        }

    def messages(self, *prefixes: str) -> list[Message]:
        """Return the messages under prefixes."""
        return [
            m for m in tuple(self.subscriber.messages) if m.topic.startswith(prefixes)
        ]

    async def kept(self, *filters: str) -> dict[str, bytes]:
        """Return what the broker keeps of devices, or under filters other than `#`.

        It sends what it keeps filter by filter, so that the end comes at the end.
        """
        await self.settle()
        topics = filters or ("telemetry/#", "iiot/#")
        async with Subscriber(self.broker.port, *topics, "end") as later:
            await later.wait_for_message("end")
            return {m.topic: m.payload for m in later.messages if m.topic != "end"}

    def issues(self) -> set[str]:
        """Return the names of the issues that the user is asked about."""
        return {
            issue.translation_key or ""
            for (domain, _), issue in ir.async_get(self.hass).issues.items()
            if domain == DOMAIN and issue.active
        }

    @contextmanager
    def changes(self) -> Iterator[list[tuple[str, str]]]:
        """Collect the changes of states: entity ID, and what it became."""
        found: list[tuple[str, str]] = []

        @callback
        def on_change(event: Event[Any]) -> None:
            if (new := event.data["new_state"]) is not None:
                found.append((new.entity_id, new.state))

        remove = self.hass.bus.async_listen(EVENT_STATE_CHANGED, on_change)
        yield found
        remove()
