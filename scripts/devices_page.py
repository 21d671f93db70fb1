"""Write docs/devices.md: what is decoded, recognised by what, and under which names.

The page is made from the tables that decode, so it cannot say anything else. With --check
nothing is written; the exit code tells whether the page is current.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
import sys
from typing import Final

from custom_components.ble_bridge.decoders.fields import FIELDS, Field, Kind
from custom_components.ble_bridge.decoders.format_table import load_builtin
from custom_components.ble_bridge.decoders.formats import Format
from custom_components.ble_bridge.decoders.sources import (
    BEACONS,
    LIBRARIES,
    Match,
    Source,
)

PAGE: Final = Path(__file__).parents[1] / "docs/devices.md"

_KEYS: Final = {
    "bthome-ble": "bind key, 32 hexadecimal digits, where encryption is switched on",
    "xiaomi-ble": "bind key, 32 hexadecimal digits (24 for old products), for most",
    "victron-ble-ha-parser": "encryption key, 32 hexadecimal digits, always",
}
# What a name does not say by itself.
_MEANINGS: Final = {
    "ac_in_power": "power taken from the mains or a generator",
    "ac_out_power": "power given to the AC output",
    "accelerometer_x": "raw value of a tank sensor: how level it sits",
    "accelerometer_y": "raw value of a tank sensor: how level it sits",
    "advertisement_count": "packets sent since the beacon was switched on",
    "air_quality_score": "0 to 100, 100 is best",
    "ambient_temperature": "temperature of the air around a probe",
    "antilock": "latch that keeps a lock from being opened",
    "aqi": "air quality index",
    "battery_low": "the battery is to be changed",
    "beacon_power": "signal strength at one metre",
    "binary": "something that is on or off, the device does not say what",
    "button": "a button: `press`, `double_press`, `triple_press`, `long_press` …",
    "button_count": "counts the presses of a contact sensor's button",
    "channel": "channel of a remote control",
    "command": "`on`, `off`, `toggle`, `step_up`, `step_down`",
    "command_args": "what a command says of itself, in hexadecimal digits",
    "consumable": "what is left of a repellent, a filter …",
    "consumed_charge": "charge taken from the battery since it was full",
    "count": "something that is counted, the device does not say what",
    "dimmer": "a knob: `rotate_left`, `rotate_right`, `press` …",
    "dimmer_steps": "how far a knob was turned",
    "direction": "where the wind comes from, or something points",
    "door_left_open": "a door is open for too long",
    "duration": "a time that something took, the device does not say what",
    "duration_cleared": "minutes without anybody there",
    "duration_detected": "minutes with somebody there",
    "energy_today": "yield of the day",
    "gas": "gas meter",
    "impedance": "of the body, on a scale",
    "interval": "how often the sensor measures",
    "knock_on_the_door": "somebody knocked",
    "light": "there is light",
    "load_current": "current of the load output",
    "lock": "on is unlocked, as in Home Assistant",
    "lock_event": "what a lock did",
    "lock_method": "by which means a lock was opened",
    "mass_non_stabilized": "while a scale is still finding its value",
    "moisture": "of soil or wood",
    "moving": "a curtain, a blind or a thing moves",
    "opening": "a door, a window or a lid is open",
    "packet_id": "the packet's own counter",
    "position": "of a curtain or blind, 100 is open",
    "precipitation": "rain",
    "problem": "the device says that something is wrong with it",
    "profile_id": "which person a scale recognised",
    "raw": "bytes that only their sender understands, in hexadecimal digits",
    "reading_quality": "how sure a tank sensor is",
    "rssi": "signal strength",
    "settings_revision": "counts changes of the device's settings",
    "specific_gravity_rate": "change of the specific gravity in a day",
    "stabilized": "a scale has found its value",
    "temperature_alarm": "limit that is set on a grill thermometer",
    "temperature_alarm_low": "lower limit that is set on a grill thermometer",
    "temperature_center": "in the middle of a probe",
    "temperature_end": "at the end of a probe",
    "time_remaining": "until a battery is empty",
    "timestamp": "the device's clock, ISO 8601",
    "tx_power": "power that the device says it sends with",
    "unlocked_alarm": "a lock is open for too long",
    "volume": "of a liquid",
    "volume_start": "what was in a keg that is full",
    "water": "water meter",
    "wearing": "a bracelet is worn",
    "wifi_rssi": "signal strength of the device's own Wi-Fi",
}

_PRODUCTS: Final = {
    "bthome-ble": "BTHome: Shelly BLU, b-parasite, ATC and pvvx firmware, ESPHome, own ones",
    "xiaomi-ble": "Xiaomi, Mijia, Aqara, Linptech, Yeelight, HHCC and others of Mi Home",
}
_LIBRARIES: Final = """\
The parser libraries are those that Home Assistant's own integrations use. They know many products of a brand; the
library's page on PyPI tells which.
"""
_NAMES: Final = """\
A name does not depend on the brand. What a device has more than one of is numbered from the second on: `temperature`,
`temperature_2`. Device classes are Home Assistant's.
"""
_INTRODUCTION: Final = """\
# Is my device decoded?

