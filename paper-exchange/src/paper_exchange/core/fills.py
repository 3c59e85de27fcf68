"""One trade: what is published of it, and what it does to the order and the balances of each party."""

from __future__ import annotations

from decimal import Decimal
from heapq import heappop
from typing import Final

from paper_exchange.core.ending import expire_sibling, finish
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus, Side, Trade
from paper_exchange.core.money import keep_for_pending, relock
from paper_exchange.core.state import State, TradePrint
from paper_exchange.core.units import product, to_units

COMMISSION: Final = Decimal("0.001")
"""Share of the received asset that each fill costs, maker and taker alike."""
_COMMISSION_UNITS: Final = to_units(COMMISSION)


def print_trade(state: State, market: MarketState, price: int, quantity: int, buyer_is_maker: bool) -> TradePrint:
    """Publish a trade; orders whose trigger it meets are queued."""
    market.last = price
    market.record(state.now, quantity, product(price, quantity))
    trade = TradePrint(market.rules.symbol, market.next_trade_id, price, quantity, buyer_is_maker, state.now)
    state.outputs.append(trade)
    market.next_trade_id += 1
    while market.rising and market.rising[0][0] <= price:
        market.todo.append(("trigger", heappop(market.rising)[1]))
    while market.falling and -market.falling[0][0] >= price:
        market.todo.append(("trigger", heappop(market.falling)[1]))
    return trade


def fill(state: State, market: MarketState, order: Order, trade: TradePrint, *, maker: bool) -> None:
    """Book one fill: order, balances, commission in the received asset, trade and event."""
    rules = market.rules
    expire_sibling(state, market, order)
    quantity = trade.quantity
    quote = product(trade.price, quantity)
    order.executed += quantity
    order.quote_executed += quote
    order.update_time = state.now
    order.status = OrderStatus.PARTIALLY_FILLED if order.remaining else OrderStatus.FILLED
    if maker:
        if order.remaining:
            market.ladder(order.side).changed(order)
        else:
            market.ladder(order.side).remove(order)
    relock(state, market, order)
    account = state.accounts[order.uid]
    buying = order.side is Side.BUY
    paid, received = (quote, quantity) if buying else (quantity, quote)
    paid_asset, received_asset = (rules.quote, rules.base) if buying else (rules.base, rules.quote)
    commission = product(received, _COMMISSION_UNITS)
    account.balance(paid_asset).free -= paid
    account.balance(received_asset).free += received - commission
    keep_for_pending(state, market, order, received, received - commission)
    booked = Trade(
        trade_id=trade.trade_id,
        uid=order.uid,
        symbol=order.symbol,
        order_id=order.order_id,
        list_id=order.list_id,
        price=trade.price,
        quantity=quantity,
        quote=quote,
        commission=commission,
        commission_asset=received_asset,
        time=state.now,
        buyer=buying,
        maker=maker,
    )
    state.trades.setdefault((order.uid, order.symbol), []).append(booked)
    state.changes.trades.append(booked)
    state.fills.append(booked)
    state.report(order, "TRADE", booked)
    if not order.remaining:
        finish(state, market, order)
