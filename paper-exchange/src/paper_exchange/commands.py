"""The commands about accounts and keys: on a running exchange through its control port, else on its directory."""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Never
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

# The exchange's modules are imported by who needs them: the command line must not wait for them.

_OPTIONS: Final = {
    "deposits": "--deposit",
    "withdrawals": "--amount",
    "publicKey": "--public-key",
    "ipAddresses": "--ip",
    "permissions": "--permission",
    "tradeGroupId": "--trade-group",
    "commission": "--commission",
    "body": "--can-trade",
    "uid": "UID",
    "key": "KEY",
}
"""The option behind a field that the exchange finds fault with."""

_EXAMPLES: Final = {
    name: "examples:\n" + "".join(f"  paper-exchange {line}\n" for line in lines)
    for name, lines in {
        "create_account": (
            "account create --deposit USDT=10000 --deposit BTC=1",
            "account create --deposit USDT=10000 --public-key public.pem --data-dir ./exchange --output json",
        ),
        "list_accounts": ("account list", "account list --data-dir ./exchange --output json"),
        "show_account": ("account show 100000001", "account show 100000001 --output json"),
        "deposit": ("account deposit 100000001 --deposit BTC=0.5 --deposit BNB=3",),
        "withdraw": ("account withdraw 100000001 --amount BTC=0.5",),
        "reset_account": ("account reset 100000001 --deposit USDT=10000",),
        "change_account": (
            "account set 100000001 --can-trade no",
            "account set 100000001 --trade-group 7 --permission SPOT",
            "account set 100000001 --commission standard.maker=0.0002 --commission BTCUSDT.standard.taker=0",
        ),
        "create_key": ("key create 100000001", "key create 100000001 --read-only --ip 127.0.0.1"),
        "list_keys": ("key list 100000001",),
        "delete_key": ("key delete 100000001 KEY",),
        "reset": (
            "reset --deposit USDT=10000 --deposit BTC=1",
            "reset --drop-accounts --data-dir ./exchange",
        ),
    }.items()
}

_RATE: Final = re.compile(r"(?:([A-Z0-9]+)\.)?((?:standard|special|tax)\.(?:maker|taker|buyer|seller)|discount)=(.+)")

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `account` and `key` to the command line."""
    actions = _group(commands, "account", "accounts of an exchange")
    create = _action(actions, "create", "create_account", "make an account with a key and money")
    _take_deposits(create)
    _take_terms(create)
    _action(actions, "list", "list_accounts", "the accounts with their balances")
    _take_uid(_action(actions, "show", "show_account", "balances, open orders and trades of an account"))
    deposit = _action(actions, "deposit", "deposit", "pay into an account")
    _take_uid(deposit)
    _take_deposits(deposit)
    withdraw = _action(actions, "withdraw", "withdraw", "pay out of what is free of an account")
    _take_uid(withdraw)
    withdraw.add_argument("--amount", action="append", type=_deposit, required=True, metavar="ASSET=AMOUNT")
    reset = _action(actions, "reset", "reset_account", "cancel all that is open and set the balances")
    _take_uid(reset)
    _take_deposits(reset)
    change = _action(actions, "set", "change_account", "what an account may do, and what it pays")
    _take_uid(change)
    change.add_argument("--can-trade", choices=("yes", "no"), help="whether it may place and cancel orders")
    change.add_argument("--permission", action="append", metavar="GROUP", help="SPOT, TRD_GRP_004, ...; replaces all")
    change.add_argument(
        "--trade-group", type=_trade_group, metavar="NUMBER", help="whom it must not trade with, or none"
    )
    change.add_argument(
        "--commission",
        action="append",
        type=_rate,
        metavar="[SYMBOL.]PART.SIDE=RATE",
        help="PART: standard, special or tax; SIDE: maker, taker, buyer or seller; or [SYMBOL.]discount=RATE, what BNB "
        "pays of the standard part; replaces all, what is not given is as for a new account",
    )
    actions = _group(commands, "key", "keys of an account")
    create = _action(actions, "create", "create_key", "make one more key")
    _take_uid(create)
    _take_terms(create)
    _take_uid(_action(actions, "list", "list_keys", "the keys of an account, without their secrets"))
    delete = _action(actions, "delete", "delete_key", "refuse a key from now on")
    _take_uid(delete)
    delete.add_argument("key", metavar="KEY", help="the API key")

    reset = _action(commands, "reset", "reset", "wipe orders, lists and trades, as the Testnet does about monthly")
    what = reset.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--deposit", action="append", type=_deposit, metavar="ASSET=AMOUNT", help="what each account has then"
    )
    what.add_argument("--drop-accounts", action="store_true", help="wipe accounts and keys too")


def _group(commands: Commands[argparse.ArgumentParser], name: str, told: str) -> Commands[argparse.ArgumentParser]:
    group = commands.add_parser(name, help=told, allow_abbrev=False)
    return group.add_subparsers(dest="action", required=True)


def _action(actions: Commands[argparse.ArgumentParser], name: str, action: str, told: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=told,
        description=f"{told[0].upper()}{told[1:]}.",
        epilog=_EXAMPLES[action],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(administer=action)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--control-url", default="http://127.0.0.1:8081", help="a running exchange (%(default)s)")
    where.add_argument("--data-dir", type=Path, help="the directory of an exchange that does not run")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _take_uid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uid", metavar="UID", help="the account")


def _take_deposits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deposit", action="append", type=_deposit, required=True, metavar="ASSET=AMOUNT")


def _take_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--public-key", type=Path, metavar="FILE", help="Ed25519 or RSA public key (PEM) instead of a secret"
    )
    parser.add_argument("--read-only", action="store_true", help="the key may not place or cancel orders")
    parser.add_argument("--ip", action="append", metavar="ADDRESS", help="the key may be used from there only")


def _deposit(value: str) -> tuple[str, str]:
    asset, separator, amount = value.partition("=")
    try:
        positive = Decimal(amount) > 0
    except InvalidOperation:
        positive = False
    if not separator or not asset.isalnum() or not positive:
        raise argparse.ArgumentTypeError(f"expected ASSET=AMOUNT such as USDT=10000, got {value!r}")
    return asset.upper(), amount


def _trade_group(value: str) -> int:
    if value == "none":
        return -1
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number such as 7, or none, got {value!r}")
    return int(value)


def _rate(value: str) -> tuple[list[str], str]:
    """The path to a rate, and the rate."""
    match = _RATE.fullmatch(value)
    if match is None:
        expected = "standard.maker=0.0002, BTCUSDT.tax.buyer=0.01 or discount=0.75"
        raise argparse.ArgumentTypeError(f"expected [SYMBOL.]PART.SIDE=RATE such as {expected}, got {value!r}")
    symbol, name, rate = match.groups()
    return [symbol or "default", *name.split(".")], rate


def bad(parser: argparse.ArgumentParser, option: str, error: object) -> Never:
    """End with code 2: this option was wrong."""
    parser.error(f"argument {option}: {error}")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Do what was asked and print the answer."""
    place = {name: getattr(options, name) for name in ("uid", "key") if hasattr(options, name)}
    do = _offline if options.data_dir else _online
    answer = do(parser, options, place, _body(parser, options))
    if options.output == "json":
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        rows = ((name, one if isinstance(one, (str, int)) else json.dumps(one)) for name, one in answer.items())
        sys.stdout.write("".join(f"{name:<10} {value}\n" for name, value in rows))
    return 0


