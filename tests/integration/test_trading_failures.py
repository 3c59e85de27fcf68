"""What is most reported of live trading bots, each with its remedy, over real sockets.

The table of docs/emergencies.md names, for each of the eleven, these tests and those of other modules.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import SYMBOL, BotSide, bot_settings, bot_side, exchange_for
from support.waiting import until
from tradingbot.clocks import utc_now
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.errors import (
    AmbiguousError,
    BannedError,
    ClockSkewError,
    ExchangeError,
    NotSentError,
    RateLimitedError,
    RejectedError,
)
from tradingbot.gateway.port import NewOrder
from tradingbot.model import OrderStatus, OrderType, Side
from tradingbot.orders.types import EntryOutcome, ProtectionState
from tradingbot.recovery.circuit_breaker import BreakerPanel, CircuitOpenError
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]
FOUND_SECONDS = 10.0


@pytest_asyncio.fixture(loop_scope="module")
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000", BTC="0.01")


@pytest_asyncio.fixture(loop_scope="module")
async def bot(exchange: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    async with bot_side(exchange, account, tmp_path / "bot.db") as side:
        yield side


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param({"kind": "lost_answer"}, id="cut"),
        pytest.param({"kind": "error_after", "code": -1007}, id="-1007"),
        pytest.param({"kind": "error_after", "code": -1006}, id="-1006"),
    ],
)
async def test_an_order_of_unknown_outcome_is_never_sent_again_but_asked_for(
    bot: BotSide, loss: dict[str, Any]
) -> None:
    await bot.paper.start_fault(**loss, endpoints="POST /api/v3/orderList/otoco", count=1)

    assert (await bot.enter()).outcome in {EntryOutcome.UNKNOWN, EntryOutcome.FILLED}
    await bot.tick_until(lambda: bot.orders.entries_quiet, FOUND_SECONDS)

    orders = await bot.exchange.all_orders(SYMBOL, from_order_id=0)
    assert [order.status for order in orders if order.client_order_id.endswith("-en")] == [OrderStatus.FILLED]
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_a_limit_or_a_ban_is_kept_for_as_long_as_the_exchange_says(
    exchange: PaperExchange, account: TestAccount
) -> None:
    panel = BreakerPanel(time.monotonic, utc_now)
    keys = Credentials(account.api_key, account.secret_key)
    gateway = BinanceExchange.create(bot_settings(exchange.base_url).exchange, keys, panel, time.monotonic)
    try:
        await gateway.sync_clock()
        for kind, error in (("rate_limited", RateLimitedError), ("banned", BannedError)):
            number = await exchange.start_fault(kind, retryAfter=1)
            with pytest.raises(error):
                await gateway.account()
            for urgent in (False, True):
                with pytest.raises(CircuitOpenError):
                    await gateway.open_orders(SYMBOL, urgent=urgent)
            befallen = [row for row in await exchange.fault_record() if row.get("applied") == number]
            assert len(befallen) == 1
            await exchange.clear_faults()
            await until("the wait to be over", lambda: panel.wait_seconds() <= 0)
            assert (await gateway.account()).uid == str(account.uid)
    finally:
        await gateway.close()


async def test_a_refused_pair_becomes_a_stop_and_a_refused_stop_a_sale(bot: BotSide) -> None:
    await bot.enter()
    await bot.paper.start_fault("list_refused")
    await bot.exchange.cancel_order(SYMBOL, bot.leg("sl").client_order_id, "by-hand-1", bot.exchange.stamp())
    await bot.tick_until(lambda: [order.type for order in bot.orders.open_orders] == [OrderType.STOP_LOSS])
    assert bot.orders.protection.state is ProtectionState.PROTECTED

    await bot.paper.start_fault("order_refused", count=1)
    await bot.exchange.cancel_order(SYMBOL, bot.leg("sl").client_order_id, "by-hand-2", bot.exchange.stamp())
    await bot.tick_until(lambda: bot.orders.protection.state is ProtectionState.FLAT and not bot.orders.held)

    assert bot.orders.unprotected_seconds < bot.settings.protection.deadline_seconds
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


SALE = NewOrder(SYMBOL, "id-1", Side.SELL, OrderType.MARKET, Decimal("0.001"))


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        pytest.param({"kind": "rest_status", "status": 502, "seconds": 30}, AmbiguousError, -1000, id="502"),
        pytest.param({"kind": "maintenance"}, AmbiguousError, 0, id="html of a firewall"),
        pytest.param({"kind": "error", "code": -1008}, AmbiguousError, -1008, id="overloaded"),
        pytest.param({"kind": "lost_answer"}, AmbiguousError, 0, id="dropped after it was taken"),
        pytest.param({"kind": "lost_request"}, AmbiguousError, 0, id="dropped before it was taken"),
        pytest.param({"kind": "error_after", "code": -1007}, AmbiguousError, -1007, id="-1007"),
        pytest.param({"kind": "rate_limited", "retryAfter": 7}, RateLimitedError, -1003, id="429"),
        pytest.param({"kind": "banned", "retryAfter": 7}, BannedError, -1003, id="418"),
        pytest.param({"kind": "order_refused"}, RejectedError, -2010, id="-2010"),
        pytest.param({"kind": "order_refused", "code": -1013}, RejectedError, -1013, id="-1013"),
        pytest.param({"kind": "clock_skew", "milliseconds": 60_000}, ClockSkewError, -1021, id="-1021"),
    ],
)
async def test_each_shape_of_error_on_the_wire_has_its_class(
    exchange: PaperExchange, account: TestAccount, fault: dict[str, Any], error: type[ExchangeError], code: int
) -> None:
    gateway = exchange_for(bot_settings(exchange.base_url), account)
    try:
        await gateway.sync_clock()
        await exchange.start_fault(**fault)
        with pytest.raises(ExchangeError) as raised:
            await gateway.place_order(SALE, gateway.stamp())
    finally:
        await gateway.close()
    assert type(raised.value) is error
    assert raised.value.api_code == code
    assert not isinstance(raised.value, NotSentError)
    if isinstance(raised.value, RateLimitedError):
        assert raised.value.retry_after == 7
