"""The strategy bollinger-reversion: buys what returns into the bands from below and sells at their middle."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.engine.indicators import Bands
from tradingbot.engine.strategies.base import Regime, Signal, Strategy, show
from tradingbot.model import Candle


class BollingerReversion(Strategy):
    """Enters when the close rises above the lower band again, exits once it reaches the middle."""

    name: ClassVar[str] = "bollinger-reversion"

    class Parameters(BaseModel):
        """Parameters of bollinger-reversion."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        period: int = Field(default=20, ge=2, le=5000, description="Candles in the mean.")
        deviations: float = Field(default=2, gt=0, le=10, description="Deviations between the middle and a band.")

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._bands = Bands(parameters.period, parameters.deviations)
        self._below = False
        self._regime = Regime()

    @property
    def warmup(self) -> int:
        """Candles until the bands are full, and the one that returns."""
        return self._bands.period + 1

    def on_candle(self, candle: Candle) -> Signal:
        """Compare with the bands that this candle is part of."""
        close, below = float(candle.close), self._below
        middle = self._bands.update(close)
        lower = self._bands.lower
        if middle is None or lower is None:
            return Signal.NONE
        self._below = close < lower
        return self._regime.update(enter=below and not self._below, leave=close >= middle)

    def describe(self) -> str:
        """The lower band and the middle."""
        return f"lower={show(self._bands.lower)} middle={show(self._bands.middle)}"
