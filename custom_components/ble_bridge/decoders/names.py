"""What the libraries call a value or an event → what it is called here, and in which unit.

A key that no table names keeps its name in snake case, so that what a later version of a
library adds is not lost.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
import functools
import re
from typing import Final

from ..records import Value
from .fields import FIELDS, Kind, known_field, numbered
from .model import clean_float

MAX_NUMBER: Final = 99  # Of one kind; `known_field` takes no more

_NUMBER: Final = re.compile(r"(?P<base>.+?)_(?:probe_|port_)?(?P<number>\d{1,3})")
_CELL: Final = re.compile(r"cell_(?P<number>\d)_voltage")
_DEVICES: Final = {"primary": 1, "remote": 2}

# Keys of sensors and of events whose field has another name.
NUMBERS_AND_TEXTS: Final = {
    "ac_apparent_power": "apparent_power",
    "acceleration_total": "acceleration",
    "battery_percent": "battery",
    "carbon_dioxide": "carbon_dioxide",
    "co2": "carbon_dioxide",
    "consumed_ampere_hours": "consumed_charge",
    "counter": "brushing_count",
    "device_state": "state",
    "external_device_load": "load_current",
    "iaqs": "air_quality_score",
    "internal_center_temperature": "temperature_center",
    "internal_end_temperature": "temperature_end",
    "internal_temperature": "temperature",
    "low_temperature_alarm": "temperature_alarm_low",
    "movement_counter": "movements",
    "non_stabilized_mass": "mass_non_stabilized",
    "remaining_minutes": "time_remaining",
    "score": "brushing_score",
    "sector": "brushing_sector",
    "number_of_sectors": "brushing_sectors",
    "sector_timer": "brushing_sector_time",
    "specific_gravity_velocity": "specific_gravity_rate",
    "state_of_charge": "battery",
    "toothbrush_state": "state",
    "yield_today": "energy_today",
}
BOOLEANS: Final = {
    "battery": "battery_low",
    "carbon_monoxide": "carbon_monoxide_detected",
    "connectivity": "connected",
    "gas": "gas_detected",
    "generic": "binary",
    "moisture": "moisture_detected",
    "power": "power_on",
    "toothbrush": "brushing",
}
EVENTS: Final = {
    "error": "lock_error",
    "fingerprint": "fingerprint_event",
    "lock": "lock_event",
    "motion": "motion_event",
    "vibration": "vibration_event",
}
# What says nothing that another key does not say better, or nothing of the device.
DROPPED: Final = frozenset({"reading_quality_raw", "signal_strength"})

# How many of the field's unit one of the library's is.
_FACTORS: Final[Mapping[tuple[str, str], float]] = {
    ("mV", "V"): 0.001,
    ("mA", "A"): 0.001,
    ("kW", "W"): 1000,
    ("Wh", "kWh"): 0.001,
    ("MWh", "kWh"): 1000,
    ("Pa", "hPa"): 0.01,
    ("kPa", "hPa"): 10,
    ("bar", "hPa"): 1000,
    ("cbar", "hPa"): 10,
    ("mbar", "hPa"): 1,
    ("mmHg", "hPa"): 1.333223684,
    ("inHg", "hPa"): 33.86388640,
    ("psi", "hPa"): 68.94757293,
    ("mm", "m"): 0.001,
    ("cm", "m"): 0.01,
    ("in", "mm"): 25.4,
    ("g", "kg"): 0.001,
    ("lb", "kg"): 0.45359237,
    ("oz", "kg"): 0.028349523125,
    ("mL", "L"): 0.001,
    ("m³", "L"): 1000,
    ("gal", "L"): 3.785411784,
    ("ms", "s"): 0.001,
    ("min", "s"): 60,
    ("h", "s"): 3600,
    ("d", "s"): 86400,
    ("μg/m³", "mg/m³"): 0.001,
    ("mg/m³", "μg/m³"): 1000,
    ("ppb", "ppm"): 0.001,
    ("km/h", "m/s"): 1 / 3.6,
    ("mph", "m/s"): 0.44704,
    ("ohm", "Ω"): 1,
    ("SG points/day", "1/d"): 0.001,
}
_OFFSETS: Final[Mapping[tuple[str, str], Callable[[float], float]]] = {
    ("°F", "°C"): lambda value: (value - 32) / 1.8,
    ("K", "°C"): lambda value: value - 273.15,
}
# No sensor is more exact; a formula, or the conversion of a unit, is.
_DIGITS: Final[Mapping[str | None, int]] = {"°C": 3, "kg": 4}
_NO_UNIT: Final = frozenset({"SG"})


@functools.lru_cache(maxsize=2048)
def value_name(key: str, device_id: str | None = None) -> str:
    """Return the field of a number or a text."""
    if cell := _CELL.fullmatch(key):
        return numbered("cell_voltage", int(cell["number"]))
    return _name(key, device_id, NUMBERS_AND_TEXTS)


@functools.lru_cache(maxsize=2048)
def boolean_name(key: str, device_id: str | None = None) -> str:
    """Return the field of something that is so, or is not."""
    return _name(key, device_id, BOOLEANS)


@functools.lru_cache(maxsize=2048)
def event_name(key: str, first: int = 1) -> str:
    """Return the field of an event; `first` is the number of a library's first button."""
    base, number = _split(key)
    if number is not None:
        number = min(max(number - first + 1, 1), MAX_NUMBER)
    return numbered(EVENTS.get(base, base), number or 1)


