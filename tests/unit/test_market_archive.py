"""Binance's daily archives as a market: trades and candles as they were, a book around them, errors in place."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path

import pytest

from paper_exchange.core.units import to_decimal
from paper_exchange.market import open_market
from paper_exchange.market.candles import CandleBook
from paper_exchange.market.events import (
    ArchiveInvalidError,
    BookUpdate,
    Candle,
    MarketEvent,
    MarketTrade,
    SymbolUnknownError,
)

START_MS = 1_700_000_000_000  # 20 s into a minute
MINUTE_MS = START_MS // 60_000 * 60_000
DAY_MS = 1_723_075_200_000  # 2024-08-08
DAY_2025_MS = 1_735_776_000_000  # 2025-01-02


def trade_row(ms: int, price: str, quantity: str = "0.00100000", *, sold: bool = True, times: int = 1) -> str:
    """A row of `trades`, its time in milliseconds, or in microseconds where `times` is 1000."""
    return f"51175358,{price},{quantity},101.29224200,{ms * times},{sold},True"


def candle_row(ms: int, prices: str, volume: str, count: int, bought: str) -> str:
    return f"{ms},{prices},{volume},{ms + 59_999},30937869.62302600,{count},{bought},14187002.70550060,0"


def write(directory: Path, name: str, rows: Iterable[str]) -> None:
    """An archive: a zip as Binance's, or the csv in it."""
    text = "".join(f"{row}\n" for row in rows)
    if name.endswith(".csv"):
        (directory / name).write_text(text)
    else:
        with zipfile.ZipFile(directory / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.replace(".zip", ".csv"), text)


def replayed(directory: Path, *symbols: str) -> list[MarketEvent]:
    return list(open_market(f"archive:{directory}", symbols or ("BTCUSDT",), 1, START_MS).events())


def traded(events: Iterable[MarketEvent]) -> list[MarketTrade]:
    return [event for event in events if isinstance(event, MarketTrade)]


class Book:
    """The best prices that the events so far show."""

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def see(self, event: BookUpdate) -> None:
        for side, levels in ((self.bids, event.bids), (self.asks, event.asks)):
            if event.snapshot:
                side.clear()
            side.update(levels)
            for price in [price for price, quantity in side.items() if not quantity]:
                del side[price]

    @property
    def best(self) -> tuple[Decimal, Decimal]:
        return to_decimal(max(self.bids)), to_decimal(min(self.asks))


@pytest.mark.parametrize("name", ["BTCUSDT-trades-2024-08-08.zip", "BTCUSDT-trades-2024-08-08.csv"])
def test_trades_happen_as_recorded_in_the_minute_in_which_the_market_begins(tmp_path: Path, name: str) -> None:
    write(
        tmp_path,
        name,
        [
            trade_row(DAY_MS + 19_999, "59999.00000000"),
            trade_row(DAY_MS + 20_001, "60000.01000000", "0.25000000", sold=False),
            trade_row(DAY_MS + 60_000, "60000.00000000", "1.50000000"),
        ],
    )
    assert traded(replayed(tmp_path)) == [
        MarketTrade("BTCUSDT", START_MS + 1, Decimal("60000.01"), Decimal("0.25"), False),
        MarketTrade("BTCUSDT", MINUTE_MS + 60_000, Decimal(60000), Decimal("1.5"), True),
    ]


def test_aggregates_are_trades_too_and_times_since_2025_are_microseconds(tmp_path: Path) -> None:
    time_us = (DAY_2025_MS + 30_000) * 1000 + 866
    row = f"0,60000.00000000,0.50000000,7,9,{time_us},false,true"
    write(tmp_path, "BTCUSDT-aggTrades-2025-01-02.zip", [row])
    assert traded(replayed(tmp_path)) == [
        MarketTrade("BTCUSDT", MINUTE_MS + 30_000, Decimal(60000), Decimal("0.5"), False)
    ]


def test_days_join_and_the_most_exact_kind_of_a_symbol_counts(tmp_path: Path) -> None:
    day = 86_400_000
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", [trade_row(DAY_MS + day - 1000, "60000.0")])
    write(tmp_path, "BTCUSDT-trades-2024-08-09.zip", [trade_row(DAY_MS + day + 1000, "60001.0")])
    write(tmp_path, "BTCUSDT-1m-2024-08-08.zip", ["not read"])
    write(tmp_path, "notes.txt", [])
    events = traded(replayed(tmp_path))
    assert [str(event.price) for event in events] == ["60000.0", "60001.0"]
    assert events[1].time_ms - events[0].time_ms == 2000


def test_symbols_stay_in_step_with_each_other(tmp_path: Path) -> None:
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", [trade_row(DAY_MS + 30_000, "60000.0")])
    write(tmp_path, "ETHUSDT-trades-2024-08-08.zip", [trade_row(DAY_MS + 3_630_000, "3000.0")])
    events = replayed(tmp_path, "ETHUSDT", "BTCUSDT")
    opening = events[:2]
    assert {event.symbol for event in opening if isinstance(event, BookUpdate) and event.snapshot} == {
        "BTCUSDT",
        "ETHUSDT",
    }
    assert {event.time_ms for event in opening} == {START_MS}
    assert [(event.symbol, event.time_ms - MINUTE_MS) for event in traded(events)] == [
        ("BTCUSDT", 30_000),
        ("ETHUSDT", 3_630_000),
    ]


