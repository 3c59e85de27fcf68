"""A market that follows another exchange: whom it follows, and what its public messages say of one symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from paper_exchange.market.candles import FIXED_INTERVALS_MS
from paper_exchange.market.events import (
    BookUpdate,
    Candle,
    MarketError,
    MarketEvent,
    MarketSpecInvalidError,
    MarketTrade,
)
from paper_exchange.market.local_book import BookChange, LocalBook

HISTORY_MS: Final = 30_600_000
"""8.5 h of candles before the start, as the other markets have them."""
_SECONDS_MS: Final = 900_000
"""How much of it, and up to a minute more, is told in seconds: what Binance answers at once. The rest is minutes."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The addresses of a Binance-compatible exchange, without a slash at the end; nobody else is called."""

    rest: str
    streams: str


BINANCE: Final = Upstream("https://api.binance.com", "wss://stream.binance.com:9443")


class UpstreamError(MarketError):
    """What the followed exchange says is not understood, too old, or not to be had."""

    code = "UpstreamUnusable"


def upstream_of(spec: str) -> Upstream | None:
    """Whom `live`, `live:BASE_URL` or `live:BASE_URL,STREAM_URL` follows; None where the spec is of another market.

    Without STREAM_URL the streams are at the same address, as those of a paper exchange are.
    """
    kind, colon, addresses = spec.partition(":")
    if kind != "live":
        return None
    if not colon:
        return BINANCE
    base, comma, streams = addresses.partition(",")
    if not comma:
        streams = "ws" + base.removeprefix("http")
    for address, schemes in ((base, ("http", "https")), (streams, ("ws", "wss"))):
        if urlsplit(address).scheme not in schemes or not urlsplit(address).hostname:
            raise MarketSpecInvalidError(
                f"market: expected an address that begins with {' or '.join(f'{one}://' for one in schemes)}, "
                f"got {address!r}; for example live:https://api.binance.com,wss://stream.binance.com:9443"
            )
    return Upstream(base.rstrip("/"), streams.rstrip("/"))


def stream_names(symbols: Iterable[str]) -> str:
    """The streams of a combined connection for these symbols."""
    return "/".join(f"{symbol.lower()}@{name}" for symbol in symbols for name in ("depth@100ms", "trade"))


def history_spans(now_ms: int) -> list[tuple[str, int, int]]:
    """Interval, begin and end (ms) of the candles to ask for: minutes, then from a whole minute on seconds."""
    end = now_ms // 1000 * 1000
    seconds = (end - _SECONDS_MS) // FIXED_INTERVALS_MS["1m"] * FIXED_INTERVALS_MS["1m"]
    return [("1m", seconds + _SECONDS_MS - HISTORY_MS, seconds), ("1s", seconds, end)]


def candle_of(row: Sequence[Any], interval: str) -> Candle:
    """A row of GET klines."""
    opened, *prices, volume, _, quote_volume, trades, taker_base, taker_quote = row[:11]
    first, high, low, last = (Decimal(price) for price in prices)
    return Candle(
        open_time_ms=opened,
        interval_ms=FIXED_INTERVALS_MS[interval],
        open=first,
        high=high,
        low=low,
        close=last,
        volume=Decimal(volume),
        quote_volume=Decimal(quote_volume),
        trades=trades,
        taker_base=Decimal(taker_base),
        taker_quote=Decimal(taker_quote),
    )


class Follower:
    """One symbol: turns messages into events of the market, and holds trades back while there is no book.

    A trade may set off a stop, which must not take from a book that is over. Times of events are those of the
    followed exchange, but never later than the clock here.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.book = LocalBook()
        self.from_ms = 0
        """Trades before it are in the history already."""
        self.missed = 0
        """Trades that a connection left out, by the numbers of those that it told, and those that came to nothing."""
        self._last_trade: int | None = None
        self._held: list[MarketTrade] = []

    def restart(self) -> None:
        """The connection is gone: the book is unknown until the next snapshot, and what waited for it is too old."""
        self.book.forget()
        self.missed += len(self._held)
        self._held = []
        self._last_trade = None

    def snapshot(self, answer: Mapping[str, Any], now_ms: int) -> list[MarketEvent]:
        """The answer of GET depth: the book, and the trades that waited for it. BookGapError as of LocalBook."""
        events: list[MarketEvent] = [self._update(change, now_ms) for change in self.book.snapshot(answer)]
        events += self._held
        self._held = []
        return events

    def depth(self, event: Mapping[str, Any], now_ms: int) -> list[MarketEvent]:
        """A depth event. BookGapError as of LocalBook: from now on a snapshot is needed."""
        return [self._update(change, min(event["E"], now_ms)) for change in self.book.event(event)]

    def trade(self, event: Mapping[str, Any], now_ms: int) -> list[MarketEvent]:
        """A trade; nothing where it is known already, or waits for the book."""
        ident = event["t"]
        if self._last_trade is not None:
            if ident <= self._last_trade:
                return []
            self.missed += ident - self._last_trade - 1
        self._last_trade = ident
        if event["T"] < self.from_ms:
            return []
        traded_ms = min(event["T"], now_ms)
        trade = MarketTrade(self.symbol, traded_ms, Decimal(event["p"]), Decimal(event["q"]), event["m"], ident)
        if self.book.update_id is None:
            self._held.append(trade)
            return []
        return [trade]

    def follows_on(self, event: Mapping[str, Any]) -> bool:
        """Whether a trade or depth event of another connection continues what was told here."""
        if event["e"] == "trade":
            return self._last_trade is not None and event["t"] == self._last_trade + 1
        return self.book.continues(event)

    def _update(self, change: BookChange, time_ms: int) -> BookUpdate:
        return BookUpdate(self.symbol, time_ms, change.bids, change.asks, change.snapshot)
