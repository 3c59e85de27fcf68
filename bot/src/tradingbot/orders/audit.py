"""The audit log: what was decided about an order and what became of it, under the id of the signal it goes back to.

Lines of the JSON log with `logger` = `tradingbot.audit`; docs/audit-log.md has their fields.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from tradingbot.clocks import from_ms
from tradingbot.model import OrderReport
from tradingbot.orders.intents import Intent, IntentKind
from tradingbot.orders.types import Trace, TrackedOrder
from tradingbot.recovery.fence import Purpose, parse
from tradingbot.state.ledger import BookedFill, Trade
from tradingbot_api.base import canonical

LOGGER: Final = "tradingbot.audit"
P = ParamSpec("P")
T = TypeVar("T")


def because(reason: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """What the method sends, it sends for that reason."""

    def decorate(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(method)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with bound_contextvars(reason=reason):
                return await method(*args, **kwargs)

        return run

    return decorate


def for_its_reason(
    method: Callable[Concatenate[Any, str, P], Awaitable[T]],
) -> Callable[Concatenate[Any, str, P], Awaitable[T]]:
    """What the method sends, it sends for the reason that is its first argument."""

    @wraps(method)
    async def run(self: Any, reason: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with bound_contextvars(reason=reason):
            return await method(self, reason, *args, **kwargs)

    return run


class AuditLog:
    """Writes the lines of one bot. A trace lasts from an entry's signal to the next one's: there is one position."""

    def __init__(self, symbol: str) -> None:
        self._log = structlog.get_logger(LOGGER).bind(logger=LOGGER, symbol=symbol)
        self.trace = Trace()
        self._figures: Mapping[str, str] = {}
        self._newest = (0, 0)

    def begin(self, signal_id: str, figures: Mapping[str, str]) -> None:
        """An entry is about to be made, decided by these figures."""
        self.trace, self._figures = Trace(signal_id), figures

    def enter(self, entry_id: str) -> None:
        """The entry has its client id."""
        self._follow(Trace(self.trace.signal_id, entry_id))

    def restore(self, orders: Iterable[TrackedOrder], intents: Iterable[Intent]) -> None:
        """Go on where the former process stopped, by what the store has of it."""
        for order in orders:
            if order.purpose == Purpose.ENTRY:
                self._follow(Trace(order.signal_id, order.client_order_id))
        for intent in intents:
            if intent.kind is IntentKind.ENTRY:
                self._follow(Trace(intent.signal_id, intent.client_ids[0]))

    def trace_of(self, report: OrderReport) -> Trace:
        """Of an order that was not known before: an entry of another process start begins a trace of its own."""
        client_id = parse(report.client_order_id)
        if client_id is not None and client_id.purpose is Purpose.ENTRY:
            self._follow(Trace(position=report.client_order_id))
        return Trace() if client_id is not None and client_id.purpose is Purpose.ANNOUNCE else self.trace

    def _follow(self, trace: Trace) -> None:
        client_id = parse(trace.position)
        if client_id is not None and (client_id.incarnation, client_id.sequence) > self._newest:
            self._newest, self.trace = (client_id.incarnation, client_id.sequence), trace

    # --- lines ---

    def refused(self, kind: IntentKind, code: str, detail: str, trace: Trace, figures: Mapping[str, str]) -> None:
        """Nothing was sent, or the exchange refused it."""
        self._log.info("refuse", kind=kind.value, code=code, detail=detail, **_ids(trace), **figures)

    def sent(self, intent: Intent) -> None:
        """An intent is committed and about to be sent."""
        self._log.info(
            "send",
            kind=intent.kind.value,
            client_id=intent.client_id,
            client_ids=list(intent.client_ids),
            quantity=intent.quantity,
            price=intent.price,
            **_ids(self.trace),
            **(self._figures if intent.kind is IntentKind.ENTRY else {}),
        )

    def outcome(self, intent: Intent) -> None:
        """What is known of an intent changed."""
        self._log.info(
            "outcome",
            kind=intent.kind.value,
            client_id=intent.client_id,
            state=intent.state.value,
            message=intent.message,
            **_ids(self.trace),
        )

    def order(self, order: TrackedOrder) -> None:
        """The exchange told something new of an order."""
        self._log.info(
            "order",
            **_order_fields(order),
            status=order.status.value,
            type=order.type.value,
            quantity=canonical(order.quantity),
            executed_quantity=canonical(order.executed_quantity),
            price=canonical(order.price),
            stop_price=canonical(order.stop_price),
            expiry_reason=order.expiry_reason,
        )

    def fill(self, booked: BookedFill, order: TrackedOrder | None) -> None:
        """A fill was put into the books."""
        fill = booked.fill
        self._log.info(
            "fill",
            **({} if order is None else _order_fields(order)),
            trade_id=fill.trade_id,
            quantity=canonical(fill.quantity),
            price=canonical(fill.price),
            commission=canonical(fill.commission),
            commission_asset=fill.commission_asset,
        )

    def trade(self, trade: Trade) -> None:
        """A position ended: what the round trip came to."""
        self._log.info(
            "trade",
            **_ids(self.trace),
            opened=from_ms(trade.opened_ms).isoformat(),
            closed=None if trade.closed_ms is None else from_ms(trade.closed_ms).isoformat(),
            quantity=canonical(trade.bought),
            paid=canonical(trade.paid),
            received=canonical(trade.received),
            fees=canonical(trade.fees),
            pnl=canonical(trade.realized),
            rate=f"{trade.rate:.6f}",
        )


def _ids(trace: Trace) -> dict[str, str]:
    return {"signal_id": trace.signal_id, "position": trace.position}


def _order_fields(order: TrackedOrder) -> dict[str, Any]:
    return {
        **_ids(Trace(order.signal_id, order.related_position)),
        "client_id": order.client_order_id,
        "order_id": order.order_id,
        "side": order.side.value,
    }
