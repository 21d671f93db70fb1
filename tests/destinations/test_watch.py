"""What comes in over a destination's connection: subscriptions, and messages of others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import json
import logging
from pathlib import Path
from typing import Any, override

from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
import pytest

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.mqtt import Watcher
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from ..conftest import SimulatedScanner, is_connected, wait_until
from ..monitors.garage import DEVICE, Garage, status, telemetry
from .faults import ObedientBroker, arrived, lines, state, stream

SHARING_UNAVAILABLE = b"\x2a\x00"
CONTROL = "publishClientSend", "$CONTROL/dynamic-security/v1"


@asynccontextmanager
async def garage_at(hass: HomeAssistant, broker: Any) -> AsyncIterator[Garage]:
    """Return a garage at a broker."""
    garage = Garage(hass, broker)
    try:
        yield garage
    finally:
        await garage.close()


@pytest.fixture(name="garage")
async def garage_fixture(
    hass: HomeAssistant, enable_bluetooth: None, broker: Mosquitto
) -> AsyncIterator[Garage]:
    """Return a garage whose bridge is not set up yet."""
    async with garage_at(hass, broker) as garage:
        yield garage


def issues(hass: HomeAssistant) -> set[str]:
    """Return what the user is told to mend."""
    return {
        issue.translation_key
        for (domain, _), issue in ir.async_get(hass).issues.items()
        if domain == DOMAIN and issue.translation_key
    }


# --- what is no message -------------------------------------------------------------------


class RudeBroker(ObedientBroker):
    """A broker that says something that is no MQTT to the first who subscribe."""

    def __init__(self, packet: bytes, times: int) -> None:
        """Initialize with what it says, and how often."""
        super().__init__()
        self.packet = packet
        self.times = times

    @override
    def on_subscribed(self) -> None:
        """Say it."""
        if self.times:
            self.times -= 1
            self.send(self.packet)


def publish(body: bytes, qos: int = 0) -> bytes:
    """Return a PUBLISH packet, shorter than 128 bytes."""
    return bytes((0x30 | qos << 1, len(body))) + body


NO_MESSAGES = {
    "5": {
        "not_utf_8": publish(b"\0\x03a/\xff\0\0hello"),
        "not_utf_8_qos_1": publish(b"\0\x03a/\xff\0\1\0hello", 1),
        "not_utf_8_qos_2": publish(b"\0\x03a/\xff\0\1\0hello", 2),
        "topic_cut_off": publish(b"\0\x03a\0"),
        "no_topic": publish(b"\0\0\0hello"),
        "nothing": publish(b""),
        "half_a_length": publish(b"\0"),
        "no_properties": publish(b"\0\x01a"),
        "half_an_identifier": publish(b"\0\x01a\0", 1),
        "properties_cut_off": publish(b"\0\x01a\x7f\x01\x01"),
        "properties_too_long": publish(b"\0\x01a\xff\xff\xff\xff\x01hello"),
        "properties_cut_off_qos_2": publish(b"\0\x01a\0\x01\xff", 2),
    },
    "3.1.1": {
        "not_utf_8": publish(b"\0\x03a/\xffhello"),
        "not_utf_8_qos_1": publish(b"\0\x03a/\xff\0\1hello", 1),
        "not_utf_8_qos_2": publish(b"\0\x03a/\xff\0\1hello", 2),
        "topic_cut_off": publish(b"\0\x09a"),
        "no_topic": publish(b"\0\0hello"),
        "half_an_identifier": publish(b"\0\x01a\0", 1),
        "half_an_identifier_qos_2": publish(b"\0\x01a\0", 2),
    },
}


@pytest.mark.parametrize(
    ("protocol", "name"),
    [(protocol, name) for protocol, packets in NO_MESSAGES.items() for name in packets],
)
@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_message_that_is_none(
    hass: HomeAssistant,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
    name: str,
) -> None:
    """A packet that is no message ends that connection only, with a line in the log."""
    times = 4
    broker = RudeBroker(NO_MESSAGES[protocol][name], times)
    async with broker, garage_at(hass, broker) as garage:
        await garage.start(destination={"protocol": protocol})
        await wait_until(lambda: broker.connects == times + 1)
        await garage.connected()
        said = json.dumps(status()).encode()
        topic = f"autocore/{DEVICE}/status".encode()
        head = len(topic).to_bytes(2) + topic + b"\0" * (protocol == "5")
        body = head + said
        assert 128 <= len(body) < 128 * 128
        broker.send(bytes((0x31, len(body) & 127 | 128, len(body) >> 7)) + body)
        await wait_until(lambda: garage.value("status") == "online")
        assert state(hass, broker.port, "last_error") == "not_mqtt"
        assert "Traceback" not in caplog.text
        invalid = [line for line in lines(caplog, logging.ERROR) if "not valid" in line]
        assert len(invalid) == times
        assert not issues(hass)


# --- subscriptions ------------------------------------------------------------------------


async def heard(garage: Garage, device: str, seconds: float = 10) -> None:
    """Have a device say something, and wait until it is heard."""
    await garage.say(f"autocore/{device}/status", status(device))
    await wait_until(lambda: garage.value("status", device) == "online", seconds)


async def outage(garage: Garage) -> None:
    """Have the broker go and come back, and wait until all monitors hear again."""
    await garage.broker.stop()
    await wait_until(lambda: not any(m.is_connected for m in garage.monitors))
    assert garage.value("listening", None) == "off"
    await garage.broker.start()
    await garage.connected()


def problem_of(garage: Garage) -> str | None:
    """Return why the broker does not let the monitor listen."""
    return garage.monitor.problem


class Rules:
    """Access rules of a Mosquitto that answers a subscription with a refusal.

    Those of its `acl_file` only keep messages back.
    """

    def __init__(self, path: Path) -> None:
        """Allow everything but to subscribe."""
        path.write_text(
            json.dumps(
                {
                    "defaultACLAccess": {
                        "publishClientSend": True,
                        "publishClientReceive": True,
                        "subscribe": False,
                        "unsubscribe": True,
                    },
                    "anonymousGroup": "anyone",
                    "groups": [{"groupname": "anyone", "roles": [{"rolename": "any"}]}],
                    "roles": [{"rolename": "any", "acls": [_rule(*CONTROL)]}],
                }
            )
        )
        path.chmod(0o600)
        plugins = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
        if (plugin := next(plugins, None)) is None:
            pytest.skip("This Mosquitto has no plugin for dynamic security")
        self.lines = [f"plugin {plugin}", f"plugin_opt_config_file {path}"]

    async def allow(self, garage: Garage, pattern: str) -> None:
        """Allow all to subscribe to a pattern; the broker ends all connections."""
        command = {
            "command": "addRoleACL",
            "rolename": "any",
            **_rule("subscribePattern", pattern),
        }
        await garage.say(CONTROL[1], {"commands": [command]})


def _rule(kind: str, topic: str) -> dict[str, Any]:
    """Return a rule that allows something."""
    return {"acltype": kind, "topic": topic, "allow": True}


@pytest.mark.parametrize(
    ("protocol", "problem"), [("5", "not_authorized"), ("3.1.1", "rejected")]
)
@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_not_allowed(
    hass: HomeAssistant, tmp_path: Path, protocol: str, problem: str
) -> None:
    """The user is told when the broker lets nobody listen, until it does."""
    rules = Rules(tmp_path / "rules.json")
    async with (
        Mosquitto(config_lines=rules.lines) as broker,
        garage_at(hass, broker) as garage,
    ):
        await garage.start(destination={"protocol": protocol}, connected=False)
        await wait_until(lambda: issues(hass))
        assert issues(hass) == {"monitor_refused"}
        assert is_connected(hass, broker.port)
        assert problem_of(garage) == problem
        assert not garage.monitor.is_connected
        await garage.restart()
        await wait_until(lambda: issues(hass) == {"monitor_refused"})
        await rules.allow(garage, "autocore/#")
        await garage.connected()
        assert not issues(hass)
        assert problem_of(garage) is None
        await heard(garage, DEVICE)
        await garage.restart()
        await garage.connected()
        assert not issues(hass)


@pytest.mark.parametrize(
    ("protocol", "granted", "problem", "issue"),
    [
        ("5", 0x80, "rejected", "monitor_refused"),
        ("5", 0x87, "not_authorized", "monitor_refused"),
        ("5", 0x97, "quota_exceeded", "monitor_refused"),
        ("5", 0x9E, "sharing_unsupported", "sharing_unsupported"),
        ("5", 0xA2, "rejected", "monitor_refused"),
        ("3.1.1", 0x80, "rejected", "monitor_refused"),
    ],
)
@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_refused(
    hass: HomeAssistant, protocol: str, granted: int, problem: str, issue: str
) -> None:
    """What the broker answers is what the user is told; a new connection may do better."""
    async with ObedientBroker() as broker, garage_at(hass, broker) as garage:
        broker.granted = granted
        await garage.start(destination={"protocol": protocol}, connected=False)
        await wait_until(lambda: issues(hass))
        assert issues(hass) == {issue}
        assert problem_of(garage) == problem
        assert garage.value("listening", None) == "off"
        broker.granted = 1
        broker.cut()
        await garage.connected()
        assert not issues(hass)
        assert problem_of(garage) is None


async def test_kept_back(
    hass: HomeAssistant, enable_bluetooth: None, tmp_path: Path
) -> None:
    """Mosquitto's `acl_file` lets all subscribe, and hear only what they may."""
    acl = tmp_path / "acl"
    acl.write_text("topic write #\n")
    async with (
        Mosquitto(config_lines=[f"acl_file {acl}"]) as broker,
        garage_at(hass, broker) as garage,
    ):
        await garage.start()
        await garage.say(f"autocore/{DEVICE}/status", status(), qos=1)
        acl.write_text("topic readwrite #\n")
        broker.reload()
        await wait_until(lambda: "Reloading config" in broker.log())
        await heard(garage, "second")
        assert list(garage.monitor.devices) == ["second"]
        assert not issues(hass)


