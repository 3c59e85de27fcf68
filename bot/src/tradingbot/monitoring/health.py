"""The health checker: turns what the bot knows of itself into conditions and readiness; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tradingbot.orders.types import ProtectionState, ProtectionStatus
from tradingbot.recovery.circuit_breaker import BreakerSnapshot, BreakerState
from tradingbot.recovery.safe_mode import Cause
from tradingbot.state.balance_reconciler import Verdict, VerdictKind
from tradingbot.state.position_validator import Correction
from tradingbot_api import names
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.v1alpha1 import Condition

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

UNREADY_AFTER_SECONDS: Final = 15.0
"""What makes a connected bot unready lasts for so long before it is told: a reconnect takes less."""
VERDICT_LIFE_SECONDS: Final = 180.0
"""The books count as compared for three periods of the reconciliation."""
ORDERS_LIFE_SECONDS: Final = VERDICT_LIFE_SECONDS
"""What is open at the exchange is known for as long."""
ADVICE: Final = {
    Correction.NONE: "",
    Correction.LEAVE_DUST: "",
    Correction.PROTECT: "",
    Correction.RECONCILE: "; the account is compared again",
    Correction.ADOPT: f"; put it back, or take the account's word: annotate {names.CLEAR_ANNOTATION}=untrusted-books",
}
"""What is said of a suggested correction; the bot makes those without a word itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not as it should be, and what to do."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions are made of; None where the bot does not know (yet)."""

    config_problem: Problem | None
    loosened: tuple[str, ...]
    connection_problem: Problem | None
    connected: bool
    verdict: Verdict | None
    verdict_age: float | None
    correction: Correction
    capital_problem: Problem | None
    breaker: BreakerSnapshot
    protection: ProtectionStatus | None
    orders_age: float | None
    """Seconds since open orders were last read."""
    causes: Sequence[Cause]
    trading_problem: Problem | None
    stream_problem: Problem | None


def not_ready(facts: Facts) -> str | None:
    """Why the bot is not reconciled with the exchange, or None."""
    if facts.connection_problem is not None:
        return f"{facts.connection_problem.reason}: {facts.connection_problem.message}"
    if not facts.connected or facts.verdict is None:
        return "not reconciled with the exchange yet"
    return None


def unwell(facts: Facts) -> str | None:
    """Why a reconciled bot neither sees nor reaches the exchange now, or None."""
    if facts.stream_problem is not None:
        return f"{facts.stream_problem.reason}: {facts.stream_problem.message}"
    if (circuit := _circuit_closed(facts)).status == FALSE:
        return f"{circuit.reason}: {circuit.message}"
    if (synced := _balance_synced(facts)).status == UNKNOWN:
        return f"{synced.reason}: {synced.message}"
    return None


class Lasting:
    """Tells of a problem only once there was one all the time for `seconds`; look at it often."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._since: float | None = None

    def look(self, problem: str | None) -> str | None:
        """The problem of now, where it lasts."""
        if problem is None:
            self._since = None
            return None
        now = self._monotonic()
        self._since = now if self._since is None else self._since
        return problem if now - self._since >= self._seconds else None


def judge(facts: Facts) -> list[Condition]:
    """The bot's conditions, without times."""
    return [
        _config_applied(facts),
        _balance_synced(facts),
        _capital_covered(facts),
        _circuit_closed(facts),
        _protected(facts),
        _trading_allowed(facts),
    ]


def _condition(kind: ConditionType, status: str, reason: Reason, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)


def _config_applied(facts: Facts) -> Condition:
    kind = ConditionType.CONFIG_APPLIED
    if facts.config_problem is not None:
        return _condition(kind, FALSE, facts.config_problem.reason, facts.config_problem.message)
    if facts.loosened:
        text = f"not in force: {', '.join(facts.loosened)}; limits are loosened only in safe mode: set spec.safeMode"
        return _condition(kind, FALSE, Reason.LOOSENING_NEEDS_SAFE_MODE, f"{text} to true, and back after")
    return _condition(kind, TRUE, Reason.OK)


