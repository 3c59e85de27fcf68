"""The order manager when reads fail, lag or contradict: what it holds, protects and sells is what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side, two_processes
from support.order_reports import order_report
from tradingbot.gateway.errors import AmbiguousError, ExchangeError, NotFoundError, OrderArchivedError
from tradingbot.model import OrderReport, OrderUpdate, TradeFill
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.orders.types import EntryOutcome, ExitOutcome, OrdersEventKind, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind
from tradingbot_api.v1alpha1 import PositionPolicy

pytestmark = pytest.mark.integration


@pytest.fixture
async def bot(paper: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    """Without a user stream: what is not read is not known."""
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as side:
        yield side


async def tick_while_reads_fail(bot: BotSide, error: ExchangeError) -> None:
    """One tick in which an order is found once, and nothing can be read after it."""
    find = bot.exchange.order
    found = 0

    async def order(symbol: str, client_order_id: str, *, urgent: bool = False) -> object:
        nonlocal found
        found += 1
        if found > 1:
            raise error
        return await find(symbol, client_order_id, urgent=urgent)

    bot.faults.always["all_orders"] = AmbiguousError("no answer in time")
    bot.exchange.order = order  # type: ignore[assignment, method-assign]
    await bot.orders.tick()
    bot.exchange.order = find  # type: ignore[method-assign]
    bot.faults.always.clear()


@pytest.mark.parametrize("error", [AmbiguousError("no answer in time"), NotFoundError("-2013")])
async def test_an_entry_that_was_found_stays_open_until_its_orders_are_known(
    bot: BotSide, error: ExchangeError
) -> None:
    bot.faults.after["place_otoco"] = AmbiguousError("no answer in time")
    assert (await bot.enter()).outcome is EntryOutcome.UNKNOWN

    await tick_while_reads_fail(bot, error)
    assert not bot.orders.entries_quiet
    await bot.orders.reconcile()

    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert len(await bot.exchange.open_orders(SYMBOL)) == 2
    assert bot.orders.books.quantity == await bot.base_at_exchange()
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_an_announcement_that_rests_is_never_called_quiet(bot: BotSide) -> None:
    bot.faults.after["place_order"] = AmbiguousError("no answer in time")
    await bot.enter()

    await tick_while_reads_fail(bot, AmbiguousError("no answer in time"))

    assert len(await bot.exchange.open_orders(SYMBOL)) == 1
    assert not bot.orders.entries_quiet


async def test_between_an_answer_and_its_commit_an_order_is_not_forgotten(bot: BotSide) -> None:
    commit = bot.store.put_intent
    quiet: list[bool] = []

    async def watched(intent: Intent) -> None:
        if (intent.kind, intent.state) == (IntentKind.ANNOUNCE, IntentState.ACKNOWLEDGED):
            quiet.append(bot.orders.entries_quiet)
        await commit(intent)

    bot.store.put_intent = watched  # type: ignore[method-assign]
    await bot.enter()

    assert quiet == [False]


async def test_protection_is_not_called_stale_because_its_entry_is_missing_in_the_books(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        await side.enter()
    with sqlite3.connect(tmp_path / "bot.db") as db:
        db.execute("DELETE FROM orders WHERE client_id LIKE '%-en'")
        db.execute("DELETE FROM fills")
    db.close()

    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        assert len(side.orders.open_orders) == 2
        assert side.orders.books.quantity == await side.base_at_exchange()
        assert side.orders.protection.state is ProtectionState.PROTECTED


async def test_fills_of_an_old_order_that_could_not_be_read_are_read_after_the_next_start(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    path = tmp_path / "bot.db"
    async with bot_side(paper, account, path, stream=False) as side:
        await side.enter()
        stop = side.leg("sl").stop_price
    with sqlite3.connect(path) as db:
        db.execute("UPDATE orders SET created_ms = created_ms - 172800000")
    db.close()
    await paper.push_trade(SYMBOL, stop - 20)
    async with bot_side(paper, account, path, stream=False, faulty=True, start=False) as side:
        side.faults.always["order_trades"] = AmbiguousError("no answer in time")
        with pytest.raises(AmbiguousError):
            await side.orders.start()

    async with bot_side(paper, account, path, stream=False) as side:
        assert side.orders.protection.state is ProtectionState.FLAT
        assert side.orders.books.round_trips.total == 1
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT


async def test_an_entry_whose_fills_cannot_be_read_is_unknown_and_never_flat(bot: BotSide) -> None:
    bot.faults.always["order_trades"] = AmbiguousError("no answer in time")

    assert (await bot.enter()).outcome is EntryOutcome.UNKNOWN
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert (await bot.enter()).code == "PositionOpen"
    bot.faults.always.clear()
    await bot.orders.tick()

    assert bot.orders.books.quantity == await bot.base_at_exchange()
    assert bot.orders.protection.state is ProtectionState.PROTECTED


async def test_drain_with_hold_restores_a_lost_protection(bot: BotSide) -> None:
    await bot.enter()
    await lose_protection(bot)

    await bot.orders.drain(PositionPolicy.HOLD)

    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert len(await bot.exchange.open_orders(SYMBOL)) == 2


async def test_a_protection_that_is_lost_while_nobody_tells_is_restored_within_the_deadline(bot: BotSide) -> None:
    await bot.enter()
    await lose_protection(bot)
    lost = bot.exchange.exchange_ms()

    await bot.tick_until(lambda: bot.told(OrdersEventKind.PROTECTION_RESTORED))

    restored = next(event.time_ms for event in bot.events if event.kind is OrdersEventKind.PROTECTION_RESTORED)
    assert restored - lost < bot.settings.protection.deadline_seconds * 1000
    # From when the exchange took it off, not from when that was seen.
    assert bot.orders.unprotected_seconds * 1000 == pytest.approx(restored - lost, abs=500)
    assert len(await bot.exchange.open_orders(SYMBOL)) == 2


async def test_what_was_sold_already_is_not_sold_again_from_the_base_of_others(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as side:
        await side.enter()
        stop = side.leg("sl").stop_price
        side.faults.always["order_trades"] = NotFoundError("not readable yet")
        await paper.push_trade(SYMBOL, stop - 20)
        with pytest.raises(NotFoundError):
            await side.orders.reconcile()
        await side.orders.exit("signal")
        await side.orders.tick()
        assert side.orders.protection.state is ProtectionState.FLAT
        side.faults.always.clear()

        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT
        assert side.orders.books.oversold == 0


async def lose_protection(bot: BotSide) -> None:
    """Cancel the pair as somebody else would."""
    leg = bot.leg("sl")
    await bot.exchange.cancel_list(SYMBOL, leg.order_list_id, "by-hand", bot.exchange.stamp())


async def test_an_exchange_that_forgot_the_orders_halts_the_bot_and_nothing_is_sold(tmp_path: Path) -> None:
    path = tmp_path / "bot.db"
    async with running_paper_exchange() as paper:
        account = await paper.create_account(USDT="10000", BTC="1")
        async with bot_side(paper, account, path, stream=False) as side:
            await side.enter()
    with sqlite3.connect(path) as db:  # as if it had been bought a minute ago
        db.execute("UPDATE orders SET body = json_set(body, '$.created_ms', body ->> '$.created_ms' - 60000)")
    db.close()

    async with running_paper_exchange() as paper:
        account = await paper.create_account(USDT="10000", BTC="1")
        async with bot_side(paper, account, path, stream=False, faulty=True) as side:
            assert side.orders.exchange_reset is not None
            assert side.orders.verdict is not None
            assert side.orders.verdict.kind is VerdictKind.DRIFT
            assert side.orders.protection.state is not ProtectionState.PROTECTED
            assert side.orders.open_orders == ()

            assert (await side.enter()).code == "ExchangeReset"
            assert (await side.orders.exit("signal")).code == "ExchangeReset"
            await side.orders.reconcile()
            await side.orders.tick()
            assert not [call for call in side.faults.calls if call.startswith(("place", "cancel"))]


async def test_an_order_that_was_archived_is_done(bot: BotSide) -> None:
    await bot.enter()
    await lose_protection(bot)
    find = bot.exchange.order

    async def order(symbol: str, client_order_id: str, *, urgent: bool = False) -> object:
        raise OrderArchivedError("-2026", api_code=-2026)

    bot.exchange.order = order  # type: ignore[assignment, method-assign]
    await bot.orders.reconcile()
    bot.exchange.order = find  # type: ignore[method-assign]

    assert bot.orders.exchange_reset is None
    assert bot.orders.protection.state is ProtectionState.PROTECTED


async def test_a_lost_store_is_told_by_every_start_and_not_quiet_while_a_former_order_may_come(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "old.db", stream=False) as side:
        await side.enter()
    async with bot_side(paper, account, tmp_path / "new.db", stream=False, faulty=True, start=False) as side:
        side.faults.always["account"] = AmbiguousError("no answer in time")
        with pytest.raises(AmbiguousError):
            await side.orders.start()

    async with bot_side(paper, account, tmp_path / "new.db", stream=False, start=False) as side:
        assert (await side.orders.start()).rebuilt
        assert not side.orders.entries_quiet
        assert (await side.enter()).code == "StoreNew"
        await side.tick_until(lambda: side.orders.entries_quiet)
        assert side.orders.books.quantity == await side.base_at_exchange()


async def test_an_order_of_another_process_that_the_user_stream_missed_is_found_once_a_later_one_is_told(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await older.enter()
        await newer.orders.start()
        await older.orders.exit("Signal")
        await older.enter()
        later = (await older.exchange.all_orders(SYMBOL, from_order_id=0))[-1]
        await newer.orders.on_user_event(OrderUpdate(later, "NEW", None, None, later.time_ms))

        await newer.tick_until(lambda: newer.orders.books == older.orders.books)
        assert (await newer.orders.reconcile()).kind is VerdictKind.COVERED


async def test_what_another_process_did_before_the_user_stream_was_connected_is_found_soon_after(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await newer.orders.start()
        await older.enter()
        await older.orders.exit("Signal")
        newer.orders.missed_events()

        await newer.tick_until(lambda: newer.orders.books == older.orders.books)


async def test_only_orders_that_came_after_the_starts_look_are_listed_again(
    paper: PaperExchange, account: TestAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradingbot.orders.known_orders.LIST_EVERY_MS", 0)
    async with bot_side(paper, account, tmp_path / "bot.db") as former:
        await former.enter()
        await former.orders.exit("Signal")
        newest = (await former.exchange.all_orders(SYMBOL, from_order_id=0))[-1].order_id
    async with bot_side(paper, account, tmp_path / "bot.db") as bot:
        with patch.object(bot.exchange, "all_orders", wraps=bot.exchange.all_orders) as listing:
            bot.orders.missed_events()
            await bot.tick_until(lambda: listing.called)
        assert listing.call_args.kwargs["from_order_id"] == newest + 1


async def test_an_order_of_another_client_that_is_told_while_open_orders_are_read_is_not_called_gone(
    bot: BotSide,
) -> None:
    placed = OrderUpdate(order_report("theirs"), "NEW", None, None, 0)
    read = bot.exchange.open_orders

    async def open_orders(symbol: str, *, urgent: bool = False) -> list[OrderReport]:
        answer = await read(symbol, urgent=urgent)
        await bot.orders.on_user_event(placed)
        return answer

    bot.exchange.open_orders = open_orders  # type: ignore[method-assign]
    await bot.orders.reconcile()

    assert bot.orders.foreign_orders == ("theirs",)
    assert not bot.told(OrdersEventKind.FOREIGN_ORDER_GONE)


async def test_protection_that_was_placed_before_a_sale_was_known_does_not_outlive_the_position(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await older.enter()
        await newer.orders.start()
        await older.orders.exit("Signal")
        await newer.tick_until(lambda: any(order.purpose == "sl" for order in newer.orders.open_orders))
        sale = (await older.exchange.all_orders(SYMBOL, from_order_id=0))[-3]
        await newer.orders.on_user_event(OrderUpdate(sale, "TRADE", None, None, sale.time_ms))

        await newer.tick_until(lambda: newer.orders.protection.state is ProtectionState.FLAT)
        await newer.tick_until(lambda: not newer.orders.open_orders, seconds=5)
        assert not await newer.exchange.open_orders(SYMBOL)


async def test_what_another_process_sold_since_the_start_read_its_orders_is_not_sold_again(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await older.enter()
        await newer.orders.start()
        await older.orders.exit("Signal")
        await newer.orders.exit("Signal")
        assert newer.orders.books == older.orders.books
        assert Decimal("0.5") <= await newer.base_at_exchange() < Decimal("0.5001")


async def test_a_halted_process_that_connects_again_sends_nothing(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        await side.enter()
        await lose_protection(side)
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True, start=False) as side:
        side.halted = True
        await side.orders.start()
        await side.orders.reconcile()
        await side.orders.tick()
        assert (await side.orders.exit("Signal")).code == "Halted"
        assert await side.orders.drain(PositionPolicy.CLOSE_POSITION)
        assert not [call for call in side.faults.calls if call.startswith(("place", "cancel"))]

        side.halted = False
        await side.orders.reconcile()
        assert side.orders.protection.state is ProtectionState.PROTECTED


async def test_a_process_that_is_halted_in_the_middle_of_an_exit_sells_nothing_more(bot: BotSide) -> None:
    await bot.enter()
    cancel = bot.exchange.cancel_list

    async def canceled(*args: Any, **more: Any) -> object:
        answer = await cancel(*args, **more)
        bot.halted = True
        return answer

    bot.exchange.cancel_list = canceled  # type: ignore[assignment, method-assign]
    held = await bot.base_at_exchange()

    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FAILED
    await bot.orders.tick()

    assert await bot.base_at_exchange() == held
    assert await bot.exchange.open_orders(SYMBOL) == []


async def test_a_fee_without_a_value_is_valued_later_and_until_then_the_books_are_not_exact(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as side:
        read = side.exchange.order_trades

        async def in_bnb(symbol: str, order_id: int, *, urgent: bool = False) -> list[TradeFill]:
            return [replace(fill, commission_asset="BNB") for fill in await read(symbol, order_id, urgent=urgent)]

        side.exchange.order_trades = in_bnb  # type: ignore[method-assign]
        for call in ("last_price", "candles"):
            side.faults.always[call] = AmbiguousError("no answer in time")
        await side.enter()
        verdict = await side.orders.reconcile()
        assert verdict.kind is VerdictKind.COVERED
        assert "fees have no value" in verdict.message
        side.faults.always.clear()

        assert "fees have no value" not in (await side.orders.reconcile()).message
        assert side.orders.books.unvalued_fees == 0
        assert side.orders.books.fees_value > 0
        assert all(booked.fee_value is not None for booked in await side.store.fills())
