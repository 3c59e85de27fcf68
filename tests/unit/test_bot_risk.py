"""Promises of the risk rooms: size, market checks, pauses, equity marks, volatility."""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.gateway.filters import FilterCode
from tradingbot.model import (
    BookTicker,
    LotFilter,
    NotionalFilter,
    OrderType,
    PriceFilter,
    SymbolRules,
)
from tradingbot.monitoring.report import risk_status
from tradingbot.risk.drawdown import DrawdownTracker, EquityMarks, HeldBreach
from tradingbot.risk.risk_manager import Funds, Refusal, Refused, RiskLevel, RiskManager, Size
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot_api.v1alpha1 import BotSettings

RATE = Decimal("0.001")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def settings(**risk: Any) -> BotSettings:
    return BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {
                "environment": "Paper",
                "baseURL": "http://127.0.0.1:1",
                "credentialsSecretRef": {"name": "keys"},
            },
            "strategy": {"name": "ema-cross", "interval": "1s"},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "50", **risk},
        }
    )


def rules() -> SymbolRules:
    lot = LotFilter(Decimal("0.00001"), Decimal(9000), Decimal("0.00001"))
    return SymbolRules(
        symbol="BTCUSDT",
        status="TRADING",
        base_asset="BTC",
        quote_asset="USDT",
        base_precision=8,
        quote_precision=8,
        order_types=frozenset(OrderType),
        oco_allowed=True,
        oto_allowed=True,
        price=PriceFilter(Decimal("0.01"), Decimal(1000000), Decimal("0.01")),
        lot=lot,
        market_lot=lot,
        notional=NotionalFilter(Decimal(5), True, Decimal(9000000), False),
    )


def manager(**risk: Any) -> RiskManager:
    return RiskManager(settings(**risk), DrawdownTracker(), VolatilityTracker())


def known(risk: RiskManager, equity: Decimal = Decimal(1000)) -> RiskManager:
    """A manager that knows the equity of the day's beginning."""
    risk.drawdown.open_day(NOW, equity, equity, Decimal(1000))
    return risk


def funds(free: Decimal = Decimal(1000), cost: Decimal = Decimal(0)) -> Funds:
    return Funds(free, cost, Decimal(1000), Decimal(0), RATE)


def book(bid: str = "50000", ask: str = "50001", received: float = 0.0) -> BookTicker:
    return BookTicker("BTCUSDT", Decimal(bid), Decimal(1), Decimal(ask), Decimal(1), received)


def test_the_stop_loses_no_more_than_the_risk_per_trade_with_both_fees() -> None:
    size = known(manager(riskPerTradeRatio="0.001")).calculate_position_size(rules(), Decimal(50000), funds())
    assert isinstance(size, Size)
    assert "bound=risk" in size.detail
    loss = Decimal(50000) * (Decimal("1.001") * Decimal("1.001") - Decimal("0.98") * Decimal("0.999"))
    assert size.quantity * loss <= Decimal(1)
    assert (size.quantity + Decimal("0.00001")) * loss > Decimal(1)


@given(
    ask=st.decimals("0.5", "100000", places=2),
    free=st.decimals("0", "2000", places=2),
    cost=st.decimals("0", "1500", places=2),
    risk=st.decimals("0.001", "0.5", places=3),
)
def test_an_entry_never_exceeds_capital_position_value_or_free_quote(
    ask: Decimal, free: Decimal, cost: Decimal, risk: Decimal
) -> None:
    sized = known(manager(riskPerTradeRatio=str(risk)))
    size = sized.calculate_position_size(rules(), ask, funds(free, cost))
    if isinstance(size, Size):
        paid = size.quantity * ask * Decimal("1.001")
        assert paid + cost <= 500
        assert paid <= free
        assert paid + cost <= 1000
        assert size.quantity % Decimal("0.00001") == 0
        assert paid * Decimal("0.98") >= 5


@pytest.mark.parametrize(
    ("payment", "code"),
    [
        pytest.param(funds(cost=Decimal(1000)), Refusal.CAPITAL_EXHAUSTED, id="capital"),
        pytest.param(funds(free=Decimal(3)), Refusal.QUOTE_NOT_FREE, id="free-quote"),
        pytest.param(replace(funds(), fleet_room=Decimal(3)), Refusal.FLEET_LIMIT, id="fleet"),
        pytest.param(funds(cost=Decimal(498)), FilterCode.NOTIONAL, id="notional"),
        pytest.param(funds(cost=Decimal(500)), FilterCode.LOT_SIZE, id="lot-size"),
        pytest.param(replace(funds(), equity=Decimal(950)), Refusal.DAILY_LOSS_AT_STOP, id="daily-loss"),
        pytest.param(replace(funds(), equity=Decimal("950.01")), Refusal.DAILY_LOSS_AT_STOP, id="daily-loss-nearly"),
        pytest.param(replace(funds(), at_risk=Decimal(50)), Refusal.DAILY_LOSS_AT_STOP, id="held"),
    ],
)
def test_an_entry_that_cannot_be_sized_has_a_stable_code(payment: Funds, code: Refusal | FilterCode) -> None:
    refused = known(manager()).calculate_position_size(rules(), Decimal(50000), payment)
    assert isinstance(refused, Refused)
    assert refused.code is code


