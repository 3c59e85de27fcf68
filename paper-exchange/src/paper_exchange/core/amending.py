"""Reducing the quantity of an open order, which keeps its number and its place in the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from paper_exchange.core import reports
from paper_exchange.core.account_filters import check_may_trade
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.filters import check_quantity
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Amendment, Order, OrderStatus
from paper_exchange.core.money import relock
from paper_exchange.core.reports import Json
from paper_exchange.core.requests import AmendTarget
from paper_exchange.core.state import State, generated_id

_REJECTED: Final = -2038


def amend(state: State, market: MarketState, uid: int, target: AmendTarget) -> Json:
    """Reduce an order, and the other of its pair with it, or refuse with -2038; a filter refuses with -1013."""
    check_may_trade(state.accounts[uid], market, _REJECTED)
    order = state.find(uid, market.rules.symbol, target.order_id, target.client_order_id)
    if order is None or not order.open or target.client_order_id not in (None, order.client_order_id):
        raise _refused("Unknown order sent.")
    check_quantity(market.rules, replace(order, quantity=target.quantity), market.yardstick(state.now))
    ident = target.new_client_order_id or generated_id("amend", state.next_execution_id)
    _check(state, market, order, target.quantity, ident)
    renamed = ident != order.client_order_id
    _reduce(state, market, order, target.quantity, ident)
    sibling = state.orders.get(order.sibling)
    if sibling is not None and sibling.open:
        _reduce(state, market, sibling, target.quantity, sibling.client_order_id)
    group = state.lists.get(order.list_id)
    if group is not None and renamed:
        state.report_list(group, updated=True)
    return reports.amended(order, group, state.members(group) if group is not None else ())


def _check(state: State, market: MarketState, order: Order, quantity: int, ident: str) -> None:
    """What the engine refuses."""
    group = state.lists.get(order.list_id)
    if group is not None and group.pays and order.status is OrderStatus.PENDING_NEW:
        raise _refused("Order amend (pending OPO order) is not supported.")
    if quantity > order.quantity:
        raise _refused("Order amend (quantity increase) is not supported.")
    if quantity == order.quantity:
        raise _refused("The requested action would change no state; rejecting.")
    if quantity <= order.executed + order.prevented:
        # Nothing of the order would be left; which text Binance has for that is not documented.
        raise _refused("Price * QTY is zero or less.")
    if len(order.amendments) >= market.rules.max_amends:
        raise _refused("Filter failure: MAX_NUM_ORDER_AMENDS")
    same = state.by_client.get((order.uid, order.symbol, ident), order.order_id)
    if same != order.order_id and state.orders[same].open:
        raise _refused("Duplicate order sent.")


def _refused(message: str) -> ExchangeError:
    return ExchangeError(_REJECTED, message)


def _reduce(state: State, market: MarketState, order: Order, quantity: int, ident: str) -> None:
    old_ident = order.client_order_id
    order.amendments.append(Amendment(state.next_execution_id, old_ident, ident, order.quantity, quantity, state.now))
    order.quantity = quantity
    order.update_time = state.now
    state.rename(order, ident)
    ladder = market.ladder(order.side)
    if order in ladder.own.get(order.price, ()):
        ladder.changed(order)
    relock(state, market, order)
    state.report(order, "REPLACED", replaced=old_ident)
