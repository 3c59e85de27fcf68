"""Where a stop that follows the price is placed again, and what a spec may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.symbol_rules import btcusdt_rules
from tradingbot.gateway.port import Exchange
from tradingbot.model import Candle, OrderType, TrailingFilter
from tradingbot.orders.planning import ProtectionPlan
from tradingbot.orders.trailing import highest_since, place_again
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


def test_a_stop_that_is_placed_again_has_a_limit_where_it_needs_one_and_follows_by_no_less_than_is_allowed() -> None:
    limited = replace(RULES, order_types=RULES.order_types - {OrderType.STOP_LOSS})
    plan = place_again(limited, PLAN, Decimal(110), Decimal("109.5"))
    assert (plan.stop_price, plan.stop_limit_price, plan.trailing_delta) == (Decimal("108.9"), Decimal("107.81"), 54)
    for smallest, delta in ((54, 54), (55, None)):
        rules = replace(RULES, trailing_delta=TrailingFilter(smallest, 2000))
        assert place_again(rules, PLAN, Decimal(110), Decimal("109.5")).trailing_delta == delta
    least = replace(RULES, trailing_delta=TrailingFilter(1, 2000))
    assert place_again(least, PLAN, Decimal(110), None).trailing_delta is None, "followed by what nobody knows"
    without = replace(RULES, trailing_delta=None)
    assert place_again(without, PLAN, Decimal(110), Decimal("109.5")) == PLAN
    assert place_again(RULES, PLAN, Decimal(90), Decimal(100)).stop_price == 98


SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@dataclass
class Candles:
    """Answers each read with highs, and notes what was asked."""

    now_ms: int
    highs: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, int, int | None]] = field(default_factory=list)

    def exchange_ms(self) -> int:
        return self.now_ms

    async def candles(self, symbol: str, interval: str, *, limit: int, start_ms: int | None = None) -> list[Candle]:
        assert isinstance(limit, int), "the exchange refuses a fraction"
        self.asked.append((symbol, interval, limit, start_ms))
        one = Decimal(1)
        return [
            Candle(symbol, interval, 0, 0, one, Decimal(high), one, one, one, 1, True)
            for high in self.highs[len(self.asked) - 1].split()
        ]


@pytest.mark.parametrize(
    ("since", "now", "asked"),
    [
        pytest.param(5 * DAY, 5 * DAY, [], id="nothing-yet"),
        pytest.param(5 * DAY, 5 * DAY + 1, [("1d", 1000, 5 * DAY)], id="on-a-day"),
        pytest.param(5 * DAY - 1, 5 * DAY, [], id="less-than-a-second"),
        pytest.param(5 * DAY - 1_999, 5 * DAY, [("1s", 1, 5 * DAY - SECOND)], id="a-second"),
        pytest.param(
            5 * DAY - HOUR - MINUTE - SECOND - 1,
            5 * DAY + 7,
            [
                ("1s", 1, 5 * DAY - HOUR - MINUTE - SECOND),
                ("1m", 1, 5 * DAY - HOUR - MINUTE),
                ("1h", 1, 5 * DAY - HOUR),
                ("1d", 1000, 5 * DAY),
            ],
            id="each-width",
        ),
        pytest.param(DAY + 1, DAY + 3 * SECOND, [("1s", 59, DAY + SECOND)], id="of-this-minute"),
        pytest.param(
            DAY + MINUTE + 1,
            DAY + 5 * HOUR,
            [("1s", 59, DAY + MINUTE + SECOND), ("1m", 58, DAY + 2 * MINUTE), ("1h", 23, DAY + HOUR)],
            id="of-this-day",
        ),
        pytest.param(20_999 * DAY, 21_005 * DAY, [("1d", 1000, 20_999 * DAY)], id="the-last-reach-to-now"),
    ],
)
async def test_the_highest_price_is_read_in_the_widest_candles_that_begin_after_the_entry(
    since: int, now: int, asked: list[tuple[str, int, int]]
) -> None:
    exchange = Candles(now, ["5 7 6", "8 4", "9", "3"])
    highest = await highest_since(cast(Exchange, exchange), "BTCUSDT", since)
    assert exchange.asked == [("BTCUSDT", *one) for one in asked]
    assert highest == (0, 7, 8, 9, 9)[len(asked)]


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
