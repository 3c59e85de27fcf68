"""The command `tradingbot-operator uninstall-check`: what an uninstall of the operator would leave behind."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import uvloop

from tradingbot_api import names
from tradingbot_api.base import canonical
from tradingbot_api.v1alpha1 import TradingBotStatus
from tradingbot_operator.cluster import Access, ApiError, Cluster, NotFoundError
from tradingbot_operator.inventory import SeenBot
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.settings import kubeconfig_of

TRIES: Final = 5
RETRY_SECONDS: Final = 2.0
SHOWN: Final = 50
"""Lines that a terminal still shows; the count says how many there are."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tradingbot-operator uninstall-check",
        description="Ends with 1 and says what would be left while TradingBots exist; with 0 when there is none.",
    )
    result.add_argument("--namespace", action="append", default=[], metavar="NAME", help="look here only; repeatable")
    result.add_argument("--hint", action="append", default=[], metavar="TEXT", help="what to say last; repeatable")
    result.add_argument("--kubeconfig", help="file to reach the cluster with; default: as the operator itself")
    return result


def report(bots: Sequence[SeenBot], hints: Sequence[str] = ()) -> str:
    """What stays when the operator goes, and what to do instead; `hints` come last."""
    rows = [("TRADINGBOT", "SYMBOL", "PHASE", "POSITION", "ORDERS")]
    rows += [
        (str(bot.key), str(bot.spec.get("symbol", "")), bot.told.phase or "unknown", _position(bot.told),
         _orders(bot.told))
        for bot in sorted(bots, key=lambda bot: bot.key)[:SHOWN]
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(bots) > SHOWN:
        table.append(f"and {len(bots) - SHOWN} more")
    namespaces = sorted({bot.key.namespace for bot in bots})
    return "\n".join(
        [
            f"not uninstalled: {len(bots)} TradingBot{'s' * (len(bots) != 1)} would be left without an operator",
            "",
            *table,
            "",
            "Their pods would run on: no new positions after 60 s, exits and protection as before. Nobody could put",
            "them into safe mode by their spec, and neither they nor their namespace could be deleted, as their",
            f"finalizer {names.FINALIZER} needs the operator. Delete them first; spec.deletionPolicy says what",
            "becomes of their positions:",
            "",
            *(f"    kubectl delete tradingbots --all --namespace {namespace}" for namespace in namespaces[:SHOWN]),
            "",
            *hints,
        ]
    )


def _position(status: TradingBotStatus) -> str:
    position = status.position
    if position is None:
        return "unknown"
    if position.side == "Flat":
        return "flat"
    return f"{canonical(position.quantity)} worth {canonical(position.value)}"


def _orders(status: TradingBotStatus) -> str:
    return "unknown" if status.orders is None else str(status.orders.active)


async def _bots(kubeconfig: str | None, namespaces: tuple[str, ...]) -> list[SeenBot]:
    cluster = Cluster(await Access.load(kubeconfig), Metrics())
    try:
        for tried in range(1, TRIES + 1):
            try:
                return [SeenBot.of(raw) for raw in await cluster.list_all(names.PLURAL, namespaces)]
            except NotFoundError:
                return []  # without the CRD there is none
            except ApiError:
                if tried == TRIES:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError("unreachable")
    finally:
        await cluster.close()


def check(arguments: Sequence[str]) -> int:
    """Prints what would be left; the exit code. SettingsError where the cluster cannot be reached as told."""
    options = parser().parse_args(arguments)
    kubeconfig = kubeconfig_of(options.kubeconfig)
    try:
        bots = uvloop.run(_bots(kubeconfig, tuple(sorted(set(options.namespace)))))
    except ApiError as error:
        sys.stdout.write(f"not uninstalled: whether TradingBots exist cannot be told: {error}\n")
        return 1
    sys.stdout.write(f"{report(bots, options.hint)}\n" if bots else "no TradingBot would be left without an operator\n")
    return 1 if bots else 0
