"""Gives the strategy its candles and ticks, history first and gaps filled, and has done what it decides."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import structlog

from tradingbot.candle_reader import INTERVAL_MS, CandleReader
from tradingbot.clocks import from_ms
from tradingbot.engine.close_watch import CloseWatch
from tradingbot.engine.strategies import build_strategy
from tradingbot.engine.trading_loop import Decision, Gap, TradingLoop
from tradingbot.execution import Execution, Seen
from tradingbot.gateway.errors import AuthRejectedError, ExchangeError
from tradingbot.gateway.inbox import Inbox
from tradingbot.gateway.port import Exchange
from tradingbot.gateway.streams import Batch
from tradingbot.model import BookTicker, Candle
from tradingbot.monitoring.metrics import Missed
from tradingbot.monitoring.performance import DAY_MS
from tradingbot.monitoring.progress import Progress
from tradingbot.orders.manager import OrderManager
from tradingbot.parts import Parts
from tradingbot.state.store import StoreFailedError
from tradingbot_api.v1alpha1 import BotSettings, Interval

ENTRY_NEAR_MS: Final = 2_000
"""Of so many at least one tick is there to make the entry ready."""
REFILL_SECONDS: Final = 30.0
"""A strategy that has no candles yet asks for them again after so long, whatever its interval."""
LOOK_BACK_CANDLES: Final = 200
"""Settled candles that a strategy is filled with: what it said of them while the bot was away counts for an exit."""


class StrategyRunner:
    """Of one connection. `change_interval` is told of the candles that the market stream must bring."""

    def __init__(
        self,
        parts: Parts,
        exchange: Exchange,
        manager: OrderManager,
        *,
        execution: Execution,
        progress: Progress,
        change_interval: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._exchange = exchange
        self._manager = manager
        self._execution = execution
        self._progress = progress
        self._change_interval = change_interval
        self.loop: TradingLoop | None = None
        self.last_close: Decimal | None = None
        self._strategy_key: object = None
        self._inbox = Inbox()
        self._close_watch = CloseWatch()
        symbol = manager.rules.symbol
        self._candles = CandleReader(exchange, symbol, lambda: self._interval, parts.random)
        self._log = structlog.get_logger("strategy").bind(symbol=symbol)

    def wake(self) -> None:
        """Look at the settings soon: they changed, or the strategy is to be filled for the first time."""
        self._inbox.wake()

    def put(self, batch: Batch) -> None:
        """What the streams brought, to be decided on by `run`."""
        for candle in batch.candles:
            if not self._inbox.put(candle):
                self.loop = None  # a lost candle: the loop is filled again from REST
        if batch.book is not None and self.loop is not None and self.loop.strategy.wants_ticks:
            self._inbox.put_tick(batch.book)

    def entry_is_near(self) -> bool:
        """Whether a candle is about to close on which a position may be opened."""
        loop = self.loop
        if loop is None or loop.last_open_ms is None or self._manager.holding:
            return False
        closes_ms = loop.last_open_ms + 2 * INTERVAL_MS[self._interval]
        return closes_ms - self._exchange.exchange_ms() <= ENTRY_NEAR_MS

    async def run(self) -> None:
        """Decide until cancelled; AuthRejectedError."""
        while True:
            seen = await self._inbox.take(self._patience())
            try:
                with self._progress.at("decide"):
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
        return self._close_watch.due_in(last, INTERVAL_MS[self._interval], self._exchange.exchange_ms())

    @property
    def _interval(self) -> Interval:
        return self._parts.settings().strategy.interval

    async def _open_day(self) -> None:
        """Begin the UTC day with the equity of 00:00, by fills and that minute's price; raises as reads of both do."""
        parts, manager, now_ms = self._parts, self._manager, self._exchange.exchange_ms()
        midnight = now_ms - now_ms % DAY_MS
        marks = parts.risk.drawdown.marks
        capital: Decimal = parts.settings().capital if marks is None else marks.capital
        peak = capital + await manager.highest_realized() if marks is None else marks.peak
        books = await manager.books_at(midnight)
        price = Decimal(0)
        if books.quantity > 0:
            symbol = self._manager.rules.symbol
            candles = await self._exchange.candles(symbol, Interval.M1.value, limit=1, start_ms=midnight)
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
            self._change_interval(self._interval.value)
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
        candles = await self._candles.history(
            max(strategy.warmup + LOOK_BACK_CANDLES, settings.risk.volatility.window + 1)
        )
        loop.backfill(candles, self._manager.books.last_fill_ms)
        self._parts.risk.volatility.restart(float(candle.close) for candle in candles if candle.closed)
        if candles:
            self.last_close = candles[-1].close
        self.loop = loop
        self._log.info("strategy filled", strategy=settings.strategy.name, candles=loop.seen, warmup=strategy.warmup)
        if (missed := loop.missed(holding=self._manager.holding)) is not None:
            await self._execution.leave(missed)

    async def _ask_for_close(self, loop: TradingLoop) -> None:
        """The stream did not bring a close in time: what the exchange has by REST is as good, the newest to trade on.

        Where that fails, or it has none as no trade was made, the loop goes on and the exchange is asked again later.
        """
        if loop.last_open_ms is None:
            return
        start_ms = loop.last_open_ms + INTERVAL_MS[self._interval]
        found: list[Candle] = []
        try:
            found = await self._candles.closed(start_ms)
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            self._log.warning("a close that did not come could not be asked for", error=str(error))
        if not found:
            self._close_watch.asked_in_vain(self._exchange.exchange_ms())
            return
        *past, newest = found
        self._parts.metrics.missed(Missed.NO_CLOSE, self._fill(loop, past) + 1)
        await self._on_candle(loop, newest)

    def _fill(self, loop: TradingLoop, missing: list[Candle]) -> int:
        """Closed candles that nothing is decided on any more; how many were new."""
        self._parts.risk.volatility.update_prices(float(candle.close) for candle in missing)
        return loop.backfill(missing, self._manager.books.last_fill_ms)

    async def _on_candle(self, loop: TradingLoop, candle: Candle) -> None:
        parts = self._parts
        self.last_close = candle.close
        decision = self._judge_candle(loop, candle)
        if isinstance(decision, Gap):
            missing = await self._candles.read(decision.start_ms)
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
        signal_id = f"{self._manager.rules.symbol}-{candle.interval}-{candle.close_ms}"
        await self._execution.follow(decision, Seen(signal_id, candle.close, candle.close_ms))

    def _judge_candle(self, loop: TradingLoop, candle: Candle) -> Decision:
        before, failed = loop.last_open_ms, loop.failure
        now_ms, max_age_ms = self._exchange.exchange_ms(), self._max_age_ms
        decision = loop.on_candle(candle, now_ms=now_ms, max_age_ms=max_age_ms, holding=self._manager.holding)
        if loop.last_open_ms != before:
            age_ms = now_ms - candle.close_ms
            self._parts.metrics.candle(age_ms / 1000)
            if age_ms > max_age_ms:
                self._parts.metrics.missed(Missed.LATE, 1)
        self._tell_failure(loop, failed)
        return decision

    async def _on_tick(self, loop: TradingLoop, book: BookTicker) -> None:
        failed = loop.failure
        now_ms, age_ms = self._exchange.exchange_ms(), int((self._parts.monotonic() - book.received) * 1000)
        decision = loop.on_tick(
            book, now_ms=now_ms, age_ms=age_ms, max_age_ms=self._max_age_ms, holding=self._manager.holding
        )
        self._tell_failure(loop, failed)
        await self._execution.follow(
            decision, Seen(f"{self._manager.rules.symbol}-tick-{now_ms}", book.ask, now_ms - age_ms)
        )

    @property
    def _max_age_ms(self) -> int:
        return self._parts.settings().entry.max_data_age_seconds * 1000

    def _tell_failure(self, loop: TradingLoop, before: str | None) -> None:
        if loop.failure != before:
            self._log.error("strategy failed", message=loop.failure)
            self._parts.changed()


def _strategy_key(settings: BotSettings) -> object:
    return settings.strategy.name, settings.strategy.interval, tuple(sorted(settings.strategy.parameters.items()))
