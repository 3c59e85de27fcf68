"""The endpoints for order lists: placing each kind, cancelling one, and the questions about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paper_exchange.core import list_requests, requests
from paper_exchange.core.errors import ExchangeError, bad_combination
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.list_requests import NewOrderList
from paper_exchange.endpoint import Call, Params, Route, day_period, fixed, read, response_type, trade
from paper_exchange.history import History


class OrderLists:
    """The endpoints over one exchange and what it stored."""

    def __init__(self, exchange: Exchange, history: History) -> None:
        self._exchange = exchange
        self._history = history
        self.routes: dict[tuple[str, str], Route] = {
            ("POST", "/api/v3/order/oco"): trade(self._placing(list_requests.old_oco), orders=2),
            ("POST", "/api/v3/orderList/oco"): trade(self._placing(list_requests.new_oco), orders=2),
            ("POST", "/api/v3/orderList/oto"): trade(self._placing(list_requests.new_oto), orders=2),
            ("POST", "/api/v3/orderList/otoco"): trade(self._placing(list_requests.new_otoco), orders=3),
            ("POST", "/api/v3/orderList/opo"): trade(self._placing(list_requests.new_opo), orders=2),
            ("POST", "/api/v3/orderList/opoco"): trade(self._placing(list_requests.new_opoco), orders=3),
            ("DELETE", "/api/v3/orderList"): trade(self._cancel),
            ("GET", "/api/v3/orderList"): read(self._one, fixed(4)),
            ("GET", "/api/v3/openOrderList"): read(self._open, fixed(6)),
            ("GET", "/api/v3/allOrderList"): read(self._all, fixed(20)),
        }

    def _placing(self, parse: Callable[[Params], NewOrderList]) -> Callable[[Call], Any]:
        def answer(call: Call) -> Any:
            return self._exchange.place_list(call.uid, parse(call.params), call.now, response_type(call.params))

        return answer

    def _cancel(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel_list(
            call.uid,
            requests.required(params, "symbol"),
            list_id=requests.integer(params, "orderListId"),
            client_list_id=requests.text_of(params, "listClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
        )

    def _one(self, call: Call) -> Any:
        list_id = requests.integer(call.params, "orderListId")
        client_list_id = requests.text_of(call.params, "origClientOrderId")
        if list_id is None and client_list_id is None:
            advice = "Recommendation: 'orderListId' should also be sent."
            raise ExchangeError(-1128, f"Combination of optional parameters invalid. {advice}")
        group = self._exchange.find_list(call.uid, list_id, client_list_id)
        if group is None:
            raise ExchangeError(-2018, "Order list does not exist.")
        return self._exchange.list_body(group)

    def _open(self, call: Call) -> Any:
        lists = self._exchange.lists.values()
        return [self._exchange.list_body(one) for one in lists if one.uid == call.uid and not one.done]

    def _all(self, call: Call) -> Any:
        start, end = day_period(call.params)
        from_id = requests.integer(call.params, "fromId")
        if (start, end) != (None, None) and from_id is not None:
            raise bad_combination()
        chosen = self._history.lists(call.uid, limit=call.limit(500, 1000), from_id=from_id, start=start, end=end)
        return [self._exchange.list_body(one) for one in chosen]
