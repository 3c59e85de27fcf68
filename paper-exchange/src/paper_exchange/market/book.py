"""A generated book around a price: a best level on each side, and levels on a grid behind it."""

from __future__ import annotations

from random import Random

from paper_exchange.core.units import to_units
from paper_exchange.market.events import Level
from paper_exchange.market.profiles import Profile

LEVELS = 30
LEVEL_SPACING = 0.00008  # of the price: 30 levels reach 0.24 % away, an order of 500 USDT stays within one or two

Changes = tuple[tuple[Level, ...], tuple[Level, ...]]
"""The levels of bids and asks that changed, in units."""


class GeneratedBook:
    """One symbol's book in whole ticks and steps.

    A level holds 0.4 to 1.6 times the profile's `level_value`. It is drawn anew once less than a fifth of that is left,
    and one level of each side is with every change.
    """

    def __init__(self, profile: Profile, rng: Random, spacing: float = LEVEL_SPACING) -> None:
        """Levels hold the profile's `level_value` at its price, and are `spacing` times that price apart."""
        self._rng = rng
        self._tick_units, self._step_units = to_units(profile.tick), to_units(profile.step)
        self._gap = max(1, round(int(profile.price / profile.tick) * spacing))
        self.level_steps = float(profile.level_value / profile.price / profile.step)
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self._shown_bids: dict[int, int] = {}
        self._shown_asks: dict[int, int] = {}
        self.bid = self.ask = 0

    def quote(self, bid: int, ask: int) -> Changes:
        """Move the best prices, in ticks; returns the levels that changed."""
        self.bid, self.ask = bid, ask
        below = range((bid - 1) // self._gap * self._gap, 0, -self._gap)
        above = range((ask // self._gap + 1) * self._gap, 2**63, self._gap)
        bids = self._side(self.bids, bid, below)
        asks = self._side(self.asks, ask, above)
        changes = self._changes(self._shown_bids, bids), self._changes(self._shown_asks, asks)
        self.bids, self.asks = bids, asks
        self._shown_bids, self._shown_asks = dict(bids), dict(asks)
        return changes

    def _side(self, before: dict[int, int], best: int, grid: range) -> dict[int, int]:
        """The levels of one side: the best and those on the grid behind it; one level of them is drawn anew."""
        side = {best: before.get(best, 0)}
        for tick in grid[:LEVELS]:
            side[tick] = before.get(tick, 0)
        redrawn = grid[self._rng.randrange(min(LEVELS, len(grid)))] if grid else best
        thin = self.level_steps / 5
        for tick, steps in side.items():
            if steps < thin or tick == redrawn:
                side[tick] = max(2, int(self.level_steps * self._rng.uniform(0.4, 1.6)))
        return side

    def _changes(self, shown: dict[int, int], side: dict[int, int]) -> tuple[Level, ...]:
        tick_units, step_units = self._tick_units, self._step_units
        gone = [(tick * tick_units, 0) for tick in shown if tick not in side]
        changed = [(tick * tick_units, steps * step_units) for tick, steps in side.items() if shown.get(tick) != steps]
        return (*gone, *changed)
