"""What hostile messages and damaged files cannot do to a monitor."""

from typing import Any

import pytest

from custom_components.ble_bridge.diagnostics import masked
from custom_components.ble_bridge.monitors.messages import MAX_ID, Reason

from .garage import DEVICE, Garage, status


async def test_long_topics(garage: Garage) -> None:
    """A topic can have 64 kB, and nothing of that size is kept."""
    await garage.start()
    await garage.tell("x" * 60_000 + "/status", status())
    await garage.tell(f"{DEVICE}/system/" + "x" * 60_000, status())
    assert [letter.reason for letter in garage.monitor.dead_letters] == [
        "invalid_id"
    ] * 2
    assert max(len(letter.topic) for letter in garage.monitor.dead_letters) < 600
    assert garage.monitor._routes == {}
    assert await garage.monitor.async_retry() == (0, 2)
    await garage.tell("x" * MAX_ID + "/status", status("x" * MAX_ID))
    assert garage.value("online", "x" * MAX_ID) == "on"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"wifi_password": "x y", "a": 1}', '{"wifi_password": **REDACTED**, "a": 1}'),
        ("{'apiKey' : 'x', a: 1}", "{'apiKey' : **REDACTED**, a: 1}"),
        ("my-token-2=x;a=1", "my-token-2=**REDACTED**;a=1"),
        ('{"secret": "x', '{"secret": **REDACTED**'),
        ("at 192.168.1.10-user:x", "at **REDACTED**-user:**REDACTED**"),
        ("a passage", "a passage"),
    ],
)
def test_masked(text: str, expected: str) -> None:
    """Diagnostics show neither addresses nor what stands beside the name of a secret."""
    assert masked(text) == expected


def test_masked_at_once() -> None:
    """A word without end takes no hours to be looked at."""
    text = "a" * 500_000
    assert masked(f"{text}=b") == f"{text}=b"
    assert masked(f"{text}key=b") == f"{text}key=**REDACTED**"


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("192.168.1.100", "http://192.168.1.100"),
        ("2001:DB8::1", "http://[2001:db8::1]"),
        ("fe80::1%eth0", None),
        ("fe80::1%]", None),
        ("fe80::1%@host", None),
        ("fe80::1%", None),
        ("192.168.1.100:80", None),
        ("192.168.1.100@host", None),
        ("javascript:alert(1)", None),
        ("esp32.local", None),
    ],
)
async def test_address(garage: Garage, ip: str, expected: str | None) -> None:
    """A device's pages are linked where its address can stand in a URL."""
    await garage.start()
    for said in ("10.0.0.1", ip):
        await garage.tell(f"{DEVICE}/status", status(ip_address=said))
    assert (device := garage.device()) is not None
    assert device.configuration_url == expected
    assert garage.value("ip") == ip


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        5,
        "ESP32_001",
        [],
        {},
        {"device_id": None},
        {"device_id": 5},
        {"device_id": ""},
        {"device_id": "ESP32_002"},
        {"owner": 5},
        {"owner": "Scanner"},
        {"heard": "noon"},
        {"relays": []},
    ],
)
async def test_damaged_device(
    garage: Garage, hass_storage: dict[str, Any], damaged: object
) -> None:
    """A device that is kept as none can be is let go, and takes no other one with it."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell("other/status", status("other"))
    await garage.unload()
    (kept,) = hass_storage["ble_bridge.monitors"]["data"].values()
    device = kept["devices"][DEVICE]
    kept["devices"][DEVICE] = (
        {**device, **damaged} if isinstance(damaged, dict) and damaged else damaged
    )
    await garage.set_up()
    assert [*garage.monitor.devices] == ["other"]
    await garage.connected()
    await garage.tell(f"{DEVICE}/status", status())
    assert garage.value("online") == "on"


@pytest.mark.parametrize("damaged", [None, [], {"devices": []}, {"dead_letters": 5}])
async def test_damaged_state(
    garage: Garage, hass_storage: dict[str, Any], damaged: object
) -> None:
    """A file that holds nothing of a monitor is as good as none."""
    await garage.start()
    await garage.unload()
    (monitor,) = hass_storage["ble_bridge.monitors"]["data"]
    hass_storage["ble_bridge.monitors"]["data"][monitor] = damaged
    await garage.set_up()
    await garage.connected()
    await garage.tell(f"{DEVICE}/status", status())
    assert garage.value("online") == "on"


async def test_retry_of_a_topic_that_cannot_be(garage: Garage) -> None:
    """What one broker allows in a topic may be what ours does not; the others go on."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", b"{")
    letters = garage.monitor.dead_letters
    letters.add("autocore/a\tb/status", b"x", Reason.INVALID_ID, 0)
    await garage.tell(f"{DEVICE}/telemetry", b"{")
    assert await garage.monitor.async_retry() == (2, 1)
    assert "autocore/a\tb/status" in [letter.topic for letter in letters]
