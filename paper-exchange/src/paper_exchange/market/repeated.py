"""A recording that begins again at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from paper_exchange.market.events import Candle, Market, MarketEvent

_MINUTE_MS: Final = 60_000


class Recorded(Market, Protocol):
    """A market with an end."""

    def play(self, start_ms: int) -> Iterator[MarketEvent]:
        """The recorded events, beginning at another time."""


class RepeatedMarket:
    """A recording, played again and again: each time from the first full minute after its last event."""

    def __init__(self, recorded: Recorded, start_ms: int) -> None:
        """`start_ms` is when it is played for the first time."""
        self._recorded = recorded
        self._start_ms = start_ms

    def events(self) -> Iterator[MarketEvent]:
        """Endless events; where the recording begins again, the price jumps to its first one."""
        start_ms = self._start_ms
        while True:
            last_ms = start_ms
            for event in self._recorded.play(start_ms):
                last_ms = event.time_ms
                yield event
            start_ms = last_ms // _MINUTE_MS * _MINUTE_MS + _MINUTE_MS

    def history(self, symbol: str) -> list[Candle]:
        """The candles before the first time."""
        return self._recorded.history(symbol)
