"""What we need of nats-py beyond its public API, and what happens without it."""

import asyncio
from typing import Any

from nats.aio.client import Client
import pytest

from custom_components.ble_bridge.destinations.errors import ConnectError, Problem
from custom_components.ble_bridge.destinations.nats_connection import (
    NatsConnection,
    NatsConnector,
    NatsSettings,
    Outgoing,
)
from custom_components.ble_bridge.destinations.nats_keys import (
    read_credentials,
    read_seed,
)
from custom_components.ble_bridge.destinations.nats_outbox import message_id
from custom_components.ble_bridge.destinations.nats_streams import NatsStream
from scripts.simulation.nats_credentials import KeyKind, NatsKey, NatsOperator
from scripts.simulation.nats_server import NatsServer
from tests.nats import NatsSubscriber, stored


class Listener:
    """Takes note of what a connection tells."""

    def __init__(self) -> None:
        """Initialize without news."""
        self.written: list[int] = []
        self.flushed: list[int] = []
        self.acknowledged: list[int] = []
        self.refused: list[tuple[int, Problem]] = []
        self.denied: list[bytes] = []
        self.lost: list[Problem] = []

    def on_written(self, number: int) -> None:
        """Take note that a batch was written."""
        self.written.append(number)

    def on_flushed(self, number: int) -> None:
        """Take note of a PONG."""
        self.flushed.append(number)

    def on_acknowledged(self, number: int) -> None:
        """Take note that a message is stored."""
        self.acknowledged.append(number)

    def on_refused(self, number: int, problem: Problem) -> None:
        """Take note that a message is not stored."""
        self.refused.append((number, problem))

    def on_denied(self, subject: bytes) -> None:
        """Take note that a subject is denied."""
        self.denied.append(subject)

    def on_lost(self, problem: Problem) -> None:
        """Take note that the connection is lost."""
        self.lost.append(problem)


STREAM = NatsStream(name="GUARD", subjects=("guard.stored.*",))


async def connect(
    server: NatsServer, *streams: NatsStream
) -> tuple[NatsConnection, Listener]:
    """Return a connection, and what it tells."""
    connection = await NatsConnector(
        NatsSettings(servers=(server.url,), name="guard", streams=streams)
    ).async_connect()
    listener = connection.listener = Listener()
    return connection, listener


