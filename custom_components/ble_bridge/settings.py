"""From what the user entered to how a broker is reached, and what a device is."""

from collections.abc import Mapping
import logging
from types import MappingProxyType
from typing import Any, Final

from homeassistant.config_entries import ConfigSubentry
from homeassistant.util import slugify

from .alerts import Rule
from .const import (
    CONF_ADDRESS,
    CONF_ALERTS,
    CONF_ALIAS,
    CONF_BUFFER_MEGABYTES,
    CONF_BUFFER_RECORDS,
    CONF_DELIVERY,
    CONF_DRAIN_RATE,
    CONF_IRK,
    CONF_KEY,
    CONF_MAX_AGE_HOURS,
    CONF_MAX_IN_FLIGHT,
    CONF_MAX_TRIES,
    CONF_MINIMUM_INTERVAL,
    CONF_PATH_LOSS,
    CONF_PUBLISH_TIMEOUT,
    CONF_REFERENCE_RSSI,
    CONF_RSSI_CHANGE,
    CONF_SHAPING,
    CONF_STORE_MEGABYTES,
    CONF_STORE_RECORDS,
    CONF_TIMEOUT,
    CONF_UNCHANGED_INTERVAL,
    SUBENTRY_DEVICE,
)
from .decoders.format_table import FormatError, parse_formats
from .decoders.formats import Format
from .destinations.policy import (
    DEFAULT_POLICIES,
    MEGABYTE,
    Bounds,
    DeliverySettings,
    Policy,
)
from .device import DEFAULT_PATH_LOSS, DeviceSettings
from .layouts.topics import safe_part
from .records import Advertisement
from .shaping import Shaping

_LOGGER = logging.getLogger(__name__)

MAX_NAME: Final = 40
_HOUR: Final = 3600.0


def delivery_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a destination delivers as the form has it, with what is not said."""
    default = DeliverySettings()
    return {
        **{kind.value: policy.value for kind, policy in default.policies.items()},
        CONF_BUFFER_RECORDS: default.buffer.records,
        CONF_BUFFER_MEGABYTES: default.buffer.size // MEGABYTE,
        CONF_STORE_RECORDS: default.store.records,
        CONF_STORE_MEGABYTES: default.store.size // MEGABYTE,
        CONF_MAX_AGE_HOURS: int(default.max_age / _HOUR),
        CONF_PUBLISH_TIMEOUT: default.publish_timeout,
        CONF_MAX_IN_FLIGHT: default.max_in_flight,
        CONF_DRAIN_RATE: int(default.drain_rate),
        CONF_MAX_TRIES: default.max_tries,
        **data.get(CONF_DELIVERY, {}),
    }


def delivery_settings(data: Mapping[str, Any]) -> DeliverySettings:
    """Return how a destination delivers."""
    said = delivery_data(data)
    return DeliverySettings(
        policies={kind: Policy(said[kind.value]) for kind in DEFAULT_POLICIES},
        buffer=Bounds(
            said[CONF_BUFFER_RECORDS], said[CONF_BUFFER_MEGABYTES] * MEGABYTE
        ),
        store=Bounds(said[CONF_STORE_RECORDS], said[CONF_STORE_MEGABYTES] * MEGABYTE),
        max_age=said[CONF_MAX_AGE_HOURS] * _HOUR,
        publish_timeout=said[CONF_PUBLISH_TIMEOUT],
        max_in_flight=said[CONF_MAX_IN_FLIGHT],
        drain_rate=float(said[CONF_DRAIN_RATE]),
        max_tries=said[CONF_MAX_TRIES],
    )


def slug(text: str) -> str:
    """Return text as a slug, empty where there is no letter or digit in it."""
    result = slugify(text, separator="-")
    return "" if result == "unknown" and "unknown" not in text.lower() else result


def device_id(data: Mapping[str, Any]) -> str:
    """Return what a device is called in topics: its alias as a slug, else its address."""
    return slug(data.get(CONF_ALIAS) or "") or data.get(CONF_ADDRESS) or ""


def device_settings(
    subentry: ConfigSubentry, options: Mapping[str, Any]
) -> DeviceSettings:
    """Return what the user said of a device, and of all of them."""
    data = subentry.data
    shaping = {
        key: value
        for key, value in (data.get(CONF_SHAPING) or {}).items()
        if value is not None
    }
    own = [Rule.from_dict(rule) for rule in data.get(CONF_ALERTS, ())]
    names = {safe_part(rule.name) for rule in own}
    common = [Rule.from_dict(rule) for rule in options.get(CONF_ALERTS, ())]
    irk, key = data.get(CONF_IRK), data.get(CONF_KEY)
    return DeviceSettings(
        device_id=device_id(data) or subentry.subentry_id,
        name=subentry.title,
        address=data.get(CONF_ADDRESS),
        irk=bytes.fromhex(irk) if irk else None,
        key=bytes.fromhex(key) if key else None,
        timeout=data.get(CONF_TIMEOUT),
        reference_rssi=data.get(CONF_REFERENCE_RSSI),
        path_loss=data.get(CONF_PATH_LOSS) or DEFAULT_PATH_LOSS,
        shaping=_shaping(shaping) if shaping else None,
        rules=(*own, *(rule for rule in common if safe_part(rule.name) not in names)),
    )


def own_formats(text: str) -> tuple[Format, ...]:
    """Return the user's own formats; those of an earlier version may not be readable."""
    try:
        return parse_formats(text)
    except FormatError as err:
        _LOGGER.error("Your own formats are not used: %s", err)
        return ()


def _shaping(data: Mapping[str, Any]) -> Shaping:
    """Return which advertisements of a device are left out."""
    return Shaping(
        minimum_interval=data.get(CONF_MINIMUM_INTERVAL, 0.0),
        unchanged_interval=data.get(CONF_UNCHANGED_INTERVAL),
        rssi_change=data.get(CONF_RSSI_CHANGE),
    )


def new_device(advertisement: Advertisement, model: str | None) -> ConfigSubentry:
    """Return the subentry of a device that is added as it is on air."""
    return ConfigSubentry(
        data=MappingProxyType({CONF_ADDRESS: advertisement.address}),
        subentry_type=SUBENTRY_DEVICE,
        title=device_name(advertisement, model),
        unique_id=advertisement.address,
    )


def device_name(advertisement: Advertisement, model: str | None) -> str:
    """Return what a device is called that has been given no name."""
    name = plain_name(advertisement) or model or "Bluetooth device"
    short = advertisement.address.replace(":", "")[-4:]
    return name if name.upper().endswith(short) else f"{name} {short}"


def plain_name(advertisement: Advertisement) -> str:
    """Return the name that a device gives itself, as far as it can be shown."""
    name = advertisement.name or ""
    if name == advertisement.address:
        return ""
    shown = "".join(letter for letter in name if letter.isprintable())
    return shown.strip()[:MAX_NAME]
