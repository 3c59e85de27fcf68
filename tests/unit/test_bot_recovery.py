"""Promises of the circuit breaker, the retries and safe mode."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.app import Care, backoff
from tradingbot.gateway.errors import AmbiguousError, RateLimitedError, RejectedError, TooManyOrdersError
from tradingbot.gateway.port import EndpointClass
from tradingbot.recovery.circuit_breaker import BreakerPanel, BreakerState, CircuitBreaker, CircuitOpenError, Pace
from tradingbot.recovery.retry import full_jitter, retry_read, retryable

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """A clock that tests move."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

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


async def test_an_open_circuit_opens_for_no_longer_by_what_passes_it_and_tells_when_it_opened_and_closed() -> None:
    clock = Clock(10)
    circuit = breaker(clock)
    closed = circuit.snapshot()
    assert (closed.state, closed.failures, closed.since, closed.next_probe) == (BreakerState.CLOSED, 0, None, None)
    assert circuit.to_json() == {"failures": 0, "openSince": None}
    for _ in range(4):
        circuit.record_failure()
    assert circuit.snapshot().since is None
    circuit.record_failure()
    clock.seconds = 100
    for _ in range(2):
        with pytest.raises(AmbiguousError):
            await circuit.call(failing(AmbiguousError("503")), must_pass=True)
    assert await circuit.call(answers, must_pass=True) == "ok"
    opened, probe = START + timedelta(seconds=10), START + timedelta(seconds=310)
    shown = circuit.snapshot()
    assert (shown.state, shown.failures, shown.since, shown.next_probe) == (BreakerState.OPEN, 5, opened, probe)
    clock.seconds = 309.5
    assert circuit.is_open()
    with pytest.raises(CircuitOpenError) as refused:
        await circuit.call(answers)
    assert str(refused.value) == "CircuitOpen: circuit test is open, no call was sent; next probe in 0 s"
    assert refused.value.seconds_left == 0.5
    clock.seconds = 310
    assert not circuit.is_open()
    assert circuit.snapshot().next_probe == START + timedelta(seconds=310)
    assert await circuit.call(answers) == "ok"
    closed = circuit.snapshot()
    assert (closed.state, closed.failures, closed.since) == (BreakerState.CLOSED, 0, START + timedelta(seconds=310))
    assert circuit.to_json() == {"failures": 0, "openSince": None}
    clock.seconds = 320
    assert await circuit.call(answers) == "ok"
    assert circuit.snapshot().since == START + timedelta(seconds=310)


async def test_one_at_a_time_probes_and_an_ended_probe_makes_room_for_the_next() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(5):
        circuit.record_failure()
    clock.seconds = 300

    async def cancelled() -> str:
        assert circuit.is_open()
        assert await circuit.call(answers, must_pass=True) == "ok"
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await circuit.call(cancelled)
    assert circuit.snapshot().state is BreakerState.CLOSED, "what passed meanwhile was answered"
    for _ in range(5):
        circuit.record_failure()
    clock.seconds = 600

    async def ended() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await circuit.call(ended)
    assert circuit.snapshot().state is BreakerState.HALF_OPEN, "who gave up says nothing of the exchange"
    assert not circuit.is_open()


@pytest.mark.parametrize("age", [-5.0, 100.0, 299.0, 300.0, 9000.0])
def test_a_restored_circuit_waits_for_what_is_left_by_the_wall_clock_and_never_longer_than_a_whole_time(
    age: float,
) -> None:
    clock = Clock(7)
    circuit = breaker(clock)
    circuit.restore({"failures": 6, "openSince": (clock.wall() - timedelta(seconds=age)).isoformat()})
    shown = circuit.snapshot()
    left = 300 - min(max(age, 0), 300)
    assert shown.failures == 6
    assert shown.since == clock.wall() - timedelta(seconds=age)
    assert shown.next_probe == clock.wall() + timedelta(seconds=left)
    assert circuit.is_open() is (left > 0)
    assert shown.state is (BreakerState.OPEN if left else BreakerState.HALF_OPEN)


