"""A market stream of which nothing is heard: is the market quiet or the stream dead? The exchange's book decides.

A connection may answer pings for hours and bring no data, and a symbol may have no trade for as long. Meanwhile the
book that the exchange answers is the price that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from tradingbot.gateway.errors import ExchangeError
from tradingbot.gateway.streams import StreamName, Streams
from tradingbot.model import BookTicker

QUIET_SECONDS: Final = 10.0
"""A stream that was silent for so long is looked at, as often as that."""
MOST_PATIENCE: Final = 60.0
"""The longest time for which a stream that was rebuilt in vain is left alone."""
SILENCE_SECONDS: Final = 30.0
"""A stream that was silent for so long, and not found to be right, is dead."""


class MarketWatch:
    """Run it beside the streams; `ask` reads the book by REST, times are monotonic."""

    def __init__(
        self, streams: Streams, ask: Callable[[], Awaitable[BookTicker]], monotonic: Callable[[], float]
    ) -> None:
        self._streams = streams
        self._ask = ask
        self._monotonic = monotonic
        self._asked: BookTicker | None = None
        self._found_right: float | None = None
        self._doubted: float | None = None
        """When the book was found to be another than the stream told."""
        self._rebuilds = 0
        """Since the stream was last heard."""
        self._rebuild_after = 0.0
        self._log = structlog.get_logger("streams")

    @property
    def book(self) -> BookTicker | None:
        """The last best bid and ask, be they told by the stream or asked for; look at `received` before using it."""
        known = [book for book in (self._streams.book, self._asked) if book is not None]
        return max(known, key=lambda book: book.received, default=None)

    @property
    def alive(self) -> bool:
        """Whether the stream is connected and was lately heard, or found to have nothing to tell."""
        health = self._streams.health(StreamName.MARKET)
        if not health.connected:
            return False
        heard = health.age is not None and health.age <= SILENCE_SECONDS
        return heard or (self._found_right is not None and self._monotonic() - self._found_right <= SILENCE_SECONDS)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Ask for the book where nothing was heard; a stream that does not tell what changed is rebuilt."""
        now = self._monotonic()
        if self._silent() < QUIET_SECONDS:
            self._rebuilds = 0
            return
        if self._doubted is not None and self._silent() >= now - self._doubted and now >= self._rebuild_after:
            self._log.warning("the market stream does not tell what changed", silent_seconds=round(self._silent()))
            self._streams.rebuild(StreamName.MARKET)
            self._rebuilds += 1
            self._rebuild_after = now + min(MOST_PATIENCE, QUIET_SECONDS * 2**self._rebuilds)
        self._doubted = None
        known = self.book
        try:
            book = await self._ask()
        except ExchangeError:
            return
        self._asked = book
        if known is None or _same(known, book):
            self._found_right = self._monotonic()
        else:
            # What just changed may be on its way; the next look decides.
            self._doubted = self._monotonic()

    def _silent(self) -> float:
        age = self._streams.health(StreamName.MARKET).age
        return float("inf") if age is None else age


def _same(one: BookTicker, other: BookTicker) -> bool:
    return (one.bid, one.bid_quantity, one.ask, one.ask_quantity) == (
        other.bid,
        other.bid_quantity,
        other.ask,
        other.ask_quantity,
    )
