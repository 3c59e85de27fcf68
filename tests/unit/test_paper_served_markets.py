"""Markets behind the server, on virtual time: how they end, begin again, halt, and are played faster or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from paper_exchange.__main__ import main as command_line
from paper_exchange.journal import replay
from paper_exchange.market.events import MarketEvent
from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, running_paper_exchange
from paper_exchange.virtual_loop import VirtualLoop
from support.paper import SYMBOL

START_MS = 1_700_000_040_000  # a full minute
DAY_MS = 1_723_075_200_000


def served(options: Options, main: Any, spent_ms: Callable[[], int] = lambda: 0) -> Any:
    """What `main` finds out with an exchange, a question to its API, and a way to sleep until a second of its life.

    Virtual work takes no time; `spent_ms` is what it has taken of the exchange's clock nevertheless.
    """
    loop = VirtualLoop(Random(1), (0.0, 0.0))

    def steady_ms() -> int:
        return round(loop.time() * 1000)

    async def until(second: float) -> None:
        await asyncio.sleep(second - loop.time())

    async def run() -> Any:
        async with running_paper_exchange(options, steady_ms, lambda: START_MS + steady_ms() + spent_ms()) as exchange:

            async def get(path: str) -> Any:
                async with exchange.session.get(f"{exchange.base_url}/api/v3/{path}") as answer:
                    return await answer.json()

            return await main(exchange, get, until)

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def recording(directory: Path) -> str:
    """An archive with trades in its seconds 1, 20 and 50, each 1000 above the one before."""
    rows = [
        f"1,{price},0.5,1.0,{DAY_MS + second * 1000},True,True\n"
        for second, price in ((1, "60000.0"), (20, "61000.0"), (50, "62000.0"))
    ]
    (directory / "BTCUSDT-trades-2024-08-08.csv").write_text("".join(rows))
    return f"archive:{directory}"


@pytest.mark.parametrize("loop", [False, True])
def test_a_recording_stands_still_at_its_end_or_begins_again(tmp_path: Path, loop: bool) -> None:
    async def main(_exchange: PaperExchange, get: Any, until: Any) -> list[str]:
        seen = []
        for second in (2, 21, 51, 70, 81):
            await until(second)
            seen.append((await get(f"ticker/price?symbol={SYMBOL}"))["price"][:2])
        return seen

    options = Options(symbols=(SYMBOL,), market=recording(tmp_path), loop=loop)
    assert served(options, main) == ["60", "61", "62", *(["60", "61"] if loop else ["62", "62"])]


def test_a_symbol_of_a_halted_market_says_so_for_a_minute() -> None:
    async def main(_exchange: PaperExchange, get: Any, until: Any) -> list[str]:
        seen = []
        for second in (59, 61, 119, 121):
            await until(second)
            seen.append((await get("exchangeInfo"))["symbols"][0]["status"])
        return seen

    found = served(Options(symbols=(SYMBOL,), market="synthetic:halted"), main)
    assert found == ["TRADING", "HALT", "HALT", "TRADING"]


def test_a_market_is_played_faster_and_stands_still_while_the_clock_goes_on(tmp_path: Path) -> None:
    async def main(exchange: PaperExchange, get: Any, until: Any) -> Any:
        seen = []
        for second, speed in ((3, 0), (10, 10), (11.9, 10), (12.1, 10)):
            await until(second)
            seen.append((await get(f"ticker/price?symbol={SYMBOL}"))["price"][:2])
            await exchange.set_speed(speed)
        return seen, await get(f"trades?symbol={SYMBOL}"), await get("time")

    journal = tmp_path / "journal.jsonl"
    options = Options(symbols=(SYMBOL,), market=recording(tmp_path), speed=10, journal=journal)
    seen, trades, time = served(options, main)
    # It stands still at its second 30 for seven seconds of the clock.
    assert seen == ["61", "61", "61", "62"]
    assert [trade["time"] - START_MS for trade in trades] == [100, 2000, 12_000]
    assert time["serverTime"] - START_MS == pytest.approx(12_100, abs=20)
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row["speed"] for row in rows if "speed" in row] == [10, 0, 10, 10, 10]
    done = replay(journal, lambda _: None)
    assert (done.difference, done.outputs) == ("", 3)


def test_a_market_that_the_machine_cannot_play_so_fast_goes_as_fast_as_it_can() -> None:
    """Each event takes 10 ms, and 15,000 are due in a second."""
    late: list[int] = []
    spent_ms = 0

    async def main(exchange: PaperExchange, _get: Any, _until: Any) -> None:
        assert exchange.server is not None
        venue, enough = exchange.server.venue, asyncio.Event()
        feed = venue.feed

        def slow(event: MarketEvent) -> None:
            nonlocal spent_ms
            late.append(venue.now_ms() - event.time_ms)
            spent_ms += 10
            if len(late) == 500:
                enough.set()
            feed(event)

        venue.feed = slow  # type: ignore[method-assign]
        await enough.wait()

    served(Options(symbols=(SYMBOL,), speed=1000), main, lambda: spent_ms)
    assert max(late) < 1000


def test_a_speed_that_cannot_be_is_refused_and_changes_nothing() -> None:
    bad: dict[str, dict[str, Any]] = {
        "speed: expected a number from 0.01 to 1000, or 0 to stand still, got 1001": {"speed": 1001},
        "speed: expected a number from 0.01 to 1000, or 0 to stand still, got '60'": {"speed": "60"},
        "speed: expected this field, got none": {},
        "pause: expected one of speed, got this field": {"speed": 1, "pause": True},
    }

    async def main(exchange: PaperExchange, _get: Any, _until: Any) -> None:
        url = f"{exchange.control_url}/control/market"
        for expected, body in bad.items():
            async with exchange.session.patch(url, json=body) as answer:
                assert (answer.status, await answer.json()) == (400, {"error": expected})
        async with exchange.session.get(url) as answer:
            told = await answer.json()
        assert told == {"market": "synthetic", "speed": 1, "marketTime": pytest.approx(START_MS, abs=100)}

    served(Options(symbols=(SYMBOL,)), main)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--speed", "2000"], id="too fast"),
        pytest.param(["--speed", "fast"], id="text"),
        pytest.param(["--speed", "2", "--market", "live"], id="followed"),
    ],
)
def test_the_command_line_names_a_speed_that_cannot_be(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line(["serve", *options])
    assert ended.value.code == 2
    assert "argument --speed: speed: expected" in capsys.readouterr().err
