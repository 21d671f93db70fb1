"""What Home Assistant is told of an alert: `docs/alerts.md` has the fields."""

from homeassistant.core import HomeAssistant, callback

from .alerts import Change, Rule
from .const import EVENT_ALERT


@callback
def fire_alert(
    hass: HomeAssistant,
    device: tuple[str, str],
    registry_id: str | None,
    rule: Rule,
    change: Change,
) -> None:
    """Tell that an alert started or ended at a device, given by its ID and its name."""
    device_id, name = device
    hass.bus.async_fire(
        EVENT_ALERT,
        {
            "device": device_id,
            "device_name": name,
            "device_id": registry_id,
            "name": rule.name,
            "kind": rule.kind.value,
            "state": "started" if change.ended_at is None else "ended",
            "started_at": change.started_at,
            "ended_at": change.ended_at,
            "audiences": list(rule.audiences),
        },
    )
