"""The order tracker: what is known of every order of this bot, from whichever answer or event came last."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from tradingbot.model import NO_LIST, OrderReport, OrderStatus
from tradingbot.orders.types import Trace, TrackedOrder

_RANK = {
    OrderStatus.PENDING_NEW: 0,
    OrderStatus.NEW: 1,
    OrderStatus.PARTIALLY_FILLED: 2,
    OrderStatus.PENDING_CANCEL: 2,
}
_FINAL = 3
HOUR_MS = 3_600_000
NO_TRACE = Trace()
MOST_DONE: Final = 500
"""So many orders that are done are remembered: each event and each tick walks through them."""


class OrderTracker:
    """Every order of this bot by client id. Answers and events may come late and twice: an order never goes back."""

    def __init__(self) -> None:
        self._orders: dict[str, TrackedOrder] = {}

    def __iter__(self) -> Iterator[TrackedOrder]:
        return iter(self._orders.values())

    @property
    def active_orders(self) -> tuple[TrackedOrder, ...]:
        """Open orders, oldest first."""
        active = (order for order in self._orders.values() if order.is_open)
        return tuple(sorted(active, key=lambda order: (order.created_ms, order.order_id or 0)))

    @property
    def oco_orders(self) -> dict[int, tuple[TrackedOrder, ...]]:
        """Open orders that belong to a list, by order list id."""
        lists: dict[int, tuple[TrackedOrder, ...]] = {}
        for order in self.active_orders:
            if order.order_list_id != NO_LIST:
                lists[order.order_list_id] = (*lists.get(order.order_list_id, ()), order)
        return lists

    def add_order(self, order: TrackedOrder) -> None:
        """Take an order as it was recorded."""
        self._orders[order.client_order_id] = order

    def remove_order(self, client_order_id: str) -> None:
        """Forget an order; open orders cannot be forgotten."""
        order = self._orders.get(client_order_id)
        if order is not None and order.is_open:
            raise ValueError(f"order {client_order_id} is open: it can only be forgotten when it is done")
        self._orders.pop(client_order_id, None)

    def get(self, client_order_id: str) -> TrackedOrder | None:
        """The order, or None."""
        return self._orders.get(client_order_id)

    def get_order_status(self, client_order_id: str) -> OrderStatus | None:
        """Status of an order; None where it is not known."""
        order = self._orders.get(client_order_id)
        return None if order is None else order.status

    def absorb(
        self, report: OrderReport, purpose: str, trace: Trace = NO_TRACE
    ) -> tuple[TrackedOrder | None, TrackedOrder]:
        """Merge what the exchange said; returns the order before (None: new, of that `trace`) and after."""
        before = self._orders.get(report.client_order_id)
        if before is None:
            after = TrackedOrder(
                client_order_id=report.client_order_id,
                order_id=report.order_id,
                order_list_id=report.order_list_id,
                purpose=purpose,
                side=report.side,
                type=report.type,
                status=report.status,
                quantity=report.quantity,
                executed_quantity=report.executed_quantity,
                price=report.price,
                stop_price=report.stop_price,
                created_ms=report.time_ms,
                updated_ms=report.time_ms,
                related_position=trace.position,
                signal_id=trace.signal_id,
                expiry_reason=report.expiry_reason or "",
                working=report.working,
            )
        else:
            newer = (_rank(report.status), report.executed_quantity) > (_rank(before.status), before.executed_quantity)
            after = replace(
                before,
                status=report.status if newer else before.status,
                quantity=min(before.quantity, report.quantity),  # an order can be made smaller, and never larger
                executed_quantity=max(before.executed_quantity, report.executed_quantity),
                updated_ms=max(before.updated_ms, report.time_ms) if newer else before.updated_ms,
                expiry_reason=report.expiry_reason or before.expiry_reason,
                working=before.working or report.working,
            )
        self._orders[report.client_order_id] = after
        return before, after

    def note_trade(self, client_order_id: str, trade_id: int) -> TrackedOrder | None:
        """Remember that a trade of the order is in the books; None where it was remembered already."""
        order = self._orders[client_order_id]
        if trade_id in order.trade_ids:
            return None
        self._orders[client_order_id] = after = replace(order, trade_ids=(*order.trade_ids, trade_id))
        return after

    def cleanup_old_orders(self, now_ms: int, max_age_hours: int = 24, keep: Collection[str] = ()) -> list[str]:
        """Forget orders that have been done for that long, or beyond the newest MOST_DONE; returns their client ids.

        Open ones and `keep` stay.
        """
        limit = now_ms - max_age_hours * HOUR_MS
        done = [order for order in self._orders.values() if not order.is_open and order.client_order_id not in keep]
        done.sort(key=lambda order: (order.created_ms, order.client_order_id), reverse=True)
        old = [order.client_order_id for n, order in enumerate(done) if order.updated_ms < limit or n >= MOST_DONE]
        for client_order_id in old:
            del self._orders[client_order_id]
        return old


def _rank(status: OrderStatus) -> int:
    return _RANK.get(status, _FINAL)
