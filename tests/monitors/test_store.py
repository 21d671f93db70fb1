"""What is kept of monitored devices, and what is made of it when it is damaged."""

from pathlib import Path
from typing import Any, Final

from homeassistant.helpers import issue_registry as ir, storage
import pytest

from ..conftest import wait_until
from .garage import DEVICE, Garage, moment, relay, status, telemetry

KEY: Final = "ble_bridge.monitors"
# As they are outside of tests
LOAD, WRITE = storage.Store._async_load, storage.Store._async_write_data

WRONG: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        5,
        0.5,
        1e300,
        -1e300,
        2**63,
        10**18,
        "",
        "x",
        "x" * 999,
    ),
    *([], [None], ["x"], [["x", 1]], [1e300], {}, {"x": None}, {"x": {}}, {"": 1}),
    *({"temperature": None}, {"temperature": "x"}, {"temperature": [None]}),
    *({"temperature": [1, "x"]}, {"temperature": {}}, {"temperature": "number"}),
    *({"0": [1]}, {"0": [1, 2, 3]}, {"0": ["x", 5]}, {"0": {"a": 1, "b": 2}}),
    *({"temperature": 1e300}, {"temperature": [1e300]}, {"temperature": 2**64 - 1}),
)


def damaged(good: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a device's state in which something is wrong, in each possible way."""
    states = [
        {**good, key: value} for key in good if key != "device_id" for value in WRONG
    ]
    states += [{k: v for k, v in good.items() if k != key} for key in good]
    found: dict[str, Any] = {
        f"device{number}": {**state, "device_id": f"device{number}"}
        for number, state in enumerate(states)
    }
    found |= {f"other{n}": {**good, "device_id": v} for n, v in enumerate(WRONG)}
    found |= {f"none{number}": value for number, value in enumerate(WRONG)}
    return found


async def know(garage: Garage) -> dict[str, Any]:
    """Have a device say all that it can, stop, and return what is kept."""
    await garage.start({"anomalies": True, "max_devices": 10_000})
    await garage.tell(f"{DEVICE}/status", status())
    await garage.tell(f"{DEVICE}/telemetry", telemetry(mode="eco", door=True))
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    said = {"timestamp": moment(), "action": "tap"}
    await garage.tell(f"{DEVICE}/display/interaction", said)
    (device,) = garage.monitor.devices.values()
    device.want_average("temperature")
    assert await garage.hass.config_entries.async_unload(garage.entry.entry_id)
    return device.state()


async def begin(garage: Garage, hass_storage: dict[str, Any], stored: object) -> None:
    """Begin with what is kept."""
    hass_storage[KEY] = {"version": 1, "minor_version": 1, "key": KEY, "data": stored}
    assert await garage.hass.config_entries.async_setup(garage.entry.entry_id)
    await garage.hass.async_block_till_done()
    await garage.connected()


async def test_damaged_devices(
    garage: Garage, hass_storage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Each device is what can be made of it, or none, and takes what comes."""
    good = await know(garage)
    subentry_id = next(iter(hass_storage[KEY]["data"]))
    states = {DEVICE: good, **damaged(good)}
    caplog.clear()
    await begin(garage, hass_storage, {subentry_id: {"devices": states}})
    assert garage.value("field!temperature") == "25.6"
    assert garage.value("relay!0") == "on"
    known = set(garage.monitor.devices)
    assert {DEVICE} < known
    assert not {f"none{number}" for number in range(len(WRONG))} & known
    for name in states:
        await garage.say(f"autocore/{name}/status", status(name))
        await garage.say(f"autocore/{name}/telemetry", telemetry(name, temperature=21))
        await garage.say(f"autocore/{name}/relay/0/status", relay(0, name, state=False))
    await wait_until(lambda: garage.judged == 3 * len(states), 60)
    await garage.hass.async_block_till_done()
    assert not garage.monitor.errors
    shown = {state.entity_id: state.state for state in garage.hass.states.async_all()}
    for name in states:
        assert shown[f"sensor.{name.lower()}_temperature"] == "21"
        assert shown[f"binary_sensor.{name.lower()}_relay_0"] == "off"
        assert shown[f"binary_sensor.{name.lower()}_connectivity"] == "on"
    assert "Traceback" not in caplog.text
    assert "ERROR" not in caplog.text


NO_LETTERS: Final[tuple[Any, ...]] = (None, {}, "x", 5, [None])
NO_DEVICES: Final[tuple[Any, ...]] = (None, [], "x", 5, [["a", "b"]])


@pytest.mark.parametrize(
    "stored",
    [
        *(None, [], "x", 5, {}, {"*": None}, {"*": []}, {"*": "x"}, {"*": {}}),
        *({"*": {"devices": wrong}} for wrong in NO_DEVICES),
        *({"*": {"dead_letters": wrong}} for wrong in NO_LETTERS),
        {"*": {"dead_letters": [{"topic": "a", "payload": "!", "size": "x"}]}},
    ],
)
async def test_damaged_store(
    garage: Garage,
    hass_storage: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    stored: Any,
) -> None:
    """Whatever is found there, the monitor begins with nothing."""
    await know(garage)
    subentry_id = next(iter(hass_storage[KEY]["data"]))
    if isinstance(stored, dict) and stored:
        stored = {subentry_id: stored["*"]}
    caplog.clear()
    await begin(garage, hass_storage, stored)
    assert not garage.monitor.devices
    assert not len(garage.monitor.dead_letters)
    await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=21))
    assert garage.value("field!temperature") == "21"
    assert "Traceback" not in caplog.text
    assert "ERROR" not in caplog.text


async def test_no_json(
    garage: Garage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that a power cut left unreadable is put aside, and the user is told."""
    await know(garage)
    monkeypatch.setattr(garage.hass.config, "config_dir", str(tmp_path))
    load, write = storage.Store._async_load, storage.Store._async_write_data
    path = tmp_path / ".storage" / KEY
    path.parent.mkdir()
    path.write_text('{"version": 1, "data": {"dev')

    async def load_it(store: Any) -> Any:
        return await (LOAD if store.key == KEY else load)(store)

    async def write_it(store: Any, data: Any) -> Any:
        return await (WRITE if store.key == KEY else write)(store, data)

    # Undone before what Home Assistant's own tests do to the store is
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.Store, "_async_load", load_it)
        patch.setattr(storage.Store, "_async_write_data", write_it)
        assert await garage.hass.config_entries.async_setup(garage.entry.entry_id)
        await garage.connected()
        assert not garage.monitor.devices
        told = [issue_id for _, issue_id in ir.async_get(garage.hass).issues]
        assert any(KEY in issue_id for issue_id in told)
        await garage.tell(f"{DEVICE}/telemetry", telemetry(temperature=21))
        await garage.restart()
        assert garage.value("field!temperature") == "21"
        assert '"temperature":21' in path.read_text().replace(" ", "")
