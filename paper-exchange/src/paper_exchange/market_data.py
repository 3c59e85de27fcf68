"""Market data as every transport answers it: books, trades, candles, averages and tickers of public symbols."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import SCALE, text
from paper_exchange.endpoint import Call, Params, Route, by_symbol, fixed, period
from paper_exchange.limits import Limits
from paper_exchange.market.events import Candle, IntervalUnknownError
from paper_exchange.venue import Venue

_DAY_MS: Final = 86_400_000


class MarketData:
    """The public endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self._limits = limits
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/ping"): Route(lambda _: {}, fixed(1)),
            ("GET", "/api/v3/time"): Route(lambda call: {"serverTime": call.now}, fixed(1)),
            ("GET", "/api/v3/exchangeInfo"): Route(self._exchange_info, fixed(20)),
            ("GET", "/api/v3/depth"): Route(self._depth, _depth_weight),
            ("GET", "/api/v3/trades"): Route(self._trades, fixed(25)),
            ("GET", "/api/v3/aggTrades"): Route(self._agg_trades, fixed(4)),
            ("GET", "/api/v3/klines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/uiKlines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/avgPrice"): Route(self._average, fixed(2)),
            ("GET", "/api/v3/ticker/24hr"): Route(self._per_symbol(self.ticker), by_symbol(2, 80)),
            ("GET", "/api/v3/ticker/price"): Route(self._per_symbol(self._price), by_symbol(2, 4)),
            ("GET", "/api/v3/ticker/bookTicker"): Route(self._per_symbol(self._book_ticker), by_symbol(2, 4)),
        }

    def _exchange_info(self, call: Call) -> Any:
        symbols = self._symbols(call.params)
        return {
            "timezone": "UTC",
            "serverTime": call.now,
            "rateLimits": self._limits.info(),
            "exchangeFilters": [],
            "symbols": [self._exchange.market(symbol).rules.info() for symbol in symbols],
        }

    def _symbols(self, params: Params) -> list[str]:
        """The symbols asked for by `symbol` or `symbols`, else all."""
        one = requests.text_of(params, "symbol")
        if one is not None:
            self._exchange.market(one)
            return [one]
        several = requests.text_of(params, "symbols")
        if several is None:
            return list(self._exchange.markets)
        try:
            names = json.loads(several)
        except ValueError:
            names = None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$')
        for name in names:
            self._exchange.market(name)
        return names

    def _per_symbol(self, row: Callable[[str, int], Any]) -> Callable[[Call], Any]:
        """An endpoint that answers one row for `symbol` and a list otherwise."""

        def answer(call: Call) -> Any:
            symbols = self._symbols(call.params)
            if "symbol" in call.params:
                return row(symbols[0], call.now)
            return [row(symbol, call.now) for symbol in symbols]

        return answer

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """The best levels of both sides with the update id of the book."""
        market = self._exchange.market(symbol)
        return {
            "lastUpdateId": self._venue.book_ids[symbol],
            "bids": [[text(price), text(quantity)] for price, quantity in market.bids.levels(limit)],
            "asks": [[text(price), text(quantity)] for price, quantity in market.asks.levels(limit)],
        }

    def _depth(self, call: Call) -> Any:
        return self.depth(requests.required(call.params, "symbol"), call.limit(100, 5000))

    def _prints(self, call: Call) -> list[TradePrint]:
        symbol = requests.required(call.params, "symbol")
        self._exchange.market(symbol)
        return list(self._venue.prints[symbol])

    def _trades(self, call: Call) -> Any:
        return [
            {
                "id": one.trade_id,
                "price": text(one.price),
                "qty": text(one.quantity),
                "quoteQty": text(one.price * one.quantity // SCALE),
                "time": one.time,
                "isBuyerMaker": one.buyer_is_maker,
                "isBestMatch": True,
            }
            for one in self._prints(call)[-call.limit(500, 1000) :]
        ]

    def _agg_trades(self, call: Call) -> Any:
        """Aggregate trades; here each trade is its own aggregate."""
        rows = self._prints(call)
        from_id = requests.integer(call.params, "fromId")
        start, end = period(call.params)
        rows = [
            one
            for one in rows
            if (from_id is None or one.trade_id >= from_id)
            and (start is None or one.time >= start)
            and (end is None or one.time <= end)
        ]
        limit = call.limit(500, 1000)
        rows = rows[:limit] if from_id is not None or start is not None else rows[-limit:]
        return [agg_trade(one) for one in rows]

    def _klines(self, call: Call) -> Any:
        symbol = requests.required(call.params, "symbol")
        self._exchange.market(symbol)
        interval = requests.required(call.params, "interval")
        start, end = period(call.params)
        book = self._venue.candles[symbol]
        try:
            found = book.candles(interval, call.now, start, end, call.limit(500, 1000))
        except IntervalUnknownError:
            raise ExchangeError(-1120, "Invalid interval.") from None
        return [_kline(candle) for candle in found]

    def _average(self, call: Call) -> Any:
        market = self._exchange.market(requests.required(call.params, "symbol"))
        price = market.average(call.now) or 0
        return {"mins": market.rules.average_minutes, "price": text(price), "closeTime": call.now}

    def _price(self, symbol: str, _now: int) -> Any:
        return {"symbol": symbol, "price": text(self._exchange.market(symbol).last or 0)}

    def best(self, symbol: str) -> tuple[str, str, str, str]:
        """Best bid and ask: (bid price, bid quantity, ask price, ask quantity) as texts."""
        market = self._exchange.market(symbol)
        bid = next(iter(market.bids.levels(1)), (0, 0))
        ask = next(iter(market.asks.levels(1)), (0, 0))
        return text(bid[0]), text(bid[1]), text(ask[0]), text(ask[1])

    def _book_ticker(self, symbol: str, _now: int) -> Any:
        bid, bid_quantity, ask, ask_quantity = self.best(symbol)
        return {"symbol": symbol, "bidPrice": bid, "bidQty": bid_quantity, "askPrice": ask, "askQty": ask_quantity}

    def ticker(self, symbol: str, now: int) -> dict[str, Any]:
        """The figures of the last 24 hours, as far as there are candles."""
        minutes = self._venue.candles[symbol].candles("1m", now, now - _DAY_MS, None, _DAY_MS // 60_000 + 1)
        volume = sum((candle.volume for candle in minutes), Decimal(0))
        quote = sum((candle.quote_volume for candle in minutes), Decimal(0))
        first, last = minutes[0].open, minutes[-1].close
        prints = self._venue.prints[symbol]
        bid, bid_quantity, ask, ask_quantity = self.best(symbol)
        return {
            "symbol": symbol,
            "priceChange": _eight(last - first),
            "priceChangePercent": f"{(last - first) / first * 100:.3f}",
            "weightedAvgPrice": _eight(quote / volume if volume else last),
            "prevClosePrice": _eight(first),
            "lastPrice": _eight(last),
            "lastQty": text(prints[-1].quantity if prints else 0),
            "bidPrice": bid,
            "bidQty": bid_quantity,
            "askPrice": ask,
            "askQty": ask_quantity,
            "openPrice": _eight(first),
            "highPrice": _eight(max(candle.high for candle in minutes)),
            "lowPrice": _eight(min(candle.low for candle in minutes)),
            "volume": _eight(volume),
            "quoteVolume": _eight(quote),
            "openTime": now - _DAY_MS,
            "closeTime": now,
            "firstId": prints[0].trade_id if prints else -1,
            "lastId": prints[-1].trade_id if prints else -1,
            "count": sum(candle.trades for candle in minutes),
        }


def agg_trade(one: TradePrint) -> dict[str, Any]:
    """An aggregate trade that consists of one trade."""
    return {
        "a": one.trade_id,
        "p": text(one.price),
        "q": text(one.quantity),
        "f": one.trade_id,
        "l": one.trade_id,
        "T": one.time,
        "m": one.buyer_is_maker,
        "M": True,
    }


def _depth_weight(params: Params) -> int:
    limit = requests.integer(params, "limit") or 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _eight(amount: Decimal) -> str:
    return f"{amount:.8f}"


def _kline(candle: Candle) -> list[Any]:
    return [
        candle.open_time_ms,
        _eight(candle.open),
        _eight(candle.high),
        _eight(candle.low),
        _eight(candle.close),
        _eight(candle.volume),
        candle.close_time_ms,
        _eight(candle.quote_volume),
        candle.trades,
        _eight(candle.taker_base),
        _eight(candle.taker_quote),
        "0",
    ]
