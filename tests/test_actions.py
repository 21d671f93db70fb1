"""The actions, with a real broker: what was said arrived, or why it did not."""

import asyncio
from collections.abc import Callable
from datetime import datetime
import json
from pathlib import Path
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import device_registry as dr
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    ADDRESS,
    SimulatedScanner,
    destination_data,
    is_connected,
    wait_until,
)
from .devices.home import bthome

type Setup = Callable[..., Any]


async def act(hass: HomeAssistant, action: str, **data: Any) -> dict[str, Any]:
    """Run an action, and return its answer."""
    answer = await hass.services.async_call(
        DOMAIN, action, data, blocking=True, return_response=True
    )
    assert answer is not None
    return dict(answer)


def device_id(hass: HomeAssistant, subentry_id: str) -> str:
    """Return the device of a destination."""
    (device,) = (
        device
        for device in dr.async_get(hass).devices
        if (DOMAIN, subentry_id) in device.identifiers
    )
    return device.id


def problem(err: pytest.ExceptionInfo[HomeAssistantError]) -> str | None:
    """Return the key of what an action said."""
    assert err.value.translation_domain == DOMAIN
    return err.value.translation_key


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("on", b"on"),
        ("", b""),
        ("\ud800ä", "?ä".encode()),
        ({"on": True, "level": 2.5}, b'{"on":true,"level":2.5}'),
        (7, b"7"),
    ],
)
async def test_publish(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    payload: Any,
    said: bytes,
) -> None:
    """A message arrives, and the action answers that it was acknowledged."""
    await setup(destination_data(broker.port))
    async with Subscriber(broker.port, "garden/#", qos=2) as subscriber:
        for qos, outcome in ((0, "sent"), (1, "acknowledged"), (2, "acknowledged")):
            answer = await act(
                hass, "publish", topic="garden/the pump", payload=payload, qos=str(qos)
            )
            assert answer["outcome"] == outcome
            assert 0 <= answer["seconds"] < 2.5
            assert answer["destination"] == f"127.0.0.1:{broker.port}"
        await subscriber.wait_for(lambda s: len(s.messages) == 3)
        assert [m.payload for m in subscriber.messages] == [said] * 3
        assert [m.qos for m in subscriber.messages] == [0, 1, 2]
    await act(hass, "publish", topic="garden/state", payload="kept", retain=True)
    async with Subscriber(broker.port, "garden/#") as later:
        await later.wait_for_message("garden/state", b"kept")


@pytest.mark.parametrize(
    "topic",
    [
        *("", "a/+", "#", "a\0b", "$SYS/a", "a\ud800", "a\nb"),
        pytest.param("ä" * 32_768, id="long"),
    ],
)
async def test_invalid_topic(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    topic: str,
) -> None:
    """What is no topic is said to be none."""
    await setup(destination_data(broker.port))
    with pytest.raises(ServiceValidationError) as err:
        await act(hass, "publish", topic=topic, payload="x")
    assert problem(err) == "invalid_topic"


async def test_invalid_payload(
    hass: HomeAssistant, broker: Mosquitto, scanner: SimulatedScanner, setup: Setup
) -> None:
    """What JSON cannot say is said to be so."""
    await setup(destination_data(broker.port))
    with pytest.raises(ServiceValidationError) as err:
        await act(hass, "publish", topic="a", payload={1, 2})
    assert problem(err) == "invalid_payload"


async def test_which_destination(
    hass: HomeAssistant, broker: Mosquitto, scanner: SimulatedScanner, setup: Setup
) -> None:
    """Where there are several, one has to be named."""
    async with Mosquitto() as other, Subscriber(other.port, "a/#") as subscriber:
        entry: MockConfigEntry = await setup(
            destination_data(broker.port), destination_data(other.port, client_id="b")
        )
        with pytest.raises(ServiceValidationError) as err:
            await act(hass, "publish", topic="a/b", payload="x")
        assert problem(err) == "destination_needed"
        _, second = entry.subentries
        await act(
            hass, "publish", topic="a/b", payload="x", device_id=device_id(hass, second)
        )
        await subscriber.wait_for_message("a/b", b"x")
        assert len((await act(hass, "flush"))["destinations"]) == 2
        for device in ("nonsense", device_id(hass, entry.entry_id)):
            with pytest.raises(ServiceValidationError) as err:
                await act(hass, "flush", device_id=device)
            assert problem(err) == "not_a_destination"
        await hass.config_entries.async_unload(entry.entry_id)
    with pytest.raises(ServiceValidationError) as err:
        await act(hass, "publish", topic="a/b", payload="x")
    assert problem(err) == "no_destination"


