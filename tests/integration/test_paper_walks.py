"""A sample of random walks of the paper exchange: over any sequence of orders of every type, lists, cancels,
deposits, moves of the market and restarts, money is conserved, books do not cross, locked is what orders need, and
the user events are legal and fold to what REST shows.

In full: make test-exhaustive CAMPAIGN=walks
"""

from __future__ import annotations

from collections import Counter

import pytest

from campaigns.paper_operations import KINDS
from campaigns.paper_walk import WALKS, walk

pytestmark = pytest.mark.integration

SAMPLE = 2
FEWEST_OPERATIONS = 7_000
FEWEST_EXECUTIONS = 7_000


def test_no_random_walk_breaks_a_promise() -> None:
    executions: Counter[str] = Counter()
    done: Counter[str] = Counter()
    operations = 0
    for number in range(1, SAMPLE + 1):
        found = walk(number)
        again = f"run it alone: make test-exhaustive CAMPAIGN=walks CASES={number}"
        assert not found.violation, f"{again}\n{found.violation}"
        operations += found.operations
        executions.update(found.executions)
        done.update(found.done)
    print(f"{SAMPLE} of {WALKS} walks, {operations} operations, accepted: {dict(done)}, events: {dict(executions)}")
    # Each run of Hypothesis begins with the simplest sequence, in which nothing is done but to wait.
    assert operations - done["wait"] >= FEWEST_OPERATIONS
    assert sum(executions.values()) >= FEWEST_EXECUTIONS
    # Each kind of event and of operation took part: what never happens proves nothing.
    assert {
        "NEW",
        "TRADE",
        "CANCELED",
        "EXPIRED",
        "TRADE_PREVENTION",
        "REPLACED",
        "REJECTED",
        "listStatus",
        "balanceUpdate",
    } <= executions.keys()
    assert done.keys() == KINDS
