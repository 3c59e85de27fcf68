"""A trailing stop that was lost is placed again no lower than the price had brought it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Final

from tradingbot.gateway import filters
from tradingbot.gateway.port import MOST_CANDLES, Exchange
from tradingbot.model import SymbolRules
from tradingbot.orders.planning import BIPS, ProtectionPlan, stop_limit

_CANDLES: Final = (("1s", 1_000), ("1m", 60_000), ("1h", 3_600_000), ("1d", 86_400_000))
"""As many of one as the exchange gives at once; of days it is the rest of any position's life."""


def place_again(rules: SymbolRules, plan: ProtectionPlan, peak: Decimal, bid: Decimal | None) -> ProtectionPlan:
    """The plan with its stop where `peak`, the highest price since the entry, had brought it; pure.

    It goes on to follow the price by what is left between the stop and the bid; where that is less than the exchange
    lets a stop follow, or no bid is known, it stays where it is.
    """
    if plan.trailing_delta is None or rules.trailing_delta is None:
        return plan
    level = max(plan.stop_price, filters.floor_price(rules, peak * (1 - Decimal(plan.trailing_delta) / BIPS)))
    left = 0 if bid is None else int((1 - level / bid) * BIPS)
    delta = min(plan.trailing_delta, left) if left >= rules.trailing_delta.smallest else None
    return replace(plan, stop_price=level, stop_limit_price=stop_limit(rules, level), trailing_delta=delta)


async def highest_since(exchange: Exchange, symbol: str, since_ms: int) -> Decimal:
    """The highest price in the whole seconds since then, by at most four reads, or 0; ExchangeError."""
    highest, start, now = Decimal(0), since_ms, exchange.exchange_ms()
    for (interval, width), (_, wider) in pairwise((*_CANDLES, ("", 0))):
        start = -(-start // width) * width
        end = -(-start // wider) * wider if wider else start + MOST_CANDLES * width
        if start < min(end, now):
            limit = (end - start) // width
            candles = await exchange.candles(symbol, interval, limit=limit, start_ms=start)
            highest = max((highest, *(candle.high for candle in candles)))
        start = end
    return highest
