"""Two strategies that buy what fell below its mean and sell it there: at the close of a candle, and at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.strategy import Bands, BookTicker, Candle, Regime, Signal, Strategy, show


class BuyTheDip(Strategy):
    """Enters when a candle closes `depth` below the mean of the last ones, exits at the mean."""

    name = "buy-the-dip"

    class Parameters(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")

        period: int = Field(default=20, ge=2, le=1000, description="Candles in the mean.")
        depth: float = Field(default=0.002, gt=0, lt=1, description="How far below the mean, as a share of it.")

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._depth = parameters.depth
        self._mean = Bands(parameters.period, width=1.0)
        self._regime = Regime()

    @property
    def warmup(self) -> int:
        return self._mean.period

    def on_candle(self, candle: Candle) -> Signal:
        close = float(candle.close)
        mean = self._mean.update(close)
        if mean is None:
            return Signal.NONE
        return self._regime.update(enter=close < mean * (1 - self._depth), leave=close >= mean)

    def describe(self) -> str:
        return f"mean={show(self._mean.middle)}"


class CatchTheDip(BuyTheDip):
    """Enters once the ask is `depth` below the mean of the last closes, exits once the bid is at it."""

    name = "catch-the-dip"
    wants_ticks = True

    def on_candle(self, candle: Candle) -> Signal:
        self._mean.update(float(candle.close))
        return Signal.NONE

    def on_tick(self, ticker: BookTicker) -> Signal:
        mean = self._mean.middle
        if mean is None:
            return Signal.NONE
        return self._regime.update(enter=float(ticker.ask) < mean * (1 - self._depth), leave=float(ticker.bid) >= mean)
