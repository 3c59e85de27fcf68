"""The bot's figures for Prometheus: read from the present status when scraped, and counted where events matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradingbot.gateway.errors import RejectedError, TooManyOrdersError
from tradingbot.gateway.port import CallKind
from tradingbot.orders.types import EntryOutcome
from tradingbot.risk.risk_manager import Refusal, RiskLevel
from tradingbot_api.bot_http import BotStatus

BREAKER_STATES = ("Closed", "HalfOpen", "Open")


@dataclass(frozen=True, slots=True)
class Extra:
    """What is measured and not in the status; None where it is not known."""

    environment: str = ""
    equity: Decimal | None = None
    daily_loss: Decimal | None = None
    daily_loss_limit: Decimal | None = None
    drawdown_limit: Decimal | None = None
    position_seconds: float | None = None
    time_in_market: Decimal | None = None
    stream_ages: dict[str, float | None] = field(default_factory=dict)
    task_ages: dict[str, float] = field(default_factory=dict)
    """Of those that are at work."""
    used_weight: int = 0
    weight_limit: int | None = None
    exchange_wait_end: float | None = None
    """UNIX time until which the exchange demands to send nothing; None where it demands no wait."""
    clock_offset_seconds: float | None = None
    grant_required: bool = False
    unprotected_now_seconds: float = 0.0
    protection_deadline_seconds: int = 0
    loop_lag_seconds: float = 0.0


class Missed(StrEnum):
    """How the close of a candle was missed; the label `how`."""

    NO_CLOSE = "NoClose"
    """It did not come, and was asked for."""
    GAP = "Gap"
    """Another came instead, and it was asked for."""
    LATE = "Late"
    """It was too old to enter on."""
    ABSENT = "Absent"
    """Another came, and the exchange has none before: counted once for all that lack in a row."""


class Metrics:
    """All metrics of one bot, in a registry of their own; every one has the label `symbol`.

    Labels whose words are known begin at 0: a rate does not see a counter that is born with its first event.
    """

    def __init__(self, symbol: str, status: Callable[[], tuple[BotStatus, Extra]]) -> None:
        self.registry = CollectorRegistry()
        self._symbol = symbol
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._entries = Counter(
            "tradingbot_entries", "Entries by outcome.", ["symbol", "outcome"], registry=self.registry
        )
        self._refusals = Counter(
            "tradingbot_entries_refused", "Entries not sent, by code.", ["symbol", "code"], registry=self.registry
        )
        self._order_events = Counter(
            "tradingbot_order_events", "Events of orders, by kind.", ["symbol", "kind"], registry=self.registry
        )
        self._notifications = Counter(
            "tradingbot_notifications", "Messages to the webhook.", ["symbol", "result"], registry=self.registry
        )
        self._reconciles = Counter(
            "tradingbot_reconciles", "Comparisons with the exchange.", ["symbol", "result"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "tradingbot_api_request_seconds",
            "From a request to the exchange to its answer, by what was asked for: order or read.",
            ["symbol", "call"],
            buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._request_failures = Counter(
            "tradingbot_api_request_failures",
            "Requests that the exchange refused or that got no answer, by the code of the error.",
            ["symbol", "call", "code"],
            registry=self.registry,
        )
        for refusal in (RejectedError, TooManyOrdersError):
            self._request_failures.labels(symbol, CallKind.ORDER, refusal.code)
        self._order_seconds = Histogram(
            "tradingbot_entry_seconds",
            "From the close of the candle, or the tick, to the outcome of the entry.",
            ["symbol"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._candle_seconds = Histogram(
            "tradingbot_candle_seconds",
            "From the end of a candle, by the exchange's clock, to the decision on it.",
            ["symbol"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
            registry=self.registry,
        )
        self._missed = Counter(
            "tradingbot_candles_missed", "Closes that did not come in time.", ["symbol", "how"], registry=self.registry
        )
        for outcome in EntryOutcome:
            self._entries.labels(symbol, outcome.value)
        for code in Refusal:
            self._refusals.labels(symbol, code.value)
        for how in Missed:
            self._missed.labels(symbol, how.value)
        self.registry.register(_StatusCollector(symbol, status))

    def entry(self, outcome: str, seconds: float) -> None:
        """An entry had an outcome, `seconds` after its candle closed or its tick came."""
        self._entries.labels(self._symbol, outcome).inc()
        self._order_seconds.labels(self._symbol).observe(max(0.0, seconds))

    def candle(self, seconds: float) -> None:
        """A candle was decided on, `seconds` after its end."""
        self._candle_seconds.labels(self._symbol).observe(max(0.0, seconds))

    def missed(self, how: Missed, count: int) -> None:
        """Closes did not come in time."""
        self._missed.labels(self._symbol, how.value).inc(count)

    def refused(self, code: str) -> None:
        """An entry was not sent."""
        self._refusals.labels(self._symbol, code).inc()

    def request(self, call: CallKind, seconds: float, code: str) -> None:
        """A request to the exchange ended; `code` of its ExchangeError, empty where it was done."""
        self._request_seconds.labels(self._symbol, call).observe(seconds)
        if code:
            self._request_failures.labels(self._symbol, call, code).inc()

    def order_event(self, kind: str) -> None:
        """The order manager told of an event."""
        self._order_events.labels(self._symbol, kind).inc()

    def notification(self, result: str) -> None:
        """A message was sent, failed for good, or another took its place."""
        self._notifications.labels(self._symbol, result).inc()

    def reconciled(self, result: str) -> None:
        """A comparison with the exchange ended."""
        self._reconciles.labels(self._symbol, result).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _StatusCollector(Collector):
    """Turns the present status into metrics; what is not known has no sample."""

    def __init__(self, symbol: str, status: Callable[[], tuple[BotStatus, Extra]]) -> None:
        self._symbol = symbol
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing in advance: the registry must not ask for a status while the bot is being composed."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        status, extra = self._status()
        yield from self._safe_mode(status)
        yield from self._state(status, extra)
        yield from self._money(status, extra)
        yield from self._orders(status, extra)
        yield from self._exchange(status, extra)

    def _gauge(self, name: str, text: str, value: Decimal | float | int | bool | None) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"tradingbot_{name}", text, labels=["symbol"])
        if value is not None:
            family.add_metric([self._symbol], float(value))
        return family

    def _counter(self, name: str, text: str, value: float | None) -> CounterMetricFamily:
        family = CounterMetricFamily(f"tradingbot_{name}", text, labels=["symbol"])
        if value is not None:
            family.add_metric([self._symbol], value)
        return family

    def _safe_mode(self, status: BotStatus) -> Iterator[Metric]:
        safe = status.safe_mode
        causes = GaugeMetricFamily(
            "tradingbot_safe_mode", "1 for each cause of safe mode.", labels=["symbol", "reason"]
        )
        for reason in sorted({cause.reason for cause in safe.causes}):
            causes.add_metric([self._symbol, reason], 1.0)
        yield causes
        yield self._gauge("safe_mode_engaged", "1 while no entry is sent.", safe.engaged)
        yield self._gauge("safe_mode_acknowledged", "1 while engaged and no entry is left.", safe.acknowledged)
        allowed = _condition(status, "TradingAllowed")
        yield self._gauge("trading_allowed", "1 while an entry would be sent.", allowed)

    def _state(self, status: BotStatus, extra: Extra) -> Iterator[Metric]:
        yield self._gauge("ready", "1 while reconciled with the exchange.", status.ready)
        info = GaugeMetricFamily(
            "tradingbot_info",
            "1; which release trades where, and the asset of its money.",
            labels=["symbol", "version", "environment", "quote"],
        )
        if status.quote_claim is not None:
            info.add_metric([self._symbol, status.version, extra.environment, status.quote_claim.asset], 1.0)
        yield info
        state = GaugeMetricFamily(
            "tradingbot_circuit_breaker_state", "1 for the present state.", labels=["symbol", "state"]
        )
        if status.circuit_breaker is not None:
            for name in BREAKER_STATES:
                state.add_metric([self._symbol, name], float(status.circuit_breaker.state == name))
        yield state
        failures = None if status.circuit_breaker is None else status.circuit_breaker.failures
        yield self._gauge("circuit_breaker_failures", "Consecutive failures.", failures)
        yield self._gauge("balance_synced", "1 while the books agree.", _condition(status, "BalanceSynced"))
        yield self._gauge("capital_covered", "1 while the quote is there.", _condition(status, "CapitalCovered"))
        yield self._gauge("protected", "1 while flat or protected.", _condition(status, "Protected"))
        yield self._gauge("config_applied", "1 while all is in force.", _condition(status, "ConfigApplied"))
        yield self._gauge("config_revision", "Revision that was applied.", status.applied_revision)
        yield self._gauge("grant_seconds", "Seconds left of the grant.", status.grant.expires_in_seconds)
        yield self._gauge("grant_required", "1 where an operator's grant is needed for entries.", extra.grant_required)
        yield self._gauge("incarnation", "Number of this process start.", status.incarnation)

    def _money(self, status: BotStatus, extra: Extra) -> Iterator[Metric]:
        position, pnl, risk, balance = status.position, status.pnl, status.risk, status.balance
        yield self._gauge("position_quantity", "Base asset held.", position.quantity if position else None)
        yield self._gauge("position_value", "Position at the best bid, in quote.", position.value if position else None)
        average = position.average_price if position else None
        yield self._gauge("position_average_price", "What a unit held cost on average, in quote.", average)
        validated = position.validated if position else None
        yield self._gauge("position_validated", "1 while the position agrees with the account.", validated)
        yield self._gauge("pnl_realized", "Realised after fees, in quote.", pnl.realized if pnl else None)
        yield self._gauge("pnl_unrealized", "At the best bid, in quote.", pnl.unrealized if pnl else None)
        yield self._gauge("pnl", "Realised and unrealised, in quote.", pnl.total if pnl else None)
        fees = CounterMetricFamily("tradingbot_fees", "Fees paid, by asset.", labels=["symbol", "asset"])
        for asset, amount in sorted((pnl.fees if pnl else {}).items()):
            fees.add_metric([self._symbol, asset], float(amount))
        yield fees
        yield self._gauge("equity", "Capital with profit and loss, in quote.", extra.equity)
        yield self._gauge("daily_loss", "Loss since 00:00 UTC, in quote.", extra.daily_loss)
        yield self._gauge("daily_loss_limit", "Daily loss at which entries end, in quote.", extra.daily_loss_limit)
        yield self._gauge("drawdown_limit", "Drawdown at which entries end, a ratio.", extra.drawdown_limit)
        yield self._gauge("drawdown", "Fall from the peak equity, a ratio.", risk.drawdown if risk else None)
        yield self._gauge("drawdown_max", "Largest fall so far, a ratio.", pnl.max_drawdown if pnl else None)
        yield self._gauge("sharpe", "Sharpe ratio of closed trades.", pnl.sharpe if pnl else None)
        overshoot = risk.daily_loss_overshoot or 0 if risk else None
        yield self._gauge("daily_loss_overshoot", "The day's loss past its limit, in quote.", overshoot)
        overshoot = risk.drawdown_overshoot or 0 if risk else None
        yield self._gauge("drawdown_overshoot", "Drawdown past its limit, a ratio.", overshoot)
        yield self._gauge("volatility", "Deviation of the last returns.", risk.volatility if risk else None)
        level = GaugeMetricFamily("tradingbot_risk_level", "1 for the present level.", labels=["symbol", "level"])
        if risk is not None:
            for name in RiskLevel:
                level.add_metric([self._symbol, name], float(risk.level == name))
        yield level
        synced = balance.last_sync_time.timestamp() if balance and balance.last_sync_time else None
        yield self._gauge("balance_sync_timestamp_seconds", "When account and books were last compared.", synced)
        claimed = status.quote_claim.claimed if status.quote_claim else None
        yield self._gauge("capital_claimed", "Quote that capital less position and losses needs.", claimed)
        yield self._gauge("balance_drift", "Account base less position.", balance.drift if balance else None)
        yield self._gauge("balance_base", "Base asset of the account.", balance.base if balance else None)
        yield self._gauge("balance_quote", "Quote asset of the account.", balance.quote if balance else None)

    def _orders(self, status: BotStatus, extra: Extra) -> Iterator[Metric]:
        orders, trades = status.orders, status.trades
        yield self._gauge("orders_active", "Open orders.", orders.active if orders else None)
        yield self._gauge("order_lists_active", "Open order lists.", orders.oco if orders else None)
        checked = orders.last_check_time.timestamp() if orders and orders.last_check_time else None
        yield self._gauge("order_check_timestamp_seconds", "When the open orders were last read.", checked)
        yield self._gauge("foreign_orders", "Open orders of others on the symbol.", orders.foreign if orders else None)
        yield self._counter("trades", "Closed round trips.", trades.total if trades else None)
        yield self._counter("trades_successful", "Round trips with a profit.", trades.successful if trades else None)
        yield self._counter("trades_failed", "Round trips without a profit.", trades.failed if trades else None)
        yield self._gauge("win_rate", "Trades with a profit, a ratio.", trades.win_rate if trades else None)
        factor = trades.profit_factor if trades else None
        yield self._gauge("profit_factor", "Profits over losses of closed trades.", factor)
        yield self._counter("position_seconds", "Seconds with a position.", extra.position_seconds)
        yield self._gauge("time_in_market_ratio", "Share of the time with a position.", extra.time_in_market)
        yield self._counter("unprotected_seconds", "Seconds without protection.", status.unprotected_seconds)
        gap = extra.unprotected_now_seconds
        yield self._gauge("unprotected_now_seconds", "How long the position has been without protection.", gap)
        deadline = extra.protection_deadline_seconds
        yield self._gauge("protection_deadline_seconds", "How long it may be, until the position is sold.", deadline)

    def _exchange(self, status: BotStatus, extra: Extra) -> Iterator[Metric]:
        api = status.api
        yield self._counter("api_calls", "Requests to the exchange.", api.calls if api else None)
        yield self._counter("api_errors", "Requests that failed.", api.errors if api else None)
        yield self._gauge("api_used_weight", "Weight of the last minute, by the exchange.", extra.used_weight)
        yield self._gauge("api_weight_limit", "Weight that the exchange allows in a minute.", extra.weight_limit)
        used = GaugeMetricFamily(
            "tradingbot_account_orders",
            "Unfilled new orders of the account in the exchange's interval of now, as far as this bot was told.",
            labels=["symbol", "interval"],
        )
        most = GaugeMetricFamily(
            "tradingbot_account_orders_limit",
            "New orders that the exchange allows an account in an interval.",
            labels=["symbol", "interval"],
        )
        for count in status.order_use.counts if status.order_use else []:
            used.add_metric([self._symbol, count.interval], count.used)
            most.add_metric([self._symbol, count.interval], count.limit)
        yield used
        yield most
        ends = extra.exchange_wait_end
        text = "Until when the exchange wants no requests (429, 418); there only while it does."
        yield self._gauge("exchange_wait_end_timestamp_seconds", text, ends)
        offset = extra.clock_offset_seconds
        yield self._gauge("clock_offset_seconds", "The exchange's clock less this machine's.", offset)
        work = GaugeMetricFamily(
            "tradingbot_task_age_seconds", "How long a task has been at one piece of work.", labels=["symbol", "task"]
        )
        for name, seconds in sorted(extra.task_ages.items()):
            work.add_metric([self._symbol, name], seconds)
        yield work
        ages = GaugeMetricFamily(
            "tradingbot_stream_age_seconds", "Seconds since the last word.", labels=["symbol", "stream"]
        )
        for name, age in sorted(extra.stream_ages.items()):
            if age is not None:
                ages.add_metric([self._symbol, name], age)
        yield ages
        lag = extra.loop_lag_seconds
        yield self._gauge("loop_lag_seconds", "How late the event loop was at most in the last minute.", lag)


def _condition(status: BotStatus, kind: str) -> bool | None:
    for condition in status.conditions:
        if condition.type == kind and condition.status != "Unknown":
            return condition.status == "True"
    return None
