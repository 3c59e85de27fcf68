"""Who may trade what on the paper exchange: the status of a symbol, and what an account is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.administration import Administration
from support.paper import SYMBOL, units
from support.paper_rest import RestDesk

MAY_NOT_TRADE = "This account may not place or cancel orders."
CLOSED = "Market is closed."

LEGS = {"AboveType": "LIMIT_MAKER", "AbovePrice": "70000", "BelowType": "STOP_LOSS", "BelowStopPrice": "50000"}
PAIR = {"pendingSide": "SELL", **{f"pending{name}": value for name, value in LEGS.items()}}
LIMIT = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "50000"}
WORKING = {f"working{name[0].upper()}{name[1:]}": value for name, value in LIMIT.items()}
ENTERING: dict[str, dict[str, str]] = {
    "POST /api/v3/order": LIMIT,
    "POST /api/v3/order/test": LIMIT,
    "POST /api/v3/order/oco": {"side": "SELL", "quantity": "0.01", "price": "70000", "stopPrice": "50000"},
    "POST /api/v3/orderList/oco": {
        "side": "SELL",
        "quantity": "0.01",
        **{name[0].lower() + name[1:]: value for name, value in LEGS.items()},
    },
    "POST /api/v3/orderList/oto": WORKING | {"pendingSide": "SELL", "pendingType": "MARKET", "pendingQuantity": "0.01"},
    "POST /api/v3/orderList/otoco": WORKING | PAIR | {"pendingQuantity": "0.01"},
    "POST /api/v3/orderList/opo": WORKING | {"pendingSide": "SELL", "pendingType": "MARKET"},
    "POST /api/v3/orderList/opoco": WORKING | PAIR,
}
"""Every endpoint that brings orders in, with parameters that it takes."""


@pytest.fixture
def desk() -> RestDesk:
    """An exchange whose market stands at 60000."""
    return RestDesk()


def asked(desk: RestDesk, endpoint: str, **params: Any) -> dict[str, Any]:
    """The answer of an endpoint about BTCUSDT."""
    method, path = endpoint.split(" ")
    body: dict[str, Any] = desk.ask(method, path, symbol=SYMBOL, **params).body
    return body


def bar(desk: RestDesk) -> None:
    """The account may trade no more."""
    Administration(desk.venue).actions["change_account"]({"uid": str(desk.key.uid)}, {"canTrade": False})


def change_status(desk: RestDesk, status: str = "HALT") -> None:
    """What clients may do with the symbol from now on."""
    Administration(desk.venue).actions["change_symbol"]({"symbol": SYMBOL}, {"status": status})


def ungroup(desk: RestDesk) -> None:
    """The account has not the group that the symbol is for."""
    Administration(desk.venue).actions["change_account"]({"uid": str(desk.key.uid)}, {"permissions": ["TRD_GRP_004"]})


FORBID = [
    pytest.param(bar, MAY_NOT_TRADE, id="an account that may not trade"),
    pytest.param(change_status, CLOSED, id="a symbol that is halted"),
    pytest.param(ungroup, "This symbol is not permitted for this account.", id="a symbol for others"),
]


@pytest.mark.parametrize("endpoint", ENTERING)
@pytest.mark.parametrize(("forbid", "told"), FORBID)
def test_no_endpoint_lets_an_order_in_that_is_not_allowed(
    desk: RestDesk, endpoint: str, forbid: Callable[[RestDesk], None], told: str
) -> None:
    assert "code" not in asked(desk, endpoint, **ENTERING[endpoint])
    forbid(desk)
    before = dict(desk.venue.exchange.orders)
    assert asked(desk, endpoint, **ENTERING[endpoint]) == {"code": -2010, "msg": told}
    assert desk.venue.exchange.orders == before


@pytest.mark.parametrize(("forbid", "told"), FORBID)
def test_an_order_is_not_amended_where_none_may_be_placed(
    desk: RestDesk, forbid: Callable[[RestDesk], None], told: str
) -> None:
    order = desk.venue.exchange.orders[desk.place(quantity="0.02").body["orderId"]]
    forbid(desk)
    amended = asked(desk, "PUT /api/v3/order/amend/keepPriority", orderId=order.order_id, newQty="0.01")
    assert (amended, order.quantity) == ({"code": -2038, "msg": told}, units("0.02"))


@pytest.mark.parametrize(
    ("forbid", "mode", "code", "told"),
    [
        pytest.param(bar, "STOP_ON_FAILURE", -2022, (MAY_NOT_TRADE, None), id="may not trade, stop"),
        pytest.param(bar, "ALLOW_FAILURE", -2022, (MAY_NOT_TRADE, MAY_NOT_TRADE), id="may not trade, go on"),
        pytest.param(change_status, "STOP_ON_FAILURE", -2022, (CLOSED, None), id="halted, stop"),
        pytest.param(
            lambda desk: change_status(desk, "CANCEL_ONLY"), "STOP_ON_FAILURE", -2021, (None, CLOSED), id="cancel only"
        ),
    ],
)
def test_an_order_is_replaced_as_far_as_it_may_be_cancelled_and_placed(
    desk: RestDesk,
    forbid: Callable[[RestDesk], None],
    mode: str,
    code: int,
    told: tuple[str | None, str | None],
) -> None:
    order_id = desk.place().body["orderId"]
    forbid(desk)
    answer = asked(desk, "POST /api/v3/order/cancelReplace", **LIMIT, cancelOrderId=order_id, cancelReplaceMode=mode)
    assert answer["code"] == code
    halves = [answer["data"][name] or {} for name in ("cancelResponse", "newOrderResponse")]
    assert [half.get("msg") for half in halves] == list(told)
    assert desk.venue.exchange.orders[order_id].open is (told[0] is not None)


def statuses(desk: RestDesk, order_id: int) -> tuple[str, str]:
    """What is said to a new order, and to a cancel."""
    placed = desk.place()
    cancelled = desk.ask("DELETE", "/api/v3/order", symbol=SYMBOL, orderId=order_id)
    return placed.body.get("msg", "placed"), cancelled.body.get("msg", "cancelled")


@pytest.mark.parametrize(
    ("status", "placed", "cancelled"),
    [
        pytest.param("HALT", CLOSED, CLOSED, id="halted"),
        pytest.param("BREAK", CLOSED, CLOSED, id="in a break"),
        pytest.param("CANCEL_ONLY", CLOSED, "cancelled", id="cancel only"),
        pytest.param("TRADING", "placed", "cancelled", id="trading"),
    ],
)
def test_a_symbol_takes_what_its_status_lets_it(desk: RestDesk, status: str, placed: str, cancelled: str) -> None:
    order_id = desk.place().body["orderId"]
    change_status(desk, status)
    assert desk.send("GET", "/api/v3/exchangeInfo").body["symbols"][0]["status"] == status
    assert statuses(desk, order_id) == (placed, cancelled)


def test_a_symbol_has_its_status_after_a_restart_and_a_reset_until_it_is_changed(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    change_status(desk)
    desk.restart()
    assert desk.send("GET", "/api/v3/exchangeInfo").body["symbols"][0]["status"] == "HALT"
    assert desk.place().body["msg"] == CLOSED
    desk.venue.reset({"USDT": units("1000")})
    desk.restart()
    assert desk.place().body["msg"] == CLOSED
    change_status(desk, "TRADING")
    desk.restart()
    assert desk.place().status == 200


def test_an_account_that_may_not_trade_neither_places_nor_cancels(desk: RestDesk) -> None:
    order_id = desk.place().body["orderId"]
    bar(desk)
    assert statuses(desk, order_id) == (MAY_NOT_TRADE, MAY_NOT_TRADE)
    assert desk.ask("GET", "/api/v3/account").body["canTrade"] is False


def test_an_account_trades_symbols_of_its_groups(desk: RestDesk) -> None:
    market = desk.venue.exchange.market(SYMBOL)
    market.rules = replace(market.rules, permission_sets=(("TRD_GRP_004", "TRD_GRP_005"),))
    assert desk.place().body == {"code": -2010, "msg": "This symbol is not permitted for this account."}
    desk.venue.exchange.accounts[desk.key.uid].permissions = ["SPOT", "TRD_GRP_005"]
    assert desk.place().status == 200
    assert desk.ask("GET", "/api/v3/account").body["permissions"] == ["SPOT", "TRD_GRP_005"]
