"""What the exchange sends as a number and is none, or none that a price or a quantity can be, is not taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tradingbot.gateway import payloads

BOOK = '{"symbol": "BTCUSDT", "bidPrice": "~", "bidQty": "1", "askPrice": "2", "askQty": "1"}'
STREAM_BOOK = '{"s": "BTCUSDT", "b": "1", "B": "1", "a": "~", "A": "1"}'
ROW = '[1, "2", "2", "2", "~", "1", 2, "1", 3]'
KLINE = (
    '{"k": {"s": "BTCUSDT", "i": "1m", "t": 1, "T": 2, "o": "2", "h": "2", "l": "~", "c": "2", "v": "1", "n": 3, '
    '"x": true}}'
)
ORDER = (
    '{"symbol": "BTCUSDT", "orderId": 1, "clientOrderId": "a", "side": "SELL", "type": "LIMIT", "status": "NEW", '
    '"price": "1", "origQty": "1", "executedQty": "~"}'
)
TRADE = (
    '{"symbol": "BTCUSDT", "id": 1, "orderId": 1, "isBuyer": true, "price": "~", "qty": "1", "commission": "0", '
    '"commissionAsset": "BNB", "isMaker": false, "time": 1}'
)
FILL = (
    '{"e": "executionReport", "s": "BTCUSDT", "i": 1, "S": "BUY", "x": "TRADE", "t": 1, "L": "1", "l": "~", "n": "0", '
    '"N": "BNB", "m": false, "T": 1, "g": -1, "C": "", "c": "a", "o": "LIMIT", "X": "FILLED", "f": "GTC", "p": "1", '
    '"P": "0", "q": "1", "z": "1", "E": 1}'
)
READ: dict[str, tuple[str, Callable[[Any], object]]] = {
    "book": (BOOK, lambda data: payloads.book_ticker(data, 0.0)),
    "stream-book": (STREAM_BOOK, lambda data: payloads.stream_book(data, 0.0)),
    "candle": (ROW, lambda data: payloads.candle("BTCUSDT", "1m", data, 3)),
    "stream-candle": (KLINE, payloads.stream_candle),
    "order": (ORDER, payloads.order),
    "trade": (TRADE, payloads.trade),
    "fill": (FILL, payloads.user_event),
    "price": ('{"price": "~"}', payloads.last_price),
}


@pytest.mark.parametrize("number", ["NaN", "sNaN", "Infinity", "-Infinity", "-1", "one"])
@pytest.mark.parametrize(("message", "read"), READ.values(), ids=READ)
def test_what_no_price_and_no_quantity_can_be_is_not_taken(
    message: str, read: Callable[[Any], object], number: str
) -> None:
    read(json.loads(message.replace("~", "1")))
    with pytest.raises(payloads.UNREADABLE):
        read(json.loads(message.replace("~", number)))


@pytest.mark.parametrize("kind", ["candle", "stream-candle", "price", "fill", "trade"])
def test_nothing_was_traded_for_nothing(kind: str) -> None:
    message, read = READ[kind]
    with pytest.raises(payloads.UNREADABLE):
        read(json.loads(message.replace("~", "0.00000000")))


@pytest.mark.parametrize("kind", ["book", "stream-book", "order"])
def test_a_side_of_the_book_may_be_empty_and_an_order_not_executed(kind: str) -> None:
    message, read = READ[kind]
    read(json.loads(message.replace("~", "0.00000000")))


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_balance_that_is_no_number_is_not_taken(number: str) -> None:
    answer = {"uid": 1, "commissionRates": {"maker": "0", "taker": "0"}, "balances": []}
    payloads.account(answer)
    with pytest.raises(payloads.UNREADABLE):
        payloads.account(answer | {"balances": [{"asset": "BTC", "free": number, "locked": "0"}]})
    with pytest.raises(payloads.UNREADABLE):
        payloads.account(answer | {"commissionRates": {"maker": "0", "taker": number}})
    with pytest.raises(payloads.UNREADABLE):
        payloads.user_event({"e": "balanceUpdate", "a": "BTC", "d": number, "E": 1})
