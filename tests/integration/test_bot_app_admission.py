"""What the exchange would refuse is known before an entry is, and takes nothing off the protection of a position."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_process import bot_process, by_hand, cancel_protection, config, make, settings
from tradingbot.lab.paper import drop_log
from tradingbot.lab.sim import SimRun, simulate
from tradingbot_api.bot_http import BotStatus

pytestmark = pytest.mark.integration
CALM = {"parameters": {"fast": 100, "slow": 300}}
"""Averages that do not cross while a test runs."""


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000")


async def test_a_key_that_can_withdraw_is_refused_until_it_is_allowed(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    key = await exchange.create_key(account.uid, "USER_DATA", "TRADE", "WITHDRAW")
    async with bot_process(make(tmp_path, exchange, key, strategy=CALM)) as bot:
        await bot.until_condition("BalanceSynced", "False", "KeyCanWithdraw", seconds=10)
        assert bot.condition("TradingAllowed") == ("False", "KeyCanWithdraw")
        assert not bot.status.ready
        assert (await bot.probe("/readyz"))[0] == 503
        allowed = settings(exchange.base_url, strategy=CALM, exchange={"allowWithdrawKey": True})
        assert (await bot.call("PUT", "/v1/config", config(allowed, 2)))[0] == 200
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=10)


async def test_a_key_that_may_not_trade_is_told_as_that(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    key = await exchange.create_key(account.uid, "USER_DATA")
    async with bot_process(make(tmp_path, exchange, key, strategy=CALM)) as bot:
        await bot.until_condition("BalanceSynced", "False", "KeyCannotTrade", seconds=10)


async def test_a_refused_test_order_stops_entries_and_neither_protection_nor_exits(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        await bot.grant()
        await bot.until(lambda status: status.position is not None and status.position.side == "Long", 60)
        await bot.kill()
    held = await exchange.account(account.uid)
    assert len(held["openOrders"]) == 2
    await exchange.start_fault("order_refused", code=-1013, endpoints=["POST /api/v3/order/test"])
    await exchange.start_fault("delay", seconds=4, count=1, endpoints=["GET /sapi/v1/account/apiRestrictions"])
    await exchange.start_fault("delay", seconds=4, count=1, endpoints=["GET /api/v3/klines"])
    async with by_hand(exchange, account) as hand:
        await cancel_protection(hand)

    def ended(status: BotStatus) -> bool:
        return status.position is not None and status.position.side == "Flat"

    async with bot_process(folder) as bot:
        await bot.until_condition("Protected", "True", "Protected", seconds=15)
        assert not bot.status.ready, "what only entries need is asked for while the position is protected"
        await bot.until(lambda status: status.ready)
        await bot.grant()
        await bot.until_condition("TradingAllowed", "False", "TestOrderRefused", seconds=10)
        await bot.until(ended, 60)
        assert bot.condition("BalanceSynced")[0] == "True"


@pytest.fixture
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[drop_log])
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_quiet")
def test_a_symbol_that_halts_and_comes_back_with_other_filters_is_seen_within_the_session() -> None:
    resumed: list[int] = []

    async def beside(exchange: PaperExchange, account: TestAccount) -> None:
        def change(**market: Any) -> list[dict[str, Any]]:
            return [{"at": 0, "market": {"symbol": "BTCUSDT", **market}}]

        await asyncio.sleep(20)
        await exchange.begin_scenario(change(status="HALT"))
        await asyncio.sleep(50)
        await exchange.start_fault("error", code=-1121, count=1, endpoints=["GET /api/v3/exchangeInfo"])
        await asyncio.sleep(80)
        await exchange.begin_scenario(change(filters={"stepSize": "0.001"}))
        await exchange.begin_scenario(change(status="TRADING"))
        resumed.append(len((await exchange.account(account.uid))["trades"]))
        await asyncio.sleep(265)

    report = simulate(SimRun("BTCUSDT", timedelta(seconds=420)), lambda _: None, beside)

    assert report.events["SymbolHalted"] == 2, "halted, then unknown"
    assert report.events["Connected"] == 1
    later = report.account["trades"][resumed[0] :]
    bought = {trade["orderId"] for trade in later if trade["isBuyer"]}
    assert len(bought) >= 2
    for order in bought:
        assert sum(Decimal(trade["qty"]) for trade in later if trade["orderId"] == order) % Decimal("0.001") == 0
