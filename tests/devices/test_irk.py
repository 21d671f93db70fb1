"""Devices that rotate their address are one device to who has their IRK."""

from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.helpers import device_registry as dr

from custom_components.ble_bridge.const import DOMAIN

from .home import IRK, Home, bthome, rotating

PHONE = {"irk": IRK.hex(), "alias": "Phone"}
STRANGER = bytes(range(16))


async def test_specification() -> None:
    """The addresses that these tests make are those of the specification."""
    irk = bytes.fromhex("ec0234a357c8ad05341010a60a397d9b")
    assert rotating(irk, 0x708194) == "70:81:94:0D:FB:AA"


async def test_one_device(home: Home) -> None:
    """All of its addresses are one device, with one history, and one presence."""
    await home.start(PHONE)
    for number in range(1, 6):
        home.hear(bthome(temperature=20 + number), rotating(IRK, number))
        await home.until("temperature", f"{20 + number}.0")
    await home.settle()
    assert home.payloads("telemetry/phone/v/temperature") == [
        {"value": 20 + number} for number in range(1, 6)
    ]
    assert len(home.payloads("telemetry/phone/connectivity")) == 1
    assert set(await home.kept()) == {"iiot/phone/temperature"}
    registry = dr.async_get(home.hass)
    device = registry.async_get_device_by_identifier(
        (DOMAIN, home.devices[0].subentry_id), home.entry.entry_id
    )
    assert device
    assert device.connections == set()  # Its address is none to go by
    # In the raw layout each packet goes by the address that it came from.
    raw = {m.topic.rsplit("/", 1)[1] for m in home.messages("ble/raw/")}
    assert raw >= {rotating(IRK, number) for number in range(1, 6)}


async def test_strangers(home: Home) -> None:
    """An address that nobody's IRK resolves appears among the raw packets only."""
    await home.start(PHONE, options={"automatic": True})
    for number in range(1, 20):
        home.hear(
            bthome(temperature=number), rotating(STRANGER, number), address_type=1
        )
    await home.tick(5)
    await home.settle()
    assert home.value("signal_presence") == "off"
    assert len(home.devices) == 1
    assert home.topics("telemetry/", "iiot/") == set()
    assert await home.kept() == {}
    assert home.events == []


async def test_added_while_it_is_on_air(home: Home) -> None:
    """It begins with what it said at the address that it has now."""
    await home.start()
    home.hear(bthome(temperature=21.5), rotating(IRK, 7))
    home.hear(bthome(temperature=12), rotating(STRANGER, 7))
    await home.add(PHONE)
    await home.until("temperature", "21.5")
    await home.remove(home.devices[0])
    home.hear(bthome(temperature=23), rotating(IRK, 7))
    home.hear(bthome(temperature=24), rotating(IRK, 8))
    await home.settle()
    assert home.payloads("telemetry/phone/v/temperature") == [{"value": 21.5}]


async def test_presence(home: Home) -> None:
    """It is gone when none of its addresses is heard any more."""
    await home.start(PHONE)
    home.hear(bthome(temperature=21), rotating(IRK, 1))
    await home.until("temperature", "21.0")
    with home.given_up():
        home.scanner.hear(rotating(IRK, 2), -50, bthome(temperature=22), age=-1000)
        await home.hass.async_block_till_done()
    assert home.value("signal_presence") == "on"
    assert home.value("temperature") == "22.0"
    with home.given_up(5000):
        await home.hass.async_block_till_done()
    assert home.value("signal_presence") == "off"
    assert home.value("temperature") == STATE_UNAVAILABLE


async def test_restart(home: Home) -> None:
    """Values and the last address are there after a restart."""
    await home.start(PHONE)
    home.hear(bthome(temperature=21), rotating(IRK, 1))
    await home.until("temperature", "21.0")
    await home.restart()
    assert home.value("temperature") == "21.0"
    assert home.value("signal_presence") == "on"
    home.hear(bthome(temperature=22), rotating(IRK, 2))
    await home.until("temperature", "22.0")
    await home.settle()
    assert len(home.payloads("telemetry/phone/connectivity")) == 1
