"""Figures as Prometheus reads them: what is counted anyway, looked up when it is asked for.

`docs/metrics.md` lists them. Labels name destinations, scanners and kinds of records, never
a device, so that their number stays small.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
import itertools
from typing import Any, Final, override

from homeassistant.core import HomeAssistant, callback
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .bridge import BleBridgeConfigEntry, Bridge
from .const import DOMAIN
from .destinations.destination import Destination
from .destinations.meter import LATENCY_BOUNDS
from .destinations.policy import Policy
from .kinds import kind_name
from .monitors.messages import Reason
from .monitors.monitor import Monitor
from .monitors.sensor import recorder_backlog
from .records import RecordKind, Tally

NATS: Final = "nats"
DROPPED: Final = ("away", "overflow", "expired", "refused", "failed")
_BUCKETS: Final = (*map(floatToGoString, LATENCY_BOUNDS), "+Inf")
_DESTINATION: Final = ("destination", "title")
_RECORD: Final = (*_DESTINATION, "record_type")

type _Family = CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily


def _family(name: str, text: str, labels: tuple[str, ...] = ()) -> _Family:
    """Return a family without samples; one that counts has the name of what is counted."""
    if name.endswith("_total"):
        return CounterMetricFamily(name, text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)


def _single(name: str, text: str, value: float) -> _Family:
    """Return a family that has one sample and no labels."""
    family = _family(name, text)
    family.add_metric((), value)
    return family


@dataclass(frozen=True, slots=True)
class _DestinationFigure:
    """A figure of a destination; None where there is none yet."""

    name: str
    text: str
    value: Callable[[Destination[Any]], float | None]


@dataclass(frozen=True, slots=True)
class _RecordFigure:
    """A figure of one kind of records at a destination."""

    name: str
    text: str
    value: Callable[[Destination[Any], RecordKind, Tally], float]


_DESTINATION_FIGURES: Final = (
    _DestinationFigure(
        "ble_bridge_connected",
        "Whether the destination is connected",
        lambda destination: destination.connection is not None,
    ),
    _DestinationFigure(
        "ble_bridge_reconnects_total",
        "Connections after the first one",
        lambda destination: destination.reconnects,
    ),
    _DestinationFigure(
        "ble_bridge_sent_bytes_total",
        "Bytes of messages, with their headers, written to the destination",
        lambda destination: destination.outbox.bytes_sent,
    ),
    _DestinationFigure(
        "ble_bridge_last_delivery_timestamp_seconds",
        "When a record was delivered last, in Unix time",
        lambda destination: destination.last_delivery,
    ),
    _DestinationFigure(
        "ble_bridge_stored_records",
        "Durable records that wait, on disk or about to be",
        lambda destination: destination.delivery.stored[0],
    ),
    _DestinationFigure(
        "ble_bridge_stored_bytes",
        "Bytes of the durable records that wait",
        lambda destination: destination.delivery.stored[1],
    ),
    _DestinationFigure(
        "ble_bridge_unread_records",
        "Durable records that wait on disk and are not in memory",
        lambda destination: destination.delivery.unread,
    ),
    _DestinationFigure(
        "ble_bridge_store_failed",
        "Whether what has to be on disk cannot be written",
        lambda destination: destination.is_store_failed,
    ),
    _DestinationFigure(
        "ble_bridge_refused_names",
        "Topics or subjects that the destination refuses at present",
        lambda destination: len(destination.delivery.refused),
    ),
    _DestinationFigure(
        "ble_bridge_set_aside_records",
        "Records that were refused and are kept until they are sent again",
        lambda destination: len(destination.delivery.set_aside),
    ),
)
_RECORD_FIGURES: Final = (
    _RecordFigure(
        "ble_bridge_records_received_total",
        "Records that were to go to the destination",
        lambda _destination, _kind, tally: tally.received,
    ),
    _RecordFigure(
        "ble_bridge_records_acknowledged_total",
        "Records that the destination confirmed",
        lambda _destination, _kind, tally: tally.acknowledged,
    ),
    _RecordFigure(
        "ble_bridge_records_sent_total",
        "Records that went out where nobody confirms them",
        lambda _destination, _kind, tally: tally.sent,
    ),
    _RecordFigure(
        "ble_bridge_records_waiting",
        "Records that are neither delivered nor dropped yet",
        lambda _destination, _kind, tally: tally.waiting,
    ),
    _RecordFigure(
        "ble_bridge_delivered_bytes_total",
        "Bytes of the payloads of records that were delivered, confirmed or not",
        lambda destination, kind, _: destination.delivery.meters[kind].delivered_bytes,
    ),
    _RecordFigure(
        "ble_bridge_acknowledged_bytes_total",
        "Bytes of the payloads of records that the destination confirmed",
        lambda destination, kind, _: (
            destination.delivery.meters[kind].acknowledged_bytes
        ),
    ),
)


def _reliable(destination: Destination[Any], kind: RecordKind, tally: Tally) -> int:
    """Return how many records were kept on disk until they were confirmed."""
    policy = destination.delivery.settings.policies[kind]
    return tally.acknowledged if policy is Policy.DURABLE else 0


# Under the names of specs/nats-datastore.md.
_NATS_FIGURES: Final = (
    _RecordFigure(
        "nats_produce_total",
        "Number of records produced to NATS",
        lambda _destination, _kind, tally: tally.delivered,
    ),
    _RecordFigure(
        "nats_produce_total_bytes",
        "Number of bytes produced to NATS",
        lambda destination, kind, _: destination.delivery.meters[kind].delivered_bytes,
    ),
    _RecordFigure(
        "nats_produce_ack_total",
        "Number of records for which ACK was received",
        lambda _destination, _kind, tally: tally.acknowledged,
    ),
    _RecordFigure(
        "nats_produce_ack_total_bytes",
        "Number of bytes for which ACK was received",
        lambda destination, kind, _: (
            destination.delivery.meters[kind].acknowledged_bytes
        ),
    ),
    _RecordFigure(
        "nats_reliable_ack_total",
        "Number of reliable ACKs: durable records for which ACK was received",
        _reliable,
    ),
    _RecordFigure(
        "nats_err",
        "Number of errors while producing to NATS: records that were rejected",
        lambda _destination, _kind, tally: tally.failed + tally.refused,
    ),
    _RecordFigure(
        "nats_produce_queue_size",
        "Total pending messages to produce",
        lambda _destination, _kind, tally: tally.waiting,
    ),
)
# Counters whose names OpenMetrics, and so the library, has for no counter.
_UNTYPED: Final = frozenset(
    {"nats_produce_total_bytes", "nats_produce_ack_total_bytes", "nats_err"}
)


class BridgeCollector(Collector):
    """Looks up the figures of the bridge."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize the collector."""
        self._hass = hass

    @override
    @callback
    def collect(self) -> Iterator[Metric]:
        """Return all figures; only whether there is a bridge, where there is none."""
        entries: list[BleBridgeConfigEntry] = (
            self._hass.config_entries.async_loaded_entries(DOMAIN)
        )
        yield _single("ble_bridge_loaded", "Whether there is a bridge", bool(entries))
        for entry in entries:
            bridge = entry.runtime_data
            yield from _feed(bridge)
            yield from _devices(bridge)
            yield from _destinations(entry, bridge)
            yield from _monitors(bridge)
            if (backlog := recorder_backlog(self._hass)) is not None:
                yield _single(
                    "ble_bridge_recorder_backlog",
                    "What Home Assistant's recorder has yet to write",
                    backlog,
                )


