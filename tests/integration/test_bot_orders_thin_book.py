"""An entry in a book that is too thin for it, on a paper exchange whose book stands still, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.server.app import Options
from paper_exchange.testing import running_paper_exchange
from support.bot_orders import BotSide, bot_side
from support.still_market import write_still_market
from support.waiting import until
from tradingbot.gateway.errors import AmbiguousError
from tradingbot.orders.types import EntryOutcome, ExitOutcome, OrdersEventKind, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration


async def bot_before(book: str, tmp_path: Path, *, faulty: bool = False) -> AsyncIterator[BotSide]:
    """A bot at an exchange with so much at each of its 200 levels around 50000."""
    market = write_still_market(tmp_path, BTCUSDT="50000", quantity=book)
    async with running_paper_exchange(Options(symbols=("BTCUSDT",), market=market)) as paper:
        account = await paper.create_account(USDT="100000")
        async with bot_side(paper, account, tmp_path / "bot.db", faulty=faulty) as side:
            yield side


@pytest.fixture
async def thin(tmp_path: Path) -> AsyncIterator[BotSide]:
    async for side in bot_before("0.00100000", tmp_path):
        yield side


@pytest.fixture
async def losing(tmp_path: Path) -> AsyncIterator[BotSide]:
    async for side in bot_before("0.00100000", tmp_path, faulty=True):
        yield side


@pytest.fixture
async def thinnest(tmp_path: Path) -> AsyncIterator[BotSide]:
    async for side in bot_before("0.00001000", tmp_path):
        yield side


async def test_what_a_thin_book_has_is_bought_and_protected_within_the_deadline(thin: BotSide) -> None:
    result = await thin.enter("0.3")

    assert result.outcome is EntryOutcome.FILLED
    assert thin.orders.books.quantity == Decimal("0.2") * Decimal("0.999")  # all that there is, less the fee
    assert thin.orders.protection.state is ProtectionState.PROTECTED
    assert thin.orders.open_lists == 1
    assert thin.leg("sl").quantity == Decimal("0.1998")
    assert thin.leg("sl").related_position == thin.orders.audit.trace.position
    assert thin.orders.unprotected_seconds < thin.settings.protection.deadline_seconds
    assert (await thin.orders.reconcile()).kind is VerdictKind.EXACT
    assert (await thin.orders.exit("Signal")).outcome is ExitOutcome.FLAT
    assert (await thin.orders.reconcile()).kind is VerdictKind.EXACT


async def test_safe_mode_between_the_whole_and_the_part_wins(thin: BotSide) -> None:
    entering = asyncio.create_task(thin.enter("0.3"))
    await until("the whole to be expired", lambda: thin.told(OrdersEventKind.ENTRY_EXPIRED), every=0)
    thin.refusal = "SafeMode"

    result = await entering

    assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "SafeMode")
    assert thin.orders.books.fills == 0


async def test_nothing_is_bought_where_the_part_could_not_be_sold_again(thinnest: BotSide) -> None:
    result = await thinnest.enter("0.3")

    assert result.outcome is EntryOutcome.EXPIRED
    assert thinnest.told(OrdersEventKind.ENTRY_EXPIRED)
    assert thinnest.orders.books.fills == 0
    assert thinnest.orders.open_orders == ()


async def test_a_part_whose_answer_is_lost_is_bought_once_and_protected_within_the_deadline(losing: BotSide) -> None:
    await losing.tick_until(lambda: losing.orders.announced)
    losing.faults.after["place_order"] = AmbiguousError("the answer was lost")

    result = await losing.enter("0.3")

    assert result.outcome is EntryOutcome.UNKNOWN
    await losing.tick_until(lambda: losing.orders.open_lists == 1)
    assert losing.orders.books.quantity == Decimal("0.2") * Decimal("0.999")
    assert losing.orders.protection.state is ProtectionState.PROTECTED
    assert losing.orders.unprotected_seconds < losing.settings.protection.deadline_seconds
