"""What outlives a connection to the exchange, handed to all that works on one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tradingbot.gateway.connection_limits import ConnectionBudget
from tradingbot.gateway.order_limits import OrderBudget
from tradingbot.gateway.rate_limits import WeightBudget
from tradingbot.monitoring.flight_recorder import FlightRecorder
from tradingbot.monitoring.metrics import Metrics
from tradingbot.orders.protection import UnprotectedTime
from tradingbot.recovery.circuit_breaker import BreakerPanel
from tradingbot.recovery.reservation import ReservationKeeper
from tradingbot.recovery.safe_mode import SafeMode
from tradingbot.risk.risk_manager import RiskManager
from tradingbot.state.store import Store
from tradingbot_api.v1alpha1 import BotSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """What outlives a connection and every session works with."""

    store: Store
    safe_mode: SafeMode
    panel: BreakerPanel
    budget: WeightBudget
    connections: ConnectionBudget
    orders: OrderBudget
    risk: RiskManager
    reservations: ReservationKeeper
    recorder: FlightRecorder | None
    unprotected: UnprotectedTime
    metrics: Metrics
    settings: Callable[[], BotSettings]
    strategy_usable: Callable[[], bool]
    forbidden: Callable[[], str | None]
    """Why no entry may be sent, seen from outside of the session; asked again right before the send."""
    proven: Callable[[], bool]
    """Whether this process was granted its account and symbol once; true without an operator."""
    changed: Callable[[], None]
    tell: Callable[[str, dict[str, Any]], None]
    monotonic: Callable[[], float]
    random: Random

    def note(self, what: str, **figures: Any) -> None:
        """Into the flight recorder, where there is one."""
        if self.recorder is not None:
            self.recorder.note(what, **figures)
