"""Incremental indicators over closed candles; floats, because nothing here is money."""

from __future__ import annotations


class Ema:
    """Exponential moving average over `period` values, seeded with the mean of the first `period`."""

    def __init__(self, period: int) -> None:
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}")
        self.period = period
        self._weight = 2.0 / (period + 1)
        self._seed_sum = 0.0
        self._seen = 0
        self.value: float | None = None

    def update(self, value: float) -> float | None:
        """The average after `value`, or None while fewer than `period` values were seen."""
        self._seen += 1
        if self.value is not None:
            self.value += self._weight * (value - self.value)
        else:
            self._seed_sum += value
            if self._seen == self.period:
                self.value = self._seed_sum / self.period
        return self.value
