"""Where a stop that follows the price is placed again, and what a spec may ask of it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.symbol_rules import btcusdt_rules
from tradingbot.orders.planning import ProtectionPlan
from tradingbot.orders.trailing import place_again
from tradingbot_api.v1alpha1 import Protection

RULES = btcusdt_rules()
PLAN = ProtectionPlan(Decimal("0.1"), Decimal(98), None, Decimal(150), 100)
"""Bought at 100, the stop 2 % below at most, following by 1 %."""


@pytest.mark.parametrize(
    ("peak", "bid", "stop", "delta"),
    [
        pytest.param("100", "100", "99", 100, id="as-new"),
        pytest.param("110", "110", "108.9", 100, id="at-the-peak"),
        pytest.param("110", "109.5", "108.9", 54, id="what-is-left"),
        pytest.param("110", "108.95", "108.9", None, id="nearer-than-a-stop-may-follow"),
        pytest.param("110", None, "108.9", None, id="no-bid-known"),
        pytest.param("110", "108", "108.9", None, id="passed"),
    ],
)
def test_a_stop_is_placed_again_where_the_highest_price_had_brought_it(
    peak: str, bid: str | None, stop: str, delta: int | None
) -> None:
    plan = place_again(RULES, PLAN, Decimal(peak), None if bid is None else Decimal(bid))
    assert (plan.stop_price, plan.trailing_delta) == (Decimal(stop), delta)


prices = st.decimals("90", "200", places=2)


@given(peak=prices, bid=prices)
def test_it_never_begins_below_its_former_place(peak: Decimal, bid: Decimal) -> None:
    plan = place_again(RULES, PLAN, peak, bid)
    assert plan.stop_price >= max(Decimal(98), peak * Decimal("0.99") - RULES.price.tick)
    if plan.trailing_delta is not None:
        assert bid * (1 - Decimal(plan.trailing_delta) / 10_000) >= plan.stop_price


def test_a_stop_that_stays_is_left_as_it_is() -> None:
    plan = ProtectionPlan(Decimal("0.1"), Decimal(98), None, Decimal(150))
    assert place_again(RULES, plan, Decimal(110), Decimal(109)) == plan


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        pytest.param("0.03", "trailingRatio must not exceed stopLossRatio", id="wider-than-the-stop"),
        pytest.param("0.00125", "trailingRatio must be whole hundredths of a percent", id="too-fine"),
    ],
)
def test_a_distance_that_cannot_be_kept_is_refused(ratio: str, message: str) -> None:
    spec = {"stopLossRatio": "0.02", "takeProfitRatio": "0.04", "trailingRatio": ratio}
    with pytest.raises(ValidationError, match=message):
        Protection.model_validate(spec)
