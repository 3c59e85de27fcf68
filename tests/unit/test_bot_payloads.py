"""Payloads: recorded answers and events of the exchange become exact types."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tradingbot.gateway import payloads
from tradingbot.model import (
    BalanceChange,
    BalancesUpdate,
    ListStatus,
    ListUpdate,
    OrderStatus,
    OrderType,
    OrderUpdate,
    Side,
)

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="TRADINGBOT_TEST_DATA is not set: no recorded payloads")


def recorded(path: str) -> Any:
    """The answer in a recording: after three lines of request, or after a line with an equals sign."""
    text = (Path(DATA or "") / "JKorf-Binance.Net" / path).read_text(encoding="utf-8-sig")
    body = text.split("\n=", 1)[1] if text.startswith(">") else text.split("\n", 3)[3]
    return json.loads(body)


def test_a_filled_order_brings_its_trades() -> None:
    report = payloads.order(recorded("Endpoints/Spot/Trading/PlaceOrder.txt"))

    assert (report.side, report.status, report.order_id) == (Side.SELL, OrderStatus.FILLED, 28)
    assert sum(fill.quantity for fill in report.fills) == report.executed_quantity
    assert report.fills[0].commission == Decimal("4.00000000")


def test_a_canceled_order_keeps_its_own_id() -> None:
    report = payloads.order(recorded("Endpoints/Spot/Trading/CancelOrder.txt"))

    assert report.client_order_id == "myOrder1"
    assert report.status is OrderStatus.CANCELED


def test_an_entry_with_its_pair_brings_three_orders() -> None:
    report = payloads.order_list(recorded("Endpoints/Spot/Trading/PlaceOtocoOrderList.txt"))

    assert report.status is ListStatus.EXECUTING
    assert [order.type for order in report.reports] == [
        OrderType.LIMIT,
        OrderType.STOP_LOSS_LIMIT,
        OrderType.LIMIT_MAKER,
    ]
    assert [order.status for order in report.reports[1:]] == [OrderStatus.PENDING_NEW] * 2


def test_trades_keep_the_fee_and_its_asset() -> None:
    (row,) = recorded("Endpoints/Spot/Trading/GetUserTrades.txt")
    trade = payloads.trade(row)

    assert (trade.side, trade.commission_asset) == (Side.BUY, "BNB")
    assert trade.quote_quantity == Decimal("4.00000100") * 12


def test_the_account_has_its_uid_and_balances() -> None:
    account = payloads.account(recorded("Endpoints/Spot/Account/GetAccountInfo.txt"))

    assert account.uid == "354937868"
    assert account.balance("BTC").total == Decimal("4723846.89208129")
    assert account.balance("XRP").total == 0


def test_commissions_of_all_kinds_add_up() -> None:
    rates = payloads.commission(recorded("Endpoints/Spot/Account/GetCommissionRates.txt"))

    assert rates.taker == Decimal("0.00000020") + Decimal("0.00000030") + Decimal("0.00000114") + Decimal("0.00000118")


def test_a_symbol_without_filters_has_none() -> None:
    rules = payloads.symbol_rules(recorded("Endpoints/Spot/ExchangeData/GetExchangeInfo.txt")["symbols"][0])

    assert (rules.base_asset, rules.quote_asset, rules.trading) == ("ETH", "BTC", True)
    assert rules.oco_allowed
    assert rules.percent_price is None
    assert rules.lot.step == 0


def test_a_new_order_event_has_no_fill() -> None:
    event = payloads.user_event(recorded("Subscriptions/Spot/Account/Order.txt")["event"])

    assert isinstance(event, OrderUpdate)
    assert event.fill is None
    assert event.report.client_order_id == "mUvoqJxFIILMdfAW5iGSOW"
    assert event.reject_reason is None


def test_a_trade_event_brings_the_fill() -> None:
    data = recorded("Subscriptions/Spot/Account/Order.txt")["event"]
    data |= {
        "x": "TRADE",
        "X": "FILLED",
        "t": 9,
        "l": "1.0",
        "L": "0.1",
        "z": "1.0",
        "n": "0.001",
        "N": "ETH",
        "m": True,
    }
    event = payloads.user_event(data)

    assert isinstance(event, OrderUpdate)
    assert event.fill is not None
    assert (event.fill.trade_id, event.fill.commission, event.fill.is_maker) == (9, Decimal("0.001"), True)


def test_a_cancel_event_names_the_order_not_the_cancel() -> None:
    data = recorded("Subscriptions/Spot/Account/Order.txt")["event"]
    event = payloads.user_event(data | {"x": "CANCELED", "X": "CANCELED", "c": "the-cancel", "C": "the-order"})

    assert isinstance(event, OrderUpdate)
    assert event.report.client_order_id == "the-order"


def test_list_and_balance_events_are_read() -> None:
    lists = payloads.user_event(recorded("Subscriptions/Spot/Account/OcoOrder.txt")["event"])
    balances = payloads.user_event(recorded("Subscriptions/Spot/Account/AccountPosition.txt")["event"])

    assert isinstance(lists, ListUpdate)
    assert lists.status is ListStatus.EXECUTING
    assert isinstance(balances, BalancesUpdate)
    assert balances.balances["ETH"].free == 10000


@pytest.mark.parametrize("kind", ["balanceUpdate", "externalLockUpdate"])
def test_money_that_moves_besides_trades_is_read(kind: str) -> None:
    event = payloads.user_event({"e": kind, "E": 7, "a": "BTC", "d": "-0.50000000", "T": 6})

    assert event == BalanceChange("BTC", Decimal("-0.5"), kind == "externalLockUpdate", 7)


def test_events_that_the_bot_has_no_use_for_are_passed_over() -> None:
    assert payloads.user_event({"e": "eventStreamTerminated"}) is None


def test_market_streams_are_read() -> None:
    candle = payloads.stream_candle(recorded("Subscriptions/Spot/ExchangeData/Klines.txt")["data"])
    book = payloads.stream_book(recorded("Subscriptions/Spot/ExchangeData/BookTicker.txt")["data"], 5.0)

    assert (candle.interval, candle.closed, candle.close) == ("1m", False, Decimal("0.0020"))
    assert (book.bid, book.ask, book.received) == (Decimal("25.35190000"), Decimal("25.36520000"), 5.0)
