"""The strategy confirmed-signal: enters only where several indicators agree that the price rises."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tradingbot.engine.indicators import Bands, Ema, Macd, Rsi
from tradingbot.engine.strategies.base import Regime, Signal, Strategy, show
from tradingbot.model import Candle

MIDDLE = 50.0


class ConfirmedSignal(Strategy):
    """Counts four votes: fast average above the slow one, RSI above 50, MACD above its signal, close above the mean.

    Enters once `required` of them agree, exits once no more than `keep` do.
    """

    name: ClassVar[str] = "confirmed-signal"

    class Parameters(BaseModel):
        """Parameters of confirmed-signal."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        fast: int = Field(default=12, ge=1, le=1000, description="Candles in the fast average; also of the MACD.")
        slow: int = Field(default=26, ge=2, le=5000, description="Candles in the slow average; more than fast.")
        signal: int = Field(default=9, ge=1, le=1000, description="Values in the MACD's signal.")
        rsi: int = Field(default=14, ge=2, le=1000, description="Changes of price in the RSI.")
        mean: int = Field(default=20, ge=2, le=5000, description="Candles in the mean.")
        required: int = Field(default=4, ge=1, le=4, description="Votes to enter; more than keep.")
        keep: int = Field(default=1, ge=0, le=3, description="With no more votes than these: exit.")

        @model_validator(mode="after")
        def _in_order(self) -> Self:
            if self.fast >= self.slow:
                raise ValueError(f"fast must be less than slow, got fast={self.fast} and slow={self.slow}")
            if self.keep >= self.required:
                raise ValueError(f"keep must be less than required, got keep={self.keep} and required={self.required}")
            return self

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._required, self._keep = parameters.required, parameters.keep
        self._fast, self._slow = Ema(parameters.fast), Ema(parameters.slow)
        self._macd = Macd(parameters.fast, parameters.slow, parameters.signal)
        self._rsi, self._mean = Rsi(parameters.rsi), Bands(parameters.mean, 1.0)
        self._votes = 0
        self._regime = Regime()

    @property
    def warmup(self) -> int:
        """Candles until all four have settled."""
        return max(self._macd.settled, self._rsi.settled, self._mean.period)

    def on_candle(self, candle: Candle) -> Signal:
        """Count the votes."""
        close = float(candle.close)
        fast, slow = self._fast.update(close), self._slow.update(close)
        rsi, histogram, mean = self._rsi.update(close), self._macd.update(close), self._mean.update(close)
        if fast is None or slow is None or rsi is None or histogram is None or mean is None:
            return Signal.NONE
        self._votes = (fast > slow) + (rsi > MIDDLE) + (histogram > 0) + (close > mean)
        return self._regime.update(enter=self._votes >= self._required, leave=self._votes <= self._keep)

    def describe(self) -> str:
        """The votes and what they were counted by."""
        return (
            f"votes={self._votes} fast={show(self._fast.value)} slow={show(self._slow.value)} "
            f"rsi={show(self._rsi.value)} macd={show(self._macd.histogram)} mean={show(self._mean.middle)}"
        )