def _feed(bridge: Bridge) -> Iterator[Metric]:
    """Return what is heard."""
    labels = ("scanner",)
    received = _family(
        "ble_bridge_advertisements_received_total",
        "Advertisements that a scanner heard",
        labels,
    )
    filtered = _family(
        "ble_bridge_advertisements_filtered_total",
        "Advertisements of a scanner that a filter left out",
        labels,
    )
    online = _family("ble_bridge_scanner_online", "Whether a scanner is there", labels)
    silent = _family(
        "ble_bridge_scanner_silent",
        "Whether a scanner that was busy hears nothing any more",
        labels,
    )
    for scanner in bridge.scanners.by_source.values():
        label = (scanner.scanner_id,)
        received.add_metric(label, scanner.received)
        filtered.add_metric(label, scanner.filtered)
        online.add_metric(label, scanner.online)
        silent.add_metric(label, scanner.silent)
    yield from (received, filtered, online, silent)
    yield _single(
        "ble_bridge_addresses",
        "Addresses that are followed",
        len(bridge.feed.advertisers),
    )
    yield _single(
        "ble_bridge_addresses_evicted_total",
        "Addresses that were let go to make room",
        bridge.feed.evicted,
    )


def _devices(bridge: Bridge) -> Iterator[Metric]:
    """Return what is known of the devices that the user has added, all together."""
    devices = bridge.devices
    counters, left_out = devices.totals()
    for name, text, value in (
        ("ble_bridge_devices", "Devices that were added", len(devices.by_id)),
        (
            "ble_bridge_devices_present",
            "Devices that are there",
            sum(device.present for device in devices.by_id.values()),
        ),
        ("ble_bridge_readings_total", "Packets that were decoded", counters.readings),
        (
            "ble_bridge_late_packets_total",
            "Packets that another scanner brought late",
            counters.late,
        ),
        (
            "ble_bridge_undecoded_packets_total",
            "Packets of devices in which nothing is known",
            counters.undecoded,
        ),
    ):
        yield _single(name, text, value)
    yield _by_name(
        "ble_bridge_device_errors_total",
        "Packets that could not be decoded, and values that could not be published",
        "error",
        counters.errors,
    )
    yield _by_name(
        "ble_bridge_advertisements_left_out_total",
        "Advertisements of devices that are not to go out each time",
        "reason",
        {reason.value: count for reason, count in left_out.items()},
    )


