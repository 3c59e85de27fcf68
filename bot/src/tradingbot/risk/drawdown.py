"""Equity marks: the peak, the start of the UTC day, and the falls measured from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

from tradingbot.recorded import Recorded, recorded

BREACH_HOLD_SECONDS = 3.0
"""A limit counts as reached only when it was for this long, so that one bad quote does not stop a bot."""


@dataclass(frozen=True, slots=True)
class EquityMarks:
    """What must survive a restart; all amounts in the quote asset."""

    capital: Decimal
    peak: Decimal
    day: str
    day_start: Decimal
    max_drawdown: Decimal = Decimal(0)

    def to_json(self) -> dict[str, str]:
        """As strings, for the store."""
        return {
            "capital": str(self.capital),
            "peak": str(self.peak),
            "day": self.day,
            "dayStart": str(self.day_start),
            "maxDrawdown": str(self.max_drawdown),
        }

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Self:
        """The inverse of to_json; KeyError or decimal.InvalidOperation on what it never wrote."""
        return cls(
            capital=Decimal(data["capital"]),
            peak=Decimal(data["peak"]),
            day=data["day"],
            day_start=Decimal(data["dayStart"]),
            max_drawdown=Decimal(data["maxDrawdown"]),
        )


def _day(now: datetime) -> str:
    return now.astimezone(UTC).date().isoformat()


class DrawdownTracker(Recorded):
    """Follows equity; `equity` is the last value, `marks` what to persist."""

    def __init__(self, marks: EquityMarks | None = None) -> None:
        self.marks = marks
        self.equity: Decimal | None = None

    @recorded
    def restore(self, data: dict[str, str] | None) -> None:
        """Continue from marks of EquityMarks.to_json, or from none."""
        self.marks = EquityMarks.from_json(data) if data else None

    @recorded
    def update(self, equity: Decimal, capital: Decimal, now: datetime) -> bool:
        """Take the present equity; True when the marks changed and must be persisted.

        A change of `capital` is a deposit or a withdrawal, not a profit: all marks move with it.
        """
        self.equity = equity
        marks = self.marks
        if marks is None:
            self.marks = EquityMarks(capital=capital, peak=equity, day=_day(now), day_start=equity)
            return True
        flow = capital - marks.capital
        if flow:
            marks = replace(marks, capital=capital, peak=marks.peak + flow, day_start=marks.day_start + flow)
        if _day(now) != marks.day:
            marks = replace(marks, day=_day(now), day_start=equity)
        if equity > marks.peak:
            marks = replace(marks, peak=equity)
        if (drawdown := _fall(marks.peak, equity)) > marks.max_drawdown:
            marks = replace(marks, max_drawdown=drawdown)
        changed = marks != self.marks
        self.marks = marks
        return changed

    @recorded
    def reset_peak(self) -> None:
        """Start measuring the drawdown anew from the present equity, after a human cleared it."""
        if self.marks is not None:
            # Before the first equity of a process the peak is nothing: the first one becomes it.
            self.marks = replace(self.marks, peak=Decimal(0) if self.equity is None else self.equity)

    @property
    def drawdown(self) -> Decimal:
        """Present fall from the peak as a ratio; 0 while nothing is known."""
        if self.marks is None or self.equity is None:
            return Decimal(0)
        return _fall(self.marks.peak, self.equity)

    @property
    def daily_loss(self) -> Decimal:
        """Loss since 00:00 UTC in quote; 0 where there is a profit."""
        if self.marks is None or self.equity is None:
            return Decimal(0)
        return max(Decimal(0), self.marks.day_start - self.equity)


def _fall(peak: Decimal, equity: Decimal) -> Decimal:
    if peak <= 0:
        return Decimal(0)
    # Eight places are what the status shows; the quotient itself may have no end.
    return max(Decimal(0), (peak - equity) / peak).quantize(Decimal("0.00000001"))


class HeldBreach:
    """Tells when a condition has held for BREACH_HOLD_SECONDS of a monotonic clock."""

    def __init__(self, hold_seconds: float = BREACH_HOLD_SECONDS) -> None:
        self._hold = hold_seconds
        self._since: float | None = None

    def update(self, breached: bool, monotonic: float) -> bool:
        """Whether the breach is old enough to count."""
        if not breached:
            self._since = None
            return False
        if self._since is None:
            self._since = monotonic
        return monotonic - self._since >= self._hold
