"""What one bridge is made of: the feed, its destinations, and their health."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
import logging
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
from homeassistant.helpers.event import async_track_time_interval

from . import repairs
from .const import (
    CONF_ALLOW,
    CONF_BRIDGE_ID,
    CONF_BROKER,
    CONF_DENY,
    CONF_EXCLUDED_SCANNERS,
    CONF_MINIMUM_RSSI,
    CONF_QOS,
    CONF_SCANNER_IDS,
    CONF_TOPIC_BASE,
    DOMAIN,
    HEARTBEAT_INTERVAL,
    STATISTICS_INTERVAL,
    SUBENTRY_DESTINATION,
    Broker,
)
from .destinations.errors import ConnectError, Problem
from .destinations.mqtt import MqttDestination
from .destinations.mqtt_connection import MqttConnector, Will
from .feed import Feed
from .filters import DeviceList, Filter
from .layouts.raw import Heartbeat, RawLayout, bridge_topic, scanner_topic
from .records import Advertisement, Scanner, Sighting
from .scanners import BridgeStore, Scanners
from .settings import MQTT_DOMAIN, home_assistant_broker, mqtt_settings, place

_LOGGER = logging.getLogger(__name__)

type BleBridgeConfigEntry = ConfigEntry[Bridge]

MANUFACTURER: Final = "BLE Bridge"
# How long after its last packet a device counts as on air: what the stack itself allows.
ON_AIR: Final = 195.0
_CLEAR_TIMEOUT: Final = 5.0


class Bridge:
    """Everything between Home Assistant's Bluetooth stack and the bus."""

    def __init__(
        self, hass: HomeAssistant, entry: BleBridgeConfigEntry, store: BridgeStore
    ) -> None:
        """Initialize from the entry, its options and its subentries."""
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
        self.feed = Feed(
            hass, self.scanners.get, _filter(entry.options), self._on_advertisement
        )
        self.raw = RawLayout()
        self.destinations: dict[str, MqttDestination] = {
            subentry.subentry_id: self._destination(subentry)
            for subentry in entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_DESTINATION
        }
        self._outputs = tuple(self.destinations.values())
        self._places = {
            subentry_id: place(entry.subentries[subentry_id].data)
            for subentry_id in self.destinations
        }
        self._borrowed = self._borrow()
        self._forgotten: set[MqttDestination] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: list[CALLBACK_TYPE] = []
        self._listeners: set[CALLBACK_TYPE] = set()
        self._started = time.monotonic()
        self._counted = (self._started, 0)
        self._logged: dict[MqttDestination, tuple[int, int]] = {}
        self._logged_received = 0

    # --- start and stop -----------------------------------------------------------------

    @callback
    def start(self) -> None:
        """Connect and listen; the feed comes last, when all else is ready for it."""
        for subentry_id, destination in self.destinations.items():
            self._tasks[subentry_id] = self.entry.async_create_background_task(
                self.hass, destination.async_run(), f"ble_bridge {destination.title}"
            )
        for action, seconds in (
            (self._on_statistics, STATISTICS_INTERVAL),
            (self._on_heartbeat, HEARTBEAT_INTERVAL),
        ):
            self._timers.append(
                async_track_time_interval(
                    self.hass,
                    action,
                    timedelta(seconds=seconds),
                    cancel_on_shutdown=True,
                )
            )
        self._timers.append(
            async_dispatcher_connect(
                self.hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._on_entry_changed
            )
        )
        self.scanners.refresh()
        self.feed.start()

    async def async_stop(self) -> None:
        """Stop listening, say goodbye on each destination, and disconnect."""
        self.feed.stop()
        for cancel in self._timers:
            cancel()
        self._timers.clear()
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._tasks.clear()
        await asyncio.gather(
            *(output.async_stop(self._say_goodbye) for output in self._outputs)
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
            subentry.data[CONF_BROKER] == Broker.HOME_ASSISTANT
            for subentry in self.entry.subentries.values()
        ):
            return home_assistant_broker(self.hass)
        return None

    @callback
    def forget_moved(self) -> None:
        """Clear what a broker keeps for a destination that is removed or goes elsewhere."""
        for subentry_id, destination in self.destinations.items():
            subentry = self.entry.subentries.get(subentry_id)
            if (
                subentry is not None
                and place(subentry.data) == self._places[subentry_id]
            ):
                continue
            self._forgotten.add(destination)
            if destination.connection is None:
                continue  # Cleared at the next connection, if there is one
            for topic in self.store.data["retained"].pop(subentry_id, ()):
                destination.publish_retained(topic, b"")
            self.store.save()

    # --- the way of a packet ------------------------------------------------------------

    @callback
    def _on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        """Hand an advertisement to every destination."""
        for output in self._outputs:
            output.on_advertisement(sighting, advertisement)

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
        for device in self.feed.devices.values():
            heard = False
            for sighting in device.sightings.values():
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
        for output in self._outputs:
            output.measure()
        self._publish_scanners(self.scanners.refresh())
        self._notify()

    @callback
    def _on_heartbeat(self, _now: datetime) -> None:
        """Publish how the scanners are doing, and log the rates."""
        self.scanners.refresh()
        self._publish_scanners(list(self.scanners.by_source.values()))
        received, self._logged_received = self._logged_received, self.received
        for output in self._outputs:
            totals = output.totals(list(self.scanners.by_source.values()))
            sent, dropped = self._logged.get(output, (0, 0))
            self._logged[output] = totals.sent, totals.dropped
            _LOGGER.info(
                "%s: %.1f advertisements a second received, %.1f published, %.1f dropped",
                output.title,
                (totals.received - received) / HEARTBEAT_INTERVAL,
                (totals.sent - sent) / HEARTBEAT_INTERVAL,
                (totals.dropped - dropped) / HEARTBEAT_INTERVAL,
            )

    def _publish_scanners(self, scanners: list[Scanner]) -> None:
        """Publish the heartbeats of scanners on every destination."""
        if scanners:
            devices = self.devices_on_air()
            for output in self._outputs:
                self._publish_heartbeats(output, scanners, devices)

    def _publish_heartbeats(
        self,
        output: MqttDestination,
        scanners: list[Scanner],
        devices: dict[Scanner | None, int],
        status: str | None = None,
    ) -> None:
        """Publish the heartbeats of scanners on one destination."""
        now = time.time()
        for scanner in scanners:
            tally = output.tallies.get(scanner)
            heartbeat = Heartbeat(
                scanner=scanner,
                status=status or ("running" if scanner.online else "offline"),
                uptime=time.monotonic() - self._started,
                devices=devices.get(scanner, 0),
                published=tally.sent if tally else 0,
                dropped=tally.dropped if tally else 0,
                connected=output.connection is not None,
                messages_sent=output.sent,
                reconnects=output.reconnects,
                last_error=output.last_error,
            )
            self._publish_retained(
                output,
                scanner_topic(output.topic_base, scanner.scanner_id),
                heartbeat.payload(now),
            )

    def _publish_retained(
        self, output: MqttDestination, topic: str, payload: bytes
    ) -> None:
        """Publish a retained message, and remember that the broker keeps it."""
        if output in self._forgotten:
            return
        output.publish_retained(topic, payload)
        topics = self.store.data["retained"].setdefault(self._subentry_id(output), [])
        if topic not in topics:
            topics.append(topic)
            self.store.save()

    # --- connections --------------------------------------------------------------------

    def _destination(self, subentry: ConfigSubentry) -> MqttDestination:
        """Make the destination of a subentry."""
        data: dict[str, Any] = dict(subentry.data)
        base: str = data[CONF_TOPIC_BASE]
        return MqttDestination(
            title=subentry.title,
            settings=lambda: mqtt_settings(self.hass, data),
            raw=self.raw,
            topic_base=base,
            qos=int(data[CONF_QOS]),
            will=Will(bridge_topic(base, self.bridge_id), b"offline"),
            on_change=self._on_connection,
            on_problem=self._on_problem,
        )

    def _subentry_id(self, destination: MqttDestination) -> str:
        """Return the subentry of a destination."""
        return next(
            subentry_id
            for subentry_id, other in self.destinations.items()
            if other is destination
        )

    @callback
    def _on_connection(self, destination: MqttDestination) -> None:
        """Say that we are there, and clear what earlier names left behind."""
        if destination.connection is not None and destination not in self._forgotten:
            self._publish_retained(
                destination,
                bridge_topic(destination.topic_base, self.bridge_id),
                b"online",
            )
            scanners = list(self.scanners.by_source.values())
            self._publish_heartbeats(destination, scanners, self.devices_on_air())
            self._clear_stale(destination)
        self._notify()

    def _clear_stale(self, destination: MqttDestination) -> None:
        """Clear the retained messages of topics that are no longer used."""
        base = destination.topic_base
        known = {**self.store.data["scanners"], **self.scanners.chosen}.values()
        used = {
            bridge_topic(base, self.bridge_id),
            *(scanner_topic(base, scanner_id) for scanner_id in known),
        }
        topics = self.store.data["retained"][self._subentry_id(destination)]
        for topic in [topic for topic in topics if topic not in used]:
            destination.publish_retained(topic, b"")
            topics.remove(topic)
            self.store.save()

    @callback
    def _say_goodbye(self, destination: MqttDestination) -> None:
        """Say that we are gone."""
        self._publish_heartbeats(
            destination, list(self.scanners.by_source.values()), {}, "stopped"
        )
        self._publish_retained(
            destination,
            bridge_topic(destination.topic_base, self.bridge_id),
            b"offline",
        )

    @callback
    def _on_problem(
        self, destination: MqttDestination, problem: Problem | None
    ) -> None:
        """Ask the user for help where they can give it, and stop asking when it works."""
        subentry = self.entry.subentries.get(self._subentry_id(destination))
        if subentry is not None:  # Else it is being removed
            repairs.async_update(self.hass, self.entry, subentry, problem)


async def async_clear_retained(
    hass: HomeAssistant, data: Mapping[str, Any], topics: list[str]
) -> None:
    """Clear retained messages over a connection of its own, if the broker is there."""
    try:
        connection = await MqttConnector(
            mqtt_settings(hass, data), connect_timeout=_CLEAR_TIMEOUT
        ).async_connect()
    except ConnectError as err:
        _LOGGER.warning(
            "%d retained messages could not be cleared from the broker (%s)",
            len(topics),
            err.problem,
        )
        return
    try:
        for topic in topics:
            connection.publish(topic, b"", retain=True)
    finally:
        await connection.async_close()


def _filter(options: Any) -> Filter:
    """Return the filter that the options describe."""
    return Filter(
        DeviceList.parse(**options.get(CONF_ALLOW, {})),
        DeviceList.parse(**options.get(CONF_DENY, {})),
        options.get(CONF_MINIMUM_RSSI, -128),
    )
