"""Replays Binance's daily archives: their trades, or their candles as trades, and a generated book around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from heapq import merge
from itertools import pairwise
from pathlib import Path
from random import Random

from paper_exchange.market.archive_files import KINDS, ArchiveName, read_candles, read_trades
from paper_exchange.market.book import GeneratedBook
from paper_exchange.market.candle_path import path_of
from paper_exchange.market.events import (
    ArchiveInvalidError,
    BookUpdate,
    Candle,
    MarketEvent,
    MarketTrade,
    SymbolUnknownError,
)
from paper_exchange.market.profiles import Profile, profile_of
from paper_exchange.market.synthetic import synthetic_history

BOOK_INTERVAL_MS = 100
_MINUTE_MS = 60_000


class ArchiveMarket:
    """The archives of a directory, of each symbol the most exact kind that is there, day after day.

    Times are shifted by whole minutes, the same for all symbols, so that candles of a minute stay what they were:
    that of the first trade is the one in which the market begins. What was earlier in it is left out.
    """

    def __init__(
        self, directory: Path, symbols: Sequence[str], randomness: Callable[[str], Random], start_ms: int
    ) -> None:
        """`randomness` gives a new seeded generator for each name, the same one for the same name."""
        found = _archives(directory)
        for symbol in symbols:
            if symbol not in found:
                raise SymbolUnknownError(
                    f"symbol: expected one of {', '.join(found)}, whose archives are in {str(directory)!r}, "
                    f"got {symbol!r}; fetch its archives, or start with these symbols only"
                )
        self._recordings = {symbol: Recording(symbol, found[symbol]) for symbol in symbols}
        _check_days(self._recordings)
        self._randomness = randomness
        self._start_ms = start_ms
        self._first_ms = min(one.first.time_ms for one in self._recordings.values())

    def events(self) -> Iterator[MarketEvent]:
        """The recorded events, read as they are asked for; ArchiveInvalidError where a file cannot be followed."""
        return self.play(self._start_ms)

    def play(self, start_ms: int) -> Iterator[MarketEvent]:
        """The recorded events, beginning at another time."""
        shift_ms = (start_ms // _MINUTE_MS - self._first_ms // _MINUTE_MS) * _MINUTE_MS
        streams = []
        for symbol, recording in self._recordings.items():
            book = BookAround(symbol, recording.profile, self._randomness(f"{symbol}/book"))
            streams.append(book.events(_shifted(recording.trades(), shift_ms), start_ms))
        return merge(*streams, key=lambda event: event.time_ms)

    def history(self, symbol: str) -> list[Candle]:
        """Candles before the start: generated, ending at the first recorded price."""
        profile = self._recordings[symbol].profile
        return synthetic_history(profile, self._randomness(f"{symbol}/history"), profile.price, self._start_ms)


class Recording:
    """The archives of one symbol."""

    def __init__(self, symbol: str, files: Mapping[str, Mapping[date, Path]]) -> None:
        """`files` are those of each kind by their days."""
        self._symbol = symbol
        self._kind = next(kind for kind in KINDS if kind in files)
        self._files = dict(sorted(files[self._kind].items()))
        self.days = list(self._files)
        self.profile = profile_of(symbol)
        """The symbol's profile, with the first recorded price."""
        first = next(self.trades(), None)
        if first is None:
            raise ArchiveInvalidError(
                f"{self._files[self.days[0]].name}:1: expected at least one trade, got none; fetch the file anew"
            )
        self.first = first
        self.profile = replace(self.profile, price=first.price)

    def trades(self) -> Iterator[MarketTrade]:
        """The trades of all days at their recorded times; time never runs back."""
        last_ms = 0
        for day, path in self._files.items():
            for trade in self._day(path, ArchiveName(self._symbol, self._kind, day)):
                last_ms = max(last_ms, trade.time_ms)
                yield trade if trade.time_ms == last_ms else replace(trade, time_ms=last_ms)

    def _day(self, path: Path, name: ArchiveName) -> Iterator[MarketTrade]:
        if self._kind in ("trades", "aggTrades"):
            return read_trades(path, name)
        tick, step = self.profile.tick, self.profile.step
        return (trade for candle in read_candles(path, name) for trade in path_of(candle, name.symbol, tick, step))


