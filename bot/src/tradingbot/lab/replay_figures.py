"""What a replay came to: figures, trades and the equity over time; small enough to come from another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tradingbot.lab.recording import Recording
from tradingbot.lab.replay import DAY_MS, Outcome, ReplayFill, Why
from tradingbot.monitoring.performance import EquityPoint, Figures, figures, split
from tradingbot.state.ledger import Trade
from tradingbot_api.v1alpha1 import BotSettings

CURVE_POINTS: Final = 600
_STEP: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class ClosedBy:
    """A trade with what opened and ended it; `entry` and `exit` are mean prices, `exit` None while it is open."""

    trade: Trade
    entry: Decimal
    exit: Decimal | None
    why: Why


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A stretch of time: its last close, lowest and highest price, and the equity at the last close and at the low."""

    time_ms: int
    close: float
    low: float
    high: float
    equity: float
    worst: float


@dataclass(frozen=True, slots=True)
class Detail:
    """What a report of one replay shows."""

    trades: list[ClosedBy]
    fills: list[tuple[int, str, float, str]]
    """Time, side, price and reason of each fill."""
    curve: list[CurvePoint]


@dataclass(frozen=True, slots=True)
class Run:
    """What one replay came to."""

    symbol: str
    settings: BotSettings
    changed: Mapping[str, str]
    candles: int
    gaps: int
    figures: Figures
    market_return: Decimal
    """Of having bought at the first open and held."""
    refusals: Mapping[str, int]
    stopped: str
    stopped_ms: int
    held: Decimal
    """Base asset at the end."""
    detail: Detail | None


def summarise(outcome: Outcome, recording: Recording, changed: Mapping[str, str], *, detailed: bool) -> Run:
    """The figures of a replay; with trades and equity over time where `detailed`."""
    books, last = outcome.books, outcome.end - 1
    trades = split(outcome.no_books, [one.booked for one in outcome.fills])
    first_price, last_price = recording.open[outcome.first], recording.close[last]
    found = figures(trades, list(_day_ends(outcome, recording)), books.unrealized(Decimal(last_price).scaleb(-8)))
    return Run(
        symbol=outcome.symbol,
        settings=outcome.settings,
        changed=changed,
        candles=outcome.end - outcome.first,
        gaps=outcome.gaps,
        figures=replace(found, max_drawdown=outcome.max_drawdown),
        market_return=(Decimal(last_price) / first_price - 1).quantize(_STEP),
        refusals=dict(outcome.refusals.most_common()),
        stopped=outcome.stopped,
        stopped_ms=outcome.stopped_ms,
        held=books.quantity,
        detail=_detail(outcome, recording, trades) if detailed else None,
    )


def _day_ends(outcome: Outcome, recording: Recording) -> Iterator[EquityPoint]:
    """The equity at the start, at the end of each UTC day and at the end."""
    capital, fee = outcome.settings.capital, outcome.model.fee
    yield EquityPoint(recording.open_ms[outcome.first], capital)
    fills, books, at = iter(outcome.fills), outcome.no_books, outcome.first
    ahead = next(fills, None)
    while at < outcome.end:
        day_end = recording.open_ms[at] // DAY_MS * DAY_MS + DAY_MS
        at = min(recording.index_at(day_end), outcome.end)
        end_ms = recording.open_ms[at - 1] + recording.width
        while ahead is not None and ahead.fill.time_ms < end_ms:
            books, ahead = ahead.books, next(fills, None)
        price = Decimal(recording.close[at - 1]).scaleb(-8)
        # A day's last moment, not the next day's first.
        yield EquityPoint(end_ms - 1, books.equity(capital, price, fee))


def _detail(outcome: Outcome, recording: Recording, trades: list[Trade]) -> Detail:
    fills = [(one.fill.time_ms, one.fill.side.value, float(one.fill.price), one.why.value) for one in outcome.fills]
    return Detail(list(_closed_by(trades, outcome.fills)), fills, list(_curve(outcome, recording)))


def _closed_by(trades: list[Trade], fills: list[ReplayFill]) -> Iterator[ClosedBy]:
    """Each trade with the reason of its last fill."""
    reasons = {one.fill.time_ms: one.why for one in fills}
    for trade in trades:
        if trade.bought == 0:
            continue  # dust
        yield ClosedBy(
            trade,
            (trade.paid / trade.bought).quantize(Decimal("1e-8")),
            (trade.received / trade.sold).quantize(Decimal("1e-8")) if trade.sold else None,
            reasons[trade.closed_ms] if trade.closed_ms is not None else Why.ENTRY,
        )


def _curve(outcome: Outcome, recording: Recording) -> Iterator[CurvePoint]:
    """At most CURVE_POINTS stretches; floats, as they are drawn."""
    capital, fee = float(outcome.settings.capital), float(outcome.model.fee)
    fills, ahead = iter(outcome.fills), None
    ahead = next(fills, None)
    realized = quantity = cost = 0.0
    stretch = max(1, -(-(outcome.end - outcome.first) // CURVE_POINTS))

    def equity(price: float) -> float:
        return capital + realized + quantity * price * (1 - fee) - cost

    for begin in range(outcome.first, outcome.end, stretch):
        end = min(begin + stretch, outcome.end)
        end_ms = recording.open_ms[end - 1] + recording.width
        low, high = min(recording.low[begin:end]) / 1e8, max(recording.high[begin:end]) / 1e8
        worst = equity(low) if quantity else equity(0)
        while ahead is not None and ahead.fill.time_ms < end_ms:
            realized, quantity = float(ahead.books.realized), float(ahead.books.quantity)
            cost, ahead = float(ahead.books.cost), next(fills, None)
            worst = min(worst, equity(low))
        close = recording.close[end - 1] / 1e8
        yield CurvePoint(end_ms, close, low, high, equity(close), min(worst, equity(close)))
