"""What a value's name tells of it: its unit, and Home Assistant's classes.

A name that devices have in common is that field (`decoders/fields.py`). Else a unit at its end
tells most (`pump_pressure_bar`), then what it ends with (`water_temperature`). A name that
tells nothing is a number without a unit: a wrong one would have the number converted.
"""

from dataclasses import replace
import functools
from typing import Final

from ..decoders.fields import Field, Kind, known_field
from ..records import Value

# Names that are common in such systems, and that no Bluetooth device has.
_COMMON: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        *(
            Field(name, unit="B", device_class="data_size", diagnostic=True)
            for name in (
                *("memory_free", "memory_used", "memory_total", "free_memory"),
                *("free_heap", "heap_free", "min_free_heap", "heap_size", "heap"),
                *("free_psram", "psram_free", "flash_free", "sketch_size"),
            )
        ),
        *(
            Field(name, unit="%", diagnostic=True)
            for name in ("cpu_load", "cpu_usage", "memory_usage", "signal_quality")
        ),
        *(
            Field(name, unit="dBm", device_class="signal_strength", diagnostic=True)
            for name in ("wifi_signal", "wifi_strength", "signal_strength")
        ),
        *(
            Field(name, unit="hPa", device_class="atmospheric_pressure")
            for name in ("air_pressure", "atmospheric_pressure", "barometric_pressure")
        ),
        Field("level", unit="%"),
        Field("setpoint", unit="°C", device_class="temperature"),
        Field("rpm", unit="rpm"),
        *(
            Field(name, state_class="total_increasing", diagnostic=True)
            for name in ("boot_count", "error_count", "message_count", "reconnects")
        ),
    )
}
# The unit of a name's last word, and the class of what has it.
_UNITS: Final[dict[str, tuple[str, str | None]]] = {
    "c": ("°C", "temperature"),
    "celsius": ("°C", "temperature"),
    "f": ("°F", "temperature"),
    "fahrenheit": ("°F", "temperature"),
    "percent": ("%", None),
    "pct": ("%", None),
    "v": ("V", "voltage"),
    "mv": ("mV", "voltage"),
    "a": ("A", "current"),
    "ma": ("mA", "current"),
    "w": ("W", "power"),
    "kw": ("kW", "power"),
    "va": ("VA", "apparent_power"),
    "wh": ("Wh", "energy"),
    "kwh": ("kWh", "energy"),
    "hz": ("Hz", "frequency"),
    "pa": ("Pa", "pressure"),
    "hpa": ("hPa", "pressure"),
    "kpa": ("kPa", "pressure"),
    "bar": ("bar", "pressure"),
    "psi": ("psi", "pressure"),
    "ppm": ("ppm", None),
    "ppb": ("ppb", None),
    "lux": ("lx", "illuminance"),
    "db": ("dB", "sound_pressure"),
    "dbm": ("dBm", "signal_strength"),
    "rpm": ("rpm", None),
    "ms": ("ms", "duration"),
    "seconds": ("s", "duration"),
    "minutes": ("min", "duration"),
    "hours": ("h", "duration"),
    "bytes": ("B", "data_size"),
    "kb": ("kB", "data_size"),
    "mb": ("MB", "data_size"),
    "mm": ("mm", "distance"),
    "cm": ("cm", "distance"),
    "m": ("m", "distance"),
    "km": ("km", "distance"),
    "kmh": ("km/h", "speed"),
    "g": ("g", "weight"),
    "kg": ("kg", "weight"),
    "l": ("L", "volume_storage"),
    "liters": ("L", "volume_storage"),
    "m3": ("m³", "volume_storage"),
}
# Letters that often number things (`zone_c`, `phase_a`), or tell sides: they are units where
# the name tells without them what it is (`boiler_temp_c`).
_LETTERS: Final = frozenset("acfglm")
# What only grows, so that Home Assistant makes sums of it.
_TOTALS: Final = frozenset({"energy"})
# Fields that a name may end with: what they measure is the same, wherever it is.
_ENDINGS: Final = (
    *("temperature", "humidity", "voltage", "current", "power", "energy"),
    *("battery", "illuminance", "rssi", "moisture", "carbon_dioxide", "frequency"),
)
_SHORT: Final = {"temp": "temperature", "hum": "humidity", "co2": "carbon_dioxide"}


@functools.lru_cache(maxsize=4096)
def _told(name: str) -> Field | None:
    """Return what a name tells of a number, or None where it tells nothing."""
    if (found := _COMMON.get(name)) is not None:
        return found
    first, _, last = name.rpartition("_")
    if name in _SHORT:
        name = last = _SHORT[name]
    if (known := known_field(name)) is not None:
        return known[0]
    if first and last in _UNITS and (last not in _LETTERS or _confirms(first, last)):
        unit, device_class = _UNITS[last]
        total = device_class in _TOTALS
        return Field(
            name,
            unit=unit,
            device_class=device_class,
            state_class="total_increasing" if total else "measurement",
        )
    last = _SHORT.get(last, last)
    for ending in _ENDINGS:
        if last == ending or name.endswith(f"_{ending}"):
            return (
                replace(known[0], name=name) if (known := known_field(ending)) else None
            )
    return None


def _confirms(first: str, letter: str) -> bool:
    """Tell whether a name is of what a unit measures, without the letter that is the unit."""
    _, device_class = _UNITS[letter]
    last = first.rpartition("_")[2]
    return last == device_class or any(
        (told := _told(name)) is not None and told.device_class == device_class
        for name in (first, last)
    )


def field_of(name: str, value: Value) -> Field:
    """Return what is known of a value by its name, as far as the value agrees."""
    if isinstance(value, bool):
        known = known_field(name)
        if known is not None and known[0].kind is Kind.BOOLEAN:
            return known[0]
        return Field(name, Kind.BOOLEAN, state_class=None)
    if not isinstance(value, int | float):
        known = known_field(name)
        if known is not None and known[0].kind is Kind.TEXT:
            return known[0]
        return Field(name, Kind.TEXT, state_class=None)
    told = _told(name)
    return told if told is not None and told.kind is Kind.NUMBER else Field(name)
