"""Which source an advertisement leads to, and the counters that packets carry."""

import json
from pathlib import Path

import homeassistant.components
import pytest

from custom_components.ble_bridge.decoders import of_packet
from custom_components.ble_bridge.decoders.counters import Counter
from custom_components.ble_bridge.decoders.fields import FIELDS
from custom_components.ble_bridge.decoders.sources import (
    BEACON_TABLE,
    LIBRARIES,
    LIBRARY_TABLE,
    SOURCES,
    Match,
    Source,
    Table,
)
from custom_components.ble_bridge.records import Advertisement
from scripts import devices_page

from .packets import Frame, frames, loaded, of_frame, packet

TILT = bytes.fromhex("0215a495bb10c5b14b44b5121370f02d74de00440420c5")
IBEACON = bytes.fromhex("0215426c7565436861726d426561636f6e730efe1355c5")
ADDRESS_ON_MACOS = "4125DDBA-2774-4851-9889-6AADDD4CAC3D"
# The integration of Home Assistant that uses a library, where it has matchers.
INTEGRATIONS = {
    "bthome-ble": "bthome",
    "xiaomi-ble": "xiaomi_ble",
    "victron-ble-ha-parser": "victron_ble",
    "qingping-ble": "qingping",
    "PySwitchbot": "switchbot",
    "govee-ble": "govee_ble",
    "inkbird-ble": "inkbird",
    "thermopro-ble": "thermopro",
    "sensorpush-ble": "sensorpush",
    "thermobeacon-ble": "thermobeacon",
    "moat-ble": "moat",
    "mopeka-iot-ble": "mopeka",
    "tilt-ble": "tilt_ble",
    "oralb-ble": "oralb",
    "bluemaestro-ble": "bluemaestro",
    "sensorpro-ble": "sensorpro",
    "aranet4": "aranet",
}
# What Home Assistant connects to, and names and company IDs of packets without data.
LEFT_OUT = [
    ("inkbird", {"local_name": "Ink@IAM-T1"}),
    ("qingping", {"local_name": "Qingping*"}),
    ("qingping", {"local_name": "Lee Guitars*"}),
    ("switchbot", {"manufacturer_id": 89}),
    ("switchbot", {"manufacturer_id": 741}),
]


def names(advertisement: Advertisement) -> list[str]:
    """Return the names of the libraries that an advertisement leads to."""
    return [source.name for source in LIBRARY_TABLE.find(advertisement)]


@pytest.mark.parametrize("frame", frames(), ids=lambda frame: frame["source"])
def test_frames_find_their_library(frame: Frame) -> None:
    """A packet meets few parsers, its own among them."""
    found = names(of_frame(frame))
    assert frame["source"] in found
    assert len(found) <= 2


@pytest.mark.parametrize(("name", "integration"), INTEGRATIONS.items())
def test_as_home_assistant_does(name: str, integration: str) -> None:
    """What Home Assistant discovers for a library leads to it here, too."""
    base = Path(homeassistant.components.__path__[0])
    manifest = json.loads((base / integration / "manifest.json").read_text("utf-8"))
    for matcher in manifest["bluetooth"]:
        matcher.pop("connectable", None)
        if (integration, matcher) in LEFT_OUT:
            continue
        start = bytes(matcher.get("manufacturer_data_start", ()))
        service_data = matcher.get("service_data_uuid")
        local_name = matcher.get("local_name", "")
        advertisement = packet(
            {matcher["manufacturer_id"]: start + bytes([0x10] * 9)}
            if "manufacturer_id" in matcher
            else {},
            {service_data: b"\0"} if service_data else {},
            local_name.replace("*", "X") if local_name.endswith("*") else local_name,
            service_uuids=[matcher["service_uuid"]]
            if "service_uuid" in matcher
            else [],
        )
        if integration == "tilt_ble":
            advertisement = packet({0x4C: TILT})
        elif integration == "sensorpro":
            advertisement = packet({0xAA55: start})
        assert name in names(advertisement), matcher


def test_beacons_are_last() -> None:
    """A sensor that looks like a beacon is a sensor first."""
    tilt = packet({0x4C: TILT})
    assert names(tilt) == ["tilt-ble"]
    assert [source.name for source in loaded().sources(tilt)] == ["tilt-ble", "ibeacon"]
    assert [source.name for source in loaded().sources(packet({0x4C: IBEACON}))] == [
        "ibeacon"
    ]
    eddystone = packet({}, {"feaa": b"\0"})
    assert [source.name for source in BEACON_TABLE.find(eddystone)] == ["eddystone"]


def test_address_in_the_data() -> None:
    """Thirteen bytes are a scale's if they end in its address."""
    data = bytes.fromhex("06a400000002305f5a5c52d394")
    assert names(packet({57280: data}, address="5F:5A:5C:52:D3:94")) == ["leaone-ble"]
    assert names(packet({57280: data})) == []
    assert names(packet({57280: data}, address=ADDRESS_ON_MACOS)) == []


