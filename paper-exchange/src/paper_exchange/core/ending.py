"""How an order ends without a (further) fill, and what its end means for the list it is in."""

from __future__ import annotations

from paper_exchange.core import reports
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, OrderStatus
from paper_exchange.core.money import release_kept, relock
from paper_exchange.core.reports import Json
from paper_exchange.core.resting import leave
from paper_exchange.core.state import State, generated_id


def end(state: State, market: MarketState, order: Order, status: OrderStatus, reason: str | None = None) -> None:
    """The order is over without a (further) fill."""
    leave(market, order)
    order.status = status
    order.expiry_reason = reason
    order.update_time = state.now
    state.report(order, "CANCELED" if status is OrderStatus.CANCELED else "EXPIRED")
    finish(state, market, order)


def finish(state: State, market: MarketState, order: Order) -> None:
    """After the end of an order: release its money and move on with its list."""
    state.opened[(order.uid, order.symbol)].pop(order.order_id, None)
    relock(state, market, order)
    if order.list_id < 0:
        return
    group = state.lists[order.list_id]
    others = [one for one in state.members(group) if one.open]
    if group.kept and order.order_id == group.working_id and order.status is not OrderStatus.FILLED:
        release_kept(state, market, group)
    if order.order_id == group.working_id and others:
        if order.status is OrderStatus.FILLED:
            market.todo.append(("activate", group.list_id))
            return
        for pending in others:
            end(state, market, pending, OrderStatus.EXPIRED, "OTO_PHASE_ONE_EXPIRED")
        return
    if (
        order.status in (OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH)
        and order.expiry_reason not in ("OCO_TRIGGER", "OTO_PHASE_ONE_EXPIRED", "REJECTED")
        and others
    ):
        for other in others:
            end(state, market, other, OrderStatus.EXPIRED, "OCO_TRIGGER")
        return
    if not others and not group.done:
        group.done = True
        state.report_list(group)


def expire_sibling(state: State, market: MarketState, order: Order) -> None:
    """One of a pair became active: the other expires."""
    sibling = state.orders.get(order.sibling)
    if sibling is not None and sibling.open:
        end(state, market, sibling, OrderStatus.EXPIRED, "OCO_TRIGGER")


def cancel_order(state: State, market: MarketState, order: Order, new_client_order_id: str | None) -> Json:
    """Cancel an order or the whole list it is in; the answer has the shape of what was cancelled."""
    ident = new_client_order_id or generated_id("cancel", state.next_execution_id)
    if order.list_id < 0:
        order.cancel_client_id = ident
        end(state, market, order, OrderStatus.CANCELED)
        return reports.canceled(order)
    group = state.lists[order.list_id]
    canceled = [one for one in state.members(group) if one.open]
    for one in canceled:
        # All are marked before any is told: the end of one must not expire the others.
        leave(market, one)
        one.cancel_client_id = ident
        one.status = OrderStatus.CANCELED
        one.update_time = state.now
    for one in canceled:
        state.report(one, "CANCELED")
    for one in canceled:
        finish(state, market, one)
    return state.list_body(group, state.now) | {"orderReports": [reports.canceled(one) for one in canceled]}
