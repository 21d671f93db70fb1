"""One device of the user's: its values, its presence, its alerts."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import math
import time
from typing import Any, Final, Protocol
import uuid

from .alerts import Change, Rule, RuleKind, Watch
from .decoders import DeviceDecoder, Encryption
from .decoders.model import Decoded, DecodeError, KeyMissing, KeyWrong
from .feed import Advertiser
from .layouts.raw import NO_RSSI
from .ordering import History, News, items
from .records import (
    Advertisement,
    Alert,
    Connectivity,
    DeviceIdentity,
    Error,
    Reading,
    Record,
    Sighting,
    Value,
)
from .shaping import Reason, Shaper, Shaping

MAX_FIELDS: Final = 64
# How long what a scanner heard counts for signal strength and nearest scanner (s).
SIGNAL_AGE: Final = 60.0
# How much stronger (dB) another scanner must hear a device to be the nearest.
_NEARER: Final = 5
# An event that is said again was another one when something else was said for so long (s).
_NEW_EVENT: Final = 1.0
# A proxy gives all packets of one message one time. Two readings never have the same: where
# a time names a point of a series, the second would overwrite the first.
_SAME_MOMENT: Final = 1.0
_TICK: Final = 1e-6
# How often the same error of a device is told (s).
ERROR_INTERVAL: Final = 300.0
# After how long the stack gives up a device whose interval it does not know (s).
FALLBACK_TIMEOUT: Final = 900.0
# After how long a device is gone that only sends when something happens (s).
SLEEPY_TIMEOUT: Final = 86_400.0
DEFAULT_REFERENCE_RSSI: Final = -59
DEFAULT_PATH_LOSS: Final = 2.5

# What can be listened to, beside the names of fields.
PRESENCE: Final = "presence!"
SIGNAL: Final = "signal!"
MODEL: Final = "model!"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What the user said of a device.

    `timeout` (s) is after how long without a packet it is gone; without one the stack says
    so. `reference_rssi` (dBm) is what is heard one metre away, `path_loss` the exponent by
    which it falls off.
    """

    device_id: str
    name: str
    address: str | None = None
    irk: bytes | None = None
    key: bytes | None = None
    timeout: float | None = None
    reference_rssi: int | None = None
    path_loss: float = DEFAULT_PATH_LOSS
    shaping: Shaping | None = None
    rules: tuple[Rule, ...] = ()


class Owner(Protocol):
    """Who has a device, and is told what becomes of it."""

    def on_record(self, device: Device, record: Record) -> None:
        """Take a record of the device."""

    def on_fields(self, device: Device, names: list[str]) -> None:
        """Take note of fields that the device has not had before."""

    def on_values(self, device: Device, names: Iterable[str]) -> None:
        """Take note of fields, or other things to listen to, that changed."""

    def on_event(self, device: Device, name: str, event: str) -> None:
        """Take note of something that happened."""

    def on_alert(self, device: Device, watch: Watch, change: Change) -> None:
        """Take note of an alert that started or ended."""

    def on_encryption(self, device: Device, encryption: Encryption) -> None:
        """Take note of what the device's key opens."""

    def interval(self, address: str) -> float | None:
        """Return how often an address sends (s), if that is known."""


@dataclass(slots=True, eq=False)
class Counters:
    """What became of a device's packets."""

    readings: int = 0
    late: int = 0
    undecoded: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: Counters) -> None:
        """Count what was counted elsewhere too."""
        self.readings += other.readings
        self.late += other.late
        self.undecoded += other.undecoded
        for name, count in other.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count


