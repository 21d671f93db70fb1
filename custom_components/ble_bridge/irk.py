"""Identity resolving keys (IRKs), and what an address tells of itself.

A device that cares for privacy makes up a new random address every few minutes, such that
who holds its IRK knows it again (Core specification, vol 6, part B, 1.3; vol 3, part H, 2.2.2).
Addresses are texts as Home Assistant has them (`AA:BB:CC:DD:EE:FF`, on macOS a UUID), address
types `public`, `random`, or None where the scanner does not tell.
"""

import base64
from collections.abc import Callable, Iterable
import functools
import re
from typing import Final

from bluetooth_data_tools import get_cipher_for_irk, resolve_private_address

IRK_SIZE: Final = 16
CACHED_ADDRESSES: Final = 10_000
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{32}")
_SEPARATORS: Final = re.compile(r"[\s:-]+")
_URL_SAFE: Final = str.maketrans("-_", "+/")
# The two highest bits of a random address are 01 where it is resolvable, 11 where it is
# static.
_RESOLVABLE: Final = frozenset("4567")
_STATIC: Final = frozenset("CDEFcdef")


def parse_irk(text: str) -> tuple[bytes, ...]:
    """Return the keys that a text can mean: as it is written, and in reverse.

    The text is hexadecimal, with or without separators, or base64. Systems disagree about
    the order of the bytes, and only an address that resolves tells which is right. Raises
    ValueError, which never quotes the text.
    """
    key = _decode(re.sub(r"^\s*irk:", "", text, flags=re.IGNORECASE).strip())
    if len(key) != IRK_SIZE:
        raise ValueError("An IRK is 16 bytes")
    if not any(key):
        raise ValueError("An IRK of zeros means that there is none")
    reverse = key[::-1]
    return (key,) if key == reverse else (key, reverse)


def _decode(text: str) -> bytes:
    """Return the bytes that a text in hexadecimal or base64 stands for."""
    digits = _SEPARATORS.sub("", text.removeprefix("0x").removeprefix("0X"))
    if _HEX.fullmatch(digits):
        return bytes.fromhex(digits)
    padded = text.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except ValueError:  # As it stands, the error may quote the key
        raise ValueError("An IRK is hexadecimal or base64") from None


def is_stable(address: str, address_type: str | None) -> bool | None:
    """Tell whether a device keeps this address; None where nobody knows.

    Public and static random addresses stay, private ones (resolvable or not) do not. The
    bits of an address say nothing so long as its type is not known.
    """
    if address_type == "public":
        return True
    if address_type == "random":
        return address[:1] in _STATIC
    return None


def is_resolvable(address: str, address_type: str | None) -> bool:
    """Tell whether an IRK could be behind an address."""
    return (
        address[:1] in _RESOLVABLE
        and address_type != "public"
        and _ADDRESS.fullmatch(address) is not None
    )


def resolves(irk: bytes, address: str) -> bool:
    """Tell whether an address was made with an IRK, given most significant byte first.

    One in 16.8 million foreign addresses is taken for the device's own.
    """
    return is_resolvable(address, None) and resolve_private_address(
        get_cipher_for_irk(irk), address
    )


class Resolver:
    """Finds the device that an address belongs to.

    Random addresses come all day, and each that is not known costs an AES block per IRK
    (2 µs). So the answers for the addresses heard last are kept, those for strangers too.
    """

    def __init__(self, size: int = CACHED_ADDRESSES) -> None:
        self._devices: dict[str, list[Callable[[str], bool]]] = {}
        self._find = functools.lru_cache(maxsize=size)(self._search)

    def add(self, device: str, irks: Iterable[bytes]) -> None:
        """Add a device, or give it other IRKs; any one of them may resolve."""
        self._devices[device] = [
            functools.partial(resolve_private_address, get_cipher_for_irk(irk))
            for irk in irks
        ]
        self._find.cache_clear()

    def remove(self, device: str) -> None:
        """Forget a device; one that is not known is no error."""
        self._devices.pop(device, None)
        self._find.cache_clear()

    def resolve(self, address: str, address_type: str | None = None) -> str | None:
        """Return the device that an address belongs to, or None."""
        if (
            not self._devices
            or address_type == "public"
            or address[:1] not in _RESOLVABLE
        ):
            return None
        return self._find(address)

    def _search(self, address: str) -> str | None:
        if not is_resolvable(address, None):
            return None
        for device, keys in self._devices.items():
            for resolves_with in keys:
                if resolves_with(address):
                    return device
        return None
