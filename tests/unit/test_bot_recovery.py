"""Promises of the circuit breaker, the retries and safe mode."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.app import Care, backoff
from tradingbot.gateway.errors import AmbiguousError, RateLimitedError, RejectedError
from tradingbot.gateway.port import EndpointClass
from tradingbot.recovery.circuit_breaker import BreakerPanel, BreakerState, CircuitBreaker, CircuitOpenError, Pace
from tradingbot.recovery.retry import full_jitter, retry_read

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


async def answers() -> str:
    return "ok"


def failing(error: Exception) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        raise error

    return call


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("test", monotonic=clock.monotonic, wall=clock.wall)


async def test_five_failures_in_a_row_open_the_circuit_for_300_seconds() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(4):
        circuit.record_failure()
    circuit.record_success()
    for _ in range(5):
        assert not circuit.is_open()
        with pytest.raises(AmbiguousError):
            await circuit.call(failing(AmbiguousError("503")))
    assert circuit.is_open()
    with pytest.raises(CircuitOpenError, match="next probe in 300 s"):
        await circuit.call(answers)
    clock.seconds = 299.9
    assert circuit.snapshot().state is BreakerState.OPEN
    clock.seconds = 300
    assert circuit.snapshot().state is BreakerState.HALF_OPEN
    assert await circuit.call(answers) == "ok"
    assert circuit.snapshot().state is BreakerState.CLOSED


async def test_half_open_lets_one_probe_through_and_a_failed_one_opens_again() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(5):
        circuit.record_failure()
    clock.seconds = 300

    async def probe() -> str:
        with pytest.raises(CircuitOpenError):
            await circuit.call(answers)
        raise AmbiguousError("503")

    with pytest.raises(AmbiguousError):
        await circuit.call(probe)
    assert circuit.snapshot().state is BreakerState.OPEN
    assert circuit.snapshot().next_probe == START + timedelta(seconds=600)


async def test_a_refusal_by_the_exchange_is_no_failure() -> None:
    circuit = breaker(Clock())
    for _ in range(10):
        with pytest.raises(RejectedError):
            await circuit.call(failing(RejectedError("insufficient balance", api_code=-2010)))
    assert circuit.snapshot().state is BreakerState.CLOSED


async def test_what_reduces_risk_passes_an_open_circuit_but_not_a_ban() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    for _ in range(5):
        with pytest.raises(AmbiguousError):
            await panel.call(EndpointClass.ORDER, failing(AmbiguousError("503")))
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.ORDER, answers)
    assert await panel.call(EndpointClass.REDUCE, answers) == "ok"
    assert await panel.call(EndpointClass.MARKET, answers) == "ok"
    assert panel.snapshot().state is BreakerState.OPEN
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.MARKET, failing(RateLimitedError("429", retry_after=7)))
    with pytest.raises(CircuitOpenError, match="retry-after"):
        await panel.call(EndpointClass.REDUCE, answers)
    clock.seconds = 7
    assert await panel.call(EndpointClass.REDUCE, answers) == "ok"


def test_an_open_circuit_stays_open_over_a_restart_for_what_is_left() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    for _ in range(5):
        panel.breakers[EndpointClass.MARKET].record_failure()
    saved = panel.to_json()
    clock.seconds = 100
    again = BreakerPanel(clock.monotonic, clock.wall)
    again.restore(saved)
    assert again.snapshot().state is BreakerState.OPEN
    assert again.snapshot().next_probe == START + timedelta(seconds=300)
    clock.seconds = 300
    assert again.half_open() == [EndpointClass.MARKET]


async def test_a_demanded_wait_is_kept_over_a_restart() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.MARKET, failing(RateLimitedError("418", retry_after=600)))
    saved = json.loads(json.dumps(panel.to_json()))
    clock.seconds = 100
    again = BreakerPanel(clock.monotonic, clock.wall)
    again.restore(saved)
    assert again.to_json() == saved
    with pytest.raises(CircuitOpenError, match="next probe in 500 s"):
        await again.call(EndpointClass.REDUCE, answers)
    clock.seconds = 600
    assert await again.call(EndpointClass.REDUCE, answers) == "ok"


async def test_a_read_is_tried_again_and_the_last_error_is_told() -> None:
    tries = 0

    async def read() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise AmbiguousError("timeout")
        return "ok"

    def retryable(error: BaseException) -> bool:
        return isinstance(error, AmbiguousError)

    assert await retry_read(read, retryable=retryable, rng=random.Random(1), base=0.001) == "ok"
    with pytest.raises(RejectedError):
        await retry_read(failing(RejectedError("no")), retryable=retryable, rng=random.Random(1), base=0.001)


def test_the_wait_before_a_retry_has_full_jitter_and_a_bound() -> None:
    rng = random.Random(7)
    waits = [full_jitter(attempt, 0.2, 2.0, rng) for attempt in range(1, 200)]
    assert all(0 <= wait <= 2.0 for wait in waits)
    assert min(waits[10:]) < 0.2
    assert max(waits) > 1.8


async def fail_often(panel: BreakerPanel, times: int = 20) -> None:
    for _ in range(times):
        with pytest.raises(AmbiguousError):
            await panel.call(EndpointClass.ACCOUNT, failing(AmbiguousError("503")))


async def test_connecting_opens_no_circuit_and_is_refused_by_an_open_one() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.pace = Pace.CONNECTING
    await fail_often(panel)
    assert not panel.is_open()
    panel.pace = Pace.TRADING
    await fail_often(panel, 5)
    panel.pace = Pace.CONNECTING
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.ACCOUNT, answers)
    clock.seconds = 300
    await fail_often(panel, 1)
    assert panel.snapshot().state is BreakerState.OPEN, "a failed probe counts whoever sent it"
    clock.seconds = 600
    assert await panel.call(EndpointClass.ACCOUNT, answers) == "ok"
    assert not panel.is_open()


async def test_an_open_circuit_lets_connecting_pass_where_a_position_may_be_naked_but_no_ban_does() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    await fail_often(panel, 5)
    panel.pace = Pace.PROTECTING
    assert await panel.call(EndpointClass.ACCOUNT, answers) == "ok"
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.ACCOUNT, failing(RateLimitedError("418", retry_after=9)))
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.ACCOUNT, answers)


@given(st.sampled_from(Care), st.integers(1, 500), st.floats(0, 1e6), st.integers())
def test_the_next_connection_comes_soon_where_a_position_is_naked_and_never_within_a_ban(
    care: Care, attempt: int, demanded: float, seed: int
) -> None:
    wait = backoff(care, attempt, demanded, random.Random(seed))
    assert wait >= demanded
    assert wait <= demanded + care.value
    assert wait > 0.1


def test_bots_of_one_address_come_back_from_a_ban_at_different_times() -> None:
    waits = {round(backoff(Care.NOTHING, 1, 120, random.Random(seed))) for seed in range(50)}
    assert len(waits) > 20


async def test_a_wait_of_ones_own_is_told_on_and_that_of_others_is_only_kept() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.wait_with_others(30)
    assert panel.own_wait_ends is None
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.REDUCE, answers)
    clock.seconds = 30
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.MARKET, failing(RateLimitedError("429", retry_after=7)))
    assert panel.own_wait_ends == START + timedelta(seconds=37)
    panel.wait_with_others(60)
    assert panel.own_wait_ends == START + timedelta(seconds=37)
    assert panel.wait_seconds() == 60
