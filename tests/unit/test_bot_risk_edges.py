"""Risk at its edges: each bound, limit and time to the digit at which it begins, and the words that tell of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from support.symbol_rules import btcusdt_rules
from tradingbot.gateway.filters import FilterCode
from tradingbot.model import BookTicker, LotFilter, NotionalFilter
from tradingbot.risk.drawdown import DrawdownTracker, EquityMarks, HeldBreach
from tradingbot.risk.risk_manager import (
    Funds,
    Overshoot,
    Pause,
    Refusal,
    Refused,
    RiskLevel,
    RiskManager,
    Size,
    at_risk,
    loss_at_stop,
)
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot_api.v1alpha1 import BotSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
RULES = replace(btcusdt_rules(), lot=LotFilter(Decimal("0.00001"), Decimal(9000), Decimal("0.00001")))
FUNDS = Funds(Decimal(1000), Decimal(0), Decimal(1000), Decimal(0), Decimal("0.001"))
SECOND = timedelta(seconds=1)


def manager(*, day_start: str = "1000", peak: str = "1000", **risk: Any) -> RiskManager:
    """A bot that knows with what equity its day began."""
    settings = BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {
                "environment": "Paper",
                "baseURL": "http://127.0.0.1:1",
                "credentialsSecretRef": {"name": "keys"},
            },
            "strategy": {"name": "ema-cross", "interval": "1s"},
            "capital": "1000",
            "entry": {"maxDataAgeSeconds": 5, "maxSpreadRatio": "0.001", "maxPerMinute": 2},
            "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "50", **risk},
        }
    )
    made = RiskManager(settings, DrawdownTracker(), VolatilityTracker())
    made.drawdown.open_day(NOON, Decimal(day_start), Decimal(peak), Decimal(1000))
    return made


# --- the market ---


@pytest.mark.parametrize(
    ("bid", "ask", "at", "refused"),
    [
        ("1000", "1001", 5.0, None),
        ("0", "1001", 0.0, (Refusal.NO_MARKET, "no best bid and ask")),
        ("1000", "0", 0.0, (Refusal.NO_MARKET, "no best bid and ask")),
        ("0.5", "0.5", 0.0, None),
        ("1000", "1001", 5.06, (Refusal.DATA_TOO_OLD, "age=5.1s limit=5s")),
        ("1000", "1001.01", 0.0, (Refusal.SPREAD_TOO_WIDE, "spread=0.001010 limit=0.001")),
    ],
)
def test_a_market_is_fit_up_to_the_very_limits(
    bid: str, ask: str, at: float, refused: tuple[Refusal, str] | None
) -> None:
    book = BookTicker("BTCUSDT", Decimal(bid), Decimal(1), Decimal(ask), Decimal(1), 0.0)
    assert manager().check_market_conditions(book, at) == (refused and Refused(*refused))


def test_without_a_book_there_is_no_market() -> None:
    assert manager().check_market_conditions(None, 0.0) == Refused(Refusal.NO_MARKET, "no best bid and ask")


def test_an_entry_counts_for_sixty_seconds() -> None:
    risk = manager()

    def check(at: float) -> Refused | None:
        return risk.check_market_conditions(
            BookTicker("BTCUSDT", Decimal(1000), Decimal(1), Decimal(1001), Decimal(1), at), at
        )

    risk.record_entry(10.0)
    assert check(10.0) is None
    risk.record_entry(11.0)
    assert check(69.9) == Refused(Refusal.TOO_MANY_ENTRIES, "entries=2 limit=2")
    assert check(70.0) is None
    risk.record_entry(70.0)
    assert check(70.9) is not None
    assert check(71.0) is None


# --- the size ---


@pytest.mark.parametrize(
    ("risk", "funds", "rules", "quantity", "bound"),
    [
        # Bought at 1001, sold at 980 with a fee of 0.1 % each: 22.981 a coin; 1 % below that stop 32.7712.
        pytest.param({"riskPerTradeRatio": "0.01"}, {}, {}, "0.43514", "risk", id="risk"),
        pytest.param({}, {"position_cost": 300}, {}, "0.19980", "maxPositionValue", id="position-value"),
        pytest.param(
            {"maxPositionValue": "1000"}, {"position_cost": 300}, {}, "0.69930", "maxPositionValue", id="capital"
        ),
        pytest.param({}, {"free_quote": 100}, {}, "0.09990", "freeQuote", id="free-quote"),
        pytest.param({}, {"equity": 960}, {}, "0.30514", "maxDailyLoss", id="daily-loss"),
        pytest.param({}, {"at_risk": 40}, {}, "0.30514", "maxDailyLoss", id="daily-loss-by-what-is-held"),
        pytest.param(
            {"maxDailyLoss": "500"}, {"equity": 860}, {}, "0.30514", "maxDrawdownRatio", id="drawdown"
        ),
        pytest.param(
            {"maxDailyLoss": "500"}, {"at_risk": 140}, {}, "0.30514", "maxDrawdownRatio", id="drawdown-by-what-is-held"
        ),
        pytest.param({}, {"fleet_room": 50}, {}, "0.04995", "fleetLimit", id="fleet"),
        pytest.param(
            {}, {}, {"lot": LotFilter(Decimal("0.00001"), Decimal("0.2"), Decimal("0.00001"))}, "0.2", "LOT_SIZE",
            id="largest-lot",
        ),
        pytest.param(
            {}, {}, {"lot": LotFilter(Decimal("0.00001"), Decimal(0), Decimal("0.00001"))}, "0.49950",
            "maxPositionValue", id="no-largest-lot",
        ),
        pytest.param(
            {}, {}, {"notional": NotionalFilter(Decimal(5), True, Decimal(90), False)}, "0.08991", "NOTIONAL",
            id="largest-notional",
        ),
        pytest.param(
            {}, {}, {"notional": NotionalFilter(Decimal(0), True, Decimal(1), False)}, "0.00099", "NOTIONAL",
            id="smallest-of-largest-notionals",
        ),
        pytest.param(
            {}, {}, {"notional": NotionalFilter(Decimal(5), True, Decimal(0), False)}, "0.49950",
            "maxPositionValue", id="no-largest-notional",
        ),
    ],
)  # fmt: skip
def test_the_smallest_bound_makes_the_size_and_is_told(
    risk: dict[str, str], funds: dict[str, int], rules: dict[str, Any], quantity: str, bound: str
) -> None:
    sized = manager(**{"riskPerTradeRatio": "0.5", **risk})
    paid = replace(FUNDS, **{name: Decimal(value) for name, value in funds.items()})
    size = sized.calculate_position_size(replace(RULES, **rules), Decimal(1000), paid)
    detail = f"quantity={quantity} bound={bound} price=1001.000 stop=980.00 factor=1"
    assert size == Size(Decimal(quantity), Decimal(1001), detail)


@pytest.mark.parametrize(
    ("made", "funds", "code", "detail"),
    [
        ({}, {"position_cost": "1000"}, Refusal.CAPITAL_EXHAUSTED, "capital=1000 cost=1000"),
        ({}, {"equity": "950"}, Refusal.DAILY_LOSS_AT_STOP, "room=0 equity=950 at_risk=0"),
        ({}, {"equity": "970", "at_risk": "21"}, Refusal.DAILY_LOSS_AT_STOP, "room=-1 equity=970 at_risk=21"),
        (
            {"maxDailyLoss": "900", "peak": "1200"}, {"equity": "1019", "at_risk": "1"}, Refusal.DRAWDOWN_AT_STOP,
            "room=-2 equity=1019 at_risk=1",
        ),
        (
            {"maxPositionValue": "1000"}, {"position_cost": "999.5"}, FilterCode.NOTIONAL,
            "quantity=0.00049 bound=maxPositionValue price=1001.000 stop=980.00 factor=1 "
            "filter=NOTIONAL: 0.00048 x 970.2000 = 0.465696000: expected 5",
        ),
        (
            {}, {"free_quote": "5"}, Refusal.QUOTE_NOT_FREE,
            "quantity=0.00499 bound=freeQuote price=1001.000 stop=980.00 factor=1 "
            "filter=NOTIONAL: 0.00498 x 970.2000 = 4.831596000: expected 5",
        ),
    ],
)  # fmt: skip
def test_a_refused_size_tells_the_figures(
    made: dict[str, Any], funds: dict[str, str], code: Refusal | FilterCode, detail: str
) -> None:
    paid = replace(FUNDS, **{name: Decimal(value) for name, value in funds.items()})
    assert manager(**made).calculate_position_size(RULES, Decimal(1000), paid) == Refused(code, detail)


def test_the_last_cent_of_room_is_one_that_a_stop_may_take() -> None:
    paid = replace(FUNDS, equity=Decimal("950.50"))
    size = manager().calculate_position_size(RULES, Decimal(1000), paid)
    assert isinstance(size, Size)
    assert size.quantity * Decimal("32.7712") <= Decimal("0.50")


def test_without_a_known_day_the_equity_is_not_known() -> None:
    risk = manager()
    for marks in (None, replace(risk.drawdown.marks, day_seen=False)):  # type: ignore[type-var]
        risk.drawdown.marks = marks
        refused = risk.calculate_position_size(RULES, Decimal(1000), FUNDS)
        assert refused == Refused(Refusal.EQUITY_UNKNOWN, "the equity at 00:00 UTC is read from the exchange first")


@pytest.mark.parametrize(
    ("bid", "stop", "lost"),
    [
        ("100", "90", "21.78"),  # 2 x (100 - 89.10) less the fee of a tenth of a percent of it, which is lost anyway
        ("100", None, "199.80"),
        ("80", "90", "0"),
    ],
)
def test_what_is_held_risks_what_it_is_worth_above_its_stop(bid: str, stop: str | None, lost: str) -> None:
    risked = at_risk(Decimal(2), Decimal(bid), None if stop is None else Decimal(stop), Decimal("0.001"))
    assert risked.quantize(Decimal("0.01")) == Decimal(lost)
    assert loss_at_stop(Decimal(100), Decimal(90), Decimal("0.01")) == Decimal("11.90")


# --- pauses ---


def test_the_days_loss_pauses_until_midnight_from_the_limit_on_and_tells_how_far_it_went_past_it() -> None:
    risk = manager(maxDrawdownRatio="0.9")
    for equity, at, loss, past in (("950.01", 0.0, None, None), ("950", 10.0, None, None), ("949", 13.0, "51", "1"),
                                   ("945.5", 14.0, "54.5", "4.5"), ("990", 15.0, "10", "4.5")):  # fmt: skip
        risk.update_equity(Decimal(equity), NOON)
        told = risk.should_pause_trading(NOON, at)
        detail = f"loss={loss} limit=50 overshoot={past}"
        assert told == ([] if loss is None else [Pause(Refusal.DAILY_LOSS, detail, MIDNIGHT)])
    assert risk.overshoot == Overshoot(Decimal("4.5"), Decimal(0))
    # The same evening where it is already tomorrow by the clock on the wall.
    east = (MIDNIGHT - SECOND).astimezone(timezone(timedelta(hours=9)))
    assert [pause.until for pause in risk.should_pause_trading(east, 16.0)] == [MIDNIGHT]
    assert risk.should_pause_trading(MIDNIGHT, 17.0) == []
    assert risk.overshoot == Overshoot()


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process runs where it is tomorrow already."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_days_are_those_of_utc_wherever_the_process_runs() -> None:
    late = MIDNIGHT - SECOND
    risk = manager()
    assert not risk.update_equity(Decimal(1000), late)
    assert risk.drawdown.marks is not None
    assert risk.drawdown.marks.day == "2026-03-01"
    risk.record_used_up(Refusal.DAILY_LOSS_AT_STOP, late)
    assert risk.to_json().get("dailyBreachedDay") == "2026-03-01"
    assert [pause.until for pause in risk.should_pause_trading(late, 0.0)] == [MIDNIGHT]
    assert risk.should_pause_trading(MIDNIGHT, 0.0) == []


def test_a_drawdown_pauses_from_the_limit_on_until_it_is_cleared() -> None:
    risk = manager(maxDailyLoss="900", maxDrawdownRatio="0.1")
    for equity, at, fall, past in (("900.01", 0.0, None, None), ("900", 10.0, None, None), ("900", 12.9, None, None),
                                   ("880", 13.0, "0.12", "0.02"),
                                   ("1000", 14.0, "0", "0.02")):  # fmt: skip
        risk.update_equity(Decimal(equity), NOON)
        told = risk.should_pause_trading(NOON, at)
        detail = f"drawdown={fall} limit=0.1 overshoot={past}"
        assert told == ([] if fall is None else [Pause(Refusal.DRAWDOWN, detail, None)])
    assert risk.overshoot == Overshoot(Decimal(0), Decimal("0.02"))
    risk.update_equity(Decimal(880), NOON)
    risk.should_pause_trading(NOON, 20.0)
    risk.overshoot = replace(risk.overshoot, daily_loss=Decimal(7))
    risk.clear_drawdown()
    assert risk.to_json().get("drawdownBreached") is False
    assert risk.overshoot == Overshoot(Decimal(7), Decimal(0))
    assert risk.should_pause_trading(NOON, 24.0) == []
    assert risk.drawdown.drawdown == 0
    risk.update_equity(Decimal(792), NOON)
    assert risk.should_pause_trading(NOON, 25.0) == [], "it must hold for three seconds again"
    assert [pause.code for pause in risk.should_pause_trading(NOON, 28.0)] == [Refusal.DRAWDOWN]


def test_the_cooldown_is_that_of_the_stop_out_that_ends_it_last() -> None:
    risk = manager(cooldownSeconds=60)
    assert risk.should_pause_trading(NOON, 0.0) == []
    risk.record_stop_out(NOON)
    ends = NOON + 60 * SECOND
    detail = f"a stop-loss was hit, until={ends.isoformat()}"
    assert risk.should_pause_trading(ends - SECOND, 0.0) == [Pause(Refusal.COOLDOWN, detail, ends)]
    risk.record_stop_out(NOON - SECOND)
    assert [pause.until for pause in risk.should_pause_trading(NOON, 0.0)] == [ends]
    risk.record_stop_out(NOON + SECOND)
    assert [pause.until for pause in risk.should_pause_trading(ends, 0.0)] == [ends + SECOND]
    assert risk.should_pause_trading(ends + SECOND, 0.0) == []


def test_what_pauses_comes_back_after_a_restart_and_a_former_version_knew_less() -> None:
    risk = manager(cooldownSeconds=60, maxDrawdownRatio="0.01")
    assert risk.to_json() == {
        "dailyBreachedDay": None, "cooldownUntil": None, "drawdownBreached": False, "dailyOvershoot": "0",
        "drawdownOvershoot": "0",
    }  # fmt: skip
    risk.record_stop_out(NOON)
    risk.update_equity(Decimal(949), NOON)
    for at in (0.0, 3.0):
        pauses = risk.should_pause_trading(NOON, at)
    facts = risk.to_json()
    assert facts == {
        "dailyBreachedDay": "2026-03-01", "cooldownUntil": (NOON + 60 * SECOND).isoformat(), "drawdownBreached": True,
        "dailyOvershoot": "1", "drawdownOvershoot": "0.04100000",
    }  # fmt: skip
    again = manager(cooldownSeconds=60, maxDrawdownRatio="0.01")
    again.restore(facts)
    again.update_equity(Decimal(949), NOON)
    assert again.to_json() == facts
    assert again.should_pause_trading(NOON, 0.0) == pauses
    again.restore({})
    assert again.to_json() == manager().to_json()


@pytest.mark.parametrize(
    ("equity", "value", "level"),
    [
        ("1000", "0", RiskLevel.LOW),
        ("940.01", "399.99", RiskLevel.LOW),
        ("940", "0", RiskLevel.MEDIUM),
        ("940.01", "400", RiskLevel.MEDIUM),
        ("880.01", "0", RiskLevel.MEDIUM),
        ("880", "0", RiskLevel.HIGH),
    ],
)
def test_the_level_counts_the_drawdown_where_it_is_nearer_to_its_limit(
    equity: str, value: str, level: RiskLevel
) -> None:
    risk = manager(maxDailyLoss="900")
    risk.update_equity(Decimal(equity), NOON)
    assert risk.level(Decimal(value)) is level


# --- equity marks ---


def test_the_marks_follow_the_equity_day_by_day() -> None:
    tracker = DrawdownTracker()
    assert tracker.drawdown == tracker.daily_loss == 0
    assert not tracker.day_known
    tracker.reset_peak()
    assert tracker.marks is None
    capital = Decimal(1000)
    assert tracker.update(Decimal(1000), capital, NOON)
    first = EquityMarks(capital, capital, "2026-03-01", capital, Decimal(0), False, NOON)
    assert tracker.marks == first
    assert not tracker.day_known
    assert not tracker.update(Decimal(1000), capital, NOON)
    assert tracker.update(Decimal(900), capital, NOON)
    assert tracker.marks == replace(first, max_drawdown=Decimal("0.1"))
    assert (tracker.equity, tracker.drawdown, tracker.daily_loss) == (900, Decimal("0.1"), 100)
    assert tracker.update(Decimal(1200), capital, NOON)
    assert (tracker.drawdown, tracker.daily_loss) == (0, 0)
    # Seen a minute before midnight, the first equity of the day is that of its beginning; a second more, it is not.
    for before, seen in ((60, True), (61, False)):
        tracker.update(Decimal(1200), capital, MIDNIGHT - before * SECOND)
        assert tracker.update(Decimal(1100), capital, MIDNIGHT)
        assert tracker.marks == replace(
            first, peak=Decimal(1200), day="2026-03-02", day_start=Decimal(1100),
            max_drawdown=Decimal("0.1"), day_seen=seen,
        )  # fmt: skip
        tracker.marks = replace(tracker.marks, day="2026-03-01")
    assert tracker.update(Decimal(1600), Decimal(1500), MIDNIGHT + SECOND)
    assert tracker.marks is not None
    assert (tracker.marks.capital, tracker.marks.peak, tracker.marks.day_start) == (1500, 1700, 1600)
    tracker.reset_peak()
    assert tracker.marks.peak == 1600
    fresh = DrawdownTracker(tracker.marks)
    assert (fresh.drawdown, fresh.daily_loss) == (0, 0)
    fresh.reset_peak()
    assert fresh.marks is not None
    assert fresh.marks.peak == 0
    fresh.update(Decimal(5), Decimal(1500), MIDNIGHT + SECOND)
    assert (fresh.marks.peak, fresh.drawdown, fresh.daily_loss) == (5, 0, 1595)


@pytest.mark.parametrize(("peak", "equity", "fall"), [("-1", "-2", "0"), ("0", "-2", "0"), ("1", "0.5", "0.5")])
def test_a_fall_is_measured_from_a_peak_above_nothing(peak: str, equity: str, fall: str) -> None:
    tracker = DrawdownTracker(EquityMarks(Decimal(1), Decimal(peak), "2026-03-01", Decimal(peak)))
    tracker.update(Decimal(equity), Decimal(1), NOON)
    assert tracker.drawdown == Decimal(fall)


def test_a_day_that_nobody_saw_begin_is_opened_with_the_equity_that_it_had() -> None:
    tracker = DrawdownTracker()
    tracker.open_day(NOON, Decimal(990), Decimal(980), Decimal(1000))
    marks = EquityMarks(Decimal(1000), Decimal(990), "2026-03-01", Decimal(990), Decimal(0), True, NOON)
    assert tracker.marks == marks
    assert tracker.day_known
    tracker.open_day(MIDNIGHT, Decimal(970), Decimal(1100), Decimal(1000))
    assert tracker.marks == replace(marks, day="2026-03-02", day_start=Decimal(970), peak=Decimal(1100))
    tracker.open_day(MIDNIGHT, Decimal(1200), Decimal(1100), Decimal(1000))
    assert tracker.marks.peak == 1200
    tracker.open_day(MIDNIGHT, Decimal(1), Decimal(2), Decimal(1000))
    assert tracker.marks.peak == 1200


def test_marks_are_strings_in_the_store_and_those_of_former_versions_are_read() -> None:
    marks = EquityMarks(Decimal(1), Decimal("2.5"), "2026-03-01", Decimal(3), Decimal("0.1"), False, NOON)
    stored = {
        "daySeen": "False", "begun": NOON.isoformat(), "capital": "1", "peak": "2.5", "day": "2026-03-01",
        "dayStart": "3", "maxDrawdown": "0.1",
    }  # fmt: skip
    assert marks.to_json() == stored
    assert EquityMarks.from_json(stored) == marks
    assert replace(marks, begun=None, day_seen=True).to_json() == {**stored, "daySeen": "True", "begun": ""}
    assert EquityMarks.from_json({**stored, "begun": "", "daySeen": "True"}) == replace(
        marks, begun=None, day_seen=True
    )
    del stored["daySeen"], stored["begun"]
    assert EquityMarks.from_json(stored) == replace(marks, begun=None, day_seen=True)
    tracker = DrawdownTracker()
    tracker.restore(stored)
    assert tracker.marks == replace(marks, begun=None, day_seen=True)
    tracker.restore(None)
    assert tracker.marks is None


def test_a_breach_counts_when_it_has_held_for_three_seconds() -> None:
    breach = HeldBreach()
    assert [breach.update(True, at) for at in (5.0, 7.9, 8.0)] == [False, False, True]
    assert HeldBreach(0.0).update(True, 5.0)


# --- volatility ---


def test_volatility_needs_two_returns_and_is_high_only_above_the_threshold() -> None:
    tracker = VolatilityTracker()
    tracker.update_prices([100, 110])
    assert tracker.calculate_volatility() is None
    tracker.update_prices([121, 121])
    assert tracker.calculate_volatility() == pytest.approx(0.1 / 3**0.5)
    level = tracker.calculate_volatility()
    assert level is not None
    assert not tracker.is_high_volatility(level)
    assert tracker.is_high_volatility(level - 1e-12)
    assert tracker.is_high_volatility()
    tracker.restart([100, 104, 108.16])
    assert tracker.calculate_volatility() == pytest.approx(0, abs=1e-12)
    assert not tracker.is_high_volatility(0.0001)


def test_a_window_keeps_the_newest_returns() -> None:
    tracker = VolatilityTracker()
    tracker.update_prices([2.0**n for n in range(21)] + [2.0**20] * 18)
    assert tracker.calculate_volatility() == pytest.approx((0.1 * 0.9 * 20 / 19) ** 0.5), "18 of 20 returns are 0"
    tracker.resize(18)
    assert tracker.calculate_volatility() == 0
    for size in (1, 0):
        with pytest.raises(ValueError, match=f"window_size must be at least 2, got {size}"):
            VolatilityTracker(size)
        with pytest.raises(ValueError, match=f"window_size must be at least 2, got {size}"):
            tracker.resize(size)
    with pytest.raises(ValueError, match=r"^a price must be greater than 0, got -1$"):
        tracker.update_prices([-1])
