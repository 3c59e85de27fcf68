"""A paper exchange that is killed under load: nothing that it answered is lost, and nothing is half done."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from campaigns.paper_ledger import needed_locks, units
from paper_exchange.journal import replay
from paper_exchange.server.app import wall_clock_ms
from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange

pytestmark = pytest.mark.integration

SEED = 11
KILLS = 4
TRADERS = 4
FEWEST_ANSWERS = 40
SYMBOL = "BTCUSDT"
JOURNAL = "journal.jsonl"


@dataclass
class Trader:
    """One account, what it was answered, and what it sent without an answer."""

    account: TestAccount
    placed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The answer to each order, by client id."""
    canceled: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)


async def signed(exchange: PaperExchange, trader: Trader, method: str, path: str, **params: str) -> Any:
    """A signed request; a refusal is a ValueError, a broken connection an aiohttp.ClientError."""
    query = urlencode(params | {"timestamp": str(wall_clock_ms()), "recvWindow": "60000"})
    signature = hmac.new(trader.account.secret_key.encode(), query.encode(), hashlib.sha256).hexdigest()
    url = f"{exchange.base_url}{path}?{query}&signature={signature}"
    async with exchange.session.request(method, url, headers={"X-MBX-APIKEY": trader.account.api_key}) as answer:
        body = json.loads(await answer.text())
        if answer.status != 200:
            raise ValueError(body)
        return body


async def trade(
    exchange: PaperExchange, trader: Trader, random: Random, tag: str, answered: Callable[[], None]
) -> None:
    """Place and cancel until the exchange is gone."""
    number = 0
    while True:
        number += 1
        ident = f"{tag}-{number}"
        trader.unanswered.add(ident)
        try:
            side = random.choice(("BUY", "SELL"))
            resting = {"type": "LIMIT", "timeInForce": "GTC", "price": "30000" if side == "BUY" else "90000"}
            terms = random.choice((resting, resting, {"type": "MARKET"}))
            trader.placed[ident] = await signed(
                exchange, trader, "POST", "/api/v3/order", symbol=SYMBOL, side=side, quantity="0.001",
                newClientOrderId=ident, newOrderRespType="FULL", **terms,
            )  # fmt: skip
            trader.unanswered.discard(ident)
            answered()
            if trader.placed[ident]["status"] == "NEW" and random.random() < 0.6:
                trader.unanswered.add(ident)
                await signed(exchange, trader, "DELETE", "/api/v3/order", symbol=SYMBOL, origClientOrderId=ident)
                trader.unanswered.discard(ident)
                trader.canceled.add(ident)
        except (aiohttp.ClientError, ConnectionError):
            return


async def kill_under_load(exchange: PaperExchange, traders: list[Trader], random: Random, tag: str) -> None:
    """All trade, until the process is killed while answers are on their way and requests half read."""
    wanted = sum(len(trader.placed) for trader in traders) + random.randint(10, 120)
    enough = asyncio.Event()

    def answered() -> None:
        if sum(len(trader.placed) for trader in traders) >= wanted:
            enough.set()

    tasks = [
        asyncio.create_task(trade(exchange, trader, random, f"{tag}-{number}", answered))
        for number, trader in enumerate(traders)
    ]
    await asyncio.wait_for(enough.wait(), 60)
    await exchange.kill()
    await asyncio.gather(*tasks)


async def check(exchange: PaperExchange, trader: Trader) -> None:
    """What was answered is there, and what is there is whole."""
    orders = await signed(exchange, trader, "GET", "/api/v3/allOrders", symbol=SYMBOL, limit="1000")
    trades = await signed(exchange, trader, "GET", "/api/v3/myTrades", symbol=SYMBOL, limit="1000")
    account = await signed(exchange, trader, "GET", "/api/v3/account")
    found = {order["clientOrderId"]: order for order in orders}
    assert trader.placed.keys() <= found.keys() <= trader.placed.keys() | trader.unanswered
    for ident, answer in trader.placed.items():
        order = found[ident]
        assert order["orderId"] == answer["orderId"]
        if ident in trader.canceled:
            assert order["status"] == "CANCELED"
        elif ident not in trader.unanswered:
            assert (order["status"], order["executedQty"]) == (answer["status"], answer["executedQty"])
    # Whole: an order's executed quantity is that of its trades, and the balances are what trades and orders make.
    owned = {"USDT": units("1000000"), "BTC": units("10")}
    for row in trades:
        sign = 1 if row["isBuyer"] else -1
        owned["BTC"] += sign * units(row["qty"])
        owned["USDT"] -= sign * units(row["quoteQty"])
        owned[row["commissionAsset"]] -= units(row["commission"])
    for order in orders:
        executed = sum(units(row["qty"]) for row in trades if row["orderId"] == order["orderId"])
        assert executed == units(order["executedQty"]), order
    held = {row["asset"]: units(row["free"]) + units(row["locked"]) for row in account["balances"]}
    assert held == owned
    locked = {row["asset"]: units(row["locked"]) for row in account["balances"] if units(row["locked"])}
    still = [order for order in orders if order["status"] in ("NEW", "PARTIALLY_FILLED")]
    assert locked == needed_locks(still)


async def test_nothing_that_was_answered_is_lost_when_the_exchange_is_killed_under_load(tmp_path: Path) -> None:
    random = Random(SEED)
    traders: list[Trader] = []
    for round_number in range(KILLS + 1):
        async with spawn_paper_exchange(tmp_path, symbols=SYMBOL, journal=tmp_path / JOURNAL) as exchange:
            if not traders:
                traders = [Trader(await exchange.create_account(USDT="1000000", BTC="10")) for _ in range(TRADERS)]
            await asyncio.gather(*(check(exchange, trader) for trader in traders))
            if round_number == KILLS:
                break
            await kill_under_load(exchange, traders, random, str(round_number))
    answered = sum(len(trader.placed) for trader in traders)
    print(f"{KILLS} kills, {answered} orders answered, {sum(len(one.unanswered) for one in traders)} without an answer")
    assert answered >= FEWEST_ANSWERS
    again = replay(tmp_path / JOURNAL, lambda _: None)
    print(f"journal: {again.starts} starts, {again.inputs} inputs, {again.outputs} events")
    assert not again.difference
    assert again.starts == KILLS + 1
    assert again.outputs > answered
