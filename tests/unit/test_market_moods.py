"""The moods of a generated market: each does what it is named after, and the usual market stays what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice, pairwise, takewhile
from statistics import pstdev

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.core.units import to_decimal
from paper_exchange.market import open_market
from paper_exchange.market.events import BookUpdate, MarketEvent, MarketTrade, TradingStatus
from paper_exchange.market.moods import FIRST_MS, MOODS
from paper_exchange.store import Store
from paper_exchange.venue import Venue

START_MS = 1_700_000_000_123
BTC = "BTCUSDT"


def events(mood: str, seconds: int, symbols: tuple[str, ...] = (BTC,), seed: int = 1) -> Iterator[MarketEvent]:
    spec = f"synthetic:{mood}" if mood else "synthetic"
    end_ms = START_MS + seconds * 1000
    return takewhile(lambda event: event.time_ms <= end_ms, open_market(spec, symbols, seed, START_MS).events())


def prices(mood: str, seconds: int, seed: int = 1) -> dict[int, float]:
    """The last traded price of each tenth of a second since the start in which there was one."""
    return {
        (event.time_ms - START_MS) // 100: float(event.price)
        for event in events(mood, seconds, seed=seed)
        if isinstance(event, MarketTrade)
    }


def at(found: dict[int, float], second: float) -> float:
    """The last price up to a second."""
    return found[max(tenth for tenth in found if tenth <= second * 10)]


def text_of(event: MarketEvent) -> str:
    if isinstance(event, BookUpdate):
        return f"{event.symbol} {event.time_ms} {event.bids} {event.asks} {event.snapshot}\n"
    assert isinstance(event, MarketTrade)
    return f"{event.symbol} {event.time_ms} {event.price} {event.quantity} {event.buyer_is_maker}\n"


def test_the_usual_market_of_a_seed_is_what_it_was_in_the_first_version() -> None:
    market = open_market("synthetic", (BTC, "ETHUSDT", "XRPUSDT"), 1, START_MS)
    told = hashlib.sha256("".join(map(text_of, islice(market.events(), 5000))).encode())
    assert told.hexdigest() == "be0a0b2b1238f8744fd239974223380d99905e178ed9be05bb53ecb5db6387d8"
    candles = "".join(
        f"{one.open_time_ms} {one.open} {one.high} {one.low} {one.close} {one.volume} {one.quote_volume} {one.trades}"
        f" {one.taker_base} {one.taker_quote}\n"
        for one in market.history(BTC)
    )
    assert (
        hashlib.sha256(candles.encode()).hexdigest()
        == "1b2674017443f194a3f33e14bfd534f9b8137306145969a6429503a5326dd0e3"
    )


@pytest.mark.parametrize("mood", MOODS)
def test_a_seed_gives_the_same_mood_again(mood: str) -> None:
    symbols = (BTC, "XRPUSDT")
    assert list(islice(events(mood, 70, symbols), 3000)) == list(islice(events(mood, 70, symbols), 3000))


@pytest.mark.parametrize("seed", range(3))
def test_a_calm_market_moves_a_third_of_the_usual_at_most(seed: int) -> None:
    def unrest(mood: str) -> float:
        found = prices(mood, 300, seed)
        by_second = [at(found, second) for second in range(5, 300)]
        return pstdev(after / before for before, after in pairwise(by_second))

    assert unrest("calm") < unrest("") / 3


@pytest.mark.parametrize("seed", range(3))
def test_a_trend_goes_up_by_a_percent_in_ten_minutes(seed: int) -> None:
    found = prices("trend", 605, seed)
    assert at(found, 600) > 1.008 * at(found, 1)


def test_a_trend_turns_after_half_an_hour() -> None:
    trend = MOODS["trend"]
    pushes = [trend.push(ms, 100) for ms in (0, FIRST_MS + 1_799_900, FIRST_MS + 1_800_000, FIRST_MS + 3_600_000)]
    assert [push > 0 for push in pushes] == [True, True, False, True]
    assert abs(pushes[0]) == pytest.approx(0.000003)


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_takes_ten_percent_within_30_seconds(seed: int) -> None:
    found = prices("crash", 100, seed)
    assert 0.89 < at(found, 90.5) / at(found, 60) < 0.91
    assert 0.99 < at(found, 60) / at(found, 1) < 1.01
    assert at(found, 100) < 0.92 * at(found, 60)


@pytest.mark.parametrize("seed", range(3))
def test_a_gap_jumps_without_a_trade_between(seed: int) -> None:
    traded = [
        (event.time_ms - START_MS, float(event.price))
        for event in events("gap", 200, seed=seed)
        if isinstance(event, MarketTrade)
    ]
    jumps = [
        (at_ms, after / before) for (_, before), (at_ms, after) in pairwise(traded) if abs(after / before - 1) > 0.002
    ]
    (first_ms, down), (second_ms, up) = jumps
    assert FIRST_MS <= first_ms < FIRST_MS + 2000
    assert FIRST_MS + 120_000 <= second_ms < FIRST_MS + 122_000
    assert down == pytest.approx(0.97, abs=0.002)
    assert up == pytest.approx(1 / 0.97, abs=0.002)


def slippage(mood: str, value: int) -> list[Decimal]:
    """How far from the middle the last part of an order for `value` USDT would be bought, after each change."""
    asks: dict[Decimal, Decimal] = {}
    bids: dict[Decimal, Decimal] = {}
    found = []
    for event in events(mood, 30):
        if not isinstance(event, BookUpdate):
            continue
        for side, levels in ((asks, event.asks), (bids, event.bids)):
            for price, quantity in levels:
                side[to_decimal(price)] = to_decimal(quantity)
                if not quantity:
                    del side[to_decimal(price)]
        left, price = Decimal(value), min(asks)
        for price in sorted(asks):
            left -= price * asks[price]
            if left <= 0:
                break
        assert left <= 0
        middle = (min(asks) + max(bids)) / 2
        found.append(price / middle - 1)
    return sorted(found)


def test_a_thin_book_gives_way_to_a_small_order() -> None:
    thin, usual = slippage("thin", 3000), slippage("", 3000)
    assert thin[len(thin) // 2] > Decimal("0.001")
    assert usual[-1] < Decimal("0.0002")


def test_a_halted_market_has_neither_trades_nor_changes_of_the_book_for_a_minute() -> None:
    found = list(events("halted", 130))
    halted, resumed = (event for event in found if isinstance(event, TradingStatus))
    assert (halted.time_ms, halted.trading) == (START_MS + 60_000, False)
    assert (resumed.time_ms, resumed.trading) == (START_MS + 120_000, True)
    assert all(before.time_ms <= after.time_ms for before, after in pairwise(found))
    others = [event.time_ms for event in found if not isinstance(event, TradingStatus)]
    assert [ms for ms in others if halted.time_ms < ms < resumed.time_ms] == []
    assert max(others) > resumed.time_ms


def test_the_status_of_a_symbol_follows_the_market_unless_somebody_said_otherwise() -> None:
    now = [START_MS]
    market = open_market("synthetic:halted", (BTC,), 1, START_MS)
    venue = Venue((BTC,), market, Store(None), lambda: now[0], CollectorRegistry())
    seen = []
    for event in market.events():
        now[0] = event.time_ms
        venue.feed(event)
        status = venue.exchange.market(BTC).status
        if not seen or seen[-1] != status:
            seen.append(status)
        if event.time_ms > START_MS + 121_000:
            break
    assert seen == ["TRADING", "HALT", "TRADING"]
    venue.change_status(BTC, "BREAK")
    venue.feed(TradingStatus(BTC, now[0], trading=False))
    assert venue.exchange.market(BTC).status == "BREAK"
    venue.feed(TradingStatus(BTC, now[0], trading=True))
    assert venue.exchange.market(BTC).status == "BREAK"