def property_name(event: str, key: str) -> str:
    """Return the field of what an event says of itself: how many steps, for how long."""
    found = known_field(event)
    base, number = (found[0].name, found[1]) if found else (event, 1)
    return numbered(f"{base}_{key}", number)


def _split(key: str) -> tuple[str, int | None]:
    """Return a key in snake case without its number, and the number."""
    if (name := _snake(key)) in FIELDS:
        return name, None
    if found := _NUMBER.fullmatch(name):
        return found["base"], min(int(found["number"]), MAX_NUMBER)
    return name, None


def _name(key: str, device_id: str | None, names: Mapping[str, str]) -> str:
    """Return the name of a key, with the number that it or its device has."""
    base, number = _split(key)
    if number is None and device_id:
        number = _DEVICES.get(device_id) or _split(device_id)[1]
    return numbered(names.get(base, base), number or 1)


@functools.lru_cache(maxsize=1024)
def _snake(text: str) -> str:
    """Return text in snake case."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "value"


_HIGHEST_BIT: Final = 128


def clean(name: str, raw: object, unit: str | None = None) -> Value | None:
    """Return a value as its field has it, or None where it is none.

    `unit` is the one that the library gave it in. Text in place of a number is how some
    libraries say that a sensor is broken: no value. What devices say repeats itself, so
    that answers are kept.
    """
    if isinstance(raw, list | dict | set | bytearray):
        return None
    return _clean(name, raw, unit)


@functools.lru_cache(maxsize=4096, typed=True)
def _clean(name: str, raw: object, unit: str | None) -> Value | None:
    """Return a value as its field has it, or None where it is none."""
    found = known_field(name)
    kind = found[0].kind if found else None
    if isinstance(raw, Enum):
        raw = raw.name.lower()
    elif isinstance(raw, timedelta):
        raw, unit = raw.total_seconds(), unit or "s"
    elif isinstance(raw, Decimal):
        raw = float(raw)
    if kind is Kind.BOOLEAN:
        return bool(raw) if isinstance(raw, bool | int) else None
    if isinstance(raw, bool):
        return raw if kind is None else None
    if kind is Kind.TEXT or isinstance(raw, str | date):
        return _text(raw) if kind is not Kind.NUMBER else None
    if not isinstance(raw, int | float):
        return None
    if name == "battery":
        raw = _battery(raw)
    return None if raw is None else _number(raw, unit, found[0].unit if found else unit)


def _battery(level: float) -> float | None:
    """Return a battery level (%); some devices use the highest bit for something else."""
    if level >= _HIGHEST_BIT:
        level -= _HIGHEST_BIT
    return level if 0 <= level <= 100 else None


def _number(raw: float, unit: str | None, wanted: str | None) -> float | None:
    """Return a number in the unit of its field, as the device gave it."""
    if isinstance(raw, float):
        if (cleaned := clean_float(raw)) is None:
            return None
        raw = cleaned
    number: float | None = raw
    if unit is not None and unit != wanted:
        number = _converted(raw, unit, wanted)
        if isinstance(number, float):
            number = clean_float(number)
    digits = _DIGITS.get(wanted)
    if not isinstance(number, float) or digits is None:
        return number
    return round(number, digits)


def _text(raw: object) -> str | None:
    """Return a text; a moment in ISO 8601, UTC."""
    if isinstance(raw, datetime):
        return raw.isoformat().replace("+00:00", "Z")
    if isinstance(raw, str | int | float | date):
        return str(raw) or None
    return None


def _converted(value: float, unit: str | None, wanted: str | None) -> float | None:
    """Return a number in the unit of its field, or None where that cannot be."""
    if unit is not None:
        unit = unit.replace("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}")
    if unit is None or unit == wanted or unit in _NO_UNIT:
        return value
    if (factor := _FACTORS.get((unit, wanted or ""))) is not None:
        return value if factor == 1 else value * factor
    if (convert := _OFFSETS.get((unit, wanted or ""))) is not None:
        return convert(value)
    return None
