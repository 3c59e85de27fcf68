"""Events as they are pushed: market events from what the exchange knows, and their times in microseconds."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import text
from paper_exchange.market.events import Candle
from paper_exchange.server.stream_names import Kind, Stream

Event = dict[str, Any]

_TIMES: Final[dict[str, tuple[str, ...]]] = {
    "24hrTicker": ("O", "C"),
    "1hTicker": ("O", "C"),
    "4hTicker": ("O", "C"),
    "1dTicker": ("O", "C"),
    "trade": ("T",),
    "aggTrade": ("T",),
    "avgPrice": ("T",),
    "referencePrice": ("t",),
    "executionReport": ("T", "O", "W", "D"),
    "listStatus": ("T",),
    "outboundAccountPosition": ("u",),
    "balanceUpdate": ("T",),
    "externalLockUpdate": ("T",),
}
"""Which fields of an event are times, besides E: the same letter is something else in another event."""


def in_microseconds(event: Any) -> Any:
    """An event, or a list of them, whose times are told in microseconds; -1 (not yet) stays what it is."""
    if isinstance(event, list):
        return [in_microseconds(one) for one in event]
    kind = event.get("e")
    if kind is None:
        return event
    told = dict(event)
    for name in ("E", *_TIMES.get(kind, ())):
        if isinstance(told.get(name), int) and told[name] > 0:
            told[name] *= 1000
    if kind == "kline":
        told["k"] = told["k"] | {"t": told["k"]["t"] * 1000, "T": told["k"]["T"] * 1000 + 999}
    return told


def trade_event(trade: TradePrint) -> Event:
    """One public trade; since 2024-06-18 without the ids of the orders."""
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


def kline_event(stream: Stream, candle: Candle, now: int, *, closed: bool) -> Event:
    """A candle as it stands, or as it ended."""
    return {
        "e": "kline",
        "E": now,
        "s": stream.symbol,
        "k": {
            "t": candle.open_time_ms,
            "T": candle.close_time_ms,
            "s": stream.symbol,
            "i": stream.interval,
            "f": candle.first_id,
            "L": candle.last_id,
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


def ticker_event(stream: Stream, row: dict[str, Any], now: int) -> Event:
    """A ticker of a stream's kind from the row that REST answers."""
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
    if stream.kind is Kind.MINI_TICKER:
        return mini
    window = mini | {
        "e": f"{stream.interval}Ticker",
        "p": row["priceChange"],
        "P": row["priceChangePercent"],
        "w": row["weightedAvgPrice"],
        "O": row["openTime"],
        "C": row["closeTime"],
        "F": row["firstId"],
        "L": row["lastId"],
        "n": row["count"],
    }
    if stream.kind is Kind.WINDOW_TICKER:
        return window
    return window | {
        "e": "24hrTicker",
        "x": row["prevClosePrice"],
        "Q": row["lastQty"],
        "b": row["bidPrice"],
        "B": row["bidQty"],
        "a": row["askPrice"],
        "A": row["askQty"],
    }


def average_event(symbol: str, average: dict[str, Any], now: int) -> Event:
    """The average price, from REST's answer."""
    return {
        "e": "avgPrice",
        "E": now,
        "s": symbol,
        "i": f"{average['mins']}m",
        "w": average["price"],
        "T": average["closeTime"],
    }


def reference_event(symbol: str, price: int | None, now: int) -> Event:
    """The reference price in units; null while no trade of the window tells one."""
    return {"e": "referencePrice", "s": symbol, "r": None if price is None else text(price), "t": now}
