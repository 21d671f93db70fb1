"""The forms of devices: pick one from what is on air, say what it is, change it."""

from collections.abc import Callable
import struct
from typing import Any

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    SOURCE_USER,
    ConfigEntry,
    SubentryFlowContext,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers import entity_registry as er, issue_registry as ir
import pytest
from pytest_homeassistant_custom_component.common import mock_component

from custom_components.ble_bridge.const import DOMAIN

from .conftest import ADDRESS, SimulatedScanner, bridge_entry, wait_until
from .test_irk import address_of

OTHER = "C0:00:00:00:00:02"
# The sample data of the Core specification, vol 3, part H, appendix D.7
IRK = bytes.fromhex("ec0234a357c8ad05341010a60a397d9b")
# The sample data of BTHome's page on encryption
ENCRYPTED = "54:48:E6:8F:80:A5"
ENCRYPTED_DATA = bytes.fromhex("d2fc41a47266c95f730011223378237214")
KEY = "231d39c1d7cc1ab1aee224cd096db932"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(name="entry")
async def entry_fixture(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Callable[..., Any]
) -> ConfigEntry[Any]:
    """Return a bridge without destinations."""
    # Else its discovery would begin, and set it up in the background.
    mock_component(hass, "bthome")
    entry: ConfigEntry[Any] = await setup(connected=False)
    return entry


def part(kind: int, data: bytes) -> bytes:
    """Return one part of a packet."""
    return bytes([len(data) + 1, kind]) + data


def named(name: str) -> bytes:
    """Return a packet that gives a name, and nothing that is known."""
    return part(1, b"\x06") + part(9, name.encode())


def thermometer(name: str = "", temperature: float = 21.5, battery: int = 80) -> bytes:
    """Return a packet of the pvvx firmware, with the name if there is one."""
    values = struct.pack("<hHHBBB", round(temperature * 100), 4500, 2900, battery, 1, 0)
    data = part(0x16, b"\x1a\x18" + bytes(6) + values)
    return part(1, b"\x06") + data + (part(9, name.encode()) if name else b"")


async def begin(
    hass: HomeAssistant, entry: ConfigEntry[Any], choice: str | None = None
) -> Any:
    """Begin to add a device, and choose how."""
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "device"), context=SubentryFlowContext(source=SOURCE_USER)
    )
    if choice is None:
        return result
    assert result["type"] is FlowResultType.MENU
    assert result["menu_options"] == ["on_air", "irk"]
    return await submit(hass, result, {"next_step_id": choice})


async def change(hass: HomeAssistant, entry: ConfigEntry[Any], choice: str) -> Any:
    """Begin to change the device, and choose what."""
    (subentry,) = entry.subentries.values()
    result = await hass.config_entries.subentries.async_init(
        (entry.entry_id, "device"),
        context=SubentryFlowContext(
            source=SOURCE_RECONFIGURE, subentry_id=subentry.subentry_id
        ),
    )
    assert result["type"] is FlowResultType.MENU
    alerts = ["change_alert", "remove_alerts"] if subentry.data.get("alerts") else []
    assert result["menu_options"] == ["settings", "add_alert", *alerts]
    assert result["description_placeholders"] == {"device": subentry.title}
    result = await submit(hass, result, {"next_step_id": choice})
    assert result["step_id"] == choice
    return result


async def submit(hass: HomeAssistant, result: Any, form: dict[str, Any]) -> Any:
    """Submit a form."""
    result = await hass.config_entries.subentries.async_configure(
        result["flow_id"], form
    )
    await hass.async_block_till_done()
    return result


async def add(
    hass: HomeAssistant, entry: ConfigEntry[Any], address: str, **settings: Any
) -> Any:
    """Add a device by its address, and return the result."""
    result = await begin(hass, entry, "on_air")
    result = await submit(hass, result, {"address": address})
    assert result["step_id"] == "settings", result["errors"]
    return await submit(hass, result, {"name": "Balcony", **settings})


