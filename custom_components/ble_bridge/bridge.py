"""What one bridge is made of: the feed, its destinations, and their health."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
import functools
import logging
from pathlib import Path
import time
from typing import Any, Final

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigSubentry,
)
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.storage import STORAGE_DIR

from . import repairs
from .const import (
    CONF_ALLOW,
    CONF_BRIDGE_ID,
    CONF_BROKER,
    CONF_DENY,
    CONF_EXCLUDED_SCANNERS,
    CONF_MINIMUM_RSSI,
    CONF_SCANNER_IDS,
    DOMAIN,
    HEARTBEAT_INTERVAL,
    MANUFACTURER,
    STATISTICS_INTERVAL,
    SUBENTRY_DESTINATION,
    SUBENTRY_DEVICE,
    Broker,
)
from .decoders import Decoders
from .decoders.formats import Format
from .destinations.destination import Destination
from .destinations.errors import Problem
from .destinations.policy import DeliverySettings, Policy
from .destinations.store import RecordStore
from .device import Device
from .device_store import DeviceStore
from .devices import Devices
from .feed import Feed
from .filters import DeviceList, Filter
from .kinds import kind_of
from .kinds.kind import Site
from .kinds.mqtt.settings import MQTT_DOMAIN, home_assistant_broker
from .layouts.payloads import unpublishable
from .layouts.raw import RawLayout
from .layouts.subjects import RawProtobufLayout
from .monitors.monitors import Monitors
from .monitors.store import MonitorStore
from .publisher import Publisher
from .records import (
    Advertisement,
    Alert,
    Reading,
    Record,
    RecordKind,
    Scanner,
    Sighting,
)
from .scanners import BridgeStore, Scanners
from .settings import delivery_settings
from .timers import every

_LOGGER = logging.getLogger(__name__)

type BleBridgeConfigEntry = ConfigEntry[Bridge]

# How long after its last packet a device counts as on air: what the stack itself allows.
ON_AIR: Final = 195.0
# Of how many devices is said again what stands, before the loop turns.
_AT_ONCE: Final = 20


class Bridge:
    """Everything between Home Assistant's Bluetooth stack and the bus."""

    def __init__(
        self,
        hass: HomeAssistant,
        entry: BleBridgeConfigEntry,
        store: BridgeStore,
        device_store: DeviceStore,
        monitor_store: MonitorStore,
        formats: tuple[Format, ...],
    ) -> None:
        """Initialize from the entry, its options and its subentries.

        `formats` are those of the user's own.
        """
        self.hass = hass
        self.entry = entry
        self.bridge_id: str = entry.data[CONF_BRIDGE_ID]
        self.store = store
        retained = store.data["retained"]
        for subentry_id in retained.keys() - entry.subentries.keys():
            del retained[subentry_id]
        self.device_id = (
            dr.async_get(hass)
            .async_get_or_create(
                config_entry_id=entry.entry_id,
                entry_type=dr.DeviceEntryType.SERVICE,
                identifiers={(DOMAIN, entry.entry_id)},
                manufacturer=MANUFACTURER,
                model="Bridge",
                name=entry.title,
            )
            .id
        )
        self.rate: float | None = None
        self.scanners = Scanners(
            hass,
            store,
            entry.options.get(CONF_SCANNER_IDS, {}),
            frozenset(entry.options.get(CONF_EXCLUDED_SCANNERS, ())),
        )
        self.scanners.refresh()
        self.feed = Feed(
            hass, self.scanners.get, _filter(entry.options), self._on_advertisement
        )
        self._site = Site(
            hass=hass,
            bridge_id=self.bridge_id,
            store=store,
            raw=RawLayout(),
            raw_protobuf=RawProtobufLayout(),
        )
        self.decoders = Decoders(self._on_wanted)
        self.decoders.use_formats(formats)
        self.devices = Devices(
            hass, entry, device_store, self.decoders, self._on_record
        )
        self.feed.on_address = self.devices.on_address
        self.feed.on_gone = self.devices.on_gone
        self.publishers: dict[str, Publisher] = {
            subentry.subentry_id: self._publisher(subentry)
            for subentry in entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_DESTINATION
        }
        self.destinations: dict[str, Destination[Any]] = {
            subentry_id: publisher.destination
            for subentry_id, publisher in self.publishers.items()
        }
        self.monitors = Monitors(
            hass,
            entry,
            monitor_store,
            self.destinations,
            via_device_id=self.device_id,
            publish=self._publish_alert,
            is_ours=self.is_ours,
        )
        self._outputs = tuple(
            destination
            for destination in self.destinations.values()
            if destination.raw is not None
        )
        self._borrowed = self._borrow()
        self._snapshot = _without_devices(entry)
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[CALLBACK_TYPE] = []
        self._listeners: set[CALLBACK_TYPE] = set()
        self._started = time.monotonic()
        self._counted = (self._started, 0)

    # --- start and stop -----------------------------------------------------------------

    async def async_open(self) -> None:
        """Take over what earlier runs left on disk, but for destinations that are gone."""
        await self.hass.async_add_executor_job(
            remove_stores, self.hass, frozenset(self.entry.subentries)
        )
        await asyncio.gather(
            *(destination.async_open() for destination in self.destinations.values())
        )

    @callback
    def start(self) -> None:
        """Connect and listen; the feed comes last, when all else is ready for it."""
        self.monitors.start()
        self._tasks = [
            self.entry.async_create_background_task(
                self.hass, destination.async_run(), f"ble_bridge {destination.title}"
            )
            for destination in self.destinations.values()
        ]
        self._timers = [
            every(self.hass, STATISTICS_INTERVAL, self._on_statistics),
            every(self.hass, HEARTBEAT_INTERVAL, self._on_heartbeat),
            async_dispatcher_connect(
                self.hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._on_entry_changed
            ),
            repairs.async_watch_certificates(self.hass, self.entry),
        ]
        self.devices.start(self.feed.advertisers)
        self.feed.start()
        self.devices.catch_up()

    async def async_stop(self) -> None:
        """Stop listening, say goodbye on each destination, and disconnect."""
        self.feed.stop()
        await self.devices.async_stop()
        await self.monitors.async_stop()
        for cancel in self._timers:
            cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await asyncio.gather(
            *(
                publisher.destination.async_stop(
                    functools.partial(
                        publisher.say_goodbye, self._scanners, self._uptime
                    )
                )
                for publisher in self.publishers.values()
            )
        )
        await self.store.async_save()

    @callback
    def _on_entry_changed(
        self, _change: ConfigEntryChange, entry: ConfigEntry[Any]
    ) -> None:
        """Follow what the user changes in the MQTT integration that we borrow from."""
        if entry.domain == MQTT_DOMAIN and self._borrowed != self._borrow():
            self.hass.config_entries.async_schedule_reload(self.entry.entry_id)

    def _borrow(self) -> Mapping[str, Any] | None:
        """Return the settings of Home Assistant's broker, if a destination uses it."""
        if any(
            subentry.data.get(CONF_BROKER) == Broker.HOME_ASSISTANT
            for subentry in self.entry.subentries.values()
        ):
            return home_assistant_broker(self.hass)
        return None

    async def async_take_over(self) -> bool:
        """Take over what the user changed; return False where that takes a new bridge.

        Devices that are added or removed are followed at once, however many they are.
        """
        if self._snapshot == _without_devices(self.entry) and self.devices.sync():
            for publisher in self.publishers.values():
                self._clear_stale(publisher)
            return True
        self.devices.end_removed_rules()
        await self.monitors.async_forget_changed()
        for publisher in self.publishers.values():
            subentry = self.entry.subentries.get(publisher.subentry_id)
            if subentry is None or (
                kind_of(subentry.data).place(subentry.data) != publisher.place
            ):
                publisher.forget()
        return False

    @callback
    def remove_device(self, owner: str) -> bool:
        """Forget a monitored device, or a scanner that is gone; tell whether it was one."""
        if not self.monitors.remove_device(owner):
            source = owner.removeprefix(f"{self.entry.entry_id}_")
            if not self.scanners.forget(source):
                return False
            for advertiser in self.feed.advertisers.values():
                advertiser.forget(source)
        for publisher in self.publishers.values():
            self._clear_stale(publisher)
        return True

    # --- the way of a packet ------------------------------------------------------------

    @callback
    def _on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        """Hand an advertisement to every destination."""
        for output in self._outputs:
            output.on_advertisement(sighting, advertisement)

    def _on_record(self, device: Device, record: Record) -> None:
        """Publish what became known of a device."""
        publishers = [
            publisher for publisher in self.publishers.values() if publisher.has_layouts
        ]
        for publisher in publishers:
            publisher.publish(device.subentry_id, record)
        if not publishers or not isinstance(record, Reading):
            return
        for name in unpublishable(record):
            device.tell_error(
                "rejected", "A value cannot be published", {"field": name}
            )

    def _publish_alert(self, owner_id: str, alert: Alert) -> None:
        """Publish an alert of a monitored device."""
        for publisher in self.publishers.values():
            if publisher.has_layouts:
                publisher.publish(owner_id, alert)

    def is_ours(self, topic: str) -> bool:
        """Tell whether a topic is one under which the bridge tells of itself."""
        return any(publisher.keeps(topic) for publisher in self.publishers.values())

    @callback
    def _on_wanted(self, name: str) -> None:
        """Load a library that a packet needs."""
        self.devices.on_wanted(name)

    # --- heartbeats and statistics ------------------------------------------------------

    @callback
    def async_add_listener(self, listener: CALLBACK_TYPE) -> CALLBACK_TYPE:
        """Call a listener when the figures or a connection change."""
        self._listeners.add(listener)

        @callback
        def remove() -> None:
            self._listeners.discard(listener)

        return remove

    @callback
    def _notify(self) -> None:
        """Tell the listeners."""
        for listener in tuple(self._listeners):
            listener()

    @property
    def received(self) -> int:
        """Return how many advertisements were received."""
        return sum(scanner.received for scanner in self.scanners.by_source.values())

    @property
    def online_scanners(self) -> int:
        """Return how many scanners there are."""
        return sum(scanner.online for scanner in self.scanners.by_source.values())

    def devices_on_air(self) -> dict[Scanner | None, int]:
        """Return how many devices each scanner hears, and under None how many there are."""
        heard_after = time.monotonic() - ON_AIR
        counts: dict[Scanner | None, int] = {None: 0}
        for advertiser in self.feed.advertisers.values():
            heard = False
            for sighting in advertiser.sightings.values():
                if sighting.time > heard_after:
                    heard = True
                    counts[sighting.scanner] = counts.get(sighting.scanner, 0) + 1
            counts[None] += heard
        return counts

    @callback
    def _on_statistics(self, _now: datetime) -> None:
        """Work out the rates, and have the entities write them."""
        now, received = time.monotonic(), self.received
        then, received_then = self._counted
        self.rate = (received - received_then) / (now - then) if now > then else None
        self._counted = now, received
        for publisher in self.publishers.values():
            publisher.destination.measure()
            publisher.destination.delivery.expire()
            publisher.settle()
        self.monitors.measure()
        self._publish_scanners(self.scanners.refresh())
        for scanner in self.scanners.measure(now, time.time()):
            repairs.async_update_scanner(self.hass, self.entry, scanner)
        self._notify()

    @callback
    def _on_heartbeat(self, _now: datetime) -> None:
        """Publish how the scanners are doing, and log the rates."""
        self.scanners.refresh()
        self._publish_scanners(self._scanners)
        for publisher in self.publishers.values():
            publisher.log_rates(self._scanners)

    def _publish_scanners(self, scanners: list[Scanner]) -> None:
        """Publish the heartbeats of scanners on every destination."""
        if scanners:
            devices = self.devices_on_air()
            for publisher in self.publishers.values():
                publisher.publish_heartbeats(scanners, devices, self._uptime)

    @property
    def _scanners(self) -> list[Scanner]:
        """Return the scanners that are known."""
        return list(self.scanners.by_source.values())

    @property
    def _uptime(self) -> float:
        """Return for how long the bridge has run (s)."""
        return time.monotonic() - self._started

    # --- connections --------------------------------------------------------------------

    def _publisher(self, subentry: ConfigSubentry) -> Publisher:
        """Make the destination of a subentry, and what publishes there."""
        delivery = delivery_settings(subentry.data)
        return kind_of(subentry.data).publisher(
            self._site,
            subentry,
            delivery,
            self._store(subentry.subentry_id, delivery),
            _Listener(self, subentry.subentry_id),
        )

    def _store(
        self, subentry_id: str, settings: DeliverySettings
    ) -> RecordStore | None:
        """Return where a destination's records are durable, if any are, or were."""
        path = store_path(self.hass, subentry_id)
        if Policy.DURABLE in settings.policies.values() or path.exists():
            return RecordStore(path, list(RecordKind))
        return None

    @callback
    def on_connection(self, subentry_id: str) -> None:
        """Say that we are there, and clear what earlier names left behind."""
        publisher = self.publishers[subentry_id]
        if publisher.destination.connection is not None:
            publisher.say_hello()
            publisher.publish_heartbeats(
                self._scanners, self.devices_on_air(), self._uptime
            )
            self._clear_stale(publisher)
            if publisher.retains:
                self.entry.async_create_background_task(
                    self.hass, self._async_restate(publisher), "ble_bridge restate"
                )
        self._notify()

    async def _async_restate(self, publisher: Publisher) -> None:
        """Say again what the broker is to keep, for it may have changed, or been lost."""
        connection = publisher.destination.connection
        for number, device in enumerate(tuple(self.devices.by_id.values())):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if publisher.destination.connection is not connection:
                return
            for record in device.standing():
                publisher.publish(device.subentry_id, record, kept_only=True)
        for monitor in self.monitors.by_id.values():
            for owner_id, alert in monitor.standing():
                publisher.publish(owner_id, alert, kept_only=True)

    def _clear_stale(self, publisher: Publisher) -> None:
        """Clear the retained messages of topics that are no longer used."""
        publisher.clear_stale(
            {*{**self.store.data["scanners"], **self.scanners.chosen}.values()},
            {
                subentry_id: device.identity.device_id
                for subentry_id, device in self.devices.by_id.items()
            }
            | self.monitors.device_ids(),
        )

    async def async_retry(self, subentry_id: str) -> Problem | None:
        """Send again what a destination refused; return why, where it still is refused."""
        return await self.destinations[subentry_id].async_retry()


