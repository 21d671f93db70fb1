"""How a sensor shows a field, whatever device it is of."""

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorStateClass,
)
from homeassistant.const import MAX_LENGTH_STATE_STATE, UnitOfElectricPotential
from homeassistant.helpers.typing import StateType
import orjson

from .decoders.fields import Field, Kind
from .records import Value


def describe(sensor: SensorEntity, field: Field) -> None:
    """Give a sensor the classes and the unit of its field."""
    if field.device_class is not None:
        sensor._attr_device_class = SensorDeviceClass(field.device_class)  # noqa: SLF001
    if field.state_class is not None:
        sensor._attr_state_class = SensorStateClass(field.state_class)  # noqa: SLF001
    sensor._attr_native_unit_of_measurement = field.unit  # noqa: SLF001
    if field.unit == UnitOfElectricPotential.VOLT:
        # Home Assistant shows volts without digits, as of mains: 3.28 V as 3 V
        sensor._attr_suggested_display_precision = 2  # noqa: SLF001


def shown(field: Field, value: Value | None) -> StateType:
    """Return a value as far as a state can be it."""
    if field.kind is Kind.NUMBER:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        return None
    if isinstance(value, str) or value is None:
        return value if value is None else value[:MAX_LENGTH_STATE_STATE]
    return orjson.dumps(value).decode()[:MAX_LENGTH_STATE_STATE]
