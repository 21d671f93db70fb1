"""Delivery as a user meets it: a real broker that fails, and what arrived in the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import json
from pathlib import Path
import sqlite3
from typing import Any

from homeassistant.helpers import issue_registry as ir
from paho.mqtt.enums import MQTTProtocolVersion
import pytest

from custom_components.ble_bridge import backup
from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.mqtt import MqttDestination
from custom_components.ble_bridge.destinations.store import RecordStore
from custom_components.ble_bridge.records import RecordKind, Tally
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from ..conftest import is_connected, wait_until
from ..destinations.faults import ObedientBroker, Proxy
from ..layouts.samples import validated
from .home import BALCONY, FIELDS, VALUES, Home, bthome
from .test_outage import WARM

DESTINATION = "custom_components.ble_bridge.destinations.destination"
DURABLE = dict.fromkeys(("reading", "alert", "error", "connectivity"), "durable")
HISTORY = f"{FIELDS}/alerts/Warm/history"
TEMPERATURE = f"{FIELDS}/v/temperature"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back to the broker soon."""
    monkeypatch.setattr(f"{DESTINATION}.FIRST_DELAY", 0.3)


def destination(home: Home) -> MqttDestination:
    """Return the destination."""
    found: MqttDestination = home.entry.runtime_data.destinations[
        home.destination.subentry_id
    ]
    return found


def tally(home: Home, kind: RecordKind) -> Tally:
    """Return what became of records of a kind; it adds up."""
    found = destination(home).tally(kind)
    assert found.waiting >= 0
    return found


async def delivered(home: Home) -> None:
    """Wait until nothing waits any more."""
    await wait_until(lambda: not destination(home).outbox.waiting, 20)


def stored(directory: Path) -> int:
    """Return how many records are on disk, whatever has them open."""
    (path,) = directory.glob("*.db")
    copy = directory.parent / "copy"
    copy.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            (copy / source.name).write_bytes(source.read_bytes())
    database = sqlite3.connect(copy / path.name)
    try:
        (count,) = database.execute("SELECT COUNT(*) FROM records").fetchone()
        return int(count)
    finally:
        database.close()


async def cut_off(home: Home) -> None:
    """Have the broker go away."""
    await home.broker.stop()
    await wait_until(lambda: not is_connected(home.hass, home.broker.port))


async def say(home: Home, *temperatures: float) -> None:
    """Have the device say temperatures."""
    for temperature in temperatures:
        home.hear(bthome(temperature=temperature))
        await home.hass.async_block_till_done()
    await home.until("temperature", f"{temperatures[-1]:.1f}")


def temperatures(subscriber: Subscriber) -> list[float]:
    """Return the temperatures that arrived."""
    return [message.json()["value"] for message in subscriber.on_topic(TEMPERATURE)]


async def test_across_restarts(home: Home, stores_fixture: Path) -> None:
    """What is durable outlasts Home Assistant's restarts; what is not is dropped."""
    await home.start({**BALCONY, "alerts": [WARM]}, delivery={"reading": "durable"})
    await say(home, 21)
    await home.settle()
    await cut_off(home)
    await say(home, 22, 26, 23)
    assert tally(home, RecordKind.READING).waiting == 3
    assert tally(home, RecordKind.ALERT).waiting == 2
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    assert stored(stores_fixture) == 5
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.hass.async_block_till_done()
    assert tally(home, RecordKind.READING).waiting == 3
    assert tally(home, RecordKind.ALERT).waiting == 2
    assert home.hass.states.get(f"sensor.127_0_0_1_{home.broker.port}_waiting_records")
    async with home.back() as later:
        await later.wait_for(lambda s: len(s.on_topic(HISTORY)) == 2)
        await later.wait_for(lambda s: len(temperatures(s)) == 3)
        assert temperatures(later) == [22, 26, 23]
        ended = [bool(m.json()["EndedAt"]) for m in later.on_topic(HISTORY)]
        assert ended == [False, True]
        for message in later.on_topic(TEMPERATURE):
            # An earlier run may have sent them.
            assert message.json()["is_resend"] is True
            validated(message.payload, "reading")
    await delivered(home)
    for kind, count in ((RecordKind.READING, 3), (RecordKind.ALERT, 2)):
        found = tally(home, kind)
        assert (found.received, found.acknowledged, found.dropped) == (count, count, 0)
    await wait_until(lambda: stored(stores_fixture) == 0)


