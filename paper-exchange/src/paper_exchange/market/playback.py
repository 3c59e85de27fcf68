"""How fast a market is played: when each of its events happens on the exchange's clock, at a speed that may change."""

from __future__ import annotations

import math
from typing import Final

from paper_exchange.market.events import MarketError

SLOWEST: Final = 0.01
FASTEST: Final = 1000.0
_BEHIND_MS: Final = 250


class SpeedInvalidError(MarketError):
    """A speed at which no market, or not this one, is played."""

    code = "SpeedInvalid"


def speed_of(name: str, given: object) -> float:
    """Market seconds in a second of the clock, 0 to stand still; SpeedInvalidError names the field."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and (not given or SLOWEST <= given <= FASTEST):
        return float(given)
    raise SpeedInvalidError(
        f"{name}: expected a number from {SLOWEST:g} to {FASTEST:g}, or 0 to stand still, got {given!r}"
    )


class Playback:
    """Market time, which goes on at a speed from where it stood when that was set; both times are in ms.

    At a speed of 1 that was never changed, the two times are the same.
    """

    def __init__(self, start_ms: int) -> None:
        """Both times begin at `start_ms`."""
        self.speed = 1.0
        self._from_ms = start_ms
        self._market_ms: float = start_ms

    def market_ms(self, now_ms: int) -> float:
        """Market time at a time of the clock."""
        return self._market_ms + (now_ms - self._from_ms) * self.speed

    def set_speed(self, speed: float, now_ms: int) -> None:
        """From now on play at this speed."""
        self._market_ms, self._from_ms, self.speed = self.market_ms(now_ms), now_ms, speed

    def due_ms(self, market_ms: int) -> float:
        """When on the clock what has this market time happens, in whole ms; infinity where the market stands still.

        What was still to come when the speed was set happens then at the earliest: time never runs back.
        """
        ahead = market_ms - self._market_ms
        if ahead <= 0:
            return self._from_ms
        return self._from_ms + math.ceil(ahead / self.speed) if self.speed else math.inf

    def keep_up(self, market_ms: int, now_ms: int) -> None:
        """Go on from `market_ms` where a faster market than real time is behind: this machine plays it no faster."""
        if self.speed > 1 and now_ms - self.due_ms(market_ms) > _BEHIND_MS:
            self._market_ms, self._from_ms = float(market_ms), now_ms
