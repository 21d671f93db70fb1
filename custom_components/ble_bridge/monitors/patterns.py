"""Topic patterns: which topics are watched, and what stands where in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Final

from ..layouts.topics import MAX_BASE, safe_part

WILDCARD: Final = "+"
# A topic base, and what presets have below it.
MAX_PATTERN: Final = MAX_BASE + 50


class MessageKind(StrEnum):
    """What a message tells of a device."""

    STATUS = "status"
    TELEMETRY = "telemetry"
    RELAY = "relay"
    INTERACTION = "interaction"
    SYSTEM = "system"


# Where a second `+` says more: which field, relay, or system message it is.
_PARTED: Final = frozenset(
    {MessageKind.TELEMETRY, MessageKind.RELAY, MessageKind.SYSTEM}
)


class PatternError(ValueError):
    """A pattern that cannot be used; its text says why, as the forms' errors do."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a topic tells of the messages in it.

    `owner` comes before the ID where one system has IDs for several kinds of things. `part`
    is what the second `+` stands for, else empty.
    """

    kind: MessageKind
    device: str
    part: str
    owner: str = ""

    @property
    def key(self) -> str:
        """Return what tells the device from others of the monitor."""
        return f"{self.owner} {self.device}" if self.owner else self.device


@dataclass(frozen=True, slots=True)
class Pattern:
    """A topic filter whose first `+` is the device's ID."""

    kind: MessageKind
    levels: tuple[str, ...]
    owner: str = ""

    @classmethod
    def parse(cls, kind: MessageKind, text: str, owner: str = "") -> Pattern:
        """Return a pattern as a user writes it; raises PatternError."""
        levels = tuple(text.strip().split("/"))
        if len(text) > MAX_PATTERN or text.startswith("$"):
            raise PatternError("invalid_pattern")
        for level in levels:
            if level != WILDCARD and (not level or safe_part(level) != level):
                raise PatternError("invalid_pattern")
        wildcards = levels.count(WILDCARD)
        if not wildcards:
            raise PatternError("pattern_without_id")
        if wildcards > 1 + (kind in _PARTED):
            raise PatternError("pattern_wildcards")
        return cls(kind, levels, owner)

    @property
    def filter(self) -> str:
        """Return the topic filter to subscribe to."""
        return "/".join(self.levels)

    def match(self, topic: list[str]) -> Route | None:
        """Return what a topic, level by level, tells; None if it is another's."""
        if len(topic) != len(self.levels):
            return None
        found = []
        for level, said in zip(self.levels, topic, strict=True):
            if level == WILDCARD:
                found.append(said)
            elif level != said:
                return None
        return Route(
            self.kind, found[0], found[1] if len(found) > 1 else "", self.owner
        )

    def overlaps(self, other: Pattern) -> bool:
        """Tell whether a topic can match both."""
        return len(self.levels) == len(other.levels) and all(
            WILDCARD in (ours, theirs) or ours == theirs
            for ours, theirs in zip(self.levels, other.levels, strict=True)
        )


def overlapping(patterns: Iterable[Pattern]) -> tuple[Pattern, Pattern] | None:
    """Return two patterns that a topic can match both of, if there are any."""
    for one, other in combinations(patterns, 2):
        if one.overlaps(other):
            return one, other
    return None


def find(patterns: Iterable[Pattern], topic: str) -> Route | None:
    """Return what a topic tells; None if it is none of those that are watched."""
    levels = topic.split("/")
    for pattern in patterns:
        if (route := pattern.match(levels)) is not None:
            return route
    return None
