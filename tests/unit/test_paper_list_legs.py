"""Legs of order lists that trail the price, and legs that show a part of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.requests import AmendTarget
from support.paper import SYMBOL, Desk, brief, desk_of, units

ALICE = 1
LIMIT = {"aboveType": "LIMIT_MAKER", "abovePrice": "61000"}
TRAILING = {"belowType": "STOP_LOSS", "belowTrailingDelta": "100"}
"""One percent below the best price."""


@pytest.fixture
def desk() -> Desk:
    return desk_of(ALICE)


def sell_pair(desk: Desk, **params: str) -> dict[str, Any]:
    """An OCO that sells one BTC."""
    request = list_requests.new_oco({"symbol": SYMBOL, "side": "SELL", "quantity": "1"} | params)
    return desk.exchange.place_list(ALICE, request, desk.tick())


def test_a_trailing_leg_that_the_price_comes_back_to_expires_the_other(desk: Desk) -> None:
    answer = sell_pair(desk, **LIMIT | TRAILING)
    leg = answer["orderReports"][0]
    assert (leg["trailingDelta"], leg["trailingTime"], "stopPrice" in leg) == (100, -1, False)
    desk.trade("60500")
    desk.trade("59896")
    assert [desk.status(one)[0] for one in (1, 2)] == ["NEW", "NEW"]
    desk.events(ALICE)
    desk.trade("59895")
    assert brief(desk.events(ALICE)) == [
        "EXPIRED 2 EXPIRED",
        "NEW 1 NEW",
        "TRADE 1 FILLED",
        "list ALL_DONE",
        "outboundAccountPosition",
    ]
    assert desk.status(2)[2] == "OCO_TRIGGER"
    assert desk.held(ALICE, "BTC") == ("4", "0")


def test_a_trailing_leg_of_a_bracket_follows_the_price_once_the_entry_is_filled(desk: Desk) -> None:
    request = {
        "symbol": SYMBOL,
        "workingType": "LIMIT",
        "workingSide": "BUY",
        "workingPrice": "59000",
        "workingQuantity": "0.5",
        "workingTimeInForce": "GTC",
        "pendingSide": "SELL",
        "pendingQuantity": "0.5",
        "pendingAboveType": "LIMIT_MAKER",
        "pendingAbovePrice": "62000",
        "pendingBelowType": "STOP_LOSS",
        "pendingBelowTrailingDelta": "100",
    }
    desk.exchange.place_list(ALICE, list_requests.new_otoco(request), desk.tick())
    desk.book([("58990", "1")], [("58995", "1")])
    assert [desk.status(one)[0] for one in (1, 2, 3)] == ["FILLED", "NEW", "NEW"]
    desk.trade("58500")
    desk.trade("57916")
    assert desk.status(2)[0] == "NEW"
    desk.trade("57915")
    assert (desk.status(2)[0], desk.status(3)[2]) == ("FILLED", "OCO_TRIGGER")


def test_a_trailing_leg_with_a_stop_price_must_have_it_on_its_side(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-2010 The relationship of the prices"):
        sell_pair(desk, **LIMIT | TRAILING | {"belowStopPrice": "60500"})
    sell_pair(desk, **LIMIT | TRAILING | {"belowStopPrice": "59500"})


def test_a_leg_must_trail_or_have_a_stop_price(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-1102 Param 'belowStopPrice' or 'belowTrailingDelta' must be sent"):
        sell_pair(desk, **LIMIT | {"belowType": "STOP_LOSS"})


def test_the_trailing_delta_of_a_leg_is_within_the_filter(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-1013 Filter failure: TRAILING_DELTA"):
        sell_pair(desk, **LIMIT | {"belowType": "STOP_LOSS", "belowTrailingDelta": "3000"})


def test_an_iceberg_leg_shows_its_part_and_keeps_all_of_it_aside(desk: Desk) -> None:
    answer = sell_pair(desk, **LIMIT | TRAILING | {"aboveIcebergQty": "0.25"})
    assert answer["orderReports"][1]["icebergQty"] == "0.25000000"
    assert desk.exchange.market(SYMBOL).asks.quantity(units("61000")) == units("0.25")
    assert desk.held(ALICE, "BTC") == ("4", "1")


def test_amending_an_iceberg_changes_what_it_shows_only_below_its_part(desk: Desk) -> None:
    desk.place(ALICE, "SELL", price="61000", quantity="1", icebergQty="0.25")
    shown = []
    for quantity in ("0.5", "0.2"):
        desk.exchange.amend(ALICE, SYMBOL, AmendTarget(1, None, units(quantity)), desk.tick())
        shown.append(desk.exchange.market(SYMBOL).asks.quantity(units("61000")))
    assert shown == [units("0.25"), units("0.2")]
