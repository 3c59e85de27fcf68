"""The endpoints that change an order in the market: replacing it, and reducing it in its place."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core import reports, requests
from paper_exchange.core.errors import illegal, neither
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.requests import AmendTarget, CancelTarget
from paper_exchange.core.units import parse_units
from paper_exchange.endpoint import Call, Params, Route, Security, fixed, read, response_type

_GOES_ON: Final = {"STOP_ON_FAILURE": False, "ALLOW_FAILURE": True}
"""By cancelReplaceMode: whether the new order is tried where the cancel failed."""
_CANCELS: Final = {"DO_NOTHING": False, "CANCEL_ONLY": True}
"""By orderRateLimitExceededMode: whether the cancel is tried where the account may place no more orders now."""


class OrderChanges:
    """The endpoints over one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        replace = Route(self._replace, fixed(1), Security.TRADE, orders=1, trade=True, beyond_limit=_cancels_anyway)
        self.routes: dict[tuple[str, str], Route] = {
            ("POST", "/api/v3/order/cancelReplace"): replace,
            ("PUT", "/api/v3/order/amend/keepPriority"): Route(self._amend, fixed(4), Security.TRADE, trade=True),
            ("GET", "/api/v3/order/amendments"): read(self._amendments, fixed(4)),
        }

    def _replace(self, call: Call) -> Any:
        params = call.params
        request = requests.new_order(params)
        requests.required(params, "cancelReplaceMode")
        go_on = _chosen(params, "cancelReplaceMode", _GOES_ON)
        _cancels_anyway(params)
        target = CancelTarget(
            requests.integer(params, "cancelOrderId"),
            requests.text_of(params, "cancelOrigClientOrderId"),
            requests.client_id(params, "cancelNewClientOrderId"),
            requests.cancel_restriction(params),
        )
        if target.order_id is None and target.client_order_id is None:
            raise neither("cancelOrigClientOrderId", "cancelOrderId")
        return self._exchange.cancel_replace(
            call.uid,
            target,
            request,
            call.now,
            go_on=go_on,
            response=response_type(params),
            excess=call.excess,
        )

    def _amend(self, call: Call) -> Any:
        params = call.params
        symbol = requests.required(params, "symbol")
        target = AmendTarget(
            requests.integer(params, "orderId"),
            requests.text_of(params, "origClientOrderId"),
            parse_units("newQty", requests.required(params, "newQty")),
            requests.client_id(params, "newClientOrderId"),
        )
        if target.order_id is None and target.client_order_id is None:
            raise neither("origClientOrderId", "orderId")
        return self._exchange.amend(call.uid, symbol, target, call.now)

    def _amendments(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        requests.required(call.params, "orderId")
        order = self._exchange.find(call.uid, symbol, requests.integer(call.params, "orderId"), None)
        first = requests.integer(call.params, "fromExecutionId") or 0
        found = [one for one in order.amendments if one.execution_id >= first] if order is not None else []
        return [reports.amendment(order, one) for one in found[: call.limit(500, 1000)]] if order is not None else []


def _cancels_anyway(params: Params) -> bool:
    return _chosen(params, "orderRateLimitExceededMode", _CANCELS)


def _chosen(params: Params, name: str, choices: dict[str, bool]) -> bool:
    """What a parameter means, False when absent; -1100 for anything but its values."""
    value = requests.text_of(params, name)
    if value is not None and value not in choices:
        raise illegal(name, f"^({'|'.join(choices)})$")
    return value is not None and choices[value]
