"""The exchange side after a SIGKILL at each point of an entry, an exit and a repair: same position, nothing twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side
from tradingbot.orders.types import EntryOutcome, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration

# The process kills itself with SIGKILL around one call of the gateway: before it is sent, or after it was answered.
CRASHING_BOT = """
import asyncio, sys
from pathlib import Path
from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import bot_side

async def main(base_url, uid, key, secret, path, call, when):
    paper = PaperExchange(base_url, "", None)
    async with bot_side(paper, TestAccount(int(uid), key, secret), Path(path), stream=False, faulty=True) as side:
        if call.startswith("exit:"):
            await side.enter()
        side.faults.kill = (call.removeprefix("exit:"), when)
        if call.startswith("exit:"):
            await side.orders.exit("signal")
        else:
            await side.enter()
    print("not killed")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def paper() -> AsyncIterator[PaperExchange]:
    async with running_paper_exchange() as exchange:
        yield exchange


async def crash(paper: PaperExchange, account: TestAccount, path: Path, call: str, when: str) -> None:
    """Run a bot that kills itself at that point."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CRASHING_BOT,
        paper.base_url,
        str(account.uid),
        account.api_key,
        account.secret_key,
        str(path),
        call,
        when,
        cwd=Path(__file__).parents[1],
    )
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL


async def settled(side: BotSide) -> None:
    """Until every outcome is known and the books agree."""
    await side.tick_until(lambda: not side.orders.unknown and side.orders.entries_quiet, 60)
    assert (await side.orders.reconcile()).kind is VerdictKind.EXACT


@pytest.mark.parametrize(
    ("when", "bought"),
    [
        pytest.param("before", Decimal(0), id="committed-but-not-sent"),
        pytest.param("after", Decimal("0.003996"), id="sent-but-answer-not-recorded"),
    ],
)
async def test_kill_around_the_entry_leaves_one_position_or_none(
    paper: PaperExchange, tmp_path: Path, when: str, bought: Decimal
) -> None:
    account = await paper.create_account(USDT="10000")
    await crash(paper, account, tmp_path / "bot.db", "place_otoco", when)

    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await settled(side)

        assert side.orders.books.quantity == bought == await side.base_at_exchange()
        expected = ProtectionState.PROTECTED if bought else ProtectionState.FLAT
        assert side.orders.protection.state is expected
        if not bought:
            assert (await side.enter()).outcome is EntryOutcome.FILLED


@pytest.mark.parametrize("call", ["exit:cancel_list", "exit:place_order"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_kill_around_the_exit_leaves_a_protected_position_or_none(
    paper: PaperExchange, tmp_path: Path, call: str, when: str
) -> None:
    account = await paper.create_account(USDT="10000")
    await crash(paper, account, tmp_path / "bot.db", call, when)

    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await settled(side)

        assert side.orders.books.quantity == await side.base_at_exchange()
        sold = (call, when) == ("exit:place_order", "after")
        assert side.orders.protection.state is (ProtectionState.FLAT if sold else ProtectionState.PROTECTED)


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
        assert len(side.orders.books.round_trips) == 1
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
