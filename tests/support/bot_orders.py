"""The bot's exchange side, assembled for tests: gateway, store, order manager and streams on a paper exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import cast

from paper_exchange.testing import PaperExchange, TestAccount
from support.waiting import until
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.connection_limits import ConnectionBudget
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.port import Exchange, OpenGuard
from tradingbot.gateway.streams import Streams
from tradingbot.model import SymbolRules
from tradingbot.orders.manager import OrderManager
from tradingbot.orders.types import EntryRequest, EntryResult, OrdersEvent, OrdersEventKind, TrackedOrder
from tradingbot.state.store import Store
from tradingbot_api.v1alpha1 import BotSettings

SYMBOL = "BTCUSDT"


def bot_settings(base_url: str, symbol: str = SYMBOL, **protection: object) -> BotSettings:
    """Settings for a paper exchange with stop and take-profit at one per cent."""
    return BotSettings.model_validate(
        {
            "symbol": symbol,
            "exchange": {"environment": "Paper", "baseURL": base_url, "credentialsSecretRef": {"name": "keys"}},
            "strategy": {"name": "ema-cross", "interval": "1s"},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.01", "takeProfitRatio": "0.01", **protection},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
        }
    )


def exchange_for(settings: BotSettings, account: TestAccount) -> BinanceExchange:
    """The gateway with the account's keys and no circuit breaker."""
    keys = Credentials(account.api_key, account.secret_key)
    return BinanceExchange.create(settings.exchange, keys, OpenGuard(), time.monotonic)


class LosingAnswers:
    """A gateway whose named calls lose the answer: after they were executed, or before they are sent."""

    def __init__(self, exchange: BinanceExchange) -> None:
        self._exchange = exchange
        self.before: dict[str, BaseException] = {}
        self.after: dict[str, BaseException] = {}
        self.always: dict[str, BaseException] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        value = getattr(self._exchange, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*args: object, **kwargs: object) -> object:
            self.calls.append(name)
            if name in self.always:
                raise self.always[name]
            if name in self.before:
                raise self.before.pop(name)
            answer = await value(*args, **kwargs)
            if name in self.after:
                raise self.after.pop(name)
            return answer

        return call


@dataclass
class BotSide:
    """One running exchange side; `stop` drops it as a crash would, the store file stays."""

    paper: PaperExchange
    account: TestAccount
    settings: BotSettings
    exchange: BinanceExchange
    rules: SymbolRules
    store: Store
    orders: OrderManager
    faults: LosingAnswers
    events: list[OrdersEvent] = field(default_factory=list)
    refusal: str | None = None
    halted: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def enter(self, quantity: str = "0.004") -> EntryResult:
        """Buy at the present ask."""
        return await self.orders.enter(await self.request(quantity))

    async def request(self, quantity: str = "0.004") -> EntryRequest:
        """An entry as it is decided now."""
        ask = (await self.exchange.book_ticker(self.rules.symbol)).ask
        return EntryRequest(Decimal(quantity), ask, "test", self.settings, time.monotonic())

    def leg(self, purpose: str) -> TrackedOrder:
        """The open order of that purpose."""
        return next(order for order in self.orders.open_orders if order.purpose == purpose)

    def told(self, kind: OrdersEventKind) -> bool:
        """Whether an event of that kind was told."""
        return any(event.kind is kind for event in self.events)

    async def tick_until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Tick as the bot does until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            await self.orders.tick()
            await asyncio.sleep(0.1)

    async def base_at_exchange(self) -> Decimal:
        """Free and locked base of the account."""
        return (await self.exchange.account()).balance(self.rules.base_asset).total


@asynccontextmanager
async def bot_side(
    paper: PaperExchange,
    account: TestAccount,
    store_path: Path,
    *,
    stream: bool = True,
    faulty: bool = False,
    start: bool = True,
    symbol: str = SYMBOL,
    announced_seconds: float = 0.0,
    seed: int = 1,
    **protection: object,
) -> AsyncIterator[BotSide]:
    """Start the exchange side on a store; `faulty` puts LosingAnswers in front of the gateway."""
    settings = bot_settings(paper.base_url, symbol, **protection)
    exchange = exchange_for(settings, account)
    await exchange.sync_clock()
    rules = await exchange.rules(symbol)
    store = Store.open(store_path)
    events: list[OrdersEvent] = []
    side: BotSide
    faults = LosingAnswers(exchange)
    orders = OrderManager(
        exchange=cast(Exchange, faults) if faulty else exchange,
        store=store,
        rules=rules,
        account_uid=str(account.uid),
        settings=lambda: side.settings,
        may_enter=lambda: side.refusal,
        may_announce=lambda: side.refusal,
        announced_seconds=announced_seconds,
        halted=lambda: side.halted,
        notify=events.append,
        monotonic=time.monotonic,
        random=Random(seed),
    )
    side = BotSide(paper, account, settings, exchange, rules, store, orders, faults, events)
    if start:
        await orders.start()
    if stream:
        streams = Streams(
            stream_url=exchange.addresses.streams,
            ws_api_url=exchange.addresses.ws_api,
            symbol=symbol,
            interval="1s",
            subscription=exchange.user_subscription,
            wait=OpenGuard(),
            connections=ConnectionBudget(lambda: 1, time.monotonic),
            monotonic=time.monotonic,
            random=Random(2),
        )

        async def pump() -> None:
            while True:
                for event in (await streams.next()).user:
                    await orders.on_user_event(event)

        side.tasks = [asyncio.create_task(streams.run()), asyncio.create_task(pump())]
        await until("the user stream", lambda: streams.user_alive)
    try:
        yield side
    finally:
        for task in side.tasks:
            task.cancel()
        for task in side.tasks:
            with suppress(asyncio.CancelledError):
                await task
        await store.close()
        await exchange.close()


@asynccontextmanager
async def two_processes(
    paper: PaperExchange, account: TestAccount, folder: Path
) -> AsyncIterator[tuple[BotSide, BotSide]]:
    """Two of one bot, each with a store of its own and no user stream; the newer one is not started yet."""
    async with (
        bot_side(paper, account, folder / "older.db", stream=False) as older,
        bot_side(paper, account, folder / "newer.db", stream=False, start=False) as newer,
    ):
        yield older, newer
