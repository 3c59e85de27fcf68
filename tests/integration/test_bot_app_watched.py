"""What a bot tells people beside its status: the audit log, and what others do on its symbol."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_process import (
    bot_process,
    by_hand,
    config,
    enter,
    flat,
    make,
    metric,
    settings,
)
from support.waiting import until
from tradingbot.gateway.port import NewOrder
from tradingbot.model import OrderType, Side, TimeInForce

pytestmark = pytest.mark.integration
STAY_IN = {"stopLossRatio": "0.3", "takeProfitRatio": "0.3"}


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000")


REPORTED = {
    "status": "conditions",
    "symbol": "symbol",
    "position": "position.side",
    "qty": "position.quantity",
    "avg_price": "position.averagePrice",
    "active_orders": "openOrders",
    "oco_orders": "ocoOrders",
    "last_order_check": "orders.lastCheckTime",
    "position_validated": "position.validated",
    "balance_synced": "balance.lastSyncTime",
    "risk_level": "risk.level",
    "volatility": "risk.volatility",
    "drawdown": "risk.drawdown",
    "safe_mode": "safeMode.engaged",
    "circuit_breaker_state": "circuitBreaker.state",
    "total_trades": "trades.total",
    "successful_trades": "trades.successful",
    "failed_trades": "trades.failed",
    "total_pnl": "pnl.total",
    "max_drawdown": "pnl.maxDrawdown",
    "sharpe_ratio": "pnl.sharpe",
    "api_calls_count": "api.calls",
    "api_errors_count": "api.errors",
    "last_api_error": "api.lastError",
    "memory_usage": "usage.memoryBytes",
    "cpu_usage": "usage.cpuSeconds",
}
"""What people ask of a bot, and where its status has it."""
NOTHING_YET = {"pnl.sharpe", "api.lastError"}
"""Null until there are round trips, and until a call failed."""


def lines_of(audit: list[dict[str, Any]], event: str, **wanted: object) -> list[dict[str, Any]]:
    return [line for line in audit if line["event"] == event and wanted.items() <= line.items()]


async def test_one_id_leads_from_signal_to_exit_and_the_status_reports_all_that_is_asked_for(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account, protection=STAY_IN)) as bot:
        held = await enter(bot)
        await bot.until(flat, 60)  # by the strategy's own signal
        await until("the sale in the log", lambda: lines_of(bot.audit, "fill", side="SELL"))
        audit = list(bot.audit)

    told = json.loads(held.model_dump_json(by_alias=True))
    for asked, path in REPORTED.items():
        value = told
        for name in path.split("."):
            assert name in value, f"{asked}: {path} is not reported"
            value = value[name]
        assert (value not in (None, [])) or path in NOTHING_YET, f"{asked}: {path} is empty"
    assert [pair["state"] for pair in told["ocoOrders"]] == ["Working"]
    (send,) = lines_of(audit, "send", kind="Entry")[:1]
    signal = send["signal_id"]
    assert signal.startswith("BTCUSDT-1s-")
    assert (send["reason"], send["capital"], send["max_position_value"]) == ("Signal", "1000", "500")
    assert Decimal(send["quote_free"]) == 10000
    assert Decimal(send["price"]) >= Decimal(send["ask"]) >= Decimal(send["bid"])
    assert "close=" in send["signal"]
    mine = [line for line in audit if line["signal_id"] == signal]
    entry_id, *legs = send["client_ids"]
    assert {order.related_position for order in held.open_orders} == {entry_id}
    assert lines_of(mine, "outcome", client_id=send["client_id"], state="Acknowledged")
    assert lines_of(mine, "order", client_id=entry_id, status="FILLED", position=entry_id)
    bought = sum(Decimal(line["quantity"]) for line in lines_of(mine, "fill", client_id=entry_id))
    assert bought == Decimal(send["quantity"])
    for leg in legs:  # protected, and taken off for the sale
        told = [line["status"] for line in lines_of(mine, "order", client_id=leg, position=entry_id)]
        assert told[-1] in {"CANCELED", "EXPIRED"}
        assert "NEW" in told
    (sale,) = lines_of(mine, "send", kind="Exit")[:1]
    assert (sale["reason"], sale["position"]) == ("Signal", entry_id)
    assert lines_of(mine, "fill", client_id=sale["client_id"], side="SELL")
    assert lines_of(mine, "send", kind="Cancel", reason="Signal")


async def test_each_refusal_is_one_line_with_its_code_and_figures_and_no_secret_is_logged(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    narrow = {"maxSpreadRatio": "0.00000001"}
    async with bot_process(make(tmp_path, exchange, account, entry=narrow)) as bot:
        await bot.until(lambda status: status.ready)
        assert (await bot.grant())[0] == 200
        await until("a refusal", lambda: lines_of(bot.audit, "refuse", code="SpreadTooWide"), 60)
        counted = await metric(bot, "tradingbot_entries_refused_total")
        audit = await until("its line", lambda: bot.audit if len(lines_of(bot.audit, "refuse")) >= counted else None)
        _, metrics = await bot.probe("/metrics")
    (wide, *_) = lines_of(audit, "refuse", code="SpreadTooWide")
    assert "spread=" in wide["detail"]
    assert "limit=1E-8" in wide["detail"]
    assert {"bid", "ask", "quote_free", "capital", "signal", "daily_loss", "drawdown"} <= wide.keys()
    refused = lines_of(audit, "refuse", kind="Entry")
    assert len({line["signal_id"] for line in refused}) == len(refused)
    assert not lines_of(audit, "send", kind="Entry")
    everything = "".join(bot.log) + metrics
    assert account.secret_key not in everything
    assert account.api_key not in everything
    assert "signature=" not in everything


async def test_an_order_of_another_client_is_told_when_it_comes_and_goes_and_is_never_touched(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    calm = {"parameters": {"fast": 100, "slow": 300}}
    far = (await exchange.last_price("BTCUSDT") * Decimal("0.8")).quantize(Decimal("0.01"))
    async with by_hand(exchange, account) as hand, bot_process(make(tmp_path, exchange, account, strategy=calm)) as bot:

        async def buy(client_id: str) -> None:
            order = NewOrder("BTCUSDT", client_id, Side.BUY, OrderType.LIMIT, Decimal("0.01"), far)
            await hand.place_order(replace(order, time_in_force=TimeInForce.GTC), hand.stamp())

        await buy("before")
        await bot.until(lambda status: status.ready and status.foreign_orders == ["before"])
        assert (await bot.grant())[0] == 200
        await buy("meanwhile")  # told by the user stream, not by the look at all orders each minute
        status = await bot.until(lambda told: told.foreign_orders == ["before", "meanwhile"], 5)
        assert status.orders is not None
        assert (status.orders.foreign, status.orders.active) == (2, 0)
        assert await metric(bot, "tradingbot_foreign_orders") == 2
        await hand.cancel_order("BTCUSDT", "meanwhile", "by-hand", hand.stamp())
        await bot.until(lambda told: told.foreign_orders == ["before"], 5)
        safe = settings(exchange.base_url, strategy=calm, safeMode=True)
        assert (await bot.call("PUT", "/v1/config", config(safe, 2)))[0] == 200
        await bot.until(lambda told: told.safe_mode.acknowledged)
        bot.process.terminate()
        await bot.process.wait()
        assert [order.client_order_id for order in await hand.open_orders("BTCUSDT")] == ["before"]
        told = [json.loads(line)["message"] for line in bot.log if '"foreign order"' in line]
    assert told == [
        "order before is not this bot's and is left alone",
        "order meanwhile is not this bot's and is left alone",
        "order meanwhile, not this bot's, is no longer open",
    ]
