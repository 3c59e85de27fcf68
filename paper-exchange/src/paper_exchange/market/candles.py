"""Candles of one symbol at every Binance interval and in every time zone, from its 1 s history and its trades."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter

from paper_exchange.market.events import Candle, IntervalUnknownError, MarketTrade

KEPT = 1_000
"""Candles with trades that each interval keeps: as many as Binance answers at once."""
_SLACK = 100
_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_KEPT_OF = {"1m": 7 * _DAY // _MINUTE + 2}
"""The windows of tickers, at most a week, begin with minutes."""
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


def open_and_length(interval: str, time_ms: int, offset_ms: int = 0) -> tuple[int, int]:
    """When the candle of `time_ms` opens, in ms UTC, and how many ms long it is; IntervalUnknownError.

    `offset_ms` is what the clocks of the time zone are ahead of UTC: days begin at its midnight.
    """
    local_ms = time_ms + offset_ms
    if interval == "1M":
        month = datetime.fromtimestamp(local_ms // 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
        following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        opened = int(month.timestamp()) * 1000
        return opened - offset_ms, int(following.timestamp()) * 1000 - opened
    try:
        length = FIXED_INTERVALS_MS[interval]
    except KeyError:
        raise IntervalUnknownError(
            f"interval: expected one of {', '.join(INTERVALS)}, got {interval!r}; ask for one of these"
        ) from None
    anchor = _MONDAY if interval == "1w" else 0
    return (local_ms - anchor) // length * length + anchor - offset_ms, length


def _source(interval: str, offset_ms: int) -> str:
    """The interval, in UTC, whose candles make up those of an interval in a time zone: itself where both agree."""
    length = FIXED_INTERVALS_MS.get(interval, _DAY)
    if interval in FIXED_INTERVALS_MS and offset_ms % length == 0:
        return interval
    fitting = (one for one, ms in FIXED_INTERVALS_MS.items() if length % ms == offset_ms % ms == 0 and ms < length)
    return max(fitting, key=FIXED_INTERVALS_MS.__getitem__) if offset_ms else interval


class _Forming:
    """A candle that still changes."""

    __slots__ = (
        "close",
        "close_ms",
        "first_id",
        "high",
        "last_id",
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
        self.first_id = self.last_id = -1

    def add(self, trade: MarketTrade) -> None:
        price = trade.price
        quote = price * trade.quantity
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += trade.quantity
        self.quote_volume += quote
        self.trades += 1
        if not trade.buyer_is_maker:
            self.taker_base += trade.quantity
            self.taker_quote += quote
        self._span(trade.trade_id, trade.trade_id)

    def merge(self, candle: Candle) -> None:
        self.high = max(self.high, candle.high)
        self.low = min(self.low, candle.low)
        self.close = candle.close
        self.volume += candle.volume
        self.quote_volume += candle.quote_volume
        self.trades += candle.trades
        self.taker_base += candle.taker_base
        self.taker_quote += candle.taker_quote
        self._span(candle.first_id, candle.last_id)

    def _span(self, first_id: int, last_id: int) -> None:
        if first_id >= 0:
            self.first_id = first_id if self.first_id < 0 else self.first_id
            self.last_id = last_id

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
            first_id=self.first_id,
            last_id=self.last_id,
        )


class _Series:
    """The candles of one interval that had trades; the flat ones between them are made when asked for."""

    def __init__(self, interval: str, first: Candle, offset_ms: int = 0) -> None:
        self.interval = interval
        self.offset_ms = offset_ms
        self.closed: list[Candle] = []
        self.forming = _Forming(*open_and_length(interval, first.open_time_ms, offset_ms), first.open)
        self._kept = _KEPT_OF.get(interval, KEPT)

    def at(self, time_ms: int, price: Decimal) -> _Forming:
        """The candle that takes what happens at `time_ms`; what is late goes to the latest, the closed stay."""
        if time_ms >= self.forming.close_ms:
            self.closed.append(self.forming.candle())
            if len(self.closed) >= self._kept + _SLACK:
                del self.closed[:_SLACK]
            self.forming = _Forming(*open_and_length(self.interval, time_ms, self.offset_ms), price)
        return self.forming

    def merge(self, candles: Iterable[Candle]) -> None:
        """Count shorter candles, oldest first."""
        for candle in candles:
            self.at(candle.open_time_ms, candle.open).merge(candle)

    def known(self) -> list[Candle]:
        return [*self.closed, self.forming.candle()]


class CandleBook:
    """All candles of one symbol; bounded memory, microseconds for each trade and each candle asked for.

    A trade changes the candle of its second alone; the longer intervals count whole seconds, when they are over.
    """

    def __init__(self, symbol: str, history: Sequence[Candle], next_trade_id: int = 0) -> None:
        """`history` holds at least one 1 s candle, oldest first, as `Market.history` gives them; minutes may precede.

        Its trades get the ids before `next_trade_id`, where there are enough of them.
        """
        self.symbol = symbol
        numbered = list(_numbered(history, next_trade_id))
        self._seconds = _Series("1s", numbered[0])
        self._seconds.merge(candle for candle in numbered[-KEPT:] if candle.interval_ms == _SECOND)
        minutes = _Series("1m", numbered[0])
        minutes.merge(numbered[:-1])
        by_minute = minutes.known()
        self._longer = {"1m": minutes}
        for interval in INTERVALS:
            if interval not in ("1s", "1m"):
                self._longer[interval] = _Series(interval, by_minute[0])
                self._longer[interval].merge(by_minute)

    def add(self, trade: MarketTrade) -> None:
        """Count a trade, ours or an outsider's; one that is late counts in the latest second."""
        if trade.time_ms >= self._seconds.forming.close_ms:
            over = (self._seconds.forming.candle(),)
            for series in self._longer.values():
                series.merge(over)
        self._seconds.at(trade.time_ms, trade.price).add(trade)

    def _known(self, interval: str, offset_ms: int) -> list[Candle]:
        """The candles with trades of an interval in a time zone, with the second that is not over; oldest first."""
        if interval == "1s":
            return self._seconds.known()
        source = _source(interval, offset_ms)
        known = self._longer[source].known()
        known += _joined(source, 0, [known.pop(), self._seconds.forming.candle()])
        return known if source == interval else _joined(interval, offset_ms, known)

    def current(self, interval: str, now_ms: int, offset_ms: int = 0) -> Candle:
        """The candle that forms at `now_ms`, flat when nothing was traded in it yet; IntervalUnknownError."""
        opened, length = open_and_length(interval, now_ms, offset_ms)
        latest = self.latest(interval, offset_ms)
        return latest if opened <= latest.open_time_ms else _Forming(opened, length, latest.close).candle()

    def latest(self, interval: str, offset_ms: int = 0) -> Candle:
        """The last candle in which something was traded; IntervalUnknownError."""
        second = self._seconds.forming.candle()
        if interval == "1s":
            return second
        series = self._longer[_source(interval, offset_ms)]
        opened, _ = open_and_length(interval, second.open_time_ms, offset_ms)
        before = series.closed[bisect_left(series.closed, opened, key=_open_time) :]
        return _joined(interval, offset_ms, [*before, series.forming.candle(), second])[-1]

    def candles(
        self,
        interval: str,
        now_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 500,
        *,
        offset_ms: int = 0,
    ) -> list[Candle]:
        """Gapless candles that open within [start_ms, end_ms], oldest first, up to the one that forms at `now_ms`.

        As on Binance: with a start the first `limit` of them, without one the last. A candle without a trade
        is flat at the close before it. IntervalUnknownError for an interval that Binance does not have.
        """
        current, _ = open_and_length(interval, now_ms, offset_ms)
        known = self._known(interval, offset_ms)
        oldest, newest = known[0].open_time_ms, max(current, known[-1].open_time_ms)
        last = newest if end_ms is None else min(newest, open_and_length(interval, end_ms, offset_ms)[0])
        if start_ms is None:
            first = last
            for _ in range(limit - 1):
                if first <= oldest:
                    break
                first, _ = open_and_length(interval, first - 1, offset_ms)
        else:
            opened, length = open_and_length(interval, start_ms, offset_ms)
            first = max(oldest, opened if opened == start_ms else opened + length)
        result: list[Candle] = []
        index = bisect_left(known, first, key=_open_time)
        while first <= last and first >= oldest and len(result) < limit:
            if index < len(known) and known[index].open_time_ms == first:
                candle = known[index]
                index += 1
            else:
                candle = _Forming(*open_and_length(interval, first, offset_ms), known[index - 1].close).candle()
            result.append(candle)
            first += candle.interval_ms
        return result


def _joined(interval: str, offset_ms: int, candles: Sequence[Candle]) -> list[Candle]:
    """Shorter candles as those of an interval in a time zone, oldest first."""
    series = _Series(interval, candles[0], offset_ms)
    series.merge(candles)
    return series.known()


def _numbered(history: Sequence[Candle], next_trade_id: int) -> Iterator[Candle]:
    """History whose trades have the ids that lead up to the next one."""
    last_id = next_trade_id - sum(candle.trades for candle in history) - 1
    for candle in history:
        first_id, last_id = last_id + 1, last_id + candle.trades
        if candle.trades and first_id >= 0:
            yield _with_ids(candle, first_id, last_id)
        else:
            yield candle


def _with_ids(candle: Candle, first_id: int, last_id: int) -> Candle:
    return Candle(
        candle.open_time_ms,
        candle.interval_ms,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote_volume,
        candle.trades,
        candle.taker_base,
        candle.taker_quote,
        first_id,
        last_id,
    )
