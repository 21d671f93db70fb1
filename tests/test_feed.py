"""From Home Assistant's Bluetooth stack to advertisements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from habluetooth.const import UNAVAILABLE_TRACK_SECONDS
from homeassistant.components.bluetooth import (
    FALLBACK_MAXIMUM_STALE_ADVERTISEMENT_SECONDS,
    MONOTONIC_TIME,
)
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.ble_bridge.diagnostics import async_get_config_entry_diagnostics
from custom_components.ble_bridge.feed import Feed
from custom_components.ble_bridge.filters import DeviceList, Filter
from custom_components.ble_bridge.records import Advertisement, Scanner, Sighting
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, RAW, SimulatedScanner, destination_data
from .layouts.samples import structure

OTHER = "C0:00:00:00:00:02"
SECOND = "AA:00:00:00:00:02"

type AddScanner = Callable[..., SimulatedScanner]


class Listener:
    """A feed, and what came out of it."""

    def __init__(
        self,
        hass: HomeAssistant,
        filter_: Filter | None = None,
        excluded: tuple[str, ...] = (),
    ) -> None:
        """Start a feed."""
        self.heard: list[tuple[str, str, int]] = []
        self.scanners: dict[str, Scanner] = {}
        self._excluded = excluded
        self.feed = Feed(
            hass, self._scanner, filter_ or Filter(), self._on_advertisement
        )
        self.feed.start()

    def _scanner(self, source: str) -> Scanner:
        return self.scanners.setdefault(
            source, Scanner(source, source, source, excluded=source in self._excluded)
        )

    def _on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement
    ) -> None:
        assert sighting.scanner.source == advertisement.source
        assert sighting.address == advertisement.address
        self.heard.append(
            (advertisement.source, advertisement.address, advertisement.rssi)
        )

    @property
    def rssi(self) -> list[int]:
        """Return the signal strengths of all that was heard."""
        return [rssi for _, _, rssi in self.heard]

    @property
    def received(self) -> int:
        """Return how many packets were counted."""
        return sum(scanner.received for scanner in self.scanners.values())

    @property
    def filtered(self) -> int:
        """Return how many of them were left out."""
        return sum(scanner.filtered for scanner in self.scanners.values())


@pytest.fixture(name="listen")
def listen_fixture(
    hass: HomeAssistant, enable_bluetooth: None
) -> Iterator[Callable[..., Listener]]:
    """Return what starts a feed; all of them are stopped at the end."""
    listeners: list[Listener] = []

    def listen(*args: Any, **kwargs: Any) -> Listener:
        listeners.append(Listener(hass, *args, **kwargs))
        return listeners[-1]

    yield listen
    for listener in listeners:
        listener.feed.stop()


@contextmanager
def later(hass: HomeAssistant, seconds: float) -> Iterator[None]:
    """Move the stack's clock, and run what it has scheduled."""
    now = MONOTONIC_TIME() + seconds
    with (
        patch("habluetooth.base_scanner.monotonic_time_coarse", return_value=now),
        patch("habluetooth.manager.monotonic_time_coarse", return_value=now),
    ):
        # Scanners forget first, then the stack says who is gone.
        for due in (31, UNAVAILABLE_TRACK_SECONDS + 1):
            async_fire_time_changed(hass, dt_util.utcnow() + timedelta(seconds=due))
        yield


async def diagnostics(hass: HomeAssistant, entry: Any) -> dict[str, Any]:
    """Return what a bug report shows of an entry."""
    return await async_get_config_entry_diagnostics(hass, entry)


# --- what is heard ----------------------------------------------------------------------


