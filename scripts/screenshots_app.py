"""Take the pictures of the documentation, as a user would see the pages."""

import argparse
import asyncio
from contextlib import AsyncExitStack
import json
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
from typing import Any

from playwright.async_api import Page, ViewportSize, async_playwright

from scripts.demo_app import PROXIES, add_proxies
from scripts.simulation.broker import Mosquitto
from scripts.simulation.esphome_proxy import EsphomeProxy
from scripts.simulation.fleet import Fleet
from scripts.simulation.home import Home, load_frames
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import REPOSITORY, free_port
from scripts.simulation.residents import DASHBOARD, furnish, move_in

IMAGES = REPOSITORY / "docs/images"
IN_DOCUMENTS = (
    *("bridge", "controller", "destination", "device", "heard", "home"),
    *("integration", "picker", "setup", "failed"),
)
# Of which devices a page is shown, by model or name
PAGES = {
    "Bridge": "bridge",
    "MQTT destination": "destination",
    "MQTT monitor": "monitor",
    "ESP32_001": "controller",
    "Freezer": "device",
}
CONTROLLERS = 8
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
)


USUAL: ViewportSize = {"width": 1280, "height": 900}
TALL: ViewportSize = {"width": 1280, "height": 2000}


class Pictures:
    """Pages of one Home Assistant, in one browser."""

    def __init__(self, page: Page, url: str, directory: Path, every: bool) -> None:
        """Initialize with a page that is logged in."""
        self._every = every
        self.page = page
        self._url = url
        self._directory = directory

    async def open(self, path: str) -> None:
        """Open a page and wait until it is drawn."""
        await self.page.goto(self._url + path, wait_until="domcontentloaded")
        await self.page.wait_for_selector("home-assistant-main", timeout=60_000)
        await self.page.wait_for_timeout(4000)

    async def take(self, name: str) -> None:
        """Take a picture of the page, unless nobody asked for it."""
        if not self._every and name not in IN_DOCUMENTS:
            return
        await self.page.wait_for_timeout(1200)
        path = self._directory / f"{name}.png"
        await self.page.screenshot(path=path)
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


async def take_all(
    pictures: Pictures, home_assistant: HomeAssistantProcess, broker: Mosquitto
) -> None:
    """Go through the pages."""
    page = pictures.page
    await pictures.open("/config/integrations/dashboard/add?domain=ble_bridge")
    for name in ("OK", "Yes", "Continue"):
        button = page.get_by_role("button", name=name, exact=True)
        if await button.count() and await button.first.is_visible():
            await button.first.click()
            break
    await page.get_by_text("MQTT", exact=True).click(timeout=15000)
    await page.wait_for_selector("step-flow-form", timeout=15000)
    await page.set_viewport_size({"width": 1280, "height": 1180})
    await pictures.take("setup")
    submit = page.get_by_role("button", name="Submit", exact=True)
    await page.set_viewport_size(TALL)
    await page.locator("step-flow-form input[type=number]").first.fill("1")
    await submit.first.click()
    await page.wait_for_timeout(3000)
    await pictures.take("setup-error")
    await page.locator("step-flow-form input[type=number]").first.fill(str(broker.port))
    await page.get_by_text("Advanced settings").last.click()
    await pictures.take("setup-advanced")
    await submit.first.click()
    await page.wait_for_timeout(4000)
    await page.set_viewport_size(USUAL)
    await pictures.take("setup-done")

    (entry,) = await home_assistant.entries("ble_bridge")
    await take_device_forms(pictures)
    await move_in(home_assistant, entry["entry_id"])
    await furnish(home_assistant)
    await take_monitor_forms(pictures)
    await page.wait_for_timeout(62_000)  # Two measurements, so that rates are there
    await pictures.open(f"/{DASHBOARD}")
    await page.set_viewport_size({"width": 1500, "height": 600})
    await pictures.take("home")
    await page.set_viewport_size(USUAL)
    await pictures.open("/config/integrations/integration/ble_bridge")
    await pictures.take("integration")
    registry: Any = await home_assistant.ws("config/device_registry/list")
    for device in registry:
        model = device["model"]
        picture = PAGES.get(model if model in PAGES else device["name"])
        if picture is not None and device["manufacturer"] != "Espressif":
            await pictures.open(f"/config/devices/device/{device['id']}")
            await pictures.take(picture)
    await pictures.open("/config/integrations/integration/ble_bridge")
    await page.get_by_label("Configure").first.click()
    await page.wait_for_timeout(2000)
    await pictures.take("options")


