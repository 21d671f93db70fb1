"""Alerts: a problem sensor, an event in Home Assistant, and records on the bus."""

from typing import Any

from homeassistant.helpers import device_registry as dr, entity_registry as er
import pytest

from ..layouts.samples import validated
from .home import ADDRESS, BALCONY, FIELDS, SECOND, Home, bthome

WARM = {
    "rule_id": "warm",
    "name": "Too warm",
    "kind": "above",
    "field": "temperature",
    "limit": 25,
    "hysteresis": 1,
    "audiences": ["household", "cellar"],
}
LOST = {"rule_id": "lost", "name": "Lost", "kind": "lost"}
LOW = {"rule_id": "low", "name": "Battery", "kind": "low_battery", "limit": 20}
WEAK = {"rule_id": "weak", "name": "Weak", "kind": "weak_signal", "limit": -80}
ODD = {
    "rule_id": "odd",
    "name": "Odd",
    "kind": "anomaly",
    "field": "temperature",
    "window": 6,
    "deviations": 3,
}


def alerts(home: Home, name: str = "Too_warm", device: str = FIELDS) -> list[Any]:
    """Return the history of an alert, which ends with the current one."""
    topic = f"{device}/alerts/{name}"
    history = home.subscriber.on_topic(f"{topic}/history")
    current = home.subscriber.on_topic(f"{topic}/current")
    assert [m.payload for m in history] == [m.payload for m in current]
    return [validated(message.payload, "alert") for message in history]


async def say(home: Home, *, address: str = ADDRESS, **values: Any) -> None:
    """Have the device say something, and wait until it is taken in."""
    home.hear(bthome(**values), address)
    await home.settle()


async def begin(home: Home, *rules: dict[str, Any], **settings: Any) -> None:
    """Begin with a device that is known already."""
    await home.start({**BALCONY, **settings, "alerts": [*rules]})
    home.hear(bthome(humidity=50))
    await home.until("humidity", "50.0")


async def test_an_alert(home: Home) -> None:
    """It starts, is told of everywhere, and ends beyond its hysteresis."""
    await begin(home, WARM)
    state = home.state("alert_warm")
    assert state
    assert state.state == "off"
    assert state.name == "Balcony Too warm"
    assert state.attributes["device_class"] == "problem"
    assert state.attributes["kind"] == "above"
    assert state.attributes["audiences"] == ["household", "cellar"]
    await say(home, temperature=25)
    assert alerts(home) == []
    await say(home, temperature=25.5)
    await say(home, temperature=26)
    assert home.value("alert_warm") == "on"
    (started,) = alerts(home)
    assert started["Name"] == "Too warm"
    assert started["EndedAt"] is None
    assert started["Audiences"] == ["household", "cellar"]
    await say(home, temperature=24.5)
    assert home.value("alert_warm") == "on"
    await say(home, temperature=24)
    assert home.value("alert_warm") == "off"
    _, ended = alerts(home)
    assert ended["StartedAt"] == started["StartedAt"] < ended["EndedAt"]
    assert {**ended, "EndedAt": None} == started
    # And again, as another one.
    await say(home, temperature=27)
    *_, again = alerts(home)
    assert again["EndedAt"] is None
    assert again["StartedAt"] > ended["EndedAt"]


async def test_event(home: Home) -> None:
    """What an automation gets tells which device and which rule it is."""
    await begin(home, WARM)
    await say(home, temperature=26)
    await say(home, temperature=20)
    (device,) = dr.async_get(home.hass).async_get_devices(
        connections={(dr.CONNECTION_BLUETOOTH, ADDRESS)}
    )
    common = {
        "device": "balcony",
        "device_name": "Balcony",
        "device_id": device.id,
        "name": "Too warm",
        "kind": "above",
        "audiences": ["household", "cellar"],
    }
    started, ended = home.events
    started_at, ended_at = started.pop("started_at"), ended.pop("ended_at")
    assert started == {**common, "state": "started", "ended_at": None}
    assert ended == {**common, "state": "ended", "started_at": started_at}
    assert started_at < ended_at


