"""The user's devices: which there are, and what is told of them to the rest."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
import logging
import time
from typing import Any, Final, override

from homeassistant.components import bluetooth
from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.core import CALLBACK_TYPE, HassJob, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.event import async_call_later

from . import repairs
from .alert_event import fire_alert
from .alerts import Change, Watch
from .const import CONF_AUTOMATIC, DOMAIN, SUBENTRY_DEVICE
from .decoders import Decoders, Encryption
from .decoders.sources import Source
from .device import MODEL, Counters, Device, Owner
from .device_store import DeviceStore, Stored
from .feed import Advertiser
from .irk import Resolver
from .prospect import Prospect
from .records import Advertisement, Record
from .settings import device_settings, new_device
from .shaping import Reason
from .timers import every

_LOGGER = logging.getLogger(__name__)

CHECK_INTERVAL: Final = 1
SIGNAL_INTERVAL: Final = 10
# How often values are written to disk, as Home Assistant does with its own states.
SAVE_INTERVAL: Final = 15 * 60
# At most this many devices are added without asking.
MAX_AUTOMATIC: Final = 1_000
# Devices that come on air together are added together.
_GATHER: Final = 2.0
# How many prospects are tried before the loop turns.
_AT_ONCE: Final = 50
# What makes entities does so for this many devices (1 ms each) in a turn of the loop.
DEVICES_AT_ONCE: Final = 10
# How well a time survives a restart (s).
_CLOCKS_AGREE: Final = 0.05
# States are written at most this often (s).
STATE_INTERVAL: Final = 1.0


class Devices(Owner):
    """The devices that the user has added."""

    def __init__(
        self,
        hass: HomeAssistant,
        entry: ConfigEntry[Any],
        store: DeviceStore,
        decoders: Decoders,
        on_record: Callable[[Device, Record], None],
    ) -> None:
        """Initialize; `on_record` takes what is published."""
        self.hass = hass
        self.entry = entry
        self.by_id: dict[str, Device] = {}
        self.decoders = decoders
        self._store = store
        self._on_record = on_record
        self._by_address: dict[str, Device] = {}
        self._resolver = Resolver()
        self._advertisers: Mapping[str, Advertiser] = {}
        self._adders: list[Callable[[Device, Iterable[str]], None]] = []
        self._listeners: dict[tuple[str, str], set[CALLBACK_TYPE]] = {}
        self._event_listeners: dict[tuple[str, str], set[Callable[[str], None]]] = {}
        self._dirty: dict[str, set[str]] = {}
        self._written: dict[str, float] = {}
        self._writing: CALLBACK_TYPE | None = None
        self._timers: list[CALLBACK_TYPE] = []
        self._adding: dict[str, tuple[Advertisement, str | None]] = {}
        self._cancel_adding: CALLBACK_TYPE | None = None
        self._trying = False
        self._known: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._removed = Counters(), Counter[Reason]()
        for subentry in self._subentries():
            self._add(subentry)

    # --- which there are ----------------------------------------------------------------

    def _subentries(self) -> list[ConfigSubentry]:
        """Return the subentries of devices."""
        return [
            subentry
            for subentry in self.entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_DEVICE
        ]

    def _add(self, subentry: ConfigSubentry) -> Device:
        """Add the device of a subentry."""
        settings = device_settings(subentry, self.entry.options)
        device = Device(
            subentry.subentry_id, settings, self.decoders.device(settings.key), self
        )
        if (state := self._store.states.get(subentry.subentry_id)) is not None:
            device.restore(state)
        self.by_id[subentry.subentry_id] = device
        # Home Assistant changes the object in place
        self._known[subentry.subentry_id] = subentry.title, subentry.data
        if settings.irk is not None:
            self._resolver.add(subentry.subentry_id, [settings.irk])
        if settings.address is not None:
            self._by_address[settings.address] = device
        return device

    @callback
    def start(self, advertisers: Mapping[str, Advertiser]) -> None:
        """Begin to follow what is on air."""
        self._advertisers = advertisers
        self._timers = [
            every(self.hass, CHECK_INTERVAL, self._on_check),
            every(self.hass, SIGNAL_INTERVAL, self._on_signal),
            every(self.hass, SAVE_INTERVAL, self._on_save),
        ]

    async def async_stop(self) -> None:
        """Stop, and keep what is known."""
        for cancel in (*self._timers, self._writing, self._cancel_adding):
            if cancel is not None:
                cancel()
        self._timers.clear()
        self._writing = self._cancel_adding = None
        await self._store.async_save(self._stored())

    @callback
    def sync(self) -> bool:
        """Take in devices that were added, let go of those removed.

        Returns whether that was all there was to do: False where a device was changed.
        """
        subentries = {subentry.subentry_id: subentry for subentry in self._subentries()}
        for subentry_id in self.by_id.keys() - subentries.keys():
            self._remove(self.by_id[subentry_id])
        is_all = True
        for subentry_id, subentry in subentries.items():
            if subentry_id not in self.by_id:
                self._follow(self._add(subentry))
            elif self._known[subentry_id] != (subentry.title, subentry.data):
                # Whether its key is right now shows with the next packet
                repairs.async_delete_key_issues(self.hass, subentry_id)
                is_all = False
        return is_all

    @callback
    def end_removed_rules(self) -> None:
        """End the alerts of rules that are no more, before the bridge begins anew."""
        now = time.time()
        for subentry in self._subentries():
            if (device := self.by_id.get(subentry.subentry_id)) is not None:
                settings = device_settings(subentry, self.entry.options)
                device.end_alerts(now, settings.rules)

    def _follow(self, device: Device) -> None:
        """Attach the addresses of a new device."""
        for add in self._adders:
            add(device, ())
        for advertiser in self._advertisers.values():
            if self._find(advertiser.address) is device:
                self._attach(advertiser, device)
        self._catch_up(device)

    def _remove(self, device: Device) -> None:
        """Let go of a device whose subentry is gone."""
        device.end_alerts(time.time())
        _count(self._removed, device.counters, device.left_out)
        del self.by_id[device.subentry_id]
        self._resolver.remove(device.subentry_id)
        if (address := device.settings.address) is not None:
            self._by_address.pop(address, None)
            # Else one that is added without asking would be back at once.
            self._store.removed = [
                *(other for other in self._store.removed if other != address),
                address,
            ][-MAX_AUTOMATIC:]
        for advertiser in device.advertisers.values():
            advertiser.device = None
            for sighting in advertiser.sightings.values():
                sighting.device = None
        self._store.states.pop(device.subentry_id, None)
        self._dirty.pop(device.subentry_id, None)
        self._written.pop(device.subentry_id, None)
        repairs.async_delete_key_issues(self.hass, device.subentry_id)
        self._save_soon()

    def totals(self) -> tuple[Counters, Counter[Reason]]:
        """Return what became of the packets of devices, and how many were left out.

        Those of devices that are removed stay counted.
        """
        totals = Counters(), Counter[Reason]()
        _count(totals, *self._removed)
        for device in self.by_id.values():
            _count(totals, device.counters, device.left_out)
        return totals

    def _find(self, address: str) -> Device | None:
        """Return the device that an address belongs to."""
        if (device := self._by_address.get(address)) is not None:
            return device
        if (subentry_id := self._resolver.resolve(address)) is not None:
            return self.by_id.get(subentry_id)
        return None

    def _attach(self, advertiser: Advertiser, device: Device) -> None:
        """Have a device follow an address."""
        advertiser.device = device
        device.advertisers[advertiser.address] = advertiser

    @callback
    def catch_up(self) -> None:
        """Take what the devices said while nobody listened."""
        for device in tuple(self.by_id.values()):
            self._catch_up(device)
        self._try_prospects()

    def _catch_up(self, device: Device) -> None:
        """Take what a device said last; what is from before a restart is known already."""
        for advertiser in tuple(device.advertisers.values()):
            last = bluetooth.async_last_service_info(
                self.hass, advertiser.address, connectable=False
            )
            if (
                last is not None
                and last.time > device.heard + _CLOCKS_AGREE
                and (sighting := advertiser.heard_before(last)) is not None
            ):
                device.catch_up(sighting, last)

    @callback
    def on_address(self, advertiser: Advertiser) -> None:
        """Find out to whom an address belongs that is new on air."""
        if (device := self._find(advertiser.address)) is not None:
            self._attach(advertiser, device)
        elif self._is_automatic and advertiser.address not in self._store.removed:
            advertiser.device = Prospect(self.decoders.device(), self.add_soon)

    @callback
    def on_gone(self, advertiser: Advertiser) -> None:
        """Take note that an address is gone."""
        if isinstance(device := advertiser.device, Device):
            device.on_gone(advertiser)

    # --- devices that are added without asking ------------------------------------------

    @property
    def _is_automatic(self) -> bool:
        """Tell whether devices are added without asking."""
        return bool(self.entry.options.get(CONF_AUTOMATIC))

    def add_soon(self, advertisement: Advertisement, model: str | None) -> None:
        """Add a device, with others that come at the same time."""
        if len(self.by_id) + len(self._adding) >= MAX_AUTOMATIC:
            return
        self._adding[advertisement.address] = advertisement, model
        if self._cancel_adding is None:
            self._cancel_adding = async_call_later(
                self.hass, _GATHER, HassJob(self._add_found, cancel_on_shutdown=True)
            )

    @callback
    def _try_prospects(self) -> None:
        """Try what was said last, for some say it once a minute."""
        if self._is_automatic and not self._trying:
            self._trying = True
            self.entry.async_create_background_task(
                self.hass,
                self._async_try_prospects(),
                "ble_bridge prospects",
                eager_start=False,
            )

    async def _async_try_prospects(self) -> None:
        """Try all of them, a few at a time."""
        self._trying = False
        for number, advertiser in enumerate(tuple(self._advertisers.values())):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if isinstance(prospect := advertiser.device, Prospect):
                last = bluetooth.async_last_service_info(
                    self.hass, advertiser.address, connectable=False
                )
                if last is not None and advertiser.heard_before(last) is not None:
                    prospect.consider(last)

    @callback
    def _add_found(self, _now: datetime) -> None:
        """Add what was found."""
        self._cancel_adding = None
        found, self._adding = self._adding, {}
        taken = {subentry.unique_id for subentry in self.entry.subentries.values()}
        for advertisement, model in found.values():
            if advertisement.address not in taken:
                self.hass.config_entries.async_add_subentry(
                    self.entry, new_device(advertisement, model)
                )

    # --- libraries ----------------------------------------------------------------------

    @callback
    def on_wanted(self, name: str) -> None:
        """Load a library that a packet needs."""
        # Not eagerly: who wants it first takes note that it waits
        self.entry.async_create_background_task(
            self.hass,
            self._async_load(name),
            f"ble_bridge load {name}",
            eager_start=False,
        )

    async def async_load(self, sources: Iterable[Source]) -> None:
        """Load the libraries of sources, as far as they are not."""
        for source in sources:
            if not self.decoders.was_loaded(source):
                await self._async_load(source.name)

    async def _async_load(self, name: str) -> None:
        """Load a library off the loop, then decode what waited for it."""
        try:
            await self.hass.async_add_import_executor_job(self.decoders.load, name)
        except ImportError:
            _LOGGER.exception("%s could not be loaded; its devices stay unknown", name)
        if not self._timers:
            return  # The bridge has stopped meanwhile
        waiting = [device for device in self.by_id.values() if device.waiting]
        for number, device in enumerate(waiting, 1):
            if self.by_id.get(device.subentry_id) is device:
                device.decode_again()
            if number % DEVICES_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._try_prospects()

    # --- what is told of them -----------------------------------------------------------

    @override
    def on_record(self, device: Device, record: Record) -> None:
        self._on_record(device, record)

    @override
    def on_fields(self, device: Device, names: list[str]) -> None:
        for add in self._adders:
            add(device, names)

    @override
    def on_values(self, device: Device, names: Iterable[str]) -> None:
        key = device.subentry_id
        self._dirty.setdefault(key, set()).update(names)
        if time.monotonic() - self._written.get(key, 0.0) >= STATE_INTERVAL:
            self._write(key)
        elif self._writing is None:
            self._write_later()

    @override
    def on_event(self, device: Device, name: str, event: str) -> None:
        for listener in tuple(
            self._event_listeners.get((device.subentry_id, name), ())
        ):
            listener(event)

    @override
    def on_alert(self, device: Device, watch: Watch, change: Change) -> None:
        fire_alert(
            self.hass,
            (device.identity.device_id, device.settings.name),
            self._registry_id(device),
            watch.rule,
            change,
        )
        self.on_values(device, [alert_key(watch)])
        self._save_soon()

    @override
    def on_encryption(self, device: Device, encryption: Encryption) -> None:
        if (subentry := self.entry.subentries.get(device.subentry_id)) is not None:
            repairs.async_update_key(self.hass, self.entry, subentry, encryption)

    @override
    def interval(self, address: str) -> float | None:
        return bluetooth.async_get_learned_advertising_interval(self.hass, address)

    def _registry_id(self, device: Device) -> str | None:
        """Return the ID under which Home Assistant knows the device, or knew it last."""
        found = dr.async_get(self.hass).async_get_device_by_identifier(
            (DOMAIN, device.subentry_id), self.entry.entry_id
        )
        if found is not None:
            device.registry_id = found.id
        return device.registry_id

    # --- who listens --------------------------------------------------------------------

    @callback
    def async_add_adder(
        self, adder: Callable[[Device, Iterable[str]], None]
    ) -> CALLBACK_TYPE:
        """Call an adder for each device, and each field, that is new."""
        self._adders.append(adder)

        @callback
        def remove() -> None:
            self._adders.remove(adder)

        return remove

    @callback
    def async_listen(
        self, device: Device, name: str, listener: CALLBACK_TYPE
    ) -> CALLBACK_TYPE:
        """Call a listener when something of a device changed, once a second at most."""
        listeners = self._listeners.setdefault((device.subentry_id, name), set())
        listeners.add(listener)
        return lambda: listeners.discard(listener)

    @callback
    def async_listen_event(
        self, device: Device, name: str, listener: Callable[[str], None]
    ) -> CALLBACK_TYPE:
        """Call a listener with each event of a device."""
        listeners = self._event_listeners.setdefault((device.subentry_id, name), set())
        listeners.add(listener)
        return lambda: listeners.discard(listener)

    def _write(self, key: str) -> None:
        """Have the entities of a device write what changed."""
        self._written[key] = time.monotonic()
        names = self._dirty.pop(key, set())
        if MODEL in names:
            self._update_registry(self.by_id[key])
        for name in names:
            for listener in tuple(self._listeners.get((key, name), ())):
                listener()

    @callback
    def _write_all(self) -> None:
        """Have the entities write what changed meanwhile, each as soon as it may."""
        self._writing = None
        now = time.monotonic()
        for key in list(self._dirty):
            if now - self._written.get(key, 0.0) >= STATE_INTERVAL:
                self._write(key)
        if self._dirty:
            self._write_later()

    def _write_later(self) -> None:
        """Write what has to wait."""
        self._writing = self.hass.loop.call_later(
            STATE_INTERVAL / 4, self._write_all
        ).cancel

    def _update_registry(self, device: Device) -> None:
        """Show the model that a device turned out to be."""
        if registry_id := self._registry_id(device):
            dr.async_get(self.hass).async_update_device(
                registry_id,
                model=device.identity.model,
                manufacturer=device.manufacturer,
            )

    # --- what time brings ---------------------------------------------------------------

    @callback
    def _on_check(self, _now: datetime) -> None:
        """See which devices are gone, and which alerts are due."""
        monotonic, now = time.monotonic(), time.time()
        for device in self.by_id.values():
            device.check(monotonic, now)

    @callback
    def _on_signal(self, _now: datetime) -> None:
        """Judge the signals."""
        monotonic, now = time.monotonic(), time.time()
        for device in self.by_id.values():
            if device.registry_id is None:
                self._registry_id(device)  # It is gone before its alerts end
            if device.present:
                device.measure(monotonic, now)

    async def _on_save(self, _now: datetime) -> None:
        """Keep the values."""
        await self._store.async_save(self._stored())

    def _save_soon(self) -> None:
        """Keep what must not be lost."""
        self._store.save_soon(self._stored)

    def _stored(self) -> Stored:
        """Return what is kept."""
        return {
            "devices": {key: device.state() for key, device in self.by_id.items()},
            "removed": self._store.removed,
        }


def alert_key(watch: Watch) -> str:
    """Return by what to listen to an alert."""
    return f"alert!{watch.rule.rule_id}"


def _count(
    totals: tuple[Counters, Counter[Reason]],
    counters: Counters,
    left_out: Mapping[Reason, int],
) -> None:
    """Add what was counted of one device, or of several."""
    totals[0].add(counters)
    totals[1].update(left_out)
