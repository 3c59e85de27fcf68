"""The incremental indicators equal their definitions, and TA-Lib on recorded candles."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.engine.indicators import Atr, Bands, Ema, Highest, Lowest, Macd, Rsi

prices = st.lists(st.floats(min_value=1, max_value=1e6), min_size=1, max_size=60)
periods = st.integers(1, 20)


@given(prices, periods)
def test_an_ema_equals_its_definition_over_the_whole_series(values: list[float], period: int) -> None:
    ema = Ema(period)
    for value in values:
        ema.update(value)
    expected: float | None = None
    if len(values) >= period:
        expected = sum(values[:period]) / period
        for value in values[period:]:
            expected = expected * (1 - 2 / (period + 1)) + value * 2 / (period + 1)
    assert ema.value == (None if expected is None else pytest.approx(expected))


@given(prices, periods)
def test_bands_equal_mean_and_deviation_of_the_window(values: list[float], period: int) -> None:
    bands = Bands(period, 2.0)
    for value in values:
        bands.update(value)
    window = values[-period:]
    if len(window) < period:
        assert bands.middle is None
        assert bands.upper is None
        return
    assert bands.middle == pytest.approx(fmean(window))
    deviation = pstdev(window)
    # Rounding of what went through the window, not of what is in it now.
    assert bands.deviation == pytest.approx(deviation, rel=1e-6, abs=1e-6 * max(values))


@given(prices, periods)
def test_highest_and_lowest_equal_those_of_the_window(values: list[float], period: int) -> None:
    highest, lowest = Highest(period), Lowest(period)
    for count, value in enumerate(values, 1):
        window = values[max(0, count - period) : count]
        full = count >= period
        assert highest.update(value) == (max(window) if full else None)
        assert lowest.update(value) == (min(window) if full else None)


@given(prices, periods)
def test_the_strength_index_stays_within_its_bounds(values: list[float], period: int) -> None:
    rsi = Rsi(period)
    for value in values:
        found = rsi.update(value)
        assert found is None or 0 <= found <= 100


def test_a_price_that_does_not_move_is_neither_strong_nor_weak() -> None:
    rsi = Rsi(2)
    assert [rsi.update(5.0) for _ in range(4)] == [None, None, 50.0, 50.0]


@pytest.mark.parametrize("make", [Ema, Rsi, Atr, Highest, Lowest], ids=lambda kind: kind.__name__)
def test_a_period_below_one_is_refused(make: Callable[[int], object]) -> None:
    with pytest.raises(ValueError, match="period must be at least 1, got 0"):
        make(0)


# --- against TA-Lib, on 21 days of minutes with a crash in them ---


@pytest.fixture(scope="module")
def candles() -> dict[str, np.ndarray]:
    folder = os.environ.get("TRADINGBOT_TEST_DATA")
    if folder is None:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the recorded candles")
    path = Path(folder) / "market" / "klines" / "BTCUSDT_1m_20230301_20230321.csv.gz"
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("high", "low", "close")}


def series(update: Callable[..., float | None], *columns: np.ndarray) -> np.ndarray:
    values = [update(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return np.array([np.nan if value is None else value for value in values])


def agree(ours: np.ndarray, theirs: np.ndarray, *, settled: int = 0, absolute: float = 0.0) -> None:
    assert np.isnan(ours).sum() == np.isnan(theirs).sum() or settled
    np.testing.assert_allclose(ours[settled:], theirs[settled:], rtol=1e-9, atol=absolute)


@pytest.mark.parametrize("period", [2, 14, 200])
def test_averages_and_ranges_agree_with_ta_lib(candles: dict[str, np.ndarray], period: int) -> None:
    high, low, close = candles["high"], candles["low"], candles["close"]
    agree(series(Ema(period).update, close), talib.EMA(close, period))
    agree(series(Rsi(period).update, close), talib.RSI(close, period), absolute=1e-9)
    agree(series(Atr(period).update, high, low, close), talib.ATR(high, low, close, period))
    agree(series(Highest(period).update, high), talib.MAX(high, period))
    agree(series(Lowest(period).update, low), talib.MIN(low, period))


def test_bands_agree_with_ta_lib(candles: dict[str, np.ndarray]) -> None:
    close, bands = candles["close"], Bands(20, 2.0)
    middle = series(bands.update, close)
    ends = Bands(20, 2.0)
    lower = series(lambda value: (ends.update(value), ends.lower)[1], close)
    _, their_middle, their_lower = talib.BBANDS(close, 20, 2.0, 2.0)
    agree(middle, their_middle)
    # TA-Lib takes squares of the prices themselves: of a deviation of cents it has few digits.
    agree(lower, their_lower, absolute=1e-3)


def test_macd_agrees_with_ta_lib_once_both_have_settled(candles: dict[str, np.ndarray]) -> None:
    close, macd = candles["close"], Macd(12, 26, 9)
    ours = series(macd.update, close)
    _, _, histogram = talib.MACD(close, 12, 26, 9)
    # TA-Lib seeds the fast average later, at the slow one's first value.
    agree(ours, histogram, settled=500, absolute=1e-7)
