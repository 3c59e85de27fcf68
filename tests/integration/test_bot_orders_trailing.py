"""A stop that follows the price on a paper exchange over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import SYMBOL, BotSide, bot_side
from support.waiting import until
from tradingbot.model import OrderType
from tradingbot.orders.types import EntryOutcome, OrdersEventKind, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration
FOLLOWING = {"stopLossRatio": "0.02", "trailingRatio": "0.01", "takeProfitRatio": "0.5"}


@pytest.fixture
async def account(small_paper: PaperExchange) -> TestAccount:
    return await small_paper.create_account(USDT="10000")


@pytest.fixture
async def bot(small_paper: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    async with bot_side(small_paper, account, tmp_path / "bot.db", **FOLLOWING) as side:
        yield side


async def move(bot: BotSide, price: Decimal) -> None:
    """The market jumps to about that price and stays there."""
    jump = {"symbol": SYMBOL, "gap": f"{price.quantize(Decimal('0.01'))}"}
    await bot.paper.begin_scenario([{"at": 0, "market": jump}])

    async def traded() -> bool:
        return abs(await bot.paper.last_price(SYMBOL) / price - 1) < Decimal("0.001")

    await until(f"a trade at {price}", traded)


async def rise(bot: BotSide, *percent: int) -> Decimal:
    """Enter, and let the price rise in steps, the position being protected at each; returns the highest price."""
    result = await bot.enter()
    assert result.outcome is EntryOutcome.FILLED, result
    entry = bot.orders.books.average_price
    first = bot.exchange.exchange_ms() // 1000
    await until("the next second", lambda: bot.exchange.exchange_ms() // 1000 > first)
    for step in percent:
        await move(bot, entry * (100 + step) / 100)
        await bot.orders.tick()
        assert bot.orders.protection.state is ProtectionState.PROTECTED
    return max([candle.high for candle in await bot.exchange.candles(SYMBOL, "1s", limit=60)])


async def fall(bot: BotSide, peak: Decimal, ratio: str) -> None:
    await move(bot, peak * (1 - Decimal(ratio)))


async def test_the_stop_follows_the_price_up_and_sells_after_a_fall_from_the_peak_never_having_been_off(
    bot: BotSide,
) -> None:
    peak = await rise(bot, 1, 3, 5)
    leg = bot.leg("sl")
    await fall(bot, peak, "0.007")  # above the stop of the peak, below those of each step before it
    await bot.orders.reconcile()
    assert bot.leg("sl") == leg
    assert bot.orders.protection.state is ProtectionState.PROTECTED

    await fall(bot, peak, "0.013")

    await until("the stop to be told", lambda: bot.told(OrdersEventKind.STOP_LOSS))
    await until("no position", lambda: bot.orders.protection.state is ProtectionState.FLAT)
    assert bot.orders.books.realized > 0  # 4 % above the entry, where a stop that stays would have been 2 % below
    assert not bot.told(OrdersEventKind.PROTECTION_LOST)
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_a_stop_that_was_lost_is_placed_again_no_lower_than_the_price_had_brought_it(bot: BotSide) -> None:
    peak = await rise(bot, 5)
    await fall(bot, peak, "0.006")
    lost = bot.leg("sl")
    await bot.exchange.cancel_list(SYMBOL, lost.order_list_id, "by-hand", bot.exchange.stamp())
    await bot.tick_until(lambda: bot.told(OrdersEventKind.PROTECTION_RESTORED))
    assert bot.leg("sl").type is OrderType.STOP_LOSS
    assert not bot.told(OrdersEventKind.STOP_LOSS)

    await bot.paper.push_trade(SYMBOL, await bot.paper.last_price(SYMBOL))  # it follows from the next trade on
    await fall(bot, peak, "0.012")  # a stop that began to follow anew would be at 0.016

    await until("the stop to be told", lambda: bot.told(OrdersEventKind.STOP_LOSS))


async def test_a_distance_that_the_exchange_does_not_have_is_refused_by_its_filter_before_anything_is_bought(
    small_paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    tight = FOLLOWING | {"trailingRatio": "0.0005"}
    async with bot_side(small_paper, account, tmp_path / "bot.db", **tight) as bot:
        result = await bot.enter()
        assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "TRAILING_DELTA")
        assert "5 is not within 10 and 2000" in result.message
        assert (await bot.paper.account(bot.account.uid))["trades"] == []
