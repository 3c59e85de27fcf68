"""Trailing stops on the paper exchange: when they begin to follow the price, and when they trigger."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Order
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, brief, units
from support.vectors import vectors

ALICE = 1
STEP = Decimal(50)


@pytest.fixture
def desk() -> Desk:
    """An account, a book beside the trades of a test, and a last price of 40000."""
    desk = Desk()
    desk.open(ALICE, USDT="1000000", BTC="5")
    desk.book([("36000", "10")], [("42000", "10")])
    desk.trade("40000")
    desk.events(ALICE)
    return desk


def trail(desk: Desk, side: str, kind: str = "STOP_LOSS", **params: str) -> Order:
    """A trailing stop of 0.1 BTC."""
    answer = desk.place(ALICE, side, kind, quantity="0.1", **params)
    return desk.exchange.orders[answer["orderId"]]


def straight(start: Decimal, end: Decimal) -> list[Decimal]:
    """The prices of trades on a straight way from one price (left out) to another."""
    prices = []
    while start != end:
        start += max(-STEP, min(STEP, end - start))
        prices.append(start)
    return prices


@pytest.mark.parametrize("row", vectors("trailing_stop", "vectors"))
def test_a_trailing_stop_follows_and_triggers_as_published(desk: Desk, row: dict[str, Any]) -> None:
    params = {"stopPrice": row["stopPrice"]} if row["stopPrice"] else {}
    order = trail(
        desk,
        row["side"],
        row["type"],
        price=row["price"],
        timeInForce="GTC",
        trailingDelta=str(row["trailingDelta"]),
        **params,
    )
    at = Decimal(row["last_at_placement"])
    way = [at]
    for turn in map(Decimal, row["path"]):
        way += straight(at, turn)
        at = turn
    followed_from = None
    for price in way:
        assert order.working_time < 0, f"triggered before {price}"
        desk.trade(str(price))
        if followed_from is None and order.trailing_time >= 0:
            followed_from = str(price)
    assert followed_from == row["tracking_starts_at"].split()[0]
    assert order.extreme == units(row["extreme"])
    assert way[-1] == Decimal(row["trigger_price"])
    assert order.working_time == desk.now


@pytest.mark.parametrize(
    ("side", "fine", "trigger"),
    [pytest.param("SELL", "39600.01", "39600", id="sell"), pytest.param("BUY", "40399.99", "40400", id="buy")],
)
def test_the_delta_is_met_to_the_last_tick(desk: Desk, side: str, fine: str, trigger: str) -> None:
    order = trail(desk, side, trailingDelta="100")
    desk.trade("40000")
    desk.trade(fine)
    assert order.untriggered
    desk.trade(trigger)
    assert order.status == "FILLED"


def test_trailing_delta_and_time_are_told(desk: Desk) -> None:
    order = trail(desk, "SELL", trailingDelta="100")
    (new,) = (event for event in desk.events(ALICE) if event["e"] == "executionReport")
    assert (new["d"], "D" in new, new["P"]) == (100, False, "0.00000000")
    desk.trade("40000")
    desk.trade("39600")
    events = desk.events(ALICE)
    assert brief(events)[0] == "NEW 1 NEW"
    assert (events[0]["d"], events[0]["D"]) == (100, order.trailing_time)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param({"trailingDelta": "9"}, "-1013 Filter failure: TRAILING_DELTA", id="too close"),
        pytest.param({"trailingDelta": "2001"}, "-1013 Filter failure: TRAILING_DELTA", id="too far"),
        pytest.param({}, "-1102 Param 'stopPrice' or 'trailingDelta' must be sent", id="neither price nor delta"),
        pytest.param(
            {"trailingDelta": "100", "stopPrice": "40001"}, "-2010 Order would trigger immediately", id="stop met"
        ),
    ],
)
def test_a_trailing_stop_that_cannot_be_is_refused(desk: Desk, params: dict[str, str], message: str) -> None:
    with pytest.raises(ExchangeError, match=message):
        trail(desk, "SELL", **params)


def test_a_buy_without_any_price_needs_what_it_would_cost_now_and_keeps_nothing_aside(desk: Desk) -> None:
    desk.open(2, USDT="3999")
    with pytest.raises(ExchangeError, match="-2010 Account has insufficient balance"):
        desk.place(2, "BUY", "STOP_LOSS", quantity="0.1", trailingDelta="100")
    trail(desk, "BUY", trailingDelta="100")
    assert desk.held(ALICE, "USDT") == ("1000000", "0")


def test_a_trailing_stop_follows_on_after_a_restart(tmp_path: Path, desk: Desk) -> None:
    following = trail(desk, "SELL", trailingDelta="100")
    sleeping = trail(desk, "SELL", trailingDelta="100", stopPrice="39000")
    desk.trade("41000")
    store = Store(tmp_path)
    store.save(desk.exchange.take_changes())
    fresh = Desk()
    fresh.now = desk.now
    fresh.exchange = Exchange([SYMBOLS[SYMBOL]], desk.now)
    store.restore(fresh.exchange)
    store.close()
    fresh.book([("36000", "10")], [("42000", "10")])
    fresh.trade("40590.01")
    assert fresh.status(following.order_id)[0] == "NEW"
    fresh.trade("40590")
    assert fresh.status(following.order_id)[0] == "FILLED"
    fresh.trade("39000")
    fresh.trade("38610.01")
    assert fresh.status(sleeping.order_id)[0] == "NEW"
    fresh.trade("38610")
    assert fresh.status(sleeping.order_id)[0] == "FILLED"
