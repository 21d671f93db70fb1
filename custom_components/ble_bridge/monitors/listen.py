"""Listen for a few seconds to what a monitor would hear, before it is saved."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
import secrets
import time
from typing import Any, Final, override

from homeassistant.core import HomeAssistant

from ..destinations.errors import ConnectError, Problem
from ..destinations.mqtt_connection import ConnectionListener, MqttConnector
from ..kinds.mqtt.settings import mqtt_settings
from .messages import Reason, RejectedError, parse
from .patterns import find
from .settings import MonitorSettings

LISTEN_SECONDS: Final = 5.0
_CONNECT_TIMEOUT: Final = 10.0
_MAX_DEVICES: Final = 1_000
# What is looked at in those seconds; what comes beyond is only counted.
_MAX_PARSED: Final = 20_000


@dataclass(slots=True)
class Heard:
    """What was heard: messages, by device, and why some were not understood."""

    messages: int = 0
    devices: Counter[str] = field(default_factory=Counter)
    rejected: Counter[Reason] = field(default_factory=Counter)


class _Ear(ConnectionListener):
    """Takes note of what comes."""

    def __init__(
        self, settings: MonitorSettings, is_ours: Callable[[str], bool]
    ) -> None:
        """Begin with nothing heard."""
        self.heard = Heard()
        self.problem: asyncio.Future[Problem] = (
            asyncio.get_running_loop().create_future()
        )
        self._settings = settings
        self._is_ours = is_ours

    @override
    def on_message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        heard, settings = self.heard, self._settings
        route = find(settings.patterns, topic)
        if route is None or not payload:
            return
        if route.owner and self._is_ours(topic):
            return
        heard.messages += 1
        if heard.messages > _MAX_PARSED:
            return
        try:
            if len(payload) > settings.max_payload:
                raise RejectedError(Reason.TOO_LARGE)
            parse(
                route,
                payload,
                time.time(),
                settings.dialect,
                needs_time=settings.needs_time,
            )
        except RejectedError as err:
            heard.rejected[err.reason] += 1
            return
        if route.key in heard.devices or len(heard.devices) < _MAX_DEVICES:
            heard.devices[route.key] += 1

    @override
    def on_subscribed(self, mid: int, problem: Problem | None) -> None:
        if problem is not None:
            self._end(problem)

    @override
    def on_written(self, mid: int) -> None:
        """Nothing is written."""

    @override
    def on_refused(self, mid: int, problem: Problem) -> None:
        """Nothing that could be refused is written."""

    @override
    def on_lost(self, problem: Problem) -> None:
        self._end(problem)

    def _end(self, problem: Problem) -> None:
        """Take note that nothing will be heard."""
        if not self.problem.done():
            self.problem.set_result(problem)


async def async_listen(
    hass: HomeAssistant,
    destination: Mapping[str, Any],
    settings: MonitorSettings,
    is_ours: Callable[[str], bool],
) -> Heard:
    """Return what a monitor hears in a few seconds; raises ConnectError.

    `is_ours` knows what the bridge publishes. It listens over a connection of its own, with
    the destination's settings, and not as one of a group: it takes nothing away from those
    who share.
    """
    theirs = mqtt_settings(hass, destination)
    connection = await MqttConnector(
        replace(theirs, client_id=_client_id(theirs.client_id), clean_session=True),
        connect_timeout=_CONNECT_TIMEOUT,
    ).async_connect()
    ear = _Ear(settings, is_ours)
    try:
        if settings.group is not None and not connection.can_share:
            raise ConnectError(Problem.SHARING_UNSUPPORTED)
        connection.listener = ear
        filters = [pattern.filter for pattern in settings.patterns]
        connection.subscribe(filters, settings.qos)
        await asyncio.wait([ear.problem], timeout=LISTEN_SECONDS)
        if ear.problem.done():
            raise ConnectError(ear.problem.result())
    finally:
        ear.problem.cancel()
        await connection.async_close()
    return ear.heard


def _client_id(client_id: str) -> str:
    """Return a client ID that nobody has, of at most 23 characters, as each broker takes.

    It begins as the destination's does, for some brokers know clients by that.
    """
    return f"{client_id[:16]}-{secrets.token_hex(3)}"
