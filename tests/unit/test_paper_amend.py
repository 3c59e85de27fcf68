"""Amending an order: it becomes smaller, and keeps its number and its place in the queue."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.requests import AmendTarget
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, brief, units
from support.paper_rest import RestDesk

ALICE, BOB = 1, 2


@pytest.fixture
def desk() -> Desk:
    """Two accounts and a book around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.open(BOB, USDT="100000")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.events(ALICE)
    return desk


def amend(desk: Desk, order_id: int, quantity: str, ident: str | None = None) -> dict[str, Any]:
    """Reduce an order of Alice."""
    return desk.exchange.amend(ALICE, SYMBOL, AmendTarget(order_id, None, units(quantity), ident), desk.tick())


def test_a_smaller_order_keeps_its_number_its_place_and_frees_money(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1", newClientOrderId="mine")
    desk.place(BOB, "BUY", price="59995", quantity="1")
    answer = amend(desk, 1, "0.4")
    amended = answer["amendedOrder"]
    assert (amended["orderId"], amended["origClientOrderId"], amended["qty"]) == (1, "mine", "0.40000000")
    assert amended["clientOrderId"] not in ("", "mine")
    assert "listStatus" not in answer
    assert desk.held(ALICE, "USDT") == ("76002", "23998")
    desk.trade("59995", "0.5")
    assert (desk.status(1)[:2], desk.status(2)[:2]) == (("FILLED", "0.4"), ("PARTIALLY_FILLED", "0.1"))


def test_the_book_shows_less(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1")
    amend(desk, 1, "0.4")
    assert desk.exchange.market(SYMBOL).bids.quantity(units("59995")) == units("0.4")


def test_the_owner_is_told_of_a_replacement(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1", newClientOrderId="mine")
    desk.trade("59995", "0.1")
    desk.events(ALICE)
    answer = amend(desk, 1, "0.4", "yours")
    events = desk.events(ALICE)
    assert brief(events) == ["REPLACED 1 PARTIALLY_FILLED", "outboundAccountPosition"]
    told = events[0]
    assert (told["c"], told["C"], told["q"], told["z"]) == ("yours", "mine", "0.40000000", "0.10000000")
    assert (told["I"], told["T"]) == (answer["executionId"], answer["transactTime"])
    assert desk.exchange.find(ALICE, SYMBOL, None, "mine") is None
    assert desk.exchange.find_order(ALICE, SYMBOL, None, "yours").order_id == 1


def test_the_client_id_may_stay(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1", newClientOrderId="mine")
    assert amend(desk, 1, "0.4", "mine")["amendedOrder"]["clientOrderId"] == "mine"
    assert desk.exchange.find_order(ALICE, SYMBOL, None, "mine").order_id == 1


def test_amending_one_of_a_pair_reduces_both(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    desk.events(ALICE)
    answer = amend(desk, 2, "0.4")
    assert answer["listStatus"]["listOrderStatus"] == "EXECUTING"
    assert set(answer["listStatus"]) == {
        "orderListId",
        "contingencyType",
        "listOrderStatus",
        "listClientOrderId",
        "symbol",
        "orders",
    }
    events = desk.events(ALICE)
    assert brief(events) == ["REPLACED 2 NEW", "REPLACED 1 NEW", "list EXECUTING", "outboundAccountPosition"]
    assert (events[2]["l"], events[2]["O"][1]["c"]) == ("UPDATED", answer["amendedOrder"]["clientOrderId"])
    assert desk.held(ALICE, "BTC") == ("4.6", "0.4")
    desk.push("59000")
    assert (desk.status(1), desk.status(2)[2]) == (("FILLED", "0.4", None), "OCO_TRIGGER")
    assert desk.held(ALICE, "BTC") == ("4.6", "0")


def test_a_list_is_not_told_as_updated_when_no_id_changed(desk: Desk) -> None:
    ident = desk.oco(ALICE, "1", stop="59000", profit="61000")["orders"][1]["clientOrderId"]
    desk.events(ALICE)
    amend(desk, 2, "0.4", ident)
    assert brief(desk.events(ALICE)) == ["REPLACED 2 NEW", "REPLACED 1 NEW", "outboundAccountPosition"]


def test_working_and_pending_orders_are_amended_each_for_itself(desk: Desk) -> None:
    desk.bracket(ALICE, "0.5", limit="59000", stop="58000", profit="61000", workingTimeInForce="GTC")
    assert amend(desk, 2, "0.3")["amendedOrder"]["status"] == "PENDING_NEW"
    amend(desk, 1, "0.4")
    assert [desk.exchange.orders[one].quantity for one in (1, 2, 3)] == [units("0.4"), units("0.3"), units("0.3")]
    desk.push("58999")
    assert [desk.status(one)[0] for one in (1, 2, 3)] == ["FILLED", "NEW", "NEW"]


@pytest.mark.parametrize(
    ("quantity", "refusal"),
    [
        pytest.param("1.1", "-2038 Order amend .quantity increase. is not supported.", id="more"),
        pytest.param("1", "-2038 The requested action would change no state; rejecting.", id="as much"),
        pytest.param("0.2", "-2038 Price . QTY is zero or less.", id="what was filled"),
        pytest.param("0.400001", "-1013 Filter failure: LOT_SIZE", id="a part of a lot"),
        pytest.param("0", "-1013 Filter failure: LOT_SIZE", id="nothing"),
        pytest.param("0.00008", "-1013 Filter failure: NOTIONAL", id="too little money"),
    ],
)
def test_only_a_valid_smaller_quantity_is_accepted(desk: Desk, quantity: str, refusal: str) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1")
    desk.trade("59995", "0.2")
    desk.events(ALICE)
    with pytest.raises(ExchangeError, match=refusal):
        amend(desk, 1, quantity)
    assert (desk.exchange.orders[1].quantity, desk.events(ALICE)) == (units("1"), [])


def test_an_order_is_amended_ten_times_at_most(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="1")
    for tenths in range(9, -1, -1):
        amend(desk, 1, f"0.{tenths}5")
    with pytest.raises(ExchangeError, match="-2038 Filter failure: MAX_NUM_ORDER_AMENDS"):
        amend(desk, 1, "0.01")


def test_an_id_in_use_is_refused(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="0.1")
    desk.place(ALICE, "BUY", price="59994", quantity="0.1", newClientOrderId="other")
    with pytest.raises(ExchangeError, match="-2038 Duplicate order sent"):
        amend(desk, 1, "0.05", "other")


def test_an_order_that_is_over_or_of_somebody_else_is_unknown(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59995", quantity="0.1")
    desk.cancel(ALICE, 1)
    desk.place(BOB, "BUY", price="59995", quantity="0.1")
    for order_id in (1, 2, 99):
        with pytest.raises(ExchangeError, match="-2038 Unknown order sent"):
            amend(desk, order_id, "0.05")


def test_the_sale_of_an_opo_is_not_amended_before_it_begins(desk: Desk) -> None:
    request = list_requests.new_opo(
        {
            "symbol": SYMBOL,
            "workingType": "LIMIT",
            "workingSide": "BUY",
            "workingPrice": "59995",
            "workingQuantity": "0.1",
            "workingTimeInForce": "GTC",
            "pendingType": "LIMIT_MAKER",
            "pendingSide": "SELL",
            "pendingPrice": "61000",
        }
    )
    desk.exchange.place_list(ALICE, request, desk.tick())
    with pytest.raises(ExchangeError, match=r"-2038 Order amend \(pending OPO order\) is not supported"):
        amend(desk, 2, "0.05")
    amend(desk, 1, "0.08")
    desk.trade("59994", "0.1")
    amend(desk, 2, "0.05")
    assert desk.exchange.orders[2].quantity == units("0.05")


def test_amendments_are_listed_and_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    desk = Desk()
    desk.open(ALICE, USDT="100000")
    desk.book([("59990", "2")], [("60001", "1")])
    desk.trade("60000")
    desk.place(ALICE, "BUY", price="59995", quantity="1", newClientOrderId="a")
    amend(desk, 1, "0.5", "b")
    store.save(desk.exchange.take_changes())
    again = Exchange([SYMBOLS[SYMBOL]], desk.now)
    store.restore(again)
    assert again.orders[1].amendments == desk.exchange.orders[1].amendments
    assert again.find_order(ALICE, SYMBOL, None, "b").quantity == units("0.5")
    assert again.find(ALICE, SYMBOL, None, "a") is None
    store.close()


def test_orders_stored_before_there_were_amendments_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    desk = Desk()
    desk.open(ALICE, USDT="100000")
    desk.place(ALICE, "BUY", price="59995", quantity="1")
    store.save(desk.exchange.take_changes())
    store.close()
    with sqlite3.connect(tmp_path / "exchange.sqlite") as db:
        (body,) = db.execute("SELECT body FROM orders").fetchone()
        row = json.loads(body)
        del row["amendments"]
        db.execute("UPDATE orders SET body = ?", (json.dumps(row),))
    store = Store(tmp_path)
    assert [order.amendments for order in store.history.open_orders([])] == [[]]
    store.close()


def test_amending_costs_no_order_and_is_asked_for_by_execution() -> None:
    desk = RestDesk()
    order_id = desk.place(quantity="0.05").body["orderId"]
    path = "/api/v3/order/amend/keepPriority"
    for quantity in ("0.04", "0.03"):
        reply = desk.ask("PUT", path, symbol=SYMBOL, orderId=order_id, newQty=quantity)
        assert (reply.status, "X-MBX-ORDER-COUNT-10S" in reply.headers) == (200, False)
    listed = desk.ask("GET", "/api/v3/order/amendments", symbol=SYMBOL, orderId=order_id).body
    assert [(one["origQty"], one["newQty"]) for one in listed] == [
        ("0.05000000", "0.04000000"),
        ("0.04000000", "0.03000000"),
    ]
    assert listed[0]["newClientOrderId"] == listed[1]["origClientOrderId"]
    after = listed[1]["executionId"]
    page = desk.ask("GET", "/api/v3/order/amendments", symbol=SYMBOL, orderId=order_id, fromExecutionId=after)
    assert page.body == listed[1:]
    assert desk.ask("PUT", path, symbol=SYMBOL, newQty="0.01").body["code"] == -1102
    assert desk.ask("PUT", path, symbol=SYMBOL, orderId=order_id).body["code"] == -1102
    assert desk.ask("GET", "/api/v3/order/amendments", symbol=SYMBOL).body["code"] == -1102
