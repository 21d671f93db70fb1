"""What the tests of InfluxDB in Home Assistant share: forms, data, a bridge."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from homeassistant.config_entries import ConfigEntryState, ConfigSubentryData
from homeassistant.core import HomeAssistant
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN

from .conftest import device_subentry, wait_until
from .forms import DELIVERY

FORM = {"api": "v2", "bucket": "ble", "organization": "house", "signals": "devices"}
SECURITY = {"ca": "system", "use_client_certificate": False}
OF_INFLUXDB = {key: value for key, value in DELIVERY.items() if key != "max_in_flight"}
OF_INFLUXDB["publish_timeout"] = 10
ADVANCED = {
    "measurement": "ble",
    "gzip": True,
    "batch_lines": 5_000,
    "batch_kilobytes": 1_000,
    "batch_seconds": 1,
    "connect_timeout": 10,
    "first_delay": 1,
    "longest_delay": 60,
}
_SECTIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "security": (
        SECURITY,
        {
            *("ca_certificate", "client_certificate", "client_key"),
            *("client_key_password", "server_name"),
        },
    ),
    "delivery": (OF_INFLUXDB, set()),
    "advanced": (ADVANCED, {"retention_policy"}),
}


def influx_form(url: str, **changes: Any) -> dict[str, Any]:
    """Return the form of a destination; changes go to the section they belong to."""
    sections = {
        name: {
            **section,
            **{key: changes.pop(key) for key in [*changes] if key in {*section, *more}},
        }
        for name, (section, more) in _SECTIONS.items()
    }
    return {"url": url, **FORM, **changes, **sections}


def influx_data(url: str, **changes: Any) -> dict[str, Any]:
    """Return the data of a destination, as the form makes them."""
    return {
        "kind": "influxdb",
        "url": url,
        **FORM,
        "token": None,
        "username": None,
        "password": None,
        "retention_policy": "",
        **ADVANCED,
        "delivery": OF_INFLUXDB,
        "tls": url.startswith("https"),
        **dict.fromkeys(
            ("server_name", "ca_certificate", "client_certificate", "client_key")
        ),
        **changes,
    }


def is_up(entry: MockConfigEntry) -> bool:
    """Tell whether each destination is connected."""
    return all(
        destination.connection is not None
        for destination in entry.runtime_data.destinations.values()
    )


@asynccontextmanager
async def bridge(
    hass: HomeAssistant,
    *destinations: dict[str, Any],
    devices: Iterable[dict[str, Any]] = (),
    connected: bool = True,
) -> AsyncIterator[MockConfigEntry]:
    """Run a bridge."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="BLE Bridge",
        data={"bridge_id": "home"},
        subentries_data=[
            *(
                ConfigSubentryData(
                    data=data,
                    subentry_type="destination",
                    title="Store",
                    unique_id=f"{data['url']}/house/ble#{number}",
                )
                for number, data in enumerate(destinations)
            ),
            *(device_subentry(data) for data in devices),
        ],
    )
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    if connected:
        await wait_until(lambda: is_up(entry))
    try:
        yield entry
    finally:
        if entry.state is ConfigEntryState.LOADED:
            await hass.config_entries.async_unload(entry.entry_id)
