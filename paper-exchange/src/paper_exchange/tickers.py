"""Tickers: best prices, last prices, and how a symbol moved within a window of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.units import text
from paper_exchange.endpoint import Call, Params, Route, by_symbol
from paper_exchange.market.candles import open_and_length
from paper_exchange.market.events import Candle
from paper_exchange.market_params import listed, symbols_of, window_of, zone_offset
from paper_exchange.venue import Venue

_MINUTE_MS, _HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
_MINUTES_OF_AN_HOUR: Final = 60
_HOURS_OF_A_WEEK: Final = 7 * 24 + 1
_MINI: Final = (
    "symbol",
    "openPrice",
    "highPrice",
    "lowPrice",
    "lastPrice",
    "volume",
    "quoteVolume",
    "openTime",
    "closeTime",
    "firstId",
    "lastId",
    "count",
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a window of candles says together; the ids are -1 where nothing was traded."""

    open: Decimal
    high: Decimal
    low: Decimal
    last: Decimal
    volume: Decimal
    quote_volume: Decimal
    first_id: int
    last_id: int
    count: int

    @classmethod
    def of(cls, candles: Sequence[Candle]) -> Figures:
        """The figures of at least one candle, oldest first."""
        traded = [candle for candle in candles if candle.trades] or candles[-1:]
        return cls(
            open=traded[0].open,
            high=max(candle.high for candle in traded),
            low=min(candle.low for candle in traded),
            last=traded[-1].close,
            volume=sum((candle.volume for candle in traded), Decimal(0)),
            quote_volume=sum((candle.quote_volume for candle in traded), Decimal(0)),
            first_id=traded[0].first_id,
            last_id=traded[-1].last_id,
            count=sum(candle.trades for candle in traded),
        )


