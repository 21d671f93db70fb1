"""Home Assistant's Bluetooth stack → advertisements.

Three calls of the stack's documented API are all that is used. A callback for every
change tells of new addresses; a callback per address then tells of each packet from each
scanner, unchanged ones too; and the stack says when an address is gone.
"""

from collections.abc import Callable
from typing import Final, Protocol

from homeassistant.components import bluetooth
from homeassistant.components.bluetooth import (
    BluetoothCallbackMatcher,
    BluetoothChange,
    BluetoothScanningMode,
)
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback

from .filters import Filter
from .records import Advertisement, Scanner, Sighting

MAX_DEVICES: Final = 10_000
_EVICTED_AT_ONCE: Final = MAX_DEVICES // 10
NO_RSSI: Final = -127  # The stack's word for a signal strength that is not known


class Device(Protocol):
    """What follows the packets of the addresses that belong to it."""

    def on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement, changed: bool
    ) -> bool:
        """Take a packet, and tell whether it goes out; must not raise."""
        ...


class Advertiser:
    """What is known of an address that is on air: how each scanner hears it.

    `device` is what the address belongs to, if the user has added that.
    """

    __slots__ = ("_feed", "_unregister", "address", "device", "sightings")

    def __init__(self, feed: Feed, address: str) -> None:
        """Listen to every packet of the address until released."""
        self.address = address
        self.device: Device | None = None
        self.sightings: dict[str, Sighting] = {}
        self._feed = feed
        self._unregister: tuple[CALLBACK_TYPE, ...] = (
            bluetooth.async_register_advertisement_callback(
                feed.hass, self.on_advertisement, address
            ),
            bluetooth.async_track_unavailable(
                feed.hass, self._on_unavailable, address, connectable=False
            ),
        )

    @property
    def time(self) -> float:
        """Return when the address was heard last (`CLOCK_MONOTONIC`, seconds)."""
        return max((sighting.time for sighting in self.sightings.values()), default=0.0)

    def sighting(self, source: str) -> Sighting:
        """Return how a scanner hears the address, though it may not have yet."""
        if (sighting := self.sightings.get(source)) is None:
            sighting = self.sightings[source] = Sighting(
                self._feed.scanner(source), self.address
            )
        return sighting

    def heard_before(self, advertisement: Advertisement) -> Sighting | None:
        """Return how a packet was heard that the stack has kept; None if it is filtered."""
        filter_ = self._feed.filter
        sighting = self.sighting(advertisement.source)
        if (
            sighting.scanner.excluded
            or not filter_.accepts(advertisement)
            or NO_RSSI < (advertisement.rssi or 0) < filter_.minimum_rssi
        ):
            return None
        return sighting

    @callback
    def on_advertisement(self, advertisement: Advertisement) -> None:
        """Take one packet: count it, filter it, hand it over.

        This runs for every packet that any scanner hears, and costs what the whole house
        pays: the attribute look-ups below are in the order in which they save most.
        """
        feed = self._feed
        sighting = self.sightings.get(advertisement.source)
        if sighting is None:
            sighting = self.sighting(advertisement.source)
        scanner = sighting.scanner
        scanner.received += 1
        sighting.time = advertisement.time
        if changed := sighting.update(advertisement):
            sighting.accepted = feed.filter.accepts(advertisement)
        if (
            not sighting.accepted
            or scanner.excluded
            or NO_RSSI < (advertisement.rssi or 0) < feed.filter.minimum_rssi
        ):
            scanner.filtered += 1
            return
        if self.device is None or self.device.on_advertisement(
            sighting, advertisement, changed
        ):
            feed.on_advertisement(sighting, advertisement)

    @callback
    def forget(self, source: str) -> None:
        """Forget how a scanner heard the address."""
        self.sightings.pop(source, None)

    @callback
    def _on_unavailable(self, advertisement: Advertisement) -> None:
        """Let go of an address that has not been heard for long."""
        self._feed.release(self)
        self._feed.on_gone(self)

    def release(self) -> None:
        """Stop listening."""
        for unregister in self._unregister:
            unregister()


class Feed:
    """Every advertisement from every scanner."""

    def __init__(
        self,
        hass: HomeAssistant,
        scanner: Callable[[str], Scanner],
        filter_: Filter,
        on_advertisement: Callable[[Sighting, Advertisement], None],
        on_address: Callable[[Advertiser], None] = lambda _: None,
        on_gone: Callable[[Advertiser], None] = lambda _: None,
    ) -> None:
        """Initialize the feed.

        `scanner` gives the scanner of a source address; `on_advertisement` takes what
        passes the filter, and must not raise; `on_address` and `on_gone` are told of
        addresses that come on air, and that the stack no longer hears.
        """
        self.hass = hass
        self.scanner = scanner
        self.filter = filter_
        self.on_advertisement = on_advertisement
        self.on_address = on_address
        self.on_gone = on_gone
        self.advertisers: dict[str, Advertiser] = {}
        self.evicted = 0
        self._unregister: CALLBACK_TYPE | None = None
        self._replaying = False

    @callback
    def start(self) -> None:
        """Listen.

        What the stack heard earlier is replayed here: it names the addresses that are on
        air, whose packets of now may be no change that would be told, but it is old, and
        does not go out again.
        """
        self._replaying = True
        self._unregister = bluetooth.async_register_callback(
            self.hass,
            self._on_change,
            BluetoothCallbackMatcher(connectable=False),
            BluetoothScanningMode.PASSIVE,
        )
        self._replaying = False

    @callback
    def stop(self) -> None:
        """Stop listening, and forget what was on air."""
        if self._unregister is not None:
            self._unregister()
            self._unregister = None
        for advertiser in self.advertisers.values():
            advertiser.release()
        self.advertisers.clear()

    @callback
    def release(self, advertiser: Advertiser) -> None:
        """Forget one address."""
        advertiser.release()
        self.advertisers.pop(advertiser.address, None)

    @callback
    def _on_change(self, advertisement: Advertisement, _: BluetoothChange) -> None:
        """Begin to listen to an address that is new."""
        address = advertisement.address
        if address in self.advertisers:
            return
        if len(self.advertisers) >= MAX_DEVICES:
            self._evict()
        advertiser = self.advertisers[address] = Advertiser(self, address)
        self.on_address(advertiser)
        if not self._replaying:
            advertiser.on_advertisement(advertisement)

    def _evict(self) -> None:
        """Make room by forgetting the addresses that have been silent longest.

        Those of the user's devices go last: an address whose device is known is not one of
        the many that come once.
        """
        for advertiser in sorted(
            self.advertisers.values(),
            key=lambda advertiser: (advertiser.device is not None, advertiser.time),
        )[:_EVICTED_AT_ONCE]:
            self.release(advertiser)
            self.on_gone(advertiser)
            self.evicted += 1
