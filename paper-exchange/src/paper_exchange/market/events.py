"""The vocabulary of market data: what a source emits, its candles, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Protocol

Level = tuple[int, int]
"""Price and quantity of one price level in units of 1e-8: there are too many of them for decimals."""


@dataclass(frozen=True, slots=True)
class BookUpdate:
    """Absolute quantities of outside book levels; 0 removes one, a snapshot replaces the whole book."""

    symbol: str
    time_ms: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool


@dataclass(frozen=True, slots=True)
class MarketTrade:
    """A trade between outsiders; `buyer_is_maker` means that the taker sold."""

    symbol: str
    time_ms: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool
    trade_id: int = -1


@dataclass(frozen=True, slots=True)
class TradingStatus:
    """The outside market halts a symbol, or goes on with it."""

    symbol: str
    time_ms: int
    trading: bool


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle; `interval_ms` is its own length, which varies for months. Taker volumes are those of buyers.

    The ids are those of its first and last trade, -1 where it has none.
    """

    open_time_ms: int
    interval_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    taker_base: Decimal
    taker_quote: Decimal
    first_id: int = -1
    last_id: int = -1

    @property
    def close_time_ms(self) -> int:
        """The last millisecond that belongs to the candle, as Binance states it."""
        return self.open_time_ms + self.interval_ms - 1


MarketEvent = BookUpdate | MarketTrade | TradingStatus


class Market(Protocol):
    """A source of market data."""

    def events(self) -> Iterator[MarketEvent]:
        """Events of all symbols in order of time, a snapshot of each first; the end is the end of the market."""

    def history(self, symbol: str) -> list[Candle]:
        """The 8.5 h before the start as gapless 1 s candles, oldest first, leading up to the first price."""


class MarketError(Exception):
    """Market data cannot be had as asked for."""

    code: ClassVar[str]


class MarketSpecInvalidError(MarketError):
    """The description of the market is not understood."""

    code = "MarketSpecInvalid"


class SymbolUnknownError(MarketError):
    """The market does not trade the symbol."""

    code = "SymbolUnknown"


class IntervalUnknownError(MarketError):
    """There are no candles of this interval."""

    code = "IntervalUnknown"


class CaptureInvalidError(MarketError):
    """A recording cannot be read, or its book cannot be followed."""

    code = "CaptureInvalid"


class ArchiveInvalidError(MarketError):
    """An archive cannot be read."""

    code = "ArchiveInvalid"
