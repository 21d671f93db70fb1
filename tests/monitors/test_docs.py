"""What docs/monitors.md says is so: its tables, its examples and its automations."""

from collections.abc import Callable
import json
import re
from typing import Any

from homeassistant.components.recorder import CONFIG_SCHEMA as RECORDER_SCHEMA
from homeassistant.const import STATE_ON
from homeassistant.data_entry_flow import section as FormSection
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    SelectSelector,
    TextSelector,
)
from homeassistant.util.yaml import parse_yaml
import pytest

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.destinations.mqtt_connection import MAX_PACKET
from custom_components.ble_bridge.layouts.topics import MAX_BASE
from custom_components.ble_bridge.monitor_flow import _MAX_LINES, _NAMES
from custom_components.ble_bridge.monitors import (
    dead_letters,
    device,
    event,
    messages,
    monitor,
    names,
)
from custom_components.ble_bridge.monitors.messages import OFFLINE_WORDS, Reason
from custom_components.ble_bridge.monitors.names import field_of
from custom_components.ble_bridge.monitors.patterns import MessageKind
from custom_components.ble_bridge.monitors.presets import (
    DEFAULT_BASES,
    DIALECTS,
    Preset,
)
from custom_components.ble_bridge.monitors.sensor import MONITOR_SENSORS
from custom_components.ble_bridge.monitors.settings import KILOBYTE, monitor_data
from scripts.simulation.processes import REPOSITORY
from scripts.simulation.subscriber import Subscriber

from ..conftest import wait_until
from ..layouts.samples import schema, validated
from .garage import DEVICE, Garage, moment, relay, status, telemetry
from .pages import DOCS, TOPICS, Row, blocks, codes, entities, part, tables

ENGLISH = json.loads(
    (REPOSITORY / "custom_components/ble_bridge/translations/en.json").read_text(
        encoding="utf-8"
    )
)


def shown(garage: Garage, name: str) -> dict[str, er.RegistryEntry]:
    """Return the entities of a device of the monitor by the names that a user reads."""
    found = garage.device(name)
    assert found is not None
    registry = er.async_get(garage.hass)
    return {
        entity.original_name or "": entity
        for entity in er.async_entries_for_device(
            registry, found.id, include_disabled_entities=True
        )
    }


# --- the form ---------------------------------------------------------------------------


async def test_form(garage: Garage) -> None:
    """Each field is in the table, with its default and its limits, and no other is."""
    await garage.start()
    flows = garage.hass.config_entries.subentries
    expected: dict[str, tuple[str, str]] = {}
    time_needed = {}
    for preset in Preset:
        flow = await flows.async_init(
            (garage.entry.entry_id, "monitor"), context={"source": "user"}
        )
        assert flow["menu_options"] == [preset.value for preset in Preset]
        flow = await flows.async_configure(
            flow["flow_id"], {"next_step_id": preset.value}
        )
        assert flow["data_schema"] is not None
        form = ENGLISH["config_subentries"]["monitor"]["step"][preset.value]
        defaults = monitor_data({"preset": preset})
        for label, marker, selector in _fields(flow["data_schema"].schema, form):
            default, limits = _described(marker, selector)
            expected[label] = default, limits
            if marker in defaults and default not in ("none", ""):
                assert _text(defaults[marker]) == default
            if marker == "needs_time":
                time_needed[preset] = default
    assert set(time_needed.values()) == {"on", "off"}
    assert [preset for preset, text in time_needed.items() if text == "off"] == [
        Preset.OWN
    ]
    expected["Messages need a timestamp"] = "on, off for topics of your own", ""
    expected["Name"] = "as in the menu, *MQTT devices* for topics of your own", ""
    expected["Destination"] = "the first", "MQTT"
    bases = ", ".join(f"`{base}`" for base in DEFAULT_BASES.values())
    expected["Topic base"] = bases, f"{MAX_BASE} characters"
    documented = {
        label: (default, limits.removesuffix(" each"))
        for cell, default, limits, _ in tables(part("Add one"))[1]
        if not cell.startswith("**")
        for label in cell.split(", ")
    }
    assert documented == expected
    menu = ENGLISH["config_subentries"]["monitor"]["step"]["user"]["menu_options"]
    assert [row[0] for row in tables(part("Add one"))[0]] == list(menu.values())
    assert _NAMES[Preset.OWN] == "MQTT devices"
    for preset in (Preset.AUTOCORE, Preset.BLE_BRIDGE):
        assert _NAMES[preset] == menu[preset.value]


