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
# Buttons that have names, and no numbers: wall switches, and remote controls of lamps,
# fans and bathroom heaters.
_BUTTONS: Final = (
    *("left", "mid_left", "middle", "mid_right", "right", "on", "off", "stop"),
    *("brightness", "plus", "m", "min", "light", "color_temperature"),
    *("fan", "wind_speed", "wind_mode", "swing", "power", "heat", "dry"),
    *("increase_wind_speed", "decrease_wind_speed", "increase_speed"),
    *("decrease_speed", "air_exchange", "timer_30_minutes", "timer_60_minutes"),
)
FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        # Climate and air
        _number("temperature", "°C", "temperature"),
        _number("temperature_max", "°C", "temperature"),
        _number("temperature_min", "°C", "temperature"),
        _number("humidity", "%", "humidity"),
        _number("dew_point", "°C", "temperature"),
        _number("ambient_temperature", "°C", "temperature"),
        _number("target_temperature", "°C", "temperature"),
        _number("temperature_alarm", "°C", "temperature"),
        _number("temperature_alarm_low", "°C", "temperature"),
        _number("temperature_center", "°C", "temperature"),
        _number("temperature_end", "°C", "temperature"),
        _number("battery_temperature", "°C", "temperature"),
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
        _number("air_quality_score"),
        _text("aqi_level"),
        _number("target_humidity", "%", "humidity"),
        _number("light_level"),
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
        _number("water_level", "mm", "distance"),
        _number("specific_gravity"),
        _number("specific_gravity_rate", "1/d"),
        # Power and energy
        _number("voltage", "V", "voltage"),
        _number("ac_voltage", "V", "voltage"),
        _number("battery_voltage", "V", "voltage"),
        _number("cell_voltage", "V", "voltage"),
        _number("input_voltage", "V", "voltage"),
        _number("midpoint_voltage", "V", "voltage"),
        _number("output_voltage", "V", "voltage"),
        _number("starter_voltage", "V", "voltage"),
        _number("current", "A", "current"),
        _number("ac_current", "A", "current"),
        _number("battery_current", "A", "current"),
        _number("input_current", "A", "current"),
        _number("load_current", "A", "current"),
        _number("output_current", "A", "current"),
        _number("consumed_charge", "Ah"),
        _number("power", "W", "power"),
        _number("ac_in_power", "W", "power"),
        _number("ac_out_power", "W", "power"),
        _number("solar_power", "W", "power"),
        _number("apparent_power", "VA", "apparent_power"),
        _number("energy", "kWh", "energy", _TOTAL),
        _number("energy_returned", "kWh", "energy", _TOTAL),
        _number("energy_today", "kWh", "energy", _TOTAL),
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
        _number("tilt", "%"),
        _number("brightness", "%"),
        _number("speed_level"),
        _number("button_count", None, None, None),
        _number("accelerometer_x", diagnostic=True),
        _number("accelerometer_y", diagnostic=True),
        _number("movements", None, None, _TOTAL),
        _number("shake"),
        # Amounts
        _number("mass", "kg", "weight"),
        _number("mass_non_stabilized", "kg", "weight"),
        _number("impedance", "Ω"),
        _number("impedance_low", "Ω"),
        _number("impedance_high", "Ω"),
        _number("heart_rate", "bpm"),
        _number("dimmer_duration", "s", "duration", None),
        _number("dimmer_number_of_presses", None, None, None),
        _number("dimmer_steps", None, None, None),
        _number("brushing_count", None, None, None),
        _number("brushing_score"),
        _number("brushing_sectors", None, None, None, diagnostic=True),
        _number("brushing_sector_time", "s", "duration"),
        _number("brushing_time", "s", "duration"),
        _number("steps", None, None, _TOTAL),
        _number("volume", "L", "volume_storage"),
        _number("volume_storage", "L", "volume_storage"),
        _number("volume_start", "L", "volume_storage"),
        _number("volume_dispensed", "L", "volume", _TOTAL),
        _number("keg_size", "L", "volume_storage", diagnostic=True),
        _number("volume_flow_rate", "m³/h", "volume_flow_rate"),
        _number("water", "L", "water", _TOTAL),
        _number("gas", "m³", "gas", _TOTAL),
        _number("count", None, None, None),
        _number("duration", "s", "duration"),
        _number("duration_cleared", "min", "duration"),
        _number("duration_detected", "min", "duration"),
        _number("pressure_not_present_duration", "s", "duration"),
        _number("pressure_present_duration", "s", "duration"),
        _number("time_remaining", "min", "duration"),
        _number("radiation_duration", "s", "duration"),
        _number("tank_level", "%"),
        _number("tank_level_height", "mm", "distance"),
        _number("tire_pressure", "kPa", "pressure"),
        _number("wheel", None, None, None),
        # The device itself
        _number("battery", "%", "battery", diagnostic=True),
        _number("rssi", "dBm", "signal_strength", diagnostic=True),
        _number("tx_power", "dBm", "signal_strength", diagnostic=True),
        _number("packet_id", None, None, None, diagnostic=True),
        _number("channel", None, None, None, diagnostic=True),
        _number("consumable", "%", diagnostic=True),
        _number("interval", "s", "duration", diagnostic=True),
        _number("profile_id", None, None, None, diagnostic=True),
        _number("reading_quality", "%", diagnostic=True),
        _number("settings_revision", None, None, None, diagnostic=True),
        _number("wifi_rssi", "dBm", "signal_strength", diagnostic=True),
        _boolean("battery_low", "battery", diagnostic=True),
        _boolean("battery_charging", "battery_charging", diagnostic=True),
        _boolean("problem", "problem", diagnostic=True),
        _text("firmware", diagnostic=True),
        # What is so, or is not
        _boolean("binary"),
        _boolean("antilock"),
        _boolean("armed"),
        _boolean("asleep"),
        _boolean("bottom_submersion", "moisture"),
        _boolean("brushing"),
        _boolean("button_pressed"),
        _boolean("calibrated", diagnostic=True),
        _boolean("childlock"),
        _boolean("carbon_monoxide_detected", "carbon_monoxide"),
        _boolean("cold", "cold"),
        _boolean("connected", "connectivity"),
        _boolean("door", "door"),
        _boolean("device_forcibly_removed", "problem"),
        _boolean("door_left_open", "problem"),
        _boolean("door_stuck", "problem"),
        _boolean("fingerprint"),
        _boolean("garage_door", "garage_door"),
        _boolean("gas_detected", "gas"),
        _boolean("heat", "heat"),
        _boolean("light", "light"),
        _boolean("knock_on_the_door"),
        _boolean("lock", "lock"),
        _boolean("moisture_detected", "moisture"),
        _boolean("motion", "motion"),
        _boolean("moving", "moving"),
        _boolean("occupancy", "occupancy"),
        _boolean("occupancy_close_range", "occupancy"),
        _boolean("opening", "opening"),
        _boolean("plug", "plug"),
        _boolean("power_on", "power"),
        _boolean("presence", "presence"),
        _boolean("pry_the_door", "tamper"),
        _boolean("running", "running"),
        _boolean("safety", "safety"),
        _boolean("smoke", "smoke"),
        _boolean("sound", "sound"),
        _boolean("stabilized"),
        _boolean("tamper", "tamper"),
        _boolean("top_splash", "moisture"),
        _boolean("vibration", "vibration"),
        _boolean("window", "window"),
        _boolean("wearing"),
        _boolean("unlocked_alarm", "problem"),
        # What is said
        _text("text"),
        _text("state"),
        _text("mode"),
        _text("ac_in_state"),
        _text("alarm"),
        _text("aux_mode"),
        _text("balancer_status"),
        _text("brushing_pressure"),
        _text("brushing_sector"),
        _text("charge_state"),
        _text("charger_error"),
        _text("charging_state"),
        _text("error_code", diagnostic=True),
        _text("command_args"),
        _text("key_id"),
        _text("keg_type", diagnostic=True),
        _text("lock_method"),
        _text("meter_type"),
        _text("off_reason"),
        _text("output_state"),
        _text("port_count", diagnostic=True),
        _text("port_name", diagnostic=True),
        _text("port_state", diagnostic=True),
        _text("status"),
        _text("warning"),
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
        _event("cube"),
        _event("fingerprint_event"),
        _event("lock_error"),
        _event("lock_event"),
        _event("vibration_event"),
        *(_event(f"button_{which}", "button") for which in _BUTTONS),
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