def offered(result: Any) -> dict[str, str]:
    """Return what there is to choose from: label by address."""
    (selector,) = result["data_schema"].schema.values()
    return {option["value"]: option["label"] for option in selector.config["options"]}


def shown(result: Any) -> dict[str, Any]:
    """Return what a form shows, its sections as such."""
    found: dict[str, Any] = {}
    for key, field in result["data_schema"].schema.items():
        if hasattr(field, "schema"):
            found[str(key)] = shown({"data_schema": field.schema})
        elif key.description and "suggested_value" in key.description:
            found[str(key)] = key.description["suggested_value"]
    return found


def fields(result: Any) -> list[str]:
    """Return the fields of a form."""
    return [str(key) for key in result["data_schema"].schema]


def device(entry: ConfigEntry[Any]) -> dict[str, Any]:
    """Return the data of the one device."""
    (subentry,) = entry.subentries.values()
    return dict(subentry.data)


# --- from what is on air ----------------------------------------------------------------


async def test_pick(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """A thermometer is picked, and with nothing changed has its values at once."""
    scanner.hear(ADDRESS, -71, thermometer("Balcony"))
    result = await begin(hass, entry, "on_air")
    assert result["step_id"] == "on_air"
    assert offered(result) == {
        ADDRESS: f"Balcony · LYWSD03MMC (pvvx firmware) · {MINUS}71 dBm · {ADDRESS}"
    }
    assert result["description_placeholders"] == {"shown": "1", "found": "1"}
    result = await submit(hass, result, {"address": ADDRESS})
    assert result["step_id"] == "settings"
    assert result["description_placeholders"] == {"address": ADDRESS}
    assert shown(result) == {
        "name": "Balcony 0001",
        "signal": {},
        "shaping": {},
    }
    assert fields(result) == ["name", "alias", "key", "timeout", "signal", "shaping"]
    result = await submit(hass, result, {"name": " Balcony "})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "Balcony"
    (subentry,) = entry.subentries.values()
    assert subentry.unique_id == ADDRESS
    assert device(entry) == {
        "address": ADDRESS,
        "alias": None,
        "key": None,
        "timeout": None,
        "reference_rssi": None,
        "path_loss": 2.5,
        "shaping": {},
        "alerts": [],
    }
    await wait_until(lambda: hass.states.is_state("sensor.balcony_temperature", "21.5"))


async def test_everything_entered(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """Each setting is stored, and shown when the form is opened again."""
    form = {
        "alias": "Balcony Süd",
        "timeout": 60,
        "signal": {"reference_rssi": -65, "path_loss": 3},
        "shaping": {
            "minimum_interval": 0.5,
            "unchanged_interval": 60,
            "rssi_change": 6,
        },
    }
    result = await add(hass, entry, ADDRESS, **form)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry) == {
        "address": ADDRESS,
        "alias": "Balcony Süd",
        "key": None,
        "timeout": 60,
        "reference_rssi": -65,
        "path_loss": 3,
        "shaping": form["shaping"],
        "alerts": [],
    }
    result = await change(hass, entry, "settings")
    assert shown(result) == {"name": "Balcony", **form}
    form = {"name": "Terrace", "alias": "", "shaping": {"minimum_interval": 1}}
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    (subentry,) = entry.subentries.values()
    assert subentry.title == "Terrace"
    assert subentry.unique_id == ADDRESS
    assert device(entry) == {
        "address": ADDRESS,
        "alias": None,
        "key": None,
        "timeout": None,
        "reference_rssi": None,
        "path_loss": 2.5,
        "shaping": {"minimum_interval": 1},
        "alerts": [],
    }


async def test_order(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """First what can be read, then what needs a key, what has a name, and the rest."""
    scanner.hear("C0:00:00:00:00:11", -40)
    scanner.hear("C0:00:00:00:00:12", -40, named("Toothbrush\n of mine"))
    scanner.hear(ENCRYPTED, -80, part(1, b"\x06") + part(0x16, ENCRYPTED_DATA))
    scanner.hear("C0:00:00:00:00:13", -90, thermometer())
    scanner.hear("C0:00:00:00:00:14", -60, thermometer("Attic"))
    scanner.hear("C0:00:00:00:00:15", -127, thermometer("Cellar"))
    scanner.hear("40:00:00:00:00:01", -50, named("Kettle"))
    scanner.hear("40:00:00:00:00:02", -90, named("Lamp"), address_type="public")
    model = "LYWSD03MMC (pvvx firmware)"
    assert [*offered(await begin(hass, entry, "on_air")).values()] == [
        f"Attic · {model} · {MINUS}60 dBm · C0:00:00:00:00:14",
        f"{model} · {MINUS}90 dBm · C0:00:00:00:00:13",
        f"Cellar · {model} · C0:00:00:00:00:15",
        f"BTHome · encrypted · {MINUS}80 dBm · {ENCRYPTED}",
        f"Lamp · {MINUS}90 dBm · 40:00:00:00:00:02",
        f"Toothbrush of mine · {MINUS}40 dBm · C0:00:00:00:00:12",
        f"Kettle · {MINUS}50 dBm · 40:00:00:00:00:01",
        f"{MINUS}40 dBm · C0:00:00:00:00:11",
    ]


async def test_rotating_addresses(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """An address that its device will change is not offered, and not taken."""
    rotating = "5A:00:00:00:00:01"
    scanner.hear(rotating, raw=named("Phone"), address_type="random")
    scanner.hear(OTHER, raw=named("Lamp"), address_type="random")
    result = await begin(hass, entry, "on_air")
    assert [*offered(result)] == [OTHER]
    result = await submit(hass, result, {"address": rotating})
    assert result["errors"] == {"address": "address_changes"}
    result = await submit(hass, result, {"address": OTHER})
    assert result["step_id"] == "settings"


async def test_300_devices(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """All of 300 devices are offered, the thermometers among them first."""
    for number in range(300):
        address = f"C0:00:00:00:{number >> 8:02X}:{number & 255:02X}"
        packet = thermometer() if number % 10 == 0 else named(f"Thing {number}")
        scanner.hear(address, -40 - number % 50, packet)
    result = await begin(hass, entry, "on_air")
    assert result["description_placeholders"] == {"shown": "300", "found": "300"}
    labels = [*offered(result).values()]
    assert len(labels) == 300
    assert all("LYWSD03MMC" in label for label in labels[:30])
    assert all(label.startswith("Thing ") for label in labels[30:])
    strengths = [int(label.split(MINUS)[1].split()[0]) for label in labels]
    assert strengths[:30] == sorted(strengths[:30])
    assert strengths[30:] == sorted(strengths[30:])


async def test_600_devices(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """Of too many the best known are offered; any other can be entered."""
    addresses = [f"C0:00:00:01:{n >> 8:02X}:{n & 255:02X}" for n in range(600)]
    for number, address in enumerate(addresses):
        scanner.hear(address, raw=thermometer() if number > 590 else named("Thing"))
    result = await begin(hass, entry, "on_air")
    assert result["description_placeholders"] == {"shown": "500", "found": "600"}
    found = [*offered(result)]
    assert found == [*addresses[591:], *addresses[:491]]
    result = await submit(hass, result, {"address": addresses[550]})
    assert result["step_id"] == "settings"
    assert shown(result)["name"] == "Thing 0226"


async def test_what_filters_leave_out(
    hass: HomeAssistant, scanner: SimulatedScanner, setup: Callable[..., Any]
) -> None:
    """A device of which the filters let nothing through is not offered."""
    options = {"deny": {"addresses": [ADDRESS]}}
    entry = await setup(options=options, connected=False)
    scanner.hear(ADDRESS, raw=thermometer())
    scanner.hear(OTHER, raw=thermometer())
    assert [*offered(await begin(hass, entry, "on_air"))] == [OTHER]


async def test_typed_address(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """An address can be typed, however it is written, whether or not it is on air."""
    result = await begin(hass, entry, "on_air")
    assert offered(result) == {}
    result = await submit(hass, result, {"address": "Balcony"})
    assert result["errors"] == {"address": "invalid_address"}
    assert shown(result) == {"address": "Balcony"}
    result = await submit(hass, result, {"address": " c0-00-00-00-00-01 "})
    assert result["step_id"] == "settings"
    assert "name" not in shown(result)
    result = await submit(hass, result, {"name": " "})
    assert result["errors"] == {"name": "invalid_name"}
    result = await submit(hass, result, {"name": "Balcony"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry)["address"] == ADDRESS


async def test_already_added(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """A device is added once: it is no longer offered, nor taken."""
    scanner.hear(ADDRESS, raw=thermometer())
    await add(hass, entry, ADDRESS)
    scanner.hear(OTHER, raw=thermometer())
    result = await begin(hass, entry, "on_air")
    assert [*offered(result)] == [OTHER]
    result = await submit(hass, result, {"address": ADDRESS})
    assert result["errors"] == {"address": "already_added"}
    result = await submit(hass, result, {"address": OTHER})
    assert result["step_id"] == "settings"


async def test_added_meanwhile(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """Two forms cannot add the same device."""
    results = []
    for _ in range(2):
        result = await begin(hass, entry, "on_air")
        results.append(await submit(hass, result, {"address": ADDRESS}))
    first, second = [
        await submit(hass, result, {"name": name, "alias": name})
        for name, result in zip(("one", "two"), results, strict=True)
    ]
    assert first["type"] is FlowResultType.CREATE_ENTRY
    assert second["type"] is FlowResultType.ABORT
    assert second["reason"] == "already_configured"


async def test_not_loaded(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """While the bridge does not run nobody knows what is on air."""
    menu = await begin(hass, entry)
    irk = await begin(hass, entry, "irk")
    on_air = await begin(hass, entry, "on_air")
    assert await hass.config_entries.async_unload(entry.entry_id)
    for result in (
        await begin(hass, entry),
        await submit(hass, menu, {"next_step_id": "on_air"}),
        await submit(hass, irk, {"name": "Phone", "irk": IRK.hex()}),
        await submit(hass, on_air, {"address": ADDRESS}),
    ):
        assert result["type"] is FlowResultType.ABORT
        assert result["reason"] == "not_loaded"


# --- aliases ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "error"),
    [
        ("!?", "invalid_alias"),
        ("b" * 65, "invalid_alias"),
        ("signal", "alias_reserved"),
        ("Raw", "alias_reserved"),
        ("scanner", "alias_reserved"),
        ("bridge!", "alias_reserved"),
        ("Living  Room", "alias_taken"),
        ("c00000000003", "alias_taken"),
    ],
)
async def test_alias(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    entry: ConfigEntry[Any],
    alias: str,
    error: str,
) -> None:
    """An alias that topics cannot have is refused; the form takes another one."""
    await add(hass, entry, OTHER, alias="living-room")
    await add(hass, entry, "C0:00:00:00:00:03")
    result = await add(hass, entry, ADDRESS, alias=alias)
    assert result["errors"] == {"alias": error}
    assert shown(result)["alias"] == alias
    result = await submit(hass, result, {"name": "Balcony", "alias": "Balcony"})
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_keep_the_alias(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """A device does not stand in its own way."""
    await add(hass, entry, ADDRESS, alias="balcony")
    result = await change(hass, entry, "settings")
    result = await submit(hass, result, {"name": "New", "alias": "balcony"})
    assert result["reason"] == "reconfigure_successful"
    (subentry,) = entry.subentries.values()
    assert subentry.title == "New"


@pytest.mark.parametrize(
    "form",
    [
        {"timeout": 4},
        {"timeout": 604801},
        {"signal": {"path_loss": 0.9}},
        {"signal": {"reference_rssi": 1}},
        {"shaping": {"minimum_interval": 0}},
    ],
)
async def test_out_of_bounds(
    hass: HomeAssistant, entry: ConfigEntry[Any], form: dict[str, Any]
) -> None:
    """Numbers that make no sense are not taken."""
    with pytest.raises(InvalidData):
        await add(hass, entry, ADDRESS, **form)


# --- keys -------------------------------------------------------------------------------


async def test_key(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """A key is checked against what was heard; the form asks until it is right."""
    scanner.hear(ENCRYPTED, raw=part(0x16, ENCRYPTED_DATA))
    result = await add(hass, entry, ENCRYPTED, key="not a key")
    assert result["errors"] == {"key": "invalid_key"}
    result = await submit(hass, result, {"name": "Balcony", "key": KEY[:-2]})
    assert result["errors"] == {"key": "invalid_key"}
    for wrong in ("00" * 16, "00" * 12):
        result = await submit(hass, result, {"name": "Balcony", "key": wrong})
        assert result["errors"] == {"key": "key_wrong"}
    text = f" 0x{KEY[:8].upper()} {KEY[8:16]}:{KEY[16:]} "
    result = await submit(hass, result, {"name": "Balcony", "key": text})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry)["key"] == KEY
    await wait_until(
        lambda: hass.states.is_state("sensor.balcony_temperature", "25.06")
    )


async def test_key_is_not_shown(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """A key stays when its field is left empty, and goes when that is said."""
    scanner.hear(ENCRYPTED, raw=part(0x16, ENCRYPTED_DATA))
    await add(hass, entry, ENCRYPTED, key=KEY)
    result = await change(hass, entry, "settings")
    assert "key" not in shown(result)
    assert KEY not in str(shown(result))
    assert "remove_key" in fields(result)
    await submit(hass, result, {"name": "New"})
    assert device(entry)["key"] == KEY
    result = await change(hass, entry, "settings")
    await submit(hass, result, {"name": "New", "remove_key": True})
    assert device(entry)["key"] is None
    result = await change(hass, entry, "settings")
    assert "remove_key" not in fields(result)
    result = await submit(hass, result, {"name": "New", "key": "00" * 16})
    assert result["errors"] == {"key": "key_wrong"}
    result = await submit(hass, result, {"name": "New", "key": KEY})
    assert result["reason"] == "reconfigure_successful"
    assert device(entry)["key"] == KEY


@pytest.mark.parametrize("heard", [False, True])
async def test_key_that_cannot_be_checked(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    entry: ConfigEntry[Any],
    heard: bool,
) -> None:
    """A key is saved without proof, where that is wanted."""
    if heard:
        scanner.hear(ADDRESS, raw=thermometer())
    result = await add(hass, entry, ADDRESS, key=KEY)
    assert result["step_id"] == "key_unchecked"
    assert result["description_placeholders"] == {"device": "Balcony"}
    assert not entry.subentries
    result = await submit(hass, result, {})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry)["key"] == KEY
    result = await change(hass, entry, "settings")
    result = await submit(hass, result, {"name": "Balcony", "key": "11" * 16})
    assert result["step_id"] == "key_unchecked"
    result = await submit(hass, result, {})
    assert result["reason"] == "reconfigure_successful"
    assert device(entry)["key"] == "11" * 16


async def test_key_while_not_loaded(
    hass: HomeAssistant, entry: ConfigEntry[Any]
) -> None:
    """A device can be changed while the bridge does not run; its key is not checked."""
    await add(hass, entry, ADDRESS)
    assert await hass.config_entries.async_unload(entry.entry_id)
    result = await change(hass, entry, "settings")
    result = await submit(hass, result, {"name": "Balcony", "key": KEY})
    assert result["step_id"] == "key_unchecked"
    result = await submit(hass, result, {})
    assert device(entry)["key"] == KEY


# --- IRKs -------------------------------------------------------------------------------


@pytest.mark.parametrize("entered", [IRK.hex(), IRK[::-1].hex()])
async def test_irk(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    entry: ConfigEntry[Any],
    entered: str,
) -> None:
    """An address on air tells the order of an IRK; the device follows the next one too."""
    scanner.hear(OTHER, raw=named("Lamp"))
    scanner.hear(address_of(IRK, 1), raw=thermometer(), address_type="random")
    result = await begin(hass, entry, "irk")
    assert result["step_id"] == "irk"
    result = await submit(hass, result, {"name": " ", "irk": "ec02"})
    assert result["errors"] == {"name": "invalid_name", "irk": "invalid_irk"}
    result = await submit(hass, result, {"name": " Anna's tag ", "irk": entered})
    assert result["step_id"] == "settings"
    assert result["description_placeholders"] == {"address": "IRK"}
    form = shown(result)
    assert form == {
        "name": "Anna's tag",
        "alias": "anna-s-tag",
        "signal": {},
        "shaping": {},
    }
    result = await submit(hass, result, {"name": "Tag", "alias": " "})
    assert result["errors"] == {"alias": "alias_missing"}
    result = await submit(hass, result, {"name": "Tag", "alias": "tag"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry)["irk"] == IRK.hex()
    assert "address" not in device(entry)
    (subentry,) = entry.subentries.values()
    unique_id = subentry.unique_id
    assert unique_id
    assert unique_id.startswith("irk-")
    assert IRK.hex()[:8] not in unique_id
    await wait_until(lambda: hass.states.is_state("sensor.tag_temperature", "21.5"))
    scanner.hear(address_of(IRK, 2), raw=thermometer(temperature=22))
    assert [*offered(await begin(hass, entry, "on_air"))] == [OTHER]
    result = await begin(hass, entry, "on_air")
    result = await submit(hass, result, {"address": address_of(IRK, 2)})
    assert result["errors"] == {"address": "already_added"}


async def test_irk_unheard(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """An IRK that nothing on air belongs to is taken as it is entered, if that is wanted."""
    scanner.hear(OTHER)
    result = await begin(hass, entry, "irk")
    form = {"name": "Tag", "irk": IRK[::-1].hex(":")}
    result = await submit(hass, result, form)
    assert result["step_id"] == "irk_unheard"
    assert result["description_placeholders"] == {"device": "Tag"}
    result = await submit(hass, result, {})
    assert result["step_id"] == "settings"
    result = await submit(hass, result, {"name": "Tag", "alias": "tag"})
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert device(entry)["irk"] == IRK[::-1].hex()


async def test_irk_already_added(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """An IRK is added once, in whichever order it is entered."""
    for irk in (IRK, IRK[::-1]):
        result = await begin(hass, entry, "irk")
        result = await submit(hass, result, {"name": "Tag", "irk": irk.hex()})
        if not entry.subentries:
            result = await submit(hass, result, {})
            await submit(hass, result, {"name": "Tag", "alias": "tag"})
    assert result["errors"] == {"irk": "already_added"}
    result = await submit(hass, result, {"name": "Tag", "irk": "11" * 15 + "22"})
    assert result["step_id"] == "irk_unheard"


async def test_irk_with_key(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """The key of a device with an IRK is checked against the address it has now."""
    scanner.hear(
        address_of(IRK, 1), raw=part(0x16, ENCRYPTED_DATA), address_type="random"
    )
    result = await begin(hass, entry, "irk")
    result = await submit(hass, result, {"name": "Tag", "irk": IRK.hex()})
    form = {"name": "Tag", "alias": "tag", "key": KEY}
    result = await submit(hass, result, form)
    # It was encrypted for another address.
    assert result["errors"] == {"key": "key_wrong"}


# --- alerts -----------------------------------------------------------------------------

COMMON = {"duration": 0, "audiences": []}


@pytest.mark.parametrize(
    ("kind", "asked", "form", "expected"),
    [
        (
            "low_battery",
            ["name", "limit", "hysteresis"],
            {"name": "Battery low"},
            {"limit": 20, "hysteresis": 5},
        ),
        ("lost", ["name"], {"duration": 90}, {"name": "Lost", "duration": 90}),
        (
            "weak_signal",
            ["name", "limit", "hysteresis"],
            {"limit": -80, "audiences": ["family", " "]},
            {"limit": -80, "hysteresis": 5, "audiences": ["family"]},
        ),
        (
            "above",
            ["name", "field", "limit", "hysteresis"],
            {"field": "temperature", "limit": 30.5, "hysteresis": 0.5},
            {"name": "Too high", "field": "temperature", "limit": 30.5},
        ),
        (
            "below",
            ["name", "field", "limit", "hysteresis"],
            {"name": "Cold", "field": " Dew point", "limit": -5},
            {"name": "Cold", "field": "dew_point", "limit": -5},
        ),
        (
            "anomaly",
            ["name", "field", "deviations", "window"],
            {"field": "humidity", "deviations": 4.5, "window": 50},
            {"deviations": 4.5, "window": 50, "limit": None},
        ),
    ],
)
async def test_add_alert(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    entry: ConfigEntry[Any],
    kind: str,
    asked: list[str],
    form: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    """Each kind of alert asks for what it needs, and has its sensor then."""
    scanner.hear(ADDRESS, raw=thermometer())
    await add(hass, entry, ADDRESS)
    result = await change(hass, entry, "add_alert")
    assert fields(result) == ["kind"]
    result = await submit(hass, result, {"kind": kind})
    assert result["step_id"] == "alert"
    assert fields(result) == [*asked, "duration", "audiences"]
    if "field" in asked:
        schema = result["data_schema"].schema
        assert schema["field"].config["options"] == [
            "battery",
            "humidity",
            "packet_id",
            "temperature",
            "voltage",
        ]
    result = await submit(hass, result, form)
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "reconfigure_successful"
    (rule,) = device(entry)["alerts"]
    assert rule["kind"] == kind
    assert len(rule["rule_id"]) == 26
    assert rule.items() >= {**COMMON, **expected}.items()
    name = rule["name"].lower().replace(" ", "_")
    assert hass.states.get(f"binary_sensor.balcony_{name}")


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"name": "a/b"}, {"name": "invalid_alert_name"}),
        ({"name": " "}, {"name": "invalid_alert_name"}),
        ({"name": "$hot"}, {"name": "invalid_alert_name"}),
        ({"name": "h" * 129}, {"name": "invalid_alert_name"}),
        ({"name": "Too_cold"}, {"name": "alert_name_taken"}),
        ({"name": "Of all"}, {"name": "alert_name_taken"}),
        ({"field": "1st"}, {"field": "invalid_field"}),
        ({"field": "a-b"}, {"field": "invalid_field"}),
        ({"limit": 1e101}, {"limit": "invalid_number"}),
        ({"limit": float("nan")}, {"limit": "invalid_number"}),
        ({"hysteresis": 1e101}, {"hysteresis": "invalid_number"}),
    ],
)
async def test_alert_errors(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    changes: dict[str, Any],
    errors: dict[str, str],
) -> None:
    """What cannot be right is said at its field, and the form takes what is right."""
    of_all = {"rule_id": "1", "name": "Of all", "kind": "lost"}
    entry = await setup(options={"alerts": [of_all]}, connected=False)
    await add(hass, entry, ADDRESS)
    result = await change(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "lost"})
    await submit(hass, result, {"name": "Too cold"})
    result = await change(hass, entry, "add_alert")
    result = await submit(hass, result, {"kind": "above"})
    form = {"name": "Hot", "field": "temperature", "limit": 30}
    result = await submit(hass, result, {**form, **changes})
    assert result["errors"] == errors
    result = await submit(hass, result, form)
    assert result["reason"] == "reconfigure_successful"
    assert [rule["name"] for rule in device(entry)["alerts"]] == ["Too cold", "Hot"]


async def test_remove_alerts(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """Those that are chosen go, with their sensors; settings leave alerts alone."""
    await add(hass, entry, ADDRESS)
    for name in ("One", "Two", "Three"):
        result = await change(hass, entry, "add_alert")
        result = await submit(hass, result, {"kind": "lost"})
        await submit(hass, result, {"name": name})
    result = await change(hass, entry, "settings")
    await submit(hass, result, {"name": "Balcony", "timeout": 30})
    result = await change(hass, entry, "remove_alerts")
    rules = {label: value for value, label in offered(result).items()}
    assert [*rules] == ["One", "Two", "Three"]
    result = await submit(hass, result, {"rules": [rules["One"], rules["Three"]]})
    assert result["reason"] == "reconfigure_successful"
    assert [rule["name"] for rule in device(entry)["alerts"]] == ["Two"]
    assert device(entry)["timeout"] == 30
    assert hass.states.get("binary_sensor.balcony_two")
    assert not hass.states.get("binary_sensor.balcony_one")


async def test_change_alert(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """An alert is shown as it is, and keeps its sensor when it is changed."""
    await add(hass, entry, ADDRESS)
    for name, limit in (("Warm", 25), ("Hot", 40)):
        result = await change(hass, entry, "add_alert")
        result = await submit(hass, result, {"kind": "above"})
        await submit(
            hass, result, {"name": name, "field": "temperature", "limit": limit}
        )
    (warm, hot) = device(entry)["alerts"]
    entity_id = er.async_get(hass).async_get_entity_id(
        "binary_sensor",
        DOMAIN,
        f"{next(iter(entry.subentries))}_alert_{hot['rule_id']}",
    )
    assert entity_id == "binary_sensor.balcony_hot"
    result = await change(hass, entry, "change_alert")
    rules = {label: value for value, label in offered(result).items()}
    result = await submit(hass, result, {"rule": rules["Hot"]})
    assert result["step_id"] == "alert"
    shown = {
        str(key): key.description["suggested_value"]
        for key in result["data_schema"].schema
        if key.description
    }
    assert shown["name"] == "Hot"
    assert (shown["field"], shown["limit"]) == ("temperature", 40)
    changed = {"name": "Warm", "field": "temperature", "limit": 35}
    result = await submit(hass, result, changed)
    assert result["errors"] == {"name": "alert_name_taken"}
    result = await submit(hass, result, {**changed, "name": "Very hot"})
    assert result["reason"] == "reconfigure_successful"
    assert device(entry)["alerts"] == [warm, {**hot, "name": "Very hot", "limit": 35}]
    state = hass.states.get(entity_id)
    assert state is not None
    assert state.name == "Balcony Very hot"


# --- repairs ----------------------------------------------------------------------------


async def test_key_that_is_missing(
    hass: HomeAssistant, scanner: SimulatedScanner, entry: ConfigEntry[Any]
) -> None:
    """A device that needs a key can be added without; the user is asked for it then."""
    scanner.hear(ENCRYPTED, raw=part(0x16, ENCRYPTED_DATA))
    result = await add(hass, entry, ENCRYPTED)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    (subentry,) = entry.subentries.values()
    issue = (DOMAIN, f"key_missing_{subentry.subentry_id}")
    await wait_until(lambda: issue in ir.async_get(hass).issues)
    result = await change(hass, entry, "settings")
    await submit(hass, result, {"name": "Balcony", "key": KEY})
    scanner.hear(ENCRYPTED, -40, raw=part(0x16, ENCRYPTED_DATA))
    await wait_until(lambda: issue not in ir.async_get(hass).issues)


async def test_without_bluetooth(hass: HomeAssistant) -> None:
    """A bridge that was never set up says that it does not run."""
    entry = bridge_entry()
    entry.add_to_hass(hass)
    result = await begin(hass, entry)
    assert result["reason"] == "not_loaded"
