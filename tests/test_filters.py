"""Which devices go out."""

from typing import Any

from hypothesis import given
import pytest

from custom_components.ble_bridge.filters import (
    DeviceList,
    Filter,
    parse_address,
    parse_company_id,
    parse_name,
    parse_service_uuid,
)

from .layouts.samples import ADDRESS, UUID, advertisement, advertisements, texts

EDDYSTONE = "0000feaa-0000-1000-8000-00805f9b34fb"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("A4:C1:38:AA:BB:CC", "A4:C1:38:AA:BB:CC"),
        ("a4:c1:38:aa:bb:cc", "A4:C1:38:AA:BB:CC"),
        ("A4-C1-38-AA-BB-CC", "A4:C1:38:AA:BB:CC"),
        ("a4c138aabbcc", "A4:C1:38:AA:BB:CC"),
        (" A4C138AABBCC\n", "A4:C1:38:AA:BB:CC"),
        (
            "5f0c2e3a-0000-4000-8000-0123456789ab",
            "5F0C2E3A-0000-4000-8000-0123456789AB",
        ),
    ],
)
def test_address(text: str, address: str) -> None:
    """The usual spellings of an address are one address."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "A4:C1:38:AA:BB",
        "A4:C1:38:AA:BB:CC:DD",
        "A4:C1:38:AA:BB:CG",
        "A4:C1-38:AA-BB:CC",
        "A4C:138:AAB:BCC",
        "-A4C138AABBCC",
        "A4:C1:38:*",
        "A4.C1.38.AA.BB.CC",
        "Ａ4C138AABBCC",  # noqa: RUF001
        "a4c138aabbcc\0",
    ],
)
def test_no_address(text: str) -> None:
    """Anything else is none."""
    with pytest.raises(ValueError, match=r".*"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "company_id"),
    [
        ("0x004C", 0x004C),
        ("0X4c", 0x004C),
        ("004C", 0x004C),
        ("1234", 0x1234),
        ("76", 76),
        ("0", 0),
        ("65535", 0xFFFF),
        ("ffff", 0xFFFF),
        (" 0x0499 ", 0x0499),
    ],
)
def test_company_id(text: str, company_id: int) -> None:
    """Four digits or a leading 0x are hexadecimal, anything else is decimal."""
    assert parse_company_id(text) == company_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "4c",
        "-1",
        "+76",
        "-076",
        "65536",
        "99999",
        "0x10000",
        "1_0",
        "0x_4c",
        "7 6",
        "٧٦",
        "Apple",
        "9" * 5000,
    ],
)
def test_no_company_id(text: str) -> None:
    """Anything else is none, also what Python would take for a number."""
    with pytest.raises(ValueError, match=r".*"):
        parse_company_id(text)


@pytest.mark.parametrize("text", ["fcd2", "FCD2", "0xfcd2", " 0000FCD2 ", UUID.upper()])
def test_service_uuid(text: str) -> None:
    """16, 32 and 128 bits are the same service."""
    assert parse_service_uuid(text) == UUID


def test_service_uuid_of_its_own() -> None:
    """One that is not the Bluetooth SIG's stays as it is."""
    uuid = "ebe0ccb0-7a0a-4b0c-8a1a-6ff2997da3a6"
    assert parse_service_uuid(uuid) == uuid
    assert parse_service_uuid("12345678").startswith("12345678-0000-1000-")


@pytest.mark.parametrize(
    "text", ["", "fc", "fcd", "fcd2f", "fcd2fcd2f", "xxxx", "0x", UUID[:-1], UUID + "0"]
)
def test_no_service_uuid(text: str) -> None:
    """Anything else is none."""
    with pytest.raises(ValueError, match=r".*"):
        parse_service_uuid(text)


