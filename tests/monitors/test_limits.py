"""What hostile messages cannot do to a monitor."""

import pytest

from custom_components.ble_bridge.diagnostics import masked
from custom_components.ble_bridge.monitors.messages import MAX_ID

from .garage import DEVICE, Garage, status


async def test_long_topics(garage: Garage) -> None:
    """A topic can have 64 kB, and nothing of that size is kept."""
    await garage.start()
    await garage.tell("x" * 60_000 + "/status", status())
    await garage.tell(f"{DEVICE}/system/" + "x" * 60_000, status())
    assert [letter.reason for letter in garage.monitor.dead_letters] == [
        "invalid_id"
    ] * 2
    assert max(len(letter.topic) for letter in garage.monitor.dead_letters) < 600
    assert garage.monitor._routes == {}
    assert await garage.monitor.async_retry() == (0, 2)
    await garage.tell("x" * MAX_ID + "/status", status("x" * MAX_ID))
    assert garage.value("online", "x" * MAX_ID) == "on"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"wifi_password": "x y", "a": 1}', '{"wifi_password": **REDACTED**, "a": 1}'),
        ("{'apiKey' : 'x', a: 1}", "{'apiKey' : **REDACTED**, a: 1}"),
        ("my-token-2=x;a=1", "my-token-2=**REDACTED**;a=1"),
        ('{"secret": "x', '{"secret": **REDACTED**'),
        ("at 192.168.1.10-user:x", "at **REDACTED**-user:**REDACTED**"),
        ("a passage", "a passage"),
    ],
)
def test_masked(text: str, expected: str) -> None:
    """Diagnostics show neither addresses nor what stands beside the name of a secret."""
    assert masked(text) == expected


def test_masked_at_once() -> None:
    """A word without end takes no hours to be looked at."""
    text = "a" * 500_000
    assert masked(f"{text}=b") == f"{text}=b"
    assert masked(f"{text}key=b") == f"{text}key=**REDACTED**"
