"""What was traded on one symbol: its last public trades and their aggregates, in bounded memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

from paper_exchange.core.state import TradePrint

KEPT = 10_000
"""Trades, and aggregates, that are kept of a symbol: older ones are not answered."""
_SLACK = 1_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AggTrade:
    """The fills of one taker order at one price; amounts in units."""

    agg_id: int
    price: int
    quantity: int
    first_id: int
    last_id: int
    time: int
    buyer_is_maker: bool


class _Recent(Generic[_T]):
    """The last entries, with rising ids and times."""

    def __init__(self, ident: Callable[[_T], int]) -> None:
        self._ident = ident
        self.entries: list[_T] = []

    def append(self, entry: _T) -> None:
        self.entries.append(entry)
        if len(self.entries) >= KEPT + _SLACK:
            del self.entries[:_SLACK]

    def last(self, limit: int) -> list[_T]:
        return self.entries[-limit:]

    def from_id(self, ident: int, limit: int) -> list[_T]:
        first = bisect_left(self.entries, ident, key=self._ident)
        return self.entries[first : first + limit]


class Tape:
    """The trades of a symbol; told of them one input of the exchange at a time."""

    def __init__(self, next_agg_id: int) -> None:
        self._next_agg_id = next_agg_id
        self._trades: _Recent[TradePrint] = _Recent(attrgetter("trade_id"))
        self._aggregates: _Recent[AggTrade] = _Recent(attrgetter("agg_id"))

    def add(self, trades: Iterable[TradePrint]) -> list[AggTrade]:
        """Count the trades of one input; returns what they are together.

        As on Binance: trades of one taker order at one price and time are one aggregate.
        """
        made = []
        for _, group in groupby(trades, key=lambda one: (one.taker, one.price, one.buyer_is_maker, one.time)):
            fills = list(group)
            for one in fills:
                self._trades.append(one)
            aggregate = _aggregate(self._next_agg_id, fills)
            self._next_agg_id += 1
            self._aggregates.append(aggregate)
            made.append(aggregate)
        return made

    @property
    def last_trade(self) -> TradePrint | None:
        """The last trade, if there was one since the start."""
        return self._trades.entries[-1] if self._trades.entries else None

    def trades(self, limit: int, from_id: int | None = None) -> list[TradePrint]:
        """The last trades, or the first from an id on; oldest first."""
        return self._trades.last(limit) if from_id is None else self._trades.from_id(from_id, limit)

    def aggregates(self, limit: int, from_id: int | None = None) -> list[AggTrade]:
        """The last aggregates, or the first from an id on; oldest first."""
        return self._aggregates.last(limit) if from_id is None else self._aggregates.from_id(from_id, limit)

    def aggregates_between(self, start_ms: int | None, end_ms: int | None, limit: int) -> list[AggTrade]:
        """Aggregates within [start, end], oldest first: with a start the first of them, else the last."""
        entries = self._aggregates.entries
        first = 0 if start_ms is None else bisect_left(entries, start_ms, key=attrgetter("time"))
        after = len(entries) if end_ms is None else bisect_left(entries, end_ms + 1, key=attrgetter("time"))
        found = entries[first:after]
        return found[-limit:] if start_ms is None else found[:limit]


def _aggregate(agg_id: int, fills: Sequence[TradePrint]) -> AggTrade:
    first = fills[0]
    return AggTrade(
        agg_id=agg_id,
        price=first.price,
        quantity=sum(one.quantity for one in fills),
        first_id=first.trade_id,
        last_id=fills[-1].trade_id,
        time=first.time,
        buyer_is_maker=first.buyer_is_maker,
    )
