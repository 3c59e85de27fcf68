"""The moods of a generated market: what it does beside its usual self, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mood:
    """How a market differs from the usual one, and what happens in it from time to time, to all symbols at once.

    Something happens for `lasts_ms` from `FIRST_MS` after the start on, and again each `every_ms`.
    """

    volatility: float = 1.0
    """Of the usual one."""
    regimes: float = 1.0
    """How much the price drifts for some tens of seconds, of the usual."""
    homing: float = 1.0
    """How strongly the price is pulled back to its first one, of the usual."""
    level_value: float = 1.0
    """What a level of the book holds, of the usual."""
    level_spacing: float = 1.0
    """How far levels are apart, of the usual."""
    spread: float = 0.0
    """Largest spread, of the price; 0 is the usual one, of one to three ticks."""
    drift: float = 0.0
    """Change of the log-price per second, up when it happens and down else."""
    fall: float = 0.0
    """Change of the log-price, spread over what happens."""
    leap: float = 0.0
    """Change of the log-price at once as it happens, every second time the other way."""
    halts: bool = False
    """While it happens nobody trades, and the symbol's status is HALT."""
    every_ms: int = 1
    lasts_ms: int = 0

    def happens(self, elapsed_ms: int) -> bool:
        """Whether what the mood is about happens at a time since the start."""
        return elapsed_ms >= FIRST_MS and (elapsed_ms - FIRST_MS) % self.every_ms < self.lasts_ms

    def push(self, elapsed_ms: int, length_ms: int) -> float:
        """How the log-price changes in the `length_ms` from then on, beside its usual ways."""
        happens = self.happens(elapsed_ms)
        moved = self.drift * (length_ms / 1000) * (1 if happens or elapsed_ms < FIRST_MS else -1)
        if happens:
            moved += self.fall * length_ms / self.lasts_ms
            if self.leap and not self.happens(elapsed_ms - length_ms):
                moved += self.leap if (elapsed_ms - FIRST_MS) // self.every_ms % 2 == 0 else -self.leap
        return moved


FIRST_MS: Final = 60_000
"""A minute to make accounts and orders before anything happens."""

USUAL: Final = Mood()
MOODS: Final = {
    "calm": Mood(volatility=0.25, regimes=0.0),
    "trend": Mood(regimes=0.0, homing=0.0, drift=0.00003, every_ms=3_600_000, lasts_ms=1_800_000),
    "crash": Mood(fall=math.log(0.9), every_ms=1_800_000, lasts_ms=30_000),
    "gap": Mood(leap=math.log(0.97), every_ms=120_000, lasts_ms=1_000),
    "thin": Mood(level_value=0.02, level_spacing=3.0, spread=0.0004),
    "halted": Mood(halts=True, every_ms=600_000, lasts_ms=60_000),
}
"""By the names that `synthetic:MOOD` knows."""
