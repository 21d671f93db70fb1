"""Several scanners, late copies, button presses: each thing that is said is told once."""

from collections.abc import Callable, Sequence

from homeassistant.const import EVENT_STATE_CHANGED, STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import Event, EventStateChangedData, callback
import pytest

from scripts.simulation.subscriber import Subscriber

from ..conftest import SimulatedScanner
from ..layouts.samples import validated
from .home import ADDRESS, BALCONY, FIELDS, VALUES, Home, bthome

type AddScanner = Callable[..., SimulatedScanner]


@pytest.fixture(name="scanners")
def scanners_fixture(
    scanner: SimulatedScanner, attic: SimulatedScanner, cellar: SimulatedScanner
) -> list[SimulatedScanner]:
    """Return three scanners."""
    return [scanner, attic, cellar]


def values(home: Home, field: str = "temperature") -> list[float]:
    """Return the readings of a field, as both layouts have them."""
    plain = [float(m.payload) for m in home.subscriber.on_topic(f"{VALUES}/{field}")]
    assert [m["value"] for m in home.payloads(f"{FIELDS}/v/{field}")] == plain
    return plain


async def test_one_reading(home: Home, scanners: list[SimulatedScanner]) -> None:
    """What three scanners hear, again and again, is one reading each."""
    await home.start(BALCONY)
    for temperature in (21.5, 22, 22.5):
        for _ in range(4):
            for scanner in scanners:
                home.hear(bthome(temperature=temperature), scanner=scanner)
        await home.until("temperature", str(float(temperature)))
    await home.settle()
    assert values(home) == [21.5, 22, 22.5]
    # Each packet of each scanner is one advertisement.
    raw = [m for m in home.messages("ble/raw/") if m.topic.endswith(ADDRESS)]
    assert len(raw) == 36
    # Each reading has the signal strength of that one packet.
    assert len(home.payloads(f"{FIELDS}/v/rssi")) == 3
    assert len(home.payloads(f"{VALUES}/rssi")) == 3
    assert len(home.payloads("iiot/signal/rssi")) == 3


async def test_as_the_specifications_say(home: Home) -> None:
    """Topics, payloads, QoS and what is retained."""
    await home.start(BALCONY)
    home.hear(bthome(battery=93, temperature=21.5, door=True, text="ä/+#"), rssi=-61)
    await home.until("temperature", "21.5")
    await home.settle()
    said = {
        "battery": b"93",
        "temperature": b"21.5",
        "door": b"true",
        "rssi": b"-61",
    }
    for field, value in said.items():
        (message,) = home.subscriber.on_topic(f"{FIELDS}/v/{field}")
        assert message.payload == b'{"value":%b}' % value
        (message,) = home.subscriber.on_topic(f"{VALUES}/{field}")
        assert message.payload == value
    assert home.subscriber.on_topic(f"{VALUES}/text")[0].payload == "ä/+#".encode()
    assert home.payloads(f"{FIELDS}/v/text") == [{"value": "ä/+#"}]
    for message in home.messages(f"{FIELDS}/v/"):
        validated(message.payload, "reading")
    assert set(await home.kept()) == {
        f"{VALUES}/{field}" for field in ("battery", "temperature", "door", "text")
    }


@pytest.mark.parametrize(
    ("kind", "delivery"),
    [
        ("reading", "0"),
        ("reading", "2_retain"),
        ("connectivity", "1_retain"),
        ("alert", "2"),
        ("alert", "1_retain"),
    ],
)
async def test_delivery(home: Home, kind: str, delivery: str) -> None:
    """QoS and retain are set for each kind of record; an event is never retained."""
    rule = {"rule_id": "w", "name": "Warm", "kind": "above", "field": "temperature"}
    await home.start(
        {**BALCONY, "alerts": [{**rule, "limit": 20}]}, fields={kind: delivery}
    )
    async with Subscriber(home.broker.port, "telemetry/#", qos=2) as exact:
        home.hear(bthome(temperature=21.5, button=1))
        await home.until("temperature", "21.5")
        await exact.wait_for_message(f"{FIELDS}/alerts/Warm/history")
        await home.settle()
        await exact.wait_for(lambda s: s.count() == 6)
        topics = {
            "reading": {
                f"{FIELDS}/v/{name}" for name in ("temperature", "button", "rssi")
            },
            "connectivity": {f"{FIELDS}/connectivity"},
            "alert": {
                f"{FIELDS}/alerts/Warm/{name}" for name in ("current", "history")
            },
        }
        assert {m.topic for m in exact.messages} == set.union(*topics.values())
        qos = {"reading": 0, "connectivity": 0, "alert": 1, kind: int(delivery[0])}
        for name, names in topics.items():
            said = {m.qos for m in exact.messages if m.topic in names}
            assert said == {qos[name]}
    states = {
        "reading": {f"{FIELDS}/v/temperature"},
        "connectivity": {f"{FIELDS}/connectivity"},
        "alert": {f"{FIELDS}/alerts/Warm/current"},
    }
    kept = set(await home.kept("telemetry/#"))
    assert kept == (states[kind] if delivery.endswith("_retain") else set())