def _body(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as the control port takes it."""
    given = vars(options)
    body: dict[str, Any] = {}
    if given.get("deposit"):
        body["deposits"] = dict(options.deposit)
    if given.get("amount"):
        body["withdrawals"] = dict(options.amount)
    if given.get("drop_accounts"):
        body["dropAccounts"] = True
    if given.get("public_key"):
        try:
            body["publicKey"] = options.public_key.read_text()
        except (OSError, UnicodeDecodeError) as error:
            bad(parser, "--public-key", error)
    if given.get("read_only"):
        body["permissions"] = ["USER_DATA"]
    if given.get("ip"):
        body["ipAddresses"] = options.ip
    if given.get("can_trade"):
        body["canTrade"] = options.can_trade == "yes"
    if given.get("permission"):
        body["permissions"] = options.permission
    if given.get("trade_group") is not None:
        body["tradeGroupId"] = options.trade_group
    for path, rate in given.get("commission") or ():
        inner = body.setdefault("commission", {})
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = rate
    return body


def _online(
    parser: argparse.ArgumentParser, options: argparse.Namespace, place: Mapping[str, str], body: dict[str, Any]
) -> dict[str, Any]:
    from paper_exchange.administration import ROUTES

    if not options.control_url.startswith(("http://", "https://")):
        bad(parser, "--control-url", f"expected an address such as http://127.0.0.1:8081, got {options.control_url!r}")
    method, path = ROUTES[options.administer]
    request = urllib.request.Request(  # noqa: S310, the scheme was checked
        options.control_url.rstrip("/") + path.format(**{name: quote(value, safe="") for name, value in place.items()}),
        method=method,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310, the scheme was checked
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace")
        _refused(parser, json.loads(told).get("error", told) if told.startswith("{") else told)
    except (urllib.error.URLError, TimeoutError) as error:
        bad(parser, "--control-url", f"no paper exchange answers at {options.control_url}: {error}")


def _offline(
    parser: argparse.ArgumentParser, options: argparse.Namespace, place: Mapping[str, str], body: dict[str, Any]
) -> dict[str, Any]:
    import time

    from prometheus_client import CollectorRegistry

    from paper_exchange.administration import Administration
    from paper_exchange.amounts import ControlInvalidError
    from paper_exchange.core.symbols import SYMBOLS
    from paper_exchange.store import Store
    from paper_exchange.venue import Venue

    try:
        store = Store(options.data_dir)
    except OSError as error:
        bad(parser, "--data-dir", error)
    try:
        venue = Venue(SYMBOLS, None, store, lambda: time.time_ns() // 1_000_000, CollectorRegistry())
        return Administration(venue).actions[options.administer](place, body)
    except ControlInvalidError as error:
        _refused(parser, str(error))
    finally:
        store.close()


def _refused(parser: argparse.ArgumentParser, told: str) -> Never:
    field = told.partition(":")[0].partition(".")[0]
    bad(parser, _OPTIONS.get(field, field), told)
