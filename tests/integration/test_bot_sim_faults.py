"""A seeded sample of simulations among faults: whatever the exchange did, the bot trades again and the books balance.

In full: make test-exhaustive CAMPAIGN=sims
"""

from __future__ import annotations

from collections import Counter

import pytest

from campaigns.sim_faults import SIMS, sim_among_faults

pytestmark = pytest.mark.integration

SAMPLE = (2, 5, 8)
FEWEST_KINDS = 6
FEWEST_TRADES = 20


def test_a_bot_trades_again_after_any_mixture_of_faults_and_its_books_equal_the_exchanges() -> None:
    faults: Counter[str] = Counter()
    trades = 0
    for seed in SAMPLE:
        outcome = sim_among_faults(seed)
        again = f"run it alone: make test-exhaustive CAMPAIGN=sims CASES={seed}"
        assert not outcome.violations, "\n".join([again, *outcome.violations])
        faults.update(outcome.faults)
        trades += outcome.trades
    print(f"{len(SAMPLE)} of {SIMS} simulations, {trades} trades, calls that faults befell: {dict(faults)}")
    assert len(faults) >= FEWEST_KINDS
    assert trades >= FEWEST_TRADES
