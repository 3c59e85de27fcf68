"""`tradingbot sim`: a bot on virtual time."""

from __future__ import annotations

import argparse
import logging
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from tradingbot.commands.shared import (
    Commands,
    UsageError,
    add_command,
    add_market,
    add_strategies_dir,
    need_paper_exchange,
)


def add(commands: Commands) -> None:
    """Add it."""
    sim = add_command(
        commands,
        "sim",
        _sim,
        about="run a bot on an embedded paper exchange on virtual time",
        more="The same seed gives the same orders.",
        examples="""
            tradingbot sim --symbol BTCUSDT --hours 24                a day in minutes
            tradingbot sim --hours 1 --seed 8 --journal inputs.jsonl  keep each input of the exchange
        """,
    )
    add_market(sim)
    sim.add_argument("--hours", type=_hours, default=1.0, help="how long, virtually (default %(default)s)")
    sim.add_argument(
        "--journal", type=Path, metavar="FILE", help="each input of the exchange, for paper-exchange replay"
    )
    add_strategies_dir(sim)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours <= 24 * 366:
        raise argparse.ArgumentTypeError(f"expected hours above 0 and at most a year's, got {text!r}")
    return hours


def _sim(options: argparse.Namespace) -> int:
    need_paper_exchange("sim")
    from paper_exchange.journal import JournalFileError
    from paper_exchange.market.events import MarketError
    from tradingbot.lab.sim import SimRun, run_sim

    if options.market.startswith("live"):
        raise UsageError(f"--market: expected a market that does not need the time of now, got {options.market!r}")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        return run_sim(
            SimRun(
                symbol=options.symbol,
                duration=timedelta(hours=options.hours),
                market=options.market,
                seed=options.seed,
                journal=options.journal,
            ),
            Console(),
        )
    except MarketError as error:
        raise UsageError(f"sim: {error}") from error
    except JournalFileError as error:
        raise UsageError(f"--journal: {error}") from error
