"""Names and commands of market streams: what is understood, and what is refused in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paper_exchange.server.stream_commands import CommandRefusedError, combined_property, parse_command
from paper_exchange.server.stream_events import in_microseconds
from paper_exchange.server.stream_names import Kind, Stream, parse_stream

SYMBOLS = ("BTCUSDT",)


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("btcusdt@trade", Stream("btcusdt@trade", "BTCUSDT", Kind.TRADE)),
        ("btcusdt@aggTrade", Stream("btcusdt@aggTrade", "BTCUSDT", Kind.AGG_TRADE)),
        ("btcusdt@bookTicker", Stream("btcusdt@bookTicker", "BTCUSDT", Kind.BOOK_TICKER)),
        ("btcusdt@avgPrice", Stream("btcusdt@avgPrice", "BTCUSDT", Kind.AVERAGE)),
        ("btcusdt@referencePrice", Stream("btcusdt@referencePrice", "BTCUSDT", Kind.REFERENCE)),
        ("btcusdt@ticker", Stream("btcusdt@ticker", "BTCUSDT", Kind.TICKER)),
        ("btcusdt@ticker_4h", Stream("btcusdt@ticker_4h", "BTCUSDT", Kind.WINDOW_TICKER, interval="4h")),
        ("!miniTicker@arr", Stream("!miniTicker@arr", "", Kind.MINI_TICKER)),
        ("!ticker_1d@arr", Stream("!ticker_1d@arr", "", Kind.WINDOW_TICKER, interval="1d")),
        ("btcusdt@kline_1s", Stream("btcusdt@kline_1s", "BTCUSDT", Kind.KLINE, 1000, "1s")),
        ("btcusdt@kline_1M", Stream("btcusdt@kline_1M", "BTCUSDT", Kind.KLINE, 2000, "1M")),
        (
            "btcusdt@kline_1d@+08:00",
            Stream("btcusdt@kline_1d@+08:00", "BTCUSDT", Kind.KLINE, 2000, "1d", 8 * 3_600_000),
        ),
        ("btcusdt@depth", Stream("btcusdt@depth", "BTCUSDT", Kind.DEPTH, 1000)),
        ("btcusdt@depth@100ms", Stream("btcusdt@depth@100ms", "BTCUSDT", Kind.DEPTH, 100)),
        ("btcusdt@depth20@100ms", Stream("btcusdt@depth20@100ms", "BTCUSDT", Kind.PARTIAL_DEPTH, 100, levels=20)),
    ],
    ids=str,
)
def test_a_name_says_what_is_told_and_how_often(name: str, stream: Stream) -> None:
    assert parse_stream(name, SYMBOLS) == stream


@pytest.mark.parametrize(
    "name",
    [
        "BTCUSDT@trade",
        "nosuch@trade",
        "btcusdt",
        "btcusdt@nosuch",
        "btcusdt@trade@100ms",
        "btcusdt@depth@0ms",
        "btcusdt@depth7",
        "btcusdt@kline_7m",
        "btcusdt@kline_1m@+09:00",
        "btcusdt@ticker_2h",
        "!ticker@arr",
        "!bookTicker",
        "!miniTicker",
        "",
    ],
)
def test_a_name_that_does_not_exist_is_no_stream(name: str) -> None:
    assert parse_stream(name, SYMBOLS) is None


VARIANTS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
NO_ID = "Invalid request: request ID must be an unsigned integer"
NO_BOOLEAN = "Invalid value type: expected Boolean"
NO_NAME = "Invalid request: property name must be a string"


@pytest.mark.parametrize(
    ("frame", "code", "message", "has_id"),
    [
        ("{", 3, "Invalid JSON: expected value at line 1 column 2", False),
        ('{"method":"LIST_SUBSCRIPTIONS",\n "id":}', 3, "Invalid JSON: expected value at line 2 column 7", False),
        ("[1]", 2, "Invalid request: missing field `method` at line 1 column 3", False),
        ('{"id":1}', 2, "Invalid request: missing field `method` at line 1 column 8", False),
        (
            '{"method":"SUBSCRIBES","id":1}',
            2,
            f"Invalid request: unknown variant `SUBSCRIBES`, expected one of {VARIANTS} at line 1 column 22",
            False,
        ),
        ('{"method":"LIST_SUBSCRIPTIONS"}', 2, NO_ID, False),
        ('{"method":"LIST_SUBSCRIPTIONS","id":1.5}', 2, NO_ID, False),
        ('{"method":"LIST_SUBSCRIPTIONS","id":true}', 2, NO_ID, False),
        ('{"method":"LIST_SUBSCRIPTIONS","id":9223372036854775808}', 2, NO_ID, False),
        (json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 37 * "x"}), 2, NO_ID, False),
        ('{"method":"LIST_SUBSCRIPTIONS","params":[1],"id":1}', 2, "Invalid request: too many parameters", True),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":1}', 2, "Invalid request: too many parameters", True),
        ('{"method":"GET_PROPERTY","params":[],"id":1}', 2, NO_NAME, True),
        ('{"method":"GET_PROPERTY","params":[5],"id":1}', 2, NO_NAME, True),
        ('{"method":"GET_PROPERTY","params":["speed"],"id":1}', 0, "Unknown property", True),
        ('{"method":"SET_PROPERTY","params":["speed",true],"id":1}', 0, "Unknown property", True),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1, "Invalid value type: expected Boolean", True),
        (
            '{"method":"SET_PROPERTY","params":["combined","on"],"id":1}',
            1,
            "Invalid value type: expected Boolean",
            True,
        ),
        ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2, "Invalid request: stream name must be a string", True),
    ],
)
def test_a_wrong_command_is_refused_in_binances_words(frame: str, code: int, message: str, has_id: bool) -> None:
    with pytest.raises(CommandRefusedError) as refused:
        combined_property(parse_command(frame))
    error = {"error": {"code": code, "msg": message}}
    assert refused.value.answer == (error | {"id": 1} if has_id else error)


@pytest.mark.parametrize("ident", [0, -5, -(2**63), 2**63 - 1, "", "a-b", 36 * "x", None])
def test_an_id_is_a_number_of_64_bits_a_short_text_or_null(ident: Any) -> None:
    command = parse_command(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": ident}))
    assert (command.method, command.params, command.ident) == ("SUBSCRIBE", ["btcusdt@trade"], ident)


def test_only_times_become_microseconds() -> None:
    trade = {"e": "trade", "E": 5, "s": "BTCUSDT", "t": 9, "p": "1", "q": "1", "T": 4, "m": True, "M": True}
    assert in_microseconds(trade) == trade | {"E": 5000, "T": 4000}
    depth = {"e": "depthUpdate", "E": 5, "U": 7, "u": 8}
    assert in_microseconds(depth) == depth | {"E": 5000}
    position = {"e": "outboundAccountPosition", "E": 5, "u": 4, "B": []}
    assert in_microseconds(position) == position | {"E": 5000, "u": 4000}
    report = {"e": "executionReport", "E": 5, "T": 4, "O": 3, "W": 2, "D": -1, "t": 9, "C": "", "i": 6}
    assert in_microseconds(report) == report | {"E": 5000, "T": 4000, "O": 3000, "W": 2000}
    kline = {"e": "kline", "E": 70_000, "k": {"t": 60_000, "T": 119_999, "f": 3, "L": 4}}
    assert in_microseconds(kline)["k"] == {"t": 60_000_000, "T": 119_999_999, "f": 3, "L": 4}
    assert in_microseconds([trade])[0]["T"] == 4000
    book = {"lastUpdateId": 160, "bids": [], "asks": []}
    assert in_microseconds(book) == book
