"""Metrics over HTTP: each figure is what diagnostics say, as Prometheus reads it."""

from collections.abc import Awaitable, Callable, Mapping
import math
import re
from types import SimpleNamespace
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.helpers.recorder import DATA_INSTANCE
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.meter import LATENCY_BOUNDS, Meter
from custom_components.ble_bridge.metrics import BridgeCollector
from custom_components.ble_bridge.monitors.messages import Reason
from custom_components.ble_bridge.records import RecordKind
from scripts.simulation.broker import Mosquitto
from scripts.simulation.nats_server import NatsServer
from scripts.simulation.processes import REPOSITORY
from scripts.simulation.subscriber import Subscriber

from .conftest import (
    ADDRESS,
    RAW,
    SimulatedScanner,
    destination_data,
    is_connected,
    wait_until,
)
from .destinations.faults import DROPPED, arrived, stream
from .devices.home import KEY, bthome, encrypted
from .devices.test_outage import WARM
from .layouts.samples import structure
from .monitors.garage import Garage, status
from .nats import nats_data

SECOND = "C0:00:00:00:00:02"
METRICS = f"/api/{DOMAIN}/metrics"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
NATS_NAMES = {
    *("nats_produce_total", "nats_produce_total_bytes", "nats_produce_ack_total"),
    *("nats_produce_ack_total_bytes", "nats_reliable_ack_total", "nats_err"),
    "nats_produce_queue_size",
}

type Setup = Callable[..., Any]
type Labels = frozenset[tuple[str, str]]


class Scrape:
    """What was answered, by name and labels."""

    def __init__(self, families: list[Metric]) -> None:
        """Take the samples, of which no two may be the same."""
        self.families = {family.name: family for family in families}
        assert len(self.families) == len(families)
        self._samples: dict[tuple[str, Labels], float] = {}
        for family in families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._samples
                self._samples[key] = sample.value

    def __getitem__(self, name: str) -> float:
        """Return the value of what has no labels."""
        return self.value(name)

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a sample, of which all labels are given but a title."""
        (found,) = self._find(name, labels, exactly=True)
        return found

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have some labels."""
        return sum(self._find(name, labels, exactly=False))

    def _find(
        self, name: str, labels: Mapping[str, str], *, exactly: bool
    ) -> list[float]:
        return [
            value
            for (other, found), value in self._samples.items()
            if other == name
            and labels.items() <= dict(found).items()
            and (not exactly or dict(found).keys() - {"title"} == labels.keys())
        ]


type ScrapeNow = Callable[[], Awaitable[Scrape]]


@pytest.fixture(name="scrape")
async def scrape_fixture(
    hass: HomeAssistant, enable_bluetooth: None, hass_client: ClientSessionGenerator
) -> ScrapeNow:
    """Return what scrapes."""
    for domain in (DOMAIN, "diagnostics"):  # No view is added once a client is there
        assert await async_setup_component(hass, domain, {})
    client = await hass_client()

    async def scrape() -> Scrape:
        response = await client.get(METRICS)
        assert (response.status, response.headers["Content-Type"]) == (200, TEXT)
        return Scrape(list(parse(await response.text())))

    return scrape


async def test_formats(
    hass_client: ClientSessionGenerator,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Setup,
) -> None:
    """Who asks for OpenMetrics gets it, and all others the text format; both are valid."""
    await setup(destination_data(broker.port))
    await stream(scanner, 0, 30)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 30)
    client = await hass_client()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1"
    response = await client.get(METRICS, headers={"Accept": accept})
    assert response.headers["Content-Type"].startswith(OPENMETRICS)
    text = await response.text()
    assert text.endswith("# EOF\n")
    openmetrics = Scrape(list(parse_openmetrics(text)))  # type: ignore[no-untyped-call]
    response = await client.get(METRICS, headers={"Accept": "text/html"})
    assert response.headers["Content-Type"] == TEXT
    plain = Scrape(list(parse(await response.text())))
    assert plain._samples.keys() == openmetrics._samples.keys()
    for found in (openmetrics, plain):
        assert found.total("ble_bridge_records_sent_total") == 30


