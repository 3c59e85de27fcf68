"""Market streams: what each subscribed connection is told about trades, books, candles and tickers, and when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import text
from paper_exchange.faults.model import Subject
from paper_exchange.market.candles import open_and_length
from paper_exchange.market.tape import AggTrade
from paper_exchange.market_data import MarketData, agg_trade
from paper_exchange.server.connections import Connection
from paper_exchange.server.stream_events import (
    Event,
    average_event,
    in_microseconds,
    kline_event,
    reference_event,
    ticker_event,
    trade_event,
)
from paper_exchange.server.stream_names import Kind, Stream
from paper_exchange.venue import Venue

_TICKERS = (Kind.TICKER, Kind.MINI_TICKER, Kind.WINDOW_TICKER)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection, how it wants to be told, and the streams it named, whether they exist or not."""

    connection: Connection
    combined: bool
    microseconds: bool = False
    names: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Topic:
    """A stream somebody listens to, and what was last told on it."""

    stream: Stream
    due_ms: int
    subscribers: dict[Subscriber, None] = field(default_factory=dict)
    """In the order in which they came."""
    told_id: int = 0
    """Of a book: its last update that was told."""
    bids: set[int] = field(default_factory=set)
    asks: set[int] = field(default_factory=set)
    open_ms: int = 0
    close_ms: int = 0
    """Of candles: when the one that forms opens, and when the next does."""
    traded: set[str] = field(default_factory=set)
    """Symbols that traded since the last message."""
    told: Any = None
    """The last message, where only a change is told."""