@pytest.mark.usefixtures("tried_soon")
async def test_shared(garage: Garage) -> None:
    """Two who share get each message once between them."""
    await garage.start(
        {"share_group": "garages"},
        {"share_group": "garages", "at": 1},
        others=[{"client_id": "second", "topic_base": "second"}],
    )
    names = {f"device{number}" for number in range(40)}
    for round_ in (1, 2):
        for name in names:
            message = telemetry(name, temperature=round_)
            await garage.say(f"autocore/{name}/telemetry", message, qos=1)
        await wait_until(lambda: garage.judged >= round_ * len(names))  # noqa: B023
        await outage(garage)
    assert garage.judged == 2 * len(names)
    one, other = (set(monitor.devices) for monitor in garage.monitors)
    assert one | other == names
    assert one
    assert other


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.usefixtures("tried_soon", "enable_bluetooth")
async def test_sharing_unsupported(hass: HomeAssistant, protocol: str) -> None:
    """Nobody shares where the broker cannot, and the user is told so."""
    async with (
        ObedientBroker(SHARING_UNAVAILABLE) as broker,
        garage_at(hass, broker) as garage,
    ):
        await garage.start(
            {"share_group": "garages"},
            {"topic_base": "other"},
            destination={"protocol": protocol},
            connected=False,
        )
        shared, alone = garage.monitors
        await wait_until(lambda: alone.is_connected)
        assert issues(hass) == {"sharing_unsupported"}
        assert not shared.is_connected
        assert not any(name.startswith("$share") for name in broker.filters)
        hass.config_entries.async_update_subentry(
            garage.entry,
            garage.entry.subentries[shared.subentry_id],
            data=garage.data(),
        )
        await hass.async_block_till_done()
        await garage.connected()
        assert not issues(hass)


