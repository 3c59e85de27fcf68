"""An emergency on virtual time: a whole bot that holds a position, what befalls it, and the exchange's own books."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import structlog

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.list_requests import new_oco
from paper_exchange.core.model import Order
from paper_exchange.core.requests import new_order
from paper_exchange.core.units import to_decimal, to_units
from paper_exchange.market.events import BookUpdate
from paper_exchange.server.app import PaperExchangeServer
from paper_exchange.testing import Options as ExchangeOptions
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange, write_keys
from paper_exchange.venue import Venue
from paper_exchange.virtual_loop import VirtualLoop
from support.exchange_books import DUST, has_no_stop
from support.still_market import write_still_market
from support.waiting import until
from tradingbot.app import BotApp, Options
from tradingbot.clocks import Clocks
from tradingbot.lab.sim import LATENCY, START
from tradingbot.monitoring.health import ConditionClock
from tradingbot.monitoring.report import build_status
from tradingbot.orders.types import EntryOutcome, EntryRequest
from tradingbot.session import Session
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus
from tradingbot_api.v1alpha1 import BotSettings, UsageStatus

SYMBOL: Final = "BTCUSDT"
PRICE: Final = 50_000
DEPOSIT: Final = Decimal(10_000)
DEADLINE_SECONDS: Final = 10
QUANTITY: Final = Decimal("0.009")
_SETTLED_SECONDS: Final = 2.0
"""After so long the bot has heard, and done, what followed from its purchase."""
_LEVELS: Final = 5
_TICK: Final = Decimal("0.01")
_FLICKER: Final = Decimal("0.00001")
_WATCH_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 400.0
"""What a breaker that opened last needs (300), and a reconciliation."""

Befall = Callable[["Emergency"], Awaitable[None]]


class Emergency:
    """The world of one emergency; `run_emergency` makes it."""

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.loop, self.folder = loop, folder
        self.exchange: PaperExchange
        self.account: TestAccount
        self.app: BotApp
        self._running: asyncio.Task[None]
        self._changes: dict[str, Any]
        self.unprotected = 0.0
        """Seconds for which a position was longest without its stop, by the exchange's own books."""
        self.told: list[tuple[float, str, str]] = []
        """What the bot told of: virtual seconds, kind, message."""
        self.log: list[str] = []
        self.pod_clock = timedelta(0)
        """How far the pod's wall clock is ahead."""
        self.market_moves = True
        """Whether the outside market trades each second; a book that is old is not traded on."""
        self.depth = Decimal(5)
        """Base at each level of its book."""
        self.buyers = True
        """Whether anybody outside buys."""
        self._quoted = 0
        self._condition_clock = ConditionClock()

    # --- what befalls it ---

    async def hold(self) -> Order:
        """Let the bot buy and be protected; its stop, as the exchange has it."""
        await self.until("a bot that trades", lambda: self.condition("TradingAllowed")[0] == "True")
        ask = Decimal(PRICE) + _TICK
        request = EntryRequest(QUANTITY, ask, "test", self.app.desk.settings, self.loop.time())
        assert (await self.session.manager.enter(request)).outcome is EntryOutcome.FILLED
        await asyncio.sleep(_SETTLED_SECONDS)
        return self.stops()[0]

    async def exit(self) -> None:
        """What the bot does at its strategy's signal."""
        await self.session.execution.exit("Signal", "test")

    def move(self, price: float) -> None:
        """The outside market jumps there, and stays."""
        market = self.books.market(SYMBOL)
        self.venue.gap(SYMBOL, to_units(Decimal(round(price))) - (market.last or 0))

    def order_by_hand(self, client_order_id: str, **params: str) -> None:
        """A limit order of the account; GTC."""
        given = {"symbol": SYMBOL, "type": "LIMIT", "timeInForce": "GTC", "newClientOrderId": client_order_id}
        self.books.place(self.account.uid, new_order(given | params), self._wall_ms())
        self.venue.commit()

    def pair_by_hand(self, quantity: str, **ids: str) -> None:
        """A stop at -5 % and a take-profit at +5 %; `ids` of them, and of the list."""
        given = {
            "symbol": SYMBOL,
            "side": "SELL",
            "quantity": quantity,
            "aboveType": "LIMIT_MAKER",
            "abovePrice": str(PRICE * 105 // 100),
            "belowType": "STOP_LOSS",
            "belowStopPrice": str(PRICE * 95 // 100),
        }
        self.books.place_list(self.account.uid, new_oco(given | ids), self._wall_ms())
        self.venue.commit()

    def cancel_by_hand(self, order: Order) -> None:
        """As somebody with another key of the account."""
        self.books.cancel(self.account.uid, SYMBOL, order_id=order.order_id, client_order_id=None, now=self._wall_ms())
        self.venue.commit()

    def fault(self, kind: str, **more: Any) -> None:
        """Put it in force at this very moment."""
        self._server.faults.start({"kind": kind} | more)

    async def market(self, **what: Any) -> None:
        """Something befalls the market, as a step of a scenario says it."""
        await self.exchange.begin_scenario([{"at": 0, "market": {"symbol": SYMBOL} | what}])

    async def until(
        self, what: str, probe: Callable[[], Any], seconds: float = 60.0, every: float = _WATCH_SECONDS
    ) -> float:
        """Until a probe is truthy, within so many virtual seconds; how many it took."""
        begun = self.loop.time()
        await until(what, probe, seconds, every)
        return self.loop.time() - begun

    # --- what is ---

    @property
    def _server(self) -> PaperExchangeServer:
        assert self.exchange.server is not None
        return self.exchange.server

    @property
    def venue(self) -> Venue:
        """The exchange in operation."""
        return self._server.venue

    @property
    def session(self) -> Session:
        """The bot's connection to it."""
        assert self.app.desk.session is not None
        return self.app.desk.session

    @property
    def books(self) -> Exchange:
        """The exchange's own books."""
        return self.venue.exchange

    @property
    def orders(self) -> list[Order]:
        """Every order that the account ever had, oldest first."""
        return sorted(self.books.orders.values(), key=lambda order: order.order_id)

    def stops(self) -> list[Order]:
        """Those that wait for their trigger."""
        return [order for order in self.books.open_orders(self.account.uid, SYMBOL) if order.protects]

    @property
    def held(self) -> Decimal:
        """Base of the account."""
        balance = self.books.accounts[self.account.uid].balance("BTC")
        return to_decimal(balance.free + balance.locked)

    @property
    def resting(self) -> set[str]:
        """Client ids of the account's open orders."""
        return {order.client_order_id for order in self.books.open_orders(self.account.uid, SYMBOL)}

    @property
    def flat(self) -> bool:
        """Nothing is held that could be sold."""
        return self.held * PRICE <= DUST

    @property
    def status(self) -> BotStatus:
        """What the bot tells."""
        return build_status(self.app.desk, self._condition_clock, 0)

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        return next(((one.status, one.reason) for one in self.status.conditions if one.type == kind), ("", ""))

    @property
    def causes(self) -> set[str]:
        """Of safe mode."""
        return {cause.id for cause in self.status.safe_mode.causes}

    def count(self, kind: str) -> int:
        """How often the bot told of that."""
        return sum(one == kind for _, one, _ in self.told)

    # --- how it runs ---

    async def run(self, befall: Befall, changes: dict[str, Any]) -> None:
        """Until it is over and the bot has come to rest."""
        (self.folder / "market").mkdir()
        market = write_still_market(self.folder / "market", BTCUSDT=str(PRICE))
        options = ExchangeOptions(symbols=(SYMBOL,), market=market, seed=1)

        async with running_paper_exchange(options, self._steady_ms, self._wall_ms) as self.exchange:
            self.account = await self.exchange.create_account(USDT=DEPOSIT)
            write_keys(self.folder / "keys", self.account.api_key, self.account.secret_key)
            self._changes = changes
            self.start()
            tasks = [asyncio.create_task(one) for one in (self._move_market(), self._watch())]
            try:
                await befall(self)
            finally:
                self.app.stop()
                await asyncio.wait([self._running], timeout=60)
                tasks.append(self._running)
                for task in tasks:
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(*tasks)

    def _steady_ms(self) -> int:
        return round(self.loop.time() * 1000)

    def _wall_ms(self) -> int:
        return round(START.timestamp() * 1000) + self._steady_ms()

    def _pod_time(self) -> datetime:
        return START + timedelta(seconds=self.loop.time()) + self.pod_clock

    def process(self, **options: Any) -> BotApp:
        """One more process of the bot, started with such options; on the first one's volume unless they say else."""
        config = BotConfig(
            revision=1,
            bot=BotIdentity(namespace="test", name="btcusdt", uid="local-emergency"),
            settings=_settings(self.exchange.base_url, self._changes),
        )
        paths = {"credentials_dir": self.folder / "keys", "state_dir": self.folder / "state"}
        return BotApp(
            Options(config=config, **(paths | options)),
            self._hear,
            Clocks(self.loop.time, self._pod_time, Random("bot")),
        )

    def start(self) -> None:
        """Run the bot in a new process."""
        self.app = self.process()
        self._running = asyncio.create_task(self.app.run())

    async def stop(self) -> None:
        """Let the bot's process end in order."""
        self.app.stop()
        await asyncio.wait([self._running])

    def _hear(self, kind: str, figures: dict[str, Any]) -> None:
        self.told.append((self.loop.time(), kind, str(figures.get("message", ""))))

    def quote(self) -> None:
        """The outside market tells its book anew: where it stands, a little other than before, and a trade."""
        self._quoted += 1
        size = to_units(self.depth + _FLICKER * (self._quoted % 2) if self.depth else self.depth)
        bids, asks = (
            tuple((to_units(PRICE + side * step * _TICK), size) for step in range(1, _LEVELS + 1)) for side in (-1, 1)
        )
        bids = bids if self.buyers else ()
        self.venue.feed(BookUpdate(SYMBOL, self.venue.now_ms(), bids, asks, snapshot=True))
        self.venue.gap(SYMBOL, 0)

    async def _move_market(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.market_moves:
                self.quote()

    async def _watch(self) -> None:
        """Looks at the exchange's own books."""
        since: float | None = None
        while True:
            if has_no_stop(self.books, self.account.uid, SYMBOL):
                since = self.loop.time() if since is None else since
                self.unprotected = max(self.unprotected, self.loop.time() - since)
            else:
                since = None
            await asyncio.sleep(_WATCH_SECONDS)

    # --- the oracles ---

    async def at_peace(self) -> None:
        """Wait until the bot is at rest: flat or stopped, connected, and its books are the exchange's."""
        with suppress(AssertionError):  # told in full below
            await self.until("a bot at rest", lambda: not self._amiss(), _SETTLE_SECONDS, every=1)
        if wrong := self._amiss() + self._twice():
            raise AssertionError(f"not at rest after {_SETTLE_SECONDS:.0f} s: {wrong}")

    def _amiss(self) -> list[str]:
        status = self.status
        wrong = [
            f"{name} is {told}"
            for name in ("BalanceSynced", "Protected")
            if (told := self.condition(name))[0] != "True"
        ]
        position = status.position.quantity if status.position else None
        if position != self.held:
            wrong.append(f"the position is {position}, and the exchange has {self.held}")
        known = {order.client_order_id for order in status.open_orders}
        if self.resting != known:
            wrong.append(f"the exchange has {sorted(self.resting)} open, and the bot knows {sorted(known)}")
        return wrong

    def _twice(self) -> list[str]:
        """Client ids that two orders have."""
        counted = Counter(order.client_order_id for order in self.orders)
        return [client_id for client_id, count in counted.items() if count > 1]


def run_emergency(befall: Befall, **changes: Any) -> Emergency:
    """Run it on a loop of its own; `changes` of the bot's settings. What it was at its end."""
    loop = VirtualLoop(Random("network"), LATENCY)
    with tempfile.TemporaryDirectory(prefix="tradingbot-emergency-") as folder:
        world = Emergency(loop, Path(folder))

        def keep(_logger: Any, level: str, event: Any) -> Any:
            if level != "debug":
                world.log.append(f"{loop.time():9.3f} {level} {event}"[:600])
            raise structlog.DropEvent

        structlog.configure(processors=[keep])
        try:
            # Of 8.5 h of candles, and of asking the machine's clock, it would be most of the time.
            with (
                patch("paper_exchange.market.synthetic.HISTORY_SECONDS", 900),
                patch("tradingbot.monitoring.report.usage_status", UsageStatus),
            ):
                loop.run_until_complete(world.run(befall, changes))
        except AssertionError as error:
            error.add_note("\n".join(world.log[-25:]))
            raise
        finally:
            structlog.reset_defaults()
            loop.close()
    return world


def _settings(base_url: str, changes: dict[str, Any]) -> BotSettings:
    return BotSettings.model_validate(
        {
            "symbol": SYMBOL,
            "exchange": {"environment": "Paper", "baseURL": base_url, "credentialsSecretRef": {"name": "keys"}},
            # Its first candle closes after a minute: until then no signal does the work of the order manager.
            "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 1, "slow": 2}},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.01", "takeProfitRatio": "0.02", "deadlineSeconds": DEADLINE_SECONDS},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "500", "cooldownSeconds": 0},
            "circuitBreaker": {"failureThreshold": 5, "recoveryTimeoutSeconds": 30},
        }
        | changes
    )
