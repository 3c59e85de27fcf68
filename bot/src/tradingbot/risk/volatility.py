"""Volatility as the standard deviation of the last returns."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from tradingbot.recorded import Recorded, recorded


class VolatilityTracker(Recorded):
    """Keeps the last `window_size` returns of a price series; floats, since it is a statistic."""

    def __init__(self, window_size: int = 20) -> None:
        self._returns: deque[float] = deque(maxlen=_checked(window_size))
        self._last: float | None = None

    @recorded
    def resize(self, window_size: int) -> None:
        """Look at so many returns from now on; the newest stay."""
        if window_size != self._returns.maxlen:
            self._returns = deque(self._returns, maxlen=_checked(window_size))

    @recorded
    def restart(self, prices: Iterable[float]) -> None:
        """Begin anew with these prices: those before belong to another time or interval."""
        self._returns.clear()
        self._last = None
        self.update_prices(prices)

    @recorded
    def update_prices(self, prices: Iterable[float]) -> None:
        """Append prices in the order of time; prices that are not positive are refused."""
        for price in prices:
            if not price > 0:
                raise ValueError(f"a price must be greater than 0, got {price}")
            if self._last is not None:
                self._returns.append(price / self._last - 1.0)
            self._last = price

    def calculate_volatility(self) -> float | None:
        """Sample standard deviation of the returns, or None before two of them are known."""
        count = len(self._returns)
        if count < 2:
            return None
        mean = math.fsum(self._returns) / count
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self._returns) / (count - 1))

    def is_high_volatility(self, threshold: float = 0.05) -> bool:
        """Whether the volatility is above `threshold`; False while it is not known."""
        volatility = self.calculate_volatility()
        return volatility is not None and volatility > threshold


def _checked(window_size: int) -> int:
    if window_size < 2:
        raise ValueError(f"window_size must be at least 2, got {window_size}")
    return window_size
