"""Requests for order lists: the old form of an OCO, what each place takes, and the questions about lists."""

from __future__ import annotations

from typing import Any

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.server.rest import Reply
from support.paper import SYMBOL
from support.paper_rest import RestDesk

OLD = {"symbol": SYMBOL, "side": "SELL", "quantity": "1", "price": "61000", "stopPrice": "59000"}
PAIR = {
    "symbol": SYMBOL,
    "side": "SELL",
    "quantity": "1",
    "aboveType": "LIMIT_MAKER",
    "abovePrice": "61000",
    "belowType": "STOP_LOSS",
    "belowStopPrice": "59000",
}
WORKING = {
    "symbol": SYMBOL,
    "workingType": "LIMIT",
    "workingSide": "BUY",
    "workingPrice": "59000",
    "workingQuantity": "1",
    "workingTimeInForce": "GTC",
    "pendingSide": "SELL",
}


def legs(request: list_requests.NewOrderList) -> list[tuple[str, int, int, str | None]]:
    """Type, price, stop price (whole quote) and client id of each leg."""
    return [(one.type.value, one.price // 10**8, one.stop_price // 10**8, one.client_order_id) for one in request.legs]


def test_an_old_oco_is_a_limit_and_a_stop_leg() -> None:
    ids = {"limitClientOrderId": "limit", "stopClientOrderId": "stop"}
    assert legs(list_requests.old_oco(OLD | ids)) == [
        ("STOP_LOSS", 0, 59000, "stop"),
        ("LIMIT_MAKER", 61000, 0, "limit"),
    ]
    buy = OLD | ids | {"side": "BUY", "price": "59000", "stopPrice": "61000"}
    assert legs(list_requests.old_oco(buy)) == [("STOP_LOSS", 0, 61000, "stop"), ("LIMIT_MAKER", 59000, 0, "limit")]


def test_an_old_oco_with_a_stop_limit_price_has_a_stop_limit_leg() -> None:
    stop, _ = list_requests.old_oco(OLD | {"stopLimitPrice": "58900", "stopLimitTimeInForce": "IOC"}).legs
    assert (stop.type.value, stop.price, stop.time_in_force.value) == ("STOP_LOSS_LIMIT", 58900 * 10**8, "IOC")


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        pytest.param({"price": ""}, "-1102 .*'price'", id="no limit price"),
        pytest.param({"stopPrice": ""}, "-1102 .*'stopPrice'", id="no stop price"),
        pytest.param({"price": "6e4"}, "-1100 .*'price'", id="an exponent"),
        pytest.param({"stopLimitPrice": "58900"}, "-1102 .*'stopLimitTimeInForce'", id="no time in force"),
        pytest.param({"stopLimitTimeInForce": "GTC"}, "-1106 .*'stopLimitTimeInForce'", id="only a time in force"),
        pytest.param({"limitClientOrderId": "a b"}, "-1100 .*'limitClientOrderId'", id="an id with a blank"),
    ],
)
def test_an_old_oco_is_refused_by_its_own_names(params: dict[str, str], refusal: str) -> None:
    with pytest.raises(ExchangeError, match=refusal):
        list_requests.old_oco(OLD | params)


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        pytest.param({"workingType": "MARKET"}, "-1159", id="a working market order"),
        pytest.param({"workingType": "NONSENSE"}, "-1116 Invalid orderType.", id="an unknown working type"),
        pytest.param({"workingTimeInForce": ""}, "-1105", id="an empty time in force"),
        pytest.param({"pendingType": "LIMIT"}, "-1102 .*'pendingTimeInForce'", id="a pending limit without one"),
        pytest.param({"pendingType": "STOP_LOSS"}, "-1102 .*pendingStopPrice", id="a pending stop without a price"),
        pytest.param({"pendingQuantity": ""}, "-1102 .*'pendingQuantity'", id="no pending quantity"),
        pytest.param({"pendingPrice": "61000"}, "-1106 .*'pendingPrice'", id="a price of a market order"),
        pytest.param({"pendingSide": "HOLD"}, "-1117 Invalid side.", id="an unknown side"),
    ],
)
def test_an_oto_of_a_wrong_shape_is_refused(params: dict[str, str], refusal: str) -> None:
    oto = WORKING | {"pendingType": "MARKET", "pendingQuantity": "1"}
    list_requests.new_oto(oto)
    with pytest.raises(ExchangeError, match=refusal):
        list_requests.new_oto(oto | params)


