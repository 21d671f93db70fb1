"""Metrics: each figure is what diagnostics say, as Prometheus reads it."""
from typing import Any
import pytest
from tests.conftest import *

async def test_try(hass, hass_client, broker, subscriber, scanner, setup):
    entry = await setup(destination_data(broker.port))
    from tests.destinations.faults import stream, arrived
    await stream(scanner, 0, 30)
    await subscriber.wait_for(lambda s: len(arrived(s)) == 30)
    client = await hass_client()
    for p in ("metrics", "health"):
        r = await client.get(f"/api/ble_bridge/{p}")
        print(r.status, r.headers)
        print(await r.text())
