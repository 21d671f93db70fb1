"""The monitors of a bridge, and what is kept of them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
import logging
import time
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.event import async_call_later

from .. import repairs
from ..const import SUBENTRY_MONITOR
from ..destinations.destination import Destination
from ..destinations.mqtt import MqttDestination
from ..records import Alert
from ..timers import every
from .monitor import DEVICES_AT_ONCE, Monitor
from .settings import MonitorSettings, monitor_settings
from .store import MonitorStore

_LOGGER = logging.getLogger(__name__)

CHECK_INTERVAL: Final = 5
# How often values are written to disk, as Home Assistant does with its own states.
SAVE_INTERVAL: Final = 15 * 60
# An alert is kept soon, but a value that goes up and down does not wear the disk (s).
_SAVE_SOON: Final = 2
_SAVE_LEAST: Final = 15


class Monitors:
    """The monitors of a bridge."""

    def __init__(
        self,
        hass: HomeAssistant,
        entry: ConfigEntry[Any],
        store: MonitorStore,
        destinations: Mapping[str, Destination[Any]],
        *,
        via_device_id: str,
        publish: Callable[[str, Alert], None],
        is_ours: Callable[[str], bool],
    ) -> None:
        """Initialize; `publish` publishes alerts, `is_ours` knows the bridge's own topics.

        `via_device_id` is the bridge's, as Home Assistant lists it.
        """
        self.hass = hass
        self.entry = entry
        self.by_id: dict[str, Monitor] = {}
        self._store = store
        self._via_device_id = via_device_id
        self._publish = publish
        self._is_ours = is_ours
        self._timers: list[CALLBACK_TYPE] = []
        self._saving: CALLBACK_TYPE | None = None
        self._saved = float(-_SAVE_LEAST)
        for subentry in entry.subentries.values():
            if subentry.subentry_type == SUBENTRY_MONITOR:
                self._add(subentry, destinations)

    def _add(
        self, subentry: ConfigSubentry, destinations: Mapping[str, Destination[Any]]
    ) -> None:
        """Add the monitor of a subentry."""
        if (settings := _settings(subentry)) is None:
            _LOGGER.error("%s is set up in a way that cannot be used", subentry.title)
            return
        destination = destinations.get(settings.destination)
        monitor = Monitor(
            self.hass,
            self.entry,
            subentry,
            settings,
            destination if isinstance(destination, MqttDestination) else None,
            via_device_id=self._via_device_id,
            on_alert=self._on_alert,
            is_ours=self._is_ours,
        )
        monitor.restore(self._store.states.get(subentry.subentry_id))
        self.by_id[subentry.subentry_id] = monitor

    @callback
    def start(self) -> None:
        """Begin to watch."""
        for monitor in self.by_id.values():
            monitor.start()
        if self.by_id:
            self._timers = [
                every(self.hass, CHECK_INTERVAL, self._on_check),
                every(self.hass, SAVE_INTERVAL, self._on_save),
            ]

    async def async_stop(self) -> None:
        """Stop, and keep what is known."""
        for cancel in (*self._timers, self._saving):
            if cancel is not None:
                cancel()
        self._timers.clear()
        self._saving = None
        await asyncio.gather(*(monitor.async_stop() for monitor in self.by_id.values()))
        for subentry_id in self.by_id:
            repairs.async_delete_monitor(self.hass, subentry_id)
        if self.by_id or self._store.states:
            await self._store.async_save(self._state())

    async def async_forget_changed(self) -> None:
        """Let go of monitors that were removed, or watch something else from now on.

        Their devices are removed a few at a time.
        """
        registry = dr.async_get(self.hass)
        for subentry_id, monitor in tuple(self.by_id.items()):
            subentry = self.entry.subentries.get(subentry_id)
            settings = None if subentry is None else _settings(subentry)
            if settings is not None:
                before = monitor.settings
                if (settings.destination, settings.preset, settings.patterns) == (
                    before.destination,
                    before.preset,
                    before.patterns,
                ):
                    if settings.filters != before.filters:
                        monitor.unwatch()
                    if settings.watching.deviations is None:
                        monitor.end_alerts()
                    continue
            for number, device in enumerate(monitor.forget(), 1):
                registry_id = monitor.registry_id(device)
                # Home Assistant itself removes those of a subentry that is removed
                if registry_id is not None and registry.async_get(registry_id):
                    registry.async_remove_device(registry_id)
                if number % DEVICES_AT_ONCE == 0:
                    await asyncio.sleep(0)

    @callback
    def remove_device(self, owner_id: str) -> bool:
        """Forget a device that the user removes; tell whether it was a monitored one."""
        return any(monitor.remove_device(owner_id) for monitor in self.by_id.values())

    def measure(self) -> None:
        """Work out the rates since the last call."""
        for monitor in self.by_id.values():
            monitor.measure()

    def device_ids(self) -> dict[str, str]:
        """Return what the devices are called in topics, by what tells them apart."""
        return {
            monitor.owner_id(device): monitor.identity(device).device_id
            for monitor in self.by_id.values()
            for device in monitor.devices.values()
        }

    # --- what time brings ---------------------------------------------------------------

    @callback
    def _on_check(self, _now: datetime) -> None:
        """See which devices are silent."""
        now = time.time()
        for monitor in self.by_id.values():
            monitor.check(now)

    def _on_alert(self, owner_id: str, alert: Alert) -> None:
        """Publish an alert, and have it outlast a crash."""
        self._publish(owner_id, alert)
        if self._saving is None and self._timers:
            wait = self._saved + _SAVE_LEAST - time.monotonic()
            self._saving = async_call_later(
                self.hass, max(_SAVE_SOON, wait), self._on_save
            )

    async def _on_save(self, _now: datetime) -> None:
        """Keep what is known."""
        self._saving = None
        self._saved = time.monotonic()
        await self._store.async_save(self._state())

    def _state(self) -> dict[str, Any]:
        """Return a copy of what is kept: nothing of monitors that were removed."""
        return {
            subentry_id: monitor.state()
            for subentry_id, monitor in self.by_id.items()
            if subentry_id in self.entry.subentries
        }


def _settings(subentry: ConfigSubentry) -> MonitorSettings | None:
    """Return how a monitor is set up, unless that is not what the form makes."""
    try:
        return monitor_settings(subentry.data)
    except KeyError, TypeError, ValueError:
        return None
