"""Promises of the fault campaign's cases: a name says all of a case, and a fault belongs to its step."""

from __future__ import annotations

import pytest

from campaigns.life_cycle import STEPS, Case, StepFault
from support.fault_proxy import FaultKind, WatchFaultKind

EVERYWHERE = Case((StepFault(FaultKind.KILL_AFTER, 3),))
MIXED = Case((StepFault(FaultKind.RESET, 2, "delete"), StepFault(WatchFaultKind.GONE, 1, "crash")))


@pytest.mark.parametrize("case", [EVERYWHERE, MIXED])
def test_the_name_that_a_failure_prints_is_the_case(case: Case) -> None:
    assert Case.parse(str(case)) == case


def test_a_fault_without_a_step_is_one_of_every_step() -> None:
    assert {EVERYWHERE.fault_of(step) for step in STEPS} == {EVERYWHERE.faults[0]}


def test_a_fault_of_a_step_comes_in_no_other() -> None:
    assert [step for step in STEPS if MIXED.fault_of(step)] == ["crash", "delete"]
