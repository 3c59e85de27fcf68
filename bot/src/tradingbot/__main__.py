"""The command line: run a bot, check a manifest, list the strategies."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from tradingbot.app import BotApp, Options, StartError
from tradingbot.applied import ConfigRefusedError, check_strategy
from tradingbot.config import ConfigError, load_manifest, load_pod_config
from tradingbot.engine.strategies import CATALOGUE
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig

EXAMPLES = """examples:
  tradingbot run --paper --symbol BTCUSDT        trade on an embedded paper exchange, nothing else needed
  tradingbot run bot.yaml --credentials-dir keys trade a TradingBot manifest without an operator
  tradingbot sim --symbol BTCUSDT --hours 24     the same in minutes, on virtual time
  tradingbot check bot.yaml                      say whether a manifest can be used
  tradingbot strategies                          list the strategies and their parameters
"""


class UsageError(Exception):
    """The command line cannot be used as it is; the text names the option."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it ended well, 2 for bad input."""
    options = _parser().parse_args(arguments)
    CATALOGUE.add_packages()
    CATALOGUE.add_modules(options.strategies_dir or Path(names.STRATEGIES_DIR))
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

    run = commands.add_parser(
        "run",
        help="run a bot",
        description="Run a bot: of a manifest, of an operator's configuration, or on an embedded paper exchange.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    run.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a TradingBot manifest")
    run.add_argument("--config", type=Path, metavar="FILE", help="configuration written by the operator")
    run.add_argument(
        "--tls-dir",
        type=Path,
        metavar="DIR",
        help=f"tls.crt, tls.key and ca.crt of the operator (default with --config: {names.TLS_DIR})",
    )
    run.add_argument(
        "--credentials-dir",
        type=Path,
        metavar="DIR",
        help=f"files apiKey and apiSecret or privateKey (default with --config: {names.CREDENTIALS_DIR})",
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help=f"where orders and fills are kept (default with --config: {names.STATE_DIR})",
    )
    run.add_argument(
        "--podinfo-dir",
        type=Path,
        metavar="DIR",
        help=f"file with the pod's own annotations (default with --config: {names.PODINFO_DIR})",
    )
    run.add_argument("--host", help="address to listen on (default: 0.0.0.0 with --config, else 127.0.0.1)")
    run.add_argument("--probe-port", type=_port, help="port of probes and metrics, 0 = any")
    run.add_argument("--control-port", type=_port, help="port of the operator's control, 0 = any")
    run.add_argument("--debug", action="store_true", help="log every candle and failed call")
    paper = run.add_argument_group("on an embedded paper exchange")
    paper.add_argument("--paper", action="store_true", help="start a paper exchange and an account for this run")
    _market_options(paper)
    paper.add_argument("--duration", type=float, metavar="SECONDS", help="stop after this long")

    sim = commands.add_parser(
        "sim", help="run a bot on an embedded paper exchange on virtual time: the same seed gives the same orders"
    )
    sim.set_defaults(command=_sim)
    _market_options(sim)
    sim.add_argument("--hours", type=_hours, default=1.0, help="how long, virtually (default %(default)s)")
    sim.add_argument(
        "--journal", type=Path, metavar="FILE", help="each input of the exchange, for paper-exchange replay"
    )

    check = commands.add_parser("check", help="check a manifest")
    check.set_defaults(command=_check)
    check.add_argument("file", type=Path, metavar="FILE")

    strategies = commands.add_parser("strategies", help="list the strategies")
    strategies.set_defaults(command=_strategies)
    for command in (run, sim, check, strategies):
        command.add_argument(
            "--strategies-dir",
            type=Path,
            metavar="DIR",
            help=f"Python files that define strategies of one's own (default {names.STRATEGIES_DIR})",
        )
    return parser


