"""From protected to sold there is only the sale; what can be protected is, whatever else cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side, two_processes
from support.python_binance import client_of
from support.waiting import until
from tradingbot.gateway.errors import AmbiguousError
from tradingbot.model import OrderUpdate
from tradingbot.orders.types import ExitOutcome, OrdersEventKind, ProtectionState
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration
NO_ANSWER = AmbiguousError("no answer in time")
SENDS = {"place_order", "place_oco", "place_otoco"}


@pytest.fixture
async def bot(paper: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    async with bot_side(paper, account, tmp_path / "bot.db", faulty=True) as side:
        await side.enter()
        yield side


async def cancel_by_hand(bot: BotSide) -> None:
    """Cancel the pair as somebody else would, and wait until the bot was told."""
    await bot.exchange.cancel_list(SYMBOL, bot.leg("sl").order_list_id, "by-hand", bot.exchange.stamp())
    await until("no open order", lambda: not bot.orders.open_orders)


async def test_between_the_cancel_of_the_protection_and_the_sale_nothing_is_asked(bot: BotSide) -> None:
    bot.faults.calls.clear()

    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT

    calls = bot.faults.calls
    assert calls[calls.index("cancel_list") :][:2] == ["cancel_list", "place_order"]


@pytest.mark.parametrize("read", ["account", "rules"])
async def test_an_exit_that_cannot_be_prepared_leaves_the_protection(bot: BotSide, read: str) -> None:
    bot.faults.always[read] = NO_ANSWER
    bot.faults.calls.clear()

    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FAILED

    assert "cancel_list" not in bot.faults.calls
    assert bot.orders.protection.state is ProtectionState.PROTECTED


async def test_an_exit_without_a_price_is_sold_at_the_market(bot: BotSide) -> None:
    bot.faults.always["book_ticker"] = NO_ANSWER

    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT

    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_what_the_stop_sold_while_it_was_being_cancelled_is_not_sold_again_from_the_base_of_others(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
        await bot.enter()
        stop, cancel = bot.leg("sl").stop_price, bot.exchange.cancel_list

        async def too_late(*args: Any, **more: Any) -> object:
            await paper.push_trade(SYMBOL, stop - 20)
            return await cancel(*args, **more)

        bot.exchange.cancel_list = too_late  # type: ignore[assignment, method-assign]

        assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT

        verdict = await bot.orders.reconcile()
        assert verdict.kind is VerdictKind.EXACT
        assert bot.orders.books.oversold == 0
        assert bot.orders.books.round_trips.total == 1


async def test_what_another_process_sells_at_the_same_moment_is_not_sold_again_from_the_base_of_others(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await older.enter()
        await newer.orders.start()
        cancel = newer.exchange.cancel_list

        async def too_late(*args: Any, **more: Any) -> object:
            await older.orders.exit("Signal")
            return await cancel(*args, **more)

        newer.exchange.cancel_list = too_late  # type: ignore[assignment, method-assign]

        assert (await newer.orders.exit("Signal")).outcome is ExitOutcome.FLAT

        assert newer.orders.books == older.orders.books
        assert newer.orders.books.oversold == 0


async def test_a_position_that_a_former_process_may_be_selling_is_protected_before_it_is_sold(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with two_processes(paper, account, tmp_path) as (older, newer):
        await older.enter()
        await newer.orders.start()
        pair = newer.leg("sl").order_list_id
        gone = await older.exchange.cancel_list(SYMBOL, pair, "tb-older", older.exchange.stamp())
        for report in gone.reports:
            await newer.orders.on_user_event(OrderUpdate(report, "CANCELED", None, None, report.time_ms))

        assert (await newer.orders.exit("Signal")).code == "ProtectedFirst"
        assert newer.orders.protection.state is ProtectionState.PROTECTED
        assert newer.orders.held == older.orders.held > 0

        assert (await newer.orders.exit("Signal")).outcome is ExitOutcome.FLAT


async def test_a_position_whose_protection_somebody_else_ends_during_an_exit_is_protected_and_not_sold(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
        await bot.enter()
        cancel, held = bot.exchange.cancel_list, bot.orders.held

        async def too_late(symbol: str, list_id: int, *args: Any) -> object:
            await cancel(symbol, list_id, "by-hand", bot.exchange.stamp())
            return await cancel(symbol, list_id, *args)

        bot.exchange.cancel_list = too_late  # type: ignore[assignment, method-assign]
        assert (await bot.orders.exit("Signal")).code == "CancelRefused"
        assert bot.orders.protection.state is ProtectionState.PROTECTED
        assert bot.orders.held == held

        bot.exchange.cancel_list = cancel  # type: ignore[method-assign]
        assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT


async def test_a_rest_without_a_stop_gets_its_own_and_the_pair_stays(tmp_path: Path) -> None:
    # The fee is taken in BNB, so what was left out for it is held: here it is worth more than the least notional.
    async with running_paper_exchange(Options(symbols=(SYMBOL, "BNBUSDT"))) as paper:
        account = await paper.create_account(USDT="100000", BNB="10")
        async with client_of(paper, account) as client:
            await client.toggle_bnb_burn_spot_margin(spotBNBBurn="true")
        async with bot_side(paper, account, tmp_path / "bot.db", faulty=True) as bot:
            assert (await bot.enter("0.5")).code == "Filled"

            assert "cancel_list" not in bot.faults.calls
            assert bot.orders.protection.state is ProtectionState.PROTECTED
            assert bot.orders.open_lists == 2
            stops = [order.quantity for order in bot.orders.open_orders if order.purpose == "sl"]
            assert sum(stops) == bot.orders.books.quantity == Decimal("0.5")
            assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT
            assert (await bot.orders.reconcile()).synced


async def test_protection_is_restored_while_everything_but_the_open_orders_cannot_be_read(bot: BotSide) -> None:
    for read in ("account", "book_ticker", "all_orders", "order_trades", "trades", "rules"):
        bot.faults.always[read] = NO_ANSWER
    await cancel_by_hand(bot)

    await bot.tick_until(lambda: bot.told(OrdersEventKind.PROTECTION_RESTORED))

    assert sorted(order.purpose for order in bot.orders.open_orders) == ["sl", "tp"]


async def test_a_protection_that_is_refused_like_its_sale_is_not_sent_again_at_once_and_says_why(
    paper: PaperExchange, bot: BotSide
) -> None:
    await paper.start_fault("list_refused")
    await paper.start_fault("order_refused")
    await cancel_by_hand(bot)
    bot.faults.calls.clear()

    for _ in range(20):
        await bot.orders.tick()

    assert sum(call in SENDS for call in bot.faults.calls) <= 2 * 4
    assert bot.orders.protection.state is ProtectionState.UNPROTECTED
    assert "refused: " in bot.orders.protection.message
    await paper.clear_faults()
    await bot.tick_until(lambda: bot.told(OrdersEventKind.PROTECTION_RESTORED))
    assert "refused: " not in bot.orders.protection.message
