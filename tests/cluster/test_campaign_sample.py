"""A seeded sample of the fault campaign: whole lives of a TradingBot, with a fault in every step of each.

In full: make test-exhaustive CAMPAIGN=faults
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from random import Random

import pytest
from local_kubernetes.local import LocalCluster

from campaigns.life_cycle import STEPS, Case, StepFault, live, world
from support.fault_proxy import FaultKind, WatchFaultKind
from support.kube import Json

pytestmark = pytest.mark.cluster

SEED = 4
LIVES = 6
FEWEST_FAULTS = 4
"""A life has nine steps; a step may end before the write that was to be spoiled."""
QUICK = (*FaultKind, WatchFaultKind.REPEAT, WatchFaultKind.DELAY, WatchFaultKind.GONE)
"""A dropped event and a hung watch cost a minute each: they are for the campaign in full."""


def sample() -> list[Case]:
    """The same cases in every run and worker."""
    random = Random(SEED)
    return [
        Case(tuple(StepFault(random.choice(QUICK), random.randint(1, 4), step) for step in STEPS)) for _ in range(LIVES)
    ]


async def undisturbed(cluster: LocalCluster, folder: Path, shared: Path) -> dict[str, Json]:
    """The states of a life without a fault: lived once for all workers."""
    path = shared / "undisturbed-life.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            async with world(cluster, folder) as made:
                outcome = await live(made, Case(), None)
            assert outcome.violations == [], outcome.dump
            path.write_text(json.dumps(outcome.waypoints), encoding="utf-8")
    states: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
    return states


@pytest.mark.parametrize("case", sample(), ids=lambda case: f"life-{sample().index(case)}")
async def test_a_life_with_a_fault_in_every_step_keeps_all_promises(
    served_cluster: LocalCluster, case: Case, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = await undisturbed(served_cluster, tmp_path / "undisturbed", tmp_path_factory.getbasetemp().parent)
    async with world(served_cluster, tmp_path) as made:
        outcome = await live(made, case, expected)
    print(f"{len(outcome.fired)} faults, {outcome.entries} entries, {outcome.seconds:.0f} s: {case}; {outcome.times}")
    again = f"run it alone: make test-exhaustive CAMPAIGN=faults CASES={case}"
    assert outcome.violations == [], f"{again}\n{outcome.dump}"
    assert len(outcome.fired) >= FEWEST_FAULTS, outcome.fired
