"""The endpoints that change an order in the market: replacing it."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import illegal, neither
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.requests import CancelTarget
from paper_exchange.endpoint import Call, Params, Route, Security, fixed, response_type

_GOES_ON: Final = {"STOP_ON_FAILURE": False, "ALLOW_FAILURE": True}
"""By cancelReplaceMode: whether the new order is tried where the cancel failed."""
_CANCELS: Final = {"DO_NOTHING": False, "CANCEL_ONLY": True}
"""By orderRateLimitExceededMode: whether the cancel is tried where the account may place no more orders now."""


class OrderChanges:
    """The endpoints over one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        replace = Route(self._replace, fixed(1), Security.TRADE, orders=1, trade=True, beyond_limit=_cancels_anyway)
        self.routes: dict[tuple[str, str], Route] = {("POST", "/api/v3/order/cancelReplace"): replace}

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


def _cancels_anyway(params: Params) -> bool:
    return _chosen(params, "orderRateLimitExceededMode", _CANCELS)


def _chosen(params: Params, name: str, choices: dict[str, bool]) -> bool:
    """What a parameter means, False when absent; -1100 for anything but its values."""
    value = requests.text_of(params, name)
    if value is not None and value not in choices:
        raise illegal(name, f"^({'|'.join(choices)})$")
    return value is not None and choices[value]
