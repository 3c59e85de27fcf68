"""Recorded markets: the book follows Binance's rules, and a recording that cannot be followed says where."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core.units import to_decimal
from paper_exchange.market import open_market
from paper_exchange.market.events import (
    BookUpdate,
    CaptureInvalidError,
    MarketEvent,
    MarketTrade,
    SymbolUnknownError,
)
from support.paper import units

START_MS = 1_700_000_000_000
DATA = os.environ.get("TRADINGBOT_TEST_DATA")
needs_recording = pytest.mark.skipif(
    DATA is None or not (Path(DATA) / "market").is_dir(),
    reason="TRADINGBOT_TEST_DATA names no directory with a recorded market",
)


def snapshot(last: int, bid: str = "100.00", ask: str = "100.01") -> dict[str, Any]:
    return {"lastUpdateId": last, "bids": [[bid, "1.0"], ["99.00", "5.0"]], "asks": [[ask, "1.0"]]}


def depth(first: int, last: int, quantity: str = "2.0") -> dict[str, Any]:
    data = {"e": "depthUpdate", "U": first, "u": last, "b": [["99.50", quantity]], "a": []}
    return {"stream": "btcusdt@depth@100ms", "data": data}


def trade(price: str) -> dict[str, Any]:
    return {"stream": "btcusdt@trade", "data": {"e": "trade", "p": price, "q": "0.5", "m": True}}


def write(directory: Path, messages: Iterable[Mapping[str, Any]], name: str = "btcusdt_20240808.gz") -> None:
    """Messages received at 1000 ms, 1100 ms, and so on."""
    with gzip.open(directory / name, "wt") as file:
        for number, message in enumerate(messages):
            file.write(f"{(1000 + number * 100) * 1_000_000} {json.dumps(message)}\n")


def replayed(directory: Path) -> list[MarketEvent]:
    return list(open_market(f"capture:{directory}", ("BTCUSDT",), 1, START_MS).events())


def quantities(events: Iterable[MarketEvent]) -> list[str]:
    return [
        str(to_decimal(event.bids[0][1])) for event in events if isinstance(event, BookUpdate) and not event.snapshot
    ]


def test_the_market_begins_with_the_snapshot_at_the_start_and_ends_with_the_recording(tmp_path: Path) -> None:
    write(tmp_path, [trade("1"), snapshot(10), trade("100.00"), depth(11, 12)])
    opening, traded, changed = replayed(tmp_path)
    assert isinstance(opening, BookUpdate)
    assert opening.snapshot
    assert opening.time_ms == START_MS
    assert opening.bids == ((units("100"), units("1")), (units("99"), units("5")))
    assert traded == MarketTrade("BTCUSDT", START_MS + 100, Decimal(100), Decimal("0.5"), True)
    assert changed == BookUpdate("BTCUSDT", START_MS + 200, ((units("99.5"), units("2")),), (), False)


def test_depth_events_are_applied_from_the_one_that_spans_the_snapshot(tmp_path: Path) -> None:
    write(tmp_path, [depth(5, 8, "1"), depth(9, 12, "2"), snapshot(10), depth(13, 14, "3")])
    assert quantities(replayed(tmp_path)) == ["2", "3"]


def test_files_of_a_symbol_join_in_order_of_name(tmp_path: Path) -> None:
    write(tmp_path, [depth(11, 12, "2")], "btcusdt_20240809.gz")
    write(tmp_path, [snapshot(10)], "btcusdt_20240808.gz")
    assert quantities(replayed(tmp_path)) == ["2"]


def test_a_gap_in_the_depth_events_is_refused_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, [snapshot(10), depth(11, 12), depth(14, 15)])
    with pytest.raises(CaptureInvalidError, match=r"btcusdt_20240808\.gz:3: .* begins at update 13, got 14"):
        replayed(tmp_path)


def test_a_newer_snapshot_goes_on_after_a_gap_and_an_older_one_is_ignored(tmp_path: Path) -> None:
    messages = [snapshot(10), depth(11, 12, "1"), snapshot(9), snapshot(20), depth(15, 20, "2"), depth(21, 22, "3")]
    write(tmp_path, messages)
    events = replayed(tmp_path)
    assert quantities(events) == ["1", "3"]
    assert sum(isinstance(event, BookUpdate) and event.snapshot for event in events) == 2


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([depth(1, 2)], "expected a REST depth snapshot of BTCUSDT", id="no snapshot"),
        pytest.param([snapshot(1), {"stream": "btcusdt@trade", "data": {}}], r"\.gz:2: .*'p'", id="no price"),
        pytest.param([snapshot(1), {"other": 1}], r"\.gz:2: ", id="not a stream message"),
    ],
)
def test_a_recording_that_cannot_be_followed_is_refused(
    tmp_path: Path, messages: list[dict[str, Any]], expected: str
) -> None:
    write(tmp_path, messages)
    with pytest.raises(CaptureInvalidError, match=expected):
        replayed(tmp_path)


def test_a_recording_that_was_cut_off_is_refused_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, [snapshot(10), *(depth(n, n) for n in range(11, 200))])
    path = tmp_path / "btcusdt_20240808.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CaptureInvalidError, match=r"btcusdt_20240808\.gz:\d+: expected gzipped lines"):
        replayed(tmp_path)


def test_a_symbol_that_was_not_recorded_is_refused_with_those_that_were(tmp_path: Path) -> None:
    write(tmp_path, [snapshot(10)])
    with pytest.raises(SymbolUnknownError, match="one of BTCUSDT, which the capture has, got 'ETHUSDT'"):
        open_market(f"capture:{tmp_path}", ("BTCUSDT", "ETHUSDT"), 1, START_MS)


def test_a_directory_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureInvalidError, match="found none"):
        open_market(f"capture:{tmp_path}", ("BTCUSDT",), 1, START_MS)
    with pytest.raises(CaptureInvalidError, match="expected a directory"):
        open_market(f"capture:{tmp_path}/absent", ("BTCUSDT",), 1, START_MS)


def test_history_ends_at_the_first_recorded_trade(tmp_path: Path) -> None:
    write(tmp_path, [trade("1"), snapshot(10), trade("100.00")])
    history = open_market(f"capture:{tmp_path}", ("BTCUSDT",), 1, START_MS).history("BTCUSDT")
    assert history[-1].close == 100
    assert history[-1].close_time_ms == START_MS - 1


@needs_recording
def test_the_whole_recording_replays_in_order() -> None:
    events = list(open_market(f"capture:{Path(str(DATA)) / 'market'}", ("BTCUSDT",), 1, START_MS).events())
    assert all(before.time_ms <= after.time_ms for before, after in pairwise(events))
    assert 640_000 < events[-1].time_ms - START_MS < 660_000
    assert sum(isinstance(event, MarketTrade) for event in events) > 19_000


def test_a_capture_that_loops_begins_again_with_its_snapshot(tmp_path: Path) -> None:
    write(tmp_path, [snapshot(10), trade("100.00"), depth(11, 12)])
    market = open_market(f"capture:{tmp_path}", ("BTCUSDT",), 1, START_MS, loop=True)
    again_ms = START_MS // 60_000 * 60_000 + 60_000
    once, twice = list(islice(market.events(), 3)), list(islice(market.events(), 3, 6))
    assert [event.time_ms - START_MS for event in once] == [0, 100, 200]
    assert [event.time_ms - again_ms for event in twice] == [0, 100, 200]
    assert [replace(event, time_ms=0) for event in once] == [replace(event, time_ms=0) for event in twice]


def test_symbols_of_a_directory_are_played_at_once_each_from_its_snapshot(tmp_path: Path) -> None:
    write(tmp_path, [snapshot(10), trade("100.00"), depth(11, 12)])
    other = [snapshot(70), {**trade("3000.00"), "stream": "ethusdt@trade"}]
    write(tmp_path, [trade("1"), *other], "ethusdt_20240808.gz")
    events = list(open_market(f"capture:{tmp_path}", ("ETHUSDT", "BTCUSDT"), 1, START_MS).events())
    assert [(event.symbol, event.time_ms - START_MS, type(event)) for event in events] == [
        ("ETHUSDT", 0, BookUpdate),
        ("BTCUSDT", 0, BookUpdate),
        ("ETHUSDT", 100, MarketTrade),
        ("BTCUSDT", 100, MarketTrade),
        ("BTCUSDT", 200, BookUpdate),
    ]
