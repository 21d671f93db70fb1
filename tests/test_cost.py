"""What a packet costs, counted in bytecode instructions and not in seconds.

The count is the same on every machine, however busy it is, so that no test here fails by
chance: where one does, the way of a packet has become longer. The message says by how much.
`scripts/bench --profile` shows where time goes, and `scripts/bench` whether it matters: if
it is worth its price, raise the limit here in the same commit, and say why. Where a new
version of Python or paho counts otherwise, an old commit does so too.

Counted is what runs of BLE Bridge and of paho, from the callback of Home Assistant's
Bluetooth stack to a real socket, or from a real socket to the entities of a monitor. Home
Assistant's own code and the parser libraries are not in it, nor is the loop, whose turns
depend on time: each test flushes, or reads, by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
import select
import socket
import sys
import time
from types import CodeType
from typing import Any, Final

from habluetooth import BaseHaRemoteScanner
from homeassistant.core import HomeAssistant
import orjson
import paho.mqtt
import pytest

from custom_components import ble_bridge
from custom_components.ble_bridge.bridge import Bridge
from custom_components.ble_bridge.destinations.destination import Destination
from custom_components.ble_bridge.destinations.mqtt_connection import remaining_length
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, RAW, SimulatedScanner, destination_data, wait_until
from .monitors.garage import DEVICE, Garage, telemetry

TURN: Final = 16  # What an ESPHome proxy sends at once
TURNS: Final = 10
# Instructions at most: what was measured with Python 3.14 and paho 2.1, and a tenth more.
UNCHANGED: Final = 425
UNCHANGED_TWICE: Final = 680
CHANGED: Final = 5_650
ACKNOWLEDGED: Final = 3_700
MONITORED: Final = 1_400
MONITORED_CHANGED: Final = 1_770
PUBACK: Final = 4  # Bytes, where there is nothing to say (MQTT 5, 3.4)
PATIENCE: Final = 10.0
OURS: Final = tuple(
    str(Path(module.__file__ or "").parent) for module in (ble_bridge, paho.mqtt)
)


class Counter:
    """How many instructions of ours were run."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0

    def on_instruction(self, code: CodeType, _offset: int) -> object:
        """Count an instruction, or hear no more of it."""
        if not code.co_filename.startswith(OURS):
            return sys.monitoring.DISABLE
        self.count += 1
        return None


@contextmanager
def counted() -> Iterator[Counter]:
    """Count the instructions that run meanwhile."""
    monitoring, tool = sys.monitoring, sys.monitoring.PROFILER_ID
    counter = Counter()
    monitoring.use_tool_id(tool, "cost")
    monitoring.register_callback(
        tool, monitoring.events.INSTRUCTION, counter.on_instruction
    )
    monitoring.set_events(tool, monitoring.events.INSTRUCTION)
    try:
        yield counter
    finally:
        monitoring.set_events(tool, monitoring.events.NO_EVENTS)
        monitoring.free_tool_id(tool)


def hear(scanner: BaseHaRemoteScanner, packets: list[bytes]) -> None:
    """Hear packets of one device, all in the same moment."""
    now = time.monotonic()
    for packet in packets:
        scanner._async_on_raw_advertisement(ADDRESS, -50, packet, {}, now)


def flush(destinations: list[Destination[Any]]) -> None:
    """Write what waits, as the loop does when it is time."""
    for destination in destinations:
        destination.outbox.flush()


def cost(
    scanner: BaseHaRemoteScanner,
    destinations: list[Destination[Any]],
    turn: Callable[[int], list[bytes]],
) -> float:
    """Return the instructions per packet; `turn` makes those of a turn of the loop."""
    hear(scanner, turn(0))
    flush(destinations)
    with counted() as counter:
        for number in range(1, TURNS + 1):
            hear(scanner, turn(number))
            flush(destinations)
    assert not any(destination.outbox.waiting for destination in destinations)
    return counter.count / (TURN * TURNS)


def check(measured: float, limit: float, what: str) -> None:
    """Fail where something takes more instructions than it may, or far fewer."""
    assert measured <= limit, (
        f"{what} takes {measured:.1f} instructions, and {limit} are its limit: "
        "see the top of this file"
    )
    assert measured > limit / 2, (
        f"{what} takes only {measured:.1f} instructions: lower its limit of {limit}"
    )


def wait_for_bytes(sock: socket.socket, size: int) -> None:
    """Wait until so many bytes can be read, and leave them where they are."""
    peeked = b""
    while len(peeked) < size:
        assert select.select([sock], [], [], PATIENCE)[0], "The broker does not answer"
        peeked = sock.recv(2 * size, socket.MSG_PEEK)


