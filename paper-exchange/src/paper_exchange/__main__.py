"""The command line: serve an exchange, and make accounts on it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import urllib.error
import urllib.request
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from paper_exchange.core.symbols import SYMBOLS

if TYPE_CHECKING:
    from paper_exchange.server.app import Options, PaperExchangeServer

# The server's modules are imported by the command that needs them: making an account must not wait for them.

_EXAMPLES = """examples:
  paper-exchange serve --data-dir ./exchange
  paper-exchange serve --symbols BTCUSDT --market capture:./recording --port 0 --control-port 0
  paper-exchange account create --deposit USDT=10000
  paper-exchange account create --deposit USDT=10000 --deposit BTC=1 --data-dir ./exchange --output json
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, which is 2 for bad input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _serve(parser, options)
    return _create_account(parser, options)


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
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    serve.add_argument("--port", type=_port, default=8080, help="port of the API, 0 = any (default %(default)s)")
    serve.add_argument("--control-port", type=_port, default=8081, help="control port, 0 = any (default %(default)s)")
    serve.add_argument("--data-dir", type=Path, help="where accounts and orders are kept; in memory when absent")
    serve.add_argument("--symbols", default="BTCUSDT,ETHUSDT,BNBUSDT", help=f"some of {','.join(SYMBOLS)}")
    serve.add_argument("--market", default="synthetic", help="synthetic or capture:DIR (default %(default)s)")
    serve.add_argument("--seed", type=int, default=1, help="which synthetic market (default %(default)s)")
    serve.add_argument(
        "--weight-limit", type=int, default=6000, help="request weight per address and minute (default %(default)s)"
    )
    account = commands.add_parser("account", help="accounts of an exchange", allow_abbrev=False)
    create = account.add_subparsers(dest="action", required=True).add_parser(
        "create", help="make an account with keys and money", allow_abbrev=False
    )
    create.add_argument("--deposit", action="append", type=_deposit, required=True, metavar="ASSET=AMOUNT")
    create.add_argument("--public-key", type=Path, metavar="FILE", help="Ed25519 public key (PEM) instead of a secret")
    where = create.add_mutually_exclusive_group()
    where.add_argument("--control-url", default="http://127.0.0.1:8081", help="a running exchange (%(default)s)")
    where.add_argument("--data-dir", type=Path, help="the directory of an exchange that does not run")
    create.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _port(value: str) -> int:
    if not value.isdigit() or int(value) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {value!r}")
    return int(value)


def _deposit(value: str) -> tuple[str, str]:
    asset, separator, amount = value.partition("=")
    try:
        positive = Decimal(amount) > 0
    except InvalidOperation:
        positive = False
    if not separator or not asset.isalnum() or not positive:
        raise argparse.ArgumentTypeError(f"expected ASSET=AMOUNT such as USDT=10000, got {value!r}")
    return asset.upper(), amount


def _bad(parser: argparse.ArgumentParser, option: str, error: object) -> Never:
    parser.error(f"argument {option}: {error}")


def _log_to_stderr() -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import uvloop

    from paper_exchange.market.events import MarketError
    from paper_exchange.server.app import Options, PaperExchangeServer, UnknownSymbolError

    _log_to_stderr()
    settings = Options(
        symbols=tuple(symbol for symbol in options.symbols.split(",") if symbol),
        market=options.market,
        seed=options.seed,
        host=options.host,
        port=options.port,
        control_port=options.control_port,
        data_dir=options.data_dir,
        weight_per_minute=options.weight_limit,
    )
    try:
        server = PaperExchangeServer(settings)
    except UnknownSymbolError as error:
        _bad(parser, "--symbols", error)
    except MarketError as error:
        _bad(parser, "--market", error)
    except OSError as error:
        _bad(parser, "--data-dir", error)
    return uvloop.run(_run(server, settings))


async def _run(server: PaperExchangeServer, settings: Options) -> int:
    import structlog

    log = structlog.get_logger("paper_exchange")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await server.start()
    except OSError as error:
        log.error("cannot listen; choose another --host, --port or --control-port", error=str(error))
        return 1
    listening = {"event": "listening", "baseURL": server.base_url, "controlURL": server.control_url}
    sys.stdout.write(json.dumps(listening) + "\n")
    sys.stdout.flush()
    log.info("listening", base_url=server.base_url, control_url=server.control_url, market=settings.market)
    await stopping.wait()
    log.info("stopping")
    await server.stop()
    return 0


def _create_account(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    deposits = dict(options.deposit)
    public_key = ""
    if options.public_key:
        try:
            public_key = options.public_key.read_text()
        except (OSError, UnicodeDecodeError) as error:
            _bad(parser, "--public-key", error)
    create = _create_offline if options.data_dir else _create_online
    made = create(parser, options, deposits, public_key)
    if options.output == "json":
        sys.stdout.write(json.dumps(made) + "\n")
    else:
        sys.stdout.write("".join(f"{name:<10} {value}\n" for name, value in made.items()))
    return 0


def _create_online(
    parser: argparse.ArgumentParser, options: argparse.Namespace, deposits: dict[str, str], public_key: str
) -> dict[str, Any]:
    if not options.control_url.startswith(("http://", "https://")):
        _bad(parser, "--control-url", f"expected an address such as http://127.0.0.1:8081, got {options.control_url!r}")
    request = urllib.request.Request(  # noqa: S310, the scheme was checked
        options.control_url.rstrip("/") + "/control/accounts",
        data=json.dumps({"deposits": deposits, "publicKey": public_key}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310, the scheme was checked
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace")
        _bad(parser, "--public-key" if "publicKey" in told else "--deposit", told)
    except (urllib.error.URLError, TimeoutError) as error:
        _bad(parser, "--control-url", f"no paper exchange answers at {options.control_url}: {error}")


def _create_offline(
    parser: argparse.ArgumentParser, options: argparse.Namespace, deposits: dict[str, str], public_key: str
) -> dict[str, Any]:
    import time

    from prometheus_client import CollectorRegistry

    from paper_exchange.amounts import ControlInvalidError, check_public_key, parse_deposits
    from paper_exchange.store import Store
    from paper_exchange.venue import Venue

    try:
        amounts = parse_deposits(deposits)
        check_public_key(public_key)
        store = Store(options.data_dir)
    except ControlInvalidError as error:
        _bad(parser, "--public-key" if "publicKey" in str(error) else "--deposit", error)
    except OSError as error:
        _bad(parser, "--data-dir", error)
    venue = Venue((), None, store, lambda: time.time_ns() // 1_000_000, CollectorRegistry())
    key = venue.create_account(amounts, public_key)
    store.close()
    return key.answer()


if __name__ == "__main__":
    sys.exit(main())