async def test_no_bridge(hass: HomeAssistant, scrape: ScrapeNow, setup: Setup) -> None:
    """Without a bridge there is only that to tell."""
    found = await scrape()
    assert found.families.keys() == {"ble_bridge_loaded"}
    assert found["ble_bridge_loaded"] == 0
    entry = await setup()
    found = await scrape()
    assert found["ble_bridge_loaded"] == 1
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert (await scrape())["ble_bridge_loaded"] == 0


async def test_title(broker: Mosquitto, scrape: ScrapeNow, setup: Setup) -> None:
    """Whatever a title is, it comes out as it is."""
    base = 'b"a\\s\ne}'
    entry = await setup(destination_data(broker.port, topic_base=base), connected=False)
    (subentry,) = entry.subentries.values()
    (family,) = [
        family
        for name, family in (await scrape()).families.items()
        if name == "ble_bridge_destination_info"
    ]
    assert [sample.labels for sample in family.samples] == [
        {
            "destination": subentry.subentry_id,
            "title": subentry.title,
            "kind": "mqtt",
        }
    ]
    assert base in subentry.title


@pytest.mark.usefixtures("tried_soon")
async def test_as_diagnostics_say(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
    scrape: ScrapeNow,
    hass_client: ClientSessionGenerator,
) -> None:
    """Two destinations, of which one is away for a while: each figure is that of them."""

    async def diagnose() -> dict[str, Any]:
        return dict(await get_diagnostics_for_config_entry(hass, hass_client, entry))

    one, two = add_scanner(), add_scanner("AA:00:00:00:00:02", "Attic proxy")
    left_out = add_scanner("AA:00:00:00:00:03", "Garage proxy")
    async with Mosquitto() as other:
        entry = await setup(
            destination_data(broker.port),
            destination_data(
                other.port, client_id="other", qos=1, delivery={"reading": "durable"}
            ),
            devices=[
                {"address": ADDRESS, "alias": "Freezer", "alerts": [WARM]},
                {
                    "address": SECOND,
                    "alias": "Cellar",
                    "key": KEY,
                    "shaping": {"minimum_interval": 60},
                },
                {"address": "C0:00:00:00:00:03", "alias": "Lost"},
            ],
            options={"excluded_scanners": ["AA:00:00:00:00:03"]},
        )
        bridge = entry.runtime_data
        counted = bridge.devices.totals
        first, second = bridge.destinations.values()
        one.hear(raw=bthome(temperature=20))
        await wait_until(lambda: counted()[0].readings == 1)  # The library is loaded
        await stream(one, 0, 30)
        await stream(two, 30, 10)
        await stream(left_out, 100, 5)
        for counter in range(5):
            one.hear(SECOND, raw=encrypted(20, counter, "00" * 16, SECOND))
        await wait_until(lambda: not (first.outbox.waiting or second.outbox.waiting))
        compare(await scrape(), await diagnose(), entry)

        await other.kill()
        await wait_until(lambda: not is_connected(hass, other.port))
        await stream(one, 200, 20)
        one.hear(raw=bthome(temperature=27))
        await wait_until(lambda: second.tally(RecordKind.ALERT).waiting == 1)
        await wait_until(lambda: not first.outbox.waiting)
        found = await scrape()
        compare(found, await diagnose(), entry)
        assert found.total("ble_bridge_connected") == 1
        assert found.total("ble_bridge_stored_records") >= 2

        await other.start()
        await wait_until(lambda: is_connected(hass, other.port))
        await stream(two, 300, 20)
        await wait_until(lambda: not (first.outbox.waiting or second.outbox.waiting))
        await subscriber.wait_for(lambda s: s.count("ble/raw/") == 83)
        found = await scrape()
        compare(found, await diagnose(), entry)
        assert found.total("ble_bridge_connected") == 2
        assert found.total("ble_bridge_reconnects_total") == 1
        assert found.total("ble_bridge_stored_records") == 0
        assert found.total("ble_bridge_records_dropped_total", reason="away") >= 21
        assert found.value("ble_bridge_device_errors_total", error="key_wrong") == 5
        assert found.total("ble_bridge_advertisements_left_out_total") == 4
        assert found["ble_bridge_devices"] == 3
        assert found["ble_bridge_devices_present"] == 2
        assert found["ble_bridge_readings_total"] == 2

        # What the subscriber of the first destination got is what went out
        subentry_id = next(iter(entry.subentries))
        for prefix, kind in (
            ("ble/raw/", RecordKind.ADVERTISEMENT),
            ("telemetry/freezer/v/", RecordKind.READING),
            ("telemetry/freezer/alerts/", RecordKind.ALERT),
            ("telemetry/cellar/errors/", RecordKind.ERROR),
        ):
            size = sum(
                len(message.payload)
                for message in subscriber.messages
                if message.topic.startswith(prefix)
            )
            labels = {"destination": subentry_id, "record_type": kind.value}
            assert size > 0
            assert found.value("ble_bridge_delivered_bytes_total", **labels) == size
            is_durable = kind in (RecordKind.ALERT, RecordKind.ERROR)
            assert found.value("ble_bridge_acknowledged_bytes_total", **labels) == (
                size if is_durable else 0
            )


