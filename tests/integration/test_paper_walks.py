"""A seeded sample of random walks of the paper exchange: over any sequence of orders of every type, lists, cancels,
deposits, moves of the market and restarts, money is conserved, books do not cross, locked is what orders need, and
the user events are legal and fold to what REST shows.

In full: make test-exhaustive CAMPAIGN=walks
"""

from __future__ import annotations

from collections import Counter

import pytest

from campaigns.paper_walk import OPERATIONS, WALKS, walk

pytestmark = pytest.mark.integration

SAMPLE = 8
FEWEST_EXECUTIONS = 1000


def test_no_random_walk_breaks_a_promise() -> None:
    executions: Counter[str] = Counter()
    done: Counter[str] = Counter()
    operations = 0
    for seed in range(1, SAMPLE + 1):
        found = walk(seed, OPERATIONS)
        again = f"run it alone: make test-exhaustive CAMPAIGN=walks CASES={seed}"
        assert not found.violation, f"{again}\n{found.violation}"
        operations += found.operations
        executions.update(found.executions)
        done.update(found.done)
    print(f"{SAMPLE} of {WALKS} walks, {operations} operations, accepted: {dict(done)}, events: {dict(executions)}")
    assert sum(executions.values()) >= FEWEST_EXECUTIONS
    # Each kind of event and of operation took part: what never happens proves nothing.
    assert {
        "NEW",
        "TRADE",
        "CANCELED",
        "EXPIRED",
        "TRADE_PREVENTION",
        "REPLACED",
        "listStatus",
        "balanceUpdate",
    } <= executions.keys()
    lists = {"oco", "oto", "otoco", "opo", "opoco", "cancel list"}
    assert lists | {"order", "cancel", "cancel all", "replace", "amend", "restart", "push"} <= done.keys()
