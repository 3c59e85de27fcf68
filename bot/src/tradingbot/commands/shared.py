"""What commands share: how one is added with its help, options that several have, and the error of a wrong one."""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, TextIO, cast

import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import BotIdentity

Commands = Any
"""What `ArgumentParser.add_subparsers` gives; argparse does not name its type in public."""


class UsageError(Exception):
    """The command line cannot be used as it is; the text names the option."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    about: str,
    more: str = "",
    examples: str,
) -> argparse.ArgumentParser:
    """A command with its help: one line in the list of all, that line with `more` and examples in its own."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.{more and ' '}{more}",
        epilog="examples:\n" + indent(dedent(examples).strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def add_strategies_dir(parser: argparse.ArgumentParser) -> None:
    """The option of commands that make a strategy."""
    parser.add_argument(
        "--strategies-dir",
        type=Path,
        metavar="DIR",
        help=f"Python files that define strategies of one's own (default {names.STRATEGIES_DIR})",
    )


def add_market(group: argparse._ActionsContainer) -> None:
    """The options of commands with a paper exchange of their own."""
    group.add_argument("--symbol", default="BTCUSDT", help="what to trade (default %(default)s)")
    group.add_argument(
        "--market", default="synthetic", help="synthetic[:MOOD], capture:DIR or archive:DIR (default %(default)s)"
    )
    group.add_argument("--seed", type=int, default=7, help="which synthetic market (default %(default)s)")


def need_paper_exchange(what: str) -> None:
    """UsageError where the lab is not installed."""
    if importlib.util.find_spec("paper_exchange") is None:
        raise UsageError(f"{what}: the paper exchange is not installed: install tradingbot[lab]")


def home_states() -> Path:
    """Where bots that have no pod keep their state."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tradingbot"


def home_state(bot: BotIdentity) -> Path:
    """The state directory of one of them."""
    return home_states() / bot.namespace / bot.name


class _Lossy(io.TextIOBase):
    """Loses what cannot be written, as on a full disk: a line of the log must not end a trade, or the process."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """As of any file."""
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """As of any file."""
        with suppress(OSError):
            self._file.flush()


def log_json(level: int = logging.INFO) -> None:
    """JSON lines on stderr; levels of libraries are kept low."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=False,
    )