This page is made by `scripts/devices_page.py` from the tables that decode. Look for your device's brand below.

- **It is there**: add it in Settings → Devices & services → BLE Bridge → Add device. Each value that it broadcasts becomes
  a sensor, under the names at the end of this page.
- **It is there and wants a key**: what it broadcasts is encrypted. The form that adds it asks for the key, and says
  whether it is right.
- **It is not there**: add it all the same. Presence, signal strength and distance need no decoding, and every packet is on
  `raw`. If you know how its values are arranged, [describe them](formats.md); no programming is needed.

Only what a device broadcasts is decoded. BLE Bridge never connects to a device, so what has to be asked for stays unknown.
Some devices must be told to broadcast: Aranet in its app ("Smart Home integration"), Victron too ("Instant readout").
"""


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print("current" if current else f"{PAGE} is old: run {Path(__file__).name}")
        return not current
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """Return the page."""
    formats = load_builtin()
    sections = (
        _INTRODUCTION,
        "## Brands with a library\n",
        _LIBRARIES,
        _table(
            ("products", "library", "recognised by", "key"),
            (
                (
                    _PRODUCTS.get(source.name, source.title),
                    f"[`{source.name}`](https://pypi.org/project/{source.name}/)",
                    _recognised(source.match),
                    _KEYS.get(source.name, "none"),
                )
                for source in sorted(LIBRARIES, key=_title)
            ),
        ),
        "## Products and firmware with a fixed layout\n",
        "Described in `custom_components/ble_bridge/decoders/formats.toml`; [Formats](formats.md) says how to add one.\n",
        _table(("maker", "product", "values"), _formats(formats)),
        "## Beacons\n",
        "A sensor that is a beacon, too, is decoded as the sensor.\n",
        _table(
            ("beacon", "recognised by"),
            ((source.title, _recognised(source.match)) for source in BEACONS),
        ),
        "## Names of values\n",
        _NAMES,
        *_fields(formats),
    )
    return "\n".join(section.strip("\n") + "\n" for section in sections)


def _title(source: Source) -> str:
    return source.title.lower()


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |"
        for line in lines
    )


def _recognised(match: Match) -> str:
    """Return what a source is recognised by, for people."""
    parts = []
    if match.service_data:
        parts.append("service data " + _hex(match.service_data))
    if match.company_ids:
        starts = [start.hex() for start in match.starts if start]
        parts.append(
            "company ID "
            + _hex(match.company_ids)
            + (f" with data from `{'` or `'.join(starts)}`" if starts else "")
            + (f" with {match.length} bytes" if match.length else "")
        )
    elif match.length:
        parts.append(
            f"{match.length} bytes of manufacturer data that end in the address"
        )
    if match.service_uuids:
        parts.append("service UUID " + _hex(match.service_uuids))
    if match.names:
        parts.append("name `" + "`, `".join(match.names) + "`")
    return "; ".join(parts)


def _hex(numbers: Iterable[int | str]) -> str:
    return ", ".join(
        f"`{number}`" if isinstance(number, str) else f"`0x{number:04X}`"
        for number in numbers
    )


def _formats(formats: Iterable[Format]) -> Iterator[tuple[str, str, str]]:
    """Return makers, products and fields; a product may have several layouts."""
    products: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for entry in formats:
        fields = products[entry.manufacturer or "", entry.model]
        fields.update(dict.fromkeys(field.name for field in entry.fields))
    for (maker, model), names in sorted(
        products.items(), key=lambda item: _key(*item[0])
    ):
        yield maker, model, ", ".join(f"`{name}`" for name in names)


def _key(maker: str, model: str) -> tuple[str, str]:
    return maker.lower(), model.lower()


def _fields(formats: Iterable[Format]) -> Iterator[str]:
    """Return the tables of fields."""
    fields = dict(FIELDS)
    for entry in formats:
        for field in entry.fields:
            fields.setdefault(field.name, field)
    heads = {
        Kind.NUMBER: "### Numbers\n",
        Kind.BOOLEAN: "### On or off\n",
        Kind.TEXT: "### Text\n",
        Kind.EVENT: "### Events\n",
    }
    for kind, head in heads.items():
        mine = sorted(
            (field for field in fields.values() if field.kind is kind),
            key=lambda field: field.name,
        )
        yield head
        if kind is Kind.NUMBER:
            yield _table(
                ("name", "unit", "device class", "meaning"),
                (
                    (f"`{field.name}`", field.unit or "", *_rest(field))
                    for field in mine
                ),
            )
        elif kind is Kind.TEXT:
            yield _table(
                ("name", "meaning"),
                ((f"`{field.name}`", _rest(field)[1]) for field in mine),
            )
        else:
            yield _table(
                ("name", "device class", "meaning"),
                ((f"`{field.name}`", *_rest(field)) for field in mine),
            )


def _rest(field: Field) -> tuple[str, str]:
    """Return the device class and the meaning of a field."""
    meaning = _MEANINGS.get(field.name) or field.name.replace("_", " ")
    return field.device_class or "", meaning


if __name__ == "__main__":
    sys.exit(main())
