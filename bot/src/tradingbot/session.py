"""One connection to the exchange: streams in, decisions made, orders out, books compared; until it is ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import structlog

from tradingbot.admission import Admission, judge_symbol
from tradingbot.clocks import from_ms
from tradingbot.execution import Execution, Hindrance
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.errors import AuthRejectedError, ExchangeError, RejectedError, UnknownSymbolError
from tradingbot.gateway.market_watch import MarketWatch
from tradingbot.gateway.port import EndpointClass
from tradingbot.gateway.streams import Batch, StreamName, Streams
from tradingbot.model import (
    AccountSnapshot,
    Balance,
    BalanceChange,
    BalancesUpdate,
    BookTicker,
    OrderUpdate,
    SymbolRules,
)
from tradingbot.monitoring.health import Problem
from tradingbot.monitoring.performance import Performance, measure
from tradingbot.monitoring.progress import Progress
from tradingbot.orders.manager import OrderManager
from tradingbot.orders.types import OrdersEvent, OrdersEventKind
from tradingbot.parts import Parts
from tradingbot.recovery.circuit_breaker import BreakerState
from tradingbot.recovery.fence import parse
from tradingbot.recovery.retry import full_jitter, retry_read, retryable
from tradingbot.recovery.safe_mode import Level
from tradingbot.risk.risk_manager import Refusal
from tradingbot.state.balance_reconciler import Verdict
from tradingbot.state.position_validator import Correction
from tradingbot.state.store import Store, StoreError, StoreFailedError
from tradingbot.strategy_runner import StrategyRunner
from tradingbot_api.conditions import Reason
from tradingbot_api.names import bot_key
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy

PING_SECONDS: Final = 2.0
TICK_SECONDS: Final = 1.0
LEAVE_TICK_SECONDS: Final = 0.25
RECONCILE_SECONDS: Final = 60.0
SLOWEST_RECONCILE: Final = 2.5
"""How many times rarer where the request weight is scarce: after three minutes the books count as not compared."""
RECONCILE_AGAIN_SECONDS: Final = 2.0
"""A difference is looked at again this soon: it may be a fill that was on its way."""
RECONCILE_RETRY_SECONDS: Final = 15.0
"""The longest wait after one that failed."""
PRICE_SECONDS: Final = 30.0
"""A price is known for this long."""
FLATTEN_AGAIN_SECONDS: Final = 5.0
ADMISSION_SECONDS: Final = 600.0
REFUSED_ADMISSION_SECONDS: Final = 60.0
"""The exchange is asked this often again while it would refuse entries."""
ADMISSION_PAUSE_SECONDS: Final = 10.0
"""At least this long between two times, however often something was refused: each weighs 50."""
ACCOUNT_FACT: Final = "account"


class AccountChangedError(Exception):
    """The keys belong to another account than the books."""


class Session:
    """Made by `connect`, runs until cancelled; `close` ends it. All state of one connection lives here."""

    def __init__(
        self,
        parts: Parts,
        exchange: BinanceExchange,
        rules: SymbolRules,
        account: AccountSnapshot,
    ) -> None:
        self._parts = parts
        self.exchange = exchange
        self.account_uid = account.uid
        self._account = account
        """As it was when connecting."""
        settings = parts.settings()
        self.streams = Streams(
            stream_url=exchange.addresses.streams,
            ws_api_url=exchange.addresses.ws_api,
            symbol=settings.symbol,
            interval=settings.strategy.interval.value,
            subscription=exchange.user_subscription,
            wait=parts.panel,
            connections=parts.connections,
            monotonic=parts.monotonic,
            random=parts.random,
        )
        self.market = MarketWatch(self.streams, lambda: exchange.book_ticker(settings.symbol), parts.monotonic)
        self.manager = OrderManager(
            exchange=exchange,
            store=parts.store,
            rules=rules,
            account_uid=account.uid,
            settings=parts.settings,
            may_enter=self.may_enter,
            may_announce=self._may_announce,
            notify=self._on_orders_event,
            monotonic=parts.monotonic,
            random=parts.random,
            proven=parts.proven,
            halted=lambda: parts.safe_mode.level is Level.HALTED,
            unprotected=parts.unprotected,
        )
        self.admission = Admission(exchange, parts.settings, parts.random)
        self.progress = Progress(parts.monotonic)
        self.execution = Execution(
            parts,
            exchange,
            self.streams,
            self.manager,
            hindrance=self._hindrance,
            balance=self.balance_of,
            doubt=self.doubt,
            doubt_admission=self._doubt_admission,
        )
        self.runner = StrategyRunner(
            parts,
            exchange,
            self.manager,
            execution=self.execution,
            progress=self.progress,
            change_interval=self.streams.change_interval,
        )
        self.verdict: Verdict | None = None
        self.drifts = 0
        self.books_rebuilt = False
        """The store was new although this bot has traded: the books were made from the exchange's trades."""
        self._verdict_at: float | None = None
        self.compared_ms: int | None = None
        """Exchange time of the last comparison."""
        self._connected_at = parts.monotonic()
        self._balances = dict(account.balances)
        self._balances_ms = 0
        self._reconcile_now = asyncio.Event()
        self._reconnects = self._reconciled = 0
        """Reconnects of the streams, and how many of them the last comparison of the books came after."""
        self._ask_now = asyncio.Event()
        self._refused_before: Problem | None = None
        self._adopting = False
        self._flatten_after = 0.0
        self._log = structlog.get_logger("session").bind(symbol=settings.symbol)

    @classmethod
    async def connect(cls, parts: Parts, credentials: Credentials) -> Session:
        """Read what is there and reconcile it with the store; raises ExchangeError or AccountChangedError.

        What only entries need, candles and whether they are admitted, is asked for by `run`: a position is looked after
        meanwhile.
        """
        settings = parts.settings()
        exchange = BinanceExchange.create(
            settings.exchange,
            credentials,
            parts.panel,
            parts.monotonic,
            parts.budget,
            orders=parts.orders,
            observe=parts.metrics.request,
        )
        try:
            await retry_read(exchange.sync_clock, retryable=retryable, rng=parts.random)
            exchange.ask_for_start()
            parts.budget.start()
            rules = await retry_read(lambda: exchange.rules(settings.symbol), retryable=retryable, rng=parts.random)
            account = await retry_read(exchange.account, retryable=retryable, rng=parts.random)
            await _check_account(parts.store, settings, account.uid)
            session = cls(parts, exchange, rules, account)
            report = await session.manager.start()
            for line in report.lines:
                session._log.info("recovered", what=line)
            session._take_verdict(session.manager.verdict)
            parts.budget.at_risk = lambda: session.at_risk
            session.books_rebuilt = report.rebuilt
            session.runner.wake()
        except BaseException:
            await exchange.close()
            raise
        return session

    async def run(self) -> None:
        """Trade until cancelled; AuthRejectedError where the keys are refused later."""
        async with asyncio.TaskGroup() as group:
            for task in (
                self.streams.run(),
                self.market.run(),
                self._pump(),
                self.runner.run(),
                self._tick(),
                self._ping(),
                self._reconcile(),
                self._ask_admission(),
            ):
                group.create_task(task)

    @property
    def rules(self) -> SymbolRules:
        """What the exchange last said of the symbol."""
        return self.manager.rules

    async def finish(self, seconds: float) -> None:
        """Begin nothing any more, and let a sale that is under way end: it has taken the protection off."""
        self.manager.ending = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.manager.idle()

    async def leave(self, seconds: float) -> None:
        """No session follows this finished one: entries are cancelled, and what is naked is protected before."""
        if self._parts.safe_mode.level is Level.HALTED:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(ExchangeError, StoreError):
                    await self.manager.drain(PositionPolicy.HOLD)
                while self.manager.naked:
                    with suppress(AuthRejectedError):
                        await self.manager.tick()
                    await asyncio.sleep(LEAVE_TICK_SECONDS)
                    await self.manager.idle()

    async def close(self) -> None:
        """Close the connections."""
        await self.exchange.close()

    # --- what others ask ---

    def may_enter(self) -> str | None:
        """Why no entry may be sent now, or None; asked by the order manager right before the send, when what the entry
        may cost is exposure already."""
        if (hindrance := self._hindrance()) is not None:
            return hindrance.code
        exposure = self.manager.exposure
        if not self._parts.reservations.covers(None if exposure is None else exposure.value):
            return Refusal.FLEET_LIMIT.value
        return None

    def _hindrance(self) -> Hindrance | None:
        if (code := self._may_announce()) is not None:
            return Hindrance(code)
        problem = self.trading_problem()
        return None if problem is None else Hindrance(problem.reason.value, problem.message)

    def _may_announce(self) -> str | None:
        return "Stopping" if self.manager.ending else self._parts.forbidden()

    def trading_problem(self) -> Problem | None:
        """What but safe mode keeps entries from being sent."""
        parts = self._parts
        if not parts.strategy_usable():
            return Problem(Reason.CONFIG_INVALID, "the strategy cannot be made of its parameters")
        if (refused := self.refused) is not None:
            return refused
        if (dead := self.stream_problem()) is not None:
            return dead
        if self._reconciled != self._reconnects:
            return Problem(Reason.NOT_RECONCILED, "a stream was connected anew: the books are compared first")
        loop = self.runner.loop
        if loop is not None and loop.failure is not None:
            return Problem(Reason.STRATEGY_FAILED, f"{loop.failure}; mend it and restart the bot")
        if loop is None or not loop.ready:
            return Problem(Reason.WARMING_UP, "the strategy has not seen enough candles")
        if (capital := self.capital_problem()) is not None:
            return capital
        for pause in parts.risk.should_pause_trading(from_ms(self.exchange.exchange_ms()), parts.monotonic()):
            return Problem(Reason(pause.code.value), pause.detail)
        return None

    @property
    def refused(self) -> Problem | None:
        """Why the exchange would take no entry."""
        return judge_symbol(self.rules) or self.admission.problem

    def stream_problem(self) -> Problem | None:
        """Which of the streams is dead."""
        if not self.streams.user_alive:
            return Problem(Reason.STREAM_DEAD, "the user stream did not answer in the last 90 s")
        if not self.market.alive:
            return Problem(Reason.STREAM_DEAD, "the market stream is silent")
        return None

    @property
    def capital_needed(self) -> Decimal:
        """The capital, less what was lost and what the position cost, in quote."""
        books = self.manager.books
        capital: Decimal = self._parts.settings().capital
        return capital + min(Decimal(0), books.realized) - books.cost

    def capital_problem(self) -> Problem | None:
        """The capital that is needed must be in the account."""
        needed, held = self.capital_needed, self.balance_of(self.rules.quote_asset).total
        if held >= needed:
            return None
        asset = self.rules.quote_asset
        return Problem(
            Reason.CAPITAL_NOT_COVERED,
            f"the capital needs {needed:f} {asset}, the account has {held:f}: deposit or lower spec.capital",
        )

    @property
    def at_risk(self) -> bool:
        """Whether anything is held, rests on the exchange or has an unknown outcome."""
        manager = self.manager
        return manager.holding or manager.naked or bool(manager.unknown) or not manager.entries_quiet

    @property
    def verdict_age(self) -> float | None:
        """Seconds since the books were last compared."""
        return None if self._verdict_at is None else self._parts.monotonic() - self._verdict_at

    @property
    def orders_age(self) -> float | None:
        """Seconds since open orders were last read."""
        read = self.manager.last_order_check_ms
        return None if read is None else max(0.0, (self.exchange.exchange_ms() - read) / 1000)

    @property
    def price(self) -> Decimal | None:
        """The best bid; the last close where none is known yet; None once none can be had any more."""
        return known_price(self.market.book, self.runner.last_close, self._connected_at, self._parts.monotonic())

    @property
    def equity(self) -> Decimal | None:
        """Capital + realised + position at the best bid, less the fee of selling it; None without a price."""
        books, price = self.manager.books, self.price
        if price is None and books.quantity != 0:
            return None
        return books.equity(self._parts.settings().capital, price or Decimal(0), self.manager.taker_rate)

    @property
    def performance(self) -> Performance:
        """Performance of the closed round trips."""
        return measure(self.manager.books.round_trips)

    def balance_of(self, asset: str) -> Balance:
        """Free and locked amount, as last told."""
        return self._balances.get(asset, Balance(Decimal(0), Decimal(0)))

    async def compare(self) -> None:
        """Compare the books now. ExchangeError."""
        self._take_verdict(await self.manager.reconcile())

    def doubt(self) -> None:
        """Compare the books soon."""
        self._reconcile_now.set()

    def adopt(self) -> bool:
        """A human takes the account's word for the position; False where books and account do not differ for sure."""
        if not self.differs:
            return False
        self._adopting = True
        self.doubt()
        return True

    @property
    def differs(self) -> bool:
        """Whether the account was found twice to differ from the books: once may be a fill on its way."""
        return self.drifts > 1

    def suggest_correction(self) -> Correction:
        """What would make the position right."""
        price = self.price or self.manager.books.average_price
        return self.manager.suggest_correction(price, compared_again=self.differs)

    def strategy_changed(self) -> None:
        """The strategy's settings changed: make it anew."""
        self.runner.wake()

    # --- streams in ---

    async def _pump(self) -> None:
        while True:
            batch = await self.streams.next()
            with self.progress.at("pump"):
                await self._take(batch)

    async def _take(self, batch: Batch) -> None:
        for event in batch.user:
            if isinstance(event, BalancesUpdate) and event.event_ms >= self._balances_ms:
                self._balances_ms = event.event_ms  # an older one comes late over a connection that is replaced
                self._balances.update(event.balances)
            elif isinstance(event, BalanceChange):
                self.doubt()
            if isinstance(event, OrderUpdate):
                if event.execution_type == "NEW" and not self._is_own(event.report.client_order_id):
                    self._parts.orders.hear(event.event_ms)
                if event.fill is not None:
                    self._parts.note("fill", fill=event.fill)
            await self.manager.on_user_event(event)
        if StreamName.USER in batch.reconnected:
            self.manager.missed_events()
        if StreamName.USER in batch.reconnected:
            # There is no replay: what happened meanwhile is read by REST.
            self._reconnects += 1
            self._reconcile_now.set()
        self.runner.put(batch)
        if batch.user:
            self._parts.changed()

    def _is_own(self, client_order_id: str) -> bool:
        known = parse(client_order_id)
        return known is not None and known.key == bot_key(self.account_uid, self._parts.settings().symbol)

    def _on_orders_event(self, event: OrdersEvent) -> None:
        parts = self._parts
        parts.metrics.order_event(event.kind.value)
        if event.kind in {OrdersEventKind.FOREIGN_ORDER, OrdersEventKind.FOREIGN_ORDER_GONE}:
            self._log.warning("foreign order", message=event.message)
        if event.kind is OrdersEventKind.STOP_LOSS:
            parts.risk.record_stop_out(from_ms(event.time_ms))
        if event.kind in {OrdersEventKind.ENTRY_UNKNOWN, OrdersEventKind.PROTECTION_LOST, OrdersEventKind.TWO_TRADERS}:
            self.doubt()
        parts.tell(
            event.kind.value,
            {"message": event.message, "quantity": f"{event.quantity:f}", "price": f"{event.price:f}"},
        )
        parts.changed()

    # --- what is due ---

    async def _tick(self) -> None:
        parts = self._parts
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if parts.safe_mode.level is Level.HALTED:
                continue
            # A tick passes by an action on orders that is under way.
            self.progress.note("orders", at_work=self.manager.acting)
            with self.progress.at("tick"):
                await self.manager.tick(entry_near=self._entry_is_near())
                if parts.safe_mode.level is Level.REDUCE_ONLY and self.manager.holding:
                    now = parts.monotonic()
                    if now >= self._flatten_after:
                        self._flatten_after = now + FLATTEN_AGAIN_SECONDS
                        await self.execution.exit("ReduceOnly", "safe mode")

    def _entry_is_near(self) -> bool:
        near = self.runner.entry_is_near()
        return near and self._parts.safe_mode.should_allow_trading() and self.trading_problem() is None

    async def _ping(self) -> None:
        """Keeps the circuits honest while nothing is traded, and closes them again."""
        while True:
            closed = self._parts.panel.snapshot().state is BreakerState.CLOSED
            await asyncio.sleep(PING_SECONDS * (self._parts.budget.slower if closed else 1.0))
            before = self._parts.panel.snapshot().state
            half_open = self._parts.panel.half_open()
            await self._quietly(self.exchange.ping())
            if EndpointClass.ACCOUNT in half_open:
                await self._quietly(self.exchange.account())
            if EndpointClass.ORDER in half_open:
                # Entries wait for a closed circuit, so none can be the probe; an urgent read counts in the same one.
                await self._quietly(self.exchange.open_orders(self.rules.symbol, urgent=True))
            after = self._parts.panel.snapshot().state
            if after is not before:
                self._log.warning("circuit breaker", state=after.value, before=before.value)
                self._parts.tell("CircuitBreaker", {"message": f"{before.value} -> {after.value}"})
                if after.value == "Closed":
                    self.doubt()
            self._parts.changed()

    async def _reconcile(self) -> None:
        wait, failures = RECONCILE_SECONDS, 0
        while True:
            try:
                async with asyncio.timeout(wait * min(SLOWEST_RECONCILE, self._parts.budget.slower)):
                    await self._reconcile_now.wait()
            except TimeoutError:
                pass
            self._reconcile_now.clear()
            wait, reconnects = RECONCILE_SECONDS, self._reconnects
            try:
                with self.progress.at("reconcile"):
                    verdict = await self.manager.reconcile()
                    if self._adopting:
                        self._adopting = False
                        with suppress(StoreFailedError):  # entries stop; a human clears it again
                            verdict = await self.manager.adopt()
                            self._log.warning("a human took the account's word", verdict=verdict.kind.value)
            except AuthRejectedError:
                raise
            except ExchangeError as error:
                self._parts.metrics.reconciled("Failed")
                self._log.warning("reconciliation failed", error=str(error))
                failures += 1
                wait = 1.0 + full_jitter(failures, 4.0, RECONCILE_RETRY_SECONDS, self._parts.random)
            else:
                failures = 0
                self._take_verdict(verdict)
                self._reconciled = reconnects
                if not verdict.synced:
                    wait = RECONCILE_AGAIN_SECONDS
            self._parts.changed()

    def _take_verdict(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        self.verdict = verdict
        self._verdict_at = self._parts.monotonic()
        self.compared_ms = self.exchange.exchange_ms()
        self._balances[self.rules.base_asset] = verdict.base
        self._balances[self.rules.quote_asset] = verdict.quote
        self._parts.metrics.reconciled(verdict.kind.value)
        self.drifts = 0 if verdict.synced else self.drifts + 1
        if not verdict.synced:
            self._log.error("the books differ from the account", message=verdict.message, drift=f"{verdict.drift:f}")
            if self.drifts == 2:  # once may be a fill on its way
                self._parts.tell("BooksDiffer", {"message": verdict.message})

    async def _ask_admission(self) -> None:
        """Ask whether entries are admitted, and again: symbol, filters and what the keys may do change meanwhile."""
        account = self._account
        while True:
            await self._take_admission(account)
            await asyncio.sleep(ADMISSION_PAUSE_SECONDS)
            wait = ADMISSION_SECONDS if self.refused is None else REFUSED_ADMISSION_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(wait - ADMISSION_PAUSE_SECONDS):
                    await self._ask_now.wait()
            self._ask_now.clear()
            try:
                rules = await self.exchange.rules(self.rules.symbol)
                account = await self.exchange.account()
            except AuthRejectedError:
                raise
            except UnknownSymbolError:
                rules = replace(self.rules, status="no symbol any more")
            except ExchangeError as error:
                self._log.warning("the exchange could not be asked for the symbol", error=str(error))
                continue
            if rules != self.rules:
                self._log.warning("the exchange changed the symbol", rules=repr(rules))
                self.manager.rules = rules

    def _doubt_admission(self, code: str) -> None:
        """What the exchange refused may have been right by the rules that it had before."""
        if code in {RejectedError.code, UnknownSymbolError.code}:
            self._ask_now.set()

    async def _take_admission(self, account: AccountSnapshot) -> None:
        await self.admission.ask(self.rules, account, self.manager.taker_rate)
        if self.refused != self._refused_before and self.refused is not None:
            reason, message = self.refused.reason.value, self.refused.message
            self._log.warning("the exchange takes no entry", reason=reason, message=message)
            self._parts.tell(reason, {"message": message})
        self._refused_before = self.refused
        self._parts.changed()

    async def _quietly(self, call: Any) -> None:
        try:
            await call
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            self._log.debug("call failed", error=str(error))


def known_price(book: BookTicker | None, close: Decimal | None, connected: float, now: float) -> Decimal | None:
    """The best bid, before the first one the last close; None where it is too old; pure. Times are monotonic."""
    if book is None or book.bid <= 0:
        return close if now - connected <= PRICE_SECONDS else None
    return book.bid if now - book.received <= PRICE_SECONDS else None


async def _check_account(store: Store, settings: BotSettings, uid: str) -> None:
    """Books of one account are never continued on another one."""
    mine = {"environment": settings.exchange.environment.value, "uid": uid}
    known = await store.get(ACCOUNT_FACT)
    if known is None:
        with suppress(StoreFailedError):  # entries stop, the position is looked after
            await store.put(ACCOUNT_FACT, mine)
    elif known != mine:
        raise AccountChangedError(
            f"the keys belong to account {uid} ({mine['environment']}), the books to {known['uid']} "
            f"({known['environment']}): restore the former keys, or delete the TradingBot and its volume"
        )
