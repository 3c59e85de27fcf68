"""The store: what was committed is there after any end, and damage is told."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from support.ledgers import fold
from support.order_reports import order_report, trade_fill
from support.silent_disk import silent_disk
from support.waiting import until
from tradingbot.model import OrderStatus, Side
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.orders.tracker import MOST_DONE, OrderTracker
from tradingbot.state.ledger import BookedFill, LedgerState, extend
from tradingbot.state.store import (
    SCHEMA_VERSION,
    Store,
    StoreCorruptError,
    StoreFailedError,
    StoreVersionError,
    set_aside_store,
)

VERSION_1 = Path(__file__).parents[1] / "support" / "store_version_1.sql"
OWN = "tb-nxmqn3thil-0spn400"
INTENT = Intent("a", IntentKind.EXIT, ("a",), 1, 5000, "1", "0", 7)


async def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    _, order = OrderTracker().absorb(order_report("o", executed="0.00000001"), "sl")
    booked = BookedFill(trade_fill(1, quantity="0.00000001"), None)
    path = tmp_path / "not" / "there" / "bot.db"
    store = Store.open(path)
    await store.put_intent(INTENT)
    await store.put_intent(unknown := replace(INTENT, client_id="b", state=IntentState.UNKNOWN))
    await store.record([replace(order, trade_ids=(1, 2))], [booked])
    await store.put("mark", {"equity": Decimal("0.00000010")})
    await store.close()

    store = Store.open(path)
    assert await store.open_intents() == [INTENT, unknown]
    assert await store.orders(since_ms=0) == [replace(order, trade_ids=(1, 2))]
    assert await store.fills() == [booked]
    assert await store.get("mark") == {"equity": "0.00000010"}
    assert await store.get("other") is None
    await store.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_a_snapshot_has_what_was_committed_and_changes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bot.db"
    with pytest.raises(StoreFailedError, match=r"cannot read .*bot\.db: unable to open"):
        Store.snapshot(path)
    assert contents(tmp_path) == {}

    store = Store.open(path)
    await store.put("mark", 1)
    running = Store.snapshot(path)
    assert await running.get("mark") == 1
    await running.put("mark", 2)
    await running.close()
    assert await store.get("mark") == 1
    await store.close()

    before = contents(tmp_path)
    ended = Store.snapshot(path)
    assert await ended.get("mark") == 1
    await ended.put("mark", 2)
    await ended.close()
    assert contents(tmp_path) == before


async def test_a_snapshot_reads_the_log_of_a_process_that_was_killed_and_leaves_it(tmp_path: Path) -> None:
    (running := tmp_path / "running").mkdir()
    (left := tmp_path / "left").mkdir()
    store = Store.open(running / "bot.db")
    await store.put("mark", 1)
    for name in ("bot.db", "bot.db-wal"):
        shutil.copy(running / name, left)
    await store.close()
    before = contents(left)

    snapshot = Store.snapshot(left / "bot.db")
    assert await snapshot.get("mark") == 1
    await snapshot.close()
    assert contents(left).items() >= before.items()


async def test_a_snapshot_of_a_former_version_is_brought_up_to_date_and_the_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "bot.db"
    with closing(sqlite3.connect(path)) as former:
        former.executescript(VERSION_1.read_text())
    before = path.read_bytes()
    snapshot = Store.snapshot(path)
    assert await snapshot.highest_order_id() > 0
    await snapshot.close()
    assert path.read_bytes() == before


async def test_old_orders_that_are_done_are_left_in_the_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    tracker = OrderTracker()
    _, done = tracker.absorb(order_report("the-done", order_id=9, status=OrderStatus.FILLED, time_ms=5), "sl")
    _, working = tracker.absorb(order_report("open", order_id=8, time_ms=5), "sl")
    await store.record([done, working])

    assert await store.orders(since_ms=6) == [working]
    assert (await store.highest_order_id(), await store.newest_order()) == (9, done)
    await store.close()


async def test_an_order_that_the_exchange_has_not_numbered_is_not_taken_for_one_that_was_sent(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    assert await store.newest_order() is None
    _, order = OrderTracker().absorb(order_report("o"), "sl")
    await store.record([replace(order, order_id=None)])
    assert await store.highest_order_id() == 0
    await store.close()


async def test_a_done_order_whose_fills_are_missing_is_loaded_until_they_are_known(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    _, done = OrderTracker().absorb(order_report("done", status=OrderStatus.FILLED, executed="1", time_ms=5), "sl")

    await store.record([done], unsettled={"done"})
    assert await store.orders(since_ms=6) == [done]
    await store.record([done])
    assert await store.orders(since_ms=6) == []
    await store.close()


async def test_no_more_done_orders_are_loaded_than_are_remembered(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    tracker = OrderTracker()
    for number in range(MOST_DONE + 50):
        status = OrderStatus.NEW if number == 3 else OrderStatus.FILLED
        tracker.absorb(order_report(f"o-{number:04}", order_id=number + 1, status=status, time_ms=number), "sl")
    await store.record(tracker)
    tracker.cleanup_old_orders(now_ms=0, keep={"o-0007"})
    remembered = {order.client_order_id for order in tracker}

    assert {order.client_order_id for order in await store.orders(since_ms=0)} <= remembered
    assert len(remembered) == MOST_DONE + 2
    assert {"o-0003", "o-0007"} < remembered
    await store.close()


async def test_books_go_on_from_a_checkpoint_over_ten_thousand_fills(tmp_path: Path) -> None:
    sides = (Side.SELL, Side.BUY)
    fills = [
        BookedFill(replace(trade_fill(n, side=sides[n % 2]), price=Decimal(100 + n % 7)), Decimal("0.1"))
        for n in range(1, 10_001)
    ]
    store = Store.open(tmp_path / "bot.db")
    await store.record(fills=fills)
    await store.put("checkpoint", fold(fills[:9_901], "BTC", "USDT", Decimal("0.00001")))
    await store.close()

    store = Store.open(tmp_path / "bot.db")
    checkpoint = await store.get("checkpoint", LedgerState)
    rest = await store.fills(after=checkpoint.last_trade_id)
    assert len(rest) == 99
    assert extend(checkpoint, rest) == fold(fills, "BTC", "USDT", Decimal("0.00001"))
    await store.close()


async def test_the_disk_keeps_what_is_needed_and_the_newest_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradingbot.state.store.KEPT", 10)
    monkeypatch.setattr("tradingbot.state.store.PRUNE_EVERY", 50)
    store, tracker = Store.open(tmp_path / "bot.db"), OrderTracker()
    for number in range(51):
        status = OrderStatus.NEW if number == 3 else OrderStatus.FILLED
        order_id = 99 if number == 4 else number + 1
        report = order_report(f"o-{number:02}", order_id=order_id, status=status, time_ms=number)
        _, order = tracker.absorb(report, "sl")
        state = IntentState.UNKNOWN if number == 5 else IntentState.ACKNOWLEDGED
        await store.put_intent(replace(INTENT, client_id=f"i-{number:02}", state=state))
        await store.record([order], [BookedFill(trade_fill(number), Decimal(1))])

    (orders, intents) = (
        [key for (key,) in store._db.execute(f"SELECT client_id FROM {table} ORDER BY client_id")]
        for table in ("orders", "intents")
    )
    assert orders == ["o-03", "o-04", *(f"o-{number}" for number in range(41, 51))]
    assert intents == ["i-05", *(f"i-{number}" for number in range(41, 51))]
    assert len(await store.fills()) == 51
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

    for take in (Store.open, Store.snapshot):
        with pytest.raises(StoreCorruptError, match=r"cannot read .*bot\.db"):
            take(tmp_path / "bot.db")


async def test_a_page_that_was_lost_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "bot.db"
    store = Store.open(path)
    await store.record(fills=[BookedFill(trade_fill(number), None) for number in range(100)])
    await store.close()
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    path.write_bytes(whole[: -2 * size] + bytes(size) + whole[-size:])

    with pytest.raises(StoreCorruptError, match=r"bot\.db is damaged: "):
        Store.open(path)


def test_a_database_of_something_else_is_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "bot.db")) as other:
        other.execute("CREATE TABLE facts (name TEXT)")

    with pytest.raises(StoreFailedError, match=r"cannot read bot\.db: table facts already exists"):
        Store.open(tmp_path / "bot.db")


@pytest.mark.parametrize("take", [Store.open, Store.snapshot])
def test_a_store_of_a_later_version_is_refused_and_left_alone(tmp_path: Path, take: Callable[[Path], Store]) -> None:
    with sqlite3.connect(tmp_path / "bot.db") as db:
        db.execute("PRAGMA user_version=99")

    content = (tmp_path / "bot.db").read_bytes()
    with pytest.raises(StoreVersionError, match=r"^bot\.db has version 99, this bot knows 2: use a newer bot"):
        take(tmp_path / "bot.db")
    assert (tmp_path / "bot.db").read_bytes() == content


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailedError, match=r"bot\.db"):
        Store.open(tmp_path / "file" / "bot.db")


def stored_version_1(path: Path, *changes: str) -> Path:
    """A store as version 1 of the schema left it, then changed by hand."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1.read_text())
        for change in changes:
            db.execute(change)
        db.commit()
    return path


