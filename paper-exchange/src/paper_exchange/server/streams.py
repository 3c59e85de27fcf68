"""Market streams: what each subscribed connection is told about trades, books, candles and tickers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web

from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import text
from paper_exchange.market.candles import INTERVALS, open_and_length
from paper_exchange.market.events import Candle
from paper_exchange.market.tape import AggTrade
from paper_exchange.market_data import MarketData, agg_trade
from paper_exchange.server.outbox import Outbox
from paper_exchange.venue import Venue

_NAME = re.compile(r"([a-z0-9]+)@([A-Za-z0-9_]+)(?:@(100ms|1000ms))?")
_PARTIAL: Final = {"depth5": 5, "depth10": 10, "depth20": 20}
_PLAIN: Final = frozenset(("trade", "aggTrade", "bookTicker", "miniTicker", "ticker"))
_FAST_MS, _SLOW_MS = 100, 1000
_MAX_STREAMS: Final = 1024


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: a symbol, what it tells (`interval` for candles), and how often, in ms."""

    name: str
    symbol: str
    kind: str
    interval: str = ""
    every_ms: int = _SLOW_MS


def parse_stream(name: str, symbols: Iterable[str]) -> Stream | None:
    """The stream of a name such as `btcusdt@kline_1m`, or None for one that does not exist here."""
    match = _NAME.fullmatch(name)
    if match is None or match[1].upper() not in symbols:
        return None
    symbol, kind, speed = match[1].upper(), match[2], match[3]
    if kind == "depth" or kind in _PARTIAL:
        return Stream(name, symbol, kind, every_ms=_FAST_MS if speed == "100ms" else _SLOW_MS)
    if speed is not None:
        return None
    if kind in _PLAIN:
        return Stream(name, symbol, kind)
    interval = kind.removeprefix("kline_")
    if interval != kind and interval in INTERVALS:
        return Stream(name, symbol, "kline", interval, _SLOW_MS if interval == "1s" else 2 * _SLOW_MS)
    return None


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and the streams it wants."""

    outbox: Outbox
    combined: bool
    names: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Topic:
    """A stream somebody listens to, and what was last told on it."""

    stream: Stream
    subscribers: set[Subscriber] = field(default_factory=set)
    due_ms: int = 0
    told_id: int = 0
    bids: set[int] = field(default_factory=set)
    asks: set[int] = field(default_factory=set)
    open_ms: int = 0
    traded: bool = False


class MarketStreams:
    """All subscriptions; told of trades and book changes by the venue, and of the passing of time by `tick`."""

    def __init__(self, venue: Venue, data: MarketData) -> None:
        self._venue = venue
        self._data = data
        self._topics: dict[str, _Topic] = {}
        self._by_symbol: dict[str, list[_Topic]] = {symbol: [] for symbol in venue.exchange.markets}
        self._best: dict[str, tuple[str, str, str, str]] = {}
        venue.listeners.append(self)

    # -- subscriptions -----------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, stream: Stream) -> None:
        """Tell a subscriber of a stream from now on."""
        topic = self._topics.get(stream.name)
        if topic is None:
            now = self._venue.now_ms()
            topic = _Topic(stream, told_id=self._venue.book_ids[stream.symbol])
            topic.due_ms = now - now % stream.every_ms + stream.every_ms
            if stream.kind == "kline":
                topic.open_ms = open_and_length(stream.interval, now)[0]
            self._topics[stream.name] = topic
            self._by_symbol[stream.symbol].append(topic)
        topic.subscribers.add(subscriber)
        subscriber.names.add(stream.name)

    def unsubscribe(self, subscriber: Subscriber, name: str) -> None:
        """No longer tell a subscriber of a stream."""
        subscriber.names.discard(name)
        topic = self._topics.get(name)
        if topic is None:
            return
        topic.subscribers.discard(subscriber)
        if not topic.subscribers:
            del self._topics[name]
            self._by_symbol[topic.stream.symbol].remove(topic)

    def leave(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for name in list(subscriber.names):
            self.unsubscribe(subscriber, name)

    # -- what happens ------------------------------------------------------------------------------------------

    def on_print(self, trade: TradePrint) -> None:
        """A public trade: told at once; candles are told of it when they are due."""
        for topic in self._by_symbol[trade.symbol]:
            kind = topic.stream.kind
            if kind == "trade":
                self._publish(topic, _trade(trade))
            elif kind == "kline":
                topic.traded = True

    def on_aggregates(self, symbol: str, aggregates: Sequence[AggTrade]) -> None:
        """What was traded, by taker order and price: told at once."""
        for topic in self._by_symbol[symbol]:
            if topic.stream.kind == "aggTrade":
                for one in aggregates:
                    self._publish(topic, {"e": "aggTrade", "E": one.time, "s": symbol} | agg_trade(one))

    def on_book(self, symbol: str) -> None:
        """A book changed: the best prices are told at once, changed levels when they are due."""
        market = self._venue.exchange.market(symbol)
        for topic in self._by_symbol[symbol]:
            if topic.stream.kind == "depth":
                topic.bids |= market.bids.dirty
                topic.asks |= market.asks.dirty
            elif topic.stream.kind == "bookTicker":
                best = self._data.tickers.best(symbol)
                if self._best.get(symbol) != best:
                    self._best[symbol] = best
                    bid, bid_quantity, ask, ask_quantity = best
                    self._publish(
                        topic,
                        {
                            "u": self._venue.book_ids[symbol],
                            "s": symbol,
                            "b": bid,
                            "B": bid_quantity,
                            "a": ask,
                            "A": ask_quantity,
                        },
                    )

    def tick(self, now: int) -> None:
        """Time passes: tell what is due. Call it at least every 100 ms, after the market's events."""
        for topic in list(self._topics.values()):
            if topic.stream.kind == "kline":
                self._tick_kline(topic, now)
            elif now >= topic.due_ms:
                topic.due_ms = now - now % topic.stream.every_ms + topic.stream.every_ms
                self._tick_topic(topic, now)

    def _tick_kline(self, topic: _Topic, now: int) -> None:
        stream = topic.stream
        book = self._venue.candles[stream.symbol]
        opened, _ = open_and_length(stream.interval, now)
        if opened > topic.open_ms:
            for candle in book.candles(stream.interval, now, topic.open_ms, opened - 1, 1000):
                self._publish(topic, _kline(stream, candle, now, closed=True))
            topic.open_ms = opened
        if topic.traded and now >= topic.due_ms:
            topic.due_ms = now - now % stream.every_ms + stream.every_ms
            topic.traded = False
            self._publish(topic, _kline(stream, book.current(stream.interval, now), now, closed=False))

    def _tick_topic(self, topic: _Topic, now: int) -> None:
        stream = topic.stream
        if stream.kind == "depth":
            self._tell_depth(topic, now)
        elif stream.kind in _PARTIAL:
            book_id = self._venue.book_ids[stream.symbol]
            if book_id != topic.told_id:
                topic.told_id = book_id
                self._publish(topic, self._data.depth(stream.symbol, _PARTIAL[stream.kind]))
        elif stream.kind in ("ticker", "miniTicker"):
            self._publish(topic, _ticker(self._data.tickers.day(stream.symbol, now), stream.kind, now))

    def _tell_depth(self, topic: _Topic, now: int) -> None:
        symbol = topic.stream.symbol
        book_id = self._venue.book_ids[symbol]
        if not topic.bids and not topic.asks:
            return
        market = self._venue.exchange.market(symbol)
        event = {
            "e": "depthUpdate",
            "E": now,
            "s": symbol,
            "U": topic.told_id + 1,
            "u": book_id,
            "b": [[text(price), text(market.bids.quantity(price))] for price in sorted(topic.bids, reverse=True)],
            "a": [[text(price), text(market.asks.quantity(price))] for price in sorted(topic.asks)],
        }
        topic.told_id = book_id
        topic.bids.clear()
        topic.asks.clear()
        self._publish(topic, event)

    def _publish(self, topic: _Topic, event: dict[str, Any]) -> None:
        plain = json.dumps(event, separators=(",", ":"))
        wrapped = f'{{"stream":"{topic.stream.name}","data":{plain}}}'
        for subscriber in topic.subscribers:
            subscriber.outbox.send(wrapped if subscriber.combined else plain)