async def test_removed_with_its_destination(home: Home, stores_fixture: Path) -> None:
    """A destination that is removed leaves no file behind, and one of another stays."""
    await home.start({**BALCONY, "alerts": [WARM]})
    (path,) = stores_fixture.glob("*.db")
    assert path.stat().st_mode & 0o777 == 0o600
    stray = stores_fixture / f"{DOMAIN}.nobody.db"
    stray.write_bytes(b"")
    await home.restart()
    assert not stray.exists()
    assert path.exists()
    home.hass.config_entries.async_remove_subentry(
        home.entry, home.destination.subentry_id
    )
    await home.hass.async_block_till_done()
    assert not list(stores_fixture.iterdir())


async def test_removed_with_the_bridge(home: Home, stores_fixture: Path) -> None:
    """A bridge that is removed leaves no file behind."""
    await home.start(BALCONY)
    assert list(stores_fixture.iterdir())
    await home.hass.config_entries.async_remove(home.entry.entry_id)
    assert not list(stores_fixture.iterdir())


async def test_acknowledged_at_once(home: Home, stores_fixture: Path) -> None:
    """What the broker acknowledges at once never touches the disk."""
    await home.start(BALCONY, delivery=DURABLE)
    store = destination(home).store
    assert store is not None
    written: list[int] = []
    apply = store.apply

    def count(*args: Any) -> list[int]:
        numbers = apply(*args)
        written.extend(numbers)
        return numbers

    store.apply = count  # type: ignore[assignment, method-assign]
    for value in range(10):
        await say(home, value)
        await home.settle()
    assert tally(home, RecordKind.READING).acknowledged == 10
    assert len(written) < 5  # Hardly any, on a machine that is busy with other things


async def test_frozen_broker(home: Home) -> None:
    """A broker that acknowledges nothing is given up after the publish timeout."""
    await home.start(
        {**BALCONY, "alerts": [WARM]}, delivery={**DURABLE, "publish_timeout": 0.5}
    )
    await say(home, 21)
    await home.settle()
    home.broker.freeze()
    await say(home, 26)
    await wait_until(lambda: not is_connected(home.hass, home.broker.port))
    assert destination(home).last_error == "timed_out"
    await say(home, 27, 24)
    home.broker.thaw()
    async with Subscriber(home.broker.port, qos=2):
        await delivered(home)
    await home.subscriber.wait_for(lambda s: temperatures(s)[-1] == 24)
    told = list(dict.fromkeys(temperatures(home.subscriber)))
    assert told == [21, 26, 27, 24]
    for kind in (RecordKind.READING, RecordKind.ALERT):
        found = tally(home, kind)
        assert found.received == found.acknowledged
        assert not found.dropped


@asynccontextmanager
async def obedient(
    home: Home, monkeypatch: pytest.MonkeyPatch, *devices: Any, **changes: Any
) -> AsyncIterator[ObedientBroker]:
    """Run the bridge on a broker that acknowledges what we say."""
    async with ObedientBroker() as broker:
        monkeypatch.setattr(home.broker, "port", broker.port)
        await home.start(*(devices or (BALCONY,)), **changes)
        yield broker
        await home.hass.config_entries.async_unload(home.entry.entry_id)


def told(broker: ObedientBroker, topic: str) -> list[tuple[dict[str, Any], int]]:
    """Return what was published to a topic, and its packet identifiers."""
    return [
        (json.loads(payload[payload.index(b"{") :]), identifier or 0)
        for name, payload, identifier in broker.messages
        if name == topic
    ]


