"""A component for tests alone: how Home Assistant is doing, and faults to be set.

GET /api/chaos_probe tells; POST sets the faults of `sitecustomize.py` beside it.
"""

import asyncio
import gc
import os
from pathlib import Path
import sys
import threading
from typing import Any, Final

from aiohttp import web
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.http import KEY_HASS, HomeAssistantView
from homeassistant.helpers.typing import ConfigType

DOMAIN: Final = "chaos_probe"
WATCHED: Final = "ble_bridge"
_TICK: Final = 0.05
_SLOW: Final = 0.1


class Pulse:
    """Measures how late the event loop is, at most, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        self.late = 0.0
        self._loop = loop
        self._due = loop.time()
        self._tick()

    def _tick(self) -> None:
        self.late = max(self.late, self._loop.time() - self._due)
        self._due = self._loop.time() + _TICK
        self._loop.call_at(self._due, self._tick)


def _is_watched(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is the integration's."""
    code = getattr(task.get_coro(), "cr_code", None)
    return f"/{WATCHED}/" in getattr(code, "co_filename", "") or WATCHED in (
        task.get_name()
    )


def _process() -> tuple[int, int]:
    """Return the memory in use (bytes), and how many files are open; blocks."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return pages * os.sysconf("SC_PAGE_SIZE"), descriptors


class ProbeView(HomeAssistantView):
    """The probe's address."""

    url = "/api/chaos_probe"
    name = "api:chaos_probe"

    def __init__(self, pulse: Pulse) -> None:
        """Initialize with what measures the loop."""
        self._pulse = pulse

    async def get(self, request: web.Request) -> web.Response:
        """Tell how Home Assistant is doing; how late it was begins anew."""
        late, self._pulse.late = self._pulse.late, 0.0
        tasks = asyncio.all_tasks()
        ours = sorted(repr(task) for task in tasks if _is_watched(task))
        hass = request.app[KEY_HASS]
        rss, descriptors = await hass.async_add_executor_job(_process)
        return self.json(
            {
                "tasks": len(tasks),
                "tasks_ours": ours,
                "late_s": late,
                "descriptors": descriptors,
                "threads": threading.active_count(),
                "rss": rss,
            }
        )

    async def post(self, request: web.Request) -> web.Response:
        """Set the faults, and end all others."""
        faults: Any = sys.modules["sitecustomize"]
        values = await request.json()
        # SQLite may be busy
        await request.app[KEY_HASS].async_add_executor_job(faults.FAULTS.set, values)
        return self.json({})

    async def delete(self, request: web.Request) -> web.Response:
        """Close the integration's issues, so that new ones are seen; collect garbage."""
        hass = request.app[KEY_HASS]
        for domain, issue_id in tuple(ir.async_get(hass).issues):
            if domain == WATCHED:
                ir.async_delete_issue(hass, domain, issue_id)
        gc.collect()
        return self.json({})


async def async_setup(hass: HomeAssistant, _config: ConfigType) -> bool:
    """Set up the probe."""
    hass.loop.slow_callback_duration = _SLOW
    hass.http.register_view(ProbeView(Pulse(hass.loop)))
    return True
