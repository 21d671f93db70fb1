"""Diagnostics: configuration and figures, without secrets and addresses."""

from collections.abc import Mapping
from dataclasses import asdict
import re
import time
from typing import Any, Final

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    CONF_CLIENT_ID,
    CONF_HOST,
    CONF_PASSWORD,
    CONF_TOKEN,
    CONF_URL,
    CONF_USERNAME,
)
from homeassistant.core import HomeAssistant

from .bridge import BleBridgeConfigEntry
from .const import (
    CONF_ADDRESS,
    CONF_ADDRESSES,
    CONF_ALERTS,
    CONF_ALIAS,
    CONF_CA_CERTIFICATE,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CLIENT_KEY_PASSWORD,
    CONF_CREDENTIALS,
    CONF_EXCLUDED_SCANNERS,
    CONF_IRK,
    CONF_KEY,
    CONF_NAMES,
    CONF_ORGANIZATION,
    CONF_SCANNER_IDS,
    CONF_SEED,
    CONF_SERVER_NAME,
    CONF_SERVERS,
    CONF_UNIX_PATH,
    CONF_USER_PROPERTIES,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
)
from .destinations.destination import Destination
from .destinations.outbox import MAX_BYTES, MAX_MESSAGES
from .device import Device
from .kinds.mqtt.settings import split_property
from .layouts.payloads import iso_timestamp
from .monitors.monitor import MAX_QUEUED, Monitor
from .records import RecordKind, Scanner, Tally

REDACTED: Final = {
    CONF_ADDRESS,
    CONF_ADDRESSES,
    CONF_ALERTS,
    CONF_ALIAS,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_ID,
    CONF_CLIENT_KEY,
    CONF_CLIENT_KEY_PASSWORD,
    CONF_CREDENTIALS,
    CONF_EXCLUDED_SCANNERS,
    CONF_HOST,
    CONF_IRK,
    CONF_KEY,
    CONF_NAMES,
    CONF_ORGANIZATION,
    CONF_PASSWORD,
    CONF_SCANNER_IDS,
    CONF_SEED,
    CONF_SERVERS,
    CONF_SERVER_NAME,
    CONF_TOKEN,
    CONF_UNIX_PATH,
    CONF_URL,
    CONF_USERNAME,
    CONF_WEBSOCKET_HEADERS,
    CONF_WEBSOCKET_PATH,
}


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: BleBridgeConfigEntry
) -> dict[str, Any]:
    """Return what a bug report needs.

    For each destination and kind of record, `received = acknowledged + sent + dropped +
    waiting`; what is dropped is told by reason. Of an entry that is not loaded there is only
    how it is set up.
    """
    if entry.state is not ConfigEntryState.LOADED:
        return {"entry": _entry(entry)}
    bridge = entry.runtime_data
    scanners = list(bridge.scanners.by_source.values())
    devices = bridge.devices_on_air()
    now = time.monotonic()
    return {
        "entry": _entry(entry),
        "feed": {
            "received": bridge.received,
            "rate": bridge.rate,
            "addresses": len(bridge.feed.advertisers),
            "devices_on_air": devices[None],
            "evicted": bridge.feed.evicted,
        },
        "scanners": [
            {
                "scanner_id": _scanner_id(scanner),
                "online": scanner.online,
                "excluded": scanner.excluded,
                "devices": devices.get(scanner, 0),
                "received": scanner.received,
                "filtered": scanner.filtered,
            }
            for scanner in scanners
        ],
        "destinations": [
            {
                "configuration": _configuration(entry.subentries[subentry_id].data),
                "connected": destination.connection is not None,
                "protocol": destination.protocol,
                "reconnects": destination.reconnects,
                "last_error": destination.last_error,
                "recent_errors": [
                    {"problem": problem, "seconds_ago": round(now - at, 1)}
                    for at, problem in destination.recent_errors
                ],
                "rate": destination.rate,
                "latency_ms": destination.latency,
                "bytes_sent": destination.outbox.bytes_sent,
                "queue": {
                    "messages": destination.outbox.passing,
                    "limit_messages": MAX_MESSAGES,
                    "limit_bytes": MAX_BYTES,
                },
                "counters": _counters(destination, scanners),
                "records": {
                    kind.value: _tally(destination.tally(kind)) for kind in RecordKind
                },
                "own_messages": _tally(destination.own),
                "delivery": {
                    "waiting": destination.delivery.waiting,
                    "on_disk_only": destination.delivery.unread,
                    "stored_records": destination.delivery.stored[0],
                    "stored_bytes": destination.delivery.stored[1],
                    "refused_topics": len(destination.delivery.refused),
                    "set_aside": [
                        {
                            "kind": parcel.kind,
                            "reason": parcel.refusal,
                            "tries": parcel.tries,
                            "messages": len(parcel.messages),
                            "bytes": parcel.size,
                        }
                        for parcel in destination.delivery.set_aside
                    ],
                },
                "retained": len(bridge.store.data["retained"].get(subentry_id, ())),
                "scanners": {
                    _scanner_id(scanner): _tally(tally)
                    for scanner, tally in destination.tallies.items()
                },
            }
            for subentry_id, destination in bridge.destinations.items()
        ],
        "devices": [_device(entry, device) for device in bridge.devices.by_id.values()],
        "monitors": [
            _monitor(entry, monitor) for monitor in bridge.monitors.by_id.values()
        ],
    }


