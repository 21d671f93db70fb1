"""A destination as the bridge uses it: what is said there, and what its broker keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import functools
import logging
import time
from typing import Any, Final

from .const import (
    CONF_ENABLED,
    CONF_FIELDS,
    CONF_TOPIC_BASE,
    CONF_VALUES,
    DEFAULT_FIELDS_BASE,
    DEFAULT_VALUES_BASE,
    HEARTBEAT_INTERVAL,
)
from .destinations.errors import Problem
from .destinations.mqtt import MqttDestination
from .destinations.mqtt_connection import MqttConnection
from .destinations.parcels import Message
from .layouts import RecordLayout
from .layouts.fields import FieldsLayout
from .layouts.raw import Heartbeat, bridge_topic, scanner_topic
from .layouts.topics import encode_topic
from .layouts.values import ValuesLayout
from .records import (
    DEVICE_KINDS,
    Alert,
    Connectivity,
    Error,
    Reading,
    Record,
    RecordKind,
    Scanner,
    Tally,
)
from .scanners import BridgeStore

_LOGGER = logging.getLogger(__name__)

# Whose a retained topic is, where it is not a device's.
_OURS: Final = ""
# In place of whose it was, where it is being cleared.
_GOING: Final = "-"
MAX_RETAINED: Final = 20_000
_KINDS: Final[dict[type[Record], RecordKind]] = {
    Reading: RecordKind.READING,
    Alert: RecordKind.ALERT,
    Error: RecordKind.ERROR,
    Connectivity: RecordKind.CONNECTIVITY,
}
# QoS and retain of each kind of record, as they are stored: "1_retain".
DEFAULT_DELIVERY: Final[dict[str, dict[RecordKind, str]]] = {
    CONF_FIELDS: {
        kind: "1" if kind in (RecordKind.ALERT, RecordKind.ERROR) else "0"
        for kind in DEVICE_KINDS
    },
    CONF_VALUES: {RecordKind.READING: "1_retain"},
}
DELIVERIES: Final = ("0", "0_retain", "1", "1_retain", "2", "2_retain")
_DEFAULT_ENABLED: Final = {CONF_FIELDS: True, CONF_VALUES: False}
_DEFAULT_BASES: Final = {
    CONF_FIELDS: DEFAULT_FIELDS_BASE,
    CONF_VALUES: DEFAULT_VALUES_BASE,
}
_LAYOUTS: Final[dict[str, Callable[[str], RecordLayout]]] = {
    CONF_FIELDS: FieldsLayout,
    CONF_VALUES: ValuesLayout,
}


def layout_settings(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of one of a destination's layouts, with what is not said."""
    return {
        CONF_ENABLED: _DEFAULT_ENABLED[name],
        CONF_TOPIC_BASE: _DEFAULT_BASES[name],
        **{kind.value: how for kind, how in DEFAULT_DELIVERY[name].items()},
        **data.get(name, {}),
    }


# Most topics come again with every reading.
_head = functools.lru_cache(maxsize=20_000)(encode_topic)


@dataclass(frozen=True, slots=True, eq=False)
class _Outlet:
    """A layout that is switched on, and QoS and retain of what it makes."""

    name: str
    layout: RecordLayout
    qos: Mapping[RecordKind, int]
    retain: Mapping[RecordKind, bool]


def _outlets(data: Mapping[str, Any]) -> tuple[_Outlet, ...]:
    """Return the layouts for records that a destination's settings switch on."""
    outlets = []
    for name, make in _LAYOUTS.items():
        settings = layout_settings(data, name)
        if settings[CONF_ENABLED]:
            how = {kind: settings[kind.value] for kind in DEFAULT_DELIVERY[name]}
            outlets.append(
                _Outlet(
                    name,
                    make(settings[CONF_TOPIC_BASE]),
                    {kind: int(text[0]) for kind, text in how.items()},
                    {kind: text.endswith("_retain") for kind, text in how.items()},
                )
            )
    return tuple(outlets)


