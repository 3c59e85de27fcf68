"""The budget of new WebSocket connections, which the exchange counts by address; pure.

Binance lets an address make 300 in five minutes, of market streams and of the WebSocket API each, whether or not they
last (web-socket-streams.md, web-socket-api.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LIMIT: Final = 300
WINDOW_SECONDS: Final = 300.0
PART: Final = 0.95
"""Of the limit, for the bots; the rest is for what else is at the address."""
LEAST: Final = 0.1
"""In a window, beyond the first: more bots than the limit allows come back late, but come back."""


class ConnectionBudget:
    """An equal part for each bot of the address, so that none has to be told which other one is connecting: half of it
    at any time, the other half evenly over a window. In no window all bots make more than their part of the limit.

    `address_bots` tells how many share the address, `monotonic` the time in seconds.
    """

    def __init__(self, address_bots: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._address_bots = address_bots
        self._monotonic = monotonic
        self._left: dict[str, tuple[float, float]] = {}
        """By kind of connection how many may be made, and when that was so."""

    @property
    def address_bots(self) -> int:
        """How many bots share the address, as was told last."""
        return self._address_bots()

    @property
    def _mine(self) -> float:
        return LIMIT * PART / self._address_bots()

    @property
    def _at_once(self) -> float:
        return max(1.0, self._mine / 2)

    @property
    def _a_second(self) -> float:
        return max(LEAST, self._mine - self._at_once) / WINDOW_SECONDS

    def _may(self, kind: str) -> float:
        now = self._monotonic()
        left, since = self._left.get(kind, (self._at_once, now))
        return min(self._at_once, left + (now - since) * self._a_second)

    def wait_seconds(self, kind: str) -> float:
        """How long a new connection of a kind must wait; 0 where it may be made."""
        return max(0.0, 1.0 - self._may(kind)) / self._a_second

    def asked(self, kind: str) -> None:
        """A connection is asked for."""
        self._left[kind] = self._may(kind) - 1.0, self._monotonic()

    def unheard(self, kind: str) -> None:
        """The exchange was not reached: it has counted nothing."""
        self._left[kind] = self._may(kind) + 1.0, self._monotonic()
