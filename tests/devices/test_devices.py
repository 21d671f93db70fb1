"""Devices that are added, changed and removed: their entities, and what a broker keeps."""

from collections.abc import Callable
from datetime import timedelta
import functools
import json
from pathlib import Path
from typing import Any

from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.util import dt as dt_util
from paho.mqtt import publish
import pytest
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.ble_bridge.const import DOMAIN, STATISTICS_INTERVAL
from scripts.simulation.broker import Mosquitto
from scripts.simulation.processes import LOOPBACK
from scripts.simulation.subscriber import Subscriber

from ..conftest import SimulatedScanner, destination_data, is_connected, wait_until
from .home import ADDRESS, BALCONY, FIELDS, SECOND, VALUES, Home, bthome

STATUS = "ble/bridge/home/status"
CLIMATE = bthome(battery=93, temperature=21.5, humidity=48.25, name="SBHT-003C")
WARM = {
    "rule_id": "warm",
    "name": "Too warm",
    "kind": "above",
    "field": "temperature",
    "limit": 25,
}


def online(home: Home) -> int:
    """Return how often the bridge said that it is there."""
    return [m.payload for m in home.subscriber.on_topic(STATUS)].count(b"online")


# --- added ------------------------------------------------------------------------------


async def test_entities(home: Home) -> None:
    """Each field is what statistics and dashboards take it for."""
    await home.start(BALCONY)
    home.hear(bthome(battery=93, temperature=21.5, humidity=48.25, door=True))
    await home.until("temperature", "21.5")
    registry = er.async_get(home.hass)
    expected = {
        "temperature": ("21.5", "°C", "temperature", "measurement", None),
        "humidity": ("48.25", "%", "humidity", "measurement", None),
        "battery": ("93", "%", "battery", "measurement", "diagnostic"),
        "door": ("on", None, "door", None, None),
        "signal_presence": ("on", None, "connectivity", None, "diagnostic"),
        "signal_rssi": ("-50", "dBm", "signal_strength", "measurement", "diagnostic"),
        "signal_nearest_scanner": (
            "Living room proxy",
            None,
            None,
            None,
            "diagnostic",
        ),
    }
    for key, (value, unit, device_class, state_class, category) in expected.items():
        state = home.state(key)
        assert state, key
        found = registry.async_get(state.entity_id)
        assert found
        assert (state.state, found.entity_category) == (value, category), key
        assert state.attributes.get("unit_of_measurement") == unit
        assert state.attributes.get("device_class") == device_class
        assert state.attributes.get("state_class") == state_class
        assert found.config_subentry_id == home.devices[0].subentry_id
    # What changes all the time is there for who wants it.
    for key in ("last_seen", "estimated_distance", "advertising_interval"):
        entity_id = home.entity_id(f"signal_{key}")
        assert entity_id
        entity = registry.async_get(entity_id)
        assert entity
        assert entity.disabled_by is er.RegistryEntryDisabler.INTEGRATION


async def test_in_the_device_registry(home: Home) -> None:
    """It is known by its address, beside its subentry, and shows what it turned out to be."""
    await home.start(BALCONY)
    registry = dr.async_get(home.hass)

    def device() -> dr.DeviceEntry:
        (found,) = registry.async_get_devices(
            connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
        )
        return found

    (subentry,) = home.devices
    assert device().identifiers == {(DOMAIN, subentry.subentry_id)}
    assert (device().name, device().model) == ("Balcony", None)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    assert (device().model, device().manufacturer) == ("BLU H&T", "Shelly")
    assert device().config_entry_id == home.entry.entry_id
    assert device().config_subentry_id == subentry.subentry_id
    await home.restart()
    assert (device().model, device().manufacturer) == ("BLU H&T", "Shelly")


