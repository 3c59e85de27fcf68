"""The strategy rsi-reversion: buys what recovers from being oversold."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tradingbot.engine.indicators import Rsi
from tradingbot.engine.strategies.base import Regime, Signal, Strategy, show
from tradingbot.model import Candle


class RsiReversion(Strategy):
    """Enters when the relative strength index rises above `oversold` again, exits once it reaches `exit`."""

    name: ClassVar[str] = "rsi-reversion"

    class Parameters(BaseModel):
        """Parameters of rsi-reversion."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        period: int = Field(default=14, ge=2, le=1000, description="Changes of price in the index.")
        oversold: float = Field(default=30, gt=0, lt=100, description="Above it again: enter.")
        exit: float = Field(default=55, gt=0, lt=100, description="Reached: exit; more than oversold.")

        @model_validator(mode="after")
        def _oversold_below_exit(self) -> Self:
            if self.oversold >= self.exit:
                raise ValueError(f"oversold must be less than exit, got oversold={self.oversold} and exit={self.exit}")
            return self

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._oversold, self._exit = parameters.oversold, parameters.exit
        self._rsi = Rsi(parameters.period)
        self._regime = Regime()

    @property
    def warmup(self) -> int:
        """Candles until the index has settled."""
        return self._rsi.settled

    def on_candle(self, candle: Candle) -> Signal:
        """Update the index."""
        before, now = self._rsi.value, self._rsi.update(float(candle.close))
        if before is None or now is None:
            return Signal.NONE
        return self._regime.update(enter=before < self._oversold <= now, leave=now >= self._exit)

    def describe(self) -> str:
        """The index."""
        return f"rsi={show(self._rsi.value)}"
