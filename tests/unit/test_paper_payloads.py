"""Answers and events of the paper exchange have every field that recorded Binance payloads have."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.api import SpotApi
from paper_exchange.core.state import UserEvent
from paper_exchange.endpoint import Call
from paper_exchange.limits import Limits
from paper_exchange.market import open_market
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from paper_exchange.wallet import Wallet
from support.paper import START_MS, SYMBOL

ABSENT = {
    "fills",  # of a MARKET order, in a fixture of another type
    "icebergQty",  # iceberg orders are not built; queries show it as 0
    "b",  # buyer and seller order ids are gone from trades since 2024-06-18
}


@pytest.fixture(scope="module")
def fixtures() -> Path:
    """The folder with recorded payloads."""
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the recorded payloads")
    return Path(os.environ["TRADINGBOT_TEST_DATA"]) / "JKorf-Binance.Net"


class Bench:
    """An account that has seen everything: a fill, an open order, an OCO, an OTOCO and a cancel."""

    def __init__(self) -> None:
        self.now = START_MS
        registry = CollectorRegistry()
        market = open_market("synthetic", [SYMBOL], 1, self.now)
        self.venue = Venue([SYMBOL], market, Store(None), lambda: self.now, registry)
        self.api = SpotApi(self.venue, Limits(6000))
        self.api.routes |= Wallet(self.venue).routes
        for event, _ in zip(market.events(), range(50), strict=False):
            self.now = event.time_ms
            self.venue.feed(event)
        self.events: list[dict[str, Any]] = []
        self.uid = self.venue.create_account({"USDT": 10**13, "BTC": 10**9}).uid
        self.venue.subscribe(self.uid, self.events.append)

    def call(self, method: str, path: str, **params: str) -> Any:
        """One call of the API."""
        api_key = next(iter(self.venue.keys))
        call = Call({"symbol": SYMBOL, **params}, self.uid, self.now, api_key)
        answer = self.api.routes[method, path].answer(call)
        self.venue.commit()
        return answer


@pytest.fixture(scope="module")
def bench() -> Bench:
    """One bench for all comparisons."""
    return Bench()


def recorded(path: Path) -> Any:
    """The answer in a fixture: after the verb, the path and whether it is signed."""
    text = "\n".join(path.read_text(encoding="utf-8-sig").splitlines()[3:])
    return json.loads(re.sub(r"//.*", "", text))


def pushed(path: Path) -> Any:
    """The event in a fixture of a stream."""
    text = path.read_text(encoding="utf-8-sig").partition("\n=")[2]
    frame = json.loads(text)
    return frame.get("data") or frame["event"]


def missing(wanted: Any, got: Any, where: str = "") -> list[str]:
    """Fields of the recorded payload that ours lacks, and values of another JSON type."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [f"{where}: {got!r} is no object"]
        return [
            problem
            for name, value in wanted.items()
            if name not in ABSENT
            for problem in (
                missing(value, got[name], f"{where}.{name}") if name in got else [f"{where}.{name} is missing"]
            )
        ]
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return [f"{where}: {got!r} is no list"]
        return missing(wanted[0], got[0], f"{where}[0]") if wanted and got else []
    if wanted is not None and got is not None and type(wanted) is not type(got):
        return [f"{where}: {got!r} is not like {wanted!r}"]
    return []


def oco(bench: Bench) -> Any:
    """A placed OCO."""
    return bench.call(
        "POST",
        "/api/v3/orderList/oco",
        side="SELL",
        quantity="0.01",
        aboveType="LIMIT_MAKER",
        abovePrice="70000",
        belowType="STOP_LOSS_LIMIT",
        belowStopPrice="50000",
        belowPrice="49000",
        belowTimeInForce="GTC",
    )


def limit(bench: Bench, price: str = "40000") -> Any:
    """A resting order."""
    return bench.call(
        "POST",
        "/api/v3/order",
        side="BUY",
        type="LIMIT",
        timeInForce="GTC",
        quantity="0.01",
        price=price,
        newOrderRespType="FULL",
    )


def otoco(bench: Bench) -> Any:
    """A bracket whose entry fills at once."""
    return bench.call(
        "POST",
        "/api/v3/orderList/otoco",
        workingType="LIMIT",
        workingSide="BUY",
        workingPrice="61000",
        workingQuantity="0.01",
        workingTimeInForce="FOK",
        pendingSide="SELL",
        pendingQuantity="0.01",
        pendingAboveType="LIMIT_MAKER",
        pendingAbovePrice="70000",
        pendingBelowType="STOP_LOSS",
        pendingBelowStopPrice="50000",
    )


def market(bench: Bench) -> Any:
    """A filled order."""
    return bench.call("POST", "/api/v3/order", side="BUY", type="MARKET", quantity="0.01")


def costs_of_an_order(bench: Bench) -> Any:
    """What an order would cost."""
    rates = {"side": "BUY", "type": "MARKET", "quantity": "0.01", "computeCommissionRates": "true"}
    return bench.call("POST", "/api/v3/order/test", **rates)


def reading(path: str, **params: str) -> Callable[[Bench], Any]:
    """A GET."""
    return lambda bench: bench.call("GET", path, **params)


def of_order(method: str) -> Callable[[Bench], Any]:
    """A call that names a resting order."""
    return lambda bench: bench.call(method, "/api/v3/order", orderId=str(limit(bench)["orderId"]))


