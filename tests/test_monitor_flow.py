"""The forms of monitors: add one, hear what it would hear, save it, change it."""

import asyncio
from collections.abc import Callable
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers import issue_registry as ir
import pytest

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.monitors import listen
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import SimulatedScanner, destination_data, wait_until
from .monitor_forms import (
    ADVANCED,
    ADVANCED_TOO,
    PRESETS,
    STORED,
    TOPICS,
    VALUES,
    Listen,
    begin,
    change,
    destination_id,
    fields_of,
    form,
    heard,
    hears,
    is_saved,
    monitor_of,
    offered,
    publish,
    save,
    shown,
    subentries,
    submit,
)
from .monitors.garage import DEVICE, moment, relay, status, telemetry

pytestmark = pytest.mark.usefixtures("listen_for")


@pytest.fixture(name="entry")
async def entry_fixture(broker: Mosquitto, setup: Callable[..., Any]) -> Any:
    """Return a bridge with a destination."""
    return await setup(destination_data(broker.port))


# --- add --------------------------------------------------------------------------------


async def test_add(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """With nothing changed, the form shows what it hears, and the monitor then works."""
    said = {
        f"autocore/{DEVICE}/status": status(),
        f"autocore/{DEVICE}/telemetry": telemetry(),
        "autocore/Pump/relay/0/status": relay(device="Pump"),
    }
    await publish(broker.port, said, retain=True)
    result = await begin(hass, entry, "autocore")
    assert result["errors"] == {}
    assert fields_of(result) == [
        *("name", "destination", "topic_base", "timeout", "max_devices"),
        *("mark_stale", "critical_relays", "values", "advanced"),
    ]
    assert offered(result) == {destination_id(entry): f"127.0.0.1:{broker.port}"}
    result = await heard(hass, listen_for, result, form(entry), 3)
    told = result["description_placeholders"]
    assert told == {
        "messages": "3",
        "devices": "2",
        "rejected": "0",
        "list": f"- `{DEVICE}`: 2\n- `Pump`: 1",
    }
    assert not subentries(entry, "monitor")
    await is_saved(hass, entry, result)
    monitor = monitor_of(entry)
    assert monitor.title == "Garage"
    assert monitor.unique_id is None
    assert monitor.data == {**STORED, "destination": destination_id(entry)}
    await publish(
        broker.port,
        {f"autocore/{DEVICE}/telemetry": telemetry(temperature=30.5)},
        retain=False,
    )
    entity_id = "sensor.esp32_001_temperature"
    await wait_until(lambda: hass.states.is_state(entity_id, "30.5"))
    await wait_until(lambda: hass.states.is_state("binary_sensor.pump_relay_0", "on"))


async def test_only_what_is_needed(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """Who fills in the form by hand needs nothing but a name and a destination."""
    result = await begin(hass, entry, "autocore")
    least = {"name": " Garage ", "destination": destination_id(entry)}
    result = await submit(hass, result, least)
    assert result["step_id"] == "nothing_heard"
    await is_saved(hass, entry, result)
    assert monitor_of(entry).title == "Garage"
    assert monitor_of(entry).data == {**STORED, "destination": destination_id(entry)}


async def test_everything_entered(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Each setting is stored as what it is, and shown when the form is opened again."""
    entered = form(
        entry,
        name="Workshop",
        status_topics=[" garage/+/status ", ""],
        telemetry_topics=["garage/+/telemetry", "garage/+/sensor/+"],
        relay_topics=["garage/+/relay/+"],
        interaction_topics=["garage/+/button"],
        system_topics=["garage/+/system/+"],
        timeout=60.0,
        max_devices=10.0,
        mark_stale=True,
        critical_relays=[" */3", "Pump/main"],
        average=5.0,
        anomalies=True,
        deviations=4,
        window=30.0,
        qos="2",
        share_group=" home ",
        needs_time=True,
        max_kilobytes=8.0,
        dead_letter_topic="garage/dead",
    )
    result = await begin(hass, entry, "own")
    assert fields_of(result) == [
        *("name", "destination", *(f"{kind}_topics" for kind in TOPICS)),
        *("timeout", "max_devices", "mark_stale", "critical_relays"),
        *("values", "advanced"),
    ]
    await is_saved(hass, entry, await submit(hass, result, entered))
    stored: dict[str, Any] = {
        "preset": "own",
        "destination": destination_id(entry),
        "status_topics": ["garage/+/status"],
        "telemetry_topics": ["garage/+/telemetry", "garage/+/sensor/+"],
        "relay_topics": ["garage/+/relay/+"],
        "interaction_topics": ["garage/+/button"],
        "system_topics": ["garage/+/system/+"],
        "timeout": 60,
        "max_devices": 10,
        "mark_stale": True,
        "critical_relays": ["*/3", "Pump/main"],
        "average": 5,
        "anomalies": True,
        "deviations": 4.0,
        "window": 30,
        "qos": 2,
        "share_group": "home",
        "needs_time": True,
        "max_kilobytes": 8,
        "dead_letter_topic": "garage/dead",
    }
    data = monitor_of(entry).data
    assert data == stored
    assert {key: type(value) for key, value in data.items()} == {
        key: type(value) for key, value in stored.items()
    }
    sections: dict[str, dict[str, Any]] = {
        "values": {key: stored[key] for key in VALUES},
        "advanced": {
            **{key: stored[key] for key in (*ADVANCED, *ADVANCED_TOO)},
            "qos": "2",
        },
    }
    result = await change(hass, entry)
    assert shown(result["data_schema"].schema) == {
        "name": "Workshop",
        **{
            key: value
            for key, value in stored.items()
            if key not in {"preset", *sections["values"], *sections["advanced"]}
        },
        **sections,
    }


@pytest.mark.parametrize("preset", PRESETS)
async def test_presets(
    hass: HomeAssistant, entry: ConfigEntry[Any], preset: str
) -> None:
    """Each preset asks for what it needs, and begins with what suits it."""
    result = await begin(hass, entry, preset)
    schema = result["data_schema"].schema
    assert ("topic_base" in schema) is (preset != "own")
    assert ("status_topics" in schema) is (preset == "own")
    assert ("critical_relays" in schema) is (preset != "ble_bridge")
    filled = result["data_schema"](
        {"destination": destination_id(entry), "values": {}, "advanced": {}}
    )
    if preset == "own":
        filled["status_topics"] = ["garage/+/status"]
    await is_saved(hass, entry, await submit(hass, result, filled))
    monitor = monitor_of(entry)
    names = dict(
        zip(PRESETS, ("AutoCore", "Other BLE Bridges", "MQTT devices"), strict=True)
    )
    assert monitor.title == names[preset]
    assert monitor.data["preset"] == preset
    assert monitor.data["needs_time"] is (preset != "own")
    bases = {"autocore": "autocore", "ble_bridge": "ble", "own": None}
    assert monitor.data.get("topic_base") == bases[preset]


async def test_other_bridges(
    hass: HomeAssistant,
    broker: Mosquitto,
    scanner: SimulatedScanner,
    subscriber: Subscriber,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """Other bridges are shown, and not what this one says of itself."""
    await subscriber.wait_for_message("ble/bridge/home/status", b"online")
    await subscriber.wait_for_message("ble/scanner/living-room-proxy/status")
    others = {
        "ble/bridge/attic/status": b"online",
        "ble/scanner/roof/status": {
            "scanner_id": "roof",
            "timestamp": moment(),
            "status": "running",
        },
    }
    await publish(broker.port, others, retain=True)
    result = await begin(hass, entry, "ble_bridge")
    result = await heard(hass, listen_for, result, form(entry), 2)
    told = result["description_placeholders"]
    assert set(told["list"].splitlines()) == {
        "- `Bridge attic`: 1",
        "- `Scanner roof`: 1",
    }
    await is_saved(hass, entry, result)
    (monitor,) = entry.runtime_data.monitors.by_id.values()
    await wait_until(lambda: {*monitor.devices} == {"Bridge attic", "Scanner roof"})


async def test_while_the_bridge_does_not_run(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """A monitor can be added while nobody knows what the bridge says of itself."""
    assert await hass.config_entries.async_unload(entry.entry_id)
    await publish(broker.port, {"ble/bridge/attic/status": b"online"}, retain=True)
    result = await begin(hass, entry, "ble_bridge")
    # The broker keeps what this bridge and its adapter said when they went, too.
    result = await heard(hass, listen_for, result, form(entry), 3)
    told = result["description_placeholders"]
    assert "- `Bridge attic`: 1" in told["list"].splitlines()
    result = await save(hass, result)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hears(entry)


# --- what was heard ---------------------------------------------------------------------


async def test_odd_names(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """What devices call themselves is shown as text, whatever it would do in Markdown."""
    names = [
        *("`code`", "**bold**", "[a](b)", "<img src=x onerror=alert(1)>", "{list}"),
        *("| a |", "![](x)", "&lt;", "Küche 🦊"),
    ]
    said: dict[str, Any] = {
        f"autocore/{name}/status": status(name, status="online") for name in names
    }
    # These are no IDs: nothing of them is shown.
    said |= {
        f"autocore/{name}/status": b"online"
        for name in ("a\u2028b", " ", "a" * 65, "\u202e")
    }
    await publish(broker.port, said, retain=True)
    result = await begin(hass, entry, "autocore")
    result = await heard(hass, listen_for, result, form(entry), len(said))
    told = result["description_placeholders"]
    lines = told["list"].split("\n")
    assert sorted(lines) == sorted(f"- `{name.replace('`', '')}`: 1" for name in names)
    for line in lines:
        assert line.count("`") == 2
        assert len(line.splitlines()) == 1
    assert told["rejected"] == "4 (Unusable device ID: 4)"


@pytest.mark.parametrize("language", ["en", "de"])
async def test_not_understood(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
    language: str,
) -> None:
    """Why messages were not understood is said in words, the most frequent reason first."""
    hass.config.language = language
    said = {
        f"autocore/{DEVICE}/status": b"online",
        "autocore/a/telemetry": b"{",
        "autocore/b/telemetry": b"\xff",
        "autocore/c/telemetry": b"[1]",
        "autocore/d/telemetry": {"device_id": "e", "timestamp": moment()},
        "autocore/f/telemetry": {"text": "x" * 1024},
    }
    await publish(broker.port, said, retain=True)
    result = await begin(hass, entry, "autocore")
    entered = form(entry, max_kilobytes=1)
    result = await heard(hass, listen_for, result, entered, len(said))
    told = result["description_placeholders"]
    assert told["devices"] == "1"
    total, _, why = told["rejected"].partition(" ")
    assert total == "5"
    assert why.startswith("(Not JSON: 2, ")
    assert set(why.strip("()").split(", ")) == {
        "Not JSON: 2",
        "Not a JSON object: 1",
        "Other device ID than in the topic: 1",
        "Message too large: 1",
    }


async def test_nothing_but_nonsense(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """Where nothing is understood, that is what is shown, and it can be saved."""
    await publish(broker.port, {"autocore/a/status": b"{"}, retain=True)
    result = await begin(hass, entry, "autocore")
    result = await heard(hass, listen_for, result, form(entry), 1)
    told = result["description_placeholders"]
    assert told["devices"] == "0"
    assert told["list"] == ""
    assert told["rejected"] == "1 (Not JSON: 1)"
    await is_saved(hass, entry, result)


async def test_what_is_cleared(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """The empty message that clears a topic tells of no device."""

    async def talk() -> None:
        while True:
            said = {"autocore/gone/status": b"", "autocore/here/status": b"online"}
            await publish(broker.port, said, retain=False)

    talking = asyncio.create_task(talk())
    result = await begin(hass, entry, "autocore")
    result = await heard(hass, listen_for, result, form(entry))
    told = result["description_placeholders"]
    talking.cancel()
    assert told["list"] == f"- `here`: {told['messages']}"
    assert told["rejected"] == "0"


async def test_many_devices(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """Of many devices the busiest are listed, and how many more there are."""
    said: dict[str, Any] = {f"autocore/{n:02}/status": b"online" for n in range(30)}
    said["autocore/29/telemetry"] = telemetry("29")
    await publish(broker.port, said, retain=True)
    result = await begin(hass, entry, "autocore")
    result = await heard(hass, listen_for, result, form(entry), 31)
    told = result["description_placeholders"]
    assert told["devices"] == "30"
    lines = told["list"].splitlines()
    assert len(lines) == 21
    assert lines[0] == "- `29`: 2"
    assert lines[-1] == "- … (+10)"


async def test_flood(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a flood only a part is looked at; the rest is counted."""
    monkeypatch.setattr(listen, "_MAX_PARSED", 60)
    monkeypatch.setattr(listen, "_MAX_DEVICES", 40)
    said = {f"autocore/{n}/status": b"online" for n in range(500)}
    said |= {f"nonsense/{n}/status": b"{" for n in range(500)}
    await publish(broker.port, said, retain=True)
    result = await begin(hass, entry, "autocore")
    entered = form(entry, topic_base="nonsense")
    result = await heard(hass, listen_for, result, entered, 500)
    told = result["description_placeholders"]
    assert told["rejected"] == "60 (Not JSON: 60)"
    result = await submit(hass, result, {"next_step_id": "change"})
    result = await heard(hass, listen_for, result, form(entry), 500)
    told = result["description_placeholders"]
    assert told["devices"] == "40"
    assert told["list"].splitlines()[-1] == "- … (+20)"
    assert told["rejected"] == "0"
    await is_saved(hass, entry, result)
    full = (DOMAIN, f"monitor_full_{monitor_of(entry).subentry_id}")
    await wait_until(lambda: full in ir.async_get(hass).issues)


# --- what is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "changes", "errors"),
    [
        ("autocore", {"name": " "}, {"name": "invalid_name"}),
        *(
            ("autocore", {"topic_base": base}, {"topic_base": "invalid_topic_base"})
            for base in (
                " ",
                "/",
                "a//b",
                "auto core",
                "a/+",
                "#",
                "$share/a",
                "a" * 129,
            )
        ),
        ("ble_bridge", {"topic_base": "$SYS"}, {"topic_base": "invalid_topic_base"}),
        *(
            ("own", {"status_topics": [text]}, {"status_topics": "invalid_pattern"})
            for text in (
                "a/+/#",
                "a//+",
                "/+",
                "a b/+",
                "a+/+",
                "$SYS/+",
                "+/" + "a/" * 130,
            )
        ),
        *(
            (
                "own",
                {f"{kind}_topics": ["a/b"]},
                {f"{kind}_topics": "pattern_without_id"},
            )
            for kind in TOPICS
        ),
        *(
            ("own", {f"{kind}_topics": [text]}, {f"{kind}_topics": "pattern_wildcards"})
            for kind, text in (
                *(("status", "a/+/+"), ("interaction", "+/a/+")),
                *(("telemetry", "+/+/+"), ("relay", "+/+/+"), ("system", "+/a/+/+")),
            )
        ),
        (
            "own",
            {"relay_topics": [f"{n}/+" for n in range(21)]},
            {"relay_topics": "too_many_topics"},
        ),
        ("own", {}, {"base": "no_patterns"}),
        ("own", {"status_topics": [" ", ""]}, {"base": "no_patterns"}),
        (
            "own",
            {"status_topics": ["a/+/b"], "telemetry_topics": ["+/a/b"]},
            {"base": "patterns_overlap"},
        ),
        *(
            (
                "autocore",
                {"critical_relays": relays},
                {"critical_relays": "invalid_relays"},
            )
            for relays in (["0"], ["/0"], ["Pump/"], ["*/3", "x"], ["*/3"] * 21)
        ),
        *(
            ("autocore", {"share_group": group}, {"base": "invalid_share_group"})
            for group in ("a/b", "+", "#", "a b", "$a", "a" * 129)
        ),
        *(
            (
                "autocore",
                {"dead_letter_topic": topic},
                {"base": "invalid_dead_letter_topic"},
            )
            for topic in ("a/#", "+", "$SYS/a", "a\0")
        ),
        (
            "autocore",
            {"dead_letter_topic": "workshop/dead/status"},
            {"base": "dead_letter_loop"},
        ),
    ],
)
async def test_errors(
    hass: HomeAssistant,
    entry: ConfigEntry[Any],
    preset: str,
    changes: dict[str, Any],
    errors: dict[str, str],
) -> None:
    """What is wrong is said where it was entered, and the same form takes what is right."""
    result = await begin(hass, entry, preset)
    least = {} if preset == "own" else {"topic_base": "workshop"}
    result = await submit(hass, result, form(entry, **{**least, **changes}))
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == preset
    assert result["errors"] == errors
    asked = result["data_schema"].schema
    assert set(errors) <= {"base", *map(str, asked)}
    # What was entered is still there.
    still = shown(asked)
    for key, value in changes.items():
        assert value in (still.get(key), still["advanced"].get(key))
    own = {"status_topics": ["garage/+/status"]} if preset == "own" else {}
    await is_saved(hass, entry, await submit(hass, result, form(entry, **own)))


async def test_longest_base(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """A base may be as long as the form says, and is used without slashes around it."""
    base = "/".join(["a" * 99, "b" * 100])
    await publish(broker.port, {f"{base}/{DEVICE}/status": status()}, retain=True)
    result = await begin(hass, entry, "autocore")
    entered = form(entry, topic_base=f" /{base}/ ")
    result = await heard(hass, listen_for, result, entered, 1)
    await is_saved(hass, entry, result)
    assert monitor_of(entry).data["topic_base"] == base


async def test_topics_watched(
    hass: HomeAssistant, broker: Mosquitto, setup: Callable[..., Any]
) -> None:
    """No two monitors listen to the same topics over one connection."""
    other = destination_data(broker.port, topic_base="other", client_id="other")
    entry = await setup(destination_data(broker.port), other)
    result = await begin(hass, entry, "autocore")
    await is_saved(hass, entry, await submit(hass, result, form(entry)))

    result = await begin(hass, entry, "own")
    taken = form(entry, name="Mine", system_topics=["autocore/+/system/+"])
    result = await submit(hass, result, taken)
    assert result["errors"] == {"base": "topics_watched"}
    assert result["description_placeholders"] == {"monitor": "Garage"}
    # They can be heard over another connection, and others over this one.
    elsewhere = {**taken, "destination": destination_id(entry, 1)}
    await is_saved(hass, entry, await submit(hass, result, elsewhere))
    result = await change(hass, entry, 1)
    result = await submit(hass, result, taken)
    assert result["errors"] == {"base": "topics_watched"}
    free = {**taken, "system_topics": ["garage/+/system/+"]}
    result = await save(hass, await submit(hass, result, free))
    assert result["reason"] == "reconfigure_successful"


async def test_dead_letters_in_a_ring(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """No monitors hear each other's dead letters in turn; one may hear another's."""
    for name, letters in (("One", "two/dead/status"), ("Two", "three/dead/status")):
        result = await begin(hass, entry, "autocore")
        entered = form(
            entry, name=name, topic_base=name.lower(), dead_letter_topic=letters
        )
        await is_saved(hass, entry, await submit(hass, result, entered))
    result = await begin(hass, entry, "autocore")
    entered = form(entry, topic_base="three", dead_letter_topic="one/dead/status")
    result = await submit(hass, result, entered)
    assert result["errors"] == {"base": "dead_letter_loop"}
    # A row of them is no ring
    entered = form(entry, topic_base="four", dead_letter_topic="one/dead/status")
    result = await submit(hass, result, entered)
    await is_saved(hass, entry, result)
    result = await change(hass, entry, 1)
    entered = form(
        entry, name="Two", topic_base="two", dead_letter_topic="one/dead/status"
    )
    result = await submit(hass, result, entered)
    assert result["errors"] == {"base": "dead_letter_loop"}


async def test_added_meanwhile(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Two forms cannot both add a monitor of the same topics."""
    results = []
    for name in ("One", "Two"):
        result = await begin(hass, entry, "autocore")
        results.append(await submit(hass, result, form(entry, name=name)))
    await is_saved(hass, entry, results[0])
    result = await save(hass, results[1])
    assert result["type"] is FlowResultType.FORM
    assert result["errors"] == {"base": "topics_watched"}
    assert result["description_placeholders"] == {"monitor": "One"}
    result = await submit(hass, result, form(entry, name="Two", topic_base="two"))
    await is_saved(hass, entry, result)
    titles = [monitor.title for monitor in subentries(entry, "monitor")]
    assert titles == ["One", "Two"]


# --- change -----------------------------------------------------------------------------


async def test_change(
    hass: HomeAssistant,
    broker: Mosquitto,
    entry: ConfigEntry[Any],
    listen_for: Listen,
) -> None:
    """A monitor keeps its topics, or has others; what is left empty is empty then."""
    result = await begin(hass, entry, "autocore")
    entered = form(
        entry,
        critical_relays=["*/0"],
        share_group="home",
        dead_letter_topic="dead",
        mark_stale=True,
        anomalies=True,
    )
    await is_saved(hass, entry, await submit(hass, result, entered))
    before = monitor_of(entry)

    result = await change(hass, entry)
    assert shown(result["data_schema"].schema) == {
        "name": "Garage",
        "destination": destination_id(entry),
        "topic_base": "autocore",
        "timeout": 300,
        "max_devices": 250,
        "mark_stale": True,
        "critical_relays": ["*/0"],
        "values": {**VALUES, "anomalies": True},
        "advanced": {**ADVANCED, "share_group": "home", "dead_letter_topic": "dead"},
    }
    said = {f"workshop/{DEVICE}/status": status()}
    await publish(broker.port, said, retain=True)
    entered = form(entry, name="Workshop", topic_base="workshop")
    result = await heard(hass, listen_for, result, entered, 1)
    assert monitor_of(entry).data["topic_base"] == "autocore"
    result = await save(hass, result)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "reconfigure_successful"
    await hears(entry)
    after = monitor_of(entry)
    assert after.subentry_id == before.subentry_id
    assert after.title == "Workshop"
    assert after.data == {
        **STORED,
        "destination": destination_id(entry),
        "topic_base": "workshop",
    }
    entity_id = "binary_sensor.esp32_001_connectivity"
    await wait_until(lambda: hass.states.is_state(entity_id, "on"))


async def test_change_one_s_mind(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Who goes back finds what was entered, sections and all."""
    result = await begin(hass, entry, "autocore")
    entered = form(
        entry, topic_base="workshop", critical_relays=["*/1"], qos="0", average=3
    )
    result = await submit(hass, result, entered)
    assert result["step_id"] == "nothing_heard"
    result = await submit(hass, result, {"next_step_id": "change"})
    assert result["step_id"] == "autocore"
    assert result["errors"] == {}
    assert shown(result["data_schema"].schema) == {
        **entered,
        "timeout": 300,
        "max_devices": 250,
        "mark_stale": False,
    }
    await is_saved(hass, entry, await submit(hass, result, entered))
    assert monitor_of(entry).data["qos"] == 0


async def test_sections_left_out(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Who fills in the form by hand and leaves out a section leaves it as it is."""
    result = await begin(hass, entry, "autocore")
    entered = form(entry, average=1, window=50, qos="0", share_group="home")
    await is_saved(hass, entry, await submit(hass, result, entered))
    before = monitor_of(entry).data
    least = {"name": "Garage", "destination": destination_id(entry), "timeout": 60}
    result = await save(hass, await submit(hass, await change(hass, entry), least))
    assert result["reason"] == "reconfigure_successful"
    assert monitor_of(entry).data == {**before, "timeout": 60}


async def test_what_the_form_does_not_offer(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """What no form can enter is not taken."""
    result = await begin(hass, entry, "autocore")
    for wrong in (
        {"destination": "none"},
        {"qos": "3"},
        {"timeout": -1},
        {"timeout": 90_000},
        {"max_devices": 0},
        {"average": 0},
        {"window": 1},
        {"deviations": 0},
        {"max_kilobytes": 2000},
        {"status_topics": ["a/+"]},
    ):
        with pytest.raises(InvalidData):
            await submit(hass, result, form(entry, **wrong))
    await is_saved(hass, entry, await submit(hass, result, form(entry)))
