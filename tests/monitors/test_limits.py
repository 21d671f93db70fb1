"""What hostile messages cannot do to a monitor."""

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
