"""Performance figures: exact over the fills, and those of an independent library on the same trades."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from random import Random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.model import Side, TradeFill
from tradingbot.monitoring.performance import (
    DAY_MS,
    EquityPoint,
    Figures,
    Performance,
    exposure,
    figures,
    max_drawdown,
    measure,
    split,
    time_held,
)
from tradingbot.state.ledger import BookedFill, CorrectionFill, LedgerState, RoundTrips, Trade, book, extend

DUST = Decimal("0.00001")
EMPTY = LedgerState("BTC", "USDT", DUST)
HOUR_MS = 3_600_000
CAPITAL = Decimal(1000)
CLOSE = 1e-6
"""What a figure is rounded to."""


def fill(trade_id: int, side: Side, quantity: Decimal, price: Decimal, *, time_ms: int) -> BookedFill:
    """A fill with 0.1 % fee in quote."""
    fee = (quantity * price / 1000).quantize(Decimal("1e-8"))
    done = TradeFill("BTCUSDT", trade_id, trade_id, side, price, quantity, fee, "USDT", False, time_ms)
    return book(done, "BTC", "USDT")


@dataclass(frozen=True)
class Life:
    """A made-up life: its fills, its equity each hour, and what a cash box beside it says."""

    fills: list[BookedFill]
    equity: list[EquityPoint]
    price: Decimal
    cash: Decimal
    held: Decimal
    fees: Decimal
    hours_held: int


def life(seed: int, days: int = 30) -> Life:
    """A bot that buys and sells at random each hour, in parts, on a random walk; the equity by its cash alone."""
    random = Random(seed)
    price, cash, held, fees = Decimal(50_000), CAPITAL, Decimal(0), Decimal(0)
    fills: list[BookedFill] = []
    points = [EquityPoint(0, CAPITAL)]
    hours_held = 0
    for hour in range(1, days * 24):
        now = hour * HOUR_MS
        hours_held += held > 0
        price = (price * Decimal(f"{math.exp(random.gauss(0, 0.01)):.8f}")).quantize(Decimal("0.01"))
        side, quantity = None, Decimal(0)
        if held == 0 and random.random() < 0.3:
            side, quantity = Side.BUY, Decimal(random.randrange(100, 1500)).scaleb(-5)
        elif held > 0 and random.random() < 0.4:
            side, quantity = Side.SELL, held if random.random() < 0.6 else (held / 2).quantize(DUST)
        if side is not None:
            fills.append(fill(len(fills) + 1, side, quantity, price, time_ms=now))
            sign = 1 if side is Side.BUY else -1
            held += sign * quantity
            cash -= sign * quantity * price + fills[-1].fill.commission
            fees += fills[-1].fill.commission
        points.append(EquityPoint(now, cash + held * price))
    return Life(fills, points, price, cash, held, fees, hours_held)


def figures_of(one: Life) -> Figures:
    books = extend(EMPTY, one.fills)
    return figures(split(EMPTY, one.fills), one.equity, books.unrealized(one.price))


@pytest.mark.parametrize("seed", range(5))
def test_money_of_the_figures_is_what_a_cash_box_beside_them_has(seed: int) -> None:
    one = life(seed)
    result = figures_of(one)
    assert CAPITAL + result.pnl == one.cash + one.held * one.price == result.end_equity
    assert result.fees == one.fees
    assert result.realized + result.unrealized == result.pnl
    assert float(result.exposure or 0) == pytest.approx(one.hours_held / (len(one.equity) - 1), abs=CLOSE)


@pytest.fixture(scope="module")
def empyrical() -> ModuleType:
    """The reference; it brings pandas and scipy, which take a second to import."""
    return pytest.importorskip("empyrical")


def by_days(equity: Sequence[EquityPoint]) -> list[float]:
    """Returns of UTC days, of the equity at their ends."""
    ends = {point.time_ms // DAY_MS: float(point.equity) for point in equity}
    values = [float(equity[0].equity), *ends.values()]
    return [after / before - 1 for before, after in pairwise(values)]


def round_trips(one: Life) -> list[tuple[Decimal, Decimal]]:
    """What each closed trade brought in cash, and what was paid for it, by its fills alone."""
    trades = []
    held = cash = paid = Decimal(0)
    for booked in one.fills:
        done = booked.fill
        value = done.price * done.quantity
        buying = done.side is Side.BUY
        held += done.quantity if buying else -done.quantity
        cash -= done.commission + (value if buying else -value)
        paid += value if buying else 0
        if held == 0:
            trades.append((cash, paid))
            cash = paid = Decimal(0)
    return trades


@pytest.mark.parametrize("seed", range(10))
def test_ratios_are_those_of_an_independent_library(seed: int, empyrical: ModuleType) -> None:
    import numpy

    one = life(seed, days=90)
    result, trades = figures_of(one), round_trips(one)
    assert len(trades) == result.trades.total > 50
    gains = numpy.array([float(gain) for gain, _ in trades])
    rates = numpy.array([float(gain / paid) for gain, paid in trades])
    curve = numpy.array([float(point.equity) for point in one.equity])
    days = numpy.array(by_days(one.equity))

    def close(expected: float) -> object:
        return pytest.approx(float(expected), abs=CLOSE)

    assert float(result.max_drawdown) == close(-empyrical.max_drawdown(numpy.diff(curve) / curve[:-1]))
    assert float(result.daily_sharpe or 0) == close(empyrical.sharpe_ratio(days, annualization=365))
    assert float(result.total_return or 0) == close(empyrical.cum_returns_final(days))
    assert float(result.trades.sharpe or 0) == close(empyrical.sharpe_ratio(rates, annualization=1))
    assert float(result.trades.win_rate or 0) == close(
        empyrical.batting_average(gains, numpy.zeros(len(gains))).iloc[0]
    )
    assert float(result.trades.profit_factor or 0) == close(empyrical.omega_ratio(gains, annualization=1))


def test_an_order_that_sells_on_after_it_ended_a_trade_makes_no_second_trade() -> None:
    bought, sold, more = (
        fill(number, side, Decimal(quantity), Decimal(100), time_ms=number)
        for number, side, quantity in ((1, Side.BUY, "1"), (2, Side.SELL, "0.96"), (3, Side.SELL, "0.04"))
    )
    more = replace(more, fill=replace(more.fill, order_id=2))
    (trade,) = split(replace(EMPTY, dust_value=Decimal(5)), [bought, sold, more])
    assert (trade.sold, trade.closed_ms) == (1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_trades_sum_to_the_books_to_the_last_decimal(seed: int) -> None:
    one = life(seed)
    books, trades = extend(EMPTY, one.fills), split(EMPTY, one.fills)
    assert sum(trade.realized for trade in trades) == books.realized
    assert sum(trade.fees for trade in trades) == books.fees_value
    assert sum(trade.bought - trade.sold for trade in trades) == books.quantity
    assert sum(trade.closed_ms is not None for trade in trades) == books.round_trips.total
    assert measure(books.round_trips) == figures_of(one).trades
    assert time_held(books.round_trips, books.trade, one.equity[-1].time_ms) == one.hours_held * HOUR_MS


def test_a_trade_tells_when_it_was_made_what_it_cost_and_what_it_brought() -> None:
    fills = [
        fill(1, Side.BUY, Decimal(2), Decimal(100), time_ms=1_000),
        fill(2, Side.SELL, Decimal(1), Decimal(110), time_ms=2_000),
        fill(3, Side.SELL, Decimal(1), Decimal(120), time_ms=5_000),
        fill(4, Side.BUY, Decimal(1), Decimal(120), time_ms=9_000),
    ]
    fees = Decimal("0.43")
    closed, present = split(EMPTY, fills)
    assert closed == Trade(1_000, 5_000, Decimal(2), Decimal(200), Decimal(2), Decimal(230), fees, 30 - fees)
    assert closed.rate == (30 - fees) / 200
    assert (present.opened_ms, present.closed_ms, present.realized) == (9_000, None, Decimal("-0.12"))


def test_a_position_that_a_human_took_out_of_the_books_is_a_closed_trade() -> None:
    correction = CorrectionFill(1, 3_000, Decimal(1), Decimal(90))
    fills = [fill(1, Side.BUY, Decimal(1), Decimal(100), time_ms=1_000)]
    (trade,) = split(EMPTY, fills, [correction])
    assert (trade.closed_ms, trade.realized) == (3_000, Decimal("-10.1"))


def test_a_ratio_that_is_not_defined_is_none() -> None:
    assert measure(RoundTrips()) == Performance(0, 0, 0, None, None, None)
    only_wins = measure(closed(["0.02", "0.01"]))
    assert (only_wins.win_rate, only_wins.profit_factor) == (1, None)
    nothing = figures([], [EquityPoint(5, CAPITAL)])
    assert (nothing.daily_sharpe, nothing.exposure, nothing.max_drawdown, nothing.pnl) == (None, None, 0, 0)
    assert exposure(5, 0) is None
    with pytest.raises(ValueError, match="at least one point of equity"):
        figures([], [])


def test_the_sharpe_ratio_is_mean_over_deviation_of_the_returns() -> None:
    assert measure(closed([])).sharpe is None
    assert measure(closed(["0.01", "0.01"])).sharpe is None
    performance = measure(closed(["0.02", "-0.01", "0.02"]))
    assert (performance.total, performance.successful, performance.failed) == (3, 2, 1)
    assert (performance.win_rate, performance.profit_factor) == (Decimal("0.666667"), 4)
    assert performance.sharpe == Decimal("0.577350")


def test_the_figures_of_ten_thousand_trades_are_those_of_each_of_them() -> None:
    random = Random(3)
    returns = [Decimal(random.randrange(-300_000, 310_000)).scaleb(-7) for _ in range(10_000)]
    values = [float(value) for value in returns]
    performance = measure(closed(returns))
    assert (performance.total, performance.successful) == (10_000, sum(value > 0 for value in returns))
    assert performance.sharpe == Decimal(f"{statistics.fmean(values) / statistics.stdev(values):.6f}")


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_the_largest_drawdown_is_the_worst_of_all_pairs(values: list[int]) -> None:
    worst = max(1 - after / before for i, before in enumerate(values) for after in values[i:])
    assert float(max_drawdown(Decimal(value) for value in values)) == pytest.approx(worst, abs=CLOSE)


def closed(returns: Sequence[Decimal | str]) -> RoundTrips:
    """Closed trades with these returns."""
    trips = RoundTrips()
    for value in returns:
        trips = trips.add(Trade(paid=Decimal(7), realized=Decimal(value) * 7))
    return trips
