"""Whether the open position is protected: pure, from the books and the open orders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tradingbot.gateway import filters
from tradingbot.model import NO_LIST, OrderStatus, OrderType, Side, SymbolRules
from tradingbot.orders.types import ProtectionState, TrackedOrder
from tradingbot.state.ledger import LedgerState
from tradingbot_api.base import canonical


@dataclass(frozen=True, slots=True)
class Unbooked:
    """What own orders executed whose trades could not be read yet: base (less if sold), and a price for it."""

    quantity: Decimal = Decimal(0)
    price: Decimal = Decimal(0)


NOTHING_UNBOOKED: Final = Unbooked()


class UnprotectedTime:
    """How long positions were without protection, over all connections of a process; in monotonic seconds."""

    def __init__(self, started: float) -> None:
        self.started = started
        """What was lost before is not this process's to count."""
        self.since: float | None = None
        self._past = 0.0

    def begin(self, at: float) -> float:
        """A position lost its protection then, unless it was without it already; returns since when it is."""
        if self.since is None:
            self.since = max(self.started, at)
        return self.since

    def end(self, now: float) -> None:
        """It is protected, or sold."""
        self._past, self.since = self.seconds(now), None

    def seconds(self, now: float) -> float:
        """The sum up to `now`."""
        return self._past + (0.0 if self.since is None else now - self.since)


def held_quantity(rules: SymbolRules, books: LedgerState, unbooked: Unbooked = NOTHING_UNBOOKED) -> Decimal:
    """What of the position can be sold: whole steps, and worth at least the least notional at its own cost."""
    held = filters.floor_quantity(rules, books.quantity + unbooked.quantity)
    return held if filters.sellable(rules, held, books.average_price or unbooked.price) else Decimal(0)


def stopping_orders(orders: Iterable[TrackedOrder]) -> list[TrackedOrder]:
    """Open orders that sell if the price falls.

    A triggered STOP_LOSS_LIMIT (it works, or its take-profit is gone) does not count: the price may have gapped through
    its limit.
    """
    known = list(orders)
    targets = {o.order_list_id: o for o in known if o.type is OrderType.LIMIT_MAKER and o.order_list_id != NO_LIST}
    stopping = []
    for order in known:
        if not (order.is_open and order.side is Side.SELL and order.type.is_stop):
            continue
        target = targets.get(order.order_list_id)
        triggered = order.working or (target is not None and not target.is_open)
        if order.type is OrderType.STOP_LOSS_LIMIT and triggered:
            continue
        if order.status is OrderStatus.PENDING_NEW and not _entry_filled(order, known):
            continue
        stopping.append(order)
    return stopping


def stopped_quantity(orders: Iterable[TrackedOrder]) -> Decimal:
    """Base that a stop sells if the price falls."""
    return _rest(stopping_orders(orders))


def _rest(orders: list[TrackedOrder]) -> Decimal:
    """What the orders have not executed yet."""
    return sum((order.quantity - order.executed_quantity for order in orders), Decimal(0))


def _entry_filled(leg: TrackedOrder, orders: list[TrackedOrder]) -> bool:
    """A pending leg protects as soon as its entry is filled: the exchange activates it by itself."""
    return any(
        order.order_list_id == leg.order_list_id and order.side is Side.BUY and order.status is OrderStatus.FILLED
        for order in orders
    )


def judge_protection(
    rules: SymbolRules, books: LedgerState, orders: Iterable[TrackedOrder], unbooked: Unbooked = NOTHING_UNBOOKED
) -> tuple[ProtectionState, str]:
    """The state and what is wrong with it. A rest that could not be sold alone at the stop is nothing to protect."""
    held = held_quantity(rules, books, unbooked)
    if held == 0:
        dust = books.quantity
        return ProtectionState.FLAT, f"{canonical(dust)} {books.base_asset} is too little to be sold" if dust else ""
    stops = stopping_orders(orders)
    stopped = _rest(stops)
    limited = OrderType.STOP_LOSS_LIMIT
    lowest = [order.price if order.type is limited else order.stop_price for order in stops]
    price = min([books.average_price or unbooked.price, *lowest])
    if not filters.sellable(rules, held - stopped, price):
        return ProtectionState.PROTECTED, ""
    return (
        ProtectionState.UNPROTECTED,
        f"{canonical(held)} {books.base_asset} held, {canonical(stopped)} of it has a stop",
    )
