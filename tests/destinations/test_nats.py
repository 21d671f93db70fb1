"""NATS as it is spoken: acknowledgements, refusals, and servers that fail."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
import json
import logging
import re
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import issue_registry as ir
from nats.js.api import DiscardPolicy
import pytest
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations import outbox
from custom_components.ble_bridge.destinations.errors import Problem
from custom_components.ble_bridge.destinations.nats import NatsDestination
from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.nats_server import NatsCluster, NatsServer
from tests.conftest import ADDRESS, SimulatedScanner, wait_until
from tests.nats import (
    NatsProxy,
    NatsSubscriber,
    is_up,
    jetstream,
    nats_data,
    numbers,
    sensor,
    stored,
)

from ..devices.home import bthome
from .faults import Diagnose, lines, settle, stream

type Setup = Callable[..., Any]

SUBJECT = f"ble.raw.living-room-proxy.{ADDRESS}"


def destination(entry: Any) -> NatsDestination:
    """Return the only destination."""
    (found,) = entry.runtime_data.destinations.values()
    assert isinstance(found, NatsDestination)
    return found


async def test_speaks(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """Advertisements and heartbeats arrive, and all is accounted for."""
    async with NatsServer() as server, NatsSubscriber(server.url) as subscriber:
        data = nats_data(server.url, payload="json")
        entry = await setup_nats(data)
        await stream(scanner, 0, 100)
        await subscriber.wait_for(lambda s: len(s.on(".raw.")) == 100)
        assert numbers(subscriber.on(".raw.")) == list(range(100))
        assert {m.subject for m in subscriber.on(".raw.")} == {SUBJECT}
        diagnostics = await settle(diagnose, entry)
        (told,) = diagnostics["destinations"]
        assert told["counters"]["sent"] == 100
        assert told["protocol"] == "2.9.10"
        await hass.config_entries.async_unload(entry.entry_id)
        await subscriber.wait_for(
            lambda s: any(b'"stopped"' in m.data for m in s.on(".scanner."))
        )


# --- records ----------------------------------------------------------------------------

BALCONY = {"address": "A4:C1:38:AA:BB:CC", "alias": "Balcony"}
JETSTREAM = {"enabled": True}
READINGS = "ble.balcony.data"


@pytest.fixture(name="no_discovery", autouse=True)
def no_discovery_fixture() -> Iterator[None]:
    """Keep Home Assistant's own integrations from the devices of the tests."""
    with patch("homeassistant.helpers.discovery_flow.async_create_flow"):
        yield


async def say(scanner: SimulatedScanner, first: int, count: int) -> None:
    """Have a device say numbers, as hundredths of a degree."""
    for number in range(first, first + count):
        raw = bthome(packet_id=number, temperature=number / 100)
        scanner.hear(BALCONY["address"], raw=raw)
        if not number % 20:
            await asyncio.sleep(0)


async def begin(entry: Any, scanner: SimulatedScanner) -> None:
    """Have a device say the number 1, and wait until its packets can be read."""
    await say(scanner, 1, 1)
    await wait_until(lambda: destination(entry).tally(RecordKind.READING).received)


def said(payloads: Iterable[bytes]) -> list[int]:
    """Return the numbers that a device said."""
    return [round(json.loads(p)["data"]["temperature"] * 100) for p in payloads]


def readings(subscriber: NatsSubscriber) -> list[int]:
    """Return the numbers that arrived."""
    return said(message.data for message in subscriber.on(READINGS))


async def delivered(entry: Any) -> None:
    """Wait until nothing waits."""
    await wait_until(lambda: not destination(entry).outbox.waiting, 20)


async def stored_readings(url: str) -> list[int]:
    """Return the numbers that the stream of readings holds, in order."""
    return said(payload for _, payload in await stored(url, "BLE_READING"))


