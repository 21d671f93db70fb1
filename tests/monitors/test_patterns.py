"""Topic patterns: what is watched, and what a topic tells."""

from itertools import product

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.ble_bridge.layouts.topics import MAX_BASE
from custom_components.ble_bridge.monitors.patterns import (
    WILDCARD,
    MessageKind,
    Pattern,
    PatternError,
    Route,
    find,
    overlapping,
)

STATUS, TELEMETRY, RELAY, INTERACTION, SYSTEM = MessageKind

levels = st.lists(st.sampled_from(["a", "b", WILDCARD]), min_size=1, max_size=4)


def pattern(*said: str, kind: MessageKind = STATUS, owner: str = "") -> Pattern:
    """Return a pattern of levels."""
    return Pattern(kind, said, owner)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (STATUS, "garage/+/status", "garage/+/status"),
        (STATUS, "  +/status ", "+/status"),
        (STATUS, "+", "+"),
        (TELEMETRY, "garage/+/telemetry", "garage/+/telemetry"),
        (TELEMETRY, "garage/+/+", "garage/+/+"),
        (RELAY, "garage/+/relay/+/status", "garage/+/relay/+/status"),
        (RELAY, "garage/relay/+", "garage/relay/+"),
        (INTERACTION, "Küche/+/tap", "Küche/+/tap"),
        (SYSTEM, "garage/+/system/+", "garage/+/system/+"),
        (STATUS, "a/b$/+", "a/b$/+"),
    ],
)
def test_patterns(kind: MessageKind, text: str, expected: str) -> None:
    """A pattern becomes the topic filter that it is."""
    found = Pattern.parse(kind, text)
    assert (found.kind, found.filter) == (kind, expected)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (STATUS, "", "invalid_pattern"),
        (STATUS, "/+", "invalid_pattern"),
        (STATUS, "garage//+", "invalid_pattern"),
        (STATUS, "garage/+/", "invalid_pattern"),
        (STATUS, "garage/#", "invalid_pattern"),
        (STATUS, "garage/a+/status", "invalid_pattern"),
        (STATUS, "garage/++/status", "invalid_pattern"),
        (STATUS, "two words/+", "invalid_pattern"),
        (STATUS, "tab\t/+", "invalid_pattern"),
        (STATUS, "\ud800/+", "invalid_pattern"),
        (STATUS, "$SYS/+/status", "invalid_pattern"),
        (STATUS, " $SYS/+/status", "invalid_pattern"),
        (STATUS, "garage/$SYS/+", "invalid_pattern"),
        (STATUS, "garage/status", "pattern_without_id"),
        (STATUS, "+/+/status", "pattern_wildcards"),
        (INTERACTION, "+/display/+", "pattern_wildcards"),
        (TELEMETRY, "+/+/+", "pattern_wildcards"),
        (RELAY, "+/+/+", "pattern_wildcards"),
        (SYSTEM, "+/+/+", "pattern_wildcards"),
    ],
)
def test_no_patterns(kind: MessageKind, text: str, problem: str) -> None:
    """What cannot be used is refused, with the text by which the form says why."""
    with pytest.raises(PatternError, match=f"^{problem}$"):
        Pattern.parse(kind, text)


def test_long() -> None:
    """A pattern can be as long as a topic base, but not of any length."""
    text = "a" * 99 + "/" + "b" * (MAX_BASE - 102) + "/+"
    assert Pattern.parse(STATUS, text).filter == text
    with pytest.raises(PatternError, match=r"^invalid_pattern$"):
        Pattern.parse(STATUS, f"{text}/{text.replace('+', 'c')}")


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("garage/+/data", "garage/ESP32_001/data", ("ESP32_001", "")),
        ("garage/+/data", "garage//data", ("", "")),
        ("garage/+/data", "garage/a b 🦊/data", ("a b 🦊", "")),
        ("garage/+/data", "garage/ESP32_001/DATA", None),
        ("garage/+/data", "garage/ESP32_001", None),
        ("garage/+/data", "garage/ESP32_001/data/more", None),
        ("garage/+/data", "/garage/ESP32_001/data", None),
        ("+/data/+", "ESP32_001/data/0", ("ESP32_001", "0")),
        ("+/data/+", "ESP32_001/data/", ("ESP32_001", "")),
    ],
)
def test_match(text: str, topic: str, expected: tuple[str, str] | None) -> None:
    """The first wildcard is the device's ID, the second its part; all else must agree."""
    found = find([Pattern.parse(TELEMETRY, text)], topic)
    assert found == (None if expected is None else Route(TELEMETRY, *expected))


def test_find() -> None:
    """The first pattern that a topic matches tells what it is."""
    watched = [pattern("a", "+"), pattern("b", "+", kind=RELAY, owner="Scanner")]
    assert find(watched, "a/1") == Route(STATUS, "1", "")
    assert find(watched, "b/1") == Route(RELAY, "1", "", "Scanner")
    assert find(watched, "c/1") is None
    assert find([], "a/1") is None


def test_key() -> None:
    """Two kinds of things of one system can have the same ID."""
    assert Route(STATUS, "home", "").key == "home"
    assert Route(STATUS, "home", "", "Scanner").key == "Scanner home"
    assert Route(STATUS, "home", "", "Bridge").key == "Bridge home"


@settings(deadline=None)
@given(levels, levels)
def test_overlaps(one: list[str], other: list[str]) -> None:
    """Two patterns overlap where there is a topic that both match, and only there."""
    first, second = pattern("+", *one), pattern("+", *other)
    topics = product("abc", repeat=len(first.levels))
    both = any(first.match([*t]) and second.match([*t]) for t in topics)
    assert first.overlaps(second) == second.overlaps(first) == both


def test_overlapping() -> None:
    """Two that overlap are found, wherever they stand."""
    apart = [pattern("a", "+"), pattern("b", "+"), pattern("a", "+", "c")]
    assert overlapping(apart) is None
    assert overlapping([]) is None
    assert overlapping([*apart, pattern("+", "x")]) == (apart[0], pattern("+", "x"))


@settings(deadline=None)
@given(levels, st.lists(st.text(st.characters(exclude_characters="/")), min_size=4))
def test_what_is_found_is_what_was_said(said: list[str], heard: list[str]) -> None:
    """A route has just what stands at the wildcards, whatever that is."""
    found = pattern("+", *said, kind=SYSTEM)
    names = iter(heard * 2)
    topic = [next(names) if level == "+" else level for level in found.levels]
    expected = [
        name for level, name in zip(found.levels, topic, strict=True) if level == "+"
    ]
    route = find([found], "/".join(topic))
    assert route is not None
    assert [route.device, route.part] == ([*expected, ""])[:2]
