"""Promises of replay: the fills are the exchange's whether or not it skips, nobody sees the future, books balance."""

from __future__ import annotations

from array import array
from decimal import Decimal
from typing import Any

import pytest

from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import to_units
from support.recordings import MINUTE_MS, START_MS, random_recording, replay_settings
from tradingbot.engine.strategies import CATALOGUE
from tradingbot.engine.strategies.base import Signal, Strategy
from tradingbot.engine.strategies.catalogue import Offered
from tradingbot.engine.trading_loop import Decision, Enter, Exit, Stay
from tradingbot.lab.candle_exchange import CandleExchange, FillModel
from tradingbot.lab.recording import Recording
from tradingbot.lab.replay import DAY_MS, Outcome, Why, _Replay, replay
from tradingbot.lab.replay_figures import summarise
from tradingbot.model import BookTicker, Candle, Side
from tradingbot_api.v1alpha1 import Interval

EVERYTHING = FillModel(skip=False)
STRATEGIES = ["donchian-breakout", "ema-cross", "rsi-reversion", "bollinger-reversion"]


def fills(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [
        (one.fill.time_ms, one.fill.side, one.fill.price, one.fill.quantity, one.fill.commission, one.why)
        for one in outcome.fills
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("empty", [0.0, 0.3])
def test_what_is_left_out_changes_no_fill(strategy: str, empty: float) -> None:
    reasons: set[Why] = set()
    for seed in range(2):
        recording = random_recording(seed, 200, trades=4, empty=empty)
        settings = replay_settings(strategy, protection={"stopLossRatio": "0.004", "takeProfitRatio": "0.006"})
        skipped, played = (replay(recording, settings, model) for model in (FillModel(), EVERYTHING))
        assert fills(skipped) == fills(played)
        assert skipped.refusals == played.refusals
        assert skipped.max_drawdown == played.max_drawdown
        reasons |= {one.why for one in skipped.fills}
    assert len(reasons) > 2


def test_a_stop_that_follows_the_price_fills_as_it_does_where_everything_is_played() -> None:
    settings = replay_settings(
        protection={"stopLossRatio": "0.01", "takeProfitRatio": "0.05", "trailingRatio": "0.004"}
    )
    recording = random_recording(3, 200, trades=4)
    skipped, played = (replay(recording, settings, model) for model in (FillModel(), EVERYTHING))
    assert fills(skipped) == fills(played)
    assert Why.STOP_LOSS in {one.why for one in skipped.fills}


@pytest.mark.parametrize("strategy", [*STRATEGIES, "confirmed-signal"])
def test_no_decision_changes_with_what_comes_later(strategy: str) -> None:
    recording, cut = random_recording(11, 300), 200

    def decisions(market: Recording) -> list[tuple[int, Decision]]:
        made: list[tuple[int, Decision]] = []

        def decided(candle: Candle, decision: Decision) -> None:
            made.append((candle.open_ms, decision))

        replay(market, replay_settings(strategy), FillModel(), decided=decided)
        return made

    true = decisions(recording)
    for factor in (0.5, 1.1):
        changed = random_recording(11, 300)
        for column in (changed.open, changed.high, changed.low, changed.close):
            column[cut:] = array("q", (int(price * factor) // 10**6 * 10**6 for price in column[cut:]))
        found = decisions(changed)
        assert found[:cut] == true[:cut]
        assert found[cut:] != true[cut:]
    shifted = random_recording(11, 300)
    for column in (shifted.open, shifted.high, shifted.low, shifted.close, shifted.volume):
        column[cut:] = column[cut + 1 :] + column[cut : cut + 1]
    assert decisions(shifted)[:cut] == true[:cut]


def test_an_order_fills_at_the_next_open_and_never_at_the_close_that_decided_it() -> None:
    recording = random_recording(5, 300, jump=400)
    tick = Decimal("0.01")
    made: dict[int, Decision] = {}
    outcome = replay(
        recording,
        replay_settings(),
        FillModel(),
        decided=lambda candle, decision: made.update({candle.close_ms: decision}),
    )
    for one in outcome.fills:
        if one.why not in (Why.ENTRY, Why.SIGNAL):
            continue
        opened = one.fill.time_ms // MINUTE_MS * MINUTE_MS
        assert one.fill.time_ms - opened == outcome.model.latency_ms
        assert isinstance(made[opened - 1], Enter if one.fill.side is Side.BUY else Exit)
        at = Decimal(recording.open[recording.index_at(opened)]).scaleb(-8)
        # The trade at the open is the best bid, or the best ask where it was bought: our fill is a tick off at most.
        assert abs(one.fill.price - at) <= tick


def test_to_compare_with_others_orders_fill_whole_at_the_next_open_with_fees_in_quote_and_no_stop_ends_a_position() -> (
    None
):
    recording = random_recording(5, 300)
    settings = replay_settings(protection={"stopLossRatio": "0.00001", "takeProfitRatio": "0.00001"})
    outcome = replay(recording, settings, FillModel(next_open=True))
    assert len(outcome.fills) > 4
    assert {one.why for one in outcome.fills} == {Why.ENTRY, Why.SIGNAL}
    bought = [one.fill.quantity for one in outcome.fills if one.why is Why.ENTRY]
    sold = [one.fill.quantity for one in outcome.fills if one.why is Why.SIGNAL]
    assert bought[: len(sold)] == sold
    for fill in (one.fill for one in outcome.fills):
        at = recording.index_at(fill.time_ms - outcome.model.latency_ms)
        assert fill.price == Decimal(recording.open[at]).scaleb(-8)
        assert fill.commission_asset == "USDT"
        assert fill.commission == (fill.quote_quantity * outcome.model.fee).quantize(Decimal("1e-8"))


def by_hand(rows: list[tuple[float, float, float, float]], start_ms: int = START_MS) -> Recording:
    recording = Recording("BTCUSDT", MINUTE_MS)
    for number, prices in enumerate(rows):
        units = [to_units(Decimal(str(price))) for price in prices]
        recording.add([start_ms + number * MINUTE_MS, *units, 10**9, 60, 0])
    return recording


RISING = [(100.0, 101.0, 99.0, 100.0)] * 6 + [(100.0, 103.0, 100.0, 103.0)]


def test_where_stop_and_take_profit_are_in_one_candle_the_stop_comes_first() -> None:
    outcome = replay(
        by_hand([*RISING, (103.0, 110.0, 95.0, 108.0), (108.0, 108.0, 108.0, 108.0)]), replay_settings(), FillModel()
    )
    assert [one.why for one in outcome.fills[:2]] == [Why.ENTRY, Why.STOP_LOSS]
    entry, stop = (one.fill.price for one in outcome.fills[:2])
    assert entry == Decimal("103.01")
    # It triggers at the first trade at or below it on the way down, and sells to the best bid there.
    assert Decimal(95) < stop <= entry * Decimal("0.995")


def test_a_gap_through_the_stop_sells_at_the_price_after_the_gap() -> None:
    outcome = replay(
        by_hand([*RISING, (103.0, 103.0, 103.0, 103.0), (90.0, 92.0, 88.0, 91.0)]), replay_settings(), FillModel()
    )
    assert [(one.why, one.fill.price) for one in outcome.fills][1] == (Why.STOP_LOSS, Decimal("90"))


def test_a_take_profit_fills_at_its_own_price_as_a_maker() -> None:
    outcome = replay(
        by_hand([*RISING, (103.0, 106.0, 103.0, 106.0), (106.0, 106.0, 106.0, 106.0)]), replay_settings(), FillModel()
    )
    profit = outcome.fills[1]
    assert (profit.why, profit.fill.is_maker) == (Why.TAKE_PROFIT, True)
    assert profit.fill.price == Decimal("104.05")  # 103.01 x 1.01, rounded up to the tick


def test_the_books_are_the_account_to_the_last_decimal() -> None:
    for seed in range(2):
        outcome = replay(random_recording(seed, 200), replay_settings(), FillModel())
        bought = sum((one.fill.quantity for one in outcome.fills if one.fill.side is Side.BUY), Decimal(0))
        sold = sum((one.fill.quantity for one in outcome.fills if one.fill.side is Side.SELL), Decimal(0))
        fees = sum((one.fill.commission for one in outcome.fills if one.fill.commission_asset == "BTC"), Decimal(0))
        assert outcome.books.quantity == bought - sold - fees
        assert outcome.books.oversold == 0
        assert outcome.books.fills == len(outcome.fills) > 10


def test_after_the_largest_fall_no_position_is_opened() -> None:
    gap = (90.0, 92.0, 88.0, 91.0)
    again = [(low, low + 1, low, low + 1) for low in (85.0, 80.0, 75.0, 80.0, 85.0, 90.0, 95.0, 100.0)]
    candles = by_hand([*RISING, (103.0, 103.0, 103.0, 103.0), gap, *again])
    free = replay(candles, replay_settings(), FillModel())
    assert sum(one.why is Why.ENTRY for one in free.fills) == 2
    outcome = replay(candles, replay_settings(risk={"maxDrawdownRatio": "0.02"}), FillModel())
    assert outcome.stopped == "Drawdown"
    assert outcome.stopped_ms > 0
    assert outcome.refusals["Drawdown"] > 0
    assert sum(one.why is Why.ENTRY for one in outcome.fills) == 1
    assert outcome.max_drawdown >= Decimal("0.02")


def test_without_a_gap_entries_become_smaller_and_end_before_the_largest_fall() -> None:
    outcome = replay(random_recording(1, 2_000), replay_settings(risk={"maxDrawdownRatio": "0.01"}), FillModel())
    assert (outcome.stopped, outcome.refusals["DrawdownAtStop"]) == ("Drawdown", 1)
    assert outcome.refusals["Drawdown"] > 0
    assert outcome.max_drawdown < Decimal("0.01")


def test_a_daily_loss_pauses_entries_until_the_next_day() -> None:
    recording = random_recording(2, 2_000)
    settings = replay_settings(risk={"maxDailyLoss": "30"})
    entries = [one.fill.time_ms for one in replay(recording, settings, FillModel()).fills if one.why is Why.ENTRY]
    midnight = START_MS + 1440 * MINUTE_MS
    everything = replay(recording, replay_settings(), FillModel())
    assert max(one for one in entries if one < midnight) < midnight - 300 * MINUTE_MS
    assert min(one for one in entries if one >= midnight) < midnight + 60 * MINUTE_MS
    assert len(entries) < sum(one.why is Why.ENTRY for one in everything.fills)


def test_a_gap_in_the_candles_is_told_and_no_entry_of_before_is_made_after_it() -> None:
    whole = random_recording(4, 400)
    holed = Recording(whole.symbol, whole.width)
    for at in range(len(whole)):
        if not 200 <= at < 230:
            columns = (whole.open_ms, whole.open, whole.high, whole.low, whole.close, whole.volume, whole.trades)
            holed.add([*(column[at] for column in columns), whole.taker_base[at]])
    outcome = replay(holed, replay_settings(), FillModel())
    assert outcome.gaps == 1
    assert holed.missing == 30
    assert any(one.fill.time_ms > whole.open_ms[240] for one in outcome.fills)


def test_candles_before_the_first_one_fill_the_strategy_and_are_not_traded() -> None:
    recording = random_recording(6, 300)
    outcome = replay(recording, replay_settings(), FillModel(), first=100, end=200)
    times = [one.fill.time_ms for one in outcome.fills]
    assert min(times) > recording.open_ms[100]
    assert max(times) < recording.open_ms[200]
    made: list[Decision] = []
    replay(
        recording,
        replay_settings(parameters={"entry": 90, "exit": 3}),
        FillModel(),
        first=100,
        decided=lambda _, decision: made.append(decision),
    )
    assert "warming up" not in made[0].reason if isinstance(made[0], Stay) else made


def test_a_strategy_that_fails_is_told_and_trades_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from tradingbot.engine.strategies.donchian_breakout import DonchianBreakout

    before, seen = DonchianBreakout.on_candle, 0

    def breaks(self: DonchianBreakout, candle: Candle) -> Any:
        nonlocal seen
        seen += 1
        if seen == 100:
            raise RuntimeError("no more")
        return before(self, candle)

    monkeypatch.setattr(DonchianBreakout, "on_candle", breaks)
    outcome = replay(random_recording(7, 300), replay_settings(), FillModel())
    assert "RuntimeError: no more" in outcome.stopped


def test_equity_over_time_begins_with_the_capital_and_ends_with_the_figures() -> None:
    recording = random_recording(8, 1_000)
    outcome = replay(recording, replay_settings(), FillModel())
    run = summarise(outcome, recording, {}, detailed=True)
    assert run.detail is not None
    assert run.figures.start_equity == Decimal(10_000)
    assert run.detail.curve[-1].equity == pytest.approx(float(run.figures.end_equity), rel=1e-9)
    assert sum((one.trade.realized for one in run.detail.trades), Decimal(0)) == pytest.approx(run.figures.realized)
    assert run.figures.trades.total == sum(one.trade.closed_ms is not None for one in run.detail.trades)


class _Dips(Strategy):
    """Buys a fall of the bid of half a percent from the last close, and sells what has risen as much."""

    name = "dips"
    wants_ticks = True

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self._close = Decimal(0)

    @property
    def warmup(self) -> int:
        return 1

    def on_candle(self, candle: Candle) -> Signal:
        self._close = candle.close
        return Signal.NONE

    def on_tick(self, ticker: BookTicker) -> Signal:
        if ticker.bid < self._close * Decimal("0.995"):
            return Signal.ENTER
        return Signal.EXIT if ticker.bid > self._close * Decimal("1.003") else Signal.NONE

    def describe(self) -> str:
        return f"close={self._close}"


def test_a_strategy_of_ticks_acts_inside_of_candles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE.strategies, "dips", Offered(_Dips, "this test"))
    outcome = replay(random_recording(9, 300, swing=0.004), replay_settings("dips"), FillModel())
    at = {one.fill.time_ms % MINUTE_MS for one in outcome.fills if one.why in (Why.ENTRY, Why.SIGNAL)}
    assert len(at) > 3, "decisions fall into candles, not on their closes"


class _Midnight(Strategy):
    """Enters at the close of a UTC day."""

    name = "midnight"

    @property
    def warmup(self) -> int:
        return 1

    def on_candle(self, candle: Candle) -> Signal:
        return Signal.ENTER if (candle.close_ms + 1) % DAY_MS == 0 else Signal.NONE

    def describe(self) -> str:
        return ""


@pytest.mark.parametrize("next_open", [False, True])
def test_an_entry_at_the_first_moment_of_a_day_is_made(next_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE.strategies, "midnight", Offered(_Midnight, "this test"))
    outcome = replay(random_recording(9, 1443), replay_settings("midnight"), FillModel(next_open=next_open))
    assert outcome.refusals == {}
    assert outcome.fills[0].fill.time_ms == START_MS + DAY_MS + outcome.model.latency_ms


def test_a_strategy_of_a_longer_interval_sees_joined_candles_and_is_filled_by_the_recorded_ones() -> None:
    recording = random_recording(12, 606)
    five, starts = recording.coarser(5 * MINUTE_MS)
    assert (len(five), starts[-1]) == (121, 605)
    for at in range(len(five)):
        inside = range(5 * at, 5 * at + 5)
        assert five.open[at] == recording.open[inside[0]]
        assert five.close[at] == recording.close[inside[-1]]
        assert five.high[at] == max(recording.high[one] for one in inside)
        assert five.low[at] == min(recording.low[one] for one in inside)
        assert five.volume[at] == sum(recording.volume[one] for one in inside)
    settings = replay_settings().model_copy(
        update={"strategy": replay_settings().strategy.model_copy(update={"interval": Interval.M5})}
    )
    seen: list[Candle] = []
    outcome = replay(recording, settings, FillModel(), decided=lambda candle, _: seen.append(candle))
    assert [candle.open_ms for candle in seen] == list(five.open_ms)
    assert {candle.interval for candle in seen} == {"5m"}
    decided = [one.fill.time_ms for one in outcome.fills if one.why in (Why.ENTRY, Why.SIGNAL)]
    assert {time_ms % (5 * MINUTE_MS) for time_ms in decided} == {outcome.model.latency_ms}
    met = [one.fill.time_ms for one in outcome.fills if one.why in (Why.STOP_LOSS, Why.TAKE_PROFIT)]
    assert any(time_ms % (5 * MINUTE_MS) > MINUTE_MS for time_ms in met)
    assert fills(outcome) == fills(replay(recording, settings, EVERYTHING))
    # A candle that was not recorded whole is none.
    later, _ = random_recording(12, 20).coarser(5 * MINUTE_MS)
    assert len(later) == 4


def test_a_large_order_takes_levels_that_are_whole_again_once_the_price_has_moved() -> None:
    settings = replay_settings(
        capital="2000000",
        risk={"maxPositionValue": "500000", "riskPerTradeRatio": "0.05"},
        entry={"maxSlippageRatio": "0.01"},
    )
    for seed in range(2):
        recording = random_recording(seed, 200, trades=4)
        skipped, played = (replay(recording, settings, model) for model in (FillModel(), EVERYTHING))
        assert fills(skipped) == fills(played)
        assert len({one.fill.price for one in skipped.fills}) > 3 * skipped.books.round_trips.total


def test_candles_that_were_left_out_count_into_what_filters_and_triggers_look_at() -> None:
    settings = replay_settings()
    recording = by_hand([(100.0 - at, 101.0 - at, 99.0 - at, 100.0 - at) for at in range(12)])
    skipped, played = (
        CandleExchange(recording, SYMBOLS["BTCUSDT"], model, settings) for model in (FillModel(), EVERYTHING)
    )
    for exchange in (skipped, played):
        exchange.begin(0)
    for at in range(11):
        for _ in played.rest(at):
            pass
    skipped.finish(10)
    known, true = (exchange.core.market("BTCUSDT") for exchange in (skipped, played))
    assert known.last == true.last == recording.close[10]
    now = recording.open_ms[11]
    assert known.average(now) == pytest.approx(true.average(now), rel=0.01)
    assert known.reference.value(now) == pytest.approx(true.reference.value(now), rel=0.01)
    assert skipped.book().bid == played.book().bid


def test_the_largest_fall_is_that_of_looking_at_each_candle(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = [random_recording(seed, 400) for seed in range(4)]
    settings = replay_settings(
        parameters={"entry": 5, "exit": 60},
        protection={"stopLossRatio": "0.2", "takeProfitRatio": "0.2"},
        risk={"maxDrawdownRatio": "0.02", "maxDailyLoss": "150", "riskPerTradeRatio": "0.06"},
    )
    quick = [replay(recording, settings, FillModel()) for recording in recordings]

    def always(self: Any, _equity: Decimal, _price: Decimal) -> None:
        self._low_mark, self._high_mark = 2**63, 0

    monkeypatch.setattr(_Replay, "_set_marks", always)
    for before, recording in zip(quick, recordings, strict=True):
        looked = replay(recording, settings, FillModel())
        assert before.max_drawdown == looked.max_drawdown > 0
        assert (before.stopped, before.stopped_ms) == (looked.stopped, looked.stopped_ms)
        assert fills(before) == fills(looked)


def test_what_a_partly_filled_take_profit_leaves_is_protected_again() -> None:
    recording = by_hand([*RISING, (103.0, 103.0, 103.0, 103.0), (104.05, 104.05, 104.05, 104.05)])
    # So little is bought at the take-profit's price, and the exchange takes the stop off with it.
    recording.volume[-1] = recording.taker_base[-1] = 10**5
    recording.trades[-1] = 1
    for prices in [(103.0, 103.0, 103.0, 103.0), (103.0, 103.0, 95.0, 95.0), (95.0, 95.0, 95.0, 95.0)]:
        units = [to_units(Decimal(str(price))) for price in prices]
        recording.add([recording.open_ms[-1] + MINUTE_MS, *units, 10**9, 60, 0])
    outcome = replay(recording, replay_settings(), FillModel())
    assert [one.why for one in outcome.fills[:3]] == [Why.ENTRY, Why.TAKE_PROFIT, Why.STOP_LOSS]
    assert outcome.fills[1].fill.quantity == Decimal("0.001")
    assert outcome.books.flat


def test_after_a_stop_no_position_is_opened_for_the_cooldown() -> None:
    outcome = replay(random_recording(1, 600), replay_settings(risk={"cooldownSeconds": 3600}), FillModel())
    assert outcome.refusals["Cooldown"] > 0
    stopped = [one.fill.time_ms for one in outcome.fills if one.why is Why.STOP_LOSS]
    entered = [one.fill.time_ms for one in outcome.fills if one.why is Why.ENTRY]
    assert stopped
    assert not [entry for entry in entered for stop in stopped if 0 <= entry - stop < 3_600_000]


def test_an_entry_that_is_decided_at_midnight_counts_into_the_new_day() -> None:
    recording = by_hand([*RISING, *[(103.0, 103.0, 103.0, 103.0)] * 3], START_MS - len(RISING) * MINUTE_MS)
    outcome = replay(recording, replay_settings(), FillModel())
    assert [one.fill.time_ms for one in outcome.fills] == [START_MS + outcome.model.latency_ms]
    assert not outcome.refusals


def test_the_low_before_a_take_profit_counts_into_the_fall_and_what_is_below_a_stop_does_not() -> None:
    settings = replay_settings(protection={"stopLossRatio": "0.02", "takeProfitRatio": "0.02"})
    won = replay(by_hand([*RISING, (103.0, 108.0, 101.5, 108.0), (108.0,) * 4]), settings, FillModel())
    assert [one.why for one in won.fills] == [Why.ENTRY, Why.TAKE_PROFIT]
    entry = won.fills[0].fill
    value = entry.quantity * (entry.price - Decimal("101.5"))
    assert won.max_drawdown * 10_000 == pytest.approx(value, rel=0.2)
    lost = replay(by_hand([*RISING, (103.0, 103.0, 50.0, 50.0), (50.0,) * 4]), settings, FillModel())
    assert lost.fills[1].fill.price > 99
    assert lost.max_drawdown * 10_000 < entry.quantity * 5
