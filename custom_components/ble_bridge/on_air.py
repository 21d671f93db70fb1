"""What is on air and can become a device: the list to pick from, best known first."""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
import time
from typing import Final

from homeassistant.components import bluetooth
from homeassistant.core import HomeAssistant
from homeassistant.helpers.selector import SelectOptionDict

from .bridge import Bridge
from .decoders.sources import FORMATS
from .device import Device
from .irk import Resolver, is_stable
from .layouts.raw import NO_RSSI, address_type
from .records import Advertisement
from .settings import plain_name

MAX_OFFERED: Final = 500
# How long the event loop is held at a time (s).
_SLICE: Final = 0.01


class Knowledge(IntEnum):
    """How well a device is known, the best first."""

    DECODED = 0
    ENCRYPTED = 1
    NAMED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device on air that the user may add; `model` is what it was decoded as, if it was."""

    advertisement: Advertisement
    knowledge: Knowledge
    model: str | None
    stable: bool

    @property
    def option(self) -> SelectOptionDict:
        """Return the line that is chosen: name, model, signal strength, address."""
        advertisement = self.advertisement
        parts = [plain_name(advertisement), self.model]
        if self.knowledge is Knowledge.ENCRYPTED:
            parts.append("encrypted")
        if advertisement.rssi not in NO_RSSI:
            parts.append(f"{advertisement.rssi} dBm".replace("-", "\N{MINUS SIGN}"))
        parts.append(advertisement.address)
        return SelectOptionDict(
            value=advertisement.address, label=" · ".join(filter(None, parts))
        )

    @property
    def rank(self) -> tuple[int, bool, int, str]:
        """Return where it stands in the list: the nearest first of those known as well."""
        rssi = self.advertisement.rssi
        return (
            self.knowledge,
            not self.stable,
            128 if rssi in NO_RSSI else -rssi,
            self.advertisement.address,
        )


class _Slices:
    """Gives the event loop its turn, often enough that nothing waits for us."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause(self) -> None:
        """Let others go on if we have held the loop for long enough."""
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()


async def async_candidates(
    hass: HomeAssistant, bridge: Bridge, taken: Collection[str | None]
) -> list[Candidate]:
    """Return what is on air and is no device yet, the best known first.

    Left out are `taken` addresses, those that a device changes every few minutes, and those
    of which a filter lets nothing through.
    """
    packets = [
        packet for packet in _last_packets(hass, bridge) if packet.address not in taken
    ]
    slices = _Slices()
    await bridge.devices.async_load([FORMATS])
    sources = {}
    for packet in packets:
        sources.update(dict.fromkeys(bridge.decoders.sources(packet)))
        await slices.pause()
    await bridge.devices.async_load(sources)
    candidates = []
    for packet in packets:
        candidates.append(_judge(bridge, packet))
        await slices.pause()
    return sorted(candidates, key=lambda candidate: candidate.rank)


def _last_packets(hass: HomeAssistant, bridge: Bridge) -> Iterator[Advertisement]:
    """Return the last packet of each address that could be that of a new device."""
    for advertiser in bridge.feed.advertisers.values():
        if isinstance(advertiser.device, Device):
            continue
        heard = advertiser.sightings.values()
        if heard and not any(sighting.accepted for sighting in heard):
            continue
        last = bluetooth.async_last_service_info(
            hass, advertiser.address, connectable=False
        )
        if (
            last is not None
            and is_stable(last.address, address_type(last)) is not False
        ):
            yield last


async def async_candidate(
    hass: HomeAssistant, bridge: Bridge, address: str
) -> Candidate | None:
    """Return what is known of one address, or None where it was not heard."""
    last = bluetooth.async_last_service_info(hass, address, connectable=False)
    if last is None:
        return None
    await bridge.devices.async_load([FORMATS])
    await bridge.devices.async_load(bridge.decoders.sources(last))
    return _judge(bridge, last)


def _judge(bridge: Bridge, packet: Advertisement) -> Candidate:
    """Find out how well the sender of a packet is known."""
    knowledge = Knowledge.NAMED if plain_name(packet) else Knowledge.UNKNOWN
    model = None
    if (found := bridge.decoders.device().recognise(packet)) is not None:
        model, needs_key = found
        knowledge = Knowledge.ENCRYPTED if needs_key else Knowledge.DECODED
    stable = is_stable(packet.address, address_type(packet)) is True
    return Candidate(packet, knowledge, model, stable)


async def async_resolve(
    irks: Iterable[bytes], addresses: Iterable[str]
) -> bytes | None:
    """Return the key with which one of some addresses was made, or None."""
    resolver = Resolver(1)
    for irk in irks:
        resolver.add(irk.hex(), [irk])
    slices = _Slices()
    for address in addresses:
        if (found := resolver.resolve(address)) is not None:
            return bytes.fromhex(found)
        await slices.pause()
    return None
