"""What the README says works as it is written there."""

import asyncio
from contextlib import AsyncExitStack
import json
from pathlib import Path
import re
import shlex

from scripts.demo_app import PROXIES, add_proxies, connected
from scripts.simulation.broker import Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import REPOSITORY, free_port, is_port_free

from .conftest import add_bridge, complaints
from .test_devices import ADDRESS, Thermometer

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MACHINE = "192.168.1.10:8428"


def section(title: str) -> str:
    """Return a section of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    """Return the commands of a section."""
    return re.findall(r"```sh\n\s*(.+?)\n\s*```", text)


async def test_into_grafana(
    home_assistant: HomeAssistantProcess, tmp_path: Path
) -> None:
    """The store, the destination and the query of the quick start, in that order."""
    text = section("Into Grafana")
    start, query = commands(text)
    [address] = set(re.findall(r"`(http://[^`]+)`, with the machine's own", text))
    port = free_port()
    program, *arguments = shlex.split(start.replace(":8428", f":{port}"))
    store = await asyncio.create_subprocess_exec(program, *arguments, cwd=tmp_path)
    try:
        async with AsyncExitStack() as stack:
            while is_port_free(port):
                await asyncio.sleep(0.05)
            broker = await stack.enter_async_context(Mosquitto())
            proxies = [
                await stack.enter_async_context(EsphomeProxy(name, mac, area=area))
                for name, mac, area in PROXIES
            ]
            await add_proxies(home_assistant, proxies)
            entry_id = await add_bridge(home_assistant, broker)
            result = await home_assistant.subentry_flow(
                entry_id,
                "destination",
                {"next_step_id": "to_influxdb"},
                {"url": address.replace(MACHINE, f"127.0.0.1:{port}"), "advanced": {}},
            )
            assert result["type"] == "create_entry", result
            await connected(home_assistant, entry_id)  # For it is loaded anew
            result = await home_assistant.subentry_flow(
                entry_id,
                "device",
                {"next_step_id": "on_air"},
                {"address": ADDRESS},
                {"name": "Balcony", "alias": "balcony", "signal": {}, "shaping": {}},
            )
            assert result["type"] == "create_entry", result
            await home_assistant.wait_loaded("ble_bridge")
            thermometer = Thermometer(proxies)
            asked = query.replace(MACHINE, f"127.0.0.1:{port}")
            series: set[str] = set()
            async with asyncio.timeout(30):
                while len(series) < len(proxies):
                    thermometer.say(21.5)
                    await asyncio.sleep(0.5)
                    series = await scanners(asked, "balcony")
            assert series == {name for name, _, _ in PROXIES}
            for name in re.findall(r"`(ble_(?!signal)\w+)", text):
                asked_for = asked.replace("ble_signal_rssi", name)
                assert await scanners(asked_for, "balcony")
            assert not complaints(home_assistant)
    finally:
        store.terminate()
        await store.wait()


async def scanners(command: str, device: str) -> set[str]:
    """Return at which scanners a query of the command line finds a device."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return {
        found["metric"]["scanner"]
        for found in json.loads(output)["data"]["result"]
        if found["metric"]["device"] == device
    }
