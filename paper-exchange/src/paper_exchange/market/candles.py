"""Candles of one symbol at every Binance interval, from its 1 s history and its trades."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter

from paper_exchange.market.events import Candle, IntervalUnknownError, MarketTrade

KEPT = 1_000
"""Candles with trades that each interval keeps at least, and at most twice as many: as many as Binance
answers at once."""

_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_MONDAY = 4 * _DAY  # weeks begin on Mondays; 1970-01-01 was a Thursday
FIXED_INTERVALS_MS = {
    "1s": _SECOND,
    **{f"{n}m": n * _MINUTE for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * _HOUR for n in (1, 2, 4, 6, 8, 12)},
    "1d": _DAY,
    "3d": 3 * _DAY,
    "1w": 7 * _DAY,
}
INTERVALS = (*FIXED_INTERVALS_MS, "1M")
"""Every interval of Binance's klines."""

_open_time = attrgetter("open_time_ms")


def open_and_length(interval: str, time_ms: int) -> tuple[int, int]:
    """When the candle of `time_ms` opens, in ms UTC, and how many ms long it is; IntervalUnknownError."""
    if interval == "1M":
        month = datetime.fromtimestamp(time_ms // 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
        following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        opened = int(month.timestamp()) * 1000
        return opened, int(following.timestamp()) * 1000 - opened
    try:
        length = FIXED_INTERVALS_MS[interval]
    except KeyError:
        raise IntervalUnknownError(
            f"interval: expected one of {', '.join(INTERVALS)}, got {interval!r}; ask for one of these"
        ) from None
    offset = _MONDAY if interval == "1w" else 0
    return (time_ms - offset) // length * length + offset, length


class _Forming:
    """The latest candle of an interval, which trades still change."""

    __slots__ = (
        "close",
        "close_ms",
        "high",
        "length",
        "low",
        "open",
        "open_ms",
        "quote_volume",
        "taker_base",
        "taker_quote",
        "trades",
        "volume",
    )

    def __init__(self, open_ms: int, length: int, price: Decimal) -> None:
        self.open_ms = open_ms
        self.length = length
        self.close_ms = open_ms + length
        self.open = self.high = self.low = self.close = price
        self.volume = self.quote_volume = self.taker_base = self.taker_quote = Decimal(0)
        self.trades = 0

    def add(self, trade: MarketTrade, quote: Decimal) -> None:
        price = trade.price
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += trade.quantity
        self.quote_volume += quote
        self.trades += 1
        if not trade.buyer_is_maker:
            self.taker_base += trade.quantity
            self.taker_quote += quote

    def merge(self, candle: Candle) -> None:
        self.high = max(self.high, candle.high)
        self.low = min(self.low, candle.low)
        self.close = candle.close
        self.volume += candle.volume
        self.quote_volume += candle.quote_volume
        self.trades += candle.trades
        self.taker_base += candle.taker_base
        self.taker_quote += candle.taker_quote

    def candle(self) -> Candle:
        return Candle(
            open_time_ms=self.open_ms,
            interval_ms=self.length,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            quote_volume=self.quote_volume,
            trades=self.trades,
            taker_base=self.taker_base,
            taker_quote=self.taker_quote,
        )


class _Series:
    """The candles of one interval that had trades; the flat ones between them are made when asked for."""

    def __init__(self, interval: str, first: Candle) -> None:
        self.interval = interval
        self.closed: list[Candle] = []
        self.forming = _Forming(*open_and_length(interval, first.open_time_ms), first.open)

    def at(self, time_ms: int, price: Decimal) -> _Forming:
        """The candle that takes what happens at `time_ms`; what is late goes to the latest, the closed stay."""
        if time_ms >= self.forming.close_ms:
            self.closed.append(self.forming.candle())
            if len(self.closed) >= 2 * KEPT:
                del self.closed[:KEPT]
            self.forming = _Forming(*open_and_length(self.interval, time_ms), price)
        return self.forming

    def merge(self, candles: Iterable[Candle]) -> None:
        """Count shorter candles, oldest first."""
        for candle in candles:
            self.at(candle.open_time_ms, candle.open).merge(candle)

    def known(self) -> list[Candle]:
        return [*self.closed, self.forming.candle()]


class CandleBook:
    """All candles of one symbol; bounded memory, microseconds for each trade and each candle asked for."""

    def __init__(self, symbol: str, history: Sequence[Candle]) -> None:
        """`history` holds at least one 1 s candle, oldest first, as `Market.history` gives them."""
        self.symbol = symbol
        recent = history[-KEPT:]
        seconds = _Series("1s", recent[0])
        seconds.merge(recent)
        minutes = _Series("1m", history[0])
        minutes.merge(history)
        by_minute = minutes.known()
        self._series = {"1s": seconds, "1m": minutes}
        for interval in INTERVALS:
            if interval not in self._series:
                self._series[interval] = _Series(interval, by_minute[0])
                self._series[interval].merge(by_minute)
        self._second: _Forming | None = None

    def add(self, trade: MarketTrade) -> None:
        """Count a trade, ours or an outsider's; one that is late counts in the latest candle."""
        if self._second is None or trade.time_ms >= self._second.close_ms:
            self._count_second()
            self._second = _Forming(*open_and_length("1s", trade.time_ms), trade.price)
        self._second.add(trade, trade.price * trade.quantity)

    def _count_second(self) -> None:
        """The trades of a second go to all intervals at once, when it is over or somebody asks."""
        if self._second is not None:
            candle, self._second = self._second.candle(), None
            for series in self._series.values():
                series.merge([candle])

    def current(self, interval: str, now_ms: int) -> Candle:
        """The candle that forms at `now_ms`, flat when nothing was traded in it yet; IntervalUnknownError."""
        self._count_second()
        opened, length = open_and_length(interval, now_ms)
        forming = self._series[interval].forming
        if opened < forming.close_ms:
            return forming.candle()
        return _Forming(opened, length, forming.close).candle()

    def candles(
        self, interval: str, now_ms: int, start_ms: int | None = None, end_ms: int | None = None, limit: int = 500
    ) -> list[Candle]:
        """Gapless candles that open within [start_ms, end_ms], oldest first, up to the one that forms at `now_ms`.

        As on Binance: with a start the first `limit` of them, without one the last. A candle without a trade
        is flat at the close before it. IntervalUnknownError for an interval that Binance does not have.
        """
        self._count_second()
        current, _ = open_and_length(interval, now_ms)
        known = self._series[interval].known()
        oldest, newest = known[0].open_time_ms, max(current, known[-1].open_time_ms)
        last = newest if end_ms is None else min(newest, open_and_length(interval, end_ms)[0])
        if start_ms is None:
            first = last
            for _ in range(limit - 1):
                if first <= oldest:
                    break
                first, _ = open_and_length(interval, first - 1)
        else:
            opened, length = open_and_length(interval, start_ms)
            first = max(oldest, opened if opened == start_ms else opened + length)
        result: list[Candle] = []
        index = bisect_left(known, first, key=_open_time)
        while first <= last and first >= oldest and len(result) < limit:
            if index < len(known) and known[index].open_time_ms == first:
                candle = known[index]
                index += 1
            else:
                candle = _Forming(*open_and_length(interval, first), known[index - 1].close).candle()
            result.append(candle)
            first += candle.interval_ms
        return result
