"""The simulated proxy: what it says it sent has been sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aioesphomeapi.client import APIClient
import pytest

from scripts.simulation.esphome_proxy import (
    EsphomeProxy,
    Packet,
    decode_varint,
    encode_frame,
    pb,
)

PACKET: Packet = ("C0:00:00:00:00:01", -50, bytes.fromhex("0201060303d2fc"), 1)


@pytest.fixture(name="proxy")
async def proxy_fixture() -> AsyncIterator[EsphomeProxy]:
    """Return a running proxy."""
    async with EsphomeProxy("test-proxy", "AA:BB:CC:00:00:01") as proxy:
        yield proxy


def advertisements_in(stream: bytes) -> int:
    """Return the number of advertisements in complete frames of a proxy."""
    data, position, count = bytearray(stream), 0, 0
    while position < len(data):
        length, position = decode_varint(data, position + 1)
        _, position = decode_varint(data, position)
        message = pb.BluetoothLERawAdvertisementsResponse()
        if position + length <= len(data) and length > 16:
            message.ParseFromString(bytes(data[position : position + length]))
            count += len(message.advertisements)
        position += length
    return count


async def test_real_client_gets_batches_like_the_firmwares(proxy: EsphomeProxy) -> None:
    """Test 40 advertisements in batches of up to 16, to Home Assistant's own client."""
    client = APIClient("127.0.0.1", proxy.port, password=None)
    await client.connect(login=True)
    info = await client.device_info()
    assert (info.name, info.bluetooth_mac_address) == ("test-proxy", proxy.source)
    batches: list[Any] = []
    client.subscribe_bluetooth_le_raw_advertisements(batches.append)
    await proxy.wait_ready(5)
    proxy.send([PACKET] * 40)
    async with asyncio.timeout(5):
        while len(batches) < 3:
            await asyncio.sleep(0.01)
    assert [len(batch.advertisements) for batch in batches] == [16, 16, 8]
    first = batches[0].advertisements[0]
    assert (first.address, first.rssi, first.data, first.address_type) == (
        0xC00000000001,
        *PACKET[1:],
    )
    assert (proxy.sent, proxy.dropped) == (40, 0)
    await client.disconnect()


async def test_nobody_listens(proxy: EsphomeProxy) -> None:
    """Test that advertisements to nobody are not sent."""
    proxy.send([PACKET] * 3)
    assert (proxy.sent, proxy.dropped) == (0, 3)


async def test_client_too_slow(proxy: EsphomeProxy) -> None:
    """Test that only what the socket has taken counts as sent, and all of it arrives."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
    writer.write(encode_frame(pb.SubscribeBluetoothLEAdvertisementsRequest()))
    await proxy.wait_ready(5)
    total = 0
    while not proxy.dropped:
        proxy.send([PACKET] * 1600)
        total += 1600
        await asyncio.sleep(0)
    assert proxy.sent + proxy.dropped <= total
    received = bytearray()
    async with asyncio.timeout(20):
        while total != proxy.sent + proxy.dropped or proxy.sent > advertisements_in(
            bytes(received)
        ):
            received += await reader.read(1 << 20)
    assert advertisements_in(bytes(received)) == proxy.sent
    writer.close()


async def test_disconnected(proxy: EsphomeProxy) -> None:
    """Test that a proxy that loses its connections is ready for new ones."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(encode_frame(pb.SubscribeBluetoothLEAdvertisementsRequest()))
    await proxy.wait_ready(5)
    proxy.disconnect()
    assert not proxy.ready()
    proxy.send([PACKET])
    assert (proxy.sent, proxy.dropped) == (0, 1)
    with pytest.raises(ConnectionResetError):
        await reader.readuntil(b"never sent")
    writer.close()