async def until(condition: Any) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def batch(first: int, count: int, size: int = 0) -> list[Outgoing]:
    """Return messages that carry numbers."""
    return [
        (b"guard.passing", b"%d " % number + b"x" * size, None, b"")
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("is_private", [True, False])
async def test_batches(is_private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written arrives whole and in order, with nats-py's private parts or without.

    A PONG means that all before it is there.
    """
    if not is_private:
        monkeypatch.setattr(NatsConnection, "_find_writer", lambda _: None)
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url, "guard") as subscriber,
    ):
        connection, listener = await connect(server, STREAM)
        assert (connection._writer is not None) is is_private
        messages = batch(0, 500)
        keys = [message_id(b"guard", b"%d" % number) for number in range(100)]
        numbers = [connection.reserve() for _ in keys]
        messages += [
            (b"guard.stored.x", b"%d" % index, number, key)
            for index, (number, key) in enumerate(zip(numbers, keys, strict=True))
        ]
        _, number = connection.write(messages)
        flush = connection.flush()
        if number is not None:
            await until(lambda: number in listener.written)
        assert is_private is (number is None)
        await until(lambda: listener.flushed == [flush])
        assert (await server.monitor("varz"))["in_msgs"] >= 600
        await until(lambda: listener.acknowledged == numbers)
        await subscriber.wait_for(lambda s: len(s.messages) == 600)
        assert [int(m.data) for m in subscriber.messages] == [*range(500), *range(100)]
        # The same once more is known.
        again = connection.reserve()
        connection.write([(b"guard.stored.x", b"0", again, keys[0])])
        await until(lambda: again in listener.acknowledged)
        assert len(await stored(server.url, "GUARD")) == 100
        await connection.async_close()
        assert not listener.lost
        async with asyncio.timeout(10):  # The server takes its time to notice
            while (await server.monitor("connz"))["num_connections"] > 1:
                await asyncio.sleep(0.05)


async def test_what_the_kernel_does_not_take() -> None:
    """A batch that the kernel does not take is told when it is written, and not before."""
    async with (
        NatsServer() as server,
        NatsSubscriber(server.url, "guard") as subscriber,
    ):
        connection, listener = await connect(server)
        server.freeze()
        count, number = 0, None
        async with asyncio.timeout(10):
            while number is None:
                _, number = connection.write(batch(count, 500, 4_000))
                count += 500
        flush = connection.flush()
        await asyncio.sleep(0.2)
        assert (listener.written, listener.flushed) == ([], [])
        server.thaw()
        await until(lambda: listener.flushed == [flush])
        assert listener.written == [number]
        await subscriber.wait_for(lambda s: len(s.messages) == count)
        assert [int(m.data.split(b" ")[0]) for m in subscriber.messages] == list(
            range(count)
        )
        await connection.async_close()


async def test_private_parts() -> None:
    """The names that we use are there."""
    client = Client()
    for name in ("_transport", "_public_nkey", "_server_info"):
        assert hasattr(client, name)
    async with NatsServer() as server:
        connection, _ = await connect(server)
        writer = connection._find_writer()
        assert isinstance(writer, asyncio.StreamWriter)
        assert writer.transport.get_write_buffer_limits() == (0, 0)
        assert connection._client._server_info["max_payload"] == 1 << 20
        await connection.async_close()


@pytest.mark.parametrize("is_private", [True, False])
async def test_end(is_private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a connection is told once, and nothing of it stays."""
    if not is_private:
        monkeypatch.setattr(NatsConnection, "_find_writer", lambda _: None)
    async with NatsServer() as server:
        connection, listener = await connect(server)
        connection.write(batch(0, 10))
        await server.kill()
        connection.write(batch(10, 10))
        connection.flush()
        await until(lambda: listener.lost)
        connection.write(batch(20, 10))
        connection.flush()
        connection.abort()
        await connection.async_close()
        assert listener.lost == [Problem.CONNECTION_LOST]
        assert not connection._tasks


async def test_server_says_goodbye() -> None:
    """What a server says when it ends a connection is told."""
    async with NatsServer(max_payload=64) as server:
        connection, listener = await connect(server)
        connection.write([(b"guard", b"x" * 65, None, b"")])
        await until(lambda: listener.lost)
        assert listener.lost == [Problem.TOO_LARGE]
        await connection.async_close()


async def test_answers_of_jetstream() -> None:
    """Each answer that JetStream may give has its meaning."""
    async with (
        NatsServer(jetstream=True) as server,
        NatsSubscriber(server.url, "guard") as client,
    ):
        connection, listener = await connect(server, STREAM)
        inbox = connection._inbox.decode()

        async def answer(data: bytes) -> None:
            await client.client.publish(f"{inbox}7", data)
            await client.client.flush()

        def error(code: int, status: int = 400) -> bytes:
            return b'{"error":{"code":%d,"err_code":%d}}' % (status, code)

        for data, problem in (
            (error(10077, 503), Problem.QUOTA_EXCEEDED),
            (error(10054), Problem.TOO_LARGE),
            (error(10071), Problem.REJECTED),
            (b'"error"', Problem.REJECTED),
            (b'{"error":1}', Problem.REJECTED),
        ):
            await answer(data)
            await until(lambda: listener.refused)
            assert listener.refused.pop() == (7, problem)
        await client.client.publish(f"{inbox}nonsense", b"{}")
        assert not listener.lost
        await answer(error(10008, 503))
        await until(lambda: listener.lost)
        assert listener.lost == [Problem.JETSTREAM_MISSING]
        assert not listener.acknowledged
        await connection.async_close()


# --- keys -------------------------------------------------------------------------------


def test_keys() -> None:
    """A seed gives the key that its owner has, and signs as the package nkeys does."""
    nkeys = pytest.importorskip("nkeys")
    for _ in range(20):
        made = NatsKey()
        key = read_seed(made.seed)
        assert key.public == made.public
        theirs = nkeys.from_seed(bytearray(made.seed.encode()))
        assert theirs.public_key.decode() == key.public
        assert theirs.verify(b"nonce", key.private.sign(b"nonce"))
        assert made.seed not in repr(key)


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "SU",
        "S" * 58,
        NatsKey(KeyKind.ACCOUNT).seed,
        NatsKey(KeyKind.OPERATOR).seed,
        NatsKey().public.ljust(58, "A"),
        NatsKey().seed.lower(),
        NatsKey().seed[:-1] + "é",
    ],
    ids=("empty", "begun", "letters", "account", "operator", "public", "lower", "é"),
)
def test_no_seeds(seed: str) -> None:
    """What is no seed of a user is refused."""
    with pytest.raises(ValueError, match=r"."):
        read_seed(seed)


def test_credentials() -> None:
    """A credentials file is read as NATS' tools write it, with any line ends."""
    text = NatsOperator().credentials()
    token, seed = read_credentials(text)
    assert read_credentials(text.replace("\n", "\r\n")) == (token, seed)
    assert token.count(".") == 2
    assert token in text
    for broken in ("", text[: len(text) // 2], text.replace(seed, seed[:-1] + "A")):
        if broken != text:
            with pytest.raises(ValueError, match=r"."):
                read_credentials(broken)


async def test_broken_certificates() -> None:
    """Certificates that cannot be read raise what the caller expects."""
    settings = NatsSettings(servers=("nats://localhost:1",), name="x", ca="garbage")
    with pytest.raises(ConnectError) as raised:
        await NatsConnector(settings).async_connect()
    assert raised.value.problem is Problem.TLS_FAILED