def test_a_drawdown_that_the_stop_could_complete_refuses_the_entry() -> None:
    risk = manager(maxDailyLoss="900")
    risk.drawdown.open_day(NOW, Decimal(850), Decimal(1000), Decimal(1000))
    refused = risk.calculate_position_size(rules(), Decimal(50000), replace(funds(), equity=Decimal(850)))
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.DRAWDOWN_AT_STOP


def test_no_entry_before_the_equity_at_the_beginning_of_the_day_is_known() -> None:
    risk = manager()
    risk.update_equity(Decimal(1000), NOW)  # the first of a process: what was lost today is not in it
    refused = risk.calculate_position_size(rules(), Decimal(50000), funds())
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.EQUITY_UNKNOWN
    assert isinstance(known(risk).calculate_position_size(rules(), Decimal(50000), funds()), Size)


def test_the_risk_falls_with_the_volatility_half_of_it_at_the_threshold() -> None:
    risk = known(manager(riskPerTradeRatio="0.001"))
    factors = {}
    for move in (0.01, 0.025, 0.05, 0.1):
        # A sample of returns +move, -move, +move, -move deviates by move * sqrt(4/3).
        steps = [move * 0.75**0.5 * sign for sign in (1, -1, 1, -1)]
        risk.volatility.restart(itertools.accumulate(steps, lambda price, step: price * (1 + step), initial=1.0))
        factors[move] = float(risk.adjust_risk_parameters())
    assert factors == pytest.approx({0.01: 1, 0.025: 1, 0.05: 0.5, 0.1: 0.25}, rel=1e-3)
    wild = risk.calculate_position_size(rules(), Decimal(50000), funds())
    risk.size_factor = Decimal(1)
    calm = risk.calculate_position_size(rules(), Decimal(50000), funds())
    assert isinstance(calm, Size)
    assert isinstance(wild, Size)
    assert abs(wild.quantity / calm.quantity - Decimal("0.25")) < Decimal("0.01")
    assert risk.level(Decimal(0)) is RiskLevel.HIGH


def test_window_and_threshold_of_the_volatility_are_those_of_the_spec() -> None:
    risk = manager(volatility={"window": 2, "highThreshold": "0.5"})
    risk.configure(risk.config)
    risk.volatility.update_prices([100, 120, 90, 125, 80])
    assert risk.volatility.calculate_volatility() == pytest.approx(statistics.stdev([125 / 90 - 1, 80 / 125 - 1]))
    assert risk.level(Decimal(0)) is RiskLevel.HIGH
    risk.configure(settings(volatility={"window": 3, "highThreshold": "0.9"}))
    assert risk.level(Decimal(0)) is RiskLevel.LOW


@pytest.mark.parametrize(
    ("equity", "value", "level"),
    [
        pytest.param("1000", "399.9", RiskLevel.LOW, id="low"),
        pytest.param("1000", "400", RiskLevel.MEDIUM, id="medium-by-position"),
        pytest.param("980", "0", RiskLevel.MEDIUM, id="medium-by-daily-loss"),
        pytest.param("960.01", "0", RiskLevel.MEDIUM, id="not-yet-high"),
        pytest.param("960", "0", RiskLevel.HIGH, id="high-by-daily-loss"),
    ],
)
def test_the_level_tells_how_much_of_the_limits_is_used(equity: str, value: str, level: RiskLevel) -> None:
    risk = known(manager())
    risk.update_equity(Decimal(equity), NOW)
    assert risk.level(Decimal(value)) is level


def test_no_loss_and_no_drawdown_is_told_before_the_equity_and_that_of_the_days_beginning_are_known() -> None:
    risk = manager()
    risk.drawdown.restore(EquityMarks(Decimal(1000), Decimal(1000), "2026-02-28", Decimal(1000)).to_json())
    assert risk_status(risk, Decimal(0)) is None
    risk.update_equity(Decimal(900), NOW)
    told = risk_status(risk, Decimal(0))
    assert told is not None
    assert (told.drawdown, told.daily_loss) == (Decimal("0.1"), None)
    risk.drawdown.open_day(NOW, Decimal(970), Decimal(1000), Decimal(1000))
    told = risk_status(risk, Decimal(0))
    assert told is not None
    assert told.daily_loss == 70


def test_no_entry_on_a_wide_spread_or_old_data_or_too_often() -> None:
    risk = manager()
    assert risk.check_market_conditions(book(), 1.0) is None
    for market, at, code in (
        (None, 0.0, Refusal.NO_MARKET),
        (book(ask="50100"), 0.0, Refusal.SPREAD_TOO_WIDE),
        (book(), 6.0, Refusal.DATA_TOO_OLD),
    ):
        refused = risk.check_market_conditions(market, at)
        assert refused is not None
        assert refused.code is code
    for at in range(10):
        risk.record_entry(float(at))
    refused = risk.check_market_conditions(book(received=10), 10.0)
    assert refused is not None
    assert refused.code is Refusal.TOO_MANY_ENTRIES
    assert risk.check_market_conditions(book(received=60), 60.5) is None