async def test_broker_away(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """What cannot be delivered now is said to wait, and is delivered later."""
    async with Mosquitto() as broker:
        entry: MockConfigEntry = await setup(
            destination_data(broker.port, delivery={"publish_timeout": 0.3})
        )
        await broker.stop()
        await wait_until(lambda: not is_connected(hass, broker.port))
        with pytest.raises(HomeAssistantError) as err:
            await act(hass, "publish", topic="a/b", payload="later")
        assert problem(err) == "publish_waiting"
        with pytest.raises(HomeAssistantError) as err:
            await act(hass, "flush", timeout=0.1)
        assert problem(err) == "flush_waiting"
        assert err.value.translation_placeholders == {"waiting": "1"}
        flush = asyncio.create_task(act(hass, "flush", timeout=30))
        await broker.start()
        async with Subscriber(broker.port, "a/#") as subscriber:
            await flush
            tally = entry.runtime_data.destinations[next(iter(entry.subentries))].tally(
                RecordKind.MESSAGE
            )
            assert tally.acknowledged == 1
            assert len(subscriber.messages) <= 1  # It may have come just after
        await hass.config_entries.async_unload(entry.entry_id)


async def test_dropped(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """Where nothing is kept for a broker that is away, the action says so at once."""
    async with Mosquitto() as broker:
        entry = await setup(destination_data(broker.port, delivery={"message": "drop"}))
        await broker.stop()
        await wait_until(lambda: not is_connected(hass, broker.port))
        with pytest.raises(HomeAssistantError) as err:
            await act(hass, "publish", topic="a/b", payload="gone")
        assert problem(err) == "publish_away"
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("qos", [1, 2])
async def test_refused(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    tmp_path: Path,
    qos: int,
) -> None:
    """A message that the broker does not allow is refused, and can be sent again."""
    acl = tmp_path / "acl"
    rules = "topic write ble/#\ntopic write free/#\ntopic read #\n"
    acl.write_text(rules)
    async with Mosquitto(config_lines=[f"acl_file {acl}"]) as broker:
        entry: MockConfigEntry = await setup(destination_data(broker.port))
        with pytest.raises(HomeAssistantError) as err:
            await act(hass, "publish", topic="mine/a", payload="x", qos=qos)
        assert problem(err) == "publish_refused"
        assert (await act(hass, "publish", topic="free/a", payload="x", qos=qos))[
            "outcome"
        ] == "acknowledged"
        (subentry_id,) = entry.subentries
        bridge = entry.runtime_data
        assert await bridge.async_retry(subentry_id) == "not_authorized"
        acl.write_text(rules + "topic write mine/#\n")
        await broker.restart()
        await wait_until(lambda: is_connected(hass, broker.port))
        async with Subscriber(broker.port, "mine/#") as subscriber:
            assert await bridge.async_retry(subentry_id) is None
            message = await subscriber.wait_for_message("mine/a", b"x")
            assert json.loads(b'"%b"' % message.payload) == "x"
        tally = bridge.destinations[subentry_id].tally(RecordKind.MESSAGE)
        assert (tally.received, tally.acknowledged, tally.refused) == (2, 2, 0)
        await hass.config_entries.async_unload(entry.entry_id)


async def test_get_devices(
    hass: HomeAssistant, broker: Mosquitto, scanner: SimulatedScanner, setup: Setup
) -> None:
    """All devices are there with what they said last, also one that said nothing yet."""
    await setup(
        destination_data(broker.port),
        devices=[
            {"address": ADDRESS, "alias": "Freezer"},
            {"address": "C0:00:00:00:00:09"},
        ],
    )
    scanner.hear(raw=bthome(temperature=-18, battery=90))
    await hass.async_block_till_done()
    async with asyncio.timeout(10):  # Its library is loaded first
        while not (answer := await act(hass, "get_devices"))["devices"][0]["values"]:
            await asyncio.sleep(0.05)
    freezer, silent = answer["devices"]
    assert datetime.fromisoformat(freezer.pop("last_seen")) <= dt_util.utcnow()
    assert freezer == {
        "device": "freezer",
        "name": "Freezer",
        "address": ADDRESS,
        "model": freezer["model"],
        "monitor": None,
        "present": True,
        "values": {"battery": 90, "temperature": -18.0},
    }
    assert silent == {
        "device": "C0:00:00:00:00:09",
        "name": "C0:00:00:00:00:09",
        "address": "C0:00:00:00:00:09",
        "model": None,
        "monitor": None,
        "present": False,
        "last_seen": None,
        "values": {},
    }