def compare(found: Scrape, diagnostics: dict[str, Any], entry: MockConfigEntry) -> None:
    """Check that each figure is what diagnostics say."""
    feed = diagnostics["feed"]
    name = "ble_bridge_advertisements_received_total"
    assert found.total(name) == feed["received"]
    assert found["ble_bridge_addresses"] == feed["addresses"]
    assert found["ble_bridge_addresses_evicted_total"] == feed["evicted"]
    for scanner in diagnostics["scanners"]:
        label = {"scanner": scanner["scanner_id"]}
        assert found.value(name, **label) == scanner["received"]
        filtered = "ble_bridge_advertisements_filtered_total"
        assert found.value(filtered, **label) == scanner["filtered"]
        assert found.value("ble_bridge_scanner_online", **label) == scanner["online"]
        assert found.value("ble_bridge_scanner_silent", **label) == 0
    devices = diagnostics["devices"]
    assert found["ble_bridge_devices"] == len(devices)
    assert found["ble_bridge_devices_present"] == sum(d["present"] for d in devices)
    for key, name in (
        ("readings", "ble_bridge_readings_total"),
        ("late", "ble_bridge_late_packets_total"),
        ("undecoded", "ble_bridge_undecoded_packets_total"),
    ):
        assert found[name] == sum(device["counters"][key] for device in devices)
    assert found.total("ble_bridge_device_errors_total") == sum(
        sum(device["counters"]["errors"].values()) for device in devices
    )
    assert found.total("ble_bridge_advertisements_left_out_total") == sum(
        sum(device["shaped"].values()) for device in devices if device["shaped"]
    )
    for subentry_id, said in zip(
        entry.runtime_data.destinations, diagnostics["destinations"], strict=True
    ):
        compare_destination(found, subentry_id, said)