def _market_options(group: argparse._ActionsContainer) -> None:
    group.add_argument("--symbol", default="BTCUSDT", help="what to trade (default %(default)s)")
    group.add_argument(
        "--market", default="synthetic", help="synthetic[:MOOD], capture:DIR or archive:DIR (default %(default)s)"
    )
    group.add_argument("--seed", type=int, default=7, help="which synthetic market (default %(default)s)")


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours <= 24 * 366:
        raise argparse.ArgumentTypeError(f"expected hours above 0 and at most a year's, got {text!r}")
    return hours


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {port}")
    return port


def _run(options: argparse.Namespace) -> int:
    _log_json(logging.DEBUG if options.debug else logging.INFO)
    chosen = sum((options.file is not None, options.config is not None, options.paper))
    if chosen != 1:
        raise UsageError("run: expected exactly one of FILE, --config FILE and --paper")
    if options.paper:
        return _run_paper(options)
    started = _pod_options(options) if options.config is not None else _manifest_options(options)
    return _serve(started)


def _pod_options(options: argparse.Namespace) -> Options:
    received = load_pod_config(options.config)
    return Options(
        config=received.config,
        unknown_fields=received.unknown,
        stand_in=received.stand_in,
        config_file=options.config,
        podinfo_dir=options.podinfo_dir or Path(names.PODINFO_DIR),
        tls_dir=options.tls_dir or Path(names.TLS_DIR),
        credentials_dir=options.credentials_dir or Path(names.CREDENTIALS_DIR),
        state_dir=options.state_dir or Path(names.STATE_DIR),
        host=options.host or "0.0.0.0",  # noqa: S104 - a pod's probes come from outside of it
        probe_port=names.PROBE_PORT if options.probe_port is None else options.probe_port,
        control_port=names.CONTROL_PORT if options.control_port is None else options.control_port,
    )


def _manifest_options(options: argparse.Namespace) -> Options:
    config = load_manifest(options.file)
    check_strategy(config.settings)
    if options.credentials_dir is None:
        raise UsageError("--credentials-dir: expected a directory with the files apiKey and apiSecret (or privateKey)")
    structlog.get_logger("bot").warning(
        "no operator: no grant is needed, only the fence on the exchange keeps a second process from trading"
    )
    return Options(
        config=config,
        credentials_dir=options.credentials_dir,
        state_dir=options.state_dir or _home_state(config),
        host=options.host or "127.0.0.1",
        probe_port=options.probe_port or 0,
    )


def _home_state(config: BotConfig) -> Path:
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "tradingbot" / config.bot.namespace / config.bot.name


def _serve(options: Options) -> int:
    def listening(probe_port: int, control_port: int | None) -> None:
        line = {"event": "listening", "probePort": probe_port, "controlPort": control_port}
        print(json.dumps(line), flush=True)  # noqa: T201 - the one line that programs read

    uvloop.run(run_until_signal(options, listening))
    return 0


async def run_until_signal(
    options: Options,
    listening: Callable[[int, int | None], None] | None = None,
    tell: Callable[[str, dict[str, Any]], None] | None = None,
) -> None:
    """Run a bot until SIGTERM or SIGINT."""
    app = BotApp(options, tell)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run(listening)


def _need_paper_exchange(what: str) -> None:
    if importlib.util.find_spec("paper_exchange") is None:
        raise UsageError(f"{what}: the paper exchange is not installed: install tradingbot[lab]")


def _sim(options: argparse.Namespace) -> int:
    _need_paper_exchange("sim")
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


def _run_paper(options: argparse.Namespace) -> int:
    _need_paper_exchange("--paper")
    from tradingbot.lab.paper import PaperRun, run_paper

    logging.getLogger().setLevel(logging.ERROR)
    return uvloop.run(
        run_paper(
            PaperRun(symbol=options.symbol, market=options.market, seed=options.seed, duration=options.duration),
            Console(),
        )
    )


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


def _log_json(level: int) -> None:
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
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


if __name__ == "__main__":
    sys.exit(main())
