"""Fewer advertisements of a device, where the user wants that; readings are all told."""

import time
from typing import Any

import pytest

from ..conftest import SimulatedScanner
from .home import ADDRESS, BALCONY, FIELDS, SECOND, Home, bthome

RAW = f"ble/raw/living-room-proxy/{ADDRESS}"

# Age in seconds, temperature, signal strength, and whether it goes out.
type Said = tuple[float, float, int, bool]


async def start(home: Home, shaping: dict[str, Any]) -> None:
    """Begin with a device that is shaped, and a library that is loaded."""
    await home.start({**BALCONY, "shaping": shaping}, {"address": SECOND})
    home.hear(bthome(temperature=20), SECOND)
    await home.until("temperature", "20.0", home.devices[1])


@pytest.mark.parametrize(
    ("shaping", "said"),
    [
        ({}, [(9, 20, -50, True), (8, 20, -50, True), (7.9, 20, -50, True)]),
        (
            {"minimum_interval": 5},
            [
                (20, 20, -50, True),
                (19, 20, -50, False),
                (15.1, 20, -90, False),
                (14.9, 20, -50, True),
                (14, 21, -50, False),  # Too early
                (9.8, 21, -50, True),
                (9, 22, -50, False),
                (8, 23, -50, False),
                (4.7, 23, -50, True),
            ],
        ),
        (
            {"unchanged_interval": 60},
            [
                (100, 20, -50, True),
                (90, 20, -50, False),
                (80, 20, -80, False),
                (70, 21, -50, True),
                (60, 21, -50, False),
                (40, 20, -50, True),
                (1, 20, -50, False),
            ],
        ),
        (
            {"unchanged_interval": 30, "rssi_change": 10},
            [
                (100, 20, -50, True),
                (99, 20, -59, False),
                (98, 20, -60, True),
                (97, 20, -51, False),
                (96, 20, -50, True),
                (66.2, 20, -50, False),
                (65.8, 20, -50, True),
            ],
        ),
        (
            {"minimum_interval": 5, "unchanged_interval": 30},
            [
                (100, 20, -50, True),
                (98, 21, -50, False),  # Too early
                (94, 21, -50, True),  # But it is not lost
                (88, 21, -50, False),
                (60, 21, -50, True),
            ],
        ),
    ],
)
async def test_what_goes_out(
    home: Home, shaping: dict[str, Any], said: list[Said]
) -> None:
    """What is left out is left out of the raw layout; readings are complete."""
    await start(home, shaping)
    began = time.monotonic()
    for age, temperature, rssi, _ in said:
        age += time.monotonic() - began
        home.hear(bthome(temperature=temperature), age=age, rssi=rssi)
        await home.settle()
    sent = home.payloads(RAW)
    expected = [
        (bthome(temperature=temperature).hex(), rssi)
        for _, temperature, rssi, passes in said
        if passes
    ]
    assert [(message["raw"], message["rssi"]) for message in sent] == expected
    changes = [said[0][1]]
    for _, temperature, *_ in said:
        if temperature != changes[-1]:
            changes.append(temperature)
    assert [m["value"] for m in home.payloads(f"{FIELDS}/v/temperature")] == changes


async def test_each_scanner(home: Home, attic: SimulatedScanner) -> None:
    """Each scanner's are shaped by themselves."""
    await start(home, {"minimum_interval": 5})
    for age in (9, 8, 7):
        home.hear(age=age)
        home.hear(age=age, scanner=attic)
        await home.settle()
    assert len(home.payloads(RAW)) == 1
    assert len(home.payloads(f"ble/raw/attic/{ADDRESS}")) == 1


async def test_buttons(home: Home) -> None:
    """A press always goes out, the first one too, and each is an event."""
    await start(home, {"minimum_interval": 3600})
    for number in range(1, 6):
        home.hear(bthome(packet_id=number, button=1))
        await home.settle()
        assert len(home.payloads(f"{FIELDS}/v/button")) == number
        home.hear(bthome(packet_id=number, button=1))
    await home.settle()
    packets = [bthome(packet_id=number, button=1).hex() for number in range(1, 6)]
    sent = [message["raw"] for message in home.payloads(RAW)]
    assert sent == packets


async def test_the_others(home: Home) -> None:
    """Other devices, and those that nobody added, are not shaped."""
    await start(home, {"minimum_interval": 3600})
    for _ in range(3):
        for address in (ADDRESS, SECOND, "C0:00:00:00:00:01"):
            home.hear(address=address)
        await home.settle()
    assert len(home.payloads(RAW)) == 1
    for address in (SECOND, "C0:00:00:00:00:01"):
        assert len(home.payloads(f"ble/raw/living-room-proxy/{address}")) >= 3