async def test_late_copies(home: Home, scanners: list[SimulatedScanner]) -> None:
    """What comes over a slow way makes no reading, and no state goes back."""
    await home.start(BALCONY)
    near, slow, slower = scanners
    home.hear(bthome(temperature=21), scanner=near, age=10)
    await home.until("temperature", "21.0")
    home.hear(bthome(temperature=22), scanner=near, age=8)
    with home.changes() as changes:
        home.hear(bthome(temperature=21), scanner=slow, age=7)
        home.hear(bthome(temperature=23), scanner=near, age=6)
        home.hear(bthome(temperature=21), scanner=slower, age=5)
        home.hear(bthome(temperature=22), scanner=slow, age=4)
        home.hear(bthome(temperature=22), scanner=slower, age=3)
        home.hear(bthome(temperature=23), scanner=slow, age=2)
        await home.settle()
        entity_id = home.entity_id("temperature")
        assert [value for entity, value in changes if entity == entity_id] == [
            "22.0",
            "23.0",
        ] or [value for entity, value in changes if entity == entity_id] == ["23.0"]
    assert home.value("temperature") == "23.0"
    assert values(home) == [21, 22, 23]


async def test_a_value_that_comes_back(
    home: Home, scanners: list[SimulatedScanner]
) -> None:
    """A door that opens and closes is told of each time, at once."""
    await home.start(BALCONY)
    near, far, _ = scanners
    expected = []
    for age in range(10, 0, -1):
        door = age % 2 == 0
        home.hear(bthome(door=door), scanner=near, age=age)
        home.hear(bthome(door=door), scanner=far, age=age - 0.2)
        await home.until("door", "on" if door else "off")
        expected.append({"value": door})
    await home.settle()
    assert home.payloads(f"{FIELDS}/v/door") == expected


async def test_a_value_that_comes_back_through_another_scanner(
    home: Home, scanners: list[SimulatedScanner]
) -> None:
    """What still comes when no copy can be that late is what the device says now."""
    await home.start(BALCONY)
    near, far, _ = scanners
    home.hear(bthome(temperature=21), scanner=near, age=30)
    await home.until("temperature", "21.0")
    home.hear(bthome(temperature=22), scanner=near, age=29)
    home.hear(bthome(temperature=21), scanner=far, age=28)
    home.hear(bthome(temperature=21), scanner=far, age=20)
    await home.settle()
    assert home.value("temperature") == "22.0"
    home.hear(bthome(temperature=21), scanner=far, age=5)
    await home.settle()
    assert home.value("temperature") == "21.0"
    assert values(home) == [21, 22, 21]


async def test_packets_with_an_id(home: Home, scanners: list[SimulatedScanner]) -> None:
    """The packet's own counter tells what is old, however many scanners there are."""
    await home.start(BALCONY)
    far = scanners[1]
    for number, temperature in ((254, 20), (255, 21), (0, 22), (1, 21)):
        packet = bthome(packet_id=number, temperature=temperature)
        for scanner in scanners:
            home.hear(packet, scanner=scanner)
        await home.until("temperature", f"{temperature}.0")
    # What was said before comes late, over scanners that had not brought it.
    for number, temperature in ((255, 21), (0, 22), (254, 19)):
        packet = bthome(packet_id=number, temperature=temperature)
        home.hear(packet, scanner=far)
    await home.settle()
    assert values(home) == [20, 21, 22, 21]
    assert home.value("temperature") == "21.0"


# --- what happens -----------------------------------------------------------------------


def presses(home: Home, name: str = "button") -> Sequence[str]:
    """Return the presses that were published, as both layouts have them."""
    plain = [m.payload.decode() for m in home.subscriber.on_topic(f"{VALUES}/{name}")]
    assert [m["value"] for m in home.payloads(f"{FIELDS}/v/{name}")] == plain
    return plain