async def test_a_store_of_version_1_is_taken_over_with_all_that_it_has(tmp_path: Path) -> None:
    store = Store.open(stored_version_1(tmp_path / "bot.db"))
    assert [intent.client_id[-9:] for intent in await store.open_intents()] == ["000006-el"]
    orders = await store.orders(since_ms=0)
    assert [(order.purpose, order.status) for order in orders if order.is_open] == [("sl", "NEW"), ("tp", "NEW")]
    assert len(orders) == 8
    assert [booked.fill.side for booked in await store.fills()] == ["BUY", "SELL", "BUY"]
    assert await store.highest_order_id() == 8
    assert await store.get("incarnation", int) == 1736121600
    assert store.unreadable == set()
    await store.close()
    again = Store.open(tmp_path / "bot.db")
    assert again._db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert await again.orders(since_ms=0) == orders
    await again.close()


@pytest.mark.parametrize(
    ("change", "key", "error"),
    [
        (
            "UPDATE orders SET body='no JSON' WHERE json_extract(body, '$.order_id')=7",
            ("orders", f"{OWN}-000006-sl"),
            "no JSON",
        ),
        (
            "UPDATE orders SET body=json_replace(body, '$.side', 'HOLD') WHERE json_extract(body, '$.order_id')=7",
            ("orders", f"{OWN}-000006-sl"),
            "side: Input should be 'BUY' or 'SELL'",
        ),
        (
            "UPDATE fills SET body=json_remove(body, '$.fill.price') WHERE trade_id=173612160383",
            ("fills", "BTCUSDT/173612160383"),
            "fill.price: Field required",
        ),
        (
            "UPDATE intents SET body='[]' WHERE state='Sending'",
            ("intents", f"{OWN}-000006-el"),
            "Input should be an object",
        ),
        (
            "UPDATE facts SET body='\"many\"' WHERE name='incarnation'",
            ("facts", "incarnation"),
            "Input should be a valid integer, unable to parse string as an integer",
        ),
    ],
    ids=["no-json", "unknown-word", "missing-field", "no-object", "fact"],
)
async def test_a_row_that_does_not_parse_is_set_aside_as_it_was_and_told_until_it_is_restored(
    tmp_path: Path, change: str, key: tuple[str, str], error: str
) -> None:
    path = stored_version_1(tmp_path / "bot.db", change)
    told = {"event": "a row was set aside", "table": key[0], "key": key[1], "error": error, "log_level": "error"}
    for logged in ([told] * (error != "no JSON"), []):
        store = Store.open(path)
        with capture_logs() as lines:
            counts = {
                "intents": len(await store.open_intents()),
                "orders": len(await store.orders(since_ms=0)),
                "fills": len(await store.fills()),
                "facts": int(await store.get("incarnation", int) is not None),
            }
        assert lines == logged
        whole = {"intents": 1, "orders": 8, "fills": 3, "facts": 1}
        assert counts == whole | {key[0]: whole[key[0]] - 1}
        assert store.unreadable == {key}
        await store.close()
    store = Store.open(path)
    ((kept, body, why),) = store._db.execute("SELECT key, body, error FROM set_aside").fetchall()
    assert (kept, why) == (key[1], error)
    assert body
    await store.restored()
    assert store.unreadable == set()
    await store.close()
    store = Store.open(path)
    assert store.unreadable == set()
    await store.close()


