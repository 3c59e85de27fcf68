"""Performance of closed round trips: counts and the Sharpe ratio."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Final

from tradingbot.state.ledger import RoundTrips

_NO_VARIANCE: Final = Decimal("1e-30")
_STEP: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Performance:
    """Counts and the Sharpe ratio of closed round trips."""

    total: int
    successful: int
    failed: int
    sharpe: Decimal | None


def measure(trips: RoundTrips) -> Performance:
    """Performance of closed round trips.

    The Sharpe ratio is mean over sample standard deviation of their returns, not annualised; None before two trades
    and where all returns are equal.
    """
    return Performance(trips.total, trips.successful, trips.total - trips.successful, _sharpe(trips))


def _sharpe(trips: RoundTrips) -> Decimal | None:
    count = trips.total
    if count < 2:
        return None
    with localcontext(Context(prec=100)):  # the difference of two sums that are nearly equal
        variance = (trips.squares - trips.returns * trips.returns / count) / (count - 1)
        if variance < _NO_VARIANCE:
            return None
        return (trips.returns / count / variance.sqrt()).quantize(_STEP)
