"""From the Bluetooth stack to a subscriber."""

from collections.abc import Callable
from typing import Any

from homeassistant.core import HomeAssistant

from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

from .conftest import ADDRESS, RAW, SimulatedScanner, destination_data

TOPIC = f"ble/raw/living-room-proxy/{ADDRESS}"


async def test_every_advertisement_is_published(
    hass: HomeAssistant,
    broker: Mosquitto,
    subscriber: Subscriber,
    scanner: SimulatedScanner,
    setup: Callable[..., Any],
) -> None:
    """Each packet arrives, unchanged ones too, in the order in which they were heard."""
    await setup(destination_data(broker.port))
    for rssi in (-50, -51, -52):
        scanner.hear(rssi=rssi)
    await subscriber.wait_for(lambda s: len(s.on_topic(TOPIC)) == 3)
    messages = [message.json() for message in subscriber.on_topic(TOPIC)]
    assert [message["rssi"] for message in messages] == [-50, -51, -52]
    assert messages[0]["raw"] == RAW.hex()
    assert messages[0]["manufacturer_data"] == {"feff": "0102030405060708ff"}
