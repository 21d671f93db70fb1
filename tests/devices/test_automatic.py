"""An option adds every device that can be decoded, and keeps its address."""

from typing import Any

from homeassistant.helpers import issue_registry as ir
import pytest

from ..conftest import RAW
from ..layouts.samples import structure
from .home import ADDRESS, BALCONY, IRK, Home, bthome, encrypted, ibeacon, rotating

STATUS = "ble/bridge/home/status"
AUTOMATIC = {"automatic": True}
STATIC = "C4:00:00:00:00:01"
OTHER = "A4:C1:38:00:00:07"
PUBLIC, RANDOM = 0, 1


def addresses(home: Home) -> list[str]:
    """Return the addresses of the devices that there are."""
    return sorted(device.data["address"] for device in home.devices)


async def found(
    home: Home, raw: bytes, *on_air: str, address_type: int | None = None
) -> list[str]:
    """Hear devices, and return which there are when those found are added."""
    details: dict[str, Any] = {}
    if address_type is not None:
        details["address_type"] = address_type
    for _ in range(3):  # The first packet waits for its library
        for address in on_air:
            home.hear(raw, address, **details)
        await home.settle()
        await home.tick(3)
    return addresses(home)


@pytest.mark.parametrize(
    ("raw", "address", "address_type", "is_added"),
    [
        (bthome(temperature=21.5), ADDRESS, PUBLIC, True),
        (bthome(temperature=21.5), STATIC, RANDOM, True),
        (bthome(temperature=21.5), ADDRESS, None, True),
        (bthome(temperature=21.5), "44:00:00:00:00:01", None, True),
        (bthome(temperature=21.5), "44:00:00:00:00:01", RANDOM, False),
        (bthome(temperature=21.5), "04:00:00:00:00:01", RANDOM, False),
        (bthome(temperature=21.5), rotating(IRK, 1), RANDOM, False),
        (encrypted(21.5, 1), ADDRESS, PUBLIC, True),
        (ibeacon(), STATIC, RANDOM, True),
        (ibeacon(), ADDRESS, PUBLIC, True),
        (ibeacon(), ADDRESS, None, False),
        (ibeacon(), "44:00:00:00:00:01", RANDOM, False),
        (RAW, STATIC, RANDOM, False),
        (structure(9, b"Somebody's phone"), STATIC, RANDOM, False),
    ],
)
async def test_what_is_added(
    home: Home, raw: bytes, address: str, address_type: int | None, is_added: bool
) -> None:
    """What can be decoded, at an address that stays."""
    await home.start(options=AUTOMATIC)
    devices = await found(home, raw, address, address_type=address_type)
    assert devices == ([address] if is_added else [])


async def test_off(home: Home) -> None:
    """Nothing is added that the user has not asked for."""
    await home.start()
    assert await found(home, bthome(temperature=21.5), ADDRESS) == []


async def test_an_added_device(home: Home) -> None:
    """It is named for what it is, and its values are there at once."""
    await home.start(options=AUTOMATIC)
    packet = bthome(temperature=21.5, name="SBHT-003C")
    assert await found(home, packet, ADDRESS) == [ADDRESS]
    await home.until("temperature", "21.5")
    (device,) = home.devices
    assert device.title == "SBHT-003C BBCC"
    assert device.unique_id == ADDRESS
    await home.settle()
    assert home.payloads(f"telemetry/{ADDRESS}/v/temperature") == [{"value": 21.5}]


async def test_heard_before(home: Home) -> None:
    """What is on air already is added by what it said last, a phone and all else is not."""
    home.hear(bthome(temperature=21.5))
    home.hear(encrypted(21.5, 1), OTHER)
    home.hear(bthome(temperature=20), rotating(IRK, 1), address_type=RANDOM)
    home.hear(RAW, STATIC)
    await home.start(options=AUTOMATIC)
    for _ in range(3):
        await home.settle()
        await home.tick(3)
    assert addresses(home) == sorted([ADDRESS, OTHER])
    await home.until("temperature", "21.5")


async def test_encrypted(home: Home) -> None:
    """One whose key is not known is added, and asks for it."""
    await home.start(options=AUTOMATIC)
    assert await found(home, encrypted(21.5, 1), ADDRESS) == [ADDRESS]
    home.hear(encrypted(21.5, 2))
    await home.settle()
    assert home.issues() == {"key_missing"}
    assert len(ir.async_get(home.hass).issues) == 1


async def test_removed(home: Home) -> None:
    """One that the user removes is not added again, not even after a restart."""
    await home.start(options=AUTOMATIC)
    assert await found(home, bthome(temperature=21.5), ADDRESS) == [ADDRESS]
    await home.remove(home.devices[0])
    assert await found(home, bthome(temperature=22), ADDRESS) == []
    await home.restart()
    assert await found(home, bthome(temperature=23), ADDRESS) == []
    # But the user can.
    await home.add(BALCONY)
    await home.until("temperature", "23.0")
    await home.restart()
    assert addresses(home) == [ADDRESS]


async def test_one_that_is_there_already(home: Home) -> None:
    """A device that the user has added is not added once more."""
    await home.start(BALCONY, options=AUTOMATIC)
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    assert await found(home, bthome(temperature=22), ADDRESS) == [ADDRESS]


async def test_added_by_the_user_meanwhile(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is quicker than the option has the device once, under the name given."""
    await home.start(options=AUTOMATIC)
    for temperature in (21, 22, 23):
        home.hear(bthome(temperature=temperature))
        await home.settle()
    await home.add(BALCONY)
    await home.tick(3)
    assert addresses(home) == [ADDRESS]
    assert home.devices[0].title == "Balcony"
    assert "Traceback" not in caplog.text


async def test_many_at_once(home: Home) -> None:
    """They are followed as they come; nothing is reloaded, no connection is lost."""
    await home.start(options=AUTOMATIC)
    expected = [f"A4:C1:38:00:{n >> 8:02X}:{n & 255:02X}" for n in range(300)]
    await found(home, bthome(temperature=20), ADDRESS)  # The library is loaded
    for address in expected:
        home.hear(bthome(temperature=21.5), address)
    await home.settle()
    assert addresses(home) == [ADDRESS]  # Gathered
    await home.tick(3)
    assert addresses(home) == [*expected, ADDRESS]
    for address in expected:
        home.hear(bthome(temperature=22), address)
    await home.settle()
    for device in home.devices[1:]:
        assert home.payloads(f"telemetry/{device.data['address']}/v/temperature") == [
            {"value": 21.5},
            {"value": 22},
        ]
    states = [s.state for s in home.hass.states.async_all() if s.state == "22.0"]
    assert len(states) == 300
    assert len(home.subscriber.on_topic(STATUS)) == 1


async def test_limit(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of addresses makes no flood of devices."""
    monkeypatch.setattr("custom_components.ble_bridge.devices.MAX_AUTOMATIC", 5)
    await home.start(options=AUTOMATIC)
    on_air = [f"A4:C1:38:00:00:{number:02X}" for number in range(20)]
    assert len(await found(home, bthome(temperature=21.5), *on_air)) == 5