def test_a_daily_loss_stops_entries_until_midnight_utc_even_if_it_is_won_back() -> None:
    risk = manager()
    risk.update_equity(Decimal(1000), NOW)
    risk.update_equity(Decimal(950), NOW)
    assert risk.should_pause_trading(NOW, 0.0) == []  # one bad quote is no breach
    pause = risk.should_pause_trading(NOW, 3.0)
    assert [item.code for item in pause] == [Refusal.DAILY_LOSS]
    assert pause[0].until == datetime(2026, 3, 2, tzinfo=UTC)
    risk.update_equity(Decimal(1000), NOW)
    assert risk.should_pause_trading(NOW, 4.0) != []
    restarted = manager()
    restarted.restore(risk.to_json())
    assert [item.code for item in restarted.should_pause_trading(NOW, 0.0)] == [Refusal.DAILY_LOSS]
    tomorrow = NOW + timedelta(days=1)
    risk.update_equity(Decimal(950), tomorrow)
    assert risk.should_pause_trading(tomorrow, 100.0) == []


def test_a_daily_loss_is_past_at_midnight_utc_also_before_the_new_days_equity_is_seen() -> None:
    risk = known(manager())
    risk.update_equity(Decimal(940), NOW)
    risk.should_pause_trading(NOW, 0.0)
    assert [item.code for item in risk.should_pause_trading(NOW, 3.0)] == [Refusal.DAILY_LOSS]
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert risk.should_pause_trading(midnight, 100.0) == []
    risk.update_equity(Decimal(940), midnight)
    assert risk.should_pause_trading(midnight, 101.0) == []


def test_a_drawdown_stops_entries_without_an_end() -> None:
    risk = manager(maxDailyLoss="900")
    risk.update_equity(Decimal(1000), NOW)
    risk.update_equity(Decimal(850), NOW)
    risk.should_pause_trading(NOW, 0.0)
    assert [(item.code, item.until) for item in risk.should_pause_trading(NOW, 3.0)] == [(Refusal.DRAWDOWN, None)]


def test_after_a_stop_out_entries_wait_for_the_cooldown() -> None:
    risk = manager(cooldownSeconds=60)
    risk.record_stop_out(NOW)
    assert [item.code for item in risk.should_pause_trading(NOW, 0.0)] == [Refusal.COOLDOWN]
    restarted = manager(cooldownSeconds=60)
    restarted.restore(risk.to_json())
    assert restarted.should_pause_trading(NOW, 0.0) != []
    assert risk.should_pause_trading(NOW + timedelta(seconds=60), 60.0) == []


def test_a_change_of_capital_is_neither_profit_nor_loss() -> None:
    tracker = DrawdownTracker()
    tracker.update(Decimal(1000), Decimal(1000), NOW)
    tracker.update(Decimal(1500), Decimal(1500), NOW)
    assert (tracker.drawdown, tracker.daily_loss) == (Decimal(0), Decimal(0))
    tracker.update(Decimal(490), Decimal(500), NOW)
    assert (tracker.drawdown, tracker.daily_loss) == (Decimal("0.02"), Decimal(10))


def test_equity_marks_survive_a_restart() -> None:
    tracker = DrawdownTracker()
    tracker.update(Decimal("1000.5"), Decimal(1000), NOW)
    tracker.update(Decimal("900.45"), Decimal(1000), NOW)
    assert tracker.marks is not None
    again = DrawdownTracker(EquityMarks.from_json(tracker.marks.to_json()))
    assert again.marks == tracker.marks
    assert again.marks is not None
    assert again.marks.max_drawdown == Decimal("0.1")


def test_a_breach_that_ends_starts_its_time_anew() -> None:
    breach = HeldBreach(3.0)
    assert [
        breach.update(state, at) for state, at in ((True, 0), (True, 2.9), (False, 3), (True, 3.1), (True, 6.2))
    ] == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_volatility_is_the_deviation_of_the_last_window_of_returns() -> None:
    tracker = VolatilityTracker(window_size=2)
    assert tracker.calculate_volatility() is None
    assert not tracker.is_high_volatility()
    tracker.update_prices([100, 200, 220, 198])
    assert tracker.calculate_volatility() == pytest.approx(0.2 / 2**0.5)
    assert tracker.is_high_volatility(0.05)
    with pytest.raises(ValueError, match="greater than 0"):
        tracker.update_prices([0])


def test_the_page_of_risk_tells_each_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "risk.md").read_text()
    told = re.findall(
        r"^\| ([A-Z][A-Za-z]+) \|", page.split("## When none is made")[1].split("## Other")[0], re.MULTILINE
    )
    assert set(told) - {"Code"} == set(Refusal)
