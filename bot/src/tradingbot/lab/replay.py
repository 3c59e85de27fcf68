"""One bot over recorded candles: the bot's engine, risk manager and books, on the paper exchange's core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Final

from paper_exchange.core.errors import ExchangeError as Refused
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.symbols import SymbolRules as CoreRules
from tradingbot.candle_reader import INTERVAL_MS
from tradingbot.clocks import from_ms
from tradingbot.engine.strategies import CATALOGUE, build_strategy
from tradingbot.engine.trading_loop import Decision, Enter, Exit, Gap, TradingLoop
from tradingbot.gateway import filters
from tradingbot.gateway.port import NewOco, NewOtoco, NewProtection
from tradingbot.lab.candle_exchange import CandleExchange, FillModel
from tradingbot.lab.open_exchange import OpenExchange
from tradingbot.lab.recording import Recording
from tradingbot.model import Candle, OrderType, Side, TimeInForce, TradeFill
from tradingbot.orders.planning import (
    EntryPlan,
    ProtectionPlan,
    entry_order,
    plan_entry,
    plan_protection,
    protection_pair,
    sale_order,
    stop_order,
)
from tradingbot.orders.protection import held_quantity
from tradingbot.orders.sizing import size_entry
from tradingbot.risk.drawdown import DrawdownTracker
from tradingbot.risk.risk_manager import Refusal, RiskManager, Size
from tradingbot.risk.risk_manager import Refused as RiskRefused
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot.state.ledger import BookedFill, LedgerState, book, extend
from tradingbot.strategy_runner import LOOK_BACK_CANDLES
from tradingbot_api.v1alpha1 import BotSettings

DAY_MS: Final = 86_400_000
HELD_SECONDS: Final = 3.0
"""A limit that is passed at the worst price of a candle counts as passed for so long: the worse of what may be."""
TOLD_EVERY: Final = 5_000
LIMIT_SALES: Final = 3
SALES: Final = 6


class Why(StrEnum):
    """What an order was sent for."""

    ENTRY = "Entry"
    SIGNAL = "Signal"
    STOP_LOSS = "StopLoss"
    TAKE_PROFIT = "TakeProfit"
    UNPROTECTED = "Unprotected"


@dataclass(frozen=True, slots=True)
class ReplayFill:
    """A fill, why there was one, and the books after it."""

    booked: BookedFill
    why: Why
    books: LedgerState

    @property
    def fill(self) -> TradeFill:
        """The exchange's word."""
        return self.booked.fill


@dataclass(slots=True)
class Outcome:
    """What came of one replay; amounts in quote."""

    symbol: str
    settings: BotSettings
    model: FillModel
    no_books: LedgerState
    """Before the first fill."""
    first: int
    end: int
    """The candles that were traded: from index `first` to before `end`."""
    gaps: int = 0
    """How often candles were missing."""
    fills: list[ReplayFill] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """Entries that were signalled and not made, by code."""
    max_drawdown: Decimal = Decimal(0)
    """The largest fall from the highest equity, at the lows and highs of candles; a ratio."""
    stopped: str = ""
    """Why no entry was made any more at the end: a limit that only a human clears, or a strategy that failed."""
    stopped_ms: int = 0

    @property
    def books(self) -> LedgerState:
        """At the end."""
        return self.fills[-1].books if self.fills else self.no_books


def replay(
    recording: Recording,
    settings: BotSettings,
    model: FillModel,
    *,
    rules: CoreRules | None = None,
    first: int = 0,
    end: int | None = None,
    progress: Callable[[int], None] | None = None,
    decided: Callable[[Candle, Decision], None] | None = None,
) -> Outcome:
    """Trade the candles from index `first` to before `end`; those before `first` only fill the strategy.

    The strategy sees candles of its own interval, which whole candles of the recording make up. `rules` are those of
    the symbol, needed where the paper exchange does not have it. `progress` is told how many candles are done now and
    then, `decided` of each decision. Errors of Recording.coarser and build_strategy.
    """
    end = len(recording) if end is None else end
    rules = rules or SYMBOLS[recording.symbol]
    exchange: CandleExchange | OpenExchange
    if model.next_open:
        exchange = OpenExchange(recording, rules, model, settings.capital)
    else:
        exchange = CandleExchange(recording, rules, _with_all_trades(model, settings), settings)
    return _Replay(recording, settings, exchange, (first, end), decided=decided).run(progress or (lambda _: None))


