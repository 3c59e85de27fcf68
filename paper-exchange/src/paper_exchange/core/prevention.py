"""Self-trade prevention: which orders must not trade with each other, and what becomes of them instead."""

from __future__ import annotations

from typing import Final

from paper_exchange.core.ending import finish
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus, PreventedMatch, Side, StpMode
from paper_exchange.core.money import relock
from paper_exchange.core.resting import shrink
from paper_exchange.core.state import State
from paper_exchange.core.units import product

_BOTH_SHRINK: Final = (StpMode.DECREMENT, StpMode.TRANSFER)
_TAKER_ENDS: Final = (StpMode.EXPIRE_TAKER, StpMode.EXPIRE_BOTH)
_MAKER_ENDS: Final = (StpMode.EXPIRE_MAKER, StpMode.EXPIRE_BOTH)


def kindred(state: State, uid: int, mode: StpMode, maker: Order) -> bool:
    """Whether a taker of an account must not trade with a maker: one account, or one trade group."""
    if mode is StpMode.NONE:
        return False
    group = state.accounts[uid].trade_group_id
    return uid == maker.uid or (group >= 0 and group == state.accounts[maker.uid].trade_group_id)


def prevent(state: State, market: MarketState, taker: Order, maker: Order, wanted: int) -> None:
    """The taker, who wants a quantity, meets a kindred maker: there is no trade, by the taker's mode."""
    mode = taker.stp
    if mode is StpMode.TRANSFER and maker.stp is not StpMode.TRANSFER:
        mode = StpMode.DECREMENT
    quantity = min(wanted, maker.shown)
    shared = quantity if mode in _BOTH_SHRINK else 0
    match = PreventedMatch(
        match_id=market.next_prevented_id,
        symbol=taker.symbol,
        price=maker.price,
        quantity=quantity,
        mode=mode,
        taker_uid=taker.uid,
        taker_order_id=taker.order_id,
        taker_quantity=taker.remaining if mode in _TAKER_ENDS else shared,
        maker_uid=maker.uid,
        maker_order_id=maker.order_id,
        maker_quantity=maker.remaining if mode in _MAKER_ENDS else shared,
        trade_group_id=state.accounts[taker.uid].trade_group_id,
        time=state.now,
    )
    market.next_prevented_id += 1
    state.prevented.append(match)
    state.changes.prevented.append(match)
    if match.maker_quantity:
        _lose(state, market, maker, match, match.maker_quantity)
    if match.taker_quantity:
        _lose(state, market, taker, match, match.taker_quantity)


def _lose(state: State, market: MarketState, order: Order, match: PreventedMatch, quantity: int) -> None:
    """Take the prevented quantity off an order, which ends when nothing is left of it."""
    order.prevented += quantity
    order.prevented_match_id = match.match_id
    order.update_time = state.now
    if order.order_id == match.maker_order_id:
        shrink(state, market, order, quantity)
    if not order.remaining:
        order.status = OrderStatus.EXPIRED_IN_MATCH
    relock(state, market, order)
    if match.mode is StpMode.TRANSFER and match.taker_uid != match.maker_uid:
        _hand_over(state, market, order, match)
    state.report(order, "TRADE_PREVENTION", prevented=match)
    if not order.remaining:
        finish(state, market, order)


def _hand_over(state: State, market: MarketState, order: Order, match: PreventedMatch) -> None:
    """One side of a transfer: quantity and notional change hands as in a trade, without commission."""
    account = state.accounts[order.uid]
    sign = 1 if order.side is Side.BUY else -1
    account.balance(market.rules.base).free += sign * match.quantity
    account.balance(market.rules.quote).free -= sign * product(match.price, match.quantity)