class _Listener:
    """What of a destination's health the bridge and the user are told."""

    def __init__(self, bridge: Bridge, subentry_id: str) -> None:
        """Initialize with the subentry of the destination."""
        self._bridge = bridge
        self._subentry_id = subentry_id

    @property
    def _subentry(self) -> ConfigSubentry | None:
        """Return the subentry, unless it is being removed."""
        return self._bridge.entry.subentries.get(self._subentry_id)

    @callback
    def on_change(self) -> None:
        """Say that we are there, and clear what earlier names left behind."""
        self._bridge.on_connection(self._subentry_id)

    @callback
    def on_problem(self, problem: Problem | None) -> None:
        """Ask the user for help where they can give it, and stop asking when it works."""
        if (subentry := self._subentry) is not None:
            bridge = self._bridge
            repairs.async_update(bridge.hass, bridge.entry, subentry, problem)

    @callback
    def on_refusals(self, problems: frozenset[Problem]) -> None:
        """Ask the user for help where messages are refused."""
        if (subentry := self._subentry) is not None:
            bridge = self._bridge
            details = bridge.destinations[self._subentry_id].details
            repairs.async_update_refusals(
                bridge.hass, bridge.entry, subentry, problems, details
            )

    @callback
    def on_store(self, problem: Problem | None) -> None:
        """Tell the user of a disk that fails."""
        if (subentry := self._subentry) is not None:
            bridge = self._bridge
            repairs.async_update_store(bridge.hass, bridge.entry, subentry, problem)