def test_failures_that_opened_nothing_yet_are_counted_on_after_a_restart() -> None:
    circuit, again = breaker(Clock()), breaker(Clock())
    for _ in range(4):
        circuit.record_failure()
    assert circuit.to_json() == {"failures": 4, "openSince": None}
    again.restore(circuit.to_json())
    assert not again.is_open()
    again.record_failure()
    assert again.is_open()
    for nothing in ({}, {"failures": None, "openSince": None}):
        fresh = breaker(Clock())
        fresh.restore(nothing)
        assert fresh.snapshot().failures == 0


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
    assert panel.pace is Pace.TRADING
    with pytest.raises(CircuitOpenError, match="circuit order is open"):
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

    assert await retry_read(read, retryable=retryable, rng=random.Random(1), base=0.001) == "ok"
    tries = -9
    with pytest.raises(AmbiguousError, match="timeout"):
        await retry_read(read, retryable=retryable, rng=random.Random(1), base=0.001)
    assert tries == -6


@pytest.mark.parametrize("error", [RejectedError("no"), CircuitOpenError("order", 7), OSError("disk")])
async def test_what_another_try_would_not_mend_is_told_at_once(error: Exception) -> None:
    # No wait is ever drawn: a generator of random numbers that there is not would say so.
    with pytest.raises(type(error)):
        await retry_read(failing(error), retryable=retryable, rng=cast(random.Random, None))


