"""A recording of Binance through the exchange's core: its book shows what Binance's best prices said."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import to_decimal, to_units
from paper_exchange.market.capture import replay
from paper_exchange.market.events import BookUpdate, MarketTrade
from support.paper import START_MS, SYMBOL, units

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        DATA is None or not (Path(DATA) / "market").is_dir(),
        reason="TRADINGBOT_TEST_DATA names no directory with a recorded market",
    ),
]
MEETING_ROWS = 1072
"""Rows of the recording whose update id is the last one of a depth event; the others fall between two of them."""

Best = tuple[int, int, int, int]
"""Price and quantity of the best bid, then of the best ask."""


@dataclass(frozen=True)
class Row:
    """A recorded best price; `told` is how many depth events since the snapshot were received before it."""

    update_id: int
    best: Best
    told: int


def recorded(files: list[Path]) -> tuple[list[int], list[Row]]:
    """The last update id of each state of the recorded book, the snapshot's first, and the rows of bookTicker."""
    ids: list[int] = []
    rows: list[Row] = []
    waiting: list[int] = []
    for message in _messages(files):
        data = message.get("data", message)
        if "lastUpdateId" in data:
            ids = [data["lastUpdateId"], *(last for last in waiting if last > data["lastUpdateId"])]
        elif message["stream"].endswith("@depth@100ms"):
            (ids or waiting).append(data["u"])
        elif message["stream"].endswith("@bookTicker"):
            bid, bid_quantity, ask, ask_quantity = (units(data[name]) for name in "bBaA")
            rows.append(Row(data["u"], (bid, bid_quantity, ask, ask_quantity), len(ids)))
    return ids, rows


def _messages(files: list[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line.split(" ", 1)[1])


def replayed(files: list[Path]) -> list[Best]:
    """The best prices of the core after each book event; the trades are fed too, and change no book."""
    exchange = Exchange([SYMBOLS[SYMBOL]], START_MS)
    market = exchange.market(SYMBOL)
    states: list[Best] = []
    for event in replay(SYMBOL, files, START_MS):
        if isinstance(event, MarketTrade):
            exchange.on_trade(
                SYMBOL, to_units(event.price), to_units(event.quantity), event.buyer_is_maker, event.time_ms
            )
        elif isinstance(event, BookUpdate):
            exchange.on_book(SYMBOL, event.bids, event.asks, event.snapshot, event.time_ms)
            states.append((*market.bids.levels(1)[0], *market.asks.levels(1)[0]))
        exchange.take_outputs()
    return states


def test_the_rebuilt_book_equals_the_recorded_best_prices_wherever_their_update_ids_meet() -> None:
    files = sorted((Path(DATA or "") / "market").glob("btcusdt_*.gz"))
    ids, rows = recorded(files)
    states = replayed(files)
    assert len(states) == len(ids)
    by_id = dict(zip(ids, states, strict=True))

    meeting = [row for row in rows if row.update_id in by_id]
    assert [row for row in meeting if by_id[row.update_id] != row.best] == []
    assert len(meeting) == MEETING_ROWS

    between = [(row.best, states[row.told - 1]) for row in rows if row.update_id not in by_id and row.told]
    tick = SYMBOLS[SYMBOL].tick
    apart = [max(abs(told[0] - ours[0]), abs(told[2] - ours[2])) // tick for told, ours in between]
    equal = sum(told == ours for told, ours in between)
    print(
        f"{len(rows)} rows: {len(meeting)} meet the book and equal it; {len(between)} fall between two depth events: "
        f"{equal} equal the last one, {sum(not ticks for ticks in apart) - equal} differ in quantity only, "
        f"{sum(ticks > 0 for ticks in apart)} in price, by {sorted(apart)[len(apart) // 2]} ticks in the median and "
        f"{max(apart)} ticks ({to_decimal(max(apart) * tick)}) at most; "
        f"{len(rows) - len(meeting) - len(between)} came before the snapshot"
    )
