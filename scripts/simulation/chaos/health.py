"""What the log of Home Assistant says that should never be said."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
import re
from typing import Final

# What is never right, whoever says it.
_ALARMS: Final = (
    "Traceback (most recent call last)",
    "never retrieved",
    "was never awaited",
    "Error doing job",
    "Task was destroyed",
    "Unhandled",
    "Exception ignored in",
    "Detected blocking call",
    "Uncaught thread exception",
    "Fatal Python error",
    "Logging error",
)
# What Home Assistant says at each start on a machine without these programs.
_ELSEWHERE: Final = ("[haffmpeg.core]", "[homeassistant.components.camera.img_util]")
_WATCHED: Final = "ble_bridge"
_RECORD: Final = re.compile(
    r"^(?:\x1b\[\d*m)?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ", re.MULTILINE
)
_EXECUTING: Final = re.compile(r"Executing (<.*>) took (\d+\.\d+) seconds", re.DOTALL)
# Two cores, debug mode and other people's work: one turn of the loop may take long by no
# fault of its own. So a callback is slow above SLOW, and that is held against the integration
# when it happens more than FEW times during one fault, or once for more than STUCK.
SLOW: Final = 0.25
STUCK: Final = 2.0
FEW: Final = 3


@dataclass
class Log:
    """Home Assistant's log, read bit by bit."""

    path: Path
    _offset: int = 0

    def read(self) -> list[str]:
        """Return the records since the last time; one may have many lines."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        text = data.decode(errors="replace")
        starts = [0, *(match.start() for match in _RECORD.finditer(text)), len(text)]
        return [
            text[begin:end].strip()
            for begin, end in pairwise(starts)
            if text[begin:end].strip()
        ]


def _is_alarming(record: str) -> bool:
    return any(alarm in record for alarm in _ALARMS) or (
        "ResourceWarning" in record and _WATCHED in record
    )


def complaints(
    records: Iterable[str], allowed: Iterable[str], *, slow_allowed: bool
) -> list[str]:
    """Return what is wrong according to a log, but for what contains an allowed text."""
    found = []
    slow: list[tuple[float, str]] = []
    allowed = (*allowed, *_ELSEWHERE)
    for record in records:
        if (match := _EXECUTING.search(record)) and _WATCHED in match[1]:
            slow.append((float(match[2]), match[1]))
        elif _is_alarming(record) and not any(text in record for text in allowed):
            found.append(record[-3000:])
    slow = [(seconds, handle) for seconds, handle in slow if seconds > SLOW]
    if not slow_allowed and (
        len(slow) > FEW or any(seconds > STUCK for seconds, _ in slow)
    ):
        seconds, handle = max(slow)
        found.append(f"{len(slow)} slow callbacks, up to {seconds:.2f} s: {handle}")
    return found
