"""Equity marks: the peak, the start of the UTC day, and the falls measured from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Self

from tradingbot.recorded import Recorded, recorded

BREACH_HOLD_SECONDS = 3.0
"""A limit counts as reached only when it was for this long, so that one bad quote does not stop a bot."""


WATCHED: Final = timedelta(minutes=1)
"""Equity that was last seen no longer ago than this is that of now."""


@dataclass(frozen=True, slots=True)
class EquityMarks:
    """What must survive a restart; all amounts in the quote asset."""

    capital: Decimal
    peak: Decimal
    day: str
    day_start: Decimal
    max_drawdown: Decimal = Decimal(0)
    day_seen: bool = True
    """The equity was seen when the day began, or is known since by fills and prices; else `day_start` came later."""
    begun: datetime | None = None
    """Since when the equity is followed; None in books of a former version."""

    def to_json(self) -> dict[str, str]:
        """As strings, for the store."""
        return {
            "daySeen": str(self.day_seen),
            "begun": self.begun.isoformat() if self.begun else "",
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
            day_seen=data.get("daySeen") != "False",
            begun=datetime.fromisoformat(begun) if (begun := data.get("begun")) else None,
        )


def _day(now: datetime) -> str:
    return now.astimezone(UTC).date().isoformat()


class DrawdownTracker(Recorded):
    """Follows equity; `equity` is the last value, `marks` what to persist."""

    def __init__(self, marks: EquityMarks | None = None) -> None:
        self.marks = marks
        self.equity: Decimal | None = None
        self._updated: datetime | None = None

    @recorded
    def restore(self, data: dict[str, str] | None) -> None:
        """Continue from marks of EquityMarks.to_json, or from none."""
        self.marks = EquityMarks.from_json(data) if data else None
        self._updated = None  # what was seen until now was not measured by these marks

    @recorded
    def update(self, equity: Decimal, capital: Decimal, now: datetime) -> bool:
        """Take the present equity; True when the marks changed and must be persisted.

        A change of `capital` is a deposit or a withdrawal, not a profit: all marks move with it.
        """
        watched = self._updated is not None and now - self._updated <= WATCHED
        self.equity, self._updated = equity, now
        marks = self.marks
        if marks is None:
            self.marks = EquityMarks(capital, equity, _day(now), equity, day_seen=False, begun=now)
            return True
        flow = capital - marks.capital
        if flow:
            marks = replace(marks, capital=capital, peak=marks.peak + flow, day_start=marks.day_start + flow)
        if _day(now) != marks.day:
            marks = replace(marks, day=_day(now), day_start=equity, day_seen=watched)
        if equity > marks.peak:
            marks = replace(marks, peak=equity)
        if (drawdown := _fall(marks.peak, equity)) > marks.max_drawdown:
            marks = replace(marks, max_drawdown=drawdown)
        changed = marks != self.marks
        self.marks = marks
        return changed

    @recorded
    def open_day(self, now: datetime, equity: Decimal, peak: Decimal, capital: Decimal) -> None:
        """The UTC day of `now` began with this equity, which nobody saw then; the peak was at least `peak`.

        All are of the same `capital`. What was lost since is counted by the next `update`.
        """
        marks = self.marks or EquityMarks(capital, equity, _day(now), equity, begun=now)
        self.marks = replace(marks, peak=max(marks.peak, peak, equity), day=_day(now), day_start=equity, day_seen=True)

    @recorded
    def reset_peak(self) -> None:
        """Start measuring the drawdown anew from the present equity, after a human cleared it."""
        if self.marks is not None:
            # Before the first equity of a process the peak is nothing: the first one becomes it.
            self.marks = replace(self.marks, peak=Decimal(0) if self.equity is None else self.equity)

    @property
    def day_known(self) -> bool:
        """Whether the equity at 00:00 UTC is known, without which today's loss is not."""
        return self.marks is not None and self.marks.day_seen

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
