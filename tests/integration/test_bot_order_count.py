"""What an account may send of new orders is used up by whoever has its keys: an entry waits, and a sale that the
exchange would refuse does not cost the protection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side
from support.bot_process import by_hand
from tradingbot.gateway.errors import TooManyOrdersError
from tradingbot.gateway.order_limits import OrderBudgetError
from tradingbot.gateway.port import NewOrder
from tradingbot.model import OrderType, Side
from tradingbot.orders.types import EntryOutcome, ExitOutcome, ProtectionState

pytestmark = pytest.mark.integration
WINDOW_MS = 10_000


@dataclass
class Scene:
    """A bot whose exchange's clock a test moves on."""

    bot: BotSide
    skipped: list[int]

    async def next_interval(self) -> None:
        """The ten seconds are over."""
        self.skipped[0] += WINDOW_MS - (wall_clock_ms() + self.skipped[0]) % WINDOW_MS
        await self.bot.exchange.sync_clock()

    async def use_up(self, orders: int) -> None:
        """Another program with keys of the account."""
        async with by_hand(self.bot.paper, self.bot.account) as hand:
            price = ((await hand.book_ticker(SYMBOL)).bid / 2).quantize(Decimal("0.01"))
            for number in range(orders):
                order = NewOrder(SYMBOL, f"x-{number}", Side.BUY, OrderType.LIMIT_MAKER, Decimal("0.001"), price=price)
                await hand.place_order(order, hand.stamp(), urgent=True)
                await hand.cancel_order(SYMBOL, f"x-{number}", f"c-{number}", hand.stamp())


@asynccontextmanager
async def scene(folder: Path, limit: int) -> AsyncIterator[Scene]:
    """A bot that has announced itself."""
    skipped = [0]
    options = Options(symbols=(SYMBOL,), orders_10s=limit)
    async with running_paper_exchange(options, wall_ms=lambda: wall_clock_ms() + skipped[0]) as paper:
        account = await paper.create_account(USDT="10000")
        async with bot_side(paper, account, folder / "bot.db") as bot:
            it = Scene(bot, skipped)
            await bot.tick_until(lambda: bot.orders.announced)
            await it.next_interval()
            yield it


async def sold(bot: BotSide, seconds: float = 15) -> bool:
    """Whether a sale that is tried again and again goes through."""
    deadline = time.monotonic() + seconds
    while (await bot.orders.exit("Signal")).outcome is not ExitOutcome.FLAT:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    return True


async def test_a_sale_that_would_be_one_too_many_leaves_the_protection_and_goes_in_the_next_interval(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, limit=5) as it:
        bot = it.bot
        assert (await bot.enter()).outcome is EntryOutcome.FILLED  # three of five
        refused = await bot.orders.exit("Signal")
        assert (refused.outcome, refused.code) == (ExitOutcome.FAILED, "RateLimited")
        assert "2 of the account's new orders is left, 3 are kept for a sale" in refused.message
        assert bot.orders.protection.state is ProtectionState.PROTECTED
        await it.next_interval()
        assert await sold(bot)


async def test_where_others_used_up_the_account_unseen_what_has_no_stop_is_looked_after_as_soon_as_it_may(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, limit=10) as it:
        bot = it.bot
        assert (await bot.enter()).outcome is EntryOutcome.FILLED
        await it.use_up(8)  # the fill of the entry took one off
        refused = await bot.orders.exit("Signal")
        assert (refused.outcome, refused.code) == (ExitOutcome.FAILED, TooManyOrdersError.code)
        await it.next_interval()
        await bot.tick_until(lambda: bot.orders.protection.state is ProtectionState.PROTECTED, 10)
        assert await sold(bot)


async def test_an_entry_beyond_its_part_of_the_account_is_refused_with_the_figures_and_goes_in_the_next_interval(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, limit=9) as it:
        bot = it.bot
        assert (await bot.enter()).outcome is EntryOutcome.FILLED
        assert await sold(bot)
        refused = await bot.enter()
        assert (refused.outcome, refused.code) == (EntryOutcome.REFUSED, OrderBudgetError.code)
        assert "sent 3 orders of 9 in 10S, 5 are for entries" in refused.message