@pytest.mark.parametrize("enabled", [True, False])
async def test_acknowledged(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
    enabled: bool,
) -> None:
    """A record is acknowledged by JetStream, or by the PONG after it."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url) as subscriber,
    ):
        data = nats_data(server.url, payload="json", jetstream={"enabled": enabled})
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await say(scanner, 2, 299)
        await subscriber.wait_for(lambda s: len(s.on(READINGS)) == 300)
        await delivered(entry)
        assert readings(subscriber) == list(range(1, 301))
        assert destination(entry).tally(RecordKind.READING).acknowledged == 300
        assert destination(entry).tally(RecordKind.CONNECTIVITY).acknowledged == 1
        await settle(diagnose, entry)
        async with jetstream(server.url) as context:
            found = {stream.config.name for stream in await context.streams_info()}
        assert found == (
            {"BLE_READING", "BLE_ALERT", "BLE_ERROR", "BLE_CONNECTIVITY"}
            if enabled
            else set()
        )
        if enabled:
            assert await stored_readings(server.url) == list(range(1, 301))
            (message,) = subscriber.on("connectivity")
            assert re.fullmatch("[0-9a-f]{32}", (message.headers or {})["Nats-Msg-Id"])


async def test_advertisements_on_jetstream(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """Advertisements are acknowledged one by one, and sent again when they were not."""
    async with NatsServer(jetstream=True) as server, NatsProxy(server.port) as proxy:
        data = nats_data(
            proxy.url,
            payload="json",
            jetstream={"enabled": True, "stored": ["advertisement"]},
            delivery={"max_in_flight": 50, "publish_timeout": 0.5},
            first_delay=0.1,
        )
        entry = await setup_nats(data)
        await stream(scanner, 0, 200)
        await wait_until(lambda: not destination(entry).outbox.waiting)
        proxy.deaf = True
        await stream(scanner, 200, 30)
        await wait_until(lambda: not is_up(hass, data))
        proxy.deaf = False
        await wait_until(lambda: is_up(hass, data))
        await settle(diagnose, entry)
        tally = destination(entry).tally(RecordKind.ADVERTISEMENT)
        assert (tally.acknowledged, tally.sent) == (230, 0)
        found = await stored(server.url, "BLE_ADVERTISEMENT")
        assert {subject for subject, _ in found} == {SUBJECT}
        payloads = [json.loads(payload) for _, payload in found]
        assert [int(p["manufacturer_data"]["feff"], 16) for p in payloads] == list(
            range(230)
        )
        # What came again was not stored again.
        assert not any("is_resend" in payload for payload in payloads)
        async with jetstream(server.url) as context:
            config = (await context.stream_info("BLE_ADVERTISEMENT")).config
        assert config.duplicate_window == 120


@pytest.mark.parametrize("enabled", [True, False])
async def test_sent_again(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Setup, enabled: bool
) -> None:
    """What was not acknowledged is sent again; JetStream knows it, others can see it."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url) as subscriber,
        NatsProxy(server.port) as proxy,
    ):
        data = nats_data(
            proxy.url,
            payload="json",
            jetstream={"enabled": enabled},
            delivery={"publish_timeout": 0.5},
            first_delay=0.1,
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await delivered(entry)
        proxy.deaf = True
        await say(scanner, 2, 20)
        await subscriber.wait_for(lambda s: len(s.on(READINGS)) == 21)
        assert destination(entry).tally(RecordKind.READING).waiting == 20
        await wait_until(lambda: not is_up(hass, data))
        assert sensor(hass, data, "last_error") == Problem.TIMED_OUT
        proxy.deaf = False
        await subscriber.wait_for(lambda s: len(s.on(READINGS)) == 41)
        await delivered(entry)
        tally = destination(entry).tally(RecordKind.READING)
        assert (tally.acknowledged, tally.dropped) == (21, 0)
        marks = ["is_resend" in json.loads(m.data) for m in subscriber.on(READINGS)]
        assert marks == [False] * 21 + [True] * 20
        if enabled:
            assert await stored_readings(server.url) == list(range(1, 22))


@pytest.mark.parametrize("enabled", [True, False])
async def test_cut_in_a_batch(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Setup, enabled: bool
) -> None:
    """A connection that ends in the middle of a batch costs no record."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url) as subscriber,
        NatsProxy(server.port) as proxy,
    ):
        data = nats_data(
            proxy.url,
            payload="json",
            jetstream={"enabled": enabled},
            delivery={"drain_rate": 100_000},
            first_delay=0.1,
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        count = 1
        for size in (1_000, 7_777, 23_456):
            proxy.cut_after = size
            connections = proxy.connections
            await say(scanner, count + 1, 200)
            count += 200
            await wait_until(lambda: proxy.connections > connections)  # noqa: B023
            await wait_until(lambda: is_up(hass, data))
            await delivered(entry)
        await subscriber.wait_for(lambda s: len({*readings(s)}) == count)
        tally = destination(entry).tally(RecordKind.READING)
        assert (tally.acknowledged, tally.dropped) == (count, 0)
        if enabled:
            assert await stored_readings(server.url) == list(range(1, count + 1))


@pytest.mark.parametrize("enabled", [True, False])
async def test_server_is_killed(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    enabled: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Records wait for a server that is gone; it is told once that it is, and is back."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url) as subscriber,
    ):
        data = nats_data(
            server.url,
            payload="json",
            jetstream={"enabled": enabled},
            delivery={"reading": "durable"},
            first_delay=0.4,
            longest_delay=0.4,
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await say(scanner, 2, 9)
        await delivered(entry)
        await server.kill()
        await wait_until(lambda: not is_up(hass, data))
        await say(scanner, 11, 10)
        await asyncio.sleep(1)
        assert destination(entry).tally(RecordKind.READING).waiting == 10
        (error,) = lines(caplog, logging.ERROR)
        assert error.startswith("nats_disconnected: No connection to 127.0.0.1")
        await server.start()
        await wait_until(lambda: subscriber.client.is_connected)
        await delivered(entry)
        assert destination(entry).tally(RecordKind.READING).acknowledged == 20
        (info,) = [
            line for line in lines(caplog, logging.INFO) if "reconnected" in line
        ]
        assert info.startswith("nats_reconnected: Connected to 127.0.0.1")
        assert len(lines(caplog, logging.ERROR)) == 1
        if enabled:
            assert await stored_readings(server.url) == list(range(1, 21))


async def test_server_is_frozen(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """A server that says nothing is left; advertisements don't pile up for it."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url) as subscriber,
    ):
        data = nats_data(
            server.url,
            payload="json",
            delivery={"publish_timeout": 0.5},
            first_delay=0.1,
            connect_timeout=1,
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        server.freeze()
        await say(scanner, 2, 4)
        await stream(scanner, 0, 50_000, at_once=1_000)
        assert destination(entry).outbox.passing <= outbox.MAX_MESSAGES + 500
        assert destination(entry).tally(RecordKind.ADVERTISEMENT).overflow > 0
        await wait_until(lambda: not is_up(hass, data))
        server.thaw()
        await wait_until(lambda: is_up(hass, data))
        await delivered(entry)
        await settle(diagnose, entry)
        await subscriber.wait_for(lambda s: {*readings(s)} == {*range(1, 6)})
        assert destination(entry).tally(RecordKind.READING).acknowledged == 5


# --- refusals ---------------------------------------------------------------------------


async def test_denied(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
    hass_client: ClientSessionGenerator,
) -> None:
    """Only what may not be published is refused; the user is told, and it can be mended."""
    async with NatsServer(publish_deny=["ble.*.data"]) as server:
        data = nats_data(server.url, payload="json", delivery={"max_tries": 1})
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        (subentry_id,) = destinations(entry)
        await say(scanner, 2, 2)
        await wait_until(
            lambda: destination(entry).tally(RecordKind.READING).refused == 3
        )
        assert destination(entry).tally(RecordKind.CONNECTIVITY).acknowledged == 1
        assert destination(entry).last_error is Problem.NOT_AUTHORIZED
        issue = f"not_authorized_{subentry_id}"
        assert ir.async_get(hass).async_get_issue(DOMAIN, issue)
        await settle(diagnose, entry)

        allowing = NatsServer(server.port)
        await server.stop()
        async with allowing, NatsSubscriber(allowing.url) as subscriber:
            await wait_until(lambda: not is_up(hass, data))
            await wait_until(lambda: is_up(hass, data))
            assert await entry.runtime_data.async_retry(subentry_id) is None
            await subscriber.wait_for(lambda s: readings(s) == [1, 2, 3])
            assert not ir.async_get(hass).async_get_issue(DOMAIN, issue)
            tally = destination(entry).tally(RecordKind.READING)
            assert (tally.acknowledged, tally.refused) == (3, 0)


@pytest.mark.parametrize("enabled", [True, False])
async def test_advertisements_are_denied(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
    enabled: bool,
) -> None:
    """Advertisements that may not be published are counted, and not sent all the time."""
    async with NatsServer(jetstream=True, publish_deny=["ble.raw.>"]) as server:
        kinds = {"enabled": enabled, "stored": ["advertisement"]}
        data = nats_data(server.url, payload="json", jetstream=kinds)
        entry = await setup_nats(data)
        await stream(scanner, 0, 1)
        tally = destination(entry).tally(RecordKind.ADVERTISEMENT)
        await wait_until(lambda: destination(entry).last_error)
        assert destination(entry).last_error == Problem.NOT_AUTHORIZED
        await stream(scanner, 1, 100)
        await settle(diagnose, entry)
        tally = destination(entry).tally(RecordKind.ADVERTISEMENT)
        # The first one was sent before anybody had said so.
        assert tally.refused == (101 if enabled else 100)
        assert is_up(hass, data)


async def test_too_large(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """What is larger than the server takes is not sent: it would end the connection."""
    async with (
        NatsServer(max_payload=230) as server,
        NatsSubscriber(server.url) as subscriber,
    ):
        data = nats_data(server.url, payload="json")
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await stream(scanner, 0, 5)
        await say(scanner, 2, 1)
        await subscriber.wait_for(lambda s: len(s.on(READINGS)) == 2)
        await settle(diagnose, entry)
        tally = destination(entry).tally(RecordKind.ADVERTISEMENT)
        assert tally.failed == 7
        assert tally.sent == 0
        assert destination(entry).last_error is Problem.TOO_LARGE
        assert destination(entry).reconnects == 0


# --- JetStream --------------------------------------------------------------------------


def issues(hass: HomeAssistant, entry: Any) -> set[str]:
    """Return the issues of the only destination."""
    (subentry_id,) = destinations(entry)
    return {
        issue_id.removesuffix(f"_{subentry_id}")
        for domain, issue_id in ir.async_get(hass).issues
        if domain == DOMAIN and issue_id.endswith(subentry_id)
    }


def destinations(entry: Any) -> list[str]:
    """Return the subentries of the destinations."""
    return [*entry.runtime_data.destinations]


async def test_streams(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Setup
) -> None:
    """Streams are made as they are set, changed when that changes, and never emptied."""
    async with NatsServer(jetstream=True) as server:
        wishes: dict[str, Any] = {
            "enabled": True,
            "stored": ["reading"],
            "max_age_hours": 2,
            "max_megabytes": 3,
            "max_messages": 1_000,
            "duplicate_window": 60,
        }
        data = nats_data(
            server.url, namespace="home.ble", payload="json", jetstream=wishes
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await say(scanner, 2, 2)
        await delivered(entry)
        await hass.config_entries.async_unload(entry.entry_id)
        async with jetstream(server.url) as context:
            (info,) = await context.streams_info()
            config = info.config
            assert config.name == "HOME_BLE_READING"
            assert config.subjects == ["home.ble.*.data"]
            assert config.max_age == 2 * 3600
            assert config.max_bytes == 3 << 20
            assert config.max_msgs == 1_000
            assert config.duplicate_window == 60
            # What the user sets besides stays as it is.
            await context.update_stream(config, max_msg_size=50_000)
        changed = {**data, "jetstream": {**data["jetstream"], "max_messages": 10}}
        (subentry,) = (
            s for s in entry.subentries.values() if s.subentry_type == "destination"
        )
        hass.config_entries.async_update_subentry(entry, subentry, data=changed)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await wait_until(lambda: is_up(hass, data))
        async with jetstream(server.url) as context:
            (info,) = await context.streams_info()
            assert info.config.max_msgs == 10
            assert info.config.max_msg_size == 50_000
            assert info.state.messages == 3


async def test_no_jetstream(
    hass: HomeAssistant, setup_nats: Setup, tried_soon: None
) -> None:
    """A server without JetStream is a repair, until it has it."""
    async with NatsServer() as server:
        data = nats_data(server.url, jetstream=JETSTREAM, first_delay=None)
        entry = await setup_nats(data, connected=False)
        await wait_until(lambda: issues(hass, entry) == {"jetstream_missing"})
        assert sensor(hass, data, "last_error") == Problem.JETSTREAM_MISSING
        await server.stop()
        async with NatsServer(server.port, jetstream=True):
            await wait_until(lambda: is_up(hass, data))
            assert not issues(hass, entry)


async def test_stream_in_the_way(
    hass: HomeAssistant, setup_nats: Setup, tried_soon: None
) -> None:
    """A stream of somebody else's with our subjects is a repair, and is left alone."""
    async with NatsServer(jetstream=True) as server:
        async with jetstream(server.url) as context:
            await context.add_stream(name="theirs", subjects=["ble.>"])
        data = nats_data(server.url, jetstream=JETSTREAM, first_delay=None)
        entry = await setup_nats(data, connected=False)
        await wait_until(lambda: issues(hass, entry) == {"stream_conflict"})
        async with jetstream(server.url) as context:
            assert (await context.stream_info("theirs")).config.subjects == ["ble.>"]
            await context.delete_stream("theirs")
        await wait_until(lambda: is_up(hass, data))
        assert not issues(hass, entry)


async def test_stream_is_deleted(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Setup
) -> None:
    """A stream that somebody deletes is made again, and nothing is lost from then on."""
    async with NatsServer(jetstream=True) as server:
        data = nats_data(
            server.url, payload="json", jetstream=JETSTREAM, first_delay=0.1
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await say(scanner, 2, 2)
        await delivered(entry)
        async with jetstream(server.url) as context:
            await context.delete_stream("BLE_READING")
        await say(scanner, 4, 3)
        await wait_until(lambda: destination(entry).reconnects == 1)
        await delivered(entry)
        assert await stored_readings(server.url) == [4, 5, 6]
        assert destination(entry).tally(RecordKind.READING).acknowledged == 6


async def test_stream_is_full(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """A stream that takes no more pauses its records, and goes on when there is room."""
    async with NatsServer(jetstream=True) as server:
        data = nats_data(
            server.url, payload="json", jetstream={**JETSTREAM, "max_messages": 5}
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        async with jetstream(server.url) as context:
            config = (await context.stream_info("BLE_READING")).config
            await context.update_stream(config, discard=DiscardPolicy.NEW)
            await say(scanner, 2, 7)
            await wait_until(lambda: "quota_exceeded" in issues(hass, entry))
            await settle(diagnose, entry)
            assert destination(entry).tally(RecordKind.READING).acknowledged == 5
            await context.update_stream(
                config, discard=DiscardPolicy.NEW, max_msgs=1_000
            )
            await delivered(entry)
        assert await stored_readings(server.url) == list(range(1, 9))
        assert not issues(hass, entry)


async def test_may_not_use_jetstream(
    hass: HomeAssistant, setup_nats: Setup, tried_soon: None
) -> None:
    """Who may not ask JetStream is told at once, not after a time-out."""
    async with NatsServer(jetstream=True, publish_deny=["$JS.API.>"]) as server:
        data = nats_data(server.url, jetstream=JETSTREAM, first_delay=None)
        entry = await setup_nats(data, connected=False)
        await wait_until(
            lambda: destination(entry).last_error is Problem.NOT_AUTHORIZED, 5
        )


# --- a cluster --------------------------------------------------------------------------


async def test_cluster_loses_a_node(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Setup,
    diagnose: Diagnose,
) -> None:
    """The node that we are connected to is killed: nothing acknowledged is lost or doubled.

    The bridge knows one of the servers, and learns of the others.
    """
    async with NatsCluster(3) as cluster:
        data = nats_data(
            cluster.urls[0],
            payload="json",
            jetstream={**JETSTREAM, "replicas": "3"},
            delivery={
                "buffer_records": 100_000,
                "drain_rate": 100_000,
                "publish_timeout": 1,
            },
            first_delay=0.1,
            longest_delay=0.5,
            connect_timeout=5,
        )
        entry = await setup_nats(data, devices=[BALCONY])
        await begin(entry, scanner)
        await say(scanner, 2, 99)
        saying = asyncio.create_task(say_slowly(scanner, 101, 1_500))
        await asyncio.sleep(0.3)
        await cluster.nodes[0].kill()
        await saying
        await wait_until(lambda: not destination(entry).outbox.waiting, 30)
        assert is_up(hass, data)
        assert destination(entry).reconnects >= 1
        tally = destination(entry).tally(RecordKind.READING)
        assert (tally.acknowledged, tally.dropped) == (1_600, 0)
        await settle(diagnose, entry)
        found = await stored_readings(cluster.urls[1])
        assert sorted(found) == list(range(1, 1_601))
        assert found == sorted(found)


async def say_slowly(scanner: SimulatedScanner, first: int, count: int) -> None:
    """Have a device say numbers over a second or more."""
    for number in range(first, first + count, 20):
        await say(scanner, number, min(20, first + count - number))
        await asyncio.sleep(0.015)


# --- the action -------------------------------------------------------------------------


async def test_publish(hass: HomeAssistant, setup_nats: Setup) -> None:
    """An automation publishes on a subject, and hears of its acknowledgement."""
    async with (
        NatsServer() as server,
        NatsSubscriber(server.url, "lights") as subscriber,
    ):
        await setup_nats(nats_data(server.url))

        async def publish(subject: str) -> Any:
            return await hass.services.async_call(
                DOMAIN,
                "publish",
                {"topic": subject, "payload": "on"},
                blocking=True,
                return_response=True,
            )

        assert (await publish("lights.hall"))["outcome"] == "acknowledged"
        assert [(m.subject, m.data) for m in subscriber.messages] == [
            ("lights.hall", b"on")
        ]
        for subject in ("lights.*", "lights.>", "lights..hall", "", "a b", "x" * 2_000):
            with pytest.raises(ServiceValidationError):
                await publish(subject)
