"""Decoders: advertisements to the values that they carry.

Libraries first, then the table of formats, then beacons: the frame of a beacon must not
hide what the sensor that sends it measures. A library is loaded when the first packet
needs it, by whoever is told that it is wanted, off the event loop.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
import importlib

from bluetooth_data_tools import parse_advertisement_data_bytes

from ..records import Advertisement, Value
from .counters import Counter
from .fields import Field, field_of, known_field
from .format_table import load_builtin
from .formats import Format, FormatDecoder, Formats
from .libraries import QUIET
from .model import Decoded, DecodeError, Decoder, KeyMissing, KeyWrong
from .sources import BEACON_TABLE, FORMATS, LIBRARY_TABLE, SOURCES, Source

__all__ = ["Decoders", "DeviceDecoder", "Encryption", "Source"]

# Whose data, how long, under which name: what nobody takes in one shape is not offered
# again in the same.
type _Shape = tuple[
    tuple[tuple[int, int], ...], tuple[tuple[str, int], ...], int, str | None
]


class Encryption(StrEnum):
    """Whether a packet is encrypted, and whether its key is known."""

    NONE = "none"
    OK = "ok"
    KEY_MISSING = "key_missing"
    KEY_WRONG = "key_wrong"


class Decoders:
    """All that can be decoded, and which libraries are loaded."""

    def __init__(self, on_wanted: Callable[[str], None]) -> None:
        """Initialize with nothing loaded.

        `on_wanted` is told once of each source that a packet needs and that is not loaded
        yet, by name; `load` is what to do then.
        """
        self._on_wanted = on_wanted
        self._wanted: set[str] = set()
        self._unavailable: set[str] = set()
        self._loaded = {source.name for source in SOURCES.values() if source.make}
        self._loaded -= {source.name for source in SOURCES.values() if source.modules}
        self._builtin: tuple[Format, ...] = ()
        self._own: tuple[Format, ...] = ()
        self._own_fields: dict[str, Field] = {}
        self._formats = Formats(())

    def load(self, name: str) -> None:
        """Load what a source needs; blocks, and raises ImportError.

        What cannot be loaded is not asked for again.
        """
        source = SOURCES[name]
        try:
            for module in source.modules:
                importlib.import_module(module)
            if source is FORMATS:
                self._builtin = load_builtin()
                self._formats = Formats((*self._own, *self._builtin))
        except Exception as err:  # A library may fail in any way
            self._unavailable.add(name)
            raise ImportError(f"{name} cannot be loaded: {err}", name=name) from err
        QUIET.attach(tuple(module.partition(".")[0] for module in source.modules))
        self._unavailable.discard(name)
        self._loaded.add(name)

    def use_formats(self, formats: Iterable[Format]) -> None:
        """Have formats of the user's own, which go before those that come with this."""
        self._own = tuple(formats)
        self._own_fields = {
            field.name: field
            for entry in self._own
            for field in entry.fields
            if known_field(field.name) is None
        }
        self._formats = Formats((*self._own, *self._builtin))

    def sources(self, advertisement: Advertisement) -> tuple[Source, ...]:
        """Return the sources that an advertisement may be of, the likeliest first."""
        packet = of_packet(advertisement)
        return tuple(
            source
            for source in self.candidates(packet)
            if source is not FORMATS or self.has_format(packet)
        )

    def has_format(self, packet: Advertisement) -> bool:
        """Tell whether a packet is of a format, though it may hold no value."""
        return self._formats.find(packet) is not None

    def field(self, name: str, value: Value | None = None) -> Field:
        """Return the field of a name, which may be of a format of the user's own."""
        return self._own_fields.get(name) or field_of(name, value)

    def candidates(self, packet: Advertisement) -> Iterator[Source]:
        """Return the sources to ask, in this order."""
        yield from LIBRARY_TABLE.find(packet)
        yield FORMATS
        yield from BEACON_TABLE.find(packet)

    def is_ready(self, source: Source) -> bool | None:
        """Tell whether a source can be asked: now, not yet, or never (None)."""
        name = source.name
        if name in self._loaded:
            return True
        if name in self._unavailable:
            return None
        if name not in self._wanted:
            self._wanted.add(name)
            self._on_wanted(name)
        return False

    def was_loaded(self, source: Source) -> bool:
        """Tell whether a source is loaded, or cannot be."""
        return source.name in self._loaded or source.name in self._unavailable

    def make(self, source: Source, key: bytes | None) -> Decoder:
        """Return a new decoder of a source that is loaded."""
        if source.make is None:
            return FormatDecoder(self._formats)
        return source.make(key)

    def device(self, key: bytes | None = None) -> DeviceDecoder:
        """Return what decodes the packets of one device; the key is its own."""
        return DeviceDecoder(self, key)

    def check_key(self, advertisement: Advertisement, key: bytes) -> Encryption:
        """Tell whether a key is right for a packet, or the packet is not encrypted.

        Raises DecodeError if the library is not loaded that could tell.
        """
        packet = of_packet(advertisement)
        for source in LIBRARY_TABLE.find(packet):
            if source.encrypted is None or not source.encrypted(packet):
                continue
            if self.is_ready(source) is not True:
                raise DecodeError(f"{source.name} is not loaded")
            try:
                with QUIET:
                    self.make(source, key).decode(packet)
            except Exception:  # noqa: BLE001  # A packet like this proves nothing
                return Encryption.KEY_WRONG
            return Encryption.OK
        return Encryption.NONE


