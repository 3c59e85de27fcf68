"""The price-range rule of the paper exchange: the reference price, and takers that leave its range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.api import SpotApi
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Side
from paper_exchange.core.price_range import PriceRange, ReferencePrice
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.endpoint import Call
from paper_exchange.limits import Limits
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from support.paper import START_MS, SYMBOL, Desk, brief

ALICE, BOB = 1, 2


@pytest.fixture
def desk() -> Desk:
    """Two accounts and a book whose second levels are out of range of a reference price of 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="1000000", BTC="5")
    desk.open(BOB, USDT="1000000", BTC="5")
    desk.book([("59990", "1"), ("50999.99", "9")], [("60010", "1"), ("69000.01", "9")])
    desk.trade("60000")
    desk.events(ALICE)
    return desk


def test_the_reference_price_is_the_mean_of_trades_whatever_their_size() -> None:
    mean = ReferencePrice(bucket_count=10, bucket_width_ms=1000)
    assert mean.value(0) is None
    for time, price in [(0, 100), (10, 200), (2500, 600)]:
        mean.add(time, price)
    assert mean.value(2500) == 300
    mean.add(2600, 101)
    assert mean.value(2600) == 250  # 1001 / 4, cut


def test_of_the_oldest_bucket_only_the_part_inside_the_window_counts() -> None:
    mean = ReferencePrice(bucket_count=10, bucket_width_ms=1000)
    mean.add(0, 100)
    mean.add(5000, 400)
    assert mean.value(10_000) == 250
    assert mean.value(10_500) == 300  # (100 / 2 + 400) / 1.5
    assert mean.value(10_750) == 340  # (100 / 4 + 400) / 1.25
    assert mean.value(11_000) == 400
    assert mean.value(16_000) is None
    # Who asks for another time changes nothing.
    assert mean.value(10_500) == 300


@pytest.mark.parametrize(
    ("side", "price", "allowed"),
    [
        pytest.param(Side.BUY, 69_000, True, id="buy at the upper end"),
        pytest.param(Side.BUY, 69_001, False, id="buy above it"),
        pytest.param(Side.BUY, 50_999, False, id="buy below the lower end"),
        pytest.param(Side.SELL, 51_000, True, id="sell at the lower end"),
        pytest.param(Side.SELL, 50_999, False, id="sell below it"),
    ],
)
def test_both_ends_of_the_range_belong_to_it(side: Side, price: int, allowed: bool) -> None:
    assert PriceRange().allows(side, price, 60_000) is allowed
    assert PriceRange().allows(side, price, None)
    assert PriceRange(None, None, None, None).allows(side, price, 60_000)


def test_a_taker_keeps_what_it_got_inside_the_range_and_expires(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", "MARKET", quantity="1.5")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "1.00000000")
    assert answer["expiryReason"] == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"
    events = desk.events(ALICE)
    assert brief(events)[-2:] == ["EXPIRED 1 EXPIRED", "outboundAccountPosition"]
    assert events[-2]["eR"] == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"


def test_a_limit_far_through_the_book_does_not_rest_after_it_left_the_range(desk: Desk) -> None:
    answer = desk.place(ALICE, "SELL", price="45000", quantity="1.5", timeInForce="GTC")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "1.00000000")
    assert desk.held(ALICE, "BTC")[1] == "0"


def test_a_triggered_stop_expires_when_the_book_is_out_of_range(desk: Desk) -> None:
    stop = desk.place(ALICE, "SELL", "STOP_LOSS", quantity="1", stopPrice="59900")["orderId"]
    desk.book([("50000", "9")], [("60010", "1")])
    desk.trade("59900")
    assert desk.status(stop) == ("EXPIRED", "0", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
    assert desk.held(ALICE, "BTC") == ("5", "0")


def test_fill_or_kill_does_not_count_what_is_out_of_range(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", price="70000", quantity="1.5", timeInForce="FOK")
    assert (answer["executedQty"], answer["expiryReason"]) == ("0.00000000", "UNFILLED_FOK_ORDER_EXPIRED")


def test_makers_are_not_bound_by_the_range(desk: Desk) -> None:
    desk.book([], [])
    resting = desk.place(ALICE, "SELL", price="70000", quantity="1")["orderId"]
    desk.push("70000")
    assert desk.status(resting)[0] == "FILLED"


def ask(api: SpotApi, path: str, **params: str) -> Any:
    """One public call."""
    return api.routes["GET", path].answer(Call(params, 0, START_MS))


def test_rule_and_reference_price_are_told() -> None:
    venue = Venue([SYMBOL, "BNBUSDT"], None, Store(None), lambda: START_MS, CollectorRegistry())
    api = SpotApi(venue, Limits(6000))
    (rule,) = ask(api, "/api/v3/executionRules", symbol=SYMBOL)["symbolRules"]
    assert rule == {
        "symbol": SYMBOL,
        "rules": [
            {
                "ruleType": "PRICE_RANGE",
                "bidLimitMultUp": "1.1500",
                "bidLimitMultDown": "0.8500",
                "askLimitMultUp": "1.1500",
                "askLimitMultDown": "0.8500",
            }
        ],
    }
    assert len(ask(api, "/api/v3/executionRules")["symbolRules"]) == 2
    with pytest.raises(ExchangeError, match="-2043 This symbol doesn't have a reference price"):
        ask(api, "/api/v3/referencePrice", symbol=SYMBOL)
    venue.exchange.on_trade(SYMBOL, 60_000 * 10**8, 10**5, True, START_MS)
    assert ask(api, "/api/v3/referencePrice", symbol=SYMBOL) == {
        "symbol": SYMBOL,
        "referencePrice": "60000.00000000",
        "timestamp": START_MS,
    }
    assert ask(api, "/api/v3/referencePrice/calculation", symbol=SYMBOL) == {
        "symbol": SYMBOL,
        "calculationType": "ARITHMETIC_MEAN",
        "bucketCount": 80,
        "bucketWidthMs": 3750,
    }
    weight = api.routes["GET", "/api/v3/executionRules"].weight
    assert [weight({"symbol": SYMBOL}), weight({"symbols": '["A","B"]'}), weight({}), weight({"symbols": "x"})] == [
        2,
        4,
        40,
        40,
    ]


def test_a_symbol_without_multiples_has_no_range() -> None:
    desk = Desk()
    open_range = PriceRange(bid_up=None, bid_down=None, ask_up=None, ask_down=None)
    desk.exchange = Exchange([replace(SYMBOLS[SYMBOL], price_range=open_range)], desk.now)
    desk.open(ALICE, USDT="1000000")
    desk.book([], [("90000", "1")])
    desk.trade("60000")
    assert desk.place(ALICE, "BUY", "MARKET", quantity="1")["status"] == "FILLED"
