"""How conditional orders wait for their trigger, and how trailing stops follow the price."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from paper_exchange.core.filters import triggers_rising
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, Side
from paper_exchange.core.state import State

_BIPS: Final = 10_000


def wait(market: MarketState, order: Order) -> None:
    """The order sleeps until a trade meets its stop price; without one it follows the price from the next trade."""
    if order.trailing_delta and (order.trailing_time >= 0 or not order.stop_price):
        market.trailing[order.order_id] = order
    elif triggers_rising(order.type, order.side):
        heappush(market.rising, (order.stop_price, order.order_id))
    else:
        heappush(market.falling, (-order.stop_price, order.order_id))


def meet(state: State, market: MarketState, price: int) -> None:
    """A trade happened: orders whose trigger it meets are queued, trailing stops follow it."""
    while market.rising and market.rising[0][0] <= price:
        _reached(state, market, heappop(market.rising)[1])
    while market.falling and -market.falling[0][0] >= price:
        _reached(state, market, heappop(market.falling)[1])
    for order in list(market.trailing.values()):
        if not order.live:
            del market.trailing[order.order_id]
        elif _follow(state, order, price):
            del market.trailing[order.order_id]
            market.todo.append(("trigger", order.order_id))


def forget_ended(state: State, market: MarketState) -> None:
    """Stop prices of orders that are over no longer wait to be met: far ones might never be."""
    for heap in (market.rising, market.falling):
        heap[:] = [entry for entry in heap if entry[1] in state.orders and state.orders[entry[1]].live]
        heapify(heap)


def _reached(state: State, market: MarketState, order_id: int) -> None:
    """A stop price is met: the order triggers, a trailing one begins to follow."""
    order = state.orders.get(order_id)
    if order is None or not order.live:
        return
    if order.trailing_delta:
        market.trailing[order_id] = order
    else:
        market.todo.append(("trigger", order_id))


def _follow(state: State, order: Order, price: int) -> bool:
    """Whether the price came back by the delta from the best price since the order follows it."""
    selling = order.side is Side.SELL
    if order.trailing_time < 0:
        order.trailing_time = state.now
        order.extreme = price
        state.changes.orders[order.order_id] = order
    elif price > order.extreme if selling else price < order.extreme:
        order.extreme = price
        state.changes.orders[order.order_id] = order
    if selling:
        return price * _BIPS <= order.extreme * (_BIPS - order.trailing_delta)
    return price * _BIPS >= order.extreme * (_BIPS + order.trailing_delta)
