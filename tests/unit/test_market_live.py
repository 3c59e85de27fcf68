"""A followed market, message by message: what becomes an event, what waits, and whom a spec names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from paper_exchange.market.events import BookUpdate, MarketSpecInvalidError, MarketTrade
from paper_exchange.market.live import BINANCE, Follower, Upstream, candle_of, history_spans, stream_names, upstream_of
from paper_exchange.market.local_book import BookGapError
from support.paper import units

NOW = 1_700_000_000_000


def snapshot(last: int) -> dict[str, Any]:
    return {"lastUpdateId": last, "bids": [["100.00", "1.0"]], "asks": [["100.01", "1.0"]]}


def depth(first: int, last: int, quantity: str = "2.0", at: int = NOW) -> dict[str, Any]:
    return {"e": "depthUpdate", "E": at, "U": first, "u": last, "b": [["99.50", quantity]], "a": []}


def trade(ident: int, at: int = NOW) -> dict[str, Any]:
    return {"e": "trade", "E": at, "t": ident, "p": "100.00", "q": "0.5", "T": at, "m": True}


@pytest.fixture
def follower() -> Follower:
    return Follower("BTCUSDT")


def ids(events: list[Any]) -> list[int]:
    return [event.trade_id for event in events if isinstance(event, MarketTrade)]


def test_trades_wait_for_the_book_so_that_no_stop_takes_from_an_old_one(follower: Follower) -> None:
    assert follower.trade(trade(7), NOW) == []
    assert follower.depth(depth(11, 12), NOW) == []
    book, change, traded = follower.snapshot(snapshot(10), NOW)
    assert isinstance(book, BookUpdate)
    assert book.snapshot
    assert change == BookUpdate("BTCUSDT", NOW, ((units("99.5"), units("2")),), (), False)
    assert traded == MarketTrade("BTCUSDT", NOW, Decimal(100), Decimal("0.5"), True, 7)
    assert ids(follower.trade(trade(8), NOW)) == [8]


def test_after_a_gap_trades_wait_again_until_a_newer_book_is_there(follower: Follower) -> None:
    follower.snapshot(snapshot(10), NOW)
    with pytest.raises(BookGapError, match="begins at update 11, got 13"):
        follower.depth(depth(13, 14), NOW)
    assert follower.trade(trade(1), NOW) == []
    with pytest.raises(BookGapError, match="begins at update 12, got 13"):
        follower.snapshot(snapshot(11), NOW)
    assert follower.depth(depth(15, 15), NOW) == []
    assert len(follower.snapshot(snapshot(12), NOW)) == 4
    assert follower.book.update_id == 15


def test_what_waited_when_the_connection_ended_never_becomes_an_event(follower: Follower) -> None:
    follower.trade(trade(1), NOW)
    follower.depth(depth(5, 6), NOW)
    follower.restart()
    (book,) = follower.snapshot(snapshot(3), NOW)
    assert isinstance(book, BookUpdate)
    assert book.snapshot
    assert follower.missed == 1


def test_a_message_that_comes_twice_counts_once(follower: Follower) -> None:
    follower.snapshot(snapshot(10), NOW)
    assert len(follower.depth(depth(11, 12), NOW)) == 1
    assert follower.depth(depth(11, 12), NOW) == []
    assert ids(follower.trade(trade(3), NOW)) == [3]
    assert follower.trade(trade(3), NOW) == []
    assert follower.missed == 0


def test_trades_that_a_connection_leaves_out_are_counted(follower: Follower) -> None:
    follower.snapshot(snapshot(10), NOW)
    for ident in (3, 4, 8):
        follower.trade(trade(ident), NOW)
    assert follower.missed == 3


def test_trade_numbers_may_begin_anew_with_a_connection(follower: Follower) -> None:
    follower.snapshot(snapshot(10), NOW)
    follower.trade(trade(1000), NOW)
    follower.restart()
    follower.snapshot(snapshot(3), NOW)
    assert ids(follower.trade(trade(1), NOW)) == [1]
    assert follower.missed == 0


def test_trades_that_are_in_the_candles_already_are_no_events(follower: Follower) -> None:
    follower.from_ms = NOW
    follower.snapshot(snapshot(10), NOW)
    assert follower.trade(trade(1, NOW - 1), NOW) == []
    assert ids(follower.trade(trade(2, NOW), NOW)) == [2]


def test_times_are_those_of_the_followed_exchange_but_never_in_the_future(follower: Follower) -> None:
    follower.snapshot(snapshot(10), NOW)
    events = follower.trade(trade(1, NOW - 50), NOW) + follower.trade(trade(2, NOW + 50), NOW)
    events += follower.depth(depth(11, 11, at=NOW - 7), NOW) + follower.depth(depth(12, 12, at=NOW + 7), NOW)
    assert [event.time_ms for event in events] == [NOW - 50, NOW, NOW - 7, NOW]


def test_a_second_connection_is_heard_only_where_it_goes_on(follower: Follower) -> None:
    assert not follower.follows_on(depth(11, 12))
    assert not follower.follows_on(trade(1))
    follower.snapshot(snapshot(10), NOW)
    follower.trade(trade(5), NOW)
    assert follower.follows_on(depth(9, 12))
    assert not follower.follows_on(depth(12, 13))
    assert follower.follows_on(trade(6))
    assert not follower.follows_on(trade(7))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("live", BINANCE),
        ("live:http://a:1", Upstream("http://a:1", "ws://a:1")),
        ("live:https://a/", Upstream("https://a", "wss://a")),
        ("live:https://a,wss://b:9443/", Upstream("https://a", "wss://b:9443")),
        ("synthetic", None),
        ("capture:live", None),
    ],
)
def test_a_spec_names_whom_to_follow(spec: str, expected: Upstream | None) -> None:
    assert upstream_of(spec) == expected


@pytest.mark.parametrize("spec", ["live:", "live:a:1", "live:ftp://a", "live:http://", "live:http://a,http://b"])
def test_a_spec_without_a_usable_address_is_refused_with_an_example(spec: str) -> None:
    with pytest.raises(MarketSpecInvalidError, match=r"expected an address .* live:https://api\.binance\.com,wss"):
        upstream_of(spec)


def test_both_streams_of_every_symbol_are_asked_for() -> None:
    assert stream_names(("BTCUSDT", "ETHUSDT")) == "btcusdt@depth@100ms/btcusdt@trade/ethusdt@depth@100ms/ethusdt@trade"


def test_history_is_whole_minutes_and_then_as_many_seconds_as_one_question_answers() -> None:
    (minutes, begin, middle), (seconds, start, end) = history_spans(NOW + 999)
    assert (minutes, seconds) == ("1m", "1s")
    assert end == NOW
    assert middle == start
    assert start % 60_000 == 0
    assert 900 <= (end - start) // 1000 < 960
    assert 8.4 * 3_600_000 < end - begin < 8.6 * 3_600_000


def test_a_row_of_klines_is_a_candle() -> None:
    row = [NOW, "1", "4", "0.5", "2", "10", NOW + 59_999, "20", 7, "6", "12", "0"]
    candle = candle_of(row, "1m")
    assert (candle.open, candle.high, candle.low, candle.close) == (1, 4, Decimal("0.5"), 2)
    assert (candle.volume, candle.quote_volume, candle.trades) == (10, 20, 7)
    assert (candle.taker_base, candle.taker_quote) == (6, 12)
    assert candle.close_time_ms == NOW + 59_999
