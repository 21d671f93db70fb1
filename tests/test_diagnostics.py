"""Diagnostics and system health."""

from collections.abc import Callable
import json
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import get_system_health_info
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.diagnostics import masked
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, SimulatedScanner, destination_data, wait_until
from .destinations.faults import Diagnose, arrived, diagnose_with, stream
from .monitors.garage import DEVICE, Garage, relay, status, telemetry

type Setup = Callable[..., Any]


@pytest.fixture(name="diagnose")
def diagnose_fixture(
    hass: HomeAssistant, hass_client: ClientSessionGenerator
) -> Diagnose:
    """Return what downloads the diagnostics."""
    return diagnose_with(hass, hass_client)


async def test_no_secret_and_no_address(
    hass: HomeAssistant,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
    diagnose: Diagnose,
) -> None:
    """What a user posts in public names no machine, no person and no device."""
    scanner = add_scanner()
    nameless = add_scanner("AA:BB:CC:DD:EE:FF", "AA:BB:CC:DD:EE:FF")
    async with Mosquitto(users={"someone": "top-secret"}) as broker:
        entry = await setup(
            destination_data(
                broker.port,
                username="someone",
                password="top-secret",
                client_id="our-client",
            ),
            options={
                "deny": {"addresses": ["C0:FF:EE:00:00:01"], "names": ["Grandma*"]},
                "scanner_ids": {"AA:BB:CC:00:00:01": "cellar"},
                "excluded_scanners": ["AA:BB:CC:00:00:02"],
                "minimum_rssi": -90,
            },
        )
        scanner.hear(name="Grandma's watch")
        nameless.hear()
        await broker.stop()
        text = json.dumps(await diagnose(entry)).lower()
        await hass.config_entries.async_unload(entry.entry_id)
    for secret in (
        "127.0.0.1",
        "someone",
        "top-secret",
        "our-client",
        ADDRESS,
        "C0:FF:EE:00:00:01",
        "Grandma",
        "AA:00:00:00:00:01",
        "AA:BB:CC:DD:EE:FF",
        "aa-bb-cc-dd-ee-ff",
        "AA:BB:CC:00:00:01",
        "AA:BB:CC:00:00:02",
    ):
        assert secret.lower() not in text
    assert '"minimum_rssi": -90' in text
    assert "living-room-proxy" in text


# What is not to be seen, in the surroundings in which devices say it.
PRIVATE = {
    '{"ip": "192.168.1.17"}': "192.168.1.17",
    "garage/ip_192.168.1.17_x/status": "192.168.1.17",
    "http://10.0.0.1:8080/": "10.0.0.1",
    '{"ip":"2001:db8::17"}': "db8::17",
    "fe80::1ff:fe23:4567:890a%eth0": "fe23:4567:890a",
    "2001:db8:0:1:2:3:4:5": "2001:db8",
    '{"mac": "A4:C1:38:AA:BB:CC"}': "A4:C1:38:AA:BB:CC",
    "a4-c1-38-aa-bb-cc": "38-aa-bb",
    "garage/esp32_a4c138aabbcc/status": "a4c138aabbcc",
    "shellyplus1-A4C138AABBCC": "A4C138AABBCC",
    '{"password":"hunter2"}': "hunter2",
    '{"password":"hunt': "hunt",
    r'{"api_key": "hun\"ter2"}': "ter2",
    "{'wifi_pass': 'hunter 2'}": "hunter",
    "psk=hunter2&x=1": "hunter2",
    '{"token": 4711, "x": 1}': "4711",
    '{"secret": {"value": "hunter2"}}': "hunter2",
    '{"credentials_user": ["hunter", "two"], "x": 1}': "two",
    "Authorization: Bearer hunter2": "hunter2",
    '{"SSID" : "Hunters home"}': "Hunter",
    "mqtt://hunter:two@broker": "two",
}
PUBLIC = (
    '{"temperature": 21.5, "timestamp": "2025-01-28T10:30:00Z", "x": [1, 2]}',
    "garage/ESP32_001/telemetry",
    '{"firmware": "1.2.0", "uptime": 1234567890123}',
    "std::bad_alloc",
)


@pytest.mark.parametrize(("text", "private"), PRIVATE.items())
def test_masked(text: str, private: str) -> None:
    """Addresses and secrets do not stay in what somebody else said."""
    assert private in text
    assert private.lower() not in masked(text).lower()
    assert "**REDACTED**" in masked(text)
    assert private.lower() not in masked(f"before {text} after").lower()


@pytest.mark.parametrize("text", PUBLIC)
def test_not_masked(text: str) -> None:
    """What helps to find out what is wrong stays."""
    assert masked(text) == text


