"""Watches whether the open position is protected, and since when it is not."""

from __future__ import annotations

from dataclasses import replace

from tradingbot.model import Side
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.protection import UnprotectedTime, judge_protection, stopping_orders
from tradingbot.orders.types import OrdersEventKind, ProtectionState, ProtectionStatus, TrackedOrder


class ProtectionWatch(OrderPart):
    """Judges protection after each change; `suspected` is the monotonic time of a loss that is not certain yet."""

    def __init__(self, ctx: OrderContext, known: KnownOrders, fills: OwnFills, *, unprotected: UnprotectedTime) -> None:
        super().__init__(ctx)
        self._known = known
        self._fills = fills
        self.status = ProtectionStatus(ProtectionState.FLAT)
        self.suspected: float | None = None
        self._unprotected = unprotected
        self.refused = ""
        """Why the exchange refused the last sale or protection."""

    @property
    def naked(self) -> bool:
        """Whether a position is without protection, or may be after an answer was lost."""
        return self.status.state is ProtectionState.UNPROTECTED or (self._known.doubt and self._fills.held > 0)

    def useless(self) -> list[TrackedOrder]:
        """Orders to sell that no stop belongs to: they hold base that has to be protected."""
        stopping = self.stopping()
        return self._known.open(lambda order: order.side is Side.SELL and order.group not in stopping)

    def stopping(self) -> set[int | str]:
        """What of the open orders protects, as `TrackedOrder.group` calls it."""
        return {order.group for order in stopping_orders(self._tracker)}

    def update(self, *, certain: bool = True) -> None:
        """Judge anew. Between the events of one execution (a leg expires, the other fills) a loss is only suspected:
        it is told by the next certain judgement, and counts from when the exchange took the protection off.
        """
        state, message = judge_protection(self._ctx.rules, self._fills.books, self._tracker, self._fills.unbooked())
        before, now = self.status, self._monotonic()
        message = f"{message}; refused: {self.refused}" if message and self.refused else message
        if state is not ProtectionState.UNPROTECTED:
            self.suspected = None
            self._unprotected.end(now)
            self.status = ProtectionStatus(state, message)
            if before.since is not None and state is ProtectionState.PROTECTED:
                self._ctx.tell(OrdersEventKind.PROTECTION_RESTORED, message, self._fills.books.quantity)
            return
        if before.since is not None:
            self.status = replace(before, message=message)
            return
        self.suspected = self._last_change() if self.suspected is None else self.suspected
        if certain:
            self.status = ProtectionStatus(state, message, self._unprotected.begin(self.suspected))
            self.suspected = None
            self._ctx.tell(OrdersEventKind.PROTECTION_LOST, message, self._fills.books.quantity)

    def _last_change(self) -> float:
        """Monotonic time at which an own order changed last: it may be told late, as by a user stream that is dead."""
        now_ms = self._exchange.exchange_ms()
        changed_ms = max((order.updated_ms for order in self._tracker), default=now_ms)
        return self._monotonic() - max(0, now_ms - changed_ms) / 1000