async def test_buttons(home: Home, scanners: list[SimulatedScanner]) -> None:
    """Each press is one change of the event's state, and one message."""
    await home.start(BALCONY)
    near, far, farther = scanners
    home.hear(bthome(packet_id=1, button=1), scanner=near)
    await home.subscriber.wait_for_message(f"{VALUES}/button")
    await home.hass.async_block_till_done()
    entity_id = home.entity_id("button")
    # A further press, the same press over others, the first one again, and a third.
    with home.changes() as changes:
        home.hear(bthome(packet_id=2, button=1), scanner=near)
        home.hear(bthome(packet_id=2, button=1), scanner=far)
        home.hear(bthome(packet_id=1, button=1), scanner=farther)
        home.hear(bthome(packet_id=2, button=1), scanner=near)
        home.hear(bthome(packet_id=3, button=2), scanner=far)
        home.hear(bthome(packet_id=3, button=2), scanner=near)
        await home.settle()
        states = [value for entity, value in changes if entity == entity_id]
    assert len(states) == 2
    assert states == sorted(states)  # Moments
    assert presses(home) == ["press", "press", "double_press"]
    state = home.state("button")
    assert state
    assert state.attributes["event_type"] == "double_press"
    assert state.attributes["device_class"] == "button"
    assert f"{VALUES}/button" not in await home.kept()


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ((5, 4, 3), ["press"]),  # It repeats the packet
        ((5, (4, False), 3), ["press", "press"]),  # Released meanwhile
        ((5, (4.9, False), 4.8), ["press"]),  # A packet that had been under way
    ],
)
async def test_a_button_without_an_id(
    home: Home,
    scanners: list[SimulatedScanner],
    ages: tuple[float | tuple[float, bool], ...],
    expected: list[str],
) -> None:
    """A press that is said again is another one if something else was said for long."""
    await home.start(BALCONY)
    for age in ages:
        pressed = not isinstance(age, tuple)
        for scanner in scanners[:2]:
            home.hear(
                bthome(button=1 if pressed else 0),
                scanner=scanner,
                age=age[0] if isinstance(age, tuple) else age,
            )
        await home.settle()
    await home.subscriber.wait_for_message(f"{VALUES}/button")
    await home.settle()
    assert presses(home) == expected


async def test_the_first_press(home: Home) -> None:
    """It is not lost, though its library is not loaded and its entity not made yet."""
    await home.start(BALCONY)
    home.hear(bthome(packet_id=1, button=1))
    home.hear(bthome(packet_id=1, button=1, name="Switch"))
    await home.subscriber.wait_for_message(f"{VALUES}/button", b"press")
    home.hear(bthome(packet_id=2, button=4))
    await home.settle()
    assert presses(home) == ["press", "long_press"]
    assert home.value("button") not in (None, STATE_UNKNOWN)


async def test_no_press_after_a_restart(home: Home) -> None:
    """A press that a device goes on to tell of is not one of now."""
    await home.start(BALCONY)
    packet = bthome(packet_id=1, button=1)
    home.hear(packet)
    await home.subscriber.wait_for_message(f"{VALUES}/button")
    await home.settle()
    pressed = home.value("button")
    await home.restart()
    for _ in range(3):
        home.hear(packet)
    await home.settle()
    assert home.value("button") == pressed
    assert presses(home) == ["press"]


async def test_a_press_while_the_bridge_is_down(home: Home) -> None:
    """It is told when the bridge is back, if it is what was said last."""
    await home.start(BALCONY)
    home.hear(bthome(packet_id=1, button=1))
    await home.subscriber.wait_for_message(f"{VALUES}/button")
    await home.settle()
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    home.hear(bthome(packet_id=2, button=2, temperature=21.5), age=-0.1)
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.until("temperature", "21.5")
    state = home.state("button")
    assert state
    assert state.attributes["event_type"] == "double_press"


async def test_no_press_when_it_is_added(home: Home) -> None:
    """A press that was before the device was added is not one of now."""
    await home.start()
    home.hear(bthome(packet_id=1, temperature=21.5, button=1), age=60)
    await home.add(BALCONY)
    await home.until("temperature", "21.5")
    await home.settle()
    assert presses(home) == []


async def test_two_buttons(home: Home) -> None:
    """Each has an event of its own, of which only the one that was pressed changes."""
    await home.start(BALCONY)
    raw = bthome(packet_id=1, button=0)[:-1]
    raw = bytes([*raw[:3], raw[3] + 2, *raw[4:], 0, 0x3A, 1])
    home.hear(raw)
    await home.subscriber.wait_for_message(f"{VALUES}/button_2", b"press")
    await home.settle()
    assert presses(home) == []
    assert presses(home, "button_2") == ["press"]
    state = home.state("button_2")
    assert state
    assert state.attributes["friendly_name"].endswith("2")


async def test_new_field_while_unloading(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """A field that is heard first while the bridge is reloaded is there afterwards."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=20))
    await home.until("temperature", "20.0")

    @callback
    def on_change(event: Event[EventStateChangedData]) -> None:
        if event.data["entity_id"] == home.entity_id("temperature"):
            home.hear(bthome(temperature=20, humidity=50, door=True))

    unsubscribe = home.hass.bus.async_listen(EVENT_STATE_CHANGED, on_change)
    assert await home.hass.config_entries.async_unload(home.entry.entry_id)
    unsubscribe()
    assert home.value("humidity") in (None, STATE_UNAVAILABLE)
    assert await home.hass.config_entries.async_setup(home.entry.entry_id)
    await home.connected()
    home.hear(bthome(temperature=20, humidity=51, door=False))
    await home.until("humidity", "51.0")
    await home.until("door", "off")
    assert "already exists" not in caplog.text
