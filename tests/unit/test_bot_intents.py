"""Intents: an unknown outcome stays unknown until the exchange itself has said enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.order_reports import order_report, trade_fill
from tradingbot.orders.intents import Evidence, Intent, IntentKind, IntentState, judge

SENT = 1_000_000
INTENT = Intent(
    client_id="list",
    kind=IntentKind.ENTRY,
    client_ids=("entry", "stop", "target"),
    timestamp_ms=SENT,
    recv_window_ms=5_000,
    quantity="1",
    price="100",
    after_order_id=10,
    state=IntentState.UNKNOWN,
)
LATE = SENT + 15_001
NOTHING = Evidence(LATE, None, (), ())


def test_found_by_its_id_it_is_acknowledged_at_once() -> None:
    found = judge(INTENT, Evidence(SENT + 1, order_report("entry")))
    assert found == replace(INTENT, state=IntentState.ACKNOWLEDGED, message="found at the exchange")


def test_found_in_a_listing_it_is_acknowledged() -> None:
    evidence = Evidence(LATE, None, (order_report("stop"),), ())

    assert judge(INTENT, evidence) == replace(INTENT, state=IntentState.ACKNOWLEDGED, message="found in a listing")
    others = replace(evidence, listed=(order_report("somebody-else"), order_report("stop")))
    assert judge(INTENT, others).state is IntentState.ACKNOWLEDGED


def test_not_found_within_the_window_and_ten_seconds_counts_for_nothing() -> None:
    intent = INTENT
    for _ in range(10):
        intent = judge(intent, replace(NOTHING, time_ms=SENT + 15_000))

    assert intent == INTENT


def test_three_late_answers_with_empty_listings_prove_that_it_does_not_exist() -> None:
    states = []
    intent = INTENT
    for _ in range(3):
        intent = judge(intent, NOTHING)
        states.append(intent.state)

    assert states == [IntentState.UNKNOWN, IntentState.UNKNOWN, IntentState.NOT_FOUND]
    assert intent == replace(INTENT, state=IntentState.NOT_FOUND, not_found=3, message="the exchange never had it")


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(Evidence(LATE, None, None, ()), id="listings-not-asked"),
        pytest.param(Evidence(LATE, None, (), None), id="trades-not-asked"),
        pytest.param(Evidence(LATE, None, (), (trade_fill(1, order_id=11),)), id="a-trade-nobody-explains"),
    ],
)
def test_without_full_evidence_it_stays_unknown(evidence: Evidence) -> None:
    intent = INTENT
    for _ in range(5):
        intent = judge(intent, evidence)

    assert intent == replace(INTENT, not_found=3), "answers that were counted are not asked for again"


@pytest.mark.parametrize(
    ("kind", "state", "blocks"),
    [
        pytest.param(IntentKind.ENTRY, IntentState.SENDING, True, id="in-flight"),
        pytest.param(IntentKind.EXIT, IntentState.UNKNOWN, True, id="unknown-exit"),
        pytest.param(IntentKind.CANCEL, IntentState.UNKNOWN, False, id="cancel"),
        pytest.param(IntentKind.ENTRY, IntentState.REJECTED, False, id="refused"),
    ],
)
def test_what_is_not_known_blocks_entries(kind: IntentKind, state: IntentState, blocks: bool) -> None:
    assert replace(INTENT, kind=kind, state=state).blocks_entries is blocks
