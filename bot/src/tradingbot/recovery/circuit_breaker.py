"""The circuit breaker around the exchange: stops calling what fails, and probes it with one call."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from tradingbot.gateway.errors import ExchangeError, NotSentError, RateLimitedError, TooManyOrdersError
from tradingbot.gateway.port import EndpointClass

T = TypeVar("T")


class BreakerState(StrEnum):
    """CLOSED lets calls pass, OPEN refuses them, HALF_OPEN lets one probe pass."""

    CLOSED = "Closed"
    HALF_OPEN = "HalfOpen"
    OPEN = "Open"


class CircuitOpenError(NotSentError):
    """The call was not sent, because the exchange failed too often or asked to wait."""

    code = "CircuitOpen"

    def __init__(self, name: str, seconds_left: float) -> None:
        self.seconds_left = seconds_left
        super().__init__(f"circuit {name} is open, no call was sent; next probe in {seconds_left:.0f} s")


def counts_as_failure(error: BaseException) -> bool:
    """Whether an error speaks against the exchange rather than against the request."""
    return isinstance(error, ExchangeError) and error.counts_as_failure


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """The state for the status and the store."""

    state: BreakerState
    failures: int
    since: datetime | None
    next_probe: datetime | None


class CircuitBreaker:
    """One circuit. `failure_threshold` consecutive failures open it for `recovery_timeout` seconds.

    Durations are measured on the `monotonic` clock; `wall` only dates the state and carries it over a restart.
    """

    def __init__(
        self,
        name: str,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], datetime],
        failure_threshold: int = 5,
        recovery_timeout: float = 300.0,
        is_failure: Callable[[BaseException], bool] = counts_as_failure,
    ) -> None:
        self.name = name
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self._monotonic = monotonic
        self._wall = wall
        self._is_failure = is_failure
        self._failures = 0
        self._opened_at: float | None = None
        self._since: datetime | None = None
        self._probing = False

    def is_open(self) -> bool:
        """Whether a call would be refused now."""
        if self._opened_at is None:
            return False
        return self._probing or self._seconds_left() > 0

    @property
    def state(self) -> BreakerState:
        """Present state; OPEN becomes HALF_OPEN by the passing of time alone."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._seconds_left() > 0 else BreakerState.HALF_OPEN

    def _seconds_left(self) -> float:
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self.recovery_timeout - self._monotonic())

    def record_success(self) -> None:
        """The exchange answered: close the circuit, unless it is open and this was no probe."""
        if self.state is BreakerState.OPEN:
            return
        if self._opened_at is not None:
            self._since = self._wall()
        self._opened_at = None
        self._failures = 0

    def record_failure(self) -> None:
        """The exchange failed: count it, and open the circuit at the threshold or after a failed probe."""
        state = self.state
        if state is BreakerState.OPEN:
            return
        self._failures += 1
        if state is BreakerState.HALF_OPEN or self._failures >= self.failure_threshold:
            self._opened_at = self._monotonic()
            self._since = self._wall()

    async def call(
        self, function: Callable[[], Awaitable[T]], *, must_pass: bool = False, only_probes_count: bool = False
    ) -> T:
        """Await `function` inside the circuit; raises CircuitOpenError without calling where it is open.

        `must_pass` is for what reduces risk (cancel, protect, exit): it is sent even through an open circuit. With
        `only_probes_count` a failure opens no closed circuit.
        """
        if not must_pass and self.is_open():
            raise CircuitOpenError(self.name, self._seconds_left())
        probe = self.state is BreakerState.HALF_OPEN and not must_pass
        if probe:
            self._probing = True
        try:
            result = await function()
        except BaseException as error:
            if self._is_failure(error):
                if probe or not only_probes_count:
                    self.record_failure()
            elif isinstance(error, Exception):
                # A refusal is an answer: the exchange works.
                self.record_success()
            raise
        else:
            self.record_success()
            return result
        finally:
            if probe:
                self._probing = False

    def snapshot(self) -> BreakerSnapshot:
        """The state for the status and the store."""
        left = self._seconds_left()
        next_probe = self._wall() + timedelta(seconds=left) if self._opened_at is not None else None
        return BreakerSnapshot(self.state, self._failures, self._since, next_probe)

    def to_json(self) -> dict[str, str | int | None]:
        """What survives a restart."""
        return {
            "failures": self._failures,
            "openSince": self._since.isoformat() if self._opened_at is not None and self._since else None,
        }

    def restore(self, data: Mapping[str, str | int | None]) -> None:
        """Continue where the former process stopped: an open circuit stays open for what is left of its time."""
        self._failures = int(data.get("failures") or 0)
        since = data.get("openSince")
        if isinstance(since, str):
            self._since = datetime.fromisoformat(since)
            age = max(0.0, (self._wall() - self._since).total_seconds())
            self._opened_at = self._monotonic() - min(age, self.recovery_timeout)


