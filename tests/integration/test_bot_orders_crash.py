"""After a SIGKILL around a request, and after other ends, a bot finds the same position, and does nothing twice."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import SYMBOL, bot_side
from support.bot_process import BotFolder, bot_process, config, exchange_process, settings
from tradingbot.orders import own_fills, tracker
from tradingbot.orders.types import ProtectionState
from tradingbot.recovery.safe_mode import UNKNOWN_ORDER, UNTRUSTED_BOOKS
from tradingbot.state import store
from tradingbot.state.balance_reconciler import VerdictKind
from tradingbot_api.bot_http import BotStatus

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Kill:
    """A request that the exchange holds while the bot that sent it is killed, and what the exchange makes of it."""

    request: str
    fault: str
    """`lost_request`: never executed; `delay`: executed after the kill; `answer_delay`: before it."""

    @property
    def executed(self) -> bool:
        return self.fault != "lost_request"


ENTRY, CANCEL, EXIT = "POST /api/v3/orderList/otoco", "DELETE /api/v3/orderList", "POST /api/v3/order"
FAULTS: dict[str, dict[str, Any]] = {
    "lost_request": {"cut": False},
    "delay": {"seconds": 1.5},
    "answer_delay": {"seconds": 10},
}
KILLS = [
    *(Kill(ENTRY, fault) for fault in FAULTS),
    Kill(CANCEL, "answer_delay"),
    Kill(EXIT, "delay"),
    Kill(EXIT, "answer_delay"),
]


async def kill_and_start_again(kill: Kill, paper: PaperExchange, path: Path) -> None:
    """A process of `tradingbot run` is killed while its request is held; the next one knows what became of it."""
    account = await paper.create_account(USDT="10000")
    folder = BotFolder.make(path, config(settings(paper.base_url)))
    folder.write_keys(account)
    fault = {"accounts": [account.uid], "endpoints": [kill.request], "count": 1, **FAULTS[kill.fault]}

    async def befallen() -> bool:
        return any(row.get("applied") == number for row in await paper.fault_record())

    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        if kill.request == ENTRY:
            number = await paper.start_fault(kill.fault, **fault)
        await bot.grant()
        if kill.request != ENTRY:
            await bot.until(lambda status: status.position is not None and status.position.side == "Long")
            number = await paper.start_fault(kill.fault, **fault)
        await eventually(befallen)
        bought = 1 if kill.request == ENTRY and kill.executed else await purchases(paper, account)
        await bot.kill()

    async with bot_process(folder) as bot:
        # Without a grant it buys nothing more; a signal may still end the position.
        await bot.until(lambda status: status.ready and settled(status), 60)

        async def agree() -> bool:
            told = bot.status.position
            return told is not None and told.quantity == await base_of(paper, account)

        await eventually(agree)
        assert bot.condition("BalanceSynced")[0] == bot.condition("Protected")[0] == "True"
    assert await purchases(paper, account) == bought


async def eventually(test: Callable[[], Awaitable[bool]]) -> None:
    """Until it is true, at most a minute."""
    deadline = time.monotonic() + 60
    while not await test():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)


def settled(status: BotStatus) -> bool:
    return not {cause.id for cause in status.safe_mode.causes} & {UNKNOWN_ORDER.id, UNTRUSTED_BOOKS.id}


async def purchases(paper: PaperExchange, account: TestAccount) -> int:
    """How many orders bought something."""
    return len({trade["orderId"] for trade in (await paper.account(account.uid))["trades"] if trade["isBuyer"]})


async def base_of(paper: PaperExchange, account: TestAccount) -> Decimal:
    held = (await paper.account(account.uid))["balances"].get("BTC", {"free": "0", "locked": "0"})
    return Decimal(held["free"]) + Decimal(held["locked"])


async def test_a_bot_that_is_killed_around_a_request_knows_after_its_start_what_became_of_it(tmp_path: Path) -> None:
    with exchange_process("--symbols=BTCUSDT") as addresses:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            paper = PaperExchange(*addresses, session)
            for number, kill in enumerate(KILLS):
                group.create_task(kill_and_start_again(kill, paper, tmp_path / str(number)), name=str(kill))


async def test_restart_in_position_finds_the_same_position_orders_and_protection(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await side.enter()
        books, orders = side.orders.books, [order.client_order_id for order in side.orders.open_orders]

    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        assert side.orders.books == books
        assert [order.client_order_id for order in side.orders.open_orders] == orders
        assert side.orders.protection.state is ProtectionState.PROTECTED
        assert side.orders.verdict is not None
        assert side.orders.verdict.kind is VerdictKind.EXACT
        assert side.orders.verdict.drift == Decimal("0.5")


async def test_stop_that_was_hit_while_the_bot_was_away_is_in_the_books_after_the_start(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await side.enter()
        stop = side.leg("sl").stop_price
    await paper.push_trade(SYMBOL, stop - 20)

    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        assert side.orders.protection.state is ProtectionState.FLAT
        assert side.orders.books.round_trips.total == 1
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT


async def test_lost_store_is_rebuilt_from_the_exchange_and_reported(paper: PaperExchange, tmp_path: Path) -> None:
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await side.enter()
        quantity = side.orders.books.quantity

    async with bot_side(paper, account, tmp_path / "new.db", start=False) as side:
        report = await side.orders.start()
        assert report.rebuilt
        assert side.orders.books.quantity == quantity
        assert side.orders.protection.state is ProtectionState.PROTECTED
        assert (await side.orders.reconcile()).kind is VerdictKind.COVERED


@pytest.mark.parametrize("table", ["orders", "fills", "intents"])
async def test_rows_that_do_not_parse_are_read_again_from_the_exchange(
    paper: PaperExchange, tmp_path: Path, table: str
) -> None:
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await side.enter()
        books = side.orders.books
    with closing(sqlite3.connect(tmp_path / "bot.db")) as db:
        db.execute(f"UPDATE {table} SET body='damaged'")
        db.commit()

    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        assert side.orders.books == books
        assert side.orders.protection.state is ProtectionState.PROTECTED
        assert not side.orders.entries_quiet, "what a lost intent sent may still be executed"
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT
        assert side.store.unreadable
        side.orders._known.former_ms = 1  # as some 15 s later
        await side.orders.reconcile()
        assert side.orders.entries_quiet
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        assert side.store.unreadable == set()
        assert side.orders.books == books
        assert side.orders.entries_quiet


async def test_books_whose_old_fills_are_only_in_the_store_stay_the_same_over_restarts_and_second_looks(
    paper: PaperExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "MOST_DONE", 3)
    monkeypatch.setattr(store, "MOST_DONE", 3)
    monkeypatch.setattr(own_fills, "CHECKPOINT_FILLS", 1)
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        await side.enter()
        await side.orders.exit("Signal")
        first = side.orders.books
        await asyncio.sleep(0.01)  # the next fill has another time
        await side.enter()
        await side.orders.exit("Signal")
        await side.enter()
        books = side.orders.books
        known = len(side.orders._fills._by_id)
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT
        assert len(side.orders._fills._by_id) < known
        assert side.orders.books == books
        await side.orders._known.list_all()  # as where another process may have sent some
        await side.orders.tick()
        assert len(side.orders._fills._by_id) == known
        assert side.orders.books == books
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT
        left = len(side.orders._fills._by_id)
        assert await side.orders.books_at(first.last_fill_ms + 1) == first
        assert await side.orders.books_at(books.last_fill_ms + 1) == books
        assert await side.orders.highest_realized() == 0  # fees only
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as side:
        assert len(side.orders._fills._by_id) == left
        assert side.orders.books == books
        await side.orders.exit("Signal")
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT
        assert side.orders.books.round_trips.total == 3
