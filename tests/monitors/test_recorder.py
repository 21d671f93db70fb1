"""What monitored devices say, as the recorder keeps it: states, and statistics of them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from homeassistant.components.recorder import Recorder
from homeassistant.components.recorder.models import StatisticMeanType
from homeassistant.util import dt as dt_util
import pytest
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
    do_adhoc_statistics,
    get_start_time,
)
from sqlalchemy import create_engine, text

from .garage import DEVICE, Garage, relay, status, telemetry

STATES = """
SELECT states.state, state_attributes.shared_attrs
FROM states JOIN states_meta USING (metadata_id)
LEFT JOIN state_attributes USING (attributes_id)
WHERE states_meta.entity_id = :entity_id ORDER BY states.state_id
"""
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
def recorder_db_url_fixture(database: str) -> str:
    """Have the recorder write to a database of the test's own."""
    return database


def select(database: str, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows that a query finds."""
    engine = create_engine(database)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), parameters)]
    finally:
        engine.dispose()


def periods(start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the five minutes that statistics are made of, and the last ones of each hour."""
    while start <= end:
        yield start
        start += timedelta(minutes=5)
    yield from {start.replace(minute=55), end.replace(minute=55)}


async def test_statistics(
    database: str, recorder_mock: Recorder, garage: Garage
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
    for period in sorted(set(periods(start, get_start_time(dt_util.utcnow())))):
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
        for row in select(database, META, pattern="sensor.esp32%")
    } == {entity_id: measured[name] for name, entity_id in entities.items()}
    for table in ("statistics_short_term", "statistics"):
        summary = {
            name: select(database, SUMMARY.format(table=table), statistic_id=entity_id)
            for name, entity_id in entities.items()
        }
        assert summary["temperature"] == [(21, 25, None, None)]
        assert summary["memory_free"] == [(45120, 45120, None, None)]
        assert summary["pressure_bar"] == [(0.5, 2.5, None, None)]
        assert summary["boot_count"] == [(None, None, 7, 0)]
        assert summary["energy"] == [(None, None, 104, 4)]
