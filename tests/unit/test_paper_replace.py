"""Cancel-replace: one order goes, another comes, and the answer tells what became of each half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.requests import CancelTarget
from paper_exchange.server.rest import Reply
from support.paper import SYMBOL, Desk, brief
from support.paper_rest import RestDesk

ALICE = 1
LIMITED = ExchangeError(-1015, "Too many new orders.", status=429, retry_at=7)


@pytest.fixture
def desk() -> Desk:
    """An account with one resting order, 1, and a book around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="10000", BTC="1")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.place(ALICE, "BUY", price="50000", quantity="0.1", newClientOrderId="first")
    desk.events(ALICE)
    return desk


def replace(
    desk: Desk,
    order_id: int = 1,
    *,
    go_on: bool = False,
    restriction: str = "",
    excess: ExchangeError | None = None,
    **params: str,
) -> dict[str, Any]:
    """Cancel an order and buy 0.1 at 51000 instead, unless the parameters say otherwise."""
    wanted = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "51000", "quantity": "0.1"} | params
    request = requests.new_order({"symbol": SYMBOL} | {name: value for name, value in wanted.items() if value})
    target = CancelTarget(order_id, None, "the-cancel", restriction)
    return desk.exchange.cancel_replace(ALICE, target, request, desk.tick(), go_on=go_on, excess=excess)


def refused(call: Callable[[], Any]) -> ExchangeError:
    """The refusal of a call."""
    with pytest.raises(ExchangeError) as caught:
        call()
    return caught.value


def results(error: ExchangeError) -> tuple[str, str]:
    """The results of both halves."""
    assert error.data is not None
    return error.data["cancelResult"], error.data["newOrderResult"]


def test_both_halves_succeed_and_money_of_the_first_pays_for_the_second(desk: Desk) -> None:
    answer = replace(desk, price="60000", quantity="0.16")
    assert (answer["cancelResult"], answer["newOrderResult"]) == ("SUCCESS", "SUCCESS")
    assert (answer["cancelResponse"]["orderId"], answer["cancelResponse"]["status"]) == (1, "CANCELED")
    assert answer["cancelResponse"]["clientOrderId"] == "the-cancel"
    assert (answer["newOrderResponse"]["orderId"], answer["newOrderResponse"]["fills"]) == (2, [])
    assert desk.held(ALICE, "USDT") == ("400", "9600")
    assert brief(desk.events(ALICE)) == ["CANCELED 1 CANCELED", "NEW 2 NEW", "outboundAccountPosition"]


def test_the_new_order_may_take_over_the_client_id(desk: Desk) -> None:
    answer = replace(desk, newClientOrderId="first")
    assert answer["newOrderResponse"]["clientOrderId"] == "first"


def test_without_a_cancel_nothing_is_placed_when_it_shall_stop(desk: Desk) -> None:
    error = refused(lambda: replace(desk, 99))
    assert (error.status, error.code, error.message) == (400, -2022, "Order cancel-replace failed.")
    assert results(error) == ("FAILURE", "NOT_ATTEMPTED")
    assert error.data is not None
    assert error.data["cancelResponse"] == {"code": -2011, "msg": "Unknown order sent."}
    assert error.data["newOrderResponse"] is None
    assert [one.order_id for one in desk.exchange.open_orders(ALICE)] == [1]


def test_without_a_cancel_the_new_order_is_placed_when_it_shall_go_on(desk: Desk) -> None:
    error = refused(lambda: replace(desk, 99, go_on=True, price="40000"))
    assert (error.status, error.code, error.message) == (409, -2021, "Order cancel-replace partially failed.")
    assert results(error) == ("FAILURE", "SUCCESS")
    assert [one.order_id for one in desk.exchange.open_orders(ALICE)] == [1, 2]


def test_a_new_order_that_fails_leaves_the_first_cancelled_and_is_told_as_rejected(desk: Desk) -> None:
    error = refused(lambda: replace(desk, type="LIMIT_MAKER", timeInForce="", price="60005"))
    assert (error.status, error.code) == (409, -2021)
    assert results(error) == ("SUCCESS", "FAILURE")
    assert error.data is not None
    assert error.data["newOrderResponse"] == {"code": -2010, "msg": "Order would immediately match and take."}
    events = desk.events(ALICE)
    assert brief(events) == ["CANCELED 1 CANCELED", "REJECTED 2 REJECTED", "outboundAccountPosition"]
    assert events[1]["r"] == "WOULD_MATCH_IMMEDIATELY"
    assert desk.exchange.open_orders(ALICE) == []
    assert desk.held(ALICE, "USDT") == ("10000", "0")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        pytest.param({"quantity": "1"}, "INSUFFICIENT_BALANCES", id="too little money"),
        pytest.param(
            {"type": "STOP_LOSS_LIMIT", "stopPrice": "59000", "price": "59000"},
            "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
            id="a stop on the wrong side",
        ),
    ],
)
def test_a_rejection_names_its_reason(desk: Desk, params: dict[str, str], reason: str) -> None:
    refused(lambda: replace(desk, **params))
    assert [event["r"] for event in desk.events(ALICE) if event.get("x") == "REJECTED"] == [reason]


