"""Cancelling one order, alone or to place another in the same request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from paper_exchange.core import reports
from paper_exchange.core.account_filters import check_may_cancel
from paper_exchange.core.ending import cancel_order
from paper_exchange.core.entering import make
from paper_exchange.core.errors import (
    INSUFFICIENT_BALANCE,
    WOULD_MATCH,
    WOULD_TRIGGER,
    ExchangeError,
    unknown_order_on_cancel,
)
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import OrderStatus
from paper_exchange.core.placing import place_order
from paper_exchange.core.reports import Json
from paper_exchange.core.requests import CancelTarget, NewOrder
from paper_exchange.core.state import State

_STATUS: Final = {"ONLY_NEW": OrderStatus.NEW, "ONLY_PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED}
_REJECT_REASONS: Final = {
    INSUFFICIENT_BALANCE: "INSUFFICIENT_BALANCES",
    WOULD_MATCH: "WOULD_MATCH_IMMEDIATELY",
    WOULD_TRIGGER: "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
}
"""The names that user events have for refusals of the engine."""


def cancel_target(state: State, market: MarketState, uid: int, target: CancelTarget) -> Json:
    """Cancel an order, and with it the list it belongs to; -2011 where it is not open or stands otherwise."""
    check_may_cancel(state.accounts[uid], market)
    order = state.find(uid, market.rules.symbol, target.order_id, target.client_order_id)
    if order is None or not order.open:
        raise unknown_order_on_cancel()
    if target.client_order_id not in (None, order.client_order_id):
        raise unknown_order_on_cancel()
    if target.restriction and order.status is not _STATUS[target.restriction]:
        raise ExchangeError(-2011, "Order was not canceled due to cancel restrictions.")
    return cancel_order(state, market, order, target.new_client_order_id)


@dataclass(frozen=True, slots=True)
class Results:
    """What came of the two halves of a cancel-replace; None is a half that was not tried."""

    canceled: Json | ExchangeError
    placed: Json | ExchangeError | None
    limited: bool
    """The order limit was exceeded, and without a cancel nothing else would have been tried."""

    def answer(self) -> Json:
        """Both answers, or an ExchangeError with them where a half failed."""
        halves = (self.canceled, self.placed)
        named = [half.told() if isinstance(half, ExchangeError) else half for half in halves]
        data = {
            "cancelResult": _result(self.canceled),
            "newOrderResult": _result(self.placed),
            "cancelResponse": named[0],
            "newOrderResponse": named[1],
        }
        succeeded = sum(isinstance(half, dict) for half in halves)
        if succeeded == len(halves):
            return data
        code, message = (-2021, "partially failed") if succeeded else (-2022, "failed")
        status = 429 if self.limited else 409 if succeeded else 400
        retry_at = self.placed.retry_at if isinstance(self.placed, ExchangeError) else None
        raise ExchangeError(code, f"Order cancel-replace {message}.", status, retry_at=retry_at, data=data)


def _result(half: Json | ExchangeError | None) -> str:
    return "NOT_ATTEMPTED" if half is None else "FAILURE" if isinstance(half, ExchangeError) else "SUCCESS"


def replace_order(
    state: State,
    market: MarketState,
    uid: int,
    target: CancelTarget,
    request: NewOrder,
    *,
    go_on: bool,
    response: str,
    excess: ExchangeError | None,
) -> Results:
    """Cancel, then place an order that passed the filters; see `Exchange.cancel_replace`."""
    limited = excess is not None and not go_on
    placed: Json | ExchangeError
    try:
        canceled: Json | ExchangeError = cancel_target(state, market, uid, target)
    except ExchangeError as error:
        if not go_on:
            return Results(error, None, limited)
        canceled = error
    try:
        if excess is not None:
            raise excess
        placed = place_order(state, market, uid, request, response)
    except ExchangeError as error:
        placed = error
        if excess is None and isinstance(canceled, dict):
            _tell_rejected(state, market, uid, request, error)
    return Results(canceled, placed, limited)


def _tell_rejected(state: State, market: MarketState, uid: int, request: NewOrder, error: ExchangeError) -> None:
    """The cancel succeeded and the new order did not: user events tell of it, no question finds it."""
    order = make(state, market, uid, request, request.quantity)
    order.status = OrderStatus.REJECTED
    event = reports.execution_report(order, "REJECTED", state.now, state.next_execution_id)
    state.next_execution_id += 1
    state.tell(uid, event | {"r": _REJECT_REASONS.get(error.message, "NONE")})
