"""The libraries of SwitchBot and Aranet, which are built on nothing that others are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
import sys
from typing import Final, Protocol, cast

from ..records import Advertisement, Value
from .fields import numbered
from .model import Decoded
from .names import clean, value_name

SWITCHBOT: Final = 2409
_SWITCHBOT_NAMES: Final = {
    "calibration": "calibrated",
    "charging": "battery_charging",
    "child_lock": "childlock",
    "contact_open": "opening",
    "contact_timeout": "door_left_open",
    "door_open": "door",
    "filter element working time": "filter_time",
    "filter_run_time": "filter_time",
    "inMotion": "moving",
    "isOn": "power_on",
    "is_light": "light",
    "leak": "moisture_detected",
    "low_battery": "battery_low",
    "motion_detected": "motion",
    "seq_number": "packet_id",
    "sequence_number": "packet_id",
    "soc_version": "firmware",
    "speed": "speed_level",
    "status": "state",
    "tamper_alarm": "tamper",
    "tampered": "tamper",
    "unclosed_alarm": "door_left_open",
}
# How the device is set up, or what another key says in a better way.
_SWITCHBOT_DROPPED: Final = frozenset(
    {
        *("cw", "delay", "deviceChain", "fahrenheit", "iot", "isAqiValid", "led"),
        *("is_meter_binded", "light_intensity", "loop_index", "sense_distance"),
        *("auto_lock_paused", "color_mode", "double_lock_mode", "is_secondary_lock"),
        *("manual_unlock_linkage", "night_latch", "preset", "switchMode", "temp"),
        *("tested", "door_open_from_secondary_lock", "update_from_secondary_lock"),
    }
)
_UNLOCKED: Final = {"locked": False, "unlocked": True}


class _SwitchbotFound(Protocol):
    """What the library makes of a packet."""

    data: Mapping[str, object]


class _SwitchbotParse(Protocol):
    """The parser, as far as it is used here: it asks for these attributes only."""

    def __call__(
        self, device: _Packet, advertisement_data: _Packet, model: object
    ) -> _SwitchbotFound | None: ...


@dataclass(frozen=True, slots=True)
class _Packet:
    """What SwitchBot's parser looks at."""

    address: str
    rssi: int
    service_data: dict[str, bytes]
    manufacturer_data: dict[int, bytes]


class SwitchbotDecoder:
    """Decodes what SwitchBot devices broadcast.

    The model and the battery are in the service data, which come with the answer to an
    active scan; what is measured is in the manufacturer data. So the former are kept.
    """

    __slots__ = ("_model", "_parse", "_service_data")

    def __init__(self, _key: bytes | None = None) -> None:
        self._parse = cast(
            "_SwitchbotParse", sys.modules["switchbot"].parse_advertisement_data
        )
        self._model: object = None
        self._service_data: dict[str, bytes] = {}

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it says nothing that is known."""
        packet = _Packet(
            advertisement.address,
            advertisement.rssi,
            advertisement.service_data or self._service_data,
            advertisement.manufacturer_data,
        )
        found = self._parse(packet, packet, self._model)
        content = found.data.get("data") if found else None
        if found is None or not isinstance(content, Mapping) or not content:
            return None
        self._model = found.data["modelName"]
        self._service_data = packet.service_data
        values = dict(_switchbot_values(content))
        if not values:
            return None
        return Decoded(str(found.data["modelFriendlyName"]), "SwitchBot", values)


def _switchbot_values(content: Mapping[object, object]) -> Iterator[tuple[str, Value]]:
    """Return fields and values; what belongs to one of several relays has its number."""
    for key, raw in content.items():
        if isinstance(key, int) and isinstance(raw, Mapping):
            for name, value in _switchbot_values(raw):
                yield numbered(name, key), value
        elif isinstance(key, str) and key not in _SWITCHBOT_DROPPED:
            name = _SWITCHBOT_NAMES.get(key) or value_name(key)
            cleaned = clean(name, raw)
            if cleaned is not None:
                yield name, cleaned
                if (
                    key == "status"
                    and (unlocked := _UNLOCKED.get(str(cleaned))) is not None
                ):
                    yield "lock", unlocked


# Attributes of a reading: the field, and how much of its unit one is.
_ARANET: Final[Mapping[str, tuple[str, float]]] = {
    "temperature": ("temperature", 1),
    "humidity": ("humidity", 1),
    "pressure": ("pressure", 1),
    "co2": ("carbon_dioxide", 1),
    "radiation_rate": ("radiation_rate", 1e-3),
    "radiation_total": ("radiation_total", 1e-6),
    "radiation_duration": ("radiation_duration", 1),
    "radon_concentration": ("radon", 1),
    "battery": ("battery", 1),
    "interval": ("interval", 1),
    "counter": ("packet_id", 1),
    "status": ("status", 1),
}
_NOT_MEASURED: Final = -1


class _AranetReadings(Protocol):
    """What a packet says; the attributes are those above."""

    type: _AranetType


class _AranetType(Protocol):
    """A product of Aranet."""

    model: str


class _AranetPacket(Protocol):
    """A packet that is taken apart."""

    readings: _AranetReadings | None


class AranetDecoder:
    """Decodes what Aranet's sensors broadcast, once that is allowed in Aranet's app."""

    __slots__ = ("_parse",)

    def __init__(self, _key: bytes | None = None) -> None:
        self._parse = cast(
            "Callable[[Advertisement, Advertisement], _AranetPacket]",
            sys.modules["aranet4.client"].Aranet4Advertisement,
        )

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it says nothing that is known."""
        readings = self._parse(advertisement, advertisement).readings
        if readings is None:
            return None
        values: dict[str, Value] = {}
        for attribute, (name, factor) in _ARANET.items():
            raw: object = getattr(readings, attribute)
            if raw == _NOT_MEASURED:
                continue
            if (
                isinstance(raw, int | float)
                and not isinstance(raw, Enum)
                and factor != 1
            ):
                raw *= factor
            if (value := clean(name, raw)) is not None:
                values[name] = value
        return Decoded(readings.type.model, "SAF Tehnika", values) if values else None
