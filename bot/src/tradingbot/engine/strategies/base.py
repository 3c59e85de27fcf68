"""What the trading loop asks of a strategy."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Signal(StrEnum):
    """What a strategy says after a closed candle. EXIT is a state: it is repeated while it holds."""

    NONE = "None"
    ENTER = "Enter"
    EXIT = "Exit"


class Strategy(Protocol):
    """Decides on closed candles alone; it knows neither orders nor balances."""

    @property
    def warmup(self) -> int:
        """How many closed candles it needs before its signals mean anything."""

    def on_close(self, close: float) -> Signal:
        """Take the close of the next candle and say what follows."""

    def describe(self) -> str:
        """The present indicator values, for logs."""
