"""The strategy donchian-breakout: buys a new high and sells a new low of the last candles."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.engine.indicators import Highest, Lowest
from tradingbot.engine.strategies.base import Regime, Signal, Strategy, show
from tradingbot.model import Candle


class DonchianBreakout(Strategy):
    """Enters when a candle closes above the highest high of those before it, exits below their lowest low."""

    name: ClassVar[str] = "donchian-breakout"

    class Parameters(BaseModel):
        """Parameters of donchian-breakout."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        entry: int = Field(default=20, ge=1, le=5000, description="Candles whose highest high is broken.")
        exit: int = Field(default=10, ge=1, le=5000, description="Candles whose lowest low is broken.")

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._high, self._low = Highest(parameters.entry), Lowest(parameters.exit)
        self._regime = Regime()

    @property
    def warmup(self) -> int:
        """Candles until both channels are full, and the one that breaks them."""
        return max(self._high.period, self._low.period) + 1

    def on_candle(self, candle: Candle) -> Signal:
        """Compare with the channels of the candles before this one."""
        high, low, close = self._high.value, self._low.value, float(candle.close)
        self._high.update(float(candle.high))
        self._low.update(float(candle.low))
        if high is None or low is None:
            return Signal.NONE
        return self._regime.update(enter=close > high, leave=close < low)

    def describe(self) -> str:
        """Both channels, with the last candle in them."""
        return f"high={show(self._high.value)} low={show(self._low.value)}"
