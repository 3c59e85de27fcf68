"""Runs tradingbot and freqtrade on one paper exchange and tells how long after a candle's close their orders fill.

make bench-peers LIVE=10: for ten minutes. Both buy or sell each minute, on accounts of their own, and the times are
the exchange's. Freqtrade's websockets are off: it asks for candles by REST.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from measure_peers import PEERS, environment, freqtrade_config

from paper_exchange.testing import PaperExchange, TestAccount, write_keys
from support.bot_process import by_hand, exchange_process

MINUTE_MS = 60_000


def manifest(exchange: str) -> dict[str, Any]:
    """Of ours."""
    return {
        "apiVersion": "tradingbot.dev/v1alpha1",
        "kind": "TradingBot",
        "metadata": {"name": "live"},
        "spec": {
            "symbol": "BTCUSDT",
            "exchange": {"environment": "Paper", "baseURL": exchange, "credentialsSecretRef": {"name": "keys"}},
            "strategy": {"name": "every-minute", "interval": "1m"},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.2", "takeProfitRatio": "0.2"},
            "risk": {"maxPositionValue": "100", "maxDailyLoss": "500", "riskPerTradeRatio": "0.1"},
        },
    }


@asynccontextmanager
async def running(folder: Path, command: list[str]) -> AsyncIterator[None]:
    """A program beside this one, ended with SIGTERM."""
    with (folder / f"{command[2]}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


async def measure(exchange: PaperExchange, freqtrade: Path, minutes: int, folder: Path) -> dict[str, list[int]]:
    """Milliseconds from the close to the first fill of each order, by program."""
    accounts = {name: await exchange.create_account(USDT="10000") for name in ("freqtrade", "tradingbot")}
    config = freqtrade_config(exchange.base_url)
    theirs = accounts["freqtrade"]
    config["exchange"] |= {"key": theirs.api_key, "secret": theirs.secret_key}
    config |= {"dry_run": False, "initial_state": "running"}
    config["order_types"] = dict.fromkeys(("entry", "exit", "stoploss"), "market") | {"stoploss_on_exchange": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "bot.yaml").write_text(yaml.safe_dump(manifest(exchange.base_url)))
    write_keys(folder / "keys", accounts["tradingbot"].api_key, accounts["tradingbot"].secret_key)
    async with AsyncExitStack() as stack:
        for command in (
            f"{freqtrade} -m freqtrade trade --config config.json --strategy EveryMinute --db-url sqlite:// "
            f"--strategy-path {PEERS} --userdir {folder}",
            f"{sys.executable} -m tradingbot run bot.yaml --credentials-dir keys --state-dir state "
            f"--strategies-dir {PEERS / 'own'}",
        ):
            await stack.enter_async_context(running(folder, command.split()))
        await asyncio.sleep(minutes * 60)
    return {name: await delays(exchange, account) for name, account in accounts.items()}


async def delays(exchange: PaperExchange, account: TestAccount) -> list[int]:
    """Of each order its first fill, counted from the minute's begin."""
    async with by_hand(exchange, account) as hand:
        first: dict[int, int] = {}
        for fill in await hand.trades("BTCUSDT", from_id=0):
            first.setdefault(fill.order_id, fill.time_ms % MINUTE_MS)
        return list(first.values())


async def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    options = parser.parse_args()
    freqtrade = environment("freqtrade")
    with (
        tempfile.TemporaryDirectory(prefix="tradingbot-peers-") as folder,
        exchange_process("--symbols=BTCUSDT") as addresses,
    ):
        async with aiohttp.ClientSession() as session:
            exchange = PaperExchange(*addresses, session)
            found = await measure(exchange, freqtrade, options.minutes, Path(folder))
    for name, times in found.items():
        text = f"median {statistics.median(times):.0f} ms, {min(times)} to {max(times)} ms" if times else "none"
        print(f"{name}: close of a candle to its fill, {len(times)} orders: {text}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
