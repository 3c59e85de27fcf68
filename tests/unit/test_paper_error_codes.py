"""Each error that a client can provoke on the paper exchange, by REST, has Binance's code and text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.limits import Limits
from paper_exchange.server.rest import Reply
from support.paper import SYMBOL
from support.paper_rest import RestDesk

DOCUMENT = Path(__file__).parents[2] / "docs" / "paper-exchange-errors.md"
DAY = 86_400_000

Provoke = Callable[[RestDesk], Reply]

OCO = {
    "symbol": SYMBOL,
    "side": "SELL",
    "quantity": "0.1",
    "aboveType": "LIMIT_MAKER",
    "abovePrice": "65000",
    "belowType": "STOP_LOSS",
    "belowStopPrice": "55000",
}
OPO = {
    "symbol": SYMBOL,
    "workingType": "LIMIT",
    "workingSide": "BUY",
    "workingPrice": "50000",
    "workingQuantity": "0.1",
    "workingTimeInForce": "GTC",
    "pendingType": "LIMIT_MAKER",
    "pendingSide": "SELL",
    "pendingPrice": "70000",
}


def get(path: str, **params: Any) -> Provoke:
    """A public request."""
    query = "&".join(f"{name}={value}" for name, value in params.items())
    return lambda desk: desk.send("GET", f"/api/v3/{path}", query)


def ask(method: str, path: str, **params: Any) -> Provoke:
    """A signed request."""
    return lambda desk: desk.ask(method, f"/api/v3/{path}", **params)


def place(**params: Any) -> Provoke:
    """A new order: a buy that rests far below the market, with some parameters changed."""
    return lambda desk: desk.place(**params)


def oco(**params: Any) -> Provoke:
    """A sell OCO with some parameters changed; None takes one away."""
    given = {name: value for name, value in (OCO | params).items() if value is not None}
    return ask("POST", "orderList/oco", **given)


def leg(which: str, kind: str) -> dict[str, str | None]:
    """The parameters of one leg of a type."""
    price, stop = ("65000", "65000") if which == "above" else ("55000", "55000")
    priced = kind in ("LIMIT_MAKER", "LIMIT")
    return {f"{which}Type": kind, f"{which}Price": price if priced else None} | {
        f"{which}StopPrice": None if priced else stop
    }


def after(first: Provoke, then: Callable[[RestDesk, Any], Reply]) -> Provoke:
    """A request that needs one before it, and its answer."""

    def provoke(desk: RestDesk) -> Reply:
        reply = first(desk)
        assert reply.status == 200, reply.body
        return then(desk, reply.body)

    return provoke


def too_much_weight(desk: RestDesk) -> Reply:
    desk.limits.charge("10.0.0.1", 6000, desk.now)
    return desk.send("GET", "/api/v3/ping")


def banned(desk: RestDesk) -> Reply:
    for _ in range(10):
        assert too_much_weight(desk).status == 429
    return too_much_weight(desk)


def too_many_orders(desk: RestDesk) -> Reply:
    desk.limits.count_orders(desk.venue.exchange.accounts[desk.key.uid], 100, desk.now)
    return desk.place()


def replace(**params: Any) -> Provoke:
    """Cancel an order and place one in its stead."""
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.1"}
    order |= {"price": "50000", "cancelReplaceMode": "STOP_ON_FAILURE"}
    return after(
        place(),
        lambda desk, one: desk.ask(
            "POST", "/api/v3/order/cancelReplace", **{"cancelOrderId": one["orderId"], **order, **params}
        ),
    )


def archived(desk: RestDesk) -> Reply:
    order = desk.place().body["orderId"]
    assert desk.ask("DELETE", "/api/v3/order", symbol=SYMBOL, orderId=order).status == 200
    desk.now += 91 * DAY
    desk.book("60000", "60001")
    return desk.ask("GET", "/api/v3/order", symbol=SYMBOL, orderId=order)


def with_header(name: str, value: str) -> Provoke:
    return lambda desk: desk.send("GET", "/api/v3/time", **{name: value})


def wrong_key(key: str) -> Provoke:
    return lambda desk: desk.send("GET", "/api/v3/account", f"timestamp={desk.now}", **{"x-mbx-apikey": key})


def wrong_signature(desk: RestDesk) -> Reply:
    query = f"timestamp={desk.now}&signature=00"
    return desk.send("GET", "/api/v3/account", query, **{"x-mbx-apikey": desk.key.api_key})


CODES: dict[int, list[Provoke]] = {
    -1003: [too_much_weight, banned],
    -1013: [place(price="60000.001"), place(quantity="0.000011")],
    -1015: [too_many_orders],
    -1021: [ask("GET", "account", timestamp=1), ask("GET", "account", timestamp=9 * 10**12)],
    -1022: [wrong_signature],
    -1100: [place(quantity="1e-3"), place(newClientOrderId="a b")],
    -1101: [get("ping", x=1), get("ticker/price", symbol=f"{SYMBOL}&symbol={SYMBOL}")],
    -1102: [place(quantity=None), ask("GET", "order", symbol=SYMBOL)],
    -1104: [place(created=1)],
    -1105: [ask("GET", "allOrders", symbol=SYMBOL, orderId="")],
    -1106: [place(type="MARKET", price="1")],
    -1108: [ask("GET", "allOrders", symbol=SYMBOL, orderId=2**63), place(quantity="92233720368.54775808")],
    -1111: [place(quantity="0.000000001")],
    -1115: [place(timeInForce="GTX")],
    -1116: [place(type="SECRET")],
    -1117: [place(side="HOLD")],
    -1120: [get("klines", symbol=SYMBOL, interval="7m")],
    -1121: [get("depth", symbol="NOSUCH"), place(symbol="NOSUCH")],
    -1122: [get("ticker/price", symbolStatus="ASLEEP"), get("exchangeInfo", symbolStatus="ASLEEP")],
    -1127: [ask("GET", "myTrades", symbol=SYMBOL, startTime=1, endTime=DAY + 2)],
    -1128: [ask("GET", "myTrades", symbol=SYMBOL, startTime=1, fromId=1)],
    -1130: [get("depth", symbol=SYMBOL, limit=0), get("exchangeInfo", permissions="FLY")],
    -1134: [place(strategyType="999999")],
    -1139: [get("ticker/24hr", symbol=SYMBOL, type="LONG")],
    -1145: [after(place(), lambda d, one: cancel(d, one, cancelRestrictions="ONLY_OLD"))],
    -1151: [get("ticker/price", symbols=f"%5B%22{SYMBOL}%22,%22{SYMBOL}%22%5D")],
    -1152: [with_header("x-mbx-sbe", "three")],
    -1155: [with_header("x-mbx-sbe", "3:1")],
    -1158: [oco(**leg("above", "MARKET"))],
    -1160: [
        oco(
            belowType="STOP_LOSS_LIMIT",
            belowPrice="54000",
            belowStopPrice="55000",
            belowTimeInForce="IOC",
            belowIcebergQty="0.05",
        )
    ],
    -1165: [oco(side="BUY", **leg("below", "STOP_LOSS"))],
    -1166: [oco(**leg("above", "TAKE_PROFIT"), **leg("below", "LIMIT_MAKER"))],
    -1168: [oco(**leg("below", "LIMIT_MAKER"))],
    -1194: [with_header("x-mbx-time-unit", "SECOND")],
    -1196: [oco(side="BUY", **leg("above", "STOP_LOSS"), **leg("below", "STOP_LOSS"))],
    -1197: [oco(**leg("above", "STOP_LOSS"), **leg("below", "STOP_LOSS"))],
    -1198: [oco(side="BUY", **leg("above", "TAKE_PROFIT"), **leg("below", "TAKE_PROFIT"))],
    -1199: [oco(**leg("above", "TAKE_PROFIT"), **leg("below", "TAKE_PROFIT"))],
    -1210: [place(pegPriceType="SECRET_PEG")],
    -1211: [place(pegPriceType="MARKET_PEG", pegOffsetType="PERCENT", pegOffsetValue="1")],
    -1220: [get("depth", symbol=SYMBOL, symbolStatus="HALT")],
    -1222: [ask("POST", "orderList/opo", **OPO | {"workingSide": "SELL"})],
    -1223: [ask("POST", "orderList/opo", **OPO | {"pendingSide": "BUY"})],
    -2010: [place(quantity="100")],
    -2011: [ask("DELETE", "order", symbol=SYMBOL, orderId=999)],
    -2013: [ask("GET", "order", symbol=SYMBOL, orderId=999)],
    -2014: [wrong_key("short")],
    -2015: [wrong_key("x" * 64)],
    -2021: [replace(quantity="100")],
    -2022: [replace(cancelOrderId=999)],
    -2026: [archived],
    -2039: [after(place(), lambda d, one: d.ask("GET", "/api/v3/order", **named(one, origClientOrderId="other")))],
}
"""Some requests that are refused with each code."""

WEBSOCKET_CODES = {-1020, -1135, -2035, -2036}
"""What only frames of the WebSocket API can provoke."""


def named(order: Any, **params: Any) -> dict[str, Any]:
    """The parameters that name an order."""
    return {"symbol": SYMBOL, "orderId": order["orderId"], **params}


def cancel(desk: RestDesk, order: Any, **params: Any) -> Reply:
    """Cancel an order."""
    return desk.ask("DELETE", "/api/v3/order", **named(order, **params))


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """The published codes and texts."""
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the published vectors")
    path = Path(os.environ["TRADINGBOT_TEST_DATA"]) / "vectors" / "error_codes.json"
    return dict(json.loads(path.read_text()))


def fits(message: str, templates: list[str]) -> bool:
    """Whether a text is one of the published ones, %s being anything."""
    return any(re.fullmatch(re.escape(one).replace("%s", ".*"), message) for one in templates)


@pytest.mark.parametrize(
    ("code", "provoke"),
    [pytest.param(code, one, id=f"{code} {n}") for code, ones in CODES.items() for n, one in enumerate(ones)],
)
def test_a_request_is_refused_with_its_code_and_changes_nothing(code: int, provoke: Provoke) -> None:
    desk = RestDesk(limits=Limits(6000))
    reply = provoke(desk)
    assert reply.body["code"] == code, reply.body
    assert set(reply.body) - {"data"} == {"code", "msg"}
    statuses = {-1003: (418, 429), -1015: (429,), -2014: (401,), -2015: (401,), -2021: (409,)}
    assert reply.status in statuses.get(code, (400,))
    orders = desk.venue.exchange.open_orders(desk.key.uid)
    assert len(orders) <= 1, "what was refused was placed"


def test_the_texts_are_the_published_ones(published: dict[str, Any]) -> None:
    # The texts of -2021 and -2022 are published as their names.
    texts = {row["code"]: [*row["messages"], row["name"], row["name"] + "."] for row in published["codes"]}
    engine = [row["message"] for row in published["messages"]]
    for code, provokes in CODES.items():
        for provoke in provokes:
            message = provoke(RestDesk()).body["msg"]
            assert fits(message, engine if code in (-1013, -2010, -2011) else texts[code]), (code, message)


def test_the_document_says_of_each_published_code_how_it_is_provoked_or_why_not(published: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (-\d+) \| (\w+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(int(code) for code, _, _ in rows) == sorted(row["code"] for row in published["codes"])
    provoked = {int(code) for code, how, _ in rows if how in ("REST", "WebSocket")}
    assert provoked == CODES.keys() | WEBSOCKET_CODES
    assert {how for _, how, _ in rows} == {"REST", "WebSocket", "no"}
