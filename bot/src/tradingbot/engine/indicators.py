"""Incremental indicators over closed candles, O(1) a value; floats, because nothing here is money.

Definitions are TA-Lib's, with which they agree on recorded candles; each is None until it has seen enough values.
"""

from __future__ import annotations

from collections import deque
from math import sqrt


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


class Ema:
    """Exponential moving average over `period` values, seeded with the mean of the first `period`."""

    def __init__(self, period: int, weight: float | None = None) -> None:
        self.period = _at_least("period", period, 1)
        self._weight = 2.0 / (period + 1) if weight is None else weight
        self._seed_sum = 0.0
        self._seen = 0
        self.value: float | None = None

    @property
    def settled(self) -> int:
        """Values after which the seed of an average of the usual weight counts for less than 5 %."""
        return 3 * self.period

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


def wilder(period: int) -> Ema:
    """Wilder's smoothing: an average that gives the new value the weight 1 / period."""
    return Ema(period, 1.0 / _at_least("period", period, 1))


class Rsi:
    """Wilder's relative strength index over `period` changes, 0 to 100; 50 where the price did not move."""

    def __init__(self, period: int) -> None:
        self.period = period
        self._gain, self._loss = wilder(period), wilder(period)
        self._last: float | None = None
        self.value: float | None = None

    @property
    def settled(self) -> int:
        """Values after which the seed counts for less than 1 %."""
        return 5 * self.period

    def update(self, value: float) -> float | None:
        """The index after `value`."""
        if self._last is not None:
            change = value - self._last
            gain, loss = self._gain.update(max(change, 0.0)), self._loss.update(max(-change, 0.0))
            if gain is not None and loss is not None:
                self.value = 100.0 * (gain / (gain + loss)) if gain + loss > 0 else 50.0
        self._last = value
        return self.value


class Atr:
    """Wilder's average true range over `period` candles."""

    def __init__(self, period: int) -> None:
        self.period = period
        self._average = wilder(period)
        self._close: float | None = None
        self.value: float | None = None

    def update(self, high: float, low: float, close: float) -> float | None:
        """The range after a candle; the first one only gives the close that the second is measured from."""
        if self._close is not None:
            self.value = self._average.update(max(high, self._close) - min(low, self._close))
        self._close = close
        return self.value


class Macd:
    """Moving average convergence divergence: `line` is fast less slow, `signal` its average, `histogram` the rest."""

    def __init__(self, fast: int, slow: int, signal: int) -> None:
        self._fast, self._slow, self._signal = Ema(fast), Ema(slow), Ema(signal)
        self.line: float | None = None

    @property
    def settled(self) -> int:
        """Values after which both averages and the signal have settled."""
        return self._slow.settled + self._signal.settled

    @property
    def signal(self) -> float | None:
        """The average of the line."""
        return self._signal.value

    @property
    def histogram(self) -> float | None:
        """Line less signal."""
        return None if self.line is None or self.signal is None else self.line - self.signal

    def update(self, value: float) -> float | None:
        """The histogram after `value`."""
        fast, slow = self._fast.update(value), self._slow.update(value)
        if fast is not None and slow is not None:
            self.line = fast - slow
            self._signal.update(self.line)
        return self.histogram


class Bands:
    """Bollinger's bands: `middle` is the mean of the last `period` values, the others lie `width` deviations off.

    The deviation is that of a whole population. Sums are made anew once per period, so rounding cannot build up.
    """

    def __init__(self, period: int, width: float) -> None:
        self.period, self.width = _at_least("period", period, 1), width
        self._values: deque[float] = deque(maxlen=period)
        self._shift = self._sum = self._squares = 0.0
        self._age = 0
        self.middle: float | None = None
        self.deviation: float | None = None

    @property
    def upper(self) -> float | None:
        """Middle and `width` deviations."""
        return self._at(self.width)

    @property
    def lower(self) -> float | None:
        """Middle less `width` deviations."""
        return self._at(-self.width)

    def _at(self, width: float) -> float | None:
        if self.middle is None or self.deviation is None:
            return None
        return self.middle + width * self.deviation

    def update(self, value: float) -> float | None:
        """The middle after `value`."""
        self._age += 1
        if len(self._values) == self.period and self._age % self.period:
            self._add(self._values[0], -1.0)
            self._values.append(value)
            self._add(value, 1.0)
        else:
            self._values.append(value)
            self._begin()
        if len(self._values) == self.period:
            mean = self._sum / self.period
            self.middle = self._shift + mean
            self.deviation = sqrt(max(0.0, self._squares / self.period - mean * mean))
        return self.middle

    def _begin(self) -> None:
        # Around the newest value: squares of prices themselves would swallow the digits that the deviation has.
        self._shift, self._sum, self._squares = self._values[-1], 0.0, 0.0
        for value in self._values:
            self._add(value, 1.0)

    def _add(self, value: float, sign: float) -> None:
        distance = value - self._shift
        self._sum += sign * distance
        self._squares += sign * distance * distance


class Highest:
    """The highest of the last `period` values."""

    def __init__(self, period: int) -> None:
        self.period = _at_least("period", period, 1)
        self._seen = 0
        self._falling: deque[tuple[int, float]] = deque()
        """Values that may still become the highest, with their numbers: each is higher than those after it."""
        self.value: float | None = None

    def update(self, value: float) -> float | None:
        """The highest after `value`."""
        self._seen += 1
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((self._seen, value))
        if self._falling[0][0] <= self._seen - self.period:
            self._falling.popleft()
        if self._seen >= self.period:
            self.value = self._falling[0][1]
        return self.value


class Lowest:
    """The lowest of the last `period` values."""

    def __init__(self, period: int) -> None:
        self._highest = Highest(period)
        self.period = period

    @property
    def value(self) -> float | None:
        """The lowest now."""
        highest = self._highest.value
        return None if highest is None else -highest

    def update(self, value: float) -> float | None:
        """The lowest after `value`."""
        self._highest.update(-value)
        return self.value
