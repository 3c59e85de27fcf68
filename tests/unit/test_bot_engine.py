"""Promises of the trading engine: indicators, ema-cross and the trading loop."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tradingbot.engine.close_watch import CLOSE_WAIT_MS, LONGEST_WAIT_MS, CloseWatch
from tradingbot.engine.strategies import CATALOGUE, StrategyParametersError, UnknownStrategyError, build_strategy
from tradingbot.engine.strategies.base import Signal, Strategy
from tradingbot.engine.strategies.catalogue import Offered
from tradingbot.engine.trading_loop import TICK_AGAIN_MS, Decision, Enter, Exit, Gap, Stay, TradingLoop
from tradingbot.gateway.inbox import MAX_CANDLES, Inbox
from tradingbot.model import BookTicker, Candle


def candle(index: int, close: float, *, closed: bool = True) -> Candle:
    price = Decimal(str(close))
    return Candle(
        symbol="BTCUSDT",
        interval="1s",
        open_ms=index * 1000,
        close_ms=index * 1000 + 999,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=Decimal(1),
        trades=1,
        closed=closed,
    )


def loop(fast: int = 1, slow: int = 2) -> TradingLoop:
    return TradingLoop(build_strategy("ema-cross", {"fast": fast, "slow": slow}))


class Scripted(Strategy):
    """Says one word a candle, then nothing more; settled from the second candle on."""

    name = "scripted"

    def __init__(self, words: list[Signal]) -> None:
        super().__init__(None)
        self._words = iter(words)

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, candle: Candle) -> Signal:
        return next(self._words, Signal.NONE)

    def describe(self) -> str:
        return "scripted"


def test_ema_cross_enters_once_at_the_upward_crossing_and_says_exit_while_below() -> None:
    strategy = build_strategy("ema-cross", {"fast": "1", "slow": 2})
    signals = [strategy.on_candle(candle(i, price)) for i, price in enumerate((10, 9, 8, 12, 13, 14, 9, 8))]
    assert signals[3:] == [Signal.ENTER, Signal.NONE, Signal.NONE, Signal.EXIT, Signal.EXIT]
    assert signals[2] is Signal.EXIT


@pytest.mark.parametrize(
    ("parameters", "field", "words"),
    [
        pytest.param({"fast": 30, "slow": 26}, "spec.strategy.parameters", "fast must be less than slow", id="order"),
        pytest.param({"fast": "x"}, "spec.strategy.parameters.fast", "valid integer", id="text"),
        pytest.param({"fast": 0}, "spec.strategy.parameters.fast", "greater than or equal to 1", id="bound"),
        pytest.param({"speed": 1}, "spec.strategy.parameters.speed", "not permitted", id="unknown"),
    ],
)
def test_a_wrong_strategy_parameter_is_named_with_its_path(
    parameters: dict[str, int | str], field: str, words: str
) -> None:
    with pytest.raises(StrategyParametersError) as caught:
        build_strategy("ema-cross", parameters)
    assert [item.field for item in caught.value.fields] == [field]
    assert words in str(caught.value)


def test_an_unknown_strategy_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownStrategyError, match=r"expected one of .*ema-cross.*, got 'nope'"):
        build_strategy("nope", {})


def test_only_closed_candles_in_time_trade() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 10, 10, 10, 10, 9))])
    assert isinstance(engine.on_candle(candle(6, 12, closed=False), now_ms=7000, max_age_ms=2000, holding=False), Stay)
    assert isinstance(engine.on_candle(candle(6, 12), now_ms=7000, max_age_ms=2000, holding=False), Enter)
    assert isinstance(engine.on_candle(candle(6, 12), now_ms=7000, max_age_ms=2000, holding=False), Stay)
    assert isinstance(engine.on_candle(candle(7, 5), now_ms=8000, max_age_ms=2000, holding=True), Exit)


def test_a_late_candle_moves_the_indicators_and_never_trades() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 10, 10, 10, 10, 9))])
    late = engine.on_candle(candle(6, 12), now_ms=9000, max_age_ms=2000, holding=False)
    assert isinstance(late, Stay)
    assert "ignored" in late.reason
    # The crossing is in the past now: the next candle in time does not trade on it.
    assert isinstance(engine.on_candle(candle(7, 13), now_ms=8000, max_age_ms=2000, holding=False), Stay)


def test_a_missing_candle_is_asked_for_before_anything_is_decided() -> None:
    engine = loop()
    engine.backfill([candle(i, 10) for i in range(6)])
    assert engine.on_candle(candle(8, 12), now_ms=9000, max_age_ms=2000, holding=False) == Gap(6000, 7999)
    assert engine.backfill([candle(6, 10), candle(7, 9)]) == 2
    assert isinstance(engine.on_candle(candle(8, 12), now_ms=9000, max_age_ms=2000, holding=False), Enter)


def test_a_crossing_missed_while_away_still_ends_the_position() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 12, 13, 9, 8, 7))])
    assert isinstance(engine.on_candle(candle(6, 6), now_ms=7000, max_age_ms=2000, holding=True), Exit)


def test_an_exit_is_never_too_late() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 12, 13, 14, 15, 16))])
    assert isinstance(engine.on_candle(candle(6, 6), now_ms=3_600_000, max_age_ms=2000, holding=True), Exit)


@pytest.mark.parametrize(
    ("said", "since_ms", "leaves"),
    [
        pytest.param("..x.", 0, True, id="said-once"),
        pytest.param(".ex.", 0, True, id="after-an-entry"),
        pytest.param(".xe.", 0, False, id="entered-again"),
        pytest.param("..x.", 3000, False, id="before-the-position"),
        pytest.param("x...", 0, False, id="before-the-strategy-has-settled"),
        pytest.param("..e.", 0, False, id="entry"),
    ],
)
def test_an_exit_in_a_gap_ends_the_position_once_and_an_entry_there_is_past(
    said: str, since_ms: int, leaves: bool
) -> None:
    words = {"x": Signal.EXIT, "e": Signal.ENTER, ".": Signal.NONE}

    def filled() -> TradingLoop:
        engine = TradingLoop(Scripted([words[letter] for letter in said]))
        engine.backfill([candle(i, 10) for i in range(len(said))], since_ms)
        return engine

    assert filled().missed(holding=False) is None
    engine = filled()
    assert isinstance(engine.missed(holding=True), Exit) == leaves
    assert engine.missed(holding=True) is None
    for holding, left in ((True, leaves), (False, False)):
        decision = filled().on_candle(candle(4, 10), now_ms=5000, max_age_ms=2000, holding=holding)
        assert isinstance(decision, Exit if left else Stay)


def test_nothing_is_decided_before_the_averages_have_settled() -> None:
    engine = loop(1, 2)
    engine.backfill([candle(0, 10), candle(1, 9)])
    decision = engine.on_candle(candle(2, 12), now_ms=3000, max_age_ms=2000, holding=False)
    assert isinstance(decision, Stay)
    assert "warming up: 3 of 6" in decision.reason


def test_a_strategy_that_fails_ends_the_decisions_and_not_the_bot() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 10, 10, 10, 10, 9))])
    engine.strategy.on_candle = lambda candle: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    decision = engine.on_candle(candle(6, 12), now_ms=7000, max_age_ms=2000, holding=False)
    assert isinstance(decision, Stay)
    assert "the strategy failed at the candle that opened at 6000 ms: ZeroDivisionError" in decision.reason
    assert not engine.ready
    assert isinstance(engine.on_candle(candle(7, 5), now_ms=8000, max_age_ms=2000, holding=True), Stay)


class BelowTheClose(Strategy):
    """In below the last close, out at it."""

    name = "below-the-close"
    wants_ticks = True
    warmup = 1

    def on_candle(self, candle: Candle) -> Signal:
        self.close = candle.close
        return Signal.NONE

    def on_tick(self, ticker: BookTicker) -> Signal:
        return Signal.ENTER if ticker.ask < self.close else Signal.EXIT

    def describe(self) -> str:
        return f"close={self.close}"


def book(ask: str) -> BookTicker:
    return BookTicker("BTCUSDT", Decimal(ask) - 1, Decimal(1), Decimal(ask), Decimal(1), received=0.0)


def tick(engine: TradingLoop, ask: str, now_ms: int, *, holding: bool = False, age_ms: int = 0) -> Decision:
    return engine.on_tick(book(ask), now_ms=now_ms, age_ms=age_ms, max_age_ms=2000, holding=holding)


def test_a_strategy_decides_on_ticks_between_two_candles() -> None:
    engine = TradingLoop(BelowTheClose(None))
    assert isinstance(tick(engine, "9", 500), Stay)  # it has seen no candle yet
    engine.backfill([candle(0, 10)])
    assert tick(engine, "9", 1100) == Enter("close=10 bid=8 ask=9")
    assert isinstance(tick(engine, "11", 1200), Stay)  # nothing is held
    assert tick(engine, "11", 1300, holding=True) == Exit("close=10 bid=10 ask=11")


def test_a_tick_that_waited_too_long_enters_never_and_is_never_too_late_for_an_exit() -> None:
    engine = TradingLoop(BelowTheClose(None))
    engine.backfill([candle(0, 10)])
    assert "the tick came 2001 ms ago" in tick(engine, "9", 4000, age_ms=2001).reason  # type: ignore[union-attr]
    assert isinstance(tick(engine, "11", 4000, age_ms=2001, holding=True), Exit)
    assert isinstance(tick(engine, "9", 4000, age_ms=2000), Enter)


def test_ticks_lead_to_a_decision_again_only_after_a_while() -> None:
    engine = TradingLoop(BelowTheClose(None))
    engine.backfill([candle(0, 10)])
    entered = [isinstance(tick(engine, "9", 1000 + ms), Enter) for ms in range(0, 2 * TICK_AGAIN_MS, 100)]
    assert sum(entered) == 2
    # What the entry brought can be sold at once.
    assert isinstance(tick(engine, "11", 1000 + TICK_AGAIN_MS + 100, holding=True), Exit)


def test_ticks_are_told_only_to_a_strategy_that_wants_them() -> None:
    engine = loop()
    engine.backfill([candle(i, 10) for i in range(6)])
    engine.strategy.on_tick = lambda ticker: Signal.ENTER  # type: ignore[method-assign]
    assert isinstance(tick(engine, "9", 6000), Stay)


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_a_book_with_an_empty_side_is_no_tick(side: str) -> None:
    engine = TradingLoop(BelowTheClose(None))
    engine.backfill([candle(0, 10)])
    engine.strategy.on_tick = lambda ticker: Signal.EXIT if ticker.ask / ticker.bid > 0 else Signal.ENTER  # type: ignore[method-assign]
    empty = replace(book("11"), **{side: Decimal(0)})
    decision = engine.on_tick(empty, now_ms=1100, age_ms=0, max_age_ms=2000, holding=True)
    assert decision == Stay("a side of the book is empty")
    assert isinstance(tick(engine, "11", 1200, holding=True), Exit)


def test_a_strategy_that_fails_at_a_tick_ends_the_decisions() -> None:
    engine = TradingLoop(BelowTheClose(None))
    engine.backfill([candle(0, 10)])
    engine.strategy.on_tick = lambda ticker: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    assert "failed at the best bid and ask of 1100 ms: ZeroDivisionError" in tick(engine, "9", 1100).reason  # type: ignore[union-attr]
    assert not engine.ready


class WithoutWarmup(BelowTheClose):
    """Cannot say how many candles it needs."""

    name = "without-warmup"

    @property
    def warmup(self) -> int:  # type: ignore[override]
        return len(self.parameters)


class Unmakeable(BelowTheClose):
    """Cannot be made."""

    name = "unmakeable"

    def __init__(self, parameters: object) -> None:
        raise OSError("no model here")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param(Unmakeable, "OSError: no model here", id="made"),
        pytest.param(WithoutWarmup, "TypeError: object of type 'NoParameters' has no len", id="asked"),
    ],
)
def test_a_strategy_that_cannot_be_made_or_asked_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, kind: type[Strategy], words: str
) -> None:
    monkeypatch.setitem(CATALOGUE.strategies, kind.name, Offered(kind, "test"))
    with pytest.raises(StrategyParametersError, match=words):
        build_strategy(kind.name, {})


def test_a_strategy_that_says_no_signal_has_failed_and_enters_nothing() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 10, 10, 10, 10, 9))])
    engine.strategy.on_candle = lambda candle: None  # type: ignore[method-assign, assignment, return-value]
    decision = engine.on_candle(candle(6, 12), now_ms=7000, max_age_ms=2000, holding=False)
    assert decision == Stay(
        "the strategy failed at the candle that opened at 6000 ms: ValueError: None is not a valid Signal"
    )
    ticks = TradingLoop(BelowTheClose(None))
    ticks.backfill([candle(0, 10)])
    ticks.strategy.on_tick = lambda ticker: None  # type: ignore[method-assign, assignment, return-value]
    assert isinstance(tick(ticks, "9", 1100), Stay)
    assert ticks.failure is not None


def test_a_strategy_that_cannot_describe_itself_is_followed_all_the_same() -> None:
    engine = loop()
    engine.backfill([candle(i, price) for i, price in enumerate((10, 12, 13, 14, 15, 16))])
    engine.strategy.describe = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    decision = engine.on_candle(candle(6, 5), now_ms=7000, max_age_ms=2000, holding=True)
    assert isinstance(decision, Exit)
    assert "not described: ZeroDivisionError" in decision.reason


async def test_of_ticks_that_wait_the_newest_is_taken_and_no_candle_is_lost_by_them() -> None:
    inbox = Inbox()
    for number in range(1000):
        inbox.put_tick(book(str(number + 2)))
    assert inbox.put(candle(0, 10))
    assert inbox.put(candle(1, 10))
    taken = [await inbox.take(0) for _ in range(4)]
    assert taken == [candle(0, 10), candle(1, 10), book("1001"), None]


async def test_candles_that_nobody_takes_are_bounded_and_the_loss_is_told() -> None:
    inbox = Inbox()
    assert [inbox.put(candle(i, 10)) for i in range(MAX_CANDLES + 1)] == [True] * MAX_CANDLES + [False]
    assert await inbox.take(0) == candle(1, 10)


def test_a_close_is_overdue_a_bounded_time_after_the_end_of_its_candle() -> None:
    watch = CloseWatch()
    assert watch.due_in(None, 60_000, 0) is None
    assert watch.due_in(0, 60_000, 60_000) == 60_000 + CLOSE_WAIT_MS
    assert watch.due_in(0, 60_000, 120_000 + CLOSE_WAIT_MS) == 0
    assert watch.due_in(60_000, 60_000, 120_000 + CLOSE_WAIT_MS) == 60_000


def test_an_exchange_that_has_no_close_is_asked_less_and_less_until_one_comes() -> None:
    watch, now, waits = CloseWatch(), 1_000_000, []
    for _ in range(8):
        assert watch.due_in(0, 1_000, now) == 0
        watch.asked_in_vain(now)
        waits.append(watch.due_in(0, 1_000, now) or 0)
        now += waits[-1]
    assert waits[:3] == [CLOSE_WAIT_MS, 2 * CLOSE_WAIT_MS, 4 * CLOSE_WAIT_MS]
    assert waits[-1] == LONGEST_WAIT_MS
    asked = now - waits[-1]
    assert watch.due_in(asked, 1_000, asked) == 2_000 + CLOSE_WAIT_MS


def test_candles_that_the_exchange_has_not_are_skipped_and_the_next_is_decided_on() -> None:
    engine = loop()
    engine.backfill([candle(i, 10) for i in range(5)] + [candle(5, 9)])
    assert isinstance(engine.on_candle(candle(8, 12), now_ms=9000, max_age_ms=2000, holding=False), Gap)
    engine.skip_to(candle(8, 12))
    assert isinstance(engine.on_candle(candle(8, 12), now_ms=9000, max_age_ms=2000, holding=False), Enter)
