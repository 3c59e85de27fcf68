"""Names of market streams: which there are, and what each asks for."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from paper_exchange.market.candles import INTERVALS
from paper_exchange.market_params import parse_window

_FAST_MS, _SLOW_MS, _KLINE_MS = 100, 1000, 2000
_NAME: Final = re.compile(r"([a-z0-9]+)@([A-Za-z0-9_]+)(?:@([A-Za-z0-9+:]+))?")
_ALL: Final = re.compile(r"!(miniTicker|ticker_(?:1h|4h|1d))@arr(?:@1000ms)?")
_SPEEDS: Final = {None: _SLOW_MS, "1000ms": _SLOW_MS, "100ms": _FAST_MS}
_EAST: Final = "+08:00"
"""The one time zone that candles are told in besides UTC."""
_EAST_MS: Final = 8 * 3_600_000


class Kind(Enum):
    """What a stream tells."""

    TRADE = "trade"
    AGG_TRADE = "aggTrade"
    KLINE = "kline"
    BOOK_TICKER = "bookTicker"
    MINI_TICKER = "miniTicker"
    TICKER = "ticker"
    WINDOW_TICKER = "ticker_"
    AVERAGE = "avgPrice"
    REFERENCE = "referencePrice"
    DEPTH = "depth"
    PARTIAL_DEPTH = "depth5, depth10, depth20"


_PLAIN: Final = {
    kind.value: kind for kind in Kind if kind not in (Kind.KLINE, Kind.WINDOW_TICKER, Kind.DEPTH, Kind.PARTIAL_DEPTH)
}
_LEVELS: Final = {"depth5": 5, "depth10": 10, "depth20": 20}
_WINDOWS: Final = {f"ticker_{size}": size for size in ("1h", "4h", "1d")}


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: its symbol, "" for all, what it tells, and at most how often, in ms."""

    name: str
    symbol: str
    kind: Kind
    every_ms: int = _SLOW_MS
    interval: str = ""
    """Of candles, or the size of a ticker's window."""
    offset_ms: int = 0
    """What the clocks of the candles' time zone are ahead of UTC."""
    levels: int = 0

    @property
    def window_ms(self) -> int:
        """The length of a ticker's window."""
        return parse_window(self.interval)


def parse_stream(name: str, symbols: Collection[str]) -> Stream | None:
    """The stream of a name such as `btcusdt@kline_1m`, or None for one that does not exist here."""
    everything = _ALL.fullmatch(name)
    if everything is not None:
        return _ticker(name, "", everything[1])
    match = _NAME.fullmatch(name)
    if match is None or match[1].upper() not in symbols:
        return None
    symbol, what, suffix = match[1].upper(), match[2], match[3]
    if what == "depth" or what in _LEVELS:
        if suffix not in _SPEEDS:
            return None
        kind = Kind.DEPTH if what == "depth" else Kind.PARTIAL_DEPTH
        return Stream(name, symbol, kind, _SPEEDS[suffix], levels=_LEVELS.get(what, 0))
    interval = what.removeprefix("kline_")
    if interval != what and interval in INTERVALS and suffix in (None, _EAST):
        every = _SLOW_MS if interval == "1s" else _KLINE_MS
        return Stream(name, symbol, Kind.KLINE, every, interval, _EAST_MS if suffix else 0)
    return _ticker(name, symbol, what) if suffix is None else None


def _ticker(name: str, symbol: str, what: str) -> Stream | None:
    if what in _WINDOWS:
        return Stream(name, symbol, Kind.WINDOW_TICKER, interval=_WINDOWS[what])
    return Stream(name, symbol, _PLAIN[what]) if what in _PLAIN else None