@given(texts)
def test_parsers_refuse_in_one_way(text: str) -> None:
    """Whatever is entered is taken or refused with the error that the form expects."""
    for key, parse in (
        ("addresses", parse_address),
        ("names", parse_name),
        ("company_ids", parse_company_id),
        ("service_uuids", parse_service_uuid),
    ):
        try:
            parse(text)
        except ValueError:
            with pytest.raises(ValueError, match=r".*"):
                DeviceList.parse(**{key: [text]})
        else:
            assert DeviceList.parse(**{key: [text]})


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("Ruuvi 1234", "Ruuvi 1234", True),
        ("Ruuvi", "Ruuvi 1234", False),
        ("ruuvi*", "Ruuvi 1234", True),
        ("*1234", "Ruuvi 1234", True),
        ("*uuvi*", "Ruuvi 1234", True),
        ("Ruuvi ????", "Ruuvi 1234", True),
        ("Ruuvi ???", "Ruuvi 1234", False),
        ("Ruuvi [0-9]*", "Ruuvi 1234", True),
        ("Ruuvi [!0-9]*", "Ruuvi 1234", False),
        ("a.c", "abc", False),
        ("[", "[", True),
        ("a*b", "a\nb", True),
        ("küche*", "KÜCHE 🦊", True),
        ("*", "a\0b", True),
        ("*" * 100 + "x", "a" * 248, False),
        ("*", ADDRESS, False),
        ("*", "", False),
        (ADDRESS, ADDRESS, False),
    ],
)
def test_names(pattern: str, name: str, matches: bool) -> None:
    """A pattern takes the whole name, in any case of letters; no name is no match."""
    devices = DeviceList.parse(names=["never this", pattern])
    assert devices.matches(advertisement(name=name)) is matches


@pytest.mark.parametrize(
    ("changes", "matches"),
    [
        ({"addresses": ["c0-00-00-00-00-01"]}, True),
        ({"addresses": ["C0:00:00:00:00:02"]}, False),
        ({"company_ids": ["0x0499"]}, True),
        ({"company_ids": ["0x9904"]}, False),
        ({"service_uuids": ["fcd2"]}, True),
        ({"service_uuids": ["feaa"]}, True),
        ({"service_uuids": ["fe95"]}, False),
        ({"names": ["Ruuvi*"]}, True),
        ({"names": ["Govee*"]}, False),
        ({"names": ["Govee*"], "company_ids": ["0x0499"]}, True),
        ({}, False),
    ],
)
def test_lists(changes: dict[str, list[str]], matches: bool) -> None:
    """A device is on a list if any line is right; services it offers or has data of."""
    packet = advertisement(
        name="Ruuvi 1234",
        manufacturer_data={1: b"", 0x0499: b""},
        service_data={UUID: b""},
        service_uuids=[EDDYSTONE],
    )
    assert DeviceList.parse(**changes).matches(packet) is matches


@pytest.mark.parametrize(
    ("allow", "deny", "accepts"),
    [
        ({}, {}, True),
        ({"addresses": [ADDRESS]}, {}, True),
        ({"addresses": ["C0:00:00:00:00:02"]}, {}, False),
        ({}, {"addresses": [ADDRESS]}, False),
        ({}, {"addresses": ["C0:00:00:00:00:02"]}, True),
        ({"addresses": [ADDRESS]}, {"names": ["Ruuvi*"]}, False),
        ({"names": ["Ruuvi*"]}, {"addresses": [ADDRESS]}, False),
        ({"names": ["*"]}, {"names": ["Govee*"]}, True),
    ],
)
def test_precedence(allow: Any, deny: Any, accepts: bool) -> None:
    """The deny list stands above the allow list, and an empty list allows all."""
    packet = advertisement(name="Ruuvi 1234")
    both = Filter(DeviceList.parse(**allow), DeviceList.parse(**deny))
    assert both.accepts(packet) is accepts


@given(advertisements)
def test_no_packet_is_too_odd(packet: Any) -> None:
    """Every packet is on a list or not; none is both accepted and denied."""
    devices = DeviceList.parse(
        [ADDRESS[:-1] + "2"], ["*a*"], ["0x0001"], ["fcd2", "feaa"]
    )
    on_list = devices.matches(packet)
    assert Filter(deny=devices).accepts(packet) is not on_list
    assert Filter(allow=devices).accepts(packet) is on_list
    assert not Filter(allow=devices, deny=devices).accepts(packet)