class MarketStreams:
    """All subscriptions; told of trades and book changes by the venue, and of the passing of time by `tick`."""

    def __init__(self, venue: Venue, data: MarketData) -> None:
        self._venue = venue
        self._data = data
        self._topics: dict[str, _Topic] = {}
        self._by_symbol: dict[str, list[_Topic]] = {symbol: [] for symbol in ("", *venue.exchange.markets)}
        venue.listeners.append(self)

    # -- subscriptions -----------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, stream: Stream) -> None:
        """Tell a subscriber of a stream from now on."""
        topic = self._topics.get(stream.name)
        if topic is None:
            topic = self._topics[stream.name] = self._topic(stream, self._venue.now_ms())
            self._by_symbol[stream.symbol].append(topic)
        topic.subscribers[subscriber] = None

    def _topic(self, stream: Stream, now: int) -> _Topic:
        topic = _Topic(stream, due_ms=_next(stream, now))
        if stream.symbol:
            topic.told_id = self._venue.book_ids[stream.symbol]
        if stream.kind is Kind.KLINE:
            latest = self._venue.candles[stream.symbol].latest(stream.interval, stream.offset_ms)
            topic.open_ms, topic.close_ms = latest.open_time_ms, latest.close_time_ms + 1
        return topic

    def unsubscribe(self, subscriber: Subscriber, name: str) -> None:
        """No longer tell a subscriber of a stream."""
        topic = self._topics.get(name)
        if topic is None:
            return
        topic.subscribers.pop(subscriber, None)
        if not topic.subscribers:
            del self._topics[name]
            self._by_symbol[topic.stream.symbol].remove(topic)

    # -- what happens ------------------------------------------------------------------------------------------

    def on_print(self, trade: TradePrint) -> None:
        """A public trade: told at once; it ends the candles before it, and tickers tell of it when they are due."""
        for topic in self._by_symbol[trade.symbol]:
            if topic.stream.kind is Kind.TRADE:
                self._publish(topic, trade_event(trade))
            elif topic.stream.kind is Kind.KLINE:
                if trade.time >= topic.close_ms:
                    self._close_candle(topic, trade.time)
                topic.traded.add(trade.symbol)
        for topic in self._by_symbol[""]:
            topic.traded.add(trade.symbol)

    def on_aggregates(self, symbol: str, aggregates: Sequence[AggTrade]) -> None:
        """What was traded, by taker order and price: told at once."""
        for topic in self._by_symbol[symbol]:
            if topic.stream.kind is Kind.AGG_TRADE:
                for one in aggregates:
                    self._publish(topic, {"e": "aggTrade", "E": one.time, "s": symbol} | agg_trade(one))

    def on_book(self, symbol: str) -> None:
        """A book changed: the best prices are told at once, changed levels when they are due."""
        market = self._venue.exchange.market(symbol)
        for topic in self._by_symbol[symbol]:
            if topic.stream.kind is Kind.DEPTH:
                topic.bids |= market.bids.dirty
                topic.asks |= market.asks.dirty
            elif topic.stream.kind is Kind.BOOK_TICKER:
                best = self._data.tickers.best(symbol)
                if topic.told != best:
                    topic.told = best
                    told = dict(zip(("b", "B", "a", "A"), best, strict=True))
                    self._publish(topic, {"u": self._venue.book_ids[symbol], "s": symbol} | told)

    def _close_candle(self, topic: _Topic, now: int) -> None:
        """The first trade after a candle ends it; a candle without trades is never told of, as on Binance."""
        stream = topic.stream
        book = self._venue.candles[stream.symbol]
        ended = book.candles(stream.interval, now, topic.open_ms, topic.open_ms, 1, offset_ms=stream.offset_ms)
        for candle in ended:
            self._publish(topic, kline_event(stream, candle, now, closed=True))
        topic.open_ms, length = open_and_length(stream.interval, now, stream.offset_ms)
        topic.close_ms = topic.open_ms + length

    def tick(self, now: int) -> None:
        """Time passes: tell what is due. Call it at least every 100 ms, after the market's events."""
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for topic in list(self._topics.values()):
            if now >= topic.due_ms:
                topic.due_ms = _next(topic.stream, now)
                self._tell(topic, now, rows)

    def _tell(self, topic: _Topic, now: int, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        """Tell what is due on one stream; `rows` has the tickers that were made for others in the same moment."""
        stream = topic.stream
        if stream.kind is Kind.DEPTH:
            self._tell_depth(topic, now)
        elif stream.kind is Kind.PARTIAL_DEPTH:
            book_id = self._venue.book_ids[stream.symbol]
            if book_id != topic.told_id:
                topic.told_id = book_id
                self._publish(topic, self._data.depth(stream.symbol, stream.levels))
        elif stream.kind is Kind.KLINE:
            if topic.traded:
                topic.traded.clear()
                latest = self._venue.candles[stream.symbol].latest(stream.interval, stream.offset_ms)
                self._publish(topic, kline_event(stream, latest, now, closed=False))
        elif stream.kind is Kind.AVERAGE:
            average = self._data.average(stream.symbol, now)
            if average != topic.told:
                topic.told = average
                self._publish(topic, average_event(stream.symbol, average, now))
        elif stream.kind is Kind.REFERENCE:
            price = self._venue.exchange.market(stream.symbol).reference.value(now)
            if price != topic.told:
                topic.told = price
                self._publish(topic, reference_event(stream.symbol, price, now))
        elif stream.kind in _TICKERS:
            if stream.symbol:
                self._publish(topic, self._ticker(stream, stream.symbol, now, rows))
            elif topic.traded:
                changed = [symbol for symbol in self._venue.exchange.markets if symbol in topic.traded]
                topic.traded.clear()
                self._publish(topic, [self._ticker(stream, symbol, now, rows) for symbol in changed])

    def _ticker(self, stream: Stream, symbol: str, now: int, rows: dict[tuple[str, int], dict[str, Any]]) -> Event:
        window = stream.window_ms if stream.kind is Kind.WINDOW_TICKER else 0
        row = rows.get((symbol, window))
        if row is None:
            tickers = self._data.tickers
            row = tickers.rolling(symbol, window, now) if window else tickers.day(symbol, now)
            rows[symbol, window] = row
        return ticker_event(stream, row, now)

    def _tell_depth(self, topic: _Topic, now: int) -> None:
        """The levels that changed; an event begins with the update after the last that was told."""
        if not topic.bids and not topic.asks:
            return
        symbol = topic.stream.symbol
        market = self._venue.exchange.market(symbol)
        event = {
            "e": "depthUpdate",
            "E": now,
            "s": symbol,
            "U": topic.told_id + 1,
            "u": self._venue.book_ids[symbol],
            "b": [[text(price), text(market.bids.quantity(price))] for price in sorted(topic.bids, reverse=True)],
            "a": [[text(price), text(market.asks.quantity(price))] for price in sorted(topic.asks)],
        }
        topic.told_id = self._venue.book_ids[symbol]
        topic.bids.clear()
        topic.asks.clear()
        self._publish(topic, event)

    def _publish(self, topic: _Topic, event: Event | list[Event]) -> None:
        send(topic.subscribers, topic.stream.name, event, topic.stream.symbol)


def send(subscribers: Iterable[Subscriber], name: str, event: Event | list[Event], symbol: str = "") -> None:
    """Send an event of a stream, to each subscriber in the form it wants; each form is made once."""
    forms: dict[tuple[bool, bool], bytes] = {}
    for subscriber in subscribers:
        form = subscriber.combined, subscriber.microseconds
        message = forms.get(form)
        if message is None:
            told = in_microseconds(event) if subscriber.microseconds else event
            body = json.dumps(told, separators=(",", ":"))
            if subscriber.combined:
                body = f'{{"stream":{json.dumps(name)},"data":{body}}}'
            message = forms[form] = body.encode()
        if subscriber.connection.undisturbed:
            subscriber.connection.send(message)
        else:
            kind = "" if isinstance(event, list) else event.get("e", "")
            subscriber.connection.send_event(message, Subject(stream=name, event=kind, symbol=symbol))


def _next(stream: Stream, now: int) -> int:
    """When a stream is due after now: at whole multiples of its interval."""
    return now - now % stream.every_ms + stream.every_ms
