"""Paces the starts of bots that share an address: together they stay within what the exchange allows it; pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Final

from tradingbot_api.bot_http import START_WEIGHT
from tradingbot_operator.egress import Address
from tradingbot_operator.inventory import BotKey

AT_ONCE_PART: Final = 0.3
"""Of the limit, for starts at once after a quiet time."""
RATE_PART: Final = 0.5
"""Of the limit, for starts and bots that run; with AT_ONCE_PART no minute has more than four fifths."""
LEAST_RATE_PART: Final = 0.1
"""Of the limit, for starts, however many bots run."""

Place = tuple[bool, int, BotKey]
"""Whether it holds nothing, when it came, and who."""


@dataclass
class _Line:
    """Who waits to start at one address, and the weight that starts may use now; may be below zero."""

    weight: float
    refilled: float
    waiting: list[Place] = field(default_factory=list)
    places: dict[BotKey, Place] = field(default_factory=dict)

    def drop(self, key: BotKey) -> None:
        if (place := self.places.pop(key, None)) is not None:
            del self.waiting[bisect_left(self.waiting, place)]


class StartPace:
    """A bucket of weight for each address. `weight_per_minute` is its limit; 0: nobody waits."""

    def __init__(self, weight_per_minute: int) -> None:
        self._limit = weight_per_minute
        self._lines: dict[Address, _Line] = {}
        self._line_of: dict[BotKey, Address] = {}
        self._came = 0

    def wait(
        self, key: BotKey, address: Address, *, holding: bool, needed: int, now: float, part: float = 1.0
    ) -> float:
        """Seconds until this bot may start, as far as can be told; 0: now, and its start is counted.

        Those that may hold a position come first, then who came first. `needed` is what bots that run at the address
        need of a minute. `part` of the limit is this operator's to give. `now` is monotonic, in seconds.
        """
        if self._limit == 0:
            return 0.0
        limit = self._limit * part
        most = max(float(START_WEIGHT), limit * AT_ONCE_PART)
        rate = max(limit * RATE_PART - needed, limit * LEAST_RATE_PART) / 60
        line = self._lines.setdefault(address, _Line(most, now))
        line.weight = min(most, line.weight + rate * (now - line.refilled))
        line.refilled = now
        if self._line_of.get(key, address) != address:
            self.forget(key)
        if key not in line.places:
            self._came += 1
            line.places[key] = place = (not holding, self._came, key)
            insort(line.waiting, place)
            self._line_of[key] = address
        before = bisect_left(line.waiting, line.places[key])
        lacking = (before + 1) * START_WEIGHT - line.weight
        if lacking > 0:
            return lacking / rate
        line.weight -= START_WEIGHT
        self.forget(key)
        return 0.0

    def forget(self, key: BotKey) -> None:
        """It waits no more."""
        if (address := self._line_of.pop(key, None)) is not None:
            self._lines[address].drop(key)

    def waiting(self) -> dict[Address, int]:
        """How many wait to start."""
        return {address: len(line.waiting) for address, line in self._lines.items()}
