"""What each built-in strategy enters and exits on, over prices made for it and over recorded candles."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.engine.strategies import BUILT_IN, StrategyParametersError, build_strategy
from tradingbot.engine.strategies.base import Regime, Signal
from tradingbot.model import Candle

NONE, ENTER, EXIT = Signal.NONE, Signal.ENTER, Signal.EXIT


def candle(index: int, close: float, *, high: float | None = None, low: float | None = None) -> Candle:
    return Candle(
        symbol="BTCUSDT",
        interval="1m",
        open_ms=index * 60_000,
        close_ms=index * 60_000 + 59_999,
        open=Decimal(str(close)),
        high=Decimal(str(close if high is None else high)),
        low=Decimal(str(close if low is None else low)),
        close=Decimal(str(close)),
        volume=Decimal(1),
        trades=1,
        closed=True,
    )


def signals(name: str, parameters: dict[str, int | str], closes: list[float]) -> list[Signal]:
    strategy = build_strategy(name, parameters)
    return [strategy.on_candle(candle(index, close)) for index, close in enumerate(closes)]


def test_rsi_reversion_buys_the_recovery_from_oversold_and_sells_at_its_exit() -> None:
    falling = [100.0 - step for step in range(10)]
    found = signals("rsi-reversion", {"period": 3, "oversold": "30", "exit": 60}, [*falling, 92.0, 94.0, 94.1, 93.0])
    assert set(found[:10]) == {NONE}
    assert found[10:] == [ENTER, EXIT, EXIT, EXIT]


def test_donchian_breakout_buys_above_the_highs_before_it_and_sells_below_the_lows() -> None:
    strategy = build_strategy("donchian-breakout", {"entry": 3, "exit": 2})
    rows = [
        (10, 11, 9),
        (10, 12, 9),
        (10, 11, 9),
        (12, 12, 10),
        (12.5, 13, 12),
        (14, 14, 13),
        (12.5, 13, 12),
        (11, 12, 11),
    ]
    found = [strategy.on_candle(candle(i, close, high=high, low=low)) for i, (close, high, low) in enumerate(rows)]
    # At the highest high itself nothing is broken; a second high is the same entry.
    assert found == [NONE, NONE, NONE, NONE, ENTER, NONE, NONE, EXIT]


def test_bollinger_reversion_buys_the_return_into_the_bands_and_sells_at_the_middle() -> None:
    closes = [10.0, 10.2, 9.8, 10.0, 10.2, 9.8, 8.0, 9.0, 9.1, 10.4]
    found = signals("bollinger-reversion", {"period": 5, "deviations": "1.5"}, closes)
    assert found.index(ENTER) == closes.index(9.0)
    assert found[-1] is EXIT


def test_confirmed_signal_waits_until_all_agree() -> None:
    parameters: dict[str, int | str] = {
        "fast": 2,
        "slow": 4,
        "signal": 2,
        "rsi": 2,
        "mean": 4,
        "required": 4,
        "keep": 1,
    }
    falling, rising = [100.0 - step for step in range(20)], [81.4 + 0.4 * step for step in range(15)]
    found = signals("confirmed-signal", parameters, [*falling, *rising, *falling])
    first = found.index(ENTER)
    assert first > len(falling)  # not at the first candle that rises: the averages come later
    assert found.count(ENTER) == 1
    assert found[-1] is EXIT
    fewer = signals("confirmed-signal", {**parameters, "required": 2}, [*falling, *rising, *falling])
    assert fewer.index(ENTER) < first


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        pytest.param("rsi-reversion", {"oversold": 60}, "oversold must be less than exit", id="rsi"),
        pytest.param("rsi-reversion", {"oversold": "low"}, "valid number", id="rsi-text"),
        pytest.param("bollinger-reversion", {"deviations": 0}, "greater than 0", id="bollinger"),
        pytest.param("donchian-breakout", {"entry": 0}, "greater than or equal to 1", id="donchian"),
        pytest.param("confirmed-signal", {"keep": 3, "required": 3}, "keep must be less than required", id="votes"),
        pytest.param("confirmed-signal", {"fast": 26}, "fast must be less than slow", id="averages"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(name: str, parameters: dict[str, int | str], words: str) -> None:
    with pytest.raises(StrategyParametersError, match=words):
        build_strategy(name, parameters)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_an_entry_is_said_once_until_an_exit_and_an_exit_until_the_next_entry(asks: list[tuple[bool, bool]]) -> None:
    regime, inside = Regime(), False
    for enter, leave in asks:
        signal = regime.update(enter=enter, leave=leave)
        assert signal is not ENTER or not inside
        assert not (leave and signal is not EXIT)
        inside = (inside or signal is ENTER) and signal is not EXIT


@pytest.mark.parametrize("name", [kind.name for kind in BUILT_IN])
@given(closes=st.lists(st.floats(min_value=1, max_value=1000), min_size=2, max_size=200), cut=st.integers(1, 199))
def test_no_signal_depends_on_what_comes_after_it(name: str, closes: list[float], cut: int) -> None:
    whole, part = signals(name, {}, closes), signals(name, {}, closes[:cut])
    assert whole[: len(part)] == part
    assert build_strategy(name, {}).warmup > 0
