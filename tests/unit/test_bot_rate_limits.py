"""The weight budget: a bot keeps to its share, and what reduces risk never waits for what does not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paper import SYMBOL
from support.paper_rest import RestDesk
from tradingbot.gateway.port import EndpointClass
from tradingbot.gateway.rate_limits import (
    KEY_PERMISSIONS,
    LEAST_SHARE,
    MINUTE_MS,
    PART,
    READS,
    WeightBudget,
    weight_of,
)

NOW = 1_700_000_040_000
"""The beginning of a minute."""
kinds = st.sampled_from(list(EndpointClass))
weights = st.integers(min_value=1, max_value=250)
shares = st.decimals(min_value="0.01", max_value=1, places=2)


def budget(share: str = "1") -> WeightBudget:
    made = WeightBudget()
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
            assert own <= max(limit * share, LEAST_SHARE) * part
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
    if weight <= LEAST_SHARE * PART[EndpointClass.MARKET]:
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


@pytest.mark.parametrize(("share", "asked", "sent"), [("0.5", 200, 90), ("0.01", 200, 12)])
def test_a_share_is_kept_to_even_where_the_address_is_idle(share: str, asked: int, sent: int) -> None:
    used = budget(share)
    assert sum(call(used, EndpointClass.MARKET, 20, NOW) for _ in range(asked)) == sent


def test_each_read_weighs_what_the_exchange_charges_for_it() -> None:
    routes = RestDesk((SYMBOL,)).api.routes
    for path in READS.keys() - {KEY_PERMISSIONS}:
        asked = {"symbol": SYMBOL}
        assert weight_of("get", path, asked) == routes["GET", f"/api/v3/{path}"].weight(asked), path
    one = {"symbol": SYMBOL, "orderId": "1"}
    assert weight_of("get", "myTrades", one) == routes["GET", "/api/v3/myTrades"].weight(one)
    assert weight_of("post", "order/test", {}) == routes["POST", "/api/v3/order/test"].weight({})