class Publisher:
    """What the bridge says on one destination.

    `place` tells where that is, so that what its broker keeps can be cleared when the
    destination goes elsewhere.
    """

    def __init__(
        self,
        subentry_id: str,
        data: Mapping[str, Any],
        place: str,
        destination: MqttDestination,
        store: BridgeStore,
        bridge_id: str,
    ) -> None:
        """Initialize with the data of the destination's subentry."""
        self.subentry_id = subentry_id
        self.place = place
        self.destination = destination
        self.forgotten = False
        self._outlets = _outlets(data)
        self._qos = {
            f"{outlet.name}/{kind.value}": qos
            for outlet in self._outlets
            for kind, qos in outlet.qos.items()
        }
        self._cleared = Tally()
        self._lost = 0
        self._is_behind = False
        self._cleared_on: MqttConnection | None = None
        self._store = store
        self._retained = store.data["retained"].setdefault(subentry_id, {})
        self._status_topic = bridge_topic(destination.topic_base, bridge_id)
        self._restated = Tally()
        self._logged = (0, 0, 0)

    # --- records of devices -------------------------------------------------------------

    @property
    def retains(self) -> bool:
        """Tell whether the broker keeps anything of devices."""
        return any(any(outlet.retain.values()) for outlet in self._outlets)

    @property
    def has_layouts(self) -> bool:
        """Tell whether records of devices go out here."""
        return bool(self._outlets) and not self.forgotten

    def publish(self, owner: str, record: Record, *, kept_only: bool = False) -> None:
        """Publish a record of a device.

        `owner` is the device's subentry; with `kept_only`, only what the broker is to keep
        goes out. That is noted first, so that it can be cleared when the device is gone.
        """
        kind = _KINDS[type(record)]
        if self.forgotten:
            return
        failed = False
        messages: list[Message] = []
        for outlet in self._outlets:
            try:
                found = outlet.layout.messages(record)
            except ValueError:
                # What another layout can say of it goes out nevertheless.
                failed = True
                self.destination.report(Problem.INVALID_DATA)
                continue
            for topic, payload, is_state in found:
                retain = is_state and outlet.retain[kind]
                if kept_only and not retain:
                    continue
                if retain and self._retained.get(topic, _GOING) == _GOING:
                    self._remember(topic, f"{owner}/{outlet.name}/{kind.value}")
                messages.append(
                    Message(
                        _head(topic),
                        payload,
                        outlet.qos[kind],
                        retain,
                        outlet.layout.makes_objects,
                    )
                )
        if kept_only:
            for message in messages:
                self.destination.send_passing(self._restated, message)
        elif messages:
            self.destination.send(kind, owner, tuple(messages))
        elif failed:
            tally = self.destination.records[kind]
            tally.received += 1
            tally.failed += 1

    # --- what the broker keeps ----------------------------------------------------------

    def _remember(self, topic: str, owner: str) -> None:
        """Take note that the broker keeps a message; the oldest is cleared for lack of room."""
        while len(self._retained) >= MAX_RETAINED:
            oldest = next(iter(self._retained))
            self._clear(oldest)
            del self._retained[oldest]
        self._retained[topic] = owner
        self._store.save()

    def _clear(self, topic: str) -> None:
        """Clear a retained message, after what is on its way to that topic."""
        owner = self._retained[topic]
        qos = max(self._qos.values(), default=0) if owner == _GOING else 0
        qos = self._qos.get(owner.partition("/")[2], qos)
        self._retained[topic] = _GOING
        self._cleared_on = self.destination.connection
        self.destination.send_passing(
            self._cleared, Message(_head(topic), b"", qos, retain=True)
        )
        self._store.save()

    def settle(self) -> None:
        """Forget the topics that were cleared; those of a lost connection are not yet."""
        if self._cleared.waiting:
            return
        if self._is_behind or self.destination.delivery.unread:
            # What comes off the disk later may be kept by the broker once more.
            self._is_behind = self.destination.delivery.unread > 0
            for topic in [t for t, owner in self._retained.items() if owner == _GOING]:
                self._clear(topic)
            return
        if self._cleared.dropped > self._lost:
            self._lost = self._cleared.dropped
            return
        for topic in [t for t, owner in self._retained.items() if owner == _GOING]:
            del self._retained[topic]
            self._store.save()

    def clear_stale(self, scanner_ids: set[str], device_ids: Mapping[str, str]) -> None:
        """Clear the retained messages of topics that are no longer used.

        `device_ids` gives the device ID of each subentry. What cannot be cleared since the
        broker is away is, when it is back.
        """
        if self.destination.connection is None or self.forgotten:
            return
        base = self.destination.topic_base
        ours = {self._status_topic}
        ours.update(scanner_topic(base, scanner_id) for scanner_id in scanner_ids)
        used = {
            f"{subentry_id}/{outlet.name}/{kind.value}": outlet.layout.prefix(device_id)
            for subentry_id, device_id in device_ids.items()
            for outlet in self._outlets
            for kind, retain in outlet.retain.items()
            if retain
        }
        stale_topics = []
        for topic, owner in self._retained.items():
            if owner == _GOING:
                stale = self._cleared_on is not self.destination.connection
            elif owner == _OURS:
                stale = topic not in ours
            else:
                stale = (prefix := used.get(owner)) is None or not topic.startswith(
                    prefix
                )
            if stale:
                stale_topics.append(topic)
        for topic in stale_topics:
            self._clear(topic)

    def forget(self) -> None:
        """Clear what the broker keeps: the destination is removed, or goes elsewhere.

        Where the broker is away, that is done at the next connection, if there is one.
        """
        self.forgotten = True
        if self.destination.connection is not None:
            for topic in list(self._retained):
                self._clear(topic)

    def _retain(self, topic: str, payload: bytes) -> None:
        """Publish a retained message of our own, and remember that the broker keeps it."""
        if self.forgotten:
            return
        self.destination.publish_retained(topic, payload)
        if self._retained.get(topic, _GOING) == _GOING:
            self._remember(topic, _OURS)

    # --- status and heartbeats ----------------------------------------------------------

    def say_hello(self) -> None:
        """Say that we are there."""
        self._retain(self._status_topic, b"online")

    def say_goodbye(self, scanners: list[Scanner], uptime: float) -> None:
        """Say that we are gone."""
        self.publish_heartbeats(scanners, {}, uptime, "stopped")
        self._retain(self._status_topic, b"offline")
        self.settle()

    def publish_heartbeats(
        self,
        scanners: list[Scanner],
        devices: Mapping[Scanner | None, int],
        uptime: float,
        status: str | None = None,
    ) -> None:
        """Publish how scanners are doing."""
        now = time.time()
        destination = self.destination
        for scanner in scanners:
            tally = destination.tallies.get(scanner)
            heartbeat = Heartbeat(
                scanner=scanner,
                status=status or ("running" if scanner.online else "offline"),
                uptime=uptime,
                devices=devices.get(scanner, 0),
                published=tally.delivered if tally else 0,
                dropped=tally.dropped if tally else 0,
                connected=destination.connection is not None,
                messages_sent=destination.delivered,
                reconnects=destination.reconnects,
                last_error=destination.last_error,
            )
            self._retain(
                scanner_topic(destination.topic_base, scanner.scanner_id),
                heartbeat.payload(now),
            )

    def log_rates(self, scanners: list[Scanner]) -> None:
        """Log what became of the advertisements since the last time."""
        destination = self.destination
        tally = destination.tally(RecordKind.ADVERTISEMENT)
        received = tally.received + destination.count_filtered(scanners)
        counted = received, tally.delivered, tally.dropped
        _LOGGER.info(
            "%s: %.1f advertisements a second received, %.1f published, %.1f dropped",
            destination.title,
            *(
                (now - then) / HEARTBEAT_INTERVAL
                for now, then in zip(counted, self._logged, strict=True)
            ),
        )
        self._logged = counted
