"""What decoders give: the values of one packet, under names that do not change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
import struct
from typing import Final, Protocol

from ..records import Advertisement, Value

NO_VALUES: Final[Mapping[str, Value]] = {}
NO_EVENTS: Final[Mapping[str, str]] = {}
_FLOAT32: Final = struct.Struct("f")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one packet says.

    `values` and `events` go by the names of `fields.py`, in the units given there; an event is
    something that happened (`{"button": "double_press"}`), and is over when it is said.
    `model` is the product or the format, `manufacturer` who makes it.
    """

    model: str
    manufacturer: str | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)


class DecodeError(Exception):
    """A packet of a device that is known, but that cannot be decoded."""


class KeyMissing(DecodeError):
    """The packet is encrypted, and there is no key."""


class KeyWrong(DecodeError):
    """The packet is encrypted, and not with this key."""


class Decoder(Protocol):
    """Decodes the packets of one device, in the order in which they were sent."""

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Return what a packet says, or None if it says nothing that is known.

        Raises KeyMissing or KeyWrong. Libraries may raise anything else on bytes that they
        do not expect; who calls counts it as that packet's.
        """
        ...


def clean_float(value: float) -> float | None:
    """Return a number as the device gave it: 21.4, not 21.399999618530273.

    What arithmetic or single precision added is taken away; infinities and NaN are no
    values.
    """
    if not math.isfinite(value):
        return None
    try:
        single = _FLOAT32.unpack(_FLOAT32.pack(value))[0] == value
    except OverflowError:
        single = False
    if single:
        for digits in range(6, 9):
            shorter = float(f"{value:.{digits}g}")
            if _FLOAT32.unpack(_FLOAT32.pack(shorter))[0] == value:
                return shorter
    return float(f"{value:.12g}")
