"""The parser libraries, each behind the interface of `Decoder`.

Nothing here imports a library: `Decoders.load` does, off the event loop, before a decoder
is made. A parser lives as long as its device, for some have to know what was said before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
import logging
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast, override

from bleak.backends.device import BLEDevice

from ..records import Advertisement, Value
from .counters import (
    MIBEACON,
    VICTRON,
    bthome_counter,
    bthome_encrypted,
    victron_encrypted,
    xiaomi_encrypted,
)
from .model import Decoded, DecodeError, Decoder, KeyMissing, KeyWrong
from .names import DROPPED, boolean_name, clean, event_name, property_name, value_name

if TYPE_CHECKING:
    from sensor_state_data import SensorUpdate

_AES_KEY: Final = 16
_MIBEACON_LEGACY_KEY: Final = 12  # Up to MiBeacon version 3


class Parser(Protocol):
    """What the libraries that are built on `sensor-state-data` have in common."""

    def update(self, data: Advertisement) -> SensorUpdate:
        """Take a packet, and return what was said since the result was cleared."""
        ...


class _BindKeyParser(Parser, Protocol):
    """A parser that tells whether the key of a device was right."""

    bindkey_verified: bool


class _BTHomeParser(_BindKeyParser, Protocol):
    """The parser of BTHome; it refuses what looks like a replay."""

    downgrade_detected: bool
    encryption_counter: float


class Quiet(logging.Filter):
    """Keeps libraries from logging what is in the packets that we decode.

    What they log for others, such as the integrations of Home Assistant that use them too,
    and what somebody wants to see for debugging, is logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decoding = False

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return not self.decoding or record.levelno <= logging.DEBUG

    def __enter__(self) -> None:
        """Begin to decode."""
        self.decoding = True

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.decoding = False

    def attach(self, modules: tuple[str, ...]) -> None:
        """Attach to the loggers of packages that are loaded."""
        for name in tuple(logging.root.manager.loggerDict):
            if name.partition(".")[0] in modules:
                logging.getLogger(name).addFilter(self)


QUIET: Final = Quiet()

_NOBODY: Final = BLEDevice("00:00:00:00:00:00", None, None)
_NOTHING: Final = Advertisement(
    "", _NOBODY.address, -127, {}, {}, [], "", _NOBODY, None, False, 0.0, None
)


@dataclass(frozen=True, slots=True)
class Library:
    """A library that is built on `sensor-state-data`: called, it makes a decoder.

    `brand` is the model of a device of which the library tells none, and, if `prefixed`,
    stands before the model. `names` are the fields of keys that mean something else here
    than elsewhere; `first_button` is the number of the first one.
    """

    module: str
    parser: str
    brand: str
    names: Mapping[str, str] = field(default_factory=dict)
    prefixed: bool = False
    first_button: int = 1

    def __call__(self, _key: bytes | None = None) -> Decoder:
        """Return a decoder of what is not encrypted."""
        return SensorDecoder(self)

    def new(self, *arguments: object) -> Parser:
        """Return a new parser; the library is loaded."""
        return cast(
            "Parser", getattr(sys.modules[self.module], self.parser)(*arguments)
        )

    def read(self, update: SensorUpdate) -> Decoded | None:
        """Return what a parser gave, and clear it, so that it is not given again."""
        values: dict[str, Value] = {}
        device_id: str | None = None
        for key, sensor in update.entity_values.items():
            text = _text(key.key)
            if sensor.native_value is None or text in DROPPED:
                continue
            name = self.names.get(text) or value_name(text, key.device_id)
            unit = update.entity_descriptions[key].native_unit_of_measurement
            if (value := clean(name, sensor.native_value, unit)) is not None:
                # A grill thermometer has a probe, and measures the air around it too.
                values["ambient_temperature" if name in values else name] = value
                device_id = key.device_id
        for key, binary in update.binary_entity_values.items():
            text = _text(key.key)
            name = self.names.get(text) or boolean_name(text, key.device_id)
            if (value := clean(name, binary.native_value)) is not None:
                values[name] = value
                device_id = key.device_id
        events: dict[str, str] = {}
        for key, event in update.events.items():
            if not event.event_type:
                continue
            name = event_name(_text(key.key), self.first_button)
            events[name] = event.event_type
            device_id = key.device_id
            for property_key, raw in (event.event_properties or {}).items():
                about = property_name(name, property_key)
                if (value := clean(about, raw)) is not None:
                    values[about] = value
        update.entity_values.clear()
        update.binary_entity_values.clear()
        if not values and not events:
            return None
        return Decoded(
            self._model(update, device_id),
            _manufacturer(update, device_id),
            values,
            events,
        )

    def _model(self, update: SensorUpdate, device_id: str | None) -> str:
        """Return the model; some libraries tell a number that means nothing to people."""
        device = update.devices.get(device_id) or update.devices.get(None)
        model: object = device.model if device else None
        if not isinstance(model, str) or not model:
            return self.brand
        return f"{self.brand} {model}" if self.prefixed else model


def _text(key: object) -> str:
    """Return a key; one library gives some with something before it."""
    return str(key[-1]) if isinstance(key, tuple) else str(key)


