"""The names of what devices say, with their units.

A name does not change with the library or the format that a value comes from. What a device
has more than one of is numbered from the second on: `temperature`, `temperature_2`.

Units are those that Home Assistant uses, as it writes them.
"""

from dataclasses import dataclass
from enum import StrEnum
import functools
import re
from typing import Final

from ..records import Value

_NUMBERED: Final = re.compile(r"(.+?)_([2-9]|[1-9][0-9])")


class Kind(StrEnum):
    """What a value is."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Field:
    """One named value of a device.

    `device_class` and `state_class` are Home Assistant's, of a sensor for a number and of a
    binary sensor for a boolean. `diagnostic` is what tells of the device and not of the
    place that it is in.
    """

    name: str
    kind: Kind = Kind.NUMBER
    unit: str | None = None
    device_class: str | None = None
    state_class: str | None = "measurement"
    diagnostic: bool = False


def _number(
    name: str,
    unit: str | None = None,
    device_class: str | None = None,
    state_class: str | None = "measurement",
    *,
    diagnostic: bool = False,
) -> Field:
    return Field(name, Kind.NUMBER, unit, device_class, state_class, diagnostic)


def _boolean(
    name: str, device_class: str | None = None, *, diagnostic: bool = False
) -> Field:
    return Field(name, Kind.BOOLEAN, None, device_class, None, diagnostic)


def _text(name: str, *, diagnostic: bool = False) -> Field:
    return Field(name, Kind.TEXT, None, None, None, diagnostic)


def _event(name: str, device_class: str | None = None) -> Field:
    return Field(name, Kind.EVENT, None, device_class, None)


_TOTAL: Final = "total_increasing"
FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        # Climate and air
        _number("temperature", "°C", "temperature"),
        _number("humidity", "%", "humidity"),
        _number("dew_point", "°C", "temperature"),
        _number("pressure", "hPa", "atmospheric_pressure"),
        _number("carbon_dioxide", "ppm", "carbon_dioxide"),
        _number("carbon_monoxide", "ppm", "carbon_monoxide"),
        _number("formaldehyde", "mg/m³"),
        _number("nox_index"),
        _number("voc_index"),
        _number("volatile_organic_compounds", "μg/m³", "volatile_organic_compounds"),
        _number("pm1", "μg/m³", "pm1"),
        _number("pm25", "μg/m³", "pm25"),
        _number("pm4", "μg/m³", "pm4"),
        _number("pm10", "μg/m³", "pm10"),
        _number("aqi", None, "aqi"),
        _number("radon", "Bq/m³"),
        _number("radiation_rate", "μSv/h"),
        _number("radiation_total", "mSv", None, _TOTAL),
        _number("illuminance", "lx", "illuminance"),
        _number("uv_index", "UV index"),
        _number("sound_pressure", "dB", "sound_pressure"),
        _number("precipitation", "mm", "precipitation"),
        _number("wind_speed", "m/s", "wind_speed"),
        _number("direction", "°"),
        # Soil and water
        _number("moisture", "%", "moisture"),
        _number("conductivity", "μS/cm", "conductivity"),
        _number("ph", None, "ph"),
        _number("salinity", "ppm"),
        _number("total_dissolved_solids", "ppm"),
        _number("specific_gravity"),
        _number("specific_gravity_rate", "1/d"),
        # Power and energy
        _number("voltage", "V", "voltage"),
        _number("current", "A", "current"),
        _number("power", "W", "power"),
        _number("apparent_power", "VA", "apparent_power"),
        _number("energy", "kWh", "energy", _TOTAL),
        _number("energy_returned", "kWh", "energy", _TOTAL),
        _number("frequency", "Hz", "frequency"),
        _number("power_factor", "%", "power_factor"),
        # Motion and position
        _number("acceleration", "m/s²"),
        _number("acceleration_x", "m/s²"),
        _number("acceleration_y", "m/s²"),
        _number("acceleration_z", "m/s²"),
        _number("gyroscope", "°/s"),
        _number("rotation", "°"),
        _number("rotational_speed", "rpm"),
        _number("roll", "°"),
        _number("pitch", "°"),
        _number("speed", "m/s", "speed"),
        _number("distance", "m", "distance"),
        _number("position", "%"),
        _number("movements", None, None, _TOTAL),
        # Amounts
        _number("mass", "kg", "weight"),
        _number("mass_non_stabilized", "kg", "weight"),
        _number("impedance", "Ω"),
        _number("impedance_low", "Ω"),
        _number("heart_rate", "bpm"),
        _number("volume", "L", "volume_storage"),
        _number("volume_flow_rate", "m³/h", "volume_flow_rate"),
        _number("water", "L", "water", _TOTAL),
        _number("gas", "m³", "gas", _TOTAL),
        _number("count", None, None, None),
        _number("duration", "s", "duration"),
        _number("tank_level", "%"),
        _number("tank_level_height", "mm", "distance"),
        _number("tire_pressure", "kPa", "pressure"),
        # The device itself
        _number("battery", "%", "battery", diagnostic=True),
        _number("rssi", "dBm", "signal_strength", diagnostic=True),
        _number("tx_power", "dBm", "signal_strength", diagnostic=True),
        _number("packet_id", None, None, None, diagnostic=True),
        _boolean("battery_low", "battery", diagnostic=True),
        _boolean("battery_charging", "battery_charging", diagnostic=True),
        _boolean("problem", "problem", diagnostic=True),
        _text("firmware", diagnostic=True),
        # What is so, or is not
        _boolean("binary"),
        _boolean("carbon_monoxide_detected", "carbon_monoxide"),
        _boolean("cold", "cold"),
        _boolean("connected", "connectivity"),
        _boolean("door", "door"),
        _boolean("garage_door", "garage_door"),
        _boolean("gas_detected", "gas"),
        _boolean("heat", "heat"),
        _boolean("light", "light"),
        _boolean("lock", "lock"),
        _boolean("moisture_detected", "moisture"),
        _boolean("motion", "motion"),
        _boolean("moving", "moving"),
        _boolean("occupancy", "occupancy"),
        _boolean("opening", "opening"),
        _boolean("plug", "plug"),
        _boolean("power_on", "power"),
        _boolean("presence", "presence"),
        _boolean("running", "running"),
        _boolean("safety", "safety"),
        _boolean("smoke", "smoke"),
        _boolean("sound", "sound"),
        _boolean("tamper", "tamper"),
        _boolean("vibration", "vibration"),
        _boolean("window", "window"),
        # What is said
        _text("text"),
        _text("state"),
        _text("mode"),
        _text("timestamp"),
        _text("raw"),
        # Beacons
        _text("beacon_uuid", diagnostic=True),
        _number("beacon_major", None, None, None, diagnostic=True),
        _number("beacon_minor", None, None, None, diagnostic=True),
        _number("beacon_power", "dBm", "signal_strength", diagnostic=True),
        _text("eddystone_namespace", diagnostic=True),
        _text("eddystone_instance", diagnostic=True),
        _text("url"),
        _number("uptime", "s", "duration", None, diagnostic=True),
        _number("advertisement_count", None, None, _TOTAL, diagnostic=True),
        # What happens
        _event("button", "button"),
        _event("dimmer"),
        _event("motion_event", "motion"),
        _event("command"),
        _event("event"),
    )
}


def numbered(name: str, number: int) -> str:
    """Return the name of the second, third … value of its kind; the first has the name."""
    return name if number == 1 else f"{name}_{number}"


@functools.lru_cache(maxsize=1024)
def known_field(name: str) -> tuple[Field, int] | None:
    """Return the field of a name and which of its kind it is, or None if it is not known."""
    if found := FIELDS.get(name):
        return found, 1
    if (parts := _NUMBERED.fullmatch(name)) and (found := FIELDS.get(parts[1])):
        return found, int(parts[2])
    return None


def field_of(name: str, value: Value | None = None) -> Field:
    """Return the field of a name; one that is not known is described by its value."""
    if found := known_field(name):
        return found[0]
    if isinstance(value, bool):
        return Field(name, Kind.BOOLEAN, state_class=None)
    if isinstance(value, int | float):
        return Field(name)
    return Field(name, Kind.TEXT, state_class=None)
