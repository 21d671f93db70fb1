"""The actions: publish a message of one's own, and wait until all is delivered."""

import asyncio
from typing import Any, Final

from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_DEVICE_ID
from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import config_validation as cv, device_registry as dr
import orjson
import voluptuous as vol

from .bridge import BleBridgeConfigEntry, Bridge
from .const import CONF_QOS, DOMAIN
from .destinations.destination import Destination
from .destinations.errors import LinesError
from .destinations.parcels import Outcome
from .device import Device
from .layouts.payloads import iso_timestamp, safe_text
from .monitors.device import MonitoredDevice
from .monitors.messages import Reason
from .monitors.monitor import Monitor

ACTION_PUBLISH: Final = "publish"
ACTION_FLUSH: Final = "flush"
ACTION_GET_DEVICES: Final = "get_devices"
ACTION_RETRY: Final = "retry_dead_letters"
CONF_REASON: Final = "reason"
CONF_TOPIC: Final = "topic"
CONF_PAYLOAD: Final = "payload"
CONF_RETAIN: Final = "retain"
CONF_TIMEOUT: Final = "timeout"
_DEFAULT_TIMEOUT: Final = 10
_LONGEST_TIMEOUT: Final = 300
_DELIVERED: Final = (Outcome.ACKNOWLEDGED, Outcome.SENT)

_PUBLISH_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_DEVICE_ID): cv.string,
        vol.Optional(CONF_TOPIC, default=""): cv.string,
        vol.Optional(CONF_PAYLOAD, default=""): object,
        vol.Optional(CONF_QOS, default=1): vol.All(vol.Coerce(int), vol.In((0, 1, 2))),
        vol.Optional(CONF_RETAIN, default=False): cv.boolean,
    }
)
_FLUSH_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_DEVICE_ID): cv.string,
        vol.Optional(CONF_TIMEOUT, default=_DEFAULT_TIMEOUT): vol.All(
            vol.Coerce(float), vol.Range(min=0, max=_LONGEST_TIMEOUT)
        ),
    }
)
_GET_DEVICES_SCHEMA: Final = vol.Schema({})
_RETRY_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_DEVICE_ID): cv.string,
        vol.Optional(CONF_REASON): vol.All(cv.string, vol.Coerce(Reason)),
    }
)


@callback
def async_setup_actions(hass: HomeAssistant) -> None:
    """Register the actions."""
    for action, handler, schema, response in (
        (ACTION_PUBLISH, _async_publish, _PUBLISH_SCHEMA, SupportsResponse.OPTIONAL),
        (ACTION_FLUSH, _async_flush, _FLUSH_SCHEMA, SupportsResponse.OPTIONAL),
        (
            ACTION_GET_DEVICES,
            _async_get_devices,
            _GET_DEVICES_SCHEMA,
            SupportsResponse.ONLY,
        ),
        (ACTION_RETRY, _async_retry, _RETRY_SCHEMA, SupportsResponse.OPTIONAL),
    ):
        hass.services.async_register(
            DOMAIN, action, handler, schema, supports_response=response
        )


async def _async_publish(call: ServiceCall) -> ServiceResponse:
    """Publish a message, and answer with its acknowledgement."""
    found = _destinations(call)
    if len(found) > 1:
        raise _invalid("destination_needed")
    [(_, destination)] = found.items()
    try:
        message = destination.message(
            call.data[CONF_TOPIC],
            _payload(call.data[CONF_PAYLOAD]),
            call.data[CONF_QOS],
            retain=call.data[CONF_RETAIN],
        )
    except LinesError as err:
        raise _invalid("invalid_lines") from err
    except ValueError as err:
        raise _invalid("invalid_topic") from err
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome = await destination.async_publish(message)
    if outcome not in _DELIVERED:
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key=f"publish_{outcome or 'waiting'}",
            translation_placeholders={"destination": destination.title},
        )
    return {
        "outcome": outcome.value,
        "seconds": round(loop.time() - began, 3),
        "destination": destination.title,
    }


