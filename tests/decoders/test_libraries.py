"""What the libraries make of published frames, under our names and in our units."""

from collections import Counter
import contextlib
import importlib
import json
import logging
from typing import Any

from bluetooth_data_tools import parse_advertisement_data_bytes
from bthome_ble.const import MEAS_TYPES
from bthome_ble.event import EventDeviceKeys as BTHomeEvent
from habluetooth import BluetoothServiceInfoBleak
from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.event import EventDeviceClass
from homeassistant.components.sensor import SensorDeviceClass, SensorStateClass
from homeassistant.components.sensor.const import (
    DEVICE_CLASS_STATE_CLASSES,
    DEVICE_CLASS_UNITS,
)
from oralb_ble.parser import OralBSensor
import pytest
from ruuvitag_ble import RuuvitagBluetoothDeviceData
from sensor_state_data import SensorLibrary
from sensor_state_data.binary_sensor.device_class import (
    BinarySensorDeviceClass as LibraryBoolean,
)
from xiaomi_ble.const import ExtendedBinarySensorDeviceClass, ExtendedSensorDeviceClass
from xiaomi_ble.events import EventDeviceKeys as XiaomiEvent

from custom_components.ble_bridge.decoders.fields import FIELDS, Kind, known_field
from custom_components.ble_bridge.decoders.model import (
    DecodeError,
    KeyMissing,
    KeyWrong,
)
from custom_components.ble_bridge.decoders.names import (
    DROPPED,
    boolean_name,
    clean,
    event_name,
    value_name,
)
from custom_components.ble_bridge.decoders.sources import LIBRARIES, SOURCES

from .packets import DEMO, Frame, frames, key_of, loaded, of_frame, packet

ENCRYPTED = [frame for frame in frames() if "key" in frame]
# What the libraries of the simulated home decode; the other kinds are formats or beacons.
DEMO_FRAMES = [
    frame
    for frame in map(json.loads, DEMO.read_text(encoding="utf-8").splitlines())
    if frame["expect"]
    and frame["kind"] not in ("atc", "eddystone", "ibeacon", "phone", "smartdry")
]


# What the origins of those frames call a field.
OTHER_NAMES = {
    "calibration": "calibrated",
    "contact_open": "opening",
    "contact_timeout": "door_left_open",
    "is_light": "light",
    "leak": "moisture_detected",
    "low_battery": "battery_low",
    "measurement_sequence": "",  # The packet's counter, which is no value
    "motion_detected": "motion",
    "movement_counter": "movements",
    "tampered": "tamper",
    "temperature_probe_1": "temperature",
    **{
        f"temperature_probe_{number}": f"temperature_{number}" for number in range(2, 7)
    },
}
# qingping-ble gives no brightness with motion, for it is none, and reads a door from one
# kind of object only.
LEFT_OUT = [
    ("qingping", "illuminance", 301),
    ("qingping", "illuminance", 13),
    ("qingping", "door", False),
]


def title(frame: Any) -> str:
    """Return what a case is called."""
    return f"{frame.get('source') or frame['kind']}-{frame.get('model')}"


@pytest.mark.parametrize("frame", frames(), ids=title)
def test_frame(frame: Frame) -> None:
    """A published frame says what it was published to say, and nothing else."""
    device = loaded().device(key_of(frame))
    decoded = device.decode(of_frame(frame))
    assert decoded is not None
    assert device.source is SOURCES[frame["source"]]
    assert not device.pending
    assert decoded.values == pytest.approx(frame["values"])
    assert decoded.events == frame.get("events", {})
    assert decoded.model == frame["model"]
    assert decoded.manufacturer == frame.get("manufacturer")
    assert device.encryption == ("ok" if "key" in frame else "none")
    counter = device.counter(of_frame(frame))
    assert counter == (tuple(frame["counter"]) if "counter" in frame else None)
    for name, value in decoded.values.items():
        assert known_field(name) or isinstance(value, bool), name
    for name in decoded.events:
        found = known_field(name)
        assert found, name
        assert found[0].kind is Kind.EVENT