async def test_a_row_that_cannot_be_set_aside_hides_no_other(tmp_path: Path) -> None:
    path = stored_version_1(tmp_path / "bot.db", "UPDATE orders SET body='[]' WHERE json_extract(body, '$.order_id')=7")
    store = Store.open(path)
    store._db.execute("PRAGMA query_only=ON")
    assert len(await store.orders(since_ms=0)) == 7
    assert store.unreadable == {("orders", f"{OWN}-000006-sl")}
    await store.close()


async def test_a_fact_that_cannot_be_taken_is_set_aside_with_the_error(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    await store.put_all({"mark": 1, "other": 2})
    await store.set_aside_fact("mark", ValueError("no such day"))
    assert (await store.get("mark"), await store.get("other")) == (None, 2)
    assert store._db.execute("SELECT * FROM set_aside").fetchall() == [
        ("facts", "mark", "1", "ValueError: no such day", 0)
    ]
    with pytest.raises(TypeError, match=r"^object$"):
        await store.put("mark", object())
    await store.close()


async def test_a_field_of_a_later_version_is_ignored_and_one_that_is_missing_has_its_default(tmp_path: Path) -> None:
    store = Store.open(
        stored_version_1(
            tmp_path / "bot.db",
            "UPDATE orders SET body=json_remove(json_set(body, '$.later', 1), '$.trade_ids')",
            "UPDATE intents SET body=json_remove(json_set(body, '$.later', 1), '$.not_found')",
            "UPDATE fills SET body=json_set(body, '$.later', 1, '$.fill.later', 2)",
        )
    )
    assert [order.trade_ids for order in await store.orders(since_ms=0)] == [()] * 8
    assert [intent.not_found for intent in await store.open_intents()] == [0]
    assert len(await store.fills()) == 3
    assert store.unreadable == set()
    await store.close()


async def test_what_could_not_be_committed_is_once_it_can_be(tmp_path: Path) -> None:
    _, order = OrderTracker().absorb(order_report("o", status=OrderStatus.FILLED), "sl")
    _, other = OrderTracker().absorb(order_report("other", order_id=12), "sl")
    store = Store.open(tmp_path / "bot.db")
    store._db.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreFailedError):
        await store.record([order], [BookedFill(trade_fill(1), Decimal(1))])
    with pytest.raises(StoreFailedError):
        await store.retry()
    failed = "OperationalError: attempt to write a readonly database"
    assert store.failed == failed
    store._db.execute("PRAGMA query_only=OFF")
    await store.record([other])
    assert store._owed == {}
    assert store.failed is not None, "only a retry says that it works again"
    await store.retry()
    assert store.failed is None
    assert await store.get("last-failure") == failed
    await store.close()

    store = Store.open(tmp_path / "bot.db")
    assert [found.client_order_id for found in await store.orders(since_ms=0)] == ["o", "other"]
    assert [booked.fill.trade_id for booked in await store.fills()] == [1]
    await store.close()


