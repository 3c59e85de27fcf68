"""A seeded sample of the crash matrix: a bot that dies anywhere, among any fault, goes on, and its books balance.

In full: make test-exhaustive CAMPAIGN=crashes
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random

import pytest

from campaigns.crash_cycle import FAULTS, Cell, Moment, Outcome, all_cells, run_cells, run_undisturbed
from paper_exchange.faults.kinds import KINDS
from support.forked_files import take_copies

pytestmark = pytest.mark.integration

SEED = 1
CHUNK = 32
"""The fewest cells."""
MOST_SECONDS = 10.0
FEWEST_KINDS = 6


def test_every_kind_of_fault_of_the_exchange_is_in_the_matrix() -> None:
    assert set(FAULTS) == set(KINDS)


@pytest.mark.parametrize("operated", [False, True], ids=["alone", "with an operator"])
def test_a_cycle_is_the_same_each_time_whatever_ran_before_and_however_long_it_took(
    operated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_undisturbed(operated=operated)
    cells = Random(SEED).sample(all_cells(first.points, operated=operated), 4)
    died = [(cell, _told(outcome)) for cell, outcome in run_cells(cells)]
    clock = count(0.0, 60.0)
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: next(clock))  # as on a machine that is slow
    again = run_undisturbed(operated=operated)
    assert again.points == first.points
    assert _told(again) == _told(first)
    assert [(cell, _told(outcome)) for cell, outcome in run_cells(cells)] == died


def test_a_cell_goes_on_from_its_point_however_long_it_takes_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [point for point in run_undisturbed(operated=False).points if point.kind == "request"]
    # The cycle would go on to the last point meanwhile.
    cells = [Cell(point, Moment.BEFORE) for point in (requests[len(requests) // 2], requests[-1])]
    former = [(cell, _told(outcome)) for cell, outcome in run_cells(cells)]

    def take_copies_late(*folders: Path) -> None:
        time.sleep(1)
        take_copies(*folders)

    monkeypatch.setattr("campaigns.crash_cycle.take_copies", take_copies_late)
    assert [(cell, _told(outcome)) for cell, outcome in run_cells(cells)] == former


def _told(outcome: Outcome) -> list[str]:
    """All that was logged, at its moment."""
    assert not outcome.violations
    return outcome.log


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
