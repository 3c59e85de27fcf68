"""A single order: what refuses it beside the filters, and how it is placed."""

from __future__ import annotations

from paper_exchange.core.account_filters import check_may_trade
from paper_exchange.core.checks import check_entry, check_funds, market_quantity
from paper_exchange.core.entering import accept, create
from paper_exchange.core.market import MarketState
from paper_exchange.core.reports import Json
from paper_exchange.core.requests import NewOrder
from paper_exchange.core.state import State


def check_order(state: State, market: MarketState, uid: int, request: NewOrder) -> int:
    """Refuse an order that passed the filters, or tell its quantity."""
    check_may_trade(state.accounts[uid], market)
    check_entry(state, market, uid, (request,))
    quantity = market_quantity(state, market, uid, request)
    check_funds(state, market, uid, (request,), quantity)
    return quantity


def place_order(state: State, market: MarketState, uid: int, request: NewOrder, response: str) -> Json:
    """Place an order that passed the filters; `response` is ACK, RESULT, FULL or empty for the default of its type."""
    quantity = check_order(state, market, uid, request)
    order = create(state, market, uid, request, quantity)
    accept(state, market, order)
    return state.answer(order, response)
