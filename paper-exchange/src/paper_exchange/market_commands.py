"""The commands about markets, without an exchange: what one is like, and fetching Binance's archives."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
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

_FETCH_EXAMPLES: Final = """examples:
  paper-exchange fetch BTCUSDT --from 2024-08-08 --dir ./archives
  paper-exchange fetch BTCUSDT --kind 1m --from 2024-08-01 --to 2024-08-31 --dir ./archives
"""
_BAR: Final = 30
_ERASE: Final = "\r\x1b[K"


def add_market_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `market-stats` and `fetch` to the command line."""
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

    get = commands.add_parser(
        "fetch",
        help="get Binance's daily archives, for --market archive:DIR",
        description="Get Binance's daily archives, for --market archive:DIR. What is there is kept.",
        epilog=_FETCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    get.set_defaults(about_markets=fetch_archives)
    get.add_argument("symbol", type=_symbol, metavar="SYMBOL", help="BTCUSDT, ...")
    get.add_argument(
        "--kind", default="aggTrades", help="trades, aggTrades, or candles: 1s, 1m, ... (default %(default)s)"
    )
    get.add_argument("--from", dest="first", type=_day, required=True, metavar="DAY", help="the first day, YYYY-MM-DD")
    get.add_argument("--to", dest="last", type=_day, metavar="DAY", help="the last day (default: the first)")
    get.add_argument("--dir", type=Path, required=True, help="where to put them; made where it is missing")
    get.add_argument("--base-url", default="https://data.binance.vision", help="from where (default %(default)s)")


def _symbol(value: str) -> str:
    if not re.fullmatch("[A-Z0-9]+", value):
        raise argparse.ArgumentTypeError(f"expected a symbol such as BTCUSDT, got {value!r}")
    return value


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2024-08-08, got {value!r}") from None


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


def fetch_archives(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Fetch an archive for each day, told on stderr; 1 where one cannot be had."""
    from paper_exchange.market.archive_files import KINDS, ArchiveName
    from paper_exchange.market.fetch import FetchError, fetch

    last = options.last or options.first
    if options.kind not in KINDS:
        bad(parser, "--kind", f"expected one of {', '.join(KINDS)}, got {options.kind!r}")
    if last < options.first:
        bad(parser, "--to", f"expected {options.first} or a later day, got {last}")
    if not options.base_url.startswith(("http://", "https://")):
        bad(parser, "--base-url", f"expected an address such as https://data.binance.vision, got {options.base_url!r}")
    try:
        options.dir.mkdir(parents=True, exist_ok=True)
        for number in range((last - options.first).days + 1):
            name = ArchiveName(options.symbol, options.kind, options.first + timedelta(days=number))
            fetched = fetch(name, options.dir, options.base_url, _show)
            sys.stderr.write(
                f"{_ERASE if sys.stderr.isatty() else ''}{name.stem}.zip: {'got' if fetched else 'kept'}\n"
            )
    except FetchError as error:
        sys.stderr.write(f"{_ERASE if sys.stderr.isatty() else ''}{error}\n")
        return 1
    except OSError as error:
        bad(parser, "--dir", error)
    return 0


def _show(name: str, here: int, size: int) -> None:
    """A progress bar, where somebody looks."""
    if sys.stderr.isatty():
        share = here / size if size else 1.0
        bar = "#" * round(share * _BAR)
        sys.stderr.write(f"{_ERASE}{name} [{bar:<{_BAR}}] {share:4.0%} of {size / 2**20:.1f} MiB")
        sys.stderr.flush()
