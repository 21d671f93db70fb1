"""What could not be understood: the newest, with why, and how many there were."""

import base64
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..layouts.topics import is_valid_topic
from .messages import MAX_TIME, MAX_TOPIC, Reason

MAX_LETTERS: Final = 100
# Payloads up to this size are kept whole, so that they can be published again.
MAX_KEPT: Final = 16 * 1024
# Of the others, and in diagnostics, the first bytes.
FIRST_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be understood.

    `time` is Unix time in seconds; `payload` is what is kept of the payload, which had `size`
    bytes. A topic that is too long ends in `…`.
    """

    topic: str
    reason: Reason
    time: float
    payload: bytes
    size: int

    @property
    def is_whole(self) -> bool:
        """Tell whether the message can be published again as it was."""
        return len(self.payload) == self.size and len(self.topic) <= MAX_TOPIC

    @property
    def beginning(self) -> str:
        """Return the payload's first bytes as text."""
        return self.payload[:FIRST_BYTES].decode(errors="replace")


class DeadLetters:
    """The newest messages that could not be understood, and a count of all by reason."""

    def __init__(self) -> None:
        """Begin with none."""
        self.counts: Counter[Reason] = Counter()
        self._letters: deque[DeadLetter] = deque(maxlen=MAX_LETTERS)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        """Return those that are kept, the oldest first."""
        return iter(tuple(self._letters))

    @property
    def total(self) -> int:
        """Return how many there were."""
        return self.counts.total()

    def add(
        self, topic: str, payload: bytes, reason: Reason, time: float
    ) -> DeadLetter:
        """Keep a message, in the place of the oldest where there is no room."""
        size = len(payload)
        kept = payload if size <= MAX_KEPT else payload[:FIRST_BYTES]
        if len(topic) > MAX_TOPIC:
            topic = f"{topic[:MAX_TOPIC]}…"
        letter = DeadLetter(topic, reason, time, bytes(kept), size)
        self.counts[reason] += 1
        self._letters.append(letter)
        return letter

    def remove(self, letter: DeadLetter) -> None:
        """Keep a message no longer."""
        for index, other in enumerate(self._letters):
            if other is letter:
                del self._letters[index]
                return

    # --- across restarts ----------------------------------------------------------------

    def state(self) -> list[dict[str, Any]]:
        """Return what is kept, as JSON."""
        return [
            {
                "topic": letter.topic,
                "reason": letter.reason.value,
                "time": letter.time,
                "payload": base64.b64encode(letter.payload).decode(),
                "size": letter.size,
            }
            for letter in self._letters
        ]

    def restore(self, state: object) -> None:
        """Go on with what was kept; what is none of it is ignored."""
        for kept in state if isinstance(state, list) else ():
            if (letter := _letter(kept)) is not None:
                self._letters.append(letter)


def _letter(kept: object) -> DeadLetter | None:
    """Return a letter as it was kept."""
    if not isinstance(kept, Mapping):
        return None
    try:
        letter = DeadLetter(
            kept["topic"],
            Reason(kept["reason"]),
            float(kept["time"]),
            base64.b64decode(kept["payload"], validate=True),
            int(kept["size"]),
        )
    except KeyError, TypeError, ValueError, OverflowError:
        return None
    return letter if _is_possible(letter) else None


def _is_possible(letter: DeadLetter) -> bool:
    """Tell whether a letter is one that could have been kept."""
    return (
        isinstance(letter.topic, str)
        and is_valid_topic(letter.topic)
        and len(letter.topic) <= MAX_TOPIC + 1
        and 0 <= letter.time <= MAX_TIME
        and len(letter.payload) <= min(letter.size, MAX_KEPT)
    )
