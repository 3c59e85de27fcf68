"""Replays recorded Binance streams: the book by Binance's rules for a local book, the trades as they came."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from heapq import merge
from pathlib import Path
from random import Random
from typing import Any

from paper_exchange.market.events import (
    BookUpdate,
    Candle,
    CaptureInvalidError,
    MarketEvent,
    MarketTrade,
    SymbolUnknownError,
)
from paper_exchange.market.local_book import BookGapError, LocalBook
from paper_exchange.market.profiles import profile_of
from paper_exchange.market.synthetic import synthetic_history

FILE_NAME = re.compile(r"([a-z0-9]+)_\d{8}\.gz")


class CaptureMarket:
    """The recordings of a directory: files `btcusdt_YYYYMMDD.gz` of lines `<received ns> <raw JSON>`.

    A symbol's recording is its files in order of name. Its market begins with the REST depth snapshot,
    whose time becomes the start, and ends with the recording.
    """

    def __init__(
        self, directory: Path, symbols: Sequence[str], randomness: Callable[[str], Random], start_ms: int
    ) -> None:
        """`randomness` gives a new seeded generator for each name, the same one for the same name."""
        if not directory.is_dir():
            raise CaptureInvalidError(
                f"capture: expected a directory, got {str(directory)!r}; name one that holds btcusdt_YYYYMMDD.gz"
            )
        files: dict[str, list[Path]] = {}
        for path in sorted(directory.iterdir()):
            if match := FILE_NAME.fullmatch(path.name):
                files.setdefault(match[1].upper(), []).append(path)
        if not files:
            raise CaptureInvalidError(
                f"capture: expected files named like btcusdt_YYYYMMDD.gz in {str(directory)!r}, found none"
            )
        for symbol in symbols:
            if symbol not in files:
                raise SymbolUnknownError(
                    f"symbol: expected one of {', '.join(files)}, which the capture has, got {symbol!r}; "
                    "start with these symbols only"
                )
            profile_of(symbol)
        self._files = {symbol: files[symbol] for symbol in symbols}
        self._randomness = randomness
        self._start_ms = start_ms

    def events(self) -> Iterator[MarketEvent]:
        """The recorded events, read as they are asked for; CaptureInvalidError when they cannot be followed."""
        return self.play(self._start_ms)

    def play(self, start_ms: int) -> Iterator[MarketEvent]:
        """The recorded events, beginning at another time."""
        streams = [replay(symbol, files, start_ms) for symbol, files in self._files.items()]
        return merge(*streams, key=lambda event: event.time_ms)

    def history(self, symbol: str) -> list[Candle]:
        """Candles before the start: generated, for no recording has them, ending at the first recorded price."""
        events = replay(symbol, self._files[symbol], self._start_ms)
        first = next((event.price for event in events if isinstance(event, MarketTrade)), None)
        if first is None:
            raise CaptureInvalidError(f"capture: expected a trade of {symbol} after its depth snapshot, found none")
        return synthetic_history(profile_of(symbol), self._randomness(f"{symbol}/history"), first, self._start_ms)


def replay(symbol: str, files: Sequence[Path], start_ms: int) -> Iterator[MarketEvent]:
    """Events of one symbol since its depth snapshot, shifted so that the snapshot is at `start_ms`."""
    name = symbol.lower()
    book = LocalBook()
    shift_ms = 0
    for place, received_ms, message in _messages(files):
        try:
            data = message.get("data", message)
            if "lastUpdateId" in data:
                if book.update_id is None:
                    shift_ms = start_ms - received_ms
                changes = book.snapshot(data)
            elif message["stream"] == f"{name}@depth@100ms":
                changes = book.event(data)
            elif message["stream"] == f"{name}@trade" and book.update_id is not None:
                yield MarketTrade(symbol, received_ms + shift_ms, Decimal(data["p"]), Decimal(data["q"]), data["m"])
                continue
            else:
                continue
            for change in changes:
                yield BookUpdate(symbol, received_ms + shift_ms, change.bids, change.asks, change.snapshot)
        except BookGapError as error:
            raise CaptureInvalidError(
                f"{place}: {error}; cut the recording here, or add a depth snapshot after the gap"
            ) from error
        except (KeyError, TypeError, ArithmeticError, ValueError) as error:
            raise CaptureInvalidError(f"{place}: expected a Binance stream message, got another: {error!r}") from error
    if book.update_id is None:
        raise CaptureInvalidError(f"capture: expected a REST depth snapshot of {symbol} in its files, found none")


def _messages(files: Sequence[Path]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Place, receive time in ms and message of each line that matters."""
    for path in files:
        number = 0
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if "@bookTicker" in line:  # two lines of three, and the depth says the same
                        continue
                    received_ns, text = line.split(" ", 1)
                    yield f"{path.name}:{number}", int(received_ns) // 1_000_000, json.loads(text)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise CaptureInvalidError(
                f"{path.name}:{number}: expected gzipped lines `<received ns> <JSON>`, got {error}"
            ) from error
