"""Order lists on the paper exchange: OCO, OTO and OTOCO from placement to their end."""

from __future__ import annotations

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from support.paper import SYMBOL, Desk, brief

ALICE = 1


@pytest.fixture
def desk() -> Desk:
    """An account with both assets and a book around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.events(ALICE)
    return desk


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
