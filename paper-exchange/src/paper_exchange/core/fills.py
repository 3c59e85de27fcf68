"""One trade: what is published of it, and what it does to the order and the balances of each party."""

from __future__ import annotations

from paper_exchange.core.commission import commission
from paper_exchange.core.ending import expire_sibling, finish
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus, Side, Trade
from paper_exchange.core.money import keep_for_pending, relock
from paper_exchange.core.resting import shrink
from paper_exchange.core.state import State, TradePrint
from paper_exchange.core.triggers import meet
from paper_exchange.core.units import product


def print_trade(
    state: State, market: MarketState, price: int, quantity: int, buyer_is_maker: bool, *, taker: int = 0
) -> TradePrint:
    """Publish a trade; orders that wait for its price are queued."""
    market.last = price
    market.record(state.now, quantity, product(price, quantity))
    market.reference.add(state.now, price)
    trade = TradePrint(market.rules.symbol, market.next_trade_id, price, quantity, buyer_is_maker, state.now, taker)
    state.outputs.append(trade)
    market.next_trade_id += 1
    meet(state, market, price)
    return trade


def fill(state: State, market: MarketState, order: Order, trade: TradePrint, *, maker: bool) -> None:
    """Book one fill: order, balances, commission, trade and event."""
    rules = market.rules
    expire_sibling(state, market, order)
    quantity = trade.quantity
    quote = product(trade.price, quantity)
    order.executed += quantity
    order.quote_executed += quote
    order.update_time = state.now
    order.status = OrderStatus.PARTIALLY_FILLED if order.remaining else OrderStatus.FILLED
    if maker:
        shrink(state, market, order, quantity)
    relock(state, market, order)
    account = state.accounts[order.uid]
    buying = order.side is Side.BUY
    paid, received = (quote, quantity) if buying else (quantity, quote)
    paid_asset, received_asset = (rules.quote, rules.base) if buying else (rules.base, rules.quote)
    account.balance(paid_asset).free -= paid
    fee_asset, fee = commission(state, market, order, trade, received, maker=maker)
    account.balance(received_asset).free += received
    account.balance(fee_asset).free -= fee
    state.touch(order.uid, fee_asset)
    keep_for_pending(state, market, order, received, received - (fee if fee_asset == received_asset else 0))
    booked = Trade(
        trade_id=trade.trade_id,
        uid=order.uid,
        symbol=order.symbol,
        order_id=order.order_id,
        list_id=order.list_id,
        price=trade.price,
        quantity=quantity,
        quote=quote,
        commission=fee,
        commission_asset=fee_asset,
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
