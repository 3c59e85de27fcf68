"""Two processes with the keys of one account on one symbol: the exchange shows each the other, and one trades."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import SYMBOL, BotSide, bot_side
from support.waiting import until
from tradingbot.model import OrderStatus, Side
from tradingbot.orders.types import EntryOutcome, OrdersEventKind

pytestmark = pytest.mark.integration


async def announcements(bot: BotSide) -> list[int]:
    """Exchange ms of each announcement, in order; all of them are cancelled."""
    orders = await bot.exchange.all_orders(SYMBOL, from_order_id=0)
    announced = [order for order in orders if order.client_order_id.endswith("-an")]
    assert {order.status for order in announced} <= {OrderStatus.CANCELED}
    return [order.time_ms for order in announced]


async def test_a_process_shows_itself_as_soon_as_it_may_by_an_order_far_below_the_market(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db") as bot:
        bot.refusal = "AwaitingGrant"
        await bot.orders.tick()
        assert await announcements(bot) == []
        bot.refusal = None

        await bot.orders.tick()
        await bot.orders.tick()

        assert len(await announcements(bot)) == 1
        order = (await bot.exchange.all_orders(SYMBOL, from_order_id=0))[0]
        assert order.price * 10 < 6 * (await bot.exchange.book_ticker(SYMBOL)).bid
        assert (await bot.enter()).outcome is EntryOutcome.FILLED
        assert len(await announcements(bot)) == 1


async def test_the_earlier_process_is_halted_within_a_second_of_the_announcement_of_the_later_one(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db") as bot:
        await bot.orders.tick()
        await until("another second", lambda: bot.exchange.exchange_ms() // 1000 > bot.orders.incarnation)
        async with bot_side(paper, account, tmp_path / "other.db", announced_seconds=1, seed=2) as other:
            assert other.orders.incarnation > bot.orders.incarnation

            await other.orders.tick()

            await until("the fence to be lost", lambda: bot.orders.two_traders is not None)
            lost = next(event.time_ms for event in bot.events if event.kind is OrdersEventKind.TWO_TRADERS)
            assert lost - (await announcements(bot))[-1] < 1000
            assert (await bot.enter()).code == "TwoTraders"
            assert other.orders.two_traders is None


async def test_the_first_entry_waits_until_an_earlier_process_has_heard_the_announcement(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", announced_seconds=0.5) as bot:
        assert (await bot.enter()).outcome is EntryOutcome.FILLED

        orders = await bot.exchange.all_orders(SYMBOL, from_order_id=0)
        bought = next(order.time_ms for order in orders if order.client_order_id.endswith("-en"))
        assert bought - (await announcements(bot))[0] >= 500


async def test_two_processes_that_start_in_the_same_second_never_both_buy(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with (
        bot_side(paper, account, tmp_path / "one.db", start=False) as one,
        bot_side(paper, account, tmp_path / "two.db", start=False, seed=2) as two,
    ):
        await until("the first half of a second", lambda: one.exchange.exchange_ms() % 1000 < 200)
        await asyncio.gather(one.orders.start(), two.orders.start())
        assert one.orders.incarnation == two.orders.incarnation

        await asyncio.gather(one.enter(), two.enter())

        await until("one to see the other", lambda: one.orders.two_traders or two.orders.two_traders)
        orders = await one.exchange.all_orders(SYMBOL, from_order_id=0)
        assert len([order for order in orders if order.side is Side.BUY and order.executed_quantity > 0]) <= 1


async def test_an_order_with_an_id_of_ones_own_that_another_process_made_is_seen(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with (
        bot_side(paper, account, tmp_path / "one.db", start=False) as one,
        bot_side(paper, account, tmp_path / "two.db", start=False) as twin,  # it draws the same ids
    ):
        await until("the first half of a second", lambda: one.exchange.exchange_ms() % 1000 < 200)
        await asyncio.gather(one.orders.start(), twin.orders.start())
        twin.tasks[0].cancel()  # it does not hear of the other
        assert one.orders.incarnation == twin.orders.incarnation
        await one.orders.tick()
        await until("its own announcement", lambda: one.orders.announced and one.orders.entries_quiet)
        await twin.orders.tick()

        await until("the fence to be lost", lambda: one.orders.two_traders is not None)