def store_path(hass: HomeAssistant, subentry_id: str) -> Path:
    """Return where a destination's records are on disk."""
    return Path(hass.config.path(STORAGE_DIR, f"{DOMAIN}.{subentry_id}.db"))


def remove_stores(hass: HomeAssistant, keep: Collection[str] = ()) -> None:
    """Remove what is on disk of all destinations but some; blocks."""
    for path in store_path(hass, "*").parent.glob(store_path(hass, "*").name):
        if path.suffixes[-2].removeprefix(".") not in keep:
            RecordStore(path, ()).remove()


def _without_devices(entry: BleBridgeConfigEntry) -> object:
    """Return what a bridge is made of, apart from its devices."""
    return (
        entry.title,
        dict(entry.data),
        dict(entry.options),
        {
            # Home Assistant changes the object in place
            subentry_id: (subentry.title, subentry.data)
            for subentry_id, subentry in entry.subentries.items()
            if subentry.subentry_type != SUBENTRY_DEVICE
        },
    )


def _filter(options: Any) -> Filter:
    """Return the filter that the options describe."""
    return Filter(
        DeviceList.parse(**options.get(CONF_ALLOW, {})),
        DeviceList.parse(**options.get(CONF_DENY, {})),
        options.get(CONF_MINIMUM_RSSI, -128),
    )
