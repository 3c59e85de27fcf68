"""When events of a market are due: at any speed, paused, and where the machine cannot keep up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_exchange.market.playback import FASTEST, SLOWEST, Playback, SpeedInvalidError, speed_of

START_MS = 1_700_000_000_000


def test_without_a_change_events_are_due_at_their_own_times() -> None:
    playback = Playback(START_MS)
    assert [playback.due_ms(START_MS + after) for after in (0, 1, 86_400_000)] == [
        START_MS,
        START_MS + 1,
        START_MS + 86_400_000,
    ]


def test_a_market_goes_faster_stands_still_and_goes_on_where_it_stood() -> None:
    playback = Playback(START_MS)
    playback.set_speed(60, START_MS + 1000)
    assert playback.market_ms(START_MS + 2000) == START_MS + 61_000
    assert playback.due_ms(START_MS + 61_000) == START_MS + 2000
    playback.set_speed(0, START_MS + 2000)
    assert playback.market_ms(START_MS + 9000) == START_MS + 61_000
    assert playback.due_ms(START_MS + 61_000) == START_MS + 2000
    assert playback.due_ms(START_MS + 61_001) == math.inf
    playback.set_speed(0.5, START_MS + 9000)
    assert playback.due_ms(START_MS + 61_500) == START_MS + 10_000


def test_only_a_market_faster_than_real_time_leaves_out_time_that_the_machine_has_not() -> None:
    playback = Playback(START_MS)
    playback.keep_up(START_MS + 100, START_MS + 5000)
    assert playback.due_ms(START_MS + 100) == START_MS + 100
    playback.set_speed(10, START_MS)
    playback.keep_up(START_MS + 100, START_MS + 200)
    assert playback.due_ms(START_MS + 100) == START_MS + 10
    playback.keep_up(START_MS + 100, START_MS + 5000)
    assert playback.due_ms(START_MS + 100) == START_MS + 5000
    assert playback.due_ms(START_MS + 200) == START_MS + 5010


SPEEDS = st.just(0.0) | st.floats(SLOWEST, FASTEST)


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 500), SPEEDS), max_size=10),
)
def test_time_never_runs_back_however_the_speed_is_changed(gaps: list[int], changes: list[tuple[int, float]]) -> None:
    playback, market, now, last = Playback(START_MS), START_MS, START_MS, START_MS
    market += gaps.pop()
    for passed, speed in [*changes, (10_000_000, 1.0), (10_000_000, 1.0)]:
        now += passed
        while (due := playback.due_ms(market)) <= now:
            assert due >= last
            assert due == int(due)
            last = int(due)
            if not gaps:
                return
            market += gaps.pop()
        playback.set_speed(speed, now)
    raise AssertionError("events that never come")


@pytest.mark.parametrize("given", [-1, 0.001, 1001, math.nan, math.inf, "1", None, True])
def test_a_speed_that_is_none_is_refused_by_its_field(given: object) -> None:
    with pytest.raises(SpeedInvalidError, match=r"speed: expected a number from 0.01 to 1000, or 0 to stand still"):
        speed_of("speed", given)
