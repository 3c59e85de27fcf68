"""Starts are paced: no minute of an address has more than the exchange allows, however many bots start."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot_api.bot_http import FULL_PACE_WEIGHT, LEAST_WEIGHT, SHARED_PART, START_WEIGHT
from tradingbot_operator.allotment import Need, allot, carries
from tradingbot_operator.egress import Address
from tradingbot_operator.inventory import BotKey
from tradingbot_operator.start_pace import StartPace

HERE = Address("Live", "default")


def key(number: int) -> BotKey:
    return BotKey("trading", f"b{number}")


def start_all(
    pace: StartPace, holding: list[bool], needs: int = 0, seed: int = 1, late: float = 0.5
) -> dict[int, float]:
    """When each may start, if the operator asks again at the told time, up to `late` seconds later."""
    rng, started = Random(seed), {}
    due = [(0.0, number) for number in range(len(holding))]
    while due:
        now, number = heapq.heappop(due)
        wait = pace.wait(key(number), HERE, holding=holding[number], needed=len(started) * needs, now=now)
        if wait == 0:
            started[number] = now
        else:
            heapq.heappush(due, (now + max(wait, 0.1) + rng.uniform(0, late), number))
    return started


def busiest(times: list[float], weight: int, steady: int = 0) -> float:
    """The most weight of any 60 seconds, with starts of `weight` and `steady` a minute from each bot that started."""
    ordered, most = sorted(times), 0.0
    for begin in ordered:
        within = sum(1 for time in ordered if begin <= time < begin + 60)
        before = sum(1 for time in ordered if time < begin)
        most = max(most, within * weight + before * steady)
    return most


@given(st.lists(st.booleans(), max_size=80), st.sampled_from([600, 1_200, 6_000]), st.integers(0, 9))
def test_no_minute_has_more_starts_than_the_limit_allows_and_positions_come_first(
    holding: list[bool], limit: int, seed: int
) -> None:
    started = start_all(StartPace(limit), holding, seed=seed)
    assert len(started) == len(holding)
    assert busiest(list(started.values()), START_WEIGHT) <= max(limit * float(SHARED_PART), START_WEIGHT * 2)
    held = [started[number] for number, holds in enumerate(holding) if holds]
    others = [started[number] for number, holds in enumerate(holding) if not holds]
    # Who holds nothing may have gone before while there was weight for all.
    at_once = max(START_WEIGHT, limit * 0.3)
    behind = sorted(others)[int(at_once // START_WEIGHT) :]
    assert not held or not behind or max(held) <= behind[-1] + 1


@pytest.mark.parametrize("limit", [6_000, 1_200])
def test_a_thousand_start_within_the_exchanges_limit(limit: int) -> None:
    """Seven addresses carry a thousand bots at 6,000 a minute; each is a line of its own."""
    per_address = min(1_000, carries(int(limit * SHARED_PART)))
    started = start_all(StartPace(limit), [False] * per_address, needs=LEAST_WEIGHT)
    assert busiest(list(started.values()), START_WEIGHT, LEAST_WEIGHT) <= limit
    assert -(-1_000 // carries(4_800)) == 7


def test_a_thousand_at_one_address_never_exceed_its_limit_though_it_carries_fewer() -> None:
    """Their looks have what starts leave: each bot's part is what is allotted to it."""
    limit, started = 6_000, start_all(StartPace(6_000), [False] * 1_000, needs=LEAST_WEIGHT)
    assert len(started) == 1_000
    times = sorted(started.values())
    for minute in range(0, int(times[-1]) + 60, 60):
        starts = sum(1 for time in times if minute <= time < minute + 60)
        running = {number: Need(0, False) for number in range(sum(1 for time in times if time < minute + 60))}
        looks = sum(min(part, LEAST_WEIGHT) for part in allot(int(limit * SHARED_PART), running).values())
        assert starts * START_WEIGHT + looks <= limit


def test_few_bots_start_at_once_and_without_a_limit_all() -> None:
    assert set(start_all(StartPace(6_000), [False] * 7).values()) == {0.0}
    assert set(start_all(StartPace(0), [False] * 1_000).values()) == {0.0}


def test_the_told_wait_is_about_right_and_gets_shorter_when_others_give_up() -> None:
    pace = StartPace(6_000)
    waits = [pace.wait(key(number), HERE, holding=False, needed=0, now=0.0) for number in range(30)]
    assert waits[:7] == [0.0] * 7
    assert waits == sorted(waits)
    last = waits[-1]
    assert last == pytest.approx((23 * START_WEIGHT - (1_800 - 7 * START_WEIGHT)) / 50, rel=0.01)
    for number in range(7, 20):
        pace.forget(key(number))
    assert pace.waiting()[HERE] == 10
    assert pace.wait(key(29), HERE, holding=False, needed=0, now=0.0) == pytest.approx(last - 13 * START_WEIGHT / 50)
    elsewhere = Address("Live", "nat-2")
    assert pace.wait(key(29), elsewhere, holding=False, needed=0, now=0.0) == 0, "it was given another address"
    assert pace.waiting()[HERE] == 9


def test_bots_that_run_leave_less_for_starts_and_never_nothing() -> None:
    quiet, busy = (start_all(StartPace(6_000), [False] * 60, needs=needs) for needs in (0, FULL_PACE_WEIGHT))
    assert max(quiet.values()) < max(busy.values())
