"""What monitored devices say, as the recorder keeps it: states, and statistics of them."""

from datetime import datetime, timedelta
import logging

from homeassistant.components.recorder import Recorder
from homeassistant.components.recorder.models import StatisticMeanType
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
    do_adhoc_statistics,
    get_start_time,
)

from ..recorder import Database, Recorded
from .garage import DEVICE, Garage, moment, relay, status, telemetry

META = """
SELECT statistic_id, unit_of_measurement, mean_type, has_sum FROM statistics_meta
WHERE statistic_id LIKE :pattern
"""
SUMMARY = """
SELECT min(min), max(max), max(state), max(sum)
FROM {table} JOIN statistics_meta ON metadata_id = statistics_meta.id
WHERE statistic_id = :statistic_id
"""


@pytest.fixture(name="recorder_db_url")
def recorder_db_url_fixture(
    database: Database, caplog: pytest.LogCaptureFixture
) -> str:
    """Have the recorder write to a database of the test's own, and not log all of it."""
    for logger in ("homeassistant.components.recorder", "sqlalchemy.engine"):
        caplog.set_level(logging.WARNING, logger)
    return database.url


def periods(start: datetime, end: datetime) -> list[datetime]:
    """Return the five minutes that statistics are made of, with the last ones of hours."""
    found = set()
    while start <= end:
        found |= {start, start.replace(minute=55)}
        start += timedelta(minutes=5)
    return sorted(found)


async def test_statistics(
    database: Database, recorder_mock: Recorder, garage: Garage
) -> None:
    """Whatever is a number has statistics, of five minutes and of hours, and nothing else."""
    await garage.start()
    start = get_start_time(dt_util.utcnow())
    for count, number in enumerate((1, 5, 3)):
        await garage.tell(
            f"{DEVICE}/telemetry",
            telemetry(
                temperature=20 + number,
                energy=100 + 2 * count,
                boot_count=7,
                pressure_bar=number / 2,
                mode=f"eco {number}",
                door=number > 3,
            ),
        )
    await garage.tell(f"{DEVICE}/relay/0/status", relay())
    await garage.tell(f"{DEVICE}/status", status())
    await async_wait_recording_done(garage.hass)
    for period in periods(start, get_start_time(dt_util.utcnow())):
        do_adhoc_statistics(garage.hass, start=period)
        await async_wait_recording_done(garage.hass)

    mean, total = (StatisticMeanType.ARITHMETIC, False), (StatisticMeanType.NONE, True)
    measured = {
        "temperature": ("°C", *mean),
        "humidity": ("%", *mean),
        "voltage": ("V", *mean),
        "memory_free": ("B", *mean),
        "pressure_bar": ("bar", *mean),
        "energy": ("kWh", *total),
        "boot_count": (None, *total),
    }
    entities = {name: garage.entity_id(f"field!{name}") for name in measured}
    assert {
        row[0]: (row[1], row[2], bool(row[3]))
        for row in database.select(META, pattern="sensor.esp32%")
    } == {entity_id: measured[name] for name, entity_id in entities.items()}
    for table in ("statistics_short_term", "statistics"):
        summary = {
            name: database.select(SUMMARY.format(table=table), statistic_id=entity_id)
            for name, entity_id in entities.items()
        }
        assert summary["temperature"] == [(21, 25, None, None)]
        assert summary["memory_free"] == [(45120, 45120, None, None)]
        assert summary["pressure_bar"] == [(0.5, 2.5, None, None)]
        assert summary["boot_count"] == [(None, None, 7, 0)]
        assert summary["energy"] == [(None, None, 104, 4)]


def recorded(database: Database, garage: Garage, key: str) -> list[Recorded]:
    """Return what was recorded of an entity."""
    entity_id = garage.entity_id(key)
    assert entity_id is not None
    return database.states(entity_id)[entity_id]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the recorder is not happy with."""
    return [
        record.getMessage()
        for record in caplog.records
        if "recorder" in record.name and record.levelno >= logging.WARNING
    ]


async def test_strange_texts(
    database: Database,
    recorder_mock: Recorder,
    garage: Garage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A text that a database cannot keep costs nothing else."""
    await garage.start()
    for temperature, mode in ((21, "eco"), (22, "eco\0\0"), (23, "\0warm 🚗")):
        said = telemetry(temperature=temperature, mode=mode)
        await garage.tell(f"{DEVICE}/telemetry", said)
    await garage.tell(f"{DEVICE}/status", status(status="on\0line"))
    await async_wait_recording_done(garage.hass)
    assert {
        key: [row.state for row in recorded(database, garage, key)]
        for key in ("field!temperature", "field!mode", "status", "ip")
    } == {
        "field!temperature": ["21", "22", "23"],
        "field!mode": ["eco", "warm 🚗"],
        "status": ["online"],
        "ip": ["192.168.1.100"],
    }
    assert complaints(caplog) == []


async def test_large_event(
    database: Database,
    recorder_mock: Recorder,
    garage: Garage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An event that says more than the recorder keeps is kept as far as that goes."""
    await garage.start()
    tap = {"device_id": DEVICE, "timestamp": moment(), "action": "tap", "text": "a\0b"}
    for more in ({}, {f"value_{number}": "🚗" * 255 for number in range(40)}):
        await garage.tell(f"{DEVICE}/display/interaction", tap | more)
    await async_wait_recording_done(garage.hass)
    kept = [row.attributes for row in recorded(database, garage, "interaction")]
    assert [attributes["event_type"] for attributes in kept] == [None, "tap", "tap"]
    assert kept[-1]["value_9"] == "🚗" * 255
    assert "event_types" not in kept[-1]
    assert complaints(caplog) == []
