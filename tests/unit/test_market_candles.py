"""Candles: equal to the plain sum of what was traded, without gaps, at every interval of Binance."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice, pairwise

import pytest

from paper_exchange.market import open_market
from paper_exchange.market.candles import INTERVALS, KEPT, CandleBook, open_and_length
from paper_exchange.market.events import Candle, IntervalUnknownError, MarketTrade

START_MS = int(datetime(2024, 2, 29, 23, 59, 30, tzinfo=UTC).timestamp()) * 1000
SYMBOL = "BTCUSDT"

Part = tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int]
"""Time, open, high, low, close, volume, quote volume and number of trades."""


def trade(time_ms: int, price: str, quantity: str = "1", buyer_is_maker: bool = False) -> MarketTrade:
    return MarketTrade(SYMBOL, time_ms, Decimal(price), Decimal(quantity), buyer_is_maker)


def candle(open_time_ms: int, price: str) -> Candle:
    value = Decimal(price)
    return Candle(open_time_ms, 1000, value, value, value, value, Decimal(1), value, 1, Decimal(0), Decimal(0))


@pytest.fixture(scope="module")
def market() -> tuple[list[Candle], list[MarketTrade]]:
    source = open_market("synthetic", (SYMBOL,), 5, START_MS)
    trades = (event for event in source.events() if isinstance(event, MarketTrade))
    return source.history(SYMBOL)[-10_000:], list(islice(trades, 600))


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_equal_the_plain_sum_of_history_and_trades(
    interval: str, market: tuple[list[Candle], list[MarketTrade]]
) -> None:
    history, trades = market
    book = CandleBook(SYMBOL, history)
    for each in trades:
        book.add(each)
    parts: list[Part] = [
        *((c.open_time_ms, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades) for c in history),
        *((t.time_ms, *(t.price,) * 4, t.quantity, t.price * t.quantity, 1) for t in trades),
    ]
    groups: dict[int, list[Part]] = {}
    for part in parts:
        groups.setdefault(open_and_length(interval, part[0])[0], []).append(part)
    got = book.candles(interval, trades[-1].time_ms, limit=500)
    assert len(got) == min(500, len(groups)) or interval == "1s"
    checked = 0
    for one in got:
        if group := groups.get(one.open_time_ms):
            checked += 1
            assert (one.open, one.close) == (group[0][1], group[-1][4])
            assert (one.high, one.low) == (max(p[2] for p in group), min(p[3] for p in group))
            assert (one.volume, one.quote_volume) == (sum(p[5] for p in group), sum(p[6] for p in group))
            assert one.trades == sum(p[7] for p in group)
        else:
            assert one.trades == one.volume == 0
    assert checked >= min(len(groups), 400)
    taken = sum((t.quantity for t in trades if not t.buyer_is_maker), Decimal(0))
    live = book.candles("1s", trades[-1].time_ms, start_ms=START_MS, limit=1000)
    assert sum(c.taker_base for c in live) == taken


@pytest.mark.parametrize("interval", ["1s", "1m"])
def test_five_hundred_candles_are_there_at_the_start(interval: str) -> None:
    history = open_market("synthetic", (SYMBOL,), 5, START_MS).history(SYMBOL)
    got = CandleBook(SYMBOL, history).candles(interval, START_MS)
    assert len(got) == 500
    assert got[-1].open_time_ms <= START_MS <= got[-1].close_time_ms


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_have_no_gaps_even_when_nothing_is_traded(interval: str) -> None:
    book = CandleBook(SYMBOL, [candle(START_MS - 1000, "10")])
    now = START_MS
    for _ in range(40):
        now = sum(open_and_length(interval, now))
    book.add(trade(now, "11"))
    for _ in range(9):
        now = sum(open_and_length(interval, now))
    got = book.candles(interval, now)
    assert len(got) in {50, 51}  # the two candles with trades, the flat ones between and after
    assert all(before.close_time_ms + 1 == after.open_time_ms for before, after in pairwise(got))
    for flat in (got[-2], got[-1], book.current(interval, now)):
        assert (flat.open, flat.high, flat.low, flat.close) == (Decimal(11),) * 4
        assert flat.trades == flat.volume == flat.quote_volume == 0
    assert got[-1] == book.current(interval, now)
    assert got[1].close == 10


def test_the_forming_candle_shows_what_was_traded_so_far() -> None:
    book = CandleBook(SYMBOL, [candle(START_MS - 1000, "10")])
    book.add(trade(START_MS + 10, "11", "2"))
    book.add(trade(START_MS + 20, "9", "1", buyer_is_maker=True))
    high, low, three, quote, bought = map(Decimal, ("11", "9", "3", "31", "2"))
    expected = Candle(START_MS, 1000, high, high, low, low, three, quote, 2, bought, Decimal(22))
    assert book.current("1s", START_MS + 20) == expected
    assert book.candles("1s", START_MS + 20, limit=1) == [expected]


def test_a_late_trade_leaves_closed_candles_as_they_are() -> None:
    book = CandleBook(SYMBOL, [candle(START_MS - 1000, "10")])
    book.add(trade(START_MS, "11"))
    book.add(trade(START_MS + 1000, "12"))
    closed = book.candles("1s", START_MS + 1000)[:-1]
    book.add(trade(START_MS + 999, "13"))
    assert book.candles("1s", START_MS + 1000)[:-1] == closed
    assert book.current("1s", START_MS + 1000).high == 13


@pytest.mark.parametrize(
    ("start", "end", "limit", "expected"),
    [
        pytest.param(None, None, 3, [7, 8, 9], id="the last ones without a window"),
        pytest.param(None, 4000, 2, [3, 4], id="the last ones up to the end"),
        pytest.param(3000, None, 2, [3, 4], id="the first ones from the start"),
        pytest.param(2001, 4999, 10, [3, 4], id="those that open within the window"),
        pytest.param(-(10**12), None, 1, [0], id="the oldest for a start before all"),
        pytest.param(-(10**12), -(10**11), 1, [], id="none before the oldest"),
        pytest.param(None, -(10**11), 5, [], id="none before the oldest, without a start"),
        pytest.param(10_000, None, 5, [], id="none of the future"),
        pytest.param(5000, 3000, 5, [], id="none in an empty window"),
    ],
)
def test_the_window_is_that_of_binance(start: int | None, end: int | None, limit: int, expected: list[int]) -> None:
    book = CandleBook(SYMBOL, [candle(START_MS + second * 1000, str(second + 1)) for second in range(8)])
    got = book.candles(
        "1s",
        START_MS + 9500,
        start_ms=None if start is None else START_MS + start,
        end_ms=None if end is None else START_MS + end,
        limit=limit,
    )
    assert [(one.open_time_ms - START_MS) // 1000 for one in got] == expected


@pytest.mark.parametrize(
    ("interval", "opened", "closed"),
    [
        ("1w", "2024-02-26T00:00:00", "2024-03-04T00:00:00"),
        ("1M", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("1d", "2024-02-29T00:00:00", "2024-03-01T00:00:00"),
        ("4h", "2024-02-29T20:00:00", "2024-03-01T00:00:00"),
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first(interval: str, opened: str, closed: str) -> None:
    start, length = open_and_length(interval, START_MS)
    assert datetime.fromtimestamp(start / 1000, UTC).isoformat() == f"{opened}+00:00"
    assert datetime.fromtimestamp((start + length) / 1000, UTC).isoformat() == f"{closed}+00:00"


def test_memory_is_bounded_however_long_the_market_runs() -> None:
    book = CandleBook(SYMBOL, [candle(START_MS, "1")])
    for second in range(5 * KEPT):
        book.add(trade(START_MS + second * 1000, "1"))
    now = START_MS + (5 * KEPT - 1) * 1000
    assert KEPT <= len(book.candles("1s", now, limit=100 * KEPT)) <= 2 * KEPT
    assert len(book.candles("1m", now, start_ms=0, limit=KEPT)) == 5 * KEPT // 60 + 1


def test_an_unknown_interval_is_refused_with_the_known_ones() -> None:
    book = CandleBook(SYMBOL, [candle(START_MS, "1")])
    with pytest.raises(IntervalUnknownError, match=r"1s, 1m.*got '7m'"):
        book.candles("7m", START_MS)