def _by_name(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    """Return a family that tells several things apart by one label."""
    family = _family(name, text, (label,))
    for key, count in counts.items():
        family.add_metric((key,), count)
    return family


def _destinations(entry: BleBridgeConfigEntry, bridge: Bridge) -> Iterator[Metric]:
    """Return what became of what goes out."""
    named = [
        ((subentry_id, subentry.title), destination, kind_name(subentry.data))
        for subentry_id, destination in bridge.destinations.items()
        if (subentry := entry.subentries.get(subentry_id)) is not None
    ]
    info = _family(
        "ble_bridge_destination_info",
        "Which kind of destination it is",
        (*_DESTINATION, "kind"),
    )
    for labels, _, kind in named:
        info.add_metric((*labels, kind), 1)
    yield info
    for figure in _DESTINATION_FIGURES:
        family = _family(figure.name, figure.text, _DESTINATION)
        for labels, destination, _ in named:
            if (value := figure.value(destination)) is not None:
                family.add_metric(labels, value)
        yield family
    flows = [_Flow(labels, destination) for labels, destination, _ in named]
    for record_figure in _RECORD_FIGURES:
        yield _records(record_figure, flows)
    yield _dropped(flows)
    yield _latencies(flows)
    nats = [
        flow for flow, (_, _, kind) in zip(flows, named, strict=True) if kind == NATS
    ]
    if nats:
        for record_figure in _NATS_FIGURES:
            yield _records(record_figure, nats)


type _MonitorFigure = tuple[str, str, Callable[[Monitor], float | None]]

_MONITOR_FIGURES: Final[tuple[_MonitorFigure, ...]] = (
    (
        "ble_bridge_monitor_connected",
        "Whether the monitor is connected, and the broker lets it listen",
        lambda monitor: monitor.is_connected,
    ),
    (
        "ble_bridge_monitor_connection_uptime_percent",
        "How much of the time the monitor was connected",
        lambda monitor: monitor.uptime,
    ),
    (
        "ble_bridge_monitor_messages_total",
        "Messages that were understood",
        lambda monitor: monitor.processed,
    ),
    (
        "ble_bridge_monitor_messages_per_second",
        "Messages a second that were understood, lately",
        lambda monitor: monitor.rate,
    ),
    (
        "ble_bridge_monitor_overflow_total",
        "Messages that made room for newer ones before they were read",
        lambda monitor: monitor.overflow,
    ),
    (
        "ble_bridge_monitor_queue_length",
        "Messages that wait to be read",
        lambda monitor: monitor.queued,
    ),
    (
        "ble_bridge_monitor_devices",
        "Devices that the monitor knows",
        lambda monitor: len(monitor.devices),
    ),
    (
        "ble_bridge_monitor_devices_online",
        "Devices of the monitor that are there",
        lambda monitor: sum(bool(d.online) for d in monitor.devices.values()),
    ),
    (
        "ble_bridge_monitor_last_message_timestamp_seconds",
        "When a message was understood last, in Unix time",
        lambda monitor: monitor.last_message,
    ),
)


def _monitors(bridge: Bridge) -> Iterator[Metric]:
    """Return what monitors hear."""
    monitors = bridge.monitors.by_id
    if not monitors:
        return
    labels = ("monitor", "title")
    for name, text, value in _MONITOR_FIGURES:
        family = _family(name, text, labels)
        for subentry_id, monitor in monitors.items():
            if (figure := value(monitor)) is not None:
                family.add_metric((subentry_id, monitor.title), figure)
        yield family
    letters = _family(
        "ble_bridge_monitor_dead_letters_total",
        "Messages that could not be understood",
        (*labels, "reason"),
    )
    for subentry_id, monitor in monitors.items():
        for reason in Reason:
            letters.add_metric(
                (subentry_id, monitor.title, reason.value),
                monitor.dead_letters.counts[reason],
            )
    yield letters


class _Flow:
    """What became of all kinds of records at one destination, with its labels."""

    def __init__(self, labels: tuple[str, str], destination: Destination[Any]) -> None:
        """Look it up once for all figures."""
        self.destination = destination
        self.kinds = [
            ((*labels, kind.value), kind, destination.tally(kind))
            for kind in RecordKind
        ]


def _records(figure: _RecordFigure, flows: list[_Flow]) -> Metric:
    """Return a figure of each kind of record at each destination."""
    family: _Family
    if figure.name in _UNTYPED:
        family = UnknownMetricFamily(figure.name, figure.text, labels=_RECORD)
    else:
        family = _family(figure.name, figure.text, _RECORD)
    for flow in flows:
        for labels, kind, tally in flow.kinds:
            family.add_metric(labels, figure.value(flow.destination, kind, tally))
    return family


def _dropped(flows: list[_Flow]) -> Metric:
    """Return how many records were dropped, by reason."""
    family = _family(
        "ble_bridge_records_dropped_total",
        "Records that were dropped",
        (*_RECORD, "reason"),
    )
    for flow in flows:
        for labels, _, tally in flow.kinds:
            for reason in DROPPED:
                family.add_metric((*labels, reason), getattr(tally, reason))
    return family


def _latencies(flows: list[_Flow]) -> Metric:
    """Return how long it took from when a record was accepted until it was delivered."""
    family = HistogramMetricFamily(
        "ble_bridge_delivery_latency_seconds",
        "From the acceptance of a record to its delivery",
        labels=_RECORD,
    )
    for flow in flows:
        for labels, kind, _ in flow.kinds:
            meter = flow.destination.delivery.meters[kind]
            counts = itertools.accumulate(meter.latencies)
            family.add_metric(
                labels, list(zip(_BUCKETS, counts, strict=True)), meter.latency_sum
            )
    return family
