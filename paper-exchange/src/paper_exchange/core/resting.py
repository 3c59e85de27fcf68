"""How an order rests on the book: its place in the queue, and the part of it that is shown."""

from __future__ import annotations

from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order
from paper_exchange.core.state import State


def rest(state: State, market: MarketState, order: Order) -> None:
    """The order takes the last place at its price; of an iceberg a new part is shown."""
    state.sequence += 1
    order.sequence = state.sequence
    order.visible = min(order.iceberg_quantity, order.remaining)
    market.ladder(order.side).add(order)


def leave(market: MarketState, order: Order) -> None:
    """The order rests no more, if it did."""
    ladder = market.ladder(order.side)
    if order in ladder.own.get(order.price, ()):
        ladder.remove(order)


def shrink(state: State, market: MarketState, order: Order, quantity: int) -> None:
    """A resting order has become smaller by a quantity: an iceberg whose part is used up queues anew."""
    ladder = market.ladder(order.side)
    if not order.remaining:
        ladder.remove(order)
    elif order.iceberg_quantity and order.visible <= quantity:
        ladder.remove(order)
        rest(state, market, order)
    else:
        order.visible -= min(order.visible, quantity)
        ladder.changed(order)