class DeviceDecoder:
    """Decodes the packets of one device, in the order in which they were sent.

    `source` is who took the last packet; `is_sleepy` tells whether the device only sends
    when something happens. `pending` tells that a library is being loaded,
    and that the same packet is to be given again then.
    """

    __slots__ = (
        "_decoders",
        "_ignored",
        "_kept",
        "_key",
        "_maker",
        "encryption",
        "is_sleepy",
        "pending",
        "source",
    )

    def __init__(self, decoders: Decoders, key: bytes | None) -> None:
        self._decoders = decoders
        self._key = key
        self._kept: dict[str, Decoder] = {}
        self._ignored: _Shape | None = None
        self._maker: tuple[str, str | None] | None = None
        self.source: Source | None = None
        self.pending = False
        self.is_sleepy = False
        self.encryption = Encryption.NONE

    def counter(self, advertisement: Advertisement) -> Counter | None:
        """Return the counter that a packet carries, and its modulus."""
        packet = of_packet(advertisement)
        for source in LIBRARY_TABLE.find(packet):
            if source.counter is not None:
                return source.counter(packet)
        return None

    def recognise(self, advertisement: Advertisement) -> tuple[str, bool] | None:
        """Return what a packet's device is, and whether its key is needed; None if unknown."""
        try:
            decoded = self.decode(advertisement)
        except KeyMissing:
            return (self.source.title, True) if self.source else None
        except DecodeError:
            return None
        return (decoded.model, False) if decoded else None

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it says nothing that is known.

        Raises KeyMissing, KeyWrong, or DecodeError for whatever a library raised.
        """
        self.pending = False
        packet = of_packet(advertisement)
        shape = None
        if self.source is None and (shape := _shape(packet)) == self._ignored:
            return None
        failure: Exception | None = None
        for source in self._order(packet):
            if self.pending and not source.modules:
                break  # A format or a beacon must not forestall a library
            if (ready := self._decoders.is_ready(source)) is not True:
                self.pending |= ready is False
                continue
            try:
                decoded = self._ask(source, packet)
            except DecodeError:
                self.pending = False
                raise
            except Exception as err:  # noqa: BLE001  # A library may raise anything
                failure = failure or err
                continue
            if decoded is not None:
                self.pending = False
                return decoded
        if not self.pending and not _is_mixed(packet):
            self._ignored = shape
        if failure is not None:
            raise DecodeError(f"{type(failure).__name__}: {failure}") from failure
        return None

    def _order(self, packet: Advertisement) -> Iterator[Source]:
        """Return the sources to ask; a library that took the device before goes first."""
        known = self.source
        if known is None or not known.modules:
            yield from self._decoders.candidates(packet)
            return
        candidates = tuple(self._decoders.candidates(packet))
        if known in candidates:
            yield known
        for source in candidates:
            if source is not known:
                yield source

    def _ask(self, source: Source, packet: Advertisement) -> Decoded | None:
        """Have a source decode a packet, and keep what it knows if it takes it."""
        decoder = self._kept.get(source.name)
        if decoder is None:
            decoder = self._decoders.make(source, self._key)
        try:
            with QUIET:
                decoded = decoder.decode(packet)
        except DecodeError as err:
            self._take(source, decoder)
            if isinstance(err, KeyMissing):
                self.encryption = Encryption.KEY_MISSING
            elif isinstance(err, KeyWrong):
                self.encryption = Encryption.KEY_WRONG
            raise
        if decoded is None:
            if _is_mixed(packet) and source.modules:
                self._kept[source.name] = decoder
            return None
        if source.beacon and self._maker is not None:
            # A sensor that is a beacon, too, stays the sensor.
            return replace(decoded, model=self._maker[0], manufacturer=self._maker[1])
        self._take(source, decoder)
        self.is_sleepy |= getattr(decoder, "is_sleepy", False)
        if not source.beacon:
            self._maker = decoded.model, decoded.manufacturer
        encrypted = source.encrypted is not None and source.encrypted(packet)
        self.encryption = Encryption.OK if encrypted else Encryption.NONE
        return decoded

    def _take(self, source: Source, decoder: Decoder) -> None:
        """Take note that a device is a source's."""
        self.source = source
        if source.modules:
            self._kept[source.name] = decoder


def of_packet(advertisement: Advertisement) -> Advertisement:
    """Return an advertisement without what the stack keeps of earlier packets.

    Names and service UUIDs stay: they come with the answer to a scan, and help to tell what
    a device is. The data do not: a button would seem to be pressed once more.
    """
    if (raw := advertisement.raw) is None:
        return advertisement
    _, _, service_data, manufacturer_data, _ = parse_advertisement_data_bytes(raw)
    if (
        service_data == advertisement.service_data
        and manufacturer_data == advertisement.manufacturer_data
    ):
        return advertisement
    return Advertisement(
        advertisement.name,
        advertisement.address,
        advertisement.rssi,
        manufacturer_data,
        service_data,
        advertisement.service_uuids,
        advertisement.source,
        advertisement.device,
        None,
        advertisement.connectable,
        advertisement.time,
        advertisement.tx_power,
        raw,
    )


def _is_mixed(packet: Advertisement) -> bool:
    """Tell whether data of several packets stand side by side.

    Local adapters give no raw packet. A library finds out what is new when it sees the next
    one, for which it has to remember this one.
    """
    return packet.raw is None and len(packet.manufacturer_data) > 1


def _shape(packet: Advertisement) -> _Shape:
    """Return the shape of a packet."""
    return (
        tuple(
            (company, len(data)) for company, data in packet.manufacturer_data.items()
        ),
        tuple((uuid, len(data)) for uuid, data in packet.service_data.items()),
        len(packet.service_uuids),
        packet.name,
    )
