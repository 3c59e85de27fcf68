"""Order lists on the paper exchange: OCO, OTO and OTOCO from placement to their end."""

from __future__ import annotations

from typing import Any

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from support.paper import SYMBOL, Desk, brief, desk_of

ALICE = 1


@pytest.fixture
def desk() -> Desk:
    return desk_of(ALICE)


def test_an_oco_locks_its_quantity_once(desk: Desk) -> None:
    answer = desk.oco(ALICE, "1", stop="59000", profit="61000")
    assert [(one["type"], one["status"]) for one in answer["orderReports"]] == [
        ("STOP_LOSS", "NEW"),
        ("LIMIT_MAKER", "NEW"),
    ]
    assert answer["contingencyType"] == "OCO"
    assert desk.held(ALICE, "BTC") == ("4", "1")


def test_the_stop_of_an_oco_expires_its_take_profit(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    desk.events(ALICE)
    desk.push("59000")
    assert brief(desk.events(ALICE)) == [
        "EXPIRED 2 EXPIRED",
        "NEW 1 NEW",
        "TRADE 1 FILLED",
        "list ALL_DONE",
        "outboundAccountPosition",
    ]
    assert desk.status(2) == ("EXPIRED", "0", "OCO_TRIGGER")
    assert desk.held(ALICE, "BTC") == ("4", "0")


def test_the_first_partial_fill_of_a_take_profit_expires_the_stop(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    desk.events(ALICE)
    desk.trade("61000", "0.4", seller_takes=False)
    assert brief(desk.events(ALICE)) == ["EXPIRED 1 EXPIRED", "TRADE 2 PARTIALLY_FILLED", "outboundAccountPosition"]
    assert desk.held(ALICE, "BTC") == ("4", "0.6")
    desk.trade("61000", "0.6", seller_takes=False)
    assert brief(desk.events(ALICE)) == ["TRADE 2 FILLED", "list ALL_DONE", "outboundAccountPosition"]


def test_cancelling_one_leg_cancels_the_list(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    desk.events(ALICE)
    answer = desk.cancel(ALICE, 2)
    assert answer["listOrderStatus"] == "ALL_DONE"
    assert [one["status"] for one in answer["orderReports"]] == ["CANCELED", "CANCELED"]
    assert brief(desk.events(ALICE)) == [
        "CANCELED 1 CANCELED",
        "CANCELED 2 CANCELED",
        "list ALL_DONE",
        "outboundAccountPosition",
    ]
    assert desk.held(ALICE, "BTC") == ("5", "0")


def test_an_oco_on_the_wrong_side_of_the_market_is_refused(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-2010 The relationship of the prices"):
        desk.oco(ALICE, "1", stop="60500", profit="61000")
    assert desk.exchange.open_orders(ALICE) == []


def test_a_bracket_shows_its_legs_as_pending_although_the_entry_filled_at_once(desk: Desk) -> None:
    answer = desk.bracket(ALICE, "1", limit="60005", stop="59000", profit="61000")
    assert answer["contingencyType"] == "OTO"
    assert [(one["type"], one["status"]) for one in answer["orderReports"]] == [
        ("LIMIT", "FILLED"),
        ("STOP_LOSS", "PENDING_NEW"),
        ("LIMIT_MAKER", "PENDING_NEW"),
    ]
    assert [desk.status(order)[0] for order in (1, 2, 3)] == ["FILLED", "NEW", "NEW"]
    assert desk.held(ALICE, "BTC") == ("4.999", "1")
    assert brief(desk.events(ALICE)) == [
        "NEW 2 PENDING_NEW",
        "NEW 3 PENDING_NEW",
        "list EXECUTING",
        "NEW 1 NEW",
        "TRADE 1 FILLED",
        "NEW 2 NEW",
        "NEW 3 NEW",
        "outboundAccountPosition",
    ]


def test_a_bracket_whose_entry_cannot_fill_leaves_nothing_behind(desk: Desk) -> None:
    answer = desk.bracket(ALICE, "1.5", limit="60005", stop="59000", profit="61000")
    assert answer["listOrderStatus"] == "ALL_DONE"
    assert desk.status(1) == ("EXPIRED", "0", "UNFILLED_FOK_ORDER_EXPIRED")
    assert desk.status(2) == desk.status(3) == ("EXPIRED", "0", "OTO_PHASE_ONE_EXPIRED")
    assert desk.exchange.open_orders(ALICE) == []
    assert desk.held(ALICE, "USDT") == ("100000", "0")


def test_legs_that_the_fee_made_too_large_expire_as_rejected(desk: Desk) -> None:
    desk.open(7, USDT="100000")
    desk.bracket(7, "1", limit="60005", stop="59000", profit="61000")
    assert desk.status(2) == desk.status(3) == ("EXPIRED", "0", "REJECTED")
    assert desk.held(7, "BTC") == ("0.999", "0")


def test_a_resting_entry_protects_only_when_it_is_full(desk: Desk) -> None:
    desk.bracket(ALICE, "0.5", limit="59995", stop="59000", profit="61000", workingTimeInForce="GTC")
    desk.trade("59994", "0.3")
    assert [desk.status(order)[0] for order in (1, 2, 3)] == ["PARTIALLY_FILLED", "PENDING_NEW", "PENDING_NEW"]
    desk.trade("59994", "0.3")
    assert [desk.status(order)[0] for order in (1, 2, 3)] == ["FILLED", "NEW", "NEW"]


def test_pending_orders_are_invisible_to_matching_and_triggers(desk: Desk) -> None:
    desk.bracket(ALICE, "0.5", limit="59000", stop="58000", profit="60005", workingTimeInForce="GTC")
    desk.push("60500")
    assert [desk.status(order)[0] for order in (1, 2, 3)] == ["NEW", "PENDING_NEW", "PENDING_NEW"]


def test_cancelling_the_entry_of_a_bracket_cancels_its_legs(desk: Desk) -> None:
    desk.bracket(ALICE, "0.5", limit="59000", stop="58000", profit="61000", workingTimeInForce="GTC")
    desk.cancel(ALICE, 1)
    assert [desk.status(order)[0] for order in (1, 2, 3)] == ["CANCELED"] * 3
    assert desk.exchange.lists[0].done


def test_an_oto_at_market_closes_what_it_opened(desk: Desk) -> None:
    request = list_requests.new_oto(
        {
            "symbol": SYMBOL,
            "workingType": "LIMIT",
            "workingSide": "BUY",
            "workingPrice": "60001",
            "workingQuantity": "0.5",
            "workingTimeInForce": "GTC",
            "pendingType": "MARKET",
            "pendingSide": "SELL",
            "pendingQuantity": "0.4",
        }
    )
    desk.exchange.place_list(ALICE, request, desk.tick())
    assert [desk.status(order)[:2] for order in (1, 2)] == [("FILLED", "0.5"), ("FILLED", "0.4")]
    assert desk.exchange.lists[0].done


def test_cancel_all_answers_with_orders_and_lists(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59000", quantity="0.1")
    desk.oco(ALICE, "1", stop="59000", profit="61000")
    answers = desk.exchange.cancel_all(ALICE, SYMBOL, desk.tick())
    assert ["contingencyType" in one for one in answers] == [False, True]
    with pytest.raises(ExchangeError, match="-2011"):
        desk.exchange.cancel_all(ALICE, SYMBOL, desk.tick())


def test_a_list_id_is_unique_among_open_lists(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="61000", listClientOrderId="pair")
    with pytest.raises(ExchangeError, match="-2010 Duplicate order sent"):
        desk.oco(ALICE, "1", stop="59000", profit="61000", listClientOrderId="pair")
    desk.cancel(ALICE, 1)
    desk.oco(ALICE, "1", stop="59000", profit="61000", listClientOrderId="pair")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        pytest.param({"aboveType": "LIMIT"}, -1158, id="a limit leg"),
        pytest.param({"aboveType": "MARKET"}, -1158, id="a market leg"),
        pytest.param(
            {"belowType": "LIMIT_MAKER", "belowPrice": "59000", "belowStopPrice": ""}, -1105, id="an empty parameter"
        ),
        pytest.param(
            {"aboveType": "STOP_LOSS", "aboveStopPrice": "61000", "abovePrice": ""}, -1105, id="an empty price"
        ),
    ],
)
def test_lists_of_a_wrong_shape_are_refused(desk: Desk, params: dict[str, str], code: int) -> None:
    with pytest.raises(ExchangeError) as refused:
        desk.oco(ALICE, "1", stop="59000", profit="61000", **params)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("side", "above", "below", "code"),
    [
        pytest.param("SELL", "STOP_LOSS", "TAKE_PROFIT", -1197, id="sell stop above"),
        pytest.param("SELL", "TAKE_PROFIT", "TAKE_PROFIT", -1199, id="sell take profit below"),
        pytest.param("SELL", "LIMIT_MAKER", "LIMIT_MAKER", -1168, id="two limits"),
        pytest.param("SELL", "STOP_LOSS", "LIMIT_MAKER", -1166, id="sell limit below"),
        pytest.param("BUY", "LIMIT_MAKER", "STOP_LOSS", -1165, id="buy limit above"),
        pytest.param("BUY", "STOP_LOSS", "STOP_LOSS", -1196, id="buy stop below"),
        pytest.param("BUY", "TAKE_PROFIT", "TAKE_PROFIT", -1198, id="buy take profit above"),
    ],
)
def test_legs_on_the_wrong_side_have_their_own_codes(side: str, above: str, below: str, code: int) -> None:
    params = {"symbol": SYMBOL, "side": side, "quantity": "1", "aboveType": above, "belowType": below}
    for leg, kind in (("above", above), ("below", below)):
        params[f"{leg}Price" if kind == "LIMIT_MAKER" else f"{leg}StopPrice"] = "60000"
    with pytest.raises(ExchangeError) as refused:
        list_requests.new_oco(params)
    assert refused.value.code == code


def pair(desk: Desk, **params: str) -> dict[str, Any]:
    """An OCO of any kind for one BTC."""
    return desk.exchange.place_list(
        ALICE, list_requests.new_oco({"symbol": SYMBOL, "quantity": "1"} | params), desk.tick()
    )


BUY_PAIR = {"side": "BUY", "aboveType": "STOP_LOSS_LIMIT", "aboveStopPrice": "61000", "abovePrice": "61500"} | {
    "aboveTimeInForce": "GTC",
    "belowType": "LIMIT_MAKER",
    "belowPrice": "59000",
}


def test_a_buying_pair_keeps_the_money_of_its_dearer_leg_aside(desk: Desk) -> None:
    answer = pair(desk, **BUY_PAIR)
    assert [one["type"] for one in answer["orderReports"]] == ["STOP_LOSS_LIMIT", "LIMIT_MAKER"]
    assert desk.held(ALICE, "USDT") == ("38500", "61500")
    desk.push("59000")
    assert desk.held(ALICE, "USDT") == ("41000", "0")


def test_a_triggered_stop_limit_leg_rests_alone_until_it_is_filled(desk: Desk) -> None:
    pair(desk, **BUY_PAIR | {"abovePrice": "60000.5"})
    desk.events(ALICE)
    desk.trade("61000", seller_takes=False)
    assert brief(desk.events(ALICE)) == ["EXPIRED 2 EXPIRED", "NEW 1 NEW", "outboundAccountPosition"]
    assert not desk.exchange.lists[0].done
    desk.trade("60000", "1")
    assert brief(desk.events(ALICE)) == ["TRADE 1 FILLED", "list ALL_DONE", "outboundAccountPosition"]


def test_a_take_profit_leg_expires_the_stop_when_it_is_triggered(desk: Desk) -> None:
    pair(
        desk,
        side="SELL",
        aboveType="TAKE_PROFIT",
        aboveStopPrice="61000",
        belowType="STOP_LOSS",
        belowStopPrice="59000",
    )
    desk.trade("61000", seller_takes=False)
    assert (desk.status(2)[0], desk.status(1)[2]) == ("FILLED", "OCO_TRIGGER")


@pytest.mark.parametrize(
    ("above", "refusal"),
    [
        pytest.param({"aboveStopPrice": "61000", "abovePrice": "59500"}, "The relationship", id="a limit below"),
        pytest.param({"aboveStopPrice": "59900", "abovePrice": "61000"}, "would trigger", id="a trigger below"),
    ],
)
def test_limit_and_trigger_of_a_take_profit_limit_leg_are_both_above_the_market(
    desk: Desk, above: dict[str, str], refusal: str
) -> None:
    leg = {"side": "SELL", "aboveType": "TAKE_PROFIT_LIMIT", "aboveTimeInForce": "GTC"} | above
    with pytest.raises(ExchangeError, match=f"-2010 .*{refusal}"):
        pair(desk, belowType="STOP_LOSS", belowStopPrice="59000", **leg)
    assert desk.exchange.orders == {}


def test_a_leg_that_its_own_account_meets_takes_the_other_with_it(desk: Desk) -> None:
    desk.oco(ALICE, "1", stop="59000", profit="60000.5")
    desk.place(ALICE, "BUY", price="60000.5", quantity="0.1", selfTradePreventionMode="EXPIRE_MAKER")
    assert (desk.status(2)[0], desk.status(1)) == ("EXPIRED_IN_MATCH", ("EXPIRED", "0", "OCO_TRIGGER"))
    assert desk.exchange.lists[0].done
    assert desk.held(ALICE, "BTC") == ("5", "0")


def follow(desk: Desk, **params: str) -> dict[str, Any]:
    """An OTO: sell 0.1 at a limit, then buy it back."""
    request = {
        "symbol": SYMBOL,
        "workingType": "LIMIT",
        "workingSide": "SELL",
        "workingPrice": "60500",
        "workingQuantity": "0.1",
        "workingTimeInForce": "GTC",
        "pendingType": "LIMIT",
        "pendingSide": "BUY",
        "pendingPrice": "59500",
        "pendingQuantity": "0.1",
        "pendingTimeInForce": "GTC",
    }
    if "pendingType" in params:
        del request["pendingTimeInForce"]
    return desk.exchange.place_list(ALICE, list_requests.new_oto(request | params), desk.tick())


def test_a_pending_purchase_locks_money_when_the_sale_is_filled(desk: Desk) -> None:
    follow(desk)
    assert (desk.held(ALICE, "BTC"), desk.held(ALICE, "USDT")) == (("4.9", "0.1"), ("100000", "0"))
    desk.trade("60501", "0.1", seller_takes=False)
    assert [desk.status(one)[0] for one in (1, 2)] == ["FILLED", "NEW"]
    assert desk.held(ALICE, "USDT") == ("100093.95", "5950")


def test_a_pending_post_only_order_that_would_take_expires_as_rejected(desk: Desk) -> None:
    request = {"pendingType": "LIMIT_MAKER", "pendingPrice": "60400"}
    follow(desk, **request)
    desk.book([("60399", "1")], [("60400", "1")])
    desk.trade("60501", "0.1", seller_takes=False)
    assert desk.status(2) == ("EXPIRED", "0", "REJECTED")
    assert desk.exchange.lists[0].done


def test_an_account_has_twenty_open_lists_of_a_symbol_at_most(desk: Desk) -> None:
    for _ in range(20):
        follow(desk, workingQuantity="0.01", pendingQuantity="0.01")
    with pytest.raises(ExchangeError, match="-2010 Filter failure: MAX_NUM_ORDER_LISTS"):
        follow(desk, workingQuantity="0.01", pendingQuantity="0.01")
    desk.cancel(ALICE, 1)
    follow(desk, workingQuantity="0.01", pendingQuantity="0.01")
