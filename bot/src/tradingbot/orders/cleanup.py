"""Order cleanup: which open orders are stale, orphaned or somebody else's; pure.

Never the protection of an open position, whatever its age. Orders of others are reported and not touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from tradingbot.model import OrderReport, Side
from tradingbot.orders.protection import stopping_orders
from tradingbot.orders.types import TrackedOrder
from tradingbot.recovery.fence import Purpose, parse


@dataclass(frozen=True, slots=True)
class StaleOrder:
    """An order of ours to cancel, and why."""

    order: TrackedOrder
    reason: str


def stale_orders(
    orders: Iterable[TrackedOrder], *, flat: bool, position: Decimal, now_ms: int, entry_seconds: int
) -> list[StaleOrder]:
    """Open orders of ours that serve nothing: announcements, entries that are older, and sales while nothing is held.

    `flat` and `position`, in base, must come from books that agree with the exchange. A sale of no more than the
    position is kept, as changed filters may call that too little to be sold, and so are legs whose entry still works;
    but not the rest of one that ended its stop, as no entry is sent while it is open.
    """
    known = list(orders)
    open_orders = [order for order in known if order.is_open]
    stopping = {order.group for order in stopping_orders(known)}
    entries = {order.order_list_id for order in open_orders if order.side is Side.BUY}
    stale = []
    for order in open_orders:
        if order.side is Side.BUY:
            if order.purpose == Purpose.ANNOUNCE:
                stale.append(StaleOrder(order, "announcement that was not canceled"))
            elif now_ms - order.created_ms > entry_seconds * 1000:
                stale.append(StaleOrder(order, f"entry older than {entry_seconds} s"))
        elif flat and order.quantity - order.executed_quantity > position and order.order_list_id not in entries:
            stale.append(StaleOrder(order, "protects a position that is no longer held"))
        elif flat and order.executed_quantity > 0 and order.group not in stopping:
            stale.append(StaleOrder(order, "what it has not sold is too little to be sold"))
    return stale


def entry_of(leg: TrackedOrder) -> str | None:
    """Client id that the entry of a protecting order has, if one made it: they share a sequence number."""
    client_id = parse(leg.client_order_id)
    if client_id is None or client_id.purpose not in {Purpose.STOP_LOSS, Purpose.TAKE_PROFIT}:
        return None
    return str(replace(client_id, purpose=Purpose.ENTRY))


def foreign_orders(reports: Iterable[OrderReport], key: str) -> list[OrderReport]:
    """Open orders on the symbol that are not this bot's."""
    foreign = []
    for report in reports:
        client_id = parse(report.client_order_id)
        if client_id is None or client_id.key != key:
            foreign.append(report)
    return foreign
