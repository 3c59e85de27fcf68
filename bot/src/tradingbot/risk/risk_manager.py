"""The risk manager: sizes entries, judges the market, and says when no position may be opened."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Final

from tradingbot.model import BookTicker, LotFilter, SymbolRules
from tradingbot.recorded import Recorded, recorded
from tradingbot.risk.drawdown import DrawdownTracker, HeldBreach
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot_api.v1alpha1 import BotSettings

HIGH_VOLATILITY: Final = 0.05
VOLATILE_SIZE_FACTOR: Final = Decimal("0.5")
"""In a highly volatile market half of the risk is taken."""
STOP_SLIPPAGE: Final = Decimal("0.99")
"""The exit at the stop must pass the notional filter even 1 % below the stop."""


class Refusal(StrEnum):
    """Why an entry was not made; stable words for logs, metrics and tests."""

    SPREAD_TOO_WIDE = "SpreadTooWide"
    DATA_TOO_OLD = "DataTooOld"
    NO_MARKET = "NoMarket"
    TOO_MANY_ENTRIES = "TooManyEntries"
    DAILY_LOSS = "DailyLoss"
    DRAWDOWN = "Drawdown"
    COOLDOWN = "Cooldown"
    SIZE_BELOW_FILTERS = "SizeBelowFilters"
    CAPITAL_EXHAUSTED = "CapitalExhausted"
    QUOTE_NOT_FREE = "QuoteNotFree"


class RiskLevel(StrEnum):
    """The summary in the status."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry is refused; `detail` has the figures as key=value."""

    code: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class Size:
    """An entry's quantity and the figures it was made of."""

    quantity: Decimal
    detail: str


@dataclass(frozen=True, slots=True)
class Funds:
    """What an entry may be paid from, in the quote asset."""

    free_quote: Decimal
    position_cost: Decimal
    """Cost of what is held; counts against the capital."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Entries are paused until `until`, or until someone clears it where that is None."""

    code: Refusal
    detail: str
    until: datetime | None