def unchanged(_number: int) -> list[bytes]:
    """Return packets that are always the same."""
    return [RAW] * TURN


def bthome(number: int) -> list[bytes]:
    """Return packets of which each says another temperature."""
    return [
        bytes.fromhex("020106 0b16d2fc40 0164 02")
        + (2000 + TURN * number + step).to_bytes(2, "little")
        + bytes.fromhex("2e32")
        for step in range(TURN)
    ]


@pytest.mark.parametrize(("bases", "limit"), [(1, UNCHANGED), (2, UNCHANGED_TWICE)])
async def test_unchanged_advertisement(
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    bases: int,
    limit: int,
) -> None:
    """A packet like the one before is little more than a look at what is known of it."""
    entry = await setup(
        *(
            destination_data(
                broker.port, topic_base=f"ble{base}", client_id=f"cost-{base}"
            )
            for base in range(bases)
        )
    )
    bridge: Bridge = entry.runtime_data
    destinations = list(bridge.destinations.values())
    measured = cost(scanner, destinations, unchanged)
    assert all(d.delivered == TURN * (TURNS + 1) for d in destinations)
    check(measured, limit, f"An unchanged advertisement to {bases} destinations")


async def test_changed_packet(
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A packet of a device that says something new: raw, fields and states."""
    monkeypatch.setattr("custom_components.ble_bridge.devices.STATE_INTERVAL", 0)
    entry = await setup(
        destination_data(broker.port),
        devices=[{"address": ADDRESS, "alias": "Freezer"}],
    )
    bridge: Bridge = entry.runtime_data
    (device,) = bridge.devices.by_id.values()
    hear(scanner, bthome(0))
    await wait_until(lambda: device.counters.readings)
    before = device.counters.readings
    measured = cost(scanner, list(bridge.destinations.values()), bthome)
    assert device.counters.readings - before == TURN * (TURNS + 1)
    check(measured, CHANGED, "A changed packet")


async def test_acknowledged_advertisement(
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """An advertisement at QoS 1, and its acknowledgement, most of it paho's reading."""
    entry = await setup(destination_data(broker.port, qos=1))
    (destination,) = entry.runtime_data.destinations.values()
    connection = destination.connection
    await wait_until(lambda: not destination.outbox.waiting)
    with counted() as counter:
        for number in range(TURNS):
            hear(scanner, unchanged(number))
            flush([destination])
            wait_for_bytes(connection._sock, PUBACK * TURN)
            connection._on_readable()
    assert not destination.outbox.waiting
    check(counter.count / (TURN * TURNS), ACKNOWLEDGED, "An acknowledged advertisement")


def publish(talker: socket.socket, topic: str, payload: bytes) -> int:
    """Publish at QoS 1 with MQTT 3.1.1; return how long the packet is in MQTT 5."""
    body = len(topic).to_bytes(2) + topic.encode() + b"\0\1" + payload
    talker.sendall(b"\x32" + remaining_length(len(body)) + body)
    return 1 + len(remaining_length(len(body) + 1)) + len(body) + 1


@pytest.mark.parametrize(
    ("step", "limit", "what"),
    [
        (0, MONITORED, "A message that says the same again"),
        (1, MONITORED_CHANGED, "A message that says four new values"),
    ],
)
async def test_monitored_message(
    hass: HomeAssistant,
    enable_bluetooth: None,
    broker: Mosquitto,
    step: int,
    limit: float,
    what: str,
) -> None:
    """A message that a monitor hears, up to its acknowledgement and to the states."""
    garage = Garage(hass, broker)
    await garage.start()
    names = ("temperature", "humidity", "voltage", "memory_free")
    values: dict[str, Any] = dict.fromkeys(names, 1)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(**values))
    (destination,) = garage.entry.runtime_data.destinations.values()
    connection, monitor = destination.connection, garage.monitor
    instructions = 0
    with socket.create_connection((LOOPBACK, broker.port)) as talker:
        talker.sendall(bytes.fromhex("100c00044d515454040200000000"))  # CONNECT
        for _ in range(TURNS):
            size = 0
            for _ in range(TURN):
                values = {name: value + step for name, value in values.items()}
                payload = orjson.dumps(telemetry(**values))
                size += publish(talker, f"autocore/{DEVICE}/telemetry", payload)
            wait_for_bytes(connection._sock, size)
            with counted() as counter:
                connection._on_readable()
                while monitor.queued:
                    monitor._read()
            instructions += counter.count
    assert monitor.processed == 1 + TURN * TURNS
    assert garage.value("field!voltage") == str(1 + step * TURN * TURNS)
    check(instructions / (TURN * TURNS), limit, what)
    await garage.close()
