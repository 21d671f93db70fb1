"""Theengs Gateway's `detection_callback`, in an environment of its own.

    python -m benchmarks.theengs PORT

It reads one JSON object a line, `{"count", "decoded"}`, hands over that many advertisements,
and prints the CPU time (s). They are those of `benchmarks.way`, which no model of its
decoder knows, or with `decoded` those of a BTHome sensor. Its settings are the defaults,
without Home Assistant's discovery. This runs with an older Python than all else here.
"""

import json
import os
import sys
import time

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from TheengsGateway.ble_gateway import Gateway
from TheengsGateway.config import DEFAULT_CONFIG

MANUFACTURER_DATA = {0xFFFE: bytes.fromhex("40000101640203aa")}
SERVICE_DATA = {
    "0000fcd2-0000-1000-8000-00805f9b34fb": bytes.fromhex("40016402ca0903bf13")
}


def advertisement(decoded: bool) -> AdvertisementData:
    """Return what was heard."""
    return AdvertisementData(
        local_name=None,
        manufacturer_data={} if decoded else MANUFACTURER_DATA,
        service_data=SERVICE_DATA if decoded else {},
        service_uuids=[],
        tx_power=None,
        rssi=-60,
        platform_data=(),
    )


def main(port: int) -> None:
    """Connect, then carry out orders until the input ends."""
    gateway = Gateway(
        {**DEFAULT_CONFIG, "host": "127.0.0.1", "port": port, "discovery": 0}
    )
    gateway.connect_mqtt()
    gateway.client.loop_start()
    while not gateway.client.is_connected():
        time.sleep(0.01)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        heard = advertisement(order["decoded"])
        devices = [
            BLEDevice(f"C0:FF:EE:00:00:{number:02X}", None, None)
            for number in range(200)
        ]
        cpu = time.process_time()
        for number in range(order["count"]):
            gateway.detection_callback(devices[number % len(devices)], heard)
        while gateway.client.want_write():
            time.sleep(0.001)
        print(json.dumps({"cpu": time.process_time() - cpu}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
