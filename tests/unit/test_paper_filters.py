"""What the paper exchange refuses, with Binance's codes and texts."""

from __future__ import annotations

import pytest

from paper_exchange.core.errors import ExchangeError
from support.paper import Desk

ALICE = 1


@pytest.fixture
def desk() -> Desk:
    """An account with both assets and a book around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.book([("60000", "1")], [("60001", "1")])
    desk.trade("60000")
    return desk


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        pytest.param({"price": "60000.001"}, -1013, "Filter failure: PRICE_FILTER", id="price off the tick"),
        pytest.param({"quantity": "0.000011"}, -1013, "Filter failure: LOT_SIZE", id="quantity off the step"),
        pytest.param({"quantity": "0"}, -1013, "Filter failure: LOT_SIZE", id="no quantity"),
        pytest.param({"quantity": "0.00008"}, -1013, "Filter failure: NOTIONAL", id="too little money"),
        pytest.param({"price": "11999"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE", id="far below the market"),
        pytest.param({"price": "300001"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE", id="far above the market"),
        pytest.param({"quantity": "2"}, -2010, "Account has insufficient balance for requested action.", id="no money"),
        pytest.param(
            {"quantity": "0.000000001"}, -1111, "Parameter 'quantity' has too much precision.", id="nine decimals"
        ),
        pytest.param(
            {"quantity": "1e-3"},
            -1100,
            "Illegal characters found in parameter 'quantity'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'.",
            id="an exponent",
        ),
        pytest.param(
            {"newClientOrderId": "a b"},
            -1100,
            "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[a-zA-Z0-9-_]{1,36}$'.",
            id="a client id with a space",
        ),
        pytest.param({"symbol": "NOSUCH"}, -1121, "Invalid symbol.", id="unknown symbol"),
        pytest.param({"timeInForce": "GTX"}, -1115, "Invalid timeInForce.", id="unknown time in force"),
        pytest.param({"stopPrice": "1"}, -1106, "Parameter 'stopPrice' sent when not required.", id="a stop price"),
        pytest.param({"icebergQty": "0.009"}, -1013, "Filter failure: ICEBERG_PARTS", id="an iceberg of 112 parts"),
        pytest.param(
            {"icebergQty": "0.1", "timeInForce": "IOC"},
            -1106,
            "Parameter 'icebergQty' sent when not required.",
            id="an iceberg that does not rest",
        ),
        pytest.param(
            {"trailingDelta": "100"}, -1106, "Parameter 'trailingDelta' sent when not required.", id="a trailing limit"
        ),
        pytest.param(
            {"selfTradePreventionMode": "NONE"},
            -1013,
            "This symbol does not allow the specified self-trade prevention mode.",
            id="a mode that is not allowed",
        ),
    ],
)
def test_a_bad_order_is_refused_and_nothing_changes(
    desk: Desk, params: dict[str, str], code: int, message: str
) -> None:
    with pytest.raises(ExchangeError) as refused:
        desk.place(ALICE, "BUY", **{"price": "59000", "quantity": "1", **params})
    assert (refused.value.code, refused.value.message) == (code, message)
    assert desk.exchange.open_orders(ALICE) == []
    assert desk.held(ALICE, "USDT") == ("100000", "0")


@pytest.mark.parametrize("absent", ["side", "type", "quantity", "price", "timeInForce", "symbol"])
def test_a_missing_parameter_is_named(absent: str) -> None:
    from paper_exchange.core import requests

    params = {
        "symbol": "BTCUSDT",
        "side": "BUY",
        "type": "LIMIT",
        "quantity": "1",
        "price": "1",
        "timeInForce": "GTC",
    }
    del params[absent]
    with pytest.raises(ExchangeError, match=f"-1102 Mandatory parameter '{absent}' was not sent"):
        requests.new_order(params)


@pytest.mark.parametrize(
    "params",
    [pytest.param({"quantity": "180.00001"}, id="by base"), pytest.param({"quoteOrderQty": "10801000"}, id="by quote")],
)
def test_a_market_order_may_be_smaller_only_than_a_limit(desk: Desk, params: dict[str, str]) -> None:
    desk.open(2, USDT="20000000")
    desk.book([], [("60001", "500")])
    with pytest.raises(ExchangeError, match="-1013 Filter failure: MARKET_LOT_SIZE"):
        desk.place(2, "BUY", "MARKET", **params)
    assert desk.place(2, "BUY", "MARKET", quantity="180", response="RESULT")["status"] == "FILLED"


def test_a_market_order_is_measured_by_the_average_price(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="NOTIONAL"):
        desk.place(ALICE, "BUY", "MARKET", quantity="0.00008")


def test_no_more_than_five_conditional_orders_wait_at_once(desk: Desk) -> None:
    for _ in range(5):
        desk.place(ALICE, "SELL", "STOP_LOSS", quantity="0.1", stopPrice="59000")
    with pytest.raises(ExchangeError, match="-2010 Filter failure: MAX_NUM_ALGO_ORDERS"):
        desk.place(ALICE, "SELL", "STOP_LOSS", quantity="0.1", stopPrice="59000")


def test_no_more_than_two_hundred_orders_are_open_at_once(desk: Desk) -> None:
    for _ in range(200):
        desk.place(ALICE, "BUY", price="50000", quantity="0.001")
    with pytest.raises(ExchangeError, match="-2010 Filter failure: MAX_NUM_ORDERS"):
        desk.place(ALICE, "BUY", price="50000", quantity="0.001")