async def test_model_that_shows_later(home: Home) -> None:
    """A name that comes with a later packet may tell what the device is."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    home.hear(bthome(temperature=22, name="SBHT-003C"))
    await home.until("temperature", "22.0")
    (device,) = dr.async_get(home.hass).async_get_devices(
        connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
    )
    assert (device.model, device.manufacturer) == ("BLU H&T", "Shelly")


async def test_added_while_running(home: Home) -> None:
    """It begins with what it said last, and neither bridge nor connection begin anew."""
    await home.start()
    home.hear(CLIMATE)
    await home.settle()
    assert home.topics("telemetry/", "iiot/") == set()
    await home.add(BALCONY)
    await home.until("temperature", "21.5")
    home.hear(bthome(temperature=22))
    await home.settle()
    assert home.value("temperature") == "22.0"
    assert home.value("humidity") == "48.25"
    assert home.payloads(f"{FIELDS}/v/temperature") == [{"value": 21.5}, {"value": 22}]
    (device,) = dr.async_get(home.hass).async_get_devices(
        connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
    )
    assert (device.model, device.manufacturer) == ("BLU H&T", "Shelly")
    assert online(home) == 1


async def test_one_of_two(home: Home) -> None:
    """What one device says is not the other's."""
    await home.start(BALCONY, {"address": SECOND, "alias": "Cellar"})
    balcony, cellar = home.devices
    home.hear(bthome(temperature=21.5))
    home.hear(bthome(temperature=12), SECOND)
    await home.until("temperature", "21.5", balcony)
    await home.until("temperature", "12.0", cellar)
    await home.remove(cellar)
    home.hear(bthome(temperature=22))
    home.hear(bthome(temperature=13), SECOND)
    await home.settle()
    assert home.value("temperature", balcony) == "22.0"
    assert home.payloads("telemetry/cellar/v/temperature") == [{"value": 12}]
    assert online(home) == 1


async def test_without_an_alias(home: Home) -> None:
    """It goes by its address, in topics and by name."""
    await home.start({"address": ADDRESS})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    await home.settle()
    assert await home.kept() == {f"iiot/{ADDRESS}/temperature": b"21.5"}
    assert home.payloads(f"telemetry/{ADDRESS}/v/temperature") == [{"value": 21.5}]


async def test_new_fields(home: Home) -> None:
    """A device that says something else gets entities for it, and keeps those it has."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    assert home.entity_id("humidity") is None
    home.hear(bthome(humidity=50, door=False))
    await home.hass.async_block_till_done()
    home.hear(bthome(text="Hello"))
    await home.hass.async_block_till_done()
    assert {
        key: home.value(key) for key in ("temperature", "humidity", "door", "text")
    } == {"temperature": "21.5", "humidity": "50.0", "door": "off", "text": "Hello"}
    # So they are after a restart, before anything is heard.
    await home.restart()
    assert home.value("humidity") == "50.0"


@pytest.mark.parametrize("alias", ["a+b/#", "#", "$SYS", "x\0y", "客厅"])
async def test_alias(home: Home, alias: str) -> None:
    """Whatever an alias is, it is one level of a topic."""
    await home.start({"address": ADDRESS, "alias": alias})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    await home.settle()
    (topic,) = (
        home.topics("iiot/")
        - {"iiot/signal/rssi"}
        - {topic for topic in home.topics("iiot/") if topic.endswith("/rssi")}
    )
    base, device, name = topic.split("/")
    assert (base, name) == ("iiot", "temperature")
    assert device
    assert not set(device) & set("/+#\0$")


async def test_destination_removed(home: Home) -> None:
    """A destination that goes leaves nothing of any device, be it on its way."""
    await home.start(BALCONY, {"address": SECOND})
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    assert len(await home.kept()) == 3
    home.hear(bthome(temperature=22, door=True))
    home.hear(bthome(temperature=22, door=True), SECOND)
    home.hass.config_entries.async_remove_subentry(
        home.entry, home.destination.subentry_id
    )
    home.hear(bthome(temperature=23))
    await home.hass.async_block_till_done()
    home.hear(bthome(temperature=24))
    await home.until("temperature", "24.0")
    async with Subscriber(home.broker.port, "iiot/#", "end") as later:
        await later.wait_for_message("end")
        assert [m.topic for m in later.messages] == ["end"]


# --- removed ----------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
async def test_removed(home: Home, at_once: bool) -> None:
    """It takes its entities, alerts and retained messages along; its packets go on."""
    await home.start({**BALCONY, "alerts": [WARM]}, fields={"alert": "1_retain"})
    home.hear(bthome(temperature=26))
    await home.until("alert_warm", "on")
    (device,) = home.devices
    kept = await home.kept()
    assert kept[f"{VALUES}/temperature"] == b"26.0"
    assert f"{FIELDS}/alerts/Too_warm/current" in kept
    entities = er.async_entries_for_config_entry(
        er.async_get(home.hass), home.entry.entry_id
    )
    ours = [e.entity_id for e in entities if e.config_subentry_id == device.subentry_id]
    assert len(ours) > 6
    if at_once:  # What is on its way still goes out, and must be cleared after that.
        home.hear(bthome(temperature=27, humidity=50))
    await home.remove(device)
    home.hear(bthome(temperature=28))
    await home.settle()
    assert await home.kept() == {}
    assert not [e for e in ours if home.hass.states.get(e)]
    registry = er.async_get(home.hass)
    assert not [e for e in ours if registry.async_get(e)]
    assert not dr.async_get(home.hass).async_get_devices(
        connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
    )
    started, ended = home.payloads(f"{FIELDS}/alerts/Too_warm/history")
    assert started["EndedAt"] is None
    assert ended["EndedAt"] is not None
    assert [event["state"] for event in home.events] == ["started", "ended"]
    raw = home.subscriber.on_topic(f"ble/raw/living-room-proxy/{ADDRESS}")
    assert len(raw) == 2 + at_once
    assert {"value": 28} not in home.payloads(f"{FIELDS}/v/temperature")
    assert online(home) == 1


async def test_removed_and_added_again(home: Home) -> None:
    """Nothing of what it said before comes back."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5, humidity=50))
    await home.until("temperature", "21.5")
    await home.remove(home.devices[0])
    home.hear(bthome(temperature=22))
    await home.add(BALCONY)
    await home.until("temperature", "22.0")
    assert home.entity_id("humidity") is None
    assert online(home) == 1