class BookAround:
    """The book around the trades of one symbol."""

    def __init__(self, symbol: str, profile: Profile, rng: Random) -> None:
        self._symbol = symbol
        self._tick = profile.tick
        self._book = GeneratedBook(profile, rng)

    def events(self, trades: Iterable[MarketTrade], start_ms: int) -> Iterator[MarketEvent]:
        """The trades since `start_ms` and the book, which opens at their first price, or at the last one before.

        A sold price is the best bid and a bought one the best ask, one tick apart; the book follows before the trade,
        yet 100 ms after its last change at the earliest, as Binance's depth stream. No trade takes from the book.
        """
        due_ms = 0
        wanted = self._book.bid
        for trade in trades:
            if trade.time_ms < start_ms:
                wanted = self._bid(trade)
                continue
            if not due_ms:
                yield self._moved(wanted or self._bid(trade), start_ms, snapshot=True)
                due_ms = start_ms + BOOK_INTERVAL_MS
            elif wanted != self._book.bid and trade.time_ms > due_ms:
                yield self._moved(wanted, due_ms)
                due_ms += BOOK_INTERVAL_MS
            wanted = self._bid(trade)
            if wanted != self._book.bid and trade.time_ms >= due_ms:
                yield self._moved(wanted, trade.time_ms)
                due_ms = trade.time_ms + BOOK_INTERVAL_MS
            yield trade
        if wanted != self._book.bid:
            yield self._moved(wanted, due_ms or start_ms, snapshot=not due_ms)

    def _bid(self, trade: MarketTrade) -> int:
        """Where the best bid is, in ticks, when this is traded."""
        ticks, rest = divmod(trade.price, self._tick)
        return max(1, int(ticks) - (not trade.buyer_is_maker and not rest))

    def _moved(self, bid: int, time_ms: int, *, snapshot: bool = False) -> BookUpdate:
        bids, asks = self._book.quote(bid, bid + 1)
        return BookUpdate(self._symbol, time_ms, bids, asks, snapshot)


def _archives(directory: Path) -> dict[str, dict[str, dict[date, Path]]]:
    """The archives of a directory by symbol, kind and day; of a day that is there twice, the unpacked one."""
    if not directory.is_dir():
        raise ArchiveInvalidError(
            f"archive: expected a directory, got {str(directory)!r}; name one that holds BTCUSDT-trades-YYYY-MM-DD.zip"
        )
    found: dict[str, dict[str, dict[date, Path]]] = {}
    for path in sorted(directory.iterdir()):
        name = ArchiveName.of(path.name)
        if name is not None:
            found.setdefault(name.symbol, {}).setdefault(name.kind, {}).setdefault(name.day, path)
    if not found:
        raise ArchiveInvalidError(
            f"archive: expected files named like BTCUSDT-trades-YYYY-MM-DD.zip in {str(directory)!r}, found none; "
            "`paper-exchange fetch` gets them"
        )
    return found


def _check_days(recordings: Mapping[str, Recording]) -> None:
    """All symbols have the same days, and none between them is missing."""
    symbol, first = next(iter(recordings.items()))
    for before, after in pairwise(first.days):
        if after - before != timedelta(days=1):
            raise ArchiveInvalidError(
                f"archive: expected {symbol} of {before + timedelta(days=1)} after that of {before}, found {after}; "
                "fetch the days between, or take the later ones away"
            )
    for other, recording in recordings.items():
        for day in sorted({*recording.days} ^ {*first.days}):
            here, there = (other, symbol) if day in first.days else (symbol, other)
            raise ArchiveInvalidError(
                f"archive: expected {here} of {day}, which {there} has, found none; fetch it, or take the other away"
            )


def _shifted(trades: Iterable[MarketTrade], shift_ms: int) -> Iterator[MarketTrade]:
    for one in trades:
        yield MarketTrade(one.symbol, one.time_ms + shift_ms, one.price, one.quantity, one.buyer_is_maker)
