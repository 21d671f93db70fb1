"""The NATS servers that other tests rely on: who is let in, and how they fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
import ssl
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js.errors import APIError, NoStreamResponseError
import nkeys
import pytest

from scripts.simulation.chaos.certificates import Authority
from scripts.simulation.nats_credentials import KeyKind, NatsKey, NatsOperator
from scripts.simulation.nats_server import NatsCluster, NatsServer
from scripts.simulation.processes import SimulationError, is_port_free


@asynccontextmanager
async def connected(url: str | list[str], **options: Any) -> AsyncIterator[Client]:
    """Return a client that is connected, or raise what the server says."""

    async def ignore(_: Exception) -> None:
        """Say nothing in the log."""

    client = await nats.connect(
        url, **{"error_cb": ignore, "reconnect_time_wait": 0.05} | options
    )
    try:
        yield client
    finally:
        await client.close()


async def is_let_in(url: str, **options: Any) -> bool:
    """Return whether a server lets somebody in."""
    try:
        async with connected(url, allow_reconnect=False, **options):
            return True
    except Error as error:
        if "Authorization Violation" in str(error):
            return False
        raise


async def permitted_subjects(url: str, *subjects: str, **options: Any) -> list[str]:
    """Return on which subjects a server lets somebody publish."""
    async with connected(url, **options) as client:
        subscription = await client.subscribe(">")
        for subject in subjects:
            await client.publish(subject, b"")
        # The client's PING overtakes what it has not written yet.
        while client.pending_data_size:
            await asyncio.sleep(0)
        await client.flush()
        return [
            (await subscription.next_msg(5)).subject
            for _ in range(subscription.pending_msgs)
        ]


async def publish_when_possible(client: Client, subject: str) -> int:
    """Publish as soon as the stream takes it, and return its number."""
    async with asyncio.timeout(30):
        while True:
            try:
                return (await client.jetstream().publish(subject, b"", timeout=1)).seq
            except Error, NoStreamResponseError:
                await asyncio.sleep(0.05)


async def wait_in_step(client: Client, stream: str, messages: int) -> None:
    """Wait until all three servers have all messages of a stream."""
    async with asyncio.timeout(30):
        while True:
            information = await client.jetstream().stream_info(stream)
            replicas = (information.cluster and information.cluster.replicas) or []
            current = [replica for replica in replicas if replica.current]
            if len(current) == 2 and information.state.messages == messages:
                return
            await asyncio.sleep(0.05)


async def test_anybody() -> None:
    """Test a message, and that the port is free afterwards."""
    async with NatsServer() as server:
        async with connected(server.url) as client:
            subscription = await client.subscribe("a.>")
            await client.publish("a.b", b"1")
            assert (await subscription.next_msg(5)).data == b"1"
            connections = (await server.monitor("connz"))["connections"]
            assert [connection["in_msgs"] for connection in connections] == [1]
        assert (await server.monitor("varz"))["host"] == "127.0.0.1"
    assert is_port_free(server.port)


async def test_users() -> None:
    """Test users, of whom one has a password that needs quoting."""
    password = 'sesam "öffne" \\dich $1'
    async with NatsServer(users={"anna": password, "bert": "b"}) as server:
        assert await is_let_in(server.url, user="anna", password=password)
        assert not await is_let_in(server.url, user="anna", password="b")
        assert not await is_let_in(server.url)


async def test_token() -> None:
    """Test a token."""
    async with NatsServer(token="s3cret") as server:
        assert await is_let_in(server.url, token="s3cret")
        assert not await is_let_in(server.url, token="other")


async def test_nkey() -> None:
    """Test an NKey, which NATS' own library reads alike."""
    key = NatsKey()
    assert nkeys.from_seed(key.seed.encode()).public_key.decode() == key.public
    assert [NatsKey(kind).public[0] for kind in KeyKind] == ["A", "O", "U"]
    async with NatsServer(nkey=key.public) as server:
        assert await is_let_in(server.url, nkeys_seed_str=key.seed)
        assert not await is_let_in(server.url, nkeys_seed_str=NatsKey().seed)


async def test_credentials(tmp_path: Path) -> None:
    """Test credentials of an operator's users, with JetStream."""
    operator = NatsOperator()
    path = operator.write_credentials(tmp_path / "user.creds")
    async with NatsServer(operator=operator, jetstream=True) as server:
        async with connected(server.url, user_credentials=path) as client:
            await client.jetstream().add_stream(name="a", subjects=["a.>"])
            assert (await client.jetstream().publish("a.b", b"")).seq == 1
        stranger = NatsOperator().write_credentials(tmp_path / "stranger.creds")
        assert not await is_let_in(server.url, user_credentials=stranger)
        assert not await is_let_in(server.url)
        path.write_text(operator.credentials(publish_deny=["raw.>"]))
        assert await permitted_subjects(
            server.url, "raw.a", "a.b", user_credentials=path
        ) == ["a.b"]


async def test_credentials_expire(tmp_path: Path) -> None:
    """Test that expired credentials are refused."""
    operator = NatsOperator()
    path = tmp_path / "user.creds"
    path.write_text(operator.credentials(expires=datetime.now(UTC) - timedelta(1)))
    async with NatsServer(operator=operator) as server:
        assert not await is_let_in(server.url, user_credentials=path)