def test_every_library_has_frames() -> None:
    """No library goes unseen."""
    counted = Counter(frame["source"] for frame in frames())
    assert set(counted) == {source.name for source in LIBRARIES}
    assert min(counted.values()) >= 2


@pytest.mark.parametrize("frame", DEMO_FRAMES, ids=title)
def test_frame_of_the_simulated_home(frame: dict[str, Any]) -> None:
    """What the frames of the demo were published with is what is decoded."""
    key = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
    advertisement = packet(
        raw=bytes.fromhex(frame["data"]),
        name=frame["name"] or "",
        address=frame["address"],
        service_uuids=parse_advertisement_data_bytes(bytes.fromhex(frame["data"]))[1],
    )
    device = loaded().device(key if frame["device"] == "bthome-cellar" else None)
    decoded = device.decode(advertisement)
    assert decoded is not None
    said = {**decoded.values, **decoded.events}
    for name, value in frame["expect"].items():
        name = OTHER_NAMES.get(name, name)
        if name and (frame["kind"], name, value) not in LEFT_OUT:
            assert said[name] == pytest.approx(value, abs=0.006), name


@pytest.mark.parametrize("frame", ENCRYPTED, ids=title)
def test_key(frame: Frame) -> None:
    """No key, a wrong one, one of the wrong length: each is told, and the right one too."""
    advertisement = of_frame(frame)
    key = key_of(frame)
    assert key
    decoders = loaded()
    device = decoders.device()
    with pytest.raises(KeyMissing):
        device.decode(advertisement)
    assert device.encryption == "key_missing"
    assert device.source is SOURCES[frame["source"]]
    wrong = bytes(byte ^ 0x5A for byte in key)
    for other in (
        wrong,
        b"",
        b"1",
        key + b"1",
        key[:12] if len(key) == 16 else key * 2,
    ):
        device = decoders.device(other)
        with pytest.raises(KeyWrong):
            device.decode(advertisement)
        assert device.encryption == "key_wrong"
        assert decoders.check_key(advertisement, other) == "key_wrong"
    assert decoders.check_key(advertisement, key) == "ok"