async def test_renamed(home: Home) -> None:
    """All is kept under the new name, nothing under the old; entities and values stay."""
    await home.start(BALCONY)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    before = home.entity_id("temperature")
    assert set(await home.kept()) == {
        f"{VALUES}/{name}" for name in ("temperature", "humidity", "battery")
    }
    await home.change(home.devices[0], alias="Terrace")
    await home.connected()
    assert home.entity_id("temperature") == before
    assert home.value("temperature") == "21.5"
    home.hear(bthome(temperature=22))
    await home.settle()
    assert await home.kept() == {
        "iiot/terrace/temperature": b"22.0",
        "iiot/terrace/humidity": b"48.25",
        "iiot/terrace/battery": b"93",
    }
    (device,) = dr.async_get(home.hass).async_get_devices(
        connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
    )
    assert device.name == "Terrace"


@pytest.mark.parametrize("what", ["renamed", "removed"])
async def test_renamed_or_removed_while_down(home: Home, what: str) -> None:
    """What was published before the last restart is cleared, too."""
    await home.start(BALCONY)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    await home.restart()
    assert len(await home.kept()) == 3
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    if what == "renamed":
        await home.change(home.devices[0], alias="Terrace")
    else:
        await home.remove(home.devices[0])
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    await home.settle()
    kept = {topic.rpartition("/")[0] for topic in await home.kept()}
    assert kept == ({"iiot/terrace"} if what == "renamed" else set())


async def test_what_the_broker_keeps_is_made_good(home: Home) -> None:
    """What changed while nobody could publish it, or what a broker lost, is said again."""
    await home.start(BALCONY, fields={"enabled": True, "connectivity": "1_retain"})
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    assert (await home.kept())[f"{VALUES}/temperature"] == b"21.5"
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    lost: list[Any] = [
        {"topic": topic, "payload": b"", "retain": True}
        for topic in (f"{VALUES}/humidity", f"{FIELDS}/connectivity")
    ]
    await home.hass.async_add_executor_job(
        functools.partial(
            publish.multiple, lost, hostname=LOOPBACK, port=home.broker.port
        )
    )
    home.hear(bthome(temperature=25))
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    await home.settle()
    assert await home.kept(f"{VALUES}/#") == {
        f"{VALUES}/temperature": b"25.0",
        f"{VALUES}/humidity": b"48.25",
        f"{VALUES}/battery": b"93",
    }
    (connectivity,) = (await home.kept(f"{FIELDS}/#")).values()
    assert json.loads(connectivity)["Status"] == "CONNECTED"
    assert home.payloads(f"{VALUES}/button") == []


