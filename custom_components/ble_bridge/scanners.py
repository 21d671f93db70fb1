"""Scanners and their IDs: stable, unique, safe in a topic, and the user's to change."""

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
import re
from typing import Any, Final, TypedDict, TypeIs, override

from homeassistant.components import bluetooth
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.storage import Store

from .const import DOMAIN
from .layouts.topics import safe_part
from .records import Scanner
from .settings import slug

MAX_KNOWN: Final = 1_000
# A scanner that heard so many a minute and hears nothing for so long (s) is silent.
BUSY: Final = 6.0
SILENT_AFTER: Final = 300.0
# How much the latest measurement counts for whether a scanner is busy.
_WEIGHT: Final = 0.2
_SAVE_DELAY: Final = 2
_ADDRESS_SUFFIX: Final = re.compile(r"\s*\((?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\)$")


class Stored(TypedDict):
    """What is kept across restarts.

    `scanners` gives the ID of each source address, `retained` the topics of each
    destination (by subentry ID) that hold a retained message, with whose they are.
    """

    scanners: dict[str, str]
    retained: dict[str, dict[str, str]]


class _Store(Store[Stored]):
    """The file, in whatever version it was written."""

    @override
    async def _async_migrate_func(
        self, old_major_version: int, old_minor_version: int, old_data: Any
    ) -> Any:
        """Take over what version 1.1 kept, which did not say whose a topic is."""
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            old_data["retained"] = {
                subentry_id: dict.fromkeys(topics, "")
                for subentry_id, topics in old_data["retained"].items()
            }
        return old_data


class BridgeStore:
    """The IDs given to scanners, and what the brokers keep for us."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize the store."""
        self._store = _Store(hass, 1, DOMAIN, minor_version=2)
        self.data: Stored = {"scanners": {}, "retained": {}}

    async def async_load(self) -> None:
        """Read what was kept."""
        stored = await self._store.async_load()
        if _is_valid(stored):
            self.data = stored

    @callback
    def save(self) -> None:
        """Write soon."""
        self._store.async_delay_save(lambda: self.data, _SAVE_DELAY)

    async def async_save(self) -> None:
        """Write now."""
        await self._store.async_save(self.data)

    async def async_remove(self) -> None:
        """Remove what was kept."""
        await self._store.async_remove()


def _is_valid(stored: object) -> TypeIs[Stored]:
    """Tell whether what was read is what we write."""
    return (
        isinstance(stored, dict)
        and isinstance(scanners := stored.get("scanners"), dict)
        and isinstance(retained := stored.get("retained"), dict)
        and all(
            isinstance(scanner_id, str) and safe_part(scanner_id) == scanner_id
            for scanner_id in scanners.values()
        )
        and all(
            isinstance(topics, dict)
            and all(isinstance(owner, str) for owner in topics.values())
            for topics in retained.values()
        )
    )


@dataclass(slots=True)
class _Measured:
    """When a scanner was measured, with what it had received, and when it heard last."""

    time: float
    received: int
    heard: float
    average: float = 0.0


class Scanners:
    """The scanners that were heard, by source address."""

    def __init__(
        self,
        hass: HomeAssistant,
        store: BridgeStore,
        chosen: Mapping[str, str],
        excluded: frozenset[str],
    ) -> None:
        """Initialize with the IDs that the user chose and the sources left out."""
        self._hass = hass
        self._store = store
        self.chosen = chosen
        self._excluded = excluded
        self.by_source: dict[str, Scanner] = {}
        self._measured: dict[str, _Measured] = {}

    @callback
    def get(self, source: str) -> Scanner:
        """Return the scanner of a source address."""
        if (scanner := self.by_source.get(source)) is None:
            name = scanner_name(self._hass, source)
            scanner = self.by_source[source] = Scanner(
                source,
                self._id(source, name),
                name,
                excluded=source in self._excluded,
                online=bluetooth.async_scanner_by_source(self._hass, source)
                is not None,
            )
        return scanner

    @callback
    def forget(self, source: str) -> bool:
        """Forget a scanner and its ID, unless it is there; tell whether it was known."""
        scanner = self.by_source.get(source)
        if scanner is None or scanner.online:
            return False
        del self.by_source[source]
        self._measured.pop(source, None)
        if self._store.data["scanners"].pop(source, None) is not None:
            self._store.save()
        return True

    @callback
    def refresh(self) -> list[Scanner]:
        """Take in the scanners that are there now, and return those that changed.

        A scanner that is heard of for the first time is among them.
        """
        current = {
            scanner.source for scanner in bluetooth.async_current_scanners(self._hass)
        }
        changed = [self.get(source) for source in current - self.by_source.keys()]
        for source, scanner in self.by_source.items():
            if scanner.online is not (online := source in current):
                scanner.online = online
                changed.append(scanner)
        return changed

    @callback
    def measure(self, monotonic: float, now: float) -> list[Scanner]:
        """Work out how busy each scanner is; return those that fell silent, or speak again.

        The latest rate says little of a scanner in a quiet place, so that the average
        tells whether it was busy. It stands still while nothing comes.
        """
        changed = []
        for source, scanner in self.by_source.items():
            last = self._measured.get(source)
            if last is None:
                self._measured[source] = _Measured(
                    monotonic, scanner.received, monotonic
                )
                continue
            received = scanner.received - last.received
            if (elapsed := monotonic - last.time) <= 0:
                continue
            scanner.rate = received / elapsed * 60
            if received:
                scanner.heard, last.heard = now, monotonic
                last.average += (scanner.rate - last.average) * _WEIGHT
            last.time, last.received = monotonic, scanner.received
            silent = (
                scanner.online
                and last.average >= BUSY
                and monotonic - last.heard >= SILENT_AFTER
            )
            if silent is not scanner.silent:
                scanner.silent = silent
                changed.append(scanner)
        return changed

    def _id(self, source: str, name: str) -> str:
        """Return the ID that was chosen or given before, or give one."""
        if chosen := self.chosen.get(source):
            return safe_part(chosen)
        known = self._store.data["scanners"]
        taken = {*self.chosen.values()}
        taken.update(other for key, other in known.items() if key != source)
        if (scanner_id := known.get(source)) is None or scanner_id in taken:
            scanner_id = unique_id(slug(name) or slug(source), taken)
            while len(known) >= MAX_KNOWN:
                del known[next(iter(known))]
            known[source] = scanner_id
            self._store.save()
        return scanner_id


def unique_id(scanner_id: str, taken: set[str]) -> str:
    """Return an ID that is not taken: the one asked for, else with a number."""
    scanner_id = safe_part(scanner_id)
    candidate, number = scanner_id, 1
    while candidate in taken:
        number += 1
        candidate = f"{scanner_id}-{number}"
    return candidate


@callback
def scanner_name(hass: HomeAssistant, source: str) -> str:
    """Return the name under which Home Assistant shows a scanner, without its address."""
    named = [
        device.name_by_user
        for device in dr.async_get(hass).async_get_devices(
            connections={(dr.CONNECTION_BLUETOOTH, source)}
        )
        if device.name_by_user
    ]
    scanner = bluetooth.async_scanner_by_source(hass, source)
    name = named[0] if named else scanner.name if scanner is not None else source
    return _ADDRESS_SUFFIX.sub("", name) or source