async def test_all_or_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of which one message is not acknowledged is sent again, all of it."""
    async with obedient(
        home, monkeypatch, {**BALCONY, "alerts": [WARM]}, values={"enabled": False}
    ) as broker:
        await say(home, 26)
        current = HISTORY.replace("history", "current")
        await wait_until(lambda: told(broker, HISTORY) and told(broker, current))
        ((alert, mid),) = told(broker, HISTORY)
        assert "is_resend" not in alert
        broker.acknowledge(mid)
        await asyncio.sleep(0.1)
        assert tally(home, RecordKind.ALERT).waiting == 1
        broker.messages.clear()
        broker.cut()
        await wait_until(lambda: told(broker, HISTORY) and told(broker, current))
        for topic in (HISTORY, current):
            ((alert, mid),) = told(broker, topic)
            assert alert["is_resend"] is True
            validated(json.dumps(alert).encode(), "alert")
            broker.acknowledge(mid)
        await wait_until(lambda: tally(home, RecordKind.ALERT).acknowledged == 1)
        assert tally(home, RecordKind.ALERT).waiting == 0


async def test_in_flight(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the user allows is unacknowledged."""
    async with obedient(
        home,
        monkeypatch,
        values={"enabled": False},
        fields={"reading": "1", "connectivity": "0"},
        delivery={"max_in_flight": 3, "publish_timeout": 60},
        raw=False,
    ) as broker:
        for value in range(10):
            await say(home, value)
        await asyncio.sleep(0.1)
        taken: list[int] = []
        for _ in range(30):
            waiting = [mid for _, _, mid in broker.messages if mid and mid not in taken]
            assert len(waiting) <= 3
            if waiting:
                taken.append(waiting[0])
                broker.acknowledge(waiting[0])
            await asyncio.sleep(0.02)
        await delivered(home)
        assert tally(home, RecordKind.READING).acknowledged == 10
        assert len(taken) == 20  # Temperature and signal strength of each


async def test_properties(home: Home) -> None:
    """With MQTT 5, messages carry properties and an expiry that shrinks as they wait."""
    await home.start(
        BALCONY,
        delivery={"reading": "durable"},
        user_properties=["site=north"],
        message_expiry=600,
    )
    await say(home, 21)
    await home.settle()
    await cut_off(home)
    await say(home, 22)
    await asyncio.sleep(2.1)
    async with home.back(protocol=MQTTProtocolVersion.MQTTv5) as one:
        await one.wait_for_message(TEMPERATURE, b'{"value":22.0}')
        await delivered(home)
        (old,) = one.on_topic(TEMPERATURE)
        assert old.properties == (("site", "north"),)
        assert old.expiry is not None
        assert 590 <= old.expiry < 599
        await say(home, 23)
        await one.wait_for_message(f"{VALUES}/temperature", b"23.0")
        for message in one.messages:
            assert ("site", "north") in message.properties
        assert one.on_topic(f"{VALUES}/temperature")[-1].expiry in (599, 600)
        await say(home, 24)
        await home.restart()
        await delivered(home)


