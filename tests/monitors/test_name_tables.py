"""What the name of a value tells: units and classes that Home Assistant accepts."""

from collections.abc import Iterator
from itertools import batched
import logging

from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.sensor import SensorDeviceClass, SensorStateClass
from homeassistant.components.sensor.const import (
    DEVICE_CLASS_STATE_CLASSES,
    DEVICE_CLASS_UNITS,
    NON_NUMERIC_DEVICE_CLASSES,
)
from hypothesis import given, settings, strategies as st
import pytest

from custom_components.ble_bridge.decoders.fields import FIELDS, Field, Kind
from custom_components.ble_bridge.monitors import names
from custom_components.ble_bridge.monitors.device import MAX_FIELDS
from custom_components.ble_bridge.monitors.messages import MAX_NAME, snake
from custom_components.ble_bridge.monitors.names import field_of
from custom_components.ble_bridge.records import Value

from .garage import Garage, moment


def all_names() -> Iterator[str]:
    """Yield a name for each entry of each table, alone and at the end of another."""
    yield from FIELDS
    for table in (names._COMMON, names._UNITS, names._ENDINGS, names._SHORT):
        for name in table:
            yield name
            yield f"pump_{name}"
            yield f"{name}_2"


NAMES = sorted(set(all_names()))


@pytest.mark.parametrize("name", NAMES)
def test_home_assistant_takes_it(name: str) -> None:
    """Whatever a name tells of a number is a combination that Home Assistant has."""
    field = field_of(name, 1.0)
    assert field.kind is Kind.NUMBER
    state_class = field.state_class and SensorStateClass(field.state_class)
    if field.device_class is not None:
        device_class = SensorDeviceClass(field.device_class)
        assert device_class not in NON_NUMERIC_DEVICE_CLASSES
        assert field.unit in DEVICE_CLASS_UNITS[device_class]
        if state_class is not None:
            assert state_class in DEVICE_CLASS_STATE_CLASSES[device_class]
    boolean = field_of(name, True)
    assert (boolean.kind, boolean.unit, boolean.state_class) == (
        *(Kind.BOOLEAN, None, None),
    )
    if boolean.device_class is not None:
        assert BinarySensorDeviceClass(boolean.device_class)
    text = field_of(name, "said")
    assert (text.kind, text.unit, text.device_class, text.state_class) == (
        *(Kind.TEXT, None, None, None),
    )


