"""The command line: serve an exchange, and administer its accounts and keys."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from paper_exchange.commands import add_commands, bad, run
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.market_commands import add_market_commands

if TYPE_CHECKING:
    from paper_exchange.server.app import PaperExchangeServer

# The server's modules are imported by the command that needs them: making an account must not wait for them.

_EXAMPLES = """examples:
  paper-exchange serve --data-dir ./exchange
  paper-exchange serve --symbols BTCUSDT --market capture:./recording --port 0 --control-port 0
  paper-exchange serve --market synthetic:crash
  paper-exchange serve --market live
  paper-exchange serve --symbols BTCUSDT,ETHUSDT --market archive:./archives --speed 60
  paper-exchange serve --data-dir ./exchange --journal ./journal.jsonl
  paper-exchange serve --scenario flash-crash-gap
  paper-exchange run --scenario ban --duration 300 -- tradingbot run bot.yaml --credentials-dir {credentials}
  paper-exchange replay ./journal.jsonl --events
  paper-exchange fetch BTCUSDT --from 2024-08-08 --to 2024-08-09 --dir ./archives
  paper-exchange market-stats synthetic:thin capture:./recording --seconds 600
  paper-exchange account create --deposit USDT=10000
  paper-exchange account create --deposit USDT=10000 --deposit BTC=1 --data-dir ./exchange --output json
  paper-exchange account withdraw 100000001 --amount BTC=0.5
  paper-exchange account reset 100000001 --deposit USDT=10000
  paper-exchange key create 100000001 --read-only --ip 127.0.0.1
  paper-exchange reset --deposit USDT=10000
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, which is 2 for bad input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _serve(parser, options)
    if options.command == "run":
        return _run_bot(parser, options)
    if options.command == "replay":
        return _replay(parser, options)
    if "about_markets" in options:
        return int(options.about_markets(parser, options))
    return run(parser, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paper-exchange",
        description="Binance Spot as a server, for paper trading, demos and tests.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve an exchange until SIGTERM", allow_abbrev=False)
    _add_server_options(serve)
    run = commands.add_parser(
        "run",
        help="run a bot against an exchange of its own, and report what its account went through",
        usage="paper-exchange run [options] -- COMMAND ...",
        allow_abbrev=False,
    )
    _add_server_options(run)
    run.add_argument(
        "--deposit", action="append", default=[], metavar="ASSET=AMOUNT", help="what the account has (10000 USDT)"
    )
    run.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end the command with SIGTERM after so long")
    run.add_argument("--output", choices=("text", "json"), default="text", help="form of the report")
    run.add_argument("bot", nargs="+", metavar="COMMAND", help="may have {url}, {ws} and {credentials}, a folder")
    replay = commands.add_parser("replay", help="apply a journal again, and compare the events", allow_abbrev=False)
    replay.add_argument("journal", type=Path, metavar="JOURNAL", help="what `serve --journal` wrote")
    replay.add_argument("--events", action="store_true", help="print each event as a line of JSON")
    add_market_commands(commands)
    add_commands(commands)
    return parser


def _add_server_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    serve.add_argument("--port", type=_port, default=8080, help="port of the API, 0 = any (default %(default)s)")
    serve.add_argument("--control-port", type=_port, default=8081, help="control port, 0 = any (default %(default)s)")
    serve.add_argument("--data-dir", type=Path, help="where accounts and orders are kept; in memory when absent")
    serve.add_argument("--symbols", default="BTCUSDT,ETHUSDT,BNBUSDT", help=f"some of {','.join(SYMBOLS)}")
    serve.add_argument(
        "--market",
        default="synthetic",
        help="synthetic[:MOOD], capture:DIR, archive:DIR, live or live:BASE_URL[,STREAM_URL] (default %(default)s)",
    )
    serve.add_argument(
        "--stale-after",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="of a live market: how old the last word of a book may be before orders are refused (default %(default)s)",
    )
    serve.add_argument(
        "--at-end", choices=("halt", "loop"), default="halt", help="of a recording: stand still, or begin again"
    )
    serve.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        help="of a recorded or generated market: its seconds in a second of the clock; 0 stands still (default 1)",
    )
    serve.add_argument("--seed", type=int, default=1, help="which synthetic market (default %(default)s)")
    serve.add_argument(
        "--weight-limit", type=int, default=6000, help="request weight per address and minute (default %(default)s)"
    )
    serve.add_argument(
        "--order-limit", type=int, default=100, help="new orders per account in ten seconds (default %(default)s)"
    )
    serve.add_argument(
        "--connection-limit", type=int, default=300, help="WebSockets per address in 5 minutes (default %(default)s)"
    )
    serve.add_argument("--scenario", default="", help="a file of faults and market moves, or the name of a shipped one")
    serve.add_argument(
        "--fault-log", type=Path, help="where it is told what faults did, as JSON lines (default DATA_DIR/faults.jsonl)"
    )
    serve.add_argument("--journal", type=Path, help="where each input of the engine is written")