def test_devices_page_is_current() -> None:
    """The page tells of what the tables decode; python -m scripts.devices_page writes it."""
    assert devices_page.PAGE.read_text(encoding="utf-8") == devices_page.page()
    assert devices_page._MEANINGS.keys() <= FIELDS.keys()
    keyed = {source.name for source in LIBRARIES if source.key_lengths}
    assert devices_page._KEYS.keys() == keyed


def test_noise_leads_nowhere() -> None:
    """Phones, and names that look like something else, meet no parser."""
    assert names(packet({0x4C: bytes.fromhex("10050318fe")})) == []
    assert names(packet({0xFFFF: bytes(26)}, {"180f": b"d"}, "Phone")) == []
    assert names(packet(name="G")) == names(packet(name="")) == []
    assert names(packet(name="sps2")) == []
    assert names(packet(name="sps")) == ["inkbird-ble"]
    assert names(packet({1: b"\1"}, {"fcd2": b""}, "Govee")) == [
        "bthome-ble",
        "govee-ble",
    ]


def test_candidates_come_once() -> None:
    """What has several signs of a source is one of its packets."""
    source = Source(name="s", title="S", match=Match((1, 2), names=("S*",)))
    assert Table([source]).find(packet({1: b"", 2: b""}, name="S")) == (source,)
    assert Table([source]).find(packet({1: b"", 2: b""}, name="Shelf")) == (source,)


def test_sources_are_whole() -> None:
    """Each library has what it takes to be asked, and keys only where it tells of them."""
    for source in LIBRARIES:
        assert source.modules
        assert source.make
        assert source.title
        assert not source.beacon
        assert bool(source.key_lengths) is bool(source.encrypted)
    assert [*SOURCES][-3:] == ["formats", "ibeacon", "eddystone"]


def counter(advertisement: Advertisement) -> Counter | None:
    """Return the counter of a packet."""
    return loaded().device().counter(advertisement)


@pytest.mark.parametrize(
    ("uuid", "data", "value"),
    [
        ("fcd2", "40000902ca09", (9, 256)),
        ("fcd2", "44002a3a01", (42, 256)),
        ("fcd2", "42aabbccddeeff000902ca09", (9, 256)),
        ("fcd2", "4002ca09", None),
        ("fcd2", "4000", None),
        ("fcd2", "40", None),
        ("fcd2", "", None),
        ("fcd2", "41a47266c95f730011223378237214", (0x33221100, 1 << 32)),
        ("fcd2", "4100112233aabbcc", None),
        ("181c", "02000c0403138a01", (12, 256)),
        ("181c", "0403138a01", None),
        ("181e", "fba435e4d3c312fb0011223357d90a99", (0x33221100, 1 << 32)),
        ("fe95", "70205b0412", (0x12, 256)),
        ("fe95", "70205b04", None),
        ("181d", "228a43e507061a0a0f1a", None),
        ("fdcd", "4812cdd560342d580804012d01000f01b7", (0xB7, 256)),
        ("fdcd", "0812cdd560342d580201640f0198", None),
        ("fdcd", "4812cdd560342d580f02", None),
        ("fdcd", "", None),
    ],
)
def test_counter_in_service_data(uuid: str, data: str, value: Counter | None) -> None:
    """The counter is read from the bytes, without a library."""
    assert counter(packet({}, {uuid: bytes.fromhex(data)})) == value


@pytest.mark.parametrize(
    ("company_id", "data", "value"),
    [
        (0x0499, "0512fc5394c37c0004fffc040cac364200cdcbb8334c884f", (205, 1 << 16)),
        (0x0499, "0512fc5394c37c0004fffc040cac3642ffffcbb8334c884f", None),
        (0x0499, "06170c5668c79e007000c90501d9ffcd004c884f", (0xCD, 256)),
        (0x0499, "03291a1ece1efc18f94202ca0b53", None),
        (0x0499, "05", None),
        (0x0499, "", None),
        (0x02E1, "100289a302b040af925d09a4d89aa0128bdef48c6298a9", (0x40B0, 1 << 16)),
        (0x02E1, "100289", None),
        (0x02E1, "020289a302b040af", None),
        (2409, "d48c495595b208068833", None),
    ],
)
def test_counter_in_manufacturer_data(
    company_id: int, data: str, value: Counter | None
) -> None:
    """The counter is read from the bytes, without a library."""
    assert counter(packet({company_id: bytes.fromhex(data)})) == value


def test_of_packet() -> None:
    """What the stack keeps of earlier packets is not what this one says."""
    raw = bytes.fromhex("0716d2fc403a0103")[:8]
    advertisement = packet({0x0499: b"\5"}, {"fcd2": b"@:\1", "180f": b"d"}, raw=raw)
    now = of_packet(advertisement)
    assert now.manufacturer_data == {}
    assert [*now.service_data] == ["0000fcd2-0000-1000-8000-00805f9b34fb"]
    assert of_packet(now) is now
    without_raw = packet({0x0499: b"\5"}, {"180f": b"d"})
    assert of_packet(without_raw) is without_raw
