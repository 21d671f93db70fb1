"""A real Prometheus that scrapes a whole Home Assistant, as the documentation says."""

import asyncio
import copy
from pathlib import Path
import re
from typing import Any, Final, cast

from homeassistant.util.yaml import parse_yaml

from scripts.demo_app import PROXIES, add_proxies
from scripts.simulation.broker import Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import REPOSITORY
from scripts.simulation.prometheus import Prometheus
from scripts.simulation.subscriber import Subscriber

from .conftest import add_bridge

RAW = bytes.fromhex("0201060cfffeff0102030405060708ff")
COUNT: Final = 40
TEXT = (REPOSITORY / "docs/metrics.md").read_text(encoding="utf-8")
JOBS, RULES = (
    cast(dict[str, Any], parse_yaml(block))
    for block in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
)
QUESTIONS = re.findall(r"^\| [^|]+ \| `(.+)` \|$", TEXT, re.MULTILINE)


def job_of(
    home_assistant: HomeAssistantProcess, token: str, path: Path
) -> dict[str, Any]:
    """Return the job of the documentation, for another address and token."""
    path.write_text(token)
    path.chmod(0o600)
    (job,) = copy.deepcopy(JOBS["scrape_configs"])
    (targets,) = job["static_configs"]
    assert job["authorization"].keys() == {"credentials_file"}
    assert targets["targets"] == ["homeassistant.local:8123"]
    job["authorization"]["credentials_file"] = str(path)
    targets["targets"] = [home_assistant.url.removeprefix("http://")]
    found: dict[str, Any] = job
    return found


async def test_scraped(
    tmp_path: Path,
    home_assistant: HomeAssistantProcess,
    broker: Mosquitto,
    subscriber: Subscriber,
) -> None:
    """Prometheus finds what was sent; its rules hold when they are to."""
    name, mac, area = PROXIES[0]
    async with EsphomeProxy(name, mac, area=area) as proxy:
        await add_proxies(home_assistant, [proxy])
        await add_bridge(home_assistant, broker)
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")
        proxy.send([("C0:00:00:00:00:01", -50, RAW, 1)] * COUNT)
        await subscriber.wait_for(lambda heard: heard.count("ble/raw/") == COUNT)

        job = job_of(home_assistant, home_assistant.token, tmp_path / "token")
        stranger = job_of(home_assistant, "wrong", tmp_path / "wrong")
        stranger["job_name"] = "stranger"
        async with Prometheus(job, stranger) as prometheus:
            await prometheus.wait_scraped(["ble_bridge"])

            async def value(query: str) -> float:
                (sample,) = await prometheus.query(query)
                return sample.value

            assert await value('up{job="ble_bridge"}') == 1
            async with asyncio.timeout(20):
                while not await prometheus.query('up{job="stranger"} == 0'):
                    await asyncio.sleep(0.2)
            assert (
                "401"
                in {
                    target["labels"]["job"]: target["lastError"]
                    for target in await prometheus.targets()
                }["stranger"]
            )
            sent = 'ble_bridge_records_sent_total{record_type="advertisement"}'
            assert await value(sent) == COUNT
            received = "ble_bridge_advertisements_received_total"
            assert await value(f'{received}{{scanner="{name}"}}') == COUNT
            (known,) = await prometheus.query("ble_bridge_destination_info")
            assert known.labels["kind"] == "mqtt"
            assert known.labels["title"] == f"127.0.0.1:{broker.port}"
            size = sum(
                len(message.payload)
                for message in subscriber.messages
                if message.topic.startswith("ble/raw/")
            )
            assert await value("sum(ble_bridge_delivered_bytes_total)") == size
            assert len(await prometheus.query("ble_bridge_loaded")) == 1

            assert QUESTIONS
            for question in QUESTIONS:  # Raises where it is no PromQL
                await prometheus.query(question.replace("\\|", "|"))
            rules = {
                rule["alert"]: rule["expr"]
                for group in RULES["groups"]
                for rule in group["rules"]
            }
            assert len(rules) == 5
            for alert, expression in rules.items():
                assert await prometheus.query(expression) == [], alert

            await broker.kill()
            async with asyncio.timeout(20):
                while not await prometheus.query(rules["BleBridgeDestinationAway"]):
                    await asyncio.sleep(0.2)
            await broker.start()
            async with asyncio.timeout(20):
                while await prometheus.query(rules["BleBridgeDestinationAway"]):
                    await asyncio.sleep(0.2)
            await home_assistant.stop()
            async with asyncio.timeout(20):
                while not await prometheus.query(rules["BleBridgeGone"]):
                    await asyncio.sleep(0.2)