def _port(value: str) -> int:
    if not value.isdigit() or int(value) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {value!r}")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 3600, got {value!r}")
    return seconds


def _speed(value: str) -> float:
    from paper_exchange.market.playback import SpeedInvalidError, speed_of

    given: object = value
    with suppress(ValueError):
        given = float(value)
    try:
        return speed_of("speed", given)
    except SpeedInvalidError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _log_to_stderr() -> None:
    import structlog

    common = (structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True))
    last = (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[*common, *last],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    libraries = logging.StreamHandler(sys.stderr)
    without_record = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=[without_record, *last])
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING)


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import uvloop

    return uvloop.run(_run(_made(parser, options)))


def _run_bot(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import uvloop

    from paper_exchange.amounts import ControlInvalidError, parse_deposits
    from paper_exchange.market.events import MarketError
    from paper_exchange.runner import BotRun, run_bot

    try:
        deposits = parse_deposits(dict(one.partition("=")[::2] for one in options.deposit or ["USDT=10000"]))
    except ControlInvalidError as error:
        bad(parser, "--deposit", error)
    server = _made(parser, options)
    try:
        report = uvloop.run(run_bot(server, BotRun(options.bot, deposits, options.duration)))
    except (FileNotFoundError, PermissionError) as error:
        bad(parser, "COMMAND", error)
    except OSError as error:
        bad(parser, "--port", error)
    except MarketError as error:
        bad(parser, "--market", error)
    if options.output == "json":
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
    else:
        sys.stdout.write("\n".join(report.lines()) + "\n")
    return report.exit_code


def _made(parser: argparse.ArgumentParser, options: argparse.Namespace) -> PaperExchangeServer:
    """The server that the options ask for; ends with 2 where there can be none."""
    from paper_exchange.faults.scenario import ScenarioInvalidError
    from paper_exchange.journal import JournalFileError
    from paper_exchange.market.events import MarketError
    from paper_exchange.market.playback import SpeedInvalidError
    from paper_exchange.server.app import Options, PaperExchangeServer, UnknownSymbolError
    from paper_exchange.server.connections import ConnectionLimits
    from paper_exchange.server.live import LiveTimes

    _log_to_stderr()
    settings = Options(
        symbols=tuple(symbol for symbol in options.symbols.split(",") if symbol),
        market=options.market,
        seed=options.seed,
        loop=options.at_end == "loop",
        speed=options.speed,
        host=options.host,
        port=options.port,
        control_port=options.control_port,
        data_dir=options.data_dir,
        journal=options.journal,
        weight_per_minute=options.weight_limit,
        orders_10s=options.order_limit,
        connections=ConnectionLimits(options.connection_limit),
        live=LiveTimes(stale=options.stale_after),
        fault_log=options.fault_log,
        scenario=options.scenario,
    )
    try:
        return PaperExchangeServer(settings)
    except UnknownSymbolError as error:
        bad(parser, "--symbols", error)
    except SpeedInvalidError as error:
        bad(parser, "--speed", error)
    except MarketError as error:
        bad(parser, "--market", error)
    except ScenarioInvalidError as error:
        bad(parser, "--scenario", error)
    except JournalFileError as error:
        bad(parser, "--journal", error)
    except OSError as error:
        bad(parser, "--fault-log" if error.filename == str(options.fault_log) else "--data-dir", error)


def _replay(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from paper_exchange.journal import JournalInvalidError, replay

    def hear(line: str) -> None:
        if options.events:
            sys.stdout.write(line + "\n")

    try:
        done = replay(options.journal, hear)
    except (JournalInvalidError, OSError) as error:
        bad(parser, "JOURNAL", error)
    told = f"{done.starts} starts, {done.inputs} inputs, {done.outputs} events"
    sys.stderr.write(f"{told}; {done.difference or 'the same ones as were told then'}\n")
    return int(bool(done.difference))


async def _run(server: PaperExchangeServer) -> int:
    import structlog

    from paper_exchange.market.events import MarketError

    log = structlog.get_logger("paper_exchange")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await server.start()
        # Modules and the market's history stay: a collection that went through them all would hold every answer up.
        gc.collect()
        gc.freeze()
    except OSError as error:
        log.error("cannot listen; choose another --host, --port or --control-port", error=str(error))
        return 1
    except MarketError as error:
        log.error("the market cannot be followed; is --market right, and can it be reached?", error=str(error))
        return 1
    listening = {"event": "listening", "baseURL": server.base_url, "controlURL": server.control_url}
    sys.stdout.write(json.dumps(listening) + "\n")
    sys.stdout.flush()
    log.info("listening", base_url=server.base_url, control_url=server.control_url, market=server.options.market)
    await stopping.wait()
    log.info("stopping")
    await server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
