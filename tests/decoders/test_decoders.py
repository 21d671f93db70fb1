"""The decoders as one: what is loaded when, who is asked, and what nothing can break."""

import ast
from pathlib import Path
import struct
import subprocess
import sys
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from custom_components.ble_bridge.decoders import Decoders, DeviceDecoder, Encryption
from custom_components.ble_bridge.decoders.model import (
    Decoded,
    DecodeError,
    KeyMissing,
    KeyWrong,
)
from custom_components.ble_bridge.decoders.sources import LIBRARIES, SOURCES, Source
from custom_components.ble_bridge.records import Advertisement, Value

from .packets import frames, loaded, of_frame, packet

PACKAGE = Path(__file__).parents[2] / "custom_components/ble_bridge/decoders"
TEMPERATURE = bytes.fromhex("4002ca09")
HUMIDITY = bytes.fromhex("4003bf13")
IBEACON = bytes.fromhex("0215426c7565436861726d426561636f6e730efe1355c5")
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
ENCRYPTED = bytes.fromhex("41a47266c95f730011223378237214")
ENCRYPTED_ADDRESS = "54:48:E6:8F:80:A5"


def bthome(data: bytes, **more: Any) -> Advertisement:
    """Return a BTHome packet."""
    return packet({}, {"fcd2": data}, **more)


def is_pending(device: DeviceDecoder) -> bool:
    """Tell whether a device waits for its library."""
    return device.pending


def encryption(device: DeviceDecoder) -> Encryption:
    """Return whether the last packet was encrypted."""
    return device.encryption


def encrypted(counter: int, **more: Any) -> Advertisement:
    """Return an encrypted BTHome packet that says 25.06 °C."""
    nonce = b"".join(
        (bytes.fromhex(ENCRYPTED_ADDRESS.replace(":", "")), b"\xd2\xfc\x41")
    ) + struct.pack("<I", counter)
    sealed = AESCCM(KEY, tag_length=4).encrypt(nonce, TEMPERATURE[1:], None)
    data = b"\x41" + sealed[:-4] + struct.pack("<I", counter) + sealed[-4:]
    return bthome(data, address=ENCRYPTED_ADDRESS, **more)


def test_nothing_of_home_assistant() -> None:
    """The decoders can be used without Home Assistant."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.startswith("homeassistant") for name in modules), path


def test_no_library_is_loaded_before_it_is_wanted() -> None:
    """Importing the decoders costs no library; loading one costs that one."""
    code = """
import sys, types
package = types.ModuleType("ble_bridge")
package.__path__ = ["custom_components/ble_bridge"]
sys.modules["ble_bridge"] = package
from ble_bridge.decoders import Decoders
from ble_bridge.decoders.sources import LIBRARIES
modules = {module.partition(".")[0] for source in LIBRARIES for module in source.modules}
assert not modules & sys.modules.keys(), modules & sys.modules.keys()
assert "homeassistant" not in sys.modules
Decoders(print).load("ruuvitag-ble")
assert modules & sys.modules.keys() == {"ruuvitag_ble"}, modules & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parents[2])


def test_library_is_wanted_once() -> None:
    """The first packet asks for its library; it is decoded once that is loaded."""
    wanted: list[str] = []
    decoders = Decoders(wanted.append)
    device, other = decoders.device(), decoders.device()
    for _ in range(2):
        assert device.decode(bthome(TEMPERATURE)) is None
        assert is_pending(device)
    assert other.decode(bthome(TEMPERATURE)) is None
    assert wanted == ["bthome-ble"]
    decoders.load("bthome-ble")
    decoded = device.decode(bthome(TEMPERATURE))
    assert decoded == Decoded("BTHome sensor", None, {"temperature": 25.06}, {})
    assert not is_pending(device)
    assert device.source is SOURCES["bthome-ble"]
    assert wanted == ["bthome-ble"]


