"""The simulated fleet: what it says arrives, all of it, and is what it counts."""

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
import json
import time

import pytest

from custom_components.ble_bridge.monitors.messages import Reason, RejectedError, parse
from custom_components.ble_bridge.monitors.patterns import find
from custom_components.ble_bridge.monitors.presets import (
    DIALECTS,
    Preset,
    preset_patterns,
)
from custom_components.ble_bridge.monitors.settings import (
    DEFAULT_MAX_KILOBYTES,
    KILOBYTE,
)
from scripts.demo_fleet import FleetResult
from scripts.simulation.broker import EmbeddedBroker, Mosquitto
from scripts.simulation.fleet import BASE, MALFORMED, MODELS, Controller, Fleet
from scripts.simulation.mqtt_packets import packet, split
from scripts.simulation.subscriber import Message, Subscriber

DIALECT = DIALECTS[Preset.AUTOCORE]
PATTERNS = preset_patterns(Preset.AUTOCORE, BASE)
SIZE = 12


def judge(topic: str, payload: bytes) -> str:
    """Return of which kind a message is, or why it cannot be understood."""
    route = find(PATTERNS, topic)
    assert route is not None, topic
    if route.device.startswith("stranger"):
        return Reason.TOO_MANY_DEVICES
    if len(payload) > DEFAULT_MAX_KILOBYTES * KILOBYTE:
        return Reason.TOO_LARGE
    try:
        message = parse(route, payload, time.time(), DIALECT, needs_time=True)
    except RejectedError as err:
        return err.reason
    return "will" if message.online is False else message.kind


def judged(messages: list[Message]) -> Counter[str]:
    """Return how many there are of each."""
    return Counter(judge(message.topic, message.payload) for message in messages)


async def play(fleet: Fleet, seconds: float) -> None:
    """Let a fleet live for some seconds, and wait for all that it says."""
    playing = asyncio.create_task(fleet.play())
    await asyncio.sleep(seconds)
    playing.cancel()
    await fleet.wait_connected()
    await fleet.settle()


# The embedded broker loses what is said by one who has just come back.
@pytest.mark.parametrize(
    ("broker_type", "faults"), [(Mosquitto, 2), (EmbeddedBroker, 0)]
)
async def test_counts(
    broker_type: type[Mosquitto | EmbeddedBroker], faults: float
) -> None:
    """Each message arrives once, and is of the kind, or wrong for the reason, it is for."""
    async with (
        broker_type() as broker,
        Subscriber(broker.port, f"{BASE}/#", qos=1) as subscriber,
        Fleet(SIZE, broker.port, telemetry=0.2, malformed=50, faults=faults) as fleet,
    ):
        await play(fleet, 2)
        for controller in fleet.controllers:
            fleet.press(controller, 0)
            fleet.say_system(controller, "warning", "Warm")
        await fleet.settle()
        sent = fleet.sent + fleet.malformed
        await subscriber.wait_for(lambda heard: heard.count() >= sent.total())
        assert judged(subscriber.messages) == sent
        assert fleet.malformed.keys() == set(Reason) == MALFORMED.keys()
        kinds = {"status", "telemetry", "relay", "interaction", "system"}
        assert fleet.sent.keys() == kinds | ({"will"} if faults else set())
        assert len(fleet.retained) == SIZE + sum(
            controller.model.relays for controller in fleet.controllers
        )


async def test_faults(broker: Mosquitto, subscriber: Subscriber) -> None:
    """A will comes for one without power; a frozen one is silent; a restarted one is new."""
    async with Fleet(3, broker.port) as fleet:
        dead, frozen, restarted = fleet.controllers
        status = f"{BASE}/{dead.id}/status"
        fleet.die(dead)
        will = await subscriber.wait_for_message(status, dead.will)
        assert not will.retain
        assert dead.status == "offline"
        fleet.bring_back(dead)
        await fleet.wait_connected()
        await fleet.settle()
        assert subscriber.on_topic(status)[-1].json()["status"] == "online"

        fleet.freeze(frozen)
        heard = subscriber.count(f"{BASE}/{frozen.id}/")
        fleet.say_all(frozen)
        await fleet.settle()
        assert subscriber.count(f"{BASE}/{frozen.id}/") == heard
        fleet.thaw(frozen)
        fleet.say_all(frozen)
        assert await frozen.client.flush() if frozen.client else False

        before = restarted.firmware, restarted.uptime
        fleet.restart(restarted)
        await play(fleet, 1.5)
        said = subscriber.on_topic(f"{BASE}/{restarted.id}/status")[-1].json()
        assert said["firmware_version"] == restarted.firmware != before[0]
        assert said["uptime"] < before[1]


async def test_broker_comes_back() -> None:
    """After the broker is gone all come back, and say again what it is to keep."""
    async with Mosquitto() as broker, Fleet(SIZE, broker.port) as fleet:
        await broker.kill()
        await broker.start()
        await fleet.wait_connected()
        await fleet.settle()
        async with Subscriber(broker.port, f"{BASE}/+/status") as subscriber:
            await subscriber.wait_for(lambda heard: heard.count() == SIZE)
            assert {message.json()["status"] for message in subscriber.messages} == {
                "online"
            }


def test_seed() -> None:
    """What is said follows from the seed: kinds, firmware, and values that change slowly."""
    one, again, other = (
        [Controller(number, seed) for number in range(1, 9)] for seed in (1, 1, 2)
    )
    for controllers in (one, again, other):
        for controller in controllers:
            controller.measure()
            controller.measure()

    def told(controller: Controller) -> tuple[object, ...]:
        values = controller.values | {"uptime": 0}
        return (
            controller.id,
            controller.model,
            controller.firmware,
            controller.ip,
            values,
        )

    assert [*map(told, one)] == [*map(told, again)]
    assert [*map(told, one)] != [*map(told, other)]
    assert {controller.model.name for controller in one} == {
        model.name for model in MODELS
    }
    for controller in one:
        for name, drift in controller.model.drifts.items():
            assert isinstance(before := controller.values[name], int | float)
            after = controller.measure()[name]
            assert isinstance(after, int | float)
            assert abs(after - before) <= drift.step + 10**-drift.digits
            assert drift.high is None or drift.low <= after <= drift.high
            if drift.high is None:
                assert after >= before


def test_malformed() -> None:
    """Whatever is chosen for a reason is wrong for that reason."""
    for reason, make in MALFORMED.items():
        controller = Controller(1, 0)
        for topic, payload in map(make, 20 * [controller]):
            assert judge(f"{BASE}/{topic}", payload) == reason, payload[:80]


def test_what_the_demo_says() -> None:
    """The demo fails when a message was lost, or was taken for another."""
    good = FleetResult(
        controllers=5, sent=90, understood=90, malformed=7, dead_letters=7, devices=5
    )
    assert good.failure is None
    for changes in ({"understood": 89}, {"understood": 91}, {"dead_letters": 8}):
        assert replace(good, **changes).failure
    assert replace(good, devices=4).failure


def test_packets() -> None:
    """Packets are split where they end, however long they are."""
    packets = [packet(0x30, bytes(length)) for length in (0, 5, 127, 128, 20_000)]
    received = bytearray(b"".join(packets))
    for sent in packets:
        found = split(received)
        assert found is not None
        head, body, end = found
        assert (head, packet(head, body), end) == (0x30, sent, len(sent))
        assert all(split(received[:part]) is None for part in range(min(end, 9)))
        del received[:end]
    assert split(received) is None
    assert json.loads(packet(0x30, b"{}")[2:]) == {}
    assert partial(packet, 0xC0)(b"") == b"\xc0\0"