async def test_a_silent_disk_has_failed_until_it_answers_and_nothing_waits_for_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = OrderTracker().absorb(order_report("o", status=OrderStatus.FILLED), "sl")
    store = Store.open(tmp_path / "bot.db")
    with silent_disk(store):
        monkeypatch.setattr("tradingbot.state.store.ANSWER_SECONDS", 0.01)
        with pytest.raises(StoreFailedError, match=r"the disk did not answer within 0\.01 s"):
            async with asyncio.timeout(10):
                await store.put("mark", 1)
        assert store.silent
        monkeypatch.setattr("tradingbot.state.store.ANSWER_SECONDS", 3600)
        for ask in (store.put("mark", 2), store.record([order]), store.get("mark"), store.retry()):
            with suppress(StoreFailedError):
                await ask
            assert store.failed is not None
    await until("an answer", lambda: not store.silent, 10)
    assert store.failed is not None, "only a retry says that it works again"
    await store.retry()
    assert store.failed is None
    assert await store.get("mark") == 1, "what was asked for while it was silent came too late"
    assert await store.orders(since_ms=0) == [order]
    with silent_disk(store):
        monkeypatch.setattr("tradingbot.state.store.ANSWER_SECONDS", 0.01)
        await store.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_late_answer_is_told_if_it_says_that_the_commit_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("tradingbot.state.store.ANSWER_SECONDS", 0.01)
    store = Store.open(tmp_path / "bot.db")
    store._db.execute(f"PRAGMA query_only={int(fails)}")
    with capture_logs() as lines:
        with silent_disk(store), pytest.raises(StoreFailedError):
            async with asyncio.timeout(10):
                await store.put("mark", 1)
        await until("an answer", lambda: not store.silent, 10)
    silent = "the disk did not answer within 0.01 s"
    assert lines == [{"event": "the disk answered late", "error": silent, "log_level": "warning"}] * fails
    await store.close()


