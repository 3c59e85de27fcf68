"""A seeded sample of simulations among faults: whatever the exchange did, the bot trades again and the books balance.

In full: make test-exhaustive CAMPAIGN=sims
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from campaigns.sim_faults import SIMS, sim_among_faults
from paper_exchange.testing import PaperExchange

pytestmark = pytest.mark.integration

SAMPLE = (2, 8)
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


async def _cancels_are_never_answered(exchange: PaperExchange) -> None:
    await exchange.start_fault("lost_answer", cut=False, endpoints="DELETE *")
    await asyncio.sleep(180)


async def _everything_is_slow(exchange: PaperExchange) -> None:
    await asyncio.sleep(20)
    await exchange.start_fault("delay", seconds=1.5, endpoints=["GET *", "DELETE *"])
    await asyncio.sleep(180)


async def _orders_are_slow(exchange: PaperExchange) -> None:
    await asyncio.sleep(20)
    await exchange.start_fault("delay", seconds=5, endpoints="POST /api/v3/order")
    await asyncio.sleep(180)


def test_an_exit_goes_on_when_the_user_stream_told_what_an_unanswered_cancel_did() -> None:
    outcome = sim_among_faults(7, 7, _cancels_are_never_answered)
    assert not outcome.violations
    assert outcome.faults["lost_answer"] >= 4
    assert outcome.unprotected < 2
    # One that waits until the connection is given up is busy with that most of the time.
    assert outcome.trades >= 12


def test_a_position_keeps_its_protection_while_a_slow_exchange_is_read_for_its_exit() -> None:
    outcome = sim_among_faults(7, 7, _everything_is_slow)
    assert not outcome.violations
    assert outcome.trades >= 12
    assert outcome.unprotected == 0


def test_a_slow_sale_is_told_as_a_position_without_protection() -> None:
    outcome = sim_among_faults(7, 7, _orders_are_slow)
    assert not outcome.violations
    assert outcome.unprotected > 3
    assert outcome.told >= outcome.unprotected - 1


async def _a_ban_that_closes_every_connection(exchange: PaperExchange) -> None:
    await asyncio.sleep(20)
    await exchange.start_fault("banned", **{"for": 90})
    await exchange.drop_connections()
    await asyncio.sleep(100)


def test_nothing_is_sent_and_no_stream_connects_within_a_ban() -> None:
    outcome = sim_among_faults(7, 3, _a_ban_that_closes_every_connection)
    assert not outcome.violations
    # The first of REST and of each stream may be on its way before any of them is told.
    assert 1 <= outcome.faults["banned"] <= 3
