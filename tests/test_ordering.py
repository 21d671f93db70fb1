"""Packets that several scanners hear: one reading each, in order, none lost."""

from habluetooth import BluetoothServiceInfoBleak
from hypothesis import given, strategies as st
import pytest

from custom_components.ble_bridge.device import next_moment
from custom_components.ble_bridge.ordering import (
    LATE,
    MAX_ITEMS,
    History,
    Item,
    News,
    items,
)

from .layouts.samples import advertisement

P, Q, R = (1, b"p"), (1, b"q"), (1, b"r")
FRESH, AGAIN, COPY = News.FRESH, News.AGAIN, News.LATE


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(
            [("a", P, 0, FRESH), ("b", P, 0.1, COPY), ("c", P, 3, COPY)],
            id="one packet",
        ),
        pytest.param(
            [
                ("a", P, 0, FRESH),
                ("a", Q, 1, FRESH),
                ("b", P, 4, COPY),
                ("b", Q, 5, COPY),
            ],
            id="a scanner that lags behind",
        ),
        pytest.param(
            [("a", P, 0, FRESH), ("b", Q, 1, FRESH), ("a", P, 2, AGAIN)],
            id="a value that comes back",
        ),
        pytest.param(
            [
                ("a", P, 0, FRESH),
                ("b", P, 0.1, COPY),
                ("a", Q, 1, FRESH),
                ("b", Q, 1.1, COPY),
                ("a", P, 2, AGAIN),
                ("b", P, 2.1, COPY),
                ("b", Q, 3, AGAIN),
                ("a", Q, 3.1, COPY),
            ],
            id="payloads that take turns at two scanners",
        ),
        pytest.param(
            [("a", P, 0, FRESH), ("a", Q, 1, FRESH), ("b", P, 1 + LATE + 1, AGAIN)],
            id="no copy is that late",
        ),
        pytest.param(
            [("a", P, 0, FRESH), ("b", Q, 0.5, FRESH), ("c", R, 1, FRESH)],
            id="each is new",
        ),
    ],
)
def test_news(story: list[tuple[str, Item, float, News]]) -> None:
    """Each packet of a story is what we expect."""
    history = History()
    assert [
        history.judge(source, [item], at, None)[0] for source, item, at, _ in story
    ] == [expected for *_, expected in story]


def test_pause() -> None:
    """It is told for how long the device had said something else."""
    history = History()
    history.judge("a", [P], 0, None)
    assert history.judge("a", [P], 5, None) == (AGAIN, 0)
    history.judge("a", [Q], 6, None)
    news, pause = history.judge("a", [P], 6.2, None)
    assert news is AGAIN
    assert pause == pytest.approx(0.2)
    history.judge("a", [Q], 7, None)
    assert history.judge("a", [P], 9, None) == (AGAIN, 2)


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ([(1, 256), (2, 256), (1, 256)], [FRESH, FRESH, COPY]),
        ([(255, 256), (0, 256), (255, 256)], [FRESH, FRESH, COPY]),
        ([(65535, 65536), (3, 65536), (65530, 65536)], [FRESH, FRESH, COPY]),
        ([(9, 256), (9, 256), (10, 256)], [FRESH, AGAIN, FRESH]),
    ],
)
def test_counter(counters: list[tuple[int, int]], expected: list[News]) -> None:
    """A packet's own counter tells, also across its overflow."""
    history = History()
    found = [
        history.judge("a", [(1, b"%d" % counter[0])], at, counter)[0]
        for at, counter in enumerate(counters)
    ]
    assert found == expected


def test_same_value_with_the_next_counter() -> None:
    """A press that says the same as the one before is another one."""
    history = History()
    assert history.judge("a", [P], 0, (1, 256))[0] is FRESH
    assert history.judge("b", [P], 1, (1, 256))[0] is COPY
    assert history.judge("a", [P], 2, (2, 256))[0] is FRESH


def test_device_that_begins_anew() -> None:
    """A counter that went back for good is believed when no copy can be that late."""
    history = History()
    assert history.judge("a", [P], 0, (100, 256))[0] is FRESH
    assert history.judge("a", [Q], 1, (50, 256))[0] is COPY
    assert history.judge("a", [R], LATE + 2, (51, 256))[0] is FRESH


def test_doubt() -> None:
    """What looked like a late copy, and is still said, is what the device says now."""
    history = History()
    history.judge("a", [P], 0, None)
    history.judge("a", [Q], 1, None)
    assert history.judge("b", [P], 2, None)[0] is COPY
    assert not history.is_due("b", 3)
    assert not history.is_due("a", LATE + 100)
    assert history.is_due("b", LATE + 3)
    assert not history.is_due("b", LATE + 3)
    assert history.judge("b", [P], LATE + 3, None)[0] is AGAIN


def test_no_doubt_about_a_mere_copy() -> None:
    """A copy of what the device says anyway is not looked at again."""
    history = History()
    history.judge("a", [P], 0, None)
    history.judge("b", [P], 1, None)
    assert not history.is_due("b", 100)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.lists(
                st.tuples(st.integers(0, 40), st.binary(max_size=1)),
                min_size=1,
                max_size=20,
            ),
            st.floats(0, 5),
        ),
        max_size=60,
    )
)
def test_bounded(story: list[tuple[str, list[Item], float]]) -> None:
    """Whatever is said, what is kept is bounded, and the first of all is news."""
    history = History()
    now = 0.0
    for number, (source, said, step) in enumerate(story):
        now += step
        news, pause = history.judge(source, said, now, None)
        assert number or news is FRESH
        assert pause >= 0
        assert len(history._heard) <= MAX_ITEMS
        assert len(history._doubtful) <= 3


@given(st.lists(st.sampled_from([P, Q, R]), min_size=1, max_size=30), st.data())
def test_copies_make_no_news(sent: list[Item], data: st.DataObject) -> None:
    """A scanner that lags behind another adds nothing, wherever it stands."""
    history = History()
    packets = [item for at, item in enumerate(sent) if not at or item != sent[at - 1]]
    lag = data.draw(st.integers(1, 5))
    for at, item in enumerate(packets):
        assert history.judge("a", [item], at, None)[0] is not COPY
    if len({*packets}) == len(packets):
        for at, item in enumerate(packets):
            assert history.judge("b", [item], at + lag, None)[0] is COPY


def test_items() -> None:
    """What a packet says is taken from the packet itself where it is there."""
    merged: BluetoothServiceInfoBleak = advertisement(
        raw=bytes.fromhex("05ff3412aabb"),
        manufacturer_data={0x1234: b"\xaa\xbb", 0x9999: b"old"},
    )
    assert items(merged) == [(0x1234, b"\xaa\xbb")]
    without = advertisement(
        raw=None, manufacturer_data={1: b"m"}, service_data={"x": b"s"}
    )
    assert items(without) == [(1, b"m"), ("x", b"s")]


@given(
    start=st.floats(1e9, 3e9),
    offsets=st.lists(st.floats(-0.5, 0) | st.floats(-2e-6, 2e-6), max_size=100),
)
def test_no_two_readings_at_one_time(start: float, offsets: list[float]) -> None:
    """Packets that come at once, give or take, are points in time one after the other."""
    last, moments = 0.0, []
    for offset in offsets:
        last = next_moment(last, start + offset)
        moments.append(round(last * 1_000_000))
    assert moments == sorted(set(moments))
    assert all(abs(moment / 1e6 - start) < 1 for moment in moments)
    assert next_moment(last, start - 3600) == round(start - 3600, 6)