def test_both_halves_may_fail(desk: Desk) -> None:
    error = refused(lambda: replace(desk, 99, go_on=True, quantity="1"))
    assert (error.status, error.code, results(error)) == (400, -2022, ("FAILURE", "FAILURE"))
    assert brief(desk.events(ALICE)) == []


def test_filters_are_checked_before_anything_is_cancelled(desk: Desk) -> None:
    error = refused(lambda: replace(desk, price="51000.001"))
    assert (error.code, error.message, error.data) == (-1013, "Filter failure: PRICE_FILTER", None)
    assert desk.status(1)[0] == "NEW"


def test_the_cancel_is_restricted(desk: Desk) -> None:
    error = refused(lambda: replace(desk, restriction="ONLY_PARTIALLY_FILLED"))
    assert results(error) == ("FAILURE", "NOT_ATTEMPTED")
    assert error.data is not None
    assert error.data["cancelResponse"]["msg"] == "Order was not canceled due to cancel restrictions."
    desk.trade("49999", "0.04")
    answer = replace(desk, restriction="ONLY_PARTIALLY_FILLED")
    assert answer["cancelResponse"]["executedQty"] == "0.04000000"


def test_cancelling_a_leg_cancels_its_list(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    answer = replace(desk, 2, side="SELL", price="62000", quantity="1")
    assert answer["cancelResponse"]["listOrderStatus"] == "ALL_DONE"
    assert [desk.status(one)[0] for one in (2, 3, 4)] == ["CANCELED", "CANCELED", "NEW"]


@pytest.mark.parametrize(
    ("order_id", "go_on", "answer", "halves"),
    [
        pytest.param(1, False, (429, -2021), ("SUCCESS", "FAILURE"), id="stop, cancelled"),
        pytest.param(99, False, (429, -2022), ("FAILURE", "NOT_ATTEMPTED"), id="stop, nothing to cancel"),
        pytest.param(1, True, (409, -2021), ("SUCCESS", "FAILURE"), id="go on, cancelled"),
        pytest.param(99, True, (400, -2022), ("FAILURE", "FAILURE"), id="go on, nothing to cancel"),
    ],
)
def test_beyond_the_order_limit_only_the_cancel_is_done(
    desk: Desk, order_id: int, go_on: bool, answer: tuple[int, int], halves: tuple[str, str]
) -> None:
    error = refused(lambda: replace(desk, order_id, go_on=go_on, excess=LIMITED))
    assert ((error.status, error.code), results(error)) == (answer, halves)
    assert error.data is not None
    if halves[1] == "FAILURE":
        assert error.data["newOrderResponse"] == {"code": -1015, "msg": "Too many new orders."}
    assert brief(desk.events(ALICE)) == (["CANCELED 1 CANCELED", "outboundAccountPosition"] if order_id == 1 else [])


def over_rest(desk: RestDesk, order_id: int, **params: str) -> Reply:
    """A cancel-replace as a request."""
    wanted = {
        "symbol": SYMBOL,
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "price": "51000",
        "quantity": "0.1",
        "cancelReplaceMode": "STOP_ON_FAILURE",
        "cancelOrderId": order_id,
    }
    return desk.ask("POST", "/api/v3/order/cancelReplace", **wanted | params)


def test_a_new_order_that_was_not_attempted_counts_as_one() -> None:
    desk = RestDesk()
    reply = over_rest(desk, 99)
    assert (reply.status, reply.body["code"]) == (400, -2022)
    assert reply.body["data"]["newOrderResult"] == "NOT_ATTEMPTED"
    assert reply.headers["X-MBX-ORDER-COUNT-10S"] == "1"


def test_an_account_at_its_limit_cancels_only_if_it_says_so() -> None:
    desk = RestDesk()
    for _ in range(100):
        assert desk.place().status == 200
    reply = over_rest(desk, 1)
    assert (reply.status, reply.body["code"], "data" in reply.body) == (429, -1015, False)
    assert desk.venue.exchange.orders[1].open
    reply = over_rest(desk, 1, orderRateLimitExceededMode="CANCEL_ONLY")
    assert (reply.status, reply.body["code"]) == (429, -2021)
    assert reply.body["data"]["newOrderResponse"]["code"] == -1015
    assert "Retry-After" in reply.headers
    assert not desk.venue.exchange.orders[1].open


@pytest.mark.parametrize(
    ("params", "code"),
    [
        pytest.param({"cancelReplaceMode": ""}, -1102, id="no mode"),
        pytest.param({"cancelReplaceMode": "MAYBE"}, -1100, id="an unknown mode"),
        pytest.param({"orderRateLimitExceededMode": "MAYBE"}, -1100, id="an unknown mode for the limit"),
        pytest.param({"cancelRestrictions": "MAYBE"}, -1145, id="an unknown restriction"),
        pytest.param({"cancelOrderId": ""}, -1105, id="an empty id"),
    ],
)
def test_a_request_of_a_wrong_shape_cancels_nothing(params: dict[str, str], code: int) -> None:
    desk = RestDesk()
    order_id = desk.place().body["orderId"]
    reply = over_rest(desk, order_id, **params)
    assert (reply.status, reply.body["code"]) == (400, code)
    assert desk.venue.exchange.orders[order_id].open