@pytest.mark.parametrize(
    ("name", "unit", "device_class", "state_class", "diagnostic"),
    [
        # Telemetry of specs/mqtt-monitor.md
        ("temperature", "°C", "temperature", "measurement", False),
        ("humidity", "%", "humidity", "measurement", False),
        ("voltage", "V", "voltage", "measurement", False),
        ("memory_free", "B", "data_size", "measurement", True),
        # Fields that devices have in common, also the second of its kind
        ("temperature_2", "°C", "temperature", "measurement", False),
        ("battery", "%", "battery", "measurement", True),
        ("uptime", "s", "duration", None, True),
        ("energy", "kWh", "energy", "total_increasing", False),
        # Of such systems
        ("cpu_load", "%", None, "measurement", True),
        ("boot_count", None, None, "total_increasing", True),
        ("signal_strength", "dBm", "signal_strength", "measurement", True),
        ("setpoint", "°C", "temperature", "measurement", False),
        ("rpm", "rpm", None, "measurement", False),
        # Units at the end
        ("pump_pressure_bar", "bar", "pressure", "measurement", False),
        ("water_temperature_f", "°F", "temperature", "measurement", False),
        ("total_wh", "Wh", "energy", "total_increasing", False),
        ("load_percent", "%", None, "measurement", False),
        ("motor_rpm", "rpm", None, "measurement", False),
        ("delay_ms", "ms", "duration", "measurement", False),
        # A unit alone is a name
        ("c", None, None, "measurement", False),
        ("bar", None, None, "measurement", False),
        # What it ends with
        ("water_temperature", "°C", "temperature", "measurement", False),
        ("cpu_temp", "°C", "temperature", "measurement", False),
        ("temp", "°C", "temperature", "measurement", False),
        ("hum", "%", "humidity", "measurement", False),
        ("room_co2", "ppm", "carbon_dioxide", "measurement", False),
        ("wifi_rssi", "dBm", "signal_strength", "measurement", True),
        ("router_rssi", "dBm", "signal_strength", "measurement", True),
        ("room_carbon_dioxide", "ppm", "carbon_dioxide", "measurement", False),
        ("main_energy", "kWh", "energy", "total_increasing", False),
        # What tells nothing
        ("temperature_gradient", None, None, "measurement", False),
        ("foo", None, None, "measurement", False),
        ("value", None, None, "measurement", False),
        ("mytemp", None, None, "measurement", False),
        # What is not a number, elsewhere
        ("door", None, None, "measurement", False),
        ("mode", None, None, "measurement", False),
        ("button", None, None, "measurement", False),
    ],
)
def test_numbers(
    name: str,
    unit: str | None,
    device_class: str | None,
    state_class: str | None,
    diagnostic: bool,
) -> None:
    """A number has the unit and the classes that its name tells."""
    field = field_of(name, 1)
    assert (field.unit, field.device_class, field.state_class) == (
        *(unit, device_class, state_class),
    )
    assert field.diagnostic is diagnostic
    assert field_of(name, 1.5) == field


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("door", True, FIELDS["door"]),
        ("door_2", False, FIELDS["door"]),
        ("pump", True, Field("pump", Kind.BOOLEAN, state_class=None)),
        ("temperature", True, Field("temperature", Kind.BOOLEAN, state_class=None)),
        ("mode", "eco", FIELDS["mode"]),
        ("door", "ajar", Field("door", Kind.TEXT, state_class=None)),
        ("temperature", "warm", Field("temperature", Kind.TEXT, state_class=None)),
        ("voltage_v", "low", Field("voltage_v", Kind.TEXT, state_class=None)),
    ],
)
def test_the_value_must_agree(name: str, value: Value, expected: Field) -> None:
    """A name tells nothing of what is no such value."""
    assert field_of(name, value) == expected


def test_names_are_as_messages_have_them() -> None:
    """No entry of a table is one that no message can reach."""
    assert [name for name in NAMES if snake(name) != name or len(name) > MAX_NAME] == []


@settings(deadline=None)
@given(st.text(), st.booleans() | st.integers() | st.floats() | st.text())
def test_any_name(name: str, value: Value) -> None:
    """Whatever a value is called and says, there is a field of its kind."""
    kind = field_of(snake(name), value).kind
    if isinstance(value, bool):
        assert kind is Kind.BOOLEAN
    else:
        assert kind is (Kind.TEXT if isinstance(value, str) else Kind.NUMBER)


@pytest.mark.parametrize(
    ("value", "shown"), [(1.5, None), (True, "on"), ("said", "said")], ids=str
)
async def test_in_home_assistant(
    garage: Garage,
    caplog: pytest.LogCaptureFixture,
    value: Value,
    shown: str | None,
) -> None:
    """A value of any known name becomes an entity that Home Assistant has nothing against."""
    await garage.start()
    for number, some in enumerate(batched(NAMES, MAX_FIELDS, strict=False)):
        device = f"ESP32_{number}"
        said = {**dict.fromkeys(some, value), "timestamp": moment()}
        await garage.tell(f"{device}/telemetry", said)
        for name in {*some} - {"timestamp"}:
            state = garage.value(f"field!{name}", device)
            assert state == shown if shown else float(str(state)), name
    loggers = ("homeassistant.components", "homeassistant.helpers", "custom_components")
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(loggers) and record.levelno >= logging.WARNING
    ] == []