class RiskManager(Recorded):
    """Holds the limits of one bot. Days and pauses count by the exchange's clock, durations by a monotonic one."""

    def __init__(self, config: BotSettings, drawdown: DrawdownTracker, volatility: VolatilityTracker) -> None:
        self.config = config
        self.drawdown = drawdown
        self.volatility = volatility
        self.size_factor = Decimal(1)
        self._entries: deque[float] = deque()
        self._daily = HeldBreach()
        self._fall = HeldBreach()
        self._daily_breached_day: str | None = None
        self._cooldown_until: datetime | None = None

    # --- what happened ---

    @recorded
    def configure(self, config: BotSettings) -> None:
        """Other settings are in force."""
        self.config = config

    @recorded
    def record_entry(self, monotonic: float) -> None:
        """An entry was sent."""
        self._entries.append(monotonic)

    @recorded
    def record_stop_out(self, when: datetime) -> None:
        """A stop-loss was hit: the cooldown begins."""
        self._cooldown_until = when + timedelta(seconds=self.config.risk.cooldown_seconds)

    @recorded
    def update_equity(self, equity: Decimal, now: datetime) -> bool:
        """Take the present equity; True when the marks changed and must be persisted."""
        return self.drawdown.update(equity, self.config.capital, now)

    # --- what may be done ---

    @recorded
    def check_market_conditions(self, book: BookTicker | None, monotonic: float) -> Refused | None:
        """Whether the market is fit for an entry: data age, spread, entries in the last minute."""
        if book is None or book.bid <= 0 or book.ask <= 0:
            return Refused(Refusal.NO_MARKET, "no best bid and ask")
        limits = self.config.entry
        age = monotonic - book.received
        if age > limits.max_data_age_seconds:
            return Refused(Refusal.DATA_TOO_OLD, f"age={age:.1f}s limit={limits.max_data_age_seconds}s")
        spread = (book.ask - book.bid) / book.bid
        if spread > limits.max_spread_ratio:
            return Refused(Refusal.SPREAD_TOO_WIDE, f"spread={spread:.6f} limit={limits.max_spread_ratio}")
        while self._entries and monotonic - self._entries[0] >= 60:
            self._entries.popleft()
        if len(self._entries) >= limits.max_per_minute:
            return Refused(Refusal.TOO_MANY_ENTRIES, f"entries={len(self._entries)} limit={limits.max_per_minute}")
        return None

    @recorded
    def should_pause_trading(self, now: datetime, monotonic: float) -> list[Pause]:
        """Every reason to open no position at present."""
        risk, pauses = self.config.risk, []
        day = now.astimezone(UTC).date()
        loss, fall = self.drawdown.daily_loss, self.drawdown.drawdown
        if self._daily.update(loss >= risk.max_daily_loss, monotonic):
            # For the rest of the day, even if the price comes back.
            self._daily_breached_day = day.isoformat()
        if self._daily_breached_day == day.isoformat():
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            pauses.append(Pause(Refusal.DAILY_LOSS, f"loss={loss} limit={risk.max_daily_loss}", midnight))
        if self._fall.update(fall >= risk.max_drawdown_ratio, monotonic):
            pauses.append(Pause(Refusal.DRAWDOWN, f"drawdown={fall} limit={risk.max_drawdown_ratio}", None))
        if self._cooldown_until is not None and now < self._cooldown_until:
            pauses.append(Pause(Refusal.COOLDOWN, "a stop-loss was hit", self._cooldown_until))
        return pauses

    @recorded
    def adjust_risk_parameters(self) -> Decimal:
        """Take half of the risk while the market is highly volatile; returns the factor in force."""
        volatile = self.volatility.is_high_volatility(HIGH_VOLATILITY)
        self.size_factor = VOLATILE_SIZE_FACTOR if volatile else Decimal(1)
        return self.size_factor

    @recorded
    def calculate_position_size(self, rules: SymbolRules, ask: Decimal, funds: Funds) -> Size | Refused:
        """Quantity of an entry at the worst price that its limit allows, in whole steps.

        The smallest of: what loses `riskPerTradeRatio` of the capital at the stop; maxPositionValue; the capital
        that is left; the free quote. Refused where the exit at the stop would be too small for the exchange.
        """
        settings = self.config
        price = ask * (1 + settings.entry.max_slippage_ratio)
        stop_distance = price * settings.protection.stop_loss_ratio
        by_risk = settings.capital * settings.risk.risk_per_trade_ratio * self.size_factor / stop_distance
        left = settings.capital - funds.position_cost
        if left <= 0:
            return Refused(Refusal.CAPITAL_EXHAUSTED, f"capital={settings.capital} cost={funds.position_cost}")
        bounds = {
            "risk": by_risk,
            "maxPositionValue": settings.risk.max_position_value / price,
            "capital": left / price,
            "freeQuote": funds.free_quote / price,
        }
        bound = min(bounds, key=lambda name: bounds[name])
        quantity = floor_to_step(bounds[bound], rules.lot)
        stop_price = price * (1 - settings.protection.stop_loss_ratio)
        smallest = max(rules.lot.min_quantity, rules.notional.min_notional / (stop_price * STOP_SLIPPAGE))
        detail = f"quantity={quantity} bound={bound} price={price:f}"
        if quantity <= 0 or quantity < smallest:
            code = Refusal.QUOTE_NOT_FREE if bound == "freeQuote" else Refusal.SIZE_BELOW_FILTERS
            return Refused(code, f"{detail} smallest={smallest:.8f}")
        return Size(quantity, detail)

    def level(self, position_value: Decimal) -> RiskLevel:
        """LOW, MEDIUM or HIGH: how much of the limits is used, and the volatility."""
        risk = self.config.risk
        used = max(
            self.drawdown.drawdown / risk.max_drawdown_ratio,
            self.drawdown.daily_loss / risk.max_daily_loss,
        )
        if used >= Decimal("0.8") or self.volatility.is_high_volatility(HIGH_VOLATILITY):
            return RiskLevel.HIGH
        if used >= Decimal("0.4") or position_value >= risk.max_position_value * Decimal("0.8"):
            return RiskLevel.MEDIUM
        return RiskLevel.LOW

    # --- what survives a restart ---

    def to_json(self) -> dict[str, str | None]:
        """Pauses that time alone would forget; the equity marks are stored apart."""
        return {
            "dailyBreachedDay": self._daily_breached_day,
            "cooldownUntil": self._cooldown_until.isoformat() if self._cooldown_until else None,
        }

    @recorded
    def restore(self, data: dict[str, str | None]) -> None:
        """The inverse of to_json."""
        self._daily_breached_day = data.get("dailyBreachedDay")
        until = data.get("cooldownUntil")
        self._cooldown_until = datetime.fromisoformat(until) if until else None


def floor_to_step(quantity: Decimal, lot: LotFilter) -> Decimal:
    """The largest quantity of whole steps that is not above `quantity` nor the filter's maximum."""
    if lot.max_quantity > 0:
        quantity = min(quantity, lot.max_quantity)
    if lot.step <= 0:
        return quantity
    return (quantity / lot.step).to_integral_value(rounding=ROUND_DOWN) * lot.step
