"""How a taker meets the book: price by price, and at a price in the order of time."""

from __future__ import annotations

from collections.abc import Iterator

from paper_exchange.core.ending import end
from paper_exchange.core.fills import fill, print_trade
from paper_exchange.core.ladder import Ladder
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus, Side, StpMode
from paper_exchange.core.prevention import kindred, prevent
from paper_exchange.core.state import State
from paper_exchange.core.units import SCALE


def match(state: State, market: MarketState, taker: Order, limit: int | None) -> None:
    """Take from the other side, best price first, as far as limit and money reach; outside its price range it ends."""
    ladder = market.ladder(taker.side.opposite)
    reference = market.reference.value(state.now)
    while taker.open and taker.remaining:
        price = ladder.best()
        if price is None or (limit is not None and not ladder.reaches(price, limit)):
            return
        if not market.rules.price_range.allows(taker.side, price, reference):
            end(state, market, taker, OrderStatus.EXPIRED, "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
            return
        if not _match_level(state, market, ladder, price, taker):
            return


def _match_level(state: State, market: MarketState, ladder: Ladder, price: int, taker: Order) -> bool:
    """Take from one level in the order of time; False when the taker is done or cannot pay for more."""
    while taker.open and (wanted := _payable(state, market, taker, price)):
        maker = next(iter(ladder.own.get(price, ())), None)
        outside = ladder.available(price)
        if maker is not None:
            outside = min(outside, maker.ahead)
        if outside:
            _take_outside(state, market, taker, price, min(wanted, outside))
        elif maker is None:
            return True
        elif kindred(state, taker.uid, taker.stp, maker):
            prevent(state, market, taker, maker, wanted)
        else:
            trade = print_trade(
                state, market, price, min(wanted, maker.shown), taker.side is Side.SELL, taker=taker.order_id
            )
            fill(state, market, maker, trade, maker=True)
            fill(state, market, taker, trade, maker=False)
    return False


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
    trade = print_trade(state, market, price, quantity, taker.side is Side.SELL, taker=taker.order_id)
    fill(state, market, taker, trade, maker=False)


def offers(state: State, market: MarketState, uid: int, side: Side, mode: StpMode) -> Iterator[tuple[int, int]]:
    """What a taker may trade with, best price first: hidden parts of icebergs too, but no kindred orders."""
    ladder = market.ladder(side.opposite)
    for price in ladder.prices():
        own = ladder.own.get(price, ())
        yield price, ladder.available(price) + sum(one.remaining for one in own if not kindred(state, uid, mode, one))


def fillable(state: State, market: MarketState, order: Order) -> bool:
    """Whether the book can fill the whole order within limit and price range, with no kindred order to stop it."""
    left = order.quantity
    ladder = market.ladder(order.side.opposite)
    reference = market.reference.value(state.now)
    for price, quantity in offers(state, market, order.uid, order.side, order.stp):
        if not ladder.reaches(price, order.price):
            return False
        if not market.rules.price_range.allows(order.side, price, reference):
            return False
        own = ladder.own.get(price, ())
        if order.stp is not StpMode.EXPIRE_MAKER and any(kindred(state, order.uid, order.stp, one) for one in own):
            return False
        left -= quantity
        if left <= 0:
            return True
    return False
