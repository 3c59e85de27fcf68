"""The store: what was committed is there after any end, and damage is told."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from support.order_reports import order_report, trade_fill
from tradingbot.model import OrderStatus
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.orders.tracker import OrderTracker
from tradingbot.state.ledger import BookedFill
from tradingbot.state.store import Store, StoreCorruptError, StoreFailedError

INTENT = Intent("a", IntentKind.EXIT, ("a",), 1, 5000, "1", "0", 7)


async def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    _, order = OrderTracker().absorb(order_report("o", executed="0.00000001"), "sl")
    booked = BookedFill(trade_fill(1, quantity="0.00000001"), None)
    store = Store.open(tmp_path / "bot.db")
    await store.put_intent(INTENT)
    await store.record([replace(order, trade_ids=(1, 2))], [booked])
    await store.put("mark", {"equity": "1000.10"})
    await store.close()

    store = Store.open(tmp_path / "bot.db")
    assert await store.open_intents() == [INTENT]
    assert await store.orders(since_ms=0) == [replace(order, trade_ids=(1, 2))]
    assert await store.fills() == [booked]
    assert await store.get("mark") == {"equity": "1000.10"}
    assert await store.get("other") is None
    await store.close()


async def test_old_orders_that_are_done_are_left_in_the_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    tracker = OrderTracker()
    _, done = tracker.absorb(order_report("done", order_id=9, status=OrderStatus.FILLED, time_ms=5), "sl")
    _, working = tracker.absorb(order_report("open", order_id=8, time_ms=5), "sl")
    await store.record([done, working])

    assert await store.orders(since_ms=6) == [working]
    assert await store.highest_order_id() == 9
    await store.close()


async def test_a_done_order_whose_fills_are_missing_is_loaded_until_they_are_known(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    _, done = OrderTracker().absorb(order_report("done", status=OrderStatus.FILLED, executed="1", time_ms=5), "sl")

    await store.record([done], unsettled={"done"})
    assert await store.orders(since_ms=6) == [done]
    await store.record([done])
    assert await store.orders(since_ms=6) == []
    await store.close()


async def test_a_fill_is_recorded_once_and_stays_as_it_was_valued(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    first = BookedFill(trade_fill(1), Decimal(1))
    await store.record(fills=[first])
    await store.record(fills=[BookedFill(trade_fill(1), Decimal(2))])

    assert await store.fills() == [first]
    await store.close()


async def test_a_decided_intent_is_no_longer_open(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    await store.put_intent(INTENT)
    await store.put_intent(replace(INTENT, state=IntentState.ACKNOWLEDGED))

    assert await store.open_intents() == []
    await store.close()


def test_commits_are_synchronous_and_the_log_is_written_ahead(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")

    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store._db.close()


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bot.db").write_bytes(content)

    with pytest.raises(StoreCorruptError, match=r"bot\.db"):
        Store.open(tmp_path / "bot.db")


def test_a_store_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bot.db") as db:
        db.execute("PRAGMA user_version=99")

    with pytest.raises(StoreCorruptError, match="newer bot"):
        Store.open(tmp_path / "bot.db")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailedError, match=r"bot\.db"):
        Store.open(tmp_path / "file" / "bot.db")


async def test_the_first_failed_commit_is_remembered(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    store._db.execute("PRAGMA query_only=ON")

    with pytest.raises(StoreFailedError):
        await store.put("a", 1)
    assert store.failed is not None
    await store.close()


async def test_commits_that_are_asked_for_at_once_all_come_to_the_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db")
    try:
        for turn in range(150):
            await asyncio.gather(*(store.put_all({f"fact-{n}": turn, "shared": [n] * 3}) for n in range(8)))
        assert store.failed is None
        assert [await store.get(f"fact-{n}") for n in range(8)] == [149] * 8
    finally:
        await store.close()
