"""`tradingbot replay-flight`: decide again what a bot recorded."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from tradingbot.commands.shared import Commands, UsageError, add_command, add_strategies_dir


def add(commands: Commands) -> None:
    """Add it."""
    replay = add_command(
        commands,
        "replay-flight",
        _replay_flight,
        about="decide again what a bot's flight recorder kept, and compare",
        more="Ends with 1 where anything comes out otherwise.",
        examples="""
            tradingbot replay-flight ~/.local/state/tradingbot/default/btcusdt/flight
            tradingbot replay-flight flight-20260301T120000-0001.jsonl.gz --strategies-dir my_strategies
        """,
    )
    replay.add_argument("files", nargs="+", type=Path, metavar="PATH", help="a file, or the folder of a bot's files")
    add_strategies_dir(replay)


def _replay_flight(options: argparse.Namespace) -> int:
    from tradingbot.lab.flight_replay import FlightInvalidError, run_replay_flight

    try:
        return run_replay_flight(options.files, Console())
    except FlightInvalidError as error:
        raise UsageError(f"replay-flight: {error}") from error