async def test_only_a_store_on_disk_without_an_order_or_an_open_intent_proves_that_nothing_was_sent(
    tmp_path: Path,
) -> None:
    memory, disk = Store.in_memory(), Store.open(tmp_path / "bot.db")
    assert (await memory.unused(), await disk.unused()) == (False, True)
    await disk.put_intent(INTENT)
    assert not await disk.unused()
    await disk.put_intent(replace(INTENT, state=IntentState.ACKNOWLEDGED))
    assert await disk.unused()
    _, order = OrderTracker().absorb(order_report("o", order_id=1), "sl")
    await disk.record([order])
    assert not await disk.unused()
    await memory.close()
    await disk.close()


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm")], ids=["closed", "with-its-log"])
def test_a_store_that_is_set_aside_is_kept_whole(tmp_path: Path, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        (tmp_path / f"bot.db{suffix}").write_text(suffix)
    kept = set_aside_store(tmp_path / "bot.db", datetime(2026, 3, 1, tzinfo=UTC))
    assert kept == tmp_path / "bot-20260301T000000Z.db"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{kept.name}{suffix}": suffix for suffix in suffixes
    }


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_store_that_cannot_be_set_aside_stays_where_it_is(tmp_path: Path, suffix: str) -> None:
    for name in ("bot.db", "bot.db-wal", "bot.db-shm"):
        (tmp_path / name).write_text("")
    (tmp_path / f"bot-20260301T000000Z.db{suffix}").mkdir()
    with pytest.raises(StoreFailedError, match=r"^cannot rename bot\.db: .*Is a directory"):
        set_aside_store(tmp_path / "bot.db", datetime(2026, 3, 1, tzinfo=UTC))
    assert (tmp_path / "bot.db").exists()


async def test_the_first_failed_commit_is_remembered(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bot.db")
    store._db.execute("PRAGMA query_only=ON")

    with pytest.raises(StoreFailedError):
        await store.put("a", 1)
    store._db.execute("PRAGMA query_only=OFF")
    store._db.execute("DROP TABLE facts")
    with pytest.raises(StoreFailedError, match=r"^OperationalError: attempt to write a readonly database"):
        await store.put("a", 1)
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
