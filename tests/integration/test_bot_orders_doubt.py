"""The order manager when reads fail, lag or contradict: what it holds, protects and sells is what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side
from tradingbot.gateway.errors import AmbiguousError, ExchangeError, NotFoundError
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.orders.types import EntryOutcome, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration


@pytest.fixture
async def paper() -> AsyncIterator[PaperExchange]:
    async with running_paper_exchange() as exchange:
        yield exchange


@pytest.fixture
async def account(paper: PaperExchange) -> TestAccount:
    return await paper.create_account(USDT="10000")


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
