"""One connection to the exchange: streams in, decisions made, orders out, books compared; until it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any, Final

import structlog
from structlog.contextvars import bound_contextvars

from tradingbot.admission import Admission, judge_symbol
from tradingbot.clocks import from_ms
from tradingbot.engine.close_watch import CloseWatch
from tradingbot.engine.strategies import build_strategy
from tradingbot.engine.trading_loop import Decision, Enter, Exit, Gap, TradingLoop
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.errors import AuthRejectedError, ExchangeError, RejectedError, UnknownSymbolError
from tradingbot.gateway.inbox import Inbox
from tradingbot.gateway.market_watch import MarketWatch
from tradingbot.gateway.port import EndpointClass
from tradingbot.gateway.rate_limits import WeightBudget
from tradingbot.gateway.streams import Batch, StreamName, Streams
from tradingbot.model import (
    AccountSnapshot,
    Balance,
    BalanceChange,
    BalancesUpdate,
    BookTicker,
    Candle,
    OrderUpdate,
    SymbolRules,
)
from tradingbot.monitoring.flight_recorder import FlightRecorder
from tradingbot.monitoring.health import Problem
from tradingbot.monitoring.metrics import Metrics, Missed
from tradingbot.monitoring.performance import DAY_MS, Performance, measure
from tradingbot.monitoring.progress import Progress
from tradingbot.orders.intents import IntentKind
from tradingbot.orders.manager import OrderManager
from tradingbot.orders.protection import UnprotectedTime
from tradingbot.orders.types import EntryOutcome, EntryRequest, ExitOutcome, OrdersEvent, OrdersEventKind, Trace
from tradingbot.recovery.circuit_breaker import BreakerPanel
from tradingbot.recovery.retry import full_jitter, retry_read, retryable
from tradingbot.recovery.safe_mode import Level, SafeMode
from tradingbot.risk.risk_manager import Funds, Refused, RiskManager, at_risk
from tradingbot.state.balance_reconciler import Verdict
from tradingbot.state.position_validator import Correction
from tradingbot.state.store import Store, StoreError, StoreFailedError
from tradingbot_api.base import canonical
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings, Interval, PositionPolicy

PING_SECONDS: Final = 2.0
TICK_SECONDS: Final = 1.0
ENTRY_NEAR_MS: Final = 2_000
"""Of so many at least one tick is there to make the entry ready."""
LEAVE_TICK_SECONDS: Final = 0.25
RECONCILE_SECONDS: Final = 60.0
RECONCILE_AGAIN_SECONDS: Final = 2.0
"""A difference is looked at again this soon: it may be a fill that was on its way."""
RECONCILE_RETRY_SECONDS: Final = 15.0
"""The longest wait after one that failed."""
PRICE_SECONDS: Final = 30.0
"""A price is known for this long."""
FLATTEN_AGAIN_SECONDS: Final = 5.0
REFILL_SECONDS: Final = 30.0
"""A strategy that has no candles yet asks for them again after so long, whatever its interval."""
LOOK_BACK_CANDLES: Final = 200
"""Settled candles that a strategy is filled with: what it said of them while the bot was away counts for an exit."""
ADMISSION_SECONDS: Final = 600.0
REFUSED_ADMISSION_SECONDS: Final = 60.0
"""The exchange is asked this often again while it would refuse entries."""
ADMISSION_PAUSE_SECONDS: Final = 10.0
"""At least this long between two times, however often something was refused: each weighs 50."""
PAGE: Final = 1000
ACCOUNT_FACT: Final = "account"

INTERVAL_MS: Final = {
    Interval.S1: 1_000,
    Interval.M1: 60_000,
    Interval.M3: 180_000,
    Interval.M5: 300_000,
    Interval.M15: 900_000,
    Interval.M30: 1_800_000,
    Interval.H1: 3_600_000,
    Interval.H2: 7_200_000,
    Interval.H4: 14_400_000,
    Interval.H6: 21_600_000,
    Interval.H8: 28_800_000,
    Interval.H12: 43_200_000,
    Interval.D1: 86_400_000,
}


class AccountChangedError(Exception):
    """The keys belong to another account than the books."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision was made on."""

    signal_id: str
    price: Decimal
    at_ms: int
    """When it was so, by the exchange's clock."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What outlives a connection and every session works with."""

    store: Store
    safe_mode: SafeMode
    panel: BreakerPanel
    budget: WeightBudget
    risk: RiskManager
    recorder: FlightRecorder | None
    unprotected: UnprotectedTime
    metrics: Metrics
    settings: Callable[[], BotSettings]
    strategy_usable: Callable[[], bool]
    forbidden: Callable[[], str | None]
    """Why no entry may be sent, seen from outside of the session; asked again right before the send."""
    proven: Callable[[], bool]
    """Whether this process was granted its account and symbol once; true without an operator."""
    changed: Callable[[], None]
    tell: Callable[[str, dict[str, Any]], None]
    monotonic: Callable[[], float]
    random: Random


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
        self.loop: TradingLoop | None = None
        self.verdict: Verdict | None = None
        self.drifts = 0
        self.books_rebuilt = False
        """The store was new although this bot has traded: the books were made from the exchange's trades."""
        self.last_close: Decimal | None = None
        self._verdict_at: float | None = None
        self.compared_ms: int | None = None
        """Exchange time of the last comparison."""
        self._connected_at = parts.monotonic()
        self._balances = dict(account.balances)
        self._balances_ms = 0
        self._strategy_key: object = None
        self._inbox = Inbox()
        self._close_watch = CloseWatch()
        self._reconcile_now = asyncio.Event()
        self._reconnects = self._reconciled = 0
        """Reconnects of the streams, and how many of them the last comparison of the books came after."""
        self._ask_now = asyncio.Event()
        self._refused_before: Problem | None = None
        self._adopting = False
        self._flatten_after = 0.0
        self._acting = asyncio.Lock()
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
            observe=parts.metrics.request,
        )
        try:
            await retry_read(exchange.sync_clock, retryable=retryable, rng=parts.random)
            rules = await retry_read(lambda: exchange.rules(settings.symbol), retryable=retryable, rng=parts.random)
            account = await retry_read(exchange.account, retryable=retryable, rng=parts.random)
            await _check_account(parts.store, settings, account.uid)
            session = cls(parts, exchange, rules, account)
            report = await session.manager.start()
            for line in report.lines:
                session._log.info("recovered", what=line)
            session._take_verdict(session.manager.verdict)
            session.books_rebuilt = report.rebuilt
            session._inbox.wake()
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
                self._decide(),
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

    @property
    def stopping(self) -> bool:
        """Whether no entry and no sale is begun any more."""
        return self.manager.ending

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
        """Why no entry may be sent now, or None; asked by the order manager right before the send."""
        if (code := self._may_announce()) is not None:
            return code
        problem = self.trading_problem()
        return None if problem is None else problem.reason.value

    def _may_announce(self) -> str | None:
        return "Stopping" if self.stopping else self._parts.forbidden()

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
        if self.loop is not None and self.loop.failure is not None:
            return Problem(Reason.STRATEGY_FAILED, f"{self.loop.failure}; mend it and restart the bot")
        if self.loop is None or not self.loop.ready:
            return Problem(Reason.WARMING_UP, "the strategy has not seen enough candles")
        if (capital := self.capital_problem()) is not None:
            return capital
        for pause in parts.risk.should_pause_trading(from_ms(self.exchange.exchange_ms()), parts.monotonic()):
            reason = Reason.COOLDOWN if pause.code.value == "Cooldown" else Reason(pause.code.value)
            return Problem(reason, pause.detail)
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
        needed, held = self.capital_needed, self._balance(self.rules.quote_asset).total
        if held >= needed:
            return None
        asset = self.rules.quote_asset
        return Problem(
            Reason.CAPITAL_NOT_COVERED,
            f"the capital needs {needed:f} {asset}, the account has {held:f}: deposit or lower spec.capital",
        )

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
    def holding(self) -> bool:
        """Whether there is a position that can be sold."""
        return self.manager.held > 0

    @property
    def price(self) -> Decimal | None:
        """The best bid; the last close where none is known yet; None once none can be had any more."""
        return known_price(self.market.book, self.last_close, self._connected_at, self._parts.monotonic())

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
        return self._balance(asset)

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
        self._inbox.wake()

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
            if isinstance(event, OrderUpdate) and event.fill is not None:
                self._note("fill", fill=event.fill)
            await self.manager.on_user_event(event)
        if StreamName.USER in batch.reconnected:
            self.manager.missed_events()
        if batch.reconnected:
            # There is no replay: what happened meanwhile is read by REST.
            self._reconnects += 1
            self._reconcile_now.set()
        for candle in batch.candles:
            if not self._inbox.put(candle):
                self.loop = None  # a lost candle: the loop is filled again from REST
        if batch.book is not None and self.loop is not None and self.loop.strategy.wants_ticks:
            self._inbox.put_tick(batch.book)
        if batch.user:
            self._parts.changed()

    def _note(self, what: str, **figures: Any) -> None:
        if self._parts.recorder is not None:
            self._parts.recorder.note(what, **figures)

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

    # --- decisions ---

    async def _decide(self) -> None:
        while True:
            seen = await self._inbox.take(self._patience())
            try:
                with self.progress.at("decide"):
                    await self._follow_settings()
                    if (loop := self.loop) is None:
                        continue
                    if isinstance(seen, BookTicker):
                        await self._on_tick(loop, seen)
                    elif seen is not None and seen.interval == self._interval.value:
                        await self._on_candle(loop, seen)
                    elif self._close_due_in() == 0:
                        await self._ask_for_close(loop)
            except ExchangeError as error:
                # The circuit is open or a read failed: the loop is filled again with the next candle, or soon.
                self.loop = None
                self._log.warning("candles could not be read", error=str(error))

    def _patience(self) -> float | None:
        """Seconds until something is to be done though nothing came."""
        if self.loop is None:
            return REFILL_SECONDS
        due = self._close_due_in()
        return None if due is None else (due + 1) / 1000

    def _close_due_in(self) -> int | None:
        last = None if self.loop is None else self.loop.last_open_ms
        return self._close_watch.due_in(last, INTERVAL_MS[self._interval], self.exchange.exchange_ms())

    @property
    def _interval(self) -> Interval:
        return self._parts.settings().strategy.interval

    async def _open_day(self) -> None:
        """Begin the UTC day with the equity of 00:00, by fills and that minute's price; raises as reads of both do."""
        parts, manager, now_ms = self._parts, self.manager, self.exchange.exchange_ms()
        midnight = now_ms - now_ms % DAY_MS
        marks = parts.risk.drawdown.marks
        capital: Decimal = parts.settings().capital if marks is None else marks.capital
        peak = capital + await manager.highest_realized() if marks is None else marks.peak
        books = await manager.books_at(midnight)
        price = Decimal(0)
        if books.quantity > 0:
            symbol = self.rules.symbol
            candles = await self.exchange.candles(symbol, Interval.M1.value, limit=1, start_ms=midnight)
            price = candles[0].open if candles else books.average_price
        equity = books.equity(capital, price, manager.taker_rate)
        parts.risk.drawdown.open_day(from_ms(now_ms), equity, peak, capital)
        self._log.info("the day began", equity=f"{equity:f}", position=f"{books.quantity:f}", price=f"{price:f}")

    async def _follow_settings(self) -> None:
        if not self._parts.risk.drawdown.day_known:
            try:
                await self._open_day()
            except (ExchangeError, StoreFailedError) as error:  # entries wait for it, exits do not
                self._log.warning("the equity at 00:00 UTC is not known", error=str(error))
        if self.loop is None or self._strategy_key != _strategy_key(self._parts.settings()):
            self.streams.change_interval(self._interval.value)
            await self._rebuild_loop()
            self._parts.changed()

    async def _rebuild_loop(self) -> None:
        settings = self._parts.settings()
        self._strategy_key = _strategy_key(settings)
        self.loop = None
        if not self._parts.strategy_usable():
            return
        strategy = build_strategy(settings.strategy.name, settings.strategy.parameters)
        loop = TradingLoop(strategy)
        if self._parts.recorder is not None:
            self._parts.recorder.watch("loop", loop)
        candles = await self._history(max(strategy.warmup + LOOK_BACK_CANDLES, settings.risk.volatility.window + 1))
        loop.backfill(candles, self.manager.books.last_fill_ms)
        self._parts.risk.volatility.restart(float(candle.close) for candle in candles if candle.closed)
        if candles:
            self.last_close = candles[-1].close
        self.loop = loop
        self._log.info("strategy filled", strategy=settings.strategy.name, candles=loop.seen, warmup=strategy.warmup)
        if (missed := loop.missed(holding=self.holding)) is not None:
            await self._leave_position(missed)

    async def _history(self, count: int) -> list[Candle]:
        width = INTERVAL_MS[self._interval]
        now = self.exchange.exchange_ms()
        start = now - now % width - count * width
        result: list[Candle] = []
        while start <= now:
            page = await self._read_candles(start)
            result.extend(page)
            if len(page) < PAGE:
                break
            start = page[-1].open_ms + width
        return self._closed(result)

    def _closed(self, candles: list[Candle]) -> list[Candle]:
        """Without the last one, which the exchange calls a candle too though it is still forming."""
        return [candle for candle in candles if candle.close_ms < self.exchange.exchange_ms()]

    async def _read_candles(self, start_ms: int) -> list[Candle]:
        symbol, interval = self.rules.symbol, self._interval.value
        return await retry_read(
            lambda: self.exchange.candles(symbol, interval, limit=PAGE, start_ms=start_ms),
            retryable=retryable,
            rng=self._parts.random,
        )

    async def _ask_for_close(self, loop: TradingLoop) -> None:
        """The stream did not bring a close in time: what the exchange has by REST is as good, the newest to trade on.

        Where that fails, or it has none as no trade was made, the loop goes on and the exchange is asked again later.
        """
        if loop.last_open_ms is None:
            return
        start_ms = loop.last_open_ms + INTERVAL_MS[self._interval]
        found: list[Candle] = []
        try:
            found = self._closed(
                await self.exchange.candles(self.rules.symbol, self._interval.value, limit=PAGE, start_ms=start_ms)
            )
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            self._log.warning("a close that did not come could not be asked for", error=str(error))
        if not found:
            self._close_watch.asked_in_vain(self.exchange.exchange_ms())
            return
        *past, newest = found
        self._parts.metrics.missed(Missed.NO_CLOSE, self._fill(loop, past) + 1)
        await self._on_candle(loop, newest)

    def _fill(self, loop: TradingLoop, missing: list[Candle]) -> int:
        """Closed candles that nothing is decided on any more; how many were new."""
        self._parts.risk.volatility.update_prices(float(candle.close) for candle in missing)
        return loop.backfill(missing, self.manager.books.last_fill_ms)

    async def _on_candle(self, loop: TradingLoop, candle: Candle) -> None:
        parts = self._parts
        self.last_close = candle.close
        decision = self._judge_candle(loop, candle)
        if isinstance(decision, Gap):
            missing = await self._read_candles(decision.start_ms)
            inside = [item for item in missing if item.open_ms <= decision.end_ms]
            parts.metrics.missed(Missed.GAP, self._fill(loop, inside))
            decision = self._judge_candle(loop, candle)
            if isinstance(decision, Gap):
                if not any(item.open_ms >= candle.open_ms for item in missing):
                    # More are missing than one answer has: begin anew.
                    await self._rebuild_loop()
                    return
                # The exchange has the candles around and not these: no trade was made, or it stood still.
                parts.metrics.missed(Missed.ABSENT, 1)
                loop.skip_to(candle)
                decision = self._judge_candle(loop, candle)
        self._log.debug(
            "candle",
            open_ms=candle.open_ms,
            decision=repr(decision),
            strategy="" if loop.failure else loop.describe(),
        )
        parts.risk.volatility.update_prices([float(candle.close)])
        parts.risk.adjust_risk_parameters()
        signal_id = f"{self.rules.symbol}-{candle.interval}-{candle.close_ms}"
        await self._act(decision, Seen(signal_id, candle.close, candle.close_ms))

    def _judge_candle(self, loop: TradingLoop, candle: Candle) -> Decision:
        before, failed = loop.last_open_ms, loop.failure
        now_ms, max_age_ms = self.exchange.exchange_ms(), self._max_age_ms
        decision = loop.on_candle(candle, now_ms=now_ms, max_age_ms=max_age_ms, holding=self.holding)
        if loop.last_open_ms != before:
            age_ms = now_ms - candle.close_ms
            self._parts.metrics.candle(age_ms / 1000)
            if age_ms > max_age_ms:
                self._parts.metrics.missed(Missed.LATE, 1)
        self._tell_failure(loop, failed)
        return decision

    async def _on_tick(self, loop: TradingLoop, book: BookTicker) -> None:
        failed = loop.failure
        now_ms, age_ms = self.exchange.exchange_ms(), int((self._parts.monotonic() - book.received) * 1000)
        decision = loop.on_tick(book, now_ms=now_ms, age_ms=age_ms, max_age_ms=self._max_age_ms, holding=self.holding)
        self._tell_failure(loop, failed)
        await self._act(decision, Seen(f"{self.rules.symbol}-tick-{now_ms}", book.ask, now_ms - age_ms))

    @property
    def _max_age_ms(self) -> int:
        return self._parts.settings().entry.max_data_age_seconds * 1000

    def _tell_failure(self, loop: TradingLoop, before: str | None) -> None:
        if loop.failure != before:
            self._log.error("strategy failed", message=loop.failure)
            self._parts.changed()

    async def _act(self, decision: Decision, seen: Seen) -> None:
        if isinstance(decision, Enter):
            self._parts.tell("Signal", {"message": f"enter: {decision.reason}", "price": f"{seen.price:f}"})
            with bound_contextvars(signal_id=seen.signal_id, reason="Signal"):
                await self._follow_signal(decision, seen)
        elif isinstance(decision, Exit):
            await self._leave_position(decision)

    async def _leave_position(self, decision: Exit) -> None:
        if self._parts.safe_mode.level < Level.HALTED:
            await self.exit("Signal", decision.reason)

    async def _follow_signal(self, decision: Enter, seen: Seen) -> None:
        parts, settings, signal_id = self._parts, self._parts.settings(), seen.signal_id
        book = self.streams.book
        figures = {"signal": decision.reason, **self._figures(book)}
        refused: Refused | None = None
        code = self.may_enter()
        self._note("may enter", signal_id=signal_id, refused=code)
        if code is None:
            refused = parts.risk.check_market_conditions(book, parts.monotonic())
        if code is not None or refused is not None or book is None:
            code = code or (refused.code.value if refused else "NoMarket")
            self._refuse(code, refused.detail if refused else self._detail(code), signal_id, figures)
            return
        books, rate = self.manager.books, self.manager.taker_rate
        equity = books.equity(settings.capital, book.bid, rate)
        parts.risk.update_equity(equity, from_ms(self.exchange.exchange_ms()))
        # Only dust can be held here, and no stop protects that.
        dust = at_risk(books.quantity, book.bid, None, rate)
        funds = Funds(self._balance(self.rules.quote_asset).free, books.cost, equity, dust, rate)
        size = parts.risk.calculate_position_size(self.rules, book.ask, funds)
        if isinstance(size, Refused):
            if not self.holding:
                parts.risk.record_used_up(size.code.value, from_ms(self.exchange.exchange_ms()))
            self._refuse(size.code.value, size.detail, signal_id, figures)
            return
        figures["size"] = size.detail
        async with self._acting:
            result = await self.manager.enter(
                EntryRequest(size.quantity, book.ask, decision.reason, settings, book.received, signal_id, figures)
            )
        age = (self.exchange.exchange_ms() - seen.at_ms) / 1000
        parts.metrics.entry(result.outcome.value, age)
        if result.outcome is EntryOutcome.REFUSED:
            self._refuse(result.code, result.message, signal_id, figures)
            self._doubt_admission(result.code)
        else:
            parts.risk.record_entry(parts.monotonic())
            self._log.info("entry", outcome=result.outcome.value, code=result.code, size=size.detail)
        parts.changed()

    def _figures(self, book: BookTicker | None) -> dict[str, str]:
        """What an entry is decided by, for the audit log."""
        settings, drawdown, books = self._parts.settings(), self._parts.risk.drawdown, self.manager.books
        quote = self._balance(self.rules.quote_asset)
        figures = {
            "capital": settings.capital,
            "position_quantity": books.quantity,
            "position_cost": books.cost,
            "quote_free": quote.free,
            "quote_locked": quote.locked,
            "max_position_value": settings.risk.max_position_value,
            "equity": drawdown.equity or Decimal(0),
            "daily_loss": drawdown.daily_loss,
            "max_daily_loss": settings.risk.max_daily_loss,
            "drawdown": drawdown.drawdown,
            "max_drawdown": settings.risk.max_drawdown_ratio,
        }
        if book is not None:
            figures |= {"bid": book.bid, "ask": book.ask}
        return {name: canonical(value) for name, value in figures.items()}

    def _detail(self, code: str) -> str:
        """What there is to say of a code of `may_enter`."""
        now = from_ms(self.exchange.exchange_ms())
        pauses = self._parts.risk.should_pause_trading(now, self._parts.monotonic())
        told = {pause.code.value: pause.detail for pause in pauses}
        problem = self.trading_problem()
        return told.get(code) or (problem.message if problem is not None and problem.reason == code else "")

    def _refuse(self, code: str, detail: str, signal_id: str, figures: Mapping[str, str]) -> None:
        self._parts.metrics.refused(code)
        self.manager.audit.refused(IntentKind.ENTRY, code, detail, Trace(signal_id), figures)
        self._parts.tell("Refused", {"message": f"{code} {detail}".strip()})

    async def exit(self, why: str, detail: str) -> None:
        """Sell the position; the order manager protects again what could not be sold."""
        async with self._acting:
            if not self.holding or self.stopping:
                return
            self._parts.tell("Signal", {"message": f"exit ({why}): {detail}"})
            audit = self.manager.audit
            with bound_contextvars(signal_id=audit.trace.signal_id, reason=why, signal=detail):
                result = await self.manager.exit(why)
                if result.outcome is ExitOutcome.FAILED:
                    audit.refused(IntentKind.EXIT, result.code, result.message, audit.trace, {})
        if result.outcome is not ExitOutcome.FLAT:
            self.doubt()
        self._doubt_admission(result.code)
        self._log.info("exit", why=why, outcome=result.outcome.value, code=result.code, message=result.message)
        self._parts.changed()

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
                if parts.safe_mode.level is Level.REDUCE_ONLY and self.holding:
                    now = parts.monotonic()
                    if now >= self._flatten_after:
                        self._flatten_after = now + FLATTEN_AGAIN_SECONDS
                        await self.exit("ReduceOnly", "safe mode")

    def _entry_is_near(self) -> bool:
        """Whether a candle is about to close that may be traded on."""
        loop = self.loop
        if loop is None or loop.last_open_ms is None or self.holding:
            return False
        closes_ms = loop.last_open_ms + 2 * INTERVAL_MS[self._interval]
        near = closes_ms - self.exchange.exchange_ms() <= ENTRY_NEAR_MS
        return near and self._parts.safe_mode.should_allow_trading() and self.trading_problem() is None

    async def _ping(self) -> None:
        """Keeps the circuits honest while nothing is traded, and closes them again."""
        while True:
            await asyncio.sleep(PING_SECONDS)
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
                async with asyncio.timeout(wait):
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

    def _balance(self, asset: str) -> Balance:
        return self._balances.get(asset, Balance(Decimal(0), Decimal(0)))


def known_price(book: BookTicker | None, close: Decimal | None, connected: float, now: float) -> Decimal | None:
    """The best bid, before the first one the last close; None where it is too old; pure. Times are monotonic."""
    if book is None or book.bid <= 0:
        return close if now - connected <= PRICE_SECONDS else None
    return book.bid if now - book.received <= PRICE_SECONDS else None


def _strategy_key(settings: BotSettings) -> object:
    return settings.strategy.name, settings.strategy.interval, tuple(sorted(settings.strategy.parameters.items()))


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
