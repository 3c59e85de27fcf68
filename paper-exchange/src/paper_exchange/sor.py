"""Smart order routing, which no symbol has here: Binance's refusal of such orders, and no allocations."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, not_required
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import OrderType
from paper_exchange.endpoint import Call, Route, Security, day_period, fixed, order_test_weight, read, trade

_TYPES: Final = (OrderType.LIMIT, OrderType.MARKET)


class Sor:
    """The endpoints over one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.routes: dict[tuple[str, str], Route] = {
            ("POST", "/api/v3/sor/order"): trade(self._refuse, orders=1),
            ("POST", "/api/v3/sor/order/test"): Route(self._refuse, order_test_weight, Security.TRADE),
            ("GET", "/api/v3/myAllocations"): read(self._allocations, fixed(20)),
        }

    def _refuse(self, call: Call) -> Any:
        request = requests.new_order(call.params)
        self._exchange.market(request.symbol)
        if request.type not in _TYPES:
            raise ExchangeError(-1116, "Invalid orderType.")
        if request.quote_quantity:
            raise not_required("quoteOrderQty")
        raise ExchangeError(-1013, "This symbol has no SOR.")

    def _allocations(self, call: Call) -> Any:
        self._exchange.market(requests.required(call.params, "symbol"))
        day_period(call.params)
        return []
