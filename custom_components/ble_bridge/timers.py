"""What is done again and again while the bridge runs."""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers.event import async_track_time_interval


@callback
def every(
    hass: HomeAssistant,
    seconds: float,
    action: Callable[[datetime], Coroutine[Any, Any, None] | None],
) -> CALLBACK_TYPE:
    """Do something every so many seconds, until Home Assistant stops; return what ends it."""
    return async_track_time_interval(
        hass, action, timedelta(seconds=seconds), cancel_on_shutdown=True
    )
