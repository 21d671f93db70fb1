"""Who decodes what: company IDs, service UUIDs and names → parser libraries.

What is found is a few candidates, the likeliest first; a library has the last word on
whether a packet is one of its own. The keys are those of the libraries themselves and of
the integrations of Home Assistant that use them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..records import Advertisement
from . import counters
from .beacons import APPLE, Eddystone, IBeacon
from .counters import Counter
from .libraries import BTHomeDecoder, Library, VictronDecoder, XiaomiDecoder
from .model import Decoder
from .others import SWITCHBOT, AranetDecoder, SwitchbotDecoder

_BASE_UUID: Final = "0000{:04x}-0000-1000-8000-00805f9b34fb"
_PREFIX: Final = 3  # Characters of a name by which patterns are found


@dataclass(frozen=True, slots=True)
class Match:
    """A sign of a source: what has it may be decoded there.

    Data of a company begin with one of `starts`, and have `length` bytes where that is
    given; where only that is given, they end in the address. A name is exact, or a prefix
    if it ends in `*`.
    """

    company_ids: tuple[int, ...] = ()
    starts: tuple[bytes, ...] = (b"",)
    length: int | None = None
    service_data: tuple[int, ...] = ()
    service_uuids: tuple[int | str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Source:
    """Something that decodes: a library, the table of formats, or beacons.

    `name` is what PyPI calls a library, `title` what people call the products. `modules`
    are to be imported before `make` is called. `key_lengths` are in bytes, and empty where
    nothing is encrypted.
    """

    name: str
    title: str
    make: Callable[[bytes | None], Decoder] | None = None
    modules: tuple[str, ...] = ()
    key_lengths: tuple[int, ...] = ()
    encrypted: Callable[[Advertisement], bool] | None = None
    counter: Callable[[Advertisement], Counter | None] | None = None
    match: Match = Match()
    beacon: bool = False


def _plain(
    name: str,
    title: str,
    library: Library,
    match: Match,
    counter: Callable[[Advertisement], Counter | None] | None = None,
) -> Source:
    """Return the source of a library for devices that encrypt nothing."""
    return Source(
        name=name,
        title=title,
        make=library,
        modules=(library.module,),
        match=match,
        counter=counter,
    )


LIBRARIES: Final = (
    Source(
        name="bthome-ble",
        title="BTHome",
        make=partial(
            BTHomeDecoder,
            Library("bthome_ble", "BTHomeBluetoothDeviceData", "BTHome sensor"),
        ),
        modules=("bthome_ble",),
        key_lengths=BTHomeDecoder.key_lengths,
        encrypted=counters.bthome_encrypted,
        counter=counters.bthome_counter,
        match=Match(service_data=(0xFCD2, 0x181C, 0x181E)),
    ),
    Source(
        name="xiaomi-ble",
        title="Xiaomi",
        make=partial(
            XiaomiDecoder,
            Library("xiaomi_ble", "XiaomiBluetoothDeviceData", "Xiaomi"),
        ),
        modules=("xiaomi_ble",),
        key_lengths=XiaomiDecoder.key_lengths,
        encrypted=counters.xiaomi_encrypted,
        counter=counters.xiaomi_counter,
        match=Match(service_data=(0xFE95, 0xFD50, 0x181B, 0x181D)),
    ),
    Source(
        name="victron-ble-ha-parser",
        title="Victron",
        make=partial(
            VictronDecoder,
            Library("victron_ble_ha_parser", "VictronBluetoothDeviceData", "Victron"),
        ),
        modules=("victron_ble_ha_parser",),
        key_lengths=VictronDecoder.key_lengths,
        encrypted=counters.victron_encrypted,
        counter=counters.victron_counter,
        match=Match(company_ids=(counters.VICTRON,), starts=(b"\x10",)),
    ),
    _plain(
        "ruuvitag-ble",
        "Ruuvi",
        Library("ruuvitag_ble", "RuuvitagBluetoothDeviceData", "RuuviTag"),
        Match(company_ids=(counters.RUUVI,)),
        counters.ruuvi_counter,
    ),
    _plain(
        "qingping-ble",
        "Qingping",
        Library("qingping_ble", "QingpingBluetoothDeviceData", "Qingping"),
        Match(service_data=(0xFDCD,)),
        counters.qingping_counter,
    ),
    Source(
        name="PySwitchbot",
        title="SwitchBot",
        make=SwitchbotDecoder,
        modules=("switchbot",),
        match=Match(
            company_ids=(SWITCHBOT,),
            service_data=(0xFD3D, 0x0D00),
            service_uuids=("cba20d00-224d-11e6-9fb8-0002a5d5c51b",),
        ),
    ),
    Source(
        name="aranet4",
        title="Aranet",
        make=AranetDecoder,
        modules=("aranet4.client",),
        match=Match(company_ids=(0x0702,)),
    ),
    _plain(
        "govee-ble",
        "Govee",
        Library("govee_ble", "GoveeBluetoothDeviceData", "Govee", first_button=0),
        Match(
            company_ids=(0xEC88, 0xEF88, 0x8801, 0x8803, 0x8843, 0x4C32),
            service_uuids=(
                *(0x5550, 0x8151, 0x8251, 0x8351, 0x8451, 0x8551, 0x9151, 0x9851),
                0xEC88,
            ),
            names=("Govee*", "GVH5*", "GV5*", "B5178*"),
        ),
    ),
    _plain(
        "inkbird-ble",
        "Inkbird",
        Library("inkbird_ble", "INKBIRDBluetoothDeviceData", "Inkbird"),
        Match(
            company_ids=(0x2449, 0x3154, 0x3254),
            names=(
                *("sps", "tps", "Inkbird*", "iBBQ*", "xBBQ*", "IBS-P02B"),
                *("ITH-11-B", "ITH-13-B", "ITH-21-B", "Ink@IAM-T2"),
            ),
        ),
    ),
    _plain(
        "thermopro-ble",
        "ThermoPro",
        Library("thermopro_ble", "ThermoProBluetoothDeviceData", "ThermoPro"),
        Match(names=("TP35*", "TP39*", "TP96*", "TP97*")),
    ),
    _plain(
        "sensorpush-ble",
        "SensorPush",
        Library("sensorpush_ble", "SensorPushBluetoothDeviceData", "SensorPush"),
        Match(
            service_uuids=(
                "ef090000-11d6-42ba-93b8-9dd7ec090aa9",
                "ef090000-11d6-42ba-93b8-9dd7ec090ab0",
            ),
            names=("SensorPush*",),
        ),
    ),
    _plain(
        "thermobeacon-ble",
        "ThermoBeacon",
        Library(
            "thermobeacon_ble",
            "ThermoBeaconBluetoothDeviceData",
            "ThermoBeacon",
            names={"occupancy": "button_pressed"},
        ),
        Match(
            company_ids=(0x10, 0x11, 0x14, 0x15, 0x18, 0x1B, 0x30),
            starts=(b"\0",),
            names=("ThermoBeacon",),
        ),
    ),
    _plain(
        "moat-ble",
        "Moat",
        Library("moat_ble", "MoatBluetoothDeviceData", "Moat"),
        Match(service_data=(0x1000,), names=("Moat_S*",)),
    ),
    _plain(
        "mopeka-iot-ble",
        "Mopeka",
        Library(
            "mopeka_iot_ble",
            "MopekaIOTBluetoothDeviceData",
            "Mopeka",
            names={"battery_voltage": "voltage", "tank_level": "tank_level_height"},
        ),
        Match(service_uuids=(0xFEE5,)),
    ),
    _plain(
        "tilt-ble",
        "Tilt",
        Library("tilt_ble", "TiltBluetoothDeviceData", "Tilt", prefixed=True),
        Match(company_ids=(APPLE,), starts=(bytes.fromhex("0215a495bb"),)),
    ),
    _plain(
        "oralb-ble",
        "Oral-B",
        Library(
            "oralb_ble",
            "OralBBluetoothDeviceData",
            "Oral-B",
            names={"time": "brushing_time", "pressure": "brushing_pressure"},
        ),
        Match(company_ids=(0x00DC,)),
    ),
    _plain(
        "kegtron-ble",
        "Kegtron",
        Library("kegtron_ble", "KegtronBluetoothDeviceData", "Kegtron"),
        Match(company_ids=(0xFFFF,), length=27),
    ),
    _plain(
        "bluemaestro-ble",
        "Blue Maestro",
        Library("bluemaestro_ble", "BlueMaestroBluetoothDeviceData", "Tempo Disc"),
        Match(company_ids=(0x0133,)),
    ),
    _plain(
        "sensirion-ble",
        "Sensirion",
        Library("sensirion_ble", "SensirionBluetoothDeviceData", "Sensirion"),
        Match(company_ids=(0x06D5,)),
    ),
    _plain(
        "sensorpro-ble",
        "SensorPro",
        Library("sensorpro_ble", "SensorProBluetoothDeviceData", "SensorPro"),
        Match(
            company_ids=(0xAA55,),
            starts=(bytes.fromhex("0101a4c1"), bytes.fromhex("0105a4c1")),
        ),
    ),
    _plain(
        "rapt-ble",
        "RAPT",
        Library("rapt_ble", "RAPTPillBluetoothDeviceData", "RAPT Pill hydrometer"),
        Match(company_ids=(0x4152,), starts=(b"PT",)),
    ),
    _plain(
        "leaone-ble",
        "Leaone",
        Library("leaone_ble", "LeaoneBluetoothDeviceData", "Leaone"),
        Match(length=13),
    ),
)
FORMATS: Final = Source(name="formats", title="Fixed formats")
BEACONS: Final = (
    Source(
        name="ibeacon",
        title="iBeacon",
        make=lambda _key: IBeacon(),
        match=Match(company_ids=(APPLE,), starts=(b"\x02\x15",)),
        beacon=True,
    ),
    Source(
        name="eddystone",
        title="Eddystone",
        make=lambda _key: Eddystone(),
        match=Match(service_data=(0xFEAA,)),
        beacon=True,
    ),
)
SOURCES: Final = {source.name: source for source in (*LIBRARIES, FORMATS, *BEACONS)}


def full_uuid(uuid: int | str) -> str:
    """Return a service UUID of 16 bits as 128 bits."""
    return uuid if isinstance(uuid, str) else _BASE_UUID.format(uuid)


class Table:
    """Finds the sources that an advertisement may be of, by look-ups alone."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._companies: dict[int, list[Source]] = {}
        self._lengths: dict[int, list[Source]] = {}
        self._service_data: dict[str, list[Source]] = {}
        self._service_uuids: dict[str, list[Source]] = {}
        self._names: dict[str, list[tuple[str, Source]]] = {}
        for source in sources:
            match = source.match
            for company_id in match.company_ids:
                self._companies.setdefault(company_id, []).append(source)
            if match.length is not None and not match.company_ids:
                self._lengths.setdefault(match.length, []).append(source)
            for uuid in match.service_data:
                self._service_data.setdefault(full_uuid(uuid), []).append(source)
            for service_uuid in match.service_uuids:
                self._service_uuids.setdefault(full_uuid(service_uuid), []).append(
                    source
                )
            for name in match.names:
                self._names.setdefault(name[:_PREFIX], []).append((name, source))

    def find(self, advertisement: Advertisement) -> tuple[Source, ...]:
        """Return the sources of an advertisement, the likeliest first."""
        return tuple(dict.fromkeys(self._find(advertisement)))

    def _find(self, advertisement: Advertisement) -> Iterator[Source]:
        for uuid in advertisement.service_data:
            yield from self._service_data.get(uuid, ())
        for company_id, data in advertisement.manufacturer_data.items():
            for source in self._companies.get(company_id, ()):
                match = source.match
                if data.startswith(match.starts) and match.length in (None, len(data)):
                    yield source
            if (sources := self._lengths.get(len(data))) and data[-6:].hex(
                ":"
            ).upper() == advertisement.address:
                yield from sources
        for uuid in advertisement.service_uuids:
            yield from self._service_uuids.get(uuid, ())
        name = advertisement.name or ""
        for pattern, source in self._names.get(name[:_PREFIX], ()):
            if name == pattern or (
                pattern.endswith("*") and name.startswith(pattern[:-1])
            ):
                yield source


LIBRARY_TABLE: Final = Table(LIBRARIES)
BEACON_TABLE: Final = Table(BEACONS)
