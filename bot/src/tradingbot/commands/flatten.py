"""`tradingbot flatten`: closes a position and cancels entries by a person's word, and shows that it is done."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal

from tradingbot.app import STORE_FILE, BotApp
from tradingbot.commands.shared import Commands, UsageError, add_command, log_json
from tradingbot.commands.status import CANNOT_LOOK, look_at
from tradingbot.commands.status_text import position_text, status_lines
from tradingbot.commands.target import Target, add_target, find_target, own_options
from tradingbot.model import Side, TradeFill
from tradingbot.monitoring.local_api import LocalStatus, NoBotError, ask
from tradingbot.recovery.safe_mode import FLATTENED
from tradingbot.state.store import Store, StoreError
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotStatus

NOT_FLAT = 1
NOT_CONFIRMED = 3
LOOK_SECONDS = 0.5

Press = Callable[[], Awaitable[LocalStatus]]
"""Says flatten (again) and gives how the bot is after it."""


def add(commands: Commands) -> None:
    """Add it."""
    flatten = add_command(
        commands,
        "flatten",
        _flatten,
        about="sell a bot's position and cancel its entries, and open nothing until a human says so",
        more="A bot that runs is asked to do it. Where none runs, this process does it as the bot would, under its "
        "lock and a new incarnation. The protection stays until the sale is about to be sent. Afterwards safe mode "
        f"has the cause `{FLATTENED.id}`. Ends with 0 when the exchange's fills and balance show that nothing is "
        "held, 1 when they do not by then, 2 for bad input, 3 when it was not confirmed.",
        examples="""
            kubectl exec -it POD -- tradingbot flatten         asks for the symbol before anything is done
            kubectl exec POD -- tradingbot flatten --yes
            tradingbot flatten bot.yaml --credentials-dir keys also where `tradingbot run bot.yaml` does not run
            kubectl annotate tradingbot NAME tradingbot.dev/clear=flattened       and trade again
            tradingbot run bot.yaml --credentials-dir keys --clear flattened      the same without an operator
        """,
    )
    add_target(flatten)
    flatten.add_argument("--yes", action="store_true", help="do not ask")
    flatten.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="wait for it so long (default %(default)s); a running bot goes on after it",
    )


def _flatten(options: argparse.Namespace) -> int:
    log_json(logging.WARNING)
    target = find_target(options)
    try:
        before, running = asyncio.run(look_at(target))
        _say(*status_lines(before, running=running), "")
        if not running and is_flat(before.status):
            _say("nothing to close, and no bot runs: nothing was done")
            return 0
        # Between two loops: at a prompt in one, Ctrl-C would be heard with the next line only.
        if not (options.yes or _confirmed(before)):
            _say("not confirmed: nothing was done")
            return NOT_CONFIRMED
        after, sold = asyncio.run(_close(target, before.status, options.timeout, running=running))
        _say("", *result_lines(after, sold))
        return 0 if is_done(after.status, before.status) else NOT_FLAT
    except (*CANNOT_LOOK, NoBotError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return NOT_FLAT


async def _close(
    target: Target, before: BotStatus, seconds: float, *, running: bool
) -> tuple[LocalStatus, list[TradeFill]]:
    """How the bot is afterwards, and the sales since. NoBotError, StartError."""
    known = {fill.trade_id for fill in await _fills(target)}
    if running:
        _say("the bot was asked to do it")
        after = await until_done(lambda: ask(target.state_dir, flatten=True), before, seconds)
    else:
        log_json()  # with the audit log of what this process sends
        app = BotApp(await own_options(target, flatten=True))
        for number in (signal.SIGTERM, signal.SIGINT):  # also then it ends in order
            asyncio.get_running_loop().add_signal_handler(number, app.stop)
        after = await by_itself(app, before, seconds)
    return after, [fill for fill in await _fills(target) if fill.side is Side.SELL and fill.trade_id not in known]


def _confirmed(before: LocalStatus) -> bool:
    symbol = before.settings.symbol
    if not sys.stdin.isatty():
        raise UsageError(f"flatten: expected a terminal to type {symbol} at, or --yes")
    _say(f"sell the position ({position_text(before.status)}) and cancel entries? Type {symbol} to do it:")
    return sys.stdin.readline().strip() == symbol


async def by_itself(app: BotApp, before: BotStatus, seconds: float) -> LocalStatus:
    """Run this bot, which flattens, until it is done, at most so long, and end it in order.

    StartError; NoBotError where it was stopped.
    """
    running = asyncio.create_task(app.run())
    pressing = asyncio.create_task(until_done(app.local.flatten, before, seconds))
    try:
        await asyncio.wait([running, pressing], return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not pressing.done():
            await running  # StartError: another process came first
            raise NoBotError("stopped before it was done: the next start of the bot goes on with it")
        return await pressing
    finally:
        app.stop()
        pressing.cancel()
        await asyncio.gather(running, pressing, return_exceptions=True)


async def until_done(press: Press, before: BotStatus, seconds: float) -> LocalStatus:
    """Press until it is done, at most so long; tells of each change. What `press` raises."""
    loop = asyncio.get_running_loop()
    until, shown = loop.time() + seconds, ""
    while True:
        told = await press()
        if (now := progress_text(told.status)) != shown:
            shown = now
            _say(now)
        if is_done(told.status, before) or loop.time() >= until:
            return told
        await asyncio.sleep(LOOK_SECONDS)


def is_flat(status: BotStatus) -> bool:
    """Whether nothing that can be sold is held, and no order of the bot is open or of unknown outcome."""
    flat = status.position is not None and status.position.side == "Flat"
    return flat and not status.open_orders and not any(cause.id == "unknown-order" for cause in status.safe_mode.causes)


def is_done(status: BotStatus, before: BotStatus) -> bool:
    """Whether the account, read after `before`, agrees that nothing is held, and nothing can be bought any more."""
    synced = any(one.type == "BalanceSynced" and one.status == "True" for one in status.conditions)
    former = before.balance.last_sync_time if before.balance else None
    read = status.balance.last_sync_time if status.balance else None
    anew = read is not None and (former is None or read > former)
    return is_flat(status) and status.safe_mode.acknowledged and synced and anew


def progress_text(status: BotStatus) -> str:
    """How far it is, and what it waits for."""
    halted = [cause for cause in status.safe_mode.causes if cause.level == "Halted"]
    if halted:
        return f"nothing may be sent: {halted[0].reason}: {halted[0].clears}"
    problem = next((one for one in status.conditions if one.type == "BalanceSynced" and one.status != "True"), None)
    if status.position is None and problem is not None:
        return f"not connected: {problem.reason}: {problem.message}"
    held = "an unknown quantity" if status.position is None else canonical(status.position.quantity)
    return f"{held} held, {len(status.open_orders)} orders open"


def result_lines(after: LocalStatus, sold: list[TradeFill]) -> list[str]:
    """What was sold, by the exchange's fills, and what is left."""
    lines = []
    if sold:
        quantity = sum((fill.quantity for fill in sold), Decimal(0))
        proceeds = sum((fill.quote_quantity for fill in sold), Decimal(0))
        fees: dict[str, Decimal] = {}
        for fill in sold:
            fees[fill.commission_asset] = fees.get(fill.commission_asset, Decimal(0)) + fill.commission
        paid = ", ".join(f"{canonical(amount)} {asset}" for asset, amount in fees.items() if amount) or "none"
        trades = ", ".join(str(fill.trade_id) for fill in sold)
        each = canonical(round(proceeds / quantity, 8))
        lines.append(
            f"sold {canonical(quantity)} for {canonical(proceeds)} ({each} each), fees {paid}, trades {trades}"
        )
    return lines + status_lines(after, running=True)[2:]


async def _fills(target: Target) -> list[TradeFill]:
    """Of the exchange, as the store has them; none where it cannot be read."""
    try:
        store = await asyncio.to_thread(Store.snapshot, target.state_dir / STORE_FILE)
    except StoreError:
        return []
    try:
        return [booked.fill for booked in await store.fills()]
    finally:
        await store.close()


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)  # noqa: T201
