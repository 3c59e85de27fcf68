"""How a taker meets the book: price by price, and at a price in the order of time."""

from __future__ import annotations

from paper_exchange.core.ending import end
from paper_exchange.core.fills import fill, print_trade
from paper_exchange.core.ladder import Ladder
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus, Side, StpMode
from paper_exchange.core.state import State
from paper_exchange.core.units import SCALE


def match(state: State, market: MarketState, taker: Order, limit: int | None) -> None:
    """Take from the other side, best price first, as far as limit and money reach."""
    ladder = market.ladder(taker.side.opposite)
    while taker.open and taker.remaining:
        price = ladder.best()
        if price is None or (limit is not None and not ladder.reaches(price, limit)):
            return
        if not _match_level(state, market, ladder, price, taker):
            return


def _match_level(state: State, market: MarketState, ladder: Ladder, price: int, taker: Order) -> bool:
    """Take from one level in the order of time; False when the taker cannot pay for more."""
    consumed = 0
    for maker in list(ladder.own.get(price, ())):
        if not maker.open:
            continue
        wanted = _payable(state, market, taker, price)
        queue = min(max(0, maker.ahead - consumed), ladder.available(price), wanted)
        if queue:
            _take_outside(state, market, taker, price, queue)
            consumed += queue
        wanted = _payable(state, market, taker, price)
        if not wanted:
            break
        if maker.uid == taker.uid:
            if taker.stp is not StpMode.EXPIRE_TAKER:
                end(state, market, maker, OrderStatus.EXPIRED_IN_MATCH)
            if taker.stp is not StpMode.EXPIRE_MAKER:
                end(state, market, taker, OrderStatus.EXPIRED_IN_MATCH)
                return False
            continue
        quantity = min(wanted, maker.remaining)
        trade = print_trade(state, market, price, quantity, taker.side is Side.SELL)
        fill(state, market, maker, trade, maker=True)
        fill(state, market, taker, trade, maker=False)
    rest = min(_payable(state, market, taker, price), ladder.available(price)) if taker.open else 0
    if rest:
        _take_outside(state, market, taker, price, rest)
        consumed += rest
    for maker in ladder.own.get(price, ()):
        maker.ahead = max(0, maker.ahead - consumed)
    return taker.open and _payable(state, market, taker, price) > 0


def _payable(state: State, market: MarketState, taker: Order, price: int) -> int:
    """Open quantity, of a market buy only what the free balance pays."""
    if taker.type.priced or taker.side is Side.SELL:
        return taker.remaining
    budget = state.accounts[taker.uid].balance(market.rules.quote).free
    if taker.quote_quantity:
        budget = min(budget, taker.quote_quantity - taker.quote_executed)
    return min(taker.remaining, budget * SCALE // price // market.rules.step * market.rules.step)


def _take_outside(state: State, market: MarketState, taker: Order, price: int, quantity: int) -> None:
    market.ladder(taker.side.opposite).take(price, quantity)
    trade = print_trade(state, market, price, quantity, taker.side is Side.SELL)
    fill(state, market, taker, trade, maker=False)


def fillable(market: MarketState, order: Order) -> bool:
    """Whether the book can fill the whole order at its limit without meeting the same account."""
    left = order.quantity
    ladder = market.ladder(order.side.opposite)
    for price, shown in ladder.depth_within(order.price):
        left -= shown - sum(one.remaining for one in ladder.own.get(price, ()) if one.uid == order.uid)
        if left <= 0:
            return True
    return False