async def test_every_packet_of_every_scanner(
    add_scanner: AddScanner, listen: Callable[..., Listener]
) -> None:
    """Unchanged packets and those of weaker scanners count as much as any."""
    near, far = add_scanner(), add_scanner(SECOND, "Attic", connectable=True)
    listener = listen()
    for turn in range(5):
        near.hear(rssi=-40 - turn)
        far.hear(rssi=-90 - turn)
    assert listener.heard == [
        (source, ADDRESS, strength - turn)
        for turn in range(5)
        for source, strength in ((near.source, -40), (far.source, -90))
    ]
    assert {source: s.received for source, s in listener.scanners.items()} == {
        near.source: 5,
        far.source: 5,
    }
    assert listener.filtered == 0


async def test_changing_packets(
    scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """A new payload is heard once, not once for the change and once for the packet."""
    listener = listen()
    for turn in range(5):
        scanner.hear(raw=RAW + structure(10, bytes([turn])), rssi=-40 - turn)
    assert listener.rssi == [-40, -41, -42, -43, -44]


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        ("0c0e0011223344", False),  # Handoff
        ("0512000000", False),  # AirDrop
        ("0719010e20", False),  # AirPods
        ("0f05c008a1b2c3", False),  # Nearby action
        ("10055218a1b2c3", True),  # Nearby info, which names the device
        ("12020003", True),  # Find My
        ("0215" + "00" * 21, True),  # iBeacon
        ("0631", True),  # HomeKit
    ],
)
async def test_apple(
    scanner: SimulatedScanner,
    listen: Callable[..., Listener],
    data: str,
    arrives: bool,
) -> None:
    """Continuity packets never leave the stack, as the documentation says."""
    listener = listen()
    scanner.hear(raw=structure(0xFF, b"\x4c\0" + bytes.fromhex(data)))
    scanner.hear(OTHER)
    assert (ADDRESS in {address for _, address, _ in listener.heard}) is arrives
    assert listener.received == 1 + arrives


async def test_a_scanner_that_disappears(
    add_scanner: AddScanner, listen: Callable[..., Listener]
) -> None:
    """The others go on, and it is heard again when it is back."""
    first, second = add_scanner(), add_scanner(SECOND, "Attic")
    listener = listen()
    first.hear(rssi=-40)
    second.hear(rssi=-50)
    first.remove()
    second.hear(rssi=-51)
    add_scanner().hear(rssi=-41)
    assert listener.rssi == [-40, -50, -51, -41]


async def test_stop(scanner: SimulatedScanner, listen: Callable[..., Listener]) -> None:
    """Nothing comes after the end, and a new feed begins anew."""
    first = listen()
    scanner.hear(rssi=-40)
    first.feed.stop()
    scanner.hear(rssi=-41)
    scanner.hear(OTHER, rssi=-41)
    assert first.rssi == [-40]
    assert not first.feed.advertisers
    second = listen()
    scanner.hear(rssi=-42)
    assert first.rssi == [-40]
    assert second.rssi == [-42]


# --- what is old ------------------------------------------------------------------------