class Longest(random.Random):
    """Draws the greatest number each time, and notes between what it was asked to draw."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return b


def test_the_wait_before_a_retry_doubles_up_to_a_bound_and_has_full_jitter() -> None:
    rng = Longest()
    assert [full_jitter(attempt, 0.2, 2.0, rng) for attempt in (1, 2, 3, 4, 5, 5000)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert {low for low, _ in rng.asked} == {0}


async def test_a_read_waits_a_fifth_of_a_second_and_twice_that_between_its_three_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(AmbiguousError):
        await retry_read(failing(AmbiguousError("timeout")), retryable=retryable, rng=Longest())
    assert waits == [0.2, 0.4]
    waits.clear()
    with pytest.raises(AmbiguousError):
        await retry_read(failing(AmbiguousError("timeout")), retryable=retryable, rng=Longest(), attempts=7)
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


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


async def test_a_wait_of_ones_own_and_that_of_others_are_told_on_as_they_were_told() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    told = START + timedelta(seconds=300)  # by a clock that is far from ours
    panel.wait_with_others(told, 30)
    assert (panel.demanded_until, panel.wait_seconds()) == (told, 30)
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.REDUCE, answers)
    clock.seconds = 30
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.MARKET, failing(RateLimitedError("429", retry_after=400)))
    assert panel.demanded_until == START + timedelta(seconds=430)
    panel.wait_with_others(told, 20)
    assert (panel.demanded_until, panel.wait_seconds()) == (START + timedelta(seconds=430), 400), (
        "the longer one stands"
    )


async def test_orders_that_are_too_many_for_an_account_are_its_own_affair() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    with pytest.raises(RateLimitedError):
        await panel.call(EndpointClass.ORDER, failing(TooManyOrdersError("429", retry_after=10, api_code=-1015)))
    assert (panel.demanded_until, panel.wait_seconds(), panel.snapshot().failures) == (None, 0, 0)


async def test_after_a_wait_of_the_address_what_reduces_risk_goes_at_once_and_the_rest_in_its_turn() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.wait_with_others(START + timedelta(seconds=30), 30, 12.5)
    clock.seconds = 29
    with pytest.raises(CircuitOpenError):
        await panel.call(EndpointClass.REDUCE, answers)
    clock.seconds = 30
    assert await panel.call(EndpointClass.REDUCE, answers) == "ok"
    for kind in (EndpointClass.MARKET, EndpointClass.ACCOUNT, EndpointClass.ORDER):
        with pytest.raises(CircuitOpenError):
            await panel.call(kind, answers)
    clock.seconds = 42.5
    assert await panel.call(EndpointClass.MARKET, answers) == "ok"


def test_the_next_process_keeps_the_wait_and_its_turn() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.wait_with_others(START + timedelta(seconds=30), 30, 12.5)
    clock.seconds = 10
    again = BreakerPanel(clock.monotonic, clock.wall)
    again.restore(panel.to_json())
    assert again.wait_seconds() == 20 + 13
    assert again.demanded_until == START + timedelta(seconds=30)


def test_the_panel_shows_its_worst_circuit_and_a_demanded_wait_before_it() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    assert panel.breakers.keys() == {EndpointClass.MARKET, EndpointClass.ACCOUNT, EndpointClass.ORDER}
    market, account, order = (panel.breakers[kind] for kind in panel.breakers)
    assert not panel.is_open()
    for _ in range(2):
        order.record_failure()
    account.record_failure()
    assert panel.snapshot() == order.snapshot(), "of closed ones the one with more failures"
    assert not panel.is_open()
    clock.seconds = 1
    for _ in range(5):
        market.record_failure()
    assert panel.snapshot() == market.snapshot()
    clock.seconds = 301
    assert panel.half_open() == [EndpointClass.MARKET]
    for _ in range(9):
        account.record_failure()
    assert panel.snapshot() == account.snapshot(), "open is worse than half open"
    assert panel.half_open() == [EndpointClass.MARKET]
    market.record_success()
    account.restore({"failures": 3})
    account.restore(CircuitBreaker("x", monotonic=clock.monotonic, wall=clock.wall).to_json())
    panel.wait_with_others(START, 20)
    shown = panel.snapshot()
    assert shown.state is BreakerState.OPEN
    assert shown.next_probe == START + timedelta(seconds=321)


async def test_a_demanded_wait_is_shown_with_the_failures_that_there_are_and_ends_to_the_second() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    for _ in range(5):
        panel.breakers[EndpointClass.MARKET].record_failure()
    clock.seconds = 2
    panel.demand(9)
    shown = panel.snapshot()
    assert (shown.state, shown.failures, shown.since, shown.next_probe) == (
        BreakerState.OPEN, 5, START, START + timedelta(seconds=11),
    )  # fmt: skip
    clock.seconds = 10.5
    assert panel.wait_seconds() == 0.5
    with pytest.raises(CircuitOpenError) as refused:
        await panel.call(EndpointClass.REDUCE, answers)
    assert "circuit retry-after is open" in str(refused.value)
    assert panel.snapshot().next_probe == START + timedelta(seconds=11)
    clock.seconds = 11
    assert panel.wait_seconds() == 0
    assert await panel.call(EndpointClass.REDUCE, answers) == "ok"
    assert panel.snapshot() == panel.breakers[EndpointClass.MARKET].snapshot()
    clock.seconds = 50
    assert panel.wait_seconds() == 0


def test_of_two_demanded_waits_the_one_that_ends_later_stands() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.demand(30)
    clock.seconds = 5
    panel.demand(7)
    assert (panel.wait_seconds(), panel.demanded_until) == (25, START + timedelta(seconds=30))
    assert panel.to_json()["retry-after"] == {"until": (START + timedelta(seconds=30)).isoformat(), "turn": 0}
    panel.demand(60)
    assert (panel.wait_seconds(), panel.demanded_until) == (60, START + timedelta(seconds=65))
    assert panel.to_json()["retry-after"] == {"until": (START + timedelta(seconds=65)).isoformat(), "turn": 0}


async def test_settings_that_change_hold_for_all_circuits_and_open_none() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.configure(2, 30.0)
    await fail_often(panel, 1)
    assert not panel.is_open()
    await fail_often(panel, 1)
    assert panel.snapshot().next_probe == START + timedelta(seconds=30)
    assert {(item.failure_threshold, item.recovery_timeout) for item in panel.breakers.values()} == {(2, 30.0)}


def test_a_panel_without_a_wait_saves_none_and_restores_the_classes_that_it_knows() -> None:
    clock = Clock()
    panel = BreakerPanel(clock.monotonic, clock.wall)
    panel.breakers[EndpointClass.ORDER].record_failure()
    saved = panel.to_json()
    assert saved.keys() == {"market", "account", "order"}
    again = BreakerPanel(clock.monotonic, clock.wall)
    again.restore({"order": saved["order"], "moon": saved["order"]})
    assert again.to_json() == saved
    assert again.wait_seconds() == 0
