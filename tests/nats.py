"""What the tests of NATS share: what is entered and stored, and who listens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
import json
from typing import Any, Self, override

from homeassistant.config_entries import ConfigSubentryData
from homeassistant.core import HomeAssistant
from homeassistant.util import slugify
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.ble_bridge.const import DOMAIN
from custom_components.ble_bridge.kinds import KINDS, KindName

from .conftest import device_subentry
from .destinations.faults import Proxy
from .forms import DELIVERY

# The sections as the form shows them by default, and what else they may have.
AUTHENTICATION = {"method": "none"}
AUTHENTICATION_TOO = {"username", "password", "token", "seed", "credentials"}
SECURITY = {"tls": False, "ca": "system", "use_client_certificate": False}
SECURITY_TOO = {
    *("ca_certificate", "client_certificate", "client_key", "client_key_password"),
    "server_name",
}
MESSAGES = {"payload": "protobuf", "records": True, "raw": True}
JETSTREAM = {
    "enabled": False,
    "stored": ["reading", "alert", "error", "connectivity"],
    "storage": "file",
    "retention": "limits",
    "max_age_hours": 168,
    "max_megabytes": 256,
    "max_messages": 0,
    "replicas": "1",
    "duplicate_window": 3600,
}
ADVANCED = {
    "client_name": "ble-bridge",
    "connect_timeout": 30,
    "disconnect_timeout": 0.25,
    "first_delay": 1,
    "longest_delay": 60,
}
NATS_DELIVERY = {**DELIVERY, "max_in_flight": 1_000}


def nats_form(*servers: str, **changes: Any) -> dict[str, Any]:
    """Return the form of a destination; changes go to the section they belong to.

    Those of JetStream and of delivery are given as such: `jetstream={"enabled": True}`.
    """
    sections = {
        name: {
            **section,
            **{key: changes.pop(key) for key in [*changes] if key in {*section, *more}},
        }
        for name, section, more in (
            ("authentication", AUTHENTICATION, AUTHENTICATION_TOO),
            ("security", SECURITY, SECURITY_TOO),
            ("messages", MESSAGES, set[str]()),
            ("advanced", ADVANCED, set[str]()),
        )
    }
    sections["jetstream"] = {**JETSTREAM, **changes.pop("jetstream", {})}
    sections["delivery"] = {**NATS_DELIVERY, **changes.pop("delivery", {})}
    namespace = changes.pop("namespace", "ble")
    return {"servers": [*servers], "namespace": namespace, **changes, **sections}


def nats_data(*servers: str, **changes: Any) -> dict[str, Any]:
    """Return the data of a destination, as the form makes them.

    Of JetStream and of delivery only what differs is given.
    """
    return {
        "kind": "nats",
        "servers": [*servers],
        "namespace": "ble",
        "authentication": "none",
        **dict.fromkeys(("username", "password", "token", "seed", "credentials")),
        "tls": False,
        **dict.fromkeys(
            ("server_name", "ca_certificate", "client_certificate", "client_key")
        ),
        **MESSAGES,
        **ADVANCED,
        **changes,
        "jetstream": {**JETSTREAM, **changes.get("jetstream", {})},
        "delivery": {**NATS_DELIVERY, **changes.get("delivery", {})},
    }


def is_up(hass: HomeAssistant, data: dict[str, Any]) -> bool:
    """Tell what the connectivity sensor of a destination shows."""
    found = hass.states.get(
        f"binary_sensor.{slugify(KINDS[KindName.NATS].title(data))}_connectivity"
    )
    return found is not None and found.state == "on"


def sensor(hass: HomeAssistant, data: dict[str, Any], key: str) -> str:
    """Return the state of a destination's sensor."""
    found = hass.states.get(f"sensor.{slugify(KINDS[KindName.NATS].title(data))}_{key}")
    assert found is not None
    return found.state


def nats_entry(
    *destinations: dict[str, Any], devices: Iterable[dict[str, Any]] = ()
) -> MockConfigEntry:
    """Return an entry with destinations on NATS, and devices."""
    kind = KINDS[KindName.NATS]
    return MockConfigEntry(
        domain=DOMAIN,
        title="BLE Bridge",
        data={"bridge_id": "home"},
        subentries_data=[
            *(
                ConfigSubentryData(
                    data=data,
                    subentry_type="destination",
                    title=kind.title(data),
                    unique_id=kind.place(data),
                )
                for data in destinations
            ),
            *(device_subentry(data) for data in devices),
        ],
    )


class NatsSubscriber:
    """Listens to everything below a namespace."""

    def __init__(self, url: str, namespace: str = "ble", **options: Any) -> None:
        """Initialize with where to connect to."""
        self.messages: list[Msg] = []
        self.client = Client()
        self._url = url
        self._options = options
        self._namespace = namespace

    async def __aenter__(self) -> Self:
        """Connect and subscribe."""
        await self.client.connect(
            self._url,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            error_cb=_ignore,
            **self._options,
        )
        await self.client.subscribe(f"{self._namespace}.>", cb=self._take)
        await self.client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.client.close()

    async def _take(self, message: Msg) -> None:
        self.messages.append(message)

    def on(self, part: str) -> list[Msg]:
        """Return the messages on subjects that have something in them."""
        return [message for message in tuple(self.messages) if part in message.subject]

    async def wait_for(
        self, condition: Callable[[Self], object], seconds: float = 15
    ) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                await asyncio.sleep(0.01)


async def _ignore(_error: Exception) -> None:
    """Take no note of what goes wrong."""


def numbers(messages: Iterable[Msg]) -> list[int]:
    """Return the numbers that advertisements in JSON carry (`faults.numbered`)."""
    return [
        int(json.loads(message.data)["manufacturer_data"]["feff"], 16)
        for message in messages
    ]


@asynccontextmanager
async def jetstream(url: str, **options: Any) -> AsyncIterator[JetStreamContext]:
    """Look at JetStream."""
    client = await nats.connect(url, error_cb=_ignore, **options)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def stored(url: str, stream: str) -> list[tuple[str, bytes]]:
    """Return what a stream holds: subjects and payloads, in order."""
    async with jetstream(url) as context:
        info = await context.stream_info(stream)
        found = []
        for number in range(info.state.first_seq, info.state.last_seq + 1):
            message = await context.get_msg(stream, number)
            found.append((message.subject or "", message.data or b""))
        return found


class NatsProxy(Proxy):
    """Passes on what is said to a server, which speaks first.

    While it is deaf, nothing that the server says comes back.
    """

    deaf = False

    @override
    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on in both directions."""
        back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self.writers.add(onward)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, to_broker=True))
                group.create_task(self._pass_back(back, writer))
        except* ConnectionError, EOFError:
            pass
        finally:
            onward.transport.abort()

    async def _pass_back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            await self.open.wait()
            if not self.deaf:
                writer.write(data)
                await writer.drain()
        raise EOFError

    @property
    def url(self) -> str:
        """Return where clients connect to."""
        return f"nats://127.0.0.1:{self.port}"
