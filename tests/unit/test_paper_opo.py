"""Lists in which one order pays the other: the pending orders sell what the working order bought."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core import list_requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, brief, units

ALICE, RICH = 1, 2
"""An account with quote only, and one that has base to pay commission from."""


@pytest.fixture
def desk() -> Desk:
    """Two accounts and a book around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="100000")
    desk.open(RICH, USDT="100000", BTC="1")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.events(ALICE)
    return desk


def opo(desk: Desk, uid: int, quantity: str = "0.5", limit: str = "60001", **params: str) -> dict[str, Any]:
    """Buy at a limit, then sell all of it at 61000."""
    order = {
        "symbol": SYMBOL,
        "workingType": "LIMIT",
        "workingSide": "BUY",
        "workingPrice": limit,
        "workingQuantity": quantity,
        "workingTimeInForce": "GTC",
        "pendingType": "LIMIT_MAKER",
        "pendingSide": "SELL",
        "pendingPrice": "61000",
    }
    wanted = {name: value for name, value in (order | params).items() if value}
    return desk.exchange.place_list(uid, list_requests.new_opo(wanted), desk.tick())


def opoco(desk: Desk, uid: int, quantity: str = "0.5", limit: str = "60001") -> dict[str, Any]:
    """Buy at a limit, then sell all of it by a pair."""
    request = list_requests.new_opoco(
        {
            "symbol": SYMBOL,
            "workingType": "LIMIT",
            "workingSide": "BUY",
            "workingPrice": limit,
            "workingQuantity": quantity,
            "workingTimeInForce": "GTC",
            "pendingSide": "SELL",
            "pendingAboveType": "LIMIT_MAKER",
            "pendingAbovePrice": "61000",
            "pendingBelowType": "STOP_LOSS",
            "pendingBelowStopPrice": "59000",
        }
    )
    return desk.exchange.place_list(uid, request, desk.tick())


