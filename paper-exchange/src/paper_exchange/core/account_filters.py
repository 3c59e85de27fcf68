"""Filters that look at the account: how much it has open, how much it would hold, and what it may trade at all.

The engine checks them, so they are refused as it refuses (-2010).
"""

from __future__ import annotations

from collections.abc import Sequence

from paper_exchange.core.errors import ExchangeError, filter_failure
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Account, Order, OrderType, Side
from paper_exchange.core.requests import NewOrder
from paper_exchange.core.state import State
from paper_exchange.core.symbols import ExchangeRules, SymbolRules
from paper_exchange.core.units import product

MARKET_CLOSED = "Market is closed."
MAY_NOT_TRADE = "This account may not place or cancel orders."
NOT_PERMITTED = "This symbol is not permitted for this account."


def check_may_trade(account: Account, market: MarketState, code: int = -2010) -> None:
    """Refuse to place or amend with the code for it, unless the symbol trades and the account may trade it."""
    if not account.can_trade:
        raise ExchangeError(code, MAY_NOT_TRADE)
    if market.status != "TRADING":
        raise ExchangeError(code, MARKET_CLOSED)
    if not all(any(group in account.permissions for group in groups) for groups in market.rules.permission_sets):
        raise ExchangeError(code, NOT_PERMITTED)


def check_may_cancel(account: Account, market: MarketState) -> None:
    """-2011 unless the symbol takes cancels, and the account may send them."""
    if not account.can_trade:
        raise ExchangeError(-2011, MAY_NOT_TRADE)
    if market.status not in ("TRADING", "CANCEL_ONLY"):
        raise ExchangeError(-2011, MARKET_CLOSED)


def check_counts(state: State, market: MarketState, uid: int, requests: Sequence[NewOrder]) -> None:
    """MAX_NUM_* of the symbol and EXCHANGE_MAX_NUM_* of all symbols, for orders that are to be open together."""
    if all(request.type is OrderType.MARKET for request in requests):
        return
    rules, exchange = market.rules, state.rules
    here = state.opened.get((uid, rules.symbol), {}).values()
    _check_open(list(here), requests, rules, "")
    if exchange.filters():
        _check_open(state.open_orders(uid), requests, exchange, "EXCHANGE_")


def _check_open(
    mine: list[Order], requests: Sequence[NewOrder], rules: SymbolRules | ExchangeRules, scope: str
) -> None:
    """A limit of 0 is none."""
    orders, algos, icebergs = rules.max_orders, rules.max_algo_orders, rules.max_iceberg_orders
    if orders and len(mine) + len(requests) > orders:
        raise filter_failure(f"{scope}MAX_NUM_ORDERS", engine=True)
    more = sum(request.type.conditional for request in requests)
    if algos and more and more + sum(one.untriggered for one in mine) > algos:
        raise filter_failure(f"{scope}MAX_NUM_ALGO_ORDERS", engine=True)
    more = sum(request.iceberg_quantity > 0 for request in requests)
    if icebergs and more and more + sum(one.iceberg_quantity > 0 for one in mine) > icebergs:
        raise filter_failure(f"{scope}MAX_NUM_ICEBERG_ORDERS", engine=True)


def check_list_counts(state: State, market: MarketState, uid: int) -> None:
    """MAX_NUM_ORDER_LISTS of the symbol and EXCHANGE_MAX_NUM_ORDER_LISTS of all symbols, for one more list."""
    here = {one.list_id for one in state.opened.get((uid, market.rules.symbol), {}).values()} - {-1}
    if len(here) >= market.rules.max_lists:
        raise filter_failure("MAX_NUM_ORDER_LISTS", engine=True)
    if state.rules.max_lists:
        everywhere = {one.list_id for one in state.open_orders(uid)} - {-1}
        if len(everywhere) >= state.rules.max_lists:
            raise filter_failure("EXCHANGE_MAX_NUM_ORDER_LISTS", engine=True)


def check_position(state: State, market: MarketState, uid: int, requests: Sequence[NewOrder]) -> None:
    """MAX_POSITION: what is held of the base asset, all that open orders buy, and what these would buy."""
    limit = market.rules.max_position
    bought = sum(request.quantity for request in requests if request.side is Side.BUY)
    if not limit or not bought:
        return
    held = state.accounts[uid].balance(market.rules.base)
    mine = state.opened.get((uid, market.rules.symbol), {}).values()
    buying = sum(one.remaining for one in mine if one.side is Side.BUY)
    if held.free + held.locked + buying + bought > limit:
        raise filter_failure("MAX_POSITION", engine=True)


def check_assets(account: Account, market: MarketState, request: NewOrder, reference: int) -> None:
    """MAX_ASSET: the most of an asset that one order may move, as quantity of base or notional of quote."""
    rules = market.rules
    notional = request.quote_quantity or product(request.price or request.stop_price or reference, request.quantity)
    for asset, moved in ((rules.base, request.quantity), (rules.quote, notional)):
        limit = account.max_assets.get(asset)
        if limit is not None and moved > limit:
            raise filter_failure("MAX_ASSET")
