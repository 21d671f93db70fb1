"""What could not be understood: where it is told, and how it gets a second chance."""

import asyncio
from typing import Any

from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
import orjson
import pytest
import voluptuous as vol

from custom_components.ble_bridge.monitors.messages import Reason
from scripts.simulation.subscriber import Subscriber

from ..conftest import ADDRESS, wait_until
from ..test_actions import act, device_id, problem
from .garage import DEVICE, Clock, Garage, relay, status, telemetry

UNREAD = "garage/unread"


# --- on a topic ---------------------------------------------------------------------------


async def test_dead_letter_topic(garage: Garage) -> None:
    """What could not be understood is published where the user says, with the reason."""
    await garage.start({"dead_letter_topic": UNREAD, "max_kilobytes": 1})
    async with Subscriber(garage.broker.port, UNREAD) as subscriber:
        await garage.tell(f"{DEVICE}/status", b"\xff{")
        await garage.tell(f"{DEVICE}/telemetry", telemetry("other"), retain=True)
        await garage.tell(f"{DEVICE}/telemetry", b"x" * 20_000)
        await subscriber.wait_for(lambda s: len(s.messages) == 3)
    said = [message.json() for message in subscriber.messages]
    assert not any(message.retain for message in subscriber.messages)
    letters = list(garage.monitor.dead_letters)
    assert [set(message) for message in said] == [
        {"topic", "reason", "payload", "size", "monitor", "timestamp"}
    ] * 3
    assert [(m["topic"], m["reason"], m["size"]) for m in said] == [
        (f"autocore/{DEVICE}/status", "not_json", 2),
        (f"autocore/{DEVICE}/telemetry", "id_mismatch", letters[1].size),
        (f"autocore/{DEVICE}/telemetry", "too_large", 20_000),
    ]
    assert [message["payload"] for message in said] == [
        "\ufffd{",
        letters[1].payload.decode(),
        "x" * 64,
    ]
    assert {message["monitor"] for message in said} == {"Garage"}
    assert all(message["timestamp"].endswith("Z") for message in said)


async def test_flood_of_dead_letters(garage: Garage, clock: Clock) -> None:
    """A flood of them makes no flood there; all are counted, and the newest are kept."""
    await garage.start({"dead_letter_topic": UNREAD})
    monitor = garage.monitor
    clock.stop()
    async with Subscriber(garage.broker.port, UNREAD) as subscriber:
        for second in range(1, 4):
            for number in range(200):
                monitor.on_message(
                    f"autocore/{number}/status", b"%d{" % second, retained=False
                )
            await wait_until(lambda: not monitor.queued)
            await subscriber.wait_for(lambda s: s.count() == 10 * second)  # noqa: B023
            clock.advance(1)
        await garage.say(UNREAD, b"last", qos=1)
        await subscriber.wait_for_message(UNREAD, b"last")
        assert subscriber.count() == 31
    assert monitor.dead_letters.counts == {Reason.NOT_JSON: 600}
    assert [letter.topic for letter in monitor.dead_letters] == [
        f"autocore/{number}/status" for number in range(100, 200)
    ]
    # A clock that is set back holds nothing up
    clock.advance(-3600)
    async with Subscriber(garage.broker.port, UNREAD) as subscriber:
        monitor.on_message("autocore/1/status", b"{", retained=False)
        await subscriber.wait_for(lambda s: s.count() == 1)
    await garage.tick(31)
    assert garage.value("dead_letters", None) == "601"


async def test_dead_letters_without_broker(garage: Garage) -> None:
    """What nobody can be told is counted nevertheless, and nothing waits for it."""
    await garage.start({"dead_letter_topic": UNREAD})
    await garage.broker.stop()
    await wait_until(lambda: not garage.monitor.is_connected)
    garage.monitor.on_message(f"autocore/{DEVICE}/status", b"{", retained=False)
    await wait_until(lambda: garage.monitor.errors == 1)
    await garage.restart()
    assert len(garage.monitor.dead_letters) == 1
    assert garage.monitor.dead_letters.total == 0


# --- a second chance ----------------------------------------------------------------------


async def retry(garage: Garage, **data: Any) -> tuple[int, int]:
    """Publish again what was not understood; return how many were, and were not."""
    answer = await act(garage.hass, "retry_dead_letters", **data)
    assert answer.keys() == {"published", "kept"}
    return answer["published"], answer["kept"]


async def test_retry(garage: Garage) -> None:
    """When there is room for more devices, what they said is heard after all."""
    await garage.start({"max_devices": 1})
    for name in (DEVICE, "second", "third"):
        await garage.tell(f"{name}/status", status(name))
        await garage.tell(f"{name}/relay/0/status", relay(0, name))
    await garage.tell(f"{DEVICE}/status", b"{")
    await garage.change(max_devices=10)
    assert await retry(garage, reason="too_many_devices") == (4, 0)
    await wait_until(lambda: garage.value("relay!0", "third") == "on")
    assert garage.value("status", "second") == "online"
    assert [letter.reason for letter in garage.monitor.dead_letters] == ["not_json"]
    assert await retry(garage, reason="too_large") == (0, 0)
    # What still cannot be understood comes back
    assert await retry(garage) == (1, 0)
    await wait_until(lambda: len(garage.monitor.dead_letters) == 1)
    assert garage.monitor.dead_letters.counts == {Reason.NOT_JSON: 1}