def walk(count: int) -> Iterator[str]:
    """Trades each 7 ms whose price goes up and down."""
    for number in range(count):
        price = Decimal(60000) + Decimal(number * 37 % 1000 - number % 13) / 100
        yield trade_row(DAY_MS + 20_000 + number * 7, f"{price}", sold=number % 3 == 0)


def test_the_book_is_around_the_price_and_changes_each_100_ms_at_most(tmp_path: Path) -> None:
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", walk(3000))
    events = replayed(tmp_path)
    assert all(before.time_ms <= after.time_ms for before, after in pairwise(events))
    book, updates = Book(), []
    assert isinstance(events[0], BookUpdate)
    book.see(events[0])
    for before, event, after in zip(events, events[1:], [*events[2:], events[-1]], strict=False):
        if isinstance(event, BookUpdate):
            book.see(event)
            updates.append(event.time_ms)
            bid, ask = book.best
            assert ask - bid == Decimal("0.01")
            assert len(book.bids) >= 20
            assert len(book.asks) >= 20
            assert any(one.price == book.best[0 if one.buyer_is_maker else 1] for one in traded((before, after)))
    assert len(updates) > 3000 * 7 // 100 / 2
    assert all(after - before >= 100 for before, after in pairwise(updates))
    last = traded(events)[-1]
    assert last.price == book.best[0 if last.buyer_is_maker else 1]


def test_a_seed_gives_one_book_and_history_leads_up_to_the_first_price(tmp_path: Path) -> None:
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", walk(300))
    assert replayed(tmp_path) == replayed(tmp_path)
    history = open_market(f"archive:{tmp_path}", ("BTCUSDT",), 1, START_MS).history("BTCUSDT")
    assert history[-1].close == Decimal("60000.00")
    assert history[-1].close_time_ms + 1 == START_MS


CANDLES = [
    # falling, rising, flat, without a trade, of one trade, of less than a step for each second
    ("60000.00000000,60020.00000000,59980.00000000,59990.00000000", "12.34567000", 900, "4.00000000"),
    ("59990.00000000,60050.01000000,59990.00000000,60050.00000000", "7.00001000", 61, "7.00001000"),
    ("60050.00000000,60050.00000000,60050.00000000,60050.00000000", "0.50000000", 3, "0.00000000"),
    ("60050.00000000,60050.00000000,60050.00000000,60050.00000000", "0.00000000", 0, "0.00000000"),
    ("60051.00000000,60051.00000000,60051.00000000,60051.00000000", "0.00001000", 1, "0.00001000"),
    ("60051.00000000,60052.00000000,60040.00000000,60041.00000000", "0.00004000", 40, "0.00002000"),
]


def test_candles_are_played_so_that_they_come_out_again(tmp_path: Path) -> None:
    rows = [candle_row(DAY_MS + 60_000 * number, *candle) for number, candle in enumerate(CANDLES)]
    write(tmp_path, "BTCUSDT-1m-2024-08-08.zip", rows)
    market = open_market(f"archive:{tmp_path}", ("BTCUSDT",), 1, MINUTE_MS)
    opening = Candle(MINUTE_MS - 1000, 1000, *[Decimal(60000)] * 4, *[Decimal(0)] * 2, 0, *[Decimal(0)] * 2)
    book = CandleBook("BTCUSDT", [opening])
    for event in traded(market.events()):
        book.add(event)
    now_ms = MINUTE_MS + 60_000 * len(CANDLES) - 1
    again = book.candles("1m", now_ms, MINUTE_MS)
    assert len(again) == len(CANDLES)
    for (prices, volume, count, bought), candle in zip(CANDLES, again, strict=True):
        assert [candle.open, candle.high, candle.low, candle.close] == [Decimal(one) for one in prices.split(",")]
        assert candle.volume == Decimal(volume)
        assert candle.trades <= max(4, min(60, count))
        assert abs(candle.taker_base - Decimal(bought)) <= candle.volume / 4


def test_a_candle_meets_its_low_before_its_high(tmp_path: Path) -> None:
    for day, candle in (("2024-08-08", CANDLES[0]), ("2024-08-09", CANDLES[1])):
        start_ms = DAY_MS if day == "2024-08-08" else DAY_MS + 86_400_000
        write(tmp_path, f"BTCUSDT-1m-{day}.csv", [candle_row(start_ms, *candle)])
    events = traded(open_market(f"archive:{tmp_path}", ("BTCUSDT",), 1, MINUTE_MS).events())
    for minute in ([event for event in events if event.time_ms < MINUTE_MS + 60_000], events[60:]):
        prices = [event.price for event in minute]
        assert prices.index(min(prices)) < prices.index(max(prices))
        assert len(minute) == 60
        steps = {after.time_ms - before.time_ms for before, after in pairwise(minute)}
        assert steps == {1000}