@pytest.mark.parametrize("prefix", ["pendingAbove", "pendingBelow"])
def test_the_legs_of_a_pending_pair_are_called_by_their_names(prefix: str) -> None:
    otoco = WORKING | {
        "pendingQuantity": "1",
        "pendingAboveType": "TAKE_PROFIT_LIMIT",
        "pendingAboveStopPrice": "61000",
        "pendingAbovePrice": "60990",
        "pendingAboveTimeInForce": "GTC",
        "pendingBelowType": "STOP_LOSS_LIMIT",
        "pendingBelowStopPrice": "59000",
        "pendingBelowPrice": "58990",
        "pendingBelowTimeInForce": "GTC",
    }
    assert [one.type.value for one in list_requests.new_otoco(otoco).legs] == ["STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]
    for name in ("Price", "TimeInForce"):
        wanted = {key: value for key, value in otoco.items() if key != prefix + name}
        with pytest.raises(ExchangeError, match=f"-1102 .*'{prefix}{name}'"):
            list_requests.new_otoco(wanted)


def test_strategies_and_self_trade_prevention_reach_the_orders() -> None:
    labels = {"aboveStrategyId": "7", "aboveStrategyType": "1000001", "belowStrategyId": "8"}
    stop, profit = list_requests.new_oco(PAIR | labels | {"selfTradePreventionMode": "EXPIRE_BOTH"}).legs
    assert (profit.strategy_id, profit.strategy_type, stop.strategy_id, stop.strategy_type) == (7, 1000001, 8, None)
    assert {stop.stp.value, profit.stp.value} == {"EXPIRE_BOTH"}


def test_an_iceberg_leg_must_be_good_til_cancelled() -> None:
    leg = {"belowType": "STOP_LOSS_LIMIT", "belowPrice": "58990", "belowTimeInForce": "IOC", "belowIcebergQty": "0.5"}
    with pytest.raises(ExchangeError, match="-1160 Parameter 'belowIcebergQty' is not supported"):
        list_requests.new_oco(PAIR | leg)


@pytest.fixture
def desk() -> RestDesk:
    """An exchange where nothing moves."""
    return RestDesk()


def place(desk: RestDesk, **params: Any) -> Reply:
    """A sell OCO around the market."""
    return desk.ask("POST", "/api/v3/orderList/oco", **PAIR | params)


def test_a_list_is_found_by_either_id_and_by_both_if_they_belong_together(desk: RestDesk) -> None:
    placed = place(desk, listClientOrderId="pair").body
    assert place(desk, listClientOrderId="pair").body == {"code": -2010, "msg": "Duplicate order sent."}
    ident = placed["orderListId"]
    path = "/api/v3/orderList"
    for params in ({"orderListId": ident}, {"origClientOrderId": "pair"}):
        assert desk.ask("GET", path, **params).body["listClientOrderId"] == "pair"
    missing = {"code": -2018, "msg": "Order list does not exist."}
    for params in ({"orderListId": 99}, {"orderListId": ident, "origClientOrderId": "other"}):
        assert desk.ask("GET", path, **params).body == missing
    assert desk.ask("GET", path).body["code"] == -1128
    other = desk.account(USDT="1")
    assert desk.ask("GET", path, key=other, orderListId=ident).body == missing


def test_a_list_is_cancelled_by_ids_that_belong_together(desk: RestDesk) -> None:
    ident = place(desk, listClientOrderId="pair").body["orderListId"]
    path = "/api/v3/orderList"
    assert desk.ask("DELETE", path, symbol=SYMBOL).body["code"] == -1102
    mixed = desk.ask("DELETE", path, symbol=SYMBOL, orderListId=ident, listClientOrderId="other")
    assert mixed.body == {"code": -2011, "msg": "Unknown order sent."}
    gone = desk.ask("DELETE", path, symbol=SYMBOL, listClientOrderId="pair", newClientOrderId="bye").body
    assert {one["clientOrderId"] for one in gone["orderReports"]} == {"bye"}
    assert desk.ask("GET", "/api/v3/openOrderList").body == []
    assert desk.ask("GET", path, orderListId=ident).body["listStatusType"] == "ALL_DONE"


def test_lists_are_paged_by_id_or_by_time(desk: RestDesk) -> None:
    idents = [place(desk, quantity="0.1").body["orderListId"] for _ in range(3)]
    path = "/api/v3/allOrderList"
    assert [one["orderListId"] for one in desk.ask("GET", path).body] == idents
    assert [one["orderListId"] for one in desk.ask("GET", path, fromId=idents[1], limit=1).body] == idents[1:2]
    assert len(desk.ask("GET", path, startTime=desk.now, endTime=desk.now).body) == 3
    assert desk.ask("GET", path, fromId=0, startTime=desk.now).body["code"] == -1128
    too_long = desk.ask("GET", path, startTime=desk.now - 86_400_001, endTime=desk.now)
    assert too_long.body == {"code": -1127, "msg": "More than 24 hours between startTime and endTime."}


def test_cancelling_all_is_one_cancel_with_one_id(desk: RestDesk) -> None:
    path = "/api/v3/openOrders"
    assert desk.ask("DELETE", path, symbol=SYMBOL).body == {"code": -2011, "msg": "Unknown order sent."}
    desk.place()
    place(desk)
    answers = desk.ask("DELETE", path, symbol=SYMBOL).body
    assert ["orderReports" in one for one in answers] == [False, True]
    reports = [answers[0], *answers[1]["orderReports"]]
    assert len({one["clientOrderId"] for one in reports}) == 1


@pytest.mark.parametrize(
    ("path", "count"),
    [
        pytest.param("/api/v3/orderList/oco", 2, id="oco"),
        pytest.param("/api/v3/order/oco", 2, id="old oco"),
        pytest.param("/api/v3/orderList/oto", 2, id="oto"),
        pytest.param("/api/v3/orderList/otoco", 3, id="otoco"),
        pytest.param("/api/v3/orderList/opo", 2, id="opo"),
        pytest.param("/api/v3/orderList/opoco", 3, id="opoco"),
    ],
)
def test_each_order_of_a_list_counts(desk: RestDesk, path: str, count: int) -> None:
    kind = path.rpartition("/")[2]
    params = OLD if path == "/api/v3/order/oco" else PAIR
    if kind in ("oto", "opo"):
        params = WORKING | {"pendingType": "LIMIT_MAKER", "pendingPrice": "61000"}
    elif kind in ("otoco", "opoco"):
        pair = {name: value for name, value in PAIR.items() if name.startswith(("above", "below"))}
        params = WORKING | {f"pending{name[0].upper()}{name[1:]}": value for name, value in pair.items()}
    if kind in ("oto", "otoco"):
        params = params | {"pendingQuantity": "1"}
    reply = desk.ask("POST", path, **params)
    assert (reply.status, len(reply.body["orders"])) == (200, count)
    assert reply.headers["X-MBX-ORDER-COUNT-10S"] == str(count)
    assert (reply.body["listStatusType"], reply.body["listOrderStatus"]) == ("EXEC_STARTED", "EXECUTING")


def test_no_symbol_has_smart_order_routing(desk: RestDesk) -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    for path in ("/api/v3/sor/order", "/api/v3/sor/order/test"):
        assert desk.ask("POST", path, **order).body == {"code": -1013, "msg": "This symbol has no SOR."}
        assert desk.ask("POST", path, **order | {"side": ""}).body["code"] == -1102
    assert desk.ask("GET", "/api/v3/myAllocations", symbol=SYMBOL).body == []
    assert desk.ask("GET", "/api/v3/myAllocations", symbol="NONE").body["code"] == -1121