async def test_monitors(
    hass: HomeAssistant,
    enable_bluetooth: None,
    broker: Mosquitto,
    hass_client: ClientSessionGenerator,
) -> None:
    """What a monitor hears is told in figures, and what it did not understand masked."""
    garage = Garage(hass, broker)
    await garage.start(
        {"critical_relays": ["*/0"], "dead_letter_topic": "unread"},
        destination={"username": "someone", "password": "top-secret"},
    )
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/telemetry", telemetry(mode="eco"))
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    await garage.tell("192.168.1.17/status", b"x" * 70_000)
    for text in PRIVATE:
        await garage.tell("esp32-a4c138aabbcc/status", text.encode())
    topic = f"autocore/{'a' * 60_000}/status"
    garage.monitor.on_message(topic, b"{", retained=False)
    await wait_until(lambda: garage.monitor.errors == len(PRIVATE) + 2)
    said: Any = await get_diagnostics_for_config_entry(hass, hass_client, garage.entry)
    (monitor,) = said["monitors"]
    letters = monitor["dead_letters"]
    assert letters["by_reason"]["too_large"] == 1
    newest = letters["newest"]
    assert len(newest) == len(PRIVATE) + 2
    assert newest[0]["topic"] == "autocore/**REDACTED**/status"
    assert (newest[0]["reason"], newest[0]["size"]) == ("too_large", 70_000)
    assert newest[0]["payload"] == "x" * 64
    assert newest[0]["time"].endswith("Z")
    assert len(newest[-1]["topic"]) < 300
    text = json.dumps(said).lower()
    for private in (*PRIVATE.values(), "top-secret", "192.168.1.100", "127.0.0.1"):
        if private not in ("two", "4711", "ter2", "hunt"):  # In other words, or numbers
            assert private.lower() not in text
    assert "hunt" not in text
    assert monitor["configuration"] == garage.subentry.data
    assert monitor["devices"] == {"known": 1, "online": 1, "fields": 5, "left_out": 0}
    assert monitor["connected"]
    assert monitor["problem"] is None
    assert monitor["messages"] == 3
    assert 0 < monitor["connection_uptime_percent"] <= 100
    assert monitor["queue"] == {
        "messages": 0,
        "limit_messages": 20_000,
        "overflow": 0,
    }
    await garage.close()


async def test_counters_add_up(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
    diagnose: Diagnose,
) -> None:
    """Each advertisement is accounted for, in total and for each scanner."""
    one = add_scanner()
    two = add_scanner("AA:00:00:00:00:02", "Attic proxy")
    left_out = add_scanner("AA:00:00:00:00:03", "Garage proxy")
    entry = await setup(
        destination_data(broker.port),
        options={
            "excluded_scanners": ["AA:00:00:00:00:03"],
            "deny": {"addresses": ["C0:00:00:00:00:05"]},
            "minimum_rssi": -80,
        },
    )
    await stream(one, 0, 30)
    await stream(two, 30, 10)
    await stream(left_out, 100, 5)
    one.hear(address="C0:00:00:00:00:05")
    one.hear(rssi=-95)
    await diagnose(entry)  # It adds up at once, though some of it may still wait
    await subscriber.wait_for(lambda s: len(arrived(s)) == 40)
    diagnostics = await diagnose(entry)
    [destination] = diagnostics["destinations"]
    assert destination["counters"] == {
        "received": 47,
        "filtered": 7,
        "acknowledged": 0,
        "sent": 40,
        "dropped": 0,
        "away": 0,
        "overflow": 0,
        "expired": 0,
        "refused": 0,
        "failed": 0,
        "waiting": 0,
    }
    assert destination["queue"] == {
        "messages": 0,
        "limit_messages": 20_000,
        "limit_bytes": 8 * 1024 * 1024,
    }
    assert destination["scanners"]["attic-proxy"]["sent"] == 10
    assert destination["connected"]
    assert destination["protocol"] == "5"
    assert destination["last_error"] is None
    assert destination["bytes_sent"] > 40 * 200
    scanners = {
        scanner.pop("scanner_id"): scanner for scanner in diagnostics["scanners"]
    }
    assert scanners["garage-proxy"] == {
        "online": True,
        "excluded": True,
        "devices": 1,
        "received": 5,
        "filtered": 5,
    }
    assert diagnostics["feed"]["received"] == 47
    assert diagnostics["feed"]["addresses"] == 2


async def test_not_loaded(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    broker: Mosquitto,
    setup: Setup,
) -> None:
    """A bridge that is not running tells how it is set up."""
    entry = await setup(
        destination_data(broker.port), options={"scanner_ids": {ADDRESS: "cellar"}}
    )
    assert await hass.config_entries.async_unload(entry.entry_id)
    told: Any = await get_diagnostics_for_config_entry(hass, hass_client, entry)
    assert told["entry"]["data"]["bridge_id"] == entry.data["bridge_id"]
    assert told["entry"]["options"] == {"scanner_ids": "**REDACTED**"}
    assert "destinations" not in told


async def test_system_health(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """A few lines tell whether all is well."""
    assert await async_setup_component(hass, "system_health", {})
    entry = await setup(destination_data(broker.port))
    await hass.async_block_till_done()
    await stream(scanner, 0, 5)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 5)
    assert await get_system_health_info(hass, DOMAIN) == {
        "scanners": 2,
        "devices": 1,
        "advertisement_rate": 0,
        "destinations_connected": "1/1",
        "messages": 5,
        "dropped": 0,
    }
    await hass.config_entries.async_unload(entry.entry_id)
    assert await get_system_health_info(hass, DOMAIN) == {"loaded": False}
