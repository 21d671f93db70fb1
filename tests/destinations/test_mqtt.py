"""MQTT as it is spoken: versions, transports, quality of service, and refusals."""

import asyncio
from collections.abc import Callable, Iterator
import json
import logging
from pathlib import Path
import socket
from typing import Any

from homeassistant.components.bluetooth import MONOTONIC_TIME
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from paho.mqtt.client import Client
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations import destination, mqtt, outbox
from custom_components.ble_bridge.destinations.mqtt_connection import (
    MqttConnector,
    MqttSettings,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber
from tests.conftest import (
    ADDRESS,
    SimulatedScanner,
    destination_data,
    is_connected,
    wait_until,
)
from tests.forms import Certificate, make_certificate

from .faults import (
    Diagnose,
    ObedientBroker,
    Proxy,
    arrived,
    lines,
    settle,
    state,
    stream,
)

type Setup = Callable[..., Any]

RECEIVE_MAXIMUM_3 = b"\x21\x00\x03"
MAXIMUM_QOS_0 = b"\x24\x00"


def raw_numbers(broker: ObedientBroker) -> list[int]:
    """Return the numbers of the advertisements that a broker was given."""
    return [
        int(json.loads(payload)["manufacturer_data"]["feff"], 16)
        for _, payload, _ in broker.raw
    ]


# --- transports ---------------------------------------------------------------------------


@pytest.fixture(name="certificate", scope="module")
def certificate_fixture(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for the loopback address."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("websockets", [False, True])
async def test_transports(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    certificate: Certificate,
    tls: bool,
    websockets: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches arrive whole over each transport, also when the broker stops to read.

    The settings come from Home Assistant's own MQTT integration.
    """
    plain = Mosquitto()
    broker = Mosquitto(
        config_lines=[
            *(["protocol websockets"] if websockets else []),
            "max_queued_messages 0",
            f"listener {plain.port} 127.0.0.1",
        ],
        certificate=certificate.path if tls else None,
        key=certificate.key if tls else None,
    )
    MockConfigEntry(
        domain="mqtt",
        data={
            "broker": "127.0.0.1",
            "port": broker.port,
            **({"certificate": certificate.path.read_text()} if tls else {}),
            **({"transport": "websockets", "ws_path": "/mqtt"} if websockets else {}),
        },
    ).add_to_hass(hass)
    opened = MqttConnector._open

    def open_narrow(self: MqttConnector, *args: Any) -> Client:
        client = opened(self, *args)
        sock: Any = client.socket()
        getattr(sock, "_socket", sock).setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 8192
        )
        return client

    # A socket that seldom takes a batch whole; what the kernel does not take waits here.
    monkeypatch.setattr(MqttConnector, "_open", open_narrow)
    monkeypatch.setattr(outbox, "MAX_MESSAGES", 100_000)
    monkeypatch.setattr(outbox, "MAX_BYTES", 100_000_000)
    count = 6_000
    async with broker, Subscriber(plain.port) as subscriber:
        entry = await setup(destination_data(broker.port, broker="home_assistant"))
        await stream(scanner, 0, 100)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 100)
        broker.freeze()
        await stream(scanner, 100, count)
        await asyncio.sleep(0.3)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert counters["waiting"] > 0
        assert counters["dropped"] == 0
        broker.thaw()
        await subscriber.wait_for(lambda s: len(arrived(s)) == count + 100, 20)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert counters["sent"] == count + 100
        assert await hass.config_entries.async_unload(entry.entry_id)
        await subscriber.wait_for_message("ble/bridge/home/status", b"offline")
    assert arrived(subscriber) == list(range(count + 100))


# --- versions -----------------------------------------------------------------------------


async def test_falls_back_to_311(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    quick: None,
) -> None:
    """A broker that knows 3.1.1 only is spoken to in 3.1.1, and asked only once."""
    async with Proxy(broker.port) as proxy:
        proxy.refuse_5 = True
        entry = await setup(destination_data(proxy.port))
        assert proxy.connections == 2
        await stream(scanner, 0, 5)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 5)
        diagnostics = await diagnose(entry)
        assert diagnostics["destinations"][0]["protocol"] == "3.1.1"
        proxy.cut()
        await wait_until(lambda: not is_connected(hass, proxy.port))
        await wait_until(lambda: is_connected(hass, proxy.port))
        assert proxy.connections == 3
        await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_two_clients_with_one_id(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two clients that take each other's session end as an issue, not as a storm."""
    monkeypatch.setattr(destination, "FIRST_DELAY", 0.1)
    registry = ir.async_get(hass)
    async with Proxy(broker.port) as proxy:
        data = destination_data(proxy.port, protocol=protocol, client_id="twice")
        entry = await setup(data, {**data, "topic_base": "other"}, connected=False)
        subentries = list(entry.subentries)

        def issues() -> list[bool]:
            return [
                registry.async_get_issue(DOMAIN, f"client_id_taken_{subentry}")
                is not None
                for subentry in subentries
            ]

        await wait_until(lambda: any(issues()), 20)
        # One of them waits a minute from now on, and the other one is left in peace.
        await asyncio.sleep(0.5)
        connections = proxy.connections
        await asyncio.sleep(2)
        assert proxy.connections <= connections + 1
        assert connections <= 12
        await stream(scanner, 0, 5)
        diagnostics = await diagnose(entry)
        connected = [d["connected"] for d in diagnostics["destinations"]]
        assert sorted(connected) == [False, True]
        assert "client_id_taken" in [
            d["last_error"] for d in diagnostics["destinations"]
        ]
        assert len(lines(caplog, logging.ERROR)) <= 8
        await hass.config_entries.async_unload(entry.entry_id)
        assert not any(issues())


async def dispute(hass: HomeAssistant, port: int) -> None:
    """Have another client of the same ID take the connection, until it is clear that one does."""
    other = MqttConnector(MqttSettings(host="127.0.0.1", port=port, client_id="twice"))
    for _ in range(3):
        connection = await other.async_connect()
        await wait_until(lambda: not is_connected(hass, port))
        connection.abort()
        await wait_until(lambda: is_connected(hass, port))


async def test_dispute_ends(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the other client is gone for long enough, all is well again, and said once."""
    monkeypatch.setattr(destination, "LONGEST_DELAY", 0.3)
    monkeypatch.setattr(mqtt, "UNDISPUTED", 1)
    entry = await setup(destination_data(broker.port, client_id="twice"))
    issue_id = f"client_id_taken_{next(iter(entry.subentries))}"
    registry = ir.async_get(hass)
    await dispute(hass, broker.port)
    assert registry.async_get_issue(DOMAIN, issue_id)
    await wait_until(lambda: not registry.async_get_issue(DOMAIN, issue_id))
    # Each of the losses until it is clear what they are; then silence until it is over.
    assert len(lines(caplog, logging.ERROR)) == 3
    assert len(lines(caplog, logging.INFO)) == 3


async def test_dispute_is_left(
    hass: HomeAssistant,
    broker: Mosquitto,
    setup: Setup,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bridge that is unloaded meanwhile says no more that all is well."""
    monkeypatch.setattr(destination, "LONGEST_DELAY", 0.3)
    entry = await setup(destination_data(broker.port, client_id="twice"))
    await dispute(hass, broker.port)
    (destination_,) = entry.runtime_data.destinations.values()
    timer = destination_._undisputed
    assert timer is not None
    await hass.config_entries.async_unload(entry.entry_id)
    assert timer.cancelled()


# --- limits and refusals ------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
async def test_maximum_packet_size(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    qos: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the broker says is too large for it does not go out, and is counted."""
    large = bytes.fromhex("fbfffeff") + bytes(248)
    async with (
        Mosquitto(config_lines=["max_packet_size 800"]) as broker,
        Subscriber(broker.port) as subscriber,
    ):
        entry = await setup(destination_data(broker.port, qos=qos))
        await stream(scanner, 0, 2)
        for _ in range(3):
            scanner.hear(raw=large)
        await stream(scanner, 2, 2)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 4)
        [destination] = (await settle(diagnose, entry))["destinations"]
        assert destination["counters"]["failed"] == 3
        assert destination["counters"]["acknowledged" if qos else "sent"] == 4
        assert destination["last_error"] == "too_large"
        assert destination["reconnects"] == 0
        assert len(lines(caplog, logging.ERROR)) == 1
        await hass.config_entries.async_unload(entry.entry_id)


async def test_broker_that_takes_next_to_nothing(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup, diagnose: Diagnose
) -> None:
    """Heartbeats that are too large for a broker do not cost the connection."""
    async with Mosquitto(config_lines=["max_packet_size 100"]) as broker:
        entry = await setup(destination_data(broker.port))
        await stream(scanner, 0, 5)
        await asyncio.sleep(0.2)
        [destination] = (await diagnose(entry))["destinations"]
        assert destination["connected"]
        assert destination["counters"]["failed"] == 5
        await hass.config_entries.async_unload(entry.entry_id)


async def test_refused_by_puback(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At QoS 1 a broker says which messages it does not allow; they are counted."""
    acl = tmp_path / "acl"
    acl.write_text("topic write ble/bridge/#\ntopic write ble/scanner/#\n")
    async with Mosquitto(config_lines=[f"acl_file {acl}"]) as broker:
        entry = await setup(destination_data(broker.port, qos=1))
        await stream(scanner, 0, 250)
        diagnostics = await settle(diagnose, entry)
        assert diagnostics["destinations"][0]["counters"]["refused"] == 250
        assert len(lines(caplog, logging.ERROR)) == 1
        await hass.config_entries.async_unload(entry.entry_id)


async def test_data_that_no_payload_can_say(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is not as the stack promises is counted, said once, and harms no other."""
    entry = await setup(destination_data(broker.port))
    for number in range(3):
        data = {0xFFFE: bytes([number])}
        broken: Any = 1 << 70
        scanner._async_on_advertisement(
            ADDRESS, -50, None, [], {}, data, broken, {}, MONOTONIC_TIME()
        )
    await stream(scanner, 0, 2)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 2)
    [destination] = (await diagnose(entry))["destinations"]
    assert destination["counters"]["failed"] == 3
    assert destination["last_error"] == "invalid_data"
    assert len(lines(caplog, logging.ERROR)) == 1


async def test_no_qos_1_at_broker(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup, diagnose: Diagnose
) -> None:
    """A broker whose maximum is QoS 0 gets QoS 0."""
    async with ObedientBroker(MAXIMUM_QOS_0) as broker:
        entry = await setup(destination_data(broker.port, qos=1))
        await stream(scanner, 0, 5)
        await wait_until(lambda: len(broker.raw) == 5)
        assert {identifier for _, _, identifier in broker.messages} == {None}
        [destination] = (await diagnose(entry))["destinations"]
        assert destination["counters"]["sent"] == 5
        await hass.config_entries.async_unload(entry.entry_id)


# --- QoS 1 --------------------------------------------------------------------------------


async def test_qos_1_arrives(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
) -> None:
    """A burst at QoS 1 is acknowledged to the last message."""
    async with Subscriber(broker.port, qos=1) as subscriber:
        entry = await setup(destination_data(broker.port, qos=1))
        await stream(scanner, 0, 900)
        await subscriber.wait_for(lambda s: len(arrived(s)) == 900)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert counters["acknowledged"] + counters["waiting"] == 900
    assert arrived(subscriber) == list(range(900))
    assert {m.qos for m in subscriber.messages if "/raw/" in m.topic} == {1}


async def test_qos_1_waits_and_is_sent_again(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    diagnose: Diagnose,
    quick: None,
) -> None:
    """No more than the broker takes are under way, and these are sent again."""
    async with ObedientBroker(RECEIVE_MAXIMUM_3) as broker:
        entry = await setup(destination_data(broker.port, qos=1))
        await stream(scanner, 0, 10)
        await asyncio.sleep(0.2)
        assert raw_numbers(broker) == [0, 1, 2]
        identifiers: Iterator[Any] = iter([m[2] for m in broker.raw])
        broker.acknowledge(next(identifiers))
        broker.acknowledge(next(identifiers), 0x87)
        await wait_until(lambda: len(broker.raw) == 5)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert (counters["acknowledged"], counters["refused"]) == (1, 1)
        assert counters["waiting"] == 8
        broker.cut()
        broker.messages.clear()
        await wait_until(lambda: not is_connected(hass, broker.port))
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert (counters["away"], counters["waiting"]) == (5, 3)
        await wait_until(lambda: len(broker.raw) == 3)
        assert raw_numbers(broker) == [2, 3, 4]
        await stream(scanner, 10, 1)
        for _, _, identifier in list(broker.raw):
            assert identifier is not None
            broker.acknowledge(identifier)
        await wait_until(lambda: len(broker.raw) == 4)
        counters = (await diagnose(entry))["destinations"][0]["counters"]
        assert (counters["acknowledged"], counters["waiting"]) == (4, 1)
        assert await hass.config_entries.async_unload(entry.entry_id)


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (b"\xe0\x01\x8b", "connection_lost"),
        (b"\xe0\x01\x97", "quota_exceeded"),
        (b"\xe0\x01\x87", "not_authorized"),
        (b"\xe0\x01\x95", "too_large"),
        (b"\xe0\x01\x99", "refused"),
        (b"\xe0\x02\x8e\x00", "client_id_taken"),
        (b"\xe0\x00", "connection_lost"),
        (b"\x00\x00", "connection_lost"),
    ],
)
async def test_broker_ends_the_connection(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    packet: bytes,
    problem: str,
) -> None:
    """What the broker says on its way out is what the user is told."""
    async with ObedientBroker() as broker:
        entry = await setup(destination_data(broker.port))
        broker.send(packet)
        await wait_until(lambda: not is_connected(hass, broker.port))
        assert state(hass, broker.port, "last_error") == problem
        await hass.config_entries.async_unload(entry.entry_id)


async def test_packet_that_paho_cannot_read(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    quick: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A packet that makes paho raise is logged, and ends that connection only."""
    async with ObedientBroker() as broker:
        entry = await setup(destination_data(broker.port))
        broker.send(b"\xe0\x04\x9c\x02\xff\xff")
        await wait_until(lambda: not is_connected(hass, broker.port))
        assert "A packet of the broker could not be understood" in caplog.text
        await wait_until(lambda: is_connected(hass, broker.port))
        await stream(scanner, 0, 1)
        await wait_until(lambda: raw_numbers(broker) == [0])
        await hass.config_entries.async_unload(entry.entry_id)


async def test_nonsense_instead_of_connack(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Setup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An answer that is no CONNACK is no MQTT, and not worth a traceback."""
    async with ObedientBroker(b"\xff\xff\xff") as broker:
        entry = await setup(
            destination_data(broker.port, protocol="5"), connected=False
        )
        await wait_until(lambda: state(hass, broker.port, "last_error") == "not_mqtt")
        assert "Traceback" not in caplog.text
        await hass.config_entries.async_unload(entry.entry_id)


async def test_keepalive_of_the_broker(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Setup
) -> None:
    """A broker that wants to hear from us more often is obeyed (MQTT 5, 3.2.2.3.14)."""
    async with Mosquitto(config_lines=["max_keepalive 10"]) as broker:
        await setup(destination_data(broker.port, keepalive=60))
        connects = [
            line for line in broker.log().splitlines() if "as ble-bridge-test" in line
        ]
        assert [", k60" in line for line in connects] == [True, False]
        assert ", k10" in connects[-1]
        await stream(scanner, 0, 5)
        assert is_connected(hass, broker.port)
