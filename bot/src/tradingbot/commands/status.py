"""`tradingbot status`: how a bot is, told by itself, or by its store and the exchange where none runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys

from tradingbot.app import BotApp
from tradingbot.commands.shared import Commands, add_command, log_json
from tradingbot.commands.status_text import status_lines
from tradingbot.commands.target import Target, add_target, find_target, own_options
from tradingbot.gateway.credentials import CredentialsMissingError
from tradingbot.gateway.errors import ExchangeError
from tradingbot.monitoring.local_api import LocalStatus, NoBotError, ask
from tradingbot.session import AccountChangedError
from tradingbot.state.store import StoreError

CANNOT_LOOK = (StoreError, ExchangeError, CredentialsMissingError, AccountChangedError)


def add(commands: Commands) -> None:
    """Add it."""
    status = add_command(
        commands,
        "status",
        _status,
        about="show a bot's position, protection, orders, safe mode and profit",
        more="A running bot is asked; where none runs, its store and the exchange are read, and nothing is changed. "
        "Ends with 0 when the status was told, 1 when it could not be read, 2 for bad input.",
        examples="""
            kubectl exec POD -- tradingbot status              in a bot's pod nothing else is needed
            kubectl exec POD -- tradingbot status --json
            tradingbot status bot.yaml                         of `tradingbot run bot.yaml`
            tradingbot status bot.yaml --credentials-dir keys  also where it does not run
            tradingbot status --state-dir DIR --credentials-dir keys
        """,
    )
    add_target(status)
    status.add_argument("--json", action="store_true", help="all that is known, as one JSON object")


def _status(options: argparse.Namespace) -> int:
    log_json(logging.ERROR)
    target = find_target(options)
    try:
        told, running = asyncio.run(look_at(target))
    except CANNOT_LOOK as error:
        print(f"error: the status cannot be read: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if options.json:
        text = json.dumps({"running": running, **told.model_dump(mode="json", by_alias=True)}, indent=2)
    else:
        text = "\n".join(status_lines(told, running=running))
    print(text)  # noqa: T201
    return 0


async def look_at(target: Target) -> tuple[LocalStatus, bool]:
    """How it is, and whether a bot runs that said so. UsageError, CANNOT_LOOK."""
    try:
        return await ask(target.state_dir), True
    except NoBotError:
        return await BotApp(await own_options(target)).look(), False
