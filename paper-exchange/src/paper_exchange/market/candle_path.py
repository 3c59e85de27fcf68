"""The trades that a candle is played as: the lowest price before the highest, one trade a second."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise

from paper_exchange.core.units import to_decimal, to_units
from paper_exchange.market.events import Candle, MarketTrade


def path_of(candle: Candle, symbol: str, tick: Decimal, step: Decimal) -> Iterator[MarketTrade]:
    """Trades from the open to the low, the high and the close; they make up the candle's prices and volume again.

    The low comes first, so that a stop loss is met before a take profit, as the worse for who holds. The trades are
    evenly spread over the candle and over the way of the price, one for each second at most, of equal quantity, and
    bought as often as takers bought. A candle without volume has none.
    """
    turns = [candle.open]
    for price in (candle.low, candle.high, candle.close):
        if price != turns[-1]:
            turns.append(price)
    count = max(len(turns), min(candle.trades, candle.interval_ms // 1000))
    left = to_units(candle.volume)
    part = left // count // to_units(step) * to_units(step) or left // count
    if not part:
        return
    bought = float(candle.taker_base / candle.volume)
    for number, price in enumerate(_on_the_way(turns, count, tick)):
        quantity = left if number == count - 1 else part
        left -= quantity
        yield MarketTrade(
            symbol,
            candle.open_time_ms + number * candle.interval_ms // count,
            price,
            to_decimal(quantity),
            buyer_is_maker=int((number + 1) * bought) == int(number * bought),
        )


def _on_the_way(turns: list[Decimal], count: int, tick: Decimal) -> Iterator[Decimal]:
    """`count` prices along the way, among them every turn."""
    yield turns[0]
    legs = list(pairwise(turns))
    spare = count - len(turns)
    length = sum(abs(after - before) for before, after in legs)
    gone = Decimal(0)
    used = 0
    for before, after in legs:
        gone += abs(after - before)
        between = int(spare * gone / length) - used
        used += between
        for number in range(1, between + 1):
            way = (after - before) * number / (between + 1)
            yield before + way // tick * tick
        yield after
    for _ in range(spare - used):
        yield turns[-1]