@pytest.mark.parametrize(
    ("rule", "before", "during", "after"),
    [
        (LOW, {"battery": 20}, {"battery": 19}, {"battery": 100}),
        (
            {**WARM, "kind": "below", "limit": 5, "hysteresis": 0},
            {"temperature": 5},
            {"temperature": 4.9},
            {"temperature": 5},
        ),
        (
            {**WARM, "field": "humidity", "limit": 60, "hysteresis": 0},
            {"humidity": 60},
            {"humidity": 61},
            {"humidity": 59},
        ),
    ],
)
async def test_kinds(
    home: Home,
    rule: dict[str, Any],
    before: dict[str, Any],
    during: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """A rule goes by its field and limit."""
    await begin(home, rule)
    key = f"alert_{rule['rule_id']}"
    for values, expected in ((before, "off"), (during, "on"), (after, "off")):
        await say(home, **values)
        assert home.value(key) == expected
    assert [event["kind"] for event in home.events] == [rule["kind"]] * 2


async def test_anomaly(home: Home) -> None:
    """A value far from the average is one, and the next one in its place ends it."""
    await begin(home, ODD)
    for tenth in (0, 2, 1, 3, 1, 2, 0):
        await say(home, temperature=20 + tenth / 10)
    assert home.events == []
    await say(home, temperature=35)
    assert home.value("alert_odd") == "on"
    await say(home, temperature=20.1)
    assert home.value("alert_odd") == "off"
    assert len(alerts(home, "Odd")) == 2


async def test_duration(home: Home) -> None:
    """It counts from when it began, whether or not packets come meanwhile."""
    await begin(home, {**WARM, "duration": 300}, timeout=10_000)
    await say(home, temperature=26)
    await home.tick(200)
    await say(home, temperature=20)  # An interruption
    await say(home, temperature=26)
    began = home.clock.time()
    await home.tick(200)
    assert home.value("alert_warm") == "off"
    assert home.events == []
    await home.tick(101)
    assert home.value("alert_warm") == "on"
    (event,) = home.events
    assert event["started_at"] == pytest.approx(began, abs=1)
    await home.settle()
    assert len(alerts(home)) == 1


async def test_lost(home: Home) -> None:
    """One that leaves is lost, until it is back."""
    await begin(home, {**LOST, "duration": 30}, timeout=60)
    await home.tick(61)
    assert home.value("alert_lost") == "off"
    await home.tick(31)
    assert home.value("alert_lost") == "on"
    await say(home, humidity=51)
    assert home.value("alert_lost") == "off"
    started, ended = alerts(home, "Lost")
    assert (started["EndedAt"], ended["StartedAt"]) == (None, started["StartedAt"])
    assert started["StartedAt"] < ended["EndedAt"]
    # An absence that is shorter than the duration is none.
    await home.tick(61)
    await say(home, humidity=51)
    await home.tick(31)
    assert len(home.events) == 2


async def test_weak_signal(home: Home) -> None:
    """It goes by the scanner that hears the device best, and by time, not by packet."""
    await begin(home, {**WEAK, "hysteresis": 5})
    for rssi, expected in ((-80, "off"), (-81, "on"), (-76, "on"), (-75, "off")):
        home.hear(bthome(humidity=50), rssi=rssi)
        await home.tick(11)
        assert home.value("alert_weak") == expected, rssi
    assert len(home.events) == 2


async def test_rules_for_all(home: Home) -> None:
    """They hold for each device; one of the same name at a device goes before."""
    await home.start(
        {**BALCONY, "alerts": [{**WARM, "rule_id": "own", "limit": 30}]},
        {"address": SECOND, "alias": "Cellar"},
        options={"alerts": [WARM, LOW]},
    )
    balcony, cellar = home.devices
    for address in (ADDRESS, SECOND):
        await say(home, address=address, temperature=20)
    for address in (ADDRESS, SECOND):
        await say(home, address=address, temperature=27, battery=10)
    assert home.value("alert_own", balcony) == "off"
    assert home.entity_id("alert_warm", balcony) is None
    assert home.value("alert_warm", cellar) == "on"
    assert home.value("alert_low", balcony) == "on"
    assert home.value("alert_low", cellar) == "on"
    assert len(alerts(home, device="telemetry/cellar")) == 1
    assert len(alerts(home, "Battery", "telemetry/cellar")) == 1


async def test_across_a_restart(home: Home) -> None:
    """What is open stays so, and ends as what it began as; what is pending goes on."""
    await begin(
        home, WARM, {**WARM, "rule_id": "long", "name": "Long", "duration": 300}
    )
    await say(home, temperature=26)
    (started,) = alerts(home)
    await home.tick(200)
    await home.restart()
    assert home.value("alert_warm") == "on"
    assert home.value("alert_long") == "off"
    assert len(home.events) == 1
    await home.tick(101)
    assert home.value("alert_long") == "on"
    await home.restart()
    await say(home, temperature=20)
    assert home.value("alert_warm") == home.value("alert_long") == "off"
    _, ended = alerts(home)
    assert ended["StartedAt"] == started["StartedAt"]
    assert ended["EndedAt"] is not None
    long_started, long_ended = alerts(home, "Long")
    assert long_started["StartedAt"] == long_ended["StartedAt"]
    assert [event["state"] for event in home.events] == [
        "started",
        "started",
        "ended",
        "ended",
    ]


async def test_kept_without_a_goodbye(home: Home, hass_storage: dict[str, Any]) -> None:
    """A power cut loses no open alert: it is on disk within seconds."""
    await begin(home, WARM)
    await say(home, temperature=26)
    await home.tick(2)
    kept = hass_storage["ble_bridge.devices"]["data"]["devices"]
    (state,) = kept.values()
    assert state["alerts"]["warm"]["is_on"] is True
    # And values are within a quarter of an hour.
    await say(home, temperature=27)
    await home.tick(901)
    (state,) = hass_storage["ble_bridge.devices"]["data"]["devices"].values()
    assert state["values"]["temperature"] == 27


@pytest.mark.parametrize("whose", ["device", "all"])
async def test_rule_removed(home: Home, whose: str) -> None:
    """What its rule started ends with it, and its sensor goes."""
    if whose == "device":
        await begin(home, WARM, LOW)
    else:
        await home.start(BALCONY, options={"alerts": [WARM, LOW]})
        home.hear(bthome(humidity=50))
        await home.until("humidity", "50.0")
    await say(home, temperature=26)
    entity_id = home.entity_id("alert_warm")
    assert entity_id
    if whose == "device":
        await home.change(home.devices[0], alerts=[LOW])
    else:
        home.hass.config_entries.async_update_entry(
            home.entry, options={"alerts": [LOW]}
        )
    await home.connected()
    assert er.async_get(home.hass).async_get(entity_id) is None
    assert home.hass.states.get(entity_id) is None
    await home.settle()
    started, ended = alerts(home)
    assert ended["StartedAt"] == started["StartedAt"]
    assert ended["EndedAt"] is not None
    assert [event["state"] for event in home.events] == ["started", "ended"]


async def test_rule_renamed(home: Home) -> None:
    """What it started under the old name ends, and it starts under the new one."""
    await begin(home, WARM)
    await say(home, temperature=26)
    await home.change(home.devices[0], alerts=[{**WARM, "name": "Hot"}])
    await home.connected()
    await home.tick()
    assert home.value("alert_warm") == "on"
    await say(home, temperature=20)
    assert home.value("alert_warm") == "off"
    for name in ("Too_warm", "Hot"):
        started, ended = alerts(home, name)
        assert started["StartedAt"] == ended["StartedAt"] <= ended["EndedAt"]


async def test_limit_changed(home: Home) -> None:
    """A rule that is changed goes by what the device said last."""
    await begin(home, WARM)
    await say(home, temperature=26)
    for limit, expected in ((27, "off"), (24, "on"), (25.5, "on")):
        rule = {**WARM, "limit": limit, "hysteresis": 0}
        await home.change(home.devices[0], alerts=[rule])
        await home.connected()
        await home.tick()
        assert home.value("alert_warm") == expected
    assert [event["state"] for event in home.events] == ["started", "ended", "started"]


async def test_lost_when_the_rule_is_made(home: Home) -> None:
    """A device that is away already when the rule is made is lost."""
    await begin(home, timeout=60)
    await home.tick(61)
    assert home.value("signal_presence") == "off"
    await home.change(home.devices[0], alerts=[LOST])
    await home.connected()
    await home.tick(2)
    assert home.value("alert_lost") == "on"


async def test_too_warm_when_the_rule_is_made(home: Home) -> None:
    """A new rule goes by what the device said last, though it repeats that."""
    await begin(home)
    await say(home, temperature=26)
    await home.change(home.devices[0], alerts=[WARM])
    await home.connected()
    home.hear(bthome(temperature=26))
    await home.tick()
    assert home.value("alert_warm") == "on"


async def test_names(home: Home) -> None:
    """A rule's name is one level of a topic."""
    await begin(home, {**WARM, "name": "a/+#b"})
    await say(home, temperature=26)
    (alert,) = alerts(home, "a___b")
    assert alert["Name"] == "a/+#b"
    assert len(home.topics(f"{FIELDS}/alerts/")) == 2
