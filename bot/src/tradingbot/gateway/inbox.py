"""What waits to be decided on: closed candles in order, and of ticks the newest."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from tradingbot.model import BookTicker, Candle

MAX_CANDLES: Final = 1_000


class Inbox:
    """Filled by who reads the streams, emptied by who decides; bounded however slow that is."""

    def __init__(self) -> None:
        self._candles: deque[Candle] = deque()
        self._tick: BookTicker | None = None
        self._something = asyncio.Event()

    def put(self, candle: Candle) -> bool:
        """One more candle; False where the oldest had to go."""
        lost = len(self._candles) >= MAX_CANDLES
        if lost:
            self._candles.popleft()
        self._candles.append(candle)
        self._something.set()
        return not lost

    def put_tick(self, tick: BookTicker) -> None:
        """A newer best bid and ask takes the place of one that waits."""
        self._tick = tick
        self._something.set()

    def wake(self) -> None:
        """Let `take` return: something else changed."""
        self._something.set()

    async def take(self, seconds: float | None) -> Candle | BookTicker | None:
        """The next candle, where none waits the newest tick; None once woken, or after so long."""
        if not self._candles and self._tick is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._something.wait()
        self._something.clear()
        if self._candles:
            return self._candles.popleft()
        tick, self._tick = self._tick, None
        return tick
