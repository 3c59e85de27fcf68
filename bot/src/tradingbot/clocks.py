"""The clocks and the randomness that a bot is given: those of the machine, or virtual ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from tradingbot_api.clock import steady_clock


def utc_now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def from_ms(milliseconds: int) -> datetime:
    """A timestamp of the exchange as aware UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Clocks:
    """What a bot knows of time, and what spreads its retries."""

    monotonic: Callable[[], float] = steady_clock
    """Seconds that never jump."""
    utc: Callable[[], datetime] = utc_now
    """Aware UTC."""
    random: Random = field(default_factory=Random)
