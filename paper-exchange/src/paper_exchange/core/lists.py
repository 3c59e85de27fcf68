"""Order lists: what refuses one, how it begins, and how its pending orders come to life."""

from __future__ import annotations

from itertools import pairwise

from paper_exchange.core.account_filters import check_list_counts, check_may_trade
from paper_exchange.core.checks import crosses
from paper_exchange.core.ending import end
from paper_exchange.core.entering import accept, create
from paper_exchange.core.errors import BAD_OCO_PRICES, ExchangeError, rejected
from paper_exchange.core.filters import check_static, would_trigger
from paper_exchange.core.list_requests import NewOrderList
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderList, OrderStatus, OrderType, Side
from paper_exchange.core.money import release_kept
from paper_exchange.core.reports import Json
from paper_exchange.core.state import State, generated_id
from paper_exchange.core.units import product


def check_list(state: State, market: MarketState, uid: int, request: NewOrderList) -> None:
    """What concerns a list as a whole: who may trade, its id, its number and the relation of the prices of a pair."""
    check_may_trade(state.accounts[uid], market)
    same = state.list_by_client.get((uid, request.client_list_id or ""))
    if same is not None and not state.lists[same].done:
        raise rejected("Duplicate order sent.")
    check_list_counts(state, market, uid)
    if len(request.legs) != 2:
        return
    stop, profit = request.legs
    # A leg that only trails the price has no price to compare: 0.
    stop_at, profit_at = stop.stop_price, profit.price or profit.stop_price
    low, high = (stop_at, profit_at) if stop.side is Side.SELL else (profit_at, stop_at)
    prices = [low, high] if request.working or market.last is None else [low, market.last, high]
    known = [price for price in prices if price]
    if any(lower >= higher for lower, higher in pairwise(known)):
        raise rejected(BAD_OCO_PRICES)


def create_list(state: State, market: MarketState, uid: int, request: NewOrderList, response: str) -> Json:
    """Place what `check_list` accepted; the answer shows the orders before pending ones come to life."""
    list_id = state.next_list_id
    state.next_list_id += 1
    working = None
    if request.working:
        working = create(state, market, uid, request.working, request.working.quantity, list_id=list_id)
    legs = [create(state, market, uid, leg, leg.quantity, list_id=list_id) for leg in request.legs]
    if len(legs) == 2:
        legs[0].sibling, legs[1].sibling = legs[1].order_id, legs[0].order_id
    members = [working, *legs] if working else legs
    group = OrderList(
        list_id=list_id,
        uid=uid,
        symbol=market.rules.symbol,
        client_list_id=request.client_list_id or generated_id("list", list_id),
        contingency=request.contingency,
        order_ids=[one.order_id for one in members],
        working_id=working.order_id if working else 0,
        time=state.now,
        pays=request.pays,
    )
    state.lists[list_id] = group
    state.list_by_client[(uid, group.client_list_id)] = list_id
    if working is None:
        for leg in legs:
            accept(state, market, leg)
        state.report_list(group)
    else:
        for leg in legs:
            leg.status = OrderStatus.PENDING_NEW
            state.report(leg, "NEW")
        state.report_list(group)
        accept(state, market, working)
    return state.list_body(group) | {"orderReports": [state.answer(one, response or "RESULT") for one in members]}


def activate(state: State, market: MarketState, group: OrderList) -> None:
    """The working order is filled: its pending orders are accepted, or expire as rejected."""
    pending = [one for one in state.members(group) if one.status is OrderStatus.PENDING_NEW]
    refused = group.pays and not _size(state, market, group, pending)
    account = state.accounts[group.uid]
    first = pending[0]
    selling = first.side is Side.SELL
    asset = market.rules.base if selling else market.rules.quote
    needed = max(one.quantity if selling else product(one.price or one.stop_price, one.quantity) for one in pending)
    refused = refused or account.balance(asset).free < needed
    for one in pending:
        if one.type.conditional and market.last is not None:
            refused = refused or would_trigger(one.type, one.side, one.stop_price, market.last)
        if one.type is OrderType.LIMIT_MAKER:
            refused = refused or crosses(market, one.side, one.price)
    for one in pending:
        if refused:
            end(state, market, one, OrderStatus.EXPIRED, "REJECTED")
        else:
            accept(state, market, one)


def _size(state: State, market: MarketState, group: OrderList, pending: list[Order]) -> bool:
    """Give the pending orders the quantity that the working order received, in whole lots; False where it fits none."""
    received = release_kept(state, market, group)
    rules = market.rules
    most = min(rules.max_market_quantity if one.type is OrderType.MARKET else rules.max_quantity for one in pending)
    quantity = min(received // rules.step * rules.step, most)
    for one in pending:
        one.quantity = quantity
    try:
        for one in pending:
            check_static(rules, one, market.yardstick(state.now))
    except ExchangeError:
        return False
    return True
