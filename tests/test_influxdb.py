"""From packets to points: a bridge that writes to real stores, and to a strict one."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import issue_registry as ir
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
)

from custom_components.ble_bridge.const import DOMAIN, HEARTBEAT_INTERVAL
from custom_components.ble_bridge.destinations.influxdb import InfluxDestination
from custom_components.ble_bridge.records import RecordKind
from custom_components.ble_bridge.repairs import async_create_fix_flow
from scripts.simulation.fake_influx import FakeInflux
from scripts.simulation.influx_answers import Flavour
from scripts.simulation.metrics_stores import InfluxDb1, VictoriaMetrics

from .conftest import SimulatedScanner, wait_until
from .devices.home import ADDRESS, BALCONY, bthome
from .influx_forms import bridge, influx_data, is_up

pytestmark = pytest.mark.usefixtures("enable_bluetooth", "tried_soon")

WARM = {
    "rule_id": "warm",
    "name": "Warm",
    "kind": "above",
    "field": "temperature",
    "limit": 25,
}
QUICK = {"batch_seconds": 0.02}


@pytest.fixture(autouse=True)
def no_discoveries() -> Iterator[None]:
    """Home Assistant's own integrations would begin a discovery for each device."""
    with patch("homeassistant.helpers.discovery_flow.async_create_flow"):
        yield


def destination(entry: MockConfigEntry) -> InfluxDestination:
    """Return the destination."""
    (found,) = entry.runtime_data.destinations.values()
    assert isinstance(found, InfluxDestination)
    return found


async def say(
    hass: HomeAssistant, scanner: SimulatedScanner, temperature: float
) -> None:
    """Have a device say how warm it is."""
    scanner.hear(ADDRESS, raw=bthome(temperature=temperature))
    await hass.async_block_till_done()
    # The stack's clock tells no shorter times apart, and two points need two.
    await asyncio.sleep(0.01)


async def learn(
    hass: HomeAssistant, scanner: SimulatedScanner, temperature: float = 20
) -> None:
    """Have a device say something, until the library that reads it is loaded."""
    await say(hass, scanner, temperature)
    state = "sensor.balcony_temperature"
    await wait_until(lambda: hass.states.get(state))
    await hass.async_block_till_done()


async def settle(entry: MockConfigEntry) -> None:
    """Wait until all is written."""
    outbox = destination(entry).outbox
    outbox.wake()
    await wait_until(lambda: not outbox.waiting)