class StreamServer:
    """The handler of /ws and /stream."""

    def __init__(self, streams: MarketStreams, symbols: Iterable[str], outboxes: set[Outbox]) -> None:
        self._streams = streams
        self._symbols = tuple(symbols)
        self._outboxes = outboxes

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """One connection: `/ws/<stream>/<stream>`, `/stream?streams=<stream>/<stream>`, or none and SUBSCRIBE."""
        combined = request.path.startswith("/stream")
        asked = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
        async with Outbox.open(request, self._outboxes) as outbox:
            subscriber = Subscriber(outbox, combined)
            try:
                for name in filter(None, asked.split("/")):
                    stream = parse_stream(name, self._symbols)
                    # A name that does not exist is accepted and stays silent, as on Binance.
                    if stream is not None:
                        self._streams.subscribe(subscriber, stream)
                async for message in outbox.socket:
                    if message.type is WSMsgType.TEXT:
                        outbox.send(json.dumps(self._command(subscriber, message.data)))
            finally:
                self._streams.leave(subscriber)
        return outbox.socket

    def _command(self, subscriber: Subscriber, data: str) -> dict[str, Any]:
        try:
            frame = json.loads(data)
        except ValueError:
            return {"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}, "id": ""}
        ident = frame.get("id") if isinstance(frame, dict) else None
        method = frame.get("method") if isinstance(frame, dict) else None
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": sorted(subscriber.names), "id": ident}
        names = frame.get("params") if isinstance(frame, dict) else None
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return _refusal(ident, "Invalid request: unknown variant", method)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return _refusal(ident, "Invalid request: params must be a list of stream names", names)
        for name in names:
            if method == "UNSUBSCRIBE":
                self._streams.unsubscribe(subscriber, name)
                continue
            stream = parse_stream(name, self._symbols)
            if stream is not None and len(subscriber.names) < _MAX_STREAMS:
                self._streams.subscribe(subscriber, stream)
        return {"result": None, "id": ident}


def _refusal(ident: Any, message: str, got: Any) -> dict[str, Any]:
    return {"error": {"code": 2, "msg": f"{message}, got {got!r}"}, "id": ident}


def _trade(trade: TradePrint) -> dict[str, Any]:
    return {
        "e": "trade",
        "E": trade.time,
        "s": trade.symbol,
        "t": trade.trade_id,
        "p": text(trade.price),
        "q": text(trade.quantity),
        "T": trade.time,
        "m": trade.buyer_is_maker,
        "M": True,
    }


def _kline(stream: Stream, candle: Candle, now: int, *, closed: bool) -> dict[str, Any]:
    return {
        "e": "kline",
        "E": now,
        "s": stream.symbol,
        "k": {
            "t": candle.open_time_ms,
            "T": candle.close_time_ms,
            "s": stream.symbol,
            "i": stream.interval,
            "f": -1,
            "L": -1,
            "o": f"{candle.open:.8f}",
            "c": f"{candle.close:.8f}",
            "h": f"{candle.high:.8f}",
            "l": f"{candle.low:.8f}",
            "v": f"{candle.volume:.8f}",
            "n": candle.trades,
            "x": closed,
            "q": f"{candle.quote_volume:.8f}",
            "V": f"{candle.taker_base:.8f}",
            "Q": f"{candle.taker_quote:.8f}",
            "B": "0",
        },
    }


def _ticker(row: dict[str, Any], kind: str, now: int) -> dict[str, Any]:
    mini = {
        "e": "24hrMiniTicker",
        "E": now,
        "s": row["symbol"],
        "c": row["lastPrice"],
        "o": row["openPrice"],
        "h": row["highPrice"],
        "l": row["lowPrice"],
        "v": row["volume"],
        "q": row["quoteVolume"],
    }
    if kind == "miniTicker":
        return mini
    return mini | {
        "e": "24hrTicker",
        "p": row["priceChange"],
        "P": row["priceChangePercent"],
        "w": row["weightedAvgPrice"],
        "x": row["prevClosePrice"],
        "Q": row["lastQty"],
        "b": row["bidPrice"],
        "B": row["bidQty"],
        "a": row["askPrice"],
        "A": row["askQty"],
        "O": row["openTime"],
        "C": row["closeTime"],
        "F": row["firstId"],
        "L": row["lastId"],
        "n": row["count"],
    }
