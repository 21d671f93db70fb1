"""Parts of topics, made safe."""

import re
from typing import Final

MAX_PART: Final = 128
MAX_BASE: Final = 200
MAX_TOPIC: Final = 65_535

# Levels and wildcards of MQTT, blanks, and what cannot be seen; then what MQTT 5 (1.5.4)
# and brokers forbid: control characters, surrogates, and the 66 code points that Unicode
# keeps from being characters, for which Mosquitto ends the connection.
_FORBIDDEN: Final = (
    r"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(17))
    + "]"
)
_UNSAFE: Final = re.compile(
    r"[/+#\s\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff"
    + _FORBIDDEN
)
_NO_TOPIC: Final = re.compile("[+#" + _FORBIDDEN)


def safe_part(text: str) -> str:
    """Return text as one level of a topic: nothing in it separates, matches or controls.

    The result is never empty, holds at most `MAX_PART` characters, and does not begin
    with `$`, which brokers keep for themselves.
    """
    part = _UNSAFE.sub("_", text)[:MAX_PART]
    if part.startswith("$"):
        part = "_" + part[1:]
    return part or "_"


def is_valid_base(base: str) -> bool:
    """Tell whether a topic base can stand before a topic: levels, but no wildcards."""
    return (
        0 < len(base) <= MAX_BASE
        and not base.startswith("$")
        and all(level and safe_part(level) == level for level in base.split("/"))
    )


def is_valid_topic(topic: str) -> bool:
    """Tell whether a user may publish to a topic: any that is none of the broker's own."""
    return (
        bool(topic)
        and not topic.startswith("$")
        and _NO_TOPIC.search(topic) is None
        and len(topic.encode()) <= MAX_TOPIC
    )


def encode_topic(topic: str) -> bytes:
    """Return a topic as it stands in a PUBLISH packet: its length, then UTF-8."""
    encoded = topic.encode()
    return len(encoded).to_bytes(2) + encoded
