"""From a packet to a service on NATS: protobuf, restarts, and the example consumer."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
import sys
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
import pytest
import telemetry_pb2 as telemetry

from custom_components.ble_bridge.destinations.nats import NatsDestination
from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import REPOSITORY

from .conftest import ADDRESS, SimulatedScanner, wait_until
from .devices.home import bthome
from .devices.test_outage import WARM
from .nats import NatsProxy, NatsSubscriber, is_up, nats_data, stored

CONSUMER = REPOSITORY / "docs/examples/nats_consumer.py"
BALCONY = {"address": "A4:C1:38:AA:BB:CC", "alias": "Balcony"}


@pytest.fixture(autouse=True)
def no_discovery() -> Iterator[None]:
    """Keep Home Assistant's own integrations from the devices of the tests."""
    with patch("homeassistant.helpers.discovery_flow.async_create_flow"):
        yield


def destination(entry: Any) -> NatsDestination:
    """Return the only destination."""
    (found,) = entry.runtime_data.destinations.values()
    assert isinstance(found, NatsDestination)
    return found


async def say(entry: Any, scanner: SimulatedScanner, temperature: float) -> None:
    """Have the balcony say how warm it is, and wait until that is known."""
    tally = destination(entry).records[RecordKind.READING]
    before = tally.received
    scanner.hear(BALCONY["address"], raw=bthome(temperature=temperature))
    await wait_until(lambda: tally.received > before)


def alerts(found: list[tuple[str, bytes]]) -> list[tuple[str, str, bool]]:
    """Return the subject, the name, and whether it has ended, of alerts."""
    said = []
    for subject, payload in found:
        (alert,) = telemetry.Alerts.FromString(payload).alerts
        said.append((subject, alert.name, alert.HasField("ended_at")))
    return said


async def test_alert_across_restarts(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Callable[..., Any]
) -> None:
    """An alert arrives exactly once, whatever is restarted before it is acknowledged."""
    async with NatsServer(jetstream=True) as server, NatsProxy(server.port) as proxy:
        data = nats_data(
            proxy.url, jetstream={"enabled": True, "stored": ["alert"]}, first_delay=0.1
        )
        entry = await setup_nats(data, devices=[{**BALCONY, "alerts": [WARM]}])
        await say(entry, scanner, 21)
        # It is stored, but the acknowledgement is lost, and then everything is.
        proxy.deaf = True
        await say(entry, scanner, 26)
        while not (found := await stored(server.url, "BLE_ALERT")):
            await asyncio.sleep(0.01)
        started = ("ble.balcony.alerts", "Warm", False)
        assert alerts(found) == [started]
        assert await hass.config_entries.async_unload(entry.entry_id)
        await server.kill()
        proxy.deaf = False

        # Home Assistant is back before the server is.
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        assert destination(entry).tally(RecordKind.ALERT).waiting == 1
        await say(entry, scanner, 23)
        assert destination(entry).tally(RecordKind.ALERT).waiting == 2
        await server.start()
        await wait_until(lambda: is_up(hass, data))
        await wait_until(lambda: not destination(entry).outbox.waiting)
        found = await stored(server.url, "BLE_ALERT")
        assert alerts(found) == [started, ("ble.balcony.alerts", "Warm", True)]
        assert destination(entry).tally(RecordKind.ALERT).acknowledged == 2


async def test_protobuf(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Callable[..., Any]
) -> None:
    """What is on each subject is the message that the documentation says."""
    async with NatsServer() as server, NatsSubscriber(server.url) as subscriber:
        entry = await setup_nats(nats_data(server.url), devices=[BALCONY])
        await say(entry, scanner, 21.5)
        await subscriber.wait_for(
            lambda s: all(s.on(part) for part in ("data", "raw", "connectivity"))
        )
        reading = telemetry.Payload.FromString(subscriber.on("balcony.data")[0].data)
        assert reading.device == "balcony"
        (datum,) = (d for d in reading.data if d.key == "temperature")
        assert datum.value.double_value == 21.5
        (message,) = subscriber.on("balcony.connectivity")
        connectivity = telemetry.Connectivity.FromString(message.data)
        assert connectivity.status == telemetry.Connectivity.CONNECTED
        (message,) = subscriber.on("raw")
        assert message.subject == f"ble.raw.living-room-proxy.{BALCONY['address']}"
        packet = telemetry.Advertisement.FromString(message.data)
        assert packet.raw == bthome(temperature=21.5)
        heartbeat = telemetry.Heartbeat.FromString(
            subscriber.on("ble.scanner.living-room-proxy.status")[0].data
        )
        assert heartbeat.status == telemetry.Heartbeat.RUNNING


async def test_what_is_switched_off(
    hass: HomeAssistant, scanner: SimulatedScanner, setup_nats: Callable[..., Any]
) -> None:
    """What is not to be published is not, but for how the scanners are."""
    async with NatsServer() as server, NatsSubscriber(server.url) as subscriber:
        data = nats_data(server.url, records=False, raw=False)
        entry = await setup_nats(data, devices=[BALCONY])
        scanner.hear(BALCONY["address"], raw=bthome(temperature=21))
        scanner.hear(ADDRESS)
        await hass.async_block_till_done()
        await subscriber.wait_for(lambda s: s.on("living-room-proxy"))
        assert await hass.config_entries.async_unload(entry.entry_id)
        stopped = telemetry.Heartbeat.STOPPED
        await subscriber.wait_for(
            lambda s: (
                telemetry.Heartbeat.FromString(s.messages[-1].data).status == stopped
            )
        )
        assert {m.subject.split(".")[1] for m in subscriber.messages} == {"scanner"}


async def test_example_consumer(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup_nats: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The consumer of the documentation prints what is said."""
    async with NatsServer() as server:
        with (tmp_path / "printed").open("wb") as printed:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, CONSUMER, "--server", server.url),
                stdout=printed,
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr
            assert b"listening to ble.>" in await process.stderr.readline()
            entry = await setup_nats(
                nats_data(server.url), devices=[{**BALCONY, "alerts": [WARM]}]
            )
            await say(entry, scanner, 21.5)
            await say(entry, scanner, 26)

            def text() -> str:
                return (tmp_path / "printed").read_text(encoding="utf-8")

            await wait_until(lambda: "alert 'Warm' started" in text())
            process.terminate()
            await process.wait()
        for line in (
            "ble.balcony.data: balcony said temperature=21.5",
            "ble.balcony.connectivity: balcony is connected",
            "ble.balcony.alerts: balcony: alert 'Warm' started",
            f"ble.raw.living-room-proxy.{BALCONY['address']}: ",
            "ble.scanner.living-room-proxy.status: scanner living-room-proxy is running",
        ):
            assert line in text()
