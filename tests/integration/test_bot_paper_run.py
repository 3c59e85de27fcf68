"""The promise of `tradingbot run --paper`: one command, and a bot trades."""

from __future__ import annotations

import asyncio
import sys

import pytest

pytestmark = pytest.mark.integration


async def test_one_command_trades_on_an_embedded_exchange_and_ends_in_order() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradingbot", "run", "--paper", "--duration", "6",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "Connected" in out.decode()
    assert "BTCUSDT on the paper exchange" in out.decode()


async def test_a_symbol_that_the_exchange_does_not_have_is_named() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradingbot", "run", "--paper", "--symbol", "NOPEUSDT",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert "NOPEUSDT" in err.decode()