def _balance_synced(facts: Facts) -> Condition:
    kind = ConditionType.BALANCE_SYNCED
    if facts.connection_problem is not None:
        return _condition(kind, FALSE, facts.connection_problem.reason, facts.connection_problem.message)
    verdict, age = facts.verdict, facts.verdict_age
    if verdict is None or age is None:
        return _condition(kind, UNKNOWN, Reason.NOT_RECONCILED, "the account was not compared with the books yet")
    if age > VERDICT_LIFE_SECONDS:
        return _condition(kind, UNKNOWN, Reason.NOT_RECONCILED, "the account could not be read for three minutes")
    if verdict.kind is VerdictKind.DRIFT:
        return _condition(kind, FALSE, Reason.DRIFT, f"{verdict.message}{ADVICE[facts.correction]}")
    reason = Reason.EXACT if verdict.kind is VerdictKind.EXACT else Reason.COVERED
    return _condition(kind, TRUE, reason, verdict.message)


def _capital_covered(facts: Facts) -> Condition:
    kind = ConditionType.CAPITAL_COVERED
    if facts.verdict is None:
        return _condition(kind, UNKNOWN, Reason.NOT_RECONCILED)
    if facts.capital_problem is not None:
        return _condition(kind, FALSE, facts.capital_problem.reason, facts.capital_problem.message)
    return _condition(kind, TRUE, Reason.OK)


def _circuit_closed(facts: Facts) -> Condition:
    kind, breaker = ConditionType.CIRCUIT_CLOSED, facts.breaker
    if breaker.state is BreakerState.CLOSED:
        return _condition(kind, TRUE, Reason.OK)
    if breaker.state is BreakerState.HALF_OPEN:
        return _condition(kind, FALSE, Reason.CIRCUIT_HALF_OPEN, "one call probes the exchange")
    return _condition(kind, FALSE, Reason.CIRCUIT_OPEN, f"the exchange failed {breaker.failures} times in a row")


def _protected(facts: Facts) -> Condition:
    kind, protection = ConditionType.PROTECTED, facts.protection
    if protection is None:
        return _condition(kind, UNKNOWN, Reason.NOT_RECONCILED)
    if facts.orders_age is None or facts.orders_age > ORDERS_LIFE_SECONDS:
        return _condition(kind, UNKNOWN, Reason.NOT_RECONCILED, "the open orders could not be read for three minutes")
    if protection.state is ProtectionState.FLAT:
        return _condition(kind, TRUE, Reason.FLAT)
    if protection.state is ProtectionState.PROTECTED:
        return _condition(kind, TRUE, Reason.PROTECTED, protection.message)
    return _condition(kind, FALSE, Reason.UNPROTECTED, protection.message)


def _trading_allowed(facts: Facts) -> Condition:
    kind = ConditionType.TRADING_ALLOWED
    if not_ready(facts) is not None:
        reason = facts.connection_problem.reason if facts.connection_problem else Reason.STARTING
        return _condition(kind, FALSE, reason, not_ready(facts) or "")
    if facts.causes:
        strictest = facts.causes[0]
        text = f"safe mode is engaged, {strictest.clears}"
        return _condition(kind, FALSE, strictest.reason, text)
    if facts.trading_problem is not None:
        return _condition(kind, FALSE, facts.trading_problem.reason, facts.trading_problem.message)
    return _condition(kind, TRUE, Reason.OK)


class ConditionClock:
    """Remembers since when each condition has its status."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, datetime]] = {}

    def stamp(self, conditions: Sequence[Condition], now: datetime) -> list[Condition]:
        """The conditions with their times of transition."""
        stamped = []
        for condition in conditions:
            status, since = self._since.get(condition.type, ("", now))
            if status != condition.status:
                since = now
                self._since[condition.type] = (condition.status, now)
            stamped.append(condition.model_copy(update={"last_transition_time": since}))
        return stamped
