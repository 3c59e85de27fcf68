"""The risk manager: sizes entries, judges the market, and says when no position may be opened."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from typing_extensions import TypedDict

from tradingbot.gateway import filters
from tradingbot.gateway.filters import FilterCode
from tradingbot.model import BookTicker, SymbolRules
from tradingbot.recorded import Recorded, recorded
from tradingbot.risk.drawdown import DrawdownTracker, HeldBreach
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot_api.base import canonical
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings

FULL_SIZE: Final = 0.5
"""Up to this share of the threshold of high volatility the whole risk is taken; above, less in proportion."""
STOP_SLIPPAGE: Final = Decimal("0.01")
"""In the worst case the exit sells this far below the stop, which is where a STOP_LOSS_LIMIT ends."""
HIGH_USE: Final = Decimal("0.8")
MEDIUM_USE: Final = Decimal("0.4")


class Refusal(StrEnum):
    """Why an entry was not made; stable words for logs, metrics and tests, told in docs/risk.md.

    A size that the exchange would refuse has the name of its filter (FilterCode) instead.
    """

    SPREAD_TOO_WIDE = "SpreadTooWide"
    DATA_TOO_OLD = "DataTooOld"
    NO_MARKET = "NoMarket"
    TOO_MANY_ENTRIES = "TooManyEntries"
    DAILY_LOSS = "DailyLoss"
    DRAWDOWN = "Drawdown"
    COOLDOWN = Reason.COOLDOWN.value
    EQUITY_UNKNOWN = "EquityUnknown"
    DAILY_LOSS_AT_STOP = "DailyLossAtStop"
    DRAWDOWN_AT_STOP = "DrawdownAtStop"
    CAPITAL_EXHAUSTED = "CapitalExhausted"
    QUOTE_NOT_FREE = "QuoteNotFree"
    FLEET_LIMIT = "FleetLimit"


class RiskLevel(StrEnum):
    """The summary in the status."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry is refused; `detail` has the figures as key=value."""

    code: Refusal | FilterCode
    detail: str


@dataclass(frozen=True, slots=True)
class Size:
    """An entry's quantity, the worst price that its limit allows, and the figures it was made of."""

    quantity: Decimal
    price: Decimal
    detail: str


@dataclass(frozen=True, slots=True)
class Funds:
    """What an entry may cost and lose, in the quote asset."""

    free_quote: Decimal
    position_cost: Decimal
    """Cost of what is held; counts against the capital."""
    equity: Decimal
    at_risk: Decimal
    """What of the equity is lost if the stop of what is held is hit, in the worst case."""
    taker_rate: Decimal
    """A ratio."""
    fleet_room: Decimal | None = None
    """What the limits of the fleet leave for this entry; None: none are in force, or it was not asked for yet."""


@dataclass(frozen=True, slots=True)
class Overshoot:
    """How far losses went past their limits before entries stopped, or by a gap after; 0 while no limit is reached."""

    daily_loss: Decimal = Decimal(0)
    """The day's largest loss above maxDailyLoss, in quote."""
    drawdown: Decimal = Decimal(0)
    """The largest drawdown above maxDrawdownRatio, a ratio, until it is cleared."""


