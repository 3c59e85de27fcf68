"""`tradingbot run`: a bot of a manifest, of an operator's configuration, or on an embedded paper exchange."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop
from rich.console import Console

from tradingbot.app import BotApp, Options
from tradingbot.applied import check_strategy
from tradingbot.commands.shared import (
    Commands,
    UsageError,
    add_command,
    add_market,
    add_strategies_dir,
    home_state,
    log_json,
    need_paper_exchange,
)
from tradingbot.config import load_manifest, load_pod_config
from tradingbot.recovery.safe_mode import DRAWDOWN, FLATTENED, STORE_LOST
from tradingbot_api import names

FLIGHT_DIR = "flight"


def add(commands: Commands) -> None:
    """Add it."""
    run = add_command(
        commands,
        "run",
        _run,
        about="run a bot",
        more="Of a manifest, of an operator's configuration, or on an embedded paper exchange, until SIGTERM.",
        examples="""
            tradingbot run --paper --symbol BTCUSDT        trade on an embedded paper exchange, nothing else needed
            tradingbot run --paper --duration 60           the same for a minute
            tradingbot run --paper --flight-dir flight     record what is decided, for replay-flight
            tradingbot run bot.yaml --credentials-dir keys trade a TradingBot manifest without an operator
            tradingbot run bot.yaml --credentials-dir keys --clear flattened   and go on after `tradingbot flatten`
            tradingbot run --config config.json            what a pod runs
        """,
    )
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
        help="where orders and fills are kept (default: ~/.local/state/tradingbot/NAMESPACE/NAME; "
        f"with --config: {names.STATE_DIR})",
    )
    run.add_argument(
        "--podinfo-dir",
        type=Path,
        metavar="DIR",
        help=f"file with the pod's own annotations (default with --config: {names.PODINFO_DIR})",
    )
    run.add_argument(
        "--flight-dir",
        type=Path,
        metavar="DIR",
        help="where what was decided is recorded (default: flight in the state directory; with --paper nowhere)",
    )
    run.add_argument("--host", help="address to listen on (default: 0.0.0.0 with --config, else 127.0.0.1)")
    run.add_argument("--probe-port", type=_port, help="port of probes and metrics, 0 = any")
    run.add_argument("--control-port", type=_port, help="port of the operator's control, 0 = any")
    run.add_argument(
        "--clear",
        action="append",
        default=[],
        choices=[cause.id for cause in (DRAWDOWN, FLATTENED, STORE_LOST)],
        help="end a latched cause of safe mode at this start, without an operator; may be given again",
    )
    run.add_argument("--debug", action="store_true", help="log every candle and failed call")
    paper = run.add_argument_group("on an embedded paper exchange")
    paper.add_argument("--paper", action="store_true", help="start a paper exchange and an account for this run")
    add_market(paper)
    paper.add_argument("--duration", type=float, metavar="SECONDS", help="stop after this long")
    add_strategies_dir(run)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {port}")
    return port


def _run(options: argparse.Namespace) -> int:
    log_json(logging.DEBUG if options.debug else logging.INFO)
    chosen = sum((options.file is not None, options.config is not None, options.paper))
    if chosen != 1:
        raise UsageError("run: expected exactly one of FILE, --config FILE and --paper")
    if options.clear and options.file is None:
        raise UsageError(f"--clear: expected FILE with it; elsewhere annotate {names.CLEAR_ANNOTATION}=CAUSE")
    if options.paper:
        return _run_paper(options)
    started = _pod_options(options) if options.config is not None else _manifest_options(options)
    return _serve(started)


def _pod_options(options: argparse.Namespace) -> Options:
    received = load_pod_config(options.config)
    state_dir = options.state_dir or Path(names.STATE_DIR)
    return Options(
        config=received.config,
        unknown_fields=received.unknown,
        stand_in=received.stand_in,
        config_file=options.config,
        podinfo_dir=options.podinfo_dir or Path(names.PODINFO_DIR),
        tls_dir=options.tls_dir or Path(names.TLS_DIR),
        credentials_dir=options.credentials_dir or Path(names.CREDENTIALS_DIR),
        state_dir=state_dir,
        flight_dir=options.flight_dir or state_dir / FLIGHT_DIR,
        host=options.host or "0.0.0.0",  # noqa: S104 - a pod's probes come from outside of it
        probe_port=names.PROBE_PORT if options.probe_port is None else options.probe_port,
        control_port=names.CONTROL_PORT if options.control_port is None else options.control_port,
        local=True,
    )


def _manifest_options(options: argparse.Namespace) -> Options:
    config = load_manifest(options.file)
    check_strategy(config.settings)
    if options.credentials_dir is None:
        raise UsageError("--credentials-dir: expected a directory with the files apiKey and apiSecret (or privateKey)")
    structlog.get_logger("bot").warning(
        "no operator: no grant is needed, only the fence on the exchange keeps a second process from trading"
    )
    state_dir = options.state_dir or home_state(config.bot)
    return Options(
        config=config,
        credentials_dir=options.credentials_dir,
        state_dir=state_dir,
        flight_dir=options.flight_dir or state_dir / FLIGHT_DIR,
        host=options.host or "127.0.0.1",
        probe_port=options.probe_port or 0,
        local=True,
        clear=tuple(options.clear),
    )


def _serve(options: Options) -> int:
    gc.freeze()  # the collector's look at all that was imported stopped a bot for some 80 ms, also in an exit

    def listening(probe_port: int, control_port: int | None) -> None:
        line = {"event": "listening", "probePort": probe_port, "controlPort": control_port}
        print(json.dumps(line), flush=True)  # noqa: T201 - the one line that programs read

    uvloop.run(_run_until_signal(options, listening))
    return 0


async def _run_until_signal(options: Options, listening: Callable[[int, int | None], None]) -> None:
    app = BotApp(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run(listening)


def _run_paper(options: argparse.Namespace) -> int:
    need_paper_exchange("--paper")
    from tradingbot.lab.paper import PaperRun, run_paper

    logging.getLogger().setLevel(logging.ERROR)
    return uvloop.run(
        run_paper(
            PaperRun(
                symbol=options.symbol,
                market=options.market,
                seed=options.seed,
                duration=options.duration,
                flight_dir=options.flight_dir,
            ),
            Console(),
        )
    )