def _manufacturer(update: SensorUpdate, device_id: str | None) -> str | None:
    device = update.devices.get(device_id) or update.devices.get(None)
    return device.manufacturer if device else None


class SensorDecoder:
    """Decodes with a library what is not encrypted."""

    __slots__ = ("_library", "_parser")

    def __init__(self, library: Library) -> None:
        self._library = library
        self._parser = self._new()

    def _new(self) -> Parser:
        """Return a parser that has heard nothing yet."""
        return self._library.new()

    def _update(self, advertisement: Advertisement) -> SensorUpdate:
        """Have the parser take a packet."""
        try:
            return self._parser.update(advertisement)
        except Exception:
            # What it had found before would seem to be said by the next packet.
            self._library.read(self._parser.update(_NOTHING))
            raise

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it says nothing that is known."""
        return self._library.read(self._update(advertisement))

    @property
    def is_sleepy(self) -> bool:
        """Tell whether the device only sends when something happens."""
        return bool(getattr(self._parser, "sleepy_device", False))


class EncryptedDecoder(SensorDecoder):
    """Decodes with a library what may be encrypted.

    A parser cannot be asked why it gave nothing: it keeps what it found out from earlier
    packets. A new one is, where that matters.
    """

    __slots__ = ("_key", "_unfit")

    key_lengths: tuple[int, ...] = (_AES_KEY,)

    def __init__(self, library: Library, key: bytes | None) -> None:
        self._unfit = key is not None and len(key) not in self.key_lengths
        self._key = None if self._unfit else key
        super().__init__(library)

    @override
    def _new(self) -> Parser:
        return self._library.new(self._key)

    @override
    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says; raises KeyMissing or KeyWrong."""
        encrypted = self._encrypted(advertisement)
        if encrypted and self._unfit:
            raise KeyWrong("The key has the wrong length")
        update = self._update(advertisement)
        known = any(device.model for device in update.devices.values())
        if (decoded := self._library.read(update)) is not None:
            return decoded
        if not encrypted:
            self._refused(advertisement)
            return None
        if not known:
            return None
        if self._key is None:
            raise KeyMissing("The packet is encrypted, and there is no key")
        if not self._proved(advertisement):
            raise KeyWrong("The packet is encrypted with another key")
        self._refused(advertisement)
        return None

    def _encrypted(self, advertisement: Advertisement) -> bool:
        """Tell whether a packet is encrypted."""
        raise NotImplementedError

    def _proved(self, advertisement: Advertisement) -> bool:
        """Tell whether the key is that of a packet."""
        parser = cast("_BindKeyParser", self._new())
        parser.update(advertisement)
        return parser.bindkey_verified

    def _refused(self, advertisement: Advertisement) -> None:
        """Raise DecodeError if the parser did not want to read a packet."""


class BTHomeDecoder(EncryptedDecoder):
    """Decodes BTHome, versions 1 and 2."""

    __slots__ = ()

    @override
    def _encrypted(self, advertisement: Advertisement) -> bool:
        return bthome_encrypted(advertisement)

    @override
    def _refused(self, advertisement: Advertisement) -> None:
        parser = cast("_BTHomeParser", self._parser)
        if parser.downgrade_detected:
            raise DecodeError("The packet is not encrypted, though there is a key")
        counter = bthome_counter(advertisement)
        if (
            counter
            and bthome_encrypted(advertisement)
            and counter[0] < parser.encryption_counter
        ):
            raise DecodeError(
                "The packet looks like a replay: its counter is an old one"
            )


class XiaomiDecoder(EncryptedDecoder):
    """Decodes MiBeacon and Xiaomi's scales."""

    __slots__ = ()

    key_lengths = (_MIBEACON_LEGACY_KEY, _AES_KEY)

    @override
    def _encrypted(self, advertisement: Advertisement) -> bool:
        return xiaomi_encrypted(advertisement)

    @override
    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says; raises KeyMissing or KeyWrong."""
        if self._key is not None and xiaomi_encrypted(advertisement):
            legacy = _is_legacy(advertisement)
            if len(self._key) != (_MIBEACON_LEGACY_KEY if legacy else _AES_KEY):
                raise KeyWrong("The key has the wrong length")
        return super().decode(advertisement)


def _is_legacy(advertisement: Advertisement) -> bool:
    """Tell whether a MiBeacon packet is of version 3 or older."""
    data = advertisement.service_data.get(MIBEACON, b"")
    return len(data) > 1 and data[1] >> 4 <= 3


class VictronDecoder(EncryptedDecoder):
    """Decodes instant readouts of Victron devices."""

    __slots__ = ()

    @override
    def _new(self) -> Parser:
        return self._library.new(self._key.hex() if self._key else None)

    @override
    def _encrypted(self, advertisement: Advertisement) -> bool:
        return victron_encrypted(advertisement)

    @override
    def _proved(self, advertisement: Advertisement) -> bool:
        # A readout carries the first byte of its key, which is all the proof there is.
        data = advertisement.manufacturer_data[VICTRON]
        return self._key is not None and data[7:8] == self._key[:1]
