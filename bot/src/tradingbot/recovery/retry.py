"""Retries of reads with exponential back-off and full jitter; an order is never sent again by this module."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from tradingbot.gateway.errors import ExchangeError

T = TypeVar("T")


def retryable(error: BaseException) -> bool:
    """Whether a read is worth another try at once."""
    return isinstance(error, ExchangeError) and error.counts_as_failure


def full_jitter(attempt: int, base: float, longest: float, rng: random.Random) -> float:
    """Seconds to wait before attempt `attempt` + 1: uniform between 0 and min(longest, base * 2^(attempt-1))."""
    return rng.uniform(0.0, min(longest, base * 2.0 ** min(attempt - 1, 32)))


async def retry_read(
    function: Callable[[], Awaitable[T]],
    *,
    retryable: Callable[[BaseException], bool],
    rng: random.Random,
    attempts: int = 3,
    base: float = 0.2,
    longest: float = 2.0,
) -> T:
    """Await a read until it answers, at most `attempts` times; the last error is raised as it is."""

    def wait(state: RetryCallState) -> float:
        return full_jitter(state.attempt_number, base, longest, rng)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts), wait=wait, retry=retry_if_exception(retryable), reraise=True
    )

    async def attempt() -> T:
        return await function()

    return await retrying(attempt)
