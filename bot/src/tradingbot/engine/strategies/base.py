"""What a strategy is: it takes closed candles, and ticks if it wants them, and says when to be in the market."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tradingbot.model import BookTicker, Candle


class Signal(StrEnum):
    """What a strategy says. EXIT is a state: it is repeated while it holds."""

    NONE = "None"
    ENTER = "Enter"
    EXIT = "Exit"


class NoParameters(BaseModel):
    """What a strategy without parameters takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Strategy(ABC):
    """Decides on what the market showed alone; it knows neither orders nor balances.

    The same candles and ticks give the same signals: no clock, no randomness, no I/O.
    """

    name: ClassVar[str]
    """What `spec.strategy.name` calls it."""
    Parameters: ClassVar[type[BaseModel]] = NoParameters
    """Checked before the strategy is made; a wrong one becomes a condition with the field's path."""
    wants_ticks: ClassVar[bool] = False
    """Whether `on_tick` is called."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    @property
    @abstractmethod
    def warmup(self) -> int:
        """How many closed candles it needs before its signals mean anything."""

    @abstractmethod
    def on_candle(self, candle: Candle) -> Signal:
        """Take the next closed candle and say what follows."""

    def on_tick(self, ticker: BookTicker) -> Signal:
        """Take a change of best bid or ask and say what follows."""
        return Signal.NONE

    @abstractmethod
    def describe(self) -> str:
        """The present indicator values, for logs."""


class Regime:
    """In the market from an entry until an exit: ENTER is said once, EXIT until the next entry.

    An exit that came while the bot was away must still end the position, so it is not said once.
    """

    def __init__(self) -> None:
        self._inside: bool | None = None

    def update(self, *, enter: bool, leave: bool) -> Signal:
        """Where both hold, it leaves."""
        if leave:
            self._inside = False
        elif enter and not self._inside:
            self._inside = True
            return Signal.ENTER
        return Signal.EXIT if self._inside is False else Signal.NONE


def show(value: float | None) -> str:
    """An indicator for people."""
    return "unknown" if value is None else f"{value:.10g}"