async def test_retry_what_was_too_large(garage: Garage) -> None:
    """When larger messages are allowed, those that were kept whole are heard."""
    await garage.start({"max_kilobytes": 1})
    await garage.tell(f"{DEVICE}/telemetry", telemetry(text="x" * 2_000))
    await garage.tell(f"{DEVICE}/telemetry", telemetry(other="x" * 20_000))
    await garage.change(max_kilobytes=64)
    assert await retry(garage) == (1, 1)
    await wait_until(lambda: garage.value("field!text") == "x" * 255)
    assert garage.entity_id("field!other") is None
    (letter,) = garage.monitor.dead_letters
    assert (letter.is_whole, letter.reason) == (False, Reason.TOO_LARGE)


async def test_retry_twice_at_once(garage: Garage) -> None:
    """Who asks twice gets each message once."""
    await garage.start({"max_devices": 1})
    for number in range(20):
        await garage.tell(f"device{number}/status", status(f"device{number}"))
    await garage.change(max_devices=50)
    async with Subscriber(garage.broker.port, "autocore/#") as subscriber:
        answers = await asyncio.gather(*(retry(garage) for _ in range(3)))
        assert sorted(answers) == [(0, 0), (0, 0), (19, 0)]
        await wait_until(lambda: len(garage.monitor.devices) == 20)
        await garage.say("autocore/last", b"", qos=1)
        await subscriber.wait_for_message("autocore/last")
        assert len(subscriber.messages) == 20


async def test_retry_what_cannot_be_published(garage: Garage) -> None:
    """A topic that no user may publish to is left alone; it holds up no other."""
    await garage.start()
    for topic in ("autocore/\x01/status", f"autocore/{DEVICE}/status"):
        garage.monitor.on_message(topic, b"{", retained=False)
    await wait_until(lambda: garage.monitor.errors == 2)
    assert await retry(garage) == (1, 1)


async def test_retry_of_one_monitor(garage: Garage) -> None:
    """An action names a monitor by its device, or means all of them."""
    await garage.start({}, {"topic_base": "other"}, devices=[{"address": ADDRESS}])
    for base in ("autocore", "other"):
        await garage.say(f"{base}/{DEVICE}/status", b"{")
    await wait_until(lambda: garage.judged == 2)
    one, _ = garage.monitors
    assert await retry(garage, device_id=one.device_id) == (1, 0)
    await wait_until(lambda: one.errors == 2)
    assert await retry(garage) == (2, 0)
    await garage.tell(f"{DEVICE}/telemetry", telemetry())
    monitored = garage.device()
    assert monitored is not None
    for owner in (
        monitored.id,
        device_id(garage.hass, garage.destination_ids[0]),
        garage.entry.runtime_data.device_id,
        "nothing",
    ):
        with pytest.raises(ServiceValidationError) as err:
            await retry(garage, device_id=owner)
        assert problem(err) == "not_a_monitor"
    with pytest.raises(vol.Invalid):
        await retry(garage, reason="not_a_reason")


async def test_retry_without_broker(garage: Garage) -> None:
    """What cannot be published stays, and who asked is told why."""
    await garage.start({}, {"topic_base": "other"})
    await garage.tell(f"{DEVICE}/status", b"{")
    await garage.broker.stop()
    await wait_until(lambda: not garage.monitors[0].is_connected)
    with pytest.raises(HomeAssistantError, match="Garage has no connection") as err:
        await retry(garage)
    assert problem(err) == "monitor_away"
    assert len(garage.monitors[0].dead_letters) == 1


async def test_retry_while_the_broker_freezes(garage: Garage) -> None:
    """What the broker does not take in time stays, and so does all after it."""
    await garage.start(destination={"delivery": {"publish_timeout": 0.3}})
    for number in range(3):
        await garage.tell(f"{number}/status", b"{")
    garage.broker.freeze()
    try:
        assert await retry(garage) == (0, 3)
        assert len(garage.monitor.dead_letters) == 3
    finally:
        garage.broker.thaw()


async def test_retry_without_monitor(garage: Garage) -> None:
    """Without a monitor, or without a bridge, there is nothing to be heard."""
    await garage.start()
    entries = garage.hass.config_entries
    entries.async_remove_subentry(garage.entry, garage.monitor.subentry_id)
    await garage.hass.async_block_till_done()
    for _ in range(2):
        with pytest.raises(ServiceValidationError) as err:
            await retry(garage)
        assert problem(err) == "no_monitor"
        await entries.async_unload(garage.entry.entry_id)


# --- what is known ------------------------------------------------------------------------


async def test_get_devices(garage: Garage) -> None:
    """All devices are listed, those of monitors with the monitor that hears them."""
    await garage.start(
        {},
        {"preset": "ble_bridge", "topic_base": "ble"},
        devices=[{"address": ADDRESS}],
    )
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/telemetry", telemetry(door=True))
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    await garage.say("ble/bridge/attic/status", b"offline", retain=True)
    await wait_until(lambda: garage.monitors[1].devices)
    answer = await act(garage.hass, "get_devices")
    own, monitored, bridge = answer["devices"]
    assert own["address"] == ADDRESS
    assert own["monitor"] is None
    assert monitored.pop("last_seen").endswith("Z")
    assert monitored == {
        "device": DEVICE,
        "name": DEVICE,
        "address": "192.168.1.100",
        "model": None,
        "monitor": "Garage",
        "present": True,
        "values": {
            "temperature": 25.6,
            "humidity": 45.2,
            "voltage": 3.28,
            "memory_free": 45120,
            "door": True,
            "relay_0": True,
        },
    }
    assert (bridge["device"], bridge["name"]) == ("attic", "Bridge attic")
    assert (bridge["model"], bridge["present"]) == ("Bridge", False)
    assert orjson.loads(orjson.dumps(answer)) == answer