class Tickers:
    """The ticker endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/ticker/24hr"): Route(self._day, _day_weight),
            ("GET", "/api/v3/ticker/tradingDay"): Route(self._trading_day, _four_each),
            ("GET", "/api/v3/ticker"): Route(self._rolling, _four_each),
            ("GET", "/api/v3/ticker/price"): Route(self._prices, by_symbol(2, 4)),
            ("GET", "/api/v3/ticker/bookTicker"): Route(self._book_tickers, by_symbol(2, 4)),
        }

    # -- figures -----------------------------------------------------------------------------------------------

    def window(self, symbol: str, start_ms: int, now: int) -> Figures:
        """The figures of the minutes that begin since a time, at most a week ago, as far as there are candles."""
        book = self._venue.candles[symbol]
        whole = -(-start_ms // _HOUR_MS) * _HOUR_MS
        minutes = book.candles("1m", now, start_ms, whole - 1, _MINUTES_OF_AN_HOUR)
        return Figures.of([*minutes, *book.candles("1h", now, whole, None, _HOURS_OF_A_WEEK)])

    def day(self, symbol: str, now: int) -> dict[str, Any]:
        """The figures of the last 24 hours."""
        figures = self.window(symbol, now - DAY_MS, now)
        last = self._venue.tapes[symbol].last_trade
        bid, bid_quantity, ask, ask_quantity = self.best(symbol)
        row = _row(symbol, figures, now - DAY_MS, now)
        return row | {
            "prevClosePrice": row["openPrice"],
            "lastQty": text(last.quantity if last is not None else 0),
            "bidPrice": bid,
            "bidQty": bid_quantity,
            "askPrice": ask,
            "askQty": ask_quantity,
        }

    def rolling(self, symbol: str, window_ms: int, now: int) -> dict[str, Any]:
        """The figures of a window that begins with a minute, as those of Binance."""
        start = (now - window_ms) // _MINUTE_MS * _MINUTE_MS
        return _row(symbol, self.window(symbol, start, now), start, now)

    def best(self, symbol: str) -> tuple[str, str, str, str]:
        """Best bid and ask: (bid price, bid quantity, ask price, ask quantity) as texts."""
        market = self._exchange.market(symbol)
        bid = next(iter(market.bids.levels(1)), (0, 0))
        ask = next(iter(market.asks.levels(1)), (0, 0))
        return text(bid[0]), text(bid[1]), text(ask[0]), text(ask[1])

    # -- endpoints ---------------------------------------------------------------------------------------------

    def _per_symbol(self, call: Call, row: Callable[[str], Any], *, needed: bool = False) -> Any:
        """One row for `symbol`, and a list for `symbols`, or where neither is needed for all of them."""
        if needed and not call.params.get("symbol") and not call.params.get("symbols"):
            raise ExchangeError(-1102, "Param 'symbol' or 'symbols' must be sent, but both were empty/null!")
        rows = [row(symbol) for symbol in symbols_of(call.params, self._exchange)]
        return rows[0] if "symbol" in call.params else rows

    def _day(self, call: Call) -> Any:
        shape = _shape(call.params)
        return self._per_symbol(call, lambda symbol: shape(self.day(symbol, call.now)))

    def _trading_day(self, call: Call) -> Any:
        shape = _shape(call.params)
        offset = zone_offset(call.params)
        opened, length = open_and_length("1d", call.now, offset)

        def row(symbol: str) -> Any:
            today = self._venue.candles[symbol].current("1d", call.now, offset)
            return shape(_row(symbol, Figures.of([today]), opened, opened + length - 1))

        return self._per_symbol(call, row, needed=True)

    def _rolling(self, call: Call) -> Any:
        shape = _shape(call.params)
        window_ms = window_of(call.params)
        return self._per_symbol(call, lambda symbol: shape(self.rolling(symbol, window_ms, call.now)), needed=True)

    def _prices(self, call: Call) -> Any:
        def row(symbol: str) -> Any:
            return {"symbol": symbol, "price": text(self._exchange.market(symbol).last or 0)}

        return self._per_symbol(call, row)

    def _book_tickers(self, call: Call) -> Any:
        def row(symbol: str) -> Any:
            bid, bid_quantity, ask, ask_quantity = self.best(symbol)
            return {"symbol": symbol, "bidPrice": bid, "bidQty": bid_quantity, "askPrice": ask, "askQty": ask_quantity}

        return self._per_symbol(call, row)


def _count(params: Params) -> int | None:
    """How many symbols are asked for; None for all of them."""
    if "symbol" in params:
        return 1
    return len(listed(params["symbols"])) if "symbols" in params else None


def _day_weight(params: Params) -> int:
    count = _count(params)
    return 80 if count is None or count > 100 else 40 if count > 20 else 2


def _four_each(params: Params) -> int:
    return min(4 * (_count(params) or 1), 200)


def _shape(params: Params) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What the parameter `type` makes of a ticker: all of it, or the few fields of MINI."""
    kind = requests.text_of(params, "type")
    if kind not in (None, "FULL", "MINI"):
        raise ExchangeError(-1139, "Invalid ticker type.")
    return (lambda row: {name: row[name] for name in _MINI}) if kind == "MINI" else (lambda row: row)


def _row(symbol: str, figures: Figures, open_ms: int, close_ms: int) -> dict[str, Any]:
    change = figures.last - figures.open
    return {
        "symbol": symbol,
        "priceChange": f"{change:.8f}",
        "priceChangePercent": f"{change / figures.open * 100:.3f}",
        "weightedAvgPrice": f"{figures.quote_volume / figures.volume if figures.volume else Decimal(0):.8f}",
        "openPrice": f"{figures.open:.8f}",
        "highPrice": f"{figures.high:.8f}",
        "lowPrice": f"{figures.low:.8f}",
        "lastPrice": f"{figures.last:.8f}",
        "volume": f"{figures.volume:.8f}",
        "quoteVolume": f"{figures.quote_volume:.8f}",
        "openTime": open_ms,
        "closeTime": close_ms,
        "firstId": figures.first_id,
        "lastId": figures.last_id,
        "count": figures.count,
    }
