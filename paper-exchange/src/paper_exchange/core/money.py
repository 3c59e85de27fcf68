"""What open orders lock of the balances of their accounts."""

from __future__ import annotations

from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderList, Side
from paper_exchange.core.state import State
from paper_exchange.core.units import product


def lock_of(order: Order) -> int:
    """What one order needs kept aside of the asset it pays with."""
    if not order.live:
        return 0
    if order.side is Side.SELL:
        return order.remaining if order.type.priced or order.untriggered else 0
    # A trailing stop at market without a stop price has no price to keep money aside by.
    return product(order.price or order.stop_price, order.remaining) if order.type.priced or order.untriggered else 0


def _need(state: State, order: Order) -> tuple[int, int]:
    """Under which id an order's money is kept aside, and how much: a pair needs the larger of its two once."""
    sibling = state.orders.get(order.sibling)
    if sibling is None:
        return order.order_id, lock_of(order)
    return min(order.order_id, order.sibling), max(lock_of(order), lock_of(sibling))


def relock(state: State, market: MarketState, order: Order) -> None:
    """Bring the locked balance in step with an order."""
    key, needed = _need(state, order)
    delta = needed - state.locks.get(key, 0)
    if needed:
        state.locks[key] = needed
    else:
        state.locks.pop(key, None)
    rules = market.rules
    balance = state.accounts[order.uid].balance(rules.base if order.side is Side.SELL else rules.quote)
    balance.free -= delta
    balance.locked += delta
    state.touch(order.uid, rules.base)
    state.touch(order.uid, rules.quote)


def keep_for_pending(state: State, market: MarketState, order: Order, received: int, net: int) -> None:
    """One pays the other: what the working order received is locked for its pending orders.

    The commission, by which `net` is less, comes out of the free balance where there is enough of it and the asset
    is not BNB (Binance's FAQ on OPO).
    """
    group = state.lists.get(order.list_id)
    if group is None or not group.pays or order.order_id != group.working_id:
        return
    asset = market.rules.base
    covered = asset != "BNB" and state.accounts[order.uid].balance(asset).free >= received
    _move_kept(state, market, group, received if covered else net)


def release_kept(state: State, market: MarketState, group: OrderList) -> int:
    """The pending orders begin, or never will: what was locked for them is free again. Returns the amount."""
    kept = group.kept
    _move_kept(state, market, group, -kept)
    return kept


def _move_kept(state: State, market: MarketState, group: OrderList, amount: int) -> None:
    balance = state.accounts[group.uid].balance(market.rules.base)
    balance.free -= amount
    balance.locked += amount
    group.kept += amount
    state.changes.lists[group.list_id] = group
    state.touch(group.uid, market.rules.base)


def restore_lock(state: State, order: Order) -> None:
    """After a restart: what the stored balances keep aside for an order."""
    key, needed = _need(state, order)
    state.locks[key] = needed
