"""Nothing that a client sends, in bytes or in order, stops the exchange or disturbs another client.

In full: make test-exhaustive CAMPAIGN=fuzz
"""

from __future__ import annotations

from pathlib import Path

import pytest

from campaigns.paper_fuzz import CASES, fuzz

pytestmark = pytest.mark.integration

SAMPLE = 300
FEWEST_ANSWERS = 150
FEWEST_ROUNDS = 5


async def test_clients_that_mean_no_good_stop_nothing_and_disturb_nobody(tmp_path: Path) -> None:
    found = await fuzz(range(SAMPLE), tmp_path)
    print(
        f"{found.cases} of {CASES} cases, {found.answers} answered: {found.codes}; the other client went "
        f"{found.rounds} rounds, its slowest answer took {found.slowest:.2f} s"
    )
    assert not found.findings, "\n".join(found.findings)
    assert found.cases == SAMPLE
    assert found.answers >= FEWEST_ANSWERS
    assert found.rounds >= FEWEST_ROUNDS