def compare_destination(found: Scrape, subentry_id: str, said: dict[str, Any]) -> None:
    """Check that each figure of a destination is what diagnostics say."""
    label = {"destination": subentry_id}
    for name, expected in (
        ("connected", said["connected"]),
        ("reconnects_total", said["reconnects"]),
        ("sent_bytes_total", said["bytes_sent"]),
        ("stored_records", said["delivery"]["stored_records"]),
        ("stored_bytes", said["delivery"]["stored_bytes"]),
        ("unread_records", said["delivery"]["on_disk_only"]),
        ("refused_names", said["delivery"]["refused_topics"]),
        ("set_aside_records", len(said["delivery"]["set_aside"])),
        ("store_failed", 0),
    ):
        assert found.value(f"ble_bridge_{name}", **label) == expected, name
    assert said["records"].keys() == set(RecordKind)
    for kind, tally in said["records"].items():
        of_kind = {**label, "record_type": kind}
        for name in ("received_total", "acknowledged_total", "sent_total", "waiting"):
            value = found.value(f"ble_bridge_records_{name}", **of_kind)
            assert value == tally[name.removesuffix("_total")], (kind, name)
        for reason in DROPPED:
            name = "ble_bridge_records_dropped_total"
            value = found.value(name, **of_kind, reason=reason)
            assert value == tally[reason], (kind, reason)
        name = "ble_bridge_delivery_latency_seconds"
        count = found.value(f"{name}_count", **of_kind)
        delivered = tally["acknowledged"] + tally["sent"]
        # Advertisements that went out together count once.
        assert bool(count) == bool(delivered)
        assert count <= delivered
        if kind != RecordKind.ADVERTISEMENT:
            assert count == delivered
        buckets = [
            found.value(f"{name}_bucket", **of_kind, le=bound)
            for bound in (*map(str, LATENCY_BOUNDS), "+Inf")
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == count


@pytest.mark.usefixtures("tried_soon")
async def test_monitors(
    hass: HomeAssistant,
    broker: Mosquitto,
    scrape: ScrapeNow,
    hass_client: ClientSessionGenerator,
) -> None:
    """Each figure of a monitor is what diagnostics say of it."""

    async def compare_all() -> Scrape:
        found = await scrape()
        said = await get_diagnostics_for_config_entry(hass, hass_client, garage.entry)
        monitors: Any = said["monitors"]
        for monitor, figures in zip(garage.monitors, monitors, strict=True):
            compare_monitor(found, monitor.subentry_id, figures)
        return found

    garage = Garage(hass, broker)
    await garage.start()
    found = await compare_all()
    assert not found.total("ble_bridge_monitor_last_message_timestamp_seconds")
    await garage.close()

    garage = Garage(hass, broker)
    await garage.start({"max_devices": 2}, {"topic_base": "other"})
    for number in range(5):
        await garage.tell(f"{number}/status", status(str(number)))
    await garage.tell("0/status", status("0", status="offline"))
    await garage.tell("0/status", b"{")
    await garage.tick(31)
    found = await compare_all()
    name = "ble_bridge_monitor_devices"
    assert (found.total(name), found.total(f"{name}_online")) == (2, 1)
    name = "ble_bridge_monitor_dead_letters_total"
    assert found.total(name, reason="too_many_devices") == 3
    assert found.total(name) == 4
    assert found.total("ble_bridge_monitor_messages_total") == 3
    assert found.total("ble_bridge_monitor_messages_per_second") > 0
    seen = found.total("ble_bridge_monitor_last_message_timestamp_seconds")
    assert seen == pytest.approx(dt_util.utcnow().timestamp(), abs=60)
    await broker.stop()
    await wait_until(lambda: not garage.monitors[0].is_connected)
    found = await compare_all()
    assert found.total("ble_bridge_monitor_connected") == 0
    # As the sensors of the monitor have it
    shown = garage.value("connection_uptime", None)
    assert shown is not None
    assert 0 < float(shown) <= 100
    await garage.close()
    assert not any("monitor" in name for name in (await scrape()).families)


def compare_monitor(found: Scrape, subentry_id: str, said: dict[str, Any]) -> None:
    """Check that each figure of a monitor is what diagnostics say."""
    label = {"monitor": subentry_id}
    for name, expected in (
        ("connected", said["connected"]),
        ("messages_total", said["messages"]),
        ("overflow_total", said["queue"]["overflow"]),
        ("queue_length", said["queue"]["messages"]),
        ("devices", said["devices"]["known"]),
        ("devices_online", said["devices"]["online"]),
    ):
        assert found.value(f"ble_bridge_monitor_{name}", **label) == expected, name
    uptime = found.value("ble_bridge_monitor_connection_uptime_percent", **label)
    assert 0 < uptime <= 100
    for name, expected in (
        ("messages_per_second", said["rate"]),
        ("last_message_timestamp_seconds", said["last_message"]),
    ):
        assert found.total(f"ble_bridge_monitor_{name}", **label) == (expected or 0)
    for reason in Reason:
        name = "ble_bridge_monitor_dead_letters_total"
        value = found.value(name, **label, reason=reason.value)
        assert value == said["dead_letters"]["by_reason"].get(reason, 0)


def record(hass: HomeAssistant, backlog: int = 0) -> None:
    """Have a recorder that has so much to write."""
    recorder: Any = SimpleNamespace(backlog=backlog)
    hass.data[DATA_INSTANCE] = recorder


async def test_recorder(
    hass: HomeAssistant, broker: Mosquitto, scrape: ScrapeNow
) -> None:
    """What the recorder has yet to write is a figure where there is one."""
    garage = Garage(hass, broker)
    await garage.start()
    assert "ble_bridge_recorder_backlog" not in (await scrape()).families
    assert garage.value("recorder_backlog", None) == "unknown"
    record(hass, backlog=7)
    assert (await scrape())["ble_bridge_recorder_backlog"] == 7
    await garage.tick(31)
    assert garage.value("recorder_backlog", None) == "7"
    await garage.close()


@pytest.mark.parametrize("qos", [0, 1])
async def test_bytes(
    add_scanner: Callable[..., SimulatedScanner],
    setup: Setup,
    scrape: ScrapeNow,
    qos: int,
) -> None:
    """Bytes are those of the payloads that went out, not of those too large for it."""
    scanner = add_scanner()
    async with (
        Mosquitto(config_lines=["max_packet_size 600"]) as broker,
        Subscriber(broker.port, "ble/raw/#") as subscriber,
    ):
        entry = await setup(destination_data(broker.port, qos=qos))
        (destination,) = entry.runtime_data.destinations.values()
        for number in range(30):
            raw = RAW + structure(9, b"x" * (number % 3 * 50))
            scanner.hear(f"C0:00:00:00:01:{number:02X}", raw=raw)
        await subscriber.wait_for(lambda s: len(s.messages) == 20)
        await wait_until(lambda: not destination.outbox.waiting)
        found = await scrape()
        size = sum(len(message.payload) for message in subscriber.messages)
        of_kind = {"record_type": "advertisement"}
        name = "ble_bridge_records_dropped_total"
        assert found.total(name, reason="failed") == 10
        assert found.total("ble_bridge_delivered_bytes_total", **of_kind) == size
        acknowledged = found.total("ble_bridge_acknowledged_bytes_total", **of_kind)
        assert acknowledged == (size if qos else 0)


async def test_no_names_of_nats(
    broker: Mosquitto, setup: Setup, scrape: ScrapeNow
) -> None:
    """Destinations of other kinds have none of the names of NATS."""
    await setup(destination_data(broker.port))
    found = await scrape()
    assert not any(name.startswith("nats_") for name in found.families)


async def test_names_of_the_specification(
    scanner: SimulatedScanner, setup_nats: Callable[..., Any], scrape: ScrapeNow
) -> None:
    """Destinations on NATS have the names of its specification too."""
    async with NatsServer() as server:
        entry = await setup_nats(
            nats_data(server.url),
            devices=[{"address": ADDRESS, "alias": "Freezer", "alerts": [WARM]}],
        )
        (destination,) = entry.runtime_data.destinations.values()
        for temperature in (20, 27):
            scanner.hear(raw=bthome(temperature=temperature))
        await wait_until(lambda: destination.tally(RecordKind.ALERT).acknowledged)
        await wait_until(lambda: not destination.outbox.waiting)
        found = await scrape()
    names = {
        sample.name
        for name, family in found.families.items()
        if name.startswith("nats_")
        for sample in family.samples
    }
    assert names == NATS_NAMES
    for kind in RecordKind:
        tally = destination.tally(kind)

        def value(name: str, kind: RecordKind = kind) -> float:
            return found.total(name, record_type=kind.value)

        assert value("nats_produce_total") == tally.acknowledged + tally.sent
        assert value("nats_produce_ack_total") == tally.acknowledged
        assert value("nats_produce_total_bytes") == value(
            "ble_bridge_delivered_bytes_total"
        )
        assert value("nats_produce_ack_total_bytes") == value(
            "ble_bridge_acknowledged_bytes_total"
        )
        assert value("nats_err") == 0
        assert value("nats_produce_queue_size") == 0
    assert found.total("nats_reliable_ack_total", record_type="alert") == 1
    # A PONG acknowledges all records, and those of alerts are durable.
    assert found.total("nats_reliable_ack_total") == 1
    assert found.total("nats_produce_ack_total") > 1
    assert found.total("nats_produce_total", record_type="advertisement") == 2


async def test_removed_device(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    setup: Setup,
    scrape: ScrapeNow,
) -> None:
    """What was counted of a device stays counted when it is removed."""
    entry = await setup(
        destination_data(broker.port),
        devices=[
            {
                "address": ADDRESS,
                "alias": "Freezer",
                "shaping": {"minimum_interval": 60},
            }
        ],
    )
    scanner.hear(raw=bthome(temperature=20))
    counted = entry.runtime_data.devices.totals
    await wait_until(lambda: counted()[0].readings == 1)
    for temperature in (21, 22):
        scanner.hear(raw=bthome(temperature=temperature))
    before = await scrape()
    assert before["ble_bridge_readings_total"] == 3
    (device,) = entry.get_subentries_of_type("device")
    hass.config_entries.async_remove_subentry(entry, device.subentry_id)
    await hass.async_block_till_done()
    after = await scrape()
    assert after["ble_bridge_devices"] == 0
    assert after["ble_bridge_readings_total"] == 3
    assert after.total("ble_bridge_advertisements_left_out_total") == 2


@pytest.mark.parametrize(
    ("latency", "bucket"),
    [
        (0.0, 0),
        (-0.001, 0),  # A clock that was set
        (0.001, 0),
        (math.nextafter(0.001, 1), 1),
        (0.3, LATENCY_BOUNDS.index(0.5)),
        (60.0, len(LATENCY_BOUNDS) - 1),
        (60.1, len(LATENCY_BOUNDS)),
        (604_800.0, len(LATENCY_BOUNDS)),
    ],
)
def test_bucket(latency: float, bucket: int) -> None:
    """A latency counts in the first bucket whose end it does not exceed."""
    meter = Meter()
    meter.add(10, 0.0, latency, acknowledged=True)
    meter.add(5, 0.0, latency, acknowledged=False)
    expected = [0] * (len(LATENCY_BOUNDS) + 1)
    expected[bucket] = 2
    assert meter.latencies == expected
    assert (meter.delivered_bytes, meter.acknowledged_bytes) == (15, 10)


async def test_documented(
    hass: HomeAssistant,
    enable_bluetooth: None,
    broker: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each metric is in the table of the documentation, as it is, and no others are."""
    monkeypatch.setattr("custom_components.ble_bridge.metrics.NATS", "mqtt")
    record(hass)
    garage = Garage(hass, broker)
    await garage.start()
    expected = []
    family: Any
    for family in BridgeCollector(hass).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind = "untyped" if family.type == "unknown" else family.type
        labels = ", ".join(f"`{label}`" for label in family._labelnames) or "none"
        expected.append(
            " | ".join((f"| `{name}`", kind, labels, family.documentation)) + " |"
        )
    text = (REPOSITORY / "docs/metrics.md").read_text(encoding="utf-8")
    table = text.partition("## Metrics\n")[2]
    rows = re.findall(r"^\| `\w+` .*$", table, re.MULTILINE)
    await garage.close()
    assert rows == expected, "\n".join(expected)
