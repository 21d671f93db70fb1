"""A monitor: what it hears of devices, and what Home Assistant is told of them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
import ipaddress
import logging
import time
from typing import Any, Final, override

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
import orjson

from .. import repairs
from ..alert_event import fire_alert
from ..alerts import Change, Watch
from ..const import DOMAIN, EVENT_RELAY, MANUFACTURER
from ..destinations.errors import Problem
from ..destinations.mqtt import MqttDestination, Watcher
from ..destinations.parcels import Outcome
from ..layouts.payloads import iso_timestamp
from ..layouts.topics import safe_part
from ..records import Alert, DeviceIdentity
from .dead_letters import DeadLetter, DeadLetters
from .device import (
    ANOMALY,
    FIRMWARE,
    IP_ADDRESS,
    ONLINE,
    SEEN,
    MonitoredDevice,
    News,
    average_key,
)
from .messages import MAX_TOPIC, Reason, RejectedError, is_valid_id, parse
from .patterns import MessageKind, Route, find
from .settings import LEAST_AVERAGED, MonitorSettings

_LOGGER = logging.getLogger(__name__)

# What waits to be read: messages, and bytes of their topics and payloads.
MAX_QUEUED: Final = 20_000
MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
# How long messages are read before others have their turn (s).
_TURN: Final = 0.005
# Topics whose meaning is remembered.
MAX_ROUTES: Final = 20_000
# Dead letters that are published in a second.
_LETTERS_A_SECOND: Final = 10
# Devices whose entities are written, or made, before others have their turn.
DEVICES_AT_ONCE: Final = 10
_DELIVERED: Final = (Outcome.ACKNOWLEDGED, Outcome.SENT)

type Queued = tuple[Route, str, bytes, float, bool]
type Adder = Callable[[MonitoredDevice, Iterable[str]], None]


class Monitor(Watcher):
    """What another system says, and the devices that it tells of."""

    def __init__(
        self,
        hass: HomeAssistant,
        entry: ConfigEntry[Any],
        subentry: ConfigSubentry,
        settings: MonitorSettings,
        destination: MqttDestination | None,
        *,
        via_device_id: str,
        on_alert: Callable[[str, Alert], None],
        is_ours: Callable[[str], bool],
    ) -> None:
        """Initialize; `on_alert` publishes one, `is_ours` knows what the bridge publishes.

        `via_device_id` is the bridge's, as Home Assistant lists it.
        """
        self.hass = hass
        self.entry = entry
        self.subentry_id = subentry.subentry_id
        self.title = subentry.title
        self.settings = settings
        self.destination = destination
        self.filters = settings.filters
        self.qos = settings.qos
        self.is_shared = settings.group is not None
        self.devices: dict[str, MonitoredDevice] = {}
        self.dead_letters = DeadLetters()
        self.device_id = (
            dr.async_get(hass)
            .async_get_or_create(
                config_entry_id=entry.entry_id,
                config_subentry_id=self.subentry_id,
                entry_type=dr.DeviceEntryType.SERVICE,
                identifiers={(DOMAIN, self.subentry_id)},
                manufacturer=MANUFACTURER,
                model="MQTT monitor",
                name=self.title,
                via_device_id=via_device_id,
            )
            .id
        )
        self.problem: Problem | None = None
        self.processed = 0
        self.overflow = 0
        self.last_message: float | None = None
        self.rate: float | None = None
        self.listeners: set[Callable[[], None]] = set()
        self._on_alert = on_alert
        self._is_ours = is_ours
        self._routes: dict[str, Route | None] = {}
        self._queue: deque[Queued] = deque()
        self._queued_bytes = 0
        self._reading: asyncio.Handle | None = None
        self._adders: list[Adder] = []
        self._retelling: asyncio.Task[None] | None = None
        self._retrying = asyncio.Lock()
        self._is_full = False
        self._is_stopped = False
        self._subscribed: float | None = None
        self._connected_for = 0.0
        self._began = time.monotonic()
        self._measured = (self._began, 0)
        self._published = (0.0, 0)

    # --- start and stop -----------------------------------------------------------------

    @callback
    def start(self) -> None:
        """Begin to watch."""
        if self.settings.watching.deviations is None:
            self.end_alerts()
        self._remove_unused()
        if self.destination is None:
            repairs.async_update_monitor(
                self.hass, self.entry, self.subentry_id, "monitor_without_destination"
            )
        else:
            self.destination.watch(self)

    async def async_stop(self) -> None:
        """Read what waits, and watch no longer."""
        self._is_stopped = True
        while self._queue:
            self._read()
            await asyncio.sleep(0)
        if self._retelling is not None:
            self._retelling.cancel()

    def _remove_unused(self) -> None:
        """Remove the entities of what the user does not look at any more."""
        registry, watching = er.async_get(self.hass), self.settings.watching
        for device in self.devices.values():
            unused = []
            if watching.deviations is None:
                unused.append(("binary_sensor", ANOMALY))
            if watching.average < LEAST_AVERAGED:
                unused += (("sensor", average_key(name)) for name in device.kinds)
            for domain, key in unused:
                entity_id = registry.async_get_entity_id(
                    domain, DOMAIN, self.unique_id(device, key)
                )
                if entity_id is not None:
                    registry.async_remove(entity_id)

    @callback
    def unwatch(self) -> None:
        """Hear no more; what waits is read nevertheless."""
        if self.destination is not None:
            self.destination.unwatch(self)

    @callback
    def forget(self) -> list[MonitoredDevice]:
        """Listen no longer, and return the devices, of which the monitor lets go."""
        self.unwatch()
        self._queue.clear()
        self._queued_bytes = 0
        self.end_alerts()
        devices = list(self.devices.values())
        self.devices.clear()
        return devices

    # --- messages -----------------------------------------------------------------------

    @override
    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        try:
            route = self._routes[topic]
        except KeyError:
            route = find(self.settings.patterns, topic)
            if len(topic) <= MAX_TOPIC:
                if len(self._routes) >= MAX_ROUTES:
                    self._routes.clear()
                self._routes[topic] = route
        # Nothing in a topic is how what was kept there is cleared
        if route is None or not payload or self._is_stopped:
            return
        now = time.time()
        if len(topic) > MAX_TOPIC:
            self._reject(topic, payload, Reason.INVALID_ID, now)
            return
        if len(payload) > self.settings.max_payload:
            self._reject(topic, payload, Reason.TOO_LARGE, now)
            return
        self._queue.append((route, topic, payload, now, retained))
        self._queued_bytes += len(topic) + len(payload)
        while len(self._queue) > MAX_QUEUED or self._queued_bytes > MAX_QUEUED_BYTES:
            self._next()
            self.overflow += 1
        if self._reading is None:
            self._reading = self.hass.loop.call_soon(self._read)

    def _next(self) -> Queued:
        """Return the oldest message that waits."""
        item = self._queue.popleft()
        self._queued_bytes -= len(item[1]) + len(item[2])
        return item

    @callback
    def _read(self) -> None:
        """Read messages, but not for so long that others wait."""
        self._reading = None
        end = time.monotonic() + _TURN
        queue = self._queue
        try:
            while queue:
                self._take(*self._next())
                if time.monotonic() > end:
                    break
        finally:
            if queue and self._reading is None:
                self._reading = self.hass.loop.call_soon(self._read)

    def _take(
        self, route: Route, topic: str, payload: bytes, now: float, retained: bool
    ) -> None:
        """Take over what a message says of its device."""
        if route.owner and self._is_ours(topic):
            return
        settings = self.settings
        try:
            message = parse(
                route, payload, now, settings.dialect, needs_time=settings.needs_time
            )
        except RejectedError as err:
            self._reject(topic, payload, err.reason, now)
            return
        if (device := self.devices.get(route.key)) is None:
            if len(self.devices) >= settings.max_devices:
                self._reject(topic, payload, Reason.TOO_MANY_DEVICES, now)
                self._set_full()
                return
            device = self.devices[route.key] = MonitoredDevice(
                route.key,
                route.owner,
                route.device,
                settings.watching_of(route.owner),
            )
        self.processed += 1
        self.last_message = now
        self._tell(device, device.take(message, now, retained=retained))

    def _tell(self, device: MonitoredDevice, news: News) -> None:
        """Tell Home Assistant what a message changed."""
        if news.new:
            for add in self._adders:
                add(device, news.new)
        if FIRMWARE in news.changed or IP_ADDRESS in news.changed:
            self._update_registry(device)
        if ONLINE in news.changed and self.settings.mark_stale:
            self._write(device)
        else:
            for key in news.changed:
                for listener in tuple(device.listeners.get(key, ())):
                    listener()
        if (happening := news.happening) is not None:
            for heard in tuple(device.event_listeners.get(happening.kind, ())):
                heard(happening)
        if news.relay is not None:
            self._tell_relay(device, news.relay)
        for watch, change in news.alerts:
            self._tell_alert(device, watch, change)

    def _tell_relay(self, device: MonitoredDevice, name: str) -> None:
        """Tell of a relay that changed, where the user wants to know."""
        if not self.settings.is_critical(device.device_id, name):
            return
        relay = device.relays[name]
        self.hass.bus.async_fire(
            EVENT_RELAY,
            {
                "device": device.device_id,
                "device_name": device.name,
                "device_id": self.registry_id(device),
                "monitor": self.title,
                "relay": name,
                "state": "on" if relay.state else "off",
                "triggered_by": relay.triggered_by,
            },
        )

    # --- what is not understood ---------------------------------------------------------

    def _reject(self, topic: str, payload: bytes, reason: Reason, now: float) -> None:
        """Keep a message that could not be understood, and publish it if that is wished."""
        letter = self.dead_letters.add(topic, payload, reason, now)
        _LOGGER.debug("%s could not understand a message (%s)", self.title, reason)
        if self.settings.dead_letter_topic is None or self.destination is None:
            return
        second, count = self._published
        if now - second >= 1 or now < second:
            second, count = now, 0
        self._published = second, count + 1
        if count < _LETTERS_A_SECOND and self.destination.connection is not None:
            self.destination.send_own(
                self.destination.message(
                    self.settings.dead_letter_topic, self._letter_payload(letter)
                )
            )

    def _letter_payload(self, letter: DeadLetter) -> bytes:
        """Return what is published of a message that could not be understood."""
        return orjson.dumps(
            {
                "topic": letter.topic,
                "reason": letter.reason.value,
                "payload": letter.payload.decode(errors="replace"),
                "size": letter.size,
                "monitor": self.title,
                "timestamp": iso_timestamp(letter.time),
            }
        )

    async def async_retry(self, reason: Reason | None = None) -> tuple[int, int]:
        """Publish again what could not be understood, to be heard like anything else.

        Returns how many were published, and how many were not: those of which only the first
        bytes are kept, or whose topic nobody may publish to, and all from the first on that
        the broker does not take.
        """
        async with self._retrying:
            letters = [
                letter
                for letter in self.dead_letters
                if reason is None or letter.reason is reason
            ]
            published = 0
            for letter in letters:
                if not letter.is_whole or self.destination is None:
                    continue
                try:
                    message = self.destination.message(letter.topic, letter.payload, 1)
                except ValueError:
                    continue  # Some brokers allow in topics what others end connections for
                if await self.destination.async_publish(message) not in _DELIVERED:
                    break
                self.dead_letters.remove(letter)
                published += 1
            return published, len(letters) - published

    def _set_full(self) -> None:
        """Tell that there are more devices than are wanted, once."""
        if not self._is_full:
            self._is_full = True
            repairs.async_update_monitor(
                self.hass,
                self.entry,
                self.subentry_id,
                "monitor_full",
                {"limit": str(self.settings.max_devices)},
            )

    # --- the connection -----------------------------------------------------------------

    @override
    def on_subscribed(self, problem: Problem | None) -> None:
        self.problem = problem
        if problem is None:
            self._subscribed = time.monotonic()
            _LOGGER.debug("%s listens to %s", self.title, ", ".join(self.filters))
            repairs.async_delete_monitor(
                self.hass, self.subentry_id, "monitor_refused", "sharing_unsupported"
            )
        else:
            _LOGGER.error("The broker does not let %s listen (%s)", self.title, problem)
            repairs.async_update_monitor(
                self.hass,
                self.entry,
                self.subentry_id,
                "sharing_unsupported"
                if problem is Problem.SHARING_UNSUPPORTED
                else "monitor_refused",
            )
        self._on_connection()

    @override
    def on_away(self) -> None:
        if self._subscribed is not None:
            self._connected_for += time.monotonic() - self._subscribed
            self._subscribed = None
        self._on_connection()

    @property
    def is_connected(self) -> bool:
        """Tell whether messages come."""
        return self._subscribed is not None

    @property
    def uptime(self) -> float:
        """Return how much of the time there was a connection (%)."""
        now = time.monotonic()
        up = self._connected_for
        if self._subscribed is not None:
            up += now - self._subscribed
        return 100 * up / max(now - self._began, 1e-3)

    def is_current(self, device: MonitoredDevice) -> bool:
        """Tell whether the last values of a device are what they are now."""
        return self.is_connected and device.online is not False

    def _on_connection(self) -> None:
        """Have the entities write whether what they show is what is now."""
        self._notify()
        if self._retelling is not None:
            self._retelling.cancel()
            self._retelling = None
        if self.settings.mark_stale:
            self._retelling = self.entry.async_create_background_task(
                self.hass, self._async_write_all(), f"ble_bridge {self.title}"
            )

    async def _async_write_all(self) -> None:
        """Have the entities of all devices write, a few devices at a time."""
        for number, device in enumerate(tuple(self.devices.values()), 1):
            self._write(device)
            if number % DEVICES_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _write(self, device: MonitoredDevice) -> None:
        """Have all entities of a device write."""
        for listeners in tuple(device.listeners.values()):
            for listener in tuple(listeners):
                listener()

    # --- devices ------------------------------------------------------------------------

    @callback
    def async_add_adder(self, adder: Adder) -> CALLBACK_TYPE:
        """Call an adder for each device, and for all of it that is new."""
        self._adders.append(adder)
        return lambda: self._adders.remove(adder)

    def identity(self, device: MonitoredDevice) -> DeviceIdentity:
        """Return how a device is called on the bus."""
        return DeviceIdentity(device_id=safe_part(device.key), name=device.name)

    def owner_id(self, device: MonitoredDevice) -> str:
        """Return what tells a device from all others of the bridge."""
        return f"{self.subentry_id}_{device.key}"

    def unique_id(self, device: MonitoredDevice, key: str) -> str:
        """Return what tells an entity of a device from all others."""
        return f"{self.owner_id(device)}_{key}"

    @callback
    def remove_device(self, owner_id: str) -> bool:
        """Forget a device that the user removes; tell whether it is one of this monitor.

        It comes back when it is heard again. It may be forgotten already.
        """
        prefix = f"{self.subentry_id}_"
        if not owner_id.startswith(prefix):
            return False
        device = self.devices.get(owner_id.removeprefix(prefix))
        if device is not None:
            self._end_alerts(device)
            del self.devices[device.key]
            if self._is_full:
                self._is_full = False
                repairs.async_delete_monitor(
                    self.hass, self.subentry_id, "monitor_full"
                )
        return True

    def registry_id(self, device: MonitoredDevice) -> str | None:
        """Return the ID under which Home Assistant knows the device."""
        if device.registry_id is None:
            found = dr.async_get(self.hass).async_get_device_by_identifier(
                (DOMAIN, self.owner_id(device)), self.entry.entry_id
            )
            device.registry_id = found.id if found else None
        return device.registry_id

    def _update_registry(self, device: MonitoredDevice) -> None:
        """Show the firmware, and where the device's own pages are."""
        if (registry_id := self.registry_id(device)) is not None:
            dr.async_get(self.hass).async_update_device(
                registry_id,
                sw_version=device.firmware,
                configuration_url=configuration_url(device.ip),
            )

    @callback
    def check(self, now: float) -> None:
        """See which devices have been silent for too long; `now` is Unix time (s)."""
        if self._subscribed is None:
            return
        connected_since = now - (time.monotonic() - self._subscribed)
        for device in tuple(self.devices.values()):
            if device.check(now, connected_since):
                self._tell(device, News(changed=[ONLINE, SEEN]))

    # --- alerts -------------------------------------------------------------------------

    def _tell_alert(
        self, device: MonitoredDevice, watch: Watch, change: Change
    ) -> None:
        """Tell of an anomaly that began or ended, as of an alert of any device."""
        identity = self.identity(device)
        fire_alert(
            self.hass,
            (identity.device_id, device.name),
            self.registry_id(device),
            watch.rule,
            change,
        )
        self._on_alert(self.owner_id(device), _alert(identity, watch, change))

    @callback
    def end_alerts(self) -> None:
        """End all open alerts."""
        for device in self.devices.values():
            self._end_alerts(device)

    def _end_alerts(self, device: MonitoredDevice) -> None:
        """End the open alerts of a device."""
        for watch, change in tuple(device.stop(time.time())):
            self._tell_alert(device, watch, change)

    def standing(self) -> Iterator[tuple[str, Alert]]:
        """Yield the alerts that are open, for brokers that keep them, and whose they are."""
        for device in self.devices.values():
            for watch in device.watches.values():
                if watch.started_at is not None:
                    yield (
                        self.owner_id(device),
                        _alert(self.identity(device), watch, Change(watch.started_at)),
                    )

    # --- figures ------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Return how many messages wait to be read."""
        return len(self._queue)

    @property
    def errors(self) -> int:
        """Return how many messages were not understood, or made room for newer ones."""
        return self.dead_letters.total + self.overflow

    def measure(self) -> None:
        """Work out the rate (messages a second) since the last call, and have it written."""
        now = time.monotonic()
        then, processed = self._measured
        if now > then:
            self.rate = (self.processed - processed) / (now - then)
        self._measured = now, self.processed
        self._notify()

    def _notify(self) -> None:
        """Have the figures written."""
        for listener in tuple(self.listeners):
            listener()

    # --- across restarts ----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what is kept across a restart, as JSON."""
        return {
            "devices": {key: device.state() for key, device in self.devices.items()},
            "dead_letters": self.dead_letters.state(),
        }

    def restore(self, state: object) -> None:
        """Go on from a state, as far as it is one; the devices heard last come first."""
        if not isinstance(state, Mapping):
            return
        self.dead_letters.restore(state.get("dead_letters"))
        devices = state.get("devices")
        found = []
        for key, kept in devices.items() if isinstance(devices, Mapping) else ():
            if (device := self._restored(key, kept)) is not None:
                found.append(device)
        found.sort(key=lambda device: -device.heard)
        for device in found[: self.settings.max_devices]:
            self.devices[device.key] = device

    def _restored(self, key: str, kept: Any) -> MonitoredDevice | None:
        """Return a device as it was kept, unless that is not how it would have been."""
        try:
            owner, device_id = kept["owner"], kept["device_id"]
            if not isinstance(owner, str) or not is_valid_id(device_id):
                return None
            if Route(MessageKind.STATUS, device_id, "", owner).key != key:
                return None
            watching = self.settings.watching_of(owner)
            device = MonitoredDevice(key, owner, device_id, watching)
            device.restore(kept)
        except KeyError, TypeError, ValueError, AttributeError:
            return None
        return device


def configuration_url(ip: str | None) -> str | None:
    """Return where a device's own pages are, if it says an IP address."""
    if ip is None:
        return None
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return f"http://{address}"
    # A zone is anything after a `%`, and only the device's own
    return None if address.scope_id else f"http://[{address}]"


def _alert(identity: DeviceIdentity, watch: Watch, change: Change) -> Alert:
    """Return the record of an anomaly that began or ended."""
    return Alert(
        device=identity,
        name=watch.rule.name,
        started_at=change.started_at,
        ended_at=change.ended_at,
        audiences=watch.rule.audiences,
    )