_SEVERITY = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)
_RETRY_AFTER = "retry-after"
_MARKET_CALLS = (EndpointClass.MARKET, EndpointClass.ACCOUNT, EndpointClass.ORDER)


class Pace(StrEnum):
    """What the circuits do."""

    TRADING = "Trading"
    """They refuse, and count failures."""
    CONNECTING = "Connecting"
    """They refuse; failures are those of the connecting, whose back-off paces them."""
    PROTECTING = "Protecting"
    """They let everything pass: a position may be without protection until the bot is connected."""


class BreakerPanel:
    """One circuit for each class of endpoint, and the guard of the gateway in front of them.

    What reduces risk passes an open circuit; nothing passes while the exchange told us to wait (429, 418).
    """

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], datetime]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._wait_until = self._turn_at = float("-inf")
        """The end of the demanded wait, and this bot's turn after it."""
        self.demanded_until: datetime | None = None
        """Until when the exchange told this bot or another of its address to wait, as it is told on: unchanged, so
        that it does not grow as it goes round. A call of the next process within a ban would lengthen it."""
        self.pace = Pace.TRADING
        self.breakers = {kind: CircuitBreaker(kind.value, monotonic=monotonic, wall=wall) for kind in _MARKET_CALLS}

    def configure(self, failure_threshold: int, recovery_timeout: float) -> None:
        """Put other settings in force; counters and open circuits stay."""
        for breaker in self.breakers.values():
            breaker.failure_threshold = failure_threshold
            breaker.recovery_timeout = recovery_timeout

    async def call(self, endpoint: EndpointClass, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call` inside the circuit of its class; raises CircuitOpenError where it was not sent."""
        reduce = endpoint is EndpointClass.REDUCE
        if (left := self._demanded_seconds() if reduce else self.wait_seconds()) > 0:
            raise CircuitOpenError(_RETRY_AFTER, left)
        breaker = self.breakers[EndpointClass.ORDER if reduce else endpoint]
        try:
            if self.pace is Pace.PROTECTING:
                return await call()
            return await breaker.call(call, must_pass=reduce, only_probes_count=self.pace is Pace.CONNECTING)
        except RateLimitedError as error:
            if not isinstance(error, TooManyOrdersError):  # that is of the account, and of entries alone
                self.demand(error.retry_after)
            raise

    def demand(self, seconds: float) -> None:
        """The exchange told us by a 429 or 418 to send nothing for so long; a longer wait of before stands."""
        self.wait_with_others(self._wall() + timedelta(seconds=seconds), seconds)

    def wait_with_others(self, until: datetime, seconds: float, turn: float = 0.0) -> None:
        """It told a bot of our address to wait until `until`, `seconds` from now; our turn is so much later."""
        self.demanded_until = max(until, self.demanded_until or until)
        ends = self._monotonic() + seconds
        self._wait_until = max(self._wait_until, ends)
        self._turn_at = max(self._turn_at, ends + turn)

    def wait_seconds(self) -> float:
        """Seconds until it is our turn after what the exchange demanded; what reduces risk need not wait for that."""
        return max(0.0, self._turn_at - self._monotonic())

    def _demanded_seconds(self) -> float:
        return max(0.0, self._wait_until - self._monotonic())

    def is_open(self) -> bool:
        """Whether any circuit refuses calls or waits for its probe."""
        return self.snapshot().state is not BreakerState.CLOSED

    def half_open(self) -> list[EndpointClass]:
        """The classes that wait for a probe."""
        return [kind for kind, breaker in self.breakers.items() if breaker.state is BreakerState.HALF_OPEN]

    def snapshot(self) -> BreakerSnapshot:
        """The worst of all circuits; a demanded wait counts as open."""
        worst = max(
            (breaker.snapshot() for breaker in self.breakers.values()),
            key=lambda item: (_SEVERITY.index(item.state), item.failures),
        )
        if (left := self.wait_seconds()) > 0:
            now = self._wall()
            return BreakerSnapshot(BreakerState.OPEN, worst.failures, worst.since, now + timedelta(seconds=left))
        return worst

    def to_json(self) -> dict[str, dict[str, str | int | None]]:
        """What survives a restart: by class, and the demanded wait."""
        saved = {kind.value: breaker.to_json() for kind, breaker in self.breakers.items()}
        if self.demanded_until is None:
            return saved
        turn = math.ceil(self._turn_at - self._wait_until)
        return saved | {_RETRY_AFTER: {"until": self.demanded_until.isoformat(), "turn": turn}}

    def restore(self, data: Mapping[str, Mapping[str, str | int | None]]) -> None:
        """The inverse of to_json."""
        for kind, breaker in self.breakers.items():
            if kind.value in data:
                breaker.restore(data[kind.value])
        wait = data.get(_RETRY_AFTER, {})
        if isinstance(until := wait.get("until"), str):
            ends = datetime.fromisoformat(until)
            self.wait_with_others(ends, (ends - self._wall()).total_seconds(), float(wait.get("turn") or 0))
