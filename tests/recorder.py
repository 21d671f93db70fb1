"""What the recorder keeps, read by SQL: the same for SQLite and for PostgreSQL."""

from dataclasses import dataclass
import json
from typing import Any, Final

from sqlalchemy import create_engine, text

_STATES: Final = """
SELECT states_meta.entity_id, states.state, state_attributes.shared_attrs,
  states.last_updated_ts, states.last_changed_ts
FROM states JOIN states_meta USING (metadata_id)
  JOIN state_attributes USING (attributes_id)
WHERE states_meta.entity_id LIKE :pattern
ORDER BY states.state_id
"""
_EVENTS: Final = """
SELECT event_data.shared_data
FROM events JOIN event_types USING (event_type_id) JOIN event_data USING (data_id)
WHERE event_types.event_type = :event_type
ORDER BY events.event_id
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A state as it was recorded; times are Unix time in seconds."""

    state: str
    attributes: dict[str, Any]
    updated: float
    changed: float


class Database:
    """The recorder's database."""

    def __init__(self, url: str) -> None:
        """Describe the database; the URL is as the recorder wants it."""
        self.url = url
        self._engine = create_engine(url)

    def close(self) -> None:
        """End all connections."""
        self._engine.dispose()

    def select(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), parameters)]

    def states(self, pattern: str) -> dict[str, list[Recorded]]:
        """Return what was recorded of entities, whose IDs are LIKE a pattern, in order."""
        found: dict[str, list[Recorded]] = {}
        for entity_id, state, attributes, updated, changed in self.select(
            _STATES, pattern=pattern
        ):
            found.setdefault(entity_id, []).append(
                # That it changed when it was updated is not written twice
                Recorded(state, json.loads(attributes), updated, changed or updated)
            )
        return found

    def events(self, event_type: str) -> list[dict[str, Any]]:
        """Return the data of the events of a type that were recorded, in order."""
        rows = self.select(_EVENTS, event_type=event_type)
        return [json.loads(data) for (data,) in rows]