def test_encrypted_libraries_are_tested() -> None:
    """Each library that knows keys has frames with keys, of each length."""
    seen = {(frame["source"], len(frame["key"]) // 2) for frame in ENCRYPTED}
    assert seen == {
        (source.name, length) for source in LIBRARIES for length in source.key_lengths
    }


def test_values_are_those_of_one_packet() -> None:
    """The libraries return what they said before, too; we do not."""
    device = loaded().device()
    first = device.decode(packet({}, {"fcd2": bytes.fromhex("4002ca09")}))
    second = device.decode(packet({}, {"fcd2": bytes.fromhex("4003bf13")}))
    third = device.decode(packet({}, {"fcd2": bytes.fromhex("401a01")}))
    fourth = device.decode(packet({}, {"fcd2": bytes.fromhex("403a01")}))
    assert first is not None
    assert first.values == {"temperature": 25.06}
    assert second is not None
    assert second.values == {"humidity": 50.55}
    assert third is not None
    assert third.values == {"door": True}
    assert fourth is not None
    assert fourth.values == {}
    assert fourth.events == {"button": "press"}


def test_library_returns_what_it_keeps() -> None:
    """That is why it can be cleared; a library that copies would say old values anew."""
    parser = RuuvitagBluetoothDeviceData()
    frame = next(frame for frame in frames() if frame["source"] == "ruuvitag-ble")
    update = parser.update(of_frame(frame))
    assert parser.update(of_frame(frame)).entity_values is update.entity_values
    assert parser.update(of_frame(frame)).binary_entity_values is (
        update.binary_entity_values
    )


def test_key_of_a_device_that_does_not_encrypt() -> None:
    """A packet that is not encrypted has nothing to check a key against."""
    advertisement = packet({}, {"fcd2": bytes.fromhex("4002ca09")})
    assert loaded().check_key(advertisement, bytes(16)) == "none"
    assert loaded().check_key(packet(), bytes(16)) == "none"


SENSOR_KEYS = {
    *(
        str(description.device_class)
        for description in vars(SensorLibrary).values()
        if hasattr(description, "native_unit_of_measurement")
    ),
    *(key.value for key in ExtendedSensorDeviceClass),
    *(key.value for key in importlib.import_module("victron_ble_ha_parser").Keys),
} - {
    # Of no device yet, or decoded under a name that its library alone gives it.
    *("keg_type", "port_name", "port_state", "port_count", "ac_out_state"),
    *DROPPED,
}


def test_keys_have_fields() -> None:
    """Each key that a library can give is a field that we know."""
    for key in SENSOR_KEYS:
        assert known_field(value_name(key)), key
    for measurement in MEAS_TYPES.values():
        described: Any = measurement.meas_format
        if isinstance(described, BTHomeEvent):
            assert known_field(event_name(described)) or described == "switch"
        elif hasattr(described, "native_unit_of_measurement"):
            assert known_field(value_name(str(described.device_class)))
        else:
            assert known_field(boolean_name(str(described.device_class)))
    for boolean in (*ExtendedBinarySensorDeviceClass, *LibraryBoolean):
        if boolean.value != "update":
            found = known_field(boolean_name(boolean.value))
            assert found, boolean
            assert found[0].kind is Kind.BOOLEAN
    for event in XiaomiEvent:
        found = known_field(event_name(event.value))
        assert found, event
        assert found[0].kind is Kind.EVENT
    oralb = SOURCES["oralb-ble"].make
    for sensor in OralBSensor:
        name = getattr(oralb, "names").get(sensor.value)  # noqa: B009
        assert known_field(name or value_name(sensor.value)) or sensor in DROPPED


def test_units_are_converted() -> None:
    """Each unit in which a library gives a value can be made the field's."""
    described: list[Any] = [
        *(measurement.meas_format for measurement in MEAS_TYPES.values()),
        *vars(SensorLibrary).values(),
    ]
    for description in described:
        if not (unit := getattr(description, "native_unit_of_measurement", None)):
            continue
        name = value_name(str(description.device_class))
        if description.device_class not in DROPPED:
            assert clean(name, 1.0, unit) is not None, (name, unit)


@pytest.mark.parametrize(
    ("name", "raw", "unit", "value"),
    [
        ("voltage", 2395, "mV", 2.395),
        ("energy", 30, "Wh", 0.03),
        ("power", 1.5, "kW", 1500),
        ("pressure", 101325, "Pa", 1013.25),
        ("pressure", 1.0, "bar", 1000),
        ("temperature", 64.0, "°F", 17.778),
        ("temperature", 21.399999618530273, "°C", 21.4),
        ("temperature", 293.15, "K", 20.0),
        ("volume", 750, "mL", 0.75),
        ("formaldehyde", 30, "µg/m³", 0.03),
        ("volatile_organic_compounds", 350, "µg/m³", 350),
        ("impedance", 499.2, "ohm", 499.2),
        ("mass", 10, "lb", 4.5359),
        ("temperature", "error", "°C", None),
        ("temperature", float("nan"), "°C", None),
        ("temperature", float("inf"), None, None),
        ("temperature", 5, "gal", None),
        ("temperature", True, None, None),
        ("door", 1, None, True),
        ("door", "open", None, None),
        ("text", "", None, None),
        ("mode", 3, None, "3"),
        ("new_thing", 3, "V", 3),
        ("new_thing", "on", None, "on"),
        ("new_thing", False, None, False),
        ("new_thing", b"1", None, None),
        ("new_thing", None, None, None),
    ],
)
def test_clean(name: str, raw: object, unit: str | None, value: object) -> None:
    """A value is one that its field can have, in the field's unit, or there is none."""
    cleaned = clean(name, raw, unit)
    assert cleaned == value
    assert type(cleaned) is type(value) or isinstance(cleaned, float)


@pytest.mark.parametrize(
    ("key", "device_id", "name"),
    [
        ("temperature", None, "temperature"),
        ("temperature_1", None, "temperature"),
        ("temperature_2", None, "temperature_2"),
        ("temperature_probe_4", None, "temperature_4"),
        ("temperature", "remote", "temperature_2"),
        ("temperature", "primary", "temperature"),
        ("keg_size_port_2", "port 2", "keg_size_2"),
        ("cell_3_voltage", None, "cell_voltage_3"),
        ("output_voltage_1", None, "output_voltage"),
        ("pm25", None, "pm25"),
        ("temperature_300", None, "temperature_99"),
        ("Some new Thing!", None, "some_new_thing"),
        ("someNewThing", None, "some_new_thing"),
        ("☃", None, "value"),
    ],
)
def test_value_name(key: str, device_id: str | None, name: str) -> None:
    """A name is in snake case, and what there is more of has numbers."""
    assert value_name(key, device_id) == name


@pytest.mark.parametrize(
    ("key", "first", "name"),
    [
        ("button", 1, "button"),
        ("button_1", 1, "button"),
        ("button_4", 1, "button_4"),
        ("button_0", 0, "button"),
        ("button_5", 0, "button_6"),
        ("button_255", 0, "button_99"),
        ("button_left", 1, "button_left"),
        ("button_timer_30_minutes", 1, "button_timer_30_minutes"),
        ("motion", 1, "motion_event"),
    ],
)
def test_event_name(key: str, first: int, name: str) -> None:
    """Buttons are counted from the first on, whatever the library begins with."""
    assert event_name(key, first) == name
    assert known_field(name)


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_field_is_legal(field: Any) -> None:
    """Home Assistant takes unit, device class and state class together."""
    if field.kind is Kind.BOOLEAN:
        assert field.unit is field.state_class is None
        assert not field.device_class or BinarySensorDeviceClass(field.device_class)
    elif field.kind is Kind.EVENT:
        assert field.unit is field.state_class is None
        assert not field.device_class or EventDeviceClass(field.device_class)
    elif field.kind is Kind.TEXT:
        assert field.unit is field.device_class is field.state_class is None
    else:
        assert not field.state_class or SensorStateClass(field.state_class)
        if field.device_class:
            device_class = SensorDeviceClass(field.device_class)
            assert field.unit in DEVICE_CLASS_UNITS[device_class]
            if field.state_class:
                assert field.state_class in DEVICE_CLASS_STATE_CLASSES[device_class]


@pytest.mark.parametrize(
    "advertisement",
    [
        packet({}, {"fcd2": bytes.fromhex("e102ca09")}),  # Version 7
        packet({}, {"fcd2": bytes.fromhex("4003bf1302ca09")}),  # Out of order
        packet({}, {"fcd2": bytes.fromhex("405302ff80")}),  # No UTF-8
        packet({}, {"fe95": bytes.fromhex("50505b0501483cd43848c1a40a1001")}),
        packet({0x02E1: bytes.fromhex("100289a302b040")}),
        packet({0x0958: b"", 2409: bytes(20)}, {"fd3d": b"c\xc0"}),
    ],
)
def test_packets_are_not_logged(
    advertisement: BluetoothServiceInfoBleak, caplog: pytest.LogCaptureFixture
) -> None:
    """A device cannot fill the log, whatever it sends; who debugs sees it all."""
    with caplog.at_level(logging.INFO):
        for key in (None, bytes(16)):
            device = loaded().device(key)
            for _ in range(3):
                with contextlib.suppress(DecodeError):
                    device.decode(advertisement)
        assert not caplog.records


def test_others_may_log(caplog: pytest.LogCaptureFixture) -> None:
    """What a library logs for others stays, and so does what is for debugging."""
    loaded()
    logging.getLogger("bthome_ble.parser").warning("something else")
    assert caplog.messages == ["something else"]
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "bthome_ble.parser"):
        loaded().device().decode(packet({}, {"fcd2": bytes.fromhex("4002ca09")}))
    assert caplog.records
