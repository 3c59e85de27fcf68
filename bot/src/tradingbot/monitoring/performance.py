"""Performance of closed round trips: counts and the Sharpe ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Performance:
    """Counts and the Sharpe ratio of closed round trips."""

    total: int
    successful: int
    failed: int
    sharpe: Decimal | None


def measure(returns: Sequence[Decimal]) -> Performance:
    """Performance of round trips with these returns (profit after fees over cost).

    The Sharpe ratio is mean over sample standard deviation, not annualised; None before two trades
    and where all returns are equal.
    """
    successful = sum(1 for value in returns if value > 0)
    return Performance(len(returns), successful, len(returns) - successful, _sharpe(returns))


def _sharpe(returns: Sequence[Decimal]) -> Decimal | None:
    if len(returns) < 2:
        return None
    values = [float(value) for value in returns]
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if deviation < 1e-15:
        return None
    return Decimal(f"{mean / deviation:.6f}")
