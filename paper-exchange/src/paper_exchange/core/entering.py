"""How an order comes into the engine: made, waiting for its trigger, then taking and resting."""

from __future__ import annotations

from paper_exchange.core.ending import end
from paper_exchange.core.market import MarketState
from paper_exchange.core.matching import fillable, match
from paper_exchange.core.model import Order, OrderStatus, TimeInForce
from paper_exchange.core.money import relock
from paper_exchange.core.requests import NewOrder
from paper_exchange.core.resting import rest
from paper_exchange.core.state import State, generated_id
from paper_exchange.core.triggers import wait


def create(
    state: State, market: MarketState, uid: int, request: NewOrder, quantity: int, *, list_id: int = -1
) -> Order:
    """Make an order that can be found from now on."""
    order = make(state, market, uid, request, quantity, list_id=list_id)
    state.index(order)
    return order


def make(state: State, market: MarketState, uid: int, request: NewOrder, quantity: int, *, list_id: int = -1) -> Order:
    """An order with the next number, and an id derived from it where the client gave none."""
    order_id = state.next_order_id
    state.next_order_id += 1
    return Order(
        order_id=order_id,
        uid=uid,
        symbol=market.rules.symbol,
        client_order_id=request.client_order_id or generated_id("order", order_id),
        side=request.side,
        type=request.type,
        time_in_force=request.time_in_force,
        price=request.price,
        quantity=quantity,
        quote_quantity=request.quote_quantity,
        stop_price=request.stop_price,
        iceberg_quantity=request.iceberg_quantity,
        trailing_delta=request.trailing_delta,
        stp=request.stp or market.rules.default_stp,
        time=state.now,
        update_time=state.now,
        list_id=list_id,
        strategy_id=request.strategy_id,
        strategy_type=request.strategy_type,
    )


def accept(state: State, market: MarketState, order: Order) -> None:
    """The order enters the engine: it waits for its trigger, or works."""
    order.status = OrderStatus.NEW
    order.update_time = state.now
    relock(state, market, order)
    if order.type.conditional:
        wait(market, order)
        state.report(order, "NEW")
    else:
        work(state, market, order)


def work(state: State, market: MarketState, order: Order) -> None:
    """The order becomes active: it takes what it may, and rests or expires."""
    order.working_time = order.update_time = state.now
    state.report(order, "NEW")
    at_market = not order.type.priced
    limit = None if at_market else order.price
    if order.time_in_force is TimeInForce.FOK and not fillable(state, market, order):
        end(state, market, order, OrderStatus.EXPIRED, "UNFILLED_FOK_ORDER_EXPIRED")
        return
    relock(state, market, order)
    match(state, market, order, limit)
    if not order.open:
        return
    if at_market:
        end(state, market, order, OrderStatus.EXPIRED, "INSUFFICIENT_LIQUIDITY")
    elif order.time_in_force is TimeInForce.GTC:
        rest(state, market, order)
    else:
        end(state, market, order, OrderStatus.EXPIRED, "UNFILLED_IOC_QUANTITY_EXPIRED")
