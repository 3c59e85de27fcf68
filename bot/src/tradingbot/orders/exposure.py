"""What a bot has bought or may be buying, at cost: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from tradingbot.model import Side
from tradingbot.orders.intents import Intent, IntentKind
from tradingbot.orders.types import TrackedOrder
from tradingbot.recovery.fence import Purpose
from tradingbot.state.ledger import LedgerState


@dataclass(frozen=True, slots=True)
class Exposure:
    """At cost, in quote: an order may cost what its limit allows. What only dust is worth is no position."""

    value: Decimal
    in_position: bool


def measure_exposure(
    books: LedgerState,
    intents: Iterable[Intent],
    known: Iterable[str],
    orders: Iterable[tuple[TrackedOrder, Decimal]],
) -> Exposure:
    """Of the position, of entries without a known outcome, and of orders whose executions are not all in the books.

    `intents` are the open ones; of those whose entry is `known`, by client id, the order is counted instead. `orders`
    are open or not all in the books, with how much of each is. The order that shows a process start is not counted
    until it is executed: it lies far below the market.
    """
    known = set(known)
    entering = sum(
        (
            Decimal(intent.quantity) * Decimal(intent.price)
            for intent in intents
            if intent.kind is IntentKind.ENTRY and intent.client_ids[0] not in known
        ),
        Decimal(0),
    )
    for order, booked in orders:
        if order.side is not Side.BUY:
            continue
        working = order.is_open and order.purpose == Purpose.ENTRY
        left = (order.quantity if working else order.executed_quantity) - booked
        entering += max(Decimal(0), left) * order.price
    return Exposure(books.cost + entering, entering > 0 or not books.flat)
