"""Buys at the close of each even minute and sells at the close of each odd one."""

from __future__ import annotations

from tradingbot.strategy import Candle, Signal, Strategy


class EveryMinute(Strategy):
    """By the candle's own minute, so that each one brings an order."""

    name = "every-minute"

    @property
    def warmup(self) -> int:
        """None."""
        return 1

    def on_candle(self, candle: Candle) -> Signal:
        """Even or odd."""
        return Signal.EXIT if candle.open_ms // 60_000 % 2 else Signal.ENTER

    def describe(self) -> str:
        """Nothing."""
        return ""
