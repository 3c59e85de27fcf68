"""Whole bots behind one address on virtual time, paced and allotted as by an operator, on an exchange that counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import structlog

from paper_exchange.core.errors import ExchangeError
from paper_exchange.limits import Limits
from paper_exchange.testing import Options as ExchangeOptions
from paper_exchange.testing import PaperExchange, running_paper_exchange, write_keys
from paper_exchange.virtual_loop import VirtualLoop
from support.operator_objects import seen_bot
from support.still_market import write_still_market
from tradingbot.app import BotApp, Options
from tradingbot.clocks import Clocks
from tradingbot.lab.paper import paper_settings
from tradingbot.lab.sim import LATENCY, START
from tradingbot.monitoring.health import ConditionClock
from tradingbot.monitoring.report import build_status
from tradingbot_api.bot_http import GRANT_RENEWAL_SECONDS, GRANT_TTL_SECONDS, BotConfig, BotIdentity
from tradingbot_api.v1alpha1 import BotSettings, Interval
from tradingbot_operator.egress import address_of
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.shares import Shares
from tradingbot_operator.start_pace import StartPace

SYMBOL = "BTCUSDT"
CALM = {"interval": Interval.M1, "parameters": {"fast": 100, "slow": 300}}


def drop(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent


@dataclass
class Address:
    """The bots of one address, and what the exchange counted of it by minutes of its clock."""

    loop: VirtualLoop
    folder: Path
    limit: int
    exchange: PaperExchange
    used: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    apps: dict[BotKey, BotApp] = field(default_factory=dict)
    running: list[asyncio.Task[None]] = field(default_factory=list)
    bots: Inventory[SeenBot] = field(default_factory=Inventory)

    def __post_init__(self) -> None:
        pods: Inventory[SeenPod] = Inventory()
        self.pace = StartPace(self.limit)
        self.shares = Shares((), self.limit, bots=self.bots, pods=pods, time=self.loop.time)

    async def make(self, number: int) -> SeenBot:
        """A TradingBot with an account of its own; nothing of it runs yet."""
        account = await self.exchange.create_account(USDT="10000")
        bot = seen_bot()
        bot = SeenBot(**{**bot.__dict__, "key": BotKey("trading", f"b{number}"), "uid": f"uid-{number}"})
        folder = self.folder / bot.key.name
        (folder / "state").mkdir(parents=True)
        write_keys(folder / "keys", account.api_key, account.secret_key)
        self.bots.see(bot)
        return bot

    def start(self, bot: SeenBot) -> None:
        """Its process starts."""
        settings: BotSettings = paper_settings(SYMBOL, self.exchange.base_url)
        settings = settings.model_copy(update={"strategy": settings.strategy.model_copy(update=CALM)})
        loop, folder = self.loop, self.folder / bot.key.name
        clocks = Clocks(loop.time, lambda: START + timedelta(seconds=loop.time()), Random(bot.uid))
        identity = BotIdentity(namespace=bot.key.namespace, name=bot.key.name, uid=bot.uid)
        options = Options(
            config=BotConfig(revision=1, bot=identity, settings=settings),
            credentials_dir=folder / "keys",
            state_dir=folder / "state",
        )
        self.apps[bot.key] = app = BotApp(options, None, clocks)
        self.running.append(loop.create_task(app.run()))

    async def start_paced(self, bot: SeenBot) -> None:
        """As the operator makes its pod, and grants it from then on."""
        address = address_of(bot, None, ())
        while True:
            needed = self.shares.needed(address)
            wait = self.pace.wait(bot.key, address, holding=False, needed=needed, now=self.loop.time())
            if wait == 0:
                break
            await asyncio.sleep(wait)
        self.start(bot)

    async def grant(self) -> None:
        """Each bot that runs, again and again, as the operator does."""
        while True:
            for key, app in list(self.apps.items()):
                bot = self.bots.get(key)
                share = self.shares.grant(bot, build_status(app.desk, ConditionClock(), 0)) if bot is not None else None
                if bot is not None and share is not None and app.desk.session is not None:
                    app.desk.budget.allot(share.weight, share.address_bots, GRANT_TTL_SECONDS)
                    self.shares.arrived(bot, share)
            await asyncio.sleep(GRANT_RENEWAL_SECONDS / 4)

    async def stop(self) -> None:
        """All processes end at once."""
        for app in self.apps.values():
            app.stop()
        await asyncio.gather(*self.running)
        self.apps.clear()
        self.running.clear()

    def connected(self) -> int:
        """How many compared their books with live streams."""
        return sum(
            app.desk.session is not None
            and app.desk.session.verdict is not None
            and app.desk.session.streams.user_alive
            for app in self.apps.values()
        )


@asynccontextmanager
async def shared_address(loop: VirtualLoop, folder: Path, limit: int) -> AsyncIterator[Address]:
    """An exchange without bots yet."""
    structlog.configure(processors=[drop])
    market = write_still_market(folder, **{SYMBOL: "50000"})
    options = ExchangeOptions(symbols=(SYMBOL,), market=market, weight_per_minute=limit)

    def steady_ms() -> int:
        return round(loop.time() * 1000)

    def wall_ms() -> int:
        return round(START.timestamp() * 1000) + steady_ms()

    async with running_paper_exchange(options, steady_ms, wall_ms) as exchange:
        it = Address(loop, folder, limit, exchange)
        _count(it, exchange.server._limits)
        try:
            yield it
        finally:
            await it.stop()


def _count(it: Address, limits: Limits) -> None:
    """Keeps the exchange's own figures of every minute, not only of the last one."""
    admit, charge = limits.admit, limits.charge

    def admitting(address: str, weight: int, now_ms: int) -> None:
        try:
            admit(address, weight, now_ms)
        except ExchangeError:
            it.refused[now_ms // 60_000] += 1
            raise

    def charging(address: str, weight: int, now_ms: int) -> int:
        used = charge(address, weight, now_ms)
        it.used[now_ms // 60_000] = used
        return used

    limits.admit, limits.charge = admitting, charging  # type: ignore[method-assign]


def on_virtual_time(scene: Callable[[VirtualLoop], Awaitable[None]]) -> None:
    """Runs it to its end."""
    loop = VirtualLoop(Random("network"), LATENCY)
    try:
        loop.run_until_complete(scene(loop))  # type: ignore[arg-type]
    finally:
        loop.close()