def _entry(entry: BleBridgeConfigEntry) -> dict[str, Any]:
    """Return how the bridge itself is set up."""
    return {
        "data": async_redact_data(entry.data, REDACTED),
        "options": async_redact_data(entry.options, REDACTED),
    }


def _counters(destination: Destination[Any], scanners: list[Scanner]) -> dict[str, int]:
    """Return what became of the advertisements of all scanners.

    `received = filtered + acknowledged + sent + dropped + waiting`.
    """
    tally = destination.tally(RecordKind.ADVERTISEMENT)
    filtered = destination.count_filtered(scanners)
    return {
        **_tally(tally),
        "received": tally.received + filtered,
        "filtered": filtered,
        "dropped": tally.dropped,
    }


def _tally(tally: Tally) -> dict[str, int]:
    """Return what became of records, and how many wait."""
    return {**asdict(tally), "waiting": tally.waiting}


def _configuration(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a destination is set up, without secrets and without files."""
    shown = dict(data)
    if CONF_CA_CERTIFICATE in shown:
        shown[CONF_CA_CERTIFICATE] = {"own": shown[CONF_CA_CERTIFICATE] is not None}
    if properties := shown.get(CONF_USER_PROPERTIES):
        names = [split_property(text)[0] for text in properties]
        shown[CONF_USER_PROPERTIES] = dict.fromkeys(names, "**REDACTED**")
    redacted: dict[str, Any] = async_redact_data(shown, REDACTED)
    return redacted


def _device(entry: BleBridgeConfigEntry, device: Device) -> dict[str, Any]:
    """Return what is known of a device, without what it says and where it is."""
    source = device.decoder.source
    return {
        "configuration": async_redact_data(
            dict(entry.subentries[device.subentry_id].data), REDACTED
        ),
        "model": device.identity.model,
        "decoded_by": source.name if source else None,
        "encryption": device.encryption,
        "present": device.present,
        "addresses": len(device.advertisers),
        "fields": sorted({*device.values, *device.events}),
        "counters": asdict(device.counters),
        "shaped": dict(device.shaper.dropped) if device.shaper else None,
        "alerts": [
            {"kind": watch.rule.kind, "open": watch.is_on} for watch in device.watches
        ],
    }


def _monitor(entry: BleBridgeConfigEntry, monitor: Monitor) -> dict[str, Any]:
    """Return what a monitor hears, and what of it could not be understood."""
    return {
        "configuration": dict(entry.subentries[monitor.subentry_id].data),
        "connected": monitor.is_connected,
        "problem": monitor.problem,
        "connection_uptime_percent": round(monitor.uptime, 2),
        "messages": monitor.processed,
        "rate": monitor.rate,
        "last_message": monitor.last_message,
        "queue": {
            "messages": monitor.queued,
            "limit_messages": MAX_QUEUED,
            "overflow": monitor.overflow,
        },
        "devices": {
            "known": len(monitor.devices),
            "online": sum(bool(d.online) for d in monitor.devices.values()),
            "fields": sum(len(d.kinds) for d in monitor.devices.values()),
            "left_out": sum(d.left_out for d in monitor.devices.values()),
        },
        "dead_letters": {
            "by_reason": dict(monitor.dead_letters.counts),
            "newest": [
                {
                    "topic": masked(letter.topic[:_MAX_TOPIC]),
                    "reason": letter.reason,
                    "payload": masked(letter.beginning),
                    "size": letter.size,
                    "time": iso_timestamp(letter.time),
                }
                for letter in monitor.dead_letters
            ],
        },
    }


# Of a topic, which may be as long as its sender likes.
_MAX_TOPIC: Final = 256
# Addresses, and what stands beside names of secrets, wherever it is in a text.
_PRIVATE: Final = re.compile(
    r"""(?ix)
    (?P<key> (?:pass|pwd|secret|token|key|auth|user|ssid|psk|cred) [\w-]*+ ["']?
        \s* [:=] \s* )
        (?: "(?:[^"\\]|\\.)*"? | '(?:[^'\\]|\\.)*'? | [\[{][^\]}]*
            | (?:(?:bearer|basic)\s+)? [^\s,;}&]+ )
    | (?<=://) [^/\s"'@]+ (?=@)
    | (?<! \d ) (?:\d{1,3}\.){3} \d{1,3} (?! \d )
    | (?<! [0-9a-f] ) (?:[0-9a-f]{2}[:-]){5} [0-9a-f]{2} (?! [0-9a-f] )
    | (?<! [0-9a-f] ) [0-9a-f]{12} (?! [0-9a-f] )
    | (?<! [0-9a-z] ) (?:[0-9a-f]{1,4}:){1,7} : [0-9a-f:]*
    | (?<! [0-9a-z] ) (?:[0-9a-f]{1,4}:){3,7} [0-9a-f]{1,4} (?! [0-9a-z] )
    """
)


def masked(text: str) -> str:
    """Return a text of somebody else's without the addresses and secrets that it shows."""
    return _PRIVATE.sub(lambda found: (found["key"] or "") + "**REDACTED**", text)


def _scanner_id(scanner: Scanner) -> str:
    """Return the ID of a scanner, without the address where it stands for a name."""
    address = scanner.source.replace(":", "-").lower()
    return scanner.scanner_id.replace(address, f"{address[:8]}-redacted")
