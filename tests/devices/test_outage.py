"""A broker that is away for a while: what devices say is kept, and comes in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.subscriber import Subscriber

from ..conftest import is_connected, wait_until
from .home import BALCONY, FIELDS, VALUES, Home, bthome

DESTINATION = "custom_components.ble_bridge.destinations.destination"
WARM = {
    "rule_id": "warm",
    "name": "Warm",
    "kind": "above",
    "field": "temperature",
    "limit": 25,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back to the broker soon."""
    monkeypatch.setattr(f"{DESTINATION}.FIRST_DELAY", 0.3)


@asynccontextmanager
async def outage(home: Home, temperatures: list[float]) -> AsyncIterator[Subscriber]:
    """Have a device say something while the broker is away; return a new subscriber."""
    await home.broker.stop()
    await wait_until(lambda: not is_connected(home.hass, home.broker.port))
    for temperature in temperatures:
        home.hear(bthome(temperature=temperature))
        await home.hass.async_block_till_done()
    async with home.back() as subscriber:
        yield subscriber


@pytest.mark.parametrize("delivery", ["0", "1", "2"])
async def test_what_is_kept(home: Home, delivery: str) -> None:
    """Readings and alerts are told afterwards, once and in order; advertisements are not."""
    fields = {"enabled": True, "reading": delivery, "alert": delivery}
    await home.start({**BALCONY, "alerts": [WARM]}, fields=fields)
    home.hear(bthome(temperature=21))
    await home.until("temperature", "21.0")
    await home.settle()
    sent = [22.0, 26.0, 24.0, 23.0]
    async with outage(home, sent) as later:
        history = f"{FIELDS}/alerts/Warm/history"
        await later.wait_for_message(f"{FIELDS}/v/temperature", b'{"value":23.0}')
        await later.wait_for_message(f"{VALUES}/temperature", b"23.0")
        await later.wait_for(lambda heard: len(heard.on_topic(history)) == 2)
        await home.tick(1)
        readings = [m.json() for m in later.on_topic(f"{FIELDS}/v/temperature")]
        assert readings == [{"value": value} for value in sent]
        alerts = [m.json() for m in later.on_topic(history)]
        assert [bool(alert["EndedAt"]) for alert in alerts] == [False, True]
        assert later.count("ble/raw/") == 0
    (publisher,) = home.entry.runtime_data.publishers.values()
    tally = publisher.destination.records[RecordKind.READING]
    await wait_until(lambda: tally.waiting == 0)
    assert tally.dropped == 0
    assert tally.delivered == tally.received


async def test_the_oldest_make_room(home: Home) -> None:
    """What is kept is bounded, and what is dropped is counted."""
    await home.start(BALCONY, values={"enabled": False}, delivery={"buffer_records": 3})
    home.hear(bthome(temperature=10))
    await home.until("temperature", "10.0")
    await home.settle()
    (publisher,) = home.entry.runtime_data.publishers.values()
    tally = publisher.destination.records[RecordKind.READING]
    before = tally.received
    async with outage(home, [float(value) for value in range(11, 21)]) as later:
        await later.wait_for_message(f"{FIELDS}/v/temperature", b'{"value":20.0}')
        readings = [
            m.json()["value"] for m in later.on_topic(f"{FIELDS}/v/temperature")
        ]
        assert readings == [18.0, 19.0, 20.0]
    await wait_until(lambda: tally.waiting == 0)
    assert tally.received - before == 10
    assert tally.overflow == 7


async def test_given_up(home: Home) -> None:
    """What waits when Home Assistant stops is dropped, and counted."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=10))
    await home.until("temperature", "10.0")
    await home.broker.stop()
    await wait_until(lambda: not is_connected(home.hass, home.broker.port))
    home.hear(bthome(temperature=11))
    await home.hass.async_block_till_done()
    (publisher,) = home.entry.runtime_data.publishers.values()
    tally = publisher.destination.records[RecordKind.READING]
    assert tally.waiting > 0
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    assert tally.waiting == 0
    assert tally.away > 0
