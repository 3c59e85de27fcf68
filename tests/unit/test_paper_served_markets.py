"""Markets behind the server, on virtual time: a recording that ends, one that begins again, a symbol that is halted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from paper_exchange.server.app import Options
from paper_exchange.testing import running_paper_exchange
from paper_exchange.virtual_loop import VirtualLoop
from support.paper import SYMBOL

START_MS = 1_700_000_040_000  # a full minute
DAY_MS = 1_723_075_200_000


def served(options: Options, main: Any) -> Any:
    """What `main` finds out with the address of an exchange, and a way to sleep until a second after the start."""
    loop = VirtualLoop(Random(1), (0.0, 0.0))

    def steady_ms() -> int:
        return round(loop.time() * 1000)

    async def until(second: float) -> None:
        await asyncio.sleep(second - loop.time())

    async def run() -> Any:
        async with running_paper_exchange(options, steady_ms, lambda: START_MS + steady_ms()) as exchange:

            async def get(path: str) -> Any:
                async with exchange.session.get(f"{exchange.base_url}/api/v3/{path}") as answer:
                    return await answer.json()

            return await main(get, until)

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


@pytest.mark.parametrize("loop", [False, True])
def test_a_recording_stands_still_at_its_end_or_begins_again(tmp_path: Path, loop: bool) -> None:
    rows = [
        f"1,{price},0.5,1.0,{DAY_MS + second * 1000},True,True\n"
        for second, price in ((1, "60000.0"), (20, "61000.0"), (50, "62000.0"))
    ]
    (tmp_path / "BTCUSDT-trades-2024-08-08.csv").write_text("".join(rows))

    async def main(get: Any, until: Any) -> list[str]:
        seen = []
        for second in (2, 21, 51, 70, 81):
            await until(second)
            seen.append((await get(f"ticker/price?symbol={SYMBOL}"))["price"][:2])
        return seen

    options = Options(symbols=(SYMBOL,), market=f"archive:{tmp_path}", loop=loop)
    assert served(options, main) == ["60", "61", "62", *(["60", "61"] if loop else ["62", "62"])]


def test_a_symbol_of_a_halted_market_says_so_for_a_minute() -> None:
    async def main(get: Any, until: Any) -> list[str]:
        seen = []
        for second in (59, 61, 119, 121):
            await until(second)
            seen.append((await get("exchangeInfo"))["symbols"][0]["status"])
        return seen

    found = served(Options(symbols=(SYMBOL,), market="synthetic:halted"), main)
    assert found == ["TRADING", "HALT", "HALT", "TRADING"]
