"""Bots of one account whose new orders the exchange counts: entries of all together leave room for every sale and
protection, though messages are lost, and though somebody else uses most of what the account may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
import structlog

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.model import Account
from paper_exchange.limits import Limits
from paper_exchange.testing import Options as ExchangeOptions
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange, write_keys
from paper_exchange.virtual_loop import VirtualLoop
from support.bot_process import settings
from support.shared_address import drop, on_virtual_time
from tradingbot.app import BotApp, Options
from tradingbot.clocks import Clocks
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.order_limits import ORDERS, OrderBudgetError
from tradingbot.gateway.port import NewOrder, OpenGuard
from tradingbot.lab.sim import START
from tradingbot.model import OrderType, Side
from tradingbot.monitoring.http_api import ControlError
from tradingbot_api.bot_http import (
    ENTRY_ORDERS,
    ENTRY_ORDERS_PART,
    GRANT_RENEWAL_SECONDS,
    BotConfig,
    BotIdentity,
    BotStatus,
    ExchangeWait,
    Grant,
    OrderUse,
)
from tradingbot_operator.order_shares import KEPT_PART, OrderShares

pytestmark = pytest.mark.integration
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT")
LIMIT = 30
ENTRY = ORDERS["orderList/otoco"]
WINDOW_MS = 10_000
HEARD_MS = 500
HOLD_SECONDS = 8
SECONDS = 90


@dataclass
class Scene:
    """The bots, the leader's book of their account, and what the exchange did with each request for new orders."""

    loop: VirtualLoop
    folder: Path
    exchange: PaperExchange
    account: TestAccount
    random: Random = field(default_factory=lambda: Random("messages"))
    apps: list[BotApp] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    taken: list[tuple[int, int]] = field(default_factory=list)
    """When, in ms of the exchange, and how many orders."""
    refused: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shares = OrderShares(self.loop.time, lambda: START + timedelta(seconds=self.loop.time()))

    def start_all(self) -> None:
        """A bot of each symbol."""
        for number, symbol in enumerate(SYMBOLS):
            self._start(number, symbol)

    def _start(self, number: int, symbol: str) -> None:
        """A bot that signals with nearly each candle of a second, and the operator's line to it."""
        spec = settings(self.exchange.base_url).model_copy(update={"symbol": symbol})
        identity = BotIdentity(namespace="trading", name=f"b{number}", uid=f"uid-{number}")
        loop, folder = self.loop, self.folder / identity.name
        (folder / "state").mkdir(parents=True)
        write_keys(folder / "keys", self.account.api_key, self.account.secret_key)
        options = Options(
            config=BotConfig(revision=1, bot=identity, settings=spec), credentials_dir=folder / "keys",
            state_dir=folder / "state",
        )  # fmt: skip
        clocks = Clocks(loop.time, lambda: START + timedelta(seconds=loop.time()), Random(identity.uid))
        self.apps.append(app := BotApp(options, None, clocks))
        app.desk.grants.required = True
        self.tasks += [loop.create_task(app.run()), loop.create_task(self._follow(app))]

    async def _follow(self, app: BotApp) -> None:
        """As the operator does, over lines that lose some of what is said and delay the rest."""
        granted = float("-inf")
        async for line in app.control.status_lines():
            status, lost = BotStatus.model_validate_json(line), self.random.random
            use = status.order_use
            if status.incarnation is None or use is None or lost() < 0.1:
                continue
            account = ("Paper", str(status.account_uid))
            self.shares.hear(account, status.bot_uid, use)
            if use.refused_until_time is not None:
                await self.tell(use.refused_until_time)
            if not use.asks and self.loop.time() - granted < GRANT_RENEWAL_SECONDS:
                continue
            share = self.shares.grant(account, status.bot_uid, use)
            grant = Grant(
                bot_uid=status.bot_uid, boot_id=status.boot_id, incarnation=status.incarnation,
                revision=status.applied_revision, status_sequence=status.sequence, epoch=1,
                entry_orders=share.orders, entry_orders_seconds=share.seconds,
            )  # fmt: skip
            granted = self.loop.time()
            await asyncio.sleep(self.random.uniform(0, 0.2))
            with suppress(ControlError):  # the next line is another try
                if lost() < 0.9:
                    await app.control.put_grant(grant)
                    if lost() < 0.9:
                        self.shares.arrived(account, status.bot_uid)

    async def tell(self, until: datetime) -> None:
        """All bots, that no entry is to be sent until then."""
        now = START + timedelta(seconds=self.loop.time())
        for app in self.apps:
            await app.control.put_wait(
                ExchangeWait.model_validate(
                    {
                        "botUid": app.desk.identity.uid, "bootId": app.desk.boot_id, "epoch": 1, "untilTime": now,
                        "seconds": 0, "ordersUntilTime": until,
                        "ordersSeconds": max(0.0, (until - now).total_seconds()),
                    }
                )
            )  # fmt: skip

    async def stop(self) -> None:
        """All processes end."""
        for app in self.apps:
            app.stop()
        for task in self.tasks[1::2]:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def refusals(self, code: str) -> float:
        """How many entries of all bots were refused for that."""
        return sum(
            app.metrics.registry.get_sample_value("tradingbot_entries_refused_total", {"symbol": symbol, "code": code})
            or 0
            for app, symbol in zip(self.apps, SYMBOLS, strict=False)
        )

    async def until_some_hold(self) -> int:
        """All bots run, and so many hold a position."""
        if not self.apps:
            self.start_all()
        end = self.loop.time() + SECONDS
        while (held := self.holding()) < 2:
            assert self.loop.time() < end
            await asyncio.sleep(0.1)
        return held

    async def until_refused(self) -> list[datetime]:
        """Until when bots know that no entry is to be sent."""
        end = self.loop.time() + SECONDS
        while not (begun := [until for app in self.apps if (until := self.use(app).refused_until_time) is not None]):
            assert self.loop.time() < end
            await asyncio.sleep(0.05)
        return begun

    def use(self, app: BotApp) -> OrderUse:
        """What a bot knows of the account's orders."""
        return app.desk.orders.use(round((START.timestamp() + self.loop.time()) * 1000))

    def entries_within(self, begin_ms: int, end_ms: int) -> int:
        """How many entries the exchange was sent."""
        return sum(begin_ms <= at < end_ms and orders == ENTRY for at, orders in self.taken)

    def holding(self) -> int:
        """How many hold a position."""
        return sum(app.desk.session is not None and app.desk.session.manager.holding for app in self.apps)

    def round_trips(self) -> list[int]:
        """Closed positions of each bot."""
        return [app.desk.session.manager.books.round_trips.total for app in self.apps if app.desk.session is not None]