def test_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be imported is left alone from then on, and hides nothing else."""
    wanted: list[str] = []
    decoders = Decoders(wanted.append)
    decoders.load("formats")
    advertisement = packet({0x4C: IBEACON}, {"fcd2": TEMPERATURE})
    device = decoders.device()
    assert device.decode(advertisement) is None
    assert is_pending(device)
    monkeypatch.setitem(sys.modules, "bthome_ble", None)
    with pytest.raises(ImportError, match="bthome-ble cannot be loaded"):
        decoders.load("bthome-ble")
    decoded = device.decode(advertisement)
    assert decoded is not None
    assert decoded.model == "iBeacon"
    assert not is_pending(device)
    assert wanted == ["bthome-ble"]
    with pytest.raises(DecodeError, match="not loaded"):
        decoders.check_key(bthome(ENCRYPTED), KEY)


def test_formats_are_loaded_when_no_library_takes_a_packet() -> None:
    """The table is read when it is needed, and beacons wait for it."""
    wanted: list[str] = []
    decoders = Decoders(wanted.append)
    device = decoders.device()
    advertisement = packet({0x4C: IBEACON})
    assert device.decode(advertisement) is None
    assert is_pending(device)
    assert wanted == ["formats"]
    decoders.load("formats")
    decoded = device.decode(advertisement)
    assert decoded is not None
    assert device.source is SOURCES["ibeacon"]


def test_beacon_does_not_hide_the_sensor() -> None:
    """A sensor that is a beacon, too, is the sensor, in whichever order it says so."""
    beacon = packet({0x4C: IBEACON})
    device = loaded().device()
    first = device.decode(beacon)
    assert first is not None
    assert first.model == "iBeacon"
    both = device.decode(packet({0x4C: IBEACON}, {"fcd2": TEMPERATURE}))
    assert both is not None
    assert both.values == {"temperature": 25.06}
    assert device.source is SOURCES["bthome-ble"]
    again = device.decode(beacon)
    assert again is not None
    assert again.model == "BTHome sensor"
    assert "beacon_uuid" in again.values
    assert device.source is SOURCES["bthome-ble"]


def test_device_may_become_another() -> None:
    """New firmware: what took the device no longer does, and another source is found."""
    device = loaded().device()
    assert device.decode(bthome(TEMPERATURE))
    ruuvi = next(frame for frame in frames() if frame["source"] == "ruuvitag-ble")
    decoded = device.decode(of_frame(ruuvi))
    assert decoded is not None
    assert decoded.model == "RuuviTag"
    assert device.source is SOURCES["ruuvitag-ble"]


class Counting:
    """A decoder that counts how often it is asked."""

    asked = 0

    def decode(self, advertisement: Advertisement) -> Decoded | None:
        """Take nothing, or raise if the packet says so."""
        Counting.asked += 1
        if b"raise" in advertisement.manufacturer_data.values():
            raise AssertionError("no")
        return None


@pytest.fixture(name="counting")
def counting_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a decoder that counts in the place of all."""
    Counting.asked = 0
    monkeypatch.setattr(Decoders, "make", lambda *_: Counting())


@pytest.mark.usefixtures("counting")
def test_what_nobody_takes_is_asked_again_when_its_shape_changes() -> None:
    """The same shape with other values costs no look-up."""
    device = loaded().device()
    for value in range(5):
        assert device.decode(packet({0x0499: bytes([8, value])})) is None
    assert Counting.asked == 2  # The library and the formats
    assert device.decode(packet({0x0499: bytes(3)})) is None
    assert Counting.asked == 4
    assert device.decode(packet({0x0499: bytes(3)}, name="Ruuvi")) is None
    assert Counting.asked == 6


@pytest.mark.usefixtures("counting")
def test_library_that_raises_costs_a_packet() -> None:
    """Whatever a library raises is told as one error, with its cause."""
    device = loaded().device()
    with pytest.raises(DecodeError, match="AssertionError: no") as raised:
        device.decode(packet({0x0499: b"raise"}))
    assert isinstance(raised.value.__cause__, AssertionError)
    assert Counting.asked == 2
    assert device.decode(packet({0x0499: b"what"})) is None


def test_library_that_raised_says_nothing_old() -> None:
    """What a parser found before it raised is not said by the next packet."""
    device = loaded().device()
    # A temperature, then somebody who began to brush their teeth at no time at all.
    start = bytes.fromhex("4020aa01")
    bad = start + bytes.fromhex("01041002e60003300100")
    with pytest.raises(DecodeError, match="error: unpack") as raised:
        device.decode(packet({}, {"fe95": bad}))
    assert isinstance(raised.value.__cause__, struct.error)
    humidity = start + bytes.fromhex("02061002f401")
    decoded = device.decode(packet({}, {"fe95": humidity}))
    assert decoded is not None
    assert decoded.values == {"humidity": 50.0}


def test_merged_manufacturer_data_without_raw() -> None:
    """A local adapter piles up what was said; from the second packet on it is told apart."""
    device = loaded().device()
    first = {
        2063: bytes.fromhex("c0120170086406"),
        2083: bytes.fromhex("120177086406aa"),
    }
    assert device.decode(packet(first, name="sps")) is None
    more = {**first, 2044: bytes.fromhex("c71200c83d5606")}
    decoded = device.decode(packet(more, name="sps"))
    assert decoded is not None
    assert decoded.values == {"temperature": 20.44, "humidity": 48.07, "battery": 86}


def test_old_data_are_not_said_again() -> None:
    """The stack keeps a press that was said before; a packet without it says none."""
    press = bytes.fromhex("0616d2fc403a01")
    device = loaded().device()
    first = device.decode(packet({}, {"fcd2": b"@:\1"}, raw=press))
    assert first is not None
    assert first.events == {"button": "press"}
    other = bytes.fromhex("05ffa90b0b00")
    again = packet({0x0BA9: b"\x0b\0"}, {"fcd2": b"@:\1"}, raw=other, time=60)
    assert device.decode(again) is None
    assert device.source is SOURCES["bthome-ble"]


