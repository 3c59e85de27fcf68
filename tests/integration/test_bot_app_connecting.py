"""Connecting is paced: it costs request weight that an address shares, and a position is looked after meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import structlog

from paper_exchange.testing import PaperExchange, TestAccount
from tradingbot.lab.paper import drop_log
from tradingbot.lab.sim import SimReport, SimRun, simulate

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[drop_log])
    yield
    structlog.reset_defaults()


def beside_a_fault(endpoint: str, seconds: float, simulated: float) -> tuple[SimReport, int]:
    """A simulation in which an endpoint answers 503 at first; what came of it, and how often it did."""
    calls: list[dict[str, Any]] = []

    async def beside(exchange: PaperExchange, _account: TestAccount) -> None:
        await exchange.start_fault("rest_status", status=503, seconds=seconds, endpoints=[endpoint])
        await asyncio.sleep(simulated - 1)
        calls.extend(row for row in await exchange.fault_record() if "applied" in row)
        await asyncio.sleep(1)

    return simulate(SimRun("BTCUSDT", timedelta(seconds=simulated)), lambda _: None, beside), len(calls)


def test_candles_that_cannot_be_read_end_no_connection_and_are_asked_for_again() -> None:
    report, failed = beside_a_fault("GET /api/v3/klines", 60, 60)
    assert failed >= 6
    assert report.status is not None
    assert report.status.ready
    assert (report.events["Connected"], report.events["EntryFilled"]) == (1, 0)


def test_a_lost_answer_to_a_read_of_the_start_does_not_begin_it_anew() -> None:
    reads = ["time", "exchangeInfo", "account", "account/commission", "allOrders", "openOrders"]

    async def beside(exchange: PaperExchange, _account: TestAccount) -> None:
        for read in reads:
            await exchange.start_fault("error", code=-1001, count=2, endpoints=[f"GET /api/v3/{read}"])
        await asyncio.sleep(20)
        assert len([row for row in await exchange.fault_record() if "applied" in row]) == 2 * len(reads)

    report = simulate(SimRun("BTCUSDT", timedelta(seconds=20)), lambda _: None, beside)
    assert report.events["Connected"] == 1
    assert report.events["ExchangeUnreachable"] == 0


def test_a_flat_bot_asks_an_exchange_that_answers_in_part_ever_more_rarely() -> None:
    report, failed = beside_a_fault("GET /api/v3/account/commission", 300, 400)
    # Three tries each time; without a growing wait some 360.
    assert 10 <= failed <= 90
    assert report.events["Connected"] == 1