@asynccontextmanager
async def scene(loop: VirtualLoop, folder: Path) -> AsyncIterator[Scene]:
    """An exchange with one account."""
    structlog.configure(processors=[drop])
    options = ExchangeOptions(symbols=SYMBOLS, orders_10s=LIMIT, weight_per_minute=60_000)

    def steady_ms() -> int:
        return round(loop.time() * 1000)

    def wall_ms() -> int:
        return round(START.timestamp() * 1000) + steady_ms()

    async with running_paper_exchange(options, steady_ms, wall_ms) as exchange:
        it = Scene(loop, folder, exchange, await exchange.create_account(USDT="10000"))
        assert exchange.server is not None
        _watch(it, exchange.server._limits)
        try:
            yield it
        finally:
            await it.stop()


def _watch(it: Scene, limits: Limits) -> None:
    refuse = limits.refuse_orders

    def refusing(account: Account, orders: int, now_ms: int) -> None:
        try:
            refuse(account, orders, now_ms)
        except ExchangeError:
            it.refused.append((now_ms, orders))
            raise
        it.taken.append((now_ms, orders))

    limits.refuse_orders = refusing  # type: ignore[method-assign]


def test_entries_of_all_bots_of_an_account_are_never_too_many_for_it(tmp_path: Path) -> None:
    assert len(SYMBOLS) * ENTRY_ORDERS > LIMIT * ENTRY_ORDERS_PART * int(KEPT_PART * 100) / 100, "they have to ask"

    async def run(loop: VirtualLoop) -> None:
        async with scene(loop, tmp_path) as it:
            it.start_all()
            await asyncio.sleep(SECONDS)

            entries: dict[int, int] = {}
            for at, orders in it.taken:
                if orders == ENTRY:
                    entries[at // WINDOW_MS] = entries.get(at // WINDOW_MS, 0) + orders
            assert it.refused == []
            assert max(entries.values()) <= LIMIT * ENTRY_ORDERS_PART
            assert it.refusals(OrderBudgetError.code) > 0, "they wanted more"
            assert min(it.round_trips()) > 0, "each had its turn"

    on_virtual_time(run)


def test_where_somebody_else_sends_orders_entries_of_all_wait_and_sales_go_on(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        async with scene(loop, tmp_path) as it:
            held = await it.until_some_hold()
            other = loop.create_task(_send_orders(it, begun := []))
            await asyncio.sleep(SECONDS / 2)
            other.cancel()

            assert it.refused == []
            assert len(begun) >= 4
            for at in begun:
                end = (at // WINDOW_MS + 1) * WINDOW_MS
                assert it.entries_within(at + HEARD_MS, end) == 0
            assert sum(it.round_trips()) >= held
            assert it.refusals(OrderBudgetError.code) > 0

    on_virtual_time(run)


def test_where_one_has_an_entry_refused_as_too_many_all_wait_with_entries_and_none_with_a_sale(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        async with scene(loop, tmp_path) as it:
            await it.until_some_hold()
            await it.exchange.start_fault(
                "rate_limited", endpoints=["POST /api/v3/orderList/otoco"], code=-1015, retryAfter=HOLD_SECONDS, count=1
            )
            (end, *_) = await it.until_refused()
            end_ms = round(end.timestamp() * 1000)
            await asyncio.sleep(HEARD_MS / 1000)
            assert {it.use(app).refused_until_time for app in it.apps} == {end}, "told on as it was"
            await asyncio.sleep(HOLD_SECONDS)
            assert it.entries_within(end_ms - HOLD_SECONDS * 1000 + HEARD_MS, end_ms) == 0

            # Again, as a bot of another operator's would have it, while some hold a position.
            held = await it.until_some_hold()
            sold, now = sum(it.round_trips()), START + timedelta(seconds=loop.time())
            await it.tell(now + timedelta(seconds=HOLD_SECONDS))
            await asyncio.sleep(HOLD_SECONDS)
            assert sum(it.round_trips()) >= sold + held
            began_ms = round(now.timestamp() * 1000)
            assert it.entries_within(began_ms + HEARD_MS, began_ms + HOLD_SECONDS * 1000) == 0
            assert it.refused == []

    on_virtual_time(run)


async def _send_orders(it: Scene, begun: list[int]) -> None:
    """Another program with keys of the account sends in each ten seconds what is for entries; tells when it had."""
    keys = Credentials(it.account.api_key, it.account.secret_key)
    hand = BinanceExchange.create(settings(it.exchange.base_url).exchange, keys, OpenGuard(), it.loop.time)
    number = 0
    try:
        await hand.sync_clock()
        while True:
            await asyncio.sleep((WINDOW_MS - hand.exchange_ms() % WINDOW_MS) / 1000 + 0.02)
            price = ((await hand.book_ticker("BTCUSDT")).bid / 2).quantize(Decimal("0.01"))
            for _ in range(int(LIMIT * ENTRY_ORDERS_PART) - ENTRY + 1):
                name = f"other-{(number := number + 1)}"
                order = NewOrder("BTCUSDT", name, Side.BUY, OrderType.LIMIT_MAKER, Decimal("0.001"), price=price)
                await hand.place_order(order, hand.stamp(), urgent=True)
                await hand.cancel_order("BTCUSDT", name, f"c-{name}", hand.stamp())
            begun.append(hand.exchange_ms())
    finally:
        await hand.close()
