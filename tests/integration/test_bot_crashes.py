"""A seeded sample of the crash matrix: a bot that dies anywhere, among any fault, goes on, and its books balance.

In full: make test-exhaustive CAMPAIGN=crashes
"""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import pytest

from campaigns.crash_cycle import FAULTS, Cell, Moment, all_cells, run_cells, run_undisturbed
from paper_exchange.faults.kinds import KINDS

pytestmark = pytest.mark.integration

SEED = 1
CHUNK = 32
"""The fewest cells."""
MOST_SECONDS = 10.0
FEWEST_KINDS = 6


def test_every_kind_of_fault_of_the_exchange_is_in_the_matrix() -> None:
    assert set(FAULTS) == set(KINDS)


def test_a_bot_that_dies_at_any_point_among_any_fault_goes_on_and_its_books_balance() -> None:
    begun = time.monotonic()
    cells: list[Cell] = []
    for operated in (False, True):
        undisturbed = run_undisturbed(operated=operated)
        assert not undisturbed.violations
        assert undisturbed.entries == 4
        kinds = Counter(point.kind for point in undisturbed.points)
        assert kinds["commit"] >= 50
        assert kinds["request"] >= 50
        cells += all_cells(undisturbed.points, operated=operated)
    befell, moments = Counter[str](), Counter[Moment]()
    sample = Random(SEED).sample(cells, len(cells))
    while moments.total() == 0 or time.monotonic() - begun < MOST_SECONDS:
        chunk, sample = sample[:CHUNK], sample[CHUNK:]
        for cell, outcome in run_cells(chunk):
            again = f"run it alone: make test-exhaustive CAMPAIGN=crashes CASES={cell}"
            assert not outcome.violations, "\n".join([again, f"died at {outcome.died_at}", *outcome.violations])
            befell.update(outcome.faults.keys())
            moments[cell.moment] += 1
    print(f"{moments.total()} of {len(cells)} cells, {dict(moments)}, by fault that befell something: {dict(befell)}")
    assert len(befell) >= FEWEST_KINDS
    assert set(moments) == set(Moment)
