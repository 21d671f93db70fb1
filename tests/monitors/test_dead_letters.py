"""What could not be understood: the newest of it is kept, all of it is counted."""

import base64
import json
from typing import Any

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.ble_bridge.layouts.topics import is_valid_topic
from custom_components.ble_bridge.monitors.dead_letters import (
    FIRST_BYTES,
    MAX_KEPT,
    MAX_LETTERS,
    DeadLetter,
    DeadLetters,
)
from custom_components.ble_bridge.monitors.messages import MAX_TOPIC, Reason

NOW = 1_790_000_000.5
KEPT = {
    "topic": "autocore/ESP32_001/status",
    "reason": "not_json",
    "time": NOW,
    "payload": "eyE=",
    "size": 2,
}


def restored(letters: DeadLetters) -> DeadLetters:
    """Return the letters as they are after a restart."""
    again = DeadLetters()
    again.restore(json.loads(json.dumps(letters.state(), allow_nan=False)))
    return again


def test_the_newest_are_kept() -> None:
    """There is a place for so many, and a count of all."""
    letters = DeadLetters()
    assert (len(letters), letters.total, [*letters]) == (0, 0, [])
    for number in range(MAX_LETTERS + 5):
        reason = Reason.NOT_JSON if number % 2 else Reason.TOO_DEEP
        letter = letters.add(f"a/{number}", b"x", reason, NOW + number)
        assert letter == DeadLetter(f"a/{number}", reason, NOW + number, b"x", 1)
    assert len(letters) == MAX_LETTERS
    assert [letter.topic for letter in letters] == [
        f"a/{number}" for number in range(5, MAX_LETTERS + 5)
    ]
    assert letters.counts == {Reason.TOO_DEEP: 53, Reason.NOT_JSON: 52}
    assert letters.total == MAX_LETTERS + 5


@pytest.mark.parametrize(
    ("size", "kept", "whole"),
    [
        (1, 1, True),
        (MAX_KEPT, MAX_KEPT, True),
        (MAX_KEPT + 1, FIRST_BYTES, False),
        (1_000_000, FIRST_BYTES, False),
    ],
)
def test_large_payloads(size: int, kept: int, whole: bool) -> None:
    """Of a payload that is large, only the first bytes are kept."""
    letter = DeadLetters().add("a", b"x" * size, Reason.TOO_LARGE, NOW)
    assert (len(letter.payload), letter.size) == (kept, size)
    assert letter.is_whole is whole
    assert letter.beginning == "x" * min(size, FIRST_BYTES)


def test_long_topics() -> None:
    """Topics can have 64 kB; so much is kept of none, and then not published again."""
    letters = DeadLetters()
    for size, whole in ((MAX_TOPIC, True), (MAX_TOPIC + 1, False), (65_535, False)):
        letter = letters.add("a" * size, b"x", Reason.INVALID_ID, NOW)
        assert letter.is_whole is whole
        assert letter.topic == "a" * MAX_TOPIC + ("" if whole else "…")
    assert [*restored(letters)] == [*letters]


def test_beginning() -> None:
    """The first bytes can be shown, whatever they are."""
    letter = DeadLetters().add("a", b"\xff\x00{" + b"x" * 100, Reason.NOT_JSON, NOW)
    assert letter.beginning == "\ufffd\x00{" + "x" * 61


def test_remove() -> None:
    """One that is let go of is that one, and no other that is the same."""
    letters = DeadLetters()
    first, second = (letters.add("a", b"x", Reason.NOT_JSON, NOW) for _ in range(2))
    for letter in letters:
        if letter is second:
            letters.remove(letter)
    assert [letter is first for letter in letters] == [True]
    letters.remove(second)
    assert (len(letters), letters.total) == (1, 2)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=9).filter(is_valid_topic),
            st.binary(max_size=99) | st.just(b"x" * (MAX_KEPT + 1)),
            st.sampled_from(Reason),
            st.floats(0, 4e9),
        ),
        max_size=9,
    )
)
def test_restart(added: list[tuple[str, bytes, Reason, float]]) -> None:
    """What is kept is there after a restart; what is counted begins anew."""
    letters = DeadLetters()
    for letter in added:
        letters.add(*letter)
    again = restored(letters)
    assert [*again] == [*letters]
    assert again.state() == letters.state()
    assert again.total == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": None},
        {"topic": 5},
        {"topic": ""},
        {"topic": "a/#"},
        {"topic": "$SYS"},
        {"topic": "a\ud800"},
        {"topic": "a" * (MAX_TOPIC + 2)},
        {"payload": None},
        {"payload": 5},
        {"payload": "eyE"},
        {"payload": "ä"},
        {"reason": "boredom"},
        {"reason": None},
        {"reason": []},
        {"time": None},
        {"time": "noon"},
        {"time": []},
        {"time": -1},
        {"time": 1e12},
        {"time": "nan"},
        {"payload": base64.b64encode(b"x" * (MAX_KEPT + 1)), "size": MAX_KEPT + 1},
        {"size": None},
        {"size": "two"},
        {"size": 1},
        {"size": -1},
        {"size": float("inf")},
        {"size": float("nan")},
    ],
    ids=lambda changes: str(changes)[:30],
)
def test_no_letter(changes: dict[str, Any]) -> None:
    """What is no letter is left out, and takes no other one with it."""
    letters = DeadLetters()
    letters.restore([KEPT, {**KEPT, **changes}, KEPT])
    assert len(letters) == 2


@pytest.mark.parametrize("name", KEPT)
def test_incomplete(name: str) -> None:
    """A letter of which something is missing is none."""
    letters = DeadLetters()
    letters.restore([{key: said for key, said in KEPT.items() if key != name}])
    assert len(letters) == 0


@pytest.mark.parametrize("state", [None, {}, "letters", 5, [None, 5, "a", [], {}]])
def test_no_letters(state: object) -> None:
    """What is nothing of the kind is no letters."""
    letters = DeadLetters()
    letters.restore(state)
    assert len(letters) == 0


def test_too_many() -> None:
    """More letters than there is room for are the newest of them."""
    letters = DeadLetters()
    letters.restore([{**KEPT, "topic": f"a/{number}"} for number in range(150)])
    assert [letter.topic for letter in letters] == [
        f"a/{number}" for number in range(50, 150)
    ]