async def test_influxdb_1(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """What a device says, when it comes, who hears it and how well, is in InfluxDB."""
    async with InfluxDb1(users={"me": "secret"}) as server:
        data = influx_data(
            server.url, api="v1", username="me", password="secret", **QUICK
        )
        async with bridge(hass, data, devices=[{**BALCONY, "alerts": [WARM]}]) as entry:
            await learn(hass, scanner, 20)
            for temperature in (21, 26, 24):
                await say(hass, scanner, temperature)
            scanner.hear("C0:00:00:00:00:02")  # A neighbour
            async_fire_time_changed(hass, dt_util.utcnow() + timedelta(seconds=61))
            await hass.async_block_till_done()
            await settle(entry)
            rows = await server.query("SELECT * FROM ble", "ble")
            assert [row["temperature"] for row in rows] == [20, 21, 26, 24]
            assert {row["device"] for row in rows} == {"balcony"}
            assert {row["scanner"] for row in rows} == {"living-room-proxy"}
            assert {row["rssi"] for row in rows} == {-50}
            alerts = await server.query("SELECT * FROM ble_alert", "ble")
            assert [(row["name"], row["active"]) for row in alerts] == [
                ("Warm", True),
                ("Warm", False),
            ]
            came = await server.query("SELECT * FROM ble_connectivity", "ble")
            assert [row["connected"] for row in came] == [True]
            signals = await server.query("SELECT * FROM ble_signal", "ble")
            assert {row["address"] for row in signals} == {ADDRESS}
            assert len(signals) == 4
            scanners = await server.query("SELECT * FROM ble_scanner", "ble")
            assert {row["scanner"] for row in scanners} == {
                "hci0",
                "living-room-proxy",
            }
            tally = destination(entry).tally(RecordKind.ADVERTISEMENT)
            assert tally.received == tally.acknowledged == 4
        rows = await server.query("SELECT * FROM ble_bridge", "ble")
        assert [row["online"] for row in rows] == [True, False]
        scanners = await server.query("SELECT last(status) FROM ble_scanner", "ble")
        assert scanners[0]["last"] == "stopped"


async def test_victoria_metrics(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """The same in VictoriaMetrics, with the signals of all addresses."""
    async with VictoriaMetrics() as server:
        data = influx_data(
            server.url, bucket="", organization="", signals="all", **QUICK
        )
        async with bridge(hass, data, devices=[BALCONY]) as entry:
            await learn(hass, scanner, 21.5)
            scanner.hear("C0:00:00:00:00:02", -70)
            await settle(entry)
            (sample,) = await server.query('ble_temperature{device="balcony"}')
            assert sample.value == 21.5
            samples = await server.query("ble_signal_rssi")
            assert {s.labels["address"]: s.value for s in samples} == {
                ADDRESS: -50,
                "C0:00:00:00:00:02": -70,
            }
        (sample,) = await server.query("ble_bridge_online")
        assert sample.value == 0


async def test_no_signals(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """Signals may be left out."""
    async with FakeInflux(Flavour.V3) as server:
        data = influx_data(server.url, token="token", signals="none", **QUICK)
        async with bridge(hass, data, devices=[BALCONY]) as entry:
            await learn(hass, scanner)
            await settle(entry)
            assert server.find("ble", device="balcony")
            assert not server.find("ble_signal")


@pytest.mark.parametrize("kind", [InfluxDb1, VictoriaMetrics])
async def test_an_alert_outlasts_all(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    kind: type[InfluxDb1 | VictoriaMetrics],
) -> None:
    """A durable alert is there once, though Home Assistant and the server restart."""
    async with kind() as server:
        data = influx_data(server.url, api="v1", **QUICK)
        device = {**BALCONY, "alerts": [WARM]}
        async with bridge(hass, data, devices=[device]) as entry:
            await learn(hass, scanner)
            await settle(entry)
            await server.stop()
            for temperature in (26, 24, 27):
                await say(hass, scanner, temperature)
            await wait_until(lambda: not is_up(entry))
            assert destination(entry).records[RecordKind.ALERT].waiting == 3
            assert await hass.config_entries.async_unload(entry.entry_id)
            assert await hass.config_entries.async_setup(entry.entry_id)
            await hass.async_block_till_done()
            assert destination(entry).records[RecordKind.ALERT].waiting >= 3
            await server.start()
            await wait_until(lambda: is_up(entry))
            await settle(entry)
            if isinstance(server, InfluxDb1):
                rows = await server.query("SELECT * FROM ble_alert", "ble")
                assert [row["active"] for row in rows] == [True, False, True]
            else:
                (series,) = await server.export('{__name__="ble_alert_active"}')
                assert [*series.values] == [1, 0, 1]


async def test_actions(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """Lines of the user's own are written, and what is no line is told."""
    async with FakeInflux() as server:
        data = influx_data(server.url, token="token", batch_seconds=30)
        async with bridge(hass, data, devices=[BALCONY]) as entry:

            async def publish(payload: Any, **more: Any) -> Any:
                return await hass.services.async_call(
                    DOMAIN,
                    "publish",
                    {"payload": payload, "topic": "x", **more},
                    blocking=True,
                    return_response=True,
                )

            answer = await publish("room,name=attic temperature=21.5")
            assert answer["outcome"] == "acknowledged"
            (found,) = server.find("room", name="attic")
            assert found.fields == {"temperature": 21.5}
            with pytest.raises(ServiceValidationError) as error:
                await publish("21.5")
            assert error.value.translation_key == "invalid_lines"
            with pytest.raises(HomeAssistantError) as refused:
                await publish("room temperature=9999999999999999999i")
            assert refused.value.translation_key == "publish_refused"
            await learn(hass, scanner)
            await say(hass, scanner, 22)
            await hass.services.async_call(DOMAIN, "flush", {}, blocking=True)
            values = [p.fields.get("temperature") for p in server.find("ble")]
            assert values == [20, 22]
            await settle(entry)


async def test_a_field_of_another_type(
    hass: HomeAssistant, scanner: SimulatedScanner
) -> None:
    """A repair names the field, and sends again what waits when it is mended."""
    async with InfluxDb1() as server:
        data = influx_data(server.url, api="v1", **QUICK)
        data["delivery"] = {**data["delivery"], "max_tries": 1}
        await server.request("POST", "/write", {"db": "ble"}, b'ble temperature="warm"')
        async with bridge(hass, data, devices=[BALCONY]) as entry:
            await learn(hass, scanner)
            (subentry_id, _) = entry.subentries
            issue_id = f"field_type_{subentry_id}"
            issues = ir.async_get(hass)
            await wait_until(lambda: issues.async_get_issue(DOMAIN, issue_id))
            issue = issues.async_get_issue(DOMAIN, issue_id)
            assert issue
            assert issue.translation_placeholders == {
                "destination": "Store",
                "field": "temperature",
                "measurement": "ble",
                "ours": "float",
                "theirs": "string",
            }
            assert issue.is_fixable

            async def fix(user_input: dict[str, Any] | None) -> Any:
                flow: Any = await async_create_fix_flow(hass, issue_id, issue.data)
                flow.hass = hass
                flow.handler, flow.flow_id = DOMAIN, "x"
                return await flow.async_step_confirm(user_input)

            form = await fix(None)
            assert form["description_placeholders"]["field"] == "temperature"
            form = await fix({})
            assert form["errors"] == {"base": "field_type"}
            for statement in ("DROP", "CREATE"):  # The user begins anew
                await server.query(f"{statement} DATABASE ble")
            result = await fix({})
            assert result["type"] == "create_entry"
            assert not issues.async_get_issue(DOMAIN, issue_id)
            rows = await server.query("SELECT temperature FROM ble", "ble")
            assert [row["temperature"] for row in rows] == [20]


async def test_heartbeats(hass: HomeAssistant, scanner: SimulatedScanner) -> None:
    """Scanners say each minute how they are, in what InfluxDB 2 takes."""
    async with FakeInflux() as server:
        data = influx_data(server.url, token="token", **QUICK)
        async with bridge(hass, data) as entry:
            for minute in (1, 2):
                async_fire_time_changed(
                    hass,
                    dt_util.utcnow()
                    + timedelta(seconds=minute * HEARTBEAT_INTERVAL + 1),
                )
                await hass.async_block_till_done()
            await settle(entry)
            found = server.find("ble_scanner", scanner="living-room-proxy")
            assert len(found) >= 3
            assert found[-1].fields["status"] == "running"
        found = server.find("ble_scanner", scanner="living-room-proxy")
        assert found[-1].fields["status"] == "stopped"
