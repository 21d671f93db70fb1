"""A device comes with its first packet, and leaves after its timeout."""

from datetime import datetime, timedelta
import itertools
from typing import Any

from homeassistant.const import STATE_UNAVAILABLE
import pytest

from ..conftest import SimulatedScanner
from ..layouts.samples import validated
from .home import BALCONY, FIELDS, Home, bthome

PRESENCE = "signal_presence"


def stays(home: Home) -> list[tuple[str, str]]:
    """Return status and connection of each record."""
    records = [
        validated(message.payload, "connectivity")
        for message in home.subscriber.on_topic(f"{FIELDS}/connectivity")
    ]
    created = [datetime.fromisoformat(record["CreatedAt"]) for record in records]
    for earlier, later in itertools.pairwise(created):
        assert earlier < later + timedelta(
            milliseconds=10
        )  # The stack's clock is coarse
    return [(record["Status"], record["ConnectionId"]) for record in records]


async def test_never_heard(home: Home) -> None:
    """One that was not heard yet is not there, and nothing is said of it."""
    await home.start(BALCONY)
    await home.tick(1000)
    await home.settle()
    assert home.value(PRESENCE) == "off"
    assert home.value("signal_rssi") == STATE_UNAVAILABLE
    assert stays(home) == []


async def test_own_timeout(home: Home) -> None:
    """It leaves when nothing was heard for so long, and comes back with a new stay."""
    await home.start({**BALCONY, "timeout": 60})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    assert home.value(PRESENCE) == "on"
    for _ in range(3):
        await home.tick(50)
        assert home.value(PRESENCE) == "on"
        home.hear(bthome(temperature=21.5))  # Unchanged, but heard
    await home.tick(61)
    assert home.value(PRESENCE) == "off"
    for key in ("temperature", "signal_rssi", "signal_nearest_scanner"):
        assert home.value(key) == STATE_UNAVAILABLE
    home.hear(bthome(temperature=21.5))
    await home.hass.async_block_till_done()
    assert home.value(PRESENCE) == "on"
    assert home.value("temperature") == "21.5"
    await home.tick(61)
    await home.settle()
    assert [status for status, _ in stays(home)] == ["CONNECTED", "DISCONNECTED"] * 2
    (_, first), (_, first_end), (_, second), (_, second_end) = stays(home)
    assert first == first_end != second == second_end


async def test_the_stack_says_so(home: Home) -> None:
    """Without a timeout of its own it leaves when the stack gives it up."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    await home.tick(2000)  # The stack says nothing yet
    assert home.value(PRESENCE) == "on"
    with home.given_up():
        await home.hass.async_block_till_done()
    assert home.value(PRESENCE) == "off"
    assert home.value("temperature") == STATE_UNAVAILABLE
    home.hear(bthome(temperature=22))
    await home.hass.async_block_till_done()
    assert home.value(PRESENCE) == "on"
    assert home.value("temperature") == "22.0"
    await home.settle()
    assert [status for status, _ in stays(home)] == [
        "CONNECTED",
        "DISCONNECTED",
        "CONNECTED",
    ]
    assert len({connection for _, connection in stays(home)}) == 2


async def test_a_door_that_stays_closed(home: Home) -> None:
    """What only sends when something happens is there for a day, also across a restart."""
    await home.start(BALCONY)
    home.hear(bthome(door=False, sleepy=True))
    await home.until("door", "off")
    with home.given_up():
        await home.hass.async_block_till_done()
    await home.tick(3600)
    assert home.value(PRESENCE) == "on"
    await home.restart()
    await home.tick(3600)
    assert home.value(PRESENCE) == "on"
    assert home.value("door") == "off"
    await home.tick(86_400)
    assert home.value(PRESENCE) == "off"
    assert home.value("door") == STATE_UNAVAILABLE
    home.hear(bthome(door=True, sleepy=True))
    await home.until("door", "on")
    await home.settle()
    statuses = [status for status, _ in stays(home)]
    assert statuses == ["CONNECTED", "DISCONNECTED", "CONNECTED"]


@pytest.mark.parametrize("timeout", [60, 5000])
async def test_own_timeout_before_that_of_the_stack(home: Home, timeout: int) -> None:
    """A timeout of its own counts, be it shorter or longer than the stack's."""
    await home.start({**BALCONY, "timeout": timeout})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    with home.given_up():
        await home.hass.async_block_till_done()
    assert home.value(PRESENCE) == "on"
    await home.tick(timeout - 5)
    assert home.value(PRESENCE) == "on"
    await home.tick(6)
    assert home.value(PRESENCE) == "off"
    await home.settle()
    assert [status for status, _ in stays(home)] == ["CONNECTED", "DISCONNECTED"]


async def test_one_scanner_is_enough(home: Home, attic: SimulatedScanner) -> None:
    """It stays while any scanner hears it."""
    await home.start({**BALCONY, "timeout": 60})
    home.hear(bthome(temperature=21.5))
    await home.until("temperature", "21.5")
    for _ in range(4):
        await home.tick(40)
        home.hear(bthome(temperature=21.5), scanner=attic)
    assert home.value(PRESENCE) == "on"
    await home.tick(1)
    home.scanner.remove()
    await home.tick(1)
    assert home.value(PRESENCE) == "on"
    assert home.value("temperature") == "21.5"


@pytest.mark.parametrize(
    ("options", "rssi"),
    [
        ({"minimum_rssi": -70}, -80),
        ({"excluded_scanners": ["AA:00:00:00:00:02"]}, -50),
        ({"deny": {"names": ["Hidden*"]}}, -50),
    ],
)
async def test_what_is_filtered_is_not_there(
    home: Home, options: dict[str, Any], rssi: int, attic: SimulatedScanner
) -> None:
    """What the user leaves out says nothing of a device either."""
    hidden = bthome(temperature=21.5, name="Hidden 1")
    home.hear(hidden, rssi=rssi, scanner=attic)
    await home.start(options=options)
    await home.add(BALCONY)
    home.hear(hidden, rssi=rssi, scanner=attic)
    await home.restart()
    home.hear(hidden, rssi=rssi, scanner=attic)
    await home.settle()
    assert home.value(PRESENCE) == "off"
    assert home.topics("telemetry/", "iiot/") == set()
    if "deny" not in options:
        home.hear(bthome(temperature=23))
        await home.until("temperature", "23.0")
