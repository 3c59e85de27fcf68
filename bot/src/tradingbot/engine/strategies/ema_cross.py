"""The strategy ema-cross: long while the fast moving average is above the slow one."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tradingbot.engine.indicators import Ema
from tradingbot.engine.strategies.base import Signal, Strategy, show
from tradingbot.model import Candle


class EmaCross(Strategy):
    """Enters when the fast average crosses above the slow one, exits while it is below."""

    name: ClassVar[str] = "ema-cross"

    class Parameters(BaseModel):
        """Parameters of ema-cross."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        fast: int = Field(default=12, ge=1, le=1000, description="Candles in the fast average.")
        slow: int = Field(default=26, ge=2, le=5000, description="Candles in the slow average; more than fast.")

        @model_validator(mode="after")
        def _fast_below_slow(self) -> Self:
            if self.fast >= self.slow:
                raise ValueError(f"fast must be less than slow, got fast={self.fast} and slow={self.slow}")
            return self

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._fast = Ema(parameters.fast)
        self._slow = Ema(parameters.slow)
        self._was_above: bool | None = None

    @property
    def warmup(self) -> int:
        """Candles until both averages have settled."""
        return self._slow.settled

    def on_candle(self, candle: Candle) -> Signal:
        """Update both averages; ENTER only at the candle of the crossing, EXIT as long as fast is below."""
        close = float(candle.close)
        fast, slow = self._fast.update(close), self._slow.update(close)
        if fast is None or slow is None:
            return Signal.NONE
        above = fast > slow
        crossed_up = above and self._was_above is False
        self._was_above = above
        if crossed_up:
            return Signal.ENTER
        # A state, not an edge: a crossing that happened while the bot was away must still end the position.
        return Signal.EXIT if fast < slow else Signal.NONE

    def describe(self) -> str:
        """Both averages."""
        return f"fast={show(self._fast.value)} slow={show(self._slow.value)}"
