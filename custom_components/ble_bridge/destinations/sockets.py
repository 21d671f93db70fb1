"""What TCP is to do with what it is given."""

import contextlib
import socket
from typing import Final

# Batches are gathered by us, so that Nagle's algorithm would hold them up again. What the
# kernel has taken nothing can overtake: on a slow link an alert would wait behind all that
# its buffer holds, so it takes less. And a network that swallows everything is noticed
# after half a minute (ms), not by a keepalive.
_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_NOTSENT_LOWAT", 128 * 1024),
    ("TCP_USER_TIMEOUT", 30_000),
)


def tune(sock: socket.socket) -> None:
    """Set the options of a TCP socket, as far as this machine knows them."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, value in _OPTIONS:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