def cancel_list(bench: Bench) -> Any:
    """A cancelled OCO."""
    return bench.call("DELETE", "/api/v3/orderList", orderListId=str(oco(bench)["orderListId"]))


def cancel_all(bench: Bench) -> Any:
    """Cancelled orders, a single one first."""
    if bench.call("GET", "/api/v3/openOrders"):
        bench.call("DELETE", "/api/v3/openOrders")
    limit(bench)
    return bench.call("DELETE", "/api/v3/openOrders")


def prevented(bench: Bench) -> Any:
    """The prevented matches of an order that met one of its own account."""
    best = bench.call("GET", "/api/v3/ticker/bookTicker")["bidPrice"]
    order = {"type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    resting = bench.call("POST", "/api/v3/order", side="SELL", price=str(Decimal(best) + Decimal("0.01")), **order)
    bench.call("POST", "/api/v3/order", side="BUY", type="MARKET", quantity="0.01")
    return bench.call("GET", "/api/v3/myPreventedMatches", orderId=str(resting["orderId"]))


def after(first: Callable[[Bench], Any], then: Callable[[Bench], Any]) -> Callable[[Bench], Any]:
    """Something that needs something before it."""

    def both(bench: Bench) -> Any:
        first(bench)
        return then(bench)

    return both


@pytest.mark.parametrize(
    ("fixture", "ours"),
    [
        ("Account/GetAccountInfo", reading("/api/v3/account")),
        ("Account/GetCommissionRates", reading("/api/v3/account/commission")),
        ("Account/GetAPIKeyPermissions", reading("/sapi/v1/account/apiRestrictions")),
        ("Account/GetOrderRateLimitStatus", reading("/api/v3/rateLimit/order")),
        ("ExchangeData/GetServerTime", reading("/api/v3/time")),
        ("ExchangeData/GetExchangeInfo", reading("/api/v3/exchangeInfo")),
        ("ExchangeData/GetKlines", reading("/api/v3/klines", interval="1m")),
        ("ExchangeData/GetUiKlines", reading("/api/v3/uiKlines", interval="1m")),
        ("ExchangeData/GetAvgPrice", reading("/api/v3/avgPrice")),
        ("ExchangeData/GetPrice", reading("/api/v3/ticker/price")),
        ("ExchangeData/GetBookPrice", reading("/api/v3/ticker/bookTicker")),
        ("ExchangeData/GetTicker", reading("/api/v3/ticker/24hr")),
        ("ExchangeData/GetTradeHistory", reading("/api/v3/trades")),
        ("ExchangeData/GetAggregatedTradeHistory", reading("/api/v3/aggTrades")),
        ("Trading/PlaceOrder", market),
        ("Trading/PlaceTestOrder", costs_of_an_order),
        ("Trading/PlaceOcoOrderList", oco),
        ("Trading/PlaceOtocoOrderList", otoco),
        ("Trading/GetOrder", of_order("GET")),
        ("Trading/CancelOrder", of_order("DELETE")),
        ("Trading/CancelOcoOrder", cancel_list),
        ("Trading/CancelAllOrders", cancel_all),
        ("Trading/GetOpenOrders", after(limit, reading("/api/v3/openOrders"))),
        ("Trading/GetOrders", after(limit, reading("/api/v3/allOrders"))),
        ("Trading/GetUserTrades", after(market, reading("/api/v3/myTrades"))),
        ("Trading/GetPreventedTrades", prevented),
        ("Trading/GetOcoOrder", after(oco, reading("/api/v3/orderList", orderListId="0"))),
        ("Trading/GetOcoOrders", after(oco, reading("/api/v3/allOrderList"))),
        ("Trading/GetOpenOcoOrders", after(oco, reading("/api/v3/openOrderList"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_has_every_recorded_field(
    fixtures: Path, bench: Bench, fixture: str, ours: Callable[[Bench], Any]
) -> None:
    wanted = recorded(fixtures / "Endpoints" / "Spot" / f"{fixture}.txt")
    got = json.loads(json.dumps(ours(bench)))
    if fixture.endswith("ExchangeInfo"):
        wanted["symbols"][0]["filters"] = []
    if fixture.endswith("Klines"):
        assert [type(value) for value in got[0]] == [type(value) for value in wanted[0]]
    assert missing(wanted, got) == []


@pytest.mark.parametrize(
    ("fixture", "kind", "cause"),
    [
        ("Order", "executionReport", limit),
        ("OcoOrder", "listStatus", oco),
        ("AccountPosition", "outboundAccountPosition", limit),
    ],
    ids=["order", "list", "account"],
)
def test_a_user_event_has_every_recorded_field(
    fixtures: Path, bench: Bench, fixture: str, kind: str, cause: Callable[[Bench], Any]
) -> None:
    cause(bench)
    got = next(event for event in reversed(bench.events) if event["e"] == kind)
    assert missing(pushed(fixtures / "Subscriptions" / "Spot" / "Account" / f"{fixture}.txt"), got) == []


def test_a_deposit_is_told_as_recorded(fixtures: Path, bench: Bench) -> None:
    bench.venue.exchange.deposit(bench.uid, "BNB", 10**8, bench.now)
    outputs = bench.venue.exchange.take_outputs()
    got = next(out.payload for out in outputs if isinstance(out, UserEvent) and out.payload["e"] == "balanceUpdate")
    assert missing(pushed(fixtures / "Subscriptions" / "Spot" / "Account" / "Balance.txt"), got) == []