@pytest.mark.parametrize("users", [None, {"anna": "a"}])
async def test_publish_deny(users: dict[str, str] | None) -> None:
    """Test a subject on which nobody may publish."""
    options = {"user": "anna", "password": "a"} if users else {}
    async with NatsServer(users=users, publish_deny=["raw.*.b"]) as server:
        assert await permitted_subjects(server.url, "raw.a.b", "raw.a", **options) == [
            "raw.a"
        ]


async def test_deny_while_running() -> None:
    """What is denied from now on is, for who is connected too, until it is allowed."""
    async with (
        NatsServer(jetstream=True, publish_deny=()) as server,
        connected(server.url) as client,
    ):
        await client.jetstream().add_stream(name="ALL", subjects=["a.*"])

        async def is_taken() -> bool:
            try:
                await client.jetstream().publish("a.b", b"", timeout=0.2)
            except TimeoutError:
                return False
            return True

        assert await is_taken()
        for is_denied in (True, False):
            server.deny(*["a.*"] * is_denied)
            async with asyncio.timeout(5):
                while await is_taken() is is_denied:
                    pass


async def test_max_payload() -> None:
    """Test that a server tells how much it takes."""
    async with NatsServer(max_payload=10) as server, connected(server.url) as client:
        await client.publish("a", b"x" * 10)
        with pytest.raises(MaxPayloadError):
            await client.publish("a", b"x" * 11)


async def test_config_lines() -> None:
    """Test lines of the test's own."""
    async with NatsServer(config_lines=["max_connections: 7"]) as server:
        assert (await server.monitor("varz"))["max_connections"] == 7


async def test_full_store() -> None:
    """Test that JetStream keeps to its limit."""
    async with (
        NatsServer(jetstream=True, jetstream_bytes=100_000) as server,
        connected(server.url) as client,
    ):
        with pytest.raises(APIError) as raised:
            await client.jetstream().add_stream(name="a", max_bytes=100_001)
        assert raised.value.err_code == 10047  # Insufficient storage


async def test_tls(tmp_path: Path) -> None:
    """Test that a server shows a certificate, and wants one."""
    authority = Authority("an authority")
    authority.write(tmp_path / "ca.pem")
    files = tmp_path / "server.pem", tmp_path / "server.key"
    authority.issue("localhost", *files)
    client_files = tmp_path / "client.pem", tmp_path / "client.key"
    authority.issue("bridge", *client_files)
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    options: dict[str, Any] = {"tls": context, "tls_hostname": "localhost"}
    async with NatsServer(certificate=files[0], key=files[1]) as server:
        assert server.url.startswith("tls://")
        async with connected(server.url, **options) as client:
            await client.flush()
    async with NatsServer(
        certificate=files[0], key=files[1], ca=tmp_path / "ca.pem"
    ) as server:
        with pytest.raises((Error, OSError)):
            async with connected(server.url, allow_reconnect=False, **options):
                pass
        context.load_cert_chain(*client_files)
        async with connected(server.url, **options) as client:
            await client.flush()


async def test_kill_and_freeze() -> None:
    """Test that a stream outlives a kill, and that a frozen server does not answer."""
    async with NatsServer(jetstream=True) as server, connected(server.url) as client:
        stream = client.jetstream()
        await stream.add_stream(name="a", subjects=["a"])
        await stream.publish("a", b"")
        await server.kill()
        assert not server.running
        assert is_port_free(server.port)
        await server.start()
        assert await publish_when_possible(client, "a") == 2
        server.freeze()
        with pytest.raises(TimeoutError):
            await stream.publish("a", b"", timeout=0.5)
        server.thaw()  # Now it reads what was published.
        assert await publish_when_possible(client, "a") == 4
        await server.restart()
        assert await publish_when_possible(client, "a") == 5


async def test_port_in_use() -> None:
    """Test that a second server on a port says what is wrong."""
    async with NatsServer() as server:
        with pytest.raises(SimulationError, match="in use"):
            await NatsServer(server.port).start()


async def test_wrong_configuration() -> None:
    """Test that a server which does not start says why."""
    server = NatsServer(config_lines=["max_payload: many"])
    with pytest.raises(
        SimulationError, match=r"(?s)ended by itself; .*nats-server.conf:4"
    ):
        await server.start()
    assert not server.running


async def test_cluster() -> None:
    """Test that a cluster goes on when the leader of a stream is killed."""
    async with NatsCluster() as cluster, connected(cluster.urls) as client:
        stream = client.jetstream()
        await stream.add_stream(name="a", subjects=["a"], num_replicas=3)
        await stream.publish("a", b"")
        information = await stream.stream_info("a")
        assert information.cluster is not None
        assert information.cluster.leader is not None
        leader = cluster.node(information.cluster.leader)
        await leader.kill()
        assert await publish_when_possible(client, "a") == 2
        await leader.start()
        await cluster.wait_formed()
        await wait_in_step(client, "a", messages=2)
