"""Promises of the trading engine: indicators, ema-cross and the trading loop."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tradingbot.engine.strategies import StrategyParametersError, UnknownStrategyError, build_strategy
from tradingbot.engine.strategies.base import Signal, Strategy
from tradingbot.engine.trading_loop import Enter, Exit, Gap, Stay, TradingLoop
from tradingbot.model import Candle


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