async def test_removed_while_the_broker_hangs(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """What could not be cleared is when the broker is back, though we have restarted."""
    persistent = ("persistence true", f"persistence_location {tmp_path}/")
    topic = f"{VALUES}/temperature"
    async with Mosquitto(config_lines=persistent) as keeper:
        entry = await setup(
            destination_data(keeper.port, values={"enabled": True}), devices=[BALCONY]
        )
        scanner.hear(ADDRESS, raw=bthome(temperature=21.5))
        async with Subscriber(keeper.port, topic) as subscriber:
            await subscriber.wait_for_message(topic, b"21.5")
        await keeper.restart()  # It keeps what is retained when it stops
        await wait_until(lambda: is_connected(hass, keeper.port))
        keeper.freeze()
        (device,) = [
            s for s in entry.subentries.values() if s.subentry_type == "device"
        ]
        hass.config_entries.async_remove_subentry(entry, device.subentry_id)
        await hass.async_block_till_done()
        assert await hass.config_entries.async_unload(entry.entry_id)
        await keeper.stop()  # By force, since it does not answer
        await keeper.start()
        async with Subscriber(keeper.port, topic) as subscriber:
            await subscriber.wait_for_message(topic, b"21.5")
            assert await hass.config_entries.async_setup(entry.entry_id)
            await subscriber.wait_for_message(topic, b"")
        publisher = next(iter(entry.runtime_data.publishers.values()))
        assert set(entry.runtime_data.store.data["retained"][publisher.subentry_id]) > {
            topic
        }
        async_fire_time_changed(
            hass, dt_util.utcnow() + timedelta(seconds=STATISTICS_INTERVAL + 1)
        )
        await hass.async_block_till_done()
        kept = entry.runtime_data.store.data["retained"][publisher.subentry_id]
        assert topic not in kept
        assert STATUS in kept


async def test_what_brokers_keep_is_bounded(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest topic makes room, and is cleared."""
    monkeypatch.setattr(
        "custom_components.ble_bridge.kinds.mqtt.publisher.MAX_RETAINED", 5
    )
    await home.start(BALCONY)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    home.hear(bthome(door=True))
    await home.until("door", "on")
    home.hear(bthome(text="hello"))
    await home.until("text", "hello")
    kept = await home.kept("ble/#", "iiot/#", "telemetry/#")
    assert {f"{VALUES}/door", f"{VALUES}/text"} < set(kept)
    assert len(kept) == 5


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"values": {"enabled": False}}, set()),
        ({"values": {"enabled": True, "reading": "1"}}, set()),
        (
            {"values": {"enabled": True, "topic_base": "plant"}},
            {
                f"plant/balcony/{name}"
                for name in ("temperature", "humidity", "battery")
            },
        ),
        (
            {"values": {"enabled": True, "reading": "2_retain"}},
            {f"{VALUES}/{name}" for name in ("temperature", "humidity", "battery")},
        ),
    ],
)
async def test_layout_changed(
    home: Home, change: dict[str, object], left: set[str]
) -> None:
    """A layout that is off, goes elsewhere, or retains no more leaves nothing behind."""
    await home.start(BALCONY)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    await home.settle()
    await home.change(home.destination, **change)
    await home.connected()
    await home.settle()
    assert set(await home.kept("iiot/#", "plant/#", "telemetry/#")) == left
    home.hear(bthome(temperature=22))
    await home.settle()
    topics = home.topics("iiot/balcony/", "plant/balcony/")
    assert f"{VALUES}/temperature" in topics
    assert ("plant/balcony/temperature" in topics) is ("plant" in str(change))


async def test_destination_without_raw(home: Home) -> None:
    """A destination may carry what devices say, and no advertisements."""
    await home.start(BALCONY, raw=False)
    home.hear(CLIMATE)
    await home.until("temperature", "21.5")
    await home.subscriber.wait_for_message(f"{VALUES}/temperature", b"21.5")
    assert home.topics("ble/raw/") == set()


# --- restarts ---------------------------------------------------------------------------


async def test_restart(home: Home) -> None:
    """Values and presence are there at once, before any packet."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5, door=True))
    await home.until("temperature", "21.5")
    await home.settle()
    connectivity = home.payloads(f"{FIELDS}/connectivity")
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    assert home.value("temperature") == STATE_UNAVAILABLE
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    assert home.value("temperature") == "21.5"
    assert home.value("door") == "on"
    assert home.value("signal_presence") == "on"
    home.hear(bthome(temperature=22))
    await home.settle()
    assert home.value("temperature") == "22.0"
    # It was there all the time.
    assert home.payloads(f"{FIELDS}/connectivity") == connectivity


async def test_restart_while_away(home: Home) -> None:
    """One that was away stays so, with its values ready for when it is back."""
    await home.start({**BALCONY, "timeout": 60})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    await home.tick(61)
    assert home.value("signal_presence") == "off"
    await home.restart()
    assert home.value("signal_presence") == "off"
    assert home.value("temperature") == STATE_UNAVAILABLE
    home.hear(bthome(humidity=50))
    await home.hass.async_block_till_done()
    assert home.value("signal_presence") == "on"
    assert home.value("temperature") == "21.5"


async def test_gone_during_a_restart(home: Home) -> None:
    """One that is not heard after a restart leaves when its time is over."""
    await home.start({**BALCONY, "timeout": 60}, {"address": SECOND, "alias": "Cellar"})
    balcony, cellar = home.devices
    home.hear(bthome(temperature=21.5))
    home.hear(bthome(temperature=12), SECOND)
    await home.until("temperature", "21.5", balcony)
    await home.until("temperature", "12.0", cellar)
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    home.clock.offset += 61
    with home.given_up():
        pass
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    await home.tick()
    assert home.value("signal_presence", balcony) == "off"
    # Nobody says when the other is gone, that the stack does not know.
    assert home.value("signal_presence", cellar) == "on"
    await home.tick(900)
    assert home.value("signal_presence", cellar) == "off"
    await home.settle()
    for name in ("balcony", "cellar"):
        came, went = home.payloads(f"telemetry/{name}/connectivity")
        assert came["ConnectionId"] == went["ConnectionId"]
        assert went["Status"] == "DISCONNECTED"


@pytest.mark.parametrize(
    "stored",
    [
        [],
        "text",
        {},
        {"devices": []},
        {"devices": {}, "removed": {"a": 1}},
        {"devices": "text", "removed": None},
        {"devices": {"*": "text"}, "removed": [1, None, {}]},
        {"devices": {"*": {}}},
        {"devices": {"*": {"values": [1], "events": {"a": 1}, "alerts": []}}},
        {
            "devices": {
                "*": {
                    "values": {"temperature": None, "door": [1], "text": {"a": [None]}},
                    "events": [None, 7, {}],
                    "address": 7,
                    "model": ["x"],
                    "manufacturer": {},
                    "present": "yes",
                    "connection_id": 7,
                    "last_seen": "yesterday",
                    "alerts": {"warm": {"since": "x", "is_on": True}},
                }
            }
        },
        *(
            {"devices": {"*": {"present": True, "connection_id": "a", "last_seen": at}}}
            for at in (-1e300, 1.7e308, 0, True, 2**64 - 1)
        ),
    ],
)
@pytest.mark.usefixtures("all_enabled")
async def test_corrupt_store(
    home: Home,
    hass_storage: dict[str, object],
    caplog: pytest.LogCaptureFixture,
    stored: object,
) -> None:
    """Whatever is found there, the device works, and nothing is in the log."""
    await home.start({**BALCONY, "alerts": [WARM]})
    (device,) = home.devices
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    if isinstance(stored, dict) and isinstance(stored.get("devices"), dict):
        stored = {
            **stored,
            "devices": {
                key.replace("*", device.subentry_id): state
                for key, state in stored["devices"].items()
            },
        }
    hass_storage["ble_bridge.devices"] = {
        "version": 1,
        "minor_version": 1,
        "key": "ble_bridge.devices",
        "data": stored,
    }
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    home.hear(bthome(temperature=26))
    await home.until("temperature", "26.0")
    await home.until("alert_warm", "on")
    await home.restart()
    assert home.value("temperature") == "26.0"
    assert "Traceback" not in caplog.text
    assert "Error" not in caplog.text


# --- how often, and how strong ----------------------------------------------------------


async def test_states_are_written_once_a_second(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many values in a second the last one is the state; on the bus are all."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=10))
    await home.until("temperature", "10.0")
    monkeypatch.setattr("custom_components.ble_bridge.devices.STATE_INTERVAL", 1.0)
    home.clock.offset += 2
    entity_id = home.entity_id("temperature")
    with home.changes() as changes:
        for tenth in range(1, 51):
            home.hear(bthome(temperature=10 + tenth / 10))
        await home.settle()
        ours = [value for entity, value in changes if entity == entity_id]
        assert ours == ["10.1"]
        # The next second.
        home.clock.offset += 1
        await home.tick(0.3)
        ours = [value for entity, value in changes if entity == entity_id]
        assert ours == ["10.1", "15.0"]
        # Unchanged values are no change.
        await home.tick(2)
        home.hear(bthome(temperature=15, humidity=50))
        await home.settle()
        assert [v for entity, v in changes if entity == entity_id] == ours
    assert home.payloads(f"{FIELDS}/v/temperature") == [
        *({"value": 10 + tenth / 10} for tenth in range(51)),
        {"value": 15},
    ]


@pytest.mark.usefixtures("all_enabled")
async def test_signal(home: Home, attic: SimulatedScanner) -> None:
    """The nearest scanner is that which hears it best, by more than the signal wavers."""
    await home.start({**BALCONY, "reference_rssi": -50, "path_loss": 2.0})

    async def signal(*heard: tuple[SimulatedScanner, int]) -> tuple[str | None, ...]:
        for scanner, rssi in heard:
            home.hear(scanner=scanner, rssi=rssi)
        await home.tick(11)
        return tuple(
            home.value(f"signal_{key}")
            for key in ("nearest_scanner", "rssi", "estimated_distance")
        )

    near = home.scanner
    assert await signal((near, -70), (attic, -90)) == (
        "Living room proxy",
        "-70",
        "10.0",
    )
    assert await signal((near, -70), (attic, -66)) == (
        "Living room proxy",
        "-70",
        "10.0",
    )
    assert await signal((near, -70), (attic, -65)) == ("Attic", "-65", "5.62")
    assert await signal((near, -62)) == ("Attic", "-65", "5.62")
    # What is not known is not taken for the best.
    assert await signal((near, 127), (attic, -65)) == ("Attic", "-65", "5.62")
    # One that has not heard it for a minute is not near it.
    for _ in range(6):
        found = await signal((near, -80))
    assert found == ("Living room proxy", "-80", "31.62")
    last_seen = home.value("signal_last_seen")
    assert last_seen
    assert last_seen.startswith("20")


# --- what is wrong ----------------------------------------------------------------------


async def test_malformed_packets(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """They cost themselves only."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    for raw in (
        b"",
        b"\0" * 31,
        b"\xff" * 31,
        b"\x03\x16\xd2\xfc",
        b"\x04\x16\xd2\xfc@",
    ):
        home.hear(raw)
    for size in range(1, len(bthome(temperature=22, text="x" * 9))):
        home.hear(bthome(temperature=22, text="x" * 9)[:size])
    home.hear(bthome(temperature=23))
    await home.settle()
    assert home.value("temperature") == "23.0"
    assert "Traceback" not in caplog.text
