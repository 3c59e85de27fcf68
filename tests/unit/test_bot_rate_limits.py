"""The weight budget: a bot keeps to its share, and what reduces risk never waits for what does not."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paper import SYMBOL
from support.paper_rest import RestDesk
from tradingbot.gateway.port import EndpointClass
from tradingbot.gateway.rate_limits import (
    KEY_PERMISSIONS,
    MINUTE_MS,
    PART,
    READS,
    SLOWEST,
    WeightBudget,
    weight_of,
)
from tradingbot_api.bot_http import FULL_PACE_WEIGHT, LEAST_WEIGHT, SHARED_PART, START_PART, START_WEIGHT

NOW = 1_700_000_040_000
"""The beginning of a minute."""
kinds = st.sampled_from(list(EndpointClass))
weights = st.integers(min_value=1, max_value=250)
shares = st.decimals(min_value="0.01", max_value=1, places=2)


def budget(share: str = "1", monotonic: Callable[[], float] = lambda: 0.0) -> WeightBudget:
    made = WeightBudget(monotonic)
    made.share = Decimal(share)
    return made


def call(used: WeightBudget, kind: EndpointClass, weight: int, now: int) -> bool:
    """Whether it was sent; it is answered at once."""
    if used.wait_ms(kind, weight, now):
        return False
    used.sent(weight, now)
    used.answered(weight)
    return True


@given(
    shares,
    st.integers(min_value=100, max_value=6_000),
    st.lists(st.tuples(kinds, weights, st.integers(0, 20_000), st.integers(0, 500)), max_size=80),
)
def test_whatever_is_asked_the_reserve_is_left_and_what_reduces_risk_is_sent(
    share: Decimal, limit: int, calls: list[tuple[EndpointClass, int, int, int]]
) -> None:
    used, now, minute = budget(f"{share}"), NOW, NOW // MINUTE_MS
    used.limit = limit
    own = address = 0
    for kind, weight, later, others in calls:
        now += later
        if now // MINUTE_MS != minute:
            minute, own, address = now // MINUTE_MS, 0, 0
        address += others
        used.observe(address, now)
        sent = call(used, kind, weight, now)
        if kind is EndpointClass.REDUCE:
            assert sent
        if not sent:
            continue
        own, address = own + weight, address + weight
        used.observe(address, now)
        if (part := PART.get(kind)) is not None:
            assert own <= limit * share * part
            assert address <= limit * part


@given(shares, weights, st.integers(0, 6_000), st.integers(0, MINUTE_MS - 1))
def test_reads_of_the_market_are_given_up_first_and_nothing_waits_longer_than_the_minute(
    share: Decimal, weight: int, observed: int, passed: int
) -> None:
    used, now = budget(f"{share}"), NOW + passed
    used.observe(observed, now)
    market, account = (used.wait_ms(kind, weight, now) for kind in (EndpointClass.MARKET, EndpointClass.ACCOUNT))
    assert market >= account
    assert market in {0, MINUTE_MS - passed}
    if weight <= used.limit * share * PART[EndpointClass.MARKET]:
        assert used.wait_ms(EndpointClass.MARKET, weight, now + market) == 0


def test_what_others_at_the_address_use_counts() -> None:
    used = budget()
    used.observe(4_900, NOW)
    assert used.wait_ms(EndpointClass.ACCOUNT, 20, NOW) == MINUTE_MS
    assert used.wait_ms(EndpointClass.REDUCE, 20, NOW) == 0
    assert used.wait_ms(EndpointClass.ACCOUNT, 20, NOW + MINUTE_MS) == 0


def test_an_observation_that_belonged_to_the_former_minute_is_corrected_by_the_next() -> None:
    used = budget()
    used.observe(5_990, NOW)
    used.observe(21, NOW + 50)
    assert used.wait_ms(EndpointClass.MARKET, 20, NOW + 50) == 0


def test_calls_that_are_under_way_count_before_the_exchange_tells_of_them() -> None:
    used = budget()
    used.observe(3_500, NOW)
    used.sent(90, NOW)
    assert used.wait_ms(EndpointClass.MARKET, 20, NOW) > 0
    used.answered(90)
    assert used.wait_ms(EndpointClass.MARKET, 20, NOW) == 0


@pytest.mark.parametrize(("share", "asked", "sent"), [("0.5", 200, 90), ("0.01", 200, 1)])
def test_a_share_is_kept_to_even_where_the_address_is_idle(share: str, asked: int, sent: int) -> None:
    used = budget(share)
    assert sum(call(used, EndpointClass.MARKET, 20, NOW) for _ in range(asked)) == sent


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40),
    st.integers(600, 6_000),
    st.lists(st.tuples(st.integers(0, 39), kinds, weights), max_size=200),
    st.booleans(),
)
def test_bots_of_one_address_keep_its_reserve_together_with_and_without_the_operator(
    allotted: list[int], limit: int, calls: list[tuple[int, EndpointClass, int]], gone: bool
) -> None:
    clock, spare = [0.0], int(limit * SHARED_PART)
    bots = []
    for weight in allotted:
        one = budget(monotonic=lambda: clock[0])
        one.limit = limit
        one.allot(min(weight, spare), len(allotted), 60)
        spare -= min(weight, spare)
        bots.append(one)
    clock[0] = 60.0 if gone else 59.9
    shared = 0
    for who, kind, weight in calls:  # at once: no answer tells anybody of the others
        if call(bots[who % len(bots)], kind, weight, NOW) and kind is not EndpointClass.REDUCE:
            shared += weight
    assert shared <= limit * SHARED_PART


def test_a_bot_keeps_to_its_allotment_while_the_grant_lasts_and_then_to_an_equal_part() -> None:
    clock = [0.0]
    used = budget(monotonic=lambda: clock[0])
    used.allot(100, 48, 60)
    assert used.mine == 100
    clock[0] = 60
    assert used.mine == 100, "4,800 for 48 bots"
    used.address_bots = 24
    assert used.mine == 200
    used.share = Decimal("0.02")
    assert used.mine == 96, "the user gives it no more"


def test_a_read_of_a_bot_that_holds_nothing_reduces_no_risk_and_waits_like_others() -> None:
    used = budget()
    used.observe(4_800, NOW)
    assert used.wait_ms(EndpointClass.REDUCE, 20, NOW, read=True) == 0
    used.at_risk = lambda: False
    assert used.wait_ms(EndpointClass.REDUCE, 20, NOW, read=True) == MINUTE_MS
    assert used.wait_ms(EndpointClass.REDUCE, 1, NOW) == 0, "a cancel or an order is no read"


def test_looks_become_rarer_with_a_small_allotment_and_never_while_anything_is_at_risk() -> None:
    used = budget()
    used.at_risk = lambda: False
    slower = []
    for weight in (4_800, FULL_PACE_WEIGHT, 60, LEAST_WEIGHT, 10, 0):
        used.allot(weight, 1, 60)
        slower.append(used.slower)
    assert slower[:2] == [1, 1]
    assert slower == sorted(slower)
    assert slower[-1] == SLOWEST
    used.at_risk = lambda: True
    assert used.slower == 1


def test_a_start_may_use_more_than_its_allotment_while_the_address_has_room() -> None:
    clock = [0.0]
    used = budget(monotonic=lambda: clock[0])
    used.allot(LEAST_WEIGHT, 150, 60)
    assert used.start_wait_ms(NOW) == 0
    used.start()
    assert sum(call(used, EndpointClass.ACCOUNT, 20, NOW) for _ in range(10)) == 10
    clock[0] = 20
    assert not call(used, EndpointClass.ACCOUNT, 20, NOW), "the start is over"
    used.observe(int(used.limit * START_PART) - START_WEIGHT + 1, NOW)
    assert used.start_wait_ms(NOW + 20_000) == 40_000
    assert used.start_wait_ms(NOW + MINUTE_MS) == 0


def test_bots_that_start_by_themselves_spread_by_the_size_of_their_group() -> None:
    used = budget()
    assert used.start_spread == 0
    used.address_bots = 101
    assert used.start_spread == pytest.approx(100 * START_WEIGHT / 1_200)


def test_what_was_used_and_what_waited_is_told_of_the_last_whole_minute() -> None:
    used = budget()
    used.allot(30, 100, 60)
    for _ in range(3):
        call(used, EndpointClass.ACCOUNT, 20, NOW)
    assert used.last_minute(NOW) == (0, 0), "the minute is not over"
    assert used.last_minute(NOW + MINUTE_MS) == (20, 60)
    assert used.last_minute(NOW + 3 * MINUTE_MS) == (0, 0)


def test_each_read_weighs_what_the_exchange_charges_for_it() -> None:
    routes = RestDesk((SYMBOL,)).api.routes
    for path in READS.keys() - {KEY_PERMISSIONS}:
        asked = {"symbol": SYMBOL}
        assert weight_of("get", path, asked) == routes["GET", f"/api/v3/{path}"].weight(asked), path
    one = {"symbol": SYMBOL, "orderId": "1"}
    assert weight_of("get", "myTrades", one) == routes["GET", "/api/v3/myTrades"].weight(one)
    assert weight_of("post", "order/test", {}) == routes["POST", "/api/v3/order/test"].weight({})
