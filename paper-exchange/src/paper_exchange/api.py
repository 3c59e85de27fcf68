"""The Spot API without a transport: every endpoint as a function of its parameters, for REST and WebSocket alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from paper_exchange.account_data import AccountData
from paper_exchange.core import reports, requests
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.endpoint import Call, Params, Route, Security, by_symbol, fixed, period
from paper_exchange.limits import Limits
from paper_exchange.market_data import MarketData
from paper_exchange.venue import Venue

_RESPONSES: Final = ("ACK", "RESULT", "FULL")


class SpotApi:
    """The endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self.market_data = MarketData(venue, limits)
        self.routes: dict[tuple[str, str], Route] = {
            **self.market_data.routes,
            **AccountData(venue, limits).routes,
            ("GET", "/api/v3/order"): _read(self._order, fixed(4)),
            ("POST", "/api/v3/order"): _trade(self._place, orders=1),
            ("DELETE", "/api/v3/order"): _trade(self._cancel),
            ("POST", "/api/v3/order/test"): Route(self._test, _test_weight, Security.TRADE),
            ("GET", "/api/v3/openOrders"): _read(self._open_orders, by_symbol(6, 80)),
            ("DELETE", "/api/v3/openOrders"): _trade(self._cancel_all),
            ("GET", "/api/v3/allOrders"): _read(self._all_orders, fixed(20)),
            ("GET", "/api/v3/myTrades"): _read(self._my_trades, lambda p: 5 if "orderId" in p else 20),
            ("GET", "/api/v3/orderList"): _read(self._order_list, fixed(4)),
            ("DELETE", "/api/v3/orderList"): _trade(self._cancel_list),
            ("POST", "/api/v3/orderList/oco"): _trade(self._placing(requests.new_oco), orders=2),
            ("POST", "/api/v3/orderList/oto"): _trade(self._placing(requests.new_oto), orders=2),
            ("POST", "/api/v3/orderList/otoco"): _trade(self._placing(requests.new_otoco), orders=3),
            ("GET", "/api/v3/openOrderList"): _read(self._open_lists, fixed(6)),
            ("GET", "/api/v3/allOrderList"): _read(self._all_lists, fixed(20)),
        }

    # -- orders ------------------------------------------------------------------------------------------------

    def _place(self, call: Call) -> Any:
        return self._exchange.place(call.uid, requests.new_order(call.params), call.now, _response(call.params))

    def _test(self, call: Call) -> Any:
        self._exchange.test(call.uid, requests.new_order(call.params), call.now)
        return {}

    def _placing(self, parse: Callable[[Params], requests.NewOrderList]) -> Callable[[Call], Any]:
        def answer(call: Call) -> Any:
            return self._exchange.place_list(call.uid, parse(call.params), call.now, _response(call.params))

        return answer

    def _cancel(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel(
            call.uid,
            requests.required(params, "symbol"),
            order_id=requests.integer(params, "orderId"),
            client_order_id=requests.text_of(params, "origClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
            restriction=params.get("cancelRestrictions", ""),
        )

    def _cancel_all(self, call: Call) -> Any:
        return self._exchange.cancel_all(call.uid, requests.required(call.params, "symbol"), call.now)

    def _cancel_list(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel_list(
            call.uid,
            requests.required(params, "symbol"),
            list_id=requests.integer(params, "orderListId"),
            client_list_id=requests.text_of(params, "listClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
        )

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
        start, end = period(call.params)
        from_id = requests.integer(call.params, "orderId")
        orders = [
            order
            for order in self._exchange.history(call.uid, symbol)
            if (from_id is None or order.order_id >= from_id)
            and (start is None or order.time >= start)
            and (end is None or order.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = orders[:limit] if from_id is not None or start is not None else orders[-limit:]
        return [reports.order_status(order) for order in chosen]

    def _my_trades(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        start, end = period(call.params)
        order_id = requests.integer(call.params, "orderId")
        from_id = requests.integer(call.params, "fromId")
        trades = [
            trade
            for trade in self._exchange.trades.get((call.uid, symbol), [])
            if (order_id is None or trade.order_id == order_id)
            and (from_id is None or trade.trade_id >= from_id)
            and (start is None or trade.time >= start)
            and (end is None or trade.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = trades[:limit] if from_id is not None or start is not None else trades[-limit:]
        return [reports.my_trade(trade) for trade in chosen]

    def _order_list(self, call: Call) -> Any:
        group = self._exchange.find_list(
            call.uid,
            requests.integer(call.params, "orderListId"),
            requests.text_of(call.params, "origClientOrderId"),
        )
        if group is None:
            raise ExchangeError(-2018, "Order list does not exist.")
        return self._exchange.list_body(group)

    def _open_lists(self, call: Call) -> Any:
        lists = self._exchange.lists.values()
        return [self._exchange.list_body(one) for one in lists if one.uid == call.uid and not one.done]

    def _all_lists(self, call: Call) -> Any:
        start, end = period(call.params)
        from_id = requests.integer(call.params, "fromId")
        mine = [
            one
            for one in self._exchange.lists.values()
            if one.uid == call.uid
            and (from_id is None or one.list_id >= from_id)
            and (start is None or one.time >= start)
            and (end is None or one.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = mine[:limit] if from_id is not None or start is not None else mine[-limit:]
        return [self._exchange.list_body(one) for one in chosen]


def _test_weight(params: Params) -> int:
    return 20 if params.get("computeCommissionRates") == "true" else 1


def _read(answer: Callable[[Call], Any], weight: Callable[[Params], int]) -> Route:
    return Route(answer, weight, Security.USER_DATA)


def _trade(answer: Callable[[Call], Any], orders: int = 0) -> Route:
    return Route(answer, fixed(1), Security.TRADE, orders, trade=True)


def _response(params: Params) -> str:
    asked = requests.text_of(params, "newOrderRespType")
    if asked is None:
        return ""
    if asked not in _RESPONSES:
        raise illegal("newOrderRespType", "^(ACK|RESULT|FULL)$")
    return asked