def _fields(fields: dict[Any, Any], form: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the label, the key and the selector of each field, those in sections too."""
    found = []
    for marker, selector in fields.items():
        if isinstance(selector, FormSection):
            found += _fields(selector.schema.schema, form["sections"][str(marker)])
        else:
            found.append((form["data"][str(marker)], marker, selector))
    return found


def _described(marker: Any, selector: Any) -> tuple[str, str]:
    """Return default and limits of a field as the table has them."""
    limits = ""
    match selector:
        case NumberSelector(config=config):
            limits = f"{config['min']:,g} to {config['max']:,g}"
            if unit := config.get("unit_of_measurement"):
                limits += f" {unit}"
        case SelectSelector(config={"options": [str(), *_] as options}):
            limits = ", ".join(map(str, options))
        case TextSelector(config={"multiple": True}):
            limits = str(_MAX_LINES)
        case BooleanSelector() | TextSelector() | SelectSelector():
            pass
        case _:
            pytest.fail(f"What is {selector}?")
    default = marker.default
    return _text(default() if callable(default) else None), limits


def _text(value: object) -> str:
    """Return a default as the table has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else "none"


# --- the presets ------------------------------------------------------------------------


def example(title: str) -> tuple[str, dict[str, Any]]:
    """Return the topic below the base, and the payload, that a section shows."""
    text = part(title)
    (payload,) = blocks(text, "json")
    said = json.loads(payload)
    said["timestamp"] = moment()
    topic = re.search(r"^On `autocore/(.+)`:$", text, re.MULTILINE)
    assert topic is not None
    return topic[1], said


@pytest.mark.parametrize(
    ("title", "said"),
    [("Status", status), ("Telemetry", telemetry), ("Relays", relay)],
)
async def test_preset(
    garage: Garage, title: str, said: Callable[[], dict[str, Any]]
) -> None:
    """What the page shows becomes the entities that it names, with these units."""
    topic, payload = example(title)
    assert {**payload, "timestamp": 0} == {**said(), "timestamp": 0}
    await garage.start()
    await garage.tell(topic, payload)
    found = shown(garage, DEVICE)
    # What each device has, said elsewhere
    assert found.keys() - {"Last seen", "Connectivity"} == entities(part(title)) - {
        "Connectivity"
    }
    (rows,) = tables(part(title))
    for key, text in rows:
        if unit := re.search(r"\*([^*]+)\* \(sensor, ([^,)\s]+)", text):
            if codes(key)[0] == "uptime":
                continue
            state = garage.hass.states.get(found[unit[1]].entity_id)
            assert state is not None
            assert state.attributes["unit_of_measurement"] == unit[2]
    if title == "Telemetry":
        assert {codes(key)[0] for key, _ in rows} == payload.keys() - {
            "device_id",
            "timestamp",
        }
        averages = {name for name in found if name.endswith("moving average")}
        assert {name for name, e in found.items() if e.disabled_by} == averages
    if title == "Status":
        owner = garage.device()
        assert owner is not None
        assert owner.sw_version == payload["firmware_version"]
        assert owner.configuration_url == f"http://{payload['ip_address']}"
        await garage.tell(topic, b" OFFline ")
        assert garage.value("online") == "off"


async def test_relay_words(garage: Garage) -> None:
    """The words for on and off are those that are listed."""
    await garage.start()
    ((text,),) = [row[1:] for row in tables(part("Relays"))[0] if "`state`" in row[0]]
    on, off = text.split("are on;")
    for words, state in ((on, "on"), (off, "off")):
        for word in codes(words):
            value = json.loads(word) if word in ("true", "false", "1", "0") else word
            await garage.tell(f"{DEVICE}/relay/0/status", relay(state=value))
            assert garage.value("relay!0") == state
    found = {*codes(on), *codes(off)}
    assert found == messages._ON | messages._OFF


async def test_events(garage: Garage) -> None:
    """What the page shows becomes events of these types."""
    await garage.start()
    text = part("Interactions and system messages")
    words = text.rpartition("```")[2]
    topics = re.findall(r"[Oo]n `autocore/([^`]+)`", text)
    payloads = [json.loads(block) for block in blocks(text, "json")]
    types = re.findall(r"\(`(\w+)`\)", words)
    assert types == ["error", "tap"]
    keys = [code for code in codes(words) if code in DIALECTS[Preset.OWN].event_keys]
    assert tuple(keys) == DIALECTS[Preset.OWN].event_keys
    said = zip(("interaction", "system"), topics, payloads, strict=True)
    for kind, topic, payload in said:
        await garage.tell(topic, {**payload, "timestamp": moment()})
        state = garage.state(kind)
        assert state is not None
        assert state.attributes["event_type"] in types
        for key, value in payload.items():
            if key not in ("device_id", "timestamp", "action"):
                assert state.attributes[key] == value
    made = shown(garage, DEVICE).keys() - {"Last seen", "Connectivity"}
    assert made == {"Interaction", "System message"}
    assert all(f"*{name}*" in text for name in made)


async def test_other_bridges(garage: Garage, subscriber: Subscriber) -> None:
    """A heartbeat of another bridge becomes what the page says; our own do not."""
    await garage.start({"preset": "ble_bridge", "topic_base": "ble"})
    heartbeat = json.loads(blocks(TOPICS, "json")[2])
    heartbeat["timestamp"] = moment()
    scanner = heartbeat["scanner_id"]
    await garage.say(f"ble/scanner/{scanner}/status", heartbeat)
    await garage.say("ble/bridge/cabin/status", b"online")
    await wait_until(lambda: garage.judged == 2)
    await garage.hass.async_block_till_done()
    text = part("`ble_bridge`")
    devices, keys = tables(text)
    called = [re.findall(r"\*([^*]+)\*", row[1])[0] for row in devices]
    assert called == [f"Scanner {scanner}", "Bridge cabin"]
    found = shown(garage, called[0])
    moving = {name for name in found if name.endswith("moving average")}
    assert found.keys() - moving - {"Last seen"} == entities(text) - {
        *called,
        "Offline after",
    }
    said = {"status", "uptime_seconds"}
    said |= {f"mqtt.{key}" for key in heartbeat["mqtt"]}
    said |= {"metrics.devices", "metrics.advertisements_received"}
    assert {codes(key)[0] for key, _ in keys} == said
    assert set(shown(garage, "Bridge cabin")) == {
        "Connectivity",
        "Device status",
        "Last seen",
    }
    # What it says of itself was there, and is not among them.
    await subscriber.wait_for_message("ble/bridge/home/status", b"online")
    assert set(garage.monitor.devices) == set(called)


OWN = [row for rows in tables(part("Topics of your own")) for row in rows]


@pytest.mark.parametrize("row", OWN, ids=[codes(row[2])[0] for row in OWN])
async def test_own_topics(garage: Garage, row: Row) -> None:
    """What comes on a topic of the user's own becomes what the table says."""
    label, *rest, becomes = row
    pattern, topic, payload = (codes(cell)[0] for cell in rest)
    form = ENGLISH["config_subentries"]["monitor"]["step"]["own"]["data"]
    kinds = {form[f"{kind.value}_topics"]: kind for kind in MessageKind}
    await garage.start(
        {"preset": "own", f"{kinds[label].value}_topics": [pattern], "average": 1}
    )
    await garage.say(topic, payload.encode())
    await wait_until(lambda: garage.judged == 1)
    await garage.hass.async_block_till_done()
    name, value = re.fullmatch(r"\*(.+)\*: (.+)", becomes).groups()  # type: ignore[union-attr]
    state = garage.hass.states.get(shown(garage, "gate")[name].entity_id)
    assert state is not None
    assert state.attributes.get("event_type", state.state) == value


# --- names ------------------------------------------------------------------------------

NAMES, UNITS, ENDINGS = tables(part("Names, units and classes"))


def _class(row: Row) -> tuple[str | None, str | None]:
    """Return unit and device class of a row."""
    return row[1] or None, row[2] or None


def test_whole_names() -> None:
    """Names that such systems have in common have the unit and the class of the table."""
    found = set()
    for row in NAMES:
        for name in codes(row[0]):
            found.add(name)
            field = field_of(name, 1.5)
            assert (field.unit, field.device_class) == _class(row), name
            assert field.diagnostic == ("diagnostic" in row[3]), name
            grows = field.state_class == "total_increasing"
            assert grows == ("only grows" in row[3]), name
    assert found == names._COMMON.keys()


def test_units() -> None:
    """A last word has the unit and the class of the table; letters need another word."""
    found, letters = set(), set()
    for row in UNITS:
        for name, star in re.findall(r"`(\w+)`( \*)?", row[0]):
            found.add(name)
            field = field_of(f"pump_{name}", 1.5)
            if star:
                letters.add(name)
                assert (field.unit, field.device_class) == (None, None), name
                field = field_of(f"pump_{row[2].removesuffix('_storage')}_{name}", 1.5)
            assert (field.unit, field.device_class) == _class(row), name
    assert found == names._UNITS.keys()
    assert letters == names._LETTERS


def test_endings() -> None:
    """What a name ends with tells the unit and the class of the table."""
    found = set()
    for row in ENDINGS:
        for name in codes(row[0]):
            found.add(name)
            for whole in (name, f"pump_{name}"):
                field = field_of(whole, 1.5)
                assert (field.unit, field.device_class) == _class(row), whole
    assert found == {*names._ENDINGS, *names._SHORT}
    assert field_of("pump_energy", 1.5).state_class == "total_increasing"


def test_names_in_the_text() -> None:
    """The names by which the page explains the rules are such names."""
    for name, unit in (
        ("temperature_2", "°C"),
        ("pump_pressure_bar", "bar"),
        ("zone_c", None),
        ("boiler_temp_c", "°C"),
        ("weight_g", "g"),
        ("water_temperature", "°C"),
    ):
        assert f"`{name}`" in part("Names, units and classes")
        assert field_of(name, 1.5).unit == unit


# --- what counts and what is fired --------------------------------------------------------


def test_offline_words() -> None:
    """The words that mean that a device is gone are those that are listed."""
    (rows,) = tables(part("Whether a device is there"))
    assert set(codes(rows[0][0])) == OFFLINE_WORDS


def test_reasons() -> None:
    """Each reason is in the table, in order, by the name that Home Assistant shows."""
    (rows,) = tables(part("Dead letters"))
    texts = ENGLISH["selector"]["dead_letter_reason"]["options"]
    assert [(codes(row[0])[0], row[1]) for row in rows] == [
        (reason.value, texts[reason.value]) for reason in Reason
    ]
    assert schema("dead-letter")["properties"]["reason"]["enum"] == list(Reason)


def test_limits() -> None:
    """Each limit is the one of the code."""
    defaults = monitor_data({"preset": "autocore"})
    megabytes = monitor.MAX_QUEUED_BYTES // KILOBYTE**2
    expected = {
        "devices of a monitor": (
            f"{defaults['max_devices']}, or up to 10,000 as the form says"
        ),
        "size of a message": (
            f"{defaults['max_kilobytes']} kB, or up to 1,024 kB as the form says"
        ),
        "values of a message, with the objects and lists that hold them": (
            f"{messages.MAX_VALUES}"
        ),
        "objects and lists within one another": f"{messages.MAX_DEPTH}",
        "characters of an ID": f"{messages.MAX_ID}",
        "characters of a topic": f"{messages.MAX_TOPIC}",
        "values of a device": f"{device.MAX_FIELDS}",
        "relays of a device": f"{device.MAX_RELAYS}",
        "characters of a value's name": f"{messages.MAX_NAME}",
        "characters of a text": f"{messages.MAX_TEXT}",
        "types of an event": f"{event.MAX_EVENT_TYPES}",
        "attributes of an event": (
            f"{event.MAX_ATTRIBUTES}, or {event.MAX_ATTRIBUTE_BYTES // KILOBYTE} KiB"
        ),
        "messages that wait to be read": f"{monitor.MAX_QUEUED:,} or {megabytes} MiB",
        "size of a message, with its topic": (
            f"{MAX_PACKET // KILOBYTE**2} MiB over MQTT 5"
        ),
        "dead letters that are kept": f"{dead_letters.MAX_LETTERS}",
        "size of a dead letter that is kept whole": (
            f"{dead_letters.MAX_KEPT // KILOBYTE} KiB"
        ),
    }
    (rows,) = tables(part("Limits"))
    assert {row[0]: row[1] for row in rows} == expected
    beyond = {row[0]: row[2] for row in rows}
    kept = beyond["size of a dead letter that is kept whole"]
    assert f"first {dead_letters.FIRST_BYTES} bytes" in kept
    assert event.OTHER in codes(beyond["types of an event"])
    assert monitor._LETTERS_A_SECOND == 10


async def test_relay_event(garage: Garage) -> None:
    """The event of a critical relay has the keys that are listed."""
    await garage.start({"critical_relays": ["ESP32_00?/0"]})
    found: list[dict[str, Any]] = []
    garage.hass.bus.async_listen(
        "ble_bridge_relay", lambda fired: found.append(dict(fired.data))
    )
    for state in (False, True):
        await garage.tell(f"{DEVICE}/relay/0/status", relay(state=state))
    (rows,) = tables(part("Critical relays"))
    (fired,) = found
    assert fired.keys() == {code for row in rows for code in codes(row[0])}
    assert fired["device"] == fired["device_name"] == DEVICE
    assert (fired["relay"], fired["state"]) == ("0", "on")


async def test_anomaly(garage: Garage, subscriber: Subscriber) -> None:
    """An unusual value is told in each of the ways that are listed."""
    await garage.start({"anomalies": True})
    found: list[dict[str, Any]] = []
    garage.hass.bus.async_listen(
        "ble_bridge_alert", lambda fired: found.append(dict(fired.data))
    )
    for temperature in (*[25.5] * 10, 90):
        said = telemetry(temperature=temperature)
        await garage.tell(f"{DEVICE}/telemetry", said)
    text = " ".join(part("Unusual values").split())
    state = garage.hass.states.get(shown(garage, DEVICE)["Unusual value"].entity_id)
    assert state is not None
    assert (state.state, state.attributes["fields"]) == (STATE_ON, ["temperature"])
    (alert,) = found
    assert f"`kind: {alert['kind']}` and the name `{alert['name']}`" in text
    (topic,) = [code for code in codes(text) if "/alerts/" in code]
    await subscriber.wait_for(lambda s: bool(s.on_topic(topic)))


async def test_dead_letter(garage: Garage, subscriber: Subscriber) -> None:
    """What is published of a dead letter is as documented, whatever it was."""
    (line,) = [
        line
        for block in blocks(part("Dead letters", TOPICS), "text")
        for line in block.splitlines()
    ]
    topic, _, payload = line.partition(" ")
    shown_letter = validated(payload.encode(), "dead-letter")
    said = shown_letter["payload"].encode()
    assert shown_letter["size"] == len(said)
    await garage.start({"dead_letter_topic": topic, "max_kilobytes": 64})
    letters = [said, b"\xff\0", b"[" * 20_000, b"x" * 70_000]
    for letter in letters:
        await garage.tell("ESP32_001/telemetry", letter)
    await garage.tell(f"{'x' * 600}/telemetry", b"{}")
    await subscriber.wait_for(lambda s: len(s.on_topic(topic)) == len(letters) + 1)
    found = [
        validated(message.payload, "dead-letter")
        for message in subscriber.on_topic(topic)
    ]
    assert not any(message.retain for message in subscriber.on_topic(topic))
    assert {**found[0], "timestamp": 0} == {**shown_letter, "timestamp": 0}
    assert found[1]["payload"] == "\N{REPLACEMENT CHARACTER}\0"
    sizes = [(letter["size"], len(letter["payload"])) for letter in found[2:4]]
    assert sizes == [(20_000, 64), (70_000, 64)]
    assert (found[4]["reason"], len(found[4]["topic"])) == ("invalid_id", 513)
    for field in schema("dead-letter")["properties"]:
        assert f"\n| `{field}` | " in part("Dead letters", TOPICS)


def test_figures() -> None:
    """Each figure is in the table, and whether it is on by default."""
    texts = ENGLISH["entity"]["sensor"]
    expected = {}
    for description in MONITOR_SENSORS:
        name = texts[description.key]["name"].partition(":")
        default = "on" if description.entity_registry_enabled_default else "off"
        expected[f"{name[0]}: …" if name[2] else name[0]] = default
    (rows,) = tables(part("Figures"))
    assert {row[0]: row[2] for row in rows} == expected


async def test_get_devices(garage: Garage) -> None:
    """The action answers with what the table says."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    await garage.tell(f"{DEVICE}/telemetry", {"door": True, "timestamp": moment()})
    answer = await garage.hass.services.async_call(
        DOMAIN, "get_devices", {}, blocking=True, return_response=True
    )
    assert answer is not None
    assert isinstance(answer["devices"], list)
    (found,) = answer["devices"]
    assert isinstance(found, dict)
    text = (DOCS / "delivery.md").read_text(encoding="utf-8")
    ((*rows,),) = tables(part("Actions", text))
    assert found.keys() == {code for row in rows for code in codes(row[0])}
    last_seen = found.pop("last_seen")
    assert isinstance(last_seen, str)
    assert last_seen.endswith("Z")
    assert found == {
        "device": DEVICE,
        "name": DEVICE,
        "address": "192.168.1.100",
        "model": None,
        "monitor": "Garage",
        "present": True,
        "values": {"door": True, "relay_0": True},
    }


async def test_retry(garage: Garage) -> None:
    """What could not be understood for one reason is read once more, and only that."""
    await garage.start({"max_devices": 1})
    await garage.tell("one/telemetry", telemetry("one"))
    for letter in (telemetry("two"), b"nonsense", b"[" * 20_000):
        await garage.tell("two/telemetry", letter)

    async def retry(**data: Any) -> Any:
        return await garage.hass.services.async_call(
            DOMAIN, "retry_dead_letters", data, blocking=True, return_response=True
        )

    before = garage.judged
    assert await retry(reason="too_many_devices") == {"published": 1, "kept": 0}
    await wait_until(lambda: garage.judged == before + 1)
    await garage.change(max_devices=2)
    assert await retry(reason="too_many_devices") == {"published": 1, "kept": 0}
    await wait_until(lambda: garage.device("two") is not None)
    assert await retry() == {"published": 1, "kept": 1}


def test_recorder() -> None:
    """The recorder takes the settings that are shown."""
    (block,) = blocks(part("History and statistics"), "yaml")
    RECORDER_SCHEMA(parse_yaml(block))


# --- links ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["monitors.md", "delivery.md", "topics.md", "alerts.md", "metrics.md"]
)
def test_links(page: str) -> None:
    """Each link between the pages leads to a heading that is there."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        target = (DOCS / path) if path else DOCS / page
        assert target.exists(), path
        if anchor:
            headings = re.findall(
                r"^##* (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE
            )
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in headings
            }, f"{path}#{anchor}"
