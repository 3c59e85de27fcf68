"""Performance: what trades and equity come to. Each figure is defined, with its source, in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import Final, NamedTuple

from tradingbot.state.ledger import EXACT, BookedFill, CorrectionFill, LedgerState, RoundTrips, Trade, steps

DAY_MS: Final = 86_400_000
DAYS_A_YEAR: Final = 365
"""Crypto is traded on each day."""
_NO_VARIANCE: Final = Decimal("1e-30")
_STEP: Final = Decimal("0.000001")
_RATIOS: Final = Context(prec=100)
"""Variances are differences of sums that are nearly equal."""


class EquityPoint(NamedTuple):
    """The equity (quote asset) at a time."""

    time_ms: int
    equity: Decimal


@dataclass(frozen=True, slots=True)
class Performance:
    """Figures of closed trades; a ratio is None where it is not defined."""

    total: int
    successful: int
    failed: int
    win_rate: Decimal | None
    """Of all trades, those with a profit after fees."""
    profit_factor: Decimal | None
    """Sum of the profits over sum of the losses; None without a loss."""
    sharpe: Decimal | None
    """Mean over sample standard deviation of the trades' returns; None before two and where all are equal."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of trades and the equity that they were part of; money in quote, a ratio None where it is not defined."""

    start_ms: int
    end_ms: int
    start_equity: Decimal
    end_equity: Decimal
    realized: Decimal
    """After fees, also of what was sold of a position that is still open."""
    unrealized: Decimal
    """Of what is held, before the fee of selling it."""
    pnl: Decimal
    fees: Decimal
    trades: Performance
    total_return: Decimal | None
    """End over start equity, less 1."""
    max_drawdown: Decimal
    """Largest fall from the highest equity until then, as a share of it."""
    daily_sharpe: Decimal | None
    """Sharpe ratio of the returns of UTC days, annualised with 365 days, risk-free rate 0."""
    exposure: Decimal | None
    """Share of the time with a position."""


def measure(trips: RoundTrips) -> Performance:
    """Figures of closed trades, of their sums."""
    total, successful = trips.total, trips.successful
    return Performance(
        total,
        successful,
        total - successful,
        win_rate=_ratio(Decimal(successful), Decimal(total)),
        profit_factor=_ratio(trips.profits, trips.losses),
        sharpe=_sharpe(total, trips.returns, trips.squares, per_year=1),
    )


def time_held(trips: RoundTrips, present: Trade, now_ms: int) -> int:
    """Milliseconds with a position: of closed trades and of the present one, which may be open."""
    return trips.held_ms + (max(0, now_ms - present.opened_ms) if present.opened_ms else 0)


def exposure(held_ms: int, span_ms: int) -> Decimal | None:
    """Share of a span of time with a position, at most 1; None before there is a span."""
    return _ratio(Decimal(min(held_ms, span_ms)), Decimal(span_ms))


def split(empty: LedgerState, fills: Iterable[BookedFill], corrections: Sequence[CorrectionFill] = ()) -> list[Trade]:
    """The trades of the fills of one bot, by time; the last may be open, or dust that is on its way to one.

    Their `realized` and `fees` sum to those of the books to the last decimal. `empty` are books without a fill.
    """
    trades: list[Trade] = []
    before = empty
    for books in steps(empty, fills, corrections):
        if books.last_trade is not None and books.last_trade != before.last_trade:
            if books.round_trips.total == before.round_trips.total:
                trades.pop()  # the order that closed it sold more
            trades.append(books.last_trade)
        before = books
    return trades if before.trade == Trade() else [*trades, before.trade]


def figures(trades: Sequence[Trade], equity: Sequence[EquityPoint], unrealized: Decimal = Decimal(0)) -> Figures:
    """Figures of trades (see `split`) and of the equity before, between and after them, by time.

    `unrealized` is the profit of what is held at the end (LedgerState.unrealized). ValueError without a point of
    equity: the span of time is that of its first to its last.
    """
    if not equity:
        raise ValueError("expected at least one point of equity, got none")
    first, last = equity[0], equity[-1]
    trips, present = RoundTrips(), Trade()
    realized = fees = Decimal(0)
    for trade in trades:
        with localcontext(EXACT):
            realized, fees = realized + trade.realized, fees + trade.fees
        if trade.closed_ms is None:
            present = trade
        else:
            trips = trips.add(trade)
    with localcontext(EXACT):
        pnl = realized + unrealized
    return Figures(
        start_ms=first.time_ms,
        end_ms=last.time_ms,
        start_equity=first.equity,
        end_equity=last.equity,
        realized=realized,
        unrealized=unrealized,
        pnl=pnl,
        fees=fees,
        trades=measure(trips),
        total_return=_ratio(last.equity - first.equity, first.equity),
        max_drawdown=max_drawdown(point.equity for point in equity),
        daily_sharpe=_daily_sharpe(equity),
        exposure=exposure(time_held(trips, present, last.time_ms), last.time_ms - first.time_ms),
    )


def max_drawdown(equity: Iterable[Decimal]) -> Decimal:
    """The largest fall from the highest value until then, as a share of it (six decimals); 0 while none is above 0."""
    peak = trough = Decimal(0)
    worst = Decimal(0)
    for value in equity:
        if value > peak:
            peak = trough = value
        elif value < trough:
            trough = value
            worst = max(worst, (peak - trough) / peak)
    return worst.quantize(_STEP)


def _daily_sharpe(equity: Sequence[EquityPoint]) -> Decimal | None:
    ends = [equity[0].equity]
    ends += [point.equity for point, after in pairwise(equity) if point.time_ms // DAY_MS != after.time_ms // DAY_MS]
    ends.append(equity[-1].equity)
    if min(ends[:-1]) <= 0:
        return None  # with nothing left there is no return
    returns = [(after - before) / before for before, after in pairwise(ends)]
    squares = sum((rate * rate for rate in returns), Decimal(0))
    return _sharpe(len(returns), sum(returns, Decimal(0)), squares, per_year=DAYS_A_YEAR)


def _sharpe(count: int, returns: Decimal, squares: Decimal, *, per_year: int) -> Decimal | None:
    """Mean over sample standard deviation of `count` returns, annualised by how many of them are in a year."""
    if count < 2:
        return None
    with localcontext(_RATIOS):
        variance = (squares - returns * returns / count) / (count - 1)
        if variance < _NO_VARIANCE:
            return None
        return (returns / count * (per_year / variance).sqrt()).quantize(_STEP)


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    with localcontext(_RATIOS):
        return (part / whole).quantize(_STEP) if whole > 0 else None