def quantities(desk: Desk, *orders: int) -> list[int]:
    """The quantities of orders, in lot steps of 0.00001."""
    return [desk.exchange.orders[one].quantity // 1000 for one in orders]


def test_a_pending_order_has_no_quantity_until_the_purchase_is_complete(desk: Desk) -> None:
    answer = opo(desk, ALICE, limit="59500")
    assert answer["contingencyType"] == "OTO"
    assert [("origQty" in one, one["status"]) for one in answer["orderReports"]] == [
        (True, "NEW"),
        (False, "PENDING_NEW"),
    ]


def test_only_the_purchase_needs_money(desk: Desk) -> None:
    opo(desk, ALICE, limit="59500")
    assert desk.held(ALICE, "USDT") == ("70250", "29750")
    with pytest.raises(ExchangeError, match="-2010 Account has insufficient balance"):
        opo(desk, ALICE, quantity="1.5", limit="59500")


def test_without_other_base_the_sale_is_what_is_left_after_commission_in_whole_lots(desk: Desk) -> None:
    opoco(desk, ALICE, quantity="0.33333")
    assert quantities(desk, 2, 3) == [33299, 33299]
    assert [desk.status(one)[0] for one in (1, 2, 3)] == ["FILLED", "NEW", "NEW"]
    assert desk.held(ALICE, "BTC") == ("0.00000667", "0.33299")


def test_with_enough_free_base_the_commission_comes_from_there_and_all_is_sold(desk: Desk) -> None:
    opoco(desk, RICH, quantity="0.5")
    assert quantities(desk, 2, 3) == [50000, 50000]
    assert desk.held(RICH, "BTC") == ("0.9995", "0.5")


def test_what_was_received_so_far_is_locked(desk: Desk) -> None:
    opo(desk, ALICE, limit="59995")
    desk.trade("59994", "0.2")
    assert desk.held(ALICE, "BTC") == ("0", "0.1998")
    with pytest.raises(ExchangeError, match="insufficient balance"):
        desk.place(ALICE, "SELL", "MARKET", quantity="0.1")
    desk.trade("59994", "0.3")
    assert desk.held(ALICE, "BTC") == ("0", "0.4995")
    assert (desk.status(2)[0], quantities(desk, 2)) == ("NEW", [49950])


def test_cancelling_before_the_sale_begins_unlocks_what_was_received(desk: Desk) -> None:
    opo(desk, ALICE, limit="59995")
    desk.trade("59994", "0.2")
    desk.events(ALICE)
    answer = desk.cancel(ALICE, 2)
    assert [one["status"] for one in answer["orderReports"]] == ["CANCELED", "CANCELED"]
    assert desk.held(ALICE, "BTC") == ("0.1998", "0")
    assert brief(desk.events(ALICE)) == [
        "CANCELED 1 CANCELED",
        "CANCELED 2 CANCELED",
        "list ALL_DONE",
        "outboundAccountPosition",
    ]


def test_an_expired_purchase_unlocks_what_was_received(desk: Desk) -> None:
    opo(desk, ALICE, quantity="1.5", limit="60001", workingTimeInForce="IOC")
    assert desk.status(1) == ("EXPIRED", "1", "UNFILLED_IOC_QUANTITY_EXPIRED")
    assert desk.status(2) == ("EXPIRED", "0", "OTO_PHASE_ONE_EXPIRED")
    assert desk.held(ALICE, "BTC") == ("0.999", "0")


def test_a_sale_that_the_filters_refuse_expires_as_rejected_when_its_turn_comes(desk: Desk) -> None:
    opo(
        desk,
        ALICE,
        quantity="0.0001",
        pendingType="STOP_LOSS_LIMIT",
        pendingStopPrice="59000",
        pendingPrice="20000",
        pendingTimeInForce="GTC",
    )
    assert desk.status(1)[0] == "FILLED"
    assert desk.status(2) == ("EXPIRED", "0", "REJECTED")
    assert desk.exchange.lists[0].done
    assert desk.held(ALICE, "BTC") == ("0.0000999", "0")


def test_a_sale_at_market_is_cut_to_what_the_market_takes_at_once(desk: Desk) -> None:
    market = desk.exchange.market(SYMBOL)
    market.rules = replace(market.rules, max_market_quantity=units("0.3"))
    opo(desk, ALICE, pendingType="MARKET", pendingPrice="")
    assert (desk.status(1)[:2], desk.status(2)[:2]) == (("FILLED", "0.5"), ("FILLED", "0.3"))
    assert desk.held(ALICE, "BTC") == ("0.1995", "0")


def test_the_price_of_a_sale_is_checked_at_once(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-1013 Filter failure: PRICE_FILTER"):
        opo(desk, ALICE, pendingPrice="61000.001")
    assert desk.exchange.orders == {}


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        pytest.param({"workingSide": "SELL"}, "-1222 Working order in an OPO list must be a bid.", id="working sale"),
        pytest.param({"pendingSide": "BUY"}, "-1223 Pending orders in an OPO list must be asks.", id="then a purchase"),
        pytest.param({"pendingQuantity": "1"}, "-1106 Parameter 'pendingQuantity'", id="a quantity of its own"),
    ],
)
def test_only_a_purchase_followed_by_its_sale_is_accepted(desk: Desk, params: dict[str, str], refusal: str) -> None:
    with pytest.raises(ExchangeError, match=refusal):
        opo(desk, ALICE, **params)


def test_what_was_received_stays_locked_over_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    desk = Desk()
    desk.open(ALICE, USDT="100000")
    desk.book([("60000", "1")], [("60001", "1")])
    desk.trade("60000")
    opo(desk, ALICE, limit="59995")
    desk.trade("59994", "0.2")
    store.save(desk.exchange.take_changes())
    desk.exchange = Exchange([SYMBOLS[SYMBOL]], desk.now)
    store.restore(desk.exchange)
    store.close()
    desk.book([("59990", "1")], [("60001", "1")])
    desk.trade("59994", "0.3")
    assert desk.held(ALICE, "BTC") == ("0", "0.4995")
    assert (desk.status(2)[0], quantities(desk, 2)) == ("NEW", [49950])
