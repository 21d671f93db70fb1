"""IRKs as users have them, and the addresses behind which they are."""

import base64
from typing import Any

from bluetooth_data_tools import get_cipher_for_irk, resolve_private_address
from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.irk import (
    Resolver,
    is_resolvable,
    is_stable,
    parse_irk,
    resolves,
)

# The sample data of the Core specification, vol 3, part H, appendix D.7
IRK = bytes.fromhex("ec0234a357c8ad05341010a60a397d9b")
ADDRESS = "70:81:94:0D:FB:AA"
PUBLIC = "00:00:5E:00:53:0E"
LIBRARY = "custom_components.ble_bridge.irk.resolve_private_address"
MAC_OS = "7D1B2C3A-0000-1000-8000-00805F9B34FB"

keys = st.binary(min_size=16, max_size=16).filter(any)
parts = st.integers(0, (1 << 22) - 1)


def address_of(irk: bytes, part: int) -> str:
    """Return the resolvable address that an IRK makes of 22 random bits."""
    prand = (part | 1 << 22).to_bytes(3)
    encryptor = get_cipher_for_irk(irk).encryptor()
    made = prand + encryptor.update(bytes(13) + prand)[13:]
    return made.hex(":").upper()


@pytest.mark.parametrize("key", [IRK, IRK[::-1]])
@pytest.mark.parametrize(
    "form",
    [
        "{hex}",
        "{upper}",
        "0x{hex}",
        "irk:{hex}",
        "IRK: 0x{hex}",
        "  {hex}\n",
        "{colons}",
        "{dashes}",
        "{spaces}",
        "irk:{colons}",
        "{base64}",
        "{unpadded}",
        "irk:{base64}",
    ],
)
def test_parse_irk(form: str, key: bytes) -> None:
    """However a key is written, the first candidate is as given, and one of two resolves."""
    encoded = base64.b64encode(key).decode()
    text = form.format(
        hex=key.hex(),
        upper=key.hex().upper(),
        colons=key.hex(":"),
        dashes=key.hex("-").upper(),
        spaces=key.hex(" ", 4),
        base64=encoded,
        unpadded=encoded.rstrip("="),
    )
    assert parse_irk(text) == (key, key[::-1])
    assert [resolves(found, ADDRESS) for found in parse_irk(text)].count(True) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "irk:",
        "   ",
        "AA:BB:CC:DD:EE:FF",
        IRK.hex()[:-1],
        IRK.hex() + "00",
        IRK.hex()[:-1] + "g",
        base64.b64encode(IRK[:-1]).decode(),
        base64.b64encode(IRK + b"1").decode(),
        "not a key, though quite long",
        "äöü",
        "00" * 16,
        "AAAAAAAAAAAAAAAAAAAAAA==",
    ],
)
def test_no_irk(text: str) -> None:
    """What is no key of 16 bytes is refused, and never quoted: it may nearly be one."""
    with pytest.raises(ValueError, match=r"IRK") as caught:
        parse_irk(text)
    if text.strip():
        assert text not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_palindrome() -> None:
    """A key that reads the same in reverse is one candidate."""
    assert parse_irk("11" * 16) == (b"\x11" * 16,)


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is keys of 16 bytes or a ValueError."""
    try:
        found = parse_irk(text)
    except ValueError:
        return
    assert all(len(key) == 16 for key in found)


@given(keys)
def test_every_key(key: bytes) -> None:
    """Every key comes back from either way of writing, URL-safe base64 too."""
    assert parse_irk(key.hex())[0] == key
    assert parse_irk(base64.b64encode(key).decode())[0] == key
    assert parse_irk(base64.urlsafe_b64encode(key).decode())[0] == key


def test_resolves_the_sample() -> None:
    """The sample of the specification resolves, in either case, and its neighbours do not."""
    assert resolves(IRK, ADDRESS)
    assert resolves(IRK, ADDRESS.lower())
    assert not resolves(IRK[::-1], ADDRESS)
    assert not resolves(IRK, "70:81:94:0D:FB:AB")
    assert not resolves(IRK, "71:81:94:0D:FB:AA")


@pytest.mark.parametrize("text", ["", "7", "70:81:94", "7Z:81:94:0D:FB:AA", MAC_OS])
def test_no_address(text: str) -> None:
    """What is no MAC address resolves to nothing, and raises nothing."""
    assert not resolves(IRK, text)
    assert not is_resolvable(text, "random")
    resolver = Resolver()
    resolver.add("phone", [IRK])
    assert resolver.resolve(text) is None
    assert is_stable(text, None) is None


@given(keys, keys, parts)
def test_generated_addresses(key: bytes, other: bytes, part: int) -> None:
    """An address resolves with the key that made it, and with another one by rare chance."""
    address = address_of(key, part)
    assert is_resolvable(address, "random")
    assert resolves(key, address)
    assert resolves(other, address) is (address == address_of(other, part))


@pytest.mark.parametrize(
    ("address", "address_type", "stable", "resolvable"),
    [
        (PUBLIC, "public", True, False),
        ("70:81:94:0D:FB:AA", "public", True, False),
        ("70:81:94:0D:FB:AA", "random", False, True),
        ("4f:81:94:0D:FB:AA", "random", False, True),
        ("C0:81:94:0D:FB:AA", "random", True, False),
        ("ff:81:94:0D:FB:AA", "random", True, False),
        ("3F:81:94:0D:FB:AA", "random", False, False),
        ("00:81:94:0D:FB:AA", "random", False, False),
        ("80:81:94:0D:FB:AA", "random", False, False),  # Reserved
        (PUBLIC, None, None, False),
        ("C0:81:94:0D:FB:AA", None, None, False),
        ("70:81:94:0D:FB:AA", None, None, True),
        (MAC_OS, None, None, False),
    ],
)
def test_addresses(
    address: str, address_type: str | None, stable: bool | None, resolvable: bool
) -> None:
    """The two highest bits tell, so long as the type is known."""
    assert is_stable(address, address_type) is stable
    assert is_resolvable(address, address_type) is resolvable


def test_resolver() -> None:
    """Each address leads to its device, whichever candidate it takes."""
    resolver = Resolver()
    assert resolver.resolve(ADDRESS) is None
    resolver.add("watch", [bytes(15) + b"\1"])
    assert resolver.resolve(ADDRESS, "random") is None
    resolver.add("phone", parse_irk(IRK[::-1].hex()))  # The miss is not remembered
    assert resolver.resolve(ADDRESS, "random") == "phone"
    assert resolver.resolve(ADDRESS) == "phone"
    assert resolver.resolve(ADDRESS, "public") is None
    assert resolver.resolve(address_of(bytes(15) + b"\1", 5)) == "watch"
    resolver.add("phone", [bytes(15) + b"\2"])  # Another key instead
    assert resolver.resolve(ADDRESS) is None
    resolver.add("phone", [IRK])
    resolver.remove("phone")
    resolver.remove("phone")
    assert resolver.resolve(ADDRESS) is None


def test_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits and misses cost AES once, and only so many are kept."""
    asked: list[str] = []

    def counted(cipher: Any, address: str) -> bool:
        asked.append(address)
        return resolve_private_address(cipher, address)

    monkeypatch.setattr(LIBRARY, counted)
    resolver = Resolver(size=3)
    resolver.add("phone", [IRK])
    stranger = address_of(IRK[::-1], 7)
    for _ in range(5):
        assert resolver.resolve(ADDRESS) == "phone"
        assert resolver.resolve(stranger) is None
    assert asked == [ADDRESS, stranger]
    for part in range(20):  # The one that is asked for stays
        resolver.resolve(address_of(IRK[::-1], part))
        assert resolver.resolve(ADDRESS) == "phone"
    assert asked.count(ADDRESS) == 1
    resolver.resolve(stranger)
    assert asked.count(stranger) == 3


def test_stable_addresses_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be resolved takes no room and no AES."""
    monkeypatch.setattr(LIBRARY, lambda *_: pytest.fail("AES"))
    resolver = Resolver()
    resolver.add("phone", [IRK])
    assert resolver.resolve(PUBLIC, "public") is None
    assert resolver.resolve("C0:81:94:0D:FB:AA", "random") is None
    assert resolver.resolve(PUBLIC) is None