async def _async_flush(call: ServiceCall) -> ServiceResponse:
    """Wait until nothing waits any more."""
    destinations = list(_destinations(call).values())
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(
        *(
            destination.outbox.async_flush(call.data[CONF_TIMEOUT])
            for destination in destinations
        )
    )
    if waiting := sum(destination.outbox.waiting for destination in destinations):
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key="flush_waiting",
            translation_placeholders={"waiting": str(waiting)},
        )
    return {
        "destinations": [destination.title for destination in destinations],
        "seconds": round(loop.time() - began, 3),
    }


async def _async_get_devices(call: ServiceCall) -> ServiceResponse:
    """Return what is known of all devices: those of the user's, and those of monitors."""
    bridges = _bridges(call)
    return {
        "devices": [
            *(
                _device(device)
                for bridge in bridges
                for device in bridge.devices.by_id.values()
            ),
            *(
                _monitored_device(monitor, device)
                for bridge in bridges
                for monitor in bridge.monitors.by_id.values()
                for device in monitor.devices.values()
            ),
        ]
    }


def _device(device: Device) -> dict[str, Any]:
    """Return what is known of a device of the user's."""
    return {
        "device": device.identity.device_id,
        "name": device.settings.name,
        "address": device.identity.address,
        "model": device.identity.model,
        "monitor": None,
        "present": device.present,
        "last_seen": _moment(device.last_seen),
        "values": dict(device.values),
    }


def _monitored_device(monitor: Monitor, device: MonitoredDevice) -> dict[str, Any]:
    """Return what is known of a device of a monitor's."""
    relays = {f"relay_{name}": relay.state for name, relay in device.relays.items()}
    return {
        "device": device.device_id,
        "name": device.name,
        "address": device.ip,
        "model": monitor.settings.dialect.models.get(device.owner),
        "monitor": monitor.title,
        "present": device.online,
        "last_seen": _moment(device.heard or None),
        "values": {**device.values, **relays},
    }


def _moment(time: float | None) -> str | None:
    """Return a Unix time (s) as a text."""
    return None if time is None else iso_timestamp(time)


async def _async_retry(call: ServiceCall) -> ServiceResponse:
    """Publish again what monitors could not understand."""
    monitors = _chosen(
        call,
        {
            subentry_id: monitor
            for bridge in _bridges(call)
            for subentry_id, monitor in bridge.monitors.by_id.items()
        },
        "monitor",
    )
    published = kept = 0
    for monitor in monitors.values():
        if monitor.destination is None or monitor.destination.connection is None:
            raise HomeAssistantError(
                translation_domain=DOMAIN,
                translation_key="monitor_away",
                translation_placeholders={"monitor": monitor.title},
            )
    for monitor in monitors.values():
        done, left = await monitor.async_retry(call.data.get(CONF_REASON))
        published += done
        kept += left
    return {"published": published, "kept": kept}


def _bridges(call: ServiceCall) -> list[Bridge]:
    """Return the bridges that there are."""
    entries: list[BleBridgeConfigEntry] = call.hass.config_entries.async_entries(DOMAIN)
    return [
        entry.runtime_data
        for entry in entries
        if entry.state is ConfigEntryState.LOADED
    ]


def _destinations(call: ServiceCall) -> dict[str, Destination[Any]]:
    """Return the destination that an action names, or all."""
    return _chosen(
        call,
        {
            subentry_id: destination
            for bridge in _bridges(call)
            for subentry_id, destination in bridge.destinations.items()
        },
        "destination",
    )


def _chosen[T](call: ServiceCall, found: dict[str, T], what: str) -> dict[str, T]:
    """Return what an action names by its device, or all of it."""
    if not found:
        raise _invalid(f"no_{what}")
    if (device_id := call.data.get(CONF_DEVICE_ID)) is None:
        return found
    device = dr.async_get(call.hass).async_get(device_id)
    for domain, owner in device.identifiers if device else ():
        if domain == DOMAIN and owner in found:
            return {owner: found[owner]}
    raise _invalid(f"not_a_{what}")


def _payload(payload: Any) -> bytes:
    """Return a payload: a text as it is, anything else as JSON."""
    if isinstance(payload, str):
        return safe_text(payload).encode()
    try:
        return orjson.dumps(payload)
    except TypeError as err:
        raise _invalid("invalid_payload") from err


def _invalid(key: str) -> ServiceValidationError:
    return ServiceValidationError(translation_domain=DOMAIN, translation_key=key)
