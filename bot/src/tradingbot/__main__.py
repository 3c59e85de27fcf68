"""The command line: finds the command, and says what was wrong with its arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tradingbot.app import StartError
from tradingbot.applied import ConfigRefusedError
from tradingbot.commands import check, flatten, replay, replay_flight, run, sim, status
from tradingbot.commands.shared import UsageError
from tradingbot.config import ConfigError
from tradingbot.engine.strategies import CATALOGUE
from tradingbot_api import names

EXAMPLES = """examples:
  tradingbot run --paper --symbol BTCUSDT        trade on an embedded paper exchange, nothing else needed
  tradingbot run bot.yaml --credentials-dir keys trade a TradingBot manifest without an operator
  tradingbot status bot.yaml                     how it is; in a pod: kubectl exec POD -- tradingbot status
  tradingbot flatten bot.yaml                    sell its position, and open nothing until a human says so
  tradingbot sim --symbol BTCUSDT --hours 24     the same in minutes, on virtual time
  tradingbot replay bot.yaml --candles klines/    trade recorded candles, with several parameters at once
  tradingbot replay-flight DIR                   decide again what a bot recorded, and compare
  tradingbot check bot.yaml                      say whether a manifest can be used
  tradingbot strategies                          list the strategies and their parameters

`tradingbot COMMAND --help` has the options and examples of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it ended well, 2 for bad input, else what the command's help says."""
    options = _parser().parse_args(arguments)
    CATALOGUE.add_packages()
    CATALOGUE.add_modules(getattr(options, "strategies_dir", None) or Path(names.STRATEGIES_DIR))
    try:
        return int(options.command(options))
    except (UsageError, ConfigError, ConfigRefusedError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tradingbot",
        description="A Binance Spot trading bot: one process, one symbol.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, status, flatten, sim, replay, replay_flight, check):
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
