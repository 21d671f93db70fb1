"""Streams of JetStream: made, or changed to what the user has set; never deleted."""

from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from .errors import ConnectError, Problem

# Error codes of JetStream: an account without it, limits of the server or the account.
_NOT_ENABLED: Final = frozenset({10039, 10076})
_NO_ROOM: Final = frozenset({10002, 10023, 10028, 10047})


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsStream:
    """A stream: its subjects, what it keeps, and for how long.

    `max_age` and `duplicate_window` are in seconds; -1 messages or bytes, and 0 seconds, are
    no limit.
    """

    name: str
    subjects: tuple[str, ...]
    in_memory: bool = False
    max_age: float = 0
    max_size: int = -1
    max_messages: int = -1
    replicas: int = 1
    duplicate_window: float = 120
    retention: str = "limits"

    def configuration(self) -> dict[str, object]:
        """Return the fields of a stream's configuration that are ours to set."""
        window = self.duplicate_window
        if self.max_age:  # No server remembers for longer than it keeps
            window = min(window, self.max_age)
        return {
            "subjects": list(self.subjects),
            "storage": StorageType.MEMORY if self.in_memory else StorageType.FILE,
            "max_age": self.max_age,
            "max_bytes": self.max_size,
            "max_msgs": self.max_messages,
            "num_replicas": self.replicas,
            "duplicate_window": window,
            "retention": RetentionPolicy(self.retention),
        }


async def async_set_up_streams(
    jetstream: JetStreamContext, streams: tuple[NatsStream, ...]
) -> None:
    """Make streams, or change them to what is set; raises ConnectError."""
    try:
        for stream in streams:
            await _async_set_up(jetstream, stream)
    except ServiceUnavailableError as err:
        missing = err.code is None or err.err_code in _NOT_ENABLED
        raise ConnectError(
            Problem.JETSTREAM_MISSING if missing else Problem.SERVER_UNAVAILABLE
        ) from err
    except APIError as err:
        if err.err_code in _NOT_ENABLED:
            raise ConnectError(Problem.JETSTREAM_MISSING) from err
        if err.err_code in _NO_ROOM:
            raise ConnectError(Problem.QUOTA_EXCEEDED) from err
        raise ConnectError(Problem.STREAM_CONFLICT) from err


async def _async_set_up(jetstream: JetStreamContext, stream: NatsStream) -> None:
    """Make a stream, or change what is ours to set of it."""
    wanted = stream.configuration()
    try:
        found = (await jetstream.stream_info(stream.name)).config
    except NotFoundError:
        await jetstream.add_stream(StreamConfig(name=stream.name), **wanted)
        return
    if any(getattr(found, key) != value for key, value in wanted.items()):
        await jetstream.update_stream(found, **wanted)