def test_a_recording_that_loops_begins_again_with_the_next_full_minute(tmp_path: Path) -> None:
    rows = [trade_row(DAY_MS + ms, price) for ms, price in ((30_000, "60000.0"), (61_000, "59000.0"))]
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", rows)
    market = open_market(f"archive:{tmp_path}", ("BTCUSDT",), 1, START_MS, loop=True)
    again = MINUTE_MS + 120_000
    looped = list(islice(market.events(), 8))
    assert [(event.time_ms - MINUTE_MS, str(event.price)) for event in traded(looped)] == [
        (30_000, "60000.0"),
        (61_000, "59000.0"),
        (120_000 + 30_000, "60000.0"),
        (120_000 + 61_000, "59000.0"),
    ]
    books = [event for event in looped if isinstance(event, BookUpdate) and event.snapshot]
    assert [one.time_ms for one in books] == [START_MS, again]
    assert books[0].bids == books[1].bids
    assert traded(open_market(f"archive:{tmp_path}", ("BTCUSDT",), 1, START_MS).events()) == traded(looped)[:2]


GOOD = trade_row(DAY_MS + 30_000, "60000.0")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], "BTCUSDT-trades-2024-08-08.zip:1: expected at least one trade", id="empty"),
        pytest.param([GOOD, "1,2,3"], r"\.zip:2: expected the 7 fields id,price,.*, got 3", id="fields"),
        pytest.param(
            [GOOD, GOOD.replace("60000.0", "6e4")], r"\.zip:2: price: expected a decimal.*'6e4'", id="exponent"
        ),
        pytest.param([GOOD, GOOD.replace("60000.0", "0.0")], r"\.zip:2: price: expected a positive", id="zero"),
        pytest.param([GOOD.replace("0.00100000", "-1")], r"\.zip:1: qty: expected a decimal.*'-1'", id="negative"),
        pytest.param(
            [GOOD, GOOD.replace("True", "yes", 1)], r"\.zip:2: isBuyerMaker: expected True or False", id="maker"
        ),
        pytest.param([GOOD, trade_row(DAY_MS - 1, "1")], r"\.zip:2: time: expected a time of the day", id="day"),
        pytest.param(
            [GOOD, GOOD.replace(f"{DAY_MS + 30_000}", "now")], r"\.zip:2: time: expected milli.*'now'", id="time"
        ),
        pytest.param([GOOD, "\x00"], r"\.zip:2: ", id="not text"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_field(tmp_path: Path, rows: list[str], expected: str) -> None:
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", rows)
    with pytest.raises(ArchiveInvalidError, match=expected):
        replayed(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [(2, "59000.0", "high: expected the highest"), (3, "60001.0", "low: expected the lowest"), (8, "-", "trades: ")],
)
def test_a_bad_candle_is_refused_with_its_field(tmp_path: Path, field: int, value: str, expected: str) -> None:
    row = candle_row(DAY_MS, *CANDLES[0]).split(",")
    row[field] = value
    write(tmp_path, "BTCUSDT-1m-2024-08-08.zip", [",".join(row)])
    with pytest.raises(ArchiveInvalidError, match=rf"BTCUSDT-1m-2024-08-08\.zip:1: {expected}"):
        replayed(tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2024-08-08.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(ArchiveInvalidError, match=r"BTCUSDT-trades-2024-08-08\.zip:1: expected readable"):
        replayed(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.csv", GOOD)
    with pytest.raises(ArchiveInvalidError, match=r"a zip without BTCUSDT-trades-2024-08-08\.csv"):
        replayed(tmp_path)


def test_a_header_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "BTCUSDT-trades-2024-08-08.csv", ["id,price,qty,quote_qty,time,is_buyer_maker,is_best_match", GOOD])
    assert len(traded(replayed(tmp_path))) == 1


def test_missing_days_symbols_and_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArchiveInvalidError, match="expected a directory"):
        replayed(tmp_path / "none")
    with pytest.raises(ArchiveInvalidError, match=r"files named like BTCUSDT-trades-.*`paper-exchange fetch`"):
        replayed(tmp_path)
    write(tmp_path, "BTCUSDT-trades-2024-08-08.zip", [GOOD])
    with pytest.raises(SymbolUnknownError, match=r"expected one of BTCUSDT.*got 'ETHUSDT'"):
        replayed(tmp_path, "BTCUSDT", "ETHUSDT")
    write(tmp_path, "ETHUSDT-trades-2024-08-09.zip", [trade_row(DAY_MS + 86_400_000, "3000.0")])
    with pytest.raises(ArchiveInvalidError, match="expected ETHUSDT of 2024-08-08, which BTCUSDT has"):
        replayed(tmp_path, "BTCUSDT", "ETHUSDT")
    write(tmp_path, "BTCUSDT-trades-2024-08-10.zip", [trade_row(DAY_MS + 2 * 86_400_000, "60000.0")])
    with pytest.raises(ArchiveInvalidError, match="expected BTCUSDT of 2024-08-09 after that of 2024-08-08"):
        replayed(tmp_path)
