"""The protection of a position stays where no sale can take its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side
from support.waiting import until
from tradingbot.orders.types import ExitOutcome, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration


@pytest.fixture
async def bot(paper: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    async with bot_side(paper, account, tmp_path / "bot.db", faulty=True) as side:
        await side.enter()
        yield side


def cancels(bot: BotSide) -> int:
    """How often an order was asked to be cancelled."""
    return sum(call in {"cancel_list", "cancel_order"} for call in bot.faults.calls)


async def sells(bot: BotSide) -> None:
    """Until another try sells the position."""

    async def sold() -> bool:
        return (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT

    await until("an exit that sells", sold, seconds=30, every=0.2)


@pytest.mark.parametrize("status", ["HALT", "CANCEL_ONLY"])
async def test_an_exit_on_a_symbol_that_does_not_trade_leaves_the_protection(
    paper: PaperExchange, bot: BotSide, status: str
) -> None:
    before = cancels(bot)
    await paper.begin_scenario([{"at": 0, "market": {"symbol": SYMBOL, "status": status}}])

    result = await bot.orders.exit("Signal")

    assert result.outcome is ExitOutcome.FAILED
    assert f"{SYMBOL} is {status}" in result.message
    assert cancels(bot) == before
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    await paper.begin_scenario([{"at": 0, "market": {"symbol": SYMBOL, "status": "TRADING"}}])
    await sells(bot)
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_after_a_refused_sale_the_protection_is_restored_and_not_taken_off_again_at_once(
    paper: PaperExchange, bot: BotSide
) -> None:
    await paper.start_fault("order_refused")
    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FAILED
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    before = cancels(bot)

    result = await bot.orders.exit("Signal")

    assert "the sale was refused" in result.message
    assert cancels(bot) == before
    await paper.clear_faults()
    await sells(bot)


async def test_an_exit_without_the_request_weight_for_all_of_it_leaves_the_protection(tmp_path: Path) -> None:
    async with running_paper_exchange(Options(symbols=(SYMBOL,), weight_per_minute=310)) as paper:
        account = await paper.create_account(USDT="10000")
        async with bot_side(paper, account, tmp_path / "bot.db", faulty=True) as bot:
            await bot.enter()
            before = cancels(bot)

            result = await bot.orders.exit("Signal")

            assert (result.outcome, result.code) == (ExitOutcome.FAILED, "RateLimited")
            assert cancels(bot) == before
            assert bot.orders.protection.state is ProtectionState.PROTECTED
