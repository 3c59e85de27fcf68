"""The commands about markets, without an exchange: what one is like."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from typing import TYPE_CHECKING, Final

from paper_exchange.commands import Commands, bad

if TYPE_CHECKING:
    from collections.abc import Sequence

# The exchange's modules are imported by who needs them: the command line must not wait for them.

_START_MS: Final = 1_767_225_600_000
"""A full minute, so that nothing of an archive is left out."""

_STATS_EXAMPLES: Final = """examples:
  paper-exchange market-stats synthetic --seconds 600
  paper-exchange market-stats synthetic:thin capture:./recording --seconds 600
  paper-exchange market-stats archive:./archives --symbols BTCUSDT,ETHUSDT --seconds 86400
"""


def add_market_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `market-stats` to the command line."""
    stats = commands.add_parser(
        "market-stats",
        help="spread, trades, volatility and depth of markets, side by side",
        description="Spread, trades, volatility and depth of markets, side by side.",
        epilog=_STATS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    stats.set_defaults(about_markets=market_stats)
    stats.add_argument("markets", nargs="+", metavar="MARKET", help="synthetic[:MOOD], capture:DIR or archive:DIR")
    stats.add_argument("--symbols", default="BTCUSDT", help="which of its symbols (default %(default)s)")
    stats.add_argument("--seconds", type=_seconds, default=600, help="of its beginning (default %(default)s)")
    stats.add_argument("--seed", type=int, default=1, help="which synthetic market (default %(default)s)")


def _seconds(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise argparse.ArgumentTypeError(f"expected a number of seconds such as 600, got {value!r}")
    return int(value)


def market_stats(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Print a table with a column for each market and symbol."""
    from paper_exchange.market import open_market
    from paper_exchange.market.events import MarketError
    from paper_exchange.market.statistics import watch

    symbols = tuple(symbol for symbol in options.symbols.split(",") if symbol)
    columns = []
    for spec in options.markets:
        try:
            market = open_market(spec, symbols, options.seed, _START_MS)
            for symbol, figures in watch(market, symbols, _START_MS, options.seconds).items():
                columns.append({"market": spec, "symbol": symbol} | figures)
        except MarketError as error:
            bad(parser, "MARKET", error)
    names = list(dict.fromkeys(chain.from_iterable(columns)))
    sys.stdout.write(_table([[name, *(column.get(name, "-") for column in columns)] for name in names]))
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip() + "\n" for row in rows
    )
