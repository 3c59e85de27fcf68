"""Properties of risk: what the stops can cost never passes a limit, and what goes past one by a gap is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.symbol_rules import btcusdt_rules
from tradingbot.gateway.filters import FilterCode, FilterRefusal, floor_price
from tradingbot.model import LotFilter, NotionalFilter, PriceFilter, Side, SymbolRules, TradeFill
from tradingbot.orders.planning import plan_entry
from tradingbot.risk.drawdown import DrawdownTracker, EquityMarks
from tradingbot.risk.risk_manager import STOP_SLIPPAGE, Funds, Refusal, Refused, RiskManager, Size, at_risk
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot.state.ledger import LedgerState, book, extend
from tradingbot_api.v1alpha1 import BotSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAPITAL = Decimal(1000)
RULES = btcusdt_rules()
ONE = Decimal(1)


def money(low: str, high: str, places: int = 2) -> st.SearchStrategy[Decimal]:
    return st.decimals(low, high, places=places)


@st.composite
def specs(draw: st.DrawFn, widest_stop: str = "0.2") -> BotSettings:
    """Limits at random, those of losses small enough to matter."""
    return BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {
                "environment": "Paper",
                "baseURL": "http://127.0.0.1:1",
                "credentialsSecretRef": {"name": "keys"},
            },
            "strategy": {"name": "ema-cross", "interval": "1s"},
            "capital": str(CAPITAL),
            "entry": {"maxSlippageRatio": str(draw(money("0.0001", "0.01", 4)))},
            "protection": {"stopLossRatio": str(draw(money("0.001", "0.2", 3))), "takeProfitRatio": "0.04"},
            "risk": {
                "maxPositionValue": str(draw(money("10", "1000"))),
                "maxDailyLoss": str(draw(money("1", "60"))),
                "maxDrawdownRatio": str(draw(money("0.01", "0.2", 3))),
                "riskPerTradeRatio": str(draw(money("0.001", "0.5", 3))),
                "cooldownSeconds": 0,
            },
        }
    )


@dataclass
class Account:
    """An account beside the bot: what its fills make of the equity, by the ledger alone."""

    books: LedgerState = field(default_factory=lambda: LedgerState("BTC", "USDT", RULES.lot.step))
    fills: int = 0

    def trade(self, side: Side, quantity: Decimal, price: Decimal, rate: Decimal, asset: str) -> None:
        """A fill with its fee, in base, quote or BNB."""
        self.fills += 1
        value = quantity if asset == "BTC" else quantity * price
        fee = (value * rate).quantize(Decimal("1e-12"))
        done = TradeFill("BTCUSDT", self.fills, self.fills, side, price, quantity, fee, asset, False, self.fills)
        self.books = extend(self.books, [book(done, "BTC", "USDT", ONE)])

    def equity(self, bid: Decimal, rate: Decimal) -> Decimal:
        return self.books.equity(CAPITAL, bid, rate)


def manager(spec: BotSettings, equity: Decimal = CAPITAL, peak: Decimal = CAPITAL) -> RiskManager:
    """A manager at noon of a day that began with this equity."""
    risk = RiskManager(spec, DrawdownTracker(), VolatilityTracker())
    risk.drawdown.open_day(NOON, equity, peak, CAPITAL)
    return risk


def down_to(price: Decimal) -> Decimal:
    """A whole tick."""
    return floor_price(RULES, price)


@given(
    spec=specs(),
    ask=money("100", "100000"),
    rate=money("0", "0.005", 4),
    lost=money("-50", "60"),
    peak=money("1000", "1200"),
    held=money("0", "0.5", 5),
    held_stop=money("0.8", "1.01", 3),
    asset=st.sampled_from(["BTC", "BNB"]),
)
def test_at_the_stops_of_what_is_held_and_of_the_entry_the_losses_stay_within_the_limits(
    *,
    spec: BotSettings,
    ask: Decimal,
    rate: Decimal,
    lost: Decimal,
    peak: Decimal,
    held: Decimal,
    held_stop: Decimal,
    asset: str,
) -> None:
    account, bid = Account(), down_to(ask * Decimal("0.999"))
    if held:
        account.trade(Side.BUY, held, bid, Decimal(0), "USDT")
    stop_of_held = down_to(bid * held_stop)
    day_start = account.equity(bid, rate) + lost
    risk = manager(spec, day_start, max(peak, day_start))
    equity = account.equity(bid, rate)
    open_risk = at_risk(held, bid, stop_of_held, rate)
    size = risk.calculate_position_size(RULES, ask, Funds(Decimal(10**6), Decimal(0), equity, open_risk, rate))
    if not isinstance(size, Size):
        return
    # The worst: bought at the collar, and all of it sold 1 % below the stops, with every fee.
    limit, stop = ask * (1 + spec.entry.max_slippage_ratio), down_to(ask * (1 - spec.protection.stop_loss_ratio))
    missed = 1 - STOP_SLIPPAGE
    if held:
        account.trade(Side.SELL, held, min(bid, stop_of_held * missed), rate, "USDT")
    account.trade(Side.BUY, size.quantity, limit, rate, asset)
    account.trade(Side.SELL, account.books.quantity, stop * missed, rate, "USDT" if asset == "BTC" else asset)
    end = account.equity(stop, rate)
    tolerance = Decimal("1e-9")
    assert day_start - end <= spec.risk.max_daily_loss + tolerance
    assert end >= max(peak, day_start) * (1 - spec.risk.max_drawdown_ratio) - tolerance


@given(
    spec=specs(widest_stop="0.03"),
    rate=money("0", "0.002", 4),
    moves=st.lists(
        st.tuples(money("-0.1", "0.05", 4), st.booleans(), st.integers(1, 5 * 3600)), min_size=1, max_size=40
    ),
    gaps=st.booleans(),
)
def test_over_days_of_trades_no_limit_is_passed_but_by_gaps_and_those_are_told(
    *, spec: BotSettings, rate: Decimal, moves: list[tuple[Decimal, bool, int]], gaps: bool
) -> None:
    account, risk, price, now = Account(), manager(spec), Decimal(50_000), NOON
    stop = Decimal(0)
    breached_day, day, day_start, peak, fallen = "", NOON.date(), CAPITAL, CAPITAL, False
    for move, wish, seconds in moves:
        now += timedelta(seconds=seconds)
        price = down_to(price * (1 + move))
        if account.books.quantity > 0 and price <= stop:
            # Without gaps the exit misses the stop by what the worst case allows.
            price = price if gaps else max(price, down_to(stop * (1 - STOP_SLIPPAGE)) + RULES.price.tick)
            account.trade(Side.SELL, account.books.quantity, price, rate, "USDT")
        equity = account.equity(price, rate)
        if now.date() != day:
            day, day_start = now.date(), equity
            risk.drawdown.open_day(now, equity, peak, CAPITAL)
        peak = max(peak, equity)
        risk.update_equity(equity, now)
        monotonic = now.timestamp()
        risk.should_pause_trading(now, monotonic)
        paused = {pause.code for pause in risk.should_pause_trading(now, monotonic + 3)}
        loss, fall = day_start - equity, 1 - equity / peak
        if loss >= spec.risk.max_daily_loss:
            breached_day = day.isoformat()
        fallen = fallen or fall >= spec.risk.max_drawdown_ratio
        assert (Refusal.DAILY_LOSS in paused) == (breached_day == day.isoformat())
        assert (Refusal.DRAWDOWN in paused) == fallen
        if not gaps:
            assert loss <= spec.risk.max_daily_loss
            assert fall <= spec.risk.max_drawdown_ratio
            assert not risk.overshoot.daily_loss
        elif loss > spec.risk.max_daily_loss:
            assert risk.overshoot.daily_loss >= loss - spec.risk.max_daily_loss
        if wish and account.books.quantity == 0:
            ask = price + RULES.price.tick
            funds = Funds(account.books.realized + CAPITAL, Decimal(0), equity, Decimal(0), rate)
            size = risk.calculate_position_size(RULES, ask, funds)
            if isinstance(size, Size) and not paused:
                assert loss < spec.risk.max_daily_loss
                stop = down_to(ask * (1 - spec.protection.stop_loss_ratio))
                account.trade(Side.BUY, size.quantity, ask * (1 + spec.entry.max_slippage_ratio), rate, "USDT")


def test_the_worst_of_a_day_past_its_limit_is_told_until_midnight_also_after_a_restart() -> None:
    risk = manager(_spec(maxDailyLoss="50"))
    for second, equity in enumerate((1000, 940, 940, 940, 940, 930, 990)):
        risk.update_equity(Decimal(equity), NOON)
        pauses = risk.should_pause_trading(NOON, float(second))
    assert risk.overshoot.daily_loss == 20
    assert pauses[0].detail == "loss=10 limit=50 overshoot=20"
    again = manager(_spec(maxDailyLoss="50"))
    again.restore(risk.to_json())
    assert again.overshoot == risk.overshoot
    again.should_pause_trading(NOON + timedelta(days=1), 0.0)
    assert again.overshoot.daily_loss == 0


def test_a_drawdown_stops_entries_until_it_is_cleared_also_when_it_is_won_back_and_after_a_restart() -> None:
    spec = _spec(maxDailyLoss="900", maxDrawdownRatio="0.1")
    risk = manager(spec)
    for second, equity in enumerate((1000, 880, 880, 880, 880, 1000)):
        risk.update_equity(Decimal(equity), NOON)
        pauses = risk.should_pause_trading(NOON, float(second))
    assert [(pause.code, pause.detail) for pause in pauses] == [
        (Refusal.DRAWDOWN, "drawdown=0 limit=0.1 overshoot=0.02")
    ]
    again = manager(spec)
    again.restore(risk.to_json())
    assert [pause.code for pause in again.should_pause_trading(NOON, 0.0)] == [Refusal.DRAWDOWN]
    again.clear_drawdown()
    assert again.should_pause_trading(NOON, 1.0) == []
    assert again.overshoot.drawdown == 0


def test_a_limit_within_which_no_order_fits_any_more_is_reached() -> None:
    """Else it would refuse each entry for ever, and nobody would be told, nor could end it."""
    risk = manager(_spec(maxDailyLoss="50"))
    risk.update_equity(Decimal("950.01"), NOON)
    refused = risk.calculate_position_size(
        RULES, Decimal(50_000), Funds(CAPITAL, Decimal(0), Decimal("950.01"), Decimal(0), Decimal(0))
    )
    assert isinstance(refused, Refused)
    risk.record_used_up(refused.code.value, NOON)
    risk.record_used_up(FilterCode.NOTIONAL.value, NOON)
    (pause,) = risk.should_pause_trading(NOON, 0.0)
    assert (pause.code, pause.detail) == (Refusal.DAILY_LOSS, "loss=49.99 limit=50 overshoot=0")
    assert risk.should_pause_trading(NOON + timedelta(days=1), 1.0) == []
    risk.record_used_up(Refusal.DRAWDOWN_AT_STOP.value, NOON)
    assert [one.code for one in risk.should_pause_trading(NOON + timedelta(days=1), 2.0)] == [Refusal.DRAWDOWN]
    risk.clear_drawdown()
    assert risk.should_pause_trading(NOON + timedelta(days=1), 3.0) == []


def test_a_loss_of_today_that_no_process_saw_counts_to_the_day() -> None:
    """It held over midnight, its stop was hit at 02:00, and the next process starts at 03:00."""
    spec = _spec(maxDailyLoss="50")
    yesterday = manager(spec)
    assert yesterday.drawdown.marks is not None
    morning = NOON + timedelta(hours=15)
    risk = RiskManager(spec, DrawdownTracker(yesterday.drawdown.marks), VolatilityTracker())
    risk.update_equity(Decimal(940), morning)
    assert not risk.drawdown.day_known
    risk.drawdown.open_day(morning, Decimal(1010), CAPITAL, CAPITAL)
    risk.update_equity(Decimal(940), morning)
    assert risk.drawdown.day_known
    assert risk.drawdown.daily_loss == 70
    assert risk.drawdown.drawdown == Decimal("0.06930693")
    # A process that lives goes over midnight by itself.
    risk.update_equity(Decimal(940), morning + timedelta(hours=20, minutes=59, seconds=59))
    risk.update_equity(Decimal(930), morning + timedelta(hours=21))
    assert (risk.drawdown.day_known, risk.drawdown.daily_loss) == (True, 0)
    # One without prices for an hour does not.
    risk.update_equity(Decimal(930), morning + timedelta(hours=45, minutes=1))
    assert not risk.drawdown.day_known


def test_a_loss_of_today_counts_also_where_the_store_with_yesterdays_marks_came_back_after_it() -> None:
    """The process followed the equity in memory until then: that tells nothing of how the day began."""
    risk = RiskManager(_spec(maxDailyLoss="50"), DrawdownTracker(), VolatilityTracker())
    risk.update_equity(Decimal(940), NOON)
    risk.drawdown.restore(EquityMarks(CAPITAL, CAPITAL, "2026-02-28", CAPITAL).to_json())
    risk.update_equity(Decimal(940), NOON + timedelta(seconds=1))
    assert not risk.drawdown.day_known


def _spec(**risk: Any) -> BotSettings:
    return BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {
                "environment": "Paper",
                "baseURL": "http://127.0.0.1:1",
                "credentialsSecretRef": {"name": "keys"},
            },
            "strategy": {"name": "ema-cross", "interval": "1s"},
            "capital": str(CAPITAL),
            "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
            "risk": {"maxPositionValue": "1000", **risk},
        }
    )


@st.composite
def rules(draw: st.DrawFn) -> SymbolRules:
    """Filters at random, also those that refuse nearly everything."""
    tick, step = Decimal(1).scaleb(-draw(st.integers(0, 4))), Decimal(1).scaleb(-draw(st.integers(0, 6)))
    least = step * draw(st.integers(1, 50))
    lot = LotFilter(least, least * draw(st.integers(1, 10**6)), step)
    smallest = draw(st.integers(0, 200))
    largest = draw(st.sampled_from([0, 300, 9_000_000]))
    notional = NotionalFilter(Decimal(smallest), True, Decimal(largest), False)
    return replace(RULES, price=PriceFilter(tick, Decimal(10**7), tick), lot=lot, notional=notional)


@given(spec=specs(), symbol=rules(), ask=money("1", "100000"), rate=money("0", "0.005", 4), free=money("0", "2000"))
def test_a_size_passes_the_filters_or_is_refused_with_the_name_of_the_filter(
    *, spec: BotSettings, symbol: SymbolRules, ask: Decimal, rate: Decimal, free: Decimal
) -> None:
    risk = manager(spec)
    size = risk.calculate_position_size(symbol, ask, Funds(free, Decimal(0), CAPITAL, Decimal(0), rate))
    if isinstance(size, Refused):
        assert size.code in {*FilterCode, Refusal.QUOTE_NOT_FREE, *AT_STOP}
        assert any(f"filter={code.value}:" in size.detail for code in FilterCode)
        return
    plan = plan_entry(symbol, spec, quantity=size.quantity, ask=ask, taker_rate=rate, held=Decimal(0))
    if isinstance(plan, FilterRefusal):
        assert plan.code in FilterCode
        # A size is right by itself: what is refused of it is a price.
        assert plan.code in {FilterCode.PRICE_FILTER, FilterCode.PERCENT_PRICE_BY_SIDE}
        return
    sold = plan.protection
    for quantity in (plan.quantity, sold.quantity):
        assert symbol.lot.min_quantity <= quantity <= symbol.lot.max_quantity
        assert quantity % symbol.lot.step == 0
    for price in (plan.limit_price, sold.stop_price, sold.take_profit_price):
        assert price % symbol.price.tick == 0
    assert plan.quantity * plan.limit_price >= symbol.notional.min_notional
    assert sold.quantity * (sold.stop_limit_price or sold.stop_price) >= symbol.notional.min_notional
    if symbol.notional.max_notional:
        assert plan.quantity * plan.limit_price <= symbol.notional.max_notional


def test_a_purchase_whose_fee_leaves_too_little_to_sell_is_refused_with_the_name_of_the_filter() -> None:
    half = Decimal("0.5")
    symbol = replace(RULES, lot=LotFilter(half, Decimal(9), Decimal("0.01")))
    ask = Decimal(100)
    free = half * ask * Decimal("1.001")
    risk = manager(_spec(maxDailyLoss="50"))
    sizes = [
        risk.calculate_position_size(symbol, ask, Funds(Decimal(1000), CAPITAL - free, CAPITAL, Decimal(0), rate))
        for rate in (Decimal(0), Decimal("0.001"))
    ]
    assert isinstance(sizes[0], Size)
    assert sizes[0].quantity == half
    assert isinstance(sizes[1], Refused)
    assert sizes[1].code is FilterCode.LOT_SIZE
    assert "quantity=0.5 bound=maxPositionValue" in sizes[1].detail
    assert "filter=LOT_SIZE: quantity 0.49: expected at least 0.5" in sizes[1].detail


AT_STOP = {Refusal.DAILY_LOSS_AT_STOP, Refusal.DRAWDOWN_AT_STOP}
