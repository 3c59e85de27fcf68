"""The Spot API without a transport: every endpoint as a function of its parameters, for REST and WebSocket alike."""

from __future__ import annotations

from typing import Any

from paper_exchange.account_data import AccountData, commission_for_order
from paper_exchange.core import reports, requests
from paper_exchange.core.errors import bad_combination
from paper_exchange.endpoint import (
    Call,
    Route,
    Security,
    by_symbol,
    day_period,
    fixed,
    order_test_weight,
    read,
    response_type,
    trade,
)
from paper_exchange.exchange_info import ExchangeInfo
from paper_exchange.execution_rules import ExecutionRules
from paper_exchange.limits import Limits
from paper_exchange.market_data import MarketData
from paper_exchange.order_changes import OrderChanges
from paper_exchange.order_lists import OrderLists
from paper_exchange.sor import Sor
from paper_exchange.venue import Venue


class SpotApi:
    """The endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self.market_data = MarketData(venue)
        self.routes: dict[tuple[str, str], Route] = {
            **self.market_data.routes,
            **ExecutionRules(venue).routes,
            **ExchangeInfo(venue, limits).routes,
            **AccountData(venue, limits).routes,
            **OrderLists(venue.exchange, venue.store.history).routes,
            **OrderChanges(venue.exchange).routes,
            **Sor(venue.exchange).routes,
            ("GET", "/api/v3/order"): read(self._order, fixed(4)),
            ("POST", "/api/v3/order"): trade(self._place, orders=1),
            ("DELETE", "/api/v3/order"): trade(self._cancel),
            ("POST", "/api/v3/order/test"): Route(self._test, order_test_weight, Security.TRADE),
            ("GET", "/api/v3/openOrders"): read(self._open_orders, by_symbol(6, 80)),
            ("DELETE", "/api/v3/openOrders"): trade(self._cancel_all),
            ("GET", "/api/v3/allOrders"): read(self._all_orders, fixed(20)),
            ("GET", "/api/v3/myTrades"): read(self._my_trades, lambda p: 5 if "orderId" in p else 20),
        }

    # -- orders ------------------------------------------------------------------------------------------------

    def _place(self, call: Call) -> Any:
        return self._exchange.place(call.uid, requests.new_order(call.params), call.now, response_type(call.params))

    def _test(self, call: Call) -> Any:
        request = requests.new_order(call.params)
        self._exchange.test(call.uid, request, call.now)
        if not requests.flag(call.params, "computeCommissionRates"):
            return {}
        return commission_for_order(self._exchange.accounts[call.uid], request.symbol, request.side)

    def _cancel(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel(
            call.uid,
            requests.required(params, "symbol"),
            order_id=requests.integer(params, "orderId"),
            client_order_id=requests.text_of(params, "origClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
            restriction=requests.cancel_restriction(params),
        )

    def _cancel_all(self, call: Call) -> Any:
        return self._exchange.cancel_all(call.uid, requests.required(call.params, "symbol"), call.now)

    def _order(self, call: Call) -> Any:
        order = self._exchange.find_order(
            call.uid,
            requests.required(call.params, "symbol"),
            requests.integer(call.params, "orderId"),
            requests.text_of(call.params, "origClientOrderId"),
        )
        return reports.order_status(order)

    def _open_orders(self, call: Call) -> Any:
        symbol = requests.text_of(call.params, "symbol")
        if symbol is not None:
            self._exchange.market(symbol)
        return [reports.order_status(order) for order in self._exchange.open_orders(call.uid, symbol)]

    def _all_orders(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        start, end = day_period(call.params)
        from_id = requests.integer(call.params, "orderId")
        chosen = self._venue.store.history.orders(
            call.uid, symbol, limit=call.limit(500, 1000), from_id=from_id, start=start, end=end
        )
        return [reports.order_status(order) for order in chosen]

    def _my_trades(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        start, end = day_period(call.params)
        order_id = requests.integer(call.params, "orderId")
        from_id = requests.integer(call.params, "fromId")
        if (start, end) != (None, None) and (order_id, from_id) != (None, None):
            raise bad_combination()
        chosen = self._venue.store.history.trades(
            call.uid,
            symbol,
            limit=call.limit(500, 1000),
            order_id=order_id,
            from_id=from_id,
            start=start,
            end=end,
        )
        return [reports.my_trade(one) for one in chosen]
