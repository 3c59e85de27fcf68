"""The trading loop's decisions: closed candles and ticks in, one decision out of each; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tradingbot.engine.strategies.base import Signal, Strategy
from tradingbot.model import BookTicker, Candle
from tradingbot.recorded import Recorded, recorded

TICK_AGAIN_MS: Final = 5_000
"""A decision by ticks is not made again so soon: what was refused, or failed, holds at the next tick too."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Open a position."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Sell the position."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stay:
    """Do nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Candles are missing: read those from `start_ms` on, give them to `backfill`, then this candle again."""

    start_ms: int
    end_ms: int


Decision = Enter | Exit | Stay | Gap
NO_SIGNAL: Final = Stay("no signal to act on")


class TradingLoop(Recorded):
    """Feeds a strategy with every closed candle exactly once and in order, and with ticks where it wants them."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.last_open_ms: int | None = None
        self.seen = 0
        self.failure: str | None = None
        """What the strategy, which may be somebody else's, raised: its state is worth nothing from then on."""
        self._missed = Signal.NONE
        """The last word of the settled strategy at the candles of the last `backfill`, until it is decided on."""
        self._tick_decided: dict[Signal, int] = {}
        """When ticks last led to a decision, by the exchange's clock in ms."""

    @property
    def ready(self) -> bool:
        """Whether the strategy has seen enough candles to be believed."""
        return self.failure is None and self.seen >= self.strategy.warmup

    @recorded
    def backfill(self, candles: Iterable[Candle], since_ms: int = 0) -> int:
        """Take closed candles of the past without deciding anything; returns how many were new.

        What the strategy says of those that close after `since_ms`, when the position was opened, counts as missed.
        """
        taken, self._missed = 0, Signal.NONE
        for candle in candles:
            if candle.closed and (self.last_open_ms is None or candle.open_ms > self.last_open_ms):
                signal = self._take(candle)
                taken += 1
                if signal is not Signal.NONE and self.ready and candle.close_ms > since_ms:
                    self._missed = signal
        return taken

    @recorded
    def missed(self, *, holding: bool) -> Exit | None:
        """The exit that was said at the candles of the last `backfill`, once; the entries there are past."""
        missed, self._missed = self._missed, Signal.NONE
        return Exit(f"missed: {self.describe()}") if holding and missed is Signal.EXIT else None

    @recorded
    def on_candle(self, candle: Candle, *, now_ms: int, max_age_ms: int, holding: bool) -> Decision:
        """Take a candle of the stream and decide.

        `now_ms` is exchange time. A candle that closed longer than `max_age_ms` ago moves the indicators and enters
        never; an exit is never too late.
        """
        if not candle.closed:
            return Stay("the candle is still forming")
        if self.last_open_ms is not None:
            if candle.open_ms <= self.last_open_ms:
                return Stay("the candle was seen before")
            width = candle.close_ms + 1 - candle.open_ms
            if candle.open_ms > self.last_open_ms + width:
                return Gap(self.last_open_ms + width, candle.open_ms - 1)
        missed, signal = self.missed(holding=holding), self._take(candle)
        if self.failure is not None:
            return Stay(self.failure)
        if not self.ready:
            return Stay(f"warming up: {self.seen} of {self.strategy.warmup} candles")
        if signal is Signal.NONE and missed is not None:
            return missed
        if signal is Signal.NONE or (signal is Signal.EXIT) != holding:
            return NO_SIGNAL
        what = f"{self.describe()} close={candle.close}"
        if signal is Signal.EXIT:
            return Exit(what)
        age_ms = now_ms - candle.close_ms
        if age_ms > max_age_ms:
            return Stay(f"{signal} ignored, the candle closed {age_ms} ms ago: {what}")
        return Enter(what)

    @recorded
    def on_tick(self, ticker: BookTicker, *, now_ms: int, age_ms: int, max_age_ms: int, holding: bool) -> Decision:
        """Take the newest best bid and ask and decide.

        It came `age_ms` ago: longer than `max_age_ms`, it enters never; an exit is never too late.
        """
        if not self.ready or not self.strategy.wants_ticks:
            return Stay("no ticks are wanted")
        if not ticker.two_sided:
            return Stay("a side of the book is empty")
        try:
            signal = Signal(self.strategy.on_tick(ticker))
        except Exception as error:
            return self._failed(f"the best bid and ask of {now_ms} ms", error)
        if signal is Signal.NONE or (signal is Signal.EXIT) != holding:
            return NO_SIGNAL
        what = f"{self.describe()} bid={ticker.bid} ask={ticker.ask}"
        if signal is Signal.ENTER and age_ms > max_age_ms:
            return Stay(f"{signal} ignored, the tick came {age_ms} ms ago: {what}")
        if now_ms - self._tick_decided.get(signal, -TICK_AGAIN_MS) < TICK_AGAIN_MS:
            return Stay(f"{signal} was decided less than {TICK_AGAIN_MS} ms ago")
        self._tick_decided[signal] = now_ms
        return Enter(what) if signal is Signal.ENTER else Exit(what)

    @recorded
    def skip_to(self, candle: Candle) -> None:
        """The exchange has none between the last candle and this one: it is the next."""
        self.last_open_ms = candle.open_ms - (candle.close_ms + 1 - candle.open_ms)

    def describe(self) -> str:
        """What the strategy says of itself; nothing is decided by it."""
        try:
            return self.strategy.describe()
        except Exception as error:
            return f"(not described: {type(error).__name__}: {error})"

    def _take(self, candle: Candle) -> Signal:
        self.last_open_ms = candle.open_ms
        self.seen += 1
        if self.failure is not None:
            return Signal.NONE
        try:
            return Signal(self.strategy.on_candle(candle))
        except Exception as error:
            self._failed(f"the candle that opened at {candle.open_ms} ms", error)
            return Signal.NONE

    def _failed(self, where: str, error: Exception) -> Stay:
        self.failure = f"the strategy failed at {where}: {type(error).__name__}: {error}"
        return Stay(self.failure)
