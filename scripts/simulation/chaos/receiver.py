"""The subscriber whose receipts count: QoS 1, and a session that the broker keeps."""

import json
from typing import Any, override

from paho.mqtt.client import Client, MQTTMessage

from scripts.simulation.subscriber import Subscriber

from .ledger import Receipts

_RECONNECT_SECONDS = 0.015


class Receiver(Subscriber):
    """Notes the numbers that devices said; has its own connection to the broker."""

    def __init__(self, port: int, base: str) -> None:
        """Describe it by the broker's port and the topic base of the fields."""
        super().__init__(
            port,
            f"{base}/+/v/count",
            qos=1,
            keep=False,
            client_id="chaos-receiver",
            reconnect_delay=_RECONNECT_SECONDS,
        )
        self.receipts = Receipts()

    @override
    def _on_message(self, client: Client, data: Any, arrived: MQTTMessage) -> None:
        device = arrived.topic.split("/")[-3]
        number = int(json.loads(arrived.payload)["value"])
        self.receipts.take(device, number, again=arrived.dup)