async def test_history(
    scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """What was heard before the start is not told, but its next packets are."""
    scanner.hear(rssi=-40)
    scanner.hear(OTHER, rssi=-40)
    listener = listen()
    assert listener.heard == []
    assert listener.received == 0
    assert set(listener.feed.advertisers) == {ADDRESS, OTHER}
    # The same payload as before, which is no change that the stack would tell.
    scanner.hear(rssi=-41)
    assert listener.heard == [(scanner.source, ADDRESS, -41)]


async def test_an_address_that_is_gone(
    hass: HomeAssistant,
    scanner: SimulatedScanner,
    listen: Callable[..., Listener],
) -> None:
    """It is released when the stack says so, and heard once per packet when it is back."""
    listener = listen()
    scanner.hear(rssi=-40)
    with later(hass, FALLBACK_MAXIMUM_STALE_ADVERTISEMENT_SECONDS - 60):
        assert ADDRESS in listener.feed.advertisers
    with later(hass, FALLBACK_MAXIMUM_STALE_ADVERTISEMENT_SECONDS + 60):
        assert not listener.feed.advertisers
    for rssi in (-41, -42):
        scanner.hear(rssi=rssi)
    assert listener.rssi == [-40, -41, -42]
    assert listener.received == 3


# --- what is bounded --------------------------------------------------------------------


@pytest.fixture(name="few")
def few_fixture() -> Iterator[None]:
    """Let ten devices be many, of which two make room."""
    with (
        patch("custom_components.ble_bridge.feed.MAX_DEVICES", 10),
        patch("custom_components.ble_bridge.feed._EVICTED_AT_ONCE", 2),
    ):
        yield


def addresses(number: int) -> list[str]:
    """Return random addresses."""
    return [f"40:00:00:00:{n >> 8:02X}:{n & 255:02X}" for n in range(number)]


async def test_the_oldest_make_room(
    few: None, scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """It is the devices that were silent longest; those that go on are never lost."""
    listener = listen()
    for age, address in enumerate(reversed(addresses(10))):
        scanner.hear(address, age=100 - age)
    scanner.hear(addresses(10)[9])  # The oldest so far
    scanner.hear(OTHER)
    assert set(listener.feed.advertisers) == {*addresses(7), addresses(10)[9], OTHER}
    assert listener.feed.evicted == 2
    # One that made room is back with its next change, and told of once.
    before = listener.received
    scanner.hear(addresses(10)[8], raw=structure(0xFF, b"\xfe\xff\2"))
    scanner.hear(addresses(10)[8], raw=structure(0xFF, b"\xfe\xff\2"))
    assert listener.received == before + 2


async def test_many_random_addresses(
    few: None, scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """Each packet is heard, and what is kept does not grow."""
    listener = listen()
    scanner.hear(rssi=-40, age=100)
    for number, address in enumerate(addresses(500)):
        scanner.hear(address, age=99 - number / 10)
        scanner.hear(rssi=-41, age=99 - number / 10)
        assert len(listener.feed.advertisers) <= 10
    assert listener.received == 1001
    assert ADDRESS in listener.feed.advertisers
    assert listener.feed.evicted == 501 - len(listener.feed.advertisers)


async def test_history_is_bounded(
    few: None, scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """A start among many addresses keeps the newest."""
    for age, address in enumerate(addresses(30)):
        scanner.hear(address, age=100 - age)
    listener = listen()
    assert len(listener.feed.advertisers) <= 10
    assert addresses(30)[29] in listener.feed.advertisers


# --- what is left out -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rssi", "passes"),
    [(-70, True), (-71, False), (-126, False), (5, True), (0, True), (-127, True)],
)
async def test_minimum_rssi(
    scanner: SimulatedScanner,
    listen: Callable[..., Listener],
    rssi: int,
    passes: bool,
) -> None:
    """Weaker packets are left out one by one; an unknown strength passes."""
    listener = listen(Filter(minimum_rssi=-70))
    scanner.hear(rssi=-50)
    scanner.hear(rssi=rssi)
    scanner.hear(rssi=-50)
    assert listener.rssi == [-50, *([rssi] if passes else []), -50]
    assert (listener.received, listener.filtered) == (3, 1 - passes)


async def test_a_list_goes_by_what_was_said_over_time(
    scanner: SimulatedScanner, listen: Callable[..., Listener]
) -> None:
    """A device that took its name once is known by it while its packets take turns."""
    listener = listen(Filter(deny=DeviceList.parse(names=["Secret*"])))
    scanner.hear(raw=structure(9, b"Secret 1"), rssi=-40)
    scanner.hear(rssi=-41)
    scanner.hear(rssi=-42)
    scanner.hear(OTHER, rssi=-43)
    assert listener.rssi == [-43]
    assert (listener.received, listener.filtered) == (4, 3)


async def test_a_name_that_another_scanner_learns(
    add_scanner: AddScanner, listen: Callable[..., Listener]
) -> None:
    """A passive scanner, whose packets never change, follows what the stack learns."""
    passive, active = add_scanner(), add_scanner(SECOND, "Attic")
    listener = listen(Filter(deny=DeviceList.parse(names=["Secret*"])))
    passive.hear(rssi=-40)
    active.hear(raw=RAW + structure(9, b"Secret 1"), rssi=-50)
    for _ in range(3):
        passive.hear(rssi=-41)
    # The stack hands a name on with the packet after the one that showed it missing.
    assert listener.rssi == [-40, -41]
    assert (listener.received, listener.filtered) == (5, 3)


async def test_an_excluded_scanner(
    add_scanner: AddScanner, listen: Callable[..., Listener]
) -> None:
    """What it hears is counted, and goes no further."""
    first, second = add_scanner(), add_scanner(SECOND, "Attic")
    listener = listen(excluded=(SECOND,))
    first.hear(rssi=-40)
    second.hear(rssi=-50)
    assert listener.rssi == [-40]
    assert listener.scanners[SECOND].received == 1
    assert listener.scanners[SECOND].filtered == 1
    assert listener.scanners[first.source].filtered == 0


EMPTY: dict[str, list[str]] = {
    "addresses": [],
    "names": [],
    "company_ids": [],
    "service_uuids": [],
}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {ADDRESS, OTHER}),
        ({"minimum_rssi": -60}, {ADDRESS}),
        ({"excluded_scanners": [SECOND]}, {ADDRESS}),
        ({"deny": {**EMPTY, "addresses": [OTHER]}}, {ADDRESS}),
        ({"allow": {**EMPTY, "company_ids": ["0xfffe"]}, "deny": EMPTY}, {ADDRESS}),
        ({"allow": {**EMPTY, "service_uuids": ["feaa"]}}, {OTHER}),
        (
            {
                "allow": {**EMPTY, "names": ["*"], "addresses": [ADDRESS]},
                "deny": {**EMPTY, "addresses": [ADDRESS]},
            },
            set(),
        ),
    ],
)
async def test_options(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    add_scanner: AddScanner,
    setup: Callable[..., Any],
    options: dict[str, Any],
    expected: set[str],
) -> None:
    """What the user enters decides what reaches the broker, and the figures add up."""
    first, second = add_scanner(), add_scanner(SECOND, "Attic")
    entry = await setup(destination_data(broker.port), options=options)
    first.hear(rssi=-40)
    second.hear(OTHER, raw=structure(0x16, b"\xaa\xfe\0"), rssi=-80)
    await subscriber.wait_for(lambda s: s.count("ble/raw/") == len(expected))
    figures = await diagnostics(hass, entry)
    counters = figures["destinations"][0]["counters"]
    assert counters["received"] == 2
    assert counters["filtered"] == 2 - len(expected)
    # Unloading writes what waits, so that nothing can come after it.
    await hass.config_entries.async_unload(entry.entry_id)
    await subscriber.wait_for_message("ble/bridge/home/status", b"offline")
    assert {
        topic.rsplit("/", 1)[1]
        for topic in subscriber.snapshot()
        if topic.startswith("ble/raw/")
    } == expected


# --- what is wrong ----------------------------------------------------------------------


async def test_malformed_data(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A packet that cannot be said is counted, logged once, and hurts no other."""
    entry = await setup(destination_data(broker.port))
    wrong: Any = [7]
    for _ in range(5):
        scanner._async_on_advertisement(
            OTHER, -50, None, wrong, {}, {}, None, {}, MONOTONIC_TIME()
        )
    scanner.hear()
    await subscriber.wait_for(lambda s: s.count("ble/raw/") == 1)
    counters = (await diagnostics(hass, entry))["destinations"][0]["counters"]
    assert counters["received"] == 6
    assert counters["failed"] == 5
    assert counters["sent"] == 1
    problems = [r for r in caplog.records if "could not be published" in r.message]
    assert len(problems) == 1
    assert "Traceback" not in caplog.text
