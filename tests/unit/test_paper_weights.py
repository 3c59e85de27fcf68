"""What each request costs on the paper exchange is what Binance's documentation says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.paper import SYMBOL
from support.paper_rest import RestDesk

NAMES = json.dumps([SYMBOL, "ETHUSDT"])
ONE = {"symbol": SYMBOL}
TWO = {"symbols": NAMES}

DEPTHS = [("1", 5), ("100", 5), ("101", 25), ("500", 25), ("501", 50), ("1000", 50), ("1001", 250), ("5000", 250)]

COSTS: dict[str, list[tuple[dict[str, str], int]]] = {
    "GET /api/v3/ping": [({}, 1)],
    "GET /api/v3/time": [({}, 1)],
    "GET /api/v3/exchangeInfo": [({}, 20), (ONE, 20)],
    "GET /api/v3/executionRules": [(ONE, 2), (TWO, 4), ({}, 40), ({"symbolStatus": "TRADING"}, 40)],
    "GET /api/v3/depth": [(ONE | {"limit": limit}, cost) for limit, cost in DEPTHS],
    "GET /api/v3/trades": [(ONE, 25)],
    "GET /api/v3/historicalTrades": [(ONE, 25)],
    "GET /api/v3/historicalBlockTrades": [(ONE | {"fromId": "1"}, 25)],
    "GET /api/v3/aggTrades": [(ONE, 4)],
    "GET /api/v3/klines": [(ONE | {"interval": "1m"}, 2)],
    "GET /api/v3/uiKlines": [(ONE | {"interval": "1m"}, 2)],
    "GET /api/v3/avgPrice": [(ONE, 2)],
    "GET /api/v3/ticker/24hr": [(ONE, 2), ({}, 80)],
    "GET /api/v3/ticker/tradingDay": [(ONE, 4), (TWO, 8)],
    "GET /api/v3/ticker/price": [(ONE, 2), (TWO, 4), ({}, 4)],
    "GET /api/v3/ticker/bookTicker": [(ONE, 2), (TWO, 4), ({}, 4)],
    "GET /api/v3/ticker": [(ONE, 4), (TWO, 8)],
    "GET /api/v3/referencePrice": [(ONE, 2)],
    "GET /api/v3/referencePrice/calculation": [(ONE, 2)],
    "POST /api/v3/order": [({}, 1)],
    "POST /api/v3/order/test": [({}, 1), ({"computeCommissionRates": "true"}, 20)],
    "DELETE /api/v3/order": [(ONE, 1)],
    "DELETE /api/v3/openOrders": [(ONE, 1)],
    "POST /api/v3/order/cancelReplace": [(ONE, 1)],
    "PUT /api/v3/order/amend/keepPriority": [(ONE, 4)],
    "POST /api/v3/order/oco": [(ONE, 1)],
    "POST /api/v3/orderList/oco": [(ONE, 1)],
    "POST /api/v3/orderList/oto": [(ONE, 1)],
    "POST /api/v3/orderList/otoco": [(ONE, 1)],
    "POST /api/v3/orderList/opo": [(ONE, 1)],
    "POST /api/v3/orderList/opoco": [(ONE, 1)],
    "DELETE /api/v3/orderList": [(ONE, 1)],
    "POST /api/v3/sor/order": [(ONE, 1)],
    "POST /api/v3/sor/order/test": [(ONE, 1), (ONE | {"computeCommissionRates": "true"}, 20)],
    "GET /api/v3/account": [({}, 20)],
    "GET /api/v3/order": [(ONE, 4)],
    "GET /api/v3/openOrders": [(ONE, 6), ({}, 80)],
    "GET /api/v3/allOrders": [(ONE, 20)],
    "GET /api/v3/orderList": [({}, 4)],
    "GET /api/v3/allOrderList": [({}, 20)],
    "GET /api/v3/openOrderList": [({}, 6)],
    "GET /api/v3/myTrades": [(ONE, 20), (ONE | {"orderId": "1"}, 5)],
    "GET /api/v3/rateLimit/order": [({}, 40)],
    "GET /api/v3/myPreventedMatches": [
        (ONE | {"preventedMatchId": "1"}, 2),
        (ONE | {"orderId": "1"}, 20),
        ({"symbol": "NOSUCH", "orderId": "1"}, 2),
    ],
    "GET /api/v3/myAllocations": [(ONE, 20)],
    "GET /api/v3/account/commission": [(ONE, 20)],
    "GET /api/v3/order/amendments": [(ONE | {"orderId": "1"}, 4)],
    "GET /api/v3/myFilters": [(ONE, 40)],
}
"""For each documented endpoint some requests, those of orders incomplete: a placed order costs nothing."""

ORDERS = {
    "POST /api/v3/order": 1,
    "POST /api/v3/order/cancelReplace": 1,
    "PUT /api/v3/order/amend/keepPriority": 0,
    "POST /api/v3/order/oco": 2,
    "POST /api/v3/orderList/oco": 2,
    "POST /api/v3/orderList/oto": 2,
    "POST /api/v3/orderList/otoco": 3,
    "POST /api/v3/orderList/opo": 2,
    "POST /api/v3/orderList/opoco": 3,
    "POST /api/v3/sor/order": 1,
}
"""How many new orders a request counts as."""


@pytest.fixture(scope="module")
def desk() -> RestDesk:
    """An exchange with two symbols."""
    return RestDesk((SYMBOL, "ETHUSDT"))


def of_this_exchange(desk: RestDesk, endpoint: str) -> tuple[str, str]:
    """Method and path; skips for an endpoint that the exchange does not have."""
    method, path = endpoint.split(" ")
    if (method, path) not in desk.api.routes:
        pytest.skip(f"the paper exchange has no {endpoint}")
    return method, path


@pytest.mark.parametrize(
    ("endpoint", "params", "cost"),
    [
        pytest.param(endpoint, params, cost, id=f"{endpoint} {'&'.join(params)} {cost}")
        for endpoint, costs in COSTS.items()
        for params, cost in costs
    ],
)
def test_a_request_costs_its_documented_weight(
    desk: RestDesk, endpoint: str, params: dict[str, Any], cost: int
) -> None:
    method, path = of_this_exchange(desk, endpoint)
    before = desk.limits.used_weight("10.0.0.1", desk.now)
    reply = desk.ask(method, path, **params)
    assert int(reply.headers["X-MBX-USED-WEIGHT-1M"]) - before == cost, reply.body
    desk.now += 60_000 if before > 4000 else 0


@pytest.mark.parametrize("endpoint", ORDERS)
def test_a_request_counts_as_its_documented_number_of_orders(desk: RestDesk, endpoint: str) -> None:
    assert desk.api.routes[of_this_exchange(desk, endpoint)].orders == ORDERS[endpoint]


def test_every_documented_endpoint_is_compared() -> None:
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the published vectors")
    text = (Path(os.environ["TRADINGBOT_TEST_DATA"]) / "vectors" / "rest_weights.json").read_text()
    rows = {f"{row['method']} {row['path']}": row for row in json.loads(text)["endpoints"]}
    assert rows.keys() == COSTS.keys()
    for endpoint, row in rows.items():
        for _, cost in COSTS[endpoint]:
            # 8 is twice "4 for each requested symbol", and 4 twice "2 for each".
            assert str(cost) in row["weight"] or str(cost // 2) in row["weight"], (endpoint, cost)
        assert (row["unfilled_order_count"] is not None) == (endpoint in ORDERS)
        assert ORDERS.get(endpoint) == row["unfilled_order_count"]
