"""What the bridge says on MQTT, and what the broker keeps of it."""

from collections.abc import Callable, Mapping
import functools
from typing import Any, Final, override

from ...const import (
    CONF_ENABLED,
    CONF_FIELDS,
    CONF_TOPIC_BASE,
    CONF_VALUES,
    DEFAULT_FIELDS_BASE,
    DEFAULT_VALUES_BASE,
)
from ...destinations.mqtt import MqttDestination
from ...destinations.mqtt_connection import MqttConnection
from ...destinations.parcels import Message
from ...layouts import RecordLayout
from ...layouts.fields import FieldsLayout
from ...layouts.raw import Heartbeat, bridge_topic, scanner_topic
from ...layouts.topics import encode_topic
from ...layouts.values import ValuesLayout
from ...publisher import Outlet, Publisher
from ...records import DEVICE_KINDS, RecordKind, Scanner
from ...scanners import BridgeStore

# Whose a retained topic is, where it is not a device's.
_OURS: Final = ""
# In place of whose it was, where it is being cleared.
_GOING: Final = "-"
MAX_RETAINED: Final = 20_000
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


def _outlets(data: Mapping[str, Any]) -> tuple[Outlet, ...]:
    """Return the layouts for records that a destination's settings switch on."""
    outlets = []
    for name, make in _LAYOUTS.items():
        settings = layout_settings(data, name)
        if settings[CONF_ENABLED]:
            how = {kind: settings[kind.value] for kind in DEFAULT_DELIVERY[name]}
            outlets.append(
                Outlet(
                    name,
                    make(settings[CONF_TOPIC_BASE]),
                    {kind: int(text[0]) for kind, text in how.items()},
                    {kind: text.endswith("_retain") for kind, text in how.items()},
                )
            )
    return tuple(outlets)


class MqttPublisher(Publisher):
    """What the bridge says on one broker."""

    destination: MqttDestination

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
        super().__init__(subentry_id, place, destination, _outlets(data))
        self._qos = {
            f"{outlet.name}/{kind.value}": qos
            for outlet in self._outlets
            for kind, qos in outlet.qos.items()
        }
        self._lost = 0
        self._is_behind = False
        self._cleared_on: MqttConnection | None = None
        self._store = store
        self._retained = store.data["retained"].setdefault(subentry_id, {})
        self._base: str = data[CONF_TOPIC_BASE]
        self._status_topic = bridge_topic(self._base, bridge_id)
        self.retains = any(any(outlet.retain.values()) for outlet in self._outlets)

    @override
    def head(self, address: str) -> bytes:
        return _head(address)

    @override
    def _on_retained(self, address: str, owner: str) -> None:
        if self._retained.get(address, _GOING) == _GOING:
            self._remember(address, owner)

    @override
    def keeps(self, address: str) -> bool:
        return address in self._retained

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
        self.destination.send_own(Message(_head(topic), b"", qos, retain=True))
        self._store.save()

    @override
    def settle(self) -> None:
        """Forget the topics that were cleared; those of a lost connection are not yet."""
        own = self.destination.own
        if own.waiting:
            return
        if self._is_behind or self.destination.delivery.unread:
            # What comes off the disk later may be kept by the broker once more.
            self._is_behind = self.destination.delivery.unread > 0
            for topic in [t for t, owner in self._retained.items() if owner == _GOING]:
                self._clear(topic)
            return
        if own.dropped > self._lost:
            self._lost = own.dropped
            return
        for topic in [t for t, owner in self._retained.items() if owner == _GOING]:
            del self._retained[topic]
            self._store.save()

    @override
    def clear_stale(self, scanner_ids: set[str], device_ids: Mapping[str, str]) -> None:
        """Clear the retained messages of topics that are no longer used.

        `device_ids` gives the device ID of each subentry. What cannot be cleared since the
        broker is away is, when it is back.
        """
        if self.destination.connection is None or self.forgotten:
            return
        base = self._base
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

    @override
    def forget(self) -> None:
        """Clear what the broker keeps: the destination is removed, or goes elsewhere.

        Where the broker is away, that is done at the next connection, if there is one.
        """
        super().forget()
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

    @override
    def say_hello(self) -> None:
        self._retain(self._status_topic, b"online")

    @override
    def say_goodbye(self, scanners: list[Scanner], uptime: float) -> None:
        super().say_goodbye(scanners, uptime)
        self._retain(self._status_topic, b"offline")
        self.settle()

    @override
    def say_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        topic = scanner_topic(self._base, heartbeat.scanner.scanner_id)
        self._retain(topic, heartbeat.payload(now))