class RiskFacts(TypedDict, total=False):
    """What of a RiskManager survives a restart."""

    dailyBreachedDay: str | None
    cooldownUntil: str | None
    drawdownBreached: bool
    dailyOvershoot: str
    drawdownOvershoot: str


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
        self._drawdown_breached = False
        self._cooldown_until: datetime | None = None
        self.overshoot = Overshoot()

    # --- what happened ---

    @recorded
    def configure(self, config: BotSettings) -> None:
        """Other settings are in force."""
        self.config = config
        self.volatility.resize(config.risk.volatility.window)

    @recorded
    def record_entry(self, monotonic: float) -> None:
        """An entry was sent."""
        self._entries.append(monotonic)

    @recorded
    def record_stop_out(self, when: datetime) -> None:
        """A stop-loss was hit: the cooldown begins."""
        until = when + timedelta(seconds=self.config.risk.cooldown_seconds)
        self._cooldown_until = max(until, self._cooldown_until or until)

    @recorded
    def update_equity(self, equity: Decimal, now: datetime) -> bool:
        """Take the present equity; True when the marks changed and must be persisted."""
        return self.drawdown.update(equity, self.config.capital, now)

    @recorded
    def clear_drawdown(self) -> None:
        """A human cleared the drawdown: it is measured anew from the present equity."""
        self._drawdown_breached = False
        self._fall = HeldBreach()
        self.overshoot = replace(self.overshoot, drawdown=Decimal(0))
        self.drawdown.reset_peak()

    @recorded
    def record_used_up(self, code: str, now: datetime) -> None:
        """An entry was refused by that code while nothing was held: a limit within which no order fits is reached.

        It would never be so by a loss, as no trade is left that could make one.
        """
        if code == Refusal.DAILY_LOSS_AT_STOP:
            self._daily_breached_day = now.astimezone(UTC).date().isoformat()
        elif code == Refusal.DRAWDOWN_AT_STOP:
            self._drawdown_breached = True

    # --- what may be done ---

    @recorded
    def check_market_conditions(self, book: BookTicker | None, monotonic: float) -> Refused | None:
        """Whether the market is fit for an entry: data age, spread, entries in the last minute."""
        if book is None or not book.two_sided:
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
        marks, fall = self.drawdown.marks, self.drawdown.drawdown
        # Until the equity of a new day is seen its loss is not that of the day before.
        same_day = marks is not None and marks.day == day.isoformat()
        loss = self.drawdown.daily_loss if same_day else Decimal(0)
        if self._daily_breached_day not in {None, day.isoformat()}:
            self._daily_breached_day = None
            self.overshoot = replace(self.overshoot, daily_loss=Decimal(0))
        if self._daily.update(loss >= risk.max_daily_loss, monotonic):
            # For the rest of the day, even if the price comes back.
            self._daily_breached_day = day.isoformat()
        if self._daily_breached_day is not None:
            past = max(self.overshoot.daily_loss, loss - risk.max_daily_loss)
            self.overshoot = replace(self.overshoot, daily_loss=past)
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            detail = f"loss={canonical(loss)} limit={risk.max_daily_loss} overshoot={canonical(past)}"
            pauses.append(Pause(Refusal.DAILY_LOSS, detail, midnight))
        if self._fall.update(fall >= risk.max_drawdown_ratio, monotonic):
            self._drawdown_breached = True
        if self._drawdown_breached:
            past = max(self.overshoot.drawdown, fall - risk.max_drawdown_ratio)
            self.overshoot = replace(self.overshoot, drawdown=past)
            detail = f"drawdown={canonical(fall)} limit={risk.max_drawdown_ratio} overshoot={canonical(past)}"
            pauses.append(Pause(Refusal.DRAWDOWN, detail, None))
        if self._cooldown_until is not None and now < self._cooldown_until:
            detail = f"a stop-loss was hit, until={self._cooldown_until.isoformat()}"
            pauses.append(Pause(Refusal.COOLDOWN, detail, self._cooldown_until))
        return pauses

    @recorded
    def adjust_risk_parameters(self) -> Decimal:
        """Scale the risk by the volatility; returns the factor in force.

        The whole risk up to half of the threshold, half of it at the threshold, and less in proportion above.
        """
        volatility = self.volatility.calculate_volatility()
        full = float(self.config.risk.volatility.high_threshold) * FULL_SIZE
        self.size_factor = Decimal(1)
        if volatility is not None and volatility > full:
            self.size_factor = Decimal(f"{full / volatility:.6f}")
        return self.size_factor

    @recorded
    def calculate_position_size(self, rules: SymbolRules, ask: Decimal, funds: Funds) -> Size | Refused:
        """Quantity of an entry at the worst price that its limit allows, in whole steps.

        The smallest of: what loses `riskPerTradeRatio` of the capital at the stop, fees included, scaled by the
        volatility; maxPositionValue; the capital that is left; the free quote; the room in the limits of the fleet;
        what keeps the day's loss and the drawdown within their limits in the worst case, if this stop and that of what
        is held are hit; the exchange's largest order. Refused where the exit at the stop would be too small for the
        exchange.
        """
        settings, risk, marks = self.config, self.config.risk, self.drawdown.marks
        left = settings.capital - funds.position_cost
        if left <= 0:
            return Refused(Refusal.CAPITAL_EXHAUSTED, f"capital={settings.capital} cost={funds.position_cost}")
        if marks is None or not marks.day_seen:
            return Refused(Refusal.EQUITY_UNKNOWN, "the equity at 00:00 UTC is read from the exchange first")
        price = ask * (1 + settings.entry.max_slippage_ratio)
        stop = filters.floor_price(rules, ask * (1 - settings.protection.stop_loss_ratio))
        daily_room = funds.equity - funds.at_risk - marks.day_start + risk.max_daily_loss
        fall_room = funds.equity - funds.at_risk - marks.peak * (1 - risk.max_drawdown_ratio)
        for code, room in ((Refusal.DAILY_LOSS_AT_STOP, daily_room), (Refusal.DRAWDOWN_AT_STOP, fall_room)):
            if room <= 0:
                figures = {"room": room, "equity": funds.equity, "at_risk": funds.at_risk}
                return Refused(code, " ".join(f"{name}={canonical(value)}" for name, value in figures.items()))
        at_stop = loss_at_stop(price, stop, funds.taker_rate)
        worst = loss_at_stop(price, stop * (1 - STOP_SLIPPAGE), funds.taker_rate)
        bounds = {
            "risk": settings.capital * risk.risk_per_trade_ratio * self.size_factor / at_stop,
            "maxPositionValue": (risk.max_position_value - funds.position_cost) / price,
            "capital": left / price,
            "freeQuote": funds.free_quote / price,
            "maxDailyLoss": daily_room / worst,
            "maxDrawdownRatio": fall_room / worst,
        }
        if funds.fleet_room is not None:
            bounds["fleetLimit"] = funds.fleet_room / price
        if rules.lot.max_quantity > 0:
            bounds[FilterCode.LOT_SIZE] = rules.lot.max_quantity
        if rules.notional.max_notional > 0:
            bounds[FilterCode.NOTIONAL] = rules.notional.max_notional / price
        bound = min(bounds, key=lambda name: bounds[name])
        quantity = filters.floor_quantity(rules, bounds[bound])
        sold = filters.floor_quantity(rules, quantity * (1 - funds.taker_rate))
        detail = f"quantity={quantity} bound={bound} price={price:f} stop={stop:f} factor={self.size_factor}"
        refusal = filters.check_quantity(rules, sold) or filters.check_notional(rules, stop * (1 - STOP_SLIPPAGE), sold)
        if refusal is not None:
            return Refused(
                _USED_UP.get(bound) or refusal.code, f"{detail} filter={refusal.code.value}: {refusal.message}"
            )
        return Size(quantity, price, detail)

    def level(self, position_value: Decimal) -> RiskLevel:
        """LOW, MEDIUM or HIGH: how much of the limits is used, and the volatility."""
        risk = self.config.risk
        used = max(
            self.drawdown.drawdown / risk.max_drawdown_ratio,
            self.drawdown.daily_loss / risk.max_daily_loss,
        )
        volatile = self.volatility.is_high_volatility(float(risk.volatility.high_threshold))
        if used >= HIGH_USE or volatile:
            return RiskLevel.HIGH
        if used >= MEDIUM_USE or position_value >= risk.max_position_value * HIGH_USE:
            return RiskLevel.MEDIUM
        return RiskLevel.LOW

    # --- what survives a restart ---

    def to_json(self) -> RiskFacts:
        """Pauses that time alone would forget; the equity marks are stored apart."""
        return {
            "dailyBreachedDay": self._daily_breached_day,
            "cooldownUntil": self._cooldown_until.isoformat() if self._cooldown_until else None,
            "drawdownBreached": self._drawdown_breached,
            "dailyOvershoot": str(self.overshoot.daily_loss),
            "drawdownOvershoot": str(self.overshoot.drawdown),
        }

    @recorded
    def restore(self, data: RiskFacts) -> None:
        """The inverse of to_json, also of former versions', who knew less."""
        self._daily_breached_day = data.get("dailyBreachedDay")
        until = data.get("cooldownUntil")
        self._cooldown_until = datetime.fromisoformat(until) if until else None
        self._drawdown_breached = bool(data.get("drawdownBreached"))
        self.overshoot = Overshoot(
            Decimal(data.get("dailyOvershoot", "0")), Decimal(data.get("drawdownOvershoot", "0"))
        )


_USED_UP: Final = {
    "fleetLimit": Refusal.FLEET_LIMIT,
    "freeQuote": Refusal.QUOTE_NOT_FREE,
    "maxDailyLoss": Refusal.DAILY_LOSS_AT_STOP,
    "maxDrawdownRatio": Refusal.DRAWDOWN_AT_STOP,
}
"""What a size is too small by, where it is not the limits of the spec alone."""


def loss_at_stop(price: Decimal, sold_at: Decimal, taker_rate: Decimal) -> Decimal:
    """What a unit of base loses that is bought at `price` and sold at `sold_at`, with both fees at the taker's rate."""
    return price * (1 + taker_rate) - sold_at * (1 - taker_rate)


def at_risk(quantity: Decimal, bid: Decimal, stop: Decimal | None, taker_rate: Decimal) -> Decimal:
    """What `quantity` of base, worth the bid less the fee, loses in the worst case at its stop; all without one."""
    sold_at = Decimal(0) if stop is None else stop * (1 - STOP_SLIPPAGE)
    return quantity * max(Decimal(0), bid - sold_at) * (1 - taker_rate)