def test_replay_is_an_error() -> None:
    """An encrypted packet with an old counter is not believed, and that is told."""
    device = loaded().device(KEY)
    for counter in (1000, 1001):
        decoded = device.decode(encrypted(counter))
        assert decoded is not None
        assert decoded.values == {"temperature": 25.06}
        assert encryption(device) == Encryption.OK
    with pytest.raises(DecodeError, match="replay") as raised:
        device.decode(encrypted(900))
    assert not isinstance(raised.value, KeyWrong | KeyMissing)
    assert loaded().check_key(encrypted(900), KEY) == Encryption.OK
    # A device that begins anew is believed.
    assert device.decode(encrypted(1))


def test_damaged_packet_does_not_blame_the_key_later() -> None:
    """A wrong packet is one; the next that is right is right."""
    device = loaded().device(KEY)
    assert device.decode(encrypted(1000))
    with pytest.raises(KeyWrong):
        device.decode(bthome(ENCRYPTED[:-1] + b"!", address=ENCRYPTED_ADDRESS))
    assert encryption(device) == Encryption.KEY_WRONG
    assert device.decode(encrypted(1001))
    assert encryption(device) == Encryption.OK


def test_plain_packet_of_a_device_with_a_key() -> None:
    """What is not encrypted could be anybody's, where a key is known."""
    device = loaded().device(KEY)
    with pytest.raises(DecodeError, match="not encrypted") as raised:
        device.decode(bthome(TEMPERATURE))
    assert not isinstance(raised.value, KeyWrong | KeyMissing)


def test_unknown_device_with_encryption_wants_no_key() -> None:
    """A product that the library does not know cannot be decoded with any key."""
    device = loaded().device()
    unknown = bytes.fromhex("5858ffee01483cd438c1a4") + bytes(12)
    assert device.decode(packet({}, {"fe95": unknown})) is None
    assert device.source is None


# --- arbitrary bytes --------------------------------------------------------------------

BYTES = st.binary(max_size=40)


def legal(value: Value) -> bool:
    """Tell whether a value is one."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and legal(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(legal, value))
    if isinstance(value, float):
        return value - value == 0
    return type(value) in (int, str, bool)


@st.composite
def packets(draw: st.DrawFn, source: Source) -> Advertisement:
    """Return packets that lead to a source, and some that nearly do."""
    known = [of_frame(frame) for frame in frames() if frame["source"] == source.name]
    like = draw(st.sampled_from(known))

    def spoil(data: bytes) -> bytes:
        match draw(st.integers(0, 3)):
            case 0:
                return draw(BYTES)
            case 1:
                return data[: draw(st.integers(0, len(data)))] + draw(
                    st.binary(max_size=8)
                )
            case 2:
                spoiled = bytearray(data)
                for at in draw(
                    st.lists(st.integers(0, max(0, len(data) - 1)), max_size=4)
                ):
                    if spoiled:
                        spoiled[at] = draw(st.integers(0, 255))
                return bytes(spoiled)
        return data

    manufacturer_data = {
        company_id: spoil(data) for company_id, data in like.manufacturer_data.items()
    }
    service_data = {uuid: spoil(data) for uuid, data in like.service_data.items()}
    if draw(st.booleans()):
        manufacturer_data[draw(st.sampled_from([1, 0x4C, 2409, 0xFFFF]))] = draw(BYTES)
    name = draw(st.sampled_from([like.name, "", like.address]) | st.text(max_size=20))
    return packet(
        manufacturer_data,
        service_data,
        name,
        service_uuids=like.service_uuids,
        address=like.address,
        time=draw(st.floats(0, 20)),
        raw=draw(st.none() | st.binary(max_size=62)),
    )


@pytest.mark.parametrize("source", LIBRARIES, ids=lambda source: source.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_arbitrary_bytes(source: Source, data: st.DataObject) -> None:
    """Whatever a device sends, there are values or none, or an error that we know."""
    key = data.draw(st.sampled_from([None, KEY, bytes(12), b"x"]))
    device = loaded().device(key)
    for advertisement in data.draw(st.lists(packets(source), min_size=1, max_size=4)):
        counter = device.counter(advertisement)
        assert counter is None or 0 <= counter[0] < counter[1]
        assert loaded().check_key(advertisement, KEY) in Encryption
        try:
            decoded = device.decode(advertisement)
        except DecodeError:
            continue
        assert not is_pending(device)
        if decoded is not None:
            assert decoded.values or decoded.events
            assert decoded.model
            assert isinstance(decoded.model, str)
            for name, value in decoded.values.items():
                assert name.isidentifier() or name[0].isdigit()
                assert legal(value), (name, value)
            for name, event in decoded.events.items():
                assert name.isidentifier()
                assert isinstance(event, str)