async def test_resent_values_are_marked(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no room for a mark in its payload has it as a property."""
    async with obedient(
        home, monkeypatch, values={"enabled": True}, delivery={"publish_timeout": 60}
    ) as broker:
        await say(home, 21)
        topic = f"{VALUES}/temperature"
        await wait_until(lambda: any(m[0] == topic for m in broker.messages))
        broker.messages.clear()
        broker.cut()
        await wait_until(lambda: any(m[0] == topic for m in broker.messages))
        (again, *_) = (m for m in broker.messages if m[0] == topic)
        assert b"is_resend\x00\x04true21.0" in again[1]
        await asyncio.sleep(0)


@pytest.mark.parametrize("policy", ["buffer", "durable"])
async def test_advertisements_that_wait(home: Home, policy: str) -> None:
    """Every advertisement is kept where the user wants that, across a restart if durable."""
    await home.start(
        BALCONY,
        delivery={"advertisement": policy, "store_records": 1000},
        qos=int(policy == "buffer"),  # What is durable is acknowledged in any case
    )
    await say(home, 20)
    await home.settle()
    await cut_off(home)
    await say(home, *range(21, 31))
    if policy == "durable":
        assert await home.hass.config_entries.async_unload(home.entry.entry_id)
        assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    async with home.back("ble/raw/#") as later:
        await later.wait_for(lambda s: s.count() >= 10)
        await delivered(home)
        heard = [m.json()["service_data"] for m in later.messages]
        values = [next(iter(data.values())) for data in heard[:10]]
        assert values == [bthome(temperature=t)[7:].hex() for t in range(21, 31)]
        validated(later.messages[0].payload, "advertisement")
    found = tally(home, RecordKind.ADVERTISEMENT)
    assert not found.dropped
    assert found.received == found.acknowledged


async def test_drop(home: Home) -> None:
    """What is not to wait is dropped and counted while the broker is away."""
    await home.start(BALCONY, delivery={"reading": "drop"})
    await say(home, 20)
    await home.settle()
    before = tally(home, RecordKind.READING).delivered
    await cut_off(home)
    await say(home, 21, 22)
    await home.broker.start()
    await home.connected()
    async with Subscriber(home.broker.port) as later:
        await say(home, 23)
        await later.wait_for_message(TEMPERATURE, b'{"value":23.0}')
        assert 21 not in temperatures(later)
    await delivered(home)
    found = tally(home, RecordKind.READING)
    assert (found.away, found.delivered - before) == (2, 1)


async def test_refused_topic(home: Home, tmp_path: Path) -> None:
    """A topic that is not allowed is set aside, and the rest goes on; then it is allowed."""
    acl = tmp_path / "acl"
    rules = "topic readwrite ble/#\ntopic readwrite iiot/#\ntopic read telemetry/#\n"
    acl.write_text(rules)
    registry = ir.async_get(home.hass)
    async with (
        Mosquitto(config_lines=[f"acl_file {acl}"]) as broker,
        Subscriber(broker.port) as subscriber,
    ):
        home.broker, home.subscriber = broker, subscriber
        await home.start(
            {**BALCONY, "alerts": [WARM]}, delivery={**DURABLE, "max_tries": 2}
        )
        issue = f"not_authorized_{home.destination.subentry_id}"
        await say(home, 26)
        await wait_until(lambda: registry.async_get_issue(DOMAIN, issue))
        await wait_until(lambda: tally(home, RecordKind.ALERT).refused == 1)
        await delivered(home)
        # At once, now that the topic is known to be refused
        await say(home, 24)
        await wait_until(lambda: tally(home, RecordKind.ALERT).refused == 2)
        acl.write_text(rules.replace("read telemetry", "readwrite telemetry"))
        await broker.restart()
        await wait_until(lambda: is_connected(home.hass, broker.port))
        subentry_id = home.destination.subentry_id
        assert await home.entry.runtime_data.async_retry(subentry_id) is None
        await wait_until(lambda: not registry.async_get_issue(DOMAIN, issue))
        found = tally(home, RecordKind.ALERT)
        assert (found.acknowledged, found.refused) == (2, 0)
        await home.hass.config_entries.async_unload(home.entry.entry_id)


async def test_slow_network(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network on which acknowledgements take longer than the timeout gets its time."""
    async with Proxy(home.broker.port) as proxy:
        monkeypatch.setattr(home.broker, "port", proxy.port)
        await home.start(
            {**BALCONY, "alerts": [WARM]}, delivery={**DURABLE, "publish_timeout": 0.2}
        )
        await say(home, 21)
        await delivered(home)
        proxy.open.clear()
        await say(home, 26)
        await wait_until(lambda: not is_connected(home.hass, proxy.port))
        assert destination(home).outbox._timeout == pytest.approx(0.4)
        proxy.open.set()
        await delivered(home)
        assert destination(home).outbox._timeout == pytest.approx(0.2)
        assert tally(home, RecordKind.ALERT).acknowledged == 1
        await home.hass.config_entries.async_unload(home.entry.entry_id)


async def test_backup(home: Home, stores_fixture: Path) -> None:
    """While a backup is made the file alone is whole, and nothing is written to it."""
    await home.start({**BALCONY, "alerts": [WARM]}, delivery=DURABLE)
    await say(home, 21)
    await home.settle()
    await cut_off(home)
    await say(home, 22)
    await wait_until(lambda: stored(stores_fixture) == 1)
    await backup.async_pre_backup(home.hass)
    (path,) = stores_fixture.glob("*.db")
    whole = path.read_bytes()
    await say(home, 26)
    await asyncio.sleep(0.2)
    assert path.read_bytes() == whole
    copy = stores_fixture.parent / "restored.db"
    copy.write_bytes(whole)
    store = RecordStore(copy, list(RecordKind))
    assert sum(store.open().waiting.values()) == 1
    store.close()
    assert tally(home, RecordKind.READING).waiting == 2
    await backup.async_post_backup(home.hass)
    await wait_until(lambda: stored(stores_fixture) == 3)
    await home.broker.start()
    await delivered(home)
    assert not tally(home, RecordKind.READING).dropped
