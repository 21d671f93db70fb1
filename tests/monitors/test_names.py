"""What the name of a value tells of its unit, and what it does not."""

import pytest

from custom_components.ble_bridge.monitors.names import field_of


@pytest.mark.parametrize(
    ("name", "unit", "device_class"),
    [
        ("temp_c", "°C", "temperature"),
        ("boiler_temperature_f", "°F", "temperature"),
        ("motor_current_a", "A", "current"),
        ("volume_l", "L", "volume_storage"),
        ("rain_tank_volume_l", "L", "volume_storage"),
        ("load_weight_g", "g", "weight"),
        ("pump_pressure_bar", "bar", "pressure"),
        ("battery_v", "V", "voltage"),
        ("air_pressure", "hPa", "atmospheric_pressure"),
        ("water_temp", "°C", "temperature"),
    ],
)
def test_told(name: str, unit: str, device_class: str) -> None:
    """A unit is told by the end of a name, and by what the name says is measured."""
    field = field_of(name, 1.5)
    assert (field.name, field.unit, field.device_class) == (name, unit, device_class)


@pytest.mark.parametrize(
    "name",
    ["zone_c", "phase_a", "motor_l", "accel_g", "uptime_m", "input_f", "oil_pressure"],
)
def test_not_told(name: str) -> None:
    """A letter that numbers something is no unit, nor is a pressure always that of air."""
    field = field_of(name, 1.5)
    assert (field.name, field.unit, field.device_class) == (name, None, None)
