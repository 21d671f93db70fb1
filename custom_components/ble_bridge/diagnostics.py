"""Diagnostics: configuration and figures, without secrets and addresses."""

from dataclasses import asdict
import time
from typing import Any, Final

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_CLIENT_ID, CONF_HOST, CONF_PASSWORD, CONF_USERNAME
from homeassistant.core import HomeAssistant

from .bridge import BleBridgeConfigEntry
from .const import CONF_ADDRESSES, CONF_EXCLUDED_SCANNERS, CONF_NAMES, CONF_SCANNER_IDS
from .destinations.outbox import MAX_BYTES, MAX_MESSAGES
from .records import Scanner

REDACTED: Final = {
    CONF_ADDRESSES,
    CONF_CLIENT_ID,
    CONF_EXCLUDED_SCANNERS,
    CONF_HOST,
    CONF_NAMES,
    CONF_PASSWORD,
    CONF_SCANNER_IDS,
    CONF_USERNAME,
}


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: BleBridgeConfigEntry
) -> dict[str, Any]:
    """Return what a bug report needs.

    For each destination, `received = filtered + sent + dropped + waiting`.
    """
    bridge = entry.runtime_data
    scanners = list(bridge.scanners.by_source.values())
    devices = bridge.devices_on_air()
    now = time.monotonic()
    return {
        "entry": {
            "data": async_redact_data(entry.data, REDACTED),
            "options": async_redact_data(entry.options, REDACTED),
        },
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
                "configuration": async_redact_data(
                    dict(entry.subentries[subentry_id].data), REDACTED
                ),
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
                    "messages": destination.outbox.waiting,
                    "limit_messages": MAX_MESSAGES,
                    "limit_bytes": MAX_BYTES,
                },
                "counters": asdict(destination.totals(scanners)),
                "scanners": {
                    _scanner_id(scanner): {**asdict(tally), "waiting": tally.waiting}
                    for scanner, tally in destination.tallies.items()
                },
            }
            for subentry_id, destination in bridge.destinations.items()
        ],
    }


def _scanner_id(scanner: Scanner) -> str:
    """Return the ID of a scanner, without the address where it stands for a name."""
    address = scanner.source.replace(":", "-").lower()
    return scanner.scanner_id.replace(address, f"{address[:8]}-redacted")