@pytest.mark.usefixtures("tried_soon")
async def test_comes_back(hass: HomeAssistant, garage: Garage) -> None:
    """After each outage all is subscribed to again."""
    await garage.start({}, {"topic_base": "other"})
    for name in ("first", "second"):
        await heard(garage, name)
        await outage(garage)
    await heard(garage, "third")
    await garage.say("other/theirs/status", status("theirs"))
    mine, other = garage.monitors
    await wait_until(lambda: other.devices)
    assert list(other.devices) == ["theirs"]
    assert list(mine.devices) == ["first", "second", "third"]
    assert 0 < mine.uptime < 100
    assert not issues(hass)


class Ear(Watcher):
    """Who listens to some topics."""

    is_shared = False

    def __init__(self, *filters: str, qos: int = 1) -> None:
        """Initialize with what to listen to."""
        self.filters = filters
        self.qos = qos
        self.heard: list[str] = []
        self.answers: list[Problem | None] = []

    @override
    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        self.heard.append(topic)

    @override
    def on_subscribed(self, problem: Problem | None) -> None:
        self.answers.append(problem)

    @override
    def on_away(self) -> None:
        self.answers.append(Problem.CONNECTION_LOST)


@pytest.mark.usefixtures("tried_soon")
async def test_who_comes_later_and_goes(garage: Garage) -> None:
    """Who begins to listen over an open connection hears, until they listen no more."""
    await garage.start()
    (destination,) = garage.entry.runtime_data.destinations.values()
    one, two = Ear("one/+"), Ear("two/#", qos=0)
    for ear in (one, two):
        destination.watch(ear)
    await wait_until(lambda: one.answers == two.answers == [None])
    await garage.say("one/a", b"1", qos=1)
    await garage.say("two/b/c", b"2", qos=1)
    # What one of them subscribed to all are told of: each knows what it wants
    await wait_until(lambda: {"one/a", "two/b/c"} <= set(one.heard))
    assert one.heard == two.heard
    destination.unwatch(two)
    destination.unwatch(two)
    await garage.say("two/d", b"3", qos=1)
    await garage.say("one/e", b"4", qos=1)
    await wait_until(lambda: "one/e" in one.heard)
    assert "two/d" not in one.heard
    assert "one/e" not in two.heard
    await outage(garage)
    await wait_until(lambda: len(one.answers) == 3)
    assert one.answers == [None, Problem.CONNECTION_LOST, None]
    assert two.answers == [None]
    assert not garage.monitor.devices


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_session_that_is_kept(garage: Garage, protocol: str) -> None:
    """What was said meanwhile comes later where the broker keeps the session, and once."""
    await garage.start(destination={"clean_session": False, "protocol": protocol})
    entries = garage.hass.config_entries
    assert await entries.async_unload(garage.entry.entry_id)
    for number in range(30):
        message = telemetry(number=number)
        await garage.say(f"autocore/{DEVICE}/telemetry", message, qos=1)
    assert await entries.async_setup(garage.entry.entry_id)
    await garage.connected()
    await heard(garage, "later")
    assert garage.monitor.processed == 31
    assert garage.value("field!number") == "29"


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_no_subscription_is_left(
    hass: HomeAssistant, enable_bluetooth: None, protocol: str
) -> None:
    """Where the broker keeps the session, it is told what is watched no more."""
    async with (
        Mosquitto(config_lines=["log_type all"]) as broker,
        garage_at(hass, broker) as garage,
    ):
        kept = {"clean_session": False, "protocol": protocol}
        await garage.start({}, {"topic_base": "other"}, destination=kept)
        mine, _ = garage.monitors

        async def sent(base: str) -> int:
            """Return how often a message of a base is sent to us, once it is."""
            topic = f"{base}/{DEVICE}/status"
            before = broker.log(10_000).count(f"'{topic}'")
            await garage.say(topic, status(), qos=1)
            said = broker.log(10_000).splitlines()
            assert sum(f"'{topic}'" in line for line in said) > before
            return sum(
                f"'{topic}'" in line and "Sending PUBLISH to ble-bridge-test" in line
                for line in said
            )

        assert await sent("autocore") == 1
        assert await sent("other") == 1
        hass.config_entries.async_remove_subentry(garage.entry, mine.subentry_id)
        await hass.async_block_till_done()
        await garage.connected()
        assert await sent("autocore") == 1
        assert await sent("other") == 2
        await garage.change(topic_base="third")
        assert await sent("other") == 2
        assert await sent("third") == 1
        if protocol == "5":
            await garage.change(share_group="garages")
            assert await sent("third") == 2
            await garage.change(share_group="others")
            assert await sent("third") == 3
            await garage.change(share_group=None)
            assert await sent("third") == 4


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_both_ways(
    hass: HomeAssistant, scanner: SimulatedScanner, qos: int
) -> None:
    """At full speed in both directions, all arrives, in order."""
    count = 3_000
    async with (
        Mosquitto(config_lines=["max_queued_messages 0"]) as broker,
        garage_at(hass, broker) as garage,
        Subscriber(broker.port, "ble/raw/#") as subscriber,
    ):
        await garage.start({"qos": qos}, destination={"raw": True, "qos": min(qos, 1)})
        shown = []

        @callback
        def show(event: Event[EventStateChangedData]) -> None:
            if event.data["entity_id"].endswith("_number") and event.data["new_state"]:
                shown.append(event.data["new_state"].state)

        unsubscribe = hass.bus.async_listen(EVENT_STATE_CHANGED, show)
        async with asyncio.TaskGroup() as group:
            group.create_task(stream(scanner, 0, 5 * count))
            for number in range(count):
                message = telemetry(number=f"{number:05}")
                await garage.say(f"autocore/{DEVICE}/telemetry", message)
                if number % 20 == 0:
                    await asyncio.sleep(0)
        await wait_until(lambda: garage.monitor.processed == count, 60)
        await subscriber.wait_for(lambda s: s.count() == 5 * count)
        assert arrived(subscriber) == list(range(5 * count))
        await hass.async_block_till_done()
        unsubscribe()
        assert shown == [f"{number:05}" for number in range(count)]
        assert garage.monitor.errors == 0
