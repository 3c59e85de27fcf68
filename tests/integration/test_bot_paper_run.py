"""The promise of `tradingbot run --paper`: one command, and a bot trades."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tradingbot.lab.flight_replay import replay_flight
from tradingbot.monitoring.flight_recorder import PATTERN

pytestmark = pytest.mark.integration


async def test_one_command_trades_on_an_embedded_exchange_ends_in_order_and_its_decisions_come_out_again(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradingbot", "run", "--paper", "--duration", "6", "--flight-dir", str(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "Connected" in out.decode()
    assert "BTCUSDT on the paper exchange" in out.decode()
    (recording,) = await asyncio.to_thread(lambda: list(tmp_path.glob(PATTERN)))
    report = replay_flight(recording)
    assert report.exact
    assert len(report.decisions) >= 3
    assert report.calls["risk.update_equity"] >= 5


async def test_a_symbol_that_the_exchange_does_not_have_is_named() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradingbot", "run", "--paper", "--symbol", "NOPEUSDT",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert "NOPEUSDT" in err.decode()
