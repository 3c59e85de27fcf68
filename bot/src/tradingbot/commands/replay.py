"""`tradingbot replay`: a bot over recorded candles."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from rich.console import Console

from tradingbot.commands.shared import Commands, UsageError, add_command, add_strategies_dir, need_paper_exchange

FEE: Final = Decimal("0.001")
PIPE_WIDTH: Final = 110
"""Columns of what is written into a file or a pipe."""


def add(commands: Commands) -> None:
    """Add it."""
    replay = add_command(
        commands,
        "replay",
        _replay,
        about="trade recorded candles with a manifest's strategy, risk and protection",
        more="The bot's own engine decides and the paper exchange's own core fills. With --set a field takes several "
        "values, and each combination is replayed, on all cores.",
        examples="""
            tradingbot replay bot.yaml --candles BTCUSDT-1m-2024-08-08.zip
            tradingbot replay bot.yaml --candles klines/ --symbol all --from 2023-03-10 --to 2023-03-15
            tradingbot replay bot.yaml --candles klines/ --strategy ema-cross --set fast=8..20:4 --set slow=26,52
            tradingbot replay bot.yaml --candles klines/ --set protection.stopLossRatio=0.01..0.03:0.01 --html r.html
        """,
    )
    replay.add_argument("file", type=Path, metavar="FILE", help="a TradingBot manifest")
    replay.add_argument(
        "--candles",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="CSV (also .gz or .zip) of Binance's klines, or with a header; or a folder of such files; may be repeated",
    )
    replay.add_argument("--symbol", metavar="A,B", help="what to trade, or all (default: the manifest's)")
    replay.add_argument(
        "--exchange-info",
        type=Path,
        metavar="FILE",
        help="the answer of Binance's /api/v3/exchangeInfo, for symbols that the paper exchange does not have",
    )
    replay.add_argument("--strategy", metavar="NAME", help="instead of the manifest's strategy and its parameters")
    replay.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a parameter of the strategy, or with dots a field of the spec: a value, A,B or FROM..TO[:STEP]",
    )
    replay.add_argument("--from", dest="start", type=_time, metavar="TIME", help="first candle to trade, UTC")
    replay.add_argument("--to", dest="end", type=_time, metavar="TIME", help="trade the candles before it, UTC")
    replay.add_argument(
        "--fills",
        choices=("exchange", "next-open"),
        default="exchange",
        help="how orders fill: by the paper exchange's matching with stops, or, to compare with other programs, whole "
        "at the next candle's open without stop, spread or depth (default %(default)s)",
    )
    replay.add_argument(
        "--workers", type=_workers, default=0, metavar="N", help="processes (default: one for each core)"
    )
    replay.add_argument(
        "--fee",
        type=_fee,
        default=FEE,
        metavar="RATIO",
        help="commission of maker and taker, a share of what is received (default %(default)s)",
    )
    replay.add_argument("--json", type=Path, metavar="FILE", help="write all figures and trades; - is the output")
    replay.add_argument("--html", type=Path, metavar="FILE", help="write a page with equity, drawdown and trades")
    add_strategies_dir(replay)


def _time(text: str) -> int:
    """Milliseconds since 1970 UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"expected a time such as 2023-03-10 or 2023-03-10T12:00, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _fee(text: str) -> Decimal:
    try:
        fee = Decimal(text)
    except InvalidOperation:
        fee = Decimal(-1)
    if not 0 <= fee < Decimal("0.1") or fee != round(fee, 8):
        raise argparse.ArgumentTypeError(f"expected 0 to 0.1 with at most 8 decimals, such as {FEE}, got {text!r}")
    return fee


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"expected 1 to 1024, got {text!r}")
    return int(text)


def _replay(options: argparse.Namespace) -> int:
    need_paper_exchange("replay")
    from tradingbot.lab.candle_exchange import FillModel
    from tradingbot.lab.recording import RecordingError
    from tradingbot.lab.replay_grid import GridError
    from tradingbot.lab.replay_run import ReplayOrder, run_replay

    order = ReplayOrder(
        manifest=options.file,
        candles=tuple(options.candles),
        symbols=tuple(options.symbol.split(",")) if options.symbol else (),
        strategy=options.strategy,
        variations=tuple(options.set),
        start_ms=options.start,
        end_ms=options.end,
        workers=options.workers or len(os.sched_getaffinity(0)),
        json_file=options.json,
        html_file=options.html,
        exchange_info=options.exchange_info,
        model=FillModel(fee=options.fee, next_open=options.fills == "next-open"),
    )
    output = sys.stderr if options.json == Path("-") else sys.stdout
    console = Console(file=output, width=None if output.isatty() else PIPE_WIDTH)
    try:
        return run_replay(order, console)
    except (RecordingError, GridError) as error:
        raise UsageError(f"replay: {error}") from error
    except OSError as error:
        raise UsageError(f"replay: {error.filename}: {error.strerror}") from error