class Device:
    """What is known of a device, kept up by its packets."""

    def __init__(
        self,
        subentry_id: str,
        settings: DeviceSettings,
        decoder: DeviceDecoder,
        owner: Owner,
    ) -> None:
        """Initialize a device that has not been heard yet."""
        self.subentry_id = subentry_id
        self.settings = settings
        self.decoder = decoder
        self.identity = self._identity(settings.address, None)
        self.manufacturer: str | None = None
        self._read = 0.0
        self.values: dict[str, Value] = {}
        self.events: set[str] = set()
        self.advertisers: dict[str, Advertiser] = {}
        self.present = False
        self.connection_id: str | None = None
        self.is_sleepy = False
        self.heard = 0.0
        self.nearest: Sighting | None = None
        self.registry_id: str | None = None
        self.counters = Counters()
        self.shaper = Shaper(settings.shaping) if settings.shaping else None
        self.watches = [Watch(rule) for rule in settings.rules]
        self.encryption: Encryption | None = None
        self.waiting: tuple[Sighting, Advertisement, News, float] | None = None
        self._owner = owner
        self._history = History()
        self._told: dict[str, float] = {}
        self._is_judged = False

    # --- packets ------------------------------------------------------------------------

    def on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement, changed: bool
    ) -> bool:
        """Take a packet, and tell whether it goes out as it is.

        A payload that stays the same costs no more than this.
        """
        now = advertisement.time
        sighting.rssi = advertisement.rssi
        sighting.device = self.identity
        self.heard = max(self.heard, now)
        if not self.present:
            self._arrive(sighting, advertisement)
        elif self.nearest is None:  # After a restart
            self.nearest = sighting
            self._owner.on_values(self, [SIGNAL])
        happened = False
        if changed or self._history.is_due(sighting.scanner.source, now):
            happened = self._on_payload(sighting, advertisement)
        return self.shaper is None or self.shaper.passes(
            sighting, advertisement, changed, happened
        )

    def catch_up(self, sighting: Sighting, advertisement: Advertisement) -> None:
        """Take what was said last while nobody listened.

        When the device is new, what happened before is over; else all is news but what it
        said already.
        """
        is_new, now = not self.heard, advertisement.time
        sighting.rssi = advertisement.rssi
        self.heard = max(self.heard, now)
        if not self.present:
            self._arrive(sighting, advertisement)
        news, pause = self._history.judge(
            sighting.scanner.source,
            items(advertisement),
            now,
            self.decoder.counter(advertisement),
        )
        if is_new:
            news, pause = News.AGAIN, 0.0
        if news is not News.LATE:
            self._decode(sighting, advertisement, news, pause)

    def decode_again(self) -> None:
        """Decode what waited for its library."""
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            self._decode(*waiting)

    def _on_payload(self, sighting: Sighting, advertisement: Advertisement) -> bool:
        """Make a reading of a payload that is news, and tell whether something happened."""
        said = items(advertisement)
        if not said:
            return False
        news, pause = self._history.judge(
            sighting.scanner.source,
            said,
            advertisement.time,
            self.decoder.counter(advertisement),
        )
        if news is News.LATE:
            self.counters.late += 1
            return False
        return self._decode(sighting, advertisement, news, pause)

    def _decode(
        self, sighting: Sighting, advertisement: Advertisement, news: News, pause: float
    ) -> bool:
        """Decode a packet, and tell whether something happened."""
        try:
            decoded = self.decoder.decode(advertisement)
        except DecodeError as err:
            self._on_undecodable(err)
            return False
        if self.decoder.pending:
            if self.waiting is not None and news is News.AGAIN:
                *_, news, pause = self.waiting
            self.waiting = sighting, advertisement, news, pause
            return True
        self._set_encryption(self.decoder.encryption)
        if decoded is None:
            self.counters.undecoded += 1
            return False
        events = decoded.events
        if news is News.AGAIN and pause < _NEW_EVENT:
            events = {}
        changed = [
            name
            for name, value in decoded.values.items()
            if self.values.get(name) != value
        ]
        if news is News.AGAIN and not changed and not events:
            return False
        self._take(sighting, advertisement, decoded, events, changed)
        return bool(events)

    def _take(
        self,
        sighting: Sighting,
        advertisement: Advertisement,
        decoded: Decoded,
        events: Mapping[str, str],
        changed: list[str],
    ) -> None:
        """Take over what a packet says, and tell of it."""
        now = self._read = next_moment(self._read, _unix(advertisement.time))
        self.is_sleepy = self.decoder.is_sleepy
        self._identify(advertisement.address, decoded)
        values = dict(decoded.values)
        if new := [
            name
            for name in (*values, *decoded.events)
            if name not in self.values and name not in self.events
        ]:
            room = MAX_FIELDS - len(self.values) - len(self.events)
            for name in new[max(room, 0) :]:
                values.pop(name, None)
            new = new[: max(room, 0)]
            self.events.update(name for name in new if name in decoded.events)
        self.values.update(values)
        rssi = None if advertisement.rssi in NO_RSSI else advertisement.rssi
        self.counters.readings += 1
        if new:
            self._owner.on_fields(self, new)
        self._owner.on_record(
            self,
            Reading(
                device=self.identity,
                time=now,
                scanner_id=sighting.scanner.scanner_id,
                rssi=rssi,
                values=values,
                events=events,
            ),
        )
        for name, event in events.items():
            self._owner.on_event(self, name, event)
        if changed:
            self._owner.on_values(self, changed)
        for watch in self.watches:
            for name in watch.rule.fields:
                if name in values:
                    self._tell(watch, watch.on_value(values[name], now))

    def _identity(self, address: str | None, model: str | None) -> DeviceIdentity:
        """Return how the device is called on the bus."""
        settings = self.settings
        return DeviceIdentity(
            settings.device_id,
            address,
            settings.name,
            model,
            rotates=settings.irk is not None,
        )

    def _identify(self, address: str, decoded: Decoded) -> None:
        """Take note of the address and the model."""
        if self.identity.address != address or self.identity.model != decoded.model:
            self.identity = self._identity(address, decoded.model)
            self.manufacturer = decoded.manufacturer
            self._owner.on_values(self, [MODEL])

    @property
    def left_out(self) -> Mapping[Reason, int]:
        """Return how many of its advertisements did not go out, by reason."""
        return self.shaper.dropped if self.shaper else {}

    # --- what goes wrong ----------------------------------------------------------------

    def _on_undecodable(self, err: DecodeError) -> None:
        """Tell of a packet that could not be decoded."""
        if isinstance(err, KeyMissing):
            self._set_encryption(Encryption.KEY_MISSING)
            self.tell_error("key_missing", "The packets are encrypted; a key is needed")
        elif isinstance(err, KeyWrong):
            self._set_encryption(Encryption.KEY_WRONG)
            self.tell_error("key_wrong", "The packets are encrypted with another key")
        else:
            cause = type(err.__cause__ or err).__name__
            source = self.decoder.source
            self.tell_error(
                "cannot_decode",
                "A packet could not be decoded",
                {"source": source.name if source else "", "cause": cause},
            )

    def tell_error(
        self, name: str, body: str, tags: Mapping[str, str] | None = None
    ) -> None:
        """Tell of an error, each no more often than its interval; the rest is counted."""
        self.counters.errors[name] = self.counters.errors.get(name, 0) + 1
        now = time.monotonic()
        if now - self._told.get(name, -ERROR_INTERVAL) < ERROR_INTERVAL:
            return
        self._told[name] = now
        self._owner.on_record(
            self,
            Error(
                device=self.identity,
                name=name,
                body=body,
                tags={
                    **(tags or {}),
                    "count": str(self.counters.errors[name]),
                },
                created_at=time.time(),
            ),
        )

    def _set_encryption(self, encryption: Encryption) -> None:
        """Take note of what the key opens, and tell when that is something else."""
        if encryption is not self.encryption:
            self.encryption = encryption
            self._owner.on_encryption(self, encryption)

    # --- presence -----------------------------------------------------------------------

    def _arrive(self, sighting: Sighting, advertisement: Advertisement) -> None:
        """Take note that the device is there."""
        self.present = True
        self.nearest = sighting
        self.connection_id = str(uuid.uuid4())
        self._tell_presence(_unix(advertisement.time))

    def _leave(self) -> None:
        """Take note that the device is gone."""
        self.present = False
        self.nearest = None
        self._tell_presence(time.time())

    def _tell_presence(self, now: float) -> None:
        """Tell that the device came or went."""
        self._owner.on_record(self, self._connectivity(now))
        self._owner.on_values(self, [PRESENCE, SIGNAL])
        for watch in self.watches:
            self._tell(watch, watch.on_presence(self.present, now))

    def _connectivity(self, now: float) -> Connectivity:
        """Return whether the device is there, as a record."""
        return Connectivity(
            device=self.identity,
            connection_id=self.connection_id or "",
            connected=self.present,
            created_at=now,
        )

    def on_gone(self, advertiser: Advertiser) -> None:
        """Take note that the stack does not hear an address any more."""
        self.advertisers.pop(advertiser.address, None)
        if self.present and not self.advertisers and self._timeout is None:
            self._leave()

    @property
    def _timeout(self) -> float | None:
        """Return after how long without a packet it is gone (s), or None: the stack says.

        The stack knows how often a device sends, but not that a door says nothing for
        hours while it stays closed.
        """
        if self.settings.timeout is None and self.is_sleepy:
            return SLEEPY_TIMEOUT
        return self.settings.timeout

    # --- what time brings ---------------------------------------------------------------

    def check(self, monotonic: float, now: float) -> None:
        """See whether the device has gone, and whether an alert is due."""
        timeout = self._timeout
        if timeout is None and not self.advertisers:
            # Nobody hears it since we began, so nobody will say that it is gone.
            timeout = FALLBACK_TIMEOUT
        if self.present and timeout is not None and monotonic - self.heard > timeout:
            self._leave()
        if not self._is_judged:
            self._judge_rules(now)
        for watch in self.watches:
            if watch.deadline is not None and watch.deadline <= now:
                self._tell(watch, watch.check(now))

    def _judge_rules(self, now: float) -> None:
        """Judge what was known before, for rules may have changed since."""
        self._is_judged = True
        for watch in self.watches:
            if self.heard:
                self._tell(watch, watch.on_presence(self.present, now))
            if watch.rule.kind is not RuleKind.ANOMALY:
                for name in watch.rule.fields:
                    if name in self.values:
                        self._tell(watch, watch.on_value(self.values[name], now))

    def measure(self, monotonic: float, now: float) -> None:
        """Find the nearest scanner, and judge the signal."""
        heard = [
            sighting
            for advertiser in self.advertisers.values()
            for sighting in advertiser.sightings.values()
            if monotonic - sighting.time < SIGNAL_AGE
            and sighting.rssi is not None
            and sighting.rssi not in NO_RSSI
        ]
        best = max(heard, key=lambda sighting: sighting.rssi or -128, default=None)
        if best is None:
            return
        current = self.nearest
        if (
            current is None
            or current not in heard
            or (best.rssi or -128) >= (current.rssi or -128) + _NEARER
        ):
            self.nearest = best
        self._owner.on_values(self, [SIGNAL])
        for watch in self.watches:
            if watch.rule.kind is RuleKind.WEAK_SIGNAL:
                self._tell(watch, watch.on_value(self.rssi, now))

    @property
    def rssi(self) -> int | None:
        """Return the signal strength at the nearest scanner (dBm)."""
        if self.nearest is None or self.nearest.rssi in NO_RSSI:
            return None
        return self.nearest.rssi

    @property
    def distance(self) -> float | None:
        """Return the distance to the nearest scanner (m), as far as the signal tells."""
        if (rssi := self.rssi) is None:
            return None
        reference = self.settings.reference_rssi
        if reference is None:
            power = self.values.get("beacon_power")
            reference = power if isinstance(power, int) else DEFAULT_REFERENCE_RSSI
        exponent = (reference - rssi) / (10 * self.settings.path_loss)
        return round(math.pow(10, min(max(exponent, -3.0), 4.0)), 2)

    @property
    def advertising_interval(self) -> float | None:
        """Return how often the device sends (s), as far as the stack has learned it."""
        intervals = (
            self._owner.interval(address) for address in tuple(self.advertisers)
        )
        return min((found for found in intervals if found is not None), default=None)

    @property
    def last_seen(self) -> float | None:
        """Return when the device was heard last (Unix time, seconds)."""
        return _unix(self.heard) if self.heard else None

    # --- alerts -------------------------------------------------------------------------

    def _tell(self, watch: Watch, change: Change | None) -> None:
        """Tell of an alert that started or ended."""
        if change is None:
            return
        self._owner.on_record(
            self, self._alert(watch, change.started_at, change.ended_at)
        )
        self._owner.on_alert(self, watch, change)

    def _alert(
        self, watch: Watch, started_at: float, ended_at: float | None = None
    ) -> Alert:
        """Return an alert as a record."""
        return Alert(
            device=self.identity,
            name=watch.rule.name,
            started_at=started_at,
            ended_at=ended_at,
            audiences=watch.rule.audiences,
        )

    def end_alerts(self, now: float, rules: Iterable[Rule] = ()) -> None:
        """End what is open, but for what these rules go on with: the others are gone."""
        current = {(rule.rule_id, rule.name) for rule in rules}
        for watch in self.watches:
            if (watch.rule.rule_id, watch.rule.name) not in current:
                self._tell(watch, watch.stop(now))

    # --- what stands --------------------------------------------------------------------

    def standing(self) -> Iterator[Record]:
        """Yield what counts until something else is said, for brokers that keep it."""
        now = self.last_seen or 0.0
        yield Reading(
            device=self.identity,
            time=now,
            scanner_id=self.nearest.scanner.scanner_id if self.nearest else "",
            rssi=None,
            values=self.values,
            events={},
        )
        if self.connection_id is not None:
            yield self._connectivity(now)
        for watch in self.watches:
            if watch.started_at is not None:
                yield self._alert(watch, watch.started_at)

    # --- across restarts ----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what is kept across a restart, as JSON.

        What still waits to be decoded counts as not heard, so that it is then.
        """
        last_seen = self.last_seen
        if self.waiting is not None:
            last_seen = _unix(self.waiting[1].time - 1)
        return {
            "values": self.values,
            "events": sorted(self.events),
            "address": self.identity.address,
            "model": self.identity.model,
            "manufacturer": self.manufacturer,
            "present": self.present,
            "sleepy": self.is_sleepy,
            "connection_id": self.connection_id,
            "last_seen": last_seen,
            "last": None if self.waiting else self._history.state(),
            "alerts": {watch.rule.rule_id: watch.state() for watch in self.watches},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what was kept, as far as it is what `state` writes."""
        values = state.get("values")
        if isinstance(values, dict):
            self.values = dict(list(values.items())[:MAX_FIELDS])
        events = state.get("events")
        if isinstance(events, list):
            self.events = {str(name) for name in events[:MAX_FIELDS]}
        model, address = state.get("model"), state.get("address")
        self.identity = self._identity(
            address if isinstance(address, str) else self.settings.address,
            model if isinstance(model, str) else None,
        )
        manufacturer = state.get("manufacturer")
        self.manufacturer = manufacturer if isinstance(manufacturer, str) else None
        last_seen = state.get("last_seen")
        if isinstance(last_seen, int | float) and last_seen >= 0:
            # Monotonic clocks begin anew with the machine, so age is what counts.
            age = max(time.time() - last_seen, 0.0)
            self.heard = time.monotonic() - age
            self._history.restore(state.get("last"), self.heard)
        self.is_sleepy = state.get("sleepy") is True
        connection_id = state.get("connection_id")
        if isinstance(connection_id, str) and self.heard:
            self.connection_id = connection_id
            self.present = state.get("present") is True
        alerts = state.get("alerts")
        if isinstance(alerts, dict):
            for watch in self.watches:
                watch.restore(alerts.get(watch.rule.rule_id))


def next_moment(last: float, now: float) -> float:
    """Return the time of a reading, after that of the one before it (Unix time, s).

    It is a whole number of microseconds: fractions would be the same point in time.
    """
    now = round(now, 6)
    return round(last + _TICK, 6) if 0 <= last - now < _SAME_MOMENT else now


def _unix(monotonic: float) -> float:
    """Return a `CLOCK_MONOTONIC` time as Unix time (s)."""
    return monotonic + time.time() - time.monotonic()
