"""Market data as every transport answers it: symbols, books, trades, candles and average prices."""

from __future__ import annotations

from typing import Any

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import SCALE, text
from paper_exchange.endpoint import Call, Params, Route, fixed, period
from paper_exchange.market.events import Candle, IntervalUnknownError
from paper_exchange.market.tape import AggTrade, Tape
from paper_exchange.market_params import check_status, symbol_of, zone_offset
from paper_exchange.tickers import Tickers
from paper_exchange.venue import Venue


class MarketData:
    """The public endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self.tickers = Tickers(venue)
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/ping"): Route(lambda _: {}, fixed(1)),
            ("GET", "/api/v3/time"): Route(lambda call: {"serverTime": call.server_time}, fixed(1)),
            ("GET", "/api/v3/depth"): Route(self._depth, _depth_weight),
            ("GET", "/api/v3/trades"): Route(self._trades, fixed(25)),
            ("GET", "/api/v3/historicalTrades"): Route(self._historical_trades, fixed(25)),
            ("GET", "/api/v3/historicalBlockTrades"): Route(self._block_trades, fixed(25)),
            ("GET", "/api/v3/aggTrades"): Route(self._agg_trades, fixed(4)),
            ("GET", "/api/v3/klines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/uiKlines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/avgPrice"): Route(self._average, fixed(2)),
            **self.tickers.routes,
        }

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """The best levels of both sides with the update id of the book."""
        market = self._exchange.market(symbol)
        return {
            "lastUpdateId": self._venue.book_ids[symbol],
            "bids": [[text(price), text(quantity)] for price, quantity in market.bids.levels(limit)],
            "asks": [[text(price), text(quantity)] for price, quantity in market.asks.levels(limit)],
        }

    def _depth(self, call: Call) -> Any:
        symbol = symbol_of(call.params)
        check_status(call.params, self._exchange.market(symbol))
        return self.depth(symbol, call.limit(100, 5000))

    def _tape(self, call: Call) -> Tape:
        return self._venue.tapes[self._exchange.market(symbol_of(call.params)).rules.symbol]

    def _trades(self, call: Call) -> Any:
        return [_trade(one) for one in self._tape(call).trades(call.limit(500, 1000))]

    def _historical_trades(self, call: Call) -> Any:
        found = self._tape(call).trades(call.limit(500, 1000), requests.integer(call.params, "fromId"))
        return [_trade(one) for one in found]

    def _block_trades(self, call: Call) -> Any:
        """None: nobody trades blocks here."""
        self._exchange.market(symbol_of(call.params))
        requests.required(call.params, "fromId")
        return []

    def _agg_trades(self, call: Call) -> Any:
        tape = self._tape(call)
        from_id = requests.integer(call.params, "fromId")
        start, end = period(call.params)
        limit = call.limit(500, 1000)
        if from_id is not None and (start is not None or end is not None):
            raise ExchangeError(-1128, "Combination of optional parameters invalid.")
        if start is None and end is None:
            return [agg_trade(one) for one in tape.aggregates(limit, from_id)]
        return [agg_trade(one) for one in tape.aggregates_between(start, end, limit)]

    def _klines(self, call: Call) -> Any:
        book = self._venue.candles[self._exchange.market(symbol_of(call.params)).rules.symbol]
        interval = requests.required(call.params, "interval")
        start, end = period(call.params)
        limit = call.limit(500, 1000)
        try:
            found = book.candles(interval, call.now, start, end, limit, offset_ms=zone_offset(call.params))
        except IntervalUnknownError:
            raise ExchangeError(-1120, "Invalid interval.") from None
        return [_kline(candle) for candle in found]

    def _average(self, call: Call) -> Any:
        return self.average(symbol_of(call.params), call.now)

    def average(self, symbol: str, now: int) -> dict[str, Any]:
        """The average price of the last minutes, and when the last trade was."""
        market = self._exchange.market(symbol)
        last = self._venue.tapes[symbol].last_trade
        return {
            "mins": market.rules.average_minutes,
            "price": text(market.average(now) or 0),
            "closeTime": last.time if last is not None else self._venue.started_ms,
        }


def agg_trade(one: AggTrade) -> dict[str, Any]:
    """An aggregate trade, in REST's answer and in the stream alike."""
    return {
        "a": one.agg_id,
        "p": text(one.price),
        "q": text(one.quantity),
        "f": one.first_id,
        "l": one.last_id,
        "T": one.time,
        "m": one.buyer_is_maker,
        "M": True,
    }


def _depth_weight(params: Params) -> int:
    limit = requests.integer(params, "limit") or 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _trade(one: TradePrint) -> dict[str, Any]:
    return {
        "id": one.trade_id,
        "price": text(one.price),
        "qty": text(one.quantity),
        "quoteQty": text(one.price * one.quantity // SCALE),
        "time": one.time,
        "isBuyerMaker": one.buyer_is_maker,
        "isBestMatch": True,
    }


def _kline(candle: Candle) -> list[Any]:
    return [
        candle.open_time_ms,
        f"{candle.open:.8f}",
        f"{candle.high:.8f}",
        f"{candle.low:.8f}",
        f"{candle.close:.8f}",
        f"{candle.volume:.8f}",
        candle.close_time_ms,
        f"{candle.quote_volume:.8f}",
        candle.trades,
        f"{candle.taker_base:.8f}",
        f"{candle.taker_quote:.8f}",
        "0",
    ]
