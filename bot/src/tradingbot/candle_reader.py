"""Closed candles by REST: the history that a strategy is filled with, and what the stream left out."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tradingbot.gateway.port import MOST_CANDLES, Exchange
from tradingbot.model import Candle
from tradingbot.recovery.retry import retry_read, retryable
from tradingbot_api.v1alpha1 import Interval

INTERVAL_MS: Final = {
    Interval.S1: 1_000,
    Interval.M1: 60_000,
    Interval.M3: 180_000,
    Interval.M5: 300_000,
    Interval.M15: 900_000,
    Interval.M30: 1_800_000,
    Interval.H1: 3_600_000,
    Interval.H2: 7_200_000,
    Interval.H4: 14_400_000,
    Interval.H6: 21_600_000,
    Interval.H8: 28_800_000,
    Interval.H12: 43_200_000,
    Interval.D1: 86_400_000,
}


class CandleReader:
    """Of one symbol and the interval in force; every method raises ExchangeError."""

    def __init__(self, exchange: Exchange, symbol: str, interval: Callable[[], Interval], random: Random) -> None:
        self._exchange = exchange
        self._symbol = symbol
        self._interval = interval
        self._random = random

    async def history(self, count: int) -> list[Candle]:
        """The last `count` candles that are over, oldest first."""
        width = INTERVAL_MS[self._interval()]
        now = self._exchange.exchange_ms()
        start = now - now % width - count * width
        result: list[Candle] = []
        while start <= now:
            page = await self.read(start)
            result.extend(page)
            if len(page) < MOST_CANDLES:
                break
            start = page[-1].open_ms + width
        return self._closed(result)

    async def read(self, start_ms: int) -> list[Candle]:
        """A page of candles that opened at `start_ms` or later, the forming one too; asked again on failure."""
        return await retry_read(lambda: self._page(start_ms), retryable=retryable, rng=self._random)

    async def closed(self, start_ms: int) -> list[Candle]:
        """A page of candles that opened at `start_ms` or later and are over; asked once."""
        return self._closed(await self._page(start_ms))

    async def _page(self, start_ms: int) -> list[Candle]:
        return await self._exchange.candles(self._symbol, self._interval().value, limit=MOST_CANDLES, start_ms=start_ms)

    def _closed(self, candles: list[Candle]) -> list[Candle]:
        """Without the last one, which the exchange calls a candle too though it is still forming."""
        return [candle for candle in candles if candle.close_ms < self._exchange.exchange_ms()]