async def take_device_forms(pictures: Pictures) -> None:
    """Begin to add a device, as far as the list and the settings."""
    page = pictures.page
    await page.set_viewport_size({"width": 1280, "height": 1000})
    await pictures.open("/config/integrations/integration/ble_bridge")
    await page.get_by_role("button", name="Add device", exact=True).first.click()
    await page.wait_for_timeout(1500)
    await pictures.take("add-device")
    await page.get_by_text("Choose from what is on air").first.click()
    await page.wait_for_timeout(2500)
    await pictures.take("pick-device")
    await page.locator("ha-generic-picker, ha-combo-box, ha-select").first.click()
    await page.wait_for_timeout(1000)
    await pictures.take("picker")
    await page.keyboard.type("therm")
    await pictures.take("picker-search")
    await page.keyboard.press("Enter")
    await page.wait_for_timeout(500)
    await page.get_by_role("button", name="Next", exact=True).first.click()
    await page.wait_for_timeout(1500)
    await page.set_viewport_size(TALL)
    await pictures.take("device-settings")
    await page.set_viewport_size(USUAL)


async def take_monitor_forms(pictures: Pictures) -> None:
    """Add a monitor of the controllers."""
    page = pictures.page
    await pictures.open("/config/integrations/integration/ble_bridge")
    await page.get_by_role("button", name="Add monitor", exact=True).first.click()
    await page.wait_for_timeout(1500)
    await pictures.take("add-monitor")
    await page.get_by_text("Topics of your own", exact=True).click()
    await page.wait_for_timeout(1500)
    await page.set_viewport_size(TALL)
    await pictures.take("monitor-own")
    await page.set_viewport_size(USUAL)
    await pictures.open("/config/integrations/integration/ble_bridge")
    await page.get_by_role("button", name="Add monitor", exact=True).first.click()
    await page.get_by_text("AutoCore", exact=True).click(timeout=15000)
    await page.wait_for_timeout(1500)
    await page.set_viewport_size(TALL)
    await pictures.take("monitor-autocore")
    await page.set_viewport_size({"width": 1000, "height": 750})
    await page.get_by_role("button", name="Submit", exact=True).first.click()
    await page.wait_for_timeout(8000)
    await pictures.take("heard")
    await page.get_by_text("Save the monitor", exact=True).click(timeout=15000)
    await page.wait_for_timeout(4000)
    await page.set_viewport_size(USUAL)


async def main(directory: Path, every: bool) -> None:
    """Start everything, take the pictures, stop everything."""
    directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        temporary = Path(stack.enter_context(TemporaryDirectory(prefix="ble-bridge-")))
        broker = await stack.enter_async_context(Mosquitto())
        proxies = [
            await stack.enter_async_context(EsphomeProxy(name, mac, area=area))
            for name, mac, area in PROXIES
        ]
        home = Home(load_frames(), proxies)
        fleet = await stack.enter_async_context(
            Fleet(CONTROLLERS, broker.port, telemetry=2, malformed=0.5, faults=0)
        )
        home_assistant = await stack.enter_async_context(
            HomeAssistantProcess(temporary, free_port())
        )
        await add_proxies(home_assistant, proxies)
        for life in (home.play(), fleet.play()):
            stack.callback(asyncio.create_task(life).cancel)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        context = await browser.new_context(viewport=USUAL, color_scheme="light")
        tokens = {
            "access_token": home_assistant.token,
            "token_type": "Bearer",
            "expires_in": 10**9,
            "expires": 10**15,
            "hassUrl": home_assistant.url,
            "clientId": home_assistant.url + "/",
            "refresh_token": "",
        }
        await context.add_init_script(
            f"localStorage.setItem('hassTokens', {json.dumps(json.dumps(tokens))})"
        )
        pictures = Pictures(
            await context.new_page(), home_assistant.url, directory, every
        )
        try:
            await take_all(pictures, home_assistant, broker)
        except Exception:
            await pictures.take("failed")
            raise
        finally:
            await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/screenshots", description=__doc__)
    parser.add_argument("--directory", type=Path, default=IMAGES)
    parser.add_argument(
        "--all", action="store_true", help="also those that no document shows"
    )
    arguments = parser.parse_args()
    asyncio.run(main(arguments.directory, arguments.all))
