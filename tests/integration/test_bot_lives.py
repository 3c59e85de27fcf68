"""A seeded sample of random lives of a bot: among faults, deaths, rivals and changes of mind it keeps its promises.

In full: make test-exhaustive CAMPAIGN=sims
"""

from __future__ import annotations

import pytest

from campaigns.bot_life import LIVES, run_life

pytestmark = pytest.mark.integration

SAMPLE = (4, 6)
SAMPLE_MINUTES = 4.0


def test_whatever_befalls_a_bot_there_is_one_trader_safe_means_safe_and_the_books_balance() -> None:
    lives = []
    for seed in SAMPLE:
        life = run_life(seed, SAMPLE_MINUTES)
        assert not life.violations, "\n".join([f"seed {seed}, {life.settings}", *life.violations])
        lives.append(life)
    print(
        f"{len(SAMPLE)} of {LIVES} lives: {[(life.entries, life.deaths, life.rivals, life.changes) for life in lives]}"
    )
    assert sum(life.entries for life in lives) >= 20
    assert sum(life.deaths for life in lives) >= 2
    assert sum(life.rivals for life in lives) >= 1
    assert sum(life.changes for life in lives) >= 2
