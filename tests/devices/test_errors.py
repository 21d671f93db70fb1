"""What goes wrong with a device costs that packet only, and is told of."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from custom_components.ble_bridge.decoders.model import Decoded

from ..layouts.samples import validated
from .home import BALCONY, FIELDS, SECOND, VALUES, Home, bthome

ERROR = f"{FIELDS}/errors/cannot_decode"


@contextmanager
def broken(error: BaseException) -> Iterator[None]:
    """Have the library raise."""
    with patch("bthome_ble.BTHomeBluetoothDeviceData.update", side_effect=error):
        yield


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("/+#\0"),
        RecursionError(),
        MemoryError(),
    ],
)
async def test_a_library_that_raises(
    home: Home, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The packet is lost, and all others are not."""
    await home.start(BALCONY, {"address": SECOND, "alias": "Cellar"})
    home.hear(bthome(temperature=21))
    await home.until("temperature", "21.0")
    with broken(error):
        for temperature in range(22, 30):
            home.hear(bthome(temperature=temperature))
        await home.settle()
    assert home.value("temperature") == "21.0"
    assert home.value("signal_presence") == "on"
    (record,) = [validated(m.payload, "error") for m in home.subscriber.on_topic(ERROR)]
    assert record["Name"] == "cannot_decode"
    assert record["Tags"]["source"] == "bthome-ble"
    assert record["Tags"]["cause"] == type(error).__name__
    home.hear(bthome(temperature=30))
    home.hear(bthome(temperature=12), SECOND)
    await home.settle()
    assert home.value("temperature") == "30.0"
    assert home.value("temperature", home.devices[1]) == "12.0"
    assert "Traceback" not in caplog.text
    await home.tick(301)
    with broken(error):
        home.hear(bthome(temperature=31))
        await home.settle()
    assert len(home.subscriber.on_topic(ERROR)) == 2
    assert home.payloads(ERROR)[1]["Tags"]["count"] == "9"


async def test_raises_from_the_first_packet_on(home: Home) -> None:
    """A device that could never be decoded is there, and errs, and recovers."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=20), SECOND)
    with broken(ValueError("x")):
        home.hear(bthome(temperature=21))
        await home.subscriber.wait_for_message(ERROR)
    assert home.value("signal_presence") == "on"
    home.hear(bthome(temperature=22))
    await home.until("temperature", "22.0")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
async def test_a_value_that_cannot_be_said(home: Home, value: float) -> None:
    """It is left out, told of, and the others go out."""
    await home.start(BALCONY)
    home.hear(bthome(temperature=21))
    await home.until("temperature", "21.0")
    decoded = Decoded("X", None, {"temperature": 22.0, "strange": value})
    with patch(
        "custom_components.ble_bridge.decoders.DeviceDecoder.decode",
        return_value=decoded,
    ):
        home.hear(bthome(temperature=22))
        await home.settle()
    assert home.payloads(f"{FIELDS}/v/temperature")[-1] == {"value": 22}
    assert home.subscriber.on_topic(f"{VALUES}/temperature")[-1].payload == b"22.0"
    assert home.topics(f"{FIELDS}/v/strange", f"{VALUES}/strange") == set()
    (record,) = home.payloads(f"{FIELDS}/errors/rejected")
    assert record["Tags"]["field"] == "strange"
    home.hear(bthome(temperature=23))
    await home.until("temperature", "23.0")


async def test_names_from_outside(home: Home) -> None:
    """A field may be called anything; no topic is broken by it, and no entity."""
    await home.start(BALCONY)
    names = ["a/b", "+", "x\0y", "$SYS", "", "y" * 500, "Ünïcode"]
    decoded = Decoded("M/+#", None, dict.fromkeys(names, 1), {"button/#": "a/+\0"})
    with patch(
        "custom_components.ble_bridge.decoders.DeviceDecoder.decode",
        return_value=decoded,
    ):
        home.hear(bthome(temperature=22))
        await home.settle()
    topics = home.topics("iiot/balcony/") - {"iiot/balcony/rssi"}
    assert len(topics) == len(names)  # Two have the same, and there is the event
    for topic in topics:
        _base, _device, name = topic.split("/")
        assert name
        assert not set(name) & set("+#\0")
    home.hear(bthome(temperature=23))
    await home.until("temperature", "23.0")


async def test_many_fields(home: Home) -> None:
    """A device that makes up fields gets no more than so many."""
    await home.start(BALCONY)
    before = len(home.hass.states.async_all())
    for start in range(0, 500, 50):
        decoded = Decoded("X", None, {f"f{n}": n for n in range(start, start + 50)})
        with patch(
            "custom_components.ble_bridge.decoders.DeviceDecoder.decode",
            return_value=decoded,
        ):
            home.hear(bthome(temperature=start / 10))
            await home.settle()
    assert len(home.hass.states.async_all()) - before == 64
    assert len({t for t in home.topics(VALUES) if "/f" in t}) == 64
