"""Parts of topics are safe, also for a real broker."""

import asyncio
from functools import partial
import sys
import unicodedata

from hypothesis import example, given, strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
import pytest

from custom_components.ble_bridge.layouts.topics import (
    MAX_BASE,
    MAX_PART,
    encode_topic,
    is_valid_base,
    safe_part,
)
from scripts.simulation.broker import Mosquitto
from scripts.simulation.subscriber import Subscriber

anything = st.text(st.characters(), max_size=2 * MAX_PART)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("living-room-proxy", "living-room-proxy"),
        ("AA:BB:CC:DD:EE:FF", "AA:BB:CC:DD:EE:FF"),
        ("Küche 🦊", "Küche_🦊"),
        ("", "_"),
        ("a/b+c#d", "a_b_c_d"),
        ("a\0b\x1fc\x7fd\x85e", "a_b_c_d_e"),
        ("a\ud800\udfffb", "a__b"),
        ("a\ufdd0b\uffffc\U0001fffed\U0010ffff", "a_b_c_d_"),
        ("a\u200bb\u202ec\u2066d\ufeff", "a_b_c_d_"),
        ("a b\tc\nd\u3000", "a_b_c_d_"),
        ("$SYS", "_SYS"),
        ("a$b", "a$b"),
        ("🦊" * 200, "🦊" * MAX_PART),
    ],
)
def test_safe_part(text: str, expected: str) -> None:
    """What is unsafe becomes an underscore; the rest stays."""
    assert safe_part(text) == expected


@given(anything)
@example("$" * 200)
def test_safe_part_is_safe(text: str) -> None:
    """Nothing in it separates, matches or controls, and UTF-8 can say it."""
    part = safe_part(text)
    assert 0 < len(part) <= MAX_PART
    assert not set(part) & set("/+#\0")
    assert not part.startswith("$")
    assert not any(
        unicodedata.category(character) in {"Cc", "Cs", "Zs", "Zl", "Zp"}
        for character in part
    )
    assert part.encode().decode() == part
    assert safe_part(part) == part


async def test_a_broker_takes_every_part(broker: Mosquitto) -> None:
    """No character that is left makes a real broker end the connection."""
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    topics = [
        f"part/{safe_part(characters[start : start + MAX_PART])}"
        for start in range(0, len(characters), MAX_PART)
    ]
    # Blocks that are unsafe as a whole are the same topic.
    topics = list(dict.fromkeys(topics))

    assert len(topics) > 8_000
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    lost: list[object] = []
    client.on_disconnect = lambda *args: lost.append(args)

    def arrived(number: int, subscriber: Subscriber) -> bool:
        return bool(lost) or subscriber.count() == number

    async with Subscriber(broker.port, "part/#") as subscriber:
        await asyncio.to_thread(client.connect, "127.0.0.1", broker.port)
        client.loop_start()
        # As many at once as the broker queues for a subscriber.
        for start in range(0, len(topics), 1000):
            for topic in topics[start : start + 1000]:
                client.publish(topic, b"x")
            sent = min(start + 1000, len(topics))
            await subscriber.wait_for(partial(arrived, sent))
        assert not lost
        assert [message.topic for message in subscriber.messages] == topics
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


@pytest.mark.parametrize("base", ["ble", "home/ble", "a/b/c/d", "Küche", "a" * 128])
def test_valid_base(base: str) -> None:
    """Levels of safe characters are a base."""
    assert is_valid_base(base)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "/",
        "/ble",
        "ble/",
        "a//b",
        "ble/+",
        "ble/#",
        "#",
        "+",
        "$SYS",
        "$share/group/ble",
        "a/$b",
        "a b",
        "a\0b",
        "a\ud800",
        "a" * 129,
        "a/" * 100 + "b",
    ],
)
def test_invalid_base(base: str) -> None:
    """What would match, be reserved or be empty is none."""
    assert not is_valid_base(base)


@given(anything)
def test_valid_bases_are_safe(base: str) -> None:
    """A base is only ever made of safe levels."""
    if is_valid_base(base):
        assert len(base) <= MAX_BASE
        assert [safe_part(level) for level in base.split("/")] == base.split("/")


@given(st.lists(anything, min_size=1, max_size=5))
def test_encode_topic(parts: list[str]) -> None:
    """It is the length in two bytes, high byte first, and as many bytes of UTF-8."""
    topic = "/".join(map(safe_part, parts))
    encoded = encode_topic(topic)
    assert int.from_bytes(encoded[:2]) == len(encoded) - 2
    assert encoded[2:].decode() == topic


def test_the_longest_topic_fits() -> None:
    """The longest base and parts stay below what MQTT's two bytes of length can say."""
    topic = "/".join(["🦊" * MAX_BASE, "raw", "🦊" * MAX_PART, "🦊" * MAX_PART])
    assert encode_topic(topic)[2:].decode() == topic
