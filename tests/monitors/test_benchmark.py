"""The benchmark of monitors waits for what there is."""

from benchmarks.controllers import VALUES
from benchmarks.monitor import ENTITIES

from .garage import DEVICE, Garage, status, telemetry


async def test_entities(garage: Garage) -> None:
    """The entities that it waits for are those of a controller, as it speaks."""
    await garage.start()
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(
        f"{DEVICE}/telemetry", {**telemetry(), **dict.fromkeys(VALUES, 1)}
    )
    expected = [entity.format(DEVICE.lower()) for entity in ENTITIES]
    assert [one for one in expected if garage.hass.states.get(one) is None] == []
