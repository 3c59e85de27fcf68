"""`tradingbot check` and `tradingbot strategies`: what can be used, before anything runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tradingbot.applied import check_strategy
from tradingbot.commands.shared import Commands, add_command, add_strategies_dir
from tradingbot.config import load_manifest
from tradingbot.engine.strategies import CATALOGUE


def add(commands: Commands) -> None:
    """Add both."""
    check = add_command(
        commands,
        "check",
        _check,
        about="say whether a manifest can be used",
        more="Wrong fields are named with what was expected.",
        examples="""
            tradingbot check bot.yaml
            tradingbot check bot.yaml --strategies-dir my_strategies   with strategies of one's own
        """,
    )
    check.add_argument("file", type=Path, metavar="FILE", help="a TradingBot manifest")
    strategies = add_command(
        commands,
        "strategies",
        _strategies,
        about="list the strategies with their parameters",
        more="Ends with 1 where one of one's own cannot be used.",
        examples="""
            tradingbot strategies
            tradingbot strategies --strategies-dir my_strategies   with strategies of one's own
        """,
    )
    for command in (check, strategies):
        add_strategies_dir(command)


def _check(options: argparse.Namespace) -> int:
    config = load_manifest(options.file)
    check_strategy(config.settings)
    settings = config.settings
    Console().print(
        f"{options.file}: {config.bot.name} trades {settings.symbol} on {settings.exchange.environment} with "
        f"{settings.strategy.name} ({settings.strategy.interval.value}), capital {settings.capital:f}: can be used"
    )
    return 0


def _strategies(_: argparse.Namespace) -> int:
    table = Table("strategy", "from", "parameter", "type", "default", "meaning")
    for name, offered in sorted(CATALOGUE.strategies.items()):
        fields = offered.kind.Parameters.model_fields
        if not fields:
            table.add_row(name, offered.source)
        for parameter, field in fields.items():
            kind_name = getattr(field.annotation, "__name__", str(field.annotation))
            default = "required" if field.is_required() else str(field.default)
            table.add_row(name, offered.source, parameter, kind_name, default, field.description or "")
    Console().print(table)
    for problem in CATALOGUE.problems:
        print(f"cannot be used: {problem}", file=sys.stderr)  # noqa: T201
    return 1 if CATALOGUE.problems else 0