def _with_all_trades(model: FillModel, settings: BotSettings) -> FillModel:
    """A strategy that wants ticks is given each."""
    offered = CATALOGUE.strategies.get(settings.strategy.name)
    return replace(model, skip=False) if offered is not None and offered.kind.wants_ticks else model


class _Replay:
    def __init__(
        self,
        recording: Recording,
        settings: BotSettings,
        exchange: CandleExchange | OpenExchange,
        span: tuple[int, int],
        *,
        decided: Callable[[Candle, Decision], None] | None,
    ) -> None:
        self._recording, self._settings = recording, settings
        self._first, self._end = first, end = span
        self._decided = decided
        self._candles, self._starts = recording.coarser(INTERVAL_MS[settings.strategy.interval])
        """What the strategy sees, and which of the recorded candles each is made of."""
        self._span = (
            self._candles.index_at(recording.open_ms[first]),
            self._candles.index_at(recording.open_ms[end - 1] + recording.width - self._candles.width + 1),
        )
        self._loop = TradingLoop(build_strategy(settings.strategy.name, settings.strategy.parameters))
        self._exchange, self._rules = exchange, exchange.rules
        self._risk = RiskManager(settings, DrawdownTracker(), VolatilityTracker(settings.risk.volatility.window))
        self._max_age_ms = settings.entry.max_data_age_seconds * 1000
        self._books = LedgerState.empty(self._rules)
        self._held = Decimal(0)
        self._working = False
        """Orders of ours are open, or a position is held."""
        self._sequence = 0
        self._closes = max(0, self._span[0] - max(LOOK_BACK_CANDLES, settings.risk.volatility.window + 1))
        """The first candle whose close the volatility has not seen."""
        self._day_end = 0
        self._low_mark, self._high_mark = 0, 0
        """Between these prices neither peak nor deepest fall nor a limit changes; in units."""
        self._selling_for = Why.SIGNAL
        self.outcome = Outcome(recording.symbol, settings, exchange.model, self._books, first, end)

    def run(self, progress: Callable[[int], None]) -> Outcome:
        self._fill_strategy(self._recording.open_ms[self._first])
        loop, starts, single = self._loop, self._starts, self._candles is self._recording
        low, high, exchange = self._recording.low, self._recording.high, self._exchange
        max_age_ms, ticks, decided = self._max_age_ms, loop.strategy.wants_ticks, self._decided
        told, last = self._first + TOLD_EVERY, self._end - 1
        begin, end = self._span
        for number, candle in enumerate(self._candles.candles(begin, end), begin):
            if candle.open_ms >= self._day_end:
                self._new_day(candle.open_ms, candle.open)
            index = number
            if not single:
                for index in range(starts[number], starts[number + 1]):
                    self._live(index, ticks=ticks)
            # The same for one candle, without a call for each where nothing happens.
            elif ticks or self._working or low[index] <= exchange.below or high[index] >= exchange.above:
                self._live(index, ticks=ticks)
            decision = loop.on_candle(candle, now_ms=candle.close_ms, max_age_ms=max_age_ms, holding=self._held > 0)
            if isinstance(decision, Gap):
                decision = self._across_a_gap(candle)
            if decided is not None:
                decided(candle, decision)
            if isinstance(decision, Enter | Exit) and index < last:
                self._act(decision, index)
            if index >= told:
                progress(index - self._first)
                told += TOLD_EVERY
        return self._ended(progress)

    def _live(self, index: int, *, ticks: bool) -> None:
        """What the market does in a recorded candle to our orders and our equity."""
        low, high = self._recording.low[index], self._recording.high[index]
        end_ms = self._recording.open_ms[index] + self._recording.width - 1
        held_at_low = self._working and self._exchange.outlives(low)
        if held_at_low and low <= self._low_mark:
            self._take_equity(Decimal(low).scaleb(-8), end_ms)
        if ticks:
            self._play_with_ticks(index)
        elif low <= self._exchange.below or high >= self._exchange.above:
            self._play(index)
        if self._working and not held_at_low and low <= self._low_mark:
            self._take_equity(Decimal(low).scaleb(-8), end_ms)
        if self._working and high >= self._high_mark:
            self._take_equity(Decimal(high).scaleb(-8), end_ms)

    # --- the strategy ---

    def _fill_strategy(self, end_ms: int) -> None:
        """As a bot that starts then: with as many candles as the strategy needs, and some more."""
        seen = self._candles
        since_ms = end_ms - (self._loop.strategy.warmup + LOOK_BACK_CANDLES) * seen.width
        candles = list(seen.candles(seen.index_at(since_ms), seen.index_at(end_ms)))
        self._loop.backfill(candles, self._books.last_fill_ms)

    def _across_a_gap(self, candle: Candle) -> Decision:
        """The exchange has no candles there either, as a bot would hear from it: this one is the next."""
        self.outcome.gaps += 1
        self._loop.skip_to(candle)
        return self._judge(candle)

    def _judge(self, candle: Candle) -> Decision:
        return self._loop.on_candle(candle, now_ms=candle.close_ms, max_age_ms=self._max_age_ms, holding=self._held > 0)

    def _play_with_ticks(self, index: int) -> None:
        """Each trade moves the best bid and ask: the strategy is asked, and acts at once."""
        exchange, loop = self._exchange, self._loop
        for _ in exchange.rest(index):
            self._take_fills()
            self._settle()
            decision = loop.on_tick(
                exchange.book(),
                now_ms=exchange.now_ms,
                age_ms=0,
                max_age_ms=self._max_age_ms,
                holding=self._held > 0,
            )
            if isinstance(decision, Enter | Exit):
                exchange.go_to(exchange.now_ms + self.outcome.model.latency_ms)
                self._follow(decision)

    # --- decisions ---

    def _act(self, decision: Enter | Exit, index: int) -> None:
        recording = self._recording
        closed_ms = recording.open_ms[index] + recording.width
        if recording.open_ms[index + 1] == closed_ms:
            self._exchange.begin(index + 1)
            self._take_fills()
        else:
            self._exchange.finish(index)
        self._exchange.go_to(closed_ms + self.outcome.model.latency_ms)
        self._follow(decision)

    def _follow(self, decision: Enter | Exit) -> None:
        """Send what was decided."""
        exchange = self._exchange
        if exchange.now_ms >= self._day_end:  # of the candle that closed at midnight
            self._new_day(exchange.now_ms, exchange.book().bid)
        if isinstance(decision, Exit):
            self._sell(Why.SIGNAL)
        else:
            self._enter()
        self._settle()

    def _enter(self) -> None:
        exchange, risk = self._exchange, self._risk
        if self.outcome.stopped:
            self.outcome.refusals[self.outcome.stopped] += 1
            return
        now, monotonic = from_ms(exchange.now_ms), exchange.now_ms / 1000
        for pause in risk.should_pause_trading(now, monotonic):
            self.outcome.refusals[pause.code.value] += 1
            return
        ticker = exchange.book()
        refused = risk.check_market_conditions(ticker, monotonic)
        if refused is not None:
            self.outcome.refusals[refused.code.value] += 1
            return
        self._follow_volatility()
        size = size_entry(
            risk,
            self._rules,
            self._books,
            capital=self._settings.capital,
            quote_free=exchange.free(self._rules.quote_asset),
            book=ticker,
            taker_rate=exchange.taker_rate,
            now=now,
        )
        if isinstance(size, RiskRefused):
            self.outcome.refusals[size.code.value] += 1
            if size.code is Refusal.DRAWDOWN_AT_STOP:
                self.outcome.stopped, self.outcome.stopped_ms = Refusal.DRAWDOWN.value, exchange.now_ms
            return
        self._buy(size, ticker.ask)

    def _follow_volatility(self) -> None:
        """The closes since the last time, of candles that are over: only entries ask for it."""
        end = self._candles.index_at(self._exchange.now_ms - self._candles.width + 1)
        self._risk.volatility.update_prices(price / 1e8 for price in self._candles.close[self._closes : end])
        self._closes = end
        self._risk.adjust_risk_parameters()

    def _buy(self, size: Size, ask: Decimal) -> None:
        plan = plan_entry(
            self._rules,
            self._settings,
            quantity=size.quantity,
            ask=ask,
            taker_rate=self._exchange.taker_rate,
            held=self._books.quantity,
        )
        if not isinstance(plan, EntryPlan):
            self.outcome.refusals[plan.code.value] += 1
            return
        self._risk.record_entry(self._exchange.now_ms / 1000)
        name = self._name()
        symbol = self._rules.symbol
        entry = entry_order(symbol, name, plan, TimeInForce.FOK)
        try:
            self._exchange.enter(NewOtoco(symbol, f"{name}-l", entry, _pair(name, plan.protection)))
            self._take_fills()
            if self._held == 0:  # the book is too thin inside the collar: what there is, protected right after
                self._exchange.place(entry_order(symbol, self._name(), plan, TimeInForce.IOC))
        except Refused as error:
            self.outcome.refusals[f"Exchange {error.code}"] += 1

    def _sell(self, why: Why) -> None:
        """Take the protection off and sell, inside the slippage collar first, then at the market."""
        exchange, rules = self._exchange, self._rules
        self._selling_for = why
        exchange.cancel_all()
        for attempt in range(SALES):
            quantity = filters.floor_quantity(rules, min(self._held, exchange.free(rules.base_asset)))
            if quantity <= 0:
                return
            at_market = why is Why.UNPROTECTED or attempt >= LIMIT_SALES
            bid = None if at_market else exchange.book().bid
            slippage = self._settings.entry.max_slippage_ratio
            order = sale_order(rules, self._name(), quantity, bid=bid, max_slippage_ratio=slippage)
            try:
                exchange.place(order)
            except Refused as error:
                self.outcome.refusals[f"Exchange {error.code}"] += 1
                return
            self._take_fills()

    # --- what the market does to our orders ---

    def _play(self, index: int) -> None:
        for _ in self._exchange.rest(index):
            self._take_fills()
            self._settle()

    def _settle(self) -> None:
        """Protect again what lost its protection, or sell it where the price has passed the stop."""
        self._take_fills()
        if self._held > 0 and not self._exchange.protected:
            self._exchange.cancel_all()  # a take-profit that was filled in part has taken its stop with it
            bid = self._exchange.book().bid
            plan = plan_protection(self._rules, self._settings, self._held, self._books.average_price)
            if bid <= plan.stop_price:
                self._sell(Why.UNPROTECTED)
            elif bid >= plan.take_profit_price:
                self._sell(Why.TAKE_PROFIT)
            elif not self._protect(plan):
                self._sell(Why.UNPROTECTED)
            self._take_fills()
        self._working = self._held > 0 or bool(self._exchange.open_orders)

    def _protect(self, plan: ProtectionPlan) -> bool:
        """A pair, else a stop alone; False where the exchange takes neither."""
        name, symbol = self._name(), self._rules.symbol
        pair = _pair(name, plan)
        stop = stop_order(symbol, pair.stop_client_id, plan)
        places = (
            partial(self._exchange.protect, NewOco(symbol, f"{name}-l", pair)),
            partial(self._exchange.place, stop),
        )
        for place in places:
            with suppress(Refused):
                place()
                return True
        return False

    def _take_fills(self) -> None:
        for fill, kind in self._exchange.take_fills():
            booked = book(fill, self._rules.base_asset, self._rules.quote_asset)
            why = self._why(fill, kind)
            if why is Why.STOP_LOSS:
                self._risk.record_stop_out(from_ms(fill.time_ms))
            self._books = extend(self._books, [booked])
            self._held = held_quantity(self._rules, self._books)
            self.outcome.fills.append(ReplayFill(booked, why, self._books))
            self._take_equity(fill.price, fill.time_ms)

    def _why(self, fill: TradeFill, kind: OrderType) -> Why:
        if fill.side is Side.BUY:
            return Why.ENTRY
        if kind.is_stop:
            return Why.STOP_LOSS
        return Why.TAKE_PROFIT if kind is OrderType.LIMIT_MAKER else self._selling_for

    # --- equity and limits ---

    def _take_equity(self, price: Decimal, time_ms: int) -> None:
        risk, now = self._risk, from_ms(time_ms)
        equity = self._books.equity(self._settings.capital, price, self._exchange.taker_rate)
        risk.update_equity(equity, now)
        limits = self._settings.risk
        if risk.drawdown.daily_loss >= limits.max_daily_loss or risk.drawdown.drawdown >= limits.max_drawdown_ratio:
            for seconds in (0.0, HELD_SECONDS):
                pauses = risk.should_pause_trading(now, time_ms / 1000 + seconds)
            if not self.outcome.stopped and any(pause.code is Refusal.DRAWDOWN for pause in pauses):
                self.outcome.stopped, self.outcome.stopped_ms = Refusal.DRAWDOWN.value, time_ms
        self._set_marks(equity, price)

    def _set_marks(self, equity: Decimal, price: Decimal) -> None:
        """The prices at which the next equity would change a mark or pass a limit; they err to the side of looking."""
        marks, quantity = self._risk.drawdown.marks, self._books.quantity
        if marks is None or quantity <= 0:
            self._low_mark, self._high_mark = 0, 2**63
            return
        limits = self._settings.risk
        lowest = max(
            marks.peak * (1 - max(marks.max_drawdown, Decimal(0))),
            marks.peak * (1 - limits.max_drawdown_ratio),
            marks.day_start - limits.max_daily_loss,
        )
        each = quantity * (1 - self._exchange.taker_rate) / 10**8
        at = int(price * 10**8)
        self._low_mark = at + int((lowest - equity) / each) + 1
        self._high_mark = at + int((marks.peak - equity) / each) - 1

    def _new_day(self, time_ms: int, price: Decimal) -> None:
        self._day_end = time_ms // DAY_MS * DAY_MS + DAY_MS
        capital = self._settings.capital
        equity = self._books.equity(capital, price, self._exchange.taker_rate)
        self._risk.drawdown.open_day(from_ms(time_ms), equity, equity, capital)
        self._take_equity(price, time_ms)

    # --- the end ---

    def _name(self) -> str:
        self._sequence += 1
        return f"replay-{self._sequence}"

    def _ended(self, progress: Callable[[int], None]) -> Outcome:
        outcome, recording = self.outcome, self._recording
        last = self._end - 1
        self._take_equity(recording.candle(last).close, recording.open_ms[last] + recording.width - 1)
        marks = self._risk.drawdown.marks
        outcome.max_drawdown = marks.max_drawdown if marks is not None else Decimal(0)
        if self._loop.failure is not None:
            outcome.stopped, outcome.stopped_ms = self._loop.failure, self._loop.last_open_ms or 0
        progress(self._end - self._first)
        return outcome


def _pair(name: str, plan: ProtectionPlan) -> NewProtection:
    return protection_pair(plan, lambda purpose: f"{name}-{purpose}")
